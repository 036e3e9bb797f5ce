"""`key`: equal keys in order and never at once, others side by side, and none keeps the workers from the rest."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from calls import Calls, Item, account

from event_flow import AppEngine, Batch, Event
from event_flow.core.keyed import KeyedLane


def items(text: str) -> list[Item]:
    """`"a1 b1"` are events with the keys a and b."""
    return [Item(each) for each in text.split()]


def first_letter(event: Event[str]) -> str:
    return event.data[0]


def keyed(calls: Calls, **options: Any) -> AppEngine:
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, key=first_letter, **options)
    return engine


# -- order -----------------------------------------------------------------------------------------------------------


async def test_a_batch_holds_events_of_one_key_in_order() -> None:
    calls = Calls()
    engine = keyed(calls)
    await engine.pub_events(items("a1 b1 a2 c1 b2 a3"))
    async with engine:
        await engine.wait_idle()
    assert calls.data == [["a1", "a2", "a3"], ["b1", "b2"], ["c1"]]
    assert [call.batch.key for call in calls.begun if call.batch is not None] == ["a", "b", "c"]
    assert account(engine.report) == {"handled": 6}


async def test_equal_keys_never_run_at_once_and_different_ones_do() -> None:
    calls = Calls(held=True)
    engine = keyed(calls, concurrency=3, max_batch=1)
    async with engine:
        await engine.pub_events(items("a1 a2 b1 a3 c1 d1 b2"))
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [["a1"], ["b1"], ["c1"]]
        for letting_go, following in (("b1", "d1"), ("c1", None), ("a1", "b2"), ("d1", "a2")):
            calls.let(letting_go)
            await anyio.wait_all_tasks_blocked()
            if following is not None:
                assert [following] in calls.working
        calls.open()
    assert [data for (data,) in calls.data if data.startswith("a")] == ["a1", "a2", "a3"]
    assert calls.most_at_work == 3


async def test_a_worker_that_has_only_keys_at_work_waits() -> None:
    calls = Calls(held=True)
    engine = keyed(calls, concurrency=5, max_batch=1)
    async with engine:
        await engine.pub_events(items("a1 a2 a3 b1 b2"))
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [["a1"], ["b1"]]
        await engine.pub_events(items("b3 c1"))
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [["a1"], ["b1"], ["c1"]]
        calls.open()
    assert account(engine.report) == {"handled": 7}


@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("linger", [0.0, 0.001])
async def test_order_within_a_key_holds_whatever_the_calls_take(concurrency: int, linger: float) -> None:
    """*Design promise 1*."""
    drawn = random.Random(concurrency)
    seen: dict[str, list[int]] = {}
    at_work: set[str] = set()

    async def handle(batch: Batch[Item]) -> None:
        assert isinstance(batch.key, str)
        assert batch.key not in at_work
        at_work.add(batch.key)
        for _ in range(drawn.randrange(4)):
            await checkpoint()
        seen.setdefault(batch.key, []).extend(event.data[1] for event in batch)
        at_work.remove(batch.key)

    async def publish(key: str) -> None:
        for number in range(60):
            await engine.pub_event(Item((key, number)))
            if drawn.random() < 0.3:
                await checkpoint()

    engine = AppEngine(queue_size=10, max_batch=4)
    engine.register_handler(
        Item, handle, key=lambda event: event.data[0], concurrency=concurrency, linger=linger
    )
    async with engine, anyio.create_task_group() as group:
        for key in "abcde":
            group.start_soon(publish, key)
    assert seen == {key: list(range(60)) for key in "abcde"}
    assert account(engine.report) == {"handled": 300}


async def test_sync_handlers_keep_to_their_keys_too() -> None:
    at_work: set[str] = set()
    most: list[int] = []
    seen: dict[str, list[int]] = {}
    lock = threading.Lock()

    def handle(batch: Batch[Item]) -> None:
        key = str(batch.key)
        with lock:
            assert key not in at_work
            at_work.add(key)
            most.append(len(at_work))
        time.sleep(0)
        with lock:
            seen.setdefault(key, []).extend(event.data[1] for event in batch)
            at_work.remove(key)

    engine = AppEngine()
    engine.register_handler(Item, handle, key=lambda event: event.data[0], concurrency=3, max_batch=2)
    await engine.pub_events(Item(("abcd"[number % 4], number)) for number in range(80))
    async with engine:
        await engine.wait_idle()
    assert seen == {key: list(range(place, 80, 4)) for place, key in enumerate("abcd")}
    assert max(most) <= 3


# -- fairness --------------------------------------------------------------------------------------------------------


async def test_a_hot_key_is_served_once_a_round() -> None:
    calls = Calls()
    engine = keyed(calls, max_batch=2)
    await engine.pub_events(items("h1 h2 h3 h4 h5 h6 b1 c1 b2 b3"))
    async with engine:
        await engine.wait_idle()
    assert calls.data == [["h1", "h2"], ["b1", "b2"], ["c1"], ["h3", "h4"], ["b3"], ["h5", "h6"]]


async def test_a_hot_key_holds_one_worker_and_the_others_serve_the_rest() -> None:
    calls = Calls(held=True)
    engine = keyed(calls, concurrency=2, max_batch=1)
    async with engine:
        await engine.pub_events(items("h1 h2 h3 h4"))
        await anyio.wait_all_tasks_blocked()
        for name in ("b1", "c1", "b2"):
            await engine.pub_event(Item(name))
            await anyio.wait_all_tasks_blocked()
            assert calls.working == [["h1"], [name]]
            calls.let(name)
            await anyio.wait_all_tasks_blocked()
        calls.open()
    assert account(engine.report) == {"handled": 7}


async def test_when_the_lane_is_full_publishers_of_all_keys_wait() -> None:
    calls = Calls(held=True)
    engine = keyed(calls, concurrency=2, max_batch=1, queue_size=2)
    async with engine, anyio.create_task_group() as group:
        await engine.pub_event(Item("h1"))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events(items("h2 h3"))
        with pytest.raises(anyio.WouldBlock):
            engine.pub_event_nowait(Item("b1"))
        group.start_soon(engine.pub_event, Item("b1"))
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [["h1"]]
        calls.let("h1")
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [["h2"], ["b1"]]
        calls.open()


# -- linger, and the end ---------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
async def test_each_key_lingers_by_itself() -> None:
    calls = Calls()
    engine = keyed(calls, linger=1.0, max_batch=3)
    async with engine:
        await engine.pub_events(items("a1 a2"))
        await anyio.sleep(0.5)
        await engine.pub_events(items("b1 c1 c2 c3"))
        await engine.wait_idle()
    assert calls.data == [["c1", "c2", "c3"], ["a1", "a2"], ["b1"]]
    assert calls.times == [0.5, 1.0, 1.5]
    assert calls.closed_by == ["size", "linger", "linger"]


@pytest.mark.virtual_clock
async def test_time_spent_behind_another_call_of_its_key_counts() -> None:
    calls = Calls(takes=5.0)
    engine = keyed(calls, linger=2.0, max_batch=2, concurrency=2)
    async with engine:
        await engine.pub_events(items("a1 a2"))  # at work from 0 to 5
        await anyio.sleep(1)
        await engine.pub_event(Item("a3"))
        await anyio.sleep(3.5)
        await engine.pub_event(Item("b1"))
        await engine.wait_idle()
    assert calls.data == [["a1", "a2"], ["a3"], ["b1"]]
    assert calls.times == [0, 5, 6.5]


@pytest.mark.parametrize("ending", ["drain", "full", "publisher waits"])
async def test_what_ends_a_linger_ends_that_of_all_keys(ending: str) -> None:
    calls = Calls()
    engine = keyed(calls, linger=3600.0, queue_size=100 if ending == "drain" else 4)
    async with engine:
        await engine.pub_events(items("a1 b1 a2"))
        await anyio.wait_all_tasks_blocked()
        assert calls.data == []
        if ending == "full":
            await engine.pub_event(Item("c1"))
            await engine.wait_idle()
            assert len(calls.data) == 3
        elif ending == "publisher waits":
            await engine.pub_events(items("c1 d1"))
            await anyio.wait_all_tasks_blocked()
            assert calls.data[0] == ["a1", "a2"]
    assert calls.data[:2] == [["a1", "a2"], ["b1"]]
    assert calls.closed_by[0] == ("drain" if ending == "drain" else "size")
    assert engine.report is not None
    assert engine.report.is_clean


@pytest.mark.parametrize("ending", ["drain", "no grace", "cancel"])
async def test_the_end_accounts_for_every_key(ending: str) -> None:
    calls = Calls(held=True)
    engine = AppEngine(grace_period=10 if ending == "drain" else 0)
    engine.register_handler(Item, calls.handle, key=first_letter, concurrency=2, max_batch=1)
    with anyio.CancelScope() as scope:
        async with engine:
            await engine.pub_events(items("a1 a2 b1 c1 b2"))
            await anyio.wait_all_tasks_blocked()
            assert calls.working == [["a1"], ["b1"]]
            if ending == "drain":
                calls.open()
            elif ending == "cancel":
                scope.cancel()
    if ending == "drain":
        assert account(engine.report) == {"handled": 5}
    else:
        assert sorted(call.data for call in calls.cancelled) == [["a1"], ["b1"]]
        assert account(engine.report) == {"abandoned": 5}


async def test_a_cancelled_publisher_has_published_nothing() -> None:
    calls = Calls(held=True)
    engine = keyed(calls, queue_size=1, max_batch=1)
    async with engine:
        for event in items("a1 a2"):
            await engine.pub_event(event)
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(engine.pub_event, Item("b1"))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        calls.open()
    assert account(engine.report) == {"handled": 2}


async def test_a_second_run_knows_no_key_of_the_first() -> None:
    calls = Calls(held=True)
    engine = AppEngine(grace_period=0)
    engine.register_handler(Item, calls.handle, key=first_letter)
    for run in range(2):
        async with engine:
            await engine.pub_events(items(f"a{run} b{run}"))
            await anyio.wait_all_tasks_blocked()
    assert calls.data == [["a0"], ["a1"]]
    assert account(engine.report) == {"abandoned": 2}


# -- turns of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 20), (1.0, 1)], ids=["quick", "slow"])
async def test_others_get_a_turn_after_twenty_events_or_a_millisecond(seconds: float, most: int) -> None:
    """Where each event is of another key: a turn after every batch would cost more than the calls."""
    told = 0.0
    order: list[str] = []
    engine = AppEngine()

    @engine.on_event(Item, key=lambda event: event.data)
    async def handle(events: list[Item]) -> None:
        nonlocal told
        told += seconds
        order.append("handler")

    async with engine:
        (lane,) = engine._bus.router.lanes
        assert isinstance(lane, KeyedLane)
        lane.clock = lambda: told
        await engine.pub_events([Item(str(number)) for number in range(100)])
        while order.count("handler") < 100:
            await checkpoint()
            order.append("other")
    runs = "".join("h" if each == "handler" else " " for each in order).split()
    # Twice as many where Trio has the worker last in one pass of its loop and first in the next.
    assert most <= max(map(len, runs)) <= 2 * most

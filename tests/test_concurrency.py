"""`concurrency`: several calls of one handler at once, and what that changes at the end and where handlers wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from calls import Calls, Item, account

from event_flow import AppEngine, Application, Event, ExceptionEvent


class Other(Event[int]):
    pass


async def begin(engine: AppEngine, *data: Any) -> None:
    """Publish one by one, so that each event is in a call of its own where a worker is free."""
    for each in data:
        await engine.pub_event(Item(each))
        await anyio.wait_all_tasks_blocked()


# -- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes_batch", [False, True], ids=["list", "Batch"])
@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_so_many_calls_are_at_work_at_once_and_no_more(concurrency: int, takes_batch: bool) -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=2)
    handler: Any = calls.handle_batch if takes_batch else calls.handle
    engine.register_handler(Item, handler, concurrency=concurrency)
    async with engine:
        await begin(engine, *range(concurrency + 3))
        assert calls.working == [[number] for number in range(concurrency)]
        (statistics,) = engine.statistics().handlers.values()
        assert (statistics.running, statistics.queued) == (concurrency, 3)
        # The next batches, in order, as soon as anybody is free.
        calls.let(concurrency - 1)
        await anyio.wait_all_tasks_blocked()
        assert calls.working[-1] == [concurrency, concurrency + 1]
        calls.open()
        await engine.wait_idle()
        assert calls.most_at_work == concurrency
    assert account(engine.report) == {"handled": concurrency + 3}


async def test_idle_means_that_every_call_has_ended() -> None:
    calls = Calls(held=True)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, concurrency=2)
    is_idle = anyio.Event()

    async def wait() -> None:
        await engine.wait_idle()
        is_idle.set()

    async with engine, anyio.create_task_group() as group:
        await begin(engine, 0, 1)
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        calls.let(0)
        await anyio.wait_all_tasks_blocked()
        assert not is_idle.is_set()
        calls.let(1)
        await is_idle.wait()


async def test_sync_calls_run_in_as_many_threads() -> None:
    together = threading.Barrier(3)
    threads: set[int] = set()

    def handle(events: list[Item]) -> None:
        threads.add(threading.get_ident())
        together.wait(10)  # broken unless three are there at once

    engine = AppEngine(max_threads=5)
    engine.register_handler(Item, handle, concurrency=3, max_batch=1)
    await engine.pub_events(map(Item, range(6)))
    async with engine:
        await engine.wait_idle()
    assert len(threads) == 3
    assert account(engine.report) == {"handled": 6}


async def test_sync_calls_share_the_threads_of_the_engine() -> None:
    most, at_work = 0, 0
    lock = threading.Lock()

    def handle(events: list[Item]) -> None:
        nonlocal most, at_work
        with lock:
            at_work += 1
            most = max(most, at_work)
        with lock:
            at_work -= 1

    engine = AppEngine(max_threads=2)
    engine.register_handler(Item, handle, concurrency=5, max_batch=1)
    await engine.pub_events(map(Item, range(50)))
    async with engine:
        await engine.wait_idle()
    assert most <= 2
    assert account(engine.report) == {"handled": 50}


async def test_a_failing_call_leaves_the_others_alone() -> None:
    calls = Calls(held=True)
    failures: list[ExceptionEvent] = []
    engine = AppEngine(max_batch=1)

    async def handle(events: list[Item]) -> None:
        if events[0].data == "bad":
            raise ValueError("bad")
        await calls.handle(events)

    async def on_failure(events: list[ExceptionEvent]) -> None:
        failures.extend(events)

    engine.register_handler(Item, handle, concurrency=2)
    engine.register_handler(ExceptionEvent, on_failure)
    async with engine:
        await begin(engine, 0, "bad", 1)
        assert calls.working == [[0], [1]]
        calls.open()
    assert [[event.data for event in failure.events] for failure in failures] == [["bad"]]
    assert account(engine.report) == {"handled": 3, "failed": 1}


async def test_each_batch_that_is_taken_lets_publishers_go_on() -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, calls.handle, concurrency=2, queue_size=1)
    made: list[int] = []

    async def publish(number: int) -> None:
        await engine.pub_event(Item(number))
        made.append(number)

    async with engine, anyio.create_task_group() as group:
        await begin(engine, 0, 1, 2)
        for number in range(3, 6):
            group.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        assert (calls.working, made) == ([[0], [1]], [])
        calls.let(1)
        await anyio.wait_all_tasks_blocked()
        assert (calls.working, made) == ([[0], [2]], [3])
        calls.open()
    assert calls.data == [[number] for number in range(6)]


# -- deadlock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_calls_that_publish_to_their_own_handler_never_wait_for_it(concurrency: int) -> None:
    """*Design promise 3*: all of its calls may publish, and none would be left to take anything."""
    handled: list[int] = []
    engine = AppEngine(max_batch=1)

    async def handle(events: list[Item]) -> None:
        for event in events:
            await checkpoint()
            handled.append(event.data)
            for _ in range(2 if event.data else 0):
                await engine.pub_event(Item(event.data - 1))

    engine.register_handler(Item, handle, concurrency=concurrency, queue_size=1)
    with anyio.fail_after(20):
        async with engine:
            await engine.pub_event(Item(6))
    assert sorted(handled) == sorted(6 - depth for depth in range(7) for _ in range(2**depth))
    assert engine.statistics().over_limit > 0


@pytest.mark.parametrize("concurrency", [(1, 2), (2, 2), (3, 1)])
async def test_handlers_that_publish_to_each_other_never_wait_in_a_circle(
    concurrency: tuple[int, int],
) -> None:
    engine = AppEngine(max_batch=1)
    handled: list[int] = []

    async def there(events: list[Item]) -> None:
        for event in events:
            handled.append(event.data)
            await checkpoint()
            for _ in range(2 if event.data else 0):
                await engine.pub_event(Other(event.data - 1))

    async def back(events: list[Other]) -> None:
        for event in events:
            handled.append(event.data)
            await checkpoint()
            for _ in range(2 if event.data else 0):
                await engine.pub_event(Item(event.data - 1))

    engine.register_handler(Item, there, concurrency=concurrency[0], queue_size=1)
    engine.register_handler(Other, back, concurrency=concurrency[1], queue_size=1)
    with anyio.fail_after(20):
        async with engine:
            await engine.pub_event(Item(6))
    assert len(handled) == 2**7 - 1
    assert account(engine.report) == {"handled": 2**7 - 1}


async def test_a_handler_waits_as_long_as_any_of_its_calls_does() -> None:
    """The relation that tells of circles counts calls: one that goes on does not answer for the other."""
    slow = Calls(held=True)
    engine = AppEngine(max_batch=1)

    async def forward(events: list[Item]) -> None:
        await engine.pub_event(Other(events[0].data))

    async def receive(events: list[Other]) -> None:
        await slow._work(events)
        await engine.pub_event(Item(99)) if events[0].data < 2 else None

    engine.register_handler(Item, forward, concurrency=2, queue_size=1)
    engine.register_handler(Other, receive, queue_size=1)
    forwarding, receiving = "engine.forward", "engine.receive"
    async with engine:
        # One call at work and one queued in `receive`: two calls of `forward` wait for room there, and its queue is full.
        await begin(engine, *range(5))
        lanes = {lane.name: lane for lane in engine._bus.router.lanes}
        assert lanes[forwarding].waits_for[lanes[receiving]] == 2
        slow.let()  # publishes back: to wait would close a circle
        await anyio.wait_all_tasks_blocked()
        assert engine.statistics().handlers[forwarding].over_limit == 1
        # One of them went on, and the next event has taken its place.
        assert lanes[forwarding].waits_for[lanes[receiving]] == 2
        slow.open()
        await engine.wait_idle()
        assert not lanes[forwarding].waits_for
    assert engine.report is not None
    assert engine.report.is_clean


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_all_workers_drain() -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, calls.handle, concurrency=3)
    async with engine:
        await begin(engine, *range(8))
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        calls.let(1)
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [[0], [2], [3]]
        calls.open()
    assert account(engine.report) == {"handled": 8}


@pytest.mark.parametrize("takes_batch", [False, True], ids=["list", "Batch"])
@pytest.mark.parametrize("ending", ["no grace", "cancel"])
async def test_a_hard_stop_cancels_every_call_and_abandons_all_of_it(ending: str, takes_batch: bool) -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1, grace_period=0)
    handler: Any = calls.handle_batch if takes_batch else calls.handle
    engine.register_handler(Item, handler, concurrency=3)
    with CancelScope() as scope:
        async with engine:
            await begin(engine, *range(5))
            if ending == "cancel":
                scope.cancel()
    assert sorted(call.data for call in calls.cancelled) == [[0], [1], [2]]
    assert account(engine.report) == {"abandoned": 5}


async def test_all_calls_are_cancelled_before_the_first_exit_hook() -> None:
    calls = Calls(held=True)

    class Last(Application):
        at_work: int | None = None

        async def exit(self) -> None:
            await anyio.wait_all_tasks_blocked()
            self.at_work = len(calls.at_work)

    app = Last()
    engine = AppEngine([app], max_batch=1, grace_period=0)
    engine.register_handler(Item, calls.handle, concurrency=3)
    async with engine:
        await begin(engine, *range(4))
        assert len(calls.at_work) == 3
    assert app.at_work == 0


@pytest.mark.virtual_clock
async def test_workers_that_do_not_end_are_named_one_by_one() -> None:
    engine = AppEngine(max_batch=1, grace_period=0, exit_timeout=1)

    async def stubborn(events: list[Item]) -> None:
        with CancelScope(shield=events[0].data != 1):
            await anyio.sleep(100)

    engine.register_handler(Item, stubborn, concurrency=4)
    async with engine:
        await engine.pub_events(map(Item, range(3)))
        await anyio.sleep(1)
    assert engine.report is not None
    assert len(engine.report.tasks_left) == 2
    assert set(engine.report.tasks_left) < {f"engine.stubborn{place}" for place in ("", "[1]", "[2]", "[3]")}


async def test_a_second_run_has_workers_of_its_own() -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1, grace_period=0)
    engine.register_handler(Item, calls.handle, concurrency=2)
    for _ in range(2):
        async with engine:
            await begin(engine, 0, 1, 2)
            assert calls.working == [[0], [1]]
        assert account(engine.report) == {"abandoned": 3}


def test_a_call_that_cancels_its_own_task_costs_no_worker() -> None:
    """Only asyncio has tasks that can be cancelled by themselves."""

    async def main() -> None:
        calls = Calls()
        engine = AppEngine(max_batch=1)

        async def handle(events: list[Item]) -> None:
            await calls.handle(events)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        engine.register_handler(Item, handle, concurrency=2)
        async with engine:
            await begin(engine, *range(4))
            await engine.pub_events(map(Item, range(4, 12)))
            await engine.wait_idle()
            assert len(calls.ended) == 12
        assert engine.report is not None
        assert engine.report.is_clean

    anyio.run(main, backend="asyncio")

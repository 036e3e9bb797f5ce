"""What a key is: a function or an entry of the data, equal or not, and what becomes of an event that has none."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from calls import Calls, Item, account
from weak import no_collector, publish_weakly, still_alive

from event_flow import AppEngine, Application, Batch, Event, ExceptionEvent, Retry, on_event
from event_flow.core.handler_options import Overflow
from event_flow.core.keyed import KeyedLane

# -- what a key is ---------------------------------------------------------------------------------------------------


async def test_a_str_names_an_entry_of_the_data() -> None:
    class Trade(Event[dict[str, Any]]):
        pass

    batches: list[tuple[Any, list[int]]] = []

    class App(Application):
        @on_event(Trade, key="symbol")
        async def trades(self, batch: Batch[Trade]) -> None:
            batches.append((batch.key, [trade.data["price"] for trade in batch]))

    engine = AppEngine([App()])
    await engine.pub_events(Trade({"symbol": "xy"[price % 2], "price": price}) for price in range(4))
    async with engine:
        await engine.wait_idle()
    assert batches == [("x", [0, 2]), ("y", [1, 3])]


@pytest.mark.parametrize(
    ("keys", "batches"),
    [
        ([None, None, None], [[0, 1, 2]]),
        ([1, True, 1.0], [[0, 1, 2]]),
        ([(1, "a"), (1, "b"), (1, "a")], [[0, 2], [1]]),
        ([float("nan"), float("nan")], [[0], [1]]),  # not equal, so not the same
    ],
)
async def test_keys_are_the_same_when_they_are_equal(keys: list[Any], batches: list[list[int]]) -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, key=lambda event: keys[event.data])
    await engine.pub_events(map(Item, range(len(keys))))
    async with engine:
        await engine.wait_idle()
    assert calls.data == batches


class NotComparable:
    """Has the hash of all its like, and fails when it is to be compared with one of them."""

    def __eq__(self, other: object) -> bool:
        raise OSError("incomparable")

    def __hash__(self) -> int:
        return 1


def raises(event: Event[Any]) -> str:
    raise LookupError("no key")


def is_incomparable(event: Event[Any]) -> NotComparable:
    return NotComparable()


def list_of(event: Event[Any]) -> Any:
    return [event.data]


@pytest.mark.parametrize(
    ("key", "error", "fails"),
    [
        (raises, LookupError, 3),
        (list_of, TypeError, 3),  # it has no hash
        ("symbol", TypeError, 3),  # data is no mapping
        (is_incomparable, OSError, 2),  # the first is compared with none
    ],
)
@pytest.mark.parametrize("when", ["before", "running"])
async def test_a_key_that_fails_is_a_failure_of_the_handler_and_of_nobody_else(
    key: str | Callable[[Event[Any]], Any], error: type[Exception], fails: int, when: str
) -> None:
    """What has no key is an event of its own; the publisher has published it, and the other handler gets it."""
    calls, other = Calls(held=True), Calls()
    failures: list[ExceptionEvent] = []
    engine = AppEngine()

    async def on_failure(events: list[ExceptionEvent]) -> None:
        failures.extend(events)

    engine.register_handler(Item, calls.handle, key=key)
    engine.register_handler(Item, other.handle)
    engine.register_handler(ExceptionEvent, on_failure)
    published = [Item(number) for number in range(3)]
    if when == "before":
        await engine.pub_events(published)
    async with engine:
        if when == "running":
            await engine.pub_events(published)
        await anyio.wait_all_tasks_blocked()
        calls.open()
        await engine.wait_idle()
    assert [failure.events for failure in failures] == [(event,) for event in published[3 - fails :]]
    assert {type(failure.data) for failure in failures} == {error}
    assert [number for data in other.data for number in data] == [0, 1, 2]
    assert engine.report is not None
    assert engine.report.failed == fails


class Row:
    """Like that of an object-relational mapper: equal by its primary key, and without a hash once it is deleted."""

    def __init__(self, primary_key: int) -> None:
        self.primary_key: int | None = primary_key

    def delete(self) -> None:
        self.primary_key = None

    def __eq__(self, other: object) -> bool:
        if self.primary_key is None:
            raise TypeError("deleted")
        return isinstance(other, Row) and self.primary_key == other.primary_key

    def __hash__(self) -> int:
        if self.primary_key is None:
            raise TypeError("deleted")
        return hash(self.primary_key)


@pytest.mark.parametrize("overflow", ["wait", "latest"])
async def test_a_key_may_lose_its_hash_while_it_is_at_work(overflow: Overflow) -> None:
    """It is needed no more: what becomes of a key is the handler's business."""
    deleted: list[int | None] = []
    engine = AppEngine()

    async def delete(events: list[Item]) -> None:
        for event in events:
            deleted.append(event.data.primary_key)
            event.data.delete()

    engine.register_handler(Item, delete, key=lambda event: event.data, overflow=overflow)
    async with engine:
        for number in (1, 2, 1):
            await engine.pub_event(Item(Row(number)))
            await engine.wait_idle()
        (lane,) = engine._bus.router.lanes
        assert isinstance(lane, KeyedLane)
        assert not lane._keys
    assert deleted == [1, 2, 1]
    assert account(engine.report) == {"handled": 3}


class FailsTheSecondTime:
    """Has a hash, but not for long."""

    def __init__(self) -> None:
        self.asked = 0

    def __hash__(self) -> int:
        self.asked += 1
        if self.asked > 1:
            raise OSError("asked before")
        return 1


@pytest.mark.parametrize("options", [{}, {"overflow": "drop_oldest", "queue_size": 1}])
async def test_a_key_is_asked_for_its_hash_once(options: dict[str, Any]) -> None:
    """*Design promise 5*: what is delivered to one handler is not refused by the key of another."""
    calls, other = Calls(held=True), Calls()
    engine = AppEngine()
    engine.register_handler(Item, other.handle)
    engine.register_handler(Item, calls.handle, key=lambda event: event.data, **options)
    published = [Item(FailsTheSecondTime()) for _ in range(3)]
    async with engine:
        for event in published:
            await engine.pub_event(event)
            await anyio.wait_all_tasks_blocked()
        calls.open()
        await engine.wait_idle()
    assert [key for keys in other.data for key in keys] == [event.data for event in published]
    dropped = 1 if options else 0
    assert account(engine.report) == {"handled": 6 - dropped, **({"dropped": dropped} if dropped else {})}


class Crowded:
    """Of all its like, each of which is equal to itself alone, it has the hash."""

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest"])
async def test_keys_that_have_one_hash_are_kept_apart(overflow: Overflow) -> None:
    """They come and go in another order than they are kept in."""
    keys = [Crowded() for _ in range(4)]
    batches: list[tuple[int, list[int]]] = []
    engine = AppEngine()

    async def handle(batch: Batch[Item]) -> None:
        key: Any = batch.key
        batches.append((keys.index(key), [event.data[1] for event in batch]))

    engine.register_handler(
        Item, handle, key=lambda event: event.data[0], overflow=overflow, queue_size=len(keys) + 1
    )
    async with engine:
        (lane,) = engine._bus.router.lanes
        assert isinstance(lane, KeyedLane)
        engine.handlers[lane.name].pause()
        for number, key in enumerate((2, 0, 3, 1, 0)):
            await engine.pub_event(Item((keys[key], number)))
        if overflow == "drop_oldest":
            await engine.pub_events(Item((keys[3], number)) for number in (5, 6))
        engine.handlers[lane.name].resume()
        await engine.wait_idle()
        assert not lane._keys
    if overflow == "wait":
        assert batches == [(2, [0]), (0, [1, 4]), (3, [2]), (1, [3])]
    else:
        assert batches == [(0, [4]), (3, [2, 5, 6]), (1, [3])]


@pytest.mark.parametrize("overflow", ["wait", "latest"])
async def test_keys_that_have_one_hash_are_abandoned_together(overflow: Overflow) -> None:
    calls = Calls()
    engine = AppEngine(grace_period=0)
    engine.register_handler(Item, calls.handle, key=lambda event: event.data, overflow=overflow)
    async with engine:
        (name,) = engine.handlers
        engine.handlers[name].pause()
        await engine.pub_events(Item(Crowded()) for _ in range(3))
    assert account(engine.report) == {"abandoned": 3}


async def test_a_failing_key_stops_no_other_key() -> None:
    def fussy(event: Event[str]) -> str:
        if event.data == "bad":
            raise ValueError(event.data)
        return event.data[0]

    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, key=fussy)
    await engine.pub_events(map(Item, ("a1", "bad", "a2", "bad", "b1")))
    async with engine:
        await engine.wait_idle()
    assert calls.data == [["a1", "a2"], ["b1"]]
    assert account(engine.report) == {"handled": 3, "failed": 2}


async def test_what_a_key_fails_with_is_not_tried_again() -> None:
    """Nobody asks it anew, so it would fail with the same."""
    failures: list[ExceptionEvent] = []
    engine = AppEngine()

    async def on_failure(events: list[ExceptionEvent]) -> None:
        failures.extend(events)

    engine.register_handler(Item, Calls().handle, key=raises, retry=Retry(on=LookupError))
    engine.register_handler(ExceptionEvent, on_failure)
    await engine.pub_event(Item(0))
    async with engine:
        await anyio.wait_all_tasks_blocked()
        assert [(type(failure.data), failure.attempt) for failure in failures] == [(LookupError, 1)]
    assert engine.statistics().retried == 0


async def test_a_key_that_exits_ends_the_engine_like_any_user_code() -> None:
    def leave(event: Event[Any]) -> str:
        raise SystemExit(3)

    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, key=leave)
    await engine.pub_event(Item(0))
    with pytest.raises(SystemExit, match="3"):
        await engine.run()
    assert account(engine.report) == {"failed": 1}


async def test_an_event_whose_key_fails_waits_for_no_garbage_collection(logs: list[Any]) -> None:
    """The exception has a traceback, and nothing in there has the exception."""
    engine = AppEngine()
    engine.register_handler(Item, Calls().handle, key=raises)
    with no_collector():
        async with engine:
            published = await publish_weakly(engine, Item, range(3))
            await engine.wait_idle()
            await anyio.wait_all_tasks_blocked()
            logs.clear()  # the failures, with their tracebacks
            assert still_alive(published) == []
    assert account(engine.report) == {"failed": 3}


# -- cost ------------------------------------------------------------------------------------------------------------


class Key:
    """Can be looked at after it is gone."""


@pytest.mark.parametrize("linger", [0.0, 3600.0])
async def test_quiet_keys_cost_nothing(linger: float) -> None:
    """What was known of a key is gone with its last event, also where it had waited for company."""
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(
        Item, calls.handle_batch, key=lambda event: event.data, linger=linger, max_batch=2, concurrency=2
    )
    alive: list[weakref.ref[Key]] = []
    async with engine:
        for _ in range(50):
            key = Key()
            alive.append(weakref.ref(key))
            await engine.pub_events([Item(key), Item(key)])
        await engine.wait_idle()
        (lane,) = engine._bus.router.lanes
        assert isinstance(lane, KeyedLane)
        assert len(calls.begun) == 50
        calls.begun.clear()
        calls.ended.clear()
        del key
        # A worker at rest, and what has ended, keep none.
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert [reference() for reference in alive if reference() is not None] == []
        kept = (lane._keys, lane._ready, lane._lingering, lane._timers, lane._arrivals)
        assert not any(kept)

"""What a key is: a function or an entry of the data, equal or not, and what becomes of an event that has none."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from calls import Calls, Item, account

from event_flow import AppEngine, Application, Batch, Event, ExceptionEvent, on_event
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

"""`overflow="error"`: a full lane refuses an event for all handlers, with `LaneFull`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import to_thread
from calls import Calls, Item, account
from conftest import LogRecord
from full_lanes import Publish, busy, every_kind, every_way, items

from event_flow import AppEngine, EventFlowError, ExceptionEvent, LaneFull


@every_way
@every_kind
async def test_error_refuses_an_event_for_all_handlers(publish: Publish, options: dict[str, Any]) -> None:
    calls = Calls(held=True)
    async with busy(calls, overflow="error", queue_size=3, **options) as engine:
        with pytest.raises(LaneFull) as raised:
            await publish(engine, items(*range(5)))
        error = raised.value
        assert isinstance(error, EventFlowError)
        assert isinstance(error, RuntimeError)
        assert (error.handler, error.limit) == ("engine.handle", 3)
        assert str(error) == (
            'engine.handle is full, and overflow="error" lets nobody wait: 3 events queued, queue_size=3'
        )
        assert engine.statistics().accepted == len(calls.data[0]) + 3  # what came before is delivered
        calls.let()
        await anyio.wait_all_tasks_blocked()
        await publish(engine, items(7))
    assert [number for data in calls.data for number in data][-4:] == [0, 1, 2, 7]
    assert account(engine.report) == {"handled": len(calls.data[0]) + 4}


@every_way
async def test_what_is_refused_reaches_nobody(publish: Publish) -> None:
    """*Design promise 5*."""
    full, waits, drops = Calls(held=True), Calls(held=True), Calls(held=True)
    engine = AppEngine()
    engine.register_handler(Item, drops.handle, overflow="drop_oldest", queue_size=1)
    engine.register_handler(Item, waits.handle)
    engine.register_handler(Item, full.handle, overflow="error", queue_size=1)
    async with engine:
        for number in range(2):
            await engine.pub_event(Item(number))
            await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            with pytest.raises(LaneFull, match=r"engine\.handle"):
                await publish(engine, items(2))
        for calls in (full, waits, drops):
            calls.open()
    for calls in (full, waits, drops):
        assert calls.data == [[0], [1]]
    assert account(engine.report) == {"handled": 6}


@pytest.mark.parametrize("threaded", [False, True], ids=["task", "thread"])
async def test_a_publisher_that_waits_is_refused_when_another_lane_is_full_by_then(threaded: bool) -> None:
    waits, refuses = Calls(held=True), Calls(held=True)
    errors: list[LaneFull] = []

    class Mine(Item):
        pass

    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, waits.handle, queue_size=1)
    engine.register_handler(Mine, refuses.handle, overflow="error", queue_size=1)

    async def publish() -> None:
        try:
            if threaded:
                await to_thread.run_sync(engine.pub_event_from_thread, Mine("late"))
            else:
                await engine.pub_event(Mine("late"))
        except LaneFull as exc:
            errors.append(exc)

    async with engine:
        await engine.pub_event(Mine(0))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_event(Item(1))
        async with anyio.create_task_group() as group:
            group.start_soon(publish)
            lane, full = engine._bus.router.lanes
            while not lane.waiters:  # noqa: ASYNC110 - a thread tells nobody
                await anyio.sleep(0.001)
            full.put(Mine("came first"))
            waits.let()
        assert [error.handler for error in errors] == [full.name]
        waits.open()
        refuses.open()
    assert waits.data == [[0], [1]]
    assert refuses.data == [[0], ["came first"]]


async def test_a_handler_that_is_full_refuses_what_it_publishes_to_itself() -> None:
    calls = Calls()
    engine = AppEngine()

    async def feed(events: list[Item]) -> None:
        await calls.handle(events)
        if events[0].data == "go":
            await engine.pub_events(items(*range(5)))

    engine.register_handler(Item, feed, overflow="error", queue_size=2)
    failures: list[ExceptionEvent] = []

    async def on_failure(events: list[ExceptionEvent]) -> None:
        failures.extend(events)

    engine.register_handler(ExceptionEvent, on_failure)
    async with engine:
        await engine.pub_event(Item("go"))
        await engine.wait_idle()
    assert calls.data == [["go"], [0, 1]]
    assert [type(failure.data) for failure in failures] == [LaneFull]


async def test_what_was_kept_before_the_start_is_not_refused() -> None:
    """Its publisher was told that it is accepted."""
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, calls.handle, overflow="error", queue_size=2)
    await engine.pub_events(items(*range(5)))
    async with engine:
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(LaneFull):
            await engine.pub_event(Item(5))
        calls.open()
        await engine.wait_idle()
        await engine.pub_event(Item(6))
    assert calls.data == [[0], [1], [2], [3], [4], [6]]


async def test_a_redelivery_into_a_full_lane_is_refused_to_who_asks_for_it() -> None:
    calls = Calls(held=True)
    engine = AppEngine(max_batch=1)
    outcomes: list[str] = []

    async def handle(events: list[Item]) -> None:
        await calls.handle(events)
        if events[0].data == "bad" and not outcomes:
            raise ValueError("bad")

    async def on_failure(events: list[ExceptionEvent]) -> None:
        for event in events:
            try:
                await event.redeliver()
            except LaneFull:
                outcomes.append("refused")
            else:
                outcomes.append("delivered")

    engine.register_handler(Item, handle, overflow="error", queue_size=1)
    engine.register_handler(ExceptionEvent, on_failure, overflow="wait")
    async with engine:
        await engine.pub_event(Item("bad"))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_event(Item(1))
        engine.handlers["engine.handle"].pause()
        calls.let()
        await anyio.wait_all_tasks_blocked()
        assert outcomes == ["refused"]
        engine.handlers["engine.handle"].resume()
        calls.open()
    assert calls.data == [["bad"], [1]]


@pytest.mark.parametrize("overflow", ["error", "drop_newest"])
async def test_exception_events_make_no_failing_handler_wait(overflow: Any, logs: list[LogRecord]) -> None:
    failures = Calls(held=True)
    engine = AppEngine(max_batch=1)

    async def fail(events: list[Item]) -> None:
        raise ValueError(events[0].data)

    async def on_failure(events: list[ExceptionEvent]) -> None:
        await failures._work(events)

    engine.register_handler(Item, fail)
    engine.register_handler(ExceptionEvent, on_failure, overflow=overflow, queue_size=1)
    async with engine:
        for number in range(4):
            await engine.pub_event(Item(number))
            await anyio.wait_all_tasks_blocked()
        assert engine.statistics().handlers["engine.fail"].failed == 4
        failures.open()
    assert [error.args for data in failures.data for error in data] == [(0,), (1,)]
    refused = [log for log in logs if "was not published" in log.message]
    assert len(refused) == (2 if overflow == "error" else 0)
    assert engine.report is not None
    assert engine.report.dropped == (0 if overflow == "error" else 2)

"""`overflow` that drops: what is dropped, that nobody waits for it, and who hears of it."""

from __future__ import annotations

import operator
from typing import Any

import anyio
import pytest
from calls import Calls, Item, account
from conftest import LogRecord
from full_lanes import Publish, busy, every_kind, every_way, items
from loguru import logger

from event_flow import AppEngine


def told(logs: list[LogRecord]) -> list[tuple[str, int]]:
    return [(log.level, log.extra["dropped"]) for log in logs if "dropped" in log.extra]


# -- drop ------------------------------------------------------------------------------------------------------------


@every_way
@every_kind
@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [4, 5, 6]), ("drop_newest", [0, 1, 2]), ("latest", [6])]
)
async def test_a_lane_that_drops_makes_nobody_wait(
    overflow: str, kept: list[int], options: dict[str, Any], publish: Publish
) -> None:
    calls = Calls(held=True)
    if overflow == "latest" and options.get("linger"):
        options = {}  # never more than one waits, so no queue is ever full
    async with busy(calls, overflow=overflow, queue_size=3, **options) as engine:
        with anyio.fail_after(10):
            await publish(engine, items(*range(7)))
        (statistics,) = engine.statistics().handlers.values()
        assert (statistics.queued, statistics.dropped) == (len(kept), 7 - len(kept))
    assert calls.data[1:] == [kept]
    assert engine.report is not None
    assert engine.report.dropped == 7 - len(kept)
    assert account(engine.report)["handled"] == len(calls.data[0]) + len(kept)


@every_kind
async def test_drop_oldest_drops_across_batches(options: dict[str, Any]) -> None:
    calls = Calls(held=True)
    async with busy(calls, overflow="drop_oldest", queue_size=5, max_batch=2, **options) as engine:
        await engine.pub_events(items(*range(12)))
    handled = [number for data in calls.data for number in data if number != "first"]
    assert handled == [7, 8, 9, 10, 11]


async def test_a_batch_that_drops_have_shortened_was_closed_by_its_size() -> None:
    """It was full, and others came behind it."""
    calls = Calls(held=True)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, overflow="drop_oldest", queue_size=4, max_batch=3)
    async with engine:
        await engine.pub_event(Item("first"))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events(items(*range(6)))
        calls.open()
        await engine.wait_idle()
    assert calls.data == [["first"], [2], [3, 4, 5]]
    assert calls.closed_by == ["idle", "size", "size"]


async def test_latest_keeps_the_newest_of_each_key_in_its_place() -> None:
    calls = Calls(held=True)
    async with busy(
        calls, overflow="latest", key=lambda event: event.data[0], queue_size=3, max_batch=1
    ) as engine:
        await engine.pub_events(items("a1", "b1", "a2", "c1", "b2", "a3"))
        (statistics,) = engine.statistics().handlers.values()
        assert (statistics.queued, statistics.dropped) == (3, 3)
        # A key too many: there the longest waiting of the others goes.
        await engine.pub_events(items("d1", "d2"))
    assert calls.data == [["first"], ["b2"], ["c1"], ["d2"]]
    assert account(engine.report) == {"handled": 4, "dropped": 5}


async def test_latest_does_not_touch_what_is_at_work() -> None:
    calls = Calls(held=True)
    async with busy(calls, overflow="latest", key=lambda event: None) as engine:
        await engine.pub_events(items(1, 2))
        calls.let("first")
        await anyio.wait_all_tasks_blocked()
        assert calls.working == [[2]]
        await engine.pub_events(items(3, 4))
    assert calls.data == [["first"], [2], [4]]


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1]), ("latest", [4])]
)
async def test_what_was_kept_before_the_start_is_dropped_too(
    overflow: Any, kept: list[int], logs: list[LogRecord]
) -> None:
    calls, other = Calls(), Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, overflow=overflow, queue_size=2)
    engine.register_handler(Item, other.handle, queue_size=2)
    await engine.pub_events(items(*range(5)))
    async with engine:
        await engine.wait_idle()
    assert calls.data == [kept]
    assert other.data == [[0, 1, 2, 3, 4]]
    assert account(engine.report) == {"handled": 5 + len(kept), "dropped": 5 - len(kept)}
    # What is newer takes its place: nothing to tell.
    assert sum(number for _, number in told(logs)) == (0 if overflow == "latest" else 5 - len(kept))


@pytest.mark.virtual_clock
async def test_the_latest_is_replaced_for_as_long_as_it_lingers() -> None:
    """No batch fills up, since there is no other event of its key; the wait is counted from the first."""
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, overflow="latest", linger=10)
    async with engine:
        for number in range(4):
            await engine.pub_event(Item(number))
            await anyio.sleep(4)
    assert calls.data == [[2], [3]]
    assert calls.times == [10, 16]  # the second ends with the drain
    assert calls.closed_by == ["linger", "drain"]


async def test_what_a_sink_of_the_log_publishes_comes_behind_what_was_kept_before_the_start() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, overflow="drop_oldest", queue_size=2)

    def publish(message: str) -> None:
        if "dropped 1 event:" in message:
            engine.pub_event_nowait(Item("log"))

    await engine.pub_events(items(*range(5)))
    sink = logger.add(publish, level="WARNING", catch=False)
    async with engine:
        await engine.wait_idle()
        logger.remove(sink)
    assert calls.data == [[4, "log"]]


async def test_a_publisher_that_waits_for_another_handler_drops_nothing_before_it_is_let_in(
    logs: list[LogRecord],
) -> None:
    """All or nothing: cancelled, it has not even driven out what the dropping lane holds."""
    full, dropping = Calls(held=True), Calls(held=True)
    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, full.handle, queue_size=1)
    engine.register_handler(Item, dropping.handle, queue_size=1, overflow="drop_oldest")
    async with engine:
        for number in range(2):
            await engine.pub_event(Item(number))
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(engine.pub_event, Item(2))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert engine.statistics().dropped == 0
        async with anyio.create_task_group() as group:
            group.start_soon(engine.pub_event, Item(3))
            await anyio.wait_all_tasks_blocked()
            full.let()
        assert engine.statistics().dropped == 1
        assert told(logs) == [("WARNING", 1)]
        full.open()
        dropping.open()
    assert (full.data, dropping.data) == ([[0], [1], [3]], [[0], [3]])


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
async def test_a_hard_stop_abandons_what_was_not_dropped(overflow: Any) -> None:
    calls = Calls(held=True)
    engine = AppEngine(grace_period=0)
    engine.register_handler(
        Item, calls.handle, overflow=overflow, queue_size=2, key=lambda event: event.data % 2
    )
    async with engine:
        await engine.pub_event(Item(0))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events(items(*range(1, 6)))
    assert account(engine.report) == {"dropped": 3, "abandoned": 3}


async def test_handlers_at_work_drop_while_the_engine_drains() -> None:
    calls = Calls()
    engine = AppEngine()

    async def feed(events: list[Item]) -> None:
        await calls.handle(events)
        if events[0].data == "go":
            await engine.pub_events(items(*range(5)))

    engine.register_handler(Item, feed, overflow="drop_newest", queue_size=2)
    async with engine:
        await engine.pub_event(Item("go"))
    assert calls.data == [["go"], [0, 1]]
    assert account(engine.report) == {"handled": 3, "dropped": 3}


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_drops_are_logged_once_a_minute_with_their_number_and_the_rest_at_the_end(
    overflow: str, logs: list[LogRecord]
) -> None:
    level = "WARNING"
    calls = Calls(held=True)
    async with busy(calls, overflow=overflow, queue_size=1) as engine:
        began = anyio.current_time()
        await engine.pub_event(Item(0))
        assert told(logs) == []
        await engine.pub_events(items(*range(10)))
        assert told(logs) == [(level, 1)]
        await anyio.sleep_until(began + 59)
        await engine.pub_event(Item(0))
        assert told(logs) == [(level, 1)]
        await anyio.sleep_until(began + 61)
        await engine.pub_events(items(*range(5)))
        assert told(logs) == [(level, 1), (level, 11)]
        await anyio.sleep_until(began + 1000)
        assert len(told(logs)) == 2  # nothing runs for it
    assert told(logs) == [(level, 1), (level, 11), (level, 4)]
    (line,) = [log.message for log in logs if log.extra.get("dropped") == 11]
    assert line == (
        f'engine.handle dropped 11 events: queue_size=1, overflow="{overflow}"; told at most once a minute'
    )


async def test_what_newer_events_replace_is_counted_and_not_logged_but_a_key_that_is_lost_is(
    logs: list[LogRecord],
) -> None:
    calls = Calls(held=True)
    key = operator.attrgetter("data")
    async with busy(calls, overflow="latest", key=key, queue_size=2) as engine:
        await engine.pub_events(items(1, 2, 1, 2, 1))
        assert engine.statistics().dropped == 3
        assert told(logs) == []
        await engine.pub_event(Item(3))
        assert told(logs) == [("WARNING", 4)]


async def test_each_handler_and_each_run_is_logged_for_itself(logs: list[LogRecord]) -> None:
    engine = AppEngine(max_batch=1)

    async def one(events: list[Item]) -> None: ...
    async def two(events: list[Item]) -> None: ...

    engine.register_handler(Item, one, two, overflow="drop_newest", queue_size=1)
    for _ in range(2):
        await engine.pub_events(items(0, 1)) if engine.report is None else None
        async with engine:
            await engine.pub_events(items(*range(3)))
            await engine.wait_idle()
    names = [log.extra["handler"] for log in logs if "dropped" in log.extra]
    assert (names.count("engine.one"), names.count("engine.two")) == (4, 4)

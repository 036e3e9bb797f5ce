"""The numbers of a running engine and the report of one that has ended."""

from __future__ import annotations

import dataclasses
from typing import Any

import anyio
import pytest

from event_flow import (
    AppEngine,
    Application,
    Batch,
    EngineState,
    EngineStatistics,
    Event,
    HandlerStatistics,
    Retry,
    ScheduleStatistics,
    ShutdownReport,
    schedule,
)


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Gated(Application):
    """Its handler waits for the gate; an odd first number fails."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()

    async def on_ping(self, events: list[Ping]) -> None:
        await self.gate.wait()
        if events[0].data % 2:
            raise ValueError(events[0].data)


def numbers(statistics: HandlerStatistics | EngineStatistics) -> dict[str, int]:
    """What is not 0."""
    names = [field.name for field in dataclasses.fields(HandlerStatistics) if field.name != "paused"]
    return {name: number for name in names if (number := getattr(statistics, name))}


async def test_a_new_engine_has_no_numbers_and_no_report() -> None:
    engine = AppEngine([Gated()])
    statistics = engine.statistics()
    assert statistics.state is EngineState.NEW
    assert (numbers(statistics), statistics.handlers, statistics.schedules) == ({}, {}, {})
    assert engine.report is None


async def test_events_published_before_the_start_are_the_backlog() -> None:
    engine = AppEngine([Gated()])
    await engine.pub_events([Ping(0), Ping(1), Pong(2)])
    assert engine.statistics().backlog == 3
    assert engine.statistics().accepted == 0


async def test_the_numbers_follow_the_events() -> None:
    app = Gated()
    engine = AppEngine([app], max_batch=4)
    async with engine:

        def now() -> dict[str, int]:
            return numbers(engine.statistics().handlers["Gated.on_ping"])

        await engine.pub_event(Ping(0))
        assert now() == {"queued": 1, "accepted": 1}
        await anyio.wait_all_tasks_blocked()
        assert now() == {"running": 1, "accepted": 1, "batches": 1, "largest_batch": 1}
        await engine.pub_events(Ping(number) for number in range(1, 8))
        waiting = {"queued": 7, "running": 1, "accepted": 8, "batches": 1, "largest_batch": 1}
        assert now() == waiting
        assert numbers(engine.statistics()) == waiting
        app.gate.set()
        await engine.wait_idle()
        # In batches of 1, 4 (which fails, its first number is odd) and 3 (which fails too).
        assert now() == {"accepted": 8, "handled": 1, "failed": 7, "batches": 3, "largest_batch": 4}


async def test_the_engine_s_numbers_are_the_sums_of_its_handlers() -> None:
    """They count deliveries: an event for two handlers is two."""

    async def small(events: list[Ping]) -> None: ...

    def sync(events: list[Ping | Pong]) -> None: ...

    engine = AppEngine()
    engine.register_handler(Ping, small, sync)
    engine.register_handler(Pong, sync)
    await engine.pub_events([Ping(1), Ping(2), Pong(3)])
    async with engine:
        await engine.wait_idle()
        statistics = engine.statistics()
    assert {name: numbers(each) for name, each in statistics.handlers.items()} == {
        "engine.small": {"accepted": 2, "handled": 2, "batches": 1, "largest_batch": 2},
        "engine.sync": {"accepted": 3, "handled": 3, "batches": 1, "largest_batch": 3},
    }
    assert numbers(statistics) == {"accepted": 5, "handled": 5, "batches": 2, "largest_batch": 3}


async def test_what_goes_over_the_limit_is_counted() -> None:
    class Feeds(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            for event in events:
                for _ in range(event.data):
                    await self.engine.pub_event(Ping(0))

    async with AppEngine([Feeds()], queue_size=2) as engine:
        await engine.pub_event(Ping(5))
        await engine.wait_idle()
        assert numbers(engine.statistics()) == {
            "accepted": 6, "handled": 6, "batches": 2, "largest_batch": 5, "over_limit": 3,
        }  # fmt: skip


async def test_what_the_options_of_handlers_do_is_in_the_numbers() -> None:
    engine = AppEngine(max_batch=1)
    attempts: list[int] = []
    given_up = anyio.Event()

    @engine.on_event(Ping, retry=Retry(on=OSError, wait_initial=0, wait_max=0))
    async def tries(batch: Batch[Ping]) -> None:
        attempts.append(batch.attempt)
        if batch.attempt < 3:
            raise OSError
        given_up.set()
        raise ValueError

    @engine.on_event(Pong, overflow="drop_newest", queue_size=2)
    async def full(events: list[Pong]) -> None: ...

    engine.add_filter(lambda event: None if event.data == 0 else event)
    async with engine:
        engine.handlers["engine.full"].pause()
        await engine.pub_events([Ping(0), Ping(1), *map(Pong, range(6))])
        await given_up.wait()
        await anyio.wait_all_tasks_blocked()
        statistics = engine.statistics()
        assert {name: numbers(each) for name, each in statistics.handlers.items()} == {
            "engine.tries": {
                "accepted": 1, "failed": 1, "batches": 3, "largest_batch": 1, "retried": 2,
            },
            "engine.full": {"accepted": 5, "queued": 2, "dropped": 3},
        }  # fmt: skip
        assert [each.paused for each in statistics.handlers.values()] == [False, True]
        assert (statistics.filtered, statistics.unhandled, statistics.retried, statistics.dropped) == (
            2,
            0,
            2,
            3,
        )
        engine.handlers["engine.full"].resume()
    assert attempts == [1, 2, 3]
    report = engine.report
    assert report is not None
    assert (report.accepted, report.handled, report.failed, report.dropped) == (6, 2, 1, 3)
    assert str(report).splitlines() == [
        "6 deliveries: 2 handled, 1 failed, 3 dropped, 0 abandoned",
        "  2 events that a filter dropped",
    ]
    async with engine:
        assert engine.statistics().filtered == 0


async def test_statistics_are_a_frozen_picture_of_one_moment() -> None:
    class Ticks(Gated):
        @schedule(3600)
        async def tick(self) -> None: ...

    app = Ticks()
    async with AppEngine([app]) as engine:
        await anyio.wait_all_tasks_blocked()
        before = engine.statistics()
        await engine.pub_event(Ping(0))
        app.gate.set()
        await engine.wait_idle()
    assert numbers(before) == {}
    pictures: list[Any] = [
        before,
        before.handlers["Ticks.on_ping"],
        before.schedules["Ticks.tick"],
        engine.report,
    ]
    kinds = [EngineStatistics, HandlerStatistics, ScheduleStatistics, ShutdownReport]
    assert [type(picture) for picture in pictures] == kinds
    for picture in pictures:
        assert not hasattr(picture, "__dict__")
        for field in dataclasses.fields(picture):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(picture, field.name, 5)


async def test_a_second_run_begins_at_zero_and_the_first_report_stays() -> None:
    app = Gated()
    app.gate.set()
    engine = AppEngine([app])
    async with engine:
        await engine.pub_event(Ping(0))
    first = engine.report
    assert numbers(engine.statistics())["handled"] == 1
    async with engine:
        assert numbers(engine.statistics()) == {}
        assert engine.report is first
    assert engine.report is not first
    assert first is not None
    assert first.handled == 1


# -- the report ------------------------------------------------------------------------------------------------------


async def test_the_report_accounts_for_every_delivery() -> None:
    """Design D10: handled, failed, dropped by policy, abandoned."""
    app = Gated()
    engine = AppEngine([app], max_batch=2, grace_period=0)

    @engine.on_event(Pong)
    async def works(events: list[Pong]) -> None: ...

    @engine.on_event(Pong)
    async def fails(events: list[Pong]) -> None:
        raise OSError

    async with engine:
        await engine.pub_events([Pong(1), Pong(2), Pong(3)])
        await engine.wait_idle()
        await engine.pub_events([Ping(number) for number in range(5)])
        await anyio.wait_all_tasks_blocked()
    report = engine.report
    assert report is not None
    assert (report.accepted, report.handled, report.failed, report.dropped, report.abandoned) == (
        11,
        3,
        3,
        0,
        5,
    )
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned
    assert report.abandoned_events == {"Gated.on_ping": {"Ping": 5}}
    assert not report.is_clean
    assert str(report).splitlines() == [
        "11 deliveries: 3 handled, 3 failed, 0 dropped, 5 abandoned",
        "  abandoned by Gated.on_ping: 5 Ping",
    ]
    after = engine.statistics()
    assert (after.accepted, after.queued, after.running) == (11, 0, 0)


async def test_events_without_a_handler_are_in_no_other_number() -> None:
    async with AppEngine([Gated()]) as engine:
        await engine.pub_events([Pong(1), Pong(2)])
    assert engine.report is not None
    assert (engine.report.accepted, engine.report.unhandled, engine.report.is_clean) == (0, 2, True)
    assert "2 events that no handler wants" in str(engine.report)


def test_an_engine_with_many_deliveries_reports_them_readably() -> None:
    report = ShutdownReport(
        accepted=1_234_567, handled=1_234_560, failed=0, dropped=0, abandoned=7, unhandled=1, filtered=2_000,
        abandoned_events={"B.b": {"Pong": 1}, "A.a": {"Pong": 2, "Ping": 4}}, tasks_left=("A.work",), threads_left=("B.c",),
    )  # fmt: skip
    assert str(report).splitlines() == [
        "1,234,567 deliveries: 1,234,560 handled, 0 failed, 0 dropped, 7 abandoned",
        "  abandoned by A.a: 4 Ping, 2 Pong",
        "  abandoned by B.b: 1 Pong",
        "  1 event that no handler wants",
        "  2,000 events that a filter dropped",
        "  tasks that did not end in time: A.work",
        "  threads left running: B.c",
    ]

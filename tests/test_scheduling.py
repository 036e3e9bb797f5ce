"""Schedules: the grid they tick on, what a slow or failing tick does, and ticks in threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_flow import (
    AppEngine,
    Application,
    EngineClosed,
    Event,
    ExceptionEvent,
    ScheduleStatistics,
    schedule,
    timer,
)
from event_flow.core.scheduling import next_tick


class Ping(Event[int]):
    pass


class Ticking(Application):
    """Writes down when its ticks begin, in seconds after the start; what a tick does beside that is up to the test."""

    def __init__(self, *, work: Callable[[int], Any] | None = None) -> None:
        super().__init__()
        self.work = work
        self.ticks: list[float] = []
        self.failures: list[ExceptionEvent] = []

    async def before_start(self) -> None:
        self.start = anyio.current_time()

    async def tick(self) -> None:
        self.ticks.append(round(anyio.current_time() - self.start, 6))
        if self.work is not None:
            await self.work(len(self.ticks))

    async def on_failure(self, events: list[ExceptionEvent]) -> None:
        self.failures += events


class EveryMinute(Ticking):
    @schedule(interval=60, run_at_once=True)
    async def each_minute(self) -> None:
        await self.tick()


async def run_for(
    seconds: float, app: Application, *, grace_period: float = 10
) -> dict[str, ScheduleStatistics]:
    engine = AppEngine([app], grace_period=grace_period)
    async with engine:
        await anyio.sleep(seconds)
    return dict(engine.statistics().schedules)


# -- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
async def test_the_first_tick_is_at_the_start_or_one_interval_later() -> None:
    class Later(Ticking):
        @schedule(interval=60, run_at_once=False)
        async def each_minute(self) -> None:
            await self.tick()

    at_once, later = EveryMinute(), Later()
    async with AppEngine([at_once, later]):
        await anyio.sleep(190)
    assert at_once.ticks == [0, 60, 120, 180]
    assert later.ticks == [60, 120, 180]


@pytest.mark.virtual_clock
@pytest.mark.parametrize(
    ("interval", "seconds"), [(0.25, 0.25), (1e-6, 1e-6), (timedelta(hours=1), 3600), (10**7, 1e7)]
)
async def test_an_interval_may_be_any_number_or_a_timedelta(
    interval: float | timedelta, seconds: float
) -> None:
    class App(Ticking):
        @timer(interval)
        async def often(self) -> None:
            await self.tick()

    app = App()
    await run_for(3.5 * seconds, app)
    assert app.ticks == pytest.approx([0, seconds, 2 * seconds, 3 * seconds])


@pytest.mark.virtual_clock
async def test_a_tick_that_takes_time_does_not_shift_the_next() -> None:
    """*Spec*: `start + k * interval`, no drift."""
    app = EveryMinute(work=lambda _: anyio.sleep(0.3 * 60))
    statistics = await run_for(100 * 60 + 30, app)
    assert app.ticks == [60 * k for k in range(101)]
    assert statistics == {"EveryMinute.each_minute": ScheduleStatistics(ticks=101, missed=0, failed=0)}


@pytest.mark.virtual_clock
async def test_missed_ticks_become_one_which_is_late_and_the_grid_stays() -> None:
    app = EveryMinute(work=lambda number: anyio.sleep(3.5 * 60 if number == 2 else 0))
    statistics = await run_for(6 * 60 + 30, app)
    # The second takes from 60 to 270: what was due at 120, 180 and 240 is one tick at 270.
    assert app.ticks == [0, 60, 270, 300, 360]
    assert statistics["EveryMinute.each_minute"] == ScheduleStatistics(ticks=5, missed=2, failed=0)


@pytest.mark.virtual_clock
async def test_a_tick_never_overlaps_itself_but_others_do() -> None:
    running: dict[str, int] = {"slow": 0, "other": 0}
    together: set[tuple[int, int]] = set()

    async def enter(name: str, duration: float) -> None:
        running[name] += 1
        together.add((running["slow"], running["other"]))
        await anyio.sleep(duration)
        running[name] -= 1

    class App(Application):
        @schedule(1)
        async def slow(self) -> None:
            await enter("slow", 10.5)

        @schedule(1)
        async def other(self) -> None:
            await enter("other", 0.5)

    statistics = await run_for(100.2, App())
    assert (1, 1) in together
    assert max(slow for slow, _ in together) == max(other for _, other in together) == 1
    assert statistics["App.other"].missed == 0
    # Begun at 0, 10.5, 21, 31.5, …, 94.5, the late ones for the last whole second before them.
    assert statistics["App.slow"] == ScheduleStatistics(ticks=10, missed=85, failed=0)


@pytest.mark.virtual_clock
async def test_every_run_has_a_grid_and_numbers_of_its_own() -> None:
    app = EveryMinute()
    engine = AppEngine([app])
    for _ in range(2):
        app.ticks.clear()
        async with engine:
            await anyio.sleep(90)
            assert engine.statistics().schedules["EveryMinute.each_minute"].ticks == 2
        assert app.ticks == [0, 60]
        await anyio.sleep(17)


@pytest.mark.virtual_clock
async def test_two_instances_tick_by_themselves() -> None:
    apps = [EveryMinute(), EveryMinute(work=lambda _: anyio.sleep(100))]
    async with AppEngine(apps, grace_period=0) as engine:
        await anyio.sleep(150)
        statistics = engine.statistics().schedules
    assert {name: (each.ticks, each.missed) for name, each in statistics.items()} == {
        "EveryMinute.each_minute": (3, 0),
        "EveryMinute#2.each_minute": (2, 0),
    }


WHOLE = st.integers(min_value=0, max_value=10**9)


@given(elapsed=WHOLE, interval=st.integers(min_value=1, max_value=10**6), last=st.integers(-1, 10**6))
def test_the_next_tick_is_the_latest_due_or_else_the_one_after_the_last(
    elapsed: int, interval: int, last: int
) -> None:
    tick, missed = next_tick(elapsed, interval, last)
    assert tick > last
    assert missed == tick - last - 1
    if (last + 1) * interval > elapsed:
        assert tick == last + 1
    else:
        assert tick * interval <= elapsed < (tick + 1) * interval


@given(st.floats(min_value=1e-3, max_value=1e6), st.integers(-1, 10**6), st.floats(0, 0.9))
def test_a_timer_that_fires_early_never_repeats_a_tick(interval: float, last: int, early: float) -> None:
    """uvloop wakes up to half a millisecond before the time."""
    tick, _ = next_tick(max(0.0, (last + early) * interval), interval, last)
    assert tick == last + 1


def test_an_interval_of_next_to_nothing_is_an_interval() -> None:
    tick, missed = next_tick(1.0, 5e-324, 3)
    assert (tick - missed, tick > 10**15) == (4, True)


# -- in real time: uvloop, whose timers cannot be virtual, keeps the grid too ------------------------------------------


class Grid(Application):
    """Notes for each tick its number on the grid, and how late it is; stops the engine at the last one."""

    interval = 0.05

    def __init__(self, *, last: int, work: Callable[[int], float]) -> None:
        super().__init__()
        self.last = last
        self.work = work
        self.numbers: list[int] = []
        self.late: list[float] = []
        self.at_work = 0

    async def before_start(self) -> None:
        self.start = anyio.current_time()

    async def tick(self, name: str, first: int) -> None:
        self.at_work += 1
        assert self.at_work == 1
        numbers = self.engine.statistics().schedules[name]
        number = numbers.ticks + numbers.missed - 1 + first
        self.numbers.append(number)
        self.late.append(anyio.current_time() - self.start - number * self.interval)
        if number >= self.last:
            self.engine.stop()
        await anyio.sleep(self.work(number))
        self.at_work -= 1


class AtOnce(Grid):
    @schedule(Grid.interval)
    async def on_the_grid(self) -> None:
        await self.tick("AtOnce.on_the_grid", 0)


class Later(Grid):
    @schedule(Grid.interval, run_at_once=False)
    async def on_the_grid(self) -> None:
        await self.tick("Later.on_the_grid", 1)


# uvloop wakes up to half a millisecond before the time, asyncio up to a tick of the system's clock (Windows: 16 ms).
EARLY = 0.001 + time.get_clock_info("monotonic").resolution


@pytest.mark.realtime
@pytest.mark.parametrize("kind", [AtOnce, Later])
async def test_in_real_time_ticks_are_never_early_and_none_is_repeated(kind: type[Grid]) -> None:
    """How late they are depends on the machine."""
    app = kind(last=10, work=lambda _: 0)
    await AppEngine([app]).run()
    assert app.numbers == sorted(set(app.numbers))
    assert app.numbers[0] == (0 if kind is AtOnce else 1)
    assert min(app.late) >= -EARLY


@pytest.mark.realtime
async def test_in_real_time_missed_ticks_become_one_and_the_grid_stays() -> None:
    app = AtOnce(last=10, work=lambda number: 3.5 * Grid.interval if number == 1 else 0)
    engine = AppEngine([app])
    await engine.run()
    statistics = engine.statistics().schedules["AtOnce.on_the_grid"]
    assert statistics.missed >= 2
    assert statistics.ticks + statistics.missed == app.numbers[-1] + 1
    assert app.numbers == sorted(set(app.numbers))
    assert not {2, 3} <= set(app.numbers)
    assert min(app.late) >= -EARLY


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
async def test_a_failing_tick_is_an_exception_event_and_the_schedule_goes_on() -> None:
    async def work(number: int) -> None:
        if number % 2:
            raise ValueError(number)

    app = EveryMinute(work=work)
    statistics = await run_for(210, app)
    assert app.ticks == [0, 60, 120, 180]
    assert statistics["EveryMinute.each_minute"] == ScheduleStatistics(ticks=4, missed=0, failed=2)
    assert [failure.data.args for failure in app.failures] == [(1,), (3,)]
    for failure in app.failures:
        assert (failure.handler, failure.attempt, failure.events) == ("EveryMinute.each_minute", 1, ())
        assert "ValueError" in failure.traceback_str
        assert "in work" in failure.traceback_str


@pytest.mark.virtual_clock
async def test_a_tick_that_fails_late_has_missed_ticks_like_any_other() -> None:
    async def work(number: int) -> None:
        await anyio.sleep(150)
        raise OSError

    app = EveryMinute(work=work)
    statistics = await run_for(200, app, grace_period=0)
    assert app.ticks == [0, 150]
    assert statistics["EveryMinute.each_minute"] == ScheduleStatistics(ticks=2, missed=1, failed=1)


@pytest.mark.virtual_clock
async def test_the_exception_event_of_a_tick_has_no_handler_to_go_to() -> None:
    """There are no events to hand over, so this is an error and no silent nothing."""
    errors: list[BaseException] = []

    class App(Application):
        @schedule(60)
        async def tick(self) -> None:
            raise OSError("no network")

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            for event in events:
                try:
                    await event.redeliver()
                except RuntimeError as exc:
                    errors.append(exc)

    await run_for(1, App())
    assert len(errors) == 1


# -- threads ---------------------------------------------------------------------------------------------------------


class SyncTicks(Application):
    """A tick in a thread; the handler runs on the loop, so it can tell a test that waits there without a deadline."""

    def __init__(self, ticks: int) -> None:
        super().__init__()
        self.left = ticks
        self.times: list[float] = []
        self.threads: set[int] = set()
        self.done = anyio.Event()

    async def before_start(self) -> None:
        self.start = anyio.current_time()

    @schedule(interval=60)
    def tick(self) -> None:
        if self.left:
            self.left -= 1
            self.threads.add(threading.get_ident())
            self.engine.pub_event_from_thread(Ping(self.left))

    async def on_ping(self, events: list[Ping]) -> None:
        self.times += [round(anyio.current_time() - self.start, 6) for _ in events]
        if not events[-1].data:
            self.done.set()


@pytest.mark.virtual_clock
async def test_sync_ticks_run_in_a_thread_on_the_same_grid() -> None:
    """Nothing sets a deadline while the thread runs, so the virtual clock may not jump over it."""
    app = SyncTicks(20)
    async with AppEngine([app], grace_period=math.inf) as engine:
        await app.done.wait()
        assert engine.statistics().schedules["SyncTicks.tick"] == ScheduleStatistics(
            ticks=20, missed=0, failed=0
        )
    assert app.times == [60 * k for k in range(20)]
    assert threading.get_ident() not in app.threads


async def test_a_sync_tick_does_not_hold_up_the_loop() -> None:
    gate = threading.Event()
    diary: list[str] = []
    done = anyio.Event()

    class App(Application):
        @schedule(interval=3600)
        def blocks(self) -> None:
            diary.append("tick begins")
            self.engine.pub_event_from_thread(Ping(1))
            gate.wait()
            diary.append("tick ends")
            self.engine.pub_event_from_thread(Ping(2))

        async def on_ping(self, events: list[Ping]) -> None:
            diary.extend(f"handler {event.data}" for event in events)
            gate.set()
            if events[-1].data == 2:
                done.set()

    async with AppEngine([App()]):
        await done.wait()
    assert diary == ["tick begins", "handler 1", "tick ends", "handler 2"]


# -- at the end ------------------------------------------------------------------------------------------------------


async def test_what_a_tick_left_behind_publishes_from_outside() -> None:
    """*Design D10*: inside is the tick, and no longer what outlives it."""
    outcome: list[str] = []
    gate, hold = anyio.Event(), anyio.Event()

    class Ticks(Application):
        @schedule(3600)
        async def tick(self) -> None:
            group.start_soon(left_behind)

        async def on_ping(self, events: list[Ping]) -> None:
            await hold.wait()

    async def left_behind() -> None:
        await gate.wait()
        try:
            await engine.pub_event(Ping(2))
        except EngineClosed:
            outcome.append("closed")

    async with anyio.create_task_group() as group, AppEngine([Ticks()]) as engine:
        await engine.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
        engine.stop()
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert outcome == ["closed"]
        hold.set()


async def test_a_tick_that_publishes_after_the_grace_period_has_not_failed() -> None:
    """`EngineClosed` is its orderly end then, as it is a task's, also in a strict engine."""
    begun, gate = anyio.Event(), anyio.Event()
    told: list[str] = []

    class Ticks(Application):
        @schedule(3600)
        async def tick(self) -> None:
            begun.set()
            await gate.wait()
            try:
                await self.engine.pub_event(Ping(1))
            except EngineClosed:
                told.append("closed")
                raise

    class EndsFirst(Application):
        async def exit(self) -> None:
            gate.set()
            await anyio.wait_all_tasks_blocked()

    engine = AppEngine([Ticks(), EndsFirst()], grace_period=0, on_error="raise")
    async with engine:
        await begun.wait()
    assert told == ["closed"]
    assert engine.statistics().schedules["Ticks.tick"].failed == 0

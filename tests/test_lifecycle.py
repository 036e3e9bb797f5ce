"""How an engine starts and ends: hooks, drain, deadlines, cancellation, and the states in between."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from waiting import SOON

from event_flow import (
    AppEngine,
    Application,
    EngineClosed,
    EngineState,
    EngineStateError,
    Event,
    ExitTimeout,
    StartTimeout,
    SubApplication,
    WouldDeadlockError,
    schedule,
    task,
)
from event_flow.core.bell import Bell
from event_flow.core.supervision import Supervisor


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Recorder(Application):
    """Writes down what happens to it; hooks do what they are told."""

    def __init__(
        self,
        name: str,
        diary: list[str],
        *,
        on_start: Callable[[], Awaitable[object]] = checkpoint,
        on_exit: Callable[[], Awaitable[object]] = checkpoint,
    ) -> None:
        super().__init__(name)
        self.diary = diary
        self.on_start = on_start
        self.on_exit = on_exit

    async def before_start(self) -> None:
        self.diary.append(f"{self.name} starts")
        await self.on_start()

    async def exit(self) -> None:
        self.diary.append(f"{self.name} exits")
        await self.on_exit()


class SubRecorder(SubApplication):
    def __init__(self, name: str, diary: list[str]) -> None:
        super().__init__(name)
        self.diary = diary

    async def before_start(self) -> None:
        self.diary.append(f"{self.name} starts")

    async def exit(self) -> None:
        self.diary.append(f"{self.name} exits")

    @task
    async def live(self) -> None:
        self.diary.append(f"{self.name} lives")
        try:
            await anyio.sleep_forever()
        finally:
            self.diary.append(f"{self.name} dies")


async def fail(error: BaseException) -> None:
    raise error


async def run_and_stop(engine: AppEngine) -> None:
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        engine.stop()


# -- start -----------------------------------------------------------------------------------------------------------


async def test_hooks_run_parents_first_and_exits_in_exact_reverse() -> None:
    """Design D9, D10."""
    diary: list[str] = []
    engine = AppEngine()
    a, b = Recorder("A", diary), Recorder("B", diary)
    a1, a2 = SubRecorder("A1", diary), SubRecorder("A2", diary)
    a11 = SubRecorder("A11", diary)
    a1.add_app(a11)
    a.add_app(a1, a2)
    engine.add_app(a, b)

    @engine.before_start
    def first() -> None:
        diary.append("engine starts")

    @engine.exit
    def last() -> None:
        diary.append("engine exits")

    @engine.exit
    def last_but_one() -> None:
        diary.append("engine exits first")

    async with engine:
        await anyio.wait_all_tasks_blocked()
        started = list(diary)
        diary.clear()
    starts = [f"{name} starts" for name in ("engine", "A", "A1", "A11", "A2", "B")]
    assert started[:6] == starts
    assert sorted(started[6:]) == ["A1 lives", "A11 lives", "A2 lives"]
    assert diary == [
        "B exits", "A2 dies", "A2 exits", "A11 dies", "A11 exits", "A1 dies", "A1 exits", "A exits",
        "engine exits first", "engine exits",
    ]  # fmt: skip


async def test_the_task_group_of_a_sub_application_is_nested_in_its_parent_s() -> None:
    """Design, the task tree: who cancels a group ends what is below it, and only that."""
    a = Recorder("A", [])
    a1, a11 = SubRecorder("A1", []), SubRecorder("A11", [])
    a1.add_app(a11)
    a.add_app(a1, SubRecorder("A2", []))
    async with AppEngine([a, Recorder("B", [])]):
        tasks = anyio.get_running_tasks()
        names = {each.id: each.name for each in tasks}
        parents = {each.name: names.get(each.parent_id) for each in tasks if each.parent_id is not None}
    branches = ("A", "A1", "A11", "A2", "B", "A1.live", "A11.live", "A2.live")
    assert [parents[name] for name in branches] == [
        "event-flow supervisor", "A", "A1", "A", "event-flow supervisor", "A1", "A11", "A2",
    ]  # fmt: skip


async def test_nothing_runs_before_every_hook_has_succeeded() -> None:
    """Design D9: a barrier."""
    diary: list[str] = []

    class Eager(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            diary.append("handler")

        @schedule(interval=60)
        async def tick(self) -> None:
            diary.append("tick")

        @task
        async def work(self) -> None:
            diary.append("task")

    async def late() -> None:
        await anyio.wait_all_tasks_blocked()
        diary.append("last hook")

    engine = AppEngine([Eager(), Recorder("B", diary, on_start=late)])
    async with engine:
        await anyio.wait_all_tasks_blocked()
    assert diary[:2] == ["B starts", "last hook"]
    assert sorted(diary[2:]) == ["B exits", "handler", "task", "tick"]


async def test_a_failing_start_hook_unwinds_what_had_started_and_leaves_as_itself() -> None:
    diary: list[str] = []
    error = ValueError("no database")
    engine = AppEngine(
        [Recorder("A", diary), Recorder("B", diary, on_start=lambda: fail(error)), Recorder("C", diary)]
    )

    @engine.exit
    async def last() -> None:
        diary.append("engine exits")

    with pytest.raises(ValueError, match="no database") as caught:
        await engine.run()
    assert caught.value is error
    assert diary == ["A starts", "B starts", "A exits", "engine exits"]
    assert engine.state is EngineState.STOPPED


async def test_a_failing_engine_hook_still_runs_the_engine_exit() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder("A", diary)])

    @engine.before_start
    async def setup() -> None:
        raise OSError("port taken")

    @engine.exit
    async def last() -> None:
        diary.append("engine exits")

    with pytest.raises(OSError, match="port taken"):
        await engine.run()
    assert diary == ["engine exits"]


async def test_a_bug_of_the_framework_in_the_start_leaves_every_exit_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """*Design promise 7*: however it ends."""
    diary: list[str] = []
    error = LookupError("a bug")

    def broken(self: Supervisor) -> None:
        raise error

    monkeypatch.setattr(Supervisor, "_open", broken)
    with pytest.raises(LookupError) as caught:
        await AppEngine([Recorder("A", diary), Recorder("B", diary)]).run()
    assert caught.value is error
    assert diary == ["A starts", "B starts", "B exits", "A exits"]


@pytest.mark.virtual_clock
async def test_a_start_hook_that_takes_too_long_is_cancelled_and_named() -> None:
    diary: list[str] = []
    engine = AppEngine(
        [Recorder("A", diary), Recorder("B", diary, on_start=anyio.sleep_forever)], start_timeout=5
    )
    before = anyio.current_time()
    with pytest.raises(StartTimeout, match=r"B\.before_start took longer than start_timeout=5 s") as caught:
        await engine.run()
    assert (caught.value.hook, caught.value.timeout) == ("B.before_start", 5)
    assert diary == ["A starts", "B starts", "A exits"]
    assert anyio.current_time() - before == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("where", ["hook", "outside"])
async def test_stop_while_starting_cancels_the_hook_and_unwinds(where: str) -> None:
    diary: list[str] = []

    async def hang() -> None:
        if where == "hook":
            engine.stop()
        try:
            await anyio.sleep_forever()
        finally:
            diary.append("hook cancelled")

    engine = AppEngine([Recorder("A", diary), Recorder("B", diary, on_start=hang), Recorder("C", diary)])
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        await anyio.wait_all_tasks_blocked()
        engine.stop()
    assert engine.report is not None
    assert diary == ["A starts", "B starts", "hook cancelled", "A exits"]


async def test_events_published_before_a_failed_start_are_accounted_for() -> None:
    """Design promise 4."""

    class Wants(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            raise AssertionError("must not run")

    engine = AppEngine([Wants()])
    await engine.pub_events(Ping(number) for number in range(3))
    await engine.pub_events([Pong(1), Pong(2)])

    @engine.before_start
    async def setup() -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - any will do
        await engine.run()
    assert engine.report is not None
    assert (engine.report.accepted, engine.report.abandoned) == (3, 3)
    assert engine.report.abandoned_events == {"Wants.on_ping": {"Ping": 3}}
    assert engine.report.unhandled == 2


# -- stop ------------------------------------------------------------------------------------------------------------


class Chain(Application):
    """Every Ping becomes a Pong, and only a Pong is the end of it."""

    def __init__(self, gate: anyio.Event) -> None:
        super().__init__()
        self.gate = gate
        self.ended: list[int] = []

    async def on_ping(self, events: list[Ping]) -> None:
        await self.gate.wait()
        for event in events:
            await self.engine.pub_event(Pong(event.data))

    async def on_pong(self, events: list[Pong]) -> None:
        self.ended += [event.data for event in events]


async def test_stop_finishes_what_was_accepted_and_what_that_causes() -> None:
    """Design D10, step 2."""
    gate = anyio.Event()
    app = Chain(gate)
    engine = AppEngine([app])
    async with engine:
        for number in range(5):
            await engine.pub_event(Ping(number))
        await anyio.wait_all_tasks_blocked()
        engine.stop()
        assert engine.state is EngineState.DRAINING
        with pytest.raises(EngineClosed):
            await engine.pub_event(Ping(99))
        gate.set()
        report = await engine.wait_stopped()
    assert app.ended == list(range(5))
    assert (report.accepted, report.handled, report.is_clean) == (10, 10, True)


async def test_publishers_that_wait_from_outside_are_refused_at_stop() -> None:
    gate = anyio.Event()
    app = Chain(gate)
    engine = AppEngine([app], queue_size=1, max_batch=1)
    refused: list[int] = []

    async def publish(number: int) -> None:
        try:
            await engine.pub_event(Ping(number))
        except EngineClosed:
            refused.append(number)

    async with engine, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        assert sorted(refused) == [2, 3, 4]  # Trio wakes tasks in any order
        gate.set()
    assert app.ended == [0, 1]


@pytest.mark.virtual_clock
async def test_what_the_grace_period_does_not_suffice_for_is_abandoned_and_named() -> None:
    diary: list[str] = []

    class Stuck(Recorder):
        async def on_ping(self, events: list[Ping]) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                diary.append("handler cancelled")

    engine = AppEngine([Stuck("Stuck", diary)], grace_period=7, max_batch=2)
    async with engine:
        await engine.pub_events(Ping(number) for number in range(2))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events(Ping(number) for number in range(3))
        before = anyio.current_time()
        engine.stop()
        report = await engine.wait_stopped()
    assert anyio.current_time() - before == pytest.approx(7, abs=0.1)
    assert diary == ["Stuck starts", "handler cancelled", "Stuck exits"]
    assert (report.accepted, report.abandoned) == (5, 5)
    assert report.abandoned_events == {"Stuck.on_ping": {"Ping": 5}}
    assert "abandoned by Stuck.on_ping: 5 Ping" in str(report)


@pytest.mark.virtual_clock
async def test_an_infinite_grace_period_waits_for_as_long_as_it_takes() -> None:
    done: list[int] = []

    class Slow(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            await anyio.sleep(1_000_000)
            done.append(len(events))

    async with AppEngine([Slow()], grace_period=math.inf) as engine:
        await engine.pub_event(Ping(1))
        before = anyio.current_time()
    assert done == [1]
    assert anyio.current_time() - before == pytest.approx(1_000_000, abs=0.1)


@pytest.mark.virtual_clock
async def test_a_stopping_engine_ticks_no_more_but_lets_a_tick_publish_and_end() -> None:
    diary: list[str] = []

    class Ticker(Application):
        @schedule(interval=10)
        async def tick(self) -> None:
            diary.append("tick")
            await anyio.sleep(25)
            await self.engine.pub_event(Ping(1))
            diary.append("tick published")

        @schedule(interval=1, run_at_once=False)
        async def other(self) -> None:
            diary.append("other")

        async def on_ping(self, events: list[Ping]) -> None:
            diary.append("handled")

    async with AppEngine([Ticker()], grace_period=100) as engine:
        before = anyio.current_time()
        await anyio.sleep(1.5)
    assert diary == ["tick", "other", "tick published", "handled"]
    assert anyio.current_time() - before == pytest.approx(25, abs=0.1)
    assert engine.report is not None
    assert engine.report.is_clean


async def test_the_drain_is_over_when_the_last_tick_ends() -> None:
    """*Design D10, step 2*: all is quiet then, whether or not it published."""
    begun, gate = anyio.Event(), anyio.Event()

    class Ticks(Application):
        @schedule(3600)
        async def tick(self) -> None:
            begun.set()
            await gate.wait()

    with anyio.fail_after(SOON):
        async with AppEngine([Ticks()], grace_period=math.inf) as engine:
            await begun.wait()
            engine.stop()
            await anyio.wait_all_tasks_blocked()
            assert engine.state is EngineState.DRAINING
            gate.set()
            await engine.wait_stopped()


async def test_a_task_that_publishes_while_the_engine_stops_ends_in_order(logs: list[Any]) -> None:
    """Design D10: `EngineClosed` that leaves a task now is its orderly end."""

    class Producer(Application):
        @task
        async def produce(self) -> None:
            while True:
                await self.engine.pub_event(Ping(1))
                await checkpoint()

        async def on_ping(self, events: list[Ping]) -> None:
            pass

    async with AppEngine([Producer()], on_error="raise"):
        await checkpoint()
    assert not [record for record in logs if record.level == "ERROR"]


async def test_stop_does_nothing_before_the_start_and_after_the_end() -> None:
    engine = AppEngine()
    engine.stop()
    states = [engine.state]
    await run_and_stop(engine)
    engine.stop()
    assert [*states, engine.state] == [EngineState.NEW, EngineState.STOPPED]


async def test_stop_may_be_asked_by_a_handler_and_more_than_once() -> None:
    class Stopper(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            self.engine.stop()
            self.engine.stop()
            await checkpoint()
            self.engine.stop()

    engine = AppEngine([Stopper()])
    await engine.pub_event(Ping(1))
    report = await engine.run()
    assert (report.handled, report.is_clean) == (1, True)


# -- exit hooks ------------------------------------------------------------------------------------------------------


async def test_every_exit_hook_runs_whatever_the_others_raise() -> None:
    diary: list[str] = []
    engine = AppEngine(
        [
            Recorder("A", diary, on_exit=lambda: fail(ValueError("a"))),
            Recorder("B", diary),
            Recorder("C", diary, on_exit=lambda: fail(OSError("c"))),
        ]
    )

    @engine.exit
    async def last() -> None:
        diary.append("engine exits")
        raise KeyError("engine")

    with pytest.raises(ExceptionGroup) as caught:
        await run_and_stop_bare(engine)
    assert [type(error) for error in caught.value.exceptions] == [OSError, ValueError, KeyError]
    assert diary[3:] == ["C exits", "B exits", "A exits", "engine exits"]


async def run_and_stop_bare(engine: AppEngine) -> None:
    """In this task, so that no task group wraps what leaves `run()`."""

    async def stop_soon() -> None:
        await engine.wait_running()
        engine.stop()

    stopper = anyio.create_task_group()
    errors: list[BaseException] = []
    async with stopper:
        stopper.start_soon(stop_soon)
        try:
            await engine.run()
        except Exception as exc:
            errors.append(exc)
    if errors:
        raise errors[0]


async def test_one_error_of_an_exit_hook_leaves_as_itself() -> None:
    error = ValueError("a")
    engine = AppEngine([Recorder("A", [], on_exit=lambda: fail(error))])
    with pytest.raises(ValueError, match="a") as caught:
        await run_and_stop_bare(engine)
    assert caught.value is error


@pytest.mark.virtual_clock
async def test_an_exit_hook_that_takes_too_long_is_cancelled_and_named() -> None:
    diary: list[str] = []
    engine = AppEngine(
        [Recorder("A", diary), Recorder("B", diary, on_exit=anyio.sleep_forever)], exit_timeout=3
    )
    before = anyio.current_time()
    with pytest.raises(ExitTimeout, match=r"B\.exit took longer than 3 s"):
        await run_and_stop_bare(engine)
    assert diary == ["A starts", "B starts", "B exits", "A exits"]
    assert anyio.current_time() - before == pytest.approx(3, abs=0.1)


@pytest.mark.virtual_clock
async def test_a_task_that_ends_late_is_named_and_the_hooks_run_on_time() -> None:
    """Design D10, step 3. A task cannot be abandoned: `run()` waits for it, but no hook does."""
    diary: list[str] = []

    class Stubborn(Recorder):
        @task
        async def clean_up_for_long(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(60)
                diary.append("task ends")

        async def exit(self) -> None:
            await super().exit()
            exited.append(anyio.current_time() - stopped)

    exited: list[float] = []
    engine = AppEngine([Stubborn("S", diary)], exit_timeout=5)
    async with engine:
        await anyio.wait_all_tasks_blocked()
        diary.clear()
        stopped = anyio.current_time()
    assert diary == ["S exits", "task ends"]
    assert exited == pytest.approx([5], abs=0.1)
    assert anyio.current_time() - stopped == pytest.approx(60, abs=0.1)
    assert engine.report is not None
    assert engine.report.tasks_left == ("S.clean_up_for_long",)


@pytest.mark.virtual_clock
async def test_hooks_and_tasks_get_the_time_they_were_promised() -> None:
    """Not less and not more: the tests above see only that it is over some time."""
    lasted: dict[str, float] = {}
    stopped = 0.0

    async def hang(what: str) -> None:
        began = anyio.current_time()
        try:
            await anyio.sleep_forever()
        finally:
            lasted[what] = anyio.current_time() - began

    class Stubborn(Application):
        @task
        async def cleans_up_for_long(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(60)

        async def exit(self) -> None:
            lasted["tasks"] = anyio.current_time() - stopped
            await hang("exit")

    engine = AppEngine([Stubborn()], start_timeout=7, exit_timeout=5)

    async def body() -> None:
        nonlocal stopped
        async with engine:
            await anyio.wait_all_tasks_blocked()
            stopped = anyio.current_time()

    with pytest.raises(ExitTimeout):
        await body()
    hanging = AppEngine(start_timeout=7)
    hanging.before_start(partial(hang, "start"))
    with pytest.raises(StartTimeout):
        await hanging.run()
    assert lasted == pytest.approx({"tasks": 5, "exit": 5, "start": 7}, abs=0.1)


# -- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(40))
async def test_cancelled_at_any_step_every_exit_hook_still_runs_once(steps: int) -> None:
    """Design promise 7, from the first step of the start to the last of the end."""
    diary: list[str] = []
    gate = anyio.Event()
    gate.set()
    app = Chain(gate)
    engine = AppEngine([Recorder("A", diary), app, Recorder("B", diary)])
    await engine.pub_events(Ping(number) for number in range(3))

    @engine.exit
    async def last() -> None:
        diary.append("engine exits")

    async def stop_after(number: int) -> None:
        for _ in range(number):
            await checkpoint()
        engine.stop()

    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        group.start_soon(stop_after, 20)
        for _ in range(steps):
            await checkpoint()
        group.cancel_scope.cancel()
    starts = [entry[0] for entry in diary if entry.endswith("starts")]
    exits = [entry[0] for entry in diary if entry.endswith("exits") and entry != "engine exits"]
    assert exits in (starts[::-1], starts[-2::-1])  # a hook that was cancelled has not succeeded
    if engine.report is None:
        assert (steps, diary, engine.state) == (0, [], EngineState.NEW)  # it was never begun
        return
    assert diary.count("engine exits") == 1
    assert engine.state is EngineState.STOPPED
    report = engine.report
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned


async def test_cancellation_from_outside_skips_the_drain_and_is_raised_again() -> None:
    diary: list[str] = []
    app = Chain(anyio.Event())
    engine = AppEngine([app, Recorder("A", diary)])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            await engine.pub_event(Ping(1))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert diary == ["A starts", "A exits"]
    assert engine.report is not None
    assert engine.report.abandoned_events == {"Chain.on_ping": {"Ping": 1}}


async def test_a_strict_engine_ends_with_the_first_failure_as_itself() -> None:
    """Design D7."""
    diary: list[str] = []
    error = ValueError("bad ping")

    class Fails(Recorder):
        async def on_ping(self, events: list[Ping]) -> None:
            raise error

    engine = AppEngine([Fails("F", diary)], on_error="raise")
    await engine.pub_event(Ping(1))
    with pytest.raises(ValueError, match="bad ping") as caught:
        await engine.run()
    assert caught.value is error
    assert diary == ["F starts", "F exits"]


# -- waiting and states ----------------------------------------------------------------------------------------------


async def test_the_states_come_in_order() -> None:
    seen: list[EngineState] = []

    class Looks(Application):
        async def before_start(self) -> None:
            seen.append(self.engine.state)

        async def on_ping(self, events: list[Ping]) -> None:
            seen.append(self.engine.state)
            self.engine.stop()
            seen.append(self.engine.state)

        async def exit(self) -> None:
            seen.append(self.engine.state)

    engine = AppEngine([Looks()])
    seen.append(engine.state)
    await engine.pub_event(Ping(1))
    await engine.run()
    seen.append(engine.state)
    assert seen == list(EngineState)


async def test_wait_idle_returns_when_nothing_is_queued_and_no_handler_runs() -> None:
    gate = anyio.Event()
    app = Chain(gate)
    idle: list[int] = []

    async def wait() -> None:
        await engine.wait_idle()
        idle.append(len(app.ended))

    async with AppEngine([app]) as engine, anyio.create_task_group() as group:
        await engine.pub_events(Ping(number) for number in range(4))
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert idle == []
        gate.set()
    assert idle == [4]


@pytest.mark.parametrize(
    ("method", "where"),
    [
        (method, where)
        for method in ("wait_running", "wait_idle", "wait_stopped")
        for where in ("handler", "before_start", "exit")
        if (method, where) != ("wait_running", "handler")
    ],
)
async def test_waiting_for_oneself_is_an_error(method: str, where: str) -> None:
    errors: list[str] = []

    class Waits(Application):
        async def wait(self, place: str) -> None:
            if place == where:
                with pytest.raises(WouldDeadlockError, match=method) as caught:
                    await getattr(self.engine, method)()
                assert isinstance(caught.value, RuntimeError)
                errors.append(place)

        async def before_start(self) -> None:
            await self.wait("before_start")

        async def exit(self) -> None:
            await self.wait("exit")

        async def on_ping(self, events: list[Ping]) -> None:
            await self.wait("handler")

    async with AppEngine([Waits()]) as engine:
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
    assert errors == [where]


async def test_a_tick_that_waits_for_the_end_of_the_engine_is_an_error_and_may_wait_for_idle() -> None:
    outcome: list[str] = []

    class Ticks(Application):
        @schedule(3600)
        async def tick(self) -> None:
            with pytest.raises(WouldDeadlockError, match=r"wait_stopped\(\) inside a schedule"):
                await self.engine.wait_stopped()
            await self.engine.wait_idle()
            outcome.append("idle")

    async with AppEngine([Ticks()], grace_period=0):
        await anyio.wait_all_tasks_blocked()
        assert outcome == ["idle"]


async def test_what_a_hook_left_behind_may_wait_for_idle() -> None:
    """The hook has ended: nobody waits for himself."""
    outcome: list[str] = []
    gate = anyio.Event()
    engine = AppEngine()

    async def later() -> None:
        await gate.wait()
        await engine.wait_idle()
        outcome.append("idle")

    async with anyio.create_task_group() as group:

        @engine.before_start
        async def setup() -> None:
            group.start_soon(later)

        async with engine:
            gate.set()
            await anyio.wait_all_tasks_blocked()
            assert outcome == ["idle"]


async def test_wait_running_and_wait_stopped_see_one_run_after_the_other() -> None:
    engine = AppEngine()
    for _ in range(2):
        async with anyio.create_task_group() as group:
            group.start_soon(engine.run)
            await engine.wait_running()
            assert engine.state is EngineState.RUNNING
            engine.stop()
            report = await engine.wait_stopped()
            assert report is engine.report


async def test_wait_stopped_returns_the_report_of_the_run_it_waited_for() -> None:
    """*Regression*: when it woke up the engine ran again, and it waited on."""
    engine = AppEngine()
    reports: list[object] = []
    waited: list[object] = []

    async def wait() -> None:
        waited.append(await engine.wait_stopped())

    async def run_again_and_again() -> None:
        for number in range(3):
            reports.append(await engine.run())
            assert len(reports) == number + 1

    async with anyio.create_task_group() as group:
        group.start_soon(wait)  # for the first run, before it has begun
        await anyio.wait_all_tasks_blocked()
        group.start_soon(run_again_and_again)
        for number in range(3):
            await engine.wait_running()
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            engine.stop()
            while len(reports) == number:
                await checkpoint()
    # By identity: nothing happened in any of them, so the reports are equal.
    assert [id(report) for report in waited] == [id(report) for report in (reports[0], *reports)]


async def test_a_ring_that_came_just_before_the_wait_is_heard() -> None:
    """Another thread may ring between the first look and the wait."""
    looks = iter([False, True, True])
    with anyio.fail_after(SOON):
        await Bell().until(lambda: next(looks))


async def test_a_stop_while_the_run_is_prepared_is_not_lost() -> None:
    class Stops(Application):
        @property
        def name(self) -> str:  # type: ignore[override]
            self.engine.stop() if self._added_to else None
            return "Stops"

        async def before_start(self) -> None:
            raise AssertionError("it was asked to stop before")

    await AppEngine([Stops()]).run()


async def test_wait_running_raises_when_the_start_fails() -> None:
    engine = AppEngine([Recorder("A", [], on_start=lambda: fail(OSError("no")))])
    closed: list[str] = []

    async def wait() -> None:
        with pytest.raises(EngineClosed):
            await engine.wait_running()
        closed.append("closed")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="no"):
            await engine.run()
    assert closed == ["closed"]


async def test_an_engine_that_runs_cannot_be_run_or_changed() -> None:
    async with AppEngine() as engine:
        with pytest.raises(EngineStateError, match="run is not possible while the engine is running"):
            await engine.run()
        with pytest.raises(EngineStateError, match="add_app"):
            engine.add_app(Recorder("A", []))
        with pytest.raises(EngineStateError, match="before_start"):
            engine.before_start(lambda: None)
        with pytest.raises(EngineStateError, match="register_handler"):
            engine.register_handler(Ping, print)


async def test_a_handler_whose_publish_was_granted_when_the_engine_ends_is_cancelled_not_failed(
    logs: list[Any],
) -> None:
    """Regression: it got `EngineClosed`, and its batch was a failure in log and report, though nothing was wrong with it."""
    engine = AppEngine(queue_size=1, max_batch=1)

    @engine.on_event(Ping)
    async def pass_on(events: list[Ping]) -> None:
        for number in range(3):
            await engine.pub_event(Pong(number))

    @engine.on_event(Pong)
    async def end(events: list[Pong]) -> None:
        # Called in the very step in which its worker has granted the place that `pass_on` waits for.
        if events[0].data == 1:
            assert engine._supervisor is not None
            engine._supervisor.stop_hard()
        else:
            await anyio.wait_all_tasks_blocked()

    @engine.before_start
    async def begin() -> None:
        await engine.pub_event(Ping(1))

    report = await engine.run()
    assert (report.handled, report.failed, report.abandoned) == (2, 0, 1)
    assert [record.message for record in logs if record.level == "ERROR"] == []

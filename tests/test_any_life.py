"""One engine, started, stopped and broken again and again, ends clean each time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from host import Host
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import BACKENDS, machine_test, run_machine
from records import keep
from stepped_loop import SteppedLoop

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    EngineClosed,
    EngineState,
    Event,
    ExitTimeout,
    StartTimeout,
    SubApplication,
    on_event,
    task,
)
from event_flow.testing.clock import virtual_clock

HOUR = 3600.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class A(Event[int]):
    pass


class Fatal(Event[int]):
    pass


class End(Enum):
    STOP = "engine.stop()"
    CANCEL = "the scope around run() is cancelled"
    NATIVE = "on asyncio the task that called run() is cancelled natively; on Trio the scope"
    EXIT = "a handler raises SystemExit"


class Mood(Enum):
    """What a hook does when it is called."""

    WELL = "returns"
    FAILS = "raises"
    HANGS = "never returns"


class Moody:
    """An application and its sub-applications, with hooks that do what they are told to, and one handler.

    A stuck handler never returns; then what it was given is abandoned.
    """

    def __init__(self, name: str, diary: list[str]) -> None:
        super().__init__(name)  # type: ignore[call-arg]
        self.title = name
        self.diary = diary
        self.start_mood = self.exit_mood = Mood.WELL
        self.is_stuck = False
        self.seen = 0
        self.ends_it: Callable[[], object] | None = None

    @task
    async def live(self) -> None:
        await checkpoint()
        if self.ends_it is not None:
            self.ends_it()
        await anyio.sleep_forever()

    async def before_start(self) -> None:
        self.diary.append(f"{self.title} starts")
        await self.act(self.start_mood)

    async def exit(self) -> None:
        self.diary.append(f"{self.title} exits")
        await self.act(self.exit_mood)

    async def act(self, mood: Mood) -> None:
        await checkpoint()
        if mood is Mood.FAILS:
            raise OSError(self.title)
        if mood is Mood.HANGS:
            await anyio.sleep_forever()

    @on_event(A)
    async def handle(self, events: list[A]) -> None:
        if self.is_stuck:
            await anyio.sleep_forever()
        self.seen += len(events)


class MoodyApplication(Moody, Application):
    pass


class MoodySubApplication(Moody, SubApplication):
    pass


class Life(Host, RuleBasedStateMachine):
    """One engine on a virtual clock: after each step an hour passes, so that all timeouts are over.

    It runs in a loop that is stepped, or, alone, in one of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop: SteppedLoop | None = None

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.loop = SteppedLoop(self.backend, seed)
        self.tasks_before = self.loop.do(_number_of_tasks)
        self.engine = AppEngine(grace_period=5, exit_timeout=5, start_timeout=5, max_backlog=3, queue_size=2)
        self.engine.on_event(Fatal)(_exit)
        self.engine.exit(self._last_hook)
        self.diary: list[str] = []
        self.apps: list[MoodyApplication] = []
        self.nodes: list[Moody] = []  # in the order of the start
        self.kept = 0  # events published before the start
        self.accepted = 0  # events of this run
        self.is_running = False
        self.has_run = False

    async def _last_hook(self) -> None:
        self.diary.append("engine exits")

    def teardown(self) -> None:
        if self.loop is None:
            return
        try:
            if self.is_running and sys.exc_info()[0] is None:
                self._end(End.CANCEL)
        finally:
            self.loop.close()

    def _do(self, what: Callable[[], Any]) -> Any:
        """Do something in the loop, and let everything happen that follows from it."""
        assert self.loop is not None
        result = self.loop.do(what)
        self.loop.let_pass(HOUR)
        return result

    # -- what is done to it ------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_running and len(self.nodes) < 6)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        """Add an application, or a sub-application to any of those there are."""
        parent = data.draw(st.sampled_from([None, *self.nodes]))
        name = f"n{len(self.nodes)}"
        if parent is None:
            app = MoodyApplication(name, self.diary)
            self.engine.add_app(app)
            self.apps.append(app)
        else:
            assert isinstance(parent, Application | SubApplication)
            parent.add_app(MoodySubApplication(name, self.diary))
        self.nodes = [node for app in self.apps for node in self._family(app)]

    def _family(self, app: Any) -> list[Moody]:
        return [app, *(node for child in app._sub_apps for node in self._family(child))]

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), start=st.sampled_from(Mood), exits=st.sampled_from(Mood), is_stuck=st.booleans())
    def change_mood(self, data: st.DataObject, start: Mood, exits: Mood, is_stuck: bool) -> None:
        node = data.draw(st.sampled_from(self.nodes))
        node.exit_mood = exits
        if not self.is_running:
            node.start_mood, node.is_stuck = start, is_stuck

    @rule()
    def publish(self) -> None:
        # A stuck handler runs what it got first; two more fit into its queue.
        full = self.is_running and any(node.is_stuck and self._queued(node) >= 2 for node in self.nodes)
        outcome = self._do(self._publish)
        if self.is_running:
            keep(
                2,
                outcome == ("waits" if full else "made"),
                f"a publish to {'full' if full else 'free'} lanes {outcome}",
            )
            self.accepted += not full
        elif self.has_run:
            keep(5, outcome == "closed", f"a publish to a stopped engine {outcome}")
        else:
            keep(
                2,
                outcome == ("made" if self.kept < 3 else "backlog"),
                f"a publish before the start {outcome}",
            )
            self.kept += outcome == "made"

    async def _publish(self) -> str:
        try:
            with anyio.fail_after(1):
                await self.engine.pub_event(A(1))
        except EngineClosed:
            return "closed"
        except BacklogExceeded:
            return "backlog"
        except TimeoutError:
            return "waits"
        return "made"

    def _queued(self, node: Moody) -> int:
        return self.engine.statistics().handlers[f"{node.title}.handle"].queued

    def _prepare(self) -> Moody | None:
        """What a run begins with. Returns the first whose start is bad."""
        self.diary.clear()
        for node in self.nodes:
            node.seen = 0
        self.accepted, self.kept = self.kept, 0
        self.has_run = True
        self.raised = None
        return next((node for node in self.nodes if node.start_mood is not Mood.WELL), None)

    @precondition(lambda self: not self.is_running)
    @rule()
    def run(self) -> None:
        assert self.loop is not None
        bad = self._prepare()
        self.loop.start(self._host)
        self._do(checkpoint)
        if bad is None:
            keep(7, self.engine.state is EngineState.RUNNING, f"started, it is {self.engine.state}")
            keep(7, self.diary == [f"{node.title} starts" for node in self.nodes], self.diary)
            self.is_running = True
        else:
            self._has_failed_to_start(bad)

    def _has_failed_to_start(self, bad: Moody) -> None:
        started = self.nodes[: self.nodes.index(bad)]
        error = OSError if bad.start_mood is Mood.FAILS else StartTimeout
        self._has_ended([*started, bad], started, [error])

    @precondition(lambda self: self.is_running)
    @rule(end=st.sampled_from(End))
    def end(self, end: End) -> None:
        self._end(end)

    def _end(self, end: End) -> None:
        self.is_running = False
        order: dict[End, Callable[[], Any]] = {
            End.STOP: self.engine.stop,
            End.CANCEL: self.scope.cancel,
            End.NATIVE: lambda: self.cancel_natively() and None,
            End.EXIT: lambda: self.engine.pub_event(Fatal(1)),
        }
        self._do(order[end])
        self._has_ended(self.nodes, self.nodes, [], has_exited=end is End.EXIT)

    @precondition(lambda self: not self.is_running and self.nodes)
    @rule(by_signal=st.booleans())
    def start_alone(self, by_signal: bool) -> None:
        """It has a loop of its own and the signals, ends by itself, and the signal handlers are those of before."""
        before = [signal.getsignal(number) for number in SIGNALS]
        bad = self._prepare()
        self.nodes[0].ends_it = (
            (lambda: signal.raise_signal(signal.SIGTERM)) if by_signal else self.engine.stop
        )
        try:
            options = virtual_clock(self.backend) | ({"debug": False} if self.backend == "asyncio" else {})
            self.engine.start(self.backend, options)
        except BaseException as exc:
            self.raised = exc
        finally:
            self.nodes[0].ends_it = None
        after = [signal.getsignal(number) for number in SIGNALS]
        keep(7, after == before, f"the signal handlers are {after}, and were {before}")
        if bad is None:
            self._has_ended(self.nodes, self.nodes, [])
        else:
            self._has_failed_to_start(bad)

    # -- what must hold then -----------------------------------------------------------------------------------

    def _has_ended(
        self,
        called: list[Moody],
        started: list[Moody],
        errors: list[type[Exception]],
        *,
        has_exited: bool = False,
    ) -> None:
        assert self.loop is not None
        keep(7, self.engine.state is EngineState.STOPPED, f"it does not end: {self.engine.state}")
        starts = [f"{node.title} starts" for node in called]
        exits = [f"{node.title} exits" for node in reversed(started)]
        keep(7, self.diary == [*starts, *exits, "engine exits"], f"the hooks ran in this order: {self.diary}")
        of_mood = {Mood.FAILS: OSError, Mood.HANGS: ExitTimeout}
        errors += [of_mood[node.exit_mood] for node in reversed(started) if node.exit_mood is not Mood.WELL]
        raised = self.raised.exceptions if isinstance(self.raised, ExceptionGroup) else [self.raised]
        wanted: list[type[BaseException]] = [SystemExit] if has_exited else [*errors]
        keep(7, [type(error) for error in raised if error] == wanted, f"{raised} instead of {wanted}")
        tasks = self.loop.do(_number_of_tasks)
        keep(7, tasks == self.tasks_before, f"{tasks - self.tasks_before} tasks are left")
        self._judge_report(has_exited=has_exited)
        if started == self.nodes == called:
            lost = [node.title for node in self.nodes if not node.is_stuck and node.seen != self.accepted]
            keep(4, not lost, f"{lost} did not get {self.accepted} events")

    def _judge_report(self, *, has_exited: bool) -> None:
        report = self.engine.report
        assert report is not None
        accepted, handled = self.accepted * len(self.nodes), sum(node.seen for node in self.nodes)
        keep(4, report.accepted == accepted + has_exited, f"{accepted} deliveries, and {report}")
        keep(4, report.failed == has_exited, f"{report.failed} failed")
        keep(4, report.handled == handled, f"{handled} were handled, and {report}")
        keep(4, report.abandoned == accepted - handled, f"{accepted - handled} were abandoned, and {report}")
        keep(7, not report.tasks_left, f"tasks left: {report.tasks_left}")

    @invariant()
    def the_state_is_known(self) -> None:
        if self.loop is None:
            return
        expected = EngineState.RUNNING if self.is_running else EngineState.STOPPED
        state = self.engine.state
        keep(7, state is (expected if self.has_run else EngineState.NEW), f"it is {state}")


async def _exit(events: list[Fatal]) -> None:
    raise SystemExit(3)


def _number_of_tasks() -> int:
    return len(anyio.get_running_tasks())


@machine_test
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_life_of_an_engine_ends_clean(backend: str) -> None:
    """*Design promises 4 and 7*, from one run to the next."""
    life = type("Life", (Life,), {"backend": backend})
    run_machine(life, steps=20)

"""One engine, started, stopped and broken again and again, ends clean each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from machines import BACKENDS, run_machine, time_to_shrink

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
)
from event_flow.testing.clock import virtual_clock

HOUR = 3600.0


class A(Event[int]):
    pass


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


class Life(RuleBasedStateMachine):
    """One engine on a virtual clock, in a loop of its own: after each step an hour passes, so that all timeouts are over."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        options = virtual_clock(self.backend)
        if self.backend == "asyncio":
            options["debug"] = False
        self.portal_manager = start_blocking_portal(self.backend, options)
        self.portal = self.portal_manager.__enter__()
        self.engine = AppEngine(grace_period=5, exit_timeout=5, start_timeout=5, max_backlog=3, queue_size=2)
        self.engine.exit(self._last_hook)
        self.diary: list[str] = []
        self.apps: list[MoodyApplication] = []
        self.nodes: list[Moody] = []  # in the order of the start
        self.kept = 0  # events published before the start
        self.accepted = 0  # events of this run
        self.raised: BaseException | None = None
        self.is_running = False
        self.has_run = False

    async def _last_hook(self) -> None:
        self.diary.append("engine exits")

    def teardown(self) -> None:
        try:
            if self.is_running:
                self._end(cancel=True)
        finally:
            self.portal_manager.__exit__(None, None, None)

    def _do(self, what: Callable[[], Any]) -> Any:
        """Do something in the loop, and let everything happen that follows from it."""

        async def step() -> Any:
            result = what()
            if isinstance(result, Awaitable):
                result = await result
            await anyio.sleep(HOUR)
            return result

        return self.portal.call(step)

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
            assert outcome == ("waits" if full else "made")
            self.accepted += not full
        elif self.has_run:
            assert outcome == "closed"
        else:
            assert outcome == ("made" if self.kept < 3 else "backlog")
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

    @precondition(lambda self: not self.is_running)
    @rule()
    def run(self) -> None:
        self.diary.clear()
        for node in self.nodes:
            node.seen = 0
        self.accepted, self.kept = self.kept, 0
        self.has_run = True
        self.raised = None
        self.portal.start_task_soon(self._host)
        self._do(checkpoint)
        bad = next((node for node in self.nodes if node.start_mood is not Mood.WELL), None)
        if bad is None:
            assert self.engine.state is EngineState.RUNNING
            assert self.diary == [f"{node.title} starts" for node in self.nodes]
            self.is_running = True
        else:
            started = self.nodes[: self.nodes.index(bad)]
            error = OSError if bad.start_mood is Mood.FAILS else StartTimeout
            self._has_ended([*started, bad], started, [error])

    async def _host(self) -> None:
        with anyio.CancelScope() as self.scope:
            try:
                await self.engine.run()
            except Exception as exc:
                self.raised = exc

    @precondition(lambda self: self.is_running)
    @rule(cancel=st.booleans())
    def end(self, cancel: bool) -> None:
        self._end(cancel)

    def _end(self, cancel: bool) -> None:
        self.is_running = False
        self._do(lambda: self.scope.cancel() if cancel else self.engine.stop())
        self._has_ended(self.nodes, self.nodes, [])

    # -- what must hold then -----------------------------------------------------------------------------------

    def _has_ended(self, called: list[Moody], started: list[Moody], errors: list[type[Exception]]) -> None:
        assert self.engine.state is EngineState.STOPPED
        starts = [f"{node.title} starts" for node in called]
        exits = [f"{node.title} exits" for node in reversed(started)]
        assert self.diary == [*starts, *exits, "engine exits"]
        of_mood = {Mood.FAILS: OSError, Mood.HANGS: ExitTimeout}
        errors += [of_mood[node.exit_mood] for node in reversed(started) if node.exit_mood is not Mood.WELL]
        raised = self.raised.exceptions if isinstance(self.raised, ExceptionGroup) else [self.raised]
        assert [type(error) for error in raised if error] == errors
        report = self.engine.report
        assert report is not None
        assert report.accepted == self.accepted * len(self.nodes)
        assert report.handled == sum(node.seen for node in self.nodes)
        assert report.abandoned == report.accepted - report.handled
        assert not report.tasks_left
        if started == self.nodes == called:
            assert all(node.is_stuck or node.seen == self.accepted for node in self.nodes)

    @invariant()
    def the_state_is_known(self) -> None:
        expected = EngineState.RUNNING if self.is_running else EngineState.STOPPED
        assert self.engine.state is (expected if self.has_run else EngineState.NEW)


@time_to_shrink
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_life_of_an_engine_ends_clean(backend: str) -> None:
    """*Design promises 4 and 7*, from one run to the next."""
    life = type("Life", (Life,), {"backend": backend})
    run_machine(life, steps=20, share=2)

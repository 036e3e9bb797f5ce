"""Cancellation at each await of a start, a drain and an end: everything still ends in order (*Design promises 4 and 7*).

The steps are those of all tasks of the engine: of the caller of `run()`, the supervisor, the hooks, the hosts of the
applications, handlers, schedules and tasks. `steps` finds every one there is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from steps import Target, cancel_at_every_step

from event_flow import (
    AppEngine,
    Application,
    EngineClosed,
    EngineState,
    Event,
    SubApplication,
    schedule,
    task,
)


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Part(Application):
    """Writes down how it starts and ends; its task takes some steps to end."""

    def __init__(self, name: str, life: Life) -> None:
        super().__init__(name)
        self.life = life

    async def before_start(self) -> None:
        self.life.starting.set()
        for _ in range(4):
            await checkpoint()
        self.life.diary.append(f"{self.name} started")

    async def on_ping(self, events: list[Ping]) -> None:
        self.life.at_work += 1
        try:
            if events[0].data:
                self.life.handling.set()
                await self.life.gate.wait()
            await checkpoint()
        finally:
            self.life.at_work -= 1
        self.life.handled += len(events)

    @task
    async def live(self) -> None:
        self.life.diary.append(f"{self.name} lives")
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await checkpoint()
                await checkpoint()
            self.life.diary.append(f"{self.name} died")

    async def exit(self) -> None:
        assert not self.life.at_work, "handlers of all applications end before the first hook"
        self.life.diary.append(f"{self.name} exits")
        await checkpoint()
        await checkpoint()
        self.life.diary.append(f"{self.name} exited")


class SubPart(Part, SubApplication):
    pass


class Busy(Part):
    """Its handler publishes more than there is room for, also while the engine drains."""

    async def on_ping(self, events: list[Ping]) -> None:
        await super().on_ping(events)
        if events[0].data:
            self.life.handled -= len(events)
            try:
                await self.engine.pub_events([Pong(0)] * 4)
            except EngineClosed:  # its place was granted, then the engine closed
                self.life.refused += len(events)
                raise
            self.life.handled += len(events)

    async def on_pong(self, events: list[Pong]) -> None:
        await checkpoint()
        self.life.handled += len(events)

    @schedule(interval=1000)
    async def tick(self) -> None:
        await checkpoint()


class Life:
    """An engine that starts, is at work, drains and ends; the steps of one of these phases count.

    It lives again and again, a next time cancelled one step later: so every end is followed by a start.
    """

    def __init__(
        self, phase: str, through: str = "run", *, small: bool = False, cancelled_before: str = ""
    ) -> None:
        self.phase = phase
        self.through = through
        # Where it is cancelled a first time: "begin", "start" or "work".
        self.cancelled_before = cancelled_before
        self.target: Target
        parts: list[Application] = [Busy("B", self)]
        if not small:
            first = Part("A", self)
            first.add_app(SubPart("A1", self))
            parts.insert(0, first)
        self.engine = AppEngine(parts, queue_size=2, max_batch=2)
        self.names = ["B"] if small else ["A", "A1", "B"]
        self.hooks = ["first"] if small else ["first", "second"]
        for name in self.hooks:
            self._add_hooks(name)
        self.begin_again()

    def begin_again(self) -> Life:
        self.diary: list[str] = []
        self.handled = 0
        self.refused = 0
        self.at_work = 0
        self.starting = anyio.Event()
        self.handling = anyio.Event()
        self.gate = anyio.Event()
        self.over = anyio.Event()
        self.has_opened = False
        self.report_before = self.engine.report
        return self

    def _add_hooks(self, name: str) -> None:
        @self.engine.before_start
        async def starts() -> None:
            await checkpoint()

        @self.engine.exit
        async def ends() -> None:
            self.diary.append(f"{name} exits")
            await checkpoint()
            await checkpoint()
            self.diary.append(f"{name} exited")

    def is_phase(self) -> bool:
        state = self.engine.state
        if self.through in ("wait_idle", "wait_stopped"):
            return self.handling.is_set()
        if self.phase == "start":
            return not self.has_opened
        if self.phase == "drain":
            return state is EngineState.DRAINING
        if self.cancelled_before:
            return self.target.was_asked
        if self.phase == "exit":
            return self.has_opened and state in (EngineState.STOPPING, EngineState.STOPPED)
        return True

    def look(self) -> object:
        return self.engine.state

    # -- what is cancelled

    async def _call(self) -> None:
        if self.through == "run":
            await self.engine.run()
        elif self.through == "async with":
            async with self.engine:
                await self.over.wait()
        elif self.through == "task group":
            async with anyio.create_task_group() as group:
                await group.start(self.engine.run)
                await self.over.wait()
                self.engine.stop()
        else:
            if self.through != "wait_running":
                await self.handling.wait()
            await getattr(self.engine, self.through)()

    @property
    def is_bystander(self) -> bool:
        """Whether it only waits for an engine that somebody else runs."""
        return self.through.startswith("wait_")

    # -- what happens meanwhile

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        async with anyio.create_task_group() as group:
            with CancelScope() as driving:
                group.start_soon(self._run, target, begin, group, driving)
                await self._drive()

    async def _run(
        self, target: Target, begin: Callable[[], object], group: TaskGroup, driving: CancelScope
    ) -> None:
        if self.is_bystander:
            group.start_soon(self.engine.run)
        self.target = target
        target.spawn(group, self._call)
        if self.cancelled_before == "begin":
            target.cancel()
        begin()
        await target.ended.wait()
        if not self.is_bystander:
            driving.cancel()

    async def _drive(self) -> None:
        with suppress(EngineClosed):
            if self.cancelled_before == "start":
                await self.starting.wait()
                self.target.cancel()
            await self.engine.wait_running()
            await self.engine.pub_event(Ping(0))
            await self.engine.wait_idle()
            self.has_opened = True
            await self.engine.pub_events([Ping(1)] * 3)
            await self.handling.wait()
            if self.cancelled_before == "work":
                self.target.cancel()
            self.over.set()
            if self.through not in ("task group", "async with"):
                self.engine.stop()
            for _ in range(3):
                await checkpoint()
            self.gate.set()
            await self.engine.wait_stopped()

    # -- what must hold

    async def check(self, target: Target) -> None:
        report = self.engine.report
        if report is self.report_before:
            assert self.diary == []  # it has never begun
            assert self.engine.state is (EngineState.NEW if report is None else EngineState.STOPPED)
            return
        assert report is not None
        self._check_end()
        assert report.tasks_left == report.threads_left == ()
        assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned
        assert report.handled == self.handled
        assert report.failed == self.refused
        assert report.abandoned == sum(sum(each.values()) for each in report.abandoned_events.values())
        if self.is_bystander or not target.was_cancelled:
            assert report.is_clean
            assert report.handled == 4 * len(self.names) + 4 * 2

    def _check_end(self) -> None:
        assert self.engine.state is EngineState.STOPPED
        started = [entry.split()[0] for entry in self.diary if entry.endswith("started")]
        assert started == self.names[: len(started)]
        ends = [entry for entry in self.diary if entry.endswith(("exits", "exited"))]
        # One after the other, none twice, and none cut short.
        assert ends == [
            f"{name} {what}"
            for name in [*reversed(started), *reversed(self.hooks)]
            for what in ("exits", "exited")
        ]
        for entry in self.diary:
            if entry.endswith("lives"):
                name = entry.split()[0]
                assert self.diary.index(f"{name} died") < self.diary.index(f"{name} exits")


# Steps that are known: of three applications with eight handlers, schedules and tasks, and of nine hooks.
LEAST = {"start": 50, "drain": 20, "exit": 40}


@pytest.mark.parametrize("phase", LEAST)
async def test_a_run_is_cancelled(phase: str) -> None:
    life = Life(phase)
    await cancel_at_every_step(life.begin_again, least=LEAST[phase])


@pytest.mark.parametrize("through", ["async with", "task group"])
async def test_an_embedded_run_is_cancelled(through: str) -> None:
    """From entering the block to its end."""
    life = Life("all", through, small=True)
    await cancel_at_every_step(life.begin_again, least=70)


@pytest.mark.parametrize("through", ["run", "async with", "task group"])
@pytest.mark.parametrize("moment", ["begin", "start", "work"])
async def test_a_run_that_was_cancelled_is_cancelled_again(through: str, moment: str) -> None:
    """However it was run, and when it came first: before its first step, in a start hook, while handlers are at work."""
    life = Life("all", through, small=True, cancelled_before=moment)
    await cancel_at_every_step(life.begin_again, least=1 if moment == "begin" else 10)


@pytest.mark.parametrize("through", ["wait_running", "wait_idle", "wait_stopped"])
async def test_who_waits_for_an_engine_is_cancelled_and_it_does_not_notice(through: str) -> None:
    await cancel_at_every_step(lambda: Life("all", through, small=True), least=20)

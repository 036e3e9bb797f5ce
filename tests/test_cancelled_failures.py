"""Cancellation at each await of what the engine does when user code has failed, was cut short, or cancelled its own task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from steps import Target, cancel_at_every_step

from event_flow import (
    AppEngine,
    Application,
    EngineClosed,
    Event,
    ExceptionEvent,
    ExitTimeout,
    StartTimeout,
    schedule,
    task,
)


class Ping(Event[int]):
    pass


class Fails(Application):
    """Whatever fails in one place; and whoever wants the `ExceptionEvent`s is slow, so that publishing them waits."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__()
        self.place = place
        self.what = what
        self.failed: list[BaseException] = []
        self.heard: list[BaseException] = []
        self.has_started = False
        self.exits = 0
        self.gate = anyio.Event()
        self.done = anyio.Event()

    async def _fail_in(self, place: str) -> None:
        if place != self.place:
            return
        await checkpoint()
        if self.what != "fails":
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
        self.done.set()
        if self.what != "cancels itself":
            error = ValueError(place)
            self.failed.append(error)
            raise error

    async def before_start(self) -> None:
        await self._fail_in("before_start")
        self.has_started = True

    async def on_ping(self, events: list[Ping]) -> None:
        await self._fail_in("handler")

    @schedule(interval=1000)
    async def tick(self) -> None:
        await self._fail_in("schedule")

    @task
    async def live(self) -> None:
        await self._fail_in("task")

    async def on_failure(self, failures: list[ExceptionEvent]) -> None:
        await self.gate.wait()
        self.heard += [failure.data for failure in failures]

    async def exit(self) -> None:
        self.exits += 1
        await self._fail_in("exit")


class Failing:
    """Such an engine; the steps from what happens in user code, or of a whole run with such a hook, count."""

    def __init__(self, place: str, what: str) -> None:
        self.app = Fails(place, what)
        self.ends = 0
        self.is_settled = False
        self.engine = AppEngine([self.app], queue_size=1, max_batch=1)
        self.engine.exit(self._end)

    async def _end(self) -> None:
        self.ends += 1

    def is_phase(self) -> bool:
        # What cancels a hook may be on its way before that.
        has_begun = self.app.done.is_set() or self.app.place in ("before_start", "exit")
        return has_begun and not self.is_settled

    def look(self) -> bool:
        """Whether a publish waits."""
        return any(lane.waiters for lane in self.engine._bus.router.lanes)

    async def _call(self) -> None:
        with suppress(ValueError):  # out of a hook, whether or not it was cancelled
            await self.engine.run()

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        # Two for the handler of failures, which is full then: what fails waits with its own.
        await self.engine.pub_events([ExceptionEvent(OSError(), handler="nobody") for _ in range(2)])
        async with anyio.create_task_group() as group:
            with CancelScope() as driving:

                async def end_with_target() -> None:
                    await target.ended.wait()
                    driving.cancel()

                group.start_soon(end_with_target)
                target.spawn(group, self._call)
                begin()
                await self._drive()

    async def _drive(self) -> None:
        with suppress(EngineClosed):
            await self.engine.wait_running()
            await self.engine.pub_event(Ping(1))
            if self.app.place != "exit":
                await self.app.done.wait()
            for _ in range(4):
                await checkpoint()
            self.app.gate.set()
            await self.engine.wait_idle()
            self.is_settled = self.app.place not in ("before_start", "exit")
            self.engine.stop()
            await self.engine.wait_stopped()

    async def check(self, target: Target) -> None:
        report = self.engine.report
        if report is None:
            assert self.app.exits == self.ends == 0  # it has never begun
            return
        assert self.ends == 1
        assert self.app.exits == self.app.has_started
        assert report.tasks_left == report.threads_left == ()
        assert report.accepted == report.handled + report.failed + report.abandoned
        assert report.failed == (len(self.app.failed) if self.app.place == "handler" else 0)
        if not target.was_cancelled:
            assert self.app.has_started != (self.app.place == "before_start" and bool(self.app.failed))
            assert report.abandoned == (0 if self.app.has_started else 2)
            contained = self.app.failed if self.app.place in ("handler", "schedule", "task") else []
            assert [error for error in self.app.heard if isinstance(error, ValueError)] == contained


@pytest.mark.parametrize("place", ["handler", "schedule", "task"])
async def test_the_event_of_a_failure_waits_for_room(place: str) -> None:
    shots = await cancel_at_every_step(lambda: Failing(place, "fails"), least=6)
    assert {shot.seen for shot in shots} == {True, False}


BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]


# Only asyncio has tasks that can be cancelled: on Trio only scopes can.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["cancels itself", "cancels itself and fails"])
@pytest.mark.parametrize("place", ["before_start", "handler", "schedule", "task", "exit"])
def test_user_code_has_cancelled_its_own_task(place: str, what: str, backend: str) -> None:
    # What a hook raises wins over asyncio's cancellation of `run()`; a scope cancels whatever comes behind it too.
    only_scope = what != "cancels itself" and place in ("before_start", "exit")

    async def main() -> None:
        await cancel_at_every_step(
            lambda: Failing(place, what), least=3, among=("scope",) if only_scope else ("scope", "natively")
        )

    anyio.run(main, backend_options={"use_uvloop": backend == "uvloop"})


class Hangs(Application):
    """In one of its hooks it waits for ever, and takes some steps to end when it is cancelled."""

    def __init__(self, place: str, diary: list[str]) -> None:
        super().__init__()
        self.place = place
        self.diary = diary
        self.has_begun = anyio.Event()

    async def _hang_in(self, place: str) -> None:
        if place == self.place:
            self.has_begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with CancelScope(shield=True):
                    for _ in range(3):
                        await checkpoint()
                self.diary.append("cleaned up")

    async def before_start(self) -> None:
        await self._hang_in("before_start")
        self.diary.append("started")

    async def exit(self) -> None:
        self.diary.append("exits")
        await self._hang_in("exit")


class First(Application):
    """Starts before it and ends after it."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.diary = diary

    async def exit(self) -> None:
        await checkpoint()
        self.diary.append("First exited")


class CutShort:
    """An engine that cancels a hook: because its time is over, or because it is stopped meanwhile."""

    def __init__(self, place: str, *, stops: bool) -> None:
        self.stops = stops
        self.diary: list[str] = []
        self.app = Hangs(place, self.diary)
        self.engine = AppEngine([First(self.diary), self.app], start_timeout=5, exit_timeout=5)
        self.engine.exit(self._end)

    async def _end(self) -> None:
        await checkpoint()
        self.diary.append("engine exited")

    def is_phase(self) -> bool:
        return True

    def look(self) -> object:
        return tuple(self.diary)

    async def _call(self) -> None:
        with suppress(StartTimeout, ExitTimeout):
            await self.engine.run()

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        async with anyio.create_task_group() as group:
            target.spawn(group, self._call)
            begin()
            driving = CancelScope()
            group.start_soon(self._drive, driving)
            await target.ended.wait()
            driving.cancel()

    async def _drive(self, scope: CancelScope) -> None:
        with scope, suppress(EngineClosed):
            if self.app.place == "exit":
                await self.engine.wait_running()
                self.engine.stop()
            elif self.stops:
                await self.app.has_begun.wait()
                self.engine.stop()

    async def check(self, target: Target) -> None:
        if self.engine.report is None:
            assert self.diary == []
            return
        assert self.engine.report.tasks_left == ()
        hangs = self.app.has_begun.is_set()
        expected = ["started", "exits"] if self.app.place == "exit" and "started" in self.diary else []
        assert [entry for entry in self.diary if entry not in ("First exited", "engine exited")] == [
            *expected,
            *(["cleaned up"] if hangs else []),
        ]
        assert self.diary[-1] == "engine exited"
        assert self.diary.count("engine exited") == 1
        assert self.diary.count("First exited") <= 1
        if hangs:
            assert self.diary[-3:-1] == ["cleaned up", "First exited"]


# The clock jumps to the end of a hook's time.
@pytest.mark.virtual_clock
@pytest.mark.parametrize(
    ("place", "stops"), [("before_start", False), ("before_start", True), ("exit", False)]
)
async def test_a_hook_is_cut_short(place: str, stops: bool) -> None:
    # As above: an error of a hook wins over asyncio's cancellation.
    shots = await cancel_at_every_step(
        lambda: CutShort(place, stops=stops), least=15, among=None if stops else ("scope",)
    )
    assert any("cleaned up" in str(shot.seen) for shot in shots)

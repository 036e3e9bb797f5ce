"""Cancellation at each await of an engine in which handlers, schedules, tasks and threads wait for room.

What they publish is cancelled with them: an event whose publish returned was accepted by both of its handlers, any other by none
(*Design promises 4 and 5*). Where threads are at work the steps come in another order each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from steps import Target, cancel_at_every_step
from waiting import SOON, until

from event_flow import (
    AppEngine,
    Application,
    EngineClosed,
    EngineState,
    Event,
    ExceptionEvent,
    schedule,
    task,
)
from event_flow.core.backend import current_wake
from event_flow.core.threads import Threads


class Both(Event[int]):
    pass


class Start(Event[None]):
    pass


# One at work, one in the queue, one that waits.
EVENTS = 3


class Publishers(Application):
    """In one of these places events are published, more than there is room for."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.begin_again()

    def begin_again(self) -> None:
        self.started = 0  # events of the program itself
        self.returned: list[int] = []
        self.got: dict[str, list[int]] = {"left": [], "right": []}
        self.finished = anyio.Event()
        self.wake = current_wake()
        self.full = anyio.Event()
        self.gate = anyio.Event()
        self.has_failed = False
        self.is_in_thread = False
        self.hold = threading.Event()

    async def left(self, events: list[Both]) -> None:
        await checkpoint()
        self.got["left"] += [event.data for event in events]

    async def right(self, events: list[Both]) -> None:
        await self.gate.wait()
        await checkpoint()
        self.got["right"] += [event.data for event in events]

    # -- who publishes

    async def publish_from(self, place: str) -> None:
        if place == self.place:
            try:
                for number in range(EVENTS):
                    await self.engine.pub_event(Both(number))
                    self.returned.append(number)
            finally:
                self.finished.set()

    def _publish_from_thread(self, place: str) -> None:
        if place == self.place:
            self.is_in_thread = True
            try:
                for number in range(EVENTS):
                    self.engine.pub_event_from_thread(Both(number))
                    self.returned.append(number)
            finally:
                self.wake(self.finished.set)
                self.hold.wait(SOON)

    async def on_start(self, events: list[Start]) -> None:
        if self.place == "redelivery":
            if not self.has_failed:
                self.has_failed = True
                raise ValueError("once")
            await self.gate.wait()
        await self.publish_from("handler")

    def on_start_in_thread(self, events: list[Start]) -> None:
        self._publish_from_thread("thread of a handler")

    def on_start_in_another(self, events: list[Start]) -> None:
        """Waits for the only place, or gets it while the other waits for room."""

    async def on_failure(self, failures: list[ExceptionEvent]) -> None:
        try:
            await self.full.wait()
            await failures[0].redeliver()
            self.returned.append(0)
        finally:
            self.finished.set()

    @schedule(interval=1000)
    async def tick(self) -> None:
        await self.publish_from("schedule")

    @task
    async def live(self) -> None:
        await self.publish_from("task")

    @task
    def live_in_thread(self) -> None:
        self._publish_from_thread("thread of a task")


class Publishing:
    """Such an engine; the steps from its start to the end of the last publish count."""

    def __init__(self, place: str) -> None:
        self.app = Publishers(place)
        self.engine = AppEngine([self.app], queue_size=1, max_batch=1, max_threads=1)
        self.engine.register_handler(Both, self.app.left, self.app.right)
        self.threads: Threads | None = None

    def begin_again(self) -> Publishing:
        self.app.begin_again()
        self.threads = None
        self.begun = anyio.Event()
        self.report_before = self.engine.report
        return self

    def is_phase(self) -> bool:
        return self.engine.state is not EngineState.NEW and not self.app.finished.is_set()

    def look(self) -> bool:
        """Whether a publish waits."""
        return any(lane.waiters for lane in self.engine._bus.router.lanes)

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        async with anyio.create_task_group() as group:
            with CancelScope() as driving:

                async def end_with_target() -> None:
                    await target.ended.wait()
                    self.begun.set()
                    driving.cancel()

                group.start_soon(end_with_target)
                group.start_soon(self._publish_from_outside)
                target.spawn(group, self.engine.run)
                begin()
                await self._drive()

    async def _publish_from_outside(self) -> None:
        """Nobody cancels this: that the engine has ended is all it hears."""
        await self.begun.wait()
        with suppress(EngineClosed):
            await self.app.publish_from("outside")

    async def _drive(self) -> None:
        with suppress(EngineClosed):
            await self.engine.wait_running()
            assert self.engine._supervisor is not None
            self.threads = self.engine._supervisor.run.threads
            for _ in range(3 if self.app.place == "redelivery" else 1):
                await self.engine.pub_event(Start())
                self.app.started += 1
            self.app.full.set()
            self.begun.set()
            await until(self.look)
            self.app.gate.set()
            await self.app.finished.wait()
            if self.app.place == "thread of a handler":
                self.app.hold.set()
            await self.engine.wait_idle()
            self.engine.stop()
            await self.engine.wait_stopped()

    async def check(self, target: Target) -> None:
        report = self.engine.report
        if report is self.report_before:
            assert self.app.returned == []  # it has never begun
            return
        assert report is not None
        await self._check_threads(report.threads_left)
        returned = self.app.returned
        handlers = self.engine.statistics().handlers
        if self.app.place == "redelivery":
            assert handlers["Publishers.on_start"].accepted == self.app.started + len(returned)
        else:
            assert returned == list(range(len(returned)))
            assert handlers["engine.left"].accepted == handlers["engine.right"].accepted == len(returned)
        for name, got in self.app.got.items():
            assert got == list(range(len(got)))
            assert handlers[f"engine.{name}"].handled == len(got)
        assert report.accepted == report.handled + report.failed + report.abandoned
        assert report.tasks_left == ()
        if not target.was_cancelled:
            assert report.abandoned == 0
            assert len(returned) == (1 if self.app.place == "redelivery" else EVENTS)

    async def _check_threads(self, left: tuple[str, ...]) -> None:
        """One that waits for room hears that the engine has ended; it is named, and its place given back when it ends."""
        names = {
            "thread of a handler": "Publishers.on_start_in_thread",
            "thread of a task": "Publishers.live_in_thread",
        }
        # Others return at once; but an engine that ends at once too may find them at work.
        assert set(left) <= {*names.values(), "Publishers.on_start_in_another"}
        if self.app.is_in_thread and not self.app.hold.is_set():
            assert names[self.app.place] in left
        self.app.hold.set()
        await until(lambda: not any(each.name.startswith("event-flow") for each in threading.enumerate()))
        if self.threads is not None:
            places = self.threads._places
            await until(lambda: places.borrowed_tokens == 0 and places.total_tokens == 1)


@pytest.mark.parametrize("place", ["handler", "schedule", "task", "redelivery", "outside"])
async def test_an_engine_with_publishes_that_wait_is_cancelled(place: str) -> None:
    program = Publishing(place)
    shots = await cancel_at_every_step(program.begin_again, least=25)
    assert {shot.seen for shot in shots} == {True, False}


@pytest.mark.parametrize("place", ["thread of a handler", "thread of a task"])
async def test_an_engine_with_threads_that_wait_is_cancelled(place: str) -> None:
    program = Publishing(place)
    shots = await cancel_at_every_step(program.begin_again, least=25)
    assert {shot.seen for shot in shots} == {True, False}

"""Cancellation at each await of a handler with options, in its attempts and between them: nothing is lost, or done twice.

Every exit hook runs once, the numbers add up, and each event was handled, given up or abandoned (*Design promises 4 and 7*).
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from steps import Program, Target, cancel_at_every_step
from test_cancelled_failures import BACKENDS, Failing

from event_flow import (
    AppEngine,
    Application,
    Batch,
    BatchFailed,
    EngineClosed,
    EngineState,
    Event,
    ExceptionEvent,
    Rate,
    Retry,
)

Make = Callable[[], Program]

# What the handler makes of an event.
GOOD, FAILS_ONCE, BAD, HANGS_ONCE, CANCELS_ITSELF_ONCE = range(5)


class Ping(Event[int]):
    pass


class Hooked(Application):
    """Counts the ends of an application."""

    has_started = False
    exits = 0

    async def before_start(self) -> None:
        self.has_started = True

    async def exit(self) -> None:
        await checkpoint()
        self.exits += 1


class Trying(Failing):
    """An engine whose handler has these options; the steps from the publish until all is done count.

    The handler of failures is slow, and full. `names_failed`: it raises `BatchFailed`. `paused`: it is when they are published.
    """

    app: Any

    def __init__(
        self,
        *kinds: int,
        names_failed: bool = False,
        takes_batch: bool = False,
        middleware: bool = False,
        paused: bool = False,
        **options: Any,
    ) -> None:
        self.events = [Ping(kind) for kind in kinds]
        self.names_failed = names_failed
        self.has_middleware = middleware
        self.is_paused = paused
        self.is_at_work = False
        self.accepted = 0
        self.options = options
        self.begun: Counter[Ping] = Counter()
        self.done: list[Ping] = []
        self.given_up: list[Event[Any]] = []
        self.gate = anyio.Event()
        self.ends = 0
        self.is_settled = False
        self.app = Hooked()
        self.engine = AppEngine([self.app], queue_size=1, max_batch=1)
        self.engine.exit(self._end)
        options = {"max_batch": 3, "queue_size": 6, **options}
        if middleware:
            self.engine.add_middleware(self._around)
        work = self.work_on_batch if takes_batch else self.work
        self.name = f"engine.{work.__name__}"
        self.engine.register_handler(Ping, work, **options)
        self.engine.register_handler(ExceptionEvent, self._keep)

    async def _around(self, batch: Batch[Any], call_next: Callable[[Batch[Any]], Any]) -> None:
        await checkpoint()
        await call_next(batch)
        await checkpoint()

    async def work_on_batch(self, batch: Batch[Ping]) -> None:
        await self.work(batch.events)

    async def work(self, events: list[Ping]) -> None:
        self.begun.update(events)
        await checkpoint()
        if any(event.data == HANGS_ONCE and self.begun[event] == 1 for event in events):
            await anyio.sleep_forever()
        if any(event.data == CANCELS_ITSELF_ONCE and self.begun[event] == 1 for event in events):
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
        self._decide(events)

    def _decide(self, events: list[Ping]) -> None:
        bad = [event for event in events if self._is_bad(event)]
        good = [event for event in events if event not in bad]
        if not bad:
            self.done += events
        elif self.names_failed:
            self.done += good
            raise BatchFailed({event: ValueError(event.data) for event in bad})
        else:
            raise ValueError

    def _is_bad(self, event: Ping) -> bool:
        fails_once = event.data in (FAILS_ONCE, CANCELS_ITSELF_ONCE) and self.begun[event] == 1
        return event.data == BAD or fails_once

    async def _keep(self, failures: list[ExceptionEvent]) -> None:
        await self.gate.wait()
        for failure in failures:
            self.given_up += failure.events

    def is_phase(self) -> bool:
        return self.is_at_work and not self.is_settled

    def look(self) -> bool:
        """Whether something waits for another attempt, or for the handler."""
        return any(lane.queued for lane in self.engine._bus.router.lanes if lane.name == self.name)

    async def _drive(self) -> None:
        with suppress(EngineClosed):
            await self.engine.wait_running()
            if self.is_paused:
                self.engine.handlers[self.name].pause()
            self._publish()
            for _ in range(6):
                await checkpoint()
            self.gate.set()
            if self.is_paused or "pause" in self.options.get("on_failure", {}).values():
                await self._resume_until_done()
            await self.engine.wait_idle()
            self.is_settled = True
            self.engine.stop()
            await self.engine.wait_stopped()

    def _publish(self) -> None:
        """All of them or, if the engine is ending, none: there is room."""
        self.is_at_work = True
        for event in self.events:
            self.engine.pub_event_nowait(event)
            self.accepted += 1

    async def _resume_until_done(self) -> None:
        control = self.engine.handlers[self.name]
        while self.engine.state is EngineState.RUNNING and len(self.done) < len(self.events):
            control.resume()
            await checkpoint()

    async def check(self, target: Target) -> None:
        report = self.engine.report
        assert report is not None
        assert (self.ends, self.app.exits) == (1, 1)
        assert report.tasks_left == ()
        assert self.engine._bus.activity.busy_lanes == 0
        for lane in self.engine._bus.router.lanes:
            assert not any((lane.queued, lane.running, lane.reserved, lane.waiters, lane.waits_for))
        assert report.accepted == report.handled + report.failed + report.abandoned
        own = self.engine.statistics().handlers[self.name]
        assert own.accepted == self.accepted == own.handled + own.failed + own.abandoned
        assert len(set(self.done)) == len(self.done), "done twice"
        # Middleware may be cut off behind the handler; then what is done is abandoned.
        assert own.handled <= len(self.done) if self.has_middleware else own.handled == len(self.done)
        assert not set(self.done).intersection(self.given_up), "done and given up"
        assert len(set(self.given_up)) == len(self.given_up) <= own.failed
        assert self.begun.keys() <= set(self.events)
        if not (target.was_cancelled or self.is_fatal):
            assert (own.accepted, own.abandoned) == (len(self.events), 0)
            self.check_all()

    @property
    def is_fatal(self) -> bool:
        return "stop" in self.options.get("on_failure", {}).values()

    def check_all(self) -> None:
        """What becomes of the events if nothing is cancelled."""
        bad = {event for event in self.events if event.data == BAD}
        assert set(self.done) == set(self.events) - bad
        assert set(self.given_up) == bad


AT_ONCE = Retry(on=ValueError, attempts=2, wait_initial=0, wait_jitter=0)
LATER = Retry(on=(ValueError, TimeoutError), attempts=3, wait_initial=5, wait_jitter=0)
BY_TWO: dict[str, Any] = {"key": lambda event: id(event) % 2, "concurrency": 2}

MIXED = (GOOD, FAILS_ONCE, BAD, GOOD)

TRIED: dict[str, Make] = {
    "nothing": functools.partial(Trying, GOOD, BAD, names_failed=True),
    "isolate": functools.partial(Trying, *MIXED, isolate=True),
    "batch, retry": functools.partial(Trying, *MIXED, retry=AT_ONCE, takes_batch=True, names_failed=True),
    "retry, isolate": functools.partial(Trying, *MIXED, retry=AT_ONCE, isolate=True),
    "concurrency": functools.partial(Trying, GOOD, BAD, GOOD, GOOD, max_batch=1, concurrency=2),
    "concurrency, retry": functools.partial(Trying, *MIXED, max_batch=1, concurrency=2, retry=AT_ONCE),
    "key": functools.partial(Trying, *MIXED, retry=AT_ONCE, max_batch=1, **BY_TWO),
    "key, isolate": functools.partial(Trying, *MIXED, isolate=True, takes_batch=True, **BY_TWO),
    "middleware": functools.partial(Trying, *MIXED, retry=AT_ONCE, isolate=True, middleware=True),
    "paused before": functools.partial(Trying, GOOD, GOOD, GOOD, GOOD, max_batch=1, paused=True),
    "pause": functools.partial(
        Trying, GOOD, FAILS_ONCE, GOOD, max_batch=1, on_failure={ValueError: "pause"}
    ),
    "pause, key": functools.partial(
        Trying, GOOD, FAILS_ONCE, GOOD, max_batch=1, on_failure={ValueError: "pause"}, **BY_TWO
    ),
}  # fmt: skip

TRIED_LATER: dict[str, Make] = {
    "retry": functools.partial(Trying, *MIXED, retry=LATER, names_failed=True),
    "retry, key": functools.partial(Trying, *MIXED, retry=LATER, max_batch=1, **BY_TWO),
    "linger": functools.partial(Trying, GOOD, BAD, GOOD, GOOD, linger=5, names_failed=True),
    "rate": functools.partial(Trying, *MIXED, retry=AT_ONCE, rate=Rate(1, per=1)),
    "timeout": functools.partial(Trying, GOOD, HANGS_ONCE, GOOD, retry=LATER, timeout=5),
}


itself_cancelled = functools.partial(Trying, GOOD, CANCELS_ITSELF_ONCE, BAD, retry=AT_ONCE, isolate=True)


@pytest.mark.parametrize("name", TRIED)
async def test_the_attempts_of_a_handler(name: str) -> None:
    await cancel_at_every_step(TRIED[name], least=8)


# Where something is due later the clock jumps.
@pytest.mark.virtual_clock
@pytest.mark.parametrize("name", TRIED_LATER)
async def test_waits_between_attempts(name: str) -> None:
    shots = await cancel_at_every_step(TRIED_LATER[name], least=8)
    assert True in {shot.seen for shot in shots} or name == "linger"


async def test_the_engine_is_stopped_by_a_failure() -> None:
    # The error wins over asyncio's own cancellation.
    await cancel_at_every_step(
        functools.partial(Trying, *MIXED, on_failure={ValueError: "stop"}), least=3, among=("scope",)
    )


# Only asyncio has tasks that can be cancelled: on Trio only scopes can.
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_handler_has_cancelled_its_own_task(backend: str) -> None:
    async def main() -> None:
        await cancel_at_every_step(itself_cancelled, least=8)

    anyio.run(main, backend_options={"use_uvloop": backend == "uvloop"})

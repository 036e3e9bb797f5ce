"""When a schedule ticks: on the grid `start + k * interval`, never overlapping, missed ticks become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from event_flow.core.bus import Bus
from event_flow.core.decorators import ScheduleMark
from event_flow.core.exception import EngineClosed
from event_flow.core.failure import Failures
from event_flow.core.invoke import caller
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.run import Run
from event_flow.core.state import EngineState
from event_flow.core.threads import Threads

# Far beyond what anybody waits for; an interval of next to nothing gives a number of ticks that no integer can be made of.
MOST_TICKS = 2.0**53


def next_tick(elapsed: float, interval: float, last: int) -> tuple[int, int]:
    """The number of the next tick and how many were missed before it, `elapsed` seconds after the start.

    If ticks after `last` are due, the latest of them runs at once for all. Otherwise the next one is waited for. The number
    always grows, also when a timer fires early (uvloop: up to half a millisecond).
    """
    due = int(min(elapsed // interval, MOST_TICKS))
    tick = max(due, last + 1)
    return tick, tick - last - 1


class Schedule:
    """The run-time home of one schedule of one application, for one run of the engine."""

    def __init__(
        self, name: str, app: str, function: Callable[..., Any], mark: ScheduleMark, run: Run
    ) -> None:
        self.name = name
        self.app = app
        self.function = function
        self.mark = mark
        self.bus: Bus = run.bus
        self.threads: Threads = run.threads
        self.failures: Failures = run.failures
        self.ticks: int = 0
        self.missed: int = 0
        self.failed: int = 0

    async def run(self) -> None:
        """Tick until the engine stops."""
        start = anyio.current_time()
        last = -1 if self.mark.run_at_once else 0
        while True:
            tick, missed = next_tick(anyio.current_time() - start, self.mark.interval, last)
            await anyio.sleep_until(start + tick * self.mark.interval)
            if self.bus.state is not EngineState.RUNNING:
                return
            self.missed += missed
            last = tick
            await self._tick()

    async def _tick(self) -> None:
        self.ticks += 1
        origin = Origin(self.bus, Kind.TICK)
        current_origin.set(origin)
        with self.bus.activity.tick():
            try:
                await caller(self.function, name=self.name, threads=self.threads)()
                await self.failures.forget_cancellation()
            except BaseException as exc:  # noqa: BLE001 - a cancellation is raised again
                await self._fail(exc)
            finally:
                origin.end()

    async def _fail(self, exc: BaseException) -> None:
        """Called in the `except` block of a failed tick, still a part of it."""
        error = await self.failures.examine(exc, self.name)
        if error is None:
            raise exc
        if isinstance(error, EngineClosed) and self.bus.state is EngineState.STOPPING:
            return  # it publishes later than the grace period allows
        self.failed += 1
        await self.failures.contain(error, name=self.name, app=self.app)

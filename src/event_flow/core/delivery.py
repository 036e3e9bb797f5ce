"""The worker of a lane: takes a batch, calls the handler, and settles what became of it."""

from __future__ import annotations

import anyio

from event_flow.core.backend import NativeTask, uninterrupted
from event_flow.core.bus import Bus
from event_flow.core.event import ExceptionEvent
from event_flow.core.failure import Failures
from event_flow.core.invoke import caller
from event_flow.core.lane import Batch, Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.outcome import is_cancelled_by_scope
from event_flow.core.run import Run


class Worker:
    """Runs the handler of one lane, one batch at a time, until the lane is closed."""

    def __init__(self, lane: Lane, run: Run) -> None:
        self.lane = lane
        self.bus: Bus = run.bus
        self.failures: Failures = run.failures
        self._call = caller(lane.function, name=lane.name, threads=run.threads)

    async def work(self) -> None:
        """Live as long as the lane."""
        lane = self.lane
        with lane.scope:
            while True:
                try:
                    batch = await lane.next_batch()
                except anyio.get_cancelled_exc_class():
                    if is_cancelled_by_scope() or self.failures.is_all_cancelled:
                        raise
                    # The handler cancelled its own asyncio task and ended before that took effect.
                    NativeTask().absorb()
                    continue
                if batch is None:
                    return
                if lane.waiters:
                    self.bus.room.grant(lane)
                call = Origin(self.bus, Kind.CALL, lane)
                current_origin.set(call)
                try:
                    # A list of its own: whatever the handler does to it, `batch` is what failed.
                    await self._call(batch[:])
                except BaseException as exc:  # noqa: BLE001 - a cancellation is raised again
                    await self._settle(batch, exc)
                else:
                    lane.handled += lane.running
                finally:
                    call.end()
                    lane.running = 0
                    self.bus.activity.rest(lane)
                del batch, call  # an idle lane keeps no events alive

    async def _settle(self, batch: Batch, exc: BaseException) -> None:
        """Called in the `except` block of a failed call, still a part of it."""
        lane = self.lane
        try:
            error = await self.failures.examine(exc, lane.name)
            if error is None:
                raise exc
        except BaseException:
            lane.abandon(batch)
            raise
        try:
            await self.failures.contain(
                error, name=lane.name, app=lane.app, events=batch, redeliver=self._redeliver
            )
        finally:
            lane.failed += len(batch)

    @uninterrupted
    async def _redeliver(self, failure: ExceptionEvent) -> None:
        for event in failure.events:
            await self.bus.publish(event, (self.lane,))

"""The worker of a lane: takes a batch, calls the handler, and settles what became of it."""

from __future__ import annotations

import anyio

from event_flow.core.backend import NativeTask
from event_flow.core.event import ExceptionEvent
from event_flow.core.failure import is_cancelled_by_scope
from event_flow.core.invoke import invoke, is_async
from event_flow.core.lane import Batch, Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.run import Run


class Worker:
    """Runs the handler of one lane, one batch at a time, until the lane is closed."""

    def __init__(self, lane: Lane, run: Run) -> None:
        self.lane = lane
        self.bus = run.bus
        self.threads = run.threads
        self.failures = run.failures
        self._is_async = is_async(lane.function)

    async def work(self) -> None:
        """Live as long as the lane."""
        with self.lane.scope:
            while True:
                batch = await self._receive()
                if self.lane.is_closed:
                    self.lane.abandon_received(batch)
                    return
                await self._deliver(batch)
                del batch  # an idle lane keeps no events alive

    async def _receive(self) -> Batch:
        while True:
            try:
                return await self.lane.receive_stream.receive()
            except anyio.get_cancelled_exc_class():
                if is_cancelled_by_scope() or self.failures.is_all_cancelled:
                    raise
                # The handler cancelled its own asyncio task and ended before that took effect.
                NativeTask().absorb()

    async def _deliver(self, batch: Batch) -> None:
        lane = self.lane
        self.bus.take(lane, batch)
        call = Origin(self.bus, Kind.CALL, lane)
        current_origin.set(call)
        try:
            # A list of its own: whatever the handler does to it, `batch` is what failed.
            if self._is_async:
                await lane.function(batch[:])
            else:
                await invoke(lane.function, batch[:], name=lane.name, threads=self.threads)
        except BaseException as exc:
            await self._settle(batch, exc)
        else:
            lane.handled += lane.running
        finally:
            call.live = False
            current_origin.set(None)
            lane.running = 0
            self.bus.rest(lane)

    async def _settle(self, batch: Batch, exc: BaseException) -> None:
        """Called in the `except` block of a failed call, still a part of it."""
        lane = self.lane
        error = self.failures.examine(exc, lane.name)
        if error is None:
            lane.abandon(batch)
            raise exc
        try:
            await self.failures.contain(
                error, name=lane.name, app=lane.app, events=batch, redeliver=self._redeliver
            )
        finally:
            lane.failed += len(batch)

    async def _redeliver(self, failure: ExceptionEvent) -> None:
        for event in failure.events:
            await self.bus.publish(event, (self.lane,))

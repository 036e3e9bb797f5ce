"""The worker of a lane: takes a batch, calls the handler, and settles what became of it.

This one has nothing but the handler and the log to think of. Where a handler has options that ask for more, it is
`trying` that calls it, in the same loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized
from typing import Any

import anyio
from anyio import CancelScope

from event_flow.core.backend import NativeTask, uninterrupted
from event_flow.core.bus import Bus
from event_flow.core.event import ExceptionEvent
from event_flow.core.failure import Failures
from event_flow.core.lane import Events, Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.outcome import error_of, events_of, failures_of, is_cancelled_by_scope
from event_flow.core.run import Run


class Worker:
    """Runs the handler of one lane, one batch at a time, until the lane is closed. `call` is what to await with a batch."""

    def __init__(self, lane: Lane, run: Run, call: Callable[[Any], Awaitable[Any]]) -> None:
        self.lane = lane
        self.name: str = f"{lane.name}[{len(lane.scopes)}]" if lane.scopes else lane.name
        self.bus: Bus = run.bus
        self.failures: Failures = run.failures
        self._call = call
        self._next: Callable[[], Awaitable[Sized | None]] = (
            lane.next_batch if lane.turn is None else lane.next_batch_in_turn
        )
        self._scope = CancelScope()
        self._native: NativeTask
        lane.scopes.append(self._scope)

    async def work(self) -> None:
        """Live as long as the lane."""
        lane = self.lane
        self._native = NativeTask()
        with self._scope:
            while True:
                try:
                    taken = await self._next()
                except anyio.get_cancelled_exc_class():
                    if is_cancelled_by_scope() or self.failures.is_all_cancelled:
                        raise
                    # The handler cancelled its own asyncio task and ended before that took effect.
                    self._native.absorb()
                    continue
                if taken is None:
                    return
                if lane.waiters:
                    self.bus.room.grant(lane)
                call = Origin(self.bus, Kind.CALL, lane)
                current_origin.set(call)
                length = len(taken)
                try:
                    await self._attempt(taken)
                except BaseException as exc:  # noqa: BLE001 - a cancellation is raised again
                    await self._settle(taken, exc)
                else:
                    lane.handled += length
                finally:
                    call.end()
                    lane.running -= length
                    self.bus.activity.rest(lane)
                del taken, call  # an idle lane keeps no events alive

    def _attempt(self, batch: Any) -> Awaitable[Any]:
        """One call of the handler. With a list of its own: whatever it does to that, `batch` is what failed."""
        return self._call(batch[:])

    async def _settle(self, batch: Any, exc: BaseException) -> None:
        """Called in the `except` block of a failed call, still a part of it."""
        lane = self.lane
        error = await self._error(batch, exc)
        failed = batch
        if isinstance(error, Exception):
            failures = failures_of(error, batch)
            error, failed = error_of(failures), events_of(failures)
        try:
            await self.failures.contain(
                error, name=lane.name, app=lane.app, events=failed, redeliver=self._redeliver
            )
        finally:
            lane.failed += len(failed)
            lane.handled += len(batch) - len(failed)

    async def _error(self, events: Events, exc: BaseException) -> BaseException:
        """What the call failed with; if it was cancelled, `events` are abandoned and the cancellation goes on."""
        try:
            error = await self.failures.examine(exc, self.lane.name)
            if error is None:
                raise exc
        except BaseException:
            self.lane.abandon(events)
            raise
        return error

    @uninterrupted
    async def _redeliver(self, failure: ExceptionEvent) -> None:
        for event in failure.events:
            await self.bus.publish(event, (self.lane,))

"""When a batch may be taken: lanes whose batches wait for company, for their rate, or for another attempt.

What must hold before the first batch is taken is put into one moment, `due`, worked out by a synchronous function that is
told the time. The worker waits until then, or until something has changed: an event came that is looked at, the lane is
full, a publish waits for it, the engine drains. So no timer runs for an event that nobody waits for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anyio import current_time

from event_flow.core.attempt import Attempt, Returned
from event_flow.core.event import Event
from event_flow.core.lane import Lane
from event_flow.core.rate import Meter, Rate

if TYPE_CHECKING:
    from event_flow.core.batch import ClosedBy
    from event_flow.core.handler_options import Overflow


class GatedLane(Lane):
    """A lane that hands out attempts. One that was put back comes before what was queued later.

    With `in_order` nothing else is taken until it is: for a lane with one worker.
    """

    __slots__ = ("clock", "full", "in_order", "linger", "meter", "opened_at", "returned")

    # Said again, for a checker that takes what a method sets for another attribute.
    allowance: int
    held: int

    def __init__(
        self,
        name: str,
        app: str,
        *,
        queue_size: int,
        max_batch: int,
        overflow: Overflow = "wait",
        linger: float = 0.0,
        rate: Rate | None = None,
        in_order: bool = True,
        clock: Callable[[], float] = current_time,
    ) -> None:
        super().__init__(name, app, queue_size=queue_size, max_batch=max_batch, overflow=overflow)
        self.clock: Callable[[], float] = clock  # seconds, of the running loop
        self.linger: float = linger
        self.meter: Meter | None = None if rate is None else Meter(rate)
        # Events that a batch waits for at most. Batches are not cut there: if fewer may go in, the rest is to have company.
        self.full: int = max_batch if rate is None else min(max_batch, rate.burst)
        self.in_order: bool = in_order
        self.opened_at: float = -math.inf  # when the first event of the open batch came, if batches linger
        self.returned: Returned = Returned(in_order=in_order)

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, event: Event[Any]) -> int:
        before = self.open
        room = super().put(event)
        if self.linger and self.open is not before:
            self.opened_at = self.clock()
        self.stir()
        return room

    def renew(self) -> int:
        """As for any lane. But what fills a batch that lingers, or the lane, is looked at: it ends the wait."""
        room = super().renew()
        if self.linger and self.allowance:
            last = self.full if self.mark < self.full else self.max_batch
            self.allowance = min(self.allowance, last - 1, self.mark + room - 1)
        return room

    def put_back(self, attempt: Attempt) -> None:
        """Queue what was taken for another attempt, over the limit if need be; abandon it if the lane is closed."""
        if self.is_closed:
            self.abandon(attempt.events)
        else:
            self.held += len(attempt)
            self.returned.push(attempt)
            self.renew()
            self.stir()

    # -- out -------------------------------------------------------------------------------------------------------

    async def next_attempt(self) -> Attempt | None:
        """Wait until a batch is due and take it, which frees its places; None when the lane is closed."""
        if self.turn is None:
            return await self._next_attempt()
        async with self.turn:
            return await self._next_attempt()

    async def _next_attempt(self) -> Attempt | None:
        while not self.is_closed:
            now = self.clock()
            due = self.due(now)
            if due <= now:
                return self.take_due(now)
            await self.wait_change(due)
        return None

    def take_if_due(self, now: float) -> Attempt | None:
        """Take a batch without waiting, None if none is due."""
        return self.take_due(now) if self.due(now) <= now else None

    def due(self, now: float) -> float:
        """The moment from which a batch may be taken, inf if something must happen first; until `now` means at once."""
        if self.is_paused:
            return math.inf
        again = self._due_again(now)
        # What is due but for its rate is waited for: others would take each place that it gets free, for ever.
        if self.returned and (self.in_order or self.returned.first.due <= now):
            return again
        return min(again, self._due_untried(now))

    def _due_again(self, now: float) -> float:
        """When the first of those that were put back may be taken."""
        if not self.returned:
            return math.inf
        first = self.returned.first
        return self.metered(now, first.due, len(first))

    def metered(self, now: float, due: float, events: int) -> float:
        """When so many events may be taken that are due at `due`."""
        return due if self.meter is None else max(due, self.meter.ready_at(now, events))

    def _due_untried(self, now: float) -> float:
        untried = self.queued - self.returned.events
        if not untried:
            return math.inf
        may_grow = untried == len(self.open) < self.full and not self.is_pressed
        return self.metered(now, self.opened_at + self.linger if may_grow else -math.inf, 1)

    @property
    def is_pressed(self) -> bool:
        """No batch is to wait for company: there is no room for it, or none will come."""
        return self.is_draining or self.room <= 0 or bool(self.waiters)

    def take_due(self, now: float) -> Attempt:
        """Take the batch that is due."""
        if self._due_again(now) <= now:
            return self.take_returned(now, self.returned)
        is_cut = self.queued - self.returned.events > len(self.open)
        closed_by = self.closed_by
        events = self.take(self.most(now))
        if is_cut or self.head is not None or len(events) >= self.full:
            closed_by = "size"
        if self.meter is not None:
            self.meter.take(now, len(events))
        return Attempt(events, None, closed_by, began=now)

    def take_returned(self, now: float, returned: Returned) -> Attempt:
        """Take the first of those that were put back."""
        attempt = returned.pop()
        if attempt.began is None:
            attempt.began = now
        self.held -= len(attempt)
        self.count_call(len(attempt))
        if self.meter is not None:
            self.meter.take(now, len(attempt))
        return attempt

    def most(self, now: float) -> int:
        """How many events may be in a batch that is taken now."""
        return self.max_batch if self.meter is None else min(self.max_batch, self.meter.available(now))

    @property
    def closed_by(self) -> ClosedBy:
        """What closes a batch now that might hold more."""
        if self.is_draining:
            return "drain"
        if self.is_pressed:
            return "size"
        return "linger" if self.linger else "idle"

    def release(self, attempt: Attempt) -> None:
        """What followed from this attempt is done."""

    # -- the end ---------------------------------------------------------------------------------------------------

    def _abandon_queued(self) -> None:
        self._abandon_returned(self.returned)
        super()._abandon_queued()

    def _abandon_returned(self, returned: Returned) -> None:
        while returned:
            attempt = returned.pop()
            self.held -= len(attempt)
            self.abandon(attempt.events)

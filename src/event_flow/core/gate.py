"""When a batch may be taken: lanes whose batches wait for company, for their rate, or for another attempt.

What must hold before the first batch is taken is put into one moment, `due`, worked out by a synchronous function that is
told the time. The worker waits until then, or until something has changed: an event came that is looked at, the lane is
full, a publish waits for it, the engine drains. So no timer runs for an event that nobody waits for.
"""

from __future__ import annotations

import math
from bisect import insort_right
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from anyio import current_time

from event_flow.core.event import Event
from event_flow.core.lane import Events, Lane
from event_flow.core.rate import Meter, Rate

if TYPE_CHECKING:
    from event_flow.core.batch import ClosedBy
    from event_flow.core.handler_options import Overflow


class Delivery:
    """A batch on its way through its attempts: what the next one is, and what came before."""

    __slots__ = (
        "attempt",
        "began",
        "closed_by",
        "due",
        "events",
        "is_alone",
        "key",
        "place",
        "tried",
    )

    def __init__(self, events: Events, key: Hashable, closed_by: ClosedBy, place: Any = None) -> None:
        self.events: Events = events  # the engine's own list
        self.key: Hashable = key
        self.place: Any = place  # where its lane keeps what has this key
        self.closed_by: ClosedBy = closed_by
        self.attempt: int = 1
        self.tried: int = 0  # attempts before the handler was resumed: they count no more
        self.began: float | None = None  # when the first attempt that counts did
        self.due: float = -math.inf  # when the next one may
        self.is_alone: bool = False  # the one event of a batch that was given up, in its last attempt

    def __len__(self) -> int:
        return len(self.events)

    def again(self, events: Events, *, due: float = -math.inf) -> Delivery:
        """The next attempt, at these of the events."""
        following = Delivery(events, self.key, self.closed_by, self.place)
        following.attempt = self.attempt + 1
        following.tried, following.began = self.tried, self.began
        following.due, following.is_alone = due, self.is_alone
        return following

    def anew(self, events: Events) -> Delivery:
        """The same, but all attempts are allowed once more."""
        following = self.again(events)
        following.tried, following.began, following.is_alone = self.attempt, None, False
        return following

    def alone(self, event: Event[Any]) -> Delivery:
        """The last attempt at one of the events."""
        following = self.again([event])
        following.is_alone = True
        return following


class Returned:
    """Deliveries that were put back, the one put back last in front; unless it is `in_order`, the one that is due first.

    What is put back `in_order` is what was at work, or parts of it, and all else that is here came after that. Of several
    parts the first is put back last.
    """

    __slots__ = ("_in_order", "_waiting", "events")

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._waiting: list[Delivery] = []  # the first one last: there a list is quick to change
        self.events: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Delivery:
        return self._waiting[-1]

    def push(self, delivery: Delivery) -> None:
        self.events += len(delivery)
        if self._in_order:
            self._waiting.append(delivery)
        else:
            insort_right(self._waiting, delivery, key=lambda waiting: -waiting.due)

    def pop(self) -> Delivery:
        delivery = self._waiting.pop()
        self.events -= len(delivery)
        return delivery


class GatedLane(Lane):
    """A lane that hands out deliveries. One that was put back comes before what was queued later.

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

    def put_back(self, delivery: Delivery) -> None:
        """Queue what was taken for another attempt, over the limit if need be; abandon it if the lane is closed."""
        if self.is_closed:
            self.abandon(delivery.events)
        else:
            self.held += len(delivery)
            self.returned.push(delivery)
            self.renew()
            self.stir()

    # -- out -------------------------------------------------------------------------------------------------------

    async def next_delivery(self) -> Delivery | None:
        """Wait until a batch is due and take it, which frees its places; None when the lane is closed."""
        if self.turn is None:
            return await self._next_delivery()
        async with self.turn:
            return await self._next_delivery()

    async def _next_delivery(self) -> Delivery | None:
        while not self.is_closed:
            now = self.clock()
            due = self.due(now)
            if due <= now:
                return self.take_due(now)
            await self.wait_change(due)
        return None

    def take_if_due(self) -> Delivery | None:
        """Take a batch without waiting, None if none is due."""
        now = self.clock()
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

    def take_due(self, now: float) -> Delivery:
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
        return Delivery(events, None, closed_by)

    def take_returned(self, now: float, returned: Returned) -> Delivery:
        """Take the first of those that were put back."""
        delivery = returned.pop()
        self.held -= len(delivery)
        self.count_call(len(delivery))
        if self.meter is not None:
            self.meter.take(now, len(delivery))
        return delivery

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

    def release(self, delivery: Delivery) -> None:
        """The call with `delivery` has ended."""

    # -- the end ---------------------------------------------------------------------------------------------------

    def _abandon_queued(self) -> None:
        self._abandon_returned(self.returned)
        super()._abandon_queued()

    def _abandon_returned(self, returned: Returned) -> None:
        while returned:
            delivery = returned.pop()
            self.held -= len(delivery)
            self.abandon(delivery.events)

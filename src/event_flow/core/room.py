"""Room in the lanes: who waits for a place, and who gets it when one is freed.

An event goes into all of its lanes at once or into none. A publish that must wait is parked at *one* full lane and holds
no place anywhere else; whoever frees room there grants, in order of arrival, a place in all lanes together, or moves it on
to the next full one. (Holding some places while waiting for others livelocks, and lets a slow handler block events it
does not want.) Where others keep all of its lanes full it would be moved round for ever: after `PATIENCE` moves it takes
its places over the limit. A grant is a reservation: the publish that wakes up delivers or, if it was cancelled, gives it
back.

Lane A *waits for* lane B while a publish made by a live call of A's handler is parked at B. A publish about to be parked
at a lane from which that relation leads back to its own lane passes over the limit there instead. So the relation never
closes a circle, and a deadlock would need one. Lanes that refuse or drop what they have no room for have nobody parked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any

from event_flow.core.activity import Activity
from event_flow.core.event import Event
from event_flow.core.exception import BacklogExceeded, LaneFull
from event_flow.core.lane import Lane
from event_flow.core.origin import Origin
from event_flow.core.wording import counted

# Moves from one full lane to the next before a publish goes over the limit. Rare where lanes are not full all the time, and
# at a batch a move still a fraction of a second.
PATIENCE = 100


class Waiter:
    """Parked at one full lane, or granted a place in all of its lanes, or refused with an error.

    `notify` is set by who made it, and called once, when it is granted or refused; it must not publish.
    """

    __slots__ = (
        "error",
        "event",
        "granted",
        "lanes",
        "moves",
        "notify",
        "origin",
        "parked_at",
        "passed",
        "reserved",
    )

    def __init__(self, event: Event[Any], lanes: tuple[Lane, ...], origin: Origin | None) -> None:
        self.event: Event[Any] = event
        self.lanes: tuple[Lane, ...] = lanes
        self.origin: Origin | None = origin
        self.notify: Callable[[], object] = lambda: None
        self.parked_at: Lane | None = None
        self.granted: bool = False
        self.moves: int = 0  # how often a place was free for it at one lane, and another lane was full
        self.reserved: tuple[Lane, ...] = ()  # lanes in which it was granted a place
        self.passed: tuple[Lane, ...] = ()  # lanes where the place granted is one over the limit
        self.error: Exception | None = None


class Room:
    """The places in all lanes of one run. `max_backlog` events may go over the limit of a lane, where waiting would never end."""

    def __init__(self, activity: Activity, max_backlog: int) -> None:
        self.activity = activity
        self.max_backlog = max_backlog

    def first_full(
        self, lanes: Iterable[Lane], origin: Origin | None, freed: Lane | None = None
    ) -> Lane | None:
        """The first lane this publish must wait for. Who waits at a lane comes first there, except where room was freed."""
        for lane in lanes:
            if (
                (lane.room <= 0 or (lane.waiters and lane is not freed))
                and lane.overflow == "wait"
                and not self._may_pass(lane, origin)
            ):
                return lane
        return None

    @staticmethod
    def require_places(lanes: Iterable[Lane]) -> None:
        """Raises `LaneFull` if one of them is full, and neither drops anything nor lets publishers wait."""
        for lane in lanes:
            if lane.overflow == "error" and lane.room <= 0:
                raise LaneFull(
                    f'{lane.name} is full, and overflow="error" lets nobody wait: {counted(lane.queued, "event")} queued, '
                    f"queue_size={lane.queue_size:,}",
                    handler=lane.name,
                    limit=lane.queue_size,
                )

    def _may_pass(self, full: Lane, origin: Origin | None) -> bool:
        """Whether waiting at `full` would close a circle. Raises `BacklogExceeded` if it would and no more may pass."""
        call = self._live_call(origin)
        if call is None or not self._waits_for(full, call.lane):
            return False
        if -full.room >= self.max_backlog:
            raise BacklogExceeded(
                f"{full.name} has {full.queued:,} events queued: handlers publish to each other in a circle, faster than "
                f"they handle, and max_backlog={self.max_backlog:,} over queue_size={full.queue_size:,} is reached",
                handler=full.name,
                limit=self.max_backlog,
            )
        return True

    @staticmethod
    def _live_call(origin: Origin | None) -> Origin | None:
        """The live call of a handler that publishes. It may be another engine's, as long as it runs in the same thread."""
        if origin is None or origin.lane is None or not origin.live or origin.bus.thread != get_ident():
            return None
        return origin

    @staticmethod
    def _waits_for(start: Lane, target: Lane | None) -> bool:
        seen = {start}
        reached = [start]
        while reached:
            lane = reached.pop()
            if lane is target:
                return True
            for following in lane.waits_for:
                if following not in seen:
                    seen.add(following)
                    reached.append(following)
        return False

    def park(self, waiter: Waiter, lane: Lane) -> None:
        """Wait at `lane`, which is full."""
        waiter.parked_at = lane
        lane.waiters[waiter] = None
        lane.allowance = 0
        lane.stir()
        call = self._live_call(waiter.origin)
        if call is not None:
            call.park(lane)

    def _unpark(self, waiter: Waiter) -> None:
        lane = waiter.parked_at
        if lane is not None:
            waiter.parked_at = None
            del lane.waiters[waiter]
            lane.renew()
            call = self._live_call(waiter.origin)
            if call is not None:
                call.unpark(lane)

    def grant(self, lane: Lane) -> None:
        """Places of `lane` were freed: those who wait for them get them, in order of arrival."""
        while lane.waiters and lane.room > 0:
            waiter = next(iter(lane.waiters))
            self._unpark(waiter)
            try:
                self.require_places(waiter.lanes)
                full = None
                if waiter.moves < PATIENCE:
                    full = self.first_full(waiter.lanes, waiter.origin, freed=lane)
            except (BacklogExceeded, LaneFull) as exc:
                self.refuse(waiter, exc)
                continue
            if full is None:
                self._reserve(waiter)
            else:
                waiter.moves += 1
                self.park(waiter, full)

    def _reserve(self, waiter: Waiter) -> None:
        waiter.granted = True
        # A lane that drops has a place for it in any case.
        waiter.reserved = tuple(lane for lane in waiter.lanes if not lane.drops)
        waiter.passed = tuple(lane for lane in waiter.reserved if lane.room <= 0)
        for lane in waiter.reserved:
            self.activity.make_busy(lane)
            lane.reserved += 1
            lane.renew()
        waiter.notify()

    def refuse(self, waiter: Waiter, error: Exception) -> None:
        """It waits no more: the publish raises `error`."""
        self._unpark(waiter)
        waiter.error = error
        waiter.notify()

    def withdraw(self, waiter: Waiter) -> None:
        """The publish is not made: leave the queue, or give the granted places to others."""
        if waiter.parked_at is not None:
            self._unpark(waiter)
        elif waiter.granted:
            waiter.granted = False
            for lane in waiter.reserved:
                lane.reserved -= 1
            for lane in waiter.reserved:
                self.grant(lane)
                self.activity.rest(lane)

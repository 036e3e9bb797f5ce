"""Admission: whether a publish is taken now, waits, or is refused. The slow path behind `publishing`.

What filters make of an event comes first. Before the handlers run every event is kept, and routed when they do. Then an event
goes into all of its lanes at once, or the publish waits for room in them (`room`); from `stop()` on only handlers at work and
ticks begun before may publish.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from loguru import logger

from event_flow.core.activity import Activity
from event_flow.core.event import Event
from event_flow.core.exception import BacklogExceeded, EngineClosed, WrongThreadError
from event_flow.core.filtering import Filters
from event_flow.core.lane import YIELD_AFTER, Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.overflow import Overflows
from event_flow.core.room import Room, Waiter
from event_flow.core.routing import Lanes, Router
from event_flow.core.state import EngineState
from event_flow.core.wording import safe_repr

if TYPE_CHECKING:
    from event_flow.core.report import ShutdownReport

# In these an event is kept for when the handlers run.
KEPT_STATES = (EngineState.NEW, EngineState.STARTING)


def require_event(event: object) -> None:
    """Raises `TypeError` unless `event` is an instance of `Event`."""
    if not isinstance(event, Event):
        shown = f"the class {event.__name__}" if isinstance(event, type) else safe_repr(event)
        raise TypeError(f"only instances of Event can be published, not {shown}")


class Bus:
    """Everything published in one run of an engine, from admission to the end of its delivery.

    The ways in, from the quickest to the one that can do everything: `deliver_to_one` and `deliver_now` (a lane, or
    lanes, that take from anybody), and `publish`, `publish_nowait` and the inbox, which ask `admit`.
    """

    def __init__(self, *, max_backlog: int) -> None:
        self.state: EngineState = EngineState.NEW
        self.thread: int | None = None  # the loop's, once there is one
        self.router: Router = Router()
        self.activity: Activity = Activity()
        self.room: Room = Room(self.activity, max_backlog)
        self.backlog: list[Event[Any]] = []  # published before the handlers run
        self.overflows: Overflows = Overflows()
        self.filters: Filters = Filters()
        self.unhandled: int = 0
        self.report: ShutdownReport | None = None  # what became of it all, once everything has ended
        self._unyielded = 0  # events published, as far as known, since the last checkpoint
        self._unhandled_classes: set[type] = set()

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(self, event: Event[Any], lanes: Lanes | None = None) -> None:
        """Deliver one event, as filters let it through, to the lanes of its class, waiting for room; or as it is to `lanes`."""
        require_event(event)
        self.require_loop_thread()
        kept: Event[Any] | None = event
        if lanes is None:
            kept = self.filtered(event, current_origin.get())
            lanes = () if kept is None else self.router.lanes_for(type(kept))
        self._see(lanes)
        if self._unyielded >= YIELD_AFTER:
            # Before it looks for room: a publish cancelled here has delivered nothing.
            self._unyielded = 0
            await checkpoint()
        if kept is None:
            return
        waiter = self.admit(kept, current_origin.get(), lanes)
        if waiter is not None:
            ready = anyio.Event()
            waiter.notify = ready.set
            try:
                await ready.wait()
            except BaseException:
                self.room.withdraw(waiter)
                raise
            try:
                self.complete(waiter)
            except EngineClosed:
                # A handler that ends with its lane is cancelled, and does not fail.
                await checkpoint_if_cancelled()
                raise

    def publish_nowait(self, event: Event[Any]) -> None:
        """Deliver one event now, or raise `WouldBlock`."""
        require_event(event)
        self.require_loop_thread()
        kept = self.filtered(event, current_origin.get())
        if kept is None:
            return
        event = kept
        lanes = self.router.lanes_for(type(event))
        self._see(lanes)
        waiter = self.admit(event, current_origin.get(), lanes)
        if waiter is not None:
            self.room.withdraw(waiter)
            raise anyio.WouldBlock
        if self._unyielded >= YIELD_AFTER:
            for lane in lanes:
                lane.allowance = 0  # this cannot give others a turn: the next publish that can is to look

    def filtered(self, event: Event[Any], origin: Origin | None) -> Event[Any] | None:
        """What the filters make of an event that is published; None if one drops it.

        Raises `EngineClosed`, before a filter is asked, and what a filter raises.
        """
        if not self.filters:
            return event
        if self.state not in KEPT_STATES:
            self._require_open(origin)
        kept = self.filters.accept(event)
        if kept is None:
            self._unyielded += 1
        return kept

    def admit(self, event: Event[Any], origin: Origin | None, lanes: Lanes | None = None) -> Waiter | None:
        """Deliver `event` and return None, or return the waiter for it, parked; the caller sets its `notify`.

        Raises `EngineClosed`, `LaneFull` and `BacklogExceeded`; then nothing was delivered.
        """
        if self.state in KEPT_STATES:
            self.keep(event)
            return None
        self._require_open(origin)
        if lanes is None:
            lanes = self.router.lanes_for(type(event))
        if not lanes:
            self._nobody_wants(event)
            return None
        self.room.require_places(lanes)
        full = self.room.first_full(lanes, origin)
        if full is None:
            self._deliver(event, lanes)
            return None
        waiter = Waiter(event, lanes, origin)
        self.room.park(waiter, full)
        return waiter

    def keep(self, event: Event[Any]) -> None:
        """Keep an event that is published before the handlers run."""
        limit = self.room.max_backlog
        if len(self.backlog) >= limit:
            raise BacklogExceeded(
                f"max_backlog={limit:,} events are kept already for when the handlers run: no more before that",
                handler=None,
                limit=limit,
            )
        self.backlog.append(event)

    def require_loop_thread(self) -> None:
        """Raises `WrongThreadError` in any other thread than the loop's."""
        if self.thread is not None and self.thread != get_ident():
            raise WrongThreadError(
                "this thread is not the one the engine runs in: call pub_event_from_thread or pub_events_from_thread"
            )

    def complete(self, waiter: Waiter) -> None:
        """Deliver a waiter that was granted its places; raise what refused it."""
        if waiter.error is not None:
            raise waiter.error
        try:
            self._require_open(waiter.origin)
        except EngineClosed:
            self.room.withdraw(waiter)
            raise
        waiter.granted = False
        for lane in waiter.reserved:
            lane.reserved -= 1
        dropping = []
        for lane in waiter.lanes:
            self.activity.make_busy(lane)
            if lane.put(waiter.event) < 0 and lane.drops:
                dropping.append(lane)
        self._unyielded += 1
        # Only now: it logs, and a sink of the log may do anything.
        for lane in (*waiter.passed, *dropping):
            self.overflows.notice(lane)

    # -- delivering ------------------------------------------------------------------------------------------------

    def deliver_to_one(self, event: Event[Any], lane: Lane) -> bool:
        """As `deliver_now`, to one lane; quicker, and quickest if its worker waits."""
        is_idle = lane.arrival is not None
        if is_idle:
            # Nothing is queued there, so there is room, but for that, and nobody waits for it.
            takes_more = not lane.reserved
        else:
            if lane.open:
                self._see((lane,))
            takes_more = lane.takes_more
        if not takes_more or lane.guarded or self._unyielded >= YIELD_AFTER:
            return False
        self._unyielded += 1
        self.activity.make_busy(lane)
        if is_idle:
            lane.open_batch(event)
        elif lane.put(event) < 0:
            self.overflows.notice(lane)
        return True

    def deliver_now(self, event: Event[Any], lanes: Lanes) -> bool:
        """Deliver to lanes that take it from anybody: none is guarded, and each has room and nobody waiting. Else False."""
        self._see(lanes)
        if self._unyielded >= YIELD_AFTER:
            return False
        for lane in lanes:
            if lane.guarded or not lane.takes_more:
                return False
        self._deliver(event, lanes)
        return True

    def _deliver(self, event: Event[Any], lanes: Lanes) -> None:
        overflown = []
        for lane in lanes:
            self.activity.make_busy(lane)
            if lane.put(event) < 0:
                overflown.append(lane)
        self._unyielded += 1
        # Only now: it logs, and a sink of the log may do anything.
        for lane in overflown:
            self.overflows.notice(lane)

    def _see(self, lanes: Lanes) -> None:
        """Count the events that went into the open batches of `lanes` since the last look."""
        unseen = 0
        for lane in lanes:
            length = len(lane.open)
            if length - lane.mark > unseen:
                unseen = length - lane.mark
            lane.mark = length
        self._unyielded += unseen

    def _nobody_wants(self, event: Event[Any]) -> None:
        self.unhandled += 1
        self._unyielded += 1
        event_class = type(event)
        if event_class not in self._unhandled_classes:
            self._unhandled_classes.add(event_class)
            logger.bind(event=event_class.__name__).warning(
                "No handler wants {}; further events of this class are counted, not logged",
                event_class.__name__,
            )

    # -- opening and closing ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """The handlers run: route what was published before, in order, over the limits if need be."""
        self.router.unguard()
        # It may grow: what the user's code publishes meanwhile, a sink of the log for instance, comes behind the rest.
        for event in self.backlog:
            lanes = self.router.lanes_for(type(event))
            for lane in lanes:
                self.activity.make_busy(lane)
                if lane.put(event) < 0 and lane.drops:
                    self.overflows.notice(lane)
            if not lanes:
                self._nobody_wants(event)
        self.backlog = []
        self.state = EngineState.RUNNING

    def shut_out(self) -> None:
        """From now on only live handler calls and ticks publish. Nothing but a few stores: safe in a signal handler."""
        self.state = EngineState.DRAINING
        self.router.guard()

    def refuse_outsiders(self) -> None:
        """From now on only live handler calls and ticks publish; what others wait for gets `EngineClosed`."""
        self.shut_out()
        for lane in self.router.lanes:
            lane.drain()
            for waiter in [waiter for waiter in lane.waiters if not self._is_inside(waiter.origin)]:
                self.room.refuse(waiter, self._closed())

    def close(self) -> None:
        """Take nothing more, abandon what is queued, cancel the handlers. May be called again."""
        self.state = EngineState.STOPPING
        for event in self.backlog:
            lanes = self.router.lanes_for(type(event))
            for lane in lanes:
                lane.abandon((event,))
            if not lanes:
                self._nobody_wants(event)
        self.backlog = []
        for lane in self.router.lanes:
            lane.close()
        # Only now: handlers that wait are cancelled rather than refused, except where they are shielded.
        for lane in self.router.lanes:
            for waiter in list(lane.waiters):
                self.room.refuse(waiter, self._closed())
            self.activity.rest(lane)

    def drop_lanes(self) -> None:
        """Forget the handlers: nothing was routed to them yet."""
        for lane in self.router.lanes:
            lane.close()
        self.router = Router()

    @property
    def is_idle(self) -> bool:
        """Nothing is queued and no handler runs."""
        return self.activity.is_idle and not self.backlog

    @property
    def is_quiet(self) -> bool:
        """Idle, and no tick runs: nothing can be published from inside any more."""
        return self.activity.is_quiet and not self.backlog

    def _require_open(self, origin: Origin | None) -> None:
        if self.state is EngineState.RUNNING or (
            self.state is EngineState.DRAINING and self._is_inside(origin)
        ):
            return
        raise self._closed()

    def _is_inside(self, origin: Origin | None) -> bool:
        return origin is not None and origin.live and origin.bus is self and origin.kind is not Kind.HOOK

    def _closed(self) -> EngineClosed:
        return EngineClosed(f"the engine is {self.state.value}: it takes this event no more")

"""Publishing: what users call, and the fast path. Everything that needs a second look is the bus's."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from threading import get_ident
from typing import Any

from event_flow.core.backend import uninterrupted
from event_flow.core.bus import Bus, require_event
from event_flow.core.event import Event
from event_flow.core.exception import WrongThreadError
from event_flow.core.filtering import Filter, Filters
from event_flow.core.inbox import Inbox
from event_flow.core.routing import Lanes


class Publisher:
    """The publishing half of `AppEngine`.

    Every publish is all or nothing: an event reaches the lanes of all its handlers at once, or none of them when the
    publish is cancelled or raises. Anything that is no instance of `Event` is a `TypeError`, in every state.
    Before the handlers run nothing waits: events are kept, at most `max_backlog`, and routed in order at the start.
    """

    _bus: Bus
    _inbox: Inbox
    _filters: list[Filter]
    # The bus's own, here because the fast path has no time to ask it.
    _routes: dict[type, Lanes]
    _thread: int | None

    def _use_bus(self, bus: Bus) -> None:
        self._bus = bus
        self._inbox = Inbox(bus)
        self._thread = bus.thread
        bus.filters = Filters(self._filters)
        self._use_routes()

    def _use_routes(self) -> None:
        # With filters nothing is to be found by the fast path: it has no time for them.
        self._routes = {} if self._filters else self._bus.router.routes

    @uninterrupted
    async def pub_event(self, event: Event[Any]) -> None:
        """Hand an event to every handler of its class; wait while one of their lanes is full, unless its `overflow` is another.

        All or nothing: when it is cancelled or raises, no handler gets the event. The events of one task reach a handler in
        the order in which they were published. Returning means accepted, not handled. While there is room it does not yield,
        but for one checkpoint in about a thousand events (ten thousand where hundreds of classes are published in turn).
        Before the handlers run it never waits: the event is kept.

        Raises `EngineClosed` from `stop()` on, but for handlers at work and ticks begun before until the drain ends;
        `LaneFull` where a handler with `overflow="error"` is full, `BacklogExceeded` beyond `max_backlog`,
        `WrongThreadError` (a `RuntimeError`) outside the loop's thread, `TypeError` for anything but an instance of `Event`,
        and what a filter raises.
        """
        if get_ident() == self._thread:
            try:
                lanes = self._routes[type(event)]  # a third of the time of .get()
            except KeyError:
                pass
            else:
                if len(lanes) == 1:  # no loop for what is most common: a fifth of the whole
                    lane = lanes[0]
                    if len(lane.open) < lane.allowance:
                        lane.open.append(event)
                        return
                    if self._bus.deliver_to_one(event, lane):
                        return
                else:
                    for lane in lanes:
                        if len(lane.open) >= lane.allowance:
                            break
                    else:
                        for lane in lanes:
                            lane.open.append(event)
                        return
                    if self._bus.deliver_now(event, lanes):
                        return
        await self._bus.publish(event)

    @uninterrupted
    async def pub_events(self, events: Iterable[Event[Any]]) -> None:
        """Publish many events, in order, each as `pub_event` would, but cheaper.

        The iterable is read to its end, and every event checked, before the first is published. Cancelled or refused,
        an unknown prefix was delivered.
        """
        listed = _checked(events)
        self._bus.require_loop_thread()
        for _, same_class in groupby(listed, type):
            await self._publish_same_class(list(same_class))

    async def _publish_same_class(self, events: list[Event[Any]]) -> None:
        """Publish events of one class, as many at a time as the open batches of all its lanes may take."""
        event_class = type(events[0])
        done = 0
        while done < len(events):
            lanes = self._routes.get(event_class, ())
            room = min((lane.allowance - len(lane.open) for lane in lanes), default=0)
            if room > 0:
                part = events[done : done + room]
                for lane in lanes:
                    lane.open.extend(part)
                done += len(part)
            else:
                await self._bus.publish(events[done])
                done += 1

    @uninterrupted
    def pub_event_nowait(self, event: Event[Any]) -> None:
        """Publish an event now, or raise `anyio.WouldBlock` exactly where `pub_event` would wait. Otherwise as `pub_event`."""
        self._bus.publish_nowait(event)

    def pub_event_from_thread(self, event: Event[Any]) -> None:
        """Publish an event from a thread that is not the loop's: a sync handler or task, or any other.

        Blocks the thread as `pub_event` would wait, and raises what it would raise. Never hangs: the end of the engine
        ends it with `EngineClosed`. In the loop's own thread it raises `WrongThreadError` (a `RuntimeError`) at once.
        """
        require_event(event)
        self._publish_from_thread([event])

    def pub_events_from_thread(self, events: Iterable[Event[Any]]) -> None:
        """Publish many events from a thread that is not the loop's; to `pub_event_from_thread` as `pub_events` to `pub_event`."""
        self._publish_from_thread(_checked(events))

    def _publish_from_thread(self, events: list[Event[Any]]) -> None:
        if get_ident() == self._bus.thread:
            raise WrongThreadError("this is the thread the engine runs in: await pub_event or pub_events")
        self._inbox.publish(events)


def _checked(events: Iterable[Event[Any]]) -> list[Event[Any]]:
    listed = list(events)
    if not all(issubclass(event_class, Event) for event_class in set(map(type, listed))):
        for event in listed:
            require_event(event)
    return listed

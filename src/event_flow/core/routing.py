"""Which lanes an event goes to: decided by its class, once for each class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from event_flow.core.event import Event
from event_flow.core.lane import YIELD_AFTER, Lane

Lanes = tuple[Lane, ...]

# Events between two looks at a lane. A look costs as much as publishing two events, so they are rare while that does not add
# up, over all classes, to more than some milliseconds without a turn for others.
STRIDE = 50
MOST_UNSEEN = 10_000


class Router:
    """Maps event classes to lanes. A handler of a class gets its subclasses, a handler of `Event` everything.

    `routes` is the cache that publishing looks into: every concrete class seen so far that some handler wants.
    """

    def __init__(self) -> None:
        self.routes: dict[type, Lanes] = {}
        self.lanes: list[Lane] = []  # in the order in which they were added
        self._wanted: dict[type, list[int]] = {}  # class that a handler names → places in `lanes`
        self._stride = YIELD_AFTER

    def add(self, lane: Lane, events: Iterable[type[Event[Any]]]) -> None:
        """`lane` wants events of these classes. Call it before the first event is routed."""
        for event_class in events:
            self._wanted.setdefault(event_class, []).append(len(self.lanes))
        self.lanes.append(lane)

    def lanes_for(self, event_class: type) -> Lanes:
        """The lanes of a class, in the order in which they were added; empty if no handler wants it."""
        lanes = self.routes.get(event_class)
        if lanes is None:
            places = {place for base in event_class.__mro__ for place in self._wanted.get(base, ())}
            lanes = tuple(self.lanes[place] for place in sorted(places))
            if lanes:
                self.routes[event_class] = lanes
                self._share_turns()
        return lanes

    def _share_turns(self) -> None:
        """The more classes there are, the less may be published of each unseen, so that together it stays about one turn."""
        classes = len(self.routes)
        stride = max(1, YIELD_AFTER // classes, min(STRIDE, MOST_UNSEEN // classes))
        if stride != self._stride:
            self._stride = stride
            for lane in self.lanes:
                lane.stride = stride

    def unguard(self) -> None:
        """From now on lanes with room take what anybody publishes."""
        for lane in self.lanes:
            lane.guarded = False

    def guard(self) -> None:
        """From now on every publish takes the slow path."""
        for lane in self.lanes:
            lane.guard()

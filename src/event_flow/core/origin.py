"""Which user code is at work: known to every publish through a context variable.

A publish inherits the origin of the code it is called from: the tasks that code starts and the thread it runs in carry a
copy of its context. That is how the bus can tell inside from outside, and which handler waits for which.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from event_flow.core.bus import Bus
    from event_flow.core.lane import Lane


class Kind(Enum):
    """What kind of user code."""

    CALL = "handler"
    TICK = "schedule"
    HOOK = "hook"


class Origin:
    """One call of user code. `live` while it runs; what it left behind afterwards is outside."""

    __slots__ = ("bus", "kind", "lane", "live", "waits_for")

    def __init__(self, bus: Bus, kind: Kind, lane: Lane | None = None) -> None:
        self.bus: Bus = bus
        self.kind: Kind = kind
        self.lane: Lane | None = lane
        self.live: bool = True
        self.waits_for: list[Lane] | None = None  # where publishes of this call are parked

    def park(self, lane: Lane) -> None:
        """A publish of this call, of a handler, is parked at `lane`."""
        assert self.lane is not None
        if self.waits_for is None:
            self.waits_for = []
        self.waits_for.append(lane)
        self.lane.waits_for[lane] += 1

    def unpark(self, lane: Lane) -> None:
        """It is parked there no more."""
        assert self.lane is not None
        assert self.waits_for is not None
        self.waits_for.remove(lane)
        self.lane.waits_for[lane] -= 1
        if not self.lane.waits_for[lane]:
            del self.lane.waits_for[lane]

    def end(self) -> None:
        """The call has ended; nobody need wait for what it left behind."""
        self.live = False
        while self.waits_for:
            self.unpark(self.waits_for[-1])


current_origin: ContextVar[Origin | None] = ContextVar("event_flow_origin", default=None)

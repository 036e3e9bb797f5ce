"""The records of a run: what was published, asked for again, and called. Made by those who did it, judged by the `Ledger`."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from event_flow import EngineState, Event

PROMISES = {
    1: "order",
    2: "bounded",
    3: "no deadlock",
    4: "exactly once",
    5: "all or nothing",
    6: "isolation",
    7: "clean end",
}
PLENTY = 10_000
# Different keys that events have.
HUES = 2


def keep(number: int, holds: object, otherwise: object) -> None:
    """Raise an `AssertionError` that names the promise, unless it `holds`."""
    if not holds:
        raise AssertionError(f"promise {number}, {PROMISES[number]}: {otherwise}")


class Fate(Enum):
    PENDING = "the publish has not returned"
    MADE = "it has returned, or a handler has got the event"
    REFUSED = "it was cancelled, or raised"
    UNSURE = "one of many in a publish that was cut short, or a redelivery of many that was"


@dataclass(frozen=True, slots=True)
class Author:
    """Who publishes, in his own order."""

    name: str
    handler: str | None = None  # whose call it is
    call: int = 0  # the number of that call
    in_tick: bool = False
    generation: int = 0  # how many handlers are behind it

    @property
    def is_inside(self) -> bool:
        """Whether the engine takes it while it drains."""
        return self.handler is not None or self.in_tick


@dataclass(eq=False, slots=True)
class Publication:
    """One event that was published."""

    author: Author
    serial: int
    began: EngineState  # what the engine was then
    routed: type[Event[Any]]  # the class of the event, or of the one that a filter put in its place
    is_one_of_many: bool = False
    is_filtered: bool = False  # a filter has dropped it
    fate: Fate = Fate.PENDING
    made_at: float = math.inf  # when the publish had returned
    seen_by: set[str] = field(default_factory=set)

    @property
    def is_early(self) -> bool:
        """It came before the handlers ran."""
        return self.began in (EngineState.NEW, EngineState.STARTING)

    @property
    def hue(self) -> int:
        return self.serial % HUES

    def __getitem__(self, name: str) -> Any:
        """For handlers whose key is an entry of the data."""
        return {"hue": self.hue}[name]

    def __repr__(self) -> str:
        return f"{self.author.name}:{self.serial}"


@dataclass(eq=False, slots=True)
class Redelivery:
    """What a handler had failed with, asked for again: event by event, in this order."""

    author: Author
    handler: str
    events: tuple[Event[Any], ...]
    began: EngineState
    fate: Fate = Fate.PENDING
    made_at: float = math.inf
    came: list[Event[Any]] = field(default_factory=list)  # of the events, those that are back

    @property
    def missing(self) -> tuple[Event[Any], ...]:
        return tuple(event for event in self.events if event not in self.came)

    @property
    def is_under_way(self) -> bool:
        """More of it may come back."""
        return self.fate is not Fate.REFUSED and len(self.came) < len(self.events)

    @property
    def sure(self) -> tuple[Event[Any], ...]:
        """What was delivered."""
        return self.events if self.fate is Fate.MADE else tuple(self.came)

    @property
    def unsure(self) -> tuple[Event[Any], ...]:
        """What may have been delivered. If it was cut short, then not the last event."""
        if self.fate is Fate.PENDING:
            return self.missing
        if self.fate is Fate.UNSURE:
            return tuple(event for event in self.missing if event is not self.events[-1])
        return ()

    def __repr__(self) -> str:
        return f"{self.author.name} for {self.handler} again: {self.events}"


class Thing(Event[Publication]):
    pass


class Red(Thing):
    pass


class DarkRed(Red):
    pass


class Green(Thing):
    pass


class State(Enum):
    WORKS = "it is on its way"
    WAITS = "it waits at its gate, or for time to pass"
    DONE = "it has returned"
    FAILED = "it has raised"
    CANCELLED = "it was cancelled by the engine"


ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(eq=False, slots=True)
class Call:
    """One attempt of a handler at some events, as the handler saw it, or the middleware around it."""

    handler: str
    events: list[Event[Any]]
    number: int  # among all calls of the handler
    began: float
    key: Hashable = None
    attempt: int = 1
    allowed: int = 1  # of the attempts, those that count: since the handler was last resumed
    first_began: float = 0.0  # when the first of those did
    is_alone: bool = False  # of an event of a batch that failed
    state: State = State.WORKS
    is_at_gate: bool = False
    passed: list[Event[Any]] | None = None  # what middleware has handed on
    dead: tuple[Event[Any], ...] = ()  # what was given up and is to be told of
    handled: int = 0
    failed: int = 0
    # What became of it may cross with a hard end: the engine hears too late of a thread that is done, or it cancels a task
    # that just cancelled itself.
    may_cross: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in ENDED


@dataclass(eq=False, slots=True)
class Again:
    """Events that a handler is to get once more, together."""

    events: list[Event[Any]]
    key: Hashable
    attempt: int
    allowed: int = 1
    first_began: float | None = None  # None: anew
    is_alone: bool = False
    # Between these it is due; -inf: at once, before what waits for a time of its own.
    due: float = -math.inf
    due_at_last: float = -math.inf

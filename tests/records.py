"""The records of a run: what was published, asked for again, and called. Made by those who did it, judged by the `Ledger`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from event_flow import EngineState, Event, ExceptionEvent

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
    is_one_of_many: bool = False
    fate: Fate = Fate.PENDING
    seen_by: set[str] = field(default_factory=set)

    @property
    def is_early(self) -> bool:
        """It came before the handlers ran."""
        return self.began in (EngineState.NEW, EngineState.STARTING)

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
    seen: int = 0  # how many of the events came back so far

    @property
    def is_under_way(self) -> bool:
        """More of it may come back."""
        return self.fate is not Fate.REFUSED and self.seen < len(self.events)

    @property
    def sure(self) -> tuple[Event[Any], ...]:
        """What was delivered."""
        return self.events if self.fate is Fate.MADE else self.events[: self.seen]

    @property
    def unsure(self) -> tuple[Event[Any], ...]:
        """What may have been delivered. If it was cut short, then not before the last event: that one was not delivered."""
        return {
            Fate.PENDING: self.events[self.seen :],
            Fate.UNSURE: self.events[self.seen : -1],
        }.get(self.fate, ())

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
    """One call of a handler, as the handler saw it."""

    handler: str
    events: list[Event[Any]]
    state: State = State.WORKS
    # What became of it may cross with a hard end: the engine hears too late of a thread that is done, or it cancels a task
    # that just cancelled itself.
    may_cross: bool = False

    @property
    def ordinary(self) -> tuple[Event[Any], ...]:
        return tuple(event for event in self.events if not isinstance(event, ExceptionEvent))

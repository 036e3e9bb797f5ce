"""Models of lanes that hand out attempts: lists, and the rules of the options told in their plainest form.

A model is told what happens and the time, like the lane, and says what the lane has to say: when something is due, what may be
taken then, and what closes it. Floats are compared with a few roundings of tolerance, in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from event_flow import Event, Rate
from event_flow.core.attempt import Attempt

Events = list[Event[Any]]


def tolerance(*moments: float) -> float:
    """Seconds by which moments may differ that are the same."""
    return 16 * max(math.ulp(moment) for moment in moments if math.isfinite(moment)) + 1e-12


@dataclass(kw_only=True)
class Options:
    """What a lane is made with."""

    queue_size: int
    max_batch: int
    overflow: str
    linger: float
    rate: Rate | None
    workers: int

    @property
    def full(self) -> int:
        """Events that a batch waits for at most: more than a burst never go in at once."""
        return self.max_batch if self.rate is None else min(self.max_batch, self.rate.burst)

    @property
    def drops(self) -> bool:
        return self.overflow not in ("wait", "error")


class RateModel:
    """All that ever went in, and when: in any window of t seconds at most `burst + limit * t / per` events."""

    def __init__(self, rate: Rate | None) -> None:
        self.rate = rate
        self.taken: list[tuple[float, int]] = []

    def ready_at(self, now: float, events: int) -> float:
        """When so many more may go in, by every window that ends then."""
        ready, since = -math.inf, events
        if self.rate is None:
            return ready
        for began, number in reversed(self.taken):
            since += number
            ready = max(ready, began + (since - self.rate.burst) * self.rate.per / self.rate.limit)
        return ready

    def lengths(self, now: float, most: int) -> set[int]:
        """How many may be taken now, at most so many; two values where it depends on a rounding."""
        if self.rate is None:
            return {most}
        most = min(most, self.rate.burst)
        around = tolerance(now)
        return {
            max((n for n in range(1, most + 1) if self.ready_at(now, n) <= moment), default=0)
            for moment in (now - around, now, now + around)
        }


@dataclass(eq=False)
class Returned:
    """A attempt that was put back."""

    attempt: Attempt
    events: Events
    order: int  # of those that are due at once, the highest comes first where several are at work

    @property
    def due(self) -> float:
        return self.attempt.due

    @property
    def published(self) -> int:
        """When its first event was, among all."""
        number: int = self.events[0].data[1]
        return number


@dataclass(eq=False)
class Line:
    """What is queued of one key, or of all events where there are no keys."""

    key: Hashable = None
    batches: list[Events] = field(default_factory=list)  # not tried; the last one may be open
    opened_at: float = -math.inf
    returned: list[Returned] = field(default_factory=list)
    at_work: bool = False
    ready: int | None = None  # since which step it waits for nothing but a worker and the rate
    closed_by: str = "size"

    @property
    def untried(self) -> Events:
        return [event for batch in self.batches for event in batch]


@dataclass(eq=False)
class Expected:
    """What may be taken now: a attempt that was put back, or a length of what was not tried."""

    line: Line
    returned: Returned | None = None
    lengths: set[int] = field(default_factory=set)


class LaneModel:
    """What both kinds of lanes have in common."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.rate = RateModel(options.rate)
        self.waiting = 0  # publishers
        self.is_paused = False
        self.is_draining = False
        self.dropped: Events = []

    def lines(self) -> Iterator[Line]:
        raise NotImplementedError

    @property
    def queued(self) -> Events:
        events: Events = []
        for line in self.lines():
            events += line.untried + [event for returned in line.returned for event in returned.events]
        return events

    @property
    def room(self) -> int:
        return self.options.queue_size - len(self.queued)

    @property
    def is_pressed(self) -> bool:
        return self.is_draining or self.room <= 0 or self.waiting > 0

    def metered(self, now: float, due: float, events: int) -> float:
        return max(due, self.rate.ready_at(now, events))

    def pop_oldest(self) -> bool:
        """Drop what was queued longest and not tried."""
        raise NotImplementedError

    def makes_room(self, event: Event[Any]) -> bool:
        """Whether the event is queued; if the lane is full, another one may be dropped for it."""
        if not self.options.drops or self.room > 0:
            return True
        if self.options.overflow == "drop_newest" or not self.pop_oldest():
            self.dropped.append(event)
            return False
        return True

    def closed_by(self, line: Line, length: int, *, is_cut: bool) -> str:
        """To be asked before it is taken."""
        if is_cut or length >= self.options.full:
            return "size"
        if self.is_draining:
            return "drain"
        if self.is_pressed:
            return "size"
        return line.closed_by if self.options.linger else "idle"


class GateModel(LaneModel):
    """One line, in which batches are cut where they are full when events come."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.line = Line(closed_by="linger")
        self.open: Events | None = None
        self.in_order = options.workers == 1

    def lines(self) -> Iterator[Line]:
        yield self.line

    def put(self, event: Event[Any], now: float) -> None:
        if not self.makes_room(event):
            return
        if self.open is not None and len(self.open) < self.options.max_batch:
            self.open.append(event)
        else:
            self.open = [event]
            self.line.batches.append(self.open)
            self.line.opened_at = now

    def pop_oldest(self) -> bool:
        if not self.line.batches:
            return False
        self.dropped.append(self.line.batches[0].pop(0))
        self._forget_if_empty()
        return True

    def _forget_if_empty(self) -> None:
        if not self.line.batches[0] and self.line.batches.pop(0) is self.open:
            self.open = None

    @property
    def first(self) -> Returned | None:
        returned = self.line.returned
        if self.in_order:
            return min(returned, key=lambda each: each.published, default=None)
        return min(returned, key=lambda each: (each.due, -each.order), default=None)

    def dues(self, now: float) -> set[float]:
        if self.is_paused:
            return {math.inf}
        first = self.first
        again = math.inf if first is None else self.metered(now, first.due, len(first.events))
        if first is not None and (self.in_order or first.due <= now):
            return {again}
        return {min(again, self._due_untried(now))}

    def _due_untried(self, now: float) -> float:
        if not self.line.batches:
            return math.inf
        only = self.line.batches == [self.open] and len(self.line.batches[0]) < self.options.full
        waits = only and self.options.linger and not self.is_pressed
        return self.metered(now, self.line.opened_at + self.options.linger if waits else -math.inf, 1)

    def expected(self, now: float) -> list[Expected]:
        first = self.first
        if first is not None and first.due <= now:
            return [Expected(self.line, first)]
        length = min(len(self.line.batches[0]), self.options.max_batch)
        return [Expected(self.line, lengths=self.rate.lengths(now, length))]

    def take_untried(self, line: Line, length: int) -> tuple[Events, str]:
        first = line.batches[0]
        is_cut = length < len(first) or len(line.batches) > 1
        closed_by = self.closed_by(line, length, is_cut=is_cut)
        taken, first[:length] = first[:length], []
        self._forget_if_empty()
        return taken, closed_by

    def notice(self, now: float) -> None:
        """Nothing is remembered from one look to the next."""

    def begin(self, line: Line) -> None:
        """Whatever else is queued may be taken meanwhile."""

    def release(self, line: Line) -> None:
        pass


class KeyedModel(LaneModel):
    """A line for each key. They become ready in steps: who did in an earlier one comes first."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.by_key: dict[Hashable, Line] = {}
        self.arrivals: list[tuple[Event[Any], Line]] = []  # not tried
        self.step = 0

    def lines(self) -> Iterator[Line]:
        return iter(self.by_key.values())

    def put(self, event: Event[Any], now: float) -> None:
        key = event.data[0]
        line = self.by_key.get(key)
        if self.options.overflow == "latest" and line is not None and line.batches:
            (old,) = line.batches[0]
            line.batches[0][0] = event
            at = next(number for number, (each, _) in enumerate(self.arrivals) if each is old)
            self.arrivals[at] = event, line
            self.dropped.append(old)
            return
        if not self.makes_room(event):
            return
        line = self.by_key.setdefault(key, Line(key))
        self.arrivals.append((event, line))
        if line.batches:
            line.batches[0].append(event)
            if not (line.at_work or line.returned) and len(line.untried) >= self.options.full:
                self._make_ready(line, "size")
        else:
            line.batches.append([event])
            line.opened_at = now
            if not (line.at_work or line.returned):
                self._line_up(line)

    def pop_oldest(self) -> bool:
        if not self.arrivals:
            return False
        event, line = self.arrivals.pop(0)
        self.dropped.append(line.batches[0].pop(0))
        assert self.dropped[-1] is event
        self._forget_if_empty(line)
        return True

    def _forget_if_empty(self, line: Line) -> None:
        line.batches = [batch for batch in line.batches if batch]
        if not (line.batches or line.returned or line.at_work):
            self.by_key.pop(line.key, None)

    def _line_up(self, line: Line) -> None:
        if self._waits_until(line) == -math.inf:
            self._make_ready(line, "size")

    def _waits_until(self, line: Line) -> float:
        if line.returned:
            return line.returned[0].due
        if self.options.linger and len(line.untried) < self.options.full:
            return line.opened_at + self.options.linger
        return -math.inf

    def _make_ready(self, line: Line, closed_by: str) -> None:
        if line.ready is None:
            self.step += 1
            line.ready, line.closed_by = self.step, closed_by

    @property
    def _idle(self) -> list[Line]:
        return [line for line in self.lines() if not line.at_work and line.ready is None]

    def notice(self, now: float) -> None:
        """What the lane does whenever it is asked: whoever becomes ready by that does so at once, in any order."""
        if self.is_paused:
            return
        self.step += 1
        for line in self._idle:
            if self.is_pressed and not line.returned:
                line.ready, line.closed_by = self.step, "size"
            elif self._waits_until(line) <= now:
                line.ready, line.closed_by = self.step, "linger"

    def dues(self, now: float) -> set[float]:
        if self.is_paused:
            return {math.inf}
        first = self._first
        if not first:
            return {min((self._waits_until(line) for line in self._idle), default=math.inf)}
        return {
            self.metered(now, -math.inf, len(line.returned[0].events) if line.returned else 1)
            for line in first
        }

    @property
    def _first(self) -> list[Line]:
        ready = [line for line in self.lines() if line.ready is not None]
        first = min((line.ready for line in ready if line.ready is not None), default=0)
        return [line for line in ready if line.ready == first]

    def expected(self, now: float) -> list[Expected]:
        return [
            Expected(line, line.returned[0])
            if line.returned
            else Expected(
                line, lengths=self.rate.lengths(now, min(len(line.untried), self.options.max_batch))
            )
            for line in self._first
        ]

    def take_untried(self, line: Line, length: int) -> tuple[Events, str]:
        closed_by = self.closed_by(line, length, is_cut=length < len(line.untried))
        taken, line.batches = line.untried[:length], [line.untried[length:]]
        self.arrivals = [
            (event, at) for event, at in self.arrivals if not any(event is each for each in taken)
        ]
        return taken, closed_by

    def begin(self, line: Line) -> None:
        line.at_work, line.ready = True, None
        line.batches = [batch for batch in line.batches if batch]

    def release(self, line: Line) -> None:
        line.at_work = False
        line.returned.sort(key=lambda each: each.published)
        self._forget_if_empty(line)
        if line.key in self.by_key:
            self._line_up(line)

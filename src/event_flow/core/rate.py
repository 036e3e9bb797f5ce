"""How many events a handler takes in a time: `Rate` says it, `Meter` decides when the next ones may go in.

The meter is the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A; ATM Forum Traffic Management 4.0,
4.4.2): a bucket of `burst` places that leaks one event each `per / limit` seconds, of which only the moment is kept when it
will be empty. No timer runs, nothing is counted up; what may go in is worked out when somebody asks.
"""

from __future__ import annotations

import math
from datetime import timedelta

from event_flow.core.options import count, number, seconds

__all__ = ["Rate"]

# Seconds, and events, with which a meter computes exactly enough. A nanosecond is the tick of the clock, 1e9 s are thirty years.
SMALLEST, LARGEST = 1e-9, 1e9


class Rate:
    """At most `limit` events each `per` seconds into a handler, and at most `burst` of them at once.

    In any window of t seconds, wherever it begins, at most `burst + limit * t / per` events go in; a batch is never larger than
    `burst`. Events that have to wait stay in the queue, so that a full one holds back who publishes. A handler that was idle
    has its `burst` again, and no more than that. With `burst=1` events are evenly spaced, and what one is late is lost; a
    larger burst makes up for it.

    `limit` is a number from 1e-9 to 1e9, not only a whole one; `per` is in seconds, as a number or `timedelta`, in the same
    range; `burst` is a whole number of at least 1. What else is an `OptionError` that says which. It is a value: it may be
    used for several handlers, and each is held to it on its own.
    """

    __slots__ = ("burst", "limit", "per")

    def __init__(self, limit: float, *, per: float | timedelta = 1.0, burst: int = 1) -> None:
        self.limit: float = number("Rate: limit", limit, least=SMALLEST, most=LARGEST)
        self.per: float = number("Rate: per", seconds("Rate: per", per), least=SMALLEST, most=LARGEST)
        self.burst: int = count("Rate: burst", burst)

    def __repr__(self) -> str:
        return f"Rate({self.limit}, per={self.per}, burst={self.burst})"


class Meter:
    """The state of one handler in one run, which begins with all of its burst. Told the time, which never goes back.

    It holds to the clock's own resolution: a float of seconds is rounded, and whoever takes at the moment that `ready_at`
    gave is on time.
    """

    __slots__ = ("_burst", "_limit", "_per", "_since", "_taken")

    def __init__(self, rate: Rate) -> None:
        self._limit = rate.limit
        self._per = rate.per
        self._burst = rate.burst
        # When the bucket was last known to be empty, and how many events went in from then on. Not the moment when it will be
        # empty, to which one would add from event to event: far from 0 a float is coarse, and a sum of them drifts.
        self._since = 0.0
        self._taken = 0

    def available(self, now: float) -> int:
        """How many events may go in now, from 0 to the burst."""
        return self._burst - self._taken + self._leaked(now)

    def ready_at(self, now: float, events: int = 1) -> float:
        """The moment from which so many events, at most the burst, may go in if none do before: `now`, or later than that."""
        if not 1 <= events <= self._burst:
            raise ValueError(f"{events} events never go in at once: from 1 to {self._burst} do")
        if self.available(now) >= events:
            return now
        return self._moment(self._taken + events - self._burst)

    def take(self, now: float, events: int) -> None:
        """So many events go in, not more than are available."""
        if not 0 <= events <= self.available(now):
            raise ValueError(f"{events} events go in where {self.available(now)} may")
        # Empty for longer than this very moment: that is not saved up.
        if not self._taken or (self._leaked(now) == self._taken and now > self._moment(self._taken)):
            self._since = now
            self._taken = 0
        self._taken += events

    def _leaked(self, now: float) -> int:
        """How many of the events that were taken count no more."""
        return int(min(max(now - self._since, 0.0) * self._limit / self._per, self._taken))

    def _moment(self, leaked: int) -> float:
        """The first moment, as a float, at which so many will have leaked: never one at which `_leaked` still says fewer."""
        elapsed = leaked * self._per / self._limit
        # By a few roundings at most: these are exact to one in 2**51, and a step is one in 2**53 or more.
        while elapsed * self._limit / self._per < leaked:
            elapsed = math.nextafter(elapsed, math.inf)
        moment = self._since + elapsed
        return moment if moment - self._since >= elapsed else math.nextafter(moment, math.inf)

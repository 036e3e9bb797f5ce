"""Contestants take turns; what counts is the ratio within one turn.

Machines have moods: other processes, clock speeds, temperatures. All contestants of a comparison therefore run one after
the other in the same process, for some hundredths of a second each, again and again, and each round gives ratios of its
own. The tables show their median and their quartiles.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from gc import collect
from importlib.util import find_spec
from typing import NamedTuple

import anyio

Contestant = Callable[[], float]
"""Does its work once, in a loop of its own, and returns what is compared: seconds for one event, or for one hop."""


class Quartiles(NamedTuple):
    """Half of the rounds lie between `low` and `high`."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.median < 10 else 1 if self.median < 100 else 0
        low, median, high = (f"{value:,.{digits}f}" for value in self)
        return f"{median} × ({low} – {high})"


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of at least one number, in any order."""
    ordered = sorted(values)
    return Quartiles(ordered[len(ordered) // 4], ordered[len(ordered) // 2], ordered[-1 - len(ordered) // 4])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much work is done: `scale` 1 for figures one can quote, less to see that everything runs."""

    rounds: int
    scale: float

    def events(self, count: int) -> int:
        """A whole number of thousands."""
        return max(1, round(count * self.scale / 1000)) * 1000

    def times(self, count: float) -> int:
        """Any whole number, at least 1."""
        return max(1, round(count * self.scale))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An event loop to run a contestant on."""

    name: str
    backend: str
    options: Mapping[str, bool]

    def run(self, work: Callable[[], Awaitable[float]]) -> float:
        """Call the coroutine function `work` in a loop of its own and return the number it returns."""
        return anyio.run(work, backend=self.backend, backend_options=dict(self.options))


ASYNCIO = Backend(name="asyncio", backend="asyncio", options={})
UVLOOP = Backend(name="uvloop", backend="asyncio", options={"use_uvloop": True})
TRIO = Backend(name="trio", backend="trio", options={})
BACKENDS = [each for each in (ASYNCIO, UVLOOP, TRIO) if each is ASYNCIO or find_spec(each.name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What all rounds of one comparison gave: `times[name]` in seconds, one for each round, in order."""

    times: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Of the times of one contestant, in seconds."""
        return quartiles(self.times[name]).median

    def ratios(self, over: str, under: str) -> Quartiles:
        """How many times as long as `under` the contestant `over` took, round by round."""
        return quartiles([o / u for o, u in zip(self.times[over], self.times[under], strict=True)])


def announce(what: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"measuring: {what} …", file=sys.stderr, flush=True)


def compare(contestants: Mapping[str, Contestant], rounds: int) -> Comparison:
    """Run all contestants in turn, `rounds` times after one that does not count, each round in another order."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(rounds + 1):
        for name in order:
            collect()
            elapsed = contestants[name]()
            if number:
                times[name].append(elapsed)
        order.append(order.pop(0))
    return Comparison(times=times)

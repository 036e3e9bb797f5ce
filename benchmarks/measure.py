"""Contestants take turns; what counts is the ratio within one turn.

Machines have moods: other processes, clock speeds, temperatures. All contestants of a comparison therefore run one after
the other in the same process, for some hundredths of a second each, again and again, and each round gives ratios of its
own. The table shows their median and their quartiles.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio

Contestant = Callable[[], float]
"""Does its work once, in a loop of its own, and returns what is compared: seconds for one event, or for one hop."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What all rounds of one comparison gave: `times[name]` in seconds, one for each round, in order."""

    times: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Of the times of one contestant, in seconds."""
        return statistics.median(self.times[name])

    def ratios(self, over: str, under: str) -> list[float]:
        """How many times as long as `under` the contestant `over` took, round by round; sorted."""
        return sorted(o / u for o, u in zip(self.times[over], self.times[under], strict=True))


def compare(contestants: Mapping[str, Contestant], rounds: int) -> Comparison:
    """Run all contestants in turn, `rounds` times after one that does not count, each round in another order."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(rounds + 1):
        for name in order:
            gc.collect()
            elapsed = contestants[name]()
            if number:
                times[name].append(elapsed)
        order.append(order.pop(0))
    return Comparison(times=times)

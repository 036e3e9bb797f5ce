"""A clock that jumps when everything waits: an hour of schedules in a millisecond, alike on asyncio and on Trio.

Give the options to `anyio.run` or `AppEngine.start`, or to anyio's pytest fixture as `(backend, options)`. Time starts
at 0 and stands still while any task can run; when all of them wait, it is at once the time of the next deadline. When
there is no deadline either, the loop really waits: for threads, signals and sockets. The clock does not know of threads
at work: while one runs and a deadline is set, it jumps, so a timeout around a thread is over at once. uvloop keeps its
own time and cannot have such a clock.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

__all__ = ["virtual_clock"]

Arguments = TypeVarTuple("Arguments")

# Seconds. asyncio runs what is due within that from now; by itself it takes what the clock of the system has, which is a
# sixty-fourth second on Windows before Python 3.13.
CLOCK_RESOLUTION = 1e-9


def virtual_clock(backend: str) -> dict[str, Any]:
    """Backend options that run `backend` ("asyncio" or "trio") on a virtual clock of its own.

    Made for one run: on Trio, a second run with the same options goes on where the first one's clock stopped.
    Raises `ValueError` for any other backend, `ImportError` if Trio is not installed.
    """
    if backend == "asyncio":
        return {"loop_factory": VirtualClockLoop}
    if backend == "trio":
        from trio.testing import MockClock

        return {"clock": MockClock(autojump_threshold=0)}
    raise ValueError(f"there is no virtual clock for the backend {backend!r}, only for 'asyncio' and 'trio'")


class JumpingSelector(selectors.DefaultSelector):
    """Tells what is ready, as any selector, but passes the time until the next deadline instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now: float = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Input and wake-ups from threads come first, as they would if time really passed.
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self.now += timeout
        if self.now + CLOCK_RESOLUTION == self.now:
            # asyncio runs what is due before now + resolution. After 97 days a float cannot tell that from now, and
            # the loop would spin on a deadline it has reached.
            self.now = math.nextafter(self.now, math.inf)
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time is that of its selector: it asks for how long to wait, the selector jumps."""

    def __init__(self) -> None:
        self._clock = JumpingSelector()
        super().__init__(self._clock)
        self._clock_resolution = CLOCK_RESOLUTION

    def time(self) -> float:
        return self._clock.now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when == math.inf:
            # Never. asyncio looks at such a timer once a day, and the clock would take every look for a deadline.
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

"""How often a thing is logged that may happen very often: so many times a minute, then it is counted."""

from __future__ import annotations

import math

# Seconds. What happens a thousand times a second must not be what fills the disk.
WINDOW = 60.0


class LogLimit:
    """Decides which of the things that happen are logged, at most so many in a window. Told the time, of any clock."""

    __slots__ = ("_in_window", "_most", "_window_ends")

    def __init__(self, most: int) -> None:
        self._most = most
        self._window_ends = -math.inf
        self._in_window = 0

    def count(self, now: float) -> tuple[bool, int]:
        """It happened: whether to log it, and how many before were not and are to be mentioned now."""
        skipped = 0
        if now >= self._window_ends:
            skipped = self.skipped
            self._window_ends = now + WINDOW
            self._in_window = 0
        self._in_window += 1
        return self._in_window <= self._most, skipped

    @property
    def skipped(self) -> int:
        """Those of the current window that were not logged."""
        return max(0, self._in_window - self._most)

"""Whether anything is at work: how many lanes have something to do, and how many ticks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from event_flow.core.lane import Lane


class Activity:
    """What one run is busy with. `on_change` is called when it may have become idle or quiet."""

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None
        self.busy_lanes: int = 0
        self._ticks = 0
        self._watchers = 0

    @property
    def is_idle(self) -> bool:
        """No lane has anything to do."""
        return not self.busy_lanes

    @property
    def is_quiet(self) -> bool:
        """Idle, and no tick runs: nothing can be published from inside any more."""
        return not (self.busy_lanes or self._ticks)

    def make_busy(self, lane: Lane) -> None:
        """`lane` has, or is about to get, something to do."""
        if not lane.busy:
            lane.busy = True
            self.busy_lanes += 1

    def rest(self, lane: Lane) -> None:
        """A call of `lane`, or a reservation, has ended: see whether it is idle now."""
        if lane.busy and not (lane.running or lane.open or lane.held or lane.reserved):
            lane.busy = False
            self.busy_lanes -= 1
            if not self.busy_lanes and self._watchers:
                self.on_change()

    @contextmanager
    def tick(self) -> Iterator[None]:
        """A tick runs inside of the block."""
        self._ticks += 1
        try:
            yield
        finally:
            self._ticks -= 1
            self.on_change()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody waits inside of the block until it is idle or quiet."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

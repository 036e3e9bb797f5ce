"""Whether anything is at work: how many lanes have something to do, and how many ticks run."""

from __future__ import annotations

from collections.abc import Callable

from event_flow.core.lane import Lane


class Activity:
    """What one run is busy with. `on_change` is called when it may have become idle or quiet."""

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.on_change = on_change
        self.busy_lanes = 0
        self.ticks = 0
        self.idle_watchers = 0  # how many wait for idle or quiet

    def make_busy(self, lane: Lane) -> None:
        """`lane` has, or is about to get, something to do."""
        if not lane.busy:
            lane.busy = True
            self.busy_lanes += 1

    def rest(self, lane: Lane) -> None:
        """A call of `lane`, or a reservation, has ended: see whether it is idle now."""
        if lane.busy and not (lane.running or lane.queued or lane.reserved):
            lane.busy = False
            self.busy_lanes -= 1
            if not self.busy_lanes and self.idle_watchers:
                self.on_change()

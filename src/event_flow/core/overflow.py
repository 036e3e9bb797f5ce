"""What is told of lanes that were full: of those that drop, and of those that went over their limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from loguru import logger

from event_flow.core.lane import Lane
from event_flow.core.wording import counted

# A lane that drops a thousand events a second is worth a line a minute.
LOG_WINDOW = 60.0


class Overflows:
    """The lanes of one run that events were dropped from, each with the moment and the count of its last line in the log."""

    def __init__(self) -> None:
        self._told: dict[Lane, tuple[float, int]] = {}
        self.clock: Callable[[], float] = anyio.current_time  # seconds, of the running loop

    def notice(self, lane: Lane) -> None:
        """`lane` was full when an event came: it has dropped one, or went over its limit."""
        if lane.drops:
            now = self.clock()
            before, count = self._told.get(lane, (None, 0))
            if before is None or now - before >= LOG_WINDOW:
                self._told[lane] = now, lane.dropped
                _tell(lane, lane.dropped - count)
            return
        lane.over_limit += 1
        if lane.over_limit == 1:
            logger.bind(app=lane.app, handler=lane.name, queue_size=lane.queue_size).warning(
                "{} goes over queue_size={}: waiting for room would never end; logged once, counted as over_limit",
                lane.name,
                lane.queue_size,
            )

    def summarise(self) -> None:
        """At the end: tell what was dropped since the last line."""
        for lane, (_, count) in self._told.items():
            if lane.dropped > count:
                _tell(lane, lane.dropped - count)


def _tell(lane: Lane, dropped: int) -> None:
    # To be replaced by what is newer is what "latest" is for.
    level = "DEBUG" if lane.overflow == "latest" else "WARNING"
    logger.bind(app=lane.app, handler=lane.name, dropped=dropped, queue_size=lane.queue_size).log(
        level,
        '{} dropped {}: queue_size={}, overflow="{}"; told at most once a minute',
        lane.name,
        counted(dropped, "event"),
        lane.queue_size,
        lane.overflow,
    )

"""What is told of lanes that were full: of those that drop, and of those that went over their limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from loguru import logger

from event_flow.core.lane import Lane
from event_flow.core.log_limit import LogLimit
from event_flow.core.wording import counted


class Overflows:
    """The lanes of one run that events were dropped from, each with the number that was told of in the log."""

    def __init__(self) -> None:
        self._told: dict[Lane, int] = {}
        self._limits: dict[Lane, LogLimit] = {}
        self.clock: Callable[[], float] = anyio.current_time  # seconds, of the running loop

    def notice(self, lane: Lane) -> None:
        """`lane` was full when an event came: it has dropped one, or went over its limit."""
        if lane.drops:
            limit = self._limits.setdefault(lane, LogLimit(1))
            may_log, _ = limit.count(self.clock())
            if may_log:
                self._tell(lane)
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
        for lane, limit in self._limits.items():
            if limit.skipped:
                self._tell(lane)

    def _tell(self, lane: Lane) -> None:
        dropped = lane.dropped - self._told.get(lane, 0)
        self._told[lane] = lane.dropped
        logger.bind(app=lane.app, handler=lane.name, dropped=dropped, queue_size=lane.queue_size).warning(
            '{} dropped {}: queue_size={}, overflow="{}"; told at most once a minute',
            lane.name,
            counted(dropped, "event"),
            lane.queue_size,
            lane.overflow,
        )

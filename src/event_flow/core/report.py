"""Numbers: `statistics()` of a running engine and the report of one that has ended. They count deliveries.

A delivery is one event for one handler: an event that three handlers want is three deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from event_flow.core.state import EngineState
from event_flow.core.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatistics:
    """One handler since the engine's start, in deliveries.

    `queued` wait for the handler, `running` are in its call at work; those of a call that has returned are `handled`,
    that were given up `failed`, those that `overflow` took out of a full queue `dropped`, and what the end of the engine
    cut off is `abandoned`. `accepted` is the sum of all these. What waits for another attempt is queued, and `retried` counts
    each time that an event was tried again. `batches` counts the calls, `largest_batch` is the longest list. `paused` is
    whether the handler gets nothing until it is resumed.
    `over_limit` counts events taken beyond `queue_size` because waiting for room would have been a deadlock, or for ever: a
    publish to several lanes that others keep full is moved from one to the next only so often.
    """

    paused: bool
    queued: int
    running: int
    accepted: int
    handled: int
    failed: int
    dropped: int
    abandoned: int
    batches: int
    largest_batch: int
    retried: int
    over_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatistics:
    """One schedule since the engine's start: `ticks` were begun, `failed` of them raised.

    `missed` ticks were due while the one before still ran.
    """

    ticks: int
    missed: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """The whole engine since its start: sums over its handlers, `largest_batch` the largest of all.

    `backlog` events were published before the handlers run and are not routed yet; `unhandled` events had no handler, and
    `filtered` ones were dropped by a filter. `handlers` and `schedules` map names like `"App.method"` to their own statistics.
    """

    state: EngineState
    backlog: int
    unhandled: int
    filtered: int
    queued: int
    running: int
    accepted: int
    handled: int
    failed: int
    dropped: int
    abandoned: int
    batches: int
    largest_batch: int
    retried: int
    over_limit: int
    handlers: Mapping[str, HandlerStatistics]
    schedules: Mapping[str, ScheduleStatistics]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownReport:
    """What became of every delivery: `accepted == handled + failed + dropped + abandoned`.

    A delivery is `handled` if the call it was in has returned, `failed` if it was given up, `dropped` if its handler's
    queue was full and `overflow` says so, and `abandoned` if it was still queued, at work or between two attempts when the
    time was over. `abandoned_events` says what was abandoned: handler → event class → count. `unhandled` events had no
    handler, `filtered` ones were dropped by a filter; they are in no other number. `tasks_left` and `threads_left` name what
    still ran when its time was over.
    """

    accepted: int
    handled: int
    failed: int
    dropped: int
    abandoned: int
    unhandled: int
    filtered: int
    abandoned_events: Mapping[str, Mapping[str, int]]
    tasks_left: tuple[str, ...]
    threads_left: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Nothing was abandoned and nothing left behind. A failed delivery does not count."""
        return not (self.abandoned or self.tasks_left or self.threads_left)

    def __str__(self) -> str:
        lines = [
            f"{counted(self.accepted, 'delivery', 'deliveries')}: {self.handled:,} handled, {self.failed:,} failed, "
            f"{self.dropped:,} dropped, {self.abandoned:,} abandoned"
        ]
        for handler, classes in sorted(self.abandoned_events.items()):
            listed = ", ".join(f"{count:,} {name}" for name, count in sorted(classes.items()))
            lines.append(f"  abandoned by {handler}: {listed}")
        if self.unhandled:
            lines.append(f"  {counted(self.unhandled, 'event')} that no handler wants")
        if self.filtered:
            lines.append(f"  {counted(self.filtered, 'event')} that a filter dropped")
        if self.tasks_left:
            lines.append(f"  tasks that did not end in time: {', '.join(self.tasks_left)}")
        if self.threads_left:
            lines.append(f"  threads left running: {', '.join(self.threads_left)}")
        return "\n".join(lines)

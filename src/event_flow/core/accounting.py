"""Reads the numbers of a run off its lanes and schedules: while it runs, and after its end."""

from __future__ import annotations

from collections.abc import Iterable

from event_flow.core.branch import Branch
from event_flow.core.bus import Bus
from event_flow.core.lane import Lane
from event_flow.core.report import EngineStatistics, HandlerStatistics, ScheduleStatistics, ShutdownReport


def handler_statistics(lane: Lane) -> HandlerStatistics:
    """Those of one handler as they are now."""
    return HandlerStatistics(
        paused=lane.is_paused,
        queued=lane.queued,
        running=lane.running,
        accepted=lane.accepted,
        handled=lane.handled,
        failed=lane.failed,
        dropped=lane.dropped,
        abandoned=lane.abandoned.total(),
        batches=lane.batches,
        largest_batch=lane.largest_batch,
        retried=lane.retried,
        over_limit=lane.over_limit,
    )


def statistics(bus: Bus, branches: Iterable[Branch]) -> EngineStatistics:
    """The numbers as they are now."""
    handlers = {lane.name: handler_statistics(lane) for lane in bus.router.lanes}
    each = handlers.values()
    return EngineStatistics(
        state=bus.state,
        backlog=len(bus.backlog),
        unhandled=bus.unhandled,
        filtered=bus.filters.dropped,
        queued=sum(handler.queued for handler in each),
        running=sum(handler.running for handler in each),
        accepted=sum(handler.accepted for handler in each),
        handled=sum(handler.handled for handler in each),
        failed=sum(handler.failed for handler in each),
        dropped=sum(handler.dropped for handler in each),
        abandoned=sum(handler.abandoned for handler in each),
        batches=sum(handler.batches for handler in each),
        largest_batch=max((handler.largest_batch for handler in each), default=0),
        retried=sum(handler.retried for handler in each),
        over_limit=sum(handler.over_limit for handler in each),
        handlers=handlers,
        schedules={
            schedule.name: ScheduleStatistics(
                ticks=schedule.ticks, missed=schedule.missed, failed=schedule.failed
            )
            for branch in branches
            for schedule in branch.schedules
        },
    )


def report(bus: Bus, tasks_left: Iterable[str], threads_left: Iterable[str]) -> ShutdownReport:
    """The numbers after the end."""
    lanes = bus.router.lanes
    accepted = sum(lane.accepted for lane in lanes)
    handled = sum(lane.handled for lane in lanes)
    failed = sum(lane.failed for lane in lanes)
    dropped = sum(lane.dropped for lane in lanes)
    return ShutdownReport(
        accepted=accepted,
        handled=handled,
        failed=failed,
        dropped=dropped,
        abandoned=accepted - handled - failed - dropped,
        unhandled=bus.unhandled,
        filtered=bus.filters.dropped,
        abandoned_events={lane.name: dict(lane.abandoned) for lane in lanes if lane.abandoned},
        tasks_left=tuple(tasks_left),
        threads_left=tuple(threads_left),
    )

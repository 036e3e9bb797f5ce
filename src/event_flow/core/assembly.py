"""Builds the branches of a run from what was added to the engine, and reads its numbers off them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from event_flow.core.annotation import EventClasses
from event_flow.core.branch import Branch
from event_flow.core.bus import Bus
from event_flow.core.declaration import declarations_of
from event_flow.core.membership import Node
from event_flow.core.report import EngineStatistics, HandlerStatistics, ScheduleStatistics, ShutdownReport
from event_flow.core.run import Run

FUNCTIONS = "engine"


class Names:
    """Gives every name once: the second "App" becomes "App#2"."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._asked: Counter[str] = Counter()

    def give(self, name: str) -> str:
        given = name
        while given in self._given:  # again, where somebody is called "App#2" himself
            self._asked[name] += 1
            given = f"{name}#{self._asked[name] + 1}"
        self._given.add(given)
        return given


def grow(
    apps: Iterable[Node], functions: Collection[tuple[Callable[..., Any], EventClasses]], run: Run
) -> list[Branch]:
    """One branch for each application, in the order of the start: plain functions first, parents before children."""
    names = Names()
    branches: list[Branch] = []
    if functions:
        branch = Branch(names.give(FUNCTIONS), None, run)
        in_branch = Names()
        for function, events in functions:
            branch.add_handler(in_branch.give(name_of(function)), function, events)
        branches.append(branch)

    def add(app: Node, parent: Branch | None) -> None:
        branch = Branch(names.give(app.name or type(app).__name__), parent, run)
        branch.before_start, branch.exit = app._overridden("before_start"), app._overridden("exit")
        branch.add_declared(declarations_of(type(app)), app)
        branches.append(branch)
        for child in app._sub_apps:
            add(child, branch)

    for app in apps:
        add(app, None)
    return branches


def name_of(function: Any) -> str:
    """What to call a function, partial or callable object."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", type(function).__name__))


def statistics(bus: Bus, branches: Iterable[Branch]) -> EngineStatistics:
    """The numbers as they are now."""
    handlers = {
        lane.name: HandlerStatistics(
            queued=lane.queued,
            running=lane.running,
            accepted=lane.accepted,
            handled=lane.handled,
            failed=lane.failed,
            dropped=lane.dropped,
            batches=lane.batches,
            largest_batch=lane.largest_batch,
            over_limit=lane.over_limit,
        )
        for lane in bus.router.lanes
    }
    each = handlers.values()
    return EngineStatistics(
        state=bus.state,
        backlog=len(bus.backlog),
        unhandled=bus.unhandled,
        queued=sum(handler.queued for handler in each),
        running=sum(handler.running for handler in each),
        accepted=sum(handler.accepted for handler in each),
        handled=sum(handler.handled for handler in each),
        failed=sum(handler.failed for handler in each),
        dropped=sum(handler.dropped for handler in each),
        batches=sum(handler.batches for handler in each),
        largest_batch=max((handler.largest_batch for handler in each), default=0),
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
        abandoned_events={lane.name: dict(lane.abandoned) for lane in lanes if lane.abandoned},
        tasks_left=tuple(tasks_left),
        threads_left=tuple(threads_left),
    )

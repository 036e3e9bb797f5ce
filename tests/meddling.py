"""Middleware and filters of the traffic, which get into the way of its events as they were told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from plans import Around, Filter
from publishing import Publishing
from records import Call, Green, Thing

from event_flow import Batch, EngineState, Event, ExceptionEvent

# How often a piece of middleware fails, so that every program ends.
MOST_FAILURES = 4

CallNext = Callable[[Batch[Any]], Awaitable[None]]

# The attempt that is under way, where the outermost middleware has written it down.
under_way: ContextVar[Call | None] = ContextVar("under_way", default=None)


def middleware_that(around: Around) -> Callable[[Batch[Any], CallNext], Awaitable[None]]:
    """A new one; it counts its calls."""
    calls = 0

    async def act(batch: Batch[Any], call_next: CallNext) -> None:
        nonlocal calls
        calls += 1
        call = under_way.get()
        assert call is not None
        is_second = calls % 2 == 0
        fails = is_second and calls <= 2 * MOST_FAILURES
        if around is Around.SKIPS and is_second:
            return
        if around is Around.FAILS_BEFORE and fails:
            raise ValueError
        if around is Around.SHORTENS and len(batch) > 1:
            del batch.events[-1]
        if around is Around.REPLACES and len(batch) > 1:
            batch = Batch(batch.events[:-1], key=batch.key, attempt=batch.attempt)
        call.passed = batch.events[:]
        await call_next(batch)
        if around is Around.FAILS_AFTER and fails:
            raise ValueError

    return act


def filter_that(filtering: Filter, traffic: Publishing) -> Callable[[Event[Any]], Event[Any] | None]:
    """A new one, which writes into the ledger what it does."""
    letters = 0

    def accept(event: Event[Any]) -> Event[Any] | None:
        nonlocal letters
        if isinstance(event, ExceptionEvent):
            letters += 1
            if filtering is Filter.REPLACES or letters % 2:
                return event
            traffic.ledger.filtered += 1
            traffic.ledger.filtered_letters += 1
            return None
        if not isinstance(event, Thing) or event.data.serial % 3:
            return event
        if filtering is Filter.DROPS:
            event.data.is_filtered = True
            traffic.ledger.filtered += traffic.engine.state is not EngineState.STOPPED  # else nobody counts
            return None
        other = Green(event.data)
        event.data.routed = Green
        if traffic.ledger.publications.pop(event, None) is not None:  # else it comes after the run
            traffic.ledger.publications[other] = event.data
        return other

    return accept

"""What an exception that leaves user code means: the code's own failure, the engine's cancellation, or nobody's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import anyio

from event_flow.core.event import Event
from event_flow.core.exception import BatchFailed, UnexpectedCancellation

ErrorT = TypeVar("ErrorT", bound=BaseException)
Failure = tuple[Event[Any], Exception]


def is_cancelled_by_scope() -> bool:
    """Whether a scope around the current task is cancelled."""
    return anyio.current_effective_deadline() == -math.inf


def what_happened(exc: BaseException, name: str) -> BaseException | None:
    """The exception that user code really ended with; None if it is the cancellation of a scope around the task.

    A cancellation that nobody asked for (user code awaited a cancelled future) becomes an `UnexpectedCancellation`;
    a `SystemExit` or `KeyboardInterrupt` inside a group is taken out of it.
    """
    cancelled_class = anyio.get_cancelled_exc_class()
    if isinstance(exc, BaseExceptionGroup):
        fatal, _ = exc.split((KeyboardInterrupt, SystemExit))
        if fatal is not None:
            return _first_leaf(fatal)
        cancelled, others = exc.split(cancelled_class)
        if cancelled is None:
            others = exc  # split() makes another group even of one that it leaves whole
        if others is not None:
            return others if isinstance(others, Exception) else _first_leaf(others)
    elif not isinstance(exc, cancelled_class):
        return exc
    if is_cancelled_by_scope():
        return None
    unexpected = UnexpectedCancellation(
        f"{name} was cancelled although nobody asked for it: it awaited something cancelled"
    )
    unexpected.__cause__ = exc
    return unexpected


def failures_of(error: Exception, events: Sequence[Event[Any]]) -> list[Failure]:
    """Which of the events failed, and with what. All of them with `error`, unless that says otherwise of events among them."""
    said = named_failures(error)
    if said is not None:
        named = {id(event): failure for event, failure in said}
        failures = [(event, named[id(event)]) for event in events if id(event) in named]
        if len({id(event) for event, _ in failures}) == len(named):
            return failures
    return [(event, error) for event in events]


def named_failures(error: Exception) -> list[Failure] | None:
    """What a `BatchFailed` says of events; None for any other error, and for one that names none.

    For a group of them, too: the task group that raised it has cancelled its other tasks, and nobody knows what these had
    not done yet.
    """
    return list(error.failures) or None if isinstance(error, BatchFailed) else None


def error_of(failures: Sequence[Failure]) -> Exception:
    """The one exception that all of them failed with, or one that says which event failed with which."""
    if len({id(error) for _, error in failures}) == 1:
        return failures[0][1]
    return BatchFailed(failures)


def events_of(failures: Sequence[Failure]) -> list[Event[Any]]:
    """The events that failed."""
    return [event for event, _ in failures]


def leaves(errors: Iterable[ErrorT]) -> Iterator[ErrorT]:
    """The exceptions, and in place of groups what is in them."""
    for error in errors:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error.exceptions)  # type: ignore[misc]  # a group of Exceptions holds only such
        else:
            yield error


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    return next(leaves(group.exceptions))

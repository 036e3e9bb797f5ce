"""Marks: `@on_event`, `@schedule` (also called `@timer`) and `@task`.

A decorator attaches a record to the function and returns the function itself, so that it stays what it was: one
may call it, override it, test it. The records are collected when the class is made (`declaration`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from event_flow.core.event import Event
from event_flow.core.exception import DeclarationError
from event_flow.core.options import seconds
from event_flow.core.wording import safe_repr

if TYPE_CHECKING:
    from typing import Unpack

    from event_flow.core.fitting import E1, E2, E3, E4, MethodDecorator, Options

__all__ = ["on_event", "schedule", "task", "timer"]

# With `self`, or static.
FunctionT = TypeVar(
    "FunctionT", bound=Callable[[Any], object] | Callable[[], object] | functools.partialmethod[Any]
)

# A dunder name, because mocks and proxies answer to every other one.
MARKS = "__event_flow_marks__"


# Not dataclasses: to make one takes longer than to import most of the modules here.
class HandlerMark:
    """The function is a handler of these event classes and their subclasses. Its options are checked when it has a name."""

    def __init__(self, *, events: tuple[type[Event[Any]], ...], options: dict[str, Any]) -> None:
        self.events = events
        self.options = options


class ScheduleMark:
    """The function runs every `interval` seconds, for the first time at the start or one interval later."""

    def __init__(self, *, interval: float, run_at_once: bool) -> None:
        self.interval = interval
        self.run_at_once = run_at_once


class TaskMark:
    """The function runs once, from the start on, beside the handlers."""


Mark = HandlerMark | ScheduleMark | TaskMark


def marks_of(function: object) -> tuple[Mark, ...]:
    """The marks a function carries, in the order in which they were attached."""
    inner = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    marks = getattr(inner, MARKS, ())
    return marks if isinstance(marks, tuple) else ()


# One by one, because a checker makes one base class of `*events: type[E]` where a union is meant. Beyond four it is not told.
@overload
def on_event(event: type[E1], /, **options: Unpack[Options[E1]]) -> MethodDecorator[E1]: ...
@overload
def on_event(
    event: type[E1], event2: type[E2], /, **options: Unpack[Options[E1 | E2]]
) -> MethodDecorator[E1 | E2]: ...
@overload
def on_event(
    event: type[E1], event2: type[E2], event3: type[E3], /, **options: Unpack[Options[E1 | E2 | E3]]
) -> MethodDecorator[E1 | E2 | E3]: ...
@overload
def on_event(
    event: type[E1],
    event2: type[E2],
    event3: type[E3],
    event4: type[E4],
    /,
    **options: Unpack[Options[E1 | E2 | E3 | E4]],
) -> MethodDecorator[E1 | E2 | E3 | E4]: ...
@overload
def on_event(
    event: type[Event[Any]],
    event2: type[Event[Any]],
    event3: type[Event[Any]],
    event4: type[Event[Any]],
    event5: type[Event[Any]],
    /,
    *events: type[Event[Any]],
    **options: Unpack[Options[Any]],
) -> MethodDecorator[Any]: ...
def on_event(*events: type[Event[Any]], **options: Any) -> MethodDecorator[Any]:
    """Mark a method as a handler of one or several event classes, their subclasses included.

    The method takes one list of events, or one `Batch`, and is sync (it runs in a thread) or async. It gets the events of all
    its classes mixed, in the order they were published, at most `max_batch` at a time, each call a list or batch of its own.
    Stacked decorators add up. All calls of an async method share one context (with `concurrency`, those of one worker): a
    `ContextVar` that one sets the next one sees; a sync one has a copy for each call, and not always the same thread.

    Options, all keyword-only; times are seconds or a `timedelta`:

    - `max_batch`: most events in a batch; at least 1. Default: the engine's.
    - `queue_size`: events that may wait for this handler; at least 1. Default: the engine's.
    - `linger`: longest time that a batch waits for company while it is not full; at least 0, finite. Default: 0.
    - `key`: what a batch has in common: a sync function of one event, or a str that names an entry of its `data`. Events
      with equal keys stay in order and are never handled at once. Default: None, a batch is whatever comes next.
    - `concurrency`: most batches of this handler at work at once; at least 1. Default: 1.
    - `overflow`: what becomes of an event that finds the queue full: `"wait"` (its publisher waits for room),
      `"drop_oldest"`, `"drop_newest"`, `"latest"` (it takes the place of the one of its key that waits, also while there is
      room; if none of its key waits, as `"drop_oldest"`), `"error"` (its publisher gets `LaneFull`). Default: `"wait"`.
    - `rate`: a `Rate`, how many events may go into the handler in which time. Default: None, no limit.
    - `timeout`: longest time of one call, which then fails with `HandlerTimeout`; above 0, finite. An async call is cancelled,
      the end of a sync one is waited for all the same. Default: None, no limit.
    - `retry`: a `Retry`, which failures are tried again, how often and after what wait. Default: None, none is.
    - `isolate`: whether the events of a failed batch are tried one by one, so that only what fails alone has failed.
      Default: False.
    - `on_failure`: a dict from Exception classes to what becomes of events that failed so: `"dead_letter"` (an
      `ExceptionEvent`), `"discard"`, `"pause"` (the handler), `"stop"` (the engine). Default: `{}`, all are dead letters.

    Stacked decorators may share the options among them; each may stand in one of them only. An override without
    decorators keeps them; one with decorators begins anew. Raises `DeclarationError` if no class is given, or something
    that is no event class. When the application class is made: `DeclarationError` for an option that there is not, or that
    stands in two decorators, `OptionError` (a `ValueError`) for a value that is not allowed; both name class and method.
    """
    classes = event_classes(events, "@on_event")

    return lambda function: _attach(function, HandlerMark(events=classes, options=options))


def schedule(interval: float | timedelta, *, run_at_once: bool = True) -> Callable[[FunctionT], FunctionT]:
    """Mark a method, sync (it runs in a thread) or async, to run every `interval` seconds (finite, above 0; or a `timedelta`).

    It runs on the grid `start + k * interval` and does not drift; the first time at the start, or with
    `run_at_once=False` one interval later. It never overlaps itself: ticks missed meanwhile become one, which runs at
    once, and are counted. A failing run becomes an `ExceptionEvent` and the schedule goes on. From `stop()` on none
    begins; one at work has the grace period to end. Raises `OptionError` for another interval, `DeclarationError`
    when used without brackets.
    """
    if _is_callable(interval):
        raise DeclarationError(
            f"@schedule on {_name(interval)} needs an interval: write @schedule(interval=60)"
        )
    if not isinstance(run_at_once, bool):
        raise DeclarationError(f"run_at_once={run_at_once!r}: True or False is allowed")
    mark = ScheduleMark(interval=seconds("interval", interval), run_at_once=run_at_once)
    return lambda function: _attach(function, mark)


timer = schedule


@overload
def task(function: FunctionT, /) -> FunctionT: ...
@overload
def task() -> Callable[[FunctionT], FunctionT]: ...
def task(function: Any = None, /) -> Any:
    """Mark a method as a background task: it runs from the start until it returns or the engine ends.

    `@task` and `@task()` are the same. An async task is cancelled at the end, after the drain; a sync one has a
    thread of its own, which cannot be cancelled: if it still runs then, it is named in the shutdown report and left.
    A failing task becomes an `ExceptionEvent`, and its application goes on.
    """
    if function is None:
        return lambda marked: _attach(marked, TaskMark())
    return _attach(function, TaskMark())


def event_classes(events: tuple[object, ...], where: str) -> tuple[type[Event[Any]], ...]:
    """The event classes among the arguments of `where`, without their type parameters; at least one, nothing else."""
    if not events:
        raise DeclarationError(f"{where} needs at least one event class: write {where}(MyEvent)")
    return tuple(_event_class(event, where) for event in events)


def _event_class(event: Any, where: str) -> type[Event[Any]]:
    plain = getattr(event, "__origin__", event)
    if isinstance(plain, type) and issubclass(plain, Event):
        return plain
    if _is_callable(event) and not isinstance(plain, type):
        raise DeclarationError(f"{where} on {_name(event)} needs an event class: write {where}(MyEvent)")
    raise DeclarationError(f"{where} takes subclasses of Event, not {safe_repr(event)}")


def _attach(function: Any, mark: Mark) -> Any:
    if not _is_callable(function):
        raise DeclarationError(
            f"{safe_repr(function)} cannot be marked: only something that can be called can"
        )
    inner = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    try:
        setattr(inner, MARKS, (*marks_of(inner), mark))
    except AttributeError as exc:
        raise DeclarationError(f"{function!r} cannot be marked: it takes no attributes") from exc
    return function


def _is_callable(value: object) -> bool:
    """What stands below a decorator in a class: functions, and what wraps them until they are looked up."""
    return callable(value) or isinstance(value, staticmethod | classmethod | functools.partialmethod)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or safe_repr(function))

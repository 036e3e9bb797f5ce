"""What a class declares: its handlers, schedules and tasks, found over the whole MRO.

The rules, name by name:

1. The attribute that Python would find decides: `None`, or anything that cannot be called, is no declaration.
2. The first marks found along the MRO are the declaration; so an override without marks of its own stays what it replaces.
3. Without marks, a name that begins with `on_` is a handler if its one parameter is annotated `list[E]`, `list[A | B]`
   or `list[Event]`; an override without an annotation takes the annotation of what it replaces. Any other annotation, or
   none, makes it an ordinary method.

Annotations are resolved when the class is made (`annotation`); what cannot be resolved yet is tried again when the
application is added (`declarations_of`), and is an error then.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from event_flow.core.annotation import (
    EventClasses,
    Signature,
    UnresolvedError,
    frames_around,
    running_functions,
)
from event_flow.core.decorators import HandlerMark, Mark, ScheduleMark, marks_of
from event_flow.core.exception import DeclarationError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Declarations:
    """Names of methods and what they are, in the order in which the names first appear, base classes first."""

    def __init__(self) -> None:
        self.handlers: dict[str, EventClasses] = {}
        self.schedules: dict[str, ScheduleMark] = {}
        self.tasks: list[str] = []
        # Methods named `on_*` that take one event where a handler takes a list.
        self.near_misses: list[str] = []


class DeclaringMeta(ABCMeta):
    """Collects the declarations of a class when it is made. An `ABCMeta`, so that abstract mixins may be mixed in."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        here = inspect.currentframe()
        frames = tuple(running_functions(here and here.f_back))
        del here  # it would refer to itself
        try:
            cls._declarations: Declarations | Sequence[FrameType] = _collect(cls, frames)
        except UnresolvedError:
            # Kept until the application is added: a name that a function around it defines later is found then.
            cls._declarations = _frames_needed(cls, frames)


def declarations_of(cls: type) -> Declarations:
    """What an application class declares.

    Raises `DeclarationError` that names class, method and annotation if one cannot be resolved.
    """
    assert isinstance(cls, DeclaringMeta)
    try:
        return _declarations_of(cls)
    except UnresolvedError as exc:
        raise DeclarationError(str(exc)) from exc.__cause__


def method_of(application: object, name: str) -> Any:
    """What is called for a declared `name`. A partial is called as it stands, on every Python: from 3.14 on it is a method."""
    raw = inspect.getattr_static(application, name)
    return raw if isinstance(raw, functools.partial) else getattr(application, name)


def _declarations_of(cls: DeclaringMeta) -> Declarations:
    if not isinstance(cls._declarations, Declarations):
        cls._declarations = _collect(cls, cls._declarations)
    return cls._declarations


def _collect(cls: type, frames: Sequence[FrameType]) -> Declarations:
    found = Declarations()
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        marks = _marks(cls, name)
        if not marks:
            if not name.startswith("on_"):
                continue
            events, is_near_miss = _convention(cls, name, frames)
            if events:
                found.handlers[name] = events
            elif is_near_miss:
                found.near_misses.append(name)
        elif len({type(mark) for mark in marks}) > 1:
            raise DeclarationError(f"{cls.__name__}.{name} has marks of two kinds: it can be one thing only")
        elif isinstance(marks[0], HandlerMark):
            listed = (
                event for mark in reversed(marks) if isinstance(mark, HandlerMark) for event in mark.events
            )
            found.handlers[name] = tuple(dict.fromkeys(listed))
        elif len(marks) > 1:
            raise DeclarationError(f"{cls.__name__}.{name} is marked twice: once is meant")
        elif isinstance(marks[0], ScheduleMark):
            found.schedules[name] = marks[0]
        else:
            found.tasks.append(name)
    return found


def _definitions(cls: type, name: str) -> Iterator[tuple[type, Any]]:
    """What `name` is in each class of the MRO that defines it, with the class, until one takes it away."""
    for base in cls.__mro__:
        if name in vars(base):
            raw = vars(base)[name]
            if not (callable(raw) or isinstance(raw, staticmethod | classmethod | functools.partialmethod)):
                return
            yield base, raw


def _marks(cls: type, name: str) -> tuple[Mark, ...]:
    return next((marks for _, raw in _definitions(cls, name) if (marks := marks_of(raw))), ())


def _convention(cls: type, name: str, frames: Sequence[FrameType]) -> tuple[EventClasses | None, bool]:
    """The event classes that the one parameter lists, if it does; and whether it takes one event where a list is meant."""
    for owner, raw in _definitions(cls, name):
        base = _declarations_of_a_base(cls, name, raw)
        if base is not None:
            return base.handlers.get(name), name in base.near_misses
        parameter, function = _parameter(raw)
        if parameter is None:
            break
        if parameter.annotation is not inspect.Parameter.empty:
            signature = Signature(f"{cls.__name__}.{name}", function, owner, frames)
            return signature.listed_events(parameter.annotation), bool(signature.events(parameter.annotation))
    return None, False


def _declarations_of_a_base(cls: type, name: str, raw: Any) -> Declarations | None:
    """Those of a base class that has the same definition, and knew the names around its own class statement."""
    for base in cls.__mro__[1:]:
        if isinstance(base, DeclaringMeta) and next(_definitions(base, name), (None, None))[1] is raw:
            try:
                return _declarations_of(base)
            except UnresolvedError:
                continue
    return None


def _frames_needed(cls: type, frames: Sequence[FrameType]) -> Sequence[FrameType]:
    functions = [
        _innermost(_target(raw)[0])
        for name in dir(cls)
        if name.startswith("on_")
        for _, raw in _definitions(cls, name)
    ]
    needed = {frame for each in functions for frame in frames_around(each, frames)}
    return tuple(frame for frame in frames if frame in needed)


def _parameter(raw: Any) -> tuple[inspect.Parameter | None, Callable[..., Any]]:
    """The one parameter that one argument would fill, None if one is too many or too few; and the function that declares it."""
    target, bound = _target(raw)
    function = _innermost(target)
    if isinstance(target, type):
        return None, function
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None, function
    except NameError as exc:  # Python 3.14 evaluates annotations only now
        raise UnresolvedError(f"the annotations of {function!r} cannot be resolved: {exc}") from exc
    named = [each for each in parameters[1 if bound else 0 :] if each.kind not in VARIABLE]
    needed = [each for each in named if each.default is inspect.Parameter.empty]
    first = next((each for each in named if each.kind in POSITIONAL), None)
    fits = needed in ([], [first])
    return first if fits else None, function


def _target(raw: Any) -> tuple[Any, bool]:
    """What is called for a class attribute, and whether its first parameter is filled when it is looked up."""
    if isinstance(raw, staticmethod):
        return raw.__func__, False
    if isinstance(raw, classmethod):
        return raw.__func__, True
    if isinstance(raw, functools.partial):  # before the routines: from Python 3.14 on it looks like one
        return raw, False
    if isinstance(raw, functools.partialmethod):
        return functools.partial(
            raw.func, None, *raw.args, **raw.keywords
        ), False  # None stands for the instance
    if inspect.isroutine(raw):
        return raw, not inspect.isbuiltin(raw)
    return raw, False  # an object that can be called


def _innermost(target: Any) -> Any:
    """The function whose source has the annotation."""
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__

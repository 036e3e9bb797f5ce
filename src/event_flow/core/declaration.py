"""What a class declares: its handlers, schedules and tasks, found over the whole MRO.

The rules, name by name:

1. The attribute that Python would find decides: `None`, or anything that cannot be called, is no declaration.
2. The first marks found along the MRO are the declaration; so an override without marks of its own stays what it replaces.
3. Without marks, a name that begins with `on_` is a handler if its one parameter is annotated `list[E]`, `list[A | B]`,
   `list[Event]`, or the same with `Batch`. Any other annotation, or none, makes it an ordinary method.
4. A handler takes a `Batch` if its one parameter is annotated so, and a list if not.
5. An override without an annotation takes the annotation of what it replaces.

Marks and their options are checked when the class is made, before any annotation. Annotations are resolved then too
(`annotation`); what cannot be resolved yet is tried again when the application is added (`declarations_of`). Then it is an
error, but for a marked handler, whose annotation says only what it takes: a list, unless it reads `Batch`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from event_flow.core.annotation import (
    Signature,
    UnresolvedError,
    frames_around,
    running_functions,
)
from event_flow.core.decorators import HandlerMark, Mark, ScheduleMark, TaskMark, marks_of
from event_flow.core.exception import DeclarationError
from event_flow.core.handler_options import HandlerDeclaration, HandlerOptions, merged
from event_flow.core.parameter import Parameters, innermost, of_attribute


class Declarations:
    """Names of methods and what they are, in the order in which the names first appear, base classes first."""

    def __init__(self) -> None:
        self.handlers: dict[str, HandlerDeclaration] = {}
        self.schedules: dict[str, ScheduleMark] = {}
        self.tasks: list[str] = []
        # Methods named `on_*` that take one event where a handler takes a list, or a `Batch` that says of nothing.
        self.near_misses: list[str] = []


class DeclaringMeta(ABCMeta):
    """Collects the declarations of a class when it is made. An `ABCMeta`, so that abstract mixins may be mixed in."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        here = inspect.currentframe()
        frames = tuple(running_functions(here and here.f_back))
        del here  # it would refer to itself
        try:
            cls._declarations: Declarations | Sequence[FrameType] = _collect(cls, frames, may_wait=True)
        except UnresolvedError:
            # Kept until the application is added: a name that a function around it defines later is found then.
            cls._declarations = _frames_needed(cls, frames)


def declarations_of(cls: type) -> Declarations:
    """What an application class declares.

    Raises `DeclarationError` that names class, method and annotation if one cannot be resolved.
    """
    assert isinstance(cls, DeclaringMeta)
    try:
        return _declarations_of(cls, may_wait=False)
    except UnresolvedError as exc:
        raise DeclarationError(str(exc)) from exc.__cause__


def takes_batch(function: Any, where: str) -> bool:
    """Whether a plain function, the handler `where`, takes a `Batch`. Local names of the functions that call this are known.

    Raises `DeclarationError` if its annotation says `Batch`, and that cannot be resolved.
    """
    parameters = Parameters(function)
    annotation = parameters.annotation_of_first
    if annotation is inspect.Parameter.empty:
        return False
    here = inspect.currentframe()
    frames = tuple(running_functions(here and here.f_back))
    del here  # it would refer to itself
    try:
        return Signature(where, parameters.function, _owner(function), frames).takes_batch(annotation)
    except UnresolvedError as exc:
        raise DeclarationError(str(exc)) from exc.__cause__


def method_of(application: object, name: str) -> Any:
    """What is called for a declared `name`. A partial is called as it stands, on every Python: from 3.14 on it is a method."""
    raw = inspect.getattr_static(application, name)
    return raw if isinstance(raw, functools.partial) else getattr(application, name)


def _declarations_of(cls: DeclaringMeta, *, may_wait: bool) -> Declarations:
    if not isinstance(cls._declarations, Declarations):
        cls._declarations = _collect(cls, cls._declarations, may_wait=may_wait)
    return cls._declarations


def _collect(cls: type, frames: Sequence[FrameType], *, may_wait: bool) -> Declarations:
    found = Declarations()
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    # All of them before the first annotation: what is wrong with an option does not wait for a name that comes later.
    declared = {name: _marked(cls, name) for name in names}
    for name, what in declared.items():
        if isinstance(what, HandlerDeclaration):
            what.takes_batch = _takes_batch(cls, name, frames, may_wait)
            found.handlers[name] = what
        elif isinstance(what, ScheduleMark):
            found.schedules[name] = what
        elif what is not None:
            found.tasks.append(name)
        elif name.startswith("on_"):
            handler, is_near_miss = _convention(cls, name, frames, may_wait)
            if handler is not None:
                found.handlers[name] = handler
            elif is_near_miss:
                found.near_misses.append(name)
    return found


def _marked(cls: type, name: str) -> HandlerDeclaration | ScheduleMark | TaskMark | None:
    """What the marks of `name` make of it. Raises `DeclarationError` or `OptionError` for marks that cannot be meant so."""
    marks = _marks(cls, name)
    where = f"{cls.__name__}.{name}"
    if len({type(mark) for mark in marks}) > 1:
        raise DeclarationError(f"{where} has marks of two kinds: it can be one thing only")
    # From the top down, as they are read.
    handlers = [mark for mark in reversed(marks) if isinstance(mark, HandlerMark)]
    if handlers:
        events = tuple(dict.fromkeys(event for mark in handlers for event in mark.events))
        return HandlerDeclaration(
            events, HandlerOptions(where, merged(where, (mark.options for mark in handlers)))
        )
    if len(marks) > 1:
        raise DeclarationError(f"{where} is marked twice: once is meant")
    return next((mark for mark in marks if not isinstance(mark, HandlerMark)), None)


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


def _convention(
    cls: type, name: str, frames: Sequence[FrameType], may_wait: bool
) -> tuple[HandlerDeclaration | None, bool]:
    """The handler that the annotation of the one parameter makes, if it does; and whether one was probably meant."""
    where = f"{cls.__name__}.{name}"
    for owner, raw in _definitions(cls, name):
        base = _declarations_of_a_base(cls, name, raw, may_wait)
        if base is not None:
            return base.handlers.get(name), name in base.near_misses
        parameters = of_attribute(raw)
        if parameters.only is None:
            break
        annotation = parameters.only.annotation
        if annotation is not inspect.Parameter.empty:
            signature = Signature(where, parameters.function, owner, frames)
            events, is_batch = signature.listed_events(annotation), signature.takes_batch(annotation)
            if events is None:
                return None, is_batch or bool(signature.events(annotation))
            return HandlerDeclaration(events, HandlerOptions(where, {}), takes_batch=is_batch), False
    return None, False


def _takes_batch(cls: type, name: str, frames: Sequence[FrameType], may_wait: bool) -> bool:
    """Whether the marked handler `name` takes a `Batch`: the first annotation along the MRO decides."""
    for owner, raw in _definitions(cls, name):
        base = _declarations_of_a_base(cls, name, raw, may_wait)
        if base is not None and name in base.handlers:
            return base.handlers[name].takes_batch
        parameters = of_attribute(raw)
        annotation = parameters.annotation_of_first
        if annotation is not inspect.Parameter.empty:
            where = f"{cls.__name__}.{name}"
            signature = Signature(where, parameters.function, owner, frames, may_wait=may_wait)
            return signature.takes_batch(annotation)
    return False


def _declarations_of_a_base(cls: type, name: str, raw: Any, may_wait: bool) -> Declarations | None:
    """Those of a base class that has the same definition, and knew the names around its own class statement."""
    for base in cls.__mro__[1:]:
        if isinstance(base, DeclaringMeta) and next(_definitions(base, name), (None, None))[1] is raw:
            try:
                return _declarations_of(base, may_wait=may_wait)
            except UnresolvedError:
                continue
    return None


def _owner(function: Any) -> type | None:
    """The class in whose body a bound method, or what calls an object, stands; None for any other function."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) and not inspect.ismethod(function):
        return None
    holder = function.__self__ if inspect.ismethod(function) else function
    kind = holder if isinstance(holder, type) else type(holder)
    name = innermost(function).__name__
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _frames_needed(cls: type, frames: Sequence[FrameType]) -> Sequence[FrameType]:
    functions = [
        of_attribute(raw).function
        for name in dir(cls)
        if name.startswith("on_") or _marks(cls, name)
        for _, raw in _definitions(cls, name)
    ]
    needed = {frame for each in functions for frame in frames_around(each, frames)}
    return tuple(frame for frame in frames if frame in needed)

"""What a class declares: its handlers, schedules and tasks, found over the whole MRO.

The rules, name by name:

1. The attribute that Python would find decides: `None`, or anything that cannot be called, is no declaration.
2. The first marks found along the MRO are the declaration; so an override without marks of its own stays what it replaces.
3. Without marks, a name that begins with `on_` is a handler if its one parameter is annotated `list[E]`, `list[A | B]`
   or `list[Event]`; an override without an annotation takes the annotation of what it replaces. Any other annotation, or
   none, makes it an ordinary method.

String annotations are resolved when the class is made, with the names of the function around it; what cannot be resolved
yet is tried again when the application is added (`declarations_of`), and is an error then.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from event_flow.core.decorators import HandlerMark, Mark, ScheduleMark, marks_of
from event_flow.core.event import Event
from event_flow.core.exception import DeclarationError

EventClasses = tuple[type[Event[Any]], ...]


@dataclass(frozen=True, slots=True)
class Declarations:
    """Names of methods and what they are, in the order in which the names first appear, base classes first."""

    handlers: Mapping[str, EventClasses]
    schedules: Mapping[str, ScheduleMark]
    tasks: tuple[str, ...]


class DeclaringMeta(ABCMeta):
    """Collects the declarations of a class when it is made. An `ABCMeta`, so that abstract mixins may be mixed in."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        frame = _class_statement(inspect.currentframe())
        try:
            cls._declarations: Declarations | types.FrameType | None = _collect(cls, frame)
        except _UnresolvedError:
            # Kept until the application is added: a name that its function defines later is found then.
            cls._declarations = frame


def declarations_of(cls: DeclaringMeta) -> Declarations:
    """What `cls` declares. Raises `DeclarationError` that names class, method and annotation if one is unresolvable."""
    if not isinstance(cls._declarations, Declarations):
        cls._declarations = _collect(cls, cls._declarations)
    return cls._declarations


def listed_events(annotation: Any) -> EventClasses | None:
    """The event classes of `list[E]` or `list[A | B]`; None if the annotation is anything else."""
    annotation = getattr(annotation, "__value__", annotation)  # a `type X = ...` statement
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is not list or len(arguments) != 1:
        return None
    element = arguments[0]
    is_union = typing.get_origin(element) in (typing.Union, types.UnionType)
    members = typing.get_args(element) if is_union else (element,)
    classes = tuple(typing.get_origin(member) or member for member in members)
    are_events = all(isinstance(member, type) and issubclass(member, Event) for member in classes)
    return classes if are_events else None


class _UnresolvedError(DeclarationError):
    """An annotation has names that are not known (yet)."""


def _collect(cls: type, frame: types.FrameType | None) -> Declarations:
    handlers: dict[str, EventClasses] = {}
    schedules: dict[str, ScheduleMark] = {}
    tasks: list[str] = []
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        marks = _marks(cls, name)
        if not marks:
            events = _conventional_events(cls, name, frame) if name.startswith("on_") else None
            if events:
                handlers[name] = events
        elif len({type(mark) for mark in marks}) > 1:
            raise DeclarationError(f"{cls.__name__}.{name} has marks of two kinds: it can be one thing only")
        elif isinstance(marks[0], HandlerMark):
            listed = (
                event for mark in reversed(marks) if isinstance(mark, HandlerMark) for event in mark.events
            )
            handlers[name] = tuple(dict.fromkeys(listed))
        elif len(marks) > 1:
            raise DeclarationError(f"{cls.__name__}.{name} is marked twice: once is meant")
        elif isinstance(marks[0], ScheduleMark):
            schedules[name] = marks[0]
        else:
            tasks.append(name)
    return Declarations(handlers, schedules, tuple(tasks))


def _definitions(cls: type, name: str) -> Iterator[Any]:
    """What `name` is in each class of the MRO that defines it, until one takes it away."""
    for base in cls.__mro__:
        if name in vars(base):
            raw = vars(base)[name]
            if not (callable(raw) or isinstance(raw, staticmethod | classmethod | functools.partialmethod)):
                return
            yield raw


def _marks(cls: type, name: str) -> tuple[Mark, ...]:
    return next((marks for raw in _definitions(cls, name) if (marks := marks_of(raw))), ())


def _conventional_events(cls: type, name: str, frame: types.FrameType | None) -> EventClasses | None:
    for raw in _definitions(cls, name):
        inherited = _inherited_events(cls, name, raw)
        if inherited is not None:
            return inherited
        parameter, function = _parameter(raw)
        if parameter is None:
            return None
        if parameter.annotation is not inspect.Parameter.empty:
            resolve = functools.partial(_resolve, cls=cls, name=name, function=function, frame=frame)
            return listed_events(_resolved(parameter.annotation, resolve))
    return None


def _inherited_events(cls: type, name: str, raw: Any) -> EventClasses | None:
    """What a base class, with the names around its own class statement, made of the same definition; () for no handler."""
    for base in cls.__mro__[1:]:
        if isinstance(base, DeclaringMeta) and next(_definitions(base, name), None) is raw:
            try:
                return declarations_of(base).handlers.get(name, ())
            except _UnresolvedError:
                continue
    return None


def _parameter(raw: Any) -> tuple[inspect.Parameter | None, Callable[..., Any]]:
    """The one parameter a caller has to give, None if there is not exactly one; and the function that declares it."""
    target, bound = _target(raw)
    function = _innermost(target)
    if isinstance(target, type):
        return None, function
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None, function
    except NameError as exc:  # Python 3.14 evaluates annotations only now
        raise _UnresolvedError(f"the annotations of {function!r} cannot be resolved: {exc}") from exc
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        parameter
        for parameter in parameters[1 if bound else 0 :]
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    fits = len(needed) == 1 and needed[0].kind in positional
    return needed[0] if fits else None, function


def _target(raw: Any) -> tuple[Any, bool]:
    """What is called for a class attribute, and whether its first parameter is filled when it is looked up."""
    if isinstance(raw, staticmethod):
        return raw.__func__, False
    if isinstance(raw, classmethod):
        return raw.__func__, True
    if isinstance(raw, functools.partialmethod):
        return functools.partial(
            raw.func, None, *raw.args, **raw.keywords
        ), False  # None stands for the instance
    if inspect.isroutine(raw):
        return raw, not inspect.isbuiltin(raw)
    return raw, False  # a partial, or an object that can be called


def _innermost(target: Any) -> Any:
    """The function whose source has the annotation."""
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__


def _resolved(annotation: Any, resolve: Callable[[str], Any]) -> Any:
    """The annotation with every string in it resolved, also those inside `list[...]`."""
    if isinstance(annotation, str):
        return _resolved(resolve(annotation), resolve)
    if isinstance(annotation, typing.ForwardRef):
        return _resolved(annotation.__forward_arg__, resolve)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is list and len(arguments) == 1:
        return list[_resolved(arguments[0], resolve)]  # type: ignore[misc]
    if typing.get_origin(annotation) is typing.Union:
        return typing.Union[tuple(_resolved(member, resolve) for member in arguments)]  # noqa: UP007
    return annotation


def _resolve(text: str, *, cls: type, name: str, function: Any, frame: types.FrameType | None) -> Any:
    names: dict[str, Any] = {}
    inner = inspect.unwrap(function)
    if frame is not None and frame.f_globals is getattr(inner, "__globals__", None):
        names.update(frame.f_locals)
    code = getattr(inner, "__code__", None)
    for variable, cell in zip(
        getattr(code, "co_freevars", ()), getattr(inner, "__closure__", None) or (), strict=False
    ):
        if cell != types.CellType():
            names[variable] = cell.cell_contents
    try:
        # The same evaluation that typing.get_type_hints does, of the user's own source.
        return eval(text, getattr(inner, "__globals__", {}), {**vars(cls), **names})  # noqa: S307
    except Exception as exc:
        raise _UnresolvedError(
            f"{cls.__name__}.{name}: the annotation {text!r} cannot be resolved ({type(exc).__name__}: {exc}); "
            "import or define what it names, or use @on_event"
        ) from exc


def _class_statement(frame: types.FrameType | None) -> types.FrameType | None:
    """The function whose body holds the class statement; None at module level, where globals are enough."""
    while frame is not None and (
        frame.f_code.co_name in ("__init__", "__new__", "__call__")
        or frame.f_globals.get("__name__") in ("dataclasses", "types")  # they make classes for others
    ):
        frame = frame.f_back
    return None if frame is None or frame.f_locals is frame.f_globals else frame

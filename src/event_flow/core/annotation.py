"""Which event classes an annotation lists: `list[E]`, `Batch[A | B]`, also as strings and behind aliases.

A string means what the same text would mean in the function's own signature. Its names are looked for in the body of the
class that holds the function, then in the functions around that, from the inside out, then in its module. A function
around it counts while it runs, and where the inner one has captured the name.

Whether a `Batch` is taken can be told of an annotation whose event classes cannot be resolved: what stands before the
brackets is enough.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

from event_flow.core.batch import Batch
from event_flow.core.event import Event
from event_flow.core.exception import DeclarationError

EventClasses = tuple[type[Event[Any]], ...]

UNIONS = (typing.Union, types.UnionType)
ALIAS_TYPE: Any = getattr(typing, "TypeAliasType", ())  # from Python 3.12 on


class UnresolvedError(DeclarationError):
    """An annotation has names that are not known (yet)."""


class Signature:
    """The annotations of `function`, which stands in the body of `owner`, if of any, and is the handler `where`.

    If it `may_wait`, what cannot be resolved is asked for again later.
    """

    def __init__(
        self,
        where: str,
        function: Any,
        owner: type | None,
        frames: Sequence[FrameType],
        *,
        may_wait: bool = False,
    ) -> None:
        self.where = where
        self.function: Any = inspect.unwrap(function)
        self.owner: type | None = owner
        self.may_wait = may_wait
        self.frames: tuple[FrameType, ...] = frames_around(self.function, frames)

    def listed_events(self, annotation: Any) -> EventClasses | None:
        """The event classes of `list[E]`, `list[A | B]`, or the same with `Batch`; None if the annotation is anything else.

        Raises `UnresolvedError` that names handler and annotation.
        """
        annotation = self._plain(annotation)
        arguments = typing.get_args(annotation)
        if typing.get_origin(annotation) not in (list, Batch) or len(arguments) != 1:
            return None
        return self.events(arguments[0])

    def events(self, annotation: Any) -> EventClasses | None:
        """The event classes of `E` or `A | B`; None if the annotation is anything else."""
        classes = tuple(self._members(annotation))
        are_events = all(isinstance(member, type) and issubclass(member, Event) for member in classes)
        return classes if are_events else None

    def takes_batch(self, annotation: Any) -> bool:
        """Whether it is `Batch`, `Batch[E]`, or a union with one of them; what stands in the brackets need not be known.

        An annotation that cannot be resolved is none. But where it says `Batch`, and while it may wait, that raises
        `UnresolvedError`.
        """
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if isinstance(annotation, str):
            try:
                return self._source_takes_batch(ast.parse(annotation.strip(), mode="eval").body)
            except SyntaxError:
                return False
        origin = typing.get_origin(annotation)
        if isinstance(origin or annotation, ALIAS_TYPE):
            try:
                return self.takes_batch(self._plain(annotation))
            except UnresolvedError:
                if self.may_wait:
                    raise
                return False
        if origin is typing.Annotated:
            return self.takes_batch(typing.get_args(annotation)[0])
        if origin in UNIONS:
            return any(map(self.takes_batch, typing.get_args(annotation)))
        return (origin or annotation) is Batch

    def _source_takes_batch(self, source: ast.expr) -> bool:
        if isinstance(source, ast.Constant):
            return isinstance(source.value, str) and self.takes_batch(source.value)
        if isinstance(source, ast.BinOp):
            return self._source_takes_batch(source.left) or self._source_takes_batch(source.right)
        head = source.value if isinstance(source, ast.Subscript) else source
        text = ast.unparse(head)
        try:
            value = self._evaluated(text)
        except UnresolvedError as exc:
            if text.rpartition(".")[2] != Batch.__name__:
                if self.may_wait:
                    raise
                return False
            raise UnresolvedError(
                f"{self.where}: {text!r} in the annotation of its parameter cannot be resolved ({exc.__cause__}); "
                f"import it, not for type checkers only: that a handler takes a {Batch.__name__} is read there"
            ) from exc.__cause__
        if isinstance(source, ast.Subscript):
            inside = source.slice.elts if isinstance(source.slice, ast.Tuple) else [source.slice]
            if value is typing.Annotated:
                return self._source_takes_batch(inside[0])
            if value is typing.Union or value is typing.Optional:
                return any(map(self._source_takes_batch, inside))
        return self.takes_batch(value)

    def _members(self, element: Any) -> Iterator[Any]:
        element = self._plain(element)
        if typing.get_origin(element) in UNIONS:
            for member in typing.get_args(element):
                yield from self._members(member)
        else:
            yield typing.get_origin(element) or element

    def _plain(self, annotation: Any) -> Any:
        """What is behind a string, or a `type X = ...` statement."""
        if isinstance(annotation, str):
            return self._plain(self._evaluated(annotation))
        if isinstance(annotation, typing.ForwardRef):
            return self._plain(self._evaluated(annotation.__forward_arg__))
        if isinstance(annotation, ALIAS_TYPE):
            return self._plain(self._value_of(annotation))
        origin = typing.get_origin(annotation)
        if isinstance(origin, ALIAS_TYPE):
            return self._plain(self._value_of(origin)[typing.get_args(annotation)])
        return annotation

    def _evaluated(self, text: str) -> Any:
        try:
            # The same evaluation that typing.get_type_hints does, of the user's own source.
            return eval(text, getattr(self.function, "__globals__", {}), self._names())  # noqa: S307
        except Exception as exc:
            raise self._unresolved(text, exc) from exc

    def _value_of(self, alias: Any) -> Any:
        try:
            return alias.__value__
        except Exception as exc:
            raise self._unresolved(str(alias), exc) from exc

    def _unresolved(self, text: str, exc: Exception) -> UnresolvedError:
        return UnresolvedError(
            f"{self.where}: the annotation {text!r} cannot be resolved ({type(exc).__name__}: {exc}); "
            "import or define what it names, not for type checkers only, or use @on_event"
        )

    def _names(self) -> dict[str, Any]:
        """What the function's source sees beside the names of its module."""
        names: dict[str, Any] = {}
        for frame in reversed(self.frames):
            names.update(frame.f_locals)
        captured = getattr(getattr(self.function, "__code__", None), "co_freevars", ())
        for variable, cell in zip(captured, getattr(self.function, "__closure__", None) or (), strict=False):
            if cell != types.CellType():
                names[variable] = cell.cell_contents
        if self.owner is not None:
            names.update(_type_parameters(self.owner))
            names.update(vars(self.owner))
        names.update(_type_parameters(self.function))
        return names


def running_functions(frame: FrameType | None) -> Iterator[FrameType]:
    """`frame` and those it was called from, innermost first; without class bodies and modules."""
    while frame is not None:
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            yield frame
        frame = frame.f_back


def frames_around(function: Any, frames: Sequence[FrameType]) -> tuple[FrameType, ...]:
    """Those of `frames` whose own source has that of `function` inside."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return tuple(frame for frame in frames if code is not None and _holds(frame.f_code, code))


def _holds(code: CodeType, inner: CodeType) -> bool:
    """Whether the source of `inner` stands inside that of `code`."""
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return inner in nested or any(_holds(constant, inner) for constant in nested)


def _type_parameters(generic: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(generic, "__type_params__", ())}

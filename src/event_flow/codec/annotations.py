"""Which shape an annotation stands for. What is not in here cannot be sent, and is said so before any value is."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from enum import Enum, Flag
from types import NoneType
from typing import Any, Literal

from event_flow.codec.containers import Array, Row, Table
from event_flow.codec.leaves import FLOAT, LEAVES, STRICT_FLOAT, Choice, choice, flags
from event_flow.codec.mismatch import Mismatch, described, failure
from event_flow.codec.parameters import arguments_of, bindings, hints_of, substituted
from event_flow.codec.plain import PLAIN, Shape
from event_flow.codec.records import Mapping, Record, runs_code
from event_flow.codec.unions import Deferred, OneOf

__all__ = ["shape_of"]

WRAPPERS = tuple(
    getattr(typing, name)
    for name in ("Final", "NotRequired", "ReadOnly", "Required")
    if hasattr(typing, name)
)
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made by a `class` statement


def shape_of(annotation: Any) -> tuple[Shape, bool]:
    """The shape of a type, and whether reading it runs code of its classes.

    Raises `Mismatch` for one that cannot be sent, or whose names cannot be resolved.
    """
    shapes = _Shapes()
    try:
        return shapes.of(annotation), shapes.run_code
    except Mismatch:
        raise
    except Exception as exc:  # it is the user's annotation: anything may be in it
        raise failure(f"the type {annotation!r} cannot be worked out", exc) from exc


class _Shapes:
    """The shapes of one annotation and of all it holds; a type that holds itself is in `_known` before it is complete."""

    def __init__(self) -> None:
        self._known: dict[Any, Shape] = {}
        self.run_code = False

    def of(self, annotation: Any) -> Shape:
        if annotation in (Any, object) or isinstance(annotation, typing.TypeVar):
            return PLAIN
        origin = typing.get_origin(annotation)
        arguments = typing.get_args(annotation)
        if isinstance(annotation, typing.NewType):
            return self.of(annotation.__supertype__)
        if origin is typing.Annotated or origin in WRAPPERS:
            return self.of(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is Literal:
            return self._literal(arguments)
        alias = getattr(typing, "TypeAliasType", ())  # from Python 3.12 on
        if isinstance(annotation, alias) or isinstance(origin, alias):
            return self._alias(annotation, origin)
        if origin is None and annotation in LEAVES:
            return LEAVES[annotation]
        cls = origin or annotation
        if cls in (list, set, frozenset):
            return Array(cls, self.of(arguments[0] if arguments else Any))
        if cls is tuple:
            return self._tuple(annotation, arguments)
        if cls is dict:
            key, value = arguments or (str, Any)
            return Table(self.of(key), self.of(value))
        if isinstance(cls, type):
            return self._class(annotation, cls)
        raise Mismatch(f"the type {annotation!r} cannot be sent")

    def _at(self, step: str, annotation: Any) -> Shape:
        try:
            return self.of(annotation)
        except Mismatch as exc:
            exc.inside(step)
            raise

    def _union(self, members: tuple[Any, ...]) -> Shape:
        literals = [value for member in members for value in _values(member)]
        shapes = [self.of(member) for member in members if not _values(member)]
        if literals:
            shapes.append(self._literal(tuple(literals)))
        if PLAIN in shapes:  # None is in there
            shapes = [shape for shape in shapes if shape is not LEAVES[NoneType]]
        if any(int in shape.wire for shape in shapes if shape is not FLOAT):
            shapes = [STRICT_FLOAT if shape is FLOAT else shape for shape in shapes]
        return OneOf(shapes)

    def _literal(self, values: tuple[Any, ...]) -> Shape:
        pairs = [(value, value.value if isinstance(value, Enum) else value) for value in values]
        for value, plain in pairs:
            if type(plain) not in (str, int, bool, NoneType):
                raise Mismatch(
                    f"the Literal {described(value)} cannot be sent: only str, int, bool and None can"
                )
        return Choice(f"one of {', '.join(described(plain) for _, plain in pairs)}", pairs)

    def _alias(self, annotation: Any, origin: Any) -> Shape:
        if annotation in self._known:
            return self._known[annotation]
        known = self._known[annotation] = Deferred(str(annotation))
        alias, arguments = (annotation, None) if origin is None else (origin, typing.get_args(annotation))
        shape = self.of(substituted(alias.__value__, bindings(alias.__type_params__, arguments)))
        if shape is known:
            raise Mismatch(f"the type {annotation} is defined by nothing but itself")
        known.shape = shape
        return shape

    def _tuple(self, annotation: Any, arguments: tuple[Any, ...]) -> Shape:
        if annotation in (tuple, typing.Tuple):  # noqa: UP006 - both are met
            return Array(tuple, PLAIN)
        if arguments[1:] == (...,):
            return Array(tuple, self.of(arguments[0]))
        for argument in arguments:
            if typing.get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False):
                raise Mismatch(
                    f"the type {argument!r} cannot be sent: how many items it stands for is not known"
                )
        return Row(tuple, [self.of(argument) for argument in arguments])

    def _class(self, annotation: Any, cls: type) -> Shape:
        if annotation in self._known:
            return self._known[annotation]
        if issubclass(cls, Flag):
            return flags(cls)
        if issubclass(cls, Enum):
            return choice(cls)
        if typing.is_typeddict(cls):
            return self._typed_dict(annotation, cls)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            row = self._known[annotation] = Row(cls)
            hints = self._row_hints(annotation, cls)
            row.items = [self._at(f"[{index}]", hint) for index, hint in enumerate(hints)]
            return row
        if "__dataclass_fields__" in vars(cls):
            return self._dataclass(annotation, cls)
        raise Mismatch(f"the type {cls.__qualname__} cannot be sent{_instead(cls)}")

    def _row_hints(self, annotation: Any, cls: Any) -> list[Any]:
        bound = arguments_of(annotation)
        hints = hints_of(cls)
        if set(cls._fields) - set(hints):
            raise Mismatch(
                f"{cls.__qualname__} has fields without a type; a typing.NamedTuple has one for each"
            )
        owner = next(base for base in cls.__mro__ if "_fields" in vars(base))
        return [substituted(hints[field], bound.get(owner, {})) for field in cls._fields]

    def _typed_dict(self, annotation: Any, cls: Any) -> Shape:
        shape = self._known[annotation] = Mapping(cls, dict)
        bound = arguments_of(annotation)
        for name, declared in inspect.get_annotations(cls).items():
            # By a base if that has the same object.
            owner = [base for base in bound if inspect.get_annotations(base).get(name) is declared][-1]
            hint = hints_of(owner)[name]
            origins = set(_wrappers(hint))
            required = typing.Required in origins or (
                name in cls.__required_keys__ and typing.NotRequired not in origins
            )
            shape.fields[name] = (self._at(f".{name}", substituted(hint, bound[owner])), required)
        return shape

    def _dataclass(self, annotation: Any, cls: Any) -> Shape:
        shape = self._known[annotation] = Record(cls, cls)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        parameters = [_taken(each) for each in inspect.signature(cls.__init__).parameters.values()][1:]
        if sorted(parameters) != sorted(field.name for field in fields):
            raise Mismatch(
                f"{cls.__qualname__} cannot be sent: what its __init__ takes ({', '.join(parameters)}) "
                "are not just its fields"
            )
        if _is_builtin_too(cls):
            raise Mismatch(f"{cls.__qualname__} cannot be sent: it holds more than its fields")
        self.run_code |= runs_code(cls)
        bound = arguments_of(annotation)
        for field in fields:
            owner = _owner(cls, field)
            hint = substituted(hints_of(owner)[field.name], bound.get(owner, {}))
            optional = (
                field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            )
            shape.fields[field.name] = (self._at(f".{field.name}", hint), not optional)
        return shape


def _values(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _wrappers(hint: Any) -> list[Any]:
    """`Required`, `Annotated` and the like around a type, from the outside in."""
    found = []
    while typing.get_origin(hint) is typing.Annotated or typing.get_origin(hint) in WRAPPERS:
        found.append(typing.get_origin(hint))
        hint = typing.get_args(hint)[0]
    return found


def _taken(parameter: inspect.Parameter) -> str:
    by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return parameter.name if by_name else f"{parameter.name} not by name"


def _owner(cls: type, field: dataclasses.Field[Any]) -> type:
    """The class that declares the field: those which inherit it have the same object."""
    return next(
        base
        for base in reversed(cls.__mro__)
        if vars(base).get("__dataclass_fields__", {}).get(field.name) is field
    )


def _instead(cls: type) -> str:
    return "; say list, dict, set or tuple, which one it is" if cls.__module__ == "collections.abc" else ""


def _is_builtin_too(cls: type) -> bool:
    """Whether instances hold what no attribute of theirs tells: those of a class that is also a dict, an exception."""
    known = (object, typing.Generic)
    return any(base not in known and not base.__flags__ & HEAP_TYPE for base in cls.__mro__)

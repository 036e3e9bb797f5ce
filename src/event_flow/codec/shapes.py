"""Types that hold others: how each is taken apart into what JSON has, and put together again.

A shape has a `name` for messages, the Python types it `takes` and the types of JSON it has on the `wire`; by these a union
knows which of its members a value belongs to. `dump` and `load` raise `Mismatch`, which learns its place on the way out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, Protocol

import orjson

from event_flow.codec.mismatch import Mismatch, described, failure, wrong

__all__ = ["PLAIN", "Array", "Deferred", "Mapping", "OneOf", "Record", "Row", "Shape", "Table"]

Kinds = frozenset[type[Any]]

SCALARS: Kinds = frozenset({NoneType, bool, int, str})
JSON: Kinds = SCALARS | {float, list, dict}
NUMBER = re.compile(r"0|-?[1-9]\d*", re.ASCII)
A_KEY = "the key {} is not a str; a type, dict[...], may declare it"
NOT_PLAIN = (
    "{} is not plain JSON (None, bool, int, float, str, list, or dict with str keys); a type may declare it"
)


class Shape(Protocol):
    name: str

    @property
    def takes(self) -> Kinds: ...
    @property
    def wire(self) -> Kinds: ...
    def dump(self, value: Any) -> Any: ...
    def load(self, plain: Any) -> Any: ...


class Plain:
    """`Any`, and what has no type: just what JSON has, as it is."""

    name = "plain JSON"
    takes: Kinds = JSON
    wire: Kinds = JSON

    def dump(self, value: Any) -> Any:
        kind = type(value)
        if kind in SCALARS:
            return value
        key: Any = 0
        try:
            if kind is list:
                for item in value:
                    self.dump(item)
                    key += 1
            elif kind is dict:
                for key, item in value.items():
                    if type(key) is not str:
                        raise Mismatch(A_KEY.format(described(key)))
                    self.dump(item)
            elif kind is not float:
                raise Mismatch(NOT_PLAIN.format(described(value)))
            elif not math.isfinite(value):
                raise Mismatch(f"{value!r} is no number that JSON has")
        except Mismatch as exc:
            if kind in (list, dict) and type(key) in (int, str):
                exc.inside(f"[{key if kind is list else described(key)}]")
            raise
        return value

    def load(self, plain: Any) -> Any:
        return plain


PLAIN = Plain()


class Array:
    """`list`, `set`, `frozenset` and `tuple[X, ...]`. A set is written in an order of its own, whatever its hashes are."""

    wire: Kinds = frozenset({list})

    def __init__(self, python: type[Any], item: Shape) -> None:
        self.name = python.__name__
        self.takes: Kinds = frozenset({python})
        self._make = python
        self._item = item
        self._unique = python in (set, frozenset)

    def dump(self, value: Any) -> Any:
        if type(value) is not self._make:
            raise wrong(self.name, value)
        items = _each(self._item.dump, value)
        return sorted(items, key=_order) if self._unique else items

    def load(self, plain: Any) -> Any:
        if type(plain) is not list:
            raise wrong(self.name, plain)
        items = _each(self._item.load, plain)
        try:
            value = self._make(items)
        except TypeError as exc:
            raise failure(f"expected {self.name}", exc) from exc
        if self._unique and len(value) != len(items):
            raise Mismatch(f"expected {self.name}, got the same item twice")
        return value


def _each(convert: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    items: list[Any] = []
    try:
        for value in values:
            items.append(convert(value))  # noqa: PERF401 - its length is the index at which it failed
    except Mismatch as exc:
        exc.inside(f"[{len(items)}]")
        raise
    return items


def _order(item: Any) -> bytes:
    try:
        return orjson.dumps(item)
    except TypeError:  # said later, with its place
        return b""


class Row:
    """A tuple of known length, and a `NamedTuple`: a list with a shape for each place."""

    wire: Kinds = frozenset({list})

    def __init__(self, cls: type, items: Sequence[Shape] = ()) -> None:
        self.name = cls.__qualname__
        self.takes: Kinds = frozenset({cls})
        self.items = items
        self._cls: type[Any] = cls

    def dump(self, value: Any) -> Any:
        if type(value) is not self._cls:
            raise wrong(self.name, value)
        # Not by an `__iter__` or `__len__` of the user's class.
        return self._each([item.dump for item in self.items], tuple.__getitem__(value, slice(None)))

    def load(self, plain: Any) -> Any:
        if type(plain) is not list:
            raise wrong(self.name, plain)
        # Nor by a `__new__`.
        return tuple.__new__(self._cls, self._each([item.load for item in self.items], plain))

    def _each(self, converters: list[Callable[[Any], Any]], values: Sequence[Any]) -> list[Any]:
        if len(values) != len(converters):
            raise Mismatch(f"expected {self.name} of {len(converters)} items, got {len(values)}")
        pairs = zip(converters, values, strict=True)
        return _each(lambda pair: pair[0](pair[1]), pairs)


class Table:
    """`dict[K, V]`. Keys are text on the wire: what a shape writes as a str, or as a whole number."""

    takes: Kinds = frozenset({dict})
    wire: Kinds = frozenset({dict})
    name = "dict"

    def __init__(self, key: Shape, value: Shape) -> None:
        self._key = key
        self._value = value
        self._numbers = key.wire == {int}
        if not self._numbers and key.wire != {str} and key is not PLAIN:
            raise Mismatch(
                f"dict keys of type {key.name} cannot be sent: they are neither text nor whole numbers"
            )

    def dump(self, value: Any) -> Any:
        if type(value) is not dict:
            raise wrong(self.name, value)
        plain: dict[str, Any] = {}
        for key, item in value.items():
            try:
                text = key
                text = self._dumped(key)
                plain[text] = self._value.dump(item)
            except Mismatch as exc:
                exc.inside(f"[{described(text)}]")
                raise
        return plain

    def load(self, plain: Any) -> Any:
        if type(plain) is not dict:
            raise wrong(self.name, plain)
        value: dict[Any, Any] = {}
        for key, item in plain.items():
            try:
                loaded = self._loaded(key)
                if loaded in value:
                    raise Mismatch("the same key twice")
                value[loaded] = self._value.load(item)
            except Mismatch as exc:
                exc.inside(f"[{described(key)}]")
                raise
        return value

    def _dumped(self, key: Any) -> str:
        plain = self._key.dump(key)
        if type(plain) is str:
            return plain
        if not self._numbers:
            raise Mismatch(A_KEY.format(described(key)))
        try:
            return str(plain)
        except ValueError as exc:  # more digits than Python converts
            raise failure("the key", exc) from exc

    def _loaded(self, key: str) -> Any:
        if not self._numbers:
            return self._key.load(key)
        if not NUMBER.fullmatch(key):
            raise wrong(f"a key of type {self._key.name}", key)
        try:
            number = int(key)
        except ValueError as exc:
            raise failure("the key", exc) from exc
        return self._key.load(number)


class Record:
    """An object with a shape for each name: a dataclass, and a `TypedDict`.

    Names that it does not know are left out when reading: fields may be added and removed.
    """

    wire: Kinds = frozenset({dict})

    def __init__(self, cls: type, takes: type) -> None:
        self.name = cls.__qualname__
        self.takes: Kinds = frozenset({takes})
        self.fields: dict[str, tuple[Shape, bool]] = {}  # the shape, and whether it must be there
        self._cls = cls
        self._type = takes

    def dump(self, value: Any) -> Any:
        if type(value) is not self._type:
            raise wrong(self.name, value)
        plain: dict[str, Any] = {}
        name = ""
        try:
            for name, (shape, _) in self.fields.items():
                plain[name] = shape.dump(getattr(value, name))
        except Mismatch as exc:
            exc.inside(f".{name}")
            raise
        except RecursionError:
            raise
        except Exception as exc:
            raise failure("cannot be read", exc).inside(f".{name}") from exc
        return plain

    def load(self, plain: Any) -> Any:
        values = self._loaded(plain)
        try:
            record = self._cls(**values)
            for name, value in values.items():
                now = getattr(record, name)
                if now is not value and (type(now) is not type(value) or now != value):
                    raise Mismatch(f"{self.name} makes {described(now)} of {described(value)}").inside(
                        f".{name}"
                    )
        except (Mismatch, RecursionError):
            raise
        except Exception as exc:
            raise failure(f"{self.name} refuses it", exc) from exc
        return record

    def _loaded(self, plain: Any) -> dict[str, Any]:
        if type(plain) is not dict:
            raise wrong(self.name, plain)
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, (shape, required) in self.fields.items():
                if name in plain:
                    values[name] = shape.load(plain[name])
                elif required:
                    raise Mismatch("missing")
        except Mismatch as exc:
            exc.inside(f".{name}")
            raise
        return values


class Mapping(Record):
    """A `TypedDict`: a dict that has the names it declares, and no others."""

    def dump(self, value: Any) -> Any:
        if type(value) is not dict:
            raise wrong(self.name, value)
        plain: dict[str, Any] = {}
        for name, item in value.items():
            if name not in self.fields:
                raise Mismatch(f"{self.name} has no key {described(name)}")
            try:
                plain[name] = self.fields[name][0].dump(item)
            except Mismatch as exc:
                exc.inside(f".{name}")
                raise
        for name, (_, required) in self.fields.items():
            if required and name not in plain:
                raise Mismatch("missing").inside(f".{name}")
        return plain

    def load(self, plain: Any) -> Any:
        values = self._loaded(plain)
        return {name: values[name] for name in plain if name in values}


class OneOf:
    """A union whose members can be told apart by their types, in Python and in JSON."""

    def __init__(self, members: Sequence[Shape]) -> None:
        self.name = " | ".join(member.name for member in members)
        self._by_type: dict[type, Shape] = {}
        self._by_wire: dict[type, Shape] = {}
        for member in members:
            for table, kinds in ((self._by_type, member.takes), (self._by_wire, member.wire)):
                for kind in kinds:
                    if table.setdefault(kind, member) is not member:
                        raise Mismatch(
                            f"{table[kind].name} and {member.name} in one union cannot be told apart in JSON"
                        )
        self.takes: Kinds = frozenset(self._by_type)
        self.wire: Kinds = frozenset(self._by_wire)

    def dump(self, value: Any) -> Any:
        member = self._by_type.get(type(value))
        if member is None:
            raise wrong(self.name, value)
        return member.dump(value)

    def load(self, plain: Any) -> Any:
        member = self._by_wire.get(type(plain))
        if member is None:
            raise wrong(self.name, plain)
        return member.load(plain)


class Deferred:
    """A type that is still being worked out, because it holds itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shape: Shape | None = None

    @property
    def takes(self) -> Kinds:
        return self._known().takes

    @property
    def wire(self) -> Kinds:
        return self._known().wire

    def dump(self, value: Any) -> Any:
        return self._known().dump(value)

    def load(self, plain: Any) -> Any:
        return self._known().load(plain)

    def _known(self) -> Shape:
        if self.shape is None:
            raise Mismatch(f"{self.name} is defined by nothing but itself")
        return self.shape

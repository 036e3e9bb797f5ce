"""Types that hold any number of others: lists, sets, tuples and dicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from event_flow.codec.mismatch import Mismatch, described, failure, wrong
from event_flow.codec.plain import A_KEY, PLAIN, Kinds, Shape

__all__ = ["Array", "Row", "Table"]

NUMBER = re.compile(r"0|-?[1-9]\d*", re.ASCII)


class Array:
    """`list`, `set`, `frozenset` and `tuple[X, ...]`. A set is written in an order of its own, whatever its hashes are."""

    wire: Kinds = frozenset({list})

    def __init__(self, python: type[Any], item: Shape) -> None:
        self.name: str = python.__name__
        self.takes: Kinds = frozenset({python})
        self._make = python
        self._item = item
        self._unique = python in (set, frozenset)

    def dump(self, value: Any) -> Any:
        if type(value) is not self._make:
            raise wrong(self.name, value)
        items = _each(self._item.dump, value)
        if not self._unique:
            return items
        # What differs here may be equal there: a moment in the hour that a time zone repeats.
        self.load(items)
        return sorted(items, key=_order)

    def load(self, plain: Any) -> Any:
        if type(plain) is not list:
            raise wrong(self.name, plain)
        items = _each(self._item.load, plain)
        try:
            value = self._make(items)
        except RecursionError:
            raise
        except Exception as exc:  # unhashable, or the __hash__ or __eq__ of a user's class
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
        self.name: str = cls.__qualname__
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
        # A moment in the hour that a time zone repeats is equal to none in another zone, and NaN not to itself.
        if self._key.takes != {str} and len({self._loaded(text) for text in plain}) != len(value):
            raise Mismatch("two of its keys would come back as one")
        return plain

    def load(self, plain: Any) -> Any:
        if type(plain) is not dict:
            raise wrong(self.name, plain)
        value: dict[Any, Any] = {}
        for key, item in plain.items():
            try:
                loaded = self._loaded(key)
                if _is_in(value, loaded):
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


def _is_in(value: dict[Any, Any], key: Any) -> bool:
    try:
        return key in value
    except TypeError as exc:  # a signaling NaN has no hash
        raise failure("the key", exc) from exc

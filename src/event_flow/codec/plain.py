"""What a shape is, and the one for `Any`: plain JSON.

A shape says how a type is taken apart into what JSON has, and put together again. It has a `name` for messages, the Python
types it `takes` and the types of JSON it has on the `wire`; by these a union knows which of its members a value belongs to.
`dump` and `load` raise `Mismatch`, which learns its place on the way out.
"""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, Protocol

from event_flow.codec.mismatch import Mismatch, described

__all__ = ["A_KEY", "PLAIN", "Kinds", "Shape"]

Kinds = frozenset[type[Any]]

SCALARS: Kinds = frozenset({NoneType, bool, int, str})
JSON: Kinds = SCALARS | {float, list, dict}
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
    """`Any`, and what has no type: just what JSON has, as it is.

    What is written is a copy: another thread cannot put in what nobody has looked at.
    """

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
                items: list[Any] = []
                for item in value:
                    items.append(self.dump(item))
                    key += 1
                return items
            if kind is dict:
                named: dict[str, Any] = {}
                for key, item in value.items():
                    if type(key) is not str:
                        raise Mismatch(A_KEY.format(described(key)))
                    named[key] = self.dump(item)
                return named
            if kind is not float:
                raise Mismatch(NOT_PLAIN.format(described(value)))
            if not math.isfinite(value):
                raise Mismatch(f"{value!r} is no number that JSON has")
        except Mismatch as exc:
            if kind in (list, dict) and type(key) in (int, str):
                exc.inside(f"[{key if kind is list else described(key)}]")
            raise
        return value

    def load(self, plain: Any) -> Any:
        return plain


PLAIN = Plain()

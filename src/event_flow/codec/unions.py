"""Types that stand for others: one of several, and one that is not known yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_flow.codec.mismatch import Mismatch, wrong
from event_flow.codec.plain import Kinds, Shape

__all__ = ["Deferred", "OneOf"]


class OneOf:
    """A union whose members can be told apart by their types, in Python and in JSON."""

    def __init__(self, members: Sequence[Shape]) -> None:
        self.name: str = " | ".join(member.name for member in members)
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
        self.name: str = name
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

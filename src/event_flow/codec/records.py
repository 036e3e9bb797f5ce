"""Types that have a name for each thing they hold: dataclasses and `TypedDict`s."""

from __future__ import annotations

import dataclasses
import inspect
from types import MemberDescriptorType
from typing import Any

from event_flow.codec.mismatch import Mismatch, described, failure, wrong
from event_flow.codec.plain import Kinds, Shape

__all__ = ["Mapping", "Record", "is_computed", "runs_code"]

METHODS = ("__new__", "__init__", "__getattribute__", "__setattr__")
GENERATED = "__create_fn__.<locals>."  # as the code of what `dataclass` writes is named


class Record:
    """An object with a shape for each name: a dataclass, and a `TypedDict`.

    Names that it does not know are left out when reading: fields may be added and removed.
    """

    wire: Kinds = frozenset({dict})

    def __init__(self, cls: type, takes: type) -> None:
        self.name: str = cls.__qualname__
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
            if type(record) is not self._cls:  # its __new__ may choose
                raise Mismatch(f"{self.name} makes {described(record)}")
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


def runs_code(cls: Any) -> bool:
    """Whether making an instance of a dataclass runs more than what `dataclass` wrote: that may refuse or change a value."""
    return (
        hasattr(cls, "__post_init__")
        or not all(_is_plain(cls, name) for name in METHODS)
        or type(cls).__call__ is not type.__call__
        or any(is_computed(cls, field.name) for field in dataclasses.fields(cls))
    )


def _is_plain(cls: type, name: str) -> bool:
    method = getattr(cls, name)
    code = getattr(method, "__code__", None)
    return method is getattr(object, name) or getattr(code, "co_qualname", "") == GENERATED + name


def is_computed(cls: type, name: str) -> bool:
    """Whether reading or setting the attribute runs a property, or the like."""
    found = inspect.getattr_static(cls, name, None)
    return hasattr(type(found), "__set__") and not isinstance(found, MemberDescriptorType)

"""An event as a JSON object and back: which attributes are sent, and how one is built without its `__init__`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cached_property
from typing import Any

import orjson

from event_flow.codec.annotations import shape_of
from event_flow.codec.mismatch import Mismatch, described, failure, fits_64_bits, wrong
from event_flow.codec.names import name_of
from event_flow.codec.parameters import arguments_of
from event_flow.codec.plain import PLAIN, Shape
from event_flow.codec.records import is_computed
from event_flow.core.event import Event, EventWithSource

__all__ = [
    "META",
    "Envelope",
    "attributes_of",
    "build",
    "put_meta",
    "require_places",
    "required_name",
    "written",
]

META = "_meta"


class Envelope:
    """What is known of one event class: its name on the wire, and the shape of its data."""

    def __init__(self, cls: type[Event[Any]]) -> None:
        """Raises `Mismatch` if events of the class cannot be sent."""
        try:
            self._data, self._runs_code = _shape_of_data(cls)
        except Mismatch as exc:
            exc.inside(".data")
            raise
        self._cls = cls
        self._has_source = issubclass(cls, EventWithSource)
        self._sent = ("data", META, "source") if self._has_source else ("data", META)
        require_places(cls, self._sent)
        self._runs_code |= any(is_computed(cls, name) for name in self._sent)

    def write(self, event: Event[Any]) -> bytes:
        """The bytes of it. Where code of the user's has a say in what comes back, that is tried at once."""
        plain = self._dump(event)
        data = written(plain)
        if self._runs_code:
            again = self._dump(self.load(orjson.loads(data)))
            if written(again) != data:
                for key in plain | again:
                    _at(f".{key}", _look_for_a_change, plain.get(key), again.get(key))
        return data

    def _dump(self, event: Event[Any]) -> dict[str, Any]:
        name = required_name(self._cls)
        attributes = attributes_of(event, self._sent)
        plain: dict[str, Any] = {"type": name}
        put(plain, "data", self._data, attributes)
        put_meta(plain, attributes)
        if self._has_source:
            put(plain, "source", PLAIN, attributes)
        return plain

    def load(self, plain: dict[str, Any]) -> Event[Any]:
        try:
            attributes = {"data": self._data.load(plain.get("data"))}
        except Mismatch as exc:
            exc.inside(".data")
            raise
        except RecursionError:
            raise Mismatch("nested too deeply").inside(".data") from None
        if self._has_source:
            attributes["source"] = plain.get("source")
        return build(self._cls, attributes, plain)


def _shape_of_data(cls: type[Event[Any]]) -> tuple[Shape, bool]:
    bound = arguments_of(cls).get(Event, {})
    return shape_of(next(iter(bound.values()), Any))


def require_places(cls: type, names: Collection[str]) -> None:
    """Raises `Mismatch` if events of the class have no place of their own for what they are sent with."""
    for name in names:
        if not _can_be_set(cls, name):
            raise Mismatch(f"{cls.__qualname__} has it in the class, and no event can").inside(f".{name}")


def _can_be_set(cls: type, name: str) -> bool:
    found = inspect.getattr_static(cls, name)
    if hasattr(type(found), "__set__"):
        return not isinstance(found, property) or found.fset is not None
    return cls.__dictoffset__ != 0


def required_name(cls: type[Event[Any]]) -> str:
    name = name_of(cls)
    if name is None:
        raise Mismatch(
            f"{cls.__module__}:{cls.__qualname__} cannot be found by that name; "
            'pin one: @codec.register(name="…")'
        )
    return name


def attributes_of(event: Event[Any], sent: Collection[str]) -> dict[str, Any]:
    """What the event holds, in its slots and beside them.

    Raises `Mismatch` if that is more than what is sent: it would be missing on the other side.
    """
    try:
        state: Any = object.__getstate__(event)
    except Exception as exc:
        raise failure("its attributes cannot be read", exc) from exc
    besides, slots = state if isinstance(state, tuple) else (state, None)
    attributes: dict[str, Any] = {**(besides or {}), **(slots or {})}
    # What typing notes on an instance that is made by `Class[...](...)`.
    attributes.pop("__orig_class__", None)
    for name in attributes:
        if name not in sent and not isinstance(
            inspect.getattr_static(type(event), name, None), cached_property
        ):
            raise Mismatch(f"it has the attribute {name!r}, which is not sent; put that into data or meta")
    return attributes


def put(plain: dict[str, Any], key: str, shape: Shape, attributes: dict[str, Any]) -> None:
    """Write one attribute; None, where it is allowed, by leaving the key out."""
    try:
        if key not in attributes:
            raise Mismatch("not set; an __init__ did not call that of Event")
        value = shape.dump(attributes[key])
    except Mismatch as exc:
        exc.inside(f".{key}")
        raise
    except RecursionError:
        raise Mismatch("nested too deeply, or holds itself").inside(f".{key}") from None
    if value is not None:
        plain[key] = value


def put_meta(plain: dict[str, Any], attributes: dict[str, Any]) -> None:
    meta = attributes.get(META) or {}
    if type(meta) is not dict:
        raise wrong("dict", meta).inside(".meta")
    if meta:
        put(plain, "meta", PLAIN, {"meta": meta})


def build(cls: type[Event[Any]], attributes: dict[str, Any], plain: dict[str, Any]) -> Event[Any]:
    """An instance with these attributes and the meta of `plain`. Calls no `__init__`: nobody knows what that wants."""
    meta = plain.get("meta")
    if meta is not None and type(meta) is not dict:
        raise wrong("an object", meta).inside(".meta")
    if meta:
        attributes = {**attributes, META: meta}
    try:
        event: Event[Any] = object.__new__(cls)
        for name, value in attributes.items():
            object.__setattr__(event, name, value)
    except Exception as exc:  # abstract, or with a property where Event has a slot
        raise failure("it cannot be built", exc) from exc
    return event


def written(plain: dict[str, Any]) -> bytes:
    """The bytes of an object whose shape is right. Raises `Mismatch` for what JSON or orjson cannot hold."""
    try:
        return orjson.dumps(plain)
    except TypeError as exc:
        for key, value in plain.items():
            _at(f".{key}", _look_for_why, value)
        raise Mismatch(str(exc)) from exc


def _look_for_why(plain: Any) -> None:
    try:
        orjson.dumps([plain])
    except TypeError as exc:
        with suppress(RecursionError):
            _look_for_what_cannot_be_written(plain)
        raise Mismatch(f"nested too deeply ({exc})") from exc


def _look_for_what_cannot_be_written(plain: Any) -> None:
    if type(plain) is int and not fits_64_bits(plain):
        raise Mismatch(f"{described(plain)} cannot be sent")
    if type(plain) is str and not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise Mismatch(f"{described(plain)} has half a character (a lone surrogate)") from None
    steps: Any = plain.items() if type(plain) is dict else enumerate(plain) if type(plain) is list else ()
    for key, value in steps:
        _at(f"[{described(key)}]", _look_for_what_cannot_be_written, key)
        _at(f"[{described(key)}]", _look_for_what_cannot_be_written, value)


def _look_for_a_change(plain: Any, after: Any) -> None:
    if type(plain) is type(after) is dict and plain.keys() == after.keys():
        for key, value in plain.items():
            _at(f"[{described(key)}]", _look_for_a_change, value, after[key])
    elif type(plain) is type(after) is list and len(plain) == len(after):
        for index, value in enumerate(plain):
            _at(f"[{index}]", _look_for_a_change, value, after[index])
    elif type(plain) is not type(after) or plain != after:
        raise Mismatch(f"{described(plain)} comes back as another: {described(after)}")


def _at(step: str, look: Callable[..., None], *values: Any) -> None:
    try:
        look(*values)
    except Mismatch as exc:
        exc.inside(step)
        raise

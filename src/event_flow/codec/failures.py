"""An `ExceptionEvent` on the wire: an exception is code and cannot be sent, but what it was and said can.

What has no form on the wire is replaced by something that says so, `RemoteError` for the exception, `UnsentEvent` for an
event, and the keys `unsent` and `error` for meta, rather than making a dead letter unsendable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from event_flow.codec.envelope import (
    META,
    attributes_of,
    build,
    put_meta,
    require_places,
    required_name,
    written,
)
from event_flow.codec.mismatch import Mismatch, wrong
from event_flow.codec.names import register
from event_flow.core.event import Event, ExceptionEvent
from event_flow.core.wording import safe_repr

__all__ = ["FailureEnvelope", "RemoteError", "UnsentEvent"]

LONGEST_REPR = 1000
ATTRIBUTES = {"data", META, "handler", "attempt", "traceback_str", "events", "_redeliver"}


class RemoteError(Exception):
    """Stands for an exception that was raised elsewhere: `type_name` is its class, `text` what it said."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class UnsentEvent(Event[str]):
    """Stands for an event of an `ExceptionEvent` that could not be sent.

    Its `data` is the repr of that event, at most 1,000 characters of it; `meta["error"]` says why.
    """

    __slots__ = ()


register(UnsentEvent, name="UnsentEvent")


class FailureEnvelope:
    """How an `ExceptionEvent`, or a subclass of it, is taken apart and put together; `Envelope` is for all others.

    `write` gives the bytes of an event inside, or raises `Mismatch`; `read` makes one of its object.
    """

    def __init__(
        self,
        cls: type[ExceptionEvent],
        write: Callable[[Event[Any]], bytes],
        read: Callable[[Any], Event[Any]],
    ) -> None:
        require_places(cls, ATTRIBUTES)
        self._cls = cls
        self._write = write
        self._read = read

    def write(self, event: Event[Any]) -> bytes:
        name = required_name(self._cls)
        attributes = attributes_of(event, ATTRIBUTES)
        plain: dict[str, Any] = {
            "type": name,
            "data": _exception(_typed(BaseException, attributes, "data")),
            "handler": _writable(_typed(str, attributes, "handler")),
            "attempt": _typed(int, attributes, "attempt"),
        }
        if traceback := _typed(str, attributes, "traceback_str", ""):
            plain["traceback"] = _writable(traceback)
        if events := _typed(tuple, attributes, "events", ()):
            plain["events"] = [orjson.Fragment(self._written(each)) for each in events]
        try:
            put_meta(plain, attributes)
            written({"meta": plain.get("meta")})
        except (Mismatch, RuntimeError) as exc:
            plain["meta"] = {"unsent": _shown(attributes[META]), "error": _writable(str(exc))}
        return written(plain)

    def _written(self, event: object) -> bytes:
        try:
            if not isinstance(event, Event):
                raise wrong("an event", event)
            if isinstance(event, ExceptionEvent):
                raise Mismatch("an ExceptionEvent inside another is not sent")
            return self._write(event)
        except (Mismatch, RuntimeError) as exc:  # RuntimeError: nested too deeply, or changed meanwhile
            unsent = UnsentEvent(_shown(event))
            unsent.update_meta(error=_writable(str(exc)))
            return self._write(unsent)

    def load(self, plain: dict[str, Any]) -> Event[Any]:
        data = _typed(dict, plain, "data")
        try:
            error = RemoteError(_typed(str, data, "type"), _typed(str, data, "text", ""))
        except Mismatch as exc:
            exc.inside(".data")
            raise
        attributes = {
            "data": error,
            "handler": _typed(str, plain, "handler"),
            "attempt": _typed(int, plain, "attempt", 1),
            "traceback_str": _typed(str, plain, "traceback", ""),
            "events": self._loaded(_typed(list, plain, "events", [])),
            "_redeliver": None,
        }
        return build(self._cls, attributes, plain)

    def _loaded(self, plain: list[Any]) -> tuple[Event[Any], ...]:
        events: list[Event[Any]] = []
        try:
            for each in plain:
                event = self._read(each)
                if isinstance(event, ExceptionEvent):
                    raise Mismatch("an ExceptionEvent inside another")
                events.append(event)
        except Mismatch as exc:
            exc.inside(f".events[{len(events)}]")
            raise
        return tuple(events)


def _exception(exception: BaseException) -> dict[str, str]:
    if isinstance(exception, RemoteError):
        return {"type": _writable(f"{exception.type_name}"), "text": _writable(f"{exception.text}")}
    cls = type(exception)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001 - whatever it is, it is not what happened
        text = safe_repr(exception)
    return {"type": _writable(name), "text": _writable(text)}


def _shown(value: object) -> str:
    return _writable(safe_repr(value)[:LONGEST_REPR])


def _writable(text: str) -> str:
    """Text for people: what has no form in UTF-8, as in the name of a file, is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _typed(cls: type, values: dict[str, Any], key: str, default: Any = None) -> Any:
    value = values.get(key, default)
    if not isinstance(value, cls) or (cls is int and type(value) is not int):
        raise wrong(cls.__name__, value).inside(f".{key}")
    return value

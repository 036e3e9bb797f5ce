"""Events as bytes, for journals, brokers and other processes: `encode(event) -> bytes`, `decode(bytes) -> Event`.

An event is one JSON object in UTF-8; what is None or empty is left out:

    {"type": "shop.events:Trade", "data": …, "meta": {…}, "source": …}

`type` is the name that was pinned with `register`, else `module:qualname` of the class. `decode` looks for it among the
pinned names and the classes that are loaded. It never imports a module and never runs code that the bytes name. A class that
was renamed or moved is found if its old `module:qualname` is pinned.

`data` is written and read by the class's type parameter, as in `class Trade(Event[Order])`, also through generic bases:

    None, bool, str, int          as they are; an int from -2**63 to 2**64 - 1
    float                         a number; no NaN, no infinity; an int, where a float is declared, becomes one
    Decimal, UUID, bytes          text: "1.10", "6f9619ff-…", base64
    datetime, date, time          ISO 8601; a datetime must be aware, and comes back with its offset as its time zone;
                                  an offset of less than a second is refused
    timedelta                     text: "PT86400.5S", seconds
    Enum, Flag                    the value of the member, a str or an int; the number that a flag's bits are
    Literal                       the value
    list, tuple, NamedTuple       an array
    set, frozenset                an array
    dict[K, V]                    an object; K is what is written as text or as an int
    dataclass, TypedDict          an object of its fields
    X | Y                         the one of that type; two that look alike in JSON cannot be in one union; Any | None is Any
    Any, no type parameter        just what JSON has: None, bool, str, int, float, list, dict with str keys

so also behind `NewType`, `Annotated`, `type X = …` and generics; a type variable without an argument is its default, else Any.
Any other type is refused when the first event of its class is encoded or decoded. `meta` and `source` have no type: plain JSON.

What `encode` writes, `decode` gives back with the same types and values; what would come back as something else, `encode`
refuses. So a value must be of the declared class itself, not of a subclass. What is not sent: the name of a time zone, only its
offset; fields of a dataclass with `init=False`, which its `__init__` and `__post_init__` make anew; attributes that are no
fields. A dataclass is built by its own `__init__`, which must leave the fields as they were. Where a class of the data has code
that runs then, as a `__post_init__`, `encode` reads at once what it wrote, and takes three to four times as long. An event is
built without its `__init__`, so one with attributes beyond data, meta and source is refused (but for what
`functools.cached_property` keeps).

Reading is lenient in two ways only. So that classes and this form may grow, keys that are not known are ignored, and fields
that have a default may be missing; the key `v` is kept for a form that this version could not read, and refused. And what
others write is read if it says the same value, as `Z` for +00:00, one to six digits of a second's fraction, a UUID in capitals,
a Decimal like "+1." or "1e5", zeros around the digits of a timedelta, a set in any order. JSON itself is read as orjson reads
it: of equal keys in one object the last counts, and a number is rounded to a float if it has a fraction, an exponent or more
than 64 bits. Bytes are not canonical: with another version of orjson the same event may give others.

`encode` stops between 200 and 300 levels of nesting, or a little before for named tuples; `decode` takes 1,000 of plain JSON,
and at least as many of a type that holds itself as `encode` does. Deep in calls of its caller's, each takes fewer.

An `ExceptionEvent` is sent as what can be: class and text of the exception, the traceback as text, handler, attempt, events.

    {"type": "ExceptionEvent", "data": {"type": "ValueError", "text": "…"}, "handler": "App.on_trades",
     "attempt": 1, "traceback": "…", "events": [{"type": …}, …], "meta": {…}}

It comes back with a `RemoteError` for the exception, and cannot `redeliver()`. An event in it that cannot be encoded is sent
as an `UnsentEvent`, and meta of its own that cannot be as text: `{"unsent": "{…}", "error": "…"}`.
"""

from __future__ import annotations

from typing import Any

import orjson

from event_flow.codec.envelope import Envelope, required_name
from event_flow.codec.failures import FailureEnvelope, RemoteError, UnsentEvent
from event_flow.codec.mismatch import Mismatch, described, wrong
from event_flow.codec.names import find, register
from event_flow.core.event import Event, ExceptionEvent
from event_flow.core.exception import DecodeError, EncodeError

__all__ = ["DecodeError", "EncodeError", "RemoteError", "UnsentEvent", "decode", "encode", "register"]

_envelopes: dict[type[Event[Any]], Envelope | FailureEnvelope] = {}


def encode(event: Event[Any]) -> bytes:
    """The event as JSON, by the wire form of this module. May be called from any thread.

    Raises `EncodeError` that says what and where if `decode` could not give the same event back, and `TypeError` for what is no
    event. Calls what makes a dataclass of the data, if the class has code of its own there, to see that it makes the same.
    """
    if not isinstance(event, Event):
        raise TypeError(f"only events can be encoded, not {described(event)}")
    name = type(event).__qualname__
    try:
        return _write(event)
    except Mismatch as exc:
        raise EncodeError(f"{name}: {exc}", place=exc.place) from exc.__cause__
    except RecursionError:
        raise EncodeError(f"{name}: nested too deeply, or holds itself") from None
    except RuntimeError as exc:  # a dict or set that another thread changes
        raise EncodeError(f"{name}: {exc}") from exc


def decode(data: bytes | bytearray | memoryview) -> Event[Any]:
    """The event that was encoded, as a new instance of its class. May be called from any thread.

    The class must be loaded: import the module that defines it, or registers its name, before. Its `__init__` is not called;
    a dataclass inside is built by its own. Raises `DecodeError` that says what and where, whatever the bytes are, and
    `TypeError` for what is not bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"only bytes can be decoded, not {described(data)}")
    title = ""
    try:
        plain = orjson.loads(data)
        cls = _class_of(plain)
        title = f"{cls.__qualname__}: "
        return _envelope_of(cls).load(plain)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"not JSON: {exc}") from exc
    except Mismatch as exc:
        raise DecodeError(f"{title}{exc}", place=exc.place) from exc.__cause__
    except RecursionError:
        raise DecodeError(f"{title}nested too deeply") from None


def _write(event: Event[Any]) -> bytes:
    return _envelope_of(type(event)).write(event)


def _read(plain: Any) -> Event[Any]:
    return _envelope_of(_class_of(plain)).load(plain)


def _class_of(plain: Any) -> type[Event[Any]]:
    if type(plain) is not dict:
        raise wrong("an object", plain)
    if "v" in plain:
        raise Mismatch("written in a form that this version of Event Flow does not know").inside(".v")
    name = plain.get("type")
    if type(name) is not str:
        raise wrong("the name of an event class", name).inside(".type")
    cls = find(name)
    if cls is None:
        raise Mismatch(
            f"no event class {described(name)} is loaded; import the module that defines or registers it"
        ).inside(".type")
    return cls


def _envelope_of(cls: type[Event[Any]]) -> Envelope | FailureEnvelope:
    envelope = _envelopes.get(cls)
    if envelope is None:
        required_name(cls)  # Before it is kept: local classes come and go.
        envelope = FailureEnvelope(cls, _write, _read) if issubclass(cls, ExceptionEvent) else Envelope(cls)
        _envelopes[cls] = envelope
    return envelope

"""Types that are one value on the wire: how each is written and read, exactly.

A type takes only its own instances, so that what comes back has the same type: no subclass of `int`, no `bool` for one.
A value is read in the form it is written in, and in others that say the same value to the last digit, as `Z` for the offset
of UTC: nothing is guessed, rounded or cut off.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Collection
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from enum import Enum, Flag
from types import NoneType
from typing import Any
from uuid import UUID

from event_flow.codec.mismatch import Mismatch, described, failure, wrong

__all__ = ["FLOAT", "LEAVES", "STRICT_FLOAT", "Choice", "Leaf", "choice", "flags"]

# Without a context of its own, Decimal("abc") is NaN where the program has switched that trap off.
DECIMAL = Context(traps=[InvalidOperation])
DECIMAL_FORM = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(Infinity|s?NaN\d*)", re.ASCII)
UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
DATE_FORM = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# An offset of less than a second: Python 3.11 to 3.13 writes it, and reads UTC.
OFFSET = r"(Z|(?![+-]00:00:00\.)[+-]\d\d:\d\d(:\d\d(\.\d{6})?)?)"
# Of 24:00, Python 3.14 makes the midnight after, and older ones nothing.
CLOCK = r"(?!24)\d\d:\d\d:\d\d(\.\d{1,6})?"
TIME_FORM = re.compile(f"{CLOCK}{OFFSET}?", re.ASCII)
MOMENT_FORM = re.compile(rf"\d{{4}}-\d\d-\d\dT{CLOCK}{OFFSET}", re.ASCII)
DURATION_FORM = re.compile(r"(-?)PT(\d+)(?:\.(\d{1,6}))?S", re.ASCII)


class Leaf:
    """A type with one value on the wire: of the types `wire`, written by `write` and read by `read`.

    Both may raise: `Mismatch`, or anything else, which becomes one.
    """

    def __init__(
        self,
        name: str,
        takes: Collection[type[Any]],
        wire: Collection[type[Any]],
        write: Callable[[Any], Any],
        read: Callable[[Any], Any],
    ) -> None:
        self.name = name
        self.takes: frozenset[type[Any]] = frozenset(takes)
        self.wire: frozenset[type[Any]] = frozenset(wire)
        self._write = write
        self._read = read

    def dump(self, value: Any) -> Any:
        if type(value) not in self.takes:
            raise wrong(self.name, value)
        try:
            return self._write(value)
        except Exception as exc:
            raise self._refused(value, exc) from exc

    def load(self, plain: Any) -> Any:
        if type(plain) not in self.wire:
            raise wrong(self.name, plain)
        try:
            return self._read(plain)
        except Exception as exc:
            raise self._refused(plain, exc) from exc

    def _refused(self, value: Any, exc: Exception) -> Exception:
        if isinstance(exc, Mismatch | RecursionError):
            return exc
        return failure(f"expected {self.name}, got {described(value)}", exc)


class Same(Leaf):
    """A type that JSON has: written and read as it is."""

    def __init__(self, python: type) -> None:
        name = "None" if python is NoneType else python.__name__
        super().__init__(name, {python}, {python}, _same, _same)
        self._type = python

    def dump(self, value: Any) -> Any:
        if type(value) is not self._type:
            raise wrong(self.name, value)
        return value

    def load(self, plain: Any) -> Any:
        return self.dump(plain)


def _same(value: Any) -> Any:
    return value


class Choice(Leaf):
    """One of some values, each with its own on the wire: an enum, or a `Literal`."""

    def __init__(self, name: str, pairs: Collection[tuple[Any, Any]]) -> None:
        super().__init__(
            name, {type(value) for value, _ in pairs}, {type(plain) for _, plain in pairs}, _same, _same
        )
        # With the type, because 1, 1.0 and True are equal.
        self._plain = {(type(value), value): plain for value, plain in pairs}
        self._value = {(type(plain), plain): value for value, plain in pairs}
        if len(self._plain) != len(self._value):
            raise Mismatch(f"two values of {name} are the same in JSON")

    def dump(self, value: Any) -> Any:
        return self._looked_up(self._plain, self.takes, value)

    def load(self, plain: Any) -> Any:
        return self._looked_up(self._value, self.wire, plain)

    def _looked_up(self, table: dict[Any, Any], types: Collection[type], value: Any) -> Any:
        if type(value) in types and (type(value), value) in table:
            return table[type(value), value]
        raise wrong(self.name, value)


def choice(cls: type[Enum]) -> Leaf:
    """An enum, by the values of its members."""
    for member in cls:
        if type(member.value) not in (str, int):
            raise Mismatch(
                f"{cls.__qualname__}.{member.name} has the value {described(member.value)}; only str and int can be sent"
            )
    return Choice(cls.__qualname__, [(member, member.value) for member in cls])


def flags(cls: type[Flag]) -> Leaf:
    """A flag, by the number that its bits are."""

    def read(number: int) -> Flag:
        value = cls(number)
        # By the rules of its boundary a flag may drop bits, or give a plain int.
        if type(value) is not cls or value.value != number:
            raise wrong(cls.__qualname__, number)
        return value

    return Leaf(cls.__qualname__, {cls}, {int}, lambda value: value.value, read)


def _write_float(value: float) -> float:
    number = float(value)
    if not math.isfinite(number) or number != value:
        raise Mismatch(f"{described(value)} is no number that JSON can hold as a float")
    return number


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    value = base64.b64decode(text, validate=True)
    if _write_bytes(value) != text:  # with bits that are cut off
        raise wrong("bytes", text)
    return value


def _read_decimal(text: str) -> Decimal:
    if not DECIMAL_FORM.fullmatch(text):
        raise wrong("Decimal", text)
    return Decimal(text, DECIMAL)


def _read_uuid(text: str) -> UUID:
    if not UUID_FORM.fullmatch(text):
        raise wrong("UUID", text)
    return UUID(text)


def _write_moment(value: datetime) -> str:
    if value.utcoffset() is None:
        raise Mismatch("expected an aware datetime, got one without an offset from UTC")
    return _readable(MOMENT_FORM, value.isoformat())


def _read_moment(text: str) -> datetime:
    if not MOMENT_FORM.fullmatch(text):
        raise wrong("an aware datetime in ISO 8601", text)
    return datetime.fromisoformat(text)


def _read_date(text: str) -> date:
    if not DATE_FORM.fullmatch(text):
        raise wrong("a date in ISO 8601", text)
    return date.fromisoformat(text)


def _write_time(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Mismatch(
            "expected a time without time zone or with a fixed offset, got one whose offset depends on the day"
        )
    if value.fold:
        raise Mismatch("expected a time with fold=0, got fold=1")
    return _readable(TIME_FORM, value.isoformat())


def _readable(form: re.Pattern[str], text: str) -> str:
    if not form.fullmatch(text):
        raise Mismatch("its offset from UTC is less than a second, which Python cannot read")
    return text


def _read_time(text: str) -> time:
    if not TIME_FORM.fullmatch(text):
        raise wrong("a time in ISO 8601", text)
    return time.fromisoformat(text)


def _write_duration(value: timedelta) -> str:
    seconds, microseconds = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    fraction = f".{microseconds:06}".rstrip("0") if microseconds else ""
    return f"{'-' if value < timedelta() else ''}PT{seconds}{fraction}S"


def _read_duration(text: str) -> timedelta:
    form = DURATION_FORM.fullmatch(text)
    if form is None:
        raise wrong("a duration in seconds, like PT1.5S", text)
    sign, seconds, fraction = form.groups()
    value = timedelta(seconds=int(seconds), microseconds=int((fraction or "").ljust(6, "0")))
    return -value if sign else value


FLOAT = Leaf("float", {float, int}, {float, int}, _write_float, _write_float)
# In a union with int each keeps its own numbers.
STRICT_FLOAT = Leaf("float", {float}, {float}, _write_float, _same)


def _text(cls: type, write: Callable[[Any], str], read: Callable[[str], Any]) -> Leaf:
    return Leaf(cls.__name__, {cls}, {str}, write, read)


LEAVES: dict[Any, Leaf] = {
    None: Same(NoneType),
    NoneType: Same(NoneType),
    bool: Same(bool),
    str: Same(str),
    int: Same(int),
    float: FLOAT,
    bytes: _text(bytes, _write_bytes, _read_bytes),
    Decimal: _text(Decimal, str, _read_decimal),
    UUID: _text(UUID, str, _read_uuid),
    datetime: _text(datetime, _write_moment, _read_moment),
    date: _text(date, date.isoformat, _read_date),
    time: _text(time, _write_time, _read_time),
    timedelta: _text(timedelta, _write_duration, _read_duration),
}

"""What the codec makes of each type: round trips of generated values, and what is refused before any value is sent."""

from __future__ import annotations

import enum
import math
import re
import sys
import types
from abc import ABC
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation, localcontext
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_flow import DecodeError, EncodeError, Event, codec
from event_flow.codec.records import runs_code

T = TypeVar("T")


class Side(Enum):
    BUY = "buy"
    SELL = "sell"
    ALSO_BUY = "buy"  # noqa: PIE796 - an alias


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Mixed(Enum):
    ONE = 1
    TEXT = "1"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    LOW = 1
    HIGH = 1 << 62


class Keeps(Flag, boundary=enum.KEEP):
    ONE = 1


class Drops(Flag, boundary=enum.CONFORM):
    ONE = 1


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    begin: Point
    end: Point | None = None
    tags: list[str] = field(default_factory=list)
    length: Final[Decimal] = Decimal(0)


@dataclass
class Longer(Point):
    z: Annotated[Decimal, "exact"] = Decimal(1)


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class DecimalBox(Box[Decimal]):
    lid: bool = False


@dataclass
class Tree:
    value: int
    left: Tree | None = None
    children: list[Tree] = field(default_factory=list)


@dataclass
class Computed:
    x: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.x


class Row(NamedTuple):
    name: str
    price: Decimal = Decimal(1)


class Pair(NamedTuple, Generic[T]):
    first: T
    second: T


class Person(TypedDict):
    name: str
    born: NotRequired[date]


class Partial(TypedDict, total=False):
    a: Required[int]
    b: UUID


class Sub(Partial, total=False):
    c: Side


class Holds(TypedDict, Generic[T]):
    it: T


UserId = NewType("UserId", int)
Named = NewType("Named", Box[UserId])


def title(value: object) -> str:
    """The message, of the parameters of a test."""
    return value if isinstance(value, str) and " " in value else ""


_probes: dict[str, tuple[type[Event[Any]], str]] = {}


def probe(annotation: Any) -> tuple[type[Event[Any]], str]:
    """An event class with that type parameter, and its name; the same for the same."""
    key = repr(annotation)
    if key not in _probes:
        cls = types.new_class("Probe", (Event[annotation],))
        cls.__qualname__ = name = f"Probe{len(_probes)}"
        _probes[key] = codec.register(cls, name=name), name
    return _probes[key]


def event_of(annotation: Any) -> type[Event[Any]]:
    return probe(annotation)[0]


def there_and_back(annotation: Any, value: Any) -> Any:
    return codec.decode(codec.encode(event_of(annotation)(value))).data


def wire(annotation: Any, value: Any) -> Any:
    return orjson.loads(codec.encode(event_of(annotation)(value))).get("data")


def read(annotation: Any, plain: Any) -> Any:
    return codec.decode(orjson.dumps({"type": probe(annotation)[1], "data": plain})).data


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down; a time zone is what its offset is."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return set(map(repr, left)) == set(map(repr, right))
    if is_dataclass(left):
        return all(same(getattr(left, each.name), getattr(right, each.name)) for each in fields(left))
    if isinstance(left, datetime):
        return bool(left.isoformat() == right.isoformat() and left.utcoffset() == right.utcoffset())
    return repr(left) == repr(right)


class Priced(Holds[Decimal]):
    number: int


class Several(Holds[list[T]], Generic[T]):
    first: T


class Of(Generic[T]):
    __slots__ = ()


class NamedPair(Pair[int], Of[str]):
    __slots__ = ()


class Pairs(Pair[list[T]], Of[str], Generic[T]):
    __slots__ = ()


# -- round trips -----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
ZONES = st.one_of(
    st.timezones(),
    # One of less than a second is refused, which has a test of its own.
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
    .filter(lambda offset: not timedelta() < abs(offset) < timedelta(seconds=1))
    .map(timezone),
)

CHOICES: Any = Literal["a", 1, True, None, Side.SELL]  # noqa: PYI061 - that is what is tried
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)
TREES = st.recursive(
    st.builds(Tree, INTEGERS),
    lambda inner: st.builds(Tree, INTEGERS, inner, st.lists(inner, max_size=2)),
    max_leaves=4,
)
LINES = st.builds(
    Line,
    begin=st.builds(Point, INTEGERS),
    tags=st.lists(TEXT, max_size=2),
    length=st.decimals(),
)

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, INTEGERS),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, TEXT),
    (bytes, st.binary(max_size=8)),
    (Decimal, st.decimals()),
    (UUID, st.uuids()),
    (datetime, st.datetimes(timezones=ZONES, allow_imaginary=True)),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | st.just(UTC)).map(lambda value: value.replace(fold=0))),
    (timedelta, st.timedeltas()),
    (Side, st.sampled_from(Side)),
    (Level, st.sampled_from(Level)),
    (Mood, st.sampled_from(Mood)),
    (Mixed, st.sampled_from(Mixed)),
    (Rights, st.integers(0, 3).map(Rights)),
    (Bits, st.sampled_from([Bits(0), Bits.LOW, Bits.HIGH, Bits.LOW | Bits.HIGH])),
    (Keeps, st.integers(0, 2**40).map(Keeps)),
    (CHOICES, st.sampled_from(["a", 1, True, None, Side.SELL])),
    (UserId, INTEGERS),
    (Annotated[Decimal, "cents"], st.decimals()),
    (Any, JSON),
    (Point, st.builds(Point, INTEGERS, st.floats(allow_nan=False, allow_infinity=False))),
    (Longer, st.builds(Longer, x=INTEGERS, y=st.just(-0.0), z=st.decimals())),
    (Computed, st.builds(Computed, INTEGERS)),
    (Box[Decimal], st.builds(Box, st.decimals(), st.lists(st.decimals(), max_size=2))),
    (DecimalBox, st.builds(DecimalBox, st.decimals(), st.lists(st.decimals(), max_size=2), st.booleans())),
    (Named, st.builds(Box, INTEGERS)),
    (Row, st.builds(Row, TEXT, st.decimals())),
    (Pair[date], st.builds(Pair, st.dates(), st.dates())),
    (Person, st.fixed_dictionaries({"name": TEXT}, optional={"born": st.dates()})),
    (Partial, st.fixed_dictionaries({"a": INTEGERS}, optional={"b": st.uuids()})),
    (Sub, st.fixed_dictionaries({"a": INTEGERS}, optional={"b": st.uuids(), "c": st.sampled_from(Side)})),
    (Holds[Decimal], st.fixed_dictionaries({"it": st.decimals()})),
    (Tree, TREES),
    (Line, LINES),
]  # fmt: skip
# What may be in a set, or a key of a dict: hashable, and text or a whole number on the wire.
KEYS = [
    (annotation, values if annotation is not Decimal else st.decimals(allow_nan=False))
    for annotation, values in LEAVES
    if annotation
    in (int, str, bytes, Decimal, UUID, date, time, timedelta, Side, Level, Mood, Rights, UserId)
]

Typed = tuple[Any, st.SearchStrategy[Any]]

# For types that are put together here, which no type checker can follow.
LIST: Any = list
TUPLE: Any = tuple
SET: Any = set
FROZENSET: Any = frozenset
DICT: Any = dict
BOX: Any = Box
ANNOTATED: Any = Annotated
OPTIONAL: Any = Optional
UNION: Any = Union


def larger(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Types that hold those of `inner`, with their values."""
    keys = st.sampled_from(KEYS)
    return st.one_of(
        inner.map(lambda it: (LIST[it[0]], st.lists(it[1], max_size=3))),
        inner.map(lambda it: (TUPLE[it[0], ...], st.lists(it[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda two: (TUPLE[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        ),
        keys.map(lambda it: (SET[it[0]], st.sets(it[1], max_size=3))),
        keys.map(lambda it: (FROZENSET[it[0]], st.frozensets(it[1], max_size=3))),
        st.tuples(keys, inner).map(
            lambda two: (DICT[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))
        ),
        inner.map(lambda it: (BOX[it[0]], st.builds(Box, it[1], st.lists(it[1], max_size=2)))),
        inner.map(lambda it: (ANNOTATED[it[0], "note"], it[1])),
    )


@pytest.mark.parametrize(
    ("annotation", "values"), LEAVES, ids=lambda it: "" if isinstance(it, st.SearchStrategy) else str(it)
)
@given(data=st.data())
def test_every_value_of_a_type_comes_back(
    annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(values)
    other = there_and_back(annotation, value)
    assert same(value, other), other


@given(data=st.data())
def test_every_value_of_a_type_made_of_types_comes_back(data: st.DataObject) -> None:
    annotation, values = data.draw(st.recursive(st.sampled_from(LEAVES), larger, max_leaves=4))
    value = data.draw(values)
    other = there_and_back(annotation, value)
    assert same(value, other), (annotation, other)


@given(
    st.sampled_from(["int | str", "float | None", "Decimal | int | None | list[int] | dict[str, int]"]),
    st.data(),
)
def test_every_value_of_a_union_comes_back(text: str, data: st.DataObject) -> None:
    members = {
        "int": INTEGERS,
        "str": TEXT,
        "float": st.floats(allow_nan=False, allow_infinity=False),
        "None": st.none(),
        "Decimal": st.decimals(),
        "list[int]": st.lists(INTEGERS),
        "dict[str, int]": st.dictionaries(TEXT, INTEGERS),
    }
    value = data.draw(st.one_of(*(members[name] for name in text.split(" | "))))
    assert same(value, there_and_back(eval(text), value))


def test_the_forms_on_the_wire_are_these() -> None:
    """Journals are kept: a change here breaks them."""
    east = timezone(timedelta(hours=5, minutes=30))
    cases: list[tuple[Any, Any, Any]] = [
        (float, 3, 3.0),
        (Decimal, Decimal("1.10"), "1.10"),
        (UUID, UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
        (bytes, b"\x00\xff", "AP8="),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=east), "2026-01-02T03:04:05.000006+05:30"),
        (date, date(2026, 1, 2), "2026-01-02"),
        (time, time(3, 4, 5), "03:04:05"),
        (timedelta, timedelta(days=1, milliseconds=500), "PT86400.5S"),
        (timedelta, -timedelta(seconds=1), "-PT1S"),
        (Side, Side.BUY, "buy"),
        (Level, Level.HIGH, 2),
        (Rights, Rights.READ | Rights.WRITE, 3),
        (Literal["a", 1], 1, 1),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (set[str], {"b", "a", "c"}, ["a", "b", "c"]),
        (Row, Row("a"), ["a", "1"]),
        (Point, Point(1), {"x": 1, "y": 0.0}),
        (Computed, Computed(1), {"x": 1}),
        (Person, {"name": "a", "born": date(2026, 1, 2)}, {"name": "a", "born": "2026-01-02"}),
        (dict[int, str], {-1: "a"}, {"-1": "a"}),
        (dict[UUID, int], {UUID(int=10): 1}, {"00000000-0000-0000-0000-00000000000a": 1}),
        (dict[Level, int], {Level.LOW: 1}, {"1": 1}),
        (OPTIONAL[int], None, None),
    ]
    for annotation, value, plain in cases:
        assert same(wire(annotation, value), plain), annotation


def test_other_forms_that_say_the_same_are_read() -> None:
    """Of other producers. What would lose something is refused, as the tests below say."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    cases: list[tuple[Any, Any, Any]] = [
        (UUID, "00000000-0000-0000-0000-00000000000A", UUID(int=10)),
        (datetime, "2026-01-02T03:04:05.5Z", moment),
        (datetime, "2026-01-02T03:04:05.50+00:00", moment),
        (datetime, "2026-01-02T03:04:05.5-00:00:00", moment),
        (time, "03:04:05.5Z", moment.timetz()),
        (timedelta, "PT01.50S", timedelta(seconds=1.5)),
        (timedelta, "-PT0S", timedelta()),
        (Decimal, "1.", Decimal(1)),
        (Decimal, "+.5", Decimal("0.5")),
        (Decimal, "01e+2", Decimal("1E+2")),
        (float, 3, 3.0),
        (set[int], [3, 1, 2], {1, 2, 3}),
    ]
    for annotation, plain, value in cases:
        assert same(read(annotation, plain), value), plain


def test_a_moment_keeps_its_instant_and_offset_in_every_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for fold, offset in ((0, 2), (1, 1)):
        moment = datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=berlin)
        other = there_and_back(datetime, moment)
        assert other.utcoffset() == timedelta(hours=offset)
        assert other.astimezone(UTC) == moment.astimezone(UTC)
    odd = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, seconds=15, microseconds=3)))
    assert there_and_back(datetime, odd) == odd
    assert there_and_back(datetime, odd).utcoffset() == odd.utcoffset()
    assert read(datetime, "2026-01-01T00:00:00Z") == datetime(2026, 1, 1, tzinfo=UTC)


def test_bare_containers_hold_plain_json() -> None:
    for annotation, value in [(list, [1, "a"]), (tuple, (1, [2])), (set, {1, "a"}), (dict, {"a": [1]})]:
        assert same(there_and_back(annotation, value), value)
    assert there_and_back(tuple[()], ()) == ()
    assert there_and_back(object, {"a": 1}) == {"a": 1}
    with pytest.raises(EncodeError, match=r"data\[0\]: a tuple is not plain JSON"):
        codec.encode(event_of(list)([(1,)]))


def test_any_or_none_is_any() -> None:
    """*Regression*: refused, also as the `T | None` of a generic class without an argument."""
    for annotation in (OPTIONAL[Any], UNION[None, T]):
        for value in (None, 1, [None], {"a": 1.5}):
            assert there_and_back(annotation, value) == value
    with pytest.raises(EncodeError, match="data: expected plain JSON, got a Decimal"):
        codec.encode(event_of(OPTIONAL[Any])(Decimal(1)))


def test_notes_of_annotated_need_no_hash() -> None:
    """*Regression*: inside of a list they did."""
    metres = ANNOTATED[int, {"unit": "m"}]
    for annotation, value in ((metres, 1), (LIST[metres], [1]), (DICT[str, metres], {"a": 1})):
        assert there_and_back(annotation, value) == value


def test_type_variables_are_bound_through_generic_bases() -> None:
    """*Regression*: those of a TypedDict and a NamedTuple were not, or by another base."""
    cases: list[tuple[Any, Any]] = [
        (Priced, {"it": Decimal(1), "number": 1}),
        (Several[int], {"it": [1], "first": 1}),
        (Several[Decimal], {"it": [Decimal(1)], "first": Decimal(1)}),
        (NamedPair, NamedPair(1, 2)),
        (Pairs[int], Pairs([1], [])),
        (Pairs[Decimal], Pairs([Decimal(1)], [])),
    ]
    for annotation, value in cases:
        assert same(there_and_back(annotation, value), value), annotation


def test_an_annotation_means_what_it_means_in_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """*Regression*: in a TypedDict that another module extends, a name was that of the other module."""
    source = """
from __future__ import annotations
from typing import NotRequired, TypedDict
from {} import *
class Side(Enum):
    HERE = "{}"
class {}({}):
    {}: NotRequired[Side]
"""
    modules = [types.ModuleType(name) for name in ("first_module", "second_module")]
    for module, parts in zip(
        modules,
        [("enum", "a", "First", "TypedDict", "one"), ("first_module", "b", "Second", "First", "two")],
        strict=True,
    ):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(source.format(*parts), module.__dict__)
    first, second = modules
    value = {"one": first.Side.HERE, "two": second.Side.HERE}
    assert same(there_and_back(second.Second, value), value)


def test_missing_fields_get_their_defaults_and_unknown_ones_are_ignored() -> None:
    line = read(Line, {"begin": {"x": 1, "gone": 2}})
    assert line == Line(begin=Point(1))
    assert read(Person, {"name": "a", "gone": 1}) == {"name": "a"}


def test_dataclasses_are_built_by_their_own_init() -> None:
    assert read(Computed, {"x": 2}).double == 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 is of Python 3.12")
def test_aliases_and_generics_of_pep_695() -> None:
    names: dict[str, Any] = {"__name__": __name__, "Decimal": Decimal, "dataclass": dataclass, "Event": Event}
    source = """
type Json = None | bool | int | str | list[Json] | dict[str, Json]
type Pairs[T] = list[tuple[T, T]]
type Itself = Itself
type Swapped[A, B] = dict[B, tuple[A, ...]]
type Deep = dict[str, Deep] | Decimal
@dataclass
class Cell[T]:
    it: T
class Kept[T](Event[list[T]]): ...
class OfKept(Kept[Decimal]): ...
"""
    exec(source, names)
    assert there_and_back(names["Json"], {"a": [1, None, {"b": True}]}) == {"a": [1, None, {"b": True}]}
    assert same(
        there_and_back(names["Pairs"][Decimal], [(Decimal(1), Decimal(2))]), [(Decimal(1), Decimal(2))]
    )
    assert there_and_back(names["Swapped"][int, str], {"a": (1,)}) == {"a": (1,)}
    assert there_and_back(names["Deep"], {"a": {"b": Decimal(1)}}) == {"a": {"b": Decimal(1)}}
    assert same(there_and_back(names["Cell"][Decimal], names["Cell"](Decimal(1))), names["Cell"](Decimal(1)))
    for annotation in (names["Itself"], names["Itself"] | None):
        with pytest.raises(EncodeError, match="data: the type Itself is defined by nothing but itself"):
            codec.encode(event_of(annotation)(1))
    codec.register(names["OfKept"], name="kept")
    kept = codec.decode(codec.encode(names["OfKept"]([Decimal("1.10")])))
    assert same(kept.data, [Decimal("1.10")])
    with pytest.raises(EncodeError, match=r"data\[0\]: expected Decimal, got 1"):
        codec.encode(names["OfKept"]([1]))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="PEP 696 is of Python 3.13")
def test_defaults_of_pep_696() -> None:
    """*Regression*: without an argument it was plain JSON."""
    names: dict[str, Any] = {"__name__": __name__, "Decimal": Decimal, "dataclass": dataclass, "Event": Event}
    source = """
class Kept[T = Decimal](Event[T]): ...
class Nested[T = Decimal, U = list[T]](Event[tuple[T, U]]): ...
class OfNested(Nested[int]): ...
class Same[U](Nested[list[U], U]): ...
class OfSame(Same[int]): ...
type Pair[T = Decimal, U = T] = tuple[T, U]
@dataclass
class Cell[T = Decimal]:
    it: T
class Alias(Event[tuple[Pair, Pair[int]]]): ...
class Several[*Ts = *tuple[int, str]](Event[tuple[*Ts]]): ...
class Cells(Event[tuple[Cell, Cell[None]]]): ...
"""
    exec(source, names)
    cell, one = names["Cell"], Decimal(1)
    cases: dict[str, Any] = {
        "Kept": one,
        "Nested": (one, [one]),
        "OfNested": (1, [1]),
        "OfSame": ([1], 1),
        "Alias": ((one, one), (1, 1)),
        "Cells": (cell(one), cell(None)),
    }
    for name, value in cases.items():
        cls = codec.register(names[name], name=name)
        assert same(codec.decode(codec.encode(cls(value))).data, value), name
    with pytest.raises(EncodeError, match="data: expected Decimal, got 1"):
        codec.encode(names["Kept"](1))


# -- values that do not fit ------------------------------------------------------------------------------------------


WRONG: Any = "2"


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class SubPoint(Point):
    pass


class NoOffset(tzinfo):
    def utcoffset(self, moment: object) -> timedelta | None:
        return None

    tzname = dst = utcoffset  # type: ignore[assignment]


class Broken(NoOffset):
    def utcoffset(self, moment: object) -> timedelta | None:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, True, "data: expected int, got True"),
        (int, Count(1), "data: expected int, got a Count"),
        (int, Level.LOW, "data: expected int, got a Level"),
        (int, 1.0, "data: expected int, got 1.0"),
        (int, 2**64, "data: an integer beyond 64 bits cannot be sent"),
        (str, Text("a"), "data: expected str, got a Text"),
        (str, Mood.GOOD, "data: expected str, got a Mood"),
        (str, "\ud800", "data: '\\ud800' has half a character"),
        (str, None, "data: expected str, got None"),
        (bool, 1, "data: expected bool, got 1"),
        (float, True, "data: expected float, got True"),
        (float, math.nan, "data: nan is no number that JSON can hold as a float"),
        (float, -math.inf, "data: -inf is no number that JSON can hold as a float"),
        (float, 2**53 + 1, "data: 9007199254740993 is no number that JSON can hold as a float"),
        (float, 10**400, "data: expected float, got an integer beyond 64 bits: OverflowError"),
        (float, Decimal(1), "data: expected float, got a Decimal"),
        (float | int, math.nan, "data: nan is no number"),
        (Decimal, 1.5, "data: expected Decimal, got 1.5"),
        (UUID, "00000000-0000-0000-0000-00000000000a", "data: expected UUID, got '00000000-"),
        (
            datetime,
            datetime(2026, 1, 1),  # noqa: DTZ001 - that is what is tried
            "data: expected an aware datetime, got one without an offset",
        ),
        (
            datetime,
            datetime(2026, 1, 1, tzinfo=NoOffset()),
            "data: expected an aware datetime, got one without",
        ),
        (
            datetime,
            datetime(2026, 1, 1, tzinfo=Broken()),
            "data: expected datetime, got a datetime: ZeroDivisionError",
        ),
        (datetime, date(2026, 1, 1), "data: expected datetime, got a date"),
        (date, datetime(2026, 1, 1, tzinfo=UTC), "data: expected date, got a datetime"),
        (
            time,
            time(1, tzinfo=ZoneInfo("Europe/Berlin")),
            "data: expected a time without time zone or with a fixed",
        ),
        (time, time(1, fold=1), "data: expected a time with fold=0, got fold=1"),
        (
            datetime,
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
            "data: its offset from UTC is less than a second",
        ),
        (
            time,
            time(1, tzinfo=timezone(-timedelta(microseconds=500_000))),
            "data: its offset from UTC is less than a second",
        ),
        (bytes, bytearray(b"x"), "data: expected bytes, got a bytearray"),
        (Side, "buy", "data: expected Side, got 'buy'"),
        (Side, Mood.GOOD, "data: expected Side, got a Mood"),
        (Literal["a", 1], True, "data: expected one of 'a', 1, got True"),
        (Literal["a", 1], 1.0, "data: expected one of 'a', 1, got 1.0"),
        (list[int], (1,), "data: expected list, got a tuple"),
        (list[int], [1, "2"], "data[1]: expected int, got '2'"),
        (tuple[int, ...], [1], "data: expected tuple, got a list"),
        (tuple[int, int], (1,), "data: expected tuple of 2 items, got 1"),
        (tuple[int, str], (1, 2), "data[1]: expected str, got 2"),
        (set[int], frozenset({1}), "data: expected set, got a frozenset"),
        (dict[str, int], {1: 1}, "data[1]: expected str, got 1"),
        (dict[int, int], {1: "a"}, "data['1']: expected int, got 'a'"),
        (dict[int, int], {10**5000: 1}, "data[an integer beyond 64 bits]: the key: ValueError"),
        (dict[str, int], OrderedDict(a=1), "data: expected dict, got an OrderedDict"),
        (
            dict[Side, list[Point]],
            {Side.BUY: [Point(1), Point(WRONG)]},
            "data['buy'][1].x: expected int, got '2'",
        ),
        (Point, SubPoint(1), "data: expected Point, got a SubPoint"),
        (Point, {"x": 1}, "data: expected Point, got a dict"),
        (Row, ("a", Decimal(1)), "data: expected Row, got a tuple"),
        (Row, Row("a", WRONG), "data[1]: expected Decimal, got '2'"),
        (Person, {"born": date(2026, 1, 1)}, "data.name: missing"),
        (Person, {"name": "a", "more": 1}, "data: Person has no key 'more'"),
        (Person, {"name": 1}, "data.name: expected str, got 1"),
        (int | str, 1.5, "data: expected int | str, got 1.5"),
        (OPTIONAL[Point], Point(WRONG), "data.x: expected int, got '2'"),
    ],
    ids=title,
)
def test_a_value_of_another_type_is_refused(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(event_of(annotation)(value))
    assert str(caught.value).split(": ", 1)[1].startswith(message)


@pytest.mark.parametrize(
    ("annotation", "plain", "message"),
    [
        (int, "1", "expected int, got '1'"),
        (float, "1", "expected float, got '1'"),
        (float, 2**53 + 1, "9007199254740993 is no number"),
        (Decimal, 0.1, "expected Decimal, got 0.1"),
        (Decimal, 1, "expected Decimal, got 1"),
        (Decimal, "abc", "expected Decimal, got 'abc'"),
        (Decimal, " 1", "expected Decimal, got ' 1'"),
        (Decimal, "1_0", "expected Decimal, got '1_0'"),
        (Decimal, "١", "expected Decimal, got '١'"),
        (
            Decimal,
            "1E+99999999999999999999",
            "expected Decimal, got '1E+99999999999999999999': InvalidOperation",
        ),
        (UUID, "{00000000-0000-0000-0000-00000000000a}", "expected UUID, got '{0000"),
        (UUID, "0000000000000000000000000000000a", "expected UUID"),
        (datetime, "2026-01-01T00:00:00", "expected an aware datetime in ISO 8601, got '2026"),
        (datetime, "2026-01-01T00:00:00.1234567Z", "expected an aware datetime in ISO 8601"),
        (datetime, "2026-13-01T00:00:00Z", "expected datetime, got '2026-13-01T00:00:00Z': ValueError"),
        (datetime, 5, "expected datetime, got 5"),
        (datetime, "2026-01-01T00:00:00+00:00:00.500000", "expected an aware datetime in ISO 8601"),
        (time, "00:00:00-00:00:00.500000", "expected a time in ISO 8601"),
        (date, "2026-W01-1", "expected a date in ISO 8601"),
        (date, "2026-02-30", "expected date, got '2026-02-30': ValueError"),
        (time, "1:2", "expected a time in ISO 8601"),
        (time, "24:00:00", "expected a time in ISO 8601"),
        (datetime, "2026-01-01T24:00:00Z", "expected an aware datetime in ISO 8601"),
        (time, "25:00:00", "expected time, got '25:00:00': ValueError"),
        (timedelta, "P1D", "expected a duration in seconds, like PT1.5S, got 'P1D'"),
        (timedelta, f"PT{'9' * 20}S", "expected timedelta"),
        (timedelta, f"PT{'9' * 5000}S", "expected timedelta"),
        (bytes, "!", "expected bytes, got '!'"),
        (bytes, "é", "expected bytes, got 'é'"),
        (bytes, "QR==", "expected bytes, got 'QR=='"),  # four bits too many
        (bytes, "QUF=", "expected bytes, got 'QUF='"),  # two
        (bytes, "QQ", "expected bytes, got 'QQ'"),
        (bytes, "QQ==QQ==", "expected bytes, got 'QQ==QQ=='"),
        (bytes, "QQ==\n", "expected bytes, got 'QQ==\\n'"),
        (Side, "BUY", "expected Side, got 'BUY'"),
        (Side, ["buy"], "expected Side, got a list"),
        (Level, True, "expected Level, got True"),
        (Level, 1.0, "expected Level, got 1.0"),
        (Rights, 4, "expected Rights, got 4: ValueError"),
        (Rights, -1, "expected Rights, got -1"),
        (Drops, 3, "expected Drops, got 3"),
        (Literal["a"], {}, "expected one of 'a', got a dict"),
        (list[int], {"0": 1}, "expected list, got a dict"),
        (set[int], [1, 1], "expected set, got the same item twice"),
        (set[list[int]], [[1]], "data: expected set: TypeError: "),
        (tuple[int, int], [1, 2, 3], "expected tuple of 2 items, got 3"),
        (Row, ["a"], "expected Row of 2 items, got 1"),
        (Row, {"name": "a"}, "expected Row, got a dict"),
        (dict[int, int], {"1.0": 1}, "data['1.0']: expected a key of type int, got '1.0'"),
        (dict[int, int], {"01": 1}, "data['01']: expected a key of type int"),
        (dict[int, int], {"x": 1}, "data['x']: expected a key of type int"),
        (dict[int, int], {"": 1}, "data['']: expected a key of type int"),
        (dict[int, int], {"-0": 1}, "data['-0']: expected a key of type int"),
        (dict[int, int], {"9" * 5000: 1}, "the key: ValueError: Exceeds the limit"),
        (dict[Decimal, int], {"sNaN": 1}, "data['sNaN']: the key: TypeError: "),
        (set[Decimal], ["sNaN"], "data: expected set: TypeError: "),
        (dict[Decimal, int], {"1": 1, "1.0": 2}, "data['1.0']: the same key twice"),
        (dict[Level, int], {"3": 1}, "data['3']: expected Level, got 3"),
        (dict[str, int], [], "expected dict, got a list"),
        (Point, [], "expected Point, got a list"),
        (Point, {}, "data.x: missing"),
        (Point, {"x": None}, "data.x: expected int, got None"),
        (list[Point], [{"x": 1}, {"x": 1, "y": "z"}], "data[1].y: expected float, got 'z'"),
        (Person, {}, "data.name: missing"),
        (Sub, {"b": "00000000-0000-0000-0000-00000000000a"}, "data.a: missing"),
        (int | None, "x", "expected int | None, got 'x'"),
    ],
    ids=title,
)
def test_json_of_another_type_is_refused(annotation: Any, plain: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(annotation, plain)
    assert message in str(caught.value)
    assert re.match(r"Probe\d+: data", str(caught.value))


def test_what_a_dataclass_raises_is_the_cause() -> None:
    with pytest.raises(
        DecodeError, match=r"Probe\d+: data\[0\]: Positive refuses it: ValueError: -1 is too small"
    ) as caught:
        read(list[Positive], [{"x": -1}])
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_dataclass_that_makes_something_else_of_its_fields_is_refused() -> None:
    """*Regression*: 3 came back as 12, through an __init__ that doubles; later only `decode` refused it."""
    for doubling in (Doubles, DoublesAfter):
        with pytest.raises(DecodeError, match=rf"Probe\d+: data\.x: {doubling.__name__} makes 12 of 6"):
            read(doubling, {"x": 6})
        for annotation, value, place in (
            (doubling, doubling(3), "data.x"),
            (LIST[DICT[str, doubling]], [{}, {"a": doubling(3)}], "data[1]['a'].x"),
            (BOX[doubling], Box(doubling(0), [doubling(3)]), "data.more[0].x"),
        ):
            with pytest.raises(EncodeError, match=f"{doubling.__name__} makes 12 of 6") as caught:
                codec.encode(event_of(annotation)(value))
            assert caught.value.place == place
    assert there_and_back(Strips, Strips(" a ")) == Strips("a")


def test_a_dataclass_that_makes_another_one_is_refused() -> None:
    """*Regression*: its subclass came back; later only `decode` refused it."""
    value = object.__new__(Chooses)
    value.x = 1
    with pytest.raises(EncodeError, match=r"Probe\d+: data: Chooses makes a Chosen"):
        codec.encode(event_of(Chooses)(value))
    with pytest.raises(DecodeError, match=r"Probe\d+: data: Chooses makes a Chosen"):
        read(Chooses, {"x": 1})


@pytest.mark.parametrize("cls", ["Positive", "ByMeta", "BySetting", "ByProperty"])
def test_a_value_that_its_class_would_not_make_is_refused(cls: str) -> None:
    """*Regression*: one that was changed after it was checked was encoded, and `decode` refused it."""
    made: Any = globals()[cls]
    value = made(1)
    assert there_and_back(made, value).x == 1
    vars(value)["_x" if made is ByProperty else "x"] = -1
    with pytest.raises(
        EncodeError, match=rf"Probe\d+: data\[1\]: {cls} refuses it: ValueError: -1 is too small"
    ) as caught:
        codec.encode(event_of(list[made])([made(1), value]))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_dataclass_that_changes_what_its_fields_hold_is_refused() -> None:
    """*Regression*: each journey added an item."""
    for name, value in (("tags", AddsItems(["a"])), ("rest", AddsItems(rest=[1]))):
        with pytest.raises(EncodeError) as caught:
            codec.encode(event_of(AddsItems)(value))
        assert caught.value.place == f"data[{name!r}]"
        assert "comes back as another" in str(caught.value)
    late = AddsKey({})
    assert there_and_back(AddsKey, late).it == late.it == {"key": True}
    late.it["key"] = 1
    with pytest.raises(EncodeError, match=r"data\['it'\]\['key'\]: 1 comes back as another: True"):
        codec.encode(event_of(AddsKey)(late))
    late.it.clear()
    with pytest.raises(EncodeError, match=r"data\['it'\]: a dict comes back as another"):
        codec.encode(event_of(AddsKey)(late))


def test_a_dataclass_without_code_of_its_own_is_not_made_to_be_encoded() -> None:
    """It would cost every event of it, to find nothing."""
    assert not any(map(runs_code, (Line, Longer, Box, Tree, Slotted, Abstract)))
    assert all(map(runs_code, (Computed, Doubles, DoublesAfter, Chooses, ByMeta, BySetting, ByReading)))
    assert all(map(runs_code, (ByProperty, OwnInit)))


def test_a_hash_that_raises_is_a_decode_error() -> None:
    """*Regression*: only a TypeError was."""
    assert there_and_back(set[HashesNumbers], {HashesNumbers("1")}) == {HashesNumbers("1")}
    with pytest.raises(DecodeError, match=r"Probe\d+: data: expected set: ValueError: invalid literal"):
        read(set[HashesNumbers], [{"x": "a"}])


def test_a_decimal_is_read_the_same_in_every_context() -> None:
    """*Regression*: with this trap off, Decimal("abc") is NaN."""
    with localcontext(Context(prec=2, traps=[])) as context:
        context.traps[InvalidOperation] = False
        assert str(there_and_back(Decimal, Decimal("1.23456789"))) == "1.23456789"
        with pytest.raises(DecodeError):
            read(Decimal, "1E+99999999999999999999")


def test_keys_and_items_that_would_come_back_as_one_are_refused() -> None:
    """*Regression*: of two such keys one was lost, and a set of two such items could not be read."""
    berlin = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    for other in (berlin.replace(tzinfo=timezone(timedelta(hours=2))), berlin.astimezone(UTC)):
        assert len({berlin, other}) == 2
        with pytest.raises(EncodeError, match=r"data: two of its keys would come back as one"):
            codec.encode(event_of(dict[datetime, int])({berlin: 1, other: 2}))
        with pytest.raises(EncodeError, match=r"data: expected set, got the same item twice"):
            codec.encode(event_of(set[datetime])({berlin, other}))
    with pytest.raises(EncodeError, match=r"data: two of its keys would come back as one"):
        codec.encode(event_of(dict[Decimal, int])({Decimal("NaN"): 1, Decimal("NaN"): 2}))
    assert len(there_and_back(dict[Decimal, int], {Decimal("NaN"): 1})) == 1
    assert len(there_and_back(set[Decimal], {Decimal("NaN"), Decimal("NaN")})) == 2


# -- types that cannot be sent ---------------------------------------------------------------------------------------


@dataclass
class Positive:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"{self.x} is too small")


@dataclass
class Doubles:
    x: int

    def __init__(self, x: int) -> None:
        self.x = 2 * x


@dataclass
class DoublesAfter:
    x: int

    def __post_init__(self) -> None:
        self.x *= 2


@dataclass
class Strips:
    x: str

    def __post_init__(self) -> None:
        self.x = self.x.strip()


@dataclass
class AddsItems:
    tags: list[str] = field(default_factory=list)
    rest: Any = None

    def __post_init__(self) -> None:
        for items in (self.tags, self.rest):
            if items:
                items.append("end")


@dataclass
class AddsKey:
    it: Any

    def __post_init__(self) -> None:
        self.it["key"] = True


def refuse(value: int) -> None:
    if value < 0:
        raise ValueError(f"{value} is too small")


class Refusing(type):
    def __call__(cls, x: int) -> Any:
        refuse(x)
        return super().__call__(x)


@dataclass
class ByMeta(metaclass=Refusing):
    x: int


@dataclass
class BySetting:
    x: int

    def __setattr__(self, name: str, value: Any) -> None:
        refuse(value)
        super().__setattr__(name, value)


@dataclass
class ByReading:
    x: int

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "x":
            refuse(value)
        return value


@dataclass
class ByProperty:
    x: int

    @property  # type: ignore[no-redef]
    def x(self) -> int:
        return self._x

    @x.setter
    def x(self, value: int) -> None:
        refuse(value)
        self._x = value


@dataclass(frozen=True, slots=True, order=True)
class Slotted(Generic[T]):
    x: int
    y: list[T] = field(default_factory=list)


@dataclass(unsafe_hash=True, kw_only=True)
class Abstract(ABC):
    x: int


@dataclass
class Chooses:
    x: int

    def __new__(cls, x: int) -> Chooses:  # noqa: PYI034 - an instance of another class is meant
        return object.__new__(Chosen)


class Chosen(Chooses):
    pass


@dataclass(frozen=True)
class HashesNumbers:
    x: str

    def __hash__(self) -> int:
        return int(self.x)


@dataclass
class WithInitVar:
    x: int
    seed: InitVar[int] = 0


@dataclass(init=False)
class OwnInit:
    x: int

    def __init__(self, text: str) -> None:
        self.x = int(text)


@dataclass(init=False)
class AnyNumber:
    x: tuple[int, ...]

    def __init__(self, *x: int) -> None:
        self.x = x


@dataclass(init=False)
class AnyNames:
    x: dict[str, int]

    def __init__(self, **x: int) -> None:
        self.x = x


@dataclass(init=False)
class ByPlace:
    x: int

    def __init__(self, x: int, /) -> None:
        self.x = x


class NotADataclass(Point):
    def __init__(self) -> None:
        super().__init__(1)


@dataclass
class AlsoADict(dict[str, int]):
    x: int


@dataclass
class Unknown:
    x: NoSuchName  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Inner:
    what: complex


@dataclass
class Holder:
    inner: list[Inner]


@dataclass
class OpenEnded:
    it: tuple[int, *tuple[str, ...]]


class Strange(TypedDict):
    it: Inner


class Wrong(NamedTuple):
    name: str
    it: complex


class TupleValued(Enum):
    A = (1, 2)


Untyped = namedtuple("Untyped", "a b")  # noqa: PYI024 - one without types is meant


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (complex, "data: the type complex cannot be sent"),
        (type, "data: the type type cannot be sent"),
        (Event, "data: the type Event cannot be sent"),
        (deque[int], "data: the type deque cannot be sent"),
        (defaultdict[str, int], "data: the type defaultdict cannot be sent"),
        (
            Sequence[int],
            "data: the type Sequence cannot be sent; say list, dict, set or tuple, which one it is",
        ),
        (Mapping[str, int], "data: the type Mapping cannot be sent; say list"),
        (Iterable[int], "data: the type Iterable cannot be sent; say list"),
        (Callable[[int], int], "data: the type Callable cannot be sent"),
        (Holder, "data.inner.what: the type complex cannot be sent"),
        (Strange, "data.it.what: the type complex cannot be sent"),
        (Wrong, "data[1]: the type complex cannot be sent"),
        (TupleValued, "data: TupleValued.A has the value a tuple; only str and int can be sent"),
        (
            WithInitVar,
            "data: WithInitVar cannot be sent: what its __init__ takes (x, seed) are not just its fields",
        ),
        (OwnInit, "data: OwnInit cannot be sent: what its __init__ takes (text) are not just its fields"),
        (AnyNumber, "data: AnyNumber cannot be sent: what its __init__ takes (x not by name) are not just"),
        (AnyNames, "data: AnyNames cannot be sent: what its __init__ takes (x not by name) are not just"),
        (ByPlace, "data: ByPlace cannot be sent: what its __init__ takes (x not by name) are not just"),
        (NotADataclass, "data: the type NotADataclass cannot be sent"),
        (AlsoADict, "data: AlsoADict cannot be sent: it holds more than its fields"),
        (Unknown, "data: an annotation of Unknown cannot be resolved: NameError"),
        (Untyped, "data: Untyped has fields without a type"),
        (dict[tuple[int, int], int], "data: dict keys of type tuple cannot be sent"),
        (dict[bool, int], "data: dict keys of type bool cannot be sent"),
        (dict[float, int], "data: dict keys of type float cannot be sent"),
        (dict[int | str, int], "data: dict keys of type int | str cannot be sent"),
        (dict[Mixed, int], "data: dict keys of type Mixed cannot be sent"),
        (UNION[Point, Tree], "data: Point and Tree in one union cannot be told apart in JSON"),
        (str | Decimal, "data: str and Decimal in one union cannot be told apart in JSON"),
        (list[int] | set[int], "data: list and set in one union cannot be told apart in JSON"),
        (Side | str, "data: Side and str in one union cannot be told apart in JSON"),
        (Any | int, "in one union cannot be told apart in JSON"),
        (Literal[b"x"], "data: the Literal a bytes cannot be sent"),
        (Literal["buy", Side.BUY], "data: two values of one of 'buy', 'buy' are the same in JSON"),
        (Annotated[complex, []], "data: the type complex cannot be sent"),
        (OpenEnded, "cannot be sent: how many items it stands for is not known"),
    ],
    ids=title,
)
def test_a_type_that_cannot_be_sent_is_refused_both_ways(annotation: Any, message: str) -> None:
    with pytest.raises(EncodeError) as encoding:
        codec.encode(event_of(annotation)(None))
    with pytest.raises(DecodeError) as decoding:
        read(annotation, None)
    assert message in str(encoding.value)
    assert str(encoding.value) == str(decoding.value)


def test_literals_of_one_union_are_one() -> None:
    annotation = UNION[Literal["a"], Literal["b"], None]
    for value in ("a", "b", None):
        assert there_and_back(annotation, value) == value
    with pytest.raises(EncodeError, match="data: expected one of 'a', 'b', got 'c'"):
        codec.encode(event_of(annotation)("c"))

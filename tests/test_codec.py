"""`event_flow.codec`: what an event is on the wire, whose name it has there, and what is refused with which words."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import re
import subprocess
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import ModuleType, new_class
from typing import Any, Generic, Protocol, TypedDict, TypeVar, TypeVarTuple

import orjson
import pytest

from event_flow import AppEngine, Event, EventFlowError, EventWithSource, ExceptionEvent, codec
from event_flow.codec import RemoteError, UnsentEvent, names
from event_flow.core.exception import DeclarationError, DecodeError, EncodeError

if sys.version_info >= (3, 13):
    from typing import TypeVar as TypeVarWithDefault
else:
    from typing_extensions import TypeVar as TypeVarWithDefault

T = TypeVar("T")
K = TypeVar("K")
K_co = TypeVar("K_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    name: str
    price: Decimal


@dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Ping(Event):
    """Without a type parameter."""


class Number(Event[int]):
    pass


class Ordered(Event[Order]):
    pass


class Ahead(Event["Later"]):
    pass


@dataclass
class Later:
    x: int


class Branch(TypedDict):
    below: list[Branch]


class Tree(Event[Branch]):
    pass


class Message(EventWithSource[Decimal]):
    pass


class Base(Event[T], Generic[T]):
    pass


class OfBase(Base[Decimal]):
    pass


class Two(Event[T], Generic[K, T]):
    pass


class Half(Two[str, K], Generic[K]):
    pass


class OfHalf(Half["Later"]):
    pass


class Sourced(EventWithSource[list[T]], Generic[T]):
    pass


class OfSourced(Sourced[Decimal]):
    pass


Ts = TypeVarTuple("Ts")
D = TypeVarWithDefault("D", default=Decimal)
E = TypeVarWithDefault("E", default=dict[str, D])


class Several(Event[tuple[*Ts]], Generic[*Ts]):
    pass


class OfSeveral(Several[int, str]):
    pass


class OfNone(Several[()]):
    pass


class Last(Event[T], Generic[*Ts, T]):
    pass


class OfLast(Last[int, str, Decimal]):
    pass


class First(Event[dict[K, tuple[*Ts]]], Generic[K, *Ts]):
    pass


class OfFirst(First[str, int]):
    pass


class Middle(Event[tuple[K, tuple[*Ts], T]], Generic[T, *Ts, K]):
    pass


class OfMiddle(Middle[bool, int, str, Decimal]):
    pass


class WithDefault(Event[D]):
    pass


class TwoDefaults(Event[E], Generic[D, E]):
    pass


class OfDefault(TwoDefaults[list[Decimal]]):
    pass


class HalfDefault(TwoDefaults[int]):
    pass


class Mixin:
    def shout(self) -> str:
        return "!"


class Mixed(Mixin, OfBase):
    pass


class Speaks(Protocol[K_co]):
    def speak(self) -> K_co: ...


class Spoken(OfBase, Speaks[str]):
    def speak(self) -> str:
        return "!"


class Diamond(OfBase, Ping):
    pass


class Outer:
    class Inner(Event[int]):
        pass


ITEM = Item(name="lamp", price=Decimal("1.10"))


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Names that a test pins are free again after it."""
    tables: list[dict[Any, Any]] = [names._classes, names._names]
    before = [table.copy() for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def there_and_back(event: Event[Any]) -> Any:
    other = codec.decode(codec.encode(event))
    assert type(other) is type(event)
    assert other is not event
    return other


def on_the_wire(event: Event[Any]) -> Any:
    return orjson.loads(codec.encode(event))


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message", "place"),
    [
        (b"", "not JSON", ""),
        (b"   ", "not JSON", ""),
        (b"\xff\xfe", "not JSON", ""),
        (b'{"type": "test_codec:Ping"', "not JSON", ""),
        (b"NaN", "not JSON", ""),
        (b"null", "expected an object, got None", ""),
        (b"[]", "expected an object, got a list", ""),
        (b'"test_codec:Ping"', "expected an object, got 'test_codec:Ping'", ""),
        (b"{}", "type: expected the name of an event class, got None", "type"),
        (b'{"type": 5}', "type: expected the name of an event class, got 5", "type"),
        (b'{"type": ""}', "type: no event class '' is loaded", "type"),
        (b'{"type": "Nobody"}', "type: no event class 'Nobody' is loaded; import the module that", "type"),
        (b'{"type": "Ping"}', "no event class 'Ping' is loaded", "type"),
        (b'{"type": "test_codec:Item"}', "no event class 'test_codec:Item' is loaded", "type"),
        (b'{"type": "test_codec:Nobody"}', "no event class", "type"),
        (b'{"type": "test_codec:"}', "no event class", "type"),
        (b'{"type": ":"}', "no event class", "type"),
        (b'{"type": "test_codec:Outer.Nobody.Inner"}', "no event class", "type"),
        (b'{"type": "test_codec:Event"}', "no event class", "type"),  # it is not defined here
        (b'{"type": "os:system"}', "no event class", "type"),
        (b'{"type": "test_codec:Ping", "v": 2}', "v: written in a form that this version", "v"),
        (b'{"type": "test_codec:Ping", "meta": []}', "Ping: meta: expected an object, got a list", "meta"),
        (b'{"type": "test_codec:Number"}', "Number: data: expected int, got None", "data"),
        (b'{"type": "test_codec:Number", "data": "1"}', "Number: data: expected int, got '1'", "data"),
        (b'{"type": "test_codec:Number", "data": 1.0}', "Number: data: expected int, got 1.0", "data"),
        (b'{"type": "test_codec:Number", "data": true}', "Number: data: expected int, got True", "data"),
        (
            b'{"type": "test_codec:Ordered", "data": {"items": [{"name": "a", "price": "1"}, {"name": "b", "price": 1}]}}',
            "Ordered: data.items[1].price: expected Decimal, got 1",
            "data.items[1].price",
        ),
        (
            b'{"type": "test_codec:Ordered", "data": {"items": [{"name": "a"}]}}',
            "Ordered: data.items[0].price: missing",
            "data.items[0].price",
        ),
    ],
)
def test_bytes_that_are_no_event_are_refused_with_what_and_where(
    wrong: bytes, message: str, place: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(wrong)
    assert message in str(caught.value)
    assert caught.value.place == place


@pytest.mark.parametrize("depth", [100, 1_000, 1_024, 1_025, 100_000])
def test_deep_nesting_is_no_recursion_error(depth: int) -> None:
    read = 0
    for name, opened, closed in [
        (b"Ping", b"[", b"]"),
        (b"Number", b"[", b"]"),
        (b"Tree", b'{"below": [', b"]}"),
        (b"Nobody", b'{"type": ', b"}"),
        (
            b"ExceptionEvent",
            b'{"type": "ExceptionEvent", "data": {"type": "X"}, "handler": "x", "events": [',
            b"]}",
        ),
    ]:
        inside = opened * depth + (b"1" if closed == b"}" else b"") + closed * depth
        try:
            codec.decode(b'{"type": "test_codec:%b", "data": %b}' % (name, inside))
            read += 1
        except DecodeError:
            pass
        with pytest.raises(DecodeError):
            codec.decode(inside)
    assert read == {100: 2, 1_000: 1}.get(depth, 0)


def test_what_is_no_event_or_no_bytes_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="only events can be encoded, not 5"):
        codec.encode(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only events can be encoded, not a type"):
        codec.encode(Ping)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"only bytes can be decoded, not '\{\}'"):
        codec.decode("{}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (float("nan"), "data: nan is no number that JSON has"),
        ([1, {"a": float("-inf")}], "data[1]['a']: -inf is no number that JSON has"),
        (2**64, "data: an integer beyond 64 bits cannot be sent"),
        ({"a": [0, -(2**63) - 1]}, "data['a'][1]: an integer beyond 64 bits cannot be sent"),
        (10**5000, "data: an integer beyond 64 bits cannot be sent"),
        (["é\ud800"], "data[0]: 'é\\ud800' has half a character (a lone surrogate)"),
        ({"\udfff": 1}, "data['\\udfff']: '\\udfff' has half a character"),
        ({1: "a"}, "data[1]: the key 1 is not a str"),
        ({(1, 2): "a"}, "data: the key a tuple is not a str"),
        ((1, 2), "data: a tuple is not plain JSON"),
        ({"a": {1}}, "data['a']: a set is not plain JSON"),
        (Decimal(1), "data: a Decimal is not plain JSON"),
        (datetime.now(UTC), "data: a datetime is not plain JSON"),
        (ITEM, "data: an Item is not plain JSON"),
        (b"x", "data: a bytes is not plain JSON"),
        (type("Text", (str,), {})("x"), "data: a Text is not plain JSON"),
        (type("Count", (int,), {})(1), "data: a Count is not plain JSON"),
        (type("Names", (dict,), {})(), "data: a Names is not plain JSON"),
        (object(), "data: an object is not plain JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("data") else "",
)
def test_data_that_would_not_come_back_is_refused(data: object, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(Ping(data))
    assert str(caught.value).startswith(f"Ping: {message}")
    assert caught.value.place == message.split(":")[0]


def test_data_is_checked_against_the_type_parameter() -> None:
    with pytest.raises(EncodeError, match=r"^Number: data: expected int, got None$"):
        codec.encode(Number())
    with pytest.raises(EncodeError, match=r"^Number: data: expected int, got True$"):
        codec.encode(Number(True))
    order = Order([ITEM, Item(name="book", price=9.5)])  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"^Ordered: data\.items\[1\]\.price: expected Decimal, got 9\.5$"):
        codec.encode(Ordered(order))


def test_meta_and_source_are_plain_json() -> None:
    event = Message("here", Decimal(1))
    event.update_meta(at=Decimal(2))
    with pytest.raises(EncodeError, match=r"^Message: meta\['at'\]: a Decimal is not plain JSON"):
        codec.encode(event)
    with pytest.raises(EncodeError, match=r"^Message: source: a tuple is not plain JSON"):
        codec.encode(Message(("a", 1), Decimal(1)))
    with pytest.raises(EncodeError, match=r"^Message: source: 'é\\ud800' has half a character"):
        codec.encode(Message("é\ud800", Decimal(1)))


def test_what_is_nested_too_deeply_or_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    twig: Branch = {"below": []}
    for _ in range(1000):
        twig = {"below": [twig]}
    sourced, noted = Message(deep, Decimal(1)), Ping()
    noted.update_meta(circle=circle)
    for event, place in (
        (Ping(circle), "data"),
        (Ping(deep), "data"),
        (Tree(twig), "data"),
        (sourced, "source"),
        (noted, "meta"),
    ):
        with pytest.raises(
            EncodeError, match=f"^{type(event).__name__}: {place}: nested too deeply"
        ) as caught:
            codec.encode(event)
        assert caught.value.place == place


def nested(levels: int) -> Any:
    data: Any = 1
    for _ in range(levels):
        data = [data]
    return data


def test_two_hundred_levels_are_written_and_read_and_three_hundred_only_read() -> None:
    twig: Branch = {"below": []}
    for _ in range(99):
        twig = {"below": [twig]}
    assert there_and_back(Tree(twig)).data == twig
    assert there_and_back(Ping(nested(200))).data == nested(200)
    with pytest.raises(EncodeError, match="data: nested too deeply"):
        codec.encode(Ping(nested(300)))
    read: Any = codec.decode(b'{"type": "test_codec:Ping", "data": %b1%b}' % (b"[" * 1000, b"]" * 1000)).data
    for _ in range(1000):
        (read,) = read
    assert read == 1


@pytest.mark.parametrize("opened", [b'{"below": [', b'{"below": [{"below": ['])
def test_what_is_nested_too_deeply_to_be_read_has_a_place(opened: bytes) -> None:
    closed = opened.count(b"[") * b"]}"
    data = opened * 480 + closed * 480 if len(closed) == 2 else opened * 240 + closed * 240
    with pytest.raises(DecodeError, match=r"^Tree: data: nested too deeply") as caught:
        codec.decode(b'{"type": "test_codec:Tree", "data": %b}' % data)
    assert caught.value.place == "data"


class Meddler(tzinfo):
    """Changes `data` while it is walked, as another thread may."""

    data: dict[str, datetime]

    def utcoffset(self, moment: datetime | None) -> timedelta:
        self.data["more"] = datetime.now(UTC)
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "meddler"

    def dst(self, moment: datetime | None) -> None:
        return None


class Moments(Event[dict[str, datetime]]):
    pass


def test_data_that_is_changed_meanwhile_is_refused() -> None:
    zone = Meddler()
    zone.data = {"a": datetime(2026, 1, 1, tzinfo=zone), "b": datetime(2026, 1, 1, tzinfo=UTC)}
    with pytest.raises(EncodeError, match="Moments: dictionary changed size during iteration"):
        codec.encode(Moments(zone.data))


@dataclass
class Watched:
    anything: Any
    moment: datetime


class Watching(Event[Watched]):
    pass


def test_what_is_written_is_what_was_looked_at() -> None:
    """*Regression*: what was put in after that was written as orjson likes it, a datetime as a str."""
    zone = Meddler()
    zone.data = {}
    event = Watching(Watched(zone.data, datetime(2026, 1, 1, tzinfo=zone)))
    assert on_the_wire(event)["data"]["anything"] == {}
    assert zone.data


def test_an_event_with_attributes_of_its_own_is_refused() -> None:
    """They would be missing on the other side."""

    @codec.register(name="rich")
    class Rich(Event[int]):
        def __init__(self, data: int, extra: str) -> None:
            super().__init__(data)
            self.extra = extra

    @codec.register(name="slotted")
    class Slotted(Event[int]):
        __slots__ = ("__private",)

        def hide(self) -> None:
            self.__private = 1

    @codec.register(name="fields")
    @dataclass
    class Fields(Event[int]):
        price: int

    with pytest.raises(EncodeError, match="Rich: it has the attribute 'extra', which is not sent"):
        codec.encode(Rich(1, "more"))
    slotted = Slotted(1)
    assert there_and_back(slotted).data == 1
    slotted.hide()
    with pytest.raises(EncodeError, match="it has the attribute '_Slotted__private'"):
        codec.encode(slotted)
    with pytest.raises(EncodeError, match="it has the attribute 'price'"):
        codec.encode(Fields(1))


def test_an_event_without_data_or_source_is_refused() -> None:
    @codec.register(name="silent")
    class Silent(EventWithSource[Any]):
        def __init__(self) -> None: ...

    event = Silent()
    with pytest.raises(EncodeError, match="Silent: data: not set; an __init__ did not call that of Event"):
        codec.encode(event)
    event.data = None
    with pytest.raises(EncodeError, match="Silent: source: not set"):
        codec.encode(event)


class Constant(Event[int]):
    __slots__ = ()

    def __init__(self) -> None:
        pass

    @property
    def data(self) -> int:  # type: ignore[override]
        return 5


class Roof(EventWithSource[int]):
    __slots__ = ()
    source = "roof"

    def __init__(self, data: int) -> None:
        Event.__init__(self, data)


class Cellar(EventWithSource[int]):
    source = "cellar"

    def __init__(self, data: int) -> None:
        Event.__init__(self, data)


def test_an_event_whose_class_has_the_only_data_or_source_is_refused() -> None:
    """*Regression*: it was encoded, and could not be built."""
    for event, name in ((Constant(), "data"), (Roof(5), "source")):
        with pytest.raises(EncodeError, match=f"{name}: {type(event).__name__} has it in the class"):
            codec.encode(event)
    assert there_and_back(Cellar(5)).source == "cellar"


def test_an_event_whose_own_property_adds_a_source_is_refused() -> None:
    """*Regression*: None came back as somebody."""
    place: Any = vars(EventWithSource)["source"]

    class Somebody(EventWithSource[int]):
        @property
        def source(self) -> Any:
            return place.__get__(self)

        @source.setter
        def source(self, value: Any) -> None:
            place.__set__(self, value or "somebody")

    codec.register(Somebody, name="somebody")
    event = Somebody("me", 1)
    assert codec.decode(codec.encode(event)).source == "me"  # type: ignore[attr-defined]
    place.__set__(event, None)
    with pytest.raises(EncodeError, match="Somebody: source: None comes back as another: 'somebody'"):
        codec.encode(event)


def test_an_event_whose_own_property_changes_its_data_is_refused() -> None:
    """*Regression*: 2 came back as 3."""

    slot: Any = inspect.getattr_static(Event, "data")

    @codec.register(name="counting")
    class Counting(Event[int]):
        @property
        def data(self) -> int:
            return int(slot.__get__(self))

        @data.setter
        def data(self, value: int) -> None:
            slot.__set__(self, value + 1)

    event = Counting(1)
    with pytest.raises(EncodeError, match="Counting: data: 2 comes back as another: 3") as caught:
        codec.encode(event)
    assert caught.value.place == "data"


def test_an_abstract_class_is_a_decode_error() -> None:
    @codec.register(name="abstract")
    class Abstract(Event[int], ABC):
        @abstractmethod
        def act(self) -> None: ...

    with pytest.raises(DecodeError, match="Abstract: it cannot be built: TypeError"):
        codec.decode(b'{"type": "abstract", "data": 1}')


def test_user_code_that_raises_is_an_encode_or_decode_error_with_its_cause() -> None:
    @codec.register(name="strange")
    class Strange(Event[Any]):
        @property
        def data(self) -> Any:
            raise ZeroDivisionError

        @data.setter
        def data(self, value: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(
        EncodeError, match="Strange: its attributes cannot be read: ZeroDivisionError"
    ) as caught:
        codec.encode(Strange.__new__(Strange))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(DecodeError, match="Strange: it cannot be built: ZeroDivisionError"):
        codec.decode(b'{"type": "strange"}')


def test_the_errors_are_value_errors_of_event_flow_and_can_be_pickled() -> None:
    for error in (EncodeError("what", place="data"), DecodeError("what", place="data")):
        assert isinstance(error, ValueError)
        assert isinstance(error, EventFlowError)
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other), other.place) == (type(error), "what", "data")
    assert codec.EncodeError is EncodeError


# -- names -----------------------------------------------------------------------------------------------------------


def test_a_class_goes_by_its_module_and_name() -> None:
    assert on_the_wire(Number(1)) == {"type": "test_codec:Number", "data": 1}
    assert on_the_wire(Outer.Inner(1)) == {"type": "test_codec:Outer.Inner", "data": 1}
    assert there_and_back(Outer.Inner(1)).data == 1
    assert on_the_wire(Event(1)) == {"type": "Event", "data": 1}
    assert there_and_back(EventWithSource("a", 1)).source == "a"


def test_a_pinned_name_replaces_it_and_the_old_one_stays_readable() -> None:
    before = codec.encode(Number(1))
    assert codec.register(Number, name="number") is Number
    assert on_the_wire(Number(1)) == {"type": "number", "data": 1}
    for data in (before, codec.encode(Number(1))):
        assert type(codec.decode(data)) is Number


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that had a class `Old`."""
    module = ModuleType("left_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def put(module: ModuleType, name: str, *bases: type) -> Any:
    cls = type(name, bases or (Event,), {"__module__": module.__name__})
    setattr(module, name, cls)
    return cls


OLD = b'{"type":"left_module:Old","data":1}'


def test_a_class_that_was_renamed_or_moved_keeps_its_old_name_by_pinning_it(left: ModuleType) -> None:
    """*Regression*: what was written before it had a pinned name could not be read at all."""
    codec.register(Number, name="left_module:Old")
    vars(left)["Old"] = Number  # left behind for those who import it
    for data in (OLD, b'{"type": "test_codec:Number", "data": 1}'):
        event = codec.decode(data)
        assert (type(event), event.data) == (Number, 1)
    assert codec.encode(Number(1)) == OLD


def test_the_name_of_a_class_that_is_loaded_cannot_be_taken(left: ModuleType) -> None:
    old = put(left, "Old")
    with pytest.raises(
        DeclarationError, match="'left_module:Old' of test_codec:Number is that of left_module:Old already"
    ):
        codec.register(Number, name="left_module:Old")
    assert type(codec.decode(OLD)) is old
    with pytest.raises(DeclarationError, match="is that of test_codec:Ping already"):
        codec.register(Number, name="test_codec:Ping")
    codec.register(old, name="left_module:Old")
    assert type(codec.decode(codec.encode(old(1)))) is old


def test_a_name_that_two_classes_claim_stands_for_none_of_them(left: ModuleType) -> None:
    """Whichever came first: what bytes stand for may not depend on the order of imports."""
    codec.register(Number, name="left_module:Old")
    old = put(left, "Old")
    two = "type: 'left_module:Old' is the name of two classes: it is pinned to test_codec:Number, and left_module:Old"
    with pytest.raises(DecodeError, match=f"^{two} is loaded") as caught:
        codec.decode(OLD)
    assert caught.value.place == "type"
    for event in (Number(1), old(1)):
        with pytest.raises(EncodeError, match=f"^{type(event).__name__}: {two} is loaded"):
            codec.encode(event)
    assert type(codec.decode(b'{"type": "test_codec:Number", "data": 1}')) is Number
    codec.register(old, name="old")
    with pytest.raises(DecodeError, match=two):
        codec.decode(OLD)
    assert type(codec.decode(codec.encode(old(1)))) is old
    del left.Old
    assert type(codec.decode(OLD)) is Number


def test_a_class_that_has_its_own_path_pinned_may_be_reloaded(left: ModuleType) -> None:
    for _ in range(2):
        old = codec.register(put(left, "Old"), name="left_module:Old")
        assert type(codec.decode(codec.encode(old(1)))) is old


def test_a_subclass_does_not_inherit_the_name() -> None:
    codec.register(Base, name="base")
    assert on_the_wire(OfBase(Decimal(1)))["type"] == "test_codec:OfBase"


def test_two_classes_cannot_have_one_name() -> None:
    codec.register(Number, name="number")
    with pytest.raises(
        DeclarationError, match="'number' of test_codec:Ping is that of test_codec:Number already"
    ):
        codec.register(Ping, name="number")
    with pytest.raises(DeclarationError, match="test_codec:Number has the name 'number' already"):
        codec.register(Number, name="other")
    with pytest.raises(DeclarationError, match=r"is that of .*:ExceptionEvent already"):
        codec.register(Ping, name="ExceptionEvent")
    codec.register(Number, name="number")
    assert type(codec.decode(b'{"type": "number", "data": 1}')) is Number
    with pytest.raises(DecodeError, match="no event class 'other'"):
        codec.decode(b'{"type": "other"}')


NO_NAMES = ["", ":", "a:", ":b", "a:b:c", "a b:c", "urn:a/b", "a:f.<locals>.B", "a.:B", "a\n", None, 5, b"x"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_is_printable_text_or_a_module_path(name: Any) -> None:
    with pytest.raises(DeclarationError, match="is not allowed"):
        codec.register(Number, name=name)


@pytest.mark.parametrize("cls", [int, ITEM, Event[int], "Number", Item])
def test_only_event_classes_are_registered(cls: Any) -> None:
    with pytest.raises(DeclarationError, match="only event classes have names on the wire"):
        codec.register(cls, name="x")


def test_a_local_class_needs_a_name() -> None:
    class Local(Event[int]):
        pass

    with pytest.raises(
        EncodeError, match=r"<locals>.Local cannot be found by that name; pin one: @codec.register"
    ):
        codec.encode(Local(1))
    codec.register(Local, name="local")
    assert there_and_back(Local(1)).data == 1


def test_a_local_class_that_was_refused_is_not_kept() -> None:
    """*Regression*: each was, with all that it refers to."""

    class Local(Event[int]):
        pass

    with pytest.raises(EncodeError):
        codec.encode(Local(1))
    gone = weakref.ref(Local)
    del Local
    gc.collect()
    assert gone() is None


def test_a_class_that_is_not_where_its_name_says_needs_a_pinned_one() -> None:
    impostor = type("Number", (Event,), {"__module__": __name__})
    with pytest.raises(EncodeError, match="test_codec:Number cannot be found by that name"):
        codec.encode(impostor(1))


def test_a_class_made_anew_takes_the_place_of_the_old_one() -> None:
    def define() -> type[Event[int]]:
        @codec.register(name="again")
        class Again(Event[int]):
            pass

        return Again

    old, new = define(), define()
    assert type(codec.decode(b'{"type": "again", "data": 1}')) is new
    with pytest.raises(EncodeError, match="pin one"):
        codec.encode(old(1))


def test_an_event_whose_class_was_replaced_by_a_reload_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """*Regression*: once encoded it was encoded for ever, and came back as an event of the new class."""
    module = ModuleType("reloaded")
    monkeypatch.setitem(sys.modules, "reloaded", module)
    classes = [type("Sold", (Event,), {"__module__": "reloaded"}) for _ in range(2)]
    for cls in classes:
        monkeypatch.setattr(module, "Sold", cls, raising=False)
        assert there_and_back(cls(1)).data == 1
    with pytest.raises(EncodeError, match="reloaded:Sold cannot be found by that name"):
        codec.encode(classes[0](1))


def test_a_class_of_the_program_has_one_name_in_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """*Regression*: a process that multiprocessing spawned and its parent could not read each other's events."""
    program = ModuleType("__mp_main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.setitem(sys.modules, "__mp_main__", program)
    for module in ("__main__", "__mp_main__"):
        cls = type("Sold", (Event,), {"__module__": module})
        monkeypatch.setattr(program, "Sold", cls, raising=False)
        assert on_the_wire(cls(1))["type"] == "__main__:Sold"
        assert there_and_back(cls(1)).data == 1


def test_decoding_imports_nothing_and_runs_nothing_by_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "not_loaded.py").write_text("raise AssertionError('this module must not be imported')")
    lazy = ModuleType("lazy_module")
    asked: list[str] = []
    lazy.__dict__["__getattr__"] = asked.append
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)

    class Strange:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return Number

    monkeypatch.setitem(sys.modules, "strange_module", Strange())
    monkeypatch.setitem(sys.modules, "no_module", None)
    for name in ("not_loaded:Trade", "lazy_module:Trade", "strange_module:Number", "no_module:X", "nope.x:Y"):
        with pytest.raises(DecodeError, match="no event class"):
            codec.decode(orjson.dumps({"type": name}))
    assert asked == []
    assert "not_loaded" not in sys.modules


def test_a_lazy_module_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text("raise AssertionError('must not be run')")
    code = f"""
import importlib.util, sys
from event_flow import codec
spec = importlib.util.spec_from_file_location("lazy", {str(tmp_path / "lazy.py")!r})
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["lazy"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
try:
    codec.decode(b'{{"type": "lazy:Trade"}}')
except codec.DecodeError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no event class 'lazy:Trade' is loaded" in done.stdout, done.stderr


# -- the event -------------------------------------------------------------------------------------------------------


def test_what_is_none_or_empty_is_left_out() -> None:
    assert codec.encode(Ping()) == b'{"type":"test_codec:Ping"}'
    assert on_the_wire(EventWithSource(None)) == {"type": "EventWithSource"}
    other = there_and_back(EventWithSource(None))
    assert (other.source, other.data, other.meta) == (None, None, {})
    assert codec.decode(b'{"type": "test_codec:Ping", "data": null, "meta": null}').data is None


def test_data_meta_and_source_come_back() -> None:
    event = Message({"chat": [1, None]}, Decimal("1.10"))
    event.update_meta(user=1, tags=["a", 2.5], nested={"x": None})
    assert on_the_wire(event) == {
        "type": "test_codec:Message",
        "data": "1.10",
        "meta": event.meta,
        "source": {"chat": [1, None]},
    }
    other = there_and_back(event)
    assert (other.source, str(other.data), other.meta) == (event.source, "1.10", event.meta)
    assert codec.decode(bytearray(codec.encode(event))).meta == event.meta
    assert codec.decode(memoryview(codec.encode(event))).meta == event.meta


def test_the_event_itself_is_left_as_it_was() -> None:
    data = {"a": [1, {"b": 2}]}
    event = Ping(data)
    before = copy.deepcopy(data)
    codec.encode(event)
    assert event.data is data
    assert data == before
    assert not hasattr(event, "_meta")


def test_keys_that_are_not_known_are_ignored() -> None:
    """So that this form, and the classes, may grow."""
    event = codec.decode(b'{"id": 7, "type": "test_codec:Number", "data": 1, "source": 2}')
    assert (event.data, hasattr(event, "source")) == (1, False)
    order = codec.decode(b'{"type": "test_codec:Ordered", "data": {"items": [], "gone": 1}}')
    assert order.data == Order([], None)


def test_an_event_is_built_without_its_init() -> None:
    @codec.register(name="careful")
    class Careful(EventWithSource[int]):
        def __init__(self, first: int, second: int) -> None:
            assert first != second
            super().__init__("sum", first + second)

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)

    event = there_and_back(Careful(1, 2))
    assert (event.source, event.data) == ("sum", 3)


def test_what_a_cached_property_keeps_is_made_anew() -> None:
    @codec.register(name="caching")
    class Caching(Event[int]):
        @cached_property
        def double(self) -> int:
            return 2 * self.data

    event = Caching(2)
    assert event.double == 4
    other = there_and_back(event)
    assert vars(other) == {}
    assert other.double == 4


@pytest.mark.parametrize(
    "event",
    [
        Ordered(Order([ITEM, ITEM])),
        Ahead(Later(1)),
        OfBase(Decimal("1.10")),
        OfHalf(Later(1)),
        OfSourced("here", [Decimal("1.10")]),
        Mixed(Decimal("1.10")),
        Spoken(Decimal("1.10")),
        Diamond(Decimal("1.10")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_the_type_parameter_is_found_through_all_bases(event: Event[Any]) -> None:
    other = there_and_back(event)
    assert other.data == event.data
    assert repr(other.data) == repr(event.data)


def test_what_typing_notes_on_an_event_is_no_attribute_of_it() -> None:
    """*Regression*: `Base[int](5)` was refused for its `__orig_class__`."""
    for event in (Base[int](5), Two[str, int](5), Sourced[int](None, [5])):
        assert "__orig_class__" in vars(event)
        other = there_and_back(event)
        assert (other.data, vars(other)) == (event.data, {})


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        (OfSeveral((1, "a")), (1, 2)),
        (OfNone(()), (1,)),
        (OfLast(Decimal(1)), 1),
        (OfFirst({"a": (1,)}), {"a": ("b",)}),
        (OfMiddle((Decimal(1), (1, "a"), True)), (Decimal(1), (1, "a"), 1)),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_type_variable_tuple_stands_for_the_arguments_that_others_leave(
    event: Event[Any], wrong: Any
) -> None:
    """*Regression*: it stood for one, and the next variable for the one after."""
    assert there_and_back(event).data == event.data
    with pytest.raises(EncodeError, match=f"^{type(event).__name__}: data"):
        codec.encode(type(event)(wrong))


def test_a_type_variable_tuple_whose_length_is_not_known_is_refused() -> None:
    class Unending(Several[int, *tuple[str, ...]]):
        pass

    bases: list[Any] = [Several, Unending, Event[tuple[int, *tuple[str, ...]]]]
    for number, base in enumerate(bases):
        cls: Any = codec.register(new_class("Open", (base,)), name=f"open-{number}")
        with pytest.raises(
            EncodeError, match=r"data: the type .* cannot be sent: how many items .* not known"
        ):
            codec.encode(cls((1, "a")))


def test_the_default_of_a_type_variable_is_used_without_an_argument() -> None:
    """*Regression*: it was plain JSON."""
    assert there_and_back(WithDefault(Decimal(1))).data == Decimal(1)
    assert there_and_back(OfDefault({"a": [Decimal(1)]})).data == {"a": [Decimal(1)]}
    assert there_and_back(HalfDefault({"a": 1})).data == {"a": 1}
    with pytest.raises(EncodeError, match="WithDefault: data: expected Decimal, got 1"):
        codec.encode(WithDefault(1))


def test_a_type_variable_without_an_argument_is_plain_json() -> None:
    assert there_and_back(Base({"a": [1]})).data == {"a": [1]}
    with pytest.raises(EncodeError, match="Base: data: a Decimal is not plain JSON"):
        codec.encode(Base(Decimal(1)))


def test_a_name_that_cannot_be_resolved_is_said_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    @codec.register(name="waiting")
    class Waiting(Event["NotYet"]):  # type: ignore[name-defined]
        pass

    with pytest.raises(
        EncodeError, match=r"Waiting: data: the base .* of .*Waiting cannot be resolved: NameError"
    ):
        codec.encode(Waiting(1))
    with pytest.raises(DecodeError, match="NameError: name 'NotYet' is not defined"):
        codec.decode(b'{"type": "waiting", "data": 1}')
    monkeypatch.setitem(globals(), "NotYet", int)
    assert there_and_back(Waiting(1)).data == 1


async def test_a_decoded_event_is_published_like_any_other() -> None:
    got: list[Any] = []
    engine = AppEngine()

    @engine.on_event(OfBase)
    async def keep(events: list[OfBase]) -> None:
        got.extend(event.data for event in events)

    async with engine:
        await engine.pub_event(codec.decode(codec.encode(OfBase(Decimal("1.10")))))
        await engine.wait_idle()
    assert got == [Decimal("1.10")]


# -- ExceptionEvent --------------------------------------------------------------------------------------------------


class Failing(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


async def test_a_dead_letter_of_the_engine_can_be_sent() -> None:
    letters: list[ExceptionEvent] = []
    engine = AppEngine()

    @engine.on_event(Number)
    async def fail(events: list[Number]) -> None:
        raise ValueError("no")

    @engine.on_event(ExceptionEvent)
    async def keep(failures: list[ExceptionEvent]) -> None:
        letters.extend(failures)

    async with engine:
        await engine.pub_event(Number(3))
        await engine.wait_idle()
    (letter,) = letters
    letter.update_meta(seen=True)
    wire = on_the_wire(letter)
    assert wire == {
        "type": "ExceptionEvent",
        "data": {"type": "ValueError", "text": "no"},
        "handler": "engine.fail",
        "attempt": 1,
        "traceback": letter.traceback_str,
        "events": [{"type": "test_codec:Number", "data": 3}],
        "meta": {"seen": True},
    }
    other = there_and_back(letter)
    assert isinstance(other.data, RemoteError)
    assert (other.data.type_name, other.data.text, str(other.data)) == ("ValueError", "no", "ValueError: no")
    assert (other.handler, other.attempt, other.traceback_str) == (
        letter.handler,
        letter.attempt,
        letter.traceback_str,
    )
    assert other.meta == {"seen": True}
    (event,) = other.events
    assert (type(event), event.data) == (Number, 3)
    with pytest.raises(RuntimeError, match="no engine published it"):
        await other.redeliver()
    assert codec.encode(other) == codec.encode(letter)


def test_what_an_exception_says_is_sent_whatever_it_says() -> None:
    cases: list[tuple[BaseException, str, str]] = [
        (OSError(), "OSError", "OSError"),
        (
            DecodeError("x"),
            "event_flow.core.exception.DecodeError",
            "event_flow.core.exception.DecodeError: x",
        ),
        (Failing(), "test_codec.Failing", "test_codec.Failing: Failing()"),
        (KeyError("é\ud800"), "KeyError", "KeyError: 'é\\ud800'"),
        (OSError("é\ud800"), "OSError", "OSError: é\\ud800"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
        (ExceptionGroup("two", [OSError()]), "ExceptionGroup", "ExceptionGroup: two (1 sub-exception)"),
    ]
    for error, name, text in cases:
        other = there_and_back(ExceptionEvent(error, handler="A.b"))
        assert isinstance(other.data, RemoteError)
        assert (other.data.type_name, str(other.data)) == (name, text)
        assert (other.events, other.traceback_str) == ((), "")


def test_events_that_cannot_be_sent_are_named_instead() -> None:
    circle: list[Any] = []
    circle.append(circle)

    class Local(Event[int]):
        pass

    inner = ExceptionEvent(OSError(), handler="A.b")
    events: list[Any] = [
        Number(1),
        Ping(object),
        Local(2),
        Ping(circle),
        Ping("é\ud800"),
        inner,
        Ping([0] * 999),
    ]
    other = there_and_back(ExceptionEvent(OSError("no"), handler="A.b", events=[*events, Ping(10**5000)]))
    assert [type(event) for event in other.events] == [Number, *[UnsentEvent] * 5, Ping, UnsentEvent]
    assert [event.data for event in other.events[1:6]] == [
        "Ping(<class 'object'>)",
        "Local(2)",
        "Ping([[...]])",
        "Ping('é\\ud800')",
        "ExceptionEvent(OSError(), handler='A.b', events=0)",
    ]
    errors = [event.meta["error"] for event in other.events if type(event) is UnsentEvent]
    assert errors[0].startswith("data: a type is not plain JSON")
    assert "cannot be found by that name" in errors[1]
    assert errors[4] == "an ExceptionEvent inside another is not sent"
    long = ExceptionEvent(OSError(), handler="A.b", events=[Ping((0,) * 9999)])
    assert len(there_and_back(long).events[0].data) == 1000


def test_meta_that_cannot_be_sent_does_not_keep_a_dead_letter_back() -> None:
    """*Regression*: with meta of its own that is no JSON it was refused as a whole; its events never were."""
    inside = Ping(1)
    inside.update_meta(it=object)
    for value, why in (
        (object, "meta['it']: a type is not plain JSON"),
        (2**64, "meta['it']: an integer beyond 64 bits"),
        ("é\ud800", "meta['it']: 'é\\ud800' has half a character"),
        (nested(300), "meta: nested too deeply"),
        (nested(5000), "meta: nested too deeply"),
    ):
        event = ExceptionEvent(OSError("no"), handler="A.b", events=[Number(1), inside])
        event.update_meta(it=value)
        other = there_and_back(event)
        assert list(other.meta) == ["unsent", "error"]
        assert other.meta["error"].startswith(why)
        assert re.match(r"\{'it': |<dict, whose repr", other.meta["unsent"])
        assert len(other.meta["unsent"]) <= 1000
        assert [type(each) for each in other.events] == [Number, UnsentEvent]
        assert other.events[1].meta["error"].startswith("meta['it']: a type is not plain JSON")
    event = ExceptionEvent(OSError("no"), handler="A.b")
    event._meta = 5  # type: ignore[assignment]
    assert there_and_back(event).meta == {"unsent": "5", "error": "meta: expected dict, got 5"}


class FixedHandler(ExceptionEvent):
    @property
    def handler(self) -> str:  # type: ignore[override]
        return "always"

    def __init__(self) -> None:
        Event.__init__(self, OSError())
        self.attempt = 1


class FixedAttempt(ExceptionEvent):
    __slots__ = ()
    attempt = 3

    def __init__(self) -> None:
        Event.__init__(self, OSError())
        self.handler = "A.b"


def test_an_exception_event_whose_class_has_the_only_handler_is_refused() -> None:
    """*Regression*: it was encoded, and could not be built."""
    for event, name in ((FixedHandler(), "handler"), (FixedAttempt(), "attempt")):
        with pytest.raises(EncodeError, match=f"{name}: {type(event).__name__} has it in the class"):
            codec.encode(event)


def test_an_exception_event_s_own_text_and_fields_are_made_writable_or_refused() -> None:
    other = there_and_back(ExceptionEvent(OSError(), handler="é\udc80", traceback_str="é\udc80", attempt=3))
    assert (other.handler, other.traceback_str, other.attempt) == ("é\\udc80", "é\\udc80", 3)
    for field, value in {
        "handler": 5,
        "attempt": "x",
        "traceback_str": None,
        "events": 3,
        "data": "x",
    }.items():
        event = ExceptionEvent(OSError(), handler="A.b")
        setattr(event, field, value)
        with pytest.raises(EncodeError, match=rf"^ExceptionEvent: {field}: expected "):
            codec.encode(event)
    event = ExceptionEvent(OSError(), handler="A.b", attempt=2**64)
    with pytest.raises(EncodeError, match="attempt: an integer beyond 64 bits"):
        codec.encode(event)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "data: expected dict, got None"),
        ({"data": {}}, "data.type: expected str, got None"),
        ({"data": {"type": "X", "text": 5}}, "data.text: expected str, got 5"),
        ({"handler": None}, "handler: expected str, got None"),
        ({"attempt": True}, "attempt: expected int, got True"),
        ({"traceback": []}, "traceback: expected str, got a list"),
        ({"events": {}}, "events: expected list, got a dict"),
        ({"events": [5]}, "events[0]: expected an object, got 5"),
        (
            {"events": [{"type": "test_codec:Number", "data": 1}, {"type": "test_codec:Number"}]},
            "events[1].data: expected int, got None",
        ),
        ({"events": [{"type": "Nobody"}]}, "events[0].type: no event class 'Nobody'"),
        (
            {"events": [{"type": "ExceptionEvent", "data": {"type": "X"}, "handler": "x"}]},
            "events[0]: an ExceptionEvent inside another",
        ),
        ({"meta": 5}, "meta: expected an object, got 5"),
    ],
)
def test_a_wrong_exception_event_is_refused(change: dict[str, Any], message: str) -> None:
    whole = {"type": "ExceptionEvent", "data": {"type": "X"}, "handler": "A.b"}
    assert isinstance(codec.decode(orjson.dumps(whole)), ExceptionEvent)
    with pytest.raises(DecodeError) as caught:
        codec.decode(orjson.dumps({**whole, **change}))
    assert str(caught.value).startswith(f"ExceptionEvent: {message}")
    assert caught.value.place == message.split(":")[0]

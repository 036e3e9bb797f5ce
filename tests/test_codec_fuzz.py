"""Whatever the bytes, `decode` gives an event or a `DecodeError`; `encode` whatever the event bytes or an `EncodeError`."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from event_flow import DecodeError, EncodeError, Event, EventWithSource, ExceptionEvent, codec


class Side(Enum):
    BUY = "buy"
    SELL = "sell"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Place(NamedTuple):
    street: str
    number: int


class Extra(TypedDict, total=False):
    note: str
    tree: Branch


@dataclass
class Branch:
    branches: list[Branch] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: UUID
    price: Decimal
    at: datetime
    side: Side
    lasts: timedelta = timedelta(0)
    rights: Rights = Rights.READ
    kind: Literal["a", 1] | None = None
    places: dict[int, Place] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    extra: Extra = field(default_factory=Extra)
    photo: bytes = b""
    weight: int | float = 0
    rates: dict[Decimal, float] = field(default_factory=dict)
    prices: set[Decimal] = field(default_factory=set)
    days: dict[date, tuple[time, ...]] = field(default_factory=dict)
    rest: Any = None

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError("a price is not negative")


class Placed(EventWithSource[Order]):
    pass


class Grown(Event[Branch]):
    pass


class Plain(Event):
    pass


ORDER = Order(
    id=UUID(int=1),
    price=Decimal("1.10"),
    at=datetime.fromisoformat("2026-01-01T00:00:00.5+05:30"),
    side=Side.BUY,
    places={1: Place("a", 1)},
    tags=frozenset({"x", "y"}),
    extra={"note": "n", "tree": Branch([Branch()])},
    photo=b"\x00\xff",
    weight=1.5,
    rates={Decimal("1.10"): 0.5},
    prices={Decimal(1), Decimal("Infinity")},
    days={date(2026, 1, 1): (time(1, 2), time(3, tzinfo=UTC))},
    rest={"a": [1, None]},
)
WHOLE = codec.encode(Placed({"from": [1]}, ORDER))
LETTER = codec.encode(
    ExceptionEvent(OSError("no"), handler="A.b", traceback_str="T", events=[Placed("x", ORDER), Plain(1)])
)
SAMPLES = [WHOLE, LETTER, codec.encode(Plain([1, {"a": None}]))]

NAMES = [
    "test_codec_fuzz:Placed",
    "test_codec_fuzz:Plain",
    "ExceptionEvent",
    "Event",
    "UnsentEvent",
    "os:system",
]
KEYS = [
    "type",
    "data",
    "meta",
    "source",
    "handler",
    "attempt",
    "traceback",
    "events",
    "text",
    *Order.__slots__,
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from(
        [
            *NAMES,
            "1.10",
            "NaN",
            "buy",
            "PT1S",
            "sNaN",
            "01:02:03",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            str(UUID(int=1)),
            "AP8=",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text("01ab", max_size=2), inner, max_size=4)
    ),
    max_leaves=8,
)


def written(event: Event[Any]) -> tuple[bytes, EncodeError | None]:
    """What `encode` may do: give bytes of which the same event is made, or raise `EncodeError`."""
    try:
        data = codec.encode(event)
    except EncodeError as exc:
        return b"", exc
    assert codec.encode(codec.decode(data)) == data
    return data, None


def decode(data: bytes) -> None:
    """What `decode` may do: give an event that can be encoded and comes back the same, or raise `DecodeError`."""
    try:
        event = codec.decode(data)
    except DecodeError:
        return
    assert written(event)[1] is None


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x00")
def test_any_bytes(data: bytes) -> None:
    decode(data)


@given(st.sampled_from(SAMPLES), st.data())
def test_bytes_of_an_event_with_some_changed(sample: bytes, data: st.DataObject) -> None:
    changed = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if how == "set":
            changed[at] = data.draw(st.integers(32, 126) | st.integers(0, 255))
        elif how == "cut":
            del changed[at : at + data.draw(st.integers(1, 8))]
        elif how == "insert":
            changed[at:at] = data.draw(st.binary(max_size=4))
        else:
            changed[at:at] = changed[at : at + data.draw(st.integers(1, 40))]
        if not changed:
            break
    decode(bytes(changed))


def places(plain: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a JSON document."""
    steps = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [here, *(place for step, value in steps for place in places(value, (*here, step)))]


@given(st.sampled_from(SAMPLES), st.data())
def test_an_event_with_a_value_put_in_another_s_place(sample: bytes, data: st.DataObject) -> None:
    whole = {"it": orjson.loads(sample)}
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(whole)[1:]))
        holder: Any = whole
        for step in way:
            holder = holder[step]
        if data.draw(st.booleans()):
            holder[last] = copy.deepcopy(data.draw(VALUES))
        elif len(whole) > 1 or way:
            del holder[last]
    decode(orjson.dumps(whole["it"]))


@given(st.fixed_dictionaries({"type": st.sampled_from(NAMES)}, optional=dict.fromkeys(KEYS[1:9], VALUES)))
def test_any_object_that_names_a_class(plain: dict[str, Any]) -> None:
    decode(orjson.dumps(plain))


NESTS = [("[", "]"), ('{"a": ', "}"), ('{"branches": [', "]}"), ('{"below": ', "}")]


@given(
    st.lists(st.sampled_from(NESTS), min_size=1, max_size=4), st.integers(1, 600), st.sampled_from(["", "1"])
)
@example([NESTS[0]], 253, "")
@example([NESTS[2]], 100, "")
@example([NESTS[2]], 510, "")
def test_any_nesting(nests: list[tuple[str, str]], times: int, inmost: str) -> None:
    begin = "".join(nest[0] for nest in nests) * times
    end = "".join(nest[1] for nest in reversed(nests)) * times
    if not inmost and begin.endswith(": "):
        inmost = "1"
    for holder in ('{"type": "Event", "data": %s}', '{"type": "test_codec_fuzz:Grown", "data": %s}', "%s"):
        text = holder % f"{begin}{inmost}{end}"
        try:
            event = codec.decode(text.encode())
        except DecodeError:
            continue
        # What is read may be nested deeper than what is written.
        with suppress(EncodeError):
            assert codec.encode(codec.decode(codec.encode(event))) == codec.encode(event)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.binary(max_size=3)
    | st.decimals()
    | st.datetimes()
    | st.uuids()
    | st.sampled_from(
        [*Side, *Rights, Order, ORDER, OSError("x"), Place("a", 1), Branch(), object(), 2**64, len]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers() | st.none(), inner, max_size=3)
        | st.builds(Branch, inner)
        | st.builds(Place, inner, inner)
    ),
    max_leaves=6,
)


@given(ANYTHING, ANYTHING, st.dictionaries(st.text(st.characters(), max_size=3), ANYTHING, max_size=2))
def test_any_event(data: Any, source: Any, meta: dict[str, Any]) -> None:
    events: list[Event[Any]] = [Plain(data), EventWithSource(source, data), Placed(source, data)]
    error = OSError(data)
    events.append(ExceptionEvent(error, handler="A.b", events=[*events, data]))
    for event in events:
        event.update_meta(**meta)
        written(event)


@given(st.data())
def test_any_order_with_one_field_of_another_type(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(Order.__slots__))
    order = copy.copy(ORDER)
    value = data.draw(ANYTHING)
    object.__setattr__(order, name, value)
    data_written, error = written(Placed("x", order))
    if error is None:
        assert codec.decode(data_written).data == order or "NaN" in repr(order)
    else:
        # What only JSON cannot hold, such as an integer beyond 64 bits, is at a key.
        places = (f"data.{name}", f"data['{name}']")
        assert error.place.startswith(places) or "Order refuses it" in str(error)

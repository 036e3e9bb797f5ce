"""Events: what they carry, how small they are, and that nothing else can be published."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from event_flow import AppEngine, Application, EngineState, Event, EventWithSource, ExceptionEvent


class Ping(Event[int]):
    pass


class Trade(Event[dict[str, str]]):
    def parse(self) -> tuple[str, float]:
        return self.data["symbol"], float(self.data["price"])


class Message(EventWithSource[str]):
    pass


# -- what they carry -------------------------------------------------------------------------------------------------


def test_an_event_carries_data_and_none_by_default() -> None:
    assert Ping(1).data == 1
    assert Ping(data=1).data == 1
    assert Event().data is None
    assert Event[int](3).data == 3


def test_parse_gives_the_data_unless_overridden() -> None:
    data = {"symbol": "BTCUSDT", "price": "120000"}
    assert Event(data).parse() is data
    assert Trade(data).parse() == ("BTCUSDT", 120000.0)


def test_meta_is_a_dict_of_the_event_s_own() -> None:
    first, second = Ping(1), Ping(1)
    first.update_meta(user_id=123, timestamp=1.5)
    first.update_meta(user_id=124)
    first.meta["more"] = None
    assert first.meta == {"user_id": 124, "timestamp": 1.5, "more": None}
    assert second.meta == {}


def test_meta_takes_any_key() -> None:
    event = Ping(1)
    event.update_meta(**{"self": 1, "data": 2, "meta": 3, "not an identifier": 4})
    assert event.meta == {"self": 1, "data": 2, "meta": 3, "not an identifier": 4}


def test_an_event_with_source_takes_the_source_first() -> None:
    event = Message("telegram", "Hello")
    assert (event.source, event.data) == ("telegram", "Hello")
    assert Message(source="telegram", data="Hello").source == "telegram"
    assert Message("telegram").data is None
    with pytest.raises(TypeError):
        Message()  # type: ignore[call-arg]


def test_events_are_equal_only_to_themselves_and_may_be_keys() -> None:
    event = Ping(1)
    assert event != Ping(1)
    assert {event: "seen"}[event] == "seen"


@pytest.mark.parametrize("event", [Event(1), Message("here", "x"), ExceptionEvent(OSError(), handler="A.b")])
def test_events_have_slots_and_make_their_meta_on_first_use(event: Event[Any]) -> None:
    def made() -> set[str]:
        slots = [slot for cls in type(event).__mro__ for slot in getattr(cls, "__slots__", ())]
        return {slot for slot in slots if hasattr(event, slot)}

    if type(event) is not Message:  # a subclass that declares no slots has a dict
        assert not hasattr(event, "__dict__")
        with pytest.raises(AttributeError):
            event.more = 1  # type: ignore[attr-defined]
    before = made()
    event.update_meta(key=1)
    assert len(made() - before) == 1


def test_a_subclass_may_have_attributes_of_its_own() -> None:
    class Rich(Event[int]):
        def __init__(self, data: int, extra: str) -> None:
            super().__init__(data)
            self.extra = extra

    event = Rich(1, "more")
    assert (event.data, event.extra) == (1, "more")


def test_events_can_be_copied_and_pickled() -> None:
    event = Message("telegram", "Hello")
    event.update_meta(key=1)
    for other in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert type(other) is Message
        assert (other.source, other.data, other.meta) == ("telegram", "Hello", {"key": 1})


def test_the_repr_tells_class_and_data() -> None:
    assert repr(Ping(1)) == "Ping(1)"
    assert repr(Message("here", "x")) == "Message('here', 'x')"
    failure = ExceptionEvent(OSError("no"), handler="A.b", events=[Ping(1)])
    assert repr(failure) == "ExceptionEvent(OSError('no'), handler='A.b', events=1)"


# -- ExceptionEvent --------------------------------------------------------------------------------------------------


def test_an_exception_event_keeps_its_own_copy_of_the_events() -> None:
    events: list[Event[Any]] = [Ping(1), Ping(2)]
    error = OSError("no")
    failure = ExceptionEvent(error, handler="App.on_ping", traceback_str="Traceback…", events=events)
    events.clear()
    assert failure.data is error
    assert (failure.handler, failure.attempt, failure.traceback_str) == ("App.on_ping", 1, "Traceback…")
    assert [event.data for event in failure.events] == [1, 2]


async def test_an_exception_event_that_no_engine_published_cannot_redeliver() -> None:
    with pytest.raises(RuntimeError, match="no engine published it"):
        await ExceptionEvent(OSError(), handler="App.on_ping", events=[Ping(1)]).redeliver()


# -- the engine leaves them alone ------------------------------------------------------------------------------------


async def test_every_handler_gets_the_very_event_and_nobody_touches_it() -> None:
    """*Spec*: `parse` is the user's. Events are never compared, hashed, copied or asked whether they are true."""

    class Untouchable(Event[int]):
        def refuse(self, *_: object) -> Any:
            raise AssertionError("the engine must not look into an event")

        parse = __eq__ = __bool__ = __len__ = __copy__ = __deepcopy__ = refuse
        __hash__ = refuse

    class Keeps(Application):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[Untouchable] = []

        async def on_any(self, events: list[Untouchable]) -> None:
            self.kept += events

    first, second = Keeps(), Keeps()
    event = Untouchable(1)
    async with AppEngine([first, second]) as engine:
        await engine.pub_event(event)
        await engine.pub_events([event])
    for app in (first, second):
        assert len(app.kept) == 2
        assert all(kept is event for kept in app.kept)


# -- only events can be published ------------------------------------------------------------------------------------

NO_EVENTS: list[Any] = [Ping, None, "ping", 1, Event]


async def assert_everything_else_is_refused(engine: AppEngine) -> None:
    one: list[Callable[[Any], Any]] = [
        engine.pub_event,
        engine.pub_event_nowait,
        engine.pub_event_from_thread,
    ]
    many: list[Callable[[Any], Any]] = [engine.pub_events, engine.pub_events_from_thread]
    before = engine.statistics()
    for wrong in NO_EVENTS:
        for publish, argument in [
            *((publish, wrong) for publish in one),
            *((publish, [Ping(1), wrong, Ping(2)]) for publish in many),
            *((publish, iter([wrong])) for publish in many),
        ]:
            with pytest.raises(TypeError, match="only instances of Event can be published, not"):
                await refused(publish(argument))
    for publish in many:
        with pytest.raises(TypeError, match="iterable"):
            await refused(publish(Ping(1)))
    assert engine.statistics() == before


async def refused(result: Any) -> None:
    assert inspect.isawaitable(result), "a sync method did not raise"
    await result


@pytest.mark.parametrize("state", [state for state in EngineState if state is not EngineState.STOPPING])
async def test_what_is_no_event_is_refused_at_once_in_every_state(state: EngineState) -> None:
    gate = anyio.Event()
    checked: list[EngineState] = []

    class Handles(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            await gate.wait()

    engine = AppEngine([Handles()])

    async def check() -> None:
        if engine.state is state:
            await assert_everything_else_is_refused(engine)
            checked.append(state)

    engine.before_start(check)
    await check()
    async with engine:
        await check()
        await engine.pub_event(Ping(0))
        await anyio.wait_all_tasks_blocked()
        engine.stop()
        await check()
        gate.set()
    await check()
    assert checked == [state]
    assert engine.report is not None
    assert engine.report.accepted == 1


async def test_a_class_is_told_apart_from_an_instance_in_the_message() -> None:
    with pytest.raises(TypeError, match="not the class Ping"):
        await AppEngine().pub_event(Ping)  # type: ignore[arg-type]

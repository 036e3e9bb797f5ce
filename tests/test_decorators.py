"""Marks and plain functions: what they take, what they leave alone, and which events the handlers then get."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from event_flow import (
    AppEngine,
    Application,
    DeclarationError,
    Event,
    ExceptionEvent,
    on_event,
    schedule,
    task,
    timer,
)
from event_flow.core.declaration import declarations_of


class Base(Event[int]):
    pass


class Ping(Base):
    pass


class Pong(Base):
    pass


class Alone(Event[int]):
    pass


class Logbook(Application):
    """Keeps what its handlers get, as class name and number."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[str, str, int]] = []

    def keep(self, handler: str, events: list[Any]) -> None:
        self.got += [(handler, type(event).__name__, event.data) for event in events]

    def of(self, handler: str) -> list[tuple[str, int]]:
        return [(event, number) for name, event, number in self.got if name == handler]


async def publish_all(engine: AppEngine, *events: Event[Any]) -> None:
    async with engine:
        await engine.pub_events(events)


# -- dispatch --------------------------------------------------------------------------------------------------------


async def test_one_class_several_classes_and_stacked_marks_choose_the_events() -> None:
    class App(Logbook):
        @on_event(Ping)
        async def one(self, events: list[Ping]) -> None:
            self.keep("one", events)

        @on_event(Ping, Alone)
        async def two(self, events: list[Ping | Alone]) -> None:
            self.keep("two", events)

        @on_event(Alone)
        @on_event(Pong)
        def stacked(self, events: list[Alone | Pong]) -> None:
            self.keep("stacked", events)

    app = App()
    await publish_all(AppEngine([app]), Ping(1), Alone(2), Pong(3), Ping(4))
    assert app.of("one") == [("Ping", 1), ("Ping", 4)]
    assert app.of("two") == [("Ping", 1), ("Alone", 2), ("Ping", 4)]
    assert app.of("stacked") == [("Alone", 2), ("Pong", 3)]


async def test_a_base_class_gets_its_subclasses_mixed_in_publish_order() -> None:
    """Design D6."""

    class App(Logbook):
        @on_event(Base)
        async def family(self, events: list[Base]) -> None:
            self.keep("family", events)

        @on_event(Event)
        async def everything(self, events: list[Event[Any]]) -> None:
            self.keep("everything", events)

    app = App()
    events = [(Ping, Pong, Alone, Base)[number % 4](number) for number in range(40)]
    await publish_all(AppEngine([app]), *events)
    published = [(type(event).__name__, event.data) for event in events]
    assert app.of("everything") == published
    assert app.of("family") == [entry for entry in published if entry[0] != "Alone"]


async def test_an_event_that_fits_several_classes_of_a_handler_comes_once() -> None:
    class App(Logbook):
        @on_event(Event, Base)
        @on_event(Ping, Ping)
        async def often(self, events: list[Event[int]]) -> None:
            self.keep("often", events)

    app = App()
    await publish_all(AppEngine([app]), Ping(1))
    assert app.of("often") == [("Ping", 1)]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_every_call_gets_a_list_of_its_own(kind: str) -> None:
    lengths: list[int] = []

    async def ruins(events: list[Ping]) -> None:
        lengths.append(len(events))
        events.clear()

    def ruins_in_a_thread(events: list[Ping]) -> None:
        lengths.append(len(events))
        events.append(Ping(99))

    ruin = ruins if kind == "async" else ruins_in_a_thread
    engine = AppEngine()
    engine.register_handler(Ping, ruin, functools.partial(ruin))
    await engine.pub_events([Ping(1), Ping(2)])
    async with engine:
        await engine.wait_idle()
    assert lengths == [2, 2]
    assert engine.statistics().handled == 4


# -- plain functions -------------------------------------------------------------------------------------------------


async def test_plain_functions_become_handlers_and_stay_what_they_are() -> None:
    got: list[tuple[str, int]] = []
    engine = AppEngine()

    @engine.on_event(Ping, Alone)
    async def first(events: list[Any]) -> None:
        got.extend(("first", event.data) for event in events)

    def second(events: list[Event[int]]) -> None:
        got.extend(("second", event.data) for event in events)

    class Third:
        async def __call__(self, events: list[Event[int]]) -> None:
            got.extend(("third", event.data) for event in events)

    async def fourth(name: str, events: list[Event[int]]) -> None:
        got.extend((name, event.data) for event in events)

    engine.register_handler(Ping, second, Third(), functools.partial(fourth, "fourth"))
    await publish_all(engine, Ping(1), Alone(2))
    assert sorted(got) == [("first", 1), ("first", 2), ("fourth", 1), ("second", 1), ("third", 1)]
    await first([Ping(7)])
    assert got[-1] == ("first", 7)
    names = ["engine.first", "engine.second", "engine.Third", "engine.fourth"]
    assert list(engine.statistics().handlers) == names


async def test_a_function_registered_again_is_one_handler_of_more_classes() -> None:
    got: list[int] = []

    async def handle(events: list[Event[int]]) -> None:
        got.extend(event.data for event in events)

    engine = AppEngine()
    engine.register_handler(Ping, handle)
    engine.register_handler(Alone, handle)
    engine.register_handler(Event[int], handle)
    await publish_all(engine, Ping(1), Alone(2), Ping(3))
    assert got == [1, 2, 3]
    assert list(engine.statistics().handlers) == ["engine.handle"]


async def test_a_bound_method_registered_again_is_one_handler_and_another_object_s_is_another() -> None:
    got: list[int] = []

    class Keeps:
        async def handle(self, events: list[Event[int]]) -> None:
            got.extend(event.data for event in events)

    first, second = Keeps(), Keeps()
    engine = AppEngine()
    engine.register_handler(Ping, first.handle)
    engine.register_handler(Pong, first.handle)
    engine.register_handler(Ping, second.handle)
    await publish_all(engine, Ping(1), Pong(2))
    assert list(engine.statistics().handlers) == ["engine.handle", "engine.handle#2"]
    assert sorted(got) == [1, 1, 2]


async def test_two_functions_of_one_name_have_two_names() -> None:
    engine = AppEngine()
    engine.register_handler(Ping, lambda events: None, lambda events: None)
    await publish_all(engine, Ping(1))
    assert list(engine.statistics().handlers) == ["engine.<lambda>", "engine.<lambda>#2"]
    assert engine.statistics().handled == 2


# -- sync or async ---------------------------------------------------------------------------------------------------


async def test_a_sync_handler_that_returns_a_coroutine_fails_and_says_so() -> None:
    """Warnings are errors here, so a coroutine "never awaited" fails this test."""
    failures: list[ExceptionEvent] = []

    async def work() -> None:
        raise AssertionError("nobody may await this")

    class App(Application):
        @on_event(Ping)
        def forgets_async(self, events: list[Ping]) -> Any:
            return work()

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            failures.extend(events)

    engine = AppEngine([App()])
    await publish_all(engine, Ping(1), Ping(2))
    assert [failure.handler for failure in failures] == ["App.forgets_async"] * len(failures)
    assert isinstance(failures[0].data, TypeError)
    assert "App.forgets_async is a sync function that returned coroutine" in str(failures[0].data)
    assert engine.statistics().handlers["App.forgets_async"].failed == 2


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_handler_with_a_yield_fails_and_says_so(kind: str) -> None:
    failures: list[ExceptionEvent] = []

    def generator(events: list[Ping]) -> Generator[int]:
        yield 1

    async def async_generator(events: list[Ping]) -> AsyncIterator[int]:
        yield 1

    engine = AppEngine()
    engine.register_handler(Ping, generator if kind == "generator" else async_generator)
    engine.register_handler(ExceptionEvent, failures.extend)
    async with engine:
        await engine.pub_event(Ping(1))
    (failure,) = failures
    assert isinstance(failure.data, TypeError)
    assert "use no `yield` in it" in str(failure.data)


async def test_a_wrapped_method_runs_like_what_it_wraps() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            return await function(*args)

        return wrapper

    class App(Logbook):
        @on_event(Ping)
        @logged
        async def outside(self, events: list[Ping]) -> None:
            self.keep("outside", events)

        @logged
        @on_event(Ping)
        async def inside(self, events: list[Ping]) -> None:
            self.keep("inside", events)

        @logged
        async def on_convention(self, events: list[Ping]) -> None:
            self.keep("convention", events)

    app = App()
    await publish_all(AppEngine([app]), Ping(1))
    assert sorted(app.got) == [("convention", "Ping", 1), ("inside", "Ping", 1), ("outside", "Ping", 1)]


async def test_static_and_class_methods_can_be_marked() -> None:
    got: list[tuple[str, int]] = []

    class App(Application):
        @on_event(Ping)
        @staticmethod
        async def static(events: list[Ping]) -> None:
            got.extend(("static", event.data) for event in events)

        @classmethod
        @on_event(Ping)
        def of_class(cls, events: list[Ping]) -> None:
            got.extend((cls.__name__, event.data) for event in events)

    await publish_all(AppEngine([App()]), Ping(1))
    assert sorted(got) == [("App", 1), ("static", 1)]


# -- marks leave functions as they are -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark", [on_event(Ping), schedule(60), schedule(60, run_at_once=False), task, task()]
)
def test_a_marked_function_is_the_very_function(mark: Callable[[Any], Any]) -> None:
    async def function() -> None: ...

    assert mark(function) is function


def test_timer_is_another_name_for_schedule() -> None:
    assert timer is schedule


def test_task_with_and_without_brackets_is_the_same() -> None:
    class App(Application):
        @task
        async def bare(self) -> None: ...

        @task()
        async def called(self) -> None: ...

    assert declarations_of(App).tasks == ["bare", "called"]


# -- errors ----------------------------------------------------------------------------------------------------------


def function() -> None: ...


def handler(events: list[Ping]) -> None: ...


class NoEvent:
    pass


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (on_event, r"@on_event needs at least one event class: write @on_event\(MyEvent\)"),
        (lambda: on_event(function), r"@on_event on function needs an event class"),  # type: ignore[call-overload]
        (lambda: on_event(NoEvent), r"@on_event takes subclasses of Event, not <class .*NoEvent'>"),  # type: ignore[type-var]
        (lambda: on_event(Ping, None), r"takes subclasses of Event, not None"),  # type: ignore[call-overload]
        (lambda: on_event(Ping(1)), r"takes subclasses of Event, not Ping\(1\)"),  # type: ignore[call-overload]
        (lambda: on_event("Ping"), r"takes subclasses of Event, not 'Ping'"),  # type: ignore[call-overload]
        (lambda: on_event(list[Ping]), r"@on_event takes subclasses of Event, not list\[.*Ping\]"),  # type: ignore[type-var]
        (lambda: on_event(classmethod(handler)), r"@on_event on handler needs an event class"),  # type: ignore[call-overload, arg-type]
        (lambda: schedule(function), r"@schedule on function needs an interval: write @schedule\(interval=60\)"),  # type: ignore[arg-type]
        (lambda: schedule(staticmethod(function)), r"@schedule on function needs an interval"),  # type: ignore[arg-type]
        (lambda: schedule(60, run_at_once=1), r"run_at_once=1: True or False"),  # type: ignore[arg-type]
        (lambda: task(None)(5), r"5 cannot be marked"),  # type: ignore[call-overload]
        (lambda: on_event(Ping)(5), r"5 cannot be marked"),  # type: ignore[call-overload]
        (lambda: on_event(Ping)(print), r"print.* cannot be marked"),
        (lambda: AppEngine().on_event(), r"@engine.on_event needs at least one event class"),  # type: ignore[call-overload]
        (lambda: AppEngine().on_event(function), r"@engine.on_event on function needs an event class"),  # type: ignore[call-overload]
        (lambda: AppEngine().register_handler(NoEvent, print), r"register_handler takes subclasses of Event"),  # type: ignore[type-var]
        (lambda: AppEngine().register_handler(Ping, print, 5), r"register_handler takes functions, not 5"),  # type: ignore[call-overload]
        (lambda: AppEngine().register_handler(Ping), r"no function for Ping: register_handler\(Ping, function\)"),  # type: ignore[call-overload]
        (lambda: AppEngine().register_handler(Ping, function), r"handler function is called with one list of events, but takes"),  # type: ignore[arg-type]
        (lambda: AppEngine().on_event(Ping)(5), r"@engine.on_event takes functions, not 5"),  # type: ignore[call-overload]
        (lambda: AppEngine().exit(handler), r"the exit hook handler is called without arguments, but takes \(events.*\)"),  # type: ignore[type-var]
        (lambda: AppEngine().before_start(5), r"@engine.before_start takes a function, not 5"),  # type: ignore[type-var]
        (lambda: AppEngine().exit("x"), r"@engine.exit takes a function, not 'x'"),  # type: ignore[type-var]
    ],
)  # fmt: skip
def test_a_wrong_mark_is_an_error_that_says_what_is_meant(
    declare: Callable[[], object], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message) as caught:
        declare()
    assert isinstance(caught.value, TypeError)


def test_one_method_is_one_thing() -> None:
    with pytest.raises(DeclarationError, match=r"App\.both has marks of two kinds"):

        class App(Application):
            @task  # type: ignore[type-var]
            @on_event(Ping)
            async def both(self, events: list[Ping]) -> None: ...

    with pytest.raises(DeclarationError, match=r"Twice\.tick is marked twice"):

        class Twice(Application):
            @schedule(1)
            @schedule(2)
            async def tick(self) -> None: ...

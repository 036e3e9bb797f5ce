"""The options of a handler: what is allowed, what the error says, and what becomes of them in several marks and in subclasses."""

from __future__ import annotations

import functools
import inspect
import math
import re
import typing
from collections import UserDict
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest

from event_flow import (
    AppEngine,
    Application,
    Batch,
    DeclarationError,
    Event,
    EventFlowError,
    OptionError,
    Rate,
    Retry,
    on_event,
    schedule,
)
from event_flow.core import fitting
from event_flow.core.declaration import declarations_of
from event_flow.core.handler_options import NAMES, HandlerDeclaration, HandlerOptions

if typing.TYPE_CHECKING:
    from decimal import Context as OnlyForTypeCheckers


class Ping(Event[dict[str, int]]):
    pass


class Pong(Event[int]):
    pass


RATE = Rate(100, burst=10)
RETRY = Retry(on=OSError)


def by_data(event: Event[Any]) -> Any:
    return event.data


async def async_key(event: Event[Any]) -> int:
    return 1


async def async_generator_key(event: Event[Any]) -> AsyncIterator[int]:
    yield 1


class Keys:
    def method(self, event: Event[Any]) -> int:
        return 1

    async def __call__(self, event: Event[Any]) -> int:
        return 1


def method(**given: Any) -> HandlerOptions:
    """The options of a method marked with them."""

    class App(Application):
        @on_event(Ping, **given)
        async def handle(self, events: list[Ping]) -> None: ...

    return declarations_of(App).handlers["handle"].options


def decorated(**given: Any) -> HandlerOptions:
    """Those of a plain function."""
    engine = AppEngine()

    @engine.on_event(Ping, **given)
    async def handle(events: list[Ping]) -> None: ...

    return declared(engine)["handle"].options


def registered(**given: Any) -> HandlerOptions:
    engine = AppEngine()

    async def handle(events: list[Ping]) -> None: ...

    engine.register_handler(Ping, handle, **given)
    return declared(engine)["handle"].options


def declared(engine: AppEngine) -> dict[str, HandlerDeclaration]:
    return {function.__name__: handler for function, handler in engine._functions.values()}


WAYS = pytest.mark.parametrize(
    ("give", "where"),
    [(method, "App.handle"), (decorated, "the handler handle"), (registered, "the handler handle")],
    ids=["method", "decorated", "registered"],
)  # fmt: skip


# -- what is allowed -------------------------------------------------------------------------------------------------


@WAYS
def test_without_options_everything_is_as_it_always_was(
    give: Callable[..., HandlerOptions], where: str
) -> None:
    options = give()
    assert {name: getattr(options, name) for name in NAMES} == {
        "max_batch": None,
        "queue_size": None,
        "linger": 0,
        "key": None,
        "concurrency": 1,
        "overflow": "wait",
        "rate": None,
        "timeout": None,
        "retry": None,
        "isolate": False,
        "on_failure": {},
    }


GOOD: list[tuple[str, Any, Any]] = [
    ("max_batch", 1, 1),
    ("max_batch", 10**9, 10**9),
    ("max_batch", None, None),
    ("queue_size", 1, 1),
    ("queue_size", None, None),
    ("linger", 0, 0.0),
    ("linger", 0.25, 0.25),
    ("linger", timedelta(milliseconds=250), 0.25),
    ("key", by_data, by_data),
    ("key", None, None),
    ("key", str, str),
    ("concurrency", 1, 1),
    ("concurrency", 8, 8),
    *[("overflow", each, each) for each in ("wait", "drop_oldest", "drop_newest", "latest", "error")],
    ("rate", RATE, RATE),
    ("rate", None, None),
    ("timeout", 5, 5.0),
    ("timeout", timedelta(seconds=5), 5.0),
    ("timeout", None, None),
    ("retry", RETRY, RETRY),
    ("retry", None, None),
    ("isolate", True, True),
    ("isolate", False, False),
    ("on_failure", {}, {}),
    ("on_failure", {ValueError: "discard"}, {ValueError: "discard"}),
    ("on_failure", UserDict({OSError: "pause", Exception: "stop"}), {OSError: "pause", Exception: "stop"}),
    ("on_failure", {ExceptionGroup: "dead_letter"}, {ExceptionGroup: "dead_letter"}),
]


@WAYS
@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_a_value_that_is_allowed_is_kept(
    name: str, value: Any, kept: Any, give: Callable[..., HandlerOptions], where: str
) -> None:
    options = give(**{name: value})
    assert getattr(options, name) == kept
    assert type(getattr(options, name)) is type(kept)
    assert {each for each in NAMES if getattr(options, each) != getattr(method(), each)} <= {name}


def test_every_option_is_tried_above_and_below_and_told_to_type_checkers() -> None:
    assert {name for name, _, _ in GOOD} == {name for name, _, _ in BAD} == set(NAMES)
    assert set(fitting.Options.__annotations__) == set(NAMES)


def test_the_docstring_explains_each_option_and_its_default() -> None:
    listed = re.findall(r"^- `(\w+)`: (.*(?:\n  .*)*)", inspect.getdoc(on_event) or "", re.MULTILINE)
    assert [name for name, _ in listed] == list(NAMES)
    assert [name for name, text in listed if "Default: " not in text] == []


@pytest.mark.parametrize(
    "key", [by_data, lambda event: event.data, Keys().method, functools.partial(by_data), len, "symbol"]
)
def test_any_sync_function_of_one_event_may_be_the_key(key: Any) -> None:
    assert callable(method(key=key).key)


def test_a_str_as_key_is_an_entry_of_the_data() -> None:
    key = method(key="symbol").key
    assert key is not None
    assert key(Ping({"symbol": 5})) == 5
    assert repr(key) == "<entry 'symbol' of the data>"
    with pytest.raises(KeyError, match="symbol"):
        key(Ping({}))


def test_a_dict_of_failures_is_copied() -> None:
    actions: Any = {ValueError: "discard"}
    options = method(on_failure=actions)
    actions[ValueError] = "explode"
    assert options.on_failure == {ValueError: "discard"}


# -- what is not -----------------------------------------------------------------------------------------------------

WHOLE = "a whole number of at least 1 is allowed"
SECONDS_ABOVE_0 = "seconds above 0 are allowed, as a number or timedelta, not inf"
SECONDS_FROM_0 = "seconds of at least 0 are allowed, as a number or timedelta, not inf"
A_KEY = "a function of one event is allowed, or a str that names an entry of its data"
ACTIONS = "allowed are 'dead_letter', 'discard', 'pause', 'stop'"

BAD: list[tuple[str, Any, str]] = [
    *[(name, each, WHOLE) for name in ("max_batch", "queue_size", "concurrency")
      for each in (0, -1, True, False, 1.5, 1.0, math.nan, math.inf, "5", timedelta(1))],
    ("concurrency", None, WHOLE),
    *[("linger", each, SECONDS_FROM_0) for each in (-1, -0.1, math.nan, math.inf, True, "1", None, Decimal(1), 10**400)],
    ("linger", timedelta(seconds=-1), SECONDS_FROM_0),
    *[("timeout", each, SECONDS_ABOVE_0) for each in (0, 0.0, -1, math.nan, math.inf, True, "1", Decimal(1), timedelta(0))],
    *[("key", each, A_KEY) for each in (5, "", b"symbol", ["symbol"], True)],
    *[("key", each, "it is asked while an event is published, so it cannot be async")
      for each in (async_key, async_generator_key, functools.partial(async_key), Keys())],
    ("key", lambda: 1, "it is called with one event, but takes (): too many positional arguments"),
    ("key", lambda app, event: 1, "it is called with one event, but takes (app, event): missing a required argument: 'event'"),
    ("key", Keys.method, "it is called with one event, but takes (self, event: "),
    *[("overflow", each, "allowed are 'wait', 'drop_oldest', 'drop_newest', 'latest', 'error'")
      for each in ("block", "", "WAIT", None, True, ["wait"])],
    *[("rate", each, "a Rate is allowed, for instance Rate(100, per=1.0)") for each in (5, "5/s", (5, 1.0), Rate)],
    *[("retry", each, "a Retry is allowed, for instance Retry(on=OSError)") for each in (5, True, OSError, Retry)],
    *[("isolate", each, "True or False is allowed") for each in (1, 0, "yes", None)],
    *[("on_failure", each, "a dict of Exception classes is allowed, for instance {ValueError: 'discard'}")
      for each in (None, "discard", ValueError, [(ValueError, "discard")])],
    *[("on_failure", {each: "discard"}, "is no subclass of Exception")
      for each in (KeyboardInterrupt, BaseException, "ValueError", ValueError("x"), int, None)],
]  # fmt: skip


@WAYS
@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_wrong_value_is_an_error_that_names_handler_option_and_value(
    name: str, value: Any, allowed: str, give: Callable[..., HandlerOptions], where: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{where}: {name}={value!r}: ')}") as caught:
        give(**{name: value})
    assert type(caught.value) is OptionError
    assert allowed in str(caught.value)


@WAYS
@pytest.mark.parametrize("action", ["drop", "", None, True, ["stop"]])
def test_a_wrong_action_is_an_error_that_names_its_class(
    action: Any, give: Callable[..., HandlerOptions], where: str
) -> None:
    with pytest.raises(OptionError) as caught:
        give(on_failure={OSError: "stop", ValueError: action})
    assert str(caught.value) == f"{where}: on_failure[ValueError]={action!r}: {ACTIONS}"


@WAYS
@pytest.mark.parametrize("name", ["maxbatch", "max_threads", "events", "where", "given"])
def test_an_unknown_name_is_an_error_that_lists_those_there_are(
    name: str, give: Callable[..., HandlerOptions], where: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        give(**{name: 5})
    assert str(caught.value) == f"{where} has no option {name!r}: allowed are {', '.join(NAMES)}"
    assert isinstance(caught.value, TypeError)


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("name", ["key", "rate", "retry", "isolate", "on_failure"])
def test_a_value_whose_repr_is_broken_is_still_named(name: str) -> None:
    with pytest.raises(
        OptionError, match=rf"App\.handle: {name}=<Broken, whose repr\(\) raises RuntimeError>"
    ):
        method(**{name: Broken()})


# -- when ------------------------------------------------------------------------------------------------------------


def test_options_are_checked_when_the_class_is_made_though_an_annotation_has_to_wait() -> None:
    with pytest.raises(OptionError, match=r"^App\.last: max_batch=0"):

        class App(Application):
            async def on_first(self, events: list[OnlyForTypeCheckers]) -> None: ...

            @on_event(Ping)  # type: ignore[call-overload]
            async def second(self, events: list[OnlyForTypeCheckers]) -> None: ...

            @on_event(Ping, max_batch=0)
            async def last(self, events: list[Ping]) -> None: ...


def test_a_mixin_is_named_by_the_application_that_mixes_it_in() -> None:
    class Mixin:
        @on_event(Ping, max_batch=0)
        async def handle(self, events: list[Ping]) -> None: ...

    with pytest.raises(OptionError, match=r"^App\.handle: max_batch=0"):

        class App(Mixin, Application):
            pass


def test_a_method_that_takes_no_options_does_not_take_these() -> None:
    with pytest.raises(TypeError, match="max_batch"):
        schedule(60, max_batch=5)  # type: ignore[call-arg]


# -- several marks ---------------------------------------------------------------------------------------------------


def test_stacked_marks_share_the_options() -> None:
    class App(Application):
        @on_event(Ping, max_batch=5)
        @on_event(Pong, linger=1, key="x")
        async def handle(self, events: list[Ping | Pong]) -> None: ...

    handler = declarations_of(App).handlers["handle"]
    assert handler.events == (Ping, Pong)
    assert (handler.options.max_batch, handler.options.linger) == (5, 1)
    assert handler.options.key is not None


@pytest.mark.parametrize("second", [5, 6, None])
def test_an_option_in_two_marks_is_an_error_also_if_it_says_the_same(second: Any) -> None:
    with pytest.raises(
        DeclarationError,
        match=r"^App\.handle has the option 'max_batch' twice: give it with one of its event classes$",
    ):

        class App(Application):
            @on_event(Ping, max_batch=5)
            @on_event(Pong, linger=1, max_batch=second)
            async def handle(self, events: list[Ping | Pong]) -> None: ...


# -- subclasses ------------------------------------------------------------------------------------------------------


class Parent(Application):
    @on_event(Ping, max_batch=5, on_failure={ValueError: "discard"})
    async def handle(self, events: list[Ping]) -> None: ...


def test_a_subclass_and_an_override_without_marks_keep_the_options() -> None:
    class Same(Parent):
        pass

    class Override(Same):
        async def handle(self, events: list[Ping]) -> None: ...

    for cls in (Same, Override):
        options = declarations_of(cls).handlers["handle"].options
        assert (options.max_batch, options.on_failure) == (5, {ValueError: "discard"})


def test_an_override_with_marks_of_its_own_begins_anew() -> None:
    class Override(Parent):
        @on_event(Pong, linger=1)
        async def handle(self, events: list[Pong]) -> None: ...  # type: ignore[override]

    handler = declarations_of(Override).handlers["handle"]
    assert handler.events == (Pong,)
    assert (handler.options.max_batch, handler.options.linger, handler.options.on_failure) == (None, 1, {})
    assert declarations_of(Parent).handlers["handle"].options.max_batch == 5


def test_a_method_taken_away_takes_its_options_along() -> None:
    class Less(Parent):
        handle = None  # type: ignore[assignment]

    assert declarations_of(Less).handlers == {}


# -- plain functions registered again --------------------------------------------------------------------------------


async def handle(events: list[Any]) -> None: ...


async def other(events: list[Any]) -> None: ...


def test_a_function_registered_again_has_the_options_of_both_times() -> None:
    engine = AppEngine()
    engine.register_handler(Ping, handle, max_batch=5)
    engine.on_event(Pong, linger=1)(handle)
    engine.register_handler(Event, handle)
    handler = declared(engine)["handle"]
    assert handler.events == (Ping, Pong, Event)
    assert (handler.options.max_batch, handler.options.linger) == (5, 1)


def test_an_option_given_again_is_an_error_and_changes_nothing() -> None:
    engine = AppEngine()
    engine.register_handler(Ping, handle, max_batch=5)
    with pytest.raises(DeclarationError, match=r"^the handler handle has the option 'max_batch' twice"):
        engine.register_handler(Pong, other, handle, max_batch=5, linger=1)
    (handler,) = declared(engine).values()
    assert handler.events == (Ping,)
    assert (handler.options.max_batch, handler.options.linger) == (5, 0)


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"maxbatch": 5}])
def test_a_wrong_option_registers_none_of_the_functions(wrong: Any) -> None:
    engine = AppEngine()
    with pytest.raises(EventFlowError):
        engine.register_handler(Ping, handle, other, **wrong)
    assert declared(engine) == {}


def test_several_functions_have_the_same_options_and_one_that_is_named_twice_has_them_once() -> None:
    engine = AppEngine()
    engine.register_handler(Ping, handle, other, handle, max_batch=5)
    assert {name: each.options.max_batch for name, each in declared(engine).items()} == {
        "handle": 5,
        "other": 5,
    }


# -- in the engine ---------------------------------------------------------------------------------------------------


async def test_a_handler_has_its_own_max_batch_and_the_others_that_of_the_engine() -> None:
    class App(Application):
        @on_event(Pong, max_batch=2)
        async def small(self, events: list[Pong]) -> None: ...

        @on_event(Pong)
        async def usual(self, events: list[Pong]) -> None: ...

        async def on_pong(self, events: list[Pong]) -> None: ...

    engine = AppEngine([App()], max_batch=5)
    engine.register_handler(Pong, handle, max_batch=3)
    await engine.pub_events([Pong(number) for number in range(10)])
    async with engine:
        await engine.wait_idle()
    assert {name: each.largest_batch for name, each in engine.statistics().handlers.items()} == {
        "engine.handle": 3,
        "App.small": 2,
        "App.usual": 5,
        "App.on_pong": 5,
    }


async def test_a_handler_has_its_own_queue_size() -> None:
    entered, leave = anyio.Event(), anyio.Event()

    class App(Application):
        @on_event(Pong, queue_size=2)
        async def slow(self, events: list[Pong]) -> None:
            entered.set()
            await leave.wait()

    async def publish(number: int) -> None:
        await engine.pub_event(Pong(number))
        published.append(number)

    published: list[int] = []
    engine = AppEngine([App()])
    async with engine, anyio.create_task_group() as group:
        await engine.pub_event(Pong(0))
        await entered.wait()
        for number in range(3):
            group.start_soon(publish, number)
        await anyio.wait_all_tasks_blocked()
        assert len(published) == engine.statistics().handlers["App.slow"].queued == 2
        leave.set()
    assert engine.statistics().handled == 4


def test_what_is_declared_reads_well() -> None:
    class App(Application):
        @on_event(Ping, Pong, max_batch=5)
        async def handle(self, batch: Batch[Ping | Pong]) -> None: ...

    assert repr(declarations_of(App).handlers["handle"]) == (
        "<HandlerDeclaration Batch[Ping | Pong], HandlerOptions(max_batch=5)>"
    )

"""`Batch`: what it holds, and how it is found that a handler takes one in place of a list."""

from __future__ import annotations

import functools
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Optional, TypeVar, Union

import pytest

import event_flow
from event_flow import AppEngine, Application, Batch, DeclarationError, Event, on_event
from event_flow.core.declaration import DeclaringMeta, declarations_of
from event_flow.core.handler_options import HandlerDeclaration

if typing.TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Own:
    """Of the same name, and no batch."""

    class Batch(list[Any]):
        pass


EventT = TypeVar("EventT", bound=Event[Any])
Pings = Batch[Ping]
Many = Batch[EventT]

# -- what it is ------------------------------------------------------------------------------------------------------


def test_a_batch_made_by_hand_needs_only_events() -> None:
    batch = Batch(number for number in [Ping(1), Ping(2)])
    assert [event.data for event in batch] == [event.data for event in batch.events] == [1, 2]
    assert (len(batch), batch.key, batch.closed_by, batch.attempt) == (2, None, "idle", 1)
    assert repr(batch) == "Batch([Ping(1), Ping(2)], closed_by='idle', attempt=1)"
    keyed = Batch([Ping(1)], key="a", closed_by="linger", attempt=2)
    assert repr(keyed) == "Batch([Ping(1)], key='a', closed_by='linger', attempt=2)"


def test_a_batch_has_a_list_of_its_own() -> None:
    events = [Ping(1), Ping(2)]
    batch = Batch(events)
    batch.events.clear()
    assert len(events) == 2
    assert not batch
    assert list(batch) == []


def test_a_batch_has_nothing_else_and_no_attribute_may_be_added() -> None:
    batch = Batch[Ping]([])
    with pytest.raises(AttributeError):
        batch.keys = "x"  # type: ignore[attr-defined]


# -- methods ---------------------------------------------------------------------------------------------------------


def method(annotation: Any, *, marked: bool) -> DeclaringMeta:
    """An application whose `on_it` has one parameter with this annotation, evaluated or not."""

    async def on_it(self: Any, batch: Any) -> None: ...

    on_it.__annotations__["batch"] = annotation
    return DeclaringMeta("App", (Application,), {"on_it": on_event(Ping)(on_it) if marked else on_it})


def on_it(cls: Any) -> HandlerDeclaration | None:
    return declarations_of(cls).handlers.get("on_it")


def takes_batch(cls: Any) -> bool:
    handler = on_it(cls)
    assert handler is not None
    return handler.takes_batch


LISTING = [
    (Batch[Ping], (Ping,)),
    (Batch[Ping | Pong], (Ping, Pong)),
    (Batch[Event], (Event,)),
    (Batch[Event[Any]], (Event,)),
    (Batch["Ping"], (Ping,)),
    (Pings, (Ping,)),
    (Many[Pong], (Pong,)),
    ("Batch[Ping]", (Ping,)),
    ("'Batch[Ping]'", (Ping,)),
    ("Batch['Ping | Pong']", (Ping, Pong)),
    ("event_flow.Batch[Event[int]]", (Event,)),
    ("Pings", (Ping,)),
    ("Many[Pong]", (Pong,)),
    (typing.ForwardRef("Batch[Ping]"), (Ping,)),
]
UNKNOWN: Any = typing.ForwardRef("Unknown")
BATCH_OF_UNKNOWN: Any = typing.ForwardRef("Batch[Unknown]")
ONLY_MARKED = [
    Batch, Batch[Any], Many, Batch[UNKNOWN], Batch[Ping] | None, list[Ping] | Batch[Ping], Optional[BATCH_OF_UNKNOWN],  # noqa: UP045
    Union[BATCH_OF_UNKNOWN, list[Ping]], Annotated[Batch[Ping], "x"], Annotated[BATCH_OF_UNKNOWN, "x"],  # noqa: UP007
    "Batch", "Batch[Unknown]", "Batch[OnlyForTypeCheckers]", "event_flow.Batch[Unknown]", "'Batch[Unknown]'", "Many[Unknown]",
    "Batch[Unknown] | None", "None | Batch[Unknown]", "list[Unknown] | Batch[Unknown]", "Optional[Batch[Unknown]]",
    "typing.Optional['Batch[Unknown]']", "Union[list[Unknown], Batch[Unknown]]", "Annotated[Batch[Unknown], 'x']",
    " Batch[Unknown] ", "(Batch[Unknown])",
]  # fmt: skip
NO_BATCH = [
    list, list[Ping], Sequence[Ping], Iterable[Ping], Any, object, None, int, list[Batch[Ping]], type[Batch[Ping]],
    Callable[[Batch[Ping]], None], Annotated[list[Ping], Batch], Own.Batch, Batch([]),
    "list[Ping]", "list[Batch[Ping]]", "Any", "object", "None", "5", "'list[Ping]'", "Own.Batch", "Own.Batch[Ping]",
    "Annotated[list[Ping], Batch]", "Annotated[list[Ping], 'Batch']", "type[Batch]", "list[Ping] | None",
    "Unknown", "Unknown[Batch]", "Unknown.Batches", "list[Unknown]", "Unknown | None", "Batch[", "no annotation", "lambda: Batch",
    "1 / 0", "",
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "events"), LISTING)
def test_one_parameter_that_is_a_batch_of_events_makes_a_handler(
    annotation: Any, events: tuple[type, ...]
) -> None:
    handler = on_it(method(annotation, marked=False))
    assert handler is not None
    assert (handler.events, handler.takes_batch) == (events, True)


@pytest.mark.parametrize("annotation", [*(annotation for annotation, _ in LISTING), *ONLY_MARKED])
def test_a_marked_method_takes_a_batch_if_its_parameter_says_so(annotation: Any) -> None:
    """What stands in the brackets need not be known: the mark says which events."""
    handler = on_it(method(annotation, marked=True))
    assert handler is not None
    assert (handler.events, handler.takes_batch) == ((Ping,), True)


@pytest.mark.parametrize("annotation", NO_BATCH)
def test_a_marked_method_with_any_other_annotation_takes_a_list(annotation: Any) -> None:
    assert takes_batch(method(annotation, marked=True)) is False


@pytest.mark.parametrize("annotation", [Batch, Batch[Any], Batch[int], "Batch", "Batch[int]"])  # type: ignore[type-var]
def test_without_a_mark_a_batch_that_says_of_nothing_is_no_handler_and_the_log_says_so(
    annotation: Any, logs: list[Any]
) -> None:
    app = method(annotation, marked=False)
    assert on_it(app) is None
    AppEngine([app()])
    (record,) = logs
    assert record.message.startswith("App.on_it is no handler, because it takes no list of events")


def test_every_kind_of_method_may_take_a_batch() -> None:
    class Calls:
        async def __call__(self, batch: Batch[Ping]) -> None: ...

    async def keep(name: str, batch: Batch[Ping]) -> None: ...

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any: ...

        return wrapper

    class App(Application):
        @staticmethod
        async def on_static(batch: Batch[Ping]) -> None: ...

        @classmethod
        def on_class(cls, batch: Batch[Ping]) -> None: ...

        @on_event(Ping)
        @staticmethod
        async def static(batch: Batch[Ping]) -> None: ...

        @classmethod
        @on_event(Ping)
        def of_class(cls, batch: Batch[Ping]) -> None: ...

        @on_event(Ping)
        def more(self, batch: Batch[Ping], dry: bool = False, *, loud: bool = True) -> None: ...

        @on_event(Ping)
        def rest(self, *batches: Batch[Ping]) -> None: ...

        @on_event(Ping)
        @logged
        async def outside(self, batch: Batch[Ping]) -> None: ...

        @logged
        @on_event(Ping)
        async def inside(self, batch: Batch[Ping]) -> None: ...

        async def _named(self, name: str, batch: Batch[Ping]) -> None: ...

        on_object = Calls()
        on_partial = functools.partial(keep, "prefix")
        on_partial_method = functools.partialmethod(_named, "prefix")
        partial_method = on_event(Ping)(functools.partialmethod(_named, "prefix"))

    handlers = declarations_of(App).handlers
    assert len(handlers) == 12
    assert [name for name, handler in handlers.items() if not handler.takes_batch] == []
    AppEngine([App()])


def test_a_handler_of_a_batch_that_could_not_be_called_is_an_error() -> None:
    class App(Application):
        @on_event(Ping)  # type: ignore[call-overload]
        async def handle(self, batch: Batch[Ping], more: int) -> None: ...

    with pytest.raises(DeclarationError, match=r"^App\.handle is called with one Batch, but takes \(batch"):
        AppEngine([App()])


# -- names that are found, or not ------------------------------------------------------------------------------------


def test_a_marked_handler_may_find_batch_in_the_function_or_class_around_it() -> None:
    from event_flow import Batch as Bunch

    class App(Application):
        Mine = Batch[Ping]

        @on_event(Ping)
        async def local(self, batch: Bunch[Ping]) -> None: ...

        @on_event(Ping)
        async def in_class(self, batch: Mine) -> None: ...

        @on_event(Ping)
        async def later(self, batch: Later) -> None: ...

    Later = Batch[Ping]  # noqa: N806
    handlers = declarations_of(App).handlers
    assert {name: handler.takes_batch for name, handler in handlers.items()} == dict.fromkeys(
        ["local", "in_class", "later"], True
    )


def test_what_an_annotation_names_may_come_later_also_for_a_subclass_made_before() -> None:
    namespace: dict[str, Any] = {"Application": Application, "on_event": on_event, "Ping": Ping}
    exec(
        """
class App(Application):
    @on_event(Ping)
    async def on_it(self, batch: "Pings") -> None: ...

class Derived(App):
    pass
""",
        namespace,
    )
    namespace["Pings"] = Batch[Ping]
    assert takes_batch(namespace["Derived"])
    assert takes_batch(namespace["App"])


def base() -> Any:
    from event_flow import Batch as Bunch

    class Base(Application):
        @on_event(Ping)
        async def on_it(self, batch: Bunch[Ping]) -> None: ...

    return Base


def test_a_subclass_made_elsewhere_keeps_what_its_base_found() -> None:
    class Derived(base()):  # type: ignore[misc]
        pass

    assert takes_batch(Derived)


def with_missing_batch(marked: bool, annotation: str) -> Any:
    """As in a module that imports it for type checkers only."""
    namespace: dict[str, Any] = {"Application": Application, "on_event": on_event, "Ping": Ping}
    mark = "@on_event(Ping)" if marked else ""
    exec(
        f"class App(Application):\n    {mark}\n    async def on_it(self, batch: {annotation!r}) -> None: ...\n"
        f"async def function(batch: {annotation!r}) -> None: ...\n",
        namespace,
    )
    return namespace


@pytest.mark.parametrize(
    "annotation", ["Batch[Ping]", "Batch", "flow.Batch[Ping]", "Batch[Ping] | None", "'Batch'"]
)
def test_a_batch_that_is_known_to_type_checkers_only_is_an_error_when_the_application_is_added(
    annotation: str,
) -> None:
    namespace = with_missing_batch(True, annotation)
    message = r"App\.on_it: '(flow\.)?Batch' in the annotation of its parameter cannot be resolved \(name '(Batch|flow)' is not "
    with pytest.raises(DeclarationError, match=message) as caught:
        AppEngine([namespace["App"]()])
    assert type(caught.value) is DeclarationError
    assert "import it, not for type checkers only" in str(caught.value)
    with pytest.raises(DeclarationError, match=r"the handler function: '(flow\.)?Batch' in the annotation"):
        AppEngine().register_handler(Ping, namespace["function"])


def test_without_a_mark_it_is_the_error_that_a_list_would_be() -> None:
    app = with_missing_batch(False, "Batch[Ping]")["App"]
    with pytest.raises(
        DeclarationError, match=r"App\.on_it: the annotation 'Batch\[Ping\]' cannot be resolved"
    ):
        AppEngine([app()])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements are syntax of Python 3.12")
def test_type_statements_are_followed() -> None:
    namespace: dict[str, Any] = {
        "Ping": Ping,
        "Batch": Batch,
        "Application": Application,
        "on_event": on_event,
    }
    exec(  # the syntax of a later Python than the oldest supported
        """
type Pings = Batch["Ping"]
type Many[T] = Batch[T]
type Maybe = Pings | None
type Broken = Missing[Ping]

class App(Application):
    async def on_1(self, batch: Pings) -> None: ...
    async def on_2(self, batch: "Many[Ping]") -> None: ...
    @on_event(Ping)
    async def marked_1(self, batch: Many[Ping]) -> None: ...
    @on_event(Ping)
    async def marked_2(self, batch: "Many[Unknown]") -> None: ...
    @on_event(Ping)
    async def marked_3(self, batch: Maybe) -> None: ...
    @on_event(Ping)
    async def marked_4[E: Ping](self, batch: Batch[E]) -> None: ...
    @on_event(Ping)
    async def broken(self, batch: Broken) -> None: ...
""",
        namespace,
    )
    handlers = declarations_of(namespace["App"]).handlers
    assert [name for name, handler in handlers.items() if not handler.takes_batch] == ["broken"]
    assert len(handlers) == 7


# -- subclasses ------------------------------------------------------------------------------------------------------


class Parent(Application):
    @on_event(Ping)
    async def marked(self, batch: Batch[Ping]) -> None: ...

    async def on_convention(self, batch: Batch[Ping]) -> None: ...


def batches(cls: Any) -> dict[str, bool]:
    return {name: handler.takes_batch for name, handler in declarations_of(cls).handlers.items()}


def test_an_override_without_an_annotation_takes_what_it_replaces_takes() -> None:
    class Child(Parent):
        async def marked(self, batch):  # type: ignore[no-untyped-def]
            ...

        async def on_convention(self, batch):  # type: ignore[no-untyped-def]
            ...

    class Grandchild(Child):
        @on_event(Pong)
        async def marked(self, *batches):  # type: ignore[no-untyped-def]
            ...

    assert batches(Parent) == batches(Child) == batches(Grandchild) == {"marked": True, "on_convention": True}


def test_an_override_with_an_annotation_takes_what_that_says() -> None:
    class Child(Parent):
        async def marked(self, events: list[Ping]) -> None: ...  # type: ignore[override]

        async def on_convention(self, events: list[Ping]) -> None: ...  # type: ignore[override]

    class Grandchild(Child):
        async def marked(self, batch: Batch[Ping]) -> None: ...  # type: ignore[override]

        async def on_convention(self, batch: Batch[Pong]) -> None: ...  # type: ignore[override]

    assert batches(Child) == {"marked": False, "on_convention": False}
    assert batches(Grandchild) == {"marked": True, "on_convention": True}
    assert declarations_of(Grandchild).handlers["on_convention"].events == (Pong,)


# -- plain functions -------------------------------------------------------------------------------------------------


async def plain(batch: Batch[Ping]) -> None: ...


async def named(name: str, batch: Batch[OnlyForTypeCheckers]) -> None: ...  # type: ignore[type-var]


async def listed(events: list[OnlyForTypeCheckers]) -> None: ...


class Keeper:
    Mine = Batch[Ping]

    async def __call__(self, batch: Mine) -> None: ...

    async def keep(self, batch: Mine) -> None: ...

    async def keep_list(self, events: list[Ping]) -> None: ...

    @classmethod
    async def of_class(cls, batch: Mine) -> None: ...


class Made:
    def __init__(self, batch: Batch[Ping]) -> None: ...


class Heir(Keeper):
    pass


@pytest.mark.parametrize(
    ("function", "is_batch"),
    [
        (plain, True),
        (functools.partial(named, "x"), True),
        (listed, False),
        (lambda events: None, False),
        (print, False),
        ([].extend, False),
        (Keeper(), True),
        (Heir(), True),
        (Keeper().keep, True),
        (Heir().keep, True),
        (functools.partial(Heir().keep), True),
        (Keeper.of_class, True),
        (Keeper().keep_list, False),
        (Made, True),
    ],
)
def test_a_plain_function_takes_a_batch_if_its_parameter_says_so(function: Any, is_batch: bool) -> None:
    engine = AppEngine()
    engine.register_handler(Ping, function)
    engine.register_handler(Pong, function)
    ((_, handler),) = engine._functions.values()
    assert (handler.events, handler.takes_batch) == ((Ping, Pong), is_batch)


def test_a_plain_function_may_find_batch_in_the_function_around_it() -> None:
    from event_flow import Batch as Bunch

    engine = AppEngine()

    @engine.on_event(Ping)
    async def local(batch: Bunch[Ping]) -> None: ...

    ((_, handler),) = engine._functions.values()
    assert handler.takes_batch


def test_a_plain_function_of_a_batch_that_could_not_be_called_is_an_error() -> None:
    def more(batch: Batch[Ping], more: int) -> None: ...

    with pytest.raises(
        DeclarationError, match=r"^the handler more is called with one Batch, but takes \(batch"
    ):
        AppEngine().register_handler(Ping, more)  # type: ignore[arg-type]


def test_the_name_is_the_package_s() -> None:
    assert event_flow.Batch is Batch

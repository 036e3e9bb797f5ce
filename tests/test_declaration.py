"""What a class declares: the `on_*` convention, string annotations, and the whole MRO."""

from __future__ import annotations

import abc
import functools
import gc
import sys
import typing
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from event_flow import (
    AppEngine,
    Application,
    DeclarationError,
    Event,
    SubApplication,
    on_event,
    schedule,
    task,
)
from event_flow.core.declaration import DeclaringMeta, declarations_of

if typing.TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Box(Event[dict[str, int]]):
    pass


Pings = list[Ping]


def app_with(annotation: Any) -> DeclaringMeta:
    """An application whose `on_it` has one parameter with this annotation, evaluated or not."""

    async def on_it(self: Any, events: Any) -> None: ...

    on_it.__annotations__["events"] = annotation
    return DeclaringMeta("App", (Application,), {"on_it": on_it})


def handlers(cls: DeclaringMeta) -> dict[str, tuple[type, ...]]:
    """The event classes of each."""
    return {name: handler.events for name, handler in declarations_of(cls).handlers.items()}


# -- the convention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "events"),
    [
        (list[Ping], (Ping,)),
        (list[Event], (Event,)),
        (list[Event[Any]], (Event,)),
        (list[Ping | Pong], (Ping, Pong)),
        (list[typing.Union[Ping, Pong]], (Ping, Pong)),  # noqa: UP007
        (typing.List[Ping], (Ping,)),  # noqa: UP006
        ("list[Ping]", (Ping,)),
        ("list[Ping | Pong]", (Ping, Pong)),
        ("list[Event[Any]]", (Event,)),
        ("list[Box | Event[int]]", (Box, Event)),
        ("typing.List[Ping]", (Ping,)),
        ("Pings", (Ping,)),
        (list["Ping"], (Ping,)),
        (list["Ping | Pong"], (Ping, Pong)),
        ("list['Ping']", (Ping,)),
        (typing.List["Ping"], (Ping,)),  # noqa: UP006
        (list[typing.Union[Ping, "Pong"]], (Ping, Pong)),
    ],
)  # fmt: skip
def test_one_parameter_that_lists_events_makes_a_handler(annotation: Any, events: tuple[type, ...]) -> None:
    assert handlers(app_with(annotation)) == {"on_it": events}


@pytest.mark.parametrize(
    "annotation",
    [
        Ping, list, list[int], list[Ping | None], list[Ping | int], list[Any], list[type[Ping]], Sequence[Ping],
        tuple[Ping], dict[str, Ping], Any, None, "Ping", "str", "list[int]", "list[Ping] | None", "int | str",
    ],
)  # fmt: skip
def test_any_other_annotation_is_left_alone(annotation: Any) -> None:
    assert handlers(app_with(annotation)) == {}


def test_names_that_begin_with_on_are_left_alone_if_they_are_no_handlers() -> None:
    class Helper:
        pass

    class App(Application):
        on_off = True
        on_text = "list[Ping]"
        on_nothing = None
        on_helper = Helper()
        on_class = Helper

        async def on_no_parameter(self) -> None: ...

        async def on_two_parameters(self, first: list[Ping], second: list[Pong]) -> None: ...

        async def on_no_annotation(self, events):  # type: ignore[no-untyped-def]
            ...

        async def on_keyword(self, *, events: list[Ping]) -> None: ...

        async def on_rest(self, *events: list[Ping]) -> None: ...

        @property
        def on_property(self) -> list[Ping]:
            raise AssertionError("nobody may ask for it")

        async def once(self, events: list[Ping]) -> None: ...

        async def _on_private(self, events: list[Ping]) -> None: ...

    assert handlers(App) == {}
    AppEngine([App()])


async def test_what_can_be_called_with_one_list_is_a_handler() -> None:
    class Callable:
        async def __call__(self, events: list[Ping]) -> None: ...

    async def plain(prefix: str, events: list[Ping]) -> None: ...

    class App(Application):
        async def on_default(self, events: list[Ping], dry: bool = False, *, loud: bool = True) -> None: ...

        async def on_own_default(self, events: list[Ping] = []) -> None: ...  # noqa: B006

        def on_sync(self, events: list[Ping], /, *rest: Any, **more: Any) -> None: ...

        @staticmethod
        async def on_static(events: list[Ping]) -> None: ...

        @classmethod
        def on_class(cls, events: list[Ping]) -> None: ...

        on_object = Callable()
        on_partial = functools.partial(plain, "prefix")

    names = ["on_default", "on_own_default", "on_sync", "on_static", "on_class", "on_object", "on_partial"]
    assert handlers(App) == dict.fromkeys(names, (Ping,))
    async with AppEngine([App()]) as engine:
        await engine.pub_event(Ping(1))
    assert {
        name.removeprefix("App."): each.handled for name, each in engine.statistics().handlers.items()
    } == (dict.fromkeys(names, 1))


async def plain(prefix: str, events: list[Ping]) -> None: ...


class PlainCallable:
    async def __call__(self, events: list[Ping]) -> None: ...


@pytest.mark.parametrize(
    "function", [functools.partial(plain, "prefix"), PlainCallable()], ids=["partial", "object"]
)
def test_partials_and_objects_may_be_static(function: Any) -> None:
    class App(Application):
        on_it = staticmethod(function)

    assert handlers(App) == {"on_it": (Ping,)}


async def test_a_partial_method_is_a_handler_if_one_parameter_is_left() -> None:
    got: list[tuple[str, int]] = []

    class App(Application):
        async def keep(self, name: str, events: list[Ping]) -> None:
            got.extend((name, event.data) for event in events)

        on_it = functools.partialmethod(keep, "filled in")

    async with AppEngine([App()]) as engine:
        await engine.pub_event(Ping(1))
    assert got == [("filled in", 1)]


# -- string annotations ----------------------------------------------------------------------------------------------


def test_classes_local_to_a_function_are_found() -> None:
    class Local(Event[int]):
        pass

    class Mixin:
        async def on_mixed(self, events: list[Local]) -> None: ...

    class App(Mixin, Application):
        class Inner(Event[int]):
            pass

        async def on_local(self, events: list[Local]) -> None: ...

        async def on_inner(self, events: list[Inner | Later]) -> None: ...

    class Later(Event[int]):
        pass

    AppEngine([App()])
    assert handlers(App) == {"on_mixed": (Local,), "on_local": (Local,), "on_inner": (App.Inner, Later)}


def local_base() -> type[Application]:
    class Local(Event[int]):
        pass

    class Base(Application):
        async def on_local(self, events: list[Local]) -> None: ...

        async def on_ping(self, events: list[Ping]) -> None: ...

    return Base


def test_a_subclass_made_elsewhere_keeps_what_its_base_resolved() -> None:
    base: Any = local_base()

    class Derived(base):  # type: ignore[misc]
        async def on_pong(self, events: list[Pong]) -> None: ...

    AppEngine([Derived()])
    derived: Any = Derived
    assert list(handlers(derived)) == ["on_local", "on_ping", "on_pong"]
    assert handlers(derived)["on_local"] == handlers(base)["on_local"]


def base_with_a_method_of_its_own() -> type[Application]:
    class Thing:
        pass

    class Base(Application):
        def on_text(self, text: Thing) -> None: ...

    return Base


def test_a_subclass_made_elsewhere_need_not_know_what_an_ordinary_method_takes() -> None:
    base: Any = base_with_a_method_of_its_own()

    class Derived(base):  # type: ignore[misc]
        pass

    AppEngine([Derived()])
    derived: Any = Derived
    assert handlers(derived) == {}


def test_a_slotted_dataclass_finds_local_classes() -> None:
    class Local(Event[int]):
        pass

    @dataclass(slots=True, eq=False)
    class App(Application):
        size: int = 1

        async def on_local(self, events: list[Local]) -> None: ...

    AppEngine([App()])
    assert handlers(App) == {"on_local": (Local,)}


@pytest.mark.parametrize("depth", ["application", "sub-application"])
def test_an_annotation_that_cannot_be_resolved_is_an_error_when_the_application_is_added(depth: str) -> None:
    class App(Application):
        async def on_price(self, events: list[OnlyForTypeCheckers]) -> None: ...

    class Sub(SubApplication):
        async def on_price(self, events: list[OnlyForTypeCheckers]) -> None: ...

    app = App() if depth == "application" else Application("Outer")
    if depth == "sub-application":
        app.add_app(Sub())
    engine = AppEngine()
    with pytest.raises(DeclarationError, match=r"(App|Sub)\.on_price.*list\[OnlyForTypeCheckers\]"):
        engine.add_app(Application(), app)
    app = Application()
    engine.add_app(app)
    assert app.engine is engine


def test_the_same_holds_for_a_sub_application_of_an_application_that_has_an_engine() -> None:
    class Sub(SubApplication):
        async def on_price(self, events: list[OnlyForTypeCheckers]) -> None: ...

    app = Application()
    AppEngine([app])
    with pytest.raises(DeclarationError, match=r"Sub\.on_price.*list\[OnlyForTypeCheckers\]"):
        app.add_app(Sub())


def test_a_mark_needs_no_annotation() -> None:
    class App(Application):
        @on_event(Ping)  # type: ignore[call-overload]
        async def on_price(self, events: list[OnlyForTypeCheckers]) -> None: ...

    assert handlers(App) == {"on_price": (Ping,)}


class Shadowed(Event[int]):
    """Other classes of this name are nearer to some of the functions below, and to others they are not."""


class ShadowedMixin:
    async def on_it(self, events: list[Shadowed]) -> None: ...


def test_a_name_means_what_it_means_in_the_function_s_own_signature() -> None:
    """Class body, then the functions around it, then the module; never where the class is used, nor a class around it."""
    module_level = Shadowed

    def function_level() -> tuple[Any, Any, Any]:
        class Shadowed(Event[int]):
            pass

        class OwnName(Application):
            class Shadowed(Event[int]):
                pass

            async def on_it(self, events: list[Shadowed]) -> None: ...

        class Mixed(ShadowedMixin, Application):
            pass

        class Nested:
            class Shadowed(Event[int]):
                pass

            class App(Application):
                async def on_it(self, events: list[Shadowed]) -> None: ...

        assert handlers(OwnName) == {"on_it": (OwnName.Shadowed,)}
        assert handlers(Mixed) == {"on_it": (module_level,)}
        assert handlers(Nested.App) == {"on_it": (Shadowed,)}
        return OwnName, Mixed, Nested

    own_name, mixed, _ = function_level()

    class Shadowing(own_name, ShadowedMixin):  # type: ignore[misc, valid-type]
        class Shadowed(Event[int]):
            pass

    class Remixed(ShadowedMixin, Application):
        class Shadowed(Event[int]):
            pass

    shadowing: Any = Shadowing
    assert handlers(shadowing) == {"on_it": (own_name.Shadowed,)}
    assert handlers(Remixed) == handlers(mixed) == {"on_it": (module_level,)}


class Made:
    """Made in methods whose names a metaclass has too."""

    def __init__(self) -> None:
        class Local(Event[int]):
            pass

        class App(Application):
            async def on_local(self, events: list[Local]) -> None: ...

        assert handlers(App) == {"on_local": (Local,)}

    def __call__(self) -> None:
        class Local(Event[int]):
            pass

        def deeper() -> None:
            class App(Application):
                async def on_local(self, events: list[Local]) -> None: ...

            assert handlers(App) == {"on_local": (Local,)}

        deeper()


def test_local_classes_are_found_in_any_function_and_from_any_depth() -> None:
    Made()()


def test_a_mixin_may_name_an_event_class_of_its_own() -> None:
    class Mixin:
        class Inner(Event[int]):
            pass

        async def on_inner(self, events: list[Inner]) -> None: ...

    class App(Mixin, Application):
        pass

    assert handlers(App) == {"on_inner": (Mixin.Inner,)}


def test_a_class_of_a_module_keeps_nothing_alive_that_was_at_work_when_it_was_made() -> None:
    class Big:
        pass

    def caller() -> tuple[Any, Any]:
        big = Big()
        namespace: dict[str, Any] = {"Application": Application}
        source = "class App(Application):\n    async def on_it(self, events: 'list[Missing]') -> None: ...\n"
        exec(source, namespace)
        return namespace["App"], weakref.ref(big)

    app, big = caller()
    gc.collect()
    with pytest.raises(DeclarationError, match=r"App\.on_it"):
        AppEngine([app()])
    assert big() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements are syntax of Python 3.12")
def test_type_statements_are_followed() -> None:
    namespace: dict[str, Any] = {"Ping": Ping, "Pong": Pong, "Application": Application}
    exec(  # the syntax of a later Python than the oldest supported
        """
type Either = Ping | Pong
type Pings = list["Ping"]
type Many[T] = list[T]

class App(Application):
    async def on_1(self, events: list[Either]) -> None: ...
    async def on_2(self, events: Pings) -> None: ...
    async def on_3(self, events: Many[Pong]) -> None: ...
    async def on_4(self, events: "list[Either]") -> None: ...
    def on_other[T](self, value: "T") -> None: ...

type Broken = list[Missing]

class Unfinished(Application):
    async def on_it(self, events: Broken) -> None: ...
""",
        namespace,
    )
    assert handlers(namespace["App"]) == {
        "on_1": (Ping, Pong),
        "on_2": (Ping,),
        "on_3": (Pong,),
        "on_4": (Ping, Pong),
    }
    with pytest.raises(DeclarationError, match=r"Unfinished\.on_it.*Broken.*Missing") as caught:
        AppEngine([namespace["Unfinished"]()])
    assert type(caught.value) is DeclarationError


def test_a_method_that_takes_one_event_is_no_handler_and_the_log_says_so(logs: list[Any]) -> None:
    class App(Application):
        async def on_ping(self, event: Ping) -> None: ...

        async def on_either(self, event: Ping | Pong) -> None: ...

        async def on_pong(self, events: list[Pong]) -> None: ...

        async def on_text(self, text: str) -> None: ...

    AppEngine([App()])
    assert [record.message.partition(",")[0] for record in logs] == [
        "App.on_ping is no handler",
        "App.on_either is no handler",
    ]


# -- the whole MRO ---------------------------------------------------------------------------------------------------


class Auditing(abc.ABC):
    """A mixin that is no application."""

    @abc.abstractmethod
    def audit(self) -> None: ...

    @on_event(Ping)
    async def audited(self, events: list[Ping]) -> None:
        self.audit()

    async def on_pong(self, events: list[Pong]) -> None:
        self.audit()

    @schedule(60)
    async def tick(self) -> None:
        self.audit()

    @task
    async def work(self) -> None:
        self.audit()


class Parent(Application):
    @on_event(Box)
    async def unpack(self, events: list[Box]) -> None: ...


class Child(Auditing, Parent):
    def audit(self) -> None: ...


def test_mixins_and_several_bases_are_searched() -> None:
    assert handlers(Child) == {"unpack": (Box,), "audited": (Ping,), "on_pong": (Pong,)}
    declared = declarations_of(Child)
    assert (list(declared.schedules), declared.tasks) == (["tick"], ["work"])


def test_an_abstract_mixin_still_has_to_be_completed() -> None:
    class Incomplete(Auditing, Application):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()  # type: ignore[abstract]


def test_an_override_without_marks_stays_what_it_replaces() -> None:
    class Grandchild(Child):
        async def audited(self, events: list[Ping]) -> None: ...

        async def on_pong(self, events):  # type: ignore[no-untyped-def]
            ...

        async def tick(self) -> None: ...

        async def work(self) -> None: ...

    grandchild, child = declarations_of(Grandchild), declarations_of(Child)
    assert handlers(Grandchild) == handlers(Child)
    assert (grandchild.schedules, grandchild.tasks) == (child.schedules, child.tasks)


def test_an_override_with_marks_or_another_annotation_replaces() -> None:
    class Grandchild(Child):
        @on_event(Box)  # type: ignore[call-overload]
        async def audited(self, events: list[Ping]) -> None: ...

        async def on_pong(self, events: list[Box]) -> None: ...  # type: ignore[override]

        @schedule(5)
        async def tick(self) -> None: ...

        @schedule(7)
        async def work(self) -> None: ...

    declared = declarations_of(Grandchild)
    assert handlers(Grandchild) == {"unpack": (Box,), "audited": (Box,), "on_pong": (Box,)}
    assert {name: mark.interval for name, mark in declared.schedules.items()} == {"tick": 5, "work": 7}
    assert declared.tasks == []


def test_none_takes_a_declaration_away_and_a_later_one_begins_anew() -> None:
    class Less(Child):
        audited = None  # type: ignore[assignment]
        on_pong = None  # type: ignore[assignment]
        tick = None  # type: ignore[assignment]
        work = None  # type: ignore[assignment]

    class Again(Less):
        async def audited(self, events: list[Ping]) -> None: ...  # type: ignore[override]

        async def on_pong(self, events: list[Ping]) -> None: ...  # type: ignore[override]

    assert handlers(Less) == {"unpack": (Box,)}
    assert (dict(declarations_of(Less).schedules), declarations_of(Less).tasks) == ({}, [])
    assert handlers(Again) == {"unpack": (Box,), "on_pong": (Ping,)}


async def test_what_was_overridden_is_called_in_the_new_version_only() -> None:
    called: list[str] = []

    class Old(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            called.append("old")

        @on_event(Ping)
        async def other(self, events: list[Ping]) -> None:
            called.append("old other")

    class New(Old):
        async def on_ping(self, events: list[Ping]) -> None:
            called.append("new")

        def other(self, events: list[Ping]) -> None:  # type: ignore[override]
            called.append("new other")

    async with AppEngine([New()]) as engine:
        await engine.pub_event(Ping(1))
    assert sorted(called) == ["new", "new other"]

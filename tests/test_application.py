"""Applications: names, their engine, sub-applications, and what may be added where."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest

from event_flow import (
    AppEngine,
    Application,
    DeclarationError,
    EngineNotSetError,
    EngineState,
    EngineStateError,
    Event,
    SubApplication,
    on_event,
    schedule,
    task,
)


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Diary:
    """Mixed into applications: the hooks of all of them write into one list."""

    diary: list[str]
    name: Any

    async def before_start(self) -> None:
        self.diary.append(f"{self.name} starts")

    def exit(self) -> None:
        self.diary.append(f"{self.name} exits")


# -- hooks -----------------------------------------------------------------------------------------------------------


async def test_hooks_may_be_sync_or_async_on_applications_and_engines() -> None:
    diary: list[str] = []

    class Sync(Application):
        def before_start(self) -> None:
            diary.append("sync starts")

        def exit(self) -> None:
            diary.append("sync exits")

    class Async(Application):
        async def before_start(self) -> None:
            diary.append("async starts")

        async def exit(self) -> None:
            diary.append("async exits")

    engine = AppEngine([Sync(), Async()])

    def setup() -> None:
        diary.append("engine starts")

    async def cleanup() -> None:
        diary.append("engine exits")

    assert engine.before_start(setup) is setup
    assert engine.exit(cleanup) is cleanup
    async with engine:
        assert diary == ["engine starts", "sync starts", "async starts"]
        diary.clear()
    assert diary == ["async exits", "sync exits", "engine exits"]


async def test_an_inherited_hook_counts_and_none_takes_it_away() -> None:
    diary: list[str] = []

    class Inherits(Diary, Application):
        pass

    class Drops(Inherits):
        before_start = None  # type: ignore[assignment]

    first, second = Inherits("A"), Drops("B")
    first.diary = second.diary = diary
    async with AppEngine([first, second]):
        pass
    assert diary == ["A starts", "B exits", "A exits"]


async def test_hooks_publish_and_the_events_are_handled_after_the_start() -> None:
    got: list[int] = []

    class App(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))
            assert not got

        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data for event in events)

    async with AppEngine([App()]):
        pass
    assert got == [1]


@pytest.mark.parametrize("place", ["before_start", "handler", "schedule", "task"])
@pytest.mark.parametrize("kind", ["application", "sub-application"])
async def test_applications_and_sub_applications_publish_from_everywhere(kind: str, place: str) -> None:
    """*Spec*, publishing events: `self.engine` in handlers, schedules and background tasks of both."""
    got: list[int] = []

    class Publishes:
        engine: Any

        async def publish(self, here: str) -> None:
            if here == place:
                await self.engine.pub_event(Pong(7))

        async def before_start(self) -> None:
            await self.publish("before_start")

        async def on_ping(self, events: list[Ping]) -> None:
            await self.publish("handler")

        @schedule(3600)
        async def tick(self) -> None:
            await self.publish("schedule")

        @task
        async def work(self) -> None:
            await self.publish("task")

    class App(Publishes, Application):
        pass

    class Sub(Publishes, SubApplication):
        pass

    class Hears(Application):
        async def on_pong(self, events: list[Pong]) -> None:
            got.extend(event.data for event in events)

    app: Application = App() if kind == "application" else Application()
    if kind == "sub-application":
        app.add_app(Sub())
    async with AppEngine([app, Hears()]) as engine:
        await engine.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
    assert got == [7]


async def test_a_sync_hook_that_returns_a_coroutine_is_an_error() -> None:
    async def connect() -> None:
        raise AssertionError("nobody may await this")

    class App(Application):
        def before_start(self) -> Any:
            return connect()

    with pytest.raises(TypeError, match=r"App\.before_start is a sync function that returned coroutine"):
        await AppEngine([App()]).run()


async def test_a_forgotten_init_breaks_nothing() -> None:
    got: list[int] = []

    class Sub(SubApplication):
        def __init__(self) -> None:
            self.offset = 10

        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data + self.offset for event in events)

    class App(Application):
        def __init__(self) -> None:
            self.offset = 0

        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data + self.offset for event in events)

    first, second = App(), App()
    first.add_app(Sub())
    async with AppEngine([first, second]) as engine:
        await engine.pub_event(Ping(1))
        assert first.engine is engine
    assert sorted(got) == [1, 1, 11]


async def test_an_application_with_only_handlers_lives_as_long_as_the_engine() -> None:
    got: list[int] = []

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data for event in events)

    async with AppEngine([App()]) as engine:
        for number in range(3):
            await engine.pub_event(Ping(number))
            await engine.wait_idle()
            await anyio.wait_all_tasks_blocked()
            assert engine.state is EngineState.RUNNING
    assert got == [0, 1, 2]


# -- names -----------------------------------------------------------------------------------------------------------


class Named(Application):
    async def on_ping(self, events: list[Ping]) -> None: ...


class NamedByClass(Named):
    name = "orders"


class NamedByArgument(Named):
    name = "overruled"

    def __init__(self, name: str) -> None:
        super().__init__(name)


class NamedSub(SubApplication):
    name = "orders"

    async def on_ping(self, events: list[Ping]) -> None: ...


async def names_of(*apps: Application) -> list[str]:
    engine = AppEngine(apps)
    async with engine:
        pass
    return [name.removesuffix(".on_ping") for name in engine.statistics().handlers]


async def test_class_attribute_and_argument_name_the_instance_and_every_name_is_given_once() -> None:
    with_sub = NamedByClass()
    with_sub.add_app(NamedSub())
    names = await names_of(
        Named(), with_sub, NamedByArgument("prices"), Named(), Named("orders"), Named("Named")
    )
    assert names == ["Named", "orders", "orders#2", "prices", "Named#2", "orders#3", "Named#3"]


@pytest.mark.parametrize("order", [("App", "App", "App#2"), ("App#2", "App", "App")])
async def test_a_name_like_a_numbered_one_is_told_apart(order: tuple[str, ...]) -> None:
    names = await names_of(*(Named(name) for name in order))
    assert len(set(names)) == 3


# -- engine and parent -----------------------------------------------------------------------------------------------


def test_without_an_engine_the_error_says_how_to_get_one() -> None:
    app, sub, subsub = Named(), NamedSub(), NamedSub()
    sub.add_app(subsub)
    with pytest.raises(
        EngineNotSetError, match=r"Named belongs to no engine: add it with engine\.add_app\(app\)"
    ):
        _ = app.engine
    for lonely in (sub, subsub):
        with pytest.raises(EngineNotSetError, match=r"NamedSub belongs to no engine: .*app\.add_app\(sub\)"):
            _ = lonely.engine
    with pytest.raises(EngineNotSetError, match="NamedSub belongs to no application"):
        _ = sub.parent
    assert issubclass(EngineNotSetError, RuntimeError)
    app.add_app(sub)
    with pytest.raises(EngineNotSetError):
        _ = subsub.engine
    engine = AppEngine([app])
    assert app.engine is sub.engine is subsub.engine is engine
    assert (sub.parent, subsub.parent) == (app, sub)


async def test_sub_applications_live_inside_their_parents_to_any_depth() -> None:
    diary: list[str] = []

    class Top(Diary, Application):
        pass

    class Sub(Diary, SubApplication):
        @on_event(Ping)
        async def handle(self, events: list[Ping]) -> None:
            diary.append(f"{self.name} handles")

        @task
        async def live(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                diary.append(f"{self.name} dies")

    apps: list[Any] = [Top("0"), *(Sub(str(depth)) for depth in range(1, 6))]
    for parent, child in pairwise(apps):
        parent.add_app(child)
    for app in apps:
        app.diary = diary
    async with AppEngine([apps[0]]) as engine:
        assert diary == [f"{depth} starts" for depth in range(6)]
        diary.clear()
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
        assert sorted(diary) == [f"{depth} handles" for depth in range(1, 6)]
        await anyio.wait_all_tasks_blocked()
        diary.clear()
    ends = [f"{depth} {what}" for depth in range(5, 0, -1) for what in ("dies", "exits")]
    assert diary == [*ends, "0 exits"]


# -- what goes where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [NamedSub(), Named, None, "app", AppEngine()])
def test_only_applications_go_into_engines(wrong: Any) -> None:
    engine, app = AppEngine(), Named()
    with pytest.raises(DeclarationError, match="only Application instances go into an engine, not"):
        engine.add_app(app, wrong)
    with pytest.raises(DeclarationError, match="only Application instances"):
        AppEngine([wrong])
    with pytest.raises(EngineNotSetError):
        _ = app.engine


@pytest.mark.parametrize("wrong", [Named(), NamedSub, None, "app", AppEngine()])
def test_only_sub_applications_go_into_applications(wrong: Any) -> None:
    app, sub = Named(), NamedSub()
    with pytest.raises(DeclarationError, match="only SubApplication instances go into an application, not"):
        app.add_app(sub, wrong)
    with pytest.raises(EngineNotSetError):
        _ = sub.parent


def test_a_class_instead_of_an_instance_is_explained() -> None:
    with pytest.raises(DeclarationError, match=r"the class Named: make an instance, Named\(\)"):
        AppEngine().add_app(Named)  # type: ignore[arg-type]


def twice_in_one_call() -> None:
    app = Named()
    AppEngine([app, app])


def twice_in_one_engine() -> None:
    app = Named()
    engine = AppEngine([app])
    engine.add_app(app)


def in_two_engines() -> None:
    app = Named()
    AppEngine([app])
    AppEngine([app])


def twice_in_one_application() -> None:
    sub = NamedSub()
    Named().add_app(sub, sub)


def in_two_applications() -> None:
    sub = NamedSub()
    Named().add_app(sub)
    Named().add_app(sub)


def in_itself() -> None:
    sub = NamedSub()
    sub.add_app(sub)


def in_its_own_child() -> None:
    sub, child = NamedSub(), NamedSub()
    sub.add_app(child)
    child.add_app(sub)


@pytest.mark.parametrize(
    "add",
    [
        twice_in_one_call, twice_in_one_engine, in_two_engines, twice_in_one_application, in_two_applications,
        in_itself, in_its_own_child,
    ],
)  # fmt: skip
def test_every_application_has_one_place(add: Callable[[], None]) -> None:
    with pytest.raises(
        DeclarationError, match=r"is listed twice|belongs to an? \w+ already|cannot be added to itself"
    ):
        add()


class NoList(Application):
    @on_event(Ping)  # type: ignore[call-overload]
    async def handle(self) -> None: ...


class TickWithTime(Application):
    @schedule(60)  # type: ignore[type-var]
    async def tick(self, now: float) -> None: ...


class TaskWithArgument(Application):
    @task  # type: ignore[type-var]
    def work(self, name: str) -> None: ...


class HookWithArgument(Application):
    async def before_start(self, engine: AppEngine) -> None: ...  # type: ignore[override]


class HidesItsHook(Application):
    def __init__(self) -> None:
        super().__init__()
        self.exit = False  # type: ignore[assignment, method-assign]


class NamedByAnApplication(Application):
    def __init__(self) -> None:
        super().__init__(NamedSub())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (NoList, r"NoList\.handle is called with one list of events, but takes \(\)"),
        (TickWithTime, r"TickWithTime\.tick is called without arguments, but takes \(now.*\)"),
        (TaskWithArgument, r"TaskWithArgument\.work is called without arguments"),
        (HookWithArgument, r"HookWithArgument\.before_start is called without arguments"),
        (HidesItsHook, r"HidesItsHook\.exit is False: a function or method is needed"),
        (NamedByAnApplication, r"NamedByAnApplication\.name is <.*NamedSub.*>: a str names the instance"),
    ],
)
def test_what_could_not_be_called_is_refused_when_the_application_is_added(
    app: Callable[[], Application], message: str
) -> None:
    engine = AppEngine()
    with pytest.raises(DeclarationError, match=message):
        engine.add_app(Named(), app())
    assert list(engine._apps) == []


def test_a_decorator_may_fill_in_what_the_engine_does_not_give() -> None:
    def with_prefix(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def filled(self: Any, events: list[Ping]) -> None:
            await function(self, "prefix", events)

        return filled

    def with_its_signature(function: Callable[..., Any]) -> Callable[..., Any]:
        filled = with_prefix(function)
        filled.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return filled

    class App(Application):
        @on_event(Ping)
        @with_its_signature
        async def handle_too(self, prefix: str, events: list[Ping]) -> None: ...

        @on_event(Ping)
        @with_prefix
        async def handle(self, prefix: str, events: list[Ping]) -> None: ...

    AppEngine([App()])


@pytest.mark.parametrize("apps", [None, 5, Named, Named()])
def test_applications_come_as_a_list(apps: Any) -> None:
    with pytest.raises(
        DeclarationError, match=r"apps is a list of applications, AppEngine\(\[MyApp\(\)\]\), not"
    ):
        AppEngine(apps)


def test_an_application_s_own_attributes_do_not_get_in_the_way() -> None:
    app = Named()
    for name in ("owner", "children", "hook", "apps", "events"):
        setattr(app, f"_{name}", "mine")
    AppEngine([app])


def test_what_was_refused_may_be_added_elsewhere() -> None:
    taken, free = Named(), Named()
    AppEngine([taken])
    engine = AppEngine()
    with pytest.raises(DeclarationError):
        engine.add_app(free, taken)
    engine.add_app(free)
    assert free.engine is engine


async def test_nothing_is_added_to_a_running_engine() -> None:
    app, sub = Named(), NamedSub()
    app.add_app(sub)
    engine = AppEngine([app])
    added: list[Callable[[], Any]] = [
        lambda: engine.add_app(Named()),
        lambda: app.add_app(NamedSub()),
        lambda: sub.add_app(NamedSub()),
        lambda: engine.before_start(print),
        lambda: engine.exit(print),
        lambda: engine.on_event(Ping)(print),
        lambda: engine.register_handler(Ping, print),
    ]
    async with engine:
        for add in added:
            with pytest.raises(EngineStateError, match="is not possible while the engine is running"):
                add()
        engine.stop()
    app.add_app(NamedSub("later"))
    async with engine:
        assert list(engine.statistics().handlers)[-1] == "later.on_ping"
    assert list(engine.statistics().handlers) == ["Named.on_ping", "orders.on_ping", "later.on_ping"]


def test_the_list_of_applications_stays_the_caller_s() -> None:
    apps: list[Application] = [Named()]
    engine = AppEngine(apps)
    engine.add_app(Named())
    assert len(apps) == 1
    AppEngine(app for app in [Named()])

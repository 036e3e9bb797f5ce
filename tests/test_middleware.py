"""Middleware: what is put around every attempt of a handler, and what it may do there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from event_flow import (
    AppEngine,
    Application,
    Batch,
    DeclarationError,
    EngineStateError,
    Event,
    ExceptionEvent,
    Retry,
    SubApplication,
    on_event,
)

CallNext = Callable[[Batch[Any]], Awaitable[None]]


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Other(Event[int]):
    pass


def numbers(events: Any) -> list[int]:
    return [event.data for event in events]


class Desk:
    """An engine with one handler of a list, sync or not, and dead letters; keeps what came into the handler."""

    def __init__(self, *middleware: Any, is_async: bool = True, **options: Any) -> None:
        self.engine = AppEngine(grace_period=options.pop("grace_period", 10))
        self.got: list[list[int]] = []
        self.letters: list[ExceptionEvent] = []
        self.error: Exception | None = None
        for each in middleware:
            self.engine.add_middleware(each)

        def work(events: list[Ping]) -> None:
            self.got.append(numbers(events))
            if self.error is not None:
                raise self.error

        async def work_async(events: list[Ping]) -> None:
            work(events)

        self.engine.register_handler(Ping, work_async if is_async else work, **options)

        @self.engine.on_event(ExceptionEvent)
        async def keep(failures: list[ExceptionEvent]) -> None:
            self.letters += failures

    async def run(self, *numbers: int) -> None:
        await self.engine.pub_events(map(Ping, numbers))
        async with self.engine:
            await self.engine.wait_idle()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Handled, failed, abandoned, of that handler."""
        own = next(iter(self.engine.statistics().handlers.values()))
        assert own.accepted == own.handled + own.failed + own.abandoned
        return own.handled, own.failed, own.abandoned


class Noting:
    """Middleware that writes into a diary when it is entered and left."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.diary = diary

    async def __call__(self, batch: Batch[Any], call_next: CallNext) -> None:
        self.diary.append(f"{self.name} {batch.attempt}")
        try:
            await call_next(batch)
        finally:
            self.diary.append(f"/{self.name}")


# -- around what, and in which order ---------------------------------------------------------------------------------


class Inner(SubApplication):
    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.diary = diary
        self.add_middleware(Noting("inner", diary))

    async def on_pong(self, events: list[Pong]) -> None:
        self.diary.append("pong")


class Outer(Application):
    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.diary = diary
        self.add_middleware(Noting("outer", diary))
        self.add_app(Inner(diary))

    @on_event(Ping)
    def ping(self, events: list[Ping]) -> None:
        self.diary.append("ping")


async def test_the_engine_s_is_outermost_then_the_application_s_then_the_sub_application_s() -> None:
    diary: list[str] = []
    engine = AppEngine([Outer(diary)])
    engine.add_middleware(Noting("first", diary))
    engine.add_middleware(Noting("second", diary))

    @engine.on_event(Other)
    async def plain(events: list[Other]) -> None:
        diary.append("plain")

    expected = {
        Ping(1): "first 1, second 1, outer 1, ping, /outer, /second, /first",
        Pong(1): "first 1, second 1, outer 1, inner 1, pong, /inner, /outer, /second, /first",
        Other(1): "first 1, second 1, plain, /second, /first",
    }
    async with engine:
        for event, around in expected.items():
            diary.clear()
            await engine.pub_event(event)
            await engine.wait_idle()
            assert ", ".join(diary) == around


async def test_every_attempt_goes_through_it() -> None:
    diary: list[str] = []
    desk = Desk(Noting("m", diary), retry=Retry(on=OSError, attempts=3, wait_initial=0, wait_jitter=0))
    desk.error = OSError()
    await desk.run(1)
    assert diary[:6] == ["m 1", "/m", "m 2", "/m", "m 3", "/m"]
    assert [letter.attempt for letter in desk.letters] == [3]
    # The handler of failures has it too.
    assert diary[6:] == ["m 1", "/m"]


async def test_it_sees_what_there_is_to_say_of_a_batch() -> None:
    seen: list[tuple[Any, ...]] = []

    async def look(batch: Batch[Any], call_next: CallNext) -> None:
        seen.append((numbers(batch), batch.key, batch.closed_by, batch.attempt))
        await call_next(batch)

    desk = Desk(look, key=lambda event: event.data % 2, max_batch=2)
    await desk.run(1, 3, 2)
    assert seen == [([1, 3], 1, "size", 1), ([2], 0, "idle", 1)]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_it_runs_on_the_loop_and_the_handler_where_it_belongs(is_async: bool) -> None:
    here = threading.get_ident()
    threads: list[bool] = []
    shared = ContextVar("shared", default="")
    engine = AppEngine()

    async def around(batch: Batch[Any], call_next: CallNext) -> None:
        shared.set("from middleware")
        threads.append(threading.get_ident() == here)
        await call_next(batch)
        threads.append(threading.get_ident() == here)

    def work(events: list[Ping]) -> None:
        assert shared.get() == "from middleware"
        threads.append(threading.get_ident() == here)

    async def work_async(events: list[Ping]) -> None:
        work(events)

    engine.add_middleware(around)
    engine.register_handler(Ping, work_async if is_async else work)
    await engine.pub_event(Ping(1))
    async with engine:
        await engine.wait_idle()
    assert threads == [True, is_async, True]


async def test_there_is_none_around_the_handlers_of_others() -> None:
    diary: list[str] = []
    heard: list[int] = []

    class Another(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            heard.extend(numbers(events))

    async with AppEngine([Outer(diary), Another()]) as engine:
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
    assert diary == ["outer 1", "ping", "/outer"]
    assert heard == [1]


async def test_each_run_has_it_and_before_the_next_there_may_be_more() -> None:
    diary: list[str] = []
    desk = Desk(Noting("first", diary))
    await desk.run(1)
    desk.engine.add_middleware(Noting("second", diary))
    diary.clear()
    async with desk.engine:
        await desk.engine.pub_event(Ping(2))
        await desk.engine.wait_idle()
    assert diary == ["first 1", "second 1", "/second", "/first"]


# -- declared wrongly ------------------------------------------------------------------------------------------------


def _sync(batch: Any, call_next: Any) -> None:
    pass


async def _takes_one(batch: Any) -> None:
    pass


async def _takes_three(batch: Any, call_next: Any, other: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (_sync, "the middleware _sync awaits call_next, so it has to be async: write `async def`"),
        (_takes_one, "the middleware _takes_one is called with a batch and call_next, but takes"),
        (_takes_three, "the middleware _takes_three is called with a batch and call_next, but takes"),
        (None, "the middleware NoneType is None: a function or method is needed"),
        (Noting, "the middleware Noting .*"),
    ],
)
def test_what_cannot_be_put_around_a_handler_is_an_error_at_once(middleware: Any, message: str) -> None:
    for taker in (AppEngine(), Application(), SubApplication()):
        with pytest.raises(DeclarationError, match=message):
            taker.add_middleware(middleware)


async def test_partials_methods_and_objects_may_be_middleware() -> None:
    diary: list[str] = []
    noting = Noting("object", diary)

    async def named(name: str, batch: Batch[Any], call_next: CallNext) -> None:
        diary.append(name)
        await call_next(batch)

    desk = Desk(noting, noting.__call__, functools.partial(named, "partial"))
    await desk.run(1)
    assert diary == ["object 1", "object 1", "partial", "/object", "/object"]


async def test_none_may_be_added_while_the_engine_runs() -> None:
    app = Outer([])
    engine = AppEngine([app])
    async with engine:
        for taker in (engine, app):
            with pytest.raises(EngineStateError, match="add_middleware is not possible while the engine is"):
                taker.add_middleware(Noting("late", []))

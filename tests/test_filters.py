"""Filters: every event that is published is shown to them first, whichever way it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow import (
    AppEngine,
    Application,
    DeclarationError,
    EngineClosed,
    EngineStateError,
    Event,
    schedule,
)


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


def drop_odd(event: Event[Any]) -> Event[Any] | None:
    return None if isinstance(event, Ping) and event.data % 2 else event


def replace(event: Event[Any]) -> Event[Any]:
    return Pong(event.data * 10) if isinstance(event, Ping) else event


class Desk:
    """An engine with these filters, which hears of everything: class and number."""

    def __init__(self, *filters: Any, **options: Any) -> None:
        self.engine = AppEngine(**options)
        self.heard: list[tuple[str, Any]] = []
        for each in filters:
            self.engine.add_filter(each)

        @self.engine.on_event(Event)
        async def hear(events: list[Event[Any]]) -> None:
            self.heard += [(type(event).__name__, event.data) for event in events]

    @property
    def pings(self) -> list[int]:
        return [number for name, number in self.heard if name == "Ping"]


async def from_thread(call: Callable[..., object], *args: Any) -> None:
    await anyio.to_thread.run_sync(call, *args)


async def publish(engine: AppEngine, way: str, events: list[Event[Any]]) -> None:
    """Every way in there is."""
    if way == "pub_event":
        for event in events:
            await engine.pub_event(event)
    elif way == "pub_events":
        await engine.pub_events(events)
    elif way == "nowait":
        for event in events:
            engine.pub_event_nowait(event)
    elif way == "thread":
        await from_thread(engine.pub_events_from_thread, events)
    else:
        for event in events:
            await from_thread(engine.pub_event_from_thread, event)


WAYS = ["pub_event", "pub_events", "nowait", "thread", "thread, one by one"]


# -- what one may do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("filters", "heard", "filtered"),
    [
        ([drop_odd], [("Ping", 0), ("Ping", 2), ("Pong", 3)], 1),
        ([drop_odd, replace], [("Pong", 0), ("Pong", 20), ("Pong", 3)], 1),
        ([replace, drop_odd], [("Pong", 0), ("Pong", 10), ("Pong", 20), ("Pong", 3)], 0),
    ],
)
async def test_an_event_is_dropped_or_another_takes_its_place(
    filters: list[Any], heard: list[tuple[str, int]], filtered: int, way: str, when: str
) -> None:
    desk = Desk(*filters)
    events: list[Event[Any]] = [Ping(0), Ping(1), Ping(2), Pong(3)]
    if when == "before the start":
        await publish(desk.engine, way, events)
        assert desk.engine.statistics().filtered == filtered
    async with desk.engine:
        if when == "while it runs":
            await publish(desk.engine, way, events)
        await desk.engine.wait_idle()
    assert desk.heard == heard
    report = desk.engine.report
    assert report is not None
    assert (report.accepted, report.filtered, report.is_clean) == (len(heard), filtered, True)
    assert ("that a filter dropped" in str(report)) == bool(filtered)


async def test_without_a_filter_the_event_is_the_one_that_was_published() -> None:
    seen: list[Event[Any]] = []
    engine = AppEngine()
    engine.register_handler(Ping, seen.extend)
    event = Ping(1)
    async with engine:
        await engine.pub_event(event)
        await engine.wait_idle()
        assert engine._routes is engine._bus.router.routes
    assert seen[0] is event


async def test_with_one_the_fast_path_finds_nothing() -> None:
    """As long as there are filters every publish is looked at, also of a class that is known by now."""
    desk = Desk(drop_odd)
    async with desk.engine:
        for _ in range(2):
            await desk.engine.pub_events([Ping(1), Ping(2)])
            await desk.engine.wait_idle()
            assert desk.engine._routes == {}
    assert desk.pings == [2, 2]


async def test_every_run_has_them_and_counts_anew() -> None:
    desk = Desk(drop_odd)
    for _ in range(3):
        async with desk.engine:
            await desk.engine.pub_events([Ping(1), Ping(2)])
            await desk.engine.wait_idle()
        assert desk.engine.report is not None
        assert desk.engine.report.filtered == 1
    assert desk.pings == [2, 2, 2]


async def test_one_that_is_added_late_counts_with_those_before() -> None:
    desk = Desk(drop_odd)
    await desk.engine.pub_events([Ping(1), Ping(2)])
    desk.engine.add_filter(replace)
    await desk.engine.pub_events([Ping(3), Ping(4)])
    async with desk.engine:
        await desk.engine.wait_idle()
    assert desk.heard == [("Ping", 2), ("Pong", 40)]
    assert desk.engine.report is not None
    assert desk.engine.report.filtered == 2


async def test_what_a_handler_or_a_tick_publishes_is_shown_to_them_too() -> None:
    class Inside(Application):
        async def on_pong(self, events: list[Pong]) -> None:
            await self.engine.pub_events([Ping(1), Ping(2)])

        @schedule(interval=1000)
        async def tick(self) -> None:
            await self.engine.pub_events([Ping(3), Ping(4)])

    desk = Desk(drop_odd)
    desk.engine.add_app(Inside())
    async with desk.engine:
        await desk.engine.pub_event(Pong(0))
        while len(desk.heard) < 3:
            await checkpoint()
        await desk.engine.wait_idle()
    assert sorted(desk.pings) == [2, 4]


async def test_a_class_that_nobody_wants_is_filtered_first(logs: list[Any]) -> None:
    engine = AppEngine()
    engine.add_filter(drop_odd)
    async with engine:
        await engine.pub_events([Ping(1), Ping(2)])
    assert engine.report is not None
    assert (engine.report.filtered, engine.report.unhandled) == (1, 1)


# -- the end comes in the middle, and threads ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["drain", "cancel"])
async def test_a_publish_that_waits_was_shown_once(ending: str) -> None:
    """*Design promise 5*: whatever becomes of it."""
    shown: list[int] = []

    def count(event: Event[Any]) -> Event[Any]:
        shown.append(event.data)
        return event

    engine = AppEngine(queue_size=1, max_batch=1)
    engine.add_filter(count)
    gate = anyio.Event()
    refused: list[int] = []

    @engine.on_event(Ping)
    async def held(events: list[Ping]) -> None:
        await gate.wait()

    async def wait_for_room(number: int) -> None:
        try:
            await engine.pub_event(Ping(number))
        except EngineClosed:
            refused.append(number)

    with CancelScope() as scope:
        async with engine, anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(wait_for_room, number)
                await anyio.wait_all_tasks_blocked()
            if ending == "cancel":
                scope.cancel()
                await checkpoint()
            engine.stop()
            await anyio.wait_all_tasks_blocked()
            gate.set()
    assert shown == [0, 1, 2, 3]
    report = engine.report
    assert report is not None
    assert (report.accepted, sorted(refused)) == (2, [2, 3] if ending == "drain" else [])
    assert report.abandoned == (0 if ending == "drain" else 2)


async def test_one_that_publishes_from_a_thread_before_the_start_does_not_hang() -> None:
    """It must not publish. But a hang, without a word, is no way to be told."""

    def publish_another(event: Event[Any]) -> Event[Any]:
        if isinstance(event, Ping):
            desk.engine.pub_event_from_thread(Pong(1))
        return event

    desk = Desk(publish_another)
    thread = threading.Thread(target=desk.engine.pub_event_from_thread, args=(Ping(0),), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    async with desk.engine:
        await desk.engine.wait_idle()
    assert desk.heard == [("Pong", 1), ("Ping", 0)]


async def test_before_the_start_it_runs_in_the_thread_that_publishes_and_then_on_the_loop() -> None:
    threads: list[int] = []

    def where(event: Event[Any]) -> Event[Any]:
        threads.append(threading.get_ident())
        return event

    desk = Desk(where)
    await from_thread(desk.engine.pub_event_from_thread, Ping(1))
    async with desk.engine:
        await from_thread(desk.engine.pub_event_from_thread, Ping(2))
        await desk.engine.wait_idle()
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [False, True]


# -- declared wrongly ------------------------------------------------------------------------------------------------


async def is_async(event: Event[Any]) -> None:
    pass


def takes_none() -> None:
    pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (is_async, "the filter is_async is called while an event is published, so it cannot be async"),
        (takes_none, "the filter takes_none is called with one event, but takes"),
        (None, "the filter NoneType is None: a function or method is needed"),
    ],
)
def test_what_cannot_be_a_filter_is_an_error_at_once(wrong: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        AppEngine().add_filter(wrong)


async def test_none_may_be_added_while_the_engine_runs() -> None:
    async with AppEngine() as engine:
        with pytest.raises(EngineStateError, match="add_filter is not possible while the engine is"):
            engine.add_filter(drop_odd)

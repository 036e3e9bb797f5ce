"""Event Flow where there is more than one: classes, applications, publishers, threads; and where data are large."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import anyio
import anyio.to_thread

from benchmarks.rivals import Order
from event_flow import AppEngine, Application, Event


class Seen:
    """A handler that counts what it gets."""

    def __init__(self) -> None:
        self.events = 0

    async def __call__(self, events: list[Event[Any]]) -> None:
        self.events += len(events)


def engine_with(event_class: type[Event[Any]]) -> tuple[AppEngine, Seen]:
    """An engine with one handler of this class."""
    engine, seen = AppEngine(), Seen()
    engine.register_handler(event_class, seen)
    return engine, seen


@cache
def event_classes(count: int) -> tuple[type[Event[Any]], ...]:
    """As many subclasses of `Order`; the same ones again for the same number."""
    return tuple(type(f"Order{number}", (Order,), {}) for number in range(count))


async def first_of_classes(count: int) -> float:
    """The first event of each of so many classes, to one handler of their base; seconds for an event."""
    classes = event_classes(count)
    engine, seen = engine_with(Order)
    async with engine:
        begun = perf_counter()
        for number, event_class in enumerate(classes):
            await engine.pub_event(event_class({"number": number}))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == count
    return elapsed / count


async def classes_in_turn(events: int, count: int) -> float:
    """Events of so many classes that were all seen before, to one handler of their base; seconds for an event."""
    classes = event_classes(count)
    engine, seen = engine_with(Order)
    async with engine:
        await engine.pub_events(event_class() for event_class in classes)
        await engine.wait_idle()
        begun = perf_counter()
        for number, event_class in enumerate(islice(cycle(classes), events)):
            await engine.pub_event(event_class({"number": number}))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == count + events
    return elapsed / events


class Small(Application):
    """One handler, of `event_class`."""

    event_class: type[Event[Any]] = Order
    seen = 0

    async def on_order(self, events: list[Order]) -> None:
        self.seen += len(events)


@cache
def small_apps(count: int) -> tuple[type[Small], ...]:
    """As many applications, each with a handler of another class."""

    def made_for(number: int, event_class: type[Event[Any]]) -> type[Small]:
        async def on_order(self: Small, events: list[Event[Any]]) -> None:
            self.seen += len(events)

        on_order.__annotations__["events"] = list[event_class]  # type: ignore[valid-type]
        return type(f"Small{number}", (Small,), {"on_order": on_order, "event_class": event_class})

    return tuple(made_for(number, event_class) for number, event_class in enumerate(event_classes(count)))


async def start_and_stop(apps: int) -> float:
    """An engine with so many applications; seconds for one of them."""
    begun = perf_counter()
    async with AppEngine([Small() for _ in range(apps)]):
        pass
    return (perf_counter() - begun) / apps


async def apps_in_turn(events: int, count: int) -> float:
    """Each event to the next application; seconds for an event."""
    apps = [app() for app in small_apps(count)]
    engine = AppEngine(apps)
    async with engine:
        begun = perf_counter()
        for number, app in enumerate(islice(cycle(apps), events)):
            await engine.pub_event(app.event_class({"number": number}))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert sum(app.seen for app in apps) == events
    return elapsed / events


@cache
def dict_of(size: int) -> dict[str, str]:
    """About so many bytes of text, in fields of a hundred."""
    return {f"field {number:04}": "x" * 90 for number in range(size // 100)}


async def large_data(events: int, size: int) -> float:
    """Events with so many bytes of data to one handler; seconds for an event."""
    data = dict_of(size)
    engine, seen = engine_with(Event)
    async with engine:
        begun = perf_counter()
        for _ in range(events):
            await engine.pub_event(Event(data))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == events
    return elapsed / events


async def publishing_tasks(events: int, publishers: int) -> float:
    """As many tasks publish at once; seconds for an event."""
    engine, seen = engine_with(Order)

    async def publish(numbers: Iterable[int]) -> None:
        for number in numbers:
            await engine.pub_event(Order({"number": number}))

    async with engine:
        begun = perf_counter()
        async with anyio.create_task_group() as group:
            for first in range(publishers):
                group.start_soon(publish, range(first, events, publishers))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == events
    return elapsed / events


async def publishing_threads(events: int, threads: int) -> float:
    """As many threads publish, each event in a call; seconds for an event."""
    engine, seen = engine_with(Order)

    def publish(numbers: Iterable[int]) -> None:
        for number in numbers:
            engine.pub_event_from_thread(Order({"number": number}))

    async with engine:
        begun = perf_counter()
        async with anyio.create_task_group() as group:
            for first in range(threads):
                group.start_soon(anyio.to_thread.run_sync, publish, range(first, events, threads))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == events
    return elapsed / events


async def threads_with_hundreds(events: int, threads: int) -> float:
    """The same with a hundred events in a call."""
    engine, seen = engine_with(Order)

    def publish(numbers: range) -> None:
        for start in range(0, len(numbers), 100):
            engine.pub_events_from_thread(
                Order({"number": number}) for number in numbers[start : start + 100]
            )

    async with engine:
        begun = perf_counter()
        async with anyio.create_task_group() as group:
            for first in range(threads):
                group.start_soon(anyio.to_thread.run_sync, publish, range(first, events, threads))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert seen.events == events
    return elapsed / events

"""Event Flow at the same work as the rivals: default settings, everything on."""

from __future__ import annotations

from time import perf_counter

import anyio

from benchmarks.rivals import Order, all_idle
from event_flow import AppEngine, Application, Event, on_event, schedule


class Counter:
    """A plain function's worth of handler: counts what it gets."""

    def __init__(self) -> None:
        self.seen = 0

    async def __call__(self, events: list[Order]) -> None:
        self.seen += len(events)


def counting_engine(handlers: int) -> tuple[AppEngine, list[Counter]]:
    """An engine with so many handlers of `Order`."""
    engine = AppEngine()
    counters = [Counter() for _ in range(handlers)]
    engine.register_handler(Order, *counters)
    return engine, counters


async def publish_one_by_one(events: int, handlers: int) -> float:
    """`pub_event` for each; seconds for an event, until the last one is handled."""
    engine, counters = counting_engine(handlers)
    async with engine:
        begun = perf_counter()
        for number in range(events):
            await engine.pub_event(Order({"number": number}))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert all(counter.seen == events for counter in counters)
    return elapsed / events


async def publish_thousands(events: int) -> float:
    """`pub_events` of a thousand at a time; seconds for an event, until the last one is handled."""
    engine, (counter,) = counting_engine(1)
    async with engine:
        begun = perf_counter()
        for start in range(0, events, 1000):
            await engine.pub_events([Order({"number": number}) for number in range(start, start + 1000)])
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert counter.seen == events
    return elapsed / events


async def round_trip(hops: int) -> float:
    """Publish to an idle handler that answers with an `anyio.Event`; median seconds there and back.

    Between two of them everybody waits. Otherwise the worker would find the next event on its way to waiting, and the hop
    to it would not be measured.
    """
    engine = AppEngine()
    back = anyio.Event()
    times = []

    @engine.on_event(Order)
    async def answer(events: list[Order]) -> None:
        back.set()

    async with engine:
        for number in range(hops):
            event = Order({"number": number})
            await all_idle()
            begun = perf_counter()
            back = anyio.Event()
            await engine.pub_event(event)
            await back.wait()
            times.append(perf_counter() - begun)
    return sorted(times)[hops // 2]


async def one_way(hops: int) -> float:
    """From `pub_event` to the first line of an idle handler; median seconds."""
    engine = AppEngine()
    begun = 0.0
    times = []

    @engine.on_event(Order)
    async def note(events: list[Order]) -> None:
        times.append(perf_counter() - begun)

    async with engine:
        await all_idle()
        for number in range(hops):
            event = Order({"number": number})
            begun = perf_counter()
            await engine.pub_event(event)
            await all_idle()
    assert len(times) == hops
    return sorted(times)[hops // 2]


class Busy(Application):
    """Ten handlers and a schedule."""

    @schedule(interval=60)
    async def tick(self) -> None: ...

    async def on_0(self, events: list[Order]) -> None: ...
    async def on_1(self, events: list[Order]) -> None: ...
    async def on_2(self, events: list[Order]) -> None: ...
    async def on_3(self, events: list[Order]) -> None: ...
    async def on_4(self, events: list[Order]) -> None: ...
    async def on_5(self, events: list[Order]) -> None: ...
    async def on_6(self, events: list[Order]) -> None: ...
    async def on_7(self, events: list[Order]) -> None: ...
    async def on_8(self, events: list[Order]) -> None: ...

    @on_event(Event)
    async def everything(self, events: list[Event]) -> None: ...


async def start_and_stop(apps: int) -> float:
    """Make the engine, start it with so many applications, stop it; seconds."""
    begun = perf_counter()
    engine = AppEngine([Busy() for _ in range(apps)])
    async with engine:
        pass
    return perf_counter() - begun

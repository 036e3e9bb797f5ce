"""Libraries that also bring events to handlers, at the same work, each used as its own documentation shows.

Every contestant publishes the same small dict to async handlers that count events one by one, and the clock stops when all
are handled. It publishes as fast as the library takes events or, with `each`, waits until an event is handled before the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

from anyio.lowlevel import checkpoint

from benchmarks.rivals import Order
from event_flow import AppEngine

# Where a library has a way to wait for what was published, but not to hold the publisher back, it is waited for after so
# many events: of 1, 10, 100 and 1,000 what was fastest, or nearly so, for one handler and for ten.
WAVE = 10
WAVE_OF_BUSES = (
    50  # bubus refuses the fifty-first event that waits: its limit is 100, and counts each of them twice
)


class Tally:
    """Counts what all handlers of a contestant got."""

    def __init__(self) -> None:
        self.seen = 0

    def handler(self, number: int) -> Callable[..., Awaitable[None]]:
        """A new coroutine function; event emitters and buses call it with an event, or with a sender and data."""

        async def handle(*_: object, **__: object) -> None:
            self.seen += 1

        handle.__name__ = handle.__qualname__ = f"handle_{number}"  # bubus and abxbus warn of equal names
        return handle

    def batch_handler(self) -> Callable[[list[Order]], Awaitable[None]]:
        """The same for Event Flow, which calls it with a list: here too each event is counted for itself."""

        async def handle(events: list[Order]) -> None:
            for _ in events:
                self.seen += 1

        return handle


def waves(events: int, size: int) -> list[range]:
    """The numbers of all events, in groups."""
    return [range(start, min(start + size, events)) for start in range(0, events, size)]


async def event_flow(events: int, handlers: int, *, each: bool = False) -> float:
    """`pub_event`, which waits while a queue is full; `wait_idle` at the end, or after each."""
    engine, tally = AppEngine(), Tally()
    engine.register_handler(Order, *(tally.batch_handler() for _ in range(handlers)))
    async with engine:
        begun = perf_counter()
        for number in range(events):
            await engine.pub_event(Order({"number": number}))
            if each:
                await engine.wait_idle()
        await engine.wait_idle()
        elapsed = perf_counter() - begun
    assert tally.seen == events * handlers
    return elapsed / events


async def bubus(events: int, handlers: int, *, each: bool = False) -> float:
    """`dispatch` and `wait_until_idle`; each: `await bus.dispatch(event)`."""
    from bubus import EventBus

    from benchmarks.pydantic_orders import BubusOrder

    bus, tally = EventBus(), Tally()
    for number in range(handlers):
        bus.on(BubusOrder, tally.handler(number))
    begun = perf_counter()
    for wave in waves(events, 1 if each else WAVE_OF_BUSES):
        for number in wave:
            event = bus.dispatch(BubusOrder(data={"number": number}))
            if each:
                await event
        if not each:
            await bus.wait_until_idle()
    elapsed = perf_counter() - begun
    await bus.stop(clear=True)
    assert tally.seen == events * handlers
    return elapsed / events


async def abxbus(events: int, handlers: int, *, each: bool = False) -> float:
    """`emit` and `wait_until_idle`; each: `await bus.emit(event).now()`. Told to forget old events, not to refuse new ones."""
    from abxbus import EventBus

    from benchmarks.pydantic_orders import AbxbusOrder

    bus, tally = EventBus(max_history_drop=True), Tally()
    for number in range(handlers):
        bus.on(AbxbusOrder, tally.handler(number))
    begun = perf_counter()
    for wave in waves(events, WAVE_OF_BUSES):
        for number in wave:
            event = bus.emit(AbxbusOrder(data={"number": number}))
            if each:
                await event.now()
        if not each:
            await bus.wait_until_idle()
    elapsed = perf_counter() - begun
    await bus.destroy()
    assert tally.seen == events * handlers
    return elapsed / events


async def pyee(events: int, handlers: int, *, each: bool = False) -> float:
    """`emit` and `wait_for_complete`."""
    from pyee.asyncio import AsyncIOEventEmitter

    emitter, tally = AsyncIOEventEmitter(), Tally()
    for number in range(handlers):
        emitter.on("order", tally.handler(number))
    begun = perf_counter()
    for wave in waves(events, 1 if each else WAVE):
        for number in wave:
            emitter.emit("order", {"number": number})
        await emitter.wait_for_complete()
    elapsed = perf_counter() - begun
    assert tally.seen == events * handlers
    return elapsed / events


async def pyee_on_trio(events: int, handlers: int) -> float:
    """`emit`; the end of `async with TrioEventEmitter()` waits for all. Nothing waits for one event."""
    from pyee.trio import TrioEventEmitter

    tally = Tally()
    async with TrioEventEmitter() as emitter:
        for number in range(handlers):
            emitter.on("order", tally.handler(number))
        begun = perf_counter()
        for wave in waves(events, WAVE):
            for number in wave:
                emitter.emit("order", {"number": number})
            await checkpoint()
    elapsed = perf_counter() - begun
    assert tally.seen == events * handlers
    return elapsed / events


async def blinker(events: int, handlers: int) -> float:
    """`await signal.send_async(sender, …)` for each: there is no other way."""
    from blinker import Signal

    signal, tally = Signal(), Tally()
    connected = [
        tally.handler(number) for number in range(handlers)
    ]  # held here: signals hold receivers weakly
    for handler in connected:
        signal.connect(handler)
    begun = perf_counter()
    for number in range(events):
        await signal.send_async("shop", data={"number": number})
    elapsed = perf_counter() - begun
    assert tally.seen == events * handlers
    return elapsed / events


async def litestar(events: int, handlers: int) -> float:
    """`app.emit`; the end of the application's lifespan waits for all. Nothing waits for one event."""
    from litestar import Litestar
    from litestar.events import listener

    tally = Tally()
    app = Litestar(listeners=[listener("order")(tally.handler(number)) for number in range(handlers)])
    async with app.lifespan():
        begun = perf_counter()
        for wave in waves(events, WAVE):
            for number in wave:
                app.emit("order", {"number": number})
            await checkpoint()
    elapsed = perf_counter() - begun
    assert tally.seen == events * handlers
    return elapsed / events

"""What people write by hand where there is more than one: handlers, classes, applications, publishers, threads."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Order
from event_flow import Event

if TYPE_CHECKING:
    import trio


class Tray:
    """One `asyncio.Queue(1000)` and the loop that empties it; the handler is the body of the loop."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event[Any] | None] = asyncio.Queue(1000)
        self.seen = 0

    async def empty(self) -> None:
        """Until there is a `None`."""
        while await self.queue.get() is not None:
            self.seen += 1


async def queue_for_each_handler(events: int, handlers: int) -> float:
    """Put every event into the queues of all; seconds for an event."""
    trays = [Tray() for _ in range(handlers)]
    async with asyncio.TaskGroup() as group:
        for tray in trays:
            group.create_task(tray.empty())
        begun = perf_counter()
        for number in range(events):
            event = Order({"number": number})
            for tray in trays:
                await tray.queue.put(event)
        for tray in trays:
            await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert all(tray.seen == events for tray in trays)
    return elapsed / events


async def channel_for_each_handler_on_trio(events: int, handlers: int) -> float:
    """The same with Trio's memory channels."""
    import trio

    seen = 0

    async def empty(channel: trio.MemoryReceiveChannel[Order]) -> None:
        nonlocal seen
        async for _ in channel:
            seen += 1

    sending = []
    async with trio.open_nursery() as nursery:
        for _ in range(handlers):
            send, receive = trio.open_memory_channel[Order](1000)
            sending.append(send)
            nursery.start_soon(empty, receive)
        begun = perf_counter()
        for number in range(events):
            event = Order({"number": number})
            for send in sending:
                await send.send(event)
        for send in sending:
            send.close()
    elapsed = perf_counter() - begun
    assert seen == events * handlers
    return elapsed / events


async def queue_and_table(events: int, classes: Sequence[type[Event[Any]]]) -> float:
    """One queue; what to do is looked up under the class of the event. Seconds for an event."""
    events_queue: asyncio.Queue[Event[Any] | None] = asyncio.Queue(1000)
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1

    table = dict.fromkeys(classes, count)

    async def dispatch() -> None:
        while (event := await events_queue.get()) is not None:
            table[type(event)]()

    async with asyncio.TaskGroup() as group:
        group.create_task(dispatch())
        begun = perf_counter()
        for number, event_class in enumerate(islice(cycle(classes), events)):
            await events_queue.put(event_class({"number": number}))
        await events_queue.put(None)
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def queue_for_each_app(events: int, apps: int) -> float:
    """As many queues, each event into the next one; seconds for an event."""
    trays = [Tray() for _ in range(apps)]
    async with asyncio.TaskGroup() as group:
        for tray in trays:
            group.create_task(tray.empty())
        begun = perf_counter()
        for number, tray in enumerate(islice(cycle(trays), events)):
            await tray.queue.put(Order({"number": number}))
        for tray in trays:
            await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert sum(tray.seen for tray in trays) == events
    return elapsed / events


async def publishers_of_one_queue(events: int, publishers: int) -> float:
    """As many tasks put into one queue; seconds for an event."""
    tray = Tray()

    async def publish(numbers: Iterable[int]) -> None:
        for number in numbers:
            await tray.queue.put(Order({"number": number}))

    async with asyncio.TaskGroup() as group:
        group.create_task(tray.empty())
        begun = perf_counter()
        async with asyncio.TaskGroup() as putting:
            for first in range(publishers):
                putting.create_task(publish(range(first, events, publishers)))
        await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert tray.seen == events
    return elapsed / events


async def data_as_it_is(events: int, data: object) -> float:
    """Events with this data through one queue; seconds for an event."""
    tray = Tray()
    async with asyncio.TaskGroup() as group:
        group.create_task(tray.empty())
        begun = perf_counter()
        for _ in range(events):
            await tray.queue.put(Event(data))
        await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert tray.seen == events
    return elapsed / events


async def data_pickled(events: int, data: object) -> float:
    """The same, but each handler gets a copy, as from another process."""
    tray = Tray()
    async with asyncio.TaskGroup() as group:
        group.create_task(tray.empty())
        begun = perf_counter()
        for _ in range(events):
            await tray.queue.put(Event(pickle.loads(pickle.dumps(data))))
        await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert tray.seen == events
    return elapsed / events


async def threads_into_the_loop(events: int, threads: int) -> float:
    """`asyncio.run_coroutine_threadsafe(queue.put(event), loop).result()` for each event; seconds for one."""
    tray = Tray()
    loop = asyncio.get_running_loop()

    def publish(numbers: Iterable[int]) -> None:
        for number in numbers:
            put = tray.queue.put(Order({"number": number}))
            asyncio.run_coroutine_threadsafe(put, loop).result()

    async with asyncio.TaskGroup() as group:
        group.create_task(tray.empty())
        begun = perf_counter()
        await asyncio.gather(
            *(asyncio.to_thread(publish, range(first, events, threads)) for first in range(threads))
        )
        await tray.queue.put(None)
    elapsed = perf_counter() - begun
    assert tray.seen == events
    return elapsed / events


def threads_to_a_thread(events: int, threads: int) -> float:
    """No loop at all: threads put into a `queue.Queue(1000)`, another thread takes out. Seconds for an event."""
    events_queue: queue.Queue[Order | None] = queue.Queue(1000)
    seen = 0

    def empty() -> None:
        nonlocal seen
        while events_queue.get() is not None:
            seen += 1

    def publish(numbers: Iterable[int]) -> None:
        for number in numbers:
            events_queue.put(Order({"number": number}))

    taking = threading.Thread(target=empty)
    putting = [
        threading.Thread(target=publish, args=[range(first, events, threads)]) for first in range(threads)
    ]
    begun = perf_counter()
    for thread in (taking, *putting):
        thread.start()
    for thread in putting:
        thread.join()
    events_queue.put(None)
    taking.join()
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events

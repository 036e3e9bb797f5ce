"""Handlers with options, and what people build by hand for the same end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, process_time
from typing import Any

import anyio

from benchmarks.engine import Counter
from benchmarks.rivals import Order
from event_flow import AppEngine, Retry

WORKERS = 4
KEYS = 10_000
SYMBOLS = 100

# A hundred events each millisecond.
TICK, EACH = 0.001, 100
LINGER = 0.005


def key_of(number: int) -> int:
    """Every other event is of the hot key, the others are spread over all."""
    return number % KEYS if number % 2 else 0


async def publish_with(events: int, make: Callable[[int], dict[str, int]], **options: Any) -> float:
    """`pub_event` for each to a handler with these options; seconds for an event, until the last one is handled."""
    engine = AppEngine()
    counter = Counter()
    engine.register_handler(Order, counter, **options)
    async with engine:
        begun = perf_counter()
        for number in range(events):
            await engine.pub_event(Order(make(number)))
        await engine.wait_idle()
        elapsed = perf_counter() - begun
        dropped = engine.statistics().dropped
    assert counter.seen + dropped == events
    return elapsed / events


async def plain(events: int) -> float:
    """No option at all."""
    return await publish_with(events, lambda number: {"number": number})


async def retrying(events: int) -> float:
    """It may retry, and never has to."""
    return await publish_with(events, lambda number: {"number": number}, retry=Retry(on=OSError))


async def concurrent(events: int) -> float:
    """Four batches at once."""
    return await publish_with(events, lambda number: {"number": number}, concurrency=WORKERS, max_batch=50)


async def keyed(events: int) -> float:
    """A batch of one key, four of them at once."""
    return await publish_with(events, lambda number: {"key": key_of(number)}, key="key", concurrency=WORKERS)


async def latest(events: int) -> float:
    """Only the newest of each symbol."""
    return await publish_with(
        events, lambda number: {"symbol": number % SYMBOLS}, key="symbol", overflow="latest"
    )


async def paced(events: int, publish: Callable[[Order], Any]) -> float:
    """Publish a hundred thousand events a second; CPU seconds for an event."""
    begun, worked = anyio.current_time(), process_time()
    for start in range(0, events, EACH):
        await anyio.sleep_until(begun + start / EACH * TICK)
        for number in range(start, start + EACH):
            await publish(Order({"number": number}))
    await anyio.sleep(2 * LINGER)
    return (process_time() - worked) / events


async def lingering(events: int) -> float:
    """Batches wait five milliseconds for company; CPU seconds for an event."""
    engine = AppEngine()
    counter = Counter()
    engine.register_handler(Order, counter, linger=LINGER)
    async with engine:
        elapsed = await paced(events, engine.pub_event)
        batches = engine.statistics().batches
    assert counter.seen == events
    assert batches < events / EACH  # several ticks are in one
    return elapsed


async def four_getters(events: int) -> float:
    """One `asyncio.Queue(1000)`, four tasks that get from it."""
    queue: asyncio.Queue[Order | None] = asyncio.Queue(1000)
    seen = 0

    async def consume() -> None:
        nonlocal seen
        while await queue.get() is not None:
            seen += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(consume())
        begun = perf_counter()
        for number in range(events):
            await queue.put(Order({"number": number}))
        for _ in range(WORKERS):
            await queue.put(None)
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def four_shards(events: int) -> float:
    """Four queues with a task each; an event goes where the hash of its key says, so that equal keys stay in order."""
    queues: list[asyncio.Queue[Order | None]] = [asyncio.Queue(1000) for _ in range(WORKERS)]
    seen = 0

    async def consume(queue: asyncio.Queue[Order | None]) -> None:
        nonlocal seen
        while await queue.get() is not None:
            seen += 1

    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(consume(queue))
        begun = perf_counter()
        for number in range(events):
            order = Order({"key": key_of(number)})
            await queues[hash(order.data["key"]) % WORKERS].put(order)
        for queue in queues:
            await queue.put(None)
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def task_for_each_key(events: int) -> float:
    """A list of events and a task for each key that is at work, four at once; at most a thousand events wait."""
    waiting: dict[int, list[Order]] = {}
    room, workers = asyncio.Semaphore(1000), asyncio.Semaphore(WORKERS)
    seen = 0

    async def work(key: int) -> None:
        nonlocal seen
        while waiting[key]:
            async with workers:
                batch, waiting[key] = waiting[key], []
                for _ in batch:
                    room.release()
                seen += len(batch)
        del waiting[key]

    begun = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(events):
            order = Order({"key": key_of(number)})
            await room.acquire()
            key = order.data["key"]
            if key in waiting:
                waiting[key].append(order)
            else:
                waiting[key] = [order]
                group.create_task(work(key))
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def newest_in_a_dict(events: int) -> float:
    """A dict from symbol to its newest event, and an `asyncio.Event` that says there is something."""
    newest: dict[int, Order] = {}
    arrived, taken = asyncio.Event(), asyncio.Event()
    seen = 0

    async def consume() -> None:
        nonlocal seen
        while True:
            await arrived.wait()
            arrived.clear()
            while newest:
                del newest[next(iter(newest))]
                seen += 1
                await asyncio.sleep(0)
            taken.set()

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        begun = perf_counter()
        for number in range(events):
            order = Order({"symbol": number % SYMBOLS})
            newest[order.data["symbol"]] = order
            arrived.set()
            if not number % 1000:
                await asyncio.sleep(0)
        taken.clear()
        arrived.set()
        await taken.wait()
        elapsed = perf_counter() - begun
        consumer.cancel()
    assert 0 < seen <= events
    return elapsed / events


async def gathering_loop(events: int) -> float:
    """One `asyncio.Queue`, one task that gets what comes within five milliseconds; CPU seconds for an event."""
    queue: asyncio.Queue[Order] = asyncio.Queue(1000)
    seen = 0

    async def consume() -> None:
        nonlocal seen
        while True:
            batch = [await queue.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    while len(batch) < 1000:
                        batch.append(await queue.get())
            seen += len(batch)

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        elapsed = await paced(events, queue.put)
        consumer.cancel()
    assert seen == events
    return elapsed

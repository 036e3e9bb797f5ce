"""What people write by hand, and the floor that nobody gets below."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from time import perf_counter

import anyio
from anyio.lowlevel import checkpoint

from event_flow import Event


class Order(Event[dict[str, int]]):
    """What everybody publishes; made inside the measured loop, with a small dict as data."""


async def hand_written_loop(events: int) -> float:
    """(a) One `asyncio.Queue(1000)`, one task that puts, one that gets. The handler is the body of the loop."""
    queue: asyncio.Queue[Order | None] = asyncio.Queue(1000)
    seen = 0

    async def consume() -> None:
        nonlocal seen
        while await queue.get() is not None:
            seen += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(consume())
        begun = perf_counter()
        for number in range(events):
            await queue.put(Order({"number": number}))
        await queue.put(None)
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def task_for_each_group(events: int, handlers: int) -> float:
    """(b) One `asyncio.Queue(10)`, drained into groups by class; a task for each group and handler."""
    queue: asyncio.Queue[Order | None] = asyncio.Queue(10)
    seen = 0

    async def handle(group: list[Order]) -> None:
        nonlocal seen
        seen += len(group)

    async def dispatch() -> None:
        registered = {Order: [handle] * handlers}
        tasks: set[asyncio.Task[None]] = set()
        running = True
        while running:
            taken = [await queue.get()]
            while not queue.empty():
                taken.append(queue.get_nowait())
            groups = defaultdict(list)
            for event in taken:
                if event is None:
                    running = False
                else:
                    groups[type(event)].append(event)
            for event_class, group in groups.items():
                for handler in registered[event_class]:
                    task = asyncio.create_task(handler(group))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async with asyncio.TaskGroup() as group:
        group.create_task(dispatch())
        begun = perf_counter()
        for number in range(events):
            await queue.put(Order({"number": number}))
        await queue.put(None)
    elapsed = perf_counter() - begun
    assert seen == events * handlers
    return elapsed / events


def floor(events: int) -> float:
    """(d) Make the events, append them to a list, call the handler once for a thousand. No queue, no loop, no waiting."""
    seen = 0

    def handle(batch: list[Order]) -> None:
        nonlocal seen
        seen += len(batch)

    begun = perf_counter()
    batch: list[Order] = []
    for number in range(events):
        batch.append(Order({"number": number}))
        if len(batch) == 1000:
            handle(batch)
            batch = []
    elapsed = perf_counter() - begun
    assert seen == events
    return elapsed / events


async def all_idle() -> None:
    """Give others as many turns as any of them needs to wait again; anyio's own way sleeps on asyncio."""
    for _ in range(10):
        await checkpoint()


async def bare_round_trip(hops: int) -> float:
    """Two tasks that wake each other with nothing but an `anyio.Event` each way; median seconds there and back."""
    there = anyio.Event()
    back = anyio.Event()
    times = []

    async def answer() -> None:
        nonlocal there
        while True:
            await there.wait()
            there = anyio.Event()
            back.set()

    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        await anyio.wait_all_tasks_blocked()
        for _ in range(hops):
            await all_idle()
            begun = perf_counter()
            back = anyio.Event()
            there.set()
            await back.wait()
            times.append(perf_counter() - begun)
        group.cancel_scope.cancel()
    return sorted(times)[hops // 2]


async def bare_one_way(hops: int) -> float:
    """From `anyio.Event.set()` to the first line of the task that waits for it; median seconds."""
    event = anyio.Event()
    begun = 0.0
    times = []

    async def wait() -> None:
        nonlocal event
        while True:
            await event.wait()
            times.append(perf_counter() - begun)
            event = anyio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        for _ in range(hops):
            begun = perf_counter()
            event.set()
            await all_idle()
        group.cancel_scope.cancel()
    assert len(times) == hops
    return sorted(times)[hops // 2]


async def bare_tasks(tasks: int) -> float:
    """Start as many tasks in one task group, let all of them wait, cancel them; seconds for all."""
    begun = perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(anyio.sleep_forever)
        await checkpoint()
        group.cancel_scope.cancel()
    return perf_counter() - begun

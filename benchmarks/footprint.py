"""What events cost in memory: while they wait, and after they are gone."""

from __future__ import annotations

import gc
import tracemalloc

import anyio

from benchmarks.engine import counting_engine
from benchmarks.rivals import Order
from event_flow import AppEngine


async def bytes_for_a_queued_event(events: int) -> float:
    """What a lane needs for an event that waits, beyond the event itself."""
    engine = AppEngine()
    gate = anyio.Event()

    @engine.on_event(Order)
    async def wait(batch: list[Order]) -> None:
        await gate.wait()

    async with engine:
        await engine.pub_event(Order())
        await anyio.wait_all_tasks_blocked()
        premade = [Order() for _ in range(events)]
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for event in premade:
                await engine.pub_event(event)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert engine.statistics().queued == events
        gate.set()
    return (after - before) / events


async def objects_left(events: int) -> float:
    """How many more objects the garbage collector knows after so many events, the engine still there but stopped."""
    engine, (counter,) = counting_engine(1)
    gc.collect()
    before = len(gc.get_objects())
    async with engine:
        for number in range(events):
            await engine.pub_event(Order({"number": number}))
    gc.collect()
    assert counter.seen == events
    return float(len(gc.get_objects()) - before)

"""Ways to publish, kinds of lanes, and a handler whose queue is to be filled: for the tests of what a full lane does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread
from calls import Calls, Item

from event_flow import AppEngine

Publish = Callable[[AppEngine, list[Item]], Awaitable[None]]


def items(*data: Any) -> list[Item]:
    return [Item(each) for each in data]


async def one_by_one(engine: AppEngine, events: list[Item]) -> None:
    for event in events:
        await engine.pub_event(event)


async def nowait(engine: AppEngine, events: list[Item]) -> None:
    for event in events:
        engine.pub_event_nowait(event)


async def from_thread(engine: AppEngine, events: list[Item]) -> None:
    def publish() -> None:
        for event in events:
            engine.pub_event_from_thread(event)

    await to_thread.run_sync(publish)


async def many_from_thread(engine: AppEngine, events: list[Item]) -> None:
    await to_thread.run_sync(engine.pub_events_from_thread, events)


WAYS: dict[str, Publish] = {
    "pub_event": one_by_one,
    "pub_events": AppEngine.pub_events,
    "pub_event_nowait": nowait,
    "pub_event_from_thread": from_thread,
    "pub_events_from_thread": many_from_thread,
}
every_way = pytest.mark.parametrize("publish", WAYS.values(), ids=WAYS.keys())

# Handlers whose lanes are of different kinds; with one key for all events none of that shows.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "linger": {"linger": 3600.0},
    "key": {"key": lambda event: None},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


@asynccontextmanager
async def busy(calls: Calls, **options: Any) -> AsyncIterator[AppEngine]:
    """An engine whose only handler is at work, with an empty queue; it is let go at the end."""
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, **options)
    async with engine:
        if options.get("linger"):
            await engine.pub_events(items(*["first"] * options["queue_size"]))
        else:
            await engine.pub_event(Item("first"))
        await anyio.wait_all_tasks_blocked()
        assert len(calls.working) == 1
        yield engine
        calls.open()

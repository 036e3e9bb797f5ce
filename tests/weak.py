"""Events that only the engine keeps alive, for tests of how long it does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from event_flow import AppEngine, Event


async def publish_weakly(
    engine: AppEngine, event_class: type[Event[Any]], data: Sequence[Any]
) -> list[weakref.ref[Event[Any]]]:
    """Publish an event for each, and keep none."""
    alive = []
    for each in data:
        event = event_class(each)
        alive.append(weakref.ref(event))
        await engine.pub_event(event)
    return alive


def still_alive(references: Sequence[weakref.ref[Event[Any]]]) -> list[Event[Any]]:
    """Those of the events that somebody keeps."""
    return [event for reference in references if (event := reference()) is not None]


@contextmanager
def no_collector() -> Iterator[None]:
    """What is part of a cycle stays, inside of the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""Event Flow beside other libraries: who they are, what they do more and what they have not, and who is measured on what."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from benchmarks import fans, libraries
from benchmarks.libraries import abxbus, blinker, bubus, litestar, pyee, pyee_on_trio
from benchmarks.measure import BACKENDS, TRIO, Backend, Contestant, Plan, announce, compare, quartiles

Work = Callable[[int, int], Awaitable[float]]
"""Called with a number of events and of handlers, returns seconds for an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A library: how it is used, how much of it is a few hundredths of a second, and what else its time buys."""

    name: str
    flood: Work
    each: Work | None = None
    flood_on_trio: Work | None = None
    each_on_trio: Work | None = None
    events: int
    used: str
    more: str
    less: str

    def work(self, backend: Backend, *, each: bool) -> Work | None:
        """What it does there, if it runs there."""
        flood_and_each = (
            (self.flood_on_trio, self.each_on_trio) if backend is TRIO else (self.flood, self.each)
        )
        return flood_and_each[each]


PEERS = [
    Peer(
        name="bubus",
        flood=bubus,
        each=partial(bubus, each=True),
        events=200,
        used="`bus.dispatch(event)` fifty times, then `wait_until_idle()`; each: `await bus.dispatch(event)`",
        more="Validates events with Pydantic, gives each a UUIDv7 and time stamps, keeps a history and the result, error and "
        "times of every handler, tracks parent and child events, bounds every handler by a timeout and watches for deadlocks; "
        "forwards to other buses and can append to a JSONL file.",
        less="One event at a time over all buses of a process, handlers one after the other unless told otherwise. The "
        "fifty-first waiting event of a bus is an error, not a wait; `stop()` without a timeout drops what waits. No batches, "
        "no Trio.",
    ),
    Peer(
        name="abxbus",
        flood=abxbus,
        each=partial(abxbus, each=True),
        events=300,
        used="`bus.emit(event)` fifty times, then `wait_until_idle()`; each: `await bus.emit(event).now()`. With "
        "`max_history_drop=True`: by default an event is refused while a hundred others are not done",
        more="A fork of bubus by its first author, and its successor: all that bubus does, timeouts of whole events, warnings "
        "of slow handlers, middlewares, bridges to Redis, NATS, PostgreSQL and others, and the same "
        "events in TypeScript, Go and Rust.",
        less="One event at a time on a bus unless told otherwise. Where a hundred are not done it refuses new ones or, as "
        "here, lets any number wait and forgets old ones; `destroy()` drops what waits. No batches, no Trio.",
    ),
    Peer(
        name="pyee",
        flood=pyee,
        each=partial(pyee, each=True),
        flood_on_trio=pyee_on_trio,
        events=3_000,
        used="`AsyncIOEventEmitter.emit` ten times, then `wait_for_complete()`; each: after every one; on Trio "
        "`TrioEventEmitter`",
        more="A task for every call, so a slow call does not hold up the next event; any arguments, and classes "
        "for threads, Twisted and Trio.",
        less="No queue: as many tasks as there are calls to make, no order once they wait, nothing holds a publisher back. "
        "No batches. What a handler raises is an `error` event.",
    ),
    Peer(
        name="blinker",
        flood=blinker,
        each=blinker,
        flood_on_trio=blinker,
        each_on_trio=blinker,
        events=10_000,
        used="`await signal.send_async(sender, data=…)` for each event",
        more="Returns what each receiver returned, holds receivers weakly, chooses them by sender.",
        less="Nothing between sender and receivers: it awaits one after the other in the sender's task, and what one "
        "raises ends the sending, so the rest get nothing. No queue, no concurrency, no batches.",
    ),
    Peer(
        name="Litestar",
        flood=litestar,
        flood_on_trio=litestar,
        events=2_000,
        used="`app.emit` inside `app.lifespan()`, whose end waits for all",
        more="A task for every call and a queue before them, part of a web framework; the end of the application waits for all.",
        less="The queue has no limit, nothing holds a publisher back, calls have no order once they wait, and nothing waits for "
        "one. No batches. What a listener raises is logged.",
    ),
]


def versions() -> dict[str, str]:
    """Of the libraries measured; raises `PackageNotFoundError` for one that is not installed."""
    return {peer.name: version(peer.name.lower()) for peer in PEERS}


LEAST = 60  # events for many handlers: bubus is slower once its history of 50 is full
BY_HAND = "a queue by hand"
WORKS = {"flood, 1 handler": 1, "flood, 10 handlers": 10, "each awaited, 1 handler": 1}


def contestants(backend: Backend, plan: Plan, work: str) -> dict[str, Contestant]:
    """Who takes part in it on a backend."""
    handlers = WORKS[work]
    each = work.startswith("each")
    by_hand = fans.channel_for_each_handler_on_trio if backend is TRIO else fans.queue_for_each_handler
    taking_part: list[tuple[str, Work | None, int]] = [
        ("Event Flow", partial(libraries.event_flow, each=each), 5_000 if each else 20_000),
        (BY_HAND, None if each else by_hand, 20_000),
        *((peer.name, peer.work(backend, each=each), peer.events) for peer in PEERS),
    ]
    return {
        name: partial(backend.run, partial(does, plan.times(max(events / handlers, LEAST)), handlers))
        for name, does, events in taking_part
        if does is not None
    }


def measure(plan: Plan) -> dict[str, Any]:
    """All peers at all works on every backend they run on; what is stored of it."""
    found = versions()
    warm_up()
    works: dict[str, Any] = {}
    for work in WORKS:
        works[work] = {}
        for backend in BACKENDS:
            announce(f"{work}, on {backend.name}")
            taking_part = contestants(backend, plan, work)
            comparison = compare(taking_part, plan.rounds)
            works[work][backend.name] = {
                name: {
                    "seconds": quartiles(comparison.times[name]),
                    "ratio": comparison.ratios(name, "Event Flow"),
                }
                for name in taking_part
            }
    return {"versions": found, "works": works}


def warm_up() -> None:
    """Import everything, and tell the garbage collector that it stays: else everybody's collections would pay for it."""
    for peer in PEERS:
        asyncio.run(_once(peer))
    gc.collect()
    gc.freeze()


async def _once(peer: Peer) -> None:
    await peer.flood(1, 1)

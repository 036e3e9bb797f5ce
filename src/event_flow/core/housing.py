"""Which lane and which workers a handler gets: the plainest that do what its options ask for.

what the handler asks for                          lane            worker
nothing, or only sizes, concurrency, overflow,     Lane            Worker
a timeout
a Batch, linger, rate, or what follows a failure,  GatedLane       AttemptWorker
or there is middleware
key, or overflow="latest"                          KeyedLane       AttemptWorker
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from event_flow.core.delivery import Worker
from event_flow.core.event import Event
from event_flow.core.handler_options import HandlerDeclaration
from event_flow.core.invoke import caller
from event_flow.core.lane import Lane
from event_flow.core.run import Run

if TYPE_CHECKING:
    from event_flow.core.gate import GatedLane
    from event_flow.core.middleware import Middleware


def house(
    name: str,
    app: str,
    function: Callable[..., Any],
    declaration: HandlerDeclaration,
    middleware: Sequence[Middleware],
    run: Run,
) -> tuple[Lane, Sequence[Worker]]:
    """Make the lane of a handler, and the workers that call it. To be called inside the event loop."""
    options = declaration.options
    call = caller(function, name=name, threads=run.threads, timeout=options.timeout)
    sizes: dict[str, Any] = {
        "queue_size": options.queue_size or run.options.queue_size,
        "max_batch": options.max_batch or run.options.max_batch,
        "overflow": options.overflow,
    }
    turn = anyio.Lock() if options.concurrency > 1 else None
    if middleware or _asks_for_more(declaration):
        return _house_gated(
            _gated_lane(name, app, declaration, sizes), declaration, middleware, run, call, turn
        )
    lane = Lane(name, app, **sizes)
    return lane, [Worker(lane, run, call, turn) for _ in range(options.concurrency)]


def _asks_for_more(declaration: HandlerDeclaration) -> bool:
    options = declaration.options
    return bool(
        declaration.takes_batch
        or options.linger
        or options.key
        or options.overflow == "latest"
        or options.rate
        or options.retry
        or options.isolate
        or options.on_failure
    )


# Imported only here: a program whose handlers do not ask for it is spared what it takes to load.


def _gated_lane(name: str, app: str, declaration: HandlerDeclaration, sizes: dict[str, Any]) -> GatedLane:
    from event_flow.core.gate import GatedLane
    from event_flow.core.keyed import KeyedLane

    options = declaration.options
    gate: dict[str, Any] = {
        "linger": options.linger,
        "rate": options.rate,
        "in_order": options.concurrency == 1,
    }
    if options.key is not None:
        return KeyedLane(name, app, key=options.key, **sizes, **gate)
    if options.overflow == "latest":
        return KeyedLane(name, app, key=_the_only_key, **sizes, **gate)
    return GatedLane(name, app, **sizes, **gate)


def _house_gated(
    lane: GatedLane,
    declaration: HandlerDeclaration,
    middleware: Sequence[Middleware],
    run: Run,
    call: Callable[[Any], Awaitable[Any]],
    turn: anyio.Lock | None,
) -> tuple[Lane, Sequence[Worker]]:
    from event_flow.core.attempts import AttemptWorker
    from event_flow.core.middleware import chain
    from event_flow.core.rules import Rules

    takes_batch = declaration.takes_batch
    if middleware:
        call = chain(middleware, call, takes_batch=takes_batch)
        takes_batch = True
    rules = Rules(declaration.options)
    return lane, [
        AttemptWorker(lane, run, call, turn, rules=rules, takes_batch=takes_batch)
        for _ in range(declaration.options.concurrency)
    ]


def _the_only_key(_: Event[Any]) -> None:
    """All events are of one key."""

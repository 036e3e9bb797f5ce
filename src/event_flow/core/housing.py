"""Which lane and which workers a handler gets: the plainest that do what its options ask for.

what the handler asks for                          lane            worker
nothing, or only sizes, concurrency, overflow      Lane            Worker
a Batch, linger, rate, or what follows a failure,  GatedLane       AttemptWorker
or there is middleware
key, or overflow="latest"                          KeyedLane       AttemptWorker
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio

from event_flow.core.attempts import AttemptWorker
from event_flow.core.delivery import Worker
from event_flow.core.event import Event
from event_flow.core.gate import GatedLane
from event_flow.core.handler_options import HandlerDeclaration, HandlerOptions
from event_flow.core.invoke import caller
from event_flow.core.keyed import KeyedLane
from event_flow.core.lane import Lane
from event_flow.core.middleware import Middleware, chain
from event_flow.core.rules import Rules
from event_flow.core.run import Run


def house(
    name: str,
    app: str,
    function: Callable[..., Any],
    declaration: HandlerDeclaration,
    middleware: Sequence[Middleware],
    run: Run,
) -> tuple[Lane, list[Worker]]:
    """Make the lane of a handler, and the workers that call it. To be called inside the event loop."""
    options = declaration.options
    lane = _lane(name, app, options, run, is_plain=not (middleware or asks_for_more(declaration)))
    call = caller(function, name=name, threads=run.threads, timeout=options.timeout)
    turn = anyio.Lock() if options.concurrency > 1 else None
    if not isinstance(lane, GatedLane):
        return lane, [Worker(lane, run, call, turn) for _ in range(options.concurrency)]
    if middleware:
        call = chain(middleware, call, takes_batch=declaration.takes_batch)
    rules = Rules(options)
    takes_batch = bool(middleware) or declaration.takes_batch
    return lane, [
        AttemptWorker(lane, run, call, turn, rules=rules, takes_batch=takes_batch)
        for _ in range(options.concurrency)
    ]


def asks_for_more(declaration: HandlerDeclaration) -> bool:
    """Whether a handler needs more than a plain lane and worker."""
    options = declaration.options
    return bool(
        declaration.takes_batch
        or options.linger
        or options.rate
        or options.retry
        or options.isolate
        or options.on_failure
        or options.key
        or options.overflow == "latest"
    )


def _lane(name: str, app: str, options: HandlerOptions, run: Run, *, is_plain: bool) -> Lane:
    sizes: dict[str, Any] = {
        "queue_size": options.queue_size or run.options.queue_size,
        "max_batch": options.max_batch or run.options.max_batch,
        "overflow": options.overflow,
    }
    if is_plain:
        return Lane(name, app, **sizes)
    in_order = options.concurrency == 1
    gate: dict[str, Any] = {"linger": options.linger, "rate": options.rate, "in_order": in_order}
    if options.key is not None:
        return KeyedLane(name, app, key=options.key, **sizes, **gate)
    if options.overflow == "latest":
        return KeyedLane(name, app, key=_the_only_key, **sizes, **gate)
    return GatedLane(name, app, **sizes, **gate)


def _the_only_key(_: Event[Any]) -> None:
    """All events are of one key."""

"""Which lane and which workers a handler gets: the plainest that do what its options ask for.

what the handler asks for                          lane            worker
nothing, or only sizes, concurrency, overflow,     Lane            Worker
a timeout
a Batch, linger, rate, or what follows a failure,  GatedLane       AttemptWorker
or there is middleware
key, or overflow="latest"                          KeyedLane       AttemptWorker
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from event_flow.core.delivery import Worker
from event_flow.core.event import Event
from event_flow.core.handler_options import HandlerDeclaration, HandlerOptions
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
    lane: Lane
    make: Callable[[], Worker]
    if middleware or _asks_for_more(declaration):
        lane = gated = _gated_lane(name, app, options, sizes, run)
        make = _gated_worker(gated, declaration, middleware, run, call)
    else:
        lane = Lane(name, app, **sizes)
        make = functools.partial(Worker, lane, run, call)
    if options.concurrency > 1:
        lane.turn = anyio.Lock()
    return lane, [make() for _ in range(options.concurrency)]


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


def _gated_lane(name: str, app: str, options: HandlerOptions, sizes: dict[str, Any], run: Run) -> GatedLane:
    from event_flow.core.gate import GatedLane
    from event_flow.core.keyed import KeyedLane

    gate: dict[str, Any] = {
        **sizes,
        "linger": options.linger,
        "rate": options.rate,
        "in_order": options.concurrency == 1,
        "clock": run.clock,
    }
    if options.key is not None:
        return KeyedLane(name, app, key=options.key, **gate)
    if options.overflow == "latest":
        return KeyedLane(name, app, key=_the_only_key, **gate)
    return GatedLane(name, app, **gate)


def _gated_worker(
    lane: GatedLane,
    declaration: HandlerDeclaration,
    middleware: Sequence[Middleware],
    run: Run,
    call: Callable[[Any], Awaitable[Any]],
) -> Callable[[], Worker]:
    from event_flow.core.middleware import chain
    from event_flow.core.rules import Rules
    from event_flow.core.trying import AttemptWorker

    takes_batch = declaration.takes_batch
    if middleware:
        call = chain(middleware, call, takes_batch=takes_batch)
        takes_batch = True
    rules = Rules(declaration.options)
    return functools.partial(AttemptWorker, lane, run, call, rules=rules, takes_batch=takes_batch)


def _the_only_key(_: Event[Any]) -> None:
    """All events are of one key."""

"""Middleware: code of the user's around every attempt of a handler, outermost first."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from event_flow.core.backend import interruptible
from event_flow.core.batch import Batch
from event_flow.core.wording import name_of, safe_repr

CallNext = Callable[[Batch[Any]], Awaitable[None]]
Middleware = Callable[[Batch[Any], CallNext], Awaitable[None]]


def chain(
    middleware: Sequence[Middleware], call: Callable[[Any], Awaitable[Any]], *, takes_batch: bool
) -> CallNext:
    """What to await with a batch so that it goes through all of them to `call`, which takes the batch or a list."""
    following: CallNext = functools.partial(_call_handler, call, takes_batch)
    for each in reversed(middleware):
        following = functools.partial(_call_through, interruptible(each), name_of(each), following)
    return following


async def _call_handler(call: Callable[[Any], Awaitable[Any]], takes_batch: bool, batch: Batch[Any]) -> None:
    # A handler may count on one event at least, whatever was taken out on the way.
    if batch.events:
        await call(batch if takes_batch else batch.events)


async def _call_through(middleware: Middleware, name: str, following: CallNext, batch: Batch[Any]) -> None:
    async def call_next(batch: Batch[Any]) -> None:
        if not isinstance(batch, Batch):
            raise TypeError(
                f"{name}: call_next takes the Batch, not {safe_repr(batch)}: write `await call_next(batch)`"
            )
        await following(batch)

    await middleware(batch, call_next)

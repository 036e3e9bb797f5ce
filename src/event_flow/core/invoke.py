"""Where user code is called: async functions on the loop, sync ones in a thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from event_flow.core.backend import interruptible
from event_flow.core.function import is_async
from event_flow.core.threads import Threads


def caller(
    function: Callable[..., Any], *, name: str, threads: Threads, own_thread: bool = False
) -> Callable[..., Awaitable[Any]]:
    """What to await in order to call user code, and get its result. To be asked for inside the event loop.

    A sync function that returns an awaitable or a generator is a `TypeError`: nothing would await it, or run it.
    """
    if is_async(function):
        return interruptible(function)
    return functools.partial(_call_in_thread, function, name, threads, own_thread)


async def _call_in_thread(
    function: Callable[..., Any], name: str, threads: Threads, own_thread: bool, *args: Any
) -> Any:
    result = await threads.run(name, function, *args, own_thread=own_thread)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(f"{name} returned {type(result).__name__}, which nobody runs: use no `yield` in it")
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"{name} is a sync function that returned {type(result).__name__}, which nobody awaits: "
            "make it `async def`; a sync one publishes with pub_event_from_thread"
        )
    return result

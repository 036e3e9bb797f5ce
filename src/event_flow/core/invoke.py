"""Where user code is called: async functions on the loop, sync ones in a thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from event_flow.core.backend import interruptible
from event_flow.core.exception import HandlerTimeout
from event_flow.core.function import is_async
from event_flow.core.threads import Threads


def caller(
    function: Callable[..., Any],
    *,
    name: str,
    threads: Threads,
    own_thread: bool = False,
    timeout: float | None = None,
) -> Callable[..., Awaitable[Any]]:
    """What to await in order to call user code, and get its result. To be asked for inside the event loop.

    `timeout` is in seconds: an async call is cancelled then, of a sync one the end is waited for; both raise `HandlerTimeout`.
    A sync function that returns an awaitable or a generator is a `TypeError`: nothing would await it, or run it.
    """
    if is_async(function):
        call = interruptible(function)
        return call if timeout is None else functools.partial(_call_in_time, call, name, timeout)
    return functools.partial(_call_in_thread, function, name, threads, own_thread, timeout)


async def _call_in_time(call: Callable[..., Awaitable[Any]], name: str, timeout: float, *args: Any) -> None:
    with anyio.move_on_after(timeout) as scope:
        await call(*args)
    if scope.cancelled_caught:
        raise HandlerTimeout(f"{name} took longer than timeout={timeout:g} s", handler=name, timeout=timeout)


async def _call_in_thread(
    function: Callable[..., Any],
    name: str,
    threads: Threads,
    own_thread: bool,
    timeout: float | None,
    *args: Any,
) -> Any:
    result = await threads.run(name, function, *args, own_thread=own_thread, timeout=timeout)
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

"""Waits that end only when what they wait for holds: native cancellation is an order, and not their end.

asyncio can cancel a task from outside, any number of times, whatever scopes are around its await; at the end of a loop it
does so to every task. A run still has to end in order, so its supervisor answers each of those and waits on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow.core.backend import NativeTask
from event_flow.core.bell import Bell

# Seconds: what every remaining wait that has a limit gets after a second signal. Long enough to close a connection, short
# enough for somebody who has pressed Ctrl+C twice.
HURRIED_TIMEOUT = 1.0

# Seconds for the first step of a task, which is due in the next pass of the loop. Only one that somebody else cancelled
# before takes longer, and for ever.
FIRST_STEP_TIMEOUT = 1.0


class Endurance:
    """The waits of one supervisor. `on_cancel` is called each time it was cancelled natively, before it waits on."""

    def __init__(self, bell: Bell, on_cancel: Callable[[], object]) -> None:
        self.bell = bell
        self.on_cancel = on_cancel
        self.native_cancels: int = 0
        self.is_hurried = False

    async def until(self, holds: Callable[[], bool], timeout: float = math.inf) -> bool:
        """Wait until `holds()`, for `timeout` seconds. Whether it does."""
        try:
            with anyio.move_on_after(timeout, shield=True) as scope:
                while not holds():
                    try:
                        await self.bell.until(holds)
                    except anyio.get_cancelled_exc_class():
                        if scope.cancel_called:
                            raise
                        self._answer()
        except anyio.get_cancelled_exc_class():
            self._answer()  # it came together with the timeout
        return holds()

    async def within(self, timeout: float, holds: Callable[[], bool]) -> bool:
        """Wait until `holds()`, for `timeout` seconds, or less in a hurry. Whether it does."""
        if not self.is_hurried:
            await self.until(lambda: holds() or self.is_hurried, timeout)
        if self.is_hurried:
            await self.until(holds, self.limit(timeout))
        return holds()

    async def first_step(self, start: Callable[[], object], has_begun: Callable[[], bool]) -> None:
        """Start a task and wait for its first step. One that is cancelled natively before will never take it: start another."""
        while not has_begun():
            cancels = self.native_cancels
            start()
            await self.until(
                lambda: has_begun() or self.native_cancels > cancels,  # noqa: B023
                FIRST_STEP_TIMEOUT,
            )
            await outlive_cancellation(checkpoint)

    def limit(self, timeout: float) -> float:
        """The timeout as it is in force."""
        return min(timeout, HURRIED_TIMEOUT) if self.is_hurried else timeout

    def _answer(self) -> None:
        self.native_cancels += 1
        NativeTask().absorb()
        self.on_cancel()


async def outlive_cancellation(wait: Callable[[], Awaitable[object]]) -> None:
    """Wait to the end, although the task is cancelled: by a scope, and natively any number of times."""
    while True:
        try:
            with CancelScope(shield=True):
                await wait()
        except anyio.get_cancelled_exc_class():
            continue  # natively, once more; the caller raises the first one again
        return

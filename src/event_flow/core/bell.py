"""Waiting until something is true: who changes it rings, and only those whose condition now holds are woken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import get_ident

import anyio

from event_flow.core.backend import LoopGone, Wake, current_wake


class Bell:
    """A condition variable whose waiters say what they wait for. They may wait in different event loops.

    A ring costs one call of each waiter's condition, so it may be rung often; conditions must be cheap.
    """

    def __init__(self) -> None:
        self._waiting: dict[anyio.Event, tuple[Callable[[], bool], int, Wake]] = {}

    def ring(self) -> None:
        """Something may have become true."""
        for event, (holds, thread, wake) in list(self._waiting.items()):
            if holds():
                # RuntimeError: a loop of this thread was closed under its tasks.
                with suppress(LoopGone, RuntimeError):
                    if thread == get_ident():
                        event.set()
                    else:
                        wake(event.set)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return at once if `holds()`, else as soon as it does when the bell is rung."""
        while not holds():
            event = anyio.Event()
            self._waiting[event] = holds, get_ident(), current_wake()
            try:
                # Again: in another thread it may have rung since.
                if not holds():
                    await event.wait()
            finally:
                del self._waiting[event]

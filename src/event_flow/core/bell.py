"""Waiting until something is true: who changes it rings, and only those whose condition now holds are woken."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Bell:
    """A condition variable for one thread whose waiters say what they wait for.

    A ring costs one call of each waiter's condition, so it may be rung often; conditions must be cheap.
    """

    def __init__(self) -> None:
        self._waiting: dict[anyio.Event, Callable[[], bool]] = {}

    def ring(self) -> None:
        """Something may have become true."""
        for event, holds in self._waiting.items():
            if holds():
                event.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return at once if `holds()`, else as soon as it does when the bell is rung."""
        while not holds():
            event = anyio.Event()
            self._waiting[event] = holds
            try:
                await event.wait()
            finally:
                del self._waiting[event]

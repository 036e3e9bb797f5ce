"""The task that an engine of a state machine runs in, and what it ended with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from event_flow import AppEngine


class Host:
    """Runs the engine once at a time, in a task that may be cancelled by its scope or natively."""

    backend: str
    engine: AppEngine
    # Of the last run.
    raised: BaseException | None = None
    was_cancelled: bool = False
    ended_at: float = 0.0

    async def _host(self) -> None:
        self.raised, self.was_cancelled, self.ended_at = None, False, 0.0
        native = asyncio.current_task() if self.backend == "asyncio" else None
        with anyio.CancelScope() as self.scope:
            self.cancel_natively: Callable[[], object] = native.cancel if native else self.scope.cancel
            try:
                await self.engine.run()
            except anyio.get_cancelled_exc_class():
                self.was_cancelled = True
                if native is None or self.scope.cancel_called:
                    raise
                while native.cancelling():
                    native.uncancel()
            except BaseException as exc:
                self.raised = exc
            finally:
                self.ended_at = anyio.current_time()

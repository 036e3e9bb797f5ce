"""Background tasks: they run from the start until they return; a failing one is an outcome like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from event_flow.core.bus import Bus
from event_flow.core.exception import EngineClosed
from event_flow.core.failure import Failures
from event_flow.core.invoke import caller
from event_flow.core.run import Run
from event_flow.core.state import EngineState
from event_flow.core.threads import Threads


class BackgroundTask:
    """The run-time home of one task of one application, for one run of the engine."""

    def __init__(self, name: str, app: str, function: Callable[..., Any], run: Run) -> None:
        self.name = name
        self.app = app
        self.function = function
        self.bus: Bus = run.bus
        self.threads: Threads = run.threads
        self.failures: Failures = run.failures

    async def run(self) -> None:
        """Call the task once. A sync one may run for ever, so it has a thread to itself."""
        try:
            await caller(self.function, name=self.name, threads=self.threads, own_thread=True)()
            await self.failures.forget_cancellation()
        except BaseException as exc:
            error = await self.failures.examine(exc, self.name)
            if error is None:
                raise
            if isinstance(error, EngineClosed) and self.bus.state is not EngineState.RUNNING:
                return  # it published when the engine was stopping already: that is how it learns to end
            await self.failures.contain(error, name=self.name, app=self.app)

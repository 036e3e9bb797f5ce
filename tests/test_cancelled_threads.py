"""Cancellation at each await of a sync handler that has a `timeout`: its thread is left, or its end waited for."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from anyio.lowlevel import checkpoint
from steps import Target, cancel_at_every_step
from test_cancelled_attempts import GOOD, Hooked, Ping, Trying
from waiting import SOON

from event_flow import AppEngine, EngineClosed, EngineState


class Overdue(Trying):
    """A sync handler whose thread goes on when its time is over, or when it is cancelled: it has the real clock's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(GOOD)
        self.hold = threading.Event()
        self.app = Hooked()
        self.engine = AppEngine([self.app])
        self.engine.exit(self._end)
        self.engine.register_handler(Ping, self.work_in_thread, timeout=1000, **options)

    def work_in_thread(self, events: list[Ping]) -> None:
        self.begun.update(events)
        assert self.hold.wait(SOON)
        self._decide(events)

    async def _drive(self) -> None:
        with suppress(EngineClosed):
            await self.engine.wait_running()
            self._publish()
            while not self.begun and self.engine.state is EngineState.RUNNING:
                await checkpoint()
            for _ in range(6):
                await checkpoint()
            self.hold.set()
            await self.engine.wait_idle()
            self.is_settled = True
            self.engine.stop()
            await self.engine.wait_stopped()

    async def check(self, target: Target) -> None:
        self.hold.set()
        report = self.engine.report
        assert report is not None
        assert (self.ends, self.app.exits) == (1, 1)
        assert report.threads_left in ((), ("engine.work_in_thread",))
        assert report.accepted == report.handled + report.abandoned == self.accepted
        if not target.was_cancelled:
            assert (report.handled, report.threads_left) == (1, ())


async def test_a_thread_that_has_a_timeout() -> None:
    await cancel_at_every_step(Overdue, least=3)

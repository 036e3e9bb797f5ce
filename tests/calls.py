"""Handlers for tests of what options do: they write down their calls, and may be held until they are let go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio

from event_flow import Batch, Event
from event_flow.core.report import ShutdownReport


class Item(Event[Any]):
    pass


class Call:
    """One call: the data of its events, and when it began."""

    def __init__(self, events: Iterable[Event[Any]]) -> None:
        self.data = [event.data for event in events]
        self.batch = events if isinstance(events, Batch) else None
        self.began = anyio.current_time()
        self.may_end = anyio.Event()


class Calls:
    """The calls of one handler. While `held`, each waits until it is let go; `takes` is how many seconds it works."""

    def __init__(self, *, held: bool = False, takes: float = 0.0) -> None:
        self.held = held
        self.takes = takes
        self.start = anyio.current_time()
        self.begun: list[Call] = []
        self.at_work: list[Call] = []
        self.ended: list[Call] = []
        self.cancelled: list[Call] = []
        self.most_at_work = 0

    async def handle(self, events: list[Item]) -> None:
        await self._work(events)

    async def handle_batch(self, batch: Batch[Item]) -> None:
        await self._work(batch)

    async def _work(self, events: Iterable[Event[Any]]) -> None:
        call = Call(events)
        self.begun.append(call)
        self.at_work.append(call)
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        try:
            if self.held:
                await call.may_end.wait()
            await anyio.sleep(self.takes)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(call)
            raise
        finally:
            self.at_work.remove(call)
        self.ended.append(call)

    def let(self, *data: Any) -> None:
        """Let the call at work that has these data end, without any the oldest one."""
        next(call for call in self.at_work if call.data == list(data) or not data).may_end.set()

    def open(self) -> None:
        """Let all calls end, and hold none any more."""
        self.held = False
        for call in self.at_work:
            call.may_end.set()

    @property
    def data(self) -> list[list[Any]]:
        """What each call got, in the order in which they began."""
        return [call.data for call in self.begun]

    @property
    def working(self) -> list[list[Any]]:
        """What the calls at work got, the oldest first."""
        return [call.data for call in self.at_work]

    @property
    def times(self) -> list[float]:
        """When each began, in seconds since this was made."""
        return [round(call.began - self.start, 6) for call in self.begun]

    @property
    def closed_by(self) -> list[str]:
        """Why each batch took on no more."""
        return [call.batch.closed_by for call in self.begun if call.batch is not None]


def account(report: ShutdownReport | None) -> dict[str, int]:
    """What is not 0 of what became of the deliveries, which must add up."""
    assert report is not None
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned
    names = ("handled", "failed", "dropped", "abandoned")
    return {name: number for name in names if (number := getattr(report, name))}

"""The applications of the traffic, async and sync, and who publishes in them and beside them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from plans import How
from records import Author, Thing
from turns import ThreadGate

from event_flow import Application, ExceptionEvent, SubApplication, schedule, task

if TYPE_CHECKING:
    from traffic import Traffic

TICK = 7.0


class AsyncCrew:
    """An application with hooks that are written down, a task and a schedule that publish what they are told to."""

    traffic: Traffic
    title: str

    async def before_start(self) -> None:
        await self.traffic.start_hook(self.title)

    async def exit(self) -> None:
        await self.traffic.exit_hook(self.title)

    @task
    async def work(self) -> None:
        await self.traffic.workers[self.title].live()

    @schedule(interval=TICK, run_at_once=False)
    async def tick(self) -> None:
        await self.traffic.tickers[self.title].publish_all()


class SyncCrew:
    """The same, in threads."""

    traffic: Traffic
    title: str

    def before_start(self) -> None:
        self.traffic.start_hook_in_thread(self.title)

    def exit(self) -> None:
        self.traffic.exit_hook_in_thread(self.title)

    @task
    def work(self) -> None:
        self.traffic.workers[self.title].live_in_thread()

    @schedule(interval=TICK, run_at_once=False)
    def tick(self) -> None:
        self.traffic.tickers[self.title].publish_all_in_thread()


class AsyncOuter(AsyncCrew, Application):
    title = "outer"


class SyncOuter(SyncCrew, Application):
    title = "outer"


class AsyncInner(AsyncCrew, SubApplication):
    title = "inner"


class SyncInner(SyncCrew, SubApplication):
    title = "inner"


def crew_of(traffic: Traffic) -> Application:
    """The tree of applications; those that `traffic.setup` names are sync."""
    sync = traffic.setup.sync
    outer = SyncOuter("outer") if "outer" in sync else AsyncOuter("outer")
    inner = SyncInner("inner") if "inner" in sync else AsyncInner("inner")
    outer.traffic = inner.traffic = traffic
    outer.add_app(inner)
    return outer


class Publisher:
    """Publishes one thing after the other, as it is asked to: as a task of the test."""

    is_sync = False

    def __init__(self, traffic: Traffic, author: Author) -> None:
        self.traffic = traffic
        self.author = author
        self.asked: deque[tuple[How, tuple[type[Thing], ...] | ExceptionEvent]] = deque()
        self.is_busy = False
        self.scope: anyio.CancelScope | None = None

    def set_off(self) -> None:
        """Make it do what it was asked, or do that too."""
        if not self.is_busy:
            self.is_busy = True
            self.traffic.loop.start(self.publish_all)

    async def publish_all(self) -> None:
        self.is_busy = True
        try:
            while self.asked:
                how, what = self.asked.popleft()
                with anyio.CancelScope() as self.scope:
                    if isinstance(what, ExceptionEvent):
                        await self.traffic.redeliver(how, [what], self.author)
                    else:
                        await self.traffic.publish(how, what, self.author)
        finally:
            self.is_busy = False
            self.scope = None

    def publish_all_in_thread(self) -> None:
        while self.asked:
            how, what = self.asked.popleft()
            assert not isinstance(what, ExceptionEvent), "there is no way to redeliver from a thread"
            self.traffic.publish_in_thread(how, what, self.author)
        self.is_busy = False


class Thread(Publisher):
    """As a thread of the test."""

    is_sync = True

    def set_off(self) -> None:
        if not self.is_busy:
            self.is_busy = True
            self.traffic.loop.do(lambda: self.traffic.loop.turns.start(self.publish_all_in_thread))


class Ticker(Publisher):
    """In a schedule of the engine, at its next tick."""

    def __init__(self, traffic: Traffic, author: Author, *, is_sync: bool) -> None:
        super().__init__(traffic, author)
        self.is_sync = is_sync

    def set_off(self) -> None:
        pass


class Worker(Ticker):
    """In a task of the engine, which lives until it is dismissed, or the engine ends; one in a thread until it is dismissed."""

    def __init__(self, traffic: Traffic, author: Author, *, is_sync: bool) -> None:
        super().__init__(traffic, author, is_sync=is_sync)
        self.is_dismissed = False
        self.is_at_gate = False  # a thread that waits there for orders
        self._gate = ThreadGate(traffic.loop.turns)
        self._orders: anyio.Event | None = None

    def set_off(self) -> None:
        self.traffic.loop.do(self._tell)

    def dismiss(self) -> None:
        self.is_dismissed = True
        self.traffic.loop.do(self._tell)

    def _tell(self) -> None:
        self._gate.open()
        if self._orders is not None:
            self._orders.set()

    async def live(self) -> None:
        while True:
            await self.publish_all()
            if self.is_dismissed:
                return
            self._orders = anyio.Event()
            await self._orders.wait()

    def live_in_thread(self) -> None:
        while True:
            self.publish_all_in_thread()
            if self.is_dismissed:
                return
            self.is_at_gate = True
            self._gate.wait()
            self.is_at_gate = False

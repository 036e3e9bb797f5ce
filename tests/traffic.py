"""A whole engine in traffic: handlers that do what they are told from one call to the next, and publishers of every kind.

Everything that happens is written into the `Ledger` of the run; what is told to whom, and when, is up to the state machine.
"""

from __future__ import annotations

import anyio
from crew import Publisher, Thread, Ticker, Worker, crew_of
from docket import Docket
from handling import Handling
from ledger import Ledger
from plans import Filter, Setup
from records import Author, Thing
from stepped_loop import SteppedLoop
from turns import ThreadGate

from event_flow import AppEngine, ExceptionEvent

GRACE_PERIOD = 5.0
TITLES = ("outer", "inner")


class Traffic(Handling):
    """The engine, everybody who publishes to it, and what was seen of the run that is under way or comes next."""

    def __init__(self, loop: SteppedLoop, setup: Setup) -> None:
        super().__init__()
        self.loop = loop
        self.setup = setup
        self.diary: list[str] = []
        self.names = [f"h{number}" for number in range(len(setup.handlers))]
        self.instructions = {name: plan.first for name, plan in zip(self.names, setup.handlers, strict=True)}
        self.tasks = [Publisher(self, Author(f"p{number}")) for number in range(2)]
        self.thread = Thread(self, Author("thread"))
        self.workers = {
            title: Worker(self, Author(f"{title}.work"), is_sync=title in setup.sync) for title in TITLES
        }
        self.tickers = {
            title: Ticker(self, Author(f"{title}.tick", in_tick=True), is_sync=title in setup.sync)
            for title in TITLES
        }
        everybody = [*self.tasks, self.thread, *self.workers.values(), *self.tickers.values()]
        self.publishers = {publisher.author.name: publisher for publisher in everybody}
        self._onward = 0
        self.engine = AppEngine(
            [crew_of(self)],
            queue_size=setup.queue_size,
            max_batch=setup.max_batch,
            max_backlog=setup.max_backlog,
            max_threads=setup.max_threads,
            grace_period=GRACE_PERIOD,
            on_error="raise" if setup.is_strict else "contain",
        )
        self._add_hooks()
        self.add_handlers(dict(zip(self.names, setup.handlers, strict=True)))
        self._old_letters: list[ExceptionEvent] = []
        self.open_ledger()

    def open_ledger(self) -> None:
        """Begin anew with what was seen."""
        self._old_letters = self.letters[-1:]
        plans = dict(zip(self.names, self.setup.handlers, strict=True))
        self.ledger = Ledger(
            wants={name: plan.wants for name, plan in plans.items()},
            dockets={
                name: Docket(
                    name,
                    plan.terms,
                    is_sync=plan.is_sync,
                    queue_size=self.setup.queue_size,
                    max_batch=self.setup.max_batch,
                )
                for name, plan in plans.items()
            },
            max_backlog=self.setup.max_backlog,
            max_threads=self.setup.max_threads,
            is_replaced=Filter.REPLACES in self.setup.filters,
        )
        self.gates = {name: anyio.Event() for name in self.names}
        self.thread_gates = {name: ThreadGate(self.loop.turns) for name in self.names}
        self.diary.clear()
        self._onward = 0
        for worker in self.workers.values():
            worker.is_dismissed = False
        for name in self.names:
            self.note_instruction(name)

    # -- hooks -----------------------------------------------------------------------------------------------------

    def _add_hooks(self) -> None:
        """The engine's own."""
        if "engine" in self.setup.sync:

            @self.engine.before_start
            def start() -> None:
                self.start_hook_in_thread("engine")

            @self.engine.exit
            def end() -> None:
                self.exit_hook_in_thread("engine")
        else:

            @self.engine.before_start
            async def start_async() -> None:
                await self.start_hook("engine")

            @self.engine.exit
            async def end_async() -> None:
                await self.exit_hook("engine")

    async def start_hook(self, title: str) -> None:
        self.diary.append(f"{title} starts")
        await self.publish(self.setup.how_in_hook, self.setup.in_hook, Author(f"{title} starts"))

    async def exit_hook(self, title: str) -> None:
        self.diary.append(f"{title} exits")
        await self.publish(self.setup.how_in_hook, [Thing], Author(f"{title} exits"))

    def start_hook_in_thread(self, title: str) -> None:
        self.diary.append(f"{title} starts")
        self.publish_in_thread(self.setup.how_in_hook, self.setup.in_hook, Author(f"{title} starts"))

    def exit_hook_in_thread(self, title: str) -> None:
        self.diary.append(f"{title} exits")
        self.publish_in_thread(self.setup.how_in_hook, [Thing], Author(f"{title} exits"))

    # -- what is told to whom --------------------------------------------------------------------------------------

    @property
    def letters(self) -> list[ExceptionEvent]:
        """What handlers were told of failures, and one that is left of the run before."""
        return self._old_letters + (self.ledger.letters if hasattr(self, "ledger") else [])

    @property
    def threads_at_gates(self) -> list[str]:
        """Of the parts of the engine that run in threads, those that only the test can end."""
        handlers = [call.handler for call in self.ledger.calls if call.is_at_gate]
        workers = [worker.author.name for worker in self.workers.values() if worker.is_at_gate]
        return [*(f"engine.{name}" for name in handlers), *workers]

"""A whole engine in traffic: handlers that do what they are told from one call to the next, and publishers of every kind.

Everything that happens is written into the `Ledger` of the run; what is told to whom, and when, is up to the state machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
from crew import Publisher, Thread, Ticker, Worker, crew_of
from ledger import Ledger
from plans import Ending, Instruction, Setup
from publishing import Publishing
from records import Author, Call, State, Thing
from stepped_loop import SteppedLoop
from turns import ThreadGate

from event_flow import AppEngine, Event, ExceptionEvent

# How many handlers may be behind an event, and how many events handlers of one run may publish: so every program ends.
GENERATIONS = 3
ONWARD = 60

GRACE_PERIOD = 5.0
TITLES = ("outer", "inner")


class Traffic(Publishing):
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
        for name, plan in zip(self.names, setup.handlers, strict=True):
            handler = self._sync_handler(name) if plan.is_sync else self._async_handler(name)
            handler.__name__ = name
            self.engine.on_event(*plan.wants)(handler)
        self._old_letters: list[ExceptionEvent] = []
        self.open_ledger()

    def open_ledger(self) -> None:
        """Begin anew with what was seen."""
        self._old_letters = self.letters[-1:]
        plans = dict(zip(self.names, self.setup.handlers, strict=True))
        self.ledger = Ledger(
            wants={name: plan.wants for name, plan in plans.items()},
            sync={name for name, plan in plans.items() if plan.is_sync},
            queue_size=self.setup.queue_size,
            max_batch=self.setup.max_batch,
            max_backlog=self.setup.max_backlog,
            max_threads=self.setup.max_threads,
        )
        self.gates = {name: anyio.Event() for name in self.names}
        self.thread_gates = {name: ThreadGate(self.loop.turns) for name in self.names}
        self.diary.clear()
        self._onward = 0
        for worker in self.workers.values():
            worker.is_dismissed = False
        for name in self.names:
            self._note_instruction(name)

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
        calls = [self.ledger.current(name) for name in self.ledger.sync]
        handlers = [call.handler for call in calls if call is not None and call.state is State.WAITS]
        workers = [worker.author.name for worker in self.workers.values() if worker.is_at_gate]
        return [*(f"engine.{name}" for name in handlers), *workers]

    def instruct(self, name: str, instruction: Instruction) -> None:
        self.instructions[name] = instruction
        self._note_instruction(name)

    def _note_instruction(self, name: str) -> None:
        self.ledger.publishes[name].update(self.instructions[name].onward)

    def open_gate(self, name: str) -> None:
        """Let the call that waits there go on; the next one waits again."""
        self.gates[name].set()
        self.gates[name] = anyio.Event()
        self.thread_gates[name].open()

    # -- handling --------------------------------------------------------------------------------------------------

    def _async_handler(self, name: str) -> Callable[[list[Event[Any]]], Coroutine[Any, Any, None]]:
        async def handle(events: list[Event[Any]]) -> None:
            ledger, instruction = self.ledger, self.instructions[name]
            call = ledger.enter(name, events)
            ledger.look(self.engine)
            try:
                await self._act(call, instruction)
            except anyio.get_cancelled_exc_class():
                call.state = State.FAILED if call.may_cross else State.CANCELLED
                self._note_failure(ledger, call, Exception())
                raise
            except BaseException as exc:
                call.state = State.FAILED
                self._note_failure(ledger, call, exc)
                raise
            else:
                call.state = State.DONE
            finally:
                events.clear()  # the list is the handler's own

        return handle

    def _sync_handler(self, name: str) -> Callable[[list[Event[Any]]], None]:
        def handle(events: list[Event[Any]]) -> None:
            ledger, instruction = self.ledger, self.instructions[name]
            call = ledger.enter(name, events)
            ledger.look(self.engine)
            call.may_cross = True
            self._judge_places(ledger)
            try:
                self._act_in_thread(call, instruction)
            except BaseException as exc:
                call.state = State.FAILED
                self._note_failure(ledger, call, exc)
                raise
            else:
                call.state = State.DONE
            finally:
                events.clear()

        return handle

    def _judge_places(self, ledger: Ledger) -> None:
        """A sync call begins: those at their gates have places, and have never lent them."""
        calls = [ledger.current(name) for name in ledger.sync]
        waiting = sum(call is not None and call.state is State.WAITS for call in calls)
        if waiting >= ledger.max_threads:
            ledger.broken.append(
                (2, f"{waiting} sync calls and one more, max_threads is {ledger.max_threads}")
            )

    def _note_failure(self, ledger: Ledger, call: Call, exc: BaseException) -> None:
        if call.state is State.FAILED and (self.setup.is_strict or not isinstance(exc, Exception)):
            ledger.may_raise.append(f"{call.handler}: {exc!r}")

    async def _act(self, call: Call, instruction: Instruction) -> None:
        await self.give_turns()
        if instruction.waits:
            call.state = State.WAITS
            await self.gates[call.handler].wait()
            call.state = State.WORKS
        if instruction.seconds:
            call.state = State.WAITS
            await anyio.sleep(instruction.seconds)
            call.state = State.WORKS
        if instruction.redelivers:
            failures = [event for event in call.events if isinstance(event, ExceptionEvent)]
            await self.redeliver(instruction.how, failures, self._author_of(call))
        for classes, author in self._onward_of(call, instruction):
            await self.publish(instruction.how, classes, author)
        self._end(instruction)
        if instruction.ending is Ending.CANCELS_ITSELF and self.loop.backend == "asyncio":
            call.may_cross = True
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await self.give_turns()

    def _act_in_thread(self, call: Call, instruction: Instruction) -> None:
        if instruction.waits:
            call.state = State.WAITS
            self.thread_gates[call.handler].wait()
            call.state = State.WORKS
        for classes, author in self._onward_of(call, instruction):
            self.publish_in_thread(instruction.how, classes, author)
        self._end(instruction)

    def _onward_of(self, call: Call, instruction: Instruction) -> Iterator[tuple[list[type[Thing]], Author]]:
        for event in list(call.events):
            generation = event.data.author.generation + 1 if isinstance(event, Thing) else GENERATIONS
            classes = list(instruction.onward)[: ONWARD - self._onward]
            if classes and generation <= GENERATIONS:
                self._onward += len(classes)
                yield classes, self._author_of(call, generation)

    def _author_of(self, call: Call, generation: int = 0) -> Author:
        number = len(self.ledger.calls[call.handler])
        return Author(f"{call.handler}.{number}", handler=call.handler, generation=generation)

    @staticmethod
    def _end(instruction: Instruction) -> None:
        if instruction.ending is Ending.FAILS:
            raise ValueError
        if instruction.ending is Ending.EXITS:
            raise SystemExit(3)
        if instruction.ending is Ending.IS_INTERRUPTED:
            raise KeyboardInterrupt

"""A whole engine in traffic: handlers that do what they are told from one call to the next, and publishers of every kind.

Everything that happens is written into the `Ledger` of the run; what is told to whom, and when, is up to the state machine.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from ledger import Call, Fate, Ledger, Publication, State, Thing
from stepped_loop import SteppedLoop
from turns import ThreadGate

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    EngineClosed,
    EngineState,
    Event,
    SubApplication,
    schedule,
    task,
)

# How many handlers may be behind an event, and how many events handlers of one run may publish: so every program ends.
GENERATIONS = 3
ONWARD = 60

GRACE_PERIOD = 5.0
TICK = 7.0

REFUSALS = (EngineClosed, BacklogExceeded, anyio.WouldBlock)


class How(Enum):
    ONE_BY_ONE = "pub_event, or pub_event_from_thread"
    TOGETHER = "pub_events, or pub_events_from_thread"
    NOWAIT = "pub_event_nowait, where there is no thread"
    CHILDREN = "each in a child task, where there is no thread"
    GIVEN_UP = "cancelled after a second, where there is no thread"


class Ending(Enum):
    RETURNS = "returns"
    FAILS = "raises ValueError"
    EXITS = "raises SystemExit"
    IS_INTERRUPTED = "raises KeyboardInterrupt"
    CANCELS_ITSELF = "cancels its own asyncio task; on Trio it returns"


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a handler does from its next call on, in this order."""

    waits: bool = False  # at its gate
    seconds: int = 0
    onward: tuple[type[Thing], ...] = ()  # published for each event it got
    how: How = How.ONE_BY_ONE
    ending: Ending = Ending.RETURNS


@dataclass(frozen=True, slots=True)
class HandlerPlan:
    wants: tuple[type[Event[Any]], ...]
    is_sync: bool
    first: Instruction = Instruction()


@dataclass(frozen=True, slots=True)
class Setup:
    handlers: tuple[HandlerPlan, ...]
    queue_size: int
    max_batch: int
    max_backlog: int
    max_threads: int
    is_strict: bool
    in_hook: tuple[type[Thing], ...]  # published by a `before_start` hook


class Crew:
    """An application with hooks that are written down, a task and a schedule that publish what they are told to."""

    traffic: Traffic
    title: str

    async def before_start(self) -> None:
        self.traffic.diary.append(f"{self.title} starts")
        if self.title == "outer":
            await self.traffic.publish(How.ONE_BY_ONE, self.traffic.setup.in_hook, "hook")

    async def exit(self) -> None:
        self.traffic.diary.append(f"{self.title} exits")
        await self.traffic.publish(How.ONE_BY_ONE, [Thing], "hook")


class Outer(Crew, Application):
    title = "outer"

    @task
    async def work(self) -> None:
        worker = self.traffic.worker
        while True:
            await worker.publish_all()
            worker.arrival = anyio.Event()
            await worker.arrival.wait()

    @schedule(interval=TICK, run_at_once=False)
    async def tick(self) -> None:
        await self.traffic.ticker.publish_all()


class Inner(Crew, SubApplication):
    title = "inner"


class Publisher:
    """Publishes one thing after the other, as it is asked to."""

    def __init__(self, traffic: Traffic, name: str) -> None:
        self.traffic = traffic
        self.name = name
        self.asked: deque[tuple[How, tuple[type[Thing], ...]]] = deque()
        self.is_busy = False
        self.scope: anyio.CancelScope | None = None
        self.arrival: anyio.Event | None = None

    def ask(self, how: How, classes: tuple[type[Thing], ...]) -> None:
        self.asked.append((how, classes))

    async def publish_all(self) -> None:
        """As a task of its own, or in a part of the engine."""
        self.is_busy = True
        try:
            while self.asked:
                how, classes = self.asked.popleft()
                with anyio.CancelScope() as self.scope:
                    await self.traffic.publish(how, classes, self.name)
        finally:
            self.is_busy = False
            self.scope = None

    def publish_all_from_thread(self) -> None:
        """As a thread of its own."""
        while self.asked:
            how, classes = self.asked.popleft()
            self.traffic.publish_from_thread(how, classes, self.name)
        self.is_busy = False


class Traffic:
    """The engine, everybody who publishes to it, and what was seen of the run that is under way or comes next."""

    def __init__(self, loop: SteppedLoop, setup: Setup) -> None:
        self.loop = loop
        self.setup = setup
        self.diary: list[str] = []
        self.names = [f"h{number}" for number in range(len(setup.handlers))]
        self.instructions = {name: plan.first for name, plan in zip(self.names, setup.handlers, strict=True)}
        self.tasks = [Publisher(self, f"p{number}") for number in range(2)]
        self.thread = Publisher(self, "thread")
        self.worker = Publisher(self, "worker")
        self.ticker = Publisher(self, "ticker")
        self._serials = itertools.count()
        self._onward = 0
        outer, inner = Outer("outer"), Inner("inner")
        outer.traffic = inner.traffic = self
        outer.add_app(inner)
        self.engine = AppEngine(
            [outer],
            queue_size=setup.queue_size,
            max_batch=setup.max_batch,
            max_backlog=setup.max_backlog,
            max_threads=setup.max_threads,
            grace_period=GRACE_PERIOD,
            on_error="raise" if setup.is_strict else "contain",
        )
        self.engine.exit(self._last_hook)
        for name, plan in zip(self.names, setup.handlers, strict=True):
            handler = self._sync_handler(name) if plan.is_sync else self._async_handler(name)
            handler.__name__ = name
            self.engine.on_event(*plan.wants)(handler)
        self.open_ledger()

    def open_ledger(self) -> None:
        """Begin anew with what was seen."""
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
        for name in self.names:
            self._note_instruction(name)

    async def _last_hook(self) -> None:
        self.diary.append("engine exits")

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

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(
        self,
        how: How,
        classes: Sequence[type[Thing]],
        publisher: str,
        *,
        inside: str | None = None,
        generation: int = 0,
    ) -> None:
        """Publish one event of each class. What refuses an event is written down, and out of a handler raised."""
        if how is How.TOGETHER:
            await self._give_turns()
            events = self._write(classes, publisher, inside, generation, together=True)
            with suppress(*self._expected(inside)), self._fate_of(events):
                await self.engine.pub_events(events)
        elif how is How.CHILDREN:
            async with anyio.create_task_group() as group:
                for event_class in classes:
                    name = f"{publisher}.{next(self._serials)}"
                    group.start_soon(self._publish_one, how, event_class, name, inside, generation)
        else:
            for event_class in classes:
                with anyio.move_on_after(1 if how is How.GIVEN_UP else math.inf):
                    await self._publish_one(how, event_class, publisher, inside, generation)

    async def _publish_one(
        self, how: How, event_class: type[Thing], publisher: str, inside: str | None, generation: int
    ) -> None:
        await self._give_turns()
        events = self._write([event_class], publisher, inside, generation)
        with suppress(*self._expected(inside)), self._fate_of(events):
            if how is How.NOWAIT:
                self.engine.pub_event_nowait(events[0])
            else:
                await self.engine.pub_event(events[0])

    def publish_from_thread(
        self,
        how: How,
        classes: Sequence[type[Thing]],
        publisher: str,
        *,
        inside: str | None = None,
        generation: int = 0,
    ) -> None:
        if how is How.TOGETHER:
            events = self._write(classes, publisher, inside, generation, together=True)
            with suppress(*self._expected(inside)), self._fate_of(events):
                self.engine.pub_events_from_thread(events)
        else:
            for event_class in classes:
                events = self._write([event_class], publisher, inside, generation)
                with suppress(*self._expected(inside)), self._fate_of(events):
                    self.engine.pub_event_from_thread(events[0])

    @staticmethod
    def _expected(inside: str | None) -> tuple[type[Exception], ...]:
        return REFUSALS if inside is None else (anyio.WouldBlock,)

    def _write(
        self,
        classes: Sequence[type[Thing]],
        publisher: str,
        inside: str | None,
        generation: int,
        *,
        together: bool = False,
    ) -> list[Thing]:
        events = []
        for event_class in classes:
            publication = Publication(publisher, next(self._serials), generation, inside)
            publication.is_one_of_many = together
            publication.is_early = self.engine.state in (EngineState.NEW, EngineState.STARTING)
            events.append(event_class(publication))
            self.ledger.publications[events[-1]] = publication
        return events

    @contextmanager
    def _fate_of(self, events: Sequence[Thing]) -> Iterator[None]:
        ledger = self.ledger
        try:
            yield
        except BaseException as exc:
            self._judge_refusal(ledger, exc, events)
            for event in events:
                publication = event.data
                if publication.fate is Fate.PENDING:
                    publication.fate = Fate.UNSURE if publication.is_one_of_many else Fate.REFUSED
                elif publication.fate is Fate.MADE and not publication.is_one_of_many:
                    ledger.broken.append((5, f"{event} was delivered, and its publish raised {exc!r}"))
            raise
        for event in events:
            event.data.fate = Fate.MADE
        ledger.look(self.engine)

    def _judge_refusal(self, ledger: Ledger, exc: BaseException, events: Sequence[Thing]) -> None:
        if isinstance(exc, EngineClosed) and self.engine.state is EngineState.RUNNING:
            ledger.broken.append((4, f"{events} was refused although the engine runs"))
        if isinstance(exc, anyio.WouldBlock):
            numbers = self.engine.statistics().handlers
            full = any(
                numbers[f"engine.{name}"].queued >= ledger.queue_size
                for name, wanted in ledger.wants.items()
                if isinstance(events[0], wanted)
            )
            # Who waits longer comes first.
            others = sum(publication.fate is Fate.PENDING for publication in ledger.publications.values()) > 1
            failing = any(calls and calls[-1].state is State.FAILED for calls in ledger.calls.values())
            if not (full or others or failing):
                ledger.broken.append((2, f"there is room for {events[0]}, and it was refused"))

    async def _give_turns(self) -> None:
        for _ in range(self.loop.random.randrange(3)):
            await checkpoint()

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
        await self._give_turns()
        if instruction.waits:
            call.state = State.WAITS
            await self.gates[call.handler].wait()
            call.state = State.WORKS
        if instruction.seconds:
            call.state = State.WAITS
            await anyio.sleep(instruction.seconds)
            call.state = State.WORKS
        for classes, generation in self._onward_of(call, instruction):
            await self.publish(
                instruction.how, classes, self._name_of(call), inside=call.handler, generation=generation
            )
        self._end(instruction)
        if instruction.ending is Ending.CANCELS_ITSELF and self.loop.backend == "asyncio":
            call.may_cross = True
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await self._give_turns()

    def _act_in_thread(self, call: Call, instruction: Instruction) -> None:
        if instruction.waits:
            call.state = State.WAITS
            self.thread_gates[call.handler].wait()
            call.state = State.WORKS
        for classes, generation in self._onward_of(call, instruction):
            self.publish_from_thread(
                instruction.how, classes, self._name_of(call), inside=call.handler, generation=generation
            )
        self._end(instruction)

    def _onward_of(self, call: Call, instruction: Instruction) -> Iterator[tuple[list[type[Thing]], int]]:
        for event in list(call.events):
            generation = event.data.generation + 1 if isinstance(event, Thing) else GENERATIONS
            classes = list(instruction.onward)[: ONWARD - self._onward]
            if classes and generation <= GENERATIONS:
                self._onward += len(classes)
                yield classes, generation

    def _name_of(self, call: Call) -> str:
        return f"{call.handler}.{len(self.ledger.calls[call.handler])}"

    @staticmethod
    def _end(instruction: Instruction) -> None:
        if instruction.ending is Ending.FAILS:
            raise ValueError
        if instruction.ending is Ending.EXITS:
            raise SystemExit(3)
        if instruction.ending is Ending.IS_INTERRUPTED:
            raise KeyboardInterrupt

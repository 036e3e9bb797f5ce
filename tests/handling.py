"""What handlers in the traffic do.

Each attempt is written into the ledger where the engine makes it: by the handler, or by the outermost middleware if there is any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
from ledger import Ledger
from meddling import CallNext, filter_that, middleware_that, under_way
from plans import Ending, HandlerPlan, Instruction, Setup
from publishing import Publishing
from records import Author, Call, State, Thing
from turns import ThreadGate

from event_flow import Batch, BatchFailed, EngineState, Event, ExceptionEvent, HandlerTimeout

# How many handlers may be behind an event, and how many events handlers of one run may publish: so every program ends.
GENERATIONS = 3
ONWARD = 60

Events = list[Event[Any]]


class Handling(Publishing):
    """Handlers that do what they are told from one call to the next."""

    setup: Setup
    instructions: dict[str, Instruction]
    gates: dict[str, anyio.Event]
    thread_gates: dict[str, ThreadGate]
    _onward: int

    def add_handlers(self, plans: dict[str, HandlerPlan]) -> None:
        """Make them, and what is around them."""
        for name, plan in plans.items():
            handler = self._sync_handler(name) if plan.is_sync else self._async_handler(name)
            # `Batch` or `list` is told by the annotation.
            taken = Batch[Any] if plan.terms.takes_batch else Events
            handler.__annotations__ = {"given": taken, "return": None}
            handler.__name__ = name
            self.engine.on_event(*plan.wants, **plan.terms.options(plan.wants))(handler)
        if self.setup.middleware:
            self.engine.add_middleware(self._outermost)
        for around in self.setup.middleware:
            self.engine.add_middleware(middleware_that(around))
        for filtering in self.setup.filters:
            self.engine.add_filter(filter_that(filtering, self))

    def instruct(self, name: str, instruction: Instruction) -> None:
        self.instructions[name] = instruction
        self.note_instruction(name)

    def note_instruction(self, name: str) -> None:
        self.ledger.publishes[name].update(self.instructions[name].onward)

    def open_gate(self, name: str) -> None:
        """Let the calls that wait there go on; the next one waits again."""
        self.gates[name].set()
        self.gates[name] = anyio.Event()
        self.thread_gates[name].open()

    def open_gates(self) -> None:
        """All of them."""
        for name in self.gates:
            self.open_gate(name)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _enter(self, name: str, given: Events | Batch[Any], *, is_on_loop: bool) -> Call:
        call = self.ledger.enter(name, list(given), self.loop.time(), is_on_loop=is_on_loop)
        if isinstance(given, Batch):
            self._judge_batch(call, given)
        self.ledger.look(self.engine)
        return call

    def _judge_batch(self, call: Call, batch: Batch[Any]) -> None:
        """What it says of itself."""
        docket = self.ledger.dockets[call.handler]
        terms = docket.terms
        key = None if terms.key is None else call.key
        if (batch.key, batch.attempt) != (key, call.attempt):
            self.ledger.broken.append(
                (4, f"{call.handler} got {batch}, of key {key} and attempt {call.attempt}")
            )
        reasons = {"size", "linger" if terms.linger else "idle"}
        if self.engine.state is not EngineState.RUNNING:
            reasons.add("drain")
        if batch.closed_by not in reasons:
            self.ledger.broken.append((2, f"{call.handler} got {batch}, which cannot be"))

    def _end(self, ledger: Ledger, call: Call, error: BaseException | None) -> None:
        verdict = ledger.dockets[call.handler].end(call, error, self.loop.time())
        ends_it = error is not None and not isinstance(error, Exception)
        if verdict.fatal or ends_it or (verdict.dead and self.setup.is_strict):
            ledger.may_raise.append(f"{call.handler}: {error!r}")

    def _is_overdue(self, ledger: Ledger, call: Call) -> HandlerTimeout | None:
        timeout = ledger.dockets[call.handler].terms.timeout
        if timeout is None or self.loop.time() < call.began + timeout:
            return None
        return HandlerTimeout("", handler=call.handler, timeout=timeout)

    def _cancel(self, ledger: Ledger, call: Call, overdue: HandlerTimeout | None = None) -> None:
        """A call ends with a cancellation: because it is overdue, by its own, or by the engine's."""
        if ledger.may_raise:  # another call that was overdue at the same moment may have ended the engine
            call.may_cross = call.may_cross or overdue is not None
        if overdue is not None or call.may_cross:
            self._end(ledger, call, overdue or UnexpectedEnd())
        else:
            ledger.dockets[call.handler].cancel(call)

    # -- handlers --------------------------------------------------------------------------------------------------

    def _async_handler(self, name: str) -> Callable[..., Any]:
        async def handle(given: Any) -> None:
            ledger, instruction = self.ledger, self.instructions[name]
            call = under_way.get()
            is_mine = call is None
            if call is None:
                call = self._enter(name, given, is_on_loop=True)
            else:
                self._judge_passed(ledger, call, given)
            try:
                await self._act(call, list(given), instruction)
            except anyio.get_cancelled_exc_class():
                if is_mine:
                    self._cancel(ledger, call, self._is_overdue(ledger, call))
                raise
            except BaseException as exc:
                if is_mine:
                    self._end(ledger, call, exc)
                raise
            else:
                if is_mine:
                    self._end(ledger, call, None)
            finally:
                _spoil(given)

        return handle

    def _sync_handler(self, name: str) -> Callable[..., Any]:
        def handle(given: Any) -> None:
            ledger, instruction = self.ledger, self.instructions[name]
            call = under_way.get()
            is_mine = call is None
            if call is None:
                call = self._enter(name, given, is_on_loop=False)
                call.may_cross = True
            else:
                self._judge_passed(ledger, call, given)
            self._judge_places(ledger)
            try:
                self._act_in_thread(call, list(given), instruction)
            except BaseException as exc:
                if is_mine:
                    overdue = self._is_overdue(ledger, call) if isinstance(exc, Exception) else None
                    self._end(ledger, call, overdue or exc)
                raise
            else:
                if is_mine:
                    self._end(ledger, call, self._is_overdue(ledger, call))
            finally:
                _spoil(given)

        return handle

    def _judge_passed(self, ledger: Ledger, call: Call, given: Events | Batch[Any]) -> None:
        if list(given) != call.passed:
            ledger.broken.append(
                (4, f"{call.handler} got {list(given)}, and middleware had passed {call.passed}")
            )

    def _judge_places(self, ledger: Ledger) -> None:
        """A sync call begins: those at their gates have places, and have never lent them."""
        waiting = ledger.in_threads
        if waiting >= ledger.max_threads:
            ledger.broken.append(
                (2, f"{waiting} sync calls and one more, max_threads is {ledger.max_threads}")
            )

    async def _act(self, call: Call, events: Events, instruction: Instruction) -> None:
        await self.give_turns()
        if instruction.waits:
            call.state = State.WAITS
            await self.gates[call.handler].wait()
            call.state = State.WORKS
        if instruction.seconds:
            call.state = State.WAITS
            await anyio.sleep(instruction.seconds)
            call.state = State.WORKS
        if instruction.pauses:
            self.pause(call.handler)
        if instruction.redelivers:
            failures = [event for event in events if isinstance(event, ExceptionEvent)]
            await self.redeliver(instruction.how, failures, self._author_of(call))
        for classes, author in self._onward_of(call, events, instruction):
            await self.publish(instruction.how, classes, author)
        _raise(instruction, events)
        if instruction.ending is Ending.CANCELS_ITSELF and self.loop.backend == "asyncio":
            call.may_cross = True
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await self.give_turns()

    def _act_in_thread(self, call: Call, events: Events, instruction: Instruction) -> None:
        if instruction.waits:
            call.state, call.is_at_gate = State.WAITS, True
            self.thread_gates[call.handler].wait()
            call.is_at_gate = False
            if call.is_over:  # it was left
                return
            call.state = State.WORKS
        for classes, author in self._onward_of(call, events, instruction):
            self.publish_in_thread(instruction.how, classes, author)
        _raise(instruction, events)

    def _onward_of(
        self, call: Call, events: Events, instruction: Instruction
    ) -> Iterator[tuple[list[type[Thing]], Author]]:
        for event in events:
            generation = event.data.author.generation + 1 if isinstance(event, Thing) else GENERATIONS
            classes = list(instruction.onward)[: ONWARD - self._onward]
            if classes and generation <= GENERATIONS:
                self._onward += len(classes)
                yield classes, self._author_of(call, generation)

    def _author_of(self, call: Call, generation: int = 0) -> Author:
        name = f"{call.handler}.{call.number}"
        return Author(name, handler=call.handler, call=call.number, generation=generation)

    def pause(self, name: str) -> None:
        """Let the handler get nothing more."""
        docket = self.ledger.dockets[name]
        docket.is_paused = docket.was_paused = True
        self.engine.handlers[f"engine.{name}"].pause()

    def resume(self) -> None:
        """Let all that are paused get events again."""
        for name, docket in self.ledger.dockets.items():
            docket.is_paused = False
            self.engine.handlers[f"engine.{name}"].resume()

    # -- middleware and filters ------------------------------------------------------------------------------------

    async def _outermost(self, batch: Batch[Any], call_next: CallNext) -> None:
        """Writes down what comes in, and what goes out."""
        ledger = self.ledger
        # Workers are named for their handlers: "engine.h0", "engine.h0[1]".
        name = str(anyio.get_current_task().name).removeprefix("engine.").partition("[")[0]
        call = self._enter(name, batch, is_on_loop=True)
        call.passed = call.events
        token = under_way.set(call)
        error: BaseException | None = None
        try:
            await call_next(batch)
        except BaseException as exc:
            error = exc
            raise
        finally:
            under_way.reset(token)
            if isinstance(error, anyio.get_cancelled_exc_class()):
                self._cancel(ledger, call)
            else:
                self._end(ledger, call, error)


class UnexpectedEnd(Exception):
    """For what a call ends with that cancelled its own task."""


def _spoil(given: Events | Batch[Any]) -> None:
    """The list is the handler's own."""
    (given.events if isinstance(given, Batch) else given).clear()


def _raise(instruction: Instruction, events: Sequence[Event[Any]]) -> None:
    if instruction.ending is Ending.FAILS:
        raise ValueError
    if instruction.ending is Ending.PARTLY:
        errors = ValueError(), LookupError()
        raise BatchFailed({event: errors[number % 2] for number, event in enumerate(events[::2])})
    if instruction.ending is Ending.EXITS:
        raise SystemExit(3)
    if instruction.ending is Ending.IS_INTERRUPTED:
        raise KeyboardInterrupt

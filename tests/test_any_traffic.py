"""A whole engine in any traffic keeps the promises: Hypothesis chooses what happens, step by step, and in which order."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum

import anyio
import pytest
from anyio.lowlevel import checkpoint
from crew import Publisher
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import BACKENDS, machine_test, run_machine
from plans import Ending, How, Instruction, Setup, any_setup, instructions, things
from quiescence import Quiescence
from records import Fate, State, Thing, keep
from stepped_loop import NO_TIME, SteppedLoop
from traffic import GRACE_PERIOD, TITLES, Traffic

from event_flow import EngineState

# Virtual seconds after which everything that has a deadline is over.
ALL_TIMEOUTS = 100.0
# Real ones for a thread that was told to end.
THREAD_END = 5.0


class End(Enum):
    STOP = "engine.stop()"
    CANCEL = "the scope around run() is cancelled"
    NATIVE = "on asyncio the task that called run() is cancelled natively; on Trio the scope"


# How many passes of the loop a step waits for; None: until everything waits.
turns = st.sampled_from([None, None, None, 0, 1, 3])
somebody = st.integers(0, 3)
publishers = st.sampled_from(
    ["p0", "p1", "thread", *(f"{title}.{part}" for title in TITLES for part in ("work", "tick"))]
)


class AnyTraffic(RuleBasedStateMachine):
    """What happens to the engine, step by step. After a step that waits for everything the promises are judged."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.loop: SteppedLoop | None = None

    @initialize(
        seed=st.integers(0, 2**16),
        setup=any_setup,
        early=st.lists(things, max_size=3).map(tuple),
    )
    def begin(self, seed: int, setup: Setup, early: tuple[type[Thing], ...]) -> None:
        self.loop = SteppedLoop(self.backend, seed)
        self.traffic = Traffic(self.loop, setup)
        self.engine = self.traffic.engine
        self.tasks_before = self.loop.do(_number_of_tasks)
        self.threads_before = set(threading.enumerate())
        self.is_settled = True
        self.end: End | None = None
        self.was_hasty = False
        if early:
            self.traffic.tasks[0].asked.append((How.ONE_BY_ONE, early))
            self.traffic.tasks[0].set_off()
        self._run()

    def _run(self) -> None:
        assert self.loop is not None
        self.is_over = False
        self.raised: BaseException | None = None
        self.was_cancelled = False
        self.asked_at = self.ended_at = 0.0
        self.end = None
        self.was_hasty = False
        self.loop.start(self._host)
        self._let(None)

    async def _host(self) -> None:
        native = asyncio.current_task() if self.backend == "asyncio" else None
        with anyio.CancelScope() as self.scope:
            self.cancel_natively: Callable[[], object] = native.cancel if native else self.scope.cancel
            try:
                await self.engine.run()
            except BaseException as exc:
                if not isinstance(exc, anyio.get_cancelled_exc_class()):
                    self.raised = exc
                else:
                    self.was_cancelled = True
                    if native is None or self.scope.cancel_called:
                        raise
                    while native.cancelling():
                        native.uncancel()
            finally:
                self.ended_at = anyio.current_time()

    def _let(self, turns: int | None) -> None:
        """Let things happen."""
        assert self.loop is not None
        self.is_settled = turns is None
        if turns is None:
            self.loop.settle()
        else:
            self.loop.do(lambda: _take_turns(turns))

    # -- what happens ----------------------------------------------------------------------------------------------

    @rule(
        who=publishers,
        how=st.sampled_from(How),
        classes=st.lists(things, min_size=2, max_size=6).map(tuple),
        turns=turns,
    )
    def publish(self, who: str, how: How, classes: tuple[type[Thing], ...], turns: int | None) -> None:
        self._publish(who, how, classes, turns)

    def _publish(self, who: str, how: How, classes: tuple[type[Thing], ...], turns: int | None) -> None:
        publisher = self.traffic.publishers[who]
        publisher.asked.append((how, classes))
        publisher.set_off()
        self._let(turns)

    @rule(
        who=st.sampled_from(["p0", "p1", "thread"]),
        how=st.sampled_from([How.ONE_BY_ONE, How.TOGETHER]),
        event_class=things,
        times=st.integers(3, 12),
        turns=turns,
    )
    def flood(self, who: str, how: How, event_class: type[Thing], times: int, turns: int | None) -> None:
        """Publish one class until its lanes are full."""
        self._publish(who, how, (event_class,) * times, turns)

    @precondition(lambda self: self.traffic.letters)
    @rule(who=publishers, how=st.sampled_from(How), which=st.integers(0, 3), turns=turns)
    def redeliver(self, who: str, how: How, which: int, turns: int | None) -> None:
        """Somebody else than the handler that was told of a failure."""
        publisher: Publisher = self.traffic.publishers[who]
        if publisher.is_sync:  # there is no way to do that from a thread
            publisher = self.traffic.tasks[0]
        self._redeliver(publisher, how, which)
        self._let(turns)

    def _redeliver(self, publisher: Publisher, how: How, which: int) -> None:
        letters = self.traffic.letters
        publisher.asked.append((how, letters[-1 - which % len(letters)]))
        publisher.set_off()

    @rule(who=st.sampled_from(TITLES), turns=turns, often=st.integers(0, 2))
    def dismiss(self, who: str, turns: int | None, often: int) -> None:
        """A task of the engine returns, once it has published what it was told to."""
        if not often:
            self.traffic.workers[who].dismiss()
            self._let(turns)

    @rule(who=somebody, instruction=instructions)
    def instruct(self, who: int, instruction: Instruction) -> None:
        self.traffic.instruct(self._name(who), instruction)

    @rule(who=somebody, turns=turns)
    def open_gate(self, who: int, turns: int | None) -> None:
        assert self.loop is not None
        self.loop.do(lambda: self.traffic.open_gate(self._name(who)))
        self._let(turns)

    @rule()
    def open_gates(self) -> None:
        self._open_gates()

    def _open_gates(self) -> None:
        """So often that most of what waits behind the first calls gets through, too."""
        assert self.loop is not None
        for _ in range(5):
            for name in self.traffic.names:
                self.loop.do(lambda name=name: self.traffic.open_gate(name))  # type: ignore[misc]
            self._let(None)

    @rule(seconds=st.sampled_from([1.0, 1.0, 8.0]))
    def let_time_pass(self, seconds: float) -> None:
        assert self.loop is not None
        self.loop.let_pass(seconds)
        self._let(None)

    @precondition(lambda self: any(publisher.scope for publisher in self.traffic.tasks))
    @rule(data=st.data(), turns=turns)
    def cancel_publish(self, data: st.DataObject, turns: int | None) -> None:
        assert self.loop is not None
        publisher = data.draw(st.sampled_from([each for each in self.traffic.tasks if each.scope]))
        self.loop.do(lambda: _cancel(publisher))
        self._let(turns)

    @precondition(lambda self: self.end is None and self.is_settled)
    @rule()
    def calm_down(self) -> None:
        """*Promise 3*: once nobody waits for the test any more, everything comes to an end."""
        self._calm_down()
        numbers, ledger = self.engine.statistics(), self.traffic.ledger
        if self.engine.state is EngineState.RUNNING:
            waiting = [event for event in ledger.publications if event.data.fate is Fate.PENDING]
            waiting = [*waiting, *ledger.redeliveries.pending]
            keep(3, not waiting, f"nothing holds {waiting} up, and they wait for ever")
            keep(3, not numbers.queued and not numbers.running, f"it never becomes idle: {numbers}")

    def _calm_down(self) -> None:
        assert self.loop is not None
        for name in self.traffic.names:
            self.traffic.instruct(name, Instruction())
        for _ in range(3):  # a call that was told to wait may come once more, for events it got before
            for name in self.traffic.names:
                self.loop.do(lambda name=name: self.traffic.open_gate(name))  # type: ignore[misc]
            self.loop.let_pass(20)
        self._let(None)

    @precondition(lambda self: self.end is None)
    @rule(
        who=somebody, ending=st.sampled_from([Ending.EXITS, Ending.IS_INTERRUPTED]), often=st.integers(0, 4)
    )
    def let_it_exit(self, who: int, ending: Ending, often: int) -> None:
        if not often:  # most runs go on
            self.traffic.instruct(self._name(who), Instruction(ending=ending))

    @precondition(lambda self: self.end is None and not self.is_over)
    @rule(end=st.sampled_from(End), turns=turns, often=st.integers(0, 4))
    def ask_to_end(self, end: End, turns: int | None, often: int) -> None:
        if often:
            return  # most runs go on
        assert self.loop is not None
        self.end = end
        self._order(end)
        self._let(turns)

    @precondition(lambda self: self.end is End.STOP and self.engine.state is EngineState.DRAINING)
    @rule(turns=turns)
    def lose_patience(self, turns: int | None) -> None:
        """It is cancelled while it drains."""
        self.was_hasty = True
        self._order(End.CANCEL)
        self._let(turns)

    def _order(self, end: End) -> None:
        assert self.loop is not None
        order: dict[End, Callable[[], object]] = {
            End.STOP: self.engine.stop,
            End.CANCEL: self.scope.cancel,
            End.NATIVE: self.cancel_natively,
        }
        now = self.loop.do(lambda: _call(order[end]))
        if self.end is not None and not self.was_hasty:
            self.asked_at = now

    @precondition(lambda self: not self.is_over and (self.end or self.engine.state is EngineState.STOPPED))
    @rule()
    def see_it_end(self) -> None:
        """It has ended in time, whatever handlers do."""
        self._see_it_end()

    @precondition(lambda self: self.is_over)
    @rule()
    def run_again(self) -> None:
        self._run()

    # -- what must hold --------------------------------------------------------------------------------------------

    def _see_it_end(self) -> None:
        assert self.loop is not None
        self.loop.let_pass(ALL_TIMEOUTS)
        self._let(None)
        if self.engine.state is EngineState.NEW:
            return
        keep(7, self.engine.state is EngineState.STOPPED, f"it does not end: {self.engine.state}")
        ledger = self.traffic.ledger
        took = self.ended_at - self.asked_at
        if self.end is not None:
            keep(7, took <= GRACE_PERIOD + NO_TIME, f"its end took {took:g} s")
        # A call may end in the very moment in which the grace period does.
        is_drained = self.end is End.STOP and not self.was_hasty and took < GRACE_PERIOD
        ledger.judge_end(self.engine, is_drained=is_drained)
        self._judge_hooks()
        self._judge_what_was_raised()
        report = self.engine.report
        assert report is not None
        keep(7, not report.tasks_left, f"tasks left: {report.tasks_left}")
        unnamed = Counter(self.traffic.threads_at_gates) - Counter(report.threads_left)
        keep(7, not unnamed, f"{unnamed} were left in threads, and the report names {report.threads_left}")
        self._free_threads()
        tasks = self.loop.do(_number_of_tasks)
        keep(7, tasks == self.tasks_before, f"{tasks - self.tasks_before} tasks are left")
        self.traffic.open_ledger()
        self.end = None
        self.is_over = True

    def _judge_hooks(self) -> None:
        titles = ["engine", "outer", "inner"]
        expected = [*(f"{title} starts" for title in titles), *(f"{title} exits" for title in titles[::-1])]
        diary = self.traffic.diary
        keep(7, diary == expected, f"the hooks ran in this order: {diary}")

    def _judge_what_was_raised(self) -> None:
        ledger = self.traffic.ledger
        if not ledger.may_raise:
            right = self.raised is None and (
                self.was_hasty or self.was_cancelled == (self.end is not End.STOP)
            )
            keep(7, right, f"after {self.end} run() raised {self.raised!r}, and nothing had failed")
        elif not self._may_have_crossed():
            keep(7, self.raised is not None, f"run() did not raise what failed: {ledger.may_raise}")

    def _may_have_crossed(self) -> bool:
        """Whether only sync handlers failed: the engine may have heard of that too late."""
        ledger = self.traffic.ledger
        return all(each.split(":")[0] in ledger.sync for each in ledger.may_raise)

    def _free_threads(self) -> None:
        """What still runs in threads is at its end once the test lets it."""
        self._release()
        threads = [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("event-flow") and thread not in self.threads_before
        ]
        for thread in threads:
            thread.join(THREAD_END)
        left = [thread.name for thread in threads if thread.is_alive()]
        keep(7, not left, f"threads are left: {left}")

    def _release(self) -> None:
        """Whatever waits for the test waits no more."""
        for worker in self.traffic.workers.values():
            worker.dismiss()
        self._calm_down()

    @invariant()
    def promises(self) -> None:
        if self.loop is None:
            return
        self.loop.do(self.traffic.ledger.judge)
        if not self.is_settled:
            return
        ledger, state = self.traffic.ledger, self.engine.state
        is_hard = bool(ledger.may_raise) or self.was_hasty or self.end in (End.CANCEL, End.NATIVE)
        if is_hard and not self.is_over:
            keep(7, state is EngineState.STOPPED, f"it is {state.value} after {self.end}, {ledger.may_raise}")
        if state is EngineState.DRAINING:
            asked = [*ledger.publications.values(), *ledger.redeliveries.asked]
            outside = [each for each in asked if each.fate is Fate.PENDING and not each.author.is_inside]
            keep(7, not outside, f"it drains, and {outside} still wait from outside")
        if self.engine.state is EngineState.RUNNING and self.end is None:
            self.loop.do(Quiescence(self.traffic.ledger, self.engine).judge)
            calls = [self.traffic.ledger.current(name) for name in self.traffic.ledger.sync]
            in_threads = sum(call is not None and call.state is State.WAITS for call in calls)
            keep(2, in_threads <= self.traffic.setup.max_threads, f"{in_threads} sync handlers at once")

    def _name(self, who: int) -> str:
        names = self.traffic.names
        return names[who % len(names)]

    def teardown(self) -> None:
        """Everything comes to an end by itself, and then the engine is stopped with nothing left to do."""
        if self.loop is None:
            return
        try:
            if sys.exc_info()[0] is not None:
                # It has failed, and this must not hide how.
                self._release()
                return
            if self.end is None and self.engine.state is EngineState.RUNNING:
                self._let(None)
                if self.loop.random.random() < 0.5:
                    self.calm_down()
                self.end = End.STOP
                self._order(End.STOP)
                if self.traffic.letters:
                    self._redeliver(self.traffic.tasks[1], How.ONE_BY_ONE, 0)
                self._open_gates()
            if not self.is_over:
                self._see_it_end()
        finally:
            self.loop.close()


def _cancel(publisher: Publisher) -> None:
    if publisher.scope is not None:
        publisher.scope.cancel()


def _call(order: Callable[[], object]) -> float:
    """Call it, and tell when."""
    order()
    return anyio.current_time()


def _number_of_tasks() -> int:
    return len(anyio.get_running_tasks())


async def _take_turns(turns: int) -> None:
    for _ in range(turns):
        await checkpoint()


@machine_test
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_traffic_keeps_the_promises(backend: str) -> None:
    """*Design promises 1 to 5 and 7*."""
    run_machine(type("AnyTraffic", (AnyTraffic,), {"backend": backend}), steps=40)

"""A whole engine in any traffic keeps the promises: Hypothesis chooses what happens, step by step, and in which order."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from enum import Enum

import anyio
import pytest
from crew import TICK, Publisher
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import BACKENDS, machine_test, run_machine
from plans import Ending, How, Instruction, Setup, any_setup, instructions, things
from quiescence import Quiescence
from reckoning import Reckoning
from records import Thing, keep
from stage import End, Stage
from stepped_loop import NO_TIME, SteppedLoop
from traffic import GRACE_PERIOD, TITLES, Traffic

from event_flow import EngineState

# Virtual seconds after which everything that has a deadline is over.
ALL_TIMEOUTS = 100.0
# Real ones for a thread that was told to end.
THREAD_END = 5.0


class Farewell(Enum):
    """How an engine is stopped that still runs after the last step."""

    CALM = "when everything has come to an end by itself"
    AT_ONCE = "while handlers wait at their gates, which then open"
    IN_FULL_SWING = "while all publish besides"
    STUCK = "while handlers wait at gates that nobody opens"


# How many passes of the loop a step waits for; None: until everything waits.
turns = st.sampled_from([None, None, None, 0, 1, 3])
somebody = st.integers(0, 3)
publishers = st.sampled_from(
    ["p0", "p1", "thread", *(f"{title}.{part}" for title in TITLES for part in ("work", "tick"))]
)


class AnyTraffic(Stage, RuleBasedStateMachine):
    """What happens to the engine, step by step. After a step that waits for everything the promises are judged."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.loop: SteppedLoop | None = None

    @initialize(
        seed=st.integers(0, 2**16),
        setup=any_setup,
        early=st.lists(things, max_size=3).map(tuple),
        farewell=st.sampled_from([*Farewell, Farewell.IN_FULL_SWING]),
    )
    def begin(self, seed: int, setup: Setup, early: tuple[type[Thing], ...], farewell: Farewell) -> None:
        self.farewell = farewell
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

    @precondition(lambda self: self.can_be_paused)
    @rule(who=somebody, often=st.integers(0, 1), turns=turns)
    def pause(self, who: int, often: int, turns: int | None) -> None:
        assert self.loop is not None
        if not often:
            self.loop.do(lambda: self.traffic.pause(self._name(who)))
            self._let(turns)

    @precondition(lambda self: self.can_be_paused)
    @rule(turns=turns)
    def resume(self, turns: int | None) -> None:
        """All that are paused."""
        assert self.loop is not None
        self.loop.do(self.traffic.resume)
        self._let(turns)

    @rule(times=st.integers(1, 5))
    def open_gates(self, times: int) -> None:
        """So often that what waits behind the first calls gets through, too."""
        self._open_gates(times)

    @rule(seconds=st.sampled_from([1.0, 1.0, 8.0]))
    def let_time_pass(self, seconds: float) -> None:
        assert self.loop is not None
        self._let_pass(seconds)

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
            keep(3, not ledger.pending, f"nothing holds {ledger.pending} up, and they wait for ever")
            keep(3, not numbers.queued and not numbers.running, f"it never becomes idle: {numbers}")

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
        report = self.engine.report
        assert report is not None
        Reckoning(ledger, self.engine, report).judge(is_drained=is_drained)
        self._judge_hooks()
        self._judge_what_was_raised()
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
        return all(ledger.dockets[each.split(":")[0]].is_sync for each in ledger.may_raise)

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

    @invariant()
    def promises(self) -> None:
        if self.loop is None:
            return
        self.traffic.ledger.judge()  # the loop stands still
        if not self.is_settled:
            return
        ledger, state = self.traffic.ledger, self.engine.state
        is_hard = bool(ledger.may_raise) or self.was_hasty or self.end in (End.CANCEL, End.NATIVE)
        if is_hard and not self.is_over:
            keep(7, state is EngineState.STOPPED, f"it is {state.value} after {self.end}, {ledger.may_raise}")
        if state is EngineState.DRAINING:
            outside = [each for each in ledger.pending if not each.author.is_inside]
            keep(7, not outside, f"it drains, and {outside} still wait from outside")
            Quiescence(ledger, self.engine, self.loop.time()).judge_work()
        if state is EngineState.RUNNING and self.end is None:
            Quiescence(ledger, self.engine, self.loop.time()).judge()
            in_threads = ledger.in_threads
            keep(2, in_threads <= self.traffic.setup.max_threads, f"{in_threads} sync handlers at once")

    def _name(self, who: int) -> str:
        names = self.traffic.names
        return names[who % len(names)]

    def _say_farewell(self) -> None:
        """Stop an engine that runs, as was drawn at the beginning."""
        traffic = self.traffic
        if self.farewell is Farewell.CALM:
            self.calm_down()
        elif self.farewell is Farewell.IN_FULL_SWING:
            for _ in range(2):
                self._ask_everybody(3)
                self._open_gates(1)
            self._let_pass(TICK)
            self.promises()
        self.end = End.STOP
        self._order(End.STOP)
        if self.farewell is not Farewell.CALM:
            self._ask_everybody(1)
            if traffic.letters:
                self._redeliver(traffic.tasks[1], How.ONE_BY_ONE, 0)
        if self.farewell is not Farewell.STUCK:
            self._open_gates(5)

    def teardown(self) -> None:
        """Whatever runs is stopped, and is at its end when its time is over."""
        if self.loop is None:
            return
        try:
            if sys.exc_info()[0] is not None:
                # It has failed, and this must not hide how.
                self._release()
                return
            if self.end is None and self.engine.state is EngineState.RUNNING:
                self._let(None)
                self._say_farewell()
            if not self.is_over:
                self._see_it_end()
        finally:
            self.loop.close()


def _cancel(publisher: Publisher) -> None:
    if publisher.scope is not None:
        publisher.scope.cancel()


def _number_of_tasks() -> int:
    return len(anyio.get_running_tasks())


@machine_test
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_traffic_keeps_the_promises(backend: str) -> None:
    """*Design promises 1 to 5 and 7*."""
    run_machine(type("AnyTraffic", (AnyTraffic,), {"backend": backend}), steps=40)

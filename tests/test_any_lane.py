"""Lanes whose batches wait for company, a rate or another attempt do what their options promise, in any order of calls.

Without a loop: the lane is told the time, and the tests are its publishers and workers.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lane_model import Events, Expected, GateModel, KeyedModel, Line, Options, Returned, tolerance
from machines import machine_test, run_machine
from records import keep

from event_flow import Event, Rate
from event_flow.core.attempt import Attempt
from event_flow.core.gate import GatedLane
from event_flow.core.keyed import KeyedLane

KEYS = "abc"
# Half of the lanes have none, and what holds these up is something else.
RATES = [None, None, None, Rate(10, burst=4), Rate(1, burst=3), Rate(0.7, per=0.3, burst=1)]
WAITS = [0.0, 0.1, 0.3, 1.0, 5.0]


class Told(Event[tuple[str, int]]):
    """Its key, and a number of its own."""


class Clock:
    now = 0.0

    @classmethod
    def tell(cls) -> float:
        return cls.now


class Sleep:
    """What a worker waits for, until a moment. Takes the place of the lane's `change`."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.is_over = False

    def set(self) -> None:
        self.is_over = True


class Call:
    """A attempt at work."""

    def __init__(self, attempt: Attempt, events: Events, line: Line) -> None:
        self.attempt = attempt
        self.events = events
        self.line = line


options = st.builds(
    Options,
    queue_size=st.sampled_from([1, 2, 3, 5, 10, 20]),
    max_batch=st.sampled_from([1, 2, 3, 5]),
    overflow=st.sampled_from(["wait", "drop_oldest", "drop_newest", "error"]),
    linger=st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    rate=st.sampled_from(RATES),
    workers=st.integers(1, 3),
)


class AnyLane(RuleBasedStateMachine):
    """Everything that happens to a lane, and what must hold whatever its kind."""

    lane: GatedLane
    model: GateModel | KeyedModel

    def __init__(self) -> None:
        super().__init__()
        self.put_in: Events = []
        self.done = 0
        self.calls: list[Call] = []
        self.sleep: Sleep | None = None
        self.order = 0
        self.is_closed = False
        self.most_keys = 0

    def begin(self, options: Options, start: float) -> None:
        Clock.now = start
        self.options = options
        self.sizes: dict[str, Any] = {
            "queue_size": options.queue_size,
            "max_batch": options.max_batch,
            "overflow": options.overflow,
            "linger": options.linger,
            "rate": options.rate,
            "in_order": options.workers == 1,
        }

    # -- publishing --------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_closed)
    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4),
        is_quick=st.booleans(),
        goes_over=st.integers(0, 3),
    )
    def put(self, keys: list[str], is_quick: bool, goes_over: int) -> None:
        """Quick, on the fast path, as far as it is allowed: the lane is not told. Into one that is full and does not drop only
        now and then, as who closes a circle of waits does.
        """
        for key in keys:
            if is_quick and len(self.lane.open) < self.lane.allowance:
                self._append(key)
            elif self.model.room > 0 or self.options.drops or goes_over == 3:
                self._put(key)

    def _put(self, key: str) -> None:
        event = self._event(key)
        dropped = len(self.model.dropped)
        self.model.put(event, Clock.now)
        told = self.lane.put(event)
        if self.lane.overflow == "latest":
            assert told >= 0 or len(self.model.dropped) > dropped  # what is replaced is not told of
        elif self.options.drops:
            assert (told < 0) == (len(self.model.dropped) > dropped)
        else:
            assert told == self.model.room

    def _append(self, key: str) -> None:
        event = self._event(key)
        self.model.put(event, Clock.now)
        self.lane.open.append(event)
        self.what_is_due_is_what_the_options_say()

    def _event(self, key: str) -> Event[Any]:
        event = Told((key, len(self.put_in)))
        self.put_in.append(event)
        return event

    @precondition(lambda self: not self.is_closed and self.options.overflow == "wait")
    @rule(comes=st.booleans())
    def park(self, comes: bool) -> None:
        """A publisher begins to wait, or waits no more, as `Room` has it. It may have been moved here from another lane."""
        if self.model.waiting:
            self.model.waiting -= 1
            self.lane.waiters.popitem()
            self.lane.renew()
        elif comes:
            self.model.waiting += 1
            self.lane.waiters[object()] = None  # type: ignore[index]
            self.lane.allowance = 0
            self.lane.stir()

    # -- handling ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self._is_free)
    @rule(waits=st.booleans())
    def take(self, waits: bool) -> None:
        """A worker takes what is due, or waits until it is, whatever holds it up."""
        if waits and self.model.is_paused:
            self._resume()
        if waits and self._due() < math.inf:
            self._pass_time_until_due()
        if self._due() <= Clock.now:
            self._take()

    @property
    def _is_free(self) -> bool:
        """A worker is."""
        return len(self.calls) < self.options.workers and not self.is_closed

    def _due(self) -> float:
        """What the lane says, which has to be what the model does."""
        now = Clock.now
        self.model.notice(now)
        due = self.lane.due(now)
        expected = self.model.dues(now)
        assert any(
            due == each
            or max(due, each) <= now
            or (
                min(due, each) > -math.inf
                and abs(max(due, now) - max(each, now)) <= tolerance(due, each, now)
            )
            for each in expected
        ), f"due at {due}, and should be at {expected}; it is {now}"
        return due

    def _take(self) -> None:
        self.sleep = None
        now = Clock.now
        expected = self.model.expected(now)
        attempt = self.lane.take_due(now)
        keep(
            1,
            attempt.key in [each.line.key for each in expected],
            f"{attempt.key} is not the first to be ready",
        )
        (chosen,) = (each for each in expected if each.line.key == attempt.key)
        events = self._taken(chosen, attempt)
        keep(1, _same(attempt.events, events), f"got {attempt.events} instead of {events}")
        self.model.rate.taken.append((now, len(events)))
        self.calls.append(Call(attempt, events, chosen.line))
        self.model.begin(chosen.line)

    def _taken(self, chosen: Expected, attempt: Attempt) -> Events:
        if chosen.returned is not None:
            assert attempt is chosen.returned.attempt
            chosen.line.returned.remove(chosen.returned)
            return chosen.returned.events
        keep(2, len(attempt) in chosen.lengths, f"{len(attempt)} events, and may be {chosen.lengths}")
        assert len(attempt) > 0
        events, closed_by = self.model.take_untried(chosen.line, len(attempt))
        assert attempt.closed_by == closed_by
        assert (attempt.number, attempt.due) == (1, -math.inf)
        return events

    @precondition(lambda self: self.calls)
    @rule(
        number=st.integers(0, 2),
        failed=st.integers(1, 4),
        fate=st.sampled_from(["done", "again", "again", "alone", "anew"]),
        wait=st.sampled_from(WAITS),
    )
    def end(self, number: int, failed: int, fate: str, wait: float) -> None:
        """A call ends: it is done, or the last of its events are to be tried again."""
        call = self.calls.pop(number % len(self.calls))
        failed = 0 if fate == "done" else min(failed, len(call.events))
        events = call.events[len(call.events) - failed :]
        self.done += len(call.events) - failed
        if events and fate == "alone":
            for event in reversed(events):
                self._put_back(call, call.attempt.alone(event))
        elif events and fate == "anew":
            self._pause()
            self._put_back(call, call.attempt.anew(events))
        elif events:
            self._put_back(call, call.attempt.again(events, due=Clock.now + wait))
        self._release(call)

    def _put_back(self, call: Call, attempt: Attempt) -> None:
        self.order += 1
        if not self.is_closed:
            call.line.returned.append(Returned(attempt, attempt.events[:], self.order))
        self.lane.put_back(attempt)

    def _release(self, call: Call) -> None:
        self.model.release(call.line)
        self.lane.running -= len(call.attempt)
        self.lane.handled = self.done
        self.lane.release(call.attempt)

    # -- the time ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from(WAITS[1:]) | st.none())
    def pass_time(self, seconds: float | None) -> None:
        """So many seconds, or until some roundings before something is due."""
        if seconds is not None:
            Clock.now += seconds
        elif not self.is_closed:
            due = self._due()
            if Clock.now < due < math.inf:
                Clock.now = max(Clock.now, due - tolerance(due))
                assert self._due() > Clock.now

    def _pass_time_until_due(self) -> None:
        """Until the moment that it says, not a rounding later. A worker wakes up at most twice: where its key waited for
        something, and its rate lets it wait for longer.
        """
        for _ in range(2):
            Clock.now = max(Clock.now, self._due())
        assert self._due() <= Clock.now

    # -- from outside ------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["pause", "pause", "resume", "resume", "drain", "close"]),
        often=st.integers(1, 6),
    )
    def control(self, what: str, often: int) -> None:
        """The gravest of them are rarer: little happens afterwards."""
        if what == "pause":
            self._pause()
        elif what == "resume":
            self._resume()
        elif often == 6 and what == "drain":
            self.model.is_draining = True
            self.lane.guard()
            self.lane.drain()
        elif often == 6 and not self.is_closed:
            self._close()

    def _pause(self) -> None:
        self.model.is_paused = True
        self.lane.pause()

    def _resume(self) -> None:
        self.model.is_paused = False
        self.lane.resume()

    def _close(self) -> None:
        self.is_closed = True
        self.lane.close()
        for line in self.model.lines():
            line.batches.clear()
            line.returned.clear()
        keep(7, not self.lane.queued, f"{self.lane} is closed")

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def numbers_are_those_of_the_model(self) -> None:
        lane, model = self.lane, self.model
        queued = 0 if self.is_closed else len(model.queued)
        running = sum(len(call.events) for call in self.calls)
        assert lane.dropped == len(model.dropped)
        assert (lane.queued, lane.running) == (queued, running)
        keep(4, lane.accepted == len(self.put_in), f"{lane} was handed {len(self.put_in)} events")
        if not self.is_closed:
            assert lane.room == model.room
            known = [*model.queued, *model.dropped, *(event for call in self.calls for event in call.events)]
            keep(4, len(known) + self.done == len(self.put_in), "events are lost or twice")
            keep(4, len({id(event) for event in known}) == len(known), "an event is in two places")

    @invariant()
    def what_is_due_is_what_the_options_say(self) -> None:
        if not self.is_closed:
            self._due()

    @invariant()
    def a_worker_that_sleeps_is_woken_in_time(self) -> None:
        """One that is free has looked after each step, and sleeps until what it saw is due, or until it is told."""
        if not self._is_free:
            return
        sleep, due = self.sleep, self._due()
        if sleep is not None and not sleep.is_over and sleep.until > Clock.now:
            keep(3, due >= sleep.until, f"something is due at {due}, the worker sleeps until {sleep.until}")
        elif due > Clock.now:
            self.sleep = Sleep(due)
            self.lane.change = self.sleep  # type: ignore[assignment]

    @invariant()
    def the_allowance_promises_no_more_than_there_is(self) -> None:
        lane = self.lane
        more = lane.allowance - len(lane.open)
        if more > 0:
            keep(2, more <= self.model.room, f"{lane} allows {more} more events")
            keep(2, lane.allowance <= lane.max_batch, f"{lane} allows {lane.allowance} in a batch")
            assert lane.open
            assert not self.model.waiting
            assert not self.model.is_draining

    @invariant()
    def nothing_is_kept_of_what_is_over(self) -> None:
        lane = self.lane
        if isinstance(lane, KeyedLane):
            self.most_keys = max(self.most_keys, len(lane._keys))
            assert len(lane._timers) <= 2 * self.most_keys + 17
            if self.is_closed or not (lane.queued or self.calls or self.model.is_paused):
                kept = [lane._keys, lane._timers, lane._ready, lane._lingering, lane._arrivals]
                keep(2, not any(kept), f"nothing is queued, and there are {kept}")

    def teardown(self) -> None:
        """Workers go on until nothing is left: everything that came was handled, or dropped."""
        try:
            if not self.is_closed:
                self._go_on()
                keep(4, self.done + len(self.model.dropped) == len(self.put_in), "not all was handled")
                self.nothing_is_kept_of_what_is_over()
        finally:
            self.lane.close()

    def _go_on(self) -> None:
        self._resume()
        while self.lane.queued or self.calls:
            for call in self.calls:
                self.done += len(call.events)
                self._release(call)
            self.calls.clear()
            due = self._due()
            if self.lane.queued:
                keep(3, due < math.inf, f"{self.lane} is never due")
                self._pass_time_until_due()
                self._take()
            self.numbers_are_those_of_the_model()


class AnyGate(AnyLane):
    """Without keys: everything in one line."""

    @initialize(options=options, start=st.sampled_from([0.0, 1e6 / 3, 2.0**33 + 0.1]))
    def build(self, options: Options, start: float) -> None:
        self.begin(options, start)
        self.model = GateModel(options)
        self.lane = GatedLane("App.handle", "App", clock=Clock.tell, **self.sizes)
        self.lane.guarded = False


class AnyKeyed(AnyLane):
    """With a line for each key."""

    @initialize(
        options=options,
        start=st.sampled_from([0.0, 1e6 / 3, 2.0**33 + 0.1]),
        is_latest=st.booleans(),
    )
    def build(self, options: Options, start: float, is_latest: bool) -> None:
        if is_latest:
            options.overflow = "latest"
        self.begin(options, start)
        self.model = KeyedModel(options)
        self.lane = KeyedLane(
            "App.handle", "App", key=lambda event: event.data[0], clock=Clock.tell, **self.sizes
        )
        self.lane.guarded = False

    @invariant()
    def equal_keys_are_never_at_work_at_once(self) -> None:
        keys = [call.attempt.key for call in self.calls]
        keep(1, len(set(keys)) == len(keys), f"at work are {keys}")
        for call in self.calls:
            keep(
                1,
                all(event.data[0] == call.attempt.key for event in call.events),
                f"{call.events} in one batch",
            )


def _same(some: Events, others: Events) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


@machine_test
@pytest.mark.parametrize("machine", [AnyGate, AnyKeyed])
def test_any_order_of_calls_keeps_what_the_options_promise(machine: type[AnyLane]) -> None:
    """*Design promises 1 to 4*."""
    run_machine(machine, steps=60)

"""Lanes that hand out attempts, told the time: what is due when, what closes a batch, what comes first."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any, TypeVar

import pytest

from event_flow import Event, Rate
from event_flow.core import keyed
from event_flow.core.attempt import Attempt
from event_flow.core.gate import GatedLane
from event_flow.core.keyed import KeyedLane

LaneT = TypeVar("LaneT", bound=GatedLane)


class A(Event[Any]):
    pass


class Time:
    """The time that lanes are told, and the lanes that are to be closed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lanes: list[GatedLane] = []

    def gated(self, *, queue_size: int = 100, max_batch: int = 100, **options: Any) -> GatedLane:
        lane = GatedLane(
            "App.on_a", "App", queue_size=queue_size, max_batch=max_batch, clock=self.tell, **options
        )
        return self._used(lane)

    def keyed(self, *, queue_size: int = 100, max_batch: int = 100, **options: Any) -> KeyedLane:
        """The key of an event is its data, or the first of several."""
        options.setdefault("key", lambda event: event.data[0])
        lane = KeyedLane(
            "App.on_a", "App", queue_size=queue_size, max_batch=max_batch, clock=self.tell, **options
        )
        return self._used(lane)

    def tell(self) -> float:
        return self.now

    def _used(self, lane: LaneT) -> LaneT:
        lane.guarded = False
        self.lanes.append(lane)
        return lane

    def take(self, lane: GatedLane) -> Attempt:
        assert lane.due(self.now) <= self.now
        return lane.take_due(self.now)

    def end(self, lane: GatedLane, attempt: Attempt) -> None:
        lane.running -= len(attempt)
        lane.release(attempt)


@pytest.fixture
def time() -> Iterator[Time]:
    told = Time()
    yield told
    for lane in told.lanes:
        lane.close()


def put(lane: GatedLane, *data: Any) -> None:
    for each in data:
        lane.put(A(each))


def data(attempt: Attempt) -> list[Any]:
    return [event.data for event in attempt.events]


def test_a_retry_that_is_due_waits_for_its_rate_and_nothing_goes_past_it(time: Time) -> None:
    """*Regression*: with several workers later events took each place that was free, and three at once there never were."""
    lane = time.gated(rate=Rate(1, burst=3), in_order=False)
    put(lane, *range(5))
    first = time.take(lane)
    assert data(first) == [0, 1, 2]
    time.end(lane, first)
    lane.put_back(first.again(first.events, due=time.now))
    time.now += 1
    assert lane.due(time.now) == 103
    time.now += 2
    assert data(time.take(lane)) == [0, 1, 2]
    time.now += 1
    assert data(time.take(lane)) == [3]


def test_a_retry_that_is_not_due_holds_nothing_back_where_several_are_at_work(time: Time) -> None:
    lane = time.gated(in_order=False)
    put(lane, 0)
    first = time.take(lane)
    lane.put_back(first.again(first.events, due=time.now + 1))
    put(lane, 1)
    assert data(time.take(lane)) == [1]
    assert lane.due(time.now) == time.now + 1


def test_what_one_worker_put_back_stays_in_order_whenever_it_is_due(time: Time) -> None:
    """*Regression*: what was to be tried at once, or when the handler is resumed, came before what was put back before it."""
    lane = time.gated()
    put(lane, 0, 1)
    first = time.take(lane)
    time.end(lane, first)
    lane.put_back(first.anew(first.events[1:]))
    lane.put_back(first.again(first.events[:1], due=time.now + 1))
    assert lane.due(time.now) == time.now + 1
    time.now += 1
    assert [data(time.take(lane)), data(time.take(lane))] == [[0], [1]]


def test_what_a_key_put_back_stays_in_order_whenever_it_is_due(time: Time) -> None:
    """*Regression*: as for a lane with one worker."""
    lane = time.keyed()
    put(lane, "a0", "a1")
    first = time.take(lane)
    lane.put_back(first.anew(first.events[1:]))
    lane.put_back(first.again(first.events[:1], due=time.now + 1))
    time.end(lane, first)
    assert lane.due(time.now) == time.now + 1
    time.now += 1
    for expected in (["a0"], ["a1"]):
        following = time.take(lane)
        assert data(following) == expected
        time.end(lane, following)


@pytest.mark.parametrize("pressed_by", ["the last place", "a publisher that waits"])
def test_a_full_lane_closes_the_batches_of_all_keys(time: Time, pressed_by: str) -> None:
    """*Regression*: once the first of them was taken there was room, and the others were told that they had lingered."""
    lane = time.keyed(queue_size=3 if pressed_by == "the last place" else 9, linger=5.0)
    put(lane, "a", "b", "c")
    if pressed_by == "a publisher that waits":
        lane.waiters[object()] = None  # type: ignore[index]
    first = time.take(lane)
    lane.waiters.clear()
    assert [first.closed_by, *(time.take(lane).closed_by for _ in range(2))] == ["size"] * 3


def test_a_key_that_cannot_be_compared_is_a_failure_of_the_handler(time: Time) -> None:
    """*Regression*: who published got the error, with the event in some of its lanes (*design promise 5*)."""

    class Broken:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError("no")

    lane = time.keyed(key=lambda _: Broken())
    put(lane, 0, 1)
    assert data(time.take(lane)) == [0]
    second = time.take(lane)
    assert isinstance(second.key, keyed.KeyFailure)
    assert isinstance(second.key.error, ValueError)


def test_a_key_that_changes_its_hash_holds_nothing_up(time: Time) -> None:
    """*Regression*: what else was queued for it waited for ever."""

    class Moving:
        value = 0

        def __hash__(self) -> int:
            return self.value

        def __eq__(self, other: object) -> bool:
            return self is other

    key = Moving()
    lane = time.keyed(key=lambda _: key, max_batch=1)
    put(lane, 0, 1)
    for expected in (0, 1):
        attempt = time.take(lane)
        assert data(attempt) == [expected]
        key.value += 1
        time.end(lane, attempt)
    assert lane.due(time.now) == math.inf


def test_timers_that_count_no_more_do_not_pile_up(time: Time) -> None:
    """A key that is filled again and again, below another one's long wait."""
    lane = time.keyed(max_batch=2, linger=10.0)
    put(lane, "zz")
    time.now += 10
    waiting = time.take(lane)
    lane.put_back(waiting.again(waiting.events, due=time.now + 1e9))
    time.end(lane, waiting)
    for _ in range(1000):
        put(lane, "a1", "a2")
        time.end(lane, time.take(lane))
        assert len(lane._timers) <= 2 * 2 + 17


def test_a_key_that_is_quiet_costs_nothing(time: Time) -> None:
    lane = time.keyed(linger=1.0, max_batch=2, overflow="drop_oldest", queue_size=10)
    keys: list[Hashable] = [str(number) for number in range(1000)]
    for key in keys:
        lane.put(A((key,)))
    assert lane.dropped == 990
    assert len(lane._keys) == len(lane._arrivals) == 10
    for _ in range(10):
        time.end(lane, time.take(lane))
    assert lane.due(time.now) == math.inf
    for container in (lane._keys, lane._timers, lane._ready, lane._lingering, lane._arrivals):
        assert not container


@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_part_that_is_put_back_again_stays_before_the_parts_after_it(time: Time, is_keyed: bool) -> None:
    """*Regression*: tried again, then each event alone, then kept by a pause, the first one came last."""
    lane = time.keyed() if is_keyed else time.gated()
    put(lane, "a0", "a1", "a2")
    first = time.take(lane)
    lane.put_back(first.again(first.events))
    time.end(lane, first)
    second = time.take(lane)
    for event in reversed(second.events):
        lane.put_back(second.alone(event))
    time.end(lane, second)
    third = time.take(lane)
    lane.put_back(third.anew(third.events))
    time.end(lane, third)
    for expected in ("a0", "a1", "a2"):
        following = time.take(lane)
        assert data(following) == [expected]
        time.end(lane, following)


def test_what_is_put_back_takes_its_places_from_the_allowance(time: Time) -> None:
    lane = time.gated(queue_size=3)
    put(lane, 0, 1, 2)
    first = time.take(lane)
    put(lane, 3)
    assert lane.allowance == 3
    lane.put_back(first.again(first.events))
    assert (lane.allowance, lane.room) == (0, -1)


def test_what_fills_a_burst_is_looked_at(time: Time) -> None:
    """It ends the wait for company."""
    lane = time.gated(linger=1.0, rate=Rate(1, burst=3))
    put(lane, 0)
    assert lane.allowance == 2
    put(lane, 1, 2)
    assert lane.due(time.now) == time.now

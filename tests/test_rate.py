"""How many events may go into a handler, and when: decided without a loop, told the time."""

from __future__ import annotations

import math
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_flow import OptionError, Rate
from event_flow.core.rate import Meter


def test_a_rate_keeps_what_it_was_given_as_floats_of_seconds() -> None:
    rate = Rate(100, per=timedelta(minutes=1), burst=20)
    assert (rate.limit, rate.per, rate.burst) == (100.0, 60.0, 20)
    assert type(rate.limit) is type(rate.per) is float
    assert repr(rate) == "Rate(100.0, per=60.0, burst=20)"
    assert (Rate(0.5).limit, Rate(0.5).per, Rate(0.5).burst) == (0.5, 1.0, 1)
    assert not hasattr(rate, "__dict__")


@pytest.mark.parametrize("value", [0, -1, 1e-10, 1e10, 10**400, math.nan, math.inf, True, "9", None, 1j])
def test_a_wrong_limit_is_an_error_that_says_what_is_right(value: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^Rate: limit=.*: a number from 1e-09 to 1e\+09 is allowed$"
    ) as caught:
        Rate(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "value", [0, -1, 1e-10, 1e10, 10**400, math.nan, math.inf, True, "9", None, timedelta(0), timedelta(-1)]
)
def test_a_wrong_time_is_an_error_that_says_what_is_right(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^Rate: per=.* allowed") as caught:
        Rate(1, per=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 1.0, math.inf, True, "9", None])
def test_a_wrong_burst_is_an_error_that_says_what_is_right(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^Rate: burst=.*: a whole number of at least 1 is allowed$"):
        Rate(1, burst=value)


def test_time_and_burst_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Rate(1, 60)  # type: ignore[call-arg]


def test_a_burst_goes_in_at_once_and_then_one_event_each_interval() -> None:
    meter = Meter(Rate(10, burst=3))
    assert (meter.available(100.0), meter.ready_at(100.0, 3)) == (3, 100.0)
    meter.take(100.0, 3)
    assert meter.available(100.0) == meter.available(100.05) == 0
    assert meter.ready_at(100.0) == meter.ready_at(100.05) == pytest.approx(100.1)
    assert [meter.available(100.0 + seconds) for seconds in (0.11, 0.21, 0.31, 1000.0)] == [1, 2, 3, 3]
    assert meter.ready_at(100.05, 3) == pytest.approx(100.3)


def test_idle_time_is_not_saved_up_beyond_the_burst() -> None:
    meter = Meter(Rate(1, burst=2))
    meter.take(0.0, 2)
    meter.take(3600.0, 2)
    assert (meter.available(3600.5), meter.ready_at(3600.5, 2)) == (0, 3602.0)


def test_a_part_of_an_interval_that_has_gone_by_is_kept() -> None:
    meter = Meter(Rate(1, burst=2))
    meter.take(0.0, 2)
    meter.take(1.75, 1)
    assert meter.ready_at(1.75) == 2.0


def test_whoever_is_late_makes_up_for_it_with_a_larger_burst_only() -> None:
    for burst, then in ((1, 2.5), (2, 2.0)):
        meter = Meter(Rate(1, burst=burst))
        meter.take(0.0, burst)
        meter.take(1.5, 1)
        assert meter.ready_at(1.5) == then


def test_two_meters_of_one_rate_know_nothing_of_each_other() -> None:
    rate = Rate(1)
    one, other = Meter(rate), Meter(rate)
    one.take(0.0, 1)
    assert (one.available(0.0), other.available(0.0)) == (0, 1)


def test_a_clock_may_begin_below_zero_or_anywhere() -> None:
    for begin in (-1e9, -0.5, 0.0, 1e9):
        meter = Meter(Rate(1, burst=2))
        assert meter.available(begin) == 2
        meter.take(begin, 2)
        assert (meter.available(begin + 0.25), meter.ready_at(begin, 2)) == (0, begin + 2)


@pytest.mark.parametrize("events", [0, -1, 4])
def test_what_never_goes_in_at_once_is_an_error(events: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 3 do"):
        Meter(Rate(1, burst=3)).ready_at(0.0, events)


def test_more_than_may_go_in_cannot_be_taken() -> None:
    meter = Meter(Rate(1, burst=3))
    meter.take(0.0, 2)
    for events in (2, -1):
        with pytest.raises(ValueError, match=f"{events} events go in where 1 may"):
            meter.take(0.0, events)
    assert meter.available(0.0) == 1


# From one event in a day to a million a second, on clocks that have run from not at all to thirty years.
RATES = st.builds(
    Rate,
    st.one_of(st.integers(1, 10**6), st.floats(1e-3, 1e6)),
    per=st.one_of(st.sampled_from([1, 60, 3600, 86400]), st.floats(1, 1e5)),
    burst=st.one_of(st.integers(1, 5), st.integers(1, 10_000)),
)
BEGINNINGS = st.one_of(st.just(0.0), st.floats(0, 1e9), st.floats(1e9 - 10, 1e9))


def at_most(rate: Rate, seconds: Fraction) -> Fraction:
    """What may go in during a window of that length, exactly, but for one part in 2**50, for the floats of the meter."""
    return rate.burst + Fraction(rate.limit) * seconds / Fraction(rate.per) * (1 + Fraction(1, 2**50))


@given(
    RATES,
    BEGINNINGS,
    st.lists(
        st.tuples(
            # How long nothing is done: until the moment, or for so many intervals, or with so many seconds.
            st.one_of(st.just("ready"), st.floats(0, 3), st.floats(0, 3).map(lambda seconds: -seconds)),
            st.floats(0, 1),
        ),
        max_size=60,
    ),
)
def test_in_no_window_more_go_in_than_the_rate_says(
    rate: Rate, begin: float, steps: list[tuple[float | str, float]]
) -> None:
    meter, now = Meter(rate), begin
    taken = list[tuple[Fraction, int]]()
    for wait, part in steps:
        if wait == "ready":
            now = meter.ready_at(now, 1 + round(part * (rate.burst - 1)))
        else:
            now += -float(wait) if float(wait) < 0 else float(wait) * rate.per / rate.limit
        may = meter.available(now)
        assert 0 <= may <= rate.burst
        events = math.ceil(part * may)
        meter.take(now, events)
        assert meter.available(now) == may - events
        taken.append((Fraction(now), events))
    # Whoever takes at the very moment is on time, so a window may be short by the rounding of that.
    tick = Fraction(math.ulp(now))
    for first in range(len(taken)):
        total = 0
        for moment, events in taken[first:]:
            total += events
            assert total <= at_most(rate, moment - taken[first][0] + tick)


@given(RATES, BEGINNINGS, st.integers(1, 60), st.data())
def test_who_takes_as_soon_as_it_may_reaches_the_rate(
    rate: Rate, begin: float, rounds: int, data: st.DataObject
) -> None:
    """It does not drift: what is rounded is not added up."""
    meter, now, taken = Meter(rate), begin, 0
    interval = Fraction(rate.per) / Fraction(rate.limit)
    size = data.draw(st.integers(1, min(rate.burst, 1000)))
    meter.take(now, rate.burst)
    for _ in range(rounds):
        now = meter.ready_at(now, size)
        meter.take(now, size)
        taken += size
        late = Fraction(now) - Fraction(begin) - taken * interval
        rounded = Fraction(math.ulp(now)) + taken * interval / 2**50
        assert -rounded <= late <= min(interval, rounded)


@given(
    RATES, BEGINNINGS, st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10_000)), min_size=1, max_size=30)
)
def test_at_the_moment_that_was_told_so_many_may_go_in(
    rate: Rate, begin: float, steps: list[tuple[float, int]]
) -> None:
    """So that nobody who waits for it wakes up and has to wait for 0 s."""
    meter, now = Meter(rate), begin
    for intervals, wanted in steps:
        now += intervals * rate.per / rate.limit
        meter.take(now, meter.available(now))
        events = min(wanted, rate.burst)
        moment = meter.ready_at(now, events)
        assert moment > now
        assert meter.available(moment) >= events
        assert meter.ready_at(moment, events) == moment
        # Nor is it later than it must be: a tick and a few roundings before, fewer may.
        early = moment - 8 * max(math.ulp(moment), math.ulp(events * rate.per / rate.limit))
        assert early <= now or meter.available(early) < events


def test_a_year_at_a_million_events_a_second_ends_on_time() -> None:
    """A burst at a time: every sum that were carried on from one to the next would be off by hours."""
    rate = Rate(1e6, burst=10**9)
    meter, now, year = Meter(rate), 1e9, 365 * 86400
    meter.take(now, rate.burst)
    for _ in range(year // 1000):
        now = meter.ready_at(now, rate.burst)
        meter.take(now, rate.burst)
    assert now == pytest.approx(1e9 + year, abs=1e-5)

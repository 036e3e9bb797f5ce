"""Which failures are tried again, how often and when: decided without a loop."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_flow import OptionError, Retry


def test_the_defaults() -> None:
    retry = Retry(on=OSError)
    assert (retry.on, retry.attempts, retry.within, retry.seed) == (OSError, 5, 45.0, None)
    assert (retry.wait_initial, retry.wait_max, retry.wait_jitter) == (0.1, 5.0, 1.0)
    assert not hasattr(retry, "__dict__")


def test_times_are_numbers_or_timedeltas_and_none_is_no_limit() -> None:
    second = timedelta(seconds=1)
    retry = Retry(
        on=OSError, attempts=None, wait_initial=second, wait_max=second, wait_jitter=second, within=second
    )
    assert (retry.wait_initial, retry.wait_max, retry.wait_jitter, retry.within) == (1.0, 1.0, 1.0, 1.0)
    assert retry.attempts is None
    assert Retry(on=OSError, within=None).within is None
    assert repr(retry) == (
        "Retry(on=<class 'OSError'>, attempts=None, wait_initial=1.0, wait_max=1.0, wait_jitter=1.0, within=1.0, seed=None)"
    )


def test_on_has_no_default_and_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="on"):
        Retry()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Retry(OSError)  # type: ignore[call-arg]


class AsyncAnswer:
    async def __call__(self, error: Exception) -> bool:
        return True


async def is_async(error: Exception) -> bool:
    return True


@pytest.mark.parametrize(
    "on",
    [None, "OSError", 5, (), [OSError], OSError(), KeyboardInterrupt, BaseException, BaseExceptionGroup, int,
     (OSError, KeyboardInterrupt), (OSError, "x"), (OSError, (ValueError,)), is_async, functools.partial(is_async),
     AsyncAnswer()],
)  # fmt: skip
def test_a_wrong_on_is_an_error_that_says_what_is_right(on: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^Retry: on=.*an Exception class, a tuple of some, or a sync fun"
    ) as caught:
        Retry(on=on)
    assert repr(on) in str(caught.value)


@pytest.mark.parametrize(
    ("option", "values", "right"),
    [
        ("attempts", [0, -1, 1.0, True, "5", math.inf], "a whole number of at least 1 is allowed"),
        ("seed", [1.0, True, "5", b"5"], "a whole number or None is allowed"),
        ("within", [0, -1, True, math.nan, math.inf, "5", timedelta(0)], "seconds above 0 are allowed"),
        *(
            (
                name,
                [-1, True, math.nan, math.inf, "5", None, timedelta(-1)],
                "seconds of at least 0 are allowed",
            )
            for name in ("wait_initial", "wait_max", "wait_jitter")
        ),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(option: str, values: list[Any], right: str) -> None:
    for value in values:
        with pytest.raises(OptionError, match=rf"^Retry: {option}=.*{right}") as caught:
            Retry(on=OSError, **{option: value})
        assert repr(value) in str(caught.value)


class Unavailable(ExceptionGroup[OSError]):
    pass


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(), True),
        (ConnectionError(), True),
        (KeyError(), True),
        (LookupError(), False),
        (ExceptionGroup("", [OSError(), KeyError()]), True),
        (ExceptionGroup("", [OSError(), ValueError()]), False),
        (ExceptionGroup("", [ValueError(), OSError()]), False),
        (ExceptionGroup("", [ExceptionGroup("", [OSError()]), KeyError()]), True),
        (ExceptionGroup("", [OSError(), ExceptionGroup("", [KeyError(), ValueError()])]), False),
    ],
)
def test_classes_are_compared_and_a_group_counts_if_all_in_it_do(error: Exception, wanted: bool) -> None:
    assert Retry(on=(OSError, KeyError)).wants(error) is wanted


def test_a_group_counts_if_its_own_class_is_named_whatever_is_in_it() -> None:
    retry = Retry(on=(Unavailable, KeyError))
    assert retry.wants(Unavailable("", [OSError()]))
    assert retry.wants(ExceptionGroup("", [Unavailable("", [OSError()]), KeyError()]))
    assert not retry.wants(ExceptionGroup("", [OSError()]))
    assert Retry(on=Exception).wants(ExceptionGroup("", [OSError()]))


def test_a_group_nested_as_deeply_as_one_likes_is_looked_through() -> None:
    deep: Exception = OSError()
    for _ in range(20_000):
        deep = ExceptionGroup("", [deep])
    assert Retry(on=OSError).wants(deep)
    assert not Retry(on=KeyError).wants(deep)


def test_a_function_is_asked_about_the_error_itself_groups_too() -> None:
    asked = list[Exception]()

    def on(error: Exception) -> bool:
        asked.append(error)
        return len(asked) == 1

    retry, group = Retry(on=on), ExceptionGroup("", [OSError(), KeyError()])
    assert [retry.wants(group), retry.wants(group)] == [True, False]
    assert asked == [group, group]


def test_what_a_function_raises_is_raised() -> None:
    def on(error: Exception) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Retry(on=on).wants(OSError())


def is_async_after_all(error: Exception) -> Any:
    return is_async(error)


@pytest.mark.parametrize("on", [lambda error: None, lambda error: 1, is_async_after_all])
def test_a_function_that_does_not_answer_with_a_bool_is_an_error(on: Callable[[Exception], bool]) -> None:
    """A coroutine is true, and nobody would have awaited it: every failure would be tried again."""
    with pytest.raises(TypeError, match=r"^Retry: on=.* returned .*: True or False is allowed$"):
        Retry(on=on).wants(OSError())


SECONDS = st.one_of(st.sampled_from([0.0, 0.1, 1.0, 5.0]), st.floats(0, 1e308))
WAITS = st.builds(
    functools.partial(Retry, on=OSError), wait_initial=SECONDS, wait_max=SECONDS, wait_jitter=SECONDS
)


@given(WAITS, st.integers(1, 10_000), st.integers())
def test_no_wait_is_longer_than_the_maximum_or_shorter_than_the_first(
    retry: Retry, attempt: int, seed: int
) -> None:
    wait = retry.backoff(attempt, Random(seed))
    assert min(retry.wait_initial, retry.wait_max) <= wait <= retry.wait_max


@given(WAITS, st.integers(1, 2000), st.integers())
def test_a_later_wait_is_never_shorter_for_the_same_draw(retry: Retry, attempt: int, seed: int) -> None:
    first, second = (retry.backoff(number, Random(seed)) for number in (attempt, attempt + 1))
    assert first <= second or math.isclose(first, second)


class Draws(Random):
    """A source that always gives the same number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


def test_waits_double_up_to_the_maximum_and_the_jitter_has_its_place_below_it() -> None:
    retry = Retry(on=OSError)
    least, most = Draws(0.0), Draws(math.nextafter(1.0, 0.0))
    assert [retry.backoff(number, least) for number in range(1, 9)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        4.0,
        4.0,
    ]
    assert [retry.backoff(number, most) for number in range(1, 9)] == pytest.approx(
        [1.1, 1.2, 1.4, 1.8, 2.6, 4.2, 5.0, 5.0]
    )


@pytest.mark.parametrize("options", [{}, {"wait_initial": 4.5}, {"wait_jitter": 1000}])
def test_who_failed_together_does_not_try_again_together_also_at_the_maximum(options: dict[str, Any]) -> None:
    retry = Retry(on=OSError, **options)
    assert len({retry.backoff(10_000, Random(seed)) for seed in range(100)}) == 100


def test_without_jitter_nothing_is_left_to_chance() -> None:
    retry = Retry(on=OSError, wait_initial=1, wait_max=10, wait_jitter=0)
    assert [retry.backoff(number, Random()) for number in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 10, 10]


def test_where_the_first_wait_is_the_longest_all_are_the_same() -> None:
    retry = Retry(on=OSError, wait_initial=5, wait_max=5)
    assert {retry.backoff(number, Random()) for number in (1, 2, 10_000)} == {5.0}
    retry = Retry(on=OSError, wait_max=0)
    assert {retry.backoff(number, Random()) for number in (1, 2, 10_000)} == {0.0}
    retry = Retry(on=OSError, wait_initial=60)
    assert {retry.backoff(number, Random()) for number in (1, 2, 10_000)} == {5.0}


def test_a_seed_gives_the_same_waits_and_each_draws_one_number() -> None:
    retry = Retry(on=OSError, seed=7)
    one, other = Random(retry.seed), Random(retry.seed)
    assert [retry.backoff(n, one) for n in range(1, 9)] == [retry.backoff(n, other) for n in range(1, 9)]
    drawn, wanted = Random(7), Random(7)
    for options in ({}, {"wait_jitter": 0}, {"wait_max": 0}):
        Retry(on=OSError, **options).backoff(1, drawn)
        wanted.random()
    assert drawn.getstate() == wanted.getstate()


def test_attempts_count_the_first() -> None:
    def allowed(attempts: int | None) -> list[bool]:
        retry = Retry(on=OSError, attempts=attempts, within=None)
        return [retry.allows_next(number, elapsed=1e9, wait=1.0) for number in (1, 2, 3, 10**6)]

    assert allowed(1) == [False, False, False, False]
    assert allowed(3) == [True, True, False, False]
    assert allowed(None) == [True, True, True, True]


def test_no_attempt_begins_after_within_and_no_wait_for_one() -> None:
    retry = Retry(on=OSError, within=10)
    assert retry.allows_next(1, elapsed=9.0, wait=1.0)
    assert not retry.allows_next(1, elapsed=9.0, wait=1.1)
    assert not retry.allows_next(1, elapsed=10.1, wait=0.0)
    assert not retry.allows_next(5, elapsed=0.0, wait=0.0)

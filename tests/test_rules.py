"""What follows a failed attempt: decided without a loop, told the time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from event_flow import BatchFailed, Event, HandlerTimeout, Retry
from event_flow.core.attempt import Attempt, Returned
from event_flow.core.handler_options import HandlerOptions
from event_flow.core.outcome import error_of, failures_of
from event_flow.core.rules import Rules, Verdict


class Ping(Event[int]):
    pass


class Plain(Exception):
    pass


class Nearer(Plain):
    pass


ONE, TWO, THREE = Ping(1), Ping(2), Ping(3)
EVERY_SECOND = {"wait_initial": 1, "wait_max": 1, "wait_jitter": 0}


def rules(**options: Any) -> Rules:
    return Rules(HandlerOptions("App.on_ping", options))


def attempt(*events: Ping) -> Attempt:
    """One at its first attempt, which began at 0."""
    made = Attempt(list(events or (ONE, TWO, THREE)), "key", "size")
    made.began = 0.0
    return made


def judged(error: Exception, *events: Ping, **options: Any) -> Verdict:
    return rules(**options).judge(attempt(*events), error, now=0.0)


def parts(verdict: Verdict) -> dict[str, list[tuple[Event[Any], Exception]]]:
    """What becomes of the events, without what is empty."""
    names = ("retried", "isolated", "kept", "dead", "discarded", "fatal")
    return {name: part for name in names if (part := getattr(verdict, name))}


def events_of(attempts: Sequence[Attempt]) -> list[list[Event[Any]]]:
    return [each.events for each in attempts]


# -- without options, and a part of a batch --------------------------------------------------------------------------


def test_all_of_a_batch_is_dead_letters() -> None:
    error = Plain()
    verdict = judged(error)
    assert parts(verdict) == {"dead": [(ONE, error), (TWO, error), (THREE, error)]}
    assert (verdict.again, verdict.failed) == ([], 3)


@pytest.mark.parametrize("how", ["mapping", "pairs", "list with a cause"])
def test_only_what_is_named_has_failed(how: str) -> None:
    error = Plain()
    raised = BatchFailed([TWO]) if how == "list with a cause" else BatchFailed([(TWO, error)])
    if how == "mapping":
        raised = BatchFailed({TWO: error})
    raised.__cause__ = error if how == "list with a cause" else None
    verdict = judged(raised)
    assert parts(verdict) == {"dead": [(TWO, error)]}
    assert verdict.failed == 1


def test_what_is_named_without_any_error_failed_with_batch_failed_itself() -> None:
    raised = BatchFailed([TWO])
    assert parts(judged(raised)) == {"dead": [(TWO, raised)]}


def test_failures_are_in_the_order_of_the_batch() -> None:
    error, other = Plain(), OSError()
    raised = BatchFailed([(THREE, error), (ONE, other)])
    assert failures_of(raised, [ONE, TWO, THREE]) == [(ONE, other), (THREE, error)]


def test_an_event_that_is_named_twice_failed_with_the_last() -> None:
    error, other = Plain(), OSError()
    assert failures_of(BatchFailed([(ONE, error), (ONE, other)]), [ONE, TWO]) == [(ONE, other)]


def test_an_event_that_is_twice_in_the_batch_failed_twice() -> None:
    error = Plain()
    assert failures_of(BatchFailed({ONE: error}), [ONE, TWO, ONE]) == [(ONE, error), (ONE, error)]


@pytest.mark.parametrize("named", [(THREE,), (ONE, THREE)], ids=["only strangers", "also strangers"])
def test_a_stranger_among_those_named_means_that_all_failed(named: tuple[Ping, ...]) -> None:
    """What it says cannot be true of this batch, so nothing in it is believed to be done."""
    raised = BatchFailed(named)
    assert failures_of(raised, [ONE, TWO]) == [(ONE, raised), (TWO, raised)]


def test_one_error_stays_itself_and_several_say_which_event_failed_with_which() -> None:
    error, other = Plain(), OSError()
    assert error_of([(ONE, error), (TWO, error)]) is error
    together = error_of([(ONE, error), (TWO, other)])
    assert isinstance(together, BatchFailed)
    assert together.failures == ((ONE, error), (TWO, other))


# -- retry -----------------------------------------------------------------------------------------------------------


def test_what_failed_is_tried_again_after_a_wait() -> None:
    first = attempt()
    verdict = rules(retry=Retry(on=Plain, **EVERY_SECOND)).judge(first, BatchFailed({TWO: Plain()}), now=5.0)
    (again,) = verdict.again
    assert (again.events, again.number, again.due, verdict.wait) == ([TWO], 2, 6.0, 1.0)
    assert (again.key, again.closed_by, again.began) == ("key", "size", 0.0)
    assert verdict.failed == 0


def test_each_event_by_its_own_error() -> None:
    retried, dead, dropped = Plain(), OSError(), KeyError()
    verdict = judged(
        BatchFailed({ONE: retried, TWO: dead, THREE: dropped}),
        retry=Retry(on=Plain),
        on_failure={KeyError: "discard"},
    )
    assert parts(verdict) == {
        "retried": [(ONE, retried)],
        "dead": [(TWO, dead)],
        "discarded": [(THREE, dropped)],
    }
    assert events_of(verdict.again) == [[ONE]]
    assert verdict.failed == 2


def test_attempts_come_to_an_end() -> None:
    judge = rules(retry=Retry(on=Plain, attempts=3)).judge
    second = judge(attempt(), Plain(), 0.0).again[0]
    third = judge(second, Plain(), 0.0).again[0]
    assert (second.number, third.number) == (2, 3)
    last = judge(third, Plain(), 0.0)
    assert (last.again, last.failed) == ([], 3)


def test_no_attempt_begins_after_the_time_within_which() -> None:
    judge = rules(retry=Retry(on=Plain, within=10, **EVERY_SECOND)).judge
    assert judge(attempt(), Plain(), 9.0).again
    assert not judge(attempt(), Plain(), 9.1).again


def test_the_same_seed_waits_alike_in_each_run() -> None:
    retry = Retry(on=Plain, seed=7, attempts=None)
    waits = [Rules(HandlerOptions("", {"retry": retry})).judge(attempt(), Plain(), 0.0).wait for _ in "ab"]
    assert waits == [retry.backoff(1, Random(7))] * 2


def test_a_seed_waits_alike_whatever_else_fails() -> None:
    """One number is drawn for each failed attempt."""
    judge = rules(retry=Retry(on=Plain, seed=7)).judge
    judge(attempt(), OSError(), 0.0)
    random = Random(7)
    random.random()
    assert judge(attempt(), Plain(), 0.0).wait == Retry(on=Plain).backoff(1, random)


def test_a_timeout_is_tried_again_like_any_error() -> None:
    error = HandlerTimeout("late", handler="App.on_ping", timeout=1)
    assert parts(judged(error, ONE, retry=Retry(on=TimeoutError))) == {"retried": [(ONE, error)]}


def test_each_error_is_looked_at_once() -> None:
    asked: list[Exception] = []

    def on(error: Exception) -> bool:
        asked.append(error)
        return False

    one, other = Plain(), OSError()
    judged(BatchFailed([(ONE, one), (TWO, other), (THREE, one)]), retry=Retry(on=on))
    assert asked == [one, other]


def test_nobody_is_asked_when_no_attempt_is_left() -> None:
    def on(error: Exception) -> bool:
        raise AssertionError

    assert judged(Plain(), retry=Retry(on=on, attempts=1)).failed == 3


def test_what_a_predicate_raises_comes_out() -> None:
    def on(error: Exception) -> bool:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        judged(Plain(), retry=Retry(on=on))


# -- isolate ---------------------------------------------------------------------------------------------------------


def test_each_event_alone_after_the_last_attempt() -> None:
    judge = rules(isolate=True, retry=Retry(on=Plain, attempts=2)).judge
    (second,) = judge(attempt(), Plain(), 0.0).again
    verdict = judge(second, Plain(), 0.0)
    assert events_of(verdict.again) == [[ONE], [TWO], [THREE]]
    assert all(each.is_alone and each.number == 3 for each in verdict.again)
    assert verdict.failed == 0
    alone = judge(verdict.again[1], Plain(), 0.0)
    assert (alone.again, [event for event, _ in alone.dead]) == ([], [TWO])


@pytest.mark.parametrize("on_failure", [{}, {Plain: "discard"}])
def test_isolated_before_it_is_given_up(on_failure: dict[type[Exception], str]) -> None:
    verdict = judged(Plain(), isolate=True, on_failure=on_failure)
    assert len(verdict.isolated) == 3
    assert judged(Plain(), ONE, isolate=True, on_failure=on_failure).failed == 1


@pytest.mark.parametrize(("action", "part"), [("pause", "kept"), ("stop", "fatal")])
def test_a_reason_to_pause_or_stop_is_none_to_isolate(action: str, part: str) -> None:
    assert list(parts(judged(Plain(), isolate=True, on_failure={Plain: action}))) == [part]


def test_who_says_which_events_failed_has_them_not_isolated() -> None:
    verdict = judged(BatchFailed([ONE, TWO, THREE]), isolate=True)
    assert list(parts(verdict)) == ["dead"]


# -- on_failure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_failure", "part"),
    [
        ({Plain: "discard"}, "discarded"),
        ({Exception: "stop", Plain: "discard"}, "discarded"),
        ({Plain: "stop", Nearer: "discard"}, "discarded"),
        ({Exception: "stop"}, "fatal"),
        ({Exception: "stop", Nearer: "dead_letter"}, "dead"),
        ({OSError: "stop"}, "dead"),
        ({Plain: "pause"}, "kept"),
    ],
)
def test_the_nearest_base_class_says(on_failure: dict[type[Exception], str], part: str) -> None:
    assert list(parts(judged(Nearer(), ONE, on_failure=on_failure))) == [part]


@pytest.mark.parametrize(
    ("leaves", "part"),
    [
        ([Plain()], "discarded"),
        ([Plain(), KeyError()], "dead"),
        ([Plain(), KeyError(), OSError()], "kept"),
        ([OSError(), ExceptionGroup("", [Plain(), ValueError()])], "fatal"),
    ],
)
def test_a_group_is_what_the_gravest_in_it_is(leaves: list[Exception], part: str) -> None:
    on_failure = {Plain: "discard", OSError: "pause", ValueError: "stop"}
    assert list(parts(judged(ExceptionGroup("", leaves), ONE, on_failure=on_failure))) == [part]


def test_a_group_that_is_named_itself_is_looked_up_as_it_is() -> None:
    on_failure = {ExceptionGroup: "discard", ValueError: "stop"}
    assert list(parts(judged(ExceptionGroup("", [ValueError()]), ONE, on_failure=on_failure))) == [
        "discarded"
    ]


# -- paused ----------------------------------------------------------------------------------------------------------


def test_what_is_kept_has_all_its_attempts_anew() -> None:
    judge = rules(retry=Retry(on=OSError, attempts=2, within=10), on_failure={Plain: "pause"}).judge
    (second,) = judge(attempt(), OSError(), 1.0).again
    (kept,) = judge(second, Plain(), 2.0).again
    assert (kept.number, kept.began) == (3, None)
    kept.began = 100.0
    (fourth,) = judge(kept, OSError(), 101.0).again
    assert fourth.number == 4
    assert judge(fourth, OSError(), 102.0).failed == 3


def test_an_isolated_event_that_is_kept_has_all_its_attempts_anew() -> None:
    judge = rules(isolate=True, retry=Retry(on=OSError), on_failure={Plain: "pause"}).judge
    alone = judge(attempt(), ValueError(), 0.0).again[0]
    (kept,) = judge(alone, Plain(), 0.0).again
    kept.began = 0.0
    assert judge(kept, OSError(), 0.0).again


def test_a_group_of_named_failures_names_none() -> None:
    first, second = ValueError(), KeyError()
    group = ExceptionGroup("", [BatchFailed({ONE: first}), ExceptionGroup("", [BatchFailed({TWO: second})])])
    assert failures_of(group, [ONE, TWO, THREE]) == [(ONE, group), (TWO, group), (THREE, group)]
    mixed = ExceptionGroup("", [BatchFailed({ONE: first}), OSError()])
    assert failures_of(mixed, [ONE, TWO]) == [(ONE, mixed), (TWO, mixed)]


# -- what was put back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order", [True, False])
def test_of_parts_that_are_due_at_once_the_last_that_is_put_back_comes_first(in_order: bool) -> None:
    """*Regression*: two parts of an attempt that had been put back before were compared, which attempts cannot be."""
    returned = Returned(in_order=in_order)
    returned.push(attempt())
    whole = returned.pop()
    returned.push(whole.again([TWO], due=1.0))
    returned.push(whole.again([ONE], due=1.0))
    assert [returned.pop().events for _ in range(2)] == [[ONE], [TWO]]


def test_in_order_an_earlier_event_that_waits_comes_first() -> None:
    returned = Returned(in_order=True)
    for event in (TWO, ONE):
        returned.push(attempt(event))
    first = returned.pop()
    returned.push(first.again([ONE], due=9.0))
    assert returned.first.events == [ONE]
    assert returned.first.due == 9.0

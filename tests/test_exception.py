"""The errors as values: what they carry, what they say, and that they survive a copy and a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from event_flow import BatchFailed, Event, EventFlowError
from event_flow.core import exception

ERRORS = [
    value
    for _, value in inspect.getmembers(exception, inspect.isclass)
    if issubclass(value, EventFlowError) and value not in (EventFlowError, BatchFailed)
]


def made(error: type[EventFlowError]) -> EventFlowError:
    """One with all the facts that its class asks for."""
    facts: dict[str, Any] = {
        name: 2.5 if name in ("timeout", "limit") else f"the {name}"
        for name in (inspect.getfullargspec(error.__init__).kwonlyargs if "__init__" in vars(error) else ())
    }
    return error("what happened", **facts)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_can_be_copied_and_pickled_with_its_facts(error: type[EventFlowError]) -> None:
    """*Regression*: those with facts could not be unpickled, so not raised out of a process pool."""
    one = made(error)
    one.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(one, protocol))
        assert (type(other), str(other), other.args, vars(other)) == (error, str(one), one.args, vars(one))
    for other in (copy.copy(one), copy.deepcopy(one)):
        assert (type(other), str(other), other.args, vars(other)) == (error, str(one), one.args, vars(one))


class Order(Event[int]):
    pass


class Alike(Event[int]):
    """Equal to every other one, and so without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike)


def raised(failed: BatchFailed, cause: BaseException | None = None) -> BatchFailed:
    with pytest.raises(BatchFailed) as caught:
        raise failed from cause
    return caught.value


def test_a_mapping_says_what_each_event_failed_with() -> None:
    one, other = Order(1), Order(2)
    errors = ValueError("dear"), KeyError("cheap")
    failed = BatchFailed({one: errors[0], other: errors[1]})
    assert failed.failures == ((one, errors[0]), (other, errors[1]))
    assert str(failed) == "2 events failed, the first with ValueError('dear')"
    assert repr(failed) == f"BatchFailed({str(failed)!r})"


def test_pairs_hold_events_that_a_mapping_cannot() -> None:
    one, other = Alike(1), Alike(2)
    errors = ValueError(), ValueError()
    failures = BatchFailed(iter([(one, errors[0]), (other, errors[1])])).failures
    assert [(id(event), error) for event, error in failures] == [(id(one), errors[0]), (id(other), errors[1])]
    assert [id(event) for event, _ in BatchFailed([one, other]).failures] == [id(one), id(other)]


def test_events_alone_failed_with_the_error_itself() -> None:
    one, other = Order(1), Order(2)
    failed = raised(BatchFailed(event for event in (one, other)))
    assert failed.failures == ((one, failed), (other, failed))
    assert (str(failed), str(BatchFailed([one]))) == ("2 events failed", "1 event failed")


def test_events_alone_failed_with_its_cause_if_it_has_one() -> None:
    """Which it has only after it was made."""
    one, other, own = Order(1), Order(2), KeyError("own")
    failed = BatchFailed([one, (other, own)])
    assert failed.failures == ((one, failed), (other, own))
    cause = OSError("down")
    assert raised(failed, cause).failures == ((one, cause), (other, own))
    assert str(failed) == "2 events failed, the first with OSError('down')"


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), SystemExit(1)])
def test_a_cause_that_ends_more_than_an_event_is_none_of_its_failures(cause: BaseException) -> None:
    failed = raised(BatchFailed([Order(1)]), cause)
    assert [error for _, error in failed.failures] == [failed]


def test_an_error_that_is_its_own_cause_can_be_read_and_pickled() -> None:
    failed = BatchFailed([Order(1)])
    raised(failed, failed)
    assert str(failed) == "1 event failed"
    ((_, error),) = pickle.loads(pickle.dumps(failed)).failures
    assert isinstance(error, BatchFailed)


def test_an_event_that_was_published_twice_may_fail_twice() -> None:
    event = Order(1)
    assert [each for each, _ in BatchFailed([event, event]).failures] == [event, event]


class Pairs(Event[int]):
    """An event that is iterable itself."""

    def __iter__(self) -> Iterator[Event[int]]:
        yield Order(1)


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        (
            Order(1),
            r"^BatchFailed\(Order\(1\)\): a mapping of events to exceptions, or an iterable of events or of",
        ),
        (Pairs(1), "an iterable of events"),
        (None, r"^BatchFailed\(None\): a mapping"),
        (5, "a mapping"),
        ("no events", "'n' is no event: a mapping"),
        ([Order], "Order'> is no event"),
        ([None], "None is no event"),
        ({"x": ValueError()}, "is no event"),
        ([(Order(1), ValueError(), "more")], "is no event"),
        ([(ValueError(), Order(1))], "is no event"),
        ({Order(1): None}, r"Order\(1\) failed with None: an instance of Exception is allowed"),
        ({Order(1): "dear"}, "failed with 'dear'"),
        ({Order(1): ValueError}, "failed with <class 'ValueError'>: an instance"),
        ({Order(1): KeyboardInterrupt()}, r"failed with KeyboardInterrupt\(\): an instance"),
        ({Order(1): BaseExceptionGroup("", [SystemExit()])}, "an instance of Exception is allowed"),
    ],
)
def test_what_names_no_failures_is_an_error_that_says_what_does(failures: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        BatchFailed(failures)


@pytest.mark.parametrize("failures", [[], (), {}, iter([])])
def test_at_least_one_event_must_have_failed(failures: Any) -> None:
    with pytest.raises(ValueError, match="at least one event must have failed"):
        BatchFailed(failures)


def test_what_failed_survives_a_copy_and_a_process_boundary_with_its_cause() -> None:
    failed = raised(BatchFailed([Order(1), (Order(2), KeyError("own"))]), OSError("down"))
    failed.add_note("a note")
    # Those before 2 know no slots, which events have.
    others = [
        pickle.loads(pickle.dumps(failed, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ]
    for other in [*others, copy.copy(failed), copy.deepcopy(failed)]:
        assert [(event.data, repr(error)) for event, error in other.failures] == [
            (1, "OSError('down')"),
            (2, "KeyError('own')"),
        ]
        assert (str(other), other.__notes__) == (str(failed), ["a note"])
    assert copy.copy(failed).failures == failed.failures

"""The errors as values: what they carry, what they say, and that they survive a copy and a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from event_flow import EventFlowError
from event_flow.core import exception

ERRORS = [
    value
    for _, value in inspect.getmembers(exception, inspect.isclass)
    if issubclass(value, EventFlowError) and value is not EventFlowError
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

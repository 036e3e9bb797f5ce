"""The options of an engine: what is allowed, and what the error says."""

from __future__ import annotations

import inspect
import math
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from event_flow import AppEngine, OptionError, schedule
from event_flow.core.handler_options import NAMES, HandlerOptions

COUNTS = ["queue_size", "max_batch", "max_backlog", "max_threads"]
TIMES = ["grace_period", "start_timeout", "exit_timeout"]

# Where the rules for one kind of option differ.
ZERO = {"max_backlog", "grace_period"}
FOREVER = {"grace_period", "start_timeout"}


def make(option: str, value: Any) -> AppEngine:
    return AppEngine(**{option: value})


@pytest.mark.parametrize("option", COUNTS)
@pytest.mark.parametrize(
    "value", [0, -1, True, False, 1.5, 1.0, math.nan, math.inf, "x", "1", None, timedelta(1)]
)
def test_a_wrong_count_is_an_error_that_names_the_option(option: str, value: Any) -> None:
    if value == 0 and type(value) is int and option in ZERO:
        make(option, value)
        return
    least = 0 if option in ZERO else 1
    with pytest.raises(
        ValueError, match=f"^{option}=.*a whole number of at least {least} is allowed"
    ) as caught:
        make(option, value)
    assert isinstance(caught.value, OptionError)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("option", TIMES)
@pytest.mark.parametrize(
    "value",
    [0, 0.0, -1, -0.5, True, False, math.nan, math.inf, -math.inf, "x", "1", None, 1j, Decimal(1), timedelta(0),
     timedelta(seconds=-1)],
)  # fmt: skip
def test_a_wrong_time_is_an_error_that_names_the_option(option: str, value: Any) -> None:
    is_zero = not isinstance(value, bool) and value in (0, timedelta(0))
    if (is_zero and option in ZERO) or (value == math.inf and option in FOREVER):
        make(option, value)
        return
    lower = "of at least 0" if option in ZERO else "above 0"
    upper = "math.inf included" if option in FOREVER else "not inf"
    with pytest.raises(ValueError, match=f"^{option}=.*seconds {lower} are allowed.*{upper}") as caught:
        make(option, value)
    assert isinstance(caught.value, OptionError)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("option", COUNTS)
def test_any_whole_number_that_is_large_enough_is_allowed(option: str) -> None:
    for value in (1, 2, 10**9, 10**400):
        make(option, value)


@pytest.mark.parametrize("option", TIMES)
def test_times_are_numbers_or_timedeltas(option: str) -> None:
    for value in (1, 0.001, 1e300, timedelta(microseconds=1), timedelta(days=1000)):
        make(option, value)


@pytest.mark.parametrize("option", TIMES)
def test_a_time_beyond_every_float_is_a_wrong_value(option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}="):
        make(option, 10**400)


@pytest.mark.parametrize("value", ["", "x", "Contain", True, None, 1, ["raise"]])
def test_on_error_is_one_of_two_words(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^on_error=.*allowed are 'contain', 'raise'"):
        make("on_error", value)
    make("on_error", "contain")
    make("on_error", "raise")


@pytest.mark.parametrize("value", [0, -1, True, math.nan, math.inf, "x", None, timedelta(0)])
def test_an_interval_is_finite_and_above_zero(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^interval=.*seconds above 0 are allowed.*not inf"):
        schedule(value)
    schedule(0.001)
    schedule(timedelta(milliseconds=1), run_at_once=False)


def test_options_are_given_by_name_and_unknown_ones_are_an_error() -> None:
    with pytest.raises(TypeError):
        AppEngine((), 10)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="queue_sice"):
        make("queue_sice", 10)


def test_the_defaults_are_allowed_values() -> None:
    AppEngine(
        (), queue_size=1000, max_batch=1000, max_backlog=100_000, grace_period=10.0, start_timeout=60.0,
        exit_timeout=10.0, on_error="contain", max_threads=40,
    )  # fmt: skip


def told(heading: str) -> dict[str, str]:
    """The defaults in the table of the README below this heading, as they are written there."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows: list[tuple[str, str]] = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "an option stands there twice"
    return dict(rows)


def test_the_defaults_are_those_of_the_readme() -> None:
    """*Spec*: the default queue size (there 10) is told to users, who adjust it."""
    parameters = inspect.signature(AppEngine).parameters.values()
    options = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    shown = {name: text.strip('`"').replace(",", "") for name, text in told("Options").items()}
    assert shown == {name: str(value) for name, value in options.items()}


def test_the_defaults_of_handlers_are_those_of_the_readme() -> None:
    """What is None there, and stands for an option of the engine, is told as that."""
    defaults = HandlerOptions("App.on_event", {})
    of_the_engine = inspect.signature(AppEngine).parameters
    assert told("Flow control") == {
        name: "the engine's" if name in of_the_engine else f"`{in_double_quotes(getattr(defaults, name))}`"
        for name in NAMES
    }


def in_double_quotes(value: object) -> str:
    return repr(value).replace("'", '"')

"""What an engine can be told, and which values are allowed. Checked once, when the engine is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from event_flow.core.exception import OptionError

OnError = Literal["contain", "raise"]


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class EngineOptions:
    """The options of `AppEngine`; their meaning stands in its docstring."""

    queue_size: int
    max_batch: int
    max_backlog: int
    grace_period: float
    start_timeout: float
    exit_timeout: float
    on_error: OnError
    max_threads: int

    @classmethod
    def checked(cls, **given: Any) -> EngineOptions:
        """Raises `OptionError` that names the option, its value and what is allowed."""
        return cls(
            queue_size=count("queue_size", given["queue_size"]),
            max_batch=count("max_batch", given["max_batch"]),
            max_backlog=count("max_backlog", given["max_backlog"], least=0),
            grace_period=seconds("grace_period", given["grace_period"], zero=True, forever=True),
            start_timeout=seconds("start_timeout", given["start_timeout"], forever=True),
            # Never inf: it is what bounds the end of the engine.
            exit_timeout=seconds("exit_timeout", given["exit_timeout"]),
            on_error=one_of("on_error", given["on_error"], ("contain", "raise")),
            max_threads=count("max_threads", given["max_threads"]),
        )


def count(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name}={value!r}: a whole number of at least {least} is allowed")
    return value


def seconds(name: str, value: Any, *, zero: bool = False, forever: bool = False) -> float:
    """A duration in seconds, from a number or a `timedelta`; above 0, or also 0; finite, or also inf."""
    number = _as_float(value)
    if math.isnan(number) or number < 0 or (number == 0 and not zero) or (math.isinf(number) and not forever):
        lower = "of at least 0" if zero else "above 0"
        upper = "math.inf included" if forever else "not inf"
        raise OptionError(f"{name}={value!r}: seconds {lower} are allowed, as a number or timedelta, {upper}")
    return number


def _as_float(value: Any) -> float:
    """Seconds; nan for what is no duration."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """One of the values listed."""
    if value not in allowed:
        raise OptionError(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}")
    return value

"""What an engine can be told, and which values are allowed. Checked once, when the engine is made."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Literal

from event_flow.core.exception import OptionError

OnError = Literal["contain", "raise"]


class EngineOptions:
    """The options of `AppEngine`; their meaning stands in its docstring."""

    def __init__(
        self,
        *,
        queue_size: int,
        max_batch: int,
        max_backlog: int,
        grace_period: float | timedelta,
        start_timeout: float | timedelta,
        exit_timeout: float | timedelta,
        on_error: OnError,
        max_threads: int,
    ) -> None:
        """Raises `OptionError` that names the option, its value and what is allowed."""
        self.queue_size: int = count("queue_size", queue_size)
        self.max_batch: int = count("max_batch", max_batch)
        self.max_backlog: int = count("max_backlog", max_backlog, least=0)
        self.grace_period: float = seconds("grace_period", grace_period, zero=True, forever=True)
        self.start_timeout: float = seconds("start_timeout", start_timeout, forever=True)
        # Never inf: it is what bounds the end of the engine.
        self.exit_timeout: float = seconds("exit_timeout", exit_timeout)
        self.on_error: OnError = one_of("on_error", on_error, ("contain", "raise"))
        self.max_threads: int = count("max_threads", max_threads)


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


def number(name: str, value: Any, *, least: float, most: float) -> float:
    """A number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise OptionError(f"{name}={value!r}: a number from {least:g} to {most:g} is allowed")
    return float(value)


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

"""Which failures of a handler are tried again, how often, and after what wait: decided here, waited for elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from event_flow.core.exception import OptionError
from event_flow.core.function import is_async
from event_flow.core.options import count, seconds
from event_flow.core.wording import safe_repr

if TYPE_CHECKING:
    from random import Random

__all__ = ["Retry"]

Condition = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

# 2.0**1024 is no float any more; the longest wait was reached long before.
MOST_DOUBLINGS = 1023


class Retry:
    """When a handler fails, call it again with the events that failed, after a wait that doubles from attempt to attempt.

    - `on`: what is worth it. An `Exception` class, a tuple of such classes, or a sync function that is given the exception and
      returns True or False. There is no default: what fails for good, like a mistake in the code, fails as well the fifth
      time. An exception group counts if each exception in it does. What the function raises is not caught here.
    - `attempts`: how often the handler is called at most, the first time included; a whole number of at least 1, 5 by default,
      `None` for no limit.
    - `within`: seconds from the beginning of the first attempt; a wait that would end later is not begun, and what failed is
      given up. 45 by default, `None` for no limit. It does not end an attempt: `timeout` does. An attempt that has been waited
      for is made, even if a pause, the handler's rate or a call at work holds it up for longer.
    - `wait_initial`, `wait_max`, `wait_jitter`: seconds of at least 0, by default 0.1, 5 and 1. Before attempt n + 1 it waits

          least = max(wait_initial, min(wait_initial * 2**(n - 1), wait_max - wait_jitter))
          min(wait_max, least + random() * min(wait_jitter, wait_max - least))

      so never longer than `wait_max`, never shorter than `wait_initial` unless `wait_max` is.
    - `seed`: a whole number makes the waits of each handler the same in every run, for tests; `None` by default.

    All durations are seconds or a `timedelta`. A wrong value is an `OptionError` that names it and what is allowed.

    The exponential wait with a part that is drawn is the one of stamina, options and all. There the jitter is added before the
    limit is applied, so that all waits are the same once they have reached it, and whoever failed together tries again together
    for ever; here the last of it is kept free for the jitter. See Marc Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015.
    """

    __slots__ = ("attempts", "on", "seed", "wait_initial", "wait_jitter", "wait_max", "within")

    def __init__(
        self,
        *,
        on: Condition,
        attempts: int | None = 5,
        wait_initial: float | timedelta = 0.1,
        wait_max: float | timedelta = 5.0,
        wait_jitter: float | timedelta = 1.0,
        within: float | timedelta | None = 45.0,
        seed: int | None = None,
    ) -> None:
        self.on: Condition = _condition(on)
        self.attempts: int | None = None if attempts is None else count("Retry: attempts", attempts)
        self.wait_initial: float = seconds("Retry: wait_initial", wait_initial, zero=True)
        self.wait_max: float = seconds("Retry: wait_max", wait_max, zero=True)
        self.wait_jitter: float = seconds("Retry: wait_jitter", wait_jitter, zero=True)
        self.within: float | None = None if within is None else seconds("Retry: within", within)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise OptionError(f"Retry: seed={safe_repr(seed)}: a whole number or None is allowed")
        self.seed: int | None = seed

    def wants(self, error: Exception) -> bool:
        """Whether this failure is one to try again.

        What a function given as `on` raises is raised as it is, and `TypeError` if it does not return a bool.
        """
        on = self.on
        if not isinstance(on, type | tuple):
            return _answer(on, error)
        left: list[BaseException] = [error]
        while left:
            each = left.pop()
            if isinstance(each, on):
                continue
            if not isinstance(each, BaseExceptionGroup):
                return False
            left += each.exceptions
        return True

    def backoff(self, attempt: int, random: Random) -> float:
        """Seconds to wait after attempt number `attempt`, the first being 1, has failed. Draws one number, always."""
        doubled = self.wait_initial * 2.0 ** min(attempt - 1, MOST_DOUBLINGS)
        least = max(self.wait_initial, min(doubled, self.wait_max - self.wait_jitter))
        # The first wait may be more than the longest, and the sum is rounded.
        return min(self.wait_max, least + random.random() * min(self.wait_jitter, self.wait_max - least))

    def allows_next(self, attempt: int, *, elapsed: float, wait: float) -> bool:
        """Whether another attempt may follow number `attempt` after a wait of `wait` seconds.

        `elapsed` are the seconds from the beginning of the first attempt to the end of this one.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return False
        return self.within is None or elapsed + wait <= self.within

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={safe_repr(getattr(self, name))}" for name in SHOWN)
        return f"Retry({options})"


SHOWN = ("on", "attempts", "wait_initial", "wait_max", "wait_jitter", "within", "seed")


def _condition(on: Any) -> Condition:
    """`on` as it is, if it can be asked."""
    if isinstance(on, tuple) and on and all(map(_is_exception_class, on)):
        return on
    if _is_exception_class(on) or (not isinstance(on, type) and callable(on) and not is_async(on)):
        return on  # type: ignore[no-any-return]
    raise OptionError(
        f"Retry: on={safe_repr(on)}: an Exception class, a tuple of some, or a sync function (Exception) -> bool is allowed"
    )


def _is_exception_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _answer(predicate: Callable[[Exception], bool], error: Exception) -> bool:
    answer: object = predicate(error)
    if isinstance(answer, bool):
        return answer
    # Anything else is most often a mistake: None for want of a `return`, a coroutine, which would be true for everything.
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(
        f"Retry: on={safe_repr(predicate)} returned {safe_repr(answer)}: True or False is allowed"
    )

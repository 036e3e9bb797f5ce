"""The options of one handler, as Hypothesis draws them: what is not drawn is not given."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Literal

from hypothesis import strategies as st
from records import HUES, Thing

from event_flow import Event, HandlerTimeout, Rate, Retry

Overflow = Literal["wait", "drop_oldest", "drop_newest", "latest", "error"]
OnFailure = Literal["discard", "dead_letter", "pause", "stop"]

# Seconds. No sum of the times that anything else takes is equal to it.
TIMEOUT = 1.3


class Key(Enum):
    ENTRY = "the entry 'hue' of the data; for a handler that wants failures, which have none, a function"
    FUNCTION = "a function"


@dataclass(frozen=True, slots=True)
class Pace:
    """What a `Rate` is made of."""

    limit: float
    burst: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What a `Retry` is made of."""

    on: type[Exception]
    attempts: int
    wait_initial: float
    wait_jitter: float
    within: float | None
    seed: int

    @property
    def wait_max(self) -> float:
        return 2 * self.wait_initial + self.wait_jitter


@dataclass(frozen=True, slots=True, repr=False)
class Terms:
    """The options that a handler is declared with, and whether it takes a `Batch`."""

    max_batch: int | None = None
    queue_size: int | None = None
    linger: float = 0.0
    key: Key | None = None
    concurrency: int = 1
    overflow: Overflow = "wait"
    rate: Pace | None = None
    timeout: float | None = None
    retry: Trial | None = None
    isolate: bool = False
    on_failure: OnFailure | None = None  # of ValueError
    takes_batch: bool = False

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._drawn())
        return f"Terms({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """How Hypothesis prints it."""
        printer.text(repr(self))

    @property
    def most_queued(self) -> float:
        """Of those that were not tried yet, how many may be queued where each key has one place."""
        if self.overflow != "latest":
            return math.inf
        return 1 if self.key is None else HUES + 1  # failures have no hue

    def _drawn(self) -> list[str]:
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]

    def options(self, wants: tuple[type[Event[Any]], ...]) -> dict[str, Any]:
        """What to call `engine.on_event` with, besides the classes that the handler wants."""
        options = {name: getattr(self, name) for name in self._drawn() if name != "takes_batch"}
        if self.key is not None:
            only_things = all(issubclass(wanted, Thing) for wanted in wants)
            options["key"] = "hue" if self.key is Key.ENTRY and only_things else hue_of
        if self.rate is not None:
            options["rate"] = Rate(self.rate.limit, burst=self.rate.burst)
        if self.retry is not None:
            trial = self.retry
            options["retry"] = Retry(
                on=trial.on,
                attempts=trial.attempts,
                wait_initial=trial.wait_initial,
                wait_max=trial.wait_max,
                wait_jitter=trial.wait_jitter,
                within=trial.within,
                seed=trial.seed,
            )
        if self.on_failure is not None:
            options["on_failure"] = {ValueError: self.on_failure}
        return options

    @property
    def drops(self) -> bool:
        return self.overflow in ("drop_oldest", "drop_newest", "latest")

    @property
    def is_keyed(self) -> bool:
        """Whether events with equal keys are never at work at once; without a `key` all are equal."""
        return self.key is not None or self.overflow == "latest"

    @property
    def is_in_order(self) -> bool:
        """Whether all that it gets comes in order, and not only what has the same key."""
        return self.key is None and (self.concurrency == 1 or self.is_keyed)

    @property
    def is_order_kept(self) -> bool:
        """Whether what has the same key comes in order; without a `key` that is all."""
        return self.concurrency == 1 or self.is_keyed

    @property
    def key_of(self) -> Callable[[Event[Any]], Hashable]:
        """By what events are kept apart; all have the same key where there is none."""
        return hue_of if self.key is not None else lambda _: None

    def action(self, error: Exception) -> OnFailure:
        """What becomes of events that failed with it for good."""
        failed = errors_in(error)
        order: list[OnFailure] = ["discard", "dead_letter", "pause", "stop"]
        each = {
            self.on_failure or "dead_letter" if isinstance(one, ValueError) else "dead_letter"
            for one in failed
        }
        return max(each, key=order.index)


def hue_of(event: Event[Any]) -> Hashable:
    return event.data["hue"] if isinstance(event, Thing) else None


def errors_in(error: BaseException) -> list[BaseException]:
    """Of a group, what is in it."""
    if isinstance(error, BaseExceptionGroup):
        return [each for inner in error.exceptions for each in errors_in(inner)]
    return [error]


PLAIN = Terms()

trials = st.builds(
    Trial,
    on=st.sampled_from([ValueError, ValueError, HandlerTimeout, Exception]),
    attempts=st.integers(1, 3),
    wait_initial=st.sampled_from([1.0, 0.0, 0.1]),
    wait_jitter=st.sampled_from([0.0, 0.7]),
    within=st.sampled_from([None, 45.0, 1.5]),
    seed=st.integers(0, 9),
)
each_option: dict[str, st.SearchStrategy[Any]] = {
    "max_batch": st.sampled_from([1, 2, 3]),
    "queue_size": st.sampled_from([1, 2, 3]),
    "linger": st.sampled_from([1.0, 3.0]),
    "key": st.sampled_from(Key),
    "concurrency": st.sampled_from([2, 3]),
    "overflow": st.sampled_from(["drop_oldest", "drop_newest", "latest", "error"]),
    "rate": st.builds(Pace, limit=st.sampled_from([4.0, 1.0]), burst=st.integers(1, 3)),
    "timeout": st.just(TIMEOUT),
    "retry": trials,
    "isolate": st.just(True),
    "on_failure": st.sampled_from(["discard", "pause", "pause", "stop"]),
    "takes_batch": st.just(True),
}


# What belongs together: drawn one by one, they would seldom meet.
THEMES: list[tuple[str, ...]] = [
    (),
    ("key", "concurrency"),
    ("linger", "max_batch"),
    ("linger", "key", "queue_size"),
    ("rate", "concurrency"),
    ("overflow",),
    ("overflow", "queue_size"),
    ("retry", "isolate"),
    ("retry", "on_failure"),
    ("timeout",),
    ("timeout", "retry"),
]


@st.composite
def some_terms(draw: st.DrawFn) -> Terms:
    """At least one option."""
    names = set(draw(st.sampled_from(THEMES)))
    names.update(draw(st.lists(st.sampled_from(sorted(each_option)), min_size=not names, max_size=3)))
    return Terms(**{name: draw(each_option[name]) for name in sorted(names)})


any_terms = st.just(PLAIN) | some_terms()

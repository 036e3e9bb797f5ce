"""What becomes of an attempt that failed: tried again, each event alone, given up, or a reason to pause or stop.

    failed ──▶ may it be retried? ──yes──▶ another attempt, later, of what failed
                     │no
                     ▼
               `isolate`, and more than one? ──yes──▶ one more attempt for each event alone
                     │no
                     ▼
               `on_failure` of its class: dead_letter · discard · pause · stop

Decided by a synchronous function that is told the time and returns the work; the worker does it (`trying`).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from event_flow.core.attempt import Attempt
from event_flow.core.keyed import KeyFailure
from event_flow.core.outcome import Failure, events_of, failures_of, leaves, named_failures

if TYPE_CHECKING:
    from event_flow.core.handler_options import HandlerOptions, OnFailure
    from event_flow.core.retry import Retry

# A group of exceptions is given up as the gravest of them is.
BY_GRAVITY: Sequence[OnFailure] = ("discard", "dead_letter", "pause", "stop")


class Verdict:
    """What is to be done about a failed attempt: `again` are the attempts that follow it, the rest is by what happens to it."""

    def __init__(self) -> None:
        self.again: list[Attempt] = []
        self.wait: float = 0.0  # seconds to the next attempt at what is retried
        self.retried: list[Failure] = []
        self.isolated: list[Failure] = []
        self.kept: list[Failure] = []  # until the handler, which is to be paused, is resumed
        self.dead: list[Failure] = []
        self.discarded: list[Failure] = []
        self.fatal: list[Failure] = []  # it is to stop the engine

    @property
    def failed(self) -> int:
        """Events that are given up."""
        return len(self.dead) + len(self.discarded) + len(self.fatal)


class Rules:
    """The failure options of one handler, for one run."""

    def __init__(self, options: HandlerOptions) -> None:
        self._retry: Retry | None = options.retry
        self._isolate: bool = options.isolate
        self._on_failure: Mapping[type[Exception], OnFailure] = options.on_failure
        seed = None if options.retry is None else options.retry.seed
        self._random = random.Random(seed)  # noqa: S311 - nobody gains by guessing how long a handler waits

    def judge(self, attempt: Attempt, error: Exception, now: float) -> Verdict:
        """What to do about an attempt that ended with `error`. Raises what a predicate of `retry` does."""
        verdict = Verdict()
        wait = self._wait(attempt, now)
        fates = self._fates(failures_of(error, attempt.events), may_retry=wait is not None)
        if isinstance(attempt.key, KeyFailure):
            # Nor would it be after a pause: it would pause again.
            fates["dead_letter"] += fates.pop("pause", [])
        verdict.retried, verdict.kept, verdict.fatal = fates["retry"], fates["pause"], fates["stop"]
        lost = fates["dead_letter"] or fates["discard"]
        if self._isolate and len(lost) == len(attempt) > 1 and named_failures(error) is None:
            verdict.isolated = lost
        else:
            verdict.dead, verdict.discarded = fates["dead_letter"], fates["discard"]
        if wait is not None and verdict.retried:
            verdict.wait = wait
            verdict.again.append(attempt.again(events_of(verdict.retried), due=now + wait))
        if verdict.kept:
            verdict.again.append(attempt.anew(events_of(verdict.kept)))
        verdict.again += [attempt.alone(event) for event, _ in verdict.isolated]
        return verdict

    def _wait(self, attempt: Attempt, now: float) -> float | None:
        """Seconds to the next attempt, None if none may begin."""
        # A key that has failed is not asked anew.
        if self._retry is None or attempt.is_alone or isinstance(attempt.key, KeyFailure):
            return None
        number = attempt.number - attempt.tried
        wait = self._retry.backoff(number, self._random)
        elapsed = 0.0 if attempt.began is None else now - attempt.began
        return wait if self._retry.allows_next(number, elapsed=elapsed, wait=wait) else None

    def _fates(self, failures: Sequence[Failure], *, may_retry: bool) -> defaultdict[str, list[Failure]]:
        """The failures by what happens to them; each exception is looked at once."""
        fates: defaultdict[str, list[Failure]] = defaultdict(list)
        known: dict[int, str] = {}
        for event, error in failures:
            if id(error) not in known:
                is_retried = may_retry and self._retry is not None and self._retry.wants(error)
                known[id(error)] = "retry" if is_retried else self._action(error)
            fates[known[id(error)]].append((event, error))
        return fates

    def _action(self, error: Exception) -> OnFailure:
        """What `on_failure` says of the class of `error`, of the nearest base class that it knows."""
        if type(error) not in self._on_failure and isinstance(error, ExceptionGroup):
            return max(map(self._action, leaves([error])), key=BY_GRAVITY.index)
        for base in type(error).__mro__:
            if base in self._on_failure:
                return self._on_failure[base]
        return "dead_letter"

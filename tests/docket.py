"""What one handler got, what became of it, and what it is to get again: attempt by attempt, by what its options promise.

The handler, or the middleware around it, says when an attempt begins and how it ends. That the right events come, not too many,
not too early, and not besides others that they must not overtake, is judged as it begins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from records import Again, Call, State
from terms import Terms
from verdicts import Verdict, judge

from event_flow import Event, ExceptionEvent

# Seconds: asyncio is so much too early, and floats are rounded.
ROUNDED = 1e-8


class Docket:
    """One handler in one run. `queue_size` and `max_batch` are the engine's; its own come first."""

    def __init__(self, name: str, terms: Terms, *, is_sync: bool, queue_size: int, max_batch: int) -> None:
        self.name = name
        self.terms = terms
        self.is_sync = is_sync
        self.queue_size = terms.queue_size or queue_size
        self.max_batch = terms.max_batch or max_batch
        if terms.rate is not None:
            self.max_batch = min(self.max_batch, terms.rate.burst)
        self.calls: list[Call] = []
        self.ended: list[Call] = []  # in the order in which they did
        self.again: list[Again] = []
        self.settled: Counter[Event[Any]] = Counter()  # how often each was handled, or given up
        self.handled = 0
        self.failed = 0
        self.is_paused = False
        self.was_paused = False  # at some time
        self._random = Random(terms.retry.seed if terms.retry else 0)

    # -- derived ---------------------------------------------------------------------------------------------------

    @property
    def at_work(self) -> list[Call]:
        return [call for call in self.calls if not call.is_over]

    @property
    def seen(self) -> Iterator[Event[Any]]:
        """Every event of every first attempt, in this order."""
        return (event for call in self.calls if call.attempt == 1 for event in call.events)

    @property
    def to_come_again(self) -> int:
        return sum(len(again.events) for again in self.again)

    def is_awaited(self, event: Event[Any]) -> bool:
        """Whether it is to come again without anybody asking, or will perhaps once a call has ended."""
        terms = self.terms
        may_try_again = bool(terms.retry or terms.isolate or terms.on_failure == "pause")
        return any(event in again.events for again in self.again) or (
            may_try_again and any(event in call.events for call in self.at_work)
        )

    # -- an attempt begins -----------------------------------------------------------------------------------------

    def enter(
        self, events: list[Event[Any]], now: float, *, is_on_loop: bool
    ) -> tuple[Call, list[tuple[int, str]]]:
        """An attempt at these events. Returns the promises that breaks, too."""
        call = Call(
            self.name, list(events), len(self.calls) + 1, now, self.terms.key_of(events[0]), first_began=now
        )
        broken = [*self._judge_size(call), *self._judge_company(call), *self._judge_pace(call)]
        if self.is_paused and is_on_loop:
            broken.append((4, f"{self.name} got {events} although it is paused"))
        again = next((each for each in self.again if any(event in each.events for event in events)), None)
        if again is not None:
            broken += self._judge_again(call, again)
            self.again.remove(again)
            call.attempt, call.allowed, call.is_alone = again.attempt, again.allowed, again.is_alone
            call.first_began = now if again.first_began is None else again.first_began
        elif self.terms.is_order_kept:
            broken += [
                (1, f"{self.name} got {events} before {each.events} had their next attempt")
                for each in self.again
                if self.terms.is_in_order or each.key == call.key
            ]
        self.calls.append(call)
        return call, broken

    def _judge_size(self, call: Call) -> Iterator[tuple[int, str]]:
        length = len(call.events)
        if not 1 <= length <= self.max_batch:
            yield 2, f"{self.name} got a batch of {length}, {self.max_batch} are allowed"

    def _judge_company(self, call: Call) -> Iterator[tuple[int, str]]:
        if len(self.at_work) >= self.terms.concurrency:
            yield 1, f"{self.name} is at work {len(self.at_work) + 1} times at once"
        if any(self.terms.key_of(event) != call.key for event in call.events):
            yield 1, f"{self.name} got a batch of several keys: {call.events}"
        if self.terms.is_keyed and any(other.key == call.key for other in self.at_work):
            yield 1, f"{self.name} is at work twice at once for the key {call.key}"

    def _judge_pace(self, call: Call) -> Iterator[tuple[int, str]]:
        rate = self.terms.rate
        if rate is None or self.is_sync:  # a thread may have to wait for its place
            return
        total = len(call.events)
        for before in reversed(self.calls):
            total += len(before.events)
            if total > rate.burst + (call.began - before.began) * rate.limit + ROUNDED:
                yield 2, f"{self.name} got {total} events from {before.began} to {call.began} at {rate}"

    def _judge_again(self, call: Call, again: Again) -> Iterator[tuple[int, str]]:
        if call.events != again.events:
            yield 4, f"{self.name} got {call.events} again, and {again.events} were to come"
        if call.began < again.due - ROUNDED:
            yield 4, f"{self.name} got {call.events} again at {call.began}, due at {again.due}"
        before = [each for each in self.again[: self.again.index(again)] if each.due == -math.inf]
        if self.terms.is_order_kept and any(
            self.terms.is_in_order or each.key == call.key for each in before
        ):
            yield 1, f"{self.name} got {call.events} again before {before[0].events}"

    # -- and ends --------------------------------------------------------------------------------------------------

    def end(self, call: Call, error: BaseException | None, now: float) -> Verdict:
        """It has returned, or raised."""
        verdict = judge(self.terms, call, error, now, self._random)
        call.state = State.DONE if error is None else State.FAILED
        self.ended.append(call)
        call.dead = tuple(event for event in verdict.dead if not isinstance(event, ExceptionEvent))
        call.handled, call.failed = len(verdict.handled), len(verdict.given_up)
        self.handled += call.handled
        self.failed += call.failed
        self.settled.update(verdict.handled)
        self.settled.update(verdict.given_up)
        at_once = [again for again in verdict.again if again.due == -math.inf]
        self.again[:0] = at_once
        self.again += [again for again in verdict.again if again.due != -math.inf]
        if verdict.pauses:
            self.is_paused = self.was_paused = True
        return verdict

    def cancel(self, call: Call) -> None:
        """The engine cut it off."""
        call.state = State.CANCELLED

"""What must hold of a running engine when everything that can go on without time has gone on.

Then every publish that waits must have a reason: a full lane, and behind it, over however many handlers, something that only
the test can end. And the numbers must be those of the ledger.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ledger import Ledger
from records import PLENTY, Author, Call, Fate, State, keep

from event_flow import AppEngine, Event, ExceptionEvent
from event_flow.core.report import HandlerStatistics


@dataclass(frozen=True, slots=True)
class Wait:
    """A publish, or a redelivery, that has not returned, and the handlers for one of which it waits."""

    author: Author
    what: str
    handlers: frozenset[str]
    is_one_of_many: bool = False


class Quiescence:
    """One look at a running engine that is at rest."""

    def __init__(self, ledger: Ledger, engine: AppEngine) -> None:
        self.ledger = ledger
        self.engine = engine
        self.handlers = {name: engine.statistics().handlers[f"engine.{name}"] for name in ledger.wants}
        self.waits = [
            Wait(publication.author, str(event), self._wanting(type(event)), publication.is_one_of_many)
            for event, publication in ledger.publications.items()
            if publication.fate is Fate.PENDING
        ] + [
            Wait(redelivery.author, str(redelivery), frozenset([redelivery.handler]))
            for redelivery in ledger.redeliveries.pending
        ]

    def judge(self) -> None:
        self.ledger.look(self.engine)
        for name, numbers in self.handlers.items():
            self._judge_numbers(name, numbers)
            self._judge_limits(name, numbers)
            self._judge_work(name, numbers)
        many: dict[Author, set[str]] = {}
        for wait in self.waits:
            if wait.is_one_of_many:
                many.setdefault(wait.author, set()).update(wait.handlers)
            else:
                self._judge_wait(wait)
        for author, handlers in many.items():
            keep(3, self._have_reason(handlers, set()), f"{author} waits with many, and nothing can end that")

    # -- promise 4 -------------------------------------------------------------------------------------------------

    def _judge_numbers(self, name: str, numbers: HandlerStatistics) -> None:
        ledger = self.ledger
        done = failed = 0
        for call in ledger.calls[name]:
            if call.state is State.DONE:
                done += len(call.events)
            elif call.state is State.FAILED and not self._is_at_its_end(call, numbers):
                failed += len(call.events)
        keep(4, numbers.handled == done, f"{name} has handled {done} events, not {numbers.handled}")
        keep(4, numbers.failed == failed, f"{name} failed for {failed} events, not {numbers.failed}")
        told = numbers.handled + numbers.failed + numbers.dropped + numbers.running + numbers.queued
        keep(4, numbers.accepted == told, f"the numbers of {name} do not add up: {numbers}")
        things = len(ledger.wanted(name, Fate.MADE))
        perhaps = len(ledger.wanted(name, Fate.UNSURE))
        perhaps += sum(wait.is_one_of_many for wait in self.waits)
        again, perhaps_again = (len(events) for events in ledger.redeliveries.delivered(name))
        things, perhaps = things + again, perhaps + perhaps_again
        least, most = self._failures_for(name)
        keep(
            4,
            things + least <= numbers.accepted <= things + perhaps + most,
            f"{name} was handed {things} (+{perhaps}) events and {least} to {most} failures, not {numbers.accepted}",
        )

    def _failures_for(self, name: str) -> tuple[int, int]:
        """How many ExceptionEvents a handler was handed."""
        if not issubclass(ExceptionEvent, self.ledger.wants[name]):
            return 0, 0
        most = least = 0
        for other, calls in self.ledger.calls.items():
            for call in calls:
                if call.state is State.FAILED and call.ordinary:
                    is_published = not self._is_at_its_end(call, self.handlers[other])
                    most += is_published
                    least += is_published and self.ledger.max_backlog == PLENTY
        return least, most

    def _is_at_its_end(self, call: Call, numbers: HandlerStatistics) -> bool:
        """A call that has failed, and waits to publish that."""
        calls = self.ledger.calls[call.handler]
        if call is not calls[-1] or call.state is not State.FAILED or not numbers.running:
            return False
        return numbers.handled + numbers.failed < sum(len(call.events) for call in calls)

    # -- promise 2 -------------------------------------------------------------------------------------------------

    def _judge_limits(self, name: str, numbers: HandlerStatistics) -> None:
        ledger = self.ledger
        if name not in ledger.in_circle():
            keep(2, not numbers.over_limit, f"{name} went over its limit, and nobody waits in a circle")
        inside = sum(
            event.data.author.handler is not None for event in ledger.wanted(name, Fate.MADE, Fate.UNSURE)
        )
        inside += sum(len(events) for events in ledger.redeliveries.delivered(name, inside=True))
        inside += self._failures_for(name)[1] + sum(wait.author.handler is not None for wait in self.waits)
        keep(
            2,
            numbers.over_limit <= inside,
            f"{numbers.over_limit} over the limit of {name}, {inside} from inside",
        )

    # -- promise 3 -------------------------------------------------------------------------------------------------

    def _judge_work(self, name: str, numbers: HandlerStatistics) -> None:
        """A handler for which something is queued is at work, unless all places for threads are taken."""
        call = self.ledger.current(name)
        if call is not None:
            keep(4, numbers.running == len(call.events), f"{name} runs {call.events}, not {numbers.running}")
            if call.state is State.WORKS:
                keep(3, self._of_call(call), f"a call of {name} is at work, and waits for nothing")
        elif numbers.queued or numbers.running:
            keep(3, self._can_be_freed(name, set()), f"{name} does nothing: {numbers}")

    def _of_call(self, call: Call) -> bool:
        return any(wait.author.handler == call.handler for wait in self.waits)

    def _judge_wait(self, wait: Wait) -> None:
        if wait.author.handler is None:
            keep(3, any(map(self._is_full, wait.handlers)), f"{wait.what} waits although there is room")
        keep(3, self._have_reason(wait.handlers, set()), f"{wait.what} waits, and nothing can end that")

    def _have_reason(self, handlers: Collection[str], looked_at: set[str]) -> bool:
        """Whether one of the handlers that a publish may wait for will have room once the test lets something go on."""
        return any(self._is_full(name) and self._can_be_freed(name, looked_at) for name in handlers)

    def _can_be_freed(self, name: str, looked_at: set[str]) -> bool:
        if name in looked_at:
            return False
        looked_at.add(name)
        call = self.ledger.current(name)
        if call is not None and call.state is State.WAITS:
            return True
        if call is not None:
            mine = set().union(*(wait.handlers for wait in self.waits if wait.author.handler == name))
            return self._have_reason(mine, looked_at)
        calls, numbers = self.ledger.calls[name], self.handlers[name]
        if calls and self._is_at_its_end(calls[-1], numbers):
            return self._have_reason(self._wanting(ExceptionEvent), looked_at)
        if name in self.ledger.sync and numbers.running:
            return self._places_are_taken()
        return False

    def _places_are_taken(self) -> bool:
        """By sync calls that wait at their gates. Those that publish lend their places meanwhile."""
        calls = [self.ledger.current(name) for name in self.ledger.sync]
        waiting = sum(call is not None and call.state is State.WAITS for call in calls)
        return waiting >= self.ledger.max_threads

    def _wanting(self, event_class: type[Event[Any]]) -> frozenset[str]:
        return frozenset(
            name for name, wanted in self.ledger.wants.items() if issubclass(event_class, wanted)
        )

    def _is_full(self, name: str) -> bool:
        return self.handlers[name].queued >= self.ledger.queue_size

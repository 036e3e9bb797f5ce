"""What must hold of a running engine when everything that can go on without time has gone on.

Then every publish that waits must have a reason: a full lane, and behind it, over however many handlers, something that only
the test can end, or time. And the numbers must be those of the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

from docket import ROUNDED, Docket
from ledger import Ledger
from records import Author, Call, Fate, State, keep

from event_flow import AppEngine, EngineState, Event, ExceptionEvent
from event_flow.core.report import HandlerStatistics


@dataclass(frozen=True, slots=True)
class Wait:
    """A publish, or a redelivery, that has not returned, and the handlers for one of which it waits."""

    author: Author
    what: str
    handlers: frozenset[str]
    is_one_of_many: bool = False


class Quiescence:
    """One look at a running engine that is at rest, at this time."""

    def __init__(self, ledger: Ledger, engine: AppEngine, now: float) -> None:
        self.ledger = ledger
        self.engine = engine
        self.now = now
        self.is_draining = engine.state is EngineState.DRAINING
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
        for docket in self.ledger.dockets.values():
            numbers = self.handlers[docket.name]
            self._judge_numbers(docket, numbers)
            self._judge_limits(docket, numbers)
            self._judge_work(docket, numbers)
        many: dict[Author, set[str]] = {}
        for wait in self.waits:
            if wait.is_one_of_many:
                many.setdefault(wait.author, set()).update(wait.handlers)
            else:
                self._judge_wait(wait)
        for author, handlers in many.items():
            keep(3, self._have_reason(handlers, set()), f"{author} waits with many, and nothing can end that")

    def judge_work(self) -> None:
        """That is all there is to say of an engine that drains."""
        for docket in self.ledger.dockets.values():
            self._judge_work(docket, self.handlers[docket.name])

    # -- promise 4 -------------------------------------------------------------------------------------------------

    def _judge_numbers(self, docket: Docket, numbers: HandlerStatistics) -> None:
        name, ledger = docket.name, self.ledger
        ending = self._at_their_end(docket)
        for what, seen, told, most in (
            ("handled", docket.handled, numbers.handled, sum(call.handled for call in ending)),
            ("failed", docket.failed, numbers.failed, sum(call.failed for call in ending)),
        ):
            keep(4, seen - most <= told <= seen, f"{name} has {what} {seen} events, not {told}")
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
        keep(4, docket.terms.drops or not numbers.dropped, f"{name} has dropped {numbers.dropped}")
        if docket.is_sync:  # the engine may have heard of the failure that pauses it after it was resumed
            keep(4, docket.was_paused or not numbers.paused, f"{name} is paused, and nobody asked for it")
        else:
            keep(
                4,
                numbers.paused == docket.is_paused,
                f"{name} is to be paused: {docket.is_paused}; {numbers}",
            )

    def _failures_for(self, name: str) -> tuple[int, int]:
        """How many ExceptionEvents a handler was handed."""
        ledger = self.ledger
        if not issubclass(ExceptionEvent, ledger.wants[name]):
            return 0, 0
        most = sum(bool(call.dead) for call in ledger.calls) - ledger.filtered_letters
        if not ledger.are_letters_sure:
            return 0, most
        return most - sum(len(self._at_their_end(docket)) for docket in ledger.dockets.values()), most

    def _at_their_end(self, docket: Docket) -> list[Call]:
        """The calls that have failed, and may wait to publish that."""
        at_work, numbers = docket.at_work, self.handlers[docket.name]
        left = numbers.running - sum(len(call.events) for call in at_work)
        if not left or numbers.handled + numbers.failed == docket.handled + docket.failed:
            return []
        told = [call for call in docket.calls if call.is_over and call.dead and len(call.events) <= left]
        return told[-docket.terms.concurrency :] if docket.terms.concurrency > 1 else told[-1:]

    # -- promise 2 -------------------------------------------------------------------------------------------------

    def _judge_limits(self, docket: Docket, numbers: HandlerStatistics) -> None:
        name, ledger = docket.name, self.ledger
        if docket.terms.overflow != "wait":
            keep(2, not numbers.over_limit, f"{name} went over its limit, and lets nobody wait")
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

    def _judge_work(self, docket: Docket, numbers: HandlerStatistics) -> None:
        """A handler for which something is queued is at work, unless there is a reason."""
        name, at_work = docket.name, docket.at_work
        running = sum(len(call.events) for call in at_work)
        keep(4, numbers.running >= running, f"{name} runs {at_work}, not {numbers.running}")
        timeout = docket.terms.timeout
        for call in at_work:
            if call.state is State.WORKS:
                has_reason = self._of_call(call) or (docket.is_sync and self._places_are_taken())
                keep(3, has_reason, f"a call of {name} is at work, and waits for nothing")
            if timeout is not None and not docket.is_sync:
                keep(3, self.now <= call.began + timeout + ROUNDED, f"{call} takes longer than {timeout} s")
        if numbers.running > running:
            keep(3, self._can_be_freed(name, set()), f"{name} does nothing: {numbers}")
        elif len(at_work) < docket.terms.concurrency and numbers.queued and not numbers.paused:
            keep(3, self._waits_for_time(docket, numbers), f"{name} has workers that do nothing: {numbers}")

    def _waits_for_time(self, docket: Docket, numbers: HandlerStatistics) -> bool:
        """Whether no worker may take anything that is queued, by the options of the handler."""
        terms = docket.terms
        if terms.rate is not None and docket.calls:
            # At the latest then all of the burst is there again.
            last = max(call.began for call in docket.calls)
            if self.now < last + terms.rate.burst / terms.rate.limit + ROUNDED:
                return True
        taken: set[Hashable] = {call.key for call in docket.at_work} if terms.is_keyed else set()
        for again in docket.again:
            if self.now > again.due_at_last + ROUNDED and again.key not in taken:
                return False
        if terms.is_order_kept:
            taken |= {again.key for again in docket.again}
        if numbers.queued == docket.to_come_again:
            return True
        return self._may_linger(docket, taken)

    def _may_linger(self, docket: Docket, taken: set[Hashable]) -> bool:
        """Whether all that was not tried yet is of keys that are taken, or waits for company."""
        terms = docket.terms
        if terms.is_in_order and None in taken:
            return True
        name = docket.name
        if terms.drops or issubclass(ExceptionEvent, self.ledger.wants[name]):
            # It is not known what is queued.
            return bool(terms.is_keyed and taken) or bool(terms.linger and not self.is_draining)
        for event in self.ledger.wanted(name, Fate.MADE):
            publication = event.data
            if name in publication.seen_by or terms.key_of(event) in taken:
                continue
            if (
                self.is_draining
                or not terms.linger
                or self.now > publication.made_at + terms.linger + ROUNDED
            ):
                return False
        return True

    def _of_call(self, call: Call) -> bool:
        return any(
            wait.author.handler == call.handler and wait.author.call == call.number for wait in self.waits
        )

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
        docket, numbers = self.ledger.dockets[name], self.handlers[name]
        at_work = docket.at_work
        if numbers.paused or any(call.state is State.WAITS for call in at_work):
            return True
        if docket.is_sync and numbers.running and self._places_are_taken():
            return True
        if any(self._have_reason(self._waited_for(call), looked_at) for call in at_work):
            return True
        if self._at_their_end(docket) and self._have_reason(self._wanting(ExceptionEvent), looked_at):
            return True
        return len(at_work) < docket.terms.concurrency and self._is_held_back(docket)

    def _waited_for(self, call: Call) -> set[str]:
        """The handlers for one of which the publishes of a call wait."""
        mine = (wait for wait in self.waits if wait.author.handler == call.handler)
        return set().union(*(wait.handlers for wait in mine if wait.author.call == call.number))

    def _is_held_back(self, docket: Docket) -> bool:
        """Whether time will go by before it may take what is queued, although its lane is full: so not to wait for company."""
        rate = docket.terms.rate
        last = max((call.began for call in docket.calls), default=self.now)
        is_metered = rate is not None and self.now < last + rate.burst / rate.limit + ROUNDED
        return is_metered or any(self.now <= again.due_at_last + ROUNDED for again in docket.again)

    def _places_are_taken(self) -> bool:
        """By sync calls that wait at their gates. Those that publish lend their places meanwhile."""
        return self.ledger.in_threads >= self.ledger.max_threads

    def _wanting(self, event_class: type[Event[Any]]) -> frozenset[str]:
        """The handlers that want it."""
        return frozenset(
            name for name, wanted in self.ledger.wants.items() if issubclass(event_class, wanted)
        )

    def _is_full(self, name: str) -> bool:
        docket = self.ledger.dockets[name]
        return docket.terms.overflow == "wait" and self.handlers[name].queued >= docket.queue_size

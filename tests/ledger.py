"""What a state machine saw of one run of an engine, and what the promises say of it. It knows nothing of how the engine works.

Who publishes writes down what became of it, handlers write down what they got; both may be in threads, which take turns. All
the promises are judged by that, and by the numbers that the engine shows to everybody. A broken one is named by its number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from docket import Docket
from records import PLENTY, Author, Call, Fate, Green, Publication, Redelivery, Thing, keep
from redeliveries import Redeliveries

from event_flow import AppEngine, EngineClosed, EngineState, Event, ExceptionEvent

# From `stop()` on only those inside publish, and after the grace period nobody.
CLOSED = (EngineState.DRAINING, EngineState.STOPPING, EngineState.STOPPED)


@dataclass
class Ledger:
    """One run. `wants` says which classes each handler wants, `dockets` what else it was declared with."""

    wants: dict[str, tuple[type[Event[Any]], ...]]
    dockets: dict[str, Docket]
    max_backlog: int
    max_threads: int
    is_replaced: bool = False  # whether a Green thing may take the place of another
    publications: dict[Thing, Publication] = field(default_factory=dict)
    redeliveries: Redeliveries = field(default_factory=Redeliveries)
    letters: list[ExceptionEvent] = field(default_factory=list)  # failures that handlers were told of
    # Which handler may publish what, by all it was told so far.
    publishes: dict[str, set[type[Event[Any]]]] = field(default_factory=dict)
    filtered: int = 0  # events that a filter has dropped
    filtered_letters: int = 0  # failures among them
    broken: list[tuple[int, str]] = field(default_factory=list)  # seen to be wrong on the way
    may_raise: list[str] = field(default_factory=list)  # what ends the engine by itself

    def __post_init__(self) -> None:
        for name in self.wants:
            self.publishes[name] = set()

    # -- what is written down --------------------------------------------------------------------------------------

    def enter(self, name: str, events: list[Event[Any]], now: float, *, is_on_loop: bool) -> Call:
        """An attempt of a handler begins."""
        call, broken = self.dockets[name].enter(events, now, is_on_loop=is_on_loop)
        self.broken += broken
        if call.attempt == 1:
            for event in events:
                self._note_seen(name, event)
        if is_on_loop and self.dockets[name].terms.overflow == "latest":
            self._judge_latest(name, call)
        return call

    def _judge_latest(self, name: str, call: Call) -> None:
        """What waits is replaced by what is newer."""
        key_of = self.dockets[name].terms.key_of
        for event in call.events if call.attempt == 1 else ():
            for newer in self.wanted(name, Fate.MADE):
                if (
                    isinstance(event, Thing)
                    and newer.data.author == event.data.author
                    and newer.data.serial > event.data.serial
                    and newer.data.made_at < call.began
                    and name not in newer.data.seen_by
                    and key_of(newer) == call.key
                    and not self.redeliveries.asked
                ):
                    self.broken.append((4, f"{name} got {event}, and {newer} had come after it"))

    def _note_seen(self, name: str, event: Event[Any]) -> None:
        if not isinstance(event, self.wants[name]):
            self.broken.append((4, f"{name} got {event}, which it does not want"))
        if isinstance(event, ExceptionEvent):
            failed = self.dockets[handler_of(event)]
            if not any(call.dead == event.events and call.attempt == event.attempt for call in failed.calls):
                self.broken.append((4, f"{name} got {event}, but nothing failed like that"))
            self.letters.append(event)
            return
        assert isinstance(event, Thing)
        publication = event.data
        if publication.fate is Fate.REFUSED:
            self.broken.append((5, f"{name} got {event}, which was refused or cancelled"))
        if publication.is_filtered:
            self.broken.append((4, f"{name} got {event}, which a filter has dropped"))
        if name in publication.seen_by:
            self.broken += self.redeliveries.note_seen(name, event, self.dockets[name].terms)
        publication.seen_by.add(name)
        # The publish cannot say so before it gets its turn, or not at all.
        publication.fate = Fate.MADE

    def ask_again(self, failure: ExceptionEvent, author: Author, began: EngineState) -> Redelivery | None:
        """Somebody is about to redeliver. None if he must not: often enough, or some of it will come in any case."""
        handler = handler_of(failure)
        if not self.redeliveries.may_ask(handler, failure.events):
            return None
        if any(map(self.dockets[handler].is_awaited, failure.events)):
            return None
        redelivery = Redelivery(author, handler, failure.events, began)
        self.redeliveries.asked.append(redelivery)
        return redelivery

    def judge_refusal(self, exc: BaseException, what: object, author: Author, state: EngineState) -> None:
        """A publish, or a redelivery, has raised."""
        is_open = state is EngineState.RUNNING or (state is EngineState.DRAINING and author.is_inside)
        if isinstance(exc, EngineClosed) and is_open:
            self.broken.append((4, f"{what} was refused although the engine is {state.value}"))

    def judge_acceptance(self, made: Publication | Redelivery, now: float) -> None:
        """A publish, or a redelivery, has returned."""
        made.fate, made.made_at = Fate.MADE, now
        if isinstance(made, Publication) and made.is_filtered:
            return
        if made.began in CLOSED and not (made.author.is_inside and made.began is EngineState.DRAINING):
            self.broken.append((7, f"{made} was taken although the engine was {made.began.value} before"))

    def look(self, engine: AppEngine) -> None:
        """No lane ever holds more than it may, but for what is to come again, what is counted, and what came before the start."""
        for name, docket in self.dockets.items():
            numbers = engine.statistics().handlers.get(f"engine.{name}")
            limit = min(docket.queue_size, docket.terms.most_queued)
            if numbers is None or numbers.queued <= limit:
                continue
            over = numbers.queued - limit - docket.to_come_again
            early = sum(
                publication.is_early and isinstance(event, self.wants[name])
                for event, publication in self.publications.items()
            )
            passed = min(numbers.over_limit, self.max_backlog) if docket.terms.overflow == "wait" else 0
            may_pass = 0 if docket.terms.drops else early + passed
            if over > may_pass:
                self.broken.append((2, f"{name} has {over} events over its limit, {early} early: {numbers}"))

    # -- derived ---------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Publication | Redelivery]:
        """What has not returned."""
        asked: list[Publication | Redelivery] = [*self.publications.values(), *self.redeliveries.asked]
        return [each for each in asked if each.fate is Fate.PENDING]

    def wanted(self, name: str, *fates: Fate) -> list[Thing]:
        return [
            event
            for event, publication in self.publications.items()
            if publication.fate in fates
            and not publication.is_filtered
            and isinstance(event, self.wants[name])
        ]

    @property
    def calls(self) -> Iterator[Call]:
        return (call for docket in self.dockets.values() for call in docket.calls)

    @property
    def in_threads(self) -> int:
        """How many sync calls are at their gates."""
        return sum(call.is_at_gate for call in self.calls)

    def in_circle(self) -> set[str]:
        """Handlers whose events may come back to them."""
        follows = {
            name: {
                other
                for other, wanted in self.wants.items()
                if any(issubclass(published, wanted) for published in self._published_by(name))
                or other in self.redeliveries.targets_of(name)
            }
            for name in self.wants
        }
        for middle in follows:
            for reached in follows.values():
                if middle in reached:
                    reached.update(follows[middle])
        return {name for name in follows if name in follows[name]}

    def _published_by(self, name: str) -> set[type[Event[Any]]]:
        published = self.publishes[name]
        if published and self.is_replaced:
            published = published | {Green}
        has_failed = any(call.dead for call in self.dockets[name].calls)
        return published | ({ExceptionEvent} if has_failed else set())

    @property
    def are_letters_sure(self) -> bool:
        """Whether what is given up is told of in any case."""
        return self.max_backlog == PLENTY and not any(
            docket.terms.overflow == "error"
            for docket in self.dockets.values()
            if issubclass(ExceptionEvent, self.wants[docket.name])
        )

    # -- what must hold at any moment ------------------------------------------------------------------------------

    def judge(self) -> None:
        for number, what in self.broken:
            keep(number, False, what)
        self._judge_order()

    def _judge_order(self) -> None:
        for name, docket in self.dockets.items():
            terms = docket.terms
            last: dict[Hashable, int] = {}
            # What came again has an order of its own.
            for event in dict.fromkeys(docket.seen) if terms.is_order_kept else ():
                if isinstance(event, Thing):
                    publication = event.data
                    line = publication.author.name, terms.key_of(event)
                    before = last.get(line, -1)
                    keep(1, publication.serial > before, f"{name} got {publication} after number {before}")
                    last[line] = publication.serial


def handler_of(failure: ExceptionEvent) -> str:
    """Who failed, by the name that the traffic has for it."""
    return failure.handler.removeprefix("engine.")

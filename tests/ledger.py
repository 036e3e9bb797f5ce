"""What a state machine saw of one run of an engine, and what the promises say of it. It knows nothing of how the engine works.

Who publishes writes down what became of it, handlers write down what they got; both may be in threads, which take turns. All
the promises are judged by that, and by the numbers that the engine shows to everybody. A broken one is named by its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from records import ENDED, PLENTY, Author, Call, Fate, Publication, Redelivery, State, Thing, keep
from redeliveries import Redeliveries

from event_flow import AppEngine, EngineClosed, EngineState, Event, ExceptionEvent, ShutdownReport

# From `stop()` on only those inside publish, and after the grace period nobody.
CLOSED = (EngineState.DRAINING, EngineState.STOPPING, EngineState.STOPPED)


@dataclass
class Ledger:
    """One run. `wants` says which classes each handler wants, `sync` which of the handlers run in threads."""

    wants: dict[str, tuple[type[Event[Any]], ...]]
    sync: set[str]
    queue_size: int
    max_batch: int
    max_backlog: int
    max_threads: int
    publications: dict[Thing, Publication] = field(default_factory=dict)
    redeliveries: Redeliveries = field(default_factory=Redeliveries)
    letters: list[ExceptionEvent] = field(default_factory=list)  # failures that handlers were told of
    calls: dict[str, list[Call]] = field(default_factory=dict)
    # Which handler may publish what, by all it was told so far.
    publishes: dict[str, set[type[Event[Any]]]] = field(default_factory=dict)
    broken: list[tuple[int, str]] = field(default_factory=list)  # seen to be wrong on the way
    may_raise: list[str] = field(default_factory=list)  # what ends the engine by itself

    def __post_init__(self) -> None:
        for name in self.wants:
            self.calls[name] = []
            self.publishes[name] = set()

    # -- what is written down --------------------------------------------------------------------------------------

    def enter(self, name: str, events: list[Event[Any]]) -> Call:
        """A handler was called."""
        calls = self.calls[name]
        call = Call(name, list(events))
        if calls and calls[-1].state not in ENDED:
            self.broken.append((1, f"{name} was entered twice"))
        if not 1 <= len(events) <= self.max_batch:
            self.broken.append((2, f"{name} got a batch of {len(events)}, max_batch is {self.max_batch}"))
        for event in events:
            self._note_seen(name, event)
        calls.append(call)
        return call

    def _note_seen(self, name: str, event: Event[Any]) -> None:
        if not isinstance(event, self.wants[name]):
            self.broken.append((4, f"{name} got {event}, which it does not want"))
        if isinstance(event, ExceptionEvent):
            if not any(
                call.state is State.FAILED and call.ordinary == event.events
                for call in self.calls.get(event.handler.removeprefix("engine."), ())
            ):
                self.broken.append((4, f"{name} got {event}, but nothing failed like that"))
            self.letters.append(event)
            return
        assert isinstance(event, Thing)
        publication = event.data
        if publication.fate is Fate.REFUSED:
            self.broken.append((5, f"{name} got {event}, which was refused or cancelled"))
        if name in publication.seen_by:
            self.broken += self.redeliveries.note_seen(name, event)
        publication.seen_by.add(name)
        # The publish cannot say so before it gets its turn, or not at all.
        publication.fate = Fate.MADE

    def ask_again(self, failure: ExceptionEvent, author: Author, began: EngineState) -> Redelivery | None:
        """Somebody is about to redeliver. None if he must not: often enough, or some of it is still under way."""
        handler = failure.handler.removeprefix("engine.")
        if not self.redeliveries.may_ask(handler, failure.events):
            return None
        redelivery = Redelivery(author, handler, failure.events, began)
        self.redeliveries.asked.append(redelivery)
        return redelivery

    def judge_refusal(self, exc: BaseException, what: object, author: Author, state: EngineState) -> None:
        """A publish, or a redelivery, has raised."""
        is_open = state is EngineState.RUNNING or (state is EngineState.DRAINING and author.is_inside)
        if isinstance(exc, EngineClosed) and is_open:
            self.broken.append((4, f"{what} was refused although the engine is {state.value}"))

    def judge_acceptance(self, made: Publication | Redelivery) -> None:
        """A publish, or a redelivery, has returned."""
        if made.began in CLOSED and not (made.author.is_inside and made.began is EngineState.DRAINING):
            self.broken.append((7, f"{made} was taken although the engine was {made.began.value} before"))

    def look(self, engine: AppEngine) -> None:
        """No lane ever holds more than it may, but for what is counted and what came before the start."""
        for name, wanted in self.wants.items():
            numbers = engine.statistics().handlers.get(f"engine.{name}")
            if numbers is None or numbers.queued <= self.queue_size:
                continue
            over = numbers.queued - self.queue_size
            early = sum(
                publication.is_early and isinstance(event, wanted)
                for event, publication in self.publications.items()
            )
            if over > early + min(numbers.over_limit, self.max_backlog):
                self.broken.append((2, f"{name} has {over} events over its limit, {early} early: {numbers}"))

    # -- derived ---------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Publication | Redelivery]:
        """What has not returned."""
        asked: list[Publication | Redelivery] = [*self.publications.values(), *self.redeliveries.asked]
        return [each for each in asked if each.fate is Fate.PENDING]

    def seen(self, name: str) -> Iterator[Event[Any]]:
        return (event for call in self.calls[name] for event in call.events)

    def wanted(self, name: str, *fates: Fate) -> list[Thing]:
        return [
            event
            for event, publication in self.publications.items()
            if publication.fate in fates and isinstance(event, self.wants[name])
        ]

    def current(self, name: str) -> Call | None:
        calls = self.calls[name]
        return calls[-1] if calls and calls[-1].state not in ENDED else None

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
        has_failed = any(call.state is State.FAILED for call in self.calls[name])
        return self.publishes[name] | ({ExceptionEvent} if has_failed else set())

    # -- what must hold at any moment ------------------------------------------------------------------------------

    def judge(self) -> None:
        for number, what in self.broken:
            keep(number, False, what)
        self._judge_order()

    def _judge_order(self) -> None:
        for name in self.wants:
            last: dict[str, int] = {}
            # What came again has an order of its own.
            for event in dict.fromkeys(self.seen(name)):
                if isinstance(event, Thing):
                    publication = event.data
                    author = publication.author.name
                    before = last.get(author, -1)
                    keep(1, publication.serial > before, f"{name} got {publication} after number {before}")
                    last[author] = publication.serial

    # -- what must hold at the end ---------------------------------------------------------------------------------

    def judge_end(self, engine: AppEngine, *, is_drained: bool) -> None:
        """Everything has ended. `is_drained`: handlers had all the time they wanted."""
        report = engine.report
        assert report is not None
        self.judge()
        total = report.handled + report.failed + report.dropped + report.abandoned
        keep(4, report.accepted == total, f"the report does not add up: {report}")
        keep(4, not report.dropped, "something was dropped")
        for name in self.wants:
            self._judge_handler(name, engine, report)
        if is_drained and not self.may_raise:
            keep(7, not report.abandoned, f"abandoned although there was time: {report.abandoned_events}")
        if not report.abandoned:
            self._judge_whole()
        self._judge_failures(report, is_drained=is_drained)
        self._judge_unhandled(report)

    def _judge_handler(self, name: str, engine: AppEngine, report: ShutdownReport) -> None:
        numbers = engine.statistics().handlers[f"engine.{name}"]
        abandoned = report.abandoned_events.get(f"engine.{name}", {})
        crossing = sum(len(call.events) for call in self.calls[name][-1:] if call.may_cross)
        handled = sum(len(call.events) for call in self.calls[name] if call.state is State.DONE)
        failed = sum(len(call.events) for call in self.calls[name] if call.state is State.FAILED)
        for what, seen, told in (("handled", handled, numbers.handled), ("failed", failed, numbers.failed)):
            right = seen - crossing <= told <= seen if crossing else told == seen
            keep(4, right, f"{name} has {what} {seen} events, and the report says {told}")
        settled = Counter(
            event
            for call in self.calls[name]
            if call.state in (State.DONE, State.FAILED)
            for event in call.events
        )
        sure, perhaps = self.redeliveries.delivered(name)
        made = Counter(self.wanted(name, Fate.MADE)) + Counter(sure)
        lost = Counter(type(event).__name__ for event in (made - settled).elements())
        unsure = Counter(type(event).__name__ for event in [*self.wanted(name, Fate.UNSURE), *perhaps])
        for event_class in {*lost, *unsure, *abandoned} - {ExceptionEvent.__name__}:
            least, told = lost[event_class], abandoned.get(event_class, 0)
            most = least + unsure[event_class] + crossing
            keep(4, least <= told <= most, f"{name} lost {least} {event_class}, and the report says {told}")

    def _judge_whole(self) -> None:
        for event, publication in self.publications.items():
            wanting = {name for name, wanted in self.wants.items() if isinstance(event, wanted)}
            if publication.fate is Fate.MADE or publication.seen_by:
                keep(
                    5, publication.seen_by == wanting, f"{event} was published for {wanting}, not all got it"
                )
        for redelivery in self.redeliveries.asked:
            if redelivery.fate is Fate.MADE:
                keep(4, not redelivery.is_under_way, f"{redelivery}: only {redelivery.seen} came")

    def _judge_failures(self, report: ShutdownReport, *, is_drained: bool) -> None:
        failed = sum(
            call.state is State.FAILED and bool(call.ordinary)
            for calls in self.calls.values()
            for call in calls
        )
        for name, wanted in self.wants.items():
            if issubclass(ExceptionEvent, wanted):
                settled = [call for call in self.calls[name] if call.state in (State.DONE, State.FAILED)]
                got = sum(isinstance(event, ExceptionEvent) for call in settled for event in call.events)
                got += report.abandoned_events.get(f"engine.{name}", {}).get(ExceptionEvent.__name__, 0)
                keep(4, got <= failed + PLENTY * bool(report.abandoned), f"{got} ExceptionEvents of {failed}")
                if is_drained and not self.may_raise and self.max_backlog == PLENTY:
                    keep(4, got == failed, f"{name} was handed {got} ExceptionEvents, {failed} calls failed")

    def _judge_unhandled(self, report: ShutdownReport) -> None:
        wanted = tuple({event_class for classes in self.wants.values() for event_class in classes})
        fates = Counter(
            publication.fate
            for event, publication in self.publications.items()
            if not isinstance(event, wanted)
        )
        least, most = fates[Fate.MADE], fates[Fate.MADE] + fates[Fate.UNSURE]
        told = report.unhandled
        keep(4, least <= told <= most, f"{least} to {most} events were unhandled, and the report says {told}")

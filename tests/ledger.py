"""What a state machine saw of one run of an engine, and what the promises say of it. It knows nothing of how the engine works.

Who publishes writes down what became of it, handlers write down what they got; both may be in threads, which take turns. All
the promises are judged by that, and by the numbers that the engine shows to everybody. A broken one is named by its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from event_flow import AppEngine, Event, ExceptionEvent, ShutdownReport

PROMISES = {
    1: "order",
    2: "bounded",
    3: "no deadlock",
    4: "exactly once",
    5: "all or nothing",
    6: "isolation",
    7: "clean end",
}
PLENTY = 10_000


def keep(number: int, holds: object, otherwise: object) -> None:
    """Raise an `AssertionError` that names the promise, unless it `holds`."""
    if not holds:
        raise AssertionError(f"promise {number}, {PROMISES[number]}: {otherwise}")


class Fate(Enum):
    PENDING = "the publish has not returned"
    MADE = "it has returned, or a handler has got the event"
    REFUSED = "it was cancelled, or raised"
    UNSURE = "one of many in a publish that was cut short"


@dataclass(eq=False, slots=True)
class Publication:
    """One event that was published."""

    publisher: str
    serial: int
    generation: int  # how many handlers are behind it
    inside: str | None = None  # whose call publishes it
    is_one_of_many: bool = False
    is_early: bool = False  # before the handlers run
    fate: Fate = Fate.PENDING
    seen_by: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"{self.publisher}:{self.serial}"


class Thing(Event[Publication]):
    pass


class Red(Thing):
    pass


class DarkRed(Red):
    pass


class Green(Thing):
    pass


class State(Enum):
    WORKS = "it is on its way"
    WAITS = "it waits at its gate, or for time to pass"
    DONE = "it has returned"
    FAILED = "it has raised"
    CANCELLED = "it was cancelled by the engine"


ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(eq=False, slots=True)
class Call:
    """One call of a handler, as the handler saw it."""

    handler: str
    events: list[Event[Any]]
    state: State = State.WORKS
    # What became of it may cross with a hard end: the engine hears too late of a thread that is done, or it cancels a task
    # that just cancelled itself.
    may_cross: bool = False

    @property
    def ordinary(self) -> tuple[Event[Any], ...]:
        return tuple(event for event in self.events if not isinstance(event, ExceptionEvent))


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
            return
        assert isinstance(event, Thing)
        publication = event.data
        if publication.fate is Fate.REFUSED:
            self.broken.append((5, f"{name} got {event}, which was refused or cancelled"))
        if name in publication.seen_by:
            self.broken.append((4, f"{name} got {event} twice"))
        publication.seen_by.add(name)
        # The publish cannot say so before it gets its turn, or not at all.
        publication.fate = Fate.MADE

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
            for event in self.seen(name):
                if isinstance(event, Thing):
                    publication = event.data
                    before = last.get(publication.publisher, -1)
                    keep(1, publication.serial > before, f"{name} got {publication} after number {before}")
                    last[publication.publisher] = publication.serial

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
        lost = Counter(
            type(event).__name__
            for event in self.wanted(name, Fate.MADE)
            if not any(
                event in call.events for call in self.calls[name] if call.state in (State.DONE, State.FAILED)
            )
        )
        unsure = Counter(type(event).__name__ for event in self.wanted(name, Fate.UNSURE))
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

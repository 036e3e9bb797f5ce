"""What a state machine saw of one run of an engine, and what the promises say of it. It knows nothing of how the engine works.

Who publishes writes down what became of it, handlers write down what they got; both may be in threads, which take turns. All
the promises are judged by that, and by the numbers that the engine shows to everybody. A broken one is named by its number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from docket import Docket
from records import PLENTY, Author, Call, Fate, Green, Publication, Redelivery, Thing, keep
from redeliveries import Redeliveries

from event_flow import AppEngine, EngineClosed, EngineState, Event, ExceptionEvent, ShutdownReport

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
        return call

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
        """Somebody is about to redeliver. None if he must not: often enough, or some of it is still under way."""
        handler = handler_of(failure)
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

    # -- what must hold at the end ---------------------------------------------------------------------------------

    def judge_end(self, engine: AppEngine, *, is_drained: bool) -> None:
        """Everything has ended. `is_drained`: handlers had all the time they wanted."""
        report = engine.report
        assert report is not None
        self.judge()
        total = report.handled + report.failed + report.dropped + report.abandoned
        keep(4, report.accepted == total, f"the report does not add up: {report}")
        filtered = report.filtered
        keep(
            4,
            filtered == self.filtered,
            f"{self.filtered} events were filtered out, and the report says {filtered}",
        )
        for docket in self.dockets.values():
            self._judge_handler(docket, engine, report)
        if is_drained and not self.may_raise:
            keep(7, not report.abandoned, f"abandoned although there was time: {report.abandoned_events}")
        if not report.abandoned:
            self._judge_whole()
        self._judge_failures(report, is_drained=is_drained)
        self._judge_unhandled(report)

    def _judge_handler(self, docket: Docket, engine: AppEngine, report: ShutdownReport) -> None:
        name = docket.name
        numbers = engine.statistics().handlers[f"engine.{name}"]
        abandoned = report.abandoned_events.get(f"engine.{name}", {})
        crossing = [call for call in docket.calls[-docket.terms.concurrency :] if call.may_cross]
        for what, seen, told, most in (
            ("handled", docket.handled, numbers.handled, sum(call.handled for call in crossing)),
            ("failed", docket.failed, numbers.failed, sum(call.failed for call in crossing)),
        ):
            keep(
                4, seen - most <= told <= seen, f"{name} has {what} {seen} events, and the report says {told}"
            )
        sure, perhaps = self.redeliveries.delivered(name)
        made = Counter(self.wanted(name, Fate.MADE)) + Counter(sure)
        lost = Counter(type(event).__name__ for event in (made - docket.settled).elements())
        unsure = Counter(type(event).__name__ for event in [*self.wanted(name, Fate.UNSURE), *perhaps])
        unsure.update(type(event).__name__ for call in crossing for event in call.events)
        letter = ExceptionEvent.__name__
        dropped = numbers.dropped
        keep(4, docket.terms.drops or not dropped, f"{name} has dropped {dropped}")
        if dropped and not (numbers.abandoned or unsure or sure or perhaps):
            self._judge_dropped(docket)
        for event_class in {*lost, *unsure, *abandoned} - {letter}:
            least, told = lost[event_class], abandoned.get(event_class, 0)
            most = least + unsure[event_class]
            keep(
                4,
                least - dropped <= told <= most,
                f"{name} lost {least} {event_class} and dropped {dropped}, and the report says {told}",
            )
        if not issubclass(ExceptionEvent, self.wants[name]):
            told, least, most = numbers.abandoned + dropped, lost.total(), lost.total() + unsure.total()
            keep(
                4, least <= told <= most, f"{name} lost {least} events to {most}, and the report says {told}"
            )

    def _judge_dropped(self, docket: Docket) -> None:
        """Where nothing is tried again, what came last of all is never dropped for what is older, nor the other way round."""
        name, terms = docket.name, docket.terms
        first, last = dict[str, bool](), dict[str, bool]()
        for event in self.wanted(name, Fate.MADE):
            author, is_seen = event.data.author.name, name in event.data.seen_by
            first.setdefault(author, is_seen)
            last[author] = is_seen
        is_only = not issubclass(ExceptionEvent, self.wants[name])
        if is_only and all(call.attempt == 1 for call in docket.calls):
            kept = first if terms.overflow == "drop_newest" else last
            which = "first" if terms.overflow == "drop_newest" else "last"
            keep(4, any(kept.values()), f"{name} with {terms} has dropped what came {which}")

    def _judge_whole(self) -> None:
        dropping = {name for name, docket in self.dockets.items() if docket.terms.drops}
        for event, publication in self.publications.items():
            wanting = {name for name, wanted in self.wants.items() if isinstance(event, wanted)}
            if publication.is_filtered:
                continue
            if publication.fate is Fate.MADE or publication.seen_by:
                keep(
                    5,
                    wanting - dropping <= publication.seen_by <= wanting,
                    f"{event} was published for {wanting}, not all got it",
                )
        for redelivery in self.redeliveries.asked:
            if redelivery.fate is Fate.MADE and redelivery.handler not in dropping:
                keep(4, not redelivery.is_under_way, f"{redelivery}: only {redelivery.came} came")

    def _judge_failures(self, report: ShutdownReport, *, is_drained: bool) -> None:
        failed = sum(bool(call.dead) for call in self.calls) - self.filtered_letters
        for name, wanted in self.wants.items():
            if issubclass(ExceptionEvent, wanted):
                docket = self.dockets[name]
                got = sum(n for event, n in docket.settled.items() if isinstance(event, ExceptionEvent))
                got += report.abandoned_events.get(f"engine.{name}", {}).get(ExceptionEvent.__name__, 0)
                keep(4, got <= failed + PLENTY * bool(report.abandoned), f"{got} ExceptionEvents of {failed}")
                is_sure = not docket.terms.drops and self.are_letters_sure
                if is_drained and not self.may_raise and is_sure:
                    keep(4, got == failed, f"{name} was handed {got} ExceptionEvents, {failed} calls failed")

    @property
    def are_letters_sure(self) -> bool:
        """Whether what is given up is told of in any case."""
        return self.max_backlog == PLENTY and not any(
            docket.terms.overflow == "error"
            for docket in self.dockets.values()
            if issubclass(ExceptionEvent, self.wants[docket.name])
        )

    def _judge_unhandled(self, report: ShutdownReport) -> None:
        wanted = tuple({event_class for classes in self.wants.values() for event_class in classes})
        fates = Counter(
            publication.fate
            for event, publication in self.publications.items()
            if not isinstance(event, wanted) and not publication.is_filtered
        )
        least, most = fates[Fate.MADE], fates[Fate.MADE] + fates[Fate.UNSURE]
        told = report.unhandled
        keep(4, least <= told <= most, f"{least} to {most} events were unhandled, and the report says {told}")


def handler_of(failure: ExceptionEvent) -> str:
    """Who failed, by the name that the traffic has for it."""
    return failure.handler.removeprefix("engine.")

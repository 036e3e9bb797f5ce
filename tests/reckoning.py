"""What must hold when a run is over: what the ledger of it says, and the engine's own report and numbers."""

from __future__ import annotations

from collections import Counter

from docket import Docket
from ledger import Ledger
from records import PLENTY, Fate, keep

from event_flow import AppEngine, ExceptionEvent, ShutdownReport


class Reckoning:
    """One run that has ended."""

    def __init__(self, ledger: Ledger, engine: AppEngine, report: ShutdownReport) -> None:
        self.ledger = ledger
        self.engine = engine
        self.report = report

    def judge(self, *, is_drained: bool) -> None:
        """Raise what does not hold. `is_drained`: handlers had all the time they wanted."""
        self.ledger.judge()
        total = self.report.handled + self.report.failed + self.report.dropped + self.report.abandoned
        keep(4, self.report.accepted == total, f"the report does not add up: {self.report}")
        filtered = self.report.filtered
        keep(
            4,
            filtered == self.ledger.filtered,
            f"{self.ledger.filtered} events were filtered out, and the report says {filtered}",
        )
        for docket in self.ledger.dockets.values():
            self._judge_handler(docket)
        if is_drained and not self.ledger.may_raise:
            keep(
                7,
                not self.report.abandoned,
                f"abandoned although there was time: {self.report.abandoned_events}",
            )
        if not self.report.abandoned:
            self._judge_whole()
        self._judge_failures(is_drained=is_drained)
        self._judge_unhandled()

    def _judge_handler(self, docket: Docket) -> None:
        name = docket.name
        numbers = self.engine.statistics().handlers[f"engine.{name}"]
        abandoned = self.report.abandoned_events.get(f"engine.{name}", {})
        # Those that were at work at the end are the last to have ended, not always the last that began.
        crossing = [call for call in docket.ended[-docket.terms.concurrency :] if call.may_cross]
        for what, seen, told, most in (
            ("handled", docket.handled, numbers.handled, sum(call.handled for call in crossing)),
            ("failed", docket.failed, numbers.failed, sum(call.failed for call in crossing)),
        ):
            keep(
                4, seen - most <= told <= seen, f"{name} has {what} {seen} events, and the report says {told}"
            )
        sure, perhaps = self.ledger.redeliveries.delivered(name)
        made = Counter(self.ledger.wanted(name, Fate.MADE)) + Counter(sure)
        lost = Counter(type(event).__name__ for event in (made - docket.settled).elements())
        unsure = Counter(type(event).__name__ for event in [*self.ledger.wanted(name, Fate.UNSURE), *perhaps])
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
        if not issubclass(ExceptionEvent, self.ledger.wants[name]):
            told, least, most = numbers.abandoned + dropped, lost.total(), lost.total() + unsure.total()
            keep(
                4, least <= told <= most, f"{name} lost {least} events to {most}, and the report says {told}"
            )

    def _judge_dropped(self, docket: Docket) -> None:
        """Where nothing is tried again, what came last of all is never dropped for what is older, nor the other way round."""
        name, terms = docket.name, docket.terms
        first, last = dict[str, bool](), dict[str, bool]()
        for event in self.ledger.wanted(name, Fate.MADE):
            author, is_seen = event.data.author.name, name in event.data.seen_by
            first.setdefault(author, is_seen)
            last[author] = is_seen
        is_only = not issubclass(ExceptionEvent, self.ledger.wants[name])
        if is_only and all(call.attempt == 1 for call in docket.calls):
            kept = first if terms.overflow == "drop_newest" else last
            which = "first" if terms.overflow == "drop_newest" else "last"
            keep(4, any(kept.values()), f"{name} with {terms} has dropped what came {which}")

    def _judge_whole(self) -> None:
        dropping = {name for name, docket in self.ledger.dockets.items() if docket.terms.drops}
        for event, publication in self.ledger.publications.items():
            wanting = {name for name, wanted in self.ledger.wants.items() if isinstance(event, wanted)}
            if publication.is_filtered:
                continue
            if publication.fate is Fate.MADE or publication.seen_by:
                keep(
                    5,
                    wanting - dropping <= publication.seen_by <= wanting,
                    f"{event} was published for {wanting}, not all got it",
                )
        for redelivery in self.ledger.redeliveries.asked:
            if redelivery.fate is Fate.MADE and redelivery.handler not in dropping:
                keep(4, not redelivery.is_under_way, f"{redelivery}: only {redelivery.came} came")

    def _judge_failures(self, *, is_drained: bool) -> None:
        failed = sum(bool(call.dead) for call in self.ledger.calls) - self.ledger.filtered_letters
        for name, wanted in self.ledger.wants.items():
            if issubclass(ExceptionEvent, wanted):
                docket = self.ledger.dockets[name]
                got = sum(n for event, n in docket.settled.items() if isinstance(event, ExceptionEvent))
                got += self.report.abandoned_events.get(f"engine.{name}", {}).get(ExceptionEvent.__name__, 0)
                keep(
                    4,
                    got <= failed + PLENTY * bool(self.report.abandoned),
                    f"{got} ExceptionEvents of {failed}",
                )
                is_sure = not docket.terms.drops and self.ledger.are_letters_sure
                if is_drained and not self.ledger.may_raise and is_sure:
                    keep(4, got == failed, f"{name} was handed {got} ExceptionEvents, {failed} calls failed")

    def _judge_unhandled(self) -> None:
        wanted = tuple({event_class for classes in self.ledger.wants.values() for event_class in classes})
        fates = Counter(
            publication.fate
            for event, publication in self.ledger.publications.items()
            if not isinstance(event, wanted) and not publication.is_filtered
        )
        least, most = fates[Fate.MADE], fates[Fate.MADE] + fates[Fate.UNSURE]
        told = self.report.unhandled
        keep(4, least <= told <= most, f"{least} to {most} events were unhandled, and the report says {told}")

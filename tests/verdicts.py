"""What is to become of an attempt that ended so: said once more, beside the engine's own words, by what the options promise."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from records import Again, Call
from terms import Terms, Trial, errors_in

from event_flow import BatchFailed, Event

Events = list[Event[Any]]


@dataclass(slots=True)
class Verdict:
    handled: Events = field(default_factory=list)
    dead: Events = field(default_factory=list)  # given up, and to be told of
    discarded: Events = field(default_factory=list)
    fatal: Events = field(default_factory=list)
    kept: Events = field(default_factory=list)
    again: list[Again] = field(default_factory=list)

    @property
    def given_up(self) -> Events:
        return self.dead + self.discarded + self.fatal

    @property
    def pauses(self) -> bool:
        return bool(self.kept)


def judge(terms: Terms, call: Call, error: BaseException | None, now: float, random: Random) -> Verdict:
    """What becomes of each event of `call`, which ended `now`. `random` gives one number for each attempt that failed."""
    if error is None:
        return Verdict(handled=call.events[:])
    if not isinstance(error, Exception):
        return Verdict(fatal=call.events[:])
    verdict = Verdict()
    waits = _waits(terms, call, now, random)
    failed = dict(error.failures) if isinstance(error, BatchFailed) else dict.fromkeys(call.events, error)
    retried: Events = []
    for event in call.events:
        if event not in failed:
            verdict.handled.append(event)
        elif waits is not None and terms.retry is not None and _is_worth_it(terms.retry, failed[event]):
            retried.append(event)
        else:
            pile = {
                "dead_letter": verdict.dead,
                "discard": verdict.discarded,
                "stop": verdict.fatal,
                "pause": verdict.kept,
            }
            pile[terms.action(failed[event])].append(event)
    lost = verdict.dead or verdict.discarded
    if terms.isolate and not isinstance(error, BatchFailed) and len(call.events) == len(lost) > 1:
        verdict.dead, verdict.discarded = [], []
        verdict.again = [
            Again([event], call.key, call.attempt + 1, call.allowed + 1, call.first_began, is_alone=True)
            for event in lost
        ]
    if verdict.kept:
        verdict.again.append(Again(verdict.kept, call.key, call.attempt + 1))
    if retried:
        assert waits is not None
        least, most = waits
        verdict.again.append(
            Again(
                retried,
                call.key,
                call.attempt + 1,
                call.allowed + 1,
                call.first_began,
                due=now + least,
                due_at_last=now + most,
            )
        )
    return verdict


def _is_worth_it(trial: Trial, error: Exception) -> bool:
    return all(isinstance(each, trial.on) for each in errors_in(error))


def _waits(terms: Terms, call: Call, now: float, random: Random) -> tuple[float, float] | None:
    """The least and the longest time to the next attempt; None if there is none."""
    trial = terms.retry
    if trial is None or call.is_alone:
        return None
    least = min(trial.wait_initial * 2 ** (call.allowed - 1), trial.wait_max - trial.wait_jitter)
    most = min(least + trial.wait_jitter, trial.wait_max)
    if terms.concurrency == 1:  # it is known in which order numbers are drawn
        least = most = min(trial.wait_max, least + random.random() * (most - least))
    if call.allowed >= trial.attempts:
        return None
    if trial.within is not None and now - call.first_began + least > trial.within:
        return None
    return least, most

"""What was asked for again, and what came of it. The ledger's part for `ExceptionEvent.redeliver()`.

A redelivery is not all or nothing: one that is cut short has delivered some of its first events, but not the last. So that
each event that comes again can be told apart, none is asked for while it is still under way to the same handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from records import Fate, Redelivery
from terms import Terms

from event_flow import Event

# How often an event may be asked for again, for each handler: so every program ends.
REDELIVERIES = 2


class Redeliveries:
    """Those of one run, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.asked: list[Redelivery] = []

    def may_ask(self, handler: str, events: Sequence[Event[Any]]) -> bool:
        """Whether all of `events` came back as often as they were asked for, and that was not too often."""
        for event in events:
            before = [each for each in self.asked if each.handler == handler and event in each.events]
            if len(before) >= REDELIVERIES or any(
                event in each.missing for each in before if each.is_under_way
            ):
                return False
        return True

    def note_seen(self, handler: str, event: Event[Any], terms: Terms) -> list[tuple[int, str]]:
        """A handler got an event that it got before. Returns the promises that breaks."""
        expected = [each for each in self.asked if each.handler == handler and each.is_under_way]
        found = next((each for each in expected if event in each.missing), None)
        if found is None:
            return [(4, f"{handler} got {event} again, and nobody asked for it")]
        broken = []
        if terms.is_order_kept and not terms.drops:
            key = terms.key_of(event)
            if any(terms.key_of(other) == key for other in found.missing[: found.missing.index(event)]):
                broken.append((1, f"{handler} got {event} before others of the redelivery: {found}"))
            broken += [
                (1, f"{handler} got {event} again before what was asked for earlier: {each}")
                for each in expected[: expected.index(found)]
                if each.author.name == found.author.name
                and each.fate is Fate.MADE
                and any(terms.key_of(other) == key for other in each.missing)
            ]
        found.came.append(event)
        if event is found.events[-1] and found.fate is Fate.UNSURE:
            broken.append((5, f"{handler} got {event}, the last of a redelivery that was cut short: {found}"))
        return broken

    # -- derived ---------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Redelivery]:
        """Those that have not returned."""
        return [each for each in self.asked if each.fate is Fate.PENDING]

    def targets_of(self, handler: str) -> set[str]:
        """To which handlers the calls of `handler` handed events."""
        return {each.handler for each in self.asked if each.author.handler == handler}

    def delivered(self, handler: str, *, inside: bool = False) -> tuple[list[Event[Any]], list[Event[Any]]]:
        """What was surely delivered to `handler` again, and what perhaps was; if you say so only from inside of handlers."""
        mine = [
            each
            for each in self.asked
            if each.handler == handler and not (inside and each.author.handler is None)
        ]
        sure = [event for each in mine for event in each.sure]
        perhaps = [event for each in mine for event in each.unsure]
        return sure, perhaps

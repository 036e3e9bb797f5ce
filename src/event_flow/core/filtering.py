"""Filters: what is published is shown to them before it is routed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from event_flow.core.event import Event
from event_flow.core.wording import name_of, safe_repr

# What it returns is routed, None is not.
Filter = Callable[[Event[Any]], Event[Any] | None]


class Filters:
    """The filters of one run, in the order in which they are asked. Others may be added to the list before it starts."""

    def __init__(self, filters: Sequence[Filter] = ()) -> None:
        self.dropped: int = 0
        self._filters = filters

    def __bool__(self) -> bool:
        return bool(self._filters)

    def accept(self, event: Event[Any]) -> Event[Any] | None:
        """What they make of an event; None if one drops it. Raises what one raises, `TypeError` for anything else returned."""
        for each in self._filters:
            kept = each(event)
            if kept is None:
                self.dropped += 1
                return None
            if not isinstance(kept, Event):
                raise TypeError(
                    f"a filter returns an Event or None: {name_of(each)} returned {safe_repr(kept)}"
                )
            event = kept
        return event

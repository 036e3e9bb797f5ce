"""An attempt at a batch, and where those wait that are to be made later."""

from __future__ import annotations

import math
from bisect import insort_right
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from event_flow.core.event import Event
from event_flow.core.lane import Events

if TYPE_CHECKING:
    from event_flow.core.batch import ClosedBy


class Attempt:
    """A batch that its handler is called with, and what came before, if it is not for the first time."""

    __slots__ = (
        "began",
        "closed_by",
        "due",
        "events",
        "is_alone",
        "key",
        "number",
        "place",
        "tried",
    )

    def __init__(
        self,
        events: Events,
        key: Hashable,
        closed_by: ClosedBy,
        *,
        began: float | None = None,
        place: Any = None,
    ) -> None:
        self.events: Events = events  # the engine's own list
        self.key: Hashable = key
        self.place: Any = place  # where its lane keeps what has this key
        self.closed_by: ClosedBy = closed_by
        self.number: int = 1  # the first is 1
        self.tried: int = 0  # attempts before the handler was resumed: they count no more
        self.began: float | None = began  # when the first attempt that counts did
        self.due: float = -math.inf  # when it may begin
        self.is_alone: bool = False  # the one event of a batch that was given up, in its last attempt

    def __len__(self) -> int:
        return len(self.events)

    def again(self, events: Events, *, due: float = -math.inf) -> Attempt:
        """The next attempt, at these of the events."""
        following = Attempt(events, self.key, self.closed_by, began=self.began, place=self.place)
        following.number = self.number + 1
        following.tried = self.tried
        following.due, following.is_alone = due, self.is_alone
        return following

    def anew(self, events: Events) -> Attempt:
        """The same, but all attempts are allowed once more."""
        following = self.again(events)
        following.tried, following.began, following.is_alone = self.number, None, False
        return following

    def alone(self, event: Event[Any]) -> Attempt:
        """The last attempt at one of the events."""
        following = self.again([event])
        following.is_alone = True
        return following


class Returned:
    """Attempts that were put back, the one put back last in front; unless it is `in_order`, the one that is due first.

    What is put back `in_order` is what was at work, or parts of it, and all else that is here came after that. Of several
    parts the first is put back last.
    """

    __slots__ = ("_in_order", "_waiting", "events")

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._waiting: list[Attempt] = []  # the first one last: there a list is quick to change
        self.events: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Attempt:
        return self._waiting[-1]

    def push(self, attempt: Attempt) -> None:
        self.events += len(attempt)
        if self._in_order:
            self._waiting.append(attempt)
        else:
            insort_right(self._waiting, attempt, key=lambda waiting: -waiting.due)

    def pop(self) -> Attempt:
        attempt = self._waiting.pop()
        self.events -= len(attempt)
        return attempt

"""`Batch`: the events of one handler call, with what there is to say of that call."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal

from event_flow.core.event import Event

if TYPE_CHECKING:
    # As in `event`: the default is for type checkers only.
    from typing_extensions import TypeVar

    EventT = TypeVar("EventT", bound=Event[Any], default=Any)
else:
    from typing import TypeVar

    EventT = TypeVar("EventT", bound=Event[Any])

__all__ = ["Batch"]

ClosedBy = Literal["size", "linger", "idle", "drain"]


class Batch(Generic[EventT]):
    """The events of one handler call: what a handler gets whose parameter is annotated `Batch[E]` in place of `list[E]`.

    It is the call's own, as the list would be: whatever is done to it, nobody else sees. It can be iterated over and has a
    length. One that you make yourself, to call a handler in a test, needs only the events.

    - `events`: the events, at least one, in the order they were published; a list that may be changed.
    - `key`: what the handler's `key` gave for all of them; None without one.
    - `closed_by`: why it took on no more events: `"size"`, there was no place for more, in the batch, in the queue or in the
      handler's rate; `"linger"`, its time to wait for company was over; `"idle"`, the handler was free and took what there was;
      `"drain"`, the engine was ending.
    - `attempt`: the number of the try, 1 is the first.
    """

    __slots__ = ("attempt", "closed_by", "events", "key")

    def __init__(
        self,
        events: Iterable[EventT],
        *,
        key: Hashable = None,
        closed_by: ClosedBy = "idle",
        attempt: int = 1,
    ) -> None:
        self.events: list[EventT] = list(events)
        self.key: Hashable | None = key
        self.closed_by: ClosedBy = closed_by
        self.attempt: int = attempt

    def __iter__(self) -> Iterator[EventT]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={self.key!r}"
        return f"{type(self).__name__}({self.events!r}{key}, closed_by={self.closed_by!r}, attempt={self.attempt})"

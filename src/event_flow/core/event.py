"""What travels: `Event`, `EventWithSource` and `ExceptionEvent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

if TYPE_CHECKING:
    # A type variable with a default is typing's own from Python 3.13 on; only type checkers need it.
    from typing_extensions import TypeVar

    DataT = TypeVar("DataT", default=Any)
else:
    from typing import TypeVar

    DataT = TypeVar("DataT")

__all__ = ["Event", "EventWithSource", "ExceptionEvent"]

Redeliver = Callable[["ExceptionEvent"], Awaitable[None]]


class Event(Generic[DataT]):
    """A fact that happened. Subclass it to name the fact; handlers are chosen by the class.

    `class Trade(Event)` carries anything, `class Trade(Event[dict[str, str]])` tells type checkers what. The engine hands
    the same object to every handler and never copies or changes it. An event has slots; a subclass that declares none
    may have any attribute. Two events are equal only if they are the same object.
    """

    __slots__ = ("_meta", "data")

    data: DataT

    def __init__(self, data: DataT = None) -> None:  # type: ignore[assignment]
        self.data = data

    @property
    def meta(self) -> dict[str, Any]:
        """Additional context, a dict made on first use."""
        try:
            return self._meta
        except AttributeError:
            self._meta: dict[str, Any] = {}
            return self._meta

    def update_meta(self, /, **values: Any) -> None:
        """Add `values` to `meta`; what has the same key is replaced."""
        self.meta.update(values)

    def parse(self) -> Any:
        """`data` in the form the application wants. To be overridden; the engine never calls it."""
        return self.data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r})"


class EventWithSource(Event[DataT]):
    """An event that knows where it came from: `source` is anything, most often a name."""

    __slots__ = ("source",)

    def __init__(self, source: Any, data: DataT = None) -> None:  # type: ignore[assignment]
        super().__init__(data)
        self.source: Any = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r}, {self.data!r})"


class ExceptionEvent(Event[BaseException]):
    """A handler, schedule or task failed. Published by the engine; it is the dead letter.

    `data` is the exception and `traceback_str` its formatted traceback; `handler` is the name of what failed
    (`"App.method"`), `attempt` the number of the try within one delivery (1 is the first, also after `redeliver()`).
    `events` are the events that failed: the whole batch of a handler as the engine handed it over, unless it raised
    `BatchFailed` for some of it; without `ExceptionEvent`s, and none for a schedule or task.
    """

    __slots__ = ("_redeliver", "attempt", "events", "handler", "traceback_str")

    def __init__(
        self,
        exception: BaseException,
        *,
        handler: str,
        traceback_str: str = "",
        attempt: int = 1,
        events: Sequence[Event[Any]] = (),
        redeliver: Redeliver | None = None,
    ) -> None:
        super().__init__(exception)
        self.handler: str = handler
        self.traceback_str: str = traceback_str
        self.attempt: int = attempt
        self.events: tuple[Event[Any], ...] = tuple(events)
        self._redeliver = redeliver

    async def redeliver(self) -> None:
        """Hand `events` to the handler that failed, and to no other, as a new delivery.

        On the engine's loop, so from an async handler. Waits for room like `pub_event`, event by event, or raises `LaneFull`
        where that does; then, and when cancelled, an unknown prefix was delivered. It does not count how often: who
        redelivers what always fails does so for ever. Raises `EngineClosed` when the engine takes it no more (while it
        drains, only a handler may redeliver), and `RuntimeError` if it was no handler that failed, or no engine published
        this event.
        """
        if self._redeliver is None:
            raise RuntimeError(
                f"{self!r} has no handler to hand events to: a schedule or task failed, or no engine published it"
            )
        await self._redeliver(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r}, handler={self.handler!r}, events={len(self.events)})"

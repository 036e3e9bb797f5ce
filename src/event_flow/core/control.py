"""What can be done with a handler while the engine runs: `engine.handlers["App.method"]`."""

from __future__ import annotations

from collections.abc import Iterable
from threading import get_ident
from typing import TYPE_CHECKING

from event_flow.core.bus import Bus
from event_flow.core.exception import EngineStateError, WrongThreadError
from event_flow.core.lane import Lane
from event_flow.core.state import EngineState

if TYPE_CHECKING:
    from event_flow.core.report import HandlerStatistics

__all__ = ["HandlerControl"]


class HandlerControl:
    """One handler of one run of the engine."""

    def __init__(self, lane: Lane, bus: Bus) -> None:
        self._lane = lane
        self._bus = bus

    @property
    def name(self) -> str:
        """Like `"App.method"`, as in logs and reports."""
        return self._lane.name

    @property
    def is_paused(self) -> bool:
        """Whether it gets no events until `resume()`."""
        return self._lane.is_paused

    def pause(self) -> None:
        """Let the handler finish what it is at, and give it nothing more until `resume()`. Idempotent.

        Its events are queued meanwhile, and a full queue does what `overflow` says. It stays paused when the engine stops:
        what is queued when the grace period is over is abandoned. Call it in the thread of the loop: `WrongThreadError`
        else; `EngineStateError` if this run has ended.
        """
        self._require_running("pause")
        self._lane.pause()

    def resume(self) -> None:
        """Give it events again. Idempotent; raises what `pause()` does.

        Those that it was paused with, by `on_failure`, come before what was queued later, in their key if there are keys. All
        attempts are allowed to them once more, though `Batch.attempt` counts on.
        """
        self._require_running("resume")
        self._lane.resume()

    def statistics(self) -> HandlerStatistics:
        """Its numbers since the start."""
        from event_flow.core import accounting  # see `Lifecycle._prepare`

        return accounting.handler_statistics(self._lane)

    def _require_running(self, what: str) -> None:
        if self._bus.state is EngineState.STOPPED:
            raise EngineStateError(
                f"{what}() is not possible any more: the run of the engine that {self.name} was in has ended"
            )
        if self._bus.thread != get_ident():
            # Not what the bus says: that tells how to publish from there.
            raise WrongThreadError(
                f"{what}() is possible only in the thread that the engine runs in, so in async code: "
                "from a sync handler, publish an event to an async one"
            )

    def __repr__(self) -> str:
        return f"<HandlerControl {self.name}{', paused' if self.is_paused else ''}>"


class Handlers(dict[str, HandlerControl]):
    """The handlers of one run by name. Raises a `KeyError` that lists the names for another one."""

    def __init__(self, lanes: Iterable[Lane], bus: Bus) -> None:
        super().__init__((lane.name, HandlerControl(lane, bus)) for lane in lanes)

    def __missing__(self, name: str) -> HandlerControl:
        known = ", ".join(self) or "none, before the engine runs"
        raise KeyError(f"no handler is called {name!r}; there are: {known}")

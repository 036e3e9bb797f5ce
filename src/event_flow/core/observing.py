"""Looking at an engine from outside: where it is in its life, its numbers, and waiting until it runs, is idle or has stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from event_flow.core.bell import Bell
from event_flow.core.branch import Branch
from event_flow.core.control import HandlerControl, Handlers
from event_flow.core.exception import EngineClosed, WouldDeadlockError
from event_flow.core.origin import Kind, current_origin
from event_flow.core.publishing import Publisher
from event_flow.core.state import EngineState
from event_flow.core.supervision import Supervisor

if TYPE_CHECKING:
    from event_flow.core.report import EngineStatistics, ShutdownReport


class Observed(Publisher):
    """The part of `AppEngine` that changes nothing."""

    _bell: Bell
    _supervisor: Supervisor | None
    _branches: Sequence[Branch]
    _handlers: Handlers
    _report: ShutdownReport | None

    async def wait_running(self) -> None:
        """Wait until handlers, schedules and tasks run.

        Raises `EngineClosed` if the engine ends before, `WouldDeadlockError` (a `RuntimeError`) inside a hook.
        """
        self._require_outside("wait_running", Kind.HOOK)
        awaited = self._supervisor

        def is_decided() -> bool:
            nonlocal awaited
            awaited = awaited or self._supervisor
            return awaited is not None and (awaited.has_opened or awaited.is_finished)

        await self._bell.until(is_decided)
        if self.state is not EngineState.RUNNING:
            raise EngineClosed(f"the engine is {self.state.value}: it does not run any more")

    async def wait_idle(self) -> None:
        """Wait until nothing is queued and no handler runs, or the engine has stopped. What is kept for the start is queued too.

        Raises `WouldDeadlockError` (a `RuntimeError`) inside a handler or hook.
        """
        self._require_outside("wait_idle", Kind.CALL, Kind.HOOK)
        bus, inbox = self._bus, self._inbox
        with bus.activity.watched():
            await self._bell.until(
                lambda: bus.state is EngineState.STOPPED or (bus.is_idle and inbox.is_empty)
            )

    async def wait_stopped(self) -> ShutdownReport:
        """Wait until the run that is under way, or else the next one, has ended, and return its report; at once if it has.

        Raises `WouldDeadlockError` (a `RuntimeError`) inside a handler, hook or schedule: the engine waits for those.
        """
        self._require_outside("wait_stopped", Kind.CALL, Kind.HOOK, Kind.TICK)
        # That very run: when this task wakes up the engine may run again.
        bus = self._bus
        await self._bell.until(lambda: bus.report is not None)
        assert bus.report is not None
        return bus.report

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._bus.state

    @property
    def report(self) -> ShutdownReport | None:
        """The report of the last run that has ended, None before."""
        return self._report

    @property
    def handlers(self) -> Mapping[str, HandlerControl]:
        """The handlers of the current run, or of the last one, by names like `"App.method"`; none before the first run.

        A name that is not among them is a `KeyError` that lists those that are.
        """
        return self._handlers

    def statistics(self) -> EngineStatistics:
        """The numbers of the current run, or of the last one."""
        from event_flow.core import accounting  # see `Lifecycle._prepare`

        return accounting.statistics(self._bus, self._branches)

    def _require_outside(self, what: str, *kinds: Kind) -> None:
        origin = current_origin.get()
        if origin is not None and origin.live and origin.bus is self._bus and origin.kind in kinds:
            raise WouldDeadlockError(
                f"{what}() inside a {origin.kind.value} would wait for that {origin.kind.value} itself"
            )

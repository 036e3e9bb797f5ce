"""What becomes of an exception that leaves user code.

A failing handler, tick or task is an outcome: logged, counted, and published as an `ExceptionEvent`. A failing framework,
`SystemExit` and `KeyboardInterrupt` are errors: they end the engine and leave `run()` bare.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from loguru import logger

from event_flow.core.backend import NativeTask
from event_flow.core.bus import Bus
from event_flow.core.event import Event, ExceptionEvent, Redeliver
from event_flow.core.exception import BacklogExceeded, EngineClosed, LaneFull
from event_flow.core.log_limit import LogLimit
from event_flow.core.options import OnError
from event_flow.core.origin import current_origin
from event_flow.core.outcome import is_cancelled_by_scope, what_happened
from event_flow.core.wording import counted, safe_repr

# So many failures of one handler are logged in full, in a minute; the others are counted.
LOGGED_IN_FULL = 5


def _nobody_listens(error: BaseException) -> None:
    raise error


class Failures:
    """Where every failure of one run ends. `fail` ends the engine with an error; the supervisor sets it."""

    def __init__(self, bus: Bus, on_error: OnError) -> None:
        self.bus = bus
        self.fail: Callable[[BaseException], object] = _nobody_listens
        self.is_strict: bool = on_error == "raise"
        self.supervisor: NativeTask | None = None
        self.is_loop_ending = False  # native cancellation has reached the supervisor, and was answered
        self._logs: dict[
            tuple[str, str, str], LogLimit
        ] = {}  # by the names of handler and application, and level

    async def examine(self, exc: BaseException, name: str) -> BaseException | None:
        """What user code really ended with; None if `exc` is the engine's own cancellation and is to be raised again.

        Native cancellation of every task, as at the end of a loop, counts as the engine's own. Of this task alone, it
        is the doing of the user code, and a failure.
        """
        is_cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
        if is_cancelled and self.is_all_cancelled and NativeTask().is_being_cancelled():
            return None
        try:
            await self.forget_cancellation()
        except anyio.get_cancelled_exc_class():
            if is_cancelled:
                raise
            # The engine ends; the user code has ended before, with what it raised.
        return what_happened(exc, name)

    @staticmethod
    async def forget_cancellation() -> None:
        """To be called where user code has ended: it may have cancelled its own asyncio task, with no effect so far.

        The next await would be cancelled, and if there were none, silently the whole task group.
        """
        native = NativeTask()
        if native.is_being_cancelled() and not is_cancelled_by_scope():
            native.absorb()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                if is_cancelled_by_scope():
                    raise

    async def contain(
        self,
        error: BaseException,
        *,
        name: str,
        app: str,
        events: Sequence[Event[Any]] = (),
        redeliver: Redeliver | None = None,
        attempt: int = 1,
    ) -> None:
        """Take what the handler, schedule or task `name` ended with: log and publish it, or end the engine with it."""
        if not isinstance(error, Exception):
            self.fail(error)
            return
        self._log(error, name, app, events)
        if self.is_strict:
            self.fail(error)
        else:
            await self._publish(error, name, app, events, redeliver, attempt)

    def tell(self, error: Exception, level: str, then: str, *, name: str, app: str, events: int) -> None:
        """Log a failed attempt of a handler, and what follows; what comes often, like a failure, five times a minute."""
        # What pauses a handler, or stops the engine, is never one of very many.
        if level == "ERROR" or self._may_log(name, app, level):
            logger.bind(app=app, handler=name, events=events).log(
                level, "{} failed with {}: {}; {}", name, counted(events, "event"), safe_repr(error), then
            )

    @property
    def is_all_cancelled(self) -> bool:
        """Whether native cancellation reached the supervisor too: then it is the whole loop that ends."""
        return self.is_loop_ending or (self.supervisor is not None and self.supervisor.is_being_cancelled())

    def summarise(self) -> None:
        """At the end: mention what was not logged."""
        for (name, app, level), log in self._logs.items():
            self._mention(name, app, level, log.skipped)

    def _may_log(self, name: str, app: str, level: str) -> bool:
        """Whether to log a failure in full, which is counted. Before that, mentions those that were not."""
        in_full, skipped = self._logs.setdefault((name, app, level), LogLimit(LOGGED_IN_FULL)).count(
            anyio.current_time()
        )
        self._mention(name, app, level, skipped)
        return in_full

    def _log(self, error: Exception, name: str, app: str, events: Sequence[Event[Any]]) -> None:
        if self._may_log(name, app, "ERROR"):
            shown = safe_repr(error)
            # A strict engine raises it, with its traceback.
            bound = logger.bind(app=app, handler=name, events=len(events)).opt(
                exception=None if self.is_strict else error
            )
            if events:
                bound.error("{} failed with {}: {}", name, counted(len(events), "event"), shown)
            else:
                bound.error("{} failed: {}", name, shown)

    @staticmethod
    def _mention(name: str, app: str, level: str, skipped: int) -> None:
        if skipped:
            logger.bind(app=app, handler=name, failures=skipped).log(
                level, "{} failed {} more times, which were not logged", name, skipped
            )

    async def _publish(
        self,
        error: Exception,
        name: str,
        app: str,
        events: Sequence[Event[Any]],
        redeliver: Redeliver | None,
        attempt: int,
    ) -> None:
        ordinary = [event for event in events if not isinstance(event, ExceptionEvent)]
        if events and not ordinary:
            return  # whoever handles failures failed itself: logged only, or it would go round for ever
        if not self.bus.router.lanes_for(ExceptionEvent):
            return
        event = ExceptionEvent(
            error,
            handler=name,
            traceback_str="".join(traceback.format_exception(error)),
            attempt=attempt,
            events=ordinary,
            redeliver=redeliver,
        )
        try:
            accepted = self.bus.filtered(event, current_origin.get())
        except EngineClosed:
            accepted = event  # to publish it says so
        # Nothing was awaited: a cancellation is the filter's own, too.
        except (Exception, anyio.get_cancelled_exc_class()) as exc:  # noqa: BLE001 - the user's, and nobody else to tell
            logger.bind(app=app, handler=name, events=len(ordinary)).opt(exception=exc).error(
                "The ExceptionEvent of {} was not published: a filter failed with {}", name, safe_repr(exc)
            )
            return
        if accepted is None:
            return
        try:
            await self.bus.publish(accepted, self.bus.router.lanes_for(type(accepted)))
        except (EngineClosed, BacklogExceeded, LaneFull) as exc:
            logger.bind(app=app, handler=name, events=len(ordinary)).warning(
                "The ExceptionEvent of {} was not published: {}", name, exc
            )

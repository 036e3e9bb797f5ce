"""Event Flow: event-driven applications on structured concurrency, the same on asyncio and on Trio."""

import typing

from event_flow.core.application import AppEngine, Application, SubApplication
from event_flow.core.batch import Batch
from event_flow.core.control import HandlerControl
from event_flow.core.decorators import on_event, schedule, task, timer
from event_flow.core.event import Event, EventWithSource, ExceptionEvent
from event_flow.core.exception import (
    BackendNotInstalled,
    BacklogExceeded,
    BatchFailed,
    DeclarationError,
    DecodeError,
    EncodeError,
    EngineClosed,
    EngineNotSetError,
    EngineStateError,
    EventFlowError,
    ExitTimeout,
    HandlerTimeout,
    LaneFull,
    OptionError,
    SettingNotFound,
    SettingsError,
    StartTimeout,
    UnexpectedCancellation,
    WouldDeadlockError,
    WrongThreadError,
)
from event_flow.core.rate import Rate
from event_flow.core.retry import Retry
from event_flow.core.state import EngineState

if typing.TYPE_CHECKING:
    from event_flow.core.report import EngineStatistics, HandlerStatistics, ScheduleStatistics, ShutdownReport

__all__ = [
    "AppEngine",
    "Application",
    "BackendNotInstalled",
    "BacklogExceeded",
    "Batch",
    "BatchFailed",
    "DeclarationError",
    "DecodeError",
    "EncodeError",
    "EngineClosed",
    "EngineNotSetError",
    "EngineState",
    "EngineStateError",
    "EngineStatistics",
    "Event",
    "EventFlowError",
    "EventWithSource",
    "ExceptionEvent",
    "ExitTimeout",
    "HandlerControl",
    "HandlerStatistics",
    "HandlerTimeout",
    "LaneFull",
    "OptionError",
    "Rate",
    "Retry",
    "ScheduleStatistics",
    "SettingNotFound",
    "SettingsError",
    "ShutdownReport",
    "StartTimeout",
    "SubApplication",
    "UnexpectedCancellation",
    "WouldDeadlockError",
    "WrongThreadError",
    "on_event",
    "schedule",
    "task",
    "timer",
]

# Numbers are asked for after the start: until then nobody waits for what makes their classes, a fifth of the whole import.
_LATER = ("EngineStatistics", "HandlerStatistics", "ScheduleStatistics", "ShutdownReport")

if not typing.TYPE_CHECKING:  # a checker would take any name for one of them

    def __getattr__(name: str) -> typing.Any:
        if name in _LATER:
            from event_flow.core import report

            return getattr(report, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})

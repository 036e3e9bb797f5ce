"""Event Flow: event-driven applications on structured concurrency, the same on asyncio and on Trio."""

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
from event_flow.core.report import EngineStatistics, HandlerStatistics, ScheduleStatistics, ShutdownReport
from event_flow.core.retry import Retry
from event_flow.core.state import EngineState

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

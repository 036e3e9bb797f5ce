"""The error tree: everything Event Flow raises on purpose, each also a builtin where one fits.

EventFlowError
├── DeclarationError (TypeError)         a handler, schedule, task or application is declared wrongly
├── OptionError (ValueError)             an option has a value that is not allowed
├── EngineNotSetError (RuntimeError)     an application is asked for its engine and has none
├── EngineStateError (RuntimeError)      not possible in the state the engine is in
├── EngineClosed (RuntimeError)          a publish that the engine takes no more
├── BacklogExceeded (RuntimeError)       a publish beyond `max_backlog`
├── WrongThreadError (RuntimeError)      called on the wrong side of the loop's thread
├── WouldDeadlockError (RuntimeError)    waiting here would wait for oneself
├── LaneFull (RuntimeError)              a publish to a handler that is full and says `overflow="error"`
├── BatchFailed (RuntimeError)           raised by a handler: which events of its batch failed
├── HandlerTimeout (TimeoutError)        a handler call overran its `timeout`
├── UnexpectedCancellation (RuntimeError)  user code was cancelled although nobody cancelled it
├── StartTimeout, ExitTimeout (TimeoutError)  a hook overran its time
├── BackendNotInstalled (ImportError)    the extra for a backend is missing
├── EncodeError, DecodeError (ValueError)  an event cannot be written as bytes, or bytes are no event
├── SettingsError (ImportError)          the settings module cannot be found or imported
└── SettingNotFound (AttributeError)     the settings module has no such name
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Mapping
from typing import Any

from event_flow.core.event import Event
from event_flow.core.wording import counted, safe_repr

__all__ = [
    "BackendNotInstalled",
    "BacklogExceeded",
    "BatchFailed",
    "DeclarationError",
    "DecodeError",
    "EncodeError",
    "EngineClosed",
    "EngineNotSetError",
    "EngineStateError",
    "EventFlowError",
    "ExitTimeout",
    "HandlerTimeout",
    "LaneFull",
    "OptionError",
    "SettingNotFound",
    "SettingsError",
    "StartTimeout",
    "UnexpectedCancellation",
    "WouldDeadlockError",
    "WrongThreadError",
]


def _past_init(self: Exception) -> tuple[Any, ...]:
    """`__reduce__` of an error that is given facts by name: pickle would call its `__init__` with `args` alone."""
    # The args in the state, not in the call: an OSError, so also a TimeoutError, takes them in its `__init__` only.
    return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class EventFlowError(Exception):
    """The base of every error that Event Flow raises on purpose."""


class DeclarationError(EventFlowError, TypeError):
    """A handler, schedule, task, hook or application is declared or added in a way that cannot work."""


class OptionError(EventFlowError, ValueError):
    """An option has a value that is not allowed; the message names the option and what is."""


class EngineNotSetError(EventFlowError, RuntimeError):
    """`self.engine` of an application that was not added to an engine."""


class EngineStateError(EventFlowError, RuntimeError):
    """What was asked is not possible in the state the engine is in."""


class EngineClosed(EventFlowError, RuntimeError):
    """The engine takes this publish no more: it was asked to stop, or has stopped. Nothing was delivered."""


class BacklogExceeded(EventFlowError, RuntimeError):
    """More than `max_backlog` events wait beyond what the queues may hold. Nothing was delivered.

    `handler` is the handler whose lane overflowed, None for events published before the start; `limit` is `max_backlog`.
    """

    def __init__(self, message: str, *, handler: str | None, limit: int) -> None:
        super().__init__(message)
        self.handler = handler
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return _past_init(self)


class LaneFull(EventFlowError, RuntimeError):
    """A publish met a handler with `overflow="error"` whose queue is full. Nothing was delivered, to no handler.

    `handler` is that handler, `limit` its `queue_size`.
    """

    def __init__(self, message: str, *, handler: str, limit: int) -> None:
        super().__init__(message)
        self.handler = handler
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return _past_init(self)


class BatchFailed(EventFlowError, RuntimeError):
    """To be raised by a handler that has done a part of its batch: what is named here failed, all else is handled.

    `failures` is a mapping of events to what went wrong with each, or an iterable of `(event, exception)` pairs (a mapping
    cannot hold events that are equal to each other, or have no hash), or an iterable of events. An event alone failed with the
    cause of this error, `raise BatchFailed([event]) from exc`, or with this error itself if it has none. Events are told apart
    by identity. A group of such, as a task group raises it, means that all failed, since it has cancelled its other tasks:
    keep what failed, and raise one behind the task group. Raises `TypeError` for what is none of these, for an exception that
    is no `Exception` (a `BaseException` ends more than an event), and `ValueError` if there is no event. A subclass whose
    `__init__` does not call this one names no event: all of them failed.
    """

    _named: tuple[tuple[Event[Any], Exception | None], ...] = ()  # until `__init__` is called

    def __init__(
        self,
        failures: Mapping[Any, Exception] | Iterable[Event[Any] | tuple[Event[Any], Exception]],
    ) -> None:
        if isinstance(failures, Event) or not isinstance(failures, Iterable):
            raise TypeError(f"BatchFailed({safe_repr(failures)}): {_FAILURES}")
        items: Iterable[Any] = failures.items() if isinstance(failures, Mapping) else failures
        self._named = tuple(map(_failure, items))
        if not self._named:
            raise ValueError(f"BatchFailed({safe_repr(failures)}): at least one event must have failed")
        # Not what was given: it may be an iterator, and is all in there.
        super().__init__()

    @property
    def failures(self) -> tuple[tuple[Event[Any], Exception], ...]:
        """The events that failed, each with its exception, in the order in which they were given."""
        # Asked for every time: `raise … from` sets the cause after the error was made.
        shared = self.__cause__ if isinstance(self.__cause__, Exception) else self
        return tuple((event, shared if error is None else error) for event, error in self._named)

    def __str__(self) -> str:
        failures = self.failures
        if not failures:
            return super().__str__()
        first = failures[0][1]
        reason = "" if first is self else f", the first with {safe_repr(first)}"
        return f"{counted(len(failures), 'event')} failed{reason}"

    def __repr__(self) -> str:
        # Without the events: there may be thousands.
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle leaves a cause out; here it may be what the events failed with.
        build, arguments, facts = _past_init(self)
        return build, arguments, {**facts, "__cause__": self.__cause__}


_FAILURES = (
    "a mapping of events to exceptions, or an iterable of events or of (event, exception) pairs, is allowed"
)


def _failure(item: Any) -> tuple[Event[Any], Exception | None]:
    """An event that failed, and with what, None if that is to be found out."""
    if isinstance(item, Event):
        return item, None
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Event):
        raise TypeError(f"BatchFailed: {safe_repr(item)} is no event: {_FAILURES}")
    event, error = item
    if not isinstance(error, Exception):
        raise TypeError(
            f"BatchFailed: {safe_repr(event)} failed with {safe_repr(error)}: an instance of Exception is allowed"
        )
    return event, error


class HandlerTimeout(EventFlowError, TimeoutError):
    """A handler call took longer than its `timeout`; `handler` names it, `timeout` is in seconds."""

    def __init__(self, message: str, *, handler: str, timeout: float) -> None:
        super().__init__(message)
        self.handler = handler
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        return _past_init(self)


class WrongThreadError(EventFlowError, RuntimeError):
    """A call for the loop's thread was made in another one, or the other way round."""


class WouldDeadlockError(EventFlowError, RuntimeError):
    """A handler, hook or schedule waits for something that cannot happen before it ends."""


class UnexpectedCancellation(EventFlowError, RuntimeError):
    """User code ended with a cancellation that nobody asked for, for instance by awaiting a cancelled future."""


class StartTimeout(EventFlowError, TimeoutError):
    """A `before_start` hook took longer than `start_timeout`; `hook` names it, `timeout` is in seconds."""

    def __init__(self, message: str, *, hook: str, timeout: float) -> None:
        super().__init__(message)
        self.hook = hook
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        return _past_init(self)


class ExitTimeout(EventFlowError, TimeoutError):
    """An `exit` hook took longer than `exit_timeout`, or than the second that a second signal leaves it.

    `hook` names it, `timeout` is what it had, in seconds.
    """

    def __init__(self, message: str, *, hook: str, timeout: float) -> None:
        super().__init__(message)
        self.hook = hook
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        return _past_init(self)


class BackendNotInstalled(EventFlowError, ImportError):
    """The backend asked for is an optional extra that is not installed; the message says which."""


class EncodeError(EventFlowError, ValueError):
    """An event that `codec.encode` cannot write so that `decode` would give it back; the message says what and where.

    `place` is where, like `data.items[3].price`; empty if it is about the event as a whole.
    """

    def __init__(self, message: str, *, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class DecodeError(EventFlowError, ValueError):
    """Bytes that are no event `codec.decode` could build: not JSON, an unknown class, a wrong shape.

    `place` is where, like `data.items[3].price`; empty if it is about the bytes as a whole.
    """

    def __init__(self, message: str, *, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class SettingsError(EventFlowError, ImportError):
    """The settings module cannot be found or imported; the real error is the cause."""


class SettingNotFound(EventFlowError, AttributeError):
    """The settings module has no such name; the message says where was looked."""

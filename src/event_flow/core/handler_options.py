"""What a handler can be told, which values are allowed, and what is declared of a handler once that is checked.

Options stand in marks, `@on_event(Order, max_batch=50)`, or beside a plain function. Several marks of one function add up:
an option may stand in any of them, but in one only. They are checked as soon as the handler has a name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from event_flow.core.annotation import EventClasses
from event_flow.core.event import Event
from event_flow.core.exception import DeclarationError, OptionError
from event_flow.core.function import is_async
from event_flow.core.options import count, one_of, seconds
from event_flow.core.rate import Rate
from event_flow.core.retry import Retry
from event_flow.core.wording import safe_repr

Overflow = Literal["wait", "drop_oldest", "drop_newest", "latest", "error"]
OnFailure = Literal["dead_letter", "discard", "pause", "stop"]

if TYPE_CHECKING:
    Key = Callable[[Event[Any]], Hashable]
    ValueT = TypeVar("ValueT")
    DefaultT = TypeVar("DefaultT")

# What type checkers are told of each stands in `fitting`, and what it means in the docstring of `on_event`.
NAMES = (
    "max_batch",
    "queue_size",
    "linger",
    "key",
    "concurrency",
    "overflow",
    "rate",
    "timeout",
    "retry",
    "isolate",
    "on_failure",
)


class HandlerOptions:
    """The options of one handler; their meaning stands in the docstring of `on_event`."""

    __slots__ = ("given", *NAMES)

    def __init__(self, where: str, given: Mapping[str, Any]) -> None:
        """`where` names the handler. Raises `DeclarationError` for an unknown name, `OptionError` for a wrong value."""
        for name in given:
            if name not in NAMES:
                raise DeclarationError(f"{where} has no option {name!r}: allowed are {', '.join(NAMES)}")

        def option(name: str, check: Callable[[str, Any], ValueT], default: DefaultT) -> ValueT | DefaultT:
            value = given.get(name, default)
            return default if value is default else check(f"{where}: {name}", value)

        self.given: dict[str, Any] = dict(given)
        # None: the engine's own.
        self.max_batch: int | None = option("max_batch", count, None)
        self.queue_size: int | None = option("queue_size", count, None)
        self.linger: float = option("linger", _seconds_from_0, 0.0)
        self.key: Key | None = option("key", _key, None)
        self.concurrency: int = option("concurrency", count, 1)
        self.overflow: Overflow = option("overflow", _overflow, "wait")
        self.rate: Rate | None = option("rate", _rate, None)
        self.timeout: float | None = option("timeout", seconds, None)
        self.retry: Retry | None = option("retry", _retry, None)
        self.isolate: bool = option("isolate", _flag, False)
        self.on_failure: dict[type[Exception], OnFailure] = _on_failure(
            f"{where}: on_failure", given.get("on_failure", {})
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={safe_repr(value)}' for name, value in self.given.items())})"


class HandlerDeclaration:
    """One handler as it was declared: its event classes, its options, and whether it takes a `Batch` in place of a list."""

    __slots__ = ("events", "options", "takes_batch")

    def __init__(self, events: EventClasses, options: HandlerOptions, *, takes_batch: bool = False) -> None:
        self.events: EventClasses = events
        self.options: HandlerOptions = options
        self.takes_batch: bool = takes_batch

    def __repr__(self) -> str:
        takes = "Batch" if self.takes_batch else "list"
        return f"<HandlerDeclaration {takes}[{' | '.join(each.__name__ for each in self.events)}], {self.options!r}>"


def merged(where: str, marks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The options of several marks of the handler `where`. Raises `DeclarationError` for one that stands in two of them."""
    together: dict[str, Any] = {}
    for given in marks:
        for name, value in given.items():
            if name in together:
                raise DeclarationError(
                    f"{where} has the option {name!r} twice: give it with one of its event classes"
                )
            together[name] = value
    return together


class DataEntry:
    """The key of an event is an entry of its data: what `key="symbol"` means."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name

    def __call__(self, event: Event[Any]) -> Any:
        return event.data[self.name]

    def __repr__(self) -> str:
        return f"<entry {self.name!r} of the data>"


def _seconds_from_0(name: str, value: Any) -> float:
    return seconds(name, value, zero=True)


def _overflow(name: str, value: Any) -> Overflow:
    return one_of(name, value, get_args(Overflow))  # type: ignore[no-any-return]


def _rate(name: str, value: Any) -> Rate:
    if not isinstance(value, Rate):
        raise OptionError(f"{name}={safe_repr(value)}: a Rate is allowed, for instance Rate(100, per=1.0)")
    return value


def _retry(name: str, value: Any) -> Retry:
    if not isinstance(value, Retry):
        raise OptionError(f"{name}={safe_repr(value)}: a Retry is allowed, for instance Retry(on=OSError)")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name}={safe_repr(value)}: True or False is allowed")
    return value


def _key(name: str, value: Any) -> Key:
    if isinstance(value, str) and value:
        return DataEntry(value)
    shown = f"{name}={safe_repr(value)}"
    if not callable(value):
        raise OptionError(
            f"{shown}: a function of one event is allowed, or a str that names an entry of its data"
        )
    key: Key = value
    if is_async(value) or inspect.isasyncgenfunction(value):
        raise OptionError(f"{shown}: it is asked while an event is published, so it cannot be async")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError, NameError):
        return key  # nothing is known of it
    try:
        signature.bind(None)
    except TypeError as exc:
        raise OptionError(f"{shown}: it is called with one event, but takes {signature}: {exc}") from None
    return key


def _on_failure(name: str, value: Any) -> dict[type[Exception], OnFailure]:
    if not isinstance(value, Mapping):
        raise OptionError(
            f"{name}={safe_repr(value)}: a dict of Exception classes is allowed, for instance {{ValueError: 'discard'}}"
        )
    for error, action in value.items():
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise OptionError(f"{name}={safe_repr(value)}: {safe_repr(error)} is no subclass of Exception")
        one_of(f"{name}[{error.__name__}]", action, get_args(OnFailure))
    return dict(value)

"""What is checked before something is added to an engine or an application, so that mistakes show there and then."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from event_flow.core.declaration import DeclaringMeta, declarations_of, method_of
from event_flow.core.exception import DeclarationError
from event_flow.core.function import is_async
from event_flow.core.wording import name_of, safe_repr

if TYPE_CHECKING:
    from event_flow.core.middleware import Middleware

HOOKS = ("before_start", "exit")


class Node(Protocol):
    """An application or sub-application, as far as others need to know it."""

    name: str | None

    @property
    def _added_to(self) -> object | None: ...
    @property
    def _middleware(self) -> Sequence[Middleware]: ...
    @property
    def _sub_apps(self) -> Sequence[Node]: ...
    def _overridden(self, name: str) -> Callable[[], Any] | None: ...


def family(app: Node) -> Iterator[Node]:
    """`app` and everything that belongs to it, parents first."""
    yield app
    for child in app._sub_apps:
        yield from family(child)


def require_free(apps: Iterable[Node]) -> None:
    """Raises `DeclarationError` for an application that belongs somewhere already, or is named twice."""
    seen: set[int] = set()
    for app in apps:
        if app._added_to is not None or id(app) in seen:
            where = "an application" if isinstance(type(app._added_to), DeclaringMeta) else "an engine"
            how = "is listed twice" if app._added_to is None else f"belongs to {where} already"
            raise DeclarationError(f"this {type(app).__name__} {how}: add each once")
        seen.add(id(app))


def require_sound(apps: Iterable[Node]) -> None:
    """Raises `DeclarationError` if one of them, or of what belongs to it, declares what could not be called.

    Warns of methods that look like handlers and are none.
    """
    for app in apps:
        for node in family(app):
            _require_sound(node)


def _require_sound(node: Node) -> None:
    kind = type(node)
    declared = declarations_of(kind)
    if not isinstance(node.name, str | None):
        raise DeclarationError(
            f"{kind.__name__}.name is {safe_repr(node.name)}: a str names the instance, None leaves it the class's name"
        )
    for name, handler in declared.handlers.items():
        require_call(method_of(node, name), f"{kind.__name__}.{name}", what_is_given(handler.takes_batch))
    for name in (*declared.schedules, *declared.tasks):
        require_call(method_of(node, name), f"{kind.__name__}.{name}")
    for name in HOOKS:
        hook = node._overridden(name)
        if hook is not None:
            require_call(hook, f"{kind.__name__}.{name}")
    for name in declared.near_misses:
        logger.bind(app=kind.__name__, handler=f"{kind.__name__}.{name}").warning(
            "{}.{} is no handler, because it takes no list of events: annotate its parameter as a list or Batch of events, "
            "or name it otherwise",
            kind.__name__,
            name,
        )


def what_is_given(takes_batch: bool) -> str:
    """What a handler is called with, for a message."""
    return "one Batch" if takes_batch else "one list of events"


def require_call(function: Any, name: str, *given: str) -> None:
    """Raises `DeclarationError` unless `function` can be called as the engine will: with what is `given`, or with nothing."""
    if not callable(function):
        raise DeclarationError(f"{name} is {safe_repr(function)}: a function or method is needed")
    if hasattr(function, "__signature__"):
        return  # what a decorator says of the function inside, to which it may give further arguments
    try:
        # Not that of what it wraps: a decorator may fill in further arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError, NameError):
        return  # nothing is known of it
    try:
        signature.bind(*given)
    except TypeError as exc:
        how = f"with {' and '.join(given)}" if given else "without arguments"
        raise DeclarationError(f"{name} is called {how}, but takes {signature}: {exc}") from None


def require_middleware(function: Any) -> None:
    """Raises `DeclarationError` unless it can be put around a handler."""
    name = f"the middleware {name_of(function)}"
    require_call(function, name, "a batch", "call_next")
    if not is_async(function):
        raise DeclarationError(f"{name} awaits call_next, so it has to be async: write `async def`")

"""Plain functions: the part of `AppEngine` that makes handlers, hooks, middleware and filters of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from event_flow.core.annotation import EventClasses
from event_flow.core.declaration import takes_batch
from event_flow.core.decorators import event_classes
from event_flow.core.event import Event
from event_flow.core.exception import DeclarationError
from event_flow.core.filtering import Filter
from event_flow.core.function import is_async
from event_flow.core.handler_options import HandlerDeclaration, HandlerOptions, merged
from event_flow.core.hooks import Hook
from event_flow.core.lifecycle import Lifecycle
from event_flow.core.membership import require_call, require_middleware, what_is_given
from event_flow.core.wording import name_of, safe_repr

if TYPE_CHECKING:
    from typing import TypeVar, Unpack

    from event_flow.core.batch import Batch
    from event_flow.core.fitting import (
        E1,
        E2,
        E3,
        E4,
        Fits,
        FunctionDecorator,
        Options,
        WiderEventT,
        WiderT,
    )
    from event_flow.core.middleware import Middleware

    HookT = TypeVar("HookT", bound=Callable[[], object])


class Registering(Lifecycle):
    """The part of `AppEngine` that takes plain functions; they form an application of their own, first in, last out."""

    @overload
    def on_event(self, event: type[E1], /, **options: Unpack[Options[E1]]) -> FunctionDecorator[E1]: ...
    @overload
    def on_event(
        self, event: type[E1], event2: type[E2], /, **options: Unpack[Options[E1 | E2]]
    ) -> FunctionDecorator[E1 | E2]: ...
    @overload
    def on_event(
        self,
        event: type[E1],
        event2: type[E2],
        event3: type[E3],
        /,
        **options: Unpack[Options[E1 | E2 | E3]],
    ) -> FunctionDecorator[E1 | E2 | E3]: ...
    @overload
    def on_event(
        self,
        event: type[E1],
        event2: type[E2],
        event3: type[E3],
        event4: type[E4],
        /,
        **options: Unpack[Options[E1 | E2 | E3 | E4]],
    ) -> FunctionDecorator[E1 | E2 | E3 | E4]: ...
    @overload
    def on_event(
        self,
        event: type[Event[Any]],
        event2: type[Event[Any]],
        event3: type[Event[Any]],
        event4: type[Event[Any]],
        event5: type[Event[Any]],
        /,
        *events: type[Event[Any]],
        **options: Unpack[Options[Any]],
    ) -> FunctionDecorator[Any]: ...
    def on_event(self, *events: type[Event[Any]], **options: Any) -> FunctionDecorator[Any]:
        """Decorator: a plain function, sync or async, becomes a handler of these classes and is returned as it is.

        The options are those of `event_flow.on_event`, for methods. Raises `DeclarationError` for
        what is no event class or cannot be called with one list or `Batch`, and for an option that there is not or that
        this function has already; `OptionError` for a value that is not allowed; `EngineStateError` when the engine has
        been started.
        """
        classes = event_classes(events, "@engine.on_event")

        def register(function: Any) -> Any:
            self._register("@engine.on_event", classes, options, function)
            return function

        return register

    # The class tells a checker what the list of one function holds; of several, each may say it in its own way.
    @overload
    def register_handler(
        self,
        event: type[E1],
        function: Fits[[list[WiderT]], [list[E1 | WiderT]], [list[WiderT]], object],
        /,
        **options: Unpack[Options[E1]],
    ) -> None: ...
    @overload
    def register_handler(
        self,
        event: type[E1],
        function: Fits[[Batch[WiderEventT]], [Batch[E1 | WiderEventT]], [Batch[WiderEventT]], object],
        /,
        **options: Unpack[Options[E1]],
    ) -> None: ...
    @overload
    def register_handler(
        self, event: type[E1], function: Callable[[Batch[E1]], object], /, **options: Unpack[Options[E1]]
    ) -> None: ...
    @overload
    def register_handler(
        self, event: type[E1], function: Callable[[list[E1]], object], /, **options: Unpack[Options[E1]]
    ) -> None: ...
    @overload
    def register_handler(
        self,
        event: type[E1],
        function: Callable[[list[Any]], object] | Callable[[Batch[Any]], object],
        function2: Callable[[list[Any]], object] | Callable[[Batch[Any]], object],
        /,
        *functions: Callable[[list[Any]], object] | Callable[[Batch[Any]], object],
        **options: Unpack[Options[E1]],
    ) -> None: ...
    def register_handler(
        self, event: type[Event[Any]], *functions: Callable[..., Any], **options: Any
    ) -> None:
        """Make plain functions handlers of `event`, each with these options. One that is registered again gets the further
        class too, and the options that it does not have yet.

        Raises what `on_event` does; then none was registered.
        """
        classes = event_classes((event,), "register_handler")
        if not functions:
            raise DeclarationError(
                f"no function for {event.__name__}: register_handler({event.__name__}, function)"
            )
        self._register("register_handler", classes, options, *functions)

    def before_start(self, hook: HookT) -> HookT:
        """Decorator: call `hook`, sync or async and without arguments, before anything starts; returns it as it is.

        Raises `DeclarationError` for what cannot be called so, `EngineStateError` when the engine has been started.
        """
        self._add_hook("before_start", self._before_start, hook)
        return hook

    def exit(self, hook: HookT) -> HookT:
        """Decorator: call `hook`, sync or async and without arguments, when everything has ended; returns it as it is.

        Called last registered first, once `run()` has begun also when the start failed. Raises what `before_start` does.
        """
        self._add_hook("exit", self._exit, hook)
        return hook

    def add_middleware(self, middleware: Middleware) -> None:
        """Put `async def middleware(batch, call_next)` around every attempt of every handler, inside of those added before.

        `await call_next(batch)` goes on, to the handler in the end; what the handler raises comes out of it, and what leaves
        the middleware is what the attempt failed with. It may change `batch.events`, hand on a `Batch` of its own, or not go
        on at all: then the events count as handled. With a batch that has become empty the handler is not called. A sync
        handler runs in its thread, middleware on the loop. The middleware of an application comes inside of the engine's.

        Raises `DeclarationError` for what is not async or cannot be called so, `EngineStateError` when the engine has been
        started.
        """
        self._require_not_running("add_middleware")
        require_middleware(middleware)
        self._middleware.append(middleware)

    def add_filter(self, filter: Filter) -> None:  # noqa: A002 - what it is
        """Show every event that is published to the sync `filter(event)` first: it returns the event to route, or None.

        Another event may take its place, of another class too. None drops it, which is counted as `filtered`. Filters are
        called in the order in which they were added, for `ExceptionEvent`s too, but not for what `redeliver()` gives back;
        on the loop, or, before the engine runs, in the thread that publishes. What one raises the publish raises, and
        nothing is delivered. It must be quick and must not publish. As long as there is a filter, each publish takes longer.

        Raises `DeclarationError` for what is async or cannot be called with one event, `EngineStateError` when the engine
        has been started.
        """
        self._require_not_running("add_filter")
        name = f"the filter {name_of(filter)}"
        require_call(filter, name, "one event")
        if is_async(filter):
            raise DeclarationError(f"{name} is called while an event is published, so it cannot be async")
        self._filters.append(filter)
        self._use_routes()

    def _register(
        self, what: str, classes: EventClasses, options: Mapping[str, Any], *functions: Callable[..., Any]
    ) -> None:
        self._require_not_running(what)
        for function in functions:
            if not callable(function):
                raise DeclarationError(f"{what} takes functions, not {safe_repr(function)}")
        declared = [self._declared(function, classes, options) for function in functions]
        self._functions.update(declared)

    def _declared(
        self, function: Callable[..., Any], classes: EventClasses, options: Mapping[str, Any]
    ) -> tuple[object, tuple[Callable[..., Any], HandlerDeclaration]]:
        """The function as it will be known, with what was registered before."""
        where = f"the handler {name_of(function)}"
        # A bound method is another object each time it is looked up; anything else is what it is.
        key = function if inspect.ismethod(function) else id(function)
        known, earlier = self._functions.get(key, (function, None))
        is_batch = takes_batch(function, where) if earlier is None else earlier.takes_batch
        require_call(function, where, what_is_given(is_batch))
        marks = [earlier.options.given, options] if earlier else [options]
        events = (*earlier.events, *classes) if earlier else classes
        return key, (
            known,
            HandlerDeclaration(
                tuple(dict.fromkeys(events)),
                HandlerOptions(where, merged(where, marks)),
                takes_batch=is_batch,
            ),
        )

    def _add_hook(self, kind: str, hooks: list[Hook], hook: Callable[..., Any]) -> None:
        self._require_not_running(kind)
        if not callable(hook):
            raise DeclarationError(f"@engine.{kind} takes a function, not {safe_repr(hook)}")
        require_call(hook, f"the {kind} hook {name_of(hook)}")
        hooks.append((f"{kind} hook {name_of(hook)}", hook))

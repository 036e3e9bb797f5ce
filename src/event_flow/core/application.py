"""What users write and run: `Application`, `SubApplication` and `AppEngine`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from event_flow.core.declaration import DeclaringMeta
from event_flow.core.exception import DeclarationError, EngineNotSetError
from event_flow.core.membership import require_free, require_middleware, require_sound
from event_flow.core.options import EngineOptions, OnError
from event_flow.core.registering import Registering
from event_flow.core.wording import safe_repr

if TYPE_CHECKING:
    from event_flow.core.middleware import Middleware

__all__ = ["AppEngine", "Application", "SubApplication"]


class ApplicationBase(metaclass=DeclaringMeta):
    """What `Application` and `SubApplication` share. Works also where a subclass forgets `super().__init__()`."""

    name: str | None = None
    """Names the instance in logs, statistics and reports; the class's name if None. A second one of a name becomes `name#2`."""

    _added_to: AppEngine | ApplicationBase | None = None
    _sub_apps: tuple[SubApplication, ...] = ()
    _middleware: tuple[Middleware, ...] = ()

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        if name is not None:
            self.name = name

    @property
    def engine(self) -> AppEngine:
        """The engine this belongs to. Raises `EngineNotSetError` if it was not added to one."""
        owner = self._added_to
        if isinstance(owner, AppEngine):
            return owner
        if owner is None:
            where = "engine.add_app(app)" if isinstance(self, Application) else "app.add_app(sub)"
            raise EngineNotSetError(f"{type(self).__name__} belongs to no engine: add it with {where} first")
        return owner.engine

    def add_app(self, *apps: SubApplication) -> None:
        """Add sub-applications. They start after this application's `before_start` and are gone before its `exit`.

        Raises `DeclarationError` for anything but a `SubApplication` that belongs nowhere yet, and, once there is an
        engine, for what its `add_app` refuses; `EngineStateError` when that has been started. Then none was added.
        """
        engine = self._engine_if_any
        if engine is not None:
            engine._require_not_running("add_app")
        for app in apps:
            if not isinstance(app, SubApplication):
                raise DeclarationError(
                    f"only SubApplication instances go into an application, not {_shown(app)}"
                )
            if any(app is ancestor for ancestor in self._ancestry()):
                raise DeclarationError(
                    f"{type(app).__name__} cannot be added to itself or to what belongs to it"
                )
        require_free(apps)
        if engine is not None:
            require_sound(apps)
        self._sub_apps = (*self._sub_apps, *apps)
        for app in apps:
            app._added_to = self

    def add_middleware(self, middleware: Middleware) -> None:
        """Put middleware around every attempt of the handlers of this application and of those that belong to it.

        As `AppEngine.add_middleware`, and inside of the engine's.
        """
        engine = self._engine_if_any
        if engine is not None:
            engine._require_not_running("add_middleware")
        require_middleware(middleware)
        self._middleware = (*self._middleware, middleware)

    def before_start(self) -> Coroutine[Any, Any, None] | None:
        """Override it, sync or async: runs before any handler does, within `start_timeout`.

        What it raises ends the start, and leaves `run()` or `start()` as it is.
        """

    def exit(self) -> Coroutine[Any, Any, None] | None:
        """Override it, sync or async: runs once at the end if `before_start` succeeded, within `exit_timeout`.

        By then everything of this application has ended, or was given up waiting for. What it raises leaves `run()` or
        `start()`, after all other hooks.
        """

    @property
    def _engine_if_any(self) -> AppEngine | None:
        top = list(self._ancestry())[-1]._added_to
        return top if isinstance(top, AppEngine) else None

    def _overridden(self, name: str) -> Callable[[], Any] | None:
        """The method `before_start` or `exit` if it was overridden."""
        method = getattr(self, name)
        is_own = getattr(method, "__func__", None) is getattr(ApplicationBase, name)
        return None if is_own else method

    def _ancestry(self) -> Iterator[ApplicationBase]:
        """This, the application it belongs to, and so on up."""
        node: AppEngine | ApplicationBase | None = self
        while isinstance(node, ApplicationBase):
            yield node
            node = node._added_to


class Application(ApplicationBase):
    """A part of a program: handlers, schedules, tasks and hooks that belong together. Add it to an `AppEngine`.

    Handlers are methods marked with `@on_event`, or named `on_*` with one parameter annotated `list[SomeEvent]` or
    `Batch[SomeEvent]`. One that fails on one event of its list fails the whole list, unless it raises `BatchFailed`. Methods
    run on the loop if they are async and in a thread if not; `self.engine` publishes.
    """


class SubApplication(ApplicationBase):
    """An application inside another one, to any depth. Add it with the `add_app` of its parent."""

    @property
    def parent(self) -> ApplicationBase:
        """The application this was added to. Raises `EngineNotSetError` if it was not."""
        if not isinstance(self._added_to, ApplicationBase):
            raise EngineNotSetError(
                f"{type(self).__name__} belongs to no application: add it with app.add_app(sub) first"
            )
        return self._added_to


class AppEngine(Registering):
    """Runs applications on one bus: routes events to handlers, starts everything in order and ends it in order.

    It may run again after it has stopped, also on another backend. Options, all checked at once (`OptionError`, a
    `ValueError`); times are seconds or a `timedelta`:

    - `queue_size`: events that may wait for one handler before those who publish to it wait too; at least 1. A handler may
      have a `queue_size` and a `max_batch` of its own, see `on_event`.
    - `max_batch`: most events in the list a handler gets; at least 1.
    - `max_backlog`: most events kept before the start, and most that handlers in a circle may pile up over `queue_size`;
      at least 0. Beyond it publishing raises `BacklogExceeded`.
    - `grace_period`: what `stop()` gives handlers to finish what was accepted; at least 0, `math.inf` allowed.
    - `start_timeout`: time for each `before_start` hook; above 0, `math.inf` allowed.
    - `exit_timeout`: time for each `exit` hook, and for the cancelled tasks of each application; above 0, finite.
    - `on_error`: `"contain"` publishes what fails as `ExceptionEvent`, `"raise"` ends the engine with the first failure.
    - `max_threads`: sync handlers and schedules that run at once; at least 1. Sync tasks and hooks come on top.
    """

    def __init__(
        self,
        apps: Iterable[Application] = (),
        *,
        queue_size: int = 1000,
        max_batch: int = 1000,
        max_backlog: int = 100_000,
        grace_period: float | timedelta = 10.0,
        start_timeout: float | timedelta = 60.0,
        exit_timeout: float | timedelta = 10.0,
        on_error: OnError = "contain",
        max_threads: int = 40,
    ) -> None:
        super().__init__(
            EngineOptions(
                queue_size=queue_size,
                max_batch=max_batch,
                max_backlog=max_backlog,
                grace_period=grace_period,
                start_timeout=start_timeout,
                exit_timeout=exit_timeout,
                on_error=on_error,
                max_threads=max_threads,
            )
        )
        if isinstance(apps, type | ApplicationBase) or not isinstance(apps, Iterable):
            raise DeclarationError(
                f"apps is a list of applications, AppEngine([MyApp()]), not {_shown(apps)}"
            )
        self.add_app(*apps)

    # -- before it runs --------------------------------------------------------------------------------------------

    def add_app(self, *apps: Application) -> None:
        """Add applications. They start in this order and end in reverse.

        Raises `DeclarationError` for anything but an `Application` that belongs nowhere yet, and for one that has an
        annotation that cannot be resolved, or a handler, schedule, task or hook that could not be called; and
        `EngineStateError` when the engine has been started. Then none was added.
        """
        self._require_not_running("add_app")
        for app in apps:
            if not isinstance(app, Application):
                raise DeclarationError(f"only Application instances go into an engine, not {_shown(app)}")
        require_free(apps)
        require_sound(apps)
        self._apps.extend(apps)
        for app in apps:
            app._added_to = self

    def __repr__(self) -> str:
        return f"<AppEngine {self.state.value}: {len(self._apps)} applications, {self._bus.activity.busy_lanes} handlers busy>"


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: make an instance, {value.__name__}()"
    if isinstance(value, ApplicationBase):
        kind = "an Application" if isinstance(value, Application) else "a SubApplication"
        return f"{type(value).__name__}, which is {kind}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__}: write add_app(*apps)"
    return f"{type(value).__name__} {safe_repr(value)}"

"""What users write and run: `Application`, `SubApplication` and `AppEngine`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from threading import get_ident
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus
from loguru import logger

from event_flow.core import assembly
from event_flow.core.backend import LoopGone, Wake, current_wake, in_event_loop, require_installed
from event_flow.core.bell import Bell
from event_flow.core.branch import Branch
from event_flow.core.bus import Bus
from event_flow.core.declaration import DeclaringMeta, EventClasses, declarations_of
from event_flow.core.decorators import event_classes
from event_flow.core.event import Event
from event_flow.core.exception import (
    DeclarationError,
    EngineClosed,
    EngineNotSetError,
    EngineStateError,
    WouldDeadlockError,
)
from event_flow.core.failure import Failures
from event_flow.core.options import EngineOptions, OnError
from event_flow.core.origin import Kind, current_origin
from event_flow.core.publishing import Publisher
from event_flow.core.report import EngineStatistics, ShutdownReport
from event_flow.core.run import Run
from event_flow.core.signals import SignalHandlers
from event_flow.core.state import EngineState
from event_flow.core.supervision import Hook, Supervisor
from event_flow.core.threads import Threads

__all__ = ["AppEngine", "Application", "SubApplication"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class ApplicationBase(metaclass=DeclaringMeta):
    """What `Application` and `SubApplication` share. Works also where a subclass forgets `super().__init__()`."""

    name: str | None = None
    """Names the instance in logs, statistics and reports; the class's name if None."""

    _owner: AppEngine | ApplicationBase | None = None
    _children: tuple[SubApplication, ...] = ()

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        if name is not None:
            self.name = name

    @property
    def engine(self) -> AppEngine:
        """The engine this belongs to. Raises `EngineNotSetError` if it was not added to one."""
        owner = self._owner
        if isinstance(owner, AppEngine):
            return owner
        if owner is None:
            where = "engine.add_app(app)" if isinstance(self, Application) else "app.add_app(sub)"
            raise EngineNotSetError(f"{type(self).__name__} belongs to no engine: add it with {where} first")
        return owner.engine

    def add_app(self, *apps: SubApplication) -> None:
        """Add sub-applications. They start after this application's `before_start` and are gone before its `exit`.

        Raises `DeclarationError` for anything but a `SubApplication` that belongs nowhere yet, and `EngineStateError`
        when the engine has been started. Then none was added.
        """
        engine = self._engine_or_none
        if engine is not None:
            engine._require_not_running("add_app")
        for app in apps:
            if not isinstance(app, SubApplication):
                raise DeclarationError(
                    f"only SubApplication instances go into an application, not {_shown(app)}"
                )
            if any(app is ancestor for ancestor in self._line()):
                raise DeclarationError(
                    f"{type(app).__name__} cannot be added to itself or to what belongs to it"
                )
        _require_free(apps)
        self._children = (*self._children, *apps)
        for app in apps:
            app._owner = self

    def before_start(self) -> Awaitable[None] | None:
        """Override it, sync or async: runs before any handler does, within `start_timeout`."""

    def exit(self) -> Awaitable[None] | None:
        """Override it, sync or async: runs once at the end if the start succeeded, within `exit_timeout`."""

    @property
    def _engine_or_none(self) -> AppEngine | None:
        top = list(self._line())[-1]._owner
        return top if isinstance(top, AppEngine) else None

    def _hook(self, name: str) -> Callable[[], Any] | None:
        """The method `before_start` or `exit` if it was overridden."""
        method = getattr(self, name)
        is_own = getattr(method, "__func__", None) is getattr(ApplicationBase, name)
        return None if is_own else method

    def _line(self) -> Iterator[ApplicationBase]:
        """This, the application it belongs to, and so on up."""
        node: AppEngine | ApplicationBase | None = self
        while isinstance(node, ApplicationBase):
            yield node
            node = node._owner


class Application(ApplicationBase):
    """A part of a program: handlers, schedules, tasks and hooks that belong together. Add it to an `AppEngine`.

    Handlers are methods marked with `@on_event`, or named `on_*` with one parameter annotated `list[SomeEvent]`. One
    that fails on one event of its list fails the whole list. Methods run on the loop if they are async and in a
    thread if not; `self.engine` publishes.
    """


class SubApplication(ApplicationBase):
    """An application inside another one, to any depth. Add it with the `add_app` of its parent."""

    @property
    def parent(self) -> ApplicationBase:
        """The application this was added to. Raises `EngineNotSetError` if it was not."""
        if not isinstance(self._owner, ApplicationBase):
            raise EngineNotSetError(
                f"{type(self).__name__} belongs to no application: add it with app.add_app(sub) first"
            )
        return self._owner


class AppEngine(Publisher):
    """Runs applications on one bus: routes events to handlers, starts everything in order and ends it in order.

    It may run again after it has stopped, also on another backend. Options, all checked at once (`OptionError`, a
    `ValueError`):

    - `queue_size`: events that may wait for one handler before those who publish to it wait too; at least 1.
    - `max_batch`: most events in the list a handler gets; at least 1.
    - `max_backlog`: most events kept before the start, and most that handlers in a circle may pile up over `queue_size`;
      at least 0. Beyond it publishing raises `BacklogExceeded`.
    - `grace_period`: seconds `stop()` gives handlers to finish what was accepted; at least 0, `math.inf` allowed.
    - `start_timeout`: seconds for each `before_start` hook; above 0, `math.inf` allowed.
    - `exit_timeout`: seconds for each `exit` hook, and for the cancelled tasks of each application; above 0, finite.
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
        grace_period: float = 10.0,
        start_timeout: float = 60.0,
        exit_timeout: float = 10.0,
        on_error: OnError = "contain",
        max_threads: int = 40,
    ) -> None:
        self._options = EngineOptions.checked(
            queue_size=queue_size,
            max_batch=max_batch,
            max_backlog=max_backlog,
            grace_period=grace_period,
            start_timeout=start_timeout,
            exit_timeout=exit_timeout,
            on_error=on_error,
            max_threads=max_threads,
        )
        self._apps: list[Application] = []
        self._functions: dict[Callable[..., Any], EventClasses] = {}
        self._before_start: list[Hook] = []
        self._exit: list[Hook] = []
        self._bell = Bell()
        self._supervisor: Supervisor | None = None
        self._branches: list[Branch] = []
        self._wake: Wake | None = None
        self._report: ShutdownReport | None = None
        self._session: tuple[TaskGroup, int] | None = None
        self._publish_with(Bus(max_backlog=max_backlog))
        self.add_app(*apps)

    # -- before it runs --------------------------------------------------------------------------------------------

    def add_app(self, *apps: Application) -> None:
        """Add applications. They start in this order and end in reverse.

        Raises `DeclarationError` for anything but an `Application` that belongs nowhere yet, or whose annotations
        cannot be resolved, and `EngineStateError` when the engine has been started. Then none was added.
        """
        self._require_not_running("add_app")
        for app in apps:
            if not isinstance(app, Application):
                raise DeclarationError(f"only Application instances go into an engine, not {_shown(app)}")
        _require_free(apps)
        for app in apps:
            for node in _family(app):
                declarations_of(type(node))
        self._apps.extend(apps)
        for app in apps:
            app._owner = self

    def on_event(self, *events: type[Event[Any]]) -> Callable[[FunctionT], FunctionT]:
        """Decorator: a plain function, sync or async, becomes a handler of these classes and is returned as it is."""
        classes = event_classes(events, "@engine.on_event")

        def register(function: FunctionT) -> FunctionT:
            self._register(function, classes)
            return function

        return register

    def register_handler(self, event: type[Event[Any]], *functions: Callable[..., Any]) -> None:
        """Make plain functions handlers of `event`. One that is registered again gets the further class too."""
        classes = event_classes((event,), "register_handler")
        for function in functions:
            if not callable(function):
                raise DeclarationError(f"register_handler takes functions, not {function!r}")
        for function in functions:
            self._register(function, classes)

    def before_start(self, hook: FunctionT) -> FunctionT:
        """Decorator: call `hook`, sync or async and without arguments, before anything starts; returns it as it is."""
        self._add_hook("before_start", self._before_start, hook)
        return hook

    def exit(self, hook: FunctionT) -> FunctionT:
        """Decorator: call `hook`, sync or async and without arguments, when everything has ended; returns it as it is.

        Called last registered first, once `run()` has begun also when the start failed.
        """
        self._add_hook("exit", self._exit, hook)
        return hook

    # -- running ---------------------------------------------------------------------------------------------------

    def start(
        self, backend: str = "asyncio", backend_options: Mapping[str, Any] | None = None
    ) -> ShutdownReport:
        """Run the engine in an event loop of its own until `stop()`, SIGINT or SIGTERM; return the shutdown report.

        `backend` is `"asyncio"` or `"trio"`; `backend_options` go to `anyio.run` (`{"use_uvloop": True}`). In the main
        thread the first signal drains; the second ends at once and raises `KeyboardInterrupt`; the third ends the process.
        Raises `EngineStateError` inside a running loop or while the engine runs, `BackendNotInstalled` (an
        `ImportError`), and what `run()` raises.
        """
        options = dict(backend_options or {})
        if in_event_loop():
            raise EngineStateError(
                "start() makes its own event loop; inside a running one, `await engine.run()` instead"
            )
        self._require_not_running("start")
        require_installed(backend, options)
        error, hurried = anyio.run(self._run_with_signals, backend=backend, backend_options=options)
        if error is not None:
            raise error
        if hurried:
            raise KeyboardInterrupt
        assert self._report is not None
        return self._report

    async def run(self, *, task_status: TaskStatus[AppEngine] = anyio.TASK_STATUS_IGNORED) -> ShutdownReport:
        """Run the engine in the current event loop until `stop()`; return the shutdown report.

        `await task_group.start(engine.run)` returns the engine once everything has started. Cancelled, it ends in order
        without the drain and raises the cancellation again. It raises what a `before_start` hook raised, as it is; what
        `exit` hooks raised, one error as itself and several as one flat group; with `on_error="raise"` the first
        failure; and `SystemExit` or `KeyboardInterrupt` out of user code, bare. Always only after every application whose
        start succeeded has had its `exit`. Raises `EngineStateError` if the engine runs already.
        """
        self._require_not_running("run")
        supervisor = self._prepare()
        cancelled: BaseException | None = None
        try:
            async with anyio.create_task_group() as root:
                await supervisor.watch(root, self, task_status)
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
        except BaseExceptionGroup as exc:
            supervisor.fatal.extend(exc.exceptions)  # a bug in the supervisor itself
        finally:
            self._finish(supervisor)
        try:
            supervisor.raise_errors()
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled, supervisor  # their tracebacks refer to this frame
        assert self._report is not None
        return self._report

    async def __aenter__(self) -> Self:
        """Run the engine beside the body of `async with`. A failure of the engine cancels the body; `stop()` does not."""
        group = anyio.create_task_group()
        await group.__aenter__()
        try:
            await group.start(self.run)
        except BaseException as exc:
            await _leave(group, exc)
            raise
        self._session = (group, anyio.get_current_task().id)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Stop the engine and wait for its end; without the drain if the body raised."""
        assert self._session is not None
        (group, task), self._session = self._session, None
        self.stop()
        if anyio.get_current_task().id != task:
            await self.wait_stopped()
            raise EngineStateError(
                "`async with engine` must end in the task it began in; fixtures of pytest-asyncio and generators that are "
                "closed elsewhere do not: use anyio's pytest plugin, or `await task_group.start(engine.run)`"
            )
        return await _leave(group, exc)

    def stop(self) -> None:
        """Ask the engine to end: it takes no more from outside and drains for at most `grace_period`.

        Returns at once; idempotent. May be called from a handler, a hook, any thread and a signal handler. Does
        nothing before the start and after the end; while the engine starts, it cancels the hook at work.
        """
        supervisor, wake = self._supervisor, self._wake
        if supervisor is None or wake is None:
            return
        if self._bus.state is EngineState.RUNNING and self._bus.thread == get_ident():
            self._bus.shut_out()
        try:
            wake(supervisor.stop)
        except LoopGone:
            return

    # -- waiting and looking ---------------------------------------------------------------------------------------

    async def wait_running(self) -> None:
        """Wait until handlers, schedules and tasks run. Raises `EngineClosed` if the engine ends before."""
        awaited = self._supervisor

        def is_decided() -> bool:
            nonlocal awaited
            awaited = awaited or self._supervisor
            return awaited is not None and (awaited.has_opened or awaited.is_finished)

        await self._bell.until(is_decided)
        if self.state is not EngineState.RUNNING:
            raise EngineClosed(f"the engine is {self.state.value}: it does not run any more")

    async def wait_idle(self) -> None:
        """Wait until nothing is queued and no handler runs, or the engine has stopped.

        Raises `WouldDeadlockError` (a `RuntimeError`) inside a handler or hook.
        """
        self._require_outside("wait_idle", Kind.CALL, Kind.HOOK)
        bus, inbox = self._bus, self._inbox
        bus.idle_watchers += 1
        try:
            await self._bell.until(lambda: bus.state is EngineState.STOPPED or (bus.is_idle and inbox.is_empty))
        finally:
            bus.idle_watchers -= 1

    async def wait_stopped(self) -> ShutdownReport:
        """Wait until the engine has stopped, and return the shutdown report; at once if it has.

        Raises `WouldDeadlockError` (a `RuntimeError`) inside a handler, hook or schedule: the engine waits for those.
        """
        self._require_outside("wait_stopped", Kind.CALL, Kind.HOOK, Kind.TICK)
        await self._bell.until(lambda: self.state is EngineState.STOPPED)
        assert self._report is not None
        return self._report

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._bus.state

    @property
    def report(self) -> ShutdownReport | None:
        """The report of the last run that has ended, None before."""
        return self._report

    def statistics(self) -> EngineStatistics:
        """The numbers of the current run, or of the last one."""
        return assembly.statistics(self._bus, self._branches)

    def __repr__(self) -> str:
        return f"<AppEngine {self.state.value}: {len(self._apps)} applications, {self._bus.busy_lanes} handlers busy>"

    # -- one run ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> Supervisor:
        """Make everything anew for a run."""
        if self.state is EngineState.STOPPED:
            self._publish_with(Bus(max_backlog=self._options.max_backlog))
        bus = self._bus
        bus.on_change = self._bell.ring
        bus.thread = self._thread = get_ident()
        self._wake = current_wake()
        threads = Threads(self._options.max_threads, self._wake)
        failures = Failures(bus, self._options.on_error)
        run = Run(
            options=self._options,
            bus=bus,
            inbox=self._inbox,
            threads=threads,
            failures=failures,
            bell=self._bell,
        )
        self._branches = assembly.grow(self._apps, self._functions, run)
        self._supervisor = Supervisor(run, self._branches, tuple(self._before_start), tuple(self._exit))
        bus.state = EngineState.STARTING
        self._inbox.open(self._wake, threads)
        return self._supervisor

    def _finish(self, supervisor: Supervisor) -> None:
        """Nothing runs any more. Called also when the loop is torn down under the engine, so it only sets and closes."""
        run = supervisor.run
        self._report = assembly.report(run.bus, supervisor.tasks_left, run.threads.left)
        run.inbox.close()
        run.threads.close()
        run.failures.summarise()
        run.bus.state = EngineState.STOPPED
        run.bus.thread = self._thread = self._supervisor = self._wake = None
        if self._report.is_clean:
            logger.debug("The engine has stopped: {}", self._report)
        else:
            logger.warning("The engine has stopped: {}", self._report)
        if supervisor.is_finished:
            self._bell.ring()

    async def _run_with_signals(self) -> tuple[BaseException | None, bool]:
        """What `start()` runs. Errors are returned: raised in here, each backend would wrap them differently."""
        with SignalHandlers(current_wake(), stop=self.stop, hurry=self._hurry) as signals:
            try:
                await self.run()
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as exc:
                return exc, signals.was_hurried
            return None, signals.was_hurried

    def _hurry(self) -> None:
        if self._supervisor is not None:
            self._supervisor.hurry()

    def _register(self, function: Callable[..., Any], classes: EventClasses) -> None:
        self._require_not_running("register_handler")
        self._functions[function] = tuple(dict.fromkeys((*self._functions.get(function, ()), *classes)))

    def _add_hook(self, kind: str, hooks: list[Hook], hook: Callable[..., Any]) -> None:
        self._require_not_running(kind)
        if not callable(hook):
            raise DeclarationError(f"@engine.{kind} takes a function, not {hook!r}")
        hooks.append((f"{kind} hook {assembly.name_of(hook)}", hook))

    def _require_not_running(self, what: str) -> None:
        if self.state not in (EngineState.NEW, EngineState.STOPPED):
            raise EngineStateError(f"{what} is not possible while the engine is {self.state.value}")

    def _require_outside(self, what: str, *kinds: Kind) -> None:
        origin = current_origin.get()
        if origin is not None and origin.live and origin.bus is self._bus and origin.kind in kinds:
            raise WouldDeadlockError(
                f"{what}() inside a {origin.kind.value} would wait for that {origin.kind.value} itself"
            )


def _family(app: ApplicationBase) -> Iterator[ApplicationBase]:
    yield app
    for child in app._children:
        yield from _family(child)


def _require_free(apps: Iterable[ApplicationBase]) -> None:
    """Raises `DeclarationError` for an application that belongs somewhere already, or is named twice."""
    seen: set[int] = set()
    for app in apps:
        if app._owner is not None or id(app) in seen:
            where = "another engine" if isinstance(app._owner, AppEngine) else "another application"
            raise DeclarationError(
                f"this {type(app).__name__} was added already, here or to {where}: add each once"
            )
        seen.add(id(app))


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: make an instance, {value.__name__}()"
    return (
        f"{type(value).__name__} {value!r}"
        if not isinstance(value, ApplicationBase)
        else type(value).__name__
    )


async def _leave(group: TaskGroup, exc: BaseException | None) -> bool:
    """Exit a task group that holds one engine: one error leaves as itself, several as one flat group."""
    try:
        return bool(
            await group.__aexit__(type(exc) if exc else None, exc, exc.__traceback__ if exc else None)
        )
    except BaseExceptionGroup as raised:
        errors = raised.exceptions
    if len(errors) == 1:
        if errors[0] is exc:
            return False
        raise errors[0]
    raise BaseExceptionGroup("the body and the engine ended with errors", list(_leaves(errors)))


def _leaves(errors: Iterable[BaseException]) -> Iterator[BaseException]:
    for error in errors:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error.exceptions)
        else:
            yield error

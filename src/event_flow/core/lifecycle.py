"""Running: the part of `AppEngine` that starts, waits and ends. The order of things is the supervisor's.

A run may be embedded (`run`, `async with`) or have an event loop of its own (`start`). Everything in it is made anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus
from loguru import logger

from event_flow.core import assembly
from event_flow.core.backend import (
    LoopGone,
    Wake,
    create_task_group,
    current_clock,
    current_wake,
    in_event_loop,
    protect_from_interrupts,
    require_backend,
    uninterrupted,
)
from event_flow.core.bell import Bell
from event_flow.core.branch import Branch
from event_flow.core.bus import Bus
from event_flow.core.control import Handlers
from event_flow.core.exception import EngineClosed, EngineStateError
from event_flow.core.failure import Failures
from event_flow.core.filtering import Filter
from event_flow.core.handler_options import HandlerDeclaration
from event_flow.core.hooks import Hook
from event_flow.core.membership import Node
from event_flow.core.observing import Observed
from event_flow.core.options import EngineOptions
from event_flow.core.outcome import leaves
from event_flow.core.run import Run
from event_flow.core.signals import SignalHandlers
from event_flow.core.state import EngineState
from event_flow.core.supervision import Supervisor
from event_flow.core.threads import Threads

if TYPE_CHECKING:
    from event_flow.core.middleware import Middleware
    from event_flow.core.report import ShutdownReport


class Lifecycle(Observed):
    """The running part of `AppEngine`; what is run is declared by the parts that build on this."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._apps: list[Node] = []
        self._functions: dict[object, tuple[Callable[..., Any], HandlerDeclaration]] = {}
        self._middleware: list[Middleware] = []
        self._filters: list[Filter] = []
        self._before_start: list[Hook] = []
        self._exit: list[Hook] = []
        self._bell = Bell()
        self._beginning = threading.Lock()
        self._supervisor: Supervisor | None = None
        self._is_stop_early = False
        self._branches: Sequence[Branch] = ()
        self._wake: Wake | None = None
        self._report: ShutdownReport | None = None
        self._session: tuple[TaskGroup, int] | None = None
        self._use_bus(Bus(max_backlog=options.max_backlog))
        self._handlers = Handlers((), self._bus)

    # -- running ---------------------------------------------------------------------------------------------------

    def start(
        self, backend: str = "asyncio", backend_options: Mapping[str, Any] | None = None
    ) -> ShutdownReport:
        """Run the engine in an event loop of its own until `stop()`, SIGINT or SIGTERM; return the shutdown report.

        `backend` is `"asyncio"` or `"trio"`; `backend_options` go to `anyio.run` (`{"use_uvloop": True}`). In the main
        thread the first signal drains, on Windows also Ctrl+Break; the second ends at once and raises `KeyboardInterrupt`;
        the third ends the process. In any other thread it leaves signals alone. Raises `EngineStateError` inside a running
        loop or while the engine runs, `OptionError` (a `ValueError`) for another backend, and for an option that asyncio
        does not have (one that Trio does not have is its `TypeError`), `BackendNotInstalled` (an `ImportError`), and what
        `run()` raises.
        """
        options = dict(backend_options or {})
        if in_event_loop():
            raise EngineStateError(
                "start() makes its own event loop; inside a running one, `await engine.run()` instead"
            )
        self._require_not_running("start")
        require_backend(backend, options)
        outcome, hurried = anyio.run(self._run_with_signals, backend=backend, backend_options=options)
        error = outcome if isinstance(outcome, BaseException) else None
        if hurried and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @uninterrupted
    async def run(self, *, task_status: TaskStatus[Self] = anyio.TASK_STATUS_IGNORED) -> ShutdownReport:
        """Run the engine in the current event loop until `stop()`; return the shutdown report.

        `await task_group.start(engine.run)` returns the engine once everything has started. Cancelled, it ends in order
        without the drain and raises the cancellation again. It raises what a `before_start` hook raised, as it is; what
        `exit` hooks raised, one error as itself and several as one flat group; with `on_error="raise"` the first
        failure; and `SystemExit` or `KeyboardInterrupt` out of user code, bare. Always only after every application whose
        start succeeded has had its `exit`. Raises `EngineStateError` if the engine runs already.
        """
        supervisor = self._prepare()
        cancelled: BaseException | None = None
        try:
            async with create_task_group() as root:
                await supervisor.watch(root, self, task_status)
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
        except BaseExceptionGroup as exc:
            # What `watch` raised: Trio's KeyboardInterrupt, or a bug of the framework.
            supervisor.fatal.extend(exc.exceptions)
        finally:
            report = self._finish(supervisor)
        try:
            supervisor.raise_errors()
            if cancelled is not None:
                raise cancelled
        finally:
            # Handed over: an engine that has ended keeps nothing alive that is in their tracebacks.
            supervisor.errors.clear()
            supervisor.fatal.clear()
            del cancelled, supervisor  # their tracebacks refer to this frame
        return report

    @uninterrupted
    async def __aenter__(self) -> Self:
        """Run the engine beside the body of `async with`. A failure of the engine cancels the body; `stop()` does not.

        The end of the body stops the engine and waits for its end, without the drain if the body raised. Raises what `run()`
        raises, and `EngineStateError` if the block ends in another task than it began in.
        """
        protect_from_interrupts()
        group = anyio.create_task_group()
        await group.__aenter__()
        try:
            await group.start(self.run)
        except BaseException as exc:
            await _exit_group(group, exc)
            raise
        self._session = (group, anyio.get_current_task().id)
        return self

    @uninterrupted
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
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
        return await _exit_group(group, exc)

    @uninterrupted
    def stop(self) -> None:
        """Ask the engine to end: it takes no more from outside and drains for at most `grace_period`.

        Returns at once; idempotent. May be called from a handler, a hook, any thread and a signal handler. Does
        nothing before the start and after the end; while the engine starts, it cancels the hook at work.
        """
        if self._supervisor is None and self._bus.state is EngineState.STARTING:
            # A run is being prepared in this very moment, and looks at it when that is done.
            self._is_stop_early = True
        supervisor, wake = self._supervisor, self._wake
        if supervisor is None or wake is None:
            return
        if self._bus.state is EngineState.RUNNING and self._bus.thread == get_ident():
            self._bus.shut_out()
        try:
            wake(supervisor.stop)
        except LoopGone:
            return

    # -- one run ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> Supervisor:
        """Make everything anew for a run."""
        # Not before there is something to report: it takes a while to load. Nor at the end: that may be the interpreter's.
        from event_flow.core import accounting

        self._report_of = accounting.report
        wake = current_wake()
        protect_from_interrupts()
        with self._beginning:
            self._require_not_running("run")
            before = self.state
            if before is EngineState.STOPPED:
                self._use_bus(Bus(max_backlog=self._options.max_backlog))
            bus = self._bus
            self._is_stop_early = False
            bus.state = EngineState.STARTING
            bus.thread = self._thread = get_ident()
        bus.activity.on_change = self._bell.ring
        clock = bus.overflows.clock = current_clock()
        self._wake = wake
        threads = Threads(self._options.max_threads, wake)
        failures = Failures(bus, self._options.on_error)
        run = Run(
            options=self._options,
            bus=bus,
            inbox=self._inbox,
            threads=threads,
            failures=failures,
            bell=self._bell,
            clock=clock,
        )
        try:
            self._branches = assembly.grow(self._apps, self._functions.values(), self._middleware, run)
        except BaseException:  # out of an application, for instance a property
            self._undo(before)
            raise
        self._handlers = Handlers(bus.router.lanes, bus)
        self._supervisor = Supervisor(run, self._branches, tuple(self._before_start), tuple(self._exit))
        self._inbox.open(wake)
        if self._is_stop_early:
            self._supervisor.stop()
        return self._supervisor

    def _undo(self, before: EngineState) -> None:
        """A run could not be prepared: the engine is what it was, with what has been published."""
        self._bus.drop_lanes()
        self._use_routes()
        self._bus.state = before
        self._bus.thread = self._thread = self._wake = None
        self._bus.report = self._report
        self._branches = ()
        if before is EngineState.STOPPED:
            self._inbox.close()

    def _finish(self, supervisor: Supervisor) -> ShutdownReport:
        """Nothing runs any more. Called also when the loop is torn down under the engine, so it only sets and closes."""
        run = supervisor.run
        report = self._report_of(run.bus, supervisor.tasks_left, run.threads.left)
        run.inbox.close()
        run.threads.close()
        run.failures.summarise()
        run.bus.overflows.summarise()
        self._report = run.bus.report = report
        run.bus.thread = self._thread = self._supervisor = self._wake = None
        # Last: from now on it may be run again, also by another thread.
        run.bus.state = EngineState.STOPPED
        self._bell.ring()
        bound = logger.bind(
            accepted=report.accepted, handled=report.handled, failed=report.failed, abandoned=report.abandoned
        )
        bound.log("DEBUG" if report.is_clean else "WARNING", "The engine has stopped: {}", report)
        return report

    async def _run_with_signals(self) -> tuple[ShutdownReport | BaseException, bool]:
        """What `start()` runs. Errors are returned: raised in here, each backend would wrap them differently."""
        with SignalHandlers(current_wake(), stop=self.stop, hurry=self._hurry) as signals:
            try:
                return await self.run(), signals.was_hurried
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as exc:  # noqa: BLE001 - start() raises it
                return exc, signals.was_hurried

    def _hurry(self) -> None:
        if self._supervisor is not None:
            self._supervisor.hurry()

    def _require_not_running(self, what: str) -> None:
        if self.state not in (EngineState.NEW, EngineState.STOPPED):
            raise EngineStateError(f"{what} is not possible while the engine is {self.state.value}")


async def _exit_group(group: TaskGroup, exc: BaseException | None) -> bool:
    """Exit a task group that holds one engine: one error leaves as itself, several as one flat group."""
    try:
        return bool(
            await group.__aexit__(type(exc) if exc else None, exc, exc.__traceback__ if exc else None)
        )
    except BaseExceptionGroup as raised:
        cancelled, others = raised.split(anyio.get_cancelled_exc_class())
        # Trio keeps a cancellation beside the errors; these win, as they do on asyncio.
        errors = others.exceptions if cancelled is not None and others is not None else raised.exceptions
    if isinstance(exc, EngineClosed) and len(errors) > 1:
        # The body published to an engine that had failed already: what that failed with is the error.
        errors = tuple(error for error in errors if error is not exc)
    if len(errors) == 1:
        if errors[0] is exc:
            return False
        raise errors[0]
    raise BaseExceptionGroup("the body and the engine ended with errors", list(leaves(errors)))

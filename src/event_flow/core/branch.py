"""The run-time home of one application: its task group, and what lives in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from event_flow.core.backend import NativeTask, create_task_group, uninterrupted
from event_flow.core.background import BackgroundTask
from event_flow.core.declaration import Declarations, method_of
from event_flow.core.delivery import Worker
from event_flow.core.exception import UnexpectedCancellation
from event_flow.core.handler_options import HandlerDeclaration
from event_flow.core.housing import house
from event_flow.core.outcome import is_cancelled_by_scope
from event_flow.core.run import Run
from event_flow.core.scheduling import Schedule
from event_flow.core.state import EngineState

if TYPE_CHECKING:
    from event_flow.core.middleware import Middleware


class Branch:
    """One application in the tree of task groups: the group of `parent` holds the one of this."""

    def __init__(self, name: str, parent: Branch | None, middleware: Sequence[Middleware], run: Run) -> None:
        self.name = name
        self.parent = parent
        self.middleware = middleware
        self.run = run
        self.before_start: Callable[[], Any] | None = None
        self.exit: Callable[[], Any] | None = None
        self.workers: list[Worker] = []
        self.schedules: list[Schedule] = []
        self.tasks: list[BackgroundTask] = []
        self.task_group: TaskGroup | None = None
        self.alive: dict[str, bool] = {}  # what runs in the group, by name; whether it took its first step

    def add_declared(self, declarations: Declarations, application: object) -> None:
        """Make the lanes, schedules and tasks that the class of `application` declares. Nothing runs yet."""
        for method, handler in declarations.handlers.items():
            self.add_handler(method, method_of(application, method), handler)
        for method, mark in declarations.schedules.items():
            function = method_of(application, method)
            self.schedules.append(Schedule(f"{self.name}.{method}", self.name, function, mark, self.run))
        for method in declarations.tasks:
            function = method_of(application, method)
            self.tasks.append(BackgroundTask(f"{self.name}.{method}", self.name, function, self.run))

    def add_handler(self, name: str, function: Callable[..., Any], declaration: HandlerDeclaration) -> None:
        """Make the lane and the workers of one handler."""
        lane, workers = house(
            f"{self.name}.{name}", self.name, function, declaration, self.middleware, self.run
        )
        self.run.bus.router.add(lane, declaration.events)
        self.workers += workers

    @uninterrupted
    async def host(self) -> None:
        """Hold the task group open until it is cancelled. To be started in the parent's group; a second time does nothing."""
        if self.task_group is not None:
            return
        async with create_task_group() as self.task_group:
            self.run.bell.ring()
            while True:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class() as exc:
                    if is_cancelled_by_scope():
                        raise
                    # Natively. The group stays open: the supervisor ends what is in it, in order.
                    NativeTask().absorb()
                    self._cancelled_by_somebody_else(self.name, exc)

    def start_handlers(self) -> None:
        """Start the workers of all lanes."""
        for worker in self.workers:
            self._start(worker.name, worker.work)

    def start_schedules_and_tasks(self) -> None:
        """Start them; the handlers run already."""
        for schedule in self.schedules:
            self._start(schedule.name, schedule.run)
        for task in self.tasks:
            self._start(task.name, task.run)

    def cancel(self) -> None:
        """Cancel everything that runs in the group, sub-applications included."""
        if self.task_group is not None:
            self.task_group.cancel_scope.cancel()

    def forget_what_never_began(self) -> None:
        """asyncio cancels a task before its first step by never running it: not even its `finally` is reached."""
        self.alive = {name: True for name, has_begun in self.alive.items() if has_begun}

    def _start(self, name: str, live: Callable[[], Awaitable[None]]) -> None:
        assert self.task_group is not None
        self.alive[name] = False
        self.task_group.start_soon(self._run, name, live, name=name)

    @uninterrupted
    async def _run(self, name: str, live: Callable[[], Awaitable[None]]) -> None:
        self.alive[name] = True
        try:
            await live()
        except anyio.get_cancelled_exc_class() as exc:
            if is_cancelled_by_scope():
                raise
            # Let through, it would end the whole group without any error.
            self._cancelled_by_somebody_else(name, exc)
        except BaseException as exc:  # noqa: BLE001 - it leaves run()
            # User code is contained further down, so this is the framework's own fault.
            self.run.failures.fail(exc)
        finally:
            self.alive.pop(name, None)
            self.run.bell.ring()

    def _cancelled_by_somebody_else(self, name: str, exc: BaseException) -> None:
        """asyncio's own cancellation: of every task of a loop that ends, or of this one, which is an error.

        Not at the end, when it was to end in any case: a handler may have cancelled its own task in the very last moment.
        """
        if not (self.run.failures.is_all_cancelled or self.run.bus.state is EngineState.STOPPING):
            error = UnexpectedCancellation(f"the task of {name} was cancelled by somebody else")
            error.__cause__ = exc
            self.run.failures.fail(error)

"""Starts and ends everything in order: one task drives the whole life of a run.

    before_start hooks  ─▶  handlers, schedules, tasks  ─▶  drain  ─▶  tasks, then exit hook, of each application
    engine, then every application, parents first           in exact reverse of the start, the engine's hooks last

The supervisor lives in a shielded child of the task that called `run()`, and hooks live in tasks of their own. So nothing
done to the caller's task can cut a hook short; and when asyncio cancels every task of a loop, the supervisor takes it
for what it is, an order to end at once, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from anyio import CancelScope
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from loguru import logger

from event_flow.core.backend import NativeTask, create_task_group, uninterrupted
from event_flow.core.branch import Branch
from event_flow.core.endurance import Endurance, outlive_cancellation
from event_flow.core.exception import ExitTimeout, StartTimeout
from event_flow.core.hooks import Hook, HookCall
from event_flow.core.outcome import leaves
from event_flow.core.run import Run
from event_flow.core.state import EngineState
from event_flow.core.wording import counted, safe_repr


class Supervisor:
    """One run. `before_start` and `exit_hooks` are the engine's own, in the order in which they were registered."""

    def __init__(
        self, run: Run, branches: Sequence[Branch], before_start: Sequence[Hook], exit_hooks: Sequence[Hook]
    ) -> None:
        self.run = run
        run.failures.fail = self.fail
        self.branches = branches
        self.before_start = before_start
        self.exit_hooks = exit_hooks
        self.is_stopping: bool = False  # asked to end
        self.is_hard: bool = False  # without the drain
        self.has_opened: bool = False  # handlers, schedules and tasks were started
        self.is_finished: bool = False
        self.errors: list[Exception] = []
        self.fatal: list[BaseException] = []
        self.tasks_left: list[str] = []
        self._has_begun = False
        self._endurance = Endurance(run.bell, self._end_with_loop)
        self._started: list[Branch] = []
        self._root: TaskGroup

    # -- what others ask -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End in order: drain first."""
        self.is_stopping = True
        if self.run.bus.state in (EngineState.RUNNING, EngineState.DRAINING):
            self.run.bus.refuse_outsiders()
        self.run.bell.ring()

    def stop_hard(self) -> None:
        """End in order, without the drain."""
        self.is_stopping = self.is_hard = True
        if self.run.bus.state in (EngineState.RUNNING, EngineState.DRAINING):
            self.run.bus.close()
        self.run.bell.ring()

    def hurry(self) -> None:
        """End in order, without the drain, and give hooks little time."""
        self._endurance.is_hurried = True
        self.stop_hard()

    def fail(self, error: BaseException) -> None:
        """End at once; `error` leaves `run()`."""
        self._keep(error)
        self.stop_hard()

    def _keep(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.errors.append(error)
        else:
            self.fatal.append(error)

    def _end_with_loop(self) -> None:
        """Native cancellation is an order to end at once."""
        self.run.failures.is_loop_ending = True
        self.stop_hard()

    async def watch(self, group: TaskGroup, engine: Any, task_status: TaskStatus[Any]) -> None:
        """What the task that called `run()` does: start the supervisor's task and wait for its end.

        When it is cancelled or interrupted it asks for a hard stop, waits on, and raises that again.
        """
        group.start_soon(self.drive, name="event-flow supervisor")
        try:
            await self.run.bell.until(lambda: self.is_finished or self.has_opened)
            if not (self.errors or self.fatal):
                task_status.started(engine)
            await self.run.bell.until(lambda: self.is_finished)
        except GeneratorExit:
            raise  # the loop is gone, and nothing can be waited for any more
        except BaseException:  # cancelled; or Trio raises KeyboardInterrupt in the task of main
            self.stop_hard()
            while not self._has_begun:
                await outlive_cancellation(checkpoint)
                if not self._has_begun:
                    # Cancelled natively before its first step, with every task of the loop, it will never take one.
                    group.start_soon(self.drive, name="event-flow supervisor")
            await outlive_cancellation(lambda: self.run.bell.until(lambda: self.is_finished))
            raise

    def raise_errors(self) -> None:
        """What ends the engine is bare, one error leaves as itself, several as one flat group."""
        if self.fatal:
            for error in (*self.fatal[1:], *self.errors):
                # It cannot be raised any more.
                logger.opt(exception=error).error(
                    "Behind {} the engine failed: {}", safe_repr(self.fatal[0]), safe_repr(error)
                )
            raise self.fatal[0]
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ExceptionGroup("the engine ended with several errors", list(leaves(self.errors)))

    # -- the life of a run -----------------------------------------------------------------------------------------

    @uninterrupted
    async def drive(self) -> None:
        """The supervisor's task, from the first hook to the last."""
        if self._has_begun:
            return
        self._has_begun = True
        self.run.failures.supervisor = NativeTask()
        try:
            with CancelScope(shield=True):
                async with create_task_group() as self._root:
                    await self._live()
                    await self._end()
                    self._root.cancel_scope.cancel()
        finally:
            self.is_finished = True
            self.run.bell.ring()

    async def _live(self) -> None:
        try:
            if await self._start():
                await self._endurance.until(lambda: self.is_stopping)
                await self._drain()
        except GeneratorExit:
            raise  # the loop is gone
        except BaseException as exc:  # noqa: BLE001 - a bug of the framework; the hooks run all the same
            self.fail(exc)

    async def _start(self) -> bool:
        """Run the hooks, then start everything. False if a hook failed or the engine was asked to stop meanwhile."""
        for name, function in self.before_start:
            if not await self._run_start_hook(name, function):
                return False
        for branch in self.branches:
            if branch.before_start is not None and not await self._run_start_hook(
                f"{branch.name}.before_start", branch.before_start
            ):
                return False
            self._started.append(branch)
        for branch in self.branches:
            await self._host(branch)
            if self.is_stopping:
                return False
        self._open()
        return True

    async def _host(self, branch: Branch) -> None:
        """Open the task group of an application, inside of its parent's."""
        group = self._root if branch.parent is None else branch.parent.task_group
        assert group is not None
        await self._endurance.first_step(
            lambda: group.start_soon(branch.host, name=branch.name),
            lambda: self.is_stopping or branch.task_group is not None,
        )

    def _open(self) -> None:
        """From one moment to the next everything runs."""
        for branch in self.branches:
            branch.start_handlers()
        self.run.bus.open()
        for branch in self.branches:
            branch.start_schedules_and_tasks()
        self.has_opened = True
        logger.debug("The engine runs; applications: {}", len(self.branches))
        self.run.bell.ring()

    async def _drain(self) -> None:
        bus, grace_period = self.run.bus, self.run.options.grace_period
        if self.is_hard:
            return
        bus.refuse_outsiders()
        self.run.bell.ring()
        left = sum(lane.queued + lane.running for lane in bus.router.lanes)
        if left:
            logger.bind(deliveries=left).info(
                "The engine stops; left to do: {}; grace_period={:g} s",
                counted(left, "delivery", "deliveries"),
                grace_period,
            )
        with bus.activity.watched():
            is_over = await self._endurance.until(
                lambda: self.is_hard or (bus.is_quiet and self.run.inbox.is_empty), grace_period
            )
        if not is_over:
            busy = [lane.name for lane in bus.router.lanes if lane.busy]
            logger.bind(handlers=busy).warning(
                "The grace period of {:g} s is over for {}", grace_period, ", ".join(busy) or "a schedule"
            )

    async def _end(self) -> None:
        self.run.bus.close()
        for branch in reversed(self._started):
            await self._end_tasks(branch)
            if branch.exit is not None:
                await self._run_exit_hook(f"{branch.name}.exit", branch.exit)
        for name, function in reversed(self.exit_hooks):
            await self._run_exit_hook(name, function)

    async def _end_tasks(self, branch: Branch) -> None:
        branch.cancel()
        if self._endurance.native_cancels:
            branch.forget_what_never_began()
        if not await self._endurance.within(self.run.options.exit_timeout, lambda: not branch.alive):
            for name in branch.alive:
                self._leave(name)

    # -- hooks -----------------------------------------------------------------------------------------------------

    async def _run_start_hook(self, name: str, function: Callable[[], Any]) -> bool:
        if self.is_stopping:
            return False
        timeout = self.run.options.start_timeout
        hook = HookCall(name, function, self.run, self._endurance)
        await hook.begin(self._root)
        if not await self._endurance.until(lambda: hook.is_done or self.is_stopping, timeout):
            self._keep(
                StartTimeout(
                    f"{name} took longer than start_timeout={timeout:g} s", hook=name, timeout=timeout
                )
            )
        await self._finish(hook)
        return hook.has_succeeded and not self.errors

    async def _run_exit_hook(self, name: str, function: Callable[[], Any]) -> None:
        hook = HookCall(name, function, self.run, self._endurance)
        await hook.begin(self._root)
        if not await self._endurance.within(self.run.options.exit_timeout, lambda: hook.is_done):
            timeout = self._endurance.limit(self.run.options.exit_timeout)
            error = ExitTimeout(f"{name} took longer than {timeout:g} s", hook=name, timeout=timeout)
            self._keep(error)
            logger.bind(hook=name).error("{}; it is cancelled", error)
        await self._finish(hook)

    async def _finish(self, hook: HookCall) -> None:
        await hook.finish()
        if hook.is_left:
            self._leave(hook.name)
        if hook.error is not None:
            self._keep(hook.error)

    def _leave(self, name: str) -> None:
        self.tasks_left.append(name)
        logger.bind(task=name).error(
            "{} does not end although it is cancelled; the engine goes on without it, but its end waits for it",
            name,
        )

"""Starts and ends everything in order: one task drives the whole life of a run.

    before_start hooks  ─▶  handlers, schedules, tasks  ─▶  drain  ─▶  tasks, then exit hook, of each application
    engine, then every application, parents first           in exact reverse of the start, the engine's hooks last

The supervisor lives in a shielded child of the task that called `run()`, and hooks live in tasks of their own. So nothing
done to the caller's task can cut a hook short; and when asyncio cancels every task of a loop, the supervisor takes it
for what it is, an order to end at once, and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from loguru import logger

from event_flow.core.backend import NativeTask
from event_flow.core.branch import Branch
from event_flow.core.exception import ExitTimeout, StartTimeout, safe_repr
from event_flow.core.failure import leaves
from event_flow.core.invoke import invoke
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.report import ShutdownReport, counted
from event_flow.core.run import Run
from event_flow.core.state import EngineState

Hook = tuple[str, Callable[[], Any]]

# Seconds: what a cancelled hook may take to clean up, and what every remaining hook gets after a second signal. Long
# enough to close a connection, short enough for somebody who has pressed Ctrl+C twice.
CLEAN_UP_TIMEOUT = 1.0
HURRIED_TIMEOUT = 1.0


class HookCall:
    """One hook at work."""

    def __init__(self, name: str, function: Callable[[], Any]) -> None:
        self.name = name
        self.function = function
        # Shielded: what cancels the group around it must not cut it short; the supervisor cancels this very scope.
        self.scope = CancelScope(shield=True)
        self.has_begun = False
        self.is_done = False
        self.has_succeeded = False
        self.is_left = False  # the engine has gone on without it
        self.error: BaseException | None = None


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
        self.is_stopping = False  # asked to end
        self.is_hard = False  # without the drain
        self.is_hurried = False  # and with hooks cut short
        self.has_opened = False  # handlers, schedules and tasks were started
        self.is_finished = False
        self.errors: list[Exception] = []
        self.fatal: list[BaseException] = []
        self.tasks_left: list[str] = []
        self.report: ShutdownReport | None = None  # once nothing runs any more
        self._has_begun = False
        self._native_cancels = 0
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
        self.is_hurried = True
        self.stop_hard()

    def fail(self, error: BaseException) -> None:
        """End at once; `error` leaves `run()`."""
        if isinstance(error, Exception):
            self.errors.append(error)
        else:
            self.fatal.append(error)
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
                await self._outlive_cancellation(checkpoint)
                if not self._has_begun:
                    # Cancelled natively before its first step, with every task of the loop, it will never take one.
                    group.start_soon(self.drive, name="event-flow supervisor")
            await self._outlive_cancellation(lambda: self.run.bell.until(lambda: self.is_finished))
            raise

    @staticmethod
    async def _outlive_cancellation(wait: Callable[[], Awaitable[object]]) -> None:
        """Wait to the end, although the task is cancelled: by a scope, and natively any number of times."""
        while True:
            try:
                with CancelScope(shield=True):
                    await wait()
            except anyio.get_cancelled_exc_class():
                continue  # natively, once more; the caller raises the first one again
            return

    def raise_errors(self) -> None:
        """What ends the engine is bare, one error leaves as itself, several as one flat group."""
        if self.fatal:
            for error in (*self.fatal[1:], *self.errors):
                self._log_lost(error, f"Behind {safe_repr(self.fatal[0])} the engine")
            raise self.fatal[0]
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ExceptionGroup("the engine ended with several errors", list(leaves(self.errors)))

    @staticmethod
    def _log_lost(error: BaseException, what: str) -> None:
        """What cannot be raised any more."""
        logger.opt(exception=error).error("{} failed: {}", what, safe_repr(error))

    # -- the life of a run -----------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """The supervisor's task, from the first hook to the last."""
        if self._has_begun:
            return
        self._has_begun = True
        self.run.failures.supervisor = NativeTask()
        try:
            with CancelScope(shield=True):
                async with anyio.create_task_group() as self._root:
                    if await self._start():
                        await self._until(lambda: self.is_stopping)
                        await self._drain()
                    await self._end()
                    self._root.cancel_scope.cancel()
        finally:
            self.is_finished = True
            self.run.bell.ring()

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
            group = self._root if branch.parent is None else branch.parent.task_group
            assert group is not None
            group.start_soon(branch.host, name=branch.name)
            await self._until(lambda branch=branch: self.is_stopping or branch.task_group is not None)  # type: ignore[misc]
            if self.is_stopping:
                return False
        self._open()
        return True

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
        bus.idle_watchers += 1
        self.run.bell.ring()
        left = sum(lane.queued + lane.running for lane in bus.router.lanes)
        if left:
            logger.bind(deliveries=left).info(
                "The engine stops: {} left, and at most {:g} s for them",
                counted(left, "delivery is", "deliveries are"),
                grace_period,
            )
        if not await self._until(
            lambda: self.is_hard or (bus.is_quiet and self.run.inbox.is_empty), grace_period
        ):
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
        if self._native_cancels:
            branch.forget_what_never_began()
        if not await self._within(self.run.options.exit_timeout, lambda: not branch.alive):
            for name in branch.alive:
                self._leave(name)

    # -- hooks -----------------------------------------------------------------------------------------------------

    async def _run_start_hook(self, name: str, function: Callable[[], Any]) -> bool:
        if self.is_stopping:
            return False
        timeout = self.run.options.start_timeout
        hook = await self._begin_hook(name, function)
        if not await self._until(lambda: hook.is_done or self.is_stopping, timeout):
            self.errors.append(
                StartTimeout(
                    f"{name} took longer than start_timeout={timeout:g} s", hook=name, timeout=timeout
                )
            )
        await self._finish_hook(hook)
        return hook.has_succeeded and not self.errors

    async def _run_exit_hook(self, name: str, function: Callable[[], Any]) -> None:
        timeout = self.run.options.exit_timeout
        hook = await self._begin_hook(name, function)
        if not await self._within(timeout, lambda: hook.is_done):
            timeout = min(timeout, HURRIED_TIMEOUT) if self.is_hurried else timeout
            error = ExitTimeout(f"{name} took longer than {timeout:g} s", hook=name, timeout=timeout)
            self.errors.append(error)
            logger.bind(hook=name).error("{}; it is cancelled", error)
        await self._finish_hook(hook)

    async def _begin_hook(self, name: str, function: Callable[[], Any]) -> HookCall:
        hook = HookCall(name, function)
        while not hook.has_begun:
            cancels = self._native_cancels
            self._root.start_soon(self._call_hook, hook, name=name)
            await self._until(lambda: hook.has_begun or self._native_cancels > cancels)  # noqa: B023
            # When every task of the loop is cancelled before the first step of this one, it will never take it.
            await self._outlive_cancellation(checkpoint)
        return hook

    async def _finish_hook(self, hook: HookCall) -> None:
        """Wait for a hook that is done, or cancel it and wait a little; then keep its error."""
        if not hook.is_done:
            hook.scope.cancel()
            if not await self._until(lambda: hook.is_done, CLEAN_UP_TIMEOUT):
                hook.is_left = True
                self._leave(hook.name)
        if hook.error is not None and isinstance(hook.error, Exception):
            self.errors.append(hook.error)
        elif hook.error is not None:
            self.fatal.append(hook.error)

    async def _call_hook(self, hook: HookCall) -> None:
        origin = Origin(self.run.bus, Kind.HOOK)
        current_origin.set(origin)
        hook.has_begun = True
        self.run.bell.ring()
        try:
            with hook.scope:
                # A thread of its own: handlers that never return may hold every other place.
                await invoke(hook.function, name=hook.name, threads=self.run.threads, own_thread=True)
                await self.run.failures.forget_cancellation()
                hook.has_succeeded = True
        except BaseException as exc:  # noqa: BLE001 - it leaves run(), or was the supervisor's own cancellation
            hook.error = await self.run.failures.examine(exc, hook.name)
            if hook.error is None:
                logger.bind(hook=hook.name).warning("{} was cut short: the event loop ends", hook.name)
            elif hook.is_left:
                self._log_lost(hook.error, f"{hook.name}, which was left running,")
        finally:
            origin.live = False
            hook.is_done = True
            self.run.bell.ring()

    def _leave(self, name: str) -> None:
        self.tasks_left.append(name)
        logger.bind(task=name).error(
            "{} does not end although it is cancelled; the engine goes on without it", name
        )

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def _within(self, timeout: float, holds: Callable[[], bool]) -> bool:
        """Wait until `holds()`, for `timeout` seconds, or less in a hurry. Whether it does."""
        if not self.is_hurried:
            await self._until(lambda: holds() or self.is_hurried, timeout)
        if self.is_hurried:
            await self._until(holds, min(timeout, HURRIED_TIMEOUT))
        return holds()

    async def _until(self, holds: Callable[[], bool], timeout: float = math.inf) -> bool:
        """Wait until `holds()`, for `timeout` seconds. Whether it does. Native cancellation is an order to end at once."""
        try:
            with anyio.move_on_after(timeout, shield=True) as scope:
                while not holds():
                    try:
                        await self.run.bell.until(holds)
                    except anyio.get_cancelled_exc_class():
                        if scope.cancel_called:
                            raise
                        self._end_with_loop()
        except anyio.get_cancelled_exc_class():
            self._end_with_loop()  # it came together with the timeout
        return holds()

    def _end_with_loop(self) -> None:
        self._native_cancels += 1
        self.run.failures.is_loop_ending = True
        NativeTask().absorb()
        self.stop_hard()

"""One hook at work: called in a task of its own, bounded, and cut short by nobody but the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import CancelScope
from anyio.abc import TaskGroup
from loguru import logger

from event_flow.core.backend import uninterrupted
from event_flow.core.endurance import Endurance
from event_flow.core.invoke import caller
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.run import Run
from event_flow.core.wording import safe_repr

Hook = tuple[str, Callable[[], Any]]

# Seconds: what a cancelled hook may take to clean up.
CLEAN_UP_TIMEOUT = 1.0


class HookCall:
    """One call of a hook. After `begin` it is at work, after `finish` it is done, or left if it does not end."""

    def __init__(self, name: str, function: Callable[[], Any], run: Run, endurance: Endurance) -> None:
        self.name = name
        self.function = function
        self.run = run
        self.endurance = endurance
        # Shielded: what cancels the group around it must not cut it short; the supervisor cancels this very scope.
        self.scope: CancelScope = CancelScope(shield=True)
        self.has_begun: bool = False
        self.is_done: bool = False
        self.has_succeeded: bool = False
        self.is_left: bool = False  # the engine has gone on without it
        self.error: BaseException | None = None

    async def begin(self, group: TaskGroup) -> None:
        """Start it in `group` and wait for its first step."""
        await self.endurance.first_step(
            lambda: group.start_soon(self._call, name=self.name), lambda: self.has_begun
        )

    async def finish(self) -> None:
        """If it is not done, cancel it and wait a little."""
        if not self.is_done:
            self.scope.cancel()
            self.is_left = not await self.endurance.until(lambda: self.is_done, CLEAN_UP_TIMEOUT)

    @uninterrupted
    async def _call(self) -> None:
        if self.has_begun:
            return
        origin = Origin(self.run.bus, Kind.HOOK)
        current_origin.set(origin)
        self.has_begun = True
        self.run.bell.ring()
        try:
            with self.scope:
                # A thread of its own: handlers that never return may hold every other place.
                await caller(self.function, name=self.name, threads=self.run.threads, own_thread=True)()
                self.has_succeeded = True  # whatever cancels what follows
                await self.run.failures.forget_cancellation()
        except BaseException as exc:  # noqa: BLE001 - it leaves run(), or was the supervisor's own cancellation
            if not self.has_succeeded:
                await self._fail(exc)
        finally:
            origin.end()
            self.is_done = True
            self.run.bell.ring()

    async def _fail(self, exc: BaseException) -> None:
        self.error = await self.run.failures.examine(exc, self.name)
        if self.error is None:
            logger.bind(hook=self.name).warning("{} was cut short: the event loop ends", self.name)
        elif self.is_left:
            logger.bind(hook=self.name).opt(exception=self.error).error(
                "{}, which was left running, failed: {}", self.name, safe_repr(self.error)
            )

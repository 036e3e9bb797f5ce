"""Cancel something after its n-th step, for every n there is.

A step is what a task does between two suspensions. `Steps` sees each step of each task that is started while it is installed:
those of the call under test, and those of every task of the engine. Nothing else can run in between, so a cancellation after
each of them is one at each await. How many there are is not guessed: n grows until a run ends before it was cancelled.

On asyncio and uvloop a task factory puts a coroutine around each coroutine, which passes everything on; Trio has an
interface of its own for it.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, current_token

import event_flow

if TYPE_CHECKING:
    import trio
    from trio.abc import Instrument
else:
    Instrument = object  # Trio asks for the methods only, and a run may do without it

PACKAGE = Path(event_flow.__file__).parent

# Far more than any program here has: one that never ends before it is cancelled is a mistake in the program.
TOO_MANY = 2000

# Seconds after which one is taken for hung: more than the longest takes on a virtual clock, where a hook times out.
HANGS = 20.0


@dataclass(frozen=True, slots=True)
class Await:
    """A place in the package at which a task was suspended."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a task did last; `awaits` is where it is suspended now, from the outside in, or empty if it has ended."""

    task: str
    awaits: tuple[Await, ...]

    def __str__(self) -> str:
        return f"{self.task} at {self.awaits[-1]}" if self.awaits else f"{self.task}, outside of the package"


def frames(awaitable: Any) -> Iterator[FrameType]:
    """Those of a suspended coroutine and of what it awaits, from the outside in."""
    while awaitable is not None:
        for kind, following in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            if hasattr(awaitable, f"{kind}_frame"):
                frame = getattr(awaitable, f"{kind}_frame")
                if frame is not None:
                    yield frame
                awaitable = getattr(awaitable, following)
                break
        else:
            # What `anext()` gives, and `coroutine.__await__()`, tells nobody else what it is about.
            inner = gc.get_referents(awaitable)
            awaitable = next(
                (each for each in inner if inspect.isasyncgen(each) or inspect.iscoroutine(each)), None
            )


def awaits_of(coroutine: Any) -> tuple[Await, ...]:
    """Where in the package it is suspended."""
    return tuple(
        Await(path.name, frame.f_lineno, frame.f_code.co_qualname)
        for frame in frames(coroutine)
        if (path := Path(frame.f_code.co_filename)).is_relative_to(PACKAGE)
    )


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine for asyncio's tasks; tells of each step of the one in it."""

    def __init__(self, inner: Any, after_step: Callable[[Any], object]) -> None:
        self._inner = inner
        self._after_step = after_step

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        finally:
            self._after_step(self._inner)

    def throw(self, *exc: Any) -> Any:
        try:
            return self._inner.throw(*exc)
        finally:
            self._after_step(self._inner)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("a task sends to it")

    def __getattr__(self, name: str) -> Any:  # anyio and asyncio look at cr_frame and others
        return getattr(self._inner, name)


class Steps(Instrument):
    """The steps of the tasks that start inside of `with`; `after_step(name, coroutine)` is called after each."""

    def __init__(self, after_step: Callable[[str, Any], object]) -> None:
        self._after_step = after_step
        self._errors: list[BaseException] = []
        self._spawned: set[Any] = set()
        self._exited: set[trio.lowlevel.Task] = set()

    def __enter__(self) -> None:
        token: Any = current_token().native_token
        if isinstance(token, asyncio.AbstractEventLoop):
            token.set_task_factory(self._make_task)
        else:
            import trio

            trio.lowlevel.add_instrument(self)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token: Any = current_token().native_token
        if isinstance(token, asyncio.AbstractEventLoop):
            token.set_task_factory(None)
        else:
            import trio

            trio.lowlevel.remove_instrument(self)
        for error in self._errors:
            raise error

    def tasks_left(self) -> list[str]:
        """The names of those that have not ended."""
        return [
            each.get_name() if isinstance(each, asyncio.Task) else each.name
            for each in self._spawned - self._exited
            if not (isinstance(each, asyncio.Task) and each.done())
        ]

    # -- asyncio

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        def after_step(inner: Any) -> None:
            self._tell(task.get_name(), inner)

        task: asyncio.Task[Any] = asyncio.Task(Watched(coroutine, after_step), loop=loop, **options)
        self._spawned.add(task)
        return task

    # -- Trio

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._spawned.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._exited.add(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._spawned:
            self._tell(task.name, task.coro)

    def _tell(self, name: str, coroutine: Any) -> None:
        try:
            self._after_step(name, coroutine)
        except BaseException as exc:  # Trio would log it and go on
            self._errors.append(exc)


class Target:
    """What is cancelled: a call, by a scope around it or natively."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.scope = CancelScope()
        self.task: asyncio.Task[Any] | None = None
        self.is_at_work = False
        self.ended = anyio.Event()
        self.was_asked = False
        self.has_returned = False  # the call did, cancelled or not
        self.was_cancelled = False
        self.error: BaseException | None = None

    def cancel(self) -> None:
        """Ask for it."""
        self.was_asked = True
        if self.task is not None:
            self.task.cancel()
        else:
            self.scope.cancel()

    async def live(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make the call. What cancels it comes out of it, or, if that was too late, of the checkpoint behind it."""
        self.is_at_work = True
        try:
            with self.scope:
                await call()
                self.has_returned = True
                await checkpoint()
            self.was_cancelled = self.scope.cancelled_caught
        finally:
            self.is_at_work = False
            if self.task is None:
                self._end()

    def _end(self) -> None:
        self.is_at_work = False
        self.ended.set()

    def _done(self, task: asyncio.Task[Any]) -> None:
        """asyncio's task has ended, perhaps before its first step."""
        self.was_cancelled = task.cancelled()
        self.error = None if task.cancelled() else task.exception()
        self._end()

    def spawn(self, group: TaskGroup, call: Callable[[], Awaitable[object]]) -> None:
        """Start it in a task of its own."""
        self.is_at_work = True
        if self.way == "scope":
            group.start_soon(self.live, call, name="target")
        else:
            self.task = asyncio.get_running_loop().create_task(self.live(call), name="target")
            self.task.add_done_callback(self._done)


class Program(Protocol):
    """Something to be cancelled, made anew for each step."""

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        """Have `target` make its call; `begin` is called when it could be cancelled for the first time."""

    def is_phase(self) -> bool:
        """Whether the steps taken now are those that count."""

    def look(self) -> object:
        """What is true right now, when it is to be cancelled."""

    async def check(self, target: Target) -> None:
        """What must hold afterwards, cancelled or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A cancellation: after which step it came, what was true then, and what became of the call."""

    way: str
    step: Step
    seen: object
    has_returned: bool


class Attempt:
    """One run of a program, cancelled after step number `number`, and the second time after the next one; or to its end."""

    def __init__(self, program: Program, way: str, number: int | None) -> None:
        self.program = program
        self.target = Target(way)
        self.numbers = [] if number is None else [number, number + 1][: 1 + (way == "natively twice")]
        self.counted = 0
        self.reached: set[Await] = (
            set()
        )  # where tasks were suspended after the steps that count, if none is to be cancelled
        self.fired: list[Step] = []
        self.seen: object = None

    async def run(self) -> Shot | None:
        """Returns None if the phase was over before."""
        steps = Steps(self._after_step)
        try:
            with anyio.fail_after(HANGS), steps:
                await self.program.run(self.target, lambda: self._after_step("nobody", None))
            if self.target.error is not None:
                raise self.target.error
            assert steps.tasks_left() == []
            assert self.target.was_cancelled == self.target.was_asked, (
                "the cancellation was swallowed, or made up"
            )
            assert self.target.was_cancelled or self.target.has_returned
            await self.program.check(self.target)
        except BaseException as exc:
            exc.add_note(
                f"cancelled by {self.target.way}, step {self.numbers[:1]}: after {self.fired or 'none'}"
            )
            raise
        if not self.fired:
            return None
        return Shot(
            way=self.target.way, step=self.fired[0], seen=self.seen, has_returned=self.target.has_returned
        )

    def _after_step(self, task: str, coroutine: Any) -> None:
        if not self.target.is_at_work or not (self.fired or self.program.is_phase()):
            return
        if not self.numbers:
            self.reached.update(awaits_of(coroutine))
        if self.counted in self.numbers:
            if not self.fired:
                self.seen = self.program.look()
            self.fired.append(Step(task=task, awaits=awaits_of(coroutine)))
            self.target.cancel()
        self.counted += 1


def ways() -> tuple[str, ...]:
    """Those in which the backend that runs can cancel."""
    is_trio = not isinstance(current_token().native_token, asyncio.AbstractEventLoop)
    return ("scope",) if is_trio else ("scope", "natively", "natively twice")


async def cancel_at_every_step(
    make: Callable[[], Program], *, least: int, among: tuple[str, ...] | None = None
) -> list[Shot]:
    """Run a new program for each step of its phase, cancelled there, in each way, and once to its end.

    `least` is the number of steps that are known: fewer mean that the instrument, or the program, is broken.
    """
    shots: list[Shot] = []
    with without_debug():
        for way in among or ways():
            for number in itertools.count():
                assert number < TOO_MANY
                shot = await Attempt(make(), way, number).run()
                if shot is None:
                    break
                shots.append(shot)
            assert number >= least, f"{way}: {number} steps, at least {least} are known"
    return shots


async def awaits_reached(make: Callable[[], Program]) -> set[Await]:
    """Where tasks are suspended after the steps at which `cancel_at_every_step` cancels."""
    attempt = Attempt(make(), "scope", None)
    with without_debug():
        await attempt.run()
    return attempt.reached


@contextmanager
def without_debug() -> Iterator[None]:
    """With -X dev asyncio keeps the stack of whoever calls each callback, which takes twenty times as long as all the rest."""
    token: Any = current_token().native_token
    was_debug = isinstance(token, asyncio.AbstractEventLoop) and token.get_debug()
    if was_debug:
        token.set_debug(False)
    try:
        yield
    finally:
        if was_debug:
            token.set_debug(True)

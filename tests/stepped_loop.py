"""An event loop that a state machine steps: between two steps nothing happens, and no time passes.

The loop has a thread of its own, and stands still in it while it waits for the next step. Its clock is virtual. Which of
the tasks that are ready runs first is decided by a seed, so that it is part of the example: it shrinks, and comes again.

On Trio it is Trio's own shuffling of each batch, whose random numbers are seeded. asyncio has none. There the steps of
tasks that lie next to each other in the queue are shuffled, and nothing else: that callbacks are called in the order in which
they were registered is documented, and may be relied on; that tasks take their steps in that order is not. (Tried: to
shuffle the callbacks too broke nothing in some hundred examples, but what it found could not happen.) Actors give the others
a drawn number of turns besides, since a shuffled pass alone puts nobody a whole pass behind.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from turns import Turns

from event_flow.testing.clock import VirtualClockLoop, virtual_clock

if TYPE_CHECKING:
    from trio.abc import Instrument
else:
    Instrument = object  # Trio asks for the methods only, and a run may do without it

# Passes of the loop. A step takes at most some thousand; one that is not over then goes round for ever.
MOST_PASSES = 50_000

# Real seconds. A step takes milliseconds, but in a long run the garbage collector goes through all that Hypothesis keeps,
# gigabytes, and holds up every thread for that long; one that is not over then is blocked.
BLOCKED = 60.0

# Virtual seconds: so little that nothing else is due then.
NO_TIME = 2.0**-20


class ShuffledLoop(VirtualClockLoop):
    """An asyncio loop in which tasks that are ready together run in an order that is drawn."""

    def __init__(self, random: Random, before_pass: Callable[[], object]) -> None:
        super().__init__()
        self._random = random
        self._before_pass = before_pass
        # asyncio keeps the waiting in sets, whose order is that of addresses: numbers are the same each time.
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._started = 0

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self._started += 1
        self._numbers[task] = self._started
        return task

    def _run_once(self) -> None:
        self._before_pass()
        super()._run_once()  # type: ignore[misc]

    def _process_events(self, event_list: Any) -> None:
        super()._process_events(event_list)  # type: ignore[misc]
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        handles, tasks = list(ready), list[asyncio.Handle]()
        ready.clear()
        for handle in handles:
            if isinstance(_task_of(handle), asyncio.Task):
                tasks.append(handle)
            else:
                ready.extend(self._shuffled(tasks))
                ready.append(handle)
                tasks = []
        ready.extend(self._shuffled(tasks))

    def _shuffled(self, tasks: list[asyncio.Handle]) -> list[asyncio.Handle]:
        tasks.sort(key=lambda handle: self._numbers.get(_task_of(handle), 0))
        self._random.shuffle(tasks)
        return tasks


def _task_of(handle: asyncio.Handle) -> Any:
    """The task whose step this is, if it is one."""
    return getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]


class BeforePass(Instrument):
    """On Trio: calls something before each pass of the loop."""

    def __init__(self, before_pass: Callable[[], object]) -> None:
        self._before_pass = before_pass

    def before_io_wait(self, timeout: float) -> None:
        self._before_pass()


class SteppedLoop:
    """A running event loop with a task group for whatever the steps start. `close` it at the end."""

    group: TaskGroup
    time: Callable[[], float]  # the virtual one, also for threads

    def __init__(self, backend: str, seed: int) -> None:
        self.backend = backend
        self.random = Random(seed)
        self.turns = Turns(self.random)
        self._steps: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._options = virtual_clock(backend)
        if backend == "asyncio":
            # Debug mode keeps the stack of every callback, which takes most of the time.
            self._options |= {"debug": False, "loop_factory": self._shuffled_loop}
        else:
            import trio

            self._options["instruments"] = [BeforePass(self._pass)]
            self.time = self._options["clock"].current_time
            # Hypothesis knows this one, and puts it back after the example.
            trio._core._run._r.seed(seed)
        self._passes = 0  # in the step that is under way
        self._is_stuck = False
        self._in_force = self.turns.in_force()
        self._in_force.__enter__()
        self._thread = threading.Thread(target=self._run, name="a loop of the test", daemon=True)
        self._thread.start()

    def do(self, step: Callable[[], Any]) -> Any:
        """Have the loop call `step`, wait for what it returns if that can be awaited, and stand still again."""
        assert not self._is_stuck, "the loop is stuck"
        self._passes = 0
        self._steps.put(step)
        try:
            result, error = self._results.get(timeout=BLOCKED)
        except queue.Empty:
            self._is_stuck = True
            raise AssertionError("promise 3, no deadlock: the loop is blocked") from None
        if error is not None:
            raise error
        return result

    def settle(self) -> None:
        """Let everything happen that can happen without time."""
        self.let_pass(NO_TIME)

    def let_pass(self, seconds: float) -> None:
        self.do(lambda: anyio.sleep(seconds))

    def start(self, function: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        """Start a task, and do not wait for it."""

        def step() -> None:
            self.group.start_soon(function, *args)

        self.do(step)

    def close(self) -> None:
        """Cancel what still runs, and end the loop."""
        self._steps.put(None)
        if not self._is_stuck:
            self._thread.join(BLOCKED)
        self._in_force.__exit__(None, None, None)

    def _shuffled_loop(self) -> ShuffledLoop:
        loop = ShuffledLoop(self.random, self._pass)
        self.time = loop.time
        return loop

    def _pass(self) -> None:
        """Threads take their turns; and a loop that goes round for ever is told of, and stands still."""
        self.turns.give()
        self._passes += 1
        if self._passes > MOST_PASSES:
            self._is_stuck = True
            self._results.put((None, AssertionError("promise 3, no deadlock: the loop goes round for ever")))
            threading.Event().wait()

    def _run(self) -> None:
        try:
            anyio.run(self._step, backend=self.backend, backend_options=self._options)
        except BaseException as exc:
            self._results.put((None, exc))

    async def _step(self) -> None:
        async with anyio.create_task_group() as self.group:
            while (step := self._steps.get()) is not None:
                try:
                    result: Any = step()
                    if inspect.isawaitable(result):
                        result = await result
                except BaseException as exc:
                    self._results.put((None, exc))
                else:
                    self._results.put((result, None))
            self.group.cancel_scope.cancel()

"""Threads for sync user code: daemons of the engine's own, so that none of them can hold the end of a process.

A thread cannot be cancelled. When the code that waits for one is cancelled, the thread is left: it goes on, it is named
in the shutdown report, and what it raises later is logged. anyio's own worker threads are not used: on asyncio they are
no daemons, and one that never returns keeps the interpreter from exiting.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from typing import Any

import anyio
from loguru import logger

from event_flow.core.backend import LoopGone, Wake, context_of_a_thread
from event_flow.core.exception import EngineClosed, HandlerTimeout
from event_flow.core.log_limit import LogLimit

# Of one name, in a minute. Each fails, too, and is counted there.
OVERDUE_CALLS_LOGGED = 5


class Job:
    """One call of sync code in a thread."""

    __slots__ = ("_lock", "call", "done", "error", "left", "name", "result")

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        self.name: str = name
        self.call: Callable[[], Any] = call
        self.done: anyio.Event = anyio.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.left: bool = False
        self._lock = threading.Lock()

    def execute(self) -> None:
        try:
            self.result = self.call()
        except BaseException as exc:  # noqa: BLE001 - it is raised again where the result is awaited
            self.error = exc
        if self.left:
            self.log_late_error()

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.left = True
        self.log_late_error()

    def log_late_error(self) -> None:
        """For whoever comes second, the thread at its end or the task that leaves it: what the call raised would be lost."""
        with self._lock:
            error, self.error = self.error, None
        # EngineClosed is how it learns that the engine has ended.
        if error is not None and not isinstance(error, EngineClosed):
            logger.bind(thread=self.name).opt(exception=error).error(
                "{}, which was left running, failed", self.name
            )


class WorkerThread(threading.Thread):
    """A daemon that executes one job after the other until it is told to end."""

    name: str  # as `Thread` has it: also of the job at work

    def __init__(self, threads: Threads, *, pooled: bool) -> None:
        super().__init__(name="event-flow worker", daemon=True)
        self.threads = threads
        self.pooled = pooled
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            self.name = f"event-flow {job.name}"
            job.execute()
            self.name = "event-flow worker"
            try:
                self.threads.wake(functools.partial(self.threads.finished, self, job))
            except LoopGone:
                return
            del job


def lender_of(thread: threading.Thread) -> Threads | None:
    """The threads among whose places is the one that `thread` holds; None if it holds none."""
    return thread.threads if isinstance(thread, WorkerThread) and thread.pooled else None


class Threads:
    """The threads of one run. At most `limit` run pooled calls at once; calls with a thread of their own come on top."""

    def __init__(self, limit: int, wake: Wake) -> None:
        self.wake = wake
        self._places = anyio.CapacityLimiter(limit)
        self._workers: set[WorkerThread] = set()
        self._idle: list[WorkerThread] = []
        self._running: set[Job] = set()
        self._overdue_calls: dict[str, LogLimit] = {}  # by their names
        self._closed = False

    async def run(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        own_thread: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Call `function(*args)` in a thread and a copy of the current context; return or raise what it does.

        Waits for a place, unless the call has a thread of its own. Cancelled while the call runs, the thread is left. After
        `timeout` seconds it goes on waiting, since the thread does go on, and then raises `HandlerTimeout`.
        """
        context = context_of_a_thread()
        job = Job(name, functools.partial(context.run, function, *args))
        if not own_thread:
            await self._places.acquire_on_behalf_of(job)
        self._submit(job, pooled=not own_thread)
        try:
            verdict = None if timeout is None else await self._overdue(job, timeout)
            await job.done.wait()
        except BaseException:
            job.leave()
            raise
        try:
            # What is no Exception ends the engine, however late.
            if verdict is not None and (job.error is None or isinstance(job.error, Exception)):
                raise verdict from job.error
            if job.error is not None:
                raise job.error
            return job.result
        finally:
            job.error = None  # its traceback refers to the job, which has the arguments
            del job, context, verdict  # and to this frame

    async def _overdue(self, job: Job, timeout: float) -> HandlerTimeout | None:
        """Wait until the call is done, or its time is over: what to say of it then."""
        with anyio.move_on_after(timeout):
            await job.done.wait()
        if job.done.is_set():
            return None
        limit = self._overdue_calls.setdefault(job.name, LogLimit(OVERDUE_CALLS_LOGGED))
        if limit.count(anyio.current_time())[0]:
            logger.bind(thread=job.name, timeout=timeout).warning(
                "{} runs longer than timeout={:g} s, and a thread cannot be cancelled: what comes next waits for it",
                job.name,
                timeout,
            )
        return HandlerTimeout(
            f"{job.name} took longer than timeout={timeout:g} s", handler=job.name, timeout=timeout
        )

    def lend_place(self) -> None:
        """A pooled call waits for the engine: another one may run meanwhile."""
        self._places.total_tokens += 1

    def return_place(self) -> None:
        """A call that had lent its place goes on; for a moment there may be one too many."""
        self._places.total_tokens -= 1

    @property
    def left(self) -> tuple[str, ...]:
        """The names of calls that still run although nobody waits for them."""
        return tuple(sorted(job.name for job in self._running if job.left))

    def finished(self, worker: WorkerThread, job: Job) -> None:
        """Called on the loop when `worker` has executed `job`."""
        self._running.discard(job)
        if worker.pooled:
            self._places.release_on_behalf_of(job)
        if worker.pooled and not self._closed:
            self._idle.append(worker)
        else:
            self._end(worker)
        job.done.set()

    def close(self) -> None:
        """End the idle threads, and those that are left once their call returns."""
        self._closed = True
        # Those at work too: the loop may have stopped before it hears that they are done.
        for worker in list(self._workers):
            self._end(worker)
        for worker in self._idle:
            worker.join(timeout=1)  # it has nothing to do but to end
        self._idle.clear()

    def _end(self, worker: WorkerThread) -> None:
        self._workers.discard(worker)
        worker.jobs.put(None)

    def _submit(self, job: Job, *, pooled: bool) -> None:
        self._running.add(job)
        if pooled and self._idle:
            worker = self._idle.pop()
        else:
            worker = WorkerThread(self, pooled=pooled)
            self._workers.add(worker)
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left, or the interpreter ends
                self._workers.discard(worker)
                self._running.discard(job)
                if pooled:
                    self._places.release_on_behalf_of(job)
                raise
        worker.jobs.put(job)

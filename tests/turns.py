"""Threads that run one at a time, each until it waits, in an order that is drawn.

The loop stands still while one of them runs, and asks before each pass who may. So a program with threads does the same
thing each time, and the virtual clock never jumps while one is at work. What the engine's threads wait at is put in the way
of the two places where they do: the queue of their jobs, and the answer to what they publish.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from event_flow.core import inbox, threads
from event_flow.core.threads import Job


class Turns:
    """Who may run. Only the loop, and the one thread that has the turn, change it; so it needs no lock."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ready: list[threading.Semaphore] = []
        self._returned = threading.Semaphore(0)

    def give(self) -> None:
        """For the loop: let every thread that can run do so, until all of them wait."""
        while self._ready:
            turn = self._ready.pop(self._random.randrange(len(self._ready)))
            turn.release()
            self._returned.acquire()

    def demand(self, turn: threading.Semaphore) -> None:
        """The thread of `turn` can run."""
        self._ready.append(turn)

    def hand_back(self) -> None:
        """For the thread at work: it ends, or will wait for its next turn."""
        self._returned.release()

    def wait(self, arrange: Callable[[Callable[[], None]], object]) -> None:
        """For the thread at work: wait until what it gives to `arrange` is called, and for its turn."""
        turn = threading.Semaphore(0)
        arrange(lambda: self.demand(turn))
        self.hand_back()
        turn.acquire()

    def start(self, function: Callable[[], object]) -> None:
        """Run `function` in a thread of its own."""
        turn = threading.Semaphore(0)

        def run() -> None:
            turn.acquire()
            try:
                function()
            finally:
                self.hand_back()

        threading.Thread(target=run, name="a thread of the test", daemon=True).start()
        self.demand(turn)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Every engine that runs inside of the block has threads that take turns."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "queue", SimpleNamespace(SimpleQueue=lambda: JobQueue(self)))
            patch.setattr(inbox, "Future", lambda: Answer(self))
            yield


class Answer(Future[None]):
    """What a thread that publishes waits for: until its next turn, and then it is there."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._turns.wait(lambda go_on: self.add_done_callback(lambda _: go_on()))
        return super().exception(timeout)


class JobQueue:
    """The jobs of one worker thread: it needs a turn for each, and hands it back when it comes for the next."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn = threading.Semaphore(0)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_at_work = False

    def put(self, job: Job | None) -> None:
        self._jobs.put(job)
        if job is not None:
            self._turns.demand(self._turn)

    def get(self) -> Job | None:
        if self._is_at_work:
            self._turns.hand_back()
        job = self._jobs.get()
        if job is not None:
            self._turn.acquire()
            self._is_at_work = True
        return job


class ThreadGate:
    """Where sync handlers wait until the loop lets them pass."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waiting: list[Callable[[], Any]] = []

    def wait(self) -> None:
        self._turns.wait(self._waiting.append)

    def open(self) -> None:
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()

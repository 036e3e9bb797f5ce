"""Runs an engine that is hard to end, and says on stdout what happens to it: `signalled.py BACKEND CASE`.

What it says is what a test waits for before it sends the next signal, so nothing in here depends on how long things take.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import anyio
from anyio.lowlevel import checkpoint
from loguru import logger

from event_flow import AppEngine, Application, Event, task
from event_flow.core.signals import SIGNALS

FOR_EVER = 1000.0


def say(text: str) -> None:
    # Not print(): a signal handler or a thread may come in between.
    os.write(1, f"{text}\n".encode())


def was_installed_before(number: int, frame: object) -> None:
    say("the previous handler was called")


class Ping(Event[int]):
    pass


class Case(Application):
    """Says when its hooks run. A task says when the engine has begun to drain: its publish is refused then."""

    async def before_start(self) -> None:
        await self.engine.pub_event(Ping(0))

    @task
    async def watch(self) -> None:
        try:
            for number in range(1, 1000):
                await self.engine.pub_event(Ping(number))
                await checkpoint()
        finally:
            say("draining")

    async def exit(self) -> None:
        say("app exits")


class Held(Case):
    """A handler keeps the engine in its grace period for ever."""

    async def on_ping(self, events: list[Ping]) -> None:
        say("ready")
        await anyio.sleep(FOR_EVER)


class SyncTask(Case):
    """A thread that never ends. Nothing keeps the engine from ending at the first signal."""

    watch = None  # type: ignore[assignment]

    @task
    def block(self) -> NoReturn:
        say("ready")
        while True:
            time.sleep(3)

    async def on_ping(self, events: list[Ping]) -> None:
        pass


class HeldSyncTask(Held):
    @task
    def block(self) -> NoReturn:
        while True:
            time.sleep(3)


def hog(signals: float) -> None:
    """Keep the loop from running until so many signals have been received, and say each."""
    # Sockets: on Windows a pipe would block.
    ours, signalled = socket.socketpair()
    for end in (ours, signalled):
        end.setblocking(False)
    before = signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
    say("ready")
    try:
        while signals > 0:
            with suppress(BlockingIOError):
                ours.recv(1)
                # The handler ran when recv() returned.
                signals -= 1
                say("received")
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        signalled.close()


def hold_the_loop() -> None:
    """Not one long sleep: Windows wakes the main thread from that for Ctrl+C, but not for Ctrl+Break."""
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        time.sleep(0.01)


class HogForAWhile(Case):
    watch = None  # type: ignore[assignment]

    async def on_ping(self, events: list[Ping]) -> None:
        hog(1)
        say("handled")


class HogForEver(Case):
    watch = None  # type: ignore[assignment]

    async def on_ping(self, events: list[Ping]) -> None:
        hog(math.inf)


class HogUnimpressed(Case):
    watch = None  # type: ignore[assignment]

    async def on_ping(self, events: list[Ping]) -> None:
        while True:
            try:
                hog(math.inf)
            except KeyboardInterrupt:
                say("interrupted")


class HookHangs(Held):
    async def exit(self) -> None:
        say("app exits")
        await anyio.sleep(FOR_EVER)


class SyncHookHangs(Held):
    def exit(self) -> None:  # type: ignore[override]
        say("app exits")
        time.sleep(FOR_EVER)


class ImpatientHookHangs(HookHangs):
    watch = None  # type: ignore[assignment]

    async def on_ping(self, events: list[Ping]) -> None:
        say("ready")


class ImpatientSyncHookHangs(SyncHookHangs):
    watch = None  # type: ignore[assignment]

    async def on_ping(self, events: list[Ping]) -> None:
        say("ready")


class StartHangs(Case):
    """A start hook that hangs while it holds the loop."""

    async def before_start(self) -> None:
        hog(math.inf)


def under_start(app: type[Application], *, exit_timeout: float = FOR_EVER, last_hangs: bool = False) -> int:
    """Run it under `start()`; say how that ended and whether the signal handlers are those from before."""
    signal.signal(signal.SIGTERM, was_installed_before)
    before = [signal.getsignal(number) for number in SIGNALS]
    engine = AppEngine([app()], grace_period=FOR_EVER, exit_timeout=exit_timeout, queue_size=1, max_batch=1)

    @engine.exit
    async def last() -> None:
        say("last hook")
        if last_hangs:
            hold_the_loop()

    status = 0
    try:
        report = engine.start(*backend())
    except BaseException as exc:
        cause = f" from {exc.__cause__!r}" if exc.__cause__ else ""
        say(f"raised {type(exc).__name__}{cause}")
        status = 1
    else:
        say(f"returned, accepted {report.accepted}, handled {report.handled}")
    assert engine.report is not None
    say(f"threads left: {', '.join(engine.report.threads_left)}")
    after = [signal.getsignal(number) for number in SIGNALS]
    say("restored" if after == before else f"not restored: {after}")
    return status


class Idle(Application):
    """Nothing runs but a thread, which says so."""

    @task
    async def wait_idle(self) -> None:
        await anyio.wait_all_tasks_blocked()
        idle.set()

    @task
    def tell(self) -> None:
        idle.wait()
        time.sleep(0.05)  # for the task above to end
        say("ready")


idle = threading.Event()


def under_run(app: type[Application]) -> int:
    """Run it in an event loop of the user's own, where Ctrl+C is the loop's affair, as the main task."""
    engine = AppEngine([app()], queue_size=1, max_batch=1)

    @engine.exit
    async def last() -> None:
        say("last hook")

    async def main() -> None:
        await engine.run()

    name, options = backend()
    try:
        anyio.run(main, backend=name, backend_options=options)
    except BaseException as exc:
        is_interrupt = isinstance(exc, KeyboardInterrupt) or (
            isinstance(exc, BaseExceptionGroup) and exc.split(KeyboardInterrupt)[1] is None
        )
        say("raised KeyboardInterrupt" if is_interrupt else f"raised {exc!r}")
    return 0


def forks(where: str) -> int:
    """Fork in a handler: the child tells by its exit status what a signal does to it."""

    class Forks(Application):
        def _fork(self) -> None:
            child = 0
            if sys.platform != "win32":
                child = os.fork()
            if not child:
                handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
                if handlers != before:
                    os._exit(99)
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(98)
            _, status = os.waitpid(child, 0)
            say(f"child ended with {os.waitstatus_to_exitcode(status)}")
            say(f"the engine is {self.engine.state.value}")
            self.engine.stop()

        def on_sync(self, events: list[Ping]) -> None:
            if where == "thread":
                self._fork()

        async def on_async(self, events: list[Ping]) -> None:
            if where == "loop":
                self._fork()

        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

    # With a SIGINT handler of the program's own, asyncio and Trio install none of theirs.
    signal.signal(signal.SIGINT, was_installed_before)
    before: list[Any] = [was_installed_before, signal.SIG_DFL]
    report = AppEngine([Forks()]).start(*backend())
    say(f"returned, accepted {report.accepted}, handled {report.handled}")
    return 0


def exits() -> int:
    """`SystemExit` in a handler, and nobody to catch it."""

    class Exits(Case):
        watch = None  # type: ignore[assignment]

        async def on_ping(self, events: list[Ping]) -> None:
            sys.exit(3)

    AppEngine([Exits()]).start(*backend())
    return 0


def backend() -> tuple[str, dict[str, Any]]:
    name = sys.argv[1]
    return ("asyncio", {"use_uvloop": True}) if name == "uvloop" else (name, {})


CASES: dict[str, Callable[[], int]] = {
    "sync task": lambda: under_start(SyncTask),
    "held": lambda: under_start(HeldSyncTask),
    "held, last hook hangs": lambda: under_start(HeldSyncTask, last_hangs=True),
    "hog for a while": lambda: under_start(HogForAWhile),
    "hog for ever": lambda: under_start(HogForEver),
    "hog unimpressed": lambda: under_start(HogUnimpressed),
    "hook hangs, short": lambda: under_start(ImpatientHookHangs, exit_timeout=0.1),
    "sync hook hangs, short": lambda: under_start(ImpatientSyncHookHangs, exit_timeout=0.1),
    "hook hangs": lambda: under_start(HookHangs),
    "sync hook hangs": lambda: under_start(SyncHookHangs),
    "hook hangs, second signal in it": lambda: under_start(ImpatientHookHangs),
    "sync hook hangs, second signal in it": lambda: under_start(ImpatientSyncHookHangs),
    "hook hangs, last hook hangs": lambda: under_start(ImpatientHookHangs, last_hangs=True),
    "sync hook hangs, last hook hangs": lambda: under_start(ImpatientSyncHookHangs, last_hangs=True),
    "start hangs": lambda: under_start(StartHangs),
    "run": lambda: under_run(Held),
    "run idle": lambda: under_run(Idle),
    "fork in a thread": lambda: forks("thread"),
    "fork in the loop": lambda: forks("loop"),
    "exit": exits,
}


if __name__ == "__main__":
    logger.remove()
    sys.exit(CASES[sys.argv[2]]())

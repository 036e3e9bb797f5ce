"""SIGINT, SIGTERM and Ctrl+Break while `start()` runs: the first drains, the second hurries, the third ends the process.

A handler that hogs the loop would make the second signal wait for it. So that one is raised into it as a
`KeyboardInterrupt`, but only if the loop has not run since the first, and never into the code of the loop or of Event
Flow itself, which it would tear. Where the handler is just calling such code, a thread knocks until it is not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from _thread import interrupt_main, start_new_thread
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Self

from event_flow.core.backend import LoopGone, Wake, wake_on_signals


def signals_of(system: Any) -> tuple[signal.Signals, ...]:
    """Those that ask a process to end, in a module like `signal`.

    SIGBREAK, Ctrl+Break, is of Windows only, and what one process can ask another there: nobody can send it a SIGTERM.
    """
    return tuple(getattr(system, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(system, name))


def knock_for(number: int) -> signal.Signals:
    """What a knock looks like once `number` has come twice: a signal that is not expected to come for real."""
    return signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM


SIGNALS = signals_of(signal)
# Ours, and what the loops and ours call.
NOT_INTO = frozenset(
    {
        "event_flow", "anyio", "loguru", "asyncio", "uvloop", "selectors",
        "trio", "attr", "outcome", "sniffio", "sortedcontainers",
    }
)  # fmt: skip

# Seconds between two looks at a handler that hogs the loop; somebody who has pressed Ctrl+C twice should not notice.
KNOCK_INTERVAL = 0.01

_installed: list[SignalHandlers] = []


class SignalHandlers:
    """A context manager. Outside the main thread, where Python allows no signal handlers, it does nothing.

    `stop` and `hurry` are called on the loop, never inside the signal handler.
    """

    def __init__(self, wake: Wake, *, stop: Callable[[], object], hurry: Callable[[], object]) -> None:
        self._wake = wake
        self._stop = stop
        self._hurry = hurry
        self._previous: dict[int, Any] = {}
        self._wakeup = ExitStack()
        self._received = 0
        self._loop_has_run = True
        # What a knock looks like, from the first one on.
        self._knock: signal.Signals | None = None
        self._is_knock = False  # the next signal of that kind is one
        self._is_knocking = False
        self._knocking = threading.Lock()

    @property
    def was_hurried(self) -> bool:
        """A second signal came."""
        return self._received > 1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._wakeup.enter_context(wake_on_signals())
            _installed.append(self)
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()
        self._wakeup.close()
        if self in _installed:
            _installed.remove(self)

    def restore(self) -> None:
        """Put the handlers back that were there before."""
        with self._knocking:
            self._is_knocking = False
        # A knock that is under way still finds ours: Python handles what is pending before it changes a handler.
        while self._previous:
            number, previous = self._previous.popitem()
            # None: a handler that was not installed from Python; the default is the nearest there is.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_knock and number == self._knock:
            self._is_knock = False
            if self._is_knocking:
                self._interrupt_if_hogged(frame)
            return
        self._received += 1
        if self._received > 2:
            signal.signal(number, signal.SIG_DFL)
            os._exit(128 + number)
        is_hogged = not self._loop_has_run
        self._loop_has_run = False
        try:
            self._wake(self._act)
        except LoopGone:
            raise KeyboardInterrupt from None
        if self._received == 2 and is_hogged:
            self._interrupt_if_hogged(frame)
            self._knock = knock_for(number)
            self._is_knocking = True
            # No Thread: its locks may be held by what was interrupted.
            start_new_thread(self._knock_until_heard, ())

    def _interrupt_if_hogged(self, frame: FrameType | None) -> None:
        if not self._loop_has_run and _is_users(frame):
            self._is_knocking = False
            raise KeyboardInterrupt

    def _knock_until_heard(self) -> None:
        """In a thread: have the main thread look again, until the loop has run or the user's code was interrupted."""
        while True:
            time.sleep(KNOCK_INTERVAL)
            with self._knocking:
                if self._loop_has_run or not self._is_knocking or self._knock is None:
                    return
                self._is_knock = True
                interrupt_main(self._knock)

    def _act(self) -> None:
        self._loop_has_run = True
        if self.was_hurried:
            self._hurry()
        else:
            self._stop()


def _is_users(frame: FrameType | None) -> bool:
    """Whether the code at work is the user's, or of the standard library and called by the user's."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in NOT_INTO:
            return False
        if package not in sys.stdlib_module_names:
            return True
        frame = frame.f_back
    return False


def _restore_in_child() -> None:
    """A forked child inherits handlers that would wake its parent's loop."""
    for handlers in _installed:
        handlers._knocking = threading.Lock()  # a thread that is not in the child may hold it
        handlers.restore()
    _installed.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_in_child)

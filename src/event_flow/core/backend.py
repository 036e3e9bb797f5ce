"""The only file that knows which backend runs: waking the loop from elsewhere, native cancellation, and Trio's Ctrl+C.

`asyncio` and `trio` are named in no other file of the package, but for the virtual clock of the test kit.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from event_flow.core.exception import BackendNotInstalled, OptionError

ASYNCIO_OPTIONS = frozenset({"debug", "loop_factory", "use_uvloop"})

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Wake = Callable[[Callable[[], object]], None]


class LoopGone(Exception):
    """The loop that was to be woken has ended."""


def current_wake() -> Wake:
    """A function that has the running loop call something soon: from any thread, and from a signal handler.

    It raises `LoopGone` when the loop has ended. What is called must not raise.
    """
    token: Any = anyio.lowlevel.current_token().native_token
    call_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon
    # Trio's RunFinishedError and asyncio's error of a closed loop are both RuntimeErrors.

    def wake(call: Callable[[], object]) -> None:
        try:
            call_soon(call)
        except RuntimeError as exc:
            raise LoopGone from exc

    return wake


def current_clock() -> Callable[[], float]:
    """What tells the time of the running loop: the same as `anyio.current_time()`, which looks for the loop at each call."""
    token: Any = anyio.lowlevel.current_token().native_token
    if _is_trio():
        time: Callable[[], float] = sys.modules["trio"].lowlevel.current_clock().current_time
        return time
    return token.time  # type: ignore[no-any-return]


@contextmanager
def wake_on_signals() -> Iterator[None]:
    """Have every signal wake the running loop, whichever thread the system hands it to. For the main thread only.

    Trio, uvloop and asyncio on Windows do so themselves. A loop of asyncio with a selector wakes only when the signal
    interrupts its own wait: not if it came just before, and not if another thread got it.
    """
    loop: Any = anyio.lowlevel.current_token().native_token
    if not isinstance(loop, asyncio.SelectorEventLoop):
        yield
        return
    ours, signalled = socket.socketpair()
    for end in (ours, signalled):
        end.setblocking(False)
    loop.add_reader(ours, ours.recv, 4096)
    earlier = signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        loop.remove_reader(ours)
        ours.close()
        signalled.close()


_uninterrupted: list[Any] = []


def uninterrupted(function: FunctionT) -> FunctionT:
    """Decorator: Trio raises Ctrl+C not inside of it or of what it calls, but at the next checkpoint of its main task.

    Without signal handlers of ours, so in a loop of the user's own, Trio raises it into whatever code is at work: that
    would tear the engine's bookkeeping, or the one task that still has to call the `exit` hooks. asyncio cancels its main task.
    """
    _uninterrupted.append(function)
    return function


def interruptible(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`function` as the uninterrupted may call it: it is the user's code, which may hog the loop until it is interrupted."""
    return functools.partial(_call_interruptibly, function) if _is_trio() else function


async def _call_interruptibly(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return await function(*args)


def protect_from_interrupts() -> None:
    """To be called in the loop before anything runs: makes Trio, if it is Trio, know all of these. It may be told again."""
    if _is_trio():
        import trio

        for function in _uninterrupted:
            trio.lowlevel.enable_ki_protection(function)
        trio.lowlevel.disable_ki_protection(_call_interruptibly)


def create_task_group() -> AbstractAsyncContextManager[Any]:
    """A task group for tasks that are `uninterrupted` from the first step to the last, with `start_soon` and `cancel_scope`.

    On Trio it is Trio's own: anyio's calls what it starts from a function of anyio, in which Ctrl+C may be raised.
    """
    if not _is_trio():
        return anyio.create_task_group()
    import trio

    return _nursery(trio.open_nursery())


@asynccontextmanager
async def _nursery(nursery: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    """As anyio's task group ends: several cancellations are one."""
    try:
        async with nursery as group:
            yield group
    except BaseExceptionGroup as exc:
        cancelled, others = exc.split(anyio.get_cancelled_exc_class())
        if cancelled is None or others is not None:
            raise
        error: BaseException = cancelled
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _is_trio() -> bool:
    return hasattr(anyio.lowlevel.current_token().native_token, "run_sync_soon")


def context_of_a_thread() -> Context:
    """A copy of the current context for code in another thread, where no event loop runs.

    Where Trio is installed, anyio asks sniffio which library runs, and sniffio a context variable.
    """
    context = copy_context()
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def in_event_loop() -> bool:
    """Whether the caller runs inside an event loop."""
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True


class NativeTask:
    """The current task, as far as asyncio's own cancellation reaches it. On Trio nothing does."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        try:
            self._task = asyncio.current_task()
        except RuntimeError:
            self._task = None

    def is_being_cancelled(self) -> bool:
        """Whether `Task.cancel()` was called and not yet answered. A scope's cancellation looks the same."""
        return self._task is not None and self._task.cancelling() > 0

    def absorb(self) -> None:
        """Answer all calls of `Task.cancel()`: the task goes on as if they had not been made."""
        if self._task is not None:
            while self._task.cancelling():
                self._task.uncancel()


def require_backend(backend: str, backend_options: dict[str, Any]) -> None:
    """Raises `OptionError` for a backend there is not, and for options that anyio would silently ignore.

    Raises `BackendNotInstalled`, with the extra to install, if the backend or uvloop is missing.
    """
    if backend not in ("asyncio", "trio"):
        raise OptionError(
            f"backend={backend!r}: allowed are 'asyncio' and 'trio'; uvloop is backend_options={{'use_uvloop': True}}"
        )
    unknown = set(backend_options) - ASYNCIO_OPTIONS
    if backend == "asyncio" and unknown:
        raise OptionError(
            f"backend_options={backend_options!r}: allowed for asyncio are {', '.join(sorted(ASYNCIO_OPTIONS))}"
        )
    wanted = "trio" if backend == "trio" else "uvloop" if backend_options.get("use_uvloop") else None
    if wanted is not None and importlib.util.find_spec(wanted) is None:
        raise BackendNotInstalled(
            f"{wanted} is not installed: pip install 'event-flow[{wanted}]'", name=wanted
        )

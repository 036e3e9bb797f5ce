"""SIGINT, SIGTERM and Ctrl+Break under `start()`, and what ends a process: one drains, two hurry, three are the end.

Programs of their own, in `programs/signalled.py`: they say what happens, and the next signal follows what they have said.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import IO, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from processes import CREATION_FLAGS, SENT, send

import event_flow
from event_flow import (
    AppEngine,
    Application,
    EngineState,
    Event,
    ShutdownReport,
    schedule,
    task,
)
from event_flow.core import accounting, assembly, lifecycle, signals
from event_flow.core.activity import Activity
from event_flow.core.backend import _uninterrupted
from event_flow.core.bus import Bus
from event_flow.core.hooks import HookCall
from event_flow.core.lane import Lane
from event_flow.core.signals import SIGNALS, SignalHandlers, knock_for, signals_of
from event_flow.core.supervision import Supervisor

PROGRAM = Path(__file__).parent / "programs" / "signalled.py"
SOURCES = Path(event_flow.__file__).parents[1]
HANGS = 10.0  # seconds; the longest program takes three
INT, TERM = signal.SIGINT, signal.SIGTERM
ASK = SENT[0]

Backend = tuple[str, dict[str, Any]]


class Ping(Event[int]):
    pass


class Program:
    """A program that runs. What it says is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.stdout: IO[str] = process.stdout
        self.said: list[str] = []

    def wait_for(self, line: str) -> None:
        """Read until it says `line`."""
        while True:
            said = self.stdout.readline().rstrip("\n")
            assert said or self.process.poll() is None, f"{line!r} never came, only {self.said}"
            self.said.append(said)
            if said == line:
                return

    def send(self, number: int) -> None:
        send(self.process, number)

    def end(self) -> int:
        """Read what is left and return the exit status."""
        self.said += self.stdout.read().splitlines()
        return self.process.wait()


@contextmanager
def program(backend: Backend, case: str) -> Iterator[Program]:
    name, options = backend
    argument = "uvloop" if options.get("use_uvloop") else name
    # Paths may be longer than what the test's own interpreter was given: a child starts from its environment.
    paths = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", PROGRAM, argument, case],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        creationflags=CREATION_FLAGS,
    ) as process:
        # One that hangs is a failure of its test, with what it has said, and not the end of all tests.
        watchdog = threading.Timer(HANGS, process.kill)
        watchdog.start()
        try:
            yield Program(process)
        finally:
            watchdog.cancel()
            process.kill()
            watchdog.join()


# -- one signal ------------------------------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.parametrize("number", SENT)
@pytest.mark.parametrize("case", ["sync task", "hog for a while"])
def test_the_first_signal_drains_and_start_returns_the_report(
    anyio_backend: Backend, case: str, number: int
) -> None:
    """Design D10, D11."""
    with program(anyio_backend, case) as run:
        run.wait_for("ready")
        run.send(number)
        status = run.end()
    middle = {"sync task": [], "hog for a while": ["received", "handled"]}[case]
    left = {"sync task": "SyncTask.block", "hog for a while": ""}[case]
    assert run.said == [
        "ready", *middle, "app exits", "last hook", "returned, accepted 1, handled 1",
        f"threads left: {left}", "restored",
    ]  # fmt: skip
    assert status == 0


@pytest.mark.realtime
@pytest.mark.parametrize("number", SENT)
@pytest.mark.parametrize("case", ["hook hangs, short", "sync hook hangs, short"])
def test_after_one_signal_a_hook_that_hangs_is_cut_at_exit_timeout_and_named(
    anyio_backend: Backend, case: str, number: int
) -> None:
    with program(anyio_backend, case) as run:
        run.wait_for("ready")
        run.send(number)
        status = run.end()
    left = "ImpatientSyncHookHangs.exit" if case.startswith("sync") else ""
    assert run.said == [
        "ready", "app exits", "last hook", "raised ExitTimeout", f"threads left: {left}", "restored",
    ]  # fmt: skip
    assert status == 1


# -- two signals -----------------------------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.parametrize("numbers", [(ASK, ASK), (SENT[-1], ASK)])
def test_the_second_signal_skips_the_grace_period_and_start_raises_keyboard_interrupt(
    anyio_backend: Backend, numbers: tuple[int, int]
) -> None:
    """Also with a thread that never ends."""
    with program(anyio_backend, "held") as run:
        run.wait_for("ready")
        run.send(numbers[0])
        run.wait_for("draining")
        run.send(numbers[1])
        status = run.end()
    assert run.said == [
        "ready", "draining", "app exits", "last hook", "raised KeyboardInterrupt",
        "threads left: HeldSyncTask.block", "restored",
    ]  # fmt: skip
    assert status == 1


@pytest.mark.realtime
@pytest.mark.parametrize("number", SENT)
def test_the_second_signal_interrupts_a_handler_that_hogs_the_loop(
    anyio_backend: Backend, number: int
) -> None:
    """Design D10: the loop cannot act, so the handler is torn out."""
    with program(anyio_backend, "hog for ever") as run:
        run.wait_for("ready")
        run.send(number)
        run.wait_for("received")
        run.send(number)
        status = run.end()
    # Where in the loop the second is received is not decided: it may be before the handler has said so.
    said = [line for line in run.said if line != "received"]
    assert said == [
        "ready", "app exits", "last hook", "raised KeyboardInterrupt", "threads left: ", "restored",
    ]  # fmt: skip
    assert status == 1


@pytest.mark.realtime
def test_the_second_signal_interrupts_a_start_hook_that_hogs_the_loop(anyio_backend: Backend) -> None:
    with program(anyio_backend, "start hangs") as run:
        run.wait_for("ready")
        run.send(ASK)
        run.wait_for("received")
        run.send(ASK)
        run.end()
    said = [line for line in run.said if line != "received"]
    assert said == ["ready", "last hook", "raised KeyboardInterrupt", "threads left: ", "restored"]


# Regression: an error of a hook, even the ExitTimeout the second signal itself causes, replaces the KeyboardInterrupt.
@pytest.mark.realtime
@pytest.mark.parametrize("when", ["in the grace period", "in the hook"])
@pytest.mark.parametrize("case", ["hook hangs", "sync hook hangs"])
def test_the_second_signal_cuts_hooks_that_hang_and_start_raises_keyboard_interrupt(
    anyio_backend: Backend, case: str, when: str
) -> None:
    """Design D10: after the second signal `start()` raises `KeyboardInterrupt`; what hooks raised is not lost."""
    name, gate = ("", "draining") if when == "in the grace period" else (", second signal in it", "app exits")
    with program(anyio_backend, case + name) as run:
        run.wait_for("ready")
        run.send(ASK)
        run.wait_for(gate)
        run.send(ASK)
        status = run.end()
    assert run.said[-4] == "last hook"
    assert run.said[-3].startswith("raised KeyboardInterrupt from ExitTimeout(")
    assert ("SyncHookHangs.exit" in run.said[-2]) == case.startswith("sync")
    assert run.said[-1] == "restored"
    assert run.said.count("app exits") == 1
    assert status == 1


# -- three signals ---------------------------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.parametrize("number", SENT)
def test_the_third_signal_ends_the_process_although_the_loop_is_held(
    anyio_backend: Backend, number: int
) -> None:
    """A hook that holds the loop, and a thread that never ends. 128 + n is what a shell says of a process killed by n."""
    with program(anyio_backend, "held, last hook hangs") as run:
        for line in ("ready", "draining", "last hook"):
            run.wait_for(line)
            run.send(number)
        assert run.end() == 128 + number
    assert run.said == ["ready", "draining", "app exits", "last hook"]


@pytest.mark.realtime
def test_the_third_signal_ends_a_handler_that_swallows_the_second(anyio_backend: Backend) -> None:
    with program(anyio_backend, "hog unimpressed") as run:
        run.wait_for("ready")
        run.send(ASK)
        run.wait_for("received")
        run.send(ASK)
        run.wait_for("interrupted")
        run.wait_for("ready")
        run.send(SENT[-1])
        assert run.end() == 128 + SENT[-1]
    assert "app exits" not in run.said


@pytest.mark.realtime
@pytest.mark.parametrize("case", ["hook hangs", "sync hook hangs"])
def test_the_third_signal_ends_the_process_while_hooks_hang(anyio_backend: Backend, case: str) -> None:
    with program(anyio_backend, f"{case}, last hook hangs") as run:
        for line in ("ready", "app exits", "last hook"):
            run.wait_for(line)
            run.send(ASK)
        assert run.end() == 128 + ASK
    assert run.said == ["ready", "app exits", "last hook"]


# -- a loop of the user's own ----------------------------------------------------------------------------------------


# Regression: on Trio the KeyboardInterrupt that is raised into run() is taken for no order to end, and run() waits for ever.
@pytest.mark.skipif(sys.platform == "win32", reason="there, Ctrl+C cannot be sent to one process")
@pytest.mark.realtime
@pytest.mark.parametrize("case", ["run", "run idle"])
def test_ctrl_c_in_a_loop_of_the_users_own_ends_the_engine_in_order(
    anyio_backend: Backend, case: str
) -> None:
    """*Design promise 7*. There the signal is the event loop's affair: it cancels or interrupts the task of `run()`."""
    with program(anyio_backend, case) as run:
        run.wait_for("ready")
        run.send(INT)
        run.end()
    assert run.said[0] == "ready"
    assert sorted(run.said[1:-2]) == (["app exits", "draining"] if case == "run" else [])
    assert run.said[-2:] == ["last hook", "raised KeyboardInterrupt"]


# -- fork ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("where", ["thread", "loop"])
def test_a_forked_child_has_the_handlers_from_before(anyio_backend: Backend, where: str) -> None:
    """It dies of its SIGTERM; the engine of its parent goes on."""
    with program(anyio_backend, f"fork in {'a ' if where == 'thread' else 'the '}{where}") as run:
        assert run.end() == 0
    assert run.said == [
        f"child ended with {-TERM}", "the engine is running", "returned, accepted 2, handled 2",
    ]  # fmt: skip


# -- which signals ---------------------------------------------------------------------------------------------------


def test_ctrl_break_counts_where_there_is_one() -> None:
    posix = SimpleNamespace(SIGINT=2, SIGTERM=15, SIGUSR1=10)
    windows = SimpleNamespace(SIGINT=2, SIGTERM=15, SIGBREAK=21, CTRL_BREAK_EVENT=1)
    assert signals_of(posix) == (2, 15)
    assert signals_of(windows) == (2, 15, 21)
    assert set(SENT) <= set(SIGNALS)


@pytest.mark.parametrize(("number", "knock"), [(INT, TERM), (TERM, INT), (21, TERM)])
def test_a_knock_looks_like_a_signal_that_is_not_expected(number: int, knock: int) -> None:
    """Ctrl+C may still come after Ctrl+Break; SIGTERM, on Windows, never does."""
    assert knock_for(number) == knock


@pytest.mark.skipif(sys.platform == "win32", reason="nothing that can stand for a third signal")
@pytest.mark.parametrize("times", [1, 2])
def test_a_third_signal_ends_the_engine_as_the_others_do(
    anyio_backend: Backend, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As Ctrl+Break does on Windows. SIGUSR1 stands for it here."""
    third = signal.Signals["SIGUSR1"]
    diary: list[str] = []
    monkeypatch.setattr(
        signals, "SIGNALS", signals_of(SimpleNamespace(SIGINT=INT, SIGTERM=TERM, SIGBREAK=third))
    )

    class App(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            for _ in range(times):
                signal.raise_signal(third)
            diary.append("handled")

        async def exit(self) -> None:
            diary.append("app exits")

    before = signal.signal(third, signal.SIG_IGN)
    try:
        engine = AppEngine([App()])
        if times == 1:
            assert engine.start(*anyio_backend).handled == 1
        else:
            with pytest.raises(KeyboardInterrupt):
                engine.start(*anyio_backend)
        assert signal.getsignal(third) == signal.SIG_IGN
    finally:
        signal.signal(third, before)
    assert diary == ["handled", "app exits"][times - 1 :]


# -- inside one process ----------------------------------------------------------------------------------------------


def handlers() -> list[Callable[[int, FrameType | None], Any] | int | None]:
    return [signal.getsignal(number) for number in (INT, TERM)]


@pytest.fixture
def previous() -> Iterator[list[Any]]:
    """Signal handlers of the program's own, which must be in place again; whatever a test does, pytest's come back."""
    before = handlers()
    mine: list[Any] = [lambda number, frame: None, lambda number, frame: None]
    for number, handler in zip((INT, TERM), mine, strict=True):
        signal.signal(number, handler)
    yield mine
    for number, earlier in zip((INT, TERM), before, strict=True):
        signal.signal(number, earlier)


class Raises(Application):
    """Does something in one place, once, and has an exit hook."""

    def __init__(self, place: str, act: Callable[[], object]) -> None:
        super().__init__()
        self.place = place
        self.act = act
        self.diary: list[str] = []

    def _do(self, place: str) -> None:
        if place == self.place:
            self.diary.append(place)
            self.act()

    async def before_start(self) -> None:
        await self.engine.pub_event(Ping(1))
        self._do("before_start")

    async def on_ping(self, events: list[Ping]) -> None:
        self._do("handler")

    def on_sync_ping(self, events: list[Ping]) -> None:
        self._do("sync handler")

    @schedule(interval=60)
    async def tick(self) -> None:
        self._do("schedule")

    @schedule(interval=60)
    def sync_tick(self) -> None:
        self._do("sync schedule")

    @task
    async def live(self) -> None:
        self._do("task")

    @task
    def sync_live(self) -> None:
        self._do("sync task")

    @task
    async def live_deep(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._do_async, "child of a task")

    async def _do_async(self, place: str) -> None:
        await checkpoint()
        self._do(place)

    async def exit(self) -> None:
        self.diary.append("app exits")
        self._do("exit")


PLACES = [
    "before_start", "handler", "sync handler", "schedule", "sync schedule", "task", "sync task", "child of a task", "exit",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_process_leaves_start_bare_after_the_exit_hooks(
    anyio_backend: Backend, previous: list[Any], place: str, kind: type[BaseException]
) -> None:
    """Design D7: from wherever user code raises it, on every backend the very same exception."""
    error = kind(3)

    def act() -> None:
        raise error

    app = Raises(place, act)
    engine = AppEngine([app])
    if place == "exit":
        engine.register_handler(Ping, lambda events: engine.stop())

    @engine.exit
    async def last() -> None:
        app.diary.append("last hook")

    with pytest.raises(kind) as caught:
        engine.start(*anyio_backend)
    assert caught.value is error
    expected = {
        "before_start": ["before_start", "last hook"],
        "exit": ["app exits", "exit", "last hook"],
    }
    assert app.diary == expected.get(place, [place, "app exits", "last hook"])
    assert handlers() == previous
    assert engine.state is EngineState.STOPPED


def test_system_exit_in_a_handler_is_the_status_of_the_process(anyio_backend: Backend) -> None:
    with program(anyio_backend, "exit") as run:
        assert run.end() == 3
    assert run.said == ["app exits"]


# Regression: with SystemExit on its way, an error of an exit hook is neither raised, nor chained, nor logged.
def test_an_error_of_an_exit_hook_is_not_lost_when_system_exit_leaves(
    anyio_backend: Backend, logs: list[Any]
) -> None:
    """Decided: an error is never lost."""
    lost = OSError("disk full")

    def exit_process() -> None:
        raise SystemExit(3)

    engine = AppEngine([Raises("handler", exit_process)])

    @engine.exit
    async def last() -> None:
        raise lost

    with pytest.raises(SystemExit) as caught:
        engine.start(*anyio_backend)
    assert caught.value.code == 3
    chained = (caught.value.__cause__, caught.value.__context__)
    assert lost in chained or any(record.exception is lost for record in logs)


@pytest.mark.parametrize("end", ["stop", "signal", "two signals", "failed start", "failed exit", "strict"])
def test_the_previous_handlers_are_back_whichever_way_it_ends(
    anyio_backend: Backend, previous: list[Any], end: str
) -> None:
    class Ends(Application):
        async def before_start(self) -> None:
            assert handlers() != previous
            await self.engine.pub_event(Ping(1))
            if end == "failed start":
                raise OSError

        async def on_ping(self, events: list[Ping]) -> None:
            if end in ("signal", "two signals"):
                signal.raise_signal(TERM)
            if end == "two signals":
                signal.raise_signal(INT)
            if end == "strict":
                raise OSError
            self.engine.stop()

        async def exit(self) -> None:
            assert handlers() != previous
            if end == "failed exit":
                raise OSError

    engine = AppEngine([Ends()], on_error="raise")
    with suppress(OSError, KeyboardInterrupt):
        engine.start(*anyio_backend)
    assert engine.report is not None
    assert handlers() == previous


def test_a_signal_is_received_as_long_as_hooks_run(anyio_backend: Backend, previous: list[Any]) -> None:
    """The second may come in the last hook; it is not raised into a loop that runs."""
    ended: list[str] = []

    class Signalled(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            signal.raise_signal(INT)

        async def exit(self) -> None:
            signal.raise_signal(INT)
            await checkpoint()
            ended.append("hook")

    with pytest.raises(KeyboardInterrupt):
        AppEngine([Signalled()]).start(*anyio_backend)
    assert ended == ["hook"]
    assert handlers() == previous


def test_two_signals_in_one_handler_call_interrupt_it_and_nothing_else(
    anyio_backend: Backend, previous: list[Any]
) -> None:
    ended: list[str] = []

    class Signalled(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            signal.raise_signal(INT)
            ended.append("goes on")
            signal.raise_signal(INT)
            ended.append("not reached")

        async def exit(self) -> None:
            await checkpoint()
            ended.append("hook")

    with pytest.raises(KeyboardInterrupt):
        AppEngine([Signalled()]).start(*anyio_backend)
    assert ended == ["goes on", "hook"]
    assert handlers() == previous


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to threads there")
@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_that_another_thread_got_wakes_the_loop(
    anyio_backend: Backend, previous: list[Any], number: int
) -> None:
    """The system may hand a signal to any thread of the process; one that sleeps for ever says nothing to the loop."""
    end = threading.Event()
    was_idle: list[bool] = []

    class Gets(Application):
        @task
        async def tell(self) -> None:
            await anyio.wait_all_tasks_blocked()
            idle.set()

        @task
        def get(self) -> None:
            idle.wait()
            end.wait(0.1)  # for the loop to wait
            if sys.platform != "win32":
                signal.pthread_kill(threading.get_ident(), number)
            end.wait()

    def give_up() -> None:
        was_idle.append(True)
        engine.stop()

    idle = threading.Event()
    engine = AppEngine([Gets()])
    watchdog = threading.Timer(3, give_up)
    watchdog.start()
    try:
        report = engine.start(*anyio_backend)
    finally:
        end.set()
        watchdog.cancel()
        watchdog.join()
    assert not was_idle
    assert report.threads_left == ("Gets.get",)
    assert handlers() == previous


def module(name: str, called: Callable[[], None]) -> Callable[[], None]:
    """A function that looks as if it were of the module `name`, and calls another one."""
    namespace: dict[str, Any] = {"__name__": name, "called": called}
    namespace["done"] = done
    exec("def function():\n    called()\n    done.append(__name__)", namespace)
    made: Callable[[], None] = namespace["function"]
    return made


done: list[str] = []


# Regression: only the innermost frame is looked at, so the standard library called by Event Flow or asyncio is torn.
@pytest.mark.parametrize(
    ("callers", "is_torn"),
    [
        ([], True),
        (["json.decoder"], True),
        (["event_flow.core.threads"], False),
        (["threading", "event_flow.core.threads"], False),
        (["_weakrefset", "asyncio.tasks"], False),
        (["loguru._logger"], False),
        (["sniffio._impl"], False),
        (["json.decoder", "__main__", "event_flow.core.delivery"], True),
    ],
    ids=lambda value: "<".join(value) if isinstance(value, list) else "",
)
def test_the_second_signal_is_raised_into_users_code_and_what_that_calls(
    anyio_backend: Backend, previous: list[Any], callers: list[str], is_torn: bool
) -> None:
    """It must not tear the engine's own calls, for instance the start of a thread, which is the standard library's code."""
    done.clear()

    class Signalled(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            function: Callable[[], None] = two_signals
            for name in callers:
                function = module(name, function)
            function()
            done.append("handler")

    namespace: dict[str, Any] = {"__name__": callers[0] if callers else "users", "signal": signal}
    exec("def two_signals():\n    for _ in range(2): signal.raise_signal(signal.SIGINT)", namespace)
    two_signals: Callable[[], None] = namespace["two_signals"]
    with pytest.raises(KeyboardInterrupt):
        AppEngine([Signalled()]).start(*anyio_backend)
    assert done == ([] if is_torn else [*callers, "handler"])
    assert handlers() == previous


@pytest.mark.realtime
def test_the_second_signal_comes_late_to_a_handler_that_was_calling_code_not_to_be_torn(
    anyio_backend: Backend, previous: list[Any]
) -> None:
    """*Regression*: it was dropped, and a handler that publishes or logs all the time went on for ever."""
    done.clear()
    namespace: dict[str, Any] = {"__name__": "event_flow.core.bus", "signal": signal}
    exec(
        "def two_signals():\n    for _ in range(2): signal.raise_signal(signal.SIGINT)\n"
        "def publish():\n    for _ in range(100): pass",
        namespace,
    )

    class Hogs(Application):
        async def before_start(self) -> None:
            await self.engine.pub_event(Ping(1))

        async def on_ping(self, events: list[Ping]) -> None:
            namespace["two_signals"]()
            done.append("not torn")
            try:
                while True:
                    namespace["publish"]()
            except KeyboardInterrupt:
                done.append("interrupted")
                raise

        async def exit(self) -> None:
            done.append("app exits")

    with pytest.raises(KeyboardInterrupt):
        AppEngine([Hogs()]).start(*anyio_backend)
    assert done == ["not torn", "interrupted", "app exits"]
    assert handlers() == previous


def test_a_knock_that_comes_late_is_no_third_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """*Regression*: it ended the process, and no exit hook ran."""
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail(f"the process ends with {status}"))
    handlers = SignalHandlers(lambda call: None, stop=lambda: None, hurry=lambda: None)
    handlers._received = 2
    handlers._knock, handlers._is_knock, handlers._is_knocking = TERM, True, False
    handlers._receive(TERM, None)
    assert not handlers._is_knock


MOMENTS = [
    "prepare", "open", "put", "put of many", "put nowait", "rest", "hook", "supervisor", "stop", "close", "finish",
    "handler", "tick", "hook of the user",
]  # fmt: skip


# Regression: on Trio it was raised into the supervisor or into the bookkeeping of a lane, and no exit hook ran.
@pytest.mark.parametrize(
    ("moment", "way"),
    [
        *((moment, way) for moment in MOMENTS for way in ("run", "async with", "task group")),
        ("leave", "async with"),
    ],
)
def test_ctrl_c_inside_of_the_engine_s_own_code_tears_nothing(
    anyio_backend: Backend, monkeypatch: pytest.MonkeyPatch, moment: str, way: str
) -> None:
    """*Design promise 7*, in a loop of the user's own, where the signal is the event loop's affair."""
    diary: list[str] = []
    torn: list[str] = []

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if "ctrl+c" not in diary:
                diary.append("ctrl+c")
                try:
                    signal.raise_signal(INT)
                except KeyboardInterrupt:
                    torn.append(moment)
                    raise
            return function(*args)

        return call

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            if moment == "handler":
                interrupted(len)(events)

        @schedule(60)
        async def tick(self) -> None:
            if moment == "tick":
                interrupted(len)(())

        @task
        async def publish(self) -> None:
            for number in range(100):
                if moment == "put of many":
                    await self.engine.pub_events([Ping(number)])
                elif moment == "put nowait":
                    self.engine.pub_event_nowait(Ping(number))
                else:
                    await self.engine.pub_event(Ping(number))
                await self.engine.wait_idle()
            self.engine.stop()

        async def exit(self) -> None:
            if moment == "hook of the user":
                with suppress(KeyboardInterrupt):
                    interrupted(len)(())
            await checkpoint()
            diary.append("app exits")

    places: dict[str, tuple[Any, str]] = {
        "prepare": (assembly, "grow"),
        "finish": (accounting, "report"),
        "leave": (lifecycle, "_exit_group"),
        "put of many": (Lane, "put"),
        "put nowait": (Lane, "put"),
        "open": (Bus, "open"),
        "close": (Lane, "close"),
        "put": (Lane, "put"),
        "rest": (Activity, "rest"),
        "hook": (HookCall, "begin"),
        "supervisor": (Supervisor, "_open"),
        "stop": (Bus, "shut_out"),
    }
    if moment in places:
        owner, name = places[moment]
        monkeypatch.setattr(owner, name, interrupted(getattr(owner, name)))
    engine = AppEngine([App()], queue_size=2)

    @engine.exit
    async def last() -> None:
        diary.append("last hook")

    async def main() -> None:
        if way == "run":
            await engine.run()
        elif way == "async with":
            async with engine:
                await engine.wait_stopped()
        else:
            async with anyio.create_task_group() as group:
                await group.start(engine.run)

    before = signal.getsignal(INT)
    signal.signal(INT, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt, BaseExceptionGroup):
            anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
    finally:
        signal.signal(INT, before)
    assert engine.state is EngineState.STOPPED
    assert engine.report is not None
    assert sorted(diary, key="ctrl+c".__ne__) == ["ctrl+c", "app exits", "last hook"]
    # Into code of the user's it is raised, which may hog the loop; only Trio does so.
    is_users = moment in ("handler", "tick", "hook of the user")
    assert torn == ([moment] if is_users and anyio_backend[0] == "trio" else [])
    assert engine.statistics().queued == engine.statistics().running == 0


@pytest.mark.needs("trio")
def test_on_trio_every_task_of_the_engine_begins_and_ends_uninterrupted() -> None:
    """*Regression*: anyio's task group has a function of its own around each, in which Ctrl+C was raised. Only Trio does so."""
    import trio

    begins: dict[str, object] = {}

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None: ...

        @schedule(60)
        async def tick(self) -> None: ...

        @task
        async def live(self) -> None:
            look(trio.lowlevel.current_root_task())
            self.engine.stop()

        async def exit(self) -> None:
            look(trio.lowlevel.current_root_task())

    def look(root: Any) -> None:
        begins[root.name] = getattr(root.coro, "cr_code", None)
        for nursery in root.child_nurseries:
            for child in nursery.child_tasks:
                look(child)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(AppEngine([App()]).run)

    anyio.run(main, backend="trio")
    uninterrupted = {function.__code__ for function in _uninterrupted}
    names = ["event-flow supervisor", "App", "App.on_ping", "App.tick", "App.live", "App.exit"]
    assert {name: begins[name] in uninterrupted for name in names} == dict.fromkeys(names, True)


def test_start_in_another_thread_touches_no_signal_handlers(
    anyio_backend: Backend, previous: list[Any]
) -> None:
    reports: list[ShutdownReport] = []
    seen: list[bool] = []
    engine = AppEngine()
    begun, go_on = threading.Event(), threading.Event()

    @engine.before_start
    def look() -> None:
        begun.set()
        go_on.wait()
        seen.append(handlers() == previous)
        engine.stop()

    thread = threading.Thread(target=lambda: reports.append(engine.start(*anyio_backend)))
    thread.start()
    begun.wait()
    assert handlers() == previous
    go_on.set()
    thread.join()
    assert seen == [True]
    assert handlers() == previous
    assert len(reports) == 1


async def test_run_and_async_with_touch_no_signal_handlers() -> None:
    before = handlers()
    engine = AppEngine()
    async with engine:
        assert handlers() == before
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        assert handlers() == before
        engine.stop()
    assert handlers() == before

"""asyncio's own cancellation: of the task that called `run()`, of every task of the loop, of a handler's task.

Only asyncio, plain and with uvloop: Trio has no cancellation but that of scopes, which `test_lifecycle.py` is about.
A shield does not hold it off, it may come again and again, and it may take a task before its first step.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from event_flow import (
    AppEngine,
    Application,
    Batch,
    EngineClosed,
    EngineState,
    Event,
    ExceptionEvent,
    ExitTimeout,
    Retry,
    SubApplication,
    UnexpectedCancellation,
    schedule,
    task,
)

T = TypeVar("T")

# Seconds after which a loop is taken for hung: the longest test takes a tenth of one.
HANGS = 10.0

BACKENDS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


# A task cancelled before its first step never begins its coroutine; asyncio closes its own, anyio does not close what it wraps.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")

Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """Like `asyncio.run`, in a thread that may hang: a loop that does not end is a failure, not the end of all tests."""

    def run_in_thread(main: Coroutine[Any, Any, Any]) -> Any:
        outcome: list[Any] = []

        def live() -> None:
            factory = None
            if request.param == "uvloop":
                import uvloop

                factory = uvloop.new_event_loop
            try:
                with asyncio.Runner(loop_factory=factory) as runner:
                    outcome.append(runner.run(main))
            except BaseException as exc:
                outcome.append(exc)

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        thread.join(HANGS)
        if thread.is_alive():
            pytest.fail("the event loop does not end")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return run_in_thread


@pytest.fixture
def collected() -> Iterator[None]:
    """Coroutines that never began are garbage now, and not in a test that would be warned of them."""
    yield
    gc.collect()


class Recorder(Application):
    """Writes down what happens to it. Where it is told to hold, it waits for the gate."""

    def __init__(
        self, name: str, diary: list[str], hold: str = "", gate: asyncio.Event | None = None
    ) -> None:
        super().__init__(name)
        self.diary = diary
        self.hold = hold
        self.gate = gate or asyncio.Event()

    async def _at(self, place: str) -> None:
        self.diary.append(f"{self.name} {place}")
        if place == self.hold:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)

    async def before_start(self) -> None:
        await self._at("start")
        self.diary.append(f"{self.name} started")

    async def on_ping(self, events: list[Ping]) -> None:
        await self._at("handle")

    @schedule(interval=1000)
    async def tick(self) -> None:
        await asyncio.sleep(0)

    @task
    async def live(self) -> None:
        await asyncio.sleep(1000)

    def on_sync(self, events: list[Ping]) -> None:
        pass

    async def exit(self) -> None:
        await self._at("exit")
        self.diary.append(f"{self.name} exited")


class SubRecorder(Recorder, SubApplication):
    pass


def recorded(diary: list[str], hold: str = "", gate: asyncio.Event | None = None) -> AppEngine:
    """Three applications, A with a child; the last one holds."""
    first = Recorder("A", diary)
    first.add_app(SubRecorder("A1", diary))
    engine = AppEngine([first, Recorder("B", diary, hold, gate)], queue_size=2, max_batch=1)

    @engine.exit
    async def last() -> None:
        diary.append("engine exit")
        await asyncio.sleep(0)
        diary.append("engine exited")

    return engine


async def passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def until(diary: list[str], entry: str) -> None:
    while entry not in diary:  # noqa: ASYNC110 - not a step later: what comes next depends on the pass of the loop
        await asyncio.sleep(0)


def check(engine: AppEngine, diary: list[str], exits: str = "exited") -> None:
    """*Design promises 4 and 7*: what started has exited, once and in reverse, and every delivery is accounted for.

    Where every task of the loop is cancelled, a hook at work is cut short: then what must hold is that it had its `exit`.
    """
    started = [entry.split()[0] for entry in diary if entry.endswith("started")]
    exited = [entry.split()[0] for entry in diary if entry.endswith(f" {exits}")]
    assert exited == [*reversed(started), "engine"]
    assert engine.state is EngineState.STOPPED
    report = engine.report
    assert report is not None
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned
    assert report.abandoned == sum(sum(counts.values()) for counts in report.abandoned_events.values())
    assert report.tasks_left == ()


def only_this_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


# -- the task of run() -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("between", [0, 1, 3])
@pytest.mark.parametrize("moment", ["start", "handle", "drain", "exit"])
def test_the_task_of_run_is_cancelled_and_everything_ends_in_order(
    run: Run[None], moment: str, times: int, between: int
) -> None:
    async def main() -> None:
        diary: list[str] = []
        gate = asyncio.Event()
        engine = recorded(diary, "handle" if moment == "drain" else moment, gate)
        await engine.pub_events(Ping(number) for number in range(4))
        running = asyncio.create_task(engine.run())
        if moment == "drain":
            await until(diary, "B handle")
        if moment in ("drain", "exit"):
            await until(diary, "B started")
            await engine.wait_running()
            engine.stop()
        await until(diary, f"B {'handle' if moment == 'drain' else moment}")
        await passes(between)
        assert not running.done()
        for _ in range(times):
            running.cancel()
            await passes(between)
        if moment == "exit":  # what is in a hook is not cut short
            await passes(5)
            assert not running.done()
            assert "B exited" not in diary
        if moment == "exit":
            gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert running.cancelled()
        check(engine, diary)
        assert only_this_task()

    run(main())


@pytest.mark.parametrize("steps", range(45))
@pytest.mark.parametrize("times", [1, 4])
def test_the_task_of_run_is_cancelled_at_any_step(run: Run[None], steps: int, times: int) -> None:
    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary)
        await engine.pub_events(Ping(number) for number in range(4))
        running = asyncio.create_task(engine.run())
        await passes(steps // 3)
        if steps % 3:
            engine.stop()
        await passes(steps // 3)
        for _ in range(times):
            running.cancel()
            await passes(steps % 4)
        with suppress(asyncio.CancelledError):  # it may have ended before
            await running
        assert running.done()
        if engine.report is None:
            assert steps < 3
            assert diary == []  # cancelled before its first step, it has never begun
            assert engine.state is EngineState.NEW
        else:
            check(engine, diary)
        assert only_this_task()

    run(main())


# Regression: the supervisor that replaces one cancelled before its first step may itself be cancelled before that.
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("gap", [0, 1, 2])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_every_task_of_the_loop_is_cancelled_at_any_step(run: Run[None], times: int, gap: int) -> None:
    """As `asyncio.run` does when its main coroutine returns, but several times and with passes of the loop in between."""

    async def cancel_all(steps: int) -> None:
        diary: list[str] = []
        engine = recorded(diary)
        await engine.pub_events(Ping(number) for number in range(4))
        running = asyncio.create_task(engine.run())
        await passes(steps)
        for _ in range(times):
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await passes(gap)
        with pytest.raises(asyncio.CancelledError):
            await running
        if engine.report is None:
            assert (steps, diary) == (0, [])
        else:
            check(engine, diary, "exit")
        assert only_this_task()

    async def main() -> None:
        for steps in range(25):
            await cancel_all(steps)

    run(main())


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("steps", range(30))
def test_the_main_coroutine_returns_while_the_engine_runs(run: Run[Any], steps: int) -> None:
    """Then `asyncio.run` cancels every task, and waits for those alone."""
    diary: list[str] = []

    async def main() -> tuple[AppEngine, asyncio.Task[Any]]:
        engine = recorded(diary)
        await engine.pub_events(Ping(number) for number in range(4))
        running = asyncio.create_task(engine.run())
        await passes(steps)
        return engine, running

    engine, running = run(main())
    assert running.cancelled()
    if steps:
        check(engine, diary, "exit")


@pytest.mark.parametrize("kind", ["timeout", "wait_for", "timeout in a timeout"])
@pytest.mark.parametrize("moment", ["start", "handle"])
def test_a_timeout_of_asyncio_around_run_is_a_timeout_error(run: Run[None], kind: str, moment: str) -> None:
    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary, moment)
        await engine.pub_event(Ping(1))
        current = asyncio.current_task()
        assert current is not None

        async def expire(timeout: asyncio.Timeout) -> None:
            await until(diary, f"B {moment}")
            timeout.reschedule(asyncio.get_running_loop().time())

        async def run_with_timeout() -> None:
            if kind == "wait_for":
                await asyncio.wait_for(engine.run(), 0.02)
                return
            async with asyncio.timeout(1000 if kind == "timeout in a timeout" else None):
                async with asyncio.timeout(None) as timeout:
                    expiring.append(asyncio.create_task(expire(timeout)))
                    await engine.run()

        expiring: list[asyncio.Task[None]] = []
        with pytest.raises(TimeoutError):
            await run_with_timeout()
        assert current.cancelling() == 0
        for each in expiring:
            await each
        check(engine, diary)
        assert only_this_task()
        await asyncio.sleep(0)  # no cancellation is left over

    run(main())


def test_a_crash_beside_the_engine_in_asyncios_task_group_ends_it_in_order(run: Run[None]) -> None:
    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary, "handle")
        await engine.pub_event(Ping(1))

        async def crash() -> None:
            await until(diary, "B handle")
            raise ValueError("beside")

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group raises
            async with asyncio.TaskGroup() as group:
                group.create_task(engine.run())
                group.create_task(crash())
        assert [repr(error) for error in caught.value.exceptions] == ["ValueError('beside')"]
        check(engine, diary)
        assert only_this_task()

    run(main())


def test_what_an_exit_hook_raises_wins_over_the_cancellation(run: Run[None]) -> None:
    """Decided: an error is never lost."""

    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary, "handle")
        await engine.pub_event(Ping(1))

        @engine.exit
        async def fails() -> None:
            raise OSError("disk full")

        running = asyncio.create_task(engine.run())
        await until(diary, "B handle")
        running.cancel()
        with pytest.raises(OSError, match="disk full"):
            await running
        check(engine, diary)

    run(main())


def test_a_hook_that_hangs_is_cut_although_run_is_cancelled_again_and_again(run: Run[None]) -> None:
    async def main() -> None:
        begun: list[str] = []
        engine = AppEngine(exit_timeout=0.05)

        @engine.exit
        async def last() -> None:
            begun.append("last")  # in its first step, so that it cannot be late

        @engine.exit
        async def hangs() -> None:
            begun.append("hangs")
            await asyncio.sleep(1000)

        running = asyncio.create_task(engine.run())
        await engine.wait_running()
        while not running.done():
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(ExitTimeout):
            await running
        assert begun == ["hangs", "last"]
        assert only_this_task()

    run(main())


@pytest.mark.parametrize("times", [1, 5])
def test_the_body_of_async_with_is_cancelled(run: Run[None], times: int) -> None:
    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary, "handle")
        await engine.pub_events(Ping(number) for number in range(3))

        async def embed() -> None:
            async with engine:
                await asyncio.sleep(1000)

        embedding = asyncio.create_task(embed())
        await until(diary, "B handle")
        for _ in range(times):
            embedding.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await embedding
        check(engine, diary)
        assert only_this_task()

    run(main())


@pytest.mark.parametrize("steps", range(25))
def test_entering_async_with_is_cancelled_at_any_step(run: Run[None], steps: int) -> None:
    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary)

        async def embed() -> None:
            async with engine:
                await asyncio.sleep(1000)

        embedding = asyncio.create_task(embed())
        await passes(steps)
        for _ in range(1 + steps % 3):
            embedding.cancel()
            await passes(steps % 2)
        with pytest.raises(asyncio.CancelledError):
            await embedding
        if engine.report is None:
            assert steps < 2
            assert diary == []
        else:
            check(engine, diary)
        assert only_this_task()

    run(main())


def test_asyncios_timeout_inside_of_async_with_leaves_the_engine_alone(run: Run[None]) -> None:
    async def main() -> None:
        async with AppEngine() as engine:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(1000)
            assert engine.state is EngineState.RUNNING
        assert only_this_task()

    run(main())


def test_a_publish_that_waits_is_cancelled_and_has_delivered_nothing(run: Run[None]) -> None:
    """*Design promise 5*, and the place goes to the next who waits."""

    async def main() -> None:
        diary: list[str] = []
        gate = asyncio.Event()
        got: list[int] = []

        class Slow(Application):
            async def on_ping(self, events: list[Ping]) -> None:
                await gate.wait()
                got.extend(event.data for event in events)

        async with AppEngine([Slow()], queue_size=1, max_batch=1) as engine:
            waiting = [asyncio.create_task(engine.pub_event(Ping(number))) for number in range(6)]
            await passes(5)
            waiting[3].cancel()
            gate.set()
            # Cancelled in the very pass in which it may have been granted its place.
            await asyncio.sleep(0)
            waiting[4].cancel()
            await asyncio.wait(waiting)
        accepted = [number for number, each in enumerate(waiting) if not each.cancelled()]
        assert got == accepted
        assert 3 not in got
        assert diary == []

    run(main())


# -- the task of a handler, schedule, task or hook -------------------------------------------------------------------


async def await_a_cancelled_future() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancel_oneself_and_wait() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(0)


async def cancel_oneself_and_return() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()


async def cancel_oneself_and_fail() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    raise ValueError("and failed")


async def cancel_oneself_twice_and_fail() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    current.cancel()
    raise ValueError("and failed")


async def raise_cancelled() -> None:
    raise asyncio.CancelledError


async def raise_cancelled_in_a_group() -> None:
    raise BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError("and failed")])


DOINGS = [
    await_a_cancelled_future,
    raise_cancelled,
    raise_cancelled_in_a_group,
    cancel_oneself_and_wait,
    cancel_oneself_and_fail,
    cancel_oneself_twice_and_fail,
    cancel_oneself_and_return,
]


class Survivor(Application):
    """Cancels something in one place; everything else must go on."""

    def __init__(self, place: str, doing: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.place = place
        self.doing = doing
        self.done = 0
        self.handled: list[int] = []
        self.failures: list[ExceptionEvent] = []
        self.lives = False
        self.ticked = asyncio.Event()

    async def _do(self, place: str) -> None:
        if place == self.place and not self.done:
            self.done = 1
            await self.doing()

    async def before_start(self) -> None:
        await self._do("before_start")

    async def on_pong(self, events: list[Pong]) -> None:
        await self._do("handler")

    async def on_ping(self, events: list[Ping]) -> None:
        self.handled += [event.data for event in events]

    async def on_failure(self, events: list[ExceptionEvent]) -> None:
        self.failures += events

    @schedule(interval=0.01)
    async def tick(self) -> None:
        self.ticked.set()
        await self._do("schedule")

    @task
    async def work(self) -> None:
        await self._do("task")

    @task
    async def live(self) -> None:
        self.lives = True
        try:
            await asyncio.sleep(1000)
        finally:
            self.lives = False

    async def exit(self) -> None:
        self.exited = self.lives, True
        await self._do("exit")


@pytest.mark.parametrize("place", ["key", "predicate", "filter", "middleware"])
def test_what_stands_around_a_handler_raises_a_cancellation_that_nobody_asked_for(
    run: Run[None], place: str
) -> None:
    """It is a failure of the handler like any other; let through, it would end the engine without any error."""

    def cancel(what: object) -> Any:
        raise asyncio.CancelledError

    def accept(event: Event[Any]) -> Event[Any]:
        return cancel(event) if isinstance(event, ExceptionEvent) else event

    async def around(batch: Batch[Any], call_next: Any) -> None:
        cancel(batch) if isinstance(batch.events[0], Ping) else await call_next(batch)

    async def main() -> None:
        engine = AppEngine()
        handled: list[int] = []
        failures: list[ExceptionEvent] = []

        async def fail(events: list[Ping]) -> None:
            if place in ("predicate", "filter"):
                raise ValueError

        async def handle(events: list[Pong]) -> None:
            handled.extend(event.data for event in events)

        async def on_failure(events: list[ExceptionEvent]) -> None:
            failures.extend(events)

        options: dict[str, Any] = {"key": {"key": cancel}, "predicate": {"retry": Retry(on=cancel)}}
        engine.register_handler(Ping, fail, **options.get(place, {}))
        engine.register_handler(Pong, handle)
        engine.register_handler(ExceptionEvent, on_failure)
        if place == "filter":
            engine.add_filter(accept)
        if place == "middleware":
            engine.add_middleware(around)
        async with engine:
            for number in range(2):
                await engine.pub_event(Ping(number))
                await engine.pub_event(Pong(number))
                await engine.wait_idle()
            assert engine.state is EngineState.RUNNING
        assert handled == [0, 1]
        assert engine.report is not None
        assert engine.report.failed == 2
        # The filter has dropped these events themselves.
        assert len(failures) == (0 if place == "filter" else 2)
        assert {type(failure.data) for failure in failures} <= {UnexpectedCancellation}

    run(main())


# Regression: the engine ended while the worker was getting rid of a cancellation, and its batch was counted nowhere.
@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize("later", range(4))
def test_the_engine_ends_while_a_handler_cancels_its_own_task(
    run: Run[None], doing: Callable[[], Awaitable[None]], later: int
) -> None:
    """*Design promise 7*: every delivery is accounted for."""

    class Doomed(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            await doing()

        async def on_pong(self, events: list[Pong]) -> None:
            await passes(later)
            raise SystemExit(3)

    async def main() -> None:
        engine = AppEngine([Doomed()])
        await engine.pub_events([Ping(1), Ping(2), Pong(3)])
        with pytest.raises(SystemExit):
            await engine.run()
        report = engine.report
        assert report is not None
        assert report.accepted == 3
        assert report.handled + report.failed + report.abandoned == 3
        assert sum(counts.get("Ping", 0) for counts in report.abandoned_events.values()) in (0, 2)
        assert only_this_task()

    run(main())


# Regression: in the very pass in which its lane was closed, run() raised UnexpectedCancellation, or the failure was lost.
@pytest.mark.parametrize("doing", [cancel_oneself_and_fail, cancel_oneself_and_return])
@pytest.mark.parametrize("steps", range(12))
def test_a_handler_cancels_its_own_task_in_any_moment_of_the_end(
    run: Run[None], doing: Callable[[], Awaitable[None]], steps: int, logs: list[Any]
) -> None:
    """*Design D10*: cancellation from outside is raised again; D7: a failure is logged and counted."""
    failed: list[ValueError] = []

    class Doomed(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            await passes(3)
            try:
                await doing()
            except ValueError as exc:
                failed.append(exc)
                raise

    async def main() -> None:
        engine = AppEngine([Doomed()])
        task = asyncio.create_task(engine.run())
        await engine.wait_running()
        await engine.pub_event(Ping(1))
        await passes(steps)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        report = engine.report
        assert report is not None
        assert (report.accepted, report.failed) == (1, len(failed))
        assert [record.exception for record in logs if record.exception is not None] == failed
        assert only_this_task()

    run(main())


# Regression: the supervisor took the cancellation that came after the hook had returned for the hook's own end.
@pytest.mark.parametrize("steps", range(10))
def test_a_start_hook_that_returned_has_its_exit_hook_whatever_comes_then(run: Run[None], steps: int) -> None:
    """*Design promise 7*."""
    diary: list[str] = []

    class Starts(Application):
        async def before_start(self) -> None:
            await passes(1)
            await cancel_oneself_and_return()
            diary.append("started")

        async def exit(self) -> None:
            diary.append("exit")

    async def main() -> None:
        task = asyncio.create_task(AppEngine([Starts()]).run())
        await passes(steps)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert diary in ([], ["started", "exit"])

    run(main())


# Regression: it was waited for without end.
@pytest.mark.parametrize("hook", ["App.before_start", "App", "App.exit"])
def test_a_hook_whose_task_is_cancelled_before_its_first_step_is_called_all_the_same(
    run: Run[None], hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is the task that holds the group of an application open."""
    monkeypatch.setattr("event_flow.core.endurance.FIRST_STEP_TIMEOUT", 0.01)
    diary: list[str] = []

    class App(Application):
        async def before_start(self) -> None:
            diary.append("App.before_start")

        async def exit(self) -> None:
            diary.append("App.exit")

    def cancel_it() -> None:
        victim = next((each for each in asyncio.all_tasks() if each.get_name() == hook), None)
        if victim is None:
            asyncio.get_running_loop().call_soon(cancel_it)
        else:
            victim.cancel()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(cancel_it)
        async with AppEngine([App()]):
            await passes(3)
        assert diary == ["App.before_start", "App.exit"]

    run(main())


def test_a_task_left_in_a_loop_that_was_closed_does_not_disturb_the_next_run() -> None:
    """It waited for the engine, and nobody cancelled it."""
    engine = AppEngine()

    async def wait_in_vain() -> asyncio.Task[Any]:
        task = asyncio.create_task(engine.wait_stopped())
        await passes(3)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(wait_in_vain())
    loop.close()

    # Not in a thread: one that asks for the end is left if it has not returned by then.
    async def stop() -> None:
        engine.stop()

    engine.before_start(stop)
    assert engine.start().is_clean
    task.get_coro().close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


# Regression: where the schedule, task or hook goes on or returns with the cancellation still pending, the whole application
# (or engine) is silently cancelled, and the end of it hangs.
@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize("place", ["handler", "schedule", "task"])
def test_what_cancels_its_own_task_is_a_failure_like_any_other(
    run: Run[None], place: str, doing: Callable[[], Awaitable[None]]
) -> None:
    """Design D7: the bus, the other handlers, the schedule and the tasks go on."""

    async def main() -> None:
        app = Survivor(place, doing)
        async with AppEngine([app]) as engine:
            await engine.pub_event(Pong(1))
            await passes(40)
            assert app.done
            app.ticked.clear()
            for number in range(3):
                await engine.pub_event(Ping(number))
                await engine.pub_event(Pong(number))
                await engine.wait_idle()
            await app.ticked.wait()
            assert app.lives
            assert engine.state is EngineState.RUNNING
        assert app.handled == [0, 1, 2]
        assert len(app.failures) == (0 if doing is cancel_oneself_and_return else 1)
        kind = ValueError if "fail" in doing.__name__ else UnexpectedCancellation
        for failure in app.failures:
            assert isinstance(failure.data, kind | ExceptionGroup)
        report = engine.report
        assert report is not None
        assert report.is_clean
        assert report.failed == (1 if place == "handler" and app.failures else 0)
        assert only_this_task()

    run(main())


# Regression: as above.
@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize("place", ["before_start", "exit"])
def test_a_hook_that_cancels_its_own_task_has_failed_and_nothing_else(
    run: Run[None], place: str, doing: Callable[[], Awaitable[None]]
) -> None:
    async def main() -> None:
        app = Survivor(place, doing)
        ended: list[str] = []
        engine = AppEngine([app])

        @engine.exit
        async def last() -> None:
            ended.append("last")
            await asyncio.sleep(0)
            ended.append("really")

        raised: list[Exception] = []
        try:
            async with engine:
                await engine.pub_event(Ping(7))
                await engine.wait_idle()
        except Exception as exc:
            raised.append(exc)
        kind = ValueError if "fail" in doing.__name__ else UnexpectedCancellation
        if doing is cancel_oneself_and_return:
            assert raised == []
        else:
            assert isinstance(raised[0], kind | ExceptionGroup)
        assert ended == ["last", "really"]
        assert app.handled == ([7] if place == "exit" or not raised else [])
        assert only_this_task()

    run(main())


def test_a_handler_that_cancels_itself_fails_with_everything_full(run: Run[None]) -> None:
    """The `ExceptionEvent` waits for room, in a task whose cancellation may still be pending."""

    async def main() -> None:
        gate = asyncio.Event()
        handled: list[int] = []
        failures: list[BaseException] = []

        class Cancels(Application):
            async def on_pong(self, events: list[Pong]) -> None:
                await cancel_oneself_and_fail()

            async def on_failure(self, events: list[ExceptionEvent]) -> None:
                await gate.wait()
                failures.extend(event.data for event in events)

            async def on_ping(self, events: list[Ping]) -> None:
                handled.append(len(events))

        async with AppEngine([Cancels()], queue_size=1, max_batch=1) as engine:
            for number in range(5):
                await engine.pub_event(Pong(number))
                await passes(10)
                if number == 3:
                    gate.set()
            await engine.pub_event(Ping(1))
        assert [str(failure) for failure in failures] == ["and failed"] * 5
        assert handled == [1]
        assert engine.report is not None
        assert (engine.report.failed, engine.report.abandoned) == (5, 0)

    run(main())


def test_a_failing_asyncio_task_group_inside_a_handler_is_contained(run: Run[None]) -> None:
    """`asyncio.TaskGroup` and `asyncio.timeout` cancel the handler's task and take it back."""

    async def main() -> None:
        failures: list[BaseException] = []

        class Groups(Application):
            async def on_ping(self, events: list[Ping]) -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.crash())
                    await asyncio.sleep(1000)

            async def on_pong(self, events: list[Pong]) -> None:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(1000)

            async def crash(self) -> None:
                raise OSError("child")

            async def on_failure(self, events: list[ExceptionEvent]) -> None:
                failures.extend(event.data for event in events)

        async with AppEngine([Groups()]) as engine:
            for _ in range(3):
                await engine.pub_event(Ping(1))
                await engine.pub_event(Pong(1))
                await engine.wait_idle()
        assert [type(error) for error in failures].count(TimeoutError) == 3
        assert [type(error) for error in failures].count(ExceptionGroup) == 3
        assert engine.report is not None
        assert (engine.report.failed, engine.report.is_clean) == (6, True)

    run(main())


def test_a_strict_engine_ends_with_a_cancellation_nobody_asked_for(run: Run[None]) -> None:
    async def main() -> None:
        app = Survivor("handler", await_a_cancelled_future)
        engine = AppEngine([app], on_error="raise")
        await engine.pub_event(Pong(1))
        with pytest.raises(UnexpectedCancellation, match=r"Survivor\.on_pong"):
            await engine.run()
        assert app.exited == (False, True)
        assert only_this_task()

    run(main())


def test_a_task_cancelled_by_somebody_else_has_failed_and_nothing_else(run: Run[None]) -> None:
    async def main() -> None:
        app = Survivor("", checkpoint)
        async with AppEngine([app]) as engine:
            await passes(20)
            (victim,) = (each for each in asyncio.all_tasks() if each.get_name() == "Survivor.live")
            victim.cancel()
            await passes(20)
            await engine.pub_event(Ping(1))
        assert [type(failure.data) for failure in app.failures] == [UnexpectedCancellation]
        assert app.handled == [1]
        assert only_this_task()

    run(main())


# Regression: the host of an application ends without any error, and its handlers with it; publishers wait for ever.
@pytest.mark.parametrize("name", ["A", "A1", "B", "A.on_ping", "A1.tick", "event-flow supervisor"])
def test_any_one_task_of_the_engine_is_cancelled_and_it_still_ends_in_order(
    run: Run[None], name: str
) -> None:
    """The host of an application, a worker that waits, the supervisor itself."""

    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary)
        running = asyncio.create_task(engine.run())
        await engine.wait_running()
        await passes(20)
        victims = [each for each in asyncio.all_tasks() if each.get_name() == name]
        assert len(victims) == 1
        victims[0].cancel()
        await passes(20)
        publishing = [asyncio.create_task(engine.pub_event(Ping(number))) for number in range(10)]
        await passes(20)
        engine.stop()
        with suppress(UnexpectedCancellation, asyncio.CancelledError):
            await running
        # Nobody is left waiting.
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {type(None), EngineClosed}
        check(engine, diary)
        assert only_this_task()

    run(main())


def test_a_handler_that_swallows_cancellation_holds_no_hook(run: Run[None]) -> None:
    """Design D10, step 3. It cannot be abandoned, so `run()` waits for it; it is named, and hooks run on time."""

    async def main() -> None:
        diary: list[str] = []
        free = asyncio.Event()

        class Stubborn(Recorder):
            async def on_ping(self, events: list[Ping]) -> None:
                self.diary.append("S handles")
                while not free.is_set():
                    with suppress(asyncio.CancelledError):
                        await free.wait()
                self.diary.append("gives up")

            async def exit(self) -> None:
                self.diary.append("S exited")  # in its first step, so that it cannot be late

        engine = AppEngine([Stubborn("S", diary)], exit_timeout=0.02)
        await engine.pub_event(Ping(1))
        running = asyncio.create_task(engine.run())
        await until(diary, "S handles")
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0)
        await until(diary, "S exited")
        await passes(10)
        assert not running.done()
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert diary[-1] == "gives up"
        assert engine.report is not None
        assert engine.report.tasks_left == ("S.on_ping",)
        assert only_this_task()

    run(main())


def test_nothing_of_a_cancelled_run_is_kept_alive(run: Run[None]) -> None:
    """No frame, task or exception refers to the events of a run that has ended."""

    async def main() -> None:
        alive: set[int] = set()

        class Counted(Event[int]):
            def __init__(self, data: int) -> None:
                super().__init__(data)
                alive.add(data)

            def __del__(self) -> None:
                alive.discard(self.data)

        class Stuck(Application):
            async def on_counted(self, events: list[Counted]) -> None:
                await asyncio.sleep(1000)

        engine = AppEngine([Stuck()], max_batch=2)
        running = asyncio.create_task(engine.run())
        await engine.wait_running()
        for number in range(5):
            await engine.pub_event(Counted(number))
        await passes(5)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert running.cancelled()
        del running
        gc.collect()
        assert alive == set()

    run(main())


def test_asyncios_queue_and_scopes_of_anyio_mix(run: Run[None]) -> None:
    """A scope of anyio around `run()`, cancelled together with a native cancellation of the same task."""

    async def outcome(wait: Callable[[], Awaitable[object]], has_begun: Callable[[], bool]) -> str:
        scopes: list[anyio.CancelScope] = []

        async def embed() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await wait()
            await asyncio.sleep(0)

        embedding = asyncio.create_task(embed())
        while not (scopes and has_begun()):  # noqa: ASYNC110 - not a step later: both are to come in one pass of the loop
            await asyncio.sleep(0)
        scopes[0].cancel()
        embedding.cancel()
        await asyncio.wait([embedding])
        return "cancelled" if embedding.cancelled() else "returned"

    async def main() -> None:
        diary: list[str] = []
        engine = recorded(diary, "handle")
        await engine.pub_event(Ping(1))
        # Older versions of anyio take the native one for their own; the engine makes no difference.
        usual = await outcome(anyio.sleep_forever, lambda: True)
        assert await outcome(engine.run, lambda: "B handle" in diary) == usual
        check(engine, diary)
        assert only_this_task()

    run(main())

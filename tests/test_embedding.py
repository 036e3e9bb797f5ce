"""Inside somebody else's task group: who ends whom, and with which error."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.lowlevel import checkpoint
from backends import EXTRAS, is_installed

from event_flow import (
    AppEngine,
    Application,
    BackendNotInstalled,
    EngineClosed,
    EngineState,
    EngineStateError,
    Event,
    ExitTimeout,
    OptionError,
    WrongThreadError,
    task,
)

# Seconds for what happens at once on any machine; over only when it does not happen at all.
SOON = 5.0


class Ping(Event[int]):
    pass


class Recorder(Application):
    """Writes down what happens to it; its exit hook needs a few passes of the loop, in which it could be cut short."""

    def __init__(self, diary: list[str], on_ping: Callable[[], Awaitable[object]] = checkpoint) -> None:
        super().__init__()
        self.diary = diary
        self.react = on_ping

    async def before_start(self) -> None:
        self.diary.append("starts")

    async def on_ping(self, events: list[Ping]) -> None:
        self.diary.append("handles")
        await self.react()
        self.diary.append("handled")

    @task
    async def live(self) -> None:
        await anyio.sleep_forever()

    async def exit(self) -> None:
        self.diary.append("exits")
        for _ in range(5):
            await checkpoint()
        self.diary.append("exited")


async def fail(error: BaseException) -> None:
    raise error


def flat(exc: BaseException | None) -> list[BaseException]:
    """The errors in a group, to any depth."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in flat(each)]
    return [exc] if exc is not None else []


async def outcome(function: Callable[[], Awaitable[object]]) -> BaseException | None:
    """What it raises."""
    try:
        await function()
    except (Exception, SystemExit, KeyboardInterrupt, BaseExceptionGroup) as exc:
        return exc
    return None


# -- task groups -----------------------------------------------------------------------------------------------------


async def test_start_of_a_task_group_returns_the_engine_when_it_runs() -> None:
    """Design D12."""
    diary: list[str] = []
    engine = AppEngine([Recorder(diary)])
    async with anyio.create_task_group() as group:
        started: AppEngine = await group.start(engine.run)
        assert started is engine
        assert engine.state is EngineState.RUNNING
        await engine.pub_event(Ping(1))
        engine.stop()
    assert diary == ["starts", "handles", "handled", "exits", "exited"]


async def test_a_start_that_fails_leaves_start_of_the_task_group_as_itself() -> None:
    error = OSError("no database")
    engine = AppEngine()
    engine.before_start(lambda: (_ for _ in ()).throw(error))
    async with anyio.create_task_group() as group:
        with pytest.raises(OSError, match="no database") as caught:
            await group.start(engine.run)
        assert caught.value is error
    assert engine.state is EngineState.STOPPED


async def test_an_engine_stopped_while_it_starts_was_started_all_the_same() -> None:
    """`start()` of the group must not end with `RuntimeError`: nobody did anything wrong."""
    engine = AppEngine()

    @engine.before_start
    async def stop() -> None:
        engine.stop()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        assert await group.start(engine.run) is engine
    assert engine.state is EngineState.STOPPED


async def test_a_cancelled_group_waits_for_the_exit_hooks() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder(diary, anyio.sleep_forever)])
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        await engine.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert diary == ["starts", "handles", "exits", "exited"]


async def test_an_error_of_a_sibling_ends_the_engine_in_order_and_leaves_the_group() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder(diary, anyio.sleep_forever)])
    error = ValueError("sibling")
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group raises
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            await engine.pub_event(Ping(1))
            await anyio.wait_all_tasks_blocked()
            group.start_soon(fail, error)
    assert list(caught.value.exceptions) == [error]
    assert diary == ["starts", "handles", "exits", "exited"]


async def test_an_error_of_the_engine_ends_its_siblings() -> None:
    diary: list[str] = []
    error = ValueError("handler")
    engine = AppEngine([Recorder(diary, lambda: fail(error))], on_error="raise")
    ended: list[str] = []

    async def sibling() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("sibling")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group raises
        async with anyio.create_task_group() as group:
            group.start_soon(sibling)
            await group.start(engine.run)
            await engine.pub_event(Ping(1))
    assert list(caught.value.exceptions) == [error]
    assert ended == ["sibling"]
    assert diary == ["starts", "handles", "exits", "exited"]


async def test_a_deadline_around_run_bounds_the_handlers_and_not_the_hooks() -> None:
    diary: list[str] = []

    async def expire() -> None:
        scope.deadline = anyio.current_time()
        await anyio.sleep_forever()

    engine = AppEngine([Recorder(diary, expire)])
    await engine.pub_event(Ping(1))
    with anyio.move_on_after(1000) as scope:
        await engine.run()
    assert scope.cancelled_caught
    assert diary == ["starts", "handles", "exits", "exited"]


async def test_a_scope_cancelled_before_run_lets_nothing_start_that_does_not_exit() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder(diary)])

    @engine.exit
    async def last() -> None:
        diary.append("last")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await engine.run()
    assert scope.cancelled_caught
    assert diary in (["last"], ["starts", "exits", "exited", "last"], ["starts", "last"])
    assert engine.state is EngineState.STOPPED


async def test_shielded_from_cancellation_run_goes_on() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder(diary)])

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await engine.run()

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)
        await engine.wait_running()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            assert engine.state is EngineState.RUNNING
            await engine.pub_event(Ping(1))
        engine.stop()
    assert diary == ["starts", "handles", "handled", "exits", "exited"]


@pytest.mark.needs("trio")
def test_a_trio_nursery_starts_and_cancels_it() -> None:
    """Trio's own nursery, so only Trio."""
    import trio.testing

    diary: list[str] = []
    engine = AppEngine([Recorder(diary, trio.sleep_forever)])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            assert await nursery.start(engine.run) is engine
            await engine.pub_event(Ping(1))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert diary == ["starts", "handles", "exits", "exited"]


@pytest.mark.needs("trio")
def test_a_trio_nursery_gets_the_errors_of_the_engine() -> None:
    """Trio's own nursery, so only Trio."""
    import trio

    error = ValueError("handler")
    diary: list[str] = []
    engine = AppEngine([Recorder(diary, lambda: fail(error))], on_error="raise")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await engine.pub_event(Ping(1))

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert list(caught.value.exceptions) == [error]
    assert diary == ["starts", "handles", "exits", "exited"]


def test_a_task_of_asyncio_returns_the_report() -> None:
    """asyncio's own tasks, so only asyncio."""
    diary: list[str] = []

    async def main() -> None:
        engine = AppEngine([Recorder(diary)])
        running = asyncio.create_task(engine.run())
        await engine.wait_running()
        await engine.pub_event(Ping(1))
        engine.stop()
        report = await running
        assert report is engine.report
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert diary == ["starts", "handles", "handled", "exits", "exited"]


# -- async with ------------------------------------------------------------------------------------------------------


async def test_stop_does_not_end_the_body() -> None:
    """Design D10."""
    diary: list[str] = []
    async with AppEngine([Recorder(diary)]) as engine:
        engine.stop()
        report = await engine.wait_stopped()
        assert report.is_clean
        await checkpoint()
        diary.append("body")
        with pytest.raises(EngineClosed):
            await engine.pub_event(Ping(1))
    assert diary == ["starts", "exits", "exited", "body"]


async def test_the_end_of_the_body_drains() -> None:
    diary: list[str] = []
    async with AppEngine([Recorder(diary)]) as engine:
        await engine.pub_event(Ping(1))
    assert diary == ["starts", "handles", "handled", "exits", "exited"]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_a_body_that_raises_ends_without_the_drain_and_raises_itself(kind: type[BaseException]) -> None:
    diary: list[str] = []
    error = kind("body")
    engine = AppEngine([Recorder(diary, anyio.sleep_forever)], grace_period=math.inf)

    async def body() -> None:
        async with engine:
            await engine.pub_event(Ping(1))
            await anyio.wait_all_tasks_blocked()
            raise error

    assert await outcome(body) is error
    assert diary == ["starts", "handles", "exits", "exited"]
    assert engine.report is not None
    assert engine.report.abandoned == 1


async def test_a_body_that_raises_a_group_raises_that_group() -> None:
    group = ExceptionGroup("body", [ValueError("a"), ExceptionGroup("inner", [OSError("b")])])
    engine = AppEngine()

    async def body() -> None:
        async with engine:
            raise group

    raised = await outcome(body)
    # Trio itself divides a group that passes a cancelled scope, and puts it together again.
    assert repr(raised) == repr(group)
    assert flat(raised) == flat(group)
    assert engine.state is EngineState.STOPPED


async def test_a_failure_of_the_engine_cancels_the_body_and_leaves_as_itself() -> None:
    diary: list[str] = []
    error = ValueError("handler")
    engine = AppEngine([Recorder(diary, lambda: fail(error))], on_error="raise")

    async def body() -> None:
        async with engine:
            await engine.pub_event(Ping(1))
            try:
                await anyio.sleep_forever()
            finally:
                diary.append("body cancelled")
        diary.append("never")

    assert await outcome(body) is error
    assert diary == ["starts", "handles", "exits", "exited", "body cancelled"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_process_leaves_async_with_and_the_loop_bare(
    anyio_backend: tuple[str, dict[str, Any]], kind: type[BaseException]
) -> None:
    """Design D7. On asyncio it leaves the loop at once, which then cancels the body."""
    diary: list[str] = []
    error = kind(3)

    async def main() -> None:
        async with AppEngine([Recorder(diary, lambda: fail(error))]) as engine:
            await engine.pub_event(Ping(1))
            try:
                await anyio.sleep_forever()
            finally:
                diary.append("body cancelled")

    name, options = anyio_backend
    with pytest.raises(kind) as caught:
        anyio.run(main, backend=name, backend_options=options)
    assert caught.value is error
    assert diary == ["starts", "handles", "exits", "exited", "body cancelled"]


async def test_the_body_and_an_exit_hook_fail_and_both_errors_leave_in_one_flat_group() -> None:
    body_error, hook_error, other = ValueError("body"), OSError("hook"), KeyError("other hook")
    engine = AppEngine()
    engine.exit(lambda: (_ for _ in ()).throw(other))
    engine.exit(lambda: (_ for _ in ()).throw(hook_error))

    async def body() -> None:
        async with engine:
            raise body_error

    raised = await outcome(body)
    assert isinstance(raised, ExceptionGroup)
    assert set(raised.exceptions) == {body_error, hook_error, other}


# Regression: a group that a hook raises stays a group inside the group.
async def test_what_exit_hooks_raise_is_one_flat_group_even_if_they_raise_groups() -> None:
    """Design D10: "several as one flat group"."""
    a, b, c = ValueError("a"), OSError("b"), KeyError("c")
    engine = AppEngine()
    engine.exit(lambda: (_ for _ in ()).throw(ExceptionGroup("hook", [a, b])))
    engine.exit(lambda: (_ for _ in ()).throw(c))

    async def body() -> None:
        engine.stop()
        await engine.run()

    @engine.before_start
    async def stop() -> None:
        engine.stop()

    raised = await outcome(body)
    assert isinstance(raised, ExceptionGroup)
    assert list(raised.exceptions) == [c, a, b]


# Regression: a group is divided and put together again, and what leaves is another object.
@pytest.mark.parametrize("where", ["before_start", "exit"])
async def test_a_group_that_a_hook_raises_leaves_as_it_is(where: str) -> None:
    """`run()` says: what a hook raised, as it is."""
    error = ExceptionGroup("hook", [ValueError("a"), OSError("b")])
    engine = AppEngine()

    @engine.before_start
    async def before() -> None:
        if where == "before_start":
            raise error
        engine.stop()

    @engine.exit
    async def last() -> None:
        if where == "exit":
            raise error

    assert await outcome(engine.run) is error


async def test_a_start_that_fails_never_enters_the_body() -> None:
    error = OSError("no database")
    engine = AppEngine()
    engine.before_start(lambda: (_ for _ in ()).throw(error))
    entered: list[int] = []

    async def body() -> None:
        async with engine:
            entered.append(1)

    assert await outcome(body) is error
    assert entered == []
    assert engine.state is EngineState.STOPPED


async def test_the_body_is_cancelled_from_outside() -> None:
    diary: list[str] = []
    engine = AppEngine([Recorder(diary, anyio.sleep_forever)])
    with anyio.CancelScope() as scope:
        async with engine:
            await engine.pub_event(Ping(1))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert diary == ["starts", "handles", "exits", "exited"]


# Regression: on Trio the error leaves `async with` in a group together with the cancellation, on asyncio as itself.
async def test_an_exit_hook_that_fails_while_cancelled_wins() -> None:
    """Decided: an error is never lost."""
    error = OSError("hook")
    engine = AppEngine()

    @engine.exit
    async def last() -> None:
        await checkpoint()
        raise error

    raised: list[BaseException | None] = []
    with anyio.CancelScope() as scope:
        raised.append(await outcome(lambda: cancelled_inside(engine, scope)))
    assert raised == [error]


async def cancelled_inside(engine: AppEngine, scope: anyio.CancelScope) -> None:
    async with engine:
        scope.cancel()
        await checkpoint()


async def test_the_body_is_cancelled_while_it_waits_for_the_drain() -> None:
    """The end of `async with` is a wait like any other: then the grace period is cut."""
    diary: list[str] = []
    engine = AppEngine([Recorder(diary, anyio.sleep_forever)], grace_period=math.inf)

    async def embed() -> None:
        async with engine:
            await engine.pub_event(Ping(1))

    async with anyio.create_task_group() as group:
        group.start_soon(embed)
        await anyio.wait_all_tasks_blocked()
        assert engine.state is EngineState.DRAINING
        assert diary == ["starts", "handles"]
        group.cancel_scope.cancel()
    assert diary == ["starts", "handles", "exits", "exited"]


async def test_it_must_end_in_the_task_it_began_in() -> None:
    """Fixtures of pytest-asyncio do that: the error says so, and the engine has ended."""
    engine = AppEngine()
    errors: list[BaseException | None] = []

    async def leave() -> None:
        errors.append(await outcome(lambda: engine.__aexit__(None, None, None)))

    async def enter() -> None:
        with suppress(RuntimeError):  # its scopes are left open, which is not ours to mend
            await engine.__aenter__()
            async with anyio.create_task_group() as group:
                group.start_soon(leave)

    # In a loop of its own, which may end in disorder: the very thing the error is about.
    thread = threading.Thread(target=lambda: suppress_all(enter))
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert isinstance(errors[0], EngineStateError)
    assert "must end in the task it began in" in str(errors[0])
    assert engine.state is EngineState.STOPPED


def suppress_all(main: Callable[[], Awaitable[object]]) -> None:
    with suppress(BaseException):
        anyio.run(main)


# -- twice at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["run", "async with", "start of a group", "start"])
@pytest.mark.parametrize("when", ["starting", "running", "draining", "stopping"])
async def test_an_engine_that_runs_cannot_be_run_again_and_does_not_mind(again: str, when: str) -> None:
    diary: list[str] = []
    tried: list[BaseException | None] = []

    async def enter() -> None:
        async with engine:
            diary.append("entered twice")

    async def start_in_group() -> None:
        async with anyio.create_task_group() as group:
            await group.start(engine.run)

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "run": engine_run,
        "async with": enter,
        "start of a group": start_in_group,
        "start": lambda: anyio.to_thread.run_sync(engine.start),
    }

    async def try_again(now: str) -> None:
        if now == when:
            way = engine.run if again == "run" else ways[again]
            tried.append(await outcome(way))

    async def handle() -> None:
        engine.stop()
        await try_again("draining")

    engine = AppEngine([Recorder(diary, handle)])

    @engine.before_start
    async def before() -> None:
        await try_again("starting")

    @engine.exit
    async def last() -> None:
        await try_again("stopping")

    async with engine:
        await try_again("running")
        await engine.pub_event(Ping(1))
        await engine.wait_stopped()
    assert [type(leaf) for error in tried for leaf in flat(error)] == [EngineStateError]
    assert diary == ["starts", "handles", "handled", "exits", "exited"]
    assert engine.report is not None
    assert engine.report.is_clean


async def engine_run() -> None:
    raise AssertionError("replaced")


async def test_two_tasks_run_it_at_once_and_one_is_told() -> None:
    engine = AppEngine()
    results: list[BaseException | None] = []

    async def run() -> None:
        results.append(await outcome(engine.run))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        assert [type(result) for result in results] == [EngineStateError]
        engine.stop()
    assert results[1] is None


async def test_start_inside_a_loop_says_what_to_do() -> None:
    engine = AppEngine()
    with pytest.raises(EngineStateError, match=r"await engine\.run\(\)"):
        engine.start()
    assert engine.state is EngineState.NEW


# -- hooks and handlers that interfere -------------------------------------------------------------------------------


async def test_hooks_that_call_stop_change_nothing() -> None:
    diary: list[str] = []

    class Stops(Recorder):
        async def exit(self) -> None:
            self.engine.stop()
            await super().exit()
            self.engine.stop()

    engine = AppEngine([Stops(diary)])

    @engine.exit
    def last() -> None:
        engine.stop()
        diary.append("last")

    async with engine:
        await engine.pub_event(Ping(1))
    assert diary == ["starts", "handles", "handled", "exits", "exited", "last"]


@pytest.mark.virtual_clock
async def test_hooks_have_scopes_and_task_groups_of_their_own() -> None:
    diary: list[str] = []
    engine = AppEngine()

    @engine.exit
    async def last() -> None:
        diary.append("last")

    @engine.exit
    async def scopes() -> None:
        with anyio.move_on_after(3) as scope:
            await anyio.sleep_forever()
        diary.append(f"timed out {scope.cancelled_caught}")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await checkpoint()
            group.cancel_scope.cancel()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        await checkpoint()
        diary.append("went on")

    with anyio.CancelScope() as outer:
        async with engine:
            outer.cancel()
            await checkpoint()
    assert diary == ["timed out True", "went on", "last"]


async def test_a_hook_whose_task_group_fails_raises_what_failed() -> None:
    error = OSError("child")
    ended: list[str] = []
    engine = AppEngine()

    @engine.exit
    async def last() -> None:
        await checkpoint()
        ended.append("last")

    @engine.exit
    async def groups() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail, error)
            await anyio.sleep_forever()

    async def body() -> None:
        async with engine:
            pass

    raised = await outcome(body)
    assert flat(raised) == [error]
    assert ended == ["last"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_system_exit_in_a_group_inside_a_handler_is_taken_out(kind: type[BaseException]) -> None:
    diary: list[str] = []
    error = kind(3)

    async def deep() -> None:
        raise BaseExceptionGroup("outer", [ValueError(), BaseExceptionGroup("inner", [error, OSError()])])

    engine = AppEngine([Recorder(diary, deep)])
    await engine.pub_event(Ping(1))
    assert await outcome(engine.run) is error
    assert diary == ["starts", "handles", "exits", "exited"]


@pytest.mark.virtual_clock
async def test_a_hook_that_swallows_its_cancellation_is_named_and_the_next_runs() -> None:
    diary: list[str] = []
    free = anyio.Event()
    engine = AppEngine(exit_timeout=5)

    @engine.exit
    async def last() -> None:
        diary.append("last")
        free.set()

    @engine.exit
    async def stubborn() -> None:
        while not free.is_set():
            with anyio.CancelScope(shield=True):
                await free.wait()
        diary.append("gives up")

    async def body() -> None:
        async with engine:
            pass

    assert isinstance(await outcome(body), ExitTimeout)
    assert diary == ["last", "gives up"]
    assert engine.report is not None
    assert engine.report.tasks_left == ("exit hook stubborn",)


# Regression: what a hook raises that was left is neither raised nor logged.
@pytest.mark.virtual_clock
async def test_what_a_hook_raises_after_it_was_left_is_not_lost(logs: list[Any]) -> None:
    """Decided: an error is never lost."""
    error = OSError("late")
    free = anyio.Event()
    engine = AppEngine(exit_timeout=5)

    @engine.exit
    async def last() -> None:
        free.set()

    @engine.exit
    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await free.wait()
        raise error

    async def body() -> None:
        async with engine:
            pass

    raised = await outcome(body)
    assert error in flat(raised) or any(record.exception is error for record in logs)


async def test_publishes_of_hooks_are_outside() -> None:
    """Design D10: kept before the start, refused in the end."""
    got: list[int] = []
    engine = AppEngine()

    @engine.on_event(Ping)
    async def handle(events: list[Ping]) -> None:
        got.extend(event.data for event in events)

    @engine.before_start
    async def before() -> None:
        await engine.pub_event(Ping(1))

    @engine.exit
    async def last() -> None:
        with pytest.raises(EngineClosed):
            await engine.pub_event(Ping(2))
        with pytest.raises(EngineClosed):
            engine.pub_event_nowait(Ping(2))
        got.append(0)

    async with engine:
        pass
    assert got == [1, 0]


# -- threads ---------------------------------------------------------------------------------------------------------


# Regression: the bell is for one thread. A wait in another loop never ends, and what sets its event breaks the engine's loop.
@pytest.mark.parametrize("method", ["wait_running", "wait_idle", "wait_stopped"])
@pytest.mark.parametrize("when", ["before", "while it runs"])
async def test_waiting_in_the_loop_of_another_thread_ends_and_harms_nobody(
    anyio_backend: tuple[str, dict[str, Any]], method: str, when: str
) -> None:
    """It may work or raise `WrongThreadError`, as `pub_event` does. (In another loop it may see the run only when it is over.)"""
    ended: list[BaseException | None] = []
    name, options = anyio_backend
    gate = anyio.Event()
    waiting = threading.Event()

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait_here)
            await anyio.wait_all_tasks_blocked()
            waiting.set()

    async def wait_here() -> None:
        with anyio.fail_after(SOON):
            ended.append(await outcome(getattr(engine, method)))

    def other_loop() -> None:
        try:
            anyio.run(wait, backend=name, backend_options=options)
        except BaseException as exc:
            ended.append(exc)

    engine = AppEngine([Recorder([], gate.wait)])
    thread = threading.Thread(target=other_loop, daemon=True)
    if when == "before":
        thread.start()
        await anyio.to_thread.run_sync(waiting.wait)
    async with engine:
        await engine.pub_event(Ping(1))
        if when != "before":
            thread.start()
            await anyio.to_thread.run_sync(waiting.wait)
        gate.set()
    await anyio.to_thread.run_sync(thread.join, SOON)
    assert len(ended) == 1
    allowed = (WrongThreadError, EngineClosed) if method == "wait_running" else (WrongThreadError,)
    assert ended[0] is None or isinstance(ended[0], allowed)
    assert engine.report is not None
    assert engine.report.is_clean


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)], ids=repr)
def test_a_body_that_publishes_does_not_hide_what_the_engine_failed_with(
    anyio_backend: tuple[str, dict[str, Any]], error: BaseException
) -> None:
    """*Design D7*: its `EngineClosed` only follows from that."""
    engine = AppEngine(on_error="raise")

    @engine.on_event(Ping)
    async def handle(events: list[Ping]) -> None:
        raise error

    async def main() -> None:
        async with engine:
            while True:
                await engine.pub_event(Ping(1))

    backend, options = anyio_backend
    with pytest.raises(type(error)) as caught:
        anyio.run(main, backend=backend, backend_options=options)
    assert caught.value is error


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        (
            "uvloop",
            {},
            r"backend='uvloop': .*'asyncio' and 'trio'; uvloop is backend_options={'use_uvloop': True}",
        ),
        ("curio", {}, r"backend='curio'"),
        ("asyncio", {"uvloop": True}, r"backend_options={'uvloop': True}: .*debug, loop_factory, use_uvloop"),
    ],
)
def test_a_backend_or_option_there_is_not_is_refused_before_anything_runs(
    backend: str, options: dict[str, Any], message: str
) -> None:
    """anyio ignores options it does not know, and one would believe to run on uvloop."""
    engine = AppEngine()
    with pytest.raises(OptionError, match=message):
        engine.start(backend, options)
    assert engine.state is EngineState.NEW


@pytest.mark.parametrize(
    ("extra", "backend", "options"), [("trio", "trio", {}), ("uvloop", "asyncio", {"use_uvloop": True})]
)
def test_a_backend_that_is_not_installed_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, extra: str, backend: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuses(extra, backend, options)


def test_a_run_without_backends_has_none_of_them(pytestconfig: pytest.Config) -> None:
    """The same, but here they really are missing: all that `--without-backend` names."""
    without = pytestconfig.getoption("without_backend")
    assert [name for name in EXTRAS if not is_installed(name)] == sorted(without, key=EXTRAS.index)
    if "trio" in without:
        refuses("trio", "trio", {})
    if "uvloop" in without:
        refuses("uvloop", "asyncio", {"use_uvloop": True})


def refuses(extra: str, backend: str, options: dict[str, Any]) -> None:
    engine = AppEngine()
    with pytest.raises(
        BackendNotInstalled, match=rf"^{extra} is not installed: .*event-flow\[{extra}\]"
    ) as caught:
        engine.start(backend, options)
    assert caught.value.name == extra
    assert engine.state is EngineState.NEW


# -- the loop --------------------------------------------------------------------------------------------------------


def library() -> str:
    """Whose loop runs: asyncio, uvloop or trio."""
    return type(anyio.lowlevel.current_token().native_token).__module__.partition(".")[0]


def named(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    backend, options = anyio_backend
    return "uvloop" if options.get("use_uvloop") else backend


def test_start_runs_on_the_backend_it_is_told(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """*Design D12*: backend and options are `anyio.run`'s. Whatever else it ran on, a program could hardly tell."""
    ran_on: list[str] = []
    engine = AppEngine()

    @engine.before_start
    async def look() -> None:
        ran_on.append(library())
        engine.stop()

    engine.start(*anyio_backend)
    assert ran_on == [named(anyio_backend)]


async def test_tests_run_on_the_backend_in_their_name(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    assert library() == named(anyio_backend)

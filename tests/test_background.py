"""Background tasks: sync and async, ending, failing, and what the end of the engine does to them."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import anyio
import pytest
from waiting import SOON

from event_flow import AppEngine, Application, EngineClosed, EngineState, Event, ExceptionEvent, task
from event_flow.core.threads import Threads


class Ping(Event[int]):
    pass


class Done(Event[int]):
    pass


class Keeps(Application):
    """Keeps the numbers and failures it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] = []
        self.failures: list[ExceptionEvent] = []
        self.arrived = anyio.Event()

    async def on_ping(self, events: list[Ping]) -> None:
        self.got += [event.data for event in events]
        self.arrived.set()

    async def on_failure(self, events: list[ExceptionEvent]) -> None:
        self.failures += events
        self.arrived.set()


# -- ending ----------------------------------------------------------------------------------------------------------


async def test_a_task_that_returns_is_done_and_is_not_started_again() -> None:
    calls: list[str] = []
    threads: list[threading.Thread] = []

    class App(Keeps):
        @task
        async def once(self) -> None:
            calls.append("async")

        @task()
        def once_in_a_thread(self) -> None:
            calls.append("sync")
            threads.append(threading.current_thread())
            self.engine.pub_event_from_thread(Ping(1))

    app = App()
    async with AppEngine([app]) as engine:
        await app.arrived.wait()
        await anyio.to_thread.run_sync(threads[0].join)
        await anyio.wait_all_tasks_blocked()
        assert engine.state is EngineState.RUNNING
    assert sorted(calls) == ["async", "sync"]
    assert app.got == [1]
    assert engine.report is not None
    assert engine.report.is_clean


async def test_what_a_task_returns_is_nobody_s_business() -> None:
    class App(Keeps):
        @task
        async def returns(self) -> object:
            return object()

    async with AppEngine([App()], on_error="raise"):
        await anyio.wait_all_tasks_blocked()


async def test_an_async_task_is_cancelled_at_the_end_after_the_drain() -> None:
    diary: list[str] = []
    gate = anyio.Event()

    class App(Application):
        @task
        async def works(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                diary.append("task cancelled")

        async def on_ping(self, events: list[Ping]) -> None:
            await gate.wait()
            diary.append("handled")

        async def exit(self) -> None:
            diary.append("exit")

    async with AppEngine([App()]) as engine:
        await engine.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        assert diary == []
        gate.set()
    assert diary == ["handled", "task cancelled", "exit"]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_engine_closed_is_how_a_task_learns_to_end_and_no_failure(kind: str, logs: list[Any]) -> None:
    """Design D10, step 1."""
    told: list[str] = []
    gate, hold = anyio.Event(), anyio.Event()
    thread_gate = threading.Event()
    threads: list[threading.Thread] = []

    class Async(Keeps):
        @task
        async def produces(self) -> None:
            await self.engine.pub_event(Ping(1))
            await gate.wait()
            try:
                await self.engine.pub_event(Ping(2))
            except EngineClosed:
                told.append("async")
                raise

    class Sync(Keeps):
        @task
        def produces(self) -> None:
            threads.append(threading.current_thread())
            self.engine.pub_event_from_thread(Ping(1))
            thread_gate.wait()
            try:
                self.engine.pub_event_from_thread(Ping(2))
            except EngineClosed:
                told.append("sync")
                raise

    app = Async() if kind == "async" else Sync()
    engine = AppEngine([app], on_error="raise")

    @engine.on_event(Ping)
    async def keeps_the_drain_open(events: list[Ping]) -> None:
        await hold.wait()

    async with engine:
        await app.arrived.wait()
        engine.stop()
        gate.set()
        thread_gate.set()
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        await anyio.wait_all_tasks_blocked()
        hold.set()
    assert told == [kind]
    assert app.got == [1]
    assert engine.report is not None
    assert engine.report.is_clean
    assert not [record for record in logs if record.level == "ERROR"]


async def test_engine_closed_is_no_failure_either_after_the_end(logs: list[Any]) -> None:
    gate = threading.Event()
    threads: list[threading.Thread] = []

    class App(Keeps):
        @task
        def produces(self) -> None:
            threads.append(threading.current_thread())
            self.engine.pub_event_from_thread(Ping(1))
            gate.wait()
            self.engine.pub_event_from_thread(Ping(2))

    app = App()
    async with AppEngine([app]):
        await app.arrived.wait()
    gate.set()
    await anyio.to_thread.run_sync(threads[0].join)
    assert app.got == [1]
    assert not [record.message for record in logs if record.level == "ERROR" and record.exception]


async def test_engine_closed_while_its_own_engine_runs_is_a_failure_of_a_task() -> None:
    """It comes from another engine: nothing tells this task to end."""

    class App(Keeps):
        @task
        async def works(self) -> None:
            await other.pub_event(Ping(1))

    other = AppEngine()
    async with other:
        pass
    app = App()
    async with AppEngine([app]):
        with anyio.fail_after(SOON):
            await app.arrived.wait()
    assert [type(failure.data) for failure in app.failures] == [EngineClosed]


# -- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_failing_task_is_an_exception_event_and_its_application_goes_on(kind: str) -> None:
    error = ValueError("no more work")

    class Async(Keeps):
        @task
        async def works(self) -> None:
            raise error

    class Sync(Keeps):
        @task
        def works(self) -> None:
            raise error

    app = Async() if kind == "async" else Sync()
    async with AppEngine([app]) as engine:
        await app.arrived.wait()
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
        assert engine.state is EngineState.RUNNING
    (failure,) = app.failures
    assert failure.data is error
    assert failure.handler == f"{type(app).__name__}.works"
    assert (failure.events, failure.attempt) == ((), 1)
    assert "in works" in failure.traceback_str
    assert app.got == [1]


async def test_a_task_that_fails_leaves_the_other_tasks_alone() -> None:
    gate = anyio.Event()
    done: list[str] = []

    class App(Keeps):
        @task
        async def fails(self) -> None:
            raise OSError

        @task
        async def goes_on(self) -> None:
            await gate.wait()
            done.append("goes_on")

    app = App()
    async with AppEngine([app]):
        await app.arrived.wait()
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert done == ["goes_on"]


async def test_a_sync_task_that_returns_a_coroutine_fails_and_says_so() -> None:
    async def work() -> None:
        raise AssertionError("nobody may await this")

    class App(Keeps):
        @task
        def works(self) -> Any:
            return work()

    app = App()
    async with AppEngine([app]):
        await app.arrived.wait()
    assert "App.works is a sync function that returned coroutine" in str(app.failures[0].data)


# -- threads ---------------------------------------------------------------------------------------------------------


async def test_each_sync_task_has_a_thread_to_itself_beyond_max_threads() -> None:
    """Four have to meet: three tasks and a handler that takes the one place there is."""
    meeting = threading.Barrier(4)
    met: list[int] = []

    class App(Application):
        def meet(self) -> None:
            meeting.wait(30)
            met.append(threading.get_ident())
            self.engine.pub_event_from_thread(Done(len(met)))

        @task
        def first(self) -> None:
            self.meet()

        @task
        def second(self) -> None:
            self.meet()

        @task
        def third(self) -> None:
            self.meet()

        def on_ping(self, events: list[Ping]) -> None:
            self.meet()

        async def on_done(self, events: list[Done]) -> None:
            arrived.extend(events)
            if len(arrived) == 4:
                everybody.set()

    arrived: list[Done] = []
    everybody = anyio.Event()
    async with AppEngine([App()], max_threads=1) as engine:
        await engine.pub_event(Ping(1))
        await everybody.wait()
    assert len({threading.get_ident(), *met}) == 5


async def test_a_sync_task_that_never_ends_is_named_and_left() -> None:
    """Design D11."""
    gate = threading.Event()
    ended = threading.Event()

    class App(Keeps):
        @task
        def monitors(self) -> None:
            self.engine.pub_event_from_thread(Ping(1))
            gate.wait()
            ended.set()

    app = App()
    engine = AppEngine([app])
    async with engine:
        await app.arrived.wait()
    assert engine.report is not None
    assert engine.report.threads_left == ("App.monitors",)
    assert not engine.report.is_clean
    assert "threads left running: App.monitors" in str(engine.report)
    gate.set()
    assert ended.wait(30)


@pytest.mark.parametrize("own_thread", [False, True])
async def test_a_thread_that_was_left_ends_although_the_loop_hears_no_more_of_it(own_thread: bool) -> None:
    """Design promise 7."""
    gate = threading.Event()
    unheard: list[object] = []
    threads = Threads(1, unheard.append)
    before = set(threading.enumerate())
    async with anyio.create_task_group() as group:
        group.start_soon(partial(threads.run, "stuck", gate.wait, own_thread=own_thread))
        await anyio.wait_all_tasks_blocked()
        (worker,) = set(threading.enumerate()) - before
        group.cancel_scope.cancel()
    threads.close()
    gate.set()
    await anyio.to_thread.run_sync(worker.join, 5)
    assert not worker.is_alive()
    assert unheard

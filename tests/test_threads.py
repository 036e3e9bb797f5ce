"""Sync user code: in daemon threads of the engine's own, at most `max_threads` of them, and none holds up an end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from waiting import SOON, until
from weak import no_collector, publish_weakly, still_alive

from event_flow import (
    AppEngine,
    Application,
    EngineState,
    Event,
    ExceptionEvent,
    ExitTimeout,
    StartTimeout,
    schedule,
    task,
)
from event_flow.core.threads import Job


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Gate:
    """Holds threads; the loop sees how many have come, and lets them go on."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._come = threading.Semaphore(0)

    def pass_through(self) -> None:
        self._come.release()
        assert self._open.wait(SOON), "the gate was never opened"

    async def wait_for(self, number: int = 1) -> None:
        """Wait until so many threads more have come to the gate."""
        for _ in range(number):
            assert await anyio.to_thread.run_sync(self._come.acquire, True, SOON)

    def open(self) -> None:
        self._open.set()


@contextmanager
def gate() -> Iterator[Gate]:
    """Open at the end, so that a test that fails leaves no thread behind."""
    made = Gate()
    try:
        yield made
    finally:
        made.open()


async def wait_until_ended(prefix: str) -> None:
    """Wait until no thread has a name that begins so."""
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            await anyio.to_thread.run_sync(thread.join, SOON)


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("event-flow")]


# -- where sync code runs --------------------------------------------------------------------------------------------


async def test_sync_code_runs_in_daemon_threads_named_for_it() -> None:
    """Design D11."""
    seen: dict[str, threading.Thread] = {}
    names: dict[str, str] = {}

    def note(place: str) -> None:
        seen[place] = threading.current_thread()
        names[place] = threading.current_thread().name

    class Everywhere(Application):
        def before_start(self) -> None:
            note("before_start")

        def on_ping(self, events: list[Ping]) -> None:
            note("on_ping")

        @schedule(interval=60)
        def tick(self) -> None:
            note("tick")

        @task
        def work(self) -> None:
            note("work")

        def exit(self) -> None:
            note("exit")

    engine = AppEngine([Everywhere()])

    @engine.before_start
    def setup() -> None:
        note("setup")

    async with engine:
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
        await until(lambda: {"tick", "work"} <= seen.keys())
    assert set(seen) == {"before_start", "on_ping", "tick", "work", "exit", "setup"}
    assert all(thread.daemon for thread in seen.values())
    assert threading.current_thread() not in seen.values()
    assert names["on_ping"] == "event-flow Everywhere.on_ping"
    assert names["exit"] == "event-flow Everywhere.exit"
    assert names["setup"] == "event-flow before_start hook setup"


async def test_no_thread_is_left_after_the_end() -> None:
    class Syncs(Application):
        def on_ping(self, events: list[Ping]) -> None:
            pass

        def on_pong(self, events: list[Pong]) -> None:
            pass

        @task
        def work(self) -> None:
            pass

    async with AppEngine([Syncs()]) as engine:
        for number in range(20):
            await engine.pub_event(Ping(number))
            await engine.pub_event(Pong(number))
            await engine.wait_idle()
    await wait_until_ended("event-flow")
    assert engine_threads() == []


async def test_calls_use_the_same_threads_again() -> None:
    used: set[int] = set()

    class Syncs(Application):
        def on_ping(self, events: list[Ping]) -> None:
            used.add(threading.get_ident())

    async with AppEngine([Syncs()]) as engine:
        for number in range(50):
            await engine.pub_event(Ping(number))
            await engine.wait_idle()
    assert len(used) == 1


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_no_more_than_max_threads_handlers_and_schedules_run_at_once(limit: int) -> None:
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []

    def run() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        held.pass_through()
        with lock:
            running.pop()

    class Ticks(Application):
        @schedule(interval=60)
        def tick(self) -> None:
            run()

    engine = AppEngine([Ticks()], max_threads=limit)

    functions: list[Callable[[list[Ping]], None]] = [lambda events: run() for _ in range(7)]
    engine.register_handler(Ping, *functions)
    with gate() as held:
        async with engine:
            await engine.pub_event(Ping(1))
            await held.wait_for(limit)
            await anyio.wait_all_tasks_blocked()
            assert len(running) == limit
            held.open()
            await engine.wait_idle()
    assert max(most) == limit
    assert len(most) == 8


async def test_sync_tasks_and_hooks_come_on_top_of_max_threads() -> None:
    """Decided: handlers that never return may hold every place, and an exit hook must run all the same."""
    ended: list[str] = []

    class Holds(Application):
        def on_ping(self, events: list[Ping]) -> None:
            held.pass_through()

        @task
        def work(self) -> None:
            held.pass_through()

        @task
        def more_work(self) -> None:
            held.pass_through()

        def exit(self) -> None:
            ended.append("exit")

    engine = AppEngine([Holds()], max_threads=1, grace_period=0)
    with gate() as held:
        async with engine:
            await engine.pub_event(Ping(1))
            await held.wait_for(3)
        assert ended == ["exit"]
        assert engine.report is not None
        assert engine.report.threads_left == ("Holds.more_work", "Holds.on_ping", "Holds.work")
    await wait_until_ended("event-flow")


# -- waiting gives the place back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pub_event_from_thread", "pub_events_from_thread"])
async def test_a_thread_that_waits_for_room_gives_its_place_back(way: str) -> None:
    """Design D5: with one place, the handler that would make the room could not run otherwise."""
    got: list[int] = []
    order: list[str] = []

    class Stages(Application):
        def on_ping(self, events: list[Ping]) -> None:
            for event in events:
                if way == "pub_event_from_thread":
                    for number in range(20):
                        self.engine.pub_event_from_thread(Pong(number))
                else:
                    self.engine.pub_events_from_thread([Pong(number) for number in range(20)])
                order.append(f"ping {event.data}")

        def on_pong(self, events: list[Pong]) -> None:
            got.extend(event.data for event in events)

    engine = AppEngine([Stages()], max_threads=1, queue_size=1, max_batch=1)
    with anyio.fail_after(SOON):
        async with engine:
            for number in range(3):
                await engine.pub_event(Ping(number))
            await engine.wait_idle()
    assert got == list(range(20)) * 3
    assert order == ["ping 0", "ping 1", "ping 2"]


async def test_sync_handlers_that_publish_to_each_other_in_a_circle_do_not_deadlock() -> None:
    """*Design promise 3*, with one thread for all of them."""
    handled = 0

    class Circle(Application):
        def on_ping(self, events: list[Ping]) -> None:
            nonlocal handled
            handled += len(events)
            for event in events:
                if event.data:
                    self.engine.pub_event_from_thread(Pong(event.data - 1))
                    self.engine.pub_event_from_thread(Pong(event.data - 1))

        def on_pong(self, events: list[Pong]) -> None:
            nonlocal handled
            handled += len(events)
            for event in events:
                if event.data:
                    self.engine.pub_event_from_thread(Ping(event.data - 1))
                    self.engine.pub_event_from_thread(Ping(event.data - 1))

    engine = AppEngine([Circle()], max_threads=1, queue_size=1, max_batch=2)
    with anyio.fail_after(SOON):
        async with engine:
            await engine.pub_event(Ping(6))
            await engine.wait_idle()
    assert handled == 2**7 - 1


async def test_the_limit_holds_again_after_places_were_lent() -> None:
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []

    class Stages(Application):
        def on_ping(self, events: list[Ping]) -> None:
            for number in range(3):
                self.engine.pub_event_from_thread(Pong(number))

        def on_pong(self, events: list[Pong]) -> None:
            pass

    engine = AppEngine([Stages()], max_threads=1, queue_size=1, max_batch=1)

    class Third(Event[int]):
        pass

    def count() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        held.pass_through()
        with lock:
            running.pop()

    functions: list[Callable[[list[Third]], None]] = [lambda events: count() for _ in range(4)]
    engine.register_handler(Third, *functions)
    with gate() as held, anyio.fail_after(SOON):
        async with engine:
            for number in range(5):
                await engine.pub_event(Ping(number))
            await engine.wait_idle()
            await engine.pub_event(Third(1))
            await held.wait_for()
            await anyio.wait_all_tasks_blocked()
            assert running == [1]
            held.open()
    assert max(most) == 1


# -- threads that do not end -----------------------------------------------------------------------------------------


async def test_a_thread_that_does_not_end_is_named_and_holds_nothing(logs: list[Any]) -> None:
    """Design D11."""
    ended: list[str] = []

    class Holds(Application):
        def on_ping(self, events: list[Ping]) -> None:
            held.pass_through()

        @schedule(interval=60)
        def tick(self) -> None:
            held.pass_through()

        @task
        def work(self) -> None:
            held.pass_through()

        async def exit(self) -> None:
            ended.append("exit")

    engine = AppEngine([Holds()], grace_period=0)
    with gate() as held:
        async with engine:
            await engine.pub_event(Ping(1))
            await held.wait_for(3)
        report = engine.report
        assert report is not None
        assert report.threads_left == ("Holds.on_ping", "Holds.tick", "Holds.work")
        assert report.tasks_left == ()
        assert (report.accepted, report.abandoned) == (1, 1)
        assert ended == ["exit"]
        warnings = [record.message for record in logs if record.level == "WARNING"]
        assert any("threads left running: Holds.on_ping, Holds.tick, Holds.work" in line for line in warnings)
    await wait_until_ended("event-flow")


async def test_what_a_thread_that_was_left_raises_is_logged(logs: list[Any]) -> None:
    error = ValueError("too late")

    class Late(Application):
        @task
        def work(self) -> None:
            held.pass_through()
            raise error

    with gate() as held:
        async with AppEngine([Late()]):
            await held.wait_for()
        held.open()
        await wait_until_ended("event-flow")
    assert [record.message for record in logs if record.exception is error] == [
        "Late.work, which was left running, failed"
    ]


async def test_what_a_thread_raises_in_the_moment_it_is_left_is_logged(
    logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """*Regression*: it had looked whether it was left, and nobody looked whether it had failed."""
    error = ValueError("nearly lost")
    may_fail, executed = threading.Event(), threading.Event()
    engine = AppEngine(on_error="raise")
    execute = Job.execute

    def execute_and_say_so(job: Job) -> None:
        execute(job)
        executed.set()

    monkeypatch.setattr(Job, "execute", execute_and_say_so)

    @engine.on_event(Ping)
    def fails(events: list[Ping]) -> None:
        engine.pub_event_from_thread(Pong(1))
        assert may_fail.wait(SOON)
        raise error

    @engine.on_event(Pong)
    async def ends_the_engine(events: list[Pong]) -> None:
        may_fail.set()
        assert executed.wait(SOON)  # the thread is done, and this loop has not heard of it
        raise KeyError

    await engine.pub_event(Ping(1))
    with pytest.raises(KeyError):
        await engine.run()
    assert [record.message for record in logs if record.exception is error] == [
        "engine.fails, which was left running, failed"
    ]


@pytest.mark.virtual_clock
async def test_a_sync_exit_hook_is_bounded_by_exit_timeout() -> None:
    """The clock knows nothing of its thread, so the time is over at once. The next hook needs none, and so no time."""
    ended: list[str] = []

    class Hangs(Application):
        def exit(self) -> None:
            held.pass_through()

    engine = AppEngine([Hangs()], exit_timeout=20)

    @engine.exit
    async def last() -> None:
        ended.append("last")

    with gate() as held:
        before = anyio.current_time()
        with pytest.raises(ExitTimeout, match=r"Hangs\.exit took longer than 20 s"):
            async with engine:
                pass
        assert anyio.current_time() - before == pytest.approx(20, abs=0.1)
        assert ended == ["last"]
        assert engine.report is not None
        assert engine.report.threads_left == ("Hangs.exit",)
        assert engine.report.tasks_left == ()
    await wait_until_ended("event-flow")


async def test_a_sync_start_hook_is_bounded_by_start_timeout() -> None:
    ended: list[str] = []

    class Hangs(Application):
        def before_start(self) -> None:
            held.pass_through()

        def exit(self) -> None:
            ended.append("never")

    engine = AppEngine([Hangs()], start_timeout=0.02)

    @engine.exit
    def last() -> None:
        ended.append("last")

    with gate() as held:
        with pytest.raises(StartTimeout, match=r"Hangs\.before_start"):
            await engine.run()
        assert ended == ["last"]
        assert engine.report is not None
        assert engine.report.threads_left == ("Hangs.before_start",)
    await wait_until_ended("event-flow")


async def test_a_start_hook_in_a_thread_is_left_when_the_engine_is_stopped() -> None:
    class Hangs(Application):
        def before_start(self) -> None:
            self.engine.stop()
            held.pass_through()

    engine = AppEngine([Hangs()])
    with gate() as held:
        report = await engine.run()
        assert report.threads_left == ("Hangs.before_start",)
    await wait_until_ended("event-flow")


async def test_calls_that_wait_for_a_thread_are_abandoned_and_never_run() -> None:
    """*Design promise 4*: who has no place yet is told in the report."""
    called: list[int] = []

    class Holds(Application):
        def on_ping(self, events: list[Ping]) -> None:
            held.pass_through()

        def on_pong(self, events: list[Pong]) -> None:
            called.append(len(events))

    engine = AppEngine([Holds()], max_threads=1, grace_period=0)
    with gate() as held:
        async with engine:
            await engine.pub_event(Ping(1))
            await held.wait_for()
            await engine.pub_event(Pong(1))
            await anyio.wait_all_tasks_blocked()
        assert engine.report is not None
        assert engine.report.abandoned_events == {"Holds.on_ping": {"Ping": 1}, "Holds.on_pong": {"Pong": 1}}
        assert engine.report.threads_left == ("Holds.on_ping",)
    await wait_until_ended("event-flow")
    assert called == []


async def test_a_left_thread_of_one_run_takes_no_place_of_the_next() -> None:
    """Design D12."""
    handled: list[int] = []

    class Once(Application):
        def on_ping(self, events: list[Ping]) -> None:
            held.pass_through()

        def on_pong(self, events: list[Pong]) -> None:
            handled.append(len(events))

    engine = AppEngine([Once()], max_threads=1, grace_period=0)
    with gate() as held:
        async with engine:
            await engine.pub_event(Ping(1))
            await held.wait_for()
        first = engine.report
        with anyio.fail_after(SOON):
            async with engine:
                await engine.pub_event(Pong(1))
                await engine.wait_idle()
        second = engine.report
        assert first is not None
        assert second is not None
        assert first.threads_left == ("Once.on_ping",)
        assert second.threads_left == ()
        assert handled == [1]
    await wait_until_ended("event-flow")


def test_a_thread_that_ends_after_its_loop_ends_with_it(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Nobody is there any more to tell it."""
    held = Gate()

    class Holds(Application):
        @task
        def work(self) -> None:
            begun.set()
            held.pass_through()

        @task
        async def stop(self) -> None:
            await anyio.to_thread.run_sync(begun.wait)
            self.engine.stop()

    begun = threading.Event()
    report = AppEngine([Holds()]).start(*anyio_backend)
    assert report.threads_left == ("Holds.work",)
    (thread,) = engine_threads()
    held.open()
    thread.join(SOON)
    assert not thread.is_alive()


# Regression: a loop that is closed may have taken the thread's last word and never hear it; then the thread waits for ever.
def test_a_thread_whose_last_word_the_loop_never_hears_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop of asyncio takes calls after its last pass and drops them when it is closed; Trio hears them all, or refuses."""
    taken = threading.Event()
    held = Gate()

    loop = asyncio.new_event_loop()
    take = loop.call_soon_threadsafe

    def take_and_tell(*args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = take(*args, **kwargs)
        if has_run:
            taken.set()
        return handle

    monkeypatch.setattr(loop, "call_soon_threadsafe", take_and_tell)

    class Holds(Application):
        @task
        def work(self) -> None:
            held.pass_through()

    async def main() -> None:
        async with AppEngine([Holds()]):
            await held.wait_for()

    has_run = False
    loop.run_until_complete(main())
    has_run = True
    (thread,) = engine_threads()
    held.open()
    assert taken.wait(SOON)
    loop.close()
    thread.join(2)
    assert not thread.is_alive()


# -- what goes into a thread and comes out ---------------------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="default")


async def test_a_thread_has_a_copy_of_the_context_and_changes_only_that() -> None:
    seen: list[str] = []

    class Looks(Application):
        def before_start(self) -> None:
            seen.append(variable.get())
            variable.set("hook")

        def on_ping(self, events: list[Ping]) -> None:
            seen.append(variable.get())
            variable.set("handler")

        @task
        def work(self) -> None:
            seen.append(variable.get())
            variable.set("task")

    variable.set("outside")
    async with AppEngine([Looks()]) as engine:
        for _ in range(2):
            await engine.pub_event(Ping(1))
            await engine.wait_idle()
        await until(lambda: len(seen) == 4)
    assert seen == ["outside"] * 4
    assert variable.get() == "outside"


class FewErrors(ExceptionGroup[Exception]):
    """A group of the user's own, which does not say how it is divided."""


class OddError(BaseException):
    pass


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("bad"), ValueError),
        (StopIteration("bad"), RuntimeError),  # no coroutine can raise it
        (StopAsyncIteration("bad"), (RuntimeError, StopAsyncIteration)),
        (TimeoutError("bad"), TimeoutError),
        (FewErrors("bad", [ValueError(), OSError()]), FewErrors),
        (UnicodeDecodeError("utf-8", b"bad", 0, 1, "bad"), UnicodeDecodeError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # Regression: a group is divided and put together again, and becomes another one, of another class.
@pytest.mark.parametrize("place", ["handler", "schedule", "task"])
async def test_what_a_thread_raises_is_an_outcome(
    place: str, raised: Exception, seen: type[Exception] | tuple[type[Exception], ...]
) -> None:
    """Design D7: the bus goes on."""
    failures: list[ExceptionEvent] = []
    handled: list[int] = []

    class Fails(Application):
        def on_ping(self, events: list[Ping]) -> None:
            if place == "handler":
                raise raised

        @schedule(interval=60)
        def tick(self) -> None:
            if place == "schedule":
                raise raised

        @task
        def work(self) -> None:
            if place == "task":
                raise raised

        def on_pong(self, events: list[Pong]) -> None:
            handled.append(len(events))

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            failures.extend(events)

    with anyio.fail_after(SOON):
        async with AppEngine([Fails()]) as engine:
            await engine.pub_event(Ping(1))
            await until(lambda: bool(failures))
            await engine.pub_event(Pong(1))
            await engine.wait_idle()
            assert engine.state is EngineState.RUNNING
    assert handled == [1]
    (failure,) = failures
    assert isinstance(failure.data, seen)
    chain = (failure.data, failure.data.__cause__, failure.data.__context__)
    assert raised in chain
    assert "in on_ping" in failure.traceback_str or place != "handler"


async def test_what_a_failed_thread_was_given_waits_for_no_garbage_collection(logs: list[Any]) -> None:
    """The exception has a traceback, and nothing in there has the exception."""

    class Big(Event[int]):
        pass

    engine = AppEngine()

    @engine.on_event(Big)
    def fail(events: list[Big]) -> None:
        raise ValueError

    with no_collector():
        async with engine:
            published = await publish_weakly(engine, Big, range(3))
            await engine.wait_idle()
            await anyio.wait_all_tasks_blocked()
            logs.clear()  # the failure, with its traceback
            await until(lambda: not still_alive(published))  # the thread lets go last
    assert engine.statistics().failed == 3


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, OddError])
@pytest.mark.parametrize("place", ["before_start", "handler", "schedule", "task", "exit"])
async def test_what_is_no_exception_ends_the_engine_and_leaves_bare(
    place: str, kind: type[BaseException]
) -> None:
    """Design D7: raised in a thread, it leaves `run()` as itself after the exit hooks."""
    error = kind("end")
    ended: list[str] = []

    class Ends(Application):
        def _do(self, here: str) -> None:
            if here == place:
                raise error

        def before_start(self) -> None:
            self._do("before_start")

        def on_ping(self, events: list[Ping]) -> None:
            self._do("handler")
            if place == "exit":
                self.engine.stop()

        @schedule(interval=60)
        def tick(self) -> None:
            self._do("schedule")

        @task
        def work(self) -> None:
            self._do("task")

        def exit(self) -> None:
            ended.append("app")
            self._do("exit")

    engine = AppEngine([Ends()])

    @engine.exit
    def last() -> None:
        ended.append("engine")

    await engine.pub_event(Ping(1))
    raised: list[BaseException] = []
    with anyio.fail_after(SOON):
        try:
            await engine.run()
        except BaseException as exc:
            raised.append(exc)
    assert raised == [error]
    assert ended == (["engine"] if place == "before_start" else ["app", "engine"])
    await wait_until_ended("event-flow")


# Regression: the copied context says that a loop runs in the thread, so `anyio.run` refuses.
async def test_sync_code_may_run_an_event_loop_of_its_own(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Also another engine."""
    ended: list[str] = []
    name, options = anyio_backend

    async def main() -> None:
        await checkpoint()
        ended.append("loop")

    class Inner(Application):
        async def before_start(self) -> None:
            ended.append("inner engine")
            self.engine.stop()

    class Outer(Application):
        def on_ping(self, events: list[Ping]) -> None:
            anyio.run(main, backend=name, backend_options=options)
            AppEngine([Inner()]).start(name, options)

    with anyio.fail_after(SOON):
        async with AppEngine([Outer()], on_error="raise") as engine:
            await engine.pub_event(Ping(1))
    assert ended == ["loop", "inner engine"]


@pytest.mark.parametrize("place", ["before_start", "handler", "task", "exit"])
async def test_a_sync_function_that_returns_an_awaitable_has_failed(place: str, logs: list[Any]) -> None:
    async def never_awaited() -> None:
        raise AssertionError("nobody awaits it")

    failures: list[ExceptionEvent] = []
    engine = AppEngine()

    def wrapped(*args: object) -> object:
        return never_awaited()

    class Wrapped(Application):
        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            failures.extend(events)

    class WithTask(Wrapped):
        work = task(wrapped)

    engine.add_app(WithTask() if place == "task" else Wrapped())
    if place == "handler":
        engine.register_handler(Ping, wrapped)
    elif place == "before_start":
        engine.before_start(wrapped)
    elif place == "exit":
        engine.exit(wrapped)
    raised: list[Exception] = []
    try:
        with anyio.fail_after(SOON):
            async with engine:
                await engine.pub_event(Ping(1))
                await engine.wait_idle()
                await until(lambda: bool(failures) or place not in ("task", "handler"))
    except TypeError as exc:
        raised.append(exc)
    raised += [failure.data for failure in failures if isinstance(failure.data, Exception)]
    assert len(raised) == 1
    assert isinstance(raised[0], TypeError)
    assert "returned coroutine, which nobody awaits" in str(raised[0])


async def test_a_system_without_threads_is_a_failure_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`can't start new thread`: the place is given back, and when there are threads again the handler runs."""
    failures: list[ExceptionEvent] = []
    handled: list[int] = []

    class Syncs(Application):
        def on_ping(self, events: list[Ping]) -> None:
            handled.append(events[0].data)

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            failures.extend(events)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with anyio.fail_after(SOON):
        async with AppEngine([Syncs()], max_threads=1) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                for number in range(3):
                    await engine.pub_event(Ping(number))
                    await engine.wait_idle()
            await engine.pub_event(Ping(3))
            await engine.wait_idle()
    assert handled == [3]
    assert [str(failure.data) for failure in failures] == ["can't start new thread"] * 3

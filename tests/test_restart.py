"""One engine run after run, on any backend; and several engines side by side, in one loop and in several."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from waiting import SOON, until
from weak import publish_weakly, still_alive

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    Batch,
    EngineClosed,
    EngineState,
    Event,
    Rate,
    Retry,
    ShutdownReport,
    StartTimeout,
    SubApplication,
    schedule,
    task,
)

Backend = tuple[str, dict[str, Any]]

BACKENDS: dict[str, Backend] = {"asyncio": ("asyncio", {}), "trio": ("trio", {})}
if sys.platform != "win32":
    BACKENDS["uvloop"] = ("asyncio", {"use_uvloop": True})


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Counts(Application):
    """Counts what it gets, async and in a thread, and stops the engine at the number it is told."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.got: list[int] = []
        self.got_in_thread: list[int] = []
        self.starts = self.exits = self.ticks = self.works = 0

    async def before_start(self) -> None:
        self.starts += 1

    async def on_ping(self, events: list[Ping]) -> None:
        for event in events:
            self.got.append(event.data)
            if event.data == self.stop_at:
                while self.ticks < self.starts or self.works < self.starts:
                    await checkpoint()
                self.engine.stop()

    def on_ping_too(self, events: list[Ping]) -> None:
        self.got_in_thread += [event.data for event in events]

    @schedule(interval=1000)
    async def tick(self) -> None:
        self.ticks += 1

    @task
    async def work(self) -> None:
        self.works += 1
        await anyio.sleep_forever()

    async def exit(self) -> None:
        self.exits += 1


class SubCounts(Counts, SubApplication):
    pass


def check(report: ShutdownReport | None, accepted: int) -> None:
    assert report is not None
    assert report.accepted == accepted
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned


# -- run after run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(itertools.product(sorted(BACKENDS), repeat=2)))
def test_it_runs_again_on_any_backend_and_nothing_survives(first: str, second: str) -> None:
    """Design D12. Names backends because it goes from one to the other."""
    app, sub = Counts(stop_at=9), SubCounts()
    app.add_app(sub)
    engine = AppEngine([app], queue_size=3, max_threads=1)
    plain: list[int] = []
    engine.register_handler(Ping, lambda events: plain.extend(event.data for event in events))

    @engine.before_start
    async def setup() -> None:
        for number in range(10):
            await engine.pub_event(Ping(number))

    reports = []
    for backend in (first, second, first):
        reports.append(engine.start(*BACKENDS[backend]))
        check(reports[-1], 50)
        assert reports[-1].is_clean
        assert engine.state is EngineState.STOPPED
        assert engine.report is reports[-1]
        statistics = engine.statistics()
        assert (statistics.accepted, statistics.backlog, statistics.queued) == (50, 0, 0)
        assert set(statistics.handlers) == {
            "engine.<lambda>", "Counts.on_ping", "Counts.on_ping_too",
            "SubCounts.on_ping", "SubCounts.on_ping_too",
        }  # fmt: skip
        assert statistics.schedules["Counts.tick"].ticks == 1
    for each in (app, sub):
        assert each.got == each.got_in_thread == list(range(10)) * 3
        assert (each.starts, each.exits) == (3, 3)
    assert (app.ticks, app.works) == (3, 3)
    assert plain == list(range(10)) * 3


async def test_it_runs_again_and_again_in_one_loop() -> None:
    app = Counts()
    engine = AppEngine([app])
    for run in range(20):
        async with engine:
            assert engine.statistics().accepted == 0
            await engine.pub_event(Ping(run))
            await engine.wait_idle()
        check(engine.report, 2)
    assert app.got == app.got_in_thread == list(range(20))
    assert app.exits == 20


@pytest.mark.parametrize("how", ["raises", "takes too long", "is stopped", "is cancelled"])
async def test_it_runs_again_after_a_start_that_failed(how: str) -> None:
    app = Counts()
    engine = AppEngine([app], start_timeout=0.01 if how == "takes too long" else 60)
    fails = True

    @engine.before_start
    async def setup() -> None:
        if not fails:
            return
        if how == "raises":
            raise OSError("no database")
        if how == "is stopped":
            engine.stop()
        if how == "is cancelled":
            scope.cancel()
        await anyio.sleep_forever()

    for _ in range(2):
        fails = True
        if engine.state is EngineState.NEW:
            await engine.pub_event(Ping(99))  # belongs to the run that fails
        with anyio.CancelScope() as scope:
            if how in ("raises", "takes too long"):
                with pytest.raises((OSError, StartTimeout)):
                    await engine.run()
            else:
                await engine.run()
        assert engine.state is EngineState.STOPPED
        with pytest.raises(EngineClosed):
            await engine.pub_event(Ping(98))
        fails = False
        async with engine:
            await engine.pub_event(Ping(1))
        check(engine.report, 2)
    assert app.got == app.got_in_thread == [1, 1]
    assert (app.starts, app.exits) == (2, 2)


# Regression: it stays STARTING, with a loop's thread, and can neither be run nor stopped nor waited for any more.
async def test_it_runs_again_after_a_run_that_could_not_even_be_prepared() -> None:
    """An application that fails while its handlers are looked up: an error of `run()`, and no run at all."""
    error = LookupError("no such handler, yet")

    class Odd(Application):
        is_broken = False

        def __getattribute__(self, name: str) -> Any:
            if name == "on_ping" and Odd.is_broken:
                raise error
            return super().__getattribute__(name)

        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data for event in events)

    got: list[int] = []
    engine = AppEngine([Odd()])
    Odd.is_broken = True
    await engine.pub_event(Ping(1))
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            await engine.run()
        assert caught.value is error
        assert engine.state in (EngineState.NEW, EngineState.STOPPED)
    Odd.is_broken = False
    with anyio.fail_after(SOON):
        async with engine:
            await engine.pub_event(Ping(2))
    assert got[-1] == 2


async def test_it_runs_again_after_it_was_cancelled_with_everything_full() -> None:
    """Queues, waiting publishes and reservations of the first run are gone."""
    gate = anyio.Event()
    got: list[int] = []
    engine = AppEngine(queue_size=1, max_batch=1)

    @engine.on_event(Ping)
    async def handle(events: list[Ping]) -> None:
        await gate.wait()
        got.extend(event.data for event in events)

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            for number in range(6):
                group.start_soon(engine.pub_event, Ping(number))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    check(engine.report, 2)
    gate.set()
    async with engine:
        for number in range(10, 15):
            await engine.pub_event(Ping(number))
    check(engine.report, 5)
    assert got == [10, 11, 12, 13, 14]


async def test_publishes_between_two_runs_are_closed() -> None:
    """Decided: an event kept for a run that may never come would be lost silently."""
    app = Counts()
    engine = AppEngine([app])
    async with engine:
        pass
    for _ in range(2):
        with pytest.raises(EngineClosed):
            await engine.pub_event(Ping(1))
        with pytest.raises(EngineClosed):
            await engine.pub_events([Ping(1)])
        with pytest.raises(EngineClosed):
            engine.pub_event_nowait(Ping(1))
    async with engine:
        await engine.pub_event(Ping(2))
    assert app.got == [2]


async def test_a_publish_that_waits_through_the_end_is_not_taken_by_the_next_run() -> None:
    app = Counts()
    hold = anyio.Event()
    engine = AppEngine([app], queue_size=1, max_batch=1)
    closed: list[int] = []

    @engine.on_event(Ping)
    async def slow(events: list[Ping]) -> None:
        await hold.wait()

    async def publish(number: int) -> None:
        try:
            await engine.pub_event(Ping(number))
        except EngineClosed:
            closed.append(number)

    async with anyio.create_task_group() as group:
        async with engine:
            for number in range(5):
                group.start_soon(publish, number)
                await anyio.wait_all_tasks_blocked()
            engine.stop()
            hold.set()
            await engine.wait_stopped()
        # Those who waited may not even have run again.
        async with engine:
            await checkpoint()
        check(engine.report, 0)
    assert sorted(closed) == [2, 3, 4]
    assert app.got == [0, 1]


async def test_what_a_task_of_the_first_run_left_behind_is_a_stranger_to_the_second() -> None:
    """A task group of the user's own outlives the run, with the context of a handler call that has ended."""
    engine = AppEngine()
    errors: list[str] = []
    handled: list[int] = []
    go_on = anyio.Event()

    async with anyio.create_task_group() as group:

        async def later() -> None:
            await go_on.wait()
            await engine.pub_event(Ping(5))
            await engine.wait_idle()
            errors.append("none")

        @engine.on_event(Pong)
        async def handle(events: list[Pong]) -> None:
            group.start_soon(later)

        @engine.on_event(Ping)
        async def collect(events: list[Ping]) -> None:
            handled.extend(event.data for event in events)

        async with engine:
            await engine.pub_event(Pong(1))
        async with engine:
            go_on.set()
            await anyio.wait_all_tasks_blocked()
    assert errors == ["none"]
    assert handled == [5]


def test_a_run_leaves_nothing_behind_in_memory(anyio_backend: Backend, logs: list[Any]) -> None:
    """Threads, loops and events of a run are garbage after it."""
    alive: list[weakref.ref[Any]] = []

    class Big(Event[int]):
        pass

    engine = AppEngine(max_batch=2)

    @engine.before_start
    async def setup() -> None:
        for number in range(6):
            event = Big(number)
            alive.append(weakref.ref(event))
            await engine.pub_event(event)

    @engine.on_event(Big)
    def handle(events: list[Big]) -> None:
        if events[-1].data == 5:
            engine.stop()
        if events[-1].data == 3:
            raise ValueError(events)

    for _ in range(2):
        engine.start(*anyio_backend)
        logs.clear()  # the failure, with its traceback
        gc.collect()
        assert [ref() for ref in alive] == [None] * 6
        alive.clear()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "customer"},
        {"key": "customer", "concurrency": 2},
        {"overflow": "latest"},
        {"retry": Retry(on=OSError)},
        {"linger": 0.001},
        {"rate": Rate(1, burst=2)},
    ],
    ids=lambda options: " ".join(options) or "none",
)
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["stopped", "cancelled"])
async def test_what_an_ended_engine_was_at_work_with_is_garbage(
    options: dict[str, Any], *, is_cancelled: bool
) -> None:
    """Not only what was queued: nobody starts an engine again in order to get rid of a batch."""

    class Big(Event[dict[str, int]]):
        pass

    begun = anyio.Event()
    engine = AppEngine(grace_period=0, exit_timeout=SOON)

    @engine.on_event(Big, **options)
    async def hang(batch: Batch[Big]) -> None:
        begun.set()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with engine:
            published = await publish_weakly(engine, Big, [{"customer": number % 2} for number in range(5)])
            await begun.wait()
            if is_cancelled:
                scope.cancel()
    assert engine.report is not None
    assert engine.report.abandoned + engine.report.dropped == 5
    gc.collect()
    assert still_alive(published) == []


@pytest.mark.parametrize(
    ("strict", "options", "error"),
    [
        (True, {}, ValueError),
        (False, {"on_failure": {ValueError: "stop"}}, ValueError),
        (False, {}, SystemExit),
    ],
    ids=["strict", "stop", "exit"],
)
async def test_what_an_engine_has_failed_with_is_garbage_once_it_was_raised(
    strict: bool,
    options: dict[str, Any],
    error: type[BaseException],
    logs: list[Any],
) -> None:
    class Big(Event[int]):
        pass

    engine = AppEngine(on_error="raise" if strict else "contain")

    @engine.on_event(Big, **options)
    async def fail(events: list[Big]) -> None:
        raise error

    published = await publish_weakly(engine, Big, range(3))
    with pytest.raises(error):
        await engine.run()
    logs.clear()
    gc.collect()
    assert still_alive(published) == []


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_idle_handler_keeps_no_event_alive(kind: str) -> None:
    """Not the last batch either, for as long as the engine runs."""
    alive: list[weakref.ref[Any]] = []

    class Big(Event[int]):
        pass

    async def on_loop(events: list[Big]) -> None:
        alive.extend(map(weakref.ref, events))

    def in_thread(events: list[Big]) -> None:
        alive.extend(map(weakref.ref, events))

    engine = AppEngine()
    engine.register_handler(Big, on_loop if kind == "async" else in_thread)
    async with engine:
        await engine.pub_event(Big(1))
        await engine.wait_idle()
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert [ref() for ref in alive] == [None]


# -- before the first run --------------------------------------------------------------------------------------------


async def test_events_before_the_first_run_are_kept_in_order_up_to_max_backlog() -> None:
    app = Counts()
    engine = AppEngine([app], max_backlog=5, queue_size=2)
    await engine.pub_event(Ping(0))
    await engine.pub_events([Ping(1), Ping(2)])
    engine.pub_event_nowait(Ping(3))
    engine.pub_event_from_thread(Ping(4))
    assert engine.statistics().backlog == 5
    with pytest.raises(BacklogExceeded) as caught:
        await engine.pub_event(Ping(5))
    assert (caught.value.handler, caught.value.limit) == (None, 5)
    for refused in (engine.pub_event_nowait, engine.pub_event_from_thread):
        with pytest.raises(BacklogExceeded):
            refused(Ping(5))
    async with engine:
        await engine.wait_idle()
    assert app.got == [0, 1, 2, 3, 4]
    check(engine.report, 10)


async def test_without_a_backlog_nothing_is_kept() -> None:
    engine = AppEngine([Counts()], max_backlog=0)
    with pytest.raises(BacklogExceeded):
        await engine.pub_event(Ping(1))
    async with engine:
        await engine.pub_event(Ping(2))
        await engine.wait_idle()
        await engine.pub_event(Ping(3))
    check(engine.report, 4)


def test_events_published_in_one_loop_are_handled_in_another(anyio_backend: Backend) -> None:
    app = Counts(stop_at=3)
    engine = AppEngine([app])

    async def before() -> None:
        await engine.pub_events(map(Ping, range(4)))

    anyio.run(before)
    engine.start(*anyio_backend)
    assert app.got == [0, 1, 2, 3]


async def test_what_was_kept_is_accounted_for_when_the_first_run_is_stopped_at_once() -> None:
    """*Design promise 4*."""
    engine = AppEngine([Counts()])
    await engine.pub_events(map(Ping, range(7)))

    @engine.before_start
    async def stop() -> None:
        engine.stop()

    await engine.run()
    check(engine.report, 14)
    assert engine.report is not None
    assert engine.report.abandoned == 14


# -- several engines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [1, 3])
@pytest.mark.parametrize("way", ["async", "thread", "mixed"])
async def test_two_engines_in_one_loop_that_publish_to_each_other_do_not_deadlock(
    way: str, queue_size: int
) -> None:
    """Decided: the relation that lets a publish pass is followed across engines of one thread."""
    engines = [AppEngine(queue_size=queue_size, max_batch=2, max_threads=1) for _ in range(2)]
    handled = [0, 0]

    def connect(number: int) -> None:
        here, other = engines[number], engines[1 - number]

        async def forward(events: list[Ping]) -> None:
            handled[number] += len(events)
            for event in events:
                if event.data:
                    for _ in range(2):
                        await other.pub_event(Ping(event.data - 1))

        def forward_in_thread(events: list[Ping]) -> None:
            handled[number] += len(events)
            for event in events:
                if event.data:
                    for _ in range(2):
                        other.pub_event_from_thread(Ping(event.data - 1))

        in_thread = way == "thread" or (way == "mixed" and number)
        here.register_handler(Ping, forward_in_thread if in_thread else forward)

    connect(0)
    connect(1)
    depth = 7
    with anyio.fail_after(SOON):
        async with engines[0], engines[1]:
            await engines[0].pub_event(Ping(depth))
            await until(lambda: sum(handled) == 2 ** (depth + 1) - 1)
    for number, engine in enumerate(engines):
        check(engine.report, handled[number])


async def test_a_thread_that_waits_at_another_engine_lends_its_place_in_its_own() -> None:
    """*Regression*: the place was lent by the engine published to, and the two waited for each other."""
    one = AppEngine(queue_size=1, max_batch=1, max_threads=1)
    two = AppEngine(queue_size=1, max_batch=1)
    seen: list[int] = []

    @one.on_event(Ping)
    def holds_the_only_place(events: list[Ping]) -> None:
        two.pub_events_from_thread(Ping(number) for number in range(6))

    @one.on_event(Pong)
    def needs_a_place(events: list[Pong]) -> None:
        seen.extend(event.data for event in events)

    @two.on_event(Ping)
    async def sends_back(events: list[Ping]) -> None:
        for event in events:
            await one.pub_event(Pong(event.data))

    with anyio.fail_after(SOON):
        async with one, two:
            await one.pub_event(Ping(0))
            await until(lambda: len(seen) == 6)
    assert seen == list(range(6))


async def test_two_engines_end_in_the_order_of_their_with() -> None:
    diary: list[str] = []
    engines: dict[str, AppEngine] = {}
    for name in ("outer", "inner"):
        engines[name] = engine = AppEngine()
        engine.exit(lambda name=name: diary.append(name))

    @engines["inner"].on_event(Ping)
    async def report(events: list[Ping]) -> None:
        await engines["outer"].pub_event(Pong(1))

    @engines["outer"].on_event(Pong)
    async def note(events: list[Pong]) -> None:
        diary.append("noted")

    async with engines["outer"], engines["inner"]:
        await engines["inner"].pub_event(Ping(1))
    assert diary == ["inner", "noted", "outer"] or diary == ["noted", "inner", "outer"]


async def test_a_handler_of_another_engine_is_outside() -> None:
    """Design D10: while it drains, only the engine's own handlers publish."""
    first, second = AppEngine(), AppEngine()
    refused: list[str] = []
    gate = anyio.Event()

    @first.on_event(Ping)
    async def hold(events: list[Ping]) -> None:
        await gate.wait()

    @second.on_event(Pong)
    async def publish(events: list[Pong]) -> None:
        try:
            await first.pub_event(Ping(2))
        except EngineClosed:
            refused.append("refused")
        await first.wait_stopped()  # no deadlock: it is not the engine this handler belongs to
        refused.append("stopped")

    async with first, second:
        await first.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
        first.stop()
        await second.pub_event(Pong(1))
        await anyio.wait_all_tasks_blocked()
        assert refused == ["refused"]
        gate.set()
    assert refused == ["refused", "stopped"]


@pytest.mark.parametrize("inner", sorted(BACKENDS))
async def test_engines_in_several_threads_do_not_see_each_other(inner: str) -> None:
    """One in this loop, one under `start()` in a thread, on any backend; each publishes to the other."""
    here, there = AppEngine(queue_size=2), AppEngine(queue_size=2)
    got_here: list[int] = []
    got_there: list[int] = []
    reports: list[ShutdownReport] = []
    running = threading.Event()

    @here.on_event(Pong)
    async def collect(events: list[Pong]) -> None:
        got_here.extend(event.data for event in events)

    @there.on_event(Ping)
    def answer(events: list[Ping]) -> None:
        for event in events:
            got_there.append(event.data)
            here.pub_event_from_thread(Pong(event.data))

    class Tells(Application):
        @task
        async def tell(self) -> None:
            running.set()

    there.add_app(Tells())
    thread = threading.Thread(target=lambda: reports.append(there.start(*BACKENDS[inner])))
    async with here:
        thread.start()
        await anyio.to_thread.run_sync(running.wait)
        for number in range(50):
            await anyio.to_thread.run_sync(there.pub_event_from_thread, Ping(number))
        await until(lambda: len(got_here) == 50)
        assert here.state is there.state is EngineState.RUNNING
        there.stop()
        await anyio.to_thread.run_sync(thread.join, SOON)
    assert got_here == got_there == list(range(50))
    check(reports[0], 50)
    check(here.report, 50)


def test_one_engine_started_by_two_threads_runs_once(anyio_backend: Backend) -> None:
    """The second is told; the first one's run is whole."""
    begun, go_on = threading.Event(), threading.Event()
    errors: list[BaseException] = []
    engine = AppEngine([Counts()])

    @engine.before_start
    def hold() -> None:
        begun.set()
        go_on.wait(SOON)
        engine.stop()

    def start() -> None:
        try:
            engine.start(*anyio_backend)
        except BaseException as exc:
            errors.append(exc)

    first = threading.Thread(target=start)
    first.start()
    assert begun.wait(SOON)
    start()
    assert [str(error) for error in errors] == ["start is not possible while the engine is starting"]
    go_on.set()
    first.join(SOON)
    assert len(errors) == 1
    assert engine.report is not None


# Regression: between the look at the state and STARTING another thread may begin a run; then neither ends.
def test_threads_that_start_it_at_the_very_same_time(
    anyio_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is first: one run, and the others are refused."""
    engine = AppEngine()
    runs: list[str] = []
    barrier = threading.Barrier(4)
    two_have_looked = threading.Barrier(2)
    errors: list[BaseException] = []
    require_not_running = AppEngine._require_not_running

    def look_and_linger(engine: AppEngine, what: str) -> None:
        require_not_running(engine, what)
        if what == "run":
            with suppress(threading.BrokenBarrierError):  # no other gets as far as this, as it should be
                two_have_looked.wait(0.2)

    monkeypatch.setattr(AppEngine, "_require_not_running", look_and_linger)

    @engine.before_start
    async def begin() -> None:
        runs.append("begun")
        await until(lambda: len(errors) == 3)
        engine.stop()

    @engine.exit
    async def end() -> None:
        runs.append("ended")

    def start() -> None:
        barrier.wait()
        try:
            engine.start(*anyio_backend)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=start, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    assert runs == ["begun", "ended"]
    assert [type(error).__name__ for error in errors] == ["EngineStateError"] * 3
    assert engine.state is EngineState.STOPPED


async def test_an_engine_runs_inside_a_handler_of_another() -> None:
    """It is another engine's handler: waiting for the inner one is no waiting for oneself."""
    inner_reports: list[ShutdownReport] = []
    app = Counts(stop_at=2)
    inner = AppEngine([app])
    outer = AppEngine()

    @outer.on_event(Ping)
    async def run_inner(events: list[Ping]) -> None:
        async with inner:
            await inner.pub_events(map(Ping, range(3)))
            inner_reports.append(await inner.wait_stopped())

    with anyio.fail_after(SOON):
        async with outer:
            await outer.pub_event(Ping(0))
    assert app.got == [0, 1, 2]
    check(inner_reports[0], 6)
    check(outer.report, 1)
    assert outer.report is not None
    assert outer.report.failed == 0

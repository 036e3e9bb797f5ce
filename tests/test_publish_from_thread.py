"""Publishing from threads: it waits as a task would, keeps order, and ends with the engine, whatever the moment."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from test_bus import A, Desk
from waiting import SOON, until

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    EngineClosed,
    EngineState,
    Event,
    WrongThreadError,
    task,
)
from event_flow.core.bus import Bus
from event_flow.core.inbox import Inbox, Request


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Unwanted(Event[int]):
    pass


class Collects(Application):
    """Handles a Ping when the gate is open."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.got: list[int] = []
        if is_open:
            self.gate.set()

    async def on_ping(self, events: list[Ping]) -> None:
        await self.gate.wait()
        self.got += [event.data for event in events]


class Foreign:
    """A thread of the user's own. What it raises is kept."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.error: BaseException | None = None
        self.has_begun = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self.thread.start()

    def _run(self, function: Callable[..., object], *args: object) -> None:
        self.has_begun.set()
        try:
            function(*args)
        except BaseException as exc:
            self.error = exc

    @property
    def is_done(self) -> bool:
        return not self.thread.is_alive()

    def join(self) -> None:
        self.thread.join(SOON)
        assert self.is_done, "the thread hangs"

    async def wait(self) -> None:
        await anyio.to_thread.run_sync(self.join)


@contextmanager
def foreign(function: Callable[..., object], *args: object) -> Iterator[Foreign]:
    made = Foreign(function, *args)
    yield made
    made.join()


async def until_parked(engine: AppEngine, number: int = 1) -> None:
    """Wait until so many publishes wait for room. Nothing public tells."""
    await until(lambda: sum(len(lane.waiters) for lane in engine._bus.router.lanes) >= number)


METHODS = ["pub_event_from_thread", "pub_events_from_thread"]


def publish(engine: AppEngine, method: str, *events: Event[Any]) -> None:
    if method == "pub_events_from_thread":
        engine.pub_events_from_thread(events)
    else:
        for event in events:
            engine.pub_event_from_thread(event)


# -- from where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["handler", "task", "before_start", "foreign"])
async def test_events_from_a_thread_arrive_in_order(where: str, method: str) -> None:
    """*Design promise 1*."""
    # One request takes a thousand; one by one each is a hop to the loop and back.
    numbers = list(range(2500 if method == "pub_events_from_thread" else 250))

    class Publishes(Application):
        def _publish(self, here: str) -> None:
            if here == where:
                publish(self.engine, method, *map(Ping, numbers))

        def before_start(self) -> None:
            self._publish("before_start")

        def on_pong(self, events: list[Pong]) -> None:
            self._publish("handler")

        @task
        def work(self) -> None:
            self._publish("task")

    app = Collects()
    async with AppEngine([Publishes(), app]) as engine:
        await engine.pub_event(Pong(1))
        if where == "foreign":
            await Foreign(publish, engine, method, *map(Ping, numbers)).wait()
        await until(lambda: len(app.got) == len(numbers))
    assert app.got == numbers


@pytest.mark.parametrize("method", METHODS)
async def test_in_the_loops_own_thread_it_raises_at_once(method: str) -> None:
    app = Collects()
    engine = AppEngine([app])
    errors: list[Exception] = []

    def publish_here() -> None:
        try:
            publish(engine, method, Ping(1))
        except RuntimeError as exc:
            errors.append(exc)

    @engine.before_start
    async def setup() -> None:
        publish_here()

    @engine.exit
    async def teardown() -> None:
        publish_here()

    async with engine:
        publish_here()
    assert [type(error) for error in errors] == [WrongThreadError] * 3
    assert app.got == []


@pytest.mark.parametrize("method", ["pub_event", "pub_events", "pub_event_nowait"])
async def test_what_is_for_the_loop_raises_in_another_thread(method: str) -> None:
    app = Collects()

    def drive(engine: AppEngine) -> None:
        argument: Any = [Ping(1)] if method == "pub_events" else Ping(1)
        made = getattr(engine, method)(argument)
        if made is not None:
            made.send(None)

    async with AppEngine([app]) as engine:
        for _ in range(2):  # before the route of its class is known, and after
            other = Foreign(drive, engine)
            await other.wait()
            assert isinstance(other.error, WrongThreadError)
            assert isinstance(other.error, RuntimeError)
            await engine.pub_event(Ping(7))
            await engine.wait_idle()
    assert app.got == [7, 7]


@pytest.mark.parametrize("state", ["new", "running", "stopped"])
@pytest.mark.parametrize("wrong", [Ping, "ping", None, 7])
async def test_what_is_no_event_is_a_type_error_in_every_state(state: str, wrong: Any) -> None:
    engine = AppEngine([Collects()])

    async def check() -> None:
        for publish_wrong in (
            lambda: engine.pub_event_from_thread(wrong),
            lambda: engine.pub_events_from_thread([Ping(1), wrong]),
        ):
            other = Foreign(publish_wrong)
            await other.wait()
            assert isinstance(other.error, TypeError)

    if state == "new":
        await check()
    async with engine:
        if state == "running":
            await check()
    if state == "stopped":
        await check()
    assert engine.report is not None
    assert engine.report.accepted == 0


async def test_an_event_nobody_wants_is_counted() -> None:
    async with AppEngine([Collects()]) as engine:
        await Foreign(engine.pub_event_from_thread, Unwanted(1)).wait()
        await Foreign(engine.pub_events_from_thread, [Unwanted(1), Unwanted(2)]).wait()
        assert engine.statistics().unhandled == 3


# -- waiting for room ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_a_full_lane_holds_the_thread(method: str) -> None:
    """*Design promise 2*."""
    app = Collects(is_open=False)
    async with AppEngine([app], queue_size=2, max_batch=1) as engine:
        for number in range(3):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
        other = Foreign(publish, engine, method, Ping(3), Ping(4))
        await until_parked(engine)
        assert not other.is_done
        assert engine.statistics().accepted == 3
        app.gate.set()
        await other.wait()
        assert other.error is None
    assert app.got == [0, 1, 2, 3, 4]


async def test_threads_that_wait_get_room_in_order_of_arrival() -> None:
    app = Collects(is_open=False)
    async with AppEngine([app], queue_size=1, max_batch=1) as engine:
        for number in range(2):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
        others: list[Foreign] = []
        for number in range(2, 8):
            others.append(Foreign(engine.pub_event_from_thread, Ping(number)))
            await until_parked(engine, len(others))
        app.gate.set()
        for other in others:
            await other.wait()
            assert other.error is None
    assert app.got == list(range(8))


@pytest.mark.parametrize("method", METHODS)
async def test_a_thread_that_waits_at_stop_is_refused(method: str) -> None:
    """Design D10, step 1: it is outside. What was accepted before is handled."""
    app = Collects(is_open=False)
    async with AppEngine([app], queue_size=1, max_batch=1) as engine:
        for number in range(2):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
        others = [Foreign(publish, engine, method, Ping(90 + number), Ping(99)) for number in range(4)]
        await until_parked(engine, 4)
        engine.stop()
        for other in others:
            await other.wait()
            assert isinstance(other.error, EngineClosed)
        assert engine.state is EngineState.DRAINING
        app.gate.set()
    assert app.got == [0, 1]
    assert engine.report is not None
    assert (engine.report.accepted, engine.report.is_clean) == (2, True)


async def test_a_sync_handler_that_waits_at_stop_is_inside_and_finishes() -> None:
    """Design D10, step 2."""
    app = Collects(is_open=False)

    class Stage(Application):
        def on_pong(self, events: list[Pong]) -> None:
            for number in range(10):
                self.engine.pub_event_from_thread(Ping(number))

    async with AppEngine([app, Stage()], queue_size=1, max_batch=1) as engine:
        await engine.pub_event(Pong(1))
        await until_parked(engine)
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        assert engine.state is EngineState.DRAINING
        app.gate.set()
    assert app.got == list(range(10))
    assert engine.report is not None
    assert engine.report.is_clean


async def test_a_sync_handler_that_waits_when_the_grace_period_is_over_gets_engine_closed() -> None:
    app = Collects(is_open=False)
    ended: list[str] = []

    class Stage(Application):
        def on_pong(self, events: list[Pong]) -> None:
            try:
                for number in range(10):
                    self.engine.pub_event_from_thread(Ping(number))
            except EngineClosed:
                ended.append("closed")

    async with AppEngine([app, Stage()], queue_size=1, max_batch=1, grace_period=0) as engine:
        await engine.pub_event(Pong(1))
        await until_parked(engine)
    for thread in threading.enumerate():
        if thread.name.startswith("event-flow"):
            await anyio.to_thread.run_sync(thread.join, SOON)
    assert ended == ["closed"]
    report = engine.report
    assert report is not None
    assert report.accepted == report.abandoned == 3


async def test_a_hard_end_refuses_what_waits_and_what_comes() -> None:
    app = Collects(is_open=False)
    engine = AppEngine([app], queue_size=1, max_batch=1)
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        for number in range(2):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
        others = [Foreign(engine.pub_event_from_thread, Ping(9)) for _ in range(3)]
        await until_parked(engine, 3)
        group.cancel_scope.cancel()
    for other in [*others, Foreign(engine.pub_event_from_thread, Ping(9))]:
        other.join()
        assert isinstance(other.error, EngineClosed)
    assert engine.report is not None
    assert engine.report.abandoned_events == {"Collects.on_ping": {"Ping": 2}}


async def test_threads_and_tasks_wait_in_one_queue() -> None:
    """A grant to a thread is delivered a pass later, and counts meanwhile: the limit holds."""
    app = Collects(is_open=False)
    most = 0
    async with AppEngine([app], queue_size=2, max_batch=1) as engine, anyio.create_task_group() as group:
        others = []
        for number in range(20):
            if number % 2:
                others.append(Foreign(engine.pub_event_from_thread, Ping(number)))
            else:
                group.start_soon(engine.pub_event, Ping(number))
        app.gate.set()
        while not all(other.is_done for other in others):
            most = max(most, engine.statistics().queued)
            await checkpoint()
    assert sorted(app.got) == list(range(20))
    assert most <= 2
    assert engine.statistics().over_limit == 0


# -- before, between and after ---------------------------------------------------------------------------------------


async def test_before_the_start_threads_fill_the_backlog_and_no_more() -> None:
    app = Collects()
    engine = AppEngine([app], max_backlog=50)
    others = [
        Foreign(publish, engine, METHODS[number % 2], *(Ping(100 * number + each) for each in range(20)))
        for number in range(4)
    ]
    for other in others:
        await other.wait()
    errors = [other.error for other in others if other.error is not None]
    assert errors
    assert all(isinstance(error, BacklogExceeded) and error.handler is None for error in errors)
    assert engine.statistics().backlog == 50
    async with engine:
        await engine.wait_idle()
    assert len(app.got) == 50
    for number in range(4):  # each thread's own in order
        own = [each for each in app.got if each // 100 == number]
        assert own == [100 * number + each for each in range(len(own))]


async def test_while_it_starts_a_foreign_thread_adds_to_the_backlog() -> None:
    app = Collects()
    engine = AppEngine([app], max_backlog=3)
    errors: list[BaseException | None] = []

    @engine.before_start
    async def setup() -> None:
        assert engine.state is EngineState.STARTING
        other = Foreign(engine.pub_events_from_thread, [Ping(number) for number in range(5)])
        await other.wait()
        errors.append(other.error)

    async with engine:
        await engine.wait_idle()
    assert [type(error) for error in errors] == [BacklogExceeded]
    assert app.got == [0, 1, 2]


async def test_after_the_end_it_is_closed_until_the_next_run() -> None:
    app = Collects()
    engine = AppEngine([app])
    for run in range(3):
        async with engine:
            await Foreign(engine.pub_event_from_thread, Ping(run)).wait()
        for method in METHODS:
            other = Foreign(publish, engine, method, Ping(99))
            await other.wait()
            assert isinstance(other.error, EngineClosed)
    assert app.got == [0, 1, 2]


async def test_no_events_are_no_publish() -> None:
    engine = AppEngine([Collects()])
    engine.pub_events_from_thread([])
    async with engine:
        await Foreign(engine.pub_events_from_thread, []).wait()
    other = Foreign(engine.pub_events_from_thread, [])
    await other.wait()
    assert other.error is None


# -- racing the end --------------------------------------------------------------------------------------------------

THREADS = 8
EACH = 125


class Race:
    """Threads that publish until the engine is closed, and what each of them was told."""

    def __init__(self, engine: AppEngine, seed: int) -> None:
        self.engine = engine
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.others = [
            Foreign(self._publish, number, random.Random(seed * 100 + number)) for number in range(THREADS)
        ]

    def _publish(self, number: int, chance: random.Random) -> None:
        for each in range(EACH):
            data = number * EACH + each
            try:
                if chance.random() < 0.5:
                    self.engine.pub_event_from_thread(Ping(data))
                else:
                    self.engine.pub_events_from_thread([Ping(data)])
            except EngineClosed:
                self.refused.append(data)
            else:
                self.accepted.append(data)

    def check(self, handled: list[int]) -> None:
        """*Design promise 4*: nobody hangs, and what was accepted was handled once or is in the report."""
        for other in self.others:
            other.join()
            assert other.error is None
        assert len(self.accepted) + len(self.refused) == THREADS * EACH
        report = self.engine.report
        assert report is not None
        assert set(handled) <= set(self.accepted)
        assert max(Counter(handled).values(), default=1) == 1
        assert report.accepted == len(self.accepted) == report.handled + report.abandoned
        assert report.handled == len(handled)


@pytest.mark.parametrize("end", ["stop", "stop in a thread", "cancel", "no grace"])
@pytest.mark.parametrize("seed", range(6))
async def test_publishes_that_race_the_end_are_accepted_or_refused(seed: int, end: str) -> None:
    chance = random.Random(seed)
    app = Collects()
    engine = AppEngine(
        [app],
        queue_size=chance.choice([1, 3, 1000]),
        max_batch=chance.choice([1, 7, 1000]),
        grace_period=0 if end == "no grace" else 10,
    )
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        race = Race(engine, seed)
        for _ in range(chance.randrange(200)):
            await checkpoint()
        if end == "cancel":
            group.cancel_scope.cancel()
        elif end == "stop in a thread":
            Foreign(engine.stop)
        else:
            engine.stop()
    race.check(app.got)


@pytest.mark.parametrize("seed", range(6))
def test_publishes_that_race_the_end_of_the_loop_never_hang(
    anyio_backend: tuple[str, dict[str, Any]], seed: int
) -> None:
    """The loop is gone the moment after the engine is: a wake-up may come too late for it."""
    chance = random.Random(seed)
    app = Collects()
    engine = AppEngine([app], queue_size=chance.choice([1, 3, 1000]))
    races: list[Race] = []

    @engine.on_event(Pong)
    async def stop(events: list[Pong]) -> None:
        races.append(Race(engine, seed))
        for _ in range(chance.randrange(100)):
            await checkpoint()
        engine.stop()

    engine.pub_event_from_thread(Pong(1))
    engine.start(*anyio_backend)
    report = engine.report
    assert report is not None
    (race,) = races
    for other in race.others:
        other.join()
        assert other.error is None
    assert report.accepted - 1 == len(race.accepted) == len(app.got)
    assert len(race.accepted) + len(race.refused) == THREADS * EACH
    assert sorted(app.got) == sorted(race.accepted)


@pytest.mark.parametrize("seed", range(4))
def test_the_loop_is_torn_down_under_threads_that_wait(
    anyio_backend: tuple[str, dict[str, Any]], seed: int
) -> None:
    """The program's main task fails while threads wait at full lanes and others come."""
    app = Collects(is_open=False)
    engine = AppEngine([app], queue_size=1, max_batch=1)
    others: list[Foreign] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            others.extend(
                Foreign(engine.pub_events_from_thread, [Ping(number) for number in range(100)])
                for _ in range(THREADS)
            )
            await until_parked(engine, seed)
            raise OSError("main")

    name, options = anyio_backend
    with pytest.raises(ExceptionGroup):
        anyio.run(main, backend=name, backend_options=options)
    for other in others:
        other.join()
        assert isinstance(other.error, EngineClosed)
    report = engine.report
    assert report is not None
    assert report.accepted == report.abandoned


async def test_stop_from_many_threads_is_one_stop() -> None:
    app = Collects()
    engine = AppEngine([app])
    for _ in range(20):
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            await engine.pub_event(Ping(1))
            stops = [Foreign(engine.stop) for _ in range(THREADS)]
        for stop in stops:
            stop.join()
            assert stop.error is None
        assert engine.report is not None
        assert engine.report.handled == 1


# Regression: only the first of several that came looked whether there was a loop, and the others hung.
@pytest.mark.parametrize("is_full", [False, True])
def test_a_loop_that_is_closed_under_the_engine_leaves_no_thread_waiting(
    monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """By hand, and with the task of `run()` still pending: only a loop of asyncio can be. Nobody tells the engine."""
    monkeypatch.setattr("event_flow.core.inbox.LOOK_AFTER", 0.01)
    app = Collects(is_open=not is_full)
    engine = AppEngine([app], queue_size=1, max_batch=1)
    others: list[Foreign] = []
    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(engine.run()))
        await engine.wait_running()
        if is_full:
            others.extend(Foreign(engine.pub_event_from_thread, Ping(number)) for number in range(5))
            await until_parked(engine, 2)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    others.append(Foreign(engine.pub_event_from_thread, Ping(6)))
    loop.close()
    others.append(Foreign(engine.pub_event_from_thread, Ping(7)))
    for other in others:
        other.join()
    assert {type(other.error) for other in others[-2:]} == {EngineClosed}
    assert {type(other.error) for other in others} <= {EngineClosed, type(None)}
    for pending in tasks:
        pending._log_destroy_pending = False  # type: ignore[attr-defined]
        with suppress(RuntimeError):
            pending.get_coro().close()
    gc.collect()


def test_a_timeout_error_is_an_answer_like_any_other() -> None:
    """*Regression*: it was taken for no answer yet, and the thread asked again for ever."""
    calls: list[object] = []
    inbox = Inbox(Bus(max_backlog=0))
    inbox.open(calls.append)
    request = Request([Ping(1)])
    request.answer.set_exception(TimeoutError("mine"))
    with pytest.raises(TimeoutError, match="mine"):
        inbox._wait(request)
    assert calls == []


@pytest.mark.parametrize("event", [Ping(1), Unwanted(1)], ids=["wanted", "unwanted"])
async def test_wait_idle_waits_for_what_a_thread_has_published_but_the_loop_not_seen(
    event: Event[int],
) -> None:
    app = Collects()
    async with AppEngine([app]) as engine:
        with foreign(engine.pub_event_from_thread, event):
            while engine._inbox.is_empty:  # the loop gets no turn meanwhile
                time.sleep(0.001)  # noqa: ASYNC251
            with anyio.fail_after(SOON):
                await engine.wait_idle()
            statistics = engine.statistics()
            assert statistics.handled + statistics.unhandled == 1


async def test_a_request_that_was_granted_and_not_resumed_at_the_end_is_refused_and_gives_its_place_back() -> (
    None
):
    """*Design promise 5*: the thread was told `EngineClosed`, so nothing of it may be delivered any more."""
    desk = Desk()
    lane = desk.lane(A, queued=1)
    desk.open()
    calls: list[Callable[[], object]] = []
    inbox = Inbox(desk.bus)
    inbox.open(calls.append)
    with foreign(inbox.publish, [A(1)]) as other:
        await until(lambda: bool(calls))
        calls.pop()()  # it is looked at, and parked
        await desk.take(lane)
        assert lane.reserved == 1
        inbox.close()
        await other.wait()
        assert isinstance(other.error, EngineClosed)
        assert (lane.reserved, lane.queued) == (0, 0)
        calls.pop()()  # its turn comes too late
    assert (lane.reserved, lane.queued) == (0, 0)
    desk.bus.close()


@pytest.mark.parametrize(
    "options", [{"linger": 60, "max_batch": 2}, {"linger": 60, "max_batch": 2, "key": lambda _: 0}]
)
async def test_a_thread_publishes_to_a_handler_whose_batches_wait_for_company(
    options: dict[str, Any],
) -> None:
    """*Regression*: what is called on the loop for a thread could not ask asyncio for the time."""
    engine = AppEngine()
    got: list[int] = []

    @engine.on_event(Ping, **options)
    async def collect(pings: list[Ping]) -> None:
        got.extend(ping.data for ping in pings)

    async with engine:
        with foreign(publish, engine, "pub_events_from_thread", Ping(1), Ping(2)) as thread:
            await thread.wait()
        assert thread.error is None
        await engine.wait_idle()
    assert got == [1, 2]


async def test_a_thread_publishes_to_a_handler_that_drops() -> None:
    """*Regression*: likewise, to tell of it in the log at most once a minute."""
    engine = AppEngine()
    got: list[int] = []

    @engine.on_event(Ping, queue_size=1, overflow="drop_oldest")
    async def collect(pings: list[Ping]) -> None:
        got.extend(ping.data for ping in pings)

    async with engine:
        with foreign(publish, engine, "pub_events_from_thread", Ping(1), Ping(2)) as thread:
            await thread.wait()
        assert thread.error is None
        await engine.wait_idle()
    assert got == [2]

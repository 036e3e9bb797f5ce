"""The seven promises of the design, each forced once under its own name.

What Hypothesis does against them is in files of their own: `test_any_traffic` plays a whole engine step by step,
`test_any_isolation` two of them side by side, `test_any_life` its starts and ends, `test_any_admission` the part that
decides; `test_any_program` draws a whole program at once.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from event_flow import AppEngine, Application, EngineClosed, EngineState, Event, on_event, task


class A(Event[int]):
    pass


class B(Event[int]):
    pass


class Gated(Application):
    """Its handler waits at a gate and then writes down what it got."""

    def __init__(self, *, is_open: bool = False) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.seen: list[int] = []
        self.batches: list[int] = []
        if is_open:
            self.gate.set()

    async def on_a(self, events: list[A]) -> None:
        await self.gate.wait()
        self.batches.append(len(events))
        self.seen += [event.data for event in events]


class Free(Application):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    async def on_a_or_b(self, events: list[A | B]) -> None:
        self.seen += [event.data for event in events]


# -- each promise, forced --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [1, 3, 1000])
@pytest.mark.parametrize("max_batch", [1, 2, 1000])
async def test_order(queue_size: int, max_batch: int) -> None:
    """*Design promise 1*: whatever way the events of one publisher take (the open batch, the slow path, waiting)."""
    app = Gated()

    async def publish(publisher: int) -> None:
        base = publisher * 100
        for number in range(10):
            await engine.pub_event(A(base + number))
        await engine.pub_events(A(base + number) for number in range(10, 20))
        for number in range(20, 30):
            try:
                engine.pub_event_nowait(A(base + number))
            except anyio.WouldBlock:
                await engine.pub_event(A(base + number))

    engine = AppEngine([app], queue_size=queue_size, max_batch=max_batch)
    async with engine, anyio.create_task_group() as group:
        for publisher in range(3):
            group.start_soon(publish, publisher)
        await anyio.wait_all_tasks_blocked()
        app.gate.set()
    for publisher in range(3):
        mine = [number % 100 for number in app.seen if number // 100 == publisher]
        assert mine == list(range(30))
    assert max(app.batches) <= max_batch


async def test_bounded() -> None:
    """*Design promise 2*: with the last handler stuck, a pipeline fills up to its limits, and then its source waits."""
    gate = anyio.Event()
    stages: list[type[Event[int]]] = [type(f"Stage{number}", (Event,), {}) for number in range(4)]
    engine = AppEngine(queue_size=3, max_batch=2, grace_period=0)
    made = 0

    def add_stage(number: int) -> None:
        @engine.on_event(stages[number])
        async def pass_on(events: list[Event[int]]) -> None:
            if number == len(stages) - 1:
                await gate.wait()
            else:
                for event in events:
                    await engine.pub_event(stages[number + 1](event.data))

    for number in range(len(stages)):
        add_stage(number)

    async def publish_for_ever() -> None:
        nonlocal made
        while True:
            await engine.pub_event(stages[0](made))
            made += 1

    async with engine, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(publish_for_ever)
        await anyio.wait_all_tasks_blocked()
        statistics = engine.statistics()
        assert [handler.queued for handler in statistics.handlers.values()] == [3, 3, 3, 3]
        assert all(1 <= handler.running <= 2 for handler in statistics.handlers.values())
        assert statistics.over_limit == 0
        full = made
        await anyio.wait_all_tasks_blocked()
        assert made == full <= 4 * (3 + 2)
        group.cancel_scope.cancel()


@pytest.mark.virtual_clock
@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("queue_size", [1, 2])
@pytest.mark.parametrize("children", [0, 3])
async def test_no_deadlock(length: int, queue_size: int, children: int) -> None:
    """*Design promise 3*: a ring of handlers with full queues, that publish themselves or in child tasks. On a virtual
    clock whoever would wait for ever is at the deadline at once."""
    ring: list[type[Event[int]]] = [type(f"Ring{number}", (Event,), {}) for number in range(length)]
    engine = AppEngine(queue_size=queue_size, max_batch=2)
    ended = 0

    def add_link(number: int) -> None:
        @engine.on_event(ring[number])
        async def pass_on(events: list[Event[int]]) -> None:
            nonlocal ended
            after = ring[(number + 1) % length]
            for event in events:
                if not event.data:
                    ended += 1
                elif not children:
                    await engine.pub_event(after(event.data - 1))
                else:
                    async with anyio.create_task_group() as group:
                        group.start_soon(engine.pub_event, after(event.data - 1))
                        for _ in range(children - 1):
                            group.start_soon(engine.pub_event, after(0))

    for number in range(length):
        add_link(number)
    with anyio.fail_after(1000):
        async with engine:
            async with anyio.create_task_group() as group:
                for number in range(3 * length * queue_size):
                    group.start_soon(engine.pub_event, ring[number % length](5))
            await engine.wait_idle()
    assert ended == 3 * length * queue_size * (1 + 5 * max(children - 1, 0))
    assert engine.report is not None
    assert engine.report.is_clean


async def test_no_deadlock_of_threads() -> None:
    """*Design promise 3*: sync handlers in a ring, and one place for all their threads. What hangs is ended by the timeout."""
    seen: list[int] = []

    class Ring(Application):
        @on_event(A)
        def first(self, events: list[A]) -> None:
            seen.extend(event.data for event in events)
            self.engine.pub_events_from_thread(B(event.data - 1) for event in events if event.data)

        @on_event(B)
        def second(self, events: list[B]) -> None:
            seen.extend(event.data for event in events)
            for event in events:
                if event.data:
                    self.engine.pub_event_from_thread(A(event.data - 1))

    async with AppEngine([Ring()], queue_size=1, max_batch=1, max_threads=1) as engine:
        for _ in range(4):
            await engine.pub_event(A(6))
        await engine.wait_idle()
        assert engine.statistics().over_limit > 0
    assert sorted(seen) == sorted([*range(7)] * 4)


@pytest.mark.parametrize("ending", ["drain", "no grace", "cancel"])
async def test_exactly_once_in_process(ending: str) -> None:
    """*Design promise 4*: done, failed or abandoned, every accepted delivery is in the report once."""
    stuck = Gated(is_open=ending == "drain")
    failing: list[int] = []

    class Fails(Application):
        async def on_a(self, events: list[A]) -> None:
            failing.extend(event.data for event in events)
            raise ValueError

    engine = AppEngine(
        [stuck, Fails(), Free()], queue_size=6, max_batch=2, grace_period=10 if ending == "drain" else 0
    )
    for number in range(3):
        await engine.pub_event(A(number))
    with anyio.CancelScope() as scope:
        async with engine:
            await engine.pub_events(A(number) for number in range(3, 6))
            await anyio.wait_all_tasks_blocked()
            if ending == "cancel":
                scope.cancel()
    report = engine.report
    assert report is not None
    assert sorted(failing) == list(range(6))
    assert (report.accepted, report.failed) == (18, 6)
    if ending == "drain":
        assert sorted(stuck.seen) == list(range(6))
        assert (report.handled, report.abandoned) == (12, 0)
    else:
        assert not stuck.seen
        assert (report.handled, report.abandoned) == (6, 6)
        assert report.abandoned_events == {"Gated.on_a": {"A": 6}}


@pytest.mark.parametrize("when", ["parked", "cancelled, then granted", "granted, then cancelled"])
@pytest.mark.parametrize("batch", [False, True], ids=["pub_event", "pub_events"])
async def test_all_or_nothing(when: str, batch: bool) -> None:
    """*Design promise 5*: a cancelled publish reaches neither the full handler nor the one with room, and the place it
    was given goes to the next. One that was granted first is made: no backend cancels a wait that was answered."""
    stuck, free = Gated(), Free()
    made: list[int] = []

    async def publish(number: int, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await (engine.pub_events([A(number)]) if batch else engine.pub_event(A(number)))
            made.append(number)

    async with (
        AppEngine([stuck, free], queue_size=1, max_batch=1) as engine,
        anyio.create_task_group() as group,
    ):
        for number in range(2):
            await engine.pub_event(A(number))
            await anyio.wait_all_tasks_blocked()
        scope = await group.start(publish, 98)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(publish, 99)
        await anyio.wait_all_tasks_blocked()
        full, other = engine._bus.router.lanes
        assert len(full.waiters) == 2
        if when == "cancelled, then granted":
            scope.cancel()
        if when != "parked":
            # As when the worker takes a batch, but nobody gets a turn between this and the cancellation.
            full.queue_size += 1
            engine._bus.room.grant(full)
            assert (full.reserved, other.reserved) == (1, 1)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert made == {"parked": [], "cancelled, then granted": [99], "granted, then cancelled": [98]}[when]
        assert (full.reserved, other.reserved) == (0, 0)
        stuck.gate.set()
    expected = [0, 1, 98, 99] if when == "granted, then cancelled" else [0, 1, 99]
    assert stuck.seen == expected
    assert free.seen == expected


async def test_isolation() -> None:
    """*Design promise 6*: a stuck handler with a full lane and publishers waiting, and one that fails always."""
    stuck, free = Gated(), Free()

    class Fails(Application):
        async def on_a(self, events: list[A]) -> None:
            raise ValueError

    class Wants(Application):
        seen = 0

        async def on_b(self, events: list[B]) -> None:
            self.seen += len(events)

    other = Wants()
    async with (
        AppEngine([stuck, free, Fails(), other], queue_size=2, max_batch=1) as engine,
        anyio.create_task_group() as group,
    ):
        for number in range(6):
            group.start_soon(engine.pub_event, A(number))
            await anyio.wait_all_tasks_blocked()
        assert (
            len(free.seen) == 3
        )  # what the stuck handler runs and has queued; the others wait, all or nothing
        for number in range(100):
            await engine.pub_event(B(number))
        await anyio.wait_all_tasks_blocked()
        assert other.seen == 100
        assert free.seen[3:] == list(range(100))
        stuck.gate.set()
    assert stuck.seen == list(range(6))


class Witness(Application):
    def __init__(self, name: str, diary: list[str], *, fails: bool = False) -> None:
        super().__init__(name)
        self.diary = diary
        self.fails = fails

    async def before_start(self) -> None:
        await checkpoint()
        if self.fails:
            raise OSError(self.name)
        self.diary.append(f"{self.name} starts")

    async def on_b(self, events: list[B]) -> None:
        raise SystemExit(3)

    @task
    async def live(self) -> None:
        await anyio.sleep_forever()

    async def exit(self) -> None:
        await checkpoint()
        self.diary.append(f"{self.name} exits")


async def stopped(engine: AppEngine) -> None:
    async with engine:
        await anyio.wait_all_tasks_blocked()


async def cancelled(engine: AppEngine) -> None:
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        group.cancel_scope.cancel()


async def body_fails(engine: AppEngine) -> None:
    with suppress(KeyError):
        async with engine:
            raise KeyError


async def handler_exits(engine: AppEngine) -> None:
    await engine.pub_event(B(1))
    with pytest.raises(SystemExit):
        await engine.run()


async def start_fails(engine: AppEngine) -> None:
    engine.add_app(Witness("broken", [], fails=True))
    with pytest.raises(OSError, match="broken"):
        await engine.run()


@pytest.mark.parametrize("end", [stopped, cancelled, body_fails, handler_exits, start_fails])
async def test_clean_end(end: Callable[[AppEngine], Awaitable[None]]) -> None:
    """*Design promise 7*: every way to end runs each `exit` once, in reverse, and leaves no task and no signal handler."""
    diary: list[str] = []
    tasks = len(anyio.get_running_tasks())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    engine = AppEngine([Witness("one", diary), Witness("two", diary)])

    @engine.exit
    async def last() -> None:
        diary.append("engine exits")

    await end(engine)
    assert diary == ["one starts", "two starts", "two exits", "one exits", "engine exits"]
    assert engine.state is EngineState.STOPPED
    assert len(anyio.get_running_tasks()) == tasks
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    for lane in engine._bus.router.lanes:
        assert lane.send_stream.statistics().open_send_streams == 0
        assert lane.send_stream.statistics().open_receive_streams == 0
    with pytest.raises(EngineClosed):
        await engine.pub_event(A(1))

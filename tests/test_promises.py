"""The seven promises of the design: each forced once under its own name, then all of them for whatever Hypothesis finds.

`Admission` is the part that decides (lanes, room, grants) without anything that runs; `test_any_program_...` are whole
engines on a virtual clock (`programs`); `Life` is one engine that is started, stopped and broken again and again.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import Enum
from threading import get_ident
from typing import Any, TypeVar

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from programs import Program, execute, programs

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    EngineClosed,
    EngineState,
    Event,
    ExitTimeout,
    StartTimeout,
    SubApplication,
    on_event,
    task,
)
from event_flow.core.bus import Bus
from event_flow.core.lane import Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.publishing import Publisher
from event_flow.core.room import Waiter
from event_flow.testing.clock import virtual_clock

T = TypeVar("T")

BACKENDS = ["asyncio", "trio"]

# Hypothesis may take five minutes to make a failing example small; cut off before, it would never be shown. Nothing in these
# tests can hang for longer than their virtual clocks allow.
time_to_shrink = pytest.mark.timeout(400)


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


# -- any program on a whole engine -----------------------------------------------------------------------------------


@time_to_shrink
@pytest.mark.parametrize("backend", BACKENDS)
@settings(print_blob=True)
@given(program=programs, randomness=st.random_module())
def test_any_program_keeps_the_promises(backend: str, program: Program, randomness: object) -> None:
    """*Design promises 1 to 7*. The order in which Trio runs its tasks is drawn too (`randomness` seeds it)."""
    execute(program, backend).judge()


# -- any order of admissions, grants and cancellations ---------------------------------------------------------------

CLASSES: list[type[Event[int]]] = [type(f"Class{number}", (Event,), {}) for number in range(3)]


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, but may give turns to others."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as done:
            result: T = done.value
            return result


class LaneModel:
    """A lane as a list: what was delivered to it, in order, and how far the handler has come."""

    def __init__(self, lane: Lane, wants: frozenset[type[Event[int]]]) -> None:
        self.lane = lane
        self.wants = wants
        self.delivered: list[Event[int]] = []
        self.taken = 0
        self.call: Origin | None = None
        self.passed = 0  # at most so many events went over the limit

    @property
    def queued(self) -> int:
        return len(self.delivered) - self.taken


class Admission(RuleBasedStateMachine):
    """The bus and its lanes, with the tests as workers and publishers; a list is the model of each lane.

    A publish that waits is held as its `Waiter`: parked, granted (it was notified and has a place in each of its lanes),
    or refused. Publishes come from outside, or from the live call of a handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus(max_backlog=0)
        self.lanes: list[LaneModel] = []
        self.parked: list[Waiter] = []
        self.notified: list[Waiter] = []
        self.is_draining = False

    @initialize(
        lanes=st.lists(
            st.tuples(
                st.frozensets(st.sampled_from(CLASSES), min_size=1),
                st.integers(1, 3),
                st.integers(1, 4),
            ),
            min_size=1,
            max_size=3,
        ),
        max_backlog=st.sampled_from([0, 2, 1000]),
    )
    def build(self, lanes: list[tuple[frozenset[type[Event[int]]], int, int]], max_backlog: int) -> None:
        self.bus = Bus(max_backlog=max_backlog)
        for number, (wants, queue_size, max_batch) in enumerate(lanes):
            lane = Lane(f"lane{number}", "app", print, queue_size=queue_size, max_batch=max_batch)
            self.bus.router.add(lane, wants)
            self.lanes.append(LaneModel(lane, wants))
        self.bus.thread = get_ident()
        self.bus.open()
        self.publisher = Publisher()
        self.publisher._use_bus(self.bus)

    # -- publishing --------------------------------------------------------------------------------------------

    @rule(
        event_class=st.sampled_from(CLASSES), who=st.integers(-1, 2), how=st.sampled_from(["nowait", "fast"])
    )
    def publish_now(self, event_class: type[Event[int]], who: int, how: str) -> None:
        """`pub_event_nowait`, or a `pub_event` that is given up as soon as it waits: they agree with the model."""
        event, origin = event_class(0), self._origin(who)
        expected = self._predict(event, origin)
        assert self._outcome(self._publish_now, event, origin, how) == expected
        if expected == "made":
            self._note_delivery(event, origin)

    def _publish_now(self, event: Event[int], origin: Origin | None, how: str) -> str:
        token = current_origin.set(origin)
        try:
            if how == "nowait":
                self.publisher.pub_event_nowait(event)
                return "made"
            publish = self.publisher.pub_event(event)
            publish.send(None)
        except (StopIteration, anyio.WouldBlock) as exc:
            return "waits" if isinstance(exc, anyio.WouldBlock) else "made"
        finally:
            current_origin.reset(token)
        publish.close()  # it waits for room: cancelled there
        return "waits"

    @rule(event_class=st.sampled_from(CLASSES), who=st.integers(-1, 2), times=st.integers(1, 4))
    def publish(self, event_class: type[Event[int]], who: int, times: int) -> None:
        for _ in range(times):
            self._publish(event_class(0), self._origin(who))

    def _publish(self, event: Event[int], origin: Origin | None) -> None:
        expected = self._predict(event, origin)

        def admit() -> str:
            waiter = self.bus.admit(event, origin)
            if waiter is None:
                return "made"
            waiter.notify = lambda: self._notify(waiter)
            self.parked.append(waiter)
            return "waits"

        assert self._outcome(admit) == expected
        if expected == "made":
            self._note_delivery(event, origin)

    @staticmethod
    def _outcome(publish: Callable[..., str], *args: Any) -> str:
        try:
            return publish(*args)
        except BacklogExceeded:
            return "backlog"
        except EngineClosed:
            return "closed"

    def _predict(self, event: Event[int], origin: Origin | None) -> str:
        own = self._lane_of(origin)
        if self.is_draining and own is None:
            return "closed"
        for model in self._lanes_of(event):
            full = self._room(model) <= 0 or any(waiter.parked_at is model.lane for waiter in self.parked)
            if full and not (own and own in self._waited_for_by(model)):
                return "waits"
            if full and -self._room(model) >= self.bus.room.max_backlog:
                return "backlog"
        return "made"

    def _notify(self, waiter: Waiter) -> None:
        self.parked.remove(waiter)  # fails if it is notified twice
        self.notified.append(waiter)

    @precondition(lambda self: self.notified)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        """A publish that was notified gets its turn: it delivers, or raises what refused it."""
        waiter = data.draw(st.sampled_from(self.notified))
        self._wake(waiter)

    def _wake(self, waiter: Waiter) -> None:
        may_publish = not self.is_draining or self._lane_of(waiter.origin) is not None
        was_granted = waiter.granted
        self.notified.remove(waiter)

        def complete() -> str:
            self.bus.complete(waiter)
            return "made"

        outcome = self._outcome(complete)
        if was_granted:
            assert outcome == ("made" if may_publish else "closed")
        else:
            assert outcome in ("backlog", "closed")
        if outcome == "made":
            self._note_delivery(waiter.event, waiter.origin)

    @precondition(lambda self: self.notified or self.parked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A publish is cancelled while it is parked, or after it was granted and before its turn."""
        waiter = data.draw(st.sampled_from([*self.notified, *self.parked]))
        (self.parked if waiter in self.parked else self.notified).remove(waiter)
        with self._arrival_is_kept():
            self.bus.room.withdraw(waiter)

    # -- handling ----------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 2))
    def work(self, number: int) -> None:
        """A worker goes on: to its next batch, or to the end of its call. What that left behind is outside from now on."""
        model = self.lanes[number % len(self.lanes)]
        if not self._take(model):
            self._finish(model)

    @rule(number=st.integers(0, 2))
    def wait(self, number: int) -> None:
        """A worker finds nothing to do."""
        model = self.lanes[number % len(self.lanes)]
        if model.call is None and not model.queued:
            model.lane.arrival = anyio.Event()

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        self._take(self.lanes[number % len(self.lanes)])

    def _take(self, model: LaneModel) -> bool:
        lane = model.lane
        if model.call is not None or not model.queued:
            return False
        batch = at_once(lane.next_batch())
        assert batch is not None
        assert 1 <= len(batch) <= lane.max_batch
        assert batch == model.delivered[model.taken : model.taken + len(batch)]
        model.taken += len(batch)
        with self._arrival_is_kept():
            if lane.waiters:
                self.bus.room.grant(lane)
        assert lane.running == len(batch)
        model.call = Origin(self.bus, Kind.CALL, lane)
        return True

    def _finish(self, model: LaneModel) -> bool:
        if model.call is None:
            return False
        model.lane.handled += model.lane.running
        model.call.end()
        model.call = None
        model.lane.running = 0
        self.bus.activity.rest(model.lane)
        return True

    @precondition(lambda self: not self.is_draining)
    @rule(often=st.integers(0, 9))
    def stop(self, often: int) -> None:
        if often:
            return  # most runs go on
        self.is_draining = True
        outside = [waiter for waiter in self.parked if self._lane_of(waiter.origin) is None]
        self.bus.refuse_outsiders()
        assert all(isinstance(waiter.error, EngineClosed) for waiter in outside)
        assert not set(outside) & set(self.parked)

    # -- the model ---------------------------------------------------------------------------------------------

    def _origin(self, who: int) -> Origin | None:
        return self.lanes[who % len(self.lanes)].call if who >= 0 else None

    def _lane_of(self, origin: Origin | None) -> LaneModel | None:
        if origin is None or not origin.live:
            return None
        return next(model for model in self.lanes if model.lane is origin.lane)

    def _lanes_of(self, event: Event[int]) -> list[LaneModel]:
        return [model for model in self.lanes if type(event) in model.wants]

    def _note_delivery(self, event: Event[int], origin: Origin | None) -> None:
        for model in self._lanes_of(event):
            model.delivered.append(event)
            model.passed += origin is not None

    def _granted(self, model: LaneModel) -> int:
        return sum(waiter.granted and model.lane in waiter.lanes for waiter in self.notified)

    def _room(self, model: LaneModel) -> int:
        return model.lane.queue_size - model.queued - self._granted(model)

    def _waited_for_by(self, start: LaneModel) -> list[LaneModel]:
        """`start`, and every lane that it waits for, over however many others."""
        edges = [
            (
                self._lane_of(waiter.origin),
                next(model for model in self.lanes if model.lane is waiter.parked_at),
            )
            for waiter in self.parked
        ]
        reached = [start]
        for lane in reached:
            reached += {after for before, after in edges if before is lane} - set(reached)
        return reached

    class _Arrival:
        """Who waits at one lane for one lane only is granted in order of arrival: whoever is left came later."""

        def __init__(self, machine: Admission) -> None:
            self.machine = machine

        def __enter__(self) -> None:
            self.before = [
                [waiter for waiter in model.lane.waiters if len(waiter.lanes) == 1]
                for model in self.machine.lanes
            ]

        def __exit__(self, *_: object) -> None:
            for queue in self.before:
                notified = [waiter in self.machine.notified for waiter in queue]
                assert notified == sorted(notified, reverse=True)

    def _arrival_is_kept(self) -> _Arrival:
        return self._Arrival(self)

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def numbers_are_those_of_the_model(self) -> None:
        for model in self.lanes:
            lane = model.lane
            assert lane.queued == model.queued
            assert lane.reserved == self._granted(model)
            assert lane.room == self._room(model)
            assert lane.accepted == len(model.delivered)
            assert lane.busy == bool(model.queued or model.call or lane.reserved)
            assert not (lane.arrival and lane.queued), "a worker was not woken"
            assert lane.waiters.keys() == {waiter for waiter in self.parked if waiter.parked_at is lane}
        assert self.bus.activity.busy_lanes == sum(model.lane.busy for model in self.lanes)

    @invariant()
    def nobody_waits_where_there_is_room(self) -> None:
        """One grant for each place: not fewer."""
        assert not [model.lane for model in self.lanes if model.lane.waiters and self._room(model) > 0]

    @invariant()
    def lanes_are_bounded(self) -> None:
        """One grant for each place: not more. Only who publishes from a handler may pass, and each of those is counted."""
        for model in self.lanes:
            inside = sum(waiter.origin is not None and model.lane in waiter.lanes for waiter in self.notified)
            assert -self._room(model) <= model.passed + inside
            assert model.queued - model.lane.queue_size <= model.lane.over_limit <= model.passed + inside

    @invariant()
    def the_allowance_promises_no_more_than_there_is(self) -> None:
        for model in self.lanes:
            lane = model.lane
            if lane.allowance > len(lane.open):
                assert lane.open
                assert not lane.waiters
                assert not self.is_draining
                assert lane.allowance - len(lane.open) <= self._room(model)
                assert lane.allowance <= lane.max_batch

    @invariant()
    def no_circle_of_waits(self) -> None:
        for waiter in self.parked:
            own = self._lane_of(waiter.origin)
            if own is not None:
                at = next(model for model in self.lanes if model.lane is waiter.parked_at)
                assert own not in self._waited_for_by(at)

    def teardown(self) -> None:
        """Handlers that go on as long as they can come to an end, and then nothing waits; what is queued is abandoned."""
        try:
            self._go_on()
            assert not self.parked, "a deadlock"
            assert all(model.lane.handled == len(model.delivered) for model in self.lanes)
        finally:
            self.bus.close()

    def _go_on(self) -> None:
        """Calls end once none of their publishes waits."""
        progress = True
        while progress:
            progress = bool(self.notified)
            for waiter in list(self.notified):
                self._wake(waiter)
            for model in self.lanes:
                waits = any(waiter.origin is model.call for waiter in [*self.parked, *self.notified])
                progress |= self._take(model) or (not waits and self._finish(model))


# Of the profile's examples, which the machines stretch: each is many steps. Not the explain phase: it traces every line, and a
# failure would be cut off by the test's timeout before it is shown.
PHASES = [phase for phase in Phase if phase is not Phase.explain]


def run_machine(machine: type[RuleBasedStateMachine], *, steps: int, share: int = 1) -> None:
    examples = max(5, settings().max_examples // share)
    used = settings(stateful_step_count=steps, max_examples=examples, phases=PHASES, print_blob=True)
    run_state_machine_as_test(machine, settings=used)


@time_to_shrink
def test_any_order_of_admissions_keeps_the_promises() -> None:
    """*Design promises 1 to 5*. In a loop, because a lane is made in one; nothing in here waits, so any will do."""

    async def in_loop() -> None:
        run_machine(Admission, steps=50)

    anyio.run(in_loop, backend_options={"debug": False})


# -- any life of an engine -------------------------------------------------------------------------------------------

HOUR = 3600.0


class Mood(Enum):
    """What a hook does when it is called."""

    WELL = "returns"
    FAILS = "raises"
    HANGS = "never returns"


class Moody:
    """An application and its sub-applications, with hooks that do what they are told to, and one handler.

    A stuck handler never returns; then what it was given is abandoned.
    """

    def __init__(self, name: str, diary: list[str]) -> None:
        super().__init__(name)  # type: ignore[call-arg]
        self.title = name
        self.diary = diary
        self.start_mood = self.exit_mood = Mood.WELL
        self.is_stuck = False
        self.seen = 0

    async def before_start(self) -> None:
        self.diary.append(f"{self.title} starts")
        await self.act(self.start_mood)

    async def exit(self) -> None:
        self.diary.append(f"{self.title} exits")
        await self.act(self.exit_mood)

    async def act(self, mood: Mood) -> None:
        await checkpoint()
        if mood is Mood.FAILS:
            raise OSError(self.title)
        if mood is Mood.HANGS:
            await anyio.sleep_forever()

    @on_event(A)
    async def handle(self, events: list[A]) -> None:
        if self.is_stuck:
            await anyio.sleep_forever()
        self.seen += len(events)


class MoodyApplication(Moody, Application):
    pass


class MoodySubApplication(Moody, SubApplication):
    pass


class Life(RuleBasedStateMachine):
    """One engine on a virtual clock, in a loop of its own: after each step an hour passes, so that all timeouts are over."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        options = virtual_clock(self.backend)
        if self.backend == "asyncio":
            options["debug"] = False
        self.portal_manager = start_blocking_portal(self.backend, options)
        self.portal = self.portal_manager.__enter__()
        self.engine = AppEngine(grace_period=5, exit_timeout=5, start_timeout=5, max_backlog=3, queue_size=2)
        self.engine.exit(self._last_hook)
        self.diary: list[str] = []
        self.apps: list[MoodyApplication] = []
        self.nodes: list[Moody] = []  # in the order of the start
        self.kept = 0  # events published before the start
        self.accepted = 0  # events of this run
        self.raised: BaseException | None = None
        self.is_running = False
        self.has_run = False

    async def _last_hook(self) -> None:
        self.diary.append("engine exits")

    def teardown(self) -> None:
        try:
            if self.is_running:
                self._end(cancel=True)
        finally:
            self.portal_manager.__exit__(None, None, None)

    def _do(self, what: Callable[[], Any]) -> Any:
        """Do something in the loop, and let everything happen that follows from it."""

        async def step() -> Any:
            result = what()
            if isinstance(result, Awaitable):
                result = await result
            await anyio.sleep(HOUR)
            return result

        return self.portal.call(step)

    # -- what is done to it ------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_running and len(self.nodes) < 6)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        """Add an application, or a sub-application to any of those there are."""
        parent = data.draw(st.sampled_from([None, *self.nodes]))
        name = f"n{len(self.nodes)}"
        if parent is None:
            app = MoodyApplication(name, self.diary)
            self.engine.add_app(app)
            self.apps.append(app)
        else:
            assert isinstance(parent, Application | SubApplication)
            parent.add_app(MoodySubApplication(name, self.diary))
        self.nodes = [node for app in self.apps for node in self._family(app)]

    def _family(self, app: Any) -> list[Moody]:
        return [app, *(node for child in app._sub_apps for node in self._family(child))]

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), start=st.sampled_from(Mood), exits=st.sampled_from(Mood), is_stuck=st.booleans())
    def change_mood(self, data: st.DataObject, start: Mood, exits: Mood, is_stuck: bool) -> None:
        node = data.draw(st.sampled_from(self.nodes))
        node.exit_mood = exits
        if not self.is_running:
            node.start_mood, node.is_stuck = start, is_stuck

    @rule()
    def publish(self) -> None:
        # A stuck handler runs what it got first; two more fit into its queue.
        full = self.is_running and any(node.is_stuck and self._queued(node) >= 2 for node in self.nodes)
        outcome = self._do(self._publish)
        if self.is_running:
            assert outcome == ("waits" if full else "made")
            self.accepted += not full
        elif self.has_run:
            assert outcome == "closed"
        else:
            assert outcome == ("made" if self.kept < 3 else "backlog")
            self.kept += outcome == "made"

    async def _publish(self) -> str:
        try:
            with anyio.fail_after(1):
                await self.engine.pub_event(A(1))
        except EngineClosed:
            return "closed"
        except BacklogExceeded:
            return "backlog"
        except TimeoutError:
            return "waits"
        return "made"

    def _queued(self, node: Moody) -> int:
        return self.engine.statistics().handlers[f"{node.title}.handle"].queued

    @precondition(lambda self: not self.is_running)
    @rule()
    def run(self) -> None:
        self.diary.clear()
        for node in self.nodes:
            node.seen = 0
        self.accepted, self.kept = self.kept, 0
        self.has_run = True
        self.raised = None
        self.portal.start_task_soon(self._host)
        self._do(checkpoint)
        bad = next((node for node in self.nodes if node.start_mood is not Mood.WELL), None)
        if bad is None:
            assert self.engine.state is EngineState.RUNNING
            assert self.diary == [f"{node.title} starts" for node in self.nodes]
            self.is_running = True
        else:
            started = self.nodes[: self.nodes.index(bad)]
            error = OSError if bad.start_mood is Mood.FAILS else StartTimeout
            self._has_ended([*started, bad], started, [error])

    async def _host(self) -> None:
        with anyio.CancelScope() as self.scope:
            try:
                await self.engine.run()
            except Exception as exc:
                self.raised = exc

    @precondition(lambda self: self.is_running)
    @rule(cancel=st.booleans())
    def end(self, cancel: bool) -> None:
        self._end(cancel)

    def _end(self, cancel: bool) -> None:
        self.is_running = False
        self._do(lambda: self.scope.cancel() if cancel else self.engine.stop())
        self._has_ended(self.nodes, self.nodes, [])

    # -- what must hold then -----------------------------------------------------------------------------------

    def _has_ended(self, called: list[Moody], started: list[Moody], errors: list[type[Exception]]) -> None:
        assert self.engine.state is EngineState.STOPPED
        starts = [f"{node.title} starts" for node in called]
        exits = [f"{node.title} exits" for node in reversed(started)]
        assert self.diary == [*starts, *exits, "engine exits"]
        of_mood = {Mood.FAILS: OSError, Mood.HANGS: ExitTimeout}
        errors += [of_mood[node.exit_mood] for node in reversed(started) if node.exit_mood is not Mood.WELL]
        raised = self.raised.exceptions if isinstance(self.raised, ExceptionGroup) else [self.raised]
        assert [type(error) for error in raised if error] == errors
        report = self.engine.report
        assert report is not None
        assert report.accepted == self.accepted * len(self.nodes)
        assert report.handled == sum(node.seen for node in self.nodes)
        assert report.abandoned == report.accepted - report.handled
        assert not report.tasks_left
        if started == self.nodes == called:
            assert all(node.is_stuck or node.seen == self.accepted for node in self.nodes)

    @invariant()
    def the_state_is_known(self) -> None:
        expected = EngineState.RUNNING if self.is_running else EngineState.STOPPED
        assert self.engine.state is (expected if self.has_run else EngineState.NEW)


@time_to_shrink
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_life_of_an_engine_ends_clean(backend: str) -> None:
    """*Design promises 4 and 7*, from one run to the next."""
    life = type("Life", (Life,), {"backend": backend})
    run_machine(life, steps=20, share=2)

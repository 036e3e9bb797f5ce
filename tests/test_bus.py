"""Admission: what a publish does when there is room, when there is none, before the start and at the end.

First the decisions on lanes without workers (`Desk`), then what publishers and handlers of an engine see of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial
from threading import get_ident
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from event_flow import (
    AppEngine,
    Application,
    BacklogExceeded,
    EngineClosed,
    EngineState,
    Event,
    ExceptionEvent,
    WrongThreadError,
    on_event,
)
from event_flow.core.bus import Bus
from event_flow.core.lane import YIELD_AFTER, Lane
from event_flow.core.origin import Kind, Origin
from event_flow.core.room import Waiter
from event_flow.core.routing import Router


class A(Event[int]):
    pass


class B(Event[int]):
    pass


class Both(Event[int]):
    pass


class SubA(A):
    pass


# -- decisions -------------------------------------------------------------------------------------------------------


class Desk:
    """A bus that runs, lanes without workers, and the names of those who were notified, in order."""

    def __init__(self, *, max_backlog: int = 100) -> None:
        self.bus = Bus(max_backlog=max_backlog)
        self.bus.thread = get_ident()
        self.notified: list[str] = []

    def lane(self, *events: type[Event[int]], queue_size: int = 1, queued: int = 0) -> Lane:
        lane = Lane(events[0].__name__, "App", queue_size=queue_size, max_batch=1)
        self.bus.router.add(lane, events)
        for _ in range(queued):
            self.bus.activity.make_busy(lane)
            lane.put(events[0](0))
        return lane

    def open(self) -> None:
        self.bus.open()

    def publish(self, name: str, event: Event[int], origin: Origin | None = None) -> Waiter:
        """A publish that has to wait."""
        waiter = self.bus.admit(event, origin)
        assert waiter is not None
        waiter.notify = lambda: self.notified.append(name)
        return waiter

    async def take(self, lane: Lane) -> Origin:
        """What a worker does: take a batch, grant the places it frees, begin a call."""
        await lane.next_batch()
        if lane.waiters:
            self.bus.room.grant(lane)
        return Origin(self.bus, Kind.CALL, lane)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.bus.close()


async def test_each_place_wakes_one_waiter_in_order_of_arrival(desk: Desk) -> None:
    """*Design D4*: never all of them."""
    lane = desk.lane(A, queue_size=3, queued=3)
    desk.open()
    waiters = [desk.publish(f"{number}", A(number)) for number in range(5)]
    await desk.take(lane)
    assert desk.notified == ["0"]
    await desk.take(lane)
    assert desk.notified == ["0", "1"]
    assert (lane.reserved, lane.room, lane.queued) == (2, 0, 1)
    for waiter in waiters[:2]:
        desk.bus.complete(waiter)
    assert (lane.reserved, lane.room, lane.queued) == (0, 0, 3)


async def test_who_comes_later_does_not_get_the_place_of_one_who_waits(desk: Desk) -> None:
    lane = desk.lane(A, queued=1)
    desk.open()
    desk.publish("first", A(0))
    await desk.take(lane)
    assert desk.notified == ["first"]
    desk.publish("second", A(1))  # the place is granted, although the queue is empty
    assert desk.notified == ["first"]
    lane.arrival = anyio.Event()  # the worker has come back and waits
    assert not desk.bus.deliver_to_one(A(2), lane)


async def test_who_waits_comes_first_even_where_there_is_room(desk: Desk) -> None:
    """*Design D4*: whoever gives room back is to grant it at once; until then nobody takes it."""
    lane, other = desk.lane(A, queued=1), desk.lane(Both)
    desk.open()
    desk.publish("first", A(0))
    desk.publish("second", A(1))
    lane.queue_size += 1
    assert lane.room > 0
    assert not desk.bus.deliver_to_one(A(2), lane)
    assert not desk.bus.deliver_now(A(2), (other, lane))
    assert (lane.queued, other.queued) == (1, 0)


async def test_an_idle_handler_is_not_woken_when_it_is_the_turn_of_others(desk: Desk) -> None:
    """*Design D2*: that takes the slow path too, which can yield."""
    lane = desk.lane(A)
    desk.open()
    lane.arrival = anyio.Event()
    desk.bus._unyielded = YIELD_AFTER
    assert not desk.bus.deliver_to_one(A(0), lane)
    desk.bus._unyielded = YIELD_AFTER - 1
    assert desk.bus.deliver_to_one(A(1), lane)
    assert desk.bus._unyielded == YIELD_AFTER


async def test_a_waiter_gets_all_its_lanes_at_once_and_holds_nothing_before(desk: Desk) -> None:
    """*Design D4*: parked at one full lane, then moved on to the next."""
    first, second, third = desk.lane(A, Both, queued=1), desk.lane(B, Both, queued=1), desk.lane(SubA, Both)
    desk.open()
    waiter = desk.publish("both", Both(0))
    assert waiter.parked_at is first
    await desk.take(first)
    assert waiter.parked_at is second
    assert [lane.reserved for lane in (first, second, third)] == [0, 0, 0]
    await desk.take(second)
    assert desk.notified == ["both"]
    assert [lane.reserved for lane in (first, second, third)] == [1, 1, 1]
    assert [lane.queued for lane in (first, second, third)] == [0, 0, 0]
    desk.bus.complete(waiter)
    assert [lane.queued for lane in (first, second, third)] == [1, 1, 1]


async def test_a_publish_to_fewer_lanes_may_overtake(desk: Desk) -> None:
    """*Design D4, promise 6*: who waits for another lane holds up nobody at this one."""
    first, second = desk.lane(A, Both, queued=1), desk.lane(B, Both, queued=1)
    desk.open()
    waiter = desk.publish("both", Both(0))
    await desk.take(first)
    assert waiter.parked_at is second
    assert desk.bus.admit(A(1), None) is None
    await desk.take(second)  # now the other one is full again
    assert waiter.parked_at is first
    assert (desk.notified, second.reserved) == ([], 0)


async def test_one_freed_place_is_offered_until_somebody_can_use_it(desk: Desk) -> None:
    first, second = desk.lane(A, Both, queued=1), desk.lane(B, Both, queued=1)
    desk.open()
    desk.publish("both", Both(0))
    desk.publish("single", A(1))
    await desk.take(first)
    assert desk.notified == ["single"]
    assert list(second.waiters) == [waiter for waiter in second.waiters if type(waiter.event) is Both]


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_publish_gives_its_place_to_the_next(desk: Desk, granted: bool) -> None:
    """*Design promise 5*."""
    lane, other = desk.lane(A, Both, queue_size=1, queued=1), desk.lane(B, Both, queue_size=5)
    desk.open()
    cancelled = desk.publish("cancelled", Both(0))
    desk.publish("next", A(1))
    if granted:
        await desk.take(lane)
        assert other.reserved == 1
        desk.bus.room.withdraw(cancelled)
    else:
        desk.bus.room.withdraw(cancelled)
        await desk.take(lane)
    assert desk.notified == (["cancelled", "next"] if granted else ["next"])
    assert (lane.reserved, other.reserved) == (1, 0)
    assert (lane.queued, other.queued) == (0, 0)
    assert not other.busy


async def test_a_granted_place_is_taken_from_what_the_open_batch_may_take_on(desk: Desk) -> None:
    """Else the fast path would give it away."""
    full, other = desk.lane(A, Both, queued=1), desk.lane(B, Both, queue_size=3)
    other.max_batch = 3
    desk.open()
    assert desk.bus.admit(B(0), None) is None
    assert other.allowance == 3
    desk.publish("granted", Both(0))
    await desk.take(full)
    assert other.allowance == 2


async def test_room_opens_the_allowance_again_when_the_last_waiter_has_left(desk: Desk) -> None:
    lane = desk.lane(A, queue_size=4)
    lane.max_batch = 4
    desk.open()
    for number in range(4):
        assert desk.bus.admit(A(number), None) is None
    waiter = desk.publish("waits", A(4))
    assert lane.allowance == 0
    await desk.take(lane)
    desk.bus.complete(waiter)
    assert lane.allowance == 4


@pytest.mark.parametrize("end", ["complete", "withdraw"])
async def test_a_granted_place_is_given_back_once(desk: Desk, end: str) -> None:
    lane = desk.lane(A, queued=1)
    desk.open()
    waiter = desk.publish("it", A(0))
    await desk.take(lane)
    if end == "complete":
        desk.bus.complete(waiter)
    else:
        desk.bus.room.withdraw(waiter)
    desk.bus.room.withdraw(waiter)
    assert lane.reserved == 0


async def test_a_publish_passes_only_where_waiting_would_close_a_circle(desk: Desk) -> None:
    """*Design D5*: the lane of `A` waits for that of `B`; so a call of `B` may not wait for `A`."""
    first, second = desk.lane(A, queued=2), desk.lane(B, queued=2)
    desk.open()
    call_a, call_b = await desk.take(first), await desk.take(second)
    desk.publish("a waits for b", B(0), call_a)
    assert desk.bus.admit(A(1), call_b) is None
    assert (first.over_limit, first.queued) == (1, 2)
    desk.publish("outside waits", A(2))
    assert (first.over_limit, second.over_limit) == (1, 0)


async def test_who_was_granted_a_place_is_not_counted_as_over_the_limit(desk: Desk) -> None:
    """*Design D5*: it is counted who passes."""
    lane = desk.lane(A, queued=1)
    desk.open()
    granted = desk.publish("granted", A(1))
    call = await desk.take(lane)
    assert desk.notified == ["granted"]
    assert desk.bus.admit(A(2), call) is None
    assert lane.over_limit == 1
    desk.bus.complete(granted)
    assert (lane.queued, lane.over_limit) == (2, 1)


async def test_a_cancelled_publish_is_not_counted_as_over_the_limit(desk: Desk) -> None:
    """*Design promise 5*: it took no place, over the limit or not."""
    first, second = desk.lane(A, Both, queued=2), desk.lane(B, Both, queued=1)
    desk.open()
    call = await desk.take(first)
    waiter = desk.publish("passes and waits", Both(0), call)
    await desk.take(second)
    assert desk.notified == ["passes and waits"]
    desk.bus.room.withdraw(waiter)
    assert (first.queued, first.over_limit) == (1, 0)


async def test_a_circle_is_seen_over_any_number_of_lanes(desk: Desk) -> None:
    classes: list[type[Event[int]]] = [type(f"Link{number}", (Event,), {}) for number in range(5)]
    lanes = [desk.lane(event_class, queued=2) for event_class in classes]
    desk.open()
    calls = [await desk.take(lane) for lane in lanes]
    for number in range(4):
        desk.publish(f"{number}", classes[number + 1](0), calls[number])
    assert desk.bus.admit(classes[0](0), calls[4]) is None
    assert [lane.over_limit for lane in lanes] == [1, 0, 0, 0, 0]


async def test_a_call_that_has_ended_waits_for_nothing(desk: Desk) -> None:
    """A task that outlives its call publishes from outside: nobody need pass because of it, and it may not."""
    first, second = desk.lane(A, queued=2), desk.lane(B, queued=2)
    desk.open()
    call_a, call_b = await desk.take(first), await desk.take(second)
    desk.publish("left behind", B(0), call_a)
    call_a.end()
    desk.publish("waits", A(1), call_b)
    desk.publish("own lane", A(2), call_a)
    assert (first.over_limit, second.over_limit) == (0, 0)


async def test_a_handler_of_an_engine_in_another_thread_waits_like_everybody_else(desk: Desk) -> None:
    """*Design D5*: its lane belongs to that thread, and is neither looked into nor written to from here."""
    lane = desk.lane(A, queued=2)
    desk.open()
    await desk.take(lane)
    elsewhere = Bus(max_backlog=0)
    elsewhere.thread = get_ident() + 1
    desk.publish("waits", A(1), Origin(elsewhere, Kind.CALL, lane))
    assert (lane.over_limit, list(lane.waits_for)) == (0, [])


async def test_a_publish_that_passes_one_lane_still_waits_for_another(desk: Desk) -> None:
    first, second = desk.lane(A, Both, queued=2), desk.lane(B, Both, queued=1)
    desk.open()
    call = await desk.take(first)
    waiter = desk.publish("passes and waits", Both(0), call)
    assert waiter.parked_at is second
    await desk.take(second)
    assert desk.notified == ["passes and waits"]
    desk.bus.complete(waiter)
    assert (first.over_limit, first.queued, second.over_limit) == (1, 2, 0)


async def test_a_waiter_that_is_moved_on_past_the_backlog_is_refused(desk: Desk) -> None:
    """*Design D5*: `BacklogExceeded` reaches a handler also while it waits."""
    desk.bus.room.max_backlog = 0
    first, second = desk.lane(A, Both, queued=1), desk.lane(B, Both, queued=1)
    desk.open()
    call = await desk.take(second)
    waiter = desk.publish("refused", Both(0), call)
    assert waiter.parked_at is first
    assert desk.bus.admit(B(1), None) is None
    await desk.take(first)
    assert desk.notified == ["refused"]
    with pytest.raises(BacklogExceeded, match="max_backlog=0"):
        desk.bus.complete(waiter)
    assert (first.reserved, second.reserved, first.queued, second.queued) == (0, 0, 0, 1)


async def test_a_grant_that_comes_before_the_stop_is_refused_after_it(desk: Desk) -> None:
    lane = desk.lane(A, queued=1)
    desk.open()
    waiter = desk.publish("granted", A(0))
    await desk.take(lane)
    desk.bus.refuse_outsiders()
    with pytest.raises(EngineClosed):
        desk.bus.complete(waiter)
    assert (lane.reserved, lane.queued) == (0, 0)


@pytest.mark.parametrize("end", ["granted", "cancelled", "refused"])
async def test_a_publish_that_waits_no_more_is_forgotten_by_its_handler(desk: Desk, end: str) -> None:
    """*Design promise 2*: what a handler once waited for must not pile up in its lane."""
    first, second = desk.lane(A, queued=1), desk.lane(B, queued=1)
    desk.open()
    call = await desk.take(first)
    waiter = desk.publish("waits", B(1), call)
    assert list(first.waits_for) == [second]
    if end == "granted":
        await desk.take(second)
    elif end == "cancelled":
        desk.bus.room.withdraw(waiter)
    else:
        desk.bus.close()
    assert not first.waits_for


async def test_lanes_follow_the_class_of_the_event() -> None:
    """*Design D6*: in the order in which they were added, subclasses included."""
    router = Router()
    names = {name: Lane(name, "App", queue_size=1, max_batch=1) for name in ("all", "a", "sub", "a or b")}
    for name, classes in {"all": (Event,), "a": (A,), "sub": (SubA,), "a or b": (A, B)}.items():
        router.add(names[name], classes)
    found = {cls: [lane.name for lane in router.lanes_for(cls)] for cls in (A, SubA, B, Both, ExceptionEvent)}
    assert found == {
        A: ["all", "a", "a or b"],
        SubA: ["all", "a", "sub", "a or b"],
        B: ["all", "a or b"],
        Both: ["all"],
        ExceptionEvent: ["all"],
    }
    for lane in names.values():
        lane.close()


# -- what publishers see ---------------------------------------------------------------------------------------------


class Gated(Application):
    """Handles `A`, a batch each time the gate lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Semaphore(0)
        self.batches: list[list[int]] = []

    async def on_a(self, events: list[A]) -> None:
        await self.gate.acquire()
        self.batches.append([event.data for event in events])

    @property
    def seen(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    def open(self) -> None:
        for _ in range(1000):
            self.gate.release()


async def fill(engine: AppEngine, number: int = 2) -> None:
    """One event that is being handled, and a queue with the others."""
    for each in range(number):
        await engine.pub_event(A(each))
        await anyio.wait_all_tasks_blocked()


async def test_publish_waits_when_a_lane_is_full_and_goes_on_in_order() -> None:
    app = Gated()
    made: list[int] = []

    async def publish(number: int) -> None:
        await engine.pub_event(A(number))
        made.append(number)

    async with AppEngine([app], queue_size=2, max_batch=1) as engine, anyio.create_task_group() as group:
        await fill(engine, 3)
        for number in range(3, 6):
            group.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        assert made == []
        for number in range(3, 6):
            app.gate.release()
            await anyio.wait_all_tasks_blocked()
            assert made == list(range(3, number + 1))
        app.open()
    assert app.seen == list(range(6))
    assert [len(batch) for batch in app.batches] == [1] * 6


async def test_one_batch_that_is_taken_lets_as_many_publishers_go_on() -> None:
    app = Gated()
    made: list[int] = []

    async def publish(number: int) -> None:
        await engine.pub_event(A(number))
        made.append(number)

    async with AppEngine([app], queue_size=3, max_batch=3) as engine, anyio.create_task_group() as group:
        await fill(engine, 4)
        for number in range(4, 9):
            group.start_soon(publish, number)
            await anyio.wait_all_tasks_blocked()
        app.gate.release()
        await anyio.wait_all_tasks_blocked()
        assert sorted(made) == [4, 5, 6]
        assert engine.statistics().queued == 3
        app.open()
    assert sorted(app.seen) == list(range(9))
    assert app.batches[:2] == [[0], [1, 2, 3]]


@pytest.mark.parametrize(("queue_size", "max_batch"), [(3, 1000), (5, 2)])
async def test_an_event_for_two_handlers_holds_to_the_limits_of_both(queue_size: int, max_batch: int) -> None:
    """The fast path for several lanes has a comparison of its own."""
    gate = anyio.Event()
    batches: list[int] = []

    async def handle(events: list[A]) -> None:
        batches.append(len(events))
        await gate.wait()

    async def publish() -> None:
        for number in range(20):
            await engine.pub_event(A(number))

    engine = AppEngine(queue_size=queue_size, max_batch=max_batch)
    engine.register_handler(A, handle, partial(handle))
    async with engine, anyio.create_task_group() as group:
        await engine.pub_event(A(0))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        handlers = engine.statistics().handlers.values()
        assert [(each.running, each.queued) for each in handlers] == [(1, queue_size)] * 2
        gate.set()
    assert max(batches) <= min(queue_size, max_batch)


@pytest.mark.parametrize("state", ["room", "full", "someone waits", "before", "draining", "stopped"])
async def test_nowait_raises_exactly_where_a_publish_would_wait(state: str) -> None:
    app = Gated()
    engine = AppEngine([app], queue_size=1, max_batch=1)
    if state == "before":
        engine.pub_event_nowait(A(0))
    async with engine, anyio.create_task_group() as group:
        if state in ("full", "someone waits"):
            await fill(engine)
        if state == "someone waits":
            group.start_soon(engine.pub_event, A(2))
            await anyio.wait_all_tasks_blocked()
            lane = engine._bus.router.lanes[0]
            lane.queue_size += 1  # room, but it is not ours
        if state in ("full", "someone waits"):
            with pytest.raises(anyio.WouldBlock):
                engine.pub_event_nowait(A(99))
            engine.pub_event_nowait(B(0))  # another class does not care
        if state == "room":
            engine.pub_event_nowait(A(0))
        if state == "draining":
            engine.stop()
            with pytest.raises(EngineClosed):
                engine.pub_event_nowait(A(99))
        app.open()
    if state == "stopped":
        with pytest.raises(EngineClosed):
            engine.pub_event_nowait(A(99))
    expected = {"room": [0], "before": [0], "full": [0, 1], "someone waits": [0, 1, 2]}
    assert app.seen == expected.get(state, [])


@pytest.mark.parametrize("event", [A, "text", None, 7, object()])
async def test_what_is_no_event_is_a_type_error_in_every_way_and_state(event: Any) -> None:
    engine = AppEngine()

    async def publish() -> None:
        with pytest.raises(TypeError):
            await engine.pub_event(event)
        with pytest.raises(TypeError):
            await engine.pub_events([A(0), event])
        with pytest.raises(TypeError):
            engine.pub_event_nowait(event)
        with pytest.raises(TypeError):
            engine.pub_event_from_thread(event)
        with pytest.raises(TypeError):
            engine.pub_events_from_thread([A(0), event])

    await publish()
    async with engine:
        await publish()
    await publish()
    assert engine.report is not None
    assert engine.report.unhandled == 0


async def test_the_wrong_side_of_the_thread_is_an_error_and_publishes_nothing() -> None:
    app = Gated()
    errors: list[BaseException] = []

    def in_thread(engine: AppEngine) -> None:
        for publish in (engine.pub_event, lambda event: engine.pub_events([event])):
            try:
                publish(A(0)).send(None)
            except WrongThreadError as exc:
                errors.append(exc)
        with pytest.raises(WrongThreadError):
            engine.pub_event_nowait(A(0))

    app.open()
    async with AppEngine([app]) as engine:
        await engine.pub_event(A(1))  # the fast path knows the class, and the lane is open for it
        await anyio.to_thread.run_sync(in_thread, engine)
        with pytest.raises(WrongThreadError):
            engine.pub_event_from_thread(A(0))
    assert len(errors) == 2
    assert app.seen == [1]


# -- before the start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
async def test_before_the_start_events_are_kept_up_to_max_backlog_and_routed_in_order(many: bool) -> None:
    """*Design D5*: also more than the queue holds, and nobody waits."""
    app = Gated()
    app.open()
    engine = AppEngine([app], queue_size=1, max_batch=2, max_backlog=5)
    if many:
        await engine.pub_events(A(number) for number in range(5))
    else:
        for number in range(5):
            await engine.pub_event(A(number))
    with pytest.raises(BacklogExceeded) as caught:
        await engine.pub_event(A(99))
    assert (caught.value.handler, caught.value.limit) == (None, 5)
    assert engine.statistics().backlog == 5
    async with engine:
        await engine.pub_event(A(5))
    assert app.batches == [[0, 1], [2, 3], [4], [5]] or app.batches == [[0, 1], [2, 3], [4, 5]]
    assert engine.statistics().over_limit == 0


async def test_events_of_the_start_hooks_come_behind_those_before() -> None:
    app = Gated()
    app.open()
    engine = AppEngine([app], max_backlog=3)
    await engine.pub_event(A(0))

    @engine.before_start
    async def first() -> None:
        await engine.pub_event(A(1))
        engine.pub_event_nowait(A(2))
        with pytest.raises(BacklogExceeded):
            await engine.pub_event(A(99))

    async with engine:
        await engine.pub_event(A(3))
    assert app.seen == [0, 1, 2, 3]


# -- over the limit --------------------------------------------------------------------------------------------------


def logged_over_limit(logs: list[Any]) -> list[str]:
    return [record.extra["handler"] for record in logs if "goes over queue_size" in record.message]


async def test_a_handler_that_feeds_itself_goes_over_the_limit_counted_and_logged_once(
    logs: list[Any],
) -> None:
    seen: list[int] = []

    class Feeds(Application):
        async def on_a(self, events: list[A]) -> None:
            seen.extend(event.data for event in events)
            for event in events:
                if event.data:
                    await self.engine.pub_event(A(event.data - 1))
                    await self.engine.pub_event(A(event.data - 1))

    async with AppEngine([Feeds()], queue_size=1, max_batch=1) as engine:
        await engine.pub_event(A(4))
        await engine.wait_idle()
        over = engine.statistics().over_limit
    assert len(seen) == 2**5 - 1
    assert 4 <= over <= 2**5 - 1
    assert logged_over_limit(logs) == ["Feeds.on_a"]


async def test_what_a_call_left_behind_publishes_from_outside() -> None:
    """*Design D5, D10*: it waits like everybody else, and at the stop it is refused."""
    outcome: list[str] = []
    gate = anyio.Event()

    class Leaves(Gated):
        async def on_a(self, events: list[A]) -> None:
            if events[0].data == 0:
                group.start_soon(left_behind)
            else:
                await super().on_a(events)

    async def left_behind() -> None:
        await gate.wait()
        try:
            await engine.pub_event(A(99))
        except EngineClosed:
            outcome.append("closed")

    app = Leaves()
    async with anyio.create_task_group() as group, AppEngine([app], queue_size=1, max_batch=1) as engine:
        await fill(engine, 3)
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert (engine.statistics().queued, engine.statistics().over_limit) == (1, 0)
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        assert outcome == ["closed"]
        app.open()
    assert app.seen == [1, 2]


async def test_a_chain_waits_and_never_goes_over_the_limit(logs: list[Any]) -> None:
    """*Design promise 2*: handlers wait like everybody else."""

    class Chain(Gated):
        @on_event(B)
        async def pass_on(self, events: list[B]) -> None:
            for event in events:
                await self.engine.pub_event(A(event.data))

    app = Chain()
    async with AppEngine([app], queue_size=2, max_batch=1) as engine, anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(engine.pub_event, B(number))
            await anyio.wait_all_tasks_blocked()
        assert engine.statistics().queued == 4
        app.open()
    assert app.seen == list(range(10))
    assert engine.statistics().over_limit == 0
    assert logged_over_limit(logs) == []


async def test_past_max_backlog_the_publish_fails_inside_the_handler() -> None:
    """*Design D5*: a circle that feeds itself fails loudly rather than eat the memory."""
    errors: list[BacklogExceeded] = []

    class Feeds(Application):
        async def on_a(self, events: list[A]) -> None:
            for number in range(10 if events[0].data == 0 else 0):
                try:
                    await self.engine.pub_event(A(number + 1))
                except BacklogExceeded as exc:
                    errors.append(exc)
                    raise

    async with AppEngine([Feeds()], queue_size=2, max_batch=1, max_backlog=3) as engine:
        await engine.pub_event(A(0))
    assert [(error.handler, error.limit) for error in errors] == [("Feeds.on_a", 3)]
    statistics = engine.statistics()
    assert (statistics.over_limit, statistics.failed, statistics.handled) == (3, 1, 5)


async def test_failures_that_come_round_do_not_deadlock() -> None:
    """*Design D5*: the `ExceptionEvent` at its end is a part of the failing call."""
    seen: list[int] = []

    class Round(Application):
        async def on_a(self, events: list[A]) -> None:
            seen.extend(event.data for event in events)
            raise ValueError

        async def on_failure(self, failures: list[ExceptionEvent]) -> None:
            for failure in failures:
                for event in failure.events:
                    if event.data:
                        await self.engine.pub_event(A(event.data - 1))

    async with AppEngine([Round()], queue_size=1, max_batch=1) as engine, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(engine.pub_event, A(3))
        await anyio.wait_all_tasks_blocked()
        await engine.wait_idle()
    assert sorted(seen) == sorted([0, 1, 2, 3] * 5)


# -- at the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pub_event", "pub_events", "thread"])
async def test_who_waits_at_the_stop_gets_engine_closed_and_delivered_nothing(way: str) -> None:
    app = Gated()
    outcome: list[str] = []

    async def publish() -> None:
        try:
            if way == "pub_event":
                await engine.pub_event(A(99))
            elif way == "pub_events":
                await engine.pub_events([A(99), A(100)])
            else:
                await anyio.to_thread.run_sync(engine.pub_event_from_thread, A(99))
        except EngineClosed:
            outcome.append("closed")

    async with AppEngine([app], queue_size=1, max_batch=1) as engine, anyio.create_task_group() as group:
        await fill(engine)
        group.start_soon(publish)
        # A thread is on its way for as long as it likes.
        while not engine._bus.router.lanes[0].waiters:
            await checkpoint()
        engine.stop()
        while not outcome:
            await checkpoint()
        assert engine.state is EngineState.DRAINING
        app.open()
    assert outcome == ["closed"]
    assert app.seen == [0, 1]


# -- turns for others ------------------------------------------------------------------------------------------------


class Turns:
    """Awaits a coroutine and counts how often it gave others a turn. (A second task that looks would see a multiple of
    that: Trio runs tasks in any order.)"""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.coroutine = coroutine
        self.number = 0

    def __await__(self) -> Generator[Any, Any, None]:
        value = None
        while True:
            try:
                step = self.coroutine.send(value)
            except StopIteration:
                return
            self.number += 1
            value = yield step


async def longest_run(engine: AppEngine, events: Iterable[Event[Any]]) -> int:
    """Most events that were published in a row without a turn for anybody else."""
    run = longest = 0
    async with engine:
        for event in events:
            turns = Turns(engine.pub_event(event))
            await turns
            run = 1 if turns.number else run + 1
            longest = max(longest, run)
    return longest


async def ignore(events: list[Event[Any]]) -> None:
    pass


async def test_events_that_nobody_wants_give_others_a_turn(logs: list[Any]) -> None:
    assert await longest_run(AppEngine(), (A(0) for _ in range(5_000))) <= YIELD_AFTER
    assert len([record for record in logs if "No handler wants A" in record.message]) == 1


# What the open batch took on counts when the next publish looks: so a batch may come on top.
ABOUT_A_THOUSAND = YIELD_AFTER + 10


@pytest.mark.parametrize(
    ("queue_size", "max_batch"),
    [
        (1000, 1000),
        (1_000_000, 10),
        (1_000_000, 1000),
        (1_000_000, 1_000_000),
    ],
)
@pytest.mark.parametrize("many", [False, True], ids=["pub_event", "pub_events"])
async def test_a_publisher_that_never_waits_gives_others_a_turn(
    queue_size: int, max_batch: int, many: bool
) -> None:
    """*Design D2*: after 1,000 events."""
    engine = AppEngine(queue_size=queue_size, max_batch=max_batch)
    engine.register_handler(A, ignore)
    events = (A(0) for _ in range(5_000))
    if not many:
        assert await longest_run(engine, events) <= ABOUT_A_THOUSAND
        return
    async with engine:
        turns = Turns(engine.pub_events(events))
        await turns
    # Twice as many at most: for each thousand it may have to wait for room as well.
    assert 5_000 // ABOUT_A_THOUSAND <= turns.number <= 2 * (5_000 // YIELD_AFTER)


@pytest.mark.parametrize("max_batch", [10, 1_000_000])
async def test_a_publisher_that_never_waits_gives_no_more_turns_than_it_must(max_batch: int) -> None:
    """*Design D2*: one in a thousand events, not one with every event after the first thousand."""
    engine = AppEngine(queue_size=1_000_000, max_batch=max_batch)
    engine.register_handler(A, ignore)
    given = 0
    async with engine:
        for number in range(5_000):
            turns = Turns(engine.pub_event(A(number)))
            await turns
            given += turns.number
    assert 0 < given <= 5_000 // YIELD_AFTER


async def test_a_publisher_that_now_and_then_does_not_wait_gives_others_a_turn() -> None:
    """*Regression*: a `pub_event_nowait` in between forgot what had been published since the last turn."""
    engine = AppEngine(queue_size=1_000_000, max_batch=1_000_000)
    engine.register_handler(A, ignore)
    run = longest = 0
    async with engine:
        for number in range(5_000):
            run += 1
            if number % 500 == 250:
                engine.pub_event_nowait(A(0))
                continue
            turns = Turns(engine.pub_event(A(0)))
            await turns
            run = 0 if turns.number else run
            longest = max(longest, run)
    assert longest <= 2 * YIELD_AFTER


@pytest.mark.parametrize(("lanes", "most"), [(20, 3 * ABOUT_A_THOUSAND), (1000, 12 * ABOUT_A_THOUSAND)])
async def test_a_publisher_to_many_lanes_gives_others_a_turn(lanes: int, most: int) -> None:
    """*Design D2*: the events published since the last turn are counted over all lanes."""
    classes: list[type[Event[Any]]] = [type(f"Class{number}", (Event,), {}) for number in range(lanes)]
    engine = AppEngine()
    for event_class in classes:
        engine.on_event(event_class)(partial(ignore))
    events = (event_class(0) for _ in range(4 * most // lanes) for event_class in classes)
    # What went into open batches is seen lane by lane, and meanwhile others take more: but it must not grow with the lanes.
    assert await longest_run(engine, events) <= most


async def test_a_handler_that_never_awaits_gives_others_a_turn_after_each_batch() -> None:
    calls = 0
    seen: set[int] = set()
    engine = AppEngine(max_batch=1)

    @engine.on_event(A)
    async def count(events: list[A]) -> None:
        nonlocal calls
        calls += 1

    async with engine:
        await engine.pub_events(A(number) for number in range(100))
        while calls < 100:
            await checkpoint()
            seen.add(calls)
    assert len(seen) > 50


# -- many at once ----------------------------------------------------------------------------------------------------


async def test_pub_events_checks_all_before_the_first_is_put() -> None:
    app = Gated()
    app.open()
    async with AppEngine([app]) as engine:
        await engine.pub_event(A(0))
        with pytest.raises(TypeError, match="not 'text'"):
            await engine.pub_events([A(1), A(2), "text"])  # type: ignore[list-item]
    assert app.seen == [0]


async def test_pub_events_delivers_nothing_of_an_iterable_that_raises() -> None:
    app = Gated()
    app.open()

    def breaks() -> Iterator[A]:
        yield A(1)
        yield A(2)
        raise OSError("gone")

    async with AppEngine([app]) as engine:
        await engine.pub_event(A(0))
        with pytest.raises(OSError, match="gone"):
            await engine.pub_events(breaks())
    assert app.seen == [0]


@pytest.mark.parametrize(
    ("make", "queue_size", "max_batch"),
    [
        pytest.param(list, 1000, 3, id="list"),
        pytest.param(tuple, 2, 2, id="tuple"),
        pytest.param(iter, 5, 3, id="iterator"),
        pytest.param(lambda events: (event for event in events), 1, 1, id="generator"),
        pytest.param(lambda events: dict.fromkeys(events).keys(), 1000, 1000, id="keys"),
    ],
)
async def test_pub_events_keeps_the_order_and_the_size_of_batches(
    make: Callable[[list[Event[int]]], Iterable[Event[int]]], queue_size: int, max_batch: int
) -> None:
    """Of classes that come mixed, too."""
    batches: list[list[int]] = []
    engine = AppEngine(queue_size=queue_size, max_batch=max_batch)
    others: list[int] = []

    @engine.on_event(A, B)
    async def collect(events: list[Event[int]]) -> None:
        batches.append([event.data for event in events])

    @engine.on_event(B)
    async def collect_others(events: list[B]) -> None:
        others.extend(event.data for event in events)

    events: list[Event[int]] = [(B if number % 7 in (2, 3) else A)(number) for number in range(60)]
    async with engine:
        await engine.pub_events(make(events))
        await engine.pub_events([])
    assert [number for batch in batches for number in batch] == list(range(60))
    assert others == [number for number in range(60) if number % 7 in (2, 3)]
    assert max(map(len, batches)) <= max_batch
    assert engine.statistics().over_limit == 0


async def test_pub_events_waits_event_by_event_and_a_cancelled_one_leaves_a_prefix() -> None:
    app = Gated()
    engine = AppEngine([app], queue_size=3, max_batch=2, grace_period=0)
    async with engine, anyio.create_task_group() as group:
        group.start_soon(engine.pub_events, [A(number) for number in range(20)])
        await anyio.wait_all_tasks_blocked()
        assert engine.statistics().queued == 3
        group.cancel_scope.cancel()
    assert app.seen == []
    assert engine.report is not None
    assert 0 < engine.report.accepted < 20


async def test_the_list_that_was_published_may_change_afterwards() -> None:
    app = Gated()
    events = [A(number) for number in range(5)]
    async with AppEngine([app], queue_size=2, max_batch=1) as engine, anyio.create_task_group() as group:
        group.start_soon(engine.pub_events, events)
        await anyio.wait_all_tasks_blocked()
        events.clear()
        app.open()
    assert app.seen == list(range(5))


# -- fairness --------------------------------------------------------------------------------------------------------


async def test_a_publish_to_lanes_that_are_all_kept_full_is_not_passed_round_for_ever() -> None:
    """*Design promise 3*: moved on often enough, it takes its places all the same."""
    accepted = anyio.Event()
    others = 0

    async def keep_full(event_class: type[Event[int]]) -> None:
        nonlocal others
        while not accepted.is_set() and others < 50_000:
            await engine.pub_event(event_class(0))
            others += 1

    engine = AppEngine(queue_size=5)
    engine.on_event(A, Both)(partial(ignore))
    engine.on_event(B, Both)(partial(ignore))
    async with engine, anyio.create_task_group() as group:
        for event_class in (A, B) * 6:
            group.start_soon(keep_full, event_class)
        await checkpoint()
        await engine.pub_event(Both(1))
        accepted.set()
    assert others < 50_000

"""What a handler call holds: `max_batch`, `linger`, and what a `Batch` says of itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest
from calls import Call, Calls, Item, account

from event_flow import AppEngine, Application, Batch, Event, ExceptionEvent, on_event

# Seconds that no test waits for: whatever comes before them came for another reason.
HOUR = 3600.0


def items(*data: Any) -> list[Item]:
    return [Item(each) for each in data]


# -- max_batch -------------------------------------------------------------------------------------------------------


async def test_each_handler_has_its_own_max_batch() -> None:
    one, two, other = Calls(), Calls(), Calls()
    engine = AppEngine(max_batch=3)
    engine.register_handler(Item, one.handle, max_batch=1)
    engine.register_handler(Item, two.handle_batch, max_batch=2)
    engine.register_handler(Item, other.handle)
    await engine.pub_events(items(*range(5)))
    async with engine:
        await engine.wait_idle()
    assert one.data == [[0], [1], [2], [3], [4]]
    assert two.data == [[0, 1], [2, 3], [4]]
    assert other.data == [[0, 1, 2], [3, 4]]
    assert two.closed_by == ["size", "size", "idle"]


async def test_a_max_batch_larger_than_the_engine_s_holds_too() -> None:
    calls = Calls()
    engine = AppEngine(max_batch=2)
    engine.register_handler(Item, calls.handle, max_batch=5)
    await engine.pub_events(items(*range(7)))
    async with engine:
        await engine.wait_idle()
    assert calls.data == [[0, 1, 2, 3, 4], [5, 6]]


# -- Batch -----------------------------------------------------------------------------------------------------------


class Kinds(Application):
    """The same events, for each kind of handler there is."""

    def __init__(self) -> None:
        super().__init__()
        self.got: dict[str, list[Any]] = {}
        self.failures: list[ExceptionEvent] = []

    def take(self, name: str, given: list[Item] | Batch[Item]) -> None:
        self.got.setdefault(name, []).append(given)

    async def on_list(self, events: list[Item]) -> None:
        self.take("list", events)

    async def on_batch(self, batch: Batch[Item]) -> None:
        self.take("batch", batch)

    @on_event(Item, max_batch=2)
    def sync_list(self, events: list[Item]) -> None:
        self.take("sync list", events)

    @on_event(Item, max_batch=2)
    def sync_batch(self, batch: Batch[Item]) -> None:
        self.take("sync batch", batch)


async def test_sync_and_async_handlers_get_a_list_or_a_batch_as_they_say() -> None:
    app = Kinds()
    engine = AppEngine([app])
    published = items(0, 1, 2)
    await engine.pub_events(published)
    async with engine:
        await engine.wait_idle()
    assert app.got["list"] == [published]
    assert app.got["sync list"] == [published[:2], published[2:]]
    assert [type(given) for name in ("batch", "sync batch") for given in app.got[name]] == [Batch] * 3
    assert [given.events for given in app.got["batch"]] == [published]
    assert [given.events for given in app.got["sync batch"]] == [published[:2], published[2:]]
    assert [given.closed_by for given in app.got["sync batch"]] == ["size", "idle"]
    (batch,) = app.got["batch"]
    assert (list(batch), len(batch), batch.key, batch.attempt) == (published, 3, None, 1)
    assert account(engine.report) == {"handled": 12}


@pytest.mark.parametrize("takes", ["list", "batch", "sync batch"])
async def test_what_a_handler_does_to_its_events_nobody_else_sees(takes: str) -> None:
    failures: list[ExceptionEvent] = []
    engine = AppEngine()

    async def spoil_list(events: list[Item]) -> None:
        events.clear()
        raise ValueError("spoilt")

    async def spoil_batch(batch: Batch[Item]) -> None:
        batch.events.pop()
        batch.events = []
        raise ValueError("spoilt")

    def spoil_in_thread(batch: Batch[Item]) -> None:
        batch.events.clear()
        raise ValueError("spoilt")

    async def on_failure(events: list[ExceptionEvent]) -> None:
        failures.extend(events)

    handlers: dict[str, Any] = {"list": spoil_list, "batch": spoil_batch, "sync batch": spoil_in_thread}
    calls = Calls()
    engine.register_handler(Item, handlers[takes])
    engine.register_handler(Item, calls.handle_batch)
    engine.register_handler(ExceptionEvent, on_failure)
    published = items(0, 1)
    await engine.pub_events(published)
    async with engine:
        await engine.wait_idle()
    assert [failure.events for failure in failures] == [tuple(published)]
    assert calls.data == [[0, 1]]


# -- linger ----------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
@pytest.mark.parametrize("linger", [1.0, timedelta(seconds=1)])
async def test_the_first_event_of_a_batch_waits_so_long_for_company(linger: float | timedelta) -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=linger)
    async with engine:
        for number in range(6):
            await engine.pub_event(Item(number))
            await anyio.sleep(0.4)
        await engine.wait_idle()
    # At 0, 0.4, 0.8 │ 1.2, 1.6, 2.0: each batch counts from its own first event, not from its last.
    assert calls.data == [[0, 1, 2], [3, 4, 5]]
    assert calls.times == [1.0, 2.2]
    assert calls.closed_by == ["linger", "linger"]


@pytest.mark.virtual_clock
async def test_time_spent_behind_a_call_at_work_counts() -> None:
    calls = Calls(takes=5.0)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=1.0)
    async with engine:
        await engine.pub_event(Item(0))
        await anyio.sleep(2.0)  # the call is at work from 1 to 6
        await engine.pub_event(Item(1))
        await anyio.sleep(3.5)
        await engine.pub_event(Item(2))
        await engine.wait_idle()
    assert calls.data == [[0], [1, 2]]
    assert calls.times == [1.0, 6.0]


@pytest.mark.virtual_clock
async def test_what_comes_after_a_full_batch_lingers_for_itself() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=1.0, max_batch=4)
    async with engine:
        await anyio.sleep(10)
        await engine.pub_events(items(*range(10)))
        await engine.wait_idle()
    assert calls.data == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert calls.times == [10.0, 10.0, 11.0]
    assert calls.closed_by == ["size", "size", "linger"]


async def test_without_linger_a_free_handler_takes_what_there_is() -> None:
    calls = Calls(held=True)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch)
    async with engine:
        await engine.pub_event(Item(0))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events(items(1, 2))
        calls.open()
        await engine.wait_idle()
    assert calls.data == [[0], [1, 2]]
    assert calls.closed_by == ["idle", "idle"]


# These would last an hour, on any backend, if it were the time that ended them.


async def publish(engine: AppEngine, *data: Any, one_by_one: bool) -> None:
    """The first is there, and lingers, before the others come."""
    await engine.pub_event(Item(data[0]))
    await anyio.wait_all_tasks_blocked()
    if one_by_one:
        for each in data[1:]:
            await engine.pub_event(Item(each))
    else:
        await engine.pub_events(items(*data[1:]))


both_ways = pytest.mark.parametrize("one_by_one", [False, True], ids=["pub_events", "pub_event"])


@both_ways
async def test_a_full_batch_lingers_no_more(one_by_one: bool) -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=HOUR, max_batch=3)
    async with engine:
        for data in ([0, 1, 2], [3, 4, 5]):
            await publish(engine, *data, one_by_one=one_by_one)
            await engine.wait_idle()
            assert calls.data[-1] == data
        await engine.pub_event(Item(6))
        await anyio.wait_all_tasks_blocked()
        assert len(calls.data) == 2
    assert calls.closed_by == ["size", "size", "drain"]


@both_ways
@pytest.mark.parametrize("queue_size", [1, 3])
async def test_a_batch_does_not_linger_in_a_full_lane(queue_size: int, one_by_one: bool) -> None:
    """There is no room for company."""
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=HOUR, queue_size=queue_size)
    async with engine:
        await publish(engine, *range(queue_size), one_by_one=one_by_one)
        await engine.wait_idle()
        assert calls.data == [list(range(queue_size))]
    assert calls.closed_by == ["size"]


async def test_a_batch_does_not_linger_while_publishers_wait() -> None:
    calls = Calls(held=True)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=HOUR, queue_size=2)
    async with engine, anyio.create_task_group() as group:
        await engine.pub_events(items(0, 1))
        await anyio.wait_all_tasks_blocked()
        for number in range(2, 6):
            group.start_soon(engine.pub_event, Item(number))
            await anyio.wait_all_tasks_blocked()
        for expected in ([0, 1], [2, 3], [4, 5]):
            assert list(map(sorted, calls.working)) == [expected]
            calls.let()
            await anyio.wait_all_tasks_blocked()
    assert calls.closed_by == ["size"] * 3


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_the_drain_ends_every_linger_at_once() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, linger=HOUR)
    async with engine:
        await engine.pub_events(items(0, 1))
        await anyio.wait_all_tasks_blocked()
        assert calls.data == []
    assert calls.data == [[0, 1]]
    assert calls.closed_by == ["drain"]
    assert account(engine.report) == {"handled": 2}


async def test_what_handlers_publish_while_it_drains_does_not_linger() -> None:
    class First(Event[int]):
        pass

    calls = Calls()
    engine = AppEngine()

    async def forward(events: list[First]) -> None:
        for event in events:
            await engine.pub_event(Item(event.data))
            if event.data:
                await engine.pub_event(First(event.data - 1))

    engine.register_handler(First, forward, linger=HOUR)
    engine.register_handler(Item, calls.handle_batch, linger=HOUR)
    async with engine:
        await engine.pub_event(First(3))
    assert [number for data in calls.data for number in data] == [3, 2, 1, 0]
    assert set(calls.closed_by) == {"drain"}
    assert account(engine.report) == {"handled": 8}


@pytest.mark.parametrize("ending", ["no grace", "cancel"])
async def test_what_lingers_at_a_hard_stop_is_abandoned(ending: str) -> None:
    calls = Calls(held=True)
    engine = AppEngine(grace_period=0)
    engine.register_handler(Item, calls.handle_batch, linger=HOUR, max_batch=2)
    with anyio.CancelScope() as scope:
        async with engine:
            await engine.pub_events(items(0, 1, 2))
            await anyio.wait_all_tasks_blocked()
            assert calls.working == [[0, 1]]
            if ending == "cancel":
                scope.cancel()
    assert [call.data for call in calls.cancelled] == [[0, 1]]
    assert calls.data == [[0, 1]]
    assert account(engine.report) == {"abandoned": 3}
    assert engine.report is not None
    assert engine.report.abandoned_events == {"engine.handle_batch": {"Item": 3}}


@pytest.mark.virtual_clock
async def test_a_cancelled_publisher_leaves_the_batch_as_it_was() -> None:
    """It waits at another lane, which is full: the lane whose batch lingers never hears of it."""
    full, lingering = Calls(held=True), Calls()
    engine = AppEngine(max_batch=1)
    engine.register_handler(Item, full.handle, queue_size=1)
    engine.register_handler(Item, lingering.handle_batch, linger=5.0, max_batch=100)
    async with engine:
        for number in range(2):
            await engine.pub_event(Item(number))
            await anyio.sleep(1)
        with anyio.move_on_after(1) as scope:
            await engine.pub_event(Item(2))
        assert scope.cancelled_caught
        await anyio.sleep(3)
        assert lingering.data == [[0, 1]]
        full.open()
    assert lingering.times == [5.0]
    assert account(engine.report) == {"handled": 4}


@pytest.mark.virtual_clock
async def test_a_second_run_lingers_anew() -> None:
    engine = AppEngine()
    runs: list[Calls] = []

    async def handle(batch: Batch[Item]) -> None:
        runs[-1].begun.append(Call(batch))

    engine.register_handler(Item, handle, linger=1.0)
    for number in range(2):
        runs.append(Calls())
        async with engine:
            await engine.pub_event(Item(number))
            await anyio.sleep(1.5)
            await engine.pub_event(Item(number + 10))
            await anyio.sleep(0.5)
    assert [(calls.data, calls.times, calls.closed_by) for calls in runs] == [
        ([[0], [10]], [1.0, 2.0], ["linger", "drain"]),
        ([[1], [11]], [1.0, 2.0], ["linger", "drain"]),
    ]
    assert account(engine.report) == {"handled": 2}

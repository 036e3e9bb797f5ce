"""`rate`: how many events go into a handler in which time, on the clock of the loop, whatever else is asked of it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from calls import Calls, Item, account

from event_flow import AppEngine, Batch, Rate, Retry, on_event
from event_flow.core.application import Application

pytestmark = pytest.mark.virtual_clock


def items(*data: Any) -> list[Item]:
    return [Item(each) for each in data]


def entries(calls: Calls) -> list[tuple[float, int]]:
    """When how many events went in."""
    return [(time, len(data)) for time, data in zip(calls.times, calls.data, strict=True)]


def require_within(calls: Calls, rate: Rate) -> None:
    """In no window, wherever it begins, more than the burst and what has come since."""
    for place, first in enumerate(calls.begun):
        total = 0
        for call in calls.begun[place:]:
            total += len(call.data)
            allowed = rate.burst + rate.limit * (call.began - first.began) / rate.per
            assert total <= allowed + 1e-9, (
                f"{total} events from {first.began} to {call.began}, not {allowed}"
            )


# -- how many, and when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes_batch", [False, True], ids=["list", "Batch"])
async def test_events_go_in_evenly_spaced(takes_batch: bool) -> None:
    calls = Calls()
    engine = AppEngine()
    handler: Any = calls.handle_batch if takes_batch else calls.handle
    engine.register_handler(Item, handler, rate=Rate(4))
    async with engine:
        await engine.pub_events(items(*range(6)))
        await engine.wait_idle()
    assert calls.data == [[0], [1], [2], [3], [4], [5]]
    assert calls.times == [0, 0.25, 0.5, 0.75, 1.0, 1.25]


async def test_a_burst_goes_in_at_once_and_in_one_batch() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(60, per=60.0, burst=3))
    async with engine:
        await engine.pub_events(items(*range(5)))
        await engine.wait_idle()
        await anyio.sleep_until(calls.start + 100)
        # Rested for longer than that takes: again the burst, and no more.
        await engine.pub_events(items(*range(5)))
        await engine.wait_idle()
    assert entries(calls) == [(0, 3), (1, 1), (2, 1), (100, 3), (101, 1), (102, 1)]


async def test_a_batch_that_the_rate_has_divided_was_closed_by_its_size() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, rate=Rate(1, burst=2))
    async with engine:
        await engine.pub_events(items(*range(5)))
        await engine.wait_idle()
    assert calls.data == [[0, 1], [2], [3], [4]]
    assert calls.closed_by == ["size", "size", "size", "idle"]


async def test_max_batch_holds_within_a_burst() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, rate=Rate(1, burst=5), max_batch=2)
    async with engine:
        await engine.pub_events(items(*range(6)))
        await engine.wait_idle()
    assert entries(calls) == [(0, 2), (0, 2), (0, 1), (1, 1)]


async def test_calls_that_take_their_time_make_up_for_it_within_the_burst() -> None:
    calls = Calls(takes=3.0)
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(1, burst=2))
    async with engine:
        await engine.pub_events(items(*range(6)))
        await engine.wait_idle()
    assert entries(calls) == [(0, 2), (3, 2), (6, 2)]


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, Rate(7, per=3.0, burst=4)),
        ({"max_batch": 3}, Rate(10, burst=8)),
        ({"concurrency": 3}, Rate(2.5, burst=5)),
        ({"key": lambda event: event.data % 3, "concurrency": 2}, Rate(5, burst=3)),
        ({"linger": 0.7}, Rate(5, burst=4)),
        ({"key": lambda event: event.data % 2, "linger": 0.3}, Rate(8, per=2, burst=2)),
        ({"overflow": "drop_oldest", "queue_size": 4}, Rate(3, burst=2)),
    ],
)
async def test_no_window_has_more_than_the_rate_allows(options: dict[str, Any], rate: Rate) -> None:
    calls = Calls(takes=0.1)
    engine = AppEngine(grace_period=60)
    engine.register_handler(Item, calls.handle_batch, rate=rate, **options)
    async with engine:
        for number in range(40):
            await engine.pub_event(Item(number))
            await anyio.sleep(0 if number % 7 else 1.3)
        await engine.wait_idle()
    require_within(calls, rate)
    counts = account(engine.report)
    assert counts["handled"] + counts.get("dropped", 0) == 40
    assert sum(len(data) for data in calls.data) == counts["handled"]


async def test_events_that_wait_for_the_rate_hold_back_who_publishes() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(1), queue_size=2)
    made: list[float] = []
    async with engine:
        for number in range(6):
            await engine.pub_event(Item(number))
            await anyio.sleep(0.001)
            made.append(round(anyio.current_time() - calls.start, 1))
        await engine.wait_idle()
    # The first goes in, two are queued, and then there is a place each second.
    assert made == [0, 0, 0, 1, 2, 3]
    assert [time for time, _ in entries(calls)] == [0, 1, 2, 3, 4, 5]


async def test_each_handler_is_held_to_a_rate_on_its_own() -> None:
    rate = Rate(1)
    one, two, free = Calls(), Calls(), Calls()
    engine = AppEngine()
    engine.register_handler(Item, one.handle, rate=rate)
    engine.register_handler(Item, two.handle, rate=rate)
    engine.register_handler(Item, free.handle)
    async with engine:
        await engine.pub_events(items(0, 1, 2))
        await engine.wait_idle()
    assert one.times == two.times == [0, 1, 2]
    assert free.times == [0]


async def test_a_linger_and_a_rate_are_both_waited_for() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle_batch, rate=Rate(1, per=5.0, burst=2), linger=1.0)
    async with engine:
        await engine.pub_event(Item(0))
        await anyio.sleep(2)
        await engine.pub_events(items(1, 2))
        await engine.wait_idle()
    # The first after its linger; one of the burst is left for the second; the third when there is one again.
    assert entries(calls) == [(1, 1), (2, 1), (6, 1)]


async def test_no_key_passes_another_for_the_rate_and_a_hot_one_is_served_once_a_round() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(1), key=lambda event: event.data[0], concurrency=3)
    async with engine:
        await engine.pub_events(items("h1", "h2", "h3", "a1", "b1"))
        await engine.wait_idle()
    assert calls.data == [["h1"], ["a1"], ["b1"], ["h2"], ["h3"]]
    assert calls.times == [0, 1, 2, 3, 4]


async def test_another_attempt_counts_like_any_event() -> None:
    class App(Application):
        times: list[tuple[float, int]]

        async def before_start(self) -> None:
            self.start = anyio.current_time()
            self.times = []

        @on_event(
            Item,
            rate=Rate(1, per=10.0, burst=2),
            retry=Retry(on=OSError, wait_initial=0.5, wait_max=0.5, wait_jitter=0, within=None),
        )
        async def on_item(self, batch: Batch[Item]) -> None:
            self.times.append((round(anyio.current_time() - self.start, 6), len(batch)))
            if batch.attempt < 3:
                raise OSError

    app = App()
    engine = AppEngine([app])
    async with engine:
        await engine.pub_events(items(0, 1))
        await engine.wait_idle()
    # Half a second after the failure there is no room for two: not before 20 s, and the third not before 40.
    assert app.times == [(0, 2), (20, 2), (40, 2)]
    assert engine.statistics().retried == 4


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_the_drain_keeps_to_the_rate() -> None:
    calls = Calls()
    engine = AppEngine(grace_period=30)
    engine.register_handler(Item, calls.handle_batch, rate=Rate(1))
    async with engine:
        await engine.pub_events(items(*range(5)))
    assert calls.times == [0, 1, 2, 3, 4]
    assert set(calls.closed_by) <= {"drain", "size"}
    assert account(engine.report) == {"handled": 5}


@pytest.mark.parametrize("options", [{}, {"key": lambda event: event.data}, {"concurrency": 2}])
async def test_what_the_rate_does_not_let_in_within_the_grace_period_is_abandoned(
    options: dict[str, Any],
) -> None:
    calls = Calls()
    engine = AppEngine(grace_period=2.5)
    engine.register_handler(Item, calls.handle, rate=Rate(1), **options)
    async with engine:
        await engine.pub_events(items(*range(10)))
        await anyio.sleep(0.25)
    assert calls.times == [0, 1, 2]
    assert round(anyio.current_time() - calls.start, 6) == 2.75
    assert account(engine.report) == {"handled": 3, "abandoned": 7}


async def test_a_cancelled_run_waits_for_no_rate() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(1, per=3600.0))
    with anyio.move_on_after(10):
        await engine.pub_events(items(*range(3)))
        await engine.run()
    assert round(anyio.current_time() - calls.start, 6) == 10
    assert account(engine.report) == {"handled": 1, "abandoned": 2}


async def test_a_publisher_that_gives_up_changes_nothing_for_the_others() -> None:
    calls = Calls()
    engine = AppEngine()
    engine.register_handler(Item, calls.handle, rate=Rate(1), queue_size=1)
    async with engine:
        await engine.pub_event(Item(0))
        await anyio.sleep(0.1)
        await engine.pub_event(Item(1))
        with anyio.move_on_after(0.5) as scope:
            await engine.pub_event(Item("given up"))
        assert scope.cancelled_caught
        await engine.pub_event(Item(2))
        await engine.wait_idle()
    assert calls.data == [[0], [1], [2]]
    assert calls.times == [0, 1, 2]


async def test_a_second_run_begins_with_all_of_its_burst() -> None:
    calls = Calls()
    engine = AppEngine(grace_period=0)
    engine.register_handler(Item, calls.handle, rate=Rate(1, per=100.0, burst=2))
    for _ in range(2):
        async with engine:
            await engine.pub_events(items(0, 1, 2))
            await anyio.sleep(1)
        assert account(engine.report) == {"handled": 2, "abandoned": 1}
    assert entries(calls) == [(0, 2), (1, 2)]

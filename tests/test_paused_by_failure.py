"""`on_failure={…: "pause"}`: the handler is paused with the batch it failed with, until it is resumed."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from test_on_failure import Desk, Ping, Pong, every, levels

from event_flow import AppEngine, BatchFailed, ExceptionEvent

pytestmark = pytest.mark.virtual_clock


async def test_the_handler_is_paused_and_keeps_its_batch(logs: list[Any]) -> None:
    desk = Desk(OSError("no login"), on_failure={OSError: "pause"}, max_batch=2)
    async with desk.engine:
        await desk.engine.pub_events([Ping(1), Ping(2), Ping(3)])
        await anyio.sleep(1000)
        assert desk.control.is_paused
        assert (desk.batches, desk.counts) == ([[1, 2]], (0, 0, 0, 3))
        desk.error = None
        desk.control.resume()
        await desk.engine.wait_idle()
        assert not desk.control.is_paused
    assert (desk.batches, desk.attempts) == ([[1, 2], [1, 2], [3]], [1, 2, 1])
    assert (desk.letters, desk.counts) == ([], (3, 0, 0, 0))
    assert levels(logs) == ["ERROR"]


async def test_paused_as_often_as_it_fails_so() -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"})
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        for attempt in range(1, 4):
            await anyio.sleep(1)
            assert (desk.control.is_paused, desk.attempts[-1]) == (True, attempt)
            desk.control.resume()
        desk.error = None
        await desk.engine.wait_idle()
    assert desk.counts == (1, 0, 0, 0)


@pytest.mark.parametrize("limits", [{"attempts": 2, "within": 5}, {"attempts": None, "within": 1}])
async def test_retried_first_then_paused_and_then_retried_anew(limits: dict[str, Any]) -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"}, retry=every(1, **limits))
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await anyio.sleep(1000)
        assert (desk.control.is_paused, desk.attempts) == (True, [1, 2])
        desk.control.resume()
        await anyio.sleep(1000)
        assert (desk.control.is_paused, desk.attempts) == (True, [1, 2, 3, 4])
        desk.error = None
        desk.control.resume()
        await desk.engine.wait_idle()
    assert desk.counts == (1, 0, 0, 0)


async def test_other_calls_go_on_and_no_new_one_begins() -> None:
    engine = AppEngine(max_batch=1)
    seen: list[int] = []
    ended: list[int] = []

    @engine.on_event(Ping, concurrency=2, on_failure={OSError: "pause"})
    async def work(events: list[Ping]) -> None:
        (event,) = events
        is_first = event.data not in seen
        seen.append(event.data)
        await anyio.sleep(event.data)
        if event.data == 1 and is_first:
            raise OSError
        ended.append(event.data)

    async with engine:
        await engine.pub_events([Ping(1), Ping(5), Ping(2)])
        await anyio.sleep(100)
        assert (seen, ended) == ([1, 5], [5])
        engine.handlers["engine.work"].resume()
        await engine.wait_idle()
    assert seen == [1, 5, 1, 2]


async def test_all_keys_are_paused_and_the_one_that_failed_keeps_its_order() -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"}, key=lambda event: event.data % 2, max_batch=1)
    async with desk.engine:
        await desk.engine.pub_events([Ping(1), Ping(3), Ping(2)])
        await anyio.sleep(100)
        assert (desk.batches, desk.counts) == ([[1]], (0, 0, 0, 3))
        desk.error = None
        desk.control.resume()
        await desk.engine.wait_idle()
    assert sorted(desk.batches[1:]) == [[1], [2], [3]]
    assert desk.batches[1:].index([1]) < desk.batches[1:].index([3])


@pytest.mark.parametrize("is_resumed_early", [True, False])
async def test_a_part_is_kept_and_another_is_a_dead_letter(is_resumed_early: bool) -> None:
    """Also if somebody resumes the handler while the publish of the dead letter waits for room."""
    engine = AppEngine(queue_size=1, max_batch=1)
    gate = anyio.Event()
    batches: list[list[int]] = []
    letters: list[ExceptionEvent] = []

    @engine.on_event(Ping, max_batch=3, queue_size=3, on_failure={OSError: "pause", KeyError: "discard"})
    async def work(events: list[Ping]) -> None:
        batches.append([event.data for event in events])
        if len(events) == 3:
            raise BatchFailed(dict(zip(events, [OSError(), ValueError(), KeyError()], strict=True)))

    @engine.on_event(ExceptionEvent)
    async def slow(failures: list[ExceptionEvent]) -> None:
        await gate.wait()
        letters.extend(failures)

    await engine.pub_events(ExceptionEvent(OSError(), handler="nobody") for _ in range(2))
    await engine.pub_events([Ping(1), Ping(2), Ping(3)])
    async with engine:
        control = engine.handlers["engine.work"]
        await anyio.sleep(1)
        assert (control.is_paused, control.statistics().accepted) == (True, 3)
        if is_resumed_early:
            control.resume()
            await anyio.sleep(1)
            assert batches == [[1, 2, 3]]
        gate.set()
        await anyio.sleep(1)
        control.resume()
        await engine.wait_idle()
        own = control.statistics()
    assert batches == [[1, 2, 3], [1]]
    assert [event.data for event in letters[-1].events] == [2]
    assert (own.handled, own.failed, own.accepted) == (1, 2, 3)


async def test_a_publisher_waits_at_a_paused_handler_and_others_do_not() -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"}, queue_size=2, max_batch=1)
    heard: list[int] = []

    @desk.engine.on_event(Pong)
    async def other(events: list[Pong]) -> None:
        heard.extend(event.data for event in events)

    async with desk.engine:
        with anyio.move_on_after(10) as scope:
            for number in range(9):
                await desk.engine.pub_event(Ping(number))
        assert scope.cancelled_caught
        await desk.engine.pub_event(Pong(1))
        await anyio.sleep(1)
        assert heard == [1]
        assert desk.counts[3] <= 3
        desk.error = None
        desk.control.resume()
        await desk.engine.wait_idle()


@pytest.mark.parametrize("ending", ["grace period", "cancel", "resumed"])
async def test_the_end_comes_while_it_is_paused(ending: str) -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"}, max_batch=1, engine=AppEngine(grace_period=7))
    began = anyio.current_time()
    with CancelScope() as scope:
        async with desk.engine:
            await desk.engine.pub_events([Ping(1), Ping(2)])
            await anyio.sleep(1)
            if ending == "cancel":
                scope.cancel()
                await checkpoint()
            desk.engine.stop()
            if ending == "resumed":
                await anyio.sleep(1)
                desk.error = None
                desk.control.resume()
    report = desk.engine.report
    assert report is not None
    assert anyio.current_time() - began == {"grace period": 8, "cancel": 1, "resumed": 2}[ending]
    assert desk.counts == ((2, 0, 0, 0) if ending == "resumed" else (0, 0, 2, 0))
    assert report.abandoned_events == ({} if ending == "resumed" else {"engine.work": {"Ping": 2}})
    assert desk.letters == []


async def test_a_second_run_is_not_paused() -> None:
    desk = Desk(OSError(), on_failure={OSError: "pause"}, engine=AppEngine(grace_period=1))
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await anyio.sleep(1)
        assert desk.control.is_paused
    desk.error = None
    async with desk.engine:
        assert not desk.control.is_paused
        await desk.engine.pub_event(Ping(2))
        await desk.engine.wait_idle()
    assert desk.batches == [[1], [2]]

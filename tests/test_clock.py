"""The virtual clock itself: what it does for the tests that need time, alike on asyncio and on Trio."""

from __future__ import annotations

import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_flow.testing.clock import virtual_clock

pytestmark = pytest.mark.virtual_clock

DAY = 24 * 3600.0


async def test_time_passes_only_by_waiting() -> None:
    start = anyio.current_time()
    for _ in range(1000):
        await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == start


@pytest.mark.parametrize("duration", [1e-9, 0.1, 3600.0, 3 * DAY, 1000 * DAY])
async def test_a_sleep_ends_at_once_and_takes_its_time(duration: float) -> None:
    start = anyio.current_time()
    await anyio.sleep(duration)
    assert anyio.current_time() - start == pytest.approx(duration)


async def test_tasks_wake_in_the_order_of_their_deadlines() -> None:
    start = anyio.current_time()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, duration: float) -> None:
        await anyio.sleep(duration)
        woken.append((name, anyio.current_time() - start))

    async with anyio.create_task_group() as tg:
        tg.start_soon(sleeper, "day", DAY)
        tg.start_soon(sleeper, "second", 1.0)
        tg.start_soon(sleeper, "hour", 3600.0)
    assert woken == [("second", 1.0), ("hour", 3600.0), ("day", DAY)]


def test_it_is_exact_where_the_clock_of_the_system_is_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """*Regression*: asyncio runs what is due within a tick of that clock, on Windows before Python 3.13 a sixty-fourth second.

    Only asyncio does so.
    """
    coarse = SimpleNamespace(**{**vars(time.get_clock_info("monotonic")), "resolution": 1 / 64})
    monkeypatch.setattr(time, "get_clock_info", lambda name: coarse)
    woken: list[float] = []

    async def sleeper(duration: float) -> None:
        await anyio.sleep(duration)
        woken.append(anyio.current_time())

    async def main() -> None:
        async with anyio.create_task_group() as tg:
            for duration in (0.001, 0.002, 0.01):
                tg.start_soon(sleeper, duration)

    anyio.run(main, backend="asyncio", backend_options=virtual_clock("asyncio"))
    assert woken == [0.001, 0.002, 0.01]


async def test_a_task_that_can_run_goes_before_the_clock() -> None:
    woken = anyio.Event()
    with anyio.move_on_after(1) as scope:
        async with anyio.create_task_group() as tg:

            async def steps() -> None:
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                woken.set()

            tg.start_soon(steps)
            await woken.wait()
    assert not scope.cancelled_caught


async def test_a_timeout_strikes_at_its_deadline() -> None:
    start = anyio.current_time()
    with anyio.move_on_after(60) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - start == 60


async def test_a_thread_wakes_a_loop_that_waits_for_nothing_else() -> None:
    start = anyio.current_time()
    waiting, woken = threading.Event(), anyio.Event()
    token: Any = anyio.lowlevel.current_token().native_token
    call_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon

    def wake() -> None:
        waiting.wait()
        call_soon(woken.set)

    async def open_the_gate() -> None:
        await anyio.wait_all_tasks_blocked()
        waiting.set()

    thread = threading.Thread(target=wake, daemon=True)
    thread.start()
    async with anyio.create_task_group() as tg:
        tg.start_soon(open_the_gate)
        await woken.wait()
    thread.join()
    # wait_all_tasks_blocked() may itself look a few times, a tenth of a second apart.
    assert anyio.current_time() - start < 1


async def test_a_worker_thread_is_waited_for_while_no_deadline_is_set() -> None:
    assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()


@settings(max_examples=25)
@given(st.lists(st.integers(min_value=1, max_value=10**6), max_size=10))
async def test_any_sleeps_end_in_order(durations: list[int]) -> None:
    woken: list[int] = []

    async def sleeper(duration: int) -> None:
        await anyio.sleep(duration)
        woken.append(duration)

    async with anyio.create_task_group() as tg:
        for duration in durations:
            tg.start_soon(sleeper, duration)
    assert woken == sorted(durations)


def test_the_options_serve_a_plain_run(anyio_backend_name: str) -> None:
    async def times() -> tuple[float, float]:
        start = anyio.current_time()
        await anyio.sleep(DAY)
        return start, anyio.current_time()

    run = partial(anyio.run, times, backend=anyio_backend_name)
    assert run(backend_options=virtual_clock(anyio_backend_name)) == (0, DAY)


def test_uvloop_has_no_virtual_clock() -> None:
    with pytest.raises(ValueError, match="uvloop"):
        virtual_clock("uvloop")

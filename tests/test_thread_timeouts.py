"""`timeout` of a sync handler: its thread cannot be cancelled, so what comes next waits for it; then it has failed.

The clock jumps while a thread runs: its time is over as soon as everything else waits.
"""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from test_threads import Gate, gate, wait_until_ended
from test_timeouts import AT_ONCE, Desk, Ping, Pong

from event_flow import AppEngine, HandlerTimeout, Retry

pytestmark = pytest.mark.virtual_clock


class ThreadDesk(Desk):
    """The handler runs in a thread, where each call passes through the gate; `fails` is what it raises behind it."""

    def __init__(
        self,
        gate: Gate,
        *,
        engine: AppEngine | None = None,
        fails: BaseException | None = None,
        timeout: float = 5,
        **options: Any,
    ) -> None:
        super().__init__(lambda _: gate.pass_through(), engine=engine, timeout=timeout, **options)
        self.fails = fails
        self.begun: list[int] = []

    def work(self, events: list[Ping]) -> None:  # type: ignore[override]
        self.begun.append(events[0].data)
        self.handle([event.data for event in events])
        if self.fails is not None:
            raise self.fails


def overdue(logs: list[Any]) -> list[str]:
    return [record.message for record in logs if "a thread cannot be cancelled" in record.message]


async def test_a_thread_is_waited_for_and_has_failed_whatever_it_returns(logs: list[Any]) -> None:
    with gate() as held:
        desk = ThreadDesk(held)
        await desk.engine.pub_events([Ping(0), Ping(1)])
        async with desk.engine:
            await held.wait_for()
            await anyio.sleep(100)
            assert (desk.begun, desk.letters) == ([0], [])
            assert overdue(logs) == [
                "engine.work runs longer than timeout=5 s, and a thread cannot be cancelled: what comes next waits for it"
            ]
            held.open()
            await desk.engine.wait_idle()
    assert desk.begun == [0, 1]
    assert isinstance(desk.letters[0].data, HandlerTimeout)
    assert desk.letters[0].data.__cause__ is None
    assert [event.data for event in desk.letters[0].events] == [0]


async def test_what_a_late_thread_raises_is_the_cause() -> None:
    error = OSError("late")
    with gate() as held:
        desk = ThreadDesk(held, fails=error)
        await desk.engine.pub_event(Ping(0))
        async with desk.engine:
            await held.wait_for()
            await anyio.sleep(100)
            held.open()
            await desk.engine.wait_idle()
    assert [letter.data.__cause__ for letter in desk.letters] == [error]
    assert "OSError: late" in desk.letters[0].traceback_str


async def test_what_is_to_end_the_engine_does_so_from_a_late_thread_too() -> None:
    """*Regression*: it was but the cause of a `HandlerTimeout`, and the engine went on."""
    raised: list[BaseException] = []
    with gate() as held:
        desk = ThreadDesk(held, fails=SystemExit(3))
        await desk.engine.pub_event(Ping(0))

        async def let_it_end() -> None:
            await held.wait_for()
            await anyio.sleep(100)
            held.open()
            await desk.engine.wait_idle()
            desk.engine.stop()

        async with anyio.create_task_group() as group:
            group.start_soon(let_it_end)
            try:
                await desk.engine.run()
            except SystemExit as exc:
                raised.append(exc)
    assert raised == [desk.fails]
    assert desk.letters == []


async def test_the_next_attempt_waits_for_the_thread() -> None:
    with gate() as held:
        desk = ThreadDesk(held, retry=Retry(on=HandlerTimeout, attempts=2, within=None, **AT_ONCE))
        await desk.engine.pub_event(Ping(0))
        async with desk.engine:
            await held.wait_for()
            await anyio.sleep(100)
            assert desk.begun == [0]
            held.open()
            await desk.engine.wait_idle()
    assert desk.begun == [0, 0]


async def test_a_key_waits_for_its_thread_and_the_others_go_on() -> None:
    with gate() as held:
        desk = ThreadDesk(held, key=lambda event: event.data % 2, concurrency=2)
        await desk.engine.pub_events([Ping(0), Ping(2), Ping(1), Ping(3)])
        async with desk.engine:
            await held.wait_for(2)
            await anyio.sleep(100)
            assert sorted(desk.begun) == [0, 1]
            held.open()
            await desk.engine.wait_idle()
    assert sorted(desk.begun) == [0, 1, 2, 3]


async def test_the_wait_for_a_place_among_the_threads_does_not_count(logs: list[Any]) -> None:
    with gate() as held:
        desk = ThreadDesk(held, engine=AppEngine(max_threads=1))
        is_free = threading.Event()

        @desk.engine.on_event(Pong)
        def takes_the_place(events: list[Pong]) -> None:
            assert is_free.wait(10)

        await desk.engine.pub_event(Pong(0))
        async with desk.engine:
            await anyio.wait_all_tasks_blocked()
            await desk.engine.pub_event(Ping(0))
            await anyio.sleep(100)
            assert (desk.begun, overdue(logs)) == ([], [])
            held.open()
            is_free.set()
            await desk.engine.wait_idle()


@pytest.mark.parametrize("ending", ["grace period", "cancel"])
async def test_at_the_end_the_thread_is_left_and_named(ending: str, logs: list[Any]) -> None:
    with gate() as held:
        desk = ThreadDesk(held, engine=AppEngine(max_batch=1, grace_period=3), fails=OSError("late"))
        await desk.engine.pub_events([Ping(0), Ping(1)])
        with CancelScope() as scope:
            async with desk.engine:
                await held.wait_for()
                await anyio.sleep(100)
                if ending == "cancel":
                    scope.cancel()
                    await checkpoint()
        report = desk.engine.report
        assert report is not None
        assert report.threads_left == ("engine.work",)
        assert desk.counts == (0, 0, 2)
        assert len(overdue(logs)) == 1
        assert desk.letters == []
    await wait_until_ended("event-flow engine.work")
    assert [record.message for record in logs if isinstance(record.exception, OSError)] == [
        "engine.work, which was left running, failed"
    ]


async def test_a_thread_that_ends_in_the_drain_has_failed_and_is_not_left() -> None:
    with gate() as held:
        desk = ThreadDesk(held, engine=AppEngine(grace_period=float("inf")))
        await desk.engine.pub_event(Ping(0))
        async with desk.engine:
            await held.wait_for()
            await anyio.sleep(100)
            desk.engine.stop()
            held.open()
    report = desk.engine.report
    assert report is not None
    assert report.is_clean
    assert [type(letter.data) for letter in desk.letters] == [HandlerTimeout]

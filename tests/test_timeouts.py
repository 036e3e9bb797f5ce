"""`timeout` of an async handler: the call is cancelled when its time is over, and has failed with `HandlerTimeout`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow import AppEngine, EngineClosed, Event, ExceptionEvent, HandlerTimeout, Retry

pytestmark = pytest.mark.virtual_clock


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


AT_ONCE: dict[str, Any] = {"wait_initial": 0, "wait_jitter": 0}


class Desk:
    """An engine with one handler, `engine.work`; `handle` gets the numbers of a batch. Keeps when calls began, and letters."""

    def __init__(
        self, handle: Callable[[list[int]], Any], *, engine: AppEngine | None = None, **options: Any
    ) -> None:
        self.engine = AppEngine(max_batch=1) if engine is None else engine
        self.handle = handle
        self.calls: list[tuple[float, int]] = []
        self.letters: list[ExceptionEvent] = []
        self.engine.register_handler(Ping, self.work, **options)

        @self.engine.before_start
        async def note_the_time() -> None:
            self.start = anyio.current_time()

        @self.engine.on_event(ExceptionEvent)
        async def keep(failures: list[ExceptionEvent]) -> None:
            self.letters += failures

    async def work(self, events: list[Ping]) -> None:
        self.calls.append((anyio.current_time() - self.start, events[0].data))
        await self.handle([event.data for event in events])

    async def run(self, *numbers: int) -> None:
        await self.engine.pub_events(map(Ping, numbers))
        async with self.engine:
            await self.engine.wait_idle()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Handled, failed, abandoned."""
        own = self.engine.statistics().handlers["engine.work"]
        assert own.accepted == own.handled + own.failed + own.abandoned + own.queued + own.running
        return own.handled, own.failed, own.abandoned


def takes(*seconds: float) -> Callable[[list[int]], Awaitable[None]]:
    """The handler sleeps so long, for its event with that number."""

    async def handle(numbers: list[int]) -> None:
        await anyio.sleep(sum(seconds[number] for number in numbers))

    return handle


async def test_a_call_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    desk = Desk(takes(1, 100, 1), timeout=5)
    await desk.run(0, 1, 2)
    assert desk.calls == [(0, 0), (1, 1), (6, 2)]
    (letter,) = desk.letters
    assert isinstance(letter.data, HandlerTimeout)
    assert (letter.data.handler, letter.data.timeout) == ("engine.work", 5.0)
    assert str(letter.data) == "engine.work took longer than timeout=5 s"
    assert ([event.data for event in letter.events], letter.attempt) == ([1], 1)
    assert "HandlerTimeout" in letter.traceback_str
    assert desk.counts == (2, 1, 0)


async def test_the_time_is_that_of_one_attempt() -> None:
    desk = Desk(takes(100), timeout=5, retry=Retry(on=HandlerTimeout, attempts=3, within=None, **AT_ONCE))
    await desk.run(0)
    assert desk.calls == [(0, 0), (5, 0), (10, 0)]
    assert [letter.attempt for letter in desk.letters] == [3]


async def test_a_batch_that_takes_too_long_may_be_isolated() -> None:
    desk = Desk(takes(3, 3, 9), engine=AppEngine(), timeout=5, isolate=True)
    await desk.run(0, 1, 2)
    assert desk.calls == [(0, 0), (5, 0), (8, 1), (11, 2)]
    assert [[event.data for event in letter.events] for letter in desk.letters] == [[2]]
    assert desk.counts == (2, 1, 0)


async def test_time_in_the_queue_does_not_count() -> None:
    desk = Desk(takes(4, 4, 4), timeout=5)
    await desk.run(0, 1, 2)
    assert (desk.letters, desk.counts) == ([], (3, 0, 0))


async def test_a_time_limit_of_the_handler_s_own_is_not_the_engine_s() -> None:
    async def handle(_: list[int]) -> None:
        with anyio.fail_after(1):
            await anyio.sleep(2)

    desk = Desk(handle, timeout=5)
    await desk.run(0)
    assert [type(letter.data) for letter in desk.letters] == [TimeoutError]


async def test_the_next_batch_waits_for_the_clean_up() -> None:
    async def handle(numbers: list[int]) -> None:
        try:
            await takes(100, 0)(numbers)
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(2)

    desk = Desk(handle, timeout=5)
    await desk.run(0, 1)
    assert desk.calls == [(0, 0), (7, 1)]
    assert [type(letter.data) for letter in desk.letters] == [HandlerTimeout]


async def test_what_the_clean_up_raises_is_what_failed() -> None:
    """As of any code: its own error says more than that it was late."""
    error = ValueError("in the clean-up")

    async def handle(_: list[int]) -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise error

    desk = Desk(handle, timeout=5)
    await desk.run(0)
    assert [letter.data for letter in desk.letters] == [error]


async def test_a_call_that_swallows_the_cancellation_and_returns_is_done() -> None:
    """It was late, but says that it has done its work; of a scope of anyio's it would be the same."""

    async def handle(_: list[int]) -> None:
        try:
            await anyio.sleep(100)
        except anyio.get_cancelled_exc_class():
            pass

    desk = Desk(handle, timeout=5)
    await desk.run(0)
    assert (desk.letters, desk.counts) == ([], (1, 0, 0))


async def test_a_call_that_cannot_be_cancelled_holds_its_lane_and_no_other() -> None:
    async def handle(_: list[int]) -> None:
        with CancelScope(shield=True):
            await anyio.sleep(50)
        await checkpoint()

    desk = Desk(handle, timeout=5)
    heard: list[float] = []

    @desk.engine.on_event(Pong)
    async def other(events: list[Pong]) -> None:
        heard.append(anyio.current_time() - desk.start)

    await desk.engine.pub_event(Pong(1))
    await desk.run(0, 1)
    assert desk.calls == [(0, 0), (50, 1)]
    assert heard == [0]
    assert desk.counts == (0, 2, 0)


async def test_the_tasks_that_the_handler_has_started_are_cancelled_too() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("child")

    async def handle(_: list[int]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    desk = Desk(handle, timeout=5)
    await desk.run(0)
    assert ended == ["child"]
    assert [type(letter.data) for letter in desk.letters] == [HandlerTimeout]


async def test_a_publish_that_waits_in_the_handler_is_not_made() -> None:
    """*Design promise 5*."""
    engine = AppEngine(queue_size=1, max_batch=1)
    heard: list[int] = []

    async def handle(_: list[int]) -> None:
        for number in range(9):
            await engine.pub_event(Pong(number))

    desk = Desk(handle, engine=engine, timeout=5)

    @engine.on_event(Pong)
    async def slow(events: list[Pong]) -> None:
        heard.append(events[0].data)
        await anyio.sleep(100)

    await desk.run(0)
    assert heard == [0, 1]
    assert [type(letter.data) for letter in desk.letters] == [HandlerTimeout]


@pytest.mark.parametrize("ending", ["drain", "grace period", "cancel"])
async def test_the_end_comes_while_the_time_runs(ending: str) -> None:
    desk = Desk(takes(100), engine=AppEngine(grace_period=3 if ending == "grace period" else 10), timeout=5)
    await desk.engine.pub_event(Ping(0))
    with CancelScope() as scope:
        async with desk.engine:
            await anyio.sleep(1)
            if ending == "cancel":
                scope.cancel()
                await checkpoint()
    assert desk.counts == ((0, 1, 0) if ending == "drain" else (0, 0, 1))
    assert [type(letter.data) for letter in desk.letters] == ([HandlerTimeout] if ending == "drain" else [])


async def test_each_run_of_an_engine_has_the_time_anew() -> None:
    desk = Desk(takes(100), timeout=5)
    await desk.run(0)
    with pytest.raises(EngineClosed):
        await desk.engine.pub_event(Ping(0))
    for _ in range(2):
        async with desk.engine:
            await desk.engine.pub_event(Ping(0))
            await desk.engine.wait_idle()
    assert desk.calls == [(0, 0)] * 3
    assert len(desk.letters) == 3

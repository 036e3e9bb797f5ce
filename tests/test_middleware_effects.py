"""What middleware may do with a batch, and what becomes of it then; its time, and the end of the engine in the middle of it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from test_middleware import CallNext, Desk, Noting, Ping, Pong, numbers

from event_flow import (
    AppEngine,
    Application,
    Batch,
    BatchFailed,
    ExceptionEvent,
    HandlerTimeout,
    Retry,
)

# -- what it may do --------------------------------------------------------------------------------------------------


async def _drops_odd(batch: Batch[Any], call_next: CallNext) -> None:
    batch.events[:] = [event for event in batch if event.data % 2 == 0]
    await call_next(batch)


async def _hands_on_its_own(batch: Batch[Any], call_next: CallNext) -> None:
    await call_next(Batch([Ping(event.data * 10) for event in batch]))


async def _one_by_one(batch: Batch[Any], call_next: CallNext) -> None:
    for event in batch:
        await call_next(Batch([event]))


async def _leaves_none(batch: Batch[Any], call_next: CallNext) -> None:
    batch.events.clear()
    await call_next(batch)


async def _twice(batch: Batch[Any], call_next: CallNext) -> None:
    await call_next(batch)
    await call_next(batch)


async def _not_at_all(batch: Batch[Any], call_next: CallNext) -> None:
    pass


@pytest.mark.parametrize(
    ("middleware", "got"),
    [
        ([_drops_odd], [[2]]),
        ([_hands_on_its_own], [[10, 20, 30]]),
        ([_hands_on_its_own, _drops_odd], [[10, 20, 30]]),
        ([_drops_odd, _hands_on_its_own], [[20]]),
        ([_one_by_one], [[1], [2], [3]]),
        ([_leaves_none], []),
        ([_twice], [[1, 2, 3], [1, 2, 3]]),
        ([_not_at_all], []),
    ],
)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_it_says_what_the_handler_gets(
    middleware: list[Any], got: list[list[int]], is_async: bool
) -> None:
    desk = Desk(*middleware, is_async=is_async)
    await desk.run(1, 2, 3)
    assert desk.got == got
    assert (desk.letters, desk.counts) == ([], (3, 0, 0))


async def test_what_it_changes_is_not_what_failed() -> None:
    letters: list[ExceptionEvent] = []

    class Fails(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            assert numbers(events) == [20]
            raise OSError

    app = Fails()
    app.add_middleware(_drops_odd)
    app.add_middleware(_hands_on_its_own)
    engine = AppEngine([app])

    @engine.on_event(ExceptionEvent)
    async def keep(failures: list[ExceptionEvent]) -> None:
        letters.extend(failures)

    await engine.pub_events(map(Ping, (1, 2, 3)))
    async with engine:
        await engine.wait_idle()
    assert [(type(letter.data), numbers(letter.events)) for letter in letters] == [(OSError, [1, 2, 3])]


async def test_what_it_swallows_has_not_failed() -> None:
    seen: list[Exception] = []

    async def swallow(batch: Batch[Any], call_next: CallNext) -> None:
        try:
            await call_next(batch)
        except OSError as exc:
            seen.append(exc)

    desk = Desk(swallow)
    desk.error = OSError()
    await desk.run(1)
    assert (seen, desk.letters, desk.counts) == ([desk.error], [], (1, 0, 0))


@pytest.mark.parametrize("calls_first", [True, False])
async def test_what_it_raises_the_handler_failed_with(calls_first: bool) -> None:
    error = KeyError("middleware")

    async def fail(batch: Batch[Ping], call_next: CallNext) -> None:
        if isinstance(batch.events[0], ExceptionEvent):
            return await call_next(batch)
        if calls_first:
            await call_next(batch)
        raise error

    desk = Desk(fail)
    await desk.run(1, 2)
    assert len(desk.got) == calls_first
    assert [(letter.data, numbers(letter.events)) for letter in desk.letters] == [(error, [1, 2])]
    assert "in fail" in desk.letters[0].traceback_str
    assert desk.counts == (0, 2, 0)


async def test_it_may_say_which_events_failed_and_have_them_tried_again() -> None:
    async def check(batch: Batch[Any], call_next: CallNext) -> None:
        bad = [event for event in batch if event.data == 2]
        batch.events = [event for event in batch if event.data != 2]
        await call_next(batch)
        if bad and batch.attempt < 3:
            raise BatchFailed([(event, OSError()) for event in bad])

    desk = Desk(check, retry=Retry(on=OSError, wait_initial=0, wait_jitter=0), grace_period=5)
    await desk.run(1, 2, 3)
    # For the second and the third attempt it leaves none.
    assert desk.got == [[1, 3]]
    assert desk.counts == (3, 0, 0)


async def test_call_next_takes_a_batch() -> None:
    async def wrong(batch: Batch[Any], call_next: Any) -> None:
        if not isinstance(batch.events[0], ExceptionEvent):
            await call_next(batch.events)
        await call_next(batch)

    desk = Desk(wrong)
    await desk.run(1)
    assert desk.got == []
    assert str(desk.letters[0].data) == (
        "wrong: call_next takes the Batch, not [Ping(1)]: write `await call_next(batch)`"
    )


async def test_what_it_publishes_is_published_from_inside() -> None:
    """*Design decision 10*: also while the engine drains."""
    heard: list[int] = []

    async def publish(batch: Batch[Any], call_next: CallNext) -> None:
        if isinstance(batch.events[0], Ping):
            desk.engine.stop()
            await checkpoint()
            await desk.engine.pub_event(Pong(7))
        await call_next(batch)

    desk = Desk(publish)

    @desk.engine.on_event(Pong)
    async def hear(events: list[Pong]) -> None:
        heard.extend(numbers(events))

    await desk.engine.pub_event(Ping(1))
    await desk.engine.run()
    assert (desk.got, heard) == ([[1]], [7])


async def test_the_key_fails_before_there_is_a_batch_for_it() -> None:
    diary: list[str] = []
    desk = Desk(Noting("m", diary), key=lambda event: 1 // event.data)
    await desk.run(0)
    assert [type(letter.data) for letter in desk.letters] == [ZeroDivisionError]
    assert diary == ["m 1", "/m"]  # of the dead letter


# -- time, and the end -----------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
async def test_the_timeout_is_that_of_the_handler_and_it_sees_it() -> None:
    engine = AppEngine()
    seen: list[BaseException] = []

    async def slow(batch: Batch[Any], call_next: CallNext) -> None:
        await anyio.sleep(100)
        try:
            await call_next(batch)
        except HandlerTimeout as exc:
            seen.append(exc)
        await anyio.sleep(100)

    engine.add_middleware(slow)

    @engine.on_event(Ping, timeout=5)
    async def work(events: list[Ping]) -> None:
        await anyio.sleep(10)

    await engine.pub_event(Ping(1))
    began = anyio.current_time()
    async with engine:
        await engine.wait_idle()
    assert anyio.current_time() - began == 205
    assert [type(error) for error in seen] == [HandlerTimeout]
    assert engine.statistics().handled == 1


@pytest.mark.virtual_clock
@pytest.mark.parametrize("where", ["before", "in the handler", "behind"])
@pytest.mark.parametrize("ending", ["drain", "grace period", "cancel"])
async def test_the_end_comes_in_the_middle_of_it(where: str, ending: str) -> None:
    diary: list[str] = []
    engine = AppEngine(grace_period=3 if ending == "grace period" else 10)

    async def around(batch: Batch[Any], call_next: CallNext) -> None:
        try:
            await anyio.sleep(5 if where == "before" else 0)
            await call_next(batch)
            await anyio.sleep(5 if where == "behind" else 0)
            diary.append("done")
        finally:
            with CancelScope(shield=True):
                await checkpoint()
            diary.append("cleaned up")

    engine.add_middleware(around)

    @engine.on_event(Ping, retry=Retry(on=Exception))
    async def work(events: list[Ping]) -> None:
        await anyio.sleep(5 if where == "in the handler" else 0)

    with CancelScope() as scope:
        async with engine:
            await engine.pub_events([Ping(1), Ping(2)])
            await anyio.sleep(1)
            if ending == "cancel":
                scope.cancel()
                await checkpoint()
    own = engine.statistics().handlers["engine.work"]
    if ending == "drain":
        assert "cleaned up" in diary
        assert (own.handled, own.abandoned) == (2, 0)
    else:
        assert diary == ["cleaned up"]
        assert (own.handled, own.failed, own.abandoned) == (0, 0, 2)

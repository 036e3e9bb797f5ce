"""A batch of which only a part failed: `BatchFailed` names it, `isolate` finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from event_flow import AppEngine, Batch, BatchFailed, Event, ExceptionEvent, Retry


class Ping(Event[int]):
    pass


AT_ONCE: dict[str, Any] = {"wait_initial": 0, "wait_jitter": 0}


class Desk:
    """An engine with one handler, which does what the test says of each batch; keeps the numbers of each, and dead letters."""

    def __init__(
        self, handle: Callable[[Batch[Ping]], object], *, is_async: bool = True, **options: Any
    ) -> None:
        self.engine = AppEngine(grace_period=options.pop("grace_period", 10))
        self.batches: list[list[int]] = []
        self.attempts: list[int] = []
        self.dead: list[ExceptionEvent] = []
        self.gate = anyio.Event()
        self.is_held = False

        def seen(batch: Batch[Ping]) -> None:
            self.batches.append([event.data for event in batch])
            self.attempts.append(batch.attempt)
            handle(batch)

        async def work(batch: Batch[Ping]) -> None:
            if self.is_held:
                await self.gate.wait()
            seen(batch)

        def work_in_thread(batch: Batch[Ping]) -> None:
            seen(batch)

        self.engine.register_handler(Ping, work if is_async else work_in_thread, **options)

        @self.engine.on_event(ExceptionEvent)
        async def keep(failures: list[ExceptionEvent]) -> None:
            self.dead += failures

    async def run(self, *numbers: int) -> None:
        """One batch of these, until all is done."""
        await self.engine.pub_events(map(Ping, numbers))
        async with self.engine:
            await self.engine.wait_idle()

    @property
    def letters(self) -> list[tuple[list[int], str, int]]:
        """The dead letters: numbers, error, attempt."""
        return [
            ([event.data for event in letter.events], str(letter.data), letter.attempt)
            for letter in self.dead
        ]

    def numbers(self) -> tuple[int, int, int, int]:
        """Handled, failed, abandoned and retried, of that handler; what it accepted is their sum."""
        (own, *_) = self.engine.statistics().handlers.values()
        assert own.accepted == own.handled + own.failed + own.abandoned + own.queued + own.running
        return own.handled, own.failed, own.abandoned, own.retried


def fail(*numbers: int) -> Callable[[Batch[Ping]], None]:
    """Names those of the batch that have one of these numbers as failed."""

    def handle(batch: Batch[Ping]) -> None:
        failures = {event: ValueError(event.data) for event in batch if event.data in numbers}
        if failures:
            raise BatchFailed(failures)

    return handle


def fail_with(*numbers: int) -> Callable[[Batch[Ping]], None]:
    """Fails if one of these is in the batch, whichever it was."""

    def handle(batch: Batch[Ping]) -> None:
        if any(event.data in numbers for event in batch):
            raise ValueError("bad")

    return handle


# -- BatchFailed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_what_is_named_is_given_up_and_the_rest_is_handled(is_async: bool) -> None:
    desk = Desk(fail(2), is_async=is_async)
    await desk.run(1, 2, 3)
    assert (desk.batches, desk.letters) == ([[1, 2, 3]], [([2], "2", 1)])
    assert desk.numbers() == (2, 1, 0, 0)


async def test_several_errors_become_one_dead_letter_that_tells_them_apart() -> None:
    desk = Desk(fail(1, 3))
    await desk.run(1, 2, 3)
    (letter,) = desk.dead
    assert isinstance(letter.data, BatchFailed)
    assert [(event.data, str(error)) for event, error in letter.data.failures] == [(1, "1"), (3, "3")]
    assert [event.data for event in letter.events] == [1, 3]


@pytest.mark.parametrize("options", [{}, {"retry": Retry(on=KeyError)}], ids=["plain", "with options"])
async def test_out_of_a_task_group_it_means_that_all_failed(options: dict[str, Any]) -> None:
    """*Regression*: the tasks of the other events were cancelled, and these counted as handled (*design promise 4*)."""
    engine = AppEngine()
    done: list[int] = []
    dead: list[ExceptionEvent] = []

    @engine.on_event(Ping, **options)
    async def work(events: list[Ping]) -> None:
        async def one(event: Ping) -> None:
            if event.data == 2:
                raise BatchFailed({event: ValueError(event.data)})
            await anyio.sleep_forever()
            done.append(event.data)

        async with anyio.create_task_group() as group:
            for event in events:
                group.start_soon(one, event)

    @engine.on_event(ExceptionEvent)
    async def keep(failures: list[ExceptionEvent]) -> None:
        dead.extend(failures)

    await engine.pub_events(map(Ping, (1, 2, 3)))
    async with engine:
        await engine.wait_idle()
    assert done == []
    (letter,) = dead
    assert [event.data for event in letter.events] == [1, 2, 3]
    assert engine.report is not None
    assert (engine.report.failed, engine.report.handled) == (3, 1)


async def test_only_what_failed_is_tried_again() -> None:
    desk = Desk(fail(2), retry=Retry(on=ValueError, attempts=3, **AT_ONCE))
    await desk.run(1, 2, 3)
    assert (desk.batches, desk.attempts) == ([[1, 2, 3], [2], [2]], [1, 2, 3])
    assert desk.letters == [([2], "2", 3)]
    assert desk.numbers() == (2, 1, 0, 2)


async def test_redelivered_is_only_what_failed() -> None:
    desk = Desk(fail(2))
    await desk.engine.pub_events([Ping(1), Ping(2)])
    async with desk.engine:
        await desk.engine.wait_idle()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.dead[0].redeliver)
        await desk.engine.wait_idle()
    assert desk.batches == [[1, 2], [2]]
    assert desk.attempts == [1, 1]


async def test_strangers_mean_that_all_failed() -> None:
    stranger = Ping(9)

    def handle(batch: Batch[Ping]) -> None:
        raise BatchFailed([stranger])

    desk = Desk(handle)
    await desk.run(1, 2)
    assert [numbers for numbers, _, _ in desk.letters] == [[1, 2]]
    assert desk.numbers() == (0, 2, 0, 0)


class Unfinished(BatchFailed):
    """Has an `__init__` of its own, which forgets that of its base class."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("options", [{}, {"retry": Retry(on=BatchFailed, attempts=2, **AT_ONCE)}])
async def test_a_subclass_that_names_no_event_means_that_all_failed(
    options: dict[str, Any], is_grouped: bool
) -> None:
    """*Regression*: it ended the engine."""

    def handle(batch: Batch[Ping]) -> None:
        error = Unfinished("no disk")
        raise ExceptionGroup("a task group", [error]) if is_grouped else error

    desk = Desk(handle, **options)
    await desk.run(1, 2)
    attempts = 2 if options else 1
    assert desk.batches == [[1, 2]] * attempts
    assert [(numbers, attempt) for numbers, _, attempt in desk.letters] == [([1, 2], attempts)]
    assert desk.numbers()[:2] == (0, 2)


async def test_what_is_done_is_counted_once_while_the_rest_is_told_of() -> None:
    """*Regression*: it was handled and running, as long as the publish of the ExceptionEvent waited for room."""
    engine = AppEngine(queue_size=1, max_batch=1)
    gate, is_failing = anyio.Event(), anyio.Event()

    async def work(batch: Batch[Ping]) -> None:
        is_failing.set()
        raise BatchFailed([batch.events[0]])

    engine.register_handler(Ping, work, max_batch=5, queue_size=5)

    @engine.on_event(ExceptionEvent)
    async def slow(failures: list[ExceptionEvent]) -> None:
        await gate.wait()

    await engine.pub_events(ExceptionEvent(OSError(), handler="nobody") for _ in range(2))
    await engine.pub_events([Ping(1), Ping(2)])
    async with engine:
        await is_failing.wait()
        await anyio.wait_all_tasks_blocked()
        assert engine._bus.router.lanes[1].waiters
        assert engine.statistics().handlers["engine.work"].accepted == 2
        gate.set()
        await engine.wait_idle()
        assert engine.statistics().handlers["engine.work"].accepted == 2


async def test_a_predicate_that_fails_gives_up_what_failed_and_nothing_else() -> None:
    """*Regression*: what the handler had done already failed with it, and would have been redelivered."""

    def on(error: Exception) -> bool:
        raise KeyError("broken")

    desk = Desk(fail(2), retry=Retry(on=on))
    await desk.run(1, 2, 3)
    assert desk.letters == [([2], "'broken'", 1)]
    assert str(desk.dead[0].data.__context__) == "1 event failed, the first with ValueError(2)"
    assert desk.numbers() == (2, 1, 0, 0)


async def test_a_predicate_may_end_the_engine_like_any_code() -> None:
    """*Regression*: the events of that attempt were in no number."""

    def on(error: Exception) -> bool:
        raise SystemExit(3)

    desk = Desk(fail(1, 2), retry=Retry(on=on))
    await desk.engine.pub_events([Ping(1), Ping(2)])
    with pytest.raises(SystemExit):
        await desk.engine.run()
    assert desk.numbers() == (0, 2, 0, 0)


# -- isolate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_only_what_fails_alone_has_failed(is_async: bool) -> None:
    desk = Desk(fail_with(2, 3), is_async=is_async, isolate=True)
    await desk.run(1, 2, 3, 4)
    assert desk.batches == [[1, 2, 3, 4], [1], [2], [3], [4]]
    assert desk.attempts == [1, 2, 2, 2, 2]
    assert desk.letters == [([2], "bad", 2), ([3], "bad", 2)]
    assert desk.numbers() == (2, 2, 0, 4)


async def test_isolated_after_the_last_attempt_and_then_not_retried() -> None:
    desk = Desk(fail_with(2), isolate=True, retry=Retry(on=ValueError, attempts=2, **AT_ONCE))
    await desk.run(1, 2)
    assert (desk.batches, desk.attempts) == ([[1, 2], [1, 2], [1], [2]], [1, 2, 3, 3])
    assert desk.letters == [([2], "bad", 3)]


async def test_later_events_come_after_those_that_are_isolated() -> None:
    desk = Desk(fail_with(1), isolate=True, max_batch=2)
    await desk.run(1, 2, 3, 4)
    assert desk.batches == [[1, 2], [1], [2], [3, 4]]


async def test_isolated_events_of_a_key_keep_their_order_and_later_ones_wait() -> None:
    desk = Desk(fail_with(1), isolate=True, max_batch=2, key=lambda event: event.data % 2, concurrency=2)
    await desk.run(1, 3, 5, 2)
    odd = [batch for batch in desk.batches if batch[0] % 2]
    assert odd == [[1, 3], [1], [3], [5]]
    assert [2] in desk.batches


async def test_a_batch_of_one_is_not_tried_twice() -> None:
    desk = Desk(fail_with(1), isolate=True)
    await desk.run(1)
    assert (desk.batches, desk.letters) == ([[1]], [([1], "bad", 1)])


# -- the end comes in the middle -------------------------------------------------------------------------------------


OPTIONS = [{"isolate": True}, {"retry": Retry(on=ValueError, attempts=2, **AT_ONCE)}]


@pytest.mark.parametrize("options", OPTIONS, ids=["isolate", "retry"])
async def test_the_drain_makes_the_attempts_that_are_left(options: dict[str, Any]) -> None:
    desk = Desk(fail_with(2), **options)
    desk.is_held = True
    await desk.engine.pub_events([Ping(1), Ping(2)])
    async with desk.engine:
        await anyio.wait_all_tasks_blocked()
        desk.engine.stop()
        desk.gate.set()
    assert len(desk.batches) == (3 if "isolate" in options else 2)
    report = desk.engine.report
    assert report is not None
    assert report.is_clean
    assert sum(desk.numbers()[:2]) == 2


@pytest.mark.parametrize("options", OPTIONS, ids=["isolate", "retry"])
async def test_a_hard_end_between_attempts_abandons_what_is_left(options: dict[str, Any]) -> None:
    def handle(batch: Batch[Ping]) -> None:
        if batch.attempt == 2:
            scope.cancel()
        fail_with(1, 2)(batch)

    desk = Desk(handle, **options)
    await desk.engine.pub_events([Ping(1), Ping(2), Ping(3)])
    with CancelScope() as scope:
        await desk.engine.run()
    assert scope.cancelled_caught
    report = desk.engine.report
    assert report is not None
    assert report.accepted == report.handled + report.failed + report.abandoned
    handled, failed, abandoned, _ = desk.numbers()
    if "isolate" in options:
        # The first alone has failed, or is cut off right after it before the engine hears of it.
        assert 1 <= failed <= 3
        assert (handled, abandoned) == (len(desk.batches) - 1 - failed, 4 - len(desk.batches))
    else:
        assert (handled, failed, abandoned) == (0, 3, 0)


async def test_cancelled_in_an_attempt_its_events_are_abandoned_and_not_those_that_are_done() -> None:
    def fail_and_hold(batch: Batch[Ping]) -> None:
        desk.is_held = True
        fail(2, 3)(batch)

    desk = Desk(fail_and_hold, retry=Retry(on=ValueError, **AT_ONCE))
    await desk.engine.pub_events([Ping(1), Ping(2), Ping(3)])
    with CancelScope() as scope:
        async with desk.engine:
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert desk.numbers()[:3] == (1, 0, 2)

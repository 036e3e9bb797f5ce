"""`retry`: what failed is handed over again after a wait, in its order, while everything else goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow import AppEngine, Batch, Event, ExceptionEvent, Retry, ShutdownReport

pytestmark = pytest.mark.virtual_clock


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


def every(seconds: float, **options: Any) -> Retry:
    """Of what is a `ValueError`."""
    return Retry(on=ValueError, wait_initial=seconds, wait_max=seconds, wait_jitter=0, **options)


class Desk:
    """An engine with one handler. It fails with events 1, 2, … until the attempt that `good` says; all others are fine.

    Keeps each call: the second after the start, the numbers of its events, the attempt.
    """

    def __init__(
        self, retry: Retry, *, good: int = 99, engine: AppEngine | None = None, **options: Any
    ) -> None:
        self.engine = AppEngine() if engine is None else engine
        self.good = good
        self.calls: list[tuple[float, list[int], int]] = []
        self.letters: list[ExceptionEvent] = []
        self.takes = 0.0
        self.engine.before_start(self._note_the_time)
        self.engine.register_handler(Ping, self.work, retry=retry, **options)
        self.engine.register_handler(ExceptionEvent, self._keep)

    async def _note_the_time(self) -> None:
        self.start = anyio.current_time()

    async def _keep(self, failures: list[ExceptionEvent]) -> None:
        self.letters += failures

    async def work(self, batch: Batch[Ping]) -> None:
        numbers = [event.data for event in batch]
        self.calls.append((round(anyio.current_time() - self.start, 6), numbers, batch.attempt))
        await anyio.sleep(self.takes)
        if max(numbers) > 0 and batch.attempt < self.good:
            raise ValueError(numbers)

    async def run(self, *numbers: int) -> ShutdownReport:
        """Publish these, wait until all is done."""
        await self.engine.pub_events(map(Ping, numbers))
        async with self.engine:
            await self.engine.wait_idle()
        assert self.engine.report is not None
        return self.engine.report

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Handled, failed, abandoned, retried."""
        own = self.engine.statistics().handlers["engine.work"]
        assert own.accepted == own.handled + own.failed + own.abandoned + own.queued + own.running
        return own.handled, own.failed, own.abandoned, own.retried


# -- attempts and waits ----------------------------------------------------------------------------------------------


async def test_what_succeeds_the_second_time_is_handled_once() -> None:
    desk = Desk(every(2), good=2)
    report = await desk.run(1, 0)
    assert desk.calls == [(0, [1, 0], 1), (2, [1, 0], 2)]
    assert (desk.letters, desk.counts) == ([], (2, 0, 0, 2))
    assert (report.accepted, report.handled, report.failed) == (2, 2, 0)


async def test_after_the_last_attempt_it_is_one_dead_letter() -> None:
    desk = Desk(every(2, attempts=3))
    await desk.run(1, 2)
    assert [(at, attempt) for at, _, attempt in desk.calls] == [(0, 1), (2, 2), (4, 3)]
    (letter,) = desk.letters
    assert (letter.attempt, [event.data for event in letter.events]) == (3, [1, 2])
    assert desk.counts == (0, 2, 0, 4)


async def test_waits_are_counted_from_the_end_of_an_attempt_and_within_from_the_first_one_s_begin() -> None:
    desk = Desk(every(2, attempts=None, within=10))
    desk.takes = 1
    await desk.run(1)
    # The fourth ends at 10, so that the next would begin at 12.
    assert [at for at, _, _ in desk.calls] == [0, 3, 6, 9]


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_seed_makes_the_waits_known_and_alike_in_each_run(seed: int) -> None:
    retry = Retry(on=ValueError, attempts=6, seed=seed)
    desk = Desk(retry)
    random = Random(seed)
    waits = [retry.backoff(attempt, random) for attempt in range(1, 6)]
    for _ in range(2):
        desk.calls.clear()
        async with desk.engine:
            await desk.engine.pub_event(Ping(1))
            await desk.engine.wait_idle()
        expected = [0.0, *itertools.accumulate(waits)]
        assert [at for at, _, _ in desk.calls] == pytest.approx(expected, abs=1e-5)
    assert len(set(waits)) == 5


async def test_only_what_is_worth_it_is_tried_again() -> None:
    asked: list[Exception] = []

    def on(error: Exception) -> bool:
        asked.append(error)
        return error.args == ([2],)

    desk = Desk(Retry(on=on, attempts=2, wait_initial=0, wait_jitter=0), max_batch=1)
    await desk.run(1, 2)
    assert [numbers for _, numbers, _ in desk.calls] == [[1], [2], [2]]
    assert [error.args for error in asked] == [([1],), ([2],)]
    assert [letter.attempt for letter in desk.letters] == [1, 2]


async def test_what_is_redelivered_has_all_attempts_anew() -> None:
    desk = Desk(every(1, attempts=2))
    await desk.engine.pub_event(Ping(1))
    async with desk.engine:
        await desk.engine.wait_idle()
        await desk.letters[0].redeliver()
        await desk.engine.wait_idle()
    assert [attempt for _, _, attempt in desk.calls] == [1, 2, 1, 2]
    assert [letter.attempt for letter in desk.letters] == [2, 2]


async def test_each_wait_is_told_of_but_not_a_thousand_times(logs: list[Any]) -> None:
    desk = Desk(every(0.1, attempts=9))
    await desk.run(1)
    told = [record for record in logs if "failed with 1 event" in record.message]
    assert [record.level for record in told] == ["WARNING"] * 5 + ["ERROR"]
    assert told[0].message == "engine.work failed with 1 event: ValueError([1]); attempt 2 in 0.1 s"
    assert [record.message for record in logs if "not logged" in record.message] == [
        "engine.work failed 3 more times, which were not logged"
    ]


async def test_the_handler_of_failures_may_be_tried_again_too() -> None:
    engine = AppEngine()
    attempts: list[int] = []

    @engine.on_event(Ping)
    async def fails(events: list[Ping]) -> None:
        raise OSError

    @engine.on_event(ExceptionEvent, retry=every(1, attempts=3))
    async def also_fails(batch: Batch[ExceptionEvent]) -> None:
        attempts.append(batch.attempt)
        raise ValueError

    await engine.pub_event(Ping(1))
    async with engine:
        await engine.wait_idle()
    assert attempts == [1, 2, 3]
    assert engine.statistics().handlers["engine.also_fails"].failed == 1


# -- order, and what goes on meanwhile -------------------------------------------------------------------------------


async def test_later_events_of_the_lane_wait_for_the_next_attempt() -> None:
    """*Design promise 1*."""
    desk = Desk(every(5), good=2, max_batch=1)
    await desk.run(0, 1, 0)
    assert desk.calls == [(0, [0], 1), (0, [1], 1), (5, [1], 2), (5, [0], 1)]


async def test_with_several_workers_the_others_go_on() -> None:
    desk = Desk(every(5), good=2, max_batch=1, concurrency=2)
    await desk.run(1, 0, 0)
    assert desk.calls == [(0, [1], 1), (0, [0], 1), (0, [0], 1), (5, [1], 2)]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_other_keys_go_on_and_the_own_waits(concurrency: int) -> None:
    desk = Desk(every(5), good=2, key=lambda event: event.data % 10, concurrency=concurrency, max_batch=1)
    await desk.run(1, 11, 0, -10)
    assert sorted(desk.calls[:3]) == [(0, [-10], 1), (0, [0], 1), (0, [1], 1)]
    assert desk.calls[3:] == [(5, [1], 2), (5, [11], 1), (10, [11], 2)]


async def test_other_handlers_of_the_same_events_go_on() -> None:
    """*Design promise 6*."""
    desk = Desk(every(5, attempts=3), max_batch=1)
    seen: list[tuple[float, int]] = []

    @desk.engine.on_event(Ping)
    async def other(events: list[Ping]) -> None:
        seen.extend((anyio.current_time() - desk.start, event.data) for event in events)

    await desk.run(1, 2)
    assert seen == [(0, 1), (0, 2)]


async def test_no_thread_is_held_while_it_waits() -> None:
    engine = AppEngine(max_threads=1)
    diary: list[str] = []

    @engine.on_event(Ping, retry=every(5, attempts=2))
    def fails(events: list[Ping]) -> None:
        diary.append("attempt")
        raise ValueError

    @engine.on_event(Pong)
    def other(events: list[Pong]) -> None:
        diary.append("other")

    async with engine:
        await engine.pub_event(Ping(1))
        await _until(lambda: bool(diary) and engine.statistics().queued == 1)
        await engine.pub_event(Pong(1))
        await _until(lambda: engine.statistics().handlers["engine.other"].handled == 1)
        assert diary == ["attempt", "other"]
        await engine.wait_idle()
    assert diary == ["attempt", "other", "attempt"]


async def _until(holds: Callable[[], bool]) -> None:
    """In the time of this moment: a thread is at work, and the clock stands still."""
    while not holds():
        await checkpoint()


async def test_what_waits_is_queued_and_takes_its_room() -> None:
    """*Design promise 2*."""
    desk = Desk(every(5), good=2, max_batch=1, queue_size=2)
    published: list[float] = []

    async def publish() -> None:
        for number in (1, 0, 0, 0):
            await desk.engine.pub_event(Ping(number))
            published.append(anyio.current_time() - desk.start)

    async with desk.engine, anyio.create_task_group() as group:
        group.start_soon(publish)
        await anyio.sleep(1)
        own = desk.engine.statistics().handlers["engine.work"]
        # The one that failed came back over the limit, if others had taken its place meanwhile.
        assert (own.queued, own.running, own.over_limit) == (len(published), 0, 0)
        assert own.queued <= 3
        await desk.engine.wait_idle()
    assert published[-1] == 5
    assert [numbers for _, numbers, _ in desk.calls] == [[1], [1], [0], [0], [0]]


# -- the end comes in the middle -------------------------------------------------------------------------------------


async def test_the_drain_waits_for_the_next_attempt() -> None:
    desk = Desk(every(5), good=2)
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await anyio.sleep(1)
        desk.engine.stop()
    assert desk.calls == [(0, [1], 1), (5, [1], 2)]
    assert desk.engine.report is not None
    assert desk.engine.report.is_clean


@pytest.mark.parametrize(
    "options", [{}, {"key": lambda event: event.data}, {"concurrency": 2}], ids=["lane", "key", "concurrency"]
)
async def test_what_waits_is_abandoned_when_the_grace_period_is_over(options: dict[str, Any]) -> None:
    desk = Desk(every(50, within=None), engine=AppEngine(grace_period=8), max_batch=1, **options)
    async with desk.engine:
        await desk.engine.pub_events([Ping(1), Ping(1)])
        await anyio.sleep(1)
        desk.engine.stop()
    assert anyio.current_time() - desk.start == pytest.approx(9)
    assert desk.engine.report is not None
    assert desk.engine.report.abandoned_events == {"engine.work": {"Ping": 2}}
    assert desk.counts == (0, 0, 2, 0)
    assert desk.letters == []


async def test_nothing_of_an_attempt_that_was_abandoned_is_left_for_the_next_run() -> None:
    desk = Desk(every(50, within=None), engine=AppEngine(grace_period=8), good=2)
    await desk.engine.pub_event(Ping(1))
    async with desk.engine:
        await anyio.sleep(1)
    async with desk.engine:
        await desk.engine.pub_event(Ping(2))
        await desk.engine.wait_idle()
    assert desk.calls == [(0, [1], 1), (0, [2], 1), (50, [2], 2)]


@pytest.mark.parametrize("moment", ["attempt", "wait", "second attempt"])
async def test_cancelled_in_the_middle_its_events_are_abandoned(moment: str) -> None:
    desk = Desk(every(5))
    desk.takes = 1
    with CancelScope() as scope:
        async with desk.engine:
            await desk.engine.pub_events([Ping(1), Ping(2)])
            await anyio.sleep({"attempt": 0.5, "wait": 3, "second attempt": 6.5}[moment])
            scope.cancel()
            await checkpoint()
    assert len(desk.calls) == (2 if moment == "second attempt" else 1)
    assert desk.counts[:3] == (0, 0, 2)
    assert desk.letters == []


async def test_a_publisher_that_waits_behind_an_attempt_may_be_cancelled() -> None:
    """*Design promise 5*."""
    desk = Desk(every(50, within=None), good=2, max_batch=1, queue_size=1)
    async with desk.engine:
        with anyio.move_on_after(5) as scope:
            for number in (1, 0, 0, 0):
                await desk.engine.pub_event(Ping(number))
        assert scope.cancelled_caught
        accepted = desk.engine.statistics().handlers["engine.work"].accepted
        await desk.engine.wait_idle()
    assert desk.counts[:3] == (accepted, 0, 0)

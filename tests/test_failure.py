"""What becomes of a failing handler: the ExceptionEvent, redelivery, and what ends an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from backends import REAL_TIME
from waiting import SOON

from event_flow import (
    AppEngine,
    Application,
    BatchFailed,
    EngineClosed,
    EngineState,
    Event,
    ExceptionEvent,
    UnexpectedCancellation,
    on_event,
    schedule,
    task,
)
from event_flow.core.failure import LOGGED_IN_FULL
from event_flow.core.lane import Lane
from event_flow.core.log_limit import WINDOW, LogLimit


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class DeadLetters(Application):
    """Keeps every failure."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[ExceptionEvent] = []

    async def on_failure(self, events: list[ExceptionEvent]) -> None:
        self.kept += events


class Fails(Application):
    """Fails until it was told to succeed; keeps the numbers of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = ValueError("bad ping")
        self.batches: list[list[int]] = []

    async def on_ping(self, events: list[Ping]) -> None:
        self.batches.append([event.data for event in events])
        if self.error is not None:
            raise self.error


def assert_all_accounted_for(engine: AppEngine) -> None:
    report = engine.report
    assert report is not None
    assert report.accepted == report.handled + report.failed + report.dropped + report.abandoned


# -- the ExceptionEvent ----------------------------------------------------------------------------------------------


async def test_a_failed_batch_is_an_exception_event_with_its_events() -> None:
    app, letters = Fails(), DeadLetters()
    events = [Ping(1), Ping(2)]
    engine = AppEngine([app, letters])
    await engine.pub_events(events)
    async with engine:
        await engine.wait_idle()
        assert engine.state is EngineState.RUNNING
    (failure,) = letters.kept
    assert failure.data is app.error
    assert failure.handler == "Fails.on_ping"
    assert failure.attempt == 1
    assert failure.events == tuple(events)
    assert all(kept is event for kept, event in zip(failure.events, events, strict=True))
    assert failure.traceback_str.startswith("Traceback (most recent call last):")
    assert "in on_ping" in failure.traceback_str
    assert failure.traceback_str.rstrip().endswith("ValueError: bad ping")
    assert_all_accounted_for(engine)


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    "ruin", [list.clear, list.reverse, lambda events: events.append(Ping(9)), lambda events: events.pop(0)]
)
async def test_what_a_handler_does_to_its_list_does_not_change_the_dead_letter(
    kind: str, ruin: Callable[[list[Any]], object]
) -> None:
    letters = DeadLetters()
    engine = AppEngine([letters])

    async def ruins(events: list[Ping]) -> None:
        ruin(events)
        raise OSError

    def ruins_in_a_thread(events: list[Ping]) -> None:
        ruin(events)
        raise OSError

    engine.register_handler(Ping, ruins if kind == "async" else ruins_in_a_thread)
    await engine.pub_events([Ping(1), Ping(2), Ping(3)])
    async with engine:
        await engine.wait_idle()
    assert [event.data for event in letters.kept[0].events] == [1, 2, 3]
    assert engine.statistics().failed == 3


async def test_a_handler_of_a_list_may_name_what_failed_too() -> None:
    """*Regression*: a plain handler with no options took `BatchFailed` for the failure of all of its batch."""
    letters = DeadLetters()
    engine = AppEngine([letters])

    @engine.on_event(Ping)
    async def work(events: list[Ping]) -> None:
        raise BatchFailed([events[0]])

    await engine.pub_events([Ping(1), Ping(2), Ping(3)])
    async with engine:
        await engine.wait_idle()
    assert [[event.data for event in letter.events] for letter in letters.kept] == [[1]]
    own = engine.statistics().handlers["engine.work"]
    assert (own.handled, own.failed) == (2, 1)


async def test_other_handlers_of_the_same_events_never_notice() -> None:
    """Design promise 6."""
    letters = DeadLetters()
    got: list[int] = []

    class Works(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            got.extend(event.data for event in events)

    async with AppEngine([Fails(), Works(), letters], max_batch=1) as engine:
        await engine.pub_events([Ping(1), Ping(2)])
    assert got == [1, 2]
    assert [event.data for failure in letters.kept for event in failure.events] == [1, 2]


async def test_failures_in_the_drain_reach_their_handler() -> None:
    letters = DeadLetters()
    engine = AppEngine([Fails(), letters])
    await engine.pub_event(Ping(1))
    async with engine:
        engine.stop()
    assert len(letters.kept) == 1


async def test_a_batch_has_failed_although_the_engine_ends_before_its_exception_event_is_published() -> None:
    """*Design promise 4*. `accepted` is a sum, so that the report would add up without it, too."""

    class Stuck(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            raise OSError

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            await anyio.sleep_forever()

    engine = AppEngine([Stuck()], queue_size=1, max_batch=1, grace_period=0)
    async with engine:
        for number in range(3):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
        assert engine.statistics().handlers["Stuck.on_ping"].running == 1  # its failure waits for room
    report = engine.report
    assert report is not None
    assert (report.accepted, report.failed, report.abandoned) == (5, 3, 2)


async def test_without_a_handler_for_it_a_failure_is_logged_only(logs: list[Any]) -> None:
    engine = AppEngine([Fails()])
    await engine.pub_event(Ping(1))
    async with engine:
        await engine.wait_idle()
    assert [record.message for record in logs if record.level in ("ERROR", "WARNING")] == [
        "Fails.on_ping failed with 1 event: ValueError('bad ping')"
    ]
    assert engine.statistics().unhandled == 0


async def test_a_handler_of_failures_that_fails_is_logged_only(logs: list[Any]) -> None:
    """Or it would go round for ever."""
    calls: list[int] = []

    class Worse(Application):
        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            calls.append(len(events))
            raise KeyError("worse")

    engine = AppEngine([Fails(), Worse()])
    await engine.pub_event(Ping(1))
    async with engine:
        await engine.wait_idle()
    assert calls == [1]
    failed = [record.extra["handler"] for record in logs if record.level == "ERROR"]
    assert failed == ["Fails.on_ping", "Worse.on_failure"]
    assert_all_accounted_for(engine)


async def test_an_exception_event_past_the_backlog_is_logged_only(logs: list[Any]) -> None:
    """*Design D7*: it must not end the engine. The lane of failures is full and waits for the one that fails."""
    gate = anyio.Event()

    class Circle(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            await gate.wait()
            if events[0].data == 0:
                raise OSError

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            if events[0].handler == "first by hand":
                await self.engine.pub_event(Ping(2))

    async with AppEngine([Circle()], queue_size=1, max_batch=1, max_backlog=0) as engine:
        by_hand = [ExceptionEvent(OSError(), handler=f"{number} by hand") for number in ("first", "second")]
        events: list[Event[Any]] = [Ping(0), Ping(1), *by_hand]
        for event in events:
            await engine.pub_event(event)
            await anyio.wait_all_tasks_blocked()
        gate.set()
        with anyio.fail_after(SOON):
            await engine.wait_idle()
        assert engine.state is EngineState.RUNNING
    assert engine.statistics().failed == 1
    warnings = [record.message for record in logs if record.level == "WARNING"]
    assert any(line.startswith("The ExceptionEvent of Circle.on_ping was not published") for line in warnings)


async def test_exception_events_in_a_failed_batch_are_left_out_of_the_next_one() -> None:
    """The ordinary events make one."""
    gate = anyio.Event()
    batches: list[list[str]] = []
    letters: list[tuple[str, list[str]]] = []

    def names(events: Any) -> list[str]:
        return [type(event).__name__ for event in events]

    class Everything(Application):
        @on_event(Event)
        async def all_of_them(self, events: list[Event[Any]]) -> None:
            failures = [event for event in events if isinstance(event, ExceptionEvent)]
            letters.extend((failure.handler, names(failure.events)) for failure in failures)
            batches.append(names(events))
            await gate.wait()
            raise OSError

    async with AppEngine([Everything()]) as engine:
        await engine.pub_event(Ping(1))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_events([Ping(2), ExceptionEvent(OSError(), handler="by hand"), Pong(3)])
        gate.set()
        await engine.wait_idle()
    assert batches == [["Ping"], ["Ping", "ExceptionEvent", "Pong", "ExceptionEvent"], ["ExceptionEvent"]]
    mine = "Everything.all_of_them"
    assert letters == [("by hand", []), (mine, ["Ping"]), (mine, ["Ping", "Pong"])]
    assert_all_accounted_for(engine)


class Several(ExceptionGroup[Exception]):
    pass


class Unprintable(Exception):
    """What it is printed as needs what was never set."""

    def __repr__(self) -> str:
        return f"Unprintable({self.code})"  # type: ignore[attr-defined]

    __str__ = __repr__


@pytest.mark.parametrize(
    "error",
    [
        OSError("no"),
        TimeoutError(),
        EngineClosed("mine"),
        ExceptionGroup("two", [OSError(), KeyError()]),
        Several("two", [OSError(), KeyError()]),
        Unprintable(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_exception_of_a_handler_is_an_outcome(error: Exception) -> None:
    app, letters = Fails(), DeadLetters()
    app.error = error
    async with AppEngine([app, letters]) as engine:
        await engine.pub_event(Ping(1))
    assert [failure.data for failure in letters.kept] == [error]


async def test_an_unprintable_error_beside_a_system_exit_changes_nothing(logs: list[Any]) -> None:
    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            raise SystemExit(3)

        async def exit(self) -> None:
            raise Unprintable

    engine = AppEngine([App()])
    await engine.pub_event(Ping(1))
    with pytest.raises(SystemExit):
        await engine.run()
    assert [record.message for record in logs if isinstance(record.exception, Unprintable)] == [
        "Behind SystemExit(3) the engine failed: <Unprintable, whose repr() raises AttributeError>"
    ]


# -- redelivery ------------------------------------------------------------------------------------------------------


async def test_redelivery_goes_to_that_handler_only_and_counts_as_new() -> None:
    app, letters, others = Fails(), DeadLetters(), Fails()
    others.error = None
    engine = AppEngine([app, others, letters])
    await engine.pub_events([Ping(1), Ping(2)])
    async with engine:
        await engine.wait_idle()
        (failure,) = letters.kept
        await failure.redeliver()
        await engine.wait_idle()
        app.error = None
        await failure.redeliver()
        await engine.wait_idle()
    assert [event.data for letter in letters.kept for event in letter.events] == [1, 2, 1, 2]
    assert sorted(number for batch in app.batches for number in batch) == [1, 1, 1, 2, 2, 2]
    assert others.batches == [[1, 2]]
    statistics = engine.statistics().handlers["Fails.on_ping"]
    assert (statistics.accepted, statistics.failed, statistics.handled) == (6, 4, 2)
    assert all(letter.attempt == 1 for letter in letters.kept)
    assert_all_accounted_for(engine)


async def test_a_handler_of_failures_may_redeliver_while_the_engine_drains() -> None:
    app = Fails()
    gate = anyio.Event()

    class Retries(Application):
        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            await gate.wait()
            app.error = None
            for event in events:
                await event.redeliver()

    engine = AppEngine([app, Retries()])
    await engine.pub_event(Ping(1))
    async with engine:
        await anyio.wait_all_tasks_blocked()
        engine.stop()
        gate.set()
    assert app.batches == [[1], [1]]
    assert engine.report is not None
    assert (engine.report.failed, engine.report.handled, engine.report.is_clean) == (1, 2, True)


async def test_redelivery_from_outside_is_refused_from_stop_on() -> None:
    gate = anyio.Event()
    app, letters = Fails(), DeadLetters()
    engine = AppEngine([app, letters])

    @engine.on_event(Pong)
    async def keeps_the_drain_open(events: list[Pong]) -> None:
        await gate.wait()

    async with engine:
        await engine.pub_event(Ping(1))
        await engine.wait_idle()
        (failure,) = letters.kept
        await engine.pub_event(Pong(1))
        engine.stop()
        with pytest.raises(EngineClosed):
            await failure.redeliver()
        gate.set()
    with pytest.raises(EngineClosed):
        await failure.redeliver()
    async with engine:
        with pytest.raises(EngineClosed):
            await failure.redeliver()  # it belongs to the run before
    assert app.batches == [[1]]


# -- cancellation that nobody asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["handler", "tick", "task"])
@pytest.mark.parametrize("loop", [name for name in REAL_TIME if name != "trio"])
def test_awaiting_a_cancelled_future_is_a_failure_like_any_other(where: str, loop: str) -> None:
    """Only asyncio has futures that somebody else can cancel; let through, this ends a task group without any error."""

    class App(DeadLetters):
        async def wait(self, place: str) -> None:
            if place == where:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

        @on_event(Ping)
        async def handle(self, events: list[Ping]) -> None:
            await self.wait("handler")

        @schedule(3600)
        async def tick(self) -> None:
            await self.wait("tick")

        @task
        async def work(self) -> None:
            await self.wait("task")

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            await super().on_failure(events)
            self.engine.stop()

    app = App()
    engine = AppEngine([app])
    engine.before_start(lambda: engine.pub_event_from_thread(Ping(1)))
    engine.start("asyncio", {"use_uvloop": loop == "uvloop"})
    (failure,) = app.kept
    assert isinstance(failure.data, UnexpectedCancellation)
    assert isinstance(failure.data.__cause__, asyncio.CancelledError)
    assert failure.handler == {"handler": "App.handle", "tick": "App.tick", "task": "App.work"}[where]
    assert_all_accounted_for(engine)


async def test_a_timeout_inside_a_handler_is_its_own_affair() -> None:
    got: list[int] = []

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
            got.extend(event.data for event in events)

    async with AppEngine([App()], on_error="raise") as engine:
        await engine.pub_event(Ping(1))
    assert got == [1]


# -- strict engines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["handler", "sync handler", "function", "tick", "task", "sync task"])
async def test_the_first_failure_ends_a_strict_engine_with_itself(where: str) -> None:
    error = ValueError("first")
    diary: list[str] = []

    def fail(place: str) -> None:
        if place == where:
            raise error

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            fail("handler")

        def on_ping_in_a_thread(self, events: list[Ping]) -> None:
            fail("sync handler")

        @schedule(3600)
        async def tick(self) -> None:
            fail("tick")

        @task
        async def work(self) -> None:
            fail("task")

        @task
        def work_in_a_thread(self) -> None:
            fail("sync task")

        async def on_failure(self, events: list[ExceptionEvent]) -> None:
            diary.append("an ExceptionEvent")

        async def exit(self) -> None:
            diary.append("exit")

    engine = AppEngine([App()], on_error="raise")
    engine.register_handler(Ping, lambda events: fail("function"))
    await engine.pub_event(Ping(1))
    with pytest.raises(ValueError, match="first") as caught:
        await engine.run()
    assert caught.value is error
    assert diary == ["exit"]
    assert_all_accounted_for(engine)


async def test_a_bug_of_the_framework_ends_the_engine_in_order_and_leaves_as_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """*Design D7*: no outcome, and nothing that a worker may swallow and be gone."""
    error = LookupError("a bug")
    ended: list[str] = []

    async def broken(self: Lane) -> None:
        raise error

    class App(Application):
        async def on_ping(self, events: list[Ping]) -> None: ...

        async def exit(self) -> None:
            ended.append("exit")

    monkeypatch.setattr(Lane, "next_batch", broken)
    with anyio.fail_after(SOON), pytest.raises(LookupError) as caught:
        await AppEngine([App()]).run()
    assert caught.value is error
    assert ended == ["exit"]


# -- what is logged in full ------------------------------------------------------------------------------------------


def test_the_first_five_failures_of_a_minute_are_logged_in_full_then_a_count() -> None:
    log = LogLimit(LOGGED_IN_FULL)
    assert [log.count(float(second)) for second in range(8)] == [(True, 0)] * LOGGED_IN_FULL + [
        (False, 0)
    ] * 3
    assert log.skipped == 3
    assert log.count(WINDOW - 0.1) == (False, 0)
    assert log.count(WINDOW) == (True, 4)
    assert log.skipped == 0
    assert log.count(WINDOW * 10) == (True, 0)

"""Filters that fail, filters and the events of failures, and publishes that fail behind a filter."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope
from test_filters import WAYS, Desk, Ping, Pong, publish, replace

from event_flow import AppEngine, Application, EngineClosed, Event, ExceptionEvent, LaneFull, on_event


class Refused(Exception):
    pass


def refuse_three(event: Event[Any]) -> Event[Any]:
    if event.data == 3:
        raise Refused
    return event


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_one_raises_the_publish_raises(way: str, when: str) -> None:
    """*Design promise 5*: of that event nothing was delivered, and of those behind it."""
    desk = Desk(refuse_three)
    events: list[Event[Any]] = [Ping(2), Ping(3), Ping(4)]

    async def attempt() -> None:
        with pytest.raises(Refused):
            await publish(desk.engine, way, events)

    if when == "before the start":
        await attempt()
    async with desk.engine:
        if when == "while it runs":
            await attempt()
        await desk.engine.wait_idle()
    assert desk.heard == [("Ping", 2)]
    assert desk.engine.statistics().filtered == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", [True, 5, Ping, "Ping"])
async def test_a_wrong_answer_is_an_error_that_names_the_filter(wrong: object, way: str) -> None:
    def confused(event: Event[Any]) -> Any:
        return wrong

    desk = Desk(confused)
    async with desk.engine:
        with pytest.raises(TypeError, match="a filter returns an Event or None: confused returned"):
            await publish(desk.engine, way, [Ping(1)])
    assert desk.heard == []


async def test_what_one_raises_in_a_handler_is_the_handler_s_failure() -> None:
    class Inside(Application):
        async def on_pong(self, events: list[Pong]) -> None:
            await self.engine.pub_event(Ping(3))

    desk = Desk(refuse_three)
    desk.engine.add_app(Inside())
    await desk.engine.pub_event(Pong(0))
    async with desk.engine:
        await desk.engine.wait_idle()
    (failure,) = [data for name, data in desk.heard if name == "ExceptionEvent"]
    assert isinstance(failure, Refused)


async def test_a_publisher_is_refused_for_the_class_that_took_the_place() -> None:
    """Rooms and refusals are those of what is routed."""
    engine = AppEngine()
    gate = anyio.Event()
    engine.add_filter(replace)

    @engine.on_event(Pong, overflow="error", queue_size=1, max_batch=1)
    async def full(events: list[Pong]) -> None:
        await gate.wait()

    async with engine:
        await engine.pub_event(Ping(0))
        await anyio.wait_all_tasks_blocked()
        await engine.pub_event(Ping(1))
        with pytest.raises(LaneFull):
            await engine.pub_event(Ping(2))
        gate.set()
    assert engine.report is not None
    assert (engine.report.accepted, engine.report.handled) == (2, 2)


# -- ExceptionEvents, and redelivery ---------------------------------------------------------------------------------


class Fails(Application):
    async def on_ping(self, events: list[Ping]) -> None:
        raise OSError("bad")


class Alarm(Event[str]):
    pass


def alarm(event: Event[Any]) -> Event[Any]:
    return Alarm(event.handler) if isinstance(event, ExceptionEvent) else event


def refuse_failures(event: Event[Any]) -> Event[Any] | None:
    if isinstance(event, ExceptionEvent):
        raise Refused("no failures, please")
    return event


@pytest.mark.parametrize(
    ("filter_", "expected", "filtered"),
    [
        (lambda event: None if isinstance(event, ExceptionEvent) else event, [], 1),
        (alarm, [("Alarm", "Fails.on_ping")], 0),
        (refuse_failures, [], 0),
        (lambda event: 5 if isinstance(event, ExceptionEvent) else event, [], 0),
    ],
    ids=["drops it", "replaces it", "raises", "answers wrongly"],
)
async def test_what_is_done_to_the_event_of_a_failure(
    filter_: Any, expected: list[tuple[str, Any]], filtered: int, logs: list[Any]
) -> None:
    desk = Desk(filter_)
    desk.engine.add_app(Fails())
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await desk.engine.wait_idle()
    assert [each for each in desk.heard if each[0] != "Ping"] == expected
    own = desk.engine.statistics().handlers["Fails.on_ping"]
    assert (own.failed, own.accepted) == (1, 1)
    assert desk.engine.statistics().filtered == filtered
    told = [record.message for record in logs if "was not published" in record.message]
    if filter_ is refuse_failures:
        assert told == [
            "The ExceptionEvent of Fails.on_ping was not published: a filter failed with Refused('no failures, please')"
        ]
    else:
        assert len(told) == (expected == [] and not filtered)


async def test_what_is_redelivered_is_not_filtered_again() -> None:
    """Those events have been accepted already."""
    shown: list[Event[Any]] = []
    got: list[Event[Any]] = []

    def mark(event: Event[Any]) -> Event[Any]:
        shown.append(event)
        return event

    engine = AppEngine()
    engine.add_filter(mark)

    @engine.on_event(Ping)
    async def fails_once(events: list[Ping]) -> None:
        got.extend(events)
        if len(got) == 1:
            raise OSError

    @engine.on_event(ExceptionEvent)
    async def again(failures: list[ExceptionEvent]) -> None:
        await failures[0].redeliver()

    event = Ping(1)
    async with engine:
        await engine.pub_event(event)
        await engine.wait_idle()
    assert got == [event, event]
    assert [type(each) for each in shown] == [Ping, ExceptionEvent]


# -- what is refused, and other tasks' turns -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_what_an_ended_engine_refuses_no_filter_is_shown(way: str) -> None:
    """*Regression*: a publish to an engine that had ended was no error if a filter dropped it, and was counted."""
    shown: list[Event[Any]] = []
    desk = Desk(shown.append)
    async with desk.engine:
        pass
    with pytest.raises(EngineClosed):
        await publish(desk.engine, way, [Ping(1)])
    assert (shown, desk.engine.statistics().filtered) == ([], 0)


@pytest.mark.parametrize("way", ["pub_event", "pub_events"])
async def test_a_publisher_of_what_is_dropped_gives_others_a_turn(way: str) -> None:
    """*Regression*: it went on without a checkpoint, for as long as all was dropped."""
    desk = Desk(lambda event: None)
    async with desk.engine:
        with CancelScope() as scope:
            scope.cancel()
            await publish(desk.engine, way, [Ping(number) for number in range(3000)])
        assert scope.cancelled_caught
        assert desk.engine.statistics().filtered <= 1001


@pytest.mark.parametrize("is_thread", [True, False])
async def test_one_may_end_the_engine_like_any_code(is_thread: bool) -> None:
    """*Regression*: for what a thread published it is called on the loop, which it broke, and with it everything."""

    def exit_at_three(event: Event[Any]) -> Event[Any]:
        if event.data == 3:
            raise SystemExit(3)
        return event

    class Inside(Application):
        @on_event(Pong)
        async def publish(self, events: list[Pong]) -> None:
            if not is_thread:
                await self.engine.pub_event(Ping(3))

        @on_event(Pong)
        def publish_from_thread(self, events: list[Pong]) -> None:
            if is_thread:
                self.engine.pub_event_from_thread(Ping(3))

        async def exit(self) -> None:
            ended.append("exit")

    ended: list[str] = []
    engine = AppEngine([Inside()])
    engine.add_filter(exit_at_three)
    await engine.pub_event(Pong(1))
    with pytest.raises(SystemExit):
        await engine.run()
    assert ended == ["exit"]

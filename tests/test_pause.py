"""`engine.handlers["App.method"]`: a handler is paused and resumed while the engine runs, and asked for its numbers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import to_thread
from calls import Calls, Item, account

from event_flow import (
    AppEngine,
    Application,
    EngineStateError,
    HandlerControl,
    Rate,
    WrongThreadError,
    on_event,
    schedule,
)

NAME = "engine.handle"

# Handlers whose lanes and workers are of different kinds.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "concurrency": {"concurrency": 3},
    "isolate": {"isolate": True},
    "linger": {"linger": 3600.0, "max_batch": 1},
    "rate": {"rate": Rate(1e6, burst=100)},
    "key": {"key": lambda event: event.data % 2, "concurrency": 2},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


def items(*data: Any) -> list[Item]:
    return [Item(each) for each in data]


def engine_of(calls: Calls, options: dict[str, Any], **engine_options: Any) -> AppEngine:
    engine = AppEngine(**engine_options)
    engine.register_handler(Item, calls.handle, **options)
    return engine


def handled(calls: Calls) -> list[Any]:
    return sorted(number for data in calls.data for number in data)


# -- pause and resume ------------------------------------------------------------------------------------------------


@every_kind
async def test_a_paused_handler_ends_its_call_and_gets_nothing_until_it_is_resumed(
    options: dict[str, Any],
) -> None:
    calls = Calls(held=True)
    engine = engine_of(calls, options)
    async with engine:
        control = engine.handlers[NAME]
        await engine.pub_event(Item(0))
        await anyio.wait_all_tasks_blocked()
        control.pause()
        await engine.pub_events(items(1, 2, 3))
        calls.open()
        await anyio.wait_all_tasks_blocked()
        assert (calls.data, len(calls.ended)) == ([[0]], 1)
        assert (control.statistics().paused, control.statistics().queued) == (True, 3)
        control.resume()
        await engine.wait_idle()
        assert not control.statistics().paused
    assert handled(calls) == [0, 1, 2, 3]
    assert account(engine.report) == {"handled": 4}


@every_kind
async def test_a_handler_that_is_idle_is_paused_as_well(options: dict[str, Any]) -> None:
    """Its worker waits for an event that it must not take when it comes."""
    calls = Calls()
    engine = engine_of(calls, options)
    async with engine:
        control = engine.handlers[NAME]
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            control.pause()
            await engine.pub_event(Item(number))
            await anyio.wait_all_tasks_blocked()
            assert len(calls.data) == number
            control.resume()
            await engine.wait_idle()
            assert handled(calls) == list(range(number + 1))


async def test_pausing_and_resuming_twice_is_as_once() -> None:
    calls = Calls()
    engine = engine_of(calls, {})
    async with engine:
        control = engine.handlers[NAME]
        control.resume()
        control.pause()
        control.pause()
        await engine.pub_event(Item(0))
        await anyio.wait_all_tasks_blocked()
        assert calls.data == []
        control.resume()
        control.resume()
        await engine.wait_idle()
        # Before anybody had a turn, it was never paused.
        await engine.pub_event(Item(1))
        control.pause()
        control.resume()
        await engine.wait_idle()
    assert calls.data == [[0], [1]]


async def test_only_the_handler_itself_is_paused() -> None:
    paused, other = Calls(), Calls()
    engine = AppEngine()
    engine.register_handler(Item, paused.handle)
    engine.register_handler(Item, other.handle)
    async with engine:
        engine.handlers[NAME].pause()
        await engine.pub_events(items(0, 1))
        await anyio.wait_all_tasks_blocked()
        assert (paused.data, other.data) == ([], [[0, 1]])
        assert [each.paused for each in engine.statistics().handlers.values()] == [True, False]
        engine.handlers[NAME].resume()
    assert paused.data == [[0, 1]]


async def test_a_handler_pauses_itself_and_a_schedule_resumes_it() -> None:
    class App(Application):
        def __init__(self) -> None:
            super().__init__()
            self.got: list[int] = []
            self.paused = anyio.Event()
            self.resumed = 0

        @on_event(Item, max_batch=1)
        async def take(self, events: list[Item]) -> None:
            self.got.append(events[0].data)
            if len(self.got) == 1:
                self.engine.handlers["App.take"].pause()
                self.paused.set()

        @schedule(3600)
        async def tick(self) -> None:
            await self.paused.wait()
            await anyio.wait_all_tasks_blocked()
            assert self.got == [0]
            self.engine.handlers["App.take"].resume()
            self.resumed += 1

    app = App()
    async with AppEngine([app]) as engine:
        await engine.pub_events(items(0, 1, 2))
        await engine.wait_idle()
    assert (app.got, app.resumed) == ([0, 1, 2], 1)


@pytest.mark.virtual_clock
async def test_time_goes_on_while_a_handler_is_paused() -> None:
    """Lingers are over, and a rate has its burst again."""
    lingering, metered = Calls(), Calls()
    engine = AppEngine()
    engine.register_handler(Item, lingering.handle_batch, linger=1.0)
    engine.register_handler(Item, metered.handle, rate=Rate(1, burst=2))
    async with engine:
        await engine.pub_events(items(0, 1))
        await anyio.sleep(0.5)
        for control in engine.handlers.values():
            control.pause()
        await engine.pub_events(items(2, 3))
        await anyio.sleep(9.5)
        for control in engine.handlers.values():
            control.resume()
        await engine.wait_idle()
    assert (lingering.data, lingering.times) == ([[0, 1, 2, 3]], [10])
    assert lingering.closed_by == ["linger"]
    assert (metered.data, metered.times) == ([[0, 1], [2, 3]], [0, 10])


# -- its queue -------------------------------------------------------------------------------------------------------


@every_kind
async def test_the_queue_of_a_paused_handler_fills_and_holds_back_who_publishes(
    options: dict[str, Any],
) -> None:
    calls = Calls()
    engine = engine_of(calls, {**options, "queue_size": 3})
    made: list[int] = []

    async def publish() -> None:
        for number in range(6):
            await engine.pub_event(Item(number))
            made.append(number)

    async with engine, anyio.create_task_group() as group:
        engine.handlers[NAME].pause()
        group.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        assert (made, calls.data) == ([0, 1, 2], [])
        engine.handlers[NAME].resume()
    assert handled(calls) == list(range(6))


async def test_a_publisher_that_gives_up_at_a_paused_handler_has_published_nothing() -> None:
    calls = Calls()
    engine = engine_of(calls, {"queue_size": 1})
    async with engine:
        engine.handlers[NAME].pause()
        await engine.pub_event(Item(0))
        async with anyio.create_task_group() as group:
            group.start_soon(engine.pub_event, Item(1))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        engine.handlers[NAME].resume()
    assert calls.data == [[0]]


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1]), ("latest", [4])]
)
async def test_a_paused_handler_drops_what_it_has_no_room_for(overflow: str, kept: list[int]) -> None:
    calls = Calls()
    engine = engine_of(calls, {"overflow": overflow, "queue_size": 2})
    async with engine:
        engine.handlers[NAME].pause()
        await engine.pub_events(items(*range(5)))
        engine.handlers[NAME].resume()
    assert calls.data == [kept]


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
@every_kind
async def test_a_paused_handler_holds_the_drain_no_longer_than_the_grace_period(
    options: dict[str, Any],
) -> None:
    calls = Calls()
    engine = engine_of(calls, options, grace_period=5)
    async with engine:
        engine.handlers[NAME].pause()
        await engine.pub_events(items(0, 1, 2))
        await anyio.sleep(1)
        began = anyio.current_time()
    assert round(anyio.current_time() - began, 6) == 5
    assert calls.data == []
    assert account(engine.report) == {"abandoned": 3}
    assert engine.report is not None
    assert engine.report.abandoned_events == {NAME: {"Item": 3}}


@every_kind
async def test_a_paused_handler_with_nothing_to_do_does_not_hold_the_drain(options: dict[str, Any]) -> None:
    calls = Calls()
    engine = engine_of(calls, options)
    async with engine:
        await engine.pub_event(Item(0))
        await engine.wait_idle()
        engine.handlers[NAME].pause()
        await engine.wait_idle()
    assert engine.report is not None
    assert engine.report.is_clean


@every_kind
async def test_a_handler_may_be_resumed_while_the_engine_drains(options: dict[str, Any]) -> None:
    calls = Calls()
    engine = engine_of(calls, options)
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        control = engine.handlers[NAME]
        control.pause()
        await engine.pub_events(items(0, 1, 2))
        engine.stop()
        await anyio.wait_all_tasks_blocked()
        assert calls.data == []
        control.resume()
    assert handled(calls) == [0, 1, 2]
    assert account(engine.report) == {"handled": 3}


@every_kind
async def test_a_cancelled_run_does_not_wait_for_a_paused_handler(options: dict[str, Any]) -> None:
    calls = Calls(held=True)
    engine = engine_of(calls, options)
    with anyio.CancelScope() as scope:
        async with engine:
            await engine.pub_event(Item(0))
            await anyio.wait_all_tasks_blocked()
            engine.handlers[NAME].pause()
            await engine.pub_events(items(1, 2))
            scope.cancel()
    assert [call.data for call in calls.cancelled] == [[0]]
    assert account(engine.report) == {"abandoned": 3}


async def test_a_second_run_is_not_paused_and_has_controls_of_its_own() -> None:
    calls = Calls()
    engine = engine_of(calls, {}, grace_period=0)
    async with engine:
        first = engine.handlers[NAME]
        first.pause()
        await engine.pub_event(Item(0))
    async with engine:
        second = engine.handlers[NAME]
        assert not second.is_paused
        with pytest.raises(EngineStateError):
            first.resume()
        await engine.pub_event(Item(1))
        await engine.wait_idle()
        assert (first.statistics().abandoned, second.statistics().handled) == (1, 1)
    assert calls.data == [[1]]


# -- who may, and when -----------------------------------------------------------------------------------------------


async def test_another_name_is_a_key_error_that_lists_the_handlers() -> None:
    calls = Calls()
    engine = engine_of(calls, {})
    with pytest.raises(
        KeyError, match=r"no handler is called 'engine\.handle'; there are: none, before the engine runs"
    ):
        engine.handlers[NAME]
    async with engine:
        assert list(engine.handlers) == [NAME]
        with pytest.raises(
            KeyError, match=r"no handler is called 'engine\.other'; there are: engine\.handle"
        ):
            engine.handlers["engine.other"]
        assert engine.handlers.get("engine.other") is None
        assert "engine.other" not in engine.handlers


async def test_a_handler_may_be_paused_before_it_runs() -> None:
    calls = Calls()
    engine = engine_of(calls, {})

    @engine.before_start
    async def pause() -> None:
        engine.handlers[NAME].pause()

    await engine.pub_event(Item(0))
    async with engine:
        await anyio.wait_all_tasks_blocked()
        assert calls.data == []
        engine.handlers[NAME].resume()
    assert calls.data == [[0]]


async def test_after_the_end_there_are_only_the_numbers() -> None:
    calls = Calls()
    engine = engine_of(calls, {})
    async with engine:
        await engine.pub_event(Item(0))
    control = engine.handlers[NAME]
    for what, act in (("pause", control.pause), ("resume", control.resume)):
        with pytest.raises(EngineStateError) as raised:
            act()
        assert str(raised.value) == (
            f"{what}() is not possible any more: the run of the engine that engine.handle was in has ended"
        )
    assert control.statistics().handled == 1
    assert control.statistics() == engine.statistics().handlers[NAME]


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_another_thread_may_not(what: str) -> None:
    calls = Calls()
    engine = engine_of(calls, {})
    async with engine:
        control = engine.handlers[NAME]
        with pytest.raises(
            WrongThreadError, match=rf"^{what}\(\) is possible only in the thread .* async code"
        ):
            await to_thread.run_sync(getattr(control, what))
        assert not control.is_paused
        await engine.pub_event(Item(0))
    assert calls.data == [[0]]


async def test_a_control_says_which_handler_it_is_of() -> None:
    calls = Calls()
    engine = engine_of(calls, {})
    async with engine:
        control = engine.handlers[NAME]
        assert isinstance(control, HandlerControl)
        assert (control.name, control.is_paused) == (NAME, False)
        assert repr(control) == "<HandlerControl engine.handle>"
        control.pause()
        assert repr(control) == "<HandlerControl engine.handle, paused>"
        assert control.is_paused

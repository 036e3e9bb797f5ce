"""What is logged, with what bound to it, and that nobody's logging is configured."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest
from loguru import logger

from event_flow import AppEngine, Application, Event, schedule, task

if TYPE_CHECKING:
    from conftest import LogRecord


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


class Unwanted(Event[int]):
    pass


class Fails(Application):
    name = "orders"

    async def on_ping(self, events: list[Ping]) -> None:
        raise ValueError(f"ping {events[0].data}")


def of_level(logs: list[LogRecord], *levels: str) -> list[LogRecord]:
    return [record for record in logs if record.level in levels]


# -- failures --------------------------------------------------------------------------------------------------------


async def test_a_failed_batch_says_how_many_events_were_in_it(logs: list[LogRecord]) -> None:
    engine = AppEngine([Fails()])
    await engine.pub_events(Ping(number) for number in range(3))
    async with engine:
        await engine.wait_idle()
    (record,) = of_level(logs, "ERROR", "WARNING")
    assert record.message == "orders.on_ping failed with 3 events: ValueError('ping 0')"
    assert record.extra == {"app": "orders", "handler": "orders.on_ping", "events": 3}
    assert isinstance(record.exception, ValueError)


async def test_braces_and_markup_in_user_data_are_logged_as_they_are(logs: list[LogRecord]) -> None:
    async def fails(events: list[Ping]) -> None:
        raise ValueError("{0} {name} <red>{}</red>")

    engine = AppEngine()
    engine.register_handler(Ping, fails)
    async with engine:
        await engine.pub_event(Ping(1))
    (record,) = of_level(logs, "ERROR")
    assert record.message.endswith("ValueError('{0} {name} <red>{}</red>')")


async def test_failing_schedules_and_tasks_are_logged_alike(logs: list[LogRecord]) -> None:
    class App(Application):
        @schedule(3600)
        async def tick(self) -> None:
            raise OSError("no tick")

        @task
        async def work(self) -> None:
            raise OSError("no work")

    async with AppEngine([App()]):
        await anyio.wait_all_tasks_blocked()
    records = sorted(of_level(logs, "ERROR", "WARNING"), key=lambda record: record.message)
    assert [record.message for record in records] == [
        "App.tick failed: OSError('no tick')",
        "App.work failed: OSError('no work')",
    ]
    assert [(record.extra["app"], record.extra["handler"]) for record in records] == [
        ("App", "App.tick"),
        ("App", "App.work"),
    ]


@pytest.mark.virtual_clock
async def test_five_failures_a_minute_are_logged_in_full_and_the_rest_counted(logs: list[LogRecord]) -> None:
    async with AppEngine([Fails()], max_batch=1) as engine:
        await engine.pub_events(Ping(number) for number in range(12))
        await engine.wait_idle()
        assert len(of_level(logs, "ERROR")) == 5
        await anyio.sleep(61)
        await engine.pub_events(Ping(number) for number in range(100, 109))
        await engine.wait_idle()
    messages = [record.message for record in of_level(logs, "ERROR")]
    first = [f"orders.on_ping failed with 1 event: ValueError('ping {number}')" for number in range(5)]
    second = [
        f"orders.on_ping failed with 1 event: ValueError('ping {number}')" for number in range(100, 105)
    ]
    counted = [f"orders.on_ping failed {skipped} more times, which were not logged" for skipped in (7, 4)]
    assert messages == [*first, counted[0], *second, counted[1]]
    assert [record.extra["failures"] for record in of_level(logs, "ERROR") if "failures" in record.extra] == [
        7,
        4,
    ]
    assert all(record.extra["handler"] == "orders.on_ping" for record in of_level(logs, "ERROR"))
    assert engine.statistics().failed == 21


async def test_the_count_names_its_application_as_well(logs: list[LogRecord]) -> None:
    async with AppEngine([Fails()], max_batch=1) as engine:
        await engine.pub_events(Ping(number) for number in range(6))
    assert [record.extra.get("app") for record in of_level(logs, "ERROR")] == ["orders"] * 6


@pytest.mark.virtual_clock
async def test_each_handler_has_its_own_five(logs: list[LogRecord]) -> None:
    first, second = Fails("first"), Fails("second")
    async with AppEngine([first, second], max_batch=1) as engine:
        await engine.pub_events(Ping(number) for number in range(6))
    full = [record.extra["handler"] for record in of_level(logs, "ERROR") if record.exception]
    assert sorted(full) == ["first.on_ping"] * 5 + ["second.on_ping"] * 5


# -- once, then counted ----------------------------------------------------------------------------------------------


async def test_a_class_that_nobody_wants_is_logged_once(logs: list[LogRecord]) -> None:
    engine = AppEngine()
    await engine.pub_event(Unwanted(0))
    async with engine:
        await engine.pub_events([Unwanted(1), Pong(1), Unwanted(2)])
        await engine.pub_event(Unwanted(3))
        assert engine.statistics().unhandled == 5
    records = of_level(logs, "WARNING")
    assert [record.extra["event"] for record in records] == ["Unwanted", "Pong"]
    assert all(record.message.startswith(f"No handler wants {record.extra['event']}") for record in records)


async def test_a_lane_that_goes_over_its_limit_is_logged_once(logs: list[LogRecord]) -> None:
    class Circle(Application):
        async def on_ping(self, events: list[Ping]) -> None:
            for event in events:
                if event.data > 0:
                    await self.engine.pub_events([Ping(event.data - 1), Ping(event.data - 1)])

    async with AppEngine([Circle()], queue_size=1) as engine:
        await engine.pub_event(Ping(4))
        await engine.wait_idle()
    (record,) = of_level(logs, "WARNING")
    assert record.extra == {"app": "Circle", "handler": "Circle.on_ping", "queue_size": 1}
    assert engine.statistics().over_limit > 1


async def test_a_thread_that_was_left_is_named_in_the_last_line(logs: list[LogRecord]) -> None:
    gate = threading.Event()
    began = anyio.Event()

    class App(Application):
        @task
        def monitors(self) -> None:
            self.engine.pub_event_from_thread(Ping(1))
            gate.wait()

        async def on_ping(self, events: list[Ping]) -> None:
            began.set()

    async with AppEngine([App()]):
        await began.wait()
    gate.set()
    (record,) = of_level(logs, "WARNING")
    assert record.message.startswith("The engine has stopped: 1 delivery: 1 handled")
    assert "App.monitors" in record.message


async def test_an_engine_with_nothing_to_say_says_it_at_debug(logs: list[LogRecord]) -> None:
    async def handle(events: list[Ping]) -> None: ...

    engine = AppEngine()
    engine.register_handler(Ping, handle)
    async with engine:
        await engine.pub_events(Ping(number) for number in range(100))
    assert {record.level for record in logs} <= {"DEBUG", "TRACE"}


# -- configuration ---------------------------------------------------------------------------------------------------

IMPORTS_LEAVE_SINKS_ALONE = """
from loguru import logger
lines = []
mine = logger.add(lines.append, format="{message}|{extra}")
import event_flow, event_flow.settings
async def handle(events): raise OSError
engine = event_flow.AppEngine()
engine.register_handler(event_flow.Event, handle)
engine.before_start(lambda: engine.pub_event_from_thread(event_flow.Event(1)))
engine.on_event(event_flow.ExceptionEvent)(lambda events: engine.stop())
engine.start()
assert logger.add(lines.append) == mine + 1, "a sink was added"
logger.remove(0)  # raises if the default sink was removed
logger.remove(mine)
assert any("failed" in line and "engine.handle" in line for line in lines)
print("left alone")
"""


def test_importing_and_running_neither_adds_nor_removes_a_sink() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", IMPORTS_LEAVE_SINKS_ALONE],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "left alone"), done.stderr


async def test_the_log_line_of_a_full_queue_comes_when_every_handler_has_the_event() -> None:
    """Its sink may do anything, for instance raise."""
    got: dict[str, list[int]] = {"first": [], "second": []}
    refused: list[int] = []

    def fail(message: str) -> None:
        if "goes over" in message:
            raise OSError("disk full")

    engine = AppEngine(queue_size=1, max_batch=1)

    @engine.on_event(Ping)
    async def first(events: list[Ping]) -> None:
        got["first"] += [event.data for event in events]
        for number in range(1, 4) if got["first"] == [0] else ():
            # Now the second handler waits, and there is nothing to wait for: the publish delivers at once.
            await anyio.wait_all_tasks_blocked()
            try:
                await engine.pub_event(Ping(number))
            except OSError:
                refused.append(number)

    @engine.on_event(Ping)
    async def second(events: list[Ping]) -> None:
        got["second"] += [event.data for event in events]

    sink = logger.add(fail, catch=False, format="{message}")
    try:
        async with engine:
            await engine.pub_event(Ping(0))
            await engine.wait_idle()
    finally:
        logger.remove(sink)
    assert got == {"first": [0, 1, 2, 3], "second": [0, 1, 2, 3]}
    assert refused


@pytest.mark.virtual_clock
@pytest.mark.parametrize(("events", "left"), [(1, "1 delivery"), (2, "2 deliveries")])
async def test_a_drain_says_what_is_left_and_whose_time_was_over(
    events: int, left: str, logs: list[LogRecord]
) -> None:
    """Somebody who has pressed Ctrl+C should see why the program is still there."""
    engine = AppEngine(grace_period=5)

    @engine.on_event(Ping)
    async def is_slow(events: list[Ping]) -> None:
        await anyio.sleep(60)

    async with engine:
        for number in range(events):
            await engine.pub_event(Ping(number))
            await anyio.wait_all_tasks_blocked()
    said = [(record.level, record.message, record.extra) for record in logs]
    assert (
        "INFO", f"The engine stops; left to do: {left}; grace_period=5 s", {"deliveries": events},
    ) in said  # fmt: skip
    assert (
        "WARNING", "The grace period of 5 s is over for engine.is_slow", {"handlers": ["engine.is_slow"]},
    ) in said  # fmt: skip

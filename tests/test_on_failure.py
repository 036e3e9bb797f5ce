"""`on_failure`: what is given up is discarded, or ends the engine; what a strict engine does, and handlers of failures."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from event_flow import (
    AppEngine,
    Application,
    Batch,
    BatchFailed,
    EngineState,
    Event,
    ExceptionEvent,
    HandlerTimeout,
    Retry,
    on_event,
)

pytestmark = pytest.mark.virtual_clock


class Ping(Event[int]):
    pass


class Pong(Event[int]):
    pass


def every(seconds: float, **options: Any) -> Retry:
    return Retry(on=OSError, wait_initial=seconds, wait_max=seconds, wait_jitter=0, **options)


class Desk:
    """An engine with one handler, which fails with `error` as long as there is one; keeps its batches, and dead letters."""

    def __init__(self, error: Exception | None, *, engine: AppEngine | None = None, **options: Any) -> None:
        self.engine = AppEngine() if engine is None else engine
        self.error = error
        self.batches: list[list[int]] = []
        self.attempts: list[int] = []
        self.letters: list[ExceptionEvent] = []
        self.exits = 0
        self.engine.register_handler(Ping, self.work, **options)
        self.engine.register_handler(ExceptionEvent, self._keep)
        self.engine.exit(self._exit)

    async def work(self, batch: Batch[Ping]) -> None:
        self.batches.append([event.data for event in batch])
        self.attempts.append(batch.attempt)
        await checkpoint()
        if self.error is not None:
            raise self.error

    async def _keep(self, failures: list[ExceptionEvent]) -> None:
        self.letters += failures

    async def _exit(self) -> None:
        self.exits += 1

    @property
    def control(self) -> Any:
        return self.engine.handlers["engine.work"]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Handled, failed, abandoned, queued."""
        own = self.engine.statistics().handlers["engine.work"]
        assert own.accepted == own.handled + own.failed + own.abandoned + own.queued + own.running
        return own.handled, own.failed, own.abandoned, own.queued


def levels(logs: list[Any]) -> list[str]:
    return [record.level for record in logs if "failed with" in record.message]


# -- discard ---------------------------------------------------------------------------------------------------------


async def test_what_is_discarded_has_failed_and_is_no_dead_letter(logs: list[Any]) -> None:
    desk = Desk(ValueError("bad"), on_failure={ValueError: "discard"})
    async with desk.engine:
        await desk.engine.pub_events([Ping(1), Ping(2)])
        await desk.engine.wait_idle()
    assert (desk.letters, desk.counts) == ([], (0, 2, 0, 0))
    assert levels(logs) == ["DEBUG"]
    assert "failed with 2 events: ValueError('bad'); discarded, as on_failure says" in "".join(
        record.message for record in logs
    )


async def test_a_timeout_may_be_discarded() -> None:
    engine = AppEngine()

    @engine.on_event(Ping, timeout=5, on_failure={HandlerTimeout: "discard"})
    async def work(events: list[Ping]) -> None:
        await anyio.sleep(10)

    await engine.pub_event(Ping(1))
    async with engine:
        await engine.wait_idle()
    assert engine.statistics().failed == 1


async def test_what_the_key_fails_with_is_a_failure_of_the_handler() -> None:
    desk = Desk(None, key=lambda event: 1 // event.data, on_failure={ZeroDivisionError: "discard"})
    async with desk.engine:
        await desk.engine.pub_events([Ping(0), Ping(1)])
        await desk.engine.wait_idle()
    assert (desk.batches, desk.letters, desk.counts) == ([[1]], [], (1, 1, 0, 0))


# -- stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"key": lambda event: event.data}, {"concurrency": 3}])
async def test_the_engine_ends_with_the_error(options: dict[str, Any], logs: list[Any]) -> None:
    error = ValueError("fatal")
    desk = Desk(error, on_failure={ValueError: "stop"}, max_batch=1, **options)
    await desk.engine.pub_events([Ping(1), Ping(2)])
    with pytest.raises(ValueError, match="fatal") as raised:
        await desk.engine.run()
    assert raised.value is error
    assert desk.exits == 1
    handled, failed, abandoned, _ = desk.counts
    assert (handled, failed + abandoned) == (0, 2)
    assert failed >= 1
    assert desk.letters == []
    assert "ERROR" in levels(logs)


async def test_in_the_drain_it_ends_the_engine_as_well() -> None:
    engine = AppEngine()

    @engine.on_event(Ping, on_failure={ValueError: "stop"})
    async def work(events: list[Ping]) -> None:
        engine.stop()
        await anyio.sleep(1)
        assert engine.state is EngineState.DRAINING
        raise ValueError("fatal")

    await engine.pub_event(Ping(1))
    with pytest.raises(ValueError, match="fatal"):
        await engine.run()
    assert engine.statistics().failed == 1


async def test_of_a_part_that_is_fatal_the_rest_is_handled() -> None:
    engine = AppEngine()

    @engine.on_event(Ping, on_failure={ValueError: "stop"})
    async def work(events: list[Ping]) -> None:
        raise BatchFailed({events[0]: ValueError("fatal"), events[1]: OSError()})

    await engine.pub_events([Ping(1), Ping(2), Ping(3)])
    with pytest.raises(ValueError, match="fatal"):
        await engine.run()
    assert engine.report is not None
    assert (engine.report.handled, engine.report.failed, engine.report.abandoned) == (1, 2, 0)


# -- a strict engine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["discard", "pause"])
async def test_a_strict_engine_goes_on_where_nothing_would_be_a_dead_letter(action: str) -> None:
    desk = Desk(OSError(), on_failure={OSError: action}, engine=AppEngine(on_error="raise"))
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await anyio.sleep(1)
        desk.error = None
        desk.control.resume()
        await desk.engine.wait_idle()
        assert desk.engine.state is EngineState.RUNNING


@pytest.mark.parametrize("options", [{}, {"retry": every(1, attempts=2)}, {"isolate": True}])
async def test_a_strict_engine_ends_with_what_is_given_up(options: dict[str, Any]) -> None:
    error = OSError("given up")
    desk = Desk(error, engine=AppEngine(on_error="raise"), **options)
    await desk.engine.pub_events([Ping(1), Ping(2)])
    with pytest.raises(OSError, match="given up") as raised:
        await desk.engine.run()
    assert raised.value is error
    assert len(desk.batches) == (1 if not options else 2)
    assert desk.exits == 1
    assert sum(desk.counts) == 2


async def test_a_strict_engine_does_not_end_while_there_are_attempts() -> None:
    desk = Desk(OSError(), retry=every(5), engine=AppEngine(on_error="raise"))
    async with desk.engine:
        await desk.engine.pub_event(Ping(1))
        await anyio.sleep(1)
        desk.error = None
        await desk.engine.wait_idle()
    assert desk.counts == (1, 0, 0, 0)


# -- handlers of ExceptionEvents -------------------------------------------------------------------------------------


class Fails(Application):
    async def on_ping(self, events: list[Ping]) -> None:
        raise ValueError(events[0].data)


class Letters(Application):
    """Its handler of dead letters fails, and is isolated, then paused, until it is told to work."""

    def __init__(self) -> None:
        super().__init__()
        self.works = False
        self.kept: list[list[int]] = []

    @on_event(ExceptionEvent, isolate=True, on_failure={OSError: "pause", KeyError: "discard"})
    async def keep(self, failures: list[ExceptionEvent]) -> None:
        if not self.works:
            raise ValueError if len(failures) > 1 else OSError
        self.kept.append([failure.data.args[0] for failure in failures])


async def test_a_handler_of_failures_may_have_all_of_it() -> None:
    letters = Letters()
    async with AppEngine([Fails(), letters], max_batch=3) as engine:
        for number in range(3):
            await engine.pub_event(Ping(number))
            await anyio.sleep(1)
        control = engine.handlers["Letters.keep"]
        assert (control.is_paused, control.statistics().queued) == (True, 3)
        letters.works = True
        control.resume()
        await engine.wait_idle()
    # The first came alone, the others while it was paused.
    assert letters.kept == [[0], [1, 2]]


@pytest.mark.parametrize("action", ["discard", "dead_letter", "stop"])
async def test_what_a_handler_of_failures_fails_with_is_no_further_event(action: Any) -> None:
    engine = AppEngine([Fails()])
    heard = 0

    @engine.on_event(ExceptionEvent, on_failure={OSError: action})
    async def keep(failures: list[ExceptionEvent]) -> None:
        nonlocal heard
        heard += len(failures)
        raise OSError("the last straw")

    await engine.pub_event(Ping(1))
    if action == "stop":
        with pytest.raises(OSError, match="the last straw"):
            await engine.run()
    else:
        async with engine:
            await engine.wait_idle()
    assert heard == 1
    assert engine.statistics().handlers["engine.keep"].failed == 1

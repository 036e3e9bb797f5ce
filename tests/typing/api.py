"""The public names used as they are meant: checked by mypy and pyright, never run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, assert_type

import anyio
import trio

from event_flow import (
    AppEngine,
    Application,
    Batch,
    EngineState,
    EngineStatistics,
    Event,
    EventWithSource,
    ExceptionEvent,
    HandlerStatistics,
    Rate,
    Retry,
    ScheduleStatistics,
    ShutdownReport,
    SubApplication,
    on_event,
    schedule,
    task,
    timer,
)
from event_flow.settings import Settings, settings

# -- events ----------------------------------------------------------------------------------------------------------


@dataclass
class Order:
    item: str
    price: int


class Placed(Event[Order]): ...


class Express(Placed): ...


class Cancelled(Event[int]): ...


class Returned(Event[str | None]):
    def parse(self) -> str:
        return self.data or "unknown"


class Message(EventWithSource[str]): ...


class Anything(Event): ...


def data_has_the_type_that_the_class_says(failure: ExceptionEvent) -> None:
    assert_type(Placed(Order("lamp", 5)).data, Order)
    assert_type(Express(Order("lamp", 5)).data.price, int)
    assert_type(Returned().data, str | None)
    assert_type(Returned("x").parse(), str)
    assert_type(Message("telegram", "hello").data, str)
    assert_type(Message("telegram", "hello").source, Any)
    assert_type(Event(5).data, int)
    assert_type(Anything(5).data, Any)
    assert_type(Cancelled(5).parse(), Any)
    assert_type(Cancelled(5).meta, dict[str, Any])
    Cancelled(5).update_meta(sensor="roof")
    assert_type(failure.data, BaseException)
    assert_type(failure.events, tuple[Event[Any], ...])
    assert_type(failure.handler, str)
    assert_type(failure.attempt, int)
    assert_type(failure.traceback_str, str)


# -- handlers as methods ---------------------------------------------------------------------------------------------


class Shop(Application):
    async def on_placed(self, events: list[Placed]) -> None:
        for event in events:
            assert_type(event.data, Order)

    @on_event(Placed)
    async def count(self, events: list[Placed]) -> int:
        return len(events)

    @on_event(Placed)
    def count_in_a_thread(self, events: list[Placed]) -> int:
        return len(events)

    @on_event(Placed, Cancelled)
    async def two(self, events: list[Placed | Cancelled]) -> None: ...

    @on_event(Cancelled)
    @on_event(Placed)
    async def stacked(self, events: list[Placed | Cancelled]) -> None: ...

    @on_event(Placed, Cancelled, Returned)
    async def three(self, events: list[Placed | Cancelled | Returned]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message)
    async def four(self, events: list[Placed | Cancelled | Returned | Message]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message, ExceptionEvent)
    async def five(self, events: list[Placed | Cancelled | Returned | Message | ExceptionEvent]) -> None: ...

    @on_event(*[Placed, Cancelled])
    async def starred(self, events: list[Placed | Cancelled]) -> None: ...

    @on_event(Event)
    async def everything(self, events: list[Event]) -> None: ...

    @on_event(Event[int])
    async def numbers(self, events: list[Event[int]]) -> None: ...

    @on_event(ExceptionEvent)
    async def failures(self, failures: list[ExceptionEvent]) -> None:
        for failure in failures:
            await failure.redeliver()

    @on_event(Placed)
    @staticmethod
    async def static(events: list[Placed]) -> int:
        return len(events)

    @classmethod
    @on_event(Placed)
    def of_the_class(cls, events: list[Placed]) -> int:
        return len(events)

    @on_event(Placed)
    @classmethod
    def of_the_class_too(cls, events: list[Placed]) -> int:
        return len(events)


class Wider(Application):
    """Each call has a list of its own, so a handler may say that it could hold more than it will."""

    @on_event(Express)
    async def base(self, events: list[Placed]) -> None: ...

    @on_event(Placed)
    def anything(self, events: list[Event[Any]]) -> None: ...

    @on_event(Express, Placed)
    async def bases(self, events: list[Placed]) -> None: ...

    @on_event(Placed)
    async def union(self, events: list[Placed | Cancelled]) -> None: ...

    @on_event(Express)
    async def sequence(self, events: Sequence[Placed]) -> None: ...

    @on_event(Express, Cancelled)
    def iterable(self, events: Iterable[Event[Any]], more: int = 0, *, key: str = "") -> None: ...

    @on_event(Placed)
    async def what_it_likes(self, events: Any) -> None: ...

    @on_event(Placed)
    async def not_annotated(self, events): ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]

    @on_event(Placed, Cancelled)
    def not_annotated_in_a_thread(self, *events): ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]

    @on_event(Placed)
    async def list_of_any(self, events: list[Any]) -> None: ...

    @on_event(Express)
    @classmethod
    def of_the_class(cls, events: list[Placed]) -> None: ...

    @on_event(Express)
    @staticmethod
    def static(events: list[Placed]) -> None: ...


class Batches(Application):
    """A handler owns its batch as it owns its list, so what holds for the one holds for the other."""

    async def on_placed(self, batch: Batch[Placed]) -> None:
        assert_type(batch.events, list[Placed])
        assert_type([event.data for event in batch], list[Order])
        assert_type(len(batch), int)
        assert_type(batch.key, Hashable | None)
        assert_type(batch.closed_by, Literal["size", "linger", "idle", "drain"])
        assert_type(batch.attempt, int)
        batch.events.append(Express(Order("lamp", 5)))

    @on_event(Placed)
    async def count(self, batch: Batch[Placed]) -> int:
        return len(batch)

    @on_event(Placed)
    def count_in_a_thread(self, batch: Batch[Placed]) -> int:
        return len(batch)

    @on_event(Express)
    async def base(self, batch: Batch[Placed]) -> None: ...

    @on_event(Placed)
    def anything(self, batch: Batch[Event[Any]]) -> None: ...

    @on_event(Placed)
    async def bare(self, batch: Batch) -> None: ...

    @on_event(Placed)
    async def of_any(self, batch: Batch[Any]) -> None: ...

    @on_event(Placed)
    async def union(self, batch: Batch[Placed | Cancelled]) -> None: ...

    @on_event(Placed, Cancelled)
    async def two(self, batch: Batch[Placed | Cancelled]) -> None: ...

    @on_event(Cancelled)
    @on_event(Placed)
    async def stacked(self, batch: Batch[Placed | Cancelled]) -> None: ...

    @on_event(Placed, Cancelled, Returned)
    async def three(self, batch: Batch[Placed | Cancelled | Returned]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message)
    async def four(self, batch: Batch[Placed | Cancelled | Returned | Message]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message, ExceptionEvent)
    async def five(self, batch: Batch[Placed | Cancelled | Returned | Message | ExceptionEvent]) -> None: ...

    @on_event(Event)
    async def everything(self, batch: Batch[Event]) -> None: ...

    @on_event(Event[int])
    async def numbers(self, batch: Batch[Event[int]]) -> None: ...

    @on_event(Placed)
    async def either(self, events: list[Placed] | Batch[Placed]) -> None: ...

    @on_event(Placed)
    async def maybe(self, batch: Batch[Placed] | None = None, *, more: int = 0) -> None: ...

    @on_event(Express)
    @staticmethod
    async def static(batch: Batch[Placed]) -> int:
        return len(batch)

    @classmethod
    @on_event(Placed)
    def of_the_class(cls, batch: Batch[Placed]) -> int:
        return len(batch)

    @on_event(Express)
    @classmethod
    def of_the_class_too(cls, batch: Batch[Placed]) -> int:
        return len(batch)


async def a_marked_method_that_takes_a_batch_stays_what_it_was(app: Batches) -> None:
    batch = Batch([Placed(Order("lamp", 5))], key="lamp", closed_by="size", attempt=2)
    assert_type(batch, Batch[Placed])
    assert_type(await app.count(batch), int)
    assert_type(await app.count(batch=Batch([])), int)
    assert_type(app.count_in_a_thread(batch=batch), int)
    assert_type(await app.static(batch), int)
    assert_type(app.of_the_class(batch=batch), int)
    assert_type(Batches.of_the_class_too(batch), int)


class DerivedOfBatches(Batches):
    async def count(self, batch: Batch[Placed]) -> int:
        return 2 * await super().count(batch)


# -- options of handlers ---------------------------------------------------------------------------------------------


def by_item(event: Placed) -> str:
    return event.data.item


def by_class(event: Event[Any]) -> type[Event[Any]]:
    return type(event)


def is_passing(error: Exception) -> bool:
    return isinstance(error, OSError)


class Options(Application):
    @on_event(
        Placed,
        max_batch=50,
        queue_size=100,
        linger=0.2,
        key=by_item,
        concurrency=4,
        overflow="drop_oldest",
        rate=Rate(100, per=timedelta(seconds=1), burst=50),
        timeout=5,
        retry=Retry(on=(OSError, TimeoutError), attempts=None, within=timedelta(minutes=1), seed=1),
        isolate=True,
        on_failure={ValueError: "discard", OSError: "pause", Exception: "dead_letter", MemoryError: "stop"},
    )
    async def all_of_them(self, batch: Batch[Placed]) -> int:
        return len(batch)

    @on_event(
        Placed, linger=timedelta(seconds=1), timeout=timedelta(seconds=1), key=lambda event: event.data.item
    )
    def in_a_thread(self, events: list[Placed]) -> None: ...

    @on_event(
        Placed, max_batch=None, queue_size=None, key=None, rate=None, timeout=None, retry=None, on_failure={}
    )
    def as_if_not_given(self, events: list[Placed]) -> None: ...

    @on_event(Express, key=by_item)
    def of_the_base_class(self, events: list[Express]) -> None: ...

    @on_event(Placed, key=type)
    def of_a_class(self, events: list[Placed]) -> None: ...

    @on_event(Placed, key=lambda event: (type(event), event.data.price))
    def of_a_tuple(self, events: list[Placed]) -> None: ...

    @on_event(Placed, Cancelled, key="item", overflow="wait")
    async def two(self, events: list[Placed | Cancelled]) -> None: ...

    @on_event(Placed, Cancelled, Returned, key=by_class, overflow="latest")
    async def three(self, events: list[Placed | Cancelled | Returned]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message, key=by_class, overflow="drop_newest")
    async def four(self, events: list[Placed | Cancelled | Returned | Message]) -> None: ...

    @on_event(Placed, Cancelled, Returned, Message, ExceptionEvent, key=by_class, overflow="error")
    async def five(self, events: list[Placed | Cancelled | Returned | Message | ExceptionEvent]) -> None: ...

    @on_event(Cancelled, max_batch=5)
    @on_event(Placed, retry=Retry(on=is_passing))
    async def stacked(self, events: list[Placed | Cancelled]) -> None: ...


async def options_change_nothing_of_the_method(app: Options, batch: Batch[Placed]) -> None:
    assert_type(await app.all_of_them(batch), int)


class Partial(Application):
    def keep(self, where: str, events: list[Placed]) -> int:
        return len(events)

    def every(self, where: str) -> int:
        return 1

    journal = on_event(Placed)(functools.partialmethod(keep, "journal"))
    of_journal = functools.partialmethod(every, "journal")
    minute = schedule(60)(of_journal)
    once = task(of_journal)


def a_partial_method_stays_what_it_was(partial: Partial) -> None:
    assert_type(partial.journal([]), int)
    assert_type(partial.minute(), int)
    assert_type(partial.once(), int)


async def a_marked_method_stays_what_it_was(shop: Shop, events: list[Placed]) -> None:
    assert_type(await shop.count(events), int)
    assert_type(await shop.count(events=events), int)
    assert_type(await Shop.count(shop, events), int)
    assert_type(shop.count_in_a_thread(events=events), int)
    assert_type(await shop.static(events), int)
    assert_type(await Shop.static(events=events), int)
    assert_type(shop.of_the_class(events=events), int)
    assert_type(Shop.of_the_class_too(events), int)
    assert_type(await shop.two([*events, Cancelled(1)]), None)
    Wider().iterable(events, 5, key="x")
    assert_type(await Wider().what_it_likes(events), None)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class Wrapped(Application):
    @on_event(Placed)
    @logged
    async def outside(self, events: list[Placed]) -> None: ...

    @logged
    @on_event(Placed)
    async def inside(self, events: list[Placed]) -> None: ...


class Derived(Shop):
    async def count(self, events: list[Placed]) -> int:
        return 2 * await super().count(events)


# -- handlers as functions -------------------------------------------------------------------------------------------


async def log(name: str, events: list[Placed]) -> None: ...


def audit(events: list[Event[Any]]) -> None: ...


def book(events: Sequence[Placed]) -> None: ...


def both(events: list[Placed | Cancelled]) -> None: ...


def audit_batch(batch: Batch[Event[Any]]) -> None: ...


def both_of_batch(batch: Batch[Placed | Cancelled]) -> None: ...


async def log_batch(name: str, batch: Batch[Placed]) -> None: ...


class Keeper:
    async def __call__(self, events: list[Placed]) -> None: ...

    def keep(self, events: list[Event[Any]]) -> None: ...

    def keep_batch(self, batch: Batch[Event[Any]]) -> None: ...


class BatchKeeper:
    async def __call__(self, batch: Batch[Placed]) -> None: ...


async def functions(engine: AppEngine) -> None:
    @engine.on_event(Placed)
    async def first(events: list[Placed]) -> int:
        return len(events)

    @engine.on_event(Express, Cancelled)
    def second(events: list[Placed | Cancelled]) -> int:
        return len(events)

    assert_type(await first(events=[]), int)
    assert_type(second([Cancelled(1)]), int)

    got: list[Event[Any]] = []
    engine.on_event(Express)(Keeper())
    engine.on_event(Placed)(got.extend)
    engine.on_event(Placed)(print)
    engine.on_event(Placed)(functools.partial(log, "first"))

    engine.register_handler(Placed, functools.partial(log, "second"))
    engine.register_handler(Placed, Keeper())
    engine.register_handler(Placed, Keeper().keep)
    engine.register_handler(Placed, got.extend)
    engine.register_handler(Placed, audit)
    engine.register_handler(Express, book)
    engine.register_handler(Express, both)
    engine.register_handler(Express, Keeper())
    engine.register_handler(Event, audit)
    engine.register_handler(Event[int], audit)
    engine.register_handler(Express, audit, book, both, Keeper().keep)


async def functions_with_batches_and_options(engine: AppEngine) -> None:
    @engine.on_event(Placed, max_batch=50, key=lambda event: event.data.item)
    async def first(batch: Batch[Placed]) -> int:
        return len(batch)

    @engine.on_event(Express, Cancelled, key=by_class)
    def second(batch: Batch[Placed | Cancelled]) -> int:
        return len(batch)

    @engine.on_event(Placed, Cancelled, Returned, linger=1)
    def third(batch: Batch[Event[Any]]) -> None: ...

    @engine.on_event(Placed, Cancelled, Returned, Message, concurrency=2)
    def fourth(batch: Batch[Event[Any]]) -> None: ...

    @engine.on_event(Placed, Cancelled, Returned, Message, ExceptionEvent, isolate=True)
    def fifth(batch: Batch[Event[Any]]) -> None: ...

    assert_type(await first(batch=Batch([])), int)
    assert_type(second(Batch([Cancelled(1)])), int)

    engine.on_event(Placed)(BatchKeeper())
    engine.on_event(Placed)(Keeper().keep_batch)
    engine.on_event(Placed)(functools.partial(log_batch, "first"))
    engine.register_handler(Placed, functools.partial(log_batch, "second"))
    engine.register_handler(Placed, BatchKeeper(), rate=Rate(5))
    engine.register_handler(Placed, Keeper().keep_batch, timeout=1.5)
    engine.register_handler(Placed, audit_batch, key=by_item)
    engine.register_handler(Placed, audit, key=lambda event: event.data.item)
    engine.register_handler(Express, both_of_batch, key="item")
    engine.register_handler(Express, book, overflow="error")
    engine.register_handler(Event, audit_batch)
    engine.register_handler(Event[int], audit_batch, on_failure={ValueError: "discard"})
    engine.register_handler(Express, audit, audit_batch, both_of_batch, Keeper().keep_batch, max_batch=5)


# -- schedules and tasks ---------------------------------------------------------------------------------------------


class Clock(Application):
    @schedule(60)
    async def minute(self) -> int:
        return 1

    @schedule(interval=timedelta(hours=1), run_at_once=False)
    def hour(self) -> None: ...

    @timer(0.5)
    @staticmethod
    async def static() -> None: ...

    @task
    async def work(self) -> int:
        return 2

    @task()
    def in_a_thread(self, times: int = 3) -> int:
        return times


async def a_schedule_stays_what_it_was(clock: Clock) -> None:
    assert_type(await clock.minute(), int)
    assert_type(await clock.work(), int)
    assert_type(clock.in_a_thread(times=1), int)


# -- hooks -----------------------------------------------------------------------------------------------------------


class Async(Application):
    async def before_start(self) -> None: ...

    async def exit(self) -> None: ...


class Sync(SubApplication):
    def before_start(self) -> None:
        assert_type(self.engine, AppEngine)

    def exit(self) -> None: ...


class MoreAsync(Async):
    async def exit(self) -> None:
        await super().exit()


def hooks(engine: AppEngine) -> None:
    @engine.before_start
    async def before() -> int:
        return 1

    @engine.exit
    def after() -> str:
        return "done"

    assert_type(after(), str)
    engine.exit(functools.partial(print, "done"))
    engine.exit(anyio.Event().set)


# -- the engine ------------------------------------------------------------------------------------------------------


def options() -> AppEngine:
    parent = Async(name="parent")
    parent.add_app(Sync(), Sync("second"))
    engine = AppEngine(
        (app for app in [parent]),
        queue_size=10,
        max_batch=10,
        max_backlog=0,
        grace_period=timedelta(seconds=1),
        start_timeout=float("inf"),
        exit_timeout=1,
        on_error="raise",
        max_threads=1,
    )
    engine.add_app(Shop(), Clock())
    assert_type(engine.start(), ShutdownReport)
    assert_type(engine.start(backend="trio"), ShutdownReport)
    assert_type(engine.start("asyncio", {"use_uvloop": True}), ShutdownReport)
    return engine


async def embedded(engine: AppEngine) -> None:
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        engine.stop()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
    async with engine as same:
        assert_type(same, AppEngine)
        await engine.wait_running()
        await engine.wait_idle()
    assert_type(await engine.run(), ShutdownReport)
    assert_type(await engine.wait_stopped(), ShutdownReport)


async def publishing(engine: AppEngine) -> None:
    await engine.pub_event(Placed(Order("lamp", 5)))
    await engine.pub_events([Placed(Order("lamp", 5)), Cancelled(1)])
    await engine.pub_events(Cancelled(number) for number in range(3))
    engine.pub_event_nowait(Cancelled(1))
    engine.pub_event_from_thread(Cancelled(1))
    engine.pub_events_from_thread([Cancelled(1)])


def numbers(engine: AppEngine, report: ShutdownReport) -> None:
    assert_type(engine.state, EngineState)
    assert_type(engine.report, ShutdownReport | None)
    statistics = engine.statistics()
    assert_type(statistics, EngineStatistics)
    assert_type(statistics.accepted, int)
    assert_type(statistics.handlers, Mapping[str, HandlerStatistics])
    assert_type(statistics.handlers["Shop.count"].largest_batch, int)
    assert_type(statistics.schedules["Clock.minute"], ScheduleStatistics)
    assert_type(report.is_clean, bool)
    assert_type(report.abandoned_events["Shop.count"]["Placed"], int)
    assert_type(report.threads_left, tuple[str, ...])


# -- settings --------------------------------------------------------------------------------------------------------


def values() -> None:
    assert_type(settings, Settings)
    assert_type(settings.DATABASE, Any)
    with settings.override(DATABASE="sqlite:///orders.db"):
        settings.reload()

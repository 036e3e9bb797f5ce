"""What type checkers must refuse: checked by mypy and pyright, never run.

`type: ignore` expects an error of mypy, `pyright: ignore` one of pyright; one that does not come is an error itself. Where
only one of the two can know, only that one is expected to.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Sequence

from event_flow import (
    AppEngine,
    Application,
    Batch,
    Event,
    EventWithSource,
    ExceptionEvent,
    Rate,
    Retry,
    ShutdownReport,
    SubApplication,
    on_event,
    schedule,
    task,
)


class Trade(Event[int]): ...


class Block(Trade): ...


class Quote(Event[float]): ...


class Message(EventWithSource[str]): ...


# -- a handler whose list is of another class ------------------------------------------------------------------------


class Methods(Application):
    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def another_class(self, events: list[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def another_class_in_a_thread(self, events: list[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def a_subclass(self, events: list[Block]) -> None: ...

    @on_event(Trade, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def one_of_two(self, events: list[Trade]) -> None: ...

    @on_event(Trade, Block, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def two_of_three(self, events: list[Trade]) -> None: ...

    @on_event(Trade, Block, Message, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def three_of_four(self, events: list[Trade | Message]) -> None: ...

    @on_event(Event)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def not_everything(self, events: list[Trade]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @on_event(Quote)
    async def one_of_two_marks(self, events: list[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def another_sequence(self, events: Sequence[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def one_event(self, events: Trade) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def tuple_of_events(self, events: tuple[Trade, ...]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def no_list(self) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def more_than_a_list(self, events: list[Trade], price: int) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @staticmethod
    async def static(events: list[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @classmethod
    async def of_the_class(cls, events: list[Quote]) -> None: ...

    @classmethod  # type: ignore[call-overload]
    @on_event(Trade)  # pyright: ignore[reportArgumentType, reportCallIssue]
    def of_the_class_too(cls, events: list[Quote]) -> None: ...


class Batches(Application):
    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def another_class(self, batch: Batch[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def another_class_in_a_thread(self, batch: Batch[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def a_subclass(self, batch: Batch[Block]) -> None: ...

    @on_event(Trade, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def one_of_two(self, batch: Batch[Trade]) -> None: ...

    @on_event(Trade, Block, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def two_of_three(self, batch: Batch[Trade]) -> None: ...

    @on_event(Trade, Block, Message, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def three_of_four(self, batch: Batch[Trade | Message]) -> None: ...

    @on_event(Event)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def not_everything(self, batch: Batch[Trade]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def more_than_a_batch(self, batch: Batch[Trade], price: int) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def list_of_batches(self, batches: list[Batch[Trade]]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @on_event(Quote)
    async def one_of_two_marks(self, batch: Batch[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @staticmethod
    async def static(batch: Batch[Quote]) -> None: ...

    @on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    @classmethod
    async def of_the_class(cls, batch: Batch[Quote]) -> None: ...

    async def on_number(self, batch: Batch[int]) -> None: ...  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeArguments]


def a_batch(batch: Batch[Trade]) -> None:
    Batch([5])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    Batch([Trade(5)], closed_by="time")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Batch([Trade(5)], attempt="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch.append(Trade(5))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    batch.events.append(Quote(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch[0]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


class Parent(Application):
    @on_event(Trade)
    async def handle(self, events: list[Trade]) -> None: ...


class Child(Parent):
    async def handle(self, events: list[Quote]) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


async def log(name: str, events: list[Trade]) -> None: ...


def record(events: list[Trade]) -> None: ...


def record_batch(batch: Batch[Trade]) -> None: ...


class BatchKeeper:
    async def __call__(self, batch: Batch[Trade]) -> None: ...


class Keeper:
    async def __call__(self, events: list[Trade]) -> None: ...

    def keep(self, events: list[Trade]) -> None: ...


def functions(engine: AppEngine, kept: list[Trade]) -> None:
    @engine.on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def another_class(events: list[Quote]) -> None: ...

    @engine.on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def another_class_in_a_thread(events: list[Quote]) -> None: ...

    @engine.on_event(Trade, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def one_of_two(events: list[Trade]) -> None: ...

    @engine.on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def like_a_method(self: object, events: list[Trade]) -> None: ...

    engine.on_event(Quote)(Keeper())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.on_event(Quote)(Keeper().keep)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.on_event(Quote)(kept.extend)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.on_event(Quote)(functools.partial(log, "x"))  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, record)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Event, record)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, Keeper())  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, Keeper().keep)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, kept.extend)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, functools.partial(log, "x"))  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Trade, log)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Trade, record, log)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.register_handler(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.register_handler(int, print)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.on_event()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(int)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    on_event(Trade(5))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event("Trade")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(record)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def functions_of_batches(engine: AppEngine) -> None:
    @engine.on_event(Trade)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def another_class(batch: Batch[Quote]) -> None: ...

    @engine.on_event(Trade, Quote)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def one_of_two(batch: Batch[Trade]) -> None: ...

    engine.on_event(Quote)(BatchKeeper())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, record_batch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Event, record_batch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Quote, BatchKeeper())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


# -- options of handlers ---------------------------------------------------------------------------------------------


def by_price(event: Trade) -> int:
    return event.data


async def in_time(event: Trade) -> int:
    return event.data


def options_of_handlers(engine: AppEngine) -> None:
    on_event(Trade, max_batch="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, max_batch=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, queue_size="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, linger="5 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, linger=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, key=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Quote, key=by_price)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    on_event(Trade, Quote, key=by_price)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    on_event(Trade, key=lambda event: event.price)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    on_event(Trade, key=lambda: 5)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    on_event(Trade, key=lambda event: [event.data])  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    on_event(Trade, concurrency="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, concurrency=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, overflow="block")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, rate=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, timeout="5 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, retry=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, isolate="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, on_failure="discard")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    on_event(Trade, on_failure={ValueError: "drop"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    on_event(Trade, on_failure={KeyboardInterrupt: "stop"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    on_event(Trade, on_failure={"ValueError": "discard"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    on_event(Trade, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(Trade, Quote, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(Trade, Quote, Message, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(Trade, Quote, Message, Block, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(Trade, Quote, Message, Block, ExceptionEvent, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    on_event(max_batch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.on_event(Trade, max_batch="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    engine.on_event(Trade, Quote, overflow="block")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    engine.on_event(Trade, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.on_event(Quote, key=by_price)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.register_handler(Trade, record, max_batch="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Trade, record, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.register_handler(Trade, record_batch, linger="5 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.register_handler(Trade, record, record_batch, maxbatch=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.register_handler(Trade, record, record_batch, rate=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Rate("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Rate(5, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Rate(5, burst=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Retry(on="OSError")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=KeyboardInterrupt)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=OSError, attempts="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- schedules and tasks ---------------------------------------------------------------------------------------------


class Clock(Application):
    @schedule  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def without_brackets(self) -> None: ...  # type: ignore[misc]

    @schedule("60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def text(self) -> None: ...

    @schedule(60, False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async def nameless(self) -> None: ...

    @schedule(60)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def with_argument(self, now: float) -> None: ...

    @task  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def task_with_argument(self, name: str) -> None: ...

    @task()  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    def task_in_a_thread_with_argument(self, name: str) -> None: ...

    @task(5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
    async def with_number(self) -> None: ...


# -- hooks -----------------------------------------------------------------------------------------------------------


async def close() -> None: ...


class Sync(Application):
    def before_start(self) -> None: ...

    def exit(self) -> None:
        return close()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class Forgets(Application):
    def exit(self) -> None:
        close()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


class AsyncOfSync(Sync):
    async def before_start(self) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class Async(Application):
    async def before_start(self) -> None:
        await super().before_start()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


class SyncOfAsync(Async):
    def before_start(self) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class Returns(SubApplication):
    def before_start(self) -> Awaitable[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return close()

    async def exit(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return 5


class Takes(Application):
    async def before_start(self, engine: AppEngine) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


def hooks(engine: AppEngine) -> None:
    @engine.before_start  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def takes_the_engine(engine: AppEngine) -> None: ...

    @engine.exit  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    def takes_the_report(report: ShutdownReport) -> None: ...

    engine.before_start(close())  # type: ignore[type-var, unused-coroutine]  # pyright: ignore[reportArgumentType]
    engine.exit(5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


# -- publishing ------------------------------------------------------------------------------------------------------


async def publishing(engine: AppEngine) -> None:
    await engine.pub_event(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.pub_event(Trade)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.pub_event([Trade(5)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.pub_events(Trade(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.pub_events([Trade(5), 5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    engine.pub_event_nowait("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.pub_event_from_thread(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.pub_events_from_thread(["text"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    # Not awaited.
    engine.pub_event(Trade(5))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    engine.pub_events([Trade(5)])  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    engine.wait_idle()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    engine.run()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    # Nothing to await.
    await engine.pub_event_nowait(Trade(5))  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await engine.stop()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await engine.start()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    with engine:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        ...


def events(failure: ExceptionEvent) -> None:
    Trade("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Message()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Message("telegram")  # pyright: ignore[reportArgumentType]
    Trade(5).data.upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    failure.data.upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    failure.events.append(Trade(5))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    Trade(5).price = 5  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# -- options ---------------------------------------------------------------------------------------------------------


def options(engine: AppEngine, report: ShutdownReport) -> None:
    AppEngine(queue_size="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AppEngine(max_batch=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AppEngine(grace_period="10s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AppEngine(on_error="explode")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AppEngine(max_workers=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AppEngine([], 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AppEngine(Sync())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AppEngine([Sync])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    AppEngine([Returns()])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    engine.add_app([Sync()])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.add_app(Returns())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Sync().add_app(Sync())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(backend=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start("asyncio", use_uvloop=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.state = None  # type: ignore[assignment, misc]  # pyright: ignore[reportAttributeAccessIssue]
    report.accepted = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    engine.statistics().handlers["Sync"].failed = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert engine.report.is_clean  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]

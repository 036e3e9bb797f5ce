"""Random programs for a whole engine: what they are, how they run on a virtual clock, and what must hold at the end.

A program is a value that Hypothesis draws and prints: handlers that wait, fail and publish onward (themselves or in child
tasks), publishers that may be cancelled, and a way to end. Times are whole virtual seconds, so that many things happen at
the same moment; `seed` decides how many turns everybody gives to the others in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from event_flow import AppEngine, Application, BacklogExceeded, EngineClosed, Event, ExceptionEvent
from event_flow.testing.clock import virtual_clock

# No program has that much to wait for: whoever still waits then would wait for ever.
HORIZON = 100_000.0
# Events that handlers of one program may publish onward, so that every program ends.
ONWARD = 60
# Far more calls than one of them makes: whoever publishes for ever without time passing is stopped there.
MANY_CALLS = 10_000
PLENTY = 10_000


@dataclass(frozen=True, slots=True)
class Tag:
    """What an event carries: who published it, as which of his, and how many handlers are behind it."""

    publisher: str
    serial: int
    generation: int


class Thing(Event[Tag]):
    pass


class Red(Thing):
    pass


class DarkRed(Red):
    pass


class Green(Thing):
    pass


class Ending(Enum):
    QUIET = "stopped when every publisher has ended and the bus is idle"
    STOP = "stopped while things go on"
    CANCEL = "cancelled from outside while things go on"


@dataclass(frozen=True, slots=True)
class HandlerPlan:
    wants: tuple[type[Event[Any]], ...]
    pause: int
    onward: tuple[type[Thing], ...]  # published for each event it gets
    children: int  # tasks of a call that publish, each all of it; 0: the call does it itself
    fails_every: int  # 1: each call, 0: none


@dataclass(frozen=True, slots=True)
class PublisherPlan:
    events: tuple[tuple[int, type[Thing]], ...]  # seconds to wait before, class
    how: str
    cancel_after: int | None


@dataclass(frozen=True, slots=True)
class Program:
    handlers: tuple[HandlerPlan, ...]
    publishers: tuple[PublisherPlan, ...]
    early: tuple[type[Thing], ...]  # published before the start
    queue_size: int
    max_batch: int
    max_backlog: int
    generations: int
    apps: int
    ending: Ending
    end_at: int
    grace_period: float
    seed: int


things = st.sampled_from([Thing, Red, DarkRed, Green])
anything: list[type[Event[Any]]] = [Event, Thing, Red, DarkRed, Green, ExceptionEvent]

handler_plans = st.builds(
    HandlerPlan,
    wants=st.lists(st.sampled_from(anything), min_size=1, max_size=2, unique=True).map(tuple),
    pause=st.integers(0, 3),
    onward=st.lists(things, max_size=2).map(tuple),
    children=st.integers(0, 2),
    fails_every=st.integers(0, 3),
)
publisher_plans = st.builds(
    PublisherPlan,
    events=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 3]), things), min_size=1, max_size=8).map(tuple),
    how=st.sampled_from(["pub_event", "pub_event", "pub_events", "pub_event_nowait"]),
    cancel_after=st.none() | st.integers(0, 5),
)
programs = st.builds(
    Program,
    handlers=st.lists(handler_plans, min_size=1, max_size=5).map(tuple),
    publishers=st.lists(publisher_plans, min_size=1, max_size=4).map(tuple),
    early=st.lists(things, max_size=4).map(tuple),
    queue_size=st.integers(1, 5),
    max_batch=st.integers(1, 5),
    max_backlog=st.sampled_from([PLENTY, PLENTY, 3, 0]),
    generations=st.integers(0, 3),
    apps=st.integers(0, 3),
    ending=st.sampled_from(Ending),
    end_at=st.integers(0, 8),
    grace_period=st.sampled_from([0.0, 2.0, float("inf")]),
    seed=st.integers(0, 2**16),
)


class Outcome(Enum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Call:
    """One call of a handler, as the handler saw it."""

    events: list[Event[Any]]
    outcome: Outcome = Outcome.RUNNING


class Hooks(Application):
    def __init__(self, name: str, diary: list[str]) -> None:
        super().__init__(name)
        self.diary = diary

    async def before_start(self) -> None:
        self.diary.append(f"{self.name} starts")

    async def exit(self) -> None:
        self.diary.append(f"{self.name} exits")


@dataclass
class Run:
    """One program at work, and everything that was seen of it."""

    program: Program
    made: list[Event[Tag]] = field(default_factory=list)  # the publish returned
    unmade: list[Event[Tag]] = field(default_factory=list)  # it raised
    unsure: list[list[Event[Tag]]] = field(
        default_factory=list
    )  # a `pub_events` raised: some prefix was made
    calls: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    diary: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # seen to be wrong on the way
    in_time: bool = False
    published_onward: int = 0
    asked_to_end: float = 0.0
    ended: float = 0.0

    def __post_init__(self) -> None:
        program = self.program
        self.random = Random(program.seed)
        self.scope: anyio.CancelScope
        self.engine = AppEngine(
            [Hooks(f"app{number}", self.diary) for number in range(program.apps)],
            queue_size=program.queue_size,
            max_batch=program.max_batch,
            max_backlog=program.max_backlog,
            grace_period=program.grace_period,
        )
        self.engine.exit(self._last_hook)
        for number in range(len(program.handlers)):
            self._add_handler(number)

    async def _last_hook(self) -> None:
        self.diary.append("engine exits")

    def _add_handler(self, number: int) -> None:
        plan = self.program.handlers[number]
        calls = self.calls[number]

        async def handle(events: list[Event[Any]]) -> None:
            if calls and calls[-1].outcome is Outcome.RUNNING:
                self.broken.append(f"handler {number} was entered twice")
            call = Call(list(events))
            calls.append(call)
            if len(calls) > MANY_CALLS:
                self.broken.append(f"handler {number} is called for ever")
                await anyio.sleep_forever()
            self._look()
            try:
                await self._act(plan, f"h{number}.{len(calls)}", events, len(calls))
            except anyio.get_cancelled_exc_class():
                call.outcome = Outcome.CANCELLED
                raise
            except BaseException:
                call.outcome = Outcome.FAILED
                raise
            finally:
                events.clear()  # the list is the handler's own
            call.outcome = Outcome.DONE

        handle.__name__ = f"h{number}"
        self.engine.on_event(*plan.wants)(handle)

    # -- what handlers and publishers do ---------------------------------------------------------------------------

    async def _act(self, plan: HandlerPlan, name: str, events: list[Event[Any]], call: int) -> None:
        await self._give_turns()
        if plan.pause:
            await anyio.sleep(plan.pause)
        if plan.children:
            async with anyio.create_task_group() as group:
                for child in range(plan.children):
                    group.start_soon(self._publish_onward, plan, f"{name}.{child}", events)
        else:
            await self._publish_onward(plan, name, events)
        if plan.fails_every and call % plan.fails_every == 0:
            raise ValueError(name)

    async def _publish_onward(self, plan: HandlerPlan, name: str, events: list[Event[Any]]) -> None:
        serial = 0
        for event in events:
            generation = event.data.generation + 1 if isinstance(event, Thing) else 1
            if generation > self.program.generations:
                continue
            for event_class in plan.onward:
                if self.published_onward < ONWARD:
                    self.published_onward += 1
                    await self._publish(event_class(Tag(name, serial, generation)))
                    serial += 1

    async def _publish(self, event: Event[Tag], how: str = "pub_event") -> None:
        await self._give_turns()
        try:
            if how == "pub_event_nowait":
                self.engine.pub_event_nowait(event)
            else:
                await self.engine.pub_event(event)
        except BaseException:
            self.unmade.append(event)
            raise
        self.made.append(event)
        self._look()

    async def _publish_all(self, events: list[Event[Tag]]) -> None:
        try:
            await self.engine.pub_events(events)
        except BaseException:
            self.unsure.append(events)
            raise
        self.made += events

    async def _be_publisher(self, number: int, plan: PublisherPlan) -> None:
        events = [
            event_class(Tag(f"p{number}", serial, 0)) for serial, (_, event_class) in enumerate(plan.events)
        ]
        after = plan.cancel_after
        with anyio.move_on_after(HORIZON * 2 if after is None else after):
            try:
                if plan.how == "pub_events":
                    await anyio.sleep(plan.events[0][0])
                    await self._publish_all(list(events))
                    return
                for (pause, _), event in zip(plan.events, events, strict=True):
                    await anyio.sleep(pause)
                    try:
                        await self._publish(event, plan.how)
                    except anyio.WouldBlock:
                        await checkpoint()
            except (EngineClosed, BacklogExceeded):
                pass

    async def _give_turns(self) -> None:
        for _ in range(self.random.randrange(3)):
            await checkpoint()

    def _look(self) -> None:
        """No lane ever holds more than it may, but for what is counted and what came before the start."""
        limit = max(self.program.queue_size, len(self.program.early))
        for name, handler in self.engine.statistics().handlers.items():
            if handler.queued > limit + handler.over_limit:
                self.broken.append(f"{name} had {handler.queued} events queued, {handler.over_limit} over")

    # -- the whole -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        with anyio.move_on_after(HORIZON) as horizon:
            for serial, event_class in enumerate(self.program.early):
                try:
                    await self._publish(event_class(Tag("early", serial, 0)))
                except BacklogExceeded:
                    break
            async with anyio.create_task_group() as group:
                group.start_soon(self._host)
                await self.engine.wait_running()
                async with anyio.create_task_group() as inner:
                    for number, plan in enumerate(self.program.publishers):
                        inner.start_soon(self._be_publisher, number, plan)
                    if self.program.ending is not Ending.QUIET:
                        await anyio.sleep(self.program.end_at)
                        await self._give_turns()
                        self._end()
                if self.program.ending is Ending.QUIET:
                    await self.engine.wait_idle()
                    self._end()
        self.in_time = not horizon.cancelled_caught

    async def _host(self) -> None:
        with anyio.CancelScope() as self.scope:
            await self.engine.run()
        self.ended = anyio.current_time()

    def _end(self) -> None:
        self.asked_to_end = anyio.current_time()
        if self.program.ending is Ending.CANCEL:
            self.scope.cancel()
        else:
            self.engine.stop()

    # -- what must hold --------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Raise `AssertionError` where a promise was broken."""
        assert not self.broken, self.broken
        assert self.in_time, "somebody would wait for ever"
        self._judge_order()
        self._judge_deliveries()
        self._judge_failures()
        self._judge_limits()
        self._judge_end()

    def _judge_order(self) -> None:
        """Promise 1: the events of one publisher come in the order in which he published them."""
        for calls in self.calls.values():
            serials: dict[str, list[int]] = defaultdict(list)
            for tag in (event.data for event in _seen(calls) if isinstance(event, Thing)):
                serials[tag.publisher].append(tag.serial)
            for publisher, seen in serials.items():
                assert seen == sorted(set(seen)), f"from {publisher}: {seen}"

    def _judge_deliveries(self) -> None:
        """Promises 4 and 5: each handler got exactly what was published for it, or the report tells what it lost."""
        report = self.engine.report
        assert report is not None
        assert report.accepted == report.handled + report.failed + report.abandoned
        made, unmade = set(self.made), set(self.unmade)
        unsure = {event for events in self.unsure for event in events}
        unhandled = len(made)
        handled = failed = 0
        for number, plan in enumerate(self.program.handlers):
            calls = self.calls[number]
            seen = list(_seen(calls))
            assert len(seen) == len(set(seen)), "delivered twice"
            assert not unmade.intersection(seen), "a publish that was not made was delivered"
            strangers = {event for event in seen if isinstance(event, Thing)} - made - unsure
            assert not strangers
            ended = [call for call in calls if call.outcome in (Outcome.DONE, Outcome.FAILED)]
            handled += sum(len(call.events) for call in ended if call.outcome is Outcome.DONE)
            failed += sum(len(call.events) for call in ended if call.outcome is Outcome.FAILED)
            wanted = Counter(type(event).__name__ for event in made if isinstance(event, plan.wants))
            perhaps = Counter(type(event).__name__ for event in unsure if isinstance(event, plan.wants))
            settled = Counter(type(event).__name__ for event in _seen(ended))
            settled.update(report.abandoned_events.get(f"engine.h{number}", {}))
            del settled[ExceptionEvent.__name__]
            for name in {*wanted, *perhaps, *settled}:
                assert wanted[name] <= settled[name] <= wanted[name] + perhaps[name], (number, name)
        assert (report.handled, report.failed) == (handled, failed)
        wants = tuple({event for plan in self.program.handlers for event in plan.wants})
        unhandled = sum(not isinstance(event, wants) for event in made)
        perhaps_unhandled = sum(not isinstance(event, wants) for event in unsure)
        assert unhandled <= report.unhandled <= unhandled + perhaps_unhandled
        for run in self.unsure:
            self._judge_prefix(run)

    def _judge_prefix(self, run: list[Event[Tag]]) -> None:
        """Of a `pub_events` that raised, whatever came before an event that was delivered was delivered too."""
        assert self.engine.report is not None
        if self.engine.report.abandoned:
            return
        by_handler = [(plan.wants, set(_seen(self.calls[n]))) for n, plan in enumerate(self.program.handlers)]
        delivered = [
            [event in seen for wants, seen in by_handler if isinstance(event, wants)] for event in run
        ]
        whole = [flags for flags in delivered if flags]
        assert all(len(set(flags)) == 1 for flags in whole), "delivered to some handlers only"
        assert [flags[0] for flags in whole] == sorted((flags[0] for flags in whole), reverse=True)

    def _judge_failures(self) -> None:
        """Each failed call is one `ExceptionEvent`, in all lanes or in none."""
        assert self.engine.report is not None
        report = self.engine.report
        failed = sum(
            call.outcome is Outcome.FAILED and any(isinstance(event, Thing) for event in call.events)
            for calls in self.calls.values()
            for call in calls
        )
        dead = {
            tuple(event for event in call.events if isinstance(event, Thing))
            for calls in self.calls.values()
            for call in calls
            if call.outcome is Outcome.FAILED
        }
        for event in (event for calls in self.calls.values() for event in _seen(calls)):
            assert not isinstance(event, ExceptionEvent) or event.events in dead
        taken = set()
        for number, plan in enumerate(self.program.handlers):
            if issubclass(ExceptionEvent, plan.wants):
                ended = [call for call in self.calls[number] if call.outcome is not Outcome.CANCELLED]
                seen = sum(isinstance(event, ExceptionEvent) for event in _seen(ended))
                taken.add(
                    seen + report.abandoned_events.get(f"engine.h{number}", {}).get("ExceptionEvent", 0)
                )
        assert len(taken) <= 1, f"some lanes got more ExceptionEvents than others: {taken}"
        assert all(number <= failed for number in taken)
        # At the very end of the grace period a call may fail that can publish no more: its failure is only logged.
        had_time = self.ended < self.asked_to_end + self.program.grace_period
        is_drained = self.program.ending is Ending.QUIET or (
            self.program.ending is Ending.STOP and had_time and not report.abandoned
        )
        if is_drained and self.program.max_backlog == PLENTY:
            assert taken <= {failed}

    def _judge_limits(self) -> None:
        """Promise 2: no batch is too long, and a lane goes over its limit only where handlers could wait in a circle."""
        statistics = self.engine.statistics()
        for calls in self.calls.values():
            assert all(1 <= len(call.events) <= self.program.max_batch for call in calls)
        if not has_circle(self.program.handlers, self.program.generations):
            assert statistics.over_limit == 0

    def _judge_end(self) -> None:
        """Promise 7: every hook once, in reverse, and in time."""
        names = [f"app{number}" for number in range(self.program.apps)]
        starts = [f"{name} starts" for name in names]
        exits = [f"{name} exits" for name in reversed(names)]
        assert self.diary == [*starts, *exits, "engine exits"]
        report = self.engine.report
        assert report is not None
        assert not report.tasks_left
        assert self.engine._bus.activity.busy_lanes == 0
        for lane in self.engine._bus.router.lanes:
            assert not any((lane.queued, lane.running, lane.reserved, lane.waiters, lane.waits_for))
        if self.program.ending is Ending.CANCEL:
            assert self.ended == self.asked_to_end
        else:
            assert self.ended <= self.asked_to_end + self.program.grace_period
            if self.program.grace_period == float("inf") or self.program.ending is Ending.QUIET:
                assert report.is_clean


def _seen(calls: Sequence[Call]) -> Iterator[Event[Any]]:
    return (event for call in calls for event in call.events)


def has_circle(handlers: Sequence[HandlerPlan], generations: int) -> bool:
    """Whether what handlers publish, their failures included, may come back to them."""
    wants = [plan.wants for plan in handlers]
    follows: list[set[int]] = []
    for plan in handlers:
        published: list[type[Event[Any]]] = list(plan.onward) if generations else []
        if plan.fails_every or published:  # a publish may raise too
            published.append(ExceptionEvent)
        follows.append({n for n, wanted in enumerate(wants) if any(issubclass(p, wanted) for p in published)})
    for middle in range(len(handlers)):
        for first in follows:
            if middle in first:
                first.update(follows[middle])
    return any(number in follows[number] for number in range(len(handlers)))


def execute(program: Program, backend: str) -> Run:
    """Run a program on a virtual clock of its own."""

    async def main() -> Run:
        run = Run(program)
        await run.run()
        return run

    options = virtual_clock(backend)
    if backend == "asyncio":
        # Debug mode keeps the stack of every callback, which takes most of the time.
        options["debug"] = False
    return anyio.run(main, backend=backend, backend_options=options)

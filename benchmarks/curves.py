"""How the time for an event grows with handlers, classes, applications, publishers, threads, and with the size of its data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import engine, fans, growth, rivals
from benchmarks.measure import (
    ASYNCIO,
    BACKENDS,
    TRIO,
    Backend,
    Contestant,
    Plan,
    Quartiles,
    announce,
    compare,
    quartiles,
)

Timed = Callable[[int, int], Awaitable[float]]
"""Called with a number of events and a point of the x axis, returns seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Lines over `points`: ours on every backend, `more` of ours on asyncio, and what people write by hand on asyncio.

    The first of `by_hand` is the one that ours is compared with. `reading` says what there is to see, and why; what depends on
    the figures is a field in it, which `says` fills in.
    """

    name: str
    title: str
    x: str
    y: str
    points: Sequence[int]
    events: Callable[[int], float]
    ours: Timed
    more: Mapping[str, Timed] = field(default_factory=dict)
    by_hand: Mapping[str, Timed]
    reading: str

    @property
    def rival(self) -> str:
        """The line that ours is compared with."""
        return next(iter(self.by_hand))

    def says(self, points: Sequence[Mapping[str, Any]]) -> str:
        """The reading, with the figures of these points: the last x, and how many times as long as ours the rival took there."""
        last = points[-1]
        return self.reading.format(most=f"{last['x']:,}", ratio=Quartiles(*last["ratio"][OURS]))

    def contestants(self, point: int, plan: Plan) -> dict[str, Contestant]:
        """Everything that is measured there."""
        events = plan.times(self.events(point))

        def on(backend: Backend, work: Timed) -> Contestant:
            return partial(backend.run, partial(work, events, point))

        return (
            {titled(backend): on(backend, self.ours) for backend in BACKENDS}
            | {name: on(ASYNCIO, work) for name, work in self.more.items()}
            | {name: on(ASYNCIO, work) for name, work in self.by_hand.items()}
        )


def titled(backend: Backend) -> str:
    """As it is called in pictures and tables."""
    return f"Event Flow, {'Trio' if backend is TRIO else backend.name}"


OURS = titled(ASYNCIO)


def for_one(work: Timed) -> Timed:
    """The time for one delivery: that for an event, divided by its handlers."""

    async def timed(events: int, handlers: int) -> float:
        return await work(events, handlers) / handlers

    return timed


async def data_as_it_is(events: int, size: int) -> float:
    """One queue."""
    return await fans.data_as_it_is(events, growth.dict_of(size))


async def data_pickled(events: int, size: int) -> float:
    """The larger the data, the fewer events, so that it takes about as long."""
    return await fans.data_pickled(max(1, events * 2000 // (2000 + 10 * size)), growth.dict_of(size))


async def classes_and_table(events: int, count: int) -> float:
    """One queue and a table of so many classes."""
    return await fans.queue_and_table(events, growth.event_classes(count))


async def first_of_classes(_: int, count: int) -> float:
    """However many events: there is one first of each class."""
    return await growth.first_of_classes(count)


async def start_and_stop(_: int, apps: int) -> float:
    """There are no events in it."""
    return await growth.start_and_stop(apps)


async def bare_tasks(_: int, tasks: int) -> float:
    """As many bare tasks, seconds for one."""
    return await rivals.bare_tasks(tasks) / tasks


async def threads_to_a_thread(events: int, threads: int) -> float:
    """It blocks the loop, which has nothing else to do."""
    return fans.threads_to_a_thread(events, threads)


CURVES = [
    Curve(
        name="handlers",
        title="An event to many handlers",
        x="handlers of the event",
        y="time for one delivery",
        points=[1, 3, 10, 30, 100, 300, 1000],
        events=lambda handlers: max(100, 30_000 / handlers),
        ours=for_one(engine.publish_one_by_one),
        by_hand={"by hand: a queue for each": for_one(fans.queue_for_each_handler)},
        reading="One delivery is an append to the open batch of a handler, and shares the call of `pub_event` with the others: "
        "the more handlers, the less each costs, until so many lists no longer fit into the caches of the processor.",
    ),
    Curve(
        name="classes",
        title="Events of many classes to one handler",
        x="event classes",
        y="time for an event",
        points=[1, 10, 100, 1000, 10_000],
        events=lambda count: max(20_000, count),
        ours=growth.classes_in_turn,
        more={"the first of each, asyncio": first_of_classes},
        by_hand={"by hand: one queue, a table": classes_and_table},
        reading="The lanes of a class are worked out once, with its first event, and looked up from then on. The first event "
        "costs some microseconds whatever the number of classes (for few of them the line shows the call of the handler). With "
        "thousands of classes the others cost more too. To make an event takes longer, here and by hand: the classes fit into "
        "the caches of Python and of the processor no longer. And that others get a turn in time, a publish looks at the lanes "
        "after fewer events the more classes there are: after each one from five thousand on, and the look costs more than "
        "the rest of it. With {most} classes the table by hand took {ratio} as long as ours.",
    ),
    Curve(
        name="applications",
        title="Events to many applications in turn",
        x="applications, one handler each",
        y="time for an event",
        points=[1, 10, 100, 1000],
        events=lambda apps: max(20_000, 10 * apps),
        ours=growth.apps_in_turn,
        by_hand={"by hand: a queue for each": fans.queue_for_each_app},
        reading="Each event goes to another handler than the one before, so batches get smaller the more there are, and a "
        "wake-up is shared by fewer events. With {most} the queues by hand took {ratio} as long as ours: their publisher gives "
        "nobody a turn until a queue is full, here everybody has one after ten thousand events at the latest.",
    ),
    Curve(
        name="start",
        title="Starting and stopping many applications",
        x="applications, one handler each",
        y="time for an application",
        points=[1, 10, 100, 1000],
        events=lambda _: 1,
        ours=start_and_stop,
        by_hand={"a bare task": bare_tasks},
        reading="Every run has a cost of its own, whatever is in it, that of a bare task too. With one application it is most "
        "of what there is to see; a hundred share it, and what is left is about the same for each however many there are: a "
        "task group, a worker for the handler, its lane, and reading the class. A bare task that waits and is cancelled is "
        "what no program gets below.",
    ),
    Curve(
        name="data",
        title="Events with large data",
        x="bytes in the data of an event",
        y="time for an event",
        points=[100, 1000, 10_000, 100_000, 1_000_000],
        events=lambda _: 20_000,
        ours=growth.large_data,
        by_hand={
            "by hand: a queue": data_as_it_is,
            "the same with a pickled copy": data_pickled,
        },
        reading="Data are handed on, never copied or looked at, so their size does not matter; the copy that a queue between "
        "processes makes does.",
    ),
    Curve(
        name="publishers",
        title="Many tasks publish",
        x="publishing tasks",
        y="time for an event",
        points=[1, 3, 10, 30, 100],
        events=lambda _: 20_000,
        ours=growth.publishing_tasks,
        by_hand={"by hand: one queue": fans.publishers_of_one_queue},
        reading="Whoever finds the queue full waits, in order of arrival, and one is woken for each place that gets free. The "
        "more of them wait, the more of the time goes into waking them, here as in a queue by hand: with {most} that one took "
        "{ratio} as long.",
    ),
    Curve(
        name="threads",
        title="Threads publish",
        x="publishing threads",
        y="time for an event",
        points=[1, 2, 4, 8],
        events=lambda _: 1_000,
        ours=growth.publishing_threads,
        more={"a hundred in a call, asyncio": growth.threads_with_hundreds},
        by_hand={
            "by hand: run_coroutine_threadsafe": fans.threads_into_the_loop,
            "queue.Queue to a thread": threads_to_a_thread,
        },
        reading="Each call waits until the loop has accepted the event, which is a hop to the loop's thread and back. Threads "
        "that wait at the same time share a wake-up of the loop, and `pub_events_from_thread` shares it among many events. A "
        "`queue.Queue` between threads has no loop to wake.",
    ),
]


def measure_point(curve: Curve, point: int, plan: Plan) -> dict[str, Any]:
    """What is stored of it: seconds of each line, and how many times as long the rival took."""
    announce(f"{point:,} {curve.x}")
    contestants = curve.contestants(point, plan)
    comparison = compare(contestants, plan.rounds)
    return {
        "x": point,
        "seconds": {name: quartiles(comparison.times[name]) for name in contestants},
        "ratio": {titled(each): comparison.ratios(curve.rival, titled(each)) for each in BACKENDS},
    }


def measure(plan: Plan) -> dict[str, Any]:
    """All curves; what is stored of them."""
    return {
        curve.name: {
            "title": curve.title,
            "x": curve.x,
            "y": curve.y,
            "rival": curve.rival,
            "points": [measure_point(curve, point, plan) for point in curve.points],
        }
        for curve in CURVES
    }

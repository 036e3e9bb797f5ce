"""What Hypothesis draws: how an engine is set up, and what everybody in it is told to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hypothesis import strategies as st
from records import PLENTY, DarkRed, Green, Red, Thing
from terms import PLAIN, Terms, any_terms, some_terms

from event_flow import Event, ExceptionEvent


class How(Enum):
    ONE_BY_ONE = "pub_event, or pub_event_from_thread"
    TOGETHER = "pub_events, or pub_events_from_thread"
    NOWAIT = "pub_event_nowait, where there is no thread"
    CHILDREN = "each in a child task, where there is no thread"
    GIVEN_UP = "cancelled after a second, where there is no thread"


class Ending(Enum):
    RETURNS = "returns"
    FAILS = "raises ValueError"
    EXITS = "raises SystemExit"
    IS_INTERRUPTED = "raises KeyboardInterrupt"
    CANCELS_ITSELF = "cancels its own asyncio task; on Trio it returns"
    PARTLY = "raises BatchFailed for every second event, the first among them, with one of two errors"


class Around(Enum):
    """What middleware does."""

    PASSES = "hands the batch on as it is"
    SHORTENS = "leaves out the last of several events"
    REPLACES = "hands on a batch of its own, in which the last of several events is left out"
    SKIPS = "each second time it does not go on"
    FAILS_BEFORE = "raises ValueError each second time, four times in all"
    FAILS_AFTER = "the same, after the handler has returned"


class Filter(Enum):
    """What a filter does to each third thing, and each second failure."""

    DROPS = "drops it"
    REPLACES = "a Green one takes the place of a thing"


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a handler does from its next call on, in this order."""

    waits: bool = False  # at its gate
    seconds: int = 0
    pauses: bool = False  # itself, where it is async
    redelivers: bool = False  # for each ExceptionEvent it got, where it is async
    onward: tuple[type[Thing], ...] = ()  # published for each event it got
    how: How = How.ONE_BY_ONE
    ending: Ending = Ending.RETURNS


@dataclass(frozen=True, slots=True)
class HandlerPlan:
    wants: tuple[type[Event[Any]], ...]
    is_sync: bool
    first: Instruction = Instruction()
    terms: Terms = PLAIN


@dataclass(frozen=True, slots=True)
class Setup:
    handlers: tuple[HandlerPlan, ...]
    queue_size: int
    max_batch: int
    max_backlog: int
    max_threads: int
    is_strict: bool = False
    # The engine or applications, whose hooks, task and schedule run in threads.
    sync: frozenset[str] = frozenset()
    in_hook: tuple[type[Thing], ...] = ()  # published by each `before_start` hook
    how_in_hook: How = How.ONE_BY_ONE
    middleware: tuple[Around, ...] = ()
    filters: tuple[Filter, ...] = ()


things = st.sampled_from([Thing, Red, DarkRed, Green])
# Leaves most often: with a base class most of what handlers publish comes back to them.
anything: list[type[Event[Any]]] = [DarkRed, DarkRed, Green, Green, Red, Thing, ExceptionEvent, Event]
instructions = st.builds(
    Instruction,
    waits=st.booleans(),
    seconds=st.sampled_from([0, 0, 1]),
    pauses=st.sampled_from([False] * 7 + [True]),
    redelivers=st.booleans(),
    onward=st.lists(things, max_size=2).map(tuple),
    how=st.sampled_from(How),
    ending=st.sampled_from(
        [Ending.RETURNS] * 5 + [Ending.FAILS, Ending.FAILS, Ending.PARTLY, Ending.CANCELS_ITSELF]
    ),
)


@st.composite
def plans(draw: st.DrawFn) -> HandlerPlan:
    wants = tuple(draw(st.lists(st.sampled_from(anything), min_size=1, max_size=2)))
    return _plan(wants, draw(st.booleans()), draw(instructions), draw(any_terms))


def _plan(
    wants: tuple[type[Event[Any]], ...], is_sync: bool, first: Instruction, terms: Terms
) -> HandlerPlan:
    if terms.retry is not None and (is_sync or terms.concurrency > 1):
        # When the first attempt began, or which wait was drawn, is not known so exactly.
        terms = replace(terms, retry=replace(terms.retry, within=None))
    return HandlerPlan(wants, is_sync, first, terms)


everything = ["engine", "outer", "inner"]
in_threads = st.sampled_from([[], ["engine"], ["outer"], ["inner"], everything, everything]).map(frozenset)
hooks = st.lists(things, max_size=2).map(tuple)
around = st.one_of(st.just(()), st.just(()), st.lists(st.sampled_from(Around), max_size=2).map(tuple))
filters = st.one_of(st.just(()), st.just(()), st.lists(st.sampled_from(Filter), max_size=2).map(tuple))
setups = st.builds(
    Setup,
    handlers=st.lists(plans(), min_size=1, max_size=4).map(tuple),
    queue_size=st.sampled_from([1, 2, 3, 1000]),
    max_batch=st.sampled_from([1, 2, 3, 1000]),
    max_backlog=st.sampled_from([PLENTY, PLENTY, 1]),
    max_threads=st.sampled_from([1, 2]),
    is_strict=st.sampled_from([False, False, False, True]),
    sync=in_threads,
    in_hook=hooks,
    how_in_hook=st.sampled_from([How.ONE_BY_ONE, How.TOGETHER]),
    middleware=around,
    filters=filters,
)


@st.composite
def rings(draw: st.DrawFn) -> Setup:
    """Handlers that publish to each other in a circle, with next to no room: all of them wait for the next at some time."""
    classes = draw(st.permutations([DarkRed, Green]))
    is_sync = draw(st.booleans())
    times = draw(st.integers(1, 2))
    return Setup(
        handlers=tuple(
            HandlerPlan((wanted,), is_sync, Instruction(onward=(published,) * times))
            for wanted, published in zip(classes, reversed(classes), strict=True)
        ),
        queue_size=draw(st.integers(1, 2)),
        max_batch=draw(st.integers(1, 2)),
        max_backlog=draw(st.sampled_from([PLENTY, 1])),
        max_threads=1,
        sync=draw(in_threads),
        in_hook=(DarkRed, Green),
    )


@st.composite
def second_chances(draw: st.DrawFn) -> Setup:
    """A handler that fails, and one that redelivers what it failed with, which may be itself; often with next to no room."""
    how = draw(st.sampled_from([How.ONE_BY_ONE, How.CHILDREN, How.GIVEN_UP, How.GIVEN_UP]))
    heals = Instruction(waits=draw(st.booleans()), redelivers=True, how=how)
    fails = Instruction(waits=draw(st.booleans()), ending=Ending.FAILS)
    if draw(st.booleans()):
        handlers = [HandlerPlan((Thing,), draw(st.booleans()), fails)]
        handlers += [HandlerPlan((ExceptionEvent,), False, heals)] * draw(st.integers(1, 2))
    else:
        itself = Instruction(redelivers=True, how=how, ending=Ending.FAILS)
        handlers = [HandlerPlan((Thing, ExceptionEvent), False, itself)]
    return Setup(
        handlers=(*handlers, *draw(st.lists(plans(), max_size=1))),
        queue_size=draw(st.sampled_from([1, 2, 1000])),
        max_batch=draw(st.sampled_from([1, 2, 1000])),
        max_backlog=draw(st.sampled_from([PLENTY, PLENTY, 1])),
        max_threads=1,
        sync=draw(in_threads),
        in_hook=draw(hooks),
    )


@st.composite
def loads(draw: st.DrawFn) -> Setup:
    """One or two handlers with options that get everything, and one that is told of failures, or of nothing."""
    handlers = []
    for _ in range(draw(st.integers(1, 2))):
        first = Instruction(
            waits=draw(st.booleans()),
            ending=draw(st.sampled_from([Ending.FAILS, Ending.RETURNS, Ending.PARTLY])),
        )
        handlers.append(_plan((Thing,), draw(st.booleans()), first, draw(some_terms())))
    told = HandlerPlan((ExceptionEvent,), False, Instruction(redelivers=draw(st.booleans())))
    handlers += draw(st.sampled_from([[], [told]]) | st.lists(plans(), min_size=1, max_size=1))
    return Setup(
        handlers=tuple(handlers),
        queue_size=draw(st.sampled_from([1000, 3, 1])),
        max_batch=draw(st.sampled_from([1000, 3, 2])),
        max_backlog=PLENTY,
        max_threads=draw(st.sampled_from([2, 1])),
        in_hook=draw(st.lists(things, max_size=4).map(tuple)),
        middleware=draw(around),
        filters=draw(filters),
    )


any_setup = st.one_of(setups, loads(), loads(), loads(), rings(), second_chances())

"""What Hypothesis draws: how an engine is set up, and what everybody in it is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from hypothesis import strategies as st
from records import PLENTY, DarkRed, Green, Red, Thing

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


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a handler does from its next call on, in this order."""

    waits: bool = False  # at its gate
    seconds: int = 0
    redelivers: bool = False  # for each ExceptionEvent it got, where it is async
    onward: tuple[type[Thing], ...] = ()  # published for each event it got
    how: How = How.ONE_BY_ONE
    ending: Ending = Ending.RETURNS


@dataclass(frozen=True, slots=True)
class HandlerPlan:
    wants: tuple[type[Event[Any]], ...]
    is_sync: bool
    first: Instruction = Instruction()


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


things = st.sampled_from([Thing, Red, DarkRed, Green])
# Leaves most often: with a base class most of what handlers publish comes back to them.
anything: list[type[Event[Any]]] = [DarkRed, DarkRed, Green, Green, Red, Thing, ExceptionEvent, Event]
instructions = st.builds(
    Instruction,
    waits=st.booleans(),
    seconds=st.sampled_from([0, 0, 1]),
    redelivers=st.booleans(),
    onward=st.lists(things, max_size=2).map(tuple),
    how=st.sampled_from(How),
    ending=st.sampled_from([Ending.RETURNS] * 5 + [Ending.FAILS] * 2 + [Ending.CANCELS_ITSELF]),
)
plans = st.builds(
    HandlerPlan,
    wants=st.lists(st.sampled_from(anything), min_size=1, max_size=2).map(tuple),
    is_sync=st.booleans(),
    first=instructions,
)
everything = ["engine", "outer", "inner"]
in_threads = st.sampled_from([[], ["engine"], ["outer"], ["inner"], everything, everything]).map(frozenset)
hooks = st.lists(things, max_size=2).map(tuple)
setups = st.builds(
    Setup,
    handlers=st.lists(plans, min_size=1, max_size=4).map(tuple),
    queue_size=st.sampled_from([1, 2, 3, 1000]),
    max_batch=st.sampled_from([1, 2, 3, 1000]),
    max_backlog=st.sampled_from([PLENTY, PLENTY, 1]),
    max_threads=st.sampled_from([1, 2]),
    is_strict=st.sampled_from([False, False, False, True]),
    sync=in_threads,
    in_hook=hooks,
    how_in_hook=st.sampled_from([How.ONE_BY_ONE, How.TOGETHER]),
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
        handlers=(*handlers, *draw(st.lists(plans, max_size=1))),
        queue_size=draw(st.sampled_from([1, 2, 1000])),
        max_batch=draw(st.sampled_from([1, 2, 1000])),
        max_backlog=draw(st.sampled_from([PLENTY, PLENTY, 1])),
        max_threads=1,
        sync=draw(in_threads),
        in_hook=draw(hooks),
    )


any_setup = st.one_of(setups, setups, rings(), second_chances(), second_chances())

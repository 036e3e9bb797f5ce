"""A handler that is slow, stuck or failing changes nothing for others: two engines, the same events, trouble in one of them.

Both run in one loop, so at the same times. What everybody sees who has nothing to do with the trouble (handlers: which
events, and when; publishers: when it returned, or that it waits) must be the same in both, to the second.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from machines import BACKENDS, machine_test, run_machine
from records import keep
from stepped_loop import SteppedLoop
from turns import ThreadGate

from event_flow import AppEngine, Application, EngineClosed, Event

# Virtual seconds. A publish of the trouble that waits is given up after this.
PATIENCE = 50.0
# What a call of the second handler takes, where one of the first takes a second: the two must never end at the same moment,
# as what comes first then is nobody's promise.
ODD = 0.7310585


class Ordinary(Event[int]):
    pass


class Onward(Event[int]):
    """What an ordinary handler publishes."""


class Apart(Event[int]):
    pass


class Trouble(Event[int]):
    pass


class Worse(Trouble):
    pass


class Calm(Application):
    """Ordinary handlers, one of which makes its publishers wait and publishes onward."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = twin

    async def on_first(self, events: list[Ordinary]) -> None:
        await self.twin.work("first", events, 1.0)
        for event in events:
            await self.engine.pub_event(Onward(event.data))

    async def on_second(self, events: list[Onward]) -> None:
        await self.twin.work("second", events, ODD)

    async def on_third(self, events: list[Apart]) -> None:
        await self.twin.work("third", events, ODD)


class Troubled(Application):
    """Handlers that are slow, stuck or failing, each as it is told."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = twin

    async def on_trouble(self, events: list[Trouble]) -> None:
        await self.twin.make_trouble()

    def on_worse(self, events: list[Worse]) -> None:
        if self.twin.trouble != "fails":
            self.twin.thread_gate.wait()
        raise ValueError


class Twin:
    """One of the two engines, and all that was seen of what has nothing to do with trouble."""

    def __init__(self, loop: SteppedLoop, *, has_trouble: bool, queue_size: int, max_batch: int) -> None:
        self.loop = loop
        self.has_trouble = has_trouble
        self.trouble = "stuck"
        self.gate = anyio.Event()
        self.thread_gate = ThreadGate(loop.turns)
        self.seen: dict[str, list[tuple[int, ...]]] = {"first": [], "second": [], "third": []}
        self.asked: dict[type[Event[int]], deque[int]] = {Ordinary: deque(), Apart: deque()}
        self.published: list[tuple[int, int]] = []
        self.engine = AppEngine(
            [Troubled(self), Calm(self)],
            queue_size=queue_size,
            max_batch=max_batch,
            max_backlog=2,
            max_threads=3,
            grace_period=0,
        )

    async def work(self, name: str, events: list[Any], seconds: float) -> None:
        await self._give_turns()
        self.seen[name].append((self._now(), *(event.data for event in events)))
        await anyio.sleep(seconds)

    async def make_trouble(self) -> None:
        await self._give_turns()
        if self.trouble == "stuck":
            await self.gate.wait()
        elif self.trouble == "slow":
            await anyio.sleep(20)
        elif self.trouble == "in a circle":
            await anyio.sleep(1)
            await self.engine.pub_events([Trouble(0), Worse(0)])
        raise ValueError

    async def host(self) -> None:
        """If it ends before its time, that shows in what handlers see."""
        with suppress(Exception):
            await self.engine.run()

    async def publish_all(self, event_class: type[Event[int]]) -> None:
        """One after the other: which of several publishers comes first is nobody's promise."""
        asked = self.asked[event_class]
        while asked:
            with suppress(EngineClosed):
                await self.engine.pub_event(event_class(asked[0]))
                self.published.append((self._now(), asked[0]))
            asked.popleft()

    async def publish_trouble(self, events: list[Trouble]) -> None:
        with suppress(EngineClosed), anyio.move_on_after(PATIENCE):
            await self._give_turns()
            await self.engine.pub_events(events)

    async def _give_turns(self) -> None:
        for _ in range(self.loop.random.randrange(3)):
            await checkpoint()

    @staticmethod
    def _now() -> int:
        """In milliseconds."""
        return math.floor(anyio.current_time() * 1000)

    def numbers(self) -> list[Any]:
        handlers = self.engine.statistics().handlers
        return [handlers["Calm.on_first"], handlers["Calm.on_second"], handlers["Calm.on_third"]]


class Isolation(RuleBasedStateMachine):
    """What is done to one engine is done to the other; trouble only to one of them."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.loop: SteppedLoop | None = None

    @initialize(
        seed=st.integers(0, 2**16),
        queue_size=st.sampled_from([1, 2, 5]),
        max_batch=st.sampled_from([1, 2, 100]),
    )
    def begin(self, seed: int, queue_size: int, max_batch: int) -> None:
        self.loop = SteppedLoop(self.backend, seed)
        self.calm, self.troubled = (
            Twin(self.loop, has_trouble=has_trouble, queue_size=queue_size, max_batch=max_batch)
            for has_trouble in (False, True)
        )
        self.number = 0
        for twin in (self.calm, self.troubled):
            self.loop.start(twin.host)
        self.loop.settle()

    @rule(event_class=st.sampled_from([Ordinary, Apart]), times=st.integers(1, 4))
    def publish(self, event_class: type[Event[int]], times: int) -> None:
        assert self.loop is not None
        numbers = range(self.number, self.number + times)
        self.number += times
        for twin in (self.calm, self.troubled):
            is_idle = not twin.asked[event_class]
            twin.asked[event_class].extend(numbers)
            if is_idle:
                self.loop.start(twin.publish_all, event_class)
        self.loop.settle()

    @rule(
        classes=st.lists(st.sampled_from([Trouble, Worse]), min_size=1, max_size=5),
        trouble=st.sampled_from(["stuck", "slow", "fails", "in a circle"]),
    )
    def make_trouble(self, classes: list[type[Trouble]], trouble: str) -> None:
        assert self.loop is not None
        self.troubled.trouble = trouble
        self.loop.start(self.troubled.publish_trouble, [event_class(0) for event_class in classes])
        self.loop.settle()

    @rule()
    def end_trouble(self) -> None:
        assert self.loop is not None
        self.loop.do(self._end_trouble)
        self.loop.settle()

    def _end_trouble(self) -> None:
        self.troubled.gate.set()
        self.troubled.gate = anyio.Event()
        self.troubled.thread_gate.open()

    @rule(seconds=st.sampled_from([1, 1, 3, 60]))
    def let_time_pass(self, seconds: int) -> None:
        assert self.loop is not None
        self.loop.let_pass(seconds)
        self.loop.settle()

    @invariant()
    def nothing_changes_for_others(self) -> None:
        if self.loop is None:
            return
        calm, troubled = self.calm, self.troubled
        for name in calm.seen:
            here, there = troubled.seen[name], calm.seen[name]
            keep(6, here == there, f"the {name} handler saw {_difference(here, there)}")
        here, there = sorted(troubled.published), sorted(calm.published)
        keep(6, here == there, f"publishes returned {_difference(here, there)}")
        keep(
            6, troubled.numbers() == calm.numbers(), f"{troubled.numbers()}, without trouble {calm.numbers()}"
        )

    def teardown(self) -> None:
        if self.loop is None:
            return
        try:
            for _ in range(5):
                self.troubled.trouble = "fails"
                self.end_trouble()
                self.loop.let_pass(PATIENCE)
            for twin in (self.calm, self.troubled):
                self.loop.do(twin.engine.stop)
            self.loop.let_pass(PATIENCE)
            self.end_trouble()
        finally:
            self.loop.close()


def _difference(here: list[Any], there: list[Any]) -> str:
    """What is in one of them only."""
    return f"{[one for one in here if one not in there]}, without trouble {[one for one in there if one not in here]}"


@machine_test
@pytest.mark.parametrize("backend", BACKENDS)
def test_trouble_changes_nothing_for_others(backend: str) -> None:
    """*Design promise 6*."""
    run_machine(type("Isolation", (Isolation,), {"backend": backend}), steps=20)

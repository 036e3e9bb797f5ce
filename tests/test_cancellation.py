"""Cancellation at each await of a publish: it reached every handler of the event, or none (*Design promise 5*).

What counts is whether the call returned. Cancelled by a scope, a publish that has got its place is made (no backend cancels a
wait that was answered); by asyncio's own `Task.cancel()` it gives the place back. Both are exact: nothing is awaited between
the last await and the delivery. `steps` finds every await there is.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from steps import Shot, Target, cancel_at_every_step

from event_flow import AppEngine, Application, Event, ExceptionEvent, schedule, task


class Both(Event[int]):
    """Wanted by the left handler and by the right one."""


class Left(Event[int]):
    pass


class Right(Event[int]):
    pass


class Desk:
    """Two handlers that are at work until they are let go, and one publisher, which is cancelled."""

    def __init__(
        self, *, queue_size: int = 1, max_batch: int = 1, full: tuple[type[Event[int]], ...] = ()
    ) -> None:
        self.engine = AppEngine(queue_size=queue_size, max_batch=max_batch)
        self.full = full
        self.got: dict[str, list[int]] = {"left": [], "right": []}
        self.gates = {"left": anyio.Event(), "right": anyio.Event()}
        self.returned: list[int] = []
        self.published: list[int] = []

        @self.engine.on_event(Both, Left)
        async def left(events: list[Event[int]]) -> None:
            await self._handle("left", events)

        @self.engine.on_event(Both, Right)
        async def right(events: list[Event[int]]) -> None:
            await self._handle("right", events)

    async def _handle(self, side: str, events: list[Event[int]]) -> None:
        await self.gates[side].wait()
        await checkpoint()
        self.got[side] += [event.data for event in events if isinstance(event, Both)]

    def is_phase(self) -> bool:
        return True

    def look(self) -> object:
        """Where the publish waits: at which lane, or for its turn when it has got its places."""
        lanes = self.engine._bus.router.lanes
        return next(
            (f"parked at {lane.name.removeprefix('engine.')}" for lane in lanes if lane.waiters),
            "granted" if any(lane.reserved for lane in lanes) else "",
        )

    async def publish(self) -> None:
        """What is cancelled."""
        await self._publish(1)

    async def _publish(self, number: int) -> None:
        self.published.append(number)
        await self.engine.pub_event(Both(number))
        self.returned.append(number)

    async def fill(self) -> None:
        """One event at work and one in the queue: the lane has no room."""
        for kind in self.full:
            await self.engine.pub_event(kind(0))
        await turns(5)
        for kind in self.full:
            await self.engine.pub_event(kind(0))

    async def drive(self) -> None:
        """What happens beside the publish."""
        for gate in self.gates.values():
            await turns(3)
            gate.set()

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        async with self.engine:
            await self.fill()
            async with anyio.create_task_group() as group:
                target.spawn(group, self.publish)
                begin()
                await self.drive()
                await target.ended.wait()

    async def check(self, target: Target) -> None:
        assert self.got == {"left": self.returned, "right": self.returned}
        cut_short = [number for number in self.published if number not in self.returned]
        assert len(cut_short) <= (0 if target.has_returned else 1)
        report = self.engine.report
        assert report is not None
        assert report.is_clean
        assert report.accepted == report.handled == 2 * len(self.returned) + 2 * len(self.full)


async def turns(number: int) -> None:
    """Let everybody else take so many steps."""
    for _ in range(number):
        await checkpoint()


def outcomes(shots: list[Shot], seen: object) -> set[tuple[str, bool]]:
    """In which way a publish was cancelled while that was true, and whether it was made."""
    return {(shot.way.split()[0], shot.has_returned) for shot in shots if shot.seen == seen}


def expected(shots: list[Shot], *, scope: bool, natively: bool) -> set[tuple[str, bool]]:
    made = {"scope": scope, "natively": natively}
    return {(way, made[way]) for way in {shot.way.split()[0] for shot in shots}}


@pytest.mark.parametrize("full", [(Left,), (Right,)], ids=["left", "right"])
async def test_a_publish_that_waits_for_room(full: tuple[type[Event[int]], ...]) -> None:
    shots = await cancel_at_every_step(lambda: Desk(full=full), least=6)
    parked = f"parked at {full[0].__name__.lower()}"
    assert {shot.seen for shot in shots} == {"", parked, "granted"}
    assert outcomes(shots, parked) == expected(shots, scope=False, natively=False)
    assert outcomes(shots, "granted") == expected(shots, scope=True, natively=False)


class Behind(Desk):
    """A second publish waits behind the one that is cancelled: whatever becomes of that, it gets its places."""

    def __init__(self) -> None:
        super().__init__(full=(Left, Right))

    async def drive(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(super().drive)
            await checkpoint()
            await checkpoint()
            await self.engine.pub_event(Both(2))

    async def check(self, target: Target) -> None:
        self.returned.append(2)
        self.published.append(2)
        await super().check(target)


async def test_a_publish_behind_the_one_that_is_cancelled() -> None:
    shots = await cancel_at_every_step(Behind, least=9)
    assert {shot.has_returned for shot in shots} == {True, False}


async def test_a_publish_that_is_moved_on_to_the_next_full_lane() -> None:
    shots = await cancel_at_every_step(lambda: Desk(full=(Left, Right)), least=9)
    assert {shot.seen for shot in shots} == {"", "parked at left", "parked at right", "granted"}
    for parked in ("parked at left", "parked at right"):
        assert outcomes(shots, parked) == expected(shots, scope=False, natively=False)
    assert outcomes(shots, "granted") == expected(shots, scope=True, natively=False)


class Many(Desk):
    """Publishes in a row, through the fast path, which yields once in 1,000."""

    def __init__(self) -> None:
        super().__init__(queue_size=5000, max_batch=5000)

    def look(self) -> object:
        return len(self.returned)

    async def publish(self) -> None:
        for number in range(2100):
            await self._publish(number)


async def test_the_checkpoints_of_the_fast_path() -> None:
    """A publish that is cancelled when it gives others a turn has delivered nothing."""
    shots = await cancel_at_every_step(Many, least=6)
    # The first is one behind the lot that it goes with; nothing else in 2,100 publishes yields.
    seen = [number for number in {shot.seen: None for shot in shots} if isinstance(number, int)]
    assert seen == pytest.approx([0, 1000, 2000, 2100], rel=0.01)
    for number in seen[1:-1]:
        assert outcomes(shots, number) == expected(shots, scope=False, natively=False)


class Lot(Desk):
    """One `pub_events`: cancelled, a prefix was delivered, the same to both handlers."""

    async def publish(self) -> None:
        self.published.append(0)
        await self.engine.pub_events([Both(number) for number in range(4)])
        self.returned.append(0)

    async def check(self, target: Target) -> None:
        got = self.got["left"]
        assert got == self.got["right"] == list(range(len(got)))
        assert not self.returned or len(got) == 4
        report = self.engine.report
        assert report is not None
        assert report.accepted == report.handled == 2 * len(got)


async def test_the_middle_of_pub_events() -> None:
    shots = await cancel_at_every_step(Lot, least=12)
    assert {shot.seen for shot in shots} >= {"parked at left", "granted"}
    assert {shot.has_returned for shot in shots} == {True, False}


class Start(Event[None]):
    pass


class Inside(Desk):
    """The publish is made by user code that the engine runs; what cancels it is a scope in there."""

    def __init__(self, place: str) -> None:
        super().__init__(full=(Left, Right))
        self.place = place
        self.filled = anyio.Event()
        self.target: Target
        self.engine.add_app(Inner(self))

    async def publish_from(self, place: str) -> None:
        if place == self.place:
            await self.filled.wait()
            await self.target.live(self.publish)

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        self.target = target
        async with self.engine:
            await self.engine.pub_event(Start())
            await self.fill()
            self.filled.set()
            await self.drive()
            await target.ended.wait()

    async def check(self, target: Target) -> None:
        assert self.got == {"left": self.returned, "right": self.returned}
        report = self.engine.report
        assert report is not None
        assert report.is_clean
        assert report.accepted == report.handled == 2 * len(self.returned) + 4 + 1


class Inner(Application):
    def __init__(self, desk: Inside) -> None:
        super().__init__()
        self.desk = desk

    async def on_start(self, events: list[Start]) -> None:
        await self.desk.publish_from("handler")

    @task
    async def live(self) -> None:
        await self.desk.publish_from("task")

    @schedule(interval=1000, run_at_once=True)
    async def tick(self) -> None:
        await self.desk.publish_from("schedule")


@pytest.mark.parametrize("place", ["handler", "schedule", "task"])
async def test_a_publish_inside_of_user_code(place: str) -> None:
    shots = await cancel_at_every_step(lambda: Inside(place), least=8, among=("scope",))
    assert {shot.seen for shot in shots} == {"", "parked at left", "parked at right", "granted"}
    for parked in ("parked at left", "parked at right"):
        assert outcomes(shots, parked) == expected(shots, scope=False, natively=False)
    assert outcomes(shots, "granted") == expected(shots, scope=True, natively=False)


class Again(Desk):
    """Redelivers two events, one after the other, to the handler that failed with them and is full now."""

    def __init__(self) -> None:
        super().__init__(queue_size=2, max_batch=2)
        self.failed: list[int] = []
        self.filled = anyio.Event()
        self.target: Target

        @self.engine.on_event(Start)
        async def fails(events: list[Start]) -> None:
            self.handled += len(events)
            if not self.failed:
                self.failed = [len(events)]
                raise ValueError("once")
            await self.gates["left"].wait()
            await checkpoint()

        @self.engine.on_event(ExceptionEvent)
        async def redeliver(failures: list[ExceptionEvent]) -> None:
            await self.filled.wait()
            await self.target.live(failures[0].redeliver)

    handled = 0

    async def run(self, target: Target, begin: Callable[[], object]) -> None:
        self.target = target
        await self.engine.pub_events([Start(), Start()])
        async with self.engine:
            while not self.failed:
                await checkpoint()
            for _ in range(2):
                await self.engine.pub_events([Start(), Start()])
                await turns(5)
            self.filled.set()
            await self.drive()
            await target.ended.wait()

    async def check(self, target: Target) -> None:
        assert self.failed == [2]
        again = self.handled - 6
        assert again == 2 if target.has_returned else again in (0, 1)
        report = self.engine.report
        assert report is not None
        assert report.abandoned == 0
        # The two at first, four that fill the lane, the ExceptionEvent, and those that were delivered again.
        assert (report.accepted, report.failed) == (7 + again, 2)


async def test_a_redelivery() -> None:
    shots = await cancel_at_every_step(Again, least=4, among=("scope",))
    assert {shot.seen for shot in shots} >= {"parked at fails", "granted"}
    assert {shot.has_returned for shot in shots} == {True, False}

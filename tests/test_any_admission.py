"""The part that decides (lanes, room, grants) without anything that runs keeps the promises in any order of calls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any, TypeVar

import anyio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import machine_test, run_machine
from records import keep

from event_flow import BacklogExceeded, EngineClosed, Event
from event_flow.core.bus import Bus
from event_flow.core.lane import Lane
from event_flow.core.origin import Kind, Origin, current_origin
from event_flow.core.publishing import Publisher
from event_flow.core.room import Waiter

T = TypeVar("T")

CLASSES: list[type[Event[int]]] = [type(f"Class{number}", (Event,), {}) for number in range(3)]


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, but may give turns to others."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as done:
            result: T = done.value
            return result


class LaneModel:
    """A lane as a list: what was delivered to it, in order, and how far the handler has come."""

    def __init__(self, lane: Lane, wants: frozenset[type[Event[int]]]) -> None:
        self.lane = lane
        self.wants = wants
        self.delivered: list[Event[int]] = []
        self.taken = 0
        self.call: Origin | None = None
        self.passed = 0  # at most so many events went over the limit

    @property
    def queued(self) -> int:
        return len(self.delivered) - self.taken


class Admission(RuleBasedStateMachine):
    """The bus and its lanes, with the tests as workers and publishers; a list is the model of each lane.

    A publish that waits is held as its `Waiter`: parked, granted (it was notified and has a place in each of its lanes),
    or refused. Publishes come from outside, or from the live call of a handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus(max_backlog=0)
        self.lanes: list[LaneModel] = []
        self.parked: list[Waiter] = []
        self.notified: list[Waiter] = []
        self.is_draining = False

    @initialize(
        lanes=st.lists(
            st.tuples(
                st.frozensets(st.sampled_from(CLASSES), min_size=1),
                st.integers(1, 3),
                st.integers(1, 4),
            ),
            min_size=1,
            max_size=3,
        ),
        max_backlog=st.sampled_from([0, 2, 1000]),
    )
    def build(self, lanes: list[tuple[frozenset[type[Event[int]]], int, int]], max_backlog: int) -> None:
        self.bus = Bus(max_backlog=max_backlog)
        for number, (wants, queue_size, max_batch) in enumerate(lanes):
            lane = Lane(f"lane{number}", "app", queue_size=queue_size, max_batch=max_batch)
            self.bus.router.add(lane, wants)
            self.lanes.append(LaneModel(lane, wants))
        self.bus.thread = get_ident()
        self.bus.open()
        self.publisher = Publisher()
        self.publisher._filters = []
        self.publisher._use_bus(self.bus)

    # -- publishing --------------------------------------------------------------------------------------------

    @rule(
        event_class=st.sampled_from(CLASSES), who=st.integers(-1, 2), how=st.sampled_from(["nowait", "fast"])
    )
    def publish_now(self, event_class: type[Event[int]], who: int, how: str) -> None:
        """`pub_event_nowait`, or a `pub_event` that is given up as soon as it waits: they agree with the model."""
        event, origin = event_class(0), self._origin(who)
        expected = self._predict(event, origin)
        outcome = self._outcome(self._publish_now, event, origin, how)
        keep(5, outcome == expected, f"a publish {outcome}, and should have {expected}")
        if expected == "made":
            self._note_delivery(event, origin)

    def _publish_now(self, event: Event[int], origin: Origin | None, how: str) -> str:
        token = current_origin.set(origin)
        try:
            if how == "nowait":
                self.publisher.pub_event_nowait(event)
                return "made"
            publish = self.publisher.pub_event(event)
            publish.send(None)
        except (StopIteration, anyio.WouldBlock) as exc:
            return "waits" if isinstance(exc, anyio.WouldBlock) else "made"
        finally:
            current_origin.reset(token)
        publish.close()  # it waits for room: cancelled there
        return "waits"

    @rule(event_class=st.sampled_from(CLASSES), who=st.integers(-1, 2), times=st.integers(1, 4))
    def publish(self, event_class: type[Event[int]], who: int, times: int) -> None:
        for _ in range(times):
            self._publish(event_class(0), self._origin(who))

    def _publish(self, event: Event[int], origin: Origin | None) -> None:
        expected = self._predict(event, origin)

        def admit() -> str:
            waiter = self.bus.admit(event, origin)
            if waiter is None:
                return "made"
            waiter.notify = lambda: self._notify(waiter)
            self.parked.append(waiter)
            return "waits"

        outcome = self._outcome(admit)
        keep(5, outcome == expected, f"a publish {outcome}, and should have {expected}")
        if expected == "made":
            self._note_delivery(event, origin)

    @staticmethod
    def _outcome(publish: Callable[..., str], *args: Any) -> str:
        try:
            return publish(*args)
        except BacklogExceeded:
            return "backlog"
        except EngineClosed:
            return "closed"

    def _predict(self, event: Event[int], origin: Origin | None) -> str:
        own = self._lane_of(origin)
        if self.is_draining and own is None:
            return "closed"
        for model in self._lanes_of(event):
            full = self._room(model) <= 0 or any(waiter.parked_at is model.lane for waiter in self.parked)
            if full and not (own and own in self._waited_for_by(model)):
                return "waits"
            if full and -self._room(model) >= self.bus.room.max_backlog:
                return "backlog"
        return "made"

    def _notify(self, waiter: Waiter) -> None:
        self.parked.remove(waiter)  # fails if it is notified twice
        self.notified.append(waiter)

    @precondition(lambda self: self.notified)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        """A publish that was notified gets its turn: it delivers, or raises what refused it."""
        waiter = data.draw(st.sampled_from(self.notified))
        self._wake(waiter)

    def _wake(self, waiter: Waiter) -> None:
        may_publish = not self.is_draining or self._lane_of(waiter.origin) is not None
        was_granted = waiter.granted
        self.notified.remove(waiter)

        def complete() -> str:
            self.bus.complete(waiter)
            return "made"

        outcome = self._outcome(complete)
        if was_granted:
            assert outcome == ("made" if may_publish else "closed")
        else:
            assert outcome in ("backlog", "closed")
        if outcome == "made":
            self._note_delivery(waiter.event, waiter.origin)

    @precondition(lambda self: self.notified or self.parked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A publish is cancelled while it is parked, or after it was granted and before its turn."""
        waiter = data.draw(st.sampled_from([*self.notified, *self.parked]))
        (self.parked if waiter in self.parked else self.notified).remove(waiter)
        with self._arrival_is_kept():
            self.bus.room.withdraw(waiter)

    # -- handling ----------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 2))
    def work(self, number: int) -> None:
        """A worker goes on: to its next batch, or to the end of its call. What that left behind is outside from now on."""
        model = self.lanes[number % len(self.lanes)]
        if not self._take(model):
            self._finish(model)

    @rule(number=st.integers(0, 2))
    def wait(self, number: int) -> None:
        """A worker finds nothing to do."""
        model = self.lanes[number % len(self.lanes)]
        if model.call is None and not model.queued:
            model.lane.arrival = anyio.Event()

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        self._take(self.lanes[number % len(self.lanes)])

    def _take(self, model: LaneModel) -> bool:
        lane = model.lane
        if model.call is not None or not model.queued:
            return False
        batch = at_once(lane.next_batch())
        assert batch is not None
        assert 1 <= len(batch) <= lane.max_batch
        expected = model.delivered[model.taken : model.taken + len(batch)]
        keep(1, batch == expected, f"{lane.name} got {batch} instead of {expected}")
        model.taken += len(batch)
        with self._arrival_is_kept():
            if lane.waiters:
                self.bus.room.grant(lane)
        assert lane.running == len(batch)
        model.call = Origin(self.bus, Kind.CALL, lane)
        return True

    def _finish(self, model: LaneModel) -> bool:
        if model.call is None:
            return False
        model.lane.handled += model.lane.running
        model.call.end()
        model.call = None
        model.lane.running = 0
        self.bus.activity.rest(model.lane)
        return True

    @precondition(lambda self: not self.is_draining)
    @rule(often=st.integers(0, 9))
    def stop(self, often: int) -> None:
        if often:
            return  # most runs go on
        self.is_draining = True
        outside = [waiter for waiter in self.parked if self._lane_of(waiter.origin) is None]
        self.bus.refuse_outsiders()
        assert all(isinstance(waiter.error, EngineClosed) for waiter in outside)
        assert not set(outside) & set(self.parked)

    # -- the model ---------------------------------------------------------------------------------------------

    def _origin(self, who: int) -> Origin | None:
        return self.lanes[who % len(self.lanes)].call if who >= 0 else None

    def _lane_of(self, origin: Origin | None) -> LaneModel | None:
        if origin is None or not origin.live:
            return None
        return next(model for model in self.lanes if model.lane is origin.lane)

    def _lanes_of(self, event: Event[int]) -> list[LaneModel]:
        return [model for model in self.lanes if type(event) in model.wants]

    def _note_delivery(self, event: Event[int], origin: Origin | None) -> None:
        for model in self._lanes_of(event):
            model.delivered.append(event)
            model.passed += origin is not None

    def _granted(self, model: LaneModel) -> int:
        return sum(waiter.granted and model.lane in waiter.lanes for waiter in self.notified)

    def _room(self, model: LaneModel) -> int:
        return model.lane.queue_size - model.queued - self._granted(model)

    def _waited_for_by(self, start: LaneModel) -> list[LaneModel]:
        """`start`, and every lane that it waits for, over however many others."""
        edges = [
            (
                self._lane_of(waiter.origin),
                next(model for model in self.lanes if model.lane is waiter.parked_at),
            )
            for waiter in self.parked
        ]
        reached = [start]
        for lane in reached:
            reached += {after for before, after in edges if before is lane} - set(reached)
        return reached

    class _Arrival:
        """Who waits at one lane for one lane only is granted in order of arrival: whoever is left came later."""

        def __init__(self, machine: Admission) -> None:
            self.machine = machine

        def __enter__(self) -> None:
            self.before = [
                [waiter for waiter in model.lane.waiters if len(waiter.lanes) == 1]
                for model in self.machine.lanes
            ]

        def __exit__(self, *_: object) -> None:
            for queue in self.before:
                notified = [waiter in self.machine.notified for waiter in queue]
                keep(1, notified == sorted(notified, reverse=True), "who came later was granted first")

    def _arrival_is_kept(self) -> _Arrival:
        return self._Arrival(self)

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def numbers_are_those_of_the_model(self) -> None:
        for model in self.lanes:
            lane = model.lane
            keep(4, lane.queued == model.queued, f"{lane} has {model.queued} events queued")
            keep(5, lane.reserved == self._granted(model), f"{lane} has {lane.reserved} places reserved")
            assert lane.room == self._room(model)
            keep(4, lane.accepted == len(model.delivered), f"{lane} was handed {len(model.delivered)} events")
            assert lane.busy == bool(model.queued or model.call or lane.reserved)
            keep(3, not (lane.arrival and lane.queued), f"the worker of {lane} was not woken")
            assert lane.waiters.keys() == {waiter for waiter in self.parked if waiter.parked_at is lane}
        assert self.bus.activity.busy_lanes == sum(model.lane.busy for model in self.lanes)

    @invariant()
    def nobody_waits_where_there_is_room(self) -> None:
        """One grant for each place: not fewer."""
        waiting = [model.lane for model in self.lanes if model.lane.waiters and self._room(model) > 0]
        keep(3, not waiting, f"there is room in {waiting}, and publishes wait")

    @invariant()
    def lanes_are_bounded(self) -> None:
        """One grant for each place: not more. Only who publishes from a handler may pass, and each of those is counted."""
        for model in self.lanes:
            inside = sum(waiter.origin is not None and model.lane in waiter.lanes for waiter in self.notified)
            over = model.queued - model.lane.queue_size
            keep(
                2,
                -self._room(model) <= model.passed + inside,
                f"{model.lane} has {-self._room(model)} too many",
            )
            counted = over <= model.lane.over_limit <= model.passed + inside
            keep(2, counted, f"{model.lane} counts {model.lane.over_limit} over its limit, and has {over}")

    @invariant()
    def the_allowance_promises_no_more_than_there_is(self) -> None:
        for model in self.lanes:
            lane = model.lane
            if lane.allowance > len(lane.open):
                assert lane.open
                assert not lane.waiters
                assert not self.is_draining
                keep(
                    2, lane.allowance - len(lane.open) <= self._room(model), f"{lane} allows {lane.allowance}"
                )
                keep(2, lane.allowance <= lane.max_batch, f"{lane} allows {lane.allowance} in a batch")

    @invariant()
    def no_circle_of_waits(self) -> None:
        for waiter in self.parked:
            own = self._lane_of(waiter.origin)
            if own is not None:
                at = next(model for model in self.lanes if model.lane is waiter.parked_at)
                keep(3, own not in self._waited_for_by(at), f"{own.lane} waits for itself")

    def teardown(self) -> None:
        """Handlers that go on as long as they can come to an end, and then nothing waits; what is queued is abandoned."""
        try:
            self._go_on()
            keep(3, not self.parked, f"{len(self.parked)} publishes wait for ever")
            for model in self.lanes:
                keep(
                    4, model.lane.handled == len(model.delivered), f"{model.lane} has not handled all it got"
                )
        finally:
            self.bus.close()

    def _go_on(self) -> None:
        """Calls end once none of their publishes waits."""
        progress = True
        while progress:
            progress = bool(self.notified)
            for waiter in list(self.notified):
                self._wake(waiter)
            for model in self.lanes:
                waits = any(waiter.origin is model.call for waiter in [*self.parked, *self.notified])
                progress |= self._take(model) or (not waits and self._finish(model))


@machine_test
def test_any_order_of_admissions_keeps_the_promises() -> None:
    """*Design promises 1 to 5*. In a loop, because a lane is made in one; nothing in here waits, so any will do."""

    async def in_loop() -> None:
        run_machine(Admission, steps=50)

    anyio.run(in_loop, backend_options={"debug": False})

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

from event_flow import BacklogExceeded, EngineClosed, Event, LaneFull
from event_flow.core.attempt import Attempt
from event_flow.core.bus import Bus
from event_flow.core.gate import GatedLane
from event_flow.core.handler_options import Overflow
from event_flow.core.keyed import KeyedLane
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


class CallModel:
    """A call of a handler at work."""

    def __init__(self, origin: Origin, events: list[Event[int]], attempt: Attempt | None) -> None:
        self.origin = origin
        self.events = events
        self.attempt = attempt


class LaneModel:
    """A lane as lists: what is queued, what was put back, and what is at work."""

    def __init__(self, lane: Lane, wants: frozenset[type[Event[int]]], workers: int) -> None:
        self.lane = lane
        self.wants = wants
        self.workers = workers
        self.untried: list[Event[int]] = []
        self.returned: list[tuple[list[Event[int]], Attempt]] = []  # the last one comes first
        self.calls: list[CallModel] = []
        self.is_paused = False
        self.arrived = 0
        self.dropped = 0
        self.handled = 0
        self.passed = 0  # at most so many events went over the limit

    @property
    def returned_events(self) -> int:
        return sum(len(events) for events, _ in self.returned)

    @property
    def queued(self) -> int:
        return len(self.untried) + self.returned_events

    @property
    def may_take(self) -> bool:
        """A worker is free, and there is something for it."""
        free = 1 if isinstance(self.lane, KeyedLane) else self.workers  # all events are of one key
        return self.queued > 0 and not self.is_paused and len(self.calls) < free

    def put(self, event: Event[int]) -> None:
        self.arrived += 1
        is_full = self.queued >= self.lane.queue_size
        if self.lane.overflow == "latest" and self.untried:
            self.untried[0] = event
            self.dropped += 1
        elif not (self.lane.drops and is_full):
            self.untried.append(event)
        else:
            self.dropped += 1
            if self.lane.overflow != "drop_newest" and self.untried:
                self.untried = [*self.untried[1:], event]


def new_lane(
    name: str, workers: int, *, queue_size: int, max_batch: int, overflow: Overflow, is_gated: bool
) -> Lane:
    sizes: dict[str, Any] = {"queue_size": queue_size, "max_batch": max_batch, "overflow": overflow}
    if overflow == "latest":
        return KeyedLane(name, "app", key=lambda _: None, in_order=workers == 1, **sizes)
    if is_gated:
        return GatedLane(name, "app", in_order=workers == 1, **sizes)
    return Lane(name, "app", **sizes)


class Admission(RuleBasedStateMachine):
    """The bus and its lanes of all kinds, with the tests as workers and publishers; lists are the model of each lane.

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
            st.fixed_dictionaries(
                {
                    "wants": st.frozensets(st.sampled_from(CLASSES), min_size=1),
                    "queue_size": st.integers(1, 3),
                    "max_batch": st.integers(1, 4),
                    "workers": st.integers(1, 2),
                    "overflow": st.sampled_from(["wait", "error", "drop_oldest", "drop_newest", "latest"]),
                    "is_gated": st.booleans(),
                }
            ),
            min_size=1,
            max_size=3,
        ),
        max_backlog=st.sampled_from([0, 2, 1000]),
        all_wait=st.booleans(),  # circles of waits need several such lanes
    )
    def build(self, lanes: list[dict[str, Any]], max_backlog: int, all_wait: bool) -> None:
        self.bus = Bus(max_backlog=max_backlog)
        for number, options in enumerate(lanes):
            wants, workers = options.pop("wants"), options.pop("workers")
            if all_wait:
                options["overflow"] = "wait"
            lane = new_lane(f"lane{number}", workers, **options)
            self.bus.router.add(lane, wants)
            self.lanes.append(LaneModel(lane, wants, workers))
        self.bus.thread = get_ident()
        self.bus.open()
        self.publisher = Publisher()
        self.publisher._filters = []
        self.publisher._use_bus(self.bus)

    # -- publishing --------------------------------------------------------------------------------------------

    @rule(
        event_class=st.sampled_from(CLASSES),
        who=st.integers(-1, 5),
        how=st.sampled_from(["nowait", "fast", "many"]),
        times=st.integers(1, 4),
    )
    def publish_now(self, event_class: type[Event[int]], who: int, how: str, times: int) -> None:
        """What does not wait, or is given up as soon as it waits: it agrees with the model."""
        events, origin = [event_class(0) for _ in range(times if how == "many" else 1)], self._origin(who)
        expected = "made"
        for event in events:
            if expected == "made":
                expected = self._predict(event, origin)
                if expected == "made":
                    self._note_delivery(event, origin)
        outcome = self._outcome(self._publish_now, events, origin, how)
        keep(5, outcome == expected, f"a publish {outcome}, and should have {expected}")

    def _publish_now(self, events: list[Event[int]], origin: Origin | None, how: str) -> str:
        token = current_origin.set(origin)
        try:
            if how == "nowait":
                self.publisher.pub_event_nowait(events[0])
                return "made"
            publish = (
                self.publisher.pub_events(events) if how == "many" else self.publisher.pub_event(events[0])
            )
            publish.send(None)
        except (StopIteration, anyio.WouldBlock) as exc:
            return "waits" if isinstance(exc, anyio.WouldBlock) else "made"
        finally:
            current_origin.reset(token)
        publish.close()  # it waits for room: cancelled there
        return "waits"

    @rule(event_class=st.sampled_from(CLASSES), who=st.integers(-1, 5), times=st.integers(1, 4))
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
        except LaneFull:
            return "full"
        except EngineClosed:
            return "closed"

    def _predict(self, event: Event[int], origin: Origin | None) -> str:
        own = self._lane_of(origin)
        if self.is_draining and own is None:
            return "closed"
        if any(model.lane.overflow == "error" and self._room(model) <= 0 for model in self._lanes_of(event)):
            return "full"
        for model in self._lanes_of(event):
            if model.lane.overflow != "wait":
                continue
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
            assert outcome in ("backlog", "closed", "full")
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
        if len(model.calls) < model.workers and not model.may_take:
            if model.is_paused or isinstance(model.lane, GatedLane):
                model.lane.change = anyio.Event()
            else:
                model.lane.arrival = anyio.Event()

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        self._take(self.lanes[number % len(self.lanes)])

    def _take(self, model: LaneModel) -> bool:
        lane = model.lane
        if not model.may_take:
            return False
        attempt = at_once(lane.next_attempt()) if isinstance(lane, GatedLane) else None
        batch = at_once(lane.next_batch()) if attempt is None else attempt.events
        assert batch is not None
        assert 1 <= len(batch) <= lane.max_batch
        if model.returned:
            expected, again = model.returned.pop()
            assert attempt is again
        else:
            expected, model.untried = model.untried[: len(batch)], model.untried[len(batch) :]
        keep(1, batch == expected, f"{lane.name} got {batch} instead of {expected}")
        model.calls.append(CallModel(Origin(self.bus, Kind.CALL, lane), expected, attempt))
        with self._arrival_is_kept():
            if lane.waiters:
                self.bus.room.grant(lane)
        return True

    @rule(number=st.integers(0, 2), which=st.integers(0, 1), failed=st.integers(0, 4))
    def finish(self, number: int, which: int, failed: int) -> None:
        """A call ends, and the last of its events are put back for another attempt."""
        self._finish(self.lanes[number % len(self.lanes)], which, failed)

    def _finish(self, model: LaneModel, which: int = 0, failed: int = 0) -> bool:
        lane = model.lane
        if not model.calls:
            return False
        call = model.calls.pop(which % len(model.calls))
        again: list[Event[int]] = []
        if call.attempt is not None and isinstance(lane, GatedLane):
            again = call.events[max(len(call.events) - failed, 0) :]
            if again:
                following = call.attempt.again(again)
                model.returned.append((again[:], following))
                lane.put_back(following)
            lane.release(call.attempt)
        model.handled += len(call.events) - len(again)
        lane.handled = model.handled
        call.origin.end()
        lane.running -= len(call.events)
        self.bus.activity.rest(lane)
        return True

    @rule(number=st.integers(0, 2), is_paused=st.booleans())
    def pause(self, number: int, is_paused: bool) -> None:
        self._pause(self.lanes[number % len(self.lanes)], is_paused)

    def _pause(self, model: LaneModel, is_paused: bool) -> None:
        model.is_paused = is_paused
        (model.lane.pause if is_paused else model.lane.resume)()

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
        calls = self.lanes[who % len(self.lanes)].calls if who >= 0 else []
        return calls[who // len(self.lanes) % len(calls)].origin if calls else None

    def _lane_of(self, origin: Origin | None) -> LaneModel | None:
        if origin is None or not origin.live:
            return None
        return next(model for model in self.lanes if model.lane is origin.lane)

    def _lanes_of(self, event: Event[int]) -> list[LaneModel]:
        return [model for model in self.lanes if type(event) in model.wants]

    def _note_delivery(self, event: Event[int], origin: Origin | None) -> None:
        for model in self._lanes_of(event):
            model.put(event)
            model.passed += origin is not None

    def _granted(self, model: LaneModel) -> int:
        """A lane that drops something has a place in any case: none is reserved."""
        if model.lane.drops:
            return 0
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
            keep(4, lane.accepted == model.arrived, f"{lane} was handed {model.arrived} events")
            keep(4, lane.dropped == model.dropped, f"{lane} has dropped {model.dropped} events")
            assert lane.running == sum(len(call.events) for call in model.calls)
            assert lane.busy == bool(model.queued or model.calls or lane.reserved)
            is_told = not (lane.arrival and lane.queued) and not (lane.change and model.may_take)
            keep(3, is_told, f"the worker of {lane} was not woken")
            assert not (lane.drops and lane.waiters)
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
            over = model.queued - model.lane.queue_size - model.returned_events
            keep(
                2,
                -self._room(model) <= model.passed + inside + model.returned_events,
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
            for model in self.lanes:
                self._pause(model, is_paused=False)
            self._go_on()
            keep(3, not self.parked, f"{len(self.parked)} publishes wait for ever")
            for model in self.lanes:
                keep(
                    4,
                    model.handled + model.dropped == model.arrived,
                    f"{model.lane} has not handled all it got",
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
                progress |= self._take(model)
                for number, call in enumerate(model.calls):
                    if not any(waiter.origin is call.origin for waiter in [*self.parked, *self.notified]):
                        progress |= self._finish(model, number)
                        break


@machine_test
def test_any_order_of_admissions_keeps_the_promises() -> None:
    """*Design promises 1 to 5*. In a loop, because a lane is made in one; nothing in here waits, so any will do."""

    async def in_loop() -> None:
        run_machine(Admission, steps=50)

    anyio.run(in_loop, backend_options={"debug": False})

"""The queue of one handler by itself: where batches are cut, what is open, how far a publish may go unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from event_flow import Event
from event_flow.core.handler_options import Overflow
from event_flow.core.lane import YIELD_AFTER, Lane


class A(Event[int]):
    pass


class B(Event[int]):
    pass


@pytest.fixture
async def lanes() -> AsyncIterator[list[Lane]]:
    """Closes what a test puts into it."""
    made: list[Lane] = []
    yield made
    for lane in made:
        lane.close()


def new_lane(
    lanes: list[Lane], *, queue_size: int = 100, max_batch: int = 100, overflow: Overflow = "wait"
) -> Lane:
    lane = Lane("App.on_a", "App", queue_size=queue_size, max_batch=max_batch, overflow=overflow)
    lane.guarded = False
    lanes.append(lane)
    return lane


def put(lane: Lane, *numbers: int) -> list[int]:
    return [lane.put(A(number)) for number in numbers]


async def take(lane: Lane) -> list[int]:
    with anyio.fail_after(5):
        batch = await lane.next_batch()
    assert batch is not None
    return [event.data for event in batch]


async def test_batches_are_cut_at_max_batch_and_taken_oldest_first(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, max_batch=3)
    put(lane, *range(8))
    assert [await take(lane) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert (lane.batches, lane.largest_batch, lane.queued) == (3, 3, 0)


@pytest.mark.parametrize("max_batch", [1, 2, 5])
async def test_a_batch_never_grows_after_it_was_taken(lanes: list[Lane], max_batch: int) -> None:
    lane = new_lane(lanes, max_batch=max_batch)
    put(lane, 0)
    assert await take(lane) == [0]
    assert lane.allowance == 0  # so nobody appends to what the handler has
    put(lane, 1)
    assert await take(lane) == [1]


async def test_the_last_batch_stays_open_until_it_is_taken(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, max_batch=4)
    put(lane, 0, 1)
    open_batch = lane.open
    put(lane, 2)
    assert lane.open is open_batch
    put(lane, 3, 4)
    assert lane.open is not open_batch
    assert await take(lane) == [0, 1, 2, 3]
    put(lane, 5)  # the batch behind it is still open
    assert await take(lane) == [4, 5]


async def test_an_idle_worker_gets_an_event_at_once_and_what_came_meanwhile(lanes: list[Lane]) -> None:
    lane = new_lane(lanes)
    taken: list[list[int]] = []

    async def work() -> None:
        taken.append(await take(lane))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        put(lane, 0, 1)
    assert taken == [[0, 1]]


@pytest.mark.parametrize(
    ("queue_size", "max_batch", "allowance"),
    [
        pytest.param(10, 100, 10, id="room"),
        pytest.param(100, 10, 10, id="max_batch"),
        pytest.param(10_000, 10_000, 1 + YIELD_AFTER, id="a turn for others"),
        pytest.param(1, 1, 0, id="full"),
    ],
)
async def test_the_allowance_ends_where_somebody_has_to_look(
    lanes: list[Lane], queue_size: int, max_batch: int, allowance: int
) -> None:
    """*Design D2*."""
    lane = new_lane(lanes, queue_size=queue_size, max_batch=max_batch)
    assert lane.allowance == 0  # empty
    put(lane, 0)
    assert lane.allowance == allowance


async def test_a_granted_place_is_no_room_for_others(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, queue_size=3)
    lane.reserved = 1
    assert put(lane, 0) == [1]
    assert lane.allowance == 2
    assert put(lane, 1) == [0]
    assert lane.allowance == 0


async def test_a_guarded_lane_allows_nothing_however_much_room_it_has(lanes: list[Lane]) -> None:
    lane = new_lane(lanes)
    put(lane, 0)
    assert lane.allowance > 1
    lane.guard()
    assert lane.allowance == 0
    put(lane, 1)
    assert lane.allowance == 0


async def test_room_counts_events_in_closed_and_open_batches_and_goes_below_zero(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, queue_size=4, max_batch=3)
    assert put(lane, *range(6)) == [3, 2, 1, 0, -1, -2]
    assert (lane.queued, lane.room) == (6, -2)
    await take(lane)
    assert (lane.queued, lane.room, lane.running) == (3, 1, 3)


async def test_what_was_appended_to_the_open_batch_counts_as_queued(lanes: list[Lane]) -> None:
    """The fast path appends without telling the lane."""
    lane = new_lane(lanes, queue_size=5)
    put(lane, 0)
    lane.open += [A(1), A(2)]
    assert (lane.queued, lane.room, lane.accepted) == (3, 2, 3)
    assert put(lane, 3) == [1]
    assert await take(lane) == [0, 1, 2, 3]


async def test_closing_abandons_what_is_queued_by_class_once(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, max_batch=2)
    put(lane, 0, 1, 2)
    lane.put(B(3))
    put(lane, 4)
    await take(lane)
    scopes = [anyio.CancelScope(), anyio.CancelScope()]  # of two workers
    lane.scopes += scopes
    for _ in range(2):
        lane.close()
        assert lane.abandoned == {"A": 2, "B": 1}
        assert (lane.queued, lane.running, lane.accepted) == (0, 2, 5)
    assert all(scope.cancel_called for scope in scopes)


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_a_closed_lane_has_no_batch(lanes: list[Lane], is_waiting: bool) -> None:
    lane = new_lane(lanes)
    batches: list[object] = []
    scope = anyio.CancelScope()
    lane.scopes.append(scope)

    async def work() -> None:
        with scope:
            batches.append(await lane.next_batch())

    async with anyio.create_task_group() as group:
        if is_waiting:
            group.start_soon(work)
            await anyio.wait_all_tasks_blocked()
        put(lane, 0)
        lane.close()
        if not is_waiting:
            group.start_soon(work)
    assert batches in ([], [None])
    assert lane.abandoned == {"A": 1}


async def test_a_cancelled_worker_has_taken_nothing(lanes: list[Lane]) -> None:
    """*Design promise 4*: nothing is lost between the queue and the handler."""
    lane = new_lane(lanes)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lane.next_batch)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            put(lane, 0)
    assert lane.running == 0
    assert await take(lane) == [0]


# -- a part of a batch -----------------------------------------------------------------------------------------------


def part(lane: Lane, most: int) -> list[int]:
    return [event.data for event in lane.take(most)]


def numbers(lane: Lane) -> tuple[int, int, int]:
    return (lane.queued, lane.room, lane.running)


async def test_a_part_of_a_closed_batch_leaves_the_rest_in_front(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, queue_size=10, max_batch=4)
    put(lane, *range(6))
    assert part(lane, 3) == [0, 1, 2]
    assert numbers(lane) == (3, 7, 3)
    put(lane, 6)  # into the open batch, not into the rest
    assert [part(lane, 3), part(lane, 3)] == [[3], [4, 5, 6]]
    assert numbers(lane) == (0, 10, 7)
    assert (lane.batches, lane.largest_batch) == (3, 3)


async def test_the_rest_of_the_open_batch_stays_open(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, queue_size=10, max_batch=4)
    put(lane, *range(3))
    assert part(lane, 2) == [0, 1]
    assert numbers(lane) == (1, 9, 2)
    assert (lane.mark, lane.allowance) == (1, 4)
    lane.open += [A(3), A(4)]  # as publishing does, as far as it is allowed
    put(lane, 5, 6)
    assert [part(lane, 9), part(lane, 9)] == [[2, 3, 4, 5], [6]]
    assert numbers(lane) == (0, 10, 7)
    assert lane.allowance == 0


async def test_what_was_taken_does_not_grow_with_the_rest(lanes: list[Lane]) -> None:
    lane = new_lane(lanes)
    put(lane, 0, 1)
    taken = lane.take(1)
    put(lane, 2)
    assert [event.data for event in taken] == [0]
    assert part(lane, 9) == [1, 2]


async def test_what_is_left_of_a_batch_is_abandoned_with_the_others(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, max_batch=3)
    put(lane, *range(5))
    part(lane, 1)
    lane.close()
    assert lane.abandoned == {"A": 4}
    assert (lane.queued, lane.accepted) == (0, 5)


# -- what a full lane drops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 2, 3, 100])
async def test_a_lane_that_drops_the_oldest_holds_the_newest(lanes: list[Lane], max_batch: int) -> None:
    lane = new_lane(lanes, queue_size=3, max_batch=max_batch, overflow="drop_oldest")
    assert put(lane, *range(8)) == [2, 1, 0, -1, -1, -1, -1, -1]
    assert (lane.dropped, lane.accepted) == (5, 8)
    assert numbers(lane) == (3, 0, 0)
    left: list[int] = []
    while lane.queued:
        left += await take(lane)
    assert left == [5, 6, 7]
    assert numbers(lane) == (0, 3, 3)


@pytest.mark.parametrize("max_batch", [1, 2, 3, 100])
async def test_a_lane_that_drops_the_newest_holds_the_oldest(lanes: list[Lane], max_batch: int) -> None:
    lane = new_lane(lanes, queue_size=3, max_batch=max_batch, overflow="drop_newest")
    assert put(lane, *range(8)) == [2, 1, 0, -1, -1, -1, -1, -1]
    assert (lane.dropped, lane.accepted) == (5, 8)
    left: list[int] = []
    while lane.queued:
        left += await take(lane)
    assert left == [0, 1, 2]


async def test_after_a_drop_the_allowance_ends_where_the_lane_is_full(lanes: list[Lane]) -> None:
    """The open batch is shorter then, and may not grow by what was dropped."""
    lane = new_lane(lanes, queue_size=3, overflow="drop_oldest")
    put(lane, *range(4))
    assert (len(lane.open), lane.allowance, lane.mark) == (3, 0, 3)
    lane = new_lane(lanes, queue_size=4, max_batch=2, overflow="drop_oldest")
    put(lane, *range(5))  # the rest of the first batch, a closed one, an open one
    assert (len(lane.open), lane.allowance) == (1, 0)
    assert await take(lane) == [1]
    assert put(lane, 5) == [0]
    assert (len(lane.open), lane.allowance) == (2, 0)
    assert [await take(lane), await take(lane)] == [[2, 3], [4, 5]]


async def test_a_lane_over_its_limit_drops_one_event_for_each_that_comes(lanes: list[Lane]) -> None:
    """*Regression*: it dropped one after the other until it had room, each in a call of its own, and ran out of stack."""
    lane = new_lane(lanes, queue_size=1000, max_batch=1000, overflow="drop_oldest")
    put(lane, *range(1000))
    lane.held += 2000  # queued for another attempt
    assert put(lane, 1000) == [-1]
    assert (lane.dropped, lane.room) == (1, -2000)
    lane.held -= 2000
    assert (await take(lane))[0] == 1


async def test_a_lane_that_drops_has_nothing_to_drop_but_what_was_not_tried(lanes: list[Lane]) -> None:
    lane = new_lane(lanes, queue_size=2, overflow="drop_oldest")
    lane.held += 2  # queued for another attempt
    assert put(lane, 0) == [-1]
    assert (lane.dropped, lane.queued) == (1, 2)
    lane.held -= 2


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_a_worker_that_waits_is_told_by_the_lane_that_drops(
    lanes: list[Lane], overflow: Overflow
) -> None:
    lane = new_lane(lanes, queue_size=1, overflow=overflow)
    taken: list[list[int]] = []

    async def work() -> None:
        taken.append(await take(lane))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        put(lane, 0, 1)
    assert taken == [[1 if overflow == "drop_oldest" else 0]]


# -- paused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comes_first", ["pause", "event"])
async def test_a_paused_lane_gives_nothing_until_it_is_resumed(lanes: list[Lane], comes_first: str) -> None:
    lane = new_lane(lanes)
    taken: list[list[int]] = []

    async def work() -> None:
        taken.append(await take(lane))

    if comes_first == "event":
        lane.pause()
        put(lane, 0)
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        if comes_first == "pause":
            lane.pause()
            put(lane, 0)
        await anyio.wait_all_tasks_blocked()
        assert taken == []
        assert lane.queued == 1
        lane.resume()
    assert taken == [[0]]


async def test_a_lane_that_is_resumed_with_nothing_queued_waits_for_an_event(lanes: list[Lane]) -> None:
    lane = new_lane(lanes)
    lane.pause()
    taken: list[list[int]] = []

    async def work() -> None:
        taken.append(await take(lane))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        lane.resume()
        await anyio.wait_all_tasks_blocked()
        put(lane, 0)
    assert taken == [[0]]

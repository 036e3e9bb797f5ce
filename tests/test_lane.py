"""The queue of one handler by itself: where batches are cut, what is open, how far a publish may go unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from event_flow import Event
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


def new_lane(lanes: list[Lane], *, queue_size: int = 100, max_batch: int = 100) -> Lane:
    lane = Lane("App.on_a", "App", queue_size=queue_size, max_batch=max_batch)
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

"""The queue of one handler: a memory object stream of batches, and the numbers that admit events to it.

    publish ──append──▶ [open batch] … [batch] [batch] ──take──▶ handler

The last batch in the queue stays open, and publishing into it is one comparison with `allowance` and one append. A worker
that takes the open batch closes it. The allowance is 0 whenever a publish must be looked at: while the lane is empty,
while publishes wait for it, and while the engine takes none from outside. What a full lane does is its `overflow`.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow.core.event import Event

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from event_flow.core.handler_options import Overflow
    from event_flow.core.room import Waiter

Events = list[Event[Any]]

# Events that are published in a row before other tasks get a turn: a handler's time for as many is far below what
# anyone notices, and a turn costs less than a hundredth of publishing them.
YIELD_AFTER = 1000


class Lane:
    """The run-time home of one handler of one application, for one run of the engine."""

    __slots__ = (
        "abandoned",
        "allowance",
        "app",
        "arrival",
        "batches",
        "busy",
        "change",
        "dropped",
        "drops",
        "failed",
        "guarded",
        "handled",
        "head",
        "held",
        "is_closed",
        "is_draining",
        "is_paused",
        "largest_batch",
        "mark",
        "max_batch",
        "name",
        "open",
        "over_limit",
        "overflow",
        "queue_size",
        "receive_stream",
        "reserved",
        "retried",
        "running",
        "scopes",
        "send_stream",
        "stride",
        "turn",
        "waiters",
        "waits_for",
    )

    def __init__(
        self, name: str, app: str, *, queue_size: int, max_batch: int, overflow: Overflow = "wait"
    ) -> None:
        self.name: str = name
        self.app: str = app
        self.queue_size: int = queue_size
        self.max_batch: int = max_batch
        self.overflow: Overflow = overflow
        self.drops: bool = overflow not in ("wait", "error")
        # Unbounded in batches: what bounds the lane is the number of events.
        streams = anyio.create_memory_object_stream[Events](math.inf)
        self.send_stream: MemoryObjectSendStream[Events] = streams[0]
        self.receive_stream: MemoryObjectReceiveStream[Events] = streams[1]
        self.scopes: list[CancelScope] = []  # of the workers
        self.turn: anyio.Lock | None = None  # who of several workers waits

        self.arrival: anyio.Event | None = None  # a worker waits for it while nothing is queued
        self.change: anyio.Event | None = None  # a worker waits for it while what is queued may not be taken
        self.head: Events | None = None  # the first batch, where a part of it was taken out
        self.open: Events = []
        self.allowance: int = 0
        self.stride: int = YIELD_AFTER  # most events that the open batch may take on without another look
        self.mark: int = 0  # length of the open batch at the last look
        self.held: int = 0  # events queued elsewhere than in the open batch
        self.reserved: int = 0  # places granted to publishes that have not been delivered yet
        self.guarded: bool = True  # all take the slow path: while the engine does not run, or drains
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()  # publishes parked here, in order of arrival
        # How many publishes of live calls of this lane's handler are parked, by where.
        self.waits_for: Counter[Lane] = Counter()
        self.is_paused: bool = False
        self.is_draining: bool = False
        self.is_closed: bool = False
        self.busy: bool = False  # something is queued, running or reserved

        self.running: int = 0
        self.handled: int = 0
        self.failed: int = 0
        self.dropped: int = 0
        self.abandoned: Counter[str] = Counter()  # by event class
        self.batches: int = 0
        self.largest_batch: int = 0
        self.retried: int = 0
        self.over_limit: int = 0

    @property
    def queued(self) -> int:
        """Events that wait for the handler."""
        return self.held + len(self.open)

    @property
    def room(self) -> int:
        """Events that may come before the lane is full; below 0 over the limit."""
        return self.queue_size - self.held - len(self.open) - self.reserved

    @property
    def takes_more(self) -> bool:
        """Nobody need wait for room in it."""
        return not self.waiters and (self.drops or self.room > 0)

    @property
    def accepted(self) -> int:
        """Deliveries this lane ever took on."""
        ended = self.handled + self.failed + self.dropped + self.abandoned.total()
        return ended + self.running + self.queued

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, event: Event[Any]) -> int:
        """Queue one event, whether there is room or not; return the room that is left.

        Below 0 something is to be told: the lane went over its limit, or, if it `drops`, an event was dropped.
        """
        if self.drops and self.room <= 0:
            self.dropped += 1
            if self.overflow == "drop_oldest" and self._drop_oldest():
                self._queue(event)
            return -1
        return self._queue(event)

    def _queue(self, event: Event[Any]) -> int:
        if 0 < len(self.open) < self.max_batch:
            self.open.append(event)
            return self.renew()
        self.held += len(self.open)
        return self.open_batch(event)

    def open_batch(self, event: Event[Any]) -> int:
        """Queue an event as the first of a batch: `put`, while nothing is queued."""
        self.open = [event]
        self.send_stream.send_nowait(self.open)
        if self.arrival is not None:
            self.arrival.set()
            self.arrival = None
        return self.renew()

    def _drop_oldest(self) -> bool:
        """Take the event out that has been queued longest. False if there is none that was not tried before."""
        if self.head is None:
            try:
                self.head = self.receive_stream.receive_nowait()
            except anyio.WouldBlock:
                return False
        del self.head[0]
        if self.head is self.open:
            self.allowance = 0  # a length that it had before
        else:
            self.held -= 1
        if not self.head:
            self.head = None
        return True

    def renew(self) -> int:
        """Work out how far the open batch may grow without another look; return the room that is left."""
        self.mark = length = len(self.open)
        room = self.queue_size - self.held - length - self.reserved
        if room <= 0 or not length or self.guarded or self.waiters:
            self.allowance = 0
        else:
            most = self.max_batch - length
            if room < most:  # min() takes a few hundredths of the way to an idle handler more
                most = room
            if self.stride < most:
                most = self.stride
            self.allowance = length + most
        return room

    def guard(self) -> None:
        """From now on every publish takes the slow path."""
        self.guarded = True
        self.allowance = 0

    # -- out -------------------------------------------------------------------------------------------------------

    async def next_batch(self) -> Events | None:
        """Wait for a batch and take it, which frees its places; None when the lane is closed.

        Not the stream's own `receive()`: with nothing awaited between leaving the queue and being taken no cancellation can
        come between them, and an idle worker that waits for a bare event is at work a quarter sooner.
        """
        await checkpoint()
        while not (self.open or self.held) or self.is_paused:
            if self.is_closed:
                return None
            if self.is_paused:
                await self.wait_change()
            else:
                self.arrival = arrival = anyio.Event()
                await arrival.wait()
        return self.take(self.max_batch)

    async def next_batch_in_turn(self) -> Events | None:
        """The same for one of several workers: they wait one behind the other."""
        await checkpoint()
        if (self.open or self.held) and not self.is_paused:
            return self.take(self.max_batch)
        assert self.turn is not None
        async with self.turn:
            return await self.next_batch()

    def take(self, most: int) -> Events:
        """Take the first batch, but at most so many events of it; at least one is queued."""
        batch = self.head or self.receive_stream.receive_nowait()
        self.head = None
        length = len(batch)
        if length > most:
            length = most
            batch, self.head = batch[:most], batch
            del self.head[:most]
        if batch is self.open:
            self.open = []
            self.allowance = self.mark = 0
        elif self.head is not None and self.head is self.open:
            self.renew()
        else:
            self.held -= length
        # As `count_call`, which would be one call more on the way of every event to an idle handler.
        self.running += length
        self.batches += 1
        if length > self.largest_batch:
            self.largest_batch = length
        return batch

    def count_call(self, length: int) -> None:
        """So many events go into a call."""
        self.running += length
        self.batches += 1
        if length > self.largest_batch:
            self.largest_batch = length

    async def wait_change(self, deadline: float = math.inf) -> None:
        """Wait until `stir` is called, or for the deadline."""
        self.change = change = anyio.Event()
        if deadline == math.inf:
            await change.wait()
        else:
            with CancelScope(deadline=deadline):
                await change.wait()

    def stir(self) -> None:
        """What is queued may be due by now: have the worker that waits for it look again."""
        if self.change is not None:
            self.change.set()
            self.change = None

    def pause(self) -> None:
        """Let no batch be taken until `resume`."""
        self.is_paused = True

    def resume(self) -> None:
        """Let batches be taken again."""
        self.is_paused = False
        self.stir()

    # -- the end ---------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Nothing more comes from outside: batches wait for no company."""
        self.is_draining = True
        self.stir()

    def abandon(self, events: Iterable[Event[Any]]) -> None:
        """These deliveries will never be made; they are counted by class."""
        self.abandoned.update(type(event).__name__ for event in events)

    def close(self) -> None:
        """Cancel the workers with the calls they make, and abandon what is queued. May be called again."""
        self.guard()
        self.is_closed = True
        for scope in self.scopes:
            scope.cancel()
        self._abandon_queued()
        self.send_stream.close()
        self.receive_stream.close()

    def _abandon_queued(self) -> None:
        while self.queued:
            batch = self.head or self.receive_stream.receive_nowait()
            self.head = None
            self.abandon(batch)
            if batch is self.open:
                self.open = []
            else:
                self.held -= len(batch)

    def __repr__(self) -> str:
        return (
            f"<Lane {self.name}: {self.queued} queued, {self.running} running, {len(self.waiters)} waiting>"
        )

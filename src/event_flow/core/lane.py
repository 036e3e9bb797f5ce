"""The queue of one handler: a memory object stream of batches, and the numbers that admit events to it.

    publish ──append──▶ [open batch] … [batch] [batch] ──take──▶ handler

The last batch in the queue stays open, and publishing into it is one comparison with `allowance` and one append. A worker
that takes the open batch closes it. The allowance is 0 whenever a publish must be looked at: while the lane is empty,
while publishes wait for it, and while the engine takes none from outside.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from event_flow.core.event import Event

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from event_flow.core.room import Waiter

Batch = list[Event[Any]]

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
        "dropped",
        "failed",
        "function",
        "guarded",
        "handled",
        "held",
        "is_closed",
        "largest_batch",
        "mark",
        "max_batch",
        "name",
        "open",
        "over_limit",
        "queue_size",
        "receive_stream",
        "reserved",
        "running",
        "scope",
        "send_stream",
        "stride",
        "waiters",
        "waits_for",
    )

    def __init__(
        self, name: str, app: str, function: Callable[..., Any], *, queue_size: int, max_batch: int
    ) -> None:
        self.name: str = name
        self.app: str = app
        self.function: Callable[..., Any] = function
        self.queue_size: int = queue_size
        self.max_batch: int = max_batch
        # Unbounded in batches: what bounds the lane is the number of events.
        streams = anyio.create_memory_object_stream[Batch](math.inf)
        self.send_stream: MemoryObjectSendStream[Batch] = streams[0]
        self.receive_stream: MemoryObjectReceiveStream[Batch] = streams[1]
        self.scope: CancelScope = CancelScope()

        self.arrival: anyio.Event | None = None  # the worker waits for it while nothing is queued
        self.open: Batch = []
        self.allowance: int = 0
        self.stride: int = YIELD_AFTER  # most events that the open batch may take on without another look
        self.mark: int = 0  # length of the open batch at the last look
        self.held: int = 0  # events queued in closed batches
        self.reserved: int = 0  # places granted to publishes that have not been delivered yet
        self.guarded: bool = True  # all take the slow path: while the engine does not run, or drains
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()  # publishes parked here, in order of arrival
        # How many publishes of the live call of this lane's handler are parked, by where.
        self.waits_for: Counter[Lane] = Counter()
        self.is_closed: bool = False
        self.busy: bool = False  # something is queued, running or reserved

        self.running: int = 0
        self.handled: int = 0
        self.failed: int = 0
        self.dropped: int = 0
        self.abandoned: Counter[str] = Counter()  # by event class
        self.batches: int = 0
        self.largest_batch: int = 0
        self.over_limit: int = 0

    @property
    def queued(self) -> int:
        """Events that wait for the handler."""
        return self.held + len(self.open)

    @property
    def room(self) -> int:
        """Events that may come before publishers wait; below 0 over the limit."""
        return self.queue_size - self.held - len(self.open) - self.reserved

    @property
    def accepted(self) -> int:
        """Deliveries this lane ever took on."""
        ended = self.handled + self.failed + self.dropped + self.abandoned.total()
        return ended + self.running + self.queued

    def put(self, event: Event[Any]) -> int:
        """Queue one event, whether there is room or not; return the room that is left, below 0 over the limit."""
        if 0 < len(self.open) < self.max_batch:
            self.open.append(event)
        else:
            self.held += len(self.open)
            self.open = [event]
            self.send_stream.send_nowait(self.open)
            if self.arrival is not None:
                self.arrival.set()
                self.arrival = None
        return self.renew()

    def renew(self) -> int:
        """Work out how far the open batch may grow without another look; return the room that is left."""
        self.mark = length = len(self.open)
        room = self.queue_size - self.held - length - self.reserved
        if room <= 0 or not length or self.guarded or self.waiters:
            self.allowance = 0
        else:
            self.allowance = length + min(self.max_batch - length, room, self.stride)
        return room

    def guard(self) -> None:
        """From now on every publish takes the slow path."""
        self.guarded = True
        self.allowance = 0

    async def next_batch(self) -> Batch | None:
        """Wait for a batch and take it, which frees its places; None when the lane is closed.

        Not the stream's own `receive()`: with nothing awaited between leaving the queue and being taken no cancellation can
        come between them, and an idle worker that waits for a bare event is at work a quarter sooner.
        """
        await checkpoint()
        if not self.queued:
            self.arrival = arrival = anyio.Event()
            await arrival.wait()
        if self.is_closed:
            return None
        batch = self.receive_stream.receive_nowait()
        if batch is self.open:
            self.open = []
            self.allowance = self.mark = 0
        else:
            self.held -= len(batch)
        self.running = length = len(batch)
        self.batches += 1
        if length > self.largest_batch:
            self.largest_batch = length
        return batch

    def abandon(self, events: Iterable[Event[Any]]) -> None:
        """These deliveries will never be made; they are counted by class."""
        self.abandoned.update(type(event).__name__ for event in events)

    def close(self) -> None:
        """Cancel the worker with the handler it runs, and abandon what is queued. May be called again."""
        self.guard()
        self.is_closed = True
        self.scope.cancel()
        while self.queued:
            batch = self.receive_stream.receive_nowait()
            self.abandon(batch)
            if batch is self.open:
                self.open = []
            else:
                self.held -= len(batch)
        self.send_stream.close()
        self.receive_stream.close()

    def __repr__(self) -> str:
        return (
            f"<Lane {self.name}: {self.queued} queued, {self.running} running, {len(self.waiters)} waiting>"
        )

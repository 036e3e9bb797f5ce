"""A lane whose batches hold events of one key: equal keys in order and never at once, different keys side by side.

    put ──▶ [key a: events …]  ──ready──▶ handler      a key that is at work, or waits for another attempt,
            [key b: events …]                          lines up again when it is done

Every key that has events queued waits in one place: in `ready`, where those who came first are served first, or until a
moment of its own, for company or for its next attempt. A key with nothing queued and nothing at work is forgotten, so
quiet keys cost nothing; and since a key lines up at the end again, a busy one keeps no worker from the others.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from event_flow.core.attempt import Attempt, Returned
from event_flow.core.event import Event
from event_flow.core.gate import GatedLane
from event_flow.core.lane import Events

if TYPE_CHECKING:
    from event_flow.core.batch import ClosedBy


class KeyFailure:
    """What stands for the key of an event that `key` has failed for. It is like no other, and the handler's failure."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error


class KeyQueue:
    """The events of one key that are queued, or the place of a key that is at work."""

    __slots__ = (
        "at_work",
        "closed_by",
        "events",
        "hash",
        "key",
        "numbers",
        "opened_at",
        "returned",
        "timer",
    )

    def __init__(self, key: Hashable, key_hash: int) -> None:
        self.key: Hashable = key
        self.hash: int = key_hash
        self.events: Events = []  # not tried yet
        self.numbers: list[int] = []  # theirs among all events of the lane, where it drops the oldest
        self.returned: Returned | None = None
        self.opened_at: float = -math.inf  # when the first event came, if batches linger
        self.timer: int = 0  # number of the timer it waits for
        self.closed_by: ClosedBy = "size"  # what ended its wait, if it lingered
        self.at_work: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing is queued, and nothing at work."""
        return not (self.at_work or self.events or self.returned)


class KeyedLane(GatedLane):
    """A lane that keeps the events of each key apart: with none in an open batch every publish is looked at.

    `key` is called once for each event, when it is put in. So are the key's `__hash__` and `__eq__`, and never later: they are
    the user's code too, and may fail by then, as for a database row that the handler has deleted. A dict of keys would ask
    them whenever a key comes or goes.
    """

    __slots__ = ("_arrivals", "_key", "_keys", "_latest", "_lingering", "_number", "_ready", "_timers")

    # Said again, for a checker that takes what a method sets for another attribute.
    dropped: int
    held: int

    def __init__(self, name: str, app: str, *, key: Callable[[Event[Any]], Hashable], **options: Any) -> None:
        super().__init__(name, app, **options)
        self._key = key
        self._latest: bool = self.overflow == "latest"
        self._keys: dict[int, list[KeyQueue]] = {}  # by the hash of the key
        self._ready: OrderedDict[KeyQueue, None] = OrderedDict()
        self._lingering: dict[KeyQueue, None] = {}  # in the order in which they began to
        self._timers: list[tuple[float, int, KeyQueue]] = []  # a heap; only the last timer of a key counts
        self._number: int = 0
        # The queued events that were not tried, by their number: in the order in which they came.
        self._arrivals: OrderedDict[int, KeyQueue] = OrderedDict()

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, event: Event[Any]) -> int:
        key, key_hash, queue = self._find(event)
        if self._latest and queue is not None and queue.events:
            queue.events[0] = event
            self.dropped += 1
            return 0  # nothing to tell: it is what "latest" is for
        dropped = 0
        if self.drops and self.room <= 0:
            self.dropped += 1
            if self.overflow == "drop_newest" or not self._drop_oldest():
                return -1
            dropped = -1
            if queue is not None and queue.is_empty:
                queue = None  # what was dropped was the last of the same key
        if queue is None:
            queue = KeyQueue(key, key_hash)
            self._keys.setdefault(key_hash, []).append(queue)
        self._append(event, queue)
        return dropped or self.room

    def _find(self, event: Event[Any]) -> tuple[Hashable, int, KeyQueue | None]:
        """Its key, the hash of that, and what is queued of it. That the user's code fails, which also says what is equal, is
        no business of who publishes: it is a failure of the handler.
        """
        try:
            key = self._key(event)
            key_hash = hash(key)
            for queue in self._keys.get(key_hash, ()):
                if queue.key is key or queue.key == key:
                    return key, key_hash, queue
        except BaseException as exc:  # noqa: BLE001 - the worker raises it
            key = KeyFailure(exc)
            key_hash = hash(key)
        return key, key_hash, None

    def _append(self, event: Event[Any], queue: KeyQueue) -> None:
        if self.drops:
            self._number += 1
            self._arrivals[self._number] = queue
            queue.numbers.append(self._number)
        queue.events.append(event)
        self.held += 1
        if len(queue.events) == 1:
            if self.linger:
                queue.opened_at = self.clock()
            if not (queue.at_work or queue.returned):
                if self.linger:
                    self._line_up(queue)
                else:
                    self._ready[queue] = None
        elif queue in self._lingering and len(queue.events) >= self.full:
            self._make_ready(queue)
        self.stir()

    def _drop_oldest(self) -> bool:
        if not self._arrivals:
            return False
        _, queue = self._arrivals.popitem(last=False)
        del queue.numbers[0], queue.events[0]
        self.held -= 1
        if queue.is_empty:
            self._lingering.pop(queue, None)
            self._ready.pop(queue, None)
            self._forget(queue)
        return True

    def put_back(self, attempt: Attempt) -> None:
        if self.is_closed:
            self.abandon(attempt.events)
        else:
            self.held += len(attempt)
            queue: KeyQueue = attempt.place
            if queue.returned is None:
                queue.returned = Returned(in_order=True)
            queue.returned.push(attempt)

    # -- lining up -------------------------------------------------------------------------------------------------

    def _line_up(self, queue: KeyQueue) -> None:
        """Wait for a worker, or until the key is due. It has something queued and is not at work."""
        due = -math.inf
        if queue.returned:
            due = queue.returned.first.due
        elif self.linger and len(queue.events) < self.full:
            due = queue.opened_at + self.linger
            self._lingering[queue] = None
        if due == -math.inf:
            self._make_ready(queue)
            return
        self._number += 1
        queue.timer = self._number
        heappush(self._timers, (due, queue.timer, queue))
        if len(self._timers) > 2 * len(self._keys) + 16:
            # More than half of them are of keys that did not wait so long.
            self._timers = [timer for timer in self._timers if timer[1] == timer[2].timer]
            heapify(self._timers)

    def _make_ready(self, queue: KeyQueue, closed_by: ClosedBy = "size") -> None:
        queue.closed_by = closed_by
        queue.timer = 0
        self._lingering.pop(queue, None)
        self._ready[queue] = None

    def _forget(self, queue: KeyQueue) -> None:
        queue.timer = 0
        alike = self._keys[queue.hash]
        alike.remove(queue)
        if not alike:
            del self._keys[queue.hash]

    # -- out -------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> float:
        if self.is_paused:
            return math.inf
        if self._lingering and self.is_pressed:
            for queue in list(self._lingering):
                self._make_ready(queue)
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].timer != self._timers[0][1]):
            _, number, queue = heappop(self._timers)
            if queue.timer == number:
                self._make_ready(queue, "linger")
        if self._ready:
            if self.meter is None:
                return -math.inf
            first = next(iter(self._ready))
            return self.metered(now, -math.inf, len(first.returned.first) if first.returned else 1)
        return self._timers[0][0] if self._timers else math.inf

    def take_due(self, now: float) -> Attempt:
        queue, _ = self._ready.popitem(last=False)
        queue.at_work = True
        if queue.returned:
            return self.take_returned(now, queue.returned)
        length = min(len(queue.events), self.most(now))
        if length >= self.full or length < len(queue.events):
            closed_by: ClosedBy = "size"
        else:
            closed_by = self.closed_by
            if closed_by == "linger":
                closed_by = queue.closed_by
        events = queue.events[:length]
        # A tenth of the time of a copy of what is left, which may be all that the lane holds.
        del queue.events[:length]
        if self.drops:
            for number in queue.numbers[:length]:
                del self._arrivals[number]
            del queue.numbers[:length]
        self.held -= length
        self.count_call(length)
        if self.meter is not None:
            self.meter.take(now, length)
        return Attempt(events, queue.key, closed_by, began=now, place=queue)

    def release(self, attempt: Attempt) -> None:
        queue: KeyQueue = attempt.place
        if self.is_closed:
            return
        queue.at_work = False
        if queue.events or queue.returned:
            self._line_up(queue)
            self.stir()
        else:
            self._forget(queue)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _abandon_queued(self) -> None:
        for queue in itertools.chain.from_iterable(self._keys.values()):
            if queue.returned:
                self._abandon_returned(queue.returned)
            self.abandon(queue.events)
            self.held -= len(queue.events)
            queue.events.clear()
        self._keys.clear()
        self._lingering.clear()
        self._ready.clear()
        self._timers.clear()
        self._arrivals.clear()

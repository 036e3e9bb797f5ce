"""Publishing from threads: requests are appended under a lock, the loop is woken once for many, a future answers.

Nothing in it can hang: the engine fails every request that is open when it ends, and refuses those that come later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from event_flow.core.backend import LoopGone, Wake
from event_flow.core.bus import Bus
from event_flow.core.event import Event
from event_flow.core.exception import EngineClosed
from event_flow.core.origin import Origin, current_origin
from event_flow.core.room import Waiter
from event_flow.core.threads import Threads, lender_of

# Seconds that a waiting thread takes for granted that there is still a loop to answer it. The only thing here that is looked at
# now and then: a loop that is closed by hand, under its tasks, tells nobody.
LOOK_AFTER = 1.0

# Events in one request: enough to make the hop cheap, few enough that other tasks of the loop get their turn.
REQUEST_SIZE = 1000


class Request:
    """Some events that one thread publishes, one after the other; the thread waits for `answer`."""

    def __init__(self, events: Sequence[Event[Any]]) -> None:
        self.events = events
        self.origin: Origin | None = current_origin.get()
        # Whose place the thread holds, and lends while it waits. It may be another engine's.
        self.lender: Threads | None = lender_of(threading.current_thread())
        self.answer: Future[None] = Future()
        self.waiter: Waiter | None = None
        self.next = 0


class Inbox:
    """Where the threads of one run leave what they publish. Before `open` there is no loop: events go to the backlog."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # Re-entrant: before the start a filter is asked while it is held, and one that publishes all the same must not hang.
        self._lock = threading.RLock()
        self._wake: Wake | None = None
        self._arrived: deque[Request] = deque()
        self._unanswered: set[Request] = set()
        self._closed = False

    def open(self, wake: Wake) -> None:
        """From now on the loop publishes."""
        with self._lock:
            self._wake = wake

    def close(self) -> None:
        """Refuse what is open and what comes later. May be called again."""
        for request in self._close():
            if request.waiter is not None:
                self._bus.room.withdraw(request.waiter)
                self._return_place(request)
            request.answer.set_exception(_closed())

    def _abandon(self) -> None:
        """The loop is gone, and with it all that this could be taken back from: only the threads are left to be told."""
        for request in self._close():
            request.answer.set_exception(_closed())

    def _close(self) -> list[Request]:
        """Close, and return those who wait for an answer, each of them once."""
        with self._lock:
            self._closed = True
            requests = [*self._arrived, *self._unanswered]
            self._arrived.clear()
            self._unanswered.clear()
        return requests

    @property
    def is_empty(self) -> bool:
        """Nothing has arrived that was not looked at."""
        return not self._arrived

    def publish(self, events: Sequence[Event[Any]]) -> None:
        """Publish from another thread, waiting until all `events` are delivered. Raises what `pub_event` would."""
        for start in range(0, len(events), REQUEST_SIZE):
            part = events[start : start + REQUEST_SIZE]
            request = Request(part)
            if self._submit(request):
                self._wait(request)

    def _submit(self, request: Request) -> bool:
        """Returns False if the events are in the backlog already, because nothing runs yet."""
        with self._lock:
            if self._closed:
                raise _closed()
            if self._wake is None:
                for event in request.events:
                    kept = self._bus.filtered(event, request.origin)
                    if kept is not None:
                        self._bus.keep(kept)
                return False
            self._arrived.append(request)
            is_first = len(self._arrived) == 1
        if is_first:
            self._call_in_loop(self._look)
        return True

    def _wait(self, request: Request) -> None:
        while True:
            try:
                request.answer.exception(LOOK_AFTER)  # two thirds of the time of concurrent.futures.wait()
            except TimeoutError:
                self._call_in_loop(lambda: None)
            else:
                request.answer.result()
                return

    def _call_in_loop(self, call: Callable[[], object]) -> None:
        assert self._wake is not None
        try:
            self._wake(call)
        except LoopGone:
            self._abandon()

    def _look(self) -> None:
        """On the loop: publish what has arrived."""
        with self._lock:
            requests = list(self._arrived)
            self._arrived.clear()
            self._unanswered.update(requests)
        for request in requests:
            self._advance(request)
        self._bus.activity.on_change()

    def _advance(self, request: Request) -> None:
        """Publish as much of a request as there is room for."""
        try:
            while request.next < len(request.events):
                event = self._bus.filtered(request.events[request.next], request.origin)
                if event is not None:
                    request.waiter = self._bus.admit(event, request.origin)
                if request.waiter is not None:
                    request.waiter.notify = self._later(request)
                    self._lend_place(request)
                    return
                request.next += 1
        except BaseException as exc:  # noqa: BLE001 - the thread raises it; out of a filter it may be anything
            self._answer(request, exc)
        else:
            self._answer(request, None)

    def _later(self, request: Request) -> Callable[[], None]:
        """A waiter is notified while others are being looked at; so its turn comes in the next pass of the loop."""
        return lambda: self._call_in_loop(lambda: self._resume(request))

    def _resume(self, request: Request) -> None:
        if request not in self._unanswered or request.waiter is None:
            return
        waiter, request.waiter = request.waiter, None
        self._return_place(request)
        try:
            self._bus.complete(waiter)
        except Exception as exc:  # noqa: BLE001 - the thread raises it
            self._answer(request, exc)
        else:
            request.next += 1
            self._advance(request)

    def _answer(self, request: Request, error: BaseException | None) -> None:
        self._unanswered.discard(request)
        if error is None:
            request.answer.set_result(None)
        else:
            request.answer.set_exception(error)

    # The threads may be those of an engine in another loop, or in one that has ended.

    def _lend_place(self, request: Request) -> None:
        if request.lender is not None:
            with suppress(LoopGone):
                request.lender.wake(request.lender.lend_place)

    def _return_place(self, request: Request) -> None:
        if request.lender is not None:
            with suppress(LoopGone):
                request.lender.wake(request.lender.return_place)


def _closed() -> EngineClosed:
    return EngineClosed("the engine has stopped: it takes this event no more")

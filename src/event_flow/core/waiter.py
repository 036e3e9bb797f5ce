"""A publish that waits for room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from event_flow.core.event import Event
from event_flow.core.lane import Lane
from event_flow.core.origin import Origin


class Waiter:
    """Parked at one full lane, or granted a place in all of its lanes, or refused with an error.

    `notify` is set by who made it, and called once, when it is granted or refused; it must not publish.
    """

    __slots__ = ("error", "event", "granted", "lanes", "moves", "notify", "origin", "parked_at", "passed")

    def __init__(self, event: Event[Any], lanes: tuple[Lane, ...], origin: Origin | None) -> None:
        self.event = event
        self.lanes = lanes
        self.origin = origin
        self.notify: Callable[[], object] = lambda: None
        self.parked_at: Lane | None = None
        self.granted = False
        self.moves = 0  # how often a place was free for it at one lane, and another lane was full
        self.passed: tuple[Lane, ...] = ()  # lanes where the place granted is one over the limit
        self.error: Exception | None = None

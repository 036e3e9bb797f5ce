"""What the parts of one run share: the engine's options and bell, and what is made anew for it."""

from __future__ import annotations

from collections.abc import Callable

from event_flow.core.bell import Bell
from event_flow.core.bus import Bus
from event_flow.core.failure import Failures
from event_flow.core.inbox import Inbox
from event_flow.core.options import EngineOptions
from event_flow.core.threads import Threads


class Run:
    """One run of an engine, from `STARTING` to `STOPPED`."""

    def __init__(
        self,
        *,
        options: EngineOptions,
        bus: Bus,
        inbox: Inbox,
        threads: Threads,
        failures: Failures,
        bell: Bell,
        clock: Callable[[], float],
    ) -> None:
        self.options = options
        self.bus = bus
        self.inbox = inbox
        self.threads = threads
        self.failures = failures
        self.bell = bell
        self.clock = clock  # seconds, of the running loop

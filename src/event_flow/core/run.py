"""What the parts of one run share: the engine's options and bell, and what is made anew for it."""

from __future__ import annotations

from dataclasses import dataclass

from event_flow.core.bell import Bell
from event_flow.core.bus import Bus
from event_flow.core.failure import Failures
from event_flow.core.inbox import Inbox
from event_flow.core.options import EngineOptions
from event_flow.core.threads import Threads


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Run:
    """One run of an engine, from `STARTING` to `STOPPED`."""

    options: EngineOptions
    bus: Bus
    inbox: Inbox
    threads: Threads
    failures: Failures
    bell: Bell

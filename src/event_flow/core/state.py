"""The states of an engine, in the order it goes through them."""

from __future__ import annotations

from enum import Enum


class EngineState(Enum):
    """Where an engine is in its life. After `STOPPED` it may run again, and begins at `STARTING`."""

    NEW = "new"
    """Never run. Published events are kept for the start."""

    STARTING = "starting"
    """`before_start` hooks are at work. Published events are kept until the handlers run."""

    RUNNING = "running"
    """Handlers, schedules and tasks run."""

    DRAINING = "draining"
    """Asked to stop: handlers finish what was accepted, and only they and ticks begun before may publish."""

    STOPPING = "stopping"
    """No handler is called any more, those at work are cancelled; applications end one by one, `exit` hooks are at work."""

    STOPPED = "stopped"
    """Everything has ended."""

"""Waiting for what threads do: they wake nobody in the loop of a test."""

from __future__ import annotations

from collections.abc import Callable

import anyio

# Seconds for what happens at once on any machine; over only when it does not happen at all.
SOON = 10.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`, which a thread makes true and the loop is not told of."""
    with anyio.fail_after(SOON):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.001)

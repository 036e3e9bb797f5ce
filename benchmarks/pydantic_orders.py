"""What is published on the buses that want a Pydantic model: the same small dict in one field."""

from __future__ import annotations

import abxbus
import bubus


class BubusOrder(bubus.BaseEvent):  # type: ignore[misc]
    """As `benchmarks.rivals.Order`."""

    data: dict[str, int]


class AbxbusOrder(abxbus.BaseEvent):  # type: ignore[misc]
    """As `benchmarks.rivals.Order`."""

    data: dict[str, int]

"""Words for messages, in logs, reports and errors."""

from __future__ import annotations

from typing import Any


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def safe_repr(value: object) -> str:
    """`repr(value)` for a message, also where that is the user's and broken: an error must not become another one."""
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is not what happened
        return f"<{type(value).__name__}, whose repr() raises {type(exc).__name__}>"


def name_of(function: Any) -> str:
    """What to call a function, partial or callable object."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", type(function).__name__))

"""Which backends a run of the tests has: all there are for the system, unless it says that it does without one.

A backend that is missing by accident fails the run rather than shorten it; `--without-backend` one that is there, too.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import Any

# uvloop does not exist for Windows.
REAL_TIME = ["asyncio", "trio"] if sys.platform == "win32" else ["asyncio", "uvloop", "trio"]
# uvloop keeps its own time.
VIRTUAL_TIME = ["asyncio", "trio"]
# Of those, what is not in the standard library.
EXTRAS = [name for name in REAL_TIME if name != "asyncio"]


def is_installed(name: str) -> bool:
    """Whether it can be imported here."""
    return find_spec(name) is not None


def complaint(without: Collection[str], installed: Collection[str]) -> str:
    """What is wrong with a run that does `without` some of the extras, where others are `installed`; empty if nothing."""
    unknown = [name for name in without if name not in EXTRAS]
    if unknown:
        return f"--without-backend={unknown[0]}: there are only {', '.join(EXTRAS)}"
    for name in EXTRAS:
        if name in without and name in installed:
            return (
                f"--without-backend={name}: but it is installed, and what runs without it would not be tested"
            )
        if name not in without and name not in installed:
            return (
                f"{name} is not installed; a run that is meant to do without it says --without-backend={name}"
            )
    return ""


def names_one_of(backends: Collection[str], parameters: Iterable[Any]) -> bool:
    """Whether among the parameters of a test is the name of one of the `backends`, alone or as the first of a tuple."""
    first = [value[0] if isinstance(value, tuple) and value else value for value in parameters]
    return any(isinstance(value, str) and value in backends for value in first)

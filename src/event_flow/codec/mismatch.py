"""What is said when a value is not what its type says: the problem, and the place where it is."""

from __future__ import annotations

__all__ = ["Mismatch", "described", "failure", "fits_64_bits", "wrong"]

LONGEST_TEXT = 60
LONGEST_PLACE = 200
SMALLEST, LARGEST = -(2**63), 2**64 - 1


class Mismatch(Exception):
    """A value does not fit. Each container it passes on its way out adds its part of the place."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self._steps: list[str] = []

    def inside(self, step: str) -> Mismatch:
        self._steps.append(step)
        return self

    @property
    def place(self) -> str:
        place = "".join(reversed(self._steps)).removeprefix(".")
        return place if len(place) <= LONGEST_PLACE else f"{place[:LONGEST_PLACE]}…"

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self._steps else self.problem


def wrong(expected: str, value: object) -> Mismatch:
    return Mismatch(f"expected {expected}, got {described(value)}")


def failure(what: str, exc: Exception) -> Mismatch:
    """User code, or the standard library, refuses a value by raising."""
    try:
        reason = str(exc)
    except Exception:  # noqa: BLE001 - whatever it is, it is not what happened
        reason = "whose str() raises"
    return Mismatch(f"{what}: {type(exc).__name__}: {_short(reason)}")


def described(value: object) -> str:
    """The value if it is short and plain, else its type. Calls no code of the user's."""
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int:
        return repr(value) if fits_64_bits(value) else "an integer beyond 64 bits"
    if type(value) is str:
        return repr(_short(value))
    name = type(value).__qualname__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def fits_64_bits(value: int) -> bool:
    """Signed or unsigned. JSON has no limit, but what reads it has."""
    return SMALLEST <= value <= LARGEST


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"

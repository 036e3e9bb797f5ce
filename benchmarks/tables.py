"""Stored results as tables, for a page or for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.curves import OURS
from benchmarks.measure import Quartiles
from benchmarks.pictures import duration

BACKENDS = ("asyncio", "uvloop", "trio")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = True) -> str:
    """The rows below each other, for a page or for a terminal."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    if markdown:
        return "\n".join(
            f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(headings), *lines[1:])
        )
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def caption(section: dict[str, Any]) -> str:
    """What it was measured on."""
    quick = "" if section["scale"] == 1 else " **A quick run: figures to glance at.**"
    return f"Medians and quartiles of {section['rounds']} rounds; {section['where']}.{quick}"


def peer_rows(work: dict[str, Any]) -> Iterator[list[str]]:
    """A row for each contestant: time and ratio on each backend."""
    names = dict.fromkeys(name for backend in work.values() for name in backend)
    for name in names:
        cells = [name]
        for backend in BACKENDS:
            figures = work.get(backend, {}).get(name)
            cells.append(peer_cell(name, figures))
        yield cells


def peer_cell(name: str, figures: dict[str, Any] | None) -> str:
    """Time for an event, and how many times that of Event Flow; a dash where it was not measured."""
    if figures is None:
        return "–"
    time = duration(figures["seconds"][1])
    return time if name == "Event Flow" else f"{time}, {Quartiles(*figures['ratio'])}"


def fastest_first(names: dict[str, Any]) -> list[str]:
    """Event Flow, then the others by their time."""
    return sorted(names, key=lambda name: (name != "Event Flow", names[name]["seconds"][1]))


def curve_table(stored: dict[str, Any], *, markdown: bool = True) -> str:
    """All its figures."""
    names = list(stored["points"][0]["seconds"])
    rows = [
        [
            f"{point['x']:,}",
            *(duration(point["seconds"][name][1]) for name in names),
            str(Quartiles(*point["ratio"][OURS])),
        ]
        for point in stored["points"]
    ]
    ratio = f"{stored['rival']}: times as long as ours on asyncio"
    return table([stored["x"], *names, ratio], rows, markdown=markdown)

"""The figures in the README, between pairs of comments."""

from __future__ import annotations

import re
from textwrap import fill
from typing import Any

from benchmarks.by_hand import Row
from benchmarks.peers import WORKS
from benchmarks.pictures import number
from benchmarks.tables import BACKENDS, caption, fastest_first, table

# Rows of the README's table: what it says, which measurements, how a ratio reads.
BESIDE = [
    (
        "`pub_event`, 1 handler, beside the queue loop on asyncio",
        "pub_event, 1 handler",
        "(a) Queue loop",
        "as fast",
    ),
    ("`pub_events` of 1,000, beside the same", "pub_events of 1,000", "(a) Queue loop", "as fast"),
    ("`pub_event`, 1 handler, beside a task a group", "pub_event, 1 handler", "(b) task a group", "as fast"),
    (
        "`pub_event`, 10 handlers, beside a task a group and handler",
        "pub_event, 10 handlers",
        "(b) task a group",
        "as fast",
    ),
    (
        "latency: to an idle handler and back, beside two bare `anyio.Event`s",
        "idle handler, there and back",
        "bare anyio.Event",
        "as long",
    ),
    (
        "latency: to an idle handler, one way, beside one bare `anyio.Event`",
        "idle handler, one way",
        "bare anyio.Event",
        "as long",
    ),
]


def readme_table(section: dict[str, Any]) -> str:
    """The ratios of the most important measurements, a column a backend."""
    stored = [Row.load(row) for row in section["rows"]]
    found = {(row.what, row.rival, row.backend): row.ratio for row in stored}
    rows = []
    for says, what, rival, reads in BESIDE:
        cells = []
        for backend in BACKENDS:
            ratio = found.get((what, rival, backend))
            cells.append(str(ratio).replace("×", f"× {reads}") if ratio else "–")
        rows.append([says, *cells])
    return f"{caption(section)}\n\n" + table(["ratios of time", "asyncio", "uvloop", "Trio"], rows)


def readme_peers(section: dict[str, Any]) -> str:
    """The picture and its figures in words."""

    def listed(work: str) -> str:
        figures = section["works"][work]["asyncio"]
        rates = [f"{name} {number(1 / figures[name]['seconds'][1])}" for name in fastest_first(figures)]
        return f"{', '.join(rates[:-1])} and {rates[-1]}"

    one, ten, each = WORKS
    words = (
        f"Events a second on asyncio, with one handler: {listed(one)}. With ten: {listed(ten)}. Each awaited before the next, "
        f"where Event Flow has no batches to gain from: {listed(each)}. What the others do more for their time (validation, "
        "history, results of handlers) and what they do not (back-pressure, order, an orderly end) stands in "
        "[Benchmarks](docs/benchmarks.md), with uvloop and Trio, and with curves of how the time for an event grows with "
        "handlers, classes, applications, data, publishers and threads."
    )
    picture = "![Bars: events a second of Event Flow and other libraries](docs/images/benchmarks/peers.svg)"
    return f"{picture}\n\n{fill(words, 128, break_on_hyphens=False)}"


def replaced(page: str, name: str, content: str) -> str:
    """The page with new content between the comments of that name; raises `ValueError` if they are not there."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    page, times = marked.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if times != 1:
        raise ValueError(f"README.md: there must be one pair of comments for {name!r}")
    return page

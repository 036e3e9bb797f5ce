"""The figures in the README, between pairs of comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from benchmarks.by_hand import Row
from benchmarks.peers import PEERS, WORKS
from benchmarks.tables import BACKENDS, caption, fastest_first, peer_cell, table

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
    ratios = table(["ratios of time", "asyncio", "uvloop", "Trio"], rows)
    return f"{caption(section)}\n\n{ratios}\n\n{filled(in_numbers(stored))}"


def in_numbers(rows: Sequence[Row]) -> str:
    """What has no ratio, or says more without."""

    def on_asyncio(what: str) -> Row:
        return next(row for row in rows if row.what.endswith(what) and row.backend == "asyncio")

    hop, waiting = on_asyncio("idle handler, one way"), on_asyncio("a queued event, beyond itself")
    apps = on_asyncio("apps × 10 handlers, start and stop")
    return (
        f"On asyncio an event takes {hop.measured} to an idle handler, where the bare event that wakes a task takes "
        f"{hop.beside}: the rest is admission, the batch, and whose call it is. An event that waits costs "
        f"{waiting.measured} beyond itself. {apps.what.split()[0]} applications with ten handlers and a schedule each start and "
        f"stop in {apps.measured}."
    )


def readme_peers(section: dict[str, Any]) -> str:
    """The picture and its figures, on asyncio, with what each does more for its time."""
    figures = {work: section["works"][work]["asyncio"] for work in WORKS}
    more = {peer.name: peer.more for peer in PEERS}
    rows = [
        [
            f"{name} {section['versions'].get(name, '')}".strip(),
            *(peer_cell(name, figures[work].get(name)) for work in WORKS),
            more.get(name, ""),
        ]
        for name in fastest_first(figures[next(iter(WORKS))])
    ]
    headings = ["", *(work[0].upper() + work[1:] for work in WORKS), "does more for its time"]
    words = (
        "Times are for an event, on asyncio; after them stands how many times as long as Event Flow it took, with quartiles: "
        "below 1 the other is faster. *Each awaited*: the next event only when all handlers of this one are done, so there are "
        "no batches to gain from. What the others have not (back-pressure, order, an orderly end), how each was used, uvloop and "
        "Trio, and curves of how the time for an event grows with handlers, classes, applications, data, publishers and threads "
        "stand in [Benchmarks](docs/benchmarks.md)."
    )
    picture = "![Bars: events a second of Event Flow and other libraries](docs/images/benchmarks/peers.svg)"
    return f"{picture}\n\n{caption(section)}\n\n{table(headings, rows)}\n\n{filled(words)}"


def filled(words: str) -> str:
    """As wide as the rest of the README."""
    return fill(words, 128, break_on_hyphens=False)


def replaced(page: str, name: str, content: str) -> str:
    """The page with new content between the comments of that name; raises `ValueError` if they are not there."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    page, times = marked.subn(lambda found: f"{found[1]}{content}\n{found[2]}", page)
    if times != 1:
        raise ValueError(f"README.md: there must be one pair of comments for {name!r}")
    return page

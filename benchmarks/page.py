"""Writes `docs/benchmarks.md`, its pictures and the figures in the README, all from the stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.by_hand import HEADINGS, Row
from benchmarks.curves import CURVES
from benchmarks.measure import Quartiles
from benchmarks.peers import BY_HAND, PEERS
from benchmarks.pictures import Line, bar_picture, line_picture
from benchmarks.readme import readme_peers, readme_table, replaced
from benchmarks.tables import BACKENDS, caption, curve_table, fastest_first, peer_rows, table

ROOT = Path(__file__).parent.parent
PICTURES = "images/benchmarks"  # beside the page

INTRODUCTION = """\
# Benchmarks

<!-- Written by `python -m benchmarks --redraw` from benchmarks/results.json: edits here are lost. -->

Event Flow beside libraries that also bring events to handlers, beside what people write by hand, and how it grows. Measure
it on your machine, in ten minutes or so, and write this page anew:

```bash
nox -s bench -- --peers --curves --write-docs
```

`nox -s bench -- --write-docs` measures the [table beside hand-written loops](#beside-loops-written-by-hand) too. `--quick` looks
whether everything runs. Without `--write-docs` figures are printed and nothing is written.

**How it is measured.** All contestants of a comparison run one after the other in the same process, each for some hundredths
of a second in an event loop of its own, again and again in changing order. Every round gives ratios of its own; shown are their
medians, in brackets their quartiles. Ratios are steadier than times, which follow the moods of a machine. Every event is made
inside the measured loop, with a small dict as data; the clock stops when every handler has got every event, and each run checks
that it did. Event Flow runs with default options.
"""


HOW_PEERS = """\
Each is used as its documentation shows, with default options (where not, it says so below), in one environment and one run, and
where there are several ways, in the fastest. *Flood*: events as fast as the library takes them. *Each awaited*: the next event
only when all handlers of this one are done, as in request and response; Event Flow does it with `wait_idle()`. That is not what
it is made for: there are no batches then. Times are for an event, ratios how many times as long as Event Flow it took on the
same backend: below 1 the other is faster."""

OURS_FOR_ITS_TIME = """\
Event Flow for its time: back-pressure, order, batches, isolation of handlers, failures as events, counts of every delivery, an
orderly end. It keeps no history, returns no results of handlers, validates nothing and writes nothing down."""

HOW_BY_HAND = """\
(a) is one `asyncio.Queue(1000)` with an `await put` and an `await get` for each event; (b) is an `asyncio.Queue(10)`, drained
into groups by class, and a task for each group and handler; (d) makes the events, appends them to a list and calls a function
with it: nobody gets below that. Targets are the project's own.

Handlers with options stand beside what is built by hand for the same end. With `key` every other event is of the hot one, and
each of the others is a call of its own, which is most of the time. A task for each key that is at work does as much, a little
quicker; a queue for each of four shards makes no batches, and a slow key holds up all others of its shard. The dict of the
newest values has no back-pressure, counts nothing and is never refused."""


# -- peers -------------------------------------------------------------------------------------------------------------


def peers_picture(section: dict[str, Any]) -> str:
    """Events a second on asyncio, for each work."""
    panels = {}
    for work, backends in section["works"].items():
        figures = backends["asyncio"]
        panels[work] = {
            name: (
                {"Event Flow": "asyncio", BY_HAND: "hand"}.get(name, "more"),
                Quartiles(*(1 / seconds for seconds in reversed(figures[name]["seconds"]))),
            )
            for name in fastest_first(figures)
        }
    return bar_picture(
        "Events a second, on asyncio", "Longer is faster. Each event carries a small dict.", panels
    )


def peers_page(section: dict[str, Any]) -> str:
    """Picture, tables, and what each does for its time."""
    parts = [
        "## Beside other libraries",
        f"![Bars: events a second of Event Flow and other libraries]({PICTURES}/peers.svg)",
        HOW_PEERS,
    ]
    for work, backends in section["works"].items():
        parts.append(f"**{work[0].upper()}{work[1:]}**")
        parts.append(table(["", "asyncio", "uvloop", "Trio"], list(peer_rows(backends))))
    parts.append(
        "A dash: it does not run there, or there is no way to wait for one event. What the time buys, and what it does not:"
    )
    rows = [
        [f"{peer.name} {section['versions'][peer.name]}", peer.used, peer.more, peer.less] for peer in PEERS
    ]
    parts.append(table(["library", "used with", "does more for its time", "has not"], rows))
    parts.append(OURS_FOR_ITS_TIME)
    parts.append(caption(section))
    return "\n\n".join(parts)


# -- curves ------------------------------------------------------------------------------------------------------------


def line_class(name: str, place: int) -> str:
    """Its colour: by backend for ours, and by place for what is beside it."""
    for backend in BACKENDS:
        if name.lower() == f"event flow, {backend}":
            return backend
    return ("more", "hand", "other")[place]


def curve_picture(stored: dict[str, Any]) -> str:
    """One of them."""
    beside = [name for name in stored["points"][0]["seconds"] if not name.startswith("Event Flow, ")]
    places = dict.fromkeys(beside, 0)
    places |= {name: 1 + number for number, name in enumerate(beside[beside.index(stored["rival"]) :])}
    lines: dict[str, tuple[str, Line]] = {
        name: (
            line_class(name, places.get(name, 0)),
            [(point["x"], Quartiles(*point["seconds"][name])) for point in stored["points"]],
        )
        for name in stored["points"][0]["seconds"]
    }
    return line_picture(stored["title"], stored["x"], stored["y"], lines)


def curves_page(section: dict[str, Any]) -> str:
    """A heading, a picture, what there is to see, and the figures, for each."""
    parts = [
        "## How it grows",
        "Both axes are logarithmic: a line that is flat costs the same however many there are. Bands are quartiles. "
        "What is written by hand runs on asyncio.",
    ]
    for curve in CURVES:
        stored = section["curves"][curve.name]
        path = f"{PICTURES}/{curve.name}.svg"
        parts.append(f"### {stored['title']}")
        parts.append(f"![Lines: {stored['y']} over {stored['x']}]({path})")
        parts.append(curve.says(stored["points"]))
        parts.append(f"<details><summary>Figures</summary>\n\n{curve_table(stored)}\n\n</details>")
    parts.append(caption(section))
    return "\n\n".join(parts)


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand_page(section: dict[str, Any]) -> str:
    """Everything that was measured, with the targets it is held against."""
    return "\n\n".join(
        [
            "## Beside loops written by hand",
            HOW_BY_HAND,
            table(HEADINGS, [Row.load(row).cells() for row in section["rows"]]),
            caption(section),
        ]
    )


def write(results: dict[str, Any], root: Path = ROOT) -> list[Path]:
    """Write what the results suffice for, and return which files."""
    pictures = root / "docs" / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    files: dict[Path, str] = {}
    page = [INTRODUCTION.rstrip()]
    readme = (root / "README.md").read_text(encoding="utf-8")
    if peers := results.get("peers"):
        files[pictures / "peers.svg"] = peers_picture(peers)
        page.append(peers_page(peers))
        readme = replaced(readme, "peers", readme_peers(peers))
    if curves := results.get("curves"):
        files |= {
            pictures / f"{name}.svg": curve_picture(stored) for name, stored in curves["curves"].items()
        }
        page.append(curves_page(curves))
    if by_hand := results.get("by_hand"):
        page.append(by_hand_page(by_hand))
        readme = replaced(readme, "by hand", readme_table(by_hand))
    files[root / "docs" / "benchmarks.md"] = "\n\n".join(page) + "\n"
    files[root / "README.md"] = readme
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")
    return list(files)

"""Runs the comparisons, prints their figures, and writes them down where that is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from loguru import logger

from benchmarks import by_hand, curves, page, peers, results, tables
from benchmarks.measure import Plan


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(by_hand.PARTS)
    made.add_argument(
        "parts",
        nargs="*",
        help=f"what to measure beside loops written by hand: {names}; all, if nothing else is asked for",
    )
    made.add_argument(
        "--peers", action="store_true", help="other libraries (the dependency group of that name)"
    )
    made.add_argument("--curves", action="store_true", help="how the time for an event grows")
    made.add_argument(
        "--rounds", type=int, default=31, help="alternating runs of each (default: 31; curves: half)"
    )
    made.add_argument(
        "--quick", action="store_true", help="a tenth of the events, few rounds: figures to glance at"
    )
    made.add_argument("--markdown", action="store_true", help="print the tables for a page")
    made.add_argument(
        "--write-docs",
        action="store_true",
        help="write docs/benchmarks.md, its pictures and the README's figures with what was measured; everything, if nothing "
        "else is asked for",
    )
    made.add_argument(
        "--redraw", action="store_true", help="measure nothing, write the docs from results.json"
    )
    return made


def chosen(given: argparse.Namespace) -> argparse.Namespace:
    """With what is meant where nothing was asked for."""
    if not (given.parts or given.peers or given.curves):
        given.parts = list(by_hand.PARTS)
        given.peers = given.curves = given.write_docs
    return given


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The sections that were asked for. Peers come last: their imports are heavy, and would weigh on the others."""
    plan = Plan(rounds=5, scale=0.1) if given.quick else Plan(rounds=given.rounds, scale=1)
    half = Plan(rounds=max(min(plan.rounds, 3), plan.rounds // 2), scale=plan.scale)
    sections: dict[str, Any] = {}
    if given.parts:
        sections["by_hand"] = results.section(by_hand.measure(plan, given.parts), plan)
    if given.curves:
        sections["curves"] = results.section({"curves": curves.measure(half)}, half)
    if given.peers:
        sections["peers"] = results.section(peers.measure(plan), plan)
    return sections


def report(sections: dict[str, Any], *, markdown: bool) -> str:
    """What was measured, to read."""
    parts = []
    if section := sections.get("by_hand"):
        rows = [by_hand.Row.load(row).cells() for row in section["rows"]]
        parts += [tables.caption(section), tables.table(by_hand.HEADINGS, rows, markdown=markdown)]
    if section := sections.get("peers"):
        parts.append(tables.caption(section))
        for work, backends in section["works"].items():
            headings = [work, "asyncio", "uvloop", "Trio"]
            parts.append(tables.table(headings, list(tables.peer_rows(backends)), markdown=markdown))
    if section := sections.get("curves"):
        parts.append(tables.caption(section))
        for stored in section["curves"].values():
            parts += [stored["title"], tables.curve_table(stored, markdown=markdown)]
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for and print it."""
    command = parser()
    given = command.parse_args(arguments)
    unknown = [part for part in given.parts if part not in by_hand.PARTS]
    if unknown:
        command.error(f"no such part: {', '.join(unknown)}; there are {', '.join(by_hand.PARTS)}")
    if given.rounds < 1:
        command.error("--rounds must be at least 1")
    if given.write_docs and given.parts and set(given.parts) != set(by_hand.PARTS):
        command.error("--write-docs needs all parts, or none")

    if not given.redraw:
        logger.disable("event_flow")
        sections = measured(chosen(given))
        print(report(sections, markdown=given.markdown))
        if not given.write_docs:
            return
        results.store(sections)
    for path in page.write(results.load()):
        print("written:", path.relative_to(page.ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()

"""Runs the comparisons and prints one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

from loguru import logger

from benchmarks import engine, footprint, imports, rivals
from benchmarks.measure import ASYNCIO, TRIO, UVLOOP, Backend, Comparison, Contestant, compare

BACKENDS = [each for each in (ASYNCIO, UVLOOP, TRIO) if each is not UVLOOP or find_spec("uvloop")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    what: str
    backend: str
    measured: str
    beside: str = ""
    ratios: Sequence[float] = ()
    reach: Literal["at least", "at most", ""] = ""
    target: float | None = None
    value: float | None = None

    @property
    def median(self) -> float | None:
        """What is held against the target: the median ratio, or the measured value itself."""
        return self.ratios[len(self.ratios) // 2] if self.ratios else self.value

    @property
    def verdict(self) -> str:
        """Whether the target was reached; empty if there is none."""
        if self.target is None or self.median is None:
            return ""
        reached = self.median >= self.target if self.reach == "at least" else self.median <= self.target
        return "reached" if reached else "MISSED"

    def cells(self) -> list[str]:
        """The columns of the table."""
        ratio = f"{self.median:.2f} ×" if self.ratios else ""
        low, high = len(self.ratios) // 4, -1 - len(self.ratios) // 4
        spread = f"{self.ratios[low]:.2f} – {self.ratios[high]:.2f}" if self.ratios else ""
        target = f"{self.reach} {self.target:g}" if self.target is not None else ""
        return [self.what, self.backend, self.measured, self.beside, ratio, spread, target, self.verdict]


HEADINGS = ["what", "backend", "ours", "beside it", "ratio", "quartiles", "target", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much work is done: `scale` 1 for figures one can quote, less to see that everything runs."""

    rounds: int
    scale: float

    def events(self, count: int) -> int:
        """A whole number of thousands."""
        return max(1, round(count * self.scale / 1000)) * 1000


def microseconds(seconds: float) -> str:
    """With as many digits as mean something."""
    return f"{seconds * 1e6:.2f} µs"


def faster(
    comparison: Comparison, what: str, ours: Backend, rival: str, name: str, target: float | None
) -> Row:
    """How many times as fast as a rival."""
    return Row(
        what=what,
        backend=ours.name,
        measured=microseconds(comparison.median(ours.name)),
        beside=f"{name}: {microseconds(comparison.median(rival))}",
        ratios=comparison.ratios(rival, ours.name),
        reach="at least",
        target=target,
    )


def one_handler(plan: Plan) -> Iterator[Row]:
    """`pub_event` and `pub_events` beside the loop by hand, the picture and the floor."""
    events = plan.events(20_000)
    single: dict[str, Contestant] = {
        each.name: partial(each.run, partial(engine.publish_one_by_one, events, 1)) for each in BACKENDS
    }
    many: dict[str, Contestant] = {
        f"many {each.name}": partial(each.run, partial(engine.publish_thousands, events)) for each in BACKENDS
    }
    others: dict[str, Contestant] = {
        "loop": partial(ASYNCIO.run, partial(rivals.hand_written_loop, events)),
        "picture": partial(ASYNCIO.run, partial(rivals.task_for_each_group, events, 1)),
        "floor": partial(rivals.floor, events),
    }
    if UVLOOP in BACKENDS:
        others["uvloop loop"] = partial(UVLOOP.run, partial(rivals.hand_written_loop, events))
    comparison = compare(single | many | others, plan.rounds)
    for each in BACKENDS:
        what = "pub_event, 1 handler"
        yield faster(comparison, what, each, "loop", "(a) Queue loop", 1.6)
        if each is UVLOOP:
            yield faster(comparison, what, each, "uvloop loop", "(a) on uvloop", None)
        yield faster(comparison, what, each, "picture", "(b) task a group", 3.3)
        yield faster(comparison, what, each, "floor", "(d) floor", None)
    for each in BACKENDS:
        yield Row(
            what="pub_events of 1,000",
            backend=each.name,
            measured=microseconds(comparison.median(f"many {each.name}")),
            beside=f"(a) Queue loop: {microseconds(comparison.median('loop'))}",
            ratios=comparison.ratios("loop", f"many {each.name}"),
            reach="at least",
            target=2.5,
        )


def ten_handlers(plan: Plan) -> Iterator[Row]:
    """`pub_event` to ten handlers of the class."""
    events = plan.events(10_000)
    contestants: dict[str, Contestant] = {
        each.name: partial(each.run, partial(engine.publish_one_by_one, events, 10)) for each in BACKENDS
    }
    contestants["picture"] = partial(ASYNCIO.run, partial(rivals.task_for_each_group, events, 10))
    comparison = compare(contestants, plan.rounds)
    for each in BACKENDS:
        target = 3.4 if each is TRIO else 3.7
        yield faster(comparison, "pub_event, 10 handlers", each, "picture", "(b) task a group", target)


def hops(plan: Plan) -> Iterator[Row]:
    """Waking an idle handler: there and back, and one way."""
    count = plan.events(2_000)
    kinds = (
        ("idle handler, there and back", engine.round_trip, rivals.bare_round_trip, True),
        ("idle handler, one way", engine.one_way, rivals.bare_one_way, False),
    )
    for each in BACKENDS:
        for what, ours, bare, has_target in kinds:
            comparison = compare(
                {
                    "ours": partial(each.run, partial(ours, count)),
                    "bare": partial(each.run, partial(bare, count)),
                },
                plan.rounds,
            )
            yield Row(
                what=what,
                backend=each.name,
                measured=microseconds(comparison.median("ours")),
                beside=f"bare anyio.Event: {microseconds(comparison.median('bare'))}",
                ratios=comparison.ratios("ours", "bare"),
                reach="at most",
                target=(1.8 if each is TRIO else 1.4) if has_target else None,
            )


def start_and_stop(plan: Plan) -> Iterator[Row]:
    """A hundred applications with ten handlers and a schedule each."""
    for each in BACKENDS:
        comparison = compare(
            {
                "ours": partial(each.run, partial(engine.start_and_stop, 100)),
                "bare": partial(each.run, partial(rivals.bare_tasks, 1200)),
            },
            plan.rounds,
        )
        seconds = comparison.median("ours")
        ratios = comparison.ratios("ours", "bare")
        yield Row(
            what="100 apps × 10 handlers, start and stop",
            backend=each.name,
            measured=f"{seconds:.3f} s",
            beside=f"1,200 bare tasks: {comparison.median('bare'):.3f} s ({ratios[len(ratios) // 2]:.1f} ×)",
            reach="at most",
            target=1.0,
            value=seconds,
        )


def first_import(plan: Plan) -> Iterator[Row]:
    """Until the package is imported where anyio and loguru are."""
    comparison = compare(
        {
            "all": partial(imports.seconds_to_import, imports.ALREADY),
            "own": partial(imports.seconds_to_import, imports.ALREADY_WITH_ANYIO_S_PARTS),
        },
        plan.rounds,
    )
    milliseconds = {name: 1000 * comparison.median(name) for name in ("all", "own")}
    yield Row(
        what="import, beyond anyio and loguru",
        backend="",
        measured=f"{milliseconds['all']:.1f} ms",
        beside=f"without the parts of anyio it asks for: {milliseconds['own']:.1f} ms",
        reach="at most",
        target=20,
        value=milliseconds["all"],
    )


def memory(plan: Plan) -> Iterator[Row]:
    """Bytes while events wait, objects after they are gone."""
    events = plan.events(500_000)
    for each in BACKENDS:
        size = each.run(partial(footprint.bytes_for_a_queued_event, 1000))
        yield Row(
            what="a queued event, beyond itself",
            backend=each.name,
            measured=f"{size:.1f} bytes",
            reach="at most",
            target=24,
            value=size,
        )
        each.run(partial(footprint.objects_left, 1000))  # what is made once is made here
        left = each.run(partial(footprint.objects_left, events))
        yield Row(
            what=f"objects left by {events:,} events",
            backend=each.name,
            measured=f"{left:.0f}",
            reach="at most",
            target=499,
            value=left,
        )


PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "one": one_handler,
    "ten": ten_handlers,
    "hops": hops,
    "start": start_and_stop,
    "import": first_import,
    "memory": memory,
}


def table(rows: Sequence[Row], *, markdown: bool) -> str:
    """The rows below each other, for a terminal or for a page."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    if markdown:
        lines.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" if markdown else "  ".join(line).rstrip() for line in padded)


def where() -> str:
    """What the figures were measured on."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("anyio", "trio", "uvloop") if find_spec(name) is not None
    )
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; {packages}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which to run: {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=31, help="alternating runs of each (default: 31)")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the events, 5 rounds: figures to glance at"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")

    logger.disable("event_flow")
    plan = Plan(rounds=5, scale=0.1) if given.quick else Plan(rounds=given.rounds, scale=1)
    rows: list[Row] = []
    for name in given.parts or PARTS:
        print(f"measuring: {name} …", file=sys.stderr)
        rows += PARTS[name](plan)
    print(f"{where()}; medians of {plan.rounds} alternating rounds\n")
    print(table(rows, markdown=given.markdown))


if __name__ == "__main__":
    main()

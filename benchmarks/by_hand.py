"""Event Flow beside what people write by hand: the comparisons, the targets they are held against, and their table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from benchmarks import engine, flow, footprint, imports, rivals
from benchmarks.measure import (
    ASYNCIO,
    BACKENDS,
    TRIO,
    UVLOOP,
    Backend,
    Comparison,
    Contestant,
    Plan,
    Quartiles,
    announce,
    compare,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    what: str
    backend: str
    measured: str
    rival: str = ""
    beside: str = ""
    ratio: Quartiles | None = None
    reach: Literal["at least", "at most", ""] = ""
    target: float | None = None
    value: float | None = None

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Row:
        """From what `asdict` gave, by way of JSON."""
        ratio = stored["ratio"]
        return cls(**{**stored, "ratio": ratio and Quartiles(*ratio)})

    @property
    def verdict(self) -> str:
        """Whether the median ratio, or the measured value itself, reached the target; empty if there is none."""
        held = self.ratio.median if self.ratio else self.value
        if self.target is None or held is None:
            return ""
        reached = held >= self.target if self.reach == "at least" else held <= self.target
        return "reached" if reached else "MISSED"

    def cells(self) -> list[str]:
        """The columns of the table."""
        beside = f"{self.rival}: {self.beside}" if self.rival else ""
        target = f"{self.reach} {self.target:g}" if self.target is not None else ""
        ratio = str(self.ratio) if self.ratio else ""
        return [self.what, self.backend, self.measured, beside, ratio, target, self.verdict]


HEADINGS = ["what", "backend", "ours", "beside it", "ratio (quartiles)", "target", ""]


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
        rival=name,
        beside=microseconds(comparison.median(rival)),
        ratio=comparison.ratios(rival, ours.name),
        reach="at least",
        target=target,
    )


def one_handler(plan: Plan) -> Iterator[Row]:
    """`pub_event` and `pub_events` beside the loop by hand, the picture and the floor."""
    events, thousands = plan.times(20_000), plan.events(20_000)
    single: dict[str, Contestant] = {
        each.name: partial(each.run, partial(engine.publish_one_by_one, events, 1)) for each in BACKENDS
    }
    many: dict[str, Contestant] = {
        f"many {each.name}": partial(each.run, partial(engine.publish_thousands, thousands))
        for each in BACKENDS
    }
    others: dict[str, Contestant] = {
        "loop": partial(ASYNCIO.run, partial(rivals.hand_written_loop, events)),
        "picture": partial(ASYNCIO.run, partial(rivals.task_for_each_group, events, 1)),
        "floor": partial(rivals.floor, thousands),
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
            rival="(a) Queue loop",
            beside=microseconds(comparison.median("loop")),
            ratio=comparison.ratios("loop", f"many {each.name}"),
            reach="at least",
            target=2.5,
        )


def ten_handlers(plan: Plan) -> Iterator[Row]:
    """`pub_event` to ten handlers of the class."""
    events = plan.times(10_000)
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
    count = plan.times(2_000)
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
                rival="bare anyio.Event",
                beside=microseconds(comparison.median("bare")),
                ratio=comparison.ratios("ours", "bare"),
                reach="at most",
                target=(1.8 if each is TRIO else 1.4) if has_target else None,
            )


def start_and_stop(plan: Plan) -> Iterator[Row]:
    """A hundred applications with ten handlers and a schedule each; a bare task for each of those and for the application."""
    apps = plan.times(100)
    for each in BACKENDS:
        comparison = compare(
            {
                "ours": partial(each.run, partial(engine.start_and_stop, apps)),
                "bare": partial(each.run, partial(rivals.bare_tasks, 12 * apps)),
            },
            plan.rounds,
        )
        seconds = comparison.median("ours")
        yield Row(
            what=f"{apps} apps × 10 handlers, start and stop",
            backend=each.name,
            measured=f"{seconds:.3f} s",
            rival=f"{12 * apps:,} bare tasks",
            beside=f"{comparison.median('bare'):.3f} s ({comparison.ratios('ours', 'bare').median:.1f} ×)",
            reach="at most",
            target=apps / 100,
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
    events = plan.times(500_000)
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


def options(plan: Plan) -> Iterator[Row]:
    """What handlers with options cost, beside one without, and beside what is built by hand for the same end."""
    events, paced = plan.times(20_000), plan.events(20_000)
    for each in BACKENDS:
        comparison = compare(
            {
                "retry": partial(each.run, partial(flow.retrying, events)),
                "plain": partial(each.run, partial(flow.plain, events)),
            },
            plan.rounds,
        )
        yield Row(
            what="pub_event, retry=, nothing fails",
            backend=each.name,
            measured=microseconds(comparison.median("retry")),
            rival="no option",
            beside=microseconds(comparison.median("plain")),
            ratio=comparison.ratios("retry", "plain"),
            reach="at most",
            target=1.05,
        )
    for what, count, ours, name, rival in (
        ("concurrency=4", events, flow.concurrent, "four tasks get", flow.four_getters),
        ("10,000 keys, one hot", events, flow.keyed, "a task for each key", flow.task_for_each_key),
        ("10,000 keys, one hot", events, flow.keyed, "a queue for each shard", flow.four_shards),
        ('overflow="latest", 100 keys', events, flow.latest, "a dict of the newest", flow.newest_in_a_dict),
        (
            "linger 5 ms, 100,000 a second (CPU)",
            paced,
            flow.lingering,
            "get with a timeout",
            flow.gathering_loop,
        ),
    ):
        contestants: dict[str, Contestant] = {
            each.name: partial(each.run, partial(ours, count)) for each in BACKENDS
        }
        contestants["rival"] = partial(ASYNCIO.run, partial(rival, count))
        comparison = compare(contestants, plan.rounds)
        for each in BACKENDS:
            yield faster(comparison, what, each, "rival", name, None)


PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "one": one_handler,
    "ten": ten_handlers,
    "hops": hops,
    "start": start_and_stop,
    "import": first_import,
    "memory": memory,
    "options": options,
}


def measure(plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    """Run the named parts; what is stored of them."""
    rows: list[Row] = []
    for name in parts:
        announce(name)
        rows += PARTS[name](plan)
    return {"rows": [asdict(row) for row in rows]}

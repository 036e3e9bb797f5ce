"""The benchmarks run, at a thousandth of their size and untimed, and the docs say what their stored results say.

Every contestant asserts for itself that all events were handled, so that none is fast by doing less.
"""

from __future__ import annotations

import json
import shutil
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import by_hand, curves, fans, libraries, page, peers, pictures, readme, results
from benchmarks.__main__ import chosen, main, parser
from benchmarks.measure import BACKENDS, TRIO, Backend, Plan, Quartiles, compare, quartiles

ROOT = Path(__file__).parents[1]
TINY = Plan(rounds=1, scale=0.001)


@pytest.fixture(autouse=True)
def _no_time_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting it before each contestant matters to those who measure; in a process full of tests it takes seconds."""
    monkeypatch.setattr("benchmarks.measure.collect", lambda: 0)


each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


# -- everything runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", by_hand.PARTS)
def test_a_part_gives_rows_that_survive_being_stored(part: str) -> None:
    rows = list(by_hand.PARTS[part](TINY))
    assert rows
    assert all(row.ratio or row.value is not None for row in rows)
    assert [by_hand.Row.load(json.loads(json.dumps(asdict(row)))) for row in rows] == rows


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("curve", curves.CURVES, ids=lambda curve: curve.name)
def test_every_line_of_a_curve_can_be_measured(curve: curves.Curve, place: int) -> None:
    contestants = curve.contestants(curve.points[place], TINY)
    assert {curves.titled(backend) for backend in BACKENDS} | {curve.rival} <= set(contestants)
    assert all(contestant() > 0 for contestant in contestants.values())


@each_backend
def test_event_flow_and_a_queue_by_hand_do_the_work_of_the_peers(backend: Backend) -> None:
    by_hand = fans.channel_for_each_handler_on_trio if backend is TRIO else fans.queue_for_each_handler

    async def works() -> float:
        return min([
            await libraries.event_flow(100, 10),
            await libraries.event_flow(10, 1, each=True),
            await by_hand(100, 10),
        ])  # fmt: skip

    assert backend.run(works) > 0


def test_every_peer_is_in_the_dependency_group_that_nox_installs() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert sorted(peer.name.lower() for peer in peers.PEERS) == [
        each.partition(">=")[0] for each in groups["peers"]
    ]


@each_backend
@pytest.mark.parametrize("work", peers.WORKS)
def test_peers_take_part_where_they_run(work: str, backend: Backend) -> None:
    taking_part = list(peers.contestants(backend, TINY, work))
    assert taking_part[0] == "Event Flow"
    assert ("bubus" in taking_part) == (backend is not TRIO)
    assert ("Litestar" in taking_part) == (not work.startswith("each"))
    assert "blinker" in taking_part


# -- rounds and what becomes of them -----------------------------------------------------------------------------------


def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def contestant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    comparison = compare({name: lambda name=name: contestant(name) for name in "abc"}, 2)  # type: ignore[misc]
    assert "".join(calls) == "abcbcacab"
    assert comparison.times == {"a": [6, 8], "b": [4, 9], "c": [5, 7]}


def test_ratios_are_made_within_a_round() -> None:
    times = iter([9.0, 9.0, 1.0, 2.0, 30.0, 10.0])  # b before a in the second; ten times as slow in the last
    comparison = compare({"a": lambda: next(times), "b": lambda: next(times)}, 2)
    assert comparison.ratios("a", "b") == pytest.approx((2, 3, 3))


def test_quartiles_enclose_half_of_the_rounds() -> None:
    assert quartiles([5, 1, 4, 2, 3, 9, 7]) == Quartiles(2, 4, 7)
    assert quartiles([1]) == Quartiles(1, 1, 1)


@pytest.mark.parametrize(
    ("ratio", "says"),
    [
        (Quartiles(0.5, 1.234, 12), "1.23 × (0.50 – 12.00)"),
        (Quartiles(9, 12.34, 15), "12.3 × (9.0 – 15.0)"),
        (Quartiles(998.6, 1234, 2000), "1,234 × (999 – 2,000)"),
    ],
)
def test_ratios_have_as_many_digits_as_mean_something(ratio: Quartiles, says: str) -> None:
    assert str(ratio) == says


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(3e-6, 8e-6, [2e-6, 5e-6, 1e-5]), (2e-7, 3e-3, [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, marks: list[float]) -> None:
    assert pictures.ticks(low, high) == pytest.approx(marks)


def test_labels_that_collide_are_spread_around_their_middle() -> None:
    assert pictures.spread([100, 10, 101, 102], 20) == [81, 10, 101, 121]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (1.5e-6, "1.5 µs"), (4.56e-7, "456 ns"), (9.997e-7, "1 µs")],
)
def test_durations_have_the_unit_that_fits(seconds: float, says: str) -> None:
    assert pictures.duration(seconds) == says


@pytest.mark.parametrize(
    ("value", "says"), [(894, "894"), (1234, "1.2 k"), (45_600, "46 k"), (1.44e6, "1.4 M")]
)
def test_numbers_have_two_digits_from_a_thousand_on(value: float, says: str) -> None:
    assert pictures.number(value) == says


# -- the docs ----------------------------------------------------------------------------------------------------------


def test_the_docs_say_what_the_stored_results_say(tmp_path: Path) -> None:
    """`python -m benchmarks --redraw` changes nothing."""
    shutil.copy(ROOT / "README.md", tmp_path)
    written = page.write(results.load(), tmp_path)
    assert len(written) == 3 + len(curves.CURVES)
    for path in written:
        kept = ROOT / path.relative_to(tmp_path)
        assert path.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), kept


def test_the_reading_of_a_curve_quotes_the_figures_that_were_measured() -> None:
    ratio = {curves.OURS: [0.4, 0.5, 0.6]}
    said = {
        curve.name: curve.says([{"x": 1, "ratio": {}}, {"x": 2345, "ratio": ratio}])
        for curve in curves.CURVES
    }
    assert not [words for words in said.values() if "{" in words]
    quoted = {
        name for name, words in said.items() if " 2,345 " in words and "0.50 × (0.40 – 0.60) as long" in words
    }
    assert quoted == {"classes", "applications", "publishers"}


def test_the_readme_says_what_hops_waiting_events_and_starts_cost() -> None:
    def row(what: str, measured: str, beside: str = "") -> by_hand.Row:
        return by_hand.Row(what=what, backend="asyncio", measured=measured, beside=beside)

    rows = [
        row("idle handler, one way", "3 µs", "2 µs"),
        row("a queued event, beyond itself", "7 bytes"),
        row("10 apps × 10 handlers, start and stop", "0.5 s"),
    ]
    said = readme.in_numbers(rows)
    for each in ("takes 3 µs", "takes 2 µs", "costs 7 bytes", "10 applications", "stop in 0.5 s"):
        assert each in said


def test_the_readme_names_version_spread_and_what_more_each_peer_does() -> None:
    section = results.load()["peers"]
    shown = readme.readme_peers(section)
    assert section["where"] in shown
    for peer in peers.PEERS:
        (line,) = [line for line in shown.splitlines() if line.startswith(f"| {peer.name} ")]
        assert section["versions"][peer.name] in line
        assert line.count(" × (") >= 2
        assert peer.more in line


def test_links_of_the_page_lead_somewhere() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    linked = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(linked) > len(curves.CURVES)
    headings = {
        "#" + line.strip("# ").lower().replace(" ", "-") for line in text.splitlines() if line[:2] == "##"
    }
    for link in linked:
        assert link in headings or (ROOT / "docs" / link).is_file(), link


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/images/benchmarks").glob("*.svg")), ids=lambda path: path.stem
)
def test_a_picture_is_sound_xml_in_two_themes_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    root = ET.fromstring(text)
    title, desc = (root.find(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc"))
    assert title is not None
    assert desc is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    assert title.text
    assert "Event Flow" in str(desc.text)
    assert "prefers-color-scheme: dark" in text
    assert "nan" not in text


def test_results_are_merged_by_section(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    results.store({"peers": {"a": 1.23456789}, "curves": {"b": [1e-7, 2e-7]}}, kept)
    results.store({"peers": {"c": 2}}, kept)
    assert results.load(kept) == {"peers": {"c": 2}, "curves": {"b": [1e-7, 2e-7]}}
    assert '"b": [ 1e-07, 2e-07 ]' in kept.read_text(encoding="utf-8")


def test_a_readme_without_its_comments_is_an_error() -> None:
    with pytest.raises(ValueError, match="one pair of comments for 'peers'"):
        readme.replaced("# Event Flow", "peers", "")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts", "peers_too", "curves_too"),
    [
        ("", 7, False, False),
        ("one ten", 2, False, False),
        ("--peers", 0, True, False),
        ("--peers --curves --write-docs", 0, True, True),
        ("--write-docs", 7, True, True),
    ],
)
def test_what_is_measured_is_what_was_asked_for(
    arguments: str, parts: int, peers_too: bool, curves_too: bool
) -> None:
    given = chosen(parser().parse_args(arguments.split()))
    assert (len(given.parts), given.peers, given.curves) == (parts, peers_too, curves_too)


@pytest.mark.parametrize("arguments", ["two", "--rounds 0", "one --write-docs"])
def test_a_command_that_makes_no_sense_is_refused(arguments: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())

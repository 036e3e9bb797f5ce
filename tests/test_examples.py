"""The examples run as a newcomer would run them: as scripts, from anywhere, with every warning an error."""

from __future__ import annotations

import json
import os
import re
import runpy
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from backends import REAL_TIME
from processes import CREATION_FLAGS, SENT, send

import event_flow
from event_flow.core.declaration import declarations_of
from event_flow.core.decorators import marks_of
from event_flow.core.function import is_async

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "example"
SOURCES = Path(event_flow.__file__).parents[1]
FEED = EXAMPLES / "data" / "earthquakes.geojson"

# Debug mode of asyncio remarks on callbacks that took longer than 0.1 s: that is about the machine.
SLOW = re.compile(r"Executing <.*> took [\d.]+ seconds\n")

# What the output must say. Only what comes on one line here has an order: the rest is up to the backend.
SAID = {
    "basic_event_handling": [
        "Exchange: a batch of 2 orders … order  2 BTCUSDT at 120000 … order  5 ETHUSDT at 4300.50",
        "order  2 BTCUSDT … trade  BTCUSDT is booked … trade  ETHUSDT is booked … Turnover: 261,502.50",
        "Journal: OrderPlacedEvent, OrderPlacedEvent, MarketClosedEvent",
        "Bookkeeping: the market has closed … 10 deliveries: 10 handled, 0 failed, 0 dropped, 0 abandoned",
    ],
    "schedule_tasks": [
        "prices are in sync",
        "the backup is done (in a thread, after 0.1 s of blocking)",
        "the cache is clean",
        "closing time … ticks of Shop.sync_prices: ",
        "ticks of Shop.close: 1",
    ],
    "background_tasks": [
        "scanner: parcel 1 … has packed parcel 1",
        "scanner: parcel 8 … has packed parcel 8 … station: all is packed … 9 deliveries: 9 handled, 0 failed",
        # Each takes 0.3 s for one, and parcels come faster: several workers are at it.
        "station: Ada has packed",
        "station: Grace has packed",
        "station: Edsger has packed",
    ],
    "lifecycle_hooks": [
        "1. engine: starting … 2. database: connecting … 3. sign-up: ready … 4. sign-up: closed",
        "4. sign-up: closed … 5. database: connection closed, 5 users inserted … 6. engine: has ended",
        "sign-up: ready … inserted Ada … 4. sign-up: closed … 5 deliveries: 5 handled, 0 failed",
    ],
    "flow_control": [
        # Full at once; the call hangs. What waits for another attempt holds nobody else up, and comes before what came later.
        "Ada [1, 2, 4]: attempt 1, closed by size … HandlerTimeout: Cashier.collect took longer than timeout=0.6 s",
        "Ada [1, 2, 4]: attempt 2, closed by size … Ada [1, 2, 4]: collected … Ada [6]: attempt 1, closed by linger",
        "Grace [3, 5, 7]: BatchFailed: 1 event failed, the first with CardDeclined('payment 5')",
        "dead letter of Cashier.collect: [5] … delivered again … Grace [5]: attempt 1 … Grace [5]: collected",
        "Edsger [8]: AuthError: please log in … resumed … Edsger [8]: attempt 2 … Edsger [8]: collected",
        "collected 222 of 222; 7 calls, 4 payments tried again … 10 deliveries: 9 handled, 1 failed, 0 dropped, 0 abandoned",
    ],
    "multi_app": [
        "processing:   order 1 (kettle) is on its way … notification: your kettle was shipped (order 1)",
        "monitoring:   order more of kettle",
        "monitoring:   healthy, ",
        "notification: sorry, kettle is sold out (order 7)",
        "api:          closed … 10 OrderPlacedEvent … 58 deliveries: 58 handled, 0 failed",
    ],
}


def command(example: str, *arguments: str | Path) -> list[str]:
    script = EXAMPLES / f"{example}.py"
    return [sys.executable, "-X", "dev", "-W", "error", str(script), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Ours, with the package that the tests run on, and loguru's own variable for a log of what went wrong only."""
    return {**os.environ, "PYTHONPATH": str(SOURCES), "LOGURU_LEVEL": "WARNING", **more}


def run(
    cwd: Path, example: str, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run an example to its end, in a directory that is not the project's."""
    ended = subprocess.run(
        command(example, *arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    ended.stderr = SLOW.sub("", ended.stderr)
    return ended


def assert_said(expected: str, output: str) -> None:
    """The parts of `expected`, with anything in between."""
    pattern = ".*".join(map(re.escape, expected.split(" … ")))
    assert re.search(pattern, output, re.DOTALL), f"{expected!r} is missing in:\n{output}"


@pytest.mark.realtime
@pytest.mark.parametrize("backend", REAL_TIME)
@pytest.mark.parametrize("example", SAID)
def test_an_example_ends_by_itself_and_shows_what_it_is_about(
    example: str, backend: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, example, "--backend", backend)
    assert ended.stderr == ""
    assert ended.returncode == 0
    for expected in SAID[example]:
        assert_said(expected, ended.stdout)


def test_the_first_example_declares_handlers_in_three_ways() -> None:
    """*Spec*: the naming convention, the decorator; and ours, a plain function."""
    names = runpy.run_path(str(EXAMPLES / "basic_event_handling.py"))
    ways = {
        name.startswith("on_") and not marks_of(vars(app)[name])
        for app in (names["Exchange"], names["Bookkeeping"])
        for name in declarations_of(app).handlers
    }
    assert ways == {True, False}
    assert [function for function, _ in names["engine"]._functions.values()] == [names["journal"]]


def test_the_example_of_schedules_shows_every_kind() -> None:
    """*Spec*: different intervals, `run_at_once`, async and sync."""
    shop = runpy.run_path(str(EXAMPLES / "schedule_tasks.py"))["Shop"]
    marks = declarations_of(shop).schedules
    assert len({mark.interval for mark in marks.values()}) > 1
    assert {(mark.run_at_once, is_async(getattr(shop, name))) for name, mark in marks.items()} >= {
        (True, True), (False, True), (True, False),
    }  # fmt: skip


@pytest.mark.realtime
@pytest.mark.parametrize("backend", REAL_TIME)
def test_the_engine_runs_wherever_the_example_embeds_it(backend: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "embedding", "--backend", backend)
    assert ended.stderr == ""
    assert ended.returncode == 0
    native = "a Trio nursery" if backend == "trio" else "an asyncio task group"
    report = "  1 delivery: 1 handled, 0 failed, 0 dropped, 0 abandoned\n"
    assert ended.stdout == (
        f"In a context manager:\n  hello from `async with`\n{report}"
        f"In an anyio task group:\n  hello from an anyio task group\n{report}"
        f"In {native.lower()}:\n  hello from {native}\n{report}"
    )


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_the_help_of_an_example_needs_only_ascii(example: str, tmp_path: Path) -> None:
    ended = run(tmp_path, example, "--help", PYTHONIOENCODING="ascii")
    assert ended.stderr == ""
    assert f"python example/{example}.py" in ended.stdout
    assert "--backend {asyncio,trio,uvloop}" in ended.stdout


# -- the demo ----------------------------------------------------------------------------------------------------------


def write_feed(path: Path, *records: Any) -> Path:
    text = json.dumps({"type": "FeatureCollection", "features": list(records)})
    path.write_text(text, encoding="utf-8")
    return path


def quake(**properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties}


def rows_of(database: Path) -> list[tuple[str, float, str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT time, magnitude, place FROM earthquakes ORDER BY rowid").fetchall()


def row(properties: dict[str, Any]) -> tuple[str, float, str]:
    moment = datetime.fromtimestamp(properties["time"] / 1000, UTC)
    return moment.isoformat(timespec="milliseconds"), properties["mag"], properties["place"]


@pytest.mark.realtime
@pytest.mark.parametrize("backend", REAL_TIME)
def test_the_demo_stores_counts_and_reports_what_is_in_the_feed(backend: str, tmp_path: Path) -> None:
    database = tmp_path / "quakes.db"
    ended = run(tmp_path, "earthquakes", "--seconds", "1.5", "--backend", backend, "--database", database)
    assert ended.stderr == ""
    assert ended.returncode == 0
    assert "\x1b" not in ended.stdout
    assert ended.stdout.count("  M ") == 39
    (hour, most), *_ = Counter(each["time"] // 3_600_000 for each in properties_of_feed()).most_common(1)
    busiest = datetime.fromtimestamp(hour * 3600, UTC)
    for expected in (
        "1,707 earthquakes, 2018-01-31 01:49 to 2018-02-07 01:26 UTC, in 1.5 s\n",
        "event time (UTC)  events  alerts  stored … in the file  1,707      39   1,707\n",
        "the engine   1,707      39   1,707  agrees\nskipped 0 records",
        f"busiest hour {busiest:%Y-%m-%d %H:%M} UTC, {most} earthquakes\n",
        "0 failed, 0 dropped, 0 abandoned\n",
    ):
        assert_said(expected, ended.stdout)
    # The progress line of the first second: event time, events, alerts, stored.
    assert re.search(r"^2018-0\d-\d\d \d\d:\d\d +[\d,]+ +\d+ +[\d,]+$", ended.stdout, re.MULTILINE)
    assert rows_of(database) == [row(each) for each in properties_of_feed()]


def properties_of_feed() -> list[dict[str, Any]]:
    """What is known of the earthquakes of the feed, oldest first."""
    features = json.loads(FEED.read_text(encoding="utf-8"))["features"]
    return sorted((feature["properties"] for feature in features), key=lambda each: int(each["time"]))


@pytest.mark.realtime
def test_the_demo_skips_and_counts_records_without_time_or_magnitude(tmp_path: Path) -> None:
    second, first, third, fourth = (
        {"time": 1517443200000 + 1000 * n, "mag": mag, "place": place}
        for n, mag, place in [(1, 0, "zero"), (0, -0.8, "negative"), (2, 5, "five"), (2, 4.99, "nearly")]
    )
    feed = write_feed(
        tmp_path / "feed.json",
        quake(**second),
        quake(mag=6.0, place="no time"),
        quake(**third),
        quake(time=1517443200000, place="no magnitude"),
        quake(time=1517443200000, mag=None, place="null"),
        quake(time=1517443200000, mag="6.0", place="text"),
        quake(time="yesterday", mag=6.0, place="text"),
        quake(time=True, mag=6.0, place="a truth"),
        quake(time=10**300, mag=6.0, place="after the end of time"),
        {"type": "Feature", "properties": None},
        {"type": "Feature"},
        "no record at all",
        None,
        quake(**fourth),
        quake(**first),
    )
    database = tmp_path / "quakes.db"
    for _ in range(2):
        ended = run(tmp_path, "earthquakes", "--seconds", "0.1", "--feed", feed, "--database", database)
        assert ended.stderr == ""
        assert ended.returncode == 0
        assert "the engine       4       1       4  agrees\n" in ended.stdout
        assert "skipped 11 records without time or magnitude\n" in ended.stdout
        assert "M 5.0  five" in ended.stdout
        assert rows_of(database) == [row(each) for each in (first, second, third, fourth)]


def test_the_demo_replays_a_feed_without_earthquakes(tmp_path: Path) -> None:
    ended = run(tmp_path, "earthquakes", "--feed", write_feed(tmp_path / "feed.json"))
    assert ended.stderr == ""
    assert ended.returncode == 0
    assert "the engine       0       0       0  agrees\n" in ended.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read {feed}: No such file or directory"),
        ("time,mag\n", "{feed} is not JSON: "),
        ('{"features": 7}', '{feed} is not a GeoJSON feed: it has no list "features"'),
        ('{"type": "FeatureCollection"}', '{feed} is not a GeoJSON feed: it has no list "features"'),
        ("[]", '{feed} is not a GeoJSON feed: it has no list "features"'),
    ],
    ids=["missing", "not JSON", "features no list", "no features", "no object"],
)
def test_the_demo_refuses_what_is_no_feed_in_one_line(text: str | None, reason: str, tmp_path: Path) -> None:
    feed, database = tmp_path / "feed.json", tmp_path / "quakes.db"
    if text is not None:
        feed.write_text(text, encoding="utf-8")
    ended = run(tmp_path, "earthquakes", "--feed", feed, "--database", database)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"earthquakes: {reason.format(feed=feed)}")
    assert ended.stderr.count("\n") == 1
    assert not database.exists()


def test_the_demo_refuses_what_is_no_database_in_one_line(tmp_path: Path) -> None:
    database = tmp_path / "letter.txt"
    database.write_text("Dear Sir or Madam, " * 100, encoding="ascii")
    ended = run(tmp_path, "earthquakes", "--seconds", "0.1", "--database", database)
    assert ended.returncode == 1
    assert ended.stderr == "earthquakes: the database fails: file is not a database\n"
    assert database.read_text(encoding="ascii") == "Dear Sir or Madam, " * 100


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "soon"])
def test_the_demo_takes_only_a_finite_time(seconds: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "earthquakes", "--seconds", seconds)
    assert ended.returncode == 2
    assert "argument --seconds: " in ended.stderr


@pytest.mark.realtime
@pytest.mark.parametrize("backend", REAL_TIME)
def test_the_demo_sums_up_what_was_done_when_it_is_interrupted(backend: str, tmp_path: Path) -> None:
    database = tmp_path / "quakes.db"
    arguments = "--seconds", "600", "--backend", backend, "--database", database
    with subprocess.Popen(
        command("earthquakes", *arguments),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=CREATION_FLAGS,
    ) as demo:
        assert demo.stdout is not None
        while "  M " not in demo.stdout.readline():  # the first alert comes within a second
            assert demo.poll() is None
        send(demo, SENT[0])
        output, errors = demo.communicate(timeout=40)
    assert SLOW.sub("", errors) == ""
    assert demo.returncode == 0
    stored = rows_of(database)
    assert 0 < len(stored) < 1707
    assert stored == [row(each) for each in properties_of_feed()[: len(stored)]]
    assert f"Stopped after {len(stored)} of 1,707 earthquakes.\n" in output
    alerts = sum(magnitude >= 5 for _, magnitude, _ in stored)
    assert f"the engine  {len(stored):6}  {alerts:6}  {len(stored):6}  agrees\n" in output
    assert "0 failed, 0 dropped, 0 abandoned\n" in output


@pytest.mark.realtime
def test_the_demo_fails_when_the_database_holds_something_else_than_the_feed(tmp_path: Path) -> None:
    database = tmp_path / "quakes.db"
    with subprocess.Popen(
        command("earthquakes", "--seconds", "2.5", "--database", database),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        while not re.search(r"  [1-9]\d*$", demo.stdout.readline()):  # a progress line: rows are stored
            assert demo.poll() is None
        with closing(sqlite3.connect(database)) as thief, thief:
            thief.execute("DELETE FROM earthquakes WHERE rowid = 1")
        output, _ = demo.communicate(timeout=40)
    assert demo.returncode == 1
    assert "the engine   1,707      39   1,706  DISAGREES\n" in output


@pytest.mark.skipif(sys.platform == "win32", reason="there, it is not EPIPE that says so")
def test_the_demo_ends_quietly_when_nobody_reads_on(tmp_path: Path) -> None:
    """`earthquakes.py | head -2`."""
    with subprocess.Popen(
        command("earthquakes", "--seconds", "0.5"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(40) == 141
    assert said.endswith("earthquakes: nobody reads on\n")
    assert "Traceback" not in said

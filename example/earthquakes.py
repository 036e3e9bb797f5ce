"""Replay a week of real earthquakes through the engine: store them, raise alerts, count, and check the result.

Run it with `python example/earthquakes.py --seconds 5 --backend trio`. The events come in the order and
rhythm of the feed, only faster. Ctrl+C ends the replay in order.

    Replay -> QuakeEvent -+-> Store -> StoredEvent -+
                          +-> Alarm -> AlertEvent --+-> Progress, a line a second
                          +-------------------------+
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import orjson
from loguru import logger

from event_flow import AppEngine, Application, BackendNotInstalled, Event, on_event, schedule, task

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}
FEED = Path(__file__).parent / "data" / "earthquakes.geojson"
ALERT_FROM = 5.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MINUTE = "%Y-%m-%d %H:%M"
HEADER = "event time (UTC)  events  alerts  stored"
ALERT = "\033[1;31m{}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else "{}"
show = functools.partial(print, flush=True)


# -- the feed ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quake:
    time: datetime
    magnitude: float
    place: str

    @property
    def hour(self) -> datetime:
        return self.time.replace(minute=0, second=0, microsecond=0)


class FeedError(Exception):
    """The file is not a feed."""


def read_feed(path: Path) -> list[Any]:
    """The records of a GeoJSON feed, as they are. Raises `FeedError`."""
    try:
        feed = orjson.loads(path.read_bytes())
    except OSError as exc:
        raise FeedError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except orjson.JSONDecodeError as exc:
        raise FeedError(f"{path} is not JSON: {exc}") from exc
    features = feed.get("features") if isinstance(feed, dict) else None
    if not isinstance(features, list):
        raise FeedError(f'{path} is not a GeoJSON feed: it has no list "features"')
    return features


def parse(record: Any) -> Quake | None:
    """The earthquake of a record, or None without a time and a magnitude. Magnitudes of 0 and below are real."""
    try:
        properties = record["properties"]
        milliseconds, magnitude, place = properties["time"], properties["mag"], properties.get("place")
        # Not isinstance: true and false are no numbers here.
        if {type(milliseconds), type(magnitude)} <= {int, float}:
            moment = EPOCH + timedelta(milliseconds=milliseconds)
            return Quake(moment, float(magnitude), place if isinstance(place, str) else "an unknown place")
    except (KeyError, TypeError, OverflowError):
        pass
    return None


def in_order(records: list[Any]) -> list[Quake]:
    """The earthquakes among the records, in order of time."""
    return sorted(filter(None, map(parse, records)), key=lambda quake: quake.time)


# -- the events --------------------------------------------------------------------------------------------------------


class QuakeEvent(Event[Quake]):
    """The earth shook."""


class AlertEvent(Event[Quake]):
    """It shook hard."""


class StoredEvent(Event[int]):
    """So many earthquakes more are in the database."""


# -- the applications --------------------------------------------------------------------------------------------------


class Replay(Application):
    """Publishes the feed in order of time, compressed into `seconds`. Then it stops the engine."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__()
        self.path = path
        self.seconds = seconds
        self.records: list[Any] = []
        self.published = 0

    def before_start(self) -> None:
        """Sync, so a big file holds up nobody. If it cannot be read, nothing starts."""
        self.records = read_feed(self.path)

    @task
    async def replay(self) -> None:
        quakes = in_order(self.records)
        if quakes:
            await self.publish(quakes, quakes[0].time, quakes[-1].time)
        self.engine.stop()

    async def publish(self, quakes: list[Quake], first: datetime, last: datetime) -> None:
        show(f"{len(quakes):,} earthquakes, {first:{MINUTE}} to {last:{MINUTE}} UTC, in {self.seconds:g} s")
        show(HEADER)
        start = anyio.current_time()
        pace = self.seconds / max((last - first).total_seconds(), 0.001)
        for quake in quakes:
            await anyio.sleep_until(start + (quake.time - first).total_seconds() * pace)
            await self.engine.pub_event(QuakeEvent(quake))
            self.published += 1


class Store(Application):
    """Keeps the earthquakes in SQLite. One thread owns the connection from the first statement to the last."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.owner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")

    def before_start(self) -> None:
        self.owner.submit(self._open).result()

    @on_event(QuakeEvent)
    def store(self, events: list[QuakeEvent]) -> None:
        """One transaction a batch. It returns when that is committed, so a slow disk slows the replay down."""
        self.owner.submit(self._insert, [event.data for event in events]).result()
        self.engine.pub_event_from_thread(StoredEvent(len(events)))

    def exit(self) -> None:
        self.owner.submit(self.connection.close).result()
        self.owner.shutdown()

    def _open(self) -> None:
        self.connection = sqlite3.connect(self.path)
        try:
            self.connection.execute("DROP TABLE IF EXISTS earthquakes")
            self.connection.execute("CREATE TABLE earthquakes (time TEXT, magnitude REAL, place TEXT)")
        except sqlite3.Error:
            self.connection.close()
            raise

    def _insert(self, quakes: list[Quake]) -> None:
        rows = [
            (quake.time.isoformat(timespec="milliseconds"), quake.magnitude, quake.place) for quake in quakes
        ]
        with self.connection:
            self.connection.executemany("INSERT INTO earthquakes VALUES (?, ?, ?)", rows)


class Alarm(Application):
    """Tells the strong earthquakes from the others."""

    async def on_quakes(self, events: list[QuakeEvent]) -> None:
        for event in events:
            if event.data.magnitude >= ALERT_FROM:
                await self.engine.pub_event(AlertEvent(event.data))


class Progress(Application):
    """Counts what happens, and shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = EPOCH
        self.hours: Counter[datetime] = Counter()
        self.alerts = 0
        self.stored = 0

    async def on_quakes(self, events: list[QuakeEvent]) -> None:
        self.now = events[-1].data.time
        self.hours.update(event.data.hour for event in events)

    async def on_alerts(self, events: list[AlertEvent]) -> None:
        self.alerts += len(events)
        for event in events:
            quake = event.data
            show(f"{quake.time:{MINUTE}} ", ALERT.format(f"M {quake.magnitude:.1f}  {quake.place}"))

    async def on_stored(self, events: list[StoredEvent]) -> None:
        self.stored += sum(event.data for event in events)

    @schedule(interval=1, run_at_once=False)
    async def show_progress(self) -> None:
        show(f"{self.now:{MINUTE}}  {self.hours.total():6,}  {self.alerts:6,}  {self.stored:6,}")


# -- the program -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one counted."""

    hours: Counter[datetime]
    alerts: int
    stored: int

    def __str__(self) -> str:
        return f"{self.hours.total():6,}  {self.alerts:6,}  {self.stored:6,}"


def count(quakes: list[Quake]) -> Tally:
    """What must come of these earthquakes, counted past the engine."""
    return Tally(
        hours=Counter(quake.hour for quake in quakes),
        alerts=sum(quake.magnitude >= ALERT_FROM for quake in quakes),
        stored=len(quakes),
    )


def count_rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        rows: int = connection.execute("SELECT count(*) FROM earthquakes").fetchone()[0]
    return rows


def summarise(replay: Replay, progress: Progress, rows: int) -> bool:
    """Show what came of the replay beside what the file says. Whether they agree."""
    quakes = in_order(replay.records)
    replayed = quakes[: replay.published]
    expected = count(replayed)
    found = Tally(hours=progress.hours, alerts=progress.alerts, stored=rows)
    agree = found == expected and progress.stored == rows
    show()
    source = "in the file"
    if len(replayed) < len(quakes):
        show(f"Stopped after {len(replayed):,} of {len(quakes):,} earthquakes.")
        source = "replayed"
    show("            events  alerts  stored")
    show(f"{source:11} {expected}")
    show(f"the engine  {found}  {'agrees' if agree else 'DISAGREES'}")
    show(f"skipped {len(replay.records) - len(quakes):,} records without time or magnitude")
    if found.hours:
        hour, most = found.hours.most_common(1)[0]
        show(f"busiest hour {hour:{MINUTE}} UTC, {most:,} earthquakes")
    return agree


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    parser.add_argument("--seconds", type=seconds, default=18.0, help="how long the replay takes (18)")
    parser.add_argument("--feed", type=Path, default=FEED, help="GeoJSON of the USGS (example/data)")
    parser.add_argument("--database", type=Path, help="SQLite; the table earthquakes is replaced (temporary)")
    return parser.parse_args()


def demo(options: argparse.Namespace, database: Path) -> int:
    """Run the replay. The exit status: 0 if what came of it is what is in the file."""
    replay, progress = Replay(options.feed, options.seconds), Progress()
    # Strict: a failure ends the demo, and is not one outcome among others.
    engine = AppEngine([replay, Store(database), Alarm(), progress], on_error="raise")
    report = engine.start(*BACKENDS[options.backend])
    # Counted over a connection of its own: only what was committed is there.
    agree = summarise(replay, progress, count_rows(database) if replay.published else 0)
    stored = engine.statistics().handlers["Store.store"]
    show(f"stored in {stored.batches:,} batches, the largest of {stored.largest_batch:,}")
    show(report)
    return 0 if agree else 1


def main() -> int:
    options = arguments()
    logger.configure(
        handlers=[{"sink": sys.stderr, "level": "WARNING", "backtrace": False, "diagnose": False}]
    )
    reason: object
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return demo(options, options.database or Path(scratch) / "earthquakes.db")
    except (FeedError, BackendNotInstalled) as exc:
        status, reason = 1, exc
    except sqlite3.Error as exc:
        status, reason = 1, f"the database fails: {exc}"
    except KeyboardInterrupt:
        status, reason = 130, "stopped at once"
    except BrokenPipeError:
        # Python writes what is left at its exit, and would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status, reason = 141, "nobody reads on"
    print(f"earthquakes: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

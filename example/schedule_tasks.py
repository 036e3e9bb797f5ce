"""Things to do again and again: schedules that start at once or later, async and sync.

Run it with `python example/schedule_tasks.py --backend trio`.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta

from event_flow import AppEngine, Application, schedule

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


class Shop(Application):
    def __init__(self) -> None:
        super().__init__()
        self.opened = time.monotonic()

    async def before_start(self) -> None:
        self.opened = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.opened:5.1f} s  {what}")

    @schedule(interval=0.2)
    async def sync_prices(self) -> None:
        """At the start, and every 0.2 s from then on."""
        self.say("prices are in sync")

    @schedule(interval=0.5, run_at_once=False)
    async def clean_cache(self) -> None:
        """For the first time after 0.5 s."""
        self.say("the cache is clean")

    @schedule(interval=timedelta(milliseconds=400))
    def back_up(self) -> None:
        """Sync code runs in a thread: it may block without holding up anything else."""
        time.sleep(0.1)
        self.say("the backup is done (in a thread, after 0.1 s of blocking)")

    @schedule(interval=1.1, run_at_once=False)
    async def close(self) -> None:
        self.say("closing time")
        self.engine.stop()


engine = AppEngine([Shop()])

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    engine.start(*BACKENDS[parser.parse_args().backend])
    for name, statistics in engine.statistics().schedules.items():
        print(f"ticks of {name}: {statistics.ticks}")

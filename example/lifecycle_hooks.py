"""What happens before the first event and after the last: hooks of applications and of the engine.

Run it with `python example/lifecycle_hooks.py --backend trio`.

The end is the start in reverse, and what was published is handled before: the connection is open for as long as anybody
needs it.
"""

from __future__ import annotations

import argparse

import anyio

from event_flow import AppEngine, Application, Event, task

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


class UserCreatedEvent(Event[str]):
    pass


class Connection:
    """Stands for the connection of your database's driver."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.is_open = False

    async def open(self) -> None:
        await anyio.sleep(0.2)
        self.is_open = True

    async def insert(self, rows: list[str]) -> None:
        if not self.is_open:
            raise ConnectionError("the connection is closed")
        await anyio.sleep(0.1)
        self.rows += rows

    async def close(self) -> None:
        await anyio.sleep(0.2)
        self.is_open = False


class Database(Application):
    async def before_start(self) -> None:
        print("2. database: connecting")
        self.connection = Connection()
        await self.connection.open()

    async def on_users(self, events: list[UserCreatedEvent]) -> None:
        names = [event.data for event in events]
        await self.connection.insert(names)
        print(f"   database: inserted {', '.join(names)}")

    async def exit(self) -> None:
        await self.connection.close()
        print(f"5. database: connection closed, {len(self.connection.rows)} users inserted")


class SignUp(Application):
    def before_start(self) -> None:
        """Hooks may be sync: then they run in a thread."""
        print("3. sign-up: ready")

    @task
    async def create_users(self) -> None:
        for name in ("Ada", "Grace", "Barbara", "Frances", "Margaret"):
            await self.engine.pub_event(UserCreatedEvent(name))
            await anyio.sleep(0.04)
        print("   sign-up: stops the engine while events are still waiting")
        self.engine.stop()

    def exit(self) -> None:
        print("4. sign-up: closed")


engine = AppEngine([Database(), SignUp()], grace_period=5, start_timeout=5, exit_timeout=5)


@engine.before_start
async def say_hello() -> None:
    print("1. engine: starting")


@engine.exit
async def say_goodbye() -> None:
    """Also runs when the start fails."""
    print("6. engine: has ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    print(engine.start(*BACKENDS[parser.parse_args().backend]))

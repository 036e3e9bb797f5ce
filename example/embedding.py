"""The engine inside a program that has an event loop already: four places where it can run.

Run it with `python example/embedding.py --backend trio`.
"""

from __future__ import annotations

import argparse

import anyio

from event_flow import AppEngine, Application, Event

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


class GreetingEvent(Event[str]):
    pass


class Greeter(Application):
    async def on_greetings(self, events: list[GreetingEvent]) -> None:
        for event in events:
            print(f"  hello from {event.data}")


async def in_a_context_manager() -> None:
    """The engine runs for as long as the block does, and handles what was published before the block ends."""
    async with AppEngine([Greeter()]) as engine:
        await engine.pub_event(GreetingEvent("`async with`"))
    print(f"  {engine.report}")


async def in_an_anyio_task_group() -> None:
    """`start` returns when everything has started. Cancelling the group ends the engine in order, too."""
    engine = AppEngine([Greeter()])
    async with anyio.create_task_group() as group:
        await group.start(engine.run)
        await engine.pub_event(GreetingEvent("an anyio task group"))
        await engine.wait_idle()
        engine.stop()
    print(f"  {engine.report}")


async def in_a_trio_nursery() -> None:
    import trio

    async with trio.open_nursery() as nursery:
        engine: AppEngine = await nursery.start(AppEngine([Greeter()]).run)
        await engine.pub_event(GreetingEvent("a Trio nursery"))
        engine.stop()
    print(f"  {engine.report}")


async def in_an_asyncio_task_group() -> None:
    import asyncio

    engine = AppEngine([Greeter()])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(engine.run())
        await engine.wait_running()
        await engine.pub_event(GreetingEvent("an asyncio task group"))
        engine.stop()
    print(f"  {running.result()}")


async def main(backend: str) -> None:
    native = in_a_trio_nursery if backend == "trio" else in_an_asyncio_task_group
    for embed in (in_a_context_manager, in_an_anyio_task_group, native):
        print(f"{embed.__name__.replace('_', ' ').capitalize()}:")
        await embed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    backend, options = BACKENDS[parser.parse_args().backend]
    anyio.run(main, backend, backend=backend, backend_options=options)

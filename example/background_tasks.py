"""Tasks that run beside the handlers: a sync one that blocks on a device, an async one with several workers, and a queue.

Run it with `python example/background_tasks.py --backend trio`.

Parcels go from the scanner over the bus to the belt, and from the belt to whichever packer is free. The belt is short: when
it is full, the handler waits, and behind it the scanner.
"""

from __future__ import annotations

import argparse
import time

import anyio

from event_flow import AppEngine, Application, Event, task

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


class ParcelScannedEvent(Event[str]):
    pass


class ScannerOffEvent(Event[None]):
    pass


class Scanner(Application):
    @task
    def scan(self) -> None:
        """Sync, so it has a thread to itself and may block for as long as it likes."""
        for number in range(1, 9):
            time.sleep(0.05)
            print(f"scanner: parcel {number}")
            self.engine.pub_event_from_thread(ParcelScannedEvent(f"parcel {number}"))
        self.engine.pub_event_from_thread(ScannerOffEvent())


class PackingStation(Application):
    async def before_start(self) -> None:
        self.belt, self.belt_end = anyio.create_memory_object_stream[str](max_buffer_size=2)

    async def exit(self) -> None:
        self.belt.close()
        self.belt_end.close()

    async def on_scans(self, events: list[ParcelScannedEvent | ScannerOffEvent]) -> None:
        """One handler of two classes gets their events in the order in which they were published."""
        for event in events:
            if isinstance(event, ParcelScannedEvent):
                await self.belt.send(event.data)
            else:
                self.belt.close()

    @task
    async def pack(self) -> None:
        """Three workers in a task group. It ends with the last of them, when the belt is closed and empty."""
        async with anyio.create_task_group() as packers:
            for name in ("Ada", "Grace", "Edsger"):
                packers.start_soon(self.pack_parcels, name)
        print("station: all is packed")
        self.engine.stop()

    async def pack_parcels(self, packer: str) -> None:
        with self.belt_end.clone() as parcels:
            async for parcel in parcels:
                await anyio.sleep(0.3)
                print(f"station: {packer} has packed {parcel}")


# A small queue_size, so that the scanner does wait.
engine = AppEngine([Scanner(), PackingStation()], queue_size=2)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    print(engine.start(*BACKENDS[parser.parse_args().backend]))

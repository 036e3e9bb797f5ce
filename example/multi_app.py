"""Five applications on one bus, none of which knows another: they know the events.

Run it with `python example/multi_app.py --backend trio`.

    OrderApi -> OrderPlaced -> Inventory -> StockReserved -> OrderProcessing -> OrderShipped -> Notifications
                                   +------> SoldOut -----------------------------------------> Notifications
                                   +------> StockLow -> Monitoring, which also looks at the engine's health
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from itertools import cycle

import anyio

from event_flow import AppEngine, Application, Event, ExceptionEvent, on_event, schedule

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


@dataclass(frozen=True)
class Order:
    number: int
    product: str


class OrderPlacedEvent(Event[Order]):
    pass


class StockReservedEvent(Event[Order]):
    pass


class SoldOutEvent(Event[Order]):
    pass


class StockLowEvent(Event[str]):
    pass


class OrderShippedEvent(Event[Order]):
    pass


class OrderApi(Application):
    """Takes orders. Here they come from a schedule, elsewhere from HTTP requests."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.taken = 0
        self.products = cycle(["kettle", "teapot", "kettle", "cup"])

    @schedule(interval=0.12)
    async def take_order(self) -> None:
        self.taken += 1
        await self.engine.pub_event(OrderPlacedEvent(Order(self.taken, next(self.products))))
        if self.taken == self.last:
            print("api:          closed; the orders that came are still processed")
            self.engine.stop()


class Inventory(Application):
    """Tracks the stock. A handler is never entered twice at a time, so the dict needs no lock."""

    def __init__(self, stock: dict[str, int]) -> None:
        super().__init__()
        self.stock = stock

    @on_event(OrderPlacedEvent)
    async def reserve(self, events: list[OrderPlacedEvent]) -> None:
        for event in events:
            product = event.data.product
            if self.stock[product] == 0:
                await self.engine.pub_event(SoldOutEvent(event.data))
                continue
            self.stock[product] -= 1
            await self.engine.pub_event(StockReservedEvent(event.data))
            if self.stock[product] == 1:
                await self.engine.pub_event(StockLowEvent(product))


class OrderProcessing(Application):
    @on_event(StockReservedEvent)
    async def ship(self, events: list[StockReservedEvent]) -> None:
        for event in events:
            await anyio.sleep(0.05)
            print(f"processing:   order {event.data.number} ({event.data.product}) is on its way")
            await self.engine.pub_event(OrderShippedEvent(event.data))


class Notifications(Application):
    @on_event(OrderShippedEvent)
    async def tell_shipped(self, events: list[OrderShippedEvent]) -> None:
        for event in events:
            print(f"notification: your {event.data.product} was shipped (order {event.data.number})")

    @on_event(SoldOutEvent)
    async def tell_sold_out(self, events: list[SoldOutEvent]) -> None:
        for event in events:
            print(f"notification: sorry, {event.data.product} is sold out (order {event.data.number})")


class Monitoring(Application):
    """Sees every event, reports on the health of the engine, and is told of failures."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    async def on_anything(self, events: list[Event]) -> None:
        self.seen.update(type(event).__name__ for event in events)

    async def on_low_stock(self, events: list[StockLowEvent]) -> None:
        for event in events:
            print(f"monitoring:   order more of {event.data}")

    async def on_failures(self, events: list[ExceptionEvent]) -> None:
        for event in events:
            print(f"monitoring:   {event.handler} failed: {event.data!r}")

    @schedule(interval=0.5, run_at_once=False)
    async def check_health(self) -> None:
        now = self.engine.statistics()
        print(f"monitoring:   healthy, {now.handled} handled, {now.queued} waiting, {now.failed} failed")


monitoring = Monitoring()
engine = AppEngine(
    [
        OrderApi(last=10),
        Inventory({"kettle": 3, "teapot": 5, "cup": 5}),
        OrderProcessing(),
        Notifications(),
        monitoring,
    ]
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    report = engine.start(*BACKENDS[parser.parse_args().backend])
    for name, count in monitoring.seen.most_common():
        print(f"{count:4} {name}")
    print(report)

"""Three ways to declare a handler, and events that lead to events: an order is placed, a trade follows.

Run it with `python example/basic_event_handling.py --backend trio`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from decimal import Decimal

from event_flow import AppEngine, Application, Event, on_event

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}


@dataclass(frozen=True)
class Order:
    symbol: str
    amount: int
    price: Decimal


class OrderPlacedEvent(Event[Order]):
    pass


class TradeEvent(Event[Order]):
    pass


class MarketClosedEvent(Event[None]):
    pass


class Exchange(Application):
    # A method named `on_*` is a handler of the events that its annotation names.
    async def on_orders(self, events: list[OrderPlacedEvent]) -> None:
        """Gets what came since its last call as one list, in the order in which it was published."""
        print(f"Exchange: a batch of {len(events)} orders")
        for event in events:
            print(f"  order  {event.data.amount} {event.data.symbol} at {event.data.price}")
            await self.engine.pub_event(TradeEvent(event.data))


class Bookkeeping(Application):
    def __init__(self) -> None:
        super().__init__()
        self.turnover = Decimal(0)

    # With the decorator the method may have any name.
    @on_event(TradeEvent)
    async def book(self, events: list[TradeEvent]) -> None:
        for event in events:
            print(f"  trade  {event.data.symbol} is booked")
            self.turnover += event.data.amount * event.data.price

    @on_event(MarketClosedEvent)
    async def close(self, _events: list[MarketClosedEvent]) -> None:
        print("Bookkeeping: the market has closed; what was published is still handled")
        self.engine.stop()


exchange, bookkeeping = Exchange(), Bookkeeping()
engine = AppEngine([exchange, bookkeeping])


# A plain function is a handler too. This one wants every event, because `Event` is the base of all.
@engine.on_event(Event)
async def journal(events: list[Event]) -> None:
    print(f"Journal: {', '.join(type(event).__name__ for event in events)}")


@engine.before_start
async def publish_first_events() -> None:
    """What is published before the start is kept, and handled as soon as the handlers run."""
    await engine.pub_event(OrderPlacedEvent(Order("BTCUSDT", 2, Decimal(120_000))))
    await engine.pub_event(OrderPlacedEvent(Order("ETHUSDT", 5, Decimal("4300.50"))))
    await engine.pub_event(MarketClosedEvent())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    report = engine.start(*BACKENDS[parser.parse_args().backend])
    print(f"Turnover: {bookkeeping.turnover:,}")
    print(report)

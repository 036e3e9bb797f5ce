"""Flow control: a handler that calls a flaky payment service, and what its options make of that.

Run it with `python example/flow_control.py --backend trio`.

    payments --> a queue for each account --> collect --> the service: hangs, declines cards, wants a new login
                 batches that linger,           |
                 at a rate                      +-- takes too long: tried again
                                                +-- one of a batch declined: a dead letter of that one
                                                +-- login expired: the handler is paused until there is a new one
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from loguru import logger

from event_flow import (
    AppEngine,
    Application,
    Batch,
    BatchFailed,
    Event,
    ExceptionEvent,
    Rate,
    Retry,
    on_event,
    task,
)

BACKENDS = {"asyncio": ("asyncio", {}), "trio": ("trio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}

STARTED = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - STARTED:4.1f} s  {what}")


@dataclass(frozen=True)
class Payment:
    number: int
    account: str
    amount: int


class PaymentDueEvent(Event[Payment]):
    pass


class AuthError(Exception):
    """The service wants us to log in again."""


class CardDeclined(Exception):
    """One payment that cannot be collected, whatever becomes of the others."""


class PaymentService:
    """Somebody else's. Its first call hangs, before the third it forgets who we are, and payment 5 has a bad card."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_logged_in = True
        self.bad_cards = {5}

    async def collect(self, payments: list[Payment]) -> set[int]:
        """Collect all of them in one call; return the numbers of those whose card was declined."""
        self.calls += 1
        if self.calls == 1:
            await anyio.sleep_forever()
        if self.calls == 3:
            self.is_logged_in = False
        if not self.is_logged_in:
            raise AuthError("please log in")
        await anyio.sleep(0.05)
        return self.bad_cards & {payment.number for payment in payments}

    async def log_in(self) -> None:
        await anyio.sleep(0.2)
        self.is_logged_in = True


class Cashier(Application):
    """Collects what is due."""

    def __init__(self, service: PaymentService) -> None:
        super().__init__()
        self.service = service
        self.collected = 0

    async def before_start(self) -> None:
        self.login_expired = anyio.Event()

    @on_event(
        PaymentDueEvent,
        # A batch holds payments of one account, at most three; one that is smaller waits 0.2 s for company. Two calls
        # at once, never two of one account.
        key=lambda event: event.data.account,
        max_batch=3,
        linger=0.2,
        concurrency=2,
        # The service allows five payments a second, and six at once. What is tried again counts again.
        rate=Rate(5, burst=6),
        # A call that takes longer than 0.6 s has failed. It is made again, after 0.1 s or a little more.
        timeout=0.6,
        retry=Retry(on=TimeoutError, attempts=3, wait_initial=0.1, wait_jitter=0.05, seed=1),
        # Without a login every call would fail. What fails for any other reason is a dead letter.
        on_failure={AuthError: "pause"},
    )
    async def collect(self, batch: Batch[PaymentDueEvent]) -> None:
        try:
            declined = await self.service.collect([event.data for event in batch])
        except AuthError:
            self.login_expired.set()
            raise
        failed = {
            event: CardDeclined(f"payment {event.data.number}")
            for event in batch
            if event.data.number in declined
        }
        self.collected += sum(event.data.amount for event in batch if event not in failed)
        if failed:
            raise BatchFailed(failed)

    @task
    async def stay_logged_in(self) -> None:
        """Has the handler go on once there is a new login. The batch it was paused with comes again."""
        while True:
            await self.login_expired.wait()
            self.login_expired = anyio.Event()
            await self.service.log_in()
            say("logged in again: the handler is resumed")
            self.engine.handlers["Cashier.collect"].resume()


async def tell(batch: Batch[PaymentDueEvent], call_next: Callable[[Batch], Awaitable[None]]) -> None:
    """Middleware: says what goes into the handler and what comes out."""
    what = f"{batch.key} {[event.data.number for event in batch]}"
    say(f"{what}: attempt {batch.attempt}, closed by {batch.closed_by}")
    try:
        await call_next(batch)
    except Exception as error:
        say(f"{what}: {type(error).__name__}: {error}")
        raise
    say(f"{what}: collected")


class DeadLetters(Application):
    """Keeps what was given up, and hands it back when it may succeed."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[ExceptionEvent] = []

    async def on_failures(self, failures: list[ExceptionEvent]) -> None:
        for failure in failures:
            say(f"dead letter of {failure.handler}: {[event.data.number for event in failure.events]}")
        self.failures += failures

    async def redeliver(self) -> None:
        for failure in self.failures:
            await failure.redeliver()


class Shop(Application):
    """Sells for a while, waits until all is quiet, and has another look at what failed."""

    sold = (
        ("Ada", 20), ("Ada", 5), ("Grace", 12), ("Ada", 8), ("Grace", 99), ("Ada", 3), ("Grace", 30), ("Edsger", 45),
    )  # fmt: skip

    @task
    async def sell(self) -> None:
        for number, (account, amount) in enumerate(self.sold, 1):
            await self.engine.pub_event(PaymentDueEvent(Payment(number, account, amount)))
        await (
            self.engine.wait_idle()
        )  # what waits for company, for its rate or for another attempt is not idle
        service.bad_cards.clear()
        say("Grace has a new card: what was declined is delivered again")
        await dead_letters.redeliver()
        await self.engine.wait_idle()
        self.engine.stop()


service = PaymentService()
cashier = Cashier(service)
cashier.add_middleware(tell)
dead_letters = DeadLetters()
engine = AppEngine([cashier, dead_letters, Shop()])

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    backend = BACKENDS[parser.parse_args().backend]
    # The failures are the point, and told of above; the log would tell of them again.
    logger.disable("event_flow")
    report = engine.start(*backend)
    numbers = engine.statistics().handlers["Cashier.collect"]
    due = sum(amount for _, amount in Shop.sold)
    print(
        f"collected {cashier.collected} of {due}; {numbers.batches} calls, {numbers.retried} payments tried again"
    )
    print(report)

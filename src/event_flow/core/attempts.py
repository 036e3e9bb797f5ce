"""The worker of a handler whose options ask for more: it makes attempts, and has `rules` say what follows a failed one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio.lowlevel import checkpoint

from event_flow.core.batch import Batch
from event_flow.core.delivery import Worker
from event_flow.core.gate import Delivery, GatedLane
from event_flow.core.keyed import KeyFailure
from event_flow.core.outcome import error_of, events_of, failures_of
from event_flow.core.rules import Rules, Verdict
from event_flow.core.run import Run

# Events after which others get a turn: it costs as much as several calls, and where every batch is of another key, with an
# event or two, there would be one after each.
MOST_IN_A_ROW = 20


class AttemptWorker(Worker):
    """Runs the handler of a gated lane. `call` takes a `Batch` if `takes_batch`, else a list of events."""

    def __init__(
        self,
        lane: GatedLane,
        run: Run,
        call: Callable[[Any], Awaitable[Any]],
        *,
        rules: Rules,
        takes_batch: bool,
    ) -> None:
        super().__init__(lane, run, call)
        self.gated: GatedLane = lane
        self._next = self._next_delivery
        self._in_a_row = 0  # events taken since others last had a turn
        self._rules = rules
        self._takes_batch = takes_batch

    async def _next_delivery(self) -> Delivery | None:
        """As `next_delivery` of the lane, but small batches are taken without a turn for others after each."""
        delivery = None
        if self._in_a_row < MOST_IN_A_ROW and not self._native.is_being_cancelled():
            delivery = self.gated.take_if_due()
        if delivery is None:
            self._in_a_row = 0
            await checkpoint()
            delivery = await self.gated.next_delivery()
        if delivery is not None:
            self._in_a_row += len(delivery)
        return delivery

    async def _deliver(self, delivery: Delivery) -> None:
        if delivery.began is None:
            delivery.began = self.gated.clock()
        if delivery.attempt > 1:
            self.lane.retried += len(delivery)
        events = delivery.events[:]
        try:
            if isinstance(delivery.key, KeyFailure):
                raise delivery.key.error
            if self._takes_batch:
                await self._call(
                    Batch(events, key=delivery.key, closed_by=delivery.closed_by, attempt=delivery.attempt)
                )
            else:
                await self._call(events)
        except BaseException as exc:  # noqa: BLE001 - a cancellation is raised again
            await self._settle_attempt(delivery, exc)
        else:
            self.lane.handled += len(delivery)
        finally:
            self.gated.release(delivery)

    async def _settle_attempt(self, delivery: Delivery, exc: BaseException) -> None:
        """Called in the `except` block of a failed attempt, still a part of it."""
        error = await self._error(delivery.events, exc)
        verdict = Verdict()
        if isinstance(error, Exception):
            try:
                verdict = self._rules.judge(delivery, error, self.gated.clock())
            except BaseException as broken:  # noqa: BLE001 - of a predicate of the user's: it is what failed
                failures = failures_of(error, delivery.events)
                error = await self._error(delivery.events, broken)
                if isinstance(error, Exception):
                    verdict.dead = [(event, error) for event in events_of(failures)]
        if isinstance(error, Exception):
            await self._carry_out(verdict, delivery)
        else:
            self.failures.fail(error)
            self.lane.failed += len(delivery)

    async def _carry_out(self, verdict: Verdict, delivery: Delivery) -> None:
        lane = self.lane
        if verdict.kept:
            lane.pause()
        try:
            self._tell(verdict, delivery)
            if verdict.dead:
                await self.failures.contain(
                    error_of(verdict.dead),
                    name=lane.name,
                    app=lane.app,
                    events=events_of(verdict.dead),
                    redeliver=self._redeliver,
                    attempt=delivery.attempt,
                )
        finally:
            # Not before: until here all of it runs.
            lane.failed += verdict.failed
            lane.handled += len(delivery) - verdict.failed - sum(map(len, verdict.again))
            for following in reversed(verdict.again):
                self.gated.put_back(following)

    def _tell(self, verdict: Verdict, delivery: Delivery) -> None:
        """Log what is not given up as a dead letter, which is told of there; and end the engine if it is to end."""
        following = delivery.attempt + 1
        told = (
            (verdict.retried, "WARNING", f"attempt {following} in {verdict.wait:.3g} s"),
            (verdict.isolated, "WARNING", "each of them is tried alone now"),
            (verdict.discarded, "DEBUG", "discarded, as on_failure says"),
            (verdict.kept, "ERROR", "the handler is paused and keeps them until it is resumed"),
            (verdict.fatal, "ERROR", "the engine is stopped, as on_failure says"),
        )
        for failures, level, then in told:
            if failures:
                error = error_of(failures)
                self.failures.tell(
                    error, level, then, name=self.lane.name, app=self.lane.app, events=len(failures)
                )
                if failures is verdict.fatal:
                    self.failures.fail(error)

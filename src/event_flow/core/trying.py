"""The worker of a handler whose options ask for more: it makes attempts, and has `rules` say what follows a failed one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.lowlevel import checkpoint

from event_flow.core.attempt import Attempt
from event_flow.core.batch import Batch
from event_flow.core.delivery import Worker
from event_flow.core.gate import GatedLane
from event_flow.core.keyed import KeyFailure
from event_flow.core.outcome import error_of, events_of, failures_of, what_happened
from event_flow.core.rules import Rules, Verdict
from event_flow.core.run import Run

# Events after which others get a turn: it costs as much as several calls, and where every batch is of another key, with an
# event or two, there would be one after each.
MOST_IN_A_ROW = 20
# Seconds after which they get one all the same, as far as the loop's clock tells: uvloop's stands still between two turns.
LONGEST_IN_A_ROW = 0.001


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
        self._next = self._next_attempt
        self._last: Attempt | None = None  # to be released before another is taken
        self._in_a_row = 0  # events taken since others last had a turn
        self._began_at = -math.inf  # when that was
        self._rules = rules
        self._takes_batch = takes_batch

    async def _next_attempt(self) -> Attempt | None:
        """As `next_attempt` of the lane, but small batches are taken without a turn for others after each."""
        if self._last is not None:
            self.gated.release(self._last)
            self._last = None
        attempt = None
        now = self.gated.clock()
        is_in_time = self._in_a_row < MOST_IN_A_ROW and now - self._began_at < LONGEST_IN_A_ROW
        if is_in_time and not self._native.is_being_cancelled():
            attempt = self.gated.take_if_due(now)
        if attempt is None:
            self._in_a_row = 0
            await checkpoint()
            attempt = await self.gated.next_attempt()
            self._began_at = self.gated.clock()
        if attempt is not None:
            self._in_a_row += len(attempt)
            self._last = attempt
        return attempt

    def _attempt(self, attempt: Attempt) -> Awaitable[Any]:
        if attempt.number > 1:
            self.lane.retried += len(attempt)
        if isinstance(attempt.key, KeyFailure):
            try:
                raise attempt.key.error
            finally:
                del attempt.key.error  # its traceback refers to frames that have the key
        if self._takes_batch:
            return self._call(
                Batch(attempt.events, key=attempt.key, closed_by=attempt.closed_by, attempt=attempt.number)
            )
        return self._call(attempt.events[:])

    async def _settle(self, attempt: Attempt, exc: BaseException) -> None:
        try:
            await self._judge(attempt, exc)
        except BaseException:
            self._last = None  # nothing follows, and an engine that has ended keeps no events alive
            raise

    async def _judge(self, attempt: Attempt, exc: BaseException) -> None:
        error = await self._error(attempt.events, exc)
        verdict = Verdict()
        if isinstance(error, Exception):
            try:
                verdict = self._rules.judge(attempt, error, self.gated.clock())
            except BaseException as broken:
                failures = failures_of(error, attempt.events)
                meant = what_happened(broken, self.lane.name)  # a cancellation is the predicate's own
                if meant is None:
                    self.lane.abandon(attempt.events)
                    raise
                error = meant
                if isinstance(error, Exception):
                    verdict.dead = [(event, error) for event in events_of(failures)]
        if isinstance(error, Exception):
            await self._carry_out(verdict, attempt)
        else:
            self.failures.fail(error)
            self.lane.failed += len(attempt)

    async def _carry_out(self, verdict: Verdict, attempt: Attempt) -> None:
        lane = self.lane
        if verdict.kept:
            lane.pause()
        try:
            self._tell(verdict, attempt)
            if verdict.dead:
                await self.failures.contain(
                    error_of(verdict.dead),
                    name=lane.name,
                    app=lane.app,
                    events=events_of(verdict.dead),
                    redeliver=self._redeliver,
                    attempt=attempt.number,
                )
        finally:
            # Not before: until here all of it runs.
            lane.failed += verdict.failed
            lane.handled += len(attempt) - verdict.failed - sum(map(len, verdict.again))
            for following in reversed(verdict.again):
                self.gated.put_back(following)

    def _tell(self, verdict: Verdict, attempt: Attempt) -> None:
        """Log what is not given up as a dead letter, which is told of there; and end the engine if it is to end."""
        following = attempt.number + 1
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

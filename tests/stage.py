"""The stage on which an engine in traffic lives: it is run there, let go on for a while, asked to end, and judged by others."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import anyio
from anyio.lowlevel import checkpoint
from crew import Publisher
from host import Host
from plans import How, Instruction
from records import DarkRed, Green
from stepped_loop import SteppedLoop
from traffic import Traffic

from event_flow import EngineState

# More than anything takes until nothing happens any more.
MOST_ROUNDS = 50


class End(Enum):
    STOP = "engine.stop()"
    CANCEL = "the scope around run() is cancelled"
    NATIVE = "on asyncio the task that called run() is cancelled natively; on Trio the scope"


class Stage(Host):
    """One engine, from run to run. Nothing happens between two calls of its methods."""

    loop: SteppedLoop | None
    traffic: Traffic
    end: End | None
    is_over: bool
    is_settled: bool
    was_hasty: bool

    def _run(self) -> None:
        assert self.loop is not None
        self.is_over = False
        self.asked_at = 0.0
        self.end = None
        self.was_hasty = False
        self.loop.start(self._host)
        self._let(None)

    def _let(self, turns: int | None) -> None:
        """Let things happen."""
        assert self.loop is not None
        self.is_settled = turns is None
        if turns is None:
            self.loop.settle()
        else:
            self.loop.do(lambda: _take_turns(turns))

    def _let_pass(self, seconds: float) -> None:
        assert self.loop is not None
        self.loop.let_pass(seconds)
        self._let(None)

    def _order(self, end: End) -> None:
        assert self.loop is not None
        order: dict[End, Callable[[], object]] = {
            End.STOP: self.engine.stop,
            End.CANCEL: self.scope.cancel,
            End.NATIVE: self.cancel_natively,
        }
        now = self.loop.do(lambda: _call(order[end]))
        if self.end is not None and not self.was_hasty:
            self.asked_at = now

    # -- what others are told ----------------------------------------------------------------------------------------

    def _redeliver(self, publisher: Publisher, how: How, which: int) -> None:
        letters = self.traffic.letters
        publisher.asked.append((how, letters[-1 - which % len(letters)]))
        publisher.set_off()

    def _ask_everybody(self, times: int) -> None:
        for publisher in self.traffic.publishers.values():
            publisher.asked.append((How.ONE_BY_ONE, (Green, DarkRed) * times))
            publisher.set_off()
        self._let(None)

    def _open_gates(self, times: int) -> None:
        assert self.loop is not None
        for _ in range(times):
            self.loop.do(self.traffic.open_gates)
            self._let(None)

    def _calm_down(self) -> None:
        """Let whatever is under way come to its end. It may be paused, tried again, slowed down: several times."""
        assert self.loop is not None
        for name in self.traffic.names:
            self.traffic.instruct(name, Instruction())
        before: object = None
        for _ in range(MOST_ROUNDS):
            self.loop.do(self._free)
            self.loop.let_pass(20)
            numbers = self.engine.statistics()
            done = numbers.accepted, numbers.batches
            if done == before:
                break
            before = done
        self._let(None)

    def _free(self) -> None:
        """Whoever is paused, or waits at a gate, goes on."""
        if self.can_be_paused:
            self.traffic.resume()
        self.traffic.open_gates()

    @property
    def can_be_paused(self) -> bool:
        return self.engine.state in (EngineState.RUNNING, EngineState.DRAINING)

    def _release(self) -> None:
        """Whatever waits for the test waits no more."""
        for worker in self.traffic.workers.values():
            worker.dismiss()
        self._calm_down()


def _call(order: Callable[[], object]) -> float:
    """Call it, and tell when."""
    order()
    return anyio.current_time()


async def _take_turns(turns: int) -> None:
    for _ in range(turns):
        await checkpoint()

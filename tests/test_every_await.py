"""The tests of cancellation reach every `await` of the core: read from its source, compared with where tasks are suspended.

An await that no program of theirs suspends at, perhaps a new one, fails this; so does an exception that is none any more.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterable

import anyio
import pytest
from parsing import parsed
from steps import PACKAGE, Await, Program, awaits_reached
from test_cancellation import Again, Desk, Inside, Left, Lot, Many, Right
from test_cancelled_attempts import TRIED, TRIED_LATER, itself_cancelled
from test_cancelled_failures import CutShort, Failing
from test_cancelled_publishers import Publishing
from test_cancelled_runs import Life
from test_cancelled_threads import Overdue

from event_flow.testing.clock import virtual_clock

Make = Callable[[], Program]

BACKENDS = ["asyncio", "trio"] if sys.platform == "win32" else ["asyncio", "uvloop", "trio"]

# File and source of each await that these programs cannot suspend at, and why.
NOWHERE = {
    (
        "bus.py",
        "await checkpoint_if_cancelled()",
    ): "granted, then the engine ended: forced in test_lifecycle.py",
    (
        "endurance.py",
        "await self.until(holds, self.limit(timeout))",
    ): "after a second signal: only start() hears any",
    ("lifecycle.py", "await self.run()"): "in a loop that start() makes, where nobody else cancels",
    ("lifecycle.py", "await group.__aenter__()"): "a task group is entered without waiting",
    (
        "lifecycle.py",
        "await self.wait_stopped()",
    ): "`async with` that ends in another task, an error; it is reached itself",
}
NOT_ON_ASYNCIO = {
    ("backend.py", "await function(*args)"): "Trio's way to call user code",
    ("backend.py", "async with nursery as group"): "Trio's task group",
}
# Before the supervisor's first step: on Trio if the order of tasks, which is random, is that one; on asyncio only where every
# task of the loop is cancelled, as in test_native_cancellation.py.
BY_CHANCE = {("supervision.py", "await outlive_cancellation(checkpoint)")}
OWN_TASK = "user code has cancelled its own task, as only asyncio's can"
NOT_ON_TRIO = {
    ("trying.py", "await self._error(attempt.events, exc)"): OWN_TASK,
    ("background.py", "await self.failures.forget_cancellation()"): OWN_TASK,
    ("background.py", "await self.failures.examine(exc, self.name)"): OWN_TASK,
    ("delivery.py", "await self._error(batch, exc)"): OWN_TASK,
    ("delivery.py", "await self.failures.examine(exc, self.lane.name)"): OWN_TASK,
    ("failure.py", "await self.forget_cancellation()"): OWN_TASK,
    ("failure.py", "await checkpoint()"): OWN_TASK,
    ("hooks.py", "await self.run.failures.forget_cancellation()"): OWN_TASK,
    ("hooks.py", "await self.run.failures.examine(exc, self.name)"): OWN_TASK,
    ("hooks.py", "await self._fail(exc)"): OWN_TASK,
    ("scheduling.py", "await self.failures.forget_cancellation()"): OWN_TASK,
    ("scheduling.py", "await self.failures.examine(exc, self.name)"): OWN_TASK,
}


def programs(*, trio: bool) -> Iterable[Make]:
    """Those of the tests, as they are cancelled there."""
    yield from (functools.partial(Desk, full=(Left, Right)), Many, Lot, Again)
    for place in ("handler", "schedule", "task"):
        yield functools.partial(Inside, place)
        yield functools.partial(Failing, place, "fails")
    for place in ("handler", "schedule", "task", "redelivery", "thread of a handler", "thread of a task"):
        yield Publishing(place).begin_again
    for phase in ("start", "drain", "exit"):
        yield functools.partial(Life, phase)
    for through in ("async with", "task group", "wait_running", "wait_idle", "wait_stopped"):
        yield functools.partial(Life, "all", through, small=True)
    for through in ("run", "async with", "task group"):
        for moment in ("begin", "start", "work"):
            yield functools.partial(Life, "all", through, small=True, cancelled_before=moment)
    if not trio:
        for place in ("before_start", "handler", "schedule", "task", "exit"):
            for what in ("cancels itself", "cancels itself and fails"):
                yield functools.partial(Failing, place, what)
        yield itself_cancelled
    yield from (*TRIED.values(), Overdue)


def programs_that_time_out() -> Iterable[Make]:
    yield functools.partial(CutShort, "before_start", stops=False)
    yield functools.partial(CutShort, "exit", stops=False)
    yield from TRIED_LATER.values()


async def reach(make_all: Callable[[], Iterable[Make]]) -> set[Await]:
    reached: set[Await] = set()
    for make in make_all():
        reached |= await awaits_reached(make)
    return reached


def awaits_in_source() -> dict[tuple[str, int], str]:
    """Each of the core, by file and line; the lines tell them apart."""
    found: dict[tuple[str, int], str] = {}
    for path in (PACKAGE / "core").glob("*.py"):
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncWith):
                text = f"async with {', '.join(map(ast.unparse, node.items))}"
            elif isinstance(node, ast.Await | ast.AsyncFor):
                text = ast.unparse(node)
            else:
                continue
            assert (path.name, node.lineno) not in found, "two awaits in one line"
            found[path.name, node.lineno] = text
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_await_of_the_core_is_cancelled_somewhere(backend: str) -> None:
    is_trio = backend == "trio"
    reached = anyio.run(
        reach,
        functools.partial(programs, trio=is_trio),
        backend="trio" if is_trio else "asyncio",
        backend_options={"use_uvloop": True} if backend == "uvloop" else {},
    )
    # Nothing else needs a clock that jumps, and threads need one that does not.
    loop = "trio" if is_trio else "asyncio"
    reached |= anyio.run(reach, programs_that_time_out, backend=loop, backend_options=virtual_clock(loop))
    lines = {(each.file, each.line) for each in reached}
    source = awaits_in_source()
    assert len(source) > 60
    assert lines <= set(source), "not an await"
    unreached = {(file, text) for (file, line), text in source.items() if (file, line) not in lines}
    assert unreached - BY_CHANCE == set(NOWHERE | (NOT_ON_TRIO if is_trio else NOT_ON_ASYNCIO))

"""How the state machines are run: a failure can be repeated as it says, and an engine that never comes to rest is one."""

from __future__ import annotations

import ast
import re

import pytest
from anyio.lowlevel import checkpoint
from hypothesis import reproduce_failure
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from machines import BACKENDS, run_machine
from stepped_loop import SteppedLoop


class Wrong(RuleBasedStateMachine):
    """Breaks at any number but 0."""

    begun = 0

    def __init__(self) -> None:
        super().__init__()
        Wrong.begun += 1

    @rule(number=st.integers(0, 60))
    def add(self, number: int) -> None:
        assert number == 0


def test_the_failure_of_a_machine_says_where_its_decorator_belongs_and_there_it_repeats_it() -> None:
    with pytest.raises(AssertionError) as failed:
        run_machine(Wrong, steps=10)
    *_, printed, ours = failed.value.__notes__
    assert "over class Wrong" in ours
    found = re.search(r"@reproduce_failure\((.*), (b.*)\) as a decorator", printed)
    assert found

    again = type("Again", (Wrong,), {})
    version, blob = map(ast.literal_eval, found.groups())
    before = Wrong.begun
    with pytest.raises(AssertionError, match="assert 1 == 0"):
        run_machine(reproduce_failure(version, blob)(again), steps=10)
    assert Wrong.begun - before == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_that_goes_round_for_ever_breaks_promise_3(backend: str) -> None:
    async def go_round() -> None:
        while True:
            await checkpoint()

    loop = SteppedLoop(backend, seed=0)
    try:
        loop.start(go_round)
        with pytest.raises(AssertionError, match=r"promise 3.*goes round for ever"):
            loop.settle()
    finally:
        loop.close()

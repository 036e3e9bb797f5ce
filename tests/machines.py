"""How the state machines are run: on which backends, how many examples, and what a failure prints.

A failure prints the steps and a line `@reproduce_failure(...)`, which repeats them when it is put over the class of the
machine; Hypothesis itself would say, over the test function, where it does nothing. Whatever is random, also the order in which
tasks and threads run, is drawn, and so is a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from loguru import logger

BACKENDS = ["asyncio", "trio"]

# Hypothesis may take five minutes to make a failing example small; cut off before, it would never be shown. Nothing in these
# tests can hang for longer than their virtual clocks allow.
time_to_shrink = pytest.mark.timeout(400)

# Of the profile's examples, which the machines stretch: each is many steps. Not the explain phase: it traces every line, and a
# failure would be cut off by the test's timeout before it is shown.
PHASES = [phase for phase in Phase if phase is not Phase.explain]


def machine_test(function: Callable[..., Any]) -> Any:
    """Decorator of a test that runs machines: it is a part of the soak, and may take the time to shrink."""
    return pytest.mark.machine(time_to_shrink(function))


def run_machine(machine: type[RuleBasedStateMachine], *, steps: int) -> None:
    """Run the examples of the profile; each is up to so many steps. Nothing is logged: it would be kept to the end."""
    used = settings(stateful_step_count=steps, phases=PHASES, print_blob=True)
    logger.disable("event_flow")
    try:
        run_state_machine_as_test(machine, settings=used)
    except BaseException as exc:
        exc.add_note(
            f"This is a state machine: the decorator belongs over class {machine.__name__}, not over the test function."
        )
        raise
    finally:
        logger.enable("event_flow")

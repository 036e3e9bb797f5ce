"""How the state machines are run: on which backends, how many examples, and what a failure prints."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

BACKENDS = ["asyncio", "trio"]

# Hypothesis may take five minutes to make a failing example small; cut off before, it would never be shown. Nothing in these
# tests can hang for longer than their virtual clocks allow.
time_to_shrink = pytest.mark.timeout(400)

# Of the profile's examples, which the machines stretch: each is many steps. Not the explain phase: it traces every line, and a
# failure would be cut off by the test's timeout before it is shown.
PHASES = [phase for phase in Phase if phase is not Phase.explain]


def run_machine(machine: type[RuleBasedStateMachine], *, steps: int, share: int = 1) -> None:
    examples = max(5, settings().max_examples // share)
    used = settings(stateful_step_count=steps, max_examples=examples, phases=PHASES, print_blob=True)
    run_state_machine_as_test(machine, settings=used)

"""Whatever Hypothesis makes of a whole engine: random programs on a virtual clock keep all promises (`programs`)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import BACKENDS, machine_test
from programs import Program, execute, programs


@machine_test
@pytest.mark.parametrize("backend", BACKENDS)
@settings(print_blob=True)
@given(program=programs, randomness=st.random_module())
def test_any_program_keeps_the_promises(backend: str, program: Program, randomness: object) -> None:
    """*Design promises 1 to 7*. The order in which Trio runs its tasks is drawn too (`randomness` seeds it)."""
    execute(program, backend).judge()

"""A run of the tests has the backends it says it has: none is lost silently."""

from __future__ import annotations

import pytest
from backends import EXTRAS, complaint, names_one_of


def test_every_backend_is_there_unless_the_run_says_otherwise() -> None:
    assert complaint([], EXTRAS) == ""
    assert complaint(EXTRAS, []) == ""
    for name in EXTRAS:
        others = [other for other in EXTRAS if other != name]
        assert complaint([name], others) == ""
        assert f"{name} is not installed" in complaint([], others)
        assert "but it is installed" in complaint([name], EXTRAS)
    assert "there are only" in complaint(["asyncio"], EXTRAS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["trio"], True),
        ([1, ("trio", {})], True),
        (["asyncio", "uvloop"], False),
        ([("asyncio", {"use_uvloop": True})], False),
        ([(), None, 3.5, ["trio"]], False),
        ([], False),
    ],
)
def test_a_test_that_names_a_backend_is_known_by_its_parameters(values: list[object], expected: bool) -> None:
    assert names_one_of(["trio"], values) is expected

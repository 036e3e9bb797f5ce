"""The reference of the site has every public name once, and no other."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import event_flow

ROOT = Path(__file__).parent.parent
PACKAGE = Path(str(event_flow.__file__)).parent
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
LISTED = [name for page in PAGES for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]

# The kernel's own files, and what is private for now, which its docstring says.
PRIVATE = {"core", "testing"}
MODULES = sorted(
    f"event_flow.{path.stem}"
    for path in PACKAGE.iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem not in {"__init__", *PRIVATE}
)


def shown(module: str) -> list[str]:
    """What the directive of a whole module shows: classes and functions that have a docstring."""
    members = vars(importlib.import_module(module))
    return [
        f"{module}.{name}"
        for name in members["__all__"]
        if (inspect.isclass(members[name]) or inspect.isroutine(members[name])) and members[name].__doc__
    ]


@pytest.mark.parametrize("module", ["event_flow", *MODULES])
def test_the_reference_has_every_public_name_once(module: str) -> None:
    public = [f"{module}.{name}" for name in importlib.import_module(module).__all__]
    alone = [name for name in LISTED if name.rpartition(".")[0] == module and name not in MODULES]
    together = shown(module) if module in LISTED else []
    assert public
    assert sorted(alone + together) == sorted(public)


def test_the_reference_lists_nothing_else() -> None:
    modules = {"event_flow", *MODULES}
    assert [name for name in LISTED if name not in modules and name.rpartition(".")[0] not in modules] == []


def test_the_navigation_lists_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)

"""The house: imports go down only, the core knows little, and files stay small. Read from the source, not imported."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from parsing import parsed

import event_flow

ROOT = Path(__file__).parent.parent
# The one that the tests run on: where a wheel is tested, the sources are not there.
PACKAGE = Path(event_flow.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted((PACKAGE / "core").glob("*.py"))

# From the bottom to the top; a file may import from its own layer and from those below, never in a circle.
LAYERS = (
    {
        "batch",
        "event",
        "exception",
        "function",
        "log_limit",
        "options",
        "rate",
        "report",
        "retry",
        "state",
        "wording",
    },
    {"annotation", "declaration", "decorators", "fitting", "handler_options", "parameter"},
    {"backend", "bell", "membership"},
    {
        "activity",
        "bus",
        "filtering",
        "inbox",
        "invoke",
        "lane",
        "origin",
        "outcome",
        "overflow",
        "room",
        "routing",
        "threads",
    },
    {"attempt", "gate", "keyed", "middleware", "publishing", "rules"},
    {"background", "branch", "delivery", "failure", "housing", "run", "scheduling", "trying"},
    {
        "accounting",
        "assembly",
        "control",
        "endurance",
        "hooks",
        "lifecycle",
        "observing",
        "signals",
        "supervision",
    },
    {"registering"},
    {"application"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
WITHOUT_ANYIO = LAYERS[0] | LAYERS[1]

# What lies outside and needs only the words of the kernel, and which of them.
OUTSIDE = {"settings": {"exception"}, "codec": {"event", "exception", "wording"}}

# What there is from Python 3.14 on.
STDLIB = sys.stdlib_module_names | {"annotationlib"}
MAY_IMPORT = {"anyio", "loguru", "orjson"}
KNOWS_BACKENDS = {"core/backend.py", "testing/clock.py"}
NO_NAMES = {"utils", "helpers", "common", "base", "util", "misc"}
LONGEST = 350


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules and names that running `path` may import, dotted; also inside functions, not for type checkers only."""
    return frozenset(_imports(parsed(path.read_text(encoding="utf-8"))))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.orelse:
            yield from _imports(statement)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def core_imports(path: Path) -> set[str]:
    """The files of `core/` that `path` imports from."""
    parts = [name.split(".") for name in imports(path)]
    return {part[2] for part in parts if part[:2] == ["event_flow", "core"] and len(part) > 2}


def test_the_rules_are_about_files_that_exist() -> None:
    assert {path.stem for path in CORE} - {"__init__"} == set(LAYER)
    assert {relative(path) for path in FILES} >= KNOWS_BACKENDS


def test_imports_of_the_core_go_down_only() -> None:
    """*Design*, the house."""
    upward = [
        f"{path.stem} imports {name}"
        for path in CORE
        if path.stem in LAYER
        for name in core_imports(path)
        if LAYER[name] > LAYER[path.stem]
    ]
    assert upward == []


def test_imports_of_the_core_make_no_circle() -> None:
    graph = {path.stem: core_imports(path) for path in CORE}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("event") < order.index("bus") < order.index("application")


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_core_imports_nothing_that_lies_outside(path: Path) -> None:
    outside = [
        name for name in imports(path) if name.startswith("event_flow.") and ".core." not in f"{name}."
    ]
    assert outside == []


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_what_lies_outside_knows_only_the_words_it_needs(name: str) -> None:
    """*Design D13*: so it can be left out, and works without an engine or an event loop."""
    paths = [path for path in FILES if relative(path).removesuffix(".py").split("/")[0] == name]
    assert paths
    assert set().union(*map(core_imports, paths)) == OUTSIDE[name]
    assert not {"anyio", "loguru"} & set().union(*map(tops, paths))
    others = {
        part[1]
        for path in paths
        for part in (each.split(".") for each in imports(path))
        if part[0] == "event_flow"
    }
    assert others <= {"core", name}


def test_imports_of_the_codec_make_no_circle() -> None:
    files = {path.stem: path for path in (PACKAGE / "codec").glob("*.py")}
    graph = {
        stem: {
            part[2]
            for part in (each.split(".") for each in imports(path))
            if part[:2] == ["event_flow", "codec"]
        }
        for stem, path in files.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("mismatch") < order.index("plain") < order.index("envelope") < order.index("__init__")


@pytest.mark.parametrize("name", sorted(WITHOUT_ANYIO))
def test_words_values_and_declarations_need_no_anyio(name: str) -> None:
    reached, new = set[str](), {name}
    while new:
        reached |= new
        new = {further for file in new for further in core_imports(PACKAGE / f"core/{file}.py")} - reached
    for file in reached:
        assert tops(PACKAGE / f"core/{file}.py") <= {"event_flow", "__future__", *STDLIB} - {"asyncio"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_backends_are_known_in_two_files_only(path: Path) -> None:
    known = tops(path) & {"asyncio", "trio", "uvloop", "sniffio"}
    assert not known or relative(path) in KNOWS_BACKENDS, known
    assert not any(name.startswith("anyio._") for name in imports(path)), "private parts of anyio"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_third_parties_are_three(path: Path) -> None:
    allowed = {"event_flow", *STDLIB, *MAY_IMPORT}
    allowed |= {"trio"} if relative(path) in KNOWS_BACKENDS else set()
    assert tops(path) <= allowed


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_event_is_ours_wherever_the_name_is_bare(path: Path) -> None:
    assert not {"anyio.Event", "asyncio.Event", "trio.Event", "threading.Event"} & {
        name for name in imports(path) if name.count(".") == 1
    }


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_are_small_named_for_their_idea_and_begin_with_it(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST
    assert path.stem not in NO_NAMES
    assert ast.get_docstring(parsed(source)), "no docstring that says what the file decides"


def test_the_plan_of_the_house_names_every_file_of_the_core() -> None:
    plan = ast.get_docstring(parsed((PACKAGE / "core" / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert [name for name in sorted(LAYER) if f"`{name}`" not in plan] == []


def test_the_readme_names_every_error() -> None:
    """Its table repeats the tree in `exception.py`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = parsed((PACKAGE / "core" / "exception.py").read_text(encoding="utf-8"))
    errors = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [name for name in errors if f"`{name}`" not in readme] == []


def test_only_the_task_groups_start_tasks_and_each_task_has_a_name() -> None:
    """*Style*: a task dump should read well."""
    nameless = [
        f"{relative(path)}:{call.lineno}"
        for path in CORE
        for call in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("start_soon", "create_task", "ensure_future", "spawn_system_task")
        and "name" not in {keyword.arg for keyword in call.keywords}
    ]
    assert nameless == []

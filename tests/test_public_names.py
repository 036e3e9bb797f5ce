"""The names that users import: where they are, that `__all__` tells the truth, and what an import does."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import event_flow
from event_flow.core import exception
from event_flow.core.exception import EventFlowError

MODULES = {
    "event_flow.core.application": {"Application", "SubApplication", "AppEngine"},
    "event_flow.core.batch": {"Batch"},
    "event_flow.core.control": {"HandlerControl"},
    "event_flow.core.event": {"Event", "EventWithSource", "ExceptionEvent"},
    "event_flow.core.decorators": {"on_event", "schedule", "timer", "task"},
    "event_flow.core.rate": {"Rate"},
    "event_flow.core.retry": {"Retry"},
    "event_flow.core.exception": {
        name
        for name, error in inspect.getmembers(exception, inspect.isclass)
        if error.__module__ == exception.__name__
    },
}
RESULTS = {"EngineState", "EngineStatistics", "HandlerStatistics", "ScheduleStatistics", "ShutdownReport"}


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_every_documented_name_is_in_its_module_and_in_the_package(module: str) -> None:
    """*Spec*."""
    for name in MODULES[module]:
        value = getattr(importlib.import_module(module), name)
        assert getattr(event_flow, name) is value


@pytest.mark.parametrize("module", MODULES)
def test_all_of_a_module_is_what_is_documented(module: str) -> None:
    names = importlib.import_module(module).__all__
    assert len(names) == len(set(names))
    assert set(names) == MODULES[module]


def test_all_of_the_package_is_true_and_complete() -> None:
    documented = set().union(RESULTS, *MODULES.values())
    assert event_flow.__all__ == sorted(documented)
    here = {
        name
        for name in dir(event_flow)
        if not name.startswith("_") and not isinstance(getattr(event_flow, name), ModuleType)
    }
    assert here == documented


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'event_flow' has no attribute 'Nothing'"):
        _ = event_flow.Nothing  # type: ignore[attr-defined]


def test_a_star_import_gives_exactly_that() -> None:
    names = run(
        "from event_flow import *; print(*sorted(name for name in dir() if not name.startswith('__')))"
    )
    assert names.split() == sorted(event_flow.__all__)


def test_settings_stay_a_module_and_are_imported_from_there_only() -> None:
    assert run("import event_flow; print(hasattr(event_flow, 'settings'))") == "False"
    code = "import event_flow; from event_flow.settings import settings; print(type(event_flow.settings).__name__)"
    assert run(code) == "module"
    assert run(f"{code}; from event_flow import *; print('settings' in event_flow.__all__)").endswith("False")


def test_the_error_tree_is_one_tree_and_each_error_is_also_a_builtin() -> None:
    drawn = set(re.findall(r"\w+", exception.__doc__ or ""))
    for name in MODULES["event_flow.core.exception"]:
        error = getattr(exception, name)
        assert issubclass(error, EventFlowError)
        assert name in drawn, f"{name} is not in the tree at the top of the file"
        first_builtin = next(base for base in error.__mro__ if base.__module__ == "builtins")
        assert (first_builtin is Exception) == (error is EventFlowError)


@pytest.mark.parametrize("name", event_flow.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(event_flow, name)
    assert (value.__doc__ or "").strip()
    assert value.__module__.startswith("event_flow.")


def test_importing_loads_little_beyond_anyio_and_loguru() -> None:
    """No backend but asyncio, no optional extra, and of the standard library what costs nothing; speed is benchmarked."""
    code = """
import sys, anyio, anyio.abc, anyio.lowlevel, loguru
anyio.create_task_group  # anyio reads its own files when a name of theirs is asked for
before = set(sys.modules)
import event_flow
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    assert set(run(code).split()) <= {"event_flow", "_queue", "copy", "dataclasses", "importlib", "queue"}
    # Read when the first engine asks for a name of it, a sixth of the time; an older anyio reads all of itself at once.
    code = """
import sys, anyio, anyio.abc, anyio.lowlevel
before = "anyio._core._synchronization" in sys.modules
import event_flow
print("anyio._core._synchronization" in sys.modules, before)
"""
    assert len(set(run(code).split())) == 1
    heavy = (
        "trio",
        "uvloop",
        "httpx",
        "fastapi",
        "pydantic",
        "orjson",
        "pytest",
        "sqlite3",
        "importlib.metadata",
    )
    assert run(f"import event_flow, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_importing_runs_no_settings_module() -> None:
    code = "import os; os.environ['EF_SETTINGS_MODULE'] = 'no.such.module'; import event_flow.settings; print('fine')"
    assert run(code) == "fine"

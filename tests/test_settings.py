"""`event_flow.settings`: which module, when it is run, what is a setting, and what happens when something is wrong."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import event_flow.settings
from event_flow.core.exception import EventFlowError, SettingNotFound, SettingsError
from event_flow.settings import Settings

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files into a new working directory that is not on `sys.path`; forgets what was imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EF_SETTINGS_MODULE", raising=False)
    modules, path = set(sys.modules), list(sys.path)

    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    yield write
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if _is_inside(sys.modules[name], tmp_path):
            del sys.modules[name]


def _is_inside(module: ModuleType, folder: Path) -> bool:
    # A namespace package has no file, only a path.
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(place is not None and Path(place).is_relative_to(folder) for place in places)


@pytest.fixture
def settings() -> Settings:
    """Settings that nobody has used."""
    return Settings()


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_a_missing_name_says_which_file_was_looked_in(write: Write, settings: Settings) -> None:
    file = write("settings.py", "DEBUG = True\n")
    with pytest.raises(SettingNotFound, match="'API_KEY'") as caught:
        _ = settings.API_KEY
    assert str(file) in str(caught.value)
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value, EventFlowError)


def test_without_any_settings_every_name_is_missing(write: Write, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingNotFound, match="EF_SETTINGS_MODULE is not set") as caught:
        _ = settings.DEBUG
    assert str(tmp_path) in str(caught.value)
    assert getattr(settings, "DEBUG", "default") == "default"


def test_settings_that_were_not_there_are_found_later(write: Write, settings: Settings) -> None:
    assert not hasattr(settings, "DEBUG")
    write("settings.py", "DEBUG = True\n")
    assert settings.DEBUG is True


def test_a_file_is_found_in_a_folder_that_looks_unchanged(
    write: Write, settings: Settings, tmp_path: Path
) -> None:
    """The import system lists a folder again only when its time of change differs."""
    before = tmp_path.stat()
    assert not hasattr(settings, "DEBUG")
    write("settings.py", "DEBUG = True\n")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert settings.DEBUG is True


def test_a_named_module_that_is_missing_is_an_error_not_a_missing_setting(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EF_SETTINGS_MODULE", "nowhere.config")
    with pytest.raises(SettingsError, match=r"'nowhere\.config' \(EF_SETTINGS_MODULE\)") as caught:
        getattr(settings, "DEBUG", "default")
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_without_the_module_says_where_the_package_is(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("shop/__init__.py", "")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop.config")
    with pytest.raises(SettingsError) as caught:
        _ = settings.DEBUG
    assert str(tmp_path / "shop") in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("DEBUG = 1 / 0\n", ZeroDivisionError),
        ("DEBUG =\n", SyntaxError),
        ("import no_such_module\n", ModuleNotFoundError),
        ("# coding: no-such-coding\n", SyntaxError),
        ("raise AttributeError('DEBUG')\n", AttributeError),
    ],
)
def test_a_module_that_fails_raises_a_clear_error_from_the_real_one(
    write: Write, settings: Settings, text: str, cause: type[Exception]
) -> None:
    write("settings.py", text)
    with pytest.raises(SettingsError, match=cause.__name__) as caught:
        hasattr(settings, "DEBUG")
    assert isinstance(caught.value.__cause__, cause)
    assert "settings" not in sys.modules


def test_a_module_that_failed_is_run_again_when_it_was_mended(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = 1 / 0\n")
    with pytest.raises(SettingsError):
        _ = settings.DEBUG
    write("settings.py", "DEBUG = 1 // 1\n")
    assert settings.DEBUG == 1


def test_an_exit_in_the_module_is_an_exit(write: Write, settings: Settings) -> None:
    write("settings.py", "raise SystemExit(3)\n")
    with pytest.raises(SystemExit):
        _ = settings.DEBUG
    assert "settings" not in sys.modules


@pytest.mark.parametrize("name", ["shop.config.py", "shop/config.py", "./shop/config.py"])
def test_a_file_name_in_the_environment_says_to_leave_off_the_ending(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """*Spec*, custom settings module."""
    write("shop/config.py", "DEBUG = True\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", name)
    with pytest.raises(SettingsError, match=r"leave off the \.py.*'shop\.config'"):
        _ = settings.DEBUG


@pytest.mark.parametrize("name", ["shop/config", "shop..config", ".config", " ", "shop-1.config"])
def test_what_is_no_module_name_is_refused(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("EF_SETTINGS_MODULE", name)
    with pytest.raises(SettingsError, match=r"no module name.*'shop\.config'"):
        _ = settings.DEBUG


def test_a_module_without_source_is_refused(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*Spec*: the settings file must be a Python file."""
    monkeypatch.setenv("EF_SETTINGS_MODULE", "time")
    with pytest.raises(SettingsError, match="not a Python source file"):
        _ = settings.DEBUG


def test_a_setting_used_while_its_module_runs_is_an_error(write: Write, settings: Settings) -> None:
    write("settings.py", "from reader import DEBUG\n")
    write("reader.py", "import builtins\nDEBUG = builtins.settings_under_test.DEBUG\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.settings_under_test", settings, raising=False)
        with pytest.raises(SettingsError, match="still being run") as caught:
            _ = settings.DEBUG
    assert isinstance(caught.value.__cause__, SettingsError)


def test_a_working_directory_that_is_gone_is_an_error(
    write: Write, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SettingsError, match="no longer exists") as caught:
        _ = settings.DEBUG
    assert isinstance(caught.value.__cause__, FileNotFoundError)


# --- what is a setting -----------------------------------------------------------------------------------------------


def test_upper_case_names_are_settings_and_nothing_else_is(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\nREDIS_PORT_2 = 6379\ndebug = Debug = _DEBUG = False\n")
    assert settings.DEBUG is True
    assert settings.REDIS_PORT_2 == 6379
    for name in ("debug", "Debug", "_DEBUG", "_"):
        with pytest.raises(SettingNotFound, match="upper case"):
            getattr(settings, name)


def test_probing_for_other_names_does_not_run_the_module(write: Write, settings: Settings) -> None:
    write("settings.py", "raise AssertionError('was run')\n")
    assert not hasattr(settings, "__wrapped__")
    assert not hasattr(settings, "_ipython_display_")
    assert inspect.unwrap(settings) is settings  # type: ignore[arg-type]
    assert not inspect.iscoroutinefunction(settings)
    assert "not loaded" in repr(settings)


def test_settings_are_assigned_in_their_module_only(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\n")
    with pytest.raises(AttributeError, match=r"override\(DEBUG="):
        settings.DEBUG = False
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del settings.DEBUG
    assert settings.DEBUG is True


def test_dir_lists_the_settings(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\nlower = 1\n")
    with settings.override(EXTRA=1):
        assert {"DEBUG", "EXTRA", "override", "reload"} <= set(dir(settings))
    assert "lower" not in dir(settings)
    assert "EXTRA" not in dir(settings)


@pytest.mark.parametrize("text", [None, "1 / 0\n"])
def test_dir_of_settings_that_cannot_be_loaded_has_no_names(
    write: Write, settings: Settings, text: str | None
) -> None:
    if text is not None:
        write("settings.py", text)
    assert not [name for name in dir(settings) if name.isupper()]


def test_repr_says_which_module_and_shows_no_value(write: Write, settings: Settings) -> None:
    file = write("settings.py", "API_KEY = 'secret'\n")
    assert settings.API_KEY == "secret"
    assert str(file) in repr(settings)
    assert "secret" not in repr(settings)


def test_copies_are_the_one_object() -> None:
    shared = event_flow.settings.settings
    assert copy.copy(shared) is shared
    assert copy.deepcopy(shared) is shared
    assert pickle.loads(pickle.dumps(shared)) is shared


# --- which module ----------------------------------------------------------------------------------------------------


def test_the_file_in_the_working_directory_is_the_default(write: Write, settings: Settings) -> None:
    """*Spec*, default behaviour."""
    write("settings.py", "DATABASE_URL = 'postgresql://localhost/mydb'\n")
    assert settings.DATABASE_URL == "postgresql://localhost/mydb"


def test_an_empty_variable_is_as_good_as_none(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("settings.py", "DEBUG = True\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "")
    assert settings.DEBUG is True


def test_a_settings_module_elsewhere_on_the_path_is_no_default(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("elsewhere/settings.py", "DEBUG = 'elsewhere'\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "elsewhere")
        assert not hasattr(settings, "DEBUG")


def test_a_folder_named_settings_is_no_settings_module(write: Write, settings: Settings) -> None:
    write("settings/data.txt", "")
    assert not hasattr(settings, "DEBUG")
    write("settings.py", "DEBUG = True\n")
    assert settings.DEBUG is True


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize("variable", [None, "settings"])
def test_the_working_directory_wins_over_an_unrelated_settings_module(
    write: Write,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    imported: bool,
    variable: str | None,
) -> None:
    write("elsewhere/settings.py", "DEBUG = 'elsewhere'\n")
    write("settings.py", "DEBUG = 'here'\n")
    if variable is not None:
        monkeypatch.setenv("EF_SETTINGS_MODULE", variable)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "elsewhere")
        unrelated = importlib.import_module("settings") if imported else None
        assert settings.DEBUG == "here"
        settings.reload()
        assert settings.DEBUG == "here"
        # Who imported the other one keeps it.
        assert (sys.modules["settings"] is unrelated) == imported


def test_the_environment_names_a_module(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*Spec*, custom settings module; the folder needs no `__init__.py`."""
    write("settings.py", "DEBUG = 'default'\n")
    write("somemodule/myapp.py", "DEBUG = 'custom'\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "somemodule.myapp")
    assert settings.DEBUG == "custom"
    settings.reload()
    assert settings.DEBUG == "custom"


def test_the_environment_may_be_set_after_the_import(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("shop.py", "DEBUG = 'shop'\n")
    assert not hasattr(settings, "DEBUG")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop")
    assert settings.DEBUG == "shop"


def test_a_module_on_the_path_can_be_named(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("elsewhere/shop/__init__.py", "")
    write("elsewhere/shop/config.py", "DEBUG = 'elsewhere'\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop.config")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "elsewhere")
        assert settings.DEBUG == "elsewhere"


def test_a_module_in_a_package_may_import_its_neighbours(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("conf/__init__.py", "")
    write("conf/common.py", "DEBUG = False\nWORKERS = 10\n")
    write("conf/local.py", "from .common import *\nfrom conf import common\nDEBUG = not common.DEBUG\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "conf.local")
    assert (settings.DEBUG, settings.WORKERS) == (True, 10)
    settings.reload()
    assert (settings.DEBUG, settings.WORKERS) == (True, 10)


def test_a_package_can_be_the_settings_module(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("conf/__init__.py", "from .local import *\nRUNS = 1\n")
    write("conf/local.py", "DEBUG = True\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "conf")
    assert (settings.DEBUG, settings.RUNS) == (True, 1)


def test_the_default_module_may_import_its_neighbours(write: Write, settings: Settings) -> None:
    write("secrets_of_shop.py", "API_KEY = 'key'\n")
    write("settings.py", "from secrets_of_shop import API_KEY\n")
    assert settings.API_KEY == "key"


def test_the_module_may_define_dataclasses(write: Write, settings: Settings) -> None:
    """They look for their module in `sys.modules` while it runs."""
    write(
        "settings.py",
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Limits:\n    size: int = 10\n"
        "LIMITS = Limits()\n",
    )
    assert settings.LIMITS.size == 10


# --- when it is run --------------------------------------------------------------------------------------------------


def test_the_module_is_run_once_whoever_comes_first(write: Write, settings: Settings) -> None:
    write("settings.py", "import builtins\nbuiltins.settings_gate.wait()\nRUN = object()\n")
    gate, seen = threading.Barrier(2), []
    threads = [threading.Thread(target=lambda: seen.append(settings.RUN)) for _ in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.settings_gate", gate, raising=False)
        for thread in threads:
            thread.start()
        # A second run would wait at the gate for ever.
        gate.wait()
        for thread in threads:
            thread.join()
    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1


@pytest.mark.parametrize("name", ["settings", "shop.config"])
def test_a_program_that_imports_its_settings_has_the_same_module(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Before or after: classes defined there exist once."""
    write(name.replace(".", "/") + ".py", "class Mode: ...\nMODE = Mode()\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", name)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        module = importlib.import_module(name)
        assert isinstance(settings.MODE, module.Mode)
        settings.reload()
        assert isinstance(settings.MODE, importlib.import_module(name).Mode)


def test_a_submodule_is_an_attribute_of_its_package(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("shop/__init__.py", "")
    write("shop/config.py", "DEBUG = True\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop.config")
    assert settings.DEBUG is True
    assert sys.modules["shop"].config is sys.modules["shop.config"]


# --- reload ----------------------------------------------------------------------------------------------------------


def test_reload_takes_new_values_and_forgets_what_is_gone(write: Write, settings: Settings) -> None:
    write("settings.py", "PORT = 1\nOLD = 1\n")
    assert (settings.PORT, settings.OLD) == (1, 1)
    # The same length within the same second: a compiled file would be taken for the new one's.
    write("settings.py", "PORT = 2\nNEW = 2\n")
    assert (settings.PORT, settings.OLD) == (1, 1)
    settings.reload()
    assert (settings.PORT, settings.NEW) == (2, 2)
    assert not hasattr(settings, "OLD")


def test_a_file_that_is_gone_is_forgotten(write: Write, settings: Settings) -> None:
    file = write("settings.py", "DEBUG = True\n")
    assert settings.DEBUG is True
    file.unlink()
    settings.reload()
    assert not hasattr(settings, "DEBUG")


def test_a_named_module_that_is_gone_is_an_error(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("shop.py", "DEBUG = True\n")
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop")
    assert settings.DEBUG is True
    file.unlink()
    with pytest.raises(SettingsError) as caught:
        settings.reload()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_reload_that_fails_changes_nothing(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\n")
    assert settings.DEBUG is True
    module = sys.modules["settings"]
    write("settings.py", "DEBUG = 1 / 0\n")
    with pytest.raises(SettingsError):
        settings.reload()
    assert settings.DEBUG is True
    assert sys.modules["settings"] is module


def test_reload_looks_at_the_environment_and_the_directory_anew(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("settings.py", "WHERE = 'first'\n")
    write("second/settings.py", "WHERE = 'second'\n")
    write("second/shop.py", "WHERE = 'shop'\n")
    assert settings.WHERE == "first"
    monkeypatch.chdir(tmp_path / "second")
    settings.reload()
    assert settings.WHERE == "second"
    assert sys.modules["settings"].WHERE == "second"
    monkeypatch.setenv("EF_SETTINGS_MODULE", "shop")
    settings.reload()
    assert settings.WHERE == "shop"


# --- override --------------------------------------------------------------------------------------------------------


def test_an_override_holds_inside_its_block_only(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\n")
    with settings.override(DEBUG=False, EXTRA=1):
        assert (settings.DEBUG, settings.EXTRA) == (False, 1)
    assert settings.DEBUG is True
    assert not hasattr(settings, "EXTRA")


def test_the_innermost_override_wins(write: Write, settings: Settings) -> None:
    with settings.override(A=1, B=1):
        with settings.override(A=2):
            assert (settings.A, settings.B) == (2, 1)
        assert (settings.A, settings.B) == (1, 1)


def test_an_exception_takes_the_override_back(write: Write, settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), settings.override(DEBUG=True):
        _ = 1 / 0
    assert not hasattr(settings, "DEBUG")


def test_overrides_may_end_in_any_order(write: Write, settings: Settings) -> None:
    first, second, third = settings.override(A=1), settings.override(A=2), settings.override(A=1)
    for block in (first, second, third):
        block.__enter__()
    first.__exit__(None, None, None)
    assert settings.A == 1
    third.__exit__(None, None, None)
    assert settings.A == 2
    second.__exit__(None, None, None)
    assert not hasattr(settings, "A")


def test_an_override_survives_a_reload(write: Write, settings: Settings) -> None:
    write("settings.py", "DEBUG = True\n")
    with settings.override(DEBUG=False):
        settings.reload()
        assert settings.DEBUG is False
    assert settings.DEBUG is True


def test_what_is_overridden_does_not_run_the_module(write: Write, settings: Settings) -> None:
    write("settings.py", "raise AssertionError('was run')\n")
    with settings.override(DEBUG=True):
        assert settings.DEBUG is True


@pytest.mark.parametrize("name", ["debug", "Debug", "_DEBUG"])
def test_only_settings_can_be_overridden(settings: Settings, name: str) -> None:
    with pytest.raises(ValueError, match="upper case"):
        settings.override(**{name: 1})


# --- in a program -----------------------------------------------------------------------------------------------------


IN_A_HOOK = """
import os
if {variable!r}:
    os.environ["EF_SETTINGS_MODULE"] = {variable!r}

from event_flow import AppEngine, Application
from event_flow.settings import settings


class Database(Application):
    async def before_start(self):
        print(settings.DATABASE_URL)
        self.engine.stop()


AppEngine([Database()]).start({backend!r}, {options!r})
"""


@pytest.mark.parametrize("how", ["default", "exported", "set by the program"])
def test_a_program_reads_the_settings_of_its_working_directory_in_a_hook(
    write: Write, anyio_backend: tuple[str, dict[str, Any]], tmp_path: Path, how: str
) -> None:
    """*Spec*: `python main.py`, with the variable exported, set before the import, or not at all."""
    write("settings.py", "DATABASE_URL = 'default'\n")
    write("somemodule/myapp.py", "DATABASE_URL = 'custom'\n")
    backend, options = anyio_backend
    variable = "somemodule.myapp" if how == "set by the program" else ""
    program = write("bin/main.py", IN_A_HOOK.format(variable=variable, backend=backend, options=options))
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(event_flow.__file__).parents[1]),
        "LOGURU_LEVEL": "INFO",
    }
    environment.pop("EF_SETTINGS_MODULE", None)
    if how == "exported":
        environment["EF_SETTINGS_MODULE"] = "somemodule.myapp"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "default\n" if how == "default" else "custom\n"), done.stderr

"""Where `settings.NAME` comes from: an override, else the upper-case names of one Python module.

    EF_SETTINGS_MODULE=shop.config     the module `shop.config`
    EF_SETTINGS_MODULE not set         `settings.py` in the current working directory

Both are looked for in the current working directory first, whether or not it is on `sys.path`. The module is found
and run when a setting is first asked for, so the variable may still be set after this module was imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder
from threading import Lock, RLock
from types import ModuleType
from typing import Any, NoReturn

from event_flow.core.exception import SettingNotFound, SettingsError

__all__ = ["Settings", "settings"]

VARIABLE = "EF_SETTINGS_MODULE"
DEFAULT_MODULE = "settings"


class Settings:
    """The settings of this process; `event_flow.settings.settings` is the one instance that programs use.

    `settings.NAME` gives the value of the module at that moment, or of the innermost override that has the name.
    Only names in upper case are settings. A setting that is missing raises `SettingNotFound`, which is an
    `AttributeError`: `hasattr(settings, "NAME")` and `getattr(settings, "NAME", default)` work, also without any
    settings module. A module that was named but cannot be found, or that fails while it runs, raises `SettingsError`
    from the real error, on every use until it is mended; it never looks like a missing setting.

    May be used from any thread. The module is run once, by whoever asks first; the others wait.
    """

    __slots__ = ("_lock", "_overrides", "_source")

    _lock: Lock
    _overrides: list[dict[str, Any]]
    _source: _Source

    def __init__(self) -> None:
        object.__setattr__(self, "_lock", Lock())
        object.__setattr__(self, "_overrides", [])
        object.__setattr__(self, "_source", _Source())

    def __getattr__(self, name: str) -> Any:
        # Copy, pickle, inspect and debuggers probe for names of their own: those must not run anyone's module.
        if not _is_setting(name):
            raise SettingNotFound(f"settings has no {name!r}: only names in upper case are settings")
        for values in reversed(self._overrides):
            if name in values:
                return values[name]
        module = self._source.load()
        if module is None:
            where = f"{VARIABLE} is not set and {_cwd()} has no settings.py"
            raise SettingNotFound(f"no setting {name!r}: {where}")
        if name not in vars(module):
            where = f"the module {module.__name__!r} ({module.__file__})"
            raise SettingNotFound(f"no setting {name!r} in {where}")
        return vars(module)[name]

    def reload(self) -> None:
        """Find and run the settings module again, from its source as it is now; names that are gone are forgotten.

        Looks at `EF_SETTINGS_MODULE` and the working directory anew. What the module itself imports is not read
        again. Overrides stay. If it raises `SettingsError`, the settings are as they were before.
        """
        self._source.load(fresh=True)

    def override(self, **values: Any) -> AbstractContextManager[None]:
        """Give settings other values inside a `with` block, for tests; the names need not exist outside of it.

        Blocks may be nested, the innermost wins; leaving one, also by an exception, takes exactly its values back.
        An override holds for the whole process, not only for the task or thread that made it. The settings module
        is not run for names that are overridden. Names that are not in upper case are a `ValueError`.
        """
        for name in values:
            if not _is_setting(name):
                raise ValueError(f"cannot override {name!r}: only names in upper case are settings")
        return self._overriding(values)

    @contextmanager
    def _overriding(self, values: dict[str, Any]) -> Iterator[None]:
        # A new list each time: a reader in another thread goes on with the one it has.
        with self._lock:
            object.__setattr__(self, "_overrides", [*self._overrides, values])
        try:
            yield
        finally:
            # By identity, since blocks of different tasks may end in another order than they began.
            with self._lock:
                rest = [other for other in self._overrides if other is not values]
                object.__setattr__(self, "_overrides", rest)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"settings cannot be assigned to: use `with settings.override({name}=…)`")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"settings cannot be deleted: take {name!r} out of its module and reload()")

    def __dir__(self) -> list[str]:
        names = {name for values in self._overrides for name in values}
        # A broken module is reported where a setting is used, not while a debugger lists names.
        with suppress(SettingsError):
            module = self._source.load()
            names.update(filter(_is_setting, vars(module) if module else ()))
        return sorted([*names, *object.__dir__(self)])

    def __repr__(self) -> str:
        # Neither runs the module nor shows values, which may be secrets.
        module = self._source.module
        where = "not loaded" if module is None else f"{module.__name__!r} from {module.__file__}"
        return f"<settings: {where}>"

    def __reduce__(self) -> str:
        """Copies and unpickles to the one instance."""
        return "settings"


class _Source:
    """The settings module: which one it is, and that it is run once."""

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self._lock = RLock()
        self._busy = False

    def load(self, *, fresh: bool = False) -> ModuleType | None:
        """Return the module, run on first use and whenever `fresh`; None while no module is named and none is there."""
        if self.module is not None and not fresh:
            return self.module
        with self._lock:
            if self.module is None or fresh:
                self.module = self._load(fresh=fresh)
            return self.module

    def _load(self, *, fresh: bool) -> ModuleType | None:
        if self._busy:
            # Only the thread that holds the lock comes here: the settings module reached back for a setting.
            raise SettingsError("a setting was used while the settings module was still being run")
        self._busy = True
        try:
            return self._import(_module_name(), fresh=fresh)
        finally:
            self._busy = False

    def _import(self, name: str | None, *, fresh: bool) -> ModuleType | None:
        try:
            with _working_directory_first():
                spec = _find_default() if name is None else _find(name)
                return None if spec is None else self._module_of(spec, fresh=fresh)
        except Exception as exc:
            what = f"settings.py of {_cwd()}"
            if name is not None:
                what = f"the settings module {name!r} ({VARIABLE}), looked for in {_cwd()} and on sys.path,"
            raise SettingsError(f"{what} cannot be imported: {type(exc).__name__}: {exc}") from exc

    def _module_of(self, spec: ModuleSpec, *, fresh: bool) -> ModuleType:
        present = sys.modules.get(spec.name)
        same = present is not None and (present is self.module or _is_from(present, spec))
        if same and not fresh:
            # The program imported its settings itself: a second run would double their classes and side effects.
            return importlib.import_module(spec.name)
        # What else is known by that name stays what `import` gives; ours is then only for us.
        return _run(spec, importable=same or present is None)


def _is_setting(name: str) -> bool:
    return name.isupper() and not name.startswith("_")


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a working directory that no longer exists"


def _module_name() -> str | None:
    """The name in the environment, None for the default; raises `SettingsError` for what is no module name."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name.endswith(".py"):
        module = name.removesuffix(".py").removeprefix("./").replace("/", ".").strip(".")
        raise SettingsError(f"{VARIABLE}={name!r} is a file name: leave off the .py, as in {module!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise SettingsError(f"{VARIABLE}={name!r} is no module name: shop/config.py is 'shop.config'")
    return name


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """Imports in this block look in the working directory before anywhere else: `sys.path` need not have it."""
    entry = os.getcwd()
    sys.path.insert(0, entry)
    # A file written a moment ago is not in the import system's listing of its directory.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The module may have changed sys.path itself; what it put there stays.
        with suppress(ValueError):
            sys.path.remove(entry)


def _find_default() -> ModuleSpec | None:
    """`settings.py` of the working directory and of nowhere else, None if it has none."""
    spec = PathFinder.find_spec(DEFAULT_MODULE, [os.getcwd()])
    return spec if spec is not None and spec.origin is not None else None


def _find(name: str) -> ModuleSpec:
    parent = name.rpartition(".")[0]
    path = list(importlib.import_module(parent).__path__) if parent else None
    # Not importlib.util.find_spec: it answers with any module of that name that is already loaded.
    found = (finder.find_spec(name, path) for finder in sys.meta_path)
    spec = next((spec for spec in found if spec is not None), None)
    if spec is None:
        where = "" if path is None else f" in {path}, from where the package {parent!r} was imported"
        raise ModuleNotFoundError(f"no module named {name!r}{where}", name=name)
    if spec.origin is None:
        raise ModuleNotFoundError(
            f"{name!r} is a folder without __init__.py, and so without settings", name=name
        )
    return spec


def _is_from(module: ModuleType, spec: ModuleSpec) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file and spec.origin) and os.path.realpath(str(file)) == os.path.realpath(str(spec.origin))


def _run(spec: ModuleSpec, *, importable: bool) -> ModuleType:
    """Run the source of `spec` as a new module, which `import` gives from then on if `importable`.

    If it raises, `import` gives what it gave before.
    """
    module = importlib.util.module_from_spec(spec)
    # Straight from the source: compiled files are told apart by whole seconds, and an edit may be faster.
    source = spec.loader.get_source(spec.name) if isinstance(spec.loader, InspectLoader) else None
    if source is None:
        raise ImportError(f"{spec.origin} is not a Python source file", name=spec.name, path=spec.origin)
    with ExitStack() as undo:
        undo.callback(_put_back, spec.name, sys.modules.get(spec.name))
        # Relative imports and dataclasses look for the module there while it runs.
        sys.modules[spec.name] = module
        exec(compile(source, str(spec.origin), "exec", dont_inherit=True), vars(module))  # noqa: S102 - it is what a settings module is for
        if importable:
            _tell_parent(spec, module)
            undo.pop_all()
    return module


def _put_back(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def _tell_parent(spec: ModuleSpec, module: ModuleType) -> None:
    # `import a.b` takes b from the attribute of a, which only the import that loads b sets.
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


settings: Settings = Settings()
"""The settings of this process."""

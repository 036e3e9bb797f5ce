"""Which class a name on the wire stands for: a pinned one, or `module:qualname` of a class that is loaded.

A name from bytes is only looked up: in the table of pinned names and in the modules that are loaded, without an import and
without an attribute access that could run code. One that stands for two classes, whichever came first, stands for neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar, overload

from event_flow.codec.mismatch import Mismatch, described
from event_flow.core.event import Event, EventWithSource, ExceptionEvent
from event_flow.core.exception import DeclarationError

__all__ = ["find", "name_of", "register"]

EventT = TypeVar("EventT", bound=Event[Any])
EventClass = type[Event[Any]]

# The kernel's own classes: where they lie is nobody's business.
_classes: dict[str, EventClass] = {cls.__name__: cls for cls in (Event, EventWithSource, ExceptionEvent)}
_names: dict[EventClass, str] = {cls: name for name, cls in _classes.items()}


@overload
def register(cls: type[EventT], /, *, name: str) -> type[EventT]: ...


@overload
def register(*, name: str) -> Callable[[type[EventT]], type[EventT]]: ...


def register(cls: type[EventT] | None = None, /, *, name: str) -> Any:
    """Pin the name of an event class on the wire, so that the class may move or be renamed: `@register(name="trade")`.

    Also as a call, `register(Trade, name="trade")`, for a class that someone else wrote. Subclasses do not inherit the
    name. What was written under the module path before stays readable while the class is there.

    A class that was renamed or moved, and had no pinned name, gets the path it had: `register(Deal, name="shop:Trade")`.
    What was written as `shop:Trade` is then read as a `Deal`, and a `Deal` is written so. If a module is loaded later that
    has another class under that path, events of neither are encoded, and decoded, by it.

    Raises `DeclarationError` for what is no event class, a name that is no printable text or has a colon and is no
    `module:qualname`, a name that another class has (a pinned one, or the path of one that is loaded), and a class that has
    another name. The same class made anew, as by a reload of its module, takes the place of the old one.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    _check(cls, name)
    holder = _classes.get(name)
    for other in (holder, _loaded(name)):
        if other not in (None, cls) and _path(other) != _path(cls):
            raise DeclarationError(f"the name {name!r} of {_path(cls)} is that of {_path(other)} already")
    if _names.get(cls, name) != name:
        raise DeclarationError(
            f"{_path(cls)} has the name {_names[cls]!r} already, so it cannot be {name!r} too"
        )
    if holder is not None:
        _names.pop(holder, None)
    _classes[name] = cls
    _names[cls] = name
    return cls


def _check(cls: Any, name: Any) -> None:
    if not isinstance(cls, type) or not issubclass(cls, Event):
        raise DeclarationError(f"only event classes have names on the wire, not {cls!r}")
    if (
        not isinstance(name, str)
        or not name
        or not name.isprintable()
        or (":" in name and not _is_path(name))
    ):
        raise DeclarationError(
            f"{cls.__qualname__}: the name {name!r} is not allowed; any printable text without a colon is, "
            "and the path, module:qualname, that a class had"
        )


def _is_path(name: str) -> bool:
    module, _, qualname = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *qualname.split(".")))


def name_of(cls: EventClass) -> str | None:
    """The name under which `find` finds this very class; None if it would not."""
    name = _names.get(cls) or _path(cls)
    return name if find(name) is cls else None  # each time: a reload puts another class there


def find(name: str) -> EventClass | None:
    """The event class of that name, if it is loaded. Raises `Mismatch` if there are two."""
    pinned, loaded = _classes.get(name), _loaded(name)
    if pinned is None or loaded is None or pinned is loaded:
        return loaded if pinned is None else pinned
    raise Mismatch(
        f"{described(name)} is the name of two classes: it is pinned to {_path(pinned)}, and {_path(loaded)} is loaded"
    ).inside(".type")


def _loaded(name: str) -> EventClass | None:
    """The class whose path that is, if it is loaded."""
    module, colon, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    if not colon or found is None:
        return None
    for part in qualname.split("."):
        found = _inside(found).get(part)
    is_event = issubclass(type(found), type) and issubclass(found, Event)
    return found if is_event and _path(found) == name else None


def _inside(holder: object) -> Mapping[str, Any]:
    """What a module or a class holds itself, without a `__getattr__` of the user's or the loading of a lazy module."""
    names: Mapping[str, Any] = {}
    if issubclass(type(holder), ModuleType):
        names = object.__getattribute__(holder, "__dict__")
    elif issubclass(type(holder), type):
        names = type.__getattribute__(holder, "__dict__")
    return names


def _path(cls: EventClass | None) -> str:
    if cls is None:
        return ""
    # What multiprocessing calls the program in a process that it spawned; `sys.modules` has it under both names.
    module = "__main__" if cls.__module__ == "__mp_main__" else cls.__module__
    return f"{module}:{cls.__qualname__}"

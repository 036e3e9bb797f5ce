"""Which class a name on the wire stands for: a pinned one, or `module:qualname` of a class that is loaded.

A name from bytes is only looked up: in the table of pinned names, then in the modules that are loaded, without an import
and without an attribute access that could run code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar, overload

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

    Raises `DeclarationError` for what is no event class, an empty name or one with a colon (those are module paths), a
    name that another class has, and a class that has another name. The same class made anew, as by a reload of its
    module, takes the place of the old one.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    _check(cls, name)
    holder = _classes.get(name)
    if holder not in (None, cls) and _path(holder) != _path(cls):
        raise DeclarationError(f"the name {name!r} of {_path(cls)} is that of {_path(holder)} already")
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
    if not isinstance(name, str) or not name or ":" in name or not name.isprintable():
        raise DeclarationError(
            f"{cls.__qualname__}: the name {name!r} is not allowed; any printable text without a colon is"
        )


def name_of(cls: EventClass) -> str | None:
    """The name under which `find` finds this very class; None if it would not."""
    name = _names.get(cls)
    if name is None and find(path := _path(cls)) is cls:  # each time: a reload puts another class there
        name = path
    return name


def find(name: str) -> EventClass | None:
    """The event class of that name, if it is loaded."""
    if name in _classes:
        return _classes[name]
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

"""What the type variables of a class and of its bases stand for: `Sub(Base[Order])` makes `Event` an `Event[Order]`.

Forward references are read where they are written: in the class that has the annotation or the base, and its module.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any

from event_flow.codec.mismatch import failure

__all__ = ["arguments_of", "hints_of", "substituted"]

Bindings = Mapping[Any, Any]


def arguments_of(annotation: Any) -> dict[type, Bindings]:
    """For a class, or `Class[...]`: it and each of its bases, with what their type variables stand for.

    A type variable without an argument stands for itself.
    """
    found: dict[type, Bindings] = {}
    _walk(annotation, found)
    return found


def _walk(annotation: Any, found: dict[type, Bindings]) -> None:
    cls = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if not isinstance(cls, type) or (cls in found and not arguments):
        return
    bound = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    found[cls] = bound
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base)
        if origin in (None, typing.Generic, typing.Protocol):
            _walk(base, found)
        elif isinstance(origin, type):
            _walk(substituted(_evaluated(base, cls), bound), found)


def substituted(annotation: Any, bound: Bindings) -> Any:
    """The annotation with its type variables replaced; those that stand for nothing stay."""
    if isinstance(annotation, typing.TypeVar):
        return bound.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not bound or not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(bound.get(parameter, parameter) for parameter in parameters)]


def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a class and its bases, forward references resolved. Raises `Mismatch` if one cannot be."""
    # Python 3.12.0 and 3.12.1 do not look for the T of `class Box[T]` by themselves.
    own = _type_parameters(cls)
    names = {**vars(cls), **_module_of(cls), **own} if own else None
    module = None
    if typing.is_typeddict(
        cls
    ):  # It has those of its bases, which know their modules, but look at `names` first.
        module, names = _module_of(cls), own
    try:
        return typing.get_type_hints(cls, module, names, include_extras=True)
    except Exception as exc:
        raise failure(f"an annotation of {cls.__qualname__} cannot be resolved", exc) from exc


def _evaluated(base: Any, cls: type) -> Any:
    """`Event["Order"]`, which `cls` has as a base, with the class of that name."""

    def holder() -> None: ...

    holder.__annotations__ = {"base": base}
    names = {**vars(cls), **_type_parameters(cls)}
    try:
        return typing.get_type_hints(holder, _module_of(cls), names, include_extras=True)["base"]
    except Exception as exc:
        raise failure(f"the base {base!r} of {cls.__qualname__} cannot be resolved", exc) from exc


def _type_parameters(cls: type) -> dict[str, Any]:
    return {each.__name__: each for each in getattr(cls, "__type_params__", ())}


def _module_of(cls: type) -> dict[str, Any]:
    return getattr(sys.modules.get(cls.__module__), "__dict__", {})

"""What the type variables of a class and of its bases stand for: `Sub(Base[Order])` makes `Event` an `Event[Order]`.

Forward references are read where they are written: in the class that has the annotation or the base, and its module.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any

from event_flow.codec.mismatch import failure

__all__ = ["arguments_of", "bindings", "hints_of", "substituted"]

Bindings = Mapping[Any, Any]
NOTHING: Bindings = {}
MISSING = object()


def arguments_of(annotation: Any) -> dict[type, Bindings]:
    """For a class, or `Class[...]`: it and each of its bases, with what their type variables stand for.

    A type variable without an argument stands for its default, or for itself; a `TypeVarTuple` for a tuple of types.
    """
    found: dict[type, Bindings] = {}
    _walk(typing.get_origin(annotation) or annotation, _bound_by(annotation), found)
    return found


def _walk(cls: Any, bound: Bindings, found: dict[type, Bindings]) -> None:
    if not isinstance(cls, type) or (cls in found and not bound):
        return
    found[cls] = bound
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base)
        if origin in (None, typing.Generic, typing.Protocol):
            _walk(base, _bound_by(base), found)
        elif isinstance(origin, type):
            _walk(origin, _bound_by(_evaluated(base, cls), bound), found)


def _bound_by(annotation: Any, outer: Bindings = NOTHING) -> Bindings:
    origin = typing.get_origin(annotation)
    parameters = getattr(origin or annotation, "__parameters__", ())
    return bindings(parameters, typing.get_args(annotation) if origin else None, outer)


def bindings(
    parameters: tuple[Any, ...], arguments: tuple[Any, ...] | None, outer: Bindings = NOTHING
) -> Bindings:
    """Each type variable with its argument or default, a `TypeVarTuple` with all that others leave; None: without brackets.

    The arguments may have variables themselves, those of `outer`.
    """
    left = list(arguments or ())
    while 0 < len(left) <= len(parameters) and left[-1] is _default(parameters[len(left) - 1]):
        left.pop()  # typing has filled it in, with variables of `parameters`
    left = _each(left, outer)
    surplus = max(len(left) - len(parameters) + 1, 0)
    bound: dict[Any, Any] = {}
    for parameter in parameters:
        if isinstance(parameter, typing.TypeVarTuple) and arguments is not None:
            bound[parameter] = tuple(left[:surplus])
            del left[:surplus]
        elif left:
            bound[parameter] = left.pop(0)
        elif (default := _default(parameter)) is not MISSING:
            bound[parameter] = substituted(default, bound)
    return bound


def _default(parameter: Any) -> Any:
    """That of Python 3.13 and of typing_extensions."""
    has_default = getattr(parameter, "has_default", lambda: hasattr(parameter, "__default__"))
    return parameter.__default__ if has_default() else MISSING


def substituted(annotation: Any, bound: Bindings) -> Any:
    """The annotation with its type variables replaced; those that stand for nothing stay."""
    if isinstance(annotation, typing.TypeVar):
        return bound.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not bound or not parameters or isinstance(annotation, type):
        return annotation
    spread = [typing.Unpack[each] if isinstance(each, typing.TypeVarTuple) else each for each in parameters]
    return annotation[tuple(_each(spread, bound))]


def _each(arguments: list[Any], bound: Bindings) -> list[Any]:
    each: list[Any] = []
    for argument in arguments:
        if typing.get_origin(argument) is typing.Unpack:
            each += bound.get(typing.get_args(argument)[0], (argument,))
        else:
            each.append(substituted(argument, bound))
    return each


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

"""What a function takes: its parameters, as they are left where a class attribute or a plain function is called."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Parameters:
    """The parameters of `target`, without the one that is filled when it is looked up; none if nothing is known of them."""

    def __init__(self, target: Any, *, is_bound: bool = False) -> None:
        self.function: Any = innermost(target)
        try:
            parameters = list(_signature(target).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        self._all = parameters[1 if is_bound else 0 :]

    @property
    def only(self) -> inspect.Parameter | None:
        """The one that one argument would fill; None if one argument is too many or too few."""
        named = [each for each in self._all if each.kind not in VARIABLE]
        needed = [each for each in named if each.default is inspect.Parameter.empty]
        first = next((each for each in named if each.kind in POSITIONAL), None)
        return first if needed in ([], [first]) else None

    @property
    def annotation_of_first(self) -> Any:
        """What is said of a first argument, also by `*events: E`; `inspect.Parameter.empty` if nothing is."""
        allowed = (*POSITIONAL, inspect.Parameter.VAR_POSITIONAL)
        annotations = (each.annotation for each in self._all if each.kind in allowed)
        return next(annotations, inspect.Parameter.empty)


def of_attribute(raw: Any) -> Parameters:
    """Those of a class attribute when it is called on an instance. Of a class they are not asked for: it makes no handler."""
    target, is_bound = _target(raw)
    return Parameters(None if isinstance(target, type) else target, is_bound=is_bound)


def _target(raw: Any) -> tuple[Any, bool]:
    """What is called for a class attribute, and whether its first parameter is filled when it is looked up."""
    if isinstance(raw, staticmethod):
        return raw.__func__, False
    if isinstance(raw, classmethod):
        return raw.__func__, True
    if isinstance(raw, functools.partial):  # before the routines: from Python 3.14 on it looks like one
        return raw, False
    if isinstance(raw, functools.partialmethod):
        return functools.partial(
            raw.func, None, *raw.args, **raw.keywords
        ), False  # None stands for the instance
    if inspect.isroutine(raw):
        return raw, not inspect.isbuiltin(raw)
    return raw, False  # an object that can be called


def _signature(target: Any) -> inspect.Signature:
    try:
        return inspect.signature(target)
    except NameError:
        # From Python 3.14 on annotations are evaluated only now; as strings they are what they are with `from __future__`.
        if sys.version_info >= (3, 14):
            from annotationlib import Format

            return inspect.signature(target, annotation_format=Format.STRING)
        raise


def innermost(target: Any) -> Any:
    """The function whose source has the annotation."""
    while isinstance(target, functools.partial):
        target = target.func
    if isinstance(target, type):
        return target.__init__  # type: ignore[misc]
    return target if inspect.isroutine(target) else type(target).__call__

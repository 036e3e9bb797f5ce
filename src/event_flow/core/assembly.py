"""Builds the branches of a run from what was added to the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from event_flow.core.branch import Branch
from event_flow.core.declaration import declarations_of
from event_flow.core.handler_options import HandlerDeclaration
from event_flow.core.membership import Node
from event_flow.core.run import Run
from event_flow.core.wording import name_of

if TYPE_CHECKING:
    from event_flow.core.middleware import Middleware

FUNCTIONS = "engine"


class Names:
    """Gives every name once: the second "App" becomes "App#2"."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._asked: Counter[str] = Counter()

    def give(self, name: str) -> str:
        given = name
        while given in self._given:  # again, where somebody is called "App#2" himself
            self._asked[name] += 1
            given = f"{name}#{self._asked[name] + 1}"
        self._given.add(given)
        return given


def grow(
    apps: Iterable[Node],
    functions: Collection[tuple[Callable[..., Any], HandlerDeclaration]],
    middleware: Iterable[Middleware],
    run: Run,
) -> list[Branch]:
    """One branch for each application, in the order of the start: plain functions first, parents before children."""
    names = Names()
    branches: list[Branch] = []
    if functions:
        branch = Branch(names.give(FUNCTIONS), None, tuple(middleware), run)
        in_branch = Names()
        for function, declaration in functions:
            branch.add_handler(in_branch.give(name_of(function)), function, declaration)
        branches.append(branch)

    def add(app: Node, parent: Branch | None, around: tuple[Middleware, ...]) -> None:
        around = (*around, *app._middleware)
        branch = Branch(names.give(app.name or type(app).__name__), parent, around, run)
        branch.before_start, branch.exit = app._overridden("before_start"), app._overridden("exit")
        branch.add_declared(declarations_of(type(app)), app)
        branches.append(branch)
        for child in app._sub_apps:
            add(child, branch, around)

    for app in apps:
        add(app, None, tuple(middleware))
    return branches

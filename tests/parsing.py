"""Reading Python source, undisturbed. Standard library only."""

from __future__ import annotations

import ast
import gc


def parsed(source: str) -> ast.Module:
    """`ast.parse` without the garbage collector.

    CPython 3.11 counts its depth in one place for all: when the collector meanwhile runs code that parses too, as does
    asyncio's log of an exception that nobody asked for, it raises `SystemError: AST constructor recursion depth mismatch`.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if was_enabled:
            gc.enable()

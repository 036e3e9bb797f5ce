"""Runs every program of the tutorial in a folder that is empty but for its files. Standard library only.

`nox -s tutorial` calls it with the name of a backend, where nothing of ours is installed but the wheel.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import snippets


def main(backend: str) -> int:
    import event_flow

    installed = Path(str(event_flow.__file__))
    if installed.is_relative_to(snippets.ROOT / "src"):
        print(f"{installed} is the checkout, not the wheel")
        return 1
    print(f"event-flow {distribution('event-flow').version}, on {backend}")
    failed = 0
    for program in snippets.tutorial():
        with tempfile.TemporaryDirectory() as folder:
            try:
                printed = program.run(Path(folder), backend)
            except AssertionError as exc:
                printed = str(exc)
        failed += printed != program.output
        print(f"{program.fence.page}, {program.name}: {'ok' if printed == program.output else printed}")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1])))

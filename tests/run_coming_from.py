"""Runs every program of `docs/coming-from`: those for other libraries with these libraries, ours beside them.

`nox -s coming_from` calls it where the versions are installed that the pages name.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import snippets
from snippets import DOCS, Fence, Program

# FastStream's programs have a broker and an application, but nobody to run them: its command line would, with a server.
IN_MEMORY = """
import asyncio

from faststream import TestApp
from faststream.kafka import TestKafkaBroker


async def in_memory() -> None:
    async with TestKafkaBroker(broker), TestApp(app):
        {publish}


asyncio.run(in_memory())
"""
# Title of a program → what is put below it.
BELOW = {
    "FastStream 0.7.8": IN_MEMORY.format(publish="pass"),
    "FastStream 0.7.8 and event_flow": IN_MEMORY.format(
        publish='await broker.publish_batch("a lamp", "a book", topic="orders")'
    ),
}


def run(fence: Fence) -> str:
    """What a program for another library prints. Without `-W error`: its warnings are not ours."""
    title = str(fence.title)
    name, said = title.split()[:2]
    assert version(name.lower()) == said, f"{name} {version(name.lower())} is installed"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(fence.body + BELOW.get(title, ""), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_ours(program: Program) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return program.run(Path(folder), "asyncio")


def failures() -> Iterator[str]:
    for page in sorted((DOCS / "coming-from").glob("*.md")):
        for program in snippets.programs(page, foreign=True):
            try:
                printed = run(program.fence) if program.fence.is_foreign else run_ours(program)
            except AssertionError as exc:
                printed = str(exc)
            name = f"{program.fence.page}, {program.name}"
            print(f"{name}: {'ok' if printed == program.output else printed}", flush=True)
            if printed != program.output:
                yield name


if __name__ == "__main__":
    sys.exit(bool(list(failures())))

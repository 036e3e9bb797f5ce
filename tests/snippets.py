"""The snippets of README and docs: which there are, which files each needs, and what it prints. Standard library only.

On every page a ```python fence is a whole program, and the ```text fence after it is what it prints (a ```bash fence that
says how to run it may stand between). A title makes a difference that the reader sees, too:

    ```python                          a program
    ```python title="quakes.py"        a program of that name; it stays there for what comes after it on the page, and
                                       in a tutorial, which is one growing program, for the pages after it
    ```python title="test_quakes.py"   tests, run by pytest
    ```py title="bubus 1.5.6"          code for another library, in "coming from" only: compiled by the
                                       tests, run by `nox -s coming_from`, where that library is

A titled file without output is run by what comes after it, which has to import it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from parsing import parsed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial"

FENCE = re.compile(
    r'^(?P<indent> *)```(?P<kind>\w+)(?: title="(?P<title>[^"\n]+)")?\n(?P<body>.*?)^(?P=indent)```$',
    re.MULTILINE | re.DOTALL,
)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

ARGUMENTS = {
    "asyncio": "",
    "uvloop": 'backend="asyncio", backend_options={"use_uvloop": True}',
    "trio": 'backend="trio"',
}
# `engine.start()` and `AppEngine([...]).start()`, and the `main` of a snippet that is embedded.
START = re.compile(r"(?:(?<=engine)|(?<=\)))\.start\(\)")
RUN_MAIN = "anyio.run(main)"
# Imported by the package, not by the program.
SETTINGS = {"settings.py"}
# The one thing in the output of pytest that differs from run to run.
DURATION = re.compile(r" in \d+\.\d+s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A fenced block of a page, and the heading under which it stands."""

    page: str
    heading: str
    kind: str
    title: str | None
    body: str

    @property
    def is_file(self) -> bool:
        return self.kind == "python" and (self.title or "").endswith(".py")

    @property
    def is_foreign(self) -> bool:
        return self.kind == "py"

    @property
    def is_tests(self) -> bool:
        return self.is_file and str(self.title).startswith("test_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A fence that is run, the files that are there by then, and what it prints."""

    fence: Fence
    files: dict[str, str]
    output: str

    @property
    def name(self) -> str:
        return self.fence.title or "snippet.py"

    @property
    def modules(self) -> set[str]:
        """What the program imports, by itself or through the files beside it."""
        reached, new = set[str](), imported(self.fence.body)
        while new:
            reached |= new
            sources = [self.files[f"{name}.py"] for name in new if f"{name}.py" in self.files]
            new = {name for source in sources for name in imported(source)} - reached
        return reached

    def sources(self, backend: str) -> dict[str, str]:
        """The program and the files that it needs, for that backend."""
        needed = {f"{name}.py" for name in self.modules} | SETTINGS
        files = {name: source for name, source in self.files.items() if name in needed}
        files[self.name] = self.fence.body
        return {name: on_backend(source, backend) for name, source in files.items()}

    @property
    def follows_the_backend(self) -> bool:
        """Whether another backend makes it another program; one that names its own, or pytest, does not."""
        return self.sources("trio") != self.sources("asyncio")

    def run(self, folder: Path, backend: str, python: str = sys.executable) -> str:
        """Write the files to `folder`, run the program there, and return what it prints. Fails as the program does."""
        for name, source in self.sources(backend).items():
            (folder / name).write_text(source, encoding="utf-8")
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if self.fence.is_tests else []
        done = subprocess.run(
            [python, "-X", "dev", "-W", "error", *pytest, self.name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "COLUMNS": "80"},  # the width that pytest prints at
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return without_duration(done.stdout)


def imported(source: str) -> set[str]:
    """The modules that a source imports, by the first part of their names."""
    nodes = list(ast.walk(parsed(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | named}


def on_backend(source: str, backend: str) -> str:
    """The same program for another backend: one argument is all that changes."""
    arguments = ARGUMENTS[backend]
    started = START.sub(f".start({arguments})", source)
    return started.replace(RUN_MAIN, f"anyio.run(main, {arguments})" if arguments else RUN_MAIN)


def without_duration(output: str) -> str:
    return DURATION.sub("", output)


def pages() -> list[Path]:
    """Every page that users read: those beside the README, then the site's, a tutorial's chapters in their order."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path) -> list[Fence]:
    text = text_of(page)
    found = []
    for match in FENCE.finditer(text):
        headings = HEADING.findall(FENCE.sub("", text[: match.start()]))
        found.append(
            Fence(
                page=name_of(page),
                heading=str(headings[-1]) if headings else page.stem,
                kind=match["kind"],
                title=match["title"],
                body=textwrap.dedent(match["body"]),
            )
        )
    return found


def programs(page: Path, *, foreign: bool = False) -> list[Program]:
    """The programs of a page; in a tutorial with the files of the pages before it. `foreign`: those for other libraries too."""
    return list(_programs(page, earlier_files(page), {"python", "py"} if foreign else {"python"}))


def earlier_files(page: Path) -> dict[str, str]:
    if page.parent != TUTORIAL:
        return {}
    before = [other for other in sorted(TUTORIAL.glob("*.md")) if other.name < page.name]
    return {str(fence.title): fence.body for other in before for fence in fences(other) if fence.is_file}


def _programs(page: Path, files: dict[str, str], kinds: set[str]) -> Iterator[Program]:
    # Between a program and its output there may be the command that runs it.
    found = [fence for fence in fences(page) if fence.kind != "bash"]
    outputs = {id(one): two.body for one, two in pairwise(found) if two.kind == "text"}
    for fence in found:
        if fence.kind in kinds and id(fence) in outputs:
            yield Program(fence=fence, files=dict(files), output=without_duration(outputs[id(fence)]))
        if fence.is_file:
            files[str(fence.title)] = fence.body


def tutorial() -> list[Program]:
    """Every program of the tutorial, in order."""
    return [program for page in sorted(TUTORIAL.glob("*.md")) for program in programs(page)]

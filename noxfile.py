"""The project's chores: `nox` runs tests, lint and types; `nox -l` lists the rest."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "types"]
# Interpreters are the user's choice: one that is missing is reported, never fetched.
nox.options.download_python = "never"

PROJECT = nox.project.load_toml("pyproject.toml")
EVERY_BACKEND = ".[trio,uvloop]"


def group(name: str) -> list[str]:
    """The requirements of a dependency group. Not `pip install --group`: the pip of Python 3.11 does not know it."""
    return list(nox.project.dependency_groups(PROJECT, name))


def run_tests(session: nox.Session, *arguments: str) -> None:
    session.install(EVERY_BACKEND, *group("test"))
    session.run("python", "-X", "dev", "-W", "error", "-m", "pytest", *arguments, *session.posargs)


def readme_snippets(folder: Path) -> list[str]:
    """The programs that the README shows, written to files of `folder`."""
    shown = Path("README.md").read_text(encoding="utf-8")
    files: list[Path] = []
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```$", shown, re.MULTILINE | re.DOTALL)):
        files.append(folder / f"snippet_{number}.py")
        files[-1].write_text(snippet, encoding="utf-8")
    assert files, "the README shows no program"
    return [str(file) for file in files]


@nox.session
def tests(session: nox.Session) -> None:
    """All tests on the Python that runs nox."""
    run_tests(session)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def matrix(session: nox.Session) -> None:
    """All tests on every Python there is; with --error-on-missing-interpreters on every one there should be."""
    run_tests(session)


@nox.session(python="3.13")
def smoke(session: nox.Session) -> None:
    """The tests on a second Python: none that waits in real time, few Hypothesis examples."""
    run_tests(session, "-m", "not realtime", "--hypothesis-profile=smoke")


@nox.session
def lowest(session: nox.Session) -> None:
    """All tests with the oldest versions that pyproject.toml allows."""
    project = PROJECT["project"]
    allowed = [*project["dependencies"], *project["optional-dependencies"]["trio"]]
    oldest = [each.replace(">=", "==") for each in allowed]
    # The plugin of that anyio uses a name which pytest 9.2 warns about.
    session.install(EVERY_BACKEND, *group("test"), *oldest, "pytest<9.2")
    session.run("python", "-X", "dev", "-W", "error", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on everything there is to read; pyright on what users see: public names, examples, README."""
    session.install(EVERY_BACKEND, *group("types"))
    session.run("mypy", *session.posargs)
    session.run("pyright")
    # Not in .nox: pyright passes over folders with a dot in front, and says that all is well.
    with TemporaryDirectory() as folder:
        programs = readme_snippets(Path(folder))
        said = str(session.run("pyright", "--stats", *programs, silent=True))
    if f"Total files checked: {len(programs)}\n" not in said:
        session.error(f"pyright has not checked all programs of the README: {said}")
    # Of the installed package; fails unless every public type is known and said.
    session.run("pyright", "--verifytypes", "event_flow", "--ignoreexternal")


@nox.session
def demo(session: nox.Session) -> None:
    """Replay real earthquakes through the engine."""
    session.install(EVERY_BACKEND)
    session.run("python", "example/earthquakes.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the loops people write by hand."""
    session.install(EVERY_BACKEND)
    session.run("python", "-m", "benchmarks", *session.posargs)

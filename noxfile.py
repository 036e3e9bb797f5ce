"""The project's chores: `nox` runs tests, lint and types; `nox -l` lists the rest."""

from __future__ import annotations

import re
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "types"]
# Interpreters are the user's choice: one that is missing is reported, never fetched.
nox.options.download_python = "never"

PROJECT = nox.project.load_toml("pyproject.toml")
EVERY_BACKEND = ".[trio,uvloop]"
# A run of the tests on one more Python, or on other versions: none that waits in real time, few Hypothesis examples.
SMOKE = ("-m", "not realtime", "--hypothesis-profile=smoke")


def group(name: str) -> list[str]:
    """The requirements of a dependency group. Not `pip install --group`: the pip of Python 3.11 does not know it."""
    return list(nox.project.dependency_groups(PROJECT, name))


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run it as strictly as it goes."""
    session.run("python", "-X", "dev", "-W", "error", "-m", "pytest", *arguments, *session.posargs)


def readme_snippets(folder: Path) -> list[str]:
    """The programs that the README shows, written to files of `folder`."""
    shown = Path("README.md").read_text(encoding="utf-8")
    files: list[Path] = []
    for number, snippet in enumerate(
        re.findall(r"^```python[^\n]*\n(.*?)^```$", shown, re.MULTILINE | re.DOTALL)
    ):
        files.append(folder / f"snippet_{number}.py")
        files[-1].write_text(snippet, encoding="utf-8")
    assert files, "the README shows no program"
    return [str(file) for file in files]


@nox.session
def tests(session: nox.Session) -> None:
    """All tests on the Python that runs nox."""
    session.install(EVERY_BACKEND, *group("test"))
    pytest(session)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def matrix(session: nox.Session) -> None:
    """All tests on every Python there is; with --error-on-missing-interpreters on every one there should be."""
    session.install(EVERY_BACKEND, *group("test"))
    pytest(session)


@nox.session(python="3.13")
def smoke(session: nox.Session) -> None:
    """The tests on a second Python: none that waits in real time, few Hypothesis examples."""
    session.install(EVERY_BACKEND, *group("test"))
    pytest(session, *SMOKE)


@nox.session(python="3.12")
def package(session: nox.Session) -> None:
    """Build the sdist and from it the wheel, look into both, and run the smoke tests on the wheel, away from the sources."""
    session.install(*group("package"))
    with tempfile.TemporaryDirectory() as scratch:
        session.run("python", "-m", "build", "--outdir", scratch, silent=True)
        (sdist,), (wheel,) = Path(scratch).glob("*.tar.gz"), Path(scratch).glob("*.whl")
        session.run("twine", "check", "--strict", str(sdist), str(wheel))
        session.run("python", ".ci/contents.py", str(sdist), str(wheel))
        session.install(f"{wheel}[trio]", *group("test"))
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        away = sdist.with_name(sdist.name.removesuffix(".tar.gz"))
        shutil.rmtree(away / "src")
        with session.chdir(away):
            session.run(
                "python", "-c", "import event_flow, sys; assert event_flow.__file__.startswith(sys.prefix)"
            )
            # Which loop is built in C says nothing of the wheel.
            pytest(session, "--without-backend=uvloop", *SMOKE)


@nox.session
def without_trio(session: nox.Session) -> None:
    """The smoke tests with nothing but what the core depends on: on asyncio only."""
    session.install(".", *group("test"))
    pytest(session, "--without-backend=trio", "--without-backend=uvloop", *SMOKE)


@nox.session
def soak(session: nox.Session) -> None:
    """The state machines over the whole engine, 10,000 examples each on each backend, with statistics."""
    session.install(EVERY_BACKEND, *group("test"))
    pytest(session, "-m", "machine", "--hypothesis-profile=soak", "--hypothesis-show-statistics")


@nox.session
def lowest(session: nox.Session) -> None:
    """All tests with the oldest versions that pyproject.toml allows."""
    project = PROJECT["project"]
    allowed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    oldest = [each.replace(">=", "==") for each in allowed]
    # The plugin of that anyio uses a name which pytest 9.2 warns about.
    session.install(EVERY_BACKEND, *group("test"), *oldest, "pytest<9.2")
    pytest(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format. And whether GitHub would take the workflow."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    workflows = [str(path) for path in sorted(Path(".github/workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on all there is, as three systems see it; pyright on what users see: names, examples, README."""
    session.install(EVERY_BACKEND, *group("types"))
    for platform in ("linux", "win32", "darwin"):
        session.run("mypy", f"--platform={platform}", *session.posargs)
    session.run("pyright")
    # Not in .nox: pyright passes over folders with a dot in front, and says that all is well.
    with tempfile.TemporaryDirectory() as folder:
        programs = readme_snippets(Path(folder))
        said = str(session.run("pyright", "--stats", *programs, silent=True))
    if f"Total files checked: {len(programs)}\n" not in said:
        session.error(f"pyright has not checked all programs of the README: {said}")
    # Of the installed package; fails unless every public type is known and said.
    session.run("pyright", "--verifytypes", "event_flow", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into `site/`: warnings are errors, every link is checked. With `-- serve` for writing."""
    session.install(*group("docs"))
    if session.posargs:
        session.run("zensical", *session.posargs)
        return
    session.run("zensical", "build", "--strict", "--clean")
    session.run("python", "tests/built_site.py", "site")


@nox.session
def tutorial(session: nox.Session) -> None:
    """The tutorial as its readers have it: nothing of ours but the wheel, in a folder of its own, on Trio."""
    # Not create_tmp(): it moves temporary folders into this one, and pytest would find our configuration above them.
    wheels = Path(session.virtualenv.location) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels), ".", silent=True)
    (wheel,) = wheels.glob("*.whl")
    chapters = "".join(page.read_text(encoding="utf-8") for page in Path("docs/tutorial").glob("*.md"))
    asked = {
        word
        for line in re.findall(r"^pip install (.+)$", chapters, re.MULTILINE)
        for word in shlex.split(line)
    }
    session.install(f"{wheel}[trio]", *sorted(word for word in asked if not word.startswith("event-flow")))
    session.run("python", "tests/run_tutorial.py", "trio")


@nox.session
def coming_from(session: nox.Session) -> None:
    """The programs of docs/coming-from: those for other libraries, each with the version that its page names, and ours."""
    pages = "".join(page.read_text(encoding="utf-8") for page in Path("docs/coming-from").glob("*.md"))
    named = dict(re.findall(r'^ *```py title="(\w+) ([\d.]+)', pages, re.MULTILINE))
    # Of vnpy its event engine alone, which needs nothing: the rest of it wants Qt, NumPy, TA-Lib and more.
    session.install(".", f"bubus=={named['bubus']}", f"faststream[kafka]=={named['FastStream']}")
    session.install("--no-deps", f"vnpy=={named['vnpy']}")
    session.run("python", "tests/run_coming_from.py")


@nox.session
def demo(session: nox.Session) -> None:
    """Replay real earthquakes through the engine."""
    session.install(EVERY_BACKEND)
    session.run("python", "example/earthquakes.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the loops people write by hand; --peers: other libraries, --curves: growth, --write-docs: into the docs."""
    session.install(EVERY_BACKEND)
    # --write-docs alone measures everything.
    if "--peers" in session.posargs or (
        "--write-docs" in session.posargs and "--curves" not in session.posargs
    ):
        session.install(*group("peers"))
    session.run("python", "-m", "benchmarks", *session.posargs)

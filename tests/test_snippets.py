"""README and docs tell the truth: every snippet is run as it stands, on every backend, and prints what the page says."""

from __future__ import annotations

import ast
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import run_coming_from
import snippets
from backends import REAL_TIME
from loguru import logger
from snippets import (
    ARGUMENTS,
    FENCE,
    ROOT,
    TUTORIAL,
    Fence,
    Program,
    fences,
    name_of,
    on_backend,
    pages,
    text_of,
)

import event_flow

PAGES = pages()
README = ROOT / "README.md"
ALL = [fence for page in PAGES for fence in fences(page)]
PROGRAMS = [program for page in PAGES for program in snippets.programs(page)]
PROJECT = tomllib.loads(text_of(ROOT / "pyproject.toml"))
SESSIONS = set(re.findall(r"^def (\w+)\(session", text_of(ROOT / "noxfile.py"), re.MULTILINE))

# Programs, code for other libraries, output or a picture of letters, and commands.
KINDS = {"python", "py", "text", "bash"}
# A program that is tried on one backend only names what ties it to that one.
TIES = {"asyncio", "trio", "fastapi", "pytest"}
# Run by a test of its own here, since it waits for requests.
SERVED = {"web.py"}


def backends(program: Program) -> list[str]:
    """The README shows the promise, so it is tried on all of them; elsewhere asyncio and Trio would tell."""
    if not program.follows_the_backend:
        # anyio's pytest plugin runs tests on both, as readers see it.
        return ["trio"] if "trio" in program.modules or program.fence.is_tests else ["asyncio"]
    return list(ARGUMENTS) if program.fence.page == "README.md" else ["asyncio", "trio"]


def label(fence: Fence) -> str:
    return f"{fence.page}: {fence.title or fence.heading}"


RUNS = [
    pytest.param(program, backend, id=f"{label(program.fence)}-{backend}")
    for program in PROGRAMS
    for backend in backends(program)
    if backend in REAL_TIME
]


@pytest.mark.parametrize(("program", "backend"), RUNS)
def test_snippet_prints_what_the_page_says(program: Program, backend: str, tmp_path: Path) -> None:
    assert program.run(tmp_path, backend) == program.output


def test_every_fence_is_found() -> None:
    """One with an info string of another form would be skipped silently."""
    for page in PAGES:
        lines = re.findall(r"^\s*(?:`{3,}|~{3,}).*$", text_of(page), re.MULTILINE)
        assert len(lines) == 2 * len(FENCE.findall(text_of(page))), f"{name_of(page)}: {lines}"
    assert {fence.kind for fence in ALL} <= KINDS
    assert sum(fence.page == "README.md" for fence in ALL) >= 25


def test_every_python_fence_is_run() -> None:
    run = {program.fence for program in PROGRAMS}
    used = {f"{name}.py" for program in PROGRAMS for name in program.modules | {"settings"}} | SERVED
    left = [
        label(fence)
        for fence in ALL
        if fence.kind == "python" and fence not in run and not (fence.is_file and fence.title in used)
    ]
    assert left == [], "no output stands under it, and nothing imports it"


def test_code_for_other_libraries_stands_where_people_come_from() -> None:
    """And can be run there: `nox -s coming_from` installs what the titles say."""
    run = {program.fence for page in PAGES for program in snippets.programs(page, foreign=True)}
    for fence in ALL:
        if fence.is_foreign:
            assert fence.page.startswith("docs/coming-from/"), label(fence)
            title = re.fullmatch(r"\w+ \d+\.\d+\.\d+( and event_flow)?", fence.title or "")
            assert title, f"{label(fence)}: which library, and which version of it?"
            assert fence in run, f"{label(fence)}: what does it print?"
            compile(fence.body, label(fence), "exec", dont_inherit=True)


def test_what_is_put_below_code_for_other_libraries_is_put_below_some() -> None:
    assert set(run_coming_from.BELOW) <= {fence.title for fence in ALL if fence.is_foreign}


def test_every_program_of_ours_runs_on_trio_too() -> None:
    tied = [
        label(program.fence)
        for program in PROGRAMS
        if "trio" not in backends(program)
        and not TIES & program.modules
        and re.search(r"\bstart\(|\brun\(", program.fence.body)
    ]
    assert tied == []


@pytest.mark.parametrize(
    ("source", "on_trio"),
    [
        ("print(engine.start())", 'print(engine.start(backend="trio"))'),
        ("AppEngine([Shop()]).start()", 'AppEngine([Shop()]).start(backend="trio")'),
        ("anyio.run(main)", 'anyio.run(main, backend="trio")'),
    ],
)
def test_another_backend_is_one_argument(source: str, on_trio: str) -> None:
    assert on_backend(source, "asyncio") == source
    assert on_backend(source, "trio") == on_trio


def test_what_has_no_backend_stays_as_it_is() -> None:
    source = "await nursery.start(engine.run)\ntrio.run(main)\nthread.start()\n"
    assert on_backend(source, "trio") == source


@pytest.mark.parametrize("fence", [fence for fence in ALL if fence.kind == "bash"], ids=label)
def test_commands_name_what_there_is(fence: Fence) -> None:
    for line in fence.body.splitlines():
        for command in line.split("&&"):
            assert understood(shlex.split(command, comments=True)), f"{label(fence)}: {command}"


def understood(words: list[str]) -> bool:
    """Whether a command of the docs asks for extras, groups, sessions and files that exist."""
    match [word.removeprefix(".venv/bin/") for word in words]:
        case [] | ["python3", "-m", "venv", ".venv"] | ["nox", "-l"]:
            return True
        case ["pip", "install", *packages]:
            return all_installable(packages)
        case ["nox", "-s", session, *arguments]:
            return session in SESSIONS and (not arguments or arguments[0] == "--")
        case ["pytest", *arguments]:
            return all(is_file(each) for each in arguments if not each.startswith("-"))
        case ["python", "-X", "dev", "-W", "error", *rest]:
            return understood(["python", *rest])
        case ["python", "-m", "pip" | "pytest" as module, *rest]:
            return understood([module, *rest])
        case ["python", "-m", module, *_]:
            return (ROOT / module / "__main__.py").is_file()
        case ["python", file, *_]:
            return is_file(file)
        case _:
            return False


def is_file(name: str) -> bool:
    """A file of the repository, or one that a snippet says to write."""
    return (ROOT / name).is_file() or any(fence.title == name for fence in ALL)


def all_installable(packages: list[str]) -> bool:
    """Ours with extras and groups that it has, or what the tests of the docs are run with."""
    match packages:
        case []:
            return True
        case ["--group", group, *rest]:
            return group in PROJECT["dependency-groups"] and all_installable(rest)
        case ["--upgrade" | "-e", *rest]:
            return bool(rest) and all_installable(rest)
        case [package, *rest]:
            return installable(package) and all_installable(rest)
        case _:
            return False


def installable(package: str) -> bool:
    name, _, extras = package.partition("[")
    if name in ("event-flow", "."):
        asked = set(filter(None, extras.rstrip("]").split(",")))
        return asked <= set(PROJECT["project"]["optional-dependencies"])
    groups = PROJECT["dependency-groups"].values()
    known = {re.split(r"[>=<\[; ]", each)[0] for group in groups for each in group if isinstance(each, str)}
    return package in known | {"pip"}


@pytest.mark.parametrize(
    "command",
    [
        "pip install event-flow[kafka]",
        "pip install -e . --group no-such-group",
        "python -m no_such_package",
        "pytest tests/no_such_test.py",
        "nox -s fly",
        "python no_such_file.py",
        "curl somewhere",
        "pip install left-pad",
    ],
)
def test_a_command_for_what_there_is_not_is_found(command: str) -> None:
    assert not understood(command.split())


async def test_web_application_publishes_from_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "web"}
    (web,) = [fence.body for fence in fences(README) if fence.title == "web.py"]
    exec(compile(web, "README.md", "exec", dont_inherit=True), names)
    app = names["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/users/Ada")
    assert answer.status_code == 200
    assert capsys.readouterr().out == "welcome Ada\n"


@pytest.fixture
def json_line() -> Callable[[Any], str]:
    """The format for loguru that the README shows."""
    (shown,) = [fence.body for fence in fences(README) if "def json_line" in fence.body]
    wanted = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    module = ast.parse(shown)
    module.body = [node for node in module.body if isinstance(node, wanted)]
    names: dict[str, Any] = {"__name__": "logged"}
    exec(compile(module, "README.md", "exec", dont_inherit=True), names)
    found: Callable[[Any], str] = names["json_line"]
    return found


def logged(json_line: Callable[[Any], str], message: str, /, **extra: object) -> dict[str, Any]:
    """The line that becomes of it; what goes wrong in the sink is raised."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format=json_line, level="CRITICAL", catch=False)
    try:
        logger.bind(**extra).critical(message)
    finally:
        logger.remove(sink)
    (line,) = lines
    assert line.endswith("\n")
    read: dict[str, Any] = orjson.loads(line)
    assert read["level"] == "CRITICAL"
    datetime.fromisoformat(read["time"])
    return read


@pytest.mark.parametrize(
    ("message", "says"),
    [("{a} <b> é", "{a} <b> é"), (os.fsdecode(b"no \xff.csv"), "no \\udcff.csv")],
    ids=["braces", "no UTF-8"],
)
def test_a_json_line_holds_any_message(json_line: Callable[[Any], str], message: str, says: str) -> None:
    assert logged(json_line, message)["message"] == says


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"a": 1}, {"a": 1}),
        ({1: "one"}, {"1": "one"}),
        ({"path": Path("a")}, {"path": repr(Path("a"))}),
    ],
)
def test_a_json_line_holds_what_is_bound_as_it_is(
    json_line: Callable[[Any], str], counts: object, says: object
) -> None:
    assert logged(json_line, "counted", counts=counts)["extra"] == {"counts": says}


@pytest.mark.parametrize(
    "counts",
    [{(1, 2): "both"}, {"a": 2**70}, {"a": "\udcff"}, {"\udcff": 1}],
    ids=["key", "size", "text", "name"],
)
def test_a_json_line_holds_as_text_what_json_cannot(json_line: Callable[[Any], str], counts: object) -> None:
    said = logged(json_line, "counted", counts=counts)
    assert said["message"] == "counted"
    assert said["extra"] == str({"counts": counts}).encode(errors="backslashreplace").decode()


def test_what_is_bound_takes_no_field_of_a_json_line(json_line: Callable[[Any], str]) -> None:
    taken = {"time": 1, "level": "LOW", "message": "other", "exception": "none", "json": "{}"}
    said = logged(json_line, "counted", **taken)
    assert said["message"] == "counted"
    assert said["extra"] == taken
    assert "exception" not in said


def test_the_two_commands_come_first_and_name_sessions_there_are() -> None:
    first = next(fence for fence in fences(README) if fence.kind == "bash")
    setup = "python3 -m venv .venv && .venv/bin/python -m pip install nox && .venv/bin/nox -s"
    assert first.body.splitlines() == [f"{setup} demo", f"{setup} tests"]


def test_the_tutorial_goes_from_one_handler_to_a_service() -> None:
    chapters = [page.stem for page in sorted(TUTORIAL.glob("*.md"))]
    assert chapters[0] == "01-first-handler"
    assert [int(name[:2]) for name in chapters] == list(range(1, len(chapters) + 1))
    assert {program.fence.page for program in snippets.tutorial()} == {
        name_of(page) for page in TUTORIAL.glob("*.md")
    }


def target(link: str) -> Path:
    """The file of the checkout; of the package, the one that the tests run on."""
    sources = "src/event_flow/"
    if link.startswith(sources):
        return Path(event_flow.__file__).parent / link.removeprefix(sources)
    return ROOT / link


def test_links_of_the_readme_lead_somewhere() -> None:
    readme = text_of(README)
    links = re.findall(r"\]\(([^)#]+?)\)", FENCE.sub("", readme))
    assert links
    missing = [link for link in links if not link.startswith("https://") and not target(link).exists()]
    assert missing == []
    anchors = re.findall(r"\]\(#([^)]+)\)", readme)
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", readme, re.MULTILINE)
    }
    assert set(anchors) <= headings

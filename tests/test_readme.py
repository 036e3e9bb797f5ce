"""The README tells the truth: every snippet is run as it stands, on every backend, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends import REAL_TIME

import event_flow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, body) for kind, body in BLOCK.findall(README) if kind in ("python", "text")]

SETTINGS = [body for _, body in BLOCKS if body.startswith("# settings.py")]
WEB = [body for _, body in BLOCKS if "FastAPI(" in body]
SNIPPETS = [body for kind, body in BLOCKS if kind == "python" and body not in (*SETTINGS, *WEB)]
OUTPUTS = {
    body: output for (_, body), (kind, output) in pairwise(BLOCKS) if kind == "text" and body in SNIPPETS
}

ARGUMENTS = {
    "asyncio": "",
    "uvloop": 'backend="asyncio", backend_options={"use_uvloop": True}',
    "trio": 'backend="trio"',
}


def title(snippet: str) -> str:
    """The heading under which a snippet stands."""
    before = README[: README.index(snippet)]
    return str(re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", before), re.MULTILINE)[-1])


def on_backend(snippet: str, name: str) -> str:
    """The same program for another backend: one argument is all that changes."""
    arguments = ARGUMENTS[name]
    started = snippet.replace(".start()", f".start({arguments})")
    return started.replace("anyio.run(main)", f"anyio.run(main, {arguments})")


def test_every_snippet_says_what_it_prints() -> None:
    assert len(SNIPPETS) >= 10
    assert [title(snippet) for snippet in SNIPPETS if snippet not in OUTPUTS] == []
    assert len(SETTINGS) == len(WEB) == 1


RUNS = [
    pytest.param(snippet, backend, id=f"{title(snippet)}-{backend}")
    for snippet in SNIPPETS
    for backend in REAL_TIME
    if backend == "asyncio" or on_backend(snippet, backend) != snippet
]


@pytest.mark.parametrize(("snippet", "backend"), RUNS)
def test_snippet_prints_what_the_page_says(snippet: str, backend: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(SETTINGS[0], encoding="utf-8")
    (tmp_path / "snippet.py").write_text(on_backend(snippet, backend), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "snippet.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == OUTPUTS[snippet], done.stderr


async def test_web_application_publishes_from_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "web"}
    exec(compile(WEB[0], "README.md", "exec", dont_inherit=True), names)
    app = names["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/users/Ada")
    assert answer.status_code == 200
    assert capsys.readouterr().out == "welcome Ada\n"


def test_the_two_commands_come_first_and_name_sessions_there_are() -> None:
    first = re.search(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert first is not None
    lines = first[1].splitlines()
    setup = "python3 -m venv .venv && .venv/bin/python -m pip install nox && .venv/bin/nox -s"
    assert lines == [f"{setup} demo", f"{setup} tests"]
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert all(f"def {name}(session" in sessions for name in ("demo", "tests"))


def target(link: str) -> Path:
    """The file of the checkout; of the package, the one that the tests run on."""
    sources = "src/event_flow/"
    if link.startswith(sources):
        return Path(event_flow.__file__).parent / link.removeprefix(sources)
    return ROOT / link


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", re.sub(BLOCK, "", README))
    assert links
    missing = [link for link in links if not link.startswith("https://") and not target(link).exists()]
    assert missing == []
    anchors = re.findall(r"\]\(#([^)]+)\)", README)
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert set(anchors) <= headings

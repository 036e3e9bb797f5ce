"""What checks the built site finds what is wrong with one. The site itself is checked by `nox -s docs`."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_site import bring_sources, problems


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two pages and a picture, all of it right."""
    folder = tmp_path / "site"
    (folder / "second").mkdir(parents=True)
    (folder / "lane.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><rect id="r"/></svg>')
    (folder / "site.css").write_text("body { background: url('lane.svg') }")
    (folder / "second" / "index.html").write_text('<h2 id="part">Part</h2><a href="..">home</a>')
    write(
        folder,
        '<link rel="stylesheet" href="site.css"><img src="lane.svg"><a href="second/#part">part</a>'
        '<a href="/second/">absolute</a><a href="#top" id="top">top</a><a href="https://docs.python.org/3/">out</a>',
    )
    return folder


def write(folder: Path, html: str) -> None:
    with (folder / "index.html").open("a") as file:
        file.write(html)


def test_a_site_whose_links_lead_somewhere_has_no_problems(site: Path) -> None:
    assert problems(site) == []


@pytest.mark.parametrize(
    ("html", "trouble"),
    [
        ('<a href="third/">x</a>', "is not there"),
        ('<a href="second/#whole">x</a>', "has no such anchor"),
        ('<a href="#bottom">x</a>', "has no such anchor"),
        ('<a href="../secret.html">x</a>', "leads out of the site"),
        ('<img src="drawing.svg">', "is not there"),
        ('<img src="https://docs.python.org/logo.png">', "is loaded from another server"),
        ('<script src="//docs.python.org/x.js"></script>', "is loaded from another server"),
        ('<p style="background: url(https://docs.python.org/x.png)">', "is loaded from another server"),
        ('<a href="http://docs.python.org/">x</a>', "is no known address with https"),
        ('<a href="https://docs.pyhton.org/">x</a>', "is no known address with https"),
        ('<pre class="mermaid"></pre>', "Mermaid"),
    ],
)
def test_what_leads_nowhere_is_found(site: Path, html: str, trouble: str) -> None:
    write(site, html)
    (problem,) = problems(site)
    assert trouble in problem
    assert problem.startswith("index.html")


def test_a_style_sheet_that_loads_from_elsewhere_is_found(site: Path) -> None:
    (site / "site.css").write_text("@font-face { src: url(https://docs.python.org/font.woff2) }")
    assert [problem.split(":")[0] for problem in problems(site)] == ["site.css"]


def test_a_folder_without_a_site_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path} has no index.html"]


def test_linked_sources_come_along(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "src" / "event_flow" / "lane.py"
    source.parent.mkdir(parents=True)
    source.write_text("# the lane\n")
    page = site / "second" / "index.html"
    links = ["../../src/event_flow/lane.py", "../src/event_flow/lane.py", "../../src/nowhere.py"]
    page.write_text('<h2 id="part"></h2>' + "".join(f'<a href="{link}">x</a>' for link in links))
    assert bring_sources(site, tmp_path) == ["src/event_flow/lane.py"]
    assert (site / "source" / "src" / "event_flow" / "lane.py.txt").read_text() == "# the lane\n"
    assert page.read_text().count('href="../source/src/event_flow/lane.py.txt"') == 2
    assert problems(site) == ["second/index.html: ../../src/nowhere.py: leads out of the site"]


def test_only_what_the_docs_may_show_comes_along(site: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets.txt").write_text("none of the files and folders that come along")
    (site / "second" / "index.html").write_text('<h2 id="part"></h2><a href="../../secrets.txt">x</a>')
    assert bring_sources(site, tmp_path) == []
    assert problems(site) == ["second/index.html: ../../secrets.txt: leads out of the site"]


def test_a_page_that_a_file_at_the_top_links_to_is_found(site: Path, tmp_path: Path) -> None:
    (site / "changelog").mkdir()
    page = site / "changelog" / "index.html"
    page.write_text('<a href="../docs/second/">there</a><a href="../docs/third/">nowhere</a>')
    assert bring_sources(site, tmp_path) == []
    assert 'href="../second/"' in page.read_text()
    assert problems(site) == ["changelog/index.html: ../docs/third/: is not there"]

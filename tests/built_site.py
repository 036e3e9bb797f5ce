"""The built site: it brings along the sources its pages link to, and every link in it is checked. Run by `nox -s docs`.

Zensical checks links between Markdown pages and their anchors. This looks at what came out: also pictures, scripts, style
sheets, links in raw HTML and in the reference, and that no page asks another server for anything. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent

# What a page loads by itself, other than what it offers for a click.
LOADED = {"img", "script", "link", "iframe", "source", "object", "embed", "image", "use", "video", "audio"}
LINKS = {"href", "src", "xlink:href", "data", "poster"}
# There is no network where this runs. A host that is not listed is a misprint, or one to look at and add.
HOSTS = {
    "anyio.readthedocs.io",
    "docs.python.org",
    "github.com",
    "peps.python.org",
    "semver.org",
    "trio.readthedocs.io",
    "zensical.org",
}
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)")
# The files and folders of the repository that a page may link to. They come along as text.
SOURCES = {"src", "tests", "example", "benchmarks", "noxfile.py", "pyproject.toml", "LICENSE"}


@dataclass(slots=True)
class Page:
    """What one file of the site links to, what it loads, and what one may jump to in it."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    diagrams: bool = False


class Reader(HTMLParser):
    """Collects a `Page` from HTML or SVG."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value and tag != "meta":
                self.page.anchors.add(value)
            elif name in LINKS and value:
                (self.page.loads if tag in LOADED else self.page.links).append(value)
            elif name == "class" and "mermaid" in (value or "").split():
                self.page.diagrams = True
            if name == "style" and value:
                self.page.loads += CSS_URL.findall(value)


def read(file: Path) -> Page:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".css":
        return Page(loads=CSS_URL.findall(text))
    reader = Reader()
    reader.feed(text)
    return reader.page


def bring_sources(site: Path, root: Path = ROOT) -> list[str]:
    """Copy the files of the repository that pages link to into `site/source`, as text, and let the links lead there.

    In the Markdown such a link leads from the page, or from the file at the top that the page includes, to the file, so
    that it works in a checkout, too. So does one from such a file at the top to a page, which the site has without `docs/`.
    """
    brought = set()
    for file in sorted(site.rglob("*.html")):
        text = file.read_text(encoding="utf-8")
        for link in set(re.findall(r'href="(\.\./[^"#]+)"', text)):
            name = in_repository(file, link, site, root)
            page = link.removeprefix("../docs/")
            if page != link and (site / page).is_dir():
                text = text.replace(f'href="{link}"', f'href="../{page}"')
            elif name is not None:
                copy = site / "source" / f"{name}.txt"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, copy)
                brought.add(name)
                text = text.replace(f'href="{link}"', f'href="{os.path.relpath(copy, file.parent)}"')
        file.write_text(text, encoding="utf-8")
    return sorted(brought)


def in_repository(file: Path, link: str, site: Path, root: Path) -> str | None:
    """Which file of the repository a link of a built page meant, None for what is in the site or may not come along."""
    for place in (root / "docs", root):
        meant = Path(os.path.normpath(place / file.parent.relative_to(site) / link))
        if meant.is_file() and meant.is_relative_to(root):
            name = meant.relative_to(root)
            return name.as_posix() if name.parts[0] in SOURCES else None
    return None


def problems(site: Path) -> list[str]:
    """Everything in the site that leads nowhere, or to another server by itself."""
    pages = {file: read(file) for suffix in ("html", "svg", "css") for file in site.rglob(f"*.{suffix}")}
    found = [] if site / "index.html" in pages else [f"{site} has no index.html"]
    for file, page in pages.items():
        where = file.relative_to(site).as_posix()
        if page.diagrams:
            found.append(f"{where}: a Mermaid diagram would load its script from another server")
        for link in (*page.links, *page.loads):
            trouble = trouble_with(link, file, site, pages, loaded=link in page.loads)
            if trouble:
                found.append(f"{where}: {link}: {trouble}")
    return sorted(set(found))


def trouble_with(link: str, file: Path, site: Path, pages: dict[Path, Page], *, loaded: bool) -> str | None:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        if loaded:
            return "is loaded from another server"
        return None if parts.scheme == "https" and parts.netloc in HOSTS else "is no known address with https"
    path = unquote(parts.path)
    start = site if path.startswith("/") else file.parent
    target = Path(os.path.normpath(start / path.lstrip("/"))) if path else file
    if not target.is_relative_to(site):
        return "leads out of the site"
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "is not there"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "has no such anchor"
    return None


if __name__ == "__main__":
    built = Path(sys.argv[1]).resolve()
    print(f"{len(bring_sources(built))} sources brought along")
    wrong = problems(built)
    print("\n".join(wrong) or "Every link leads somewhere, and nothing is loaded from elsewhere.")
    sys.exit(bool(wrong))

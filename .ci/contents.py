"""Look into the built distributions: `contents.py SDIST WHEEL`. Says what is missing or too much, and fails.

The sdist must hold what it takes to build the wheel and to run the tests; the wheel the package, and nothing else.
"""

from __future__ import annotations

import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}"

# Folders of the checkout that an sdist holds in full, and files.
FOLDERS = (".ci", ".github", "benchmarks", "docs", "example", "src", "tests")
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "mkdocs.yml", "noxfile.py", "pyproject.toml")
# What building adds or keeps for itself.
OF_THE_BUILD = {".gitignore", "PKG-INFO"}


def of_the_checkout(folder: str) -> Iterator[str]:
    """The files below it that people have written."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def differences(what: str, found: set[str], expected: set[str]) -> list[str]:
    """One line for each file that is missing or too much."""
    missing = [f"{what} lacks {name}" for name in sorted(expected - found)]
    return missing + [f"{what} has {name}" for name in sorted(found - expected)]


def sdist_problems(path: Path) -> list[str]:
    """What is wrong with the files of the sdist."""
    with tarfile.open(path) as archive:
        names = {PurePosixPath(member.name) for member in archive if member.isfile()}
    found = {str(name.relative_to(NAME)) for name in names}
    expected = {name for folder in FOLDERS for name in of_the_checkout(folder)}
    expected |= {*FILES, *(each.name for each in ROOT.glob("*.md"))}
    return differences("the sdist", found - OF_THE_BUILD, expected)


def wheel_problems(path: Path) -> list[str]:
    """What is wrong with the files of the wheel, or with what it says of itself."""
    with zipfile.ZipFile(path) as archive:
        found = set(archive.namelist())
        metadata = message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))
    expected = {name.removeprefix("src/") for name in of_the_checkout("src")}
    expected |= {f"{NAME}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    problems = differences("the wheel", found, {*expected, "event_flow/py.typed"})
    told = {
        "Name": [PROJECT["name"]],
        "Version": [PROJECT["version"]],
        "Requires-Python": [PROJECT["requires-python"]],
        "License-Expression": [PROJECT["license"]],
        "License-File": PROJECT["license-files"],
        "Provides-Extra": list(PROJECT["optional-dependencies"]),
    }
    for field, values in told.items():
        if sorted(metadata.get_all(field, [])) != sorted(values):
            problems.append(f"the wheel says {field}: {metadata.get_all(field)}, not {values}")
    if path.name != f"{NAME}-py3-none-any.whl":
        problems.append(f"the wheel is called {path.name}")
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    if len(needed) != len(PROJECT["dependencies"]):
        problems.append(f"the wheel requires {needed}")
    return problems


def main(sdist: str, wheel: str) -> int:
    """Say what is wrong; the exit status is 1 then."""
    problems = sdist_problems(Path(sdist)) + wheel_problems(Path(wheel))
    print("\n".join(problems) or f"{NAME}: the sdist and the wheel hold what they should")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

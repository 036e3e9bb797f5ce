"""What was measured, and where, as `results.json` keeps it; the page and the pictures are made from that."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import Plan

FILE = Path(__file__).with_name("results.json")


def processor() -> str:
    """The model of the CPU, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        for line in told.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def where() -> str:
    """What the figures were measured on."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("anyio", "trio", "uvloop") if find_spec(name) is not None
    )
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {packages}; {processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"


def section(measured: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """With what one must know to judge it."""
    return {"where": where(), "rounds": plan.rounds, "scale": plan.scale, **measured}


def load(path: Path = FILE) -> dict[str, Any]:
    """The stored sections by name."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return stored


def rounded(value: Any) -> Any:
    """Numbers with four digits: what a machine says beyond that it says once."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def store(sections: dict[str, Any], path: Path = FILE) -> None:
    """Replace these sections, keep the others."""
    merged = {**load(path), **sections}
    written = json.dumps(rounded(merged), indent=1, ensure_ascii=False)
    on_one_line = re.sub(r"\[[-+.\de,\s]+\]", lambda numbers: " ".join(numbers[0].split()), written)
    path.write_text(on_one_line + "\n", encoding="utf-8")

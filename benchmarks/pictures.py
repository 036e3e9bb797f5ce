"""Draws the results as SVG that is readable in light and in dark, and the same for the same numbers.

By hand rather than with a plotting library: the two kinds of picture need little, and text stays text, in the reader's font and
in colours that follow the reader's theme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape

from benchmarks.measure import Quartiles

# Class of a line or bar → its colour in light and in dark. On GitHub's own backgrounds all reach a contrast of 4.5.
COLOURS = {
    "asyncio": ("#0969da", "#58a6ff"),
    "uvloop": ("#1a7f37", "#3fb950"),
    "trio": ("#bc4c00", "#f0883e"),
    "more": ("#8250df", "#bc8cff"),
    "hand": ("#59636e", "#9198a1"),
    "other": ("#8a6d00", "#d29922"),
}
FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"


def style() -> str:
    """Two themes in one file; which of them holds is up to the page that shows it."""

    def theme(place: int, paper: str, ink: str, faint: str) -> str:
        lines = [f".paper{{fill:{paper};stroke:{faint}}} text{{fill:{ink}}} .grid{{stroke:{faint}}}"]
        for name, colours in COLOURS.items():
            lines.append(f"text.{name},.mark.{name},.area.{name},.bar.{name}{{fill:{colours[place]}}}")
            lines.append(f".line.{name},.lead.{name}{{stroke:{colours[place]}}}")
        lines.append(f".whisker{{stroke:{ink}}}")
        return " ".join(lines)

    return (
        f"<style>text{{font:12px {FONT}}} .title{{font-size:15px;font-weight:600}} .strong{{font-weight:600}} "
        ".line{fill:none;stroke-width:2} .line.hand{stroke-dasharray:6 4} .line.other{stroke-dasharray:2 3} "
        ".area{opacity:.15} .lead{stroke-width:1;opacity:.5} .end{text-anchor:end} .middle{text-anchor:middle}\n"
        f"{theme(0, '#ffffff', '#1f2328', '#d1d9e0')}\n"
        f"@media (prefers-color-scheme: dark){{{theme(1, '#0d1117', '#f0f6fc', '#3d444d')}}}</style>"
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def picture(width: int, height: int, title: str, told: str, parts: Iterable[str]) -> str:
    """The whole file. `told` is what those hear who do not see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(told)}</desc>'
    )
    paper = f'<rect class="paper" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="6"/>'
    return "\n".join([head, style(), paper, *parts, "</svg>", ""])


def duration(seconds: float) -> str:
    """In the unit that fits, with three digits at most."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:  # what would be rounded to a thousand of the smaller unit is one of this
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def number(value: float) -> str:
    """With k or M from a thousand on, two digits."""
    for letter, size in ((" M", 1e6), (" k", 1e3)):
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f}{letter}"
    return f"{value:.0f}"


# -- lines -------------------------------------------------------------------------------------------------------------

Line = Sequence[tuple[float, Quartiles]]
WIDTH, HEIGHT = 840, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 590, 66, 310


def ticks(low: float, high: float) -> list[float]:
    """Round numbers around what lies between: decades, or 1, 2 and 5 of each where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    marks = [step * 10.0**decade for decade in decades for step in steps]
    first = max((at for at, mark in enumerate(marks) if mark <= low), default=0)
    last = min((at for at, mark in enumerate(marks) if mark >= high), default=len(marks) - 1)
    return marks[first : last + 1]


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places for labels, in the same order as wanted, at least `gap` apart; those that would collide lie around their middle."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    groups: list[list[int]] = []
    middles: list[float] = []
    for place in order:
        group, middle = [place], wanted[place]
        while middles and middle - middles[-1] < gap * (len(group) + len(groups[-1])) / 2:
            group = groups.pop() + group
            middles.pop()
            middle = sum(wanted[each] for each in group) / len(group)
        groups.append(group)
        middles.append(middle)
    placed = [0.0] * len(wanted)
    for group, middle in zip(groups, middles, strict=True):
        for number_in_group, place in enumerate(group):
            placed[place] = middle + gap * (number_in_group - (len(group) - 1) / 2)
    return placed


def line_picture(title: str, x_label: str, y_label: str, lines: Mapping[str, tuple[str, Line]]) -> str:
    """Both axes logarithmic. `lines` has for each name its class of `COLOURS` and its points, with their quartiles as a band."""
    points = sorted({x for _, line in lines.values() for x, _ in line})
    values = [value for _, line in lines.values() for _, quartiles in line for value in quartiles]
    marks = ticks(min(values), max(values))

    def across(x: float) -> float:
        return LEFT + (RIGHT - LEFT) * math.log(x / points[0]) / math.log(points[-1] / points[0])

    def down(y: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * math.log(y / marks[0]) / math.log(marks[-1] / marks[0])

    parts = [text(20, 28, title, "title"), text(20, 47, f"{y_label}, logarithmic")]
    for mark in marks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(mark):.1f}H{RIGHT}"/>')
        parts.append(text(LEFT - 8, down(mark) + 4, duration(mark), "end"))
    parts += [text(across(x), BOTTOM + 18, f"{x:,.0f}", "middle") for x in points]
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 38, x_label, "middle"))

    ends = [down(line[-1][1].median) for _, line in lines.values()]
    for (name, (kind, line)), end, label in zip(lines.items(), ends, spread(ends, 17), strict=True):
        upper = [f"{across(x):.1f} {down(quartiles.high):.1f}" for x, quartiles in line]
        lower = [f"{across(x):.1f} {down(quartiles.low):.1f}" for x, quartiles in reversed(line)]
        middle = [f"{across(x):.1f} {down(quartiles.median):.1f}" for x, quartiles in line]
        parts.append(f'<path class="area {kind}" d="M{"L".join(upper + lower)}Z"/>')
        parts.append(f'<path class="line {kind}" d="M{"L".join(middle)}"/>')
        for at in middle:
            x, y = at.split()
            parts.append(f'<circle class="mark {kind}" cx="{x}" cy="{y}" r="2.5"/>')
        parts.append(f'<path class="lead {kind}" d="M{RIGHT + 5} {end:.1f}L{RIGHT + 20} {label:.1f}"/>')
        parts.append(text(RIGHT + 24, label + 4, name, f"strong {kind}"))
    first, last = (
        "; ".join(f"{name} {duration(line[place][1].median)}" for name, (_, line) in lines.items())
        for place in (0, -1)
    )
    told = f"{y_label} over {x_label}. At {points[0]:,}: {first}. At {points[-1]:,}: {last}."
    return picture(WIDTH, HEIGHT, title, told, parts)


# -- bars --------------------------------------------------------------------------------------------------------------

NAMES, PANEL, GAP, ROW = 130, 178, 52, 28


def bar_picture(title: str, subtitle: str, panels: Mapping[str, Mapping[str, tuple[str, Quartiles]]]) -> str:
    """Side by side, one row a name, each panel from 0 to its largest. The whiskers are quartiles; a name may be missing."""
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    width, height = 20 + NAMES + len(panels) * (PANEL + GAP), 100 + ROW * len(names)
    parts = [text(20, 28, title, "title"), text(20, 47, subtitle)]
    for row, name in enumerate(names):
        kind = next(bars[name][0] for bars in panels.values() if name in bars)
        parts.append(
            text(20 + NAMES - 12, 113 + ROW * row, name, f"end {'strong ' + kind if not row else ''}")
        )
    for column, (heading, bars) in enumerate(panels.items()):
        left = 20 + NAMES + column * (PANEL + GAP)
        parts.append(text(left, 80, heading, "strong"))
        parts.append(f'<path class="grid" d="M{left} 90V{height - 12}"/>')
        most = max(rate.high for _, rate in bars.values())
        for row, name in enumerate(names):
            y = 96 + ROW * row
            if name not in bars:
                parts.append(text(left + 6, y + 17, "–"))
                continue
            kind, rate = bars[name]
            low, median, high = (PANEL * value / most for value in rate)
            parts.append(
                f'<rect class="bar {kind}" x="{left}" y="{y + 4}" width="{max(median, 1):.1f}" height="17"/>'
            )
            if high - low >= 1:
                parts.append(f'<path class="whisker" d="M{left + low:.1f} {y + 12.5}H{left + high:.1f}"/>')
            parts.append(text(left + max(median, high) + 6, y + 17, number(rate.median)))
    told = " ".join(
        f"{heading}: {', '.join(f'{name} {number(rate.median)}' for name, (_, rate) in bars.items())}."
        for heading, bars in panels.items()
    )
    return picture(width, height, title, told, parts)

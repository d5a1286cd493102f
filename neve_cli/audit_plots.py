"""The plots of an audit report, as SVG without scripts. Across, all is in percent, so that text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from html import escape

from neve.domain.audit import Cause
from neve_cli.audit_statement import Cell, Day, age_class

BAR_PX = 170
"""The height of the highest bar."""
STRIP_PX = 30
"""Above the bars: marks of findings, and below those, of what could not be read."""
COLUMNS = 50
PITCH = 10
STACKED = (Cause.ROLLING, Cause.RANDOM, Cause.ASKED)
"""From the bottom up."""
AGE_CLASSES: Mapping[int | None, str] = {1: "a0", 7: "a0", 30: "a1", 90: "a2", 180: "a3", 365: "a4", None: "a5"}
"""How the map shades the age of an audit."""

PATTERNS = """\
<svg class="patterns" width="0" height="0" aria-hidden="true" focusable="false"><defs>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="hatch-ground" width="6" height="6"/><rect class="hatch-line" width="2.4" height="6"/></pattern>
<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">
<rect class="dots-ground" width="6" height="6"/><circle class="dots-dot" cx="3" cy="3" r="1.5"/></pattern>
</defs></svg>"""
"""What bars are filled with besides colours; once on a page."""


def over_time(periods: Mapping[date, Day], unit: str, title: str) -> str:
    """Audits in each period, stacked by cause, with marks where something was found or could not be read."""
    top = round_up(max((day.audits for day in periods.values()), default=0))
    slot = 100 / max(1, len(periods))
    marks: list[str] = []
    for number, (begin, day) in enumerate(periods.items()):
        name = f"{unit} of {begin}" if unit != "day" else f"{begin}"
        marks += _stack(day, name, left=number * slot + slot * 0.12, width=slot * 0.76, top=top)
        middle = f"{number * slot + slot / 2:.3f}%"
        if day.findings:
            told = f"{name}: {day.findings:,} found something"
            marks.append(
                f'<svg x="{middle}" y="0" class="over"><path class="mark finding" d="M-5 11 0 1 5 11z">'
                f"<title>{told}</title></path></svg>"
            )
        if day.unread:
            told = f"{name}: {day.unread:,} could not be read"
            marks.append(f'<circle class="mark unread" cx="{middle}" cy="20" r="4"><title>{told}</title></circle>')
    lines = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
        for y in (STRIP_PX, STRIP_PX + BAR_PX / 2, STRIP_PX + BAR_PX)
    )
    height = STRIP_PX + BAR_PX + 1
    dates = [f"{begin}" for begin in periods]
    ends = [dates[0], dates[len(dates) // 2], dates[-1]] if len(dates) > 2 else dates
    ticks = "".join(f"<span>{each}</span>" for each in ends)
    return (
        f'<div class="plot"><div class="y" aria-hidden="true" style="padding-top:{STRIP_PX - 7}px">'
        f"<span>{top:,.0f}</span><span>{top / 2:,.0f}</span><span>0</span></div>"
        f'<svg class="time" role="img" aria-label="{escape(title)}" width="100%" height="{height}">'
        f'{lines}{"".join(marks)}</svg><div class="x" aria-hidden="true">{ticks}</div></div>'
    )


def _stack(day: Day, name: str, *, left: float, width: float, top: float) -> Iterator[str]:
    y = STRIP_PX + float(BAR_PX)
    for cause in STACKED:
        number = day.by_cause[cause]
        if not number:
            continue
        height = max(1.0, number / top * BAR_PX)
        y -= height
        yield (
            f'<rect class="bar {cause.value}" x="{left:.3f}%" y="{y:.2f}" width="{width:.3f}%" height="{height:.2f}">'
            f"<title>{name}: {number:,} {cause.value}</title></rect>"
        )


def round_up(number: float) -> float:
    """The next of 2, 4, 10, 20, 40, 100, ...: the top of an axis whose middle is a whole number, too."""
    if number <= 2:
        return 2
    power = 10.0 ** math.floor(math.log10(number))
    return next(step * power for step in (1, 2, 4, 10) if number <= step * power)


def coverage(cells: Sequence[Cell], now: datetime, title: str) -> str:
    """A map of archives by serial, a square for each cell."""
    rows = max(1, -(-len(cells) // COLUMNS))
    squares = "".join(_square(cell, number, now) for number, cell in enumerate(cells))
    return (
        f'<svg class="map" role="img" aria-label="{escape(title)}" viewBox="0 0 {COLUMNS * PITCH} {rows * PITCH}" '
        f'width="100%">{squares}</svg>'
    )


def state(cell: Cell, now: datetime) -> str:
    """What a cell shows: finding, none, never, partly, or the class of its oldest last audit's age."""
    if cell.findings:
        return "finding"
    if not cell.archives:
        return "none"
    if cell.oldest is None:
        return "never"
    return "partly" if cell.audited < cell.archives else AGE_CLASSES[age_class(now - cell.oldest)]


def _square(cell: Cell, number: int, now: datetime) -> str:
    x, y = number % COLUMNS * PITCH, number // COLUMNS * PITCH
    look = state(cell, now)
    return f'<g class="cell {look}"><title>{_told(cell, now)}</title>{_shape(look, x, y)}</g>'


def sample(look: str) -> str:
    """A square for the legend."""
    return (
        f'<svg class="map" width="14" height="14" viewBox="0 0 {PITCH} {PITCH}" aria-hidden="true">'
        f'<g class="cell {look}">{_shape(look, 0, 0)}</g></svg>'
    )


def _shape(look: str, x: int, y: int) -> str:
    if look == "none":
        return f'<circle cx="{x + 5}" cy="{y + 5}" r="1"/>'
    square = f'<rect x="{x + 1}" y="{y + 1}" width="8" height="8" rx="1.2"/>'
    if look == "finding":
        return f'{square}<path d="M{x + 3} {y + 3}l4 4m0-4l-4 4"/>'
    if look == "partly":
        return f'{square}<path d="M{x + 1.4} {y + 8.6}h7.2v-7.2z"/>'
    return square


def _told(cell: Cell, now: datetime) -> str:
    serials = f"archive {cell.first}" if cell.first == cell.last else f"archives {cell.first} to {cell.last}"
    if not cell.archives:
        return f"{serials}: none"
    told = f"{serials}: {cell.audited:,} of {cell.archives:,} audited"
    if cell.oldest is not None:
        told += f", the longest ago {(now - cell.oldest) / timedelta(days=1):,.0f} days"
    return f"{told}; {cell.findings:,} with findings" if cell.findings else told


def bar(share: float, look: str) -> str:
    """A bar for a share of 1 in a table's cell; the number stands beside it."""
    width = max(share * 100, 0.6) if share else 0
    return (
        '<svg class="share" width="100%" height="14" aria-hidden="true"><rect class="ground" width="100%" height="14"/>'
        f'<rect class="{look}" width="{width:.3f}%" height="14"/></svg>'
    )

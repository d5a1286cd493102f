"""What the measurements say, as Markdown: printed, and put between the markers of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from neve_local.cloud import PROJECT

DOCUMENT = PROJECT / "docs" / "benchmarks.md"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and when it was measured. `load` is the number of processes that wanted to run before it began."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    date: str
    load: float

    def __str__(self) -> str:
        return (
            f"{self.date}, {self.cores} x {self.processor}, {self.memory_gib:.0f} GiB, {self.system}, "
            f"Python {self.python}, boto3 {version('boto3')}, ministack {version('ministack')}; "
            f"load before it began {self.load:.1f}"
        )


@dataclass(frozen=True, kw_only=True)
class Section:
    """The results of one measurement, in Markdown."""

    letter: str
    machine: Machine
    text: str

    def __str__(self) -> str:
        return f"*{self.machine}*\n\n{self.text}"


def this_machine() -> Machine:
    """This machine, now."""
    return Machine(
        processor=_found(Path("/proc/cpuinfo"), r"model name\s*: (.+)", platform.machine()),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        date=datetime.now(UTC).date().isoformat(),
        load=os.getloadavg()[0],
    )


def _found(path: Path, pattern: str, otherwise: str) -> str:
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return otherwise
    return found[1].strip() if found else otherwise


def paragraphs(*texts: str) -> str:
    """The texts, one below the other."""
    return "\n\n".join(texts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned so that it reads well as it is. All but the first are figures."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def text(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    return "\n".join([text(lines[0]), text(rule), *map(text, lines[1:])])


def write(section: Section, document: Path = DOCUMENT) -> None:
    """Put the section between its markers; the prose around them stays. Raises ValueError if a marker is missing."""
    opening, closing = f"<!-- measured: {section.letter} -->", f"<!-- end: {section.letter} -->"
    before, found, rest = document.read_text().partition(opening)
    _, found_too, after = rest.partition(closing)
    if not found or not found_too:
        raise ValueError(f"{document} has not both {opening} and {closing}")
    document.write_text(f"{before}{opening}\n\n{section}\n\n{closing}{after}")

"""What the bench prints and writes down."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import MEASUREMENTS
from bench.report import DOCUMENT, Machine, Section, table, write

MACHINE = Machine(
    processor="Snow 9", cores=2, memory_gib=3.6, system="Linux", python="3.13.1", date="2026-10-31", load=0.25
)


def section(letter: str, text: str) -> Section:
    return Section(letter=letter, machine=MACHINE, text=text)


def test_a_table_lines_up_with_its_figures_to_the_right() -> None:
    assert table(("size", "time"), [("4 KB", "1 s"), ("100 KB", "12.5 s")]).splitlines() == [
        "| size   |   time |",
        "| ------ | -----: |",
        "| 4 KB   |    1 s |",
        "| 100 KB | 12.5 s |",
    ]


def test_results_replace_the_earlier_ones_and_leave_the_prose(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(
        "Before.\n<!-- measured: a -->\nold\n<!-- end: a -->\nBetween.\n<!-- measured: b -->\nkept\n<!-- end: b -->\n"
    )
    for text in ("first", "second"):
        write(section("a", text), document)
    written = document.read_text()
    assert "old" not in written
    assert "first" not in written
    assert "second" in written
    assert "2026-10-31, 2 x Snow 9, 4 GiB" in written
    assert written.startswith("Before.\n<!-- measured: a -->\n")
    assert written.endswith("<!-- end: a -->\nBetween.\n<!-- measured: b -->\nkept\n<!-- end: b -->\n")


def test_a_page_without_the_markers_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("<!-- end: a -->\n<!-- measured: a -->\n")
    with pytest.raises(ValueError, match="measured: a"):
        write(section("a", "figures"), document)
    assert document.read_text() == "<!-- end: a -->\n<!-- measured: a -->\n"


@pytest.mark.parametrize("letter", sorted(MEASUREMENTS))
def test_the_page_has_a_place_for_every_measurement(letter: str, tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text(DOCUMENT.read_text())
    write(section(letter, "figures"), copy)
    assert "figures" in copy.read_text()

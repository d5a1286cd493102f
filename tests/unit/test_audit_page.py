"""The audit report as a page: what it holds; and in a real browser that it fits, loads nothing, shows every mark."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from neve.domain.audit import Cause
from neve.domain.verdict import Verdict
from neve_cli.audit_page import page
from neve_cli.audit_plots import round_up
from neve_cli.audit_statement import CELLS, Day, Statement, in_periods, read_statement
from neve_cli.text import percent, safe
from tests.audit_history import DAY, NASTY, NOW, History, finding, long_history
from tests.browser import CHROMIUM, WITHOUT_CHROMIUM, browse

NARROW, WIDE = 360, 1200


def stated(history: Any) -> Statement:
    return read_statement(history, NOW)


class Markup(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def statement() -> Statement:
    return stated(long_history())


@pytest.fixture(scope="module")
def text(statement: Statement) -> str:
    return page(statement)


def test_it_is_well_formed_and_says_what_it_is(text: str) -> None:
    markup = Markup(text)
    assert markup.open == []
    assert ("lang", "en") in markup.attributes
    assert "<title>Audit report: neve in us-east-1, 2026-11-22</title>" in text
    assert markup.tags.count("h1") == 1
    images = text.count('role="img"')
    assert images == text.count('role="img" aria-label="') == 2
    assert text.count("as a table</summary>") == images


def test_it_needs_nothing_from_elsewhere_and_runs_nothing(text: str) -> None:
    markup = Markup(text)
    assert not {"script", "iframe", "img", "object", "base"} & set(markup.tags)
    links = {value for name, value in markup.attributes if name in ("href", "src", "action", "xlink:href")}
    assert links == {"#method", "data:,"}
    assert not [name for name, _ in markup.attributes if name.startswith("on")]
    assert not re.search(r"@import|url\((?!#)|https?:", text)


def test_what_came_from_outside_is_shown_as_text(text: str) -> None:
    assert safe(NASTY) in Markup(text).text
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    history = History(name="<b>&\"'", region="</title><script>")
    history.archive(1)
    history.run(NOW - DAY, {Cause.RANDOM: [1]}, findings={1: [finding(Verdict.LOST, "\ud800</td>\u2066")]})
    other = page(stated(history))
    assert "<script" not in other
    assert "<b>" not in other
    assert "\\ud800&lt;/td&gt;\\u2066" in other
    other.encode()


def test_a_page_of_an_empty_collection_is_well_formed(statement: Statement) -> None:
    markup = Markup(page(stated(History())))
    assert markup.open == []
    assert "No audit has ended yet" in markup.text
    assert "Nothing is archived yet" in markup.text


def test_findings_are_listed_with_the_next_command_and_the_newest_first(text: str) -> None:
    assert re.findall(r"<code>(neve (?:audit (?:repair|run)|restore)[^<]*)</code>", text) == [
        "neve audit run --archive 1333",
        "neve restore 1000.3 --overwrite",
        "neve audit repair 571",
        "neve audit repair 444",
    ]
    assert "3 archives with a finding that stands" in text


def test_of_many_findings_the_newest_are_listed_and_all_are_counted() -> None:
    history = History()
    for serial in range(1, 302):
        history.archive(serial)
    for serial in range(1, 302):
        at = NOW - 400 * DAY + serial * timedelta(hours=1)
        findings = [finding(Verdict.ARCHIVE_DAMAGED, "a", number) for number in range(5)]
        history.run(at, {Cause.RANDOM: [serial]}, findings={serial: findings})
    told = page(stated(history))
    assert "301 audits found something, 0 could not be read; the newest 200 are listed." in told
    assert told.count('<tr class="stands">') == 200
    assert told.count("2 more: <code>neve audit show") == 200
    assert "301 random audits ever, 301 of them found something" in told


def test_memory_for_the_map_does_not_grow_with_the_collection() -> None:
    history = History()
    row = history.archive(1)
    history.archives.rows = {serial: replace(row, serial=serial) for serial in range(1, 5_003)}
    history.run(NOW - DAY, {Cause.ROLLING: range(1, 4)})
    statement = stated(history)
    assert len(statement.cells) == 1_668 <= CELLS
    assert sum(cell.archives for cell in statement.cells) == 5_002
    assert statement.cells[-1].last == 5_002
    told = page(statement)
    assert "Each square is 3 archives" in told
    assert told.count('<g class="cell ') == 1_668 + 2  # the two samples in the legend


def test_an_archive_that_was_written_while_it_is_read_has_no_square_yet() -> None:
    history = History()
    history.archive(1)
    history.archives.drawn = lambda: 0  # type: ignore[method-assign]
    statement = stated(history)
    assert (statement.cells, statement.collection.archives) == ((), 1)


@pytest.mark.parametrize(
    ("days", "unit", "number"), [(0, "day", 1), (59, "day", 60), (60, "week", 9), (500, "month", 17)]
)
def test_periods_have_no_gaps_and_the_shortest_unit_that_fits(days: int, unit: str, number: int) -> None:
    today = date(2026, 11, 22)
    audited = Day(size_bytes=1)
    audited.by_cause[Cause.RANDOM] = 2
    periods, found = in_periods({today - timedelta(days=days): audited, today: audited}, today)
    assert (found, len(periods)) == (unit, number)
    assert sum(day.audits for day in periods.values()) == (4 if days else 2)
    assert sorted(periods) == list(periods)


@pytest.mark.parametrize(("number", "top"), [(0, 2), (2, 2), (3, 4), (5, 10), (10, 10), (11, 20), (2_740, 4_000)])
def test_an_axis_ends_at_a_round_number(number: int, top: int) -> None:
    assert round_up(number) == top


@pytest.mark.parametrize(
    ("share", "up", "told"),
    [(0, False, "0 %"), (1, False, "100 %"), (0.99999, False, "99.9 %"), (0.0295130, True, "2.96 %"),
     (0.05, True, "5.00 %"), (0.000000299573, True, "0.0000300 %"), (0.5, False, "50.0 %")],
)  # fmt: skip
def test_shares_are_never_told_better_than_they_are(share: float, up: bool, told: str) -> None:
    assert percent(share, up=up) == told


# -- In a browser ----------------------------------------------------------------------------------------------------

MEASURE = """
const frame = name => document.getElementById(name).contentDocument;
const measured = name => {
  const page = frame(name), width = page.documentElement.clientWidth;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const all = [...page.body.querySelectorAll("*:not(.scroll *)")];
  return {
    width, scrolled: page.documentElement.scrollWidth,
    beyond: all.filter(each => each.getBoundingClientRect().right > width + 0.5)
      .map(each => each.outerHTML.slice(0, 99)),
    loaded: page.defaultView.performance.getEntriesByType("resource").map(each => each.name),
    scripts: page.scripts.length,
    bars: page.querySelectorAll(".time rect.bar").length,
    found: page.querySelectorAll(".time .mark.finding").length,
    unread: page.querySelectorAll(".time .mark.unread").length,
    squares: page.querySelectorAll("figure > .map > .cell").length,
    invisible: [...page.querySelectorAll(".time rect.bar, figure > .map rect")]
      .filter(each => each.getBoundingClientRect().width < 1 || each.getBoundingClientRect().height < 0.9).length,
    grounds: [...new Set([...page.querySelectorAll(".time rect.bar")].map(each => getComputedStyle(each).fill))],
    smallest: Math.min(...[...page.querySelectorAll("main *")].filter(each => each.textContent.trim())
      .map(each => parseFloat(getComputedStyle(each).fontSize))),
  };
};
addEventListener("load", () => {
  document.getElementById("measured").textContent = JSON.stringify([measured("narrow"), measured("wide")]);
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_CHROMIUM)
def test_in_a_browser_it_fits_a_phone_shows_every_mark_and_loads_nothing(
    statement: Statement, text: str, tmp_path: Path
) -> None:
    frames = "".join(
        f'<iframe id="{name}" style="width:{width}px;height:5000px;border:0" srcdoc="{escape(text)}"></iframe>'
        for name, width in (("narrow", NARROW), ("wide", WIDE))
    )
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!DOCTYPE html><body>{frames}<pre id='measured'></pre><script>{MEASURE}</script>")
    narrow, wide = browse(outer.as_uri(), tmp_path, width=WIDE + 400)
    assert (tmp_path / "page.png").stat().st_size > 30_000, "what is painted is more than a blank page"
    bars = sum(bool(number) for day in statement.periods.values() for number in day.by_cause.values())
    for seen, width in ((narrow, NARROW), (wide, WIDE)):
        assert seen["width"] == width
        assert seen["scrolled"] == width
        assert seen["beyond"] == []
        assert (seen["loaded"], seen["scripts"]) == ([], 0)
        assert seen["bars"] == bars > 50
        assert seen["found"] == sum(day.findings > 0 for day in statement.periods.values()) == 3
        assert seen["unread"] == sum(day.unread > 0 for day in statement.periods.values()) == 1
        assert seen["squares"] == len(statement.cells) == 2_000
        assert seen["invisible"] == 0
        assert len(seen["grounds"]) == len(Cause)
        assert seen["smallest"] >= 11

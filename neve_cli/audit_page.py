"""The audit report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

from neve.domain.verdict import Verdict
from neve_cli import audit_words as words
from neve_cli.audit_plots import PATTERNS, STACKED, bar, coverage, over_time, sample, state
from neve_cli.audit_statement import AGES_DAYS, Cell, Found, Statement
from neve_cli.text import counted, moment, percent, safe, size

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Should anything that came from outside pass for markup all the same: the browser runs and loads nothing."""
NAMED = 3
"""So many findings of one audit are shown in words."""
LOOKS: dict[str, str] = {
    "finding": "a finding stands in at least one",
    "a0": "all audited within 7 days",
    "a1": "all within 30 days",
    "a2": "all within 90 days",
    "a3": "all within 180 days",
    "a4": "all within 365 days",
    "a5": "all audited, one longer ago",
    "partly": "some never audited",
    "never": "none ever audited",
    "none": "no archive has this number",
}
"""What the squares of the map mean."""
VERDICTS: dict[Verdict, str] = {
    Verdict.INTACT: "archive, manifest and source agree",
    Verdict.SOURCE_GONE: "the source was deleted; the archive holds what its manifest states",
    Verdict.SOURCE_CHANGED: "the source was overwritten in place; the archive holds what its manifest states",
    Verdict.UNREAD: "archive or source could not be read, however often it was tried; it is no difference",
    Verdict.INDEX_WRONG: "a row of the index contradicts archive and manifest, or is missing",
    Verdict.SOURCE_DAMAGED: "archive and manifest agree, the source differs",
    Verdict.MANIFEST_WRONG: "archive and source agree, the manifest differs",
    Verdict.CONTAINER_DAMAGED: "every file is as it should be, the archive's object as a whole is not",
    Verdict.UNDECIDED: "no two of archive, manifest and source agree",
    Verdict.ARCHIVE_DAMAGED: "manifest and source agree, the archive differs",
    Verdict.LOST: "the archive differs from its manifest, and the source is gone",
}
"""What a verdict says, from good to bad."""


def page(statement: Statement) -> str:
    """The report; everything that came from outside is escaped."""
    title = f"Audit report: {statement.stack} in {statement.region}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}, {statement.now:%Y-%m-%d}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            PATTERNS,
            "<main>",
            *_head(statement),
            *_facts(statement),
            *_causes(statement),
            *_over_time(statement),
            *_map(statement),
            *_ages(statement),
            *_findings(statement),
            *_method(statement),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _head(statement: Statement) -> Iterator[str]:
    within = words.window(statement)
    look, sign, told = _state(statement)
    yield (
        f'<header><p class="eyebrow">Audit report</p><h1>{escape(statement.stack)} in {escape(statement.region)}</h1>'
        f'<p class="as-of">As of {moment(statement.now)} UTC</p>'
        f'<p class="state {look}"><span aria-hidden="true">{sign}</span> {told}</p></header>'
    )
    trials = statement.trials_of_late
    bound = f"≤ {percent(trials.bound, up=True)}" if trials.audits else "nothing yet"
    yield (
        '<section class="headline" aria-labelledby="proved"><h2 id="proved">What random audits prove</h2>'
        f'<p class="figure">{bound}</p>'
        f"<p>{escape(words.damaged(trials, within, statement))}</p>"
    )
    if statement.trials.audits != trials.audits:
        yield f'<p class="quiet">{escape(words.damaged(statement.trials, "ever", statement))}</p>'
    yield '<p class="quiet"><a href="#method">What this rests on</a></p></section>'


def _state(statement: Statement) -> tuple[str, str, str]:
    if statement.standing:
        return "bad", "▲", f"{counted(statement.standing, 'archive')} with a finding that stands"
    return ("well", "✓", "No finding stands") if statement.audits else ("none", "○", "No audit has ended yet")


def _facts(statement: Statement) -> Iterator[str]:
    whole = statement.collection
    within = words.window(statement)
    yield '<section aria-labelledby="facts"><h2 id="facts">In short</h2><dl class="facts">'
    archives, size_bytes = words.shares(statement.of_late, whole)
    ever, _ = words.shares(statement.ever, whole)
    superseded = f"; {statement.superseded:,} more were repaired" if statement.superseded else ""
    yield _fact(
        "Collection",
        counted(whole.archives, "archive"),
        f"{size(whole.size_bytes)}{superseded}",
    )
    yield _fact(f"Audited {within}", archives, f"{statement.of_late.archives:,} archives; {size_bytes} of the bytes")
    yield _fact("Audited ever", ever, f"{statement.ever.archives:,} archives, in {statement.runs:,} runs")
    begun = f"; {statement.under_way:,} of them begun or unread" if statement.under_way else ""
    oldest = statement.oldest_never
    waiting = f"the oldest, archive {oldest.archive}, for {words.age(statement, oldest)}" if oldest else "none waits"
    yield _fact("Never audited", counted(statement.never.archives, "archive"), f"{waiting}{begun}")
    longest = statement.longest_ago
    yield _fact(
        "Longest since an audit",
        words.age(statement, longest) if longest else "-",
        f"archive {longest.archive}" if longest else "none has been audited",
    )
    date = f"{statement.seen_by:%Y-%m-%d}" if statement.seen_by and statement.never.archives else "-"
    yield _fact("All seen by", date, f"Rolling pass: {words.rolling(statement)}")
    yield _fact("Left out for the budget", counted(statement.left_out, "archive"), words.budget(statement))
    yield "</dl></section>"


def _fact(term: str, value: str, more: str) -> str:
    return (
        f'<div><dt>{escape(term)}</dt><dd class="value">{escape(value)}</dd><dd class="quiet">{escape(more)}</dd></div>'
    )


def _causes(statement: Statement) -> Iterator[str]:
    whole = statement.collection
    within = words.window(statement)
    yield '<section aria-labelledby="causes"><h2 id="causes">Audited, by cause</h2>'
    yield f'<p class="quiet">Distinct archives {within}. One may have been audited for several causes.</p>'
    yield '<table class="bars"><thead><tr><th scope="col">Cause</th><th scope="col" class="wide">Share</th>'
    yield '<th scope="col" class="n">Archives</th><th scope="col" class="n">Of archives</th>'
    yield '<th scope="col" class="n">Of bytes</th></tr></thead><tbody>'
    parts = [(words.NAMES[cause], cause.value, statement.by_cause_of_late[cause]) for cause in STACKED]
    for name, look, part in [*parts, ("any", "any", statement.of_late)]:
        archives, size_bytes = words.shares(part, whole)
        share = part.archives / whole.archives if whole.archives else 0.0
        yield (
            f'<tr><th scope="row">{name}</th><td class="wide">{bar(share, look)}</td>'
            f'<td class="n">{part.archives:,}</td><td class="n">{archives}</td><td class="n">{size_bytes}</td></tr>'
        )
    yield "</tbody></table></section>"


def _over_time(statement: Statement) -> Iterator[str]:
    yield '<section aria-labelledby="time"><h2 id="time">Audits over time</h2>'
    if not statement.periods:
        yield '<p class="quiet">No audit has ended yet.</p></section>'
        return
    unit = statement.unit
    title = f"Audits that ended in each {unit}, by cause, with marks where something was found or could not be read"
    yield f"<figure><figcaption>Audits that ended in each {unit}, UTC</figcaption>"
    yield '<ul class="legend">'
    for cause in STACKED:
        yield (
            '<li><svg width="14" height="14" aria-hidden="true">'
            f'<rect class="bar {cause.value}" width="14" height="14"/></svg> {words.NAMES[cause]}</li>'
        )
    yield (
        '<li><svg width="14" height="14" aria-hidden="true"><path class="mark finding" d="M2 12 7 2l5 10z"/></svg>'
        " something was found</li>"
        '<li><svg width="14" height="14" aria-hidden="true"><circle class="mark unread" cx="7" cy="7" r="4"/></svg>'
        " could not be read</li></ul>"
    )
    yield over_time(statement.periods, unit, title)
    head = (unit.title(), *(words.NAMES[cause] for cause in STACKED), "Bytes read", "Found", "Unread")
    rows = (
        (
            f"{begin}",
            *(f"{day.by_cause[cause]:,}" for cause in STACKED),
            size(day.size_bytes),
            f"{day.findings:,}",
            f"{day.unread:,}",
        )
        for begin, day in statement.periods.items()
        if day.audits
    )
    yield _as_table(f"{unit.title()}s in which audits ended", head, rows)
    yield "</figure></section>"


def _map(statement: Statement) -> Iterator[str]:
    yield '<section aria-labelledby="map"><h2 id="map">Which archives were audited, and when</h2>'
    cells = statement.cells
    if not cells:
        yield '<p class="quiet">Nothing is archived yet.</p></section>'
        return
    width = cells[0].last - cells[0].first + 1
    each = "an archive" if width == 1 else f"{width:,} archives"
    yield (
        f"<figure><figcaption>Each square is {each}, in the order of their numbers from 1 to {cells[-1].last:,}; "
        "its shade is the age of the audit that is the longest ago</figcaption>"
    )
    counts = Counter(state(cell, statement.now) for cell in cells)
    yield '<ul class="legend">'
    for look, meaning in LOOKS.items():
        if counts[look]:
            yield f"<li>{sample(look)} {meaning} ({counts[look]:,})</li>"
    yield "</ul>"
    title = f"Map of {counted(cells[-1].last, 'archive number')}: " + ", ".join(
        f"{counts[look]:,} squares {meaning}" for look, meaning in LOOKS.items() if counts[look]
    )
    yield coverage(cells, statement.now, title)
    rows = (
        (
            f"{first:,}" if first == last else f"{first:,} to {last:,}",
            LOOKS[look],
            f"{archives:,}",
            f"{audited:,}",
            f"{findings:,}",
        )
        for look, first, last, archives, audited, findings in _ranges(cells, statement.now)
    )
    yield _as_table("The squares", ("Numbers", "Last audits", "Archives", "Audited", "With findings"), rows)
    yield "</figure></section>"


def _ranges(cells: Sequence[Cell], now: datetime) -> Iterator[tuple[str, int, int, int, int, int]]:
    """(look, first number, last number, archives, audited, with findings) of neighbours that look the same."""
    for look, same in groupby(cells, key=lambda cell: state(cell, now)):
        run = list(same)
        sums = (
            sum(cell.archives for cell in run),
            sum(cell.audited for cell in run),
            sum(cell.findings for cell in run),
        )
        yield look, run[0].first, run[-1].last, *sums


def _ages(statement: Statement) -> Iterator[str]:
    yield '<section aria-labelledby="ages"><h2 id="ages">Time since the last audit</h2>'
    yield '<table class="bars"><thead><tr><th scope="col">Days</th><th scope="col" class="wide">Share</th>'
    yield '<th scope="col" class="n">Archives</th><th scope="col" class="n">Of archives</th>'
    yield '<th scope="col" class="n">Bytes</th></tr></thead><tbody>'
    whole = statement.collection.archives
    names = [f"up to {AGES_DAYS[0]}", *(f"to {days}" for days in AGES_DAYS[1:]), "longer"]
    parts = [(name, "age", tally) for name, tally in zip(names, statement.ages.values(), strict=True)]
    for name, look, part in [*parts, ("never", "never", statement.never)]:
        share = part.archives / whole if whole else 0.0
        yield (
            f'<tr><th scope="row">{name}</th><td class="wide">{bar(share, look)}</td>'
            f'<td class="n">{part.archives:,}</td><td class="n">{percent(share)}</td>'
            f'<td class="n">{size(part.size_bytes)}</td></tr>'
        )
    yield "</tbody></table></section>"


def _findings(statement: Statement) -> Iterator[str]:
    yield '<section aria-labelledby="findings"><h2 id="findings">Findings</h2>'
    listed = statement.findings
    if not listed:
        yield '<p class="quiet">No audit has found anything, and all could be read.</p></section>'
        return
    rest = statement.found + statement.unread - len(listed)
    newest = f"; the newest {len(listed):,} are listed" if rest else ""
    counts = f"{counted(statement.found, 'audit')} found something, {statement.unread:,} could not be read"
    yield f'<p class="quiet">{counts}{newest}.</p>'
    yield '<table class="findings"><thead><tr>'
    heads = ("Archive", "Verdict", "When (UTC)", "What was found", "Next")
    yield "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for found in listed:
        yield _finding(found, heads)
    yield "</tbody></table></section>"


def _finding(found: Found, heads: Sequence[str]) -> str:
    report = found.report
    mark = '<span class="stands">▲ stands</span>' if found.stands else '<span class="settled">✓ settled</span>'
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in report.counts.items())
    named = "".join(
        f"<li>{escape(finding.verdict)}: {_what(finding.key, finding.pin)}: {escape(safe(finding.evidence))}</li>"
        for finding in report.findings[:NAMED]
    )
    more = max(0, report.found - NAMED)
    rest = f"<li>{more:,} more: <code>neve audit show {escape(report.run)}</code></li>" if more else ""
    command = f" <code>{escape(found.next.command)}</code>" if found.next.command else ""
    cause = words.NAMES[report.cause]
    cells = (
        f"{report.archive}",
        f"{escape(report.verdict)}<br>{mark}",
        f'<span class="when">{moment(report.finished_at)}</span><br>run {escape(report.run)}, {cause}',
        f"{escape(counts)}<ul>{named}{rest}</ul>",
        f"{escape(found.next.what)}{command}",
    )
    row = "".join(f'<td data-head="{head}"><div>{cell}</div></td>' for head, cell in zip(heads, cells, strict=True))
    return f'<tr class="{"stands" if found.stands else "settled"}">{row}</tr>'


def _what(key: str, pin: str) -> str:
    return f"<code>{escape(safe(key))}</code> version {escape(safe(pin))}" if key else "the archive as a whole"


def _method(statement: Statement) -> Iterator[str]:
    yield '<section id="method" aria-labelledby="rests"><h2 id="rests">What this rests on</h2>'
    yield (
        "<p>An audit reads an archive once, after its files' sources were hashed and the hashes stored elsewhere, and "
        "compares three ways: the bytes in the archive, its manifest, and the source in the content bucket. Two that "
        "agree name the third as the culprit.</p><ul>"
    )
    for each in words.assumptions(statement):
        yield f"<li>{escape(each)}</li>"
    yield '</ul><details><summary>The verdicts</summary><dl class="verdicts">'
    for verdict, meaning in VERDICTS.items():
        yield f"<div><dt>{escape(verdict)}</dt><dd>{escape(meaning)}</dd></div>"
    yield "</dl></details>"
    yield '<p class="quiet">Made by <code>neve audit report --html</code> from the tables of the stack.</p></section>'


def _as_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col"{"" if number == 0 else _N}>{name}</th>' for number, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{'' if number == 0 else _N}>{cell}</td>" for number, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<details><summary>{title}, as a table</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{title}"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


_N = ' class="n"'

STYLE = """
:root{--ground:#f7f8f8;--card:#fff;--ink:#15202b;--quiet:#53606c;--rule:#d9dfe3;--accent:#0b5563;
--bad:#b3261e;--bad-ground:#fdecea;--well:#17653a;--well-ground:#e6f4ea;--warn:#8a5a00;
--rolling:#2f6690;--random:#d98324;--random-line:#fff3e2;--asked:#6c4ab6;--asked-dot:#efe9fb;
--a0:#06454f;--a1:#1d6f78;--a2:#4c99a0;--a3:#85bdc1;--a4:#b5d8da;--a5:#dbebec;--edge:#7b8a94;--void:#b9c2c8}
@media screen and (prefers-color-scheme:dark){:root{
--ground:#0f1519;--card:#172026;--ink:#e8edf0;--quiet:#9fadb7;--rule:#2d3941;
--accent:#7cc7d1;--bad:#ff8a80;--bad-ground:#3a1a18;--well:#7fd6a2;--well-ground:#12311f;--warn:#e8b04b;
--rolling:#5fa3d3;--random:#f0a64e;--random-line:#4a2f0c;--asked:#b39af0;--asked-dot:#2a1f4a;
--a0:#a8eaf0;--a1:#78c7cf;--a2:#4fa0a9;--a3:#367a83;--a4:#27585f;--a5:#1d3c41;--edge:#71808a;--void:#46525a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
main{max-width:68rem;margin:0 auto;padding:2rem 1.25rem 4rem}
.patterns{position:absolute}
header{display:grid;grid-template-columns:1fr auto;gap:.25rem 1rem;align-items:end;margin-bottom:1.5rem}
.eyebrow{grid-column:1/-1;margin:0;color:var(--accent);font-weight:600;letter-spacing:.04em}
h1{margin:0;font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;font-weight:650}
.as-of{grid-column:1;margin:0;color:var(--quiet)}
.state{grid-column:2;grid-row:2/4;align-self:center;margin:0;padding:.45rem .9rem;border-radius:2rem;font-weight:600}
.state.well{color:var(--well);background:var(--well-ground)}
.state.none{color:var(--quiet);border:1px solid var(--rule)}
.state.bad{color:var(--bad);background:var(--bad-ground)}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:1.25rem 1.4rem;margin:0 0 1rem}
h2{margin:0 0 .6rem;font-size:1.05rem;font-weight:650}
.headline{border-left:5px solid var(--accent)}
.headline p{margin:.3rem 0;max-width:60ch}
.figure{font-size:clamp(2.2rem,8vw,3.4rem);line-height:1.1;font-weight:650;color:var(--accent);
font-variant-numeric:tabular-nums}
.quiet{color:var(--quiet);font-size:.9rem;margin:.2rem 0 .6rem}
a{color:var(--accent)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,14.5rem),1fr));gap:1.1rem 1.5rem;margin:0}
.facts div{border-top:2px solid var(--rule);padding-top:.5rem}
.facts dt{font-size:.9rem;color:var(--quiet)}
.facts dd{margin:0}
.facts .value{font-size:1.5rem;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
thead th{color:var(--quiet);font-weight:500;font-size:.85rem}
tbody th{font-weight:500;white-space:nowrap}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bars .wide{width:45%;min-width:3.5rem}
.bars td,.bars tbody th{vertical-align:middle}
.share{display:block}
.share .ground{fill:var(--rule);opacity:.55}
.share .age,.share .any{fill:var(--accent)}
.share .rolling{fill:var(--rolling)}
.share .random{fill:url(#hatch)}
.share .asked{fill:url(#dots)}
.share .never{fill:var(--edge)}
figure{margin:0}
figcaption{color:var(--quiet);font-size:.9rem;margin-bottom:.5rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;margin:0 0 .8rem;padding:0;font-size:.88rem}
.legend li{display:flex;align-items:center;gap:.4rem}
.legend svg{flex:none}
.plot{display:grid;grid-template-columns:auto minmax(0,1fr);column-gap:.6rem}
.y{display:flex;flex-direction:column;justify-content:space-between;text-align:right;margin-bottom:-7px}
.x{grid-column:2;display:flex;justify-content:space-between;padding-top:.3rem}
.y,.x{font-size:.8rem;color:var(--quiet);font-variant-numeric:tabular-nums;line-height:14px}
.time{display:block}
.over{overflow:visible}
.grid{stroke:var(--rule);stroke-width:1}
.bar.rolling{fill:var(--rolling)}
.bar.random{fill:url(#hatch)}
.bar.asked{fill:url(#dots)}
.hatch-ground{fill:var(--random)}.hatch-line{fill:var(--random-line)}
.dots-ground{fill:var(--asked)}.dots-dot{fill:var(--asked-dot)}
.mark.finding{fill:var(--bad)}
.mark.unread{fill:none;stroke:var(--warn);stroke-width:2}
.map{display:block}
.cell rect{stroke:var(--edge);stroke-width:.3}
.a0 rect{fill:var(--a0)}.a1 rect{fill:var(--a1)}.a2 rect{fill:var(--a2)}.a3 rect{fill:var(--a3)}
.a4 rect{fill:var(--a4)}.a5 rect{fill:var(--a5)}
.never rect,.partly rect{fill:var(--card);stroke:var(--edge);stroke-width:.8}
.partly path{fill:var(--a2)}
.finding rect{fill:var(--bad);stroke:none}
.finding path{stroke:var(--card);stroke-width:1.5;stroke-linecap:round}
.none circle{fill:var(--void)}
details{margin-top:.9rem}
summary{cursor:pointer;color:var(--accent);font-size:.9rem}
.scroll{overflow-x:auto;max-height:24rem;overflow-y:auto;margin-top:.4rem}
.scroll td,.scroll th{white-space:nowrap}
.findings ul{margin:.2rem 0 0;padding-left:1.1rem}
.findings td:nth-child(4){width:40%}.findings td:nth-child(5){width:20%}
.findings td:first-child,.findings th,.when{white-space:nowrap}
code{font:.86em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--ground);
border:1px solid var(--rule);border-radius:4px;padding:.05em .3em;-webkit-box-decoration-break:clone;
box-decoration-break:clone}
span.stands{color:var(--bad);font-weight:600;white-space:nowrap}
span.settled{color:var(--well);white-space:nowrap}
.verdicts div{display:grid;grid-template-columns:minmax(9rem,12rem) 1fr;gap:.2rem 1rem;padding:.3rem 0;
border-bottom:1px solid var(--rule)}
.verdicts dt{font-weight:500}.verdicts dd{margin:0}
@media (max-width:44rem){main{padding:1.2rem .75rem 3rem}section{padding:1rem .9rem}header{grid-template-columns:1fr}
.state{grid-column:1;grid-row:auto;justify-self:start}
.bars .wide{width:28%}.bars thead .n:last-child,.bars td.n:last-child{display:none}
.findings thead{display:none}
.findings,.findings tbody,.findings tr,.findings td{display:block;width:auto}
.findings tr{padding:.6rem 0;border-bottom:2px solid var(--rule)}
.findings td:nth-child(n){display:grid;grid-template-columns:6.2rem minmax(0,1fr);gap:.6rem;width:auto;
border:0;padding:.15rem 0}
.findings td::before{content:attr(data-head);color:var(--quiet);font-size:.85rem}
.verdicts div{grid-template-columns:1fr}
.facts{grid-template-columns:repeat(2,minmax(0,1fr));gap:.9rem}.facts .value{font-size:1.2rem}}
@media print{:root{--ground:#fff}
body{font-size:10.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{padding:0;max-width:none}section{border-width:0 0 1px;border-radius:0;padding:.6rem 0;break-inside:avoid}
.headline{border-left-width:0}section:has(.findings),#method{break-inside:auto}
.findings tr,figure{break-inside:avoid}details{display:none}#method details{display:block}}
"""

"""What starts an audit, and what a person is told of one: read strictly, aggregated, and not to be forged by a key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neve.domain.audit import (
    ARCHIVES_ASKED,
    DRAW,
    MAILED,
    SUBJECT_CHARACTERS,
    SWEEP,
    AuditRequest,
    Cause,
    Report,
    Run,
    RunRequest,
    Sweep,
    discrepancies,
    mail,
    parse_start,
    patience,
    render_audit_request,
    render_run_request,
    run_id,
    subject,
)
from neve.domain.verdict import DISCREPANCIES, Finding, Verdict
from neve.errors import EventInvalid
from tests.bad_keys import BAD_KEYS
from tests.memory import START

RUN = "20261122-170000-1a2b3c4d"
MAIL_BYTES = 262_144
"""SNS: a message has at most 256 KB."""


# -- What comes in -----------------------------------------------------------------------------------------------------


def test_the_schedules_words_draw_a_run_and_sweep() -> None:
    assert parse_start(DRAW, scheduled=RUN) == RunRequest(id=RUN, rolling=True)
    assert isinstance(parse_start(SWEEP, scheduled=RUN), Sweep)


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest(id=RUN),
        RunRequest(id=RUN, archives=(1, 17), repair=True),
        RunRequest(id=RUN, archives=tuple(range(1, ARCHIVES_ASKED + 1))),
    ],
)
def test_a_request_for_a_run_comes_back_as_it_was_rendered(request_: RunRequest) -> None:
    assert parse_start(render_run_request(request_), scheduled="not this") == request_


def test_a_request_for_one_archive_comes_back_as_it_was_rendered() -> None:
    request = AuditRequest(run=RUN, archive=17)
    assert parse_start(render_audit_request(request), scheduled="") == request


def test_an_archive_that_is_named_twice_is_audited_once() -> None:
    request = parse_start(render_run_request(RunRequest(id=RUN, archives=(5, 3, 5))), scheduled="")
    assert request == RunRequest(id=RUN, archives=(5, 3))


def altered(**changes: Any) -> str:
    message = json.loads(render_run_request(RunRequest(id=RUN, archives=(1,))))
    return json.dumps({name: value for name, value in (message | changes).items() if value is not ...})


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "null",
        "[]",
        "7",
        '"audit"',
        "{}",
        "[" * 100_000,
        json.dumps({"message": "audits"}),
        json.dumps({"message": ["audit"]}),
        json.dumps({"format": ["neve-audit"]}),
        altered(version=2),
        altered(version="1"),
        altered(format="neve-audit-found"),
        altered(run=...),
        altered(run=""),
        altered(run=7),
        altered(run="a" * 65),
        altered(run="a#b"),
        altered(run="a\nb"),
        altered(run="\u0661\u00fc"),
        altered(run="---"),
        altered(archives=...),
        altered(archives=None),
        altered(archives=7),
        altered(archives=[0]),
        altered(archives=[-1]),
        altered(archives=[1.5]),
        altered(archives=["1"]),
        altered(archives=[None]),
        altered(archives=list(range(1, ARCHIVES_ASKED + 2))),
        altered(repair=...),
        json.dumps({"format": "neve-audit", "version": 1, "run": RUN}),
        json.dumps({"format": "neve-audit", "version": 1, "archive": 1}),
        json.dumps({"format": "neve-audit", "version": 1, "run": RUN, "archive": "1"}),
    ],
)
def test_what_is_no_request_is_said_so_and_never_anything_else(body: str) -> None:
    with pytest.raises(EventInvalid):
        parse_start(body, scheduled=RUN)


def test_nothing_but_true_orders_a_repair() -> None:
    for value in ("true", 1, "yes", [True]):
        request = parse_start(altered(repair=value), scheduled="")
        assert isinstance(request, RunRequest)
        assert not request.repair


def test_the_ids_of_runs_sort_by_time_and_are_the_same_for_the_same_message() -> None:
    moments = [datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC) + timedelta(seconds=step) for step in range(3)]
    ids = [run_id(moment, "ffff0000-aaaa") for moment in moments]
    assert ids == sorted(ids)
    assert ids[0] == run_id(moments[0], "ffff0000-aaaa") == "20260930-235959-ffff0000"
    assert run_id(moments[0], "ffff0001-aaaa") != ids[0]
    request = parse_start(render_run_request(RunRequest(id=ids[0], archives=(1,))), scheduled="")
    assert isinstance(request, RunRequest)


# -- Runs --------------------------------------------------------------------------------------------------------------


def run_of(verdicts: dict[Verdict, int], *, archives: int = 0) -> Run:
    audits = archives or sum(verdicts.values())
    return Run(
        id=RUN,
        created_at=START,
        drawn={Cause.RANDOM: (1,), Cause.ROLLING: tuple(range(2, audits + 1))},
        archives=1_000_000,
        ended=sum(verdicts.values()),
        verdicts=verdicts,
        members=12,
        size_bytes=3456,
    )


def test_a_run_is_complete_when_each_of_its_audits_has_ended() -> None:
    assert run_of({Verdict.INTACT: 3}).complete
    assert not run_of({Verdict.INTACT: 3}, archives=4).complete
    assert run_of({Verdict.INTACT: 3}, archives=4).audits == 4
    assert Run(id=RUN, created_at=START, drawn={}, archives=0).complete, "there is nothing to wait for"


def test_unread_archives_are_no_discrepancies_and_neither_is_what_was_deleted() -> None:
    verdicts = dict.fromkeys(Verdict, 1)
    assert discrepancies(run_of(verdicts)) == len(DISCREPANCIES)
    assert not discrepancies(run_of({Verdict.UNREAD: 5, Verdict.SOURCE_GONE: 5, Verdict.SOURCE_CHANGED: 1}))


# -- The subject -------------------------------------------------------------------------------------------------------


def test_the_subject_counts_archives_by_verdict_the_worst_first() -> None:
    verdicts = {Verdict.INTACT: 9, Verdict.UNREAD: 3, Verdict.SOURCE_DAMAGED: 2, Verdict.LOST: 1}
    assert subject(run_of(verdicts)) == "neve audit: 1 lost, 2 source damaged"


def test_a_subject_is_what_sns_takes_and_never_cuts_a_count_in_two() -> None:
    for count in (1, 12, 12_345, 987_654_321):
        line = subject(run_with(dict.fromkeys(Verdict, count)))
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= SUBJECT_CHARACTERS
        told = line.removeprefix("neve audit: ").removesuffix(", ...").split(", ")
        assert told[0] == f"{count} lost"
        assert all(each in {f"{count} {verdict}" for verdict in DISCREPANCIES} for each in told), line
        assert line.endswith(", ...") is (len(told) < len(DISCREPANCIES))


def run_with(verdicts: dict[Verdict, int]) -> Run:
    """A run that has more audits than a test has patience to list."""
    return Run(id=RUN, created_at=START, drawn={}, archives=1, verdicts=verdicts)


# -- The mail ----------------------------------------------------------------------------------------------------------


def finding(verdict: Verdict, key: str = "", **changes: Any) -> Finding:
    given: dict[str, Any] = {"evidence": "archive 1 of 2 bytes", "key": key, "pin": "v1" if key else "", "number": 3}
    return Finding(verdict=verdict, **(given | changes))


def report_on(
    archive: int, *findings: Finding, repair: str = "", found: int = 0, verdict: Verdict | None = None
) -> Report:
    listed = [each.verdict for each in findings]
    return Report(
        run=RUN,
        archive=archive,
        cause=Cause.ROLLING,
        begun_at=START,
        finished_at=START,
        verdict=verdict or max(listed, key=list(Verdict).index, default=Verdict.INTACT),
        counts=Counter(each.verdict for each in findings if each.key),
        size_bytes=100,
        findings=findings,
        found=found or len(findings),
        repair=repair,
    )


def mailed(reports: Iterable[Report]) -> list[str]:
    listed = list(reports)
    verdicts: dict[Verdict, int] = {}
    for report in listed:
        verdicts[report.verdict] = verdicts.get(report.verdict, 0) + 1
    text = mail(run_of(verdicts), iter(listed))
    assert len(text.encode()) <= MAIL_BYTES
    return text.split("\n")


def test_a_mail_names_archive_member_verdict_evidence_and_the_next_command() -> None:
    lines = mailed([report_on(17, finding(Verdict.ARCHIVE_DAMAGED, "a b"))])
    assert lines == [
        f"Audit run {RUN}: 1 archive (12 files, 3456 bytes) compared.",
        "Result: 1 archive damaged.",
        "",
        "Archive 17: archive damaged (1 archive damaged)",
        "  archive damaged: file 3 'a b' version 'v1': archive 1 of 2 bytes",
        "  Next: neve audit repair 17",
    ]


@pytest.mark.parametrize("verdict", sorted(DISCREPANCIES))
def test_every_discrepancy_has_a_next_command(verdict: Verdict) -> None:
    [line] = [line for line in mailed([report_on(17, finding(verdict, "k"))]) if line.startswith("  Next: ")]
    if verdict is Verdict.SOURCE_DAMAGED:
        assert "`neve restore --overwrite`" in line
    else:
        assert line == "  Next: neve audit repair 17"


def test_a_damaged_source_has_its_command_beside_the_repair_of_its_archive() -> None:
    lines = mailed([report_on(17, finding(Verdict.ARCHIVE_DAMAGED, "a"), finding(Verdict.SOURCE_DAMAGED, "b"))])
    commands = [line for line in lines if line.startswith("  Next: ")]
    assert len(commands) == 2
    assert "neve audit repair 17" in commands[0]
    assert "neve restore --overwrite" in commands[1]


def test_rows_that_were_put_right_need_no_command() -> None:
    report = replace(report_on(17, finding(Verdict.INDEX_WRONG, "k")), rows_repaired=2)
    assert [line for line in mailed([report]) if line.startswith("  Next: ")] == [
        "  Next: nothing, 2 rows of the index were put right"
    ]


def test_the_row_of_an_archive_that_is_wrong_has_its_page() -> None:
    lines = mailed([report_on(17, finding(Verdict.INDEX_WRONG))])
    assert any(line.startswith("  Next: ") and "docs/operations.md" in line for line in lines)


def test_the_time_that_an_audit_may_take_grows_with_what_it_reads() -> None:
    assert patience(0) == timedelta(days=7)
    assert patience(10_000_000_000) - patience(0) == timedelta(seconds=2_000)


def test_what_is_being_repaired_needs_no_command() -> None:
    lines = mailed([report_on(17, finding(Verdict.LOST, "a"), repair="repair-1")])
    assert lines[-1] == f"  Next: nothing, it is being repaired: `neve audit show {RUN}`"


def test_damage_of_the_whole_is_told_without_a_file() -> None:
    lines = mailed([report_on(17, finding(Verdict.CONTAINER_DAMAGED))])
    assert "  container damaged: the whole: archive 1 of 2 bytes" in lines


def test_archives_without_a_discrepancy_are_counted_and_not_listed() -> None:
    lines = mailed(
        [
            report_on(1),
            report_on(2, finding(Verdict.UNREAD)),
            report_on(3, finding(Verdict.LOST, "k")),
        ]
    )
    assert [line for line in lines if line.startswith("Archive ")] == ["Archive 3: lost (1 lost)"]
    assert lines[1] == "Result: 1 intact, 1 unread, 1 lost."


def test_an_audit_that_could_not_read_a_member_says_so_beside_what_it_found() -> None:
    lines = mailed([report_on(3, finding(Verdict.LOST, "k"), finding(Verdict.UNREAD, "l"))])
    assert any(line.startswith("  unread: file 3 'l'") for line in lines)


def test_a_thousand_damaged_members_make_one_mail_that_lists_a_few() -> None:
    """250,000 mails for one fault, PITFALLS 18."""
    findings = [finding(Verdict.ARCHIVE_DAMAGED, f"k{number}", number=number) for number in range(50)]
    lines = mailed([report_on(17, *findings, found=1_000)])
    assert len([line for line in lines if line.startswith("  archive damaged: file ")]) == MAILED
    assert lines[-1] == f"{1_000 - MAILED} more findings: `neve audit show {RUN}`"


def test_ten_thousand_damaged_archives_make_one_mail_that_sns_takes() -> None:
    lines = mailed([report_on(number, finding(Verdict.LOST, "k")) for number in range(1, ARCHIVES_ASKED + 1)])
    assert len([line for line in lines if line.startswith("Archive ")]) == MAILED
    assert f"{ARCHIVES_ASKED - MAILED} more archives: `neve audit show {RUN}`" in lines


def test_the_worst_archives_are_listed_first() -> None:
    reports = [report_on(number, finding(Verdict.SOURCE_DAMAGED, "k")) for number in range(1, 40)]
    lines = mailed([*reports, report_on(40, finding(Verdict.LOST, "k"))])
    archives = [line.split(":")[0] for line in lines if line.startswith("Archive ")]
    assert archives == ["Archive 40", *(f"Archive {number}" for number in range(1, MAILED))]


def test_the_longest_keys_and_evidence_make_a_mail_that_sns_takes() -> None:
    worst = ["\x01" * 1024, "\U000e0001" * 256, "\u2028" * 341]
    for key in worst:
        findings = [finding(Verdict.LOST, key, pin="\x01" * 128, evidence="\U000e0001" * 300)] * 50
        mailed([report_on(17, *findings)])


@pytest.mark.parametrize(
    "key", [*BAD_KEYS, "k\nArchive 99: intact", "<script>alert(1)</script>", "a\u2028b\x85c\x1b[2J"]
)
@pytest.mark.parametrize("place", ["key", "pin", "evidence"])
def test_no_key_version_or_answer_can_forge_a_line(key: str, place: str) -> None:
    text = mail(run_of({Verdict.LOST: 1}), [report_on(17, finding(Verdict.LOST, **({"key": "k"} | {place: key})))])
    assert len(text.splitlines()) == 6
    assert all(line.isprintable() for line in text.splitlines())
    assert sum(line.startswith("Archive ") for line in text.splitlines()) == 1

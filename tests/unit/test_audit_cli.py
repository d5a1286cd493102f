"""`neve audit`, over ports in memory: what it shows, sends, waits for, and exits with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from neve.domain.audit import Cause, RunRequest, parse_start
from neve.domain.bundle import Bundle, BundleState
from neve.domain.parked import Parked, Reason
from neve.domain.sampling import Month, Rolling
from neve.domain.thaw import Thaw, ThawState, Tier
from neve.domain.verdict import Verdict
from neve.domain.version import ObjectVersion
from neve.errors import Transient
from neve_cli import clock
from neve_cli.main import app
from neve_cli.stack import Stack
from tests.audit_history import DAY, NASTY, NOW, OUTPUTS, History, finding
from tests.moto_cloud import ARCHIVES, AUDITS, PARKED, RESTORES, moto_cloud

HOUR = timedelta(hours=1)
RANDOM, ROLLING, ASKED = Cause.RANDOM, Cause.ROLLING, Cause.ASKED
DAMAGED = finding(Verdict.ARCHIVE_DAMAGED)


class Operator:
    """Types commands; `passes` is what happens while one waits."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.now = NOW
        self.passes: Callable[[], None] = self.audited

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["audit", *words])

    def read(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    @property
    def sent(self) -> list[RunRequest]:
        requests = [parse_start(body, scheduled="") for body, _ in self.history.audits_queue.sent]
        return [request for request in requests if isinstance(request, RunRequest)]

    def pause(self, _: float) -> None:
        self.now += HOUR
        self.passes()

    def begun(self, **findings: Any) -> str:
        """What was sent last begins; nothing ends yet."""
        request = self.sent[-1]
        drawn = {ASKED: request.archives} if request.archives else {RANDOM: (1,)}
        run = self.history.run(NOW, drawn, ended=False, repair=request.repair, unique=request.id[-8:])
        assert run.id == request.id
        return run.id

    def audited(self) -> None:
        """What was sent last begins and ends well; archive 2 is damaged."""
        run = self.begun()
        for serial in self.sent[-1].archives or (1,):
            self.history.end(run, serial, [DAMAGED] if serial == 2 else ())
        self.passes = lambda: None


@pytest.fixture
def history() -> History:
    history = History()
    for serial in (1, 2, 3):
        history.archive(serial)
    history.archive(4, storage_class="GLACIER_IR")
    return history


@pytest.fixture
def operator(history: History, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    operator = Operator(history)
    monkeypatch.setattr("neve_cli.stack.find", lambda _: history)
    monkeypatch.setattr(clock, "now", lambda: operator.now)
    monkeypatch.setattr(clock, "pause", operator.pause)
    return operator


# -- run -------------------------------------------------------------------------------------------------------------


def test_what_a_run_takes_is_shown_and_then_it_is_sent(operator: Operator) -> None:
    told = operator.run("run", "--archive", "2", "--archive", "4", "--archive", "2")
    assert told.exit_code == 0
    for word in ("2 archives with 200 files, 50.0 MB", "1 to ask for (25.0 MB)", "1 not needed", "tier     bulk",
                 "us-east-1", "reading sources", "of $100.00 a day", "within 12.0 hours"):  # fmt: skip
        assert word in told.stdout
    (request,) = operator.sent
    assert (request.archives, request.repair, request.rolling) == ((2, 4), False, False)
    assert re.fullmatch(r"20261122-120000-[0-9a-f]{8}", request.id)
    assert f"run {request.id}\n" in told.stdout
    assert f"neve audit show {request.id}" in told.stdout


def test_without_archives_a_sample_is_drawn_as_by_the_schedule(operator: Operator) -> None:
    told = operator.run("run")
    assert told.exit_code == 0
    assert "1 archive drawn at random" in told.stdout
    assert operator.sent[0].archives == ()


def test_a_dry_run_shows_it_and_sends_nothing(operator: Operator) -> None:
    assert "price" in operator.run("run", "--dry-run").stdout
    document = operator.read("run", "--archive", "1", "--dry-run")
    assert (document["run"], document["dry_run"], document["archives"]) == (None, True, [1])
    assert document["usd"] == pytest.approx(sum(document["usd_by_part"].values()), abs=1e-5)
    assert operator.sent == []


def test_archives_that_do_not_exist_are_named_and_nothing_is_sent(operator: Operator) -> None:
    told = operator.run("run", "--archive", "2", "--archive", "17", "--archive", "18")
    assert told.exit_code == 1
    assert "there is no archive 17, 18" in told.stderr
    assert operator.sent == []


def test_more_archives_than_a_run_takes_are_a_wrong_command_line(operator: Operator) -> None:
    words = [word for serial in range(1, 10_002) for word in ("--archive", str(serial))]
    assert operator.run("run", *words).exit_code == 2


def test_of_an_empty_collection_nothing_is_audited(operator: Operator) -> None:
    operator.history.archives.rows.clear()
    told = operator.run("run")
    assert told.exit_code == 1
    assert "nothing is archived yet" in told.stderr


def test_a_tier_that_the_class_does_not_have_is_refused(operator: Operator) -> None:
    operator.history.archive(5, storage_class="DEEP_ARCHIVE")
    operator.history.outputs["AuditTier"] = "expedited"
    told = operator.run("run", "--archive", "5")
    assert told.exit_code == 1
    assert "DEEP_ARCHIVE has no tier expedited" in told.stderr
    assert operator.sent == []


def test_a_cap_that_does_not_suffice_is_told_and_it_is_sent_all_the_same(operator: Operator) -> None:
    operator.history.usd_per_day = 0.00001
    assert "some thaws wait until after midnight" in operator.run("run", "--archive", "1").stdout
    assert len(operator.sent) == 1


def test_waiting_shows_how_it_goes_and_the_verdicts(operator: Operator) -> None:
    told = operator.run("run", "--archive", "1", "--archive", "3", "--wait")
    assert told.exit_code == 0
    for word in ("not begun yet", "2 of 2 archives compared: 2 intact; 50.0 MB read", "complete",
                 "archive 1: intact (100 intact)", "archive 3: intact"):  # fmt: skip
        assert word in told.stdout


def test_waiting_ends_with_1_if_anything_was_found_and_names_it_with_the_next_command(operator: Operator) -> None:
    told = operator.run("run", "--archive", "1", "--archive", "2", "--wait")
    assert told.exit_code == 1
    assert "archive 2: archive damaged (99 intact, 1 archive damaged)" in told.stdout
    assert "next: repair it: `neve audit repair 2`" in told.stdout
    assert "a\\n<script>" in told.stdout
    assert "\x1b" not in told.stdout


def test_waiting_ends_with_1_if_an_archive_could_not_be_read(operator: Operator) -> None:
    def unread() -> None:
        operator.history.end(operator.begun(), 3, [finding(Verdict.UNREAD, "")])
        operator.passes = lambda: None

    operator.passes = unread
    told = operator.run("run", "--archive", "3", "--wait")
    assert told.exit_code == 1
    assert "next: audit it again: `neve audit run --archive 3`" in told.stdout


def test_json_waits_without_a_word_and_is_one_document(operator: Operator) -> None:
    document = operator.read("run", "--archive", "2", "--wait")
    assert document["result"]["verdicts"] == {"archive damaged": 1}
    (report,) = document["result"]["reports"]
    assert (report["archive"], report["verdict"], report["command"]) == (2, "archive damaged", "neve audit repair 2")
    assert report["findings"][0]["key"] == NASTY
    assert report["files"] == {"intact": 99, "archive damaged": 1}


def test_on_a_terminal_a_bar_shows_how_it_goes(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("neve_cli.audit_watching.sys", terminal)
    told = operator.run("run", "--archive", "1", "--archive", "3", "--wait").stdout
    assert re.search(r"archives compared .*2/2", told)


def test_a_look_that_fails_now_and_then_does_not_end_the_waiting(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([Transient("throttled")] * 9)
    standing = operator.history.audits.run

    def run(run_id: str) -> Any:
        failure = next(looks, None)
        if failure:
            raise failure
        return standing(run_id)

    monkeypatch.setattr(operator.history.audits, "run", run)
    operator.passes = lambda: operator.audited() if operator.sent and not operator.history.audits.run_rows else None
    assert operator.run("run", "--archive", "1", "--wait").exit_code == 0
    looks = iter([Transient("down")] * 100)
    told = operator.run("run", "--archive", "1", "--wait")
    assert told.exit_code == 3
    assert "goes on without this command: `neve audit show" in told.stderr


def test_interrupted_it_says_that_the_run_goes_on(operator: Operator) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    operator.passes = interrupt
    told = operator.run("run", "--archive", "1", "--wait")
    assert told.exit_code == 130
    assert "goes on without this command" in told.stderr


# -- list and show ---------------------------------------------------------------------------------------------------


def test_the_last_runs_are_listed_the_newest_at_the_end(operator: Operator) -> None:
    for days in (3, 2, 1):
        operator.history.run(NOW - days * DAY, {RANDOM: [days]}, findings={2: [DAMAGED]}, cut=days)
    lines = operator.run("list", "--last", "2").stdout.splitlines()
    assert lines[0].split()[0] == "RUN"
    assert [line.split()[0] for line in lines[1:]] == ["20261120-120000-00000000", "20261121-120000-00000000"]
    assert lines[1].endswith("1 archive damaged")
    assert [run["left_out"] for run in operator.read("list")] == [3, 2, 1]
    assert operator.run("list").exit_code == 0


def test_a_run_under_way_is_shown_with_what_it_waits_for(operator: Operator) -> None:
    run = operator.history.run(NOW - HOUR, {RANDOM: [1], ROLLING: [2, 3]}, ended=False, cut=4)
    thaw = Thaw(
        archive=2, state=ThawState.THAWING, tier=Tier.BULK, days=1, wanted_days=1, ready_at=NOW + HOUR, due_at=None
    )
    operator.history.thaws.rows = {
        2: thaw,
        3: replace(thaw, archive=3, state=ThawState.WARM, warm_until=NOW + DAY),
    }
    operator.history.end(run.id, 1)
    told = operator.run("show", run.id)
    assert told.exit_code == 0
    for word in ("under way", "1 at random, 2 rolling pass", "compared  1: 1 intact", "left out  4 archives",
                 "archive 2: thawing, bulk, by 2026-11-22 13:00:00", "archive 3: thawed until 2026-11-23"):  # fmt: skip
        assert word in told.stdout
    assert operator.read("show", run.id)["state"] == "under way"


def test_a_large_run_is_shown_in_part(operator: Operator) -> None:
    for serial in range(5, 105):
        operator.history.archive(serial)
    run = operator.history.run(NOW - HOUR, {ROLLING: range(1, 105)}, ended=False)
    assert "and 84 more under way" in operator.run("show", run.id).stdout
    for serial in range(1, 105):
        operator.history.end(run.id, serial, [replace(DAMAGED, number=n) for n in range(60)] if serial == 99 else ())
    told = operator.run("show", run.id)
    assert "and 10 more findings" in told.stdout
    assert "and 53 more without a finding" in told.stdout


def test_a_run_that_was_just_sent_is_not_begun_and_another_is_unknown(operator: Operator) -> None:
    told = operator.run("show", "20261122-115900-0badcafe")
    assert (told.exit_code, "not begun yet" in told.stdout) == (0, True)
    assert operator.read("show", "20261122-115900-0badcafe")["state"] == "not begun yet"
    for unknown in ("20261101-115900-0badcafe", "x\x1b[31m"):
        told = operator.run("show", unknown)
        assert told.exit_code == 1
        assert "there is no run" in told.stderr
        assert "\x1b" not in told.stderr


def test_an_archive_is_shown_with_its_last_audit(operator: Operator) -> None:
    operator.history.run(NOW - 40 * DAY, {ROLLING: [2]})
    run = operator.history.run(NOW - 3 * DAY, {RANDOM: [1], ASKED: [2]}, findings={2: [DAMAGED]})
    operator.history.run(NOW - 2 * DAY, {RANDOM: [3]})
    told = operator.run("show", "2")
    assert told.exit_code == 1
    for word in ("archive 2: archive damaged", run.id, "by name", "2026-11-19 13:00:00", "neve audit repair 2"):
        assert word in told.stdout
    document = operator.read("show", "2")
    assert (document["last"]["run"], document["under_way"]) == (run.id, [])


def test_an_archive_being_audited_is_shown_with_the_audit_before(operator: Operator) -> None:
    before = operator.history.run(NOW - 40 * DAY, {ROLLING: [3]})
    now = operator.history.run(NOW - HOUR, {RANDOM: [3]}, ended=False)
    told = operator.run("show", "3")
    assert told.exit_code == 0
    assert f"archive 3 is being audited by run {now.id}: its sources are being hashed" in told.stdout
    assert before.id in told.stdout
    assert [each["run"] for each in operator.read("show", "3")["under_way"]] == [now.id]


def test_an_archive_that_was_never_audited_says_so_and_one_that_is_not_there_too(operator: Operator) -> None:
    told = operator.run("show", "1")
    assert (told.exit_code, "never audited: `neve audit run --archive 1`" in told.stdout) == (0, True)
    assert operator.read("show", "1")["last"] is None
    told = operator.run("show", "99")
    assert (told.exit_code, "there is no archive 99" in told.stderr) == (1, True)


def test_a_finding_is_told_as_settled_once_a_later_audit_or_a_repair_has_settled_it(operator: Operator) -> None:
    run = operator.history.run(NOW - 9 * DAY, {ROLLING: [1, 2, 3]}, findings={n: [DAMAGED] for n in (1, 2, 3)})
    operator.history.run(NOW - 5 * DAY, {RANDOM: [1]})
    rows = operator.history.archives.rows
    rows[2] = replace(rows[2], superseded_by=4)
    told = operator.run("show", run.id)
    assert told.exit_code == 1
    assert "next: nothing to do, a later audit found it well" in told.stdout
    assert "next: repaired, archive 4 stands for it" in told.stdout
    assert "neve audit repair 3" in told.stdout
    assert operator.run("show", "2").exit_code == 0


def test_a_damaged_source_is_restored_not_archived(operator: Operator) -> None:
    one, two = finding(Verdict.SOURCE_DAMAGED, "a", 0), finding(Verdict.SOURCE_DAMAGED, "b", 7)
    run = operator.history.run(NOW - DAY, {ROLLING: [1, 2]}, findings={1: [one], 2: [one, two]})
    told = operator.run("show", run.id).stdout
    assert "`neve restore 1.0 --overwrite`" in told
    assert f"restore what is damaged at its source: `neve audit show {run.id}`" in told
    assert "2.7 b version" in told


# -- repair ----------------------------------------------------------------------------------------------------------


def ordered(operator: Operator, *, state: BundleState = BundleState.SEALED) -> str:
    """Archive 2 turned out damaged, and its repair is ordered."""
    run = operator.begun()
    bundle = Bundle(id=f"repair-{run}-2", kind="tar", state=state, size_bytes=1, count=1, due_at=NOW, supersedes=2)
    operator.history.bundles.rows[bundle.id] = bundle
    operator.history.end(run, 2, [DAMAGED, finding(Verdict.LOST, "gone", 1)], repair=bundle.id)
    return bundle.id


def written(operator: Operator, bundle: str) -> None:
    rows = operator.history.archives.rows
    operator.history.archive(9)
    rows[2] = replace(rows[2], superseded_by=9)
    operator.history.bundles.rows[bundle] = replace(
        operator.history.bundles.rows[bundle], state=BundleState.ARCHIVED, serial=9
    )


def park(operator: Operator, bundle: str, reason: Reason, key: str) -> None:
    version = ObjectVersion(key=key, version_id="v1", size_bytes=1, etag="e", sequencer="", event_at=NOW)
    parked = Parked(reason=reason, detail="no intact bytes", parked_at=NOW, version=version, bundle=bundle)
    operator.history.parking_lot.park(parked)


def stages(operator: Operator, *each: Callable[[], Any]) -> None:
    """One after the other happens while the command waits."""
    waiting = list(each)

    def passes() -> None:
        if waiting:
            waiting.pop(0)()

    operator.passes = passes


def test_a_repair_asks_for_the_archive_at_the_standard_tier(operator: Operator) -> None:
    told = operator.run("repair", "2")
    assert told.exit_code == 0
    for word in ("tier     standard; thawed copies stay 3 days", "stored once more", "within 5.0 hours"):
        assert word in told.stdout
    (request,) = operator.sent
    assert (request.archives, request.repair) == ((2,), True)


def test_a_repair_is_not_asked_for_by_a_dry_run_nor_of_what_is_not_there(operator: Operator) -> None:
    assert operator.run("repair", "2", "--dry-run").exit_code == 0
    assert operator.run("repair", "17").exit_code == 1
    assert operator.sent == []


def test_what_was_repaired_in_part_is_repaired_again_and_told_of(operator: Operator) -> None:
    rows = operator.history.archives.rows
    rows[3] = replace(rows[3], superseded_by=4)
    told = operator.run("repair", "3")
    assert (told.exit_code, "archive 4 stands for it" in told.stderr) == (0, True)
    assert len(operator.sent) == 1


def test_waiting_for_a_repair_tells_which_archive_stands_for_the_damaged_one(operator: Operator) -> None:
    bundle: list[str] = []
    stages(operator, lambda: bundle.append(ordered(operator)), lambda: written(operator, bundle[0]))
    told = operator.run("repair", "2", "--wait")
    assert told.exit_code == 0
    assert "repaired: archive 9 stands for it: `neve archives 9`" in told.stdout
    run = operator.sent[0].id
    assert operator.run("show", run).exit_code == 0
    assert operator.read("show", run)["reports"][0]["repaired"] == {
        "finished": True,
        "archive": 9,
        "lost": [],
        "unrepaired": [],
    }


def test_what_is_lost_for_good_is_told_by_name(operator: Operator) -> None:
    def done() -> None:
        written(operator, bundle[0])
        park(operator, bundle[0], Reason.LOST, NASTY)
        park(operator, bundle[0], Reason.UNREPAIRED, "denied.txt")
        park(operator, "another", Reason.LOST, "of another")

    bundle: list[str] = []
    stages(operator, lambda: bundle.append(ordered(operator)), done)
    told = operator.run("repair", "2", "--wait")
    assert told.exit_code == 1
    assert "lost for good: a\\n<script>" in told.stdout
    assert "not repaired: denied.txt version v1: no intact bytes" in told.stdout
    assert "of another" not in told.stdout
    document = operator.read("show", operator.sent[0].id)["reports"][0]
    assert [each["key"] for each in document["repaired"]["lost"]] == [NASTY]
    assert document["good"] is False


def test_a_repair_that_had_nothing_to_archive_or_is_not_written_yet_is_told_as_such(operator: Operator) -> None:
    stages(operator, lambda: ordered(operator, state=BundleState.VOID))
    told = operator.run("repair", "2", "--wait")
    assert told.exit_code == 1
    assert "not repaired: nothing of it was left to archive" in told.stdout
    rows = operator.history.bundles.rows
    for name, bundle in rows.items():
        rows[name] = replace(bundle, state=BundleState.SEALED)
    told = operator.run("show", operator.sent[0].id)
    assert (told.exit_code, "being repaired: bundle repair-" in told.stdout) == (1, True)


def test_where_nothing_is_damaged_a_repair_has_nothing_to_do(operator: Operator) -> None:
    told = operator.run("repair", "1", "--wait")
    assert told.exit_code == 0
    assert "archive 1: intact" in told.stdout


def test_wrong_rows_are_put_right_in_place(operator: Operator) -> None:
    stages(
        operator,
        lambda: operator.history.end(operator.begun(), 3, [finding(Verdict.INDEX_WRONG, "a")], rows_repaired=1),
    )
    told = operator.run("repair", "3", "--wait")
    assert told.exit_code == 0
    assert "repaired: its rows in the index; `neve audit run --archive 3` proves it" in told.stdout


# -- report ----------------------------------------------------------------------------------------------------------


def test_the_report_of_an_empty_collection_says_that_nothing_is_proved(operator: Operator, tmp_path: Path) -> None:
    operator.history.archives.rows.clear()
    told = operator.run("report", "--html", str(tmp_path / "report.html"))
    assert told.exit_code == 0
    assert "nothing is proved" in told.stdout
    assert "Nothing is archived yet" in told.stdout
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert operator.read("report")["random"]["ever"]["upper_bound"] == 1.0


def test_the_report_tells_what_is_audited_by_cause_of_late_and_ever(operator: Operator) -> None:
    history = operator.history
    history.archive(5, mb=100)
    history.run(NOW - 390 * DAY, {RANDOM: [1], ROLLING: [2]})
    history.run(NOW - 30 * DAY, {RANDOM: [1], ROLLING: [3]})
    history.run(NOW - 29 * DAY, {RANDOM: [3], ASKED: [4]}, findings={4: [finding(Verdict.UNREAD, "")]})
    document = operator.read("report")
    assert document["archives"] == 5
    assert document["audited"]["within_window"]["archives"] == 2
    assert document["audited"]["within_window"]["share_of_bytes"] == pytest.approx(50 / 200)
    assert document["audited"]["ever"]["archives"] == 3
    by_cause = document["audited"]["by_cause"]
    numbers = {cause: (part["within_window"]["archives"], part["ever"]["archives"]) for cause, part in by_cause.items()}
    assert numbers == {"random": (2, 2), "rolling": (1, 2), "asked": (0, 0)}
    assert (document["never_audited"]["archives"], document["never_audited"]["begun"]) == (2, 1)
    assert document["longest_ago"]["archive"] == 2
    assert document["longest_ago"]["days"] == pytest.approx(390, abs=0.1)
    assert document["never_audited"]["oldest"] == {
        "archive": 4,
        "since": (NOW - 400 * DAY).isoformat(),
        "days": 400.0,
    }
    assert (document["random"]["within_window"]["audits"], document["random"]["ever"]["audits"]) == (2, 3)
    assert document["random"]["ever"]["upper_bound"] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert document["unread_ever"] == 1
    assert sum(each["archives"] for each in document["ages"]) == 3
    text = operator.run("report").stdout
    assert "audited      2 archives (40.0 %), 50.0 MB (25.0 %), within 365 days" in text
    assert "2 random audits within 365 days, none found anything: with 95 % confidence" in text


def test_findings_raise_the_bound_and_what_stands_ends_with_1(operator: Operator) -> None:
    history = operator.history
    history.run(NOW - 30 * DAY, {RANDOM: [1]}, findings={1: [DAMAGED]})
    history.run(NOW - 29 * DAY, {RANDOM: [2]})
    history.run(NOW - 28 * DAY, {RANDOM: [3]}, findings={3: [finding(Verdict.UNREAD, "")]})
    told = operator.run("report")
    assert told.exit_code == 1
    assert "2 random audits within 365 days, 1 of them found something" in told.stdout
    assert "1 random audit within 365 days could not read" in told.stdout
    assert "! archive 1: archive damaged; repair it: `neve audit repair 1`" in told.stdout
    assert "! archive 3: unread; audit it again" in told.stdout
    rows = history.archives.rows
    rows[1] = replace(rows[1], superseded_by=4)
    told = operator.run("report")
    assert told.exit_code == 0
    assert "; 1 more were repaired" in told.stdout
    document = operator.read("report")
    assert (document["findings_standing"], document["findings_ever"], document["superseded"]) == (0, 1, 1)


def test_the_date_of_the_rolling_pass_is_told_and_why_there_is_none(operator: Operator) -> None:
    history = operator.history
    assert "It has not begun yet" in operator.run("report").stdout
    history.run(NOW - HOUR, {ROLLING: [1]}, cut=2)
    history.audits.months["2026-11"] = Month(
        name="2026-11", stored_bytes=100_000_000, archives=4, thawed_bytes=25_000_000, micro_usd=1_500_000
    )
    told = operator.run("report").stdout
    assert "By 2027-" in told
    assert "2026-11: 25.0 MB of 10.0 MB thawed, $1.5000 of $100.00 spent; 2 archives are due and left out" in told
    history.audits.rolling_row = Rolling(ticked_at=NOW - 3 * DAY)
    assert "it has stood still since 2026-11-19" in operator.run("report").stdout
    history.run(NOW - HOUR, {ROLLING: [2, 3, 4]}, unique="1" * 8)
    assert "Every archive has been audited" in operator.run("report").stdout
    for name, why in {
        "AuditBudgetPercent": "its budget is 0",
        "AuditHorizonDays": "setting audit_horizon_days is 0",
        "AuditEveryHours": "setting audit_every_h is 0",
    }.items():
        history.archive(6)
        before, history.outputs[name] = history.outputs[name], "0"
        assert why in operator.run("report").stdout
        history.outputs[name] = before


def test_a_page_that_cannot_be_written_is_told(operator: Operator, tmp_path: Path) -> None:
    told = operator.run("report", "--html", str(tmp_path / "missing" / "report.html"))
    assert told.exit_code == 1
    assert "the page cannot be written" in told.stderr


# -- Over the tables -------------------------------------------------------------------------------------------------


def test_it_fits_the_queue_and_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    with moto_cloud(target_bytes=1_000) as cloud:
        cloud.announce(
            cloud.upload("a/1", b"one"), cloud.upload(NASTY[:60], b"two"), cloud.upload("large", b"x" * 1_001)
        )
        cloud.run()
        tables = {"ArchivesTable": ARCHIVES, "AuditsTable": AUDITS, "ParkedTable": PARKED, "RestoresTable": RESTORES}
        outputs = {**OUTPUTS, **tables, "AuditsQueue": cloud.urls["audits"], "UsdPerDay": "0"}
        session = boto3.Session(region_name="us-east-1")
        deployed = Stack(name="neve", region="us-east-1", session=session, outputs=outputs)
        monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)

        def pause(_: float) -> None:
            cloud.run("audits", "verify")
            cloud.complete_thaws("verify")

        monkeypatch.setattr(clock, "pause", pause)

        def read(*words: str) -> Any:
            told = CliRunner().invoke(app, ["audit", *words, "--json"])
            assert told.exit_code == 0, told.output
            lines = told.stdout.splitlines()  # what the functions log stands before the document
            return json.loads("\n".join(lines[next(n for n, line in enumerate(lines) if line in ("{", "[")) :]))

        result = read("run", "--archive", "1", "--archive", "2", "--wait")["result"]
        assert (result["verdicts"], result["files"], result["state"]) == ({"intact": 2}, 3, "complete")
        (run,) = read("list")
        assert run == {name: value for name, value in read("show", result["run"]).items() if name != "reports"}
        assert read("show", "2")["last"]["verdict"] == "intact"
        report = read("report")
        assert (report["audited"]["by_cause"]["asked"]["ever"]["archives"], report["archives"]) == (2, 2)
        assert report["never_audited"]["archives"] == 0

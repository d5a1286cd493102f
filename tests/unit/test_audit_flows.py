"""Audits from their draw to the mail, on ports in memory: whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from neve.domain.audit import DRAW, GIVEN_UP_AFTER, SWEEP, Cause, RunRequest, Stage
from neve.domain.bundle import BundleState
from neve.domain.index import ArchiveState
from neve.domain.restore import render_thawed
from neve.domain.sampling import Budget
from neve.domain.thaw import Tier
from neve.domain.verdict import Verdict
from neve.domain.version import NULL_VERSION
from neve.errors import ArchiveUnreadable, EventInvalid, SourceDenied, Transient
from neve.flows.audit_runs import LOOK
from neve.flows.verify_audit import PATIENCE
from neve.ports import Answer
from tests.audit_cloud import AuditCloud, bodies_of
from tests.interleave import Steps, explored
from tests.memory import CONTENT
from tests.restore_cloud import BULK, DAY, HOUR, MINUTE, STANDARD, wanted

KEYS = ("a", "b", "c")
BODIES = bodies_of(KEYS)


@pytest.fixture
def cloud() -> AuditCloud:
    """One archive of three files."""
    made = AuditCloud()
    made.with_files(BODIES)
    return made


# -- Every verdict -----------------------------------------------------------------------------------------------------


def test_an_intact_archive_is_thawed_once_read_once_and_nobody_is_told(cloud: AuditCloud) -> None:
    assert cloud.audit() == {}
    cloud.consistent()
    report = cloud.report()
    assert (report.verdict, report.counts) == (Verdict.INTACT, {Verdict.INTACT: 3})
    assert (report.cause, report.size_bytes) == (Cause.ASKED, cloud.archives.rows[1].size_bytes)
    assert cloud.ice.asked == [(1, Tier.BULK, 1, Answer.ACCEPTED)]
    assert sum(last - first + 1 for _, first, last in cloud.reader.reads) == cloud.archives.rows[1].size_bytes
    assert not cloud.mails.published
    assert not cloud.failures


def flip_padding(cloud: AuditCloud) -> None:
    cloud.flip(1, cloud.archives.rows[1].size_bytes - 1)


def flip_list(cloud: AuditCloud) -> None:
    cloud.flip(1, cloud.store.objects[cloud.archives.rows[1].object_key].index(b'"key": "c"') + 8)


def truncate(cloud: AuditCloud) -> None:
    key = cloud.archives.rows[1].object_key
    cloud.store.objects[key] = cloud.store.objects[key][: cloud.member("b").offset_bytes + 100]


def lose_object(cloud: AuditCloud) -> None:
    cloud.ice.gone.add(1)


def damage_and_delete(cloud: AuditCloud) -> None:
    cloud.flip_member("b")
    cloud.delete("b")


def all_differ(cloud: AuditCloud) -> None:
    cloud.flip_member("b")
    cloud.flip_source("b")


def overwrite_null(cloud: AuditCloud) -> None:
    """Archive another file without a version, and overwrite it."""
    cloud.archived(cloud.upload("n", b"first", version_id=NULL_VERSION))
    cloud.upload("n", b"second", version_id=NULL_VERSION)


def wrong_row(cloud: AuditCloud) -> None:
    cloud.files.rows["b", "v1"] = replace(cloud.files.rows["b", "v1"], number=2)


def missing_row(cloud: AuditCloud) -> None:
    del cloud.files.rows["b", "v1"]


def wrong_archive_row(cloud: AuditCloud) -> None:
    cloud.archives.rows[1] = replace(cloud.archives.rows[1], sha256="0" * 64)


def other_key(cloud: AuditCloud) -> None:
    cloud.change_manifest("c", key="d")


def without_manifest(cloud: AuditCloud) -> None:
    del cloud.store.manifests[1]


def of_another(cloud: AuditCloud) -> None:
    cloud.store.manifests[1] = replace(cloud.manifest(1), archive=7)


FAULTS: dict[str, tuple[Callable[[AuditCloud], None], dict[str, Verdict]]] = {
    "a flipped bit in a member": (lambda cloud: cloud.flip_member("b"), {"b": Verdict.ARCHIVE_DAMAGED}),
    "a flipped bit in padding": (flip_padding, {"": Verdict.CONTAINER_DAMAGED}),
    "a flipped bit in the archive's own list": (flip_list, {"": Verdict.CONTAINER_DAMAGED}),
    "a truncated archive": (truncate, {"b": Verdict.ARCHIVE_DAMAGED, "c": Verdict.ARCHIVE_DAMAGED}),
    "an archive that is gone": (lose_object, dict.fromkeys(KEYS, Verdict.ARCHIVE_DAMAGED)),
    "a flipped bit in a source": (lambda cloud: cloud.flip_source("b"), {"b": Verdict.SOURCE_DAMAGED}),
    "a hash in the manifest": (
        lambda cloud: cloud.change_manifest("b", sha256="0" * 64),
        {"b": Verdict.MANIFEST_WRONG, "": Verdict.MANIFEST_WRONG},
    ),
    "metadata in the manifest": (
        lambda cloud: cloud.change_manifest("b", content_type="x"),
        {"": Verdict.MANIFEST_WRONG},
    ),
    "a key in the manifest": (
        other_key,
        {"c": Verdict.MANIFEST_WRONG, "d": Verdict.MANIFEST_WRONG, "": Verdict.MANIFEST_WRONG},
    ),
    "no manifest": (without_manifest, dict.fromkeys((*KEYS, ""), Verdict.MANIFEST_WRONG)),
    "the manifest of another archive": (of_another, dict.fromkeys((*KEYS, ""), Verdict.MANIFEST_WRONG)),
    "damage of a file that was deleted": (damage_and_delete, {"b": Verdict.LOST}),
    "damage of archive and source": (all_differ, {"b": Verdict.UNDECIDED, "": Verdict.CONTAINER_DAMAGED}),
    "a row that names another member": (wrong_row, {"b": Verdict.INDEX_WRONG}),
    "a row that is missing": (missing_row, {"b": Verdict.INDEX_WRONG}),
    "an archive's row with another hash": (wrong_archive_row, {"": Verdict.INDEX_WRONG}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_named_and_mailed_once(fault: str, cloud: AuditCloud) -> None:
    inject, expected = FAULTS[fault]
    inject(cloud)
    assert cloud.audit() == expected
    cloud.consistent()
    [mail] = cloud.mails.published
    report = cloud.report()
    assert f"Archive 1: {report.verdict}" in mail
    assert all(repr(key) in mail for key in expected if key)
    assert "  Next: " in mail
    assert cloud.records.last_rows[1].verdict is report.verdict


def test_every_discrepancy_is_among_the_faults_injected() -> None:
    injected = {verdict for _, expected in FAULTS.values() for verdict in expected.values()}
    assert injected == set(Verdict) - {
        Verdict.INTACT,
        Verdict.SOURCE_GONE,
        Verdict.SOURCE_CHANGED,
        Verdict.UNREAD,
    }


def test_a_deleted_source_is_told_nobody(cloud: AuditCloud) -> None:
    cloud.delete("b")
    assert cloud.audit() == {}
    assert cloud.report().verdict is Verdict.SOURCE_GONE
    assert cloud.report().counts == {Verdict.INTACT: 2, Verdict.SOURCE_GONE: 1}
    cloud.consistent()


def test_a_new_version_leaves_the_archived_one_intact(cloud: AuditCloud) -> None:
    cloud.archived(cloud.upload("b", b"newer", version_id="v2"))
    assert cloud.audit() == {}
    assert cloud.report().verdict is Verdict.INTACT


def test_a_source_without_a_version_that_was_overwritten_has_changed_and_nobody_is_told(cloud: AuditCloud) -> None:
    overwrite_null(cloud)
    assert cloud.audit(2) == {}
    assert cloud.report().verdict is Verdict.SOURCE_CHANGED
    cloud.consistent()


def test_two_archives_of_one_version_are_both_intact(cloud: AuditCloud) -> None:
    """The row names one of them; the other is a duplicate."""
    cloud.files.rows.clear()
    cloud.with_files(BODIES)
    cloud.files.rows.update({(row.key, row.pin): row for row in cloud.files.rows.values()})
    assert len(cloud.archives.rows) == 2
    run = cloud.ask(1, 2)
    cloud.settle()
    assert {report.verdict for report in cloud.reports(run)} == {Verdict.INTACT}
    cloud.consistent()


# -- What cannot be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SourceDenied("403"), Transient("503")])
def test_a_source_that_cannot_be_read_is_unread_and_no_mismatch(cloud: AuditCloud, error: Exception) -> None:
    """PITFALLS 14."""
    cloud.content.failures["b"] = error
    run = cloud.ask(1)
    cloud.settle()
    report = cloud.report(run)
    assert report.verdict is Verdict.UNREAD
    assert report.counts == {Verdict.INTACT: 2, Verdict.UNREAD: 1}
    assert not cloud.mails.published, "it has an alarm of its own"
    assert len(cloud.failures) == PATIENCE - 1, "it was tried again before"
    assert cloud.records.last_rows[1].verdict is None, "it has not been audited"
    assert cloud.records.last_rows[1].finished_at is None


def test_a_source_that_can_be_read_later_is_intact(cloud: AuditCloud) -> None:
    cloud.content.failures["b"] = Transient("503")
    cloud.ask(1)
    cloud.deliver()
    del cloud.content.failures["b"]
    cloud.settle()
    assert cloud.report().verdict is Verdict.INTACT


def test_damage_is_told_though_another_source_cannot_be_read(cloud: AuditCloud) -> None:
    cloud.content.failures["a"] = SourceDenied("403")
    cloud.flip_member("b")
    assert cloud.audit() == {"a": Verdict.UNREAD, "b": Verdict.ARCHIVE_DAMAGED}
    cloud.consistent()


def test_an_archive_that_cannot_be_read_is_tried_again_and_then_unread(cloud: AuditCloud) -> None:
    cloud.unreadable += [Transient("timed out")] * 50
    assert cloud.audit() == {"": Verdict.UNREAD}
    assert len(cloud.unreadable) == 50 - PATIENCE
    assert "tried 5 times: timed out" in cloud.report().findings[0].evidence
    assert not cloud.mails.published


def test_an_archive_that_can_be_read_at_the_last_try_is_intact(cloud: AuditCloud) -> None:
    cloud.unreadable += [Transient("timed out")] * (PATIENCE - 1)
    assert cloud.audit() == {}


def test_an_archive_that_disappears_while_it_is_read_is_damaged_and_not_unread(cloud: AuditCloud) -> None:
    cloud.unreadable.append(ArchiveUnreadable("404"))
    assert set(cloud.audit().values()) == {Verdict.ARCHIVE_DAMAGED}


def test_an_audit_is_given_up_after_seven_days(cloud: AuditCloud) -> None:
    cloud.thaw_takes = 30 * DAY
    assert cloud.audit() == {"": Verdict.UNREAD}
    report = cloud.report()
    assert GIVEN_UP_AFTER <= report.finished_at - report.begun_at <= GIVEN_UP_AFTER + LOOK + 2 * HOUR
    cloud.consistent()
    assert not cloud.records.rows


def test_an_archive_whose_row_is_gone_is_index_wrong(cloud: AuditCloud) -> None:
    cloud.ask(1)
    cloud.deliver()
    row = cloud.archives.rows.pop(1)
    cloud.settle()
    assert cloud.found() == {"": Verdict.INDEX_WRONG}
    cloud.consistent()
    cloud.archives.rows[1] = row
    assert cloud.audit() == {}


# -- Messages ----------------------------------------------------------------------------------------------------------


def test_the_schedule_draws_one_archive_and_audits_it(cloud: AuditCloud) -> None:
    run = cloud.tick()
    cloud.settle()
    cloud.consistent()
    assert cloud.records.run_rows[run].drawn == {Cause.RANDOM: (1,)}
    assert cloud.report(run).verdict is Verdict.INTACT


def test_a_schedules_message_that_comes_again_draws_nothing_anew() -> None:
    cloud = AuditCloud(horizon_days=10)
    for number in range(12):
        cloud.with_files({f"f{number}": b"x" * 100})
    cloud.tick()
    cloud.now += DAY
    run = cloud.tick("same")
    drawn, rolling = cloud.records.run_rows[run], cloud.records.rolling_row
    cloud.audits_queue.sent.clear()
    for _ in range(3):
        cloud.start(DRAW, scheduled=run)
    assert cloud.records.run_rows[run] == drawn
    assert cloud.records.rolling_row == rolling, "the rolling pass has moved once"
    cloud.settle()
    cloud.start(DRAW, scheduled=run)
    assert not cloud.audits_queue.sent, "a run that has ended is not begun again"
    cloud.consistent()


def test_of_two_draws_of_one_run_at_once_one_counts() -> None:
    def live(steps: Steps) -> None:
        cloud = AuditCloud(horizon_days=10, watch=steps.watch)
        for number in range(3):
            cloud.with_files({f"f{number}": b"x" * 50})
        request = RunRequest(id="run-1", rolling=True)

        def start() -> None:
            try:
                cloud.starter.start(request)
            except Transient:
                cloud.starter.start(request)

        steps.run([start, start])
        assert len(cloud.records.run_rows) == 1
        run = cloud.records.run_rows["run-1"]
        assert cloud.records.rolling_row.revision == 1
        sent = {json.loads(body)["archive"] for body, _ in cloud.audits_queue.sent}
        assert sent == {serial for drawn in run.drawn.values() for serial in drawn}

    assert explored(live, preemptions=1) > 10


def test_nothing_to_audit_is_a_run_that_ends_at_once() -> None:
    cloud = AuditCloud(horizon_days=365)
    run = cloud.tick()
    assert cloud.records.run_rows[run].finished_at == cloud.now
    cloud.consistent()
    assert not cloud.audits_queue.sent


def test_an_archive_that_does_not_exist_is_refused_and_nothing_is_drawn(cloud: AuditCloud) -> None:
    cloud.ask(1, 99)
    cloud.deliver()
    [error] = cloud.failures
    assert isinstance(error, EventInvalid)
    assert "99" in str(error)
    assert not cloud.runs


def test_word_of_an_archive_that_its_run_has_not_drawn_is_refused(cloud: AuditCloud) -> None:
    run = cloud.ask(1)
    cloud.settle()
    for body in (
        json.dumps({"format": "neve-audit", "version": 1, "run": run, "archive": 2}),
        json.dumps({"format": "neve-audit", "version": 1, "run": "unknown", "archive": 1}),
    ):
        with pytest.raises(EventInvalid):
            cloud.start(body)


def test_an_event_before_its_audit_and_copies_of_it_and_late_ones_change_nothing(cloud: AuditCloud) -> None:
    early = render_thawed(1)
    assert cloud.verify_thawed(early) == []
    cloud.ask(1)
    cloud.deliver()
    assert cloud.verify_thawed(early) == [], "the archive still sleeps, whatever the message says"
    cloud.now += HOUR
    [event] = cloud.ice.complete()
    reports = [report for _ in range(3) for report in cloud.verify_thawed(event)]
    assert len(reports) == 1
    assert cloud.verify_thawed(event) == []
    cloud.settle()
    cloud.consistent()


def test_a_lost_completion_event_is_made_up_for_by_the_sweep(cloud: AuditCloud) -> None:
    """PITFALLS 13."""
    cloud.events_lost = True
    assert cloud.audit() == {}
    cloud.consistent()
    assert cloud.thawed == {1: 1}


def test_messages_that_are_lost_altogether_are_sent_again_by_the_sweep() -> None:
    cloud = AuditCloud()
    for number in range(3):
        cloud.with_files({f"f{number}": b"x" * 100})
    cloud.ask(1, 2, 3)
    cloud.start(cloud.audits_queue.take()[0])
    cloud.start(cloud.audits_queue.take()[0])  # and nobody hears of the other two
    cloud.now += GIVEN_UP_AFTER + MINUTE
    cloud.settle()
    cloud.consistent()
    assert len(cloud.reports()) == 3


def test_what_s3_called_thawed_and_is_asleep_is_asked_for_again(cloud: AuditCloud) -> None:
    cloud.ask(1)
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.ice.expire()
    cloud.deliver()
    assert cloud.delayed, "time for S3 to make up its mind"
    cloud.settle()
    cloud.consistent()
    assert cloud.report().verdict is Verdict.INTACT


# -- Thaws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["audit", "restore"])
def test_an_audit_and_a_restore_of_one_archive_share_its_thaw(cloud: AuditCloud, first: str) -> None:
    """PITFALLS 6."""
    for each in (first, "restore" if first == "audit" else "audit"):
        if each == "audit":
            cloud.ask(1)
        else:
            cloud.job([wanted("a", f"s3://{CONTENT}/copy")], BULK)
        cloud.deliver()
        cloud.now += HOUR
    cloud.settle()
    cloud.consistent()
    assert cloud.ice.asked == [(1, Tier.BULK, 1, Answer.ACCEPTED)]
    assert cloud.place(f"s3://{CONTENT}/copy") == BODIES["a"]
    assert cloud.report().verdict is Verdict.INTACT


def test_an_archive_that_a_restore_has_thawed_is_audited_at_once(cloud: AuditCloud) -> None:
    cloud.job([wanted("a", f"s3://{CONTENT}/copy")], STANDARD)
    cloud.settle()
    run = cloud.ask(1)
    cloud.deliver()
    assert cloud.report(run).verdict is Verdict.INTACT
    assert cloud.thawed == {1: 1}


def test_two_runs_that_audit_one_archive_share_its_thaw_and_end_both(cloud: AuditCloud) -> None:
    runs = [cloud.ask(1), cloud.ask(1)]
    cloud.flip_member("c")
    cloud.settle()
    cloud.consistent()
    assert [cloud.found(run) for run in runs] == [{"c": Verdict.ARCHIVE_DAMAGED}] * 2
    assert cloud.thawed == {1: 1}


def test_the_sources_are_hashed_before_the_archive_is_thawed(cloud: AuditCloud) -> None:
    """What is deleted while the archive thaws was still a witness."""
    cloud.ask(1)
    cloud.deliver()
    [audit] = cloud.records.rows.values()
    assert audit.stage is Stage.WAITING
    assert not cloud.reader.reads
    for key in KEYS:
        cloud.delete(key)
    cloud.flip_member("a")
    cloud.settle()
    assert cloud.found() == {"a": Verdict.ARCHIVE_DAMAGED}, "not lost"


def test_who_damages_an_archive_cannot_bless_it_by_changing_its_manifest(cloud: AuditCloud) -> None:
    """The baseline is not beside the data: source and index have to agree as well, PITFALLS 15."""
    cloud.flip_member("b")
    row = cloud.archives.rows[1]
    blessed = cloud.store.objects[row.object_key]
    member = cloud.member("b")
    body = blessed[member.offset_bytes :][: member.source.size_bytes]
    cloud.change_manifest("b", 1, sha256=hashlib.sha256(body).hexdigest(), md5=hashlib.md5(body).hexdigest())
    whole = hashlib.sha256(blessed).hexdigest()
    cloud.store.manifests[1] = replace(cloud.manifest(1), object_sha256=whole)
    found = cloud.audit()
    assert found["b"] is Verdict.SOURCE_DAMAGED, "archive and manifest agree: whom to believe, a person has to say"
    assert found[""] is not Verdict.INTACT, "and the index does not believe them"
    cloud.consistent()


def test_an_archive_that_needs_no_thaw_is_audited_without_one() -> None:
    cloud = AuditCloud()
    cloud.store.storage_class = "GLACIER_IR"
    cloud.with_files(BODIES)
    assert cloud.audit() == {}
    assert not cloud.ice.asked
    assert cloud.report().finished_at == cloud.report().begun_at


def test_checksums_that_s3_keeps_spare_reading_the_sources() -> None:
    cloud = AuditCloud(read=False)
    serial = cloud.with_film("film", b"frames " * 2_000, by_crc=True)
    with patch.object(cloud.sources, "stream", side_effect=AssertionError("nothing is read")):
        assert cloud.audit(serial) == {}


# -- Large objects -----------------------------------------------------------------------------------------------------


def damage_and_delete_film(cloud: AuditCloud) -> None:
    cloud.delete("film")
    cloud.flip(1, 5_000)


@pytest.mark.parametrize("by_crc", [False, True])
def test_a_large_object_has_the_verdicts_of_a_member(by_crc: bool) -> None:
    body = b"frames " * 2_000
    faults: dict[Verdict, Callable[[AuditCloud], None]] = {
        Verdict.ARCHIVE_DAMAGED: lambda cloud: cloud.flip(1, 5_000),
        Verdict.SOURCE_DAMAGED: lambda cloud: cloud.flip_source("film"),
        Verdict.LOST: damage_and_delete_film,
        Verdict.INDEX_WRONG: lambda cloud: cloud.files.rows.clear(),
    }
    for verdict, inject in faults.items():
        cloud = AuditCloud()
        cloud.with_film("film", body, by_crc=by_crc)
        assert cloud.audit() == {}
        inject(cloud)
        cloud.now += 5 * DAY
        run = cloud.ask(1)
        cloud.settle()
        assert cloud.found(run) == {"film": verdict}
        cloud.consistent()


def test_a_large_object_of_which_nothing_states_a_hash_is_not_read() -> None:
    cloud = AuditCloud()
    cloud.with_film("film", b"frames " * 2_000, by_crc=True)
    del cloud.store.manifests[1]
    assert cloud.audit() == {"": Verdict.MANIFEST_WRONG}
    assert not cloud.reader.reads


def test_a_checksum_of_s3_that_differs_is_not_taken_on_trust() -> None:
    """Which of the two is wrong, what S3 keeps or what the manifest states, only the bytes can tell."""
    cloud = AuditCloud(read=False)
    cloud.with_files(BODIES)
    for key in KEYS:
        source, body = cloud.content.objects[key, "v1"]
        cloud.content.objects[key, "v1"] = (replace(source, checksums={"CRC64NVME": "AAAAAAAAAAA="}), body)
    cloud.change_manifest("b", 1, checksums={"CRC64NVME": "AQAAAAAAAAA="})
    assert cloud.audit() == {"": Verdict.MANIFEST_WRONG}


def test_a_large_object_is_hashed_over_as_many_lives_as_it_takes() -> None:
    """Each life has time for one piece; every byte is read once."""
    cloud = AuditCloud(lived_until=lambda now: now + timedelta(seconds=1))
    body = bytes(range(256)) * 40
    cloud.with_film("film", body, by_crc=True)
    assert cloud.audit() == {}
    cloud.consistent()
    assert [first for _, first, _ in cloud.reader.reads] == list(range(0, len(body), 1_000))


def test_a_large_object_that_takes_many_lives_is_tried_as_often_as_any_other() -> None:
    cloud = AuditCloud(lived_until=lambda now: now + timedelta(seconds=1))
    cloud.with_film("film", bytes(range(256)) * 40, by_crc=True)
    run = cloud.ask(1)
    cloud.deliver()
    cloud.wait(5 * HOUR)
    for _ in range(PATIENCE + 2):  # lives that got somewhere
        for queue, handle in cloud.handlers:
            for message in queue.take():
                handle(message)
    cloud.unreadable += [Transient("timed out")] * (PATIENCE - 2)
    cloud.settle()
    assert cloud.report(run).verdict is Verdict.INTACT


# -- Deaths ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies."""


@dataclass
class Mortal:
    """Kills whoever makes the `kill_at`-th call to a port, before it is made; `calls` counts them."""

    kill_at: int = 0
    calls: int = 0
    armed: bool = False
    died: list[str] = field(default_factory=list)

    def watch(self, port: Any) -> Any:
        return _MortalPort(port, self)

    def step(self, name: str) -> None:
        if not self.armed:
            return
        self.calls += 1
        if self.calls == self.kill_at:
            self.died.append(name)
            raise Killed(name)


class _MortalPort:
    def __init__(self, port: Any, mortal: Mortal) -> None:
        self._port, self._mortal = port, mortal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found) or name == "take":  # which is the test's
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._mortal.step(name)
            return found(*args, **kwargs)

        return call


def life(kill_at: int) -> tuple[AuditCloud, Mortal]:
    """A scheduled run over two archives, one of them damaged and to be repaired, in which a process dies once; all else
    goes on until it is over.
    """
    mortal = Mortal(kill_at=kill_at)
    cloud = AuditCloud(horizon_days=60, automatic=True, watch=mortal.watch)
    cloud.with_files(BODIES)
    cloud.with_files({"d": b"d" * 300})
    cloud.records.rolling_row = replace(cloud.records.rolling_row, credit=1.5)
    cloud.flip_member("b")
    handlers = cloud.handlers
    scheduled = "20260901-120000-00000001"
    todo: list[Callable[[], object]] = [partial(cloud.start, DRAW, scheduled=scheduled)]
    mortal.armed = True
    for _ in range(60):
        for queue, handle in handlers:
            todo += [partial(handle, body) for body in queue.take()]
        for _, queue, body in cloud.delayed:
            queue.send(body)
        cloud.delayed.clear()
        if not todo and all(run.told for run in cloud.runs) and cloud.runs and not cloud.unfinished_bundles:
            break
        again = []
        for call in todo:
            try:
                call()
            except (Killed, Transient):
                again.append(call)
        todo = again
        cloud.now += 20 * MINUTE
        mortal.armed, armed = False, mortal.armed
        cloud.wait(HOUR if again else 4 * HOUR)
        mortal.armed = armed
    else:
        raise AssertionError(f"it does not end: {cloud.records.rows}")
    return cloud, mortal


def test_a_run_survives_its_functions_death_before_any_call() -> None:
    """PITFALLS 9, 10, 12 and 21."""
    _, counting = life(0)
    assert counting.calls > 60
    names = set()
    for kill_at in range(1, counting.calls + 1):
        cloud, mortal = life(kill_at)
        assert mortal.died
        names.update(mortal.died)
        [run] = cloud.runs
        assert run.ended == run.audits == 2, mortal.died
        assert {report.archive: report.verdict for report in cloud.reports()} == {
            1: Verdict.ARCHIVE_DAMAGED,
            2: Verdict.INTACT,
        }, mortal.died
        assert 1 <= len(cloud.mails.published) <= 2, f"twice perhaps, never not at all: {mortal.died}"
        assert all(count <= 2 for count in cloud.thawed.values()), mortal.died
        repairs = [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]
        assert len(repairs) == 1
        assert cloud.archives.rows[1].superseded_by == 3
        assert cloud.files.rows["b", "v1"].archive == 3
    assert {"open_run", "begin", "lease", "put_sources", "save", "finish", "end_run", "told", "publish"} <= names


def test_begun_verified_and_told_of_in_any_order_an_audit_ends_once() -> None:
    """StartAudit, S3's event, and a copy of it, side by side."""
    rows = AuditCloud()
    rows.with_files({"a": b"a" * 100})

    def live(steps: Steps) -> None:
        cloud = AuditCloud(watch=steps.watch)
        cloud.with_files({"a": b"a" * 100})
        cloud.job([wanted("a", f"s3://{CONTENT}/copy")], BULK)
        cloud.deliver()
        cloud.now += HOUR
        [event] = cloud.ice.complete()
        run = cloud.ask(1)
        cloud.start(cloud.audits_queue.take()[0])
        [message] = cloud.audits_queue.take()

        def tried(handle: Callable[[str], object], body: str) -> Callable[[], None]:
            def call() -> None:
                try:
                    handle(body)
                except Transient:
                    cloud.verify_queue.send(body)

            return call

        steps.run([tried(cloud.start, message), tried(cloud.verify_thawed, event), tried(cloud.verify_thawed, event)])
        cloud.settle()
        assert cloud.report(run).verdict is Verdict.INTACT
        cloud.consistent()

    assert explored(live, preemptions=1) > 50


# -- Telling -----------------------------------------------------------------------------------------------------------


def test_a_thousand_damaged_members_are_one_mail() -> None:
    """PITFALLS 18."""
    cloud = AuditCloud(target_bytes=1_000_000)
    serial = cloud.with_files({f"k{number:04}": bytes([number % 256]) * 10 for number in range(1_000)})
    key = cloud.archives.rows[serial].object_key
    body = bytearray(cloud.store.objects[key])
    for member in cloud.manifest(serial).members:
        body[member.offset_bytes] ^= 1
    cloud.store.objects[key] = bytes(body)
    cloud.ask(serial)
    cloud.settle()
    cloud.consistent()
    [mail] = cloud.mails.published
    assert cloud.report().counts == {Verdict.ARCHIVE_DAMAGED: 1_000}
    assert "980 more findings" in mail


def test_a_run_over_many_damaged_archives_is_one_mail() -> None:
    cloud = AuditCloud()
    for number in range(5):
        cloud.with_files({f"f{number}": b"x" * 100})
        cloud.flip_member(f"f{number}", number + 1)
    cloud.ask(*range(1, 6))
    cloud.settle()
    cloud.consistent()
    [mail] = cloud.mails.published
    assert mail.count("Next: ") == 5


# -- Repair ------------------------------------------------------------------------------------------------------------


def test_a_repair_is_ordered_once_and_the_new_archive_is_intact(cloud: AuditCloud) -> None:
    cloud.flip_member("b")
    run = cloud.ask(1, repair=True)
    cloud.settle()
    cloud.consistent()
    assert cloud.report(run).repair == "repair-1-0"
    assert cloud.archives.rows[1].superseded_by == 2
    assert {row.archive for row in cloud.files.rows.values()} == {2}
    [bundle] = [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]
    assert bundle.state is BundleState.ARCHIVED
    second = cloud.ask(2)
    cloud.settle()
    assert cloud.report(second).verdict is Verdict.INTACT
    third = cloud.ask(1, repair=True)
    cloud.settle()
    assert cloud.report(third).verdict is Verdict.ARCHIVE_DAMAGED
    assert len(cloud.archives.rows) == 2, "nothing of it was left to repair"


def test_nothing_is_repaired_that_nobody_asked_for(cloud: AuditCloud) -> None:
    cloud.flip_member("b")
    cloud.audit()
    assert not [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]


def test_a_damaged_source_is_no_reason_to_archive_it_anew(cloud: AuditCloud) -> None:
    cloud.flip_source("b")
    cloud.audit(repair=True)
    assert not [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]


@pytest.mark.parametrize("spoil", [wrong_row, missing_row])
def test_a_wrong_row_is_put_right_without_a_new_archive(cloud: AuditCloud, spoil: Callable[[AuditCloud], None]) -> None:
    right = dict(cloud.files.rows)
    spoil(cloud)
    assert cloud.audit(repair=True) == {"b": Verdict.INDEX_WRONG}
    assert cloud.files.rows == right
    assert len(cloud.archives.rows) == 1


def test_what_is_lost_in_one_archive_comes_from_another_that_is_thawed_first(cloud: AuditCloud) -> None:
    cloud.archived(cloud.upload("b", BODIES["b"], version_id="v2"))
    damage_and_delete(cloud)
    cloud.delete("b", "v2")
    cloud.audit(repair=True)
    assert cloud.files.rows["b", "v1"].archive == 3
    body = cloud.store.objects[cloud.archives.rows[3].object_key]
    row = cloud.files.rows["b", "v1"]
    assert body[row.offset_bytes : row.offset_bytes + row.size_bytes] == BODIES["b"]
    assert set(cloud.thawed) == {1, 2}


def test_what_is_lost_everywhere_is_said_so_by_name(cloud: AuditCloud) -> None:
    damage_and_delete(cloud)
    assert cloud.audit(repair=True) == {"b": Verdict.LOST}
    assert {item.version.key for item in cloud.parking_lot.items.values() if item.version} == {"b"}
    assert cloud.files.rows["a", "v1"].archive == 2


# -- The rolling pass --------------------------------------------------------------------------------------------------


def simulated(days: int, *, every: timedelta = 6 * HOUR, grow: int = 0, **settings: Any) -> AuditCloud:
    """The schedule, for so many days, over ten archives and `grow` new ones a day."""
    cloud = AuditCloud(**settings)
    for number in range(10):
        cloud.with_files({f"first-{number}": b"x" * 50})
    written = 0
    for step in range(days * DAY // every):
        cloud.tick()
        cloud.deliver()
        cloud.wait(every)
        cloud.deliver()
        while written < grow * step * every / DAY:
            written += 1
            cloud.with_files({f"later-{written}": b"x" * 50})
    cloud.settle()
    return cloud


def rolled(cloud: AuditCloud) -> dict[int, list[Any]]:
    """When each archive was audited by the rolling pass."""
    times: dict[int, list[Any]] = {serial: [] for serial in cloud.archives.rows}
    for report in cloud.reports():
        if report.cause is Cause.ROLLING:
            times[report.archive].append(report.begun_at)
    return times


def test_the_rolling_pass_comes_round_within_its_horizon() -> None:
    """PITFALLS 17."""
    cloud = simulated(45, horizon_days=15, grow=1)
    cloud.consistent()
    for serial, row in cloud.archives.rows.items():
        seen = sorted(report.begun_at for report in cloud.reports() if report.archive == serial)
        moments = [row.written_at, *seen, cloud.now]
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert max(gaps) <= 15 * DAY, serial
    assert cloud.records.rolling_row.frontier > 30


def test_the_random_sample_runs_whether_the_rolling_pass_has_a_budget_or_not() -> None:
    cloud = simulated(10, horizon_days=10, budget=Budget(percent=0, usd=0))
    assert not any(rolled(cloud).values())
    assert len(cloud.reports()) == len(cloud.runs), "one at random each time, PITFALLS 16"
    assert sum(run.cut for run in cloud.runs) > 0
    assert sum(month.cut for month in cloud.records.months.values()) == sum(run.cut for run in cloud.runs)


def test_without_a_horizon_there_is_no_rolling_pass() -> None:
    cloud = simulated(5, horizon_days=0)
    assert all(set(run.drawn) == {Cause.RANDOM} for run in cloud.runs)
    assert not cloud.records.months


def test_a_month_knows_what_the_rolling_pass_has_thawed_in_it() -> None:
    cloud = simulated(20, horizon_days=10)
    thawed = Counter[str]()
    for run in cloud.runs:
        for serial in run.drawn.get(Cause.ROLLING, ()):
            thawed[f"{run.created_at:%Y-%m}"] += cloud.archives.rows[serial].size_bytes
    assert {name: month.thawed_bytes for name, month in cloud.records.months.items()} == dict(thawed)


def test_superseded_archives_are_neither_drawn_nor_in_the_pass() -> None:
    cloud = AuditCloud(horizon_days=10)
    for number in range(4):
        cloud.with_files({f"f{number}": b"x" * 50})
    cloud.archives.rows[2] = replace(cloud.archives.rows[2], superseded_by=4)
    for _ in range(60):
        cloud.tick()
        cloud.deliver()
        cloud.wait(6 * HOUR)
        cloud.deliver()
    assert {report.archive for report in cloud.reports()} == {1, 3, 4}


def test_the_pass_waits_for_an_archive_that_is_not_in_the_index_yet() -> None:
    cloud = AuditCloud(horizon_days=10)
    for number in range(4):
        cloud.with_files({f"f{number}": b"x" * 50})
    cloud.archives.rows[2] = replace(cloud.archives.rows[2], state=ArchiveState.WRITTEN)
    for _ in range(20):
        cloud.tick()
        cloud.deliver()
        cloud.wait(12 * HOUR)
        cloud.deliver()
    assert cloud.records.rolling_row.frontier == 2
    assert 2 not in {report.archive for report in cloud.reports()}
    for _ in range(20):
        cloud.tick()
        cloud.deliver()
        cloud.wait(12 * HOUR)
        cloud.deliver()
    assert cloud.records.rolling_row.frontier > 2, "nobody will ever finish it: it is looked at as it is"


def test_the_sweep_finds_nothing_to_do_when_all_is_done(cloud: AuditCloud) -> None:
    cloud.audit()
    cloud.now += 30 * DAY
    cloud.start(SWEEP)
    assert not cloud.audits_queue.sent
    assert not cloud.mails.published

"""What audits and repairs once got wrong, each in the shape in which it was found."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from neve.domain.audit import GIVEN_UP_AFTER, SWEEP, AuditRequest, Cause, Stage, patience, render_audit_request
from neve.domain.bundle import BundleState
from neve.domain.index import ArchiveState
from neve.domain.restore import Ending
from neve.domain.sampling import Budget
from neve.domain.thaw import Tier, audit_micro_usd, thaw_micro_usd, warmed
from neve.domain.verdict import Verdict
from neve.domain.version import NULL_VERSION
from neve.errors import SourceDenied, Transient
from neve.flows.audit_runs import LOOK
from neve.flows.verify_audit import PATIENCE
from neve.ports import Answer
from tests.audit_cloud import AuditCloud, bodies_of
from tests.restore_cloud import DAY, HOUR, MINUTE, STANDARD, wanted

KEYS = ("a", "b", "c")
BODIES = bodies_of(KEYS)


@pytest.fixture
def cloud() -> AuditCloud:
    """One archive of three files."""
    made = AuditCloud()
    made.with_files(BODIES)
    return made


def small(count: int, **settings: Any) -> AuditCloud:
    """So many archives of one small file each."""
    made = AuditCloud(**settings)
    for number in range(count):
        made.with_files({f"f{number}": b"x" * 50})
    return made


def one_archive(*, large: bool, **settings: Any) -> AuditCloud:
    """An archive of the file `b`, as an object or in a tar among others."""
    made = AuditCloud(**settings)
    if large:
        made.archived(made.upload("b", b"y" * 30_000))
    else:
        made.with_files(BODIES)
    return made


class First(Random):
    """The random sample hits the first archive, as it hardly ever does a certain one of many."""

    def randint(self, a: int, b: int) -> int:
        return a


def ticks(cloud: AuditCloud, days: int) -> None:
    """A run a day."""
    for _ in range(days):
        cloud.tick()
        cloud.deliver()
        cloud.wait(DAY)
        cloud.deliver()


def rolled(cloud: AuditCloud) -> list[int]:
    return [serial for run in cloud.runs for serial in run.drawn.get(Cause.ROLLING, ())]


# What a run draws


def test_an_archive_that_was_drawn_at_random_is_in_one_run_of_the_pass_once_and_the_run_ends() -> None:
    """It has a last audit, and is not yet behind the frontier."""
    cloud = small(10, horizon_days=10, seed=3)
    cloud.wait(DAY)
    cloud.tick()
    cloud.settle()
    [early] = cloud.runs[0].drawn[Cause.RANDOM]
    cloud.flip_member(f"f{early - 1}", early)
    cloud.wait(7 * DAY)  # the schedule stands still, and the frontier before that archive
    run = cloud.tick()
    cloud.settle()
    drawn = cloud.records.run_rows[run].drawn
    assert sorted(drawn[Cause.ROLLING] + drawn[Cause.RANDOM]) == list(range(1, 11))
    assert len(cloud.reports(run)) == 10
    assert len(cloud.mails.published) == 1
    cloud.consistent()


def test_an_archive_that_was_drawn_twice_counts_once(cloud: AuditCloud) -> None:
    run = cloud.records.run_rows[cloud.tick()]
    twice = replace(run, drawn={Cause.RANDOM: (1,), Cause.ROLLING: (2, 1, 3)})
    assert (twice.audits, twice.archives_drawn) == (3, (1, 2, 3))


def test_an_archive_whose_audit_is_under_way_is_not_drawn_at_random_again(cloud: AuditCloud) -> None:
    cloud.thaw_takes = 48 * HOUR
    first, second = cloud.tick(), cloud.tick()
    cloud.deliver()
    assert [cloud.records.run_rows[run].audits for run in (first, second)] == [1, 1], "none had been begun"
    third = cloud.tick()
    assert cloud.records.run_rows[third].audits == 0
    cloud.settle()
    assert cloud.records.run_rows[cloud.tick()].audits == 1
    cloud.settle()
    cloud.consistent()


def test_a_run_is_idle_only_if_nothing_was_ever_audited() -> None:
    """Else its silence would hide that the table of archives was lost."""
    cloud = AuditCloud()
    empty = cloud.records.run_rows[cloud.tick()]
    assert cloud.starter.idle(empty)
    cloud.with_files(BODIES)
    busy = cloud.records.run_rows[cloud.tick()]
    assert not cloud.starter.idle(busy)
    cloud.settle()
    cloud.archives.rows.clear()
    lost = cloud.records.run_rows[cloud.tick()]
    assert lost.audits == 0
    assert not cloud.starter.idle(lost)


# The budget


def test_an_archive_larger_than_a_month_s_share_does_not_end_the_pass() -> None:
    cloud = small(8, horizon_days=30, budget=Budget(percent=110, usd=100))
    version = cloud.upload("film", b"x" * 200_000)
    cloud.archived(version)
    large = max(cloud.archives.rows)
    for number in range(8):
        cloud.with_files({f"g{number}": b"x" * 50})
    cloud.budget = Budget(percent=60, usd=100)
    cloud.rng = First()
    ticks(cloud, 150)
    taken = rolled(cloud)
    assert large in taken
    assert set(taken[-8:]) & set(range(large + 1, large + 9)), "the pass goes on behind it"
    stored = sum(row.size_bytes for row in cloud.archives.rows.values())
    thawed = sum(cloud.archives.rows[serial].size_bytes for serial in taken)
    assert thawed <= len(cloud.records.months) * 0.6 * stored + 200_000, "and later months pay for it"


def test_the_month_in_which_the_collection_began_is_summed_up_as_it_grows() -> None:
    cloud = AuditCloud(horizon_days=30, budget=Budget(percent=120, usd=100))
    cloud.tick()
    cloud.with_files({"tiny": b"x"})
    cloud.tick()
    cloud.with_files({"tiny too": b"x"})
    cloud.tick()
    for number in range(20):
        cloud.with_files({f"f{number}": b"x" * 15_000})
    cloud.now += HOUR
    cloud.tick()
    [month] = cloud.records.months.values()
    assert month.stored_bytes == cloud.archives.stored_bytes()
    assert month.archives == 22
    cloud.with_files({"one more": b"x"})
    cloud.now += HOUR
    cloud.tick()
    [month] = cloud.records.months.values()
    assert month.archives == 22, "not at every run: that reads every row"


def test_reading_counts_where_nothing_is_thawed() -> None:
    terabyte = 10**12
    assert thaw_micro_usd("GLACIER_IR", Tier.BULK, days=1, size_bytes=terabyte) == 0
    assert audit_micro_usd("GLACIER_IR", Tier.BULK, size_bytes=terabyte) > 20_000_000
    cloud = small(20, horizon_days=10, budget=Budget(percent=10_000, usd=0))
    cloud.archives.rows = {
        serial: replace(row, storage_class="GLACIER_IR") for serial, row in cloud.archives.rows.items()
    }
    ticks(cloud, 3)
    assert not rolled(cloud)
    assert sum(run.cut for run in cloud.runs) > 0


def test_the_day_s_cap_on_restores_is_not_spent_by_audits(cloud: AuditCloud) -> None:
    cloud.tier = Tier.STANDARD
    cloud.with_files({"z": b"z" * 100})
    need = STANDARD
    cloud.cap_micro_usd = thaw_micro_usd(
        "GLACIER", need.tier, days=need.days, size_bytes=cloud.archives.rows[2].size_bytes
    )
    cloud.ask(1)
    cloud.deliver()
    cloud.job([wanted("z", "s3://other-bucket/z")], need)
    cloud.deliver()
    cloud.settle()
    assert cloud.endings() == {Ending.RESTORED: 1}


def test_a_class_that_has_no_tier_so_fast_is_audited_at_the_next(cloud: AuditCloud) -> None:
    cloud.tier, cloud.horizon_days = Tier.EXPEDITED, 10
    cloud.archives.rows[1] = replace(cloud.archives.rows[1], storage_class="DEEP_ARCHIVE")
    cloud.with_files({"z": b"z"})
    cloud.tick()
    cloud.settle()
    cloud.ask(1, 2)
    cloud.settle()
    assert {(serial, tier) for serial, tier, _, _ in cloud.ice.asked} == {(1, Tier.STANDARD), (2, Tier.EXPEDITED)}


# Time


def test_a_large_archive_has_time_by_its_size(cloud: AuditCloud) -> None:
    cloud.archives.rows[1] = replace(cloud.archives.rows[1], size_bytes=5 * 10**12)
    allowed = patience(5 * 10**12)
    assert allowed > GIVEN_UP_AFTER + 10 * DAY
    cloud.thaw_takes = 60 * DAY
    run = cloud.ask(1)
    cloud.deliver()
    cloud.now += allowed
    cloud.starter.begin(AuditRequest(run=run, archive=1), owner="o", until=cloud.now + MINUTE)
    assert not cloud.reports()
    cloud.now += MINUTE
    begun = cloud.starter.begin(AuditRequest(run=run, archive=1), owner="o", until=cloud.now + MINUTE)
    assert begun.unread == 1
    assert cloud.found(run) == {"": Verdict.UNREAD}


def test_what_is_given_up_counts_as_unread_once_and_a_lost_row_does_not(cloud: AuditCloud) -> None:
    cloud.with_files({"z": b"z"})
    run = cloud.ask(1, 2)
    cloud.deliver()
    cloud.now += GIVEN_UP_AFTER + HOUR
    row = cloud.archives.rows.pop(2)
    unread = [
        cloud.starter.begin(AuditRequest(run=run, archive=serial), owner="o", until=cloud.now + MINUTE).unread
        for serial in (1, 1, 2)
    ]
    assert unread == [1, 0, 0]
    cloud.archives.rows[2] = row


def test_audits_that_wait_are_sent_again_when_they_are_due_and_not_by_every_sweep() -> None:
    cloud = small(5, thaw_takes=48 * HOUR)
    cloud.ask(*range(1, 6))
    cloud.deliver()
    sent = 0
    for _ in range(24 * 4):
        cloud.now += 15 * MINUTE
        cloud.start(SWEEP)
        sent += len(cloud.audits_queue.sent)
        cloud.deliver()
    assert sent <= 5 * (DAY / LOOK)


def test_only_what_was_never_begun_is_sent_again_after_seven_days() -> None:
    cloud = small(3)
    run, drawn_at = cloud.ask(1, 2, 3), cloud.now
    [asked] = cloud.audits_queue.take()
    cloud.start(asked)
    begun, ended, _ = cloud.audits_queue.take()
    cloud.start(ended)
    cloud.wait(5 * HOUR, sweep=False)
    cloud.deliver()
    assert [report.archive for report in cloud.reports()] == [2]
    cloud.start(begun)
    cloud.records.due_at = dict.fromkeys(cloud.records.due_at, cloud.now + 30 * DAY)
    cloud.now = drawn_at + GIVEN_UP_AFTER - MINUTE
    cloud.start(SWEEP)
    assert not cloud.audits_queue.sent
    cloud.now += 2 * MINUTE
    cloud.start(SWEEP)
    assert cloud.audits_queue.take() == [render_audit_request(AuditRequest(run=run, archive=3))]


def test_a_run_that_cannot_be_told_of_holds_back_no_other() -> None:
    cloud = small(2)
    for serial in (1, 2):
        cloud.flip_member(f"f{serial - 1}", serial)
    publish = cloud.mails.publish
    broken = {"Archive 1:", "Archive 2:"}

    def refuse(message: str, *, subject: str = "") -> None:
        if any(each in message for each in broken):
            raise Transient("SNS says no")
        publish(message, subject=subject)

    cloud.mails.publish = refuse  # type: ignore[method-assign]
    for serial in (1, 2):
        cloud.ask(serial)
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
        cloud.deliver()
    broken.remove("Archive 2:")
    cloud.now += HOUR
    with pytest.raises(Transient, match="SNS says no"):
        cloud.start(SWEEP)
    assert [run.told for run in cloud.runs] == [False, True]
    assert len(cloud.mails.published) == 1


# Large objects


def test_a_large_object_whose_source_cannot_be_read_is_not_read_itself_until_nothing_else_is_left() -> None:
    cloud = AuditCloud(lived_until=lambda now: now + timedelta(seconds=1))
    cloud.with_film("film", b"x" * 5_000, by_crc=True)
    cloud.content.failures["film"] = SourceDenied("403 AccessDenied")
    assert cloud.audit() == {"film": Verdict.UNREAD}
    assert sum(last - first + 1 for _, first, last in cloud.reader.reads) == 5_000, "once, after the last try"


def test_a_large_object_that_can_be_read_later_is_intact() -> None:
    cloud = AuditCloud()
    cloud.with_film("film", b"x" * 5_000, by_crc=True)
    cloud.content.failures["film"] = SourceDenied("403 AccessDenied")
    run = cloud.ask(1)
    cloud.deliver()
    cloud.content.failures.clear()
    cloud.settle()
    assert cloud.report(run).verdict is Verdict.INTACT
    assert sum(last - first + 1 for _, first, last in cloud.reader.reads) == 5_000


def test_an_object_without_a_version_that_was_put_again_with_the_same_bytes_is_intact() -> None:
    cloud = AuditCloud()
    body = b"y" * 30_000
    cloud.archived(cloud.upload("film", body, version_id=NULL_VERSION))
    assert cloud.archives.rows[1].kind == "object"
    cloud.now += DAY
    cloud.upload("film", body, version_id=NULL_VERSION)
    assert cloud.audit() == {}


# Tries


def test_waiting_for_another_archive_uses_up_no_tries(cloud: AuditCloud) -> None:
    cloud.archived(cloud.upload("b", BODIES["b"], version_id="v2"))
    cloud.flip_member("b")
    cloud.delete("b")
    cloud.delete("b", "v2")
    run = cloud.ask(1, repair=True)
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.thaw_takes = 2 * DAY
    for _ in range(2 * PATIENCE):
        cloud.deliver()
        cloud.wait(15 * MINUTE)
    [audit] = cloud.records.rows.values()
    assert audit.tries == 0
    cloud.unreadable.append(Transient("503 SlowDown"))
    cloud.settle()
    assert cloud.report(run).verdict is Verdict.LOST
    assert cloud.files.rows["b", "v1"].archive == 3


def test_a_row_that_calls_an_archive_warm_which_s3_calls_asleep_goes(cloud: AuditCloud) -> None:
    cloud.thaws.swap(None, warmed(None, 1, until=cloud.now + 5 * DAY, now=cloud.now))
    assert cloud.audit() == {}
    assert cloud.ice.asked == [(1, Tier.BULK, 1, Answer.ACCEPTED)]
    assert cloud.report().finished_at - cloud.report().begun_at < DAY, "not when the row's time is over"
    cloud.consistent()


def test_a_large_object_that_cannot_be_read_to_its_end_is_tried_as_often_as_any_other() -> None:
    """What had been read before does not make its later tries endless."""
    cloud = AuditCloud(lived_until=lambda now: now + timedelta(seconds=1))
    cloud.with_film("film", b"x" * 5_000, by_crc=True)
    run = cloud.ask(1)
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    for _ in range(3):
        [body] = list(dict.fromkeys(cloud.verify_queue.take()))
        cloud.verify_thawed(body)
        [again] = cloud.audits_queue.take()
        cloud.start(again)
    assert [(audit.of_archive.size_bytes, audit.tries) for audit in cloud.records.rows.values()] == [(3_000, 0)]
    cloud.unreadable += [Transient("503")] * PATIENCE
    cloud.deliver()
    assert cloud.report(run).verdict is Verdict.UNREAD


# The index


def test_an_archive_that_is_not_in_the_index_yet_is_audited_when_it_is(cloud: AuditCloud) -> None:
    rows = dict(cloud.files.rows)
    cloud.files.rows.clear()
    cloud.archives.rows[1] = replace(cloud.archives.rows[1], state=ArchiveState.WRITTEN, storage_class="GLACIER_IR")
    run = cloud.ask(1)
    cloud.deliver()
    assert not cloud.reports()
    assert cloud.records.rows[run, 1].stage is Stage.HASHING
    cloud.files.rows.update(rows)
    cloud.archives.finish(1, duplicates=0, now=cloud.now)
    cloud.settle()
    assert cloud.report(run).verdict is Verdict.INTACT
    assert not cloud.mails.published


@pytest.mark.parametrize("large", [False, True], ids=["tar", "object"])
def test_rows_that_name_a_superseded_archive_again_are_found_and_put_right(large: bool) -> None:
    """As after the table was put back to before the repair."""
    cloud = one_archive(large=large)
    before = dict(cloud.files.rows)
    cloud.flip_member("b")
    cloud.audit(repair=True)
    after = dict(cloud.files.rows)
    cloud.files.rows.update(before)
    run = cloud.ask(2, repair=True)
    cloud.settle()
    assert set(cloud.found(run).values()) == {Verdict.INDEX_WRONG}
    assert cloud.files.rows == after
    assert cloud.report(run).rows_repaired == len(after)


def test_no_row_is_put_right_while_the_archive_s_own_row_contradicts(cloud: AuditCloud) -> None:
    """A tar and a manifest that agree, made by somebody else: only the index knows what was archived."""
    cloud.archives.rows[1] = replace(cloud.archives.rows[1], sha256="0" * 64)
    spoilt = {**cloud.files.rows, ("b", "v1"): replace(cloud.files.rows["b", "v1"], sha256="1" * 64)}
    cloud.files.rows.update(spoilt)
    assert cloud.audit(repair=True) == {"": Verdict.INDEX_WRONG, "b": Verdict.INDEX_WRONG}
    assert cloud.files.rows == spoilt
    assert cloud.report().rows_repaired == 0
    [mail] = cloud.mails.published
    assert "the archive's row contradicts" in mail


def test_a_large_object_and_a_manifest_made_by_somebody_else_are_not_taken_into_the_index() -> None:
    cloud = one_archive(large=True, automatic=True)
    manifest, forged = cloud.manifest(1), b"z" * 30_000
    sha256 = hashlib.sha256(forged).hexdigest()
    [member] = manifest.members
    source = replace(member.source, sha256=sha256, md5="", checksums={})
    cloud.store.manifests[1] = replace(manifest, object_sha256=sha256, members=(replace(member, source=source),))
    cloud.store.objects[manifest.object_key] = forged
    cloud.delete("b")
    before = dict(cloud.files.rows)
    assert cloud.audit() == {"": Verdict.INDEX_WRONG}
    assert cloud.files.rows == before


# Repairs


def restored(cloud: AuditCloud, key: str, pin: str = "restored") -> tuple[str, str]:
    """A version that a restore has made out of an archived one."""
    row = replace(cloud.files.rows[key, "v1"], version_id=pin, pin=pin)
    assert not cloud.files.record([row])
    return key, pin


@pytest.mark.parametrize("large", [False, True], ids=["tar", "object"])
def test_what_was_restored_under_its_key_follows_the_repair_and_takes_no_room_in_it(large: bool) -> None:
    cloud = one_archive(large=large)
    identities = [restored(cloud, "b", f"r{number}") for number in range(40)]
    cloud.flip_member("b")
    cloud.audit(repair=True)
    member = cloud.member("b", 2)
    for identity in identities:
        row = cloud.files.rows[identity]
        assert (row.archive, row.number, row.offset_bytes) == (2, member.number, member.offset_bytes)
        assert (row.key, row.pin) == identity
    assert len(cloud.manifest(2).members) == (1 if large else 3)


def test_a_version_with_other_bytes_does_not_follow(cloud: AuditCloud) -> None:
    key, pin = restored(cloud, "b")
    other = replace(cloud.files.rows[key, pin], sha256="0" * 64)
    cloud.files.rows[key, pin] = other
    cloud.flip_member("b")
    cloud.audit(repair=True)
    assert cloud.files.rows[key, pin] == other


@pytest.mark.parametrize("large", [False, True], ids=["tar", "object"])
def test_one_fault_that_many_runs_find_is_one_repair(large: bool) -> None:
    cloud = one_archive(large=large, automatic=True)
    cloud.flip_member("b")
    for _ in range(4):
        cloud.ask(1)
    cloud.settle()
    [bundle] = [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]
    assert bundle.state is BundleState.ARCHIVED
    assert {report.repair for report in cloud.reports()} <= {bundle.id, ""}
    assert sorted(cloud.archives.rows) == [1, 2]


def duplicate(cloud: AuditCloud) -> None:
    """Another archive of the same versions, whose rows name the first."""
    rows = dict(cloud.files.rows)
    cloud.files.rows.clear()
    cloud.with_files(BODIES)
    cloud.files.rows.update(rows)


def test_a_damaged_archive_that_no_row_names_needs_no_repair_and_is_not_looked_at_any_more(cloud: AuditCloud) -> None:
    duplicate(cloud)
    cloud.flip_member("b", 2)
    assert cloud.audit(2, repair=True) == {"b": Verdict.ARCHIVE_DAMAGED}
    assert cloud.archives.rows[2].superseded_by == 1
    assert not [bundle for bundle in cloud.bundles.rows.values() if bundle.supersedes]


def test_it_is_left_as_it_is_unless_somebody_asked(cloud: AuditCloud) -> None:
    duplicate(cloud)
    cloud.flip_member("b", 2)
    cloud.audit(2)
    assert cloud.archives.rows[2].superseded_by == 0


def test_no_two_archives_stand_for_each_other(cloud: AuditCloud) -> None:
    """The index was put back to before a repair, and now the repair is damaged as well."""
    before = dict(cloud.files.rows)
    cloud.flip_member("b")
    cloud.audit(repair=True)
    after = dict(cloud.files.rows)
    cloud.files.rows.update(before)
    cloud.flip_member("c", 2)
    cloud.ask(2, repair=True)
    cloud.settle()
    assert [row.superseded_by for row in cloud.archives.rows.values()] == [2, 0]
    cloud.files.rows.update(after)  # reconcile does it
    cloud.ask(2, repair=True)
    cloud.settle()
    assert [row.superseded_by for row in cloud.archives.rows.values()] == [2, 3, 0]
    assert {row.archive for row in cloud.files.rows.values()} == {3}

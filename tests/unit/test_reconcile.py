"""Reconcile: what it finds, whatever ends its steps and whoever dies, and what it does about it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neve.domain import reconcile as domain
from neve.domain.events import DRILL_PREFIX
from neve.domain.index import ArchiveState, FileRow, is_cut
from neve.domain.parked import Parked, Reason
from neve.domain.reconcile import (
    EXAMPLES,
    PROBLEMS,
    REMEDIES,
    Finding,
    Outcome,
    Pass,
    PassState,
    Place,
    Progress,
    ShardKind,
    ShardRequest,
    ShardRow,
    StartRequest,
    Sweep,
    Tally,
    in_order,
    mail,
    parse,
    render_shard,
    render_start,
    shards,
    subject,
    summary,
    told,
)
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid, NeveError, SourceDenied, Transient
from neve.flows import compare
from neve.flows.reconcile import MARGIN, PATIENCE, STEP
from tests.memory import START, MemoryFiles
from tests.memory_reconcile import DAY, OLD, YOUNG, Dated, Deadly, MemoryInventory, ReconcileWorld

START_MESSAGE = json.dumps({"message": "reconcile"})
SWEEP = json.dumps({"message": "sweep"})
LONG = "x" * 900


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is done in portions, in tiny ones."""
    for name, number in (("CROWD", 3), ("BATCH", 2), ("LINES", 2), ("BLOCK", 4)):
        monkeypatch.setattr(compare, name, number)
    monkeypatch.setattr(domain, "SERIALS_PER_SHARD", 3)


@pytest.fixture
def world() -> ReconcileWorld:
    """Three files in an archive, all as it should be."""
    made = ReconcileWorld()
    made.archive(1, [made.upload(key, key.encode()) for key in ("a", "b/ü", "c")])
    return made


def begin(world: ReconcileWorld, *boundaries: str) -> None:
    """A pass `p` of which the shard of archives is done, so that the others are due."""
    world.reconciler.start(StartRequest(id="p", boundaries=boundaries))
    world.handle(world.queue.sent[0][0])


# Versions and rows


def test_where_everything_agrees_nothing_is_found_and_nobody_is_told(world: ReconcileWorld) -> None:
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1}
    assert world.passes.rows["p1"].clean
    assert not world.alerts.published
    assert not world.collect_queue.sent
    assert not world.passes.due_at, "the sweep has nothing left to look at"


def test_a_version_without_a_row_is_collected_again_and_told_of_once(world: ReconcileWorld) -> None:
    missing = world.upload("new", b"new")
    assert world.reconcile()[Outcome.MISSING] == 1
    assert world.announced() == {missing.identity}
    announced = json.loads(world.collect_queue.sent[0][0])["versions"][0]
    assert announced[-1] >= START.isoformat(), "Collect's patience begins when it is announced"
    assert len(world.alerts.published) == 1
    assert "'new' version 'v1'" in world.alerts.published[0]
    assert world.alerts.subjects == ["neve reconcile: 1 missing"]


def test_a_young_version_without_a_row_waits(world: ReconcileWorld) -> None:
    world.upload("new", made=YOUNG)
    assert world.reconcile()[Outcome.WAITING] == 1
    assert not world.announced()
    assert not world.alerts.published


def test_a_parked_version_waits_for_a_person(world: ReconcileWorld) -> None:
    version = world.upload("bad")
    world.parking_lot.park(Parked(reason=Reason.SOURCE_DENIED, detail="", parked_at=START, version=version))
    counts = world.reconcile()
    assert (counts[Outcome.PARKED], counts[Outcome.MISSING]) == (1, 0)
    assert not world.announced()


def test_a_row_that_was_written_behind_the_index_reader_counts(world: ReconcileWorld) -> None:
    """The index is streamed eventually consistent; what seems to be missing is read again, consistently."""
    between = world.files.between
    world.files.between = lambda after, until: (row for row in between(after, until) if row.key != "b/ü")  # type: ignore[method-assign]
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1}


def test_what_collect_ignores_is_ignored(world: ReconcileWorld) -> None:
    world.archive(2, [world.upload(f"{DRILL_PREFIX}a")])
    world.upload(f"{DRILL_PREFIX}b")
    counts = world.reconcile()
    assert counts == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 2}


def test_a_deleted_source_is_no_problem(world: ReconcileWorld) -> None:
    world.delete(world.listing.listed[0])
    assert world.reconcile()[Outcome.SOURCE_GONE] == 1
    assert not world.alerts.published


def test_a_young_row_whose_version_is_not_listed_yet_is_not_gone(world: ReconcileWorld) -> None:
    version = world.upload("z", made=YOUNG)
    world.archive(2, [version])
    world.listing.listed.remove(version)
    assert world.reconcile()[Outcome.SOURCE_GONE] == 0


@pytest.mark.parametrize(
    ("stated", "source", "outcome"),
    [
        ({"size_bytes": 7}, {}, Outcome.MISMATCHING),
        ({"etag": "0" * 32}, {"etag": "0" * 32}, Outcome.MISMATCHING),
        ({"etag": "0" * 32}, {"etag": "0" * 32, "encryption": "aws:kms"}, Outcome.RECONCILED),
        ({"etag": "0" * 32 + "-2"}, {}, Outcome.RECONCILED),
    ],
)
def test_what_the_bucket_states_is_held_against_the_row(
    world: ReconcileWorld, stated: dict[str, Any], source: dict[str, Any], outcome: Outcome
) -> None:
    version = world.listing.listed[0]
    world.listing.listed[0] = replace(version, **stated)
    old, body = world.content.objects[version.identity]
    world.content.objects[version.identity] = (replace(old, **source), body)
    counts = world.reconcile()
    assert counts[outcome] == (3 if outcome is Outcome.RECONCILED else 1)
    assert bool(world.alerts.published) == (outcome is Outcome.MISMATCHING)


@pytest.mark.parametrize(
    ("failure", "outcome"), [(None, Outcome.SOURCE_GONE), (SourceDenied("no"), Outcome.RECONCILED)]
)
def test_an_etag_that_cannot_be_looked_into_is_no_mismatch(
    world: ReconcileWorld, failure: Exception | None, outcome: Outcome
) -> None:
    version = world.listing.listed[0]
    world.listing.listed[0] = replace(version, etag="0" * 32)
    if failure:
        world.content.failures[version.key] = failure
    else:
        del world.content.objects[version.identity]
    counts = world.reconcile()
    assert counts[Outcome.MISMATCHING] == 0
    assert counts[outcome] == (1 if failure is None else 3)


def test_a_row_that_names_an_archive_without_a_row_is_orphaned(world: ReconcileWorld) -> None:
    row = world.files.rows["a", "v1"]
    world.files.rows["a", "v1"] = replace(row, archive=77)
    assert world.reconcile() == {Outcome.RECONCILED: 2, Outcome.ORPHANED_ROW: 1, Outcome.ARCHIVE_RECONCILED: 1}
    assert world.findings() == [(Outcome.ORPHANED_ROW, 77, "a")]


def test_an_archive_written_since_its_block_was_read_exists(world: ReconcileWorld) -> None:
    rows = world.archives.all
    world.archives.all = lambda **named: (row for row in rows(**named) if named["first"] > 0)  # type: ignore[method-assign]
    assert world.reconcile()[Outcome.RECONCILED] == 3


def test_a_listing_out_of_order_is_an_error_and_no_finding(world: ReconcileWorld) -> None:
    world.listing.versions = lambda *_: iter(reversed(world.listing.listed))  # type: ignore[method-assign]
    with pytest.raises(NeveError, match="out of order"):
        world.reconcile()


@pytest.mark.usefixtures("small")
def test_a_key_with_very_many_rows_is_looked_up_and_loses_nothing_before_or_behind_it(world: ReconcileWorld) -> None:
    """What is in doubt when such a key comes is settled first; of its rows only what is listed is looked at."""
    many = [world.upload("bb", version_id=f"v{number}") for number in range(9)]
    world.archive(2, many)
    for version in many:
        world.delete(version)
    world.upload("b0")
    world.upload("bc")
    counts = world.reconcile()
    assert counts == {Outcome.RECONCILED: 3, Outcome.MISSING: 2, Outcome.ARCHIVE_RECONCILED: 2}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("minutes", [1, 30])
def test_a_key_with_very_many_versions_is_gone_through_in_steps(world: ReconcileWorld, minutes: int) -> None:
    world.tick, world.lasts = timedelta(minutes=1), timedelta(minutes=minutes)
    many = [world.upload("bb", version_id=f"v{number}") for number in range(9)]
    world.archive(2, many[2:])
    drill = [world.upload(f"{DRILL_PREFIX}a", version_id=f"v{number}") for number in range(5)]
    counts = world.reconcile()
    assert counts == {Outcome.RECONCILED: 10, Outcome.MISSING: 2, Outcome.ARCHIVE_RECONCILED: 2}
    assert len(drill) > 3, "very many, and ignored all the same"


def test_a_null_version_that_was_overwritten_is_gone_and_its_successor_missing(world: ReconcileWorld) -> None:
    first = world.upload("n", b"one", version_id="null")
    world.archive(2, [first])
    world.delete(first)
    world.upload("n", b"two", version_id="null")
    counts = world.reconcile()
    assert (counts[Outcome.SOURCE_GONE], counts[Outcome.MISSING]) == (1, 1)


# Archives


def found(world: ReconcileWorld) -> list[Outcome]:
    world.reconcile()
    return [outcome for outcome, _, _ in world.findings()]


def test_an_object_that_is_gone_is_found(world: ReconcileWorld) -> None:
    del world.store.stated["archives/0000000001.tar"]
    assert found(world) == [Outcome.OBJECT_MISSING]


@pytest.mark.parametrize(
    "changed",
    [{"size_bytes": 1}, {"storage_class": "STANDARD"}, {"version_id": "other"}, {"checksums": {"SHA256": "AAAA"}}],
)
def test_an_object_that_is_not_as_its_row_states_is_found(world: ReconcileWorld, changed: dict[str, Any]) -> None:
    world.change_object(1, **changed)
    assert found(world) == [Outcome.OBJECT_MISMATCHING]


def test_a_lost_checksum_is_found(world: ReconcileWorld) -> None:
    """An object that was put anew by something else than neve has none."""
    world.change_object(1, checksums={})
    assert found(world) == [Outcome.OBJECT_MISMATCHING]


def test_a_large_object_is_known_by_its_crc(world: ReconcileWorld) -> None:
    manifest = world.store.manifests[1]
    source = replace(manifest.members[0].source, checksums={"CRC64NVME": "AAAAAAAAAAA="}, sha256="", md5="")
    from neve.domain.manifest import single  # noqa: PLC0415

    large = single(archive=1, bucket=manifest.bucket, object_key=manifest.object_key, source=source)
    world.store.manifests[1] = large
    world.change_row(1, kind="object", sha256="", size_bytes=source.size_bytes, files=1)
    world.change_object(1, size_bytes=source.size_bytes, checksums={"CRC64NVME": "AAAAAAAAAAA="})
    row = world.files.rows["a", "v1"]
    world.files.rows.clear()
    world.files.rows["a", "v1"] = replace(row, offset_bytes=0, sha256="", md5="")
    world.listing.listed = world.listing.listed[:1]
    assert found(world) == []
    world.change_object(1, checksums={"CRC64NVME": "AAAAAAAAAAE="})
    world.passes.rows.clear()
    world.passes.parts.clear()
    assert found(world) == [Outcome.MANIFEST_MISMATCHING]


def test_a_missing_or_unreadable_manifest_is_found(world: ReconcileWorld) -> None:
    world.archive(2, [world.upload("d")])
    world.archive(3, [world.upload("e")])
    del world.store.manifests[1]
    world.store.unreadable.add(2)
    world.change_row(3, files=2)
    assert found(world) == [Outcome.MANIFEST_MISSING, Outcome.MANIFEST_MISMATCHING, Outcome.MANIFEST_MISMATCHING]


def test_a_missing_row_of_a_sound_archive_is_restored(world: ReconcileWorld) -> None:
    before = dict(world.files.rows)
    for version in list(world.listing.listed):
        world.delete(version)
    del world.files.rows["a", "v1"]
    counts = world.reconcile()
    assert counts[Outcome.ROW_RESTORED] == 1
    assert world.files.rows == before
    assert world.findings() == [(Outcome.ROW_RESTORED, 1, "a")]


def test_a_missing_row_of_a_damaged_archive_stays_missing(world: ReconcileWorld) -> None:
    world.change_object(1, size_bytes=1)
    del world.files.rows["a", "v1"]
    world.delete(world.listing.listed[0])
    assert found(world) == [Outcome.OBJECT_MISMATCHING, Outcome.ROW_MISSING]
    assert ("a", "v1") not in world.files.rows


def test_a_row_that_another_wrote_meanwhile_is_its_duplicate(world: ReconcileWorld) -> None:
    row = world.files.rows.pop(("a", "v1"))
    world.delete(world.listing.listed[0])
    record = world.files.record

    def late(rows: Any) -> Any:
        world.files.rows["a", "v1"] = replace(row, archive=2)
        return record(rows)

    world.files.record = late  # type: ignore[method-assign]
    counts = world.reconcile()
    assert (counts[Outcome.DUPLICATE], counts[Outcome.ROW_RESTORED]) == (1, 0)


def test_a_member_that_another_archive_holds_is_a_duplicate(world: ReconcileWorld) -> None:
    world.archive(2, world.listing.listed[:2])
    counts = world.reconcile()
    assert counts == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 2, Outcome.DUPLICATE: 2}


@pytest.mark.parametrize(
    "changed", [{"number": 9}, {"offset_bytes": 9}, {"sha256": "00"}, {"last_modified": START}, {"md5": ""}]
)
def test_a_row_that_contradicts_its_manifest_is_wrong(world: ReconcileWorld, changed: dict[str, Any]) -> None:
    world.files.rows["a", "v1"] = replace(world.files.rows["a", "v1"], **changed)
    assert found(world) == [Outcome.INDEX_WRONG]


def test_only_what_seems_wrong_is_read_at_the_full_price_and_what_was_written_a_moment_ago_is_right(
    world: ReconcileWorld,
) -> None:
    class Lagging(MemoryFiles):
        """Of one row an eventually consistent read does not know yet, another one is as it was."""

        def get(self, identities: Sequence[tuple[str, str]], *, consistent: bool = True) -> dict[Any, FileRow]:
            read.append((consistent, len(identities)))
            found = dict(super().get(identities))
            if not consistent:
                del found["a", "v1"]
                found["c", "v1"] = replace(found["c", "v1"], number=9)
            return found

    read: list[tuple[bool, int]] = []
    world.files = Lagging(rows=world.files.rows)
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1}
    assert read == [(False, 3), (True, 2)]


def test_a_superseded_archive_is_left_alone(world: ReconcileWorld) -> None:
    world.archive(2, world.listing.listed)
    world.files.rows = {each: replace(row, archive=2) for each, row in world.files.rows.items()}
    world.change_row(1, superseded_by=2)
    del world.store.stated["archives/0000000001.tar"]
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1, Outcome.SUPERSEDED: 1}


def test_rows_that_name_a_superseded_archive_move_to_the_one_that_stands_for_it(world: ReconcileWorld) -> None:
    restored = world.upload("elsewhere/a", b"a")  # out of archive 1, under another key
    world.files.rows[restored.identity] = replace(
        world.files.rows["a", "v1"], key=restored.key, pin=restored.pin, version_id=restored.version_id
    )
    world.archive(2, world.listing.listed[:3])
    world.archive(3, world.listing.listed[:3])
    world.change_row(1, superseded_by=2)
    world.change_row(2, superseded_by=3)
    lost = world.upload("lost", b"lost")
    world.files.rows[lost.identity] = replace(
        world.files.rows["a", "v1"], key="lost", sha256="00" * 32, md5="", size_bytes=4
    )
    counts = world.reconcile()
    assert (counts[Outcome.ROW_MOVED], counts[Outcome.LEFT_BEHIND]) == (4, 1)
    assert {key: row.archive for (key, _), row in world.files.rows.items()} == {
        "a": 3, "b/ü": 3, "c": 3, "elsewhere/a": 3, "lost": 1
    }  # fmt: skip
    moved, original = world.files.rows[restored.identity], world.files.rows["a", "v1"]
    assert (moved.number, moved.offset_bytes) == (original.number, original.offset_bytes)
    assert not world.alerts.published


@pytest.mark.parametrize("by", [1, 2])
def test_a_row_stays_if_what_stands_for_its_archive_has_no_row_or_is_the_archive_itself(
    world: ReconcileWorld, by: int
) -> None:
    world.archive(2, world.listing.listed[:1])
    del world.archives.rows[2]
    world.change_row(1, superseded_by=by)
    world.files.rows = {identity: replace(row, archive=1) for identity, row in world.files.rows.items()}
    world.reconcile()
    assert {row.archive for row in world.files.rows.values()} == {1}


def test_which_archives_there_are_is_read_once_however_many_steps_a_shard_takes(world: ReconcileWorld) -> None:
    asked: list[int] = []
    every = world.archives.all

    def counted(*, first: int = 1) -> Any:
        asked.append(first)
        return every(first=first)

    world.archives.all = counted  # type: ignore[assignment, method-assign]
    comparer, this = world.comparer, Pass(id="p", begun_at=START)
    place, steps, done = Place(), 0, False
    while not done:
        progress = comparer.advance(this, shards(this)[0], place, until=world.now)
        place, steps, done = progress.place, steps + 1, progress.done
    assert (steps, asked) == (4, [0])
    comparer.advance(replace(this, id="q"), shards(this)[0], Place(), until=world.now)
    assert asked == [0, 0], "another pass looks for itself"


def test_an_archive_that_is_being_finished_waits_and_one_that_never_was_is_found(world: ReconcileWorld) -> None:
    world.change_row(1, state=ArchiveState.WRITTEN, written_at=YOUNG)
    assert world.reconcile()[Outcome.WAITING] == 1
    world.change_row(1, state=ArchiveState.WRITTEN, written_at=OLD)
    world.passes.rows.clear()
    world.passes.parts.clear()
    assert found(world) == [Outcome.UNFINISHED]


def test_a_manifest_alone_is_what_a_void_bundle_left(world: ReconcileWorld) -> None:
    del world.archives.rows[1], world.store.stated["archives/0000000001.tar"]
    world.files.rows.clear()
    world.listing.listed.clear()
    assert world.reconcile() == {Outcome.VOID: 1}


def test_an_archive_without_a_row_that_nothing_needs_is_void(world: ReconcileWorld) -> None:
    world.archive(2, world.listing.listed)
    del world.archives.rows[2]
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1, Outcome.VOID: 1}


def test_an_archive_without_a_row_that_holds_what_no_other_does_is_found(world: ReconcileWorld) -> None:
    del world.archives.rows[1]
    counts = world.reconcile()
    assert counts == {Outcome.ORPHANED_ROW: 3, Outcome.ARCHIVE_WITHOUT_ROW: 1}
    assert "neve rebuild-index" in world.alerts.published[0]


@pytest.mark.parametrize("unreadable", [False, True])
def test_an_archive_with_neither_row_nor_manifest_is_found(world: ReconcileWorld, unreadable: bool) -> None:
    del world.archives.rows[1]
    if unreadable:
        world.store.unreadable.add(1)
    else:
        del world.store.manifests[1]
    world.reconcile()
    assert "--from-archives" in world.alerts.published[0]


def test_what_was_put_into_the_archive_bucket_a_moment_ago_waits_for_its_row(world: ReconcileWorld) -> None:
    world.objects = Dated(store=world.store, modified=OLD, young={1}, foreign=["archives/readme"])
    del world.archives.rows[1]
    world.files.rows.clear()
    world.listing.listed.clear()
    assert world.reconcile() == {Outcome.WAITING: 1}


def test_a_row_written_while_the_bucket_is_listed_counts(world: ReconcileWorld) -> None:
    rows = world.archives.all
    world.archives.all = lambda **named: (row for row in rows(**named) if named["first"] == 0)  # type: ignore[method-assign]
    assert world.reconcile() == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1}


def test_archives_are_looked_at_side_by_side(world: ReconcileWorld) -> None:
    world.threads = 3
    for serial in range(2, 6):
        world.archive(serial, [world.upload(f"d{serial}")])
    del world.store.manifests[4]
    counts = world.reconcile()
    assert (counts[Outcome.ARCHIVE_RECONCILED], counts[Outcome.MANIFEST_MISSING]) == (4, 1)


# Inventory


def test_an_inventory_stands_for_the_listing(world: ReconcileWorld) -> None:
    new, gone = world.upload("new"), world.upload("gone")
    denied = world.upload("denied")
    world.content.failures["denied"] = SourceDenied("no")
    world.inventory = MemoryInventory(files=[[*world.listing.listed[:2], None], list(world.listing.listed[2:])])
    world.delete(gone)
    world.listing.listed.clear()  # nobody looks there
    world.files.rows["a", "v1"] = replace(world.files.rows["a", "v1"], archive=77)
    world.archive(2, [world.upload("z")])
    del world.archives.rows[2]
    counts = world.reconcile()
    assert counts[Outcome.RECONCILED] == 2
    assert counts[Outcome.MISSING] == 2
    assert world.announced() == {new.identity, denied.identity}, "what is gone since the report need not be collected"
    assert counts[Outcome.ORPHANED_ROW] == 3, "those that are listed, and all by the index itself"


def test_an_inventory_that_cannot_be_used_refuses_the_pass_and_says_so(world: ReconcileWorld) -> None:
    world.inventory = MemoryInventory(refused="it lacks VersionId")
    this = world.run(START_MESSAGE)
    assert (this.state, this.refused, this.shards) == (PassState.FINISHED, "it lacks VersionId", 0)
    assert not this.clean
    assert "it lacks VersionId" in world.alerts.published[0]
    assert world.alerts.subjects == ["neve reconcile: could not begin"]


def test_a_file_of_the_inventory_that_breaks_off_is_told_of(world: ReconcileWorld) -> None:
    world.inventory = MemoryInventory(files=[list(world.listing.listed)], broken={0})
    counts = world.reconcile()
    assert counts == {Outcome.INVENTORY_UNUSABLE: 1, Outcome.ARCHIVE_RECONCILED: 1}


@pytest.mark.usefixtures("small")
def test_an_inventory_is_gone_through_in_steps(world: ReconcileWorld) -> None:
    world.tick, world.lasts = timedelta(minutes=1), timedelta(minutes=3)
    versions = [world.upload(f"k{number}", version_id=f"v{number}") for number in range(7)]
    world.archive(2, versions[:5])
    world.archive(3, [world.upload("k0", b"y", version_id=f"w{number}") for number in range(5)])
    world.inventory = MemoryInventory(files=[list(world.listing.listed)])
    assert world.reconcile("k1") == {
        Outcome.RECONCILED: 13,
        Outcome.MISSING: 2,
        Outcome.ARCHIVE_RECONCILED: 3,
    }


# Passes


def test_the_weekly_message_begins_a_pass_once_however_often_it_comes(world: ReconcileWorld) -> None:
    this = world.run(START_MESSAGE, START_MESSAGE)
    assert list(world.passes.rows) == [this.id] == ["20260901T120000-aaaaaa"]
    world.run(START_MESSAGE)
    assert this.counts == {Outcome.RECONCILED: 3, Outcome.ARCHIVE_RECONCILED: 1}


@pytest.mark.parametrize("again", [1, 2])
def test_every_shard_of_a_pass_has_its_message_those_of_archives_first(world: ReconcileWorld, again: int) -> None:
    world.reconciler.start(StartRequest(id="p", boundaries=("b", "c")))
    archives = render_shard(ShardRequest(of="p", number=3))
    assert world.queue.take() == [archives]
    for _ in range(again):  # who died between the end of the shard and the others' messages sends them then
        world.queue.take()
        world.handle(archives)
    assert world.queue.take() == [render_shard(ShardRequest(of="p", number=number)) for number in range(3)]


def test_rows_that_were_lost_come_back_before_their_files_are_collected_again(world: ReconcileWorld) -> None:
    world.files.rows.clear()
    assert world.reconcile("b") == {Outcome.ROW_RESTORED: 3, Outcome.RECONCILED: 3}
    assert not world.collect_queue.sent


def test_a_shard_of_archives_that_stands_still_holds_back_the_others_for_a_day(world: ReconcileWorld) -> None:
    world.reconciler.start(StartRequest(id="p"))
    content = render_shard(ShardRequest(of="p", number=0))
    world.handle(content)
    world.now += timedelta(hours=2)
    assert world.reconciler.sweep() == 1
    assert not world.passes.parts
    world.now += DAY
    world.queue.take()
    assert world.reconciler.sweep() == 2
    world.handle(content)
    assert world.passes.shard("p", 0).done


@pytest.mark.usefixtures("small")
def test_a_shard_goes_on_by_its_own_messages_and_every_count_is_reported_once(world: ReconcileWorld) -> None:
    world.tick = timedelta(seconds=50)
    world.archive(2, [world.upload(f"k{number}") for number in range(9)])
    world.reconciler.start(StartRequest(id="p"))
    reported: Counter[Outcome] = Counter()
    ended = []
    for number in range(100):
        if not world.queue.sent:
            break
        request = parse(world.queue.sent.pop(0)[0], scheduled="")
        assert isinstance(request, ShardRequest)
        until = world.now + timedelta(minutes=3)
        advanced = world.reconciler.go_on(request, owner=f"owner-{number}", until=until)
        assert not world.passes.shard("p", request.number).lease_owner, "whoever goes on need not wait"
        reported += Counter(advanced.counts)
        ended.append(advanced.finished)
    assert len(ended) > 5
    assert ended == [False] * (len(ended) - 1) + [True]
    assert reported == world.passes.rows["p"].counts == {Outcome.RECONCILED: 12, Outcome.ARCHIVE_RECONCILED: 2}


def test_a_shard_that_another_is_at_is_left_to_them(world: ReconcileWorld) -> None:
    world.reconciler.start(StartRequest(id="p"))
    row = world.passes.shard("p", 0)
    world.passes.swap(row, replace(row, lease_owner="other", leased_until=START + DAY))
    advanced = world.reconciler.go_on(ShardRequest(of="p", number=0), owner="me", until=START + DAY)
    assert not advanced.counts
    assert not advanced.done
    assert world.queue.take()[2:] == [], "no message follows"


def test_who_comes_second_to_the_lease_leaves(world: ReconcileWorld) -> None:
    world.reconciler.start(StartRequest(id="p"))
    swap = world.passes.swap
    world.passes.swap = lambda *_: None  # type: ignore[method-assign]
    assert not world.reconciler.go_on(ShardRequest(of="p", number=0), owner="me", until=START + DAY).counts
    world.passes.swap = swap  # type: ignore[method-assign]


def test_whose_lease_was_taken_over_counts_nothing(world: ReconcileWorld) -> None:
    """A process that sleeps through its lease wakes up and finds that another has recorded the same step."""
    begin(world)
    versions = world.listing.versions

    def slow(*place: str) -> Any:
        world.listing.versions = versions  # type: ignore[method-assign]
        world.now += DAY
        other = world.reconciler.go_on(ShardRequest(of="p", number=0), owner="other", until=world.now + DAY)
        assert other.done
        return versions(*place)

    world.listing.versions = slow  # type: ignore[assignment, method-assign]
    advanced = world.reconciler.go_on(ShardRequest(of="p", number=0), owner="me", until=world.now + DAY / 2)
    assert not advanced.counts
    assert world.passes.shard("p", 0).counts == {Outcome.RECONCILED: 3}


def test_an_error_gives_the_lease_back(world: ReconcileWorld) -> None:
    begin(world)

    def fail(*_: Any) -> Any:
        raise Transient("throttled")

    world.listing.versions = fail  # type: ignore[assignment, method-assign]
    with pytest.raises(Transient):
        world.reconciler.go_on(ShardRequest(of="p", number=0), owner="me", until=START + DAY)
    row = world.passes.shard("p", 0)
    assert (row.lease_owner, row.leased_until) == ("", None)


@pytest.mark.parametrize("request_", [ShardRequest(of="nope", number=0), ShardRequest(of="p", number=2)])
def test_a_message_for_a_shard_that_does_not_exist_is_refused(world: ReconcileWorld, request_: ShardRequest) -> None:
    world.reconciler.start(StartRequest(id="p"))
    with pytest.raises(EventInvalid):
        world.reconciler.go_on(request_, owner="me", until=START + DAY)


def test_the_sweep_sends_again_what_stands_still_and_only_that(world: ReconcileWorld) -> None:
    begin(world, "b", "c", "d")
    world.queue.take()
    world.handle(render_shard(ShardRequest(of="p", number=1)))
    row = world.passes.shard("p", 2)
    world.passes.swap(row, replace(row, lease_owner="x", leased_until=world.now + DAY, changed_at=world.now))
    assert world.reconciler.sweep() == 0, "a pass that was begun a moment ago is not due"
    world.now += timedelta(minutes=20)
    assert world.reconciler.sweep() == 2
    assert [parse(body, scheduled="") for body in world.queue.take()] == [
        ShardRequest(of="p", number=0),
        ShardRequest(of="p", number=3),
    ]
    world.now += timedelta(minutes=20)
    assert world.reconciler.sweep() == 0, "their messages may still wait in the queue"
    world.now += DAY
    assert world.reconciler.sweep() == 3


def test_a_shard_that_moved_within_the_hour_is_not_sent_again(world: ReconcileWorld) -> None:
    world.reconciler.start(StartRequest(id="p"))
    world.queue.take()
    world.now += timedelta(hours=2)
    for number in (0, 1):
        row = world.passes.shard("p", number)
        world.passes.swap(row, replace(row, changed_at=world.now - PATIENCE / 2))
    assert world.reconciler.sweep() == 0


def test_a_pass_that_never_ends_is_told_of_as_it_stands(world: ReconcileWorld) -> None:
    world.upload("new")
    begin(world, "b")
    world.handle(render_shard(ShardRequest(of="p", number=1)))
    world.now += 8 * DAY
    world.handle(SWEEP)
    this = world.passes.rows["p"]
    assert (this.state, this.done_shards, this.clean) == (PassState.FINISHED, 2, False)
    assert world.alerts.subjects == ["neve reconcile: did not end, 1 missing"]
    assert "2 of 3 shards done" in world.alerts.published[0]
    world.handle(render_shard(ShardRequest(of="p", number=0)))
    assert world.passes.rows["p"].done_shards == 2, "what comes after the end does nothing"


def test_a_pass_without_findings_that_never_ends_is_told_of_too(world: ReconcileWorld) -> None:
    world.reconciler.start(StartRequest(id="p"))
    world.now += 8 * DAY
    world.handle(SWEEP)
    assert world.alerts.subjects == ["neve reconcile: did not end"]


def test_an_end_that_was_not_told_is_told_by_the_sweep(world: ReconcileWorld) -> None:
    world.upload("new")
    publish = world.alerts.publish

    def fail(*_: Any, **__: Any) -> None:
        world.alerts.publish = publish  # type: ignore[method-assign]
        raise Transient("throttled")

    world.alerts.publish = fail  # type: ignore[method-assign]
    with pytest.raises(Transient):
        world.reconcile()
    assert world.passes.rows["p1"].state is PassState.FINISHED
    world.now += timedelta(minutes=20)
    world.handle(SWEEP)
    assert len(world.alerts.published) == 1
    assert not world.passes.due_at


def test_a_step_ends_in_time_for_its_record(world: ReconcileWorld) -> None:
    world.tick = timedelta(0)
    seen: list[timedelta] = []
    reconciler = world.reconciler
    advance = reconciler.comparer.advance

    class Spy:
        def advance(self, *args: Any, until: Any) -> Progress:
            seen.append(until - world.now)
            return advance(*args, until=until)

    until = world.now + timedelta(minutes=3)
    replace(reconciler, comparer=Spy()).start(StartRequest(id="p"))  # type: ignore[arg-type]
    replace(reconciler, comparer=Spy()).go_on(ShardRequest(of="p", number=1), owner="me", until=until)  # type: ignore[arg-type]
    until = world.now + timedelta(seconds=20)
    replace(reconciler, comparer=Spy()).go_on(ShardRequest(of="p", number=0), owner="me", until=until)  # type: ignore[arg-type]
    assert seen == [min(STEP, timedelta(minutes=3) - MARGIN), timedelta(seconds=15)]


# Whatever happens


VERSIONS = (
    "fine",
    "missing",
    "young",
    "parked",
    "gone",
    "young gone",
    "size",
    "md5",
    "kms",
    "orphaned",
    "wrong",
    "twice",
)
ARCHIVES = (
    "fine",
    "no object",
    "object differs",
    "no manifest",
    "manifest unreadable",
    "superseded",
    "young",
    "no row",
    "void",
)
WITHOUT_ROW = ("missing", "young", "parked")
KEYS = ("a", "a/b", "ü", LONG, LONG + "y")


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    versions = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VERSIONS)), max_size=18))
    archives = draw(st.lists(st.sampled_from(ARCHIVES), min_size=1, max_size=8))
    return {
        "versions": [(key, kind, draw(st.integers(0, len(archives) - 1))) for key, kind in versions],
        "archives": archives,
        "boundaries": draw(st.sets(st.sampled_from(KEYS), max_size=3)),
        "tick": draw(st.sampled_from([1, 20, 50])),
        "lasts": draw(st.sampled_from([2, 5, 30])),
        "kills": draw(st.sets(st.integers(2, 400), max_size=6)),
        "lost": draw(st.booleans()),
        "threads": draw(st.sampled_from([1, 2])),
    }


@dataclass
class Arranged:
    """A world with everything wrong that a scenario names, and what has to come out of it."""

    world: ReconcileWorld
    scenario: dict[str, Any]
    expected: Counter[Outcome] = field(default_factory=Counter)
    missing: set[tuple[str, str]] = field(default_factory=set)
    every: list[tuple[ObjectVersion, str]] = field(default_factory=list)
    members: dict[int, list[tuple[ObjectVersion, str]]] = field(default_factory=dict)
    orphans: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for number, (key, kind, place) in enumerate(self.scenario["versions"]):
            made = YOUNG if kind in ("young", "young gone") else OLD
            body = f"{key[:5]}{number}".encode()
            version = self.world.upload(key, body, version_id=f"v{number:02}", made=made)
            self.every.append((version, kind))
            if kind not in WITHOUT_ROW:
                self.members.setdefault(place + 1, []).append((version, kind))
        self.other = len(self.scenario["archives"]) + 1
        self._put_away(self.other, "twin")
        self.expected[Outcome.ARCHIVE_RECONCILED] += 1
        for serial, state in enumerate(self.scenario["archives"], start=1):
            self._put_away(serial, f"filler{serial}")
            self._spoil(serial, state)
        for version, kind in self.every:
            self._judge(version, kind)
        self.expected = +self.expected

    def _put_away(self, serial: int, filler: str) -> None:
        """No archive is empty."""
        added = (self.world.upload(filler, b"f"), "fine")
        self.every.append(added)
        inside = [*self.members.pop(serial, []), added]
        self.members[serial] = inside
        self.world.archive(serial, [version for version, _ in inside])

    def _move(self, version: ObjectVersion, **changed: Any) -> None:
        self.world.files.rows[version.identity] = replace(self.world.files.rows[version.identity], **changed)

    def _spoil(self, serial: int, state: str) -> None:
        world, kinds = self.world, Counter(kind for _, kind in self.members[serial])
        for version, kind in self.members[serial]:
            if kind == "orphaned":
                self._move(version, archive=999)
                self.orphans.add(version.identity)
            elif kind == "wrong":
                self._move(version, number=77)
            elif kind == "twice" or state == "void":
                self._move(version, archive=self.other)
        if state in ("void", "no row"):
            del world.archives.rows[serial]
            still = {v.identity for v, _ in self.members[serial] if world.files.rows[v.identity].archive == serial}
            self.orphans |= still
            needed = still or kinds["orphaned"]
            self.expected[Outcome.ARCHIVE_WITHOUT_ROW if needed else Outcome.VOID] += 1
        elif state == "superseded":
            world.change_row(serial, superseded_by=self.other)
            self.expected[Outcome.SUPERSEDED] += 1
        elif state == "young":
            world.change_row(serial, state=ArchiveState.WRITTEN, written_at=YOUNG)
            self.expected[Outcome.WAITING] += 1
        else:
            outcome = self._damage(serial, state)
            readable = state not in ("no manifest", "manifest unreadable")
            if outcome:
                self.expected[outcome] += 1
            elif not kinds["wrong"]:
                self.expected[Outcome.ARCHIVE_RECONCILED] += 1
            self.expected[Outcome.INDEX_WRONG] += kinds["wrong"] if readable else 0
            self.expected[Outcome.DUPLICATE] += kinds["twice"] if readable else 0

    def _damage(self, serial: int, state: str) -> Outcome | None:
        store = self.world.store
        if state == "no object":
            del store.stated[self.world.archives.rows[serial].object_key]
            return Outcome.OBJECT_MISSING
        if state == "object differs":
            self.world.change_object(serial, storage_class="STANDARD")
            return Outcome.OBJECT_MISMATCHING
        if state == "no manifest":
            del store.manifests[serial]
            return Outcome.MANIFEST_MISSING
        if state == "manifest unreadable":
            store.unreadable.add(serial)
            return Outcome.MANIFEST_MISMATCHING
        return None

    def _judge(self, version: ObjectVersion, kind: str) -> None:
        """What has to become of a version, once all archives are as they are."""
        world = self.world
        if kind in ("gone", "young gone"):
            world.delete(version)
            # Of keys that are cut, or have very many versions or rows, only what is listed is looked at.
            listed = sum(each.key == version.key and its not in ("gone", "young gone") for each, its in self.every)
            indexed = sum(key == version.key for key, _ in world.files.rows)
            if is_cut(version.key) or max(listed, indexed) > 3:
                return
            if version.identity in self.orphans:
                self.expected[Outcome.ORPHANED_ROW] += 1
            elif kind == "gone":
                self.expected[Outcome.SOURCE_GONE] += 1
        elif version.identity in self.orphans:
            self.expected[Outcome.ORPHANED_ROW] += 1
        elif kind == "missing":
            self.expected[Outcome.MISSING] += 1
            self.missing.add(version.identity)
        elif kind == "parked":
            world.parking_lot.park(Parked(reason=Reason.SOURCE_GONE, detail="", parked_at=OLD, version=version))
            self.expected[Outcome.PARKED] += 1
        elif kind in ("size", "md5", "kms"):
            self._misstate(version, kind)
            self.expected[Outcome.RECONCILED if kind == "kms" else Outcome.MISMATCHING] += 1
        else:
            self.expected[Outcome.WAITING if kind == "young" else Outcome.RECONCILED] += 1

    def _misstate(self, version: ObjectVersion, kind: str) -> None:
        changed = {"size_bytes": version.size_bytes + 1} if kind == "size" else {"etag": "0" * 32}
        listed = self.world.listing.listed
        listed[listed.index(version)] = replace(version, **changed)
        source, body = self.world.content.objects[version.identity]
        encryption = "aws:kms" if kind == "kms" else "AES256"
        self.world.content.objects[version.identity] = (replace(source, etag="0" * 32, encryption=encryption), body)


@pytest.mark.usefixtures("small")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scenarios())
def test_what_is_found_is_what_is_wrong_whatever_ends_the_steps_and_whoever_dies(scenario: dict[str, Any]) -> None:
    world = ReconcileWorld(
        tick=timedelta(seconds=scenario["tick"]),
        lasts=timedelta(minutes=scenario["lasts"]),
        threads=scenario["threads"],
    )
    arranged = Arranged(world, scenario)
    request = StartRequest(id="p1", boundaries=in_order(scenario["boundaries"]))
    if scenario["lost"]:  # every message: the sweep sends them again
        world.reconciler.start(request)
        world.queue.take()
    world.deadly = Deadly(at=scenario["kills"])
    this = world.run() if scenario["lost"] else world.run(render_start(request))
    rows_of_superseded = {Outcome.ROW_MOVED, Outcome.LEFT_BEHIND}  # a death after a row moved leaves it uncounted
    assert {each: count for each, count in this.counts.items() if each not in rows_of_superseded} == arranged.expected
    assert world.announced() == arranged.missing
    found = {outcome for outcome in arranged.expected if outcome in PROBLEMS}
    assert {outcome for outcome, _, _ in world.findings()} == found
    assert bool(world.alerts.published) == bool(found)
    assert len(world.alerts.published) <= 1 or scenario["kills"], "told twice only if it died right after the telling"


@pytest.mark.usefixtures("small")
def test_dying_between_any_two_calls_counts_nothing_twice_and_leaves_nothing_out() -> None:
    def live(kill: int) -> tuple[ReconcileWorld, Counter[Outcome]]:
        world = ReconcileWorld(tick=timedelta(seconds=25), deadly=Deadly(at={kill}))
        world.archive(1, [world.upload(f"k{number}") for number in range(4)])
        world.archive(2, [world.upload("many", version_id=f"v{number}") for number in range(6)])
        world.upload("missing")
        world.change_object(2, size_bytes=1)
        return world, world.reconcile("k2")

    world, expected = live(0)
    assert expected == {
        Outcome.RECONCILED: 10,
        Outcome.MISSING: 1,
        Outcome.ARCHIVE_RECONCILED: 1,
        Outcome.OBJECT_MISMATCHING: 1,
    }
    assert world.deadly.calls > 50
    for number in range(2, 2 * world.deadly.calls + 2):
        other, counts = live(number)
        assert counts == expected, f"killed at {number / 2}"
        assert 1 <= len(other.alerts.published) <= 2, "told, and twice only if it died between telling and noting that"
        assert other.announced() == {("missing", "v1")}


# Plain values


def test_the_shards_of_a_pass_cover_everything_once() -> None:
    this = Pass(id="p", begun_at=START, boundaries=("b", "m"), serials=20_001)
    made = shards(this)
    assert [shard.number for shard in made] == list(range(6))
    assert [(shard.after, shard.until) for shard in made[:3]] == [("", "b"), ("b", "m"), ("m", "")]
    assert [(shard.first, shard.last) for shard in made[3:]] == [(1, 10_000), (10_001, 20_000), (20_001, 0)]
    with_inventory = shards(replace(this, inventory="m", inventory_files=2, boundaries=(), serials=0))
    assert [shard.kind for shard in with_inventory] == [
        ShardKind.INDEX,
        ShardKind.INVENTORY,
        ShardKind.INVENTORY,
        ShardKind.ARCHIVES,
    ]


@pytest.mark.parametrize(
    "boundaries", [["", "a"], ["x" * 1025], ["\ud800"], [f"{number:0900}" for number in range(200)]]
)
def test_boundaries_that_are_no_keys_or_too_many_are_refused(boundaries: list[str]) -> None:
    with pytest.raises(ValueError, match=r"bound|surrogate"):
        in_order(boundaries)


def test_boundaries_sort_as_utf_8_does() -> None:
    keys = ["z", "\U0001f600", "\uffff", "a", "a"]
    assert in_order(keys) == tuple(sorted(set(keys), key=str.encode))


@pytest.mark.parametrize(
    "request_", [StartRequest(id="p-1", boundaries=("a", "b\n")), ShardRequest(of="p-1", number=7)]
)
def test_messages_come_back_as_they_were_sent(request_: StartRequest | ShardRequest) -> None:
    body = render_start(request_) if isinstance(request_, StartRequest) else render_shard(request_)
    assert parse(body, scheduled="s") == request_


def test_the_schedules_words_are_understood() -> None:
    assert parse(START_MESSAGE, scheduled="s") == StartRequest(id="s")
    assert isinstance(parse(SWEEP, scheduled="s"), Sweep)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"message": "audit"}',
        '{"format": "neve-reconcile", "version": 2}',
        '{"format": "neve-reconcile", "version": 1, "pass": "a b", "boundaries": []}',
        '{"format": "neve-reconcile", "version": 1, "pass": "a", "boundaries": [""]}',
        '{"format": "neve-reconcile", "version": 1, "pass": "a", "boundaries": [1]}',
        '{"format": "neve-reconcile-shard", "version": 1, "pass": "a"}',
        '{"format": "neve-reconcile-shard", "version": 1, "pass": "a", "shard": -1}',
        '{"format": "neve-reconcile-shard", "version": 1, "pass": "", "shard": 1}',
    ],
)
def test_other_messages_are_refused(body: str) -> None:
    with pytest.raises(EventInvalid):
        parse(body, scheduled="s")


def test_every_problem_has_a_remedy_and_nothing_else_has() -> None:
    assert set(REMEDIES) == PROBLEMS


def test_findings_are_counted_all_and_kept_up_to_a_number() -> None:
    tally = Tally()
    for number in range(EXAMPLES + 5):
        tally.found(Finding(outcome=Outcome.MISSING, key=f"k{number}", detail="d" * 1000))
    progress = tally.progress(Place(key="x"), done=False)
    row = ShardRow(of="p", number=0).after(progress).after(progress)
    assert row.counts == {Outcome.MISSING: 2 * (EXAMPLES + 5)}
    assert len(row.findings) == EXAMPLES
    assert len(row.findings[0].detail) == 300


def test_a_mail_is_one_text_with_counts_examples_and_what_to_do() -> None:
    counts = {Outcome.RECONCILED: 5, Outcome.MISSING: 1_000, Outcome.OBJECT_MISSING: 1}
    this = Pass(id="p", begun_at=START, state=PassState.FINISHED, done_shards=2, counts=counts)
    findings = [
        Finding(outcome=Outcome.MISSING, key="a\nb\u202e", pin="v", detail="made then"),
        Finding(outcome=Outcome.OBJECT_MISSING, archive=7),
    ]
    text = mail(this, findings)
    assert "missing: 1,000. Next:" in text
    assert "and 999 more" in text
    assert r"'a\nb\u202e' version 'v': made then" in text
    assert "  archive 7\n" in text
    assert text.endswith("neve reconcile show p")
    assert subject(this) == "neve reconcile: 1000 missing, 1 object missing"
    assert told(Finding(outcome=Outcome.MISSING, key="k", detail="")) == "'k'"


def test_a_mail_is_never_longer_than_sns_takes() -> None:
    hostile = Finding(outcome=Outcome.MISSING, archive=1, key="\x01" * 1024, pin="v" * 32, detail="ü" * 300)
    findings = [replace(hostile, outcome=outcome) for outcome in PROBLEMS for _ in range(EXAMPLES)]
    counts = dict.fromkeys(PROBLEMS, EXAMPLES)
    text = mail(Pass(id="p", begun_at=START, done_shards=2, counts=counts), findings)
    assert len(text.encode()) < 256 * 1024
    assert text.count("and 17 more") == len(PROBLEMS)


def test_a_summary_is_complete_in_json() -> None:
    this = Pass(id="p", begun_at=START, state=PassState.FINISHED, finished_at=START, done_shards=2)
    assert json.loads(json.dumps(summary(this)))["clean"] is True
    assert summary(replace(this, state=PassState.RUNNING, finished_at=None))["clean"] is None
    assert domain.finding_fields(Finding(outcome=Outcome.MISSING))["remedy"] == REMEDIES[Outcome.MISSING]


def test_a_pass_of_the_schedule_is_named_by_its_message() -> None:
    assert domain.pass_id(START, "01234567-89ab") == "20260901T120000-012345"

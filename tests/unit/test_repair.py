"""Repairs on ports in memory: a superseding bundle takes each member from wherever it is intact, and its row along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from neve.domain.bundle import Bundle, BundleState, Limits, requested_bundle, write_request
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.large import Range
from neve.domain.manifest import Manifest
from neve.domain.outcome import Outcome, Written
from neve.domain.parked import Reason
from neve.domain.tar import Rope
from neve.domain.version import ObjectVersion
from neve.errors import (
    ArchiveUnreadable,
    Asleep,
    ManifestInvalid,
    NeveError,
    SourceDenied,
    SourceGone,
    Transient,
)
from neve.flows.contents import contents_of, manifest_of
from neve.flows.repair import WRITTEN_WITHIN, Repairer
from neve.flows.rescue import READS
from neve.flows.write_archive import FORBEARANCE, PATIENCE
from neve.ports import ArchiveReader
from tests.interleave import Steps, explored
from tests.memory import MemoryArchiveStore, MemoryCloud, MemoryFiles
from tests.memory_s3 import MemoryGlacier, MemoryReader

RUN = "20260901-120000-abcd"
LIMITS = Limits(target_bytes=10_000, max_members=100, max_age_s=20)
AGES = timedelta(days=400)


@pytest.fixture
def cloud() -> MemoryCloud:
    return made()


def made(**ports: Any) -> MemoryCloud:
    cloud = MemoryCloud(limits=LIMITS, **ports)
    glacier = MemoryGlacier(clock=lambda: cloud.now)
    cloud.reader = MemoryReader(store=cloud.store, glacier=glacier)
    return cloud


def thaw(cloud: MemoryCloud, serial: int) -> None:
    cloud.reader.glacier.warm_until[serial] = cloud.now + AGES


def repairer(cloud: MemoryCloud) -> Repairer:
    return Repairer(bundles=cloud.bundles, bundles_queue=cloud.bundles_queue, large_queue=cloud.large_queue)


def archive(cloud: MemoryCloud, versions: Sequence[ObjectVersion]) -> ArchiveRow:
    """The archive that holds `versions`, and is thawed."""
    before = set(cloud.archives.rows)
    cloud.collect(versions)
    cloud.drain()
    [serial] = set(cloud.archives.rows) - before
    thaw(cloud, serial)
    row = cloud.archives.rows[serial]
    assert isinstance(row, ArchiveRow)
    return row


def archived(cloud: MemoryCloud, *sizes: int) -> ArchiveRow:
    """The archive of files of these sizes."""
    return archive(cloud, [cloud.version(f"file-{number}", size) for number, size in enumerate(sizes)])


def order(cloud: MemoryCloud, superseded: ArchiveRow, versions: Sequence[ObjectVersion], *, run: str = RUN) -> Bundle:
    """A repair whose message has been taken off its queue."""
    ordered = repairer(cloud).order(superseded, versions, run=run, now=cloud.now)
    cloud.bundles_queue.take()
    cloud.large_queue.take()
    return ordered


def repair(cloud: MemoryCloud, superseded: ArchiveRow, versions: Sequence[ObjectVersion], *, run: str = RUN) -> Written:
    """Order a repair and have it written."""
    bundle = order(cloud, superseded, versions, run=run)
    return cloud.copy(bundle.id) if superseded.kind == "object" else cloud.write(bundle.id)


def flip(body: bytes, place: int) -> bytes:
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def damage_archive(cloud: MemoryCloud, *versions: ObjectVersion, serial: int = 1) -> None:
    """Flip a bit of each version in an archive that holds it."""
    for member in cloud.store.manifests[serial].members:
        if member.source.identity in {version.identity for version in versions}:
            key = cloud.store.manifests[serial].object_key
            cloud.store.objects[key] = flip(cloud.store.objects[key], member.offset_bytes)


def damage_source(cloud: MemoryCloud, *versions: ObjectVersion) -> None:
    """Flip a bit of each version in the content bucket, as S3 would hand it out without a word."""
    for version in versions:
        source, body = cloud.content.objects[version.identity]
        sha256 = hashlib.sha256(flip(body, 0)).hexdigest()
        cloud.content.objects[version.identity] = (replace(source, sha256=sha256), flip(body, 0))


def delete_source(cloud: MemoryCloud, *versions: ObjectVersion) -> None:
    for version in versions:
        del cloud.content.objects[version.identity]


def body_of(cloud: MemoryCloud, version: ObjectVersion) -> bytes:
    """The bytes that the index leads to, through a manifest that agrees."""
    row = cloud.files.rows[version.identity]
    manifest = cloud.store.manifests[row.archive]
    member = manifest.members[row.number]
    assert member.source.identity == version.identity
    assert (row.offset_bytes, row.sha256) == (member.offset_bytes, member.source.sha256)
    body = cloud.store.objects[manifest.object_key][row.offset_bytes : row.offset_bytes + row.size_bytes]
    assert hashlib.sha256(body).hexdigest() == row.sha256
    return bytes(body)


def original(version: ObjectVersion) -> bytes:
    """As MemoryCloud.version makes it."""
    key = version.key.encode()
    return (key * (version.size_bytes // len(key) + 1))[: version.size_bytes]


def holders(cloud: MemoryCloud, *versions: ObjectVersion) -> list[int]:
    return [cloud.files.rows[version.identity].archive for version in versions]


def parked(cloud: MemoryCloud) -> list[tuple[Reason, str]]:
    return sorted((item.reason, item.version.key if item.version else "") for item in cloud.parking_lot.items.values())


# Ordering


@pytest.mark.parametrize(("size", "queue"), [(100, "bundles_queue"), (20_000, "large_queue")])
def test_a_repair_is_a_sealed_bundle_and_its_message(cloud: MemoryCloud, size: int, queue: str) -> None:
    archive = archived(cloud, size)
    version = cloud.version("file-0", size)
    ordered = repairer(cloud).order(archive, [version], run=RUN, now=cloud.now)
    assert (ordered.id, ordered.state, ordered.supersedes) == ("repair-1-0", BundleState.SEALED, 1)
    assert (ordered.kind, ordered.count, ordered.size_bytes) == (archive.kind, 1, size)
    assert cloud.bundles.rows[ordered.id] == ordered
    assert cloud.bundles.parts(ordered.id) == [version]
    assert [requested_bundle(body) for body in getattr(cloud, queue).take()] == [ordered.id]
    assert not cloud.bundles_queue.sent + cloud.large_queue.sent


def test_a_repair_that_is_ordered_again_keeps_its_versions_and_is_sent_its_message_until_it_is_finished(
    cloud: MemoryCloud,
) -> None:
    archive = archived(cloud, 100, 100)
    versions = [cloud.version("file-0"), cloud.version("file-1")]
    first = repairer(cloud).order(archive, versions, run=RUN, now=cloud.now)
    assert repairer(cloud).order(archive, versions[:1], run=RUN, now=cloud.now) == first
    assert cloud.bundles.parts(first.id) == versions
    assert len(cloud.bundles_queue.take()) == 2
    cloud.bundles.rows[first.id] = replace(first, state=BundleState.ARCHIVED)
    assert repairer(cloud).order(archive, versions, run=RUN, now=cloud.now).state is BundleState.ARCHIVED
    assert not cloud.bundles_queue.sent


def test_runs_that_find_the_same_damage_share_a_repair_until_an_archive_stands_for_it(cloud: MemoryCloud) -> None:
    archive = archived(cloud, 100)
    repaired = replace(archive, superseded_by=7)
    for each, run in ((archive, "a"), (archive, "b"), (repaired, "c")):
        repairer(cloud).order(each, [cloud.version("file-0")], run=run, now=cloud.now)
    ordered = [requested_bundle(body) for body in cloud.bundles_queue.take()]
    assert ordered == ["repair-1-0", "repair-1-0", "repair-1-7"]


def test_a_repair_that_could_save_nothing_is_tried_again_by_a_later_run(cloud: MemoryCloud) -> None:
    archive, versions = archived(cloud, 100), [cloud.version("file-0")]
    first = repairer(cloud).order(archive, versions, run="a", now=cloud.now)
    cloud.bundles.rows[first.id] = replace(first, state=BundleState.VOID)
    again = [repairer(cloud).order(archive, versions, run=run, now=cloud.now).id for run in ("b", "b", "c")]
    assert again == ["repair-1-0-b", "repair-1-0-b", "repair-1-0-c"]


@pytest.mark.parametrize(("size", "queue"), [(100, "bundles_queue"), (20_000, "large_queue")])
def test_the_sweep_reminds_of_a_repair_whose_message_was_lost(cloud: MemoryCloud, size: int, queue: str) -> None:
    archive = archived(cloud, size)
    ordered = repairer(cloud).order(archive, [cloud.version("file-0", size)], run=RUN, now=cloud.now)
    getattr(cloud, queue).take()
    sweeper = cloud.sweeper
    assert sweeper.sweep(cloud.now) == 0
    assert sweeper.sweep(ordered.due_at.replace(year=2027)) == 1
    assert [requested_bundle(body) for body in getattr(cloud, queue).take()] == [ordered.id]


# Where members come from


def test_members_whose_sources_are_intact_are_archived_anew_and_their_rows_moved(cloud: MemoryCloud) -> None:
    versions = cloud.versions(4)
    superseded = archive(cloud, versions)
    damage_archive(cloud, *versions)
    written = repair(cloud, superseded, versions)
    assert (written.outcome, written.serial, written.files, written.duplicates) == (Outcome.ARCHIVED, 2, 4, 0)
    assert (written.supersedes, written.oldest_at) == (1, None), "it says nothing of how far behind archiving is"
    assert holders(cloud, *versions) == [2, 2, 2, 2]
    assert [body_of(cloud, version) for version in versions] == [original(version) for version in versions]
    assert cloud.archives.rows[1] == replace(superseded, superseded_by=2), "it is kept, and marked"
    assert cloud.archives.rows[2].superseded_by == 0
    thaw(cloud, 2)
    assert cloud.store.manifests[2].supersedes == contents_of(cloud.reader, cloud.archives.rows[2]).supersedes == 1
    assert not cloud.parking_lot.items
    assert not cloud.collect_queue.sent


def test_members_whose_sources_are_gone_come_from_the_damaged_archive_with_all_that_was_said_of_them(
    cloud: MemoryCloud,
) -> None:
    stated: dict[str, Any] = {"content_type": "text/plain", "user_metadata": {"a": "b"}, "tags": {"c": "d"}}
    versions = [cloud.version(key, **stated) for key in ("gone", "damaged", "whole")]
    gone, damaged, whole = versions
    superseded = archive(cloud, versions)
    damage_archive(cloud, whole)
    delete_source(cloud, gone)
    damage_source(cloud, damaged)
    assert repair(cloud, superseded, versions).files == 3
    assert [body_of(cloud, version) for version in versions] == [original(version) for version in versions]
    before, after = (cloud.store.manifests[serial].members for serial in (1, 2))
    assert [member.source for member in after] == [member.source for member in before]
    assert not cloud.parking_lot.items


@pytest.mark.parametrize("manifest", ["stands", "gone"])
def test_a_member_that_only_another_archive_holds_intact_comes_from_there(cloud: MemoryCloud, manifest: str) -> None:
    version = cloud.version("file", content_type="text/plain")
    superseded = archive(cloud, [version])
    again = cloud.version("file", version_id="v2", content_type="text/html")
    archive(cloud, [again])
    damage_archive(cloud, version)
    delete_source(cloud, version, again)
    if manifest == "gone":
        del cloud.store.manifests[1]
        cloud.store.objects["archives/0000000001.tar"] = b"damaged" * 1_000
    assert repair(cloud, superseded, [version]).serial == 3
    assert body_of(cloud, version) == original(version)
    assert holders(cloud, version, again) == [3, 2]
    [member] = cloud.store.manifests[3].members
    assert member.source.content_type == ("text/plain" if manifest == "stands" else "text/html"), "what is known best"
    assert (member.source.etag, member.source.last_modified) == (version.etag, version.event_at)


def test_a_member_that_another_version_in_the_content_bucket_equals_comes_from_there_without_a_thaw(
    cloud: MemoryCloud,
) -> None:
    version = cloud.version("file", content_type="text/plain")
    superseded = archive(cloud, [version])
    again = cloud.version("file", version_id="null", content_type="text/html")
    archive(cloud, [again])
    cloud.reader.glacier.warm_until.pop(2)
    damage_archive(cloud, version)
    delete_source(cloud, version)
    assert repair(cloud, superseded, [version]).files == 1
    assert body_of(cloud, version) == original(version)
    assert cloud.store.manifests[3].members[0].source == cloud.store.manifests[1].members[0].source


def test_a_copy_in_an_archive_that_sleeps_is_waited_for(cloud: MemoryCloud) -> None:
    version = cloud.version("file")
    superseded = archive(cloud, [version])
    again = cloud.version("file", version_id="v2")
    archive(cloud, [again])
    cloud.reader.glacier.warm_until.pop(2)
    damage_archive(cloud, version)
    delete_source(cloud, version, again)
    bundle = order(cloud, superseded, [version])
    with pytest.raises(Transient, match=r"cannot be read now.*archives/0000000002.tar"):
        cloud.write(bundle.id)
    thaw(cloud, 2)
    assert cloud.write(bundle.id).files == 1
    assert body_of(cloud, version) == original(version)


def test_a_copy_in_an_archive_that_has_no_row_any_more_is_none(cloud: MemoryCloud) -> None:
    version, again = cloud.version("file"), cloud.version("file", version_id="v2")
    superseded = archive(cloud, [version])
    archive(cloud, [again])
    del cloud.archives.rows[2]
    damage_archive(cloud, version)
    delete_source(cloud, version, again)
    assert repair(cloud, superseded, [version]).outcome is Outcome.VOID
    assert parked(cloud) == [(Reason.LOST, "file")]


def test_an_empty_member_needs_no_archive_that_is_awake(cloud: MemoryCloud) -> None:
    version = cloud.version("empty", 0)
    superseded = archive(cloud, [version])
    delete_source(cloud, version)
    cloud.reader.glacier.expire()
    assert repair(cloud, superseded, [version]).files == 1
    assert body_of(cloud, version) == b""


def test_what_is_intact_nowhere_is_parked_by_name_and_the_rest_is_archived(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    superseded = archive(cloud, versions)
    damage_archive(cloud, *versions)
    delete_source(cloud, versions[0])
    damage_source(cloud, versions[1])
    written = repair(cloud, superseded, versions)
    assert (written.outcome, written.files, written.parked) == (Outcome.ARCHIVED, 1, 2)
    assert parked(cloud) == [(Reason.LOST, version.key) for version in versions[:2]]
    details = sorted(item.detail for item in cloud.parking_lot.items.values())
    assert "file-000; archive 1 has SHA-256" in details[0], "what was found at each place"
    assert "the content bucket's bytes have SHA-256" in details[1]
    assert holders(cloud, *versions) == [1, 1, 2], "the damaged archive holds all that is left of them"
    assert not cloud.collect_queue.sent


def test_if_everything_is_lost_no_archive_is_written_and_none_superseded(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    damage_archive(cloud, *versions)
    delete_source(cloud, *versions)
    written = repair(cloud, superseded, versions)
    assert (written.outcome, written.parked) == (Outcome.VOID, 2)
    assert list(cloud.archives.rows.values()) == [superseded]
    assert cloud.bundles.drawn == 1
    assert not cloud.collect_queue.sent


@pytest.mark.parametrize("error", [ArchiveUnreadable("gone"), Asleep("asleep")])
def test_an_archive_that_is_gone_or_sleeps_is_repaired_from_its_sources(cloud: MemoryCloud, error: NeveError) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)

    @dataclass
    class Failing:
        def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
            raise error

    cloud.reader = Failing()
    assert repair(cloud, superseded, versions).files == 2
    assert holders(cloud, *versions) == [2, 2]


def test_bytes_that_arrive_damaged_are_read_once_more(cloud: MemoryCloud) -> None:
    @dataclass
    class Flaky:
        reader: ArchiveReader
        flips: int
        reads: list[int] = field(default_factory=list)

        def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
            body = self.reader.read(archive, first, last)
            if last - first + 1 != 100:
                return body
            self.reads.append(first)
            return flip(body, 0) if len(self.reads) <= self.flips else body

    version = cloud.version("file")
    superseded = archive(cloud, [version])
    delete_source(cloud, version)
    cloud.reader = reader = Flaky(cloud.reader, READS)
    assert repair(cloud, superseded, [version]).outcome is Outcome.VOID
    reader.flips, reader.reads = READS - 1, []
    assert repair(cloud, superseded, [version], run="again").files == 1


# Who is believed


def falsify(cloud: MemoryCloud, **changed: Any) -> None:
    """Have the manifest of archive 1 say something else of its first member."""
    manifest = cloud.store.manifests[1]
    first, *others = manifest.members
    wrong = replace(first, source=replace(first.source, **changed))
    cloud.store.manifests[1] = replace(manifest, members=(wrong, *others))


def test_a_manifest_that_states_a_wrong_hash_is_outvoted(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    falsify(cloud, sha256="0" * 64, content_type="wrong")
    delete_source(cloud, versions[0])
    assert repair(cloud, superseded, versions).files == 2
    assert body_of(cloud, versions[0]) == original(versions[0])
    assert cloud.store.manifests[2].members[0].source.content_type == "", "as the tar's own list says"


@pytest.mark.parametrize("sha256", ["0" * 64, ""])
def test_a_row_that_states_a_wrong_hash_is_outvoted_and_put_right(cloud: MemoryCloud, sha256: str) -> None:
    version = cloud.version("file")
    superseded = archive(cloud, [version])
    row = cloud.files.rows[version.identity]
    cloud.files.rows[version.identity] = replace(row, sha256=sha256, number=7, offset_bytes=0)
    delete_source(cloud, version)
    assert repair(cloud, superseded, [version]).files == 1
    assert body_of(cloud, version) == original(version)


def test_where_row_and_lists_name_different_bytes_that_both_exist_the_row_is_believed(cloud: MemoryCloud) -> None:
    """The content bucket has what the lists state, another archive what the row states."""
    version = cloud.version("file")
    superseded = archive(cloud, [version])
    other = replace(version, version_id="v2")
    source, body = cloud.content.objects[version.identity]
    cloud.content.put(other, flip(body, 0))
    archive(cloud, [other])
    delete_source(cloud, other)
    row = cloud.files.rows[version.identity]
    right = cloud.files.rows[other.identity].sha256
    cloud.files.rows[version.identity] = replace(row, sha256=right)
    repair(cloud, superseded, [version])
    assert cloud.files.rows[version.identity].sha256 == right != source.sha256
    assert body_of(cloud, version) == flip(body, 0)


def test_a_version_of_which_nothing_states_a_hash_is_lost_though_the_content_bucket_has_bytes(
    cloud: MemoryCloud,
) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions[:1])
    assert repair(cloud, superseded, versions).parked == 1
    assert parked(cloud) == [(Reason.LOST, versions[1].key)]
    assert versions[1].identity not in cloud.files.rows


def test_without_any_list_a_member_is_found_by_its_row(cloud: MemoryCloud) -> None:
    version = cloud.version("file", content_type="text/plain")
    superseded = archive(cloud, [version])
    delete_source(cloud, version)
    del cloud.store.manifests[1]
    key = superseded.object_key
    cloud.store.objects[key] = flip(cloud.store.objects[key], 0)
    assert repair(cloud, superseded, [version]).files == 1
    assert body_of(cloud, version) == original(version)
    assert cloud.store.manifests[2].members[0].source.content_type == "", "nobody knows any more"


def test_a_version_restored_out_of_the_archive_is_repaired_under_its_own_name(cloud: MemoryCloud) -> None:
    version = cloud.version("file", content_type="text/plain")
    superseded = archive(cloud, [version, cloud.version("neighbour")])
    restored = replace(version, key="copy", version_id="v9")
    row = replace(cloud.files.rows[version.identity], key="copy", version_id="v9", pin="v9", last_modified=cloud.now)
    cloud.files.rows[restored.identity] = row
    assert repair(cloud, superseded, [restored]).files == 1
    assert body_of(cloud, restored) == original(version)
    source = cloud.store.manifests[2].members[0].source
    assert (source.content_type, source.last_modified) == ("text/plain", cloud.now)
    assert holders(cloud, version) == [1]


def test_a_row_that_points_at_the_wrong_member_passes_no_file_off_as_another(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    restored = replace(versions[0], key="copy")
    row = cloud.files.rows[versions[0].identity]
    wrong = cloud.files.rows[versions[1].identity]
    cloud.files.rows[restored.identity] = replace(row, key="copy", number=wrong.number, offset_bytes=wrong.offset_bytes)
    assert repair(cloud, superseded, [restored]).outcome is Outcome.VOID
    assert parked(cloud) == [(Reason.LOST, "copy")]


# Rows


def test_a_version_that_another_archive_holds_meanwhile_is_not_archived_again(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    superseded = archive(cloud, versions)
    repair(cloud, superseded, versions[:1])
    written = repair(cloud, cloud.archives.rows[1], versions)
    assert (written.serial, written.files, written.duplicates) == (3, 2, 1)
    assert holders(cloud, *versions) == [2, 3, 3]
    assert cloud.archives.rows[1].superseded_by == 3
    third = repair(cloud, cloud.archives.rows[1], versions)
    assert (third.outcome, third.duplicates) == (Outcome.VOID, 3)


def test_a_row_that_names_another_archive_when_it_is_to_be_moved_stays_and_is_counted(cloud: MemoryCloud) -> None:
    class Raced(MemoryFiles):
        """Another repair is first with one row, between reading and replacing it."""

        def replace(self, seen: FileRow, to: FileRow) -> bool:
            if to.key == "file-000":
                self.rows[to.key, to.pin] = replace(seen, archive=99)
            return super().replace(seen, to)

    cloud.files = Raced()
    versions = cloud.versions(3)
    superseded = archive(cloud, versions)
    written = repair(cloud, superseded, versions)
    assert (written.files, written.duplicates) == (3, 1)
    assert holders(cloud, *versions) == [99, 2, 2]
    assert cloud.archives.rows[2].duplicates == 1


def test_a_version_without_a_row_gets_one(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    del cloud.files.rows[versions[0].identity]
    written = repair(cloud, superseded, versions)
    assert (written.files, written.duplicates) == (2, 0)
    assert holders(cloud, *versions) == [2, 2]


def test_a_repair_of_a_repair_supersedes_that_one(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    repair(cloud, archive(cloud, versions), versions)
    assert repair(cloud, cloud.archives.rows[2], versions).serial == 3
    assert holders(cloud, *versions) == [3, 3]
    assert [row.superseded_by for row in cloud.archives.rows.values()] == [2, 3, 0]


def test_an_archive_without_a_row_cannot_be_repaired(cloud: MemoryCloud) -> None:
    versions = cloud.versions(1)
    superseded = archive(cloud, versions)
    del cloud.archives.rows[1]
    with pytest.raises(NeveError, match=r"archive 1 .*has no row"):
        repair(cloud, superseded, versions)


# What cannot be read now


def fail(cloud: MemoryCloud, version: ObjectVersion, error: Exception) -> None:
    """Neither the archive has the version intact, nor can its source be read."""
    damage_archive(cloud, version)
    cloud.content.failures[version.key] = error


def test_a_repair_waits_for_a_member_that_cannot_be_read_and_ends_without_it_after_a_day(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    fail(cloud, versions[0], Transient("503"))
    bundle = order(cloud, superseded, versions)
    for _ in range(PATIENCE + 1):
        with pytest.raises(Transient, match="503"):
            cloud.write(bundle.id)
    assert not cloud.parking_lot.items
    cloud.now += WRITTEN_WITHIN + FORBEARANCE
    written = cloud.write(bundle.id)
    assert (written.files, written.parked, written.collected_again) == (1, 1, 0)
    assert parked(cloud) == [(Reason.UNREPAIRED, versions[0].key)]
    assert holders(cloud, *versions) == [1, 2]
    assert not cloud.collect_queue.sent
    cloud.content.failures.clear()
    assert repair(cloud, cloud.archives.rows[1], versions).files == 1
    assert holders(cloud, *versions) == [3, 2]


def test_a_repair_that_is_begun_late_is_patient_all_the_same(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    fail(cloud, versions[0], Transient("503"))
    bundle = order(cloud, superseded, versions)
    cloud.now += WRITTEN_WITHIN + FORBEARANCE
    for _ in range(PATIENCE - 1):
        with pytest.raises(Transient, match="503"):
            cloud.write(bundle.id)
    assert cloud.write(bundle.id).files == 1


def test_one_source_that_is_denied_is_parked_as_unrepaired_and_many_are_waited_for(cloud: MemoryCloud) -> None:
    """A deployment may have taken the permission away: that is no fault of the files."""
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    for version in versions:
        fail(cloud, version, SourceDenied("403"))
    bundle = order(cloud, superseded, versions)
    with pytest.raises(Transient, match="403"):
        cloud.write(bundle.id)
    del cloud.content.failures[versions[1].key]
    assert cloud.write(bundle.id).files == 1
    assert parked(cloud) == [(Reason.UNREPAIRED, versions[0].key)]


# Serials and frozen lists


def frozen(cloud: MemoryCloud, superseded: ArchiveRow, versions: Sequence[ObjectVersion]) -> Bundle:
    """A repair whose manifest stands, and whose tar does not."""
    cloud.store.stated["archives/0000000002.tar"] = None
    bundle = order(cloud, superseded, versions)
    with pytest.raises(Transient, match="being written by another"):
        cloud.write(bundle.id)
    assert list(cloud.store.manifests) == [1, 2]
    del cloud.store.stated["archives/0000000002.tar"]
    return bundle


def test_a_frozen_list_is_completed_from_whatever_is_left(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    superseded = archive(cloud, versions)
    damage_archive(cloud, versions[2])
    bundle = frozen(cloud, superseded, versions)
    manifest = cloud.store.manifests[2]
    delete_source(cloud, versions[0], versions[1])
    assert cloud.write(bundle.id).serial == 2
    assert cloud.store.manifests[2] == manifest
    assert holders(cloud, *versions) == [2, 2, 2]


def test_a_frozen_list_that_can_never_be_completed_is_begun_anew_and_nothing_is_collected(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    superseded = archive(cloud, versions)
    damage_archive(cloud, *versions)
    bundle = frozen(cloud, superseded, versions)
    delete_source(cloud, versions[0])
    with pytest.raises(Transient, match="archive 2 cannot be completed"):
        cloud.write(bundle.id)
    assert (cloud.bundles.rows[bundle.id].serial, cloud.bundles.rows[bundle.id].state) == (0, BundleState.SEALED)
    written = cloud.write(bundle.id)
    assert (written.serial, written.files) == (3, 2)
    assert holders(cloud, *versions) == [1, 3, 3]
    assert parked(cloud) == [(Reason.LOST, versions[0].key)]
    assert not cloud.collect_queue.sent


def test_a_frozen_list_says_nothing_to_collect_of_what_it_left_out(cloud: MemoryCloud) -> None:
    """Without a row, Collect would archive a damaged source as if it were whole."""
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    damage_archive(cloud, *versions)
    damage_source(cloud, versions[0])
    del cloud.files.rows[versions[0].identity]
    bundle = frozen(cloud, superseded, versions)
    assert cloud.write(bundle.id).files == 1
    assert not cloud.collect_queue.sent


def test_another_object_under_the_key_is_parked_and_the_repair_goes_under_the_next_serial(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    rope = Rope([b"something else"])
    cloud.store.put("archives/0000000002.tar", rope, rope.sha256())
    bundle = order(cloud, superseded, versions)
    with pytest.raises(Transient, match="archive 2 cannot be completed"):
        cloud.write(bundle.id)
    assert cloud.write(bundle.id).serial == 3
    assert parked(cloud) == [(Reason.ARCHIVE_CONFLICT, "")]
    assert not cloud.collect_queue.sent


def test_a_serial_that_is_not_above_the_superseded_archives_is_given_back(cloud: MemoryCloud) -> None:
    """The counter has gone back; a manifest cannot supersede a later archive."""
    versions = cloud.versions(2)
    archive(cloud, versions[:1])
    superseded = archive(cloud, versions[1:])
    cloud.bundles.drawn = 0
    bundle = order(cloud, superseded, versions[1:])
    for _ in range(2):
        with pytest.raises(Transient, match="gone back"):
            cloud.write(bundle.id)
    assert cloud.write(bundle.id).serial == 3
    assert list(cloud.store.manifests) == [1, 2, 3]


def test_a_manifest_that_does_not_supersede_what_the_bundle_does_is_not_its_own(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    superseded = archive(cloud, versions)
    other = made()
    other.collect(versions)
    other.content.objects = cloud.content.objects
    other.bundles.drawn = 1
    other.drain()
    cloud.store.manifests[2] = other.store.manifests[2]
    bundle = order(cloud, superseded, versions)
    with pytest.raises(Transient, match=r"archive 2 .*gone back"):
        cloud.write(bundle.id)
    assert cloud.write(bundle.id).serial == 3


# Large objects


def test_a_large_object_whose_source_is_intact_is_copied_anew(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    assert superseded.kind == "object"
    damage_archive(cloud, version)
    written = repair(cloud, superseded, [version])
    assert (written.outcome, written.serial, written.files) == (Outcome.ARCHIVED, 2, 1)
    assert (written.supersedes, written.oldest_at) == (1, None)
    assert (holders(cloud, version), body_of(cloud, version)) == ([2], original(version))
    assert cloud.store.manifests[2].supersedes == 1
    assert cloud.archives.rows[1].superseded_by == 2


@pytest.mark.parametrize("witness", ["row", "manifest"])
def test_one_witness_suffices_to_prove_a_large_objects_source(cloud: MemoryCloud, witness: str) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    if witness == "row":
        del cloud.store.manifests[1]
    else:
        del cloud.files.rows[version.identity]
    assert repair(cloud, superseded, [version]).outcome is Outcome.ARCHIVED
    assert (holders(cloud, version), body_of(cloud, version)) == ([2], original(version))


def test_a_large_object_of_which_nothing_is_stated_is_lost_and_not_even_copied(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    del cloud.store.manifests[1]
    del cloud.files.rows[version.identity]
    assert repair(cloud, superseded, [version]).outcome is Outcome.VOID
    assert parked(cloud) == [(Reason.LOST, "film")]
    assert list(cloud.store.stated) == [superseded.object_key]


@pytest.mark.parametrize(
    ("error", "reason"), [(SourceGone("404"), Reason.LOST), (SourceDenied("403"), Reason.UNREPAIRED)]
)
def test_a_large_object_whose_source_cannot_be_had_is_parked(
    cloud: MemoryCloud, error: Exception, reason: Reason
) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    cloud.content.failures["film"] = error
    assert repair(cloud, superseded, [version]).outcome is Outcome.VOID
    assert parked(cloud) == [(reason, "film")]
    assert holders(cloud, version) == [1]
    assert cloud.archives.rows[1].superseded_by == 0


def test_a_copy_that_is_not_what_was_archived_before_is_lost_and_not_indexed(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    damage_source(cloud, version)
    source, body = cloud.content.objects[version.identity]
    cloud.content.objects[version.identity] = (replace(source, etag="0123-2"), body)
    falsify(cloud, etag="0123-2")
    written = repair(cloud, superseded, [replace(version, etag="0123-2")])
    assert (written.outcome, written.parked) == (Outcome.VOID, 1)
    assert parked(cloud) == [(Reason.LOST, "film")]
    assert list(cloud.store.manifests) == [1]
    assert holders(cloud, version) == [1]


def test_a_source_of_which_s3_states_other_checksums_is_lost_before_it_is_copied(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000, checksums={"CRC64NVME": "AAAAAAAAAAA="})
    superseded = archive(cloud, [version])
    source, body = cloud.content.objects[version.identity]
    cloud.content.objects[version.identity] = (replace(source, checksums={"CRC64NVME": "BBBBBBBBBBA="}), body)
    assert repair(cloud, superseded, [version]).outcome is Outcome.VOID
    assert parked(cloud) == [(Reason.LOST, "film")]
    assert list(cloud.store.stated) == [superseded.object_key]


def test_a_copy_is_asked_for_the_checksum_that_is_stated_of_the_damaged_archive(cloud: MemoryCloud) -> None:
    """By now S3 states another one of the source."""
    version = cloud.version("film", 20_000)
    source, body = cloud.content.objects[version.identity]
    cloud.content.objects[version.identity] = (replace(source, etag="0123-2"), body)
    version = replace(version, etag="0123-2")
    superseded = archive(cloud, [version])
    stated = replace(source, etag="0123-2", checksums={"CRC64NVME": "AAAAAAAAAAA="})
    cloud.content.objects[version.identity] = (stated, body)
    assert repair(cloud, superseded, [version]).outcome is Outcome.ARCHIVED
    assert holders(cloud, version) == [2]


def test_a_large_object_in_parts_is_proved_by_its_crc64(cloud: MemoryCloud) -> None:
    cloud.single_copy_bytes = 15_000
    cloud.cut = lambda size: [Range(number=1, first=0, last=size - 1)]
    version = cloud.version("film", 20_000, checksums={"CRC64NVME": "AAAAAAAAAAA="})
    superseded = archive(cloud, [version])
    assert superseded.sha256 == ""
    restored = replace(version, version_id="restored")
    cloud.files.record([replace(cloud.files.rows[version.identity], version_id="restored", pin="restored")])
    assert repair(cloud, superseded, [version]).outcome is Outcome.ARCHIVED
    assert holders(cloud, version, restored) == [2, 2]


def test_another_object_under_the_key_of_a_large_one_is_parked_and_nothing_collected(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    cloud.store.copy("archives/0000000002.object", cloud.version("foreign", 19_999), "SHA256")
    written = repair(cloud, superseded, [version])
    assert (written.outcome, written.collected_again) == (Outcome.CONFLICT, 0)
    assert parked(cloud) == [(Reason.ARCHIVE_CONFLICT, "film")]
    assert not cloud.collect_queue.sent
    assert repair(cloud, superseded, [version], run="again").serial == 3


def test_a_large_object_that_another_archive_holds_meanwhile_is_not_copied_again(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 20_000)
    superseded = archive(cloud, [version])
    repair(cloud, superseded, [version])
    written = repair(cloud, cloud.archives.rows[1], [version])
    assert (written.outcome, written.duplicates) == (Outcome.VOID, 1)
    assert cloud.archives.rows[1].superseded_by == 2


# Deaths and doubles


class Killed(BaseException):
    """The process dies here; no handler of errors sees it."""


@dataclass
class Mortal:
    """Watches ports, and dies at the call that `kill_at` names, before it takes effect or `after`."""

    kill_at: int = 0
    after: bool = False
    calls: int = 0

    def watch(self, port: Any) -> Any:
        mortal = self

        class Watched:
            def __getattr__(self, name: str) -> Any:
                found = getattr(port, name)
                return mortal.call(found) if callable(found) else found

        return Watched()

    def call(self, found: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            mine = self.calls == self.kill_at
            if mine and not self.after:
                raise Killed
            answer = found(*args, **kwargs)
            if mine:
                raise Killed
            return answer

        return call


def live_through(mortal: Mortal, size_bytes: int) -> None:
    """A repair that is ordered, written and swept, by processes one of which dies."""
    cloud = made()
    versions = [cloud.version("a", size_bytes)] if size_bytes > 1_000 else cloud.versions(4, size_bytes)
    superseded = archive(cloud, versions)
    lost = versions[:1] if len(versions) > 1 else []
    damage_archive(cloud, *lost, *versions[-1:])
    delete_source(cloud, *lost, *versions[1:2])
    restored = replace(versions[-1], version_id="restored")
    cloud.files.record([replace(cloud.files.rows[versions[-1].identity], version_id="restored", pin="restored")])
    for name in ("bundles", "archives", "files", "store", "bundles_queue", "large_queue", "reader", "parking_lot"):
        setattr(cloud, name, mortal.watch(getattr(cloud, name)))
    while True:
        try:
            repairer(cloud).order(superseded, versions, run=RUN, now=cloud.now)
            cloud.drain()
        except Killed:
            continue
        break
    saved = versions[len(lost) :]
    [serial] = {cloud.files.rows[version.identity].archive for version in saved}
    assert serial > 1
    assert [body_of(cloud, version) for version in saved] == [original(version) for version in saved]
    assert holders(cloud, *lost, restored) == [1] * len(lost) + [serial]
    assert parked(cloud) == [(Reason.LOST, version.key) for version in lost]
    assert cloud.archives.rows[1].superseded_by == serial
    assert cloud.archives.rows[serial].duplicates == 0
    assert sorted(cloud.archives.rows) == sorted(cloud.store.manifests) == [1, serial]
    assert all(bundle.state is BundleState.ARCHIVED for bundle in cloud.bundles.rows.values())
    assert not cloud.collect_queue.sent


@pytest.mark.parametrize("size_bytes", [100, 20_000], ids=["tar", "object"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_at_any_call_is_mended_by_the_next_try(size_bytes: int, after: bool) -> None:
    counted = Mortal()
    live_through(counted, size_bytes)
    assert counted.calls > 20
    for number in range(1, counted.calls + 1):
        live_through(Mortal(kill_at=number, after=after), size_bytes)


@pytest.mark.parametrize("size", [100, 20_000], ids=["tar", "object"])
def test_a_message_that_comes_twice_does_nothing_more(cloud: MemoryCloud, size: int) -> None:
    version = cloud.version("file", size)
    superseded = archive(cloud, [version])
    repair(cloud, superseded, [version])
    rows = dict(cloud.archives.rows)
    assert repair(cloud, superseded, [version]).outcome is Outcome.FINISHED_BEFORE
    assert cloud.archives.rows == rows
    assert cloud.bundles.drawn == 2


def test_two_writers_of_one_repair_make_one_archive_and_move_each_row_once() -> None:
    def live(steps: Steps) -> None:
        cloud = made()
        versions = cloud.versions(2)
        superseded = archive(cloud, versions)
        bundle = order(cloud, superseded, versions)
        for name in ("bundles", "archives", "files", "store"):
            setattr(cloud, name, steps.watch(getattr(cloud, name)))

        def write() -> None:
            try:
                cloud.write(bundle.id, lease_s=-1)
            except Transient:
                cloud.bundles_queue.send(write_request(bundle.id))

        steps.run([write, write])
        cloud.drain()
        assert holders(cloud, *versions) == [2, 2]
        assert sorted(cloud.archives.rows) == [1, 2]
        assert cloud.archives.rows[2].duplicates == 0
        assert cloud.archives.rows[1].superseded_by == 2
        assert not cloud.parking_lot.items

    assert explored(live, preemptions=1) > 30


def test_two_runs_that_order_at_once_order_one_repair() -> None:
    def live(steps: Steps) -> None:
        cloud = made()
        versions = cloud.versions(2)
        superseded = archive(cloud, versions)
        cloud.bundles = steps.watch(cloud.bundles)

        def order_by(run: str) -> None:
            repairer(cloud).order(superseded, versions, run=run, now=cloud.now)

        steps.run([partial(order_by, "a"), partial(order_by, "b")])
        assert {requested_bundle(body) for body in cloud.bundles_queue.take()} == {"repair-1-0"}
        assert cloud.bundles.parts("repair-1-0") == versions

    assert explored(live, preemptions=1) > 5


def test_repairs_written_at_once_leave_every_version_in_one_of_their_archives() -> None:
    """The second is ordered when the first has marked the archive, and is not at its end."""

    def live(steps: Steps) -> None:
        cloud = made()
        versions = cloud.versions(2)
        superseded = archive(cloud, versions)
        marked = replace(superseded, superseded_by=1)
        bundles = [order(cloud, each, versions).id for each in (superseded, marked)]
        assert len(set(bundles)) == 2
        for name in ("bundles", "archives", "files", "store"):
            setattr(cloud, name, steps.watch(getattr(cloud, name)))
        steps.run([lambda each=each: (cloud.write(each), None)[1] for each in bundles])  # type: ignore[misc]
        found = holders(cloud, *versions)
        assert set(found) <= {2, 3}
        assert [body_of(cloud, version) for version in versions] == [original(version) for version in versions]
        assert sum(row.files - row.duplicates for row in cloud.archives.rows.values() if row.serial > 1) == 2
        assert cloud.archives.rows[1].superseded_by == max(serial for serial in cloud.archives.rows)

    assert explored(live, preemptions=1) > 30


# What an archive holds


def test_the_members_of_an_archive_are_those_of_its_manifest(cloud: MemoryCloud) -> None:
    superseded = archived(cloud, 100, 100)
    cloud.reader.glacier.expire()
    assert manifest_of(cloud.store, superseded) == cloud.store.manifests[1]


@pytest.mark.parametrize("how", ["gone", "unreadable", "another's"])
def test_without_its_manifest_a_tar_says_itself_what_it_holds(cloud: MemoryCloud, how: str) -> None:
    superseded = archived(cloud, 100, 0, 513)
    manifest = cloud.store.manifests.pop(1)
    if how == "another's":
        other = made()
        other.bundles.drawn = 1
        archived(other, 100)
        cloud.store.manifests[1] = other.store.manifests[2]
    if how == "unreadable":
        cloud.store = Unreadable(content=cloud.content)
    assert manifest_of(cloud.store, superseded) is None
    assert contents_of(cloud.reader, superseded).members == manifest.members
    cloud.reader.glacier.expire()
    with pytest.raises(Asleep):
        contents_of(cloud.reader, superseded)


class Unreadable(MemoryArchiveStore):
    """An archive bucket whose manifests are no JSON any more."""

    def manifest(self, serial: int) -> Manifest | None:
        raise ManifestInvalid("the document is not JSON")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [({"serial": 2}, "its list is that of archive 1"), ({"size_bytes": 600}, "its list ends at")],
    ids=["another's", "longer than the archive"],
)
def test_a_list_that_cannot_be_the_archives_is_refused(
    cloud: MemoryCloud, changed: Mapping[str, int], problem: str
) -> None:
    superseded = replace(archived(cloud, 100), **changed)  # type: ignore[arg-type]
    thaw(cloud, 2)
    with pytest.raises(ManifestInvalid, match=problem):
        contents_of(cloud.reader, superseded)

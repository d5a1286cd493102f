"""CopyLarge on ports in memory: copied once, proved, and gone on with where an earlier try ended."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from neve.domain.bundle import Bundle, BundleState, Lane, Limits
from neve.domain.events import parse
from neve.domain.large import Range
from neve.domain.manifest import Manifest, Source, parse_source, render_source
from neve.domain.outcome import Outcome
from neve.domain.parked import Reason
from neve.domain.version import ObjectVersion
from neve.errors import Busy, SourceChanged, SourceDenied, SourceGone, SourceUnfit, Transient
from tests.memory import CONTENT, MemoryArchives, MemoryArchiveStore, MemoryBundles, MemoryCloud, MemoryContent

LIMITS = Limits(target_bytes=1_000, max_members=10, max_age_s=20)
SIX_GB = 6 * 10**9
CRC = "AAAAAAAAAAA="
"""What MemoryArchiveStore states of an object copied in parts."""


class Stub(MemoryContent):
    """A content bucket whose objects have a size, and no bytes."""

    def stub(self, cloud: MemoryCloud, size_bytes: int, **stated: Any) -> ObjectVersion:
        version = cloud.version("film", 0)
        version = replace(version, size_bytes=size_bytes, etag="0123-2")
        source, _ = self.objects.pop(("film", "v1"))
        stated = {"checksums": {"CRC64NVME": CRC}} | stated
        self.objects[version.identity] = (replace(source, size_bytes=size_bytes, etag="0123-2", **stated), b"")
        return version


def forty_parts(size_bytes: int) -> list[Range]:
    """Forty, which are more than two waves."""
    step = size_bytes // 40
    return [Range(number=n + 1, first=n * step, last=min((n + 1) * step, size_bytes) - 1) for n in range(40)]


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud(limits=LIMITS, content=Stub())


def collected(cloud: MemoryCloud, version: ObjectVersion) -> str:
    """The id of the bundle of a large version."""
    before = set(cloud.bundles.rows)
    cloud.collect([version])
    [bundle_id] = set(cloud.bundles.rows) - before
    return str(bundle_id)


def stubbed(cloud: MemoryCloud, size_bytes: int = SIX_GB, **stated: Any) -> ObjectVersion:
    assert isinstance(cloud.content, Stub)
    return cloud.content.stub(cloud, size_bytes, **stated)


def reasons(cloud: MemoryCloud) -> list[Reason]:
    return [item.reason for item in cloud.parking_lot.items.values()]


def test_up_to_5_gb_are_copied_by_one_request_with_a_sha256(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 2_000)
    written = cloud.copy(collected(cloud, version))
    assert (written.outcome, written.serial, written.files, written.source_bytes) == (Outcome.ARCHIVED, 1, 1, 2_000)
    assert cloud.store.copied == ["archives/0000000001.object"]
    assert not cloud.store.uploads
    cloud.verify([version])
    assert not cloud.parking_lot.items


def test_what_was_there_before_and_is_gone_before_its_turn_is_passed_over(cloud: MemoryCloud) -> None:
    version = stubbed(cloud)
    cloud.collector(Lane.BACKFILL).collect([version], cloud.now)
    [bundle_id] = cloud.bundles.rows
    del cloud.content.objects[version.identity]
    written = cloud.copy(bundle_id)
    assert (written.outcome, written.gone, written.parked) == (Outcome.VOID, 1, 0)
    assert not cloud.parking_lot.items


def test_6_gb_are_copied_in_parts_and_proved_by_crc64(cloud: MemoryCloud) -> None:
    version = stubbed(cloud)
    written = cloud.copy(collected(cloud, version))
    assert (written.outcome, written.source_bytes) == (Outcome.ARCHIVED, SIX_GB)
    assert len(cloud.store.copied) == 12
    archive = cloud.archives.rows[1]
    assert (archive.size_bytes, archive.sha256, archive.kind) == (SIX_GB, "", "object")
    assert cloud.store.manifests[1].object_crc64nvme == CRC
    assert cloud.files.rows[version.identity].size_bytes == SIX_GB
    assert not cloud.parking_lot.items


def test_a_copy_that_runs_out_of_time_goes_on_where_it_ended(cloud: MemoryCloud) -> None:
    cloud.cut = forty_parts
    version = stubbed(cloud)
    bundle_id = collected(cloud, version)
    cloud.large_queue.take()
    tries = 0
    while cloud.copy(bundle_id, lease_s=30).outcome is Outcome.CONTINUED:
        tries += 1
        assert tries < 10, "every try makes some headway"
        assert cloud.bundles.rows[bundle_id].lease_owner == "", "the next message need not wait"
        assert len(cloud.large_queue.take()) == 1
    assert tries == 2
    assert sorted(cloud.store.copied) == sorted(f"archives/0000000001.object#{number}" for number in range(1, 41))
    assert cloud.bundles.drawn == 1
    assert cloud.bundles.rows[bundle_id].state is BundleState.ARCHIVED


def test_an_upload_that_was_aborted_meanwhile_is_begun_anew(cloud: MemoryCloud) -> None:
    cloud.cut = forty_parts
    version = stubbed(cloud)
    bundle_id = collected(cloud, version)
    assert cloud.copy(bundle_id, lease_s=30).outcome is Outcome.CONTINUED
    first = cloud.bundles.rows[bundle_id].upload_id
    del cloud.store.uploads[first]
    assert cloud.copy(bundle_id).outcome is Outcome.ARCHIVED
    assert cloud.bundles.rows[bundle_id].upload_id != first


def test_an_upload_that_goes_while_its_parts_are_copied_is_tried_again_and_parks_nothing(cloud: MemoryCloud) -> None:
    class Aborted(MemoryArchiveStore):
        def copy_part(self, object_key: str, upload_id: str, version: ObjectVersion, part: Range) -> str:
            if part.number == 20 and len(self.uploads) < 2:
                self.uploads.pop(upload_id, None)
                self.uploads["placeholder"] = {}
            return super().copy_part(object_key, upload_id, version, part)

    cloud.cut = forty_parts
    cloud.store = Aborted(content=cloud.content)
    bundle_id = collected(cloud, stubbed(cloud))
    with pytest.raises(Transient):
        cloud.copy(bundle_id)
    assert not cloud.parking_lot.items
    assert cloud.copy(bundle_id).outcome is Outcome.ARCHIVED


def test_another_upload_that_was_recorded_first_is_used(cloud: MemoryCloud) -> None:
    class Raced(MemoryArchiveStore):
        def start_upload(self, object_key: str, algorithm: str) -> str:
            upload_id = super().start_upload(object_key, algorithm)
            if len(self.uploads) == 1:
                winner = super().start_upload(object_key, algorithm)
                self.uploads[winner][1] = ("part-1", 150_000_000)
                cloud.bundles.record_upload(bundle_id, previous="", upload_id=winner)
            return upload_id

    cloud.cut = forty_parts
    cloud.store = Raced(content=cloud.content)
    bundle_id = collected(cloud, stubbed(cloud))
    assert cloud.copy(bundle_id).outcome is Outcome.ARCHIVED
    assert len(cloud.store.copied) == 39
    assert cloud.bundles.rows[bundle_id].upload_id == "upload-2"


def test_a_copy_that_another_has_completed_is_taken(cloud: MemoryCloud) -> None:
    class Completed(MemoryArchiveStore):
        def complete_upload(self, object_key: str, upload_id: str, etags: Mapping[int, str]) -> bool:
            assert super().complete_upload(object_key, upload_id, etags)
            return super().complete_upload(object_key, upload_id, etags)

        def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
            assert super().copy(object_key, version, algorithm)
            return super().copy(object_key, version, algorithm)

    cloud.store = Completed(content=cloud.content)
    small = replace(cloud.version("small", 2_000))
    for version in (stubbed(cloud), small):
        assert cloud.copy(collected(cloud, version)).outcome is Outcome.ARCHIVED


def test_a_copy_that_another_is_just_making_is_awaited(cloud: MemoryCloud) -> None:
    class Conflict(MemoryArchiveStore):
        def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
            return False

    cloud.store = Conflict(content=cloud.content)
    bundle_id = collected(cloud, cloud.version("film", 2_000))
    with pytest.raises(Transient, match="being written by another"):
        cloud.copy(bundle_id)


def test_a_manifest_that_another_is_just_writing_is_awaited_and_one_that_stands_is_adopted(
    cloud: MemoryCloud,
) -> None:
    class Conflict(MemoryArchiveStore):
        def put_manifest(self, manifest: Manifest) -> bool:
            return False

    cloud.store = Conflict(content=cloud.content)
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    with pytest.raises(Transient, match="being written by another"):
        cloud.copy(bundle_id)
    cloud.store.manifests = manifests = {}
    other = MemoryCloud(limits=LIMITS)
    other.copy(collected(other, other.version("film", 2_000)))
    manifests.update(other.store.manifests)
    assert cloud.copy(bundle_id).outcome is Outcome.ARCHIVED
    cloud.verify([version])


@pytest.mark.parametrize(
    ("etag", "checksums", "unproven"),
    [(None, {"SHA256": "right"}, 0), (None, {}, 0), ("0123-2", {}, 1), ("0123-2", {"CRC32": "AAAAAA=="}, 1)],
    ids=["SHA-256", "ETag", "nothing", "nothing shared"],
)
def test_a_copy_that_cannot_be_proved_is_indexed_and_counted_and_nobody_is_called(
    cloud: MemoryCloud, etag: str | None, checksums: dict[str, str], unproven: int
) -> None:
    version = cloud.version("film", 2_000)
    source, body = cloud.content.objects.pop(version.identity)
    stated = {"SHA256": _base64(source.sha256)} if "SHA256" in checksums else checksums
    version = replace(version, etag=etag or version.etag)
    cloud.content.objects[version.identity] = (replace(source, checksums=stated, etag=version.etag), body)
    written = cloud.copy(collected(cloud, version))
    assert (written.outcome, written.unproven, written.parked) == (Outcome.ARCHIVED, unproven, 0)
    assert not cloud.parking_lot.items
    cloud.verify([version])


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


@pytest.mark.parametrize("stated", [{"checksums": {"CRC64NVME": "BBBBBBBBBBA="}}, {}], ids=["checksum", "size"])
def test_a_copy_that_differs_is_parked_and_not_indexed_and_its_source_is_collected_again(
    cloud: MemoryCloud, stated: dict[str, Any]
) -> None:
    if not stated:
        cloud.cut = lambda size_bytes: forty_parts(size_bytes)[:-1]
    version = stubbed(cloud, **stated)
    bundle_id = collected(cloud, version)
    written = cloud.copy(bundle_id)
    assert (written.outcome, reasons(cloud)) == (Outcome.CONFLICT, [Reason.ARCHIVE_CONFLICT])
    assert (written.serial, written.parked, written.collected_again) == (1, 1, 1)
    assert not cloud.files.rows
    assert not cloud.store.manifests
    assert not cloud.archives.rows
    assert cloud.bundles.rows[bundle_id].state is BundleState.VOID
    [message] = cloud.collect_queue.take()
    assert parse(message, CONTENT).versions == (version,)


def test_another_object_under_the_key_is_parked_and_the_source_is_archived_under_the_next_serial(
    cloud: MemoryCloud,
) -> None:
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    foreign = cloud.version("foreign", 1_999)
    cloud.store.copy("archives/0000000001.object", foreign, "SHA256")
    assert cloud.copy(bundle_id).outcome is Outcome.CONFLICT
    cloud.drain()
    cloud.verify([version])
    assert cloud.store.objects["archives/0000000001.object"] == cloud.content.objects[foreign.identity][1]
    assert list(cloud.archives.rows) == [2]


def test_a_conflict_that_dies_before_its_bundle_is_void_is_parked_once_and_loses_nothing(cloud: MemoryCloud) -> None:
    class Dying(MemoryBundles):
        died = False

        def void(self, bundle: Bundle, now: datetime) -> bool:
            if not self.died:
                self.died = True
                raise Transient("503")
            return super().void(bundle, now)

    cloud.bundles = Dying()
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    cloud.store.copy("archives/0000000001.object", cloud.version("foreign", 1_999), "SHA256")
    with pytest.raises(Transient):
        cloud.copy(bundle_id)
    cloud.drain()
    assert reasons(cloud) == [Reason.ARCHIVE_CONFLICT]
    cloud.verify([version])


# The counter of serials has gone back


@pytest.mark.parametrize("when", ["recorded before", "met while copying"])
def test_a_manifest_of_another_archive_under_the_serial_is_left_alone_and_the_next_serial_is_drawn(
    cloud: MemoryCloud, when: str
) -> None:
    first, second = cloud.version("first", 2_000), cloud.version("second", 3_000)
    cloud.copy(collected(cloud, first))
    manifest, archive = cloud.store.manifests[1], cloud.archives.rows[1]
    cloud.bundles.drawn = 0
    bundle_id = collected(cloud, second)
    if when == "recorded before":
        cloud.bundles.assign_serial(bundle_id, source=render_source(cloud.content.describe(second)))
    else:
        cloud.store.stated.pop("archives/0000000001.object")
    with pytest.raises(Transient, match=r"archive 1 .*gone back"):
        cloud.copy(bundle_id)
    standing = cloud.bundles.rows[bundle_id]
    assert (standing.serial, standing.source, standing.upload_id, standing.lease_owner) == (0, "", "", "")
    assert standing.state is BundleState.SEALED
    written = cloud.copy(bundle_id)
    assert (written.outcome, written.serial) == (Outcome.ARCHIVED, 2)
    assert (cloud.store.manifests[1], cloud.archives.rows[1]) == (manifest, archive)
    assert {identity: row.archive for identity, row in cloud.files.rows.items()} == {
        first.identity: 1,
        second.identity: 2,
    }
    assert not cloud.parking_lot.items


def test_a_tar_under_the_serial_costs_a_large_object_a_try(cloud: MemoryCloud) -> None:
    """Its manifest stands under the serial, its object under another key than a large one's."""
    small, large = cloud.version("small", 10), cloud.version("film", 2_000)
    cloud.collect([small])
    cloud.drain()
    cloud.bundles.drawn = 0
    bundle_id = collected(cloud, large)
    with pytest.raises(Transient, match="gone back"):
        cloud.copy(bundle_id)
    cloud.drain()
    cloud.verify([small, large])
    assert not cloud.parking_lot.items


def test_the_row_of_another_bundle_stays_and_the_source_is_archived_under_the_next_serial(cloud: MemoryCloud) -> None:
    """The bucket lost a manifest whose archive's row stands."""
    first, second = cloud.version("first", 2_000), cloud.version("second", 3_000)
    cloud.copy(collected(cloud, first))
    row = cloud.archives.rows[1]
    cloud.store.manifests.clear()
    cloud.store.stated.clear()
    cloud.bundles.drawn = 0
    bundle_id = collected(cloud, second)
    with pytest.raises(Transient, match="gone back"):
        cloud.copy(bundle_id)
    assert cloud.archives.rows == {1: row}
    assert cloud.copy(bundle_id).serial == 2
    assert cloud.archives.rows[1] == row
    assert cloud.files.rows[second.identity].archive == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceGone("404"), Reason.SOURCE_GONE),
        (SourceChanged("412"), Reason.SOURCE_CHANGED),
        (SourceDenied("403"), Reason.SOURCE_DENIED),
        (SourceUnfit("400"), Reason.SOURCE_UNFIT),
    ],
)
def test_a_source_that_can_never_be_read_is_parked_and_its_bundle_void(
    cloud: MemoryCloud, error: Exception, reason: Reason
) -> None:
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    cloud.content.failures["film"] = error
    written = cloud.copy(bundle_id)
    assert (written.outcome, written.parked, reasons(cloud)) == (Outcome.VOID, 1, [reason])
    assert cloud.bundles.rows[bundle_id].state is BundleState.VOID
    assert cloud.bundles.drawn == 0


def test_a_source_that_cannot_be_read_now_is_tried_again(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.version("film", 2_000))
    cloud.content.failures["film"] = Transient("503")
    with pytest.raises(Transient):
        cloud.copy(bundle_id)
    assert cloud.bundles.rows[bundle_id].lease_owner == ""


def test_what_s3_says_of_the_source_is_recorded_with_the_serial_before_anything_is_copied(cloud: MemoryCloud) -> None:
    class Watching(MemoryArchiveStore):
        seen = ""

        def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
            self.seen = cloud.bundles.rows[bundle_id].source
            return super().copy(object_key, version, algorithm)

    cloud.store = Watching(content=cloud.content)
    version = cloud.version("film", 2_000, content_type="video/mp4")
    bundle_id = collected(cloud, version)
    cloud.copy(bundle_id)
    assert parse_source(cloud.store.seen) == cloud.content.describe(version)


def test_a_source_that_goes_between_its_copy_and_the_manifest_is_archived(cloud: MemoryCloud) -> None:
    """The copy is all that is left of it, and S3 has proved it by what was recorded of the source."""

    class Dying(MemoryArchiveStore):
        died = False

        def put_manifest(self, manifest: Manifest) -> bool:
            if not self.died:
                self.died = True
                raise Transient("503")
            return super().put_manifest(manifest)

    cloud.store = Dying(content=cloud.content)
    stated: dict[str, Any] = {"content_type": "video/mp4", "user_metadata": {"owner": "ann"}, "tags": {"a": "b"}}
    version = cloud.version("film", 2_000, **stated)
    bundle_id = collected(cloud, version)
    with pytest.raises(Transient):
        cloud.copy(bundle_id)
    assert (list(cloud.store.stated), cloud.store.manifests) == (["archives/0000000001.object"], {})
    cloud.content.objects.clear()
    written = cloud.copy(bundle_id)
    assert (written.outcome, written.serial, written.unproven) == (Outcome.ARCHIVED, 1, 0)
    assert not cloud.parking_lot.items
    cloud.verify([version])
    source = cloud.store.manifests[1].members[0].source
    assert {name: getattr(source, name) for name in stated} == stated


def test_a_source_that_goes_before_its_copy_is_parked_and_the_serial_stays_unused(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    cloud.bundles.claim(bundle_id, owner="dead", now=cloud.now, until=cloud.now)
    cloud.bundles.assign_serial(bundle_id, source=render_source(cloud.content.describe(version)))
    cloud.bundles.release(bundle_id, owner="dead")
    cloud.content.objects.clear()
    assert cloud.copy(bundle_id).outcome is Outcome.VOID
    assert reasons(cloud) == [Reason.SOURCE_GONE]
    assert cloud.bundles.rows[bundle_id].state is BundleState.VOID


def test_a_source_that_goes_after_its_manifest_was_written_is_indexed_all_the_same(cloud: MemoryCloud) -> None:
    """The manifest is the freeze point: the copy stands and was proved."""

    class Dying(MemoryArchives):
        died = False

        def put(self, row: Any) -> Any:
            if not self.died:
                self.died = True
                raise Transient("503")
            return super().put(row)

    cloud.archives = Dying()
    version = cloud.version("film", 2_000)
    bundle_id = collected(cloud, version)
    with pytest.raises(Transient):
        cloud.copy(bundle_id)
    assert list(cloud.store.manifests) == [1]
    cloud.content.objects.clear()
    assert cloud.copy(bundle_id).outcome is Outcome.ARCHIVED
    assert not cloud.parking_lot.items
    cloud.verify([version])


def test_a_version_that_another_archive_holds_makes_the_bundle_void(cloud: MemoryCloud) -> None:
    version = cloud.version("film", 2_000)
    cloud.copy(collected(cloud, version))
    again = Bundle(id="again", kind="object", state=BundleState.SEALED, size_bytes=2_000, count=1, due_at=cloud.now)
    cloud.bundles.create(again)
    cloud.bundles.put_part("again", "0", [version], cloud.now)
    written = cloud.copy("again")
    assert (written.outcome, written.duplicates, written.parked) == (Outcome.VOID, 1, 0)
    assert cloud.bundles.drawn == 1
    cloud.verify([version])


def test_a_bundle_whose_part_has_expired_is_parked(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.version("film", 2_000))
    cloud.bundles.noted.clear()
    assert cloud.copy(bundle_id).outcome is Outcome.VOID
    assert reasons(cloud) == [Reason.PARTS_MISSING]


def test_a_second_message_finds_nothing_to_do_or_waits_for_the_lease(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.version("film", 2_000))
    cloud.bundles.claim(bundle_id, owner="first", now=cloud.now, until=cloud.now)
    with pytest.raises(Busy):
        cloud.copy(bundle_id, owner="second")
    cloud.copy(bundle_id, owner="first")
    assert cloud.copy(bundle_id, owner="second").outcome is Outcome.FINISHED_BEFORE


def test_a_large_object_keeps_what_a_restore_needs(cloud: MemoryCloud) -> None:
    stated: dict[str, Any] = {"content_type": "video/mp4", "user_metadata": {"owner": "ann"}, "tags": {"a": "b"}}
    cloud.copy(collected(cloud, cloud.version("film", 2_000, **stated)))
    source: Source = cloud.store.manifests[1].members[0].source
    assert {name: getattr(source, name) for name in stated} == stated
    assert source.sha256

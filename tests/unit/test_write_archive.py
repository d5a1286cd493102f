"""WriteArchive on ports in memory: one bad member holds back nobody, and every try ends in the same archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from neve.domain.bundle import BundleState, Lane, Limits
from neve.domain.events import parse
from neve.domain.index import FileRow
from neve.domain.manifest import Manifest
from neve.domain.outcome import Outcome
from neve.domain.parked import Reason
from neve.domain.tar import Rope
from neve.domain.version import ObjectVersion
from neve.errors import Busy, SourceChanged, SourceDamaged, SourceDenied, SourceFrozen, SourceUnfit, Transient
from neve.flows.write_archive import FORBEARANCE, PATIENCE
from neve.ports import StoredArchive
from tests.memory import CONTENT, MemoryArchiveStore, MemoryCloud, MemoryFiles

LIMITS = Limits(target_bytes=10_000, max_members=5_000, max_age_s=20)


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud(limits=LIMITS)


def collected(cloud: MemoryCloud, versions: Sequence[ObjectVersion]) -> str:
    """The id of the bundle that holds `versions`."""
    cloud.collect(versions)
    return str(cloud.bundles.lane(Lane.LIVE))


def reasons(cloud: MemoryCloud) -> list[tuple[Reason, str]]:
    return sorted((item.reason, item.version.key if item.version else "") for item in cloud.parking_lot.items.values())


def announced(cloud: MemoryCloud) -> list[ObjectVersion]:
    """What waits to be collected again."""
    return [version for message, _ in cloud.collect_queue.sent for version in parse(message, CONTENT).versions]


def fail(cloud: MemoryCloud, versions: Sequence[ObjectVersion], error: Exception) -> None:
    cloud.content.failures.update({version.key: error for version in versions})


def try_until_patience_ends(cloud: MemoryCloud, bundle_id: str) -> None:
    """All tries but the one at which members that cannot be read hold back the others no longer."""
    while cloud.bundles.rows[bundle_id].tries < PATIENCE - 1:
        with pytest.raises(Transient):
            cloud.write(bundle_id)


class DyingStore(MemoryArchiveStore):
    """An archive bucket that fails once, after the named call has taken effect, or before."""

    def __init__(self, cloud: MemoryCloud, call: str, *, after: bool) -> None:
        super().__init__(content=cloud.content)
        self.call, self.after = call, after

    def _once(self, call: str, after: bool) -> None:
        if (self.call, self.after) == (call, after):
            self.call = ""
            raise Transient("503")

    def put_manifest(self, manifest: Manifest) -> bool:
        self._once("put_manifest", False)
        done = super().put_manifest(manifest)
        self._once("put_manifest", True)
        return done

    def put(self, object_key: str, rope: Rope, sha256: str) -> StoredArchive | None:
        self._once("put", False)
        done = super().put(object_key, rope, sha256)
        self._once("put", True)
        return done


def frozen(cloud: MemoryCloud, versions: Sequence[ObjectVersion]) -> str:
    """A bundle whose manifest stands, and whose tar does not."""
    cloud.store = DyingStore(cloud, "put", after=False)
    bundle_id = collected(cloud, versions)
    with pytest.raises(Transient):
        cloud.write(bundle_id)
    assert list(cloud.store.manifests) == [1]
    assert not cloud.store.stated
    return bundle_id


def test_a_bundle_becomes_an_archive_with_a_row_for_each_version(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    written = cloud.write(collected(cloud, versions))
    assert (written.outcome, written.serial, written.files, written.source_bytes) == (Outcome.ARCHIVED, 1, 3, 300)
    assert written.oldest_at == versions[0].event_at
    cloud.verify(versions)


def test_a_second_message_for_a_bundle_that_is_done_does_nothing(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.write(bundle_id)
    assert cloud.write(bundle_id).outcome is Outcome.FINISHED_BEFORE
    assert cloud.bundles.drawn == 1


def test_a_timer_without_a_bundle_makes_it_void(cloud: MemoryCloud) -> None:
    assert cloud.write("unborn").outcome is Outcome.FINISHED_BEFORE
    assert cloud.bundles.rows["unborn"].state is BundleState.VOID


def test_an_empty_bundle_becomes_void_and_draws_no_serial(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.bundles.noted.clear()
    cloud.bundles.rows[bundle_id] = replace(cloud.bundles.rows[bundle_id], count=0, size_bytes=0)
    assert cloud.write(bundle_id).outcome is Outcome.VOID
    assert cloud.bundles.drawn == 0
    assert not cloud.parking_lot.items


def test_a_bundle_whose_parts_have_expired_is_parked(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.bundles.noted.clear()
    written = cloud.write(bundle_id)
    assert (written.outcome, written.parked) == (Outcome.VOID, 1)
    assert reasons(cloud) == [(Reason.PARTS_MISSING, "")]


def test_a_single_part_that_has_expired_is_noticed_and_the_rest_is_archived(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    for version in versions:
        bundle_id = collected(cloud, [version])
    cloud.bundles.noted[bundle_id].popitem()
    written = cloud.write(bundle_id)
    assert (written.outcome, written.files, written.parked) == (Outcome.ARCHIVED, 2, 1)
    [item] = cloud.parking_lot.items.values()
    assert (item.reason, item.bundle, item.detail) == (
        Reason.PARTS_MISSING,
        bundle_id,
        "3 versions were noted, 2 are left",
    )
    cloud.verify(versions[:2])


def test_a_part_that_nobody_counted_is_archived_and_hides_nothing(cloud: MemoryCloud) -> None:
    """Collect died between a refused growth and taking the part back."""
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions[:1])
    cloud.bundles.put_part(bundle_id, "late", versions[1:], cloud.now)
    assert cloud.write(bundle_id).files == 2
    assert not cloud.parking_lot.items
    cloud.verify(versions)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, Reason.SOURCE_GONE),
        (SourceChanged("412"), Reason.SOURCE_CHANGED),
        (SourceDenied("403"), Reason.SOURCE_DENIED),
        (SourceUnfit("400"), Reason.SOURCE_UNFIT),
        (SourceDamaged("checksum"), Reason.SOURCE_DAMAGED),
    ],
)
def test_one_bad_member_is_parked_and_its_neighbours_are_archived(
    cloud: MemoryCloud, error: Exception | None, reason: Reason
) -> None:
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    if error:
        cloud.content.failures[versions[1].key] = error
    else:
        del cloud.content.objects[versions[1].identity]
    written = cloud.write(bundle_id)
    assert (written.outcome, written.files, written.parked) == (Outcome.ARCHIVED, 2, 1)
    assert reasons(cloud) == [(reason, versions[1].key)]
    cloud.verify(versions, without=[versions[1]])


def test_a_file_that_changes_between_event_and_archiving_is_parked_as_changed(cloud: MemoryCloud) -> None:
    """Seen elsewhere: a mismatch is its own outcome. The newer version has its own event."""
    old, neighbour = cloud.version("a", 100, version_id="null"), cloud.version("b")
    bundle_id = collected(cloud, [old, neighbour])
    new = cloud.version("a", 101, version_id="null")
    cloud.content.objects[old.identity] = cloud.content.objects.pop(new.identity)
    cloud.write(bundle_id)
    assert reasons(cloud) == [(Reason.SOURCE_CHANGED, "a")]


def test_null_versions_of_one_key_are_told_apart_by_their_etags(cloud: MemoryCloud) -> None:
    versions = [cloud.version("a", size, version_id="null") for size in (1, 2, 3)]
    cloud.write(collected(cloud, versions))
    cloud.verify(versions)


def test_if_nothing_is_left_no_archive_is_written_and_no_serial_drawn(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    cloud.content.objects.clear()
    written = cloud.write(bundle_id)
    assert (written.outcome, written.serial, written.parked) == (Outcome.VOID, 0, 2)
    assert cloud.bundles.drawn == 0
    assert not cloud.store.manifests
    cloud.verify(versions, without=versions)


def test_a_transient_failure_raises_and_gives_the_lease_back_as_long_as_patience_lasts(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions[1:2], Transient("503"))
    for tries in range(1, PATIENCE):
        with pytest.raises(Transient, match=r"1 of 3 members .*file-001.*503"):
            cloud.write(bundle_id)
        assert cloud.bundles.rows[bundle_id].tries == tries
        assert cloud.bundles.rows[bundle_id].lease_owner == ""
    assert not cloud.parking_lot.items
    assert not cloud.store.manifests
    assert not cloud.collect_queue.sent
    cloud.content.failures.clear()
    assert cloud.write(bundle_id).files == 3


def test_tries_that_met_anothers_lease_do_not_use_up_the_patience(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    cloud.bundles.claim(bundle_id, owner="first", now=cloud.now, until=cloud.now + timedelta(seconds=40))
    for _ in range(PATIENCE):
        with pytest.raises(Busy):
            cloud.write(bundle_id, owner="second")
    cloud.bundles.release(bundle_id, owner="first")
    fail(cloud, versions[:1], Transient("503"))
    with pytest.raises(Transient):
        cloud.write(bundle_id)
    assert not cloud.collect_queue.sent


def test_what_keeps_failing_while_others_can_be_read_is_collected_again_for_a_day_and_then_parked(
    cloud: MemoryCloud,
) -> None:
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions[1:2], Transient("503"))
    try_until_patience_ends(cloud, bundle_id)
    written = cloud.write(bundle_id)
    assert (written.files, written.parked, written.collected_again) == (2, 0, 1)
    assert announced(cloud) == versions[1:2]
    assert not cloud.parking_lot.items
    cloud.drain()
    assert cloud.now > versions[1].event_at + FORBEARANCE
    assert reasons(cloud) == [(Reason.SOURCE_UNREADABLE, versions[1].key)]
    cloud.verify(versions, without=[versions[1]])


@pytest.mark.parametrize("younger", [False, True], ids=["a day old", "a second younger"])
def test_forbearance_ends_a_day_after_the_event(cloud: MemoryCloud, younger: bool) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions[:1], Transient("503"))
    try_until_patience_ends(cloud, bundle_id)
    cloud.now = versions[0].event_at + FORBEARANCE - timedelta(seconds=younger)
    written = cloud.write(bundle_id)
    assert (written.parked, written.collected_again) == ((0, 1) if younger else (1, 0))


def test_what_is_collected_again_is_archived_once_it_can_be_read(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions[1:2], Transient("503"))
    try_until_patience_ends(cloud, bundle_id)
    cloud.write(bundle_id)
    cloud.content.failures.clear()
    cloud.drain()
    assert not cloud.parking_lot.items
    cloud.verify(versions)


def test_when_all_of_s3_fails_nothing_is_parked_as_long_as_something_is_recent(cloud: MemoryCloud) -> None:
    old = cloud.version("old")
    cloud.now += FORBEARANCE
    versions = [old, *cloud.versions(2)]
    bundle_id = collected(cloud, versions)
    fail(cloud, versions, Transient("503"))
    for _ in range(10):
        with pytest.raises(Transient, match="3 of 3 members"):
            cloud.write(bundle_id)
    assert not cloud.parking_lot.items
    assert not cloud.collect_queue.sent
    cloud.now += FORBEARANCE
    written = cloud.write(bundle_id)
    assert (written.outcome, written.parked, written.collected_again) == (Outcome.VOID, 3, 0)
    cloud.verify(versions, without=versions)


def test_gone_members_are_not_parked_before_the_others_can_be_read(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    del cloud.content.objects[versions[0].identity]
    fail(cloud, versions[1:], Transient("503"))
    for _ in range(PATIENCE + 1):
        with pytest.raises(Transient):
            cloud.write(bundle_id)
    assert not cloud.parking_lot.items


@pytest.mark.parametrize("left", [1, 0])
def test_what_was_there_before_and_is_gone_before_its_turn_is_passed_over(cloud: MemoryCloud, left: int) -> None:
    """An inventory is days old: millions may have been deleted since, and nobody wants to hear of each."""
    versions = cloud.versions(2 + left)
    cloud.collector(Lane.BACKFILL).collect(versions, cloud.now)
    del cloud.content.objects[versions[0].identity]
    fail(cloud, versions[1:2], SourceChanged("other bytes"))
    written = cloud.write(str(cloud.bundles.lane(Lane.BACKFILL)))
    assert (written.files, written.gone, written.parked) == (left, 2, 0)
    assert written.outcome is (Outcome.ARCHIVED if left else Outcome.VOID)
    assert not cloud.parking_lot.items


def test_what_was_there_before_and_may_not_be_read_is_parked(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    cloud.collector(Lane.BACKFILL).collect(versions, cloud.now)
    fail(cloud, versions[:1], SourceDenied("403"))
    written = cloud.write(str(cloud.bundles.lane(Lane.BACKFILL)))
    assert (written.files, written.gone, written.parked) == (1, 0, 1)


def test_a_frozen_list_of_a_backfill_whose_member_is_gone_is_given_up(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    cloud.collector(Lane.BACKFILL).collect(versions, cloud.now)
    bundle_id = str(cloud.bundles.lane(Lane.BACKFILL))
    with patch.object(cloud.store, "put", side_effect=Transient("503")), pytest.raises(Transient):
        cloud.write(bundle_id)
    del cloud.content.objects[versions[0].identity]
    written = cloud.write(bundle_id)
    assert (written.outcome, written.gone, written.parked, written.collected_again) == (Outcome.VOID, 1, 0, 1)


def test_when_every_member_is_denied_the_bundle_waits_for_a_day(cloud: MemoryCloud) -> None:
    """A deployment took the permission away: that is no fault of the files."""
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions, SourceDenied("403"))
    for _ in range(PATIENCE + 1):
        with pytest.raises(Transient, match=r"2 of 2 members .*403"):
            cloud.write(bundle_id)
    assert not cloud.parking_lot.items
    cloud.content.failures.clear()
    assert cloud.write(bundle_id).files == 2
    cloud.verify(versions)


def test_when_every_member_is_still_denied_after_a_day_all_are_parked(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions, SourceDenied("403"))
    cloud.now += FORBEARANCE
    assert cloud.write(bundle_id).parked == 2
    assert {reason for reason, _ in reasons(cloud)} == {Reason.SOURCE_DENIED}
    cloud.verify(versions, without=versions)


def test_when_every_member_is_frozen_all_are_parked_at_once(cloud: MemoryCloud) -> None:
    """Tried for a day, millions of them that lie side by side would cost more than archiving them does."""
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions, SourceFrozen("403 InvalidObjectState"))
    assert cloud.write(bundle_id).parked == 2
    assert {reason for reason, _ in reasons(cloud)} == {Reason.SOURCE_DENIED}
    cloud.verify(versions, without=versions)


@pytest.mark.parametrize("neighbour", [None, "gone"])
def test_a_single_member_that_is_denied_is_parked_at_once(cloud: MemoryCloud, neighbour: str | None) -> None:
    versions = cloud.versions(2 if neighbour else 1)
    bundle_id = collected(cloud, versions)
    fail(cloud, versions[:1], SourceDenied("403"))
    for version in versions[1:]:
        del cloud.content.objects[version.identity]
    assert cloud.write(bundle_id).outcome is Outcome.VOID
    assert (Reason.SOURCE_DENIED, versions[0].key) in reasons(cloud)
    cloud.verify(versions, without=versions)


def test_versions_that_another_archive_holds_are_dropped(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    cloud.write(collected(cloud, versions[:2]))
    written = cloud.write(collected(cloud, versions))
    assert (written.files, written.duplicates) == (1, 2)
    cloud.verify(versions)


def test_a_bundle_of_nothing_but_duplicates_becomes_void(cloud: MemoryCloud) -> None:
    versions = cloud.versions(2)
    cloud.write(collected(cloud, versions))
    written = cloud.write(collected(cloud, versions))
    assert (written.outcome, written.duplicates, written.parked) == (Outcome.VOID, 2, 0)
    assert cloud.bundles.drawn == 1


def test_a_duplicate_that_the_read_missed_is_settled_by_its_row(cloud: MemoryCloud) -> None:
    class Late(MemoryFiles):
        """Eventually consistent at its worst."""

        def holders(self, versions: Sequence[ObjectVersion]) -> dict[tuple[str, str], int]:
            return {}

    cloud.files = Late()
    versions = cloud.versions(2)
    cloud.write(collected(cloud, versions))
    written = cloud.write(collected(cloud, versions))
    assert (written.outcome, written.serial, written.duplicates) == (Outcome.ARCHIVED, 2, 2)
    assert {row.archive for row in cloud.files.rows.values()} == {1}
    assert cloud.archives.rows[2].duplicates == 2
    cloud.verify(versions)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["put_manifest", "put"])
def test_a_try_that_fails_at_the_bucket_is_completed_by_the_next(cloud: MemoryCloud, call: str, after: bool) -> None:
    cloud.store = DyingStore(cloud, call, after=after)
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    with pytest.raises(Transient):
        cloud.write(bundle_id)
    assert cloud.write(bundle_id).outcome is Outcome.ARCHIVED
    assert (cloud.bundles.drawn, list(cloud.store.stated)) == (1, ["archives/0000000001.tar"])
    cloud.verify(versions)


def test_a_frozen_list_is_built_again_to_the_same_bytes_whatever_came_since(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    cloud.bundles.put_part(bundle_id, "late", [cloud.version("late")], cloud.now)
    written = cloud.write(bundle_id)
    assert (written.outcome, written.files) == (Outcome.ARCHIVED, 3)
    cloud.verify(versions)


def test_a_frozen_list_drops_nothing_that_another_archive_holds_by_now(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    row = FileRow(
        key=versions[0].key,
        version_id="v1",
        pin="v1",
        size_bytes=100,
        sha256="",
        md5="",
        last_modified=cloud.now,
        archive=99,
        number=0,
        offset_bytes=0,
    )
    cloud.files.rows[versions[0].identity] = row
    written = cloud.write(bundle_id)
    assert (written.files, written.duplicates) == (3, 1)
    assert cloud.files.rows[versions[0].identity] == row, "the first row stays"


@pytest.mark.parametrize("how", ["gone", "other bytes"])
def test_a_frozen_list_that_lost_a_member_is_given_up_and_the_others_are_collected_again(
    cloud: MemoryCloud, how: str
) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    if how == "gone":
        del cloud.content.objects[versions[1].identity]
    else:
        source, body = cloud.content.objects[versions[1].identity]
        cloud.content.objects[versions[1].identity] = (replace(source, sha256="0" * 64), body)
    written = cloud.write(bundle_id)
    assert (written.outcome, written.parked) == (Outcome.VOID, int(how == "gone"))
    expected = [versions[0], versions[2]] if how == "gone" else versions
    assert [version.identity for version in announced(cloud)] == [version.identity for version in expected]
    assert cloud.bundles.rows[bundle_id].state is BundleState.VOID
    assert not cloud.files.rows
    if how == "gone":
        cloud.drain()
        cloud.verify(versions, without=[versions[1]])


def test_a_frozen_list_waits_for_a_member_that_cannot_be_read_now(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    fail(cloud, versions[1:2], Transient("503"))
    try_until_patience_ends(cloud, bundle_id)
    assert cloud.bundles.rows[bundle_id].state is BundleState.SEALED
    cloud.content.failures.clear()
    cloud.write(bundle_id)
    cloud.verify(versions)


def test_a_frozen_list_of_which_nothing_can_be_read_waits_beyond_all_patience(cloud: MemoryCloud) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    fail(cloud, versions, Transient("503"))
    for _ in range(2 * PATIENCE):
        with pytest.raises(Transient):
            cloud.write(bundle_id)
    cloud.content.failures.clear()
    assert cloud.write(bundle_id).files == 3
    cloud.verify(versions)


@pytest.mark.parametrize("old", [False, True])
def test_a_frozen_list_with_a_member_that_stays_unreadable_is_given_up_and_collected_again(
    cloud: MemoryCloud, old: bool
) -> None:
    versions = cloud.versions(3)
    bundle_id = frozen(cloud, versions)
    fail(cloud, versions[1:2], Transient("503"))
    try_until_patience_ends(cloud, bundle_id)
    cloud.now += old * FORBEARANCE
    written = cloud.write(bundle_id)
    assert (written.outcome, written.serial) == (Outcome.VOID, 1)
    assert (written.parked, written.collected_again) == ((1, 2) if old else (0, 3))
    again = {version.identity for version in announced(cloud)}
    assert again == {version.identity for version in versions if not old or version != versions[1]}
    assert reasons(cloud) == ([(Reason.SOURCE_UNREADABLE, versions[1].key)] if old else [])
    cloud.drain()
    cloud.verify(versions, without=[versions[1]])


def test_a_frozen_list_whose_tar_stands_needs_no_member_any_more(cloud: MemoryCloud) -> None:
    cloud.store = DyingStore(cloud, "put", after=True)
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    with pytest.raises(Transient):
        cloud.write(bundle_id)
    cloud.content.objects.clear()
    assert cloud.write(bundle_id).outcome is Outcome.ARCHIVED
    cloud.verify(versions)


def test_another_tar_under_the_key_is_parked_and_its_files_are_archived_under_the_next_serial(
    cloud: MemoryCloud,
) -> None:
    versions = cloud.versions(2)
    bundle_id = collected(cloud, versions)
    body = b"something else"
    cloud.store.put("archives/0000000001.tar", Rope([body]), Rope([body]).sha256())
    written = cloud.write(bundle_id)
    assert (written.outcome, written.parked, written.collected_again) == (Outcome.CONFLICT, 1, 2)
    assert reasons(cloud) == [(Reason.ARCHIVE_CONFLICT, "")]
    assert cloud.bundles.rows[bundle_id].state is BundleState.VOID
    assert not cloud.files.rows
    assert not cloud.archives.rows
    assert cloud.store.objects["archives/0000000001.tar"] == body
    assert {version.identity for version in announced(cloud)} == {version.identity for version in versions}
    cloud.drain()
    cloud.verify(versions)
    assert list(cloud.archives.rows) == [2]


def set_back(cloud: MemoryCloud, drawn: int = 0) -> None:
    """The counter of serials goes back and the lane is as before the first bundle: the table was restored."""
    cloud.bundles.drawn = drawn
    cloud.bundles.named.clear()


@pytest.mark.parametrize("tar_stands", [True, False])
def test_a_manifest_of_another_bundle_under_the_serial_is_left_alone_and_the_next_serial_is_drawn(
    cloud: MemoryCloud, tar_stands: bool
) -> None:
    first, second = cloud.versions(2)
    if tar_stands:
        cloud.write(collected(cloud, [first]))
    else:
        frozen(cloud, [first])
    manifest = cloud.store.manifests[1]
    set_back(cloud)
    bundle_id = collected(cloud, [second])
    with pytest.raises(Transient, match=r"archive 1 .*gone back"):
        cloud.write(bundle_id)
    standing = cloud.bundles.rows[bundle_id]
    assert (standing.serial, standing.state, standing.lease_owner) == (0, BundleState.SEALED, "")
    written = cloud.write(bundle_id)
    assert (written.outcome, written.serial, written.files) == (Outcome.ARCHIVED, 2, 1)
    assert cloud.store.manifests[1] == manifest
    cloud.drain()
    cloud.verify([first, second])


def test_a_serial_of_another_that_was_recorded_before_the_manifest_came_is_given_back_too(cloud: MemoryCloud) -> None:
    """The try that drew it died before it met the manifest."""
    first, second = cloud.versions(2)
    cloud.write(collected(cloud, [first]))
    set_back(cloud)
    bundle_id = collected(cloud, [second])
    cloud.bundles.claim(bundle_id, owner="dead", now=cloud.now, until=cloud.now)
    cloud.bundles.assign_serial(bundle_id)
    cloud.bundles.release(bundle_id, owner="dead")
    with pytest.raises(Transient, match="gone back"):
        cloud.write(bundle_id)
    assert cloud.bundles.rows[bundle_id].serial == 0
    cloud.drain()
    cloud.verify([first, second])


def test_a_counter_that_went_far_back_costs_a_try_for_each_serial_and_no_file(cloud: MemoryCloud) -> None:
    versions = cloud.versions(8)
    for version in versions[:5]:
        cloud.write(collected(cloud, [version]))
    set_back(cloud)
    bundle_id = collected(cloud, versions[5:])
    for _ in range(5):
        with pytest.raises(Transient, match="gone back"):
            cloud.write(bundle_id)
    assert cloud.write(bundle_id).serial == 6
    cloud.verify(versions)


def test_another_manifest_of_the_same_bundle_is_adopted(cloud: MemoryCloud) -> None:
    """Two writers of one bundle: one could not read a member, and was first."""
    versions = cloud.versions(3)
    bundle_id = collected(cloud, versions)
    other = MemoryCloud(limits=LIMITS)
    frozen(other, other.versions(2))
    manifest = other.store.manifests[1]

    class Raced(MemoryArchiveStore):
        def put_manifest(self, manifest: Manifest) -> bool:
            self.manifests.update(other.store.manifests)
            return super().put_manifest(manifest)

    cloud.store = Raced(content=cloud.content)
    assert cloud.write(bundle_id).files == 2
    assert cloud.store.manifests == {1: manifest}


@pytest.mark.parametrize("rows_stand", [True, False], ids=["rows stand", "rows lost"])
def test_a_manifest_of_another_bundle_that_lists_nothing_but_announced_versions_loses_none_of_the_rest(
    cloud: MemoryCloud, rows_stand: bool
) -> None:
    """After the tables were restored, everything is announced again, in other bundles."""
    versions = cloud.versions(3)
    cloud.write(collected(cloud, versions[:2]))
    manifest = cloud.store.manifests[1]
    if not rows_stand:
        cloud.archives.rows.clear()
        cloud.files.rows.clear()
    set_back(cloud)
    collected(cloud, versions)
    cloud.drain()
    cloud.verify(versions)
    assert cloud.store.manifests[1] == manifest
    assert not cloud.parking_lot.items


def test_a_row_of_another_bundle_is_never_taken_for_ones_own(cloud: MemoryCloud) -> None:
    """The bucket lost a manifest whose archive's row stands."""
    first, second = cloud.versions(2)
    cloud.write(collected(cloud, [first]))
    row = cloud.archives.rows[1]
    cloud.store.manifests.clear()
    cloud.store.stated.clear()
    set_back(cloud)
    bundle_id = collected(cloud, [second])
    with pytest.raises(Transient, match=r"archive 1 .*gone back"):
        cloud.write(bundle_id)
    assert cloud.archives.rows == {1: row}
    assert second.identity not in cloud.files.rows
    assert cloud.write(bundle_id).serial == 2
    assert cloud.archives.rows[1] == row
    assert cloud.files.rows[second.identity].archive == 2


@pytest.mark.parametrize("call", ["put_manifest", "put"])
def test_what_another_is_just_writing_is_awaited(cloud: MemoryCloud, call: str) -> None:
    class Conflict(MemoryArchiveStore):
        """409: refused, and nothing to be seen yet."""

        def put_manifest(self, manifest: Manifest) -> bool:
            return call != "put_manifest" and super().put_manifest(manifest)

        def put(self, object_key: str, rope: Rope, sha256: str) -> StoredArchive | None:
            return None

    cloud.store = Conflict(content=cloud.content)
    bundle_id = collected(cloud, cloud.versions(1))
    with pytest.raises(Transient, match="being written by another"):
        cloud.write(bundle_id)
    assert cloud.bundles.rows[bundle_id].lease_owner == ""


def test_a_second_message_is_told_how_long_the_lease_still_runs(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.bundles.claim(bundle_id, owner="first", now=cloud.now, until=cloud.now + timedelta(seconds=40))
    cloud.now += timedelta(seconds=10)
    with pytest.raises(Busy) as caught:
        cloud.write(bundle_id, owner="second")
    assert caught.value.retry_after_s == 31
    assert cloud.bundles.rows[bundle_id].lease_owner == "first", "a refused claim ends nobody's lease"


def test_a_lease_that_has_ended_holds_back_nobody(cloud: MemoryCloud) -> None:
    """Seen elsewhere: one dead worker blocks the key for ever."""
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.bundles.claim(bundle_id, owner="dead", now=cloud.now, until=cloud.now + timedelta(seconds=40))
    cloud.now += timedelta(seconds=42)
    assert cloud.write(bundle_id, owner="second").outcome is Outcome.ARCHIVED


def test_the_same_message_may_try_again_under_its_own_lease(cloud: MemoryCloud) -> None:
    bundle_id = collected(cloud, cloud.versions(1))
    cloud.bundles.claim(bundle_id, owner="mine", now=cloud.now, until=cloud.now + timedelta(seconds=40))
    assert cloud.write(bundle_id, owner="mine").outcome is Outcome.ARCHIVED


def test_rows_that_were_written_in_half_are_completed(cloud: MemoryCloud) -> None:
    """Seen elsewhere: rows for the archive and for its files are committed apart."""

    class Half(MemoryFiles):
        died = False

        def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
            if not self.died:
                self.died = True
                super().record(rows[:2])
                raise Transient("503")
            return super().record(rows)

    cloud.files = Half()
    versions = cloud.versions(5)
    bundle_id = collected(cloud, versions)
    with pytest.raises(Transient):
        cloud.write(bundle_id)
    written = cloud.write(bundle_id)
    assert (written.outcome, written.duplicates) == (Outcome.ARCHIVED, 0)
    cloud.verify(versions)


def test_a_bundle_of_2000_members_in_many_parts_is_one_archive(cloud: MemoryCloud) -> None:
    versions = [cloud.version(f"{number}", 3) for number in range(2_000)]
    for start in range(0, 2_000, 20):
        cloud.collect(versions[start : start + 20])
    assert cloud.write(cloud.bundles.lane(Lane.LIVE)).files == 2_000
    cloud.verify(versions)


def test_members_are_sorted_and_the_bytes_depend_on_nothing_but_the_members() -> None:
    tars = []
    for order in (1, -1):
        cloud = MemoryCloud(limits=LIMITS)
        versions = cloud.versions(5)[::order]
        for version in versions:
            cloud.collect([version])
        cloud.now += timedelta(hours=order + 2)
        for _ in range(order + 2):
            fail(cloud, versions, Transient("503"))
            with pytest.raises(Transient):
                cloud.write(cloud.bundles.lane(Lane.LIVE))
        cloud.content.failures.clear()
        cloud.write(cloud.bundles.lane(Lane.LIVE))
        tars.append(cloud.store.objects["archives/0000000001.tar"])
    assert tars[0] == tars[1]


def test_what_travels_with_a_file_is_in_the_manifest(cloud: MemoryCloud) -> None:
    stated: dict[str, Any] = {
        "content_type": "image/png",
        "content_encoding": "gzip",
        "cache_control": "max-age=1",
        "user_metadata": {"owner": "ann"},
        "tags": {"kind": "photo"},
        "checksums": {"CRC64NVME": "AAAAAAAAAAA="},
    }
    cloud.write(collected(cloud, [cloud.version("a", **stated)]))
    source = cloud.store.manifests[1].members[0].source
    assert {name: getattr(source, name) for name in stated} == stated


def test_an_archive_counts_as_archived_when_its_last_row_stands_and_not_before(cloud: MemoryCloud) -> None:
    class SlowFiles(MemoryFiles):
        def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
            cloud.now += timedelta(seconds=7)
            return super().record(rows)

    cloud.files = SlowFiles()
    cloud.write(collected(cloud, [cloud.version("a")]))
    (row,) = cloud.archives.rows.values()
    assert row.archived_at - row.written_at == timedelta(seconds=7)

"""WriteArchive and CopyLarge die after any call that changes something at AWS while they repair, and run again.

Afterwards each version that can be saved has one row, which names the superseding archive, and the damaged archive is
marked. Members come from the content bucket, and from the damaged archive where that has lost them.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from neve.aws import clients
from neve.domain.index import ArchiveState
from neve.domain.parked import Reason
from neve.domain.version import ObjectVersion
from neve.flows.repair import Repairer
from tests.contract.test_crash import sweep_all
from tests.moto_cloud import ARCHIVE, CONTENT, Killed, MotoCloud, moto_cloud

TARGET = 4_000


def damaged(cloud: MotoCloud) -> dict[str, ObjectVersion]:
    """The versions of a tar and of a large object, archived and thawed; what has become of their sources."""
    versions = {
        "intact": cloud.upload("intact", b"i" * 700),
        "gone": cloud.upload("gone", b"g" * 700, ContentType="text/plain", Metadata={"a": "b"}),
        "large": cloud.upload("large", b"l" * (TARGET + 1)),
    }
    cloud.announce(*versions.values())
    cloud.run()
    sweep_all(cloud)
    cloud.run()
    for archive in cloud.archives.all():
        clients.s3().restore_object(Bucket=ARCHIVE, Key=archive.object_key, RestoreRequest={"Days": 1})
    cloud.glacier.complete()
    clients.s3().delete_object(Bucket=CONTENT, Key="gone", VersionId=versions["gone"].version_id)
    return versions


def order(cloud: MotoCloud, versions: dict[str, ObjectVersion]) -> None:
    """A repair of both archives; of one version that the tar is said to hold nobody knows anything."""
    repairer = Repairer(bundles=cloud.bundles, bundles_queue=cloud.queue("bundles"), large_queue=cloud.queue("large"))
    for archive in [found for found in cloud.archives.all() if not found.superseded_by]:
        unknown = ObjectVersion(
            key="unknown", version_id="v1", size_bytes=1, etag="e", sequencer="", event_at=datetime.now(UTC)
        )
        small = [versions["intact"], versions["gone"], unknown]
        held = [versions["large"]] if archive.kind == "object" else small
        repairer.order(archive, held, run="run", now=datetime.now(UTC))


def verify(cloud: MotoCloud, versions: dict[str, ObjectVersion]) -> None:
    rows = {row.key: row for row in cloud.all_files()}
    assert set(rows) == set(versions)
    archives = {archive.serial: archive for archive in cloud.archives.all()}
    assert all(archive.state is ArchiveState.ARCHIVED for archive in archives.values())
    assert not any(archive.duplicates for archive in archives.values())
    for key, row in rows.items():
        manifest = cloud.store.manifest(row.archive)
        assert manifest is not None
        assert manifest.supersedes is not None
        assert archives[manifest.supersedes].superseded_by == row.archive > manifest.supersedes
        member = manifest.members[row.number]
        assert (member.source.identity, member.source.sha256) == (versions[key].identity, row.sha256)
        assert row.sha256 == hashlib.sha256(key[:1].encode() * row.size_bytes).hexdigest()
    gone = cloud.store.manifest(rows["gone"].archive)
    assert gone is not None
    assert (gone.members[0].source.content_type, gone.members[0].source.user_metadata) == ("text/plain", {"a": "b"})
    assert [(item.reason, item.version and item.version.key) for _, item in cloud.parking_lot.all()] == [
        (Reason.LOST, "unknown")
    ]
    assert not cloud.bundles.unfinished()
    assert {key for key in cloud.archived_keys() if key.startswith("archives/")} == {
        archive.object_key for archive in archives.values()
    }


def live_through(cloud: MotoCloud, versions: dict[str, ObjectVersion], *, kill_at: int, kill_after: bool) -> int:
    """A repair of a tar and of a large object, with a death in it: how often the process died."""
    cloud.kill_at, cloud.kill_after = kill_at, kill_after
    deaths = 0
    while True:
        try:
            cloud.run()
        except Killed:
            deaths += 1
            continue
        break
    sweep_all(cloud)
    cloud.run()
    verify(cloud, versions)
    return deaths


SLICES = 4
"""The deaths are dealt out to so many tests, which run side by side."""


@pytest.mark.parametrize("part", range(SLICES))
def test_dying_after_any_call_that_changes_something_is_mended_by_the_next_try(part: int) -> None:
    """Dying before a call, or after one that reads, is dying after the last that wrote: AWS cannot tell them apart."""
    with moto_cloud(target_bytes=TARGET) as cloud:
        versions = damaged(cloud)
        order(cloud, versions)
        state = cloud.state()
        cloud.begin_again(state)
        assert live_through(cloud, versions, kill_at=0, kill_after=False) == 0
        writes = cloud.writes
        assert len(writes) > 20
        for number in [0, *writes][part::SLICES]:  # 0: before the first call
            cloud.begin_again(state)
            deaths = live_through(cloud, versions, kill_at=max(number, 1), kill_after=number > 0)
            assert deaths == 1, f"call {number}"

"""Collect, WriteArchive and CopyLarge die between any two of their calls to AWS, and run again.

Every call is tried: a first run counts them. Afterwards nothing is lost, nothing is doubled in the index, and no object
stands that no row knows, but for a void bundle's manifest or tar.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neve.aws import clients
from neve.domain.bundle import Lane
from neve.domain.index import ArchiveState
from neve.domain.version import ObjectVersion
from tests.moto_cloud import ARCHIVE, Killed, MotoCloud, moto_cloud

TARGET = 4_000


def upload_some(cloud: MotoCloud) -> list[ObjectVersion]:
    """Enough for a bundle that is full, one that its timer ends, and a large object."""
    bodies = {f"photos/{number}.jpg": bytes([number]) * 1500 for number in range(4)}
    bodies["film.mp4"] = b"f" * (TARGET + 1)
    bodies["empty"] = b""
    return [cloud.upload(key, body) for key, body in bodies.items()]


def sweep_all(cloud: MotoCloud) -> None:
    """What the sweep does once everything is overdue."""
    later = datetime.now(UTC) + timedelta(days=1)
    for bundle in (each for lane in Lane for each in cloud.bundles.overdue(lane, later)):
        name = "large" if bundle.kind == "object" else "bundles"
        cloud.queue(name).send(f'{{"bundle": "{bundle.id}"}}')


def verify(cloud: MotoCloud, versions: list[ObjectVersion]) -> None:
    rows = {(row.key, row.pin): row for row in cloud.all_files()}
    assert set(rows) == {version.identity for version in versions}, "each version has one row, and nothing else has"
    archives = {archive.serial: archive for archive in cloud.archives.all()}
    assert all(archive.state is ArchiveState.ARCHIVED for archive in archives.values())
    manifests = {serial: cloud.store.manifest(serial) for serial in archives}
    for serial, archive in archives.items():
        manifest = manifests[serial]
        assert manifest is not None
        answer = clients.s3().get_object_attributes(
            Bucket=ARCHIVE, Key=archive.object_key, ObjectAttributes=["StorageClass", "ObjectSize"]
        )
        assert answer["StorageClass"] == "GLACIER"
        assert archive.size_bytes == manifest.object_size_bytes == answer["ObjectSize"]
    for (key, pin), row in rows.items():
        manifest = manifests[row.archive]
        assert manifest is not None
        member = manifest.members[row.number]
        assert (member.source.key, member.source.pin, member.offset_bytes) == (key, pin, row.offset_bytes)
    assert not cloud.bundles.unfinished()
    assert not list(cloud.parking_lot.all())
    known = {archive.object_key for archive in archives.values()}
    orphans = {key for key in cloud.archived_keys() if key.startswith("archives/")} - known
    assert not orphans


def live_through(cloud: MotoCloud, versions: list[ObjectVersion], *, kill_at: int, kill_after: bool) -> int:
    """One life with a death in it: how often the process died."""
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
def test_dying_after_any_call_to_aws_loses_and_doubles_nothing(part: int) -> None:
    """Dying before a call, or after one that reads, is dying after the last that wrote: AWS cannot tell them apart."""
    with moto_cloud(target_bytes=TARGET) as cloud:
        versions = upload_some(cloud)
        cloud.announce(*versions)
        state = cloud.state()
        assert live_through(cloud, versions, kill_at=0, kill_after=False) == 0
        writes = cloud.writes
        assert len(writes) > 25
        for number in [0, *writes][part::SLICES]:  # 0: before the first call
            cloud.begin_again(state)
            deaths = live_through(cloud, versions, kill_at=max(number, 1), kill_after=number > 0)
            assert deaths == 1, f"call {number}"

"""A content bucket that keeps no versions, or no longer: on moto, archived, overwritten, restored and compared.

S3 gives such an object the version id `null` and overwrites it in place. What is told apart by it has to hold the ETag
beside it, wherever S3 has answered it: events, restores, listings, audits.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from neve.aws import clients
from neve.aws.content_listing import S3ContentListing
from neve.domain.manifest import Member
from neve.domain.restore import Ending, Request, Wanted, render_request
from neve.domain.thaw import Need, Tier
from neve.domain.verdict import Sight
from neve.domain.version import ObjectVersion
from neve.flows.witness import Witness
from tests.moto_cloud import CONTENT, MotoCloud, moto_cloud

TARGET = 1_000
FILM = b"f" * (TARGET + 1)


@pytest.fixture(params=["never versioned", "suspended"])
def cloud(request: pytest.FixtureRequest) -> Iterator[MotoCloud]:
    s3 = clients.s3
    with moto_cloud(target_bytes=TARGET) as made:
        if request.param == "suspended":
            made.upload("a", b"from when versions were kept")
            s3().put_bucket_versioning(Bucket=CONTENT, VersioningConfiguration={"Status": "Suspended"})
        else:
            s3().delete_bucket(Bucket=CONTENT)
            s3().create_bucket(Bucket=CONTENT)
        yield made


def archived(cloud: MotoCloud, key: str, body: bytes) -> ObjectVersion:
    version = cloud.upload(key, body)
    assert version.version_id == "null"
    cloud.announce(version)
    cloud.run()
    return version


def restore(cloud: MotoCloud, job: str, version: ObjectVersion, to: str) -> ObjectVersion:
    """Restore a version over whatever stands at `to`; what stands there then, as S3's event tells it."""
    wanted = Wanted(key=version.key, pin=version.pin, destination=f"s3://{CONTENT}/{to}")
    need, now = Need(tier=Tier.STANDARD, days=1), datetime.now(UTC).replace(year=2100)
    request = Request(
        job=job, chunk=1, chunks=1, created_at=now, need=need, overwrite=True, estimate_usd=0, items=(wanted,)
    )
    cloud.queue("requests").send(render_request(request))
    cloud.run()
    cloud.complete_thaws()
    cloud.run()
    assert [result.ending for result in cloud.restores.results(job)] == [Ending.RESTORED]
    head = clients.s3().head_object(Bucket=CONTENT, Key=to)
    assert head.get("VersionId", "null") == "null"
    return ObjectVersion(
        key=to,
        version_id="null",
        size_bytes=head["ContentLength"],
        etag=head["ETag"].strip('"'),
        sequencer="",
        event_at=head["LastModified"],
    )


def member(cloud: MotoCloud, version: ObjectVersion) -> Member:
    row = cloud.files.get([version.identity])[version.identity]
    manifest = cloud.store.manifest(row.archive)
    assert manifest is not None
    return manifest.members[row.number]


def test_what_is_restored_is_known_by_its_etag_and_archived_once(cloud: MotoCloud) -> None:
    one, two, film = archived(cloud, "a", b"one"), archived(cloud, "a", b"two, longer"), archived(cloud, "film", FILM)
    archives = [row.serial for row in cloud.archives.all()]
    clients.s3().delete_object(Bucket=CONTENT, Key="film")

    restored = [
        restore(cloud, "job-1", one, "a"),
        restore(cloud, "job-2", film, "film"),
        restore(cloud, "job-3", one, "b"),
        restore(cloud, "job-4", two, "b"),
        restore(cloud, "job-5", film, "other film"),
    ]
    assert [version.identity for version in restored[:2]] == [one.identity, film.identity]
    cloud.announce(*restored)
    cloud.run()
    assert [row.serial for row in cloud.archives.all()] == archives, "nothing is archived a second time"

    held = {(row.key, row.pin): (row.version_id, row.sha256) for row in cloud.all_files()}
    for source, key in ((one, "a"), (two, "a"), (film, "film"), (one, "b"), (two, "b"), (film, "other film")):
        assert held.pop((key, source.pin)) == ("null", member(cloud, source).source.sha256)
    assert not held, "no row hides another one"

    listed = S3ContentListing(clients.s3(), CONTENT).versions("", "")
    null = {version.identity for version in listed if version.version_id == "null"}
    assert null == {one.identity, ("b", two.pin), film.identity, ("other film", film.pin)}
    assert set(cloud.files.get(list(null))) == null, "a reconciliation misses nothing"
    assert not list(cloud.parking_lot.all())


def test_an_audit_reads_what_was_archived_and_says_changed_of_what_was_overwritten(cloud: MotoCloud) -> None:
    one, film = archived(cloud, "a", b"one"), archived(cloud, "film", FILM)
    archived(cloud, "a", b"two")
    witness = Witness(sources=cloud.sources, read=True, threads=1)
    assert witness.see(member(cloud, one).source).sight is Sight.CHANGED
    assert witness.see(member(cloud, film).source).sight is Sight.READ
    restore(cloud, "job-1", one, "a")
    assert witness.see(member(cloud, one).source).sight is Sight.READ
    clients.s3().delete_object(Bucket=CONTENT, Key="film")
    assert witness.see(member(cloud, film).source).sight is Sight.GONE


def test_a_large_object_that_is_overwritten_before_it_is_copied_is_not_passed_off_as_the_other(
    cloud: MotoCloud,
) -> None:
    film = cloud.upload("film", FILM)
    other = cloud.upload("film", FILM[::-1] + b"!")
    cloud.announce(film, other)
    cloud.run()
    assert [(row.pin, row.size_bytes) for row in cloud.all_files()] == [(other.pin, other.size_bytes)]
    [(_, parked)] = cloud.parking_lot.all()
    assert parked.version == film

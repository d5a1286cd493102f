"""What neve.ports promises of drills and their copies, held against memory and the adapters (moto)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from neve.aws import clients
from neve.aws.drill_copies import S3DrillCopies
from neve.aws.drills_table import DynamoDrills
from neve.domain.digest import Digest, hashed
from neve.domain.drill import (
    Comparison,
    Drawn,
    Drill,
    DrillState,
    Outcome,
)
from neve.domain.events import DRILL_PREFIX
from neve.domain.version import ObjectVersion
from neve.errors import NeveError, SourceDenied, SourceGone, Transient
from neve.ports import Drills
from tests.bad_keys import BAD_KEYS
from tests.memory_drill import MemoryDrills
from tests.moto_cloud import AUDITS, CONTENT, ELSEWHERE, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, 0, 123457, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ID = "20260901T120000-0a1b2c"
FOLDER = f"{DRILL_PREFIX}{ID}/"
PLACE = f"s3://{ELSEWHERE}/{FOLDER}1"


@pytest.fixture(scope="module")
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        yield made


@pytest.fixture(params=["memory", "aws"])
def drills(request: pytest.FixtureRequest) -> Drills:
    if request.param == "memory":
        return MemoryDrills()
    request.getfixturevalue("cloud")
    client = clients.dynamodb()
    for item in client.scan(TableName=AUDITS)["Items"]:
        client.delete_item(TableName=AUDITS, Key={"pk": item["pk"], "sk": item["sk"]})
    return DynamoDrills(client, AUDITS)


def drill(drill_id: str = ID, **changes: Any) -> Drill:
    files = tuple(
        Drawn(
            version=ObjectVersion(
                key=key, version_id="v", size_bytes=5, etag="e", sequencer="", event_at=NOW - timedelta(days=1)
            ),
            archive=17,
            number=number,
            digest=Digest(size_bytes=5, sha256="aa" * 32, md5="bb" * 16, crc64nvme="x="),
        )
        for number, key in enumerate(BAD_KEYS)
    )
    made = Drill(
        id=drill_id, started_at=NOW, buckets=(ELSEWHERE, CONTENT), files=files, collection=1_000, due_at=NOW + MINUTE
    )
    return replace(made, **changes)


# -- Drills ----------------------------------------------------------------------------------------------------------


def test_a_drill_is_frozen_once(drills: Drills) -> None:
    assert drills.get(ID) is None
    first = drills.create(drill())
    assert first == replace(drill(), revision=1)
    assert drills.create(drill(collection=7)) == first == drills.get(ID)


def test_everything_about_a_drill_is_kept(drills: Drills) -> None:
    first = drills.create(drill(nameless=("file 1.2: gone",)))
    found = tuple(Comparison(place=PLACE, outcome=outcome, detail=f"{outcome}: ü") for outcome in Outcome)
    changed = replace(
        first,
        state=DrillState.COMPARED,
        compared={1: found, 3: found[:1]},
        restored_at=NOW + MINUTE,
        compared_at=NOW + 2 * MINUTE,
        late_told_at=NOW + 3 * MINUTE,
        due_at=NOW + 4 * MINUTE,
    )
    swapped = drills.swap(first, changed)
    assert swapped == replace(changed, revision=2) == drills.get(ID)


def test_of_two_who_change_a_drill_one_is_refused(drills: Drills) -> None:
    first = drills.create(drill())
    assert drills.swap(first, replace(first, collection=1)) is not None
    assert drills.swap(first, replace(first, collection=2)) is None
    standing = drills.get(ID)
    assert standing is not None
    assert standing.collection == 1


def test_drills_are_listed_by_time(drills: Drills) -> None:
    ids = [f"2026090{day}T120000-0a1b2c" for day in (1, 2, 3)]
    for drill_id in (ids[1], ids[0], ids[2]):
        drills.create(drill(drill_id))
    assert [each.id for each in drills.all()] == ids[::-1]
    assert [each.id for each in drills.all(newest_first=False)] == ids


def test_the_sweep_sees_a_drill_that_is_due_until_it_is_done(drills: Drills) -> None:
    first = drills.create(drill())
    assert list(drills.due(NOW + MINUTE)) == []
    assert list(drills.due(NOW + 2 * MINUTE)) == [first]
    drills.swap(first, replace(first, state=DrillState.DONE, due_at=None))
    assert list(drills.due(NOW + 2 * MINUTE)) == []


def test_since_when_drills_are_looked_after_is_noted_once(drills: Drills) -> None:
    assert drills.watched_since(NOW) == NOW
    assert drills.watched_since(NOW + MINUTE) == NOW


# -- Copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copies(cloud: MotoCloud) -> S3DrillCopies:
    return S3DrillCopies(clients.s3())


def put(bucket: str, key: str, body: bytes = b"bytes", **extra: Any) -> None:
    clients.s3().put_object(Bucket=bucket, Key=key, Body=body, **extra)


def test_a_copy_is_read_as_it_is(copies: S3DrillCopies) -> None:
    assert copies.describe(PLACE) is None
    with pytest.raises(SourceGone):
        list(copies.stream(PLACE))
    put(ELSEWHERE, f"{FOLDER}1", ChecksumAlgorithm="SHA256")
    described = copies.describe(PLACE)
    assert described is not None
    seen = hashed(copies.stream(PLACE))
    assert (described.size_bytes, described.sha256) == (seen.size_bytes, seen.sha256)
    assert seen == hashed([b"bytes"])


@pytest.mark.parametrize(
    ("code", "status", "expected"), [("AccessDenied", 403, SourceDenied), ("SlowDown", 503, Transient)]
)
def test_what_cannot_be_read_is_told_from_what_is_not_there(
    copies: S3DrillCopies, code: str, status: int, expected: type[Exception]
) -> None:
    with Stubber(clients.s3()) as stub:
        stub.add_client_error("head_object", service_error_code=code, http_status_code=status)
        with pytest.raises(expected):
            copies.describe(PLACE)


def test_all_versions_in_a_drill_s_folder_are_deleted_and_nothing_else(copies: S3DrillCopies) -> None:
    for key in (f"{FOLDER}1", f"{FOLDER}1", f"{FOLDER}2", f"{DRILL_PREFIX}20260901T120000-0a1b2d/1", "file"):
        put(CONTENT, key)
    clients.s3().delete_object(Bucket=CONTENT, Key=f"{FOLDER}2")
    assert copies.clear(CONTENT, FOLDER) == 4
    assert copies.clear(CONTENT, FOLDER) == 0
    left = clients.s3().list_object_versions(Bucket=CONTENT)
    assert [each["Key"] for each in left["Versions"]] == [f"{DRILL_PREFIX}20260901T120000-0a1b2d/1", "file"]
    assert "DeleteMarkers" not in left


@pytest.mark.parametrize("folder", ["", "photos/", DRILL_PREFIX, f"{DRILL_PREFIX}x", f"/{DRILL_PREFIX}x/"])
def test_only_a_drill_s_folder_can_be_cleared(copies: S3DrillCopies, folder: str) -> None:
    with pytest.raises(ValueError, match="no drill's folder"):
        copies.clear(CONTENT, folder)


@pytest.mark.parametrize(("code", "expected"), [("AccessDenied", NeveError), ("SlowDown", Transient)])
def test_a_copy_that_cannot_be_deleted_is_an_error(
    copies: S3DrillCopies, code: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(ELSEWHERE, f"{FOLDER}9")
    refused = {"Errors": [{"Key": f"{FOLDER}9", "Code": code}]}
    monkeypatch.setattr(copies.client, "delete_objects", lambda **_: refused)
    with pytest.raises(expected) as raised:
        copies.clear(ELSEWHERE, FOLDER)
    assert type(raised.value) is expected

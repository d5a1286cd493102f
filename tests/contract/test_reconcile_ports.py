"""What neve.ports promises to reconcile, held against the ports in memory and the adapters (moto), and the function."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, quote_plus

import pytest

import reconcile
from neve.aws import clients, invocation
from neve.aws.content_listing import S3ContentListing
from neve.aws.inventory import NEEDED, S3Inventory
from neve.aws.reconciles_table import DynamoReconciles
from neve.config import environment
from neve.domain.index import FileRow
from neve.domain.manifest import manifest_key
from neve.domain.parked import Parked, Reason
from neve.domain.reconcile import EXAMPLES, Finding, Outcome, Pass, PassState, Place, ShardRow
from neve.errors import InventoryInvalid, NeveError
from neve.ports import Files, ParkingLot, Reconciles
from tests.bad_keys import BAD_KEYS
from tests.memory import MemoryFiles, MemoryParkingLot
from tests.memory_reconcile import MemoryReconciles
from tests.moto_cloud import ARCHIVE, AUDITS, CONTENT, ELSEWHERE, FILES, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, 0, 123457, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass
class Ports:
    """The ports of one cloud."""

    passes: Reconciles
    files: Files
    parking_lot: ParkingLot


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        yield made


@pytest.fixture(params=["memory", "aws"])
def ports(request: pytest.FixtureRequest) -> Ports:
    if request.param == "aws":
        cloud: MotoCloud = request.getfixturevalue("cloud")
        passes = DynamoReconciles(clients.dynamodb(), AUDITS)
        return Ports(passes=passes, files=cloud.files, parking_lot=cloud.parking_lot)
    return Ports(passes=MemoryReconciles(), files=MemoryFiles(), parking_lot=MemoryParkingLot())


# Passes and shards

PASS = Pass(
    id="20260901T120000-aaaaaa",
    begun_at=NOW,
    boundaries=("a", "\u00fc\0"),
    inventory="reports/manifest.json",
    inventory_files=2,
    serials=7,
)


def test_a_pass_comes_back_as_it_was_begun_and_is_begun_once(ports: Ports) -> None:
    assert ports.passes.get(PASS.id) is None
    assert ports.passes.open(PASS) == PASS == ports.passes.get(PASS.id)
    assert ports.passes.open(replace(PASS, serials=99)) == PASS
    other = ports.passes.open(Pass(id="20260902T120000-bbbbbb", begun_at=NOW, refused="no inventory"))
    assert list(ports.passes.passes()) == [other, PASS]
    assert list(ports.passes.passes(newest_first=False)) == [PASS, other]


def test_a_shard_changes_only_for_who_saw_it_last_and_counts_to_its_pass_once(ports: Ports) -> None:
    ports.passes.open(PASS)
    new = ports.passes.shard(PASS.id, 3)
    assert new == ShardRow(of=PASS.id, number=3)
    assert list(ports.passes.shards(PASS.id)) == []
    leased = ports.passes.swap(new, replace(new, lease_owner="me", leased_until=NOW + MINUTE, changed_at=NOW))
    assert leased is not None
    assert leased == ports.passes.shard(PASS.id, 3)
    assert ports.passes.swap(new, replace(new, lease_owner="other")) is None
    found = Finding(outcome=Outcome.MISSING, archive=4, key="a\0\u202e", pin="v", detail="d")
    moved = replace(
        leased,
        place=Place(key="k\0", version_id="v", number=9),
        counts={Outcome.MISSING: 1, Outcome.RECONCILED: 10**9},
        findings=(found,),
    )
    seen = ports.passes.swap(leased, moved)
    assert seen == replace(moved, revision=2) == ports.passes.shard(PASS.id, 3)
    assert ports.passes.get(PASS.id) == PASS
    done = replace(moved, done=True, lease_owner="", leased_until=None)
    assert ports.passes.swap(leased, done) is None
    ended = ports.passes.swap(seen, done)
    assert ended == replace(done, revision=3)
    assert ports.passes.swap(seen, done) is None
    this = ports.passes.get(PASS.id)
    assert this is not None
    assert this.done_shards == 1
    later = ports.passes.swap(ended, replace(ended, changed_at=NOW + MINUTE))
    assert later is not None
    assert list(ports.passes.shards(PASS.id)) == [later]
    assert ports.passes.get(PASS.id) == this


def test_the_longest_findings_fit_into_a_row(ports: Ports) -> None:
    """Of one shard at most nine outcomes come with words, of which three name keys."""
    ports.passes.open(PASS)
    new = ports.passes.shard(PASS.id, 0)
    findings = tuple(
        Finding(outcome=outcome, key=hashlib.sha512(f"{outcome}{n}".encode()).hexdigest() * 8, detail="\u20ac" * 300)
        for outcome in list(Outcome)[:9]
        for n in range(EXAMPLES)
    )
    swapped = ports.passes.swap(new, replace(new, findings=findings, changed_at=NOW))
    assert swapped is not None
    assert ports.passes.shard(PASS.id, 0).findings == findings


def test_a_pass_ends_once_and_is_looked_at_until_it_is_announced(ports: Ports) -> None:
    ports.passes.open(PASS)
    assert list(ports.passes.due(NOW)) == []
    assert list(ports.passes.due(NOW + 16 * MINUTE)) == [PASS]
    ports.passes.postpone(PASS.id, NOW + 60 * MINUTE)
    assert list(ports.passes.due(NOW + 59 * MINUTE)) == []
    counts = {Outcome.RECONCILED: 5, Outcome.MISSING: 1}
    ports.passes.announced(PASS.id)
    assert ports.passes.end(PASS.id, counts, NOW + MINUTE)
    assert not ports.passes.end(PASS.id, {}, NOW + 2 * MINUTE)
    ended = replace(PASS, state=PassState.FINISHED, counts=counts, finished_at=NOW + MINUTE)
    assert ports.passes.get(PASS.id) == ended
    assert list(ports.passes.due(NOW + 17 * MINUTE)) == [ended]
    ports.passes.announced(PASS.id)
    ports.passes.postpone(PASS.id, NOW)
    assert list(ports.passes.due(NOW + timedelta(days=1))) == []


def test_a_shard_of_no_pass_cannot_end(cloud: MotoCloud) -> None:
    passes = DynamoReconciles(clients.dynamodb(), AUDITS)
    new = passes.shard("nope", 0)
    with pytest.raises(NeveError, match="no pass"):
        passes.swap(new, replace(new, done=True))


def test_shards_expire_and_passes_do_not(cloud: MotoCloud) -> None:
    passes = DynamoReconciles(clients.dynamodb(), AUDITS)
    passes.open(PASS)
    new = passes.shard(PASS.id, 0)
    passes.swap(new, replace(new, changed_at=NOW))
    items = clients.dynamodb().scan(TableName=AUDITS)["Items"]
    expiring = {item["pk"]["S"]: item.get("expires_at", {}).get("N") for item in items}
    assert expiring == {
        "reconciles": None,
        f"reconcile#{PASS.id}": str(int((NOW + timedelta(days=90)).timestamp())),
    }


# The index by ranges, and what is parked


def file_row(key: str, pin: str) -> FileRow:
    return FileRow(
        key=key,
        version_id=pin,
        pin=pin,
        size_bytes=1,
        sha256="00" * 32,
        md5="00" * 16,
        last_modified=NOW.replace(microsecond=0),
        archive=1,
        number=0,
        offset_bytes=0,
    )


def test_rows_come_in_the_order_of_keys_within_a_range(ports: Ports) -> None:
    keys = sorted({*BAD_KEYS, "a", "a\0", "a\0b", "b" * 839 + "\0", "b" * 839}, key=str.encode)
    rows = [file_row(key, pin) for key in keys for pin in ("v1", "v2")]
    ports.files.record(rows)
    inside = [row for row in rows if len(row.key.encode().replace(b"\0", b"\0\0")) <= 840]
    assert list(ports.files.between("", "")) == inside
    for after, until in (("", "a"), ("a", ""), ("a", "folder"), ("b" * 839, "p" * 841), ("p" * 841, ""), ("k", "a")):
        expected = [row for row in inside if row.key.encode() > after.encode()]
        expected = [row for row in expected if not until or row.key.encode() <= until.encode()]
        assert list(ports.files.between(after, until)) == expected, (after, until)


def test_what_is_parked_is_known_by_version_whatever_the_reason(ports: Ports, cloud: MotoCloud) -> None:
    versions = [cloud.upload(f"k{number}", b"x") for number in range(12)]
    for version, reason in ((versions[0], Reason.SOURCE_GONE), (versions[11], Reason.SOURCE_UNREADABLE)):
        ports.parking_lot.park(Parked(reason=reason, detail="d", parked_at=NOW, version=version))
    ports.parking_lot.park(Parked(reason=Reason.EVENT_INVALID, detail="d", parked_at=NOW, evidence="e"))
    assert ports.parking_lot.parked(versions) == {versions[0].identity, versions[11].identity}
    assert ports.parking_lot.parked(versions[1:2]) == set()
    assert ports.parking_lot.parked([]) == set()


# The content bucket's listing


def test_all_versions_are_listed_in_the_order_of_keys_page_by_page(cloud: MotoCloud) -> None:
    uploaded = [cloud.upload(key, key.encode()) for key in BAD_KEYS]
    uploaded += [cloud.upload("many", bytes(number)) for number in range(5)]
    clients.s3().delete_object(Bucket=CONTENT, Key="a b")
    listing = S3ContentListing(clients.s3(), CONTENT)
    few = partial(clients.s3().list_object_versions, MaxKeys=3)
    with patch.object(clients.s3(), "list_object_versions", few):
        listed = list(listing.versions(""))
        behind = list(listing.versions("many"))
        of_many = [version for version in listed if version.key == "many"]
        within = list(listing.versions("many", of_many[1].version_id))
    assert {version.identity for version in listed} == {version.identity for version in uploaded}
    assert [version.key for version in listed] == sorted((v.key for v in uploaded), key=str.encode)
    assert listed[-1].event_at.tzinfo is not None
    assert {(v.identity, v.size_bytes, v.etag) for v in listed} == {
        (v.identity, v.size_bytes, v.etag) for v in uploaded
    }
    assert behind == listed[listed.index(of_many[-1]) + 1 :]
    assert within == of_many[2:] + behind


# The inventory

SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
PLACE = f"s3://{ELSEWHERE}/inventory/{CONTENT}/all/"
FOLDER = f"inventory/{CONTENT}/all/"


def line(key: str, version_id: str = "v1", size: str = "3", marker: str = "false") -> str:
    encoded = quote(key, safe="/")
    fields = (CONTENT, encoded, version_id, "true", marker, size, "2026-08-01T10:00:00.000Z", "e" * 32, "STANDARD")
    return ",".join(f'"{field}"' for field in fields) + "\n"


def put(key: str, body: bytes) -> None:
    clients.s3().put_object(Bucket=ELSEWHERE, Key=key, Body=body)


def report(when: str, *files: str, complete: bool = True, **changed: Any) -> str:
    """Write a report as S3 does; the key of its manifest."""
    listed = []
    for number, text in enumerate(files):
        body, key = gzip.compress(text.encode()), f"{FOLDER}data/{when}-{number}.csv.gz"
        put(key, body)
        listed.append({"key": key, "size": len(body), "MD5checksum": hashlib.md5(body).hexdigest()})
    manifest = {
        "sourceBucket": CONTENT,
        "destinationBucket": f"arn:aws:s3:::{ELSEWHERE}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": "CSV",
        "fileSchema": SCHEMA,
        "files": listed,
    }
    body = json.dumps(manifest | changed).encode()
    put(f"{FOLDER}{when}/manifest.json", body)
    if complete:
        put(f"{FOLDER}{when}/manifest.checksum", hashlib.md5(body).hexdigest().encode())
    return f"{FOLDER}{when}/manifest.json"


@pytest.fixture
def inventory(cloud: MotoCloud) -> S3Inventory:
    return S3Inventory(clients.s3(), PLACE, CONTENT)


def test_the_newest_complete_report_counts(inventory: S3Inventory) -> None:
    put(f"{FOLDER}hive/dt=2026-09-09-00-00/symlink.txt", b"")
    report("2026-08-30T01-00Z", line("old"))
    newest = report("2026-08-31T01-00Z", line("a"), line("b"))
    report("2026-09-01T01-00Z", line("half"), complete=False)
    found = inventory.newest()
    assert (found.manifest, found.files) == (newest, 2)
    assert replace(inventory, place=PLACE.rstrip("/")).newest() == found


def test_every_line_comes_with_its_version(inventory: S3Inventory) -> None:
    lines = [line(key, version_id="" if number == 0 else f"v{number}") for number, key in enumerate(BAD_KEYS)]
    lines.append(line("gone", marker="true", size=""))
    lines.append(line("plus").replace("plus", quote_plus("a b+c")))
    manifest = report("2026-08-31T01-00Z", line("other"), "".join(lines))
    read = list(inventory.versions(manifest, 1, 0))
    assert [number for number, _ in read] == list(range(1, len(lines) + 1))
    versions = [version for _, version in read]
    assert [version.key for version in versions if version] == [*BAD_KEYS, "a b+c"]
    assert versions[-2] is None
    first, second = versions[0], versions[1]
    assert first is not None
    assert second is not None
    assert (first.version_id, first.pin) == ("null", "null-" + "e" * 32)
    assert (second.version_id, second.size_bytes, second.etag) == ("v1", 3, "e" * 32)
    assert second.event_at == datetime(2026, 8, 1, 10, tzinfo=UTC)
    assert list(inventory.versions(manifest, 1, 3)) == read[3:]


def test_without_any_report_it_is_said_where_one_was_looked_for(inventory: S3Inventory) -> None:
    with pytest.raises(InventoryInvalid, match="no complete report under s3://"):
        inventory.newest()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag"}, "VersionId, IsDeleteMarker"),
        ({"fileFormat": "ORC"}, "only CSV"),
        ({"sourceBucket": "other"}, "about the bucket 'other'"),
        ({"files": None}, "lists no files"),
        ({"fileSchema": None}, "no manifest"),
    ],
)
def test_a_report_that_cannot_be_used_is_refused(inventory: S3Inventory, changed: dict[str, Any], said: str) -> None:
    report("2026-08-31T01-00Z", **changed)
    with pytest.raises(InventoryInvalid, match=said):
        inventory.newest()


def test_a_manifest_that_its_checksum_does_not_fit_is_refused(inventory: S3Inventory) -> None:
    manifest = report("2026-08-31T01-00Z", line("a"))
    put(manifest, b"{}")
    with pytest.raises(InventoryInvalid, match=r"manifest\.checksum states another"):
        inventory.newest()
    clients.s3().delete_object(Bucket=ELSEWHERE, Key=manifest)
    with pytest.raises(InventoryInvalid, match="not there any more"):
        list(inventory.versions(manifest, 0, 0))


@pytest.mark.parametrize("damage", ["flipped", "short", "text", "line", "swapped", "gone", "no such file"])
def test_a_damaged_file_is_found_out(inventory: S3Inventory, damage: str) -> None:
    manifest = report("2026-08-31T01-00Z", line("a") * 50, line("b"), "nonsense\n")
    key = f"{FOLDER}data/2026-08-31T01-00Z-0.csv.gz"
    body = clients.s3().get_object(Bucket=ELSEWHERE, Key=key)["Body"].read()
    number = {"line": 2, "no such file": 3}.get(damage, 0)
    if damage == "gone":
        clients.s3().delete_object(Bucket=ELSEWHERE, Key=key)
    changed = {
        "flipped": body[:30] + bytes([body[30] ^ 1]) + body[31:],
        "short": body[:-9],
        "text": b"Key,Size",
        "swapped": gzip.compress(line("c").encode()),
    }
    if damage in changed:
        put(key, changed[damage])
    with pytest.raises(InventoryInvalid):
        list(inventory.versions(manifest, number, 0))


def test_all_needed_columns_are_in_the_schema_of_these_tests() -> None:
    assert set(NEEDED) <= set(SCHEMA.split(", "))


# The function


def pass_over(cloud: MotoCloud) -> Pass:
    """One pass by the function, as the schedule begins it, when everything there is older than the grace period."""
    now = datetime.now(UTC) + timedelta(days=2)
    with patch.object(reconcile, "now", lambda: now), patch.object(invocation, "now", lambda: now):
        cloud.queue("reconciles").send(json.dumps({"message": "reconcile"}))
        cloud.run("reconciles")
    return next(DynamoReconciles(clients.dynamodb(), AUDITS).passes())


def test_the_function_finds_nothing_where_all_is_well(cloud: MotoCloud) -> None:
    versions = [cloud.upload(key, key.encode()) for key in BAD_KEYS]
    cloud.announce(*versions)
    cloud.run()
    this = pass_over(cloud)
    assert (this.state, this.clean) == (PassState.FINISHED, True)
    archives = len(list(cloud.archives.all()))
    assert this.counts == {Outcome.RECONCILED: len(versions), Outcome.ARCHIVE_RECONCILED: archives}
    assert not cloud.bodies("alerts")


def test_the_function_has_what_is_missing_archived_and_rows_back_and_tells_the_rest(cloud: MotoCloud) -> None:
    first = [cloud.upload(key, b"x" * 300) for key in ("a", "b", "c")]
    cloud.announce(*first)
    cloud.run()
    lost = cloud.upload("never/announced \u00fc", b"y")
    s3, dynamodb = clients.s3(), clients.dynamodb()
    s3.delete_object(Bucket=CONTENT, Key="a", VersionId=first[0].version_id)
    row = next(item for item in dynamodb.scan(TableName=FILES)["Items"] if bytes(item["sort"]["B"]).startswith(b"a\0"))
    dynamodb.delete_item(TableName=FILES, Key={"shard": row["shard"], "sort": row["sort"]})
    second = cloud.upload("d", b"z")
    cloud.announce(second)
    cloud.run()
    s3.delete_object(Bucket=ARCHIVE, Key=manifest_key(2))
    this = pass_over(cloud)
    assert this.counts == {
        Outcome.RECONCILED: 3,
        Outcome.SOURCE_GONE: 1,
        Outcome.MISSING: 1,
        Outcome.ROW_RESTORED: 1,
        Outcome.MANIFEST_MISSING: 1,
    }
    assert {row.key for row in cloud.all_files()} == {"a", "b", "c", "d"}
    [told] = cloud.bodies("alerts")
    assert "rebuild-index --from-archives" in told
    cloud.run()
    assert cloud.files.get([lost.identity]), "what was missing is archived"


def test_the_function_parks_what_it_cannot_read_and_reads_the_inventory(cloud: MotoCloud) -> None:
    versions = [cloud.upload(key, b"abc") for key in ("a", "b")]
    cloud.announce(*versions)
    cloud.run()
    lines = "".join(line(each.key, each.version_id).replace("e" * 32, each.etag) for each in versions)
    report("2026-08-31T01-00Z", lines)
    cloud.queue("reconciles").send("nonsense")
    settings = replace(reconcile.config(), inventory=PLACE)
    with patch.dict("os.environ", environment(settings)):
        reconcile.config.cache_clear()
        this = pass_over(cloud)
    assert this.inventory
    assert this.counts == {Outcome.RECONCILED: 2, Outcome.ARCHIVE_RECONCILED: 1}
    assert [parked.reason for _, parked in cloud.parking_lot.all()] == [Reason.EVENT_INVALID]


def test_the_sweeps_word_is_obeyed(cloud: MotoCloud) -> None:
    cloud.queue("reconciles").send(json.dumps({"message": "sweep"}))
    cloud.run("reconciles")
    assert not list(cloud.parking_lot.all())

"""What neve.ports promises to a backfill, held against memory and adapters (moto); and the function."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest

import backfill
from neve.aws import clients, invocation
from neve.aws.content_listing import S3ContentListing
from neve.aws.inventory import S3Inventory
from neve.config import environment
from neve.domain.backfill import (
    ROUNDS,
    Backfill,
    BackfillShard,
    BackfillState,
    Counted,
    Place,
    Split,
    boundaries,
    together,
)
from neve.domain.events import parse
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid, InventoryInvalid, Transient
from neve.ports import Backfills, Depth, Queue, Slot, VersionListing
from tests.bad_keys import BAD_KEYS
from tests.memory_backfill import ID, DeepQueue, MemoryBackfills, MemoryVersions, stored
from tests.moto_cloud import BACKFILLS, CONTENT, ELSEWHERE, Killed, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, 0, 123457, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NEW = Backfill(id=ID, begun_at=NOW, prefix="a\0\U0010ffff", inventory="s3://b/p/", rate=1, dry_run=True)


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        yield made


@pytest.fixture(params=["memory", "aws"])
def backfills(request: pytest.FixtureRequest) -> Backfills:
    if request.param == "memory":
        return MemoryBackfills()
    made: MotoCloud = request.getfixturevalue("cloud")
    return made.backfills


# Backfills


def test_a_backfill_comes_back_as_it_was_begun_and_is_begun_once(backfills: Backfills) -> None:
    assert backfills.get(ID) is None
    assert backfills.open(NEW) == NEW == backfills.get(ID)
    assert backfills.open(replace(NEW, rate=99)) == NEW
    other = backfills.open(Backfill(id="20260902T120000-bbbbbb", begun_at=NOW))
    assert list(backfills.all()) == [other, NEW]
    assert list(backfills.all(newest_first=False)) == [NEW, other]


def test_a_backfill_is_stopped_resumed_and_ends(backfills: Backfills) -> None:
    assert not backfills.stop(ID, NOW)
    assert backfills.resume(ID, NOW) is None
    assert not backfills.end(ID, NOW)
    backfills.open(NEW)
    assert backfills.stop(ID, NOW + SECOND, problem="gone")
    stopped = replace(NEW, state=BackfillState.STOPPED, problem="gone", ended_at=NOW + SECOND)
    assert backfills.get(ID) == stopped
    assert not backfills.stop(ID, NOW + 2 * SECOND, problem="something else")
    assert backfills.get(ID) == stopped
    again = replace(NEW, attempt=2)
    assert backfills.resume(ID, NOW) == again == backfills.get(ID)
    assert backfills.resume(ID, NOW, rate=0) == replace(again, attempt=3, rate=0), "its execution may be dead"
    backfills.stop(ID, NOW, problem="once more")
    assert backfills.end(ID, NOW + 3 * SECOND)
    ended = replace(again, attempt=3, rate=0, state=BackfillState.FINISHED, ended_at=NOW + 3 * SECOND)
    assert backfills.get(ID) == ended
    assert not backfills.end(ID, NOW)
    assert not backfills.stop(ID, NOW)
    assert backfills.resume(ID, NOW) is None
    assert backfills.get(ID) == ended


def test_a_backfill_is_split_once(backfills: Backfills) -> None:
    backfills.open(NEW)
    assert backfills.split(ID) is None
    first = Split(boundaries=tuple(f"{key}\U0010ffff" for key in BAD_KEYS))
    assert backfills.freeze(ID, first) == first == backfills.split(ID)
    assert backfills.freeze(ID, Split(manifest="m", files=7)) == first == backfills.split(ID)
    other = Split(manifest="m", files=7)
    assert backfills.freeze("other", other) == other == backfills.split("other")
    assert list(backfills.shards(ID)) == []


def test_a_shard_changes_only_for_who_saw_it_last(backfills: Backfills) -> None:
    new = backfills.shard(ID, 3)
    assert new == BackfillShard(of=ID, number=3)
    leased = backfills.swap(new, replace(new, lease_owner="me", leased_until=NOW + SECOND, changed_at=NOW))
    assert leased is not None
    assert leased == backfills.shard(ID, 3)
    assert backfills.swap(new, replace(new, lease_owner="other")) is None
    place = Place(key="k\0\U0010ffff", version_id="v", file=7, line=10**7)
    counted = Counted(by_size={-1: (0, 1), 300: (2**50, 10**9)}, frozen=1, frozen_bytes=2)
    moved = backfills.swap(leased, replace(leased, place=place, counted=counted, problem="p"))
    assert moved == backfills.shard(ID, 3)
    assert moved is not None
    assert (moved.place, moved.counted, moved.problem, moved.revision) == (place, counted, "p", 2)
    done = backfills.swap(moved, replace(moved, done=True, problem="", lease_owner="", leased_until=None))
    other = backfills.swap(backfills.shard(ID, 10), replace(backfills.shard(ID, 10), done=True))
    backfills.swap(BackfillShard(of="b", number=1), BackfillShard(of="b", number=1))
    assert list(backfills.shards(ID)) == [done, other]


def test_batches_are_given_one_time_after_the_other(backfills: Backfills) -> None:
    reserve = partial(backfills.reserve, ID, takes=2 * SECOND)
    assert reserve(now=NOW, until=NOW) is None, "there is no such backfill"
    backfills.open(NEW)
    assert reserve(now=NOW, until=NOW) == Slot(at=NOW, taken=True)
    assert reserve(now=NOW, until=NOW + SECOND) == Slot(at=NOW + 2 * SECOND, taken=False)
    assert reserve(now=NOW + SECOND, until=NOW + 2 * SECOND) == Slot(at=NOW + 2 * SECOND, taken=True)
    nothing = backfills.reserve(ID, takes=timedelta(0), now=NOW, until=NOW)
    assert nothing == Slot(at=NOW, taken=True)
    later = NOW + 60 * SECOND
    assert reserve(now=later, until=later) == Slot(at=later, taken=True), "time that has gone by is not given"
    assert reserve(now=later, until=later + SECOND) == Slot(at=later + 2 * SECOND, taken=False)
    backfills.stop(ID, NOW)
    assert reserve(now=later, until=later + 9 * SECOND) is None
    assert backfills.reserve(ID, takes=timedelta(0), now=NOW, until=NOW) is None
    backfills.resume(ID, later)
    assert reserve(now=later, until=later) == Slot(at=later, taken=True)


def test_of_two_that_reserve_at_once_one_starts_over(cloud: MotoCloud) -> None:
    cloud.backfills.open(NEW)
    update, others = clients.dynamodb().update_item, iter([True, True])

    def contended(**given: Any) -> Any:
        if next(others, False):
            cloud.backfills.reserve(ID, takes=SECOND, now=NOW, until=NOW + 9 * SECOND)
        return update(**given)

    with patch.object(clients.dynamodb(), "update_item", contended):
        slot = cloud.backfills.reserve(ID, takes=SECOND, now=NOW, until=NOW + 9 * SECOND)
    assert slot == Slot(at=NOW + 2 * SECOND, taken=True)
    with (
        patch.object(type(cloud.backfills), "_change", lambda *_: False),
        pytest.raises(Transient, match="others reserved"),
    ):
        cloud.backfills.reserve(ID, takes=SECOND, now=NOW, until=NOW + 9 * SECOND)


def test_what_stands_and_cannot_be_read_is_looked_for_again(cloud: MotoCloud) -> None:
    cloud.backfills.freeze(ID, Split())
    with patch.object(type(cloud.backfills), "_get", lambda *_: None):
        for ask in (lambda: cloud.backfills.open(NEW), lambda: cloud.backfills.freeze(ID, Split())):
            with pytest.raises(Transient, match="cannot be read"):
                ask()


def test_rows_stay_small(cloud: MotoCloud) -> None:
    """A write unit is 1 KB: what every batch writes is one unit for the backfill, and two for its shard."""
    cloud.backfills.open(replace(NEW, prefix="p" * 100))
    sizes = {place: (place * 98_765_432_101, place * 12_345) for place in range(60, 180)}  # 200 bytes to 5 MB
    new = BackfillShard(of=ID, number=0)
    cloud.backfills.swap(
        new, replace(new, place=Place(key="k" * 100, version_id="v" * 32), counted=Counted(by_size=sizes))
    )
    rows = clients.dynamodb().scan(TableName=BACKFILLS)["Items"]
    length = {row["sk"]["S"]: sum(len(name) + _length(value) for name, value in row.items()) for row in rows}
    assert length[ID] < 1024
    assert length["shard#000000"] < 2048


def _length(value: Any) -> int:
    """Bytes of an attribute, a little more than DynamoDB counts."""
    return max(len(each) if isinstance(each, str | bytes) else 1 for each in value.values())


# The content bucket


@pytest.fixture(params=["memory", "aws"])
def listed(request: pytest.FixtureRequest, cloud: MotoCloud) -> tuple[VersionListing, list[ObjectVersion]]:
    """Bad keys, several versions of one, another class, delete markers before and behind them."""
    versions = [cloud.upload(key, key.encode()) for key in BAD_KEYS]
    versions += [cloud.upload("many", bytes(number)) for number in range(5)]
    versions += [cloud.upload("many more", b"x", StorageClass="GLACIER")]
    markers = {key: _hidden(cloud, key) for key in ("!", "~~")}
    clients.s3().delete_object(Bucket=CONTENT, Key="many")
    if request.param == "aws":
        return S3ContentListing(clients.s3(), CONTENT), versions
    memory = MemoryVersions(page=3)
    for each in clients.s3().list_object_versions(Bucket=CONTENT)["Versions"]:
        place = Place(key=each["Key"], version_id=each["VersionId"])
        of_place = next(one for one in versions if (one.key, one.version_id) == (place.key, place.version_id))
        memory.listed.append((place, replace(stored("k", storage_class=each["StorageClass"]), version=of_place)))
    memory.listed += [(Place(key=key, version_id=marker), None) for key, marker in markers.items()]
    return memory, versions


def _hidden(cloud: MotoCloud, key: str) -> str:
    """A key that has a delete marker and nothing else; the marker's version id."""
    version = cloud.upload(key, b"x")
    marker = clients.s3().delete_object(Bucket=CONTENT, Key=key)["VersionId"]
    clients.s3().delete_object(Bucket=CONTENT, Key=key, VersionId=version.version_id)
    return marker


def test_versions_come_with_places_from_which_the_listing_goes_on(
    listed: tuple[VersionListing, list[ObjectVersion]],
) -> None:
    listing, versions = listed
    few = partial(clients.s3().list_object_versions, MaxKeys=3)
    with patch.object(clients.s3(), "list_object_versions", few):
        found = list(listing.stored("", ""))
        here = [(place, each) for place, each in found if each is not None]
        assert [each.version.identity for _, each in here] == sorted(
            (each.version.identity for _, each in here), key=lambda identity: identity[0].encode()
        )
        assert {each.version.identity for _, each in here} == {version.identity for version in versions}
        assert [(place.key, place.version_id) for place, _ in here] == [
            (each.version.key, each.version.version_id) for _, each in here
        ]
        assert [each.version.key for _, each in here if each.frozen] == ["many more"]
        assert len(found) - len(here) >= len(versions) // 3 - 1, "a page ends with its place"
        for number in (0, 7, len(found) // 2, len(found) - 4):
            place = found[number][0]
            rest = [each for _, each in listing.stored("", place.key, place.version_id) if each]
            assert rest == [each for _, each in found[number + 1 :] if each]
        of_many = [each for _, each in listing.stored("many", "") if each]
        assert [each.version.key for each in of_many] == ["many"] * 5 + ["many more"]
        assert [each.version.key for _, each in listing.stored("many", "many") if each] == ["many more"]


def test_the_first_key_behind_a_string_is_told_whatever_the_string(
    listed: tuple[VersionListing, list[ObjectVersion]],
) -> None:
    listing, versions = listed
    keys = sorted({"!", "~~", *(version.key for version in versions)}, key=str.encode)
    for after in ("", "\x7f", "a\U0010ffff", "folder/", "\uffff", "k" * 1023, "k" * 1024, "\U0001f600\U0010ffff"):
        assert listing.first_key("", after) == next((key for key in keys if key.encode() > after.encode()), "")
    assert listing.first_key("many", "") == "many"
    assert listing.first_key("many", "many") == "many more"
    assert listing.first_key("many", "many more") == ""
    assert listing.first_key("nothing", "") == ""


def test_a_bucket_of_bad_keys_is_split(cloud: MotoCloud) -> None:
    for key in BAD_KEYS:
        cloud.upload(key, b"")
    listing = S3ContentListing(clients.s3(), CONTENT)
    memory = MemoryVersions(listed=[(Place(key=key, version_id="v"), None) for key in BAD_KEYS])
    found = boundaries(partial(listing.first_key, ""), enough=10, requests=150)
    assert found == boundaries(partial(memory.first_key, ""), enough=10, requests=150)
    assert len(found) > 10


# Queues


@pytest.mark.parametrize("kind", ["memory", "aws"])
def test_a_queue_tells_how_many_messages_wait(kind: str, cloud: MotoCloud) -> None:
    queue: Any = DeepQueue() if kind == "memory" else cloud.queue("backfill")
    deep: Depth = queue
    sending: Queue = queue
    assert deep.waiting() == 0
    for _ in range(3):
        sending.send("x")
    assert deep.waiting() == 3


# The inventory

PLACE = f"s3://{ELSEWHERE}/inventory/{CONTENT}/all/"


def report(*files: list[ObjectVersion], columns: str = "StorageClass", storage_class: str = "STANDARD") -> str:
    """Write a report as S3 does; the key of its manifest."""
    folder = f"inventory/{CONTENT}/all/"
    put = partial(clients.s3().put_object, Bucket=ELSEWHERE)
    listed = []
    for number, versions in enumerate(files):
        lines = [
            f'"{quote(each.key)}","{each.version_id}","false","{each.size_bytes}","2026-08-01T10:00:00.000Z",'
            f'"{each.etag}","{storage_class}"\n'
            for each in versions
        ]
        body, key = gzip.compress("".join(lines).encode()), f"{folder}data/{number}.csv.gz"
        put(Key=key, Body=body)
        listed.append({"key": key, "size": len(body), "MD5checksum": hashlib.md5(body).hexdigest()})
    manifest = {
        "sourceBucket": CONTENT,
        "fileFormat": "CSV",
        "fileSchema": f"Key, VersionId, IsDeleteMarker, Size, LastModifiedDate, ETag, {columns}",
        "files": listed,
    }
    body = json.dumps(manifest).encode()
    put(Key=f"{folder}2026-08-31T01-00Z/manifest.json", Body=body)
    put(Key=f"{folder}2026-08-31T01-00Z/manifest.checksum", Body=hashlib.md5(body).hexdigest().encode())
    return f"{folder}2026-08-31T01-00Z/manifest.json"


def test_lines_of_an_inventory_come_with_their_class(cloud: MotoCloud) -> None:
    versions = [cloud.upload(key, b"abc") for key in BAD_KEYS]
    manifest = report([], versions, storage_class="DEEP_ARCHIVE")
    inventory = S3Inventory(clients.s3(), PLACE, CONTENT)
    read = list(inventory.stored(manifest, 1, 2))
    assert [number for number, _ in read] == list(range(3, len(versions) + 1))
    assert [each.version.identity for _, each in read if each] == [version.identity for version in versions[2:]]
    assert all(each is not None and each.frozen for _, each in read)


def test_an_inventory_without_classes_is_refused(cloud: MotoCloud) -> None:
    manifest = report([cloud.upload("a", b"abc")], columns="Other")
    with pytest.raises(InventoryInvalid, match="lack StorageClass"):
        list(S3Inventory(clients.s3(), PLACE, CONTENT).stored(manifest, 0, 0))


# The function


def run(cloud: MotoCloud, **asked: Any) -> dict[str, Any]:
    """One execution of the state machine from its beginning to its end; what the last step answered."""
    execution = cloud.backfills.open(Backfill(id=ID, begun_at=NOW, **asked)).execution
    while True:
        planned = cloud.step({"step": "plan", "backfill": ID})
        for number in planned["shards"]:
            answer = {"step": "advance", "backfill": ID, "shard": number}
            while not (answer := cloud.step(answer))["over"]:
                pass
        ended = cloud.step({"step": "end", "backfill": ID, "execution": execution})
        if ended["state"] != "running":
            return ended


def take(cloud: MotoCloud) -> list[str]:
    """The messages that were sent to the backfill's queue; they are hidden from now on."""
    bodies: list[str] = []
    while (
        messages := clients.sqs()
        .receive_message(QueueUrl=cloud.urls["backfill"], MaxNumberOfMessages=10)
        .get("Messages")
    ):
        bodies += [message["Body"] for message in messages]
    return bodies


def announced(bodies: list[str]) -> list[tuple[str, str]]:
    return [version.identity for body in bodies for version in parse(body, CONTENT).versions]


def test_the_function_announces_what_a_bucket_holds(cloud: MotoCloud) -> None:
    versions = [cloud.upload(key, key.encode()) for key in ("a\nb", "\U0001f600", "k" * 1024)]
    versions += [cloud.upload("many", bytes(number)) for number in range(3)]
    cloud.upload("cold", b"x", StorageClass="GLACIER")
    assert run(cloud) == {"backfill": ID, "state": "finished"}
    assert sorted(announced(take(cloud))) == sorted(version.identity for version in versions)
    totals = together(cloud.backfills.shards(ID))
    assert (totals.counted.versions, totals.counted.frozen) == (len(versions), 1)


def test_the_function_reads_the_inventory_that_it_may_read_and_no_other(cloud: MotoCloud) -> None:
    versions = [cloud.upload(key, b"abc") for key in ("a", "b/1", "b/2")]
    report(versions[:2], versions[2:])
    stopped = run(cloud, inventory=PLACE, prefix="b/")
    assert stopped["state"] == "stopped"
    assert "the setting `inventory`" in stopped["problem"]
    cloud.backfills.resume(ID, NOW)
    for allowed, state in (
        (f"s3://{ELSEWHERE}/inventory/other", "stopped"),
        (f"s3://{ELSEWHERE}/inventory", "finished"),
    ):
        with patch.dict("os.environ", environment(replace(backfill.config(), inventory=allowed))):
            backfill.config.cache_clear()
            assert run(cloud)["state"] == state
        cloud.backfills.resume(ID, NOW)
    assert sorted(announced(take(cloud))) == [version.identity for version in versions[1:]]


def test_the_answer_of_a_step_is_the_event_for_the_next(cloud: MotoCloud) -> None:
    cloud.backfills.open(Backfill(id=ID, begun_at=NOW))
    cloud.upload("a", b"x")
    cloud.backfills.freeze(ID, Split())
    row = cloud.backfills.shard(ID, 0)
    leased_until = datetime.now(UTC) + timedelta(minutes=2)
    cloud.backfills.swap(row, replace(row, lease_owner="other", leased_until=leased_until))
    answer = cloud.step({"step": "advance", "backfill": ID, "shard": 0})
    assert answer | {"wait_s": 0} == {
        "step": "advance",
        "backfill": ID,
        "shard": 0,
        "rounds": 1,
        "done": False,
        "stopped": False,
        "over": False,
        "wait_s": 0,
    }
    assert 110 < answer["wait_s"] <= 120
    assert cloud.step(answer | {"rounds": ROUNDS - 1})["over"]
    with pytest.raises(EventInvalid):
        cloud.step({"step": "advance", "backfill": ID, "shard": 1})


# Death


def live_through(cloud: MotoCloud, *, kill_at: int, kill_after: bool) -> int:
    """A backfill with a death in it, tried again two minutes later; how often the process died."""
    later, deaths = [datetime.now(UTC)], 0
    cloud.kill_at, cloud.kill_after = kill_at, kill_after
    with (
        patch.object(backfill, "now", lambda: later[0]),
        patch.object(invocation, "now", lambda: later[0]),
        patch("time.sleep", lambda _: None),
    ):
        while True:
            try:
                assert run(cloud)["state"] == "finished"
                break
            except Killed:
                deaths += 1
                later[0] += timedelta(minutes=3)
                backfill.backfiller.cache_clear()
    return deaths


def test_dying_after_any_call_that_writes_doubles_one_batch_at_the_most_and_no_row() -> None:
    with moto_cloud() as cloud:
        versions = [cloud.upload(key, key.encode()) for key in ("a", "b", "b", "c\n\U0001f600")]
        cloud.backfills.open(Backfill(id=ID, begun_at=NOW, rate=1_000))
        cloud.backfills.freeze(ID, Split(boundaries=("a",)))
        state = cloud.state()
        assert live_through(cloud, kill_at=0, kill_after=False) == 0
        writes = cloud.writes
        assert len(writes) > 8
        doubled = 0
        for number in [0, *writes]:  # 0: before the first call
            cloud.begin_again(state)
            assert live_through(cloud, kill_at=max(number, 1), kill_after=number > 0) == 1, f"call {number}"
            bodies = take(cloud)
            sent = announced(bodies)
            assert set(sent) == {version.identity for version in versions}
            if len(sent) == len(versions):
                continue
            doubled += 1
            assert len(sent) <= len(versions) + 3, "a batch, and the larger shard has three"
            for body in bodies:
                cloud.queue("collect").send(body)
            cloud.kill_at = 0
            cloud.run("collect", "bundles")
            rows = [(row.key, row.pin) for row in cloud.all_files()]
            assert sorted(rows) == sorted(version.identity for version in versions)
        assert doubled == 2, "after each of the messages"

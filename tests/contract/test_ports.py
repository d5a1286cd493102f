"""What neve.ports promises, held against the ports in memory and the adapters on AWS (moto)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neve.aws.archives_table import PART_BYTES
from neve.domain.bundle import Bundle, BundleState, Lane, Limits
from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.large import Range
from neve.domain.manifest import Source, archive_key
from neve.domain.parked import Parked, Reason
from neve.domain.tar import Rope, build
from neve.domain.version import ObjectVersion
from neve.errors import SourceChanged, SourceGone, Transient
from neve.ports import Archives, ArchiveStore, Bundles, Content, Files, ParkingLot, Queue
from tests.bad_keys import BAD_KEYS
from tests.memory import MemoryCloud
from tests.moto_cloud import MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
LIMITS = Limits(target_bytes=1_000, max_members=10, max_age_s=20)
LATER = NOW + timedelta(seconds=60)


@dataclass
class Ports:
    """The ports of one cloud, and what a test needs to look behind them."""

    bundles: Bundles
    archives: Archives
    files: Files
    content: Content
    store: ArchiveStore
    parking_lot: ParkingLot
    queue: Queue
    cloud: MemoryCloud | MotoCloud

    def upload(self, key: str, body: bytes, **extra: Any) -> ObjectVersion:
        if isinstance(self.cloud, MotoCloud):
            return self.cloud.upload(key, body, **extra)
        version = ObjectVersion(
            key=key,
            version_id=f"v{next(self.cloud.ids)}",
            size_bytes=len(body),
            etag=hashlib.md5(body).hexdigest(),
            sequencer="",
            event_at=NOW,
        )
        self.cloud.content.put(version, body)
        return version

    def parked(self) -> list[Parked]:
        if isinstance(self.cloud, MotoCloud):
            return [item for _, item in self.cloud.parking_lot.all()]
        return list(self.cloud.parking_lot.items.values())

    def sent(self) -> list[str]:
        return self.cloud.bodies("bundles") if isinstance(self.cloud, MotoCloud) else self.cloud.bundles_queue.take()


@pytest.fixture(params=["memory", "aws"])
def ports(request: pytest.FixtureRequest) -> Iterator[Ports]:
    if request.param == "memory":
        memory = MemoryCloud(limits=LIMITS)
        yield Ports(
            bundles=memory.bundles,
            archives=memory.archives,
            files=memory.files,
            content=memory.content,
            store=memory.store,
            parking_lot=memory.parking_lot,
            queue=memory.bundles_queue,
            cloud=memory,
        )
        return
    with moto_cloud() as moto:
        yield Ports(
            bundles=moto.bundles,
            archives=moto.archives,
            files=moto.files,
            content=moto.content,
            store=moto.store,
            parking_lot=moto.parking_lot,
            queue=moto.queue("bundles"),
            cloud=moto,
        )


def bundle(bundle_id: str = "b", state: BundleState = BundleState.OPEN, **changed: Any) -> Bundle:
    made = Bundle(id=bundle_id, kind="tar", state=state, size_bytes=0, count=0, due_at=NOW)
    return replace(made, **changed)


def version(key: str, **changed: Any) -> ObjectVersion:
    made = ObjectVersion(key=key, version_id="v1", size_bytes=1, etag="e", sequencer="", event_at=NOW)
    return replace(made, **changed)


# Bundles


def test_a_lane_moves_only_from_where_it_is_believed_to_be_and_alone(ports: Ports) -> None:
    lane, other = Lane.BACKFILL, Lane.LIVE
    assert ports.bundles.lane(lane) == ""
    assert ports.bundles.move_lane(lane, previous="", to="a")
    assert not ports.bundles.move_lane(lane, previous="", to="b")
    assert not ports.bundles.move_lane(lane, previous="b", to="c")
    assert ports.bundles.lane(lane) == "a"
    assert ports.bundles.lane(other) == ""
    assert ports.bundles.move_lane(other, previous="", to="z")
    assert ports.bundles.move_lane(lane, previous="a", to="b")
    assert (ports.bundles.lane(lane), ports.bundles.lane(other)) == ("b", "z")


def test_a_bundle_tells_its_lane_whatever_becomes_of_it(ports: Ports) -> None:
    ports.bundles.create(bundle(lane=Lane.BACKFILL, count=1))
    claimed = ports.bundles.claim("b", owner="me", now=NOW, until=NOW + timedelta(seconds=60))
    assert claimed is not None
    assert claimed.lane is Lane.BACKFILL
    ports.bundles.create(bundle("live"))
    found = {lane: [(each.id, each.lane) for each in ports.bundles.overdue(lane, LATER)] for lane in Lane}
    assert found == {Lane.LIVE: [("live", Lane.LIVE)], Lane.BACKFILL: [("b", Lane.BACKFILL)]}


@pytest.mark.parametrize("state", list(BundleState))
def test_a_bundle_is_created_once_whatever_its_state(ports: Ports, state: BundleState) -> None:
    made = bundle(state=state, kind="object", size_bytes=5_000_000_000_000, count=1)
    assert ports.bundles.get("b") is None
    assert ports.bundles.create(made)
    assert ports.bundles.get("b") == made
    assert not ports.bundles.create(bundle())
    assert ports.bundles.get("b") == made


def test_a_bundle_tells_which_archive_it_supersedes_whatever_becomes_of_it(ports: Ports) -> None:
    made = bundle(state=BundleState.SEALED, supersedes=17)
    ports.bundles.create(made)
    claimed = ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    assert claimed is not None
    assert claimed.supersedes == 17
    ports.bundles.release("b", owner="me")
    ports.bundles.assign_serial("b")
    ports.bundles.drop_serial("b", 1)
    assert ports.bundles.get("b") == replace(made, tries=1)


def test_parts_come_back_as_they_were_noted(ports: Ports) -> None:
    versions = [version(key, version_id="null", size_bytes=number) for number, key in enumerate(BAD_KEYS)]
    ports.bundles.put_part("b", "1", versions[:20], NOW)
    ports.bundles.put_part("b", "2", versions[20:], NOW)
    ports.bundles.put_part("b", "3", versions[:1], NOW)
    ports.bundles.put_part("other", "1", [version("other")], NOW)
    found = ports.bundles.parts("b")
    assert len(found) == len(versions) + 1
    assert {each.identity: each for each in found} == {each.identity: each for each in versions}
    assert ports.bundles.parts("none") == []


def test_a_part_may_need_many_items_and_is_taken_back_whole(ports: Ports) -> None:
    """An item of DynamoDB holds 400 KB, and a page of a query 1 MB."""
    versions = [version(hashlib.sha512(str(n).encode()).hexdigest() * 8, version_id=f"{n:032}") for n in range(2_000)]
    assert sum(len(each.key) for each in versions) > 6 * PART_BYTES
    ports.bundles.put_part("b", "1", versions, NOW)
    ports.bundles.put_part("b", "2", [version("stays")], NOW)
    assert sorted(ports.bundles.parts("b"), key=lambda v: v.version_id)[:2_000] == versions
    ports.bundles.delete_part("b", "1", versions)
    assert ports.bundles.parts("b") == [version("stays")]


def test_a_bundle_grows_while_it_is_open_and_below_its_target(ports: Ports) -> None:
    ports.bundles.create(bundle())
    grown = ports.bundles.grow("b", size_bytes=999, count=2, limits=LIMITS)
    assert grown == bundle(size_bytes=999, count=2)
    assert ports.bundles.grow("b", size_bytes=1_000, count=1, limits=LIMITS) == bundle(size_bytes=1_999, count=3)
    assert ports.bundles.grow("b", size_bytes=0, count=1, limits=LIMITS) is None, "it is over its target"
    assert ports.bundles.get("b") == bundle(size_bytes=1_999, count=3)


@pytest.mark.parametrize(
    ("size_bytes", "count", "grows"),
    [(2_000, 1, True), (2_001, 1, False), (1, 10, True), (1, 11, False), (0, 10, True)],
)
def test_a_bundle_never_grows_over_its_ceiling_or_its_count(
    ports: Ports, size_bytes: int, count: int, grows: bool
) -> None:
    ports.bundles.create(bundle())
    assert (ports.bundles.grow("b", size_bytes=size_bytes, count=count, limits=LIMITS) is not None) == grows
    assert ports.bundles.get("b") == (bundle(size_bytes=size_bytes, count=count) if grows else bundle())


@pytest.mark.parametrize("state", [BundleState.SEALED, BundleState.ARCHIVED, BundleState.VOID])
def test_a_bundle_that_is_not_open_does_not_grow(ports: Ports, state: BundleState) -> None:
    ports.bundles.create(bundle(state=state))
    assert ports.bundles.grow("b", size_bytes=1, count=1, limits=LIMITS) is None
    assert ports.bundles.grow("none", size_bytes=1, count=1, limits=LIMITS) is None
    assert ports.bundles.get("none") is None


@pytest.mark.parametrize("state", [BundleState.OPEN, BundleState.SEALED])
def test_a_claim_seals_and_leases(ports: Ports, state: BundleState) -> None:
    ports.bundles.create(bundle(state=state))
    claimed = ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    assert claimed is not None
    assert (claimed.state, claimed.lease_owner) == (BundleState.SEALED, "me")
    assert claimed.leased_until is not None
    assert claimed.leased_until >= LATER


def test_a_claim_on_what_is_not_there_is_none(ports: Ports) -> None:
    assert ports.bundles.claim("b", owner="me", now=NOW, until=LATER) is None
    assert ports.bundles.get("b") is None


@pytest.mark.parametrize("state", [BundleState.ARCHIVED, BundleState.VOID])
def test_a_claim_on_what_is_finished_changes_nothing(ports: Ports, state: BundleState) -> None:
    ports.bundles.create(bundle(state=state))
    assert ports.bundles.claim("b", owner="me", now=NOW, until=LATER) == bundle(state=state)


def test_a_lease_keeps_others_away_until_it_ends(ports: Ports) -> None:
    ports.bundles.create(bundle())
    ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    refused = ports.bundles.claim("b", owner="other", now=LATER, until=LATER + timedelta(seconds=60))
    assert refused is not None
    assert refused.lease_owner == "me"
    again = ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    assert again is not None
    assert again.lease_owner == "me"
    after = LATER + timedelta(seconds=3)
    taken = ports.bundles.claim("b", owner="other", now=after, until=after)
    assert taken is not None
    assert taken.lease_owner == "other"


def test_claims_that_take_effect_are_counted(ports: Ports) -> None:
    ports.bundles.create(bundle())
    assert ports.bundles.get("b") == bundle(tries=0)
    tries = []
    for owner in ("me", "me", "other", "me"):
        claimed = ports.bundles.claim("b", owner=owner, now=NOW, until=LATER)
        assert claimed is not None
        tries.append(claimed.tries)
    assert tries == [1, 2, 2, 3], "the other's was refused"
    ports.bundles.finish("b", NOW)
    finished = ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    assert finished is not None
    assert finished.tries == 3


def test_only_its_owner_ends_a_lease(ports: Ports) -> None:
    ports.bundles.create(bundle())
    ports.bundles.claim("b", owner="me", now=NOW, until=LATER)
    ports.bundles.release("b", owner="other")
    standing = ports.bundles.get("b")
    assert standing is not None
    assert standing.lease_owner == "me"
    ports.bundles.release("b", owner="me")
    assert ports.bundles.get("b") == bundle(state=BundleState.SEALED, tries=1)
    ports.bundles.release("b", owner="me")
    ports.bundles.release("none", owner="me")
    assert ports.bundles.get("none") is None


def test_serials_are_drawn_one_after_the_other_and_one_bundle_keeps_its_first(ports: Ports) -> None:
    for name in "abc":
        ports.bundles.create(bundle(name, BundleState.SEALED))
    assert [ports.bundles.assign_serial(name) for name in "ab"] == [1, 2]
    assert ports.bundles.assign_serial("a") == 1
    assert ports.bundles.assign_serial("c") > 2
    assert ports.bundles.get("a") == bundle("a", BundleState.SEALED, serial=1)


def test_what_was_finished_meanwhile_gets_no_serial(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.VOID))
    with pytest.raises(Transient):
        ports.bundles.assign_serial("b")
    assert ports.bundles.get("b") == bundle(state=BundleState.VOID)


def test_the_source_is_recorded_with_the_serial_and_the_first_one_stays(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.SEALED, kind="object"))
    text = '{"key": "\\u00e4", "version_id": "v1"}'
    assert ports.bundles.assign_serial("b", source=text) == 1
    assert ports.bundles.assign_serial("b", source="other") == 1
    assert ports.bundles.get("b") == bundle(state=BundleState.SEALED, kind="object", serial=1, source=text)


def test_a_serial_is_dropped_only_if_the_sealed_bundle_has_it(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.SEALED))
    ports.bundles.create(bundle("plain", BundleState.SEALED))
    assert ports.bundles.assign_serial("b", source="{}") == 1
    ports.bundles.record_upload("b", previous="", upload_id="u")
    standing = bundle(state=BundleState.SEALED, serial=1, source="{}", upload_id="u")
    ports.bundles.drop_serial("b", 2)
    assert ports.bundles.get("b") == standing
    ports.bundles.drop_serial("b", 1)
    assert ports.bundles.get("b") == bundle(state=BundleState.SEALED), "what belonged to the serial went with it"
    ports.bundles.drop_serial("b", 1)
    assert ports.bundles.assign_serial("b") == 2
    ports.bundles.drop_serial("plain", 1)
    assert ports.bundles.get("plain") == bundle("plain", BundleState.SEALED)
    ports.bundles.drop_serial("none", 1)
    assert ports.bundles.get("none") is None


def test_what_is_finished_keeps_its_serial(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.SEALED))
    ports.bundles.assign_serial("b")
    ports.bundles.finish("b", NOW)
    ports.bundles.drop_serial("b", 1)
    assert ports.bundles.get("b") == bundle(state=BundleState.ARCHIVED, serial=1)


def test_the_first_upload_recorded_counts(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.SEALED))
    assert ports.bundles.record_upload("b", previous="", upload_id="one") == "one"
    assert ports.bundles.record_upload("b", previous="", upload_id="two") == "one"
    assert ports.bundles.record_upload("b", previous="two", upload_id="three") == "one"
    assert ports.bundles.record_upload("b", previous="one", upload_id="two") == "two"
    assert ports.bundles.get("b") == bundle(state=BundleState.SEALED, upload_id="two")


def test_a_bundle_becomes_void_only_as_it_was_seen(ports: Ports) -> None:
    ports.bundles.create(bundle())
    assert not ports.bundles.void(bundle(state=BundleState.SEALED), NOW)
    assert not ports.bundles.void(bundle(count=1), NOW)
    ports.bundles.grow("b", size_bytes=0, count=1, limits=LIMITS)
    assert not ports.bundles.void(bundle(), NOW), "a version came in"
    assert ports.bundles.void(bundle(count=1), NOW)
    assert not ports.bundles.void(bundle(count=1), NOW)
    assert ports.bundles.get("b") == bundle(state=BundleState.VOID, count=1)
    assert not ports.bundles.void(bundle("none"), NOW)
    assert ports.bundles.get("none") is None


def test_a_bundle_that_has_drawn_a_serial_since_it_was_seen_does_not_become_void(ports: Ports) -> None:
    """Another writer has frozen the list: to void the bundle would strand what was archived."""
    ports.bundles.create(bundle(state=BundleState.SEALED))
    ports.bundles.assign_serial("b")
    assert not ports.bundles.void(bundle(state=BundleState.SEALED), NOW)
    assert not ports.bundles.void(bundle(state=BundleState.SEALED, serial=2), NOW)
    assert ports.bundles.get("b") == bundle(state=BundleState.SEALED, serial=1)
    assert ports.bundles.void(bundle(state=BundleState.SEALED, serial=1), NOW)
    assert ports.bundles.get("b") == bundle(state=BundleState.VOID, serial=1)


def test_a_bundle_that_has_given_its_serial_back_since_it_was_seen_does_not_become_void(ports: Ports) -> None:
    ports.bundles.create(bundle(state=BundleState.SEALED))
    ports.bundles.assign_serial("b")
    ports.bundles.drop_serial("b", 1)
    assert not ports.bundles.void(bundle(state=BundleState.SEALED, serial=1), NOW)
    assert ports.bundles.void(bundle(state=BundleState.SEALED), NOW)


def test_only_what_is_sealed_is_finished(ports: Ports) -> None:
    for state in BundleState:
        ports.bundles.create(bundle(state, state))
    assert [state for state in BundleState if ports.bundles.finish(state, NOW)] == [BundleState.SEALED]
    assert ports.bundles.get("sealed") == bundle("sealed", BundleState.ARCHIVED)
    assert not ports.bundles.finish("none", NOW)
    assert ports.bundles.get("none") is None


def test_overdue_is_what_is_unfinished_and_past_its_time(ports: Ports) -> None:
    for state in BundleState:
        ports.bundles.create(bundle(f"old {state}", state, due_at=NOW - timedelta(seconds=1)))
        ports.bundles.create(bundle(f"new {state}", state, due_at=NOW + timedelta(seconds=1)))
    assert sorted(found.id for found in ports.bundles.overdue(Lane.LIVE, NOW)) == ["old open", "old sealed"]
    assert ports.bundles.finish("old sealed", NOW)
    assert ports.bundles.void(bundle("old open"), NOW)
    assert list(ports.bundles.overdue(Lane.LIVE, NOW)) == []


def test_more_than_a_hundred_overdue_bundles_are_all_found(ports: Ports) -> None:
    for number in range(120):
        ports.bundles.create(bundle(f"{number}"))
    assert len(list(ports.bundles.overdue(Lane.LIVE, LATER))) == 120


# Archives


def archive(serial: int = 17, **changed: Any) -> ArchiveRow:
    made = ArchiveRow(
        serial=serial,
        kind="tar",
        bundle="b",
        object_key=archive_key(serial, "tar"),
        object_version_id="v",
        storage_class="GLACIER",
        size_bytes=10_000,
        sha256="0" * 64,
        source_bytes=5_000,
        files=3,
        duplicates=0,
        state=ArchiveState.WRITTEN,
        written_at=NOW + timedelta(microseconds=5),
    )
    return replace(made, **changed)


def test_the_first_row_of_an_archive_stands(ports: Ports) -> None:
    assert ports.archives.put(archive()) == archive()
    assert ports.archives.put(archive(bundle="other")) == archive()


def test_an_archive_is_finished_once(ports: Ports) -> None:
    ports.archives.put(archive())
    ports.archives.finish(17, duplicates=2, now=NOW)
    ports.archives.finish(17, duplicates=0, now=LATER)
    assert ports.archives.put(archive()) == archive(state=ArchiveState.ARCHIVED, duplicates=2, archived_at=NOW)


def test_a_superseded_archive_names_the_largest_that_stands_for_it(ports: Ports) -> None:
    ports.archives.put(archive())
    ports.archives.supersede(17, by=40)
    ports.archives.supersede(17, by=30)
    assert ports.archives.get(17) == archive(superseded_by=40)
    ports.archives.supersede(17, by=50)
    ports.archives.finish(17, duplicates=0, now=NOW)
    assert ports.archives.get(17) == archive(state=ArchiveState.ARCHIVED, archived_at=NOW, superseded_by=50)
    ports.archives.supersede(18, by=50)
    assert ports.archives.get(18) is None, "it makes no row"


def test_the_bytes_of_all_archives_are_summed_up_whatever_becomes_of_them(ports: Ports) -> None:
    assert ports.archives.stored_bytes() == 0
    ports.bundles.create(bundle(size_bytes=1))
    large = 5_000_000_000_000
    for serial, size_bytes in ((17, 3), (18, large), (1_000_000, 0)):
        ports.archives.put(archive(serial=serial, size_bytes=size_bytes))
    ports.archives.finish(17, duplicates=0, now=NOW)
    ports.archives.supersede(17, by=18)
    assert ports.archives.stored_bytes() == large + 3


def test_a_row_that_is_written_anew_says_what_supersedes_it(ports: Ports) -> None:
    ports.archives.put(archive(superseded_by=40))
    assert ports.archives.get(17) == archive(superseded_by=40)


def test_an_archive_without_a_sha256_keeps_none(ports: Ports) -> None:
    row = archive(kind="object", sha256="", size_bytes=6 * 10**9)
    ports.archives.put(row)
    assert ports.archives.put(archive()) == row


# Files


def row(key: str, **changed: Any) -> FileRow:
    made = FileRow(
        key=key,
        version_id="v1",
        pin="v1",
        size_bytes=1,
        sha256="ab" * 32,
        md5="cd" * 16,
        last_modified=NOW,
        archive=1,
        number=0,
        offset_bytes=1536,
    )
    return replace(made, **changed)


def test_rows_are_found_under_their_identities(ports: Ports) -> None:
    rows = [row(key, archive=number + 1) for number, key in enumerate(BAD_KEYS)]
    assert ports.files.record(rows) == []
    found = ports.files.holders([version(key) for key in [*BAD_KEYS, "another"]])
    assert found == {(key, "v1"): number + 1 for number, key in enumerate(BAD_KEYS)}
    assert ports.files.holders([]) == {}


def test_versions_of_one_key_have_rows_of_their_own(ports: Ports) -> None:
    null = {"version_id": "null"}
    ports.files.record([row("a"), row("a", version_id="null", pin="null-x", archive=2)])
    versions = [version("a"), version("a", **null, etag="x"), version("a", **null, etag="y")]
    assert ports.files.holders(versions) == {("a", "v1"): 1, ("a", "null-x"): 2}


@pytest.mark.parametrize("number", [1, 25, 26, 101, 230])
def test_many_rows_are_written_and_read_across_the_limits_of_a_request(ports: Ports, number: int) -> None:
    """DynamoDB: 25 statements to a batch, 100 keys to a read."""
    rows = [row(f"key-{place}") for place in range(number)]
    assert ports.files.record(rows) == []
    assert len(ports.files.holders([version(each.key) for each in rows])) == number


def test_a_row_that_stands_is_never_changed_and_only_another_archives_is_a_duplicate(ports: Ports) -> None:
    ports.files.record([row("a"), row("b")])
    refused = [row("a", archive=2), row("b", archive=1, number=9)]
    assert ports.files.record([*refused, row("c", archive=2)]) == [refused[0]]
    assert ports.files.holders([version(key) for key in "abc"]) == {("a", "v1"): 1, ("b", "v1"): 1, ("c", "v1"): 2}


@pytest.mark.parametrize("key", ["a", "\u00fc" * 500], ids=["short", "cut"])
def test_a_row_is_replaced_only_if_it_still_names_the_archive_and_member_that_were_seen(ports: Ports, key: str) -> None:
    standing, to = row(key, archive=5, number=3), row(key, archive=9, number=0, offset_bytes=512)
    assert not ports.files.replace(standing, to), "none stands"
    ports.files.record([standing, row("b", archive=5)])
    identity = (key, "v1")
    for stale in (row(key, archive=4, number=3), row(key, archive=5, number=4)):
        assert not ports.files.replace(stale, to)
    assert ports.files.get([identity]) == {identity: standing}
    assert ports.files.replace(standing, to)
    assert not ports.files.replace(standing, row(key, archive=10)), "a repair that comes late"
    assert ports.files.get([identity]) == {identity: to}
    assert ports.files.get([("b", "v1")]) == {("b", "v1"): row("b", archive=5)}


# Content


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513])
def test_bytes_come_back_with_their_hashes(ports: Ports, size_bytes: int) -> None:
    body = bytes(range(256)) * 3
    stored = ports.upload("a", body[:size_bytes])
    source, found = ports.content.fetch(stored)
    assert found == body[:size_bytes]
    assert (source.key, source.version_id, source.size_bytes) == ("a", stored.version_id, size_bytes)
    assert source.sha256 == hashlib.sha256(found).hexdigest()
    assert source.md5 == hashlib.md5(found).hexdigest()
    described = ports.content.describe(stored)
    assert described == replace(source, sha256="", md5="", checksums=described.checksums)


def test_every_key_can_be_read(ports: Ports) -> None:
    for number, key in enumerate(BAD_KEYS):
        source, body = ports.content.fetch(ports.upload(key, f"{number}".encode()))
        assert (source.key, body) == (key, f"{number}".encode())


def test_a_version_that_was_overwritten_is_read_as_it_was(ports: Ports) -> None:
    old = ports.upload("a", b"old")
    ports.upload("a", b"new!")
    assert ports.content.fetch(old)[1] == b"old"


def test_a_version_that_is_not_there_is_gone(ports: Ports) -> None:
    stored = ports.upload("a", b"a")
    for missing in (replace(stored, key="b"), replace(stored, version_id="00000000-0000-0000-0000-000000000000")):
        with pytest.raises(SourceGone):
            ports.content.fetch(missing)
        with pytest.raises(SourceGone):
            ports.content.describe(missing)


def test_a_size_that_differs_from_the_events_is_a_change(ports: Ports) -> None:
    stored = replace(ports.upload("a", b"abc"), size_bytes=2)
    with pytest.raises(SourceChanged):
        ports.content.fetch(stored)
    with pytest.raises(SourceChanged):
        ports.content.describe(stored)


# ArchiveStore


def laid_out(ports: Ports, serial: int = 1, key: str = "a") -> tuple[Any, Rope]:
    body = key.encode()
    source = Source(
        key=key,
        version_id="v1",
        size_bytes=len(body),
        etag=hashlib.md5(body).hexdigest(),
        last_modified=NOW,
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body).hexdigest(),
        user_metadata={"\u00fc": "\n"},
        tags={"a": "b"},
    )
    return build(serial, "bucket", archive_key(serial, "tar"), [(source, body)])


def test_a_manifest_is_written_once(ports: Ports) -> None:
    manifest, _ = laid_out(ports)
    other, _ = laid_out(ports, key="b")
    assert ports.store.manifest(1) is None
    assert ports.store.put_manifest(manifest)
    assert not ports.store.put_manifest(other)
    assert ports.store.manifest(1) == manifest


def test_an_archive_is_written_once_and_stated_with_its_sha256(ports: Ports) -> None:
    manifest, rope = laid_out(ports)
    _, other = laid_out(ports, key="b")
    assert ports.store.head(manifest.object_key) is None
    stored = ports.store.put(manifest.object_key, rope, manifest.object_sha256)
    assert stored is not None
    assert (stored.size_bytes, stored.sha256, stored.storage_class) == (len(rope), manifest.object_sha256, "GLACIER")
    assert ports.store.put(manifest.object_key, other, other.sha256()) is None
    assert ports.store.head(manifest.object_key) == stored


def test_a_copy_is_made_once_with_its_sha256(ports: Ports) -> None:
    body = b"film" * 1000
    stored = ports.upload("b\u00e4d key+%/../x", body)
    ports.upload("b\u00e4d key+%/../x", b"newer")
    assert ports.store.copy("archives/1.object", stored, "SHA256")
    assert not ports.store.copy("archives/1.object", stored, "SHA256")
    found = ports.store.head("archives/1.object")
    assert found is not None
    assert (found.size_bytes, found.storage_class) == (len(body), "GLACIER")
    assert found.sha256 == hashlib.sha256(body).hexdigest()


def test_a_copy_of_what_is_gone_says_so(ports: Ports) -> None:
    missing = replace(ports.upload("a", b"a"), version_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(SourceGone):
        ports.store.copy("archives/1.object", missing, "SHA256")


MIB = 1024 * 1024


def test_a_copy_in_parts_is_resumed_and_completed_once(ports: Ports) -> None:
    stored = ports.upload("film", b"x" * (5 * MIB + 1))
    parts = [Range(number=1, first=0, last=5 * MIB - 1), Range(number=2, first=5 * MIB, last=5 * MIB)]
    key = "archives/1.object"
    upload_id = ports.store.start_upload(key, "CRC64NVME")
    assert ports.store.uploaded(key, upload_id) == {}
    etags = {1: ports.store.copy_part(key, upload_id, stored, parts[0])}
    assert ports.store.uploaded(key, upload_id) == etags
    etags[2] = ports.store.copy_part(key, upload_id, stored, parts[1])
    assert ports.store.head(key) is None
    assert ports.store.complete_upload(key, upload_id, etags)
    found = ports.store.head(key)
    assert found is not None
    assert found.size_bytes == stored.size_bytes
    ports.store.complete_upload(key, upload_id, etags)
    assert ports.store.head(key) == found


def test_an_upload_that_is_gone_is_none_and_takes_no_part(ports: Ports) -> None:
    """It was completed by another, or aborted by the bucket's lifecycle; the source is as it was."""
    stored = ports.upload("film", b"x" * 100)
    key = "archives/1.object"
    upload_id = ports.store.start_upload(key, "CRC64NVME")
    etag = ports.store.copy_part(key, upload_id, stored, Range(number=1, first=0, last=99))
    assert ports.store.complete_upload(key, upload_id, {1: etag})
    assert ports.store.uploaded(key, upload_id) is None
    with pytest.raises(Transient):
        ports.store.copy_part(key, upload_id, stored, Range(number=1, first=0, last=99))


def test_a_second_upload_of_one_object_is_not_completed(ports: Ports) -> None:
    stored = ports.upload("film", b"x" * 100)
    key = "archives/1.object"
    whole = Range(number=1, first=0, last=99)
    uploads = [ports.store.start_upload(key, "CRC64NVME") for _ in range(2)]
    etags = [{1: ports.store.copy_part(key, upload_id, stored, whole)} for upload_id in uploads]
    assert ports.store.complete_upload(key, uploads[0], etags[0])
    before = ports.store.head(key)
    assert not ports.store.complete_upload(key, uploads[1], etags[1])
    assert ports.store.head(key) == before


# ParkingLot and Queue


@pytest.mark.parametrize("key", BAD_KEYS[::7], ids=ascii)
def test_what_is_parked_comes_back_and_stays_one(ports: Ports, key: str) -> None:
    item = Parked(reason=Reason.SOURCE_GONE, detail="404", parked_at=NOW, version=version(key), bundle="b")
    ports.parking_lot.park(replace(item, detail="before"))
    ports.parking_lot.park(item)
    assert ports.parked() == [item]


@pytest.mark.parametrize("letter", ["x", "\U0001f600", "\u00fc"])
def test_a_message_of_any_size_can_be_parked(ports: Ports, letter: str) -> None:
    """A message has up to 1 MiB, an item of DynamoDB 400 KB."""
    text = letter * 250_000
    ports.parking_lot.park(Parked(reason=Reason.EVENT_INVALID, detail=f"bucket {text}", parked_at=NOW, evidence=text))
    [item] = ports.parked()
    assert text.startswith(item.evidence[:1_000])
    assert item.detail.startswith("bucket ")


def test_a_message_comes_out_as_it_was_sent(ports: Ports) -> None:
    body = json.dumps({"key": "\U0001f600 \n"})
    ports.queue.send(body)
    assert ports.sent() == [body]

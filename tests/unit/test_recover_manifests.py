"""Recovering lost manifests on ports in memory: the same bytes again, one thaw of each archive, and honest gaps."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from neve.domain.manifest import Manifest, archive_key, render_manifest
from neve.domain.thaw import Need, Tier
from neve.errors import ArchiveUnreadable
from neve.flows.recover_manifests import Lost, ManifestRecoverer, Recovered, State
from neve.ports import Answer
from tests.memory import START, MemoryArchiveStore, MemoryCloud, MemoryContent
from tests.memory_listing import MemoryListing
from tests.memory_s3 import MemoryGlacier, MemoryReader

NEED = Need(tier=Tier.BULK, days=3)
HOUR = timedelta(hours=1)


@dataclass
class Bucket:
    """Archives 1 and 2, tars, and 3, a large object; their manifests are lost."""

    storage_class: str = "GLACIER"
    now: datetime = START
    had: dict[int, Manifest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        content = MemoryContent()
        self.store = MemoryArchiveStore(content=content, storage_class=self.storage_class)
        cloud = MemoryCloud(content=content, store=self.store)
        sha256 = base64.b64encode(hashlib.sha256(b"large" * 400).digest()).decode()
        for version in (
            cloud.version("a", content_type="text/plain"),
            cloud.version("b", tags={"owner": "me"}),
            cloud.version("large", 2_000, checksums={"SHA256": sha256}),
        ):
            cloud.collect([version])
            cloud.drain()
        self.had = dict(self.store.manifests)
        self.store.manifests.clear()
        self.glacier = MemoryGlacier(clock=lambda: self.now)
        self.reader: Any = MemoryReader(store=self.store, glacier=self.glacier)
        self.paused: list[float] = []

    @property
    def recoverer(self) -> ManifestRecoverer:
        return ManifestRecoverer(
            store=self.store,
            listing=MemoryListing(self.store),
            glacier=self.glacier,
            reader=self.reader,
            threads=1,
            pause=self.paused.append,
            clock=lambda: self.now,
        )

    def look(self) -> dict[int, Lost]:
        return {each.archive.serial: each for _, lost in self.recoverer.look() for each in lost}

    def recover(self, need: Need = NEED) -> Recovered:
        [told] = self.recoverer.recover(need)
        return told


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def reasons(told: Recovered) -> dict[int, str]:
    return {each.serial: each.reason for each in told.left_out}


def test_manifests_come_back_byte_for_byte_once_their_archives_are_thawed(bucket: Bucket) -> None:
    first = bucket.recover()
    assert (first.recovered, first.thawing, first.asked, first.ready_at) == (0, 2, 2, START + 12 * HOUR)
    assert set(reasons(first)) == {1, 2, 3}
    assert bucket.glacier.asked == [(serial, Tier.BULK, 3, Answer.ACCEPTED) for serial in (1, 2)]
    bucket.glacier.complete()
    second = bucket.recover()
    assert (second.recovered, second.thawing, set(reasons(second))) == (2, 0, {3})
    for serial in (1, 2):
        assert render_manifest(bucket.store.manifests[serial]) == render_manifest(bucket.had[serial])
    third = bucket.recover()
    assert (third.recovered, set(reasons(third))) == (0, {3})
    assert len(bucket.glacier.asked) == 2


def test_an_archive_that_thaws_already_is_not_asked_for_again(bucket: Bucket) -> None:
    bucket.glacier.running[1] = (Tier.STANDARD, 1)
    told = bucket.recover()
    assert (told.thawing, told.asked) == (2, 1)
    assert [serial for serial, *_ in bucket.glacier.asked] == [2]
    assert "by 2026-09-02 00:00 UTC at the latest" in reasons(told)[1]


def test_a_copy_that_has_expired_is_asked_for_again(bucket: Bucket) -> None:
    bucket.recover()
    bucket.glacier.complete()
    bucket.now += timedelta(days=9)
    assert bucket.recover().asked == 2


def test_looking_tells_what_can_be_done_and_asks_for_nothing(bucket: Bucket) -> None:
    bucket.glacier.running[1] = (Tier.BULK, 3)
    found = bucket.look()
    assert {serial: each.state for serial, each in found.items()} == {
        1: State.THAWING, 2: State.ASLEEP, 3: State.HOPELESS
    }  # fmt: skip
    assert found[2].archive.size_bytes == bucket.had[2].object_size_bytes
    bucket.glacier.complete()
    assert bucket.look()[1].state is State.READABLE
    assert not bucket.glacier.asked
    assert not bucket.store.manifests


def test_a_large_object_is_named_with_what_it_can_be_known_by(bucket: Bucket) -> None:
    reason = bucket.look()[3].reason
    assert "nothing in it tells its key: 2,000 bytes, SHA256 " in reason


def test_a_class_that_needs_no_thaw_is_read_at_once() -> None:
    bucket = Bucket(storage_class="GLACIER_IR")
    assert bucket.look()[1].state is State.READABLE
    assert bucket.recover().recovered == 2
    assert not bucket.glacier.asked


def test_a_tier_that_cannot_be_had_leaves_the_archive_out(bucket: Bucket) -> None:
    bucket.glacier.expedited = False
    told = bucket.recover(Need(tier=Tier.EXPEDITED, days=1))
    assert (told.thawing, told.recovered) == (0, 0)
    assert "S3 has no capacity for the tier expedited now" in reasons(told)[1]
    deep = Bucket(storage_class="DEEP_ARCHIVE")
    assert "DEEP_ARCHIVE has no tier expedited" in reasons(deep.recover(Need(tier=Tier.EXPEDITED, days=1)))[1]
    assert not deep.glacier.asked


class Hasty(MemoryGlacier):
    """S3 whose copies come between a HEAD and the request."""

    def request(self, *args: Any, **kwargs: Any) -> Answer:
        super().request(*args, **kwargs)
        self.complete()
        return super().request(*args, **kwargs)


def test_a_copy_that_is_there_when_it_is_asked_for_is_read_at_once(bucket: Bucket) -> None:
    bucket.glacier = Hasty(clock=lambda: bucket.now)
    bucket.reader = MemoryReader(store=bucket.store, glacier=bucket.glacier)
    assert bucket.recover().recovered == 2


def test_what_does_not_tell_its_own_list_is_left_out_with_the_reason(bucket: Bucket) -> None:
    stated, key = bucket.store.stated, archive_key(1, "tar")
    bucket.recover()
    bucket.glacier.complete()
    whole = bucket.store.objects[key]
    bucket.store.objects[key] = b"\0" * len(whole)
    assert "does not begin with a tar header" in reasons(bucket.recover())[1]
    bucket.store.objects[key] = whole
    stated[key] = replace(stated[key], size_bytes=len(whole) + 512)
    assert "its last member implies" in reasons(bucket.recover())[1]
    stated[key] = replace(stated[key], checksums={"CRC64NVME": "AAAAAAAAAAA="})
    assert "S3 states no SHA256" in reasons(bucket.recover())[1]
    assert 1 not in bucket.store.manifests


def test_an_archive_that_vanishes_after_it_was_listed_is_left_out(bucket: Bucket) -> None:
    listing = MemoryListing(bucket.store)
    listed = list(listing.archives())
    bucket.store.stated.clear()
    recoverer = replace(bucket.recoverer, listing=Frozen(listed))
    [told] = recoverer.recover(NEED)
    assert set(reasons(told).values()) == {"it was listed, and is not there"}


@dataclass
class Frozen:
    """A listing that was made before."""

    listed: list[Any]

    def archives(self, start: int = 0) -> Any:
        return iter([each for each in self.listed if each.serial >= start])

    def manifests(self, start: int = 0) -> Any:
        return iter([])


@pytest.mark.parametrize("call", ["status", "request"])
def test_an_archive_that_vanishes_while_it_is_looked_at_is_left_out(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ArchiveUnreadable("archives/0000000001.tar: 404")

    monkeypatch.setattr(bucket.glacier, call, gone)
    assert "404" in reasons(bucket.recover())[1]

"""The S3 and SNS side of restores in memory: what the adapters on AWS are held against, and unit tests run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from neve.domain.index import ArchiveRow
from neve.domain.large import SINGLE_COPY_BYTES
from neve.domain.manifest import Source
from neve.domain.restore import Item, bucket_of
from neve.domain.thaw import PROMISES, Tier, needs_thaw
from neve.domain.version import NULL_VERSION
from neve.errors import ArchiveUnreadable, Asleep, SourceDamaged
from neve.ports import Answer, CopyStatus, Placed
from tests.memory import MemoryArchiveStore

ARCHIVE = "archive-bucket"


def copy_until(now: datetime, days: int) -> datetime:
    """When S3 lets a copy expire: `days` from now, rounded up to midnight UTC."""
    return datetime.combine((now + timedelta(days=days)).date() + timedelta(days=1), time(), UTC)


def thawed_event(
    bucket: str, object_key: str, until: datetime, *, version_id: str = "v", size_bytes: int = 1, name: str = ""
) -> str:
    """S3's event that a copy is there, as it stands in a message."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-09-01T12:00:00.000Z",
        "eventName": name or "ObjectRestore:Completed",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket},
            "object": {"key": object_key, "size": size_bytes, "versionId": version_id, "sequencer": "1"},
        },
        "glacierEventData": {
            "restoreEventData": {
                "lifecycleRestorationExpiryTime": until.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "lifecycleRestoreStorageClass": "GLACIER",
            }
        },
    }
    return json.dumps({"Records": [record]})


@dataclass
class MemoryGlacier:
    """S3's thaws. `clock` tells its time, `gone` are archives whose object has been lost.

    `asked` has (serial, tier, days, answer) of each request. While not `expedited`, S3 has no capacity for that;
    `failures` are raised by the next requests, one each.
    """

    clock: Callable[[], datetime]
    expedited: bool = True
    asked: list[tuple[int, Tier, int, Answer]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    running: dict[int, tuple[Tier, int]] = field(default_factory=dict)
    warm_until: dict[int, datetime] = field(default_factory=dict)

    def request(self, archive: ArchiveRow, *, tier: Tier, days: int) -> Answer:
        if self.failures:
            raise self.failures.pop(0)
        self._require(archive)
        assert needs_thaw(archive.storage_class), "S3 answers 403 InvalidObjectState"
        assert tier in PROMISES[archive.storage_class], "S3 answers 400"
        answer = self._answer(archive, tier, days)
        self.asked.append((archive.serial, tier, days, answer))
        return answer

    def status(self, archive: ArchiveRow) -> CopyStatus:
        self._require(archive)
        return CopyStatus(
            running=archive.serial in self.running,
            warm_until=self.warm_until[archive.serial] if self.is_warm(archive) else None,
        )

    def is_warm(self, archive: ArchiveRow) -> bool:
        until = self.warm_until.get(archive.serial)
        return until is not None and until > self.clock()

    def complete(self) -> list[str]:
        """End the thaws that run; the key of each archive's object does for its event."""
        events = []
        for serial, (_, days) in self.running.items():
            self.warm_until[serial] = copy_until(self.clock(), days)
            events.append(thawed_event(ARCHIVE, f"archives/{serial:010d}.tar", self.warm_until[serial]))
        self.running.clear()
        return events

    def forget(self) -> None:
        """Have S3 know of no thaw any more."""
        self.running.clear()
        self.expire()

    def expire(self) -> None:
        """Let all copies expire."""
        self.warm_until.clear()

    def _answer(self, archive: ArchiveRow, tier: Tier, days: int) -> Answer:
        if self.is_warm(archive):
            self.warm_until[archive.serial] = copy_until(self.clock(), days)
            return Answer.WARM
        promises = PROMISES[archive.storage_class]
        running = self.running.get(archive.serial)
        if running and (promises[tier] >= promises[running[0]] or days != running[1]):
            return Answer.RUNNING
        if tier is Tier.EXPEDITED and not self.expedited:
            return Answer.UNAVAILABLE
        self.running[archive.serial] = (tier, days)
        return Answer.ACCEPTED

    def _require(self, archive: ArchiveRow) -> None:
        if archive.serial in self.gone:
            raise ArchiveUnreadable(archive.object_key)


@dataclass
class MemoryReader:
    """Bytes of the archives in `store`, as far as `glacier` has thawed them; streamed `piece_bytes` at a time.

    `reads` has (serial, first, last) of what was read.
    """

    store: MemoryArchiveStore
    glacier: MemoryGlacier
    piece_bytes: int = 1000
    reads: list[tuple[int, int, int]] = field(default_factory=list)

    def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
        body = self._body(archive)
        if last >= len(body):
            raise ArchiveUnreadable(f"{archive.object_key} has {len(body)} bytes")
        self.reads.append((archive.serial, first, last))
        return body[first : last + 1]

    def stream(self, archive: ArchiveRow, *, first: int = 0) -> Iterator[bytes]:
        body = self._body(archive)
        for start in range(first, len(body), self.piece_bytes):
            self.reads.append((archive.serial, start, min(start + self.piece_bytes, len(body)) - 1))
            yield body[start : start + self.piece_bytes]

    def _body(self, archive: ArchiveRow) -> bytes:
        body = self.store.objects.get(archive.object_key)
        if body is None or archive.serial in self.glacier.gone:
            raise ArchiveUnreadable(archive.object_key)
        if needs_thaw(archive.storage_class) and not self.glacier.is_warm(archive):
            raise Asleep(archive.object_key)
        return body


@dataclass(frozen=True, kw_only=True)
class MemoryObject:
    """An object's version at a destination."""

    version_id: str
    body: bytes
    modified: datetime
    source: Source | None = None

    @property
    def etag(self) -> str:
        """As S3 makes it of a body that came in one piece."""
        return hashlib.md5(self.body).hexdigest()


@dataclass
class MemoryDestination:
    """Objects by their places, s3://bucket/key; the last version of each is current.

    A bucket in `unversioned` gives each object the version id `null`, in the place of the one that had it before; it
    may have kept versions once. `denied` says why a bucket takes nothing. A copy in parts needs `calls` calls.
    `failures` are raised by the next writes to a place.
    """

    reader: MemoryReader
    clock: Callable[[], datetime]
    objects: dict[str, list[MemoryObject]] = field(default_factory=dict)
    unversioned: set[str] = field(default_factory=set)
    denied: dict[str, str] = field(default_factory=dict)
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    calls: int = 1
    single_copy_bytes: int = SINGLE_COPY_BYTES
    _begun: dict[str, int] = field(default_factory=dict)

    def current(self, destination: str) -> MemoryObject | None:
        """What stands at a place."""
        versions = self.objects.get(destination)
        return versions[-1] if versions else None

    def store(self, destination: str, body: bytes, source: Source | None = None) -> MemoryObject:
        """Make a new version, whatever stands there."""
        versions = self.objects.setdefault(destination, [])
        version_id = f"{destination}#{len(versions) + 1}"
        if bucket_of(destination) in self.unversioned:
            version_id = NULL_VERSION
            versions[:] = [each for each in versions if each.version_id != NULL_VERSION]
        made = MemoryObject(version_id=version_id, body=body, modified=self.clock(), source=source)
        versions.append(made)
        return made

    def put(self, item: Item, source: Source, body: bytes, *, overwrite: datetime | None) -> Placed:
        assert hashlib.sha256(body).hexdigest() == source.sha256, "S3 refuses a body that has not the stated SHA-256"
        return self._judge(item, body, overwrite) or self._write(item, source, body)

    def copy(
        self, item: Item, source: Source, archive: ArchiveRow, *, overwrite: datetime | None, until: datetime
    ) -> Placed | None:
        body = self.reader.read(archive, 0, archive.size_bytes - 1)
        if source.sha256 and hashlib.sha256(body).hexdigest() != source.sha256:
            raise SourceDamaged(f"{archive.object_key} is not what its manifest states")
        judged = self._judge(item, body, overwrite)
        if judged:
            return judged
        self._begun[item.destination] = self._begun.get(item.destination, 0) + 1
        if source.size_bytes > self.single_copy_bytes and self._begun[item.destination] < self.calls:
            return None
        return self._write(item, source, body)

    def _judge(self, item: Item, body: bytes, overwrite: datetime | None) -> Placed | None:
        standing = self.current(item.destination)
        refused = self.denied.get(bucket_of(item.destination))
        if refused:
            return Placed(refused=refused)
        if standing and standing.body == body:
            return Placed(
                version_id=standing.version_id, etag=standing.etag, modified=standing.modified, identical=True
            )
        if standing and not (overwrite and standing.modified < overwrite):
            return Placed(conflict=f"an object of {len(standing.body)} bytes is there")
        return None

    def _write(self, item: Item, source: Source, body: bytes) -> Placed:
        failures = self.failures.get(item.destination)
        if failures:
            raise failures.pop(0)
        made = self.store(item.destination, body, source)
        return Placed(version_id=made.version_id, etag=made.etag)


@dataclass
class MemoryTopic:
    """What was published, and under which subjects."""

    published: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)

    def publish(self, message: str, *, subject: str = "") -> None:
        self.published.append(message)
        self.subjects.append(subject)

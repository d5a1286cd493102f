"""The ports of neve.ports in memory: what the adapters on AWS are held against, and what unit tests run on."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from neve.domain.bundle import Bundle, BundleState, Lane, Limits, requested_bundle
from neve.domain.events import parse
from neve.domain.index import ArchiveRow, ArchiveState, FileRow, is_cut
from neve.domain.large import SINGLE_COPY_BYTES, Range, ranges
from neve.domain.manifest import Manifest, Source
from neve.domain.outcome import Written
from neve.domain.parked import Parked
from neve.domain.tar import Rope
from neve.domain.version import ObjectVersion, padded_sequencer
from neve.errors import SourceChanged, SourceGone, Transient
from neve.flows.collect import Collected, Collector
from neve.flows.commit import Committer
from neve.flows.copy_large import LargeCopier
from neve.flows.sweep import Sweeper
from neve.flows.write_archive import ArchiveWriter
from neve.ports import StoredArchive


@dataclass
class MemoryBundles:
    """Bundles, lanes, parts and counter in dictionaries."""

    rows: dict[str, Bundle] = field(default_factory=dict)
    noted: dict[str, dict[str, list[ObjectVersion]]] = field(default_factory=dict)
    named: dict[Lane, str] = field(default_factory=dict)
    drawn: int = 0

    def lane(self, lane: Lane) -> str:
        return self.named.get(lane, "")

    def move_lane(self, lane: Lane, *, previous: str, to: str) -> bool:
        if self.lane(lane) != previous:
            return False
        self.named[lane] = to
        return True

    def create(self, bundle: Bundle) -> bool:
        if bundle.id in self.rows:
            return False
        self.rows[bundle.id] = bundle
        return True

    def get(self, bundle_id: str) -> Bundle | None:
        return self.rows.get(bundle_id)

    def put_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion], now: datetime) -> None:
        self.noted.setdefault(bundle_id, {})[part_id] = list(versions)

    def delete_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion]) -> None:
        self.noted.get(bundle_id, {}).pop(part_id, None)

    def parts(self, bundle_id: str) -> list[ObjectVersion]:
        return [version for part in self.noted.get(bundle_id, {}).values() for version in part]

    def grow(self, bundle_id: str, *, size_bytes: int, count: int, limits: Limits) -> Bundle | None:
        row = self.rows.get(bundle_id)
        if (
            row is None
            or row.state is not BundleState.OPEN
            or row.size_bytes >= limits.target_bytes
            or row.size_bytes + size_bytes > limits.ceiling_bytes
            or row.count + count > limits.max_members
        ):
            return None
        return self._store(replace(row, size_bytes=row.size_bytes + size_bytes, count=row.count + count))

    def claim(self, bundle_id: str, *, owner: str, now: datetime, until: datetime) -> Bundle | None:
        row = self.rows.get(bundle_id)
        if row is None or row.finished:
            return row
        if row.lease_owner not in ("", owner) and row.leased_until is not None and row.leased_until >= now:
            return row
        leased = replace(row, state=BundleState.SEALED, lease_owner=owner, leased_until=until, tries=row.tries + 1)
        return self._store(leased)

    def release(self, bundle_id: str, *, owner: str) -> None:
        row = self.rows.get(bundle_id)
        if row is not None and row.lease_owner == owner:
            self._store(replace(row, lease_owner="", leased_until=None))

    def assign_serial(self, bundle_id: str, *, source: str = "") -> int:
        self.drawn += 1
        row = self.rows[bundle_id]
        if row.serial:
            return row.serial
        if row.state is not BundleState.SEALED:
            raise Transient("finished by another")
        return self._store(replace(row, serial=self.drawn, source=source)).serial

    def raise_serials(self, least: int) -> int:
        self.drawn = max(self.drawn, least)
        return self.drawn

    def drop_serial(self, bundle_id: str, serial: int) -> None:
        row = self.rows.get(bundle_id)
        if row is not None and row.serial == serial and row.state is BundleState.SEALED:
            self._store(replace(row, serial=0, source="", upload_id=""))

    def record_upload(self, bundle_id: str, *, previous: str, upload_id: str) -> str:
        row = self.rows[bundle_id]
        if row.upload_id == previous:
            row = self._store(replace(row, upload_id=upload_id))
        return row.upload_id

    def void(self, bundle: Bundle, now: datetime) -> bool:
        row = self.rows.get(bundle.id)
        seen = (bundle.state, bundle.count, bundle.serial)
        if row is None or (row.state, row.count, row.serial) != seen:
            return False
        self._store(replace(row, state=BundleState.VOID))
        return True

    def finish(self, bundle_id: str, now: datetime) -> bool:
        row = self.rows.get(bundle_id)
        if row is None or row.state is not BundleState.SEALED:
            return False
        self._store(replace(row, state=BundleState.ARCHIVED))
        return True

    def overdue(self, lane: Lane, now: datetime) -> Iterator[Bundle]:
        found = [row for row in self.rows.values() if row.lane is lane and not row.finished and row.due_at < now]
        return iter(sorted(found, key=lambda row: row.due_at))

    def _store(self, row: Bundle) -> Bundle:
        self.rows[row.id] = row
        return row


@dataclass
class MemoryArchives:
    """Archives by serial number. `bundles` draws their serials; a row that was put without one counts as drawn."""

    rows: dict[int, ArchiveRow] = field(default_factory=dict)
    bundles: MemoryBundles = field(default_factory=MemoryBundles)

    def put(self, row: ArchiveRow) -> ArchiveRow:
        return self.rows.setdefault(row.serial, row)

    def finish(self, serial: int, *, duplicates: int, now: datetime) -> None:
        row = self.rows[serial]
        if row.state is ArchiveState.WRITTEN:
            self.rows[serial] = replace(row, state=ArchiveState.ARCHIVED, archived_at=now, duplicates=duplicates)

    def supersede(self, serial: int, *, by: int) -> None:
        row = self.rows.get(serial)
        if row is not None and row.superseded_by < by:
            self.rows[serial] = replace(row, superseded_by=by)

    def get(self, serial: int) -> ArchiveRow | None:
        return self.rows.get(serial)

    def all(self, *, first: int = 1, newest_first: bool = False) -> Iterator[ArchiveRow]:
        serials = sorted((serial for serial in self.rows if serial >= first), reverse=newest_first)
        return (self.rows[serial] for serial in serials)

    def stored_bytes(self) -> int:
        return sum(row.size_bytes for row in self.rows.values())

    def drawn(self) -> int:
        return max(self.bundles.drawn, *self.rows, 0)


@dataclass
class MemoryFiles:
    """The index as a dictionary."""

    rows: dict[tuple[str, str], FileRow] = field(default_factory=dict)

    def holders(self, versions: Sequence[ObjectVersion]) -> Mapping[tuple[str, str], int]:
        return {v.identity: self.rows[v.identity].archive for v in versions if v.identity in self.rows}

    def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
        return [row for row in rows if self.rows.setdefault((row.key, row.pin), row).archive != row.archive]

    def get(
        self,
        identities: Sequence[tuple[str, str]],
        *,
        consistent: bool = True,
    ) -> Mapping[tuple[str, str], FileRow]:
        return {identity: self.rows[identity] for identity in identities if identity in self.rows}

    def replace(self, seen: FileRow, to: FileRow) -> bool:
        standing = self.rows.get((to.key, to.pin))
        if standing is None or (standing.archive, standing.number) != (seen.archive, seen.number):
            return False
        self.rows[to.key, to.pin] = to
        return True

    def versions(self, key: str) -> list[FileRow]:
        return sorted((row for row in self.rows.values() if row.key == key), key=lambda row: row.pin.encode())

    def between(self, after: str, until: str) -> Iterator[FileRow]:
        for key, pin in sorted(self.rows):
            if key > after and (not until or key <= until) and not is_cut(key):
                yield self.rows[key, pin]


@dataclass
class MemoryContent:
    """A content bucket. `failures` makes reading a key fail."""

    objects: dict[tuple[str, str], tuple[Source, bytes]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def put(self, version: ObjectVersion, body: bytes, **metadata: Any) -> None:
        """Store `body` as `version`."""
        source = Source(
            key=version.key,
            version_id=version.version_id,
            size_bytes=len(body),
            etag=version.etag,
            last_modified=version.event_at,
            sha256=hashlib.sha256(body).hexdigest(),
            md5=hashlib.md5(body).hexdigest(),
            **metadata,
        )
        self.objects[version.identity] = (source, body)

    def fetch(self, version: ObjectVersion) -> tuple[Source, bytes]:
        if version.key in self.failures:
            raise self.failures[version.key]
        if version.identity not in self.objects:
            raise SourceGone(version.key)
        source, body = self.objects[version.identity]
        if source.size_bytes != version.size_bytes:
            raise SourceChanged(version.key)
        return source, body

    def describe(self, version: ObjectVersion) -> Source:
        source, _ = self.fetch(version)
        return replace(source, sha256="", md5="")


@dataclass
class MemoryArchiveStore:
    """An archive bucket. Copies take their bytes from `content`."""

    content: MemoryContent
    storage_class: str = "GLACIER"
    objects: dict[str, bytes] = field(default_factory=dict)
    stated: dict[str, StoredArchive] = field(default_factory=dict)
    manifests: dict[int, Manifest] = field(default_factory=dict)
    uploads: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    started: int = 0

    def manifest(self, serial: int) -> Manifest | None:
        return self.manifests.get(serial)

    def put_manifest(self, manifest: Manifest) -> bool:
        if manifest.archive in self.manifests:
            return False
        self.manifests[manifest.archive] = manifest
        return True

    def head(self, object_key: str) -> StoredArchive | None:
        return self.stated.get(object_key)

    def put(self, object_key: str, rope: Rope, sha256: str) -> StoredArchive | None:
        if object_key in self.stated:
            return None
        rope.seek(0)
        body = rope.readall()
        assert hashlib.sha256(body).hexdigest() == sha256, "S3 refuses a body that has not the stated SHA-256"
        return self._store(object_key, body)

    def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
        source, body = self.content.fetch(version)
        if object_key in self.stated:
            return False
        self.copied.append(object_key)
        self._store(object_key, body, {} if algorithm == "SHA256" else {algorithm: source.checksums[algorithm]})
        return True

    def start_upload(self, object_key: str, algorithm: str) -> str:
        self.started += 1
        upload_id = f"upload-{self.started}"
        self.uploads[upload_id] = {}
        return upload_id

    def uploaded(self, object_key: str, upload_id: str) -> Mapping[int, str] | None:
        if upload_id not in self.uploads:
            return None
        return {number: etag for number, (etag, _) in self.uploads[upload_id].items()}

    def copy_part(self, object_key: str, upload_id: str, version: ObjectVersion, part: Range) -> str:
        self.content.fetch(version)
        if upload_id not in self.uploads:
            raise Transient("the upload was completed or aborted")
        etag = f"part-{part.number}"
        self.uploads[upload_id][part.number] = (etag, part.last - part.first + 1)
        self.copied.append(f"{object_key}#{part.number}")
        return etag

    def complete_upload(self, object_key: str, upload_id: str, etags: Mapping[int, str]) -> bool:
        if object_key in self.stated or upload_id not in self.uploads:
            return False
        parts = self.uploads.pop(upload_id)
        assert {number: etag for number, (etag, _) in parts.items()} == dict(etags)
        size = sum(length for _, length in parts.values())
        self.stated[object_key] = StoredArchive(
            version_id=f"v-{object_key}",
            size_bytes=size,
            etag="0-2",
            checksums={"CRC64NVME": "AAAAAAAAAAA="},
            storage_class=self.storage_class,
        )
        return True

    def _store(self, object_key: str, body: bytes, checksums: dict[str, str] | None = None) -> StoredArchive:
        self.objects[object_key] = body
        sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
        stored = StoredArchive(
            version_id=f"v-{object_key}",
            size_bytes=len(body),
            etag=hashlib.md5(body).hexdigest(),
            checksums=checksums or {"SHA256": sha256},
            storage_class=self.storage_class,
        )
        self.stated[object_key] = stored
        return stored


@dataclass
class MemoryParkingLot:
    """What was parked, by id."""

    items: dict[str, Parked] = field(default_factory=dict)

    def park(self, item: Parked) -> None:
        self.items[item.id] = item

    def parked(self, versions: Sequence[ObjectVersion]) -> set[tuple[str, str]]:
        held = {item.version.identity for item in self.items.values() if item.version}
        return held & {version.identity for version in versions}


@dataclass
class MemoryQueue:
    """Messages sent, with their delays."""

    sent: list[tuple[str, int]] = field(default_factory=list)

    def send(self, body: str, *, delay_s: int = 0) -> None:
        self.sent.append((body, delay_s))

    def take(self) -> list[str]:
        """All messages, which are gone afterwards."""
        bodies = [body for body, _ in self.sent]
        self.sent.clear()
        return bodies


CONTENT = "content-bucket"
START = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)


@dataclass
class MemoryCloud:
    """The archive thread over the ports in memory. `now` is its clock, which only a test moves.

    Repairs alone need a `reader` of archives.
    """

    limits: Limits = field(default_factory=lambda: Limits(target_bytes=1_000, max_members=10, max_age_s=20))
    now: datetime = START
    bundles: Any = field(default_factory=MemoryBundles)
    archives: Any = field(default_factory=MemoryArchives)
    files: Any = field(default_factory=MemoryFiles)
    content: MemoryContent = field(default_factory=MemoryContent)
    store: Any = None
    reader: Any = None
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    collect_queue: Any = field(default_factory=MemoryQueue)
    bundles_queue: Any = field(default_factory=MemoryQueue)
    large_queue: Any = field(default_factory=MemoryQueue)
    backfill_bundles_queue: Any = field(default_factory=MemoryQueue)
    backfill_large_queue: Any = field(default_factory=MemoryQueue)
    single_copy_bytes: int = SINGLE_COPY_BYTES
    cut: Callable[[int], list[Range]] = ranges
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    owners: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.store = self.store or MemoryArchiveStore(content=self.content)

    def version(self, key: str, size_bytes: int = 100, *, version_id: str = "v1", **stated: Any) -> ObjectVersion:
        """A version that is in the content bucket; its bytes are its key over and over."""
        body = (key.encode() * (size_bytes // len(key.encode()) + 1))[:size_bytes]
        version = ObjectVersion(
            key=key,
            version_id=version_id,
            size_bytes=size_bytes,
            etag=hashlib.md5(body).hexdigest(),
            sequencer=padded_sequencer("1"),
            event_at=self.now,
        )
        self.content.put(version, body, **stated)
        return version

    def versions(self, count: int, size_bytes: int = 100) -> list[ObjectVersion]:
        return [self.version(f"file-{number:03}", size_bytes) for number in range(count)]

    @property
    def bundles_queues(self) -> dict[Lane, Any]:
        return {Lane.LIVE: self.bundles_queue, Lane.BACKFILL: self.backfill_bundles_queue}

    @property
    def large_queues(self) -> dict[Lane, Any]:
        return {Lane.LIVE: self.large_queue, Lane.BACKFILL: self.backfill_large_queue}

    def collector(self, lane: Lane = Lane.LIVE) -> Collector:
        return Collector(
            lane=lane,
            bundles=self.bundles,
            bundles_queue=self.bundles_queues[lane],
            large_queue=self.large_queues[lane],
            limits=self.limits,
            new_id=lambda: f"id-{next(self.ids)}",
        )

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(bundles=self.bundles, bundles_queues=self.bundles_queues, large_queues=self.large_queues)

    @property
    def committer(self) -> Committer:
        return Committer(bundles=self.bundles, archives=self.archives, files=self.files)

    @property
    def writer(self) -> ArchiveWriter:
        return ArchiveWriter(
            content=self.content,
            store=self.store,
            reader=self.reader,
            bundles=self.bundles,
            files=self.files,
            parking_lot=self.parking_lot,
            collect_queue=self.collect_queue,
            committer=self.committer,
            bucket=CONTENT,
            threads=1,
            clock=lambda: self.now,
        )

    @property
    def copier(self) -> LargeCopier:
        return LargeCopier(
            content=self.content,
            store=self.store,
            bundles=self.bundles,
            files=self.files,
            parking_lot=self.parking_lot,
            collect_queue=self.collect_queue,
            large_queue=self.large_queue,
            committer=self.committer,
            bucket=CONTENT,
            clock=lambda: self.now,
            single_copy_bytes=self.single_copy_bytes,
            cut=self.cut,
        )

    def collect(self, versions: Sequence[ObjectVersion], lane: Lane = Lane.LIVE) -> Collected:
        return self.collector(lane).collect(versions, self.now)

    def write(self, bundle_id: str, *, owner: str = "", lease_s: int = 300) -> Written:
        return self.writer.write(bundle_id, owner=owner or self.owner(), until=self.now + timedelta(seconds=lease_s))

    def copy(self, bundle_id: str, *, owner: str = "", lease_s: int = 300) -> Written:
        return self.copier.copy(bundle_id, owner=owner or self.owner(), until=self.now + timedelta(seconds=lease_s))

    def owner(self) -> str:
        return f"message-{next(self.owners)}"

    def drain(self) -> None:
        """Deliver what waits until the queues and the sweep have nothing left; every lease has ended before."""
        for _ in range(19):
            self.now += timedelta(days=1)
            self.sweeper.sweep(self.now)
            waiting = 0
            for body in self.collect_queue.take():
                waiting += 1
                self.collect(parse(body, CONTENT).versions)
            for queue, handle in (
                *((queue, self.write) for queue in self.bundles_queues.values()),
                *((queue, self.copy) for queue in self.large_queues.values()),
            ):
                for body in queue.take():
                    waiting += 1
                    try:
                        handle(requested_bundle(body))
                    except Transient:
                        queue.send(body)
            if not waiting:
                return
        raise AssertionError("the queues do not run dry")

    def verify(self, versions: Iterable[ObjectVersion], *, without: Iterable[ObjectVersion] = ()) -> None:
        """Each of `versions` has one row, and the archive it names holds its bytes; but for those parked `without`."""
        assert not [bundle for bundle in self.bundles.rows.values() if not bundle.finished]
        parked = {item.version.identity for item in self.parking_lot.items.values() if item.version}
        indexed = set(self.files.rows)
        missing = {version.identity for version in without} - indexed
        assert missing <= parked, "what has no row waits for a person"
        assert indexed | missing == {version.identity for version in versions}
        for serial, archive in self.archives.rows.items():
            assert archive.state is ArchiveState.ARCHIVED
            body = self.store.objects[archive.object_key]
            assert hashlib.sha256(body).hexdigest() == self.store.manifests[serial].object_sha256 == archive.sha256
        for (key, pin), row in self.files.rows.items():
            manifest = self.store.manifests[row.archive]
            assert manifest.members[row.number].source.identity == (key, pin)
            body = self.store.objects[manifest.object_key]
            member = body[row.offset_bytes : row.offset_bytes + row.size_bytes]
            assert hashlib.sha256(member).hexdigest() == manifest.members[row.number].source.sha256
        assert all(archive.files for archive in self.archives.rows.values()), "no archive is empty"

"""What reconcile needs in memory: its ports, and a world of bucket, index and archives in which it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from neve.domain.events import parse as parse_announcement
from neve.domain.index import ArchiveRow
from neve.domain.index import rows as implied_rows
from neve.domain.manifest import Manifest, Source
from neve.domain.reconcile import (
    Outcome,
    Pass,
    PassState,
    ShardRequest,
    ShardRow,
    StartRequest,
    Sweep,
    parse,
    together,
)
from neve.domain.version import ObjectVersion
from neve.errors import InventoryInvalid, ManifestInvalid
from neve.flows.compare import Comparer
from neve.flows.reconcile import Reconciler
from neve.ports import InventoryReport, ListedObject, StoredArchive
from tests.memory import (
    CONTENT,
    START,
    MemoryArchives,
    MemoryArchiveStore,
    MemoryContent,
    MemoryFiles,
    MemoryParkingLot,
    MemoryQueue,
)
from tests.memory_listing import MemoryListing
from tests.memory_s3 import MemoryTopic
from tests.restore_cloud import Stored, source_of, tar_of

GLANCE = timedelta(minutes=15)
DAY = timedelta(days=1)
OLD, YOUNG = START - 10 * DAY, START - DAY / 2
"""When versions and archives were made; the grace period is a day, and passes begin at START or later that day."""


class Killed(BaseException):
    """The process dies here; no handler of errors sees it."""


@dataclass
class MemoryReconciles:
    """Passes by id, when the sweep looks at each, and their shards."""

    rows: dict[str, Pass] = field(default_factory=dict)
    due_at: dict[str, datetime] = field(default_factory=dict)
    parts: dict[tuple[str, int], ShardRow] = field(default_factory=dict)

    def open(self, new: Pass) -> Pass:
        if new.id not in self.rows:
            self.rows[new.id] = new
            self.due_at[new.id] = new.begun_at + GLANCE
        return self.rows[new.id]

    def get(self, pass_id: str) -> Pass | None:
        return self.rows.get(pass_id)

    def passes(self, *, newest_first: bool = True) -> Iterator[Pass]:
        return iter([self.rows[pass_id] for pass_id in sorted(self.rows, reverse=newest_first)])

    def shard(self, pass_id: str, number: int) -> ShardRow:
        return self.parts.get((pass_id, number), ShardRow(of=pass_id, number=number))

    def shards(self, pass_id: str) -> Iterator[ShardRow]:
        return iter([row for (of, _), row in sorted(self.parts.items()) if of == pass_id])

    def swap(self, seen: ShardRow, to: ShardRow) -> ShardRow | None:
        standing = self.shard(seen.of, seen.number)
        if standing.revision != seen.revision:
            return None
        if to.done and not seen.done:
            this = self.rows[to.of]
            self.rows[to.of] = replace(this, done_shards=this.done_shards + 1)
        self.parts[to.of, to.number] = replace(to, revision=seen.revision + 1)
        return self.parts[to.of, to.number]

    def end(self, pass_id: str, counts: Mapping[Outcome, int], now: datetime) -> bool:
        this = self.rows.get(pass_id)
        if this is None or this.state is PassState.FINISHED:
            return False
        self.rows[pass_id] = replace(this, state=PassState.FINISHED, counts=dict(counts), finished_at=now)
        self.due_at[pass_id] = now + GLANCE
        return True

    def announced(self, pass_id: str) -> None:
        if pass_id in self.rows and self.rows[pass_id].state is PassState.FINISHED:
            self.due_at.pop(pass_id, None)

    def due(self, now: datetime) -> Iterator[Pass]:
        return iter([self.rows[pass_id] for pass_id, due_at in self.due_at.items() if due_at < now])

    def postpone(self, pass_id: str, due_at: datetime) -> None:
        if pass_id in self.due_at:
            self.due_at[pass_id] = due_at


@dataclass
class MemoryContentListing:
    """Versions in the order of their listing."""

    listed: list[ObjectVersion] = field(default_factory=list)

    def versions(self, place: str, version_id: str = "") -> Iterator[ObjectVersion]:
        inside = False
        for version in sorted(self.listed, key=lambda each: each.key):
            if version.key > place or inside:
                yield version
            inside = version.key == place and (inside or (bool(version_id) and version.version_id == version_id))


@dataclass
class MemoryInventory:
    """One report: its files as lists of versions, None for a delete marker. `broken` files cannot be read."""

    files: list[list[ObjectVersion | None]] = field(default_factory=list)
    refused: str = ""
    broken: set[int] = field(default_factory=set)

    def newest(self) -> InventoryReport:
        if self.refused:
            raise InventoryInvalid(self.refused)
        return InventoryReport(manifest="reports/manifest.json", files=len(self.files))

    def versions(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, ObjectVersion | None]]:
        yield from list(enumerate(self.files[file], start=1))[after:]
        if file in self.broken:
            raise InventoryInvalid("it ends too early")


@dataclass
class Archived(MemoryArchiveStore):
    """An archive bucket whose manifests may be `unreadable`."""

    unreadable: set[int] = field(default_factory=set)

    def manifest(self, serial: int) -> Manifest | None:
        if serial in self.unreadable:
            raise ManifestInvalid("half of it is missing")
        return super().manifest(serial)


@dataclass
class Deadly:
    """Ports that kill whoever makes one of the calls numbered in `at`, right before or right after it."""

    at: set[int] = field(default_factory=set)
    calls: int = 0

    def watch(self, port: Any) -> Any:
        return _Watched(port, self)

    def call(self, ask: Callable[[], Any]) -> Any:
        self.calls += 1
        number = self.calls
        if 2 * number in self.at:
            raise Killed
        answer = ask()
        if 2 * number + 1 in self.at:
            raise Killed
        return answer


class _Watched:
    def __init__(self, port: Any, deadly: Deadly) -> None:
        self._port, self._deadly = port, deadly

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return (lambda *args, **named: self._deadly.call(lambda: found(*args, **named))) if callable(found) else found


@dataclass
class ReconcileWorld:
    """Everything that reconcile looks at. Each look at the clock takes `tick`; an invocation may take `lasts`."""

    tick: timedelta = timedelta(seconds=1)
    lasts: timedelta = timedelta(minutes=10)
    now: datetime = START
    deadly: Deadly = field(default_factory=Deadly)
    inventory: MemoryInventory | None = None
    archives: MemoryArchives = field(default_factory=MemoryArchives)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    content: MemoryContent = field(default_factory=MemoryContent)
    listing: MemoryContentListing = field(default_factory=MemoryContentListing)
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    passes: MemoryReconciles = field(default_factory=MemoryReconciles)
    collect_queue: MemoryQueue = field(default_factory=MemoryQueue)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    alerts: MemoryTopic = field(default_factory=MemoryTopic)
    threads: int = 1

    def __post_init__(self) -> None:
        self.store = Archived(content=self.content)
        self.objects = MemoryListing(store=self.store, modified=OLD)
        self._owners = 0

    # What is there

    def upload(self, key: str, body: bytes = b"x", *, version_id: str = "v1", made: datetime = OLD) -> ObjectVersion:
        """A version in the content bucket and its listing."""
        source = source_of(key, body, version_id, made)
        self.content.objects[source.identity] = (source, body)
        version = listed(source)
        self.listing.listed.append(version)
        return version

    def delete(self, version: ObjectVersion) -> None:
        """The version is no more in the content bucket."""
        self.listing.listed = [each for each in self.listing.listed if each.identity != version.identity]
        self.content.objects.pop(version.identity, None)

    def archive(self, serial: int, versions: Sequence[ObjectVersion]) -> Stored:
        """A tar of these versions, with all of its rows."""
        members = [self.content.objects[version.identity] for version in versions]
        stored = tar_of(serial, sorted(members, key=lambda member: member[0].identity))
        self.archives.rows[serial] = replace(
            stored.row, object_version_id=f"v-{stored.row.object_key}", written_at=OLD, archived_at=OLD
        )
        self.store.manifests[serial] = stored.manifest
        self.store._store(stored.row.object_key, stored.body)
        self.files.record(implied_rows(stored.manifest))
        return stored

    def change_row(self, serial: int, **changed: Any) -> ArchiveRow:
        """Write an archive's row anew."""
        self.archives.rows[serial] = replace(self.archives.rows[serial], **changed)
        return self.archives.rows[serial]

    def change_object(self, serial: int, **changed: Any) -> StoredArchive:
        """Have S3 state something else of an archive's object."""
        key = self.archives.rows[serial].object_key
        self.store.stated[key] = replace(self.store.stated[key], **changed)
        return self.store.stated[key]

    # What runs

    def clock(self) -> datetime:
        self.now += self.tick
        return self.now

    @property
    def comparer(self) -> Comparer:
        watch = self.deadly.watch
        return Comparer(
            listing=watch(self.listing),
            inventory=watch(self.inventory),
            content=watch(self.content),
            files=watch(self.files),
            archives=watch(self.archives),
            store=watch(self.store),
            archive_listing=watch(self.objects),
            parking_lot=watch(self.parking_lot),
            collect_queue=watch(self.collect_queue),
            bucket=CONTENT,
            grace=DAY,
            threads=self.threads,
            clock=self.clock,
        )

    @property
    def reconciler(self) -> Reconciler:
        watch = self.deadly.watch
        return Reconciler(
            passes=watch(self.passes),
            comparer=self.comparer,
            inventory=watch(self.inventory) if self.inventory else None,
            archives=watch(self.archives),
            queue=watch(self.queue),
            alerts=watch(self.alerts),
            clock=self.clock,
        )

    def handle(self, body: str) -> None:
        """What the function does with a message."""
        request = parse(body, scheduled="20260901T120000-aaaaaa")
        if isinstance(request, StartRequest):
            self.reconciler.start(request)
        elif isinstance(request, ShardRequest):
            self._owners += 1
            self.reconciler.go_on(request, owner=f"owner-{self._owners}", until=self.now + self.lasts)
        else:
            assert isinstance(request, Sweep)
            self.reconciler.sweep()

    def run(self, *bodies: str) -> Pass:
        """Deliver these messages and what follows from them, those of the dead once more and later; the last pass."""
        self.queue.sent += [(body, 0) for body in bodies]
        for _ in range(10_000):
            if not self.queue.sent:
                if not self.passes.due_at:
                    return next(self.passes.passes())
                self.now += 2 * timedelta(hours=1)
                self.queue.sent.append((json.dumps({"message": "sweep"}), 0))
            body, _ = self.queue.sent.pop(0)
            try:
                self.handle(body)
            except Killed:
                self.now += 2 * self.lasts
                self.queue.sent.append((body, 0))
        raise AssertionError("the queue does not run dry")

    def reconcile(self, *boundaries: str) -> Counter[Outcome]:
        """One whole pass, to its end; what it counted."""
        begin = {"format": "neve-reconcile", "version": 1, "pass": "p1", "boundaries": list(boundaries)}
        return Counter(self.run(json.dumps(begin)).counts)

    def findings(self) -> list[tuple[Outcome, int, str]]:
        """What the last pass keeps in words: outcome, archive, key."""
        _, found = together(self.passes.shards(next(self.passes.passes()).id))
        return [(finding.outcome, finding.archive, finding.key) for finding in found]

    def announced(self) -> set[tuple[str, str]]:
        """The versions that were announced to Collect."""
        return {
            version.identity
            for body, _ in self.collect_queue.sent
            for version in parse_announcement(body, CONTENT).versions
        }


def listed(source: Source) -> ObjectVersion:
    """A source as the listing states it."""
    return ObjectVersion(
        key=source.key,
        version_id=source.version_id,
        size_bytes=source.size_bytes,
        etag=source.etag,
        sequencer="",
        event_at=source.last_modified,
    )


@dataclass
class Dated(MemoryListing):
    """A listing in which some objects are young."""

    young: set[int] = field(default_factory=set)

    def _listed(self, prefix: str, objects: dict[str, int], start: int) -> Iterator[ListedObject]:
        for each in super()._listed(prefix, objects, start):
            yield replace(each, modified=YOUNG) if each.serial in self.young else each

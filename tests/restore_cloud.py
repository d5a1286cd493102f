"""The restore thread over the ports in memory: what PlanRestore, Extract, SweepRestores and S3 do, one at a time."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.index import rows as index_rows
from neve.domain.manifest import Kind as ArchiveKind
from neve.domain.manifest import Manifest, Source, archive_key, single
from neve.domain.restore import (
    Ending,
    Job,
    JobState,
    Kind,
    Request,
    Result,
    ThawRequest,
    Wanted,
    parse_plan,
    parse_thawed,
    render_request,
)
from neve.domain.tar import build
from neve.domain.thaw import Need, Tier
from neve.errors import EventInvalid, NeveError, OverCap
from neve.flows.extract import Extracted, Extractor
from neve.flows.jobs import JobEnder
from neve.flows.plan_restore import RestorePlanner
from neve.flows.sweep_restores import RestoreSweeper, Swept
from neve.flows.thaw import Thawer
from neve.ports import Answer
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
from tests.memory_restore import MemoryRestores, MemoryThaws
from tests.memory_s3 import ARCHIVE, MemoryDestination, MemoryGlacier, MemoryReader, MemoryTopic

OTHER = "other-bucket"
BULK = Need(tier=Tier.BULK, days=1)
STANDARD = Need(tier=Tier.STANDARD, days=1)
EXPEDITED = Need(tier=Tier.EXPEDITED, days=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SWEEP = timedelta(minutes=16)
"""A bit more than a sweep's interval, so that what it put off by one is due at the next."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An archive as it lies in S3 and in the tables; the same one may lie in many clouds."""

    row: ArchiveRow
    manifest: Manifest
    body: bytes


def source_of(key: str, body: bytes, version_id: str = "v1", modified: datetime = START) -> Source:
    return Source(
        key=key,
        version_id=version_id,
        size_bytes=len(body),
        etag=hashlib.md5(body).hexdigest(),
        last_modified=modified,
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body).hexdigest(),
        content_type="text/plain",
    )


def tar_of(serial: int, members: Iterable[tuple[Source, bytes]], storage_class: str = "GLACIER") -> Stored:
    manifest, rope = build(serial, CONTENT, archive_key(serial, "tar"), list(members))
    return _stored(manifest, rope.readall(), "tar", storage_class)


def tar_with(serial: int, keys: Sequence[str], storage_class: str = "GLACIER", size_bytes: int = 40) -> Stored:
    """A tar with files whose bytes are their keys over and over."""
    bodies = {key: (key.encode() * size_bytes)[:size_bytes] for key in keys}
    return tar_of(serial, [(source_of(key, body), body) for key, body in bodies.items()], storage_class)


def object_of(serial: int, key: str, body: bytes, storage_class: str = "GLACIER") -> Stored:
    """A large object that is an archive of its own."""
    key_of_object = archive_key(serial, "object")
    manifest = single(archive=serial, bucket=CONTENT, object_key=key_of_object, source=source_of(key, body))
    return _stored(manifest, body, "object", storage_class)


def _stored(manifest: Manifest, body: bytes, kind: ArchiveKind, storage_class: str) -> Stored:
    row = ArchiveRow(
        serial=manifest.archive,
        kind=kind,
        bundle="b",
        object_key=manifest.object_key,
        object_version_id="v",
        storage_class=storage_class,
        size_bytes=len(body),
        sha256=manifest.object_sha256,
        source_bytes=sum(member.source.size_bytes for member in manifest.members),
        files=len(manifest.members),
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=START,
        archived_at=START,
    )
    return Stored(row=row, manifest=manifest, body=body)


@dataclass
class RestoreCloud:
    """`now` is its clock, which only a test moves. `watch` is put around the ports that functions share.

    S3 takes `thaw_takes` for a thaw, and tells of it unless `events_lost`. `failures` are why messages were not
    handled: what is no message is parked then, and others come again.
    """

    stored: Sequence[Stored] = ()
    watch: Callable[[Any], Any] = lambda port: port
    now: datetime = START
    cap_micro_usd: int = 0
    buckets: frozenset[str] = frozenset({CONTENT, OTHER})
    thaw_takes: timedelta = 4 * HOUR
    events_lost: bool = False
    chunk_items: int = 500
    archives: MemoryArchives = field(default_factory=MemoryArchives)
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    invocations: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    failures: list[Exception] = field(default_factory=list)
    _since: dict[int, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = MemoryArchiveStore(content=MemoryContent())
        self.ice = MemoryGlacier(clock=lambda: self.now)
        self.reader = MemoryReader(store=self.store, glacier=self.ice)
        self.destination = MemoryDestination(reader=self.reader, clock=lambda: self.now)
        self.files = self.watch(MemoryFiles())
        self.thaws = self.watch(MemoryThaws())
        self.restores = self.watch(MemoryRestores())
        self.glacier = self.watch(self.ice)
        self.requests_queue = self.watch(MemoryQueue())
        self.extract_queue = self.watch(MemoryQueue())
        self.topic = self.watch(MemoryTopic())
        for each in self.stored:
            self.archive(each)

    def archive(self, stored: Stored) -> None:
        """Put an archive where the archive thread would have put it."""
        self.archives.rows[stored.row.serial] = stored.row
        self.store.manifests[stored.row.serial] = stored.manifest
        self.store.objects[stored.row.object_key] = stored.body
        self.files.record(index_rows(stored.manifest))

    # What runs, as the functions are composed.

    @property
    def ender(self) -> JobEnder:
        return JobEnder(restores=self.restores, topic=self.topic, clock=lambda: self.now)

    @property
    def planner(self) -> RestorePlanner:
        return RestorePlanner(
            files=self.files,
            archives=self.archives,
            restores=self.restores,
            thawer=Thawer(
                thaws=self.thaws,
                glacier=self.glacier,
                extract_queue=self.extract_queue,
                pace=lambda: None,
                cap_micro_usd=self.cap_micro_usd,
                clock=lambda: self.now,
            ),
            ender=self.ender,
            destination_buckets=self.buckets,
            clock=lambda: self.now,
        )

    def extractor(self, kind: Kind = Kind.S3, **changes: Any) -> Extractor:
        settings: dict[str, Any] = {
            "archives": self.archives,
            "store": self.store,
            "files": self.files,
            "restores": self.restores,
            "thaws": self.thaws,
            "reader": self.reader,
            "destination": self.destination,
            "kind": kind,
            "parking_lot": self.parking_lot,
            "requests_queue": self.requests_queue,
            "extract_queue": self.extract_queue,
            "ender": self.ender,
            "bucket": CONTENT,
            "threads": 1,
            "clock": lambda: self.now,
        }
        return Extractor(**(settings | changes))

    @property
    def sweeper(self) -> RestoreSweeper:
        return RestoreSweeper(
            archives=self.archives,
            restores=self.restores,
            thaws=self.thaws,
            glacier=self.glacier,
            requests_queue=self.requests_queue,
            extract_queue=self.extract_queue,
            ender=self.ender,
            clock=lambda: self.now,
        )

    def owner(self) -> str:
        return f"invocation-{next(self.invocations)}"

    # What comes in.

    def job(
        self, items: Sequence[Wanted], need: Need = BULK, *, job: str = "job-1", overwrite: bool = False
    ) -> list[str]:
        """The messages to PlanRestore for a job, sent to its queue as well."""
        portions = [items[start : start + self.chunk_items] for start in range(0, len(items), self.chunk_items)]
        messages = [
            render_request(
                Request(
                    job=job,
                    chunk=number,
                    chunks=len(portions),
                    created_at=self.now,
                    need=need,
                    overwrite=overwrite,
                    estimate_usd=0.0,
                    items=tuple(portion),
                )
            )
            for number, portion in enumerate(portions, start=1)
        ]
        for message in messages:
            self.requests_queue.send(message)
        return messages

    def plan(self, body: str) -> None:
        """PlanRestore is handed a message. Raises as it does; the message is not put back."""
        try:
            request = parse_plan(body)
            if isinstance(request, ThawRequest):
                self.planner.thaw(request, owner=self.owner())
            else:
                self.planner.plan(request, owner=self.owner())
        except OverCap:
            assert isinstance(request, ThawRequest), "those who wait for a thaw over the cap have been told"

    def extract(self, body: str, *, until: datetime | None = None) -> Extracted:
        """Extract is handed a message. Raises as it does; the message is not put back."""
        total = Extracted()
        for thawed in parse_thawed(body, ARCHIVE):
            total += self.extractor().thawed(thawed, owner=self.owner(), until=until or self.now + 5 * MINUTE)
        return total

    def sweep(self) -> Swept:
        return self.sweeper.sweep(owner=self.owner())

    # Time passes.

    def deliver(self) -> None:
        """Hand over what waits in the queues, of equal messages one, until nothing does but what has failed thrice."""
        tries: Counter[str] = Counter()
        held: list[tuple[Any, str]] = []
        for _ in range(50):
            waiting: list[tuple[Callable[[str], object], Any, str]] = []
            waiting += [(self.plan, self.requests_queue, body) for body in dict.fromkeys(self.requests_queue.take())]
            waiting += [(self.extract, self.extract_queue, body) for body in dict.fromkeys(self.extract_queue.take())]
            if not waiting:
                for queue, body in held:
                    queue.send(body)
                return
            for handle, queue, body in waiting:
                if tries[body] == 3:
                    held.append((queue, body))
                elif not self._delivered(handle, queue, body):
                    tries[body] += 1
        raise AssertionError("the queues do not run dry")

    def _delivered(self, handle: Callable[[str], object], queue: Any, body: str) -> bool:
        try:
            handle(body)
        except EventInvalid as error:
            self.failures.append(error)  # it is parked
        except NeveError as error:
            self.failures.append(error)
            queue.send(body)
            return False
        return True

    def wait(self, time: timedelta = SWEEP, *, sweep: bool = True) -> None:
        """Let time pass: S3 ends thaws, and the sweep comes by."""
        self.now += time
        for serial in self.ice.running:
            self._since.setdefault(serial, self.now - time)
        if any(since + self.thaw_takes <= self.now for since in self._since.values()):
            for event in self.ice.complete():
                if not self.events_lost:
                    self.extract_queue.send(event)
            self._since.clear()
        if sweep:
            self.sweep()

    def settle(self, *, within: timedelta = 4 * DAY) -> None:
        """Let everything run until all jobs have ended and been told of."""
        deadline = self.now + within
        self.deliver()
        while self.restores.due_at or self.requests_queue.sent or self.extract_queue.sent:
            assert self.now < deadline, f"jobs that hang: {[job for job in self.jobs if job.finished_at is None]}"
            self.wait()
            self.deliver()

    # What came of it.

    @property
    def jobs(self) -> list[Job]:
        return list(self.restores.jobs())

    @property
    def thawed(self) -> Counter[int]:
        """How many thaws of each archive S3 has begun: those it accepted."""
        return Counter(serial for serial, _, _, answer in self.ice.asked if answer is Answer.ACCEPTED)

    def results(self, job: str = "job-1") -> list[Result]:
        return list(self.restores.results(job))

    def endings(self, job: str = "job-1") -> dict[Ending, int]:
        return dict(Counter(result.ending for result in self.results(job)))

    def place(self, destination: str) -> bytes | None:
        """The bytes that stand there now."""
        found = self.destination.current(destination)
        return found.body if found else None

    def verify(self, *, announced: int = 1) -> None:
        """Every job has ended with an ending for each file, been told of, and what it restored is where it belongs."""
        assert not self.restores.shares, "nothing waits any more"
        assert len(self.topic.published) == announced * len(self.jobs)
        for job in self.jobs:
            assert job.state is JobState.FINISHED
            assert job.finished_at is not None
            assert job.ended_shares == job.shares
            results = self.results(job.id)
            assert len(results) == job.files == job.ended_files
            assert dict(Counter(result.ending for result in results)) == {k: v for k, v in job.ended.items() if v}
            assert job.restored_bytes == sum(each.item.size_bytes for each in results if each.ending is Ending.RESTORED)
            for result in results:
                if result.ending in (Ending.RESTORED, Ending.SKIPPED):
                    bodies = {each.body for each in self.destination.objects[result.item.destination]}
                    assert self.body_of(result.item.key, result.item.pin) in bodies

    def body_of(self, key: str, pin: str) -> bytes:
        """The bytes of an archived version, as they were archived."""
        row = self.files.rows[key, pin]
        [stored] = [each for each in self.stored if each.row.serial == row.archive]
        return stored.body[row.offset_bytes : row.offset_bytes + row.size_bytes]


def wanted(key: str, destination: str = "", pin: str = "v1") -> Wanted:
    """A version, and its own place in the content bucket unless another is named."""
    return Wanted(key=key, pin=pin, destination=destination or f"s3://{CONTENT}/{key}")

"""What the flows need from the world. Each port is an adapter in neve.aws and a fake in the tests.

Every call may raise Transient; the caller lets it pass, and the message comes back. Every write that matters is
conditional and says whether it took effect, so that any of them can be repeated.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from neve.domain.audit import Audit, LastAudit, Report, Run
from neve.domain.backfill import Backfill, BackfillShard, Place, Split, StoredVersion
from neve.domain.bundle import Bundle, Lane, Limits
from neve.domain.digest import Digest
from neve.domain.drill import Drill
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.large import Range
from neve.domain.manifest import Manifest, Source
from neve.domain.outbox import Backlog, Entry
from neve.domain.parked import Parked
from neve.domain.pointer import InContent, OnHost, Pointer
from neve.domain.recall import Recall
from neve.domain.reconcile import Outcome, Pass, ShardRow
from neve.domain.restore import Item, Job, Result, Share
from neve.domain.sampling import Month, Rolling
from neve.domain.tar import Rope
from neve.domain.thaw import Thaw, Tier
from neve.domain.verdict import Sighting
from neve.domain.version import ObjectVersion


@dataclass(frozen=True, kw_only=True)
class StoredArchive:
    """An archive's object as S3 states it. `checksums` maps algorithms to full-object checksums in base64."""

    version_id: str
    size_bytes: int
    etag: str
    checksums: Mapping[str, str]
    storage_class: str

    @property
    def sha256(self) -> str:
        """The SHA-256 in hex; "" where S3 has none over the whole object."""
        return base64.b64decode(self.checksums.get("SHA256", "")).hex()


class Bundles(Protocol):
    """Bundles, their parts, and the lanes, each of which names its open one. Reads are consistent."""

    def lane(self, lane: Lane) -> str:
        """The id of the bundle that is being filled in `lane`; "" before its first."""

    def move_lane(self, lane: Lane, *, previous: str, to: str) -> bool:
        """Point `lane` at `to` if it still points at `previous`."""

    def create(self, bundle: Bundle) -> bool:
        """Create the bundle's row; False if a row with this id stands already, in whatever state."""

    def get(self, bundle_id: str) -> Bundle | None:
        """The bundle; None if it was never created."""

    def put_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion], now: datetime) -> None:
        """Note `versions` under the bundle, in as many items as their length needs. They expire after PART_DAYS."""

    def delete_part(self, bundle_id: str, part_id: str, versions: Sequence[ObjectVersion]) -> None:
        """Take back what put_part noted."""

    def parts(self, bundle_id: str) -> list[ObjectVersion]:
        """All versions noted under the bundle, some perhaps more than once."""

    def grow(self, bundle_id: str, *, size_bytes: int, count: int, limits: Limits) -> Bundle | None:
        """Add to the bundle's counters if it is open, not full, and stays within its ceiling.

        The bundle as it is afterwards; None, and nothing is changed, if it was refused.
        """

    def claim(self, bundle_id: str, *, owner: str, now: datetime, until: datetime) -> Bundle | None:
        """Seal the bundle if it is open, lease it to `owner` and count the try, unless another's lease is running.

        The bundle as it stands afterwards: sealed with `owner` as its lease_owner if the claim took effect; finished,
        or leased to another, if not. None if there is no such bundle.
        """

    def release(self, bundle_id: str, *, owner: str) -> None:
        """End `owner`'s lease, if it holds one."""

    def assign_serial(self, bundle_id: str, *, source: str = "") -> int:
        """Draw the archive's serial number and record it on the sealed bundle, with `source` beside it.

        If another was first, its number counts. Raises Transient if the bundle is not sealed any more.
        """

    def raise_serials(self, least: int) -> int:
        """Have every serial drawn from now on be above `least`; the last one drawn as it stands then, never lowered."""

    def drop_serial(self, bundle_id: str, serial: int) -> None:
        """Take `serial` off the sealed bundle again, if it has it: it turned out to be another archive's."""

    def record_upload(self, bundle_id: str, *, previous: str, upload_id: str) -> str:
        """Record a multipart upload on the bundle if `previous` is recorded there; the one that counts is returned."""

    def void(self, bundle: Bundle, now: datetime) -> bool:
        """Make the bundle void if state, count and serial are still those of `bundle`."""

    def finish(self, bundle_id: str, now: datetime) -> bool:
        """sealed -> archived."""

    def overdue(self, lane: Lane, now: datetime) -> Iterator[Bundle]:
        """The lane's open and sealed bundles whose due_at has passed, those first that were due first, read as they are
        asked for. Eventually consistent.
        """


class Archives(Protocol):
    """The permanent rows of archives, by serial number."""

    def put(self, row: ArchiveRow) -> ArchiveRow:
        """Write the row if none is there; the row that stands afterwards."""

    def finish(self, serial: int, *, duplicates: int, now: datetime) -> None:
        """written -> archived; nothing changes if it is archived already."""

    def supersede(self, serial: int, *, by: int) -> None:
        """Note on the row of a damaged archive, if there is one, that archive `by` stands for it.

        Of several the largest stays: they may come in any order, and the last repair found most of what can be found.
        """

    def get(self, serial: int) -> ArchiveRow | None:
        """The archive with this serial number; None if there is none. Consistent."""

    def all(self, *, first: int = 1, newest_first: bool = False) -> Iterator[ArchiveRow]:
        """Every archive from serial `first` on, by serial; pages are read as they are asked for."""

    def stored_bytes(self) -> int:
        """How many bytes all archives have together. It reads the row of each. Eventually consistent."""

    def drawn(self) -> int:
        """The last serial number drawn; 0 before the first. Consistent."""


class Files(Protocol):
    """The index of archived versions."""

    def holders(self, versions: Sequence[ObjectVersion]) -> Mapping[tuple[str, str], int]:
        """Which archive holds which identity. Eventually consistent: what is missing here may still be there."""

    def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """Write each row unless one stands; those are returned whose place another archive's row has taken."""

    def replace(self, seen: FileRow, to: FileRow) -> bool:
        """Put `to` in the place of `seen`, if the row still names seen's archive and member; whether it did."""

    def get(
        self, identities: Sequence[tuple[str, str]], *, consistent: bool = True
    ) -> Mapping[tuple[str, str], FileRow]:
        """The rows with these identities, (key, pin); those that do not exist are missing.

        If not `consistent`, at half the price, what was written a moment ago may be missing, or as it was before.
        """

    def versions(self, key: str) -> list[FileRow]:
        """All archived versions of `key`, in the order of their pins. Consistent."""

    def between(self, after: str, until: str) -> Iterator[FileRow]:
        """The rows of keys k with after < k <= until, in the order of their UTF-8; "" is no bound.

        Read as they are asked for, eventually consistent. Keys that the index cuts (index.is_cut) are left out: they do
        not stand in their order.
        """


class Content(Protocol):
    """The content bucket, read by version."""

    def fetch(self, version: ObjectVersion) -> tuple[Source, bytes]:
        """The bytes of the version and what restoring it needs.

        Raises SourceGone, SourceChanged, SourceDenied, SourceDamaged or Transient.
        """

    def describe(self, version: ObjectVersion) -> Source:
        """As fetch, without the bytes; the hashes are "" where S3 does not state them."""


class ArchiveStore(Protocol):
    """The archive bucket. Nothing in it is ever overwritten."""

    def manifest(self, serial: int) -> Manifest | None:
        """The manifest object; None if there is none."""

    def put_manifest(self, manifest: Manifest) -> bool:
        """Write the manifest object; False if one stands already."""

    def head(self, object_key: str) -> StoredArchive | None:
        """The archive's object; None if there is none."""

    def put(self, object_key: str, rope: Rope, sha256: str) -> StoredArchive | None:
        """Write the archive's object, its SHA-256 (hex) checked by S3; None if one stands already."""

    def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
        """Copy a version of up to 5 GB by one request, with a checksum by `algorithm`; False if one stands already.

        Raises as Content.fetch.
        """

    def start_upload(self, object_key: str, algorithm: str) -> str:
        """Open a multipart upload with a checksum by `algorithm` over the whole object; its id."""

    def uploaded(self, object_key: str, upload_id: str) -> Mapping[int, str] | None:
        """The ETags of the parts that are there, by number; None if the upload was completed or aborted."""

    def copy_part(self, object_key: str, upload_id: str, version: ObjectVersion, part: Range) -> str:
        """Copy a range of the version as a part; its ETag.

        Raises as Content.fetch, and Transient if the upload was completed or aborted.
        """

    def complete_upload(self, object_key: str, upload_id: str, etags: Mapping[int, str]) -> bool:
        """Join the parts into the object; False if an object stands already."""


class ParkingLot(Protocol):
    """Permanent failures that wait for a person."""

    def park(self, item: Parked) -> None:
        """Keep `item`; the same failure again replaces itself."""

    def parked(self, versions: Sequence[ObjectVersion]) -> set[tuple[str, str]]:
        """The identities of those of `versions` that are parked, for whatever reason."""


class Queue(Protocol):
    """One SQS queue."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """Send one message, to be delivered after `delay_s` seconds, 0 to 900.

        Raises MessageRefused if it is one that the queue never takes, QueueDenied, Transient.
        """


# -- Restore ---------------------------------------------------------------------------------------------------------


class Answer(StrEnum):
    """What S3 says to a request for a thaw."""

    ACCEPTED = "accepted"
    """202: it thaws from now on, and an event will tell when it is done."""
    RUNNING = "running"
    """409: a thaw runs already; its event will come."""
    WARM = "warm"
    """200: the copy is there, and its days count anew. No event follows."""
    UNAVAILABLE = "unavailable"
    """503 GlacierExpeditedRetrievalNotAvailable: try another tier."""


@dataclass(frozen=True, kw_only=True)
class CopyStatus:
    """The temporary copy of an archive as HEAD states it. Neither running nor warm: there is none.

    `warm_until` is None unless the copy is there.
    """

    running: bool = False
    warm_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What became of a file at its destination.

    `version_id` and `etag` (without quotes) are those of the object neve wrote, or of the `identical` one that stood
    there, last `modified` then: `null` is a version id that only together with the ETag names what was put.
    `conflict` says what stands there instead; `refused` why the destination takes nothing.
    """

    version_id: str = ""
    etag: str = ""
    modified: datetime | None = None
    identical: bool = False
    conflict: str = ""
    refused: str = ""
    unproven: bool = False


class Thaws(Protocol):
    """The thaws of archives. Reads are consistent."""

    def get(self, archive: int) -> Thaw | None:
        """The thaw of an archive; None if there is none."""

    def swap(self, seen: Thaw | None, to: Thaw) -> Thaw | None:
        """Put `to` in the place of `seen`, which was read before; as it stands now, or None if another was first."""

    def claim(self, seen: Thaw | None, to: Thaw, *, micro_usd: int, cap_micro_usd: int, now: datetime) -> Thaw | None:
        """As swap, and in the same transaction add `micro_usd` to what was spent on the day of `now`.

        Raises OverCap, and changes nothing, if that would pass `cap_micro_usd`; 0 is no cap.
        """

    def drop(self, seen: Thaw) -> bool:
        """Forget the thaw if it is still as it was seen."""

    def due(self, now: datetime) -> Iterator[Thaw]:
        """The thaws whose due_at has passed, read as they are asked for. Eventually consistent."""

    def spent_micro_usd(self, now: datetime) -> int:
        """What was spent on thaws on the day of `now`, UTC, in millionths of a dollar."""


class Restores(Protocol):
    """Jobs, and their shares that wait for archives. Reads are consistent, except those for the sweep."""

    def open(self, job: Job) -> Job:
        """Create the job unless it is there; as it stands afterwards."""

    def job(self, job_id: str) -> Job | None:
        """The job; None if there is none."""

    def jobs(self, *, newest_first: bool = True) -> Iterator[Job]:
        """All jobs by their ids, which begin with the time."""

    def planned(
        self, job_id: str, chunk: int, *, shares: Sequence[Share], results: Sequence[Result], now: datetime
    ) -> list[Share] | None:
        """Count a chunk to the job, in one transaction: its shares, and the `results` of items that need no archive.

        The shares that count: if the chunk was counted before, those of then, since the index may have changed between
        two tries. None, and nothing changes, if the job waits for no more chunks.
        """

    def add(self, shares: Sequence[Share]) -> list[Share]:
        """Have `shares` wait for their archives; those that wait afterwards: one that has ended stays so."""

    def waiting(self, archive: int) -> list[Share]:
        """The shares that wait for an archive, without their items."""

    def waiting_of(self, job_id: str) -> Iterator[Share]:
        """The shares of a job that have not ended, without their items and leases."""

    def lease(self, share: Share, *, owner: str, now: datetime, until: datetime) -> Share | None:
        """Lease the share to `owner`, with its items; None if it has ended or another's lease runs."""

    def release(self, share: Share, *, owner: str) -> None:
        """End `owner`'s lease, if it holds one."""

    def finish(self, share: Share, results: Sequence[Result], *, owner: str, now: datetime) -> bool:
        """End the share, which `owner` has leased: in one transaction it waits no more, its results are kept, and the
        job's counters change. False, and nothing changes, if `owner` no longer holds it.
        """

    def results(self, job_id: str) -> Iterator[Result]:
        """How the items of a job ended, as far as they have and are kept."""

    def cancel(self, job_id: str, now: datetime) -> bool:
        """Note that the job is to end; False if it is finished, or was cancelled before."""

    def give_up(self, job_id: str, now: datetime) -> None:
        """Wait for no more chunks of a running job."""

    def end(self, job_id: str, now: datetime) -> bool:
        """running -> finished; False if it was finished before. The sweep looks at it until it is announced."""

    def announced(self, job_id: str) -> None:
        """The topic has been told of the finished job: the sweep need not look at it any more."""

    def due(self, now: datetime) -> Iterator[Job]:
        """The jobs that the sweep should look at. Eventually consistent."""

    def postpone(self, job_id: str, due_at: datetime) -> None:
        """Have the sweep look at an unannounced job at `due_at`, not earlier."""


class Glacier(Protocol):
    """S3's thaws."""

    def request(self, archive: ArchiveRow, *, tier: Tier, days: int) -> Answer:
        """Ask S3 to thaw the archive's object, or to keep its copy for `days` from now."""

    def status(self, archive: ArchiveRow) -> CopyStatus:
        """What HEAD says of the copy."""


class ArchiveReader(Protocol):
    """Bytes of archives that are thawed, or need no thaw."""

    def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
        """The bytes from `first` to `last`, both inclusive.

        Raises Asleep if it is not thawed, ArchiveUnreadable if the object is gone or shorter, Transient.
        """

    def stream(self, archive: ArchiveRow, *, first: int = 0) -> Iterator[bytes]:
        """The bytes from `first` on, in pieces, wherever the object ends; S3's checksum is not held against them.

        Raises Asleep, ArchiveUnreadable if the object is gone, Transient.
        """


class Destination(Protocol):
    """Where files go, by one kind of destination."""

    def put(self, item: Item, source: Source, body: bytes, *, overwrite: datetime | None) -> Placed:
        """Put `body`, whose hash was checked, in its place, with what `source` says of it.

        Nothing that differs is replaced, unless it was last modified before `overwrite`.
        """

    def copy(
        self, item: Item, source: Source, archive: ArchiveRow, *, overwrite: datetime | None, until: datetime
    ) -> Placed | None:
        """Put an archive that is one large object in its place; None if the time did not suffice: call again.

        Raises Asleep, ArchiveUnreadable, or SourceDamaged if what arrived is not what the manifest states.
        """


class Topic(Protocol):
    """One SNS topic."""

    def publish(self, message: str, *, subject: str = "") -> None:
        """Publish one message; `subject` is what a mail of it has for one, up to 100 characters."""


# -- The archive bucket as a whole -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """An object of the archive bucket as a listing states it. `serial` is 0 where the key is none that neve gives."""

    key: str
    serial: int
    size_bytes: int
    etag: str
    storage_class: str
    modified: datetime


class ArchiveListing(Protocol):
    """What stands in the archive bucket, read page by page as it is asked for.

    In the order of keys, which up to ten digits is that of serials; foreign keys come where they sort. Strongly
    consistent, but for what is written while it is read.
    """

    def archives(self, start: int = 0) -> Iterator[ListedObject]:
        """The objects under archives/, from serial `start` on."""

    def manifests(self, start: int = 0) -> Iterator[ListedObject]:
        """The objects under manifests/, from serial `start` on."""


# -- Audit -----------------------------------------------------------------------------------------------------------


class Sources(Protocol):
    """The content bucket, read for a comparison: as it is now, whatever S3 states of it."""

    def stream(self, version: ObjectVersion, *, first: int = 0) -> Iterator[bytes]:
        """The bytes of the version from `first` on, in pieces; S3's own checksum is not held against them.

        Wherever the object ends. Raises SourceGone, SourceChanged, SourceDenied, SourceUnfit or Transient.
        """

    def describe(self, version: ObjectVersion) -> Source:
        """What S3 states of the version, the checksums that it keeps included. Raises as stream."""


class Audits(Protocol):
    """Runs, the audits under way, and how they ended. Reads are consistent unless they say otherwise."""

    def open_run(self, run: Run, *, rolling: tuple[Rolling, Rolling] | None, month: tuple[Month, Month] | None) -> Run:
        """Freeze a draw unless it stands, and in the same transaction put the second of each pair in the first's place.

        The run as it stands afterwards. Raises Transient if the rolling pass, or the month, has changed meanwhile.
        """

    def run(self, run: str) -> Run | None:
        """The run; None if there is none."""

    def runs(self, *, newest_first: bool = True) -> Iterator[Run]:
        """All runs by their ids, which begin with the time."""

    def end_run(self, run: str, now: datetime) -> bool:
        """Note when the run ended; False if that was noted before. The sweep looks at it until it is told."""

    def told(self, run: str) -> None:
        """Whoever has to know of the run, which has ended, has been told: the sweep need not look at it any more."""

    def begin(self, audit: Audit) -> Audit | None:
        """Begin the audit unless it stands; as it stands afterwards, None if it has ended.

        The archive's last audit begins anew with it, in the same transaction.
        """

    def waiting(self, archive: int) -> list[Audit]:
        """The audits of an archive that have not ended."""

    def lease(self, audit: Audit, *, owner: str, now: datetime, until: datetime, trying: bool = False) -> Audit | None:
        """Lease the audit to `owner`, as it stands, counting a try if `trying`; None if it has ended or another's lease
        runs.
        """

    def release(self, audit: Audit, *, owner: str, due_at: datetime) -> None:
        """End `owner`'s lease, if it holds one; the sweep looks at the audit at `due_at`."""

    def save(self, audit: Audit, *, owner: str) -> bool:
        """Note stage, progress and tries of an audit that `owner` has leased; False, and no change, if it has not."""

    def put_sources(self, audit: Audit, sightings: Sequence[Sighting]) -> None:
        """Keep what was seen of the members' sources, by their numbers, in the place of what was kept before."""

    def sources(self, audit: Audit) -> list[Sighting]:
        """What put_sources kept."""

    def finish(self, audit: Audit, report: Report, *, owner: str) -> bool:
        """End an audit that `owner` has leased: in one transaction it is under way no more, its report is kept, its
        run counts it, and the archive's last audit has its verdict, unless that is unread.

        False, and nothing changes, if `owner` no longer holds it.
        """

    def due(self, now: datetime) -> Iterator[Audit]:
        """The audits that the sweep should look at. Eventually consistent."""

    def untold(self, now: datetime) -> Iterator[Run]:
        """The runs that have audits under way, or have ended and are not told. Eventually consistent."""

    def reports(self, run: str = "", *, newest_first: bool = False) -> Iterator[Report]:
        """How the audits ended of this run, or of all runs."""

    def last(self, archives: Sequence[int]) -> Mapping[int, LastAudit]:
        """The last audits of these archives; those that have none are missing."""

    def audited(self) -> Iterator[LastAudit]:
        """The last audits of all archives that have one, by serial. Eventually consistent."""

    def longest_ago(self) -> Iterator[LastAudit]:
        """As audited, those first that were begun the longest ago, but without finished_at and verdict.

        Pages are read as they are asked for.
        """

    def rolling(self) -> Rolling:
        """Where the rolling pass is."""

    def month(self, name: str) -> Month | None:
        """What the rolling pass has spent in a month; None if it has not begun."""


# -- Reconcile -------------------------------------------------------------------------------------------------------


class ContentListing(Protocol):
    """What stands in the content bucket."""

    def versions(self, place: str, version_id: str = "") -> Iterator[ObjectVersion]:
        """The versions, no delete markers, of the keys after `place` in the order of their UTF-8, those of one key
        together; with a version id, first what follows that version of `place`. event_at is when S3 says it was made.

        Read page by page as they are asked for. Strongly consistent, but for what is written while it is read.
        """


@dataclass(frozen=True, kw_only=True)
class InventoryReport:
    """One S3 Inventory: the key of its manifest.json, and how many files it lists."""

    manifest: str
    files: int


class Inventory(Protocol):
    """The S3 Inventory reports of the content bucket."""

    def newest(self) -> InventoryReport:
        """The newest complete report. Raises InventoryInvalid, saying why, if there is none that can be used."""

    def versions(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, ObjectVersion | None]]:
        """The lines of one file after line `after`, from 1, with their versions; None for delete markers.

        Raises InventoryInvalid if the file is not what the manifest says.
        """


class Reconciles(Protocol):
    """Passes and their shards. Reads are consistent, except those for the sweep."""

    def open(self, new: Pass) -> Pass:
        """Create the pass unless it is there; as it stands afterwards."""

    def get(self, pass_id: str) -> Pass | None:
        """The pass; None if there is none."""

    def passes(self, *, newest_first: bool = True) -> Iterator[Pass]:
        """All passes by their ids, which begin with the time."""

    def shard(self, pass_id: str, number: int) -> ShardRow:
        """A shard as it stands; as new if it was never begun."""

    def shards(self, pass_id: str) -> Iterator[ShardRow]:
        """The shards of a pass that were begun and are kept, by number."""

    def swap(self, seen: ShardRow, to: ShardRow) -> ShardRow | None:
        """Put `to` in the place of `seen`, which was read before; as it stands now, or None if another was first.

        If that ends the shard, its pass counts it in the same transaction.
        """

    def end(self, pass_id: str, counts: Mapping[Outcome, int], now: datetime) -> bool:
        """running -> finished, with these counts; False if it was finished before. The sweep looks at it until it is
        announced.
        """

    def announced(self, pass_id: str) -> None:
        """Whoever has to know of the finished pass has been told: the sweep need not look at it any more."""

    def due(self, now: datetime) -> Iterator[Pass]:
        """The passes that the sweep should look at. Eventually consistent."""

    def postpone(self, pass_id: str, due_at: datetime) -> None:
        """Have the sweep look at an unannounced pass at `due_at`, not earlier."""


# -- Backfill --------------------------------------------------------------------------------------------------------


class VersionListing(Protocol):
    """What stands in the content bucket, with the class that it is stored in."""

    def first_key(self, prefix: str, after: str) -> str:
        """The first key behind `after`, in the order of UTF-8, that begins with `prefix`; "" if there is none.

        Keys that have only delete markers count.
        """

    def stored(self, prefix: str, after: str, version_id: str = "") -> Iterator[tuple[Place, StoredVersion | None]]:
        """The versions, as ContentListing.versions gives them, of keys that begin with `prefix`, each with its place.

        A page ends with its place alone: of delete markers there may be any number.
        """


class VersionInventory(Protocol):
    """The S3 Inventory reports of the content bucket, as far as they state what a version is stored in."""

    def newest(self) -> InventoryReport:
        """As Inventory.newest."""

    def stored(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, StoredVersion | None]]:
        """As Inventory.versions, with storage classes. Raises InventoryInvalid if the report has none, and as that."""


class Depth(Protocol):
    """How full one SQS queue is."""

    def waiting(self) -> int:
        """How many messages could be received now, neither delayed nor in flight. Eventually consistent."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """When a batch may be announced; if it was not `taken`, then there was none before that."""

    at: datetime
    taken: bool


class Backfills(Protocol):
    """Backfills, how each is split, and its shards. Reads are consistent."""

    def open(self, new: Backfill) -> Backfill:
        """Create the backfill unless it is there; as it stands afterwards."""

    def get(self, backfill_id: str) -> Backfill | None:
        """The backfill; None if there is none."""

    def all(self, *, newest_first: bool = True) -> Iterator[Backfill]:
        """All backfills by their ids, which begin with the time."""

    def split(self, backfill_id: str) -> Split | None:
        """How the backfill is split; None if it is not yet."""

    def freeze(self, backfill_id: str, split: Split) -> Split:
        """Split the backfill so, unless it is split; how it is split afterwards."""

    def shard(self, backfill_id: str, number: int) -> BackfillShard:
        """A shard as it stands; as new if it was never begun."""

    def shards(self, backfill_id: str) -> Iterator[BackfillShard]:
        """The shards of a backfill that were begun, by number."""

    def swap(self, seen: BackfillShard, to: BackfillShard) -> BackfillShard | None:
        """Put `to` in the place of `seen`, which was read before; as it stands now, or None if another was first."""

    def reserve(self, backfill_id: str, *, takes: timedelta, now: datetime, until: datetime) -> Slot | None:
        """Reserve the next free time for a batch that takes so long at the backfill's rate, if that is by `until`.

        All shards share one row of such times; a batch that takes no time finds one at once. None if the backfill is
        not running.
        """

    def stop(self, backfill_id: str, now: datetime, *, problem: str = "") -> bool:
        """running -> stopped; False, and nothing changes, if it is not running. Shards stop at their next batch."""

    def resume(self, backfill_id: str, now: datetime, *, rate: int | None = None) -> Backfill | None:
        """running or stopped -> running, with another attempt and perhaps another rate, without a problem.

        As it stands afterwards; None, and nothing changes, if it is finished or there is none.
        """

    def end(self, backfill_id: str, now: datetime) -> bool:
        """running or stopped -> finished, without a problem; False if it was finished before."""


# -- Drill -----------------------------------------------------------------------------------------------------------


class Drills(Protocol):
    """Drills, each with its draw and what came of it. Reads are consistent, except those for the sweep."""

    def create(self, drill: Drill) -> Drill:
        """Freeze the drill unless one of its id stands; as it stands afterwards."""

    def get(self, drill_id: str) -> Drill | None:
        """The drill; None if there is none."""

    def swap(self, seen: Drill, to: Drill) -> Drill | None:
        """Put `to` in the place of `seen`, which was read before; as it stands now, or None if another was first."""

    def all(self, *, newest_first: bool = True) -> Iterator[Drill]:
        """All drills by their ids, which begin with the time."""

    def due(self, now: datetime) -> Iterator[Drill]:
        """The drills whose due_at has passed, read as they are asked for. Eventually consistent."""

    def watched_since(self, now: datetime) -> datetime:
        """Since when drills are looked after: the first call notes `now`."""


class DrillCopies(Protocol):
    """What drills have restored, at places named `s3://bucket/key`."""

    def describe(self, place: str) -> Digest | None:
        """What S3 states of the object that stands there; None if nothing does.

        Raises SourceDenied if it may not be read, and Transient.
        """

    def stream(self, place: str) -> Iterator[bytes]:
        """Its bytes in pieces; S3's own checksum is not held against them. Raises SourceGone, and as describe."""

    def clear(self, bucket: str, folder: str) -> int:
        """Delete every version of every object in a drill's folder, each by its id; how many."""


# -- Offload ---------------------------------------------------------------------------------------------------------


class Pointers(Protocol):
    """Where files are now, by the application's keys. Reads are consistent."""

    def get(self, key: str) -> Pointer | None:
        """The pointer of a file; None if it has none."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        """The pointers of several files; those that have none are missing."""

    def move(self, seen: Pointer | None, to: InContent) -> bool:
        """Put `to` in the place of `seen`, which was read before; whether it did.

        A pointer into the content bucket has to name the same content version and upload still. Where none was seen,
        or one to a host, none into the content bucket may stand.
        """

    def claim_host(self, to: OnHost) -> bool:
        """Put `to` where no pointer into the content bucket stands; whether it did."""


@dataclass(frozen=True, kw_only=True)
class ContentCopy:
    """A copy that S3 has just made in the content bucket, with the full-object checksums that it states."""

    version_id: str
    etag: str
    checksums: Mapping[str, str]


class NotCopied(StrEnum):
    """Why there is no copy."""

    TAKEN = "taken"
    """What stands at the destination is not what was seen there, or the source is not there any more."""
    UNFINISHED = "unfinished"
    """The time did not suffice for all parts; the next call goes on with the others."""


class Uploads(Protocol):
    """The uploads bucket and the content bucket, by their names, and the copies that S3 makes into the latter."""

    def describe(self, bucket: str, version: ObjectVersion) -> Source:
        """What S3 states of a version. Raises SourceGone, SourceChanged, SourceDenied, SourceUnfit or Transient."""

    def hashes(self, bucket: str, version: ObjectVersion) -> Mapping[str, str]:
        """SHA256 and CRC64NVME, as S3 would state them, of all bytes of a version, which are read. Raises as describe.

        Raises SourceDamaged if their number is not the version's.
        """

    def current(self, bucket: str, key: str) -> ObjectVersion | None:
        """The current version of a key; None if there is none, or a delete marker.

        Without a sequencer; `event_at` is when S3 made it.
        """

    def copy(
        self,
        bucket: str,
        version: ObjectVersion,
        content_key: str,
        *,
        source: Source | None,
        onto: ObjectVersion | None,
        until: datetime,
    ) -> ContentCopy | NotCopied:
        """Copy a version to `content_key` in the content bucket, with its metadata and tags.

        It becomes the current version only if `onto`, by its ETag, is current then; None: if nothing is. `source` is
        what S3 states of the version, without which it goes to STANDARD; a copy in parts needs it. Raises SourceGone,
        SourceDenied, SourceUnproven (nothing is copied), SourceDamaged or Transient.
        """

    def release(self, upload: ObjectVersion) -> bool:
        """Hide the current version of the upload's key behind a delete marker, if it has the upload's ETag; if it did.

        What is hidden stays as a noncurrent version.
        """


class Outbox(Protocol):
    """The backup queue: messages that wait to be sent. Reads are consistent unless they say otherwise.

    Entries stand in the order in which they were put, as far as one sender put them; between senders there is none.
    """

    def put(self, entry: Entry) -> None:
        """Keep `entry`; the same again replaces itself. Raises, and may have kept it, if that fails."""

    def holds(self, queue: str) -> bool:
        """Whether anything waits to be sent to `queue`."""

    def queues(self) -> Sequence[str]:
        """The queues to which something waits to be sent."""

    def lease(self, queue: str, *, owner: str, now: datetime, until: datetime) -> bool:
        """Let `owner` be the only one to send to `queue` until then; False if another's lease runs.

        One that would run for longer than LONGEST_LEASE from now does not count.
        """

    def release(self, queue: str, *, owner: str) -> None:
        """End `owner`'s lease, if it holds one."""

    def oldest(self, queue: str, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries for `queue`, the oldest first; none only if none waits."""

    def sent(self, entry: Entry) -> None:
        """Forget an entry, which was sent or parked."""

    def failed(self, entry: Entry) -> None:
        """Count a failure of an entry that no waiting heals, if it is still there."""

    def backlog(self, queue: str) -> Backlog:
        """What waits to be sent to `queue`. Of very many it may count fewer than there are. Eventually consistent."""


# -- Serve -----------------------------------------------------------------------------------------------------------


class Standing(Protocol):
    """What stands in one bucket now."""

    def holds(self, key: str) -> bool:
        """Whether an object stands at `key`, whatever its version.

        What S3 refuses to tell comes out as its error, or as Transient: only what S3 says is not there is not there.
        """


class Signer(Protocol):
    """URLs by which anybody reads files that nobody reads without."""

    def signed(self, key: str, *, head: bool, lifetime_s: int) -> str:
        """A URL of the file at `key`, for HEAD requests if `head`, else for GET; good for `lifetime_s` seconds."""


class Recalls(Protocol):
    """Which files are being brought back for visitors, by their keys in the content bucket. Reads are consistent."""

    def get(self, stored: str) -> Recall | None:
        """The recall of a file; None if there is none."""

    def swap(self, seen: Recall | None, to: Recall) -> bool:
        """Put `to` in the place of `seen`, which was read before; False if another was first."""

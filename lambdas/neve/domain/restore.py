"""Restores: what is asked for, in which portions it is worked off, and how each file of it ends.

A job is sent to PlanRestore in chunks. Of each chunk the items that lie in one archive form a share: it waits for the
archive's thaw, is extracted under a lease, and finished as one. A share's items are few enough for one DynamoDB item.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from operator import index
from typing import Any
from urllib.parse import unquote_plus

from neve.domain.events import EVENT_MAJOR
from neve.domain.thaw import Need, Tier, archive_of
from neve.domain.version import KEY_LIMIT, PIN_LIMIT
from neve.errors import EventInvalid

KEEP = timedelta(days=90)
"""How long the items of a job are kept after they ended; the job's summary stays."""

CHUNK_ITEMS = 500
CHUNK_BYTES = 180_000
"""A chunk and what became of it have to fit into a message (1 MiB) and into an item of DynamoDB (400 KB)."""
DETAIL_CHARACTERS = 200
SHA256_HEAD = 16
"""64 bits tell any two files apart, and a share has to stay small."""
DESTINATION_BYTES = 6_000
"""A local path has up to 4,096 bytes; s3://, a bucket's name and a key have less."""
LARGEST_DAYS = 365


class Ending(StrEnum):
    """How the restore of one file ended."""

    RESTORED = "restored"
    SKIPPED = "skipped"
    """An identical object is there already."""
    CONFLICT = "conflict"
    """A different object is there, and --overwrite was not given."""
    NOT_FOUND = "not found"
    """The version is in no archive."""
    DAMAGED = "archive damaged"
    """The archive's bytes are not those that the manifest states; the item is parked as well."""
    REFUSED = "destination refused"
    """The destination is not allowed, does not exist, or denies writing."""
    TIER_REFUSED = "tier not offered"
    """The archive's storage class has no thaws this fast."""
    OVER_CAP = "over the spend cap"
    """Thawing its archive would have cost more than the stack may spend in a day."""
    EXPIRED = "expired"
    """The thawed copy expired before the file was fetched to a local folder."""
    CANCELLED = "cancelled"


GOOD = frozenset({Ending.RESTORED, Ending.SKIPPED})
"""Endings after which the file is where it was wanted."""


class Kind(StrEnum):
    """Who brings a share's items home: the function Extract, or the command, to a local folder."""

    S3 = "s3"
    LOCAL = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One line of a request: a version (pin "" for the newest archived) and where it goes.

    The destination is `s3://bucket/key`, or `file:` and an absolute path.
    """

    key: str
    pin: str
    destination: str

    @property
    def kind(self) -> Kind:
        """Who brings it home."""
        return Kind.LOCAL if self.destination.startswith("file:") else Kind.S3


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A wanted version and its place: the member `number` of the share's archive.

    `sha256_head` is the beginning of the SHA-256 that the index states, "" if it states none: what the manifest has at
    this number must be the same bytes.
    """

    key: str
    pin: str
    number: int
    size_bytes: int
    destination: str
    sha256_head: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How one item ended. `detail` is for a person: what was found, what to do."""

    item: Item
    ending: Ending
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one chunk of a job wants of one archive.

    `first_leased_at` is when its extraction began: what was put in place since then may be its own work.
    """

    job: str
    chunk: int
    archive: int
    kind: Kind
    need: Need
    overwrite: bool
    items: tuple[Item, ...] = ()
    files: int
    size_bytes: int
    lease_owner: str = ""
    leased_until: datetime | None = None
    first_leased_at: datetime | None = None

    @property
    def id(self) -> str:
        """What names the share among those of its job, and sorts by chunk."""
        return f"{self.chunk:06d}#{self.archive:010d}#{self.kind}"


class JobState(StrEnum):
    """running -> finished."""

    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A restore as it stands. The counters are those of chunks planned, and of shares and files that ended.

    `estimate_usd` is what the command showed before it began. From `given_up_at` on, chunks that have not come are not
    waited for.
    """

    id: str
    created_at: datetime
    need: Need
    overwrite: bool
    chunks: int
    estimate_usd: float = 0.0
    state: JobState = JobState.RUNNING
    planned_chunks: int = 0
    files: int = 0
    size_bytes: int = 0
    shares: int = 0
    ended_shares: int = 0
    ended: Mapping[Ending, int] = field(default_factory=dict)
    restored_bytes: int = 0
    cancelled_at: datetime | None = None
    given_up_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def planned(self) -> bool:
        """Whether all chunks have come."""
        return self.planned_chunks >= self.chunks

    @property
    def complete(self) -> bool:
        """Whether every item has ended."""
        return (self.planned or self.given_up_at is not None) and self.ended_shares >= self.shares

    @property
    def missing_chunks(self) -> int:
        """How many chunks never came, or came too late."""
        return self.chunks - self.planned_chunks if self.given_up_at else 0

    @property
    def ended_files(self) -> int:
        """How many files have ended, in whatever way."""
        return sum(self.ended.values())

    @property
    def good(self) -> bool:
        """Whether every file that ended is where it was wanted."""
        lost = self.missing_chunks or (self.state is JobState.FINISHED and self.ended_files < self.files)
        return not lost and all(ending in GOOD for ending, count in self.ended.items() if count)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One chunk of a job, as PlanRestore is handed it."""

    job: str
    chunk: int
    chunks: int
    created_at: datetime
    need: Need
    overwrite: bool
    estimate_usd: float
    items: tuple[Wanted, ...]

    def opened(self) -> Job:
        """The job as its first chunk makes it known."""
        return Job(
            id=self.job,
            created_at=self.created_at,
            need=self.need,
            overwrite=self.overwrite,
            chunks=self.chunks,
            estimate_usd=self.estimate_usd,
        )


@dataclass(frozen=True, kw_only=True)
class ThawRequest:
    """The sweep's word that an archive is still needed."""

    archive: int
    need: Need


@dataclass(frozen=True, kw_only=True)
class Thawed:
    """An archive that can be read. `until` is when S3 says the copy expires; None if the message is neve's own."""

    archive: int
    until: datetime | None = None


def bucket_of(destination: str) -> str:
    """The bucket of an s3:// destination; "" for others."""
    return destination.removeprefix("s3://").partition("/")[0] if destination.startswith("s3://") else ""


def key_of(destination: str) -> str:
    """The key of an s3:// destination."""
    return destination.removeprefix("s3://").partition("/")[2]


# -- Messages --------------------------------------------------------------------------------------------------------

RESTORE_FORMAT = "neve-restore"
THAW_FORMAT = "neve-thaw"
EXTRACT_FORMAT = "neve-extract"
RESTORED_FORMAT = "neve-restored"


def chunks(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """`wanted` in portions that fit into a message, in their order."""
    portion: list[Wanted] = []
    size = 0
    for each in wanted:
        length = len(json.dumps(_wanted_fields(each)))
        if portion and (len(portion) == CHUNK_ITEMS or size + length > CHUNK_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += length
    if portion:
        yield portion


def render_request(request: Request) -> str:
    """The message to PlanRestore. Inverse: parse_plan."""
    return json.dumps(
        {
            "format": RESTORE_FORMAT,
            "version": 1,
            "job": request.job,
            "chunk": request.chunk,
            "chunks": request.chunks,
            "created_at": request.created_at.isoformat(),
            "tier": request.need.tier,
            "days": request.need.days,
            "overwrite": request.overwrite,
            "estimate_usd": request.estimate_usd,
            "items": [_wanted_fields(each) for each in request.items],
        }
    )


def render_thaw_request(request: ThawRequest) -> str:
    """The message to PlanRestore by which the sweep asks for an archive. Inverse: parse_plan."""
    return json.dumps(
        {
            "format": THAW_FORMAT,
            "version": 1,
            "archive": request.archive,
            "tier": request.need.tier,
            "days": request.need.days,
        }
    )


def render_thawed(archive: int) -> str:
    """The message to Extract that an archive can be read. Inverse: parse_thawed."""
    return json.dumps({"format": EXTRACT_FORMAT, "version": 1, "archive": archive})


def parse_plan(body: str) -> Request | ThawRequest:
    """What a message to PlanRestore asks for. Raises EventInvalid, naming what is wrong."""
    message = _message(body)
    try:
        match message.get("format"):
            case str(name) if name in (RESTORE_FORMAT, THAW_FORMAT):
                _require_version(message)
                need = Need(tier=Tier(message["tier"]), days=index(message["days"]))
                if not 1 <= need.days <= LARGEST_DAYS:
                    raise EventInvalid(f"days must be 1 to {LARGEST_DAYS}, not {need.days}")
                return _request(message, need) if name == RESTORE_FORMAT else _thaw_request(message, need)
            case other:
                raise EventInvalid(f"format {other!r}, expected {RESTORE_FORMAT} or {THAW_FORMAT}")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a request that can be read: {error!r}") from error


def parse_thawed(body: str, bucket: str) -> list[Thawed]:
    """The archives that a message to Extract is about: neve's own word, or S3's events ObjectRestore:Completed.

    Other events of S3 are of no concern and left out. Raises EventInvalid.
    """
    message = _message(body)
    if message.get("Event") == "s3:TestEvent":
        return []
    try:
        if message.get("format") == EXTRACT_FORMAT:
            _require_version(message)
            return [Thawed(archive=_serial(message["archive"]))]
        records = message.get("Records")
        if not isinstance(records, list):
            raise EventInvalid("neither an S3 event (no list named Records) nor a word of neve")
        return [thawed for record in records if (thawed := _completed(record, bucket)) is not None]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a message that can be read: {error!r}") from error


def summary(job: Job) -> dict[str, Any]:
    """What the topic `restored` is told of a finished job; the command's JSON has the same fields."""
    return {
        "job": job.id,
        "state": job.state.value,
        "created_at": job.created_at.isoformat(),
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "cancelled_at": job.cancelled_at.isoformat() if job.cancelled_at else None,
        "tier": job.need.tier.value,
        "days": job.need.days,
        "overwrite": job.overwrite,
        "estimate_usd": job.estimate_usd,
        "planned": job.planned,
        "missing_chunks": job.missing_chunks,
        "files": job.files,
        "bytes": job.size_bytes,
        "ended_files": job.ended_files,
        "restored_bytes": job.restored_bytes,
        "endings": {ending.value: job.ended.get(ending, 0) for ending in Ending if job.ended.get(ending)},
    }


def render_restored(job: Job) -> str:
    """The message to the topic `restored`."""
    return json.dumps({"format": RESTORED_FORMAT, "version": 1, **summary(job)})


def _message(body: str) -> Mapping[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EventInvalid(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise EventInvalid(f"a JSON object was expected, this is a {type(message).__name__}")
    return message


def _require_version(message: Mapping[str, Any]) -> None:
    if message.get("version") != 1:
        raise EventInvalid(f"{message.get('format')} of version {message.get('version')!r}, this code reads version 1")


def _request(message: Mapping[str, Any], need: Need) -> Request:
    request = Request(
        job=_job_id(message["job"]),
        chunk=index(message["chunk"]),
        chunks=index(message["chunks"]),
        created_at=datetime.fromisoformat(message["created_at"]),
        need=need,
        overwrite=message["overwrite"] is True,
        estimate_usd=float(message["estimate_usd"]),
        items=tuple(_wanted(fields) for fields in message["items"]),
    )
    if request.created_at.tzinfo is None:
        raise EventInvalid("created_at must name its time zone")
    if not math.isfinite(request.estimate_usd):
        raise EventInvalid(f"an estimate of {request.estimate_usd} USD")
    if not 1 <= request.chunk <= request.chunks < 1_000_000:
        raise EventInvalid(f"chunk {request.chunk} of {request.chunks}")
    size = sum(len(json.dumps(_wanted_fields(each))) for each in request.items)
    if not 1 <= len(request.items) <= CHUNK_ITEMS or (size > CHUNK_BYTES and len(request.items) > 1):
        raise EventInvalid(
            f"a chunk has 1 to {CHUNK_ITEMS} items in {CHUNK_BYTES} bytes, this one has {len(request.items)} in {size}"
        )
    return request


def _thaw_request(message: Mapping[str, Any], need: Need) -> ThawRequest:
    return ThawRequest(archive=_serial(message["archive"]), need=need)


def _wanted_fields(wanted: Wanted) -> list[str]:
    return [wanted.key, wanted.pin, wanted.destination]


def _wanted(fields: Sequence[Any]) -> Wanted:
    key, pin, destination = fields
    if not isinstance(key, str) or not isinstance(pin, str) or not isinstance(destination, str):
        raise EventInvalid(f"key, version and destination must be text: {fields!r}")
    if not 0 < len(key.encode()) <= KEY_LIMIT:
        raise EventInvalid(f"a key has 1 to {KEY_LIMIT} bytes: {key!r}")
    if len(pin.encode()) > PIN_LIMIT:
        raise EventInvalid(f"no version id of up to {PIN_LIMIT} bytes: {pin!r}")
    if not 0 < len(destination.encode()) <= DESTINATION_BYTES or not destination.startswith(("s3://", "file:/")):
        raise EventInvalid(f"no destination: {destination!r}")
    return Wanted(key=key, pin=pin, destination=destination)


def _job_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isascii() or not value.isprintable():
        raise EventInvalid(f"a job's id has 1 to 64 printable ASCII characters: {value!r}")
    if "#" in value:
        raise EventInvalid(f"a job's id has no #: {value!r}")
    return value


def _serial(value: Any) -> int:
    serial = index(value)
    if serial < 1:
        raise EventInvalid(f"archives are numbered from 1, this is {serial}")
    return serial


def _completed(record: Any, bucket: str) -> Thawed | None:
    event_version = str(record["eventVersion"])
    if event_version.partition(".")[0] != EVENT_MAJOR:
        raise EventInvalid(f"event version {event_version!r}, this code reads {EVENT_MAJOR}.x")
    if str(record["eventName"]).removeprefix("s3:") != "ObjectRestore:Completed":
        return None
    if record["s3"]["bucket"]["name"] != bucket:
        raise EventInvalid(f"bucket {record['s3']['bucket']['name']!r}, this stack reads {bucket!r}")
    archive = archive_of(unquote_plus(record["s3"]["object"]["key"], errors="strict"))
    if archive is None:
        return None
    stated = record["glacierEventData"]["restoreEventData"]["lifecycleRestorationExpiryTime"]
    until = datetime.fromisoformat(str(stated))
    if until.tzinfo is None:
        raise EventInvalid(f"a time without a zone: {stated}")
    return Thawed(archive=archive, until=until)

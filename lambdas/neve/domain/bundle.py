"""Bundles: which versions go into one archive, and in what state an unfinished archive is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from neve.domain.manifest import Kind, Source
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid, NeveError, SourceChanged, SourceGone


class BundleState(StrEnum):
    """open -> sealed -> archived; or void, when nothing of it went into an archive."""

    OPEN = "open"
    SEALED = "sealed"
    ARCHIVED = "archived"
    VOID = "void"


class Lane(StrEnum):
    """On which way a version reaches its archive: each lane has a bundle that is being filled, and queues, of its own.

    What is uploaded now goes by the live lane, what was there before by the other: it holds up no upload.
    """

    LIVE = "live"
    BACKFILL = "backfill"

    @property
    def patience(self) -> timedelta:
        """How long after its age has run out a bundle may wait to be written before the sweep reminds of it.

        A backfill keeps its queues filled; reminders of what only waits its turn would fill them further.
        """
        return timedelta(minutes=5) if self is Lane.LIVE else timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An archive that is not written yet: `count` versions of `size_bytes` in all are noted in its parts.

    `serial` is the archive's number, drawn when there is something to write; until then 0.
    `due_at` is when the sweep starts to worry. `upload_id` is the multipart upload of a large object, "" if none.
    `lease_owner` writes the archive now, and has ended by `leased_until`, well or not; `tries` counts the leases.
    `source` is what S3 said of a large object when its serial was drawn, as JSON: its copy may outlive it.
    `supersedes` is the serial of a damaged archive that this one will stand for; 0 for all but repairs.
    `lane` says in which queue its message is looked for.
    """

    id: str
    kind: Kind
    state: BundleState
    size_bytes: int
    count: int
    due_at: datetime
    serial: int = 0
    upload_id: str = ""
    lease_owner: str = ""
    leased_until: datetime | None = None
    tries: int = 0
    source: str = ""
    supersedes: int = 0
    lane: Lane = Lane.LIVE

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in (BundleState.ARCHIVED, BundleState.VOID)

    @property
    def of_uploads(self) -> bool:
        """Whether its files were uploaded a moment ago, so that their age tells how far behind archiving is."""
        return self.lane is Lane.LIVE and not self.supersedes

    def done_without(self, error: NeveError) -> bool:
        """Whether a version that cannot be read for this reason is passed over, and nobody called.

        What was there before may be deleted or overwritten while it waits for its turn, by right and by the million.
        """
        return self.lane is Lane.BACKFILL and not self.supersedes and isinstance(error, (SourceGone, SourceChanged))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a bundle is full. A version over target_bytes becomes an archive of its own."""

    target_bytes: int
    max_members: int
    max_age_s: int

    @property
    def ceiling_bytes(self) -> int:
        """No bundle ever holds more: it bounds the memory of WriteArchive.

        A bundle below its target takes what is announced next, whose last version may be as large as the target.
        """
        return 2 * self.target_bytes

    def full(self, *, size_bytes: int, count: int) -> bool:
        """Whether a bundle of this size should be written now."""
        return size_bytes >= self.target_bytes or count >= self.max_members

    def timer_s(self, waited_s: float) -> int:
        """After how many seconds a bundle is written, full or not, if what opens it has waited for so long in a queue.

        So the maximum age is that of a version since it was announced, wherever it waited. But a bundle is open for
        half of it at least, lest a backlog become many small archives.
        """
        return math.ceil(max(self.max_age_s / 2, self.max_age_s - waited_s))

    def due_at(self, now: datetime, lane: Lane) -> datetime:
        """When a bundle that is opened now should long have been written: its age, and the lane's patience."""
        return now + timedelta(seconds=self.max_age_s) + lane.patience


def distinct(versions: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    """`versions` with each identity once, the first one kept, in their order."""
    kept: dict[tuple[str, str], ObjectVersion] = {}
    for version in versions:
        kept.setdefault(version.identity, version)
    return list(kept.values())


def by_size(versions: Iterable[ObjectVersion], limits: Limits) -> tuple[list[ObjectVersion], list[ObjectVersion]]:
    """(those that share an archive, those that get one of their own)."""
    small: list[ObjectVersion] = []
    large: list[ObjectVersion] = []
    for version in versions:
        (large if version.size_bytes > limits.target_bytes else small).append(version)
    return small, large


def fill(versions: Sequence[ObjectVersion], limits: Limits, *, size_bytes: int = 0, count: int = 0) -> int:
    """How many of `versions`, from the front, go into a bundle that holds `size_bytes` in `count` members.

    The version that fills the bundle still goes in, so a bundle that is not full takes at least one.
    """
    taken = 0
    for version in versions:
        if limits.full(size_bytes=size_bytes, count=count + taken):
            break
        size_bytes += version.size_bytes
        taken += 1
    return taken


def total_bytes(versions: Iterable[ObjectVersion]) -> int:
    """The sum of the sizes."""
    return sum(version.size_bytes for version in versions)


def version_of(source: Source) -> ObjectVersion:
    """What to fetch to get the bytes of `source` again."""
    return ObjectVersion(
        key=source.key,
        version_id=source.version_id,
        size_bytes=source.size_bytes,
        etag=source.etag,
        sequencer="",
        event_at=source.last_modified,
    )


def large_id(version: ObjectVersion) -> str:
    """The id of a large version's bundle: the same however often it is announced, so that it is copied once."""
    return hashlib.sha256("\0".join(version.identity).encode()).hexdigest()[:32]


def write_request(bundle_id: str) -> str:
    """The message that has a bundle written: its timer, the word that it is full, or the sweep's reminder."""
    return json.dumps({"bundle": bundle_id})


def requested_bundle(body: str) -> str:
    """The bundle that a message asks for. Raises EventInvalid if the message is none that write_request made."""
    try:
        bundle_id = json.loads(body)["bundle"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EventInvalid(f"not a request to write a bundle: {error!r}") from error
    if not isinstance(bundle_id, str) or not bundle_id:
        raise EventInvalid(f"a bundle's id was expected, this is {bundle_id!r}")
    return bundle_id

"""What the flows need from the world. Each port is an adapter in neve.aws and a fake in the tests.

Every call may raise Transient; the caller lets it pass, and the message comes back. Every write that matters is
conditional and says whether it took effect, so that any of them can be repeated.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from neve.domain.bundle import Bundle, Limits
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.large import Range
from neve.domain.manifest import Manifest, Source
from neve.domain.parked import Parked
from neve.domain.tar import Rope
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
    """Bundles, their parts, and the lane that names the open one. Reads are consistent."""

    def lane(self) -> str:
        """The id of the bundle that is being filled; "" before the first."""

    def move_lane(self, *, previous: str, to: str) -> bool:
        """Point the lane at `to` if it still points at `previous`."""

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

    def drop_serial(self, bundle_id: str, serial: int) -> None:
        """Take `serial` off the sealed bundle again, if it has it: it turned out to be another archive's."""

    def record_upload(self, bundle_id: str, *, previous: str, upload_id: str) -> str:
        """Record a multipart upload on the bundle if `previous` is recorded there; the one that counts is returned."""

    def void(self, bundle: Bundle, now: datetime) -> bool:
        """Make the bundle void if state, count and serial are still those of `bundle`."""

    def finish(self, bundle_id: str, now: datetime) -> bool:
        """sealed -> archived."""

    def overdue(self, now: datetime) -> Iterator[Bundle]:
        """The open and sealed bundles whose due_at has passed, read as they are asked for. Eventually consistent."""


class Archives(Protocol):
    """The permanent rows of archives, by serial number."""

    def put(self, row: ArchiveRow) -> ArchiveRow:
        """Write the row if none is there; the row that stands afterwards."""

    def finish(self, serial: int, *, duplicates: int, now: datetime) -> None:
        """written -> archived; nothing changes if it is archived already."""


class Files(Protocol):
    """The index of archived versions."""

    def holders(self, versions: Sequence[ObjectVersion]) -> Mapping[tuple[str, str], int]:
        """Which archive holds which identity. Eventually consistent: what is missing here may still be there."""

    def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """Write each row unless one stands; those are returned whose place another archive's row has taken."""


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


class Queue(Protocol):
    """One SQS queue."""

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """Send one message, to be delivered after `delay_s` seconds, 0 to 900."""

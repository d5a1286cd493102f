"""An object version: what every event, part, member and row is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from operator import index
from typing import Any

NULL_VERSION = "null"
KEY_LIMIT = 1024
"""S3: a key has at most 1,024 bytes of UTF-8."""
PIN_LIMIT = 128
"""Version ids of S3 have 32 characters, those of other stores up to 36; `null-` and an ETag fit as well."""
LARGEST_BYTES = 10_000 * 5 * 1024**3
"""S3: no object is larger than 48.8 TiB, 10,000 parts of 5 GiB."""
SEQUENCER_WIDTH = 32
"""S3 states no length; those seen have 16-18 hex digits. Padding makes strings of any length up to this comparable."""


def pin_of(version_id: str, etag: str) -> str:
    """What names the bytes of a version among all versions of its key.

    A version id does, except `null`, which S3 overwrites in place: there the ETag is part of the name.
    """
    return f"{NULL_VERSION}-{etag}" if version_id == NULL_VERSION else version_id


def padded_sequencer(sequencer: str) -> str:
    """S3's sequencer left-padded with zeros, so that comparing strings compares numbers.

    Source: S3 user guide, "Event message structure": pad the shorter value with zeros, then compare lexicographically.
    """
    return sequencer.rjust(SEQUENCER_WIDTH, "0") if sequencer else ""


@dataclass(frozen=True, kw_only=True)
class ObjectVersion:
    """One version of one object in the content bucket.

    size_bytes, etag (without quotes) and event_at are as the event told them; `sequencer` is padded, or "" if unknown.
    Raises ValueError if S3 cannot have said so: then no row could hold it either.
    """

    key: str
    version_id: str
    size_bytes: int
    etag: str
    sequencer: str
    event_at: datetime

    def __post_init__(self) -> None:
        if not 0 < len(self.key.encode()) <= KEY_LIMIT:
            raise ValueError(f"a key has 1 to {KEY_LIMIT} bytes: {self.key!r}")
        if not self.version_id or "\0" in self.pin or len(self.pin.encode()) > PIN_LIMIT:
            raise ValueError(f"no version id of up to {PIN_LIMIT} bytes: {self.version_id!r}")
        if not 0 < len(self.etag.encode()) <= PIN_LIMIT:
            raise ValueError(f"no ETag of up to {PIN_LIMIT} bytes: {self.etag!r}")
        if not 0 <= self.size_bytes <= LARGEST_BYTES:
            raise ValueError(f"no object has a size of {self.size_bytes} bytes")
        if len(self.sequencer) > SEQUENCER_WIDTH:
            raise ValueError(f"a sequencer of {len(self.sequencer)} digits; up to {SEQUENCER_WIDTH} can be compared")
        if self.event_at.tzinfo is None:
            raise ValueError(f"a time without a zone: {self.event_at}")

    @property
    def pin(self) -> str:
        """What names these bytes among all versions of the key."""
        return pin_of(self.version_id, self.etag)

    @property
    def identity(self) -> tuple[str, str]:
        """(key, pin): the same bytes have the same identity, however often they are announced."""
        return (self.key, self.pin)


def to_fields(version: ObjectVersion) -> list[Any]:
    """`version` as a short JSON array, for parts and messages. Inverse: from_fields."""
    return [
        version.key,
        version.version_id,
        version.size_bytes,
        version.etag,
        version.sequencer.lstrip("0"),
        version.event_at.isoformat(),
    ]


def from_fields(values: list[Any]) -> ObjectVersion:
    """The version that to_fields wrote. Raises ValueError or TypeError if it did not write it."""
    key, version_id, size_bytes, etag, sequencer, event_at = values
    return ObjectVersion(
        key=str(key),
        version_id=str(version_id),
        size_bytes=index(size_bytes),
        etag=str(etag),
        sequencer=padded_sequencer(str(sequencer)),
        event_at=datetime.fromisoformat(event_at),
    )

"""The index: where a row for a file and a row for an archive stand, and what they say.

The sort key of `files` keeps the order of keys: the key escaped, a terminator, then the pin of the version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from neve.domain.manifest import Kind, Manifest

SHARDS = 64
KEY_BYTES = 840
"""Keys longer than this (escaped) keep so many bytes in the sort key, and a hash of the whole.

DynamoDB: a sort key holds 1,024 bytes; an S3 key may have as many, and the pin comes on top.
"""

_ESCAPED_NUL = b"\x00\xff"
_CUT = b"\x00\xfe"
_TERMINATOR = b"\x00\x01"
"""What follows a NUL tells what it is, and a terminator sorts before the other two. No pin holds a NUL."""


class ArchiveState(StrEnum):
    """written: the object stands. archived: every row of `files` stands, too."""

    WRITTEN = "written"
    ARCHIVED = "archived"


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One archived version: which archive holds it, as which member, and at which offset."""

    key: str
    version_id: str
    pin: str
    size_bytes: int
    sha256: str
    md5: str
    last_modified: datetime
    archive: int
    number: int
    offset_bytes: int

    @property
    def id(self) -> str:
        """A file's id: its archive and its number in it, such as 17.3."""
        return f"{self.archive}.{self.number}"


@dataclass(frozen=True, kw_only=True)
class ArchiveRow:
    """One archive: the object in the archive bucket and what it holds.

    size_bytes is the object's, source_bytes the sum of its members'. `duplicates` counts members that another
    archive's rows already had. `superseded_by` is the archive that stands for this damaged one; 0 if there is none.
    """

    serial: int
    kind: Kind
    bundle: str
    object_key: str
    object_version_id: str
    storage_class: str
    size_bytes: int
    sha256: str
    source_bytes: int
    files: int
    duplicates: int
    state: ArchiveState
    written_at: datetime
    archived_at: datetime | None = None
    superseded_by: int = 0


def pointing(row: FileRow, member: FileRow) -> FileRow:
    """The row of a version, naming the archive's member whose own row is `member`, and which has the same bytes."""
    return replace(row, archive=member.archive, number=member.number, offset_bytes=member.offset_bytes)


def shard(key: str) -> int:
    """The partition, 0 to 63, of all versions of `key`."""
    return hashlib.sha256(key.encode()).digest()[0] % SHARDS


def key_prefix(key: str) -> bytes:
    """What the sort keys of all versions of `key` begin with, and no other key's."""
    escaped = _escape(key)
    if is_cut(key):
        return _cut(escaped) + _CUT + hashlib.sha256(key.encode()).digest() + _TERMINATOR
    return escaped + _TERMINATOR


def sort_key(key: str, pin: str) -> bytes:
    """The sort key of one version.

    Sorting these bytes sorts by key, except among keys of over 840 bytes that agree in all of them: those stand
    together, in the order of their hashes.
    """
    return key_prefix(key) + pin.encode()


def is_cut(key: str) -> bool:
    """Whether the sort key holds only the beginning of `key`, so that the row has to state all of it."""
    return len(_escape(key)) > KEY_BYTES


def split(sort: bytes) -> tuple[str, str]:
    """(key, pin) of a sort key; the key is "" where the sort key holds only its beginning."""
    escaped, pin = sort.rsplit(_TERMINATOR, 1)
    if len(escaped) > KEY_BYTES:
        return "", pin.decode()
    return escaped.replace(_ESCAPED_NUL, b"\x00").decode(), pin.decode()


def prefix_bound(prefix: str) -> bytes:
    """What the sort keys of all keys that begin with `prefix` begin with (of others too, if it is over 840 bytes)."""
    escaped = _escape(prefix)
    return _cut(escaped) if len(escaped) > KEY_BYTES else escaped


def key_bound(key: str) -> bytes:
    """Where `key` ends in the order of sort keys: it and the keys before it stand below, those behind it above.

    Keys that are cut are left out of this: they stand near, in no order.
    """
    return prefix_bound(key) + _TERMINATOR[:1] + b"\x02"


def newest(versions: Iterable[FileRow]) -> FileRow | None:
    """The version of a key that was modified last; None if there is none.

    S3 states whole seconds, and version ids have no order: of two in one second the one archived last is taken.
    """
    return max(versions, key=lambda row: (row.last_modified, row.archive, row.number), default=None)


def rows(manifest: Manifest) -> list[FileRow]:
    """The rows of `files` that `manifest` implies: the index can be rebuilt from manifests alone."""
    return [
        FileRow(
            key=member.source.key,
            version_id=member.source.version_id,
            pin=member.source.pin,
            size_bytes=member.source.size_bytes,
            sha256=member.source.sha256,
            md5=member.source.md5,
            last_modified=member.source.last_modified,
            archive=manifest.archive,
            number=member.number,
            offset_bytes=member.offset_bytes,
        )
        for member in manifest.members
    ]


def _escape(key: str) -> bytes:
    return key.encode().replace(b"\x00", _ESCAPED_NUL)


def _cut(escaped: bytes) -> bytes:
    """The first bytes of an escaped key, never ending inside an escape."""
    return escaped[:KEY_BYTES].removesuffix(b"\x00")

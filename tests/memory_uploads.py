"""The uploads bucket and the content bucket in memory, with the copies that S3 makes."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.large import SINGLE_COPY_BYTES
from neve.domain.manifest import Source
from neve.domain.version import NULL_VERSION, ObjectVersion, padded_sequencer
from neve.errors import SourceChanged, SourceDamaged, SourceGone
from neve.ports import ContentCopy, NotCopied
from tests.memory import CONTENT, START

UPLOADS = "uploads-bucket"


@dataclass(frozen=True, kw_only=True)
class MemoryVersion:
    """A version of an object, and what S3 says of it."""

    source: Source
    body: bytes


@dataclass
class MemoryUploads:
    """The uploads bucket and the content bucket: the versions of each key, the last of which is current.

    None among them is a delete marker. In a bucket in `unversioned` an object takes the place of the version `null`.
    What is put while S3 is `silent` has no checksum, and an ETag that proves nothing. Copies lose a byte while they are
    `damaging`, and one of more than `single_copy_bytes` needs `calls` calls. Reading raises what `failures` have for a
    (bucket, key).
    """

    versions: dict[tuple[str, str], list[MemoryVersion | None]] = field(default_factory=dict)
    unversioned: set[str] = field(default_factory=set)
    silent: bool = False
    damaging: bool = False
    single_copy_bytes: int = SINGLE_COPY_BYTES
    calls: int = 1
    failures: dict[tuple[str, str], Exception] = field(default_factory=dict)
    copied: list[tuple[str, str]] = field(default_factory=list)
    hashed: list[str] = field(default_factory=list)
    _begun: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # What others do with the buckets

    def put(self, bucket: str, key: str, body: bytes, **described: Any) -> ObjectVersion:
        """Store an object; its version, as the event will tell it."""
        number = next(self._numbers)
        md5 = hashlib.md5(body).hexdigest()
        source = Source(
            key=key,
            version_id=NULL_VERSION if bucket in self.unversioned else f"{bucket}#{number}",
            size_bytes=len(body),
            etag=f"{number}" if self.silent else md5,
            last_modified=START + timedelta(seconds=number),
            checksums={} if self.silent else {"SHA256": _sha256(body)},
            **described,
        )
        made = MemoryVersion(source=source, body=body)
        standing = self.versions.setdefault((bucket, key), [])
        if bucket in self.unversioned:  # it may have kept versions once
            standing[:] = [each for each in standing if each is None or each.source.version_id != NULL_VERSION]
        standing.append(made)
        return replace(_version(source), sequencer=padded_sequencer(f"{number:X}"))

    def delete(self, bucket: str, key: str, version_id: str = "") -> None:
        """Delete a version for ever, or hide the current one behind a delete marker."""
        if not version_id:
            self.versions[bucket, key].append(None)
            return
        left = [each for each in self.versions[bucket, key] if each and each.source.version_id != version_id]
        self.versions[bucket, key] = list(left)

    def served(self, bucket: str, key: str) -> bytes | None:
        """The bytes of the current version."""
        current = self._current(bucket, key)
        return current.body if current else None

    # The port Uploads

    def describe(self, bucket: str, version: ObjectVersion) -> Source:
        return self._version(bucket, version).source

    def hashes(self, bucket: str, version: ObjectVersion) -> Mapping[str, str]:
        found = self._version(bucket, version)
        if len(found.body) != version.size_bytes:
            raise SourceDamaged(version.key)
        self.hashed.append(version.key)
        return {"SHA256": _sha256(found.body)}

    def current(self, bucket: str, key: str) -> ObjectVersion | None:
        found = self._current(bucket, key)
        return _version(found.source) if found else None

    def copy(
        self,
        bucket: str,
        version: ObjectVersion,
        content_key: str,
        *,
        source: Source | None,
        onto: ObjectVersion | None,
        until: datetime,  # the calls that it takes are told by `calls`
    ) -> ContentCopy | NotCopied:
        standing = self._current(CONTENT, content_key)
        if (standing.source.etag if standing else None) != (onto.etag if onto else None):
            return NotCopied.TAKEN
        try:
            found = self._version(bucket, version)
        except SourceChanged:
            return NotCopied.TAKEN
        except SourceGone:
            if onto:
                return NotCopied.TAKEN  # S3 has one answer for both
            raise
        if version.size_bytes > self.single_copy_bytes:
            assert source, "a copy in parts has to be told what the object is like"
            self._begun += 1
            if self._begun < self.calls:
                return NotCopied.UNFINISHED
        body = found.body[:-1] if self.damaging else found.body
        known = ("content_type", "user_metadata", "tags")
        made = self.put(CONTENT, content_key, body, **{name: getattr(found.source, name) for name in known})
        self.copied.append((bucket, version.version_id))
        stated = {} if self.silent else {"SHA256": _sha256(body)}
        return ContentCopy(version_id=made.version_id, etag=made.etag, checksums=stated)

    def release(self, upload: ObjectVersion) -> bool:
        current = self._current(UPLOADS, upload.key)
        if current is None or current.source.etag != upload.etag:
            return False
        assert UPLOADS not in self.unversioned, "it would be gone for ever"
        self.delete(UPLOADS, upload.key)
        return True

    def _current(self, bucket: str, key: str) -> MemoryVersion | None:
        versions = self.versions.get((bucket, key))
        return versions[-1] if versions else None

    def _version(self, bucket: str, version: ObjectVersion) -> MemoryVersion:
        if (bucket, version.key) in self.failures:
            raise self.failures[bucket, version.key]
        for each in self.versions.get((bucket, version.key), []):
            if each and each.source.version_id == version.version_id:
                if version.version_id == NULL_VERSION and each.source.etag != version.etag:
                    raise SourceChanged(version.key)
                return each
        raise SourceGone(version.key)


def rows_of(version: ObjectVersion, *, written_at: datetime) -> tuple[FileRow, ArchiveRow]:
    """The rows of a version that lies in archive 1, and of the archive."""
    row = FileRow(
        key=version.key,
        version_id=version.version_id,
        pin=version.pin,
        size_bytes=version.size_bytes,
        sha256="",
        md5="",
        last_modified=version.event_at,
        archive=1,
        number=0,
        offset_bytes=0,
    )
    archive = ArchiveRow(
        serial=1,
        kind="tar",
        bundle="b",
        object_key="archives/1.tar",
        object_version_id="v",
        storage_class="GLACIER",
        size_bytes=1,
        sha256="",
        source_bytes=1,
        files=1,
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=written_at,
    )
    return row, archive


def _version(source: Source) -> ObjectVersion:
    return ObjectVersion(
        key=source.key,
        version_id=source.version_id,
        size_bytes=source.size_bytes,
        etag=source.etag,
        sequencer="",
        event_at=source.last_modified,
    )


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()

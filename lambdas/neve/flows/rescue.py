"""Rescue: what a damaged archive holds, fetched from wherever it is still intact.

What a member's bytes hash to is stated by its row in the index, by the archive's manifest, and by the list in the tar
itself. Bytes with a hash that one of them states are those that were archived: no damage makes a hash fit. Where they
contradict each other the row's word comes first, then the manifest's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from neve.domain.index import ArchiveRow, FileRow
from neve.domain.large import SHA256, proven
from neve.domain.manifest import Member, Source
from neve.domain.parked import Reason
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import (
    ArchiveUnreadable,
    Asleep,
    ManifestInvalid,
    NeveError,
    SourceDamaged,
    SourceDenied,
    SourceLost,
    SourceUnavailable,
    Transient,
)
from neve.flows.contents import contents_of, manifest_of
from neve.ports import ArchiveReader, Archives, ArchiveStore, Content, Files, StoredArchive

READS = 2
"""Bytes that do not fit their hash are read once more: it may have been the transfer."""

Fetched = tuple[Source, bytes]
Place = Callable[[], Fetched]


def damaged(archives: Archives, serial: int) -> ArchiveRow:
    """The row of the archive that a bundle supersedes."""
    archive = archives.get(serial)
    if archive is None:
        raise NeveError(f"archive {serial} is to be repaired and has no row: restore the table `archives`")
    return archive


def unrescued(error: NeveError) -> Reason:
    """Why a version is parked that a repair could not rescue."""
    return Reason.UNREPAIRED if isinstance(error, (SourceDenied, Transient)) else Reason.LOST


def copies(files: Files, key: str, hashes: Collection[str]) -> list[FileRow]:
    """The rows of all versions of `key` whose bytes have one of these SHA-256; each names an archive that has them."""
    return [row for row in files.versions(key) if row.sha256 in hashes]


# -- Members of a tar ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is stated of a version that a damaged archive holds: by its `row`, and by the archive's lists of members."""

    version: ObjectVersion
    row: FileRow | None
    members: Sequence[Member]

    @property
    def hashes(self) -> list[str]:
        """What its SHA-256 may be, each once: the row's word first."""
        stated = [self.row.sha256] if self.row is not None and self.row.sha256 else []
        return list(dict.fromkeys([*stated, *(member.source.sha256 for member in self.members)]))

    @property
    def source(self) -> Source | None:
        """The best of what the lists say of it: what agrees with the row, and is of this very version."""
        sha256 = next(iter(self.hashes), "")
        ranked = sorted(
            (member.source for member in self.members),
            key=lambda source: (source.sha256 != sha256, source.identity != self.version.identity),
        )
        return next(iter(ranked), None)

    def ranges(self, serial: int) -> list[tuple[int, int]]:
        """(offset, size) of where its bytes may lie in the archive `serial`, in bytes."""
        stated = [(member.offset_bytes, member.source.size_bytes) for member in self.members]
        if self.row is not None and self.row.archive == serial:
            stated.append((self.row.offset_bytes, self.row.size_bytes))
        return list(dict.fromkeys(stated))

    def described(self, body: bytes, otherwise: Source | None = None) -> Source:
        """What restoring `body` as this version needs: what the lists say of it, or `otherwise`, or the bare facts."""
        version, known = self.version, self.source or otherwise
        facts: dict[str, Any] = {
            "size_bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        }
        if known is None or known.identity != version.identity:
            modified = self.row.last_modified if self.row is not None else version.event_at
            facts |= {"key": version.key, "version_id": version.version_id}
            facts |= {"etag": version.etag, "last_modified": modified}
        return Source(**facts) if known is None else replace(known, **facts)


@dataclass(frozen=True, kw_only=True)
class Rescue:
    """Fetches what is `wanted`, by the identities of the versions, of the damaged `archive`."""

    content: Content
    store: ArchiveStore
    reader: ArchiveReader
    archives: Archives
    files: Files
    archive: ArchiveRow
    wanted: Mapping[tuple[str, str], Wanted]

    def fetch(self, version: ObjectVersion) -> Fetched:
        """The version's bytes and what restoring it needs.

        They come from the version in the content bucket, or else from the damaged archive, or else from another version
        of the same key that has the same bytes, in the content bucket or in its archive. What restoring needs is what
        S3 says of the version if its bytes come from there, else what the damaged archive's lists say of it.

        Raises SourceLost if no copy is intact; SourceDenied or Transient if nobody can tell, since one could not be
        read, or is not thawed.
        """
        wanted = self.wanted[version.identity]
        hashes = wanted.hashes
        problems: list[NeveError] = []
        second: dict[str, Fetched] = {}
        for place in self._places(wanted) if hashes else ():
            try:
                source, body = place()
            except (SourceUnavailable, SourceDamaged, ArchiveUnreadable, Asleep, Transient) as error:
                problems.append(error)
                continue
            if source.sha256 == hashes[0]:
                return source, body
            second.setdefault(source.sha256, (source, body))
        for sha256 in hashes[1:]:
            if sha256 in second:
                return second[sha256]
        raise _failure(version, problems)

    def _places(self, wanted: Wanted) -> Iterator[Place]:
        """Where the bytes may be, the best first. Each raises SourceDamaged if they have none of the hashes."""
        yield partial(self._from_content, wanted, wanted.version)
        for offset_bytes, size_bytes in wanted.ranges(self.archive.serial):
            yield partial(self._from_archive, wanted, self.archive, offset_bytes, size_bytes)
        same = copies(self.files, wanted.version.key, wanted.hashes)
        for copy in same:
            if (copy.key, copy.pin) != wanted.version.identity:
                yield partial(self._from_copy, wanted, copy)
        for copy in same:
            if copy.archive != self.archive.serial:
                yield partial(self._from_other, wanted, copy)

    def _from_content(self, wanted: Wanted, version: ObjectVersion) -> Fetched:
        source, body = self.content.fetch(version)
        if source.sha256 not in wanted.hashes:
            raise SourceDamaged(f"the content bucket's bytes have SHA-256 {source.sha256[:12]}...")
        return source, body

    def _from_copy(self, wanted: Wanted, copy: FileRow) -> Fetched:
        """From another version in the content bucket."""
        source, body = self._from_content(wanted, indexed_version(copy))
        return wanted.described(body, source), body

    def _from_archive(
        self, wanted: Wanted, archive: ArchiveRow, offset_bytes: int, size_bytes: int, otherwise: Source | None = None
    ) -> Fetched:
        for _ in range(READS):
            body = self.reader.read(archive, offset_bytes, offset_bytes + size_bytes - 1) if size_bytes else b""
            source = wanted.described(body, otherwise)
            if source.sha256 in wanted.hashes:
                return source, body
        raise SourceDamaged(f"archive {archive.serial} has SHA-256 {source.sha256[:12]}... at {offset_bytes}")

    def _from_other(self, wanted: Wanted, copy: FileRow) -> Fetched:
        """From another archive."""
        archive = self.archives.get(copy.archive)
        if archive is None:
            raise ArchiveUnreadable(f"archive {copy.archive} has no row")
        manifest = manifest_of(self.store, archive) if wanted.source is None else None
        listed = manifest.members[copy.number : copy.number + 1] if manifest is not None else ()
        otherwise = next((member.source for member in listed), None)
        return self._from_archive(wanted, archive, copy.offset_bytes, copy.size_bytes, otherwise)


def rescue_of(
    *,
    content: Content,
    store: ArchiveStore,
    reader: ArchiveReader,
    archives: Archives,
    files: Files,
    serial: int,
    versions: Sequence[ObjectVersion],
) -> Rescue:
    """The Rescue of these versions, which the damaged archive `serial` holds. Raises Transient."""
    archive = damaged(archives, serial)
    rows = files.get([version.identity for version in versions])
    lists = [({each.source.identity: each for each in listed}, listed) for listed in _lists(store, reader, archive)]
    wanted = {}
    for version in versions:
        row = rows.get(version.identity)
        found = [named.get(version.identity) or _pointed_at(row, listed, serial) for named, listed in lists]
        members = [member for member in found if member is not None]
        wanted[version.identity] = Wanted(version=version, row=row, members=members)
    return Rescue(
        content=content,
        store=store,
        reader=reader,
        archives=archives,
        files=files,
        archive=archive,
        wanted=wanted,
    )


def _lists(store: ArchiveStore, reader: ArchiveReader, archive: ArchiveRow) -> list[Sequence[Member]]:
    """The archive's lists of members that can be read: its manifest's, then the tar's own."""
    lists: list[Sequence[Member]] = []
    manifest = manifest_of(store, archive)
    if manifest is not None:
        lists.append(manifest.members)
    with suppress(ManifestInvalid, Asleep, ArchiveUnreadable):
        lists.append(contents_of(reader, archive).members)
    return lists


def _pointed_at(row: FileRow | None, listed: Sequence[Member], serial: int) -> Member | None:
    """The member at which the row of a version points that is in no list: it was restored out of the archive.

    Only if they agree on the bytes: a wrong row must not pass one file off as another.
    """
    if row is None or row.archive != serial or row.number >= len(listed):
        return None
    member = listed[row.number]
    return member if member.source.sha256 == row.sha256 else None


def indexed_version(row: FileRow) -> ObjectVersion:
    """What to fetch to get the bytes of an archived version; its ETag matters only where it is part of the pin."""
    return ObjectVersion(
        key=row.key,
        version_id=row.version_id,
        size_bytes=row.size_bytes,
        etag=row.pin.removeprefix(f"{NULL_VERSION}-"),
        sequencer="",
        event_at=row.last_modified,
    )


def _failure(version: ObjectVersion, problems: Sequence[NeveError]) -> NeveError:
    """Why the version could not be rescued, in one error: what may pass comes before what can never be helped."""
    where = f"{version.key!r} version {version.version_id}"
    found = "; ".join(str(problem) for problem in problems) or "nothing states its SHA-256 any more"
    if any(isinstance(problem, (Asleep, Transient)) for problem in problems):
        return Transient(f"{where}: a copy may be left that cannot be read now: {found}")
    if any(isinstance(problem, SourceDenied) for problem in problems):
        return SourceDenied(f"{where}: a copy may be left that must not be read: {found}")
    return SourceLost(f"{where}: {found}")


# -- Large objects ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is stated of a large version's bytes: by its row, by the manifest of the damaged archive.

    Each is (full-object checksums by algorithm, in base64; ETag).
    """

    stated: Sequence[tuple[Mapping[str, str], str]]

    @property
    def checksums(self) -> Mapping[str, str]:
        """All checksums that are stated."""
        return {algorithm: value for checksums, _ in self.stated for algorithm, value in checksums.items()}

    def refutes(self, source: Source) -> bool:
        """Whether S3 says of the source that it has other bytes; also if nothing is stated that a copy could prove."""
        return all(proven(checksums, etag, source.checksums, source.etag) is False for checksums, etag in self.stated)

    def proves(self, copy: StoredArchive) -> bool:
        """Whether a copy has the bytes that are stated."""
        return any(proven(checksums, etag, copy.checksums, copy.etag) is True for checksums, etag in self.stated)


def proof_of(files: Files, store: ArchiveStore, archive: ArchiveRow, version: ObjectVersion) -> Proof:
    """What a copy of `version` has to be, that is to stand for the damaged `archive`, a large object.

    The only copy of it that can be used is the version in the content bucket: S3 copies it without reading it here, and
    no other archive is looked for.
    """
    stated: list[tuple[Mapping[str, str], str]] = []
    row = files.get([version.identity]).get(version.identity)
    if row is not None and row.sha256:
        stated.append(({SHA256: base64.b64encode(bytes.fromhex(row.sha256)).decode()}, ""))
    manifest = manifest_of(store, archive)
    if manifest is not None and manifest.members[0].source.identity == version.identity:
        source = manifest.members[0].source
        stated.append((source.checksums, source.etag))
    return Proof(stated=stated)

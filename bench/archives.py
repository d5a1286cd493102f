"""Archives laid out as WriteArchive does, of files as uploads have them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bench import place
from neve.aws import clients
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.domain.index import ArchiveRow, ArchiveState, rows
from neve.domain.manifest import Manifest, Source, archive_key
from neve.domain.tar import build

MODIFIED = datetime(2026, 10, 1, tzinfo=UTC)


def files(archive: int, sizes: Iterable[int], chance: random.Random) -> Iterator[tuple[Source, bytes]]:
    """Files of so many random bytes each; every tenth has a name that no plain tar header can hold."""
    for number, size_bytes in enumerate(sizes):
        body = chance.randbytes(size_bytes)
        md5 = hashlib.md5(body).hexdigest()
        source = Source(
            key=f"media/2026/10/{archive:04}/{number:06}-{'photo' if number % 10 else 'Übung'}.jpg",
            version_id=hashlib.md5(f"{archive}/{number}".encode()).hexdigest(),
            size_bytes=size_bytes,
            etag=md5,
            last_modified=MODIFIED,
            sha256=hashlib.sha256(body).hexdigest(),
            md5=md5,
            checksums={"CRC64NVME": "AAAAAAAAAAA="},
            content_type="image/jpeg",
        )
        yield source, body


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where archives and their rows go: the port ArchiveStore and those of the index."""

    store: S3ArchiveStore
    archives: DynamoArchives
    files: DynamoFiles

    def put(self, serial: int, members: Iterable[tuple[Source, bytes]]) -> Manifest:
        """Put the archive of these members where WriteArchive puts it, with its rows; its manifest."""
        manifest, rope = build(serial, self.store.content_bucket, archive_key(serial, "tar"), list(members))
        self.store.put_manifest(manifest)
        stored = self.store.put(manifest.object_key, rope, manifest.object_sha256)
        if stored is None:
            raise RuntimeError(f"an archive {serial} stands already")
        self.archives.put(
            archive_row(
                serial,
                version_id=stored.version_id,
                size_bytes=manifest.object_size_bytes,
                source_bytes=sum(member.source.size_bytes for member in manifest.members),
                files=len(manifest.members),
            )
        )
        self.files.record(rows(manifest))
        return manifest


def shelf() -> Shelf:
    """That of bench.place."""
    return Shelf(
        store=S3ArchiveStore(clients.s3(), place.ARCHIVE, place.CONTENT, place.DEFAULTS.storage_class),
        archives=DynamoArchives(clients.dynamodb(), place.ARCHIVES),
        files=DynamoFiles(clients.dynamodb(), place.FILES),
    )


def archive_row(serial: int, *, version_id: str, size_bytes: int, source_bytes: int, files: int) -> ArchiveRow:
    """An archive's row, as WriteArchive leaves it."""
    return ArchiveRow(
        serial=serial,
        kind="tar",
        bundle=f"bundle-{serial}",
        object_key=archive_key(serial, "tar"),
        object_version_id=version_id,
        storage_class=place.DEFAULTS.storage_class,
        size_bytes=size_bytes,
        sha256=hashlib.sha256(str(serial).encode()).hexdigest(),
        source_bytes=source_bytes,
        files=files,
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=MODIFIED,
        archived_at=MODIFIED,
    )

"""Proves that what was uploaded lies in archives: by the index first, then byte for byte out of thawed archives."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.domain.index import ArchiveRow, ArchiveState, FileRow, rows
from neve.domain.manifest import Manifest
from neve.domain.tar import MANIFEST_NAME
from neve.domain.thaw import needs_thaw
from neve.errors import NeveError
from neve_local.demo_files import Chosen

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

THREADS = 4
THAW_PATIENCE_S = 120
CHUNK_BYTES = 1024 * 1024


class NotThawed(NeveError):
    """An archive cannot be read back; the message says which and why."""


Identity = tuple[str, str]
"""Key and version id."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A file that S3 has taken: the version it became, and when S3's answer came (seconds since 1970)."""

    file: Chosen
    version_id: str
    at: float

    @property
    def identity(self) -> Identity:
        """(key, version id)."""
        return (self.file.key, self.version_id)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the archives: files that came back as they are on disk, and sentences about what did not."""

    verified: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Reads the index and the archives of one deployment."""

    s3: S3Client
    store: S3ArchiveStore
    archives: DynamoArchives
    files: DynamoFiles

    def indexed(self, uploaded: Iterable[Uploaded], prefix: str) -> tuple[dict[Identity, FileRow], list[str]]:
        """The index's rows of what was uploaded under `prefix`, and what is wrong with them.

        A version stands in exactly one archive if the table has exactly one row of it: its key holds key and version.
        """
        expected = {each.identity: each for each in uploaded}
        found: dict[Identity, FileRow] = {}
        problems: list[str] = []
        times: Counter[Identity] = Counter()
        for row in self.files.under(prefix):
            identity = (row.key, row.version_id)
            times[identity] += 1
            if identity not in expected:
                problems.append(f"the index has {row.key!r} version {row.version_id}, which was not uploaded")
            elif row.size_bytes != expected[identity].file.size_bytes:
                problems.append(f"the index says {row.key!r} has {row.size_bytes} bytes")
            else:
                found[identity] = row
        problems += [f"the index has {key!r} {count} times" for (key, _), count in times.items() if count > 1]
        return found, problems

    def compare(
        self,
        uploaded: Iterable[Uploaded],
        found: Mapping[Identity, FileRow],
        tell: Callable[[int, int], None],
    ) -> Verdict:
        """Thaw every archive that holds one of the files, and compare it with its row, its manifest and the disk.

        `tell` is told how many archives of how many are done.
        """
        originals = {each.identity: each.file for each in uploaded}
        serials = sorted({row.archive for row in found.values()})
        for serial in serials:
            self._thaw(self._row(serial))
        problems: list[str] = []
        verified = 0
        with ThreadPoolExecutor(THREADS) as pool:
            verdicts = pool.map(lambda serial: self._compare_archive(serial, originals, found), serials)
            for done, verdict in enumerate(verdicts, start=1):
                verified += verdict.verified
                problems += verdict.problems
                tell(done, len(serials))
        return Verdict(verified=verified, problems=tuple(problems))

    def _row(self, serial: int) -> ArchiveRow:
        row = self.archives.get(serial)
        assert row is not None, f"the index names archive {serial}, which has no row"
        return row

    def _thaw(self, row: ArchiveRow) -> None:
        """Ask S3 for the archive, unless it is thawed or thawing already: for a restore, or for an earlier run."""
        if needs_thaw(row.storage_class) and not self._restore(row):
            self.s3.restore_object(
                Bucket=self.store.bucket,
                Key=row.object_key,
                VersionId=row.object_version_id,
                RestoreRequest={"Days": 1, "GlacierJobParameters": {"Tier": "Standard"}},
            )

    def _restore(self, row: ArchiveRow) -> str:
        """What S3 says of the archive's thaw; "" if there is none."""
        head = self.s3.head_object(Bucket=self.store.bucket, Key=row.object_key, VersionId=row.object_version_id)
        return head.get("Restore", "")

    def _wait_for_thaw(self, row: ArchiveRow) -> None:
        deadline = time.monotonic() + THAW_PATIENCE_S
        while needs_thaw(row.storage_class) and 'ongoing-request="false"' not in self._restore(row):
            if time.monotonic() > deadline:
                raise NotThawed(f"{row.object_key} is not thawed after {THAW_PATIENCE_S} s")
            time.sleep(0.2)

    def _compare_archive(
        self, serial: int, originals: Mapping[Identity, Chosen], found: Mapping[Identity, FileRow]
    ) -> Verdict:
        row = self._row(serial)
        manifest = self.store.manifest(serial)
        if manifest is None:
            return Verdict(verified=0, problems=(f"archive {serial} has no manifest",))
        problems = _disagreements(row, manifest, originals, found)
        self._wait_for_thaw(row)
        with tempfile.TemporaryFile() as archive:
            sha256 = self._download(row, archive)
            if manifest.object_sha256 and sha256 != manifest.object_sha256:
                problems.append(f"{row.object_key} has SHA-256 {sha256}, its manifest says {manifest.object_sha256}")
            mine = {
                identity: original
                for identity, original in originals.items()
                if identity in found and found[identity].archive == serial
            }
            compare = _compare_tar if manifest.kind == "tar" else _compare_object
            verified, differences = compare(archive, manifest, mine)
        return Verdict(verified=verified, problems=(*problems, *differences))

    def _download(self, row: ArchiveRow, to: IO[bytes]) -> str:
        """Write the archive's object into the file `to`; its SHA-256."""
        answer = self.s3.get_object(Bucket=self.store.bucket, Key=row.object_key, VersionId=row.object_version_id)
        digest = hashlib.sha256()
        for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
            digest.update(chunk)
            to.write(chunk)
        to.seek(0)
        return digest.hexdigest()


def _disagreements(
    row: ArchiveRow, manifest: Manifest, originals: Mapping[Identity, Chosen], found: Mapping[Identity, FileRow]
) -> list[str]:
    """Where the rows of the tables and the manifest of one archive do not say the same."""
    problems: list[str] = []
    if row.state is not ArchiveState.ARCHIVED:
        problems.append(f"archive {row.serial} is {row.state}")
    if (row.object_key, row.size_bytes, row.files) != (
        manifest.object_key,
        manifest.object_size_bytes,
        len(manifest.members),
    ):
        problems.append(f"the row of archive {row.serial} and its manifest differ")
    implied = {(each.key, each.version_id): each for each in rows(manifest)}
    for identity, standing in found.items():
        if standing.archive != row.serial or identity not in originals:
            continue
        member = implied.get(identity)
        if member is None:
            problems.append(f"archive {row.serial} does not hold {identity[0]!r}, though the index says so")
        elif (member.number, member.offset_bytes, member.sha256) != (
            standing.number,
            standing.offset_bytes,
            standing.sha256,
        ):
            problems.append(f"archive {row.serial}: row and manifest differ on {identity[0]!r}")
    return problems


def _compare_tar(archive: IO[bytes], manifest: Manifest, originals: Mapping[Identity, Chosen]) -> tuple[int, list[str]]:
    """How many members are as on disk, read as any reader of tar would and again by their offsets."""
    problems: list[str] = []
    verified = 0
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        names = tar.getnames()
        if names != [MANIFEST_NAME, *(member.name for member in manifest.members)]:
            problems.append(f"{manifest.object_key} holds other names than its manifest")
            return 0, problems
        for member, entry in zip(manifest.members, tar.getmembers()[1:], strict=True):
            key = member.source.key
            original = originals.get((key, member.source.version_id))
            if original is None:  # another's upload, or a duplicate that another archive's row stands for
                continue
            content = cast("IO[bytes]", tar.extractfile(entry))
            body = content.read()
            archive.seek(member.offset_bytes)
            if archive.read(member.source.size_bytes) != body:
                problems.append(f"{manifest.object_key}: {key!r} does not begin at byte {member.offset_bytes}")
            elif hashlib.sha256(body).hexdigest() != member.source.sha256:
                problems.append(f"{manifest.object_key}: {key!r} has another SHA-256 than its manifest says")
            elif not original.has([body]):
                problems.append(original.differs())
            else:
                verified += 1
    return verified, problems


def _compare_object(
    archive: IO[bytes], manifest: Manifest, originals: Mapping[Identity, Chosen]
) -> tuple[int, list[str]]:
    """The same for a large object, which is its own archive."""
    source = manifest.members[0].source
    original = originals.get((source.key, source.version_id))
    if original is None:
        return 0, []
    return (1, []) if original.has(pieces(archive)) else (0, [original.differs()])


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of `file`, a piece at a time."""
    return iter(lambda: file.read(CHUNK_BYTES), b"")

"""Files that come home to local folders: each is whole in its place or not there, and nothing is replaced unasked."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from neve.domain.index import ArchiveRow
from neve.domain.manifest import Manifest, Source
from neve.domain.restore import Item
from neve.domain.selection import LOCAL
from neve.errors import NeveError, SourceDamaged, Transient
from neve.ports import ArchiveReader, Placed

FOLDER_ENDS = "/./"
"""In a local destination: before it the folder that was named, behind it the path below, which neve made. Symbolic
links are followed in the first part, and in the second only if they stay below it."""

PART_BYTES = 16 * 1024 * 1024
PARTS = 4
"""Of a large object so many parts of this size are read at a time."""
TRIES = 6
"""So often a part is asked for before the whole is given up; pauses grow to half a minute."""
LINKS = 40
"""More symbolic links than this on the way are a circle (Linux: MAXSYMLINKS)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
"""The file can be fetched as soon as somebody has seen to the disk."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say."""
_NOT_FOLLOWED = (errno.ELOOP, errno.ENOTDIR)

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class FolderMissing(NeveError):
    """The folder that a job's files go to is not on this machine; the message names the remedy."""


class _Refused(Exception):
    """The place takes no file; the message says why."""


def in_folder(folder: str, path: str) -> str:
    """The destination of a file at `path` below `folder`, which is absolute ("" for the root)."""
    return f"{LOCAL}{folder}{FOLDER_ENDS}{path}"


def split(destination: str) -> tuple[str, str]:
    """(the folder, the path below it) of a local destination."""
    folder, ends, path = destination.removeprefix(LOCAL).partition(FOLDER_ENDS)
    if not ends:
        folder, _, path = folder.rpartition("/")
    return folder or "/", path


def local_path(destination: str) -> str:
    """The path that a local destination means."""
    folder, path = split(destination)
    return f"{folder.rstrip('/')}/{path}"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What tells whether bytes are those of a file: their number, and SHA-256 (hex) or CRC64NVME (base64)."""

    size_bytes: int
    sha256: str = ""
    crc64nvme: str = ""

    def fits(self, read: Callable[[int], bytes]) -> bool:
        """Whether the bytes that `read` hands out, to their end, are the file's."""
        check = _Check(self)
        while piece := read(1024 * 1024):
            check.update(piece)
        return check.fits


class _Check:
    """Bytes as they pass, held against a proof at their end."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._size = 0
        self._crc = 0
        self._sha256 = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._proof.sha256:
            self._sha256.update(piece)
        else:
            from awscrt.checksums import crc64nvme  # noqa: PLC0415  # --help must not wait for it

            self._crc = crc64nvme(piece, self._crc)

    @property
    def fits(self) -> bool:
        if self._size != self._proof.size_bytes:
            return False
        if self._proof.sha256:
            return self._sha256.hexdigest() == self._proof.sha256
        return base64.b64encode(self._crc.to_bytes(8)).decode() == self._proof.crc64nvme


@dataclass(frozen=True, kw_only=True)
class LocalFiles:
    """The port Destination for local folders. `manifest` is how an archive's manifest is read.

    Raises FolderMissing, and Transient if the disk is full: then the files wait, and are fetched when they are asked
    for again.
    """

    reader: ArchiveReader
    manifest: Callable[[int], Manifest | None]
    sleep: Callable[[float], None] = field(default=time.sleep)

    def put(self, item: Item, source: Source, body: bytes, *, overwrite: datetime | None) -> Placed:
        """See neve.ports.Destination."""
        proof = Proof(size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())

        def write(file: BinaryIO) -> None:
            file.write(body)

        return self._place(item, source, proof, write, overwrite=overwrite)

    def copy(
        self,
        item: Item,
        source: Source,
        archive: ArchiveRow,
        *,
        overwrite: datetime | None,
        until: datetime,  # noqa: ARG002  # what is broken off would begin anew
    ) -> Placed | None:
        """See neve.ports.Destination. The archive is read in parts and checked as a whole; that takes what it takes."""
        proof = self._proof(source, archive)

        def write(file: BinaryIO) -> None:
            check = _Check(proof)
            for part in self._parts(archive):
                check.update(part)
                file.write(part)
            if not check.fits:
                raise SourceDamaged(f"the bytes of {archive.object_key} are not those that its manifest states")

        return self._place(item, source, proof, write, overwrite=overwrite)

    def _proof(self, source: Source, archive: ArchiveRow) -> Proof:
        sha256 = source.sha256 or archive.sha256
        crc64nvme = "" if sha256 else source.checksums.get("CRC64NVME", "")
        if not sha256 and not crc64nvme:
            manifest = self.manifest(archive.serial)
            crc64nvme = manifest.object_crc64nvme if manifest else ""
        return Proof(size_bytes=source.size_bytes, sha256=sha256, crc64nvme=crc64nvme)

    def _parts(self, archive: ArchiveRow) -> Iterator[bytes]:
        """The archive's bytes, a few parts ahead of whoever takes them."""
        starts = range(0, archive.size_bytes, PART_BYTES)
        with ThreadPoolExecutor(PARTS) as pool:
            for position in range(0, len(starts), PARTS):
                yield from pool.map(lambda first: self._part(archive, first), starts[position : position + PARTS])

    def _part(self, archive: ArchiveRow, first: int) -> bytes:
        for attempt in range(TRIES):
            if attempt:
                self.sleep(2**attempt)
            try:
                return self.reader.read(archive, first, min(first + PART_BYTES, archive.size_bytes) - 1)
            except Transient:
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def _place(
        self,
        item: Item,
        source: Source,
        proof: Proof,
        write: Callable[[BinaryIO], None],
        *,
        overwrite: datetime | None,
    ) -> Placed:
        folder, path = split(item.destination)
        *parents, name = path.split("/")
        try:
            with _opened(folder, parents) as parent:
                standing = _standing(parent, name, proof)
                if standing and not _may_replace(standing, overwrite):
                    return standing
                return _write(parent, name, source, proof, write, replace=standing is not None)
        except _Refused as refused:
            return Placed(refused=str(refused))
        except OSError as error:
            if error.errno in _FULL:
                raise Transient(f"{local_path(item.destination)}: {error.strerror}") from error
            return Placed(refused=f"{local_path(item.destination)}: {error.strerror}")


def _may_replace(standing: Placed, overwrite: datetime | None) -> bool:
    return bool(standing.conflict and overwrite and standing.modified and standing.modified < overwrite)


def _write(
    parent: int, name: str, source: Source, proof: Proof, write: Callable[[BinaryIO], None], *, replace: bool
) -> Placed:
    """Write a file beside its place, then move it there; what another has put there meanwhile stays."""
    beside = f".neve-{secrets.token_hex(8)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # of a descriptor
            write(file)
            file.flush()
            os.utime(descriptor, (source.last_modified.timestamp(),) * 2)
            os.fsync(descriptor)
        if replace:
            os.replace(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        elif not _linked(beside, name, parent):
            return _standing(parent, name, proof) or Placed(conflict="something else was there a moment ago")
        os.fsync(parent)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=parent)
    return Placed()


def _linked(beside: str, name: str, parent: int) -> bool:
    """Give the file its name unless something has it; False if so."""
    try:
        os.link(beside, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here. Between this look and the renaming another could put a file there, and lose it.
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            return False
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    return True


def _standing(parent: int, name: str, proof: Proof) -> Placed | None:
    """What stands in the place: identical, or a conflict; None if nothing does.

    `modified` is when it came there or was last changed: the time of modification of a file that was restored, or
    copied with its times, is that of where it came from.
    """
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    changed = datetime.fromtimestamp(found.st_ctime, UTC)
    if not stat.S_ISREG(found.st_mode):
        return Placed(conflict=f"a {_sort(found.st_mode)} of that name is there", modified=changed)
    if found.st_size == proof.size_bytes:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # of a descriptor
            if proof.fits(file.read):
                return Placed(identical=True, modified=changed)
    what = f"{found.st_size:,} bytes, changed {changed:%Y-%m-%d %H:%M:%S} UTC"
    return Placed(conflict=f"another file is there: {what}", modified=changed)


def _sort(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "symbolic link" if stat.S_ISLNK(mode) else "device or pipe"


@contextmanager
def _opened(folder: str, parents: Sequence[str]) -> Iterator[int]:
    """A descriptor of the folder that `parents` lead to from `folder`, made if need be.

    Raises FolderMissing, and _Refused where a symbolic link leads out of the folder.
    """
    parts = list(parents)
    for _ in range(LINKS):
        descriptor, link = _walk(folder, parts)
        if not link:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        parts = _followed(folder, parts, link)
    raise _Refused(f"there are symbolic links in a circle below {folder}")


def _walk(folder: str, parts: Sequence[str]) -> tuple[int, int]:
    """(a descriptor of the folder, 0); or (-1, n) if part n, counted from 1, is no folder: a link, or a file."""
    try:
        descriptor = os.open(folder, _OPEN_FOLDER)
    except FileNotFoundError as error:
        raise FolderMissing(
            f"The folder {folder} is not here. If the job was begun on another machine, fetch its files there; "
            f"else make the folder and go on: `neve restore --resume`."
        ) from error
    for number, part in enumerate(parts, start=1):
        try:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=descriptor)
            below = os.open(part, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            if error.errno in _NOT_FOLLOWED:
                return -1, number
            raise
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor, 0


def _followed(folder: str, parts: Sequence[str], link: int) -> list[str]:
    """`parts` with part number `link` replaced by what it is a link to. Raises _Refused if that is not below."""
    path = Path(folder, *parts[:link])
    try:
        real, root = path.resolve(strict=True), Path(folder).resolve()
    except (OSError, RuntimeError) as error:
        raise _Refused(f"{path} is a symbolic link to nowhere") from error
    if not real.is_dir():
        raise _Refused(f"{path} is a file, and a folder is needed there")
    if not real.is_relative_to(root):
        raise _Refused(f"{path} is a symbolic link that leads out of {folder}")
    return [*real.relative_to(root).parts, *parts[link:]]

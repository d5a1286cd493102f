"""Reads a file once and says what it read: the bytes or, of a large file, the open file, and the hashes of both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neve.aws.crc64 import crc64nvme, stated
from neve_edge.announcement import Seen, seen
from neve_edge.opening import open_file
from neve_edge.ready import Writer, writer

LARGE_BYTES = 16 * 1024 * 1024
"""From here on a file is uploaded in parts and never held in memory as a whole."""
_PIECE_BYTES = 1024 * 1024


class Unfinished(Exception):
    """Somebody writes to the file, or it changed while it was read; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A file as it was read. `body` is None for a large one, whose `descriptor` is open until the reading ends.

    `sha256` and `md5` are in hex, `crc64nvme` in S3's base64, "" for those that were not computed. A small file has a
    SHA-256 and an MD5, a large one a SHA-256 and a CRC64NVME: what S3 states of an upload of its kind.
    """

    name: str
    seen: Seen
    ctime_ns: int
    sha256: str
    md5: str
    crc64nvme: str
    body: bytes | None
    descriptor: int
    writer: Writer

    @property
    def size_bytes(self) -> int:
        """How many bytes were read."""
        return self.seen.size_bytes


@contextmanager
def read(folder: Path, path: str, *, large_bytes: int = LARGE_BYTES) -> Iterator[Reading]:
    """The file at `path` below `folder`, hashed. Raises Unfinished, and OSError as neve_edge.opening.open_file."""
    descriptor = open_file(folder, path)
    try:
        before = os.fstat(descriptor)
        state = writer(descriptor)
        if state is Writer.SOME:
            raise Unfinished("somebody has it open for writing")
        if before.st_size < large_bytes:
            body = _whole(descriptor, before.st_size)
            sha256, md5, crc = hashlib.sha256(body).hexdigest(), _md5(body), ""
        else:
            body, md5 = None, ""
            sha256, crc = _large(descriptor, before.st_size)
        after = os.fstat(descriptor)
        if seen(before) != seen(after) or before.st_ctime_ns != after.st_ctime_ns:
            raise Unfinished("it changed while it was read")
        yield Reading(
            name=path.rpartition("/")[2],
            seen=seen(after),
            ctime_ns=after.st_ctime_ns,
            sha256=sha256,
            md5=md5,
            crc64nvme=crc,
            body=body,
            descriptor=descriptor,
            writer=state,
        )
    finally:
        os.close(descriptor)


def sha256_of(descriptor: int) -> tuple[int, str]:
    """(the size, the SHA-256 in hex) of an open file, from its first byte to its last, wherever it was read before."""
    sha256, size = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _PIECE_BYTES, size):
        sha256.update(piece)
        size += len(piece)
    return size, sha256.hexdigest()


def _whole(descriptor: int, size_bytes: int) -> bytes:
    """All bytes; one more is asked for than there should be, so that a file that grows is found out."""
    pieces: list[bytes] = []
    left = size_bytes + 1
    while left and (piece := os.read(descriptor, left)):
        pieces.append(piece)
        left -= len(piece)
    if left != 1:
        raise Unfinished("it changed while it was read")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _large(descriptor: int, size_bytes: int) -> tuple[str, str]:
    sha256, crc, read_bytes = hashlib.sha256(), 0, 0
    while piece := os.pread(descriptor, _PIECE_BYTES, read_bytes):
        sha256.update(piece)
        crc = crc64nvme(piece, crc)
        read_bytes += len(piece)
        if read_bytes > size_bytes:
            break
    if read_bytes != size_bytes:
        raise Unfinished("it changed while it was read")
    return sha256.hexdigest(), stated(crc)

"""Lays members out as a tar, byte for byte the same for the same members, and reads it back before it is sent."""

from __future__ import annotations

import hashlib
import io
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from neve.domain.manifest import (
    BLOCK_BYTES,
    Contents,
    Manifest,
    Member,
    Source,
    padded,
    parse_contents,
    render_contents,
)
from neve.domain.names import safe_names
from neve.errors import ArchiveInvalid, ManifestInvalid

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MANIFEST_NAME = "MANIFEST.json"

END = bytes(2 * BLOCK_BYTES)
"""Two zero blocks end the archive. It is not padded to tar's customary 10,240 bytes: no reader of files asks for it."""

_NAME_BYTES = 100
_DIGITS = 20
"""More than any offset has: S3 ends at 48.8 TiB."""

_OCTAL_LIMIT = 8**11
"""The size and mtime fields of ustar hold 11 octal digits."""


class Rope(io.RawIOBase):
    """A readable, seekable file over buffers that stay where they are; the Body of one PutObject.

    Only what a read asks for is copied. len() is the size in bytes. Not for two threads at once: it has one position.
    """

    def __init__(self, buffers: Iterable[bytes | memoryview]) -> None:
        super().__init__()
        self._views = [view for view in (memoryview(buffer).cast("B") for buffer in buffers) if len(view)]
        self._starts = list(accumulate((len(view) for view in self._views), initial=0))
        self._size_bytes = self._starts.pop()
        self._position = 0

    def __len__(self) -> int:
        return self._size_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, fewer only at the end; all that is left if `size` is None or negative."""
        stop = self._size_bytes if size is None or size < 0 else self._position + size
        pieces = list(self.views(self._position, stop))
        self._position += sum(map(len, pieces))
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        filled = 0
        for piece in self.views(self._position, self._position + len(target)):
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes from `start` up to `stop` (or the end) without a copy, in as many pieces as buffers hold them."""
        stop = min(stop, self._size_bytes)
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            offset = start - self._starts[index]
            piece = self._views[index][offset : offset + stop - start]
            yield piece
            start += len(piece)
            index += 1

    def sha256(self) -> str:
        """Of the whole, hexadecimal; the position stays where it is."""
        return self.sha256_of(0, self._size_bytes)

    def sha256_of(self, start: int, stop: int) -> str:
        """Of the bytes from `start` up to `stop`, hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.views(start, stop):
            digest.update(piece)
        return digest.hexdigest()


def build(
    archive: int,
    bucket: str,
    object_key: str,
    members: Sequence[tuple[Source, bytes]],
    *,
    supersedes: int | None = None,
) -> tuple[Manifest, Rope]:
    """The archive with serial `archive` of these sources of `bucket` and their bodies, in whatever order they come.

    Bodies are referred to, never copied; their hashes are those of the sources until check() has compared them. Raises
    ArchiveInvalid if a body has not the size of its source, or ManifestInvalid if there is no member, or one twice.
    """
    ordered = sorted(members, key=lambda member: member[0].identity)
    sources = [source for source, _ in ordered]
    for source, body in ordered:
        if len(body) != source.size_bytes:
            raise ArchiveInvalid(f"member {source.key!r}: {len(body)} bytes were read, {source.size_bytes} announced")
    for earlier, later in pairwise(sources):
        if earlier.identity == later.identity:
            raise ManifestInvalid(f"member {later.key!r}: version {later.pin!r} is given twice")
    placed = _place(archive, bucket, sources, supersedes)
    contents = Contents(archive=archive, bucket=bucket, members=placed, supersedes=supersedes)
    buffers: list[bytes] = [_opening(contents)]
    for member, (_, body) in zip(placed, ordered, strict=True):
        buffers[-1] += _member_header(member)
        buffers += [body, _padding(len(body))]
    buffers[-1] += END
    rope = Rope(buffers)
    manifest = Manifest(
        archive=archive,
        bucket=bucket,
        kind="tar",
        object_key=object_key,
        object_size_bytes=len(rope),
        object_sha256=rope.sha256(),
        members=placed,
        supersedes=supersedes,
    )
    return manifest, rope


def check(rope: Rope, manifest: Manifest) -> None:
    """Reads the archive back before it is sent, in one pass, as a stranger would: by tarfile and by its MANIFEST.json.

    Required: MANIFEST.json first, saying what `manifest` says; then exactly its members, in order, each with the stated
    name, offset, size and time, and with the stated SHA-256 of the bytes that lie at the stated offset; between them
    nothing but what docs/format.md demands; after them nothing but the end. The hash of the whole is left to S3, which
    compares it on arrival. Raises ArchiveInvalid, naming the member. Leaves `rope` at its start.
    """
    try:
        _check(rope, manifest)
    except (tarfile.TarError, ManifestInvalid, ValueError, OSError) as error:
        raise ArchiveInvalid(f"archive {manifest.archive}: {error}") from error
    finally:
        rope.seek(0)


def contents_end(block: bytes) -> int:
    """Where MANIFEST.json ends in an archive whose first block is `block`; it begins behind that block.

    Raises ManifestInvalid if the block is not the header of a MANIFEST.json.
    """
    try:
        seen = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise ManifestInvalid(f"the archive does not begin with a tar header: {error}") from error
    if seen.name != MANIFEST_NAME or not seen.isreg():
        raise ManifestInvalid(f"the archive begins with {seen.name!r}, not with {MANIFEST_NAME}")
    return BLOCK_BYTES + seen.size


def _check(rope: Rope, manifest: Manifest) -> None:
    if len(rope) != manifest.object_size_bytes:
        raise ArchiveInvalid(f"archive has {len(rope)} bytes, its manifest says {manifest.object_size_bytes}")
    rope.seek(0)
    with tarfile.open(fileobj=rope, mode="r:", encoding="utf-8", errors="strict") as reader:
        first = reader.next()
        if first is None or first.name != MANIFEST_NAME:
            raise ArchiveInvalid(f"the first member is not {MANIFEST_NAME}")
        found = parse_contents(b"".join(rope.views(first.offset_data, first.offset_data + first.size)))
        if found != manifest.contents:
            raise ArchiveInvalid(f"{MANIFEST_NAME} is not what the manifest says")
        frame = _opening(found)
        frame_start = 0
        for member in found.members:
            frame += _member_header(member)
            _check_member(reader.next(), member)
            _check_frame(rope, frame_start, frame, member)
            frame_start = member.offset_bytes + member.source.size_bytes
            if rope.sha256_of(member.offset_bytes, frame_start) != member.source.sha256:
                raise ArchiveInvalid(f"member {member.source.key!r}: its bytes do not have its SHA-256")
            frame = _padding(member.source.size_bytes)
        if reader.next() is not None:
            raise ArchiveInvalid("something follows the last member")
        _check_frame(rope, frame_start, frame + END, found.members[-1])


def _check_member(seen: tarfile.TarInfo | None, member: Member) -> None:
    """What a reader sees of the member is what the manifest says."""
    if seen is None:
        raise ArchiveInvalid(f"the archive ends before member {member.source.key!r}")
    expected = (member.name, member.offset_bytes, member.source.size_bytes, _mtime(member.source), True)
    if (seen.name, seen.offset_data, seen.size, seen.mtime, seen.isreg()) != expected:
        raise ArchiveInvalid(f"member {member.source.key!r}: its header is not what the manifest says")


def _check_frame(rope: Rope, start: int, frame: bytes, member: Member) -> None:
    """What stands between the bytes of members is exactly what this format puts there."""
    if b"".join(rope.views(start, start + len(frame))) != frame:
        raise ArchiveInvalid(f"member {member.source.key!r}: the blocks around it are not what the format demands")


def _place(archive: int, bucket: str, sources: Sequence[Source], supersedes: int | None) -> tuple[Member, ...]:
    """The members with their names and offsets.

    MANIFEST.json comes first and holds the offsets, so room is made for it before they are known: as much as it takes
    if each is as long as the last can be, in whole blocks.
    """
    names = safe_names([source.identity for source in sources])
    zeroed = [
        Member(source=source, number=number, name=name, offset_bytes=0)
        for number, (source, name) in enumerate(zip(sources, names, strict=True))
    ]
    headers = [_member_header(member) for member in zeroed]
    rest = sum(map(len, headers)) + sum(padded(source.size_bytes) for source in sources) + len(END)
    document = len(render_contents(archive=archive, bucket=bucket, members=zeroed, supersedes=supersedes))
    longest = BLOCK_BYTES + padded(document + _DIGITS * len(sources)) + rest
    free = BLOCK_BYTES + padded(document + (len(str(longest)) - 1) * len(sources) + 1)
    placed = []
    for member, header in zip(zeroed, headers, strict=True):
        free += len(header)
        placed.append(Member(source=member.source, number=member.number, name=member.name, offset_bytes=free))
        free += padded(member.source.size_bytes)
    return tuple(placed)


def _opening(contents: Contents) -> bytes:
    """MANIFEST.json with its header: JSON, spaces up to the first member's header, and a newline at the very end.

    Its time is that of the youngest member, or the latest that a plain header holds.
    """
    document = render_contents(
        archive=contents.archive, bucket=contents.bucket, members=contents.members, supersedes=contents.supersedes
    )
    first = contents.members[0]
    size_bytes = first.offset_bytes - len(_member_header(first)) - BLOCK_BYTES
    youngest = max(_mtime(member.source) for member in contents.members)
    header = _block(MANIFEST_NAME.encode(), size_bytes, min(youngest, _OCTAL_LIMIT - 1), b"0")
    return header + document.ljust(size_bytes - 1) + b"\n"


def _member_header(member: Member) -> bytes:
    """All blocks before the member's bytes: one, or three and more where one cannot hold its name, size or time."""
    size_bytes, mtime = member.source.size_bytes, _mtime(member.source)
    name = member.name.encode()
    extended = {}
    if not name.isascii() or len(name) > _NAME_BYTES:
        extended["path"] = name
        name = b"unnamed/%010d" % member.number
    if mtime >= _OCTAL_LIMIT:
        extended["mtime"] = b"%d" % mtime
        mtime = 0
    if size_bytes >= _OCTAL_LIMIT:
        extended["size"] = b"%d" % size_bytes
        size_bytes = 0
    header = _block(name, size_bytes, mtime, b"0")
    if not extended:
        return header
    records = b"".join(_record(keyword, extended[keyword]) for keyword in sorted(extended))
    return _block(b"pax/%010d" % member.number, len(records), mtime, b"x") + records + _padding(len(records)) + header


def _record(keyword: str, value: bytes) -> bytes:
    """One record of a pax header, `<length> <keyword>=<value>\\n`; the length counts its own digits (POSIX pax)."""
    rest = b" " + keyword.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _block(name: bytes, size_bytes: int, mtime: int, typeflag: bytes) -> bytes:
    """One ustar header (POSIX pax, "ustar Interchange Format"): mode 0644, owner 0:0, no names of owners."""
    fields = b"%s0000644\0%s%s%011o\0%011o\0%s%s%sustar\00000%s%s%s" % (
        name.ljust(_NAME_BYTES, b"\0"),
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        size_bytes,
        mtime,
        b" " * 8,  # the checksum counts itself as spaces
        typeflag,
        bytes(100),  # linkname
        bytes(32 + 32),  # uname, gname
        b"0000000\0" * 2,  # devmajor, devminor
        bytes(155 + 12),  # prefix, and the rest of the block
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _padding(size_bytes: int) -> bytes:
    return bytes(padded(size_bytes) - size_bytes)


def _mtime(source: Source) -> int:
    """Whole seconds since 1970."""
    return int(source.last_modified.timestamp())

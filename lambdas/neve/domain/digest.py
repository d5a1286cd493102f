"""Hashing what is read, piece by piece: a whole object, or an archive and each of its members in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from neve.domain.manifest import BLOCK_BYTES, Contents, Manifest, Member, Source, parse_contents
from neve.domain.tar import contents_end
from neve.errors import ManifestInvalid

LONGEST_CONTENTS = 256 * 1024 * 1024
"""More than any MANIFEST.json has: a header that says so is damaged, and nothing is gathered on its word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """What identifies bytes, as far as it is known: their number, and hashes in hex ("" where there is none).

    crc64nvme is in S3's own base64, as S3 states it.
    """

    size_bytes: int
    sha256: str = ""
    md5: str = ""
    crc64nvme: str = ""


def agree(one: Digest, other: Digest) -> bool | None:
    """Whether two digests can be of the same bytes; None if they have no hash in common that could tell.

    Different sizes, or one hash that differs, say no, whatever else agrees.
    """
    if one.size_bytes != other.size_bytes:
        return False
    pairs = ((one.sha256, other.sha256), (one.md5, other.md5), (one.crc64nvme, other.crc64nvme))
    shared = [left == right for left, right in pairs if left and right]
    return all(shared) if shared else None


def stated(source: Source) -> Digest:
    """What a manifest states of a member's bytes."""
    return Digest(
        size_bytes=source.size_bytes,
        sha256=source.sha256,
        md5=source.md5,
        crc64nvme=source.checksums.get("CRC64NVME", ""),
    )


class Hasher:
    """SHA-256 and MD5 of what it is fed."""

    def __init__(self) -> None:
        self._size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def feed(self, piece: bytes | memoryview) -> None:
        """Hash the next piece."""
        self._size_bytes += len(piece)
        self._sha256.update(piece)
        self._md5.update(piece)

    def digest(self) -> Digest:
        """Of all that was fed."""
        return Digest(size_bytes=self._size_bytes, sha256=self._sha256.hexdigest(), md5=self._md5.hexdigest())


def hashed(pieces: Iterable[bytes]) -> Digest:
    """The digest of all `pieces` together."""
    hasher = Hasher()
    for piece in pieces:
        hasher.feed(piece)
    return hasher.digest()


@dataclass(frozen=True, kw_only=True)
class ArchiveDigest:
    """What one pass over an archive found.

    `contents` is what its own MANIFEST.json says, None if that cannot be read, for the reason in `problem`. `members`
    are the digests of the bytes at the places that this list names, or that the manifest names if there is none, by
    identity; a member is missing if the archive ends before it does. `listed` are those at the places that the manifest
    names: the same, unless one of the two lists is damaged.
    """

    whole: Digest
    contents: Contents | None
    problem: str
    members: Mapping[tuple[str, str], Digest]
    listed: Mapping[tuple[str, str], Digest] = field(default_factory=dict)


@dataclass
class _Places:
    """Hashes the bytes at the places of `members` as an archive is fed."""

    members: Sequence[Member]
    digests: dict[tuple[str, str], Digest] = field(default_factory=dict)
    _position: int = 0
    _next: int = 0
    _current: Hasher = field(default_factory=Hasher)

    def feed(self, piece: bytes) -> None:
        """Hand each member its share of a piece that begins at the position reached."""
        view = memoryview(piece)
        start, end = self._position, self._position + len(piece)
        self._position = end
        while self._next < len(self.members):
            member = self.members[self._next]
            first, last = member.offset_bytes, member.offset_bytes + member.source.size_bytes
            if first >= end:
                return
            self._current.feed(view[max(first - start, 0) : last - start])
            if last > end:
                return
            self._end_member(member)

    def end(self) -> None:
        """Empty members may lie behind the last byte that was read."""
        while self._next < len(self.members):
            member = self.members[self._next]
            if member.offset_bytes + member.source.size_bytes > self._position:
                return
            self._end_member(member)

    def _end_member(self, member: Member) -> None:
        self.digests[member.source.identity] = self._current.digest()
        self._current = Hasher()
        self._next += 1


@dataclass
class TarHasher:
    """Hashes a tar and each of its members as it is fed, in one pass: where its own list says that they are, and where
    `manifest` does, if that is another place.
    """

    manifest: Manifest | None
    _whole: Hasher = field(default_factory=Hasher)
    _head: bytearray = field(default_factory=bytearray)
    _contents: Contents | None = None
    _problem: str = ""
    _places: list[_Places] = field(default_factory=list)
    """Empty until it is known what the tar's own list says; the manifest's are the last."""

    def feed(self, piece: bytes) -> None:
        """Hash the next piece of the tar."""
        self._whole.feed(piece)
        if self._places:
            self._feed_members(piece)
            return
        self._head += piece
        self._look()
        if self._places:
            head, self._head = bytes(self._head), bytearray()
            self._feed_members(head)

    def digest(self) -> ArchiveDigest:
        """What was found, once all has been fed."""
        if not self._places:
            self._use(None, f"the archive ends after {len(self._head)} bytes, within its own list")
            self._feed_members(bytes(self._head))
        for places in self._places:
            places.end()
        return ArchiveDigest(
            whole=self._whole.digest(),
            contents=self._contents,
            problem=self._problem,
            members=self._places[0].digests,
            listed=self._places[-1].digests if self.manifest else {},
        )

    def _look(self) -> None:
        """Whether the list is gathered, or will never be."""
        if len(self._head) < BLOCK_BYTES:
            return
        try:
            end = contents_end(bytes(self._head[:BLOCK_BYTES]))
            if end > LONGEST_CONTENTS:
                raise ManifestInvalid(f"its own list claims to have {end} bytes")
            if len(self._head) < end:
                return
            self._use(parse_contents(bytes(self._head[BLOCK_BYTES:end])), "")
        except ManifestInvalid as error:
            self._use(None, str(error))

    def _use(self, contents: Contents | None, problem: str) -> None:
        self._contents, self._problem = contents, problem
        own = contents.members if contents else ()
        listed = self.manifest.members if self.manifest else ()
        lists = [members for members in (own, listed) if members]
        self._places = [_Places(members) for members in (lists[:1] if own == listed else lists)] or [_Places(())]

    def _feed_members(self, piece: bytes) -> None:
        for places in self._places:
            places.feed(piece)

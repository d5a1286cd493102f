"""Hashing for audits: what the sources of an archive's members are now, and large objects that take several tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.audit import Progress
from neve.domain.bundle import version_of
from neve.domain.digest import Digest, agree, hashed, stated
from neve.domain.manifest import Source
from neve.domain.verdict import Sight, Sighting
from neve.domain.version import ObjectVersion
from neve.errors import SourceChanged, SourceGone, SourceUnavailable, Transient
from neve.ports import Sources

MARGIN = timedelta(seconds=20)
"""If only so much time is left, the hashing of a large object stops, and its progress is noted."""


@dataclass(frozen=True, kw_only=True)
class Crc:
    """CRC64NVME, which can be taken in several tries: `advance` continues one, `text` is the form that S3 states."""

    advance: Callable[[bytes, int], int]
    text: Callable[[int], str]
    clock: Callable[[], datetime]

    def feed(self, pieces: Iterable[bytes], progress: Progress, until: datetime) -> tuple[Progress, bool]:
        """How far `pieces` lead from `progress` on before the time is up; whether they have come to their end."""
        size_bytes, crc = progress.size_bytes, progress.crc
        for piece in pieces:
            crc = self.advance(piece, crc)
            size_bytes += len(piece)
            if self.clock() + MARGIN > until:
                return Progress(size_bytes=size_bytes, crc=crc), False
        return Progress(size_bytes=size_bytes, crc=crc), True

    def digest(self, progress: Progress) -> Digest:
        """Of all that led to `progress`."""
        return Digest(size_bytes=progress.size_bytes, crc64nvme=self.text(progress.crc))


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What the sources are now. With `read` their bytes are hashed; else S3's own checksum is taken where it keeps one
    of a kind that the manifest states, too.
    """

    sources: Sources
    read: bool
    threads: int

    def see_all(self, members: Sequence[Source]) -> list[Sighting]:
        """What is seen of each of `members`, in their order."""
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self.see, members))

    def see(self, member: Source) -> Sighting:
        """What is seen of one source. That it cannot be read is said, not raised: its neighbours go on."""
        return self._seen(member, lambda version: hashed(self.sources.stream(version)))

    def see_large(self, member: Source, progress: Progress, crc: Crc, until: datetime) -> Sighting | Progress:
        """As see, by CRC64NVME; how far it got instead, if the time did not suffice."""
        stopped: list[Progress] = []

        def digest(version: ObjectVersion) -> Digest:
            reached, ended = crc.feed(self.sources.stream(version, first=progress.size_bytes), progress, until)
            if not ended:
                stopped.append(reached)
            return crc.digest(reached)

        sighting = self._seen(member, digest)
        return stopped[0] if stopped else sighting

    def described(self, member: Source) -> Source | None:
        """What S3 says of a source, None if it says nothing."""
        try:
            return self.sources.describe(version_of(member))
        except (SourceUnavailable, Transient, ValueError):
            return None

    def _seen(self, member: Source, digest: Callable[[ObjectVersion], Digest]) -> Sighting:
        try:
            version = version_of(member)
            if not self.read:
                kept = stated(self.sources.describe(version))
                if agree(kept, stated(member)):  # where they differ, only the bytes tell which is wrong
                    return Sighting(sight=Sight.READ, digest=kept)
            return Sighting(sight=Sight.READ, digest=digest(version))
        except SourceGone as error:
            return Sighting(sight=Sight.GONE, detail=str(error))
        except SourceChanged as error:
            return Sighting(sight=Sight.CHANGED, detail=str(error))
        except ValueError as error:  # a manifest that is damaged may name a version that cannot exist
            return Sighting(sight=Sight.GONE, detail=str(error))
        except (SourceUnavailable, Transient) as error:
            return Sighting(sight=Sight.UNREAD, detail=str(error))

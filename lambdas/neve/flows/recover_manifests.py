"""Recover manifests: write those that are lost again, from the list that each tar has in itself.

An archive is looked at by HEAD first: what is thawed is read, what thaws is waited for, and only what sleeps is asked
for. S3 itself sees to it that there is one thaw of an archive: a second request for one that thaws is answered with 409
and costs nothing. So neither the table of thaws is needed, which may be lost as well, nor any memory of an earlier try.
The manifest is put where none stands, and from the same list come the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeVar

from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.manifest import Manifest, archive_key
from neve.domain.rebuild import REBUILT
from neve.domain.thaw import Need, Tier, needs_thaw, offered, promise
from neve.errors import ArchiveUnreadable, Asleep, ManifestInvalid
from neve.flows.contents import contents_of
from neve.flows.rebuild import LeftOut, patiently, windows
from neve.ports import Answer, ArchiveListing, ArchiveReader, ArchiveStore, Glacier, ListedObject, StoredArchive

Got = TypeVar("Got")


class State(StrEnum):
    """What can be done about an archive without a manifest."""

    READABLE = "readable"
    THAWING = "thawing"
    ASLEEP = "asleep"
    """It would have to be thawed."""
    HOPELESS = "hopeless"
    """Its bytes do not tell its manifest."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """An archive without a manifest. `reason` says why it is hopeless."""

    archive: ArchiveRow
    state: State
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What became of the archives without manifests in a window, of which `through` is the last serial.

    `recovered` have one again. `thawing` are thawed by `ready_at` at the latest, and for `asked` of them S3 was asked
    just now; they are left out, too.
    """

    through: int
    recovered: int = 0
    thawing: int = 0
    asked: int = 0
    ready_at: datetime | None = None
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ManifestRecoverer:
    """The rules of recovering over their ports. `pause` waits so many seconds; `clock` tells the time in UTC."""

    store: ArchiveStore
    listing: ArchiveListing
    glacier: Glacier
    reader: ArchiveReader
    threads: int
    pause: Callable[[float], None]
    clock: Callable[[], datetime]

    def look(self, first: int = 1, last: int | None = None) -> Iterator[tuple[int, list[Lost]]]:
        """The archives from serial `first` to `last` that have no manifest, and for each window its last serial."""
        for through, lost, pool in self._lost(first, last):
            yield through, list(pool.map(partial(self._patiently, self._look), lost))

    def recover(self, need: Need, first: int = 1, last: int | None = None) -> Iterator[Recovered]:
        """Write the manifests that can be told now, and ask for the thaws of the other archives.

        Raises Transient if AWS fails for longer than all pauses.
        """
        for through, lost, pool in self._lost(first, last):
            ended = list(pool.map(partial(self._patiently, partial(self._recover, need)), lost))
            yield Recovered(
                through=through,
                recovered=sum(each.recovered for each in ended),
                thawing=sum(each.thawing for each in ended),
                asked=sum(each.asked for each in ended),
                ready_at=max((each.ready_at for each in ended if each.ready_at), default=None),
                left_out=tuple(refused for each in ended for refused in each.left_out),
            )

    def _lost(self, first: int, last: int | None) -> Iterator[tuple[int, list[ListedObject], ThreadPoolExecutor]]:
        with ThreadPoolExecutor(self.threads) as pool:
            for window in windows(self.listing, first, last, self.pause):
                lost = [each for found in window if found.manifest is None for each in found.archives]
                yield window[-1].serial, lost, pool

    def _look(self, listed: ListedObject) -> Lost:
        stored = self.store.head(listed.key)
        archive = _row(listed, stored)
        reason = _hopeless(archive, stored)
        if reason:
            return Lost(archive=archive, state=State.HOPELESS, reason=reason)
        if not needs_thaw(archive.storage_class):
            return Lost(archive=archive, state=State.READABLE)
        try:
            status = self.glacier.status(archive)
        except ArchiveUnreadable as error:
            return Lost(archive=archive, state=State.HOPELESS, reason=str(error))
        if status.warm_until and status.warm_until > self.clock():
            return Lost(archive=archive, state=State.READABLE)
        return Lost(archive=archive, state=State.THAWING if status.running else State.ASLEEP)

    def _recover(self, need: Need, listed: ListedObject) -> Recovered:
        lost = self._look(listed)
        archive = lost.archive
        if lost.state is State.HOPELESS:
            return _left_out(archive, lost.reason)
        if lost.state is State.THAWING:
            return _thawing(archive, self.clock() + promise(archive.storage_class, Tier.BULK))
        try:
            return self._thaw(archive, need) if lost.state is State.ASLEEP else self._read(archive)
        except (ArchiveUnreadable, Asleep, ManifestInvalid) as error:
            return _left_out(archive, f"its own list cannot be read: {error}")

    def _thaw(self, archive: ArchiveRow, need: Need) -> Recovered:
        if not offered(archive.storage_class, need.tier):
            return _left_out(archive, f"{archive.storage_class} has no tier {need.tier}: take a slower one")
        answer = self.glacier.request(archive, tier=need.tier, days=need.days)
        if answer is Answer.UNAVAILABLE:
            return _left_out(archive, f"S3 has no capacity for the tier {need.tier} now: take a slower one")
        if answer is Answer.WARM:
            return self._read(archive)
        return _thawing(archive, self.clock() + promise(archive.storage_class, need.tier), asked=1)

    def _read(self, archive: ArchiveRow) -> Recovered:
        """Write the manifest that the tar's own list implies; it holds itself against the object's size."""
        contents = contents_of(self.reader, archive)
        manifest = Manifest(
            archive=archive.serial,
            bucket=contents.bucket,
            kind=archive.kind,
            object_key=archive.object_key,
            object_size_bytes=archive.size_bytes,
            object_sha256=archive.sha256,
            members=contents.members,
            supersedes=contents.supersedes,
        )
        self.store.put_manifest(manifest)
        return Recovered(through=archive.serial, recovered=1)

    def _patiently(self, work: Callable[[ListedObject], Got], listed: ListedObject) -> Got:
        return patiently(partial(work, listed), self.pause)


def _row(listed: ListedObject, stored: StoredArchive | None) -> ArchiveRow:
    """What can be said of an archive without its manifest: enough to thaw it and to read it."""
    return ArchiveRow(
        serial=listed.serial,
        kind="tar" if listed.key == archive_key(listed.serial, "tar") else "object",
        bundle=REBUILT,
        object_key=listed.key,
        object_version_id=stored.version_id if stored else "",
        storage_class=stored.storage_class if stored else listed.storage_class,
        size_bytes=stored.size_bytes if stored else listed.size_bytes,
        sha256=stored.sha256 if stored else "",
        source_bytes=0,
        files=0,
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=listed.modified,
    )


def _hopeless(archive: ArchiveRow, stored: StoredArchive | None) -> str:
    """Why an archive does not tell its manifest, as far as HEAD shows it; "" if it may."""
    if stored is None:
        return "it was listed, and is not there"
    if archive.kind == "object":
        proof = ", ".join(f"{algorithm} {value}" for algorithm, value in sorted(stored.checksums.items()))
        return f"it is a large object, and nothing in it tells its key: {stored.size_bytes:,} bytes, {proof or '-'}"
    return "" if stored.sha256 else "S3 states no SHA256 over the whole of it, which its manifest has to state"


def _left_out(archive: ArchiveRow, reason: str) -> Recovered:
    refused = LeftOut(serial=archive.serial, object_key=archive.object_key, reason=reason)
    return Recovered(through=archive.serial, left_out=(refused,))


def _thawing(archive: ArchiveRow, ready_at: datetime, *, asked: int = 0) -> Recovered:
    reason = f"it has no manifest and is being thawed, by {ready_at:%Y-%m-%d %H:%M} UTC at the latest"
    left_out = _left_out(archive, reason).left_out
    return Recovered(through=archive.serial, thawing=1, asked=asked, ready_at=ready_at, left_out=left_out)

"""What every way to write an archive begins and ends with: the claim on its bundle, and the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

from neve.domain.bundle import Bundle, BundleState
from neve.domain.index import ArchiveRow, ArchiveState, FileRow, pointing, rows
from neve.domain.manifest import Manifest
from neve.domain.rebuild import REBUILT
from neve.domain.version import ObjectVersion
from neve.errors import Busy, Transient
from neve.ports import Archives, Bundles, Files, StoredArchive

THREADS = 8
"""Rows are moved one by one, each on its own condition."""


@contextmanager
def claimed(bundles: Bundles, bundle_id: str, *, owner: str, now: datetime, until: datetime) -> Iterator[Bundle | None]:
    """The bundle, sealed and leased to `owner`; None if nothing is left to do.

    A timer that finds no bundle makes it void, so that the Collect that sent it opens another. After an error the lease
    is given back: the next try need not wait for its end. Raises Busy while another's lease runs.
    """
    bundle = bundles.claim(bundle_id, owner=owner, now=now, until=until)
    while bundle is None:
        nothing = Bundle(id=bundle_id, kind="tar", state=BundleState.VOID, size_bytes=0, count=0, due_at=now)
        bundle = nothing if bundles.create(nothing) else bundles.claim(bundle_id, owner=owner, now=now, until=until)
    if bundle.finished:
        yield None
        return
    if bundle.lease_owner != owner or bundle.leased_until is None:
        left = (bundle.leased_until or now) - now
        raise Busy(f"bundle {bundle_id} is being written", retry_after_s=max(1, int(left.total_seconds()) + 1))
    try:
        yield bundle
    except Exception:
        with suppress(Transient):  # it ends by itself
            bundles.release(bundle_id, owner=owner)
        raise


@dataclass(frozen=True, kw_only=True)
class Committer:
    """Brings an archive whose object stands into the index."""

    bundles: Bundles
    archives: Archives
    files: Files

    def commit(self, bundle: Bundle, manifest: Manifest, stored: StoredArchive, clock: Callable[[], datetime]) -> int:
        """Write the archive's row, the files' rows, then the states; how many members another archive already had.

        `archived_at` is read off the clock when the last row stands: latencies are measured by it. Every step may have
        been done before, by this process or another; repeating it changes nothing. If the serial's row is another
        bundle's it stays as it is, and the serial is given back; see disown. A rebuild that was faster knows of no
        bundle, and has written the files' rows before the archive's.

        If the bundle supersedes a damaged archive, rows that still name that one come to name this one, and only then
        is it marked: what no row names any more has an archive that stands for it.
        """
        standing = self.archives.put(
            ArchiveRow(
                serial=manifest.archive,
                kind=manifest.kind,
                bundle=bundle.id,
                object_key=manifest.object_key,
                object_version_id=stored.version_id,
                storage_class=stored.storage_class,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                source_bytes=sum(member.source.size_bytes for member in manifest.members),
                files=len(manifest.members),
                duplicates=0,
                state=ArchiveState.WRITTEN,
                written_at=clock(),
            )
        )
        if standing.bundle not in (bundle.id, REBUILT):
            disown(self.bundles, bundle.id, manifest.archive)
        duplicates = standing.duplicates
        if standing.state is ArchiveState.WRITTEN:
            taken = self.files.record(rows(manifest))
            if bundle.supersedes:
                taken = self._move(taken, bundle.supersedes)
                self._move_restored(manifest, bundle.supersedes)
                self.archives.supersede(bundle.supersedes, by=manifest.archive)
            duplicates = len(taken)
            self.archives.finish(manifest.archive, duplicates=duplicates, now=clock())
        self.bundles.finish(bundle.id, clock())
        return duplicates

    def _move(self, taken: Sequence[FileRow], superseded: int) -> list[FileRow]:
        """Put each of `taken` in the place of the row that names the superseded archive; those are returned whose place
        is still another archive's: a duplicate was first, or a later repair.
        """

        def move(row: FileRow) -> None:
            seen = standing.get((row.key, row.pin))
            if seen is not None and seen.archive == superseded:
                self.files.replace(seen, row)

        identities = [(row.key, row.pin) for row in taken]
        standing = self.files.get(identities)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, taken))
        standing = self.files.get(identities)
        return [row for row in taken if standing[row.key, row.pin].archive != row.archive]

    def _move_restored(self, manifest: Manifest, superseded: int) -> None:
        """Have the rows of versions that restores have made out of the superseded archive name this one's members.

        Those are versions of the same key with the same bytes. What was restored under other keys, reconcile finds. Of
        a large object no SHA-256 may be known, but all that names its archive is that object.
        """

        def move(implied: FileRow) -> None:
            for seen in self.files.versions(implied.key):
                same = (seen.sha256, seen.size_bytes) == (implied.sha256, implied.size_bytes)
                if seen.archive == superseded and same:
                    self.files.replace(seen, pointing(seen, implied))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, rows(manifest)))


def numbered(bundles: Bundles, bundle: Bundle, *, source: str = "") -> Bundle:
    """The bundle with its serial, which is drawn if it has none, and recorded with `source`.

    Raises Transient, and gives the serial back, if it is not larger than that of the archive that it supersedes.
    """
    serial = bundle.serial or bundles.assign_serial(bundle.id, source=source)
    if serial <= bundle.supersedes:
        disown(bundles, bundle.id, serial)
    return replace(bundle, serial=serial)


def is_of(manifest: Manifest, bundle: Bundle, versions: Sequence[ObjectVersion]) -> bool:
    """Whether a manifest found under a bundle's serial is the bundle's own.

    It is if it supersedes what the bundle does, and lists no version but the bundle's. If no version is left (parts
    expire), there is nothing to hold its list against.
    """
    announced = {version.identity for version in versions}
    own = not announced or {member.source.identity for member in manifest.members} <= announced
    return own and (manifest.supersedes or 0) == bundle.supersedes


def disown(bundles: Bundles, bundle_id: str, serial: int) -> NoReturn:
    """Give back a serial that another archive has: the counter has gone back, as after a restore of the table.

    Raises Transient, since the next try draws another number.
    """
    bundles.drop_serial(bundle_id, serial)
    raise Transient(
        f"archive {serial} stands already and is not that of bundle {bundle_id}: the counter of serials has gone back. "
        "Another number is drawn; raise the counter above the largest serial in the archive bucket"
    )

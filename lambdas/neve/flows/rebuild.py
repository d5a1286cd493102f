"""Rebuild: the rows of `files` and `archives`, and the counter of serials, from the manifests alone.

The counter comes first, so that a pipeline that runs draws free numbers again. Then archive after archive in the order
of serials, a window of them at a time: first the rows of all their files, then their own. A row is written if none
stands; one that names another archive changes only for an archive that precedes it (neve.domain.rebuild), and only if
it is still as it was seen. That is a total order: whoever writes when, the same row is left. So every step can be
repeated, several machines may share the work, and the pipeline may archive and repair meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from heapq import merge
from itertools import groupby, islice, takewhile
from typing import TypeVar

from neve.domain.index import ArchiveRow, ArchiveState, FileRow, rows
from neve.domain.manifest import Manifest, archive_key, manifest_key
from neve.domain.rebuild import MARGIN, REBUILT, Line, precedes, stands_for, unproven
from neve.errors import ManifestInvalid, Transient
from neve.ports import ArchiveListing, Archives, ArchiveStore, Bundles, Files, ListedObject

WINDOW = 999
"""Archives at a time. A page of a listing has 1,000 keys, and the last of them tells that those before are complete."""
REMEMBERED = 100_000
"""Of so many archives that were met in rows it is remembered for which ones they stand."""
PAUSES_S = (1, 5, 30, 120, 300)
"""Before what fails for the moment is tried again: a run of days should outlast an outage of minutes."""

LARGEST = 9_999_999_999
"""Serials of up to ten digits are listed in their order."""
NO_ARCHIVE = "nothing stands there: the archive was given up, is being written just now, or is lost"

Given = TypeVar("Given")
Got = TypeVar("Got")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An object that is not in the index, or contradicts it, and why."""

    serial: int
    object_key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What became of a window of archives, of which `through` is the last serial.

    `archives` were taken, with `files` members, of which `duplicates` are counted to other archives; `rows` of `files`
    were written or changed.
    """

    through: int
    archives: int = 0
    files: int = 0
    duplicates: int = 0
    rows: int = 0
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is listed under one serial: a manifest or none, and objects of archives, which is one as a rule."""

    serial: int
    manifest: ListedObject | None
    archives: tuple[ListedObject, ...]


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """An archive whose files have their rows. `contested` are archives that others' rows were found in the place of."""

    row: ArchiveRow
    supersedes: int
    rows: int = 0
    contested: frozenset[int] = frozenset()


@dataclass(kw_only=True)
class Rebuilder:
    """The rules of rebuilding over their ports. `pause` waits so many seconds. A dry run writes nothing.

    `missing_told`: the archives without manifests have been told of already.
    """

    store: ArchiveStore
    listing: ArchiveListing
    files: Files
    archives: Archives
    bundles: Bundles
    threads: int
    pause: Callable[[float], None]
    dry_run: bool = False
    missing_told: bool = False
    _repaired: Callable[[int], int | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._repaired = lru_cache(maxsize=REMEMBERED)(self._read_repaired)

    def mend_counter(self, largest: int) -> int:
        """Have all serials that are drawn from now on be above `largest`; the last number drawn, as it stands then.

        It is never lowered. In a dry run, what it would be.
        """
        least = largest + MARGIN if largest else 0
        if self.dry_run:
            return max(least, self.archives.drawn())
        return patiently(partial(self.bundles.raise_serials, least), self.pause)

    def rebuild(self, first: int = 1, last: int | None = None) -> Iterator[Rebuilt]:
        """Take the archives from serial `first` to `last` into the index; told of each window once all of it stands.

        Raises Transient if AWS fails for longer than all pauses.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            for window in windows(self.listing, first, last, self.pause):
                yield self._rebuild(window, pool)

    def _rebuild(self, window: Sequence[Found], pool: ThreadPoolExecutor) -> Rebuilt:
        taken: list[_Taken] = []
        left_out: list[LeftOut] = []
        for one, refused in pool.map(self._patiently(self._take), window):
            taken += [one] if one else []
            left_out += refused
        if not self.dry_run:
            contested = frozenset[int]().union(*(each.contested for each in taken))
            settle = self._patiently(partial(self._settle, contested=contested))
            settled = list(pool.map(settle, taken))
            taken = [one for one, _ in settled]
            left_out += [problem for _, problems in settled for problem in problems]
            left_out += [problem for each in taken for problem in self._patiently(self._mark_superseded)(each)]
        return Rebuilt(
            through=window[-1].serial,
            archives=len(taken),
            files=sum(each.row.files for each in taken),
            duplicates=sum(each.row.duplicates for each in taken),
            rows=sum(each.rows for each in taken),
            left_out=tuple(sorted(left_out, key=lambda each: each.serial)),
        )

    def _take(self, found: Found) -> tuple[_Taken | None, list[LeftOut]]:
        """Write the rows of an archive's files, if its manifest and S3 agree on it; what of the serial is left out."""
        manifest, refused = self._manifest(found)
        if manifest is None:
            return None, refused
        own = manifest.object_key
        refused = _refused([each for each in found.archives if each.key != own], f"its manifest names {own}")
        stored = self.store.head(own)
        if stored is None:
            return None, [*refused, LeftOut(serial=found.serial, object_key=own, reason=NO_ARCHIVE)]
        reason = unproven(manifest, size_bytes=stored.size_bytes, checksums=stored.checksums)
        if reason:
            return None, [*refused, LeftOut(serial=found.serial, object_key=own, reason=reason)]
        objects = (*found.archives, found.manifest)  # the archive itself, unless it was written after it was listed
        written_at = next(each.modified for each in objects if each and each.key in (own, manifest_key(found.serial)))
        row = ArchiveRow(
            serial=found.serial,
            kind=manifest.kind,
            bundle=REBUILT,
            object_key=own,
            object_version_id=stored.version_id,
            storage_class=stored.storage_class,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            source_bytes=sum(member.source.size_bytes for member in manifest.members),
            files=len(manifest.members),
            duplicates=0,
            state=ArchiveState.ARCHIVED,
            written_at=written_at,
            archived_at=written_at,
        )
        taken = _Taken(row=row, supersedes=manifest.supersedes or 0)
        return taken if self.dry_run else self._index(taken, manifest), refused

    def _manifest(self, found: Found) -> tuple[Manifest | None, list[LeftOut]]:
        """The manifest of a serial, if it is one of this serial; else why not."""
        if found.manifest is None:
            return None, [] if self.missing_told else _without_manifest(found)
        try:
            manifest = self.store.manifest(found.serial)
        except ManifestInvalid as error:
            return None, _refused([found.manifest], f"it cannot be read: {error}")
        if manifest is None:
            return None, _refused([found.manifest], "it was listed, and is not there")
        if manifest.archive != found.serial or manifest.object_key != archive_key(found.serial, manifest.kind):
            return None, _refused([found.manifest], f"it is the manifest of {manifest.object_key}")
        return manifest, []

    def _index(self, taken: _Taken, manifest: Manifest) -> _Taken:
        """Have every member's row name the archive that counts, this one or another."""
        line = self._line_of(manifest)
        written = 0
        contested: set[int] = set()
        left = rows(manifest)
        while left:
            standing = self.files.get([(row.key, row.pin) for row in left])
            absent = [row for row in left if (row.key, row.pin) not in standing]
            again = self.files.record(absent)
            written += len(absent) - len(again)
            for row in left:
                seen = standing.get((row.key, row.pin))
                if seen is None or _same(seen, row):
                    continue
                if seen.archive != row.archive:
                    other = self._line(seen.archive)
                    # Of an archive whose manifest cannot be read nothing is known that would be better than its row.
                    if other is None or precedes(other, line):
                        contested.add(row.archive)
                        continue
                if self.files.replace(seen, row):
                    contested.add(seen.archive)
                    written += 1
                else:
                    again.append(row)
            left = again
        return replace(taken, rows=written, contested=frozenset(contested))

    def _settle(self, taken: _Taken, contested: frozenset[int]) -> tuple[_Taken, list[LeftOut]]:
        """Write the archive's own row, now that all rows of its files stand; what contradicts it is left, and told."""
        row = taken.row
        if row.serial in contested:
            row = replace(row, duplicates=self._duplicates(row.serial))
        standing = self.archives.put(row)
        if standing.state is ArchiveState.WRITTEN:
            self.archives.finish(row.serial, duplicates=row.duplicates, now=row.written_at)
        problems = []
        if _object(standing) != _object(row):
            reason = f"its row states {_object(standing)}, S3 {_object(row)}; the row was left as it is"
            problems.append(LeftOut(serial=row.serial, object_key=row.object_key, reason=reason))
        return replace(taken, row=row), problems

    def _mark_superseded(self, taken: _Taken) -> list[LeftOut]:
        if not taken.supersedes:
            return []
        self.archives.supersede(taken.supersedes, by=taken.row.serial)
        if self.archives.get(taken.supersedes):
            return []
        reason = f"archive {taken.supersedes}, for which it stands, has no row that could say so"
        return [LeftOut(serial=taken.row.serial, object_key=taken.row.object_key, reason=reason)]

    def _duplicates(self, serial: int) -> int:
        """How many members of an archive have rows that name another, unless that is a repair of it."""
        manifest = self.store.manifest(serial)
        if manifest is None:
            raise Transient(f"the manifest of archive {serial} was there a moment ago")
        line = self._line_of(manifest)
        standing = self.files.get([member.source.identity for member in manifest.members])
        others = [row.archive for row in standing.values() if row.archive != serial]
        return sum(not stands_for(self._line(other) or (other,), line) for other in others)

    def _line_of(self, manifest: Manifest) -> Line:
        supersedes = manifest.supersedes
        return (*(self._line(supersedes) or (supersedes,)), manifest.archive) if supersedes else (manifest.archive,)

    def _line(self, serial: int) -> Line | None:
        """The line of an archive, as far back as manifests can be read; None if its own cannot."""
        repaired = self._repaired(serial)
        if repaired is None:
            return None
        return (*(self._line(repaired) or (repaired,)), serial) if repaired else (serial,)

    def _read_repaired(self, serial: int) -> int | None:
        """The archive for which another one stands, 0 if for none; None if its manifest cannot be read."""
        try:
            manifest = self.store.manifest(serial)
        except ManifestInvalid:
            return None
        return None if manifest is None or manifest.archive != serial else manifest.supersedes or 0

    def _patiently(self, work: Callable[[Given], Got]) -> Callable[[Given], Got]:
        return lambda given: patiently(partial(work, given), self.pause)


def patiently(work: Callable[[], Got], pause: Callable[[float], None]) -> Got:
    """What `work` returns, tried again after each of PAUSES_S. Raises Transient if even the last try fails so."""
    for pause_s in PAUSES_S:
        try:
            return work()
        except Transient:
            pause(pause_s)
    return work()


def windows(
    listing: ArchiveListing, first: int, last: int | None, pause: Callable[[float], None]
) -> Iterator[list[Found]]:
    """What is listed from serial `first` to `last`, a window at a time; each is listed anew, so a failure costs one."""
    while True:
        window = patiently(lambda: list(islice(_found(listing, first, last), WINDOW)), pause)  # noqa: B023  # called at once
        if not window:
            return
        yield window
        first = window[-1].serial + 1


def largest_serial(listing: ArchiveListing) -> int:
    """The largest serial of any manifest or archive; 0 if there is none. It takes some seventy requests."""
    return max(_largest(listing.archives), _largest(listing.manifests))


def _largest(objects: Callable[[int], Iterator[ListedObject]]) -> int:
    """The largest serial listed, by halving: S3 lists in one direction only."""

    def at_least(serial: int) -> int:
        return next((each.serial for each in objects(serial) if each.serial), 0)

    largest = 0
    for power in reversed(range(LARGEST.bit_length())):  # from largest + twice this power on, nothing stands
        probe = largest + 2**power
        largest = (at_least(probe) if probe <= LARGEST else 0) or largest
    return largest


def _found(listing: ArchiveListing, first: int, last: int | None) -> Iterator[Found]:
    """What is listed under each serial; foreign keys are left to reconciling."""
    listed = merge(*(_named(each(first), last) for each in (listing.manifests, listing.archives)), key=_serial)
    for serial, group in groupby(listed, key=_serial):
        objects = list(group)
        key = manifest_key(serial)
        manifest = next((each for each in objects if each.key == key), None)
        yield Found(serial=serial, manifest=manifest, archives=tuple(each for each in objects if each.key != key))


def _named(objects: Iterator[ListedObject], last: int | None) -> Iterator[ListedObject]:
    named = (each for each in objects if each.serial)
    return named if last is None else takewhile(lambda each: each.serial <= last, named)


def _serial(listed: ListedObject) -> int:
    return listed.serial


def _refused(objects: Sequence[ListedObject], reason: str) -> list[LeftOut]:
    return [LeftOut(serial=each.serial, object_key=each.key, reason=reason) for each in objects]


def _without_manifest(found: Found) -> list[LeftOut]:
    reasons = {
        archive_key(found.serial, "tar"): "it has no manifest: `neve rebuild-index --from-archives` reads its own list",
        archive_key(found.serial, "object"): "it has no manifest, without which its key is not known; or not yet",
    }
    return [LeftOut(serial=found.serial, object_key=each.key, reason=reasons[each.key]) for each in found.archives]


def _same(standing: FileRow, row: FileRow) -> bool:
    """Whether two rows say the same; the table keeps times to the second."""

    def kept(each: FileRow) -> FileRow:
        return replace(each, last_modified=each.last_modified.replace(microsecond=0))

    return kept(standing) == kept(row)


def _object(row: ArchiveRow) -> tuple[str, str, int, str]:
    return row.object_key, row.object_version_id, row.size_bytes, row.sha256

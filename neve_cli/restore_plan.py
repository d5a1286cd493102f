"""What is to be restored: sources looked up, destinations settled, and all of it put in the order of archives.

Memory does not grow with the number of files: what is found is kept in a spool on disk.
"""

from __future__ import annotations

import stat
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from neve.domain.estimate import Estimate, Estimator, Portion, Reads
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.manifest import Manifest
from neve.domain.restore import Kind, Wanted, chunks
from neve.domain.selection import (
    CONTENT,
    PATH_BYTES,
    Destination,
    InBucket,
    InFolder,
    ManyKeys,
    OneKey,
    OneMember,
    Places,
    Selection,
    SelectionInvalid,
    as_of,
    current,
    folder_path,
    parse_destination,
    parse_source,
    parse_time,
)
from neve.domain.thaw import Need, Thaw
from neve.domain.version import NULL_VERSION
from neve_cli.local_files import Proof, in_folder, local_path, split
from neve_cli.spool import Spool, Spooled, Taken

if TYPE_CHECKING:
    from neve.ports import Archives, Thaws

BATCH = 2_000
"""Lines that are looked up together."""
THREADS = 32
NOTED = 1_000
"""After so many files whoever waits is told how many there are."""

Identity = tuple[str, str]
Each = TypeVar("Each")


class Index(Protocol):
    """What a plan asks of the table `files`; as neve.ports.Files, and by prefix."""

    def get(self, identities: Sequence[Identity]) -> Mapping[Identity, FileRow]:
        """The rows with these identities, (key, pin); those that do not exist are missing."""

    def versions(self, key: str) -> list[FileRow]:
        """All archived versions of `key`."""

    def under(self, prefix: str = "") -> Iterator[FileRow]:
        """All archived versions of keys that begin with `prefix`; those of one key stand together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One source and where it goes, as it was typed; number 0 is the command line itself."""

    number: int
    source: str
    destination: str = CONTENT
    version: str = ""
    at: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why a line, or a part of it, is not restored."""

    line: int
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a plan comes to. `already_there` are local files that stand in their places, with the bytes wanted."""

    files: int
    local_files: int
    size_bytes: int
    archives: int
    chunks: int
    repeated: int
    already_there: int
    problems: int
    estimate: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """A line that was understood."""

    line: Line
    selection: Selection
    destination: Destination


class _Found:
    """What the index and the manifests say about one batch of lines."""

    def __init__(
        self,
        versions: Mapping[str, Sequence[FileRow]],
        pinned: Mapping[Identity, FileRow],
        members: Mapping[int, Manifest | None],
    ) -> None:
        self.versions = versions
        self.pinned = pinned
        self.members = members


class Plan:
    """Files to be restored. Add lines, settle, then ask for the summary and the chunks.

    `report` is told of each line that cannot be followed, as it is met, and `found` now and then how many files there
    are. `at` is a time for all sources that name no version and no time themselves.
    """

    def __init__(
        self,
        *,
        index: Index,
        manifest: Callable[[int], Manifest | None],
        places: Places,
        report: Callable[[Problem], None],
        at: datetime | None = None,
        overwrite: bool = False,
        threads: int = THREADS,
        found: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._index = index
        self._manifest = manifest
        self._places = places
        self._report = report
        self._at = at
        self._overwrite = overwrite
        self._threads = threads
        self._found = found
        self._noted = 0
        self._spool = Spool()
        # A million lines mostly go to one place, which need not be looked at each time.
        self._destination = lru_cache(4_096)(lambda text: parse_destination(text, places, _is_folder))
        self._folder = lru_cache(4_096)(_folder)
        self._chunks = array("I")
        self.problems = 0
        self.repeated = 0
        self.already_there = 0

    def close(self) -> None:
        """Remove what was kept on disk."""
        self._spool.close()

    # -- Adding

    def add(self, lines: Iterable[Line]) -> None:
        """Look up what the lines name. Raises Transient."""
        with ThreadPoolExecutor(self._threads) as pool:
            for batch in _batches(lines, BATCH):
                read = [self._read(line) for line in batch]
                found = self._look_up([each for each in read if isinstance(each, _Read)], pool)
                for each in read:
                    if isinstance(each, Problem):
                        self.fail(each)
                    else:
                        self._add(each, found)

    def want(self, items: Iterable[Wanted]) -> None:
        """Look up versions by their pins, for the very places they name: those of an earlier job."""
        for batch in _batches(items, BATCH):
            rows = self._index.get([(each.key, each.pin) for each in batch])
            for each in batch:
                row = rows.get((each.key, each.pin))
                if row:
                    self._spool.add(row, each.destination, line=0)
                else:
                    self.fail(Problem(line=0, source=each.key, reason="not found: it is not in the index any more"))

    def fail(self, problem: Problem) -> None:
        """Count and report a line that cannot be followed."""
        self.problems += 1
        self._report(problem)

    def _read(self, line: Line) -> _Read | Problem:
        try:
            at = parse_time(line.at) if line.at else None
            selection = parse_source(line.source, self._places, version_id=line.version, at=at)
            destination = self._destination(line.destination)
        except SelectionInvalid as error:
            return Problem(line=line.number, source=line.source, reason=str(error))
        if self._at:
            selection = as_of(selection, self._at)
        return _Read(line=line, selection=selection, destination=destination)

    def _look_up(self, batch: Sequence[_Read], pool: ThreadPoolExecutor) -> _Found:
        """What the index says about the keys, versions and archives that a batch names."""
        sources = [each.selection.source for each in batch]
        serials = sorted({source.archive for source in sources if isinstance(source, OneMember)})
        members = dict(zip(serials, pool.map(self._manifest, serials), strict=True))
        keys = {each.selection.text for each in batch if each.selection.guessed}
        identities: set[Identity] = set()
        for source in sources:
            if isinstance(source, OneMember):
                identities |= {identity for identity in (_identity(source, members[source.archive]),) if identity}
            elif isinstance(source, OneKey) and _is_pinned(source):
                identities.add((source.key, source.version_id))
            elif isinstance(source, OneKey):
                keys.add(source.key)
        return _Found(
            versions=self._versions(sorted(keys), pool),
            pinned=self._index.get(sorted(identities)) if identities else {},
            members=members,
        )

    def _versions(self, keys: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, list[FileRow]]:
        """The versions of each key. A thread takes several keys at once: to hand one over takes longer than a look."""
        portions = list(_batches(keys, -(-len(keys) // self._threads) or 1))

        def look_up(portion: Sequence[str]) -> list[tuple[str, list[FileRow]]]:
            return [(key, self._index.versions(key)) for key in portion]

        return {key: versions for found in pool.map(look_up, portions) for key, versions in found}

    def _add(self, read: _Read, found: _Found) -> None:
        try:
            selection = read.selection
            if selection.guessed and found.versions[selection.text]:
                raise SelectionInvalid(
                    f"a key of this very name is archived, too: write key:{selection.text} or {selection.guessed}"
                )
            rows = self._rows(selection, found)
            if read.destination.exact:
                rows = iter(_only(rows))
            for row in rows:
                self._place(row, read)
        except SelectionInvalid as error:
            self.fail(Problem(line=read.line.number, source=read.line.source, reason=str(error)))

    def _rows(self, selection: Selection, found: _Found) -> Iterator[FileRow]:
        """The versions that are meant. Raises SelectionInvalid if there is none."""
        match selection.source:
            case OneKey() as source:
                yield _one(source, found)
            case OneMember() as source:
                identity = _identity(source, found.members[source.archive])
                if identity is None:
                    raise SelectionInvalid(f"not found: there is no such file; `neve archives {source.archive}`")
                if identity not in found.pinned:
                    raise SelectionInvalid(f"not found: it is {identity[0]!r} and not in the index (any more)")
                yield found.pinned[identity]
            case ManyKeys() as source:
                yield from self._many(source)
            case source:
                yield from self._whole(source.archive)

    def _many(self, source: ManyKeys) -> Iterator[FileRow]:
        none = True
        for key, versions in groupby(self._index.under(source.prefix), key=attrgetter("key")):
            row = current(versions, source.at) if source.matches(key) else None
            if row:
                none = False
                yield row
        if none:
            by_then = f" that was last modified by {source.at:%Y-%m-%d %H:%M:%S %Z}" if source.at else ""
            raise SelectionInvalid(f"not found: no archived key fits{by_then}; `neve ls PREFIX` lists what is archived")

    def _whole(self, archive: int) -> Iterator[FileRow]:
        manifest = self._manifest(archive)
        if manifest is None:
            raise SelectionInvalid("not found: there is no such archive; `neve archives` lists them")
        identities = [member.source.identity for member in manifest.members]
        rows = self._index.get(identities)
        yield from (rows[identity] for identity in identities if identity in rows)
        missing = len(identities) - len(rows)
        if missing:
            raise SelectionInvalid(f"not found: {missing:,} of its {len(identities):,} members are not in the index")

    def _place(self, row: FileRow, read: _Read) -> None:
        """Note where a version goes; two that would go to one place are a problem."""
        try:
            below, destination = self._destined(row.key, read.destination)
            added = self._spool.add(row, destination, line=read.line.number, below=below)
            if isinstance(added, Taken):
                other = f"line {added.line}" if added.line else "another file of this source"
                raise SelectionInvalid(
                    f"{row.key!r} version {row.version_id} would go where {other} goes: {destination}"
                )
        except SelectionInvalid as error:
            self.fail(Problem(line=read.line.number, source=read.line.source, reason=str(error)))
            return
        self._noted += 1
        if self._noted % NOTED == 0:
            self._found(self._noted)
        if not added:
            self.repeated += 1

    def _destined(self, key: str, destination: Destination) -> tuple[str, str]:
        """(the folder in which the file is to have its natural path, or ""; its destination as a job has it)."""
        if isinstance(destination, InBucket):
            return "", destination.place(key)
        folder, name = self._folder(destination)
        placed = in_folder(folder, name or folder_path(key))
        if len(local_path(placed).encode()) > PATH_BYTES:
            raise SelectionInvalid(f"the path would have more than {PATH_BYTES:,} bytes: {placed[:60]}...")
        return "" if name else folder or "/", placed

    def settle(self) -> None:
        """All lines have come: see to it that local files are not in each other's way, nor there already."""
        self._spool.settle()
        gone: list[int] = []
        for file in self._spool.ordered(Kind.LOCAL):
            stands = _stands(file)
            if stands is None or (not stands and self._overwrite):
                continue
            gone.append(file.id)
            if stands:
                self.already_there += 1
            else:
                reason = f"something else is there: {local_path(file.destination)}; --overwrite replaces it"
                self.fail(Problem(line=file.line, source=file.key, reason=reason))
        for number in gone:
            self._spool.remove(number)
        self._divide()

    # -- What it comes to

    def has_local_files(self) -> bool:
        """Whether anything goes to a local folder."""
        return next(self._spool.ordered(Kind.LOCAL), None) is not None

    def summary(self, need: Need, *, archives: Archives, thaws: Thaws, owner: str, now: datetime) -> Summary:
        """What the plan comes to, given the thaws as they stand. Raises Transient."""
        estimator = Estimator(need=need, owner=owner, now=now)

        def states(serial: int) -> tuple[ArchiveRow | None, Thaw | None]:
            return archives.get(serial), thaws.get(serial)

        number = 0
        with ThreadPoolExecutor(self._threads) as pool:
            for batch in _batches(self._spool.portions(), BATCH):
                for portion, (archive, thaw) in zip(batch, pool.map(states, [each[0] for each in batch]), strict=True):
                    serial, to_buckets, to_folders, reads, size_bytes = portion
                    number += 1
                    if archive is None:
                        reason = f"the index names archive {serial}, which does not exist: its files will not be found"
                        self.fail(Problem(line=0, source=f"archive:{serial}", reason=reason))
                        continue
                    by_kind = {Kind.S3: to_buckets, Kind.LOCAL: to_folders}
                    estimator.add(archive, thaw, Portion(files=by_kind, reads=reads, size_bytes=size_bytes))
        files, size_bytes, local_files = self._spool.totals()
        return Summary(
            files=files,
            local_files=local_files,
            size_bytes=size_bytes,
            archives=number,
            chunks=len(self._chunks),
            repeated=self.repeated,
            already_there=self.already_there,
            problems=self.problems,
            estimate=estimator.estimate(),
        )

    def _divide(self) -> None:
        """Divide what is wanted into chunks, and note what each share of them wants of its archive."""
        self._chunks = array("I")
        files: deque[Spooled] = deque()

        def wanted() -> Iterator[Wanted]:
            for file in self._spool.ordered():
                files.append(file)
                yield _wanted(file)

        for chunk in chunks(wanted()):
            self._chunks.append(len(chunk))
            of_chunk = (files.popleft() for _ in chunk)
            for (archive, kind), share in groupby(of_chunk, key=attrgetter("archive", "kind")):
                reads, number, size_bytes = Reads(), 0, 0
                for file in share:
                    reads.add(file.number, file.offset_bytes, file.size_bytes)
                    number += 1
                    size_bytes += file.size_bytes
                self._spool.add_portion(archive, kind, files=number, reads=reads.count, size_bytes=size_bytes)

    def chunks(self) -> Iterator[list[Wanted]]:
        """What is wanted, in portions for a message each: local files first, then by archive and number."""
        files = self._spool.ordered()
        for length in self._chunks:
            yield [_wanted(file) for file in islice(files, length)]

    def first(self, count: int) -> list[Spooled]:
        """The first files of the plan, to be shown."""
        return list(islice(self._spool.ordered(), count))

    def make_folders(self) -> None:
        """Make the folders that were named and are not there yet. Raises OSError."""
        made = ""
        for each in self._spool.ordered(Kind.LOCAL):
            folder, _ = split(each.destination)
            if folder != made:
                Path(folder).mkdir(parents=True, exist_ok=True)
                made = folder


def _wanted(file: Spooled) -> Wanted:
    return Wanted(key=file.key, pin=file.pin, destination=file.destination)


def _one(source: OneKey, found: _Found) -> FileRow:
    if _is_pinned(source):
        row = found.pinned.get((source.key, source.version_id))
    else:
        row = source.chosen(found.versions[source.key])
    if row:
        return row
    if source.version_id:
        raise SelectionInvalid(
            f"not found: version {source.version_id} is not archived; `neve find KEY` shows which are"
        )
    versions = found.versions[source.key]
    if versions and source.at:
        oldest = min(version.last_modified for version in versions)
        raise SelectionInvalid(
            f"not found: no archived version is from before {source.at:%Y-%m-%d %H:%M:%S %Z}; "
            f"the oldest was last modified at {oldest:%Y-%m-%d %H:%M:%S %Z}"
        )
    raise SelectionInvalid(
        "not found: no version is archived; `neve ls PREFIX` lists the keys near it, and `neve status` tells whether a "
        "late upload still waits"
    )


def _is_pinned(source: OneKey) -> bool:
    """Whether the version id alone names the row. Of those without an id, the ETag is a part of the name."""
    return source.version_id not in ("", NULL_VERSION)


def _identity(source: OneMember, manifest: Manifest | None) -> Identity | None:
    if manifest is None or source.number >= len(manifest.members):
        return None
    return manifest.members[source.number].source.identity


def _only(rows: Iterator[FileRow]) -> list[FileRow]:
    """The one row there is. Raises SelectionInvalid if there are more."""
    found = list(islice(rows, 2))
    if len(found) > 1:
        raise SelectionInvalid("the destination is that of one file, and the source has more: end it with a slash")
    return found


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, RuntimeError):
        return False


def _folder(destination: InFolder) -> tuple[str, str]:
    """(absolute path of the folder, "" if it is the root; name of the file, or "" if it is named by its key)."""
    try:
        path = Path(destination.path).expanduser()
        folder = str((path.parent if destination.exact else path).resolve()).rstrip("/")
        folder.encode()
    except UnicodeEncodeError as error:
        raise SelectionInvalid("the name of a folder above it is not UTF-8") from error
    except (OSError, RuntimeError) as error:
        raise SelectionInvalid(f"{destination.path} leads nowhere: {error}") from error
    if destination.exact and path.name in ("", ".."):
        raise SelectionInvalid(f"{destination.path} is no file's name")
    return folder, path.name if destination.exact else ""


def _stands(file: Spooled) -> bool | None:
    """Whether the bytes in a local file's place are its own; None if nothing is there, or nobody knows."""
    path = Path(local_path(file.destination))
    try:
        found = path.lstat()
        if not file.sha256:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
            return False
        with path.open("rb") as standing:
            return Proof(size_bytes=file.size_bytes, sha256=file.sha256).fits(standing.read)
    except OSError:
        return None  # mostly because nothing is there; all else is told when the file is to be put there


def _batches(values: Iterable[Each], size: int) -> Iterator[list[Each]]:
    values = iter(values)
    while batch := list(islice(values, size)):
        yield batch

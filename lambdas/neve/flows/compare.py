"""Compare what the content bucket, the index and the archive bucket say, shard by shard.

A Comparer is given a shard and a place in it; it goes on from there for as long as it may, and says where it ended. It
needs nothing from one call for the next and knows neither rows nor messages, so anything may drive it. For 10^8 objects
that may be a Distributed Map of Step Functions over the list that domain.reconcile.shards makes, archives first, each
item handing the place of one call to the next until it is done: that needs a handler of its own, and nothing here
changes.

Nothing here deletes. What is missing is announced to Collect, which archives nothing twice; a member's row that is
missing is inserted on the condition that none stands; a row that names a superseded archive moves to the one that
stands for it, on the condition that it still does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, groupby, islice, takewhile
from operator import attrgetter, itemgetter
from typing import TypeVar

from neve.domain.events import announcements
from neve.domain.index import ArchiveRow, ArchiveState, FileRow, is_cut, pointing
from neve.domain.index import rows as implied_rows
from neve.domain.manifest import Manifest
from neve.domain.reconcile import (
    Finding,
    Outcome,
    Pass,
    Place,
    Progress,
    Shard,
    ShardKind,
    Tally,
    is_ignored,
    is_md5,
    manifest_differs,
    md5_differs,
    rows_differ,
    size_differs,
)
from neve.domain.version import ObjectVersion
from neve.errors import (
    InventoryInvalid,
    ManifestInvalid,
    NeveError,
    SourceGone,
    SourceUnavailable,
)
from neve.ports import (
    ArchiveListing,
    Archives,
    ArchiveStore,
    Content,
    ContentListing,
    Files,
    Inventory,
    ListedObject,
    ParkingLot,
    Queue,
    StoredArchive,
)

CROWD = 1_000
"""Versions or rows of one key that are held in memory. Keys that have more are looked up batch by batch."""
BATCH = 100
"""Versions that are looked up one by one, at a time."""
LINES = 1_000
"""Lines of an inventory at a time."""
REPAIRS = 16
"""Archives that stand for others whose members are held in memory, by their hashes."""
BLOCK = 2_000
"""Serials whose rows are read at once to know which archives exist: about 1 MB, a page of DynamoDB."""

Held = Mapping[tuple[str, str], FileRow]
"""Rows by (key, pin)."""
Each = TypeVar("Each")
Answer = TypeVar("Answer")


@dataclass
class _Known:
    """Which archives there are, as read during the pass `of`: rows of files in the order of their keys name them all.

    `blocks` says by blocks of serials which archives have rows, a bit for each, `superseded` which are superseded and
    by which; `repairs` has the members of archives that stand for others, by SHA-256 and size.
    """

    of: str = ""
    blocks: dict[int, int] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    repairs: dict[int, Mapping[tuple[str, int], FileRow]] = field(default_factory=dict)


@dataclass
class _Step:
    """What one call of Comparer.advance gathers.

    `suspects` seem to have no row, `doubts` may have another MD5 than their rows: both are looked at once more before
    they count.
    """

    settled_before: datetime
    known: _Known
    fresh: bool = True
    tally: Tally = field(default_factory=Tally)
    suspects: list[ObjectVersion] = field(default_factory=list)
    doubts: list[tuple[ObjectVersion, FileRow]] = field(default_factory=list)


@dataclass(kw_only=True)
class Comparer:
    """Works off shards. Versions and archives younger than `grace` when the pass began may be without a row.

    Memory is bounded: at most CROWD versions and rows of one key, a page of each listing, and one bit an archive. The
    bits are kept for the next call that is of the same pass: ten million archives take minutes to read.
    """

    listing: ContentListing
    inventory: Inventory
    content: Content
    files: Files
    archives: Archives
    store: ArchiveStore
    archive_listing: ArchiveListing
    parking_lot: ParkingLot
    collect_queue: Queue
    bucket: str
    grace: timedelta
    threads: int
    clock: Callable[[], datetime]
    _known: _Known = field(default_factory=_Known, init=False, repr=False)

    def advance(self, of: Pass, shard: Shard, place: Place, *, until: datetime) -> Progress:
        """Go on with a shard from `place` until its end, or a little beyond `until`.

        The same place may be gone on from any number of times, side by side too: what is announced twice is archived
        once. Only of rows restored the second call counts none.
        """
        if self._known.of != of.id:
            self._known = _Known(of=of.id)
        fresh = shard.kind is ShardKind.CONTENT
        step = _Step(settled_before=of.begun_at - self.grace, fresh=fresh, known=self._known)
        match shard.kind:
            case ShardKind.CONTENT:
                return self._content(step, shard, place, until)
            case ShardKind.INVENTORY:
                return self._inventory(step, of, shard, place, until)
            case ShardKind.INDEX:
                return self._index(step, shard, place, until)
            case ShardKind.ARCHIVES:
                return self._archives(step, shard, place, until)

    # The content bucket and the index

    def _content(self, step: _Step, shard: Shard, place: Place, until: datetime) -> Progress:
        """Bucket and index in the order of keys, side by side.

        Rows of keys that the index cuts do not stand in that order: they are looked up, as far as they are listed.
        """
        after = place.key or shard.after
        listed = _ascending(self.listing.versions(after, place.version_id))
        versions = takewhile(lambda version: not shard.until or version.key <= shard.until, listed)
        for key, of_key, rows in _by_key(versions, self.files.between(after, shard.until)):
            some, held = list(islice(of_key, CROWD + 1)), list(islice(rows, CROWD + 1))
            if len(some) > CROWD or len(held) > CROWD:
                return self._crowd(step, key, chain(some, of_key), until)
            if not is_ignored(key):
                if is_cut(key):
                    self._compare(step, some, self._looked_up(some))
                else:
                    self._compare(step, some, {(key, row.pin): row for row in held})
                    self._gone(step, held, some)
            place = Place(key=key)
            if len(step.suspects) + len(step.doubts) >= BATCH:
                self._settle(step)
            if self.clock() >= until:
                self._settle(step)
                return step.tally.progress(place, done=False)
        self._settle(step)
        return step.tally.progress(place, done=True)

    def _crowd(self, step: _Step, key: str, versions: Iterator[ObjectVersion], until: datetime) -> Progress:
        """A key with very many versions, batch by batch. Of its rows only those are looked at that are listed.

        The step ends with the key, so that the next one opens the index behind it.
        """
        self._settle(step)
        while batch := list(islice(versions, BATCH)):
            if not is_ignored(key):
                self._compare(step, batch, self._looked_up(batch))
                self._settle(step)
            if self.clock() >= until:
                return step.tally.progress(Place(key=key, version_id=batch[-1].version_id), done=False)
        return step.tally.progress(Place(key=key), done=False)

    def _inventory(self, step: _Step, of: Pass, shard: Shard, place: Place, until: datetime) -> Progress:
        """A file of the inventory. It is a day old, or a week: what seems missing is looked for in the bucket."""
        lines = self.inventory.versions(of.inventory, shard.file, place.number)
        try:
            while batch := list(islice(lines, LINES)):
                versions = [version for _, version in batch if version is not None and not is_ignored(version.key)]
                self._compare(step, versions, self._looked_up(versions))
                self._settle(step)
                place = Place(number=batch[-1][0])
                if self.clock() >= until:
                    return step.tally.progress(place, done=False)
        except InventoryInvalid as error:
            step.tally.found(
                Finding(outcome=Outcome.INVENTORY_UNUSABLE, detail=f"file {shard.file} of {of.inventory}: {error}")
            )
        return step.tally.progress(place, done=True)

    def _index(self, step: _Step, shard: Shard, place: Place, until: datetime) -> Progress:
        """Where an inventory stands for the listing: does every row name an archive?"""
        for key, rows in groupby(self.files.between(place.key or shard.after, shard.until), attrgetter("key")):
            held = list(islice(rows, CROWD + 1))
            for row in held[:CROWD]:
                if not is_ignored(key) and not self._placed(step, row):
                    step.tally.found(_orphan(row))
            place = Place(key=key)
            if len(held) > CROWD or self.clock() >= until:
                return step.tally.progress(place, done=False)
        return step.tally.progress(place, done=True)

    def _looked_up(self, versions: Sequence[ObjectVersion]) -> Held:
        return self.files.get([version.identity for version in versions])

    def _compare(self, step: _Step, versions: Sequence[ObjectVersion], held: Held) -> None:
        for version in versions:
            row = held.get(version.identity)
            if row is None:
                step.suspects.append(version)
            else:
                self._compare_with(step, version, row)

    def _compare_with(self, step: _Step, version: ObjectVersion, row: FileRow) -> None:
        if not self._placed(step, row):
            step.tally.found(_orphan(row))
        elif wrong := size_differs(version, row):
            step.tally.found(_mismatch(version, row, wrong))
        elif md5_differs(version, row):
            step.doubts.append((version, row))
        else:
            step.tally.count(Outcome.RECONCILED)

    def _gone(self, step: _Step, held: Sequence[FileRow], versions: Sequence[ObjectVersion]) -> None:
        """Rows that no listed version has. Young ones may be of versions made since the page was read."""
        listed = {version.pin for version in versions}
        for row in held:
            if row.pin in listed:
                continue
            if not self._placed(step, row):
                step.tally.found(_orphan(row))
            elif row.last_modified < step.settled_before:
                step.tally.count(Outcome.SOURCE_GONE)

    def _settle(self, step: _Step) -> None:
        """Decide about what was in doubt. Whatever a place lies behind has to be settled before."""
        suspects, step.suspects = step.suspects, []
        if suspects:
            held = self._looked_up(suspects)
            for version in suspects:
                if version.identity in held:
                    self._compare_with(step, version, held[version.identity])
            self._without_row(step, [version for version in suspects if version.identity not in held])
        doubts, step.doubts = step.doubts, []
        for (version, row), outcome in zip(doubts, self._side_by_side(self._doubted, doubts), strict=True):
            if outcome is Outcome.MISMATCHING:
                step.tally.found(_mismatch(version, row, md5_differs(version, row)))
            else:
                step.tally.count(outcome)

    def _without_row(self, step: _Step, versions: Sequence[ObjectVersion]) -> None:
        """Versions that have no row: too young, parked, or to be collected again.

        One that waits in an unfinished bundle all this time is announced as well: Collect may note it twice, the index
        takes it once. What is parked waits for a person, who has it tried again by `neve parked --retry`.
        """
        old = [version for version in versions if version.event_at < step.settled_before]
        step.tally.count(Outcome.WAITING, len(versions) - len(old))
        if not step.fresh:
            there = self._side_by_side(self._stands, old)
            old = [version for version, stands in zip(old, there, strict=True) if stands]
        if not old:
            return
        parked = self.parking_lot.parked(old)
        step.tally.count(Outcome.PARKED, sum(version.identity in parked for version in old))
        missing = [version for version in old if version.identity not in parked]
        now = self.clock()  # when it is announced: Collect's patience and its metrics count from there
        for body in announcements(self.bucket, [replace(version, event_at=now) for version in missing]):
            self.collect_queue.send(body)
        for version in missing:
            made = f"made at {version.event_at:%Y-%m-%d %H:%M:%S} UTC, {version.size_bytes} bytes"
            step.tally.found(Finding(outcome=Outcome.MISSING, key=version.key, pin=version.pin, detail=made))

    def _stands(self, version: ObjectVersion) -> bool:
        """Whether the bucket has the version still. One that cannot be read will be parked by WriteArchive."""
        try:
            self.content.describe(version)
        except SourceGone:
            return False
        except SourceUnavailable:
            return True
        return True

    def _doubted(self, doubt: tuple[ObjectVersion, FileRow]) -> Outcome:
        """Whether an ETag that looks like an MD5 and is not that of the row is one."""
        version, _ = doubt
        try:
            source = self.content.describe(version)
        except SourceGone:
            return Outcome.SOURCE_GONE
        except SourceUnavailable:
            return Outcome.RECONCILED  # its size agrees, and more cannot be known
        return Outcome.MISMATCHING if is_md5(source) else Outcome.RECONCILED

    def _placed(self, step: _Step, row: FileRow) -> bool:
        """Whether the archive that a row names has a row. If it is superseded, the row moves on."""
        there = self._exists(step.known, row.archive)
        if row.archive in step.known.superseded:
            step.tally.count(Outcome.ROW_MOVED if self._moved(step.known, row) else Outcome.LEFT_BEHIND)
        return there

    def _moved(self, known: _Known, row: FileRow) -> bool:
        """Have a row name the archive that stands for the damaged one it names, if that has its bytes."""
        serial = row.archive
        while serial in known.superseded:
            serial = known.superseded[serial]
            if not self._exists(known, serial):  # it may be superseded itself
                return False
        if serial not in known.repairs:
            if len(known.repairs) == REPAIRS:
                known.repairs.clear()
            manifest, _ = self._manifest(serial)
            implied = implied_rows(manifest) if manifest is not None else []
            known.repairs[serial] = {(each.sha256, each.size_bytes): each for each in implied if each.sha256}
        member = known.repairs[serial].get((row.sha256, row.size_bytes))
        return member is not None and self.files.replace(row, pointing(row, member))

    def _exists(self, known: _Known, serial: int) -> bool:
        """Whether an archive has a row."""
        block, bit = divmod(serial, BLOCK)
        if block not in known.blocks:
            first = block * BLOCK
            rows = list(takewhile(lambda row: row.serial < first + BLOCK, self.archives.all(first=first)))
            known.blocks[block] = sum(1 << (row.serial - first) for row in rows)
            known.superseded.update((row.serial, row.superseded_by) for row in rows if row.superseded_by > row.serial)
        return bool(known.blocks[block] >> bit & 1) or self.archives.get(serial) is not None

    # Archives

    def _archives(self, step: _Step, shard: Shard, place: Place, until: datetime) -> Progress:
        """Rows, objects and manifests in the order of serials, side by side; several serials at once."""
        first = max(shard.first, place.number + 1)
        streams: tuple[Iterable[ArchiveRow | ListedObject], ...] = (
            self.archives.all(first=first),
            self.archive_listing.archives(first),
            self.archive_listing.manifests(first),
        )
        numbered = [_numbered(stream, number, shard) for number, stream in enumerate(streams)]
        groups = (
            (serial, [each for _, _, each in group])
            for serial, group in groupby(heapq.merge(*numbered, key=itemgetter(0, 1)), itemgetter(0))
        )
        while block := list(islice(groups, self.threads)):
            for tally in self._side_by_side(lambda each: self._archive(step, *each), block):
                step.tally.counts.update(tally.counts)
                for finding in tally.findings:
                    step.tally.keep(finding)
            place = Place(number=block[-1][0])
            if self.clock() >= until:
                return step.tally.progress(place, done=False)
        return step.tally.progress(place, done=True)

    def _archive(self, step: _Step, serial: int, stated: Sequence[ArchiveRow | ListedObject]) -> Tally:
        """One serial: its row, if it has one, and what is listed under it."""
        row = next((each for each in stated if isinstance(each, ArchiveRow)), None) or self.archives.get(serial)
        listed = [each for each in stated if isinstance(each, ListedObject)]
        tally = Tally()
        if row is None:
            self._unclaimed(step, serial, listed, tally)
        elif row.superseded_by:
            tally.count(Outcome.SUPERSEDED)
        elif row.state is ArchiveState.WRITTEN and row.written_at >= step.settled_before:
            tally.count(Outcome.WAITING)
        else:
            self._claimed(step, row, tally)
            if not tally.findings:
                tally.count(Outcome.ARCHIVE_RECONCILED)
        return tally

    def _claimed(self, step: _Step, row: ArchiveRow, tally: Tally) -> None:
        """An archive that has a row."""

        def found(outcome: Outcome, detail: str) -> None:
            tally.found(Finding(outcome=outcome, archive=row.serial, detail=detail))

        stored = self.store.head(row.object_key)
        if stored is None:
            found(Outcome.OBJECT_MISSING, f"there is no {row.object_key}")
        elif wrong := _object_differs(row, stored):
            found(Outcome.OBJECT_MISMATCHING, wrong)
        manifest, unreadable = self._manifest(row.serial)
        if manifest is None:
            found(Outcome.MANIFEST_MISMATCHING if unreadable else Outcome.MANIFEST_MISSING, unreadable)
        elif wrong := _manifest_differs(manifest, row, stored):
            found(Outcome.MANIFEST_MISMATCHING, wrong)
        sound = not tally.findings
        if row.state is ArchiveState.WRITTEN:
            found(Outcome.UNFINISHED, f"written at {row.written_at:%Y-%m-%d %H:%M:%S} UTC, and its rows not finished")
        if manifest is not None:
            self._members(step, manifest, tally, sound=sound)

    def _members(self, step: _Step, manifest: Manifest, tally: Tally, *, sound: bool) -> None:
        """The members' rows. Those that are missing are inserted, if all else agrees about the archive."""

        def found(outcome: Outcome, row: FileRow, detail: str = "") -> None:
            tally.found(Finding(outcome=outcome, archive=manifest.archive, key=row.key, pin=row.pin, detail=detail))

        implied = implied_rows(manifest)
        held = self._rows_of(implied)
        missing = [each for each in implied if (each.key, each.pin) not in held]
        for each in implied:
            row = held.get((each.key, each.pin))
            if row is not None and row.archive == manifest.archive:
                if wrong := rows_differ(row, each):
                    found(Outcome.INDEX_WRONG, each, wrong)
            elif row is not None and self._exists(step.known, row.archive):
                tally.count(Outcome.DUPLICATE)
            # else it is missing, or an orphaned row, which the shards of keys count
        refused = self.files.record(missing) if missing and sound else []
        tally.count(Outcome.DUPLICATE, len(refused))
        for each in missing:
            if each not in refused:
                found(Outcome.ROW_RESTORED if sound else Outcome.ROW_MISSING, each)

    def _rows_of(self, implied: Sequence[FileRow]) -> Held:
        """The rows that stand where these should, read at half the price; what seems wrong is read once more."""
        held = self.files.get([(each.key, each.pin) for each in implied], consistent=False)
        right = {
            (each.key, each.pin): row
            for each in implied
            if (row := held.get((each.key, each.pin))) and row.archive == each.archive and not rows_differ(row, each)
        }
        doubted = [(each.key, each.pin) for each in implied if (each.key, each.pin) not in right]
        return right | dict(self.files.get(doubted)) if doubted else right

    def _unclaimed(self, step: _Step, serial: int, listed: Sequence[ListedObject], tally: Tally) -> None:
        """Objects under a serial that has no row. Bundles that became void leave a manifest, and perhaps an archive."""
        archive = next((each for each in listed if each.key.startswith("archives/")), None)
        if any(each.modified >= step.settled_before for each in listed):
            tally.count(Outcome.WAITING)
        elif archive is None or self._needless(step, serial):
            tally.count(Outcome.VOID)
        else:
            manifest, unreadable = self._manifest(serial)
            detail = archive.key
            if manifest is None:
                detail += f", {unreadable or 'and there is no manifest'}: neve rebuild-index --from-archives"
            tally.found(Finding(outcome=Outcome.ARCHIVE_WITHOUT_ROW, archive=serial, detail=detail))

    def _needless(self, step: _Step, serial: int) -> bool:
        """Whether every file of an archive without a row is in another archive, by its row."""
        manifest, _ = self._manifest(serial)
        if manifest is None:
            return False
        identities = [member.source.identity for member in manifest.members]
        held = self.files.get(identities)
        archives = [held[identity].archive if identity in held else serial for identity in identities]
        return all(each != serial and self._exists(step.known, each) for each in archives)

    def _manifest(self, serial: int) -> tuple[Manifest | None, str]:
        """The manifest; None if there is none, or why it cannot be read."""
        try:
            return self.store.manifest(serial), ""
        except ManifestInvalid as error:
            return None, f"its manifest cannot be read: {error}"

    def _side_by_side(self, ask: Callable[[Each], Answer], several: Sequence[Each]) -> list[Answer]:
        if len(several) < 2:
            return [ask(each) for each in several]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(ask, several))


def _ascending(versions: Iterable[ObjectVersion]) -> Iterator[ObjectVersion]:
    """`versions`; were they not in order, everything compared would be wrong. Characters sort as their UTF-8 does."""
    last = ""
    for version in versions:
        if version.key < last:
            raise NeveError(f"the listing of the content bucket is out of order: {version.key!r} after {last!r}")
        last = version.key
        yield version


def _by_key(
    versions: Iterable[ObjectVersion], rows: Iterable[FileRow]
) -> Iterator[tuple[str, Iterator[ObjectVersion], Iterator[FileRow]]]:
    """Each key that stands in one of two streams ordered by key, with what they have of it.

    What is left unread of a key is skipped when the next one is asked for.
    """
    listed, indexed = groupby(versions, attrgetter("key")), groupby(rows, attrgetter("key"))
    version, row = next(listed, None), next(indexed, None)
    while version or row:
        key = min(group[0] for group in (version, row) if group)
        here = version if version and version[0] == key else None
        there = row if row and row[0] == key else None
        yield key, here[1] if here else iter(()), there[1] if there else iter(())
        version = next(listed, None) if here else version
        row = next(indexed, None) if there else row


def _numbered(
    stream: Iterable[ArchiveRow | ListedObject], number: int, shard: Shard
) -> Iterator[tuple[int, int, ArchiveRow | ListedObject]]:
    """What of a stream, the `number`th, is in the shard: serial, number, what it is. Foreign keys are left out."""
    for each in stream:
        if shard.last and each.serial > shard.last:
            return
        if each.serial:
            yield each.serial, number, each


def _orphan(row: FileRow) -> Finding:
    detail = f"file {row.number} of an archive that has no row"
    return Finding(outcome=Outcome.ORPHANED_ROW, archive=row.archive, key=row.key, pin=row.pin, detail=detail)


def _mismatch(version: ObjectVersion, row: FileRow, detail: str) -> Finding:
    return Finding(outcome=Outcome.MISMATCHING, archive=row.archive, key=version.key, pin=version.pin, detail=detail)


def _object_differs(row: ArchiveRow, stored: StoredArchive) -> str:
    """How the object contradicts the archive's row; "" if it does not."""
    pairs = (
        ("size", row.size_bytes, stored.size_bytes),
        ("storage class", row.storage_class, stored.storage_class),
        ("version id", row.object_version_id, stored.version_id),
        ("SHA-256", row.sha256, stored.sha256 if row.sha256 else ""),
    )
    wrong = [f"{name} {there or 'none'}, its row {stated}" for name, stated, there in pairs if there != stated]
    return f"{row.object_key} has {'; '.join(wrong)}" if wrong else ""


def _manifest_differs(manifest: Manifest, row: ArchiveRow, stored: StoredArchive | None) -> str:
    """How the manifest contradicts the archive's row, or its object's CRC64NVME; "" if it does not."""
    wrong = manifest_differs(
        manifest, object_key=row.object_key, size_bytes=row.size_bytes, sha256=row.sha256, files=row.files
    )
    crc = stored.checksums.get("CRC64NVME", "") if stored else ""
    if crc and manifest.object_crc64nvme and crc != manifest.object_crc64nvme:
        wrong = wrong or "the manifest states another CRC64NVME than S3 does of the object"
    return wrong

"""Extract: bring the files that wait for a thawed archive to where they are wanted.

The bytes of each member are read by range, checked against the manifest's SHA-256, and only then put in place, nothing
that differs being replaced. A version that this makes in the content bucket gets its row at once, naming the member it
came from: so it is not archived a second time. A share is ended when all of its files have; until then everything may
be done again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from neve.domain.events import DRILL_PREFIX
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.manifest import Manifest, Member
from neve.domain.parked import Parked, Reason
from neve.domain.ranges import Read, reads
from neve.domain.restore import (
    Ending,
    Item,
    JobState,
    Kind,
    Result,
    Share,
    Thawed,
    ThawRequest,
    bucket_of,
    key_of,
    render_thaw_request,
    render_thawed,
)
from neve.domain.thaw import ThawState, needs_thaw
from neve.domain.version import pin_of
from neve.errors import ArchiveUnreadable, Asleep, ManifestInvalid, NeveError, SourceDamaged, Transient
from neve.flows.jobs import JobEnder, all_ended
from neve.flows.thaw import mark_warm
from neve.ports import (
    ArchiveReader,
    Archives,
    ArchiveStore,
    Destination,
    Files,
    ParkingLot,
    Placed,
    Queue,
    Restores,
    Thaws,
)

READERS = 8
"""Reads in memory at a time, each of a few MB or of one larger member."""
MARGIN = timedelta(seconds=30)
"""What a share of 500 small files may take; another one is begun only if so much time is left. The first always is."""
CLOCKS = timedelta(seconds=5)
"""By so much S3's clock may differ from the function's."""
ASLEEP_S = 60
"""S3 called an archive thawed and then asleep: time for it to make up its mind."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What became of the shares that waited for an archive. `read_bytes` came from the archive, over `reads` requests,
    for files of `wanted_bytes`; those that were restored have `restored_bytes`. `left` shares are still to do, and a
    message has been sent for them.
    """

    shares: int = 0
    reads: int = 0
    read_bytes: int = 0
    wanted_bytes: int = 0
    restored_bytes: int = 0
    endings: Mapping[Ending, int] = field(default_factory=dict)
    left: int = 0

    def __add__(self, other: Extracted) -> Extracted:
        return Extracted(
            shares=self.shares + other.shares,
            reads=self.reads + other.reads,
            read_bytes=self.read_bytes + other.read_bytes,
            wanted_bytes=self.wanted_bytes + other.wanted_bytes,
            restored_bytes=self.restored_bytes + other.restored_bytes,
            endings={
                ending: count
                for ending in Ending
                if (count := self.endings.get(ending, 0) + other.endings.get(ending, 0))
            },
            left=self.left + other.left,
        )


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Extract's rules over its ports, for the shares of one kind. `bucket` is the content bucket's name.

    `on_result` is told of each file as it ends. With `job`, only that job's shares are extracted.
    """

    archives: Archives
    store: ArchiveStore
    files: Files
    restores: Restores
    thaws: Thaws
    reader: ArchiveReader
    destination: Destination
    kind: Kind
    parking_lot: ParkingLot
    requests_queue: Queue
    extract_queue: Queue
    ender: JobEnder
    bucket: str
    threads: int
    clock: Callable[[], datetime]
    on_result: Callable[[Result], None] = lambda _: None
    job: str = ""

    def thawed(self, message: Thawed, *, owner: str, until: datetime) -> Extracted:
        """An archive can be read: note it, if it is S3 who says so, then extract what waits. Raises as extract."""
        if message.until:
            now = self.clock()
            mark_warm(self.thaws, message.archive, until=message.until, now=now, requests_queue=self.requests_queue)
        return self.extract(message.archive, owner=owner, until=until)

    def extract(self, serial: int, *, owner: str, until: datetime) -> Extracted:
        """Extract what waits for the archive and nobody else extracts.

        `owner` names this invocation, which ends by `until`. Raises Transient if it is worth trying again.
        """
        waiting = [
            share for share in self.restores.waiting(serial) if share.kind is self.kind and self.job in ("", share.job)
        ]
        if not waiting:
            return Extracted()
        # Those never begun first: one that breaks every process that begins it must not hold back the others.
        waiting.sort(key=lambda share: (share.first_leased_at is not None, share.first_leased_at, share.id))
        archive = self.archives.get(serial)
        if archive is None:
            raise NeveError(f"files wait for archive {serial}, which has no row: restore the table `archives`")
        manifest = self._manifest(serial)
        total = Extracted()
        failed: Exception | None = None
        for number, share in enumerate(waiting):
            if number and self.clock() + MARGIN > until:
                self.extract_queue.send(render_thawed(serial))
                total += Extracted(left=len(waiting) - number)
                break
            leased = self.restores.lease(share, owner=owner, now=self.clock(), until=until)
            if leased is None:
                continue  # it has ended, or whoever extracts it has a message of its own
            try:
                done = self._share(leased, archive, manifest, owner, until)
            except Asleep:
                self.restores.release(leased, owner=owner)
                self._thaw_again(archive, share)
                total += Extracted(left=len(waiting) - number)
                break
            except Exception as error:  # noqa: BLE001  # raised below: no share holds back the others
                with suppress(Transient):  # the lease ends by itself
                    self.restores.release(leased, owner=owner)
                failed = failed or error
                continue
            total += done
            if done.left:
                self.restores.release(leased, owner=owner)
                self.extract_queue.send(render_thawed(serial))
                break
        if failed is not None:
            raise failed
        return total

    def _share(
        self, share: Share, archive: ArchiveRow, manifest: Manifest | None, owner: str, until: datetime
    ) -> Extracted:
        job = self.restores.job(share.job)
        if job is None or job.state is JobState.FINISHED or job.cancelled_at:
            results = all_ended(share.items, Ending.CANCELLED, "the job was cancelled")
            return self._finish(share, results, owner, Extracted())
        overwrite = job.created_at if share.overwrite else None
        members, results = _matched(share.items, manifest)
        for result in results:
            self._park(archive, result)
        if manifest is not None and manifest.kind == "object":
            done = self._object(share, archive, members, overwrite, until)
        else:
            done = self._members(share, archive, members, overwrite)
        if done is None:
            return Extracted(left=1)
        extracted, endings = done
        return self._finish(share, results + endings, owner, extracted)

    def _finish(self, share: Share, results: list[Result], owner: str, extracted: Extracted) -> Extracted:
        """End the share, and its job if this was the last."""
        if not self.restores.finish(share, results, owner=owner, now=self.clock()):
            return extracted  # the lease ran out, and who took it over counts the files
        for result in results:
            self.on_result(result)
        self.ender.end(share.job)
        counts = {ending: sum(result.ending is ending for result in results) for ending in Ending}
        restored = sum(result.item.size_bytes for result in results if result.ending is Ending.RESTORED)
        return extracted + Extracted(shares=1, restored_bytes=restored, endings=counts)

    def _members(
        self,
        share: Share,
        archive: ArchiveRow,
        members: Mapping[int, tuple[Member, list[Item]]],
        overwrite: datetime | None,
    ) -> tuple[Extracted, list[Result]]:
        """Bring the members of a tar home."""
        planned = reads(member for member, _ in members.values())
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(self.threads) as putters:

            def bring(read: Read) -> list[Result]:
                bodies = self._bodies(read, archive)
                puts = [
                    putters.submit(self._put, share, archive, member, item, bodies[member.number], overwrite)
                    for member in read.members
                    for item in members[member.number][1]
                ]
                return [put.result() for put in puts]

            results = [result for ended in readers.map(bring, planned) for result in ended]
            empty = [
                putters.submit(self._put, share, archive, member, item, b"", overwrite)
                for member, items in members.values()
                if not member.source.size_bytes
                for item in items
            ]
            results += [put.result() for put in empty]
        extracted = Extracted(
            reads=len(planned),
            read_bytes=sum(read.size_bytes for read in planned),
            wanted_bytes=sum(member.source.size_bytes for member, _ in members.values()),
        )
        return extracted, results

    def _bodies(self, read: Read, archive: ArchiveRow) -> dict[int, bytes | str]:
        """The bytes of the members of a read; in the place of those that are damaged, what is wrong with them.

        What does not fit its hash is read once more: it may have been the transfer.
        """
        bodies: dict[int, bytes | str] = {}
        for _ in range(2):
            try:
                body = self.reader.read(archive, read.first, read.last)
            except ArchiveUnreadable as error:
                return {member.number: str(error) for member in read.members}
            bodies = {member.number: _checked(read.slice(body, member), member) for member in read.members}
            if not any(isinstance(each, str) for each in bodies.values()):
                break
        return bodies

    def _put(  # noqa: PLR0917  # called by the pool
        self,
        share: Share,
        archive: ArchiveRow,
        member: Member,
        item: Item,
        body: bytes | str,
        overwrite: datetime | None,
    ) -> Result:
        """Put one file in its place."""
        if isinstance(body, str):
            damaged = Result(item=item, ending=Ending.DAMAGED, detail=body)
            self._park(archive, damaged)
            return damaged
        placed = self.destination.put(item, member.source, body, overwrite=overwrite)
        return self._placed(share, archive, member, item, placed)

    def _object(
        self,
        share: Share,
        archive: ArchiveRow,
        members: Mapping[int, tuple[Member, list[Item]]],
        overwrite: datetime | None,
        until: datetime,
    ) -> tuple[Extracted, list[Result]] | None:
        """Bring a large object home, which is the whole archive; None if the time did not suffice."""
        results: list[Result] = []
        for member, items in members.values():
            for item in items:
                try:
                    placed = self.destination.copy(item, member.source, archive, overwrite=overwrite, until=until)
                except (ArchiveUnreadable, SourceDamaged) as error:
                    results.append(Result(item=item, ending=Ending.DAMAGED, detail=str(error)))
                    self._park(archive, results[-1])
                    continue
                if placed is None:
                    return None
                results.append(self._placed(share, archive, member, item, placed))
        return Extracted(), results

    def _placed(self, share: Share, archive: ArchiveRow, member: Member, item: Item, placed: Placed) -> Result:
        """How a file ended, and the row of the version it has become.

        An identical object that was put there since this share was begun is its own work, or that of another share for
        the same file, cut short before this could be noted.
        """
        if placed.refused:
            return Result(item=item, ending=Ending.REFUSED, detail=placed.refused)
        if placed.conflict:
            return Result(item=item, ending=Ending.CONFLICT, detail=placed.conflict)
        if placed.identical and not _since(placed.modified, share.first_leased_at):
            return Result(item=item, ending=Ending.SKIPPED, detail="an identical object is there")
        if bucket_of(item.destination) == self.bucket and placed.version_id:
            self._index(archive, member, key_of(item.destination), placed)
        detail = "S3 states no checksum that the archive has, too" if placed.unproven else ""
        return Result(item=item, ending=Ending.RESTORED, detail=detail)

    def _index(self, archive: ArchiveRow, member: Member, key: str, placed: Placed) -> None:
        if key.startswith(DRILL_PREFIX):
            return  # Collect passes it over
        self.files.record(
            [
                FileRow(
                    key=key,
                    version_id=placed.version_id,
                    pin=pin_of(placed.version_id, placed.etag),
                    size_bytes=member.source.size_bytes,
                    sha256=member.source.sha256,
                    md5=member.source.md5,
                    last_modified=placed.modified or self.clock(),
                    archive=archive.serial,
                    number=member.number,
                    offset_bytes=member.offset_bytes,
                )
            ]
        )

    def _manifest(self, serial: int) -> Manifest | None:
        with suppress(ManifestInvalid):
            return self.store.manifest(serial)
        return None

    def _thaw_again(self, archive: ArchiveRow, share: Share) -> None:
        """S3 says that the archive sleeps. Unless a thaw runs already, whose event will come, it is asked for anew."""
        if not needs_thaw(archive.storage_class):
            raise NeveError(f"{archive.object_key} sleeps, though its row says {archive.storage_class}: who moved it?")
        thaw = self.thaws.get(archive.serial)
        if thaw is not None and thaw.state is not ThawState.WARM:
            return
        if thaw is None or self.thaws.drop(thaw):
            request = ThawRequest(archive=archive.serial, need=share.need)
            self.requests_queue.send(render_thaw_request(request), delay_s=ASLEEP_S)

    def _park(self, archive: ArchiveRow, damaged: Result) -> None:
        item = damaged.item
        self.parking_lot.park(
            Parked(
                reason=Reason.ARCHIVE_DAMAGED,
                detail=f"{item.key!r} version {item.pin}: {damaged.detail}",
                parked_at=self.clock(),
                evidence=f"archive {archive.serial}, member {item.number}",
            )
        )


def _matched(
    items: Iterable[Item], manifest: Manifest | None
) -> tuple[dict[int, tuple[Member, list[Item]]], list[Result]]:
    """The items by the member that they want; and the results of those that the manifest does not hold.

    The version need not be the member's: what was restored into the content bucket is a version that came from it.
    """
    matched: dict[int, tuple[Member, list[Item]]] = {}
    missing: list[Result] = []
    wanted: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        wanted[item.number].append(item)
    for number, these in sorted(wanted.items()):
        member = manifest.members[number] if manifest is not None and number < len(manifest.members) else None
        agreed = [item for item in these if member is not None and _agree(item, member)]
        what = "the manifest is gone, or cannot be read" if manifest is None else "the index is wrong, or the manifest"
        missing += all_ended((item for item in these if item not in agreed), Ending.DAMAGED, what)
        if member is not None and agreed:
            matched[number] = (member, agreed)
    return matched, missing


def _agree(item: Item, member: Member) -> bool:
    """Whether index and manifest speak of the same bytes."""
    return item.size_bytes == member.source.size_bytes and member.source.sha256.startswith(item.sha256_head)


def _checked(body: bytes, member: Member) -> bytes | str:
    """`body`, if it has the member's SHA-256; what is wrong if it has not."""
    found = hashlib.sha256(body).hexdigest()
    if found == member.source.sha256:
        return body
    return f"the bytes read have SHA-256 {found[:12]}..., the manifest says {member.source.sha256[:12]}..."


def _since(modified: datetime | None, begun: datetime | None) -> bool:
    return modified is not None and begun is not None and modified >= begun - CLOCKS

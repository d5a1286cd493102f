"""PlanRestore: look up where each wanted version lies, write down what waits, then have the archives thawed.

The order is the point: a thaw is asked for only when what waits for it stands, so that the quickest event finds it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from neve.domain.index import ArchiveRow, FileRow, newest
from neve.domain.restore import (
    SHA256_HEAD,
    Ending,
    Item,
    JobState,
    Kind,
    Request,
    Result,
    Share,
    ThawRequest,
    Wanted,
    bucket_of,
    key_of,
    render_thawed,
)
from neve.domain.thaw import Step, offered
from neve.domain.version import KEY_LIMIT
from neve.errors import ArchiveUnreadable, EventInvalid, OverCap
from neve.flows.jobs import JobEnder, end_unfetched
from neve.flows.thaw import Thawer
from neve.ports import Archives, Files, Restores

THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What became of a chunk. `steps` counts what was done about each archive."""

    files: int = 0
    shares: int = 0
    unplaced: int = 0
    steps: Mapping[Step, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RestorePlanner:
    """PlanRestore's rules over its ports. `destination_buckets` are those that Extract may write to."""

    files: Files
    archives: Archives
    restores: Restores
    thawer: Thawer
    ender: JobEnder
    destination_buckets: frozenset[str]
    clock: Callable[[], datetime]

    def plan(self, request: Request, *, owner: str) -> Planned:
        """Plan one chunk, whatever an earlier try has already done.

        Raises EventInvalid if the chunk comes after its job was ended without it, Transient and Busy as Thawer.ensure:
        then the same message does what is left.
        """
        job = self.restores.open(request.opened())
        if job.state is JobState.FINISHED and not job.missing_chunks:
            return Planned()
        wanted = list(dict.fromkeys(request.items))
        archives, items, unplaced = self._place(wanted, request)
        shares = self.restores.planned(
            job.id, request.chunk, shares=_shares(request, items), results=unplaced, now=self.clock()
        )
        if shares is None:
            if job.cancelled_at:
                return Planned()
            raise EventInvalid(f"chunk {request.chunk} came after job {job.id} was given up: restore its files again")
        waiting = self.restores.add(shares)
        archives |= self._archives({share.archive for share in shares} - archives.keys())  # an earlier try's
        steps: Counter[Step] = Counter()
        if self._over(job.id):
            self._end(waiting, Ending.CANCELLED, "the job was cancelled, or given up, before this was planned", owner)
        else:
            self._thaw(waiting, archives, owner, steps)
        self.ender.end(job.id)
        return Planned(files=len(wanted), shares=len(shares), unplaced=len(unplaced), steps=steps)

    def thaw(self, request: ThawRequest, *, owner: str) -> Step:
        """Have an archive thawed that something still waits for. Raises as Thawer.ensure, and EventInvalid.

        Over the day's cap it goes on waiting, unless no day's cap is enough for it.
        """
        archive = self.archives.get(request.archive)
        if archive is None:
            raise EventInvalid(f"there is no archive {request.archive}")
        try:
            return self.thawer.ensure(archive, request.need, owner=owner)
        except ArchiveUnreadable as error:
            self._unreadable(archive.serial, str(error), owner)
            return Step.READ
        except OverCap as error:
            if not self.thawer.affordable(archive, request.need):  # tomorrow neither
                self._end_with_jobs(self.restores.waiting(archive.serial), Ending.OVER_CAP, str(error), owner)
            raise

    def _place(
        self, wanted: Sequence[Wanted], request: Request
    ) -> tuple[dict[int, ArchiveRow], dict[tuple[int, Kind], list[Item]], list[Result]]:
        """The archives needed, the items by archive and kind, and the results of what needs no archive."""
        rows = self._rows(wanted)
        archives = self._archives({row.archive for row in rows.values()})
        items: dict[tuple[int, Kind], list[Item]] = defaultdict(list)
        unplaced: list[Result] = []
        for each in wanted:
            row = rows.get(each)
            item = Item(
                key=each.key,
                pin=row.pin if row else each.pin,
                number=row.number if row else 0,
                size_bytes=row.size_bytes if row else 0,
                destination=each.destination,
                sha256_head=row.sha256[:SHA256_HEAD] if row else "",
            )
            archive = archives.get(row.archive) if row else None
            refusal = self._refusal(each, row, archive, request)
            if refusal:
                unplaced.append(Result(item=item, ending=refusal[0], detail=refusal[1]))
            elif row:
                items[row.archive, each.kind].append(item)
        return archives, items, unplaced

    def _refusal(
        self, wanted: Wanted, row: FileRow | None, archive: ArchiveRow | None, request: Request
    ) -> tuple[Ending, str] | None:
        """Why an item ends before it has begun; None if it can be fetched."""
        bucket = bucket_of(wanted.destination)
        if wanted.kind is Kind.S3 and bucket not in self.destination_buckets:
            return Ending.REFUSED, f"the stack may not write to {bucket}: add it to the setting restore_buckets"
        if wanted.kind is Kind.S3 and not 0 < len(key_of(wanted.destination).encode()) <= KEY_LIMIT:
            return Ending.REFUSED, f"a key has 1 to {KEY_LIMIT} bytes"
        if row is None:
            return Ending.NOT_FOUND, "no such version is archived"
        if archive is None:
            return Ending.NOT_FOUND, f"the index names archive {row.archive}, which does not exist"
        if not offered(archive.storage_class, request.need.tier):
            return Ending.TIER_REFUSED, f"{archive.storage_class} has no tier {request.need.tier}: take a slower one"
        return None

    def _rows(self, wanted: Sequence[Wanted]) -> dict[Wanted, FileRow]:
        """The row of each wanted version that is archived."""
        pinned = self.files.get(list({(each.key, each.pin) for each in wanted if each.pin}))
        unpinned = sorted({each.key for each in wanted if not each.pin})
        with ThreadPoolExecutor(THREADS) as pool:
            latest = dict(zip(unpinned, pool.map(lambda key: newest(self.files.versions(key)), unpinned), strict=True))
        found = ((each, pinned.get((each.key, each.pin)) if each.pin else latest[each.key]) for each in wanted)
        return {each: row for each, row in found if row is not None}

    def _archives(self, serials: Iterable[int]) -> dict[int, ArchiveRow]:
        ordered = sorted(serials)
        with ThreadPoolExecutor(THREADS) as pool:
            rows = zip(ordered, pool.map(self.archives.get, ordered), strict=True)
            return {serial: row for serial, row in rows if row is not None}

    def _over(self, job_id: str) -> bool:
        """Whether nothing more is to be fetched. A chunk that was counted may come again after its job was given up.

        Read after the shares were added: who cancels first notes it, and then ends what it finds.
        """
        job = self.restores.job(job_id)
        return job is not None and (job.cancelled_at is not None or job.state is JobState.FINISHED)

    def _thaw(
        self, shares: Sequence[Share], archives: Mapping[int, ArchiveRow], owner: str, steps: Counter[Step]
    ) -> None:
        """Have each share's archive thawed. One for which this fails holds back none of the others."""
        failed: Exception | None = None
        for share in shares:
            try:
                steps[self.thawer.ensure(archives[share.archive], share.need, owner=owner)] += 1
            except OverCap as error:
                self._end([share], Ending.OVER_CAP, str(error), owner)
            except ArchiveUnreadable as error:
                self._unreadable(share.archive, str(error), owner)
            except Exception as error:  # noqa: BLE001  # raised below
                failed = failed or error
        if failed is not None:
            raise failed

    def _unreadable(self, archive: int, detail: str, owner: str) -> None:
        """An archive's object is gone. Extract finds that, too, and parks each file; those of folders end here."""
        local = [share for share in self.restores.waiting(archive) if share.kind is Kind.LOCAL]
        self._end_with_jobs(local, Ending.DAMAGED, detail, owner)
        self.thawer.extract_queue.send(render_thawed(archive))

    def _end_with_jobs(self, shares: Sequence[Share], ending: Ending, detail: str, owner: str) -> None:
        """End shares of any jobs, and the jobs of which they were the last."""
        self._end(shares, ending, detail, owner)
        for job_id in {share.job for share in shares}:
            self.ender.end(job_id)

    def _end(self, shares: Sequence[Share], ending: Ending, detail: str, owner: str) -> None:
        end_unfetched(self.restores, shares, ending, detail, owner=owner, clock=self.clock)


def _shares(request: Request, items: Mapping[tuple[int, Kind], Sequence[Item]]) -> list[Share]:
    return [
        Share(
            job=request.job,
            chunk=request.chunk,
            archive=archive,
            kind=kind,
            need=request.need,
            overwrite=request.overwrite,
            items=tuple(members),
            files=len(members),
            size_bytes=sum(item.size_bytes for item in members),
        )
        for (archive, kind), members in sorted(items.items())
    ]

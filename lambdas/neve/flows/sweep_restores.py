"""SweepRestores: ask S3 about thaws whose event did not come, and move on jobs that stand still.

It asks for no thaw itself: PlanRestore does, which knows the pace and the price.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from neve.domain.index import ArchiveRow
from neve.domain.restore import (
    Ending,
    Job,
    JobState,
    Kind,
    Share,
    ThawRequest,
    render_thaw_request,
    render_thawed,
)
from neve.domain.thaw import GLANCE, MARGIN, PATIENCE, Need, Thaw, ThawState, needs_thaw, warmed
from neve.errors import ArchiveUnreadable
from neve.flows.jobs import JobEnder, end_unfetched
from neve.ports import Archives, CopyStatus, Glacier, Queue, Restores, Thaws

CHUNKS_WITHIN = timedelta(days=1)
"""A chunk that has not come by then was never sent, or waits in a dead-letter queue."""
THREADS = 16
EXPIRED = "the thawed copy expired before it was fetched: `neve restore --resume` asks for it again"
CANCELLED = "the job was cancelled"


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What the sweep found: thaws that are `overdue` and still run; `thawed` without a word; `lost` ones that S3 knows
    nothing of; `moved` archives that nothing would have happened to any more; `expired` local files; `ended` jobs.
    """

    overdue: int = 0
    thawed: int = 0
    lost: int = 0
    moved: int = 0
    expired: int = 0
    ended: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            overdue=self.overdue + other.overdue,
            thawed=self.thawed + other.thawed,
            lost=self.lost + other.lost,
            moved=self.moved + other.moved,
            expired=self.expired + other.expired,
            ended=self.ended + other.ended,
        )


@dataclass(frozen=True, kw_only=True)
class RestoreSweeper:
    """The sweep's rules over its ports."""

    archives: Archives
    restores: Restores
    thaws: Thaws
    glacier: Glacier
    requests_queue: Queue
    extract_queue: Queue
    ender: JobEnder
    clock: Callable[[], datetime]

    def sweep(self, *, owner: str) -> Swept:
        """Look at every thaw and every job that is due. Whatever ends this sweep, the next one has less to do."""
        total = Swept()
        for thaw in self.thaws.due(self.clock()):
            total += self._warm(thaw, owner) if thaw.state is ThawState.WARM else self._cold(thaw)
        for job in self.restores.due(self.clock()):
            total += self._job(job, owner)
        return total

    def _cold(self, thaw: Thaw) -> Swept:
        """A claim whose maker has died, or a thaw later than promised: only S3 knows what became of it."""
        now = self.clock()
        archive = self.archives.get(thaw.archive)
        status = self._status(archive)
        if archive is not None and status.warm_until and status.warm_until > now:
            if self.thaws.swap(thaw, warmed(thaw, thaw.archive, until=status.warm_until, now=now)):
                self.extract_queue.send(render_thawed(thaw.archive))
            return Swept(thawed=1)
        if status.running and thaw.state is ThawState.THAWING:
            self.thaws.swap(thaw, replace(thaw, due_at=now + PATIENCE))
            return Swept(overdue=int(thaw.ready_at + PATIENCE <= now))
        if not self.restores.waiting(thaw.archive):
            self.thaws.drop(thaw)
            return Swept()
        if thaw.state is ThawState.CLAIMED:
            # The claim stays, so that its price is not counted twice; it is dead, and PlanRestore takes it over.
            self.thaws.swap(thaw, replace(thaw, due_at=now + GLANCE))
        elif not self.thaws.drop(thaw):
            return Swept()
        self._ask(thaw.archive, Need(tier=thaw.tier, days=thaw.wanted_days))
        return Swept(lost=1)

    def _status(self, archive: ArchiveRow | None) -> CopyStatus:
        """What HEAD says; an archive that is gone has no copy: Extract will find its files damaged."""
        try:
            return self.glacier.status(archive) if archive is not None else CopyStatus()
        except ArchiveUnreadable:
            return CopyStatus()

    def _warm(self, thaw: Thaw, owner: str) -> Swept:
        """A copy that is there, or was: does anything still wait for it?"""
        now = self.clock()
        waiting = self.restores.waiting(thaw.archive)
        for_extract = [share for share in waiting if share.kind is Kind.S3]
        local = [share for share in waiting if share.kind is Kind.LOCAL]
        if not waiting:
            self.thaws.swap(thaw, replace(thaw, due_at=None))
            return Swept()
        expired = self._expire(local, owner) if thaw.is_cold(now) else 0
        if not for_extract:
            self.thaws.swap(thaw, replace(thaw, due_at=now + GLANCE))
            return Swept(expired=expired)
        until = thaw.warm_until or now
        self.thaws.swap(thaw, replace(thaw, due_at=now + GLANCE))
        if until < now + MARGIN:
            self._ask(thaw.archive, Need(tier=thaw.tier, days=max(1, thaw.wanted_days)))
        else:
            self.extract_queue.send(render_thawed(thaw.archive))
        return Swept(expired=expired, moved=len({share.archive for share in for_extract}))

    def _expire(self, shares: list[Share], owner: str) -> int:
        expired = end_unfetched(self.restores, shares, Ending.EXPIRED, EXPIRED, owner=owner, clock=self.clock)
        for job_id in {share.job for share in shares}:
            self.ender.end(job_id)
        return expired

    def _job(self, job: Job, owner: str) -> Swept:
        """End a job, or look whether everything that waits for an archive has a thaw that the sweep will see.

        The next look is put off first: a job of very many archives must not keep the sweep from all others.
        """
        now = self.clock()
        if job.state is JobState.FINISHED:
            self.ender.announce(job.id)
            return Swept(ended=1)
        self.restores.postpone(job.id, now + PATIENCE)
        if not job.planned and job.created_at + CHUNKS_WITHIN < now:
            self.restores.give_up_chunks(job)
        waiting = list(self.restores.waiting_of(job.id))
        if job.cancelled_at:
            end_unfetched(self.restores, waiting, Ending.CANCELLED, CANCELLED, owner=owner, clock=self.clock)
            waiting = []
        with ThreadPoolExecutor(THREADS) as pool:
            by_archive = {(share.archive, share.kind): share for share in waiting}
            moved = sum(pool.map(lambda share: self._move(share, job), by_archive.values()))
        return Swept(moved=moved, ended=int(self.ender.end(job.id)))

    def _move(self, share: Share, job: Job) -> int:
        """Have an archive thawed, or read, for which nobody does anything; 1 if so."""
        thaw = self.thaws.get(share.archive)
        if thaw is not None:
            if thaw.due_at is None:  # nothing waited when the sweep last looked: now it does
                self.thaws.swap(thaw, replace(thaw, due_at=self.clock()))
            return int(thaw.due_at is None)
        archive = self.archives.get(share.archive)
        if archive is None or needs_thaw(archive.storage_class):
            self._ask(share.archive, job.need)
        elif share.kind is Kind.S3:
            self.extract_queue.send(render_thawed(share.archive))
        return 1

    def _ask(self, archive: int, need: Need) -> None:
        self.requests_queue.send(render_thaw_request(ThawRequest(archive=archive, need=need)))

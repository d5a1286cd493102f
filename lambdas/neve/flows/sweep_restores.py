"""SweepRestores: ask S3 about thaws whose event did not come, and move on jobs that stand still.

It asks for no thaw itself: PlanRestore does, which knows the pace and the price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

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
from neve.domain.thaw import GLANCE, MARGIN, PATIENCE, Thaw, ThawState, combined, needs_thaw, next_look
from neve.errors import ArchiveUnreadable
from neve.flows.jobs import JobEnder, end_unfetched
from neve.flows.thaw import mark_warm
from neve.ports import Archives, CopyStatus, Glacier, Queue, Restores, Thaws

GIVEN_UP_AFTER = timedelta(days=7)
"""A chunk that has not come by then was never sent, or waits in a dead-letter queue, whose alarm rang days ago."""
THREADS = 16
BATCH = 500
"""Thaws in memory at a time."""
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
        """Look at every job and every thaw that is due. Whatever ends this sweep, the next one has less to do.

        One that fails holds back none of the others; what it failed with is raised at the end.
        """
        failures: list[Exception] = []

        def looked_at(look: Callable[[], Swept]) -> Swept:
            try:
                return look()
            except Exception as error:  # noqa: BLE001  # raised below
                failures.append(error)
                return Swept()

        total = Swept()
        for job in self.restores.due(self.clock()):
            total += looked_at(partial(self._job, job, owner))
        thaws = self.thaws.due(self.clock())
        with ThreadPoolExecutor(THREADS) as pool:
            while batch := list(islice(thaws, BATCH)):
                total = sum(pool.map(looked_at, [partial(self._thaw, thaw, owner) for thaw in batch]), total)
        if failures:
            raise failures[0]
        return total

    def _thaw(self, thaw: Thaw, owner: str) -> Swept:
        return self._warm(thaw, owner) if thaw.state is ThawState.WARM else self._cold(thaw)

    def _cold(self, thaw: Thaw) -> Swept:
        """A claim whose maker has died, or a thaw whose event has not come: only S3 knows what became of it."""
        now = self.clock()
        status = self._status(self.archives.get(thaw.archive))
        if status.warm_until and status.warm_until > now:
            mark_warm(self.thaws, thaw.archive, until=status.warm_until, now=now, requests_queue=self.requests_queue)
            self.extract_queue.send(render_thawed(thaw.archive))
            return Swept(thawed=1)
        if status.running and thaw.state is ThawState.THAWING:
            self.thaws.swap(thaw, replace(thaw, due_at=next_look(thaw.ready_at, now)))
            return Swept(overdue=int(thaw.ready_at + PATIENCE <= now))
        waiting = self.restores.waiting(thaw.archive)
        if not waiting:
            self.thaws.drop(thaw)
            return Swept()
        if thaw.state is ThawState.CLAIMED:
            # The claim stays, so that its price is not counted twice; it is dead, and PlanRestore takes it over.
            self.thaws.swap(thaw, replace(thaw, due_at=now + GLANCE))
        elif not self.thaws.drop(thaw):
            return Swept()
        self._ask(thaw.archive, waiting)
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
        cold = thaw.is_cold(now)
        expired = self._expire(local, owner) if cold else 0
        owed = bool(local) and not cold and thaw.wanted_days > thaw.days  # whoever should have extended it has died
        due_at: datetime | None = None
        if for_extract or owed:
            due_at = now + GLANCE
        elif local and not cold:
            due_at = thaw.warm_until  # the command fetches what waits, or it expires
        self.thaws.swap(thaw, replace(thaw, due_at=due_at))
        if owed:
            self._ask(thaw.archive, waiting)
        elif for_extract and (thaw.warm_until or now) < now + MARGIN:
            self._ask(thaw.archive, for_extract)
        elif for_extract:
            self.extract_queue.send(render_thawed(thaw.archive))
        return Swept(expired=expired, moved=int(bool(for_extract)))

    def _expire(self, shares: Sequence[Share], owner: str) -> int:
        expired = end_unfetched(self.restores, shares, Ending.EXPIRED, EXPIRED, owner=owner, clock=self.clock)
        for job_id in {share.job for share in shares}:
            self.ender.end(job_id)
        return expired

    def _job(self, job: Job, owner: str) -> Swept:
        """End a job, or look whether everything that waits for an archive has a thaw that the sweep will see.

        The next look is put off first: a job of very many archives must not keep the sweep from all others.
        """
        now = self.clock()
        self.restores.postpone(job.id, now + PATIENCE)
        if job.state is JobState.FINISHED:
            self.ender.announce(job.id)
            return Swept(ended=1)
        waiting = list(self.restores.waiting_of(job.id))
        if job.cancelled_at:
            end_unfetched(self.restores, waiting, Ending.CANCELLED, CANCELLED, owner=owner, clock=self.clock)
            waiting = []
        if job.cancelled_at or job.created_at + GIVEN_UP_AFTER < now:
            self.restores.give_up(job.id, now)
        by_archive: dict[tuple[int, Kind], list[Share]] = defaultdict(list)
        for share in waiting:
            by_archive[share.archive, share.kind].append(share)
        with ThreadPoolExecutor(THREADS) as pool:
            total = sum(pool.map(lambda shares: self._move(shares, job, owner), by_archive.values()), Swept())
        return total + Swept(ended=int(self.ender.end(job.id)))

    def _move(self, shares: Sequence[Share], job: Job, owner: str) -> Swept:
        """Have the archive thawed, or read, that all `shares` of one kind wait for, if nobody does anything."""
        now = self.clock()
        serial, kind = shares[0].archive, shares[0].kind
        thaw = self.thaws.get(serial)
        if thaw is not None:
            # When the sweep last looked, nothing waited, or only a command, until the copy expires.
            later = kind is Kind.S3 and thaw.state is ThawState.WARM and thaw.due_at and thaw.due_at > now + GLANCE
            unseen = thaw.due_at is None or bool(later)
            if unseen:
                self.thaws.swap(thaw, replace(thaw, due_at=now))
            return Swept(moved=int(unseen))
        archive = self.archives.get(serial)
        if archive is None or needs_thaw(archive.storage_class):
            self._ask(serial, shares)
        elif kind is Kind.S3:
            self.extract_queue.send(render_thawed(serial))
        elif job.created_at + timedelta(days=job.need.days) < now:
            return Swept(expired=self._expire(shares, owner))
        else:
            return Swept()  # it can be read at any time: the command has its days to fetch it
        return Swept(moved=1)

    def _ask(self, archive: int, waiting: Sequence[Share]) -> None:
        """Have PlanRestore see to an archive, for all that wait."""
        need = combined(share.need for share in waiting)
        self.requests_queue.send(render_thaw_request(ThawRequest(archive=archive, need=need)))

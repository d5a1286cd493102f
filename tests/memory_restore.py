"""The ports Thaws and Restores in memory: what the adapters on AWS are held against, and what unit tests run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from neve.domain.restore import DETAIL_CHARACTERS, Ending, Job, JobState, Result, Share
from neve.domain.thaw import Thaw
from neve.errors import NeveError, OverCap

GLANCE = timedelta(minutes=15)


@dataclass
class MemoryThaws:
    """Thaws by archive, and what was spent on them by day."""

    rows: dict[int, Thaw] = field(default_factory=dict)
    spent: Counter[date] = field(default_factory=Counter)

    def get(self, archive: int) -> Thaw | None:
        return self.rows.get(archive)

    def swap(self, seen: Thaw | None, to: Thaw) -> Thaw | None:
        if not self._is(seen, to.archive):
            return None
        self.rows[to.archive] = replace(to, revision=seen.revision + 1 if seen else 1)
        return self.rows[to.archive]

    def claim(self, seen: Thaw | None, to: Thaw, *, micro_usd: int, cap_micro_usd: int, now: datetime) -> Thaw | None:
        if not self._is(seen, to.archive):
            return None
        spent = self.spent_micro_usd(now)
        if cap_micro_usd and spent + micro_usd > cap_micro_usd:
            raise OverCap(f"{spent} + {micro_usd} > {cap_micro_usd}")
        self.spent[now.astimezone(UTC).date()] += micro_usd
        return self.swap(seen, to)

    def drop(self, seen: Thaw) -> bool:
        if not self._is(seen, seen.archive):
            return False
        del self.rows[seen.archive]
        return True

    def due(self, now: datetime) -> Iterator[Thaw]:
        for archive in list(self.rows):
            thaw = self.rows.get(archive)
            if thaw and thaw.due_at and thaw.due_at < now:
                yield thaw

    def spent_micro_usd(self, now: datetime) -> int:
        return self.spent[now.astimezone(UTC).date()]

    def _is(self, seen: Thaw | None, archive: int) -> bool:
        standing = self.rows.get(archive)
        if standing is None or seen is None:
            return standing is seen
        return (standing.revision, standing.ready_at) == (seen.revision, seen.ready_at)


@dataclass
class MemoryRestores:
    """Jobs by id, their shares that wait and those that ended, and when the sweep looks at each job."""

    rows: dict[str, Job] = field(default_factory=dict)
    due_at: dict[str, datetime] = field(default_factory=dict)
    shares: dict[tuple[str, str], Share] = field(default_factory=dict)
    plans: dict[tuple[str, int], list[Share]] = field(default_factory=dict)
    counted: dict[tuple[str, int], list[Result]] = field(default_factory=dict)
    done: dict[tuple[str, str], list[Result]] = field(default_factory=dict)

    def open(self, job: Job) -> Job:
        if job.id not in self.rows:
            self.rows[job.id] = job
            self.due_at[job.id] = job.created_at + GLANCE
        return self.rows[job.id]

    def job(self, job_id: str) -> Job | None:
        return self.rows.get(job_id)

    def jobs(self, *, newest_first: bool = True) -> Iterator[Job]:
        return iter([self.rows[job_id] for job_id in sorted(self.rows, reverse=newest_first)])

    def planned(
        self, job_id: str, chunk: int, *, shares: Sequence[Share], results: Sequence[Result], now: datetime
    ) -> list[Share] | None:
        if (job_id, chunk) in self.counted:
            return self.plans[job_id, chunk]
        job = self._counted(job_id, results)
        if job.given_up_at:
            return None
        self.counted[job_id, chunk] = _kept(results)
        self.plans[job_id, chunk] = list(shares)
        self.rows[job_id] = replace(
            job,
            planned_chunks=job.planned_chunks + 1,
            files=job.files + sum(share.files for share in shares) + len(results),
            size_bytes=job.size_bytes
            + sum(share.size_bytes for share in shares)
            + sum(result.item.size_bytes for result in results),
            shares=job.shares + len(shares),
        )
        return list(shares)

    def add(self, shares: Sequence[Share]) -> list[Share]:
        there = [share for share in shares if (share.job, share.id) not in self.done]
        for share in there:
            self.shares.setdefault((share.job, share.id), share)
        return there

    def waiting(self, archive: int) -> list[Share]:
        found = [replace(share, items=()) for share in self.shares.values() if share.archive == archive]
        return sorted(found, key=lambda share: (share.kind, share.job, share.id))

    def waiting_of(self, job_id: str) -> Iterator[Share]:
        found = [share for share in self.shares.values() if share.job == job_id]
        return iter([_unleased(replace(share, items=())) for share in sorted(found, key=lambda share: share.id)])

    def lease(self, share: Share, *, owner: str, now: datetime, until: datetime) -> Share | None:
        row = self.shares.get((share.job, share.id))
        if row is None or (row.lease_owner not in ("", owner) and row.leased_until and row.leased_until >= now):
            return None
        leased = replace(row, lease_owner=owner, leased_until=until, first_leased_at=row.first_leased_at or now)
        self.shares[share.job, share.id] = leased
        return leased

    def release(self, share: Share, *, owner: str) -> None:
        row = self.shares.get((share.job, share.id))
        if row is not None and row.lease_owner == owner:
            self.shares[share.job, share.id] = replace(row, lease_owner="", leased_until=None)

    def finish(self, share: Share, results: Sequence[Result], *, owner: str, now: datetime) -> bool:
        row = self.shares.get((share.job, share.id))
        if row is None or row.lease_owner != owner:
            return False
        job = self._counted(share.job, results)
        del self.shares[share.job, share.id]
        self.done[share.job, share.id] = _kept(results)
        self.rows[share.job] = replace(job, ended_shares=job.ended_shares + 1)
        return True

    def results(self, job_id: str) -> Iterator[Result]:
        for kept in (self.counted, self.done):
            for (job, _), results in sorted(kept.items()):
                if job == job_id:
                    yield from results

    def cancel(self, job_id: str, now: datetime) -> bool:
        job = self.rows.get(job_id)
        if job is None or job.state is not JobState.RUNNING or job.cancelled_at:
            return False
        self.rows[job_id] = replace(job, cancelled_at=now)
        return True

    def give_up(self, job_id: str, now: datetime) -> None:
        job = self.rows.get(job_id)
        if job is not None and job.state is JobState.RUNNING:
            self.rows[job_id] = replace(job, given_up_at=job.given_up_at or now)

    def end(self, job_id: str, now: datetime) -> bool:
        job = self.rows.get(job_id)
        if job is None or job.state is not JobState.RUNNING:
            return False
        self.rows[job_id] = replace(job, state=JobState.FINISHED, finished_at=now)
        self.due_at[job_id] = now + GLANCE
        return True

    def announced(self, job_id: str) -> None:
        if job_id in self.rows and self.rows[job_id].state is JobState.FINISHED:
            self.due_at.pop(job_id, None)

    def due(self, now: datetime) -> Iterator[Job]:
        for job_id in list(self.due_at):
            if job_id in self.due_at and self.due_at[job_id] < now:
                yield self.rows[job_id]

    def postpone(self, job_id: str, due_at: datetime) -> None:
        if job_id in self.due_at:
            self.due_at[job_id] = due_at

    def _counted(self, job_id: str, results: Sequence[Result]) -> Job:
        """The job with `results` among its endings."""
        job = self.rows.get(job_id)
        if job is None:
            raise NeveError(f"there is no job {job_id} to count to")
        restored = sum(result.item.size_bytes for result in results if result.ending is Ending.RESTORED)
        ended = Counter(job.ended) + Counter(result.ending for result in results)
        return replace(job, ended=dict(ended), restored_bytes=job.restored_bytes + restored)


def _kept(results: Sequence[Result]) -> list[Result]:
    return [replace(result, detail=result.detail[:DETAIL_CHARACTERS]) for result in results]


def _unleased(share: Share) -> Share:
    return replace(share, lease_owner="", leased_until=None, first_leased_at=None)

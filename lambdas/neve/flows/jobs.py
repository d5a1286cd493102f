"""The life of a job beside its files: it is cancelled, it ends, and its end is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.restore import Ending, Item, JobState, Result, Share, render_restored
from neve.errors import Transient
from neve.ports import Restores, Topic

LEASE = timedelta(minutes=1)
"""What it takes to end a share without touching its files."""


@dataclass(frozen=True, kw_only=True)
class JobEnder:
    """Ends jobs, and tells the topic: first the state, then the message, then that it was sent.

    Who dies before the message leaves it to the sweep; who dies after it has it sent twice. Never is it not sent.
    """

    restores: Restores
    topic: Topic
    clock: Callable[[], datetime]

    def end(self, job_id: str) -> bool:
        """End the job if all of it has ended; whether this call did.

        A job that was given up ends when nothing of it waits: shares may be counted that were never made to wait.
        """
        job = self.restores.job(job_id)
        if job is None or job.state is JobState.FINISHED:
            return False
        over = job.complete or (job.given_up_at is not None and not any(True for _ in self.restores.waiting_of(job_id)))
        if not over or not self.restores.end(job_id, self.clock()):
            return False
        self.announce(job_id)
        return True

    def announce(self, job_id: str) -> None:
        """Tell the topic of a finished job."""
        job = self.restores.job(job_id)
        assert job is not None, "a job is never deleted"
        self.topic.publish(render_restored(job))
        self.restores.announced(job_id)


def end_unfetched(
    restores: Restores,
    shares: Iterable[Share],
    ending: Ending,
    detail: str,
    *,
    owner: str,
    clock: Callable[[], datetime],
) -> int:
    """End shares whose files nobody is to fetch any more; how many files. Shares that are leased are left alone."""
    files = 0
    for share in shares:
        now = clock()
        leased = restores.lease(share, owner=owner, now=now, until=now + LEASE)
        if leased is not None:
            results = all_ended(leased.items, ending, detail)
            try:
                if restores.finish(leased, results, owner=owner, now=clock()):
                    files += leased.files
            except Exception:
                with suppress(Transient):  # the lease ends by itself
                    restores.release(leased, owner=owner)
                raise
    return files


def all_ended(items: Iterable[Item], ending: Ending, detail: str) -> list[Result]:
    """One result for each of `items`, all the same."""
    return [Result(item=item, ending=ending, detail=detail) for item in items]

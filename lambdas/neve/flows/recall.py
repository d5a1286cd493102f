"""Recall: bring a file back from the archive for who asks for its URL, by one restore job however many ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from neve.domain.index import ArchiveRow
from neve.domain.pointer import Pointer
from neve.domain.recall import (
    Recall,
    Step,
    back_at,
    decide,
    request,
    rested_at,
    sent_again,
    started,
    wanted,
)
from neve.domain.restore import Job, render_request
from neve.domain.route import Answer, failed, restoring, unknown
from neve.errors import NeveError
from neve.ports import Archives, Files, Queue, Recalls, Restores, Standing, Thaws


@dataclass(frozen=True, kw_only=True)
class Recaller:
    """The rules of recalls over their ports. Files are brought back to the bucket called `content_bucket`."""

    files: Files
    archives: Archives
    thaws: Thaws
    restores: Restores
    recalls: Recalls
    requests_queue: Queue
    content: Standing
    content_bucket: str
    clock: Callable[[], datetime]

    def recall(self, stored: str, pointer: Pointer | None) -> Answer | None:
        """The answer about the file at `stored`, which is in no bucket; None if it is back there by now.

        The recall is read before its job, and its job before the bucket: whoever finds the job ended well, and the file
        missing after that, knows that it was deleted again.
        """
        row = wanted(self.files.versions(stored), pointer)
        if row is None:
            return unknown()
        archive = self.archives.get(row.archive)
        if archive is None:
            raise NeveError(f"the index names archive {row.archive}, which has no row")
        recall = self.recalls.get(stored)
        job = self.restores.job(recall.job) if recall else None
        now = self.clock()
        step = decide(recall, job, looked_again=False, now=now)
        if step is Step.LOOK_AGAIN:
            if self.content.holds(stored):
                return None
            step = decide(recall, job, looked_again=True, now=now)
        if step is Step.REST:
            assert job is not None, "only an ended job is rested after"
            return _resting(job, now)
        if step is Step.START or recall is None:
            recall = self._sent(recall, started(row, now), archive)
        elif step is Step.SEND_AGAIN:
            recall = self._sent(recall, sent_again(recall, now), archive)
        expected = back_at(archive, self.thaws.get(archive.serial), asked_at=recall.asked_at, now=now)
        return restoring(retry_after_s=_seconds(now, expected), text=f"being restored, back about {_moment(expected)}")

    def _sent(self, seen: Recall | None, to: Recall, archive: ArchiveRow) -> Recall:
        """Claim `to`, and send its job if nobody else was first."""
        if self.recalls.swap(seen, to):
            self.requests_queue.send(render_request(request(to, archive, self.content_bucket)))
        return to


def _resting(job: Job, now: datetime) -> Answer:
    until = rested_at(job)
    return failed(
        retry_after_s=_seconds(now, until),
        text=f"it could not be restored (job {job.id}); asked for after {_moment(until)}, it is tried again",
    )


def _seconds(now: datetime, until: datetime) -> int:
    return max(1, math.ceil((until - now).total_seconds()))


def _moment(moment: datetime) -> str:
    utc = moment.astimezone(UTC).replace(microsecond=0)
    return f"{utc:%d %b %Y, %H:%M} UTC ({utc:%Y-%m-%dT%H:%M:%SZ})"

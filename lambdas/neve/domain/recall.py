"""A recall: somebody asked for a file that only the archive has, and a restore job brings it back, once for all.

The recall is written, by condition, before the job is sent. Who dies in between leaves a recall without a job: after a
while the same job is sent again, which changes nothing if it was sent after all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from neve.domain.index import ArchiveRow, FileRow, newest
from neve.domain.pointer import InContent, Pointer
from neve.domain.restore import Job, JobState, Request, Wanted
from neve.domain.thaw import PROMISES, Need, Thaw, ThawState, Tier, needs_thaw, thaw_micro_usd

NEED = Need(tier=Tier.STANDARD, days=1)
"""Somebody waits, but not at the price of Expedited; the file itself is put back for good, so a day is enough."""
UNHEARD = timedelta(minutes=15)
"""After so long without its job a recall is sent again: who wrote it has died, and no function runs longer."""
AGAIN = timedelta(hours=1)
"""A job that ended without bringing the file back is followed by another after this, not at once: the spend cap may
have stopped it, or the archive may be damaged, and each request for the file would make a job of its own."""
EXTRACTION = timedelta(minutes=1)
"""From the end of a thaw until the file is in its place, if nothing else is to be done."""
SOON = timedelta(minutes=5)
"""When to ask again for what should have been there by now."""

_MICRO = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Recall:
    """That the file at `stored` in the content bucket is brought back by `job`, asked for at `asked_at`.

    `pin` is the version that is brought back; `sent_at` is when its job was sent, or was about to be.
    """

    stored: str
    pin: str
    job: str
    asked_at: datetime
    sent_at: datetime


class Step(StrEnum):
    """What is done for who asks for a file that only the archive has."""

    START = "start"
    SEND_AGAIN = "send again"
    WAIT = "wait"
    LOOK_AGAIN = "look again"
    """The job has brought it back: perhaps after it was looked for."""
    REST = "rest"
    """The job has ended without bringing it back; another follows later."""


def decide(recall: Recall | None, job: Job | None, *, looked_again: bool, now: datetime) -> Step:
    """What to do, given the file's recall and its job, as they were read in this order.

    `looked_again` says that the file was looked for after its job had ended, and was not there.
    """
    if recall is None:
        return Step.START
    if job is None:
        return Step.WAIT if now < recall.sent_at + UNHEARD else Step.SEND_AGAIN
    if job.state is not JobState.FINISHED:
        return Step.WAIT
    if not looked_again:
        return Step.LOOK_AGAIN
    return Step.START if job.good or now >= rested_at(job) else Step.REST


def rested_at(job: Job) -> datetime:
    """When a job that has ended without bringing the file back may be followed by another."""
    return (job.finished_at or job.created_at) + AGAIN


def started(row: FileRow, now: datetime) -> Recall:
    """The recall of an archived version, as it is claimed. No two of a file have the same job."""
    digits = hashlib.sha256(f"{now.isoformat()} {row.key}".encode()).hexdigest()[:8]
    return Recall(stored=row.key, pin=row.pin, job=f"{now:%Y%m%dT%H%M%S}-recall-{digits}", asked_at=now, sent_at=now)


def sent_again(recall: Recall, now: datetime) -> Recall:
    """The same recall, as it is claimed by who sends its job again."""
    return replace(recall, sent_at=now)


def request(recall: Recall, archive: ArchiveRow, bucket: str) -> Request:
    """The restore that the recall stands for, as PlanRestore is handed it. The same recall makes the same request."""
    micro_usd = thaw_micro_usd(archive.storage_class, NEED.tier, days=NEED.days, size_bytes=archive.size_bytes)
    return Request(
        job=recall.job,
        chunk=1,
        chunks=1,
        created_at=recall.asked_at,
        need=NEED,
        overwrite=False,
        estimate_usd=micro_usd / _MICRO,
        items=(Wanted(key=recall.stored, pin=recall.pin, destination=f"s3://{bucket}/{recall.stored}"),),
    )


def wanted(versions: Iterable[FileRow], pointer: Pointer | None) -> FileRow | None:
    """Which of the archived versions of a key is to be brought back; None if none is.

    With a pointer into the content bucket it is the version that this names, and no older one in its place.
    """
    if isinstance(pointer, InContent):
        return newest(row for row in versions if row.version_id == pointer.content_version)
    return newest(versions)


def back_at(archive: ArchiveRow, thaw: Thaw | None, *, asked_at: datetime, now: datetime) -> datetime:
    """About when the file is back: a thaw is taken to last as long as lies in the middle of what S3 states."""
    if not needs_thaw(archive.storage_class) or (thaw is not None and thaw.is_warm(now)):
        thawed_at = asked_at
    elif thaw is None or thaw.state is ThawState.WARM:  # not asked for yet
        soonest, latest = PROMISES[archive.storage_class][NEED.tier]
        thawed_at = asked_at + (soonest + latest) / 2
    else:
        soonest, latest = PROMISES[archive.storage_class][thaw.tier]
        thawed_at = thaw.ready_at - (latest - soonest) / 2
    expected = thawed_at + EXTRACTION
    return expected if expected > now else now + SOON

"""`neve edge status`: what waits on this host, and what needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from neve.domain.outbox import queue_name
from neve.errors import NeveError
from neve_cli import clock, output
from neve_cli.failures import PROBLEM
from neve_cli.text import counted, iso, moment, safe, size, span
from neve_edge.agent import Agent
from neve_edge.journal import Journal, Summary, Trouble
from neve_edge.outbox import SqliteOutbox
from neve_edge.settings import Settings
from neve_edge.spool import REFUSED

if TYPE_CHECKING:
    from types_boto3_sqs.literals import QueueAttributeNameType

SHOWN = 10
LATE = timedelta(hours=1)
"""A file that has waited for so long needs a person. Whole trees take longer: `neve edge import` says how long."""


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """Messages of this host that wait for one queue."""

    queue: str
    entries: int
    oldest_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """All that `neve edge status` tells.

    `queue` is about how many announcements are in the queue, worked on or not; None if it was not asked, or could not
    be, for the reason in `queue_problem`.
    """

    host: str
    journal: str
    now: datetime
    summary: Summary | None
    troubles: Sequence[Trouble]
    unsent: Sequence[Unsent]
    refused_lists: Sequence[str]
    queue: int | None
    queue_problem: str

    @property
    def problems(self) -> list[str]:
        """What needs a person, each with what to do."""
        found: list[str] = []
        read = self.summary
        if self.queue_problem:
            found.append(f"the shared queue cannot be asked: {self.queue_problem}")
        if read and read.oldest and self.now - read.oldest > LATE:
            found.append(
                f"a file has waited since {moment(read.oldest)}: is `neve edge run` or `work` running "
                "(`systemctl status neve-edge`), and does CopyUpload move pointers (`neve status`)?"
            )
        if any(trouble.tries > 5 for trouble in self.troubles):
            found.append("files could not be moved after many tries: the reasons are above")
        if read and read.held_in_attic:
            found.append(
                f"{counted(read.held_in_attic, 'file')} in the attic is kept beyond its time, since it is not the one "
                "that was uploaded: compare it by hand"
            )
        found += [
            f"messages for {each.queue} wait since {moment(each.oldest_at)}: is `relay` running?"
            for each in self.unsent
            if each.oldest_at and self.now - each.oldest_at > LATE
        ]
        if self.refused_lists:
            found.append(
                f"{counted(len(self.refused_lists), 'list')} in the spool had lines that were refused; the reasons are "
                f"in {safe(self.refused_lists[0])}: put it right and remove it"
            )
        return found


def show_status(settings: Settings, *, as_json: bool) -> None:
    """Print the status, and exit with PROBLEM if anything needs a person."""
    read = read_status(settings, clock.now())
    if as_json:
        output.document(status_fields(read))
    else:
        _show(settings, read)
    if read.problems:
        raise typer.Exit(PROBLEM)


def read_status(settings: Settings, now: datetime) -> Status:
    """The status of this host. Without a journal nothing was ever announced here."""
    queue, queue_problem = _queue_depth(settings) if settings.queue else (None, "")
    common: dict[str, Any] = {
        "host": settings.host,
        "journal": str(settings.journal),
        "now": now,
        "queue": queue,
        "queue_problem": queue_problem,
        "refused_lists": sorted(str(path) for path in (settings.spool / REFUSED).glob("*.jsonl")),
    }
    if not settings.journal.exists():
        return Status(summary=None, troubles=(), unsent=(), **common)
    with (
        closing(Journal(settings.journal, host=settings.host, clock=clock.now, read_only=True)) as journal,
        closing(SqliteOutbox(settings.journal)) as outbox,
    ):
        backlogs = [(queue_name(url), outbox.backlog(url)) for url in outbox.queues()]
        return Status(
            summary=journal.summary(),
            troubles=journal.troubles(SHOWN),
            unsent=[Unsent(queue=name, entries=each.entries, oldest_at=each.oldest_at) for name, each in backlogs],
            **common,
        )


def status_fields(read: Status) -> dict[str, Any]:
    """The status for JSON."""
    summary: dict[str, Any] = {}
    if read.summary:
        times = {"oldest": iso(read.summary.oldest), "attic_oldest": iso(read.summary.attic_oldest)}
        summary = asdict(read.summary) | times
    return {
        "host": read.host,
        "journal": read.journal,
        "ok": not read.problems,
        "problems": read.problems,
        **summary,
        "troubles": [asdict(each) | {"next_try": iso(each.next_try)} for each in read.troubles],
        "unsent": [asdict(each) | {"oldest_at": iso(each.oldest_at)} for each in read.unsent],
        "refused_lists": list(read.refused_lists),
        "queue": read.queue,
    }


def _queue_depth(settings: Settings) -> tuple[int | None, str]:
    """(how many announcements are in the queue, or why that cannot be told)."""
    names: list[QueueAttributeNameType] = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",  # worked on, or put off
        "ApproximateNumberOfMessagesDelayed",
    ]
    try:
        with closing(Agent(settings)) as agent:
            answer = agent.deployed.sqs.get_queue_attributes(
                QueueUrl=agent.deployed.outputs["AnnouncementsQueue"],
                AttributeNames=names,
            )
    except (BotoCoreError, ClientError, NeveError) as error:
        return None, str(error)
    return sum(int(count) for count in answer["Attributes"].values()), ""


def _show(settings: Settings, read: Status) -> None:
    typer.echo(f"{read.host}, journal {safe(read.journal)}")
    for folder in settings.folders:
        kept = f"kept {folder.keep_days} days in {folder.attic}" if folder.keep_days else "deleted when they are proved"
        typer.echo(
            f"folder       {safe(str(folder.path))}  ->  {safe(folder.key_prefix) or 'keys as the paths'}; {safe(kept)}"
        )
    if read.summary is None:
        typer.echo("Nothing was announced here yet.")
    else:
        _show_summary(read.summary, read.now)
    if read.queue is not None:
        typer.echo(f"queue        about {counted(read.queue, 'announcement')} of all hosts")
    for each in read.unsent:
        typer.echo(f"unsent       {counted(each.entries, 'message')} for {each.queue}, since {moment(each.oldest_at)}")
    for trouble in read.troubles:
        typer.echo(
            f"  {safe(trouble.folder)}: {safe(trouble.path)}: {safe(trouble.why)} "
            f"(tries: {trouble.tries:,}, next {moment(trouble.next_try)})"
        )
    for problem in read.problems:
        typer.echo(f"! {problem}")


def _show_summary(read: Summary, now: datetime) -> None:
    oldest = f", the oldest for {span(now - read.oldest)}" if read.oldest else ""
    typer.echo(f"waiting      {counted(read.waiting, 'file')}, {size(read.waiting_bytes)}{oldest}")
    typer.echo(f"put off      {counted(read.put_off, 'file')} of them, after a try that failed")
    typer.echo(f"worked on    {counted(read.worked_on, 'file')}; {read.for_pointers:,} uploaded, waiting for pointers")
    if read.kept:
        typer.echo(f"kept         {counted(read.kept, 'file')} copied, and left where they are")
    since = f", the oldest since {moment(read.attic_oldest)}" if read.attic_oldest else ""
    typer.echo(f"attic        {counted(read.attic_files, 'file')}, {size(read.attic_bytes)}{since}")
    if read.moving:
        typer.echo(f"moving       {counted(read.moving, 'file')}")

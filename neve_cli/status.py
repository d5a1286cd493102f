"""`neve status`: what waits, what is archived, and what needs a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from neve_cli import output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import iso, moment, size

if TYPE_CHECKING:
    from neve.domain.bundle import Bundle
    from neve.domain.outbox import Backlog
    from neve.ports import Outbox

QUEUES = (
    *("Collect", "Bundles", "Large", "Sweep"),
    *("Backfill", "BackfillBundles", "BackfillLarge"),
    *("RestoreRequests", "Extract", "SweepRestores"),
    *("Audits", "VerifyAudits", "Drills", "Reconciles"),
    *("Uploads", "Release", "Announcements", "Relay"),
)

RELAYED_WITHIN = timedelta(minutes=10)
"""Relay comes every minute, and sends whatever SQS takes."""

_WAITING: Final = "ApproximateNumberOfMessages"
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"


@dataclass(frozen=True, kw_only=True)
class Depth:
    """About how many messages a queue has: SQS gives no exact numbers.

    `delayed` ones are the timers of bundles, and uploads that are to be let go later.
    """

    queue: str
    waiting: int
    in_flight: int
    delayed: int
    dead_letters: int


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Archives that are not written yet, and what has been noted for them so far."""

    open: int
    sealed: int
    files: int
    size_bytes: int
    oldest_due_at: datetime | None
    overdue: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the rows of all archives. `files` leaves out members that an earlier archive already had."""

    archives: int
    not_indexed: int
    files: int
    source_bytes: int
    size_bytes: int
    last_archived_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """All that `neve status` tells. `totals` is None if they were not asked for; `outbox` is for all queues."""

    stack: str
    region: str
    queues: Sequence[Depth]
    unfinished: Unfinished
    last_serial: int
    totals: Totals | None
    parked: Mapping[str, int]
    outbox: Backlog
    read_at: datetime

    @property
    def problems(self) -> list[str]:
        """What needs a person, each with what to do."""
        found = [
            f"{each.dead_letters:,} messages for {each.queue} failed for good; the function's log says why"
            for each in self.queues
            if each.dead_letters
        ]
        if self.parked:
            found.append(f"{sum(self.parked.values()):,} parked: `neve parked` tells why and what to do")
        if self.unfinished.overdue:
            found.append(
                f"{self.unfinished.overdue:,} archives should long have been written; the sweep reminds every 15 "
                "minutes, and the log of WriteArchive or CopyLarge says what holds them"
            )
        if self.outbox.oldest_at and self.read_at - self.outbox.oldest_at > RELAYED_WITHIN:
            found.append(
                f"messages have waited in the outbox since {moment(self.outbox.oldest_at)} UTC; the log of Relay says "
                "what SQS answers"
            )
        return found


def status(
    totals: Annotated[
        bool, typer.Option(help="Also read the rows of all archives and add them up: a minute for a million.")
    ] = True,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Tell what waits, what is archived, and what needs a person.

    Exit status 1 if anything has failed for good, is parked, or is overdue.
    """
    read = read_status(stack.find(stack_name), datetime.now(UTC), with_totals=totals)
    if as_json:
        output.document(status_fields(read))
    else:
        _show(read)
    if read.problems:
        raise typer.Exit(PROBLEM)


def read_status(deployed: stack.Stack, now: datetime, *, with_totals: bool) -> Status:
    """The status of a deployment at `now`."""
    parked: dict[str, int] = {}
    for _, item in deployed.parking_lot.all():
        parked[item.reason.value] = parked.get(item.reason.value, 0) + 1
    return Status(
        stack=deployed.name,
        region=deployed.region,
        queues=[depth(deployed, name) for name in QUEUES],
        unfinished=_unfinished(deployed.bundles.unfinished(), now),
        last_serial=deployed.archives.drawn(),
        totals=_totals(deployed) if with_totals else None,
        parked=parked,
        outbox=_outbox(deployed.outbox),
        read_at=now,
    )


def status_fields(read: Status) -> dict[str, Any]:
    """The status for JSON."""
    totals = None
    if read.totals:
        totals = asdict(read.totals) | {"last_archived_at": iso(read.totals.last_archived_at)}
    return {
        "stack": read.stack,
        "region": read.region,
        "ok": not read.problems,
        "problems": read.problems,
        "queues": [asdict(each) for each in read.queues],
        "unfinished": asdict(read.unfinished) | {"oldest_due_at": iso(read.unfinished.oldest_due_at)},
        "last_serial": read.last_serial,
        "totals": totals,
        "parked": sum(read.parked.values()),
        "parked_by_reason": dict(read.parked),
        "outbox": {"waiting": read.outbox.entries, "oldest_at": iso(read.outbox.oldest_at)},
    }


def depth(deployed: stack.Stack, name: str) -> Depth:
    """How full the queue `name` is, and its dead-letter queue."""

    def counts(url: str) -> Mapping[str, int]:
        answer = deployed.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[_WAITING, _IN_FLIGHT, _DELAYED])
        return {key: int(value) for key, value in answer["Attributes"].items()}

    queue = counts(deployed.outputs[f"{name}Queue"])
    dead = counts(deployed.outputs[f"{name}DeadLetterQueue"])
    return Depth(
        queue=re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower(),
        waiting=queue[_WAITING],
        in_flight=queue[_IN_FLIGHT],
        delayed=queue[_DELAYED],
        # One that somebody is just looking at is in flight.
        dead_letters=dead[_WAITING] + dead[_IN_FLIGHT],
    )


def _outbox(outbox: Outbox) -> Backlog:
    from neve.domain.outbox import Backlog  # noqa: PLC0415

    backlogs = [outbox.backlog(queue) for queue in outbox.queues()]
    return Backlog(
        entries=sum(each.entries for each in backlogs),
        oldest_at=min((each.oldest_at for each in backlogs if each.oldest_at), default=None),
    )


def _unfinished(bundles: Sequence[Bundle], now: datetime) -> Unfinished:
    opened = sum(bundle.state == "open" for bundle in bundles)
    return Unfinished(
        open=opened,
        sealed=len(bundles) - opened,
        files=sum(bundle.count for bundle in bundles),
        size_bytes=sum(bundle.size_bytes for bundle in bundles),
        oldest_due_at=min((bundle.due_at for bundle in bundles), default=None),
        overdue=sum(bundle.due_at < now for bundle in bundles),
    )


def _totals(deployed: stack.Stack) -> Totals:
    archives = not_indexed = files = source_bytes = size_bytes = 0
    last: datetime | None = None
    for row in deployed.archives.all():
        if row.superseded_by:
            continue  # its files are counted with the archive that stands for it
        archives += 1
        not_indexed += row.archived_at is None
        files += row.files - row.duplicates
        source_bytes += row.source_bytes
        size_bytes += row.size_bytes
        last = max(filter(None, (last, row.archived_at)), default=None)
    return Totals(
        archives=archives,
        not_indexed=not_indexed,
        files=files,
        source_bytes=source_bytes,
        size_bytes=size_bytes,
        last_archived_at=last,
    )


def _show(read: Status) -> None:
    typer.echo(f"{read.stack} in {read.region}")
    typer.echo("")
    output.table(
        ("QUEUE", "WAITING", "IN FLIGHT", "DELAYED", "FAILED"),
        (
            (each.queue, f"{each.waiting:,}", f"{each.in_flight:,}", f"{each.delayed:,}", f"{each.dead_letters:,}")
            for each in read.queues
        ),
        right=frozenset({1, 2, 3, 4}),
    )
    waits = read.unfinished
    typer.echo("")
    typer.echo(
        f"unfinished  {waits.open:,} open and {waits.sealed:,} sealed bundles with {waits.files:,} files, "
        f"{size(waits.size_bytes)}; overdue {waits.overdue:,}"
    )
    if waits.oldest_due_at:
        typer.echo(f"            the oldest should be written by {moment(waits.oldest_due_at)} UTC")
    if read.totals:
        done = read.totals
        typer.echo(
            f"archived    {done.files:,} files, {size(done.source_bytes)}, in {done.archives:,} archives of "
            f"{size(done.size_bytes)} (sums over the rows of archives)"
        )
        typer.echo(f"            the last at {moment(done.last_archived_at)} UTC")
        if done.not_indexed:
            typer.echo(f"            {done.not_indexed:,} of them are written but not all in the index yet")
    typer.echo(f"serial      {read.last_serial:,} was the last number drawn")
    typer.echo(f"parked      {sum(read.parked.values()):,}")
    for reason, count in sorted(read.parked.items()):
        typer.echo(f"            {count:,} {reason}")
    typer.echo(f"outbox      {read.outbox.entries:,} messages wait for SQS")
    for problem in read.problems:
        typer.echo(f"! {problem}")

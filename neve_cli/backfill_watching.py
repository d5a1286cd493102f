"""Looks at a backfill, while it runs and afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from neve.domain.backfill import Backfill, BackfillState, Totals, shards, time_left, together
from neve_cli import clock
from neve_cli.backfill_offer import counted_before, counted_fields, told
from neve_cli.status import Depth, depth
from neve_cli.text import counted, iso, moment, safe, size, span
from neve_cli.watching import wait_until

if TYPE_CHECKING:
    from neve.aws.executions import Execution
    from neve_cli.stack import Stack

INTERRUPTED = 130
QUEUES = ("Backfill", "BackfillBundles", "BackfillLarge")
STARTED_WITHIN = timedelta(minutes=1)
"""Step Functions may take a moment to show an execution that was started."""
SHOWN_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A backfill at a moment. `shards` is None until it is split; `execution` is None if there is none.

    `expected` is how many versions a dry run has counted, 0 without one.
    """

    backfill: Backfill
    execution: Execution | None
    shards: int | None
    totals: Totals
    queues: tuple[Depth, ...]
    expected: int
    since: datetime
    now: datetime

    @property
    def trouble(self) -> str:
        """Why it does not go on by itself though it should; "" if it does, or is not to."""
        this = self.backfill
        if this.state is BackfillState.STOPPED:
            return this.problem
        if this.state is BackfillState.FINISHED or (self.execution and self.execution.alive):
            return ""
        if self.execution is None:
            return "" if self.now - self.since < STARTED_WITHIN else "it was never started"
        cause = f": {self.execution.cause}" if self.execution.cause else ""
        return f"its execution has ended ({self.execution.status}){cause}"

    @property
    def over(self) -> bool:
        """Whether nothing is to be waited for any more."""
        return self.backfill.state is not BackfillState.RUNNING or bool(self.trouble)

    @property
    def left(self) -> timedelta | None:
        """How long it takes still, if it was counted before and has run without a break; None if nobody can tell."""
        this, at = self.backfill, self.totals.changed_at
        if not self.expected or at is None or at <= this.begun_at or this.attempt > 1:
            return None
        per_s = self.totals.counted.versions / (at - this.begun_at).total_seconds()
        return time_left(self.totals.counted, expected=self.expected, per_s=per_s)


def look(deployed: Stack, this: Backfill, *, expected: int = 0, since: datetime | None = None) -> Sight:
    """The backfill `this` as it stands now. Its execution was asked for at `since`, else when it began."""
    backfill_id = this.id
    this = deployed.backfills.get(backfill_id) or this
    execution = deployed.backfill_machine.look(this.execution)
    if this.state is BackfillState.RUNNING and execution is not None and not execution.alive:
        this = deployed.backfills.get(backfill_id) or this  # it may have come to its end between the two looks
    split = deployed.backfills.split(backfill_id)
    return Sight(
        backfill=this,
        execution=execution,
        shards=len(shards(split)) if split is not None else None,
        totals=together(deployed.backfills.shards(backfill_id)),
        queues=tuple(depth(deployed, name) for name in QUEUES),
        expected=expected,
        since=since or this.begun_at,
        now=clock.now(),
    )


def expected(deployed: Stack, this: Backfill) -> int:
    """How many versions it will come to, as a dry run has counted; 0 if none has."""
    before = None if this.dry_run else counted_before(deployed, this)[0]
    return before.versions if before else 0


def wait(deployed: Stack, this: Backfill, *, since: datetime, quiet: bool) -> Sight:
    """Look until it has ended, or nothing works on it. Raises Transient if looking keeps failing."""
    said, versions = "", expected(deployed, this)

    def seen() -> Sight | None:
        nonlocal said
        sight = look(deployed, this, expected=versions, since=since)
        line = progress(sight)
        if line != said and not quiet:
            typer.echo(f"{moment(sight.now)}  {line}")
        said = line
        return sight if sight.over else None

    return wait_until(seen)


@contextmanager
def going_on(backfill_id: str) -> Iterator[None]:
    """Whatever ends the watching, the backfill goes on: say so, how to look, and how to stop it."""
    hint = (
        f"backfill {backfill_id} goes on without this command: `neve backfill status {backfill_id}`; "
        f"`neve backfill stop {backfill_id}` stops it."
    )
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"neve: {hint}", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
    except Exception:
        typer.echo(f"neve: {hint}", err=True)
        raise


def state(sight: Sight) -> str:
    """How it stands, in a word or two."""
    this = sight.backfill
    if this.state is not BackfillState.RUNNING:
        return this.state.value
    if sight.trouble:
        return "stands still"
    return "running" if sight.execution else "being started"


def progress(sight: Sight) -> str:
    """How far it is, on a line."""
    found = sight.totals.counted
    if sight.shards is None:
        return "not split yet"
    verb = "counted" if sight.backfill.dry_run else "announced"
    line = (
        f"{sight.totals.done:,} of {counted(sight.shards, 'shard')} done, {counted(found.versions, 'version')} "
        f"{verb}, {size(found.size_bytes)}"
    )
    if not sight.backfill.dry_run:
        line = f"{line}; {_waiting(sight)}"
    for number, problem in sight.totals.problems[:1]:
        line = f"{line}; ! shard {number}: {safe(problem)}"
    return line


def _waiting(sight: Sight) -> str:
    names = ("announcement", "bundle", "large file")
    depths = [each.waiting + each.in_flight for each in sight.queues]
    return ", ".join(counted(number, name) for number, name in zip(depths, names, strict=True)) + " waiting"


def show(sight: Sight) -> None:
    """Show how it stands, with what to do next."""
    this, found = sight.backfill, sight.totals.counted
    typer.echo(f"backfill {this.id}{', dry run' if this.dry_run else ''}: {state(sight)}")
    typer.echo(f"  of        {told(this)}")
    ended = f", ended {moment(this.ended_at)}" if this.ended_at else ""
    again = f"; attempt {this.attempt}" if this.attempt > 1 else ""
    typer.echo(f"  begun     {moment(this.begun_at)} UTC{ended}{again}")
    if sight.shards is None:
        typer.echo("  shards    not split yet")
    else:
        typer.echo(f"  shards    {sight.totals.done:,} of {sight.shards:,} done, {sight.totals.begun:,} begun")
    if not (this.dry_run and this.state is BackfillState.FINISHED):  # what that has counted is told with its price
        verb = "counted" if this.dry_run else "announced"
        frozen = f"; {found.frozen:,} frozen ones left out ({size(found.frozen_bytes)})" if found.frozen else ""
        typer.echo(f"  {verb:<9} {counted(found.versions, 'version')}, {size(found.size_bytes)}{frozen}")
    if not this.dry_run:
        typer.echo(f"  queues    {_waiting(sight)}")
    if sight.left is not None and not sight.over:
        typer.echo(f"  left      about {span(sight.left)}, if there are {sight.expected:,} as a dry run counted")
    for number, problem in sight.totals.problems[:SHOWN_PROBLEMS]:
        typer.echo(f"  ! shard {number}: {safe(problem)}")
    if len(sight.totals.problems) > SHOWN_PROBLEMS:
        typer.echo(f"  ! and {counted(len(sight.totals.problems) - SHOWN_PROBLEMS, 'more shard')} with problems")
    for each in (queue for queue in sight.queues if queue.dead_letters):
        messages = counted(each.dead_letters, "message")
        typer.echo(f"  ! {messages} for {each.queue} failed for good; the function's log says why")
    if sight.trouble:
        typer.echo(f"  ! {safe(sight.trouble)}")
    if this.state is BackfillState.STOPPED or sight.trouble:
        typer.echo(f"  to go on  neve backfill resume {this.id}")


def fields(sight: Sight) -> dict[str, Any]:
    """How it stands, for JSON."""
    execution = sight.execution
    return {
        **summary(sight.backfill),
        "standing": state(sight),
        "trouble": sight.trouble or None,
        "execution": {"status": execution.status, "cause": execution.cause or None} if execution else None,
        "shards": sight.shards,
        "shards_begun": sight.totals.begun,
        "shards_done": sight.totals.done,
        "shard_problems": [{"shard": number, "problem": problem} for number, problem in sight.totals.problems],
        **counted_fields(sight.totals.counted),
        "expected": sight.expected or None,
        "left_s": round(sight.left.total_seconds()) if sight.left is not None and not sight.over else None,
        "queues": [
            {
                "queue": each.queue,
                "waiting": each.waiting,
                "in_flight": each.in_flight,
                "delayed": each.delayed,
                "dead_letters": each.dead_letters,
            }
            for each in sight.queues
        ],
    }


def summary(this: Backfill) -> dict[str, Any]:
    """A backfill's row, for JSON."""
    return {
        "backfill": this.id,
        "prefix": this.prefix,
        "inventory": this.inventory or None,
        "rate": this.rate or None,
        "dry_run": this.dry_run,
        "state": this.state.value,
        "attempt": this.attempt,
        "problem": this.problem or None,
        "begun_at": iso(this.begun_at),
        "ended_at": iso(this.ended_at),
    }

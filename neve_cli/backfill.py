"""`neve backfill`: have what lies in the content bucket already archived, and see how that goes."""

from __future__ import annotations

import re
import secrets
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.groups import RunsByDefault
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import moment, safe, size

if TYPE_CHECKING:
    from datetime import datetime

    from neve.domain.backfill import Backfill
    from neve_cli.backfill_watching import Sight

app = typer.Typer(
    cls=RunsByDefault,
    help="Archive what lies in the content bucket already, without copying it. Without a command: run.",
)

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+")

Id = Annotated[str, typer.Argument(metavar="ID", help="As `neve backfill list` shows it.")]
Rate = Annotated[
    int | None,
    typer.Option("--rate", metavar="N", min=1, help="Announce at most N versions a second.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command()
def run(
    *,
    prefix: Annotated[str, typer.Option("--prefix", help="Only keys that begin so.", show_default="all")] = "",
    inventory: Annotated[
        str,
        typer.Option(
            metavar="s3://BUCKET/PREFIX/",
            help="Take the versions from the newest report of S3 Inventory that lies there, instead of listing them.",
            show_default=False,
        ),
    ] = "",
    rate: Rate = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count them, and tell what archiving them takes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without a question.")] = False,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Stay until it has ended.", show_default="--wait with --dry-run"),
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Archive all versions that lie in the content bucket, as if they had just been uploaded.

    They are announced to queues of their own: uploads go first. What is archived already stays as it is, and nothing in
    the content bucket is copied, changed or deleted. It needs the policy NeveOperator, beside NeveObserver.

    Exit status 1 if it is refused, or with --wait if it has not come to its end.
    """
    from neve.domain.backfill import Backfill, backfill_id  # noqa: PLC0415  # --help need not wait for it
    from neve_cli.backfill_offer import counted_before, make_offer, offer_fields, show_offer, told  # noqa: PLC0415
    from neve_cli.backfill_watching import summary  # noqa: PLC0415

    if inventory and not _PLACE.fullmatch(inventory):
        raise typer.BadParameter(f"{inventory!r} is no place of an inventory's reports, s3://BUCKET/PREFIX/")
    now = clock.now()
    try:
        asked = Backfill(
            id=backfill_id(now, secrets.token_hex(3)),
            begun_at=now,
            prefix=prefix,
            inventory=inventory,
            rate=rate or 0,
            dry_run=dry_run,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    deployed = _find(stack_name)
    offer = None
    if not dry_run:
        offer = make_offer(deployed, asked, *counted_before(deployed, asked))
        if not as_json:
            typer.echo(f"to be archived: {told(asked)}")
            show_offer(offer, asked)
        _refuse_overlap(deployed, asked, yes=yes)
        if not yes:
            typer.confirm("Begin?", abort=True, err=True)
    deployed.backfills.open(asked)
    _start(deployed, asked)
    if not as_json:
        typer.echo(f"backfill {asked.id}{', dry run' if dry_run else ''}")
    sight = _wait(deployed, asked, now, quiet=as_json) if (dry_run if wait is None else wait) else None
    if sight is None and as_json:
        output.document(summary(asked) | {"offer": offer_fields(offer) if offer else None})
    elif sight is None:
        _tell_how(asked)
    else:
        _show(deployed, sight, waited=True, as_json=as_json)


@app.command()
def status(
    backfill_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="As `neve backfill list` shows it.", show_default="the newest")
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """How a backfill goes: shards, versions, what waits in its queues; of a dry run, what it has counted and the price.

    Exit status 1 if it does not go on by itself though nobody has stopped it.
    """
    from neve_cli.backfill_watching import expected, look  # noqa: PLC0415

    deployed = _find(stack_name)
    this = _known(deployed, backfill_id)
    _show(deployed, look(deployed, this, expected=expected(deployed, this)), as_json=as_json)


@app.command("list")
def list_backfills(
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N.", show_default="all")
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """All backfills and dry runs, the newest at the end."""
    from neve.domain.backfill import together  # noqa: PLC0415
    from neve_cli.backfill_offer import counted_fields  # noqa: PLC0415
    from neve_cli.backfill_watching import summary  # noqa: PLC0415

    deployed = _find(stack_name)
    found = deployed.backfills.all(newest_first=False)
    if last is not None:
        found = iter(list(islice(deployed.backfills.all(), last))[::-1])
    standing = ((each, together(deployed.backfills.shards(each.id)).counted) for each in found)
    if as_json:
        output.array(summary(each) | counted_fields(so_far) for each, so_far in standing)
        return
    output.table(
        ("ID", "BEGUN (UTC)", "ENDED (UTC)", "STATE", "VERSIONS", "BYTES", "FROZEN", "PREFIX"),
        (
            (
                each.id,
                moment(each.begun_at),
                moment(each.ended_at),
                f"{each.state.value}{', dry run' if each.dry_run else ''}",
                f"{so_far.versions:,}",
                size(so_far.size_bytes),
                f"{so_far.frozen:,}",
                safe(each.prefix) or "-",
            )
            for each, so_far in standing
        ),
        right=frozenset({4, 5, 6}),
    )


@app.command()
def stop(
    backfill_id: Id,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Announce nothing more; `resume` goes on from there.

    What was announced is archived. Exit status 1 if it does not run.
    """
    from neve.domain.backfill import BackfillState  # noqa: PLC0415
    from neve_cli.backfill_watching import summary  # noqa: PLC0415

    deployed = _find(stack_name)
    this = _known(deployed, backfill_id)
    stopped = this.state is BackfillState.RUNNING and (dry_run or deployed.backfills.stop(this.id, clock.now()))
    if not stopped:
        this = _known(deployed, this.id)
        typer.echo(f"neve: backfill {this.id} is {this.state}: there is nothing to stop.", err=True)
        raise typer.Exit(PROBLEM)
    if as_json:
        output.document(summary(_known(deployed, this.id)) | {"only_said": dry_run})
        return
    typer.echo(f"backfill {this.id} {'would be' if dry_run else 'is'} stopped: its shards end with their next batch")
    typer.echo(f"  what was announced is archived; to go on: neve backfill resume {this.id}")


@app.command()
def resume(
    backfill_id: Id,
    *,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            metavar="N",
            min=0,
            help="From now on announce at most N versions a second; 0 is no limit.",
            show_default="as before",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it has ended.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Go on with a backfill that was stopped, or whose execution has died or was never started.

    Each shard goes on where it stands; at most one batch of each is announced twice, which does no harm. Exit status 1
    if there is nothing to resume, or with --wait if it has not come to its end.
    """
    from neve.domain.backfill import BackfillState  # noqa: PLC0415
    from neve_cli.backfill_watching import look, summary  # noqa: PLC0415

    deployed = _find(stack_name)
    sight = look(deployed, _known(deployed, backfill_id))
    this, now = sight.backfill, clock.now()
    if this.state is BackfillState.RUNNING and sight.execution and sight.execution.alive:
        typer.echo(f"neve: backfill {this.id} is running. To change its rate, stop it first.", err=True)
        raise typer.Exit(PROBLEM)
    resumed: Backfill | None = None
    if this.state is not BackfillState.FINISHED:
        resumed = this if dry_run else deployed.backfills.resume(this.id, now, rate=rate)
    if resumed is None:
        typer.echo(f"neve: backfill {this.id} is finished: there is nothing to resume.", err=True)
        raise typer.Exit(PROBLEM)
    if not dry_run:
        _start(deployed, resumed)
    if wait and not dry_run:
        _show(deployed, _wait(deployed, resumed, now, quiet=as_json), waited=True, as_json=as_json)
    elif as_json:
        output.document(summary(resumed) | {"only_said": dry_run})
    else:
        typer.echo(f"backfill {this.id} {'would go on' if dry_run else 'goes on'}")
        if not dry_run:
            _tell_how(resumed)


def _find(stack_name: str) -> stack.Stack:
    """The stacks. Raises StackOutdated if they have no machine for backfills."""
    deployed = stack.find(stack_name)
    if "BackfillStateMachine" not in deployed.outputs:
        raise stack.StackOutdated(
            f"The stacks {stack_name} were deployed by an older neve, which had no backfill. Deploy them again: "
            "`cdk deploy --all`, or `neve local up`."
        )
    return deployed


def _known(deployed: stack.Stack, backfill_id: str | None) -> Backfill:
    """The backfill of this id, or the newest. Ends the command if there is none."""
    if backfill_id is None:
        newest = next(deployed.backfills.all(), None)
        if newest is not None:
            return newest
        typer.echo(
            "neve: there is no backfill yet; `neve backfill --dry-run` counts what there is to archive.", err=True
        )
        raise typer.Exit(PROBLEM)
    this = deployed.backfills.get(backfill_id)
    if this is None:
        typer.echo(f"neve: there is no backfill {safe(backfill_id)}; `neve backfill list` lists them.", err=True)
        raise typer.Exit(PROBLEM)
    return this


def _refuse_overlap(deployed: stack.Stack, asked: Backfill, *, yes: bool) -> None:
    """Of two backfills over the same keys each announces all of them: that does no harm, and costs twice."""
    from neve.domain.backfill import BackfillState  # noqa: PLC0415

    for each in deployed.backfills.all():
        overlaps = each.prefix.startswith(asked.prefix) or asked.prefix.startswith(each.prefix)
        if overlaps and each.state is BackfillState.RUNNING and not each.dry_run and not yes:
            typer.echo(
                f"neve: backfill {each.id} is running over the same keys, and both would announce them. "
                f"`neve backfill status {each.id}` shows how it goes; --yes begins this one all the same.",
                err=True,
            )
            raise typer.Exit(PROBLEM)


def _start(deployed: stack.Stack, this: Backfill) -> None:
    """Start the execution of this attempt. The row is there: who dies before this leaves a backfill to be resumed."""
    try:
        deployed.backfill_machine.start(this.execution, {"backfill": this.id})
    except BaseException:
        typer.echo(
            f"neve: backfill {this.id} is noted, and perhaps not started: `neve backfill status {this.id}` tells, "
            f"`neve backfill resume {this.id}` starts it.",
            err=True,
        )
        raise


def _wait(deployed: stack.Stack, this: Backfill, since: datetime, *, quiet: bool) -> Sight:
    from neve_cli.backfill_watching import going_on, wait  # noqa: PLC0415

    with going_on(this.id):
        return wait(deployed, this, since=since, quiet=quiet)


def _tell_how(this: Backfill) -> None:
    typer.echo(f"  how it goes:  neve backfill status {this.id}")
    typer.echo(f"  to stop it:   neve backfill stop {this.id}")


def _show(deployed: stack.Stack, sight: Sight, *, as_json: bool, waited: bool = False) -> None:
    """Print how a backfill stands, and what a finished dry run has found.

    Raises typer.Exit if it stands still, or was `waited` for and has not come to its end.
    """
    from neve.domain.backfill import BackfillState  # noqa: PLC0415
    from neve_cli.backfill_offer import make_offer, offer_fields, show_offer  # noqa: PLC0415
    from neve_cli.backfill_watching import fields, show  # noqa: PLC0415

    this = sight.backfill
    offer = None
    if this.dry_run and this.state is BackfillState.FINISHED:
        offer = make_offer(deployed, this, sight.totals.counted, this)
    if as_json:
        output.document(fields(sight) | {"offer": offer_fields(offer) if offer else None})
    else:
        show(sight)
        if offer:
            show_offer(offer, this)
    if sight.trouble or (waited and this.state is not BackfillState.FINISHED):
        raise typer.Exit(PROBLEM)

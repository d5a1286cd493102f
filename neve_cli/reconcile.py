"""`neve reconcile`: hold bucket, index and archives against each other now, and see what earlier passes found."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.groups import RunsByDefault
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import counted, moment, safe

if TYPE_CHECKING:
    from neve.domain.reconcile import Finding, Outcome, Pass

INTERRUPTED = 130


app = typer.Typer(
    cls=RunsByDefault,
    help="Hold the content bucket, the index and the archive bucket against each other. Without a command: run.",
)


@app.command()
def run(
    boundary: Annotated[
        list[str] | None,
        typer.Option(
            "--boundary",
            metavar="KEY",
            help="Divide the content bucket at this key, so that its parts are worked off side by side. Any number.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the pass has ended.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Begin a pass now, as the schedule does every week.

    Every version in the content bucket is held against the index, every row of the index against the archives, every
    archive against its object, manifest and rows. What was never archived is collected again, rows that are missing
    come back; nothing is deleted or overwritten. The topic for alerts is told if anything was found.

    With --wait, the exit status is 1 unless all agrees.
    """
    from neve.domain.reconcile import Pass, StartRequest, in_order, pass_id, render_start, shards  # noqa: PLC0415

    try:
        boundaries = in_order(boundary or ())
    except ValueError as error:
        raise typer.BadParameter(f"--boundary: {error}") from error
    deployed = stack.find(stack_name)
    now = clock.now()
    begun = pass_id(now, secrets.token_hex(3))
    if dry_run:
        parts = len(shards(Pass(id=begun, begun_at=now, boundaries=boundaries, serials=deployed.archives.drawn())))
        if as_json:
            output.document({"pass": None, "dry_run": True, "shards": parts})
        else:
            also = "; with an S3 Inventory one more for each of its files"
            typer.echo(f"a pass would have {counted(parts, 'shard')}{also}; nothing was sent")
        return
    deployed.reconciles_queue.send(render_start(StartRequest(id=begun, boundaries=boundaries)))
    if wait:
        if not as_json:
            typer.echo(f"pass {begun}")
        _show(deployed, _wait(deployed, begun, quiet=as_json), as_json=as_json)
    elif as_json:
        output.document({"pass": begun, "dry_run": False})
    else:
        typer.echo(f"pass {begun}\n  how it goes:  neve reconcile show {begun}")


@app.command("list")
def list_passes(
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N.", show_default="all")
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """All passes, and what they found."""
    from neve.domain.reconcile import METRICS, summary  # noqa: PLC0415

    deployed = stack.find(stack_name)
    found = deployed.reconciles.passes(newest_first=False)
    if last is not None:
        found = iter(list(islice(deployed.reconciles.passes(), last))[::-1])
    if as_json:
        output.array(summary(each) for each in found)
        return
    output.table(
        ("ID", "BEGUN (UTC)", "ENDED (UTC)", "SHARDS", *(name.upper() for name in METRICS), "RESULT"),
        (
            (
                each.id,
                moment(each.begun_at),
                moment(each.finished_at),
                f"{each.done_shards:,}/{each.shards:,}",
                *(f"{sum(each.counts.get(outcome, 0) for outcome in outcomes):,}" for outcomes in METRICS.values()),
                _result(each),
            )
            for each in found
        ),
        right=frozenset(range(3, 4 + len(METRICS))),
    )


@app.command()
def show(
    pass_id: Annotated[str, typer.Argument(metavar="ID", help="As `neve reconcile list` shows it.")],
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """One pass: what it counted, the first findings of each problem, and what to do about them.

    Exit status 1 if it found a problem, could not begin or did not end.
    """
    from neve_cli.watching import is_young  # noqa: PLC0415

    deployed = stack.find(stack_name)
    found = deployed.reconciles.get(pass_id)
    if found is not None:
        _show(deployed, found, as_json=as_json)
    elif is_young(pass_id, clock.now()):
        if as_json:
            output.document({"pass": pass_id, "state": "not begun yet"})
        else:
            typer.echo(f"pass {pass_id} is not begun yet: it was asked for a moment ago.")
    else:
        typer.echo(f"neve: there is no pass {safe(pass_id)}; `neve reconcile list` lists them.", err=True)
        raise typer.Exit(PROBLEM)


def _wait(deployed: stack.Stack, pass_id: str, *, quiet: bool) -> Pass:
    """The pass when it has ended; tells what has changed meanwhile. Raises Transient if looking keeps failing."""
    from neve.domain.reconcile import PassState  # noqa: PLC0415
    from neve.errors import Transient  # noqa: PLC0415
    from neve_cli.watching import LONGEST_S, PATIENCE, SHORTEST_S  # noqa: PLC0415

    begun, failures, said = clock.now(), 0, ""
    try:
        while True:
            try:
                found = deployed.reconciles.get(pass_id)
                line = _progress(found, _standing(deployed, found)[0]) if found else "not begun yet"
                failures = 0
            except Transient:
                failures += 1
                if failures == PATIENCE:
                    raise
            else:
                if line != said and not quiet:
                    typer.echo(f"{moment(clock.now())}  {line}")
                said = line
                if found is not None and found.state is PassState.FINISHED:
                    return found
            passed = (clock.now() - begun).total_seconds()
            clock.pause(min(max(SHORTEST_S, passed / 60), LONGEST_S))
    except KeyboardInterrupt as interrupt:
        typer.echo(f"neve: pass {pass_id} goes on without this command: `neve reconcile show {pass_id}`.", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt


def _standing(deployed: stack.Stack, this: Pass) -> tuple[Mapping[Outcome, int], Sequence[Finding]]:
    """What a pass has counted and found so far. Shards expire, the counts of a finished pass stay."""
    from neve.domain.reconcile import PassState, together  # noqa: PLC0415

    counts, findings = together(deployed.reconciles.shards(this.id))
    return (this.counts if this.state is PassState.FINISHED else counts), findings


def _problems(counts: Mapping[Outcome, int]) -> dict[Outcome, int]:
    from neve.domain.reconcile import PROBLEMS, Outcome  # noqa: PLC0415

    return {outcome: counts[outcome] for outcome in Outcome if outcome in PROBLEMS and counts.get(outcome)}


def _progress(this: Pass, counts: Mapping[Outcome, int]) -> str:
    problems = sum(_problems(counts).values())
    return (
        f"{this.done_shards:,} of {counted(this.shards, 'shard')} done, {sum(counts.values()):,} versions, rows and "
        f"archives seen, {counted(problems, 'problem')}"
    )


def _result(this: Pass) -> str:
    """What came of it, in a few words."""
    if this.finished_at is None:
        return "running"
    if this.refused:
        return "could not begin"
    if not this.complete:
        return "did not end"
    return (
        "clean"
        if this.clean
        else ", ".join(f"{number:,} {outcome}" for outcome, number in _problems(this.counts).items())
    )


def _show(deployed: stack.Stack, this: Pass, *, as_json: bool) -> None:
    """Print the pass. Raises typer.Exit if it has ended and is not clean."""
    from neve.domain.reconcile import Outcome, PassState, finding_fields, summary  # noqa: PLC0415

    counts, findings = _standing(deployed, this)
    if as_json:
        standing = {outcome.value: counts[outcome] for outcome in Outcome if counts.get(outcome)}
        told = summary(this) | {"counts": standing, "findings": [finding_fields(each) for each in findings]}
        output.document(told)
    else:
        _print(this, counts, findings)
    if this.state is PassState.FINISHED and not this.clean:
        raise typer.Exit(PROBLEM)


def _print(this: Pass, counts: Mapping[Outcome, int], findings: Sequence[Finding]) -> None:
    from neve.domain.reconcile import REMEDIES, Outcome  # noqa: PLC0415

    typer.echo(f"pass {this.id}: {_result(this)}")
    ended = f", ended {moment(this.finished_at)}" if this.finished_at else ""
    typer.echo(
        f"  begun {moment(this.begun_at)} UTC{ended}; {this.done_shards:,} of {counted(this.shards, 'shard')} done"
    )
    if this.inventory:
        typer.echo(f"  content bucket by its inventory: {safe(this.inventory)}")
    if this.refused:
        typer.echo(f"  {safe(this.refused)}")
    for outcome in Outcome:
        if counts.get(outcome):
            typer.echo(f"  {counts[outcome]:>14,}  {outcome}")
    for outcome, number in _problems(counts).items():
        examples = [each for each in findings if each.outcome is outcome]
        typer.echo(f"\n{outcome}: {number:,}")
        for each in examples:
            typer.echo(f"  {_where(each)}")
        if number > len(examples):
            typer.echo(f"  and {number - len(examples):,} more")
        typer.echo(f"  Next: {REMEDIES[outcome]}")


def _where(finding: Finding) -> str:
    where = []
    if finding.archive:
        where.append(f"archive {finding.archive}")
    if finding.key:
        where.append(f"{safe(finding.key)} version {safe(finding.pin)}")
    return ": ".join([*where, safe(finding.detail)] if finding.detail else where)

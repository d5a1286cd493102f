"""`neve jobs` and `neve cancel`: restores that were asked for, how they go, and ending them."""

from __future__ import annotations

import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import counted, iso, moment, safe, size, usd

if TYPE_CHECKING:
    from neve.domain.restore import Job, Share
    from neve_cli.watching import Sight, Waiting

SHOWN_ARCHIVES = 20
THREADS = 16


def jobs(
    job_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Show how this job goes.", show_default=False)
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.", show_default=False)] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="With an ID: list every file and archive, not only the first that did not end well."
        ),
    ] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """List restores; with an ID, what one still waits for and which files did not end well.

    Exit status 1 if there is no job with this ID, or it has ended and not every file is where it was wanted.
    """
    if job_id is not None and last is not None:
        raise typer.BadParameter("--last is for the list of all jobs; leave it out, or the ID")
    if job_id is None and everything:
        raise typer.BadParameter("--all goes with an ID; without one, all jobs are listed anyway")
    deployed = stack.find(stack_name)
    if job_id is None:
        _list(deployed, last, as_json=as_json)
    else:
        _one(deployed, job_id, everything=everything, as_json=as_json)


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be cancelled.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """End a restore: what is not being extracted this moment is not restored any more.

    Exit status 1 if there is no such job, or it has ended already.
    """
    from neve.domain.restore import JobState  # noqa: PLC0415

    deployed = stack.find(stack_name)
    job = known(deployed, job_id)
    if job is None:
        typer.echo(f"neve: job {safe(job_id)} is not planned yet. Try again in a moment.", err=True)
        raise typer.Exit(PROBLEM)
    if job.state is JobState.FINISHED:
        typer.echo(f"neve: job {job.id} ended at {moment(job.finished_at)} UTC; there is nothing to cancel.", err=True)
        raise typer.Exit(PROBLEM)
    if dry_run:
        files = sum(share.files for share in deployed.restores.waiting_of(job.id))
        left = files
    else:
        files, left = _cancel(deployed, job)
    if as_json:
        told = {"job": job.id, "dry_run": dry_run, "cancelled_files": files, "being_extracted": 0 if dry_run else left}
        output.document(told)
        return
    typer.echo(f"job {job.id}: {counted(files, 'file')} {'would be ' if dry_run else ''}cancelled")
    if not dry_run and left:
        typer.echo(f"  {counted(left, 'file')} are being extracted: that ends by itself")
    if not job.planned and not job.given_up_at:
        typer.echo("  parts of it that are not planned yet will not be")
    typer.echo("  files that are restored stay; thaws that were asked for go on and are paid for")


def known(deployed: stack.Stack, job_id: str) -> Job | None:
    """The job; None if it is so young that PlanRestore may not have seen it. Ends the command if there is none."""
    from neve_cli.watching import is_young  # noqa: PLC0415

    job = deployed.restores.job(job_id)
    if job is None and not is_young(job_id, clock.now()):
        typer.echo(f"neve: there is no job {safe(job_id)}; `neve jobs` lists them.", err=True)
        raise typer.Exit(PROBLEM)
    return job


def _cancel(deployed: stack.Stack, job: Job) -> tuple[int, int]:
    """Cancel the job: how many files that ended, and how many are being extracted by somebody."""
    from neve.domain.restore import Ending  # noqa: PLC0415
    from neve.flows.jobs import JobEnder, end_unfetched  # noqa: PLC0415

    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    # First that it is cancelled, then what waits: PlanRestore adds what waits, then looks whether it is cancelled.
    deployed.restores.cancel(job.id, clock.now())

    def end(share: Share) -> tuple[int, int]:
        ended = end_unfetched(
            deployed.restores, [share], Ending.CANCELLED, "cancelled by an operator", owner=owner, clock=clock.now
        )
        return ended, share.files - ended

    files = left = 0
    waiting = deployed.restores.waiting_of(job.id)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(islice(waiting, 1_000)):
            for ended, still in pool.map(end, some):
                files, left = files + ended, left + still
    if not job.planned:
        deployed.restores.give_up(job.id, clock.now())
    JobEnder(restores=deployed.restores, topic=deployed.restored_topic, clock=clock.now).end(job.id)
    return files, left


def _state(job: Job) -> str:
    if job.cancelled_at:
        return "cancelled" if job.finished_at else "cancelling"
    return job.state.value


def _list(deployed: stack.Stack, last: int | None, *, as_json: bool) -> None:
    from neve.domain.restore import summary  # noqa: PLC0415
    from neve_cli.endings import not_well  # noqa: PLC0415

    found = deployed.restores.jobs(newest_first=False)
    if last is not None:
        found = iter(list(islice(deployed.restores.jobs(newest_first=True), last))[::-1])
    if as_json:
        output.array(summary(job) for job in found)
        return
    output.table(
        ("ID", "CREATED (UTC)", "STATE", "TIER", "FILES", "BYTES", "DONE", "NOT WELL", "ESTIMATE"),
        (
            (
                job.id,
                moment(job.created_at),
                _state(job),
                job.need.tier.value,
                f"{job.files:,}",
                size(job.size_bytes),
                f"{job.ended_files:,}",
                f"{not_well(job):,}",
                usd(job.estimate_usd),
            )
            for job in found
        ),
        right=frozenset({4, 5, 6, 7, 8}),
    )


def _one(deployed: stack.Stack, job_id: str, *, everything: bool, as_json: bool) -> None:
    from neve.domain.restore import GOOD, JobState, summary  # noqa: PLC0415
    from neve_cli.endings import not_well, result_fields, tell_results  # noqa: PLC0415
    from neve_cli.watching import Watcher  # noqa: PLC0415

    if known(deployed, job_id) is None:
        if as_json:
            output.document({"job": job_id, "state": "not planned yet"})
        else:
            typer.echo(f"job {job_id} is not planned yet: it was sent a moment ago, and its first part has not come.")
        return
    sight = Watcher(deployed, job_id).look()
    job = sight.job
    assert job is not None, "jobs are never deleted"
    results = (each for each in deployed.restores.results(job_id) if everything or each.ending not in GOOD)
    if as_json:
        fields = {**summary(job), "waiting": [_waiting_fields(each, sight) for each in sight.waiting]}
        output.document_with(fields, "items" if everything else "not_well", map(result_fields, results))
    else:
        _show(job, sight, everything=everything)
        if everything or not_well(job):
            typer.echo("  files" if everything else "  not well")
        tell_results(results, job.id, everything=everything)
    if job.state is JobState.FINISHED and not job.good:
        raise typer.Exit(PROBLEM)


def _waiting_fields(waiting: Waiting, sight: Sight) -> dict[str, Any]:
    from neve.domain.restore import Kind  # noqa: PLC0415
    from neve_cli.watching import told_of_thaw  # noqa: PLC0415

    thaw = waiting.thaw
    return {
        "archive": waiting.archive,
        "files": sum(waiting.files.values()),
        "local_files": waiting.files.get(Kind.LOCAL, 0),
        "size_bytes": waiting.size_bytes,
        "readable": waiting.readable,
        "thaw": told_of_thaw(waiting, sight.now),
        "tier": thaw.tier.value if thaw else None,
        "fell_back": thaw.fell_back if thaw else False,
        "ready_at": iso(thaw.ready_at) if thaw else None,
        "warm_until": iso(thaw.warm_until) if thaw else None,
    }


def _show(job: Job, sight: Sight, *, everything: bool) -> None:
    from neve_cli.endings import endings, lost  # noqa: PLC0415
    from neve_cli.watching import fell_back, told_of_thaw  # noqa: PLC0415

    typer.echo(f"job {job.id}, {_state(job)}, {job.need.tier}")
    typer.echo(f"  asked for  {moment(job.created_at)} UTC, estimated at {usd(job.estimate_usd)}")
    if not job.planned and not job.given_up_at:
        typer.echo(f"  planned    {job.planned_chunks:,} of {counted(job.chunks, 'part')}: the numbers will grow")
    for problem in lost(job):
        typer.echo(f"  ! {problem}")
    typer.echo(f"  files      {job.files:,}, {size(job.size_bytes)}")
    typer.echo(f"  done       {job.ended_files:,}: {endings(job)}; {size(job.restored_bytes)} restored")
    if job.finished_at:
        typer.echo(f"  ended      {moment(job.finished_at)} UTC")
    if sight.local_files:
        files = counted(sight.local_files, "file")
        typer.echo(f"  local      {files} to be fetched: `neve restore --resume {job.id}`")
    if fell_back(sight):
        typer.echo(f"  ! {counted(fell_back(sight), 'thaw')} fell back to standard: expedited was not to be had")
    if not sight.waiting:
        return
    shown = sight.waiting if everything else sight.waiting[:SHOWN_ARCHIVES]
    typer.echo(f"  waits for  {counted(len(sight.waiting), 'archive')}")
    output.table(
        ("ARCHIVE", "FILES", "BYTES", "DUE (UTC)", "THAW"),
        (
            (
                str(each.archive),
                f"{sum(each.files.values()):,}",
                size(each.size_bytes),
                moment(each.thaw.ready_at) if each.thaw and not each.readable else "-",
                told_of_thaw(each, sight.now),
            )
            for each in shown
        ),
        right=frozenset({0, 1, 2}),
    )
    if len(shown) < len(sight.waiting):
        typer.echo(f"and {counted(len(sight.waiting) - len(shown), 'archive')} more: --all")

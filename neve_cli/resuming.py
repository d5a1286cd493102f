"""`neve restore --resume`: files for local folders, as far as they are thawed; what expired is asked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import typer

from neve.domain.restore import GOOD, KEEP, Ending, Job, JobState, Kind, Result, Wanted, summary
from neve_cli import asking, clock, output
from neve_cli.endings import result_fields, tell_end, tell_results
from neve_cli.failures import PROBLEM
from neve_cli.fetching import Fetcher
from neve_cli.jobs import known
from neve_cli.offers import Order
from neve_cli.restore_plan import Plan
from neve_cli.stack import Stack
from neve_cli.text import counted, iso, moment
from neve_cli.watching import Sight, Watcher


def resume(deployed: Stack, order: Order, job_id: str | None) -> None:
    """Go on with the local files of a job, the newest that has any if none is named."""
    job = known(deployed, job_id) if job_id else _newest(deployed)
    if job is None:
        if job_id is None:
            typer.echo(
                "neve: no job of the last 90 days has local files that wait or have expired: `neve jobs`.", err=True
            )
            raise typer.Exit(PROBLEM)
        typer.echo(f"neve: job {job_id} is not planned yet. Try again in a moment.", err=True)
        raise typer.Exit(PROBLEM)
    if not order.as_json:
        typer.echo(f"job {job.id}")
    resumed, job, good = _fetch(deployed, order, job)
    if job.ended.get(Ending.EXPIRED):
        again = replace(order, overwrite=job.overwrite)
        asking.request(deployed, again, lambda plan: _expired(deployed, job, plan), need=job.need, resumed=resumed)
    elif order.as_json:
        output.document({"job": job.id, "dry_run": order.dry_run, "resumed": resumed})
    if not good:
        raise typer.Exit(PROBLEM)


def _newest(deployed: Stack) -> Job | None:
    """The newest job with local files that wait or have expired; older results than KEEP are gone."""
    for job in deployed.restores.jobs(newest_first=True):
        if job.created_at + KEEP < clock.now():
            return None
        if job.ended.get(Ending.EXPIRED):
            return job
        if job.state is JobState.RUNNING and any(
            share.kind is Kind.LOCAL for share in deployed.restores.waiting_of(job.id)
        ):
            return job
    return None


def _fetch(deployed: Stack, order: Order, job: Job) -> tuple[dict[str, Any], Job, bool]:
    """Fetch what is thawed, or with --wait all: what was done, for JSON, the job, and whether it went well.

    What has expired counts neither way: it is asked for again.
    """
    results: list[Result] = []
    endings: Counter[Ending] = Counter()

    def note(result: Result) -> None:
        endings[result.ending] += 1
        if result.ending not in GOOD:
            results.append(result)

    watcher = Watcher(deployed, job.id)
    sight = watcher.look()
    fetcher = Fetcher(deployed, job.id, on_result=note)
    if order.dry_run:
        _tell_waiting(sight, order)
        return _resumed(job, sight, endings, []), job, True
    if order.wait and job.state is JobState.RUNNING:
        ended = asking.watch(
            deployed, job.id, files=job.files, archives=len(sight.waiting), order=order, fetcher=fetcher
        )
        if not order.as_json:
            tell_end(ended, deployed.restores.results(job.id))
        well = not ended.missing_chunks and {each for each in ended.ended if ended.ended[each]} <= GOOD | {
            Ending.EXPIRED
        }
        return _resumed(ended, watcher.look(), endings, results), ended, well
    with asking.going_on(job.id, fetcher.let_go):
        while fetcher.fetch(sight):
            sight = watcher.look()
    if not order.as_json:
        typer.echo(f"{counted(endings.total(), 'file')} fetched: {_counts(endings)}")
        tell_results(results, job.id)
        for archive, until in fetcher.busy.items():
            typer.echo(f"  archive {archive} is being fetched by another process, until {moment(until)} UTC at most")
        _tell_waiting(sight, order)
    return _resumed(sight.job or job, sight, endings, results), sight.job or job, not results


def _tell_waiting(sight: Sight, order: Order) -> None:
    if sight.local_files and not order.as_json:
        ready = f", thawed by {moment(sight.ready_at)} UTC" if sight.ready_at else ""
        typer.echo(f"{counted(sight.local_files, 'local file')} still to be fetched{ready}")


def _counts(endings: Counter[Ending]) -> str:
    return ", ".join(f"{endings[ending]:,} {ending}" for ending in Ending if endings[ending]) or "nothing is thawed"


def _resumed(job: Job, sight: Sight, endings: Counter[Ending], not_well: list[Result]) -> dict[str, Any]:
    return {
        **summary(job),
        "fetched": {ending.value: count for ending, count in endings.items()},
        "not_well": [result_fields(result) for result in not_well],
        "local_files_waiting": sight.local_files,
        "ready_at": iso(sight.ready_at),
    }


def _expired(deployed: Stack, job: Job, plan: Plan) -> None:
    """Plan again what expired before it was fetched, for the same places."""

    def wanted() -> Iterator[Wanted]:
        for result in deployed.restores.results(job.id):
            if result.ending is Ending.EXPIRED:
                item = result.item
                yield Wanted(key=item.key, pin=item.pin, destination=item.destination)

    plan.want(wanted())

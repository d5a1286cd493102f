"""Asks for restores: plan them, show what they take, send them, and stay with them if that is wanted."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from typing import Any

import typer

from neve.domain.restore import GOOD, Job, Request, Result, render_request, summary
from neve.domain.thaw import Need
from neve_cli import output
from neve_cli.endings import result_fields, tell_end
from neve_cli.failures import PROBLEM
from neve_cli.fetching import Fetcher
from neve_cli.local_files import FolderMissing
from neve_cli.offers import Offer, Order, make_offer, offer_fields, show_offer
from neve_cli.restore_plan import Plan, Problem
from neve_cli.stack import Stack
from neve_cli.text import counted, moment, safe
from neve_cli.watching import Watcher, shown

INTERRUPTED = 130
SENDERS = 8
SHOWN_PROBLEMS = 100
SHOWN_CHARACTERS = 200
"""Of a source that is refused; a key has up to 1,024 bytes."""


def request(
    deployed: Stack,
    order: Order,
    fill: Callable[[Plan], None],
    *,
    at: datetime | None = None,
    need: Need | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> None:
    """Plan what `fill` adds, show what it takes, send it, and stay with it if that is wanted.

    `need` is what an earlier job asked of its thaws, `resumed` what was just done for that one. Raises typer.Exit with
    the exit status unless all is well.
    """
    problems = _Problems()
    with (
        _kept_on_disk(),
        counting() as found,
        closing(
            Plan(
                index=deployed.files,
                manifest=deployed.store.manifest,
                places=deployed.places,
                report=problems.tell,
                at=at,
                overwrite=order.overwrite,
                found=found,
            )
        ) as plan,
    ):
        fill(plan)
        plan.settle()
        offer = make_offer(deployed, order, plan, need)
        found(0)
        refused = offer.refusal(order)
        if not order.as_json:
            show_offer(offer, plan if order.dry_run else None)
        sent = not refused and not order.dry_run and offer.summary.files > 0
        if sent:
            _send(deployed, plan, offer, order)
    if refused:
        typer.echo(f"neve: {refused}", err=True)
    job: Job | None = None
    if sent and not order.as_json:
        _tell_sent(offer, order)
    if sent and order.wait:
        job = watch(deployed, offer.job, files=offer.summary.files, archives=offer.summary.archives, order=order)
    if order.as_json:
        fields = {
            "job": offer.job if sent else None,
            "dry_run": order.dry_run,
            "refused": refused,
            **offer_fields(offer),
            "first_problems": [
                {"line": each.line, "source": each.source, "reason": each.reason} for each in problems.first
            ],
            "resumed": resumed,
            "result": summary(job) if job else None,
        }
        output.document_with(fields, "not_well", map(result_fields, _not_well(deployed, job)))
    elif job:
        tell_end(job, deployed.restores.results(job.id))
    if refused or offer.summary.problems or (job and not job.good):
        raise typer.Exit(PROBLEM)


@contextmanager
def _kept_on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        typer.echo(
            f"neve: what was found cannot be kept on disk: {error}. A million files take some 500 MB; the variable "
            "SQLITE_TMPDIR names the folder, which is otherwise /var/tmp or /tmp.",
            err=True,
        )
        raise typer.Exit(PROBLEM) from error


@contextmanager
def counting() -> Iterator[Callable[[int], None]]:
    """Something that shows how many files were found so far, where somebody sees it; 0 ends that."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status("looking up what is wanted") as status:

        def show(number: int) -> None:
            status.update(f"looking up what is wanted: {number:,} files") if number else status.stop()

        yield show


class _Problems:
    """Tells problems as they come, and keeps the first of them."""

    def __init__(self) -> None:
        self.first: list[Problem] = []

    def tell(self, problem: Problem) -> None:
        where = f"line {problem.line}: " if problem.line else ""
        source = problem.source
        if len(source) > SHOWN_CHARACTERS:
            source = f"{source[:SHOWN_CHARACTERS]}..."
        typer.echo(f"neve: {where}{safe(source)}: {safe(problem.reason)}", err=True)
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(problem)


def _send(deployed: Stack, plan: Plan, offer: Offer, order: Order) -> None:
    """Send the job to PlanRestore, chunk by chunk."""
    try:
        plan.make_folders()
    except OSError as error:
        typer.echo(f"neve: the folder cannot be made, so nothing was sent: {error}", err=True)
        raise typer.Exit(PROBLEM) from error
    number = 0

    def messages() -> Iterator[str]:
        for chunk, items in enumerate(plan.chunks(), start=1):
            yield render_request(
                Request(
                    job=offer.job,
                    chunk=chunk,
                    chunks=offer.summary.chunks,
                    created_at=offer.created_at,
                    need=offer.need,
                    overwrite=order.overwrite,
                    estimate_usd=round(offer.usd, 6),
                    items=tuple(items),
                )
            )

    queue = deployed.requests_queue
    with ThreadPoolExecutor(SENDERS) as pool, _told_if_cut_short(offer, lambda: number):
        waiting = messages()
        while some := list(islice(waiting, SENDERS)):
            for _ in pool.map(queue.send, some):
                number += 1


@contextmanager
def _told_if_cut_short(offer: Offer, sent: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if sent():
            typer.echo(
                f"neve: only {sent():,} of {offer.summary.chunks:,} parts of job {offer.job} were sent, and those are "
                f"being restored. `neve cancel {offer.job}` ends it; asking again restores only what is not there yet.",
                err=True,
            )
        raise


def _tell_sent(offer: Offer, order: Order) -> None:
    typer.echo(f"job {offer.job}")
    if order.wait:
        return
    typer.echo(f"  how it goes:   neve jobs {offer.job}")
    if offer.summary.local_files:
        files = counted(offer.summary.local_files, "file")
        typer.echo(
            f"  local folders: {files} will be fetched by `neve restore --resume {offer.job}` once thawed, by "
            f"{moment(offer.summary.estimate.ready_at)} UTC; the thawed copies stay {counted(offer.need.days, 'day')}"
        )


def watch(
    deployed: Stack, job_id: str, *, files: int, archives: int, order: Order, fetcher: Fetcher | None = None
) -> Job:
    """Stay until the job has ended, fetch what is for this machine, and show how it goes."""
    fetcher = fetcher or Fetcher(deployed, job_id)
    with going_on(job_id, fetcher.let_go), shown(files=files, archives=archives, quiet=order.as_json) as show:
        return Watcher(deployed, job_id).wait(show, fetcher.fetch)


@contextmanager
def going_on(job_id: str, let_go: Callable[[], None]) -> Iterator[None]:
    """Whatever ends the watching, the job goes on: say so, and how to look."""
    hint = (
        f"job {job_id} goes on without this command: `neve jobs {job_id}`; "
        f"for its local files: `neve restore --resume {job_id}`."
    )
    try:
        yield
    except KeyboardInterrupt as interrupt:
        let_go()
        typer.echo(f"neve: {hint}", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
    except FolderMissing as error:
        typer.echo(f"neve: {error}", err=True)
        raise typer.Exit(PROBLEM) from error
    except Exception:
        typer.echo(f"neve: {hint}", err=True)
        raise


def _not_well(deployed: Stack, job: Job | None) -> Iterator[Result]:
    """The files of a finished job that are not where they were wanted."""
    return (result for result in deployed.restores.results(job.id) if result.ending not in GOOD) if job else iter(())

"""Looks at a run of audits while it goes, and at the repairs that it orders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import typer

from neve.domain.audit import Report, Run
from neve.domain.parked import Parked, Reason
from neve_cli import clock
from neve_cli.text import counted, moment, size
from neve_cli.watching import PLANNED_WITHIN, wait_until

if TYPE_CHECKING:
    from neve_cli.stack import Stack

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What has become of a repair. `archive` stands for the damaged one, 0 if none does (yet).

    `lost` are parked versions that are intact nowhere, `unrepaired` those of which that is not known.
    """

    bundle: str
    finished: bool
    archive: int
    lost: tuple[Parked, ...]
    unrepaired: tuple[Parked, ...]

    @property
    def good(self) -> bool:
        """Whether every file is in an archive again."""
        return self.finished and self.archive > 0 and not self.lost and not self.unrepaired


def repaired(deployed: Stack, report: Report) -> Repaired | None:
    """What has become of the repair that an audit ordered; None if it ordered none."""
    if not report.repair:
        return None
    bundle = deployed.bundles.get(report.repair)
    finished = bundle is not None and bundle.finished
    row = deployed.archives.get(report.archive)
    parked = [item for _, item in deployed.parking_lot.all() if item.bundle == report.repair] if finished else []
    return Repaired(
        bundle=report.repair,
        finished=finished,
        archive=row.superseded_by if row else 0,
        lost=tuple(item for item in parked if item.reason is Reason.LOST),
        unrepaired=tuple(item for item in parked if item.reason is Reason.UNREPAIRED),
    )


def wait_for_run(deployed: Stack, run_id: str, show: Callable[[Run | None], None]) -> Run:
    """Look until every audit of the run has ended. Raises Transient if looking keeps failing."""

    def look() -> Run | None:
        run = deployed.audits.run(run_id)
        show(run)
        return run if run is not None and run.complete else None

    return wait_until(look)


def wait_for_repair(deployed: Stack, report: Report) -> Repaired | None:
    """Look until the repair that an audit ordered is written, or given up; None if it ordered none. As wait_for_run."""
    if not report.repair:
        return None

    def look() -> Repaired | None:
        bundle = deployed.bundles.get(report.repair)
        return repaired(deployed, report) if bundle is not None and bundle.finished else None

    return wait_until(look)


@contextmanager
def going_on(run_id: str) -> Iterator[None]:
    """Whatever ends the watching, the run goes on: say so, and how to look."""
    hint = f"run {run_id} goes on without this command: `neve audit show {run_id}`."
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"neve: {hint}", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
    except Exception:
        typer.echo(f"neve: {hint}", err=True)
        raise


@contextmanager
def shown(*, quiet: bool) -> Iterator[Callable[[Run | None], None]]:
    """Something that shows how a run goes: a bar on a terminal, lines elsewhere."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


def verdicts(run: Run) -> str:
    """How the audits of a run ended so far: 3 intact, 1 archive damaged."""
    return ", ".join(f"{count:,} {verdict}" for verdict, count in run.verdicts.items() if count) or "none yet"


@dataclass
class _Lines:
    """Prints a line when something has changed."""

    _last: str = ""

    def __call__(self, run: Run | None) -> None:
        line = "not begun yet"
        if run is not None:
            audits = counted(run.audits, "archive")
            line = f"{run.ended:,} of {audits} compared: {verdicts(run)}; {size(run.size_bytes)} read"
        if line != self._last:
            typer.echo(f"{moment(clock.now())}  {line}")
        self._last = line


@contextmanager
def _bar() -> Iterator[Callable[[Run | None], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        compared = progress.add_task("archives compared", total=None, note="not begun yet")

        def show(run: Run | None) -> None:
            if run is not None:
                note = f"{verdicts(run)}; {size(run.size_bytes)} read"
                progress.update(compared, total=run.audits, completed=run.ended, note=note)

        yield show


def is_young(run_id: str, now: datetime) -> bool:
    """Whether the id is that of a run which may have been sent, and not begun, in the last minutes."""
    try:
        sent_at = datetime.strptime(run_id[:15] + "+0000", "%Y%m%d-%H%M%S%z")
    except ValueError:
        return False
    return now - PLANNED_WITHIN <= sent_at <= now + timedelta(minutes=1)

"""Looks at a job while it runs, and shows how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import typer

from neve.domain.restore import Job, JobState, Kind
from neve.domain.thaw import Thaw, ThawState, needs_thaw
from neve.errors import Transient
from neve_cli import clock
from neve_cli.endings import not_well
from neve_cli.text import counted, moment, size

if TYPE_CHECKING:
    from neve_cli.stack import Stack

THREADS = 16
SHORTEST_S, LONGEST_S = 1.0, 30.0
"""Pauses between two looks: they grow with the time that has passed, since thaws take hours."""
PATIENCE = 10
"""So many looks in a row may fail before the command gives up watching; the job goes on without it."""
PLANNED_WITHIN = timedelta(minutes=15)
"""A job this young may not have reached PlanRestore."""


Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What still waits for one archive: so many files by kind.

    `asleep` says that archives of its class need thaws, `readable` that its bytes can be had now all the same.
    """

    archive: int
    files: Mapping[Kind, int]
    size_bytes: int
    thaw: Thaw | None
    asleep: bool
    readable: bool


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A job at a moment; `job` is None while PlanRestore has not seen it. `waiting` is in the order of archives."""

    job: Job | None
    waiting: tuple[Waiting, ...]
    now: datetime

    @property
    def thawing(self) -> int:
        """How many archives cannot be read yet."""
        return sum(not each.readable for each in self.waiting)

    @property
    def ready_at(self) -> datetime | None:
        """When the last of the thaws that run is promised; None if none runs."""
        running = [each.thaw.ready_at for each in self.waiting if each.thaw and not each.readable]
        return max(running, default=None)

    @property
    def local_files(self) -> int:
        """How many files still wait to be fetched to local folders."""
        return sum(each.files.get(Kind.LOCAL, 0) for each in self.waiting)


@dataclass
class Watcher:
    """Looks at one job, again and again. It remembers which archives need thaws."""

    deployed: Stack
    job_id: str
    _asleep: dict[int, bool] = field(default_factory=dict)

    def look(self) -> Sight:
        """The job as it stands. Raises Transient."""
        job = self.deployed.restores.job(self.job_id)
        files: dict[int, dict[Kind, int]] = {}
        sizes: dict[int, int] = {}
        for share in self.deployed.restores.waiting_of(self.job_id):
            of_archive = files.setdefault(share.archive, {})
            of_archive[share.kind] = of_archive.get(share.kind, 0) + share.files
            sizes[share.archive] = sizes.get(share.archive, 0) + share.size_bytes
        with ThreadPoolExecutor(THREADS) as pool:
            thaws = list(pool.map(self._thaw, sorted(files)))
        now = clock.now()
        waiting = (
            Waiting(
                archive=archive,
                files=files[archive],
                size_bytes=sizes[archive],
                thaw=thaw,
                readable=not asleep or (thaw is not None and thaw.is_warm(now)),
                asleep=asleep,
            )
            for archive, thaw, asleep in thaws
        )
        return Sight(job=job, waiting=tuple(waiting), now=now)

    def _thaw(self, archive: int) -> tuple[int, Thaw | None, bool]:
        if archive not in self._asleep:
            row = self.deployed.archives.get(archive)
            self._asleep[archive] = row is not None and needs_thaw(row.storage_class)
        asleep = self._asleep[archive]
        return archive, self.deployed.thaws.get(archive) if asleep else None, asleep

    def wait(self, show: Callable[[Sight], None], fetch: Callable[[Sight], bool]) -> Job:
        """Look until the job has ended. `fetch` brings home what is for this machine; whether it has done anything.

        Raises Transient if looking keeps failing.
        """
        begun = clock.now()
        failures = 0
        while True:
            try:
                sight = self.look()
                show(sight)
                if sight.job and sight.job.state is JobState.FINISHED:
                    return sight.job
                failures, fetched = 0, fetch(sight)
            except Transient:
                failures, fetched = failures + 1, False
                if failures == PATIENCE:
                    raise
            if not fetched:
                passed = (clock.now() - begun).total_seconds()
                clock.pause(min(max(SHORTEST_S, passed / 60), LONGEST_S))


def wait_until(look: Callable[[], Seen | None]) -> Seen:
    """What `look` returns when it is not None any more. Raises Transient if looking keeps failing."""
    begun, failures = clock.now(), 0
    while True:
        try:
            seen = look()
            failures = 0
        except Transient:
            failures += 1
            if failures == PATIENCE:
                raise
            seen = None
        if seen is not None:
            return seen
        passed = (clock.now() - begun).total_seconds()
        clock.pause(min(max(SHORTEST_S, passed / 60), LONGEST_S))


def told_of_thaw(waiting: Waiting, now: datetime) -> str:
    """How the thaw of an archive stands, for people."""
    thaw = waiting.thaw
    if not waiting.asleep:
        return "needs none"
    if thaw is None:
        return "not asked for yet"
    fell_back = ", as expedited was not to be had" if thaw.fell_back else ""
    if thaw.state is ThawState.WARM:
        until = f"until {moment(thaw.warm_until)}"
        return f"thawed {until}" if waiting.readable else f"expired: thawed {until}"
    if thaw.state is ThawState.CLAIMED:
        return f"being asked for, {thaw.tier}{fell_back}"
    late = ", overdue: S3 is asked every 15 minutes" if thaw.ready_at < now else ""
    return f"thawing, {thaw.tier}{fell_back}{late}"


def fell_back(sight: Sight) -> int:
    """How many thaws run slower than asked, since S3 had no capacity for Expedited."""
    return sum(each.thaw is not None and each.thaw.fell_back for each in sight.waiting)


def _planned(job: Job) -> bool:
    return job.planned or job.given_up_at is not None


@contextmanager
def shown(*, files: int, archives: int, quiet: bool) -> Iterator[Callable[[Sight], None]]:
    """Something that shows sights of a job with so many files and archives: bars on a terminal, lines elsewhere."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        with _bars(files, archives) as show:
            yield show
    else:
        yield _Lines(files, archives)


@dataclass
class _Lines:
    """Prints a line when something has changed."""

    files: int
    archives: int
    _last: str = ""

    def __call__(self, sight: Sight) -> None:
        line = self._line(sight)
        if line != self._last:
            typer.echo(f"{moment(sight.now)}  {line}")
        self._last = line

    def _line(self, sight: Sight) -> str:
        job = sight.job
        if job is None or not _planned(job):
            return "not planned yet"
        done = f"{job.ended_files:,} of {counted(self.files, 'file')} done, {size(job.restored_bytes)} restored"
        if not sight.thawing:
            return f"every archive can be read; {done}"
        ready = f", the others by {moment(sight.ready_at)}" if sight.ready_at else ""
        slower = " (expedited was not to be had)" if fell_back(sight) else ""
        readable = max(0, self.archives - sight.thawing)
        return f"{readable:,} of {counted(self.archives, 'archive')} can be read{ready}{slower}; {done}"


@contextmanager
def _bars(files: int, archives: int) -> Iterator[Callable[[Sight], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        thawed = progress.add_task("archives thawed", total=archives, note="not planned yet")
        done = progress.add_task("files done", total=files, note="")

        def show(sight: Sight) -> None:
            job = sight.job
            if job is None or not _planned(job):
                return
            note = ""
            if sight.thawing:
                note = f"{sight.thawing:,} thawing"
                if sight.ready_at:
                    left = max(sight.ready_at - sight.now, timedelta())
                    note += f", {str(left).partition('.')[0]} left at most"
                if fell_back(sight):
                    note += " (expedited was not to be had)"
            progress.update(thawed, completed=max(0, archives - sight.thawing), note=note)
            bad = f", {not_well(job):,} not well" if not_well(job) else ""
            progress.update(done, completed=job.ended_files, note=f"{size(job.restored_bytes)} restored{bad}")

        yield show


def is_young(job_id: str, now: datetime) -> bool:
    """Whether the id is that of a job which may have been sent, and not planned, in the last minutes."""
    try:
        sent_at = datetime.strptime(job_id.partition("-")[0] + "+0000", "%Y%m%dT%H%M%S%z")
    except ValueError:
        return False
    return now - PLANNED_WITHIN <= sent_at <= now + timedelta(minutes=1)

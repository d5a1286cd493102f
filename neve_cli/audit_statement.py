"""What all audits together say of the collection, gathered in one pass over reports and archives.

Memory does not grow with either: of archives one bit for each cause is kept, and sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from neve.domain.audit import Cause, LastAudit, Report
from neve.domain.index import ArchiveRow
from neve.domain.sampling import Budget, Month, Rolling, month_name
from neve.domain.statistics import CONFIDENCE, Amount, seen_by, upper_bound
from neve.domain.thaw import Tier, promise, thaw_micro_usd
from neve.domain.verdict import DISCREPANCIES, Verdict
from neve_cli.audit_next import Next, next_step, stands

if TYPE_CHECKING:
    from neve_cli.stack import Stack

WINDOW_DAYS = 365
"""What counts as of late where there is no rolling pass, and so no horizon."""
AGES_DAYS = (1, 7, 30, 90, 180, 365)
CELLS = 2_000
"""Into so many cells at most a map divides the archives."""
PERIODS = 60
"""So many days, weeks or months a plot over time shows before it takes a longer unit."""
LISTED = 200
"""Findings that are listed, the newest; all are counted."""
NOTED = 1_000
DAY = timedelta(days=1)

Each = TypeVar("Each")


@dataclass(slots=True)
class Tally:
    """So many archives, of so many bytes in all."""

    archives: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count an archive in."""
        self.archives += 1
        self.size_bytes += size_bytes


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the stack was told of audits. Every 0 hours: nothing is begun but by hand."""

    every_h: int
    horizon_days: int
    budget: Budget
    tier: Tier

    @property
    def rolling(self) -> bool:
        """Whether there is a rolling pass."""
        return self.every_h > 0 and self.horizon_days > 0

    @property
    def window(self) -> timedelta:
        """How long ago an audit may be to count as of late."""
        return timedelta(days=self.horizon_days or WINDOW_DAYS)


@dataclass(slots=True)
class Trials:
    """Random audits that came to a verdict, those of them that found something, and those that could not read."""

    audits: int = 0
    findings: int = 0
    unread: int = 0

    def add(self, report: Report) -> None:
        """Count an audit in."""
        if report.verdict is Verdict.UNREAD:
            self.unread += 1
            return
        self.audits += 1
        self.findings += report.verdict in DISCREPANCIES

    @property
    def bound(self) -> float:
        """The largest share of damaged archives that is not too unlikely."""
        return upper_bound(self.audits, self.findings)


@dataclass(slots=True)
class Day:
    """The audits that ended on a day, or in a longer period that began then."""

    by_cause: dict[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    size_bytes: int = 0
    findings: int = 0
    unread: int = 0

    @property
    def audits(self) -> int:
        """How many ended."""
        return sum(self.by_cause.values())

    def add(self, other: Day) -> None:
        """Count another's audits in."""
        for cause, number in other.by_cause.items():
            self.by_cause[cause] += number
        self.size_bytes += other.size_bytes
        self.findings += other.findings
        self.unread += other.unread


@dataclass(slots=True)
class Cell:
    """Archives with neighbouring serials, `first` to `last`, as far as they exist and no repair stands for them.

    `oldest` is the last audit that is the longest ago, of those that have one.
    """

    first: int
    last: int
    archives: int = 0
    audited: int = 0
    findings: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """An audit that did not end well; whether it `stands`, and what to do next about it."""

    report: Report
    stands: bool
    next: Next


@dataclass(frozen=True, kw_only=True)
class Oldest:
    """The archive that has waited longest for something, since then."""

    archive: int
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What audits say of the collection at `now`. Archives that a repair stands for count in `superseded` only.

    `ages` are of last audits, by the days of AGES_DAYS that they do not exceed; None is more. `left_out` is how many
    archives the newest run of the rolling pass had to leave out for its budget, of the month `month`.
    """

    stack: str
    region: str
    now: datetime
    policy: Policy
    collection: Tally
    superseded: int
    ever: Tally
    of_late: Tally
    by_cause: Mapping[Cause, Tally]
    by_cause_of_late: Mapping[Cause, Tally]
    never: Tally
    under_way: int
    oldest_never: Oldest | None
    longest_ago: Oldest | None
    ages: Mapping[int | None, Tally]
    trials: Trials
    trials_of_late: Trials
    rolling: Rolling
    month: Month | None
    left_out: int
    seen_by: datetime | None
    runs: int
    newest_run_at: datetime | None
    audits: int
    periods: Mapping[date, Day]
    unit: str
    cells: tuple[Cell, ...]
    standing: int
    found: int
    unread: int
    findings: tuple[Found, ...]

    @property
    def confidence(self) -> float:
        """How sure the bound is."""
        return CONFIDENCE


def policy(deployed: Stack) -> Policy:
    """What the stack was told of audits."""
    outputs = deployed.outputs
    return Policy(
        every_h=int(outputs["AuditEveryHours"]),
        horizon_days=int(outputs["AuditHorizonDays"]),
        budget=Budget(percent=float(outputs["AuditBudgetPercent"]), usd=float(outputs["AuditBudgetUsd"])),
        tier=Tier(outputs["AuditTier"]),
    )


def read_statement(deployed: Stack, now: datetime, noted: Callable[[int], None] = lambda _: None) -> Statement:
    """Read all that is known of audits. `noted` is told now and then how many rows were read. Raises Transient."""
    known = policy(deployed)
    audits = deployed.audits
    runs = 0
    left_out: int | None = None
    newest_run_at = None
    for run in audits.runs():
        runs += 1
        newest_run_at = newest_run_at or run.created_at
        if left_out is None and Cause.ROLLING in run.drawn:
            left_out = run.cut
    reports = _Reports(now - known.window)
    count = _Count(noted)
    for report in count(audits.reports(newest_first=True)):
        reports.add(report)
    archives = _Archives(known, reports, now, deployed.archives.drawn())
    for row, last in count(_joined(deployed.archives.all(), audits.audited())):
        archives.add(row, last)
    month = audits.month(month_name(now))
    ahead, collection = archives.amounts()
    periods, unit = in_periods(reports.days, now.date())
    return Statement(
        stack=deployed.name,
        region=deployed.region,
        now=now,
        policy=known,
        collection=archives.collection,
        superseded=archives.superseded,
        ever=archives.ever,
        of_late=archives.of_late,
        by_cause=archives.by_cause,
        by_cause_of_late=archives.by_cause_of_late,
        never=archives.never,
        under_way=archives.under_way,
        oldest_never=archives.oldest_never,
        longest_ago=archives.longest_ago,
        ages=archives.ages,
        trials=reports.trials,
        trials_of_late=reports.trials_of_late,
        rolling=audits.rolling(),
        month=month,
        left_out=left_out or 0,
        seen_by=seen_by(
            ahead,
            collection,
            horizon_days=known.horizon_days if known.rolling else 0,
            budget=known.budget,
            used_up=bool(left_out),
            thaw=promise(deployed.outputs["StorageClass"], known.tier),
            now=now,
        ),
        runs=runs,
        newest_run_at=newest_run_at,
        audits=reports.number,
        periods=periods,
        unit=unit,
        cells=tuple(archives.cells),
        standing=archives.standing,
        found=reports.found,
        unread=reports.unread,
        findings=tuple(
            Found(report=report, stands=stands(report, row, last), next=next_step(report, row, last))
            for report in reports.newest
            for row, last in [archives.named.get(report.archive, (None, None))]
        ),
    )


class _Count:
    """Counts what passes, for whoever waits."""

    def __init__(self, noted: Callable[[int], None]) -> None:
        self._noted = noted
        self._number = 0

    def __call__(self, items: Iterable[Each]) -> Iterator[Each]:
        for item in items:
            self._number += 1
            if self._number % NOTED == 0:
                self._noted(self._number)
            yield item


class _Serials:
    """A set of serials, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, serial: int) -> None:
        if serial >> 3 >= len(self._bits):
            self._bits.extend(bytes((serial >> 3) + 1 - len(self._bits) + (len(self._bits) >> 3)))
        self._bits[serial >> 3] |= 1 << (serial & 7)

    def __contains__(self, serial: int) -> bool:
        return serial >> 3 < len(self._bits) and bool(self._bits[serial >> 3] >> (serial & 7) & 1)


class _Reports:
    """Sums over how audits ended, which come newest first."""

    def __init__(self, window_begins: datetime) -> None:
        self._window_begins = window_begins
        self.number = self.found = self.unread = 0
        self.days: dict[date, Day] = {}
        self.trials = Trials()
        self.trials_of_late = Trials()
        self.ever = {cause: _Serials() for cause in Cause}
        self.of_late = {cause: _Serials() for cause in Cause}
        self.newest: list[Report] = []

    def add(self, report: Report) -> None:
        self.number += 1
        found, unread = report.verdict in DISCREPANCIES, report.verdict is Verdict.UNREAD
        self.found += found
        self.unread += unread
        day = self.days.setdefault(report.finished_at.astimezone(UTC).date(), Day())
        day.by_cause[report.cause] += 1
        day.size_bytes += report.size_bytes
        day.findings += found
        day.unread += unread
        of_late = report.finished_at >= self._window_begins
        if report.cause is Cause.RANDOM:
            self.trials.add(report)
            if of_late:
                self.trials_of_late.add(report)
        if not unread:
            self.ever[report.cause].add(report.archive)
            if of_late:
                self.of_late[report.cause].add(report.archive)
        if (found or unread) and len(self.newest) < LISTED:
            self.newest.append(report)


class _Archives:
    """Sums over archives, which come in the order of their serials, each with its last audit."""

    def __init__(self, known: Policy, reports: _Reports, now: datetime, drawn: int) -> None:
        self._policy = known
        self._reports = reports
        self._now = now
        self._width = max(1, math.ceil(drawn / CELLS))
        self.cells = [
            Cell(first=first, last=min(drawn, first + self._width - 1)) for first in range(1, drawn + 1, self._width)
        ]
        self._named = {report.archive for report in reports.newest}
        self.named: dict[int, tuple[ArchiveRow, LastAudit | None]] = {}
        self.collection, self.ever, self.of_late, self.never = Tally(), Tally(), Tally(), Tally()
        self.by_cause = {cause: Tally() for cause in Cause}
        self.by_cause_of_late = {cause: Tally() for cause in Cause}
        self.superseded = self.under_way = self.standing = 0
        self.oldest_never: Oldest | None = None
        self.longest_ago: Oldest | None = None
        self.ages: dict[int | None, Tally] = {days: Tally() for days in (*AGES_DAYS, None)}
        self._turns: dict[date, tuple[int, int, int]] = {}
        self._last_turn: date | None = None

    def add(self, row: ArchiveRow, last: LastAudit | None) -> None:
        if row.serial in self._named:
            self.named[row.serial] = row, last
        if row.superseded_by:
            self.superseded += 1
            return
        self.collection.add(row.size_bytes)
        self._turn(row, last)
        audited_at = last.finished_at if last else None
        if audited_at is None:
            self.never.add(row.size_bytes)
            self.under_way += last is not None
            if self.oldest_never is None or row.written_at < self.oldest_never.since:
                self.oldest_never = Oldest(archive=row.serial, since=row.written_at)
        else:
            self._audited(row, audited_at)
        found = last is not None and last.verdict in DISCREPANCIES
        self.standing += found
        self._cell(row.serial, audited_at, found=found)

    def _audited(self, row: ArchiveRow, at: datetime) -> None:
        self.ever.add(row.size_bytes)
        if at >= self._now - self._policy.window:
            self.of_late.add(row.size_bytes)
        for cause in Cause:
            if row.serial in self._reports.ever[cause]:
                self.by_cause[cause].add(row.size_bytes)
            if row.serial in self._reports.of_late[cause]:
                self.by_cause_of_late[cause].add(row.size_bytes)
        if self.longest_ago is None or at < self.longest_ago.since:
            self.longest_ago = Oldest(archive=row.serial, since=at)
        self.ages[age_class(self._now - at)].add(row.size_bytes)

    def _cell(self, serial: int, audited_at: datetime | None, *, found: bool) -> None:
        number = (serial - 1) // self._width
        if number >= len(self.cells):
            return  # it was drawn since the last serial was read
        cell = self.cells[number]
        cell.archives += 1
        cell.findings += found
        if audited_at is not None:
            cell.audited += 1
            cell.oldest = min(cell.oldest or audited_at, audited_at)

    def _turn(self, row: ArchiveRow, last: LastAudit | None) -> None:
        """Note when an archive's turn in the rolling pass is: it takes first what waits longest."""
        day = (last.begun_at if last else row.written_at).astimezone(UTC).date()
        micro_usd = thaw_micro_usd(row.storage_class, self._policy.tier, days=1, size_bytes=row.size_bytes)
        archives, size_bytes, cost = self._turns.get(day, (0, 0, 0))
        self._turns[day] = archives + 1, size_bytes + row.size_bytes, cost + micro_usd
        if last is None:
            self._last_turn = max(self._last_turn or day, day)

    def amounts(self) -> tuple[Amount, Amount]:
        """(what the rolling pass takes until no archive is without an audit begun, all archives)."""

        def total(days: Iterable[date]) -> Amount:
            sums = [self._turns[day] for day in days]
            archives, size_bytes, micro_usd = (sum(each) for each in zip(*sums, strict=True)) if sums else (0, 0, 0)
            return Amount(archives=archives, size_bytes=size_bytes, micro_usd=micro_usd)

        last = self._last_turn
        return total(day for day in self._turns if last and day <= last), total(self._turns)


def _joined(rows: Iterator[ArchiveRow], audited: Iterator[LastAudit]) -> Iterator[tuple[ArchiveRow, LastAudit | None]]:
    """Each archive with its last audit; both come in the order of serials."""
    last = next(audited, None)
    for row in rows:
        while last is not None and last.archive < row.serial:
            last = next(audited, None)
        yield row, last if last is not None and last.archive == row.serial else None


def age_class(age: timedelta) -> int | None:
    """The number of AGES_DAYS that an age does not exceed; None if it exceeds all."""
    return next((days for days in AGES_DAYS if age <= days * DAY), None)


def in_periods(days: Mapping[date, Day], today: date) -> tuple[dict[date, Day], str]:
    """(the audits of each period by its first day, without gaps from the first audit on; "day", "week" or "month").

    The unit is the shortest that makes no more than PERIODS of them; months, if even those are more.
    """
    if not days:
        return {}, "day"
    first = min(days)
    span = (max(today, *days) - first).days + 1
    unit = "day" if span <= PERIODS else "week" if span <= PERIODS * 7 else "month"
    periods: dict[date, Day] = {}
    begin = _begin(first, unit)
    while begin <= max(today, *days):
        periods[begin] = Day()
        begin = _begin(begin + timedelta(days={"day": 1, "week": 7, "month": 31}[unit]), unit)
    for day, audits in days.items():
        periods[_begin(day, unit)].add(audits)
    return periods, unit


def _begin(day: date, unit: str) -> date:
    if unit == "day":
        return day
    return day - timedelta(days=day.weekday()) if unit == "week" else day.replace(day=1)

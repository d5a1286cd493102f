"""The ports Audits and Sources in memory: what the adapters on AWS are held against, and what unit tests run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from neve.domain.audit import Audit, LastAudit, Report, Run
from neve.domain.manifest import Source
from neve.domain.restore import DETAIL_CHARACTERS
from neve.domain.sampling import Month, Rolling
from neve.domain.verdict import Sighting, Verdict
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import NeveError, SourceChanged, SourceGone, Transient
from tests.memory import MemoryContent

GLANCE = timedelta(minutes=15)


@dataclass
class MemorySources:
    """The versions in `content`, read `piece_bytes` at a time. What stands there may have been damaged since."""

    content: MemoryContent
    piece_bytes: int = 1000

    def stream(self, version: ObjectVersion, *, first: int = 0) -> Iterator[bytes]:
        _, body = self._read(version)
        for start in range(first, len(body), self.piece_bytes):
            yield body[start : start + self.piece_bytes]

    def describe(self, version: ObjectVersion) -> Source:
        source, _ = self._read(version)
        return replace(source, sha256="", md5="")

    def _read(self, version: ObjectVersion) -> tuple[Source, bytes]:
        if version.key in self.content.failures:
            raise self.content.failures[version.key]
        if version.version_id == NULL_VERSION:
            overwritten = [pin for key, pin in self.content.objects if key == version.key and pin.startswith("null-")]
            if overwritten and overwritten[-1] != version.pin:
                raise SourceChanged(version.key)
        if version.identity not in self.content.objects:
            raise SourceGone(version.key)
        return self.content.objects[version.identity]


@dataclass
class MemoryAudits:
    """Runs by id, audits under way by run and archive, their reports, and the last audit of each archive."""

    run_rows: dict[str, Run] = field(default_factory=dict)
    rows: dict[tuple[str, int], Audit] = field(default_factory=dict)
    due_at: dict[tuple[str, int], datetime] = field(default_factory=dict)
    kept: dict[str, list[Sighting]] = field(default_factory=dict)
    ended: dict[str, Report] = field(default_factory=dict)
    last_rows: dict[int, LastAudit] = field(default_factory=dict)
    rolling_row: Rolling = field(default_factory=Rolling)
    months: dict[str, Month] = field(default_factory=dict)

    def open_run(self, run: Run, *, rolling: tuple[Rolling, Rolling] | None, month: tuple[Month, Month] | None) -> Run:
        if run.id in self.run_rows:
            return self.run_rows[run.id]
        if rolling and self.rolling_row.revision != rolling[0].revision:
            raise Transient("the rolling pass has gone on")
        if month and self._revision(month[0].name) != month[0].revision:
            raise Transient("the month has changed")
        if rolling:
            self.rolling_row = replace(rolling[1], revision=rolling[0].revision + 1)
        if month:
            self.months[month[1].name] = replace(month[1], revision=month[0].revision + 1)
        self.run_rows[run.id] = run
        return run

    def run(self, run: str) -> Run | None:
        return self.run_rows.get(run)

    def runs(self, *, newest_first: bool = True) -> Iterator[Run]:
        return iter([self.run_rows[run] for run in sorted(self.run_rows, reverse=newest_first)])

    def end_run(self, run: str, now: datetime) -> bool:
        row = self.run_rows.get(run)
        if row is None or row.finished_at:
            return False
        self.run_rows[run] = replace(row, finished_at=now)
        return True

    def told(self, run: str) -> None:
        row = self.run_rows.get(run)
        if row is not None and row.finished_at:
            self.run_rows[run] = replace(row, told=True)

    def untold(self, now: datetime) -> Iterator[Run]:
        for run in sorted(self.run_rows, key=lambda run: self.run_rows[run].created_at):
            if not self.run_rows[run].told and self.run_rows[run].created_at < now:
                yield self.run_rows[run]

    def begin(self, audit: Audit) -> Audit | None:
        if audit.id in self.ended:
            return None
        place = (audit.run, audit.archive)
        if place not in self.rows:
            self.rows[place] = audit
            self.due_at[place] = audit.begun_at + GLANCE
            last = self.last_rows.get(audit.archive) or LastAudit(archive=audit.archive, begun_at=audit.begun_at)
            self.last_rows[audit.archive] = replace(last, begun_at=max(last.begun_at, audit.begun_at))
        return self.rows[place]

    def waiting(self, archive: int) -> list[Audit]:
        return sorted((row for row in self.rows.values() if row.archive == archive), key=lambda audit: audit.run)

    def lease(self, audit: Audit, *, owner: str, now: datetime, until: datetime, trying: bool = False) -> Audit | None:
        row = self.rows.get((audit.run, audit.archive))
        if row is None or (row.lease_owner not in ("", owner) and row.leased_until and row.leased_until >= now):
            return None
        return self._store(replace(row, lease_owner=owner, leased_until=until, tries=row.tries + trying))

    def release(self, audit: Audit, *, owner: str, due_at: datetime) -> None:
        row = self._held(audit, owner)
        if row is not None:
            self._store(replace(row, lease_owner="", leased_until=None))
            self.due_at[row.run, row.archive] = due_at

    def save(self, audit: Audit, *, owner: str) -> bool:
        row = self._held(audit, owner)
        if row is None:
            return False
        self._store(
            replace(row, stage=audit.stage, tries=audit.tries, of_source=audit.of_source, of_archive=audit.of_archive)
        )
        return True

    def due(self, now: datetime) -> Iterator[Audit]:
        for place in sorted(self.due_at, key=lambda place: self.due_at[place]):
            if place in self.rows and self.due_at[place] < now:
                yield self.rows[place]

    def put_sources(self, audit: Audit, sightings: Sequence[Sighting]) -> None:
        self.kept[audit.id] = [replace(each, detail=each.detail[:DETAIL_CHARACTERS]) for each in sightings]

    def sources(self, audit: Audit) -> list[Sighting]:
        return list(self.kept.get(audit.id, []))

    def finish(self, audit: Audit, report: Report, *, owner: str) -> bool:
        if self._held(audit, owner) is None:
            return False
        run = self.run_rows.get(audit.run)
        if run is None:
            raise NeveError(f"there is no run {audit.run}")
        del self.rows[audit.run, audit.archive], self.due_at[audit.run, audit.archive]
        self.ended[report.id] = report
        self.run_rows[run.id] = replace(
            run,
            ended=run.ended + 1,
            verdicts=Counter(run.verdicts) + Counter([report.verdict]),
            members=run.members + sum(report.counts.values()),
            size_bytes=run.size_bytes + report.size_bytes,
        )
        if report.verdict is not Verdict.UNREAD:
            last = self.last_rows[report.archive]
            self.last_rows[report.archive] = replace(last, finished_at=report.finished_at, verdict=report.verdict)
        return True

    def reports(self, run: str = "", *, newest_first: bool = False) -> Iterator[Report]:
        return iter([self.ended[id_] for id_ in sorted(self.ended, reverse=newest_first) if self._of(id_, run)])

    def last(self, archives: Sequence[int]) -> Mapping[int, LastAudit]:
        return {archive: self.last_rows[archive] for archive in archives if archive in self.last_rows}

    def audited(self) -> Iterator[LastAudit]:
        return iter([self.last_rows[archive] for archive in sorted(self.last_rows)])

    def longest_ago(self) -> Iterator[LastAudit]:
        rows = sorted(self.last_rows.values(), key=lambda last: last.begun_at)
        return iter([LastAudit(archive=last.archive, begun_at=last.begun_at) for last in rows])

    def rolling(self) -> Rolling:
        return self.rolling_row

    def month(self, name: str) -> Month | None:
        return self.months.get(name)

    def _store(self, audit: Audit) -> Audit:
        self.rows[audit.run, audit.archive] = audit
        return audit

    def _held(self, audit: Audit, owner: str) -> Audit | None:
        """The audit if `owner` has it leased."""
        row = self.rows.get((audit.run, audit.archive))
        return row if row is not None and row.lease_owner == owner else None

    def _revision(self, month: str) -> int:
        return self.months[month].revision if month in self.months else 0

    def _of(self, audit_id: str, run: str) -> bool:
        return not run or audit_id.startswith(f"{run}#")

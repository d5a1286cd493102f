"""A collection and what audits found of it, written into the ports in memory at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from neve.domain.audit import Audit, Cause, LastAudit, Report, Run, report_of, run_id
from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.sampling import Rolling
from neve.domain.thaw import Need, Tier
from neve.domain.verdict import QUIET, Finding, Verdict
from tests.memory import MemoryArchives, MemoryBundles, MemoryParkingLot, MemoryQueue
from tests.memory_audits import MemoryAudits
from tests.memory_restore import MemoryThaws

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NASTY = "a\n<script>alert('x')</script>&\x1b[31m\u202e\"/" + "long" * 60
OUTPUTS = {
    "AuditsQueue": "audits",
    "AuditsTable": "audits",
    "AuditEveryHours": "1",
    "AuditHorizonDays": "365",
    "AuditBudgetPercent": "10",
    "AuditBudgetUsd": "100",
    "AuditTier": "bulk",
    "StorageClass": "GLACIER",
}


class ListedParkingLot(MemoryParkingLot):
    """As the adapter, which the command can list."""

    def all(self) -> Any:
        return iter(self.items.items())


@dataclass
class History:
    """What neve_cli.stack finds: archives, and audits that were made of them."""

    archives: MemoryArchives = field(default_factory=MemoryArchives)
    audits: MemoryAudits = field(default_factory=MemoryAudits)
    bundles: MemoryBundles = field(default_factory=MemoryBundles)
    thaws: MemoryThaws = field(default_factory=MemoryThaws)
    parking_lot: ListedParkingLot = field(default_factory=ListedParkingLot)
    audits_queue: MemoryQueue = field(default_factory=MemoryQueue)
    outputs: dict[str, str] = field(default_factory=lambda: dict(OUTPUTS))
    usd_per_day: float = 100.0
    name: str = "neve"
    region: str = "us-east-1"

    def archive(
        self, serial: int, *, written_at: datetime = NOW - 400 * DAY, storage_class: str = "GLACIER", mb: int = 25
    ) -> ArchiveRow:
        """Have an archive of so many megabytes."""
        row = ArchiveRow(
            serial=serial,
            kind="tar",
            bundle=f"b{serial}",
            object_key=f"archives/{serial:010d}.tar",
            object_version_id="v",
            storage_class=storage_class,
            size_bytes=mb * 1_000_000,
            sha256="0" * 64,
            source_bytes=mb * 1_000_000,
            files=100,
            duplicates=0,
            state=ArchiveState.ARCHIVED,
            written_at=written_at,
            archived_at=written_at,
        )
        self.archives.rows[serial] = row
        return row

    def run(
        self,
        at: datetime,
        drawn: Mapping[Cause, Sequence[int]],
        *,
        findings: Mapping[int, Sequence[Finding]] | None = None,
        ended: bool = True,
        cut: int = 0,
        repair: bool = False,
        unique: str = "0" * 8,
    ) -> Run:
        """Have a run begin `at`; unless `ended` is False, every archive's audit ends an hour later."""
        run = Run(
            id=run_id(at, unique),
            created_at=at,
            drawn={cause: tuple(serials) for cause, serials in drawn.items()},
            archives=self.archives.drawn(),
            cut=cut,
            repair=repair,
        )
        self.audits.run_rows[run.id] = run
        self.audits.rolling_row = Rolling(ticked_at=at)
        for cause, serials in drawn.items():
            for serial in serials:
                self._begin(run, serial, cause, at)
                if ended:
                    self.end(run.id, serial, (findings or {}).get(serial, ()))
        return self.audits.run_rows[run.id]

    def _begin(self, run: Run, serial: int, cause: Cause, at: datetime) -> None:
        need = Need(tier=Tier.BULK, days=1)
        audit = Audit(run=run.id, archive=serial, cause=cause, need=need, repair=run.repair, begun_at=at)
        self.audits.rows[run.id, serial] = audit
        last = self.audits.last_rows.get(serial) or LastAudit(archive=serial, begun_at=at)
        self.audits.last_rows[serial] = replace(last, begun_at=at)

    def end(
        self, run_id: str, serial: int, findings: Sequence[Finding] = (), repair: str = "", rows_repaired: int = 0
    ) -> Report:
        """End an archive's audit with these findings."""
        audit = self.audits.rows.pop((run_id, serial))
        at = audit.begun_at + timedelta(hours=1)
        row = self.archives.rows[serial]
        found = [finding.verdict for finding in findings]
        verdicts = [*found, *[Verdict.INTACT] * (row.files - len(found))]
        report = report_of(
            audit,
            now=at,
            verdicts=verdicts,
            findings=findings,
            size_bytes=row.size_bytes,
            repair=repair,
            rows_repaired=rows_repaired,
        )
        self.audits.ended[report.id] = report
        run = self.audits.run_rows[run_id]
        self.audits.run_rows[run_id] = replace(
            run,
            ended=run.ended + 1,
            verdicts=Counter(run.verdicts) + Counter([report.verdict]),
            members=run.members + row.files,
            size_bytes=run.size_bytes + row.size_bytes,
            finished_at=at if run.ended + 1 >= run.audits else None,
        )
        if report.verdict is not Verdict.UNREAD:
            last = self.audits.last_rows[serial]
            self.audits.last_rows[serial] = replace(last, finished_at=at, verdict=report.verdict)
        return report


def finding(verdict: Verdict, key: str = NASTY, number: int = 0) -> Finding:
    """A finding of a member, or of the archive if the key is ""."""
    assert verdict not in QUIET
    return Finding(verdict=verdict, evidence=f"archive 1f</p>, manifest {'2e' * 8}", key=key, pin="v<1>", number=number)


def long_history(archives: int = 4_000, days: int = 190) -> History:
    """Thousands of archives, hourly random audits and a rolling pass that began `days` ago, and some findings."""
    history = History()
    for serial in range(1, archives + 1):
        if serial % 97:  # some numbers were given up
            history.archive(serial, written_at=NOW - 400 * DAY + serial * 399 * DAY / archives, mb=20 + serial % 10)
    there = sorted(history.archives.rows)
    bad = {
        there[len(there) // 7]: [finding(Verdict.ARCHIVE_DAMAGED), finding(Verdict.LOST, "photos/lost.jpg", 1)],
        there[len(there) // 4]: [finding(Verdict.SOURCE_DAMAGED, "films/überspielt.mp4", 3)],
        there[len(there) // 3]: [finding(Verdict.UNREAD, "")],
        there[len(there) // 9]: [finding(Verdict.CONTAINER_DAMAGED, "")],
    }
    pace = max(1, len(there) // 354)
    for day in range(days):
        at = NOW - (days - day) * DAY
        rolling = [there[day * pace + n] for n in range(pace) if day * pace + n < len(there)]
        drawn = {
            Cause.RANDOM: [there[day * 7919 % len(there)]],
            Cause.ROLLING: [serial for serial in rolling if serial != there[day * 7919 % len(there)]],
        }
        if day % 40 == 20:
            drawn[Cause.ASKED] = [there[-1 - day]]
        history.run(at, drawn, findings=bad)
    return history

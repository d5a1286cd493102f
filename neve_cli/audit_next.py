"""Whether what an audit found still stands, and what to do next about it."""

from __future__ import annotations

from dataclasses import dataclass

from neve.domain.audit import LastAudit, Report
from neve.domain.index import ArchiveRow
from neve.domain.verdict import DISCREPANCIES, QUIET, REPAIRABLE, Verdict


@dataclass(frozen=True, kw_only=True)
class Next:
    """What to do, and the command that does it or shows more; "" if nothing is to be done."""

    what: str
    command: str = ""

    def __str__(self) -> str:
        """For people, on one line."""
        return f"{self.what}: `{self.command}`" if self.command else self.what


def stands(report: Report, row: ArchiveRow | None, last: LastAudit | None) -> bool:
    """Whether a report is of something that nobody has put right: given its archive's row and last audit of today."""
    if row is not None and row.superseded_by:
        return False
    if report.verdict is Verdict.UNREAD:
        return last is None or last.finished_at is None or last.finished_at < report.begun_at
    return report.verdict in DISCREPANCIES and (last is None or last.verdict is None or last.verdict in DISCREPANCIES)


def next_step(report: Report, row: ArchiveRow | None, last: LastAudit | None) -> Next:
    """What to do next about an audit's result, as things stand."""
    if row is not None and row.superseded_by:
        return Next(what=f"repaired, archive {row.superseded_by} stands for it")
    if report.verdict in QUIET:
        return Next(what="nothing to do")
    if not stands(report, row, last):
        return Next(what="nothing to do, a later audit found it well")
    if report.repair:
        return Next(what="being repaired", command=f"neve audit show {report.run}")
    return _remedy(report)


def _remedy(report: Report) -> Next:
    archive = report.archive
    if report.verdict is Verdict.UNREAD:
        return Next(what="audit it again", command=f"neve audit run --archive {archive}")
    if report.verdict in REPAIRABLE:
        return Next(what="repair it", command=f"neve audit repair {archive}")
    ids = {f"{archive}.{finding.number}" for finding in report.findings if finding.key}
    command = f"neve restore {ids.pop()} --overwrite" if len(ids) == 1 else f"neve audit show {report.run}"
    return Next(what="the archive is intact; restore what is damaged at its source", command=command)

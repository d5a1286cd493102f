"""Audits: which archives are compared and why, how each ended, and what a person is told."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from operator import index
from typing import Any

from neve.domain.thaw import Need, Tier
from neve.domain.verdict import DISCREPANCIES, REPAIRABLE, Finding, Verdict, worst
from neve.errors import EventInvalid

KEEP = timedelta(days=90)
"""How long the hashes of the sources are kept after an audit has ended; its result stays."""
GIVEN_UP_AFTER = timedelta(days=7)
SLOWEST_BYTES_PER_S = 10_000_000
"""An audit that could not be finished within these days, and the time that its bytes take, ends as unread."""
FINDINGS_KEPT = 50
"""Findings of one audit that are kept in words; all are counted."""
ARCHIVES_ASKED = 10_000
"""Archives that one request may name: a run is one item of DynamoDB."""


class Cause(StrEnum):
    """Why an archive is audited."""

    RANDOM = "random"
    """It was drawn from all archives, each as likely as any other."""
    ROLLING = "rolling"
    """It was its turn: of all archives its last audit is the longest ago."""
    ASKED = "asked"
    """A person named it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One draw of archives to audit, and how its audits ended. `verdicts` counts archives, by their worst member.

    `archives` is how many serials had been drawn then; `cut` how many archives of the rolling pass were left out
    because its budget for the month is used up. With `repair`, what is found is repaired at once.
    """

    id: str
    created_at: datetime
    drawn: Mapping[Cause, tuple[int, ...]]
    archives: int
    cut: int = 0
    repair: bool = False
    ended: int = 0
    verdicts: Mapping[Verdict, int] = field(default_factory=dict)
    members: int = 0
    size_bytes: int = 0
    finished_at: datetime | None = None
    told: bool = False

    @property
    def audits(self) -> int:
        """How many audits belong to it."""
        return len(self.archives_drawn)

    @property
    def archives_drawn(self) -> tuple[int, ...]:
        """All archives that it audits, each once."""
        return tuple(dict.fromkeys(serial for serials in self.drawn.values() for serial in serials))

    @property
    def complete(self) -> bool:
        """Whether every audit of it has ended."""
        return self.ended >= self.audits


class Stage(StrEnum):
    """hashing -> waiting."""

    HASHING = "hashing"
    """The sources are being hashed."""
    WAITING = "waiting"
    """For the thaw, or for somebody to read the archive."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a large object has been hashed: bytes so far, and the state of their CRC64NVME."""

    size_bytes: int = 0
    crc: int = 0


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One archive's audit while it is under way. `tries` counts the attempts to read the archive."""

    run: str
    archive: int
    cause: Cause
    need: Need
    repair: bool
    begun_at: datetime
    stage: Stage = Stage.HASHING
    tries: int = 0
    of_source: Progress = Progress()
    of_archive: Progress = Progress()
    lease_owner: str = ""
    leased_until: datetime | None = None

    @property
    def id(self) -> str:
        """What names it among all audits, and sorts by the time of its run."""
        return audit_id(self.run, self.archive)


def audit_id(run: str, archive: int) -> str:
    """The id of an archive's audit in a run."""
    return f"{run}#{archive:010d}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """How an audit ended. `counts` are of members; `findings` the worst of them, of `found` in all.

    `size_bytes` were read of the archive. `repair` is the bundle that repairs it, "" if none was ordered;
    `rows_repaired` counts wrong rows of the index that were put right in place.
    """

    run: str
    archive: int
    cause: Cause
    begun_at: datetime
    finished_at: datetime
    verdict: Verdict
    counts: Mapping[Verdict, int]
    size_bytes: int
    findings: tuple[Finding, ...] = ()
    found: int = 0
    repair: str = ""
    rows_repaired: int = 0

    @property
    def id(self) -> str:
        """As Audit.id."""
        return audit_id(self.run, self.archive)


def report_of(
    audit: Audit,
    *,
    now: datetime,
    verdicts: Iterable[Verdict],
    findings: Sequence[Finding],
    size_bytes: int,
    repair: str = "",
    rows_repaired: int = 0,
) -> Report:
    """The report on an audit that ends now."""
    listed = list(verdicts)
    order = list(Verdict)
    kept = sorted(findings, key=lambda finding: (-order.index(finding.verdict), finding.number))[:FINDINGS_KEPT]
    return Report(
        run=audit.run,
        archive=audit.archive,
        cause=audit.cause,
        begun_at=audit.begun_at,
        finished_at=now,
        verdict=worst([*listed, *(finding.verdict for finding in findings)]),
        counts={verdict: count for verdict in Verdict if (count := listed.count(verdict))},
        size_bytes=size_bytes,
        findings=tuple(kept),
        found=len(findings),
        repair=repair,
        rows_repaired=rows_repaired,
    )


@dataclass(frozen=True, kw_only=True)
class LastAudit:
    """What is known of an archive's last audit. `begun_at` is when one was begun, `finished_at` when one ended in a
    verdict other than unread, `verdict` that one; both are missing until then.
    """

    archive: int
    begun_at: datetime
    finished_at: datetime | None = None
    verdict: Verdict | None = None


# -- Messages --------------------------------------------------------------------------------------------------------

RUN_FORMAT = "neve-audit-run"
AUDIT_FORMAT = "neve-audit"
DRAW = json.dumps({"message": "audit"})
"""What the schedule sends: draw a run."""
SWEEP = json.dumps({"message": "sweep"})
"""What the sweep's schedule sends."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Word to begin run `id`: of these archives, or of a random sample and what is next in the rolling pass."""

    id: str
    archives: tuple[int, ...] = ()
    rolling: bool = False
    repair: bool = False


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """Word to go on with the audit of one archive in a run, whatever has been done for it."""

    run: str
    archive: int


class Sweep:
    """Word to look after audits that stand still."""


def run_id(sent_at: datetime, unique: str) -> str:
    """The id of a run begun by a message that was sent then, and that has an id of its own: it comes twice as one."""
    return f"{sent_at:%Y%m%d-%H%M%S}-{unique[:8]}"


def render_run_request(request: RunRequest) -> str:
    """The message to StartAudit by which a person begins a run. Inverse: parse_start."""
    return json.dumps(
        {
            "format": RUN_FORMAT,
            "version": 1,
            "run": request.id,
            "archives": list(request.archives),
            "repair": request.repair,
        }
    )


def render_audit_request(request: AuditRequest) -> str:
    """The message to StartAudit for one archive of a run. Inverse: parse_start."""
    return json.dumps({"format": AUDIT_FORMAT, "version": 1, "run": request.run, "archive": request.archive})


def parse_start(body: str, *, scheduled: str) -> RunRequest | AuditRequest | Sweep:
    """What a message to StartAudit asks for; `scheduled` is the id of the run if it is the schedule's.

    Raises EventInvalid.
    """
    try:
        message = json.loads(body)
        match message.get("format"), message.get("message"):
            case None, "audit":
                return RunRequest(id=scheduled, rolling=True)
            case None, "sweep":
                return Sweep()
            case (str(name), _) if name in (RUN_FORMAT, AUDIT_FORMAT) and message.get("version") == 1:
                return _run_request(message) if name == RUN_FORMAT else _audit_request(message)
            case _:
                raise EventInvalid(f"neither a request for an audit nor a schedule's word: {body[:200]!r}")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a request for an audit that can be read: {error!r}") from error


def _run_request(message: Mapping[str, Any]) -> RunRequest:
    archives = tuple(_serial(value) for value in message["archives"])
    if len(archives) > ARCHIVES_ASKED:
        raise EventInvalid(f"one run audits at most {ARCHIVES_ASKED} archives by name, this asks for {len(archives)}")
    return RunRequest(
        id=_run(message["run"]), archives=tuple(dict.fromkeys(archives)), repair=message["repair"] is True
    )


def _audit_request(message: Mapping[str, Any]) -> AuditRequest:
    return AuditRequest(run=_run(message["run"]), archive=_serial(message["archive"]))


def _run(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not re.fullmatch("[0-9A-Za-z-]*[0-9A-Za-z]", value):
        raise EventInvalid(f"no id of a run: {value!r}")
    return value


def _serial(value: Any) -> int:
    serial = index(value)
    if serial < 1:
        raise EventInvalid(f"no serial of an archive: {serial}")
    return serial


def need(tier: Tier, *, repair: bool) -> Need:
    """What an audit asks of the thaw. A repair reads the archive again, and waits perhaps for another one."""
    return Need(tier=Tier.STANDARD, days=3) if repair else Need(tier=tier, days=1)


def patience(size_bytes: int) -> timedelta:
    """How long an audit of an archive of this size may take, its source and the archive read one after the other."""
    return GIVEN_UP_AFTER + 2 * timedelta(seconds=size_bytes / SLOWEST_BYTES_PER_S)


# -- What a person is told -------------------------------------------------------------------------------------------

SUBJECT_CHARACTERS = 100
"""SNS: a subject has at most 100 characters, ASCII."""
MAILED = 20
"""Findings that a mail lists; the rest is counted, and `neve audit show` has them."""


def discrepancies(run: Run) -> int:
    """How many archives of a run have to be told of."""
    return sum(count for verdict, count in run.verdicts.items() if verdict in DISCREPANCIES)


def subject(run: Run) -> str:
    """The subject of the mail about a run: the worst first, and as many verdicts as there is room for."""
    told = [f"{count} {verdict}" for verdict in reversed(Verdict) if (count := _discrepancy(run, verdict))]
    line = f"neve audit: {', '.join(told)}"
    while len(line) > SUBJECT_CHARACTERS:
        told.pop()
        line = f"neve audit: {', '.join(told)}, ..."
    return line


def _discrepancy(run: Run, verdict: Verdict) -> int:
    return run.verdicts.get(verdict, 0) if verdict in DISCREPANCIES else 0


def mail(run: Run, reports: Iterable[Report]) -> str:
    """What is mailed about a run in which something was found: one text, however much it is, the worst first."""
    found = 0

    def discrepant() -> Iterator[Report]:
        nonlocal found
        for report in reports:
            if report.verdict in DISCREPANCIES:
                found += report.found
                yield report

    seen = f"{_counted(run.ended, 'archive')} ({_counted(run.members, 'file')}, {run.size_bytes} bytes)"
    order = list(Verdict)
    listed = heapq.nlargest(MAILED, discrepant(), key=lambda report: order.index(report.verdict))
    lines = [
        f"Audit run {run.id}: {seen} compared.",
        "Result: " + ", ".join(f"{count} {verdict}" for verdict, count in run.verdicts.items()) + ".",
        "",
    ]
    room = MAILED
    for report in listed:
        lines.append(f"Archive {report.archive}: {report.verdict} ({_counts(report)})")
        lines += [_told(finding) for finding in report.findings[:room]]
        lines += [f"  Next: {command}" for command in _next(report)]
        room -= len(report.findings[:room])
    if discrepancies(run) > len(listed):
        lines.append(f"{discrepancies(run) - len(listed)} more archives: `neve audit show {run.id}`")
    if found > MAILED - room:
        lines.append(f"{found - MAILED + room} more findings: `neve audit show {run.id}`")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _told(finding: Finding) -> str:
    """One line on a finding. A key may hold anything, and so may what S3 answers, which may quote it."""
    what = f"file {finding.number} {finding.key!r} version {finding.pin!r}" if finding.key else "the whole"
    evidence = finding.evidence if finding.evidence.isprintable() else repr(finding.evidence)
    return f"  {finding.verdict}: {what}: {evidence}"


def _counts(report: Report) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items()) or "no file could be told apart"


def _next(report: Report) -> list[str]:
    commands = []
    if any(finding.verdict is Verdict.INDEX_WRONG and not finding.key for finding in report.findings):
        commands.append('the archive\'s row contradicts its object and manifest: docs/operations.md, "Audits"')
    if report.rows_repaired:
        commands.append(f"nothing, {report.rows_repaired} rows of the index were put right")
    elif report.repair:
        commands.append(f"nothing, it is being repaired: `neve audit show {report.run}`")
    elif report.verdict in REPAIRABLE:
        commands.append(f"neve audit repair {report.archive}")
    if Verdict.SOURCE_DAMAGED in report.counts:
        commands.append(f"neve audit show {report.run}, then `neve restore --overwrite` of what has a damaged source")
    return commands

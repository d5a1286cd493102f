"""The table `audits`: runs, the audits under way, how they ended, and the rolling pass.

pk                       sk                 what
archive#<serial>         audit#<run>        an audit under way, its lease and its progress
audit#<run>#<serial>     source#<n>         what was seen of the members' sources; expires after audit.KEEP
audits                   <run>#<serial>     how an audit ended, for ever
audited                  <serial>           an archive's last audit; in the index as `audited`, by when it was begun
runs                     <run>              a run: what it drew, and its counters; in the index until it is told
state                    rolling            where the rolling pass is
budget                   <YYYY-MM>          what the rolling pass spent in a month

Drills and reconciliations have their rows in it as well: see drills_table.py and reconciles_table.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from neve.aws.rows import (
    Row,
    Table,
    archive_partition,
    brief,
    expiry,
    instant,
    integer,
    moment,
    need_fields,
    need_of,
    number,
    pack,
    primary_key,
    seconds,
    string,
    text,
    unpack,
)
from neve.domain.audit import KEEP, Audit, Cause, LastAudit, Progress, Report, Run, Stage
from neve.domain.digest import Digest
from neve.domain.sampling import Month, Rolling
from neve.domain.verdict import Finding, Sight, Sighting, Verdict
from neve.errors import NeveError, Transient

GLANCE = timedelta(minutes=15)
"""How soon the sweep looks at an audit that was begun."""
SOURCES_BYTES = 300_000
"""Of sightings as text, before they are packed: DynamoDB takes items of up to 400 KB, and counts their names, too."""
THREADS = 16

_RUNS = "runs"
_AUDITS = "audits"
_AUDITED = "audited"
_UNLESS_THERE = {"ConditionExpression": "attribute_not_exists(pk)"}


def _audit_key(run: str, archive: int) -> Row:
    return primary_key(archive_partition(archive), f"audit#{run}")


def _report_key(audit_id: str) -> Row:
    return primary_key(_AUDITS, audit_id)


def _last_key(archive: int) -> Row:
    return primary_key(_AUDITED, f"{archive:010d}")


def _run_key(run: str) -> Row:
    return primary_key(_RUNS, run)


def _sources_partition(audit: Audit) -> str:
    return f"audit#{audit.id}"


def _source_key(audit: Audit, item: int) -> Row:
    return primary_key(_sources_partition(audit), f"source#{item:04d}")


_ROLLING = primary_key("state", "rolling")


def _month_key(name: str) -> Row:
    return primary_key("budget", name)


# Values


def _run_row(run: Run) -> Row:
    return {
        **_run_key(run.id),
        "created_at": text(run.created_at.isoformat()),
        "drawn": pack([[cause, list(serials)] for cause, serials in run.drawn.items()]),
        "archives": number(run.archives),
        "cut": number(run.cut),
        "repair": {"BOOL": run.repair},
        "unfinished": text("1"),
        "due_at": seconds(run.created_at),
    }


def _counter(verdict: Verdict) -> str:
    return f"verdict_{verdict.name.lower()}"


def _to_run(row: Mapping[str, Any]) -> Run:
    return Run(
        id=row["sk"]["S"],
        created_at=instant(row, "created_at"),
        drawn={Cause(cause): tuple(serials) for cause, serials in unpack(row, "drawn")},
        archives=integer(row, "archives"),
        cut=integer(row, "cut"),
        repair=row["repair"]["BOOL"],
        ended=integer(row, "ended"),
        verdicts={verdict: integer(row, _counter(verdict)) for verdict in Verdict if _counter(verdict) in row},
        members=integer(row, "members"),
        size_bytes=integer(row, "size_bytes"),
        finished_at=moment(row, "finished_at"),
        told="unfinished" not in row,
    )


def _progress_fields(audit: Audit) -> Row:
    return {
        "stage": text(audit.stage),
        "source_bytes": number(audit.of_source.size_bytes),
        "source_crc": number(audit.of_source.crc),
        "archive_bytes": number(audit.of_archive.size_bytes),
        "archive_crc": number(audit.of_archive.crc),
        "tries": number(audit.tries),
    }


def _audit_row(audit: Audit) -> Row:
    return {
        **_audit_key(audit.run, audit.archive),
        "run": text(audit.run),
        "serial": number(audit.archive),
        "cause": text(audit.cause),
        **need_fields(audit.need),
        "repair": {"BOOL": audit.repair},
        "begun_at": text(audit.begun_at.isoformat()),
        **_progress_fields(audit),
        "unfinished": text("1"),
        "due_at": seconds(audit.begun_at + GLANCE),
    }


def _to_audit(row: Mapping[str, Any]) -> Audit:
    return Audit(
        run=row["run"]["S"],
        archive=integer(row, "serial"),
        cause=Cause(row["cause"]["S"]),
        need=need_of(row),
        repair=row["repair"]["BOOL"],
        begun_at=instant(row, "begun_at"),
        stage=Stage(row["stage"]["S"]),
        tries=integer(row, "tries"),
        of_source=Progress(size_bytes=integer(row, "source_bytes"), crc=integer(row, "source_crc")),
        of_archive=Progress(size_bytes=integer(row, "archive_bytes"), crc=integer(row, "archive_crc")),
        lease_owner=string(row, "lease_owner"),
        leased_until=moment(row, "leased_until"),
    )


def _sighting_fields(sighting: Sighting) -> list[Any]:
    digest = sighting.digest
    hashes = [digest.size_bytes, digest.sha256, digest.md5, digest.crc64nvme] if digest else []
    return [sighting.sight, brief(sighting.detail), *hashes]


def _sighting(fields: Sequence[Any]) -> Sighting:
    sight, detail, *hashes = fields
    if not hashes:
        return Sighting(sight=Sight(sight), detail=detail)
    size_bytes, sha256, md5, crc64nvme = hashes
    digest = Digest(size_bytes=size_bytes, sha256=sha256, md5=md5, crc64nvme=crc64nvme)
    return Sighting(sight=Sight(sight), digest=digest, detail=detail)


def _portions(sightings: Sequence[Sighting]) -> list[list[list[Any]]]:
    """The fields of all sightings in their order, as many together as an item can hold; at least one portion."""
    portions: list[list[list[Any]]] = [[]]
    room = SOURCES_BYTES
    for fields in map(_sighting_fields, sightings):
        room -= len(json.dumps(fields))
        if room < 0:
            portions.append([])
            room = SOURCES_BYTES - len(json.dumps(fields))
        portions[-1].append(fields)
    return portions


def _finding_fields(finding: Finding) -> list[Any]:
    return [finding.verdict, finding.evidence, finding.key, finding.pin, finding.number]


def _finding(fields: Sequence[Any]) -> Finding:
    verdict, evidence, key, pin, number_in_archive = fields
    return Finding(verdict=Verdict(verdict), evidence=evidence, key=key, pin=pin, number=number_in_archive)


def _report_row(report: Report) -> Row:
    return {
        **_report_key(report.id),
        "run": text(report.run),
        "serial": number(report.archive),
        "cause": text(report.cause),
        "begun_at": text(report.begun_at.isoformat()),
        "finished_at": text(report.finished_at.isoformat()),
        "verdict": text(report.verdict),
        "size_bytes": number(report.size_bytes),
        "found": number(report.found),
        "findings": pack([_finding_fields(finding) for finding in report.findings]),
        "repair": text(report.repair),
        "rows_repaired": number(report.rows_repaired),
        **{_counter(verdict): number(count) for verdict, count in report.counts.items()},
    }


def _to_report(row: Mapping[str, Any]) -> Report:
    return Report(
        run=row["run"]["S"],
        archive=integer(row, "serial"),
        cause=Cause(row["cause"]["S"]),
        begun_at=instant(row, "begun_at"),
        finished_at=instant(row, "finished_at"),
        verdict=Verdict(row["verdict"]["S"]),
        counts={verdict: integer(row, _counter(verdict)) for verdict in Verdict if _counter(verdict) in row},
        size_bytes=integer(row, "size_bytes"),
        findings=tuple(map(_finding, unpack(row, "findings"))),
        found=integer(row, "found"),
        repair=string(row, "repair"),
        rows_repaired=integer(row, "rows_repaired"),
    )


def _to_last(row: Mapping[str, Any]) -> LastAudit:
    return LastAudit(
        archive=int(row["sk"]["S"]),
        begun_at=instant(row, "begun_at"),
        finished_at=moment(row, "finished_at"),
        verdict=Verdict(row["verdict"]["S"]) if "verdict" in row else None,
    )


def _rolling_row(rolling: Rolling) -> Row:
    ticked = {"ticked_at": text(rolling.ticked_at.isoformat())} if rolling.ticked_at else {}
    return {
        **_ROLLING,
        "frontier": number(rolling.frontier),
        "credit": text(repr(rolling.credit)),
        "revision": number(rolling.revision),
        **ticked,
    }


def _month_row(month: Month) -> Row:
    return {
        **_month_key(month.name),
        "stored_bytes": number(month.stored_bytes),
        "archives": number(month.archives),
        "thawed_bytes": number(month.thawed_bytes),
        "micro_usd": number(month.micro_usd),
        "cut": number(month.cut),
        "revision": number(month.revision),
    }


def _to_month(row: Mapping[str, Any]) -> Month:
    return Month(
        name=row["sk"]["S"],
        stored_bytes=integer(row, "stored_bytes"),
        archives=integer(row, "archives"),
        thawed_bytes=integer(row, "thawed_bytes"),
        micro_usd=integer(row, "micro_usd"),
        cut=integer(row, "cut"),
        revision=integer(row, "revision"),
    )


def _as_seen(revision: int) -> Row:
    """The condition that a row has this revision; 0 is that of one that does not exist."""
    if not revision:
        return _UNLESS_THERE
    return {
        "ConditionExpression": "revision = :revision",
        "ExpressionAttributeValues": {":revision": number(revision)},
    }


@dataclass(frozen=True)
class DynamoAudits(Table):
    """The port Audits on the table `audits`."""

    # Runs

    def open_run(self, run: Run, *, rolling: tuple[Rolling, Rolling] | None, month: tuple[Month, Month] | None) -> Run:
        """See neve.ports.Audits."""
        writes: list[Mapping[str, Row]] = [{"Put": {"Item": _run_row(run), **_UNLESS_THERE}}]
        if rolling:
            passed = replace(rolling[1], revision=rolling[0].revision + 1)
            writes.append({"Put": {"Item": _rolling_row(passed), **_as_seen(rolling[0].revision)}})
        if month:
            spent = replace(month[1], revision=month[0].revision + 1)
            writes.append({"Put": {"Item": _month_row(spent), **_as_seen(month[0].revision)}})
        refused = self._transact(*writes)
        if not refused:
            return run
        standing = self.run(run.id)
        if standing is None:
            raise Transient(f"run {run.id} was drawn while another run was: the rolling pass has gone on")
        return standing

    def run(self, run: str) -> Run | None:
        """See neve.ports.Audits."""
        row = self._get(_run_key(run))
        return _to_run(row) if row else None

    def runs(self, *, newest_first: bool = True) -> Iterator[Run]:
        """See neve.ports.Audits."""
        return map(_to_run, self._query(_RUNS, ScanIndexForward=not newest_first))

    def end_run(self, run: str, now: datetime) -> bool:
        """See neve.ports.Audits."""
        ended = self._write(
            self.client.update_item,
            Key=_run_key(run),
            UpdateExpression="SET finished_at = :now",
            ConditionExpression="attribute_exists(pk) AND attribute_not_exists(finished_at)",
            ExpressionAttributeValues={":now": text(now.isoformat())},
        )
        return ended is not None

    def told(self, run: str) -> None:
        """See neve.ports.Audits."""
        self._write(
            self.client.update_item,
            Key=_run_key(run),
            UpdateExpression="REMOVE unfinished, due_at",
            ConditionExpression="attribute_exists(finished_at)",
        )

    def untold(self, now: datetime) -> Iterator[Run]:
        """See neve.ports.Audits."""
        return map(_to_run, self._due(_RUNS, now))

    # Audits under way

    def begin(self, audit: Audit) -> Audit | None:
        """See neve.ports.Audits."""
        last = {
            "Key": _last_key(audit.archive),
            "UpdateExpression": "SET begun_at = :begun, due_at = :due, unfinished = :audited",
            "ConditionExpression": "attribute_not_exists(due_at) OR due_at < :due",
            "ExpressionAttributeValues": {
                ":begun": text(audit.begun_at.isoformat()),
                ":due": seconds(audit.begun_at),
                ":audited": text(_AUDITED),
            },
        }
        writes: list[Mapping[str, Row]] = [
            {"Put": {"Item": _audit_row(audit), **_UNLESS_THERE}},
            {"ConditionCheck": {"Key": _report_key(audit.id), **_UNLESS_THERE}},
        ]
        refused = self._transact(*writes, {"Update": last})
        if refused == [2]:  # another audit of it was begun later: that is its last one
            refused = self._transact(*writes)
        if not refused:
            return audit
        row = self._get(_audit_key(audit.run, audit.archive))
        return _to_audit(row) if row else None

    def waiting(self, archive: int) -> list[Audit]:
        """See neve.ports.Audits."""
        return [_to_audit(row) for row in self._query(archive_partition(archive), "audit#")]

    def lease(self, audit: Audit, *, owner: str, now: datetime, until: datetime, trying: bool = False) -> Audit | None:
        """See neve.ports.Audits."""
        answer = self._write(
            self.client.update_item,
            Key=_audit_key(audit.run, audit.archive),
            UpdateExpression="SET lease_owner = :owner, leased_until = :until ADD tries :trying",
            ConditionExpression=(
                "attribute_exists(pk) AND "
                "(attribute_not_exists(lease_owner) OR lease_owner = :owner OR leased_until < :now)"
            ),
            ExpressionAttributeValues={
                ":owner": text(owner),
                ":now": seconds(now),
                ":until": seconds(until),
                ":trying": number(int(trying)),
            },
            ReturnValues="ALL_NEW",
        )
        return None if answer is None else _to_audit(answer["Attributes"])

    def release(self, audit: Audit, *, owner: str, due_at: datetime) -> None:
        """See neve.ports.Audits."""
        self._write(
            self.client.update_item,
            Key=_audit_key(audit.run, audit.archive),
            UpdateExpression="SET due_at = :due REMOVE lease_owner, leased_until",
            ConditionExpression="lease_owner = :owner",
            ExpressionAttributeValues={":owner": text(owner), ":due": seconds(due_at)},
        )

    def save(self, audit: Audit, *, owner: str) -> bool:
        """See neve.ports.Audits."""
        fields = _progress_fields(audit)
        saved = self._write(
            self.client.update_item,
            Key=_audit_key(audit.run, audit.archive),
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in fields),
            ConditionExpression="lease_owner = :owner",
            ExpressionAttributeValues={":owner": text(owner)} | {f":{name}": value for name, value in fields.items()},
        )
        return saved is not None

    def due(self, now: datetime) -> Iterator[Audit]:
        """See neve.ports.Audits."""
        return map(_to_audit, self._due("archive#", now))

    def put_sources(self, audit: Audit, sightings: Sequence[Sighting]) -> None:
        """See neve.ports.Audits. The first item says how many there are: what an earlier try left is not read."""
        portions = _portions(sightings)
        rows = [
            {
                **_source_key(audit, item),
                "packed": pack(portion),
                "items": number(len(portions)),
                "expires_at": expiry(audit.begun_at + KEEP),
            }
            for item, portion in enumerate(portions)
        ]
        self._transact(*({"Put": {"Item": row}} for row in rows))

    def sources(self, audit: Audit) -> list[Sighting]:
        """See neve.ports.Audits."""
        rows = list(self._query(_sources_partition(audit), "source#"))
        kept = rows[: integer(rows[0], "items")] if rows else []
        return [_sighting(fields) for row in kept for fields in unpack(row)]

    # How they ended

    def finish(self, audit: Audit, report: Report, *, owner: str) -> bool:
        """See neve.ports.Audits."""
        held = {"ConditionExpression": "lease_owner = :owner", "ExpressionAttributeValues": {":owner": text(owner)}}
        counted = {
            "ended": 1,
            "members": sum(report.counts.values()),
            "size_bytes": report.size_bytes,
            _counter(report.verdict): 1,
        }
        run = {
            "Key": _run_key(audit.run),
            "UpdateExpression": "ADD " + ", ".join(f"{name} :{name}" for name in counted),
            "ConditionExpression": "attribute_exists(pk)",
            "ExpressionAttributeValues": {f":{name}": number(count) for name, count in counted.items()},
        }
        writes: list[Mapping[str, Row]] = [
            {"Delete": {"Key": _audit_key(audit.run, audit.archive), **held}},
            {"Put": {"Item": _report_row(report)}},
            {"Update": run},
        ]
        if report.verdict is not Verdict.UNREAD:
            writes.append({"Update": _last_verdict(report)})
        refused = self._transact(*writes)
        if refused == [2]:
            raise NeveError(f"there is no run {audit.run} to count to")
        return not refused

    def reports(self, run: str = "", *, newest_first: bool = False) -> Iterator[Report]:
        """See neve.ports.Audits."""
        return map(_to_report, self._query(_AUDITS, f"{run}#" if run else "", ScanIndexForward=not newest_first))

    def last(self, archives: Sequence[int]) -> Mapping[int, LastAudit]:
        """See neve.ports.Audits."""
        with ThreadPoolExecutor(THREADS) as pool:
            rows = pool.map(self._get, map(_last_key, archives))
            return {last.archive: last for last in map(_to_last, filter(None, rows))}

    def audited(self) -> Iterator[LastAudit]:
        """See neve.ports.Audits."""
        return map(_to_last, self._query(_AUDITED))

    def longest_ago(self) -> Iterator[LastAudit]:
        """See neve.ports.Audits. The index has keys only, and due_at is when the audit was begun."""
        for key in self._in_index(_AUDITED):
            begun_at = moment(key, "due_at")
            assert begun_at
            yield LastAudit(archive=int(key["sk"]["S"]), begun_at=begun_at)

    # The rolling pass

    def rolling(self) -> Rolling:
        """See neve.ports.Audits."""
        row = self._get(_ROLLING)
        if not row:
            return Rolling()
        return Rolling(
            frontier=integer(row, "frontier"),
            credit=float(row["credit"]["S"]),
            ticked_at=moment(row, "ticked_at"),
            revision=integer(row, "revision"),
        )

    def month(self, name: str) -> Month | None:
        """See neve.ports.Audits."""
        row = self._get(_month_key(name))
        return _to_month(row) if row else None


def _last_verdict(report: Report) -> Row:
    """The update of an archive's last audit; begin has made its row, and only a table put back to a past state lacks
    it."""
    return {
        "Key": _last_key(report.archive),
        "UpdateExpression": (
            "SET finished_at = :finished, verdict = :verdict, begun_at = if_not_exists(begun_at, :begun), "
            "due_at = if_not_exists(due_at, :due), unfinished = :audited"
        ),
        "ExpressionAttributeValues": {
            ":finished": text(report.finished_at.isoformat()),
            ":verdict": text(report.verdict),
            ":begun": text(report.begun_at.isoformat()),
            ":due": seconds(report.begun_at),
            ":audited": text(_AUDITED),
        },
    }

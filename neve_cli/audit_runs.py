"""Begins runs of audits, and tells how they went."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import typer

from neve.domain.audit import Cause, LastAudit, Report, Run, RunRequest, need, render_run_request, run_id
from neve.domain.estimate import Estimate, Estimator, Portion
from neve.domain.index import ArchiveRow
from neve.domain.parked import Parked
from neve.domain.prices import Charge, Use
from neve.domain.restore import Kind
from neve.domain.sampling import sample_size
from neve.domain.thaw import Need, Thaw, ThawState
from neve.domain.verdict import QUIET
from neve_cli import clock, output
from neve_cli.audit_next import next_step, stands
from neve_cli.audit_statement import policy
from neve_cli.audit_watching import (
    Repaired,
    going_on,
    is_young,
    repaired,
    shown,
    verdicts,
    wait_for_repair,
    wait_for_run,
)
from neve_cli.audit_words import NAMES, report_fields
from neve_cli.failures import PROBLEM
from neve_cli.offers import MICRO, show_estimate
from neve_cli.stack import Stack
from neve_cli.text import counted, iso, moment, safe, size

THREADS = 16
SHOWN_REPORTS = 50
SHOWN_WAITING = 20
SENT_WITHIN = timedelta(days=15)
"""An audit begins so long after its run was drawn, at most: messages live 14 days."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command is to do. No archives: a random sample."""

    archives: tuple[int, ...]
    repair: bool = False
    wait: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A run as it would be sent. `rows` are its archives, or, of a random sample, as many others of today."""

    request: RunRequest
    need: Need
    rows: tuple[ArchiveRow, ...]
    estimate: Estimate
    spent_usd: float
    cap_usd: float
    now: datetime

    @property
    def usd_by_part(self) -> dict[str, float]:
        """What each part costs that there is."""
        return {part: cost for part, cost in self.estimate.usd_by_part.items() if cost}


# -- Asking ----------------------------------------------------------------------------------------------------------


def ask(deployed: Stack, order: Order) -> None:
    """Show what a run takes, send it, and stay with it if that is wanted. Raises typer.Exit unless all is well."""
    offer = _offer(deployed, order, _rows(deployed, order))
    if not order.as_json:
        _show_offer(offer)
    if offer.estimate.not_offered:
        slow = offer.estimate.not_offered[0]
        typer.echo(f"neve: {slow.storage_class} has no tier {offer.need.tier}: archive {slow.serial}", err=True)
        raise typer.Exit(PROBLEM)
    run: Run | None = None
    if not order.dry_run:
        deployed.audits_queue.send(render_run_request(offer.request))
        if not order.as_json:
            typer.echo(f"run {offer.request.id}")
            if not order.wait:
                typer.echo(f"  how it goes:   neve audit show {offer.request.id}")
        if order.wait:
            with going_on(offer.request.id), shown(quiet=order.as_json) as show:
                run = wait_for_run(deployed, offer.request.id, show)
    sight = _look(deployed, run, wait=True) if run else None
    if order.as_json:
        output.document({**_offer_fields(offer, order), "result": _sight_fields(sight) if sight else None})
    elif sight:
        _tell(sight)
    if sight and not sight.good:
        raise typer.Exit(PROBLEM)


def _rows(deployed: Stack, order: Order) -> tuple[ArchiveRow, ...]:
    """The archives of a run, or as many of today as it will draw. Ends the command if there is none, or not all."""
    if not order.archives:
        rows = tuple(islice(deployed.archives.all(newest_first=True), sample_size(deployed.archives.drawn())))
        if not rows:
            typer.echo("neve: nothing is archived yet, so there is nothing to audit.", err=True)
            raise typer.Exit(PROBLEM)
        return rows
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(order.archives, pool.map(deployed.archives.get, order.archives), strict=True))
    missing = [str(serial) for serial, row in found.items() if row is None]
    if missing:
        typer.echo(f"neve: there is no archive {', '.join(missing)}; `neve archives` lists them.", err=True)
        raise typer.Exit(PROBLEM)
    rows = tuple(row for row in found.values() if row)
    if order.repair and rows[0].superseded_by:
        by = rows[0].superseded_by
        typer.echo(
            f"neve: archive {rows[0].serial} is repaired already: archive {by} stands for it. What is left is seen to.",
            err=True,
        )
    return rows


def _offer(deployed: Stack, order: Order, rows: tuple[ArchiveRow, ...]) -> Offer:
    now = clock.now()
    request = RunRequest(id=run_id(now, secrets.token_hex(4)), archives=order.archives, repair=order.repair)
    asked = need(policy(deployed).tier, repair=order.repair)
    estimator = Estimator(need=asked, owner=request.id, now=now)
    with ThreadPoolExecutor(THREADS) as pool:
        for row, thaw in zip(rows, pool.map(deployed.thaws.get, (row.serial for row in rows)), strict=True):
            # Read once, from the first byte to the last, and nothing is written.
            estimator.add(row, thaw, Portion(files={Kind.LOCAL: 1}, reads=1, size_bytes=row.size_bytes))
    estimate = estimator.estimate()
    sources = Use(purpose="reading sources", charge=Charge.S3_GET, quantity=sum(row.files for row in rows))
    return Offer(
        request=request,
        need=asked,
        rows=rows,
        estimate=replace(estimate, bill=replace(estimate.bill, uses=(*estimate.bill.uses, sources))),
        spent_usd=deployed.thaws.spent_micro_usd(now) / MICRO,
        cap_usd=deployed.usd_per_day,
        now=now,
    )


def _show_offer(offer: Offer) -> None:
    rows = offer.rows
    files, total = counted(sum(row.files for row in rows), "file"), size(sum(row.size_bytes for row in rows))
    if offer.request.archives:
        typer.echo(f"{counted(len(rows), 'archive')} with {files}, {total}")
    else:
        typer.echo(
            f"{counted(len(rows), 'archive')} drawn at random; what it takes is told for the newest: {files}, {total}"
        )
    show_estimate(
        offer.estimate,
        offer.usd_by_part,
        offer.need,
        spent_usd=offer.spent_usd,
        cap_usd=offer.cap_usd,
        now=offer.now,
        then="it is read and compared",
        besides="what is archived anew is stored once more" if offer.request.repair else "",
    )
    thaws_usd = offer.estimate.thaw_micro_usd / MICRO
    if offer.cap_usd and offer.spent_usd + thaws_usd > offer.cap_usd:
        typer.echo("  ! the cap of the day does not suffice: some thaws wait until after midnight UTC")


def _offer_fields(offer: Offer, order: Order) -> dict[str, Any]:
    estimate = offer.estimate
    return {
        "run": None if order.dry_run else offer.request.id,
        "dry_run": order.dry_run,
        "repair": order.repair,
        "archives": list(offer.request.archives) or None,
        "audits": len(offer.rows),
        "tier": offer.need.tier.value,
        "days": offer.need.days,
        "size_bytes": sum(row.size_bytes for row in offer.rows),
        "thaws": {
            "to_ask_for": estimate.asked,
            "running": estimate.running,
            "not_needed": estimate.readable,
            "size_bytes": estimate.thaw_bytes,
        },
        "usd": round(estimate.usd, 6),
        "usd_by_part": {part: round(cost, 6) for part, cost in offer.usd_by_part.items()},
        "spent_usd": offer.spent_usd,
        "usd_per_day": offer.cap_usd,
        "prices": {"region": estimate.bill.prices.region, "checked": estimate.bill.prices.checked},
        "ready_at": iso(estimate.ready_at),
    }


# -- Looking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An audit that has ended, with its archive as it stands now, and what became of the repair that it ordered."""

    report: Report
    row: ArchiveRow | None
    last: LastAudit | None
    repaired: Repaired | None
    rows_repaired: bool = False

    @property
    def good(self) -> bool:
        """Whether nothing is left to do: it found nothing, or what it found is put right."""
        if self.repaired and self.repaired.archive:
            return self.repaired.good
        return self.rows_repaired or not stands(self.report, self.row, self.last)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A run, its audits that have ended, and the thaws of the first that have not."""

    run: Run
    ended: tuple[Ended, ...]
    waiting: Mapping[int, Thaw | None]

    @property
    def good(self) -> bool:
        """As Ended.good, for all that have ended."""
        return all(each.good for each in self.ended)


def _look(deployed: Stack, run: Run, *, wait: bool = False) -> Sight:
    """The run as it stands; with `wait`, when the repairs that it ordered have ended."""
    reports = list(deployed.audits.reports(run.id))
    with going_on(run.id) if wait else nullcontext():
        repairs = {report.archive: (wait_for_repair if wait else repaired)(deployed, report) for report in reports}
    last = deployed.audits.last([report.archive for report in reports])
    ended = tuple(
        Ended(
            report=report,
            row=deployed.archives.get(report.archive) if report.verdict not in QUIET else None,
            last=last.get(report.archive),
            repaired=repairs[report.archive],
            rows_repaired=bool(report.rows_repaired),
        )
        for report in reports
    )
    there = set(repairs)
    waiting = [serial for drawn in run.drawn.values() for serial in drawn if serial not in there]
    thaws = {serial: deployed.thaws.get(serial) for serial in waiting[:SHOWN_WAITING]}
    return Sight(run=run, ended=ended, waiting=thaws)


def list_last(deployed: Stack, last: int, *, as_json: bool) -> None:
    """The last runs, the newest at the end."""
    runs = list(islice(deployed.audits.runs(newest_first=True), last))[::-1]
    if as_json:
        output.array(_run_fields(run) for run in runs)
        return
    output.table(
        ("RUN", "BEGUN (UTC)", "ARCHIVES", "ENDED", "FILES", "BYTES", "LEFT OUT", "VERDICTS"),
        (
            (
                run.id,
                moment(run.created_at),
                f"{run.audits:,}",
                f"{run.ended:,}",
                f"{run.members:,}",
                size(run.size_bytes),
                f"{run.cut:,}",
                verdicts(run),
            )
            for run in runs
        ),
        right=frozenset({2, 3, 4, 5, 6}),
    )


def show_run(deployed: Stack, wanted: str, *, as_json: bool) -> None:
    """One run. Raises typer.Exit if there is none, or what it found stands."""
    run = deployed.audits.run(wanted)
    if run is None and is_young(wanted, clock.now()):
        if as_json:
            output.document({"run": wanted, "state": "not begun yet"})
        else:
            typer.echo(f"run {wanted} is not begun yet: it was sent a moment ago.")
        return
    if run is None:
        typer.echo(f"neve: there is no run {safe(wanted)}; `neve audit list` lists them.", err=True)
        raise typer.Exit(PROBLEM)
    sight = _look(deployed, run)
    if as_json:
        output.document(_sight_fields(sight))
    else:
        _tell(sight)
    if not sight.good:
        raise typer.Exit(PROBLEM)


def show_archive(deployed: Stack, serial: int, *, as_json: bool) -> None:
    """The last audit of an archive. Raises typer.Exit if there is no such archive, or what was found stands."""
    row = deployed.archives.get(serial)
    last = deployed.audits.last([serial]).get(serial)
    if row is None and last is None:
        typer.echo(f"neve: there is no archive {serial}; `neve archives` lists them.", err=True)
        raise typer.Exit(PROBLEM)
    under_way = deployed.audits.waiting(serial)
    found = _last_report(deployed, last) if last else None
    run = deployed.audits.run(found.run) if found else None
    ended = None
    if found and run:
        ended = Ended(
            report=found,
            row=row,
            last=last,
            repaired=repaired(deployed, found),
            rows_repaired=bool(found.rows_repaired),
        )
    if as_json:
        output.document(
            {
                "archive": serial,
                "superseded_by": row.superseded_by or None if row else None,
                "under_way": [
                    {"run": audit.run, "cause": audit.cause.value, "begun_at": iso(audit.begun_at)}
                    for audit in under_way
                ],
                "last": _ended_fields(ended) if ended else None,
            }
        )
    else:
        for audit in under_way:
            state = _told_of_thaw(deployed.thaws.get(serial))
            typer.echo(f"archive {serial} is being audited by run {audit.run}: {state}")
        if ended:
            _tell_ended(ended)
            typer.echo(f"  run       {ended.report.run}, {NAMES[ended.report.cause]}")
            typer.echo(f"  ended     {moment(ended.report.finished_at)} UTC; {size(ended.report.size_bytes)} read")
        elif not under_way:
            typer.echo(f"archive {serial} was never audited: `neve audit run --archive {serial}`")
    if ended and not ended.good:
        raise typer.Exit(PROBLEM)


def _last_report(deployed: Stack, last: LastAudit) -> Report | None:
    """How the newest audit of an archive ended: runs know what they drew, and are fewer than reports."""
    for run in deployed.audits.runs(newest_first=True):
        if run.created_at < (last.finished_at or last.begun_at) - SENT_WITHIN:
            break
        if any(last.archive in drawn for drawn in run.drawn.values()):
            found = next((each for each in deployed.audits.reports(run.id) if each.archive == last.archive), None)
            if found:
                return found
    return None


# -- Telling ---------------------------------------------------------------------------------------------------------


def _tell(sight: Sight) -> None:
    run = sight.run
    state = "complete" if run.complete else "under way"
    typer.echo(f"run {run.id}, {state}{', with repair' if run.repair else ''}")
    drawn = ", ".join(f"{len(run.drawn[cause]):,} {NAMES[cause]}" for cause in Cause if run.drawn.get(cause))
    typer.echo(f"  begun     {moment(run.created_at)} UTC; {counted(run.audits, 'archive')}: {drawn or 'none'}")
    typer.echo(f"  compared  {run.ended:,}: {verdicts(run)}; {counted(run.members, 'file')}, {size(run.size_bytes)}")
    if run.cut:
        typer.echo(f"  left out  {counted(run.cut, 'archive')} of the rolling pass, for the month's budget")
    if run.finished_at:
        typer.echo(f"  ended     {moment(run.finished_at)} UTC")
    for serial, thaw in sight.waiting.items():
        typer.echo(f"archive {serial}: {_told_of_thaw(thaw)}")
    if run.audits - run.ended > len(sight.waiting):
        typer.echo(f"and {run.audits - run.ended - len(sight.waiting):,} more under way")
    quiet = [each for each in sight.ended if each.report.verdict in QUIET]
    for each in sight.ended:
        if each.report.verdict not in QUIET:
            _tell_ended(each)
    for each in quiet[:SHOWN_REPORTS]:
        _tell_ended(each)
    if len(quiet) > SHOWN_REPORTS:
        typer.echo(f"and {len(quiet) - SHOWN_REPORTS:,} more without a finding: `neve audit show {run.id} --json`")


def _tell_ended(ended: Ended) -> None:
    report = ended.report
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in report.counts.items()) or "no file told apart"
    typer.echo(f"archive {report.archive}: {report.verdict} ({counts})")
    for finding in report.findings:
        what = f"{report.archive}.{finding.number} {safe(finding.key)} version {safe(finding.pin)}"
        typer.echo(
            f"  {finding.verdict}: {what if finding.key else 'the archive as a whole'}: {safe(finding.evidence)}"
        )
    if report.found > len(report.findings):
        typer.echo(f"  and {report.found - len(report.findings):,} more findings, which are not kept")
    if ended.repaired:
        _tell_repaired(ended.repaired)
    elif ended.rows_repaired:
        typer.echo(f"  repaired: its rows in the index; `neve audit run --archive {report.archive}` proves it")
    elif report.verdict not in QUIET:
        typer.echo(f"  next: {next_step(report, ended.row, ended.last)}")


def _tell_repaired(repair: Repaired) -> None:
    if not repair.finished:
        typer.echo(f"  being repaired: bundle {repair.bundle} is not written yet")
        return
    if repair.archive:
        typer.echo(f"  repaired: archive {repair.archive} stands for it: `neve archives {repair.archive}`")
    else:
        typer.echo("  not repaired: nothing of it was left to archive")
    for word, items in (("lost for good", repair.lost), ("not repaired", repair.unrepaired)):
        for item in items:
            what = f"{safe(item.version.key)} version {safe(item.version.pin)}" if item.version else "all of it"
            typer.echo(f"  {word}: {what}: {safe(item.detail)}")
    if repair.unrepaired:
        typer.echo("  see to what could not be read (`neve parked`), then repair again")


def _told_of_thaw(thaw: Thaw | None) -> str:
    if thaw is None:
        return "its sources are being hashed"
    if thaw.state is ThawState.WARM:
        return f"thawed until {moment(thaw.warm_until)} UTC, to be read"
    return f"thawing, {thaw.tier}, by {moment(thaw.ready_at)} UTC"


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "state": "complete" if run.complete else "under way",
        "created_at": iso(run.created_at),
        "finished_at": iso(run.finished_at),
        "repair": run.repair,
        "drawn": {cause.value: list(serials) for cause, serials in run.drawn.items()},
        "of": run.archives,
        "left_out": run.cut,
        "audits": run.audits,
        "ended": run.ended,
        "verdicts": {verdict.value: count for verdict, count in run.verdicts.items() if count},
        "files": run.members,
        "size_bytes": run.size_bytes,
    }


def _sight_fields(sight: Sight) -> dict[str, Any]:
    return {**_run_fields(sight.run), "reports": [_ended_fields(each) for each in sight.ended]}


def _ended_fields(ended: Ended) -> dict[str, Any]:
    fields = report_fields(ended.report, next_step(ended.report, ended.row, ended.last))
    repair = ended.repaired
    fields["repaired"] = None
    if repair:
        fields["repaired"] = {
            "finished": repair.finished,
            "archive": repair.archive or None,
            "lost": [_parked_fields(item) for item in repair.lost],
            "unrepaired": [_parked_fields(item) for item in repair.unrepaired],
        }
    return {**fields, "rows_repaired": ended.rows_repaired, "good": ended.good}


def _parked_fields(item: Parked) -> dict[str, Any]:
    version = item.version
    return {"key": version.key if version else None, "pin": version.pin if version else None, "detail": item.detail}

"""What a run of the demo came to: requests, cost, latency; as a report to read and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from neve.domain.cost import Run as ArchivingRun
from neve.domain.cost import Workload, archiving, as_run, floor, requested
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.parked import Parked
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge
from neve.domain.thaw import PROMISES
from neve_local.demo_audit import Audited
from neve_local.demo_logs import Requests, Thaws
from neve_local.demo_offload import Offloaded
from neve_local.demo_proof import Identity, Uploaded
from neve_local.demo_restore import Restored
from neve_local.demo_view import rows, size


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the files. `problems` is empty if every one of them lies in an archive and came back.

    `archiving` and `restoring` are what the functions of the two threads asked of AWS. `restored` is None if there was
    nothing to restore; `passed_over` counts restored versions that archiving has passed over, `archived_again` others.
    If `audited` is None, `not_audited` says why.
    """

    uploaded: Sequence[Uploaded]
    found: Mapping[Identity, FileRow]
    parked: Mapping[str, Parked]
    archives: Sequence[ArchiveRow]
    verified: int
    lost: int
    restored: Restored | None
    thaws: Thaws
    passed_over: int
    archived_again: int
    archiving: Requests
    restoring: Requests
    problems: list[str]
    upload_s: float
    offloaded: Offloaded | None = None
    audited: Audited | None = None
    not_audited: str = ""


def bill_as_they_came(outcome: Outcome) -> Bill:
    """What archiving would have cost in this run: what the functions' ledgers say."""
    return Bill(prices=US_EAST_1, uses=tuple(outcome.archiving.tally.uses()))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0.0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latencies(outcome: Outcome) -> list[float]:
    """Seconds from S3's answer to the upload until every row of the file's archive stood."""
    archived_at = {row.serial: row.archived_at for row in outcome.archives}
    seconds = []
    for each in outcome.uploaded:
        row = outcome.found.get(each.identity)
        moment = archived_at.get(row.archive) if row else None
        if moment:
            seconds.append(max(0.0, moment.timestamp() - each.at))
    return seconds


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, and all that its reports are made of."""

    folder: str
    prefix: str
    began: datetime
    seconds: float
    settings: Mapping[str, str]
    outcome: Outcome
    skipped: Sequence[str]

    @property
    def as_they_came(self) -> Bill:
        """What this run would have cost for a million files."""
        return bill_as_they_came(self.outcome).scaled(MILLION / max(1, len(self.outcome.uploaded)))

    @property
    def archiving(self) -> Bill:
        """A million files of 100 KB in full bundles."""
        return Bill(prices=US_EAST_1, uses=tuple(archiving(self._work)))

    @property
    def floor(self) -> Bill:
        """What of that no program can avoid."""
        return Bill(prices=US_EAST_1, uses=tuple(floor(self._work)))

    @property
    def compared(self) -> tuple[float, float]:
        """What a million files like these come to without Lambda's time: by the ledger, and by the model.

        The model is told what the run had: files, batches, archives, messages. It is not told of any request.
        """
        requests = self.outcome.archiving
        target_bytes = int(self.settings["target_bytes"])
        sizes = [each.file.size_bytes for each in self.outcome.uploaded]
        small = [size_bytes for size_bytes in sizes if size_bytes <= target_bytes]
        model = as_run(
            ArchivingRun(
                files=len(small),
                size_bytes=sum(small),
                batches=max(1, requests.invocations.get("Collect", 0)),
                archives=sum(row.kind == "tar" for row in self.outcome.archives),
                large=[size_bytes for size_bytes in sizes if size_bytes > target_bytes],
                messages=requests.tally.requests.get("sqs:SendMessage", 0),
                storage_class=self.settings["storage_class"],
            )
        )
        ledger, reckoned = (
            Bill(prices=US_EAST_1, uses=tuple(uses)).scaled(MILLION / max(1, len(sizes))).usd
            for uses in (requested(requests.tally.uses()), model)
        )
        return ledger, reckoned

    @property
    def _work(self) -> Workload:
        return Workload(target_bytes=int(self.settings["target_bytes"]), storage_class=self.settings["storage_class"])

    @property
    def restore_reads(self) -> int:
        """GETs that restored: Extract's own, and one for each file that the command fetched itself."""
        local = len(self.outcome.restored.local) if self.outcome.restored else 0
        return self.outcome.restoring.tally.requests.get("s3:GetObject", 0) + local

    @property
    def storage_bytes(self) -> int:
        """Of all archives."""
        return sum(row.size_bytes for row in self.outcome.archives)


def as_json(run: Run) -> dict[str, Any]:
    """The report for programs. Sizes are bytes, times seconds, money US dollars."""
    outcome, requests = run.outcome, run.outcome.archiving
    seconds = latencies(outcome)
    by_service = requests.by_service()
    files = len(outcome.uploaded)
    return {
        "ok": not outcome.problems,
        "problems": outcome.problems,
        "began_at": run.began.isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 1),
        "python": platform.python_version(),
        "folder": run.folder,
        "prefix": run.prefix,
        "settings": dict(run.settings),
        "files": files,
        "bytes": sum(each.file.size_bytes for each in outcome.uploaded),
        "skipped": list(run.skipped),
        "archives": len(outcome.archives),
        "archive_bytes": run.storage_bytes,
        "mean_archive_bytes": round(run.storage_bytes / len(outcome.archives)) if outcome.archives else 0,
        "archived": len(outcome.found),
        "parked": len(outcome.parked),
        "lost": outcome.lost,
        "verified": outcome.verified,
        "latency_p50_s": round(quantile(seconds, 0.50), 3),
        "latency_p99_s": round(quantile(seconds, 0.99), 3),
        "latency_max_s": round(max(seconds, default=0.0), 3),
        "upload_s": round(outcome.upload_s, 3),
        "uploads_per_s": round(files / outcome.upload_s, 1) if outcome.upload_s else 0.0,
        "requests": by_service,
        "requests_by_service": {service: sum(counts.values()) for service, counts in by_service.items()},
        "write_units": requests.tally.units(Charge.DYNAMODB_WRITE_UNIT),
        "read_units": requests.tally.units(Charge.DYNAMODB_READ_UNIT),
        "invocations": dict(requests.invocations),
        "function_seconds": {name: round(value, 3) for name, value in requests.seconds.items()},
        "usd_per_million_files": round(run.archiving.usd, 4),
        "usd_per_million_files_as_they_came": round(run.as_they_came.usd, 4),
        "usd_per_million_files_floor": round(run.floor.usd, 4),
        "cost": _compared_json(run),
        "prices": {"region": US_EAST_1.region, "checked": US_EAST_1.checked, "list": "without free tiers"},
        "bill": _bill_json(run.archiving),
        "bill_as_they_came": _bill_json(run.as_they_came),
        "restored": outcome.restored.in_place if outcome.restored else 0,
        "restore_mismatches": outcome.restored.mismatches if outcome.restored else 0,
        "thaws": outcome.thaws.asked,
        "restore": _restore_json(run, outcome.restored) if outcome.restored else None,
        "offload": _offload_json(outcome.offloaded),
        "audit": _audit_json(outcome.audited, outcome.not_audited),
    }


def _compared_json(run: Run) -> dict[str, float]:
    """What was asked for held against the model, of a million files; Lambda's time, the machine's own, is left out."""
    ledger, model = run.compared
    return {
        "ledger_usd_per_million": round(ledger, 4),
        "model_usd_per_million": round(model, 4),
        "difference_percent": round((ledger / model - 1) * 100, 2) if model else 0.0,
    }


def _offload_json(offloaded: Offloaded | None) -> dict[str, Any]:
    if offloaded is None:
        return dict.fromkeys(("files", "urls_checked", "url_failures"), 0)
    seconds = list(offloaded.flipped_s.values())
    return {
        "files": len(offloaded.moved),
        "urls_checked": offloaded.urls_checked,
        "url_failures": offloaded.url_failures,
        "redirected": offloaded.redirected,
        "asked_again": offloaded.asked_again,
        "released": offloaded.released,
        "web_server": offloaded.web_server,
        "flipped_p50_s": round(quantile(seconds, 0.50), 3),
        "flipped_p99_s": round(quantile(seconds, 0.99), 3),
    }


def _audit_json(audited: Audited | None, skipped: str) -> dict[str, Any]:
    if audited is None:
        counts = dict.fromkeys(("audited", "damaged_injected", "damaged_found", "repaired"), 0)
        return {**counts, "verdicts": {}, "files_moved": 0, "seconds": 0.0, "skipped": skipped}
    trial, drilled = audited.trial, audited.drilled
    return {
        "audited": len(audited.reports),
        "damaged_injected": 1,
        "damaged_found": int(audited.damage_found),
        "repaired": int(audited.repaired.good),
        "verdicts": {verdict.value: count for verdict, count in audited.verdicts.items()},
        "files_moved": audited.repaired.moved,
        "seconds": round(audited.seconds, 1),
        "intact": trial.intact.serial,
        "damaged": trial.damaged.serial,
        "damaged_file": trial.file.key,
        "repaired_by": audited.repaired.by or None,
        "commands": [list(words) for words in audited.commands],
        "drill": {
            "files": drilled.files,
            "places": drilled.places,
            "good": drilled.good,
            "seconds": round(drilled.seconds, 1),
        }
        if drilled
        else None,
    }


def _restore_json(run: Run, restored: Restored) -> dict[str, Any]:
    outcome, need = run.outcome, restored.need
    bill = restored.bill(need.tier, reads=run.restore_reads)
    return {
        "wanted": len(restored.deletion.all),
        "in_batch": len(restored.deletion.batch),
        "to_content": len(restored.deletion.all) - len(restored.local),
        "to_folder": len(restored.local),
        "archives": len(restored.archives),
        "extended": outcome.thaws.extended,
        "passed_over": outcome.passed_over,
        "archived_again": outcome.archived_again,
        "tier": need.tier.value,
        "days": need.days,
        "commands": [
            {
                "words": list(each.words),
                "status": each.status,
                "job": each.job.id if each.job else None,
                "seconds": each.seconds,
                "estimate_usd": each.job.estimate_usd if each.job else None,
            }
            for each in restored.commands
        ],
        "usd": round(bill.usd, 6),
        "bill": _bill_json(bill),
        "requests": outcome.restoring.by_service(),
        "invocations": dict(outcome.restoring.invocations),
        "function_seconds": {name: round(value, 3) for name, value in outcome.restoring.seconds.items()},
    }


def _bill_json(bill: Bill) -> list[dict[str, Any]]:
    return [
        {
            "purpose": use.purpose,
            "charge": use.charge.value,
            "quantity": round(use.quantity, 3),
            "usd": round(bill.usd_of(use), 6),
            "imputed": use.unseen,
            "rule": use.rule,
        }
        for use in bill.uses
        if use.quantity
    ]


def show(run: Run, console: Console) -> None:
    """The report for people."""
    outcome, requests = run.outcome, run.outcome.archiving
    seconds = latencies(outcome)
    files = len(outcome.uploaded)
    bytes_in = sum(each.file.size_bytes for each in outcome.uploaded)
    mean = run.storage_bytes / len(outcome.archives) if outcome.archives else 0
    wanted = len(outcome.restored.deletion.all) if outcome.restored else 0
    missing = outcome.restored.mismatches if outcome.restored else 0
    good = not outcome.problems and outcome.verified == files and not missing
    verdict = (
        f"{files:,} files lie in {run.settings['storage_class']}: each in exactly one archive, "
        f"each read back byte for byte. {wanted:,} were deleted and are restored."
        if good
        else f"Not all is well. Came back from an archive: {outcome.verified:,} of {files:,} files. "
        f"Restored: {wanted - missing:,} of {wanted:,} that were deleted."
    )
    console.print()
    console.print(Text(verdict, style="bold green" if good else "bold red"))
    console.print()
    units = ", ".join(
        f"{requests.tally.units(charge):,.0f} {kind} units"
        for kind, charge in (("write", Charge.DYNAMODB_WRITE_UNIT), ("read", Charge.DYNAMODB_READ_UNIT))
    )
    console.print(
        rows(
            {
                "files": f"{files:,}, {size(bytes_in)}",
                "archives": f"{len(outcome.archives):,}, {size(mean)} each on average",
                "archived": f"{len(outcome.found):,}   parked {len(outcome.parked):,}   lost {outcome.lost:,}   "
                f"compared with the disk {outcome.verified:,}",
                "upload to archived": f"p50 {quantile(seconds, 0.5):.1f} s   p99 {quantile(seconds, 0.99):.1f} s   "
                f"longest {max(seconds, default=0):.1f} s",
                "folder to content": f"{outcome.upload_s:.1f} s, "
                f"{files / max(outcome.upload_s, 0.001):,.0f} files a second",
                **{
                    f"requests to {service}": ", ".join(f"{name} {count:,}" for name, count in counts.items())
                    + (f"; {units}" if service == "dynamodb" else "")
                    for service, counts in requests.by_service().items()
                },
                "invocations": ", ".join(f"{name} {count:,}" for name, count in requests.invocations.items()),
            }
        )
    )
    console.print(
        Text(f"A million such files at list prices of {US_EAST_1.region}, {US_EAST_1.checked}", style="bold"),
        "[dim](from the event to archived; storage apart)[/dim]",
    )
    console.print(
        rows(
            {
                "as they came here": f"${run.as_they_came.usd:.2f}   {size(bytes_in / max(1, files))} each, "
                f"{files / max(1, len(outcome.archives)):,.0f} to an archive; the functions' time is this machine's",
                "their requests alone": "${:.2f} counted by the ledger, ${:.2f} by the model of this run".format(
                    *run.compared
                ),
                "full bundles of 100 KB": f"${run.archiving.usd:.2f}   of which no program can avoid "
                f"${run.floor.usd:.2f}",
            }
        )
    )
    if outcome.offloaded:
        _show_offloaded(outcome.offloaded, console)
    if outcome.restored:
        _show_restored(run, outcome.restored, console)
    if outcome.audited:
        _show_audited(outcome.audited, console)
    else:
        console.print(f"No audit: {outcome.not_audited}.", markup=False)


def _show_offloaded(offloaded: Offloaded, console: Console) -> None:
    seconds = list(offloaded.flipped_s.values())
    console.print(
        Text("Moved out of a folder, with their URLs served all along", style="bold"),
        f"[dim](`neve edge run`, {offloaded.web_server}, Resolve)[/dim]",
    )
    console.print(
        rows(
            {
                "moved": f"{len(offloaded.moved):,} files   uploads let go {offloaded.released:,}",
                "URLs asked for": f"{offloaded.urls_checked:,}, {offloaded.redirected:,} of them redirected   "
                f"told to come back, and did {offloaded.asked_again:,}   failed {offloaded.url_failures:,}",
                "drop to pointer": f"p50 {quantile(seconds, 0.5):.1f} s   p99 {quantile(seconds, 0.99):.1f} s",
            }
        )
    )


def _show_restored(run: Run, restored: Restored, console: Console) -> None:
    deletion, thaws, need = restored.deletion, run.outcome.thaws, restored.need
    storage_class = run.settings["storage_class"]
    promises = PROMISES.get(storage_class, {})
    soon, late = (limit.total_seconds() / 3600 for limit in promises.get(need.tier, (timedelta(), timedelta())))
    seconds = ["never" if each.seconds is None else f"{each.seconds:.1f} s" for each in restored.commands]
    prices = {tier: restored.bill(tier, reads=run.restore_reads).usd for tier in (need.tier, *promises)}
    how = f"{need.tier}, {need.days}-day copies" if promises else f"{storage_class} needs no thaws"
    console.print(
        Text("Deleted from the content bucket, and restored by `neve restore`", style="bold"), f"[dim]({how})[/dim]"
    )
    console.print(
        rows(
            {
                "restored": f"{restored.in_place:,} of {len(deletion.all):,}: one alone, the others in a batch, "
                f"{len(restored.local):,} of them to a folder   missing or different {restored.mismatches:,}",
                "thaws": f"{thaws.asked:,} asked of S3 for {len(restored.thawed):,} archives, "
                f"{thaws.extended:,} extended   files archived again {run.outcome.archived_again:,}",
                "request to in place": f"{', the batch '.join(seconds)}"
                + (f"   (S3 takes {soon:g} to {late:g} hours to thaw)" if late else ""),
                "list price": ",   ".join(f"{f'{tier} ' if promises else ''}${usd:.4f}" for tier, usd in prices.items())
                + "   (functions' time apart)",
            }
        )
    )


def _show_audited(audited: Audited, console: Console) -> None:
    trial, repaired = audited.trial, audited.repaired
    found = "the file, and nothing else" if audited.damage_found else "NOT THIS FILE"
    said = (
        f"archive {report.archive}: " + ", ".join(f"{count:,} {verdict}" for verdict, count in report.counts.items())
        for report in audited.reports
    )
    console.print(
        Text("Audited, damaged on purpose, found, repaired", style="bold"),
        f"[dim](`neve audit run`, `neve audit repair`; {audited.seconds:.0f} s)[/dim]",
    )
    console.print(
        rows(
            {
                "damaged": f"one bit, on disk, of {trial.file.id} {trial.file.key!r}",
                "audited": "   ".join(said),
                "found": found,
                "repaired": f"archive {repaired.by} stands for {trial.damaged.serial}: {repaired.moved:,} rows of the "
                "index name it now, each for bytes that are as on disk"
                if repaired.good
                else "NO",
                **({"drill": audited.drilled.sentence} if audited.drilled else {}),
            }
        )
    )


def write(run: Run, path: Path) -> None:
    """Write the report for programs to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(run), indent=2) + "\n")

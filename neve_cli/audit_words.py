"""What audits say of the collection, in sentences and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from neve.domain.audit import Cause, Report
from neve.domain.verdict import Finding
from neve_cli.audit_next import Next
from neve_cli.audit_statement import Oldest, Statement, Tally, Trials
from neve_cli.text import counted, iso, moment, percent, size, usd

STANDS_STILL = timedelta(days=2)
"""A rolling pass that has not gone on for so long has stopped."""
NAMES: Mapping[Cause, str] = {Cause.RANDOM: "at random", Cause.ROLLING: "rolling pass", Cause.ASKED: "by name"}
"""The causes of audits for people."""


def covered(part: Tally, whole: Tally) -> str:
    """A part of the collection: 12 archives (3.4 %), 1.2 GB (5.6 %)."""
    archives, size_bytes = shares(part, whole)
    return f"{counted(part.archives, 'archive')} ({archives}), {size(part.size_bytes)} ({size_bytes})"


def shares(part: Tally, whole: Tally) -> tuple[str, str]:
    """The shares of archives and of bytes; "-" of nothing."""
    return (
        percent(part.archives / whole.archives) if whole.archives else "-",
        percent(part.size_bytes / whole.size_bytes) if whole.size_bytes else "-",
    )


def window(statement: Statement) -> str:
    """The time that counts as of late."""
    return f"within {counted(statement.policy.window.days, 'day')}"


def damaged(trials: Trials, within: str, statement: Statement) -> str:
    """What random audits say of the archives that were not audited, too."""
    if not trials.audits:
        return f"No random audit {within} came to a verdict: nothing is proved of archives that were not audited."
    found = f"{trials.findings:,} of them found something" if trials.findings else "none found anything"
    most = math.floor(trials.bound * statement.collection.archives)
    number = f" ({most:,} of {statement.collection.archives:,})" if most else ""
    audits = counted(trials.audits, "random audit")
    return (
        f"{audits} {within}, {found}: with {100 * statement.confidence:.0f} % confidence an audit would find something "
        f"in at most {percent(trials.bound, up=True)} of the archives{number}."
    )


def assumptions(statement: Statement) -> list[str]:
    """What the bound rests on."""
    told = [
        "Each random audit takes any of the archives there then, each as likely as any other, audited before or not.",
        "Whatever was found counts: in the archive, its manifest, the index, or at the source; also what is repaired.",
        "It holds on average for the time in which the audits were made. Damage done since is not in it.",
        "Hashes (SHA-256, MD5, CRC64NVME) tell any two contents apart.",
        "The bound is the exact one-sided one of a binomial share (Clopper and Pearson 1934).",
    ]
    unread = statement.trials_of_late.unread
    if unread:
        could = f"{counted(unread, 'random audit')} {window(statement)} could not read the archive or a source"
        told.append(f"{could}, and count neither way.")
    return told


def rolling(statement: Statement) -> str:
    """When the rolling pass will have seen everything."""
    horizon = statement.policy.horizon_days
    if not statement.policy.rolling:
        return f"There is none: the setting {'audit_every_h' if horizon else 'audit_horizon_days'} is 0."
    if not statement.collection.archives:
        return "Nothing is archived yet."
    if statement.seen_by is None:
        told = "It will never have seen everything: its budget is 0."
    elif not statement.never.archives:
        told = f"Every archive has been audited; it comes round again within {counted(horizon, 'day')}."
    else:
        told = f"By {statement.seen_by:%Y-%m-%d} it will have seen everything that is archived now."
    ticked = statement.rolling.ticked_at
    if ticked is None:
        return f"{told} It has not begun yet."
    if ticked < statement.now - STANDS_STILL:
        return f"{told} But it has stood still since {moment(ticked)} UTC."
    return told


def budget(statement: Statement) -> str:
    """What the rolling pass has spent of this month's budget, and what it left out for it."""
    month, allowed = statement.month, statement.policy.budget
    if month is None:
        return f"nothing spent yet; {allowed.percent:g} % of the stored bytes and {usd(allowed.usd)} a month"
    told = (
        f"{month.name}: {size(month.thawed_bytes)} of {size(month.stored_bytes * allowed.percent / 100)} thawed, "
        f"{usd(month.micro_usd / 1_000_000)} of {usd(allowed.usd)} spent"
    )
    if statement.left_out:
        told += f"; {counted(statement.left_out, 'archive')} are due and left out for it"
    return told


def age(statement: Statement, oldest: Oldest) -> str:
    """For how long an archive has waited: 3.2 days."""
    return f"{(statement.now - oldest.since) / timedelta(days=1):,.1f} days"


# -- JSON ------------------------------------------------------------------------------------------------------------


def finding_fields(finding: Finding) -> dict[str, Any]:
    """A finding for JSON; `key`, `pin` and `number` are null if it is of the archive as a whole."""
    named = bool(finding.key)
    return {
        "verdict": finding.verdict.value,
        "key": finding.key if named else None,
        "pin": finding.pin if named else None,
        "number": finding.number if named else None,
        "evidence": finding.evidence,
    }


def report_fields(report: Report, following: Next) -> dict[str, Any]:
    """How an audit ended, for JSON."""
    return {
        "run": report.run,
        "archive": report.archive,
        "cause": report.cause.value,
        "begun_at": iso(report.begun_at),
        "finished_at": iso(report.finished_at),
        "verdict": report.verdict.value,
        "files": {verdict.value: count for verdict, count in report.counts.items()},
        "size_bytes": report.size_bytes,
        "found": report.found,
        "findings": [finding_fields(finding) for finding in report.findings],
        "repair": report.repair or None,
        "next": following.what,
        "command": following.command or None,
    }


def statement_fields(statement: Statement) -> dict[str, Any]:
    """The statement for JSON."""
    whole = statement.collection
    month = statement.month
    return {
        "stack": statement.stack,
        "region": statement.region,
        "at": iso(statement.now),
        "window_days": statement.policy.window.days,
        "archives": whole.archives,
        "size_bytes": whole.size_bytes,
        "superseded": statement.superseded,
        "audited": {
            "within_window": _part(statement.of_late, whole),
            "ever": _part(statement.ever, whole),
            "by_cause": {
                cause.value: {
                    "within_window": _part(statement.by_cause_of_late[cause], whole),
                    "ever": _part(statement.by_cause[cause], whole),
                }
                for cause in Cause
            },
        },
        "never_audited": {
            **_part(statement.never, whole),
            "begun": statement.under_way,
            "oldest": _oldest(statement, statement.oldest_never),
        },
        "longest_ago": _oldest(statement, statement.longest_ago),
        "ages": [
            {"up_to_days": days, "archives": tally.archives, "size_bytes": tally.size_bytes}
            for days, tally in statement.ages.items()
        ],
        "rolling": {
            "every_h": statement.policy.every_h,
            "horizon_days": statement.policy.horizon_days,
            "budget_percent": statement.policy.budget.percent,
            "budget_usd": statement.policy.budget.usd,
            "ticked_at": iso(statement.rolling.ticked_at),
            "everything_seen_by": iso(statement.seen_by),
            "left_out": statement.left_out,
            "month": month.name if month else None,
            "month_thawed_bytes": month.thawed_bytes if month else 0,
            "month_usd": month.micro_usd / 1_000_000 if month else 0.0,
            "sentence": rolling(statement),
        },
        "random": {
            "confidence": statement.confidence,
            "within_window": _trials(statement.trials_of_late, window(statement), statement),
            "ever": _trials(statement.trials, "ever", statement),
            "assumptions": assumptions(statement),
        },
        "runs": statement.runs,
        "newest_run_at": iso(statement.newest_run_at),
        "audits": statement.audits,
        "findings_standing": statement.standing,
        "findings_ever": statement.found,
        "unread_ever": statement.unread,
        "findings": [
            {**report_fields(found.report, found.next), "stands": found.stands} for found in statement.findings
        ],
        "over_time": {
            "unit": statement.unit,
            "periods": [
                {
                    "from": begin.isoformat(),
                    **{cause.value: number for cause, number in day.by_cause.items()},
                    "size_bytes": day.size_bytes,
                    "findings": day.findings,
                    "unread": day.unread,
                }
                for begin, day in statement.periods.items()
            ],
        },
    }


def _part(part: Tally, whole: Tally) -> dict[str, Any]:
    return {
        "archives": part.archives,
        "size_bytes": part.size_bytes,
        "share_of_archives": part.archives / whole.archives if whole.archives else None,
        "share_of_bytes": part.size_bytes / whole.size_bytes if whole.size_bytes else None,
    }


def _oldest(statement: Statement, oldest: Oldest | None) -> dict[str, Any] | None:
    if oldest is None:
        return None
    days = (statement.now - oldest.since) / timedelta(days=1)
    return {"archive": oldest.archive, "since": iso(oldest.since), "days": round(days, 3)}


def _trials(trials: Trials, within: str, statement: Statement) -> dict[str, Any]:
    return {
        "audits": trials.audits,
        "findings": trials.findings,
        "unread": trials.unread,
        "upper_bound": trials.bound,
        "sentence": damaged(trials, within, statement),
    }

"""What neve did cost: the bill of what its ledger says of some time, and what of it no invocation sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from neve.domain.forecast import Deployed, idle
from neve.domain.prices import HOURS_A_MONTH, MILLION, Bill, Charge, PriceList, Use
from neve.domain.tally import SERVICE, Tally, from_metrics, metric_names

KEPT = timedelta(days=455)
"""How long CloudWatch keeps metrics by the hour; by the minute 15 days, by five minutes 63. Source: CloudWatch API
reference, GetMetricData."""
HOUR = timedelta(hours=1)

ARCHIVED, ARCHIVED_BYTES = "archived", "archived_bytes"
WRITERS = ("WriteArchive", "CopyLarge")

Series = Mapping[tuple[str, str], Mapping[datetime, float]]
"""Sums by (value of the dimension `service`, name of the metric), and by the moment at which their hour begins."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which metrics are asked for, from `since` to before `until`, in sums of an hour: those are kept longest."""

    since: datetime
    until: datetime

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Which, as Series has them."""
        return _NAMES


_NAMES = (
    *((SERVICE, name) for name in metric_names()),
    *((writer, name) for writer in WRITERS for name in (ARCHIVED, ARCHIVED_BYTES)),
)


def asking(since: datetime, until: datetime) -> Asked:
    """What to ask for; `since` moves back to the beginning of its hour, as CloudWatch keeps them."""
    return Asked(since=since.astimezone(UTC).replace(minute=0, second=0, microsecond=0), until=until)


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What the ledger says of some time, and what was archived in it.

    `first_at` and `last_at` are the hours of its first and last metrics; `metric_hours` is in how many hours each was
    reported, added up. `prices` is what it is billed by, `deployed` what stands in the meantime.
    """

    asked: Asked
    tally: Tally
    files: int
    size_bytes: int
    first_at: datetime
    last_at: datetime
    metric_hours: int
    prices: PriceList
    deployed: Deployed

    @property
    def asked_for(self) -> Bill:
        """Requests, and Lambda's time: counted, and imputed by each invocation."""
        return Bill(prices=self.prices, uses=tuple(self.tally.uses()))

    @property
    def standing(self) -> Bill:
        """What no invocation sees, by rules: it is charged whether or not anything is archived."""
        months = (self.asked.until - self.asked.since) / HOUR / HOURS_A_MONTH
        month = [
            *idle(self.deployed),
            Use(
                purpose="messages of schedules",
                charge=Charge.SQS_REQUEST,
                quantity=self.deployed.scheduled_per_month,
                rule="the schedule sends one each time",
            ),
        ]
        metrics = Use(
            purpose="metrics of the ledger",
            charge=Charge.METRIC_MONTH,
            quantity=self.metric_hours / HOURS_A_MONTH,
            rule=f"each by the hours in which it was reported, {HOURS_A_MONTH} to a month",
            unseen=True,
        )
        uses = (
            replace(use, quantity=use.quantity * months, rule=use.rule or "as the stacks are by default", unseen=True)
            for use in month
        )
        return Bill(prices=self.prices, uses=(*uses, metrics))

    @property
    def usd_per_million(self) -> float | None:
        """What was asked for, for a million files that were archived; None if none was."""
        return self.asked_for.usd * MILLION / self.files if self.files else None

    @property
    def gap(self) -> timedelta:
        """For how long, from the beginning of the time, there are no metrics."""
        return self.first_at - self.asked.since


def actual(asked: Asked, found: Series, prices: PriceList, deployed: Deployed) -> Actual | None:
    """What the metrics say; None if there is none of the ledger."""
    ledger = {name: series for (service, name), series in found.items() if service == SERVICE and series}
    moments = [moment for series in ledger.values() for moment in series]
    if not moments:
        return None

    def archived(name: str) -> int:
        return round(sum(sum(found.get((writer, name), {}).values()) for writer in WRITERS))

    return Actual(
        asked=asked,
        tally=from_metrics({name: sum(series.values()) for name, series in ledger.items()}),
        files=archived(ARCHIVED),
        size_bytes=archived(ARCHIVED_BYTES),
        first_at=min(moments),
        last_at=max(moments),
        metric_hours=len(moments),
        prices=prices,
        deployed=deployed,
    )

"""What a restore would take: shown before it is sent, and refused where it passes a limit."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import typer

from neve.domain.estimate import Estimate
from neve.domain.thaw import Need, Tier
from neve_cli import clock
from neve_cli.endings import shown_place
from neve_cli.restore_plan import Plan, Summary
from neve_cli.stack import Stack
from neve_cli.text import counted, iso, moment, safe, size, span, usd

LOCAL_DAYS = 3
"""A copy whose files a person has to fetch is kept over a weekend."""
SHOWN_FILES = 10
MICRO = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Order:
    """How the command is to do what it is asked. `tier` and `days` are None where nothing was said."""

    tier: Tier | None = None
    days: int | None = None
    overwrite: bool = False
    max_price: float | None = None
    strict: bool = False
    dry_run: bool = False
    wait: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A job as it would be sent. `spent_usd` is what thaws have cost today, `cap_usd` what they may; 0 is no cap."""

    job: str
    created_at: datetime
    need: Need
    summary: Summary
    spent_usd: float
    cap_usd: float

    @property
    def usd(self) -> float:
        """What it costs."""
        return self.summary.estimate.usd

    @property
    def thaws_usd(self) -> float:
        """What its thaws cost, which the cap is held against."""
        return self.summary.estimate.thaw_micro_usd / MICRO

    def refusal(self, order: Order) -> str | None:
        """Why it is not sent; None if it is."""
        summary = self.summary
        if order.strict and summary.problems:
            return f"{counted(summary.problems, 'problem')}, and --strict: nothing is restored."
        if not summary.files:
            return (
                None if summary.already_there and not summary.problems else "Nothing was found that could be restored."
            )
        if summary.estimate.not_offered:
            slow = summary.estimate.not_offered
            return (
                f"{slow[0].storage_class} has no tier {self.need.tier}, and that is where archives lie, such as "
                f"{', '.join(str(row.serial) for row in slow)}. Take a slower one: --tier standard or bulk."
            )
        if order.max_price is not None and self.usd > order.max_price:
            return f"It would cost {usd(self.usd)}, and --max-price is {usd(order.max_price)}."
        if self.cap_usd and self.spent_usd + self.thaws_usd > self.cap_usd:
            return (
                f"Its thaws would cost {usd(self.thaws_usd)}, and of the {usd(self.cap_usd)} a day that this stack may "
                f"spend on thaws {usd(max(0.0, self.cap_usd - self.spent_usd))} are left until midnight UTC. Ask for "
                "less, tomorrow, or with --tier bulk; or raise the setting restore_usd_per_day and deploy again."
            )
        return None


def make_offer(deployed: Stack, order: Order, plan: Plan, need: Need | None) -> Offer:
    now = clock.now()
    job = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    days = need.days if need else LOCAL_DAYS if plan.has_local_files() else 1
    tier = need.tier if need else Tier.STANDARD
    asked = Need(tier=order.tier or tier, days=order.days or days)
    summary = plan.summary(asked, archives=deployed.archives, thaws=deployed.thaws, owner=job, now=now)
    return Offer(
        job=job,
        created_at=now,
        need=asked,
        summary=summary,
        spent_usd=deployed.thaws.spent_micro_usd(now) / MICRO,
        cap_usd=deployed.usd_per_day,
    )


def show_offer(offer: Offer, plan: Plan | None) -> None:
    """Show what a job takes; the first files as well if a plan is given."""
    summary, estimate = offer.summary, offer.summary.estimate
    if summary.already_there:
        typer.echo(f"{counted(summary.already_there, 'file')} stand in their local places already")
    if not summary.files:
        return
    repeated = f"; {counted(summary.repeated, 'repetition')} left out" if summary.repeated else ""
    files, archives = counted(summary.files, "file"), counted(summary.archives, "archive")
    typer.echo(f"{files}, {size(summary.size_bytes)}, in {archives}{repeated}")
    for file in plan.first(SHOWN_FILES) if plan else ():
        typer.echo(f"  {safe(file.key)}  ->  {safe(shown_place(file.destination))}")
    if plan and summary.files > SHOWN_FILES:
        typer.echo(f"  and {summary.files - SHOWN_FILES:,} more")
    show_estimate(
        estimate,
        estimate.usd_by_part,
        offer.need,
        spent_usd=offer.spent_usd,
        cap_usd=offer.cap_usd,
        now=offer.created_at,
        then="the files come",
        besides="AWS charges for what leaves its region" if summary.local_files else "",
    )


def show_estimate(
    estimate: Estimate,
    usd_by_part: Mapping[str, float],
    need: Need,
    *,
    spent_usd: float,
    cap_usd: float,
    now: datetime,
    then: str,
    besides: str = "",
) -> None:
    """Show thaws, price and time; `then` is what comes after the thaws."""
    typer.echo(
        f"  thaws    {estimate.asked:,} to ask for ({size(estimate.thaw_bytes)}), "
        f"{estimate.running:,} running already, {estimate.readable:,} not needed"
    )
    typer.echo(f"  tier     {need.tier}; thawed copies stay {counted(need.days, 'day')}")
    prices = estimate.bill.prices
    typer.echo(f"  price    {usd(estimate.usd)} by the list prices of {prices.region}, {prices.checked}")
    for part, cost in usd_by_part.items():
        typer.echo(f"             {part:<19} {usd(cost):>12}")
    if besides:
        typer.echo(f"             besides, {besides}")
    if cap_usd:
        typer.echo(f"  today    {usd(spent_usd)} of {usd(cap_usd)} a day are spent on thaws")
    left = estimate.ready_at - now
    if left > timedelta():
        typer.echo(f"  time     thawed within {span(left)}, by {moment(estimate.ready_at)} UTC; then {then}")
    else:
        typer.echo("  time     at once: nothing has to be thawed first")


def offer_fields(offer: Offer) -> dict[str, Any]:
    """What a job takes, for JSON."""
    summary, estimate = offer.summary, offer.summary.estimate
    return {
        "tier": offer.need.tier.value,
        "days": offer.need.days,
        "files": summary.files,
        "local_files": summary.local_files,
        "size_bytes": summary.size_bytes,
        "archives": summary.archives,
        "thaws": {
            "to_ask_for": estimate.asked,
            "running": estimate.running,
            "not_needed": estimate.readable,
            "size_bytes": estimate.thaw_bytes,
        },
        "usd": round(estimate.usd, 6),
        "usd_by_part": {part: round(cost, 6) for part, cost in estimate.usd_by_part.items()},
        "thaws_usd": offer.thaws_usd,
        "spent_usd": offer.spent_usd,
        "usd_per_day": offer.cap_usd,
        "prices": {"region": estimate.bill.prices.region, "checked": estimate.bill.prices.checked},
        "ready_at": iso(estimate.ready_at),
        "repeated": summary.repeated,
        "already_there": summary.already_there,
        "problems": summary.problems,
    }

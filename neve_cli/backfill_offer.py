"""What a backfill takes: how many versions there are, as far as they were counted, the price, and how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import typer

from neve.domain.backfill import Backfill, BackfillState, Counted, together
from neve.domain.forecast import Plan, Sizes, backfill_s, backfilling, per_million
from neve.domain.metering import Class
from neve.domain.prices import MILLION, US_EAST_1, Bill
from neve_cli.stack import Stack
from neve_cli.text import counted as number_of
from neve_cli.text import moment, safe, size, span, usd

EXAMPLE_BYTES = 100_000
"""What a million versions cost is told for this size where nothing was counted."""
UNCOUNTED = Sizes(counts=((EXAMPLE_BYTES, float(MILLION)),))


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a backfill takes. `count` is the dry run that told the `counted` versions; without one, it is reckoned for a
    million.
    """

    plan: Plan
    bill: Bill
    lasts: timedelta
    counted: Counted | None = None
    count: Backfill | None = None

    @property
    def per_million_usd(self) -> float:
        """The price of a million versions."""
        return per_million(self.bill.uses, self.bill.prices, self.plan.sizes.files)

    @property
    def large(self) -> int:
        """How many versions are larger than a bundle, by the means of their classes of size."""
        return round(sum(number for _, number in self.plan.large))


def make_offer(
    deployed: Stack, asked: Backfill, counted: Counted | None = None, count: Backfill | None = None
) -> Offer:
    """What the backfill `asked` takes, by what the dry run `count` has counted; or a million versions, without one."""
    found = counted is not None and counted.versions > 0
    plan = Plan(
        sizes=counted.sizes if counted is not None and found else UNCOUNTED,
        storage_class=Class(deployed.outputs["StorageClass"]),
        target_bytes=int(deployed.outputs["TargetBytes"]),
        max_age_s=int(deployed.outputs["MaxAgeSeconds"]),
    )
    per_s = float(asked.rate) if asked.rate else math.inf
    writers = int(deployed.outputs["BackfillWriteConcurrency"])
    uses = backfilling(plan, per_s, inventory=bool(asked.inventory), writers=writers)
    return Offer(
        plan=plan,
        bill=Bill(prices=US_EAST_1, uses=tuple(uses)),
        lasts=timedelta(seconds=backfill_s(plan, per_s, writers=writers)),
        counted=counted,
        count=count,
    )


def counted_before(deployed: Stack, asked: Backfill) -> tuple[Counted, Backfill] | tuple[None, None]:
    """What the newest dry run of the same prefix has counted, which has come to its end; or nothing."""
    for each in deployed.backfills.all():
        if each.dry_run and each.prefix == asked.prefix and each.state is BackfillState.FINISHED:
            return together(deployed.backfills.shards(each.id)).counted, each
    return None, None


def show_offer(offer: Offer, asked: Backfill) -> None:
    """Show what it takes."""
    prices = offer.bill.prices
    if offer.counted is None:
        typer.echo("  versions  unknown: `neve backfill --dry-run` counts them, and says what they cost")
        typer.echo(
            f"  price     {usd(offer.per_million_usd)} for a million of {size(EXAMPLE_BYTES)}, by the list prices of "
            f"{prices.region}, {prices.checked}"
        )
        return
    show_counted(offer, asked)
    if not offer.counted.versions:
        return
    typer.echo(
        f"  price     {usd(offer.bill.usd)}, {usd(offer.per_million_usd)} a million, by the list prices of "
        f"{prices.region}, {prices.checked}"
    )
    typer.echo("            less as far as they are archived already: those are found to be, and dropped")
    how = f"at {asked.rate:,} versions a second" if asked.rate else "as fast as its writers archive them"
    typer.echo(f"  time      {span(offer.lasts)} at least, {how}")


def show_counted(offer: Offer, asked: Backfill) -> None:
    """Show what a dry run has counted."""
    found = offer.counted
    assert found is not None, "the caller has looked"
    by = ""
    if offer.count and offer.count.id != asked.id:
        by = f"; counted {moment(offer.count.ended_at)} UTC by {offer.count.id}"
    mean = f", {size(found.size_bytes / found.versions)} on average" if found.versions else ""
    typer.echo(f"  versions  {found.versions:,}, {size(found.size_bytes)}{mean}{by}")
    if found.versions and offer.large:
        typer.echo(
            f"            {offer.large:,} of them larger than {size(offer.plan.target_bytes)}: each becomes an archive"
        )
    if found.frozen:
        typer.echo(
            f"            besides, {number_of(found.frozen, 'version')} ({size(found.frozen_bytes)}) in GLACIER or "
            "DEEP_ARCHIVE, which cannot be read: left out"
        )


def offer_fields(offer: Offer) -> dict[str, Any]:
    """What it takes, for JSON; what is not known is null."""
    found = offer.counted
    known = found is not None and found.versions > 0
    return {
        "counted_by": offer.count.id if offer.count else None,
        "counted": counted_fields(found) if found is not None else None,
        "larger_than_target": offer.large if known else None,
        "usd": round(offer.bill.usd, 6) if known else None,
        "per_million_usd": round(offer.per_million_usd, 6),
        "lasts_s": round(offer.lasts.total_seconds()) if known else None,
        "items": [
            {
                "purpose": use.purpose,
                "charge": use.charge.name,
                "quantity": use.quantity,
                "usd": offer.bill.usd_of(use),
                "imputed": use.unseen,
                "rule": use.rule,
            }
            for use in (offer.bill.uses if known else ())
        ],
        "prices": {"region": offer.bill.prices.region, "checked": offer.bill.prices.checked},
    }


def counted_fields(found: Counted) -> dict[str, Any]:
    """What was counted, for JSON."""
    return {
        "versions": found.versions,
        "size_bytes": found.size_bytes,
        "frozen": found.frozen,
        "frozen_bytes": found.frozen_bytes,
    }


def told(asked: Backfill) -> str:
    """What a backfill is of, for people."""
    where = f"keys that begin with {safe(asked.prefix)!r}" if asked.prefix else "the whole content bucket"
    source = f"by the inventory in {safe(asked.inventory)}" if asked.inventory else "by its listing"
    rate = f", at most {asked.rate:,} versions a second" if asked.rate else ""
    return f"{where}, {source}{rate}"

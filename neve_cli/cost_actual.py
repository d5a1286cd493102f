"""`neve cost actual`: what was asked of AWS in some time, by the ledger's metrics, and its price by the list."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.cost_bills import items, listed_in, origin, tell_bill
from neve_cli.cost_options import Prices
from neve_cli.failures import PROBLEM
from neve_cli.options import AsJson
from neve_cli.text import counted, moment, safe, size, span, usd

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient

    from neve.domain.actual import Actual

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_WHEN = "A day or moment in UTC (2026-11-01, 2026-11-01T12:00), or so long ago: 12h, 7d, 4w."


def actual(
    *,
    since: Annotated[str, typer.Option(help=_WHEN)] = "7d",
    until: Annotated[str | None, typer.Option(help=f"{_WHEN} Now, if left out.", show_default=False)] = None,
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Show what neve asked of AWS in some time, and what that costs by list price.

    Functions count their requests, and report them as metrics of the namespace neve; here they are read and billed.
    Imputed is what no request tells of, such as Lambda's time. What is charged whether or not anything is archived
    stands apart. It is no invoice: storage, transfer and free tiers are not in it.
    """
    from neve.aws.metrics import CloudWatchMetrics  # noqa: PLC0415  # --help must not wait for botocore
    from neve.domain import actual as domain  # noqa: PLC0415
    from neve.domain.forecast import DEPLOYED  # noqa: PLC0415

    listed, now = listed_in(prices), clock.now()
    end = _moment(until, now, "--until") if until else now
    asked = domain.asking(_moment(since, now, "--since"), end)
    if not asked.since < end <= now:
        raise typer.BadParameter("--since has to be before --until, and neither may lie ahead")
    if now - asked.since > domain.KEPT:
        raise typer.BadParameter(f"CloudWatch keeps metrics for {domain.KEPT.days} days", param_hint="--since")
    found = domain.actual(asked, CloudWatchMetrics(_client()).sums(asked), listed, DEPLOYED)
    if found is None:
        typer.echo(
            f"neve: there is no metric of the ledger from {moment(asked.since)} to {moment(end)} UTC in this region "
            "and account. Functions report them as they run, some minutes late; those of older versions do not.",
            err=True,
        )
        raise typer.Exit(PROBLEM)
    if as_json:
        output.document(_document(found))
    else:
        _tell(found)


def _client() -> CloudWatchClient:
    return stack.watched_session().client("cloudwatch")


def _moment(text: str, now: datetime, option: str) -> datetime:
    ago = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if ago:
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time. {_WHEN}", param_hint=option) from error
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def _document(found: Actual) -> dict[str, Any]:
    asked = found.asked
    return {
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "first_at": found.first_at.isoformat(),
        "last_at": found.last_at.isoformat(),
        "files": found.files,
        "size_bytes": found.size_bytes,
        "asked_usd": found.asked_for.usd,
        "per_million_files_usd": found.usd_per_million,
        "standing_usd": found.standing.usd,
        "total_usd": found.asked_for.usd + found.standing.usd,
        "unpriced_requests": sum(found.tally.unpriced.values()),
        "items": [*items(found.asked_for, "asked"), *items(found.standing, "standing")],
        "prices": origin(found.prices),
    }


def _tell(found: Actual) -> None:
    from neve.domain.actual import HOUR  # noqa: PLC0415
    from neve.domain.prices import Bill  # noqa: PLC0415

    asked = found.asked
    typer.echo(f"From {moment(asked.since)} to {moment(asked.until)} UTC")
    if found.gap >= 2 * HOUR:
        typer.echo(
            f"! the first metrics are of {moment(found.first_at)} UTC: nothing ran in the {span(found.gap)} before, or "
            "it did not report"
        )
    typer.echo(f"{counted(found.files, 'file')} archived, {size(found.size_bytes)}")
    each = "" if found.usd_per_million is None else f", that is {usd(found.usd_per_million)} for a million files"
    typer.echo(f"\nAsked of AWS, by all functions  {usd(found.asked_for.usd)}{each}")
    for title, imputed in (("Counted", False), ("Imputed: no request tells of it, a rule says how much", True)):
        part = Bill(prices=found.prices, uses=tuple(use for use in found.asked_for.uses if use.unseen is imputed))
        typer.echo(f"\n{title}  {usd(part.usd)}")
        tell_bill(part)
    if found.tally.unpriced:
        typer.echo(
            f"! {counted(sum(found.tally.unpriced.values()), 'request')} without a price are not in it; the functions' "
            "logs name them: unpriced_requests"
        )
    typer.echo(f"\nCharged whatever is archived  {usd(found.standing.usd)}")
    tell_bill(found.standing)
    typer.echo(f"\nAll of it  {usd(found.asked_for.usd + found.standing.usd)}")
    typer.echo(
        f"Prices of {safe(found.prices.region)}, {safe(found.prices.checked)}, without free tiers. Storage, transfer, "
        "logs and the functions' other metrics are not in it."
    )

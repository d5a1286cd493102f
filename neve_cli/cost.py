"""`neve cost`: what it will cost, in which size of archives, to restore, to delete; and the prices it is reckoned by.

It needs no stack: all is arithmetic over a dated price list. AWS is asked for an inventory or for prices, if at all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neve_cli import cost_actual, output
from neve_cli.cost_bills import items, listed_in, origin, tell_bill
from neve_cli.cost_options import Collection, Keeping, Months, Prices, TargetSize
from neve_cli.options import AsJson, grouped
from neve_cli.text import exactly, safe, size, span, usd

if TYPE_CHECKING:
    from neve.domain.forecast import Plan
    from neve.domain.prices import PriceList

app = typer.Typer(no_args_is_help=True, help="What it costs, before you do it.")

app.command()(cost_actual.actual)

_TIERS = ("bulk", "standard", "expedited")
BAR = 40


@app.command()
@grouped
def estimate(
    *,
    collection: Collection,
    keeping: Keeping,
    target_size: TargetSize = "25MiB",
    months: Months = 12,
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Forecast what a collection costs: once, every month, and beside what you would do without neve.

    Without --rate or --new-per-day files are taken to arrive so fast that every archive fills, as existing files do.
    """
    from neve.domain import forecast  # noqa: PLC0415
    from neve.domain.prices import Bill  # noqa: PLC0415

    listed = listed_in(prices)
    plan = keeping.of(collection.plan(target_size))
    begun = Bill(prices=listed, uses=tuple(forecast.once(plan)))
    moved = Bill(prices=listed, uses=tuple(forecast.offloading(plan)))
    kept = Bill(prices=listed, uses=tuple(forecast.monthly(plan, forecast.DEPLOYED)))
    several = forecast.ways(plan, forecast.DEPLOYED)
    per_million = forecast.per_million(begun.uses, listed, plan.sizes.files)
    age_s = forecast.cheapest_age_s(plan, listed)
    if as_json:
        output.document(
            {
                "files": plan.sizes.files,
                "size_bytes": plan.sizes.size_bytes,
                "files_in_archive": plan.archives[0][2],
                "archives": sum(archives for archives, _, _ in plan.archives),
                "per_million_files_usd": per_million,
                "once_usd": begun.usd,
                "offload_usd": moved.usd,
                "monthly_usd": kept.usd,
                "months": months,
                "cheapest_max_age_s": age_s,
                "items": [*items(begun, "once"), *items(moved, "offload"), *items(kept, "monthly")],
                "ways": [
                    {
                        "name": way.name,
                        "once_usd": Bill(prices=listed, uses=way.once).usd,
                        "monthly_usd": Bill(prices=listed, uses=way.monthly).usd,
                        "total_usd": way.usd(listed, months),
                        "note": way.note,
                    }
                    for way in several
                ],
                "prices": origin(listed),
            }
        )
        return
    _tell_collection(plan)
    typer.echo(f"\nOnce: archiving them  {usd(begun.usd)}, that is {usd(per_million)} for a million files")
    tell_bill(begun)
    if plan.offloaded:
        per_upload = forecast.per_million(moved.uses, listed, plan.sizes.files)
        typer.echo(f"\nOnce: moving them  {usd(moved.usd)}, that is {usd(per_upload)} for a million uploads")
        tell_bill(moved)
    typer.echo(f"\nEvery month: keeping them  {usd(kept.usd)}")
    tell_bill(kept)
    typer.echo(f"\nThe same second copy, {months} months")
    rows = [
        (
            way.name,
            usd(Bill(prices=listed, uses=way.once).usd),
            usd(Bill(prices=listed, uses=way.monthly).usd),
            usd(way.usd(listed, months)),
        )
        for way in several
    ]
    output.table(("", "once", "a month", "in all"), rows, right=frozenset({1, 2, 3}))
    for way in several:
        if way.note:
            typer.echo(f"  {way.name}: {way.note}")
    if math.isfinite(plan.files_per_s) and age_s != plan.max_age_s:
        typer.echo(f"\nAt this rate archiving is cheapest with max_age_s={age_s}; here it is {plan.max_age_s}.")
    _tell_prices(listed)


@app.command("bundle-size")
@grouped
def bundle_size(
    *,
    collection: Collection,
    keeping: Keeping,
    months: Months = 36,
    prices: Prices = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it, too: a file that ends in .svg or .png.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare sizes of archives: what each costs over a term, and what a restore of one file thaws."""
    from neve.domain import forecast  # noqa: PLC0415

    listed = listed_in(prices)
    plan = keeping.of(collection.plan())
    found = forecast.targets(plan, forecast.DEPLOYED, listed, months=months)
    chosen = forecast.best(found)
    if plot:
        from neve_cli.cost_plots import draw_targets  # noqa: PLC0415

        draw_targets(plot, found, chosen, months=months, prices=listed)
    if as_json:
        output.document(
            {
                "months": months,
                "best_target_bytes": chosen.target_bytes,
                "targets": [
                    {
                        "target_bytes": each.target_bytes,
                        "total_usd": each.usd,
                        "once_usd": each.once_usd,
                        "monthly_usd": each.monthly_usd,
                        "files_in_archive": each.files_in_archive,
                        "thawed_bytes": each.thawed_bytes,
                        "restore_usd": each.restore_usd,
                    }
                    for each in found
                ],
                "prices": origin(listed),
            }
        )
        return
    _tell_collection(plan, with_archives=False)
    typer.echo(f"\n{months} months, {plan.restored_per_month:,.0f} files restored in each")
    most = max(each.usd for each in found)
    output.table(
        ("target", "in all", "once", "a month", "files", "thawed for one", "its price", ""),
        [
            (
                f"{each.target_bytes / forecast.MIB:g} MiB",
                usd(each.usd),
                usd(each.once_usd),
                usd(each.monthly_usd),
                f"{each.files_in_archive:,.0f}",
                size(each.thawed_bytes),
                usd(each.restore_usd),
                "#" * max(1, round(BAR * each.usd / most)) + (" best" if each is chosen else ""),
            )
            for each in found
        ],
        right=frozenset(range(7)),
    )
    typer.echo("Best is the smallest that costs at most 1 % more than the cheapest: smaller archives restore sooner.")
    _tell_prices(listed)


@app.command()
@grouped
def restore(
    wanted: Annotated[str, typer.Argument(help="How many files to restore, picked by chance.")],
    *,
    collection: Collection,
    download: Annotated[bool, typer.Option("--download", help="They are downloaded, and leave AWS.")] = False,
    target_size: TargetSize = "25MiB",
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Forecast a restore of so many files out of a collection, at each tier.

    For files that are archived already, `neve restore --dry-run` knows better: it looks them up.
    """
    from neve.domain import forecast  # noqa: PLC0415
    from neve.domain.prices import Bill  # noqa: PLC0415
    from neve.domain.thaw import Tier, offered, promise  # noqa: PLC0415
    from neve_cli.cost_sizes import count  # noqa: PLC0415

    listed = listed_in(prices)
    plan = replace(collection.plan(target_size), downloaded=download)
    number = min(count(wanted), plan.sizes.files)
    archives = forecast.met(plan, number)
    tiers = [Tier(name) for name in _TIERS if offered(plan.storage_class, Tier(name))]
    bills = {
        tier: Bill(prices=listed, uses=tuple(forecast.restoring_at_random(replace(plan, restore_tier=tier), number)))
        for tier in tiers
    }
    if as_json:
        output.document(
            {
                "files": number,
                "archives": archives,
                "tiers": {
                    tier.value: {
                        "usd": bill.usd,
                        "promised_s": promise(plan.storage_class, tier).total_seconds(),
                        "items": items(bill, "once"),
                    }
                    for tier, bill in bills.items()
                },
                "prices": origin(listed),
            }
        )
        return
    _tell_collection(plan)
    typer.echo(f"\n{number:,.0f} files of them lie in about {archives:,.0f} archives")
    output.table(
        ("tier", "thawed within", "in all", "a file"),
        [
            (tier.value, span(promise(plan.storage_class, tier)), usd(bill.usd), usd(bill.usd / number))
            for tier, bill in bills.items()
        ],
        right=frozenset({1, 2, 3}),
    )
    _tell_prices(listed)


@app.command()
@grouped
def delete(
    *,
    kept_days: Annotated[float, typer.Option(min=0, help="How old archives are when they are deleted.")],
    collection: Collection,
    target_size: TargetSize = "25MiB",
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Forecast what deleting archives early costs: a class is paid for at least 90 or 180 days.

    This is why daily dumps of a database do not belong here: one that is replaced tomorrow is paid for until spring.
    """
    from neve.domain import forecast  # noqa: PLC0415
    from neve.domain.metering import TERMS, Class, stored  # noqa: PLC0415
    from neve.domain.prices import Bill  # noqa: PLC0415
    from neve.domain.thaw import DAYS_A_MONTH  # noqa: PLC0415

    listed = listed_in(prices)
    plan = collection.plan(target_size)
    fee = Bill(prices=listed, uses=tuple(forecast.deleting(plan, kept_days=kept_days)))
    least_days = TERMS[plan.storage_class].least_days
    gb = 1024**3
    paid_days = max(kept_days, least_days)
    here, standard = (
        Bill(
            prices=listed,
            uses=tuple(stored("dump", each, objects=1, object_bytes=gb, months=days / DAYS_A_MONTH)),
        ).usd
        for each, days in ((plan.storage_class, paid_days), (Class.STANDARD, kept_days))
    )
    if as_json:
        output.document(
            {
                "fee_usd": fee.usd,
                "least_days": least_days,
                "kept_days": kept_days,
                "items": items(fee, "once"),
                "dump_of_1_gb_usd": {plan.storage_class: here, "STANDARD": standard},
                "prices": origin(listed),
            }
        )
        return
    _tell_collection(plan)
    typer.echo(
        f"\nDeleted after {kept_days:g} days: {usd(fee.usd)} on top, since {plan.storage_class} counts "
        f"{least_days} days"
    )
    tell_bill(fee)
    cheaper = plan.storage_class if here <= standard else "STANDARD"
    typer.echo(
        f"\nA daily dump of 1 GB that is kept for {kept_days:g} days comes to {usd(here)} in {plan.storage_class} and "
        f"{usd(standard)} in STANDARD: keep such in {cheaper}."
    )
    _tell_prices(listed)


@app.command("prices")
def show_prices(
    *,
    prices: Prices = None,
    ask: Annotated[
        bool, typer.Option("--update", help="Ask AWS's Price List for the prices of today (pricing:GetProducts).")
    ] = False,
    region: Annotated[
        str | None, typer.Option(help="With --update: the region; else that of the prices.", show_default=False)
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", help="With --update: write the prices there, for --prices.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the prices that all is reckoned by, with their date and sources; --json prints a file of prices.

    --update holds them against AWS's Price List, and says what has changed; --output writes that down. What the Price
    List does not answer without doubt stays as it is, and is named.
    """
    from neve.domain.prices import render_prices  # noqa: PLC0415

    listed = listed_in(prices)
    if not ask and (region or output_file):
        raise typer.BadParameter("--region and --output go with --update")
    if ask:
        listed = _updated(listed, region, output_file, quiet=as_json)
    if as_json:
        typer.echo(render_prices(listed))
    elif not ask:
        rows = [
            (charge.value, exactly(price.usd), f"{price.per:,}", price.checked or listed.checked, price.source)
            for charge, price in listed.prices.items()
        ]
        output.table(("charge", "US dollars", "for", "checked", "source"), rows, right=frozenset({1, 2}))
        _tell_prices(listed)


def _updated(listed: PriceList, region: str | None, path: Path | None, *, quiet: bool) -> PriceList:
    from neve.domain.prices import render_prices  # noqa: PLC0415
    from neve_cli import clock, cost_prices  # noqa: PLC0415

    updated = cost_prices.update(cost_prices.client(), listed, region or listed.region, clock.now())
    if path:
        try:
            path.write_text(f"{render_prices(updated.prices)}\n")
        except OSError as error:
            raise typer.BadParameter(f"{path}: {error}", param_hint="--output") from error
    if not quiet:
        cost_prices.tell(updated, listed, path)
    return updated.prices


def _tell_collection(plan: Plan, *, with_archives: bool = True) -> None:
    archives = sum(number for number, _, _ in plan.archives)
    line = f"{plan.sizes.files:,.0f} files, {size(plan.sizes.size_bytes)}"
    if with_archives:
        line += f", in {archives:,.0f} archives of {plan.archives[0][2]:,.0f} files ({size(plan.archives[0][1])})"
    if math.isfinite(plan.files_per_s):
        line += f"; {plan.files_per_s:,.4g} arrive in a second"
    typer.echo(line)


def _tell_prices(listed: PriceList) -> None:
    older = sum(bool(price.checked) for price in listed.prices.values())
    besides = f" ({older} of them older: `neve cost prices`)" if older else ""
    typer.echo(
        f"\nPrices of {safe(listed.region)}, {safe(listed.checked)}{besides}, without free tiers. KMS costs nothing: "
        "nothing is under a key of your own. Not in it: the content bucket, CloudFront, retries. (imputed): no SDK "
        "sees it, a rule says how much."
    )

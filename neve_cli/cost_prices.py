"""`neve cost prices --update`: the prices of today, as AWS's Price List states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from neve.domain.prices import Charge, Price, PriceList
from neve.errors import NeveError
from neve_cli import output
from neve_cli.price_rules import RULES, S3, SERVICES, TRANSFER, Looked, Product, look_up, product, standard_storage
from neve_cli.text import exactly, safe

if TYPE_CHECKING:
    from types_boto3_pricing import PricingClient
    from types_boto3_pricing.type_defs import FilterTypeDef

ENDPOINT = "us-east-1"
"""The Price List of all regions is asked for there, in eu-central-1 or in ap-south-1."""


class RegionUnknown(NeveError):
    """The Price List has no S3 in this region."""


@dataclass(frozen=True, kw_only=True)
class Updated:
    """A list with the prices of today. `kept` has those that could not be told, `changed` those that are new."""

    prices: PriceList
    looked: tuple[Looked, ...]
    changed: tuple[tuple[Looked, Price, Price], ...]

    @property
    def kept(self) -> tuple[Looked, ...]:
        """What stands as it stood before, with the reason."""
        return tuple(each for each in self.looked if each.price is None)


def client() -> PricingClient:
    """The client of the Price List."""
    from neve_cli.stack import watched_session  # noqa: PLC0415

    return watched_session().client("pricing", region_name=ENDPOINT)


def update(pricing: PricingClient, standing: PriceList, region: str, now: datetime) -> Updated:
    """Look up every charge that stands. Raises RegionUnknown, and what botocore raises."""
    products = {S3: _products(pricing, S3, "regionCode", region)}
    named = standard_storage(products[S3])
    if named is None:
        raise RegionUnknown(
            f"AWS's Price List has no S3 storage in {region}. Give a region's code, such as eu-west-1; the prices "
            "stand as they were."
        )
    prefix, location = named
    for service in SERVICES:
        if service == TRANSFER:
            products[service] = _products(pricing, service, "fromLocation", location)
        elif service != S3:
            products[service] = _products(pricing, service, "regionCode", region)
    looked = tuple(
        look_up(charge, price, products, region=region, prefix=prefix) for charge, price in standing.prices.items()
    )
    return _updated(standing, region, looked, now)


def _products(pricing: PricingClient, service: str, name: str, value: str) -> Sequence[Product]:
    """All products of a service whose attribute `name` is `value`; none of a service that the Price List has not."""
    wanted: FilterTypeDef = {"Type": "TERM_MATCH", "Field": name, "Value": value}
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode=service, Filters=[wanted], FormatVersion="aws_v1", PaginationConfig={"PageSize": 100}
    )
    try:
        return [product(text) for page in pages for text in page["PriceList"]]
    except pricing.exceptions.NotFoundException:
        return []


def _updated(standing: PriceList, region: str, looked: tuple[Looked, ...], now: datetime) -> Updated:
    prices: dict[Charge, Price] = {}
    changed: list[tuple[Looked, Price, Price]] = []
    for each in looked:
        before = standing.prices[each.charge]
        if each.price is None:
            where = "" if region == standing.region else f", {standing.region}"
            prices[each.charge] = replace(before, checked=before.checked or f"{standing.checked}{where}")
            continue
        prices[each.charge] = each.price
        if (each.price.usd, each.price.beyond) != (before.usd, before.beyond):
            changed.append((each, before, each.price))
    return Updated(
        prices=PriceList(region=region, checked=f"{now:%Y-%m-%d}", prices=prices),
        looked=looked,
        changed=tuple(changed),
    )


def tell(updated: Updated, standing: PriceList, path: Path | None) -> None:
    """Say what has changed, and what stayed as it was since the Price List does not tell it without doubt."""
    prices = updated.prices
    answered = len(updated.looked) - len(updated.kept)
    typer.echo(
        f"{answered} of {len(updated.looked)} prices of {prices.region} from AWS's Price List, {prices.checked}; "
        f"{len(updated.changed)} differ from those of {standing.region}, {standing.checked}"
    )
    if updated.changed:
        typer.echo()
        rows = [
            (looked.charge.value, _amount(before), _amount(after), f"{after.per:,}", _note(looked))
            for looked, before, after in updated.changed
        ]
        output.table(("changed", "was", "is", "for", "what AWS says"), rows, right=frozenset({1, 2, 3}))
    if updated.kept:
        typer.echo()
        kept = [
            (each.charge.value, exactly(prices.prices[each.charge].usd), _note(each, each.problem))
            for each in updated.kept
        ]
        output.table(("kept as it stood", "US dollars", "because"), kept, right=frozenset({1}))
    typer.echo(f"\nWritten to {path}: name it by --prices." if path else "\n--output FILE writes them down.")


def _amount(price: Price) -> str:
    return " then ".join(exactly(usd) for usd in (price.usd, *(usd for _, usd in price.beyond)))


def _note(looked: Looked, text: str = "") -> str:
    said = safe(text or looked.description)
    return said if RULES[looked.charge].sure else f"{said} (looked up under a name from memory)"

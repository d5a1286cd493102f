"""Price lists and bills, as the commands of `neve cost` take and print them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from neve_cli import output
from neve_cli.text import usd

if TYPE_CHECKING:
    from neve.domain.prices import Bill, PriceList, Use


def listed_in(path: Path | None) -> PriceList:
    """The prices in a file; without one those of us-east-1. Raises typer.BadParameter."""
    from neve.domain.prices import US_EAST_1, parse_prices  # noqa: PLC0415
    from neve.errors import PricesInvalid  # noqa: PLC0415

    if path is None:
        return US_EAST_1
    try:
        return parse_prices(path.read_text())
    except (OSError, PricesInvalid, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--prices") from error


def origin(listed: PriceList) -> dict[str, str]:
    """Where the prices are from, for JSON."""
    return {"region": listed.region, "checked": listed.checked}


def items(bill: Bill, when: str) -> list[dict[str, Any]]:
    """The lines of a bill, for JSON."""
    return [
        {
            "when": when,
            "purpose": use.purpose,
            "charge": use.charge.name,
            "quantity": use.quantity,
            "usd": bill.usd_of(use),
            "imputed": use.unseen,
            "rule": use.rule,
        }
        for use in bill.uses
    ]


def tell_bill(bill: Bill) -> None:
    """The lines of a bill, the dearest first."""

    def row(use: Use) -> tuple[str, str, str, str]:
        return (
            usd(bill.usd_of(use)),
            f"{use.quantity:,.0f}" if use.quantity >= 10 else f"{use.quantity:.2g}",
            use.charge,
            (f"{use.purpose}{' (imputed)' if use.unseen else ''}{f': {use.rule}' if use.rule else ''}"),
        )

    dearest = sorted(bill.uses, key=bill.usd_of, reverse=True)
    output.table(("", "units", "of", "for"), [row(use) for use in dearest], right=frozenset({0, 1}))

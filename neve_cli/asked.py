"""What a command has asked of AWS, told at its end: `neve --requests`."""

from __future__ import annotations

import typer

from neve_cli.text import counted, exactly, safe, size


def tell_asked() -> None:
    """Write to stderr what was asked since the last time, and what that costs by list price."""
    from neve.aws.ledger import LEDGER  # noqa: PLC0415  # --help must not wait for botocore
    from neve.domain.prices import US_EAST_1, Bill  # noqa: PLC0415

    tally = LEDGER.settle()
    bill = Bill(prices=US_EAST_1, uses=tuple(tally.uses()))
    total = sum(tally.requests.values())
    retries = f", {tally.retries:,} of them retries" if tally.retries else ""
    typer.echo(
        f"\nAsked of AWS: {counted(total, 'request')}{retries}; {size(tally.sent_bytes)} sent, "
        f"{size(tally.received_bytes)} received; ${exactly(round(bill.usd, 9)) or '0'}",
        err=True,
    )
    for name, times in sorted(tally.requests.items()):
        unpriced = "  no price is known" if name in tally.unpriced else ""
        typer.echo(f"{times:>9,}  {name}{unpriced}", err=True)
    for use in bill.uses:
        rule = f", imputed: {use.rule}" if use.unseen else ""
        typer.echo(
            f"{use.quantity:>9,.4g}  {use.charge}  ${exactly(round(bill.usd_of(use), 9)) or '0'}{rule}", err=True
        )
    if bill.uses:
        typer.echo(f"Prices of {safe(US_EAST_1.region)}, {safe(US_EAST_1.checked)}.", err=True)

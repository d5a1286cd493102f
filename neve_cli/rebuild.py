"""`neve rebuild-index`: the tables and the counter of serials, made again from what stands in the archive bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neve.domain.thaw import Tier
from neve_cli import stack
from neve_cli.options import DEFAULT_STACK, AsJson, StackName


def rebuild_index(  # noqa: PLR0917  # typer calls it by name
    first: Annotated[int, typer.Option("--from", metavar="SERIAL", min=1, help="Begin with this archive.")] = 1,
    last: Annotated[
        int | None,
        typer.Option("--to", metavar="SERIAL", min=1, help="End with this archive.", show_default="the last"),
    ] = None,
    from_archives: Annotated[
        bool,
        typer.Option("--from-archives", help="First write lost manifests again, from the tars, which has them thawed."),
    ] = False,
    tier: Annotated[
        Tier | None, typer.Option(help="How fast to thaw.", show_default=f"{Tier.BULK.value}, the cheapest")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=365, help="How long the thawed copies stay.", show_default="3")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Thaw at the price that is shown, without a question.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until every archive that thaws has been read.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look what is there, and show the price.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            writable=True,
            help="Write all that is left out there, as lines of JSON.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Make the index, the rows of archives and the counter of serials again, from the manifests.

    An archive is taken only if S3 states the size and the checksum that its manifest states. What stands in the tables
    and is right stays as it is, so it can be run at any time, beside the pipeline, and again. It needs the policy
    NeveRecovery, beside NeveObserver.

    Exit status 1 if anything was left out: each is named with the reason.
    """
    if not from_archives and (tier or days or yes or wait):
        raise typer.BadParameter("--tier, --days, --yes and --wait go with --from-archives")
    if last is not None and last < first:
        raise typer.BadParameter("--to is before --from")
    # These bring the domain with them, for which --help need not wait.
    from neve_cli.rebuilding import Order, run  # noqa: PLC0415

    run(
        stack.find(stack_name),
        Order(
            first=first,
            last=last,
            from_archives=from_archives,
            tier=tier or Tier.BULK,
            days=days or 3,
            yes=yes,
            wait=wait,
            dry_run=dry_run,
            report=report,
            as_json=as_json,
        ),
    )

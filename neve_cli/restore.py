"""`neve restore`: files back from their archives, to their own places or others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from neve.domain.thaw import Tier
from neve_cli import stack
from neve_cli.options import DEFAULT_STACK, AsJson, StackName

if TYPE_CHECKING:
    from neve_cli.restore_plan import Line, Plan


def restore(  # noqa: PLR0917  # typer calls it by name
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="A key, s3://bucket/key, a prefix/, a glob, an archive (17), a file's id (17.3), a URL of the site; "
            "with --resume a job.",
            show_default=False,
        ),
    ] = None,
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="DEST",
            help="content (its own place, the default), uploads, s3://bucket/prefix/, s3://bucket/key, a local path.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            "--batch", metavar="FILE|-", help="Lines of source, tab, destination; or JSON lines.", show_default=False
        ),
    ] = None,
    tier: Annotated[Tier | None, typer.Option(help="How fast to thaw.", show_default=f"{Tier.STANDARD.value}")] = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=365,
            help="How long the thawed copies stay.",
            show_default="1; 3 for local folders",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="The versions that were current then (ISO 8601, UTC).", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what differs in its place.")] = False,
    max_price: Annotated[
        float | None,
        typer.Option("--max-price", metavar="USD", min=0, help="Refuse if it would cost more.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Send nothing if any line has a problem.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would take.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until every file has ended, and show how it goes.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Fetch a job's local files as far as they are thawed (the newest job's).")
    ] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Restore files from their archives, to their own place or another.

    First it is shown how many files and archives that means, the price by part, and the time to expect. Bad lines of a
    batch are told with their number and the reason; the rest goes on.

    Exit status 1 if there was a problem with any source, if nothing was sent that should have been, or, with --wait, if
    any file ended otherwise than restored or already there.
    """
    # These bring the domain and a database with them, for which --help need not wait.
    from neve_cli import asking  # noqa: PLC0415
    from neve_cli.offers import Order  # noqa: PLC0415

    order = Order(
        tier=tier,
        days=days,
        overwrite=overwrite,
        max_price=max_price,
        strict=strict,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
    )
    if resume:
        if destination or batch or at or overwrite:
            raise typer.BadParameter("--resume goes with a job, or none, and what it was asked for")
        from neve_cli.resuming import resume as go_on  # noqa: PLC0415

        go_on(stack.find(stack_name), order, source)
        return
    if (source is None) == (batch is None):
        raise typer.BadParameter("name a SOURCE, or --batch FILE, or --resume")
    if batch and destination:
        raise typer.BadParameter("with --batch each line names its own source and destination")
    moment = _time(at)

    def lines(plan: Plan) -> None:
        plan.add(_lines(source, destination, batch, plan))

    asking.request(stack.find(stack_name), order, lines, at=moment)


def _time(at: str | None) -> datetime | None:
    from neve.domain.selection import SelectionInvalid, parse_time  # noqa: PLC0415

    try:
        return parse_time(at) if at else None
    except SelectionInvalid as error:
        raise typer.BadParameter(f"--at: {error}") from error


def _lines(source: str | None, destination: str | None, batch: BinaryIO | None, plan: Plan) -> Iterator[Line]:
    from neve_cli.batch import read_lines  # noqa: PLC0415
    from neve_cli.restore_plan import Line  # noqa: PLC0415

    if batch:
        yield from read_lines(batch, plan.fail)
    elif source is not None:
        yield Line(number=0, source=source, **({"destination": destination} if destination is not None else {}))

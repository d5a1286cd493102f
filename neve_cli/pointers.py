"""`neve rebuild-pointers`: the table of pointers, made again from what is current in the content bucket."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from neve.domain.layout import Layout
from neve_cli import clock, output, stack
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import counted, moment, safe

THREADS = 32
LINE_EVERY_S = 60

Prefix = Annotated[str, typer.Option(help="Only files whose keys begin with this.", show_default=False)]
After = Annotated[
    str, typer.Option(metavar="KEY", help="Go on after this key, where an earlier run has ended.", show_default=False)
]


def rebuild_pointers(  # noqa: PLR0917  # typer calls it by name
    prefix: Prefix = "",
    after: After = "",
    layout: Annotated[
        Layout | None,
        typer.Option(help="By which layout the files lie, if key_layout was another one.", show_default="key_layout"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what is missing.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Make the pointers again, from what is current in the content bucket.

    A pointer that stands stays as it is, so it can be run at any time, beside uploads, and again. What was uploaded and
    not copied when the pointers were lost is copied again by `neve uploads announce`; hosts announce their files
    themselves. It needs the policy NeveRecovery, beside NeveObserver.
    """
    from neve.aws.content_listing import S3ContentListing  # noqa: PLC0415  # --help must not wait for botocore
    from neve.aws.pointers_table import DynamoPointers  # noqa: PLC0415
    from neve.flows.rebuild_pointers import PointerRebuilder, PointersRebuilt  # noqa: PLC0415
    from neve_cli.rebuilding import going_on  # noqa: PLC0415

    deployed = stack.find(stack_name)
    set_layout = Layout(deployed.outputs["KeyLayout"])
    by = layout or set_layout
    rebuilder = PointerRebuilder(
        pointers=DynamoPointers(deployed.dynamodb, deployed.outputs["PointersTable"]),
        layout=by,
        unhashed=by is Layout.AS_IS and set_layout is Layout.HASHED,
        threads=THREADS,
        dry_run=dry_run,
    )
    listing = S3ContentListing(deployed.s3, deployed.outputs["ContentBucket"])
    total, tell = PointersRebuilt(place=after), teller(as_json=as_json)
    with going_on(lambda: f"to go on: neve rebuild-pointers{_same(prefix, layout)} --after {shlex.quote(total.place)}"):
        current = listing.current(after, prefix=prefix if by is Layout.AS_IS else "")
        for total in rebuilder.rebuild(current, prefix=prefix):
            tell(f"{counted(total.written + total.stood, 'file')}, at {safe(total.place)}")
    if as_json:
        output.document({**asdict(total), "layout": by.value, "dry_run": dry_run})
        return
    typer.echo(
        f"{counted(total.written, 'pointer')} {'missing' if dry_run else 'written'}; {total.stood:,} stood already"
    )
    if total.foreign:
        typer.echo(
            f"{counted(total.foreign, 'object')} left out: by the layout {by} no file of the application lies there. "
            "If another layout was set before: --layout."
        )


def teller(*, as_json: bool) -> Callable[[str], None]:
    """Says how far the work is, a line a minute; nothing if all that is printed is JSON."""
    last = clock.now()

    def tell(line: str) -> None:
        nonlocal last
        now = clock.now()
        if not as_json and (now - last).total_seconds() >= LINE_EVERY_S:
            typer.echo(f"{moment(now)}  {line}")
            last = now

    return tell


def _same(prefix: str, layout: Layout | None) -> str:
    given = f" --prefix {shlex.quote(prefix)}" if prefix else ""
    return given + (f" --layout {layout}" if layout else "")

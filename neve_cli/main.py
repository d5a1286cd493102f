"""The `neve` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from neve_cli import (
    archives,
    audit,
    backfill,
    content,
    cost,
    drill,
    files,
    jobs,
    parked,
    pointers,
    rebuild,
    reconcile,
    restore,
    status,
    uploads,
    where,
)
from neve_cli.asked import tell_asked
from neve_cli.failures import Explaining


class _Commands(Explaining):
    # They bring the local cloud or the edge agent with them, for which the others need not wait.
    later = {"edge": "neve_cli.edge", "local": "neve_cli.local"}  # noqa: RUF012  # never changed


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(status.status)
app.command("ls")(files.ls)
app.command()(files.find)
app.command()(where.where)
app.command()(archives.archives)
app.command()(restore.restore)
app.command()(jobs.jobs)
app.command()(jobs.cancel)
app.command()(parked.parked)
app.command()(rebuild.rebuild_index)
app.command()(pointers.rebuild_pointers)
app.add_typer(audit.app, name="audit")
app.add_typer(backfill.app, name="backfill")
app.add_typer(content.app, name="content")
app.add_typer(cost.app, name="cost")
app.add_typer(drill.app, name="drill")
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(uploads.app, name="uploads")


@app.callback()
def options(
    context: typer.Context,
    *,
    requests: Annotated[
        bool, typer.Option("--requests", help="Tell at the end, on stderr, what was asked of AWS, and what that costs.")
    ] = False,
) -> None:
    """User uploads into S3 Glacier archives, and back.

    Commands look at the stacks that the AWS credentials and region of this shell lead to.

    Exit status: 0 all is well; 1 a problem was found, or what was asked for was not; 2 the command line is wrong;
    3 AWS or the stack cannot be reached.
    """
    if requests:
        context.call_on_close(tell_asked)


def main() -> None:
    """Run the command."""
    try:
        app()
    except BrokenPipeError:  # whoever reads has enough, as in `neve ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)

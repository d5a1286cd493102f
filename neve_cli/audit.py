"""`neve audit`: hold archives against their manifests and sources, see what that says of all, repair damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neve_cli import stack
from neve_cli.options import DEFAULT_STACK, AsJson, StackName

app = typer.Typer(
    no_args_is_help=True,
    help="Audits: archives are read and held against their manifests and their sources. See them, begin one, repair.",
)

Wait = Annotated[bool, typer.Option("--wait", help="Stay until all is compared: hours, in an account.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would take.")]


@app.command()
def run(
    archive: Annotated[
        list[int] | None,
        typer.Option(
            "--archive", metavar="ID", min=1, help="Audit this archive; may be given often.", show_default="at random"
        ),
    ] = None,
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Audit archives now: those that are named, or a random sample as the schedule takes every hour.

    The sources are hashed first, then the archives are thawed at the tier of the setting audit_tier, read once, and
    compared. First it is shown what that costs and how long it takes.

    Exit status 1 if there is no such archive, or, with --wait, if anything was found or could not be read.
    """
    from neve.domain.audit import ARCHIVES_ASKED  # noqa: PLC0415
    from neve_cli.audit_runs import Order, ask  # noqa: PLC0415  # the domain, for which --help need not wait

    if archive and len(archive) > ARCHIVES_ASKED:
        raise typer.BadParameter(f"one run takes up to {ARCHIVES_ASKED:,} archives")
    order = Order(archives=tuple(dict.fromkeys(archive or ())), wait=wait, dry_run=dry_run, as_json=as_json)
    ask(stack.find(stack_name), order)


@app.command("list")
def list_runs(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="Only the newest N.")] = 50,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Runs of audits, and how they went; the newest at the end, as with the other lists."""
    from neve_cli.audit_runs import list_last  # noqa: PLC0415

    list_last(stack.find(stack_name), last, as_json=as_json)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="RUN|ARCHIVE", help="A run, or an archive for its last audit.")],
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """One run: how its audits ended, what they found, and what to do next. Or the last audit of an archive.

    Exit status 1 if there is no such run or archive, or if anything was found, or could not be read, that still stands.
    """
    from neve_cli.audit_runs import show_archive, show_run  # noqa: PLC0415

    deployed = stack.find(stack_name)
    if what.isascii() and what.isdigit():
        show_archive(deployed, int(what), as_json=as_json)
    else:
        show_run(deployed, what, as_json=as_json)


@app.command()
def report(
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write it as one HTML page with plots.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """What all audits together say: how much was audited, when all will be, and how much may be damaged.

    It reads the rows of all archives and audits: a minute or two for a million.

    Exit status 1 if any archive has a finding that still stands.
    """
    from neve_cli.audit_report import tell  # noqa: PLC0415

    tell(stack.find(stack_name), html, as_json=as_json)


@app.command()
def repair(
    archive: Annotated[int, typer.Argument(metavar="ARCHIVE", min=1, help="The damaged archive.")],
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Audit an archive, and put right what is found.

    It is thawed at the standard tier for 3 days and compared. If that finds damage, a new archive takes its place: with
    each file's bytes from the source if they are intact there, else from the damaged archive, else from another archive
    that has the same ones. The index then names the new archive. The damaged one is kept and marked. Wrong rows of the
    index are put right in place. A source that is damaged is not touched: restore it.

    Exit status 1 if there is no such archive, or, with --wait, if it could not be read, a file is lost for good, or
    could not be repaired.
    """
    from neve_cli.audit_runs import Order, ask  # noqa: PLC0415

    order = Order(archives=(archive,), repair=True, wait=wait, dry_run=dry_run, as_json=as_json)
    ask(stack.find(stack_name), order)

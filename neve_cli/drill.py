"""`neve drill`: rehearse restores of files drawn at random, and see how such rehearsals went."""

from __future__ import annotations

import secrets
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import counted, iso, moment, safe, size, span

if TYPE_CHECKING:
    from neve.domain.drill import Comparison, Drawn, Drill
    from neve.domain.restore import Job

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True, help="Rehearse restores: files drawn at random come back, are compared and deleted again."
)


@app.command()
def run(
    files: Annotated[int, typer.Option(min=1, max=100, help="How many files to draw.")] = 10,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until all is compared: hours, in an account.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Begin a drill now, as the schedule does every month.

    Files are drawn so that each is as likely as any other, thawed at the standard tier, and restored to two places
    each. All must be there within 24 hours, with the size and hash that the index states. Then the copies are deleted,
    and the topic for alerts is told how it went.

    With --wait, the exit status is 1 unless every file came back in time and unchanged.
    """
    from neve.domain.drill import Start, render_start  # noqa: PLC0415

    deployed = stack.find(stack_name)
    drill_id = f"{clock.now():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    if dry_run:
        if as_json:
            output.document({"drill": None, "dry_run": True, "files": files})
        else:
            typer.echo(f"a drill would draw {counted(files, 'file')} and restore each to two places; nothing was sent")
        return
    deployed.drills_queue.send(render_start(Start(drill=drill_id, files=files)))
    if not wait:
        if as_json:
            output.document({"drill": drill_id, "dry_run": False, "files": files})
        else:
            typer.echo(f"drill {drill_id}\n  how it goes:  neve drill show {drill_id}")
        return
    if not as_json:
        typer.echo(f"drill {drill_id}")
    _show(_wait(deployed, drill_id, quiet=as_json), as_json=as_json)


@app.command("list")
def list_drills(
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N.", show_default="all")
    ] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """All drills, and how they went."""
    deployed = stack.find(stack_name)
    found = deployed.drills.all(newest_first=False)
    if last is not None:
        found = iter(list(islice(deployed.drills.all(), last))[::-1])
    if as_json:
        output.array(_fields(drill) for drill in found)
        return
    output.table(
        ("ID", "BEGUN (UTC)", "STATE", "FILES", "OF", "TOOK", "RESULT"),
        (
            (
                drill.id,
                moment(drill.started_at),
                drill.state.value,
                f"{len(drill.files):,}",
                f"{drill.collection:,}",
                span(drill.took) if drill.took is not None else "-",
                _result(drill),
            )
            for drill in found
        ),
        right=frozenset({3, 4}),
    )


@app.command()
def show(
    drill_id: Annotated[str, typer.Argument(metavar="ID", help="As `neve drill list` shows it.")],
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """One drill: its files, where their copies went, and what was found of each.

    Exit status 1 if it has failed.
    """
    from neve_cli.watching import is_young  # noqa: PLC0415

    deployed = stack.find(stack_name)
    drill = deployed.drills.get(drill_id)
    if drill is not None:
        _show(drill, as_json=as_json)
    elif is_young(drill_id, clock.now()):
        if as_json:
            output.document({"drill": drill_id, "state": "not drawn yet"})
        else:
            typer.echo(f"drill {drill_id} is not drawn yet: it was asked for a moment ago.")
    else:
        typer.echo(f"neve: there is no drill {safe(drill_id)}; `neve drill list` lists them.", err=True)
        raise typer.Exit(PROBLEM)


def _wait(deployed: stack.Stack, drill_id: str, *, quiet: bool) -> Drill:
    """The drill when it is through; tells what has changed meanwhile. Raises Transient if looking keeps failing."""
    from neve.domain.drill import DrillState  # noqa: PLC0415
    from neve.errors import Transient  # noqa: PLC0415
    from neve_cli.watching import LONGEST_S, PATIENCE, SHORTEST_S  # noqa: PLC0415

    begun, failures, told = clock.now(), 0, ""
    try:
        while True:
            try:
                drill, job = deployed.drills.get(drill_id), deployed.restores.job(drill_id)
                failures = 0
            except Transient:
                failures += 1
                if failures == PATIENCE:
                    raise
            else:
                line = _progress(drill, job)
                if line != told and not quiet:
                    typer.echo(f"{moment(clock.now())}  {line}")
                told = line
                if drill is not None and drill.state is DrillState.DONE:
                    return drill
            passed = (clock.now() - begun).total_seconds()
            clock.pause(min(max(SHORTEST_S, passed / 60), LONGEST_S))
    except KeyboardInterrupt as interrupt:
        typer.echo(f"neve: drill {drill_id} goes on without this command: `neve drill show {drill_id}`.", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt


def _progress(drill: Drill | None, job: Job | None) -> str:
    from neve.domain.drill import DrillState  # noqa: PLC0415

    if drill is None:
        return "not drawn yet"
    drawn = f"{counted(len(drill.files), 'file')} drawn of {drill.collection:,}"
    if drill.state is not DrillState.RUNNING:
        return f"{drawn}; {drill.state}"
    if job and job.finished_at:
        return f"{drawn}; restored, {len(drill.compared):,} compared"
    return f"{drawn}; {job.ended_files if job else 0:,} of {len(drill.files) * len(drill.buckets):,} copies are there"


def _result(drill: Drill) -> str:
    """How it went, in a few words."""
    if drill.good is None:
        return "late" if drill.late_told_at else "-"
    if drill.good:
        return "good" if drill.files else "nothing to drill"
    bad = len({file.id for file, _ in drill.faults}) + len(drill.nameless)
    return "failed: " + ", ".join([*([counted(bad, "file")] if bad else []), *(["late"] if drill.late else [])])


def _show(drill: Drill, *, as_json: bool) -> None:
    """Print the drill. Raises typer.Exit if it has failed."""
    if as_json:
        output.document(_fields(drill) | {"files": [_file_fields(drill, number) for number in _numbers(drill)]})
    else:
        _print(drill)
    if drill.good is False:
        raise typer.Exit(PROBLEM)


def _print(drill: Drill) -> None:
    from neve.domain.drill import QUIET  # noqa: PLC0415

    typer.echo(f"drill {drill.id}, {drill.state}: {_result(drill)}")
    typer.echo(
        f"  begun     {moment(drill.started_at)} UTC; {counted(len(drill.files), 'file')} of {drill.collection:,}"
    )
    if drill.took is not None:
        typer.echo(f"  restored  {moment(drill.restored_at)} UTC, after {span(drill.took)}")
    if drill.compared_at:
        typer.echo(f"  compared  {moment(drill.compared_at)} UTC")
    else:
        typer.echo(f"  due       {moment(drill.deadline)} UTC; the restore: `neve jobs {drill.id}`")
    typer.echo(f"  places    {', '.join(f's3://{bucket}/{drill.folder}' for bucket in drill.buckets)}")
    for problem in drill.nameless:
        typer.echo(f"  ! {problem}")
    for number in _numbers(drill):
        file, found = drill.files[number - 1], drill.compared.get(number, ())
        same = all(each.outcome in QUIET for each in found)
        words = ", ".join(each.outcome.value for each in found) or "not compared yet"
        what = f"{file.id}  {size(file.digest.size_bytes)}  {safe(file.version.key)}"
        typer.echo(f"  {' ' if same else '!'} {number}  {what}  {words}")
        for each in found:
            if each.detail:
                typer.echo(f"       {each.place}: {safe(each.detail)}")


def _numbers(drill: Drill) -> range:
    return range(1, len(drill.files) + 1)


def _fields(drill: Drill) -> dict[str, Any]:
    """A drill for JSON, but for its files."""
    return {
        "drill": drill.id,
        "state": drill.state.value,
        "good": drill.good,
        "late": drill.late,
        "started_at": iso(drill.started_at),
        "restored_at": iso(drill.restored_at),
        "compared_at": iso(drill.compared_at),
        "took_s": drill.took.total_seconds() if drill.took is not None else None,
        "collection": drill.collection,
        "drawn": len(drill.files),
        "nameless": list(drill.nameless),
        "faults": [{"file": file.id, **_found_fields(found)} for file, found in drill.faults],
        "buckets": list(drill.buckets),
    }


def _file_fields(drill: Drill, number: int) -> dict[str, Any]:
    file: Drawn = drill.files[number - 1]
    return {
        "number": number,
        "file": file.id,
        "key": file.version.key,
        "pin": file.version.pin,
        "size_bytes": file.digest.size_bytes,
        "sha256": file.digest.sha256,
        "found": [_found_fields(found) for found in drill.compared.get(number, ())],
    }


def _found_fields(found: Comparison) -> dict[str, Any]:
    return {"place": found.place, "outcome": found.outcome.value, "detail": found.detail}

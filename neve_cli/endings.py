"""How restores ended, file by file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from neve.domain.restore import GOOD, Ending, Job, JobState, Result
from neve.domain.selection import LOCAL
from neve_cli.local_files import local_path
from neve_cli.text import counted, safe, size

SHOWN = 50
"""So many files are listed unasked."""


def endings(job: Job) -> str:
    """How the files of a job ended so far: 3 restored, 1 conflict."""
    return ", ".join(f"{job.ended[ending]:,} {ending}" for ending in Ending if job.ended.get(ending)) or "none yet"


def not_well(job: Job) -> int:
    """How many files ended in another way than wanted."""
    return sum(count for ending, count in job.ended.items() if ending not in GOOD)


def lost(job: Job) -> list[str]:
    """What of a job was never looked for, with what to do. It is rare: a queue or a function failed for days."""
    if job.cancelled_at:
        return []
    found: list[str] = []
    if job.missing_chunks:
        found.append(f"{counted(job.missing_chunks, 'part')} of it never came: restore again")
    if job.state is JobState.FINISHED and job.ended_files < job.files:
        found.append(f"{counted(job.files - job.ended_files, 'file')} of it never got their turn: restore again")
    return found


def tell_end(job: Job, results: Iterable[Result]) -> None:
    """Tell how a finished job ended, and the first of the files that did not end well."""
    typer.echo(f"{counted(job.ended_files, 'file')}: {endings(job)}; {size(job.restored_bytes)} restored")
    for problem in lost(job):
        typer.echo(f"! {problem}")
    tell_results((result for result in results if result.ending not in GOOD), job.id)


def tell_results(results: Iterable[Result], job_id: str, *, everything: bool = False) -> None:
    """Each file's ending on a line; not more than a person reads, unless `everything`."""
    for number, result in enumerate(results):
        if number == SHOWN and not everything:
            typer.echo(f"  and more: `neve jobs {job_id} --all`")
            return
        tell_result(result)


def tell_result(result: Result) -> None:
    """One file's ending on a line."""
    detail = f": {safe(result.detail)}" if result.detail else ""
    place = safe(shown_place(result.item.destination))
    typer.echo(f"  {result.ending}  {safe(result.item.key)}  ->  {place}{detail}")


def shown_place(destination: str) -> str:
    """A destination for people: local ones as their path."""
    return local_path(destination) if destination.startswith(LOCAL) else destination


def result_fields(result: Result) -> dict[str, Any]:
    """How a file ended, for JSON."""
    item = result.item
    return {
        "key": item.key,
        "pin": item.pin,
        "size_bytes": item.size_bytes,
        "destination": item.destination if item.destination.startswith("s3:") else shown_place(item.destination),
        "ending": result.ending.value,
        "detail": result.detail,
    }

"""How restores ended, file by file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from neve.domain.restore import GOOD, Ending, Job, Result
from neve.domain.selection import LOCAL
from neve_cli.local_files import local_path
from neve_cli.text import counted, safe, size


def endings(job: Job) -> str:
    """How the files of a job ended so far: 3 restored, 1 conflict."""
    return ", ".join(f"{job.ended[ending]:,} {ending}" for ending in Ending if job.ended.get(ending)) or "none yet"


def not_well(job: Job) -> int:
    """How many files ended in another way than wanted."""
    return sum(count for ending, count in job.ended.items() if ending not in GOOD)


def tell_end(job: Job, results: Iterable[Result]) -> None:
    """Tell how a finished job ended, and each file that did not end well."""
    typer.echo(f"{counted(job.ended_files, 'file')}: {endings(job)}; {size(job.restored_bytes)} restored")
    if job.missing_chunks:
        typer.echo(f"! {counted(job.missing_chunks, 'part')} of the job never came: restore again")
    for result in results:
        if result.ending not in GOOD:
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

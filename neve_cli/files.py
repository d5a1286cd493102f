"""`neve ls` and `neve find`: what the index knows of files."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import iso, moment, safe, size

if TYPE_CHECKING:
    from neve.domain.index import ArchiveRow, FileRow


def file_fields(row: FileRow) -> dict[str, Any]:
    """A file's row for JSON."""
    return {
        "key": row.key,
        "version_id": row.version_id,
        "size_bytes": row.size_bytes,
        "last_modified": iso(row.last_modified),
        "id": row.id,
        "archive": row.archive,
        "number": row.number,
        "offset_bytes": row.offset_bytes,
        "sha256": row.sha256,
        "md5": row.md5,
    }


def ls(
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with this.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.", show_default=False)] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """List archived files, each version a line, in the order of their keys.

    With --json: one JSON document on each line. Characters of a key that a terminal would act on are shown as escapes.
    """
    found = islice(stack.find(stack_name).files.under(prefix), limit)
    if as_json:
        for row in found:
            output.line(file_fields(row))
        return
    for row in found:
        typer.echo(f"{size(row.size_bytes):>10}  {moment(row.last_modified)}  {row.id:>12}  {safe(row.key)}")


def find(
    key: Annotated[str, typer.Argument(help="The whole key of an object in the content bucket.")],
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Tell in which archives the versions of one file lie. Exit status 1 if there is none."""
    deployed = stack.find(stack_name)
    found = deployed.files.versions(key)
    archives = {serial: deployed.archives.get(serial) for serial in sorted({row.archive for row in found})}
    if as_json:
        output.document({"key": key, "versions": [_placed(row, archives[row.archive]) for row in found]})
    for row in () if as_json else found:
        archive = archives[row.archive]
        typer.echo(f"{safe(row.key)}  version {row.version_id}")
        typer.echo(f"  id        {row.id}")
        typer.echo(f"  size      {size(row.size_bytes)} ({row.size_bytes:,} bytes)")
        typer.echo(f"  modified  {moment(row.last_modified)} UTC")
        typer.echo(f"  sha256    {row.sha256 or 'not known to neve: S3 copied it'}")
        if archive:
            bucket = deployed.outputs["ArchiveBucket"]
            typer.echo(f"  archive   s3://{bucket}/{archive.object_key}  {archive.storage_class}  {archive.state}")
            typer.echo(f"  bytes     {row.offset_bytes:,} to {row.offset_bytes + row.size_bytes:,}")
    if not found:
        typer.echo(
            f"neve: no version of {safe(key)!r} is archived. If it was uploaded a moment ago, it waits: `neve status`. "
            "Keys are compared character by character: `neve ls PREFIX` shows those near it.",
            err=True,
        )
        raise typer.Exit(PROBLEM)


def _placed(row: FileRow, archive: ArchiveRow | None) -> dict[str, Any]:
    place: dict[str, Any] = {"object_key": None, "object_version_id": None, "storage_class": None, "state": None}
    if archive:
        place = {
            "object_key": archive.object_key,
            "object_version_id": archive.object_version_id,
            "storage_class": archive.storage_class,
            "state": archive.state.value,
        }
    return {**file_fields(row), **place}

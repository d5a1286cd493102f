"""`neve archives`: the archives, and what one of them holds."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import iso, moment, safe, size

if TYPE_CHECKING:
    from neve.domain.index import ArchiveRow
    from neve.domain.manifest import Manifest, Member


def archive_fields(row: ArchiveRow) -> dict[str, Any]:
    """An archive's row for JSON."""
    return {
        "archive": row.serial,
        "state": row.state.value,
        "kind": row.kind,
        "files": row.files,
        "duplicates": row.duplicates,
        "source_bytes": row.source_bytes,
        "size_bytes": row.size_bytes,
        "sha256": row.sha256,
        "storage_class": row.storage_class,
        "object_key": row.object_key,
        "object_version_id": row.object_version_id,
        "written_at": iso(row.written_at),
        "archived_at": iso(row.archived_at),
        "superseded_by": row.superseded_by or None,
    }


def member_fields(member: Member) -> dict[str, Any]:
    """A member for JSON."""
    source = member.source
    return {
        "number": member.number,
        "name": member.name,
        "offset_bytes": member.offset_bytes,
        "size_bytes": source.size_bytes,
        "key": source.key,
        "version_id": source.version_id,
        "etag": source.etag,
        "sha256": source.sha256,
        "md5": source.md5,
        "last_modified": iso(source.last_modified),
        "content_type": source.content_type,
    }


def archives(
    serial: Annotated[
        int | None, typer.Argument(metavar="[ID]", min=1, help="Show what this archive holds.", show_default=False)
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.", show_default=False)] = None,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """List the archives; with an ID, the members of one, with the offset of each in the archive's object.

    Exit status 1 if there is no archive with this ID.
    """
    if serial is not None and last is not None:
        raise typer.BadParameter("--last is for the list of all archives; leave it out, or the ID")
    deployed = stack.find(stack_name)
    if serial is not None:
        _one(deployed, serial, as_json=as_json)
        return
    rows = deployed.archives.all()
    if last is not None:
        rows = reversed(list(islice(deployed.archives.all(newest_first=True), last)))
    if as_json:
        output.array(archive_fields(row) for row in rows)
        return
    output.table(
        ("ID", "FILES", "BYTES", "STATE", "CLASS", "ARCHIVED (UTC)", "OBJECT"),
        (
            (
                str(row.serial),
                f"{row.files:,}",
                size(row.size_bytes),
                f"damaged: {row.superseded_by}" if row.superseded_by else row.state.value,
                row.storage_class,
                moment(row.archived_at),
                row.object_key,
            )
            for row in rows
        ),
        right=frozenset({0, 1, 2}),
    )


def _one(deployed: stack.Stack, serial: int, *, as_json: bool) -> None:
    row = deployed.archives.get(serial)
    manifest = deployed.store.manifest(serial)
    if row is None and manifest is None:
        typer.echo(
            f"neve: there is no archive {serial}; the last number drawn is {deployed.archives.drawn()}. "
            "Numbers of archives that were given up stay unused.",
            err=True,
        )
        raise typer.Exit(PROBLEM)
    problem = _problem(serial, row, manifest)
    if as_json:
        output.document(
            {
                **(archive_fields(row) if row else {"archive": serial, "state": None}),
                "bucket": deployed.outputs["ArchiveBucket"],
                "problem": problem,
                "members": [member_fields(member) for member in manifest.members] if manifest else [],
            }
        )
    else:
        if row:
            _show(row, deployed.outputs["ArchiveBucket"])
        output.table(
            ("NUMBER", "OFFSET", "BYTES", "KEY"),
            (
                (str(each.number), str(each.offset_bytes), str(each.source.size_bytes), safe(each.source.key))
                for each in (manifest.members if manifest else ())
            ),
            right=frozenset({0, 1, 2}),
        )
    if problem:
        typer.echo(f"neve: {problem}", err=True)
        raise typer.Exit(PROBLEM)


def _problem(serial: int, row: ArchiveRow | None, manifest: Manifest | None) -> str | None:
    if row is None:
        return (
            f"archive {serial} has a manifest and no row: it is being written, or was given up because a member was "
            "deleted meanwhile (`neve status`, `neve parked`)."
        )
    if manifest is None:
        return f"archive {serial} has no manifest: look at s3://.../manifests/ and its versions."
    return None


def _show(row: ArchiveRow, bucket: str) -> None:
    typer.echo(f"archive {row.serial}, {row.state}, {row.storage_class}")
    typer.echo(f"  object    s3://{bucket}/{row.object_key}  version {row.object_version_id}")
    typer.echo(f"  size      {size(row.size_bytes)} ({row.size_bytes:,} bytes)")
    typer.echo(f"  sha256    {row.sha256 or '-'}")
    typer.echo(f"  holds     {row.files:,} files, {size(row.source_bytes)}; {row.duplicates:,} already in others")
    typer.echo(f"  archived  {moment(row.archived_at)} UTC")
    if row.superseded_by:
        typer.echo(f"  damaged   archive {row.superseded_by} stands for it: `neve audit show {row.serial}`")

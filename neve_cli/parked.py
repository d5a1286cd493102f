"""`neve parked`: permanent failures, what to do about each, and trying again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.text import iso, moment, safe

if TYPE_CHECKING:
    from neve.domain.parked import Parked
    from neve.domain.version import ObjectVersion

EVIDENCE_SHOWN = 200


class StaysParked(Exception):
    """There is nothing to try again; the message says why."""


def parked_fields(parked_id: str, item: Parked) -> dict[str, Any]:
    """What is parked for JSON. The evidence is text as it came in."""
    from neve.domain.parked import REMEDIES  # noqa: PLC0415

    version = item.version
    return {
        "id": parked_id,
        "reason": item.reason.value,
        "detail": item.detail,
        "parked_at": iso(item.parked_at),
        "key": version.key if version else None,
        "version_id": version.version_id if version else None,
        "size_bytes": version.size_bytes if version else None,
        "bundle": item.bundle or None,
        "evidence": item.evidence or None,
        "remedy": REMEDIES[item.reason],
    }


def parked(  # noqa: PLR0917  # typer calls it by name
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these.", show_default=False)] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Announce the versions again, so that they are copied or archived.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove from the list what has been dealt with.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --retry or --forget: all that is parked.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what --retry or --forget would do.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """List what cannot be copied or archived, or was found damaged by a restore, with what to do about it.

    --retry puts versions into the queue of their bucket again and takes them off the list; what fails again is parked
    again.

    Exit status 1 if an ID is not there, or something could not be tried again.
    """
    changing = retry or forget
    if retry and forget:
        raise typer.BadParameter("--retry and --forget: one or the other")
    if changing and bool(ids) == everything:
        raise typer.BadParameter("name the IDs, or --all")
    if not changing and (dry_run or everything):
        raise typer.BadParameter("--all and --dry-run go with --retry or --forget")
    deployed = stack.find(stack_name)
    chosen = [(parked_id, item) for parked_id, item in deployed.parking_lot.all() if not ids or parked_id in ids]
    chosen.sort(key=lambda pair: (pair[1].parked_at, pair[0]))
    missing = sorted(set(ids or ()) - {parked_id for parked_id, _ in chosen})
    if changing:
        outcomes = list(_act(deployed, chosen, retry=retry, dry_run=dry_run))
        failed = _report(outcomes, dry_run=dry_run, as_json=as_json)
    else:
        failed = False
        _list(chosen, as_json=as_json)
    for parked_id in missing:
        typer.echo(f"neve: nothing is parked as {safe(parked_id)}; `neve parked` lists what is.", err=True)
    if failed or missing:
        raise typer.Exit(PROBLEM)


def _list(chosen: Sequence[tuple[str, Parked]], *, as_json: bool) -> None:
    from neve.domain.parked import REMEDIES  # noqa: PLC0415

    if as_json:
        output.array(parked_fields(parked_id, item) for parked_id, item in chosen)
        return
    for parked_id, item in chosen:
        typer.echo(f"{parked_id}  {moment(item.parked_at)}  {item.reason}")
        if item.version:
            typer.echo(f"  {safe(item.version.key)}  version {safe(item.version.version_id)}")
        typer.echo(f"  {safe(item.detail)}")
        if item.evidence:
            typer.echo(f"  message: {safe(item.evidence[:EVIDENCE_SHOWN])}")
        typer.echo(f"  {REMEDIES[item.reason]}")
    if not chosen:
        typer.echo("Nothing is parked.")


def _act(
    deployed: stack.Stack, chosen: Sequence[tuple[str, Parked]], *, retry: bool, dry_run: bool
) -> Iterator[tuple[str, str, str]]:
    """(id, "retried" | "forgotten" | "stays", sentence) of each, done as it is asked for."""
    from neve.domain.events import announcements  # noqa: PLC0415

    for parked_id, item in chosen:
        if not retry:
            if not dry_run:
                deployed.parking_lot.remove(parked_id, item.parked_at)
            yield parked_id, "forgotten", item.detail
            continue
        try:
            version = _current(deployed, item)
        except StaysParked as reason:
            yield parked_id, "stays", str(reason)
            continue
        if not dry_run:
            # In this order nothing is lost: what is announced twice is copied and archived once.
            bucket = _bucket(deployed, item)
            queue = "UploadsQueue" if bucket == deployed.outputs["UploadsBucket"] else "CollectQueue"
            for message in announcements(bucket, [version]):
                deployed.sqs.send_message(QueueUrl=deployed.outputs[queue], MessageBody=message)
            deployed.parking_lot.remove(parked_id, item.parked_at)
        yield parked_id, "retried", f"{version.key!r} version {version.version_id}, {version.size_bytes:,} bytes"


def _bucket(deployed: stack.Stack, item: Parked) -> str:
    return item.bucket or deployed.outputs["ContentBucket"]


def _current(deployed: stack.Stack, item: Parked) -> ObjectVersion:
    """The version to announce, with size and ETag as S3 has them now. Raises StaysParked."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    from neve.domain.parked import REMEDIES, Reason  # noqa: PLC0415

    version = item.version
    of_a_source = {
        Reason.SOURCE_GONE,
        Reason.SOURCE_CHANGED,
        Reason.SOURCE_DENIED,
        Reason.SOURCE_UNFIT,
        Reason.SOURCE_DAMAGED,
        Reason.SOURCE_UNREADABLE,
    }
    if version is None or item.reason not in of_a_source:
        raise StaysParked(f"{item.reason} cannot be tried again. {REMEDIES[item.reason]}")
    try:
        head = deployed.s3.head_object(Bucket=_bucket(deployed, item), Key=version.key, VersionId=version.version_id)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (400, 404, 405):
            raise StaysParked(
                f"{version.key!r} version {version.version_id} is not there (any more). "
                "If that is well: `neve parked --forget` its ID."
            ) from error
        if status == 403:  # whether the function may read it is another question
            return version
        raise
    return replace(version, size_bytes=head["ContentLength"], etag=head["ETag"].strip('"'))


def _report(outcomes: Sequence[tuple[str, str, str]], *, dry_run: bool, as_json: bool) -> bool:
    """Tell what became of each; whether something stays that should have been tried again."""
    if as_json:
        output.document(
            {
                "dry_run": dry_run,
                "outcomes": [{"id": each, "outcome": what, "detail": detail} for each, what, detail in outcomes],
            }
        )
    else:
        for each, what, detail in outcomes:
            typer.echo(f"{each}  {'would be ' if dry_run and what != 'stays' else ''}{what}: {safe(detail)}")
        if not outcomes:
            typer.echo("Nothing to do.")
    return any(what == "stays" for _, what, _ in outcomes)

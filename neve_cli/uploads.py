"""`neve uploads attach` and `detach`: a bucket that is there already becomes the uploads bucket, or is left alone."""

from __future__ import annotations

import shlex
from itertools import islice
from typing import Annotated

import typer

from neve_cli import output, stack
from neve_cli.attaching import DryRun, Yes, carry_out, queue_arn, read, versioning
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.pointers import After, Prefix, teller
from neve_cli.text import counted, safe, size

ANNOUNCED_TOGETHER = 10
"""What one invocation of CopyUpload gets together: it copies them one after the other."""

app = typer.Typer(
    no_args_is_help=True, help="Make a bucket that is there already the uploads bucket, or leave it alone."
)


@app.command()
def attach(
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Have the bucket of the setting uploads_bucket tell neve of uploads, and keep those that are let go in its attic.

    One rule is added to its notifications and one to its lifecycle; all others stay as they are. To do it again changes
    nothing; after a change of attic_days, it changes that. A bucket that the stacks made needs none of this.

    Exit status 1 if the bucket cannot be attached: what stands in the way is named, and nothing is changed.
    """
    from neve.domain.attachment import attaching_uploads  # noqa: PLC0415  # --help need not wait for it

    deployed = stack.find(stack_name)
    bucket = read(deployed.s3, deployed.outputs["UploadsBucket"])
    plan = attaching_uploads(
        bucket,
        name=stack_name,
        queue_arn=queue_arn(deployed, "UploadsQueue"),
        attic_days=int(deployed.outputs["AtticDays"]),
        content_bucket=deployed.outputs["ContentBucket"],
        content_versioning=versioning(deployed.s3, deployed.outputs["ContentBucket"]),
    )
    carry_out(deployed.s3, bucket, plan, dry_run=dry_run, yes=yes, as_json=as_json)


@app.command()
def detach(
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Take away from the uploads bucket what `attach` has added, and nothing else.

    Uploads stay where they are from then on. Those that were copied before are served from the content bucket still.
    """
    from neve.domain.attachment import detaching_uploads  # noqa: PLC0415

    deployed = stack.find(stack_name)
    bucket = read(deployed.s3, deployed.outputs["UploadsBucket"])
    plan = detaching_uploads(bucket, name=stack_name)
    carry_out(deployed.s3, bucket, plan, dry_run=dry_run, yes=True, as_json=as_json)


@app.command()
def announce(
    prefix: Prefix = "",
    after: After = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what lies there.")] = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Have CopyUpload take up what lies in the uploads bucket already, as if it had been uploaded now.

    For a bucket that had files when it was attached, and after the pointers were lost. What was copied before is found
    to be copied, and let go. It needs the policy NeveOperator, beside NeveObserver.
    """
    from neve.aws.content_listing import S3ContentListing  # noqa: PLC0415
    from neve.aws.queue import SqsQueue  # noqa: PLC0415
    from neve.domain.events import announcements  # noqa: PLC0415
    from neve_cli.rebuilding import going_on  # noqa: PLC0415

    deployed = stack.find(stack_name)
    bucket = deployed.outputs["UploadsBucket"]
    queue = SqsQueue(deployed.sqs, deployed.outputs["UploadsQueue"])
    current = S3ContentListing(deployed.s3, bucket).current(after, prefix=prefix)
    files, size_bytes, place, tell = 0, 0, after, teller(as_json=as_json)
    given = f" --prefix {shlex.quote(prefix)}" if prefix else ""
    with going_on(lambda: f"to go on: neve uploads announce{given} --after {shlex.quote(place)}"):
        while batch := list(islice(current, ANNOUNCED_TOGETHER)):
            for message in () if dry_run else announcements(bucket, batch):
                queue.send(message)
            files, place = files + len(batch), batch[-1].key
            size_bytes += sum(version.size_bytes for version in batch)
            tell(f"{counted(files, 'file')}, at {safe(place)}")
    if as_json:
        output.document(
            {"bucket": bucket, "files": files, "size_bytes": size_bytes, "place": place, "dry_run": dry_run}
        )
        return
    typer.echo(f"{'to be announced' if dry_run else 'announced'}: {counted(files, 'file')}, {size(size_bytes)}")

"""`neve uploads attach` and `detach`: a bucket that is there already becomes the uploads bucket, or is left alone."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.options import DEFAULT_STACK, AsJson, StackName
from neve_cli.pointers import After, Prefix, teller
from neve_cli.text import counted, safe, size

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from neve.domain.attachment import Bucket, Plan

ANNOUNCED_TOGETHER = 10
"""What one invocation of CopyUpload gets together: it copies them one after the other."""
LOOKS = 10
"""So often, a second apart, a change is looked for: S3 may show the configuration before it for a moment."""

app = typer.Typer(
    no_args_is_help=True, help="Make a bucket that is there already the uploads bucket, or leave it alone."
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go on without a question.")]


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
    from neve.domain.attachment import attaching  # noqa: PLC0415  # --help need not wait for it

    deployed = stack.find(stack_name)
    name, bucket = deployed.outputs["UploadsBucket"], _read(deployed.s3, deployed.outputs["UploadsBucket"])
    plan = attaching(
        bucket,
        name=stack_name,
        queue_arn=_queue_arn(deployed),
        attic_days=int(deployed.outputs["AtticDays"]),
    )
    _carry_out(deployed.s3, name, bucket, plan, dry_run=dry_run, yes=yes, as_json=as_json)


@app.command()
def detach(
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Take away from the uploads bucket what `attach` has added, and nothing else.

    Uploads stay where they are from then on. Those that were copied before are served from the content bucket still.
    """
    from neve.domain.attachment import detaching  # noqa: PLC0415

    deployed = stack.find(stack_name)
    name, bucket = deployed.outputs["UploadsBucket"], _read(deployed.s3, deployed.outputs["UploadsBucket"])
    plan = detaching(bucket, name=stack_name)
    _carry_out(deployed.s3, name, bucket, plan, dry_run=dry_run, yes=True, as_json=as_json)


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


def _carry_out(s3: S3Client, name: str, bucket: Bucket, plan: Plan, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    if not as_json:
        _show(name, bucket, plan)
    problem = ""
    if not (plan.refusals or dry_run):
        if plan.cautions and not yes:
            typer.confirm("Go on?", abort=True, err=True)
        problem = _put(s3, name, bucket, plan)
    if as_json:
        done = bool(plan.changes) and not (dry_run or plan.refusals or problem)
        output.document({"bucket": name, **asdict(plan), "changed": done, "problem": problem})
    if problem:
        typer.echo(f"neve: {problem}", err=True)
    if problem or plan.refusals:
        raise typer.Exit(PROBLEM)


def _put(s3: S3Client, name: str, before: Bucket, plan: Plan) -> str:
    """Put what the plan changes, the attic first: nothing is let go before it is kept. What went wrong, "" for nothing.

    S3 has no condition for this. A change by somebody else is seen if it is made until a moment before, or after; one
    made between the look and the change is lost, and no look would tell.
    """
    from neve.domain.attachment import same_lifecycle, same_notifications  # noqa: PLC0415

    if plan.lifecycle is not None:
        if not same_lifecycle(_lifecycle(s3, name), before.lifecycle):
            return "somebody else has just changed the lifecycle: run this again"
        _put_lifecycle(s3, name, plan.lifecycle)
        if not _comes(lambda: same_lifecycle(_lifecycle(s3, name), plan.lifecycle or {})):
            return "the lifecycle is not what was put there: somebody else has changed it meanwhile; run this again"
    if plan.notifications is not None:
        if not same_notifications(_notifications(s3, name), before.notifications):
            return "somebody else has just changed the notifications: run this again"
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=dict(plan.notifications))  # type: ignore[arg-type]  # as it was read
        if not _comes(lambda: same_notifications(_notifications(s3, name), plan.notifications or {})):
            return (
                "the notifications are not what was put there: somebody else has changed them meanwhile; run this again"
            )
    return ""


def _comes(look: Any) -> bool:
    for number in range(LOOKS):
        if number:
            clock.pause(1)
        if look():
            return True
    return False


def _read(s3: S3Client, name: str) -> Bucket:
    from neve.domain.attachment import Bucket  # noqa: PLC0415

    return Bucket(
        versioning=s3.get_bucket_versioning(Bucket=name).get("Status", ""),
        notifications=_notifications(s3, name),
        lifecycle=_lifecycle(s3, name),
    )


def _notifications(s3: S3Client, name: str) -> dict[str, Any]:
    answer: Any = s3.get_bucket_notification_configuration(Bucket=name)
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _lifecycle(s3: S3Client, name: str) -> dict[str, Any]:
    try:
        answer: Any = s3.get_bucket_lifecycle_configuration(Bucket=name)
    except s3.exceptions.ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchLifecycleConfiguration":
            return {}
        raise
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _put_lifecycle(s3: S3Client, name: str, lifecycle: Any) -> None:
    """S3 takes no lifecycle without rules; what its transitions leave out is a parameter beside the rules."""
    if not lifecycle["Rules"]:
        s3.delete_bucket_lifecycle(Bucket=name)
        return
    beside = {key: value for key, value in lifecycle.items() if key != "Rules"}
    s3.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration={"Rules": list(lifecycle["Rules"])}, **beside
    )


def _queue_arn(deployed: stack.Stack) -> str:
    answer = deployed.sqs.get_queue_attributes(QueueUrl=deployed.outputs["UploadsQueue"], AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


def _show(name: str, bucket: Bucket, plan: Plan) -> None:
    from neve.domain.attachment import TOLD_BY  # noqa: PLC0415

    typer.echo(f"bucket s3://{name}")
    for refusal in plan.refusals:
        typer.echo(f"  cannot be  {safe(refusal)}")
    for change in plan.changes:
        typer.echo(f"  change     {safe(change)}")
    for caution in plan.cautions:
        typer.echo(f"  mind       {safe(caution)}")
    if not (plan.changes or plan.refusals):
        typer.echo("  nothing is to be changed")
    for kind, told in TOLD_BY.items():
        for rule in bucket.notifications.get(kind, ()):
            typer.echo(f"  there now  rule {safe(rule.get('Id', ''))!r} tells {safe(rule[told])}")
    if "EventBridgeConfiguration" in bucket.notifications:
        typer.echo("  there now  EventBridge is told of everything")
    for rule in bucket.lifecycle.get("Rules", ()):
        typer.echo(f"  there now  rule {safe(rule.get('ID', ''))!r} of its lifecycle, {rule['Status'].lower()}")

"""Carrying out a plan on a bucket that is there already: what it changes is shown, put, and looked for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neve_cli import clock, output, stack
from neve_cli.failures import PROBLEM
from neve_cli.text import safe

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from neve.domain.attachment import Bucket, Plan

LOOKS = 10
"""So often, a second apart, a change is looked for: S3 may show the configuration before it for a moment."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go on without a question.")]


def read(s3: S3Client, name: str) -> Bucket:
    """How the bucket is configured."""
    from neve.domain.attachment import Bucket  # noqa: PLC0415  # --help need not wait for it

    return Bucket(
        name=name,
        versioning=versioning(s3, name),
        notifications=_notifications(s3, name),
        lifecycle=_lifecycle(s3, name),
    )


def versioning(s3: S3Client, name: str) -> str:
    """Enabled, Suspended or ""."""
    return s3.get_bucket_versioning(Bucket=name).get("Status", "")


def queue_arn(deployed: stack.Stack, name: str) -> str:
    """The ARN of the queue whose URL is the output `name`."""
    answer = deployed.sqs.get_queue_attributes(QueueUrl=deployed.outputs[name], AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


def unless_missing(ask: Callable[[], Any], missing: str) -> Any:
    """S3's answer without its metadata; {} if the error code says that the bucket has no such configuration."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        answer = ask()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == missing:
            return {}
        raise
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def carry_out(
    s3: S3Client, before: Bucket, plan: Plan, *, dry_run: bool, yes: bool, as_json: bool, then: str = ""
) -> None:
    """Show the plan, ask where it has cautions, put it, and say what to do `then`. Raises Exit where it cannot be."""
    if not as_json:
        _show(before, plan)
    problem = ""
    if not (plan.refusals or dry_run):
        if plan.changes and plan.cautions and not yes:
            typer.confirm("Go on?", abort=True, err=True)
        problem = _put(s3, before, plan)
    if as_json:
        done = bool(plan.changes) and not (dry_run or plan.refusals or problem)
        output.document({"bucket": before.name, **asdict(plan), "changed": done, "problem": problem})
    if problem:
        typer.echo(f"neve: {problem}", err=True)
    if problem or plan.refusals:
        raise typer.Exit(PROBLEM)
    if then and not as_json:
        typer.echo(f"  then       {then}")


def _put(s3: S3Client, before: Bucket, plan: Plan) -> str:
    """Put what the plan changes, the lifecycle first: nothing is let go before it is kept. What went wrong, or "".

    S3 has no condition for this. A change by somebody else is seen if it is made until a moment before, or after; one
    made between the look and the change is lost, and no look would tell.
    """
    from neve.domain.attachment import same_lifecycle, same_notifications  # noqa: PLC0415

    name = before.name
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


def _comes(look: Callable[[], bool]) -> bool:
    for number in range(LOOKS):
        if number:
            clock.pause(1)
        if look():
            return True
    return False


def _notifications(s3: S3Client, name: str) -> dict[str, Any]:
    answer: Any = s3.get_bucket_notification_configuration(Bucket=name)
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _lifecycle(s3: S3Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = unless_missing(
        lambda: s3.get_bucket_lifecycle_configuration(Bucket=name), "NoSuchLifecycleConfiguration"
    )
    return found


def _put_lifecycle(s3: S3Client, name: str, lifecycle: Any) -> None:
    """S3 takes no lifecycle without rules; what its transitions leave out is a parameter beside the rules."""
    if not lifecycle["Rules"]:
        s3.delete_bucket_lifecycle(Bucket=name)
        return
    beside = {key: value for key, value in lifecycle.items() if key != "Rules"}
    s3.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration={"Rules": list(lifecycle["Rules"])}, **beside
    )


def _show(bucket: Bucket, plan: Plan) -> None:
    from neve.domain.attachment import TOLD_BY  # noqa: PLC0415

    typer.echo(f"bucket s3://{bucket.name}")
    for refusal in plan.refusals:
        typer.echo(f"  cannot be  {safe(refusal)}")
    for change in plan.changes:
        typer.echo(f"  change     {safe(change)}")
    for caution in plan.cautions:
        typer.echo(f"  mind       {safe(caution)}")
    for task in plan.by_hand:
        typer.echo(f"  by hand    {safe(task)}")
    if not (plan.changes or plan.refusals):
        typer.echo("  nothing is to be changed")
    for kind, told in TOLD_BY.items():
        for rule in bucket.notifications.get(kind, ()):
            typer.echo(f"  there now  rule {safe(rule.get('Id', ''))!r} tells {safe(rule[told])}")
    if "EventBridgeConfiguration" in bucket.notifications:
        typer.echo("  there now  EventBridge is told of everything")
    for rule in bucket.lifecycle.get("Rules", ()):
        typer.echo(f"  there now  rule {safe(rule.get('ID', ''))!r} of its lifecycle, {rule['Status'].lower()}")

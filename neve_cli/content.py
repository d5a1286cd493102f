"""`neve content attach` and `detach`: a bucket that is there already becomes the content bucket, or is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from neve_cli import stack
from neve_cli.attaching import DryRun, Yes, carry_out, queue_arn, read, unless_missing
from neve_cli.options import DEFAULT_STACK, AsJson, StackName

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from neve.domain.attachment import Bucket

_OF_S3 = ("", "alias/aws/s3")
"""What stands for the key of KMS that S3 has in each account, which lets everybody in it use it."""

app = typer.Typer(
    no_args_is_help=True, help="Make a bucket that is there already the content bucket, or leave it alone."
)


@app.command()
def attach(
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Have the bucket of the setting content_bucket tell neve of new files, and end what drills leave in it.

    One rule is added to its notifications and one to its lifecycle; all others stay as they are. To do it again changes
    nothing. What only the bucket's owner can say in policies is shown. A bucket that the stacks made needs none of it.

    Exit status 1 if the bucket cannot be attached: what stands in the way is named, and nothing is changed.
    """
    from neve.domain.attachment import attaching_content  # noqa: PLC0415  # --help need not wait for it

    deployed = _with_bucket(stack_name)
    bucket = _read(deployed.s3, deployed.outputs["ContentBucket"])
    plan = attaching_content(
        bucket,
        name=stack_name,
        queue_arn=queue_arn(deployed, "CollectQueue"),
        bucket_statements=json.loads(deployed.outputs["ContentBucketStatements"]),
        key_statements=json.loads(deployed.outputs["ContentKeyStatements"]),
    )
    then = (
        "`neve backfill --dry-run` counts what lies there already, and says what archiving it costs; all that has no "
        "archive by then the weekly reconciliation takes up (setting reconcile_every_week)"
    )
    carry_out(deployed.s3, bucket, plan, dry_run=dry_run, yes=yes, as_json=as_json, then=then)


@app.command()
def detach(
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack_name: StackName = DEFAULT_STACK,
) -> None:
    """Take away from the content bucket what `attach` has added, and nothing else.

    New files are not collected from then on. What is archived stays so, and can be restored.
    """
    from neve.domain.attachment import detaching_content  # noqa: PLC0415

    deployed = _with_bucket(stack_name)
    bucket = read(deployed.s3, deployed.outputs["ContentBucket"])
    plan = detaching_content(bucket, name=stack_name)
    carry_out(deployed.s3, bucket, plan, dry_run=dry_run, yes=True, as_json=as_json)


def _with_bucket(stack_name: str) -> stack.Stack:
    """The stacks, if their content bucket is one that was there before them."""
    deployed = stack.find(stack_name)
    if "ContentBucketStatements" not in deployed.outputs:
        raise typer.BadParameter(
            f"The content bucket {deployed.outputs['ContentBucket']} was made by the stacks, which tell of its files "
            "already. For a bucket of your own deploy with `-c content_bucket=NAME`.",
            param_hint="--stack",
        )
    return deployed


def _read(s3: S3Client, name: str) -> Bucket:
    """As neve_cli.attaching.read, with what it says in its policy, and of its key."""
    policy = unless_missing(lambda: s3.get_bucket_policy(Bucket=name), "NoSuchBucketPolicy")
    encryption = unless_missing(
        lambda: s3.get_bucket_encryption(Bucket=name), "ServerSideEncryptionConfigurationNotFoundError"
    )
    rules = encryption.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    keys = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID", "") for rule in rules]
    statements = json.loads(policy.get("Policy", '{"Statement": []}'))["Statement"]
    return replace(
        read(s3, name),
        statements=statements if isinstance(statements, list) else [statements],
        key=next((key for key in keys if key not in _OF_S3), ""),
    )

"""What a person needs to run every command of `neve`, as a policy to attach to a role or a group."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.archive import ArchiveStack
from stacks.functions import ARCHIVES_ARE_NUMBERED, CHANGE_ROWS, READ_ROWS, acknowledge_objects
from stacks.queues import QueueWithDeadLetters
from stacks.settings import Settings
from stacks.storage import UNFINISHED_INDEX, StorageStack


def operator_policy(
    scope: Construct,
    *,
    settings: Settings,
    storage: StorageStack,
    archive: ArchiveStack,
    requests: QueueWithDeadLetters,
    others: Sequence[QueueWithDeadLetters],
    restored_topic: sns.Topic,
) -> iam.ManagedPolicy:
    """Policy NeveOperator: look at everything, restore, try again what was parked.

    It can neither write to a bucket, nor delete from one, nor thaw: PlanRestore does that, which knows the cap.
    `requests` is the queue of PlanRestore, `others` are the other queues of the restore thread.
    """
    stack = cdk.Stack.of(scope)
    named = [
        stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{settings.name}-{part}/*")
        for part in ("storage", "archive", "restore")
    ]
    queues = [storage.collect, archive.bundles, archive.large, archive.sweep, requests, *others]
    policy = iam.ManagedPolicy(
        scope,
        "NeveOperator",
        description="All that the commands of neve need, and nothing more",
        statements=[
            # The names of all that follows are outputs of the stacks.
            _allow(["cloudformation:DescribeStacks"], *named),
            # `neve status`: how much waits in each queue, and what has failed for good.
            _allow(
                ["sqs:GetQueueAttributes"],
                *(each.queue_arn for queue in queues for each in (queue.queue, queue.dead_letters)),
            ),
            # `neve restore` and `neve parked --retry` hand their work to the functions.
            _allow(["sqs:SendMessage"], requests.queue.queue_arn, storage.collect.queue.queue_arn),
            # `neve ls`, `find`, and what `restore` is to take.
            _allow(["dynamodb:BatchGetItem", "dynamodb:Query"], storage.files_table.table_arn),
            # `neve archives`, and the bundles that `status` counts.
            _allow(READ_ROWS, storage.archives_table.table_arn),
            _allow(["dynamodb:Query"], f"{storage.archives_table.table_arn}/index/{UNFINISHED_INDEX}"),
            # `neve parked`, `--forget`; a restore to a local folder parks what it finds damaged.
            _allow(
                ["dynamodb:Scan", "dynamodb:PutItem", "dynamodb:DeleteItem"],
                storage.parked_table.table_arn,
            ),
            # `neve jobs`, `cancel`, and restores to a local folder, whose shares the command itself leases and ends.
            _allow([*READ_ROWS, *CHANGE_ROWS], storage.restores_table.table_arn),
            _allow(["sns:Publish"], restored_topic.topic_arn),
            # Restores to a local folder read what is thawed, `neve archives ID` its manifest. This lets its holder read
            # every archived file, as far as it is thawed.
            _allow(
                ["s3:GetObject", "s3:GetObjectVersion"],
                storage.archive_bucket.arn_for_objects("archives/*"),
                storage.archive_bucket.arn_for_objects("manifests/*"),
            ),
            # Without the right to list, S3 answers 403 for what does not exist.
            _allow(["s3:ListBucket"], storage.archive_bucket.bucket_arn),
            # `neve parked --retry` looks whether the version is there still.
            _allow(["s3:GetObjectVersion"], storage.content_bucket.arn_for_objects("*")),
            _allow(["s3:ListBucket", "s3:ListBucketVersions"], storage.content_bucket.bucket_arn),
        ],
    )
    acknowledge_objects(policy, storage.archive_bucket, ["archives/*", "manifests/*"], reason=ARCHIVES_ARE_NUMBERED)
    acknowledge_objects(
        policy, storage.content_bucket, ["*"], reason="Any version of the content bucket may have been parked."
    )
    for part in ("storage", "archive", "restore"):
        where = "arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>:stack"
        cdk.Validations.of(policy).acknowledge(
            cdk.Acknowledgment(
                id=f"AwsSolutions-IAM5[Resource::{where}/{settings.name}-{part}/*]",
                reason="CloudFormation gives a stack an id of its own, which comes after its name.",
            )
        )
    return policy


def _allow(actions: Sequence[str], *resources: str) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=list(actions), resources=list(resources))

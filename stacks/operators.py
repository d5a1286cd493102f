"""What the commands of `neve` need, as policies to attach to a role or a group.

NeveObserver looks; NeveOperator comes on top of it and acts through the functions; NeveRecovery comes on top of it for
the day when the index is lost. In one document they would pass IAM's 6,144 characters. NeveEdge is for hosts that run
the edge agent, and stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.archive import ArchiveStack
from stacks.audit import AuditStack
from stacks.functions import ARCHIVES_ARE_NUMBERED, CHANGE_ROWS, READ_ROWS, acknowledge_objects
from stacks.offload import OffloadStack
from stacks.restore import RestoreStack
from stacks.settings import Settings
from stacks.storage import UNFINISHED_INDEX, StorageStack

_PARTS = ("storage", "archive", "restore", "audit", "offload", "serve")
_PARTS_WITH_QUEUES = ("storage", "archive", "restore", "audit", "offload")
_PARTS_OF_EDGE = ("storage", "offload")

# All that a pointer to a host consists of, in the table and in the condition under which the agent writes it.
_HOST_POINTER = ["key", "place", "since", "url"]


def observer_policy(
    scope: Construct,
    *,
    settings: Settings,
    storage: StorageStack,
    archive: ArchiveStack,
) -> iam.ManagedPolicy:
    """Policy NeveObserver: run every command that changes nothing. It reads no archived file."""
    stack = cdk.Stack.of(scope)
    policy = iam.ManagedPolicy(
        scope,
        "NeveObserver",
        description="All that the commands of neve need to look at everything",
        statements=[
            _allow_finding(scope, settings, _PARTS),
            # `neve status`: how much waits in each queue, and what has failed for good.
            _allow(
                ["sqs:GetQueueAttributes"],
                *(stack.format_arn(service="sqs", resource=_queues(settings, part)) for part in _PARTS_WITH_QUEUES),
            ),
            # `neve ls`, `find`, and what `restore` is to take.
            _allow(["dynamodb:BatchGetItem", "dynamodb:Query"], storage.files_table.table_arn),
            # `neve archives`, `jobs`, `audit`, `drill`, `reconcile`, `backfill`, and what `status` counts.
            _allow(
                READ_ROWS,
                storage.archives_table.table_arn,
                storage.restores_table.table_arn,
                storage.audits_table.table_arn,
                storage.backfills_table.table_arn,
            ),
            # `neve backfill status` looks whether what works on it is alive.
            _allow(["states:DescribeExecution"], _executions(archive)),
            _allow(["dynamodb:Query"], f"{storage.archives_table.table_arn}/index/{UNFINISHED_INDEX}"),
            # `neve parked`.
            _allow(["dynamodb:Scan"], storage.parked_table.table_arn),
            # `neve archives ID`. Without the right to list, S3 answers 403 for what does not exist.
            _allow(["s3:GetObject"], storage.archive_bucket.arn_for_objects("manifests/*")),
            _allow(["s3:ListBucket"], storage.archive_bucket.bucket_arn),
            # `neve where`, and what `status` tells of the outbox.
            _allow(["dynamodb:GetItem"], storage.pointers_table.table_arn),
            _allow(["dynamodb:Query"], storage.outbox_table.table_arn),
            _allow(["s3:ListBucketVersions"], storage.uploads_bucket.bucket_arn, storage.content_bucket.bucket_arn),
            # `neve cost actual`. CloudWatch knows no resources for it.
            _allow(["cloudwatch:GetMetricData"], "*"),
        ],
    )
    acknowledge_objects(policy, storage.archive_bucket, ["manifests/*"], reason=ARCHIVES_ARE_NUMBERED)
    _acknowledge_finding(policy, settings, _PARTS)
    _acknowledge(policy, "*", "CloudWatch reads metrics of the whole account, or none.")
    owner = cdk.Stack.of(archive)
    machine = owner.resolve(owner.export_value(archive.backfill_machine.state_machine_name))["Fn::ImportValue"]
    _acknowledge(
        policy,
        f"arn:<AWS::Partition>:states:<AWS::Region>:<AWS::AccountId>:execution:{machine}:*",
        "Each execution is called after its backfill.",
    )
    for part in _PARTS_WITH_QUEUES:
        _acknowledge(
            policy,
            f"arn:<AWS::Partition>:sqs:<AWS::Region>:<AWS::AccountId>:{_queues(settings, part)}",
            "Named one by one, with their dead-letter queues, they would not fit into a policy. All queues of a stack "
            "begin with its name.",
        )
    return policy


def operator_policy(
    scope: Construct, *, storage: StorageStack, archive: ArchiveStack, restore: RestoreStack, audit: AuditStack
) -> iam.ManagedPolicy:
    """Policy NeveOperator, beside NeveObserver: restore, audit, drill, reconcile, backfill, try again what was parked.

    It can neither write to a bucket, nor delete from one, nor thaw: the functions do that, which know caps and claims.
    """
    sources = (storage.content_bucket, storage.uploads_bucket)
    policy = iam.ManagedPolicy(
        scope,
        "NeveOperator",
        description="What the commands of neve need to act, beside NeveObserver",
        statements=[
            # `neve restore`, `parked --retry`, `audit run` and `repair`, `drill run`, `reconcile run`.
            _allow(
                ["sqs:SendMessage"],
                *(
                    queue.queue.queue_arn
                    for queue in (
                        restore.requests,
                        storage.collect,
                        storage.uploads,
                        audit.audits,
                        audit.drills,
                        audit.reconciles,
                    )
                ),
            ),
            # `neve parked --forget`; a restore to a local folder parks what it finds damaged.
            _allow(["dynamodb:PutItem", "dynamodb:DeleteItem"], storage.parked_table.table_arn),
            # `neve backfill` begins, stops and resumes: by the backfill's row, and an execution that works on it.
            _allow(["dynamodb:PutItem", "dynamodb:UpdateItem"], storage.backfills_table.table_arn),
            _allow(["states:StartExecution"], archive.backfill_machine.state_machine_arn),
            # `neve cancel`, and restores to a local folder, whose shares the command itself leases and ends.
            _allow(CHANGE_ROWS, storage.restores_table.table_arn),
            _allow(["sns:Publish"], restore.restored_topic.topic_arn),
            # Restores to a local folder read what is thawed. This lets its holder read every archived file, as far as
            # it is thawed.
            _allow(
                ["s3:GetObject", "s3:GetObjectVersion"],
                storage.archive_bucket.arn_for_objects("archives/*"),
            ),
            # `neve parked --retry` looks whether the version is there still.
            _allow(["s3:GetObjectVersion"], *(bucket.arn_for_objects("*") for bucket in sources)),
            _allow(["s3:ListBucket", "s3:ListBucketVersions"], *(bucket.bucket_arn for bucket in sources)),
        ],
    )
    acknowledge_objects(policy, storage.archive_bucket, ["archives/*"], reason=ARCHIVES_ARE_NUMBERED)
    for bucket in sources:
        acknowledge_objects(policy, bucket, ["*"], reason="Any version of these buckets may have been parked.")
    return policy


def recovery_policy(scope: Construct, *, storage: StorageStack) -> iam.ManagedPolicy:
    """Policy NeveRecovery, beside NeveObserver: `neve rebuild-index` and `rebuild-pointers`, which make tables anew.

    It writes rows, and manifests where there are none; it can neither delete nor overwrite an archive or a manifest.
    """
    policy = iam.ManagedPolicy(
        scope,
        "NeveRecovery",
        description="What `neve rebuild-index` and `rebuild-pointers` need, beside NeveObserver",
        statements=[
            _allow(["dynamodb:PutItem", "dynamodb:PartiQLInsert"], storage.files_table.table_arn),
            # Rows of archives, and the counter of serials.
            _allow(["dynamodb:PutItem", "dynamodb:UpdateItem"], storage.archives_table.table_arn),
            # `neve rebuild-pointers`: those that are missing.
            _allow(["dynamodb:BatchGetItem", "dynamodb:PutItem"], storage.pointers_table.table_arn),
            # `--from-archives` has archives thawed, for which it needs no row, and reads them.
            _allow(
                ["s3:GetObject", "s3:GetObjectVersion", "s3:RestoreObject"],
                storage.archive_bucket.arn_for_objects("archives/*"),
            ),
            # The bucket's own policy allows it only where none stands.
            _allow(["s3:PutObject"], storage.archive_bucket.arn_for_objects("manifests/*")),
        ],
    )
    acknowledge_objects(policy, storage.archive_bucket, ["archives/*", "manifests/*"], reason=ARCHIVES_ARE_NUMBERED)
    return policy


def edge_policy(
    scope: Construct, *, settings: Settings, storage: StorageStack, offload: OffloadStack
) -> iam.ManagedPolicy:
    """Policy NeveEdge: what a host needs that runs `neve edge`.

    It puts uploads and proves them, and says which files it serves itself. It can delete nothing, and no pointer that
    it writes leads into a bucket: only CopyUpload's do.
    """
    policy = iam.ManagedPolicy(
        scope,
        "NeveEdge",
        description="What the edge agent of neve needs",
        statements=[
            _allow_finding(scope, settings, _PARTS_OF_EDGE),
            _allow(
                [
                    "s3:PutObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                    "s3:GetObject",
                    "s3:GetObjectVersion",
                ],
                storage.uploads_bucket.arn_for_objects("*"),
            ),
            # To tell a missing upload from a forbidden one, and the order of a key's versions.
            _allow(["s3:ListBucket", "s3:ListBucketVersions"], storage.uploads_bucket.bucket_arn),
            _allow(["dynamodb:GetItem", "dynamodb:BatchGetItem"], storage.pointers_table.table_arn),
            iam.PolicyStatement(
                actions=["dynamodb:PutItem"],
                resources=[storage.pointers_table.table_arn],
                conditions={"ForAllValues:StringEquals": {"dynamodb:Attributes": _HOST_POINTER}},
            ),
            # Hosts that share a folder share its announcements.
            _allow(
                [
                    "sqs:SendMessage",
                    "sqs:ReceiveMessage",
                    "sqs:DeleteMessage",
                    "sqs:ChangeMessageVisibility",
                    "sqs:GetQueueAttributes",
                ],
                offload.announcements.queue.queue_arn,
            ),
        ],
    )
    acknowledge_objects(policy, storage.uploads_bucket, ["*"], reason="A host's files may have any name.")
    _acknowledge_finding(policy, settings, _PARTS_OF_EDGE)
    return policy


def _allow_finding(scope: Construct, settings: Settings, parts: Sequence[str]) -> iam.PolicyStatement:
    """The names of everything are outputs of the stacks."""
    stack = cdk.Stack.of(scope)
    return _allow(
        ["cloudformation:DescribeStacks"],
        *(
            stack.format_arn(service="cloudformation", resource="stack", resource_name=_stack(settings, part))
            for part in parts
        ),
    )


def _acknowledge_finding(policy: iam.ManagedPolicy, settings: Settings, parts: Sequence[str]) -> None:
    where = "arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>:stack"
    for part in parts:
        _acknowledge(
            policy,
            f"{where}/{_stack(settings, part)}",
            "CloudFormation gives a stack an id of its own, which comes after its name.",
        )


def _acknowledge(policy: iam.ManagedPolicy, resource: str, reason: str) -> None:
    cdk.Validations.of(policy).acknowledge(
        cdk.Acknowledgment(id=f"AwsSolutions-IAM5[Resource::{resource}]", reason=reason)
    )


def _executions(archive: ArchiveStack) -> str:
    return cdk.Stack.of(archive).format_arn(
        service="states",
        resource="execution",
        resource_name=f"{archive.backfill_machine.state_machine_name}:*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )


def _stack(settings: Settings, part: str) -> str:
    return f"{settings.name}-{part}/*"


def _queues(settings: Settings, part: str) -> str:
    return f"{settings.name}-{part}-*"


def _allow(actions: Sequence[str], *resources: str) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=list(actions), resources=list(resources))

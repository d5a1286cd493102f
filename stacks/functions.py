"""How every Lambda of the project is built."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IConstruct

from neve.config import AnyConfig, environment
from stacks.packing import SOURCE, LocalPacking, asset_hash, lambda_architecture
from stacks.settings import Settings

METRICS_NAMESPACE = "neve"

# Each function's role carries this tag; the archive bucket's policy names it in its refusals.
ROLE_TAG, ROLE_TAG_VALUE = "neve-role", "pipeline"

READ_ROWS = ("dynamodb:GetItem", "dynamodb:Query")
CHANGE_ROWS = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")

ARCHIVES_ARE_NUMBERED = "An archive gets its number when it is written: the folder is as narrow as a policy can be."

_ARCHITECTURES = {"arm64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}


def packed_code(platform: str) -> lambda_.Code:
    """The one asset of all functions: lambdas/ and its requirements, for the setting lambda_platform."""
    return lambda_.Code.from_asset(
        str(SOURCE),
        asset_hash_type=cdk.AssetHashType.CUSTOM,
        asset_hash=asset_hash(platform),
        bundling=cdk.BundlingOptions(
            # The image is a required field; LocalPacking never falls back to Docker, so nothing pulls it.
            image=cdk.DockerImage.from_registry("none"),
            local=LocalPacking(platform),
        ),
    )


def function(
    scope: Construct,
    name: str,
    *,
    handler: str,
    code: lambda_.Code,
    config: AnyConfig,
    platform: str,
    timeout_s: int,
    memory_mib: int,
    recursive_loop: lambda_.RecursiveLoop | None = None,
    service: str = "",
) -> lambda_.Function:
    """Function `name`, which can write its log and nothing else until `allow` says so.

    `handler` is module and function, as in `collect.handler`; `code` is `packed_code(platform)`, the same for all.
    `service` is the function that it counts and logs as, if it does the same as another one.
    """
    log_group = logs.LogGroup(
        scope,
        f"{name}Log",
        retention=logs.RetentionDays.THREE_MONTHS,
        # What happened to a file is in its manifest and its row; the log is for finding faults.
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    role = iam.Role(scope, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    cdk.Tags.of(role).add(ROLE_TAG, ROLE_TAG_VALUE)
    log_group.grant_write(role)
    made = lambda_.Function(
        scope,
        name,
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=_ARCHITECTURES[lambda_architecture(platform)],
        code=code,
        handler=handler,
        role=role,
        log_group=log_group,
        timeout=cdk.Duration.seconds(timeout_s),
        memory_size=memory_mib,
        recursive_loop=recursive_loop,
        environment={
            **environment(config),
            "POWERTOOLS_SERVICE_NAME": service or name,
            "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
            "POWERTOOLS_LOG_LEVEL": "INFO",
        },
    )
    cdk.Validations.of(made).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions-L1",
            reason="Python 3.13 is the runtime that the pinned wheels are for; the code is tested on 3.11 to 3.14.",
        )
    )
    return made


def allow(made: lambda_.Function, actions: Sequence[str], *resources: str) -> None:
    """Let `made` do `actions` on `resources`, which are ARNs."""
    made.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))


def allow_objects(
    made: lambda_.Function, actions: Sequence[str], bucket: s3.IBucket, folders: Sequence[str], *, reason: str
) -> None:
    """Let `made` do `actions` on the objects of `bucket` that match one of `folders`, such as `archives/*`.

    `reason` says why no narrower pattern does. The bucket stands in another stack than the function, or is only named.
    """
    allow(made, actions, *(bucket.arn_for_objects(folder) for folder in folders))
    assert made.role is not None
    acknowledge_objects(made.role, bucket, folders, reason=reason)


def allow_inventory(made: lambda_.Function, settings: Settings) -> None:
    """Let `made` read the reports of S3 Inventory on the content bucket, if the settings say where they are."""
    if not settings.inventory:
        return
    name, prefix = settings.inventory_place
    reports = s3.Bucket.from_bucket_name(made, "Inventory", name)
    reason = "S3 Inventory names its reports by their time."
    allow_objects(made, ["s3:GetObject"], reports, [f"{prefix}*"], reason=reason)
    allow(made, ["s3:ListBucket"], reports.bucket_arn)


def acknowledge_objects(granted: IConstruct, bucket: s3.IBucket, folders: Sequence[str], *, reason: str) -> None:
    """Tell cdk-nag why `granted`, a role or policy, has a wildcard for the objects in `folders` of `bucket`.

    The bucket stands in another stack, or is only named.
    """
    for folder in folders:
        cdk.Validations.of(granted).acknowledge(
            cdk.Acknowledgment(id=f"AwsSolutions-IAM5[Resource::{_name_for_nag(bucket)}/{folder}]", reason=reason)
        )


def _name_for_nag(bucket: s3.IBucket) -> str:
    """What cdk-nag calls the bucket's ARN: the export of its own stack, or the ARN of one that is only named."""
    owner = cdk.Stack.of(bucket)
    if isinstance(bucket, s3.Bucket):
        return str(owner.resolve(owner.export_value(bucket.bucket_arn))["Fn::ImportValue"])
    return f"arn:<AWS::Partition>:s3:::{bucket.bucket_name}"


def allow_sending(made: lambda_.Function, *queues: sqs.Queue, outbox: dynamodb.Table) -> None:
    """Let `made` send to `queues`, and keep in `outbox` what it cannot send."""
    allow(made, ["sqs:SendMessage"], *(queue.queue_arn for queue in queues))
    allow(made, ["dynamodb:PutItem", "dynamodb:Query"], outbox.table_arn)


def consume(
    made: lambda_.Function, queue: sqs.Queue, *, batch_size: int, max_concurrency: int, window_s: int = 0
) -> None:
    """Let `made` take its events from `queue`, at most `max_concurrency` batches at once.

    A batch may fail in part. The permissions to receive, delete and delay the queue's messages come with the mapping.
    """
    made.add_event_source(
        sources.SqsEventSource(
            queue,
            batch_size=batch_size,
            max_batching_window=cdk.Duration.seconds(window_s) if window_s else None,
            max_concurrency=max_concurrency,
            report_batch_item_failures=True,
        )
    )

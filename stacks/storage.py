"""What holds data: buckets and tables, and the queue that the content bucket notifies."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.functions import ROLE_TAG, ROLE_TAG_VALUE
from stacks.outputs import output
from stacks.queues import queue_with_dead_letters
from stacks.settings import Settings

UNFINISHED_INDEX = "unfinished"

# The batching window of Collect's mapping: AWS asks for at least 1 above 10 events a batch.
COLLECT_WINDOW_S = 1

# An upload that its sender left unfinished is paid for like an object until it is aborted.
_ABORT_UPLOADS_AFTER = cdk.Duration.days(7)

# What no function of the pipeline may ever do to the archive bucket, whatever its own policy says.
REFUSED_TO_PIPELINE = (
    "s3:BypassGovernanceRetention",
    "s3:DeleteBucket",
    "s3:DeleteBucketPolicy",
    "s3:DeleteObject",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersion",
    "s3:DeleteObjectVersionTagging",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutObjectLegalHold",
    "s3:PutObjectRetention",
    "s3:PutReplicationConfiguration",
)


class StorageStack(cdk.Stack):
    """Buckets, tables and the collect queue. Everything that holds data outlives the stack."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings) -> None:
        super().__init__(scope, construct_id, description="neve: buckets, tables and the queue of uploads")

        # The queue stands beside the bucket that notifies it: in two stacks they would depend on each other.
        self.collect = queue_with_dead_letters(
            self, "Collect", timeout_s=settings.collect_timeout_s, window_s=COLLECT_WINDOW_S
        )
        self.content_bucket = self._content_bucket()
        self.archive_bucket = self._archive_bucket()
        self.files_table = self._files_table()
        self.archives_table = self._archives_table()
        self.parked_table = self._parked_table()

        output(self, "ContentBucket", self.content_bucket.bucket_name)
        output(self, "ArchiveBucket", self.archive_bucket.bucket_name)
        output(self, "FilesTable", self.files_table.table_name)
        output(self, "ArchivesTable", self.archives_table.table_name)
        output(self, "ParkedTable", self.parked_table.table_name)
        output(self, "CollectQueue", self.collect.queue.queue_url)
        output(self, "CollectDeadLetterQueue", self.collect.dead_letters.queue_url)

    def _bucket(self, construct_id: str) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            construct_id,
            versioned=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
            # Nothing in a bucket expires, noncurrent versions neither: an archive's source stays comparable.
            lifecycle_rules=[s3.LifecycleRule(abort_incomplete_multipart_upload_after=_ABORT_UPLOADS_AFTER)],
        )
        cdk.Validations.of(bucket).acknowledge(
            cdk.Acknowledgment(
                id="AwsSolutions-S1",
                reason="Access logs would be as many small objects as neve exists to avoid; an account that needs them "
                "turns on CloudTrail data events, which the bucket need not know of.",
            )
        )
        return bucket

    def _content_bucket(self) -> s3.Bucket:
        bucket = self._bucket("ContentBucket")
        # S3 tries the queue when the bucket is made, so the queue's policy has to stand before the bucket and cannot
        # name it: the account stands in for it, and Collect ignores events of other buckets. For this the bucket's own
        # property is enough; `add_event_notification` would bring a Lambda of its own with rights on every bucket.
        self.collect.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowEventsOfContentBucket",
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.collect.queue.queue_arn],
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    "ArnLike": {"aws:SourceArn": f"arn:{self.partition}:s3:::*"},
                },
            )
        )
        resource = _cfn(bucket)
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(event="s3:ObjectCreated:*", queue=self.collect.queue.queue_arn)
            ]
        )
        resource.node.add_dependency(self.collect.queue)
        return bucket

    def _archive_bucket(self) -> s3.Bucket:
        bucket = self._bucket("ArchiveBucket")
        objects = bucket.arn_for_objects("*")
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                # Nothing is overwritten, by whomever. Opening an upload and sending its parts create no object and take
                # no such header; completing it does both. (S3 user guide, "Enforce conditional writes".)
                sid="DenyPutWithoutIfNoneMatch",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[objects],
                conditions={
                    "Null": {"s3:if-none-match": "true"},
                    "Bool": {"s3:ObjectCreationOperation": "true"},
                },
            )
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DenyPipelineToDeleteOrLoosen",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=list(REFUSED_TO_PIPELINE),
                resources=[bucket.bucket_arn, objects],
                conditions={"StringEquals": {f"aws:PrincipalTag/{ROLE_TAG}": ROLE_TAG_VALUE}},
            )
        )
        return bucket

    def _files_table(self) -> dynamodb.Table:
        """One row for each archived version, spread over 64 shards by its key's hash."""
        return self._table(
            "FilesTable",
            partition_key=dynamodb.Attribute(name="shard", type=dynamodb.AttributeType.NUMBER),
            sort_key=dynamodb.Attribute(name="sort", type=dynamodb.AttributeType.BINARY),
        )

    def _archives_table(self) -> dynamodb.Table:
        """Archives, bundles, their parts and the serial counter; parts expire."""
        table = self._table(
            "ArchivesTable",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            time_to_live_attribute="expires_at",
        )
        # Sparse: only what is unfinished has the attribute, so the sweep reads what it needs and no more.
        table.add_global_secondary_index(
            index_name=UNFINISHED_INDEX,
            partition_key=dynamodb.Attribute(name="unfinished", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="due_at", type=dynamodb.AttributeType.NUMBER),
            projection_type=dynamodb.ProjectionType.KEYS_ONLY,
        )
        return table

    def _parked_table(self) -> dynamodb.Table:
        """Permanent failures that wait for a person."""
        return self._table(
            "ParkedTable", partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING)
        )

    def _table(
        self,
        construct_id: str,
        *,
        partition_key: dynamodb.Attribute,
        sort_key: dynamodb.Attribute | None = None,
        time_to_live_attribute: str | None = None,
    ) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            construct_id,
            partition_key=partition_key,
            sort_key=sort_key,
            time_to_live_attribute=time_to_live_attribute,
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            # DynamoDB encrypts every table. Unless told otherwise it takes a key of its own, at no charge per request.
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )


def _cfn(bucket: s3.Bucket) -> s3.CfnBucket:
    resource = bucket.node.default_child
    assert isinstance(resource, s3.CfnBucket)
    return resource

"""What holds data: buckets and tables, the queue and the topic that the buckets notify, the topic that people hear."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from neve.config import DRILLS, DRILLS_DAYS
from stacks.functions import ROLE_TAG, ROLE_TAG_VALUE
from stacks.outputs import output
from stacks.private import patterns
from stacks.queues import QueueWithDeadLetters, queue_with_dead_letters
from stacks.settings import Settings
from stacks.topics import topic

UNFINISHED_INDEX = "unfinished"

# An upload that its sender left unfinished is paid for like an object until it is aborted.
_ABORT_UPLOADS_AFTER = s3.LifecycleRule(abort_incomplete_multipart_upload_after=cdk.Duration.days(7))

# A drill deletes its copies itself; this is for those of a drill that died. With days given, S3 also takes away the
# delete markers that nothing is left behind. (S3 user guide, "Removing expired object delete markers".)
_DRILLS_EXPIRE_AFTER = s3.LifecycleRule(
    prefix=DRILLS,
    expiration=cdk.Duration.days(DRILLS_DAYS),
    noncurrent_version_expiration=cdk.Duration.days(DRILLS_DAYS),
)


# An upload's object that was let go, or replaced by the next upload of its key, is a noncurrent version: the attic.
# Its marker goes when nothing is left behind it.
def _attic(days: int) -> list[s3.LifecycleRule]:
    return [s3.LifecycleRule(noncurrent_version_expiration=cdk.Duration.days(days), expired_object_delete_marker=True)]


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
    """Buckets, tables, the queues of new objects, the topics of thaws and of alerts.

    Everything that holds data outlives the stack.
    """

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings) -> None:
        super().__init__(scope, construct_id, description="neve: buckets, tables, what the buckets notify, alerts")

        # Queue and topic stand beside the buckets that notify them: in two stacks they would depend on each other.
        self.collect = queue_with_dead_letters(
            self, "Collect", timeout_s=settings.collect_timeout_s, window_s=settings.collect_window_s
        )
        self.thawed_topic = topic(
            self,
            "ThawedTopic",
            service="s3.amazonaws.com",
            unencrypted_because="S3 cannot publish to a topic under the AWS-managed key. Its events say that an "
            "archive is thawed, know nothing of the files in it, and travel by TLS only.",
        )
        self.uploads = queue_with_dead_letters(self, "Uploads", timeout_s=settings.uploads_timeout_s)
        self.alerts = self._alerts(settings)
        self.content_bucket = self._content_bucket(settings)
        self.uploads_bucket = self._uploads_bucket(settings)
        self.archive_bucket = self._archive_bucket()
        self.drill_bucket = self._drill_bucket()
        # Two buckets, since a restore into the bucket that the files came from goes another way than one elsewhere.
        self.drill_destinations: list[s3.IBucket] = [
            self.drill_bucket,
            s3.Bucket.from_bucket_name(self, "SecondDrillBucket", settings.drill_bucket)
            if settings.drill_bucket
            else self.content_bucket,
        ]
        self.files_table = self._files_table()
        self.archives_table = self._archives_table()
        self.parked_table = self._parked_table()
        self.restores_table = self._restores_table()
        self.audits_table = self._audits_table()
        self.pointers_table = self._pointers_table()
        self.outbox_table = self._outbox_table()
        self.backfills_table = self._backfills_table()

        output(self, "ContentBucket", self.content_bucket.bucket_name)
        output(self, "UploadsBucket", self.uploads_bucket.bucket_name)
        output(self, "ArchiveBucket", self.archive_bucket.bucket_name)
        output(self, "FilesTable", self.files_table.table_name)
        output(self, "ArchivesTable", self.archives_table.table_name)
        output(self, "ParkedTable", self.parked_table.table_name)
        output(self, "RestoresTable", self.restores_table.table_name)
        output(self, "AuditsTable", self.audits_table.table_name)
        output(self, "PointersTable", self.pointers_table.table_name)
        output(self, "OutboxTable", self.outbox_table.table_name)
        output(self, "BackfillsTable", self.backfills_table.table_name)
        output(self, "DrillBucket", self.drill_bucket.bucket_name)
        output(self, "AlertsTopic", self.alerts.topic_arn)
        output(self, "ThawedTopic", self.thawed_topic.topic_arn)
        output(self, "CollectQueue", self.collect.queue.queue_url)
        output(self, "CollectDeadLetterQueue", self.collect.dead_letters.queue_url)
        output(self, "UploadsQueue", self.uploads.queue.queue_url)
        output(self, "UploadsDeadLetterQueue", self.uploads.dead_letters.queue_url)

    def _alerts(self, settings: Settings) -> sns.Topic:
        """The topic of alarms and of what audits, drills and reconciliations find."""
        alerts = topic(
            self,
            "Alerts",
            service="cloudwatch.amazonaws.com",
            unencrypted_because="Alarms cannot publish to a topic under the AWS-managed key. Alerts name queues and "
            "functions, and the keys of files in which something was found, never what is in a file; they travel by "
            "TLS only.",
        )
        if settings.alert_email:
            alerts.add_subscription(subscriptions.EmailSubscription(settings.alert_email))
        return alerts

    def _bucket(self, construct_id: str, *, versioned: bool, rules: Sequence[s3.LifecycleRule] = ()) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            construct_id,
            versioned=versioned,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
            # Nothing but copies of drills expires, noncurrent versions neither: an archive's source stays comparable.
            lifecycle_rules=[_ABORT_UPLOADS_AFTER, *rules],
        )
        cdk.Validations.of(bucket).acknowledge(
            cdk.Acknowledgment(
                id="AwsSolutions-S1",
                reason="Access logs would be as many small objects as neve exists to avoid; an account that needs them "
                "turns on CloudTrail data events, which the bucket need not know of.",
            )
        )
        return bucket

    def _content_bucket(self, settings: Settings) -> s3.IBucket:
        """The bucket whose files are archived; one that is there already keeps its configuration as it is.

        `neve content attach` has such a bucket notify the queue, gives it the rule for copies of drills, and names the
        statements that its policy lacks.
        """
        if settings.content_bucket:
            self._let_tell(self.collect, "ContentBucket", settings.content_bucket)
            named = s3.Bucket.from_bucket_name(self, "ContentBucket", settings.content_bucket)
            readable = [statement.to_statement_json() for statement in self._cloudfront_reads(named, settings)]
            output(self, "ContentBucketStatements", self.to_json_string(readable))
            output(self, "ContentKeyStatements", self.to_json_string([self._keys_use().to_statement_json()]))
            return named
        bucket = self._bucket("ContentBucket", versioned=True, rules=[_DRILLS_EXPIRE_AFTER])
        self._tell_of_new_objects(bucket, self.collect)
        self._let_cloudfront_read(bucket, settings)
        return bucket

    def _uploads_bucket(self, settings: Settings) -> s3.IBucket:
        """The bucket that the application uploads to; one that is there already keeps its configuration as it is.

        `neve uploads attach` has such a bucket notify the queue, and gives it the attic.
        """
        if settings.uploads_bucket:
            self._let_tell(self.uploads, "UploadsBucket", settings.uploads_bucket)
            return s3.Bucket.from_bucket_name(self, "UploadsBucket", settings.uploads_bucket)
        bucket = self._bucket("UploadsBucket", versioned=True, rules=_attic(settings.attic_days))
        self._tell_of_new_objects(bucket, self.uploads)
        self._let_cloudfront_read(bucket, settings)
        return bucket

    def _let_cloudfront_read(self, bucket: s3.Bucket, settings: Settings) -> None:
        for statement in self._cloudfront_reads(bucket, settings):
            bucket.add_to_resource_policy(statement)

    def _cloudfront_reads(self, bucket: s3.IBucket, settings: Settings) -> list[iam.PolicyStatement]:
        """Let the distributions of this account read the bucket, but for what is private and for neve's own.

        The distribution itself cannot be named: it stands in another stack, and names the bucket. Without the right to
        list, a file that is not there would be answered as forbidden.
        """
        cloudfront = iam.ServicePrincipal("cloudfront.amazonaws.com")
        any_distribution = {
            "StringEquals": {"aws:SourceAccount": self.account},
            "ArnLike": {"aws:SourceArn": f"arn:{self.partition}:cloudfront::{self.account}:distribution/*"},
        }
        allowed = [
            iam.PolicyStatement(
                sid=sid, principals=[cloudfront], actions=[action], resources=[resource], conditions=any_distribution
            )
            for sid, action, resource in (
                ("AllowCloudFrontToRead", "s3:GetObject", bucket.arn_for_objects("*")),
                ("AllowCloudFrontToTellWhatIsMissing", "s3:ListBucket", bucket.bucket_arn),
            )
        ]
        # What CloudFront signs URLs for it has to read; its distribution then asks for the signature.
        private = patterns(settings.private) if settings.signing == "s3" else []
        denied = iam.PolicyStatement(
            sid="DenyCloudFrontWhatIsPrivate",
            effect=iam.Effect.DENY,
            principals=[cloudfront],
            actions=["s3:GetObject"],
            resources=[bucket.arn_for_objects(pattern) for pattern in (".neve/*", *private)],
        )
        return [*allowed, denied]

    def _keys_use(self) -> iam.PolicyStatement:
        """What the key of a bucket that encrypts by a key of KMS has to allow the functions, through S3 alone.

        Nobody but the key's owner can say so, and no role is named: those that are to come are meant as well.
        """
        return iam.PolicyStatement(
            sid="AllowNeveToUseTheKey",
            principals=[iam.AnyPrincipal()],
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=["*"],
            conditions={
                "StringEquals": {
                    "kms:CallerAccount": self.account,
                    "kms:ViaService": f"s3.{self.region}.amazonaws.com",
                    f"aws:PrincipalTag/{ROLE_TAG}": ROLE_TAG_VALUE,
                }
            },
        )

    def _tell_of_new_objects(self, bucket: s3.Bucket, told: QueueWithDeadLetters) -> None:
        # The queue's policy cannot name the bucket (see _notify): the account stands in for it, and who reads the queue
        # ignores events of other buckets.
        self._let_tell(told, bucket.node.id, "*")
        _notify(
            bucket,
            told.queue,
            s3.CfnBucket.NotificationConfigurationProperty(
                queue_configurations=[
                    s3.CfnBucket.QueueConfigurationProperty(event="s3:ObjectCreated:*", queue=told.queue.queue_arn)
                ]
            ),
        )

    def _let_tell(self, told: QueueWithDeadLetters, name: str, bucket_name: str) -> None:
        """Let S3 send the events of this account's buckets that are called `bucket_name`, `*` for any."""
        told.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid=f"AllowEventsOf{name}",
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[told.queue.queue_arn],
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    "ArnLike": {"aws:SourceArn": f"arn:{self.partition}:s3:::{bucket_name}"},
                },
            )
        )

    def _archive_bucket(self) -> s3.Bucket:
        bucket = self._bucket("ArchiveBucket", versioned=True)
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
        _notify(
            bucket,
            self.thawed_topic,
            s3.CfnBucket.NotificationConfigurationProperty(
                topic_configurations=[
                    s3.CfnBucket.TopicConfigurationProperty(
                        event="s3:ObjectRestore:Completed",
                        topic=self.thawed_topic.topic_arn,
                        filter=s3.CfnBucket.NotificationFilterProperty(
                            s3_key=s3.CfnBucket.S3KeyFilterProperty(
                                rules=[s3.CfnBucket.FilterRuleProperty(name="prefix", value="archives/")]
                            )
                        ),
                    )
                ]
            ),
        )
        return bucket

    def _drill_bucket(self) -> s3.Bucket:
        """Where drills restore to. It holds copies and nothing else: there is nothing to keep versions of."""
        return self._bucket("DrillBucket", versioned=False, rules=[_DRILLS_EXPIRE_AFTER])

    def _files_table(self) -> dynamodb.Table:
        """One row for each archived version, spread over 64 shards by its key's hash."""
        return self._table(
            "FilesTable",
            partition_key=dynamodb.Attribute(name="shard", type=dynamodb.AttributeType.NUMBER),
            sort_key=dynamodb.Attribute(name="sort", type=dynamodb.AttributeType.BINARY),
        )

    def _archives_table(self) -> dynamodb.Table:
        """Archives, bundles, their parts and the serial counter; parts expire."""
        return self._table_with_unfinished("ArchivesTable")

    def _restores_table(self) -> dynamodb.Table:
        """Thaws, jobs and what waits for archives; what a job came to in detail expires."""
        return self._table_with_unfinished("RestoresTable")

    def _audits_table(self) -> dynamodb.Table:
        """Audits, drills and reconciliations; hashes of sources and findings in detail expire."""
        return self._table_with_unfinished("AuditsTable")

    def _parked_table(self) -> dynamodb.Table:
        """Permanent failures that wait for a person."""
        return self._table(
            "ParkedTable", partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING)
        )

    def _pointers_table(self) -> dynamodb.Table:
        """Where each file is now, by the key that the application knows it by."""
        return self._table(
            "PointersTable", partition_key=dynamodb.Attribute(name="key", type=dynamodb.AttributeType.STRING)
        )

    def _outbox_table(self) -> dynamodb.Table:
        """Messages that SQS did not take, and those that must not overtake them."""
        return self._table(
            "OutboxTable",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
        )

    def _backfills_table(self) -> dynamodb.Table:
        """Backfills, how each is split, and how far each of its shards has come."""
        return self._table(
            "BackfillsTable",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
        )

    def _table_with_unfinished(self, construct_id: str) -> dynamodb.Table:
        """A table of several kinds of items, some of which expire, and some of which a sweep has to finish."""
        table = self._table(
            construct_id,
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


def _notify(bucket: s3.Bucket, told: Construct, notifications: s3.CfnBucket.NotificationConfigurationProperty) -> None:
    """Have `bucket` notify `told`, a queue or topic.

    S3 tries whom it is to notify when the bucket is made, so the policy that lets it has to stand before the bucket.
    For this the bucket's own property is enough; `add_event_notification` would bring a Lambda of its own with rights
    on every bucket.
    """
    resource = bucket.node.default_child
    assert isinstance(resource, s3.CfnBucket)
    resource.notification_configuration = notifications
    resource.node.add_dependency(told)

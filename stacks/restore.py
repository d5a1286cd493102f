"""The restore thread: from a request to the files in their places."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from neve.config import DRILLS, ExtractConfig, PlanRestoreConfig, SweepRestoresConfig
from stacks.functions import (
    ARCHIVES_ARE_NUMBERED,
    CHANGE_ROWS,
    READ_ROWS,
    acknowledge_objects,
    allow,
    allow_objects,
    allow_sending,
    consume,
    function,
    packed_code,
)
from stacks.outputs import output
from stacks.queues import queue_with_dead_letters
from stacks.schedules import SWEEP_RETENTION, schedule
from stacks.settings import Settings
from stacks.storage import UNFINISHED_INDEX, StorageStack
from stacks.topics import hear, topic

# PlanRestore tells Extract what is warm, and Extract asks PlanRestore for what has fallen asleep or has to stay longer.
# Lambda takes that for a runaway loop and stops it after 16 rounds unless it is told otherwise.
_ASKED_AGAIN = lambda_.RecursiveLoop.ALLOW


class RestoreStack(cdk.Stack):
    """PlanRestore, Extract and SweepRestores, each behind its queue, and the topic that tells of finished jobs."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, storage: StorageStack) -> None:
        super().__init__(scope, construct_id, description="neve: from a request to restored files")
        self._settings = settings
        self._storage = storage
        self._code = packed_code(settings.lambda_platform)

        self.requests = queue_with_dead_letters(self, "RestoreRequests", timeout_s=settings.plan_timeout_s)
        self.extract = queue_with_dead_letters(self, "Extract", timeout_s=settings.extract_timeout_s)
        self.sweep = queue_with_dead_letters(
            self, "SweepRestores", timeout_s=settings.plan_timeout_s, retention=SWEEP_RETENTION
        )
        self.restored_topic = topic(
            self,
            "RestoredTopic",
            unencrypted_because="It tells the totals of a finished job, never a file's name or content, by TLS only.",
        )
        # The body of the message is S3's event, as it would be without a topic. If it is lost all the same, the sweep
        # asks S3 about that thaw.
        hear(storage.thawed_topic, self.extract)
        self._destinations: list[s3.IBucket] = [
            storage.content_bucket,
            storage.uploads_bucket,
            *(s3.Bucket.from_bucket_name(self, f"Destination-{name}", name) for name in settings.other_destinations),
        ]
        # Drills restore into two buckets, of which one may be among those that people restore to.
        self._drill_destinations = [
            bucket
            for bucket in storage.drill_destinations
            if bucket is not storage.content_bucket and bucket.bucket_name not in settings.other_destinations
        ]
        destination_names, drill_names = (
            [bucket.bucket_name for bucket in buckets] for buckets in (self._destinations, self._drill_destinations)
        )

        self.plan_restore_function = self._plan_restore(" ".join([*destination_names, *drill_names]))
        self.extract_function = self._extract()
        self.sweep_restores_function = self._sweep_restores()
        schedule(
            self,
            "SweepRestores",
            self.sweep.queue,
            description="Has SweepRestores ask S3 about thaws whose event was lost",
        )

        output(self, "RestoreRequestsQueue", self.requests.queue.queue_url)
        output(self, "RestoreRequestsDeadLetterQueue", self.requests.dead_letters.queue_url)
        output(self, "ExtractQueue", self.extract.queue.queue_url)
        output(self, "ExtractDeadLetterQueue", self.extract.dead_letters.queue_url)
        output(self, "SweepRestoresQueue", self.sweep.queue.queue_url)
        output(self, "SweepRestoresDeadLetterQueue", self.sweep.dead_letters.queue_url)
        output(self, "PlanRestoreFunction", self.plan_restore_function.function_name)
        output(self, "ExtractFunction", self.extract_function.function_name)
        output(self, "SweepRestoresFunction", self.sweep_restores_function.function_name)
        output(self, "RestoredTopic", self.restored_topic.topic_arn)
        output(self, "DestinationBuckets", " ".join(destination_names))
        # An output cannot be empty: "-" says that there is none.
        output(self, "SiteUrls", settings.site_urls or "-")
        output(self, "UsdPerDay", str(settings.restore_usd_per_day))

    def _plan_restore(self, destination_buckets: str) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "PlanRestore",
            handler="plan_restore.handler",
            code=self._code,
            config=PlanRestoreConfig(
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=self.requests.queue.queue_url,
                extract_queue_url=self.extract.queue.queue_url,
                restored_topic=self.restored_topic.topic_arn,
                destination_buckets=destination_buckets,
                # Each of those that run at once may ask at its share of the pace.
                requests_per_s=max(1, settings.restore_requests_per_s // settings.plan_concurrency),
                usd_per_day=settings.restore_usd_per_day,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.plan_timeout_s,
            memory_mib=512,
            recursive_loop=_ASKED_AGAIN,
        )
        allow(made, ["dynamodb:BatchGetItem", "dynamodb:Query"], storage.files_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        self._allow_jobs(made)
        # A share that has ended is not added anew.
        allow(made, ["dynamodb:ConditionCheckItem"], storage.restores_table.table_arn)
        self._allow_asking_of_thaws(made)
        allow_objects(made, ["s3:RestoreObject"], storage.archive_bucket, ["archives/*"], reason=ARCHIVES_ARE_NUMBERED)
        allow_sending(made, self.extract.queue, outbox=storage.outbox_table)
        consume(made, self.requests.queue, batch_size=1, max_concurrency=settings.plan_concurrency)
        return made

    def _extract(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "Extract",
            handler="extract.handler",
            code=self._code,
            config=ExtractConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=self.requests.queue.queue_url,
                extract_queue_url=self.extract.queue.queue_url,
                restored_topic=self.restored_topic.topic_arn,
                threads=16,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.extract_timeout_s,
            # Half of its time it waits (bench part (p)); eight of the largest members that settings allow have to fit.
            memory_mib=1024,
            recursive_loop=_ASKED_AGAIN,
        )
        allow_objects(
            made,
            ["s3:GetObject", "s3:GetObjectVersion"],
            storage.archive_bucket,
            ["archives/*", "manifests/*"],
            reason=ARCHIVES_ARE_NUMBERED,
        )
        self._allow_finding_nothing(made)
        self._allow_placing(made)
        # PartiQLInsert is what BatchExecuteStatement asks for: the row of a version that Extract itself has made in the
        # content bucket, on the condition that none stands.
        allow(made, ["dynamodb:BatchGetItem", "dynamodb:PartiQLInsert"], storage.files_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        self._allow_jobs(made)
        allow_sending(made, self.requests.queue, self.extract.queue, outbox=storage.outbox_table)
        consume(made, self.extract.queue, batch_size=1, max_concurrency=settings.extract_concurrency)
        return made

    def _sweep_restores(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "SweepRestores",
            handler="sweep_restores.handler",
            code=self._code,
            config=SweepRestoresConfig(
                archive_bucket=storage.archive_bucket.bucket_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=self.requests.queue.queue_url,
                extract_queue_url=self.extract.queue.queue_url,
                sweep_queue_url=self.sweep.queue.queue_url,
                restored_topic=self.restored_topic.topic_arn,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.plan_timeout_s,
            memory_mib=512,
        )
        allow(made, ["dynamodb:Query"], f"{storage.restores_table.table_arn}/index/{UNFINISHED_INDEX}")
        self._allow_jobs(made)
        self._allow_asking_of_thaws(made)
        allow_sending(made, self.requests.queue, self.extract.queue, outbox=storage.outbox_table)
        consume(made, self.sweep.queue, batch_size=1, max_concurrency=2)
        return made

    def _allow_jobs(self, made: lambda_.Function) -> None:
        """What all three need: to change jobs and thaws, to look an archive up, to tell of a job that has ended."""
        storage = self._storage
        allow(made, ["dynamodb:GetItem"], storage.archives_table.table_arn)
        # A transaction asks for the permissions of what it is made of.
        allow(made, [*READ_ROWS, *CHANGE_ROWS], storage.restores_table.table_arn)
        allow(made, ["sns:Publish"], self.restored_topic.topic_arn)

    def _allow_asking_of_thaws(self, made: lambda_.Function) -> None:
        """HEAD of an archive, by version, which S3 counts as reading it."""
        allow_objects(
            made,
            ["s3:GetObject", "s3:GetObjectVersion"],
            self._storage.archive_bucket,
            ["archives/*"],
            reason=ARCHIVES_ARE_NUMBERED,
        )
        self._allow_finding_nothing(made)

    def _allow_finding_nothing(self, made: lambda_.Function) -> None:
        """Without the right to list, S3 answers 403 for an archive that is gone."""
        allow(made, ["s3:ListBucket"], self._storage.archive_bucket.bucket_arn)

    def _allow_placing(self, made: lambda_.Function) -> None:
        """Write where the settings allow, and nowhere else: what stands there is looked at first."""
        # One statement for all buckets: a role's policies may have 10,240 characters.
        allow(
            made,
            [
                "s3:PutObject",
                "s3:PutObjectTagging",
                "s3:GetObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            *(bucket.arn_for_objects("*") for bucket in self._destinations),
            *(bucket.arn_for_objects(f"{DRILLS}*") for bucket in self._drill_destinations),
        )
        allow(
            made,
            ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            *(bucket.bucket_arn for bucket in (*self._destinations, *self._drill_destinations)),
        )
        assert made.role is not None
        for bucket in self._destinations:
            acknowledge_objects(
                made.role, bucket, ["*"], reason="A file may come back under any key of the buckets that are allowed."
            )
        for bucket in self._drill_destinations:
            acknowledge_objects(
                made.role, bucket, [f"{DRILLS}*"], reason="Each drill restores into a folder of its own."
            )
        # The settings may name any bucket, by mistake even this one.
        made.add_to_role_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=["s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"],
                resources=[self._storage.archive_bucket.arn_for_objects("*")],
            )
        )

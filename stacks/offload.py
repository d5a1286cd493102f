"""The offload thread: from an upload to the content bucket, and the upload let go; and the relay of the outbox."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from neve.config import CopyUploadConfig, RelayConfig, ReleaseUploadConfig
from stacks.archive import ArchiveStack
from stacks.audit import AuditStack
from stacks.functions import allow, allow_objects, allow_sending, consume, function, packed_code
from stacks.outputs import output
from stacks.queues import QueueWithDeadLetters, queue_with_dead_letters
from stacks.restore import RestoreStack
from stacks.schedules import SWEEP_RETENTION, schedule
from stacks.settings import Settings
from stacks.storage import StorageStack

_ANY_UPLOAD = "The application may call its files as it likes."

# What a host of the edge agent does with an announcement may take that long: hash, upload and prove a large file.
_ANNOUNCED_FOR_S = 300


# A copy in parts that outlasts one invocation asks for the next. Lambda takes that for a runaway loop and stops it
# after 16 rounds unless it is told otherwise; a copy ends when its parts do.
_GOES_ON = lambda_.RecursiveLoop.ALLOW


class OffloadStack(cdk.Stack):
    """CopyUpload, ReleaseUpload and Relay, each behind its queue, and the queue of what hosts announce."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        storage: StorageStack,
        archive: ArchiveStack,
        restore: RestoreStack,
        audit: AuditStack,
    ) -> None:
        super().__init__(scope, construct_id, description="neve: from an upload to the content bucket; the outbox")
        self._settings = settings
        self._storage = storage
        self._code = packed_code(settings.lambda_platform)

        self.release = queue_with_dead_letters(self, "Release", timeout_s=settings.release_timeout_s)
        # No function reads this one: the agents of several hosts do, which have a folder in common.
        self.announcements = queue_with_dead_letters(self, "Announcements", timeout_s=_ANNOUNCED_FOR_S)
        self.relay = queue_with_dead_letters(
            self, "Relay", timeout_s=settings.relay_timeout_s, retention=SWEEP_RETENTION
        )
        self.copy_upload_function = self._copy_upload()
        self.release_upload_function = self._release_upload()
        # All queues that functions send to.
        self.relay_function = self._relay(
            storage.uploads,
            storage.collect,
            self.release,
            archive.bundles,
            archive.large,
            archive.backfill,
            archive.backfill_bundles,
            archive.backfill_large,
            restore.requests,
            restore.extract,
            audit.audits,
            audit.verify,
            audit.reconciles,
        )
        schedule(
            self,
            "Relay",
            self.relay.queue,
            expression="rate(1 minute)",
            message="relay",
            description="Has Relay send what waits in the outbox",
        )

        output(self, "ReleaseQueue", self.release.queue.queue_url)
        output(self, "ReleaseDeadLetterQueue", self.release.dead_letters.queue_url)
        output(self, "AnnouncementsQueue", self.announcements.queue.queue_url)
        output(self, "AnnouncementsDeadLetterQueue", self.announcements.dead_letters.queue_url)
        output(self, "RelayQueue", self.relay.queue.queue_url)
        output(self, "RelayDeadLetterQueue", self.relay.dead_letters.queue_url)
        output(self, "CopyUploadFunction", self.copy_upload_function.function_name)
        output(self, "ReleaseUploadFunction", self.release_upload_function.function_name)
        output(self, "RelayFunction", self.relay_function.function_name)
        output(self, "KeyLayout", settings.key_layout)
        output(self, "AtticDays", str(settings.attic_days))

    def _copy_upload(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "CopyUpload",
            handler="copy_upload.handler",
            code=self._code,
            config=CopyUploadConfig(
                uploads_bucket=storage.uploads_bucket.bucket_name,
                content_bucket=storage.content_bucket.bucket_name,
                pointers_table=storage.pointers_table.table_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                uploads_queue_url=storage.uploads.queue.queue_url,
                release_queue_url=self.release.queue.queue_url,
                key_layout=settings.key_layout,
                release_after_s=settings.release_after_s,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.uploads_timeout_s,
            # S3 makes the copies and it waits for them: bench part (p).
            memory_mib=256,
            recursive_loop=_GOES_ON,
        )
        for bucket in (storage.uploads_bucket, storage.content_bucket):
            allow_objects(
                made,
                ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:GetObjectVersionTagging"],
                bucket,
                ["*"],
                reason=_ANY_UPLOAD,
            )
            # Without the right to list, S3 answers 403 for what is not there.
            allow(made, ["s3:ListBucket", "s3:ListBucketVersions"], bucket.bucket_arn)
        allow_objects(
            made,
            ["s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            storage.content_bucket,
            ["*"],
            reason=_ANY_UPLOAD,
        )
        # A copy in parts goes on where the last invocation ended.
        allow(made, ["s3:ListBucketMultipartUploads"], storage.content_bucket.bucket_arn)
        allow(made, ["dynamodb:GetItem", "dynamodb:PutItem"], storage.pointers_table.table_arn)
        # Whether what stands in a file's place came from an archive: then it stays.
        allow(made, ["dynamodb:BatchGetItem"], storage.files_table.table_arn)
        allow(made, ["dynamodb:GetItem"], storage.archives_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        allow_sending(made, storage.uploads.queue, self.release.queue, outbox=storage.outbox_table)
        consume(made, storage.uploads.queue, batch_size=10, max_concurrency=settings.uploads_concurrency)
        return made

    def _release_upload(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "ReleaseUpload",
            handler="release_upload.handler",
            code=self._code,
            config=ReleaseUploadConfig(
                uploads_bucket=storage.uploads_bucket.bucket_name,
                content_bucket=storage.content_bucket.bucket_name,
                pointers_table=storage.pointers_table.table_name,
                parked_table=storage.parked_table.table_name,
                release_queue_url=self.release.queue.queue_url,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.release_timeout_s,
            memory_mib=256,
        )
        allow_objects(
            made,
            ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectVersionTagging"],
            storage.content_bucket,
            ["*"],
            reason=_ANY_UPLOAD,
        )
        allow(made, ["s3:ListBucket", "s3:ListBucketVersions"], storage.content_bucket.bucket_arn)
        # It may hide an object behind a marker, on a condition for which S3 has to read it. To take a version away is
        # another action, which no function may do.
        allow_objects(made, ["s3:GetObject", "s3:DeleteObject"], storage.uploads_bucket, ["*"], reason=_ANY_UPLOAD)
        allow(made, ["s3:ListBucket"], storage.uploads_bucket.bucket_arn)
        allow(made, ["dynamodb:GetItem"], storage.pointers_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        consume(made, self.release.queue, batch_size=10, max_concurrency=5)
        return made

    def _relay(self, *queues: QueueWithDeadLetters) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "Relay",
            handler="relay.handler",
            code=self._code,
            config=RelayConfig(
                outbox_table=storage.outbox_table.table_name,
                parked_table=storage.parked_table.table_name,
                relay_queue_url=self.relay.queue.queue_url,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.relay_timeout_s,
            # After an outage it has to be faster than what comes in meanwhile: with memory comes more of a processor.
            memory_mib=1024,
        )
        allow(made, ["dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:DeleteItem"], storage.outbox_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        allow(made, ["sqs:SendMessage"], *(each.queue.queue_arn for each in queues))
        consume(made, self.relay.queue, batch_size=1, max_concurrency=2)
        return made

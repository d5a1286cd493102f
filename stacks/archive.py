"""The archive thread: from the event of an upload, or a backfill's announcement, to its archive in Glacier."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from neve.config import BackfillConfig, CollectConfig, CopyLargeConfig, SweepConfig, WriteArchiveConfig
from stacks.backfill import backfill_machine
from stacks.functions import (
    ARCHIVES_ARE_NUMBERED,
    CHANGE_ROWS,
    READ_ROWS,
    allow,
    allow_inventory,
    allow_objects,
    allow_sending,
    consume,
    function,
    packed_code,
)
from stacks.outputs import output
from stacks.queues import QueueWithDeadLetters, queue_with_dead_letters
from stacks.schedules import SWEEP_RETENTION, schedule
from stacks.settings import Settings
from stacks.storage import UNFINISHED_INDEX, StorageStack

# What WriteArchive cannot read for now it sends to Collect again, for a day at most. Lambda takes that for a runaway
# loop and stops it after 16 rounds unless it is told otherwise.
_COLLECTED_AGAIN = lambda_.RecursiveLoop.ALLOW


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A lane, `live` or `backfill`: its queues, each before a function of its own, and how many of each run at once."""

    lane: str
    collect: QueueWithDeadLetters
    bundles: QueueWithDeadLetters
    large: QueueWithDeadLetters
    collect_timeout_s: int
    collect_batch: int
    collect_window_s: int
    collects: int
    writes: int
    copies: int


class ArchiveStack(cdk.Stack):
    """Collect, WriteArchive and CopyLarge for each lane, and Sweep, each behind its queue.

    What was there before goes by queues and functions of its own, so that no upload waits behind it. They are the same
    functions with other settings, and count and log as the live ones do.
    """

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, storage: StorageStack) -> None:
        super().__init__(scope, construct_id, description="neve: from an upload's event to its archive")
        self._settings = settings
        self._storage = storage
        self._code = packed_code(settings.lambda_platform)

        self.bundles = queue_with_dead_letters(self, "Bundles", timeout_s=settings.write_timeout_s)
        self.large = queue_with_dead_letters(self, "Large", timeout_s=settings.copy_timeout_s)
        self.backfill = queue_with_dead_letters(self, "Backfill", timeout_s=settings.write_timeout_s)
        self.backfill_bundles = queue_with_dead_letters(self, "BackfillBundles", timeout_s=settings.write_timeout_s)
        self.backfill_large = queue_with_dead_letters(self, "BackfillLarge", timeout_s=settings.copy_timeout_s)
        self.sweep = queue_with_dead_letters(
            self, "Sweep", timeout_s=settings.sweep_timeout_s, retention=SWEEP_RETENTION
        )
        live = _Way(
            lane="live",
            collect=storage.collect,
            bundles=self.bundles,
            large=self.large,
            collect_timeout_s=settings.collect_timeout_s,
            collect_batch=settings.collect_batch,
            collect_window_s=settings.collect_window_s,
            collects=settings.collect_concurrency,
            writes=settings.write_concurrency,
            copies=settings.copy_concurrency,
        )
        self.collect_function = self._collect("Collect", live)
        self.write_archive_function = self._write_archive("WriteArchive", live)
        self.copy_large_function = self._copy_large("CopyLarge", live)
        backfill = _Way(
            lane="backfill",
            collect=self.backfill,
            bundles=self.backfill_bundles,
            large=self.backfill_large,
            # A message announces up to some thousand versions. Of large ones each takes three requests: a minute might
            # not do. Of others two invocations note more in a second than the writers archive.
            collect_timeout_s=settings.write_timeout_s,
            collect_batch=1,
            collect_window_s=0,
            collects=settings.backfill_collect_concurrency,
            writes=settings.backfill_write_concurrency,
            copies=settings.backfill_write_concurrency,
        )
        self.collect_backfill_function = self._collect("CollectBackfill", backfill)
        self.write_backfill_function = self._write_archive("WriteBackfill", backfill)
        self.copy_backfill_function = self._copy_large("CopyBackfill", backfill)
        self.backfill_function = self._backfill()
        self.backfill_machine = backfill_machine(
            self, self.backfill_function, shards_at_once=settings.backfill_shards_at_once
        )
        self.sweep_function = self._sweep()
        schedule(
            self,
            "Sweep",
            self.sweep.queue,
            description="Has Sweep look for archives that a lost message left unfinished",
        )

        output(self, "BundlesQueue", self.bundles.queue.queue_url)
        output(self, "BundlesDeadLetterQueue", self.bundles.dead_letters.queue_url)
        output(self, "LargeQueue", self.large.queue.queue_url)
        output(self, "LargeDeadLetterQueue", self.large.dead_letters.queue_url)
        output(self, "BackfillQueue", self.backfill.queue.queue_url)
        output(self, "BackfillDeadLetterQueue", self.backfill.dead_letters.queue_url)
        output(self, "BackfillBundlesQueue", self.backfill_bundles.queue.queue_url)
        output(self, "BackfillBundlesDeadLetterQueue", self.backfill_bundles.dead_letters.queue_url)
        output(self, "BackfillLargeQueue", self.backfill_large.queue.queue_url)
        output(self, "BackfillLargeDeadLetterQueue", self.backfill_large.dead_letters.queue_url)
        output(self, "SweepQueue", self.sweep.queue.queue_url)
        output(self, "SweepDeadLetterQueue", self.sweep.dead_letters.queue_url)
        output(self, "CollectFunction", self.collect_function.function_name)
        output(self, "WriteArchiveFunction", self.write_archive_function.function_name)
        output(self, "CopyLargeFunction", self.copy_large_function.function_name)
        output(self, "CollectBackfillFunction", self.collect_backfill_function.function_name)
        output(self, "WriteBackfillFunction", self.write_backfill_function.function_name)
        output(self, "CopyBackfillFunction", self.copy_backfill_function.function_name)
        output(self, "BackfillFunction", self.backfill_function.function_name)
        output(self, "BackfillStateMachine", self.backfill_machine.state_machine_arn)
        output(self, "BackfillWriteConcurrency", str(settings.backfill_write_concurrency))
        output(self, "SweepFunction", self.sweep_function.function_name)
        output(self, "StorageClass", settings.storage_class)
        output(self, "TargetBytes", str(settings.target_bytes))
        output(self, "MaxAgeSeconds", str(settings.max_age_s))

    def _collect(self, name: str, way: _Way) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            name,
            service="Collect",
            handler="collect.handler",
            code=self._code,
            config=CollectConfig(
                lane=way.lane,
                content_bucket=storage.content_bucket.bucket_name,
                archives_table=storage.archives_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                collect_queue_url=way.collect.queue.queue_url,
                bundles_queue_url=way.bundles.queue.queue_url,
                large_queue_url=way.large.queue.queue_url,
                target_bytes=settings.target_bytes,
                max_members=settings.max_members,
                max_age_s=settings.max_age_s,
            ),
            platform=settings.lambda_platform,
            timeout_s=way.collect_timeout_s,
            # It waits for DynamoDB: bench part (p) finds that more of a processor makes it dearer, not faster.
            memory_mib=256,
            recursive_loop=_COLLECTED_AGAIN,
        )
        allow(made, ["dynamodb:GetItem", *CHANGE_ROWS], storage.archives_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)
        allow_sending(made, way.bundles.queue, way.large.queue, outbox=storage.outbox_table)
        consume(
            made,
            way.collect.queue,
            batch_size=way.collect_batch,
            window_s=way.collect_window_s,
            max_concurrency=way.collects,
        )
        return made

    def _write_archive(self, name: str, way: _Way) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            name,
            service="WriteArchive",
            handler="write_archive.handler",
            code=self._code,
            config=WriteArchiveConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                bundles_queue_url=way.bundles.queue.queue_url,
                collect_queue_url=way.collect.queue.queue_url,
                storage_class=settings.storage_class,
                fetch_threads=settings.fetch_threads,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.write_timeout_s,
            # Lambda gives processor time with memory, 1,769 MB are one processor. Half of its time it waits; with less
            # (bench part (p)) the largest bundles that settings allow would not fit.
            memory_mib=1024,
            recursive_loop=_COLLECTED_AGAIN,
        )
        self._allow_archiving(made)
        allow_sending(made, way.bundles.queue, way.collect.queue, outbox=storage.outbox_table)
        consume(made, way.bundles.queue, batch_size=1, max_concurrency=way.writes)
        return made

    def _copy_large(self, name: str, way: _Way) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            name,
            service="CopyLarge",
            handler="copy_large.handler",
            code=self._code,
            config=CopyLargeConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                collect_queue_url=way.collect.queue.queue_url,
                large_queue_url=way.large.queue.queue_url,
                storage_class=settings.storage_class,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.copy_timeout_s,
            memory_mib=512,
            # A copy that outlasts one invocation sends itself its next message. Lambda takes that for a runaway loop
            # and stops it after 16 rounds unless it is told otherwise; a copy ends when its parts do.
            recursive_loop=lambda_.RecursiveLoop.ALLOW,
        )
        self._allow_archiving(made)
        allow_objects(
            made,
            ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            storage.archive_bucket,
            ["archives/*"],
            reason=ARCHIVES_ARE_NUMBERED,
        )
        allow_sending(made, way.large.queue, way.collect.queue, outbox=storage.outbox_table)
        consume(made, way.large.queue, batch_size=1, max_concurrency=way.copies)
        return made

    def _backfill(self) -> lambda_.Function:
        """The function that announces what was there before. It has no queue: the state machine calls it."""
        settings, storage = self._settings, self._storage
        lane = (self.backfill, self.backfill_bundles, self.backfill_large)
        made = function(
            self,
            "Backfill",
            handler="backfill.handler",
            code=self._code,
            config=BackfillConfig(
                content_bucket=storage.content_bucket.bucket_name,
                backfills_table=storage.backfills_table.table_name,
                inventory=settings.inventory,
                backfill_queue_url=self.backfill.queue.queue_url,
                backfill_bundles_queue_url=self.backfill_bundles.queue.queue_url,
                backfill_large_queue_url=self.backfill_large.queue.queue_url,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.backfill_timeout_s,
            memory_mib=512,
        )
        allow(made, ["s3:ListBucketVersions"], storage.content_bucket.bucket_arn)
        allow_inventory(made, settings)
        allow(made, [*READ_ROWS, "dynamodb:PutItem", "dynamodb:UpdateItem"], storage.backfills_table.table_arn)
        # It needs no outbox: what it could not send, it sends at its next try.
        allow(made, ["sqs:SendMessage"], self.backfill.queue.queue_arn)
        allow(made, ["sqs:GetQueueAttributes"], *(each.queue.queue_arn for each in lane))
        return made

    def _sweep(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "Sweep",
            handler="sweep.handler",
            code=self._code,
            config=SweepConfig(
                archives_table=storage.archives_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                bundles_queue_url=self.bundles.queue.queue_url,
                large_queue_url=self.large.queue.queue_url,
                backfill_bundles_queue_url=self.backfill_bundles.queue.queue_url,
                backfill_large_queue_url=self.backfill_large.queue.queue_url,
                sweep_queue_url=self.sweep.queue.queue_url,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.sweep_timeout_s,
            memory_mib=256,
        )
        allow(made, ["dynamodb:Query"], f"{storage.archives_table.table_arn}/index/{UNFINISHED_INDEX}")
        allow(made, ["dynamodb:GetItem"], storage.archives_table.table_arn)
        lanes = (self.bundles, self.large, self.backfill_bundles, self.backfill_large)
        allow_sending(made, *(each.queue for each in lanes), outbox=storage.outbox_table)
        consume(made, self.sweep.queue, batch_size=1, max_concurrency=2)
        return made

    def _allow_archiving(self, made: lambda_.Function) -> None:
        """What both ways of making an archive need: read the content, write the archive, note it."""
        storage = self._storage
        allow_objects(
            made,
            ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:GetObjectVersionTagging"],
            storage.content_bucket,
            ["*"],
            reason="Any object of the content bucket may have to be archived.",
        )
        # Without the right to list, S3 answers 403 for a key that does not exist, and "gone" would read as "denied".
        # A condition on the prefix would undo this: the check behind a HEAD or GET carries none.
        allow(made, ["s3:ListBucket", "s3:ListBucketVersions"], storage.content_bucket.bucket_arn)
        allow(made, ["s3:ListBucket"], storage.archive_bucket.bucket_arn)
        allow_objects(
            made,
            ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion"],
            storage.archive_bucket,
            ["archives/*", "manifests/*"],
            reason=ARCHIVES_ARE_NUMBERED,
        )
        # PartiQLInsert is what BatchExecuteStatement asks for; it writes 25 rows, each on its own condition. A repair
        # puts rows in the place of those that name the damaged archive.
        allow(
            made,
            [*READ_ROWS, "dynamodb:BatchGetItem", "dynamodb:PartiQLInsert", "dynamodb:PutItem"],
            storage.files_table.table_arn,
        )
        allow(made, [*READ_ROWS, *CHANGE_ROWS], storage.archives_table.table_arn)
        allow(made, ["dynamodb:PutItem"], storage.parked_table.table_arn)

"""The proof thread: archives held against their sources, restores rehearsed, the index held against the buckets."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from neve.config import DRILLS, DrillConfig, ReconcileConfig, StartAuditConfig, VerifyAuditConfig
from stacks.archive import ArchiveStack
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
from stacks.queues import queue_with_dead_letters
from stacks.restore import RestoreStack
from stacks.schedules import schedule
from stacks.settings import Settings
from stacks.storage import UNFINISHED_INDEX, StorageStack
from stacks.topics import hear

_STARTERS, _VERIFIERS = 5, 10
_THREADS = 16

# StartAudit sends itself a message for each archive of a run, VerifyAudit has it see to the thaw again, and Reconcile
# goes on with a shard in another invocation. Lambda takes that for a runaway loop and stops it after 16 rounds unless
# it is told otherwise; audits are given up after 7 days, and shards end.
_ASKED_AGAIN = lambda_.RecursiveLoop.ALLOW

# Lambda gives processor time with memory; 1,769 MB is one whole processor.
_WHOLE_PROCESSOR_MIB = 1769


class AuditStack(cdk.Stack):
    """StartAudit, VerifyAudit, Drill and Reconcile, each behind its queue, and the schedules that ask for them."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        storage: StorageStack,
        archive: ArchiveStack,
        restore: RestoreStack,
    ) -> None:
        super().__init__(scope, construct_id, description="neve: audits, drills, reconciliation")
        self._settings = settings
        self._storage = storage
        self._archive = archive
        self._restore = restore
        self._code = packed_code(settings.lambda_platform)

        self.audits = queue_with_dead_letters(self, "Audits", timeout_s=settings.audit_timeout_s)
        self.verify = queue_with_dead_letters(self, "VerifyAudits", timeout_s=settings.audit_timeout_s)
        self.drills = queue_with_dead_letters(self, "Drills", timeout_s=settings.drill_timeout_s)
        self.reconciles = queue_with_dead_letters(self, "Reconciles", timeout_s=settings.reconcile_timeout_s)
        # As Extract does: whoever waits for an archive is told by a queue of its own.
        hear(storage.thawed_topic, self.verify)
        hear(restore.restored_topic, self.drills)

        self.start_audit_function = self._start_audit()
        self.verify_audit_function = self._verify_audit()
        self.drill_function = self._drill()
        self.reconcile_function = self._reconcile()
        self._schedules()

        for name, queue in {
            "Audits": self.audits,
            "VerifyAudits": self.verify,
            "Drills": self.drills,
            "Reconciles": self.reconciles,
        }.items():
            output(self, f"{name}Queue", queue.queue.queue_url)
            output(self, f"{name}DeadLetterQueue", queue.dead_letters.queue_url)
        output(self, "StartAuditFunction", self.start_audit_function.function_name)
        output(self, "VerifyAuditFunction", self.verify_audit_function.function_name)
        output(self, "DrillFunction", self.drill_function.function_name)
        output(self, "ReconcileFunction", self.reconcile_function.function_name)
        output(self, "AuditEveryHours", str(settings.audit_every_h))
        output(self, "AuditHorizonDays", str(settings.audit_horizon_days))
        output(self, "AuditBudgetPercent", str(settings.audit_budget_percent))
        output(self, "AuditBudgetUsd", str(settings.audit_budget_usd))
        output(self, "AuditTier", settings.audit_tier)

    def _schedules(self) -> None:
        settings = self._settings
        if settings.audit_every_h:
            hours = "1 hour" if settings.audit_every_h == 1 else f"{settings.audit_every_h} hours"
            schedule(
                self,
                "Audits",
                self.audits.queue,
                expression=f"rate({hours})",
                message="audit",
                description="Has StartAudit draw which archives are audited",
            )
        if settings.drill_every_month == "yes":
            schedule(
                self,
                "Drills",
                self.drills.queue,
                expression="cron(0 4 1 * ? *)",
                message="start",
                description="Has Drill draw files and have them restored",
            )
        if settings.reconcile_every_week == "yes":
            schedule(
                self,
                "Reconciles",
                self.reconciles.queue,
                expression="cron(0 3 ? * SUN *)",
                message="reconcile",
                description="Has Reconcile hold buckets and index against each other",
            )
        # These go on without the others: a person may start anything by hand.
        for name, queue, description in (
            ("AuditsSweep", self.audits, "Has StartAudit look after audits that stand still"),
            ("DrillsSweep", self.drills, "Has Drill look after drills that stand still, or are late"),
            ("ReconcilesSweep", self.reconciles, "Has Reconcile look after passes that stand still"),
        ):
            schedule(self, name, queue.queue, description=description)

    def _start_audit(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "StartAudit",
            handler="start_audit.handler",
            code=self._code,
            config=StartAuditConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                audits_table=storage.audits_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                audits_queue_url=self.audits.queue.queue_url,
                verify_queue_url=self.verify.queue.queue_url,
                alerts_topic=storage.alerts.topic_arn,
                tier=settings.audit_tier,
                source=settings.audit_source,
                horizon_days=settings.audit_horizon_days,
                budget_percent=settings.audit_budget_percent,
                budget_usd=settings.audit_budget_usd,
                requests_per_s=max(1, settings.restore_requests_per_s // _STARTERS),
                threads=_THREADS,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.audit_timeout_s,
            memory_mib=_WHOLE_PROCESSOR_MIB,
            recursive_loop=_ASKED_AGAIN,
        )
        self._allow_seeing_sources(made)
        self._allow_thawing(made)
        allow(made, READ_ROWS, storage.archives_table.table_arn)
        # A transaction asks for the permissions of what it is made of. An audit that has ended is not begun anew.
        allow(made, [*READ_ROWS, *CHANGE_ROWS, "dynamodb:ConditionCheckItem"], storage.audits_table.table_arn)
        self._allow_sweeping(made)
        self._allow_telling(made)
        allow_sending(made, self.audits.queue, self.verify.queue, outbox=storage.outbox_table)
        consume(made, self.audits.queue, batch_size=1, max_concurrency=_STARTERS)
        return made

    def _verify_audit(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "VerifyAudit",
            handler="verify_audit.handler",
            code=self._code,
            config=VerifyAuditConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                audits_table=storage.audits_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=self._restore.requests.queue.queue_url,
                audits_queue_url=self.audits.queue.queue_url,
                verify_queue_url=self.verify.queue.queue_url,
                bundles_queue_url=self._archive.bundles.queue.queue_url,
                large_queue_url=self._archive.large.queue.queue_url,
                alerts_topic=storage.alerts.topic_arn,
                repair=settings.audit_repair,
                requests_per_s=max(1, settings.restore_requests_per_s // _VERIFIERS),
                threads=_THREADS,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.audit_timeout_s,
            memory_mib=_WHOLE_PROCESSOR_MIB,
            recursive_loop=_ASKED_AGAIN,
        )
        self._allow_seeing_sources(made)
        # A repair may need another archive, which has the same bytes; a thaw that S3 knows nothing of is forgotten.
        self._allow_thawing(made)
        allow(made, ["dynamodb:DeleteItem"], storage.restores_table.table_arn)
        # A repair of the index inserts rows that are missing, and puts right those that contradict all the rest.
        allow(
            made,
            ["dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:PartiQLInsert"],
            storage.files_table.table_arn,
        )
        # A repair of an archive is a bundle, with its parts; one that nothing needs any more is marked.
        allow(made, ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"], storage.archives_table.table_arn)
        allow(made, [*READ_ROWS, *CHANGE_ROWS], storage.audits_table.table_arn)
        self._allow_telling(made)
        allow_sending(
            made,
            self.audits.queue,
            self.verify.queue,
            self._restore.requests.queue,
            self._archive.bundles.queue,
            self._archive.large.queue,
            outbox=storage.outbox_table,
        )
        consume(made, self.verify.queue, batch_size=1, max_concurrency=_VERIFIERS)
        return made

    def _drill(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "Drill",
            handler="drill.handler",
            code=self._code,
            config=DrillConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                restores_table=storage.restores_table.table_name,
                audits_table=storage.audits_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                requests_queue_url=self._restore.requests.queue.queue_url,
                drills_queue_url=self.drills.queue.queue_url,
                alerts_topic=storage.alerts.topic_arn,
                drill_buckets=" ".join(bucket.bucket_name for bucket in storage.drill_destinations),
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.drill_timeout_s,
            memory_mib=_WHOLE_PROCESSOR_MIB,
        )
        self._allow_seeing_sources(made)
        allow_objects(made, ["s3:GetObject"], storage.archive_bucket, ["manifests/*"], reason=ARCHIVES_ARE_NUMBERED)
        allow(made, ["s3:ListBucket"], storage.archive_bucket.bucket_arn)
        for bucket in storage.drill_destinations:
            # The one place in which anything of neve's may delete objects.
            allow_objects(
                made,
                ["s3:GetObject", "s3:DeleteObjectVersion"],
                bucket,
                [f"{DRILLS}*"],
                reason="Each drill restores into a folder of its own, and deletes what it has compared.",
            )
            allow(made, ["s3:ListBucket", "s3:ListBucketVersions"], bucket.bucket_arn)
        allow(made, ["dynamodb:Query"], storage.archives_table.table_arn)
        allow(made, ["dynamodb:BatchGetItem"], storage.files_table.table_arn)
        allow(made, READ_ROWS, storage.restores_table.table_arn)
        allow(made, [*READ_ROWS, "dynamodb:PutItem"], storage.audits_table.table_arn)
        self._allow_sweeping(made)
        self._allow_telling(made)
        allow_sending(made, self._restore.requests.queue, outbox=storage.outbox_table)
        consume(made, self.drills.queue, batch_size=1, max_concurrency=2)
        return made

    def _reconcile(self) -> lambda_.Function:
        settings, storage = self._settings, self._storage
        made = function(
            self,
            "Reconcile",
            handler="reconcile.handler",
            code=self._code,
            config=ReconcileConfig(
                content_bucket=storage.content_bucket.bucket_name,
                archive_bucket=storage.archive_bucket.bucket_name,
                files_table=storage.files_table.table_name,
                archives_table=storage.archives_table.table_name,
                audits_table=storage.audits_table.table_name,
                parked_table=storage.parked_table.table_name,
                outbox_table=storage.outbox_table.table_name,
                # An attached bucket may have very many versions without a row: they go behind new uploads, not before.
                collect_queue_url=self._archive.backfill.queue.queue_url,
                reconciles_queue_url=self.reconciles.queue.queue_url,
                alerts_topic=storage.alerts.topic_arn,
                inventory=settings.inventory,
                grace_h=settings.reconcile_grace_h,
                threads=_THREADS,
            ),
            platform=settings.lambda_platform,
            timeout_s=settings.reconcile_timeout_s,
            memory_mib=_WHOLE_PROCESSOR_MIB,
            recursive_loop=_ASKED_AGAIN,
        )
        self._allow_seeing_sources(made)
        self._allow_reading_archives(made)
        # A row that is missing while its archive has the file is inserted; one that names a superseded archive moves.
        allow(
            made,
            ["dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PartiQLInsert", "dynamodb:PutItem"],
            storage.files_table.table_arn,
        )
        allow(made, READ_ROWS, storage.archives_table.table_arn)
        allow(made, ["dynamodb:BatchGetItem"], storage.parked_table.table_arn)
        allow(made, [*READ_ROWS, "dynamodb:PutItem", "dynamodb:UpdateItem"], storage.audits_table.table_arn)
        self._allow_sweeping(made)
        self._allow_telling(made)
        allow_inventory(made, settings)
        allow_sending(made, self._archive.backfill.queue, self.reconciles.queue, outbox=storage.outbox_table)
        consume(made, self.reconciles.queue, batch_size=1, max_concurrency=5)
        return made

    def _allow_seeing_sources(self, made: lambda_.Function) -> None:
        """Any version of the content bucket, with what S3 says of it.

        Without the right to list, S3 answers 403 for one that is gone, and "gone" would read as "denied".
        """
        content_bucket = self._storage.content_bucket
        allow_objects(
            made,
            ["s3:GetObjectVersion", "s3:GetObjectVersionTagging"],
            content_bucket,
            ["*"],
            reason="Any version of the content bucket may be the source of what is audited.",
        )
        allow(made, ["s3:ListBucket", "s3:ListBucketVersions"], content_bucket.bucket_arn)

    def _allow_reading_archives(self, made: lambda_.Function) -> None:
        """Archives and manifests. Without the right to list, S3 answers 403 for one that is gone."""
        archive_bucket = self._storage.archive_bucket
        allow_objects(
            made,
            ["s3:GetObject", "s3:GetObjectVersion"],
            archive_bucket,
            ["archives/*", "manifests/*"],
            reason=ARCHIVES_ARE_NUMBERED,
        )
        allow(made, ["s3:ListBucket"], archive_bucket.bucket_arn)

    def _allow_thawing(self, made: lambda_.Function) -> None:
        """Read archives, and have them thawed by the same claims as restores."""
        storage = self._storage
        self._allow_reading_archives(made)
        allow_objects(made, ["s3:RestoreObject"], storage.archive_bucket, ["archives/*"], reason=ARCHIVES_ARE_NUMBERED)
        allow(
            made,
            ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            storage.restores_table.table_arn,
        )

    def _allow_sweeping(self, made: lambda_.Function) -> None:
        """Find what stands still."""
        allow(made, ["dynamodb:Query"], f"{self._storage.audits_table.table_arn}/index/{UNFINISHED_INDEX}")

    def _allow_telling(self, made: lambda_.Function) -> None:
        """Tell people what was found, and park what nobody can make anything of."""
        allow(made, ["sns:Publish"], self._storage.alerts.topic_arn)
        allow(made, ["dynamodb:PutItem"], self._storage.parked_table.table_arn)

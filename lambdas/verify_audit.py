"""Function VerifyAudit: a thawed archive is held against its manifest and its sources."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients, crc64
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.audits_table import DynamoAudits
from neve.aws.files_table import DynamoFiles
from neve.aws.glacier import S3ArchiveReader, S3Glacier
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.aws.sources import S3Sources
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.config import VerifyAuditConfig, read
from neve.domain.audit import Report
from neve.domain.pace import Pace
from neve.domain.restore import parse_thawed
from neve.domain.verdict import DISCREPANCIES, Verdict
from neve.errors import EventInvalid
from neve.flows.audit_runs import RunEnder
from neve.flows.repair import Repairer
from neve.flows.thaw import Thawer
from neve.flows.verify_audit import AuditVerifier
from neve.flows.witness import Crc, Witness


@cache
def config() -> VerifyAuditConfig:
    """The settings of this function."""
    return read(VerifyAuditConfig, os.environ)


@cache
def verifier() -> AuditVerifier:
    """The use case on AWS."""
    settings = config()
    audits = DynamoAudits(clients.dynamodb(), settings.audits_table)
    thaws = DynamoThaws(clients.dynamodb(), settings.restores_table)
    return AuditVerifier(
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, ""),
        files=DynamoFiles(clients.dynamodb(), settings.files_table),
        audits=audits,
        # Only what StartAudit could not read is looked at here.
        witness=Witness(sources=S3Sources(clients.s3(), settings.content_bucket), read=True, threads=settings.threads),
        crc=Crc(advance=crc64.crc64nvme, text=crc64.stated, clock=now),
        reader=S3ArchiveReader(clients.s3(), settings.archive_bucket),
        thaws=thaws,
        thawer=Thawer(
            thaws=thaws,
            glacier=S3Glacier(clients.s3(), settings.archive_bucket),
            extract_queue=sender(settings.verify_queue_url, settings.outbox_table),
            pace=Pace(per_s=settings.requests_per_s, monotonic=time.monotonic, sleep=time.sleep),
            cap_micro_usd=0,
            clock=now,
            counted=False,
        ),
        repairer=Repairer(
            bundles=DynamoBundles(clients.dynamodb(), settings.archives_table),
            bundles_queue=sender(settings.bundles_queue_url, settings.outbox_table),
            large_queue=sender(settings.large_queue_url, settings.outbox_table),
        ),
        requests_queue=sender(settings.requests_queue_url, settings.outbox_table),
        audits_queue=sender(settings.audits_queue_url, settings.outbox_table),
        ender=RunEnder(audits=audits, alerts=SnsTopic(clients.sns(), settings.alerts_topic), clock=now),
        automatic=settings.repair == "automatic",
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Verify the archives that the messages say are thawed, if an audit waits for them."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def verify(record: SQSRecord) -> None:
        try:
            thawed = parse_thawed(record.body, config().archive_bucket)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
            return
        for message in thawed:
            for report in verifier().thawed(message, owner=context.aws_request_id, until=deadline(context)):
                _report(report)

    return each_message(event, context, SqsQueue(clients.sqs(), config().verify_queue_url), verify)


def _report(report: Report) -> None:
    logger().info(
        "audited",
        run=report.run,
        archive=report.archive,
        cause=report.cause.value,
        verdict=report.verdict.value,
        counts={verdict.value: number for verdict, number in report.counts.items()},
        size_bytes=report.size_bytes,
        findings=report.found,
        repair=report.repair or None,
    )
    unread = report.verdict is Verdict.UNREAD
    count("audited", int(not unread))
    count("unread", int(unread))
    count("discrepancies", int(report.verdict in DISCREPANCIES))
    count("audited_bytes", report.size_bytes, MetricUnit.Bytes)

"""Function StartAudit: draws which archives are audited, hashes their sources, has them thawed; and sweeps audits."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import cache
from random import SystemRandom
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients, crc64
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.audits_table import DynamoAudits
from neve.aws.glacier import S3Glacier
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.aws.sources import S3Sources
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.config import StartAuditConfig, read
from neve.domain.audit import AuditRequest, RunRequest, parse_start, run_id
from neve.domain.pace import Pace
from neve.domain.sampling import Budget
from neve.domain.thaw import Tier
from neve.errors import EventInvalid
from neve.flows.audit_runs import RunEnder
from neve.flows.start_audit import AuditStarter
from neve.flows.thaw import Thawer
from neve.flows.witness import Crc, Witness


@cache
def config() -> StartAuditConfig:
    """The settings of this function."""
    return read(StartAuditConfig, os.environ)


@cache
def starter() -> AuditStarter:
    """The use case on AWS. Audits have a budget of their own, so the day's cap on restores does not hold them back."""
    settings = config()
    audits = DynamoAudits(clients.dynamodb(), settings.audits_table)
    verify_queue = sender(settings.verify_queue_url, settings.outbox_table)
    return AuditStarter(
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, ""),
        audits=audits,
        witness=Witness(
            sources=S3Sources(clients.s3(), settings.content_bucket),
            read=settings.source == "read",
            threads=settings.threads,
        ),
        crc=Crc(advance=crc64.crc64nvme, text=crc64.stated, clock=now),
        thawer=Thawer(
            thaws=DynamoThaws(clients.dynamodb(), settings.restores_table),
            glacier=S3Glacier(clients.s3(), settings.archive_bucket),
            extract_queue=verify_queue,
            pace=Pace(per_s=settings.requests_per_s, monotonic=time.monotonic, sleep=time.sleep),
            cap_micro_usd=0,
            clock=now,
            counted=False,
        ),
        audits_queue=sender(settings.audits_queue_url, settings.outbox_table),
        verify_queue=verify_queue,
        ender=RunEnder(audits=audits, alerts=SnsTopic(clients.sns(), settings.alerts_topic), clock=now),
        tier=Tier(settings.tier),
        horizon_days=settings.horizon_days,
        budget=Budget(percent=settings.budget_percent, usd=settings.budget_usd),
        rng=SystemRandom(),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what each message asks for: draw a run, go on with one archive's audit, or sweep."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def start(record: SQSRecord) -> None:
        try:
            _start(record, context)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))

    return each_message(event, context, SqsQueue(clients.sqs(), config().audits_queue_url), start)


def _start(record: SQSRecord, context: LambdaContext) -> None:
    sent_at = datetime.fromtimestamp(int(record.attributes.sent_timestamp or 0) / 1000, UTC)
    match parse_start(record.body, scheduled=run_id(sent_at, record.message_id)):
        case RunRequest() as request:
            run = starter().start(request)
            drawn = {cause.value: len(serials) for cause, serials in run.drawn.items()}
            logger().info("drawn", run=run.id, archives=run.archives, cut=run.cut, drawn=drawn)
            count("drawn", run.audits)
            count("cut", run.cut)
            count("nothing_to_audit", int(starter().idle(run)))
        case AuditRequest() as request:
            begun = starter().begin(request, owner=context.aws_request_id, until=deadline(context))
            logger().info("begun", run=request.run, archive=request.archive, **vars(begun))
            count("source_bytes", begun.source_bytes, MetricUnit.Bytes)
            count("unread", begun.unread)
        case _:
            logger().info("swept", looked_after=starter().sweep())

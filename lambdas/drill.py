"""Function Drill: every month, files drawn at random are restored, compared and deleted again."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.drill_copies import S3DrillCopies
from neve.aws.drills_table import DynamoDrills
from neve.aws.files_table import DynamoFiles
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.sources import S3Sources
from neve.aws.topic import SnsTopic
from neve.config import DrillConfig, read
from neve.domain.drill import JobEnded, Start, parse_drill, scheduled_id
from neve.errors import EventInvalid
from neve.flows.drill import Drilled, Driller


@cache
def config() -> DrillConfig:
    """The settings of this function."""
    return read(DrillConfig, os.environ)


@cache
def driller() -> Driller:
    """The use case on AWS."""
    settings = config()
    return Driller(
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, ""),
        files=DynamoFiles(clients.dynamodb(), settings.files_table),
        restores=DynamoRestores(clients.dynamodb(), settings.restores_table),
        drills=DynamoDrills(clients.dynamodb(), settings.audits_table),
        sources=S3Sources(clients.s3(), settings.content_bucket),
        copies=S3DrillCopies(clients.s3()),
        requests_queue=sender(settings.requests_queue_url, settings.outbox_table),
        alerts=SnsTopic(clients.sns(), settings.alerts_topic),
        buckets=tuple(settings.drill_buckets.split()),
        rng=random.SystemRandom(),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Begin drills, compare those whose restore has ended, and go on with what stands still."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def drill(record: SQSRecord) -> None:
        try:
            message = parse_drill(record.body)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
            return
        match message:
            case Start():
                _report(driller().start(message.drill or _id(record), message.files))
            case JobEnded():
                _report(driller().ended(message.job, until=deadline(context)))
            case _:
                _report(driller().sweep(until=deadline(context)))
                count("drill_age_s", driller().idle().total_seconds(), MetricUnit.Seconds)

    return each_message(event, context, SqsQueue(clients.sqs(), config().drills_queue_url), drill)


def _id(record: SQSRecord) -> str:
    """The id of a drill that the schedule asks for: as the message, the same at each of its deliveries."""
    sent_at = datetime.fromtimestamp(int(record.attributes.sent_timestamp) / 1000, UTC)
    return scheduled_id(record.message_id, sent_at)


def _report(drilled: Drilled) -> None:
    logger().info("drilled", **vars(drilled))
    count("drill_files", drilled.files)
    count("drill_failed", drilled.failed)

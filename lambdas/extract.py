"""Function Extract: an archive is thawed, and what waits for it is brought to where it is wanted."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.destinations import S3Destination
from neve.aws.files_table import DynamoFiles
from neve.aws.glacier import S3ArchiveReader
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.config import ExtractConfig, read
from neve.domain.restore import Ending, Kind, parse_thawed
from neve.errors import EventInvalid
from neve.flows.extract import Extracted, Extractor
from neve.flows.jobs import JobEnder


@cache
def config() -> ExtractConfig:
    """The settings of this function."""
    return read(ExtractConfig, os.environ)


@cache
def extractor() -> Extractor:
    """The use case on AWS."""
    settings = config()
    restores = DynamoRestores(clients.dynamodb(), settings.restores_table)
    return Extractor(
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, ""),
        files=DynamoFiles(clients.dynamodb(), settings.files_table),
        restores=restores,
        thaws=DynamoThaws(clients.dynamodb(), settings.restores_table),
        reader=S3ArchiveReader(clients.s3(), settings.archive_bucket),
        destination=S3Destination(clients.s3(), clients.s3(clients.PATIENT), settings.archive_bucket, now),
        kind=Kind.S3,
        parking_lot=DynamoParkingLot(clients.dynamodb(), settings.parked_table),
        requests_queue=sender(settings.requests_queue_url, settings.outbox_table),
        extract_queue=sender(settings.extract_queue_url, settings.outbox_table),
        ender=JobEnder(restores=restores, topic=SnsTopic(clients.sns(), settings.restored_topic), clock=now),
        bucket=settings.content_bucket,
        threads=settings.threads,
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Extract what waits for the archives that the messages name."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def extract(record: SQSRecord) -> None:
        try:
            thawed = parse_thawed(record.body, config().archive_bucket)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
            return
        for message in thawed:
            extracted = extractor().thawed(message, owner=context.aws_request_id, until=deadline(context))
            _report(message.archive, extracted)

    return each_message(event, context, SqsQueue(clients.sqs(), config().extract_queue_url), extract)


def _report(archive: int, extracted: Extracted) -> None:
    endings = {ending.value: number for ending, number in extracted.endings.items()}
    logger().info(
        "extracted",
        archive=archive,
        shares=extracted.shares,
        left=extracted.left,
        reads=extracted.reads,
        read_bytes=extracted.read_bytes,
        wanted_bytes=extracted.wanted_bytes,
        endings=endings,
    )
    count("restored", extracted.endings.get(Ending.RESTORED, 0))
    count("restored_bytes", extracted.restored_bytes, MetricUnit.Bytes)
    count("damaged", extracted.endings.get(Ending.DAMAGED, 0))

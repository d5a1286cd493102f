"""Function CopyUpload: what lands in the uploads bucket is copied into the content bucket, and served from there."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.pointers_table import DynamoPointers
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.aws.uploads import S3Uploads
from neve.config import CopyUploadConfig, read
from neve.domain.events import parse
from neve.domain.layout import Layout
from neve.domain.version import ObjectVersion
from neve.errors import Busy, EventInvalid
from neve.flows.copy_upload import Copied, UploadCopier

BACK_AFTER_S = 10
"""Behind an upload that takes more than half of the time others are not begun: the end would come in the middle of one,
and all of the batch would count as failed. They go back, for another invocation."""


@cache
def config() -> CopyUploadConfig:
    """The settings of this function."""
    return read(CopyUploadConfig, os.environ)


@cache
def copier() -> UploadCopier:
    """The use case on AWS."""
    settings = config()
    return UploadCopier(
        uploads=S3Uploads(
            clients.s3(), clients.s3(clients.PATIENT), settings.uploads_bucket, settings.content_bucket, now
        ),
        pointers=DynamoPointers(clients.dynamodb(), settings.pointers_table),
        parking_lot=DynamoParkingLot(clients.dynamodb(), settings.parked_table),
        uploads_queue=sender(settings.uploads_queue_url, settings.outbox_table),
        release_queue=sender(settings.release_queue_url, settings.outbox_table),
        files=DynamoFiles(clients.dynamodb(), settings.files_table),
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        uploads_bucket=settings.uploads_bucket,
        content_bucket=settings.content_bucket,
        layout=Layout(settings.key_layout),
        release_after_s=settings.release_after_s,
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Copy what the messages announce; what is no event of the uploads bucket is parked."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)
    until = deadline(context)
    half_time = now() + (until - now()) / 2
    begun: list[str] = []

    def copy(record: SQSRecord) -> None:
        if begun and now() > half_time:
            raise Busy("the uploads before it took too long", retry_after_s=BACK_AFTER_S)
        begun.append(record.message_id)
        try:
            announcement = parse(record.body, config().uploads_bucket, without=())
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
            return
        for problem in announcement.problems:
            park_message(parking_lot, record.body, problem)
        for upload in announcement.versions:
            _report(upload, copier().copy(upload, until=until))

    return each_message(event, context, SqsQueue(clients.sqs(), config().uploads_queue_url), copy, events=True)


def _report(upload: ObjectVersion, copied: Copied) -> None:
    """One line for each upload. Metrics are named as the outcome; `lag_s` is from the event to the flip."""
    lag_s = None if copied.lag_s is None else round(copied.lag_s, 3)
    logger().info(
        copied.ending.value,
        key=upload.key,
        version_id=upload.version_id,
        size_bytes=upload.size_bytes,
        content_version=copied.content_version or None,
        lag_s=lag_s,
        mended=copied.mended or None,
        detail=copied.detail or None,
    )
    count(copied.ending.value, 1)
    count("mended", int(copied.mended))
    if lag_s is not None:
        count("copied_bytes", upload.size_bytes, MetricUnit.Bytes)
        count("lag_s", lag_s, MetricUnit.Seconds)

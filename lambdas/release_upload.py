"""Function ReleaseUpload: an upload that is served from the content bucket is let go, and stays in the attic."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.invocation import count, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.pointers_table import DynamoPointers
from neve.aws.queue import SqsQueue
from neve.aws.uploads import S3Uploads
from neve.config import ReleaseUploadConfig, read
from neve.domain.upload import parse_release
from neve.errors import EventInvalid
from neve.flows.release_upload import Ending, UploadReleaser


@cache
def config() -> ReleaseUploadConfig:
    """The settings of this function."""
    return read(ReleaseUploadConfig, os.environ)


@cache
def releaser() -> UploadReleaser:
    """The use case on AWS."""
    settings = config()
    return UploadReleaser(
        uploads=S3Uploads(clients.s3(), clients.s3(), settings.uploads_bucket, settings.content_bucket, now),
        pointers=DynamoPointers(clients.dynamodb(), settings.pointers_table),
        content_bucket=settings.content_bucket,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Let go the uploads that the messages name."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def release(record: SQSRecord) -> None:
        try:
            upload = parse_release(record.body, config().uploads_bucket)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
            return
        released = releaser().release(upload)
        log = logger().warning if released.ending is Ending.KEPT else logger().info
        log(
            released.ending.value,
            key=upload.key,
            version_id=upload.version_id,
            size_bytes=upload.size_bytes,
            detail=released.detail or None,
        )
        count(released.ending.value, 1)

    return each_message(event, context, SqsQueue(clients.sqs(), config().release_queue_url), release)

"""Function CopyLarge: an object over the target size is copied by S3 itself, and becomes an archive of its own."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.content import S3Content
from neve.aws.files_table import DynamoFiles
from neve.aws.invocation import deadline, each_bundle, now
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.config import CopyLargeConfig, read
from neve.domain.outcome import Written
from neve.flows.commit import Committer
from neve.flows.copy_large import LargeCopier


@cache
def config() -> CopyLargeConfig:
    """The settings of this function."""
    return read(CopyLargeConfig, os.environ)


@cache
def copier() -> LargeCopier:
    """The use case on AWS."""
    settings = config()
    bundles = DynamoBundles(clients.dynamodb(), settings.archives_table)
    files = DynamoFiles(clients.dynamodb(), settings.files_table)
    return LargeCopier(
        content=S3Content(clients.s3(), settings.content_bucket),
        store=S3ArchiveStore(
            clients.s3(clients.PATIENT), settings.archive_bucket, settings.content_bucket, settings.storage_class
        ),
        bundles=bundles,
        files=files,
        parking_lot=DynamoParkingLot(clients.dynamodb(), settings.parked_table),
        collect_queue=sender(settings.collect_queue_url, settings.outbox_table),
        large_queue=sender(settings.large_queue_url, settings.outbox_table),
        committer=Committer(
            bundles=bundles,
            archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
            files=files,
        ),
        bucket=settings.content_bucket,
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Copy the objects that the messages ask for."""

    def copy(bundle_id: str) -> Written:
        return copier().copy(bundle_id, owner=context.aws_request_id, until=deadline(context))

    queue = SqsQueue(clients.sqs(), config().large_queue_url)
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)
    return each_bundle(event, context, queue, parking_lot, copy)

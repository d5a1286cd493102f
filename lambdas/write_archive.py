"""Function WriteArchive: a bundle becomes a tar in the archive bucket, and rows in the index."""

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
from neve.aws.glacier import S3ArchiveReader
from neve.aws.invocation import deadline, each_bundle, now
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.config import WriteArchiveConfig, read
from neve.domain.outcome import Written
from neve.flows.commit import Committer
from neve.flows.write_archive import ArchiveWriter


@cache
def config() -> WriteArchiveConfig:
    """The settings of this function."""
    return read(WriteArchiveConfig, os.environ)


@cache
def writer() -> ArchiveWriter:
    """The use case on AWS."""
    settings = config()
    bundles = DynamoBundles(clients.dynamodb(), settings.archives_table)
    files = DynamoFiles(clients.dynamodb(), settings.files_table)
    return ArchiveWriter(
        content=S3Content(clients.s3(), settings.content_bucket),
        store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, settings.storage_class),
        reader=S3ArchiveReader(clients.s3(), settings.archive_bucket),
        bundles=bundles,
        files=files,
        parking_lot=DynamoParkingLot(clients.dynamodb(), settings.parked_table),
        collect_queue=sender(settings.collect_queue_url, settings.outbox_table),
        committer=Committer(
            bundles=bundles,
            archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
            files=files,
        ),
        bucket=settings.content_bucket,
        threads=settings.fetch_threads,
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Write the archives that the messages ask for."""

    def write(bundle_id: str) -> Written:
        return writer().write(bundle_id, owner=context.aws_request_id, until=deadline(context))

    queue = SqsQueue(clients.sqs(), config().bundles_queue_url)
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)
    return each_bundle(event, context, queue, parking_lot, write)

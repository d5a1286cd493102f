"""Function Reconcile: begins passes, works off their shards one message at a time, and looks after both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archive_listing import S3ArchiveListing
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.content import S3Content
from neve.aws.content_listing import S3ContentListing
from neve.aws.files_table import DynamoFiles
from neve.aws.inventory import S3Inventory
from neve.aws.invocation import count, deadline, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.reconciles_table import DynamoReconciles
from neve.aws.sending import sender
from neve.aws.topic import SnsTopic
from neve.config import ReconcileConfig, read
from neve.domain.reconcile import METRICS, Outcome, ShardRequest, StartRequest, parse, pass_id
from neve.errors import EventInvalid
from neve.flows.compare import Comparer
from neve.flows.reconcile import Reconciler


@cache
def config() -> ReconcileConfig:
    """The settings of this function."""
    return read(ReconcileConfig, os.environ)


@cache
def reconciler() -> Reconciler:
    """The use case on AWS."""
    settings = config()
    archives = DynamoArchives(clients.dynamodb(), settings.archives_table)
    inventory = S3Inventory(clients.s3(), settings.inventory, settings.content_bucket)
    return Reconciler(
        passes=DynamoReconciles(clients.dynamodb(), settings.audits_table),
        comparer=Comparer(
            listing=S3ContentListing(clients.s3(), settings.content_bucket),
            inventory=inventory,
            content=S3Content(clients.s3(), settings.content_bucket),
            files=DynamoFiles(clients.dynamodb(), settings.files_table),
            archives=archives,
            store=S3ArchiveStore(clients.s3(), settings.archive_bucket, settings.content_bucket, ""),
            archive_listing=S3ArchiveListing(clients.s3(), settings.archive_bucket),
            parking_lot=DynamoParkingLot(clients.dynamodb(), settings.parked_table),
            collect_queue=sender(settings.collect_queue_url, settings.outbox_table),
            bucket=settings.content_bucket,
            grace=timedelta(hours=settings.grace_h),
            threads=settings.threads,
            clock=now,
        ),
        inventory=inventory if settings.inventory else None,
        archives=archives,
        queue=sender(settings.reconciles_queue_url, settings.outbox_table),
        alerts=SnsTopic(clients.sns(), settings.alerts_topic),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what each message asks for: begin a pass, go on with a shard, or sweep."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def attempt(record: SQSRecord) -> None:
        try:
            _obey(record, context)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))

    return each_message(event, context, SqsQueue(clients.sqs(), config().reconciles_queue_url), attempt)


def _obey(record: SQSRecord, context: LambdaContext) -> None:
    request = parse(record.body, scheduled=pass_id(_sent_at(record), record.message_id))
    if isinstance(request, StartRequest):
        begun = reconciler().start(request)
        logger().info("began", reconcile=begun.id, shards=begun.shards, refused=begun.refused or None)
    elif isinstance(request, ShardRequest):
        advanced = reconciler().go_on(request, owner=context.aws_request_id, until=deadline(context))
        _report(request, advanced.counts, done=advanced.done, finished=advanced.finished)
    else:
        logger().info("swept", sent=reconciler().sweep())


def _sent_at(record: SQSRecord) -> datetime:
    """When the message was sent, however often it comes."""
    return datetime.fromtimestamp(int(record.attributes.sent_timestamp) / 1000, UTC)


def _report(request: ShardRequest, counts: Mapping[Outcome, int], *, done: bool, finished: bool) -> None:
    counted = {outcome.value: number for outcome, number in counts.items()}
    logger().info(
        "reconciled", reconcile=request.of, shard=request.number, done=done, finished=finished, counts=counted
    )
    for name, outcomes in METRICS.items():
        count(name, sum(counts.get(outcome, 0) for outcome in outcomes))
    count("passes", int(finished))

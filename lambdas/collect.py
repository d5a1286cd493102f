"""Function Collect: S3's events, in batches, become references in bundles."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes import SQSEvent
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoBundles
from neve.aws.invocation import count, impute_delivery, logger, now, park_message, reported, retry
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.config import CollectConfig, read
from neve.domain.bundle import Lane, Limits
from neve.domain.events import parse
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid, Transient
from neve.flows.collect import Collector


@cache
def config() -> CollectConfig:
    """The settings of this function."""
    return read(CollectConfig, os.environ)


@cache
def collector() -> Collector:
    """The use case on AWS."""
    return Collector(
        lane=Lane(config().lane),
        bundles=DynamoBundles(clients.dynamodb(), config().archives_table),
        bundles_queue=sender(config().bundles_queue_url, config().outbox_table),
        large_queue=sender(config().large_queue_url, config().outbox_table),
        limits=Limits(
            target_bytes=config().target_bytes, max_members=config().max_members, max_age_s=config().max_age_s
        ),
        new_id=lambda: uuid.uuid4().hex,
    )


def handler(event: dict[str, Any], _: LambdaContext) -> dict[str, Any]:
    """Note what the batch announces; what is no event of the content bucket is parked, and holds back nothing."""
    records = list(SQSEvent(event).records)
    with reported():
        failed = _collect(records)
        impute_delivery(records, failed=len(failed), events=True)
    return {"batchItemFailures": [{"itemIdentifier": record.message_id} for record in failed]}


def _collect(records: Sequence[SQSRecord]) -> list[SQSRecord]:
    """Collect what the messages announce, all in one go; those that have to come back are returned.

    Where time heals nothing, each message is tried by itself, so that one that cannot be collected fails alone.
    """
    try:
        versions = [version for record in records for version in _understood(record.body)]
        collected = collector().collect(versions, now(), waited_s=_waited_s(records))
    except Exception as error:  # noqa: BLE001  # logged; the messages come back, and none was acknowledged
        logger().exception("failed", messages=len(records))
        if len(records) > 1 and not isinstance(error, Transient):
            return [failed for record in records for failed in _collect([record])]
        retry(SqsQueue(clients.sqs(), config().collect_queue_url), records, error)
        return list(records)
    if collected.versions:
        logger().info(
            "collected",
            messages=len(records),
            versions=collected.versions,
            size_bytes=collected.size_bytes,
            large=collected.large,
            full=collected.full,
        )
    count("collected", collected.versions)
    return []


def _waited_s(records: Sequence[SQSRecord]) -> float:
    """How long the first of the messages has been in the queue.

    Where few come Lambda may hold them back for 20 s, whatever the window (Lambda developer guide, "Using Lambda with
    Amazon SQS").
    """
    sent_ms = min(int(record.attributes.get("SentTimestamp") or 0) for record in records)
    return max(0.0, now().timestamp() - sent_ms / 1000) if sent_ms else 0.0


def _understood(body: str) -> tuple[ObjectVersion, ...]:
    """The versions that a message announces; whatever else is in it is parked."""
    try:
        announcement = parse(body, config().content_bucket)
        problems = announcement.problems
        versions = announcement.versions
    except EventInvalid as error:
        problems, versions = (str(error),), ()
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)
    for problem in problems:
        park_message(parking_lot, body, problem)
    return versions

"""Function Sweep: every 15 minutes, a reminder for every bundle that should long have been written."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoBundles
from neve.aws.invocation import count, each_message, logger, now
from neve.aws.queue import SqsQueue
from neve.aws.sending import sender
from neve.config import SweepConfig, read
from neve.domain.bundle import Lane
from neve.flows.sweep import Sweeper


@cache
def config() -> SweepConfig:
    """The settings of this function."""
    return read(SweepConfig, os.environ)


@cache
def sweeper() -> Sweeper:
    """The use case on AWS."""
    outbox = config().outbox_table
    return Sweeper(
        bundles=DynamoBundles(clients.dynamodb(), config().archives_table),
        bundles_queues={
            Lane.LIVE: sender(config().bundles_queue_url, outbox),
            Lane.BACKFILL: sender(config().backfill_bundles_queue_url, outbox),
        },
        large_queues={
            Lane.LIVE: sender(config().large_queue_url, outbox),
            Lane.BACKFILL: sender(config().backfill_large_queue_url, outbox),
        },
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sweep once per message of the schedule."""

    def sweep(_: SQSRecord) -> None:
        overdue = sweeper().sweep(now())
        logger().info("swept", overdue=overdue)
        count("overdue", overdue)

    return each_message(event, context, SqsQueue(clients.sqs(), config().sweep_queue_url), sweep)

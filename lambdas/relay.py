"""Function Relay: every minute, what waits in the outbox goes to its queues."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.invocation import count, deadline, each_message, logger, now
from neve.aws.outbox_table import DynamoOutbox
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.config import RelayConfig, read
from neve.domain.outbox import queue_name
from neve.errors import QueueDenied, Transient
from neve.flows.relay import Relay, Relayed

THREADS = 8

MARGIN = timedelta(seconds=5)
"""What the function keeps to count what is left, and to tell."""


@cache
def config() -> RelayConfig:
    """The settings of this function."""
    return read(RelayConfig, os.environ)


@cache
def relay() -> Relay:
    """The use case on AWS."""
    return Relay(
        outbox=DynamoOutbox(clients.dynamodb(), config().outbox_table),
        queue=lambda url: SqsQueue(clients.sqs(), url),
        parking_lot=DynamoParkingLot(clients.dynamodb(), config().parked_table),
        threads=THREADS,
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Relay once per message of the schedule."""

    def drain(_: SQSRecord) -> None:
        every = relay().drain(owner=context.aws_request_id, until=deadline(context) - MARGIN)
        for relayed in every:
            _report(relayed)
        waits = [now() - relayed.left.oldest_at for relayed in every if relayed.left.oldest_at]
        count("outbox_oldest_s", max(waits, default=timedelta()).total_seconds(), MetricUnit.Seconds)
        for relayed in every:
            if relayed.problem and not isinstance(relayed.problem, Transient | QueueDenied):
                raise relayed.problem

    return each_message(event, context, SqsQueue(clients.sqs(), config().relay_queue_url), drain)


def _report(relayed: Relayed) -> None:
    tell = logger().warning if relayed.problem else logger().info
    tell(
        "relayed",
        queue=queue_name(relayed.queue),
        sent=relayed.sent,
        denied=relayed.denied or None,
        parked=relayed.parked or None,
        busy=relayed.busy or None,
        problem=str(relayed.problem or "") or None,
        waiting=relayed.left.entries,
        oldest_at=relayed.left.oldest_at.isoformat() if relayed.left.oldest_at else None,
    )
    count("relayed", relayed.sent)
    count("denied", relayed.denied)
    count("parked", relayed.parked)
    count("outbox_waiting", relayed.left.entries)

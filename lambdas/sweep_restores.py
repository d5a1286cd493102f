"""Function SweepRestores: every 15 minutes, thaws whose event did not come, and jobs that stand still."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoArchives
from neve.aws.glacier import S3Glacier
from neve.aws.invocation import count, each_message, logger, now
from neve.aws.queue import SqsQueue
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.config import SweepRestoresConfig, read
from neve.flows.jobs import JobEnder
from neve.flows.sweep_restores import RestoreSweeper


@cache
def config() -> SweepRestoresConfig:
    """The settings of this function."""
    return read(SweepRestoresConfig, os.environ)


@cache
def sweeper() -> RestoreSweeper:
    """The use case on AWS."""
    settings = config()
    restores = DynamoRestores(clients.dynamodb(), settings.restores_table)
    return RestoreSweeper(
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        restores=restores,
        thaws=DynamoThaws(clients.dynamodb(), settings.restores_table),
        glacier=S3Glacier(clients.s3(), settings.archive_bucket),
        requests_queue=sender(settings.requests_queue_url, settings.outbox_table),
        extract_queue=sender(settings.extract_queue_url, settings.outbox_table),
        ender=JobEnder(restores=restores, topic=SnsTopic(clients.sns(), settings.restored_topic), clock=now),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sweep once per message of the schedule."""

    def sweep(_: SQSRecord) -> None:
        swept = sweeper().sweep(owner=context.aws_request_id)
        found = vars(swept)
        logger().info("swept", **found)
        for name, number in found.items():
            count(name, number)

    return each_message(event, context, SqsQueue(clients.sqs(), config().sweep_queue_url), sweep)

"""Function PlanRestore: requests become jobs whose shares wait for archives, and archives are thawed."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.aws.glacier import S3Glacier
from neve.aws.invocation import count, each_message, logger, now, park_message
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.queue import SqsQueue
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.config import PlanRestoreConfig, read
from neve.domain.pace import Pace
from neve.domain.prices import MILLION
from neve.domain.restore import ThawRequest, parse_plan
from neve.errors import EventInvalid, OverCap
from neve.flows.jobs import JobEnder
from neve.flows.plan_restore import RestorePlanner
from neve.flows.thaw import Thawer


@cache
def config() -> PlanRestoreConfig:
    """The settings of this function."""
    return read(PlanRestoreConfig, os.environ)


@cache
def planner() -> RestorePlanner:
    """The use case on AWS."""
    settings = config()
    restores = DynamoRestores(clients.dynamodb(), settings.restores_table)
    return RestorePlanner(
        files=DynamoFiles(clients.dynamodb(), settings.files_table),
        archives=DynamoArchives(clients.dynamodb(), settings.archives_table),
        restores=restores,
        thawer=Thawer(
            thaws=DynamoThaws(clients.dynamodb(), settings.restores_table),
            glacier=S3Glacier(clients.s3(), settings.archive_bucket),
            extract_queue=sender(settings.extract_queue_url, settings.outbox_table),
            pace=Pace(per_s=settings.requests_per_s, monotonic=time.monotonic, sleep=time.sleep),
            cap_micro_usd=settings.usd_per_day * MILLION,
            clock=now,
        ),
        ender=JobEnder(restores=restores, topic=SnsTopic(clients.sns(), settings.restored_topic), clock=now),
        destination_buckets=frozenset(settings.destination_buckets.split()),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Plan the chunks that the messages hold, and have the archives thawed that the sweep asks for."""
    parking_lot = DynamoParkingLot(clients.dynamodb(), config().parked_table)

    def plan(record: SQSRecord) -> None:
        try:
            _plan(record.body, owner=context.aws_request_id)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))

    return each_message(event, context, SqsQueue(clients.sqs(), config().requests_queue_url), plan)


def _plan(body: str, *, owner: str) -> None:
    request = parse_plan(body)
    if isinstance(request, ThawRequest):
        try:
            logger().info("thaw", archive=request.archive, step=planner().thaw(request, owner=owner))
        except OverCap as error:
            logger().warning("over the cap", archive=request.archive, detail=str(error))  # the sweep asks again
        return
    planned = planner().plan(request, owner=owner)
    logger().info(
        "planned",
        job=request.job,
        chunk=request.chunk,
        chunks=request.chunks,
        files=planned.files,
        shares=planned.shares,
        unplaced=planned.unplaced,
        steps=dict(planned.steps),
    )
    count("planned", planned.files)
    count("unplaced", planned.unplaced)

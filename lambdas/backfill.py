"""Function Backfill: splits a backfill, works off its shards, ends it; called by the state machine of that name.

    {"backfill": id}                                             what an execution is started with
    {"step": "plan", "backfill": id}
        -> {"backfill": id, "shards": [0, 1, ...]}               those that are not done; none if it was stopped
    {"step": "advance", "backfill": id, "shard": n}              or what it answered last
        -> {"step": "advance", "backfill": id, "shard": n, "rounds": r,
            "done": bool, "stopped": bool, "over": bool, "wait_s": s}
    {"step": "end", "backfill": id, "execution": name, "problem": text}
                                                                 `problem` if shards failed, else it is left out
        -> {"backfill": id, "state": "running" | "stopped" | "finished" | "superseded", "problem": text}
                                                                 `problem` if that is why it was stopped, else not there

A shard's child waits `wait_s` seconds, 0 to 300, and calls again with the answer, until it is `over`: its shard is
done, or cannot go on, or the execution of the child has had as many rounds as its history has room for. Waiting there
costs less than in here. After `end`, a state of `running` means that shards are left: the state machine goes on with
`plan`; `superseded` that the backfill was resumed, and is for another execution to end. What the function raises is
noted on the shard, and is worth some tries with a backoff; after that the state machine calls `end` with the problem,
by which the backfill is stopped and says why. It can be resumed.

It may, and needs to:
    s3:ListBucketVersions                                        the content bucket
    s3:ListBucket, s3:GetObject                                  the inventory's bucket, and below its prefix; if set
    dynamodb:GetItem, PutItem, UpdateItem, Query                 the table of backfills (no index)
    sqs:SendMessage                                              BackfillQueue
    sqs:GetQueueAttributes                                       BackfillQueue, BackfillBundlesQueue, BackfillLargeQueue
and the keys of KMS, if these have any. It has no parking lot and no outbox.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.backfills_table import DynamoBackfills
from neve.aws.content_listing import S3ContentListing
from neve.aws.inventory import S3Inventory
from neve.aws.invocation import count, deadline, impute_step, logger, now, reported
from neve.aws.queue import SqsQueue
from neve.config import BackfillConfig, read
from neve.domain.backfill import ROUNDS, Request, Step, parse
from neve.errors import InventoryInvalid
from neve.flows.backfill import Backfiller


@cache
def config() -> BackfillConfig:
    """The settings of this function."""
    return read(BackfillConfig, os.environ)


@cache
def backfiller() -> Backfiller:
    """The use case on AWS."""
    settings = config()
    queue, bundles, large = (
        SqsQueue(clients.sqs(), url)
        for url in (
            settings.backfill_queue_url,
            settings.backfill_bundles_queue_url,
            settings.backfill_large_queue_url,
        )
    )
    return Backfiller(
        backfills=DynamoBackfills(clients.dynamodb(), settings.backfills_table),
        listing=S3ContentListing(clients.s3(), settings.content_bucket),
        inventories=_inventory,
        queue=queue,
        lane=(queue, bundles, large),
        bucket=settings.content_bucket,
        clock=now,
        sleep=time.sleep,
    )


def _inventory(place: str) -> S3Inventory:
    """The reports in a place that is, or lies in, the one that the stack lets this function read."""
    allowed = config().inventory
    if not allowed or not f"{place.rstrip('/')}/".startswith(f"{allowed.rstrip('/')}/"):
        raise InventoryInvalid(
            f"Backfill may not read {place}: the setting `inventory` names the only place that it may read"
            + (f", {allowed}" if allowed else ", and is empty")
            + ". Set it, and deploy."
        )
    return S3Inventory(clients.s3(), place, config().content_bucket)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take one step, as the state machine asks for it."""
    with reported():
        impute_step()
        request = parse(event)
        match request.step:
            case Step.PLAN:
                planned = backfiller().plan(request.backfill)
                logger().info("planned", backfill=request.backfill, state=planned.state, left=len(planned.shards))
                return {"backfill": request.backfill, "shards": list(planned.shards)}
            case Step.ADVANCE:
                return _advance(request, context)
            case Step.END:
                ended = backfiller().end(request.backfill, execution=request.execution, problem=request.problem)
                if ended is None:
                    logger().info("superseded", backfill=request.backfill, execution=request.execution)
                    return {"backfill": request.backfill, "state": "superseded"}
                logger().info("ended", backfill=ended.id, state=ended.state, problem=ended.problem or None)
                answer = {"backfill": ended.id, "state": ended.state.value}
                return answer | ({"problem": ended.problem} if ended.problem else {})


def _advance(request: Request, context: LambdaContext) -> dict[str, Any]:
    """Work on a shard; the answer is the event by which it goes on."""
    advanced = backfiller().advance(
        request.backfill, request.shard, owner=context.aws_request_id, until=deadline(context)
    )
    logger().info(
        "advanced",
        backfill=request.backfill,
        shard=request.shard,
        done=advanced.done,
        stopped=advanced.stopped,
        wait_s=advanced.wait_s,
        versions=advanced.counted.versions,
        size_bytes=advanced.counted.size_bytes,
        frozen=advanced.counted.frozen,
        messages=advanced.messages,
    )
    count("announced", advanced.announced)
    rounds = request.rounds + 1
    return {
        "step": Step.ADVANCE.value,
        "backfill": request.backfill,
        "shard": request.shard,
        "rounds": rounds,
        "done": advanced.done,
        "stopped": advanced.stopped,
        "over": advanced.done or advanced.stopped or rounds >= ROUNDS,
        "wait_s": advanced.wait_s,
    }

"""How functions send: the one place where they get a queue that they send to."""

from __future__ import annotations

import uuid
from functools import cache

from botocore.config import Config

from neve.aws import clients
from neve.aws.invocation import count, logger, now
from neve.aws.outbox_table import DynamoOutbox
from neve.aws.queue import SqsQueue
from neve.domain.outbox import Entry, queue_name
from neve.errors import NeveError
from neve.flows.fallback_queue import FallbackQueue


@cache
def sender(url: str, outbox_table: str, config: Config | None = None) -> FallbackQueue:
    """The queue at `url`, with the outbox behind it. A process has one for each queue, and is one sender to it.

    `config` is for who has less time for both of them than the clients take by themselves.
    """
    given = (config,) if config else ()
    return FallbackQueue(
        queue=SqsQueue(clients.sqs(*given), url),
        outbox=DynamoOutbox(clients.dynamodb(*given), outbox_table),
        url=url,
        sender=uuid.uuid4().hex,
        clock=now,
        kept=_kept,
    )


def _kept(entry: Entry, error: NeveError | None) -> None:
    logger().warning("outbox", queue=queue_name(entry.queue), cause=entry.cause.value, problem=str(error or "") or None)
    count("outbox", 1)

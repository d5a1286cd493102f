"""One invocation of a function: its messages one by one, its log lines, its metrics, its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws.ledger import LEDGER
from neve.aws.queue import SqsQueue
from neve.domain.bundle import requested_bundle
from neve.domain.outcome import Written
from neve.domain.parked import Parked, Reason
from neve.errors import Busy, EventInvalid, Transient
from neve.ports import ParkingLot

TRANSIENT_BACKOFF_S = (10, 60, 300, 900)
"""After the first delivery, the second ... Ten deliveries (stacks/queues.py) outlast an outage of over an hour."""

BACKOFF_S = 30
"""Per delivery, where time heals nothing: within half an hour the message is in the DLQ, whose alarm rings.

Without any of these a message that failed stays hidden for its whole visibility timeout, six times the function's.
"""


@cache
def logger() -> Logger:
    """The function's log: JSON, one line per outcome."""
    return Logger(serialize_stacktrace=False)  # the trace stands in `exception` already


@cache
def metrics() -> Metrics:
    """The function's metrics, written as log lines in CloudWatch's embedded format."""
    return Metrics()


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def deadline(context: LambdaContext) -> datetime:
    """When this invocation is ended, finished or not."""
    return now() + timedelta(milliseconds=context.get_remaining_time_in_millis())


def count(name: str, value: float, unit: MetricUnit = MetricUnit.Count) -> None:
    """Add to a metric of this invocation; zeros are left out."""
    if value:
        metrics().add_metric(name=name, unit=unit, value=value)


@contextmanager
def reported() -> Iterator[None]:
    """Log what the invocation asked of AWS, and flush its metrics, however it ends."""
    try:
        yield
    finally:
        logger().info("requests", **LEDGER.settle())
        if metrics().metric_set:
            metrics().flush_metrics()


def backoff_s(error: Exception, deliveries: int) -> int:
    """After how many seconds a message that failed with `error` is worth another try."""
    if isinstance(error, Busy):
        return error.retry_after_s
    if isinstance(error, Transient):
        return TRANSIENT_BACKOFF_S[min(deliveries, len(TRANSIENT_BACKOFF_S)) - 1]
    return deliveries * BACKOFF_S


def deliveries(record: SQSRecord) -> int:
    """How often this message has been delivered, from 1."""
    return int(record.attributes.approximate_receive_count or 1)


def park_message(parking_lot: ParkingLot, body: str, problem: str) -> None:
    """Park a message, or what is wrong in it, that no function can make use of."""
    parking_lot.park(Parked(reason=Reason.EVENT_INVALID, detail=problem, parked_at=now(), evidence=body))
    logger().warning("parked", reason=Reason.EVENT_INVALID, detail=problem)
    count("parked", 1)


def each_bundle(
    event: dict[str, Any],
    context: LambdaContext,
    queue: SqsQueue,
    parking_lot: ParkingLot,
    handle: Callable[[str], Written],
) -> dict[str, Any]:
    """Handle the bundle that each message asks for, by its id, and report what became of it; see each_message."""

    def attempt(record: SQSRecord) -> None:
        try:
            bundle_id = requested_bundle(record.body)
        except EventInvalid as error:
            park_message(parking_lot, record.body, str(error))
        else:
            report_written(handle(bundle_id))

    return each_message(event, context, queue, attempt)


def each_message(
    event: dict[str, Any], context: LambdaContext, queue: SqsQueue, handle: Callable[[SQSRecord], None]
) -> dict[str, Any]:
    """Handle every message; those that fail are reported as failed one by one, and come back after a backoff."""

    def attempt(record: SQSRecord) -> None:
        try:
            handle(record)
        except Busy as error:
            retry(queue, [record], error)
            raise
        except Exception as error:
            logger().exception("failed", message_id=record.message_id, delivery=deliveries(record))
            retry(queue, [record], error)
            raise

    with reported():
        processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        return dict(process_partial_response(event, attempt, processor, context))


def retry(queue: SqsQueue, records: Sequence[SQSRecord], error: Exception) -> None:
    """Have messages that failed with `error` delivered again soon; if that fails, too, their visibility ends anyway."""
    try:
        queue.show_again({record.receipt_handle: backoff_s(error, deliveries(record)) for record in records})
    except Transient:
        logger().warning("visibility not shortened", messages=len(records))


def report_written(written: Written) -> None:
    """Log and count what became of a bundle."""
    lag_s = round((now() - written.oldest_at).total_seconds(), 3) if written.oldest_at else None
    logger().info(
        written.outcome.value,
        archive=written.serial or None,
        supersedes=written.supersedes or None,
        files=written.files,
        source_bytes=written.source_bytes,
        duplicates=written.duplicates,
        parked=written.parked,
        unproven=written.unproven,
        collected_again=written.collected_again,
        lag_s=lag_s,
    )
    count("archived", written.files)
    count("archived_bytes", written.source_bytes, MetricUnit.Bytes)
    count("parked", written.parked)
    count("unproven", written.unproven)
    count("lag_s", lag_s or 0, MetricUnit.Seconds)

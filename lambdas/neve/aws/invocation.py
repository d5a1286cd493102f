"""One invocation of a function: its messages one by one, its log lines, its metrics, its requests."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSEvent, SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws.ledger import LEDGER
from neve.aws.queue import SqsQueue
from neve.domain.bundle import requested_bundle
from neve.domain.events import sent_by_s3
from neve.domain.metering import delivered, invoked
from neve.domain.outcome import Written
from neve.domain.parked import Parked, Reason
from neve.domain.prices import Charge
from neve.domain.tally import SERVICE
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
    """Write what the invocation asked of AWS, and its metrics, however it ends; see write_ledger."""
    began = time.monotonic()
    try:
        yield
    finally:
        impute_time(began)
        write_ledger()
        if metrics().metric_set:
            _written(metrics().flush_metrics)


def impute_time(began: float) -> None:
    """Add to the ledger this invocation, which began at that time of time.monotonic(), and what it took so far.

    Outside of Lambda, which names the memory, there is nothing to add.
    """
    if memory_mib := os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        duration_ms = (time.monotonic() - began) * 1000
        LEDGER.impute(invoked(memory_mib=int(memory_mib), duration_ms=duration_ms, machine=platform.machine()))


def impute_delivery(records: Sequence[SQSRecord], *, failed: int, events: bool = False) -> None:
    """Add to the ledger what it took to deliver these messages, and to delete those of them that have not failed.

    `events`: what is no announcement of neve's own was sent by S3, at the queue owner's expense.
    """
    requests = delivered([len(record.body.encode()) for record in records], deleted=len(records) - failed)
    if events:
        requests += sum(sent_by_s3(record.body) for record in records)
    LEDGER.impute({Charge.SQS_REQUEST: requests})


STEP_TRANSITIONS = 3


def impute_step() -> None:
    """Add to the ledger what a state machine takes that asks for this invocation: the call, a choice, and a wait."""
    LEDGER.impute({Charge.STATE_TRANSITION: STEP_TRANSITIONS})


def write_ledger() -> None:
    """Write what the ledger has counted as one line: metrics that all functions share, details as fields beside them.

    Settles the ledger. Does not raise: what cannot be written is lost, and no reason to do the work again.
    """
    tally = LEDGER.settle()
    line = EphemeralMetrics(service=SERVICE)
    for name, quantity in tally.metrics().items():
        line.add_metric(name=name, unit=MetricUnit.Count, value=quantity)
    if not line.metric_set:
        return
    line.add_metadata("function", os.environ.get("POWERTOOLS_SERVICE_NAME", ""))
    for name, detail in tally.details().items():
        line.add_metadata(name, detail)
    _written(line.flush_metrics)


LEDGER_EVERY_S = 60
_written_at = -math.inf


def write_ledger_at_times() -> None:
    """The same, at most once a minute, for who is invoked by each visitor: a line for each costs more than its work.

    What an environment has counted since is lost when Lambda ends it.
    """
    global _written_at  # noqa: PLW0603  # a fact about the process, as the ledger is
    if time.monotonic() >= _written_at + LEDGER_EVERY_S:
        _written_at = time.monotonic()
        write_ledger()


def _written(flush: Callable[[], None]) -> None:
    try:
        flush()
    except Exception as error:  # noqa: BLE001  # whatever it is, the invocation's work is done and must stand
        logger().warning("metrics not written", problem=repr(error))


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
    event: dict[str, Any],
    context: LambdaContext,
    queue: SqsQueue,
    handle: Callable[[SQSRecord], None],
    *,
    events: bool = False,
) -> dict[str, Any]:
    """Handle every message; those that fail are reported as failed one by one, and come back after a backoff.

    `events`: the queue is one that S3 sends to.
    """

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
        answer = process_partial_response(event, attempt, processor, context)
        failed = len(answer["batchItemFailures"])
        impute_delivery(list(SQSEvent(event).records), failed=failed, events=events)
        return dict(answer)


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
        gone=written.gone or None,
        unproven=written.unproven,
        collected_again=written.collected_again,
        lag_s=lag_s,
    )
    count("archived", written.files)
    count("archived_bytes", written.source_bytes, MetricUnit.Bytes)
    count("parked", written.parked)
    count("unproven", written.unproven)
    count("lag_s", lag_s or 0, MetricUnit.Seconds)

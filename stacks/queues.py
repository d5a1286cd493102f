"""How every queue of the project is built: encrypted, TLS only, with a dead-letter queue behind it."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_sqs as sqs
from constructs import Construct

# AWS asks for at least 5 of a Lambda's queue: throttled deliveries count as receives too. The functions space their
# deliveries (neve/aws/invocation.py) so that ten outlast an outage of over an hour; what time does not heal is in the
# dead-letter queue within half an hour.
MAX_RECEIVE_COUNT = 10

# A message keeps the time it was first sent when it moves to the dead-letter queue. With 10 days before and
# 14 days (the longest there is) in all, whoever is alarmed has at least 4 days to look.
RETENTION = cdk.Duration.days(10)
DEAD_LETTER_RETENTION = cdk.Duration.days(14)


@dataclass(frozen=True, kw_only=True)
class QueueWithDeadLetters:
    """A queue and where its messages go after MAX_RECEIVE_COUNT failures."""

    queue: sqs.Queue
    dead_letters: sqs.Queue


def queue_with_dead_letters(
    scope: Construct, name: str, *, timeout_s: int, window_s: int = 0, retention: cdk.Duration = RETENTION
) -> QueueWithDeadLetters:
    """Queue `<name>Queue` for a function of `timeout_s` that gathers its batches for `window_s`."""
    dead_letters = sqs.Queue(
        scope,
        f"{name}DeadLetterQueue",
        retention_period=DEAD_LETTER_RETENTION,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
    )
    queue = sqs.Queue(
        scope,
        f"{name}Queue",
        # AWS's rule for event source mappings: six timeouts, so that throttled retries end within it, plus the window.
        visibility_timeout=cdk.Duration.seconds(6 * timeout_s + window_s),
        retention_period=retention,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        dead_letter_queue=sqs.DeadLetterQueue(queue=dead_letters, max_receive_count=MAX_RECEIVE_COUNT),
    )
    return QueueWithDeadLetters(queue=queue, dead_letters=dead_letters)

"""SQS queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from neve.aws.faults import code, transient
from neve.errors import MessageRefused, QueueDenied

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient


BATCH = 10
MAX_VISIBILITY_S = 43_200 - 900
"""SQS: ten entries to a batch, and a message is hidden for 12 hours at most, counted from its delivery: that may have
been 15 minutes ago."""

_REFUSED = frozenset(
    {"InvalidMessageContents", "InvalidParameterValue", "InvalidParameterValueException", "MissingParameter"}
)
"""What SQS says of the message, not of the queue or of who sends. Too long a message is InvalidParameterValue.

Whatever else it says may be healed by time or a person: a code that nobody foresaw must not have messages thrown out.
"""


@dataclass(frozen=True)
class SqsQueue:
    """The ports Queue and Depth on one SQS queue."""

    client: SQSClient
    url: str

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """See neve.ports.Queue."""
        try:
            with transient():
                self.client.send_message(QueueUrl=self.url, MessageBody=body, DelaySeconds=delay_s)
        except ParamValidationError:
            raise
        except ClientError as error:
            said = f"{error.operation_name}: {code(error)}"
            raise (MessageRefused if code(error) in _REFUSED else QueueDenied)(said) from error
        except BotoCoreError as error:  # no credentials, above all
            raise QueueDenied(f"{type(error).__name__}: {error}") from error

    def waiting(self) -> int:
        """See neve.ports.Depth. It may lag by a minute. Source: SQS API reference, GetQueueAttributes."""
        name = "ApproximateNumberOfMessages"
        with transient():
            answer = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])  # type: ignore[list-item]
        return int(answer["Attributes"][name])  # type: ignore[index]

    def show_again(self, after_s: Mapping[str, int]) -> None:
        """Have messages in flight delivered again after so many seconds, by receipt handle.

        Without this they are delivered again when their visibility timeout ends.
        """
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": min(seconds, MAX_VISIBILITY_S)}
            for number, (receipt, seconds) in enumerate(after_s.items())
        ]
        for start in range(0, len(entries), BATCH):
            with transient():
                self.client.change_message_visibility_batch(
                    QueueUrl=self.url,
                    Entries=entries[start : start + BATCH],  # type: ignore[arg-type]  # as the API has them
                )

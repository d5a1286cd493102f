"""SNS topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient

if TYPE_CHECKING:
    from types_boto3_sns import SNSClient


@dataclass(frozen=True)
class SnsTopic:
    """The port Topic on one SNS topic."""

    client: SNSClient
    arn: str

    def publish(self, message: str, *, subject: str = "") -> None:
        """See neve.ports.Topic."""
        titled: Any = {"Subject": subject} if subject else {}  # SNS refuses an empty one
        with transient():
            self.client.publish(TopicArn=self.arn, Message=message, **titled)

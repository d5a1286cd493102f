"""How every topic of the project is built, reached by TLS only, and how a queue hears one."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.queues import QueueWithDeadLetters


def topic(scope: Construct, name: str, *, unencrypted_because: str, service: str | None = None) -> sns.Topic:
    """Topic `name`, to which AWS's `service` may publish on behalf of this account; roles need their own permission.

    `unencrypted_because` says why it has no key of KMS.
    """
    made = sns.Topic(scope, name, enforce_ssl=True)
    if service:
        # A topic with a policy of its own loses the default one, by which services of AWS could publish.
        made.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowService",
                principals=[iam.ServicePrincipal(service)],
                actions=["sns:Publish"],
                resources=[made.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(made).account}},
            )
        )
    cdk.Validations.of(made).acknowledge(cdk.Acknowledgment(id="AwsSolutions-SNS2", reason=unencrypted_because))
    return made


def hear(told: sns.Topic, queue: QueueWithDeadLetters) -> None:
    """Have `queue` get what `told` is told, in the same words: without SNS's envelope.

    What SNS cannot deliver, because the queue refuses it, is in the dead-letter queue, where a person sees it.
    """
    told.add_subscription(
        subscriptions.SqsSubscription(queue.queue, raw_message_delivery=True, dead_letter_queue=queue.dead_letters)
    )

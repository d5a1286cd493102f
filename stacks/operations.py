"""What a person is told: the alerts topic and every alarm that reaches it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.archive import ArchiveStack
from stacks.functions import METRICS_NAMESPACE
from stacks.outputs import output
from stacks.queues import QueueWithDeadLetters
from stacks.settings import Settings
from stacks.storage import StorageStack
from stacks.topics import topic

# A file should be in its archive within about 35 s; minutes of waiting mean that something is stuck.
_BEHIND_S = 300


class OperationsStack(cdk.Stack):
    """The alerts topic and the alarms. Each alarm's description says what to do."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, storage: StorageStack, archive: ArchiveStack
    ) -> None:
        super().__init__(scope, construct_id, description="neve: alerts and alarms")
        self.alerts = topic(
            self,
            "Alerts",
            service="cloudwatch.amazonaws.com",
            unencrypted_because="Alarms cannot publish to a topic under the AWS-managed key. Alerts name queues and "
            "functions, never a file or its content, and travel by TLS only.",
        )
        if settings.alert_email:
            self.alerts.add_subscription(subscriptions.EmailSubscription(settings.alert_email))

        for name, queue in {
            "Collect": storage.collect,
            "Bundles": archive.bundles,
            "Large": archive.large,
            "Sweep": archive.sweep,
        }.items():
            self._dead_letters_alarm(name, queue)

        self._behind_alarm("Collect", storage.collect, threshold_s=_BEHIND_S)
        # A bundle's timer waits in this queue for the maximum age before it is due.
        self._behind_alarm("Bundles", archive.bundles, threshold_s=_BEHIND_S + settings.max_age_s)
        # A large copy holds its message for as long as its function runs.
        self._behind_alarm("Large", archive.large, threshold_s=_BEHIND_S + 6 * settings.copy_timeout_s)

        parking = {
            "Collect": archive.collect_function,
            "WriteArchive": archive.write_archive_function,
            "CopyLarge": archive.copy_large_function,
        }
        for name in parking:
            self._parked_alarm(name)
        for name, function in {**parking, "Sweep": archive.sweep_function}.items():
            self._errors_alarm(name, function)
            self._throttles_alarm(name, function)
        self._sweep_silent_alarm(archive.sweep_function)

        output(self, "AlertsTopic", self.alerts.topic_arn)

    def _dead_letters_alarm(self, name: str, queue: QueueWithDeadLetters) -> None:
        self._alarm(
            f"{name}DeadLetters",
            queue.dead_letters.metric_approximate_number_of_messages_visible(
                period=cdk.Duration.minutes(1), statistic="Maximum"
            ),
            threshold=1,
            description=f"Messages of the {name.lower()} queue failed ten times and wait in its dead-letter queue, "
            "until 14 days after they were sent. Read the function's log for the cause, remedy it, then redrive the "
            "dead-letter queue to its source.",
        )

    def _behind_alarm(self, name: str, queue: QueueWithDeadLetters, *, threshold_s: int) -> None:
        self._alarm(
            f"{name}Behind",
            queue.queue.metric_approximate_age_of_oldest_message(period=cdk.Duration.minutes(1), statistic="Maximum"),
            threshold=threshold_s,
            comparison=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            description=f"Archiving is behind: a message of the {name.lower()} queue is older than {threshold_s} s. "
            "Nothing is lost. Look at the function's errors and throttles; if there are none, files come faster than "
            "its concurrency allows.",
        )

    def _parked_alarm(self, name: str) -> None:
        self._alarm(
            f"{name}Parked",
            cloudwatch.Metric(
                namespace=METRICS_NAMESPACE,
                metric_name="parked",
                dimensions_map={"service": name},
                period=cdk.Duration.minutes(5),
                statistic="Sum",
            ),
            threshold=1,
            description=f"{name} parked something that it can never archive as it is. `neve parked` lists it with the "
            "reason; the file itself is still in the content bucket or was already gone.",
        )

    def _errors_alarm(self, name: str, function: lambda_.Function) -> None:
        self._alarm(
            f"{name}Errors",
            function.metric_errors(period=cdk.Duration.minutes(5), statistic="Sum"),
            threshold=1,
            # A single failure is retried from the queue; three periods in a row are a fault.
            periods=3,
            description=f"{name} has failed in each of the last three periods of 5 minutes. Its messages come back "
            "until they land in the dead-letter queue. Read the function's log.",
        )

    def _throttles_alarm(self, name: str, function: lambda_.Function) -> None:
        self._alarm(
            f"{name}Throttles",
            function.metric_throttles(period=cdk.Duration.minutes(5), statistic="Sum"),
            threshold=1,
            periods=3,
            description=f"{name} was throttled in each of the last three periods of 5 minutes: the account's "
            "concurrency is used up. Throttled deliveries count toward the dead-letter queue. Ask for a higher "
            "quota or find what else uses it.",
        )

    def _sweep_silent_alarm(self, function: lambda_.Function) -> None:
        self._alarm(
            "SweepSilent",
            function.metric_invocations(period=cdk.Duration.hours(1), statistic="Sum"),
            threshold=1,
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            missing=cloudwatch.TreatMissingData.BREACHING,
            description="No sweep has run for an hour, so a bundle whose message was lost would stay unfinished. Check "
            "that the schedule is enabled and that its role may send to the sweep queue.",
        )

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.Metric,
        *,
        threshold: int,
        description: str,
        periods: int = 1,
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            comparison_operator=comparison,
            treat_missing_data=missing,
            alarm_description=description,
        )
        alarm.add_alarm_action(actions.SnsAction(self.alerts))

"""What a person is told, and may do: every alarm that reaches the alerts topic, and the policies for people."""

from __future__ import annotations

import re

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.archive import ArchiveStack
from stacks.audit import AuditStack
from stacks.functions import METRICS_NAMESPACE
from stacks.offload import OffloadStack
from stacks.operators import edge_policy, observer_policy, operator_policy, recovery_policy
from stacks.outputs import output
from stacks.queues import QueueWithDeadLetters
from stacks.restore import RestoreStack
from stacks.serve import ServeStack
from stacks.settings import Settings
from stacks.storage import StorageStack

# A file should be in its archive within about 35 s; minutes of waiting mean that something is stuck.
_BEHIND_S = 300

_COUNTED_WITHIN = cdk.Duration.minutes(5)

# A thaw that S3 does not finish in time is counted when it is an hour late, and about every hour from then on (PATIENCE
# in neve.domain.thaw): the alarm stays on for as long as this lasts.
_OVERDUE_WITHIN = cdk.Duration.hours(2)

# The shards of a pass are sent at once, and a few run at a time.
_SHARDS_WAIT_S = 24 * 3600

# An agent that works takes what is announced at once, however much there is to do.
_ANNOUNCED_FOR_S = 3600

# Relay comes every minute.
_OUTBOX_WAITS_S = 600

# A drill begins on the first of each month, and has a day. CloudWatch looks back 7 days at most, so the sweep of drills
# measures how long ago the last one was.
_DRILLS_STALE_AFTER = cdk.Duration.days(40)


class OperationsStack(cdk.Stack):
    """The alarms, each of which says what to do, and what lets a person do it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        storage: StorageStack,
        archive: ArchiveStack,
        restore: RestoreStack,
        audit: AuditStack,
        offload: OffloadStack,
        serve: ServeStack,
    ) -> None:
        super().__init__(scope, construct_id, description="neve: alarms, and policies for people")
        self._alerts = storage.alerts

        for name, queue in {
            "Collect": storage.collect,
            "Bundles": archive.bundles,
            "Large": archive.large,
            "Backfill": archive.backfill,
            "BackfillBundles": archive.backfill_bundles,
            "BackfillLarge": archive.backfill_large,
            "Sweep": archive.sweep,
            "RestoreRequests": restore.requests,
            "Extract": restore.extract,
            "SweepRestores": restore.sweep,
            "Audits": audit.audits,
            "VerifyAudits": audit.verify,
            "Drills": audit.drills,
            "Reconciles": audit.reconciles,
            "Uploads": storage.uploads,
            "Release": offload.release,
            "Announcements": offload.announcements,
            "Relay": offload.relay,
        }.items():
            self._dead_letters_alarm(name, queue)

        # Of a backfill the dead-letter queues tell, and its executions: nothing of it is urgent.
        for name, function in {
            "Collect": archive.collect_function,
            "WriteArchive": archive.write_archive_function,
            "CopyLarge": archive.copy_large_function,
            "Sweep": archive.sweep_function,
            "PlanRestore": restore.plan_restore_function,
            "Extract": restore.extract_function,
            "SweepRestores": restore.sweep_restores_function,
            "StartAudit": audit.start_audit_function,
            "VerifyAudit": audit.verify_audit_function,
            "Drill": audit.drill_function,
            "Reconcile": audit.reconcile_function,
            "CopyUpload": offload.copy_upload_function,
            "ReleaseUpload": offload.release_upload_function,
            "Relay": offload.relay_function,
            "Resolve": serve.resolve_function,
        }.items():
            self._errors_alarm(name, function)
            self._throttles_alarm(name, function)

        self._alarms_of_archiving(settings, storage, archive)
        self._backfill_alarm(archive)
        self._alarms_of_restoring(settings, restore)
        self._alarms_of_proving(settings, audit)
        self._alarms_of_offloading(settings, storage, offload)
        self._alarms_of_serving(serve)

        for policy in (
            observer_policy(self, settings=settings, storage=storage, archive=archive),
            operator_policy(self, storage=storage, archive=archive, restore=restore, audit=audit),
            recovery_policy(self, storage=storage),
            edge_policy(self, settings=settings, storage=storage, offload=offload),
        ):
            output(self, f"{policy.node.id}Policy", policy.managed_policy_arn)

    def _alarms_of_archiving(self, settings: Settings, storage: StorageStack, archive: ArchiveStack) -> None:
        behind = "Archiving is behind", "files come faster than its concurrency allows"
        self._behind_alarm("Collect", storage.collect, *behind, threshold_s=_BEHIND_S)
        # A bundle's timer waits in this queue for the maximum age before it is due.
        self._behind_alarm("Bundles", archive.bundles, *behind, threshold_s=_BEHIND_S + settings.max_age_s)
        # A large copy holds its message for as long as its function runs.
        self._behind_alarm("Large", archive.large, *behind, threshold_s=_BEHIND_S + 6 * settings.copy_timeout_s)
        for name in ("Collect", "WriteArchive", "CopyLarge"):
            self._counted_alarm(
                f"{name}Parked",
                metric="parked",
                service=name,
                description=f"{name} parked something that it can never archive as it is. `neve parked` lists it with "
                "the reason; the file itself is still in the content bucket or was already gone.",
            )
        self._silent_alarm(
            "Sweep", "Sweep", archive.sweep_function, "a bundle whose message was lost would stay unfinished"
        )

    def _backfill_alarm(self, archive: ArchiveStack) -> None:
        """Executions that did not get to their end, for whatever reason, together: the remedy is the same."""
        ended = {
            metric: archive.backfill_machine.metric(f"Executions{metric}", period=_COUNTED_WITHIN, statistic="Sum")
            for metric in ("Failed", "TimedOut", "Aborted")
        }
        self._alarm(
            "BackfillFailed",
            cloudwatch.MathExpression(
                expression=" + ".join(f"FILL({metric.lower()}, 0)" for metric in ended),
                using_metrics={metric.lower(): each for metric, each in ended.items()},
                period=_COUNTED_WITHIN,
                label="backfills that stand still",
            ),
            threshold=1,
            description="A backfill stands still before it has come to its end. Nothing is lost, and what it announced "
            "is archived. `neve backfill status` says what it was stopped by, and the log of Backfill more; remedy "
            "that, then `neve backfill resume ID` goes on where it was.",
        )

    def _alarms_of_restoring(self, settings: Settings, restore: RestoreStack) -> None:
        behind = "Restoring is behind", "a large restore is under way, and `neve jobs` shows that it gets on"
        # An invocation that was killed keeps its message for six timeouts.
        for name, queue, timeout_s in (
            ("RestoreRequests", restore.requests, settings.plan_timeout_s),
            ("Extract", restore.extract, settings.extract_timeout_s),
        ):
            self._behind_alarm(name, queue, *behind, threshold_s=_BEHIND_S + 6 * timeout_s)
        for name in ("PlanRestore", "Extract"):
            self._parked_message_alarm(name, "a job that lacks the message says so in `neve jobs`")
        self._counted_alarm(
            "ArchiveDamaged",
            metric="damaged",
            service="Extract",
            description="What was read from an archive is not what its manifest states, so these files were not "
            "restored; all others were. `neve parked` names the archive and the members. Keep the source versions that "
            "still stand in the content bucket, look at the versions of the archive's object, and restore other "
            "versions of the files meanwhile (`neve find KEY`).",
        )
        self._counted_alarm(
            "ThawsOverdue",
            metric="overdue",
            service="SweepRestores",
            period=_OVERDUE_WITHIN,
            description="S3 has not thawed an archive within an hour after the time that it promises for the tier. "
            "Nothing is lost, and what waits goes on when it is thawed. Look at the AWS Health Dashboard; `neve jobs` "
            "shows what waits. If it lasts for a day, ask AWS.",
        )
        self._silent_alarm(
            "SweepRestores",
            "SweepRestores",
            restore.sweep_restores_function,
            "a job whose archive was thawed while the event was lost would wait for ever",
        )

    def _alarms_of_proving(self, settings: Settings, audit: AuditStack) -> None:
        behind = (
            "Auditing is behind",
            "a run of many archives is under way, and `neve audit list` shows that it gets on",
        )
        for name, queue in ("Audits", audit.audits), ("VerifyAudits", audit.verify):
            self._behind_alarm(name, queue, *behind, threshold_s=_BEHIND_S + 6 * settings.audit_timeout_s)
        self._behind_alarm(
            "Drills",
            audit.drills,
            "Drills are behind",
            "look at the dead-letter queue",
            threshold_s=_BEHIND_S + 6 * settings.drill_timeout_s,
        )
        self._behind_alarm(
            "Reconciles",
            audit.reconciles,
            "Reconciling is behind",
            "a large pass is under way, and `neve reconcile list` shows that it gets on",
            threshold_s=_SHARDS_WAIT_S,
        )
        self._parked_message_alarm("StartAudit", "an archive that it named wrongly was not audited")
        self._parked_message_alarm("VerifyAudit", "an audit that waits for it is looked after by the sweep")
        self._parked_message_alarm("Drill", "`neve drill list` shows which drills there were")
        self._parked_message_alarm("Reconcile", "`neve reconcile list` shows which passes there were")
        self._counted_alarm(
            "AuditUnread",
            metric="unread",
            service="VerifyAudit",
            description="An archive could not be audited, since it or a source of it could not be read for days, "
            "whatever was tried. That is no difference, and nothing is known to be wrong. `neve audit list` names the "
            "archive and `neve audit show RUN` what S3 answered; remedy that, then `neve audit run --archive ID`.",
        )
        self._counted_alarm(
            "AuditGivenUp",
            metric="unread",
            service="StartAudit",
            description="An archive could not be audited within seven days (more, if it is very large): it was not "
            "thawed, or could not be read. Nothing is known to be wrong. `neve audit list` names it; look at the log "
            "of VerifyAudit and its dead-letter queue, then `neve audit run --archive ID`.",
        )
        self._counted_alarm(
            "AuditsCut",
            metric="cut",
            service="StartAudit",
            period=cdk.Duration.days(1),
            description="The rolling pass has left archives out for its budget of the month, and will not reach every "
            "archive within its horizon. Raise audit_budget_percent or audit_budget_usd, or audit_horizon_days; "
            "`neve audit report` says by when everything will be audited.",
        )
        if settings.audit_every_h:
            self._no_audit_alarm(settings.audit_silent_h)
        if settings.drill_every_month == "yes":
            self._alarm(
                "DrillsStale",
                cloudwatch.Metric(
                    namespace=METRICS_NAMESPACE,
                    metric_name="drill_age_s",
                    dimensions_map={"service": "Drill"},
                    period=cdk.Duration.hours(1),
                    statistic="Maximum",
                ),
                threshold=int(_DRILLS_STALE_AFTER.to_seconds()),
                comparison=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                description="No drill was compared to its end for 40 days, though one begins each month. `neve drill "
                "list` shows the last ones, and `neve drill show ID` what one waits for. "
                "Check that the schedule is enabled; `neve drill run` begins one now.",
            )
        for name, queue_name, function, consequence in (
            ("StartAudit", "Audits", audit.start_audit_function, "audits stand still whose event was lost"),
            ("Drill", "Drills", audit.drill_function, "nobody would be told of a drill that is late"),
            ("Reconcile", "Reconciles", audit.reconcile_function, "a pass stands still whose message was lost"),
        ):
            self._silent_alarm(name, queue_name, function, consequence)

    def _alarms_of_offloading(self, settings: Settings, storage: StorageStack, offload: OffloadStack) -> None:
        copying = (
            "Copying uploads is behind",
            "uploads come faster than its concurrency allows; they are served from the uploads bucket meanwhile",
        )
        self._behind_alarm("Uploads", storage.uploads, *copying, threshold_s=_BEHIND_S + 6 * settings.uploads_timeout_s)
        self._behind_alarm(
            "Release",
            offload.release,
            "Letting uploads go is behind",
            "they only take up room meanwhile",
            # Each waits here until the last URL to the upload has ended.
            threshold_s=_BEHIND_S + settings.release_after_s + 6 * settings.release_timeout_s,
        )
        self._behind_alarm(
            "Announcements",
            offload.announcements,
            "Moving the hosts' files is behind",
            "no agent is at work: `neve edge status` on each host. The files are where they were",
            threshold_s=_ANNOUNCED_FOR_S,
        )
        self._counted_alarm(
            "CopyUploadParked",
            metric="parked",
            service="CopyUpload",
            description="CopyUpload parked an upload that it can never copy as it is. `neve parked` lists it with the "
            "reason. It is served from the uploads bucket, where it stays, and is not archived.",
        )
        self._parked_message_alarm("ReleaseUpload", "the upload stays where it is")
        self._parked_message_alarm("Relay", "`neve parked` shows the message, which its queue refuses for its own sake")
        self._alarm(
            "OutboxWaits",
            cloudwatch.Metric(
                namespace=METRICS_NAMESPACE,
                metric_name="outbox_oldest_s",
                dimensions_map={"service": "Relay"},
                period=_COUNTED_WITHIN,
                statistic="Maximum",
            ),
            threshold=_OUTBOX_WAITS_S,
            comparison=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            description=f"A message has waited in the outbox for more than {_OUTBOX_WAITS_S} s, and everything behind "
            "it waits as well. Nothing is lost. Look at the AWS Health Dashboard for SQS; if it is well, the log of "
            "Relay says what each queue answers.",
        )
        self._counted_alarm(
            "SendingDenied",
            metric="denied",
            service="Relay",
            description="A function was not allowed to send a message to its queue, so Relay sent it for it. Nothing "
            "is lost, but everything comes a minute later. The warnings `outbox` in the functions' logs say which: "
            "deploy the stacks again, and look at what else restricts its role or the queue.",
        )
        self._silent_alarm(
            "Relay", "Relay", offload.relay_function, "messages that SQS did not take would stay in the outbox"
        )

    def _alarms_of_serving(self, serve: ServeStack) -> None:
        self._alarm(
            "ResolveFails",
            cloudwatch.Metric(
                namespace="AWS/Lambda",
                metric_name="Url5xxCount",
                dimensions_map={"FunctionName": serve.resolve_function.function_name},
                period=_COUNTED_WITHIN,
                statistic="Sum",
            ),
            threshold=1,
            # Who asks is told to come again; three periods in a row are a fault.
            periods=3,
            description="Resolve could not look files up in each of the last three periods of 5 minutes, and told who "
            "asked to come again (503). Its log says what failed; look at the AWS Health Dashboard for DynamoDB and "
            "S3. What is redirected already, or cached, is served all the same.",
        )

    def _no_audit_alarm(self, hours: int) -> None:
        """The dead man's switch of audits: it takes an audit that ended, or a draw that found nothing to audit."""
        every_hour = cdk.Duration.hours(1)
        ended, empty = (
            cloudwatch.Metric(
                namespace=METRICS_NAMESPACE,
                metric_name=metric,
                dimensions_map={"service": service},
                period=every_hour,
                statistic="Sum",
            )
            for metric, service in (("audited", "VerifyAudit"), ("nothing_to_audit", "StartAudit"))
        )
        self._alarm(
            "AuditSilent",
            cloudwatch.MathExpression(
                expression="FILL(ended, 0) + FILL(empty, 0)",
                using_metrics={"ended": ended, "empty": empty},
                period=every_hour,
                label="audits that ended",
            ),
            threshold=1,
            periods=hours,
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            missing=cloudwatch.TreatMissingData.BREACHING,
            description=f"No audit has ended for {hours} hours, so damage would go unseen. `neve audit list` shows "
            "which runs were drawn and what they wait for. Look at the logs of StartAudit and VerifyAudit, and check "
            "that the schedule is enabled. In a new deployment this is on until the first audit has ended: with "
            "DEEP_ARCHIVE two days after the first archive.",
        )

    def _parked_message_alarm(self, name: str, consequence: str) -> None:
        self._counted_alarm(
            f"{name}Parked",
            metric="parked",
            service=name,
            description=f"{name} parked a message that it can make nothing of. `neve parked` shows it, with what is "
            f"wrong. No file was touched; {consequence}.",
        )

    def _dead_letters_alarm(self, name: str, queue: QueueWithDeadLetters) -> None:
        self._alarm(
            f"{name}DeadLetters",
            queue.dead_letters.metric_approximate_number_of_messages_visible(
                period=cdk.Duration.minutes(1), statistic="Maximum"
            ),
            threshold=1,
            description=f"Messages of the {_words(name)} queue failed ten times, or could not be delivered to it, and "
            "wait in its dead-letter queue, until 14 days after they were sent. Read the function's log for the cause, "
            "remedy it, then redrive the dead-letter queue to its source.",
        )

    def _behind_alarm(
        self, name: str, queue: QueueWithDeadLetters, behind: str, otherwise: str, *, threshold_s: int
    ) -> None:
        self._alarm(
            f"{name}Behind",
            queue.queue.metric_approximate_age_of_oldest_message(period=cdk.Duration.minutes(1), statistic="Maximum"),
            threshold=threshold_s,
            comparison=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            description=f"{behind}: a message of the {_words(name)} queue is older than {threshold_s} s. "
            f"Nothing is lost. Look at the function's errors and throttles; if there are none, {otherwise}.",
        )

    def _counted_alarm(
        self,
        construct_id: str,
        *,
        metric: str,
        service: str,
        description: str,
        period: cdk.Duration = _COUNTED_WITHIN,
    ) -> None:
        """An alarm on the first that function `service` counts in its own `metric`."""
        self._alarm(
            construct_id,
            cloudwatch.Metric(
                namespace=METRICS_NAMESPACE,
                metric_name=metric,
                dimensions_map={"service": service},
                period=period,
                statistic="Sum",
            ),
            threshold=1,
            description=description,
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

    def _silent_alarm(self, name: str, queue_name: str, function: lambda_.Function, consequence: str) -> None:
        self._alarm(
            f"{name}Silent",
            function.metric_invocations(period=cdk.Duration.hours(1), statistic="Sum"),
            threshold=1,
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            missing=cloudwatch.TreatMissingData.BREACHING,
            description=f"{name} has not run for an hour, so {consequence}. Check that the schedule is enabled and "
            f"that its role may send to the {_words(queue_name)} queue.",
        )

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.IMetric,
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
        alarm.add_alarm_action(actions.SnsAction(self._alerts))


def _words(name: str) -> str:
    """`restore requests` for RestoreRequests."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()

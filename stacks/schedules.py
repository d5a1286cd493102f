"""How a sweep is asked for: by a message to its queue, every quarter of an hour."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

SWEEP_EVERY = cdk.Duration.minutes(15)

# A sweep that waited for an hour has been overtaken by four others.
SWEEP_RETENTION = cdk.Duration.hours(1)


def sweep_schedule(scope: Construct, name: str, queue: sqs.Queue, *, description: str) -> None:
    """A message to `queue`, that of sweep `name`, every SWEEP_EVERY, by a role that can do this and nothing else."""
    role = iam.Role(
        scope,
        f"{name}ScheduleRole",
        assumed_by=iam.ServicePrincipal(
            "scheduler.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}}
        ),
    )
    role.add_to_policy(iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn]))
    schedule = scheduler.CfnSchedule(
        scope,
        f"{name}Schedule",
        description=description,
        schedule_expression=f"rate({SWEEP_EVERY.to_minutes():.0f} minutes)",
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=scheduler.CfnSchedule.TargetProperty(
            arn=queue.queue_arn,
            role_arn=role.role_arn,
            input='{"message": "sweep"}',
            # The next sweep does what a failed one would have done; an alarm tells when all of them fail.
            retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=600, maximum_retry_attempts=5
            ),
        ),
    )
    # The role's policy is a resource of its own, which the schedule's ARN does not wait for.
    schedule.node.add_dependency(role)

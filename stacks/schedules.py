"""How something is asked for at its time: by a message to its function's queue."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

SWEEP_EVERY = cdk.Duration.minutes(15)
SWEEPING = f"rate({SWEEP_EVERY.to_minutes():.0f} minutes)"

# A sweep that waited for an hour has been overtaken by four others.
SWEEP_RETENTION = cdk.Duration.hours(1)


def schedule(
    scope: Construct,
    name: str,
    queue: sqs.Queue,
    *,
    expression: str = SWEEPING,
    message: str = "sweep",
    description: str,
) -> None:
    """`{"message": <message>}` to `queue` as often as `expression` says (UTC), by a role that can do this and no more.

    `expression` is one of EventBridge Scheduler, such as `rate(1 hour)`; by default a sweep is asked for.
    """
    role = iam.Role(
        scope,
        f"{name}ScheduleRole",
        assumed_by=iam.ServicePrincipal(
            "scheduler.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}}
        ),
    )
    role.add_to_policy(iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn]))
    made = scheduler.CfnSchedule(
        scope,
        f"{name}Schedule",
        description=description,
        schedule_expression=expression,
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=scheduler.CfnSchedule.TargetProperty(
            arn=queue.queue_arn,
            role_arn=role.role_arn,
            input=json.dumps({"message": message}),
            # What could not be sent for an hour, a later sweep or run makes up for; an alarm tells if that is long.
            retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=3600, maximum_retry_attempts=185
            ),
        ),
    )
    # The role's policy is a resource of its own, which the schedule's ARN does not wait for.
    made.node.add_dependency(role)

"""Promises of queues: each has a dead-letter queue, each dead-letter queue an alarm, visibility follows timeouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from neve.aws.invocation import backoff_s
from neve.errors import Transient
from tests.infra.templates import Templates, statements

OTHER_TIMES = {
    "collect_timeout_s": "10",
    "write_timeout_s": "11",
    "copy_timeout_s": "12",
    "sweep_timeout_s": "13",
    "plan_timeout_s": "14",
    "extract_timeout_s": "15",
    "max_age_s": "900",
}


def pairs(templates: Templates) -> dict[str, str]:
    """Each queue that a function reads, and its dead-letter queue, by name."""
    queues = templates.of_kind("AWS::SQS::Queue")
    return {
        name: templates.rendered(queue)["RedrivePolicy"]["deadLetterTargetArn"]
        for name, queue in queues.items()
        if "RedrivePolicy" in queue.properties
    }


def mappings(templates: Templates) -> dict[str, dict[str, Any]]:
    """The event source mapping of each function, by the function's name."""
    rendered = map(templates.rendered, templates.of_kind("AWS::Lambda::EventSourceMapping").values())
    return {mapping["FunctionName"]: mapping for mapping in rendered}


def visibility(templates: Templates) -> dict[str, int]:
    """The visibility timeout of the queue of each function, in seconds."""
    queues = templates.of_kind("AWS::SQS::Queue")
    return {
        function: queues[mapping["EventSourceArn"]].properties["VisibilityTimeout"]
        for function, mapping in mappings(templates).items()
    }


def test_every_queue_is_a_dead_letter_queue_or_has_one_of_its_own(templates: Templates) -> None:
    names = set(templates.of_kind("AWS::SQS::Queue"))
    behind = pairs(templates)
    assert names == set(behind) | set(behind.values())
    assert len(set(behind.values())) == len(behind), "two queues share a dead-letter queue"
    for name in behind:
        policy = templates.of_kind("AWS::SQS::Queue")[name].properties["RedrivePolicy"]
        assert policy["maxReceiveCount"] >= 5, name


def test_deliveries_outlast_an_outage_of_an_hour_and_a_bug_is_in_the_dead_letter_queue_within_half_an_hour(
    templates: Templates,
) -> None:
    for name in pairs(templates):
        times = templates.of_kind("AWS::SQS::Queue")[name].properties["RedrivePolicy"]["maxReceiveCount"]
        before = range(1, times)
        assert sum(backoff_s(Transient("503"), delivery) for delivery in before) > 3_600, name
        assert sum(backoff_s(ValueError("bug"), delivery) for delivery in before) < 1_800, name


def test_a_dead_letter_queue_keeps_messages_longer_than_the_queue_before_it(templates: Templates) -> None:
    queues = templates.of_kind("AWS::SQS::Queue")
    days = 24 * 3600
    for name, dead_letters in pairs(templates).items():
        assert queues[dead_letters].properties["MessageRetentionPeriod"] == 14 * days, name
        # A message keeps its age when it moves.
        assert queues[name].properties["MessageRetentionPeriod"] <= 10 * days, name


def test_every_queue_is_encrypted_and_reached_by_tls_only(templates: Templates) -> None:
    policies = [templates.rendered(policy) for policy in templates.of_kind("AWS::SQS::QueuePolicy").values()]
    for name, queue in templates.of_kind("AWS::SQS::Queue").items():
        assert queue.properties["SqsManagedSseEnabled"] is True, name
        assert any(
            statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            for policy in policies
            if policy["Queues"] == [name]
            for statement in statements(policy["PolicyDocument"])
        ), name


def test_every_function_takes_its_events_from_a_queue_with_a_limit_and_may_fail_in_part(templates: Templates) -> None:
    by_function = mappings(templates)
    assert set(by_function) == set(templates.of_kind("AWS::Lambda::Function"))
    for function, mapping in by_function.items():
        assert mapping["EventSourceArn"] in pairs(templates), function
        assert 2 <= mapping["ScalingConfig"]["MaximumConcurrency"] <= 1000, function
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], function
        # AWS refuses batches above 10 without a window of at least a second.
        assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1, function


def test_collect_takes_batches_and_the_others_one_message_at_a_time(templates: Templates) -> None:
    assert {function: mapping["BatchSize"] for function, mapping in mappings(templates).items()} == {
        "Collect": 1000,
        "WriteArchive": 1,
        "CopyLarge": 1,
        "Sweep": 1,
        "PlanRestore": 1,
        "Extract": 1,
        "SweepRestores": 1,
    }


def test_each_function_has_the_queue_that_is_meant_for_it(templates: Templates) -> None:
    assert {function: mapping["EventSourceArn"] for function, mapping in mappings(templates).items()} == {
        "Collect": "CollectQueue",
        "WriteArchive": "BundlesQueue",
        "CopyLarge": "LargeQueue",
        "Sweep": "SweepQueue",
        "PlanRestore": "RestoreRequestsQueue",
        "Extract": "ExtractQueue",
        "SweepRestores": "SweepRestoresQueue",
    }


def test_a_message_stays_hidden_for_six_timeouts_and_the_window(templates: Templates) -> None:
    functions = templates.of_kind("AWS::Lambda::Function")
    for function, mapping in mappings(templates).items():
        window_s = mapping.get("MaximumBatchingWindowInSeconds", 0)
        timeout_s = functions[function].properties["Timeout"]
        assert visibility(templates)[function] >= 6 * timeout_s + window_s, function


def test_visibility_follows_the_timeouts(synthesized: Callable[..., Templates]) -> None:
    assert visibility(synthesized(**OTHER_TIMES)) == {
        "Collect": 61,
        "WriteArchive": 66,
        "CopyLarge": 72,
        "Sweep": 78,
        "PlanRestore": 84,
        "Extract": 90,
        "SweepRestores": 84,
    }


@pytest.mark.parametrize("sweep", ["Sweep", "SweepRestores"])
def test_a_sweep_is_asked_for_every_15_minutes_by_a_role_that_can_do_nothing_else(
    templates: Templates, sweep: str
) -> None:
    schedule = templates.rendered(templates.of_kind("AWS::Scheduler::Schedule")[f"{sweep}Schedule"])
    assert schedule["ScheduleExpression"] == "rate(15 minutes)"
    assert schedule["Target"]["Arn"] == f"{sweep}Queue"
    role = schedule["Target"]["RoleArn"]
    assert role not in {templates.rendered(f)["Role"] for f in templates.of_kind("AWS::Lambda::Function").values()}
    [policy] = [
        rendered
        for rendered in map(templates.rendered, templates.of_kind("AWS::IAM::Policy").values())
        if rendered["Roles"] == [role]
    ]
    [statement] = statements(policy["PolicyDocument"])
    assert (statement["Action"], statement["Resource"]) == (["sqs:SendMessage"], [f"{sweep}Queue"])


@pytest.mark.parametrize("sweep", ["Sweep", "SweepRestores"])
def test_a_sweep_that_waited_for_an_hour_is_dropped(templates: Templates, sweep: str) -> None:
    assert templates.of_kind("AWS::SQS::Queue")[f"{sweep}Queue"].properties["MessageRetentionPeriod"] == 3600


def test_what_s3_says_of_thaws_reaches_extract_as_s3_says_it(templates: Templates) -> None:
    [subscription] = map(templates.rendered, templates.of_kind("AWS::SNS::Subscription").values())
    assert (subscription["TopicArn"], subscription["Protocol"]) == ("ThawedTopic", "sqs")
    assert (subscription["Endpoint"], subscription["RawMessageDelivery"]) == ("ExtractQueue", True)
    assert subscription["RedrivePolicy"] == {"deadLetterTargetArn": "ExtractDeadLetterQueue"}

    policies = [templates.rendered(policy) for policy in templates.of_kind("AWS::SQS::QueuePolicy").values()]
    for queue in ("ExtractQueue", "ExtractDeadLetterQueue"):
        [sending] = [
            statement
            for policy in policies
            if policy["Queues"] == [queue]
            for statement in statements(policy["PolicyDocument"])
            if statement["Effect"] == "Allow" and statement["Principal"] == {"Service": "sns.amazonaws.com"}
        ]
        assert (sending["Action"], sending["Resource"]) == (["sqs:SendMessage"], [queue])
        assert "ThawedTopic" in str(sending["Condition"])

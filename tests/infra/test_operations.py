"""Promises of operations: what goes wrong reaches a person, who is told what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.infra.templates import Templates, statements
from tests.infra.test_queues import pairs


def alarms(templates: Templates) -> dict[str, dict[str, Any]]:
    return {name: templates.rendered(alarm) for name, alarm in templates.of_kind("AWS::CloudWatch::Alarm").items()}


def alarms_on(templates: Templates, metric: str, **dimensions: str) -> list[dict[str, Any]]:
    wanted = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    return [a for a in alarms(templates).values() if a["MetricName"] == metric and a["Dimensions"] == wanted]


def test_every_dead_letter_queue_has_an_alarm_for_its_first_message(templates: Templates) -> None:
    for dead_letters in pairs(templates).values():
        [alarm] = alarms_on(templates, "ApproximateNumberOfMessagesVisible", QueueName=dead_letters)
        assert alarm["Namespace"] == "AWS/SQS"
        assert alarm["Threshold"] == 1
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert alarm["EvaluationPeriods"] == 1


def test_every_alarm_reaches_the_alerts_topic_and_says_what_to_do(templates: Templates) -> None:
    for name, alarm in alarms(templates).items():
        assert alarm["AlarmActions"] == ["Alerts"], name
        assert alarm.get("ActionsEnabled", True) is True, name
        assert len(alarm["AlarmDescription"]) > 80, name
        # The limit of CloudWatch.
        assert len(alarm["AlarmDescription"]) <= 1024, name


def test_alarms_may_publish_to_the_alerts_topic_and_only_by_tls(templates: Templates) -> None:
    [policy] = map(templates.rendered, templates.of_kind("AWS::SNS::TopicPolicy").values())
    assert policy["Topics"] == ["Alerts"]
    found = statements(policy["PolicyDocument"])
    [allowed] = [statement for statement in found if statement["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed["Action"] == ["sns:Publish"]
    assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert any(
        statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in found
    )


def test_an_alarm_tells_of_everything_that_is_parked(templates: Templates) -> None:
    for function in ("Collect", "WriteArchive", "CopyLarge"):
        [alarm] = alarms_on(templates, "parked", service=function)
        assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Sum", 1)


def test_an_alarm_tells_when_archiving_is_five_minutes_behind(synthesized: Callable[..., Templates]) -> None:
    # A bundle's timer is meant to wait in the bundles queue for the maximum age.
    for max_age_s in (20, 900):
        templates = (
            synthesized()
            if max_age_s == 20
            else synthesized(
                collect_timeout_s="10", write_timeout_s="11", copy_timeout_s="12", sweep_timeout_s="13", max_age_s="900"
            )
        )
        [collect] = alarms_on(templates, "ApproximateAgeOfOldestMessage", QueueName="CollectQueue")
        [bundles] = alarms_on(templates, "ApproximateAgeOfOldestMessage", QueueName="BundlesQueue")
        assert collect["Threshold"] == 300
        assert bundles["Threshold"] == 300 + max_age_s


def test_every_function_has_alarms_for_errors_and_throttles(templates: Templates) -> None:
    for function in templates.of_kind("AWS::Lambda::Function"):
        for metric in ("Errors", "Throttles"):
            assert len(alarms_on(templates, metric, FunctionName=function)) == 1, (function, metric)


def test_silence_of_the_sweep_is_an_alarm_too(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "Invocations", FunctionName="Sweep")
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    assert alarm["TreatMissingData"] == "breaching"


def test_alerts_are_mailed_where_the_setting_says(synthesized: Callable[..., Templates], templates: Templates) -> None:
    [subscription] = map(
        templates.rendered, synthesized(alert_email="ops@example.org").of_kind("AWS::SNS::Subscription").values()
    )
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.org")
    document = templates.documents["neve-operations"]
    assert "AWS::SNS::Subscription" not in {body["Type"] for body in document["Resources"].values()}

"""Promises of operations: what goes wrong reaches a person, who is told what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.thaw import PATIENCE
from stacks.schedules import SWEEP_EVERY
from stacks.settings import read_settings
from tests.infra.templates import Templates, statements
from tests.infra.test_functions import PROOF_SETTINGS, SAME_CODE
from tests.infra.test_queues import NOTHING_BY_ITSELF, OTHER_FIGURES, pairs

SECOND_DEPLOYMENT = {"name": "press-2", "alert_email": "ops@example.org"}


def alarms(templates: Templates) -> dict[str, dict[str, Any]]:
    return {name: templates.rendered(alarm) for name, alarm in templates.of_kind("AWS::CloudWatch::Alarm").items()}


def alarms_on(templates: Templates, metric: str, **dimensions: str) -> list[dict[str, Any]]:
    wanted = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    found = alarms(templates).values()
    return [a for a in found if a.get("MetricName") == metric and a["Dimensions"] == wanted]


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


def topic_policies(templates: Templates) -> dict[str, list[dict[str, Any]]]:
    """The statements of each topic's policy, by the topic's name."""
    policies = map(templates.rendered, templates.of_kind("AWS::SNS::TopicPolicy").values())
    return {topic: statements(policy["PolicyDocument"]) for policy in policies for topic in policy["Topics"]}


def test_alarms_may_publish_to_the_alerts_topic_and_only_by_tls(templates: Templates) -> None:
    [allowed] = [statement for statement in topic_policies(templates)["Alerts"] if statement["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed["Action"] == ["sns:Publish"]
    assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_every_topic_is_reached_by_tls_only(templates: Templates) -> None:
    policies = topic_policies(templates)
    assert set(policies) == set(templates.of_kind("AWS::SNS::Topic"))
    for topic, found in policies.items():
        assert any(
            statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            for statement in found
        ), topic


def test_no_service_of_aws_may_publish_that_a_job_has_ended(templates: Templates) -> None:
    assert [s for s in topic_policies(templates)["RestoredTopic"] if s["Effect"] == "Allow"] == []


def test_an_alarm_tells_of_everything_that_is_parked(templates: Templates) -> None:
    parking = {
        variables["POWERTOOLS_SERVICE_NAME"]
        for variables in function_variables(templates).values()
        if "NEVE_PARKED_TABLE" in variables
    }
    assert parking == {
        *("Collect", "WriteArchive", "CopyLarge", "PlanRestore", "Extract"),
        *("StartAudit", "VerifyAudit", "Drill", "Reconcile"),
        *("CopyUpload", "ReleaseUpload", "Relay"),
    }
    for function in parking:
        [alarm] = alarms_on(templates, "parked", service=function)
        assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Sum", 1)


def function_variables(templates: Templates) -> dict[str, dict[str, str]]:
    return {
        name: made.properties["Environment"]["Variables"]
        for name, made in templates.of_kind("AWS::Lambda::Function").items()
    }


def test_an_alarm_tells_that_an_archive_is_damaged_at_its_first_file(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "damaged", service="Extract")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Sum", 1)
    assert (alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (1, "notBreaching")
    assert "neve parked" in alarm["AlarmDescription"]


def test_an_alarm_tells_of_a_thaw_that_is_late_and_stays_on_while_it_is(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "overdue", service="SweepRestores")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Sum", 1)
    # A late thaw is looked at again after PATIENCE, by the next sweep, and counted each time.
    between_counts = PATIENCE + timedelta(minutes=SWEEP_EVERY.to_minutes())
    assert timedelta(seconds=alarm["Period"]) * alarm["EvaluationPeriods"] > between_counts


@pytest.mark.parametrize("given", [{}, OTHER_FIGURES], ids=["defaults", "other figures"])
def test_an_alarm_tells_when_a_queue_is_behind(synthesized: Callable[..., Templates], given: dict[str, str]) -> None:
    templates, settings = synthesized(**given), read_settings(given)
    thresholds = {
        queue: alarms_on(templates, "ApproximateAgeOfOldestMessage", QueueName=f"{queue}Queue")[0]["Threshold"]
        for queue in (
            *("Collect", "Bundles", "Large", "RestoreRequests", "Extract"),
            *("Audits", "VerifyAudits", "Drills", "Reconciles"),
            *("Uploads", "Release", "Announcements"),
        )
    }
    assert thresholds == {
        "Collect": 300,
        # A bundle's timer is meant to wait in the bundles queue for the maximum age.
        "Bundles": 300 + settings.max_age_s,
        # A message stays with an invocation that works on it, or was killed.
        "Large": 300 + 6 * settings.copy_timeout_s,
        "RestoreRequests": 300 + 6 * settings.plan_timeout_s,
        "Extract": 300 + 6 * settings.extract_timeout_s,
        "Audits": 300 + 6 * settings.audit_timeout_s,
        "VerifyAudits": 300 + 6 * settings.audit_timeout_s,
        "Drills": 300 + 6 * settings.drill_timeout_s,
        # All shards of a pass are sent at once.
        "Reconciles": 86_400,
        "Uploads": 300 + 6 * settings.uploads_timeout_s,
        # A message is meant to wait here until the last URL to its upload has ended.
        "Release": 300 + settings.release_after_s + 6 * settings.release_timeout_s,
        "Announcements": 3600,
    }


def test_every_function_but_those_of_a_backfill_has_alarms_for_errors_and_throttles(templates: Templates) -> None:
    """A backfill's messages end in a dead-letter queue, and its execution fails, which have alarms: none is urgent."""
    for function in set(templates.of_kind("AWS::Lambda::Function")) - {*SAME_CODE, "Backfill"}:
        for metric in ("Errors", "Throttles"):
            assert len(alarms_on(templates, metric, FunctionName=function)) == 1, (function, metric)


def test_an_alarm_tells_of_a_backfill_that_stands_still_however_its_execution_ended(templates: Templates) -> None:
    alarm = alarms(templates)["BackfillFailed"]
    metrics = [each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each]
    machine = [{"Name": "StateMachineArn", "Value": "BackfillStateMachine"}]
    assert {each["Metric"]["MetricName"]: (each["Metric"]["Dimensions"], each["Stat"]) for each in metrics} == {
        f"Executions{how}": (machine, "Sum") for how in ("Failed", "TimedOut", "Aborted")
    }
    [summed] = [each for each in alarm["Metrics"] if "Expression" in each]
    assert summed["Expression"] == "FILL(failed, 0) + FILL(timedout, 0) + FILL(aborted, 0)"
    assert (alarm["Threshold"], alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (1, 1, "notBreaching")
    assert "neve backfill resume" in alarm["AlarmDescription"]


@pytest.mark.parametrize("sweep", ["Sweep", "SweepRestores", "StartAudit", "Drill", "Reconcile", "Relay"])
def test_silence_of_a_sweep_is_an_alarm_too(templates: Templates, sweep: str) -> None:
    [alarm] = alarms_on(templates, "Invocations", FunctionName=sweep)
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    assert alarm["TreatMissingData"] == "breaching"


def test_an_alarm_tells_of_an_archive_that_could_not_be_audited(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "unread", service="VerifyAudit")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Sum", 1)
    assert "neve audit show" in alarm["AlarmDescription"]


def test_an_alarm_tells_what_waits_in_the_outbox_for_longer_than_relays_take(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "outbox_oldest_s", service="Relay")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Maximum", 600)
    assert (alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (1, "notBreaching")
    [denied] = alarms_on(templates, "denied", service="Relay")
    assert (denied["Namespace"], denied["Statistic"], denied["Threshold"]) == ("neve", "Sum", 1)


def test_an_alarm_tells_that_files_cannot_be_looked_up(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "Url5xxCount", FunctionName="Resolve")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("AWS/Lambda", "Sum", 1)
    assert (alarm["Period"], alarm["EvaluationPeriods"]) == (300, 3)


def test_no_alarm_doubles_what_audits_drills_and_reconciliations_mail_themselves(templates: Templates) -> None:
    told = {"discrepancies", "drill_failed", "missing", "orphaned", "mismatching"}
    assert not told & {alarm.get("MetricName") for alarm in alarms(templates).values()}


@pytest.mark.parametrize(("given", "hours"), [({}, 48), (PROOF_SETTINGS, 168)], ids=["default", "longest"])
def test_an_alarm_tells_that_no_audit_has_ended_for_the_hours_of_the_setting(
    synthesized: Callable[..., Templates], given: dict[str, str], hours: int
) -> None:
    alarm = alarms(synthesized(**given))["AuditSilent"]
    metrics = {each["Id"]: each for each in alarm["Metrics"]}
    [summed] = [each for each in metrics.values() if each.get("ReturnData", True)]
    assert summed["Expression"] == "FILL(ended, 0) + FILL(empty, 0)"
    counted = {
        name: (stat["Metric"]["MetricName"], stat["Metric"]["Dimensions"][0]["Value"], stat["Period"], stat["Stat"])
        for name, stat in ((name, metrics[name]["MetricStat"]) for name in ("ended", "empty"))
    }
    assert counted == {
        "ended": ("audited", "VerifyAudit", 3600, "Sum"),
        # Where nothing is archived nothing can be audited, and nobody is called at night.
        "empty": ("nothing_to_audit", "StartAudit", 3600, "Sum"),
    }
    assert alarm["EvaluationPeriods"] == hours
    # CloudWatch: periods of an hour or more, over at most 7 days.
    assert alarm["EvaluationPeriods"] * 3600 <= 7 * 24 * 3600
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, "LessThanThreshold")
    assert alarm["TreatMissingData"] == "breaching"


def test_what_is_turned_off_is_not_missed(synthesized: Callable[..., Templates], templates: Templates) -> None:
    missed = {"AuditSilent", "DrillsStale"}
    assert missed <= set(alarms(templates))
    assert not missed & set(alarms(synthesized(**NOTHING_BY_ITSELF)))


def test_an_alarm_tells_that_a_monthly_drill_did_not_come(templates: Templates) -> None:
    [alarm] = alarms_on(templates, "drill_age_s", service="Drill")
    assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("neve", "Maximum", 40 * 24 * 3600)
    assert alarm["TreatMissingData"] == "notBreaching"


def test_alerts_are_mailed_where_the_setting_says(synthesized: Callable[..., Templates], templates: Templates) -> None:
    def mailed(to: Templates) -> list[tuple[str, str]]:
        subscriptions = map(to.rendered, to.of_kind("AWS::SNS::Subscription").values())
        return [(each["TopicArn"], each["Endpoint"]) for each in subscriptions if each["Protocol"] == "email"]

    assert mailed(synthesized(**SECOND_DEPLOYMENT)) == [("Alerts", "ops@example.org")]
    assert mailed(templates) == []

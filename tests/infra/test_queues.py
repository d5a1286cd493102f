"""Promises of queues: each has a dead-letter queue, each dead-letter queue an alarm, visibility follows timeouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from neve.aws.invocation import backoff_s
from neve.domain import audit, drill, reconcile
from neve.errors import Transient
from scale.capacity import BACKFILL_BATCH, FIXED_AT_ONCE
from tests.infra.templates import Resource, Templates, statements

OTHER_FIGURES = {
    "collect_timeout_s": "10",
    "write_timeout_s": "11",
    "copy_timeout_s": "12",
    "sweep_timeout_s": "13",
    "plan_timeout_s": "14",
    "extract_timeout_s": "15",
    "audit_timeout_s": "16",
    "drill_timeout_s": "67",
    "reconcile_timeout_s": "18",
    "uploads_timeout_s": "19",
    "release_timeout_s": "20",
    "relay_timeout_s": "21",
    "max_age_s": "900",
    "audit_every_h": "6",
    "collect_window_s": "8",
    "collect_concurrency": "3",
    "write_concurrency": "4",
    "copy_concurrency": "5",
    "uploads_concurrency": "6",
    "backfill_write_concurrency": "7",
    "backfill_collect_concurrency": "8",
    "plan_concurrency": "10",
    "extract_concurrency": "11",
    "backfill_shards_at_once": "9",
    "backfill_timeout_s": "22",
}
QUEUE_AND_DEAD_LETTERS = ("Queue", "DeadLetterQueue")


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
    # Who asks Resolve waits for its answer. Step Functions keeps what Backfill has to do, and calls again what failed.
    assert set(by_function) == set(templates.of_kind("AWS::Lambda::Function")) - {"Resolve", "Backfill"}
    for function, mapping in by_function.items():
        assert mapping["EventSourceArn"] in pairs(templates), function
        assert 2 <= mapping["ScalingConfig"]["MaximumConcurrency"] <= 1000, function
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], function
        # AWS refuses batches above 10 without a window of at least a second.
        assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1, function


def test_a_function_takes_many_messages_at_once_only_if_each_is_quick(templates: Templates) -> None:
    assert {function: mapping["BatchSize"] for function, mapping in mappings(templates).items()} == {
        "Collect": 1000,
        "WriteArchive": 1,
        "CopyLarge": 1,
        "Sweep": 1,
        "PlanRestore": 1,
        "Extract": 1,
        "SweepRestores": 1,
        "StartAudit": 1,
        "VerifyAudit": 1,
        "Drill": 1,
        "Reconcile": 1,
        "CopyUpload": 10,
        "ReleaseUpload": 10,
        "Relay": 1,
        "CollectBackfill": 1,
        "WriteBackfill": 1,
        "CopyBackfill": 1,
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
        "StartAudit": "AuditsQueue",
        "VerifyAudit": "VerifyAuditsQueue",
        "Drill": "DrillsQueue",
        "Reconcile": "ReconcilesQueue",
        "CopyUpload": "UploadsQueue",
        "ReleaseUpload": "ReleaseQueue",
        "Relay": "RelayQueue",
        "CollectBackfill": "BackfillQueue",
        "WriteBackfill": "BackfillBundlesQueue",
        "CopyBackfill": "BackfillLargeQueue",
    }


def test_the_settings_say_how_many_run_at_once(synthesized: Callable[..., Templates], templates: Templates) -> None:
    def at_once(of: Templates) -> dict[str, int]:
        asked = (
            "Collect",
            "WriteArchive",
            "CopyLarge",
            "CopyUpload",
            "PlanRestore",
            "Extract",
            "CollectBackfill",
            "WriteBackfill",
            "CopyBackfill",
        )
        return {name: mappings(of)[name]["ScalingConfig"]["MaximumConcurrency"] for name in asked}

    assert list(at_once(templates).values()) == [10, 20, 10, 20, 2, 20, 2, 10, 10]
    assert list(at_once(synthesized(**OTHER_FIGURES)).values()) == [3, 4, 5, 6, 10, 11, 8, 7, 7]


def test_what_no_setting_says_is_what_docs_scale_reckons_with(templates: Templates) -> None:
    deployed = mappings(templates)
    at_once = {name: deployed[name]["ScalingConfig"]["MaximumConcurrency"] for name in FIXED_AT_ONCE}
    assert at_once == FIXED_AT_ONCE
    assert deployed["CollectBackfill"]["BatchSize"] == BACKFILL_BATCH


def test_a_message_stays_hidden_for_six_timeouts_and_the_window(templates: Templates) -> None:
    functions = templates.of_kind("AWS::Lambda::Function")
    for function, mapping in mappings(templates).items():
        window_s = mapping.get("MaximumBatchingWindowInSeconds", 0)
        timeout_s = functions[function].properties["Timeout"]
        assert visibility(templates)[function] >= 6 * timeout_s + window_s, function


def test_visibility_follows_the_timeouts(synthesized: Callable[..., Templates]) -> None:
    assert visibility(synthesized(**OTHER_FIGURES)) == {
        "Collect": 68,
        "WriteArchive": 66,
        "CopyLarge": 72,
        "Sweep": 78,
        "PlanRestore": 84,
        "Extract": 90,
        "SweepRestores": 84,
        "StartAudit": 96,
        "VerifyAudit": 96,
        "Drill": 402,
        "Reconcile": 108,
        "CopyUpload": 114,
        "ReleaseUpload": 120,
        "Relay": 126,
        "CollectBackfill": 66,
        "WriteBackfill": 66,
        "CopyBackfill": 72,
    }


EVERY_15_MINUTES, SWEEP = "rate(15 minutes)", '{"message": "sweep"}'
SWEEPS = {
    name: (EVERY_15_MINUTES, SWEEP, queue)
    for name, queue in {
        "Sweep": "Sweep",
        "SweepRestores": "SweepRestores",
        "AuditsSweep": "Audits",
        "DrillsSweep": "Drills",
        "ReconcilesSweep": "Reconciles",
    }.items()
} | {"Relay": ("rate(1 minute)", '{"message": "relay"}', "Relay")}
BY_THE_CLOCK = {
    "Audits": ("rate(1 hour)", audit.DRAW, "Audits"),
    "Drills": ("cron(0 4 1 * ? *)", '{"message": "start"}', "Drills"),
    "Reconciles": ("cron(0 3 ? * SUN *)", '{"message": "reconcile"}', "Reconciles"),
}
NOTHING_BY_ITSELF = {
    "audit_every_h": "0",
    "audit_horizon_days": "0",
    "drill_every_month": "no",
    "reconcile_every_week": "no",
}


def schedules(templates: Templates) -> dict[str, tuple[str, str, str]]:
    """When each schedule sends what to which queue."""
    found = {
        name.removesuffix("Schedule"): templates.rendered(schedule)
        for name, schedule in templates.of_kind("AWS::Scheduler::Schedule").items()
    }
    return {
        name: (each["ScheduleExpression"], each["Target"]["Input"], each["Target"]["Arn"].removesuffix("Queue"))
        for name, each in found.items()
    }


def test_what_is_due_is_asked_for_by_a_schedule(templates: Templates) -> None:
    assert schedules(templates) == SWEEPS | BY_THE_CLOCK


def test_the_settings_say_how_often_it_is_due_and_sweeps_go_on_without(synthesized: Callable[..., Templates]) -> None:
    assert schedules(synthesized(**NOTHING_BY_ITSELF)) == SWEEPS
    assert schedules(synthesized(**OTHER_FIGURES))["Audits"] == ("rate(6 hours)", audit.DRAW, "Audits")


def test_functions_understand_what_the_schedules_send() -> None:
    assert audit.parse_start(audit.DRAW, scheduled="run") == audit.RunRequest(id="run", rolling=True)
    assert drill.parse_drill(BY_THE_CLOCK["Drills"][1]) == drill.Start()
    assert isinstance(reconcile.parse(BY_THE_CLOCK["Reconciles"][1], scheduled="pass"), reconcile.StartRequest)
    assert isinstance(audit.parse_start(SWEEP, scheduled="run"), audit.Sweep)
    assert isinstance(drill.parse_drill(SWEEP), drill.Sweep)
    assert isinstance(reconcile.parse(SWEEP, scheduled="pass"), reconcile.Sweep)


def test_a_schedule_has_a_role_that_can_send_to_its_queue_and_do_nothing_else(templates: Templates) -> None:
    policies = [templates.rendered(policy) for policy in templates.of_kind("AWS::IAM::Policy").values()]
    of_functions = {templates.rendered(f)["Role"] for f in templates.of_kind("AWS::Lambda::Function").values()}
    for name, schedule in templates.of_kind("AWS::Scheduler::Schedule").items():
        target = templates.rendered(schedule)["Target"]
        assert target["RoleArn"] not in of_functions, name
        [policy] = [policy for policy in policies if target["RoleArn"] in policy["Roles"]]
        [statement] = statements(policy["PolicyDocument"])
        assert (statement["Action"], statement["Resource"]) == (["sqs:SendMessage"], [target["Arn"]]), name


@pytest.mark.parametrize("sweep", ["Sweep", "SweepRestores", "Relay"])
def test_a_sweep_that_waited_for_an_hour_is_dropped(templates: Templates, sweep: str) -> None:
    assert templates.of_kind("AWS::SQS::Queue")[f"{sweep}Queue"].properties["MessageRetentionPeriod"] == 3600


HEARD = {"Extract": "ThawedTopic", "VerifyAudits": "ThawedTopic", "Drills": "RestoredTopic"}


def test_what_topics_are_told_reaches_every_queue_that_waits_for_it_in_the_same_words(templates: Templates) -> None:
    found = {each["Endpoint"]: each for each in map(templates.rendered, subscriptions(templates))}
    assert found == {
        f"{queue}Queue": {
            "TopicArn": topic,
            "Protocol": "sqs",
            "Endpoint": f"{queue}Queue",
            "RawMessageDelivery": True,
            "RedrivePolicy": {"deadLetterTargetArn": f"{queue}DeadLetterQueue"},
        }
        for queue, topic in HEARD.items()
    }

    policies = [templates.rendered(policy) for policy in templates.of_kind("AWS::SQS::QueuePolicy").values()]
    for queue, topic in [(f"{name}{kind}", topic) for name, topic in HEARD.items() for kind in QUEUE_AND_DEAD_LETTERS]:
        [sending] = [
            statement
            for policy in policies
            if policy["Queues"] == [queue]
            for statement in statements(policy["PolicyDocument"])
            if statement["Effect"] == "Allow" and statement["Principal"] == {"Service": "sns.amazonaws.com"}
        ]
        assert (sending["Action"], sending["Resource"]) == (["sqs:SendMessage"], [queue])
        assert topic in str(sending["Condition"])


def subscriptions(templates: Templates) -> Iterable[Resource]:
    return templates.of_kind("AWS::SNS::Subscription").values()

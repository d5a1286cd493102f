"""What a forecast says that a deployment costs by itself, held against the templates."""

from __future__ import annotations

import json
import re

import pytest

from neve.domain.cost import COLLECT_GB, COPY_GB, OFFLOAD_GB, WRITE_GB
from neve.domain.forecast import AUDIT_GB, BACKFILL_GB, DEPLOYED, RESOLVE_GB
from neve.domain.prices import HOURS_A_MONTH
from tests.infra.templates import Templates

_HOURS = {"minute": 1 / 60, "hour": 1, "day": 24}


def _per_month(expression: str) -> float:
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if rate:
        return HOURS_A_MONTH / (int(rate[1]) * _HOURS[rate[2]])
    assert expression.startswith("cron("), expression
    return 4.35 if "?" in expression and expression.split()[4] != "?" else 1


def test_a_forecast_knows_how_many_mappings_poll_and_alarms_watch(templates: Templates) -> None:
    assert len(templates.of_kind("AWS::Lambda::EventSourceMapping")) == DEPLOYED.mappings
    # CloudWatch charges an alarm by the metrics that its expression names (pricing page, "Alarms").
    metrics = 0
    for alarm in templates.of_kind("AWS::CloudWatch::Alarm").values():
        named = [each for each in alarm.properties.get("Metrics", ()) if "MetricStat" in each]
        metrics += max(1, len(named))
    assert metrics == DEPLOYED.alarms


def test_nothing_is_under_a_key_of_kms_that_would_be_charged(templates: Templates) -> None:
    # Which is why a forecast has nothing for KMS. S3's, SQS's and DynamoDB's own keys are without charge.
    whole = json.dumps(list(templates.documents.values()))
    for named in ("AWS::KMS::Key", "aws:kms", "KmsMasterKeyId", "KMSMasterKeyID", "KmsKeyArn"):
        assert named not in whole


def test_a_forecast_knows_how_often_schedules_send(templates: Templates) -> None:
    schedules = templates.of_kind("AWS::Scheduler::Schedule").values()
    sent = sum(_per_month(each.properties["ScheduleExpression"]) for each in schedules)
    assert sent == pytest.approx(DEPLOYED.scheduled_per_month, rel=0.05)


def test_a_forecast_bills_functions_with_the_memory_that_they_have(templates: Templates) -> None:
    reckoned = {
        **dict.fromkeys(("Collect", "CollectBackfill"), COLLECT_GB),
        **dict.fromkeys(("WriteArchive", "WriteBackfill", "Extract"), WRITE_GB),
        **dict.fromkeys(("CopyLarge", "CopyBackfill", "PlanRestore"), COPY_GB),
        **dict.fromkeys(("CopyUpload", "ReleaseUpload"), OFFLOAD_GB),
        **dict.fromkeys(("StartAudit", "VerifyAudit", "Reconcile"), AUDIT_GB),
        "Backfill": BACKFILL_GB,
        "Resolve": RESOLVE_GB,
    }
    functions = templates.of_kind("AWS::Lambda::Function")
    assert {name: functions[name].properties["MemorySize"] / 1024 for name in reckoned} == reckoned

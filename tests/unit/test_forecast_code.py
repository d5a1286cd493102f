"""What a forecast says of metrics and log lines, held against the functions that report and write them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from neve.aws import invocation
from neve.domain.cost import INVOCATION_LOG_BYTES, LINE_BYTES
from neve.domain.forecast import IDLE_METRICS, METRICS, OFFLOAD_METRICS
from neve.domain.prices import Charge
from neve.domain.tally import IMPUTED, Tally

LAMBDAS = Path(invocation.__file__).parents[2]
EACH_LINE_BYTES = 26
"""What CloudWatch adds to each. Source: CloudWatch Logs API reference, PutLogEvents."""

SELDOM = {
    "Backfill": {"announced"},
    "CopyUpload": {"mended"},
    "Drill": {"drill_age_s", "drill_failed", "drill_files"},
    "Extract": {"damaged", "restored", "restored_bytes"},
    "PlanRestore": {"planned", "unplaced"},
    "Reconcile": {"passes"},
    "Relay": {"denied", "outbox_oldest_s", "outbox_waiting", "parked", "relayed"},
    "StartAudit": {"cut", "unread"},
    "Sweep": {"overdue"},
    "VerifyAudit": {"discrepancies", "unread"},
    "WriteArchive": {"parked", "unproven"},
}
"""What is reported once a day or less, only for a restore or a backfill, or only if something is wrong."""


def reported(module: Path) -> set[str]:
    """The metrics that a module names where it counts them."""
    calls = (node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call))
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "count" and isinstance(call.args[0], ast.Constant)
    }


def by_function() -> dict[str, set[str]]:
    """The metrics of each function: those of its module, and those that the archive thread counts together."""
    found = {"".join(each.stem.title().split("_")): reported(each) for each in LAMBDAS.glob("*.py")}
    found["WriteArchive"] |= reported(LAMBDAS / "neve" / "aws" / "invocation.py")
    # Counted by the word for what became of it.
    found["CopyUpload"].add("copied")
    found["ReleaseUpload"].add("released")
    return {name: metrics for name, metrics in found.items() if metrics}


def test_a_forecast_knows_every_metric_that_is_reported_all_the_time() -> None:
    known = {name: set(metrics) for name, metrics in SELDOM.items()}
    for table in (IDLE_METRICS, METRICS, OFFLOAD_METRICS):
        for name, metrics in table.items():
            known.setdefault(name, set()).update(metrics)
    ledger = known.pop("Ledger")
    assert by_function() == known
    assert {name.removeprefix(IMPUTED) for name in ledger} <= set(Charge.__members__)


def test_metrics_without_any_file_are_among_those_that_there_are_with_files_but_for_the_want_of_them() -> None:
    assert set(IDLE_METRICS["Ledger"]) < set(METRICS["Ledger"])
    assert IDLE_METRICS["StartAudit"] == ("nothing_to_audit",)


REQUEST = "RequestId: 0f3c2b1a-9d8e-4c7b-a6f5-1234567890ab"
PLATFORM = (
    f"START {REQUEST} Version: $LATEST\n",
    f"END {REQUEST}\n",
    f"REPORT {REQUEST}\tDuration: 4.57 ms\tBilled Duration: 5 ms\tMemory Size: 1769 MB\tMax Memory Used: 143 MB\t\n",
)
"""What Lambda itself writes of an invocation. Source: Lambda developer guide, "Viewing CloudWatch logs"."""

ARCHIVED = Tally(
    requests={
        "dynamodb:BatchExecuteStatement": 11,
        "dynamodb:BatchGetItem": 3,
        "dynamodb:PutItem": 3,
        "dynamodb:Query": 1,
        "dynamodb:UpdateItem": 6,
        "s3:GetObject": 263,
        "s3:HeadObject": 1,
        "s3:PutObject": 2,
    },
    counted={
        Charge.DYNAMODB_READ_UNIT: 140.5,
        Charge.DYNAMODB_WRITE_UNIT: 274.0,
        Charge.S3_GET: 264,
        Charge.S3_PUT: 1,
        Charge.S3_PUT_GLACIER: 1,
    },
    imputed={Charge.LAMBDA_GB_SECOND: 4.123456, Charge.LAMBDA_REQUEST: 1, Charge.SQS_REQUEST: 2},
    sent_bytes=27_000_000,
    received_bytes=27_000_000,
)
"""What WriteArchive asks for a full bundle."""


def flush(service: str, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
    """Write metrics as the functions do, as a line on standard output."""
    line = EphemeralMetrics(namespace="neve", service=service)
    for name, quantity in metrics.items():
        line.add_metric(name=name, unit=MetricUnit.Count, value=quantity)
    for name, detail in details.items():
        line.add_metadata(name, detail)
    line.flush_metrics()


def test_an_invocation_logs_as_much_as_a_forecast_takes_it_to(capsys: pytest.CaptureFixture[str]) -> None:
    line = json.dumps(
        {
            "level": "INFO",
            "location": "report_written:226",
            "message": "archived",
            "timestamp": "2026-11-22 23:17:53,350+0000",
            "service": "WriteArchive",
            "archive": 1234567,
            "files": 263,
            "source_bytes": 26300000,
            "duplicates": 0,
            "parked": 0,
            "unproven": 0,
            "collected_again": 0,
            "lag_s": 24.123,
            "xray_trace_id": "1-5e272390-8c398be037738dc042009320",
        },
        separators=(",", ":"),
    )
    flush("WriteArchive", dict.fromkeys(METRICS["WriteArchive"], 26_300_000.0), {})
    flush("Ledger", ARCHIVED.metrics(), {"function": "WriteArchive", **ARCHIVED.details()})
    lines = [*PLATFORM, line, *capsys.readouterr().out.splitlines()]
    assert len(lines) == 6
    assert sum(len(each) + EACH_LINE_BYTES for each in lines) == pytest.approx(INVOCATION_LOG_BYTES, rel=0.2)


def test_a_line_about_a_file_is_as_long_as_a_forecast_takes_it_to_be() -> None:
    line = {
        "level": "INFO",
        "location": "_report:88",
        "message": "copied",
        "timestamp": "2026-11-22 23:17:53,350+0000",
        "service": "CopyUpload",
        "key": "photos/2026/11/22/user-1234567/img-00000001.jpg",
        "version_id": "0123456789abcdef0123456789abcdef",
        "size_bytes": 100000,
        "content_version": "0123456789abcdef0123456789abcdef",
        "lag_s": 1.234,
        "xray_trace_id": "1-5e272390-8c398be037738dc042009320",
    }
    released = {name: value for name, value in line.items() if name not in ("content_version", "lag_s")}
    lengths = [len(json.dumps(each, separators=(",", ":"))) + EACH_LINE_BYTES for each in (line, released)]
    assert sum(lengths) / 2 == pytest.approx(LINE_BYTES, rel=0.15)

"""`neve cost actual`, and `neve --requests`: what was asked of AWS, read and billed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner, Result

from neve.aws.ledger import LEDGER
from neve.aws.metrics import CloudWatchMetrics
from neve.domain.actual import HOUR, Series, actual, asking
from neve.domain.forecast import DEPLOYED
from neve.domain.prices import US_EAST_1, Charge
from neve_cli import clock
from neve_cli.main import app

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
LEDGER_AND_FILES = (
    ("Ledger", "S3_GET", 1_000_000.0, 3),
    ("Ledger", "S3_GET", 1_000_000.0, 2),
    ("Ledger", "imputed_SQS_REQUEST", 1_000_000.0, 2),
    ("Ledger", "unpriced", 2.0, 2),
    ("WriteArchive", "archived", 1_999_990.0, 2),
    ("CopyLarge", "archived", 10.0, 2),
    ("WriteArchive", "archived_bytes", 2e11, 2),
    ("Other", "S3_GET", 7.0, 2),
)


def at(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@pytest.fixture(autouse=True)
def _nothing_asked() -> None:
    LEDGER.settle()


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CloudWatch, by moto."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(clock, "now", lambda: NOW)
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="us-east-1")


def put(cloudwatch: Any, *metrics: tuple[str, str, float, float]) -> None:
    cloudwatch.put_metric_data(
        Namespace="neve",
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": "service", "Value": service}],
                "Value": value,
                "Timestamp": at(hours),
            }
            for service, name, value, hours in metrics
        ],
    )


def neve(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    return result


def test_what_the_ledger_says_is_billed_for_the_files_of_its_time(cloudwatch: Any) -> None:
    put(cloudwatch, *LEDGER_AND_FILES)
    found = json.loads(neve("cost", "actual", "--since", "2026-11-21", "--json").stdout)
    assert (found["files"], found["size_bytes"], found["unpriced_requests"]) == (2_000_000, 2 * 10**11, 2)
    assert found["asked_usd"] == pytest.approx(2 * 0.4 + 0.4)
    assert found["per_million_files_usd"] == pytest.approx(0.6)
    assert (found["since"], found["first_at"][:16]) == ("2026-11-21T00:00:00+00:00", "2026-11-22T09:00")
    asked = {(item["charge"], item["imputed"]) for item in found["items"] if item["when"] == "asked"}
    assert asked == {("S3_GET", False), ("SQS_REQUEST", True)}
    standing = {item["purpose"]: item for item in found["items"] if item["when"] == "standing"}
    assert all(item["imputed"] and item["rule"] for item in standing.values())
    assert standing["metrics of the ledger"]["quantity"] == pytest.approx(4 / 730)
    assert standing["alarms"]["quantity"] == pytest.approx(DEPLOYED.alarms * 36.5 / 730)
    assert found["total_usd"] == pytest.approx(sum(item["usd"] for item in found["items"]))


def test_people_are_told_what_was_counted_and_imputed_and_what_is_missing(cloudwatch: Any) -> None:
    put(cloudwatch, *LEDGER_AND_FILES)
    told = neve("--requests", "cost", "actual", "--since", "7d")
    assert "2,000,000 files archived, 200.0 GB" in told.stdout
    assert "$1.2000, that is $0.6000 for a million files" in told.stdout
    assert "Counted  $0.8000" in told.stdout
    assert "how much  $0.4000" in told.stdout
    assert "2 requests without a price are not in it" in told.stdout
    assert "the first metrics are of 2026-11-22 09:00:00 UTC: nothing ran in the 6.9 days before" in told.stdout
    assert "Asked of AWS: 1 request; " in told.stderr
    assert "38  CloudWatch metric read  $0.00038" in told.stderr


def test_other_prices_and_an_end_may_be_given(cloudwatch: Any) -> None:
    put(cloudwatch, *LEDGER_AND_FILES)
    found = json.loads(neve("cost", "actual", "--since", "6h", "--until", "2026-11-22T10:00", "--json").stdout)
    assert (found["files"], found["asked_usd"], found["per_million_files_usd"]) == (0, pytest.approx(0.4), None)


def test_where_nothing_was_reported_it_says_so(cloudwatch: Any) -> None:
    del cloudwatch  # it is empty
    told = neve("cost", "actual", status=1)
    assert "there is no metric of the ledger from 2026-11-15 12:00:00 to 2026-11-22 12:30:00 UTC" in told.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--since", "yesterday"), "is no time"),
        (("--since", "2026-11-22", "--until", "2026-11-21"), "before --until"),
        (("--since", "1d", "--until", "2026-11-23"), "neither may lie ahead"),
        (("--since", "2025-01-01"), "keeps metrics for 455 days"),
    ],
)
def test_a_time_that_cannot_be_asked_for_is_refused(cloudwatch: Any, words: tuple[str, ...], problem: str) -> None:
    del cloudwatch
    assert problem in " ".join(neve("cost", "actual", *words, status=2).output.replace("│", " ").split())


def test_without_a_request_the_account_at_the_end_is_empty() -> None:
    told = neve("--requests", "cost", "estimate", "--files", "1M", "--mean-size", "1MB")
    assert "Asked of AWS: 0 requests; 0 B sent, 0 B received; $0" in told.stderr
    assert "Asked of AWS" not in told.stdout


# -- What is asked for -------------------------------------------------------------------------------------------------


def test_hours_are_asked_for_however_long_ago_so_that_a_metric_is_charged_for_no_hour_without_it() -> None:
    long_ago = NOW - 400 * DAY
    asked = asking(long_ago, NOW)
    assert (asked.since.minute, asked.since <= long_ago < asked.since + HOUR) == (0, True)
    two: Series = {("Ledger", "S3_GET"): {asked.since: 1.0, asked.since + 9 * HOUR: 1.0}}
    this = actual(asked, two, US_EAST_1, DEPLOYED)
    assert this is not None
    assert this.metric_hours == 2


def test_pages_of_an_answer_belong_together() -> None:
    class Pages:
        def get_paginator(self, name: str) -> Pages:
            assert name == "get_metric_data"
            return self

        def paginate(self, *, MetricDataQueries: Any, **_: Any) -> Iterator[Any]:  # noqa: N803  # boto3's names
            ids = {query["MetricStat"]["Metric"]["MetricName"]: query["Id"] for query in MetricDataQueries}
            queries = {(query["MetricStat"]["Period"], query["MetricStat"]["Stat"]) for query in MetricDataQueries}
            assert queries == {(3600, "Sum")}
            for hours in (3, 2):
                result = {"Id": ids["S3_GET"], "Timestamps": [at(hours)], "Values": [1.0]}
                yield {"MetricDataResults": [result, {"Id": ids["S3_PUT"], "Timestamps": [], "Values": []}]}

    pages: Any = Pages()
    asked = asking(NOW - DAY, NOW)
    found = CloudWatchMetrics(pages).sums(asked)
    assert found == {("Ledger", "S3_GET"): {at(3): 1.0, at(2): 1.0}}
    this = actual(asked, found, US_EAST_1, DEPLOYED)
    assert this is not None
    assert this.tally.counted == {Charge.S3_GET: 2}
    assert (this.usd_per_million, this.metric_hours) == (None, 2)


def test_files_without_a_ledger_are_no_account() -> None:
    found: Series = {("WriteArchive", "archived"): {at(1): 5.0}, ("Ledger", "S3_GET"): {}}
    assert actual(asking(NOW - DAY, NOW), found, US_EAST_1, DEPLOYED) is None

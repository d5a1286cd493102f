"""What AWS charges for an attempt at a request, and what no request tells of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.metering import COUNTABLE, FREE, Attempt, Metered, delivered, invoked, metered
from neve.domain.prices import GB, US_EAST_1, Charge
from neve.domain.tally import RULES, Tally, from_line, from_metrics, metric_names
from neve.domain.thaw import Tier


def asked(name: str, **known: Any) -> Metered:
    service, _, operation = name.partition(":")
    return metered(Attempt(service=service, operation=operation, **known))


@pytest.mark.parametrize(
    ("name", "known", "counted"),
    [
        ("s3:PutObject", {}, {Charge.S3_PUT: 1}),
        ("s3:PutObject", {"storage_class": "GLACIER"}, {Charge.S3_PUT_GLACIER: 1}),
        ("s3:CopyObject", {"storage_class": "DEEP_ARCHIVE"}, {Charge.S3_PUT_DEEP_ARCHIVE: 1}),
        ("s3:CreateMultipartUpload", {"storage_class": "GLACIER"}, {Charge.S3_PUT: 1}),
        ("s3:UploadPartCopy", {"storage_class": "DEEP_ARCHIVE"}, {Charge.S3_PUT: 1}),
        ("s3:UploadPart", {"storage_class": "GLACIER_IR"}, {Charge.S3_PUT_GLACIER_IR: 1}),
        ("s3:CompleteMultipartUpload", {"storage_class": "GLACIER"}, {Charge.S3_PUT_GLACIER: 1}),
        ("s3:ListObjectsV2", {}, {Charge.S3_PUT: 1}),
        ("s3:GetObjectTagging", {}, {Charge.S3_GET: 1}),
        ("s3:GetObject", {"storage_class": "GLACIER"}, {Charge.S3_GET: 1}),
        ("s3:HeadObject", {"status": 404}, {Charge.S3_GET: 1}),
        ("s3:HeadObject", {"storage_class": "GLACIER_IR"}, {Charge.GLACIER_IR_GET: 1}),
        (
            "s3:GetObject",
            {"storage_class": "GLACIER_IR", "payload_bytes": GB // 2},
            {Charge.GLACIER_IR_GET: 1, Charge.GLACIER_IR_GB: 0.5},
        ),
        ("s3:DeleteObject", {}, {}),
        ("s3:AbortMultipartUpload", {}, {}),
        ("s3:PutObject", {"status": 503}, {}),
        ("sqs:SendMessage", {"payload_bytes": 200}, {Charge.SQS_REQUEST: 1}),
        ("sqs:SendMessageBatch", {"payload_bytes": 64 * 1024 + 1}, {Charge.SQS_REQUEST: 2}),
        ("sqs:GetQueueAttributes", {"status": 500}, {Charge.SQS_REQUEST: 1}),
        ("sns:Publish", {"payload_bytes": 130 * 1024}, {Charge.SNS_PUBLISH: 3}),
        ("dynamodb:GetItem", {"units": 0.5}, {Charge.DYNAMODB_READ_UNIT: 0.5}),
        ("dynamodb:BatchExecuteStatement", {"units": 25.0}, {Charge.DYNAMODB_WRITE_UNIT: 25}),
        ("dynamodb:UpdateItem", {"status": 400, "error": "ThrottlingException"}, {}),
        ("dynamodb:DescribeTable", {}, {}),
        ("kms:Decrypt", {}, {Charge.KMS_REQUEST: 1}),
        ("ssm:GetParameter", {}, {}),
        ("sfn:StartExecution", {}, {}),
        ("cloudformation:DescribeStacks", {}, {}),
        ("cloudwatch:GetMetricData", {"items": 37}, {Charge.METRIC_READ: 37}),
    ],
)
def test_an_attempt_is_charged_as_aws_charges_it(
    name: str, known: dict[str, Any], counted: dict[Charge, float]
) -> None:
    assert asked(name, **known) == Metered(counted=counted)


@pytest.mark.parametrize(
    ("name", "known", "imputed"),
    [
        ("dynamodb:PutItem", {"payload_bytes": 1_100}, {Charge.DYNAMODB_WRITE_UNIT: 2}),
        (
            "dynamodb:UpdateItem",
            {"status": 400, "error": "ConditionalCheckFailedException"},
            {Charge.DYNAMODB_WRITE_UNIT: 1},
        ),
        (
            "dynamodb:TransactWriteItems",
            {"status": 400, "error": "TransactionCanceledException", "items": 3, "payload_bytes": 300},
            {Charge.DYNAMODB_WRITE_UNIT: 6},
        ),
        ("dynamodb:Query", {"payload_bytes": 5_000}, {Charge.DYNAMODB_READ_UNIT: 2}),
        ("dynamodb:PutItem", {"status": 0}, {Charge.DYNAMODB_WRITE_UNIT: 1}),
        ("ssm:GetParameter", {"decrypts": True}, {Charge.KMS_REQUEST: 1}),
    ],
)
def test_what_no_answer_states_is_imputed(name: str, known: dict[str, Any], imputed: dict[Charge, float]) -> None:
    assert asked(name, **known) == Metered(imputed=imputed)


def test_a_thaw_is_charged_by_tier_and_size_and_a_longer_stay_by_the_request_alone() -> None:
    known: dict[str, Any] = {"storage_class": "GLACIER", "tier": Tier.EXPEDITED, "payload_bytes": 2 * GB}
    thawed = asked("s3:RestoreObject", status=202, **known)
    assert thawed.counted == {Charge.GLACIER_EXPEDITED_REQUEST: 1, Charge.GLACIER_EXPEDITED_GB: 2}
    assert thawed.imputed == {Charge.SNS_PUBLISH: 1}
    for status in (200, 409):
        assert asked("s3:RestoreObject", status=status, **known).counted == {Charge.GLACIER_EXPEDITED_REQUEST: 1}
    assert asked("s3:RestoreObject", status=503, **known) == FREE


@pytest.mark.parametrize(
    ("name", "known", "named"),
    [
        ("s3:SelectObjectContent", {}, "s3:SelectObjectContent"),
        ("s3:PutObject", {"storage_class": "ONEZONE_IA"}, "s3:PutObject into ONEZONE_IA"),
        ("s3:CompleteMultipartUpload", {"storage_class": ""}, "s3:CompleteMultipartUpload into an unknown class"),
        ("s3:GetObject", {"storage_class": "STANDARD_IA"}, "s3:GetObject from STANDARD_IA"),
        ("s3:RestoreObject", {"storage_class": ""}, "s3:RestoreObject"),
        ("s3:RestoreObject", {"storage_class": "DEEP_ARCHIVE", "tier": Tier.EXPEDITED}, "s3:RestoreObject"),
        ("dynamodb:ExportTableToPointInTime", {}, "dynamodb:ExportTableToPointInTime"),
        ("sns:Subscribe", {}, "sns:Subscribe"),
        ("cloudwatch:PutMetricData", {}, "cloudwatch:PutMetricData"),
        ("polly:SynthesizeSpeech", {}, "polly:SynthesizeSpeech"),
    ],
)
def test_a_request_without_a_price_does_not_pass_as_free(name: str, known: dict[str, Any], named: str) -> None:
    assert asked(name, **known) == Metered(unpriced=named)


def test_whatever_may_be_counted_or_imputed_has_a_price_and_a_metric() -> None:
    names = metric_names()
    assert len(names) == len(set(names)) == len(COUNTABLE) + len(RULES) + 1
    assert set(US_EAST_1.prices) >= COUNTABLE | set(RULES)
    assert len(names) < 500, "GetMetricData takes no more at once"


@pytest.mark.parametrize(
    ("sizes", "deleted", "requests"),
    [([800] * 1_000, 1_000, 200), ([800] * 7, 7, 2), ([800], 0, 1), ([200_000] * 10, 10, 31 + 1), ([], 0, 0)],
)
def test_a_mapping_receives_and_deletes_ten_messages_in_a_request_or_64_kb(
    sizes: list[int], deleted: int, requests: int
) -> None:
    assert delivered(sizes, deleted=deleted) == requests


@pytest.mark.parametrize(
    ("machine", "charge"), [("aarch64", Charge.LAMBDA_GB_SECOND), ("x86_64", Charge.LAMBDA_X86_GB_SECOND)]
)
def test_an_invocation_is_charged_by_its_memory_and_time_on_its_processor(machine: str, charge: Charge) -> None:
    assert invoked(memory_mib=512, duration_ms=1_000.2, machine=machine) == {Charge.LAMBDA_REQUEST: 1, charge: 0.5005}


# -- Tallies ---------------------------------------------------------------------------------------------------------

quantities = st.integers(1, 10**9).map(float)
tallies = st.builds(
    Tally,
    requests=st.dictionaries(st.sampled_from(["s3:GetObject", "sqs:SendMessage"]), st.integers(1, 1_000)),
    counted=st.dictionaries(st.sampled_from(sorted(COUNTABLE)), quantities),
    imputed=st.dictionaries(st.sampled_from(sorted(RULES)), quantities),
    unpriced=st.dictionaries(st.sampled_from(["a:B", "c:D"]), st.integers(1, 9)),
    retries=st.integers(0, 9),
    sent_bytes=st.integers(0, 10**9),
    received_bytes=st.integers(0, 10**9),
)


@given(one=tallies, other=tallies)
def test_a_tally_comes_back_from_its_line_and_two_are_their_sum(one: Tally, other: Tally) -> None:
    assert from_line(one.line()) == one
    together = one + other
    for charge in Charge:
        assert together.units(charge) == one.units(charge) + other.units(charge)
    assert from_metrics(together.metrics()).uses() == from_line(together.line()).uses() == together.uses()
    assert set(together.metrics()) <= set(metric_names())


def test_no_metric_is_zero_and_what_is_imputed_says_by_which_rule() -> None:
    tally = Tally(counted={Charge.S3_GET: 0.0}, imputed={Charge.LAMBDA_REQUEST: 1.0})
    assert tally.metrics() == {"imputed_LAMBDA_REQUEST": 1.0}
    assert [use.rule for use in tally.uses() if use.unseen] == ["one for each invocation"]
    assert "retries" not in tally.details()


def test_a_metric_of_another_version_is_left_out() -> None:
    assert from_metrics({"S3_TELEPATHY": 1, "imputed_S3_TELEPATHY": 1, "unpriced": 2}) == Tally(
        unpriced={"unpriced": 2}
    )

"""Price lists, bills, and how AWS meters."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.metering import (
    TERMS,
    Class,
    early_days,
    gb_seconds,
    read_units,
    sqs_requests,
    stored,
    write_units,
)
from neve.domain.prices import (
    GB,
    MILLION,
    US_EAST_1,
    Bill,
    Charge,
    Price,
    Use,
    parse_prices,
    render_prices,
)
from neve.errors import PriceMissing, PricesInvalid


def usd(uses: list[Use]) -> float:
    return Bill(prices=US_EAST_1, uses=tuple(uses)).usd


# -- What AWS itself has worked out in public ------------------------------------------------------------------------


def test_retrieving_fifteen_million_objects_of_100_tb_costs_what_aws_says() -> None:
    # AWS re:Post knowledge center, "How do I manage data retrieval and storage costs of the Glacier classes".
    objects, gb = 15 * MILLION, 102_400
    standard = US_EAST_1.usd(Charge.GLACIER_STANDARD_REQUEST, objects), US_EAST_1.usd(Charge.GLACIER_STANDARD_GB, gb)
    assert [round(each, 2) for each in standard] == [750.00, 1_024.00]
    expedited = US_EAST_1.usd(Charge.GLACIER_EXPEDITED_REQUEST, objects)
    assert round(expedited, 2) == 150_000.00


def test_storing_100_gb_of_10_kb_objects_in_deep_archive_costs_what_the_pricing_calculator_says() -> None:
    # AWS Pricing Calculator: 10,485,760 objects; 0.3168 + 1.84 + 0.099 = 2.2558.
    uses = stored("files", Class.DEEP_ARCHIVE, objects=10_485_760, object_bytes=10 * 1024)
    assert usd(uses) == pytest.approx(2.2558, abs=0.00005)
    assert round(US_EAST_1.usd(Charge.S3_STANDARD_GB_MONTH, uses[1].quantity), 2) == 1.84


def test_three_million_invocations_of_a_second_at_512_mb_cost_what_the_page_of_lambda_says() -> None:
    # AWS Lambda pricing page, example 1, with its free tier taken off and the price as it was printed then.
    seconds = 3 * MILLION * gb_seconds(512, 1_000)
    assert seconds == 1_500_000
    printed = Price(usd=0.00001667, per=1, source="https://aws.amazon.com/lambda/pricing/")
    assert round(printed.of(seconds - 400_000), 2) == 18.34
    assert round(US_EAST_1.usd(Charge.LAMBDA_REQUEST, 2 * MILLION), 2) == 0.40


def test_a_key_and_two_million_requests_cost_what_the_page_of_kms_says() -> None:
    # AWS KMS pricing page, example 1: 10,000 files encrypted and read 2,000,000 times, less 20,000 free requests.
    requests = US_EAST_1.usd(Charge.KMS_REQUEST, 2_010_000 - 20_000)
    assert round(requests, 2) == 5.97
    assert round(requests + US_EAST_1.usd(Charge.KMS_KEY_MONTH, 1), 2) == 6.97


def test_metrics_and_logs_cost_what_the_page_of_cloudwatch_says() -> None:
    # CloudWatch pricing page, examples "Detailed monitoring" (7 metrics of 10 instances) and "Monitoring with logs"
    # (30 GB taken in and 6 GB kept, less 5 GB free of each).
    assert round(US_EAST_1.usd(Charge.METRIC_MONTH, 70), 2) == 21.00
    logs = US_EAST_1.usd(Charge.LOG_GB, 30 - 5) + US_EAST_1.usd(Charge.LOG_GB_MONTH, 6 - 5)
    assert round(logs, 2) == 12.53


# -- Lists and bills -------------------------------------------------------------------------------------------------


def test_every_charge_has_a_price_with_its_source_and_the_list_its_date() -> None:
    assert set(US_EAST_1.prices) == set(Charge)
    assert all(price.source.startswith("https://") for price in US_EAST_1.prices.values())
    free = {charge for charge, price in US_EAST_1.prices.items() if price.usd == 0}
    assert free == {Charge.GLACIER_BULK_GB, Charge.GLACIER_BULK_REQUEST}
    assert US_EAST_1.checked


def test_a_price_that_is_missing_is_an_error_that_names_it_and_not_zero() -> None:
    prices = replace(US_EAST_1, prices={Charge.S3_GET: US_EAST_1.prices[Charge.S3_GET]})
    with pytest.raises(PriceMissing, match=r"us-east-1 .* KMS_REQUEST"):
        prices.usd(Charge.KMS_REQUEST, 1)


def test_what_lies_beyond_a_quantity_costs_its_own_price() -> None:
    standard = US_EAST_1.prices[Charge.S3_STANDARD_GB_MONTH]
    assert standard.of(50 * 1024) == pytest.approx(51_200 * 0.023)
    assert standard.of(50 * 1024 + 1) == pytest.approx(51_200 * 0.023 + 0.022)
    assert standard.of(600 * 1024) == pytest.approx(51_200 * 0.023 + 460_800 * 0.022 + 102_400 * 0.021)
    assert standard.of(0) == 0


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_more_never_costs_less(one: float, other: float) -> None:
    for charge in (Charge.S3_STANDARD_GB_MONTH, Charge.S3_GET, Charge.GLACIER_BULK_GB):
        assert US_EAST_1.usd(charge, max(one, other)) >= US_EAST_1.usd(charge, min(one, other))


def test_uses_that_are_charged_alike_share_the_discount() -> None:
    uses = tuple(Use(purpose=each, charge=Charge.S3_STANDARD_GB_MONTH, quantity=40 * 1024) for each in ("a", "b"))
    bill = Bill(prices=US_EAST_1, uses=uses)
    assert bill.usd == pytest.approx(US_EAST_1.usd(Charge.S3_STANDARD_GB_MONTH, 80 * 1024))
    assert bill.usd_of(uses[0]) == bill.usd_of(uses[1]) == pytest.approx(bill.usd / 2)
    nothing = Use(purpose="none", charge=Charge.S3_GET, quantity=0)
    assert Bill(prices=US_EAST_1, uses=(nothing,)).usd == 0


def test_a_list_comes_back_from_its_file_as_it_was() -> None:
    assert parse_prices(render_prices(US_EAST_1)) == US_EAST_1


def _with(**changes: Any) -> str:
    return json.dumps({**json.loads(render_prices(US_EAST_1)), **changes})


def _priced(**changes: Any) -> str:
    return _with(prices={"S3_GET": {"usd": 1, "per": 1, "source": "s", **changes}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no JSON", "not a file of prices"),
        ("[]", "not a file of prices"),
        ("[" * 100_000, "not a file of prices"),
        (_with(format="other"), "neve-prices"),
        (_with(version=2), '"version": 1'),
        (_with(prices={"S3_GOT": {}}), "S3_GOT is nothing"),
        (_with(prices={"S3_GET": {"usd": 1}}), "per"),
        (_with(prices=[]), "not a file of prices"),
        (_priced(usd=-1), "0 or more"),
        (_priced(usd=float("nan")), "0 or more"),
        (_priced(per=0), "1 or more units"),
        (_priced(beyond=[[10, 1], [5, 1]]), "rise"),
        (_priced(beyond=[[0, 1]]), "rise"),
        (_priced(beyond=[[float("inf"), 1]]), "rise"),
        (_priced(beyond=[[10, -1]]), "0 or more"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(PricesInvalid, match=problem):
        parse_prices(text)


# -- Metering --------------------------------------------------------------------------------------------------------


def test_an_object_in_glacier_has_32_kb_at_its_own_rate_and_8_at_that_of_standard() -> None:
    own, names = stored("archives", Class.GLACIER, objects=1, object_bytes=100_000)
    assert own.quantity * GB == pytest.approx(100_000 + 32 * 1024)
    assert names.charge is Charge.S3_STANDARD_GB_MONTH
    assert names.quantity * GB == pytest.approx(8 * 1024)


@pytest.mark.parametrize("storage_class", [Class.STANDARD_IA, Class.GLACIER_IR])
def test_small_objects_count_as_128_kb_where_the_class_has_that_minimum(storage_class: Class) -> None:
    small, whole = (stored("files", storage_class, objects=2, object_bytes=size) for size in (1, 128 * 1024))
    assert [use.quantity for use in small] == [use.quantity for use in whole]
    assert small[0].rule
    assert not whole[0].rule


def test_intelligent_tiering_leaves_small_objects_at_the_rate_of_standard_and_watches_the_others() -> None:
    small = stored("files", Class.INTELLIGENT_TIERING, objects=10, object_bytes=1000)
    assert [use.charge for use in small] == [Charge.S3_STANDARD_GB_MONTH]
    large = stored("files", Class.INTELLIGENT_TIERING, objects=10, object_bytes=200_000, months=2)
    assert [(use.charge, use.quantity) for use in large] == [
        (Charge.TIERING_ARCHIVE_GB_MONTH, pytest.approx(10 * 200_000 / GB * 2)),
        (Charge.TIERING_OBJECT_MONTH, 20),
    ]


def test_units_are_rounded_up_as_aws_rounds_them() -> None:
    assert [write_units(size) for size in (0, 1, 1024, 1025)] == [1, 1, 1, 2]
    assert write_units(3 * 1024, transactional=True) == 6
    assert [read_units(size) for size in (0, 4096, 4097)] == [1, 1, 2]
    assert read_units(8 * 1024, consistent=False) == 1
    assert [sqs_requests(size) for size in (0, 64 * 1024, 64 * 1024 + 1, 256 * 1024)] == [1, 1, 2, 4]
    assert gb_seconds(1024, 0.2) == 0.001


def test_deleting_early_is_charged_until_the_minimum_of_the_class_is_over() -> None:
    assert [early_days(each, 10) for each in (Class.GLACIER, Class.DEEP_ARCHIVE, Class.STANDARD)] == [80, 170, 0]
    assert early_days(Class.GLACIER, 90) == early_days(Class.GLACIER, 1000) == 0


def test_every_class_says_what_it_charges_by() -> None:
    assert set(TERMS) == set(Class)

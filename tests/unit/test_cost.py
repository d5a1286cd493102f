"""What archiving costs."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.aws.archives_table import _chunks
from neve.domain.cost import (
    PART_ITEM_BYTES,
    REFERENCE_BYTES,
    Run,
    Workload,
    archive_put,
    archiving,
    as_run,
    copying,
    floor,
    requested,
    unseen,
)
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge, Use
from neve.domain.version import ObjectVersion


def usd(uses: list[Use]) -> float:
    return Bill(prices=US_EAST_1, uses=tuple(uses)).usd


@pytest.mark.parametrize(
    ("charge", "usd_of_a_million"),
    [
        (Charge.S3_STANDARD_IA_GB_MONTH, 12_500),
        (Charge.GLACIER_EXPEDITED_GB, 30_000),
        (Charge.GLACIER_EXPEDITED_REQUEST, 10_000),
        (Charge.GLACIER_STANDARD_GB, 10_000),
        (Charge.GLACIER_STANDARD_REQUEST, 50),
        (Charge.GLACIER_BULK_GB, 0),
        (Charge.GLACIER_BULK_REQUEST, 0),
        (Charge.DEEP_ARCHIVE_STANDARD_GB, 20_000),
        (Charge.DEEP_ARCHIVE_STANDARD_REQUEST, 100),
        (Charge.DEEP_ARCHIVE_BULK_GB, 2_500),
        (Charge.DEEP_ARCHIVE_BULK_REQUEST, 25),
        (Charge.GLACIER_IR_GB, 30_000),
        (Charge.GLACIER_IR_GET, 10),
        (Charge.S3_GET, 0.4),
        (Charge.S3_PUT, 5),
    ],
)
def test_a_million_units_of_what_a_restore_takes_cost_what_the_price_list_says(
    charge: Charge, usd_of_a_million: float
) -> None:
    assert US_EAST_1.usd(charge, MILLION) == pytest.approx(usd_of_a_million)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR"])
def test_each_storage_class_has_its_own_price_of_a_put(storage_class: str) -> None:
    assert storage_class in archive_put(storage_class)


def test_what_no_sdk_sees_is_marked_and_says_how_it_was_arrived_at() -> None:
    uses = unseen(
        events=100,
        batch_files=25,
        requests_to_write=4,
        invocations=6,
        gb_seconds=2.5,
        gb_seconds_rule="measured",
    )
    assert all(use.unseen and use.rule for use in uses)
    assert [use.quantity for use in uses] == [100, 24, 8, 6, 2.5]


def test_a_million_files_in_archiving_cost_about_two_dollars_and_the_floor_is_below() -> None:
    # The design budgeted 2.03, with a floor of 1.64. The rest depends on how many events one Collect is handed.
    assert usd(floor(Workload())) == pytest.approx(1.64, abs=0.01)
    by_batch = {batch: usd(archiving(Workload(batch_files=batch))) for batch in (10, 100, 1_000)}
    assert by_batch[10] == pytest.approx(2.10, abs=0.03)
    assert by_batch[100] == pytest.approx(1.97, abs=0.02)
    assert by_batch[1_000] <= 2.00


def test_a_bill_is_the_sum_of_its_lines_and_scales_with_the_files() -> None:
    bill = Bill(prices=US_EAST_1, uses=tuple(archiving(Workload(), files=1_000)))
    assert bill.usd == pytest.approx(sum(bill.usd_of(use) for use in bill.uses))
    assert bill.scaled(1_000).usd == pytest.approx(usd(archiving(Workload())))


@given(
    file_bytes=st.integers(1, 26_214_400),
    batch_files=st.integers(1, 10_000),
    storage_class=st.sampled_from(["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR"]),
)
def test_nothing_costs_less_than_the_floor(file_bytes: int, batch_files: int, storage_class: str) -> None:
    work = Workload(file_bytes=file_bytes, batch_files=batch_files, storage_class=storage_class)
    uses = archiving(work)
    assert all(use.quantity >= 0 for use in uses)
    assert usd(uses) > usd(floor(work)) > 0


def test_batches_that_fill_whole_bundles_leave_nothing_for_the_open_one() -> None:
    uses = {use.purpose: use for use in archiving(Workload(file_bytes=262_144, batch_files=200))}
    assert Workload(file_bytes=262_144).members == 100
    assert uses["parts of the open bundle"].quantity == uses["opened bundles"].quantity == 0


@pytest.mark.parametrize("count", [50, 263, 1_000])
def test_references_are_as_short_as_the_estimate_takes_them_to_be(count: int) -> None:
    draw = random.Random(count)
    began = datetime(2026, 10, 1, tzinfo=UTC)
    versions = [
        ObjectVersion(
            key=f"users/{draw.randrange(10**7)}/photos/IMG_{draw.randrange(10**5)}.jpg",
            version_id="".join(draw.choices(string.ascii_letters + string.digits, k=32)),
            size_bytes=draw.randrange(10**4, 10**6),
            etag=f"{draw.getrandbits(128):032x}",
            sequencer=f"00665F{draw.getrandbits(48):012X}",
            event_at=began + timedelta(milliseconds=draw.randrange(1_000)),
        )
        for _ in range(count)
    ]
    packed = sum(map(len, _chunks(versions)))
    assert 0.8 * REFERENCE_BYTES < packed / count < REFERENCE_BYTES + PART_ITEM_BYTES / count


# -- Runs ------------------------------------------------------------------------------------------------------------


def a_run(**known: Any) -> Run:
    had: dict[str, Any] = {"files": 2_630, "batches": 27, "archives": 10, "large": (), "messages": 20}
    return Run(**{**had, "size_bytes": 2_630 * 100_000, "storage_class": "GLACIER", **known})


def test_a_run_of_full_bundles_comes_to_what_full_bundles_are_forecast_to_cost() -> None:
    forecast = requested(archiving(Workload(batch_files=2_630 / 27), files=2_630))
    assert usd(as_run(a_run())) == pytest.approx(usd(forecast), rel=0.001)


def test_a_run_is_told_by_its_messages_which_timers_came_late_and_by_its_batches_how_large_they_were() -> None:
    by_timer = as_run(a_run(messages=10))
    assert usd(by_timer) < usd(as_run(a_run())) < usd(as_run(a_run(batches=270)))
    assert not [use for use in by_timer if use.charge is Charge.LAMBDA_GB_SECOND]


def test_large_files_of_a_run_are_copied_each_by_itself() -> None:
    uses = as_run(a_run(files=0, size_bytes=0, archives=0, large=(30_000_000, 6_000_000_000), messages=2))
    puts = sum(use.quantity for use in uses if use.charge is Charge.S3_PUT_GLACIER)
    assert puts == 2
    assert usd(uses) == pytest.approx(
        usd(requested([use for parts in (1, 12) for use in copying(1, parts=parts, storage_class="GLACIER")])), rel=0.01
    )

"""What a collection will cost, with neve and without."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.backfill import ENOUGH_RANGES, MOST_REQUESTS
from neve.domain.cost import ANNOUNCED_A_MESSAGE, ANNOUNCEMENT_REQUESTS, INVOCATION_LOG_BYTES
from neve.domain.events import announcements
from neve.domain.forecast import (
    ARCHIVE_BYTES,
    BACKFILL_HOLD_S,
    BACKFILL_SHARDS,
    LOOKS_FOR_SHARDS,
    MANIFEST_BYTES,
    MANIFEST_MEMBER_BYTES,
    MEMBER_BYTES,
    MIB,
    Deployed,
    Plan,
    Sizes,
    backfill_s,
    backfilling,
    best,
    cheapest_age_s,
    deleting,
    gathered,
    met,
    monthly,
    offloading,
    once,
    per_million,
    restoring,
    restoring_at_random,
    standing,
    targets,
    ways,
)
from neve.domain.manifest import Source, render_manifest
from neve.domain.metering import Class, sqs_requests
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge, Use
from neve.domain.tar import build
from neve.domain.upload import LOOK_BYTES
from neve.domain.version import ObjectVersion
from neve.flows.backfill import BATCH, HOLD

DEPLOYED = Deployed(mappings=15, alarms=30, scheduled_per_month=60_000, metrics=20, idle_metrics=5)


def of(size_bytes: int, files: float = MILLION) -> Sizes:
    return Sizes(counts=((size_bytes, files),))


def usd(uses: list[Use]) -> float:
    return Bill(prices=US_EAST_1, uses=tuple(uses)).usd


PLAN = Plan(sizes=of(100_000))
ROUNDED = 1.02
"""Bundles hold whole files, and batches whole bundles: what comes of that is within 2 %."""
S3_CHARGES = {charge for charge in Charge if charge.name.startswith(("S3_", "GLACIER_"))}


def test_a_million_files_of_100_kb_that_fill_their_archives_cost_less_than_two_dollars_logs_included() -> None:
    assert per_million(once(PLAN), US_EAST_1, MILLION) == pytest.approx(1.98, abs=0.01)
    # 90 bytes of each file stay in a table with recovery for 30 days.
    assert of_purpose(once(PLAN), "rows of the parts") == pytest.approx(90 * MILLION / 1024**3 * (0.25 + 0.20))
    [invocations] = [use.quantity for use in once(PLAN) if use.charge is Charge.LAMBDA_REQUEST]
    [logs] = [use.quantity for use in once(PLAN) if use.charge is Charge.LOG_GB]
    assert logs * 1024**3 == pytest.approx(invocations * INVOCATION_LOG_BYTES)


def test_events_that_are_gathered_for_longer_cost_less_each() -> None:
    slow = replace(PLAN, files_per_s=12)
    costs = [usd(once(replace(slow, collect_window_s=window))) for window in (1, 2, 5, 10)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.5 * costs[-1]


def test_ten_times_the_files_cost_ten_times_as_much() -> None:
    assert usd(once(replace(PLAN, sizes=of(100_000, 10 * MILLION)))) == pytest.approx(10 * usd(once(PLAN)))


def test_files_that_trickle_in_cost_more_each_since_archives_stay_small() -> None:
    by_rate = {rate: replace(PLAN, files_per_s=rate) for rate in (0.01, 1, 10, 100, math.inf)}
    costs = [usd(once(plan)) for plan in by_rate.values()]
    assert costs == sorted(costs, reverse=True)
    assert by_rate[1].archives[0][2] == pytest.approx(1 + 20 - 3), (
        "the age counts from the event, 3 s before the bundle is opened"
    )
    assert by_rate[100].archives[0][2] == 263


def test_the_cheapest_age_is_the_shortest_by_which_archives_fill() -> None:
    assert cheapest_age_s(PLAN, US_EAST_1) == 1
    assert cheapest_age_s(replace(PLAN, files_per_s=10), US_EAST_1) == 35
    assert cheapest_age_s(replace(PLAN, files_per_s=0.1), US_EAST_1) == 900


@settings(max_examples=40)
@given(size=st.integers(0, 60 * MIB), files=st.integers(1, 10**9), rate=st.floats(0.001, 10_000))
def test_nothing_is_negative_and_more_files_never_cost_less(size: int, files: int, rate: float) -> None:
    plan = Plan(sizes=of(size, files), files_per_s=rate, restored_per_month=files / 100)
    whole = replace(plan, offloaded=True, redirects_per_month=files, other_region=True, downloaded=True)
    for uses in (
        *(use for each in (plan, whole) for use in (once(each), monthly(each, DEPLOYED), offloading(each))),
        deleting(plan, kept_days=1),
    ):
        assert all(use.quantity > 0 for use in uses)
    more = replace(plan, sizes=of(size, files * 2))
    assert usd(once(more)) >= usd(once(plan))
    assert usd(monthly(more, DEPLOYED)) >= usd(monthly(plan, DEPLOYED))


@settings(max_examples=40)
@given(size=st.integers(1, 12 * MIB), rate=st.floats(0.001, 10_000), factor=st.floats(1, 50))
def test_what_comes_faster_never_costs_more_and_what_is_larger_never_costs_less(
    size: int, rate: float, factor: float
) -> None:
    plan = Plan(sizes=of(size), files_per_s=rate)
    assert usd(once(replace(plan, files_per_s=rate * factor))) <= usd(once(plan)) * ROUNDED
    larger = replace(plan, sizes=of(min(round(size * factor), 25 * MIB)))
    assert usd(once(larger)) * ROUNDED >= usd(once(plan))
    # An archive that is sampled has the more sources to read the smaller they are.
    kept, dearer = (
        usd([use for use in monthly(each, DEPLOYED) if not use.purpose.startswith("audits")]) for each in (plan, larger)
    )
    assert dearer * ROUNDED >= kept


@settings(max_examples=40)
@given(restored=st.floats(1, 10**6), days=st.integers(8, 3_650), redirects=st.floats(1, 10**9))
def test_more_of_anything_in_a_month_never_costs_less(restored: float, days: int, redirects: float) -> None:
    plan = replace(PLAN, restored_per_month=restored, audit_horizon_days=days, redirects_per_month=redirects)
    cost = usd(monthly(plan, DEPLOYED))
    for more in (
        replace(plan, restored_per_month=2 * restored),
        replace(plan, audit_horizon_days=days // 2),
        replace(plan, redirects_per_month=2 * redirects),
        replace(plan, offloaded=True),
        replace(plan, other_region=True),
    ):
        assert usd(monthly(more, DEPLOYED)) >= cost


def test_large_files_are_copied_by_s3_and_those_above_5_gb_in_parts() -> None:
    mixed = Plan(sizes=Sizes(counts=((1000, 10.0), (50 * MIB, 3.0), (6 * 1024 * MIB, 1.0))))
    archives = sum(use.quantity for use in once(mixed) if use.charge is Charge.S3_PUT_GLACIER)
    assert archives == pytest.approx(1 + 3 + 1)
    [parts] = [use for use in once(mixed) if use.purpose == "parts of archives"]
    assert (parts.charge, parts.quantity) == (Charge.S3_PUT, 1 + 12)
    instant = [
        use for use in once(replace(mixed, storage_class=Class.GLACIER_IR)) if use.purpose == "parts of archives"
    ]
    assert [use.charge for use in instant] == [Charge.S3_PUT_GLACIER_IR]
    assert mixed.archives[1:] == ((3.0, 50 * MIB, 1.0), (1.0, 6 * 1024 * MIB, 1.0))
    only_large = Plan(sizes=of(50 * MIB, 3))
    assert only_large.bundled is None
    assert targets(only_large, DEPLOYED, US_EAST_1, months=1, sizes=[25 * MIB])[0].files_in_archive == 1


def _photo(number: int) -> tuple[Source, bytes]:
    body = number.to_bytes(1000, "big")
    source = Source(
        key=f"photos/2026/11/22/user-1234567/img-{number:08d}.jpg",
        version_id="0123456789abcdef0123456789abcdef",
        size_bytes=len(body),
        etag=hashlib.md5(body).hexdigest(),
        last_modified=datetime(2026, 11, 22, tzinfo=UTC),
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body).hexdigest(),
        checksums={"CRC64NVME": "AAAAAAAAAAA="},
        content_type="image/jpeg",
        encryption="AES256",
    )
    return source, body


@pytest.mark.parametrize("members", [1, 10, 100])
def test_what_a_tar_and_its_manifest_add_is_as_measured(members: int) -> None:
    manifest, _ = build(1, "bucket", "archives/1.tar", [_photo(number) for number in range(members)])
    added = manifest.object_size_bytes - members * 1000
    assert added == pytest.approx(members * MEMBER_BYTES + ARCHIVE_BYTES, rel=0.25)
    wanted = members * MANIFEST_MEMBER_BYTES + MANIFEST_BYTES
    assert len(render_manifest(manifest)) == pytest.approx(wanted, rel=0.25)


def test_sizes_are_gathered_within_a_twentieth_whatever_their_number() -> None:
    sizes = [0, 0, *range(1, 5_000), 10**9]
    found = gathered(sizes)
    assert found.files == len(sizes)
    assert found.size_bytes == pytest.approx(sum(sizes), rel=0.001)
    assert len(found.counts) < 120
    assert found.of(10).files == pytest.approx(10)
    with pytest.raises(ValueError, match="at least one file"):
        gathered([])
    with pytest.raises(ValueError, match="0 or more bytes"):
        Sizes(counts=((-1, 1.0),))


def test_other_ways_are_for_the_same_files_and_small_ones_stay_out_of_glacier_by_lifecycle() -> None:
    found = {way.name: way for way in ways(PLAN, DEPLOYED)}
    assert len(found) == 6
    alone = found["each file by itself, GLACIER"]
    assert alone.usd(US_EAST_1, 0) == pytest.approx(30)
    moved = found["lifecycle from STANDARD to GLACIER"]
    assert moved.note
    assert moved.usd(US_EAST_1, 0) == pytest.approx(5)
    both = Plan(sizes=Sizes(counts=((100_000, 1.0), (1_000_000, 1.0))), storage_class=Class.DEEP_ARCHIVE)
    mixed = {way.name: way for way in ways(both, DEPLOYED)}["lifecycle from STANDARD to DEEP_ARCHIVE"]
    assert {use.charge for use in mixed.monthly} == {Charge.S3_STANDARD_GB_MONTH, Charge.DEEP_ARCHIVE_GB_MONTH}
    large = {way.name: way for way in ways(Plan(sizes=of(1_000_000)), DEPLOYED)}["lifecycle from STANDARD to GLACIER"]
    assert large.usd(US_EAST_1, 0) == pytest.approx(5 + 30)
    assert not large.note


def test_the_best_target_is_a_middle_one_larger_if_less_is_restored() -> None:
    plan = Plan(sizes=of(100_000, 100 * MILLION), audit_horizon_days=0)
    rarely, often = (
        best(targets(replace(plan, restored_per_month=restored), DEPLOYED, US_EAST_1, months=36))
        for restored in (100, 10_000_000)
    )
    assert often.target_bytes < rarely.target_bytes
    assert often.restore_usd < rarely.restore_usd
    assert often.thawed_bytes < rarely.thawed_bytes


def test_what_a_deployment_costs_by_itself_does_not_make_all_sizes_seem_alike() -> None:
    dear = replace(DEPLOYED, alarms=100_000)
    for_both = [best(targets(PLAN, deployed, US_EAST_1, months=36)).target_bytes for deployed in (DEPLOYED, dear)]
    assert for_both[0] == for_both[1]


def test_audits_cost_what_their_horizon_has_thawed_and_besides_an_archive_an_hour() -> None:
    def audits(days: int, uses: str = "audits") -> float:
        found = monthly(replace(PLAN, audit_horizon_days=days), DEPLOYED)
        return sum(usd([use]) for use in found if use.purpose.startswith(uses))

    sample = audits(0)
    assert audits(0, "audits: retrieval requests") == 0, "Bulk is free"
    assert audits(0, "audits: rows of members") == pytest.approx(730 * 263 * 0.125 / MILLION)
    assert 0.1 < sample < 0.3
    assert audits(365) - sample == pytest.approx(2 * (audits(730) - sample), rel=0.02)


def test_reconciling_costs_a_listing_a_look_at_each_archive_and_each_row_a_week_unless_it_is_switched_off() -> None:
    def reconciling(plan: Plan) -> dict[str, float]:
        uses = monthly(plan, DEPLOYED)
        return {use.purpose: usd([use]) for use in uses if use.purpose.startswith("reconciling")}

    weeks = 730 / 168
    found = reconciling(PLAN)
    assert found["reconciling: rows of members"] == pytest.approx(weeks * 0.125 / 2)
    assert found["reconciling: listing"] == pytest.approx(weeks * 1_008 * 0.005 / 1_000, rel=0.01)
    dear = reconciling(replace(PLAN, storage_class=Class.GLACIER_IR))["reconciling: looking at archives"]
    assert dear == pytest.approx(25 * found["reconciling: looking at archives"])
    assert reconciling(replace(PLAN, reconciled=False)) == {}


def test_what_is_deleted_at_once_is_paid_for_until_its_minimum_is_over() -> None:
    whole = usd(deleting(PLAN, kept_days=0))
    archives, each, _ = PLAN.archives[0]
    assert whole == pytest.approx(archives * (each + 32 * 1024) / 1024**3 * 0.0036 * 3, rel=0.01)
    assert usd(deleting(PLAN, kept_days=45)) == pytest.approx(whole / 2)
    assert deleting(PLAN, kept_days=90) == []


def test_files_picked_by_chance_lie_in_ever_fewer_archives_each_and_all_files_in_all_archives() -> None:
    archives = PLAN.archives[0][0]
    assert met(PLAN, 1) == pytest.approx(1, rel=0.001)
    assert 0.9 * archives < met(PLAN, 10_000) < archives
    assert met(PLAN, MILLION) == met(PLAN, 2 * MILLION) == pytest.approx(archives)
    one, many = (usd(restoring_at_random(PLAN, files)) / files for files in (1, 10_000))
    assert many < one


# -- What comes on top -----------------------------------------------------------------------------------------------


def of_purpose(uses: list[Use], begins: str) -> float:
    return usd([use for use in uses if use.purpose.startswith(begins)])


def test_offloading_costs_what_its_requests_cost_and_the_attic_what_it_holds() -> None:
    plan = replace(PLAN, offloaded=True)
    uses = offloading(plan)
    requests = {Charge.SQS_REQUEST, Charge.S3_PUT, Charge.S3_GET, Charge.DYNAMODB_READ_UNIT, Charge.DYNAMODB_WRITE_UNIT}
    # docs/decisions.md, "What a million uploads cost, by list price".
    assert usd([use for use in uses if use.charge in requests]) == pytest.approx(7.24, abs=0.01)
    assert usd([use for use in uses if "attic" in use.purpose]) == pytest.approx(100_000 * MILLION / 1024**3 * 0.023)
    assert 0.2 < of_purpose(uses, "offload: logs") < 0.6
    looked = replace(plan, sizes=of(LOOK_BYTES))
    assert of_purpose(offloading(looked), "offload: looking") == pytest.approx(0.8)
    assert offloading(PLAN) == []
    assert of_purpose(monthly(plan, DEPLOYED), "metrics of offloading") > 0
    parts = [use.quantity for use in offloading(replace(plan, sizes=of(6 * 1024 * MIB, 1))) if "copies" in use.purpose]
    assert parts[0] == 14


def test_a_copy_in_another_region_is_sent_written_and_kept_there() -> None:
    plan = replace(PLAN, other_region=True)
    more = usd(once(plan)) - usd(once(PLAN))
    assert more == pytest.approx(of_purpose(once(plan), "other region"))
    gb = PLAN.archives[0][0] * PLAN.archives[0][1] / 1024**3
    assert of_purpose(once(plan), "other region: transfer") == pytest.approx(gb * 0.02, rel=0.01)
    kept = monthly(plan, DEPLOYED)
    assert of_purpose(kept, "other region: archives") == pytest.approx(of_purpose(kept, "archives"))


def test_files_that_are_downloaded_leave_aws_and_are_put_nowhere() -> None:
    into, out = (restoring_at_random(replace(PLAN, downloaded=given), 1_000) for given in (False, True))
    assert of_purpose(out, "restores: download") == pytest.approx(1_000 * 101_310 / 1024**3 * 0.09, rel=0.01)
    assert of_purpose(out, "restores: writing") == 0 < of_purpose(into, "restores: writing")


def test_what_neve_itself_takes_for_a_restore_is_as_measured() -> None:
    # docs/benchmarks.md, (j): dollars per million files that neve's own part comes to, into the content bucket 100 out
    # of each archive; elsewhere 100 and 3.
    away = replace(PLAN, downloaded=True)
    for plan, archives, measured in (
        (PLAN, 10_000, 10.75 - 8.59),
        (away, 10_000, 9.48 - 8.60),
        (away, 333_333, 126.43 - 117.17),
    ):
        uses = restoring(plan, archives=archives, archive_bytes=26_600_000, files=MILLION, file_bytes=101_000)
        own = [use for use in uses if use.charge not in {*S3_CHARGES, Charge.INTERNET_GB}]
        assert usd(own) == pytest.approx(measured, rel=0.1)


def test_redirects_cost_a_read_and_some_milliseconds_each() -> None:
    uses = monthly(replace(PLAN, redirects_per_month=MILLION), DEPLOYED)
    assert 0.5 < of_purpose(uses, "redirects") < 1.5
    assert of_purpose(monthly(PLAN, DEPLOYED), "redirects") == 0


def test_what_a_deployment_costs_by_itself_has_its_metrics_and_what_its_schedules_set_going() -> None:
    by_purpose = {use.purpose: use for use in standing(DEPLOYED)}
    assert by_purpose["metrics"].quantity == DEPLOYED.idle_metrics
    assert by_purpose["scheduled: messages"].quantity == 3 * 60_000
    [in_use] = [use for use in monthly(PLAN, DEPLOYED) if use.purpose == "metrics in use"]
    assert in_use.quantity == DEPLOYED.metrics - DEPLOYED.idle_metrics


def test_the_other_ways_are_compared_with_the_second_copy_alone() -> None:
    whole = replace(PLAN, offloaded=True, other_region=True, redirects_per_month=MILLION)
    assert ways(whole, DEPLOYED)[0] == ways(PLAN, DEPLOYED)[0]


def test_a_handful_of_files_is_one_archive() -> None:
    assert Plan(sizes=of(100_000, 5)).archives[0][0] == 1


# -- Backfill --------------------------------------------------------------------------------------------------------


def test_what_is_announced_costs_no_event_of_s3_and_what_it_costs_instead_is_shown() -> None:
    uses = {use.purpose: use for use in backfilling(PLAN)}
    assert "S3's events to the collect queue" not in uses
    assert uses["announcements"].quantity == pytest.approx(MILLION / ANNOUNCED_A_MESSAGE * 4)
    assert uses["receiving and deleting announcements"].quantity == pytest.approx(MILLION / ANNOUNCED_A_MESSAGE * 5)
    assert usd(list(uses.values())) < usd(once(PLAN))


def test_an_announcement_holds_as_many_versions_as_a_forecast_takes_it_to() -> None:
    versions = [
        ObjectVersion(
            key=f"photos/2026/11/22/user-1234567/img-{number:08d}.jpg",
            version_id="0123456789abcdef0123456789abcdef",
            size_bytes=100_000,
            etag=hashlib.md5(str(number).encode()).hexdigest(),
            sequencer="",
            event_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        for number in range(10_000)
    ]
    messages = list(announcements("a-content-bucket", versions))
    assert len(versions) / len(messages) == pytest.approx(ANNOUNCED_A_MESSAGE, rel=0.25)
    assert sqs_requests(len(messages[0])) == ANNOUNCEMENT_REQUESTS


def test_a_backfill_is_as_fast_as_its_rate_and_never_faster_than_its_writers() -> None:
    assert backfill_s(PLAN, 100) == pytest.approx(10_000)
    fastest = backfill_s(PLAN)
    assert 500 < fastest < 5_000
    assert backfill_s(PLAN, 10**9) == pytest.approx(fastest)
    assert backfill_s(PLAN, writers=20) == pytest.approx(fastest / 2)
    assert backfill_s(Plan(sizes=of(50 * MIB, 300)), 3) == 100


def test_a_backfill_that_is_held_back_costs_the_time_in_which_it_waits_within_an_invocation() -> None:
    assert usd(backfilling(PLAN, 100)) > usd(backfilling(PLAN, 500)) > usd(backfilling(PLAN))
    time = {use.purpose: use.quantity for use in backfilling(PLAN, 10)}["backfill: time of the function"]
    assert time < 2 * 100_000 * 0.5, "most wait in Step Functions"


def test_a_forecast_of_a_backfill_goes_by_what_the_flow_does() -> None:
    assert (BATCH, HOLD.total_seconds()) == (ANNOUNCED_A_MESSAGE, BACKFILL_HOLD_S)
    assert (BACKFILL_SHARDS, LOOKS_FOR_SHARDS) == (ENOUGH_RANGES, MOST_REQUESTS)


def test_versions_come_from_a_listing_or_from_a_report_of_the_inventory() -> None:
    listed, reported = (
        {use.purpose: use.quantity for use in backfilling(PLAN, inventory=given)} for given in (False, True)
    )
    assert listed["backfill: listing versions"] == 2_000
    assert reported["backfill: inventory"] == MILLION
    assert not {"backfill: listing versions"} & set(reported)


def test_a_backfill_of_few_versions_has_one_shard() -> None:
    few = {use.purpose: use.quantity for use in backfilling(Plan(sizes=of(100_000, 2_000)), 100)}
    assert few["backfill: listing versions"] == 4
    assert few["backfill: steps"] == pytest.approx(1, rel=0.1)


def test_more_writers_cost_no_more_and_archive_sooner() -> None:
    assert usd(backfilling(PLAN, writers=20)) <= usd(backfilling(PLAN))


@settings(max_examples=25)
@given(size=st.integers(0, 60 * MIB), files=st.integers(1, 10**10), rate=st.floats(0.1, 100_000))
def test_a_backfill_of_more_files_never_costs_less(size: int, files: int, rate: float) -> None:
    plan, more = (Plan(sizes=of(size, number)) for number in (files, 2 * files))
    assert 0 < usd(backfilling(plan, rate)) <= usd(backfilling(more, rate))

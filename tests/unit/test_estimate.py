"""What restores are said to cost and to take before they begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.estimate import PARTS, Estimate, Estimator, Portion, Reads
from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.manifest import Member, Source
from neve.domain.prices import GB, US_EAST_1, Bill
from neve.domain.ranges import READ_BYTES, reads
from neve.domain.restore import Kind
from neve.domain.thaw import Need, Step, Thaw, Tier, accepted, claimed, thaw_micro_usd, warmed

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STANDARD = Need(tier=Tier.STANDARD, days=1)
ONE = Portion(files={Kind.S3: 1}, reads=1, size_bytes=1_000)


def archive(storage_class: str = "GLACIER", *, serial: int = 1, size_bytes: int = GB) -> ArchiveRow:
    return ArchiveRow(
        serial=serial,
        kind="tar",
        bundle="b",
        object_key=f"archives/{serial:010d}.tar",
        object_version_id="v",
        storage_class=storage_class,
        size_bytes=size_bytes,
        sha256="",
        source_bytes=size_bytes,
        files=1,
        duplicates=0,
        state=ArchiveState.ARCHIVED,
        written_at=NOW,
    )


def thawing(tier: Tier, *, since: datetime, days: int = 1) -> Thaw:
    claim = claimed(None, 1, "GLACIER", Need(tier=tier, days=days), owner="other", now=since)
    return accepted(claim, "GLACIER", since)


def estimate(*known: tuple[ArchiveRow, Thaw | None, Portion], need: Need = STANDARD) -> Estimate:
    estimator = Estimator(need=need, owner="job", now=NOW)
    for each in known:
        estimator.add(*each)
    return estimator.estimate()


def member(number: int, offset_bytes: int, size_bytes: int) -> Member:
    source = Source(key=f"{number:04}", version_id="v", size_bytes=size_bytes, etag="e", last_modified=NOW)
    return Member(source=source, number=number, name=f"files/{number:04}", offset_bytes=offset_bytes)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from((0, 1, 511, READ_BYTES // 2, READ_BYTES, READ_BYTES + 1))),
        max_size=12,
    ).flatmap(lambda sizes: st.tuples(st.just(sizes), st.lists(st.booleans(), min_size=12, max_size=12)))
)
def test_reads_are_counted_as_they_will_be_made(drawn: tuple[list[tuple[int, int]], list[bool]]) -> None:
    sizes, wanted = drawn
    members: list[Member] = []
    number = offset = 0
    for gap, size_bytes in sizes:
        number, offset = number + 1 + gap, offset + 512 * (2 + 3 * gap)
        members.append(member(number, offset, size_bytes))
        offset += -(-size_bytes // 512) * 512
    members = [each for each, is_wanted in zip(members, wanted, strict=False) if is_wanted]
    counted = Reads()
    for each in members:
        for _ in range(2):  # the same file to two places
            counted.add(each.number, each.offset_bytes, each.source.size_bytes)
    assert counted.count == len(reads(members))


def test_a_thaw_is_asked_for_and_paid_where_nothing_runs() -> None:
    found = estimate((archive(), None, ONE))
    assert (found.asked, found.running, found.readable) == (1, 0, 0)
    assert found.thaw_bytes == GB
    assert found.thaw_micro_usd == thaw_micro_usd("GLACIER", Tier.STANDARD, days=1, size_bytes=GB)
    assert found.ready_at == NOW + timedelta(hours=5)
    parts = found.usd_by_part
    assert list(parts) == list(PARTS)
    assert parts["retrieval"] == pytest.approx(0.01)
    assert parts["retrieval requests"] == pytest.approx(0.00005)
    assert parts["temporary copies"] == pytest.approx(0.023 * 2 / 30)
    assert parts["reading archives"] == pytest.approx(0.0004 / 1_000)
    assert parts["writing files"] == pytest.approx(0.005 / 1_000)
    assert found.usd == pytest.approx(sum(parts.values()))
    assert found.bill.prices is US_EAST_1


def test_whoever_joins_a_thaw_pays_nothing_for_it_and_waits_for_its_end() -> None:
    running = thawing(Tier.STANDARD, since=NOW - timedelta(hours=1))
    claim = claimed(None, 1, "GLACIER", STANDARD, owner="other", now=NOW)
    found = estimate((archive(), running, ONE), (archive(serial=2), replace(claim, tier=Tier.BULK), ONE))
    assert (found.asked, found.running, found.thaw_micro_usd) == (0, 2, 0)
    assert found.ready_at == NOW + timedelta(hours=5)
    assert found.usd_by_part["retrieval"] == 0


def test_a_faster_tier_is_a_request_of_its_own_with_the_days_of_the_first() -> None:
    found = estimate((archive(), thawing(Tier.BULK, since=NOW, days=3), ONE))
    assert found.steps == {Step.UPGRADE: 1}
    assert found.thaw_micro_usd == thaw_micro_usd("GLACIER", Tier.STANDARD, days=3, size_bytes=GB)
    assert found.ready_at == NOW + timedelta(hours=5)


def test_a_warm_copy_costs_nothing_and_a_longer_stay_retrieves_nothing() -> None:
    warm = warmed(None, 1, until=NOW + timedelta(days=2), now=NOW)
    assert estimate((archive(), warm, ONE)).steps == {Step.READ: 1}
    found = estimate((archive(), warm, ONE), need=Need(tier=Tier.STANDARD, days=5))
    assert found.steps == {Step.EXTEND: 1}
    assert (found.asked, found.readable, found.thaw_micro_usd) == (0, 1, 0)
    assert found.usd_by_part["retrieval"] == 0
    assert found.usd_by_part["temporary copies"] == pytest.approx(0.023 * 6 / 30)
    assert found.ready_at == NOW


def test_a_class_that_needs_no_thaw_is_paid_by_what_is_read() -> None:
    found = estimate((archive("GLACIER_IR"), None, replace(ONE, size_bytes=GB)))
    assert (found.readable, found.thaw_micro_usd, found.ready_at) == (1, 0, NOW)
    assert found.usd_by_part["retrieval"] == pytest.approx(0.03)
    assert found.usd_by_part["reading archives"] == pytest.approx(0.01 / 1_000)


def test_archives_that_have_no_such_tier_are_named() -> None:
    deep = [(archive("DEEP_ARCHIVE", serial=serial), None, ONE) for serial in range(1, 9)]
    found = estimate((archive(serial=9), None, ONE), *deep, need=Need(tier=Tier.EXPEDITED, days=1))
    assert [row.serial for row in found.not_offered] == [1, 2, 3, 4, 5]
    assert found.steps == {Step.REQUEST: 1}


def test_the_slowest_archive_tells_when_all_is_thawed() -> None:
    found = estimate((archive("DEEP_ARCHIVE"), None, ONE), (archive(serial=2), None, ONE))
    assert found.ready_at == NOW + timedelta(hours=12)
    assert estimate().ready_at == NOW


@pytest.mark.parametrize(("size_bytes", "requests"), [(GB, 1), (6 * GB, 12 + 2)])
def test_a_large_object_is_copied_by_s3_to_a_bucket_and_read_once_to_a_folder(size_bytes: int, requests: int) -> None:
    row = replace(archive(size_bytes=size_bytes), kind="object")
    to_bucket = estimate((row, None, Portion(files={Kind.S3: 1}, reads=1, size_bytes=size_bytes)))
    assert to_bucket.usd_by_part["writing files"] == pytest.approx(requests * 0.005 / 1_000)
    assert to_bucket.usd_by_part["reading archives"] == 0
    to_folder = estimate((row, None, Portion(files={Kind.LOCAL: 1}, reads=1, size_bytes=size_bytes)))
    assert to_folder.usd_by_part["writing files"] == 0
    assert to_folder.usd_by_part["reading archives"] > 0


def test_a_local_folder_is_written_to_for_nothing() -> None:
    found = estimate((archive(), None, Portion(files={Kind.LOCAL: 500}, reads=3, size_bytes=1)))
    assert found.usd_by_part["writing files"] == 0
    assert found.usd_by_part["reading archives"] == pytest.approx(3 * 0.0004 / 1_000)


def test_a_bill_stays_short_however_many_archives_there_are() -> None:
    found = estimate(*((archive(serial=serial), None, ONE) for serial in range(1, 100)))
    assert len(found.bill.uses) == 5
    single = estimate((archive(), None, ONE))
    assert found.usd == pytest.approx(Bill(prices=US_EAST_1, uses=single.bill.uses).usd * 99)

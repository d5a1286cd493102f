"""Packing: every version in exactly one bundle, no bundle over its ceiling."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.bundle import (
    Bundle,
    BundleState,
    Lane,
    Limits,
    by_size,
    distinct,
    fill,
    large_id,
    requested_bundle,
    total_bytes,
    write_request,
)
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid

NOW = datetime(2026, 9, 1, tzinfo=UTC)
LIMITS = Limits(target_bytes=100, max_members=5, max_age_s=20)


def version(key: str, size_bytes: int = 1, version_id: str = "v", etag: str = "e") -> ObjectVersion:
    return ObjectVersion(key=key, version_id=version_id, size_bytes=size_bytes, etag=etag, sequencer="", event_at=NOW)


SMALL = st.lists(st.integers(0, LIMITS.target_bytes), max_size=40).map(
    lambda sizes: [version(f"k{number}", size) for number, size in enumerate(sizes)]
)


@given(SMALL)
def test_filling_one_bundle_after_the_other_takes_each_version_once_in_order(versions: list[ObjectVersion]) -> None:
    left, taken = list(versions), []
    while left:
        count = fill(left, LIMITS)
        assert count >= 1
        bundle = left[:count]
        assert len(bundle) <= LIMITS.max_members
        assert total_bytes(bundle) < LIMITS.ceiling_bytes
        assert count == len(left) or LIMITS.full(size_bytes=total_bytes(bundle), count=count)
        assert not LIMITS.full(size_bytes=total_bytes(bundle[:-1]), count=count - 1), "the last one fills it"
        taken += bundle
        left = left[count:]
    assert taken == versions


@given(SMALL, st.integers(0, LIMITS.target_bytes - 1), st.integers(0, LIMITS.max_members - 1))
def test_a_bundle_that_is_not_full_takes_at_least_one_and_never_too_many(
    versions: list[ObjectVersion], size_bytes: int, count: int
) -> None:
    taken = fill(versions, LIMITS, size_bytes=size_bytes, count=count)
    assert taken >= min(1, len(versions))
    assert count + taken <= LIMITS.max_members
    assert size_bytes + total_bytes(versions[:taken]) <= LIMITS.ceiling_bytes


def test_a_bundle_that_is_full_takes_nothing() -> None:
    assert fill([version("a")], LIMITS, size_bytes=LIMITS.target_bytes) == 0
    assert fill([version("a")], LIMITS, count=LIMITS.max_members) == 0


@given(st.lists(st.integers(0, 300)))
def test_only_what_is_over_the_target_gets_an_archive_of_its_own(sizes: list[int]) -> None:
    versions = [version(f"k{number}", size) for number, size in enumerate(sizes)]
    small, large = by_size(versions, LIMITS)
    assert sorted(small + large, key=lambda each: each.key) == sorted(versions, key=lambda each: each.key)
    assert all(each.size_bytes <= LIMITS.target_bytes for each in small)
    assert all(each.size_bytes > LIMITS.target_bytes for each in large)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["v1", "v2", "null"]), st.sampled_from("ef"))))
def test_distinct_keeps_the_first_of_each_identity_in_order(named: list[tuple[str, str, str]]) -> None:
    versions = [version(key, number, pin, etag) for number, (key, pin, etag) in enumerate(named)]
    kept = distinct(versions)
    assert {each.identity for each in kept} == {each.identity for each in versions}
    assert len(kept) == len({each.identity for each in versions})
    assert [versions.index(each) for each in kept] == sorted(versions.index(each) for each in kept)
    assert all(next(v for v in versions if v.identity == each.identity) == each for each in kept)


def test_null_versions_with_different_bytes_are_different_and_others_are_not() -> None:
    assert len(distinct([version("a", version_id="null", etag=etag) for etag in "xy"])) == 2
    assert len(distinct([version("a", version_id="v1", etag=etag) for etag in "xy"])) == 1


def test_a_large_version_has_the_same_bundle_however_often_it_is_announced() -> None:
    assert large_id(version("a", 5)) == large_id(version("a", 6))
    assert len({large_id(version(key, version_id=pin)) for key, pin in (("a", "bc"), ("ab", "c"), ("a", "b"))}) == 3


def test_a_bundle_is_finished_once_it_is_archived_or_void() -> None:
    states = {
        state: Bundle(id="b", kind="tar", state=state, size_bytes=0, count=0, due_at=NOW).finished
        for state in BundleState
    }
    assert [state for state, finished in states.items() if finished] == [BundleState.ARCHIVED, BundleState.VOID]


def test_a_bundle_is_due_five_minutes_after_its_age_and_one_of_a_backfill_an_hour() -> None:
    assert LIMITS.due_at(NOW, Lane.LIVE) == NOW + timedelta(seconds=20, minutes=5)
    assert LIMITS.due_at(NOW, Lane.BACKFILL) == NOW + timedelta(seconds=20, hours=1)


@pytest.mark.parametrize(("waited_s", "timer_s"), [(0, 20), (0.3, 20), (3, 17), (10, 10), (19, 10), (86_400, 10)])
def test_what_waited_before_it_came_into_a_bundle_waits_less_in_it_but_half_of_the_age_at_least(
    waited_s: float, timer_s: int
) -> None:
    assert LIMITS.timer_s(waited_s) == timer_s


def test_a_bundle_of_the_shortest_age_has_a_timer_of_a_second() -> None:
    assert Limits(target_bytes=100, max_members=5, max_age_s=1).timer_s(60) == 1


@given(st.text(min_size=1))
def test_a_request_names_its_bundle(bundle_id: str) -> None:
    assert requested_bundle(write_request(bundle_id)) == bundle_id


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x",
        "[]",
        "7",
        "null",
        '"bundle"',
        "{}",
        '{"bundle": 7}',
        '{"bundle": ""}',
        '{"bundle": null}',
        "[" * 100_000,
    ],
)
def test_what_is_no_request_is_refused(body: str) -> None:
    with pytest.raises(EventInvalid):
        requested_bundle(body)


LEAVES = st.none() | st.booleans() | st.floats() | st.text()
NAMES = st.just("bundle") | st.text()


@given(LEAVES | st.lists(LEAVES) | st.dictionaries(NAMES, LEAVES | st.lists(LEAVES)))
def test_no_json_breaks_the_reading_of_a_request(message: object) -> None:
    with contextlib.suppress(EventInvalid):
        assert requested_bundle(json.dumps(message))

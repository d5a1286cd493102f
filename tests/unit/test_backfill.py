from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.backfill import (
    LONGEST_BOUNDARIES,
    MOST_SHARDS,
    Backfill,
    BackfillShard,
    Counted,
    Place,
    Request,
    Shard,
    Split,
    Step,
    Tally,
    backfill_id,
    behind,
    boundaries,
    is_wanted,
    parse,
    shards,
    time_left,
    together,
)
from neve.domain.forecast import gathered
from neve.errors import EventInvalid
from tests.bad_keys import BAD_KEYS
from tests.memory_backfill import stored

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
ODD = [*BAD_KEYS, "\U0010ffff", "\U0010ffff\U0010ffff", "a\U0010ffff", "a\U0010ffffb", "\ud7ff", "\ue000", "\uffff"]


def in_bucket(keys: list[str], asked: list[str] | None = None):  # type: ignore[no-untyped-def]
    """What tells the first key after a string, as S3 orders them."""
    in_order = sorted({key.encode() for key in keys})

    def first_key(after: str) -> str:
        if asked is not None:
            asked.append(after)
        assert len(after.encode()) <= 1024
        return next((key.decode() for key in in_order if key > after.encode()), "")

    return first_key


def in_ranges(keys: list[str], found: tuple[str, ...]) -> list[int]:
    """How many keys each range has."""
    parts = shards(Split(boundaries=found))
    return [sum(part.after < key and (not part.until or key <= part.until) for key in keys) for part in parts]


# Where ranges begin


@pytest.mark.parametrize("step", [1, 7])
def test_keys_that_differ_in_digits_come_in_ranges_of_one_size(step: int) -> None:
    keys = [f"photos/2026/{number:06}.jpg" for number in range(0, 2_000 * step, step)]
    found = boundaries(in_bucket(keys), enough=20)
    assert 20 <= len(found) + 1 <= 200
    assert max(in_ranges(keys, found)) <= len(keys) / 10


def test_what_all_keys_have_in_common_is_passed_over_in_few_requests() -> None:
    common = "/".join(["very", "long"] * 90) + "/"
    keys = [f"{common}{number:03}" for number in range(1_000)]
    asked: list[str] = []
    found = boundaries(in_bucket(keys, asked), enough=10)
    assert in_ranges(keys, found) == [100] * 10
    assert len(asked) < 40


@pytest.mark.parametrize("keys", [[], ["a"], ["k" * 1024], ["\U0001f600" * 256], ["\U0010ffff" * 256]])
def test_no_key_or_a_single_one_is_one_range(keys: list[str]) -> None:
    assert boundaries(in_bucket(keys)) == ()


def test_a_key_that_others_begin_with_is_split_off_from_them() -> None:
    keys = ["a", "ab", "abc", "abd", "abde", "b"]
    found = boundaries(in_bucket(keys), enough=50)
    assert found == ("abd", "b")
    assert in_ranges(keys, found) == [4, 2, 0]


def test_a_bucket_is_asked_no_more_often_than_is_allowed() -> None:
    drawn = random.Random(1)
    keys = ["".join(drawn.choices("01", k=40)) for _ in range(2_000)]
    asked: list[str] = []
    found = boundaries(in_bucket(keys, asked), requests=50)
    assert len(asked) == 50
    assert len(found) > 2
    assert sum(in_ranges(keys, found)) == len(set(keys))


def test_keys_behind_the_highest_character_cost_no_more_than_others() -> None:
    asked: list[str] = []
    keys = ["a", *(f"a\U0010ffff\U0010ffff{number}" for number in range(3)), "b"]
    found = boundaries(in_bucket(keys, asked))
    assert len(found) > 2
    assert len(asked) < 60


def test_boundaries_fit_into_an_item_however_long_keys_are() -> None:
    keys = [chr(0x4E00 + number) * 300 + chr(0x4E00 + other) for number in range(20) for other in range(20)]
    found = boundaries(in_bucket(keys), enough=350, requests=10_000)
    assert 50 < len(found) < 400
    assert sum(len(each.encode()) for each in found) <= LONGEST_BOUNDARIES


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(ODD) | st.text("ab\u00fc\U0001f600\U0010ffff", min_size=1, max_size=5), max_size=30),
    st.lists(st.text("ab\u00fc\U0001f600\U0010ffff\ud7ff\ue000", min_size=1, max_size=5), max_size=9),
)
def test_every_key_is_in_one_range_also_those_that_come_later(keys: list[str], later: list[str]) -> None:
    asked: list[str] = []
    found = boundaries(in_bucket(keys, asked), requests=300)
    assert all(one.encode() < other.encode() for one, other in pairwise(found))
    assert len(asked) <= 300
    everything = sorted({*keys, *later})
    assert Counter(in_ranges(everything, found)).total() == len(found) + 1
    assert sum(in_ranges(everything, found)) == len(everything)


def test_behind_a_beginning_is_behind_its_keys_and_before_the_next() -> None:
    for beginning in ("a", "k" * 1020, "k" * 1021, "k" * 1022, "k" * 1023, "k" * 1024):
        room = 1024 - len(beginning)
        longest = beginning + "\uffee"[: room // 3] + "~" * (room % 3)
        assert longest.encode() <= behind(beginning).encode() < (beginning[:-1] + "l").encode()
        assert len(behind(beginning).encode()) <= 1024


# Shards


def test_ranges_meet_and_have_no_ends() -> None:
    assert shards(Split()) == [Shard(number=0)]
    assert shards(Split(boundaries=("b", "d"))) == [
        Shard(number=0, until="b"),
        Shard(number=1, after="b", until="d"),
        Shard(number=2, after="d"),
    ]


@pytest.mark.parametrize("files", [0, 1, 3, MOST_SHARDS, MOST_SHARDS + 1, 3 * MOST_SHARDS - 1])
def test_every_file_of_an_inventory_is_in_one_shard(files: int) -> None:
    parts = shards(Split(manifest="m", files=files))
    assert len(parts) == min(files, MOST_SHARDS)
    assert [file for part in parts for file in range(part.first, part.end)] == list(range(files))
    assert all(part.end - part.first in (files // MOST_SHARDS, -(-files // MOST_SHARDS), 1) for part in parts)


def test_only_keys_with_the_prefix_are_wanted_and_none_of_a_drill() -> None:
    assert is_wanted("a/b", "a/")
    assert is_wanted("a/", "a/")
    assert not is_wanted("a", "a/")
    assert not is_wanted(".neve/drill/x", "")


# What is counted


def test_what_lies_frozen_is_counted_apart() -> None:
    tally = Tally()
    for storage_class in ("STANDARD", "GLACIER_IR", "INTELLIGENT_TIERING", "STANDARD_IA"):
        tally.count(stored("k", size_bytes=100, storage_class=storage_class))
    for storage_class in ("GLACIER", "DEEP_ARCHIVE"):
        tally.count(stored("k", size_bytes=7, storage_class=storage_class))
    counted = tally.counted()
    assert (counted.versions, counted.size_bytes, counted.frozen, counted.frozen_bytes) == (4, 400, 2, 14)


def test_sizes_come_out_as_if_they_had_been_gathered_at_once() -> None:
    sizes = [0, 0, 1, 5, 99, 100, 100_000, 5 * 1024**4]
    rows = [BackfillShard(of="b", number=0), BackfillShard(of="b", number=1)]
    for number, size in enumerate(sizes):
        tally = Tally()
        tally.count(stored("k", size_bytes=size))
        rows[number % 2] = rows[number % 2].after(Place(line=number), tally.counted(), done=number > 5)
    totals = together(rows)
    assert totals.counted.sizes == gathered(sizes)
    assert (totals.counted.versions, totals.begun, totals.done) == (8, 2, 2)
    assert [row.place.line for row in rows] == [6, 7]
    with pytest.raises(ValueError, match="at least one file"):
        _ = Counted().sizes


def test_problems_are_told_by_the_shards_that_have_them_and_the_last_change_counts() -> None:
    rows = [
        BackfillShard(of="b", number=0),
        BackfillShard(of="b", number=3, problem="gone", changed_at=NOW),
        BackfillShard(of="b", number=4, problem="short", changed_at=NOW - timedelta(hours=1)),
    ]
    totals = together(rows)
    assert totals.problems == ((3, "gone"), (4, "short"))
    assert totals.changed_at == NOW
    assert together([]).changed_at is None


def test_time_left_follows_from_what_was_counted_before() -> None:
    counted = Counted(by_size={1: (10, 10)})
    assert time_left(counted, expected=110, per_s=20) == timedelta(seconds=5)
    assert time_left(counted, expected=5, per_s=20) == timedelta(0)
    assert time_left(counted, expected=110, per_s=0) is None


# The backfill itself


def test_ids_sort_by_time_and_name_executions() -> None:
    first, second = backfill_id(NOW, "f" * 32), backfill_id(NOW + timedelta(seconds=1), "0" * 32)
    assert first == "20260901T120000-ffffff"
    assert first < second
    assert Backfill(id=first, begun_at=NOW, attempt=3).execution == "20260901T120000-ffffff-3"


@pytest.mark.parametrize("wrong", [{"prefix": "k" * 1025}, {"prefix": "\ud800"}, {"rate": -1}, {"inventory": "x/y"}])
def test_what_cannot_be_is_no_backfill(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"prefix|UTF-8|rate|inventory"):
        replace(Backfill(id="b", begun_at=NOW), **wrong)  # type: ignore[arg-type]


# Events


def test_events_of_the_state_machine_are_understood() -> None:
    assert parse({"step": "plan", "backfill": "b"}) == Request(step=Step.PLAN, backfill="b")
    answer = {"step": "advance", "backfill": "b", "shard": 3, "rounds": 2, "done": False, "over": False, "wait_s": 1}
    assert parse(answer) == Request(step=Step.ADVANCE, backfill="b", shard=3, rounds=2)
    ended = parse({"step": "end", "backfill": "b", "execution": "b-1", "problem": "p"})
    assert (ended.execution, ended.problem) == ("b-1", "p")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"step": "begin", "backfill": "b"},
        {"step": "plan"},
        {"step": "plan", "backfill": 3},
        {"step": "advance", "backfill": "b", "shard": "3"},
        {"step": "advance", "backfill": "b", "shard": True},
    ],
)
def test_other_events_are_refused(event: dict[str, object]) -> None:
    with pytest.raises(EventInvalid, match="not a step of a backfill"):
        parse(event)

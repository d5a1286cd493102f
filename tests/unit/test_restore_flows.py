"""Restores from their requests to the files in place, on ports in memory: whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.index import ArchiveRow
from neve.domain.manifest import Source
from neve.domain.parked import Reason
from neve.domain.restore import Ending, Item, JobState, Kind, render_thawed
from neve.domain.thaw import Need, ThawState, Tier, thaw_micro_usd
from neve.domain.version import ObjectVersion
from neve.errors import Asleep, EventInvalid, NeveError, Transient
from neve.flows.extract import Extracted
from neve.flows.jobs import end_unfetched
from neve.ports import Answer, CopyStatus, Placed
from tests.bad_keys import BAD_KEYS
from tests.interleave import Steps, Task, explored
from tests.memory import CONTENT, START
from tests.memory_s3 import MemoryDestination, MemoryReader, copy_until
from tests.restore_cloud import (
    BULK,
    DAY,
    EXPEDITED,
    HOUR,
    MINUTE,
    OTHER,
    STANDARD,
    SWEEP,
    RestoreCloud,
    Stored,
    object_of,
    source_of,
    tar_of,
    tar_with,
    wanted,
)

A = tar_with(1, ["a1", "a2", "a3", "a4"])
B = tar_with(2, ["b1", "b2"])
C = tar_with(3, ["c1"])
DEEP = tar_with(4, ["deep"], "DEEP_ARCHIVE")
INSTANT = tar_with(5, ["i1", "i2"], "GLACIER_IR")
FILM = object_of(6, "film", b"frames " * 300)
ALL = (A, B, C, DEEP, INSTANT, FILM)


@pytest.fixture
def cloud() -> RestoreCloud:
    return RestoreCloud(ALL)


def details(cloud: RestoreCloud, job: str = "job-1") -> dict[str, str]:
    return {result.item.key: result.detail for result in cloud.results(job)}


# -- The way of a file ------------------------------------------------------------------------------------------------


def test_files_of_several_archives_come_home_with_one_thaw_for_each(cloud: RestoreCloud) -> None:
    cloud.job([wanted(key) for key in ("a1", "a3", "b2", "c1")])
    cloud.deliver()
    assert cloud.place(f"s3://{CONTENT}/a1") is None, "nothing is complete because it was asked for"
    assert cloud.jobs[0].state is JobState.RUNNING
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 4}
    assert cloud.ice.asked == [(serial, Tier.BULK, 1, Answer.ACCEPTED) for serial in (1, 2, 3)]
    assert json.loads(cloud.topic.published[0])["endings"] == {"restored": 4}
    assert not cloud.failures


def test_what_is_restored_has_the_metadata_that_the_manifest_states(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1", f"s3://{OTHER}/copy of a1")])
    cloud.settle()
    placed = cloud.destination.current(f"s3://{OTHER}/copy of a1")
    assert placed is not None
    assert placed.source == A.manifest.members[0].source


def test_what_comes_back_into_the_content_bucket_has_a_row_that_names_the_archive_it_came_from(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a2"), wanted("a3", f"s3://{CONTENT}/elsewhere"), wanted("a4", f"s3://{OTHER}/a4")])
    before = set(cloud.files.rows)
    cloud.settle()
    made = {row.key: row for identity, row in cloud.files.rows.items() if identity not in before}
    assert set(made) == {"a2", "elsewhere"}
    row = made["elsewhere"]
    assert (row.archive, row.number, row.pin) == (1, 2, f"s3://{CONTENT}/elsewhere#1")
    assert row.sha256 == hashlib.sha256(cloud.body_of("elsewhere", row.pin)).hexdigest()


def test_what_was_restored_is_restored_again_from_the_same_member(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a3", f"s3://{CONTENT}/elsewhere")])
    cloud.settle()
    cloud.job([wanted("elsewhere", f"s3://{OTHER}/again", pin="")], job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.place(f"s3://{OTHER}/again") == cloud.body_of("a3", "v1")


@pytest.mark.parametrize("kept_versions_once", [False, True], ids=["never versioned", "suspended"])
def test_without_versions_a_restored_file_is_known_by_its_etag_and_hides_no_other(kept_versions_once: bool) -> None:
    """A second restore to the same key overwrites the first one in place, and both are versions that have a row."""
    cloud = RestoreCloud(stored=[tar_with(1, ["one", "two"])])
    place = f"s3://{CONTENT}/a"
    if kept_versions_once:
        cloud.destination.store(place, b"from before")
    cloud.destination.unversioned.add(CONTENT)
    for number, key in enumerate(("one", "two"), start=1):
        cloud.now += HOUR
        cloud.job([wanted(key, place)], job=f"job-{number}", overwrite=True)
        cloud.settle()
        row = cloud.files.rows[key, "v1"]
        event = ObjectVersion(
            key="a", version_id="null", size_bytes=row.size_bytes, etag=row.md5, sequencer="", event_at=cloud.now
        )
        assert cloud.files.holders([event]) == {event.identity: 1}, "WriteArchive drops what it knows"
        assert cloud.place(place) == cloud.body_of("a", event.pin)
    assert {each.number for each in cloud.files.versions("a")} == {0, 1}
    assert len(cloud.destination.objects[place]) == 1 + kept_versions_once


def test_a_drills_files_get_no_row(cloud: RestoreCloud) -> None:
    before = len(cloud.files.rows)
    cloud.job([wanted("a1", f"s3://{CONTENT}/.neve/drill/1/a1")])
    cloud.settle()
    cloud.verify()
    assert len(cloud.files.rows) == before


def test_instant_retrieval_needs_no_thaw(cloud: RestoreCloud) -> None:
    cloud.job([wanted("i1"), wanted("i2")], EXPEDITED)
    cloud.deliver()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert not cloud.ice.asked
    assert not cloud.thaws.rows


def test_every_bad_key_comes_home() -> None:
    cloud = RestoreCloud([tar_with(1, BAD_KEYS)])
    cloud.job([wanted(key) for key in BAD_KEYS])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: len(BAD_KEYS)}


def test_files_of_no_bytes_come_home_without_a_read() -> None:
    cloud = RestoreCloud([tar_of(1, [(source_of("empty", b""), b""), (source_of("full", b"x"), b"x")])])
    cloud.job([wanted("empty")])
    cloud.settle()
    cloud.verify()
    assert cloud.place(f"s3://{CONTENT}/empty") == b""
    assert cloud.reader.reads == []


def test_a_large_object_is_copied_and_goes_on_in_the_next_message_if_the_time_does_not_suffice(
    cloud: RestoreCloud,
) -> None:
    cloud.destination.single_copy_bytes = 1_000
    cloud.destination.calls = 3
    cloud.job([wanted("film"), wanted("film", f"s3://{OTHER}/film")], STANDARD)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert cloud.place(f"s3://{OTHER}/film") == FILM.body


def test_neighbours_are_read_in_one_request_and_little_more_than_was_asked_for(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("a2"), wanted("a4")])
    cloud.settle()
    members = A.manifest.members
    assert cloud.reader.reads == [
        (1, members[0].offset_bytes, members[1].offset_bytes + 39),
        (1, members[3].offset_bytes, members[3].offset_bytes + 39),
    ]


# -- Which versions ---------------------------------------------------------------------------------------------------


def versions_of_one_key() -> tuple[Stored, Stored]:
    """Three versions of a key over two archives; the newest is neither the last written nor the last by its id."""

    def version(version_id: str, hour: int) -> tuple[Source, bytes]:
        body = f"version {version_id}".encode()
        return source_of("k", body, version_id, START + timedelta(hours=hour)), body

    return tar_of(1, [version("m", 1), version("a", 3)]), tar_of(2, [version("z", 2)])


def test_without_a_version_the_newest_is_restored_and_with_one_just_that() -> None:
    cloud = RestoreCloud(versions_of_one_key())
    cloud.job(
        [
            wanted("k", f"s3://{OTHER}/newest", pin=""),
            wanted("k", f"s3://{OTHER}/m", pin="m"),
            wanted("k", f"s3://{OTHER}/z", pin="z"),
            wanted("k", f"s3://{OTHER}/none", pin="y"),
        ]
    )
    cloud.settle()
    cloud.verify()
    assert cloud.place(f"s3://{OTHER}/newest") == b"version a"
    assert cloud.place(f"s3://{OTHER}/m") == b"version m"
    assert cloud.place(f"s3://{OTHER}/z") == b"version z"
    assert cloud.endings() == {Ending.RESTORED: 3, Ending.NOT_FOUND: 1}


def test_a_line_that_stands_twice_counts_once_and_a_version_goes_to_two_places(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("a1"), wanted("a1", f"s3://{OTHER}/a1"), wanted("a1", pin="")])
    cloud.settle()
    cloud.verify()
    assert sum(cloud.endings().values()) == 3, "the last names the same file by another name"
    assert len(cloud.destination.objects[f"s3://{CONTENT}/a1"]) == 1


def test_a_row_that_names_an_archive_which_does_not_exist_is_said_to(cloud: RestoreCloud) -> None:
    del cloud.archives.rows[2]
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.settle()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.NOT_FOUND: 1}
    assert "archive 2" in details(cloud)["b1"]


# -- Several chunks, any order ----------------------------------------------------------------------------------------

LINES = [wanted(key) for key in ("a1", "b1", "a2", "c1", "b2", "a3", "a4", "i1")]


@given(
    order=st.permutations([0, 1, 2, 3]),
    again=st.lists(st.integers(0, 3), max_size=4),
    events_at=st.integers(0, 8),
    items=st.permutations(LINES),
)
@settings(max_examples=40, deadline=None)
def test_chunks_in_any_order_and_twice_make_one_thaw_for_each_archive_and_one_end(
    order: list[int], again: list[int], events_at: int, items: list[object]
) -> None:
    cloud = RestoreCloud(ALL, chunk_items=2)
    messages = cloud.job(items)  # type: ignore[arg-type]  # hypothesis' permutations lose what they permute
    cloud.requests_queue.take()
    for number, chunk in enumerate([*order, *again]):
        if number == events_at:
            cloud.wait(5 * HOUR, sweep=False)
        cloud.plan(messages[chunk])
        if number % 3 == 2:
            cloud.deliver()
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: len(LINES)}
    assert cloud.thawed == {1: 1, 2: 1, 3: 1}
    assert cloud.jobs[0].files == len(LINES)


def test_two_jobs_for_the_same_files_share_their_thaws_and_neither_overwrites_the_others_account(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.job([wanted("a1"), wanted("a2"), wanted("c1")], job="job-2")
    cloud.settle()
    cloud.verify()
    assert sum(cloud.endings("job-1").values()) == 2
    assert sum(cloud.endings("job-2").values()) == 3
    assert cloud.thawed == {1: 1, 2: 1, 3: 1}
    assert all(len(versions) == 1 for versions in cloud.destination.objects.values()), "each file is written once"


def test_a_job_for_an_archive_that_thaws_for_another_job_joins_it(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.wait(HOUR)
    cloud.job([wanted("a2")], job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.ice.asked == [(1, Tier.BULK, 1, Answer.ACCEPTED)]


def test_a_job_for_an_archive_whose_copy_is_warm_asks_for_nothing(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.job([wanted("a2")], job="job-2")
    cloud.deliver()
    cloud.verify()
    assert len(cloud.ice.asked) == 1


def test_a_job_finds_skipped_what_was_there_and_in_conflict_what_differs(cloud: RestoreCloud) -> None:
    cloud.destination.store(f"s3://{CONTENT}/a1", cloud.body_of("a1", "v1"))
    cloud.destination.store(f"s3://{CONTENT}/a2", b"something newer")
    cloud.wait(DAY)
    cloud.job([wanted("a1"), wanted("a2"), wanted("a3")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.SKIPPED: 1, Ending.CONFLICT: 1, Ending.RESTORED: 1}
    assert cloud.place(f"s3://{CONTENT}/a2") == b"something newer"
    assert not cloud.jobs[0].good
    cloud.job([wanted("a2")], job="job-2", overwrite=True)
    cloud.settle()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}
    assert cloud.place(f"s3://{CONTENT}/a2") == cloud.body_of("a2", "v1")


# -- Tiers, days, money -----------------------------------------------------------------------------------------------


def test_a_faster_tier_is_the_one_second_request_and_repeats_the_days_of_the_first(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")], Need(tier=Tier.BULK, days=2))
    cloud.deliver()
    cloud.job([wanted("a2")], Need(tier=Tier.EXPEDITED, days=5), job="job-2")
    cloud.thaw_takes = 5 * MINUTE
    cloud.settle()
    cloud.verify()
    assert cloud.ice.asked[:2] == [(1, Tier.BULK, 2, Answer.ACCEPTED), (1, Tier.EXPEDITED, 2, Answer.ACCEPTED)]
    assert cloud.ice.asked[2:] == [(1, Tier.EXPEDITED, 5, Answer.WARM)], "then it is extended for who needs it longer"


def test_who_joins_and_needs_the_copy_for_longer_gets_it_extended_once_it_is_there(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")], Need(tier=Tier.BULK, days=1))
    cloud.job([wanted("a2", "file:/home/a2")], Need(tier=Tier.BULK, days=30), job="job-2")
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.deliver()
    assert [(days, answer) for _, _, days, answer in cloud.ice.asked] == [(1, Answer.ACCEPTED), (30, Answer.WARM)]
    assert cloud.ice.warm_until[1] == copy_until(cloud.now, 30) == cloud.thaws.rows[1].warm_until


def test_a_copy_that_is_warm_and_not_for_long_enough_is_extended_and_read_at_once(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.job([wanted("a2")], Need(tier=Tier.BULK, days=7), job="job-2")
    cloud.deliver()
    cloud.verify()
    assert cloud.thaws.rows[1].warm_until == copy_until(cloud.now, 7)


def test_expedited_that_is_not_to_be_had_falls_back_to_standard_and_says_so(cloud: RestoreCloud) -> None:
    cloud.ice.expedited = False
    cloud.job([wanted("a1")], EXPEDITED)
    cloud.deliver()
    assert [(tier, answer) for _, tier, _, answer in cloud.ice.asked] == [
        (Tier.EXPEDITED, Answer.UNAVAILABLE),
        (Tier.STANDARD, Answer.ACCEPTED),
    ]
    thaw = cloud.thaws.rows[1]
    assert (thaw.fell_back, thaw.tier, thaw.ready_at) == (True, Tier.STANDARD, START + 5 * HOUR)
    cloud.settle()
    cloud.verify()


def test_a_tier_that_a_class_does_not_offer_is_refused_before_anything_is_asked(cloud: RestoreCloud) -> None:
    cloud.job([wanted("deep"), wanted("a1")], EXPEDITED)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.TIER_REFUSED: 1, Ending.RESTORED: 1}
    assert 4 not in {serial for serial, *_ in cloud.ice.asked}
    assert "DEEP_ARCHIVE" in details(cloud)["deep"]


def price(stored: Stored, tier: Tier = Tier.STANDARD) -> int:
    return thaw_micro_usd(stored.row.storage_class, tier, days=1, size_bytes=stored.row.size_bytes)


def test_over_the_cap_files_end_with_the_figures_and_nothing_is_asked_of_s3(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A) + price(B) - 1
    cloud.job([wanted("a1"), wanted("b1"), wanted("b2"), wanted("i1")], STANDARD)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2, Ending.OVER_CAP: 2}
    assert cloud.thawed == {1: 1}
    assert cloud.thaws.spent_micro_usd(START) == price(A)
    cloud.now = START + DAY
    cloud.job([wanted("b1")], STANDARD, job="job-2")
    cloud.settle()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}, "a new day has a new cap"


def test_a_dead_claim_that_is_taken_over_for_a_dearer_tier_is_paid_up_to_the_difference(cloud: RestoreCloud) -> None:
    orphan(cloud, BULK)
    cloud.now += 17 * MINUTE
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.deliver()
    assert cloud.thaws.spent_micro_usd(START) == price(A, Tier.EXPEDITED)


def test_without_capacity_for_expedited_a_thaw_that_is_due_before_standard_would_be_is_joined(
    cloud: RestoreCloud,
) -> None:
    cloud.ice.expedited = False
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.now += 11 * HOUR
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.deliver()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.ACCEPTED, Answer.UNAVAILABLE]
    assert cloud.thaws.rows[1].state is ThawState.THAWING


def test_an_upgrade_over_the_cap_waits_for_the_thaw_that_is_paid_for(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A, Tier.EXPEDITED)
    cloud.job([wanted("a1")], BULK)
    cloud.deliver()
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}
    assert cloud.thawed == {1: 1}
    assert cloud.thaws.spent_micro_usd(START) == price(A, Tier.BULK)


def test_files_over_the_cap_end_also_if_the_first_try_to_end_them_fails(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A) - 1
    finish = cloud.restores.finish

    def fails(*args: object, **kwargs: object) -> bool:
        cloud.restores.finish = finish
        raise Transient("503")

    cloud.restores.finish = fails
    [message] = cloud.job([wanted("a1")], STANDARD)
    cloud.requests_queue.take()
    with pytest.raises(Transient):
        cloud.plan(message)
    cloud.now += timedelta(seconds=10)
    cloud.requests_queue.send(message)
    cloud.settle(within=DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.OVER_CAP: 1}


def test_throttled_requests_come_again_and_are_counted_once(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A)
    cloud.ice.failures = [Transient("503 SlowDown") for _ in range(3)]
    cloud.job([wanted("a1")], STANDARD)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}
    assert cloud.thaws.spent_micro_usd(START) == price(A)
    assert cloud.thawed == {1: 1}


def test_one_archive_that_is_throttled_holds_back_none_that_was_asked_for_before(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("b1")], STANDARD)
    [message] = cloud.requests_queue.take()
    calls = itertools.count()
    request = cloud.ice.request

    def throttled(*args: object, **kwargs: object) -> Answer:
        if next(calls) == 1:
            raise Transient("503")
        return request(*args, **kwargs)  # type: ignore[arg-type]

    cloud.ice.request = throttled  # type: ignore[method-assign]
    with pytest.raises(Transient):
        cloud.plan(message)
    assert cloud.thawed == {1: 1}
    cloud.now += MINUTE
    cloud.plan(message)
    assert cloud.thawed == {1: 1, 2: 1}
    cloud.settle()
    cloud.verify()


# -- Lost, late and duplicate words -----------------------------------------------------------------------------------


def test_a_lost_event_is_found_by_the_sweep_which_asks_s3(cloud: RestoreCloud) -> None:
    cloud.events_lost = True
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.settle(within=2 * DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert cloud.thawed == {1: 1, 2: 1}


def test_a_thaw_that_is_later_than_promised_is_asked_about_and_not_asked_for_again(cloud: RestoreCloud) -> None:
    cloud.thaw_takes = 30 * HOUR
    cloud.job([wanted("a1")])
    cloud.settle(within=3 * DAY)
    cloud.verify()
    assert len(cloud.ice.asked) == 1


def test_a_thaw_that_s3_knows_nothing_of_is_asked_for_again(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.ice.forget()
    cloud.settle(within=2 * DAY)
    cloud.verify()
    assert cloud.thawed == {1: 2}


class Killed(BaseException):
    """The function ends where it is."""


def orphan(cloud: RestoreCloud, need: Need) -> None:
    """A planner dies between its claim for archive 1 and its request, and its message never comes again."""
    request = cloud.ice.request

    def dies(*args: object, **kwargs: object) -> Answer:
        cloud.ice.request = request  # type: ignore[method-assign]
        raise Killed

    cloud.ice.request = dies  # type: ignore[method-assign]
    [message] = cloud.job([wanted("a1")], need)
    cloud.requests_queue.take()
    with pytest.raises(Killed):
        cloud.plan(message)
    assert cloud.thaws.rows[1].state is ThawState.CLAIMED
    assert not cloud.ice.asked


def test_a_planner_that_dies_between_its_claim_and_its_request_costs_nothing_but_time(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A)
    orphan(cloud, STANDARD)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}
    assert (cloud.thawed, cloud.thaws.spent_micro_usd(START)) == ({1: 1}, price(A))


def test_a_chunk_that_is_planned_again_after_a_newer_version_was_archived_has_one_result_for_each_line() -> None:
    cloud = RestoreCloud([C])
    planned = cloud.restores.planned

    def dies(*args: object, **kwargs: object) -> bool:
        cloud.restores.planned = planned
        raise Killed

    cloud.restores.planned = dies
    [message] = cloud.job([wanted("c1", pin="")])
    with pytest.raises(Killed):
        cloud.plan(message)
    newer = tar_of(9, [(source_of("c1", b"newer", "v2", START + HOUR), b"newer")])
    cloud.stored = (C, newer)
    cloud.archive(newer)
    cloud.settle()
    assert sum(cloud.endings().values()) == 1


def test_a_copy_that_expires_unseen_and_cannot_be_had_in_haste_is_thawed_at_the_tier_that_is_needed(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a1")], EXPEDITED)
    cloud.thaw_takes = 5 * MINUTE
    cloud.settle()
    cloud.ice.forget()
    cloud.ice.expedited = False
    cloud.job([wanted("a2")], Need(tier=Tier.BULK, days=9), job="job-2")
    cloud.settle()
    cloud.verify()
    assert {tier for _, tier, _, _ in cloud.ice.asked[1:]} == {Tier.BULK}


def test_duplicate_and_late_events_change_nothing(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    [event] = cloud.extract_queue.take()
    for _ in range(3):
        cloud.extract(event)
    cloud.settle()
    cloud.verify()
    until = cloud.thaws.rows[1].warm_until
    assert until is not None
    cloud.now = until + HOUR
    cloud.ice.expire()
    cloud.job([wanted("a2")], job="job-2")
    cloud.deliver()
    running = cloud.thaws.rows[1]
    assert running.state is ThawState.THAWING
    cloud.extract(event)
    assert cloud.thaws.rows[1] == running, "an event of the copy before does not make this one warm"
    cloud.settle()
    cloud.verify()
    assert cloud.thawed == {1: 2}


def test_one_thaw_that_the_sweep_fails_to_look_at_holds_back_none_of_the_others(cloud: RestoreCloud) -> None:
    cloud.events_lost = True
    cloud.job([wanted("a1"), wanted("b1"), wanted("c1")])
    cloud.deliver()
    status = cloud.ice.status

    def fails_for_b(archive: ArchiveRow) -> CopyStatus:
        if archive.serial == 2:
            raise Transient("503")
        return status(archive)

    cloud.ice.status = fails_for_b  # type: ignore[method-assign]
    cloud.wait(13 * HOUR, sweep=False)
    with pytest.raises(Transient):
        cloud.sweep()
    cloud.deliver()
    assert cloud.endings() == {Ending.RESTORED: 2}
    cloud.ice.status = status  # type: ignore[method-assign]
    cloud.settle()
    cloud.verify()


def test_a_claim_whose_request_s3_has_heard_is_found_thawing_or_thawed_by_the_sweep(cloud: RestoreCloud) -> None:
    request = cloud.ice.request

    def heard(*args: object, **kwargs: object) -> Answer:
        cloud.ice.request = request  # type: ignore[method-assign]
        request(*args, **kwargs)  # type: ignore[arg-type]
        raise Killed

    cloud.ice.request = heard  # type: ignore[method-assign]
    [message] = cloud.job([wanted("a1")])
    cloud.requests_queue.take()
    with pytest.raises(Killed):
        cloud.plan(message)
    cloud.settle()
    cloud.verify()
    assert cloud.thawed == {1: 1}


def test_a_thaw_that_nothing_waits_for_any_more_is_forgotten(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cancel(cloud)
    cloud.ice.forget()
    cloud.wait(13 * HOUR)
    assert not cloud.thaws.rows
    assert len(cloud.ice.asked) == 1


def test_an_event_for_an_archive_that_nothing_waits_for_leaves_the_thaw_warm_for_who_comes_next(
    cloud: RestoreCloud,
) -> None:
    cloud.ice.running[1] = (Tier.BULK, 1)  # asked for by somebody else
    for event in cloud.ice.complete():
        assert cloud.extract(event) == Extracted()
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.verify()
    assert not cloud.ice.asked


def test_an_event_that_arrives_before_the_planner_has_its_answer_is_not_lost(cloud: RestoreCloud) -> None:
    request = cloud.ice.request

    def at_once(*args: object, **kwargs: object) -> Answer:
        answer = request(*args, **kwargs)  # type: ignore[arg-type]
        for event in cloud.ice.complete():
            cloud.extract(event)
        return answer

    cloud.ice.request = at_once  # type: ignore[method-assign]
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}
    assert cloud.thaws.rows[1].state is ThawState.WARM


def test_a_thaw_that_runs_for_somebody_else_is_joined(cloud: RestoreCloud) -> None:
    cloud.ice.running[1] = (Tier.BULK, 1)
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.verify()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.RUNNING]


def test_a_copy_that_somebody_else_had_thawed_is_read_though_no_event_follows(cloud: RestoreCloud) -> None:
    cloud.ice.warm_until[1] = START + 3 * HOUR
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.verify()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.WARM]


# -- Copies that expire -----------------------------------------------------------------------------------------------


def test_a_copy_that_expires_while_files_wait_is_thawed_again_and_nothing_is_lost(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("a2")])
    cloud.deliver()
    place = f"s3://{CONTENT}/a2"
    cloud.destination.failures[place] = [Transient("503") for _ in range(50)]
    cloud.wait(5 * HOUR, sweep=False)
    cloud.deliver()
    until = cloud.thaws.rows[1].warm_until
    assert until is not None
    cloud.now = until + HOUR
    cloud.destination.failures.clear()
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert len(cloud.destination.objects[place]) == 1
    assert cloud.thawed == {1: 2}


def test_a_copy_that_is_about_to_expire_is_extended_while_files_wait_for_it(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.destination.failures[f"s3://{CONTENT}/a1"] = [Transient("503") for _ in range(10_000)]
    cloud.wait(5 * HOUR)
    first = cloud.ice.warm_until[1]
    while cloud.now < first + DAY:
        cloud.deliver()
        cloud.wait()
    cloud.destination.failures.clear()
    cloud.settle()
    cloud.verify()
    assert cloud.thawed == {1: 1}, "it was extended in time, so nothing had to be thawed again"


def test_a_copy_that_s3_let_go_before_its_time_is_asked_for_anew_by_who_wants_it_longer(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.ice.forget()
    cloud.job([wanted("a2")], Need(tier=Tier.BULK, days=9), job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.ice.asked[1:] == [(1, Tier.BULK, 9, Answer.ACCEPTED)]


def test_a_copy_that_is_thawing_again_for_somebody_else_is_joined_by_who_wants_it_longer(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.ice.forget()
    cloud.ice.running[1] = (Tier.BULK, 1)
    cloud.job([wanted("a2")], Need(tier=Tier.BULK, days=9), job="job-2")
    cloud.deliver()
    assert cloud.thaws.rows[1].state is ThawState.THAWING
    cloud.settle()
    cloud.verify()


def test_after_an_expired_copy_the_tier_is_what_those_who_wait_now_have_asked_for(cloud: RestoreCloud) -> None:
    cloud.thaw_takes = 5 * MINUTE
    cloud.job([wanted("a1")], EXPEDITED)
    cloud.settle()
    cloud.destination.failures[f"s3://{CONTENT}/a2"] = [Transient("503") for _ in range(5)]
    cloud.job([wanted("a2")], BULK, job="job-2")
    cloud.deliver()
    cloud.extract_queue.take()
    cloud.destination.failures.clear()
    cloud.now += 5 * DAY
    cloud.settle()
    cloud.verify()
    assert cloud.ice.asked[1:] == [(1, Tier.BULK, 1, Answer.ACCEPTED)]


def test_an_archive_that_falls_asleep_in_the_middle_is_thawed_again_and_each_file_is_written_once() -> None:
    class Drowsy(MemoryReader):
        def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
            if len(self.reads) == 1 and len(self.glacier.asked) == 1:
                self.glacier.expire()
            return super().read(archive, first, last)

    cloud = RestoreCloud(ALL)
    cloud.reader = Drowsy(store=cloud.store, glacier=cloud.ice)
    cloud.job([wanted("a1"), wanted("a3")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert all(len(versions) == 1 for versions in cloud.destination.objects.values())
    assert cloud.thawed == {1: 2}


# -- Damage -----------------------------------------------------------------------------------------------------------


def damaged(stored: Stored, number: int) -> Stored:
    """The archive with a bit of one member turned over."""
    body = bytearray(stored.body)
    body[stored.manifest.members[number].offset_bytes] ^= 1
    return replace(stored, body=bytes(body))


def test_a_damaged_member_is_parked_and_its_neighbours_come_home() -> None:
    cloud = RestoreCloud(ALL)
    cloud.store.objects[A.row.object_key] = damaged(A, 1).body
    cloud.job([wanted(key) for key in ("a1", "a2", "a3", "b1")])
    cloud.job([wanted("a2", f"s3://{OTHER}/a2")], job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 3, Ending.DAMAGED: 1}
    assert cloud.endings("job-2") == {Ending.DAMAGED: 1}
    assert cloud.place(f"s3://{CONTENT}/a2") is None, "bytes that are not proved are handed to nobody"
    [parked] = cloud.parking_lot.items.values()
    assert (parked.reason, parked.evidence) == (Reason.ARCHIVE_DAMAGED, "archive 1, member 1")
    assert not cloud.jobs[0].good


def test_bytes_that_were_damaged_on_their_way_are_read_again() -> None:
    class Noisy(MemoryReader):
        def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
            body = super().read(archive, first, last)
            return body if len(self.reads) % 2 == 0 else b"\0" + body[1:]

    cloud = RestoreCloud(ALL)
    cloud.reader = Noisy(store=cloud.store, glacier=cloud.ice)
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}
    assert not cloud.parking_lot.items


@pytest.mark.parametrize("fault", ["cut short", "manifest gone", "no such member"])
def test_an_archive_that_is_not_what_its_manifest_says_is_parked_member_by_member(
    cloud: RestoreCloud, fault: str
) -> None:
    if fault == "cut short":
        cloud.store.objects[A.row.object_key] = A.body[: A.manifest.members[1].offset_bytes]
    elif fault == "manifest gone":
        del cloud.store.manifests[1]
    else:
        row = cloud.files.rows["a3", "v1"]
        cloud.files.rows["a3", "v1"] = replace(row, number=99)
    cloud.job([wanted("a1"), wanted("a3"), wanted("b1")])
    cloud.settle()
    cloud.verify()
    expected = 2 if fault == "manifest gone" else 1
    assert cloud.endings() == {Ending.RESTORED: 3 - expected, Ending.DAMAGED: expected}
    assert {parked.reason for parked in cloud.parking_lot.items.values()} == {Reason.ARCHIVE_DAMAGED}
    assert len(cloud.parking_lot.items) == expected


@pytest.mark.parametrize(
    "when",
    [
        "before it is thawed",
        "once it is thawed",
    ],
)
def test_an_archive_whose_object_is_gone_is_damaged_and_the_other_archives_go_on(
    cloud: RestoreCloud, when: str
) -> None:
    cloud.job([wanted("a1"), wanted("b1"), wanted("c1")])
    if when == "before it is thawed":
        cloud.ice.gone.add(1)
    cloud.deliver()
    cloud.ice.gone.add(1)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2, Ending.DAMAGED: 1}
    assert [parked.reason for parked in cloud.parking_lot.items.values()] == [Reason.ARCHIVE_DAMAGED]


def test_a_row_that_names_other_bytes_than_the_manifest_restores_nothing(cloud: RestoreCloud) -> None:
    cloud.files.rows["a2", "v1"] = replace(cloud.files.rows["a2", "v1"], number=2)
    cloud.job([wanted("a1"), wanted("a2")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.DAMAGED: 1}
    assert "index" in details(cloud)["a2"]
    assert cloud.place(f"s3://{CONTENT}/a2") is None


def test_a_large_object_whose_copy_differs_is_damaged(cloud: RestoreCloud) -> None:
    cloud.store.objects[FILM.row.object_key] = b"x" + FILM.body[1:]
    cloud.job([wanted("film"), wanted("a1")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.DAMAGED: 1}
    [parked] = cloud.parking_lot.items.values()
    assert parked.reason is Reason.ARCHIVE_DAMAGED


# -- Destinations -----------------------------------------------------------------------------------------------------


def test_a_bucket_that_the_stack_may_not_write_to_is_refused_before_anything_is_thawed(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1", "s3://foreign/a1"), wanted("b1", "s3:///b1")])
    cloud.deliver()
    cloud.verify()
    assert cloud.endings() == {Ending.REFUSED: 2}
    assert "restore_buckets" in details(cloud)["a1"]
    assert not cloud.ice.asked


def test_a_bucket_that_denies_writing_refuses_its_files_and_the_others_go_on(cloud: RestoreCloud) -> None:
    cloud.destination.denied[OTHER] = "403 AccessDenied"
    cloud.job([wanted("a1", f"s3://{OTHER}/a1"), wanted("a2")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.REFUSED: 1, Ending.RESTORED: 1}
    assert details(cloud)["a1"] == "403 AccessDenied"


def test_with_overwrite_what_was_put_there_after_the_job_was_asked_for_stays(cloud: RestoreCloud) -> None:
    cloud.destination.store(f"s3://{CONTENT}/a1", b"older than the job")
    cloud.now += HOUR
    cloud.job([wanted("a1"), wanted("a2")], overwrite=True)
    cloud.deliver()
    cloud.now += HOUR
    cloud.destination.store(f"s3://{CONTENT}/a2", b"younger than the job")
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.CONFLICT: 1}
    assert cloud.place(f"s3://{CONTENT}/a1") == cloud.body_of("a1", "v1")
    assert cloud.place(f"s3://{CONTENT}/a2") == b"younger than the job"


def test_a_share_that_fails_half_way_is_done_again_and_what_is_in_place_counts_as_restored(
    cloud: RestoreCloud,
) -> None:
    cloud.destination.failures[f"s3://{CONTENT}/a4"] = [Transient("503")]
    cloud.job([wanted("a1"), wanted("a4")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert all(len(versions) == 1 for versions in cloud.destination.objects.values())


def test_a_share_that_keeps_failing_holds_back_none_of_the_others(cloud: RestoreCloud) -> None:
    cloud.destination.failures[f"s3://{CONTENT}/a1"] = [Transient("503") for _ in range(100)]
    cloud.job([wanted("a1")], job="job-1")
    cloud.job([wanted("a2")], job="job-2")
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.deliver()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}


def test_time_that_runs_out_leaves_the_other_shares_to_the_next_message(cloud: RestoreCloud) -> None:
    for number in range(3):
        cloud.job([wanted("a1", f"s3://{OTHER}/{number}")], job=f"job-{number}")
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    [event] = cloud.extract_queue.take()
    done = cloud.extract(event, until=cloud.now + timedelta(seconds=20))
    assert (done.shares, done.left) == (1, 2), "the first is always begun"
    assert [body for body, _ in cloud.extract_queue.sent] == [render_thawed(1)]
    cloud.settle()
    cloud.verify()


# -- Local folders ----------------------------------------------------------------------------------------------------


class Folder(MemoryDestination):
    """A local folder."""


def local(cloud: RestoreCloud, serial: int = 1) -> Extracted:
    """What the command does for its own shares once an archive is thawed."""
    extractor = cloud.extractor(Kind.LOCAL, destination=Folder(reader=cloud.reader, clock=lambda: cloud.now))
    return extractor.extract(serial, owner="the command", until=cloud.now + HOUR)


def test_files_for_a_local_folder_are_left_to_the_command_which_ends_the_job(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1", "file:/home/a1"), wanted("a2")])
    cloud.deliver()
    with pytest.raises(Asleep):
        raise_if_left(local(cloud))
    cloud.wait(5 * HOUR)
    cloud.deliver()
    assert cloud.endings() == {Ending.RESTORED: 1}
    assert cloud.jobs[0].state is JobState.RUNNING
    done = local(cloud)
    assert done.endings == {Ending.RESTORED: 1}
    assert done.read_bytes == done.wanted_bytes == 40
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert cloud.jobs[0].finished_at == cloud.now
    assert len(cloud.topic.published) == 1


def raise_if_left(done: Extracted) -> None:
    if done.left:
        raise Asleep


def test_files_for_a_local_folder_expire_with_the_copy_if_nobody_fetches_them(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1", "file:/home/a1"), wanted("b1")])
    cloud.settle()
    assert cloud.endings() == {Ending.EXPIRED: 1, Ending.RESTORED: 1}
    assert "--resume" in details(cloud)["a1"]
    assert cloud.now < START + 3 * DAY
    assert cloud.thawed == {1: 1, 2: 1}, "nobody pays for a second thaw that nobody asked for"


def test_files_for_a_local_folder_that_need_no_thaw_expire_after_their_days(cloud: RestoreCloud) -> None:
    cloud.job([wanted("i1", "file:/home/i1")], Need(tier=Tier.BULK, days=2))
    cloud.deliver()
    assert cloud.jobs[0].finished_at is None
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.EXPIRED: 1}
    finished_at = cloud.jobs[0].finished_at
    assert finished_at is not None
    assert START + 2 * DAY < finished_at < START + 2 * DAY + 2 * HOUR


def test_files_for_a_local_folder_whose_archive_is_gone_end_as_damaged(cloud: RestoreCloud) -> None:
    cloud.ice.gone.add(1)
    cloud.job([wanted("a1", "file:/home/a1"), wanted("b1", "file:/home/b1")])
    cloud.deliver()
    assert cloud.endings() == {Ending.DAMAGED: 1}
    assert cloud.thawed == {2: 1}


# -- Cancelled, given up, ended ---------------------------------------------------------------------------------------


def cancel(cloud: RestoreCloud, job: str = "job-1") -> None:
    """As the command does: first the note, then what waits."""
    assert cloud.restores.cancel(job, cloud.now)
    end_unfetched(
        cloud.restores,
        cloud.restores.waiting_of(job),
        Ending.CANCELLED,
        "cancelled",
        owner="the command",
        clock=lambda: cloud.now,
    )
    cloud.ender.end(job)


def test_a_cancelled_job_ends_and_others_that_wait_for_its_thaws_go_on(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.job([wanted("a2")], job="job-2")
    cloud.deliver()
    cancel(cloud)
    assert cloud.jobs[1].finished_at == START
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.CANCELLED: 2}
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}


def test_what_is_being_extracted_when_its_job_is_cancelled_is_brought_to_its_end(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.deliver()
    put = cloud.destination.put

    def cancelled_meanwhile(item: Item, source: Source, body: bytes, *, overwrite: datetime | None) -> Placed:
        if not cloud.jobs[0].cancelled_at:
            cancel(cloud)
        return put(item, source, body, overwrite=overwrite)

    cloud.destination.put = cancelled_meanwhile  # type: ignore[method-assign]
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.CANCELLED: 1}


def test_a_share_whose_job_was_cancelled_before_it_was_begun_fetches_nothing(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    assert cloud.restores.cancel("job-1", cloud.now)
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.CANCELLED: 1}
    assert not cloud.destination.objects


def test_chunks_that_are_planned_after_their_job_was_cancelled_end_at_once(cloud: RestoreCloud) -> None:
    cloud.chunk_items = 1
    first, second = cloud.job([wanted("a1"), wanted("b1")])
    cloud.requests_queue.take()
    cloud.plan(first)
    cancel(cloud)
    cloud.plan(second)
    cloud.verify()
    assert cloud.endings() == {Ending.CANCELLED: 2}
    assert cloud.thawed == {1: 1}


def test_a_job_whose_chunks_do_not_all_come_is_ended_after_a_week_and_says_so(cloud: RestoreCloud) -> None:
    cloud.chunk_items = 1
    first, second = cloud.job([wanted("a1"), wanted("b1")])
    cloud.requests_queue.take()
    cloud.plan(first)
    cloud.settle(within=9 * DAY)
    assert cloud.jobs[0].missing_chunks == 1
    assert cloud.jobs[0].finished_at is not None
    assert START + 7 * DAY < cloud.jobs[0].finished_at < START + 7 * DAY + 2 * HOUR
    assert not cloud.jobs[0].good
    assert cloud.endings() == {Ending.RESTORED: 1}
    with pytest.raises(EventInvalid, match="restore its files again"):
        cloud.plan(second)
    cloud.verify()


def test_a_chunk_that_comes_again_after_its_job_has_ended_is_no_news(cloud: RestoreCloud) -> None:
    [message] = cloud.job([wanted("a1")])
    cloud.settle()
    before = cloud.jobs
    cloud.plan(message)
    assert cloud.jobs == before
    cloud.verify()


def test_an_end_that_could_not_be_told_is_told_by_the_sweep(cloud: RestoreCloud) -> None:
    publish = cloud.topic.publish

    def fails(message: str) -> None:
        cloud.topic.publish = publish
        raise Transient("503")

    cloud.topic.publish = fails
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.verify()


# -- Side by side -----------------------------------------------------------------------------------------------------


def watched(steps: Steps, *stored: Stored) -> RestoreCloud:
    """A cloud whose ports hand the turn on before each call."""
    return RestoreCloud(stored, watch=steps.watch)


def trying(cloud: RestoreCloud, handle: Callable[[str], object], body: str) -> Task:
    """Handle a message, or leave it to be handled again, as the queue does."""

    def work() -> None:
        try:
            handle(body)
        except Transient:
            queue = cloud.requests_queue if handle == cloud.plan else cloud.extract_queue
            queue.send(body)

    return work


def settled(cloud: RestoreCloud) -> None:
    """What the queues hold is delivered, S3 thaws, and no sweep helps."""
    for _ in range(4):
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
    cloud.deliver()


@pytest.mark.parametrize(
    ("needs", "preemptions"),
    [
        ([BULK, BULK], 2),
        ([BULK, Need(tier=Tier.BULK, days=9)], 2),
        ([EXPEDITED, BULK], 2),
        ([BULK, BULK, BULK], 1),
    ],
    ids=["two alike", "one for longer", "one in haste", "three"],
)
def test_planners_of_one_archive_make_one_request_and_every_file_comes_home(
    needs: list[Need], preemptions: int
) -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        places = [f"s3://{OTHER}/{number}" for number in range(len(needs))]
        messages = [
            cloud.job([wanted("c1", place)], need, job=place[-1]) for place, need in zip(places, needs, strict=True)
        ]
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message) for [message] in messages])
        cloud.now += MINUTE
        settled(cloud)
        cloud.verify()
        assert all(cloud.place(place) == cloud.body_of("c1", "v1") for place in places)
        tiers = {tier for _, tier, _, answer in cloud.ice.asked if answer is Answer.ACCEPTED}
        assert cloud.thawed[3] == len(tiers), "a faster tier is the one second request"
        assert sum(cloud.thaws.spent.values()) == sum(
            price(C, tier) for _, tier, _, answer in cloud.ice.asked if answer is Answer.ACCEPTED
        ), "what is not asked for is not paid for"

    assert explored(live, preemptions=preemptions) > 50


@pytest.mark.parametrize("warm", [False, True])
def test_what_s3_has_answered_is_recorded_whoever_joins_meanwhile(warm: bool) -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        if warm:
            cloud.ice.warm_until[3] = START + 3 * HOUR
        messages = [
            cloud.job([wanted("c1", f"s3://{OTHER}/{days}")], Need(tier=Tier.BULK, days=days), job=f"job-{days}")[0]
            for days in (1, 9)
        ]
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message) for message in messages])
        cloud.deliver()
        assert cloud.thaws.rows[3].state is (ThawState.WARM if warm else ThawState.THAWING)

    assert explored(live, preemptions=2) > 100


def test_who_joins_a_claim_that_finds_the_copy_warm_has_it_for_the_days_that_were_asked() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        cloud.ice.warm_until[3] = START + 3 * HOUR
        messages = [
            cloud.job([wanted("c1", f"file:/home/{days}")], Need(tier=Tier.BULK, days=days), job=f"job-{days}")[0]
            for days in (1, 9)
        ]
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message) for message in messages])
        cloud.deliver()
        assert cloud.ice.warm_until[3] == copy_until(cloud.now, 9)

    assert explored(live, preemptions=2) > 100


def test_two_who_extend_a_copy_at_once_leave_it_for_the_longer_time() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        cloud.job([wanted("c1")])
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
        cloud.deliver()
        messages = [
            cloud.job([wanted("c1", f"file:/home/{days}")], Need(tier=Tier.BULK, days=days), job=f"job-{days}")[0]
            for days in (30, 9)
        ]
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message) for message in messages])
        cloud.deliver()
        assert cloud.ice.warm_until[3] == cloud.thaws.rows[3].warm_until == copy_until(cloud.now, 30)

    assert explored(live, preemptions=2) > 100


def test_a_planner_and_the_event_of_the_thaw_that_it_joins_leave_no_file_behind() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        cloud.job([wanted("c1", f"s3://{OTHER}/1")])
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
        [event] = cloud.extract_queue.take()
        [message] = cloud.job([wanted("c1", f"s3://{OTHER}/2")], job="job-2")
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message), trying(cloud, cloud.extract, event)])
        cloud.deliver()
        cloud.verify()
        assert len(cloud.ice.asked) == 1

    assert explored(live, preemptions=2) > 100


def test_a_planner_and_an_event_that_is_faster_than_its_answer_leave_no_file_behind() -> None:
    completed: list[str] = []

    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        [message] = cloud.job([wanted("c1")])
        cloud.requests_queue.take()

        def complete() -> None:
            for event in cloud.ice.complete():
                completed.append(event)
                trying(cloud, cloud.extract, event)()

        steps.run([trying(cloud, cloud.plan, message), complete])
        for body in cloud.ice.complete():
            cloud.extract_queue.send(body)
        cloud.deliver()
        cloud.verify()
        assert cloud.thawed == {3: 1}

    assert explored(live, preemptions=2) > 10
    assert len(completed) > 5


def test_two_extracts_of_one_archive_finish_each_share_once() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        for number in (1, 2):
            cloud.job([wanted("c1", f"s3://{OTHER}/{number}")], job=f"job-{number}")
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
        [event] = cloud.extract_queue.take()
        steps.run([trying(cloud, cloud.extract, event), trying(cloud, cloud.extract, event)])
        cloud.deliver()
        cloud.verify()
        assert [job.ended for job in cloud.jobs] == [{Ending.RESTORED: 1}] * 2

    assert explored(live, preemptions=2) > 100


def test_the_last_two_shares_of_a_job_that_end_at_once_end_it_once() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, B, C)
        cloud.job([wanted("b1"), wanted("c1")])
        cloud.deliver()
        cloud.wait(5 * HOUR, sweep=False)
        events = cloud.extract_queue.take()
        assert len(events) == 2
        steps.run([trying(cloud, cloud.extract, event) for event in events])
        cloud.verify()

    assert explored(live, preemptions=2) > 100


def test_a_share_that_ends_while_its_chunk_is_being_counted_ends_its_job_once() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, INSTANT)
        [message] = cloud.job([wanted("i1")])
        cloud.requests_queue.take()
        word = render_thawed(5)
        steps.run([trying(cloud, cloud.plan, message), trying(cloud, cloud.extract, word)])
        cloud.deliver()
        cloud.verify()

    assert explored(live, preemptions=3) > 50


def test_one_message_that_two_planners_are_handed_is_counted_once() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        [message] = cloud.job([wanted("c1"), wanted("nothing")])
        cloud.requests_queue.take()
        steps.run([trying(cloud, cloud.plan, message)] * 2)
        cloud.now += MINUTE
        settled(cloud)
        cloud.verify()
        assert cloud.thawed == {3: 1}
        assert cloud.endings() == {Ending.RESTORED: 1, Ending.NOT_FOUND: 1}

    assert explored(live, preemptions=2) > 100


def test_a_job_that_is_cancelled_while_it_is_planned_leaves_nothing_that_waits() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        cloud.chunk_items = 1
        first, second = cloud.job([wanted("c1"), wanted("c1", f"s3://{OTHER}/c1")])
        cloud.requests_queue.take()
        cloud.plan(first)
        steps.run([trying(cloud, cloud.plan, second), lambda: cancel(cloud)])
        settled(cloud)
        cloud.verify()
        assert cloud.endings() == {Ending.CANCELLED: 2}

    assert explored(live, preemptions=2) > 50


def test_a_sweep_beside_planner_and_extract_ends_nothing_twice_and_asks_for_nothing_twice() -> None:
    def live(steps: Steps) -> None:
        cloud = watched(steps, C)
        cloud.job([wanted("c1")])
        cloud.deliver()
        cloud.wait(13 * HOUR, sweep=False)
        [event] = cloud.extract_queue.take()
        [message] = cloud.job([wanted("c1", f"s3://{OTHER}/c1")], job="job-2")
        cloud.requests_queue.take()
        steps.run(
            [
                trying(cloud, cloud.extract, event),
                lambda: (cloud.sweep(), None)[1],
                trying(cloud, cloud.plan, message),
            ]
        )
        cloud.deliver()
        cloud.verify()
        assert cloud.thawed == {3: 1}

    assert explored(live, preemptions=1) > 50


# -- Anything, in any order -------------------------------------------------------------------------------------------

SEEDS = 80 + int(os.environ.get("NEVE_MORE_SEEDS", "0"))
"""For a search that may take its time: a thousand more take about twenty seconds."""


class Unsteady:
    """A port whose calls fail now and then, before or after they have had their effect."""

    def __init__(self, port: Any, dice: Callable[[], None]) -> None:
        vars(self).update(_port=port, _dice=dice)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._dice()
            answer = found(*args, **kwargs)
            self._dice()
            return answer

        return call


@dataclass
class Mishaps:
    """Lets one call in a few fail, or the function end there, while `on`; never in a thread that a function started."""

    draw: random.Random
    rate: float
    on: bool = False
    thread: int = field(default_factory=threading.get_ident)

    def __call__(self) -> None:
        if self.on and threading.get_ident() == self.thread and self.draw.random() < self.rate:
            raise self.draw.choice([Transient("503"), Killed()])

    def during(self, act: Callable[[], object]) -> bool:
        """Do it with mishaps; whether it came to its end."""
        self.on = True
        try:
            act()
        except (Killed, NeveError):
            return False
        finally:
            self.on = False
        return True


def anything_once(cloud: RestoreCloud, draw: random.Random, mishaps: Mishaps, sent: list[str]) -> None:
    """One thing that may happen."""
    match draw.choice(["job", "job", "work", "work", "work", "time", "time", "again", "cancel"]):
        case "job":
            keys = sorted(key for key, pin in cloud.files.rows if pin == "v1")
            places = ["", f"s3://{OTHER}/1", f"s3://{OTHER}/2", "s3://foreign/3"]
            items = [wanted(draw.choice(keys), draw.choice(places)) for _ in range(draw.randrange(1, 5))]
            need = Need(tier=draw.choice(list(Tier)), days=draw.choice([1, 2, 9]))
            sent += cloud.job(items, need, job=f"job-{len(sent):03d}", overwrite=draw.random() < 0.2)
        case "work":
            for queue, handle in ((cloud.requests_queue, cloud.plan), (cloud.extract_queue, cloud.extract)):
                bodies = queue.take()
                draw.shuffle(bodies)
                for body in bodies:
                    if not mishaps.during(partial(handle, body)):
                        queue.send(body)
        case "time":
            cloud.events_lost = draw.random() < 0.3
            cloud.wait(draw.choice([MINUTE, SWEEP, HOUR, 5 * HOUR, DAY, 3 * DAY]), sweep=False)
            if draw.random() < 0.6:
                mishaps.during(cloud.sweep)
        case "again" if sent:
            cloud.requests_queue.send(draw.choice(sent))
        case "cancel" if cloud.jobs:
            job = draw.choice(cloud.jobs)
            if not job.cancelled_at and not job.finished_at:
                mishaps.during(lambda: cancel(cloud, job.id))


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_whatever_happens_every_job_ends_with_an_ending_for_each_of_its_files(first: int) -> None:
    for seed in range(first, first + 20):
        draw = random.Random(seed)
        mishaps = Mishaps(draw, rate=draw.choice([0, 0.005, 0.02, 0.06]))
        cloud = RestoreCloud(
            ALL,
            watch=lambda port, mishaps=mishaps: Unsteady(port, mishaps),  # type: ignore[misc]
            thaw_takes=draw.choice([MINUTE, 4 * HOUR, 13 * HOUR, 30 * HOUR]),
            chunk_items=draw.choice([1, 2, 500]),
        )
        cloud.ice.expedited = draw.random() < 0.6
        sent: list[str] = []
        for _ in range(draw.randrange(3, 25)):
            anything_once(cloud, draw, mishaps, sent)
        cloud.events_lost = False
        try:
            cloud.settle(within=12 * DAY)
            told = {json.loads(message)["job"]: message for message in cloud.topic.published}
            cloud.topic.published[:] = told.values()  # who dies after it has told of an end leaves it to be told again
            if not any(job.given_up_at for job in cloud.jobs):
                cloud.verify()
        except AssertionError as error:
            error.add_note(f"with seed {seed}")
            raise

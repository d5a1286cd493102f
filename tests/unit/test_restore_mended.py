"""Restores in which a function dies, a word is lost or somebody interferes just where the protocol once gave way."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.index import ArchiveRow
from neve.domain.manifest import Source
from neve.domain.parked import Reason
from neve.domain.restore import Ending, Item, JobState, ThawRequest, parse_plan, render_thawed
from neve.domain.thaw import CLAIM, LOOK, Need, ThawState, Tier, combined, thaw_micro_usd
from neve.errors import Asleep, Busy, EventInvalid, NeveError, Transient
from neve.flows.thaw import RETRY_S
from neve.ports import Answer, CopyStatus, Placed
from tests.memory import CONTENT, START
from tests.memory_s3 import MemoryReader, copy_until
from tests.restore_cloud import (
    BULK,
    DAY,
    EXPEDITED,
    HOUR,
    MINUTE,
    OTHER,
    RestoreCloud,
    Stored,
    tar_with,
    wanted,
)

A = tar_with(1, ["a1", "a2", "a3", "a4"])
B = tar_with(2, ["b1", "b2"])
C = tar_with(3, ["c1"])
DEEP = tar_with(4, ["deep"], "DEEP_ARCHIVE")
INSTANT = tar_with(5, ["i1", "i2", "i3", "i4"], "GLACIER_IR")
ALL = (A, B, C, DEEP, INSTANT)
DELIVERIES = 10
"""So often a message is delivered before it goes to the dead-letter queue."""


class Killed(BaseException):
    """The function ends where it is."""


@pytest.fixture
def cloud() -> RestoreCloud:
    return RestoreCloud(ALL)


def price(stored: Stored, tier: Tier) -> int:
    return thaw_micro_usd(stored.row.storage_class, tier, days=1, size_bytes=stored.row.size_bytes)


def dies_once(port: Any, name: str, *, after: bool) -> None:
    """Have the function die at its next call of `name`: before it has done anything, or just after."""
    call = getattr(port, name)

    def dies(*args: object, **kwargs: object) -> None:
        setattr(port, name, call)
        if after:
            call(*args, **kwargs)
        raise Killed

    setattr(port, name, dies)


def orphan(cloud: RestoreCloud, need: Need) -> None:
    """A planner dies between its claim for archive 1 and its request, and its message never comes again."""
    dies_once(cloud.ice, "request", after=False)
    [message] = cloud.job([wanted("a1")], need)
    cloud.requests_queue.take()
    with pytest.raises(Killed):
        cloud.plan(message)
    assert cloud.thaws.rows[1].state is ThawState.CLAIMED


# -- Chunks and their shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["planned", "add"])
@pytest.mark.parametrize("again", [False, True], ids=["and its message is lost", "and its message comes again"])
def test_wherever_a_planner_dies_no_share_is_extracted_that_its_job_does_not_count(
    cloud: RestoreCloud, name: str, after: bool, again: bool
) -> None:
    cloud.chunk_items = 1
    first, second = cloud.job([wanted("i1"), wanted("i2")])
    cloud.requests_queue.take()
    cloud.plan(first)
    dies_once(cloud.restores, name, after=after)
    with pytest.raises(Killed):
        cloud.plan(second)
    cloud.extract_queue.send(render_thawed(5))
    cloud.deliver()
    [job] = cloud.jobs
    assert job.ended_shares <= job.shares
    assert job.ended_files <= job.files
    if again:
        cloud.plan(second)
    cloud.settle(within=8 * DAY)
    [job] = cloud.jobs
    assert not cloud.restores.shares
    assert job.finished_at is not None
    assert job.ended_shares <= job.shares
    if again:
        cloud.verify()
        assert job.good
    if job.ended_files != job.chunks:
        assert job.finished_at > START + 7 * DAY, "its message may still come out of the dead-letter queue"
        assert not job.good
    assert len(cloud.topic.published) == 1


def test_a_job_that_was_given_up_ends_when_nothing_of_it_waits_and_takes_no_late_chunk(cloud: RestoreCloud) -> None:
    cloud.thaw_takes = 9 * DAY
    cloud.chunk_items = 1
    first, late = cloud.job([wanted("a1"), wanted("b1")])
    cloud.requests_queue.take()
    cloud.plan(first)
    while cloud.now < START + 8 * DAY:
        cloud.wait(HOUR)
        cloud.deliver()
    [job] = cloud.jobs
    assert (job.state, job.missing_chunks) == (JobState.RUNNING, 1)
    with pytest.raises(EventInvalid, match="restore its files again"):
        cloud.plan(late)
    assert set(cloud.thaws.rows) == {1}
    cloud.settle(within=2 * DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}


def test_a_chunk_that_was_counted_and_comes_again_after_its_job_was_given_up_has_nothing_thawed(
    cloud: RestoreCloud,
) -> None:
    cloud.chunk_items = 1
    first, second, _ = cloud.job([wanted("a1"), wanted("b1"), wanted("c1")])
    cloud.requests_queue.take()
    cloud.plan(first)
    dies_once(cloud.restores, "add", after=False)
    with pytest.raises(Killed):
        cloud.plan(second)
    cloud.settle(within=8 * DAY)
    cloud.plan(second)  # out of the dead-letter queue
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1, Ending.CANCELLED: 1}
    assert cloud.thawed == {1: 1}
    assert not cloud.jobs[0].good


# -- What S3 is asked, and what it costs ------------------------------------------------------------------------------


def test_a_thaw_that_is_done_long_before_it_has_to_be_is_found_without_its_event_and_paid_once(
    cloud: RestoreCloud,
) -> None:
    cloud.now = START.replace(hour=11, minute=30)  # so that the copy, done in the evening, stays for little over a day
    begun = cloud.now
    cloud.events_lost = True
    cloud.thaw_takes = 12 * HOUR
    cloud.job([wanted("deep"), wanted("deep", f"s3://{OTHER}/deep")])
    cloud.job([wanted("deep", f"s3://{OTHER}/too")], job="job-2")
    cloud.settle(within=4 * DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 2}
    assert cloud.thawed == {4: 1}
    assert cloud.thaws.spent_micro_usd(begun) == price(DEEP, Tier.BULK)
    assert cloud.now <= begun + 12 * HOUR + LOOK + HOUR


def test_a_faster_request_waits_for_as_long_as_another_may_be_asking(cloud: RestoreCloud) -> None:
    orphan(cloud, BULK)
    [message] = cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.requests_queue.take()
    waited = timedelta()
    for _ in range(DELIVERIES):
        try:
            cloud.plan(message)
        except Busy as busy:
            waited += timedelta(seconds=busy.retry_after_s)
            cloud.now = START + waited
    assert CLAIM <= waited < CLAIM + timedelta(seconds=RETRY_S)
    assert cloud.ice.asked == [(1, Tier.EXPEDITED, 1, Answer.ACCEPTED)]
    cloud.settle()
    cloud.verify()


def test_the_sweep_asks_for_the_fastest_tier_and_the_most_days_of_all_that_wait(cloud: RestoreCloud) -> None:
    cloud.job([wanted("a1")], Need(tier=Tier.BULK, days=9))
    cloud.job([wanted("a2")], Need(tier=Tier.STANDARD, days=2), job="job-2")
    cloud.job([wanted("a3")], Need(tier=Tier.BULK, days=1), job="job-3")
    cloud.deliver()
    cloud.ice.forget()
    cloud.wait(13 * HOUR)
    [message] = cloud.requests_queue.take()
    assert parse_plan(message) == ThawRequest(archive=1, need=Need(tier=Tier.STANDARD, days=9))


def test_the_fastest_tier_is_the_dearest_and_not_the_last_by_its_name() -> None:
    needs = [Need(tier=Tier.STANDARD, days=1), Need(tier=Tier.EXPEDITED, days=2), Need(tier=Tier.BULK, days=5)]
    for each in itertools.permutations(needs):
        assert combined(each) == Need(tier=Tier.EXPEDITED, days=5)
    assert combined(iter([BULK])) == BULK


def test_after_a_fallback_from_expedited_nobody_asks_or_pays_again(cloud: RestoreCloud) -> None:
    cloud.ice.expedited = False
    cloud.job([wanted("a1")], EXPEDITED)
    cloud.deliver()
    spent = cloud.thaws.spent_micro_usd(START)
    for number in (2, 3):
        cloud.job([wanted(f"a{number}")], EXPEDITED, job=f"job-{number}")
        cloud.deliver()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.UNAVAILABLE, Answer.ACCEPTED]
    assert cloud.thaws.spent_micro_usd(START) == spent
    cloud.settle()
    cloud.verify()


def test_after_an_upgrade_that_fell_back_to_standard_nobody_asks_or_pays_again(cloud: RestoreCloud) -> None:
    cloud.ice.expedited = False
    cloud.job([wanted("a1")])
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.deliver()
    asked = [(Tier.BULK, Answer.ACCEPTED), (Tier.EXPEDITED, Answer.UNAVAILABLE), (Tier.STANDARD, Answer.ACCEPTED)]
    assert [(tier, answer) for _, tier, _, answer in cloud.ice.asked] == asked
    spent = cloud.thaws.spent_micro_usd(START)
    cloud.job([wanted("a3")], EXPEDITED, job="job-3")
    cloud.deliver()
    assert len(cloud.ice.asked) == len(asked)
    assert cloud.thaws.spent_micro_usd(START) == spent
    cloud.settle()
    cloud.verify()


def test_after_an_upgrade_that_s3_has_refused_nobody_asks_or_pays_again(cloud: RestoreCloud) -> None:
    cloud.ice.running[1] = (Tier.BULK, 9)  # somebody else's: S3 insists on their days
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.deliver()
    spent = cloud.thaws.spent_micro_usd(START)
    cloud.job([wanted("a3")], EXPEDITED, job="job-3")
    cloud.deliver()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.RUNNING] * 2
    assert cloud.thaws.spent_micro_usd(START) == spent
    cloud.settle()
    cloud.verify()


def test_an_upgrade_over_the_cap_joins_what_runs(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A, Tier.BULK)
    cloud.job([wanted("a1")])
    cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.settle()
    cloud.verify()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}
    assert cloud.thawed == {1: 1}
    assert not cloud.failures


def test_who_joins_because_an_upgrade_is_over_the_cap_has_the_copy_for_as_long_as_it_needs(cloud: RestoreCloud) -> None:
    cloud.cap_micro_usd = price(A, Tier.BULK)
    cloud.job([wanted("a1")])
    cloud.job([wanted("a2", "file:/home/a2")], Need(tier=Tier.EXPEDITED, days=30), job="job-2")
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.deliver()
    assert cloud.ice.warm_until[1] == copy_until(cloud.now, 30) == cloud.thaws.rows[1].warm_until


@pytest.mark.parametrize(
    ("dead", "taker", "asked"),
    [
        (Tier.BULK, Tier.STANDARD, Tier.STANDARD),
        (Tier.STANDARD, Tier.STANDARD, Tier.STANDARD),
        (Tier.EXPEDITED, Tier.BULK, Tier.EXPEDITED),
    ],
)
def test_who_takes_over_a_dead_claim_asks_for_both_and_pays_only_what_is_not_paid_yet(
    cloud: RestoreCloud, dead: Tier, taker: Tier, asked: Tier
) -> None:
    orphan(cloud, Need(tier=dead, days=1))
    cloud.now += CLAIM + MINUTE
    cloud.job([wanted("a2")], Need(tier=taker, days=1), job="job-2")
    cloud.deliver()
    assert cloud.ice.asked == [(1, asked, 1, Answer.ACCEPTED)]
    assert cloud.thaws.spent_micro_usd(START) == price(A, asked)


def test_an_upgrade_that_was_throttled_is_asked_for_by_who_comes_first_however_slow_a_thaw_would_do_for_them(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a1")])
    cloud.deliver()
    cloud.ice.failures = [Transient("503 SlowDown")]
    [hasty] = cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.requests_queue.take()
    with pytest.raises(Transient, match="503"):
        cloud.plan(hasty)
    cloud.job([wanted("a3")], job="job-3")
    cloud.deliver()
    cloud.plan(hasty)
    assert [(tier, answer) for _, tier, _, answer in cloud.ice.asked] == [
        (Tier.BULK, Answer.ACCEPTED),
        (Tier.EXPEDITED, Answer.ACCEPTED),
    ]
    assert cloud.thaws.spent_micro_usd(START) == price(A, Tier.BULK) + price(A, Tier.EXPEDITED)


@pytest.mark.parametrize("runs", [False, True], ids=["a thaw", "an upgrade"])
def test_a_fallback_that_is_throttled_is_not_turned_back_and_paid_once(cloud: RestoreCloud, runs: bool) -> None:
    if runs:
        cloud.job([wanted("a1")])
        cloud.deliver()
    cloud.ice.expedited = False
    request = cloud.ice.request
    throttled = iter([True] * 3)

    def slow_down(archive: ArchiveRow, *, tier: Tier, days: int) -> Answer:
        if tier is Tier.STANDARD and next(throttled, False):
            raise Transient("503 SlowDown")
        return request(archive, tier=tier, days=days)

    cloud.ice.request = slow_down  # type: ignore[method-assign]
    [hasty] = cloud.job([wanted("a2")], EXPEDITED, job="job-2")
    cloud.requests_queue.take()
    for _ in range(3):
        with pytest.raises(Transient, match="503"):
            cloud.plan(hasty)
        cloud.now += MINUTE
    cloud.plan(hasty)
    asked = [(Tier.EXPEDITED, Answer.UNAVAILABLE), (Tier.STANDARD, Answer.ACCEPTED)]
    assert [(tier, answer) for _, tier, _, answer in cloud.ice.asked][-2:] == asked
    assert len(cloud.ice.asked) == 2 + runs
    assert cloud.thaws.spent_micro_usd(START) == price(A, Tier.EXPEDITED) + (price(A, Tier.BULK) if runs else 0)
    assert cloud.thaws.rows[1].fell_back
    cloud.settle()
    cloud.verify()


def test_a_copy_that_the_sweep_finds_is_extended_for_who_needs_it_longer(cloud: RestoreCloud) -> None:
    cloud.events_lost = True
    cloud.job([wanted("a1")])
    cloud.job([wanted("a2", "file:/home/a2")], Need(tier=Tier.BULK, days=30), job="job-2")
    cloud.deliver()
    cloud.wait(LOOK + MINUTE)
    cloud.deliver()
    assert [(days, answer) for _, _, days, answer in cloud.ice.asked] == [(1, Answer.ACCEPTED), (30, Answer.WARM)]
    assert cloud.ice.warm_until[1] == copy_until(cloud.now, 30) == cloud.thaws.rows[1].warm_until


def test_a_copy_that_somebody_else_asked_for_is_extended_for_who_joined_and_needs_it_longer(
    cloud: RestoreCloud,
) -> None:
    cloud.ice.running[1] = (Tier.BULK, 1)
    cloud.job([wanted("a1", "file:/home/a1")], Need(tier=Tier.BULK, days=30))
    cloud.deliver()
    assert [answer for *_, answer in cloud.ice.asked] == [Answer.RUNNING]
    cloud.wait(5 * HOUR)
    cloud.deliver()
    assert cloud.ice.warm_until[1] == copy_until(cloud.now, 30) == cloud.thaws.rows[1].warm_until


# -- Archives that are gone, or not what the index says ---------------------------------------------------------------


@pytest.mark.parametrize("when", ["before it is asked for", "while it thaws"])
def test_what_is_wanted_of_an_archive_that_is_gone_ends_as_damaged_wherever_it_was_to_go(
    cloud: RestoreCloud, when: str
) -> None:
    cloud.job([wanted("a1"), wanted("a2", "file:/home/a2"), wanted("b1")])
    cloud.job([wanted("a3", "file:/home/a3")], job="job-2")
    if when == "while it thaws":
        cloud.deliver()
        cloud.ice.running.pop(1)
    cloud.ice.gone.add(1)
    cloud.settle(within=2 * DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.DAMAGED: 2, Ending.RESTORED: 1}
    assert cloud.endings("job-2") == {Ending.DAMAGED: 1}
    assert [parked.reason for parked in cloud.parking_lot.items.values()] == [Reason.ARCHIVE_DAMAGED]
    cloud.wait()
    cloud.wait(DAY)
    assert not cloud.requests_queue.sent
    assert not cloud.extract_queue.sent
    assert 1 not in cloud.thaws.rows, "and no look at it is due"


@pytest.mark.parametrize("stated", ["SHA-256", "size"])
def test_an_index_row_that_names_the_wrong_member_restores_nothing(stated: str) -> None:
    if stated == "SHA-256":
        stored = tar_with(1, ["a1", "a2"])
    else:
        stored = replace(tar_with(1, ["a1"]), manifest=tar_with(1, ["a1"], size_bytes=41).manifest)
    cloud = RestoreCloud([stored])
    if stated == "SHA-256":
        cloud.files.rows["a1", "v1"] = replace(cloud.files.rows["a1", "v1"], number=1)
    else:
        cloud.files.rows["a1", "v1"] = replace(cloud.files.rows["a1", "v1"], size_bytes=40, sha256="")
    cloud.job([wanted("a1")])
    cloud.settle()
    assert cloud.endings() == {Ending.DAMAGED: 1}
    assert cloud.place(f"s3://{CONTENT}/a1") is None
    assert [parked.reason for parked in cloud.parking_lot.items.values()] == [Reason.ARCHIVE_DAMAGED]
    assert cloud.reader.reads == []


def test_an_index_row_without_a_hash_is_held_against_the_size_and_the_bytes_against_the_manifest(
    cloud: RestoreCloud,
) -> None:
    cloud.files.rows["a1", "v1"] = replace(cloud.files.rows["a1", "v1"], sha256="")
    cloud.job([wanted("a1")])
    cloud.settle()
    cloud.verify()
    assert cloud.endings() == {Ending.RESTORED: 1}


def test_an_archive_that_sleeps_though_its_class_needs_no_thaw_is_told_of_and_not_asked_for_for_ever(
    cloud: RestoreCloud,
) -> None:
    class Sleeping(MemoryReader):
        def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
            raise Asleep(archive.object_key)

    cloud.reader = Sleeping(store=cloud.store, glacier=cloud.ice)
    [message] = cloud.job([wanted("i1")])
    cloud.requests_queue.take()
    cloud.plan(message)
    [word] = cloud.extract_queue.take()
    with pytest.raises(NeveError, match="who moved it"):
        cloud.extract(word)
    assert not cloud.requests_queue.sent
    assert not cloud.extract_queue.sent
    assert len(cloud.restores.shares) == 1, "nothing is lost: it waits until somebody has looked"


# -- The sweep --------------------------------------------------------------------------------------------------------


def test_a_thaw_that_cannot_be_looked_at_keeps_the_sweep_from_no_other(cloud: RestoreCloud) -> None:
    cloud.events_lost = True
    cloud.job([wanted("a1"), wanted("b1"), wanted("c1")])
    cloud.deliver()
    status = cloud.ice.status

    def denied(archive: ArchiveRow) -> CopyStatus:
        if archive.serial == 1:
            raise PermissionError("403 Forbidden")
        return status(archive)

    cloud.ice.status = denied  # type: ignore[method-assign]
    with pytest.raises(PermissionError, match="403"):
        cloud.wait(LOOK + MINUTE)
    assert {serial: thaw.state for serial, thaw in cloud.thaws.rows.items()} == {
        1: ThawState.THAWING,
        2: ThawState.WARM,
        3: ThawState.WARM,
    }


def test_a_job_whose_end_cannot_be_told_keeps_the_sweep_from_no_other_job_and_no_thaw(cloud: RestoreCloud) -> None:
    publish = cloud.topic.publish

    def refused(message: str) -> None:
        if cloud.now == START or '"job-1"' in message:
            raise PermissionError("403 AuthorizationError")
        publish(message)

    cloud.events_lost = True
    cloud.topic.publish = refused
    cloud.job([wanted("a1")], job="job-0")
    cloud.deliver()
    for number in (1, 2):
        [message] = cloud.job([wanted(f"i{number}")], job=f"job-{number}")
        cloud.requests_queue.take()
        cloud.plan(message)
    with pytest.raises(PermissionError):
        cloud.extract(render_thawed(5))
    assert [job.state for job in cloud.jobs] == [JobState.FINISHED, JobState.FINISHED, JobState.RUNNING]
    with pytest.raises(PermissionError, match="403"):
        cloud.wait(LOOK + MINUTE)
    assert [json.loads(message)["job"] for message in cloud.topic.published] == ["job-2"]
    assert cloud.thaws.rows[1].state is ThawState.WARM


def test_a_thaw_that_only_a_command_waits_for_is_looked_at_when_its_copy_expires(cloud: RestoreCloud) -> None:
    looks: Counter[int] = Counter()
    waiting = cloud.restores.waiting

    def counted(archive: int) -> Any:
        looks[archive] += 1
        return waiting(archive)

    cloud.restores.waiting = counted
    cloud.job([wanted("a1", "file:/home/a1")], Need(tier=Tier.BULK, days=3))
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.deliver()
    looks.clear()
    for _ in range(40):
        cloud.wait()
    assert looks == {1: 1}
    assert cloud.thaws.rows[1].due_at == cloud.thaws.rows[1].warm_until
    cloud.settle(within=5 * DAY)
    assert cloud.endings() == {Ending.EXPIRED: 1}


def test_files_that_come_to_a_thaw_which_only_a_command_waited_for_are_not_left_until_its_copy_expires(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a1", "file:/home/a1")], Need(tier=Tier.BULK, days=30))
    cloud.deliver()
    cloud.wait(5 * HOUR)
    cloud.deliver()
    cloud.wait()
    [message] = cloud.job([wanted("a2")], job="job-2")
    cloud.requests_queue.take()
    cloud.plan(message)
    cloud.extract_queue.take()  # the word ends in the dead-letter queue
    joined = cloud.now
    while not cloud.endings("job-2"):
        assert cloud.now < joined + 2 * HOUR
        cloud.wait()
        cloud.deliver()
    assert cloud.endings("job-2") == {Ending.RESTORED: 1}
    assert cloud.thawed == {1: 1}


@pytest.mark.parametrize("dies", ["the handler of the event", "the planner"])
def test_whoever_dies_before_a_copy_is_extended_the_sweep_has_it_extended(cloud: RestoreCloud, dies: str) -> None:
    cloud.job([wanted("a1")])
    cloud.job([wanted("a2", "file:/home/a2")], Need(tier=Tier.BULK, days=30), job="job-2")
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    [event] = cloud.extract_queue.take()
    if dies == "the planner":
        cloud.extract(event)
        [message] = cloud.requests_queue.take()
        dies_once(cloud.ice, "request", after=False)
        with pytest.raises(Killed):
            cloud.plan(message)
    else:
        dies_once(cloud.requests_queue, "send", after=False)
        with pytest.raises(Killed):
            cloud.extract(event)
        cloud.extract(event)
    for _ in range(4):
        cloud.wait()
        cloud.deliver()
    assert cloud.thaws.rows[1].warm_until == cloud.ice.warm_until[1] > cloud.now + 29 * DAY
    assert cloud.thaws.rows[1].due_at == cloud.thaws.rows[1].warm_until, "it is not asked for again"
    assert cloud.thawed == {1: 1}


def test_files_of_an_archive_that_needs_no_thaw_expire_if_no_command_fetches_them(cloud: RestoreCloud) -> None:
    cloud.chunk_items = 1
    keys = ["i1", "i2", "i3", "i4"]
    cloud.job([wanted(key, f"file:/home/{key}") for key in keys], Need(tier=Tier.BULK, days=2))
    cloud.settle(within=3 * DAY)
    cloud.verify()
    assert cloud.endings() == {Ending.EXPIRED: len(keys)}
    assert START + 2 * DAY < cloud.now < START + 2 * DAY + 2 * HOUR


# -- Extract ----------------------------------------------------------------------------------------------------------


def test_a_share_that_kills_whoever_begins_it_comes_after_those_never_begun(cloud: RestoreCloud) -> None:
    put = cloud.destination.put

    def kills(item: Item, source: Source, body: bytes, **kwargs: Any) -> Placed:
        if item.key == "a1":
            raise Killed
        return put(item, source, body, **kwargs)

    cloud.destination.put = kills  # type: ignore[method-assign]
    for number in (1, 2, 3):
        cloud.job([wanted(f"a{number}")], job=f"job-{number}")
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    [event] = cloud.extract_queue.take()
    for _ in range(2):
        with pytest.raises(Killed):
            cloud.extract(event)
        cloud.now += 6 * MINUTE  # the lease of the dead runs out
    assert cloud.endings("job-2") == cloud.endings("job-3") == {Ending.RESTORED: 1}


@pytest.mark.parametrize("error", [Transient("503"), PermissionError("403"), RuntimeError("a defect")], ids=str)
def test_a_share_that_fails_holds_back_none_and_its_error_comes_out(cloud: RestoreCloud, error: Exception) -> None:
    cloud.destination.failures[f"s3://{CONTENT}/a1"] = [error]
    for number in (1, 2, 3):
        cloud.job([wanted(f"a{number}")], job=f"job-{number}")
    cloud.deliver()
    cloud.wait(5 * HOUR, sweep=False)
    [event] = cloud.extract_queue.take()
    with pytest.raises(type(error), match=str(error)):
        cloud.extract(event)
    assert cloud.endings("job-2") == cloud.endings("job-3") == {Ending.RESTORED: 1}
    cloud.extract(event)
    cloud.verify()


def test_shares_of_a_job_that_was_cancelled_and_not_ended_are_ended_by_extract_which_writes_nothing(
    cloud: RestoreCloud,
) -> None:
    cloud.job([wanted("a1"), wanted("b1")])
    cloud.deliver()
    assert cloud.restores.cancel("job-1", cloud.now)  # and the command dies
    cloud.wait(5 * HOUR, sweep=False)
    cloud.deliver()
    cloud.verify()
    assert cloud.endings() == {Ending.CANCELLED: 2}
    assert not cloud.destination.objects
    assert not cloud.reader.reads


def test_overwriting_stops_at_what_was_put_after_the_job_was_asked_for(cloud: RestoreCloud) -> None:
    before, after = f"s3://{CONTENT}/a1", f"s3://{CONTENT}/a2"
    cloud.destination.store(before, b"of yesterday")
    cloud.now = START + DAY
    cloud.job([wanted("a1"), wanted("a2")], overwrite=True)
    cloud.deliver()
    cloud.now += HOUR
    cloud.destination.store(after, b"of today")
    cloud.settle()
    cloud.verify()
    assert {result.item.key: result.ending for result in cloud.results()} == {
        "a1": Ending.RESTORED,
        "a2": Ending.CONFLICT,
    }
    assert cloud.place(before) == cloud.body_of("a1", "v1")
    assert cloud.place(after) == b"of today"


def test_a_request_that_comes_too_late_and_shortens_a_copy_makes_it_long_again(cloud: RestoreCloud) -> None:
    """S3 counts the days of the last request, and this one was claimed before the copy was there."""
    cloud.job([wanted("c1")])
    cloud.deliver()
    ask = cloud.ice.request

    def late(archive: ArchiveRow, *, tier: Tier, days: int) -> Answer:
        cloud.ice.request = ask  # type: ignore[method-assign]  # the first request only
        cloud.wait(5 * HOUR, sweep=False)
        cloud.job([wanted("c1", "file:/home/c1")], Need(tier=Tier.BULK, days=30), job="job-3")
        cloud.deliver()
        assert cloud.ice.warm_until[3] == copy_until(cloud.now, 30)
        return ask(archive, tier=tier, days=days)

    cloud.ice.request = late  # type: ignore[method-assign]
    cloud.job([wanted("c1", f"s3://{OTHER}/c1")], EXPEDITED, job="job-2")
    cloud.deliver()
    assert [days for *_, days, _ in cloud.ice.asked][-3:] == [30, 1, 30]
    thaw = cloud.thaws.get(3)
    assert thaw is not None
    assert thaw.warm_until == cloud.ice.warm_until[3] == copy_until(cloud.now, 30)


@pytest.mark.parametrize("enough", [False, True], ids=["no day's cap is enough", "tomorrow's cap is enough"])
def test_a_lost_thaw_that_is_over_the_cap_waits_for_a_day_whose_cap_is_enough(
    cloud: RestoreCloud, enough: bool
) -> None:
    standard = Need(tier=Tier.STANDARD, days=1)
    cloud.job([wanted("c1")], standard)
    cloud.deliver()
    cloud.ice.forget()
    cloud.cap_micro_usd = price(C, Tier.STANDARD) - (0 if enough else 1)
    cloud.settle()
    assert cloud.endings() == {Ending.RESTORED if enough else Ending.OVER_CAP: 1}

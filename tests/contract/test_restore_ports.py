"""What neve.ports promises of thaws, jobs and shares, held against the ports in memory and the adapters (moto)."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from neve.aws import clients
from neve.aws.rows import TRIES
from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.restore import (
    CHUNK_BYTES,
    CHUNK_ITEMS,
    DETAIL_CHARACTERS,
    KEEP,
    Ending,
    Item,
    Job,
    JobState,
    Kind,
    Result,
    Share,
    Wanted,
    chunks,
)
from neve.domain.thaw import Need, Thaw, ThawState, Tier
from neve.errors import NeveError, OverCap, Transient
from neve.ports import Archives, Files, Restores, Thaws
from tests.bad_keys import BAD_KEYS
from tests.memory import MemoryArchives, MemoryFiles
from tests.memory_restore import MemoryRestores, MemoryThaws
from tests.moto_cloud import RESTORES, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, 0, 123457, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
BULK = Need(tier=Tier.BULK, days=3)


@dataclass
class Ports:
    """The ports of one cloud."""

    thaws: Thaws
    restores: Restores
    files: Files
    archives: Archives


@pytest.fixture
def aws() -> Iterator[Ports]:
    with moto_cloud() as cloud:
        yield Ports(thaws=cloud.thaws, restores=cloud.restores, files=cloud.files, archives=cloud.archives)


@pytest.fixture(params=["memory", "aws"])
def ports(request: pytest.FixtureRequest) -> Ports:
    if request.param == "aws":
        made: Ports = request.getfixturevalue("aws")
        return made
    return Ports(thaws=MemoryThaws(), restores=MemoryRestores(), files=MemoryFiles(), archives=MemoryArchives())


@pytest.fixture
def thaws(ports: Ports) -> Thaws:
    return ports.thaws


@pytest.fixture
def restores(ports: Ports) -> Restores:
    return ports.restores


# Thaws


def thaw(**changed: Any) -> Thaw:
    made = Thaw(
        archive=7,
        state=ThawState.CLAIMED,
        tier=Tier.BULK,
        days=3,
        wanted_days=5,
        ready_at=NOW + timedelta(hours=12),
        due_at=NOW + 16 * MINUTE,
        claimed_by="me",
        claimed_until=NOW + 16 * MINUTE,
    )
    return replace(made, **changed)


THAWING = thaw(state=ThawState.THAWING, claimed_by="", claimed_until=None)
WARM = thaw(state=ThawState.WARM, claimed_by="", claimed_until=None, warm_until=NOW + timedelta(days=3))


@pytest.mark.parametrize(
    "made",
    [
        thaw(),
        thaw(upgraded_from=Tier.STANDARD, tier=Tier.EXPEDITED, fell_back=True),
        THAWING,
        WARM,
        replace(WARM, due_at=None),
        thaw(archive=123_456_789_012),
    ],
)
def test_a_thaw_comes_back_as_it_was_put(thaws: Thaws, made: Thaw) -> None:
    assert thaws.get(made.archive) is None
    put = thaws.swap(None, made)
    assert put == replace(made, revision=1)
    assert thaws.get(made.archive) == put


def test_a_thaw_takes_the_place_only_of_what_was_seen(thaws: Thaws) -> None:
    first = thaws.swap(None, thaw())
    assert first is not None
    assert thaws.swap(None, thaw(claimed_by="other")) is None
    second = thaws.swap(first, THAWING)
    assert second == replace(THAWING, revision=2)
    assert thaws.swap(first, thaw(claimed_by="other")) is None
    assert thaws.get(7) == second
    third = thaws.swap(second, WARM)
    assert third == replace(WARM, revision=3), "what a claim has and a warm copy has not is gone"
    assert thaws.get(7) == third


def test_what_is_not_there_any_more_is_not_replaced(thaws: Thaws) -> None:
    first = thaws.swap(None, thaw())
    assert first is not None
    assert thaws.drop(first)
    assert thaws.swap(first, THAWING) is None
    assert thaws.claim(first, THAWING, micro_usd=1, cap_micro_usd=0, now=NOW) is None
    assert thaws.get(7) is None
    assert thaws.spent_micro_usd(NOW) == 0


def test_a_thaw_is_forgotten_only_as_it_was_seen(thaws: Thaws) -> None:
    first = thaws.swap(None, thaw())
    assert first is not None
    second = thaws.swap(first, THAWING)
    assert second is not None
    assert not thaws.drop(first)
    assert thaws.get(7) == second
    assert thaws.drop(second)
    assert thaws.get(7) is None
    assert not thaws.drop(second)


def test_a_thaw_made_after_one_was_forgotten_is_not_taken_for_it(thaws: Thaws) -> None:
    """Revisions count anew: who has seen the first of the old thaw must not replace the first of the new."""
    old = thaws.swap(None, thaw())
    assert old is not None
    assert thaws.drop(old)
    new = thaws.swap(None, thaw(ready_at=NOW + timedelta(hours=13)))
    assert new is not None
    assert thaws.swap(old, WARM) is None
    assert thaws.claim(old, WARM, micro_usd=1, cap_micro_usd=0, now=NOW) is None
    assert not thaws.drop(old)
    assert thaws.get(7) == new


def claim(thaws: Thaws, seen: Thaw | None = None, *, price: int, cap: int, now: datetime = NOW, **changed: Any) -> Any:
    return thaws.claim(seen, thaw(**changed), micro_usd=price, cap_micro_usd=cap, now=now)


def test_a_claim_counts_its_price_to_the_day(thaws: Thaws) -> None:
    assert thaws.spent_micro_usd(NOW) == 0
    claimed = claim(thaws, price=40, cap=100)
    assert claimed == thaw(revision=1)
    assert thaws.get(7) == claimed
    assert claim(thaws, claimed, price=60, cap=100) == thaw(revision=2), "the cap itself may be spent"
    assert thaws.spent_micro_usd(NOW) == 100
    tomorrow = NOW + timedelta(days=1)
    assert thaws.spent_micro_usd(tomorrow) == 0
    assert claim(thaws, price=100, cap=100, now=tomorrow, archive=8)


def test_the_day_is_that_of_utc(thaws: Thaws) -> None:
    late = NOW.replace(hour=23).astimezone(datetime.fromisoformat("2026-09-02T01:00:00+02:00").tzinfo)
    claim(thaws, price=40, cap=100, now=late)
    assert thaws.spent_micro_usd(NOW) == 40


def test_who_was_not_first_spends_nothing(thaws: Thaws) -> None:
    claimed = claim(thaws, price=40, cap=100)
    assert claim(thaws, price=40, cap=100, claimed_by="other") is None
    assert thaws.get(7) == claimed
    assert thaws.spent_micro_usd(NOW) == 40


def test_a_claim_over_the_cap_changes_nothing_and_says_what_to_do(thaws: Thaws) -> None:
    claimed = claim(thaws, price=99_000_000, cap=100_000_000)
    with pytest.raises(OverCap):
        claim(thaws, claimed, price=1_000_001, cap=100_000_000, claimed_by="other")
    with pytest.raises(OverCap):
        claim(thaws, price=1_000_001, cap=100_000_000, archive=8)
    assert thaws.get(7) == claimed
    assert thaws.get(8) is None
    assert thaws.spent_micro_usd(NOW) == 99_000_000
    assert claim(thaws, price=1_000_000, cap=100_000_000, archive=8)


def test_a_refused_claim_states_the_figures_and_the_remedy(aws: Ports) -> None:
    claim(aws.thaws, price=99_000_000, cap=100_000_000)
    with pytest.raises(OverCap, match=r"1\.5000 USD.* 99\.00 of 100\.00 USD a day .*restore_usd_per_day.* tomorrow"):
        claim(aws.thaws, price=1_500_000, cap=100_000_000, archive=8)


def test_what_costs_more_than_a_day_may_is_refused_on_its_first_thaw_too(thaws: Thaws) -> None:
    with pytest.raises(OverCap):
        claim(thaws, price=101, cap=100)
    assert thaws.get(7) is None
    assert thaws.spent_micro_usd(NOW) == 0


def test_who_was_not_first_is_told_so_even_over_the_cap(thaws: Thaws) -> None:
    """The thaw that the other has asked for serves both."""
    claim(thaws, price=40, cap=100)
    assert claim(thaws, price=101, cap=100, claimed_by="other") is None


def test_no_cap_lets_all_through_and_counts_it(thaws: Thaws) -> None:
    for archive in (7, 8):
        assert claim(thaws, price=10**15, cap=0, archive=archive)
    assert thaws.spent_micro_usd(NOW) == 2 * 10**15


def test_thaws_are_due_when_their_time_has_passed(thaws: Thaws, restores: Restores) -> None:
    restores.open(job())
    for archive, due_at in ((1, NOW - SECOND), (2, NOW), (3, NOW + SECOND), (4, None)):
        thaws.swap(None, replace(WARM, archive=archive, due_at=due_at))
    assert [each.archive for each in thaws.due(NOW)] == [1]
    assert {each.archive for each in thaws.due(NOW + timedelta(days=9))} == {1, 2, 3}
    first = thaws.get(1)
    assert first is not None
    thaws.swap(first, replace(first, due_at=None))
    assert list(thaws.due(NOW)) == []


def test_of_those_who_claim_at_once_one_claims_and_one_price_is_counted(aws: Ports) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: claim(aws.thaws, price=10, cap=100, claimed_by=f"p{n}"), range(16)))
    won = [each for each in claims if each]
    assert len(won) == 1
    assert aws.thaws.get(7) == won[0]
    assert aws.thaws.spent_micro_usd(NOW) == 10


def test_those_who_claim_at_once_stay_below_the_cap_together(aws: Ports) -> None:
    def one(archive: int) -> bool:
        try:
            return claim(aws.thaws, price=10, cap=75, archive=archive) is not None
        except OverCap:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(1, 17))) == 7
    assert aws.thaws.spent_micro_usd(NOW) == 70


# Jobs


def job(job_id: str = "j", **changed: Any) -> Job:
    made = Job(id=job_id, created_at=NOW, need=BULK, overwrite=True, chunks=2, estimate_usd=0.1)
    return replace(made, **changed)


def item(key: str = "k", **changed: Any) -> Item:
    made = Item(key=key, pin="v1", number=1, size_bytes=10, destination=f"s3://content/{key}")
    return replace(made, **changed)


def share(archive: int = 7, *, chunk: int = 1, items: tuple[Item, ...] = (), **changed: Any) -> Share:
    items = items or (item("a"), item("b"))
    made = Share(
        job="j",
        chunk=chunk,
        archive=archive,
        kind=Kind.S3,
        need=BULK,
        overwrite=True,
        items=items,
        files=len(items),
        size_bytes=sum(each.size_bytes for each in items),
    )
    return replace(made, **changed)


def ended(items: tuple[Item, ...], ending: Ending = Ending.RESTORED, detail: str = "") -> list[Result]:
    return [Result(item=each, ending=ending, detail=detail) for each in items]


def bare(made: Share) -> Share:
    return replace(made, items=(), lease_owner="", leased_until=None, first_leased_at=None)


def leased(restores: Restores, made: Share, owner: str = "me", now: datetime = NOW) -> Share:
    taken = restores.lease(made, owner=owner, now=now, until=now + MINUTE)
    assert taken is not None
    return taken


def counted(restores: Restores, job_id: str = "j") -> Job:
    found = restores.job(job_id)
    assert found is not None
    return found


def test_a_job_is_opened_once(restores: Restores) -> None:
    assert restores.job("j") is None
    assert restores.open(job()) == job()
    assert restores.open(job(chunks=9, estimate_usd=0.0)) == job()
    assert restores.job("j") == job()


def test_jobs_are_listed_by_their_ids(restores: Restores) -> None:
    for job_id in ("20260902-b", "20260901-a", "20260903-c"):
        restores.open(job(job_id))
    assert [each.id for each in restores.jobs()] == ["20260903-c", "20260902-b", "20260901-a"]
    assert [each.id[-1] for each in restores.jobs(newest_first=False)] == ["a", "b", "c"]


def test_shares_wait_for_their_archive_and_their_job(restores: Restores) -> None:
    mine = [share(7), share(8), share(7, chunk=2), share(7, kind=Kind.LOCAL)]
    other = share(7, job="other", overwrite=False, need=Need(tier=Tier.STANDARD, days=9))
    restores.add([*mine, other])
    assert restores.waiting(7) == sorted(
        map(bare, [mine[0], mine[2], mine[3], other]), key=lambda each: (each.kind, each.job, each.id)
    )
    assert restores.waiting(8) == [bare(mine[1])]
    assert restores.waiting(9) == []
    assert list(restores.waiting_of("j")) == sorted(map(bare, mine), key=lambda each: each.id)
    assert list(restores.waiting_of("other")) == [bare(other)]
    assert list(restores.waiting_of("none")) == []


def test_items_come_back_as_they_were_added(restores: Restores) -> None:
    items = tuple(
        item(key, number=number, size_bytes=5 * 10**12, pin="null-e", destination=f"file:/tmp/\\n\n/{key}")
        for number, key in enumerate(BAD_KEYS)
    )
    restores.add([share(items=items)])
    assert leased(restores, share()).items == items


def test_adding_again_changes_nothing(restores: Restores) -> None:
    restores.add([share()])
    taken = leased(restores, share())
    restores.add([share(items=(item("other"),)), share(8)])
    assert leased(restores, share()) == taken
    assert {each.archive for each in restores.waiting_of("j")} == {7, 8}


def test_what_has_ended_does_not_wait_again(restores: Restores) -> None:
    restores.open(job())
    restores.add([share()])
    assert restores.finish(leased(restores, share()), ended(share().items), owner="me", now=NOW)
    assert restores.add([share(), share(8)]) == [share(8)]
    assert restores.waiting(7) == []
    assert [each.archive for each in restores.waiting_of("j")] == [8]
    assert restores.lease(share(), owner="me", now=NOW, until=NOW) is None


def test_two_planners_of_one_chunk_add_each_share_once(aws: Ports) -> None:
    aws.restores.open(job())
    shares = [share(archive) for archive in range(1, 13)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: aws.restores.add(shares), range(2)))
        planned = pool.map(lambda _: aws.restores.planned("j", 1, shares=shares, results=[], now=NOW), range(2))
        assert list(planned) == [shares, shares]
    assert len(list(aws.restores.waiting_of("j"))) == 12
    assert counted(aws.restores).shares == 12


def test_a_chunk_is_counted_once(restores: Restores) -> None:
    restores.open(job())
    unplaced = ended((item("c"),), Ending.NOT_FOUND, "no such version") + ended((item("d"), item("e")), Ending.REFUSED)
    shares = [
        share(items=tuple(map(item, BAD_KEYS))),
        share(8, kind=Kind.LOCAL, overwrite=False, need=Need(tier=Tier.STANDARD, days=9)),
    ]
    files, size_bytes = sum(each.files for each in shares) + 3, sum(each.size_bytes for each in shares) + 30
    assert restores.planned("j", 1, shares=shares, results=unplaced, now=NOW) == shares
    after = job(
        planned_chunks=1,
        files=files,
        size_bytes=size_bytes,
        shares=2,
        ended={Ending.NOT_FOUND: 1, Ending.REFUSED: 2},
    )
    assert restores.job("j") == after
    again = restores.planned("j", 1, shares=[share(9)], results=[], now=NOW)
    assert again == shares, "what is wanted of an archive may be another's when the message comes again"
    assert restores.job("j") == after
    assert list(restores.results("j")) == unplaced
    assert restores.planned("j", 2, shares=[], results=[], now=NOW) == []
    assert counted(restores) == replace(after, planned_chunks=2)
    assert list(restores.results("j")) == unplaced


def test_nothing_is_counted_to_a_job_that_is_not_there(restores: Restores) -> None:
    with pytest.raises(NeveError):
        restores.planned("j", 1, shares=[share()], results=[], now=NOW)
    assert restores.job("j") is None
    restores.open(job())
    assert restores.planned("j", 1, shares=[share()], results=[], now=NOW), "the chunk was not taken for counted"


def test_a_lease_keeps_others_away_until_it_ends(restores: Restores) -> None:
    restores.add([share()])
    first = leased(restores, share())
    assert first == share(lease_owner="me", leased_until=NOW + MINUTE, first_leased_at=NOW)
    assert restores.waiting(7) == [replace(first, items=())]
    assert restores.lease(share(), owner="other", now=NOW + MINUTE, until=NOW + 2 * MINUTE) is None
    again = leased(restores, share(), now=NOW + SECOND)
    assert again == replace(first, leased_until=NOW + SECOND + MINUTE)
    taken = leased(restores, share(), "other", NOW + 2 * MINUTE)
    assert taken == replace(first, lease_owner="other", leased_until=NOW + 3 * MINUTE), "it was begun by the first"


def test_what_does_not_wait_is_not_leased(restores: Restores) -> None:
    assert restores.lease(share(), owner="me", now=NOW, until=NOW) is None
    assert restores.waiting(7) == []


def test_only_its_owner_ends_a_lease(restores: Restores) -> None:
    restores.add([share()])
    leased(restores, share())
    restores.release(share(), owner="other")
    assert restores.lease(share(), owner="other", now=NOW, until=NOW) is None
    restores.release(share(), owner="me")
    restores.release(share(), owner="me")
    restores.release(share(8), owner="me")
    assert restores.waiting(7) == [replace(bare(share()), first_leased_at=NOW)]
    assert restores.waiting(8) == []
    assert leased(restores, share(), "other")


def test_a_share_ends_once_with_its_counters_and_results(restores: Restores) -> None:
    restores.open(job())
    restores.add([share(7), share(8)])
    restores.planned("j", 1, shares=[share(7), share(8)], results=[], now=NOW)
    results = [
        Result(item=item("a", size_bytes=3), ending=Ending.RESTORED),
        Result(item=item("b", size_bytes=5), ending=Ending.SKIPPED, detail="identical"),
        Result(item=item("c", size_bytes=7), ending=Ending.RESTORED),
    ]
    taken = leased(restores, share(7))
    assert restores.finish(taken, results, owner="me", now=NOW)
    after = counted(restores)
    assert (after.ended_shares, after.restored_bytes) == (1, 10)
    assert after.ended == {Ending.RESTORED: 2, Ending.SKIPPED: 1}
    assert list(restores.results("j")) == results
    assert not restores.finish(taken, results, owner="me", now=NOW)
    assert counted(restores) == after
    assert restores.waiting(7) == []
    assert [each.archive for each in restores.waiting_of("j")] == [8]


def test_only_who_holds_the_lease_ends_a_share(restores: Restores) -> None:
    restores.open(job())
    restores.add([share()])
    assert not restores.finish(share(), ended(share().items), owner="me", now=NOW), "nobody has leased it"
    mine = leased(restores, share())
    later = NOW + 2 * MINUTE
    theirs = leased(restores, share(), "other", later)
    assert not restores.finish(mine, ended(share().items), owner="me", now=later)
    assert counted(restores) == job()
    assert list(restores.results("j")) == []
    assert restores.finish(theirs, ended(share().items, Ending.SKIPPED), owner="other", now=later)
    assert counted(restores).ended == {Ending.SKIPPED: 2}


def test_a_lease_that_ran_out_and_that_nobody_took_over_still_counts(restores: Restores) -> None:
    restores.open(job())
    restores.add([share()])
    mine = leased(restores, share())
    assert restores.finish(mine, ended(share().items), owner="me", now=NOW + timedelta(hours=1))


def test_what_is_released_is_not_ended(restores: Restores) -> None:
    restores.open(job())
    restores.add([share()])
    mine = leased(restores, share())
    restores.release(mine, owner="me")
    assert not restores.finish(mine, ended(share().items), owner="me", now=NOW)
    assert counted(restores) == job()


def test_of_those_who_end_a_share_at_once_one_does(aws: Ports) -> None:
    """A message that is delivered twice at once has one owner."""
    aws.restores.open(job())
    aws.restores.add([share()])
    mine = leased(aws.restores, share())
    with ThreadPoolExecutor(4) as pool:
        ends = pool.map(lambda _: aws.restores.finish(mine, ended(mine.items), owner="me", now=NOW), range(4))
        assert sorted(ends) == [False, False, False, True]
    assert counted(aws.restores).ended_shares == 1


def test_a_share_that_ends_before_its_chunk_is_counted_adds_up(restores: Restores) -> None:
    restores.open(job(chunks=1))
    restores.add([share()])
    restores.finish(leased(restores, share()), ended(share().items), owner="me", now=NOW)
    assert not counted(restores).complete
    restores.planned("j", 1, shares=[share()], results=[], now=NOW)
    after = counted(restores)
    assert after.complete
    assert (after.files, after.ended_files, after.shares, after.ended_shares) == (2, 2, 1, 1)


def test_a_share_of_a_job_that_is_not_there_does_not_end(restores: Restores) -> None:
    restores.add([share()])
    with pytest.raises(NeveError):
        restores.finish(leased(restores, share()), ended(share().items), owner="me", now=NOW)
    assert len(restores.waiting(7)) == 1
    assert list(restores.results("j")) == []


def test_results_come_back_whatever_their_keys_and_with_details_cut(restores: Restores) -> None:
    restores.open(job())
    items = tuple(item(key) for key in BAD_KEYS)
    results = [
        Result(item=each, ending=ending, detail=f"about {each.key[:80]}")
        for each, ending in zip(items, 6 * list(Ending), strict=False)
    ]
    results.append(Result(item=item(), ending=Ending.CONFLICT, detail="d" * 300))
    restores.planned("j", 1, shares=[], results=results, now=NOW)
    kept = list(restores.results("j"))
    assert kept == [*results[:-1], replace(results[-1], detail="d" * DETAIL_CHARACTERS)]
    assert counted(restores).ended_files == len(results)


def test_a_job_is_cancelled_once_and_while_it_runs(restores: Restores) -> None:
    assert not restores.cancel("j", NOW)
    restores.open(job())
    assert restores.cancel("j", NOW)
    assert not restores.cancel("j", NOW + SECOND)
    assert restores.job("j") == job(cancelled_at=NOW)
    restores.open(job("other"))
    restores.end("other", NOW)
    assert not restores.cancel("other", NOW)
    assert counted(restores, "other").cancelled_at is None


def test_a_job_that_was_given_up_takes_no_more_chunks(restores: Restores) -> None:
    restores.open(job(chunks=5))
    restores.planned("j", 1, shares=[share()], results=[], now=NOW)
    restores.give_up("j", NOW)
    restores.give_up("j", NOW + SECOND)
    assert counted(restores).given_up_at == NOW
    assert counted(restores).missing_chunks == 4
    assert restores.planned("j", 2, shares=[share(8)], results=[], now=NOW) is None
    assert counted(restores).planned_chunks == 1
    assert restores.planned("j", 1, shares=[share(9)], results=[], now=NOW) == [share()], "it was counted before"


def test_a_job_ends_once(restores: Restores) -> None:
    assert not restores.end("j", NOW)
    restores.open(job())
    assert restores.end("j", NOW)
    assert not restores.end("j", NOW + SECOND)
    assert restores.job("j") == job(state=JobState.FINISHED, finished_at=NOW)
    restores.give_up("j", NOW)
    assert counted(restores).given_up_at is None


def test_the_sweep_looks_at_a_job_until_its_end_is_announced(restores: Restores, thaws: Thaws) -> None:
    thaws.swap(None, thaw(due_at=NOW - MINUTE))
    restores.open(job())
    assert list(restores.due(NOW + 15 * MINUTE)) == []
    assert list(restores.due(NOW + 16 * MINUTE)) == [job()]
    restores.announced("j")
    assert list(restores.due(NOW + 16 * MINUTE)) == [job()], "it runs"
    restores.end("j", NOW + 16 * MINUTE)
    assert list(restores.due(NOW + 31 * MINUTE)) == []
    assert list(restores.due(NOW + 32 * MINUTE)) == [counted(restores)]
    restores.announced("j")
    assert list(restores.due(NOW + timedelta(days=99))) == []
    restores.postpone("j", NOW)
    assert list(restores.due(NOW + timedelta(days=99))) == []
    restores.announced("none")
    restores.postpone("none", NOW)
    assert restores.job("none") is None


def test_the_sweep_looks_at_a_postponed_job_at_that_time(restores: Restores) -> None:
    restores.open(job())
    restores.postpone("j", NOW + timedelta(hours=1))
    assert list(restores.due(NOW + 59 * MINUTE)) == []
    assert list(restores.due(NOW + 61 * MINUTE)) == [job()]


def test_what_another_has_dealt_with_since_is_not_due_any_more(restores: Restores, thaws: Thaws) -> None:
    for archive in (1, 2):
        thaws.swap(None, thaw(archive=archive))
    late = thaws.due(NOW + timedelta(days=1))
    other = {1: 2, 2: 1}[next(late).archive]
    seen = thaws.get(other)
    assert seen is not None
    thaws.swap(seen, replace(seen, due_at=NOW + timedelta(days=2)))
    assert list(late) == []
    for job_id in "ab":
        restores.open(job(job_id))
    overdue = restores.due(NOW + timedelta(days=1))
    restores.postpone({"a": "b", "b": "a"}[next(overdue).id], NOW + timedelta(days=2))
    assert list(overdue) == []


def test_what_decides_is_read_consistently(aws: Ports) -> None:
    asked: list[tuple[str, bool]] = []

    def ask(*, params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name in ("GetItem", "Query") and "IndexName" not in params:
            asked.append((model.name, params.get("ConsistentRead", False)))

    events = clients.dynamodb().meta.events
    events.register("before-parameter-build.dynamodb", ask)
    try:
        aws.thaws.get(7)
        aws.thaws.spent_micro_usd(NOW)
        aws.restores.job("j")
        aws.restores.waiting(7)
        for read in (aws.restores.jobs(), aws.restores.waiting_of("j"), aws.restores.results("j")):
            assert list(read) == []
    finally:
        events.unregister("before-parameter-build.dynamodb", ask)
    assert asked == 3 * [("GetItem", True)] + 5 * [("Query", True)]


# The limits of DynamoDB

ALPHABET = string.ascii_letters + string.digits + string.punctuation


def incompressible() -> tuple[Item, ...]:
    """The items of the largest chunk, of characters that nothing compresses."""
    draw = random.Random(1)
    length = (CHUNK_BYTES // CHUNK_ITEMS - 52) // 2

    def text(size: int) -> str:
        return "".join(draw.choices(ALPHABET.replace('"', "").replace("\\", ""), k=size))

    wanted = [Wanted(key=text(length), pin=text(32), destination=f"s3://{text(length)}") for _ in range(CHUNK_ITEMS)]
    assert len(list(chunks(wanted))) == 1
    assert sum(len(json.dumps([each.key, each.pin, each.destination])) for each in wanted) > 0.95 * CHUNK_BYTES
    return tuple(
        Item(
            key=each.key,
            pin=each.pin,
            number=draw.randrange(10**6),
            size_bytes=draw.randrange(5 * 10**13),
            destination=each.destination,
        )
        for each in wanted
    )


def test_the_largest_chunk_fits_whatever_its_keys_and_details(aws: Ports) -> None:
    """An item of DynamoDB holds 400 KB, which moto holds it against; a page of a query 1 MB."""
    items = incompressible()
    draw = random.Random(2)
    endings = list(Ending)
    results = [
        Result(
            item=each,
            ending=draw.choice(endings),
            detail="".join(chr(draw.randrange(0x10000, 0x110000)) for _ in range(2 * DETAIL_CHARACTERS)),
        )
        for each in items
    ]
    aws.restores.open(job())
    aws.restores.planned("j", 1, shares=[share(items=items)], results=[], now=NOW)
    aws.restores.planned("j", 2, shares=[], results=results, now=NOW)
    shares = [share(items=items, chunk=chunk) for chunk in range(1, 5)]
    aws.restores.add(shares)
    assert aws.restores.waiting(7) == [bare(each) for each in shares]
    for each in shares:
        taken = leased(aws.restores, each)
        assert taken.items == items
        assert aws.restores.finish(taken, results, owner="me", now=NOW)
    kept = list(aws.restores.results("j"))
    assert [(each.item, each.ending) for each in kept] == 5 * [(each.item, each.ending) for each in results]
    assert all(
        result.detail.startswith(each.detail) and each.detail for each, result in zip(kept, results, strict=False)
    )
    rows = clients.dynamodb().scan(TableName=RESTORES)["Items"]
    packed = [len(row[name]["B"]) for row in rows for name in ("packed", "shares") if name in row]
    assert 340_000 < max(packed) < 380_000


def test_what_may_be_forgotten_expires_and_nothing_else(aws: Ports) -> None:
    aws.restores.open(job())
    aws.restores.add([share(7), share(8)])
    aws.restores.planned("j", 1, shares=[share(7), share(8)], results=[], now=NOW)
    aws.restores.finish(leased(aws.restores, share()), ended(share().items), owner="me", now=NOW)
    claim(aws.thaws, price=1, cap=0, archive=1)
    aws.thaws.swap(None, replace(WARM, archive=2))
    aws.thaws.swap(None, replace(WARM, archive=3, due_at=None))
    rows = clients.dynamodb().scan(TableName=RESTORES)["Items"]
    expiring = {
        (row["pk"]["S"], row["sk"]["S"]): datetime.fromtimestamp(int(row["expires_at"]["N"]), UTC)
        for row in rows
        if "expires_at" in row
    }
    assert WARM.warm_until is not None
    assert expiring == {
        ("job#j", "chunk#000001"): (NOW + KEEP).replace(microsecond=0),
        ("job#j", "done#000001#0000000007#s3"): (NOW + KEEP).replace(microsecond=0),
        ("spend", "2026-09-01"): (NOW + KEEP).replace(microsecond=0),
        ("archive#0000000003", "thaw"): (WARM.warm_until + timedelta(days=7)).replace(microsecond=0),
    }
    assert {(row["pk"]["S"], row["sk"]["S"]) for row in rows} - set(expiring) == {
        ("jobs", "j"),
        ("archive#0000000008", "wait#s3#j#000001#0000000008#s3"),
        ("job#j", "wait#000001#0000000008#s3"),
        ("archive#0000000001", "thaw"),
        ("archive#0000000002", "thaw"),
    }


# What DynamoDB answers when others are at the same rows


@pytest.fixture
def answers(aws: Ports, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """DynamoDB's answers, as the test gives them; pauses between tries take no time."""
    monkeypatch.setattr("neve.aws.rows.time.sleep", lambda _: None)
    with Stubber(clients.dynamodb()) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def cancelled(answers: Stubber, *reasons: str) -> None:
    answers.add_client_error(
        "transact_write_items",
        "TransactionCanceledException",
        http_status_code=400,
        modeled_fields={"CancellationReasons": [{"Code": reason} for reason in reasons]},
    )


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_transaction_that_gave_way_is_tried_again(aws: Ports, answers: Stubber, reason: str) -> None:
    cancelled(answers, reason, "None")
    cancelled(answers, "None", reason)
    answers.add_response("transact_write_items", {})
    assert claim(aws.thaws, price=1, cap=0) == thaw(revision=1)


def test_a_conflict_decides_nothing_whatever_else_was_refused(aws: Ports, answers: Stubber) -> None:
    """The other may just be claiming the thaw: over the cap or not, it would serve both."""
    cancelled(answers, "TransactionConflict", "ConditionalCheckFailed")
    cancelled(answers, "ConditionalCheckFailed", "ConditionalCheckFailed")
    assert claim(aws.thaws, price=1, cap=1) is None


def test_a_transaction_that_keeps_giving_way_is_for_later(aws: Ports, answers: Stubber) -> None:
    for _ in range(TRIES):
        cancelled(answers, "None", "None", "None", "TransactionConflict")
    with pytest.raises(Transient):
        aws.restores.finish(share(), [], owner="me", now=NOW)


def test_a_single_write_gives_way_to_a_transaction_too(aws: Ports, answers: Stubber) -> None:
    for code in ("TransactionConflictException", "TransactionInProgressException"):
        answers.add_client_error("put_item", code, http_status_code=400)
    answers.add_response("put_item", {})
    assert aws.thaws.swap(None, thaw()) == thaw(revision=1)
    for _ in range(TRIES):
        answers.add_client_error("update_item", "TransactionConflictException", http_status_code=400)
    with pytest.raises(Transient):
        aws.restores.lease(share(), owner="me", now=NOW, until=NOW)


def test_what_is_wrong_with_a_transaction_itself_comes_out(aws: Ports, answers: Stubber) -> None:
    cancelled(answers, "ValidationError", "None")
    with pytest.raises(ClientError):
        claim(aws.thaws, price=1, cap=0)


@pytest.mark.parametrize(("status", "code"), [(400, "ThrottlingException"), (500, "InternalServerError")])
def test_what_passes_by_itself_is_for_later(aws: Ports, answers: Stubber, status: int, code: str) -> None:
    for operation in ("transact_write_items", "put_item", "get_item", "query"):
        answers.add_client_error(operation, code, http_status_code=status)
    with pytest.raises(Transient):
        claim(aws.thaws, price=1, cap=0)
    with pytest.raises(Transient):
        aws.restores.open(job())
    with pytest.raises(Transient):
        aws.restores.job("j")
    with pytest.raises(Transient):
        aws.restores.waiting(7)


# The index of archived versions, looked up by name


def row(key: str, pin: str = "v1", **changed: Any) -> FileRow:
    made = FileRow(
        key=key,
        version_id="null" if pin.startswith("null-") else pin,
        pin=pin,
        size_bytes=3,
        sha256="ab" * 32,
        md5="cd" * 16,
        last_modified=NOW.replace(microsecond=0),
        archive=1,
        number=2,
        offset_bytes=512,
    )
    return replace(made, **changed)


def test_rows_are_found_by_their_identities(ports: Ports) -> None:
    rows = [row(key, pin) for key in BAD_KEYS for pin in ("v1", "null-e")]
    ports.files.record(rows)
    wanted = [(each.key, each.pin) for each in rows]
    assert ports.files.get(wanted[::2]) == {(each.key, each.pin): each for each in rows[::2]}
    assert ports.files.get([*wanted, *wanted]) == {(each.key, each.pin): each for each in rows}, "asked for twice"
    assert ports.files.get([]) == {}


def test_what_no_row_can_be_named_is_missing_like_others(ports: Ports) -> None:
    ports.files.record([row("a")])
    impossible = [("a", "v" * 2_000), ("k" * 1_024, "v" * 300), ("a", "v1\0"), ("a", ""), ("b", "v1")]
    assert ports.files.get([*impossible, ("a", "v1")]) == {("a", "v1"): row("a")}


def test_the_versions_of_a_key_are_its_own(ports: Ports) -> None:
    versions = [row("a", pin, archive=archive) for archive, pin in enumerate(("A", "a", "null-e", "z"))]
    ports.files.record([*reversed(versions), row("a/b"), row("A"), row("a\0b")])
    assert ports.files.versions("a") == versions
    assert ports.files.versions("b") == []


def test_an_archive_is_found_by_its_number(ports: Ports) -> None:
    made = ArchiveRow(
        serial=17,
        kind="tar",
        bundle="b",
        object_key="archives/0000000017.tar",
        object_version_id="v",
        storage_class="GLACIER",
        size_bytes=10_000,
        sha256="0" * 64,
        source_bytes=5_000,
        files=3,
        duplicates=0,
        state=ArchiveState.WRITTEN,
        written_at=NOW,
    )
    assert ports.archives.get(17) is None
    ports.archives.put(made)
    assert ports.archives.get(17) == made
    assert ports.archives.get(1) is None

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from neve.domain.backfill import Backfill, BackfillState, Place, Split, StoredVersion, together
from neve.domain.bundle import Lane, Limits
from neve.domain.events import DRILL_PREFIX, parse
from neve.errors import EventInvalid, InventoryInvalid, Transient
from neve.flows import backfill
from neve.flows.backfill import FULL, LEASE, Advanced
from tests.bad_keys import BAD_KEYS
from tests.interleave import Steps, explored
from tests.memory import CONTENT, START, MemoryCloud
from tests.memory_backfill import ID, PLACE, BackfillWorld, MemoryVersionInventory, MemoryVersions, identities, stored
from tests.memory_reconcile import Deadly

SECOND = timedelta(seconds=1)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions make a batch."""
    monkeypatch.setattr(backfill, "BATCH", 3)


def filled(count: int = 10, *, inventory: bool = False, **made: Any) -> tuple[BackfillWorld, list[StoredVersion]]:
    """A world with so many keys, and two versions of every third."""
    world = BackfillWorld(**made)
    versions = [stored(f"k{number:02}", "v1") for number in range(count)]
    versions += [stored(f"k{number:02}", "v2") for number in range(0, count, 3)]
    world.add(*versions)
    world.inventory.files = [list(versions[number::4]) for number in range(4)]
    world.open(inventory=PLACE if inventory else "")
    return world, versions


def totals(world: BackfillWorld) -> tuple[int, int, int]:
    """How many versions were counted, how many frozen ones, and how many shards are done."""
    found = together(world.backfills.shards(ID))
    return found.counted.versions, found.counted.frozen, found.done


# What is announced


@pytest.mark.parametrize("inventory", [False, True])
def test_every_version_is_announced_once_and_the_backfill_ends(inventory: bool) -> None:
    world, versions = filled(50, inventory=inventory)
    ended = world.run()
    assert (ended.state, ended.problem) == (BackfillState.FINISHED, "")
    assert sorted(world.announced()) == sorted(identities(versions))
    split = world.backfills.splits[ID]
    assert (split.files, split.manifest) == ((4, "reports/manifest.json") if inventory else (0, ""))
    assert len(split.boundaries) >= (0 if inventory else 20)
    assert totals(world)[0] == len(versions)


@pytest.mark.parametrize("inventory", [False, True])
def test_what_is_frozen_or_a_drills_or_deleted_or_elsewhere_is_not_announced(inventory: bool) -> None:
    world = BackfillWorld()
    wanted = [stored("a/"), stored("a/b", version_id="null"), stored("a/b", version_id="v0")]
    frozen = [stored("a/c", storage_class="GLACIER"), stored("a/d", storage_class="DEEP_ARCHIVE", size_bytes=7)]
    others = [stored("a"), stored("b"), stored(f"{DRILL_PREFIX}a/")]
    world.add(*wanted, *frozen, *others)
    world.hide("a/hidden", "m")
    world.inventory.files = [[*wanted, None], [*frozen, *others]]
    world.open(prefix="a/", inventory=PLACE if inventory else "")
    assert world.run().state is BackfillState.FINISHED
    assert sorted(world.announced()) == sorted(identities(wanted))
    counted = together(world.backfills.shards(ID)).counted
    assert (counted.versions, counted.size_bytes, counted.frozen, counted.frozen_bytes) == (3, 300, 2, 107)


def test_the_patience_with_a_version_counts_from_when_it_is_announced_however_old_it_is() -> None:
    """WriteArchive parks what S3 has failed to hand out for a day, and collects younger versions again."""
    world, _ = filled(3)
    world.listing.listed = [
        (place, replace(each, version=replace(each.version, event_at=START - timedelta(days=900))))
        for place, each in world.listing.listed
        if each is not None
    ]
    world.run()
    announced = [version for body in world.sent for version in parse(body, CONTENT).versions]
    assert announced
    assert all(version.event_at > START for version in announced)


def test_drills_are_left_out_of_a_whole_bucket() -> None:
    world = BackfillWorld()
    world.add(stored("a"), stored(f"{DRILL_PREFIX}a"))
    world.open()
    world.run()
    assert world.announced() == identities([stored("a")])


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("page", [1, 2, 1000])
def test_bad_keys_and_keys_with_many_versions_come_whole_across_batches_pages_and_shards(page: int) -> None:
    world = BackfillWorld(listing=MemoryVersions(page=page), lasts=3 * SECOND)
    versions = [stored(key) for key in [*BAD_KEYS, "\U0010ffff", "a\U0010ffffb", "\ue000", "\ud7ff"]]
    versions += [stored("many", f"v{number:02}") for number in range(20)]
    world.add(*versions)
    for key in ("a b", "gone", "zzz"):
        world.hide(key, "m")
    world.open()
    assert world.run().state is BackfillState.FINISHED
    assert sorted(world.announced()) == sorted(identities(versions))


@pytest.mark.parametrize("inventory", [False, True])
def test_nothing_there_is_a_backfill_that_ends(inventory: bool) -> None:
    world = BackfillWorld()
    world.open(inventory=PLACE if inventory else "")
    assert world.run().state is BackfillState.FINISHED
    assert world.announced() == []


def test_a_dry_run_counts_what_would_be_announced_and_sends_nothing() -> None:
    world, versions = filled(50)
    world.backfills.rows[ID] = replace(world.backfills.rows[ID], dry_run=True, rate=1)
    world.add(stored("k00", "v0", size_bytes=9, storage_class="GLACIER"))
    world.queue.more = FULL + 1
    assert world.run().state is BackfillState.FINISHED
    assert world.announced() == []
    assert totals(world)[:2] == (len(versions), 1)
    assert together(world.backfills.shards(ID)).counted.sizes.counts == ((100, len(versions)),)


def test_a_dry_run_keeps_no_list_of_what_it_reads() -> None:
    one = stored("k")

    def very_many(*_: str) -> Iterator[tuple[Place, StoredVersion]]:
        return ((Place(key="k", version_id=str(number)), one) for number in range(30_000))

    world = BackfillWorld(tick=timedelta(0))
    world.listing.stored = very_many  # type: ignore[method-assign, assignment]
    world.open(dry_run=True)
    world.backfiller.plan(ID)
    tracemalloc.start()
    advanced = world.advance(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (advanced.done, advanced.counted.versions, world.backfills.shard(ID, 0).revision) == (True, 30_000, 2)
    assert peak < 200_000


def test_many_versions_are_recorded_a_batch_at_a_time() -> None:
    world = BackfillWorld(tick=timedelta(0))
    world.add(*(stored(f"k{number:04}") for number in range(2_500)))
    world.open()
    world.backfills.freeze(ID, Split())
    advanced = world.advance(0)
    assert (advanced.done, advanced.announced, advanced.messages) == (True, 2_500, 3)
    assert world.backfills.shard(ID, 0).revision == 1 + 3, "the lease, and each batch"


def test_a_long_stretch_without_versions_is_got_over_in_steps() -> None:
    """Each page takes a second here, and a call three minutes."""
    world = BackfillWorld(listing=MemoryVersions(page=1), tick=SECOND, lasts=180 * SECOND)
    for number in range(600):
        world.hide(f"k{number:03}", "m")
    world.add(stored("z"))
    world.open()
    world.backfills.freeze(ID, Split())
    assert world.run().state is BackfillState.FINISHED
    assert len(world.calls) > 3
    assert world.announced() == identities([stored("z")])


# Splitting


def test_few_versions_are_one_shard_however_their_keys_differ() -> None:
    world = BackfillWorld(few=20)
    world.add(*(stored(f"{number}") for number in range(10, 29)))
    world.open()
    assert world.backfiller.plan(ID).shards == (0,)
    assert world.listing.asked == 0


def test_a_bucket_of_delete_markers_is_not_looked_through_to_find_out_that_it_is_small() -> None:
    world = BackfillWorld(few=3_000, listing=MemoryVersions(page=1))
    world.listing.listed = [(Place(key=f"{number}"), None) for number in range(10, 99)]
    world.open()
    assert len(world.backfiller.plan(ID).shards) > 1


def test_a_backfill_is_split_once() -> None:
    world, _ = filled(50)
    first = world.backfiller.plan(ID)
    asked = world.listing.asked
    world.add(*(stored(f"later{number}") for number in range(50)))
    world.advance(0)
    assert world.backfiller.plan(ID).shards == first.shards[1:]
    assert world.listing.asked == asked


def test_of_two_that_split_at_once_both_work_on_the_first_ones_shards() -> None:
    def live(steps: Steps) -> None:
        world, versions = filled(6)
        real = world.backfills
        world.backfills = steps.watch(real)
        planned: list[tuple[int, ...]] = []

        def plan() -> None:
            planned.append(world.backfiller.plan(ID).shards)

        def upload_and_plan() -> None:
            world.add(stored("z"), stored("y"))
            plan()

        steps.run([plan, upload_and_plan])
        assert planned[0] == planned[1]
        world.backfills = real
        world.run()
        assert set(world.announced()) >= set(identities(versions))

    assert explored(live, preemptions=2) > 2


def test_keys_that_come_and_go_meanwhile_hide_no_others(small_batches: None) -> None:
    world, versions = filled(20, lasts=3 * SECOND)
    fresh = iter([stored(f"k{number:02}-new") for number in range(40)])

    def change() -> None:
        world.add(next(fresh))
        keep = {row.place for row in world.backfills.shards(ID)}
        gone = next((each for each in world.listing.listed if each[0] not in keep and each[0].key == "k13"), None)
        if gone:
            world.listing.listed.remove(gone)

    world.between = change
    world.run()
    left = [each for each in versions if each.version.key != "k13"]
    assert set(world.announced()) >= set(identities(left))


# The inventory


def test_an_inventory_that_cannot_be_used_stops_the_backfill_and_says_why() -> None:
    world, versions = filled(inventory=True)
    world.inventory.refused = "there is no complete report"
    stopped = world.run()
    assert (stopped.state, stopped.problem) == (BackfillState.STOPPED, "there is no complete report")
    assert world.backfiller.plan(ID).shards == ()
    world.inventory.refused = ""
    assert world.backfills.resume(ID, world.clock()) is not None
    ended = world.run()
    assert (ended.state, ended.problem, ended.attempt) == (BackfillState.FINISHED, "", 2)
    assert sorted(world.announced()) == sorted(identities(versions))


def test_files_of_an_inventory_that_cannot_be_read_hold_back_no_others_and_are_read_when_resumed() -> None:
    world, versions = filled(inventory=True)
    world.inventory.broken = {1, 3}
    stopped = world.run()
    assert (stopped.state, stopped.problem) == (
        BackfillState.STOPPED,
        "shard 1: file 1 ends too early (and 1 more shards)",
    )
    assert totals(world)[2] == 2
    world.inventory.broken = set()
    world.backfills.resume(ID, world.clock())
    ended = world.run()
    assert (ended.state, ended.problem) == (BackfillState.FINISHED, "")
    assert set(world.announced()) == set(identities(versions))
    assert not together(world.backfills.shards(ID)).problems


def test_several_files_in_one_shard_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    monkeypatch.setattr("neve.domain.backfill.MOST_SHARDS", 2)
    for tenths in range(5, 40, 3):
        world, versions = filled(20, inventory=True, lasts=tenths * SECOND / 10, tick=SECOND / 10)
        assert world.run().state is BackfillState.FINISHED
        assert {number for _, number in world.backfills.parts} == {0, 1}
        assert len(world.calls) > 2
        assert sorted(world.announced()) == sorted(identities(versions))


def test_a_place_that_may_not_be_read_is_a_problem_like_others() -> None:
    world, _ = filled(inventory=True)

    def refuse(_: str) -> MemoryVersionInventory:
        raise InventoryInvalid("may not be read")

    assert replace(world.backfiller, inventories=refuse).plan(ID).state is BackfillState.STOPPED
    assert world.backfills.rows[ID].problem == "may not be read"


# Death


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("inventory", [False, True])
def test_who_dies_anywhere_leaves_nothing_out_and_doubles_a_batch_at_the_most(inventory: bool) -> None:
    world, versions = filled(6, inventory=inventory)
    world.backfills.freeze(ID, Split(boundaries=("k02",)) if not inventory else Split(manifest="m", files=4))
    world.run()
    calls = world.deadly.calls
    assert calls > 30
    doubled = 0
    for at in range(2, 2 * calls + 2):
        world, versions = filled(6, inventory=inventory, deadly=Deadly(at={at}))
        if inventory:
            world.backfills.freeze(ID, Split(manifest="m", files=4))
        assert world.run().state is BackfillState.FINISHED
        announced = Counter(world.announced())
        assert set(announced) == set(identities(versions)), at
        assert announced.total() <= len(versions) + 3
        assert totals(world)[0] == len(versions), "what was recorded was counted once"
        doubled += announced.total() > len(versions)
    assert doubled


@pytest.mark.usefixtures("small_batches")
def test_a_second_call_on_a_shard_whose_first_still_runs_leaves_nothing_out() -> None:
    """Step Functions takes the first for dead, or its lease has run out."""

    def live(steps: Steps) -> None:
        world, versions = filled(3)
        world.backfills.freeze(ID, Split())
        real = world.backfills
        world.backfills = steps.watch(world.backfills)
        world.queue.send = steps.watch(world.queue).send  # type: ignore[method-assign]
        late = replace(world, backfills=world.backfills, tick=LEASE)
        steps.run([lambda: late.advance(0, owner="a"), lambda: late.advance(0, owner="b")])  # type: ignore[list-item]
        world.backfills = real
        world.now += 10 * LEASE
        world.run()
        assert set(world.announced()) == set(identities(versions))
        assert totals(world)[0] == len(versions)

    assert explored(live, preemptions=1) > 5


def test_a_shard_is_left_to_whoever_has_its_lease_until_that_ends() -> None:
    world, versions = filled(3)
    world.backfills.freeze(ID, Split())
    row = world.backfills.shard(ID, 0)
    world.backfills.swap(row, replace(row, lease_owner="other", leased_until=world.now + LEASE))
    assert world.advance(0) == Advanced(wait_s=120)
    assert world.announced() == []
    world.now += LEASE
    assert world.advance(0).done
    assert sorted(world.announced()) == sorted(identities(versions))


def test_who_finds_another_at_the_shard_stops() -> None:
    world, _ = filled(3)
    world.backfills.freeze(ID, Split())
    swap, refusals = world.backfills.swap, iter([True, False, True])

    def refusing(seen: Any, to: Any) -> Any:
        return None if next(refusals) else swap(seen, to)

    world.backfills.swap = refusing  # type: ignore[method-assign]
    assert world.advance(0) == Advanced(wait_s=120)
    assert world.announced() == []
    world.now += LEASE
    assert world.advance(0) == Advanced(wait_s=120)
    assert world.announced(), "its batch was sent, and not recorded"


# Stopping and going on


@pytest.mark.usefixtures("small_batches")
def test_stopped_and_resumed_at_any_moment_it_leaves_nothing_out_and_doubles_nothing() -> None:
    for moment in range(1, 60):
        world, versions = filled(12)
        reserve, calls = world.backfills.reserve, iter(range(10_000))

        def stopping(*given: Any, at: int = moment, world: BackfillWorld = world, **named: Any) -> Any:
            if next(calls) == at:  # noqa: B023
                assert world.backfills.stop(ID, world.now)
            return reserve(*given, **named)  # noqa: B023

        world.backfills.reserve = stopping  # type: ignore[method-assign]
        ended = world.run()
        if ended.state is BackfillState.FINISHED:
            assert moment > 10
            break
        assert (ended.state, ended.problem) == (BackfillState.STOPPED, "")
        assert set(world.announced()) <= set(identities(versions))
        world.backfills.resume(ID, world.clock())
        assert world.run().state is BackfillState.FINISHED
        assert sorted(world.announced()) == sorted(identities(versions))


def test_a_shard_that_is_at_work_stops_at_its_next_batch_and_goes_on_from_there(small_batches: None) -> None:
    world = BackfillWorld()
    versions = [stored(f"k{number:02}") for number in range(12)]
    world.add(*versions)
    world.open()
    world.backfills.freeze(ID, Split(boundaries=("k00",)))
    send = world.queue.send

    def stopping(body: str, *, delay_s: int = 0) -> None:
        send(body)
        world.backfills.stop(ID, world.now)

    for first in (1, 4, 7, 10):
        world.queue.send = stopping  # type: ignore[method-assign]
        advanced = world.advance(1)
        assert (advanced.announced, advanced.done, advanced.stopped) == (min(3, 12 - first), first == 10, first < 10)
        assert world.announced() == identities(versions[1 : first + 3])
        assert not world.backfills.shard(ID, 1).lease_owner
        world.backfills.resume(ID, world.now)


def test_a_backfill_that_is_not_running_has_no_shards_left_and_its_calls_end() -> None:
    world, versions = filled()
    world.backfiller.plan(ID)
    world.backfills.stop(ID, world.now)
    assert world.backfiller.plan(ID).shards == ()
    assert world.advance(0) == Advanced(stopped=True)
    assert world.announced() == []
    world.backfills.resume(ID, world.now)
    world.run()
    assert world.advance(0) == Advanced(done=True)
    assert world.end().state is BackfillState.FINISHED
    assert sorted(world.announced()) == sorted(identities(versions))


def test_a_backfill_whose_shards_are_all_done_is_finished_even_if_it_was_stopped_at_the_last_moment() -> None:
    world, _ = filled(3)
    for number in world.backfiller.plan(ID).shards:
        world.advance(number)
    world.backfills.stop(ID, world.now)
    assert world.end().state is BackfillState.FINISHED


def test_it_is_not_finished_while_a_shard_is_not_done() -> None:
    world, _ = filled(9)
    assert world.end().state is BackfillState.RUNNING
    shards = world.backfiller.plan(ID).shards
    for number in shards[1:]:
        world.advance(number)
    assert world.end().state is BackfillState.RUNNING
    assert world.end(problem="the function timed out").state is BackfillState.STOPPED
    assert world.backfills.rows[ID].problem == "the function timed out"


def test_an_execution_that_another_was_started_after_ends_nothing() -> None:
    """It was still at work when the backfill was resumed: what it could not do says nothing of the new one."""
    world, _ = filled(3)
    world.backfiller.plan(ID)
    world.backfills.stop(ID, world.now)
    world.backfills.resume(ID, world.now)
    assert world.backfiller.end(ID, execution=f"{ID}-1", problem="of yesterday") is None
    this = world.backfills.get(ID)
    assert this is not None
    assert (this.state, this.attempt, this.problem) == (BackfillState.RUNNING, 2, "")


def test_what_there_is_not_is_refused() -> None:
    world, _ = filled()
    for ask in (
        lambda: world.backfiller.plan("other"),
        lambda: world.backfiller.end("other", execution="other-1"),
        lambda: world.advance(0),
        lambda: (world.backfiller.plan(ID), world.advance(10_000)),
    ):
        with pytest.raises(EventInvalid, match="there is no"):
            ask()


# What goes wrong


def failing(world: BackfillWorld, error: Exception, *, at: int) -> None:
    """Have the listing fail after so many versions, once."""
    listing = world.listing.stored
    errors = [error]

    def fail(*given: str) -> Iterator[tuple[Place, StoredVersion | None]]:
        for number, each in enumerate(listing(*given)):
            if number == at and errors:
                raise errors.pop()
            yield each

    world.listing.stored = fail  # type: ignore[method-assign, assignment]


def test_a_bucket_that_may_not_be_listed_stops_the_backfill_at_once_and_one_that_fails_for_now_is_tried_again() -> None:
    world, versions = filled()
    failing(world, Transient("SlowDown"), at=0)
    with pytest.raises(Transient):
        world.backfiller.plan(ID)
    failing(world, RuntimeError("AccessDenied"), at=0)
    with pytest.raises(RuntimeError):
        world.backfiller.plan(ID)
    assert world.backfiller.plan(ID).state is BackfillState.STOPPED, "at the next try"
    assert world.backfills.rows[ID].problem == "RuntimeError: AccessDenied"
    assert world.backfills.resume(ID, world.clock()) is not None
    assert world.run().state is BackfillState.FINISHED
    assert sorted(world.announced()) == sorted(identities(versions))


@pytest.mark.usefixtures("small_batches")
def test_a_passing_failure_after_some_progress_is_no_failure() -> None:
    world, versions = filled(12)
    world.backfills.freeze(ID, Split())
    failing(world, Transient("SlowDown"), at=7)
    first = world.advance(0)
    assert (first.done, first.stopped, first.counted.versions, first.wait_s) == (False, False, 6, 5)
    assert not world.backfills.shard(ID, 0).lease_owner
    assert world.advance(0).done
    assert sorted(world.announced()) == sorted(identities(versions))


@pytest.mark.parametrize("error", [Transient("SlowDown"), RuntimeError("no such thing")])
def test_a_failure_is_noted_on_the_shard_and_forgotten_when_it_is_over(error: Exception) -> None:
    world, _ = filled(3)
    world.backfills.freeze(ID, Split())
    failing(world, error, at=1)
    with pytest.raises(type(error)):
        world.advance(0)
    row = world.backfills.shard(ID, 0)
    assert str(error) in row.problem
    assert (row.lease_owner, row.leased_until) == ("", None)
    assert world.advance(0).done
    assert world.backfills.shard(ID, 0).problem == ""


def test_a_failure_that_cannot_be_noted_is_raised_all_the_same() -> None:
    world, _ = filled(3)
    world.backfills.freeze(ID, Split())
    failing(world, RuntimeError("no such thing"), at=1)
    swap = world.backfills.swap

    def fail(seen: Any, to: Any) -> Any:
        if to.problem:
            raise Transient("throttled")
        return swap(seen, to)

    world.backfills.swap = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        world.advance(0)
    assert world.backfills.shard(ID, 0).lease_owner


# Pace


@pytest.mark.parametrize(("rate", "children"), [(50, 3), (2, 3), (1, 1), (1000, 2)])
def test_all_shards_together_keep_to_the_rate(rate: int, children: int) -> None:
    world = BackfillWorld()
    world.add(*(stored(f"{number % 3}-{number:04}") for number in range(240)))
    world.open(rate=rate)
    world.backfills.freeze(ID, Split(boundaries=("1", "2")))
    begun = world.now
    sent: list[tuple[float, int]] = []
    send = world.queue.send

    def noting(body: str, *, delay_s: int = 0) -> None:
        sent.append(((world.now - begun).total_seconds(), len(parse(body, CONTENT).versions)))
        send(body)

    world.queue.send = noting  # type: ignore[method-assign]
    world.run()
    assert sum(count for _, count in sent) == 240
    so_far = 0
    for at, count in sent:
        assert so_far <= rate * at + 1e-6, "a batch begins when those before it have had their time"
        so_far += count
        assert count <= max(1, 10 * rate)
    assert sent[-1][0] < 240 / rate + 60, "and the time is used"


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    world = BackfillWorld()
    world.add(*(stored(f"k{number:04}") for number in range(100)))
    world.open(rate=10)
    world.backfills.freeze(ID, Split())
    world.now += timedelta(hours=1)
    world.run()
    assert world.now - START > timedelta(hours=1) - timedelta(seconds=100)
    assert world.backfills.next_at[ID] > START + timedelta(hours=1, seconds=9)


def test_a_wait_that_is_long_is_left_to_the_caller() -> None:
    world, _ = filled(9)
    world.backfills.rows[ID] = replace(world.backfills.rows[ID], rate=10)
    world.backfills.freeze(ID, Split())
    world.backfills.next_at[ID] = world.now + timedelta(minutes=2)
    asked = world.now
    advanced = world.advance(0)
    assert not advanced.done
    assert 115 <= advanced.wait_s <= 120
    assert world.now - asked < SECOND
    assert not world.backfills.shard(ID, 0).lease_owner
    assert world.announced() == []


def test_nothing_is_added_to_queues_that_are_full() -> None:
    world, versions = filled(9)
    world.backfills.freeze(ID, Split())
    world.bundles_queue.more = FULL + 1
    asked = world.now
    advanced = world.advance(0)
    assert (advanced.done, advanced.wait_s) == (False, 60)
    assert world.now - asked < 30 * SECOND
    assert world.announced() == []
    world.bundles_queue.more = FULL
    assert world.advance(0).done
    assert sorted(world.announced()) == sorted(identities(versions))


def test_a_queue_that_empties_soon_is_waited_for() -> None:
    world, _ = filled(9)
    world.backfills.freeze(ID, Split())
    world.queue.more = FULL + 1
    sleep = world.sleep

    def emptying(seconds: float) -> None:
        sleep(seconds)
        world.queue.more = 0

    world.sleep = emptying  # type: ignore[method-assign]
    assert world.advance(0).done


# With what comes after


@pytest.mark.usefixtures("small_batches")
def test_whoever_dies_every_version_gets_one_row_and_one_archive_unless_a_batch_came_twice() -> None:
    """Also large ones, and those that are archived already."""

    def live(at: int) -> int:
        cloud = MemoryCloud(limits=Limits(target_bytes=350, max_members=10, max_age_s=20))
        versions = [cloud.version(f"k{number}") for number in range(8)] + [cloud.version("large", 500)]
        cloud.collect(versions[:2])
        cloud.drain()
        world = BackfillWorld(deadly=Deadly(at={at}))
        world.add(*(StoredVersion(version=replace(each, sequencer=""), storage_class="STANDARD") for each in versions))
        world.open()
        world.backfills.freeze(ID, Split(boundaries=("k4",)))
        assert world.run().state is BackfillState.FINISHED
        for body in world.sent:
            cloud.collect(parse(body, CONTENT).versions, Lane.BACKFILL)
        cloud.drain()
        cloud.verify(versions)
        members = Counter(
            member.source.identity for manifest in cloud.store.manifests.values() for member in manifest.members
        )
        doubled = Counter(world.announced()).total() > len(versions)
        assert doubled or set(members.values()) == {1}
        return world.deadly.calls

    for at in range(2, 2 * live(0) + 2):
        live(at)


def test_a_backfill_that_was_asked_for_twice_is_one() -> None:
    world, _ = filled()
    assert world.open(prefix="other") == world.backfills.rows[ID] == Backfill(id=ID, begun_at=START)

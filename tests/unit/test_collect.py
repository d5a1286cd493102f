"""Collect on ports in memory: every version is noted, in bundles of the right size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Drawn
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from neve.domain.bundle import Bundle, BundleState, Lane, Limits, requested_bundle
from neve.domain.outcome import Outcome
from neve.domain.version import ObjectVersion
from neve.errors import SourceDenied, Transient
from neve.flows.collect import MAX_TRIES
from tests.memory import MemoryBundles, MemoryCloud, MemoryQueue

LIMITS = Limits(target_bytes=1_000, max_members=10, max_age_s=20)


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud(limits=LIMITS)


def bundles(cloud: MemoryCloud, state: BundleState) -> list[Bundle]:
    return [bundle for bundle in cloud.bundles.rows.values() if bundle.state is state]


def test_the_first_batch_opens_a_bundle_whose_timer_was_sent_before(cloud: MemoryCloud) -> None:
    class Refusing(MemoryBundles):
        def create(self, bundle: Bundle) -> bool:
            raise Transient("503")

    cloud.bundles = Refusing()
    with pytest.raises(Transient):
        cloud.collect([cloud.version("a")])
    [(body, delay_s)] = cloud.bundles_queue.sent
    assert requested_bundle(body)
    assert delay_s == LIMITS.max_age_s


def test_the_timer_counts_from_when_the_first_version_was_announced(cloud: MemoryCloud) -> None:
    cloud.collector().collect([cloud.version("a")], cloud.now, waited_s=6)

    assert [delay_s for _, delay_s in cloud.bundles_queue.sent] == [LIMITS.max_age_s - 6]


def test_a_part_is_written_before_the_counters_say_so(cloud: MemoryCloud) -> None:
    class Refusing(MemoryBundles):
        def grow(self, bundle_id: str, **_: Any) -> Bundle | None:
            assert self.parts(bundle_id), "what is counted is noted"
            raise Transient("503")

    cloud.bundles = Refusing()
    with pytest.raises(Transient):
        cloud.collect([cloud.version("a")])
    [open_bundle] = bundles(cloud, BundleState.OPEN)
    assert open_bundle.count == 0


def test_batches_share_the_open_bundle(cloud: MemoryCloud) -> None:
    for version in cloud.versions(3):
        cloud.collect([version])
    [bundle] = cloud.bundles.rows.values()
    assert (bundle.state, bundle.count, bundle.size_bytes) == (BundleState.OPEN, 3, 300)
    assert len(cloud.bundles_queue.sent) == 1, "one timer"


@pytest.mark.parametrize("sizes", [[400, 300, 300], [999, 1], [1] * 9 + [991]])
def test_a_bundle_that_becomes_full_is_sent_at_once(cloud: MemoryCloud, sizes: list[int]) -> None:
    collected = [cloud.collect([cloud.version(f"f{n}", size)]) for n, size in enumerate(sizes)]
    assert [each.full for each in collected] == [0] * (len(sizes) - 1) + [1]
    [bundle] = cloud.bundles.rows.values()
    timer, full = cloud.bundles_queue.sent
    assert timer[0] == full[0]
    assert (timer[1], full[1]) == (LIMITS.max_age_s, 0)
    cloud.collect([cloud.version("next")])
    assert len(cloud.bundles.rows) == 2
    assert cloud.bundles.rows[bundle.id].count == len(sizes), "what is full takes nothing more"


def test_the_member_count_fills_a_bundle_too(cloud: MemoryCloud) -> None:
    for version in cloud.versions(LIMITS.max_members, size_bytes=0):
        cloud.collect([version])
    assert len(cloud.bundles_queue.sent) == 2
    [bundle] = cloud.bundles.rows.values()
    assert bundle.count == LIMITS.max_members


def test_a_large_batch_seals_whole_bundles_and_opens_one_for_the_rest(cloud: MemoryCloud) -> None:
    versions = cloud.versions(25)
    assert cloud.collect(versions).full == 2
    assert [bundle.count for bundle in bundles(cloud, BundleState.SEALED)] == [10, 10]
    assert [bundle.count for bundle in bundles(cloud, BundleState.OPEN)] == [5]
    assert [delay_s for _, delay_s in cloud.bundles_queue.sent] == [0, 0, LIMITS.max_age_s]
    cloud.drain()
    cloud.verify(versions)


def test_exactly_the_target_shares_an_archive_and_one_byte_more_gets_its_own(cloud: MemoryCloud) -> None:
    versions = [cloud.version("target", 1_000), cloud.version("over", 1_001)]
    collected = cloud.collect(versions)
    assert (collected.versions, collected.large, collected.full) == (2, 1, 1)
    assert sorted((bundle.kind, bundle.size_bytes) for bundle in bundles(cloud, BundleState.SEALED)) == [
        ("object", 1_001),
        ("tar", 1_000),
    ]
    assert len(cloud.large_queue.sent) == 1
    cloud.drain()
    cloud.verify(versions)


def test_empty_objects_and_folders_are_members_like_others(cloud: MemoryCloud) -> None:
    versions = [cloud.version("empty", 0), cloud.version("folder/", 0), cloud.version("folder/file", 10)]
    cloud.collect(versions)
    cloud.drain()
    cloud.verify(versions)
    assert len(cloud.archives.rows) == 1


def test_the_same_event_a_hundred_times_is_one_member(cloud: MemoryCloud) -> None:
    versions = [cloud.version("a"), cloud.version("large", 2_000)]
    assert cloud.collect(versions * 50).versions == 2
    for _ in range(50):
        cloud.collect(versions)
    cloud.drain()
    cloud.verify(versions)
    assert sorted(row.files for row in cloud.archives.rows.values()) == [1, 1]
    assert not cloud.parking_lot.items


def test_versions_announced_in_reverse_order_are_all_archived(cloud: MemoryCloud) -> None:
    versions = [cloud.version("a", 100 + number, version_id=f"v{number}") for number in range(5)]
    for version in reversed(versions):
        cloud.collect([version])
    cloud.drain()
    cloud.verify(versions)


def test_nothing_announced_does_nothing(cloud: MemoryCloud) -> None:
    assert cloud.collect([]).versions == 0
    assert not cloud.bundles.rows
    assert not cloud.bundles_queue.sent


def test_a_timer_that_was_first_makes_collect_open_another_bundle(cloud: MemoryCloud) -> None:
    class Hasty(MemoryQueue):
        """Delivers the first timer before its bundle is created."""

        def send(self, body: str, *, delay_s: int = 0) -> None:
            super().send(body, delay_s=delay_s)
            if len(self.sent) == 1:
                assert cloud.write(requested_bundle(body)).outcome is Outcome.FINISHED_BEFORE

    cloud.bundles_queue = Hasty()
    cloud.collect([cloud.version("a")])
    first, second = cloud.bundles.rows.values()
    assert (first.state, first.count) == (BundleState.VOID, 0)
    assert (second.state, second.count) == (BundleState.OPEN, 1)
    assert cloud.bundles.lane(Lane.LIVE) == second.id


def test_the_loser_of_the_lane_voids_its_bundle_and_uses_the_winners(cloud: MemoryCloud) -> None:
    class Raced(MemoryBundles):
        """Another Collect moves the lane first, once."""

        raced = False

        def move_lane(self, lane: Lane, *, previous: str, to: str) -> bool:
            if not self.raced:
                self.raced = True
                cloud.collect([cloud.version("winner")])
            return super().move_lane(lane, previous=previous, to=to)

    cloud.bundles = Raced()
    cloud.collect([cloud.version("loser")])
    [lost] = bundles(cloud, BundleState.VOID)
    [won] = bundles(cloud, BundleState.OPEN)
    assert (lost.count, won.count) == (0, 2)


def test_references_that_a_bundle_refuses_are_taken_out_and_go_to_the_next(cloud: MemoryCloud) -> None:
    class Sealed(MemoryBundles):
        """A timer seals the bundle between part and counters, once."""

        sealed = ""

        def grow(self, bundle_id: str, **rest: Any) -> Bundle | None:
            if not self.sealed:
                self.sealed = bundle_id
                self.rows[bundle_id] = replace(self.rows[bundle_id], state=BundleState.SEALED)
            return super().grow(bundle_id, **rest)

    cloud.bundles = sealed = Sealed()
    versions = cloud.versions(2)
    cloud.collect(versions)
    assert not sealed.parts(sealed.sealed)
    assert sealed.parts(sealed.lane(Lane.LIVE)) == versions
    cloud.drain()
    cloud.verify(versions)


def test_without_room_after_many_tries_the_batch_goes_back_to_its_queue(cloud: MemoryCloud) -> None:
    class Refusing(MemoryBundles):
        tried = 0

        def grow(self, bundle_id: str, **_: Any) -> Bundle | None:
            self.tried += 1
            return None

    cloud.bundles = refusing = Refusing()
    with pytest.raises(Transient, match="no room"):
        cloud.collect(cloud.versions(1))
    assert refusing.tried == MAX_TRIES
    assert not refusing.parts(refusing.lane(Lane.LIVE)), "nothing that was refused is left behind"


def test_without_a_lane_after_many_tries_the_batch_goes_back_to_its_queue(cloud: MemoryCloud) -> None:
    class Refusing(MemoryBundles):
        def create(self, bundle: Bundle) -> bool:
            return False

    cloud.bundles = Refusing()
    with pytest.raises(Transient, match="could be opened"):
        cloud.collect(cloud.versions(1))


def test_a_lane_whose_bundle_has_expired_is_moved_on(cloud: MemoryCloud) -> None:
    cloud.collect([cloud.version("a")])
    cloud.drain()
    cloud.bundles.rows.clear()
    cloud.collect([cloud.version("b")])
    assert cloud.bundles.rows[cloud.bundles.lane(Lane.LIVE)].count == 1


def test_a_large_version_is_noted_before_its_message_is_sent(cloud: MemoryCloud) -> None:
    class Dead(MemoryQueue):
        def send(self, body: str, *, delay_s: int = 0) -> None:
            raise Transient("503")

    cloud.large_queue = Dead()
    version = cloud.version("film", 2_000)
    with pytest.raises(Transient):
        cloud.collect([version])
    cloud.large_queue = MemoryQueue()
    cloud.drain()
    cloud.verify([version])


def test_a_large_version_that_was_given_up_is_archived_when_it_is_announced_again(cloud: MemoryCloud) -> None:
    """`neve parked --retry` announces what was parked; its bundle has been void since."""
    version = cloud.version("film", 2_000)
    cloud.content.failures["film"] = SourceDenied("403")
    cloud.collect([version])
    cloud.drain()
    assert [item.version for item in cloud.parking_lot.items.values()] == [version]
    del cloud.content.failures["film"]
    for _ in range(3):
        cloud.collect([version])
    cloud.drain()
    cloud.verify([version])
    assert len(cloud.archives.rows) == 1


def test_the_sweep_reminds_of_what_is_overdue_and_of_nothing_else(cloud: MemoryCloud) -> None:
    cloud.collect([cloud.version("a"), cloud.version("film", 2_000)])
    cloud.bundles_queue.take()
    cloud.large_queue.take()
    cloud.now += timedelta(seconds=LIMITS.max_age_s)
    cloud.collect([])
    sweeper = cloud.sweeper
    assert sweeper.sweep(cloud.now) == 0
    assert sweeper.sweep(cloud.now + timedelta(seconds=301)) == 2
    assert len(cloud.bundles_queue.sent) == len(cloud.large_queue.sent) == 1
    cloud.drain()
    assert sweeper.sweep(cloud.now + timedelta(days=1)) == 0


def test_a_backfill_fills_a_bundle_of_its_own_and_uploads_keep_theirs(cloud: MemoryCloud) -> None:
    first, old, second, film = (cloud.version(key, size) for key, size in (("a", 1), ("b", 1), ("c", 1), ("d", 2_000)))
    cloud.collect([first])
    cloud.collect([old, film], Lane.BACKFILL)
    cloud.collect([second])
    noted = {lane: cloud.bundles.parts(cloud.bundles.lane(lane)) for lane in Lane}
    assert noted == {Lane.LIVE: [first, second], Lane.BACKFILL: [old]}
    sent = [len(queue.sent) for lane in Lane for queue in (cloud.bundles_queues[lane], cloud.large_queues[lane])]
    assert sent == [1, 0, 1, 1], "timers of both lanes, and the film's message in the backfill's"
    cloud.drain()
    cloud.verify([first, old, second, film])


def test_the_sweep_reminds_each_lane_of_its_own_and_the_backfill_an_hour_later(cloud: MemoryCloud) -> None:
    for number, lane in enumerate(Lane):
        cloud.collect([cloud.version(f"a{number}"), cloud.version(f"film{number}", 2_000)], lane)
        cloud.bundles_queues[lane].take()
        cloud.large_queues[lane].take()
    for after, expected in ((timedelta(minutes=6), [1, 1, 0, 0]), (timedelta(minutes=62), [2, 2, 1, 1])):
        cloud.sweeper.sweep(cloud.now + after)
        sent = [len(queue.sent) for lane in Lane for queue in (cloud.bundles_queues[lane], cloud.large_queues[lane])]
        assert sent == expected


def test_however_much_of_a_backfill_waits_the_sweep_comes_to_uploads_and_to_its_end(
    cloud: MemoryCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neve.flows.sweep.MOST_OF_A_BACKLOG", 3)
    cloud.collect([cloud.version(f"old{number}", 2_000) for number in range(7)], Lane.BACKFILL)
    cloud.collect([cloud.version("film", 2_000)])
    for lane in Lane:
        cloud.large_queues[lane].take()
    assert cloud.sweeper.sweep(cloud.now + timedelta(hours=2)) == 4
    assert [len(cloud.large_queues[lane].sent) for lane in Lane] == [1, 3]


def test_what_a_backfill_archives_says_nothing_of_how_far_behind_archiving_is(cloud: MemoryCloud) -> None:
    for lane, tells in ((Lane.LIVE, True), (Lane.BACKFILL, False)):
        cloud.collect([cloud.version(f"a-{lane}"), cloud.version(f"film-{lane}", 2_000)], lane)
        [tar], [film] = cloud.bundles_queues[lane].take(), cloud.large_queues[lane].take()
        written = cloud.write(requested_bundle(tar)), cloud.copy(requested_bundle(film))
        assert [each.oldest_at is not None for each in written] == [tells, tells]


def test_a_large_version_that_both_lanes_announce_is_copied_once(cloud: MemoryCloud) -> None:
    film = cloud.version("film", 2_000)
    for lane in (Lane.BACKFILL, Lane.LIVE):
        cloud.collect([film], lane)
        assert cloud.large_queues[lane].sent, "an upload does not wait for the backfill to come to it"
    cloud.drain()
    cloud.verify([film])
    assert len(cloud.archives.rows) == 1


def test_the_sweep_leaves_alone_what_is_being_written_until_the_lease_has_ended(cloud: MemoryCloud) -> None:
    cloud.collect([cloud.version("a"), cloud.version("film", 2_000)])
    cloud.bundles_queue.take()
    cloud.large_queue.take()
    cloud.now += timedelta(days=1)
    ends = cloud.now + timedelta(seconds=60)
    for bundle_id in cloud.bundles.rows:
        cloud.bundles.claim(bundle_id, owner="busy", now=cloud.now, until=ends)
    sweeper = cloud.sweeper
    assert sweeper.sweep(cloud.now) == sweeper.sweep(ends) == 0
    assert sweeper.sweep(ends + timedelta(seconds=1)) == 2
    assert len(cloud.bundles_queue.sent) == len(cloud.large_queue.sent) == 1


def test_the_sweep_sends_while_it_reads_so_that_one_cut_short_leaves_less_to_the_next(cloud: MemoryCloud) -> None:
    class Endless(MemoryBundles):
        """More is overdue than one sweep has time for."""

        def overdue(self, lane: Lane, now: datetime) -> Iterator[Bundle]:
            yield from super().overdue(lane, now)
            raise Transient("cut short")

    cloud.bundles = Endless()
    cloud.collect([cloud.version("a"), cloud.version("film", 2_000)])
    cloud.bundles_queue.take()
    cloud.large_queue.take()
    sweeper = cloud.sweeper
    with pytest.raises(Transient):
        sweeper.sweep(cloud.now + timedelta(days=1))
    assert len(cloud.bundles_queue.sent) == len(cloud.large_queue.sent) == 1


class Life(RuleBasedStateMachine):
    """Events, timers, messages that come twice or late, and calls that fail, in any order."""

    known = Drawn("known")

    def __init__(self) -> None:
        super().__init__()
        self.cloud = MemoryCloud(limits=LIMITS)
        self.wrapped = self.cloud.bundles
        self.versions: list[ObjectVersion] = []
        self.delivered: list[str] = []

    @rule(target=known, size_bytes=st.sampled_from([0, 1, 300, 511, 512, 513, 999, 1_000, 1_001]))
    def upload(self, size_bytes: int) -> ObjectVersion:
        self.versions.append(self.cloud.version(f"key-{len(self.versions)}", size_bytes))
        return self.versions[-1]

    @rule(batch=st.lists(known, max_size=12))
    def collect(self, batch: list[ObjectVersion]) -> None:
        self.cloud.collect(batch)

    @rule(batch=st.lists(known, min_size=1, max_size=12), call=st.integers(1, 8), after=st.booleans())
    def die_while_collecting(self, batch: list[ObjectVersion], call: int, after: bool) -> None:
        self.cloud.bundles = Dying(self.wrapped, call, after)
        try:
            self.cloud.collect(batch)
        except Transient:
            self.cloud.collect_queue.send("again")
        finally:
            self.cloud.bundles = self.wrapped
        self.cloud.collect_queue.take()
        self.cloud.collect(batch)

    @rule(number=st.integers(0, 5))
    def deliver(self, number: int) -> None:
        if self.cloud.bundles_queue.sent:
            body, _ = self.cloud.bundles_queue.sent.pop(number % len(self.cloud.bundles_queue.sent))
            self.delivered.append(body)
            self.cloud.write(requested_bundle(body))

    @rule(number=st.integers(0, 5))
    def deliver_twice(self, number: int) -> None:
        if self.delivered:
            self.cloud.write(requested_bundle(self.delivered[number % len(self.delivered)]))

    @rule(call=st.integers(1, 8), after=st.booleans())
    def die_while_writing(self, call: int, after: bool) -> None:
        if self.cloud.bundles_queue.sent:
            body, _ = self.cloud.bundles_queue.sent[0]
            self.cloud.bundles = Dying(self.wrapped, call, after)
            try:
                self.cloud.write(requested_bundle(body), lease_s=-1)
            except Transient:
                pass
            finally:
                self.cloud.bundles = self.wrapped

    @rule(number=st.integers(0, 5))
    def lose_a_message(self, number: int) -> None:
        if self.cloud.bundles_queue.sent:
            self.cloud.bundles_queue.sent.pop(number % len(self.cloud.bundles_queue.sent))

    @invariant()
    def no_bundle_is_over_its_ceiling(self) -> None:
        for bundle in self.wrapped.rows.values():
            if bundle.kind == "tar":
                assert bundle.size_bytes <= LIMITS.ceiling_bytes
                assert bundle.count <= LIMITS.max_members

    def teardown(self) -> None:
        self.cloud.collect(self.versions)
        self.cloud.drain()
        self.cloud.verify(self.versions)
        assert not self.cloud.parking_lot.items


class Dying:
    """Bundles whose n-th call fails, before it takes effect or after."""

    def __init__(self, port: MemoryBundles, call: int, after: bool) -> None:
        self._port, self._left, self._after = port, call, after

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Transient("before")
            answer = getattr(self._port, name)(*args, **kwargs)
            if self._left == 0:
                raise Transient("after")
            return answer

        return call


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

"""Which archives are audited: samples that are uniform and never empty, and a rolling pass that keeps its horizon."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.sampling import (
    CATCH_UP,
    MONTH_DAYS,
    PICKED_AT_ONCE,
    UNWRITTEN,
    Budget,
    Candidate,
    Month,
    Rolling,
    draw,
    earned,
    month_before,
    month_name,
    oldest_first,
    pass_days,
    percent_needed,
    pick,
    sample_size,
    settled,
)

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = 365 * DAY

CHI_SQUARE_001 = {9: 27.88, 19: 43.82, 49: 85.35, 99: 148.23}
"""By degrees of freedom: what chi-square exceeds once in 1,000 times where the distribution is uniform."""


def chi_square(counts: Counter[int], population: Collection[int]) -> float:
    expected = counts.total() / len(population)
    return sum((counts[serial] - expected) ** 2 / expected for serial in population)


def all_of(population: Collection[int]) -> Callable[[Collection[int]], Collection[int]]:
    return lambda serials: [serial for serial in serials if serial in population]


# -- The random sample -------------------------------------------------------------------------------------------------


def test_a_sample_of_one_in_a_million_is_never_rounded_down_to_nothing() -> None:
    """PITFALLS 16."""
    assert {sample_size(archives) for archives in (*range(1, 1_000), *range(1_000, 1_000_000, 997), 999_999)} == {1}


@pytest.mark.parametrize(
    ("archives", "size"), [(0, 0), (1_000_000, 1), (1_000_001, 2), (2_000_000, 2), (10**8, 100), (10**8 + 1, 101)]
)
def test_a_sample_is_one_in_a_million_rounded_up(archives: int, size: int) -> None:
    assert sample_size(archives) == size


def test_every_archive_is_drawn_equally_often() -> None:
    rng = Random(1)
    population = range(1, 101)
    counts = Counter(serial for _ in range(20_000) for serial in draw(rng, 100, 1, all_of(population)))
    assert counts.total() == 20_000
    assert chi_square(counts, population) < CHI_SQUARE_001[99]


@pytest.mark.parametrize("existing", [range(151, 201), range(4, 201, 4), {*range(1, 26), *range(176, 201)}])
def test_void_serials_are_drawn_again_and_the_others_stay_equally_likely(existing: Collection[int]) -> None:
    """The archive behind a gap must not be drawn in the place of those that are missing."""
    rng = Random(2)
    counts = Counter(serial for _ in range(10_000) for serial in draw(rng, 200, 1, all_of(existing)))
    assert counts.total() == 10_000
    assert set(counts) == set(existing)
    assert chi_square(counts, existing) < CHI_SQUARE_001[49]


def test_larger_samples_have_each_archive_equally_often_and_none_twice() -> None:
    rng = Random(3)
    existing = range(1, 40, 2)
    counts: Counter[int] = Counter()
    for _ in range(4_000):
        drawn = draw(rng, 40, 5, all_of(existing))
        assert len(drawn) == len(set(drawn)) == 5
        counts.update(drawn)
    assert chi_square(counts, existing) < CHI_SQUARE_001[19]


def test_the_first_of_a_sample_is_as_likely_as_any_other() -> None:
    """Rounds get larger where many serials are void; that must not favour those that come early in one."""
    rng = Random(4)
    existing = range(1, 1_001, 100)
    counts = Counter(draw(rng, 1_000, 1, all_of(existing))[0] for _ in range(500))
    assert chi_square(counts, existing) < CHI_SQUARE_001[9]


@given(st.integers(1, 60), st.sets(st.integers(1, 60)), st.integers(0, 70), st.integers())
@settings(max_examples=60, deadline=None)
def test_a_sample_has_as_many_archives_as_wanted_or_all_there_are(
    last: int, chosen: set[int], size: int, seed: int
) -> None:
    existing = {serial for serial in chosen if serial <= last}
    asked: list[int] = []

    def look(serials: Collection[int]) -> Collection[int]:
        asked.extend(serials)
        return [serial for serial in serials if serial in existing]

    drawn = draw(Random(seed), last, size, look)
    assert len(drawn) == len(set(drawn)) == min(size, len(existing))
    assert set(drawn) <= existing
    assert len(asked) == len(set(asked)), "each serial is looked up once"
    assert all(1 <= serial <= last for serial in asked)


def test_a_few_archives_among_many_void_serials_are_found() -> None:
    """As after a rebuild, which sets the counter a thousand above the last archive."""
    for seed in range(300):
        assert len(draw(Random(seed), 1_010, 1, all_of(range(1, 11)))) == 1
    for seed in range(30):
        assert len(draw(Random(seed), 1_001, 3, all_of({17}))) == 1


def test_a_draw_among_nothing_but_void_serials_ends() -> None:
    looks = Counter[str]()

    def look(serials: Collection[int]) -> Collection[int]:
        looks["rounds"] += 1
        looks["serials"] += len(serials)
        return []

    assert draw(Random(5), 10**9, 1, look) == ()
    assert 1_000 < looks["serials"] < 100_000
    assert looks["rounds"] < 100
    assert draw(Random(5), 0, 1, look) == ()
    assert draw(Random(5), 7, 0, look) == ()


# -- The rolling pass --------------------------------------------------------------------------------------------------


def test_a_pass_ends_before_its_horizon() -> None:
    assert pass_days(365) == pytest.approx(361.35)
    assert pass_days(90) == 87
    assert percent_needed(365) == pytest.approx(8.42, abs=0.005)
    assert round(percent_needed(365), 1) == 8.4
    assert percent_needed(90) == pytest.approx(100 * MONTH_DAYS / 87)


@dataclass
class Pass:
    """The rolling pass over a collection, tick by tick: nothing else audits anything.

    Archives have `size_bytes` each. `ages` are those of the one that was unaudited the longest, before each tick's
    picks; `earned` what the ticks were worth altogether.
    """

    horizon_days: float = 365
    budget: Budget = field(default_factory=lambda: Budget(percent=100, usd=10**6))
    size_bytes: int = 1_000
    micro_usd: int = 1
    now: datetime = START
    rolling: Rolling = field(default_factory=Rolling)
    waiting: deque[tuple[datetime, int]] = field(default_factory=deque)
    archives: int = 0
    months: dict[str, Month] = field(default_factory=dict)
    ages: list[timedelta] = field(default_factory=list)
    taken: int = 0
    cut: int = 0
    earned: float = 0.0

    def write(self, count: int) -> None:
        """Archives are written now."""
        for _ in range(count):
            self.archives += 1
            self.waiting.append((self.now, self.archives))

    def tick(self, elapsed: timedelta = HOUR) -> None:
        """So much later a run is drawn."""
        self.now += elapsed
        name = month_name(self.now)
        before = self.months.get(month_before(self.now))
        month = self.months.get(name) or self.budget.opened(
            name, before, stored_bytes=self.archives * self.size_bytes, archives=self.archives
        )
        if self.waiting:
            self.ages.append(self.now - self.waiting[0][0])
        credit = earned(self.rolling, self.archives, self.horizon_days, self.now)
        self.earned += credit - self.rolling.credit
        picked = pick(
            oldest_first(self._candidates(), iter(())),
            credit,
            room_bytes=self.budget.room_bytes(month, self.archives),
            room_micro_usd=self.budget.room_micro_usd(month),
        )
        for candidate in picked.archives:
            since, archive = self.waiting.popleft()
            assert (since, archive) == (candidate.since, candidate.archive)
            self.waiting.append((self.now, archive))
        self.taken += len(picked.archives)
        self.cut += picked.cut
        self.rolling = Rolling(credit=picked.credit, ticked_at=self.now)
        self.months[name] = Month(
            name=name,
            stored_bytes=month.stored_bytes,
            archives=month.archives,
            thawed_bytes=month.thawed_bytes + sum(each.size_bytes for each in picked.archives),
            micro_usd=month.micro_usd + sum(each.micro_usd for each in picked.archives),
            cut=month.cut + picked.cut,
        )

    @property
    def limit(self) -> timedelta:
        """How old an archive's last audit may be at a tick."""
        return timedelta(days=pass_days(self.horizon_days))

    def _candidates(self) -> Iterator[Candidate]:
        for since, archive in self.waiting:
            yield Candidate(archive=archive, since=since, size_bytes=self.size_bytes, micro_usd=self.micro_usd)


GROWTH: dict[str, Callable[[float], float]] = {
    "one": lambda _: 1,
    "constant": lambda _: 700,
    "linear": lambda year: 50 + 400 * year,
    "doubling every year": lambda year: 100 * 2**year,
    "a backfill": lambda year: 10 if year < 0.7 else 900,
    "bursts": lambda year: 200 * (1 + math.floor(year * 4)),
    "hardly any": lambda year: 1 + 3 * year,
    "as many as a catch-up's worth": lambda _: 52,
}
"""How many archives there are after so many years."""


@pytest.mark.parametrize("growth", GROWTH)
@pytest.mark.parametrize(("tick", "horizon_days"), [(6 * HOUR, 90.0), (DAY, 365.0), (7 * DAY, 365.0)])
def test_every_archive_is_audited_within_the_horizon_however_the_collection_grows(
    growth: str, tick: timedelta, horizon_days: float
) -> None:
    collection = Pass(horizon_days=horizon_days)
    collection.write(int(GROWTH[growth](0)))
    for step in range(3 * timedelta(days=horizon_days) // tick):
        collection.tick(tick)
        collection.write(int(GROWTH[growth](step * tick / YEAR)) - collection.archives)
    # One tick, since it waits for the next; one more for what floating point loses of the last archive's credit.
    assert max(collection.ages) <= collection.limit + 2 * tick
    assert collection.taken <= collection.earned + 1, "nor is more thawed than the horizon takes"
    assert collection.cut == 0


def test_the_rolling_pass_reaches_everything_in_a_year_and_the_sample_alone_in_a_hundred() -> None:
    """PITFALLS 17."""
    archives, runs = 10**6, 365 * 24
    assert runs * sample_size(archives) < archives / 100
    rolling = Rolling(ticked_at=START)
    assert runs * earned(rolling, archives, 365, START + HOUR) > archives


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10 * 24)), min_size=5, max_size=60), st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_the_horizon_holds_over_any_growth_and_any_delays_of_the_schedule(
    steps: list[tuple[int, int]], first: int
) -> None:
    """Delays of up to a week are made up for at once; of longer ones, all but a week is missing, once."""
    collection = Pass(horizon_days=60)
    collection.write(first)
    collection.tick()
    missing = timedelta()
    longest = HOUR
    for grown, hours in steps * 3:
        elapsed = hours * HOUR
        missing += max(elapsed - CATCH_UP, timedelta())
        longest = max(longest, elapsed)
        collection.tick(elapsed)
        assert collection.ages[-1] <= collection.limit + missing + 2 * longest
        collection.write(grown)


@pytest.mark.parametrize(("outage", "late"), [(5 * DAY, 0 * DAY), (30 * DAY, 23 * DAY)])
def test_an_outage_of_the_schedule_makes_audits_late_once(outage: timedelta, late: timedelta) -> None:
    collection = Pass()
    collection.write(1_000)
    for _ in range(400):
        collection.tick(DAY)
    collection.tick(outage)
    collection.ages.clear()
    for _ in range(360):
        collection.tick(DAY)
    assert collection.limit + late - 2 * DAY <= max(collection.ages) <= collection.limit + late + 2 * DAY
    collection.ages.clear()
    for _ in range(400):
        collection.tick(DAY)
    assert max(collection.ages) <= collection.limit + 2 * DAY


def test_after_an_outage_no_more_than_a_week_is_made_up_for_at_once() -> None:
    rolling = Rolling(credit=0.5, ticked_at=START)
    week = 10_000 * CATCH_UP / timedelta(days=pass_days(365))
    assert earned(rolling, 10_000, 365, START + 90 * DAY) == pytest.approx(0.5 + week)


def test_credit_does_not_pile_up_while_there_is_nothing_to_audit() -> None:
    rolling = Rolling(ticked_at=START)
    for day in range(1, 400):
        now = START + day * DAY
        rolling = Rolling(credit=earned(rolling, 100, 365, now), ticked_at=now)
    assert rolling.credit <= 100 * 7 / pass_days(365) + 1


def test_nothing_is_earned_before_the_first_tick_nor_by_a_clock_that_goes_backwards() -> None:
    assert earned(Rolling(), 1_000, 365, START) == 0
    assert earned(Rolling(credit=0.7, ticked_at=START), 1_000, 365, START - DAY) == 0.7
    assert earned(Rolling(ticked_at=START), 0, 365, START + DAY) == 0


# -- The budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0.0, 2.0, 5.0, 7.0])
def test_a_month_thaws_no_more_than_its_share_but_for_one_archive_and_what_is_cut_is_counted_once(
    percent: float,
) -> None:
    collection = Pass(budget=Budget(percent=percent, usd=10**6))
    collection.write(2_000)
    for _ in range(300):
        collection.tick(DAY)
    for month in collection.months.values():
        assert month.thawed_bytes <= month.stored_bytes * percent / 100 + (1_000 if percent else 0)
    full = list(collection.months.values())[1:-1]
    assert all(month.thawed_bytes > month.stored_bytes * percent / 100 - 1_000 for month in full), "nor much less"
    assert collection.cut == sum(month.cut for month in collection.months.values()) > 0
    assert collection.taken + collection.cut == pytest.approx(300 * 2_000 / pass_days(365), rel=0.01)


def test_a_month_costs_no_more_than_its_budget_but_for_one_archive() -> None:
    collection = Pass(budget=Budget(percent=100, usd=0.0001), micro_usd=3)
    collection.write(2_000)
    for _ in range(120):
        collection.tick(DAY)
    assert {month.micro_usd for month in list(collection.months.values())[1:-1]} <= {100, 101, 102}
    assert 3 * collection.taken <= len(collection.months) * 100 + 2, (
        "what was too much in one month is less in the next"
    )
    assert collection.cut > 0


def test_both_limits_of_a_budget_hold() -> None:
    month = Month(name="2026-11", stored_bytes=1_000_000, archives=100, thawed_bytes=99_000, micro_usd=7)
    budget = Budget(percent=10, usd=0.00001)
    assert budget.room_bytes(month, 100) == 1_000
    assert budget.room_bytes(month, 200) == 101_000, "the collection has doubled since the month began"
    assert budget.room_bytes(month, 50) == 1_000
    assert budget.room_micro_usd(month) == 3
    assert Budget(percent=5, usd=0).room_bytes(month, 100) == -49_000
    assert Budget(percent=5, usd=0).room_micro_usd(month) == -7
    assert budget.room_bytes(Month(name="2026-11", stored_bytes=0, archives=0), 5) == 0
    assert budget.room_bytes(replace(month, thawed_bytes=101_000), 100) == -1_000
    assert budget.opened(
        "2026-12", replace(month, thawed_bytes=101_000, micro_usd=12), stored_bytes=5, archives=100
    ) == (Month(name="2026-12", stored_bytes=5, archives=100, thawed_bytes=1_000, micro_usd=2))
    assert budget.opened("2026-12", month, stored_bytes=5, archives=100).thawed_bytes == 0


def test_the_month_before_january_is_december() -> None:
    assert month_before(datetime(2026, 1, 31, tzinfo=UTC)) == "2025-12"
    assert month_before(datetime(2026, 3, 30, tzinfo=UTC)) == "2026-02"


def test_what_costs_nothing_is_thawed_without_a_budget_in_dollars() -> None:
    picked = pick([replace(candidate(1), micro_usd=0), candidate(2)], 2.0, room_bytes=100, room_micro_usd=0)
    assert [each.archive for each in picked.archives] == [1]


def test_an_archive_larger_than_a_month_s_share_is_thawed_and_later_months_pay_for_it() -> None:
    collection = Pass(horizon_days=365, budget=Budget(percent=10, usd=10**6))
    collection.write(3)  # each is a third of all bytes
    for _ in range(800):
        collection.tick(DAY)
    assert max(collection.ages) <= collection.limit + timedelta(days=130), "two rounds, the first from a standing start"
    assert collection.taken >= 6
    assert collection.taken * 1_000 <= len(collection.months) * 300 + 1_000


def test_the_pass_recovers_once_the_budget_suffices() -> None:
    collection = Pass(horizon_days=90, budget=Budget(percent=5, usd=10**6))
    collection.write(1_000)
    for _ in range(200):
        collection.tick(DAY)
    assert max(collection.ages) > collection.limit + 30 * DAY
    collection.budget = Budget(percent=percent_needed(90) * 1.2, usd=10**6)
    for _ in range(120):
        collection.tick(DAY)
    collection.ages.clear()
    for _ in range(90):
        collection.tick(DAY)
    assert max(collection.ages) <= collection.limit + 2 * DAY


def test_a_budget_of_what_the_horizon_needs_cuts_hardly_anything() -> None:
    collection = Pass(budget=Budget(percent=10, usd=10**6))
    for _ in range(800):
        collection.write(3)
        collection.tick(DAY)
    assert collection.cut <= 2, "of the first month, which begins with nothing stored"


def candidate(archive: int, size_bytes: int = 10, *, since: datetime = START, wanted: bool = True) -> Candidate:
    return Candidate(archive=archive, since=since, size_bytes=size_bytes, micro_usd=1, wanted=wanted)


def test_archives_are_picked_in_their_order_as_far_as_credit_goes() -> None:
    picked = pick(map(candidate, range(1, 10)), 3.7, room_bytes=1_000, room_micro_usd=1_000)
    assert [each.archive for each in picked.archives] == [1, 2, 3]
    assert picked.credit == pytest.approx(0.7)
    assert picked.cut == 0


def test_a_run_picks_no_more_than_one_item_holds_and_the_next_goes_on() -> None:
    picked = pick(map(candidate, range(1, 10**6)), 50_000.5, room_bytes=10**9, room_micro_usd=10**9)
    assert len(picked.archives) == PICKED_AT_ONCE > 10**8 / pass_days(365) / 24, "enough for a hundred million archives"
    assert picked.credit == 50_000.5 - PICKED_AT_ONCE
    assert picked.cut == 0


def test_credit_that_nothing_was_left_to_spend_on_stays() -> None:
    picked = pick([candidate(1)], 3.5, room_bytes=1_000, room_micro_usd=1_000)
    assert (len(picked.archives), picked.credit, picked.cut) == (1, 2.5, 0)


@pytest.mark.parametrize(("room_bytes", "room_micro_usd"), [(20, 1_000), (1_000, 2)])
def test_what_the_budget_has_no_room_for_is_counted_and_not_due_again(room_bytes: int, room_micro_usd: int) -> None:
    picked = pick(map(candidate, range(1, 10)), 5.5, room_bytes=room_bytes, room_micro_usd=room_micro_usd)
    assert [each.archive for each in picked.archives] == [1, 2]
    assert picked.cut == 3
    assert picked.credit == 0.5


def test_archives_that_a_repair_stands_for_are_passed_over_and_cost_nothing() -> None:
    listed = [candidate(1, 10**9, wanted=False), candidate(2), candidate(3, wanted=False), candidate(4)]
    picked = pick(listed, 2.0, room_bytes=20, room_micro_usd=2)
    assert [each.archive for each in picked.archives] == [2, 4]


def test_no_candidate_is_looked_at_that_is_not_needed() -> None:
    looked: list[int] = []

    def candidates() -> Iterator[Candidate]:
        for archive in range(1, 1_000):
            looked.append(archive)
            yield candidate(archive)

    pick(candidates(), 2.0, room_bytes=1_000, room_micro_usd=1_000)
    assert len(looked) <= 3


def test_those_longest_unaudited_come_first() -> None:
    audited = [candidate(5, since=START), candidate(6, since=START + 2 * DAY)]
    unseen = [candidate(7, since=START + DAY), candidate(8, since=START + 3 * DAY)]
    assert [each.archive for each in oldest_first(audited, unseen)] == [5, 7, 6, 8]


def test_months_are_named_by_the_calendar() -> None:
    assert month_name(datetime(2026, 11, 30, 23, 59, tzinfo=UTC)) == "2026-11"
    assert month_name(datetime(2026, 12, 1, tzinfo=UTC)) == "2026-12"


# -- The frontier ------------------------------------------------------------------------------------------------------

writings = st.lists(
    st.tuples(
        st.integers(0, 4 * 24),  # hours since the serial before was drawn
        st.one_of(st.none(), st.integers(0, 14 * 24 - 1)),  # hours until it is written; None is void
    ),
    min_size=1,
    max_size=30,
)


@given(writings)
@settings(max_examples=80, deadline=None)
def test_the_frontier_never_passes_a_serial_that_is_written_later(serials: list[tuple[int, int | None]]) -> None:
    written: dict[int, datetime] = {}
    now = START
    for serial, (since, takes) in enumerate(serials, start=1):
        now += since * HOUR
        if takes is not None:
            written[serial] = now + takes * HOUR
    frontier, passed = 1, set[int]()
    end = now + UNWRITTEN + 15 * DAY
    now = START
    while now <= end:
        there = [
            candidate(serial, since=moment)
            for serial, moment in sorted(written.items())
            if moment <= now and serial >= frontier
        ]
        for each in settled(frontier, there, now):
            assert each.archive >= frontier
            passed.add(each.archive)
            frontier = each.archive + 1
        late = [serial for serial, moment in written.items() if moment > now and serial < frontier]
        assert not late, "nobody would ever look at it"
        now += 11 * HOUR
    assert passed == set(written), "in the end all are passed, and each once"


def test_a_gap_holds_the_frontier_until_it_cannot_be_filled_any_more() -> None:
    archives = [candidate(1, since=START), candidate(3, since=START), candidate(4, since=START + 20 * DAY)]
    assert [each.archive for each in settled(1, archives, START + UNWRITTEN - HOUR)] == [1]
    assert [each.archive for each in settled(1, archives, START + UNWRITTEN)] == [1, 3, 4]
    assert [each.archive for each in settled(2, archives[1:], START + UNWRITTEN)] == [3, 4]
    assert list(settled(2, [], START)) == []

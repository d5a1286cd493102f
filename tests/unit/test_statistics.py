"""What audits let one say: the bound against published values and exact fractions, and the date of a full pass."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.sampling import MONTH_DAYS, Budget, pass_days
from neve.domain.statistics import Amount, probability_of_at_most, seen_by, upper_bound

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

TABLES = [
    # NIST/SEMATECH e-Handbook 7.2.4.2: 4 defects among 20, 90 % two-sided, which is 95 % one-sided.
    (20, 4, 0.40103, 5),
    # Tables of one-sided 95 % limits; with no finding also 1 - 0.05^(1/n).
    (10, 0, 0.2589, 4),
    (10, 1, 0.3942, 4),
    (14, 0, 0.1926, 4),
    (20, 0, 0.1391, 4),
    (50, 2, 0.1206, 4),
    (100, 0, 0.0295, 4),
    (1_000, 0, 0.002991, 6),
]


@pytest.mark.parametrize(("trials", "findings", "bound", "digits"), TABLES)
def test_the_bound_is_that_of_the_tables(trials: int, findings: int, bound: float, digits: int) -> None:
    assert round(upper_bound(trials, findings), digits) == bound


@pytest.mark.parametrize(("findings", "trials"), list(enumerate((59, 93, 124, 153, 181, 208))))
def test_wilks_sample_sizes_are_the_first_that_prove_five_percent_with_95_percent_confidence(
    findings: int, trials: int
) -> None:
    assert upper_bound(trials, findings) <= 0.05 < upper_bound(trials - 1, findings)


@pytest.mark.parametrize(
    ("findings", "limit"),
    list(enumerate((3.00, 4.74, 6.30, 7.75, 9.15, 10.51, 11.84, 13.15, 14.43, 15.71, 16.96))),
)
def test_in_ten_million_trials_it_is_the_limit_of_poisson_s_tables(findings: int, limit: float) -> None:
    assert round(upper_bound(10_000_000, findings) * 10_000_000, 2) == limit


@pytest.mark.parametrize("trials", [300, 3_000, 1_000_000])
def test_without_findings_it_is_the_rule_of_three(trials: int) -> None:
    assert upper_bound(trials, 0) == pytest.approx(3 / trials, rel=0.01)


@pytest.mark.parametrize("trials", [0, 1, 7, 10_000_000])
def test_where_nothing_was_well_or_nothing_was_tried_all_may_be_damaged(trials: int) -> None:
    assert upper_bound(trials, trials) == 1.0


@pytest.mark.parametrize(("trials", "findings"), [(3, 4), (3, -1), (-1, 0)])
def test_more_findings_than_trials_are_a_mistake(trials: int, findings: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        upper_bound(trials, findings)


@pytest.mark.parametrize("findings", [1_000, 5_000_000, 9_990_000])
def test_with_many_findings_among_ten_million_it_is_near_the_normal_approximation(findings: int) -> None:
    share = findings / 10_000_000
    deviation = math.sqrt(share * (1 - share) / 10_000_000)
    assert upper_bound(10_000_000, findings) == pytest.approx(share + 1.645 * deviation, abs=0.1 * deviation)


counts = st.integers(1, 120).flatmap(lambda trials: st.tuples(st.just(trials), st.integers(0, trials)))


@settings(max_examples=60)
@given(counts)
def test_at_the_bound_so_few_findings_have_five_percent_in_exact_arithmetic(pair: tuple[int, int]) -> None:
    trials, findings = pair
    bound = upper_bound(trials, findings)

    def exact(share: Fraction) -> Fraction:
        terms = (math.comb(trials, each) * share**each * (1 - share) ** (trials - each) for each in range(findings + 1))
        return sum(terms, Fraction())

    if findings == trials:
        assert bound == 1.0
    else:
        assert float(exact(Fraction(bound))) == pytest.approx(0.05, rel=1e-8)
        assert bound > findings / trials
    if 0 < findings < trials:
        share = Fraction(findings + trials, 2 * trials)
        assert probability_of_at_most(findings, trials, float(share)) == pytest.approx(float(exact(share)), rel=1e-9)


@settings(max_examples=60)
@given(st.integers(2, 10_000_000).flatmap(lambda trials: st.tuples(st.just(trials), st.integers(0, min(trials, 500)))))
def test_more_findings_raise_it_and_more_trials_or_less_confidence_lower_it(pair: tuple[int, int]) -> None:
    trials, findings = pair
    bound = upper_bound(trials, findings)
    assert 0 < bound <= 1
    assert upper_bound(trials + 1, findings) < bound
    assert upper_bound(trials + 1, findings + 1) >= bound
    if findings < trials:
        assert upper_bound(trials, findings, confidence=0.9) < bound < upper_bound(trials, findings, confidence=0.99)


# -- When all is seen ------------------------------------------------------------------------------------------------

COLLECTION = Amount(archives=1_000, size_bytes=1_000_000, micro_usd=1_000_000)
PLENTY = Budget(percent=50, usd=1_000)
THAW = timedelta(hours=12)


def when(ahead: Amount, *, budget: Budget = PLENTY, horizon_days: float = 365, used_up: bool = False) -> float | None:
    """In how many days, without the thaw."""
    date = seen_by(ahead, COLLECTION, horizon_days=horizon_days, budget=budget, used_up=used_up, thaw=THAW, now=NOW)
    return None if date is None else (date - NOW - THAW) / timedelta(days=1)


def test_all_of_the_collection_takes_one_pass() -> None:
    assert when(COLLECTION) == pytest.approx(pass_days(365))


def test_a_part_of_it_takes_that_part_of_a_pass() -> None:
    assert when(Amount(archives=250, size_bytes=1, micro_usd=1)) == pytest.approx(pass_days(365) / 4)


@pytest.mark.parametrize("budget", [Budget(percent=5, usd=1_000), Budget(percent=50, usd=0.05)])
def test_a_budget_that_is_slower_than_the_horizon_sets_the_date(budget: Budget) -> None:
    assert when(COLLECTION, budget=budget) == pytest.approx(20 * MONTH_DAYS)


def test_what_needs_no_thaw_costs_no_budget() -> None:
    free = replace(COLLECTION, size_bytes=0, micro_usd=0)
    assert when(free, budget=Budget(percent=0, usd=0)) == pytest.approx(pass_days(365))


def test_a_month_that_is_used_up_begins_with_the_next() -> None:
    assert when(COLLECTION, used_up=True) == pytest.approx(pass_days(365) + 8.5)


@pytest.mark.parametrize(
    ("day", "first"), [((2026, 1, 31), (2026, 2, 1)), ((2026, 2, 1), (2026, 3, 1)), ((2026, 12, 31), (2027, 1, 1))]
)
def test_the_next_month_begins_on_its_first_day(day: tuple[int, int, int], first: tuple[int, int, int]) -> None:
    date = seen_by(
        Amount(archives=1),
        Amount(archives=10**9),
        horizon_days=365,
        budget=PLENTY,
        used_up=True,
        thaw=timedelta(),
        now=datetime(*day, 23, 59, tzinfo=UTC),
    )
    assert date is not None
    assert date.replace(second=0, microsecond=0) == datetime(*first, tzinfo=UTC)


def test_nothing_ahead_is_seen_now() -> None:
    assert when(Amount()) == pytest.approx(-0.5)


@pytest.mark.parametrize("budget", [Budget(percent=0, usd=100), Budget(percent=10, usd=0)])
def test_without_a_pass_or_a_budget_there_is_no_date(budget: Budget) -> None:
    assert when(COLLECTION, horizon_days=0) is None
    assert when(COLLECTION, budget=budget) is None

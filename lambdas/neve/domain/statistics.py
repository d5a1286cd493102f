"""What audits let one say of the whole collection: how much of it may be damaged, and when all of it will be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.sampling import MONTH_DAYS, Budget, pass_days

CONFIDENCE = 0.95
NEGLIGIBLE = 1e-17
"""A term this small beside the sum of those before it changes nothing: doubles have 16 digits."""
PRECISION = 1e-12


def upper_bound(trials: int, findings: int, *, confidence: float = CONFIDENCE) -> float:
    """The largest share of a collection with which `findings` or fewer in so many `trials` are not too unlikely.

    The exact one-sided bound of a binomial share (Clopper and Pearson 1934): the share at which P(X <= findings) is
    1 - `confidence`. With no finding it is about 3 / trials ("rule of three"). 1.0 if there were no trials. Right to
    some seven digits up to 10^7 trials.
    """
    if not 0 <= findings <= trials:
        raise ValueError(f"{findings} findings in {trials} trials")
    if findings == trials:
        return 1.0
    unlikely = 1 - confidence
    if not findings:
        return -math.expm1(math.log(unlikely) / trials)
    low, high = findings / trials, 1.0  # below findings / trials the probability is a half or so
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        if probability_of_at_most(findings, trials, middle) > unlikely:
            low = middle
        else:
            high = middle
    return high


def probability_of_at_most(findings: int, trials: int, share: float) -> float:
    """P(X <= findings) for X binomial, where findings / trials <= share < 1, and findings is not 0.

    The terms are summed from the largest, that of `findings`, downwards, until the rest is negligible: some ten
    standard deviations.
    """
    log_first = (
        math.lgamma(trials + 1)
        - math.lgamma(findings + 1)
        - math.lgamma(trials - findings + 1)
        + findings * math.log(share)
        + (trials - findings) * math.log1p(-share)
    )
    odds = (1 - share) / share
    total = term = 1.0
    for number in range(findings, 0, -1):
        term *= number / (trials - number + 1) * odds
        total += term
        if term < NEGLIGIBLE * total:
            break
    return math.exp(log_first) * total


@dataclass(frozen=True, kw_only=True)
class Amount:
    """So many archives of so many bytes in all, and what it costs to thaw them."""

    archives: int = 0
    size_bytes: int = 0
    micro_usd: int = 0


def seen_by(
    ahead: Amount,
    collection: Amount,
    *,
    horizon_days: float,
    budget: Budget,
    used_up: bool,
    thaw: timedelta,
    now: datetime,
) -> datetime | None:
    """When the rolling pass will have seen `ahead`: what is never audited, and all whose turn is before that.

    It goes at the pace of its horizon, or at that of the month's budget if this is slower; `used_up` says that nothing
    is left of the present month's. `thaw` is how long the last one's thaw may take. None: never, as things stand.
    """
    if not horizon_days:
        return None
    if not ahead.archives:
        return now
    allowed_bytes = collection.size_bytes * budget.percent / 100
    allowed_micro_usd = budget.usd * 1_000_000
    if (ahead.size_bytes and not allowed_bytes) or (ahead.micro_usd and not allowed_micro_usd):
        return None
    passes = ahead.archives / collection.archives
    months = max(
        ahead.size_bytes / allowed_bytes if ahead.size_bytes else 0.0,
        ahead.micro_usd / allowed_micro_usd if ahead.micro_usd else 0.0,
    )
    begins = _next_month(now) if used_up else now
    return begins + timedelta(days=max(passes * pass_days(horizon_days), months * MONTH_DAYS)) + thaw


def _next_month(now: datetime) -> datetime:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=31)).replace(day=1)

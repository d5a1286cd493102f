"""Which archives are audited: a uniform random sample, always, and a rolling pass that reaches every one in time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

SHARE = 1e-6
"""Of all archives, in each run."""
DRAWS = 20
"""Rounds of drawing before the sample stays smaller: then nearly no serial has an archive, and something is wrong."""
DRAWN_AT_ONCE = 1_000
"""Each round looks up twice as many serials as the one before, up to so many: few may be left among many void ones, as
after a rebuild of the index."""
UNWRITTEN = timedelta(days=15)
"""A serial may still be written that was drawn up to so long ago: messages and bundles live no longer (14 days)."""
AHEAD = 0.01
AHEAD_DAYS = 3
"""The rolling pass is planned so much shorter than its horizon: thaws take up to two days, and are asked for hourly."""
MONTH_DAYS = 365.25 / 12
PICKED_AT_ONCE = 20_000
"""A run is one item of DynamoDB, 400 KB, and sends its messages in one life; 10^8 archives take 11,500 an hour."""
CATCH_UP = timedelta(days=7)
"""A pass that stood still makes up for so much of it at once."""


def sample_size(archives: int) -> int:
    """How many archives a run draws at random: one in a million, at least one if there is any."""
    return max(1, math.ceil(archives * SHARE)) if archives > 0 else 0


def draw(rng: Random, last: int, size: int, existing: Callable[[Collection[int]], Collection[int]]) -> tuple[int, ...]:
    """`size` archives out of the serials 1 to `last`, each existing one as likely as any other, none twice.

    Serials are drawn uniformly; those of which `existing` does not return are void and drawn again, which leaves the
    others equally likely. Fewer are returned if there are fewer, or if in DRAWS rounds hardly any existed.
    """
    found: dict[int, None] = {}
    tried: set[int] = set()
    for attempt in range(DRAWS):
        if len(found) >= size or len(tried) >= last:
            break
        missing = size - len(found)
        wanted = max(missing, min(missing << attempt, DRAWN_AT_ONCE))
        fresh: dict[int, None] = {}
        while len(fresh) < wanted and len(tried) < last:
            serial = rng.randint(1, last)
            if serial not in tried:
                tried.add(serial)
                fresh[serial] = None
        there = set(existing(list(fresh)))
        found.update((serial, None) for serial in fresh if serial in there)
    return tuple(found)[:size]


@dataclass(frozen=True, kw_only=True)
class Rolling:
    """Where the rolling pass is. Serials below `frontier` have been begun once, or have no archive.

    `credit` is what has been earned and not been spent, in archives; `revision` counts the changes.
    """

    frontier: int = 1
    credit: float = 0.0
    ticked_at: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An archive whose last audit, or writing if there was none, was at `since`.

    One that is not `wanted` any more, because a repair stands for it, is passed over.
    """

    archive: int
    since: datetime
    size_bytes: int
    micro_usd: int
    wanted: bool = True


@dataclass(frozen=True, kw_only=True)
class Month:
    """The rolling pass's spending in one month, `name` as in 2026-11, and what the month before has left it to pay.

    `stored_bytes` in `archives` serials is the collection as it was when the month's first run was drawn.
    """

    name: str
    stored_bytes: int
    archives: int
    thawed_bytes: int = 0
    micro_usd: int = 0
    cut: int = 0
    revision: int = 0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the rolling pass may thaw in a month: `percent` of the stored bytes, and `usd`; both hold.

    As long as anything is left, one more archive is thawed, however large it is: else one that is larger than a month's
    share would never be audited, nor anything that comes after it. What that is too much, the next month has less.
    """

    percent: float
    usd: float

    def room_bytes(self, month: Month, archives: int) -> int:
        """How many bytes are left; the collection is taken to have grown with its serials since. Below 0: too much."""
        grown = archives / month.archives if month.archives else 1.0
        return int(month.stored_bytes * max(1.0, grown) * self.percent / 100) - month.thawed_bytes

    def room_micro_usd(self, month: Month) -> int:
        """How many millionths of a dollar are left. Below 0: too much."""
        return int(self.usd * 1_000_000) - month.micro_usd

    def opened(self, name: str, before: Month | None, *, stored_bytes: int, archives: int) -> Month:
        """A month as it begins, after the month `before` if that is known."""
        month = Month(name=name, stored_bytes=stored_bytes, archives=archives)
        if before is None:
            return month
        return replace(
            month,
            thawed_bytes=max(0, -self.room_bytes(before, archives)),
            micro_usd=max(0, -self.room_micro_usd(before)),
        )


@dataclass(frozen=True, kw_only=True)
class Picked:
    """What a run takes from the rolling pass. `cut` more would have been due, and are left out for the budget."""

    archives: tuple[Candidate, ...]
    credit: float
    cut: int


def pass_days(horizon_days: float) -> float:
    """In how many days the pass comes round, so that every archive is audited within its horizon."""
    return horizon_days - max(AHEAD * horizon_days, AHEAD_DAYS)


def percent_needed(horizon_days: float) -> float:
    """Which share of the stored bytes such a horizon thaws in a month, in percent: 8.42 for 365 days."""
    return 100 * MONTH_DAYS / pass_days(horizon_days)


def earned(rolling: Rolling, archives: int, horizon_days: float, now: datetime) -> float:
    """How many archives it is time for, with what was left from before.

    As many are earned in a pass as there are archives. Who takes the longest unaudited first then has none older than a
    pass: those that are older than one archive were all there when the pass began, and so many have been audited since.
    """
    if rolling.ticked_at is None:
        return rolling.credit
    elapsed = min(max(now - rolling.ticked_at, timedelta()), CATCH_UP)
    length = timedelta(days=pass_days(horizon_days))
    most = archives * (CATCH_UP / length) + 1  # what is left of the last archive's credit is never lost
    return min(rolling.credit + archives * (elapsed / length), most)


def oldest_first(audited: Iterable[Candidate], unseen: Iterable[Candidate]) -> Iterator[Candidate]:
    """Both, each of which is sorted by `since`, merged: the longest unaudited first."""
    return heapq.merge(audited, unseen, key=lambda candidate: candidate.since)


def pick(candidates: Iterable[Candidate], credit: float, *, room_bytes: int, room_micro_usd: int) -> Picked:
    """As many of `candidates`, in their order, as the credit and the budget allow.

    What is cut has used up its credit as well: so it is counted once, and the next month goes on at the usual pace.
    """
    quota = min(math.floor(credit), PICKED_AT_ONCE)
    taken: list[Candidate] = []
    cut = 0
    for candidate in candidates:
        if len(taken) >= quota:
            break
        if not candidate.wanted:
            continue
        if room_bytes <= 0 or (candidate.micro_usd and room_micro_usd <= 0):
            cut = quota - len(taken)
            break
        room_bytes -= candidate.size_bytes
        room_micro_usd -= candidate.micro_usd
        taken.append(candidate)
    return Picked(archives=tuple(taken), credit=credit - len(taken) - cut, cut=cut)


def month_name(now: datetime) -> str:
    """The month of `now`, as in 2026-11."""
    return f"{now:%Y-%m}"


def month_before(now: datetime) -> str:
    """The month before that of `now`."""
    return month_name(now.replace(day=1) - timedelta(days=1))


def settled(frontier: int, archives: Iterable[Candidate], now: datetime) -> Iterator[Candidate]:
    """Those of `archives`, which are all from serial `frontier` on in their order, that the frontier may pass.

    It stops before a serial that is missing and may still be written: the archive behind it was written of late.
    """
    expected = frontier
    for candidate in archives:
        if candidate.archive != expected and candidate.since > now - UNWRITTEN:
            return
        expected = candidate.archive + 1
        yield candidate

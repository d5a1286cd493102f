"""Thaws: which request S3 is asked for, so that one thaw of an archive serves all who wait for it.

A thaw's row goes from claimed (somebody is about to ask S3) over thawing (S3 has accepted) to warm (a temporary copy is
there until `warm_until`). Every change is conditional on the row's revision: who loses reads again and decides anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from neve.domain.prices import GB, MILLION, US_EAST_1, Bill, Charge, Use


class Tier(StrEnum):
    """How fast S3 is asked to thaw; the slower, the cheaper."""

    BULK = "bulk"
    STANDARD = "standard"
    EXPEDITED = "expedited"


class ThawState(StrEnum):
    """claimed -> thawing -> warm."""

    CLAIMED = "claimed"
    THAWING = "thawing"
    WARM = "warm"


class Step(StrEnum):
    """What a planner does about an archive that it needs."""

    READ = "read"
    """Its bytes can be had now."""
    JOIN = "join"
    """The thaw that runs is due soon enough."""
    WAIT = "wait"
    """Another is just asking S3; what it gets is not known yet."""
    REQUEST = "request"
    UPGRADE = "upgrade"
    EXTEND = "extend"
    """It can be read now, but not for long enough."""


PROMISES: dict[str, dict[Tier, tuple[timedelta, timedelta]]] = {
    "GLACIER": {
        Tier.EXPEDITED: (timedelta(minutes=1), timedelta(minutes=5)),
        Tier.STANDARD: (timedelta(hours=3), timedelta(hours=5)),
        Tier.BULK: (timedelta(hours=5), timedelta(hours=12)),
    },
    "DEEP_ARCHIVE": {
        Tier.STANDARD: (timedelta(hours=9), timedelta(hours=12)),
        Tier.BULK: (timedelta(hours=36), timedelta(hours=48)),
    },
}
"""How soon and how late an archive is thawed (S3 user guide, "Understanding archive retrieval options").

Classes that are missing need no thaw; tiers that are missing are not offered.
"""

CLAIM = timedelta(minutes=16)
"""A claim is another's to take over after this: no function runs longer than 15 minutes."""
GLANCE = timedelta(minutes=15)
"""How often the sweep looks whether anything still waits for a warm copy."""
LOOK = timedelta(hours=6)
"""How often S3 is asked about a thaw that is not due yet. A copy stays for a day at least, so none is missed."""
PATIENCE = timedelta(hours=1)
"""How long after its promise, and after each question, an overdue thaw is asked about again."""
MARGIN = timedelta(hours=6)
"""A copy that expires sooner is extended while items of a pipeline wait for it."""
BARELY = timedelta(minutes=10)
"""A copy that expires sooner counts as expired: it may be gone before it is read."""

_OBJECT_KEY = re.compile(r"archives/([0-9]{10,})\.(?:tar|object)")


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job asks of a thaw: how fast, and for how many days the copy has to stay."""

    tier: Tier
    days: int


@dataclass(frozen=True, kw_only=True)
class Thaw:
    """The thaw of one archive. `revision` counts its changes.

    `days` are those of the request that runs, `wanted_days` the most that anyone asked for. `ready_at` is when the copy
    is promised (claimed: will be, if S3 accepts now), `warm_until` when it expires. `claimed_by` asks S3, and may be
    taken for dead after `claimed_until`; `upgraded_from` is the tier that runs while a faster one is being asked for.
    `fell_back` says that Expedited was not to be had, and `settled` that S3 has refused a faster tier for this thaw:
    it is not asked again. `due_at` is when the sweep looks, None for never.
    """

    archive: int
    state: ThawState
    tier: Tier
    days: int
    wanted_days: int
    ready_at: datetime
    due_at: datetime | None
    warm_until: datetime | None = None
    claimed_by: str = ""
    claimed_until: datetime | None = None
    upgraded_from: Tier | None = None
    fell_back: bool = False
    settled: bool = False
    revision: int = 0

    def is_warm(self, now: datetime, *, for_days: int = 0) -> bool:
        """Whether the copy is there, long enough to be read, and for so many days."""
        if self.state is not ThawState.WARM or self.warm_until is None or self.warm_until <= now + BARELY:
            return False
        return self.warm_until >= now + timedelta(days=for_days)

    def is_cold(self, now: datetime) -> bool:
        """Whether there was a copy, and it is as good as gone."""
        return self.state is ThawState.WARM and not self.is_warm(now)


def combined(needs: Iterable[Need]) -> Need:
    """What serves all of `needs`, of which there is at least one: the fastest tier, the most days."""
    needed = list(needs)
    order = list(Tier)
    return Need(tier=max((need.tier for need in needed), key=order.index), days=max(need.days for need in needed))


def needs_thaw(storage_class: str) -> bool:
    """Whether objects of this class have to be thawed before they can be read."""
    return storage_class in PROMISES


def offered(storage_class: str, tier: Tier) -> bool:
    """Whether S3 thaws this class at this tier."""
    return not needs_thaw(storage_class) or tier in PROMISES[storage_class]


def offered_tier(storage_class: str, tier: Tier) -> Tier:
    """`tier`, or Standard where this class has none so fast."""
    return tier if offered(storage_class, tier) else Tier.STANDARD


def promise(storage_class: str, tier: Tier) -> timedelta:
    """How long a thaw takes at most; none where nothing is thawed."""
    return PROMISES[storage_class][tier][1] if needs_thaw(storage_class) else timedelta()


def decide(thaw: Thaw | None, storage_class: str, need: Need, *, owner: str, now: datetime) -> Step:
    """What a planner that needs an archive does, given its thaw as it stands."""
    if not needs_thaw(storage_class) or (thaw is not None and thaw.is_warm(now, for_days=need.days)):
        return Step.READ
    if thaw is None or thaw.is_cold(now):
        return Step.REQUEST
    if thaw.state is ThawState.WARM:
        return Step.EXTEND if _may_claim(thaw, owner, now) else Step.WAIT
    if thaw.state is ThawState.CLAIMED and _may_claim(thaw, owner, now):
        return Step.UPGRADE if thaw.upgraded_from else Step.REQUEST
    soon = max(thaw.ready_at, now) <= now + promise(storage_class, need.tier)
    if soon or thaw.settled or not _faster(storage_class, need.tier, thaw.tier):
        return Step.JOIN
    return Step.WAIT if thaw.state is ThawState.CLAIMED else Step.UPGRADE


def claimed(thaw: Thaw | None, archive: int, storage_class: str, need: Need, *, owner: str, now: datetime) -> Thaw:
    """The row by which `owner` claims to ask S3 for a thaw.

    S3 may have heard who claimed it before and died, and insists on the days of the first request: they are repeated.
    """
    wanted = max(need.days, thaw.wanted_days if thaw and not thaw.is_cold(now) else 0)
    dead = thaw if thaw and thaw.state is ThawState.CLAIMED else None
    tier = _tier(dead, need)
    return Thaw(
        archive=archive,
        state=ThawState.CLAIMED,
        tier=tier,
        days=dead.days if dead else need.days,
        wanted_days=wanted,
        ready_at=now + promise(storage_class, tier),
        due_at=now + CLAIM,
        claimed_by=owner,
        claimed_until=now + CLAIM,
        fell_back=dead is not None and dead.fell_back,
        settled=dead is not None and dead.settled,
        revision=thaw.revision if thaw else 0,
    )


def upgrading(thaw: Thaw, need: Need, *, owner: str, now: datetime) -> Thaw:
    """The row by which `owner` claims to ask S3 for a faster tier; S3 insists on the first request's days."""
    return replace(
        thaw,
        state=ThawState.CLAIMED,
        tier=_tier(thaw if thaw.state is ThawState.CLAIMED else None, need),
        upgraded_from=thaw.upgraded_from or thaw.tier,
        wanted_days=max(thaw.wanted_days, need.days),
        due_at=now + CLAIM,
        claimed_by=owner,
        claimed_until=now + CLAIM,
    )


def extending(thaw: Thaw, need: Need, *, owner: str, now: datetime) -> Thaw:
    """The row by which `owner` claims to have a warm copy stay longer: two at once could leave it the shorter time."""
    unmet = thaw.wanted_days if thaw.wanted_days > thaw.days else 0
    return replace(
        thaw, wanted_days=max(need.days, unmet), claimed_by=owner, claimed_until=now + CLAIM, upgraded_from=None
    )


def accepted(claim: Thaw, storage_class: str, now: datetime) -> Thaw:
    """The row once S3 has accepted what was claimed. An upgrade puts nothing off that was promised before."""
    ready_at = now + promise(storage_class, claim.tier)
    if claim.upgraded_from:
        ready_at = min(ready_at, max(claim.ready_at, now))
    thaw = _unclaimed(claim, state=ThawState.THAWING, ready_at=ready_at, due_at=next_look(ready_at, now))
    return replace(thaw, fell_back=claim.fell_back and claim.tier is not Tier.EXPEDITED)


def joined(claim: Thaw, now: datetime) -> Thaw:
    """The row once S3 has said that a thaw runs already: a claim to upgrade has changed nothing, and never will."""
    ready_at = max(claim.ready_at, now)
    return replace(
        _unclaimed(claim, state=ThawState.THAWING, ready_at=ready_at, due_at=next_look(ready_at, now)),
        tier=claim.upgraded_from or claim.tier,
        settled=claim.settled or claim.upgraded_from is not None,
    )


def fallen_back(claim: Thaw, storage_class: str, now: datetime) -> Thaw:
    """The row once S3 has said that it has no capacity for Expedited: a claim to ask for Standard instead.

    If a thaw runs that is due before Standard would be, there is nothing to ask for: it is joined.
    """
    standard = now + promise(storage_class, Tier.STANDARD)
    if not claim.upgraded_from:
        return replace(claim, tier=Tier.STANDARD, ready_at=standard, fell_back=True, settled=True)
    if claim.ready_at <= standard:
        return replace(joined(claim, now), fell_back=True)
    return replace(claim, tier=Tier.STANDARD, fell_back=True, settled=True)


def next_look(ready_at: datetime, now: datetime) -> datetime:
    """When the sweep asks S3 about a thaw whose event has not come: S3 is often done long before it has to be, and the
    copy may expire before the promise does.
    """
    return min(ready_at, now + LOOK) if ready_at > now else now + PATIENCE


def warmed(thaw: Thaw | None, archive: int, *, until: datetime, now: datetime) -> Thaw:
    """The row once the copy is there. Somebody else than neve may have asked for it: then there was no row."""
    if thaw is None:
        return Thaw(
            archive=archive,
            state=ThawState.WARM,
            tier=Tier.STANDARD,
            days=0,
            wanted_days=0,
            ready_at=now,
            due_at=now + GLANCE,
            warm_until=until,
        )
    ready_at = thaw.ready_at if thaw.state is ThawState.WARM else now
    warm = _unclaimed(thaw, state=ThawState.WARM, ready_at=ready_at, due_at=now + GLANCE)
    return replace(warm, warm_until=until, settled=False)


def extended(claim: Thaw, *, until: datetime, now: datetime) -> Thaw:
    """The row once S3 has set the end of a warm copy anew, by the days that were wanted."""
    return replace(warmed(claim, claim.archive, until=until, now=now), days=claim.wanted_days)


def gone(claim: Thaw, now: datetime) -> Thaw:
    """The row of a copy that S3 knows nothing of any more, whatever it promised: it is cold."""
    return replace(_unclaimed(claim, state=ThawState.WARM, ready_at=claim.ready_at, due_at=now), warm_until=now)


def archive_of(object_key: str) -> int | None:
    """The serial of the archive with this object key; None if it is no archive's."""
    found = _OBJECT_KEY.fullmatch(object_key)
    return int(found[1]) if found else None


def _may_claim(thaw: Thaw, owner: str, now: datetime) -> bool:
    """Whether no other's claim is alive."""
    return thaw.claimed_by in ("", owner) or thaw.claimed_until is None or thaw.claimed_until <= now


def _tier(dead: Thaw | None, need: Need) -> Tier:
    """The tier to ask S3 for, in the place of `dead`, who had claimed to.

    What that was paid for is still waited for. If Expedited was not to be had, it is not asked for again.
    """
    if dead is None:
        return need.tier
    return dead.tier if dead.settled else combined([need, Need(tier=dead.tier, days=dead.days)]).tier


def _faster(storage_class: str, tier: Tier, than: Tier) -> bool:
    return promise(storage_class, tier) < promise(storage_class, than)


def _unclaimed(thaw: Thaw, *, state: ThawState, ready_at: datetime, due_at: datetime) -> Thaw:
    return replace(
        thaw,
        state=state,
        ready_at=ready_at,
        due_at=due_at,
        claimed_by="",
        claimed_until=None,
        upgraded_from=None,
    )


# -- What it costs ---------------------------------------------------------------------------------------------------

RETRIEVAL: dict[str, dict[Tier, tuple[Charge, Charge]]] = {
    "GLACIER": {
        Tier.EXPEDITED: (Charge.GLACIER_EXPEDITED_GB, Charge.GLACIER_EXPEDITED_REQUEST),
        Tier.STANDARD: (Charge.GLACIER_STANDARD_GB, Charge.GLACIER_STANDARD_REQUEST),
        Tier.BULK: (Charge.GLACIER_BULK_GB, Charge.GLACIER_BULK_REQUEST),
    },
    "DEEP_ARCHIVE": {
        Tier.STANDARD: (Charge.DEEP_ARCHIVE_STANDARD_GB, Charge.DEEP_ARCHIVE_STANDARD_REQUEST),
        Tier.BULK: (Charge.DEEP_ARCHIVE_BULK_GB, Charge.DEEP_ARCHIVE_BULK_REQUEST),
    },
}

DAYS_A_MONTH = 30


def thaw_uses(storage_class: str, tier: Tier, *, days: int, archives: float, size_bytes: float) -> list[Use]:
    """What thawing so many archives of so many bytes in all takes; nothing for a class that needs no thaw.

    The copies stay up to a day longer than asked: S3 rounds up to midnight UTC.
    """
    if not needs_thaw(storage_class):
        return []
    by_gb, by_request = RETRIEVAL[storage_class][tier]
    return [
        Use(purpose="retrieval", charge=by_gb, quantity=size_bytes / GB),
        Use(purpose="retrieval requests", charge=by_request, quantity=archives),
        Use(
            purpose="temporary copies",
            charge=Charge.S3_STANDARD_GB_MONTH,
            quantity=size_bytes / GB * (days + 1) / DAYS_A_MONTH,
            rule=f"{days} days, and up to one more until midnight UTC",
        ),
    ]


def read_uses(storage_class: str, *, reads: float, writes: float, size_bytes: float) -> list[Use]:
    """What `reads` ranged GETs of `size_bytes` in all take, and `writes` PUTs to their destinations."""
    uses = [Use(purpose="writing files", charge=Charge.S3_PUT, quantity=writes)]
    if storage_class == "GLACIER_IR":
        return [
            Use(purpose="retrieval", charge=Charge.GLACIER_IR_GB, quantity=size_bytes / GB),
            Use(purpose="reading archives", charge=Charge.GLACIER_IR_GET, quantity=reads),
            *uses,
        ]
    return [Use(purpose="reading archives", charge=Charge.S3_GET, quantity=reads), *uses]


def claim_micro_usd(seen: Thaw | None, claim: Thaw, storage_class: str, size_bytes: int) -> int:
    """What `claim` adds to the day's spending. Who claimed the thaw before, and has died, has paid for its own tier."""

    def price(thaw: Thaw) -> int:
        return thaw_micro_usd(storage_class, thaw.tier, days=thaw.days, size_bytes=size_bytes)

    paid = price(seen) if seen is not None and seen.state is ThawState.CLAIMED else 0
    return max(0, price(claim) - paid)


def thaw_micro_usd(storage_class: str, tier: Tier, *, days: int, size_bytes: int) -> int:
    """What one thaw costs, in millionths of a dollar, rounded up: what the day's spend cap is held against."""
    uses = thaw_uses(storage_class, tier, days=days, archives=1, size_bytes=size_bytes)
    return -int(-(Bill(prices=US_EAST_1, uses=tuple(uses)).usd * MILLION) // 1)


def audit_micro_usd(storage_class: str, tier: Tier, *, size_bytes: int) -> int:
    """What it costs to thaw an archive for a day and to read it once, in millionths of a dollar, rounded up."""
    read = read_uses(storage_class, reads=1, writes=0, size_bytes=size_bytes)
    read_micro_usd = -int(-(Bill(prices=US_EAST_1, uses=tuple(read)).usd * MILLION) // 1)
    return thaw_micro_usd(storage_class, tier, days=1, size_bytes=size_bytes) + read_micro_usd

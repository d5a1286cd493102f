"""Thaws: what a planner does about an archive, how the row changes, and what S3 charges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.manifest import archive_key, manifest_key
from neve.domain.prices import US_EAST_1, Bill, Charge, Use
from neve.domain.thaw import (
    BARELY,
    CLAIM,
    GLANCE,
    LOOK,
    PATIENCE,
    PROMISES,
    Need,
    Step,
    Thaw,
    ThawState,
    Tier,
    accepted,
    archive_of,
    audit_micro_usd,
    claim_micro_usd,
    claimed,
    combined,
    decide,
    extended,
    extending,
    fallen_back,
    gone,
    joined,
    needs_thaw,
    next_look,
    offered,
    promise,
    read_uses,
    thaw_micro_usd,
    thaw_uses,
    upgrading,
    warmed,
)

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MIB = 1024**2

BULK = Need(tier=Tier.BULK, days=1)
STANDARD = Need(tier=Tier.STANDARD, days=1)
EXPEDITED = Need(tier=Tier.EXPEDITED, days=1)


def thawing(tier: Tier, *, ready_at: datetime, days: int = 1) -> Thaw:
    return Thaw(
        archive=17, state=ThawState.THAWING, tier=tier, days=days, wanted_days=days, ready_at=ready_at, due_at=ready_at
    )


def warm(until: datetime, *, days: int = 1) -> Thaw:
    return warmed(thawing(Tier.BULK, ready_at=NOW, days=days), 17, until=until, now=NOW)


def claim(tier: Tier = Tier.STANDARD, *, owner: str = "other", now: datetime = NOW, days: int = 1) -> Thaw:
    return claimed(None, 17, "GLACIER", Need(tier=tier, days=days), owner=owner, now=now)


def decided(thaw: Thaw | None, need: Need = STANDARD, storage_class: str = "GLACIER", *, now: datetime = NOW) -> Step:
    return decide(thaw, storage_class, need, owner="me", now=now)


# -- What S3 promises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage_class", "tier", "hours"),
    [
        ("GLACIER", Tier.EXPEDITED, 5 / 60),
        ("GLACIER", Tier.STANDARD, 5),
        ("GLACIER", Tier.BULK, 12),
        ("DEEP_ARCHIVE", Tier.STANDARD, 12),
        ("DEEP_ARCHIVE", Tier.BULK, 48),
        ("GLACIER_IR", Tier.BULK, 0),
        ("GLACIER_IR", Tier.EXPEDITED, 0),
    ],
)
def test_a_thaw_takes_as_long_as_s3_says(storage_class: str, tier: Tier, hours: float) -> None:
    assert offered(storage_class, tier)
    assert promise(storage_class, tier) == timedelta(hours=hours)


def test_a_slower_tier_is_never_promised_sooner_and_no_promise_ends_before_it_begins() -> None:
    for tiers in PROMISES.values():
        in_order = [tiers[tier] for tier in (Tier.EXPEDITED, Tier.STANDARD, Tier.BULK) if tier in tiers]
        assert in_order == sorted(in_order)
        assert all(soonest < latest for soonest, latest in in_order)


def test_deep_archive_has_no_expedited_tier_and_instant_retrieval_needs_none() -> None:
    assert not offered("DEEP_ARCHIVE", Tier.EXPEDITED)
    assert needs_thaw("DEEP_ARCHIVE")
    assert needs_thaw("GLACIER")
    assert not needs_thaw("GLACIER_IR")
    assert offered("GLACIER_IR", Tier.EXPEDITED)


# -- What a planner does ----------------------------------------------------------------------------------------------


def test_what_needs_no_thaw_is_read_at_once_whatever_a_row_says() -> None:
    assert decided(None, storage_class="GLACIER_IR") is Step.READ
    assert decided(claim(), storage_class="GLACIER_IR") is Step.READ


def test_an_archive_without_a_thaw_is_asked_for() -> None:
    assert decided(None) is Step.REQUEST


def test_a_copy_that_is_about_to_expire_counts_as_expired() -> None:
    assert decided(warm(NOW + BARELY)) is Step.REQUEST
    assert decided(warm(NOW + BARELY + INSTANT)) is Step.EXTEND
    assert warm(NOW + BARELY).is_cold(NOW)
    assert warm(NOW + BARELY + INSTANT).is_warm(NOW)


def test_a_copy_that_stays_for_as_long_as_it_is_needed_is_read_and_one_that_does_not_is_extended() -> None:
    assert decided(warm(NOW + DAY)) is Step.READ
    assert decided(warm(NOW + DAY - INSTANT)) is Step.EXTEND
    assert decided(warm(NOW + DAY), Need(tier=Tier.BULK, days=2)) is Step.EXTEND


def test_a_thaw_that_is_neither_claimed_nor_warm_is_neither_warm_nor_cold() -> None:
    running = thawing(Tier.BULK, ready_at=NOW - DAY)
    assert not running.is_warm(NOW)
    assert not running.is_cold(NOW)
    assert not replace(warm(NOW + DAY), warm_until=None).is_warm(NOW), "warm, it is not said until when"


def test_a_running_thaw_that_is_due_soon_enough_is_joined_and_a_later_one_upgraded() -> None:
    soon = NOW + promise("GLACIER", Tier.STANDARD)
    assert decided(thawing(Tier.BULK, ready_at=soon)) is Step.JOIN
    assert decided(thawing(Tier.BULK, ready_at=soon + INSTANT)) is Step.UPGRADE
    assert decided(thawing(Tier.BULK, ready_at=soon + INSTANT), BULK) is Step.JOIN


def test_a_running_thaw_is_never_upgraded_to_a_tier_that_is_not_faster() -> None:
    late = NOW + 7 * DAY
    assert decided(thawing(Tier.STANDARD, ready_at=late), STANDARD) is Step.JOIN
    assert decided(thawing(Tier.STANDARD, ready_at=late), BULK) is Step.JOIN
    assert decided(thawing(Tier.STANDARD, ready_at=late), EXPEDITED) is Step.UPGRADE


def test_an_overdue_thaw_is_joined_since_it_is_due_now() -> None:
    assert decided(thawing(Tier.BULK, ready_at=NOW - DAY), EXPEDITED) is Step.JOIN


def test_what_another_is_just_asking_for_is_joined_if_it_will_do_and_waited_for_if_not() -> None:
    assert decided(claim(Tier.STANDARD), STANDARD) is Step.JOIN
    assert decided(claim(Tier.EXPEDITED), BULK) is Step.JOIN
    assert decided(claim(Tier.BULK), STANDARD) is Step.WAIT


def test_a_claim_is_its_makers_to_repeat_and_anybodys_once_it_is_dead() -> None:
    standing = claim()
    assert standing.claimed_until == NOW + CLAIM
    assert decided(replace(standing, claimed_by="me")) is Step.REQUEST
    assert decided(standing, now=NOW + CLAIM - timedelta(seconds=1)) is Step.JOIN
    assert decided(standing, now=NOW + CLAIM + INSTANT) is Step.REQUEST
    upgrade = upgrading(thawing(Tier.BULK, ready_at=NOW + 9 * HOUR), STANDARD, owner="other", now=NOW)
    assert decided(replace(upgrade, claimed_by="me")) is Step.UPGRADE
    assert decided(upgrade, EXPEDITED) is Step.WAIT
    assert decided(upgrade, EXPEDITED, now=NOW + CLAIM + INSTANT) is Step.UPGRADE


# -- How the row changes ----------------------------------------------------------------------------------------------


def test_a_claim_asks_for_what_is_needed_and_keeps_what_others_wanted() -> None:
    fresh = claimed(None, 17, "GLACIER", Need(tier=Tier.BULK, days=3), owner="me", now=NOW)
    assert (fresh.archive, fresh.state, fresh.tier, fresh.revision) == (17, ThawState.CLAIMED, Tier.BULK, 0)
    assert (fresh.days, fresh.wanted_days) == (3, 3)
    assert fresh.ready_at == NOW + 12 * HOUR
    assert fresh.due_at == fresh.claimed_until == NOW + CLAIM
    dead = replace(claim(days=9), revision=4)
    again = claimed(dead, 17, "GLACIER", BULK, owner="me", now=NOW + DAY)
    assert (again.days, again.wanted_days, again.revision) == (9, 9, 4), "S3 may have heard it"
    cold = replace(warm(NOW, days=9), revision=5)
    anew = claimed(cold, 17, "GLACIER", BULK, owner="me", now=NOW)
    assert (anew.wanted_days, anew.warm_until, anew.revision) == (1, None, 5), "what was wanted of a gone copy is over"


def test_an_accepted_claim_thaws_and_is_due_when_s3_promises_from_then_on() -> None:
    then = NOW + timedelta(minutes=3)
    thaw = accepted(claim(Tier.STANDARD), "GLACIER", then)
    assert (thaw.state, thaw.claimed_by, thaw.claimed_until) == (ThawState.THAWING, "", None)
    assert thaw.ready_at == thaw.due_at == then + 5 * HOUR


def test_a_claim_that_finds_another_thaw_running_joins_it() -> None:
    thaw = joined(claim(Tier.STANDARD), NOW)
    assert (thaw.state, thaw.tier, thaw.claimed_by) == (ThawState.THAWING, Tier.STANDARD, "")
    assert thaw.ready_at == NOW + 5 * HOUR
    late = NOW + DAY
    assert joined(claim(Tier.STANDARD), late).ready_at == late, "what should be done by now is looked at now"


def test_an_upgrade_repeats_the_first_requests_days_and_only_s3s_yes_makes_it_due_sooner() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + 11 * HOUR, days=2)
    upgrade = upgrading(running, Need(tier=Tier.EXPEDITED, days=30), owner="me", now=NOW)
    assert (upgrade.state, upgrade.tier, upgrade.upgraded_from) == (ThawState.CLAIMED, Tier.EXPEDITED, Tier.BULK)
    assert (upgrade.days, upgrade.wanted_days) == (2, 30)
    assert upgrading(running, EXPEDITED, owner="me", now=NOW).wanted_days == 2
    assert upgrade.ready_at == running.ready_at
    assert upgrade.claimed_until == upgrade.due_at == NOW + CLAIM
    yes = accepted(upgrade, "GLACIER", NOW)
    assert (yes.tier, yes.upgraded_from, yes.ready_at) == (Tier.EXPEDITED, None, NOW + timedelta(minutes=5))
    no = joined(upgrade, NOW)
    assert (no.tier, no.upgraded_from, no.ready_at, no.state) == (
        Tier.BULK,
        None,
        running.ready_at,
        ThawState.THAWING,
    )


def test_an_upgrade_taken_over_from_the_dead_still_knows_which_tier_runs() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + 11 * HOUR)
    dead = upgrading(running, STANDARD, owner="other", now=NOW)
    mine = upgrading(dead, EXPEDITED, owner="me", now=NOW + HOUR)
    assert (mine.tier, mine.upgraded_from) == (Tier.EXPEDITED, Tier.BULK)
    assert joined(mine, NOW + HOUR).tier is Tier.BULK


def test_without_capacity_for_expedited_standard_is_asked_for_and_the_row_says_so() -> None:
    fallen = fallen_back(claim(Tier.EXPEDITED), "GLACIER", NOW)
    assert (fallen.tier, fallen.fell_back, fallen.state) == (Tier.STANDARD, True, ThawState.CLAIMED)
    assert fallen.ready_at == NOW + 5 * HOUR
    assert accepted(fallen, "GLACIER", NOW).fell_back
    running = thawing(Tier.BULK, ready_at=NOW + 11 * HOUR)
    upgrade = fallen_back(upgrading(running, EXPEDITED, owner="me", now=NOW), "GLACIER", NOW)
    assert (upgrade.tier, upgrade.ready_at) == (Tier.STANDARD, running.ready_at)
    assert joined(upgrade, NOW).tier is Tier.BULK


def test_an_upgrade_never_puts_off_what_was_promised_before() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + HOUR)
    upgrade = replace(upgrading(running, STANDARD, owner="me", now=NOW), fell_back=True)
    assert accepted(upgrade, "GLACIER", NOW).ready_at == NOW + HOUR


def test_without_capacity_for_expedited_what_is_due_before_standard_would_be_goes_on_as_it_was() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + HOUR)
    fallen = fallen_back(upgrading(running, EXPEDITED, owner="me", now=NOW), "GLACIER", NOW)
    assert fallen == replace(running, due_at=running.ready_at, fell_back=True, settled=True)
    assert decided(fallen, EXPEDITED) is Step.JOIN, "it is not asked for twice"


def test_expedited_that_is_to_be_had_after_all_has_not_fallen_back() -> None:
    slow = accepted(fallen_back(claim(Tier.EXPEDITED), "GLACIER", NOW), "GLACIER", NOW)
    upgrade = upgrading(slow, EXPEDITED, owner="me", now=NOW)
    assert joined(upgrade, NOW).fell_back
    assert not accepted(upgrade, "GLACIER", NOW).fell_back


def test_a_copy_that_somebody_else_asked_for_is_known_once_it_is_there() -> None:
    thaw = warmed(None, 17, until=NOW + DAY, now=NOW)
    assert (thaw.archive, thaw.state, thaw.warm_until, thaw.due_at) == (17, ThawState.WARM, NOW + DAY, NOW + GLANCE)
    assert thaw.days == thaw.wanted_days == 0


def test_a_copy_that_is_extended_ends_when_s3_says_and_has_the_days_that_were_wanted() -> None:
    thaw = warm(NOW + DAY)
    held = extending(replace(thaw, wanted_days=4), Need(tier=Tier.BULK, days=3), owner="me", now=NOW)
    assert (held.state, held.wanted_days, held.claimed_by) == (ThawState.WARM, 4, "me")
    longer = extended(held, until=NOW + 4 * DAY, now=NOW)
    assert (longer.warm_until, longer.days, longer.claimed_by) == (NOW + 4 * DAY, 4, "")
    again = extending(longer, Need(tier=Tier.BULK, days=2), owner="me", now=NOW)
    assert again.wanted_days == 2, "what was wanted before has been had"


def test_while_one_extends_a_copy_another_who_needs_it_longer_waits() -> None:
    held = extending(warm(NOW + DAY), Need(tier=Tier.BULK, days=3), owner="other", now=NOW)
    longer = Need(tier=Tier.BULK, days=4)
    assert decided(held, longer) is Step.WAIT
    assert decided(held, Need(tier=Tier.BULK, days=1)) is Step.READ
    assert decided(held, longer, now=NOW + CLAIM) is Step.EXTEND


def test_what_several_need_is_the_fastest_tier_and_the_most_days() -> None:
    assert combined([BULK]) == BULK
    needed = [Need(tier=Tier.STANDARD, days=2), Need(tier=Tier.BULK, days=9), Need(tier=Tier.BULK, days=1)]
    assert combined(needed) == Need(tier=Tier.STANDARD, days=9)
    assert combined([*needed, EXPEDITED]) == Need(tier=Tier.EXPEDITED, days=9)


def test_s3_is_asked_about_a_thaw_every_few_hours_until_it_is_promised_and_hourly_from_then_on() -> None:
    assert next_look(NOW + 12 * HOUR, NOW) == NOW + LOOK
    assert next_look(NOW + HOUR, NOW) == NOW + HOUR
    assert next_look(NOW, NOW) == next_look(NOW - DAY, NOW) == NOW + PATIENCE
    assert LOOK < DAY, "or a copy of one day could come and go unseen"


def test_a_faster_tier_that_s3_has_refused_for_a_thaw_is_not_asked_for_again() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + 11 * HOUR)
    refused = joined(upgrading(running, STANDARD, owner="me", now=NOW), NOW)
    assert refused.settled
    assert decided(refused, STANDARD) is decided(refused, EXPEDITED) is Step.JOIN
    assert decided(joined(claim(Tier.BULK), NOW), STANDARD) is Step.UPGRADE, "a thaw that was just met may be upgraded"
    anew = claimed(replace(refused, state=ThawState.WARM, warm_until=NOW), 17, "GLACIER", BULK, owner="me", now=NOW)
    assert not anew.settled


def test_a_copy_that_s3_knows_nothing_of_is_cold() -> None:
    assert gone(warm(NOW + DAY), NOW).is_cold(NOW)
    assert decided(gone(warm(NOW + DAY), NOW)) is Step.REQUEST


def test_who_takes_a_dead_claim_over_pays_what_its_tier_costs_more() -> None:
    price = {tier: thaw_micro_usd("GLACIER", tier, days=1, size_bytes=25_000_000) for tier in Tier}

    def added(seen: Thaw | None, tier: Tier) -> int:
        return claim_micro_usd(seen, claim(tier), "GLACIER", 25_000_000)

    assert added(None, Tier.STANDARD) == price[Tier.STANDARD]
    assert added(claim(Tier.STANDARD), Tier.STANDARD) == 0
    assert added(claim(Tier.BULK), Tier.EXPEDITED) == price[Tier.EXPEDITED] - price[Tier.BULK]
    assert added(claim(Tier.EXPEDITED), Tier.BULK) == 0
    assert added(thawing(Tier.BULK, ready_at=NOW + HOUR), Tier.STANDARD) == price[Tier.STANDARD]


def test_a_thaw_was_ready_when_its_copy_was_first_seen() -> None:
    running = thawing(Tier.BULK, ready_at=NOW + 3 * HOUR)
    thaw = warmed(running, 17, until=NOW + DAY, now=NOW)
    assert thaw.ready_at == NOW
    assert warmed(thaw, 17, until=NOW + 2 * DAY, now=NOW + HOUR).ready_at == NOW
    claims = warmed(claim(), 17, until=NOW + DAY, now=NOW)
    assert (claims.claimed_by, claims.claimed_until, claims.state) == ("", None, ThawState.WARM)


# -- All of it, against S3 --------------------------------------------------------------------------------------------

OWNERS = ("me", "other", "third")


@dataclass
class Ice:
    """One archive as S3 has it, its row, and those who ask. Every answer is one that S3 can give."""

    storage_class: str
    now: datetime = NOW
    row: Thaw | None = None
    asking: dict[str, Thaw] = field(default_factory=dict)
    runs: Tier | None = None
    days: int = 0
    until: datetime | None = None
    requests: int = 0

    def write(self, row: Thaw) -> Thaw:
        """As the table does: the revision counts the changes, and only the table counts it."""
        seen = self.row
        assert row.revision == (seen.revision if seen else 0), "a transition keeps the revision"
        if seen is not None and seen.state is not ThawState.WARM:
            assert row.wanted_days >= seen.wanted_days, "what somebody wants of a thaw is never forgotten"
        assert row.archive == 17
        assert bool(row.claimed_by) == (row.claimed_until is not None)
        assert row.claimed_by or row.state is not ThawState.CLAIMED
        assert not row.claimed_by or row.state is not ThawState.THAWING
        assert (row.state is ThawState.WARM) == (row.warm_until is not None)
        assert row.upgraded_from is None or row.state is ThawState.CLAIMED
        assert row.due_at is not None
        assert offered(self.storage_class, row.tier)
        self.row = replace(row, revision=row.revision + 1)
        return self.row

    def plan(self, need: Need, owner: str) -> None:
        """What a planner does up to its request."""
        step = decide(self.row, self.storage_class, need, owner=owner, now=self.now)
        held = self.row
        if step is Step.REQUEST:
            claim = claimed(held, 17, self.storage_class, need, owner=owner, now=self.now)
            self.asking[owner] = self.write(claim)
        elif step is Step.UPGRADE:
            assert held is not None
            self.asking[owner] = self.write(upgrading(held, need, owner=owner, now=self.now))
        elif step is Step.JOIN:
            assert held is not None
            if held.state is ThawState.THAWING:
                self.write(replace(held, wanted_days=max(held.wanted_days, need.days)))
        elif step is Step.EXTEND:
            assert held is not None
            self.asking[owner] = self.write(extending(held, need, owner=owner, now=self.now))

    def answer(self, owner: str, *, lucky: bool, survives: bool = True) -> None:
        """S3 answers a planner, who records it, unless its claim is gone or it does not survive the request."""
        claim = self.asking.pop(owner, None)
        if claim is None:
            return
        if claim.state is ThawState.WARM:
            self.extend(claim, survives=survives)
            return
        if claim.tier is Tier.EXPEDITED and not lucky and not self.warm:
            if self.row == claim:
                fallen = self.write(fallen_back(claim, self.storage_class, self.now))
                if fallen.state is ThawState.CLAIMED:
                    self.asking[owner] = fallen
            return
        self.requests += 1
        faster = self.runs and promise(self.storage_class, claim.tier) < promise(self.storage_class, self.runs)
        if self.warm:
            self.until = self.midnight(claim.days)
            after = warmed(claim, 17, until=self.until, now=self.now)
        elif self.runs is None or (faster and lucky):
            assert self.runs is None or claim.days == self.days, "S3 insists on the first request's days"
            self.runs, self.days = claim.tier, claim.days
            after = accepted(claim, self.storage_class, self.now)
        else:
            after = joined(claim, self.now)
            if claim.upgraded_from:
                assert (after.tier, after.ready_at) == (claim.upgraded_from, max(claim.ready_at, self.now))
        if self.row == claim and survives:
            self.write(after)

    def extend(self, claim: Thaw, *, survives: bool) -> None:
        """S3 sets the end of the copy anew, if it has it."""
        if self.warm:
            self.until = self.midnight(claim.wanted_days)
            after = extended(claim, until=self.until, now=self.now)
            assert after.is_warm(self.now, for_days=claim.wanted_days)
        else:
            after = gone(claim, self.now)
        if self.row == claim and survives:
            self.write(after)

    def complete(self) -> None:
        """The thaw ends, and its event arrives."""
        if self.runs:
            self.runs, self.until = None, self.midnight(self.days)
            self.write(warmed(self.row, 17, until=self.until, now=self.now))

    @property
    def warm(self) -> bool:
        return self.until is not None and self.until > self.now

    def midnight(self, days: int) -> datetime:
        """Days from now, rounded up to the next midnight."""
        end = self.now + timedelta(days=days)
        return end.replace(hour=0, minute=0) + DAY


def check(step: Step, thaw: Thaw | None, storage_class: str, need: Need, now: datetime) -> None:
    """What holds of every decision of `me`, whatever led there."""
    state = thaw.state if thaw else None
    running = state is ThawState.THAWING
    live = (
        thaw is not None
        and thaw.claimed_by not in ("", "me")
        and (thaw.claimed_until is not None and thaw.claimed_until > now)
    )
    usable = thaw is not None and thaw.is_warm(now)
    in_time = thaw is not None and max(thaw.ready_at, now) <= now + promise(storage_class, need.tier)
    faster = thaw is not None and promise(storage_class, need.tier) < promise(storage_class, thaw.tier)
    match step:
        case Step.REQUEST:
            assert not live or (thaw is not None and thaw.is_cold(now))
            assert not running
            assert not usable
        case Step.READ | Step.EXTEND:
            assert usable
            assert thaw is not None
            assert thaw.warm_until is not None
            assert (thaw.warm_until >= now + timedelta(days=need.days)) == (step is Step.READ)
            assert step is Step.READ or not live
        case Step.JOIN:
            assert thaw is not None
            assert running or live
            assert in_time or not faster or thaw.settled
        case Step.WAIT:
            assert live
            assert usable or (faster and not in_time)
        case Step.UPGRADE:
            assert thaw is not None
            assert (running and faster and not in_time and not thaw.settled) or (not live and thaw.upgraded_from)


def needs(storage_class: str, days: Iterable[int] = (1, 2, 30)) -> list[Need]:
    return [Need(tier=tier, days=count) for tier, count in product(Tier, days) if offered(storage_class, tier)]


MOVES = st.one_of(
    st.tuples(st.just("plan"), st.sampled_from(OWNERS), st.sampled_from(list(Tier)), st.sampled_from([1, 2, 30])),
    st.tuples(st.just("answer"), st.sampled_from(OWNERS), st.booleans()),
    st.tuples(st.just("die"), st.sampled_from(OWNERS), st.booleans()),
    st.tuples(st.just("complete")),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 17, 60, 299, 300, 600, 721, 1_440, 2_881, 50_000])),
)


@given(storage_class=st.sampled_from(["GLACIER", "DEEP_ARCHIVE"]), moves=st.lists(MOVES, max_size=25))
@settings(max_examples=120, deadline=None)
def test_whatever_led_there_every_decision_is_sound(storage_class: str, moves: list[tuple[object, ...]]) -> None:
    ice = Ice(storage_class)
    for move in moves:
        match move:
            case ("plan", str(owner), Tier() as tier, int(days)) if offered(storage_class, tier):
                ice.plan(Need(tier=tier, days=days), owner)
            case ("answer", str(owner), bool(lucky)):
                ice.answer(owner, lucky=lucky)
            case ("die", str(owner), True):
                ice.answer(owner, lucky=True, survives=False)
            case ("die", str(owner), False):
                ice.asking.pop(owner, None)
            case ("complete",):
                ice.complete()
            case ("wait", int(minutes)):
                ice.now += timedelta(minutes=minutes)
        for need in needs(storage_class):
            step = decide(ice.row, storage_class, need, owner="me", now=ice.now)
            check(step, ice.row, storage_class, need, ice.now)


@given(moves=st.lists(MOVES.filter(lambda move: move[0] in ("plan", "answer")), max_size=20))
@settings(max_examples=80, deadline=None)
def test_while_nobody_dies_and_nothing_expires_only_a_faster_tier_is_a_second_request(
    moves: list[tuple[object, ...]],
) -> None:
    ice = Ice("GLACIER")
    tiers: set[Tier] = set()
    for move in moves:
        match move:
            case ("plan", str(owner), Tier() as tier, int(days)) if owner not in ice.asking:
                ice.plan(Need(tier=tier, days=days), owner)
                tiers.add(tier)
            case ("answer", str(owner), _):
                ice.answer(owner, lucky=True)
    assert ice.requests <= len(tiers)


# -- Keys -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**12))
def test_an_archive_is_known_by_its_key(serial: int) -> None:
    assert archive_of(archive_key(serial, "tar")) == archive_of(archive_key(serial, "object")) == serial
    assert archive_of(manifest_key(serial)) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "archives/0000000017",
        "archives/0000000017.zip",
        "archives/17.tar",
        "xarchives/0000000017.tar",
        "archives/0000000017.tar\n",
        "archives/0000000017.tar/x",
        "archives/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661\u0667.tar",
    ],
)
def test_other_keys_are_no_archives(key: str) -> None:
    assert archive_of(key) is None


# -- What it costs ----------------------------------------------------------------------------------------------------

# By hand, prices of autumn 2026 in micro-dollars. 25 MiB are 0.0244140625 GB; its copy of one day is billed for up to
# two: 0.0244140625 x 2/30 x 23,000 = 37.43.
COSTS = [
    ("GLACIER", Tier.STANDARD, 1, 25 * MIB, 244.140625 + 50 + 37.4349),
    ("GLACIER", Tier.EXPEDITED, 1, 25 * MIB, 732.421875 + 10_000 + 37.4349),
    ("GLACIER", Tier.BULK, 1, 25 * MIB, 37.4349),
    ("DEEP_ARCHIVE", Tier.STANDARD, 1, 25 * MIB, 488.28125 + 100 + 37.4349),
    ("DEEP_ARCHIVE", Tier.BULK, 1, 25 * MIB, 61.03515625 + 25 + 37.4349),
    ("GLACIER", Tier.STANDARD, 7, 25 * MIB, 244.140625 + 50 + 4 * 37.4349),
    ("GLACIER", Tier.STANDARD, 1, 1024 * 1024 * MIB, 10_240_000 + 50 + 1_570_133.33),
    ("GLACIER", Tier.STANDARD, 1, 0, 50),
    ("GLACIER", Tier.BULK, 1, 0, 0),
    ("GLACIER_IR", Tier.STANDARD, 1, 25 * MIB, 0),
]


@pytest.mark.parametrize(("storage_class", "tier", "days", "size_bytes", "micro_usd"), COSTS)
def test_a_thaw_costs_what_the_price_list_says_rounded_up(
    storage_class: str, tier: Tier, days: int, size_bytes: int, micro_usd: float
) -> None:
    cost = thaw_micro_usd(storage_class, tier, days=days, size_bytes=size_bytes)
    assert 0 <= cost - micro_usd < 1


@given(
    class_and_tier=st.sampled_from([(name, tier) for name, tiers in PROMISES.items() for tier in tiers]),
    days=st.integers(1, 365),
    size_bytes=st.integers(0, 10_000 * 5 * 1024**3),
)
def test_the_figure_for_the_cap_is_never_below_the_bill_and_above_it_by_less_than_a_micro_dollar(
    class_and_tier: tuple[str, Tier], days: int, size_bytes: int
) -> None:
    storage_class, tier = class_and_tier
    uses = thaw_uses(storage_class, tier, days=days, archives=1, size_bytes=size_bytes)
    exact = Bill(prices=US_EAST_1, uses=tuple(uses)).usd * 1_000_000
    assert 0 <= thaw_micro_usd(storage_class, tier, days=days, size_bytes=size_bytes) - exact < 1


def test_a_faster_tier_costs_more() -> None:
    for storage_class, tiers in PROMISES.items():
        costs = [thaw_micro_usd(storage_class, tier, days=1, size_bytes=MIB) for tier in Tier if tier in tiers]
        assert costs == sorted(set(costs))


def test_many_thaws_are_one_request_each_and_their_bytes_together() -> None:
    uses = thaw_uses("GLACIER", Tier.STANDARD, days=2, archives=1_000, size_bytes=1_000 * 25 * MIB)
    assert {use.purpose: (use.charge, use.quantity) for use in uses} == {
        "retrieval": (Charge.GLACIER_STANDARD_GB, pytest.approx(24.4140625)),
        "retrieval requests": (Charge.GLACIER_STANDARD_REQUEST, 1_000),
        "temporary copies": (Charge.S3_STANDARD_GB_MONTH, pytest.approx(24.4140625 * 3 / 30)),
    }
    assert all(use.rule for use in uses if use.charge is Charge.S3_STANDARD_GB_MONTH)
    assert thaw_uses("GLACIER_IR", Tier.BULK, days=2, archives=5, size_bytes=MIB) == []


def test_reading_is_charged_by_request_and_from_instant_retrieval_by_byte_as_well() -> None:
    def by_charge(uses: Iterable[Use]) -> dict[Charge, float]:
        return {use.charge: use.quantity for use in uses}

    for storage_class in ("GLACIER", "DEEP_ARCHIVE"):
        uses = read_uses(storage_class, reads=3, writes=5, size_bytes=1024**3)
        assert by_charge(uses) == {Charge.S3_GET: 3, Charge.S3_PUT: 5}
    uses = read_uses("GLACIER_IR", reads=3, writes=5, size_bytes=1024**3)
    assert by_charge(uses) == {Charge.GLACIER_IR_GB: 1, Charge.GLACIER_IR_GET: 3, Charge.S3_PUT: 5}


def test_an_audit_costs_the_thaw_for_a_day_and_one_read() -> None:
    thaw = thaw_micro_usd("GLACIER", Tier.STANDARD, days=1, size_bytes=MIB)
    assert audit_micro_usd("GLACIER", Tier.STANDARD, size_bytes=MIB) == thaw + 1
    assert audit_micro_usd("GLACIER_IR", Tier.STANDARD, size_bytes=1024**3) == 30_010

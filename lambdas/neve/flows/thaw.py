"""Thawing: have an archive readable for whoever waits for it, with one request however many they are.

Whoever needs an archive has written what waits for it before it comes here. So whether it finds the thaw warm, or the
event finds what waits, nothing is left behind: the event's handler first marks the thaw warm and then looks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from neve.domain.index import ArchiveRow
from neve.domain.restore import ThawRequest, render_thaw_request, render_thawed
from neve.domain.thaw import (
    Need,
    Step,
    Thaw,
    ThawState,
    accepted,
    claim_micro_usd,
    claimed,
    decide,
    extended,
    extending,
    fallen_back,
    gone,
    joined,
    needs_thaw,
    thaw_micro_usd,
    upgrading,
    warmed,
)
from neve.errors import Busy, OverCap, Transient
from neve.ports import Answer, Glacier, Queue, Thaws

TRIES = 10
"""How often a thaw may change under one's eyes before the message had better come again."""
RETRY_S = 120
"""Ten deliveries outlast a claim whose maker has died."""
SLACK = timedelta(hours=1)
"""A copy lasts for whole days from its completion, and the event comes a moment later."""


@dataclass(frozen=True, kw_only=True)
class Thawer:
    """The rules of thawing over their ports. `pace` returns when the next request to S3 may be sent.

    `cap_micro_usd` is what thaws may cost in a day, in millionths of a dollar; 0 for no cap. Unless it is `counted`,
    what is spent here leaves the day's spending as it is.
    """

    thaws: Thaws
    glacier: Glacier
    extract_queue: Queue
    pace: Callable[[], None]
    cap_micro_usd: int
    clock: Callable[[], datetime]
    counted: bool = True

    def ensure(self, archive: ArchiveRow, need: Need, *, owner: str) -> Step:
        """Do what `need` takes for `archive` to be readable, and have Extract told if it is; what was done.

        Raises OverCap (nothing was asked of S3), ArchiveUnreadable (there is nothing to thaw), Busy while another is
        just asking, Transient.
        """
        for _ in range(TRIES):
            now = self.clock()
            thaw = self.thaws.get(archive.serial) if needs_thaw(archive.storage_class) else None
            step = decide(thaw, archive.storage_class, need, owner=owner, now=now)
            try:
                taken = self._take(step, thaw, archive, need, owner)
            except OverCap:
                if step is not Step.UPGRADE:
                    raise
                step = Step.JOIN  # what runs is paid for
                taken = self._take(step, thaw, archive, need, owner)
            if taken:
                return step
        raise Transient(f"the thaw of archive {archive.serial} keeps changing")

    def affordable(self, archive: ArchiveRow, need: Need) -> bool:
        """Whether a day's cap is enough for this thaw, if nothing else is spent that day."""
        price = thaw_micro_usd(archive.storage_class, need.tier, days=need.days, size_bytes=archive.size_bytes)
        return not self.cap_micro_usd or price <= self.cap_micro_usd

    def _take(self, step: Step, thaw: Thaw | None, archive: ArchiveRow, need: Need, owner: str) -> bool:
        """Take one step; False if another was first."""
        now = self.clock()
        match step:
            case Step.READ:
                self.extract_queue.send(render_thawed(archive.serial))
                return True
            case Step.WAIT:
                raise Busy(f"a thaw of archive {archive.serial} is just being asked for", retry_after_s=RETRY_S)
            case Step.REQUEST:
                claim = claimed(thaw, archive.serial, archive.storage_class, need, owner=owner, now=now)
                return self._claim_and_ask(thaw, claim, archive)
            case _:
                assert thaw is not None, "only a thaw that stands is joined, extended or upgraded"
        match step:
            case Step.JOIN:
                enough = thaw.wanted_days >= need.days
                return enough or bool(self.thaws.swap(thaw, replace(thaw, wanted_days=need.days)))
            case Step.UPGRADE:
                return self._claim_and_ask(thaw, upgrading(thaw, need, owner=owner, now=now), archive)
            case _:
                held = self.thaws.swap(thaw, extending(thaw, need, owner=owner, now=now))
                return held is not None and self._holding(held, lambda: self._extend(held, archive, need))

    def _claim_and_ask(self, thaw: Thaw | None, claim: Thaw, archive: ArchiveRow) -> bool:
        standing = self.thaws.claim(
            thaw,
            claim,
            micro_usd=claim_micro_usd(thaw, claim, archive.storage_class, archive.size_bytes) if self.counted else 0,
            cap_micro_usd=self.cap_micro_usd,
            now=self.clock(),
        )
        return standing is not None and self._holding(standing, lambda: self._ask(standing, archive))

    def _holding(self, claim: Thaw, ask: Callable[[], bool]) -> bool:
        """Let go of the claim if S3 cannot be asked, so that the next planner may at once."""
        try:
            return ask()
        except Exception:
            with suppress(Transient):
                self._record(claim, lambda row: replace(row, claimed_until=self.clock(), due_at=self.clock()))
            raise

    def _ask(self, claim: Thaw, archive: ArchiveRow) -> bool:
        """Ask S3 for what is claimed, and record what it says.

        A 200 has no event behind it; what it means, HEAD tells.
        """
        self.pace()
        answer = self.glacier.request(archive, tier=claim.tier, days=claim.days)
        now = self.clock()
        if answer is Answer.UNAVAILABLE:
            standing = self._record(claim, lambda row: fallen_back(row, archive.storage_class, now))
            if standing is None or standing.state is not ThawState.CLAIMED:
                return True
            return self._ask(standing, archive)
        if answer is Answer.RUNNING:
            self._record(claim, lambda row: joined(row, now))
            return True
        until = self._warm_until(archive) if answer is Answer.WARM else None
        if until is None:
            self._record(claim, lambda row: accepted(row, archive.storage_class, now))
        else:
            warm = self._record(claim, lambda row: warmed(row, archive.serial, until=until, now=now))
            warm = warm or self._shortened(archive.serial, until)
            self.extract_queue.send(render_thawed(archive.serial))
            if warm is not None and warm.wanted_days > warm.days:  # of somebody who was there meanwhile
                self.ensure(archive, Need(tier=warm.tier, days=warm.wanted_days), owner=claim.claimed_by)
        return True

    def _shortened(self, archive: int, until: datetime) -> Thaw | None:
        """The row of a copy that this request has made shorter than another had asked for; None if it has not."""
        thaw = self.thaws.get(archive)
        if thaw is None or thaw.state is not ThawState.WARM or thaw.warm_until is None or thaw.warm_until <= until:
            return None
        return self.thaws.swap(thaw, replace(thaw, warm_until=until, days=0))

    def _extend(self, claim: Thaw, archive: ArchiveRow, need: Need) -> bool:
        """Have the copy stay longer. If there is none any more, the row says so, and the next look asks for a thaw."""
        status = self.glacier.status(archive)
        now = self.clock()
        if status.warm_until is None:
            self._record(claim, lambda row: joined(row, now) if status.running else gone(row, now))
            return status.running
        self.pace()
        answer = self.glacier.request(archive, tier=need.tier, days=claim.wanted_days)
        if answer is not Answer.WARM:  # it expired in between; if a thaw runs now, S3 will say so
            self._record(claim, lambda row: gone(row, now))
            return False
        until = self._warm_until(archive)
        if until is None:
            raise Transient(f"the copy of archive {archive.serial} was extended, and is being thawed")
        self._record(claim, lambda row: extended(row, until=until, now=now))
        self.extract_queue.send(render_thawed(archive.serial))
        return True

    def _warm_until(self, archive: ArchiveRow) -> datetime | None:
        """Until when the copy is there that S3 has just spoken of; None if it is still being thawed."""
        status = self.glacier.status(archive)
        if status.warm_until is None and not status.running:
            raise Transient(f"S3 says that archive {archive.serial} is thawed, and that it is not")
        return status.warm_until

    def _record(self, claim: Thaw, change: Callable[[Thaw], Thaw]) -> Thaw | None:
        """Change the row that `claim` holds, whoever has joined it meanwhile; None if it holds the row no more.

        Then the event was faster, or the claim was taken for dead: whoever has the row now knows more.
        """
        standing: Thaw | None = claim
        for _ in range(TRIES):
            if standing is None or standing.claimed_by != claim.claimed_by or standing.state is not claim.state:
                return None
            changed = self.thaws.swap(standing, change(standing))
            if changed is not None:
                return changed
            standing = self.thaws.get(claim.archive)
        raise Transient(f"the thaw of archive {claim.archive} keeps changing")


def mark_warm(thaws: Thaws, archive: int, *, until: datetime, now: datetime, requests_queue: Queue) -> None:
    """Note that the copy of an archive is there `until` then.

    A late event, of a copy that has expired since, changes nothing, and a repeated one neither. If somebody joined who
    needs the copy for longer than it will be there, PlanRestore is told to extend it.
    """
    if until <= now:
        return
    for _ in range(TRIES):
        thaw = thaws.get(archive)
        if thaw is not None and thaw.is_warm(now) and thaw.warm_until is not None and thaw.warm_until >= until:
            return
        warm = thaws.swap(thaw, warmed(thaw, archive, until=until, now=now))
        if warm is not None:
            if until + SLACK < now + timedelta(days=warm.wanted_days):
                need = Need(tier=warm.tier, days=warm.wanted_days)
                requests_queue.send(render_thaw_request(ThawRequest(archive=archive, need=need)))
            return
    raise Transient(f"the thaw of archive {archive} keeps changing")

"""Thawing: have an archive readable for whoever waits for it, with one request however many they are.

Whoever needs an archive has written what waits for it before it comes here. So whether it finds the thaw warm, or the
event finds what waits, nothing is left behind: the event's handler first marks the thaw warm and then looks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from neve.domain.index import ArchiveRow
from neve.domain.restore import ThawRequest, render_thaw_request, render_thawed
from neve.domain.thaw import (
    Need,
    Step,
    Thaw,
    ThawState,
    accepted,
    claimed,
    decide,
    fallen_back,
    joined,
    needs_thaw,
    thaw_micro_usd,
    upgrading,
    warmed,
)
from neve.errors import Busy, Transient
from neve.ports import Answer, Glacier, Queue, Thaws

TRIES = 10
"""How often a thaw may change under one's eyes before the message had better come again."""
RETRY_S = 30


@dataclass(frozen=True, kw_only=True)
class Thawer:
    """The rules of thawing over their ports. `pace` returns when the next request to S3 may be sent.

    `cap_micro_usd` is what thaws may cost in a day, in millionths of a dollar; 0 for no cap.
    """

    thaws: Thaws
    glacier: Glacier
    extract_queue: Queue
    pace: Callable[[], None]
    cap_micro_usd: int
    clock: Callable[[], datetime]

    def ensure(self, archive: ArchiveRow, need: Need, *, owner: str) -> Step:
        """Do what `need` takes for `archive` to be readable, and have Extract told if it is; what was done.

        Raises OverCap (nothing was asked of S3), Busy while another is just asking, Transient.
        """
        for _ in range(TRIES):
            now = self.clock()
            thaw = self.thaws.get(archive.serial) if needs_thaw(archive.storage_class) else None
            step = decide(thaw, archive.storage_class, need, owner=owner, now=now)
            if self._take(step, thaw, archive, need, owner):
                return step
        raise Transient(f"the thaw of archive {archive.serial} keeps changing")

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
                return thaw.wanted_days >= need.days or bool(
                    self.thaws.swap(thaw, replace(thaw, wanted_days=need.days))
                )
            case Step.UPGRADE:
                return self._claim_and_ask(thaw, upgrading(thaw, need, owner=owner, now=now), archive)
            case _:
                return self._extend(thaw, archive, need, owner)

    def _claim_and_ask(self, thaw: Thaw | None, claim: Thaw, archive: ArchiveRow) -> bool:
        price = thaw_micro_usd(archive.storage_class, claim.tier, days=claim.days, size_bytes=archive.size_bytes)
        paid = thaw is not None and thaw.state is ThawState.CLAIMED  # by who claimed it before, and has died
        standing = self.thaws.claim(
            thaw, claim, micro_usd=0 if paid else price, cap_micro_usd=self.cap_micro_usd, now=self.clock()
        )
        if standing is None:
            return False
        try:
            return self._ask(standing, archive)
        except Exception:
            self._let_go(standing)
            raise

    def _ask(self, claim: Thaw, archive: ArchiveRow) -> bool:
        """Ask S3 for what is claimed, and record what it says.

        If the record is refused, the event was faster, or the claim was taken for dead: whoever has it now knows more.
        """
        self.pace()
        answer = self.glacier.request(archive, tier=claim.tier, days=claim.days)
        now = self.clock()
        if answer is Answer.UNAVAILABLE:
            standing = self.thaws.swap(claim, fallen_back(claim, archive.storage_class, now))
            return standing is not None and self._ask(standing, archive)
        after = self._after(answer, claim, archive, now)
        self.thaws.swap(claim, after)
        if after.state is ThawState.WARM:
            self.extract_queue.send(render_thawed(archive.serial))
        return True

    def _after(self, answer: Answer, claim: Thaw, archive: ArchiveRow, now: datetime) -> Thaw:
        """The row after S3's answer. A 200 has no event behind it; what it means, HEAD tells."""
        if answer is Answer.RUNNING:
            return joined(claim, now)
        if answer is Answer.WARM:
            status = self.glacier.status(archive)
            if status.warm_until:
                return warmed(claim, archive.serial, until=status.warm_until, now=now)
            if not status.running:
                raise Transient(f"S3 says that archive {archive.serial} is thawed, and that it is not")
        return accepted(claim, archive.storage_class, now)

    def _extend(self, thaw: Thaw, archive: ArchiveRow, need: Need, owner: str) -> bool:
        """Have the copy stay longer. No claim: asked twice, S3 sets the same end twice, and retrieves nothing."""
        self.pace()
        answer = self.glacier.request(archive, tier=thaw.tier, days=need.days)
        now = self.clock()
        if answer is Answer.WARM:
            longer = replace(thaw, days=need.days, wanted_days=max(thaw.wanted_days, need.days))
            if not self.thaws.swap(thaw, self._after(answer, longer, archive, now)):
                return False
            self.extract_queue.send(render_thawed(archive.serial))
            return True
        # The copy had just expired, so a new thaw runs now.
        again = claimed(
            thaw, archive.serial, archive.storage_class, replace(need, tier=thaw.tier), owner=owner, now=now
        )
        return self.thaws.swap(thaw, self._after(Answer.RUNNING, again, archive, now)) is not None

    def _let_go(self, claim: Thaw) -> None:
        """Let the next planner ask at once; whether S3 has heard this request, its answer will tell."""
        with suppress(Transient):
            self.thaws.swap(claim, replace(claim, claimed_until=self.clock(), due_at=self.clock()))


def mark_warm(thaws: Thaws, archive: int, *, until: datetime, now: datetime, requests_queue: Queue) -> None:
    """Note that the copy of an archive is there `until` then.

    A late event, of a copy that has expired since, changes nothing, and a repeated one neither. If somebody joined who
    needs the copy for longer than the first request asked, PlanRestore is told to extend it.
    """
    for _ in range(TRIES):
        thaw = thaws.get(archive)
        if until <= now:
            return
        if thaw is None or not thaw.is_warm(now) or thaw.warm_until is None or thaw.warm_until < until:
            thaw = thaws.swap(thaw, warmed(thaw, archive, until=until, now=now))
        if thaw is not None:
            if thaw.wanted_days > thaw.days:
                need = Need(tier=thaw.tier, days=thaw.wanted_days)
                requests_queue.send(render_thaw_request(ThawRequest(archive=archive, need=need)))
            return
    raise Transient(f"the thaw of archive {archive} keeps changing")

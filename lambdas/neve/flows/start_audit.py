"""StartAudit: draw which archives are audited, hash their sources, then have them thawed.

A draw is frozen before anything is done about it: the same message, delivered again, goes on with the same archives.
The hashes of the sources are kept away from the archive before its thaw is asked for, and an audit stands before its
thaw is looked at: so whether the copy is warm already or an event will tell, nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from random import Random

from neve.domain.audit import (
    GIVEN_UP_AFTER,
    Audit,
    AuditRequest,
    Cause,
    Run,
    RunRequest,
    Stage,
    need,
    patience,
    render_audit_request,
    report_of,
)
from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.restore import render_thawed
from neve.domain.sampling import (
    UNWRITTEN,
    Budget,
    Candidate,
    Month,
    Picked,
    Rolling,
    draw,
    earned,
    month_before,
    month_name,
    oldest_first,
    pick,
    sample_size,
    settled,
)
from neve.domain.thaw import Step, Tier, audit_micro_usd, offered_tier
from neve.domain.verdict import Finding, Sighting, Verdict
from neve.errors import ArchiveUnreadable, EventInvalid, Transient
from neve.flows.audit_runs import LOOK, RunEnder
from neve.flows.contents import manifest_of
from neve.flows.thaw import Thawer
from neve.flows.witness import Crc, Witness
from neve.ports import Archives, ArchiveStore, Audits, Queue

LOOKED_AHEAD = 100
"""Rows at the frontier whose last audits are looked up at once: DynamoDB takes so many keys."""
THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What became of one archive's audit: `seen` sources were hashed, of `source_bytes`; `step` is what its thaw took.

    All are empty if another is at it, or it has ended. `unread` is 1 if it was given up.
    """

    seen: int = 0
    source_bytes: int = 0
    step: Step | None = None
    unread: int = 0


@dataclass(frozen=True, kw_only=True)
class AuditStarter:
    """StartAudit's rules over its ports. A horizon of 0 days means that there is no rolling pass."""

    archives: Archives
    store: ArchiveStore
    audits: Audits
    witness: Witness
    crc: Crc
    thawer: Thawer
    audits_queue: Queue
    verify_queue: Queue
    ender: RunEnder
    tier: Tier
    horizon_days: int
    budget: Budget
    rng: Random
    clock: Callable[[], datetime]

    def start(self, request: RunRequest) -> Run:
        """Draw the run unless it was drawn before, and have each of its archives audited; the run as it stands.

        Raises EventInvalid if it names an archive that does not exist, and Transient.
        """
        run = self.audits.run(request.id) or self._drawn(request)
        if run.finished_at is None:
            self._send(run.id, run.archives_drawn)
            self.ender.end(run.id)  # one of no archives ends at once
        return run

    def sweep(self) -> int:
        """Look after audits that are overdue and runs that are not told of; how many there were.

        To send an audit its message once more is harmless where nothing was lost. A run that fails holds back none of
        the others; what it failed with is raised at the end.
        """
        now = self.clock()
        looked_after = 0
        failed: Exception | None = None
        for audit in self.audits.due(now):
            self._send(audit.run, [audit.archive])
            looked_after += 1
        for run in self.audits.untold(now):
            try:
                looked_after += int(self.ender.see_to(run))
                self._send_lost(run, now)
            except Exception as error:  # noqa: BLE001  # raised below
                failed = failed or error
        if failed is not None:
            raise failed
        return looked_after

    def _send_lost(self, run: Run, now: datetime) -> None:
        """Have audits begun whose messages have died in the dead-letter queue, whose alarm rang days ago."""
        if run.complete or run.created_at + GIVEN_UP_AFTER > now:
            return
        ended = {report.archive for report in self.audits.reports(run.id)}
        for serial in run.archives_drawn:
            if serial not in ended and all(audit.run != run.id for audit in self.audits.waiting(serial)):
                self._send(run.id, [serial])

    def idle(self, run: Run) -> bool:
        """Whether the run had nothing to audit because nothing was ever audited: then its silence is no alarm."""
        return not run.audits and next(self.audits.audited(), None) is None

    def begin(self, request: AuditRequest, *, owner: str, until: datetime) -> Begun:
        """Do what is next for an archive's audit: hash its sources, or see to its thaw.

        `owner` names this invocation, which ends by `until`. Raises EventInvalid if there is no such run, and as
        Thawer.ensure; what is over the day's cap waits for the next look.
        """
        run = self.audits.run(request.run)
        cause = next((cause for cause, drawn in run.drawn.items() if request.archive in drawn), None) if run else None
        if run is None or cause is None:
            raise EventInvalid(f"run {request.run} does not stand, or has not drawn archive {request.archive}")
        now = self.clock()
        row = self.archives.get(request.archive)
        tier = offered_tier(row.storage_class, self.tier) if row else self.tier
        audit = self.audits.begin(
            Audit(
                run=run.id,
                archive=request.archive,
                cause=cause,
                need=need(tier, repair=run.repair),
                repair=run.repair,
                begun_at=now,
            )
        )
        leased = self.audits.lease(audit, owner=owner, now=now, until=until) if audit else None
        if leased is None:
            self.ender.end(run.id)  # who ended the last audit may have died before it ended the run
            return Begun()
        try:
            return self._begin(leased, row, owner, until)
        finally:
            with suppress(Transient):  # the lease ends by itself
                self.audits.release(leased, owner=owner, due_at=self.clock() + LOOK)

    # -- The draw ----------------------------------------------------------------------------------------------------

    def _drawn(self, request: RunRequest) -> Run:
        now = self.clock()
        last = self.archives.drawn()
        drawn: dict[Cause, tuple[int, ...]] = {}
        if request.archives:
            missing = [serial for serial in request.archives if self.archives.get(serial) is None]
            if missing:
                raise EventInvalid(f"there is no archive {', '.join(map(str, missing))}")
            drawn[Cause.ASKED] = request.archives
        else:
            drawn[Cause.RANDOM] = draw(self.rng, last, sample_size(last), self._auditable)
        run = Run(id=request.id, created_at=now, drawn=drawn, archives=last, repair=request.repair)
        if not request.rolling or not self.horizon_days:
            return self.audits.open_run(run, rolling=None, month=None)
        seen = self.audits.rolling()
        month = self._month(now, last)
        picked, frontier = self._pick(seen, month, last, frozenset(drawn[Cause.RANDOM]), now)
        rolling = replace(seen, frontier=frontier, credit=picked.credit, ticked_at=now)
        spent = replace(
            month,
            thawed_bytes=month.thawed_bytes + sum(candidate.size_bytes for candidate in picked.archives),
            micro_usd=month.micro_usd + sum(candidate.micro_usd for candidate in picked.archives),
            cut=month.cut + picked.cut,
        )
        drawn[Cause.ROLLING] = tuple(candidate.archive for candidate in picked.archives)
        return self.audits.open_run(replace(run, cut=picked.cut), rolling=(seen, rolling), month=(month, spent))

    def _auditable(self, serials: Collection[int]) -> set[int]:
        """Which of these can be drawn at random. What is being audited already would only be found twice."""

        def is_auditable(serial: int) -> bool:
            row = self.archives.get(serial)
            return row is not None and _wanted(row) and _indexed(row) and not self.audits.waiting(serial)

        with ThreadPoolExecutor(THREADS) as pool:
            return {serial for serial, there in zip(serials, pool.map(is_auditable, serials), strict=True) if there}

    def _month(self, now: datetime, last: int) -> Month:
        """The month's row as it stands. The collection is summed up at its first run, and when it has doubled since."""
        name = month_name(now)
        standing = self.audits.month(name)
        if standing is not None and last < 2 * max(1, standing.archives):
            return standing
        stored_bytes = self.archives.stored_bytes()
        if standing is not None:
            return replace(standing, stored_bytes=stored_bytes, archives=last)
        before = self.audits.month(month_before(now))
        return self.budget.opened(name, before, stored_bytes=stored_bytes, archives=last)

    def _pick(
        self, rolling: Rolling, month: Month, last: int, random: frozenset[int], now: datetime
    ) -> tuple[Picked, int]:
        """What is next in the rolling pass, and where its frontier is then."""
        unseen: list[Candidate] = []

        def passing() -> Iterator[Candidate]:
            for candidate in settled(rolling.frontier, self._unseen(rolling.frontier, random, now), now):
                unseen.append(candidate)
                yield candidate

        picked = pick(
            oldest_first(self._audited(random), passing()),
            earned(rolling, last, self.horizon_days, now),
            room_bytes=self.budget.room_bytes(month, last),
            room_micro_usd=self.budget.room_micro_usd(month),
        )
        taken = {candidate.archive for candidate in picked.archives}
        frontier = rolling.frontier
        for candidate in unseen:  # in the order of serials; those that were taken come before those that were not
            if candidate.wanted and candidate.archive not in taken:
                break
            frontier = candidate.archive + 1
        return picked, frontier

    def _audited(self, random: frozenset[int]) -> Iterator[Candidate]:
        for last in self.audits.longest_ago():
            row = self.archives.get(last.archive)
            if row is not None:
                yield self._candidate(row, last.begun_at, random)

    def _unseen(self, frontier: int, random: frozenset[int], now: datetime) -> Iterator[Candidate]:
        """The archives from the frontier on; those that were audited all the same come in their turn, by _audited."""
        rows = self.archives.all(first=frontier)
        while some := list(islice(rows, LOOKED_AHEAD)):
            seen = self.audits.last([row.serial for row in some])
            for row in some:
                if not _indexed(row) and row.written_at > now - UNWRITTEN:
                    return  # its files' rows are still being written
                yield self._candidate(row, row.written_at, random | seen.keys())

    def _candidate(self, row: ArchiveRow, since: datetime, passed_over: Collection[int]) -> Candidate:
        tier = offered_tier(row.storage_class, self.tier)
        return Candidate(
            archive=row.serial,
            since=since,
            size_bytes=row.size_bytes,
            micro_usd=audit_micro_usd(row.storage_class, tier, size_bytes=row.size_bytes),
            wanted=_wanted(row) and row.serial not in passed_over,
        )

    # -- One archive -------------------------------------------------------------------------------------------------

    def _begin(self, audit: Audit, row: ArchiveRow | None, owner: str, until: datetime) -> Begun:
        if row is None:
            return self._give_up(audit, owner, Verdict.INDEX_WRONG, "the archive has no row any more")
        allowed = patience(row.size_bytes)
        if audit.begun_at + allowed < self.clock():
            return self._give_up(audit, owner, Verdict.UNREAD, f"not thawed and read in {allowed.days} days")
        begun: Begun | None = Begun()
        if not _indexed(row):
            begun = None  # its files' rows are being written: looked at later
        elif audit.stage is Stage.HASHING:
            begun = self._hash(audit, row, owner, until)
        if begun is None:
            return Begun()
        try:
            return replace(begun, step=self.thawer.ensure(row, audit.need, owner=owner))
        except ArchiveUnreadable:  # the object is gone: that is a verdict, and VerifyAudit's to give
            self.verify_queue.send(render_thawed(row.serial))
            return begun

    def _hash(self, audit: Audit, row: ArchiveRow, owner: str, until: datetime) -> Begun | None:
        """Hash the sources, and note that the audit waits for its thaw; None if that is not over yet."""
        seen = self._see_sources(audit, row, until)
        if isinstance(seen, Audit):
            if self.audits.save(seen, owner=owner):
                self._send(audit.run, [audit.archive])
            return None
        self.audits.put_sources(audit, seen)
        if not self.audits.save(replace(audit, stage=Stage.WAITING), owner=owner):
            return None  # the lease ran out, and who took it over goes on
        read = [sighting.digest for sighting in seen if sighting.digest]
        return Begun(seen=len(read), source_bytes=sum(digest.size_bytes for digest in read))

    def _see_sources(self, audit: Audit, row: ArchiveRow, until: datetime) -> Sequence[Sighting] | Audit:
        """What is seen of the members' sources; the audit with its progress, if the time did not suffice.

        Without a manifest nothing is seen: what the archive says of itself is known once it is read.
        """
        manifest = manifest_of(self.store, row)
        if manifest is None:
            return []
        members = [member.source for member in manifest.members]
        if not manifest.object_crc64nvme:
            return self.witness.see_all(members)
        seen = self.witness.see_large(members[0], audit.of_source, self.crc, until)
        return [seen] if isinstance(seen, Sighting) else replace(audit, of_source=seen)

    def _give_up(self, audit: Audit, owner: str, verdict: Verdict, detail: str) -> Begun:
        findings = [Finding(verdict=verdict, evidence=detail)]
        report = report_of(audit, now=self.clock(), verdicts=[], findings=findings, size_bytes=0)
        if not self.audits.finish(audit, report, owner=owner):
            return Begun()
        self.ender.end(audit.run)
        return Begun(unread=int(verdict is Verdict.UNREAD))

    def _send(self, run: str, archives: Iterable[int]) -> None:
        for archive in archives:
            self.audits_queue.send(render_audit_request(AuditRequest(run=run, archive=archive)))


def _wanted(row: ArchiveRow) -> bool:
    """Whether the archive counts: what a repair stands for is kept, and not looked at any more."""
    return not row.superseded_by


def _indexed(row: ArchiveRow) -> bool:
    return row.state is ArchiveState.ARCHIVED

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
from datetime import datetime, timedelta
from random import Random

from neve.domain.audit import (
    GIVEN_UP_AFTER,
    Audit,
    AuditRequest,
    Cause,
    Finding,
    Run,
    RunRequest,
    Sighting,
    Stage,
    Verdict,
    need,
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
    month_name,
    oldest_first,
    pick,
    sample_size,
    settled,
)
from neve.domain.thaw import Step, Tier, thaw_micro_usd
from neve.errors import ArchiveUnreadable, EventInvalid, Transient
from neve.flows.audit_runs import RunEnder
from neve.flows.contents import manifest_of
from neve.flows.thaw import Thawer
from neve.flows.witness import Crc, Witness
from neve.ports import Archives, ArchiveStore, Audits, Queue

LOOK = timedelta(hours=3)
"""How often an audit that waits is looked after: its thaw's event may have been lost."""
BEGUN_WITHIN = timedelta(hours=6)
"""A message of a run that did not come by then was lost, and is sent again."""
THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What became of one archive's audit: `seen` sources were hashed, of `source_bytes`; `step` is what its thaw took.

    All are empty if another is at it, or it has ended.
    """

    seen: int = 0
    source_bytes: int = 0
    step: Step | None = None


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
            self._send(run.id, [serial for serials in run.drawn.values() for serial in serials])
            self.ender.end(run.id)  # one of no archives ends at once
        return run

    def sweep(self) -> int:
        """Look after audits that are overdue and runs that are not told of; how many there were.

        To send an audit its message once more is harmless where nothing was lost.
        """
        now = self.clock()
        looked_after = 0
        for audit in self.audits.due(now):
            self._send(audit.run, [audit.archive])
            looked_after += 1
        for run in self.audits.untold(now):
            looked_after += int(self.ender.see_to(run))
            if not run.complete and run.created_at + BEGUN_WITHIN < now:
                ended = {report.archive for report in self.audits.reports(run.id)}
                drawn = [serial for serials in run.drawn.values() for serial in serials]
                self._send(run.id, [serial for serial in drawn if serial not in ended])
        return looked_after

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
        audit = self.audits.begin(
            Audit(
                run=run.id,
                archive=request.archive,
                cause=cause,
                need=need(self.tier, repair=run.repair),
                repair=run.repair,
                begun_at=now,
            )
        )
        leased = self.audits.lease(audit, owner=owner, now=now, until=until) if audit else None
        if leased is None:
            self.ender.end(run.id)  # who ended the last audit may have died before it ended the run
            return Begun()
        try:
            return self._begin(leased, owner, until)
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
        with ThreadPoolExecutor(THREADS) as pool:
            rows = pool.map(self.archives.get, serials)
            return {row.serial for row in rows if row is not None and _wanted(row) and _indexed(row)}

    def _month(self, now: datetime, last: int) -> Month:
        """The month's row as it stands; at its first run the collection is summed up, one page of rows at a time."""
        name = month_name(now)
        standing = self.audits.month(name)
        if standing is not None:
            return standing
        return Month(name=name, stored_bytes=sum(row.size_bytes for row in self.archives.all()), archives=last)

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
        for row in self.archives.all(first=frontier):
            if not _indexed(row) and row.written_at > now - UNWRITTEN:
                return  # its files' rows are still being written
            yield self._candidate(row, row.written_at, random)

    def _candidate(self, row: ArchiveRow, since: datetime, random: frozenset[int]) -> Candidate:
        return Candidate(
            archive=row.serial,
            since=since,
            size_bytes=row.size_bytes,
            micro_usd=thaw_micro_usd(row.storage_class, self.tier, days=1, size_bytes=row.size_bytes),
            wanted=_wanted(row) and row.serial not in random,
        )

    # -- One archive -------------------------------------------------------------------------------------------------

    def _begin(self, audit: Audit, owner: str, until: datetime) -> Begun:
        now = self.clock()
        row = self.archives.get(audit.archive)
        if row is None:
            return self._give_up(audit, owner, Verdict.INDEX_WRONG, "the archive has no row any more")
        if audit.begun_at + GIVEN_UP_AFTER < now:
            detail = f"it could not be thawed and read in {GIVEN_UP_AFTER.days} days"
            return self._give_up(audit, owner, Verdict.UNREAD, detail)
        begun = Begun()
        if audit.stage is Stage.HASHING:
            seen = self._see_sources(audit, row, until)
            if isinstance(seen, Audit):
                if self.audits.save(seen, owner=owner):
                    self._send(audit.run, [audit.archive])
                return begun
            self.audits.put_sources(audit, seen)
            if not self.audits.save(replace(audit, stage=Stage.WAITING), owner=owner):
                return begun  # the lease ran out, and who took it over goes on
            read = [sighting.digest for sighting in seen if sighting.digest]
            begun = Begun(seen=len(read), source_bytes=sum(digest.size_bytes for digest in read))
        try:
            return replace(begun, step=self.thawer.ensure(row, audit.need, owner=owner))
        except ArchiveUnreadable:  # the object is gone: that is a verdict, and VerifyAudit's to give
            self.verify_queue.send(render_thawed(row.serial))
            return begun

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
        if self.audits.finish(audit, report, owner=owner):
            self.ender.end(audit.run)
        return Begun()

    def _send(self, run: str, archives: Iterable[int]) -> None:
        for archive in archives:
            self.audits_queue.send(render_audit_request(AuditRequest(run=run, archive=archive)))


def _wanted(row: ArchiveRow) -> bool:
    """Whether the archive counts: what a repair stands for is kept, and not looked at any more."""
    return not row.superseded_by


def _indexed(row: ArchiveRow) -> bool:
    return row.state is ArchiveState.ARCHIVED

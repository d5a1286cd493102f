"""VerifyAudit: read a thawed archive once, hold it against its manifest and its sources, and say who is wrong.

What could not be read is tried again, and in the end called unread: never a difference. An audit ends in one
transaction, which the run counts; what was found is mailed when the run has ended, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from neve.domain.audit import Audit, AuditRequest, Progress, Report, Stage, need, render_audit_request, report_of
from neve.domain.bundle import version_of
from neve.domain.digest import ArchiveDigest, Digest, TarHasher, hashed
from neve.domain.index import ArchiveRow, FileRow, rows
from neve.domain.manifest import Manifest, Member
from neve.domain.restore import Thawed
from neve.domain.thaw import Step, ThawState, Tier
from neve.domain.verdict import REPAIRABLE, Finding, Sight, Sighting, Verdict, judge_object, judge_tar
from neve.errors import ArchiveUnreadable, Asleep, NeveError, Transient
from neve.flows.audit_runs import LOOK, RunEnder
from neve.flows.contents import manifest_of
from neve.flows.repair import Repairer
from neve.flows.rescue import copies
from neve.flows.thaw import Thawer, mark_warm
from neve.flows.witness import Crc, Witness
from neve.ports import ArchiveReader, Archives, ArchiveStore, Audits, Files, Queue, Thaws

PATIENCE = 5
"""How often reading is tried before an audit ends as unread."""
ASLEEP_S = 60
"""S3 called an archive thawed and then asleep: time for it to make up its mind."""
ANOTHER = timedelta(minutes=15)
"""How often a repair looks whether the other archive that it needs is thawed."""
OTHERS_WITHIN = timedelta(days=3)
"""By then a repair goes ahead with what there is."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What was found of one archive. `members` are the list that is right, by identity; `at_stake` those of which
    neither archive nor source has intact bytes.
    """

    verdicts: Mapping[tuple[str, str], Verdict]
    findings: Sequence[Finding]
    members: Mapping[tuple[str, str], Member]
    rows: Mapping[tuple[str, str], FileRow]
    size_bytes: int
    unread: str = ""
    at_stake: frozenset[tuple[str, str]] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class AuditVerifier:
    """VerifyAudit's rules over its ports. `automatic` is whether what is found is repaired without being asked."""

    archives: Archives
    store: ArchiveStore
    files: Files
    audits: Audits
    witness: Witness
    crc: Crc
    reader: ArchiveReader
    thaws: Thaws
    thawer: Thawer
    repairer: Repairer
    requests_queue: Queue
    audits_queue: Queue
    ender: RunEnder
    automatic: bool
    clock: Callable[[], datetime]

    def thawed(self, message: Thawed, *, owner: str, until: datetime) -> list[Report]:
        """An archive can be read: note it, if it is S3 who says so, then verify it for every audit that waits.

        `owner` names this invocation, which ends by `until`. The reports of those that ended. Raises Transient if it is
        worth trying again.
        """
        if message.until:
            now = self.clock()
            mark_warm(self.thaws, message.archive, until=message.until, now=now, requests_queue=self.requests_queue)
        reports: list[Report] = []
        failed: Exception | None = None
        for audit in self.audits.waiting(message.archive):
            if audit.stage is Stage.HASHING:
                continue  # StartAudit is at it, and looks at the thaw when it has hashed the sources
            now = self.clock()
            leased = self.audits.lease(audit, owner=owner, now=now, until=until, trying=True)
            if leased is None:
                continue  # it has ended, or whoever verifies it has a message of its own
            try:
                report = self._verify(leased, owner, until)
            except Exception as error:  # noqa: BLE001  # raised below: no audit holds back the others
                failed = failed or error
                report = None
            finally:
                with suppress(Transient):  # the lease ends by itself
                    self.audits.release(leased, owner=owner, due_at=self.clock() + LOOK)
            if report is not None:
                reports.append(report)
        if failed is not None:
            raise failed
        return reports

    def _verify(self, audit: Audit, owner: str, until: datetime) -> Report | None:
        """Verify one archive for one audit; None if that is not over yet: then a message, or the sweep, goes on."""
        row = self.archives.get(audit.archive)
        if row is None:
            raise NeveError(f"archive {audit.archive} is audited and has no row: restore the table `archives`")
        try:
            judged = self._judged(audit, row, until)
        except Asleep:
            thaw = self.thaws.get(row.serial)
            if thaw is not None and thaw.state is ThawState.WARM:
                self.thaws.drop(thaw)  # S3 knows better
            self._again(audit, delay_s=ASLEEP_S)
            return None
        except Transient as error:
            if audit.tries < PATIENCE:
                raise
            unread = Finding(verdict=Verdict.UNREAD, evidence=f"tried {audit.tries} times: {error}")
            judged = _Judged(verdicts={}, findings=[unread], members={}, rows={}, size_bytes=0)
        if isinstance(judged, Audit):
            if self.audits.save(judged, owner=owner):
                self._again(audit)
            return None
        if judged.unread and audit.tries < PATIENCE:
            raise Transient(judged.unread)
        repaired = self._repair(audit, row, judged, owner)
        if repaired is None:
            return None
        bundle, rows_repaired = repaired
        report = report_of(
            audit,
            now=self.clock(),
            verdicts=judged.verdicts.values(),
            findings=judged.findings,
            size_bytes=judged.size_bytes,
            repair=bundle,
            rows_repaired=rows_repaired,
        )
        if not self.audits.finish(audit, report, owner=owner):
            return None  # the lease ran out, and who took it over ends it
        self.ender.end(audit.run)
        return report

    def _again(self, audit: Audit, *, delay_s: int = 0) -> None:
        """Have StartAudit see to the thaw, and this function told."""
        self.audits_queue.send(
            render_audit_request(AuditRequest(run=audit.run, archive=audit.archive)), delay_s=delay_s
        )

    # -- Reading and judging -----------------------------------------------------------------------------------------

    def _judged(self, audit: Audit, row: ArchiveRow, until: datetime) -> _Judged | Audit:
        """What is found of the archive; the audit with its progress, if the time did not suffice.

        Raises Asleep and Transient.
        """
        manifest = manifest_of(self.store, row)
        if row.kind == "object":
            return self._judged_object(audit, row, manifest, until)
        found = self._read_tar(row, manifest)
        listed = _by_identity(manifest.members if manifest else ())
        own = _by_identity(found.contents.members if found.contents else ())
        sources = self._sources(self.audits.sources(audit), manifest, own | listed)
        standing = self.files.get(sorted(own | listed))
        verdicts, findings = judge_tar(row=row, manifest=manifest, found=found, sources=sources, rows=standing)
        wrong_list = any(finding.verdict is Verdict.MANIFEST_WRONG for finding in findings)
        return _Judged(
            verdicts=verdicts,
            findings=findings,
            members=(own or listed) if wrong_list else (listed or own),
            rows=standing,
            size_bytes=found.whole.size_bytes,
            unread=_unread(list(sources.values())),
            at_stake=frozenset(
                identity for identity, verdict in verdicts.items() if verdict in {Verdict.LOST, Verdict.UNDECIDED}
            ),
        )

    def _judged_object(
        self, audit: Audit, row: ArchiveRow, manifest: Manifest | None, until: datetime
    ) -> _Judged | Audit:
        members = manifest.members if manifest else ()
        kept = self.audits.sources(audit)
        by_crc = manifest is not None and bool(manifest.object_crc64nvme)
        unseen = not kept or any(each.sight is Sight.UNREAD for each in kept)
        if by_crc and unseen and audit.tries < PATIENCE:
            return replace(audit, stage=Stage.HASHING, of_source=Progress(), of_archive=Progress())
        found: Digest | None
        try:
            if by_crc:
                pieces = self.reader.stream(row, first=audit.of_archive.size_bytes)
                reached, ended = self.crc.feed(pieces, audit.of_archive, until)
                if not ended:
                    return replace(audit, of_archive=reached, tries=audit.tries - 1)  # it got somewhere
                found = self.crc.digest(reached)
            elif manifest is None and not row.sha256:  # nothing states a hash, and reading terabytes would tell nothing
                found = Digest(size_bytes=row.size_bytes)
            else:
                found = hashed(self.reader.stream(row))
        except ArchiveUnreadable:
            found = None
        unknown = Sighting(sight=Sight.UNREAD, detail="where it is, or what it was, is not known")
        seen = kept if by_crc else list(self._sources(kept, manifest, _by_identity(members)).values())
        source = next(iter(seen), unknown)
        standing = self.files.get([member.source.identity for member in members])
        verdict, findings = judge_object(
            row=row,
            manifest=manifest,
            found=found,
            source=source,
            described=self.witness.described(members[0].source) if members else None,
            standing=next(iter(standing.values()), None),
        )
        identities = [member.source.identity for member in members]
        return _Judged(
            verdicts=dict.fromkeys(identities, verdict),
            findings=findings,
            members=_by_identity(members),
            rows=standing,
            size_bytes=found.size_bytes if found else 0,
            unread=_unread(seen),
        )

    def _read_tar(self, row: ArchiveRow, manifest: Manifest | None) -> ArchiveDigest:
        hasher = TarHasher(manifest=manifest)
        try:
            for piece in self.reader.stream(row):
                hasher.feed(piece)
        except ArchiveUnreadable as error:
            gone = Digest(size_bytes=0)
            return ArchiveDigest(whole=gone, contents=None, problem=str(error), members={})
        return hasher.digest()

    def _sources(
        self, kept: Sequence[Sighting], manifest: Manifest | None, members: Mapping[tuple[str, str], Member]
    ) -> dict[tuple[str, str], Sighting]:
        """A sighting of each member's source: the one that was kept, or one taken now where that told nothing."""
        sightings: dict[tuple[str, str], Sighting] = {}
        if manifest is not None and len(kept) == len(manifest.members):
            seen = zip(manifest.members, kept, strict=True)
            sightings = {member.source.identity: each for member, each in seen if each.sight is not Sight.UNREAD}
        missing = [member.source for identity, member in members.items() if identity not in sightings]
        seen_now = self.witness.see_all(missing)
        return sightings | {source.identity: each for source, each in zip(missing, seen_now, strict=True)}

    # -- Repair ------------------------------------------------------------------------------------------------------

    def _repair(self, audit: Audit, row: ArchiveRow, judged: _Judged, owner: str) -> tuple[str, int] | None:
        """Repair what was found, if that is wanted; the bundle that does it ("": none), and how many rows were changed.

        None if another archive has to be thawed first, which holds intact bytes that are nowhere else.
        """
        found = {finding.verdict for finding in judged.findings} & REPAIRABLE
        if not found or not (audit.repair or self.automatic):
            return "", 0
        if found == {Verdict.INDEX_WRONG}:
            # If the archive's own row is against them, nobody can say which of archive and index is right.
            disputed = any(not finding.key for finding in judged.findings)
            return "", 0 if disputed else self._repair_rows(row, judged)
        if not judged.members:
            return "", 0
        holders = {judged.rows[identity].archive if identity in judged.rows else 0 for identity in judged.members}
        if not holders & {0, row.serial} and all(map(self._stands, holders)):
            # Every member's row names another archive: nothing is left to save.
            self.archives.supersede(row.serial, by=max(holders))
            return "", 0
        if self._others_asleep(audit, row, judged, owner):
            self.audits.save(replace(audit, tries=0), owner=owner)  # waiting is no failure
            self.audits.release(audit, owner=owner, due_at=self.clock() + ANOTHER)
            return None
        with suppress(ArchiveUnreadable):  # then it has nothing to give
            # What is intact in the damaged archive alone is read from it once more, when the new one is written. It is
            # warm, so this sends word here: before the wait above it would have the archive read over and over.
            self.thawer.ensure(row, need(Tier.STANDARD, repair=True), owner=owner)
        versions = [version_of(member.source) for member in judged.members.values()]
        return self.repairer.order(row, versions, run=audit.run, now=self.clock()).id, 0

    def _stands(self, serial: int) -> bool:
        """Whether an archive can stand for another: one that is superseded itself might be by that one."""
        archive = self.archives.get(serial)
        return archive is not None and not archive.superseded_by

    def _repair_rows(self, row: ArchiveRow, judged: _Judged) -> int:
        """Put rows right that contradict a manifest which archive and source agree with; how many."""
        repaired = 0
        manifest = manifest_of(self.store, row)
        implied = {(each.key, each.pin): each for each in rows(manifest)} if manifest else {}
        for identity, verdict in judged.verdicts.items():
            if verdict is Verdict.INDEX_WRONG and identity in implied:
                standing = judged.rows.get(identity)
                if standing is None:
                    repaired += int(not self.files.record([implied[identity]]))
                else:
                    repaired += int(self.files.replace(standing, implied[identity]))
        return repaired

    def _others_asleep(self, audit: Audit, row: ArchiveRow, judged: _Judged, owner: str) -> bool:
        """Whether other archives, which hold bytes that are at stake here, have to be thawed first."""
        if audit.begun_at + OTHERS_WITHIN < self.clock():
            return False
        holders = {
            other.archive
            for key, pin in judged.at_stake
            for mine in [judged.rows.get((key, pin))]
            for other in (copies(self.files, key, [mine.sha256]) if mine and mine.sha256 else ())
            if other.archive != row.serial
        }
        asleep = False
        for serial in sorted(holders):
            other = self.archives.get(serial)
            if other is not None:
                with suppress(ArchiveUnreadable):
                    asleep |= self.thawer.ensure(other, need(Tier.STANDARD, repair=True), owner=owner) is not Step.READ
        return asleep


def _by_identity(members: Sequence[Member]) -> dict[tuple[str, str], Member]:
    return {member.source.identity: member for member in members}


def _unread(sources: Sequence[Sighting]) -> str:
    """Why sources could not be read, in the words of the first; "" if all could."""
    unread = [sighting.detail for sighting in sources if sighting.sight is Sight.UNREAD]
    return f"{len(unread)} sources cannot be read now: {unread[0]}" if unread else ""

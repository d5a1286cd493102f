"""Has archives of a run audited, one of them after a bit was turned over on disk, and has that one repaired."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives
from neve.aws.audits_table import DynamoAudits
from neve.aws.drills_table import DynamoDrills
from neve.aws.files_table import DynamoFiles
from neve.domain.audit import Report
from neve.domain.index import ArchiveRow, FileRow, rows
from neve.domain.manifest import Manifest
from neve.domain.verdict import QUIET, Verdict
from neve_local import demo_proof
from neve_local.demo_files import Chosen
from neve_local.demo_proof import Identity, Uploaded

DRILLED = 3
"""So many files are drawn for the drill."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is audited: archive `intact` as it is, and `damaged` after one bit of the bytes of `file` was turned over.

    If there is only one archive it is both: it is audited before and after.
    """

    intact: ArchiveRow
    damaged: ArchiveRow
    file: FileRow

    @property
    def rounds(self) -> tuple[tuple[int, ...], ...]:
        """The serials of each run of audits. The damage is done before the last one."""
        intact, damaged = self.intact.serial, self.damaged.serial
        return ((intact,), (damaged,)) if intact == damaged else ((intact, damaged),)

    @property
    def offset_bytes(self) -> int:
        """Where in the archive's object the bit is: in the middle of the file."""
        return self.file.offset_bytes + self.file.size_bytes // 2


def choose_trial(
    archives: Iterable[ArchiveRow], found: Mapping[Identity, FileRow], stands: Callable[[FileRow], bool]
) -> Trial | None:
    """The tar with the fewest files is damaged, in one whose version `stands` in the content bucket.

    Another tar stays as it is, if there is one. None if no tar has such a file.
    """
    tars = sorted((row for row in archives if row.kind == "tar"), key=lambda row: (row.files, row.serial))
    for damaged in tars:
        members = sorted(
            (row for row in found.values() if row.archive == damaged.serial and row.size_bytes),
            key=lambda row: row.number,
        )
        half = len(members) // 2
        file = next((row for row in (*members[half:], *members[:half]) if stands(row)), None)
        if file is not None:
            others = (row for row in tars if row is not damaged)
            return Trial(intact=next(others, damaged), damaged=damaged, file=file)
    return None


@dataclass(frozen=True, kw_only=True)
class Drilled:
    """How a drill went, in figures and as a sentence. `good` is None if it is not over."""

    files: int
    places: int
    good: bool | None
    seconds: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What came of a repair: the archive that stands for the damaged one, 0 if none does.

    `moved` rows of the index name it now, each for bytes that lie in it as they are on disk.
    """

    by: int
    moved: int
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether all that the damaged archive held is in another one."""
        return self.by > 0 and not self.problems


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What the audits before the repair reported, whether they named the damaged file, and what followed."""

    trial: Trial
    commands: tuple[tuple[str, ...], ...]
    reports: tuple[Report, ...]
    damage_found: bool
    repaired: Repaired
    drilled: Drilled | None
    seconds: float
    problems: tuple[str, ...]

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """How many files were found how."""
        counts = {verdict: sum(report.counts.get(verdict, 0) for report in self.reports) for verdict in Verdict}
        return {verdict: count for verdict, count in counts.items() if count}


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """Audits, damages and repairs archives of what was uploaded under `prefix`, in one deployment.

    `command` is as Restoration's. `damage` turns over a bit of an archive's object, so many bytes from its beginning.
    `compare` is Proof.compare without the telling.
    """

    command: Callable[[Sequence[str], Callable[[str], None]], int]
    prefix: str
    archives: DynamoArchives
    files: DynamoFiles
    audits: DynamoAudits
    drills: DynamoDrills
    store: S3ArchiveStore
    damage: Callable[[ArchiveRow, int], None]
    compare: Callable[[Iterable[Uploaded], Mapping[Identity, FileRow]], demo_proof.Verdict]
    tell: Callable[[str], None]
    printed: Callable[[str], None]

    def audit(self, trial: Trial, originals: Mapping[str, Chosen], own: frozenset[int]) -> Audited:
        """Audit, damage, repair, look at what the index names then, and drill.

        `originals` are the uploaded files by key, `own` the serials of this run's archives.
        """
        began = time.monotonic()
        commands: list[tuple[str, ...]] = []
        reports: list[Report] = []
        problems: list[str] = []
        damage_found = False
        for number, serials in enumerate(trial.rounds, start=1):
            damaged = trial.damaged.serial if number == len(trial.rounds) else 0
            if damaged:
                self.tell(f"turning over one bit of {trial.file.key!r} in archive {damaged}, on disk ...")
                self.damage(trial.damaged, trial.offset_bytes)
            words = ("neve", "audit", "run", *(f"--archive={serial}" for serial in serials), "--wait")
            status, run = self._run(words, "run ")
            commands.append(words)
            ended = {report.archive: report for report in self.audits.reports(run)} if run else {}
            reports += ended.values()
            damage_found = bool(damaged) and damaged in ended and _names(ended[damaged], trial.file)
            problems += _unexpected(words, status, serials, ended, damaged=damaged)
        if not damage_found:
            problems.append(f"no audit named {trial.file.key!r}, and nothing else, in archive {trial.damaged.serial}")
        words = ("neve", "audit", "repair", str(trial.damaged.serial), "--wait")
        repaired = self._repair(words, trial.damaged.serial, originals)
        drilled, undrilled = self._drill(own | {repaired.by})
        return Audited(
            trial=trial,
            commands=(*commands, words),
            reports=tuple(reports),
            damage_found=damage_found,
            repaired=repaired,
            drilled=drilled,
            seconds=time.monotonic() - began,
            problems=(*problems, *repaired.problems, *undrilled),
        )

    def _run(self, words: Sequence[str], announced: str, *, quietly: bool = False) -> tuple[int, str]:
        """Run a command; its exit status, and the id that it printed after `announced`, "" if it did not."""
        self.tell(f"$ {shlex.join(words)}")
        ids: list[str] = []

        def note(line: str) -> None:
            if line.startswith(announced):
                ids.append(line.removeprefix(announced))
            if not quietly:
                self.printed(line)

        status = self.command(words, note)
        return status, next(iter(ids), "")

    def _repair(self, words: Sequence[str], damaged: int, originals: Mapping[str, Chosen]) -> Repaired:
        """Have the damaged archive repaired, and look whether another one stands for it, with all that it held."""
        manifest = self.store.manifest(damaged)
        members = [member.source.identity for member in manifest.members] if manifest else []
        restored = [(row.key, row.pin) for row in self.files.under(self.prefix) if row.archive == damaged]
        held = list(dict.fromkeys([*members, *restored]))
        status, _ = self._run(words, "run ")
        problems = [f"`{shlex.join(words)}` ended with status {status}"] if status else []
        archive = self.archives.get(damaged)
        by = archive.superseded_by if archive else 0
        written = self.store.manifest(by) if by else None
        if written is None or written.supersedes != damaged:
            problems.append(f"archive {damaged} was to be repaired, and no archive stands for it")
            return Repaired(by=0, moved=0, problems=tuple(problems))
        standing = self.files.get(held)
        lost = [identity for identity in held if identity not in standing]
        problems += [f"the index has no {key!r} version {pin} any more" for key, pin in lost]
        problems += [
            f"the index still names the damaged archive {damaged} for {row.key!r} version {row.pin}"
            for row in standing.values()
            if row.archive == damaged
        ]
        moved = [row for row in standing.values() if row.archive == by and row.key in originals]
        same, different = self._compare(moved, written, originals)
        return Repaired(by=by, moved=same, problems=(*problems, *different))

    def _compare(
        self, moved: Sequence[FileRow], written: Manifest, originals: Mapping[str, Chosen]
    ) -> tuple[int, list[str]]:
        """How many of the rows that name the archive `written` do so rightly, and what is wrong with the others.

        The row of a member is right if its bytes in the archive are those on disk; that of a restored version if it
        names the place of such a member with the same key.
        """
        members = {(row.key, row.pin) for row in rows(written)}
        own = {(row.key, row.version_id): row for row in moved if (row.key, row.pin) in members}
        self.tell(f"comparing {len(own):,} files of archive {written.archive} byte for byte ...")
        uploaded = [Uploaded(file=originals[key], version_id=version_id, at=0.0) for key, version_id in own]
        verdict = self.compare(uploaded, own)
        problems = list(verdict.problems)
        if not own or verdict.verified < len(own):
            problems.append(f"{verdict.verified} of {len(own)} files of archive {written.archive} are as on disk")
        places = {_place(row) for row in own.values()}
        restored = [row for row in moved if (row.key, row.pin) not in members]
        astray = [row for row in restored if _place(row) not in places]
        problems += [
            f"the index names {row.id} for {row.key!r} version {row.pin}, which is not there" for row in astray
        ]
        return verdict.verified + len(restored) - len(astray), problems

    def _drill(self, own: frozenset[int]) -> tuple[Drilled | None, list[str]]:
        """Rehearse a few restores; how that went, and what is wrong with it.

        Files are drawn from all archives there are: what is wrong with those of others is told, and no fault of this
        run's.
        """
        began = time.monotonic()
        words = ("neve", "drill", "run", "--files", str(DRILLED), "--wait")
        status, drill_id = self._run(words, "drill ", quietly=True)
        drill = self.drills.get(drill_id) if drill_id else None
        if drill is None or drill.good is None:
            return None, [f"`{shlex.join(words)}` ended with status {status}, and no drill"]
        faults = [
            f"drill {drill.id}: {file.id} at {each.place}: {each.outcome} {each.detail}".rstrip()
            for file, each in drill.faults
        ]
        where = f"each restored to {len(drill.buckets)} places, compared and deleted again"
        result = "; ".join([*faults, *drill.nameless]) or "all are the same"
        drilled = Drilled(
            files=len(drill.files),
            places=len(drill.buckets),
            good=drill.good,
            seconds=time.monotonic() - began,
            sentence=f"{len(drill.files)} files rehearsed, {where}: {result}",
        )
        self.tell(drilled.sentence)
        return drilled, [fault for fault, (file, _) in zip(faults, drill.faults, strict=True) if file.archive in own]


def _place(row: FileRow) -> tuple[str, int, int, int, str]:
    """Which bytes of its archive a row names, and of which key."""
    return (row.key, row.number, row.offset_bytes, row.size_bytes, row.sha256)


def _names(report: Report, file: FileRow) -> bool:
    """Whether an audit found the archive damaged in this one file, and nothing else."""
    named = [(finding.verdict, finding.key, finding.pin, finding.number) for finding in report.findings]
    return report.found == 1 and named == [(Verdict.ARCHIVE_DAMAGED, file.key, file.pin, file.number)]


def _unexpected(
    words: Sequence[str], status: int, serials: Sequence[int], ended: Mapping[int, Report], *, damaged: int
) -> list[str]:
    """What is wrong with how a run of audits ended, but for the archive `damaged`, which is looked at by itself."""
    line = f"`{shlex.join(words)}`"
    problems = [f"{line} ended with status {status}"] if status != bool(damaged) else []
    if set(ended) != set(serials):
        problems.append(f"{line} compared {sorted(ended)}")
    return problems + [
        f"{line} calls archive {serial}, which nobody damaged, {report.verdict}: "
        + "; ".join(f"{finding.key!r}: {finding.evidence}" for finding in report.findings)
        for serial, report in ended.items()
        if serial != damaged and report.verdict not in QUIET
    ]

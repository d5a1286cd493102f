"""Reconciliation: the content bucket against the index, the index against the archives, these against their bucket.

A pass goes over everything once, in shards that do not know of each other: ranges of keys, files of an S3 Inventory,
ranges of serials. A shard is worked off in steps; each step ends in a Progress: how far it came, what it counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from operator import index
from typing import Any

from neve.domain.events import DRILL_PREFIX
from neve.domain.index import FileRow
from neve.domain.manifest import Manifest, Source
from neve.domain.version import KEY_LIMIT, ObjectVersion
from neve.errors import EventInvalid

KEEP = timedelta(days=90)
"""How long what a shard found is kept in words; the counts of a pass stay."""
GIVEN_UP_AFTER = timedelta(days=7)
"""A pass that has not ended by then is told of as it stands: messages that failed have been in the dead-letter queue
for days."""
HEAD_START = timedelta(days=1)
"""For so long the other shards wait for those of archives, and no longer: one of those may stand still."""
SERIALS_PER_SHARD = 10_000
LONGEST_BOUNDARIES = 100_000
"""Bytes of all boundaries: they are one attribute of an item, and part of a message."""
EXAMPLES = 20
"""Findings of one outcome that a shard keeps in words, and that a mail lists; all are counted."""
DETAIL_CHARACTERS = 300
EXAMPLE_BYTES = 15_000
"""What the examples of one outcome take of a mail at most: SNS takes 256 KB, and an escaped key may have 4."""


class Outcome(StrEnum):
    """What became of one version, row or archive."""

    RECONCILED = "reconciled"
    """A version in the content bucket that its row agrees with."""
    WAITING = "waiting"
    """A version or an archive without a row that is younger than the grace period."""
    PARKED = "parked"
    """A version without a row that waits for a person."""
    SOURCE_GONE = "source gone"
    """A row whose version the content bucket has no more: what archives are for."""
    MISSING = "missing"
    """A version without a row, older than the grace period. It is collected again."""
    MISMATCHING = "mismatching"
    """The content bucket states another size or MD5 of a version than its row."""
    ROW_MOVED = "row moved"
    """A row that named a superseded archive. It names the one that stands for it now."""
    LEFT_BEHIND = "left behind"
    """A row that names a superseded archive, and whose bytes the one that stands for it does not have."""
    ORPHANED_ROW = "orphaned row"
    """A row that names an archive which has no row."""
    INVENTORY_UNUSABLE = "inventory unusable"
    """A file of the inventory cannot be read, or is not the one that the inventory's manifest names."""

    ARCHIVE_RECONCILED = "archive reconciled"
    """An archive whose row, object, manifest and members' rows agree."""
    SUPERSEDED = "superseded"
    """A damaged archive that another stands for. Nothing more is asked of it."""
    DUPLICATE = "duplicate"
    """A member whose row names another archive that exists."""
    VOID = "void"
    """A manifest without an archive, or both, that no row needs: what a bundle left that became void."""
    UNFINISHED = "unfinished"
    """An archive that was written longer ago than the grace period, and not finished."""
    OBJECT_MISSING = "object missing"
    OBJECT_MISMATCHING = "object mismatching"
    """Size, checksum, storage class or version id of the object are not those of the archive's row."""
    MANIFEST_MISSING = "manifest missing"
    MANIFEST_MISMATCHING = "manifest mismatching"
    """The manifest cannot be read, or states other than the archive's row or object."""
    ROW_RESTORED = "row restored"
    """A member of a sound archive had no row, and was given the one that the manifest implies."""
    ROW_MISSING = "row missing"
    """A member of an archive that is not sound has no row."""
    INDEX_WRONG = "index wrong"
    """A member's row names its archive, and contradicts the manifest."""
    ARCHIVE_WITHOUT_ROW = "archive without row"


PROBLEMS = frozenset(
    {
        Outcome.MISSING,
        Outcome.MISMATCHING,
        Outcome.ORPHANED_ROW,
        Outcome.INVENTORY_UNUSABLE,
        Outcome.UNFINISHED,
        Outcome.OBJECT_MISSING,
        Outcome.OBJECT_MISMATCHING,
        Outcome.MANIFEST_MISSING,
        Outcome.MANIFEST_MISMATCHING,
        Outcome.ROW_RESTORED,
        Outcome.ROW_MISSING,
        Outcome.INDEX_WRONG,
        Outcome.ARCHIVE_WITHOUT_ROW,
    }
)
"""These are mailed."""

REMEDIES: Mapping[Outcome, str] = {
    Outcome.MISSING: "They were sent to Collect again. `neve find KEY` in an hour; what stays missing: `neve parked`.",
    Outcome.MISMATCHING: "neve audit run --archive ID, with the archive that `neve find KEY` names",
    Outcome.ORPHANED_ROW: "neve rebuild-index. What is still here a week later names an archive that is lost: delete "
    "the row, and the next pass makes another, from another archive or from the source.",
    Outcome.INVENTORY_UNUSABLE: "Wait for the next inventory, or leave the setting `inventory` empty: the bucket is "
    "listed then.",
    Outcome.UNFINISHED: "`neve status` shows what stands still. If its bundle has expired: neve rebuild-index",
    Outcome.OBJECT_MISSING: "A delete marker on it? Remove that. Else: neve audit repair ID",
    Outcome.OBJECT_MISMATCHING: "Look at the versions of the object (`aws s3api list-object-versions`): the one that "
    "its row names is the archive. Then: neve audit run --archive ID",
    Outcome.MANIFEST_MISSING: "neve rebuild-index --from-archives",
    Outcome.MANIFEST_MISMATCHING: "neve audit run --archive ID",
    Outcome.ROW_RESTORED: "Nothing: the rows are back. Find out who deletes rows of the table `files`.",
    Outcome.ROW_MISSING: "Put the archive right first (see above), then: neve rebuild-index",
    Outcome.INDEX_WRONG: "neve audit run --archive ID",
    Outcome.ARCHIVE_WITHOUT_ROW: "neve rebuild-index",
}
"""What an operator does about a problem."""

METRICS: Mapping[str, frozenset[Outcome]] = {
    "reconciled": frozenset({Outcome.RECONCILED, Outcome.ARCHIVE_RECONCILED}),
    "missing": frozenset(
        {
            Outcome.MISSING,
            Outcome.OBJECT_MISSING,
            Outcome.MANIFEST_MISSING,
            Outcome.ROW_RESTORED,
            Outcome.ROW_MISSING,
            Outcome.ARCHIVE_WITHOUT_ROW,
        }
    ),
    "orphaned": frozenset({Outcome.ORPHANED_ROW, Outcome.VOID}),
    "mismatching": frozenset(
        {
            Outcome.MISMATCHING,
            Outcome.OBJECT_MISMATCHING,
            Outcome.MANIFEST_MISMATCHING,
            Outcome.INDEX_WRONG,
        }
    ),
}
"""Which outcomes a metric counts."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem, in words. `key` and `pin` name a version, `archive` an archive; "" and 0 where it is of none."""

    outcome: Outcome
    archive: int = 0
    key: str = ""
    pin: str = ""
    detail: str = ""


# -- A pass and its shards -------------------------------------------------------------------------------------------


class ShardKind(StrEnum):
    """What a shard goes over."""

    CONTENT = "content"
    """Versions in the content bucket and rows of the index, by ranges of keys."""
    INVENTORY = "inventory"
    """The versions in one file of an inventory."""
    INDEX = "index"
    """Rows of the index by ranges of keys, where an inventory stands for the listing."""
    ARCHIVES = "archives"
    """Archives by ranges of serials."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a pass. Keys k with after < k <= until, in the order of their UTF-8 ("" is no bound); `file` of the
    inventory, from 0; or serials from `first` to `last` (0 is no bound).
    """

    number: int
    kind: ShardKind
    after: str = ""
    until: str = ""
    file: int = 0
    first: int = 0
    last: int = 0


class PassState(StrEnum):
    """running -> finished."""

    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One reconciliation of everything. What its shards are is settled when it begins.

    `boundaries` are the keys that divide the content bucket; `inventory` the key of the inventory's manifest.json with
    its number of files, "" if the bucket is listed; `serials` how many had been drawn. `refused` is why it could not
    even begin. `counts` are those of all shards, once it has finished.
    """

    id: str
    begun_at: datetime
    boundaries: tuple[str, ...] = ()
    inventory: str = ""
    inventory_files: int = 0
    serials: int = 0
    refused: str = ""
    state: PassState = PassState.RUNNING
    done_shards: int = 0
    counts: Mapping[Outcome, int] = field(default_factory=dict)
    finished_at: datetime | None = None

    @property
    def shards(self) -> int:
        """How many there are."""
        return len(shards(self))

    @property
    def complete(self) -> bool:
        """Whether every shard is done."""
        return self.done_shards >= self.shards

    @property
    def clean(self) -> bool:
        """Whether it has seen everything and found no problem."""
        return self.complete and not self.refused and not any(self.counts.get(problem) for problem in PROBLEMS)


def shards(of: Pass) -> list[Shard]:
    """The parts of a pass: the same list whenever it is asked for."""
    if of.refused:
        return []
    edges = ["", *of.boundaries, ""]
    ranges = ShardKind.INDEX if of.inventory else ShardKind.CONTENT
    made = [Shard(number=0, kind=ranges, after=after, until=until) for after, until in pairwise(edges)]
    made += [Shard(number=0, kind=ShardKind.INVENTORY, file=file) for file in range(of.inventory_files)]
    starts = range(1, max(of.serials, 1) + 1, SERIALS_PER_SHARD)
    made += [
        # The last has no end: the counter may have gone back, and archives are written meanwhile.
        Shard(
            number=0,
            kind=ShardKind.ARCHIVES,
            first=first,
            last=0 if first == starts[-1] else first + SERIALS_PER_SHARD - 1,
        )
        for first in starts
    ]
    return [replace(shard, number=number) for number, shard in enumerate(made)]


def due_shards(of: Pass, now: datetime) -> list[Shard]:
    """The shards that may be worked off now: those of archives first, and when all of them are done the others.

    Archives give their files the rows back that were lost. Whoever looked for those rows before that would have the
    files collected again: all there are, the week after the table was lost.
    """
    every = shards(of)
    first = [shard for shard in every if shard.kind is ShardKind.ARCHIVES]
    return every if of.done_shards >= len(first) or of.begun_at + HEAD_START <= now else first


def in_order(boundaries: Iterable[str]) -> tuple[str, ...]:
    """Boundaries sorted as S3 sorts keys, each once. Raises ValueError if they are no keys, or too many."""
    sorted_once = sorted(set(boundaries), key=str.encode)
    for boundary in sorted_once:
        if not 0 < len(boundary.encode()) <= KEY_LIMIT:
            raise ValueError(f"a boundary has 1 to {KEY_LIMIT} bytes, as a key: {boundary!r}")
    if sum(len(boundary.encode()) for boundary in sorted_once) > LONGEST_BOUNDARIES:
        raise ValueError(f"boundaries have {LONGEST_BOUNDARIES:,} bytes in all at most")
    return tuple(sorted_once)


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a shard has come: everything up to `key` is done, or only its versions up to `version_id` if that is set;
    or everything up to line or serial `number`.
    """

    key: str = ""
    version_id: str = ""
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a step came to: where it ended, whether that is the shard's end, and what it counted and found."""

    place: Place
    done: bool
    counts: Mapping[Outcome, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """A shard as it stands: the sum of all its steps. `revision` counts its changes, 0 if it was never begun."""

    of: str
    number: int
    place: Place = Place()
    done: bool = False
    counts: Mapping[Outcome, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    lease_owner: str = ""
    leased_until: datetime | None = None
    changed_at: datetime | None = None
    revision: int = 0

    def after(self, progress: Progress) -> ShardRow:
        """The row with one more step."""
        tally = Tally(Counter(self.counts))
        for finding in (*self.findings, *progress.findings):
            tally.keep(finding)
        tally.counts.update(progress.counts)
        return replace(
            self,
            place=progress.place,
            done=progress.done,
            counts=dict(tally.counts),
            findings=tuple(tally.findings),
        )


@dataclass
class Tally:
    """Counts outcomes, and keeps the first findings of each."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    _kept: Counter[Outcome] = field(default_factory=Counter)

    def count(self, outcome: Outcome, number: int = 1) -> None:
        """Add to an outcome."""
        if number:
            self.counts[outcome] += number

    def found(self, finding: Finding) -> None:
        """Count a problem, and keep it in words."""
        self.count(finding.outcome)
        self.keep(finding)

    def keep(self, finding: Finding) -> None:
        """Keep a problem in words that is counted already."""
        self._kept[finding.outcome] += 1
        if self._kept[finding.outcome] <= EXAMPLES:
            self.findings.append(replace(finding, detail=finding.detail[:DETAIL_CHARACTERS]))

    def progress(self, place: Place, *, done: bool) -> Progress:
        """What a step came to that ended at `place`."""
        return Progress(place=place, done=done, counts=dict(self.counts), findings=tuple(self.findings))


def together(rows: Iterable[ShardRow]) -> tuple[dict[Outcome, int], list[Finding]]:
    """What all shards of a pass counted, in the order of Outcome, and the first findings of each problem."""
    tally = Tally()
    for row in rows:
        tally.counts.update(row.counts)
        for finding in row.findings:
            tally.keep(finding)
    order = list(Outcome)
    found = sorted(tally.findings, key=lambda finding: order.index(finding.outcome))
    return {outcome: tally.counts[outcome] for outcome in Outcome if tally.counts[outcome]}, found


# -- What is compared ------------------------------------------------------------------------------------------------

_MD5 = re.compile(r"[0-9a-f]{32}")


def is_ignored(key: str) -> bool:
    """Whether Collect ignores versions of this key."""
    return key.startswith(DRILL_PREFIX)


def size_differs(version: ObjectVersion, row: FileRow) -> str:
    """How the sizes that bucket and index state of a version differ; "" if they do not."""
    if version.size_bytes == row.size_bytes:
        return ""
    return f"the bucket states {version.size_bytes} bytes, its row {row.size_bytes}"


def md5_differs(version: ObjectVersion, row: FileRow) -> str:
    """How the ETag, if it is an MD5, differs from the MD5 that the index states; "" if it does not.

    Whether it is one, a listing does not tell: see is_md5.
    """
    if not row.md5 or not _MD5.fullmatch(version.etag) or version.etag == row.md5:
        return ""
    return f"the bucket states the MD5 {version.etag}, its row {row.md5}"


def is_md5(source: Source) -> bool:
    """Whether the ETag is the MD5 of the bytes: one upload, and no key of KMS."""
    return bool(_MD5.fullmatch(source.etag)) and not source.encryption.startswith("aws:kms")


def rows_differ(row: FileRow, implied: FileRow) -> str:
    """Which fields of a member's row are not those that the manifest implies; "" if all are."""
    names = ("number", "offset_bytes", "size_bytes", "sha256", "md5")
    wrong = [name for name in names if getattr(row, name) != getattr(implied, name)]
    if int(row.last_modified.timestamp()) != int(implied.last_modified.timestamp()):  # as the index keeps it
        wrong.append("last_modified")
    return f"its row states another {', '.join(wrong)} than the manifest" if wrong else ""


def manifest_differs(manifest: Manifest, *, object_key: str, size_bytes: int, sha256: str, files: int | None) -> str:
    """How a manifest contradicts what is stated of its archive; "" if it does not. `files` is None if not stated."""
    wrong = [
        name
        for name, differs in (
            ("object_key", manifest.object_key != object_key),
            ("object_size_bytes", manifest.object_size_bytes != size_bytes),
            ("object_sha256", bool(sha256 and manifest.object_sha256) and manifest.object_sha256 != sha256),
            ("number of members", files is not None and len(manifest.members) != files),
        )
        if differs
    ]
    return f"the manifest states another {', '.join(wrong)}" if wrong else ""


# -- Messages --------------------------------------------------------------------------------------------------------

START_FORMAT = "neve-reconcile"
SHARD_FORMAT = "neve-reconcile-shard"


@dataclass(frozen=True, kw_only=True)
class StartRequest:
    """Word to begin the pass `id`."""

    id: str
    boundaries: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """Word to go on with one shard of a pass."""

    of: str
    number: int


class Sweep:
    """Word to look after passes that stand still."""


def pass_id(sent_at: datetime, unique: str) -> str:
    """The id of a pass: it begins with the time, and sorts by it."""
    return f"{sent_at:%Y%m%dT%H%M%S}-{unique[:6]}"


def render_start(request: StartRequest) -> str:
    """The message by which a person begins a pass. Inverse: parse."""
    return json.dumps(
        {"format": START_FORMAT, "version": 1, "pass": request.id, "boundaries": list(request.boundaries)}
    )


def render_shard(request: ShardRequest) -> str:
    """The message for one shard. Inverse: parse."""
    return json.dumps({"format": SHARD_FORMAT, "version": 1, "pass": request.of, "shard": request.number})


def parse(body: str, *, scheduled: str) -> StartRequest | ShardRequest | Sweep:
    """What a message asks for; `scheduled` is the id of the pass if it is the schedule's. Raises EventInvalid."""
    try:
        message = json.loads(body)
        match message.get("format"), message.get("message"):
            case None, "reconcile":
                return StartRequest(id=scheduled)
            case None, "sweep":
                return Sweep()
            case (str(name), _) if name in (START_FORMAT, SHARD_FORMAT) and message.get("version") == 1:
                return _start(message) if name == START_FORMAT else _shard(message)
            case _:
                raise EventInvalid(f"neither a request of reconcile nor a schedule's word: {body[:200]!r}")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a request of reconcile that can be read: {error!r}") from error


def _start(message: Mapping[str, Any]) -> StartRequest:
    return StartRequest(id=_id(message["pass"]), boundaries=in_order(message["boundaries"]))


def _shard(message: Mapping[str, Any]) -> ShardRequest:
    number = index(message["shard"])
    if number < 0:
        raise EventInvalid(f"no number of a shard: {number}")
    return ShardRequest(of=_id(message["pass"]), number=number)


def _id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.replace("-", "").isalnum():
        raise EventInvalid(f"no id of a pass: {value!r}")
    return value


# -- What a person is told -------------------------------------------------------------------------------------------

SUBJECT_CHARACTERS = 100
"""SNS: a subject has at most 100 characters, ASCII."""


def summary(of: Pass) -> dict[str, Any]:
    """A pass for programs."""
    return {
        "pass": of.id,
        "state": of.state.value,
        "begun_at": of.begun_at.isoformat(),
        "finished_at": of.finished_at.isoformat() if of.finished_at else None,
        "shards": of.shards,
        "done_shards": of.done_shards,
        "inventory": of.inventory or None,
        "refused": of.refused or None,
        "clean": of.clean if of.state is PassState.FINISHED else None,
        "counts": {outcome.value: of.counts[outcome] for outcome in Outcome if of.counts.get(outcome)},
    }


def finding_fields(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    return {
        "outcome": finding.outcome.value,
        "archive": finding.archive or None,
        "key": finding.key or None,
        "pin": finding.pin or None,
        "detail": finding.detail,
        "remedy": REMEDIES[finding.outcome],
    }


def told(finding: Finding) -> str:
    """A finding on one line. What stands in a key is escaped."""
    where = []
    if finding.archive:
        where.append(f"archive {finding.archive}")
    if finding.key:
        where.append(f"{finding.key!a} version {finding.pin!a}" if finding.pin else f"{finding.key!a}")
    return ": ".join([*where, finding.detail] if finding.detail else where)


def subject(of: Pass) -> str:
    """The subject of the mail about a pass that is not clean."""
    found = [f"{of.counts[outcome]} {outcome}" for outcome in Outcome if outcome in PROBLEMS and of.counts.get(outcome)]
    if of.refused:
        found.insert(0, "could not begin")
    elif not of.complete:
        found.insert(0, "did not end")
    return f"neve reconcile: {', '.join(found)}"[:SUBJECT_CHARACTERS]


def mail(of: Pass, findings: Sequence[Finding]) -> str:
    """What is mailed about a pass that is not clean: one text, however much it found."""
    if of.refused:
        return f"Reconcile pass {of.id} could not begin: {of.refused}"
    lines = [f"Reconcile pass {of.id}, {of.done_shards} of {of.shards} shards done. All that was counted:"]
    lines += [f"  {of.counts[outcome]:>12,}  {outcome}" for outcome in Outcome if of.counts.get(outcome)]
    if not of.complete:
        ended = f"It was ended after {GIVEN_UP_AFTER.days} days."
        lines += ["", f"{ended} Look into the dead-letter queue of Reconcile, then: neve reconcile run"]
    for outcome in Outcome:
        number = of.counts.get(outcome, 0)
        if outcome not in PROBLEMS or not number:
            continue
        examples = [finding for finding in findings if finding.outcome is outcome]
        lines += ["", f"{outcome}: {number:,}. Next: {REMEDIES[outcome]}"]
        shown = _fitting(f"  {told(finding)}" for finding in examples)
        lines += shown
        if number > len(shown):
            lines.append(f"  and {number - len(shown):,} more")
    lines += ["", f"neve reconcile show {of.id}"]
    return "\n".join(lines)


def _fitting(lines: Iterable[str]) -> list[str]:
    """As many of the lines as a mail has room for."""
    shown: list[str] = []
    left = EXAMPLE_BYTES
    for line in lines:
        left -= len(line.encode())
        if left < 0:
            break
        shown.append(line)
    return shown

"""Drills: files drawn at random are restored like any others, to two places, and held against the index.

A drill is a draw that is frozen, a restore job with the drill's id, a comparison, a message to people, and a clean-up.
All that it puts anywhere lies below DRILL_PREFIX and its id, under plain numbers.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from neve.domain.digest import Digest, agree
from neve.domain.events import DRILL_PREFIX
from neve.domain.restore import RESTORED_FORMAT, Ending, Request, Result, Wanted, chunks
from neve.domain.thaw import Need, Tier
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid

FILES = 10
"""What the monthly drill draws."""
MOST_FILES = 100
"""Their keys, hashes and comparisons are one item of DynamoDB, which holds 400 KB."""
SLOTS_PER_FILE = 6
"""So many picks are made for each file wanted, since some are picked twice, and some belong to another archive."""
NEED = Need(tier=Tier.STANDARD, days=1)
"""Bulk on DEEP_ARCHIVE takes up to 48 hours, and a drill has 24."""
WITHIN = timedelta(hours=24)
"""From the draw to the last file."""
TOLD_FAULTS = 20
SOURCE = "source"
"""The place of a file's version in the content bucket, which it was archived from."""

_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}", re.ASCII)


class Outcome(StrEnum):
    """What was found at a place, held against what the index states of the file."""

    SAME = "same"
    GONE = "gone"
    """Of a source: it was deleted, or overwritten where there are no versions. That is no fault."""
    UNPROVEN = "unproven"
    """Too large to be read, and S3 states no hash of it that the index has, too. Its size is right."""
    NOT_RESTORED = "not restored"
    """The restore ended otherwise; how, stands in the detail."""
    MISSING = "missing"
    """The restore said that it is there, and it is not."""
    DIFFERENT = "different"
    UNREAD = "unread"
    """It could not be read, however often it was tried: not the same as different."""


QUIET = frozenset({Outcome.SAME, Outcome.GONE, Outcome.UNPROVEN})
"""Nobody needs to do anything about these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found at a place: `s3://bucket/key` of a copy, or SOURCE."""

    place: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A file of a drill as the index stated it when it was drawn: its version, where it lies, its size and hashes."""

    version: ObjectVersion
    archive: int
    number: int
    digest: Digest

    @property
    def id(self) -> str:
        """As FileRow.id, such as 17.3."""
        return f"{self.archive}.{self.number}"


class DrillState(StrEnum):
    """running -> compared -> told -> done."""

    RUNNING = "running"
    """Its files are being restored, or compared."""
    COMPARED = "compared"
    """What came of it stands."""
    TOLD = "told"
    """People have been told."""
    DONE = "done"
    """Its copies are deleted."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A drill as it stands. Its files are numbered from 1, and so are their copies in each of `buckets`.

    `collection` is how many files all archives had at the draw. `nameless` tells of files that were drawn and could not
    be named, since the archive's manifest cannot be read: nobody could restore them. `compared` has what was found of
    each file so far, by its number. `restored_at` is when the restore ended. The sweep looks at `due_at`.
    """

    id: str
    started_at: datetime
    buckets: tuple[str, ...]
    files: tuple[Drawn, ...]
    collection: int
    nameless: tuple[str, ...] = ()
    state: DrillState = DrillState.RUNNING
    compared: Mapping[int, tuple[Comparison, ...]] = field(default_factory=dict)
    restored_at: datetime | None = None
    compared_at: datetime | None = None
    late_told_at: datetime | None = None
    due_at: datetime | None = None
    revision: int = 0

    @property
    def folder(self) -> str:
        """What the keys of its copies begin with, in each bucket."""
        return f"{DRILL_PREFIX}{self.id}/"

    @property
    def deadline(self) -> datetime:
        """When it has to be through."""
        return self.started_at + WITHIN

    def places(self, number: int) -> list[str]:
        """Where the copies of file `number` go."""
        return [f"s3://{bucket}/{self.folder}{number}" for bucket in self.buckets]

    @property
    def took(self) -> timedelta | None:
        """From the draw to the last file; None while the restore runs, or if there was none."""
        return self.restored_at - self.started_at if self.restored_at else None

    @property
    def late(self) -> bool:
        """Whether the restore took too long."""
        return self.took is not None and self.took > WITHIN

    @property
    def faults(self) -> list[tuple[Drawn, Comparison]]:
        """Everything found so far that somebody has to look at."""
        return [
            (self.files[number - 1], each)
            for number, found in sorted(self.compared.items())
            for each in found
            if each.outcome not in QUIET
        ]

    @property
    def good(self) -> bool | None:
        """Whether every file came back in time and unchanged; None while that is not known."""
        if self.state is DrillState.RUNNING:
            return None
        return not (self.faults or self.nameless or self.late)


# -- Drawing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Picks of files, each by its archive and its number in it, from `files` in all. Picks may repeat."""

    picks: tuple[tuple[int, int], ...] = ()
    files: int = 0


def draw(archives: Iterable[tuple[int, int]], slots: int, rng: random.Random) -> Draw:
    """`slots` independent picks, each uniform over the files of all `archives`: pairs of serial and number of files.

    One pass, in memory of the slots only. A slot holds a uniform pick of the first T files at any time (a weighted
    reservoir of one, Chao 1982). When w more come, it changes to one of those with probability w / (T + w). Instead of
    casting for each archive, each slot knows the total at which it changes next: a pick that was uniform at total T
    still stands at total S with probability T / S, so the change comes at T / u for a uniform u.
    """
    picks = [(0, 0)] * slots
    changes = [0.0] * slots
    soonest = 0.0
    total = 0
    for serial, files in archives:
        total += files
        if not files or total < soonest:
            continue
        for slot, change in enumerate(changes):
            if change <= total:
                picks[slot] = (serial, rng.randrange(files))
                changes[slot] = total / (1.0 - rng.random())
        soonest = min(changes)
    return Draw(picks=tuple(picks) if total else (), files=total)


# -- Restoring -------------------------------------------------------------------------------------------------------


def requests(drill: Drill) -> list[Request]:
    """The job that restores each file to its places; the same however often it is asked for."""
    wanted = (
        Wanted(key=file.version.key, pin=file.version.pin, destination=place)
        for number, file in enumerate(drill.files, start=1)
        for place in drill.places(number)
    )
    portions = list(chunks(wanted))
    return [
        Request(
            job=drill.id,
            chunk=chunk,
            chunks=len(portions),
            created_at=drill.started_at,
            need=NEED,
            overwrite=False,
            estimate_usd=0.0,
            items=tuple(portion),
        )
        for chunk, portion in enumerate(portions, start=1)
    ]


def not_restored(place: str, result: Result | None) -> Comparison | None:
    """What is wrong with how a copy's restore ended; None if the copy should be there."""
    if result is None:
        return Comparison(place=place, outcome=Outcome.NOT_RESTORED, detail="the restore never got to it")
    if result.ending is not Ending.RESTORED:
        detail = f"{result.ending}: {result.detail}" if result.detail else result.ending.value
        return Comparison(place=place, outcome=Outcome.NOT_RESTORED, detail=detail)
    return None


def compare(place: str, file: Drawn, found: Digest) -> Comparison:
    """What was found at a place, held against the index."""
    same = agree(file.digest, found)
    if same is False:
        detail = f"the index states {_short(file.digest)}, found {_short(found)}"
        return Comparison(place=place, outcome=Outcome.DIFFERENT, detail=detail)
    return Comparison(place=place, outcome=Outcome.SAME if same else Outcome.UNPROVEN)


def _short(digest: Digest) -> str:
    named = digest.sha256[:16] or digest.crc64nvme or digest.md5[:16] or "no hash"
    return f"{named} of {digest.size_bytes} bytes"


# -- Telling ---------------------------------------------------------------------------------------------------------


def told(drill: Drill) -> tuple[str, str]:
    """(subject, text) about a drill that was compared. Neither names a key: the topic is not encrypted."""
    if not drill.files and not drill.nameless:
        return (
            "neve drill: nothing to drill",
            _text(f"Drill {drill.id} found no archived file that it could draw.", "Next: neve status"),
        )
    archives = len({file.archive for file in drill.files})
    drawn = (
        f"{_counted(len(drill.files), 'file')} of {drill.collection:,} were drawn at random, from "
        f"{_counted(archives, 'archive')}, to come back to {len(drill.buckets)} places each."
    )
    return _told_good(drill, drawn) if drill.good else _told_failed(drill, drawn)


def _told_good(drill: Drill, drawn: str) -> tuple[str, str]:
    standing = sum(found[-1].outcome is not Outcome.GONE for found in drill.compared.values())
    unproven = sum(any(each.outcome is Outcome.UNPROVEN for each in found) for found in drill.compared.values())
    return (
        f"neve drill: {_counted(len(drill.files), 'file')} came back in {hours(drill.took)}",
        _text(
            f"Drill {drill.id} is good. {drawn}",
            f"All {len(drill.files) * len(drill.buckets)} copies are what the index states, and so is every source "
            f"that still stands in the content bucket: {standing}.",
            *([f"Of {_counted(unproven, 'file')} there is no more proof than its size."] if unproven else []),
            f"It took {hours(drill.took)}, of {hours(WITHIN)} at most.",
            f"To see the files: neve drill show {drill.id}",
        ),
    )


def _told_failed(drill: Drill, drawn: str) -> tuple[str, str]:
    faults = drill.faults
    listed = [*drill.nameless, *(_fault(file, found) for file, found in faults)]
    bad = len({file.id for file, _ in faults}) + len(drill.nameless)
    archives = sorted({file.archive for file, found in faults if found.place != SOURCE})
    return (
        f"neve drill FAILED: {bad} of {_counted(len(drill.files) + len(drill.nameless), 'file')}"
        if bad
        else f"neve drill LATE: it took {hours(drill.took)}",
        _text(
            f"Drill {drill.id} has failed. {drawn}",
            *([f"It took {hours(drill.took)}, and {hours(WITHIN)} are allowed."] if drill.late else []),
            *(f"- {each}" for each in listed[:TOLD_FAULTS]),
            *([f"- and {len(listed) - TOLD_FAULTS} more"] if len(listed) > TOLD_FAULTS else []),
            f"Next: neve drill show {drill.id}",
            f"      neve jobs {drill.id} --all",
            *(f"      neve audit run --archive {serial}" for serial in archives[:TOLD_FAULTS]),
        ),
    )


def told_late(drill: Drill, ended: int) -> tuple[str, str]:
    """(subject, text) about a drill that is not through at its deadline; so many copies have ended."""
    return (
        f"neve drill LATE: not through after {hours(WITHIN)}",
        _text(
            f"Drill {drill.id} was begun at {drill.started_at:%Y-%m-%d %H:%M} UTC and should be through.",
            f"{ended} of {len(drill.files) * len(drill.buckets)} copies have ended. It goes on, and its end is told.",
            f"Next: neve jobs {drill.id}",
            f"      neve drill show {drill.id}",
        ),
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def _fault(file: Drawn, found: Comparison) -> str:
    """Why a source could not be read may name its key."""
    detail = f": {found.detail}" if found.detail and found.outcome is not Outcome.UNREAD else ""
    return f"file {file.id}, {found.place}: {found.outcome}{detail}"


def hours(time: timedelta | None) -> str:
    """How long, for people: 40 minutes, 3.9 hours."""
    minutes = round((time or timedelta()) / timedelta(minutes=1))
    return f"{minutes} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


# -- Messages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Start:
    """Begin a drill. The id is "" where the schedule asks, which knows none."""

    drill: str = ""
    files: int = FILES


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Look at every drill that is not done."""


@dataclass(frozen=True, kw_only=True)
class JobEnded:
    """A restore has ended, a drill's or another."""

    job: str


def render_start(start: Start) -> str:
    """The message by which `neve drill run` begins a drill. Inverse: parse_drill."""
    return json.dumps({"message": "start", "drill": start.drill, "files": start.files})


def parse_drill(body: str) -> Start | Sweep | JobEnded:
    """What a message to Drill says. Raises EventInvalid, naming what is wrong."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EventInvalid(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise EventInvalid(f"a JSON object was expected, this is a {type(message).__name__}")
    if message.get("format") == RESTORED_FORMAT:
        return _job_ended(message)
    match message.get("message"):
        case "start":
            return _start(message)
        case "sweep":
            return Sweep()
        case other:
            raise EventInvalid(f"message {other!r}, expected start, sweep, or a word of {RESTORED_FORMAT}")


def scheduled_id(message_id: str, sent_at: datetime) -> str:
    """The id of the drill that a message of the schedule begins: the same however often the message comes."""
    return f"{sent_at:%Y%m%dT%H%M%S}-{hashlib.sha256(message_id.encode()).hexdigest()[:6]}"


def is_drill_id(text: str) -> bool:
    """Whether `text` could be a drill's id: it names a folder whose objects are deleted, so nothing else will do."""
    return _ID.fullmatch(text) is not None


def _start(message: Mapping[str, Any]) -> Start:
    drill, files = message.get("drill", ""), message.get("files", FILES)
    if not isinstance(drill, str) or (drill and not is_drill_id(drill)):
        raise EventInvalid(f"no drill's id: {drill!r}")
    if isinstance(files, bool) or not isinstance(files, int) or not 1 <= files <= MOST_FILES:
        raise EventInvalid(f"a drill has 1 to {MOST_FILES} files, not {files!r}")
    return Start(drill=drill, files=files)


def _job_ended(message: Mapping[str, Any]) -> JobEnded:
    if message.get("version") != 1:
        raise EventInvalid(f"{RESTORED_FORMAT} of version {message.get('version')!r}, this code reads version 1")
    job = message.get("job")
    if not isinstance(job, str) or not job:
        raise EventInvalid(f"a job's id was expected, this is {job!r}")
    return JobEnded(job=job)

"""Backfill: versions that were in the content bucket before, announced as if they had just been uploaded.

A backfill is split into shards that do not know of each other: ranges of keys, or files of an S3 Inventory. All
versions of a key are in one range. A shard is worked off in batches; its row says how far it came, and what it counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from neve.domain.events import DRILL_PREFIX
from neve.domain.forecast import Sizes, averaged, size_class
from neve.domain.metering import Class
from neve.domain.version import KEY_LIMIT, ObjectVersion
from neve.errors import EventInvalid

MOST_SHARDS = 10_000
"""Step Functions takes 256 KB from a state to the next one, and 10,000 numbers have 60 KB."""
ENOUGH_RANGES = 100
MOST_REQUESTS = 1_000
"""A bucket is asked for so many keys at the most to find where ranges begin: half a cent."""
LONGEST_BOUNDARIES = 200_000
"""Bytes of all boundaries: they are one item of a table, which takes 400 KB."""
PROBLEM_CHARACTERS = 500


class BackfillState(StrEnum):
    """Where a backfill stands. One that was stopped can be resumed."""

    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """A backfill of the keys with `prefix`, as it was asked for and as it stands.

    `inventory` is where S3 Inventory puts its reports, s3://bucket/prefix/; "" has the bucket listed. `rate` is how
    many versions are announced in a second at the most, 0 is no limit. A dry run counts and announces nothing.
    `attempt` counts the executions that were started for it, from 1. `problem` says why it was stopped if no person
    did that. It ended, finished or stopped, at `ended_at`.

    Raises ValueError if it cannot be one.
    """

    id: str
    begun_at: datetime
    prefix: str = ""
    inventory: str = ""
    rate: int = 0
    dry_run: bool = False
    state: BackfillState = BackfillState.RUNNING
    attempt: int = 1
    problem: str = ""
    ended_at: datetime | None = None

    def __post_init__(self) -> None:
        if len(_utf8(self.prefix)) > KEY_LIMIT:
            raise ValueError(f"a prefix has at most {KEY_LIMIT} bytes, as a key")
        if self.rate < 0:
            raise ValueError(f"no rate: {self.rate} versions a second")
        if self.inventory and not self.inventory.startswith("s3://"):
            raise ValueError(f"no place of an inventory, s3://bucket/prefix/: {self.inventory!r}")

    @property
    def execution(self) -> str:
        """The name of the execution that works on it now."""
        return f"{self.id}-{self.attempt}"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not UTF-8: {text!r}") from error


def backfill_id(begun_at: datetime, unique: str) -> str:
    """The id of a backfill: it begins with the time, and sorts by it."""
    return f"{begun_at:%Y%m%dT%H%M%S}-{unique[:6]}"


# -- What is counted -------------------------------------------------------------------------------------------------

FROZEN = frozenset({Class.GLACIER.value, Class.DEEP_ARCHIVE.value})


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """A version, and the storage class that S3 states of it."""

    version: ObjectVersion
    storage_class: str

    @property
    def frozen(self) -> bool:
        """Whether it lies in a class that nobody reads from without a thaw: it is counted, and not announced.

        The archive tiers of INTELLIGENT_TIERING are not told by listings: such versions end in `neve parked`.
        """
        return self.storage_class in FROZEN


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Versions by size, as bytes and number of each forecast.size_class; those that are frozen are counted apart."""

    by_size: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    frozen: int = 0
    frozen_bytes: int = 0

    @property
    def versions(self) -> int:
        """How many, without the frozen ones."""
        return sum(count for _, count in self.by_size.values())

    @property
    def size_bytes(self) -> int:
        """How many bytes they have together."""
        return sum(size for size, _ in self.by_size.values())

    @property
    def sizes(self) -> Sizes:
        """Their sizes for a forecast. Raises ValueError if there is none."""
        return averaged(self.by_size)


@dataclass
class Tally:
    """Counts versions."""

    by_size: dict[int, tuple[int, int]] = field(default_factory=dict)
    frozen: int = 0
    frozen_bytes: int = 0

    def count(self, stored: StoredVersion) -> None:
        """Count one version."""
        size = stored.version.size_bytes
        if stored.frozen:
            self.frozen += 1
            self.frozen_bytes += size
        else:
            self._add(size_class(size), size, 1)

    def add(self, counted: Counted) -> None:
        """Count what others counted."""
        for place, (size, count) in counted.by_size.items():
            self._add(place, size, count)
        self.frozen += counted.frozen
        self.frozen_bytes += counted.frozen_bytes

    def _add(self, place: int, size: int, count: int) -> None:
        before = self.by_size.get(place, (0, 0))
        self.by_size[place] = (before[0] + size, before[1] + count)

    def counted(self) -> Counted:
        """What was counted."""
        return Counted(by_size=dict(self.by_size), frozen=self.frozen, frozen_bytes=self.frozen_bytes)


def is_wanted(key: str, prefix: str) -> bool:
    """Whether a backfill of `prefix` takes up versions of this key. What drills restored is not archived again."""
    return key.startswith(prefix) and not key.startswith(DRILL_PREFIX)


# -- Shards ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Split:
    """How a backfill is split, once and for all: at `boundaries` between keys, or into the `files` of the inventory
    with this `manifest`.
    """

    boundaries: tuple[str, ...] = ()
    manifest: str = ""
    files: int = 0


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The keys k with after < k <= until, "" is no bound; or the files from `first` on, and before `end`."""

    number: int
    after: str = ""
    until: str = ""
    first: int = 0
    end: int = 0


def shards(split: Split) -> list[Shard]:
    """The parts of a backfill, the same list whenever it is asked for. Together they have all keys, or all files."""
    if split.manifest:
        number = min(split.files, MOST_SHARDS)
        edges = [part * split.files // number for part in range(number + 1)] if number else []
        return [Shard(number=part, first=first, end=end) for part, (first, end) in enumerate(pairwise(edges))]
    bounds = ["", *split.boundaries, ""]
    return [Shard(number=part, after=after, until=until) for part, (after, until) in enumerate(pairwise(bounds))]


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a shard has come: all versions up to `key` are done, or of `key` only those up to `version_id` if that is
    set; or all files before `file`, and of that one the lines up to `line`.
    """

    key: str = ""
    version_id: str = ""
    file: int = 0
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class BackfillShard:
    """A shard as it stands. `revision` counts its changes, 0 if it was never begun.

    `problem` says what kept it from going on when somebody was last at it.
    """

    of: str
    number: int
    place: Place = Place()
    done: bool = False
    counted: Counted = Counted()
    problem: str = ""
    lease_owner: str = ""
    leased_until: datetime | None = None
    changed_at: datetime | None = None
    revision: int = 0

    def after(self, place: Place, counted: Counted, *, done: bool) -> BackfillShard:
        """The row with one more batch."""
        tally = Tally()
        tally.add(self.counted)
        tally.add(counted)
        return replace(self, place=place, done=done, counted=tally.counted())


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What the shards of a backfill come to that were begun: what they counted, how many are done, and the first of
    their problems by number.
    """

    counted: Counted = Counted()
    begun: int = 0
    done: int = 0
    problems: tuple[tuple[int, str], ...] = ()
    changed_at: datetime | None = None


def together(rows: Iterable[BackfillShard]) -> Totals:
    """All shards' rows in one."""
    tally = Tally()
    begun = done = 0
    problems: list[tuple[int, str]] = []
    changed: list[datetime] = []
    for row in rows:
        tally.add(row.counted)
        begun += 1
        done += row.done
        problems += [(row.number, row.problem)] if row.problem else []
        changed += [row.changed_at] if row.changed_at else []
    return Totals(
        counted=tally.counted(),
        begun=begun,
        done=done,
        problems=tuple(problems),
        changed_at=max(changed, default=None),
    )


def time_left(counted: Counted, *, expected: int, per_s: float) -> timedelta | None:
    """How long it takes at this speed until as many versions are counted as are `expected`, by a dry run above all.

    None if nothing moves. A listing alone does not tell how much is left, nor do shards, which differ in size.
    """
    return timedelta(seconds=max(0, expected - counted.versions) / per_s) if per_s > 0 else None


# -- Where ranges begin ----------------------------------------------------------------------------------------------

_HIGHEST = ("", "\x7f", "\u07ff", "\uffff", "\U0010ffff")
"""The highest character of at most 0, 1 ... 4 bytes in UTF-8."""


def behind(beginning: str) -> str:
    """A string of at most KEY_LIMIT bytes behind nearly all keys that begin so: what follows has U+10FFFF in it."""
    return beginning + _HIGHEST[min(4, KEY_LIMIT - len(beginning.encode()))]


@dataclass
class _Asking:
    """Asks for keys until it has asked often enough. From then on there seems to be none."""

    first_key: Callable[[str], str]
    left: int

    def after(self, marker: str) -> str:
        if not self.left:
            return ""
        self.left -= 1
        return self.first_key(marker)


def boundaries(
    first_key: Callable[[str], str], *, enough: int = ENOUGH_RANGES, requests: int = MOST_REQUESTS
) -> tuple[str, ...]:
    """Where to split the keys of a bucket into some `enough` ranges, asking at most `requests` times.

    `first_key` tells the first key after a string, "" if there is none. Keys are told apart by the characters with
    which they go on, level by level; what is the same in all of them is passed over. Whatever comes out of it, ranges
    between such boundaries have every key, those that are uploaded meanwhile as well: a bad split only makes some
    longer than others.
    """
    asking = _Asking(first_key, requests)
    first = asking.after("")
    level, leaves = ([("", first)] if first else []), list[str]()
    while level and asking.left and len(level) + len(leaves) < enough:
        below: list[tuple[str, str]] = []
        for beginning, key in level:
            children = _children(asking, beginning, key)
            below += children
            leaves += [] if children else [beginning]
        level = below
    found = sorted({beginning for beginning, _ in level} | set(leaves))[1:]
    while sum(len(boundary.encode()) for boundary in found) > LONGEST_BOUNDARIES:
        found = found[::2]
    return tuple(found)


def _children(asking: _Asking, beginning: str, key: str) -> list[tuple[str, str]]:
    """The beginnings, one character longer than what they share, of the keys that begin with `beginning`; each with its
    first key. `key` is the first of all. None if they cannot be told apart.
    """
    while True:
        if key == beginning:
            key = asking.after(key)
        if not key or not key.startswith(beginning):
            return []
        shared = _shared(asking, beginning, key)
        if shared != key:
            break
        beginning = key  # all others are longer by what follows it
    children: list[tuple[str, str]] = []
    while key.startswith(shared) and key:
        child = key[: len(shared) + 1]
        if not children or children[-1][0] != child:
            children.append((child, key))
        key = asking.after(max(behind(child), key))
    return children


def _shared(asking: _Asking, beginning: str, key: str) -> str:
    """The longest beginning of `key` that all keys have which begin with `beginning`."""
    least, most = len(beginning), len(key)
    while least < most:
        middle = (least + most + 1) // 2
        other = asking.after(behind(key[:middle]))
        if other and other.startswith(beginning):
            most = middle - 1
        else:
            least = middle
    return key[:least]


# -- Events of the state machine -------------------------------------------------------------------------------------

ROUNDS = 200
"""So often one execution of a shard goes on; then another does, for an execution keeps 25,000 events at the most."""


class Step(StrEnum):
    """What the function is asked to do."""

    PLAN = "plan"
    ADVANCE = "advance"
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One event: what to do for which backfill, and for which of its shards, this time after so many `rounds`.

    `execution`, by its name, and `problem`, if shards failed, are told at the end.
    """

    step: Step
    backfill: str
    shard: int = 0
    rounds: int = 0
    execution: str = ""
    problem: str = ""


def parse(event: Mapping[str, Any]) -> Request:
    """What an event of the state machine asks for. Raises EventInvalid."""
    try:
        request = Request(
            step=Step(event["step"]),
            backfill=event["backfill"],
            shard=event.get("shard", 0),
            rounds=event.get("rounds", 0),
            execution=str(event.get("execution", "")),
            problem=str(event.get("problem", "")),
        )
        if not isinstance(request.backfill, str) or not all(type(n) is int for n in (request.shard, request.rounds)):
            raise TypeError("a backfill's id is text, its shards are numbers")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a step of a backfill: {error!r}") from error
    return request

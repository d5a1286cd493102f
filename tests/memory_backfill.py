"""What a backfill needs in memory: its ports, and a world in which its state machine runs and dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from neve.domain.backfill import Backfill, BackfillShard, BackfillState, Place, Split, StoredVersion
from neve.domain.events import parse
from neve.domain.version import ObjectVersion
from neve.errors import InventoryInvalid
from neve.flows.backfill import Advanced, Backfiller
from neve.ports import InventoryReport, Slot
from tests.memory import CONTENT, START, MemoryQueue
from tests.memory_reconcile import Deadly, Killed

ID = "20260901T120000-aaaaaa"
PLACE = "s3://reports/inventory/content-bucket/all/"
Answer = TypeVar("Answer")


@dataclass
class MemoryBackfills:
    """Backfills, when the next batch of each may be sent, their splits and their shards."""

    rows: dict[str, Backfill] = field(default_factory=dict)
    next_at: dict[str, datetime] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    parts: dict[tuple[str, int], BackfillShard] = field(default_factory=dict)

    def open(self, new: Backfill) -> Backfill:
        if new.id not in self.rows:
            self.rows[new.id], self.next_at[new.id] = new, new.begun_at
        return self.rows[new.id]

    def get(self, backfill_id: str) -> Backfill | None:
        return self.rows.get(backfill_id)

    def all(self, *, newest_first: bool = True) -> Iterator[Backfill]:
        return iter([self.rows[each] for each in sorted(self.rows, reverse=newest_first)])

    def split(self, backfill_id: str) -> Split | None:
        return self.splits.get(backfill_id)

    def freeze(self, backfill_id: str, split: Split) -> Split:
        return self.splits.setdefault(backfill_id, split)

    def shard(self, backfill_id: str, number: int) -> BackfillShard:
        return self.parts.get((backfill_id, number), BackfillShard(of=backfill_id, number=number))

    def shards(self, backfill_id: str) -> Iterator[BackfillShard]:
        return iter([row for (of, _), row in sorted(self.parts.items()) if of == backfill_id])

    def swap(self, seen: BackfillShard, to: BackfillShard) -> BackfillShard | None:
        if self.shard(seen.of, seen.number).revision != seen.revision:
            return None
        self.parts[to.of, to.number] = replace(to, revision=seen.revision + 1)
        return self.parts[to.of, to.number]

    def reserve(self, backfill_id: str, *, takes: timedelta, now: datetime, until: datetime) -> Slot | None:
        this = self.rows.get(backfill_id)
        if this is None or this.state is not BackfillState.RUNNING:
            return None
        at = max(now, self.next_at[backfill_id]) if takes else now
        if at > until:
            return Slot(at=at, taken=False)
        if takes:
            self.next_at[backfill_id] = at + takes
        return Slot(at=at, taken=True)

    def stop(self, backfill_id: str, now: datetime, *, problem: str = "") -> bool:
        this = self.rows.get(backfill_id)
        if this is None or this.state is not BackfillState.RUNNING:
            return False
        self.rows[backfill_id] = replace(this, state=BackfillState.STOPPED, problem=problem, ended_at=now)
        return True

    def resume(self, backfill_id: str, now: datetime, *, rate: int | None = None) -> Backfill | None:
        this = self.rows.get(backfill_id)
        if this is None or this.state is BackfillState.FINISHED:
            return None
        self.rows[backfill_id] = replace(
            this,
            state=BackfillState.RUNNING,
            attempt=this.attempt + 1,
            rate=this.rate if rate is None else rate,
            problem="",
            ended_at=None,
        )
        self.next_at[backfill_id] = now
        return self.rows[backfill_id]

    def end(self, backfill_id: str, now: datetime) -> bool:
        this = self.rows.get(backfill_id)
        if this is None or this.state is BackfillState.FINISHED:
            return False
        self.rows[backfill_id] = replace(this, state=BackfillState.FINISHED, problem="", ended_at=now)
        return True


@dataclass
class MemoryVersions:
    """A bucket's versions, None for delete markers, by place and in pages of `page`. `asked` counts requests for one
    key.
    """

    listed: list[tuple[Place, StoredVersion | None]] = field(default_factory=list)
    page: int = 1_000
    asked: int = 0

    def first_key(self, prefix: str, after: str) -> str:
        self.asked += 1
        keys = (place.key for place, _ in self.listed if place.key.startswith(prefix) and place.key > after)
        return min(keys, default="")  # characters sort as their UTF-8 does

    def stored(self, prefix: str, after: str, version_id: str = "") -> Iterator[tuple[Place, StoredVersion | None]]:
        in_order = sorted(self.listed, key=lambda each: each[0].key)
        start = sum(place.key <= after for place, _ in in_order)
        if version_id:
            start = 1 + next(
                number for number, (place, _) in enumerate(in_order) if place == Place(key=after, version_id=version_id)
            )
        found = [each for each in in_order[start:] if each[0].key.startswith(prefix)]
        for number, (place, stored) in enumerate(found, start=1):
            if stored is not None:
                yield place, stored
            if number % self.page == 0 and number < len(found):
                yield place, None


@dataclass
class MemoryVersionInventory:
    """One report: its files as lists of versions, None for a delete marker. `broken` files cannot be read."""

    files: list[list[StoredVersion | None]] = field(default_factory=list)
    refused: str = ""
    broken: set[int] = field(default_factory=set)

    def newest(self) -> InventoryReport:
        if self.refused:
            raise InventoryInvalid(self.refused)
        return InventoryReport(manifest="reports/manifest.json", files=len(self.files))

    def stored(self, manifest: str, file: int, after: int) -> Iterator[tuple[int, StoredVersion | None]]:
        yield from list(enumerate(self.files[file], start=1))[after:]
        if file in self.broken:
            raise InventoryInvalid(f"file {file} ends too early")


@dataclass
class DeepQueue(MemoryQueue):
    """A queue that tells how full it is: what lies in it, and `more`."""

    more: int = 0

    def waiting(self) -> int:
        return len(self.sent) + self.more


def stored(key: str, version_id: str = "v1", size_bytes: int = 100, storage_class: str = "STANDARD") -> StoredVersion:
    """A version as a listing has it."""
    version = ObjectVersion(
        key=key, version_id=version_id, size_bytes=size_bytes, etag="e" * 32, sequencer="", event_at=START
    )
    return StoredVersion(version=version, storage_class=storage_class)


@dataclass
class BackfillWorld:
    """Everything that a backfill looks at. Each look at the clock takes `tick`; a call may take `lasts`."""

    tick: timedelta = timedelta(milliseconds=10)
    lasts: timedelta = timedelta(minutes=15)
    few: int = 0
    now: datetime = START
    deadly: Deadly = field(default_factory=Deadly)
    listing: MemoryVersions = field(default_factory=MemoryVersions)
    inventory: MemoryVersionInventory = field(default_factory=MemoryVersionInventory)
    backfills: MemoryBackfills = field(default_factory=MemoryBackfills)
    queue: DeepQueue = field(default_factory=DeepQueue)
    bundles_queue: DeepQueue = field(default_factory=DeepQueue)
    between: Callable[[], None] = lambda: None
    """What happens in the world after each step of the machine."""
    calls: list[Advanced] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    """The messages that were taken out of the queue."""

    def __post_init__(self) -> None:
        self._owners = 0

    def add(self, *versions: StoredVersion) -> None:
        """Versions that are in the bucket."""
        self.listing.listed += [
            (Place(key=each.version.key, version_id=each.version.version_id), each) for each in versions
        ]

    def hide(self, key: str, version_id: str) -> None:
        """A delete marker on a key."""
        self.listing.listed.append((Place(key=key, version_id=version_id), None))

    def clock(self) -> datetime:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def backfiller(self) -> Backfiller:
        watch = self.deadly.watch
        return Backfiller(
            backfills=watch(self.backfills),
            listing=watch(self.listing),
            inventories=lambda _: watch(self.inventory),
            queue=watch(self.queue),
            lane=(watch(self.queue), watch(self.bundles_queue)),
            bucket=CONTENT,
            clock=self.clock,
            sleep=self.sleep,
            few=self.few,
        )

    def open(self, **asked: object) -> Backfill:
        """Begin a backfill, as the command does."""
        return self.backfills.open(replace(Backfill(id=ID, begun_at=self.now), **asked))  # type: ignore[arg-type]

    def advance(self, number: int, *, owner: str = "") -> Advanced:
        self._owners += 1
        return self.backfiller.advance(ID, number, owner=owner or f"o{self._owners}", until=self.now + self.lasts)

    def run(self) -> Backfill:
        """One execution of the state machine, each shard's child by turns. Who dies is tried again later."""
        for _ in range(100):
            left = list(self._tried(lambda: self.backfiller.plan(ID)).shards)
            while left:
                left = [number for number in left if not self._over(number)]
            if self._tried(self.end).state is not BackfillState.RUNNING:
                return self.backfills.rows[ID]
        raise AssertionError("the backfill does not end")

    def end(self, *, problem: str = "") -> Backfill:
        """What the execution that is to end the backfill does at its end."""
        this = self.backfills.get(ID)
        assert this is not None
        ended = self.backfiller.end(ID, execution=this.execution, problem=problem)
        assert ended is not None
        return ended

    def _over(self, number: int) -> bool:
        answer = self._tried(lambda: self.advance(number))
        self.calls.append(answer)
        self.now += timedelta(seconds=answer.wait_s)
        self.sent += self.queue.take()
        self.between()
        return answer.done or answer.stopped

    def _tried(self, step: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return step()
            except Killed:
                self.now += timedelta(seconds=1)

    def announced(self) -> list[tuple[str, str]]:
        """The versions that were announced, each as often as it was."""
        bodies = [*self.sent, *(body for body, _ in self.queue.sent)]
        return [version.identity for body in bodies for version in parse(body, CONTENT).versions]


def identities(versions: Sequence[StoredVersion]) -> list[tuple[str, str]]:
    return [each.version.identity for each in versions]

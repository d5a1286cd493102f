"""Backfill: announce what was in the content bucket before, shard by shard, beside live uploads and behind them.

A version that is announced twice is archived once; one that is never announced would be missed. So a batch is sent
before its place is recorded, and the record is conditional on the shard being as it was read. Who dies in between has
one batch sent twice; who is slow, and finds another at its shard, stops at its next record. What a shard is, is frozen
before the first of them is begun: every execution, and every retry, works on the same ones.

A million versions in a listing take, besides what archiving them takes, by list price for us-east-1:
    1,000 LIST, of 1,000 versions each                                                             $0.0050
    1,000 announcements, with keys of 43 characters 162 KB each: by SQS's units of 64 KB 3,000 sent,
    3,000 received and 1,000 deleted                                                               $0.0028
    1,000 records of 2 write units (a shard's row has little more than 1 KB), and if there is a rate
    1,000 reservations of 1; 1,000 reads                                                           $0.0020
    3,000 looks at queues                                                                          $0.0012
together a cent, and a minute or two of the function. A dry run has the LISTs, and two records a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from neve.domain.backfill import (
    PROBLEM_CHARACTERS,
    Backfill,
    BackfillShard,
    BackfillState,
    Counted,
    Place,
    Shard,
    Split,
    StoredVersion,
    Tally,
    boundaries,
    is_wanted,
    shards,
    together,
)
from neve.domain.events import announcements
from neve.domain.version import ObjectVersion
from neve.errors import EventInvalid, InventoryInvalid, Transient
from neve.ports import Backfills, Depth, Queue, VersionInventory, VersionListing

BATCH = 1_000
"""Versions that are announced before their place is recorded: what a death sends twice. Most fit into one message."""
FEW = 10_000
PAGE = 1_000
"""So few versions are one shard: they are listed in seconds, and split they would be announced one by one. The end of
a page counts as another page, for a bucket may have any number of delete markers."""
SLOW_BATCH_S = 10
"""With a rate below 100 a second a batch is what it allows in so many seconds."""
STEP = timedelta(seconds=30)
"""So often a place is recorded where there is little or nothing to announce: in dry runs, and among delete markers."""
LEASE = timedelta(minutes=2)
"""From one record to the next. It takes HOLD, STEP and sending a batch; who is slower loses the shard, and no more."""
MARGIN = timedelta(seconds=30)
"""So long before its deadline an invocation ends its work, or for a quarter of its time if that is less."""
FULL = 100
"""Messages in a queue of the backfill's lane: more are not added. 100 announcements are 90,000 versions."""
PAUSE_S = 5
HOLD = timedelta(seconds=20)
"""For so long a batch waits in the function; longer waits are left to who calls it, where they cost less."""
LONGEST_WAIT_S = 300


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How a backfill stands, and the shards of it that are not done, by number; none if it is not running."""

    state: BackfillState
    shards: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """What one call came to: whether the shard is done, or cannot go on until the backfill is resumed; else in how many
    seconds it is worth another call. And what this call counted, and how much of it it announced.
    """

    done: bool = False
    stopped: bool = False
    wait_s: int = 0
    counted: Counted = field(default_factory=Counted)
    announced: int = 0
    messages: int = 0


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What was read from one place to another, the shard's end if `done`."""

    place: Place
    counted: Counted
    announced: Sequence[ObjectVersion]
    done: bool


@dataclass(frozen=True, kw_only=True)
class Backfiller:
    """Backfills over listing or inventory, queue and table.

    `inventories` gives the reports in a place, or raises InventoryInvalid if they may not be read; `lane` are the
    queues that should not fill up. `sleep` takes seconds. Less than `few` versions are not split.
    """

    backfills: Backfills
    listing: VersionListing
    inventories: Callable[[str], VersionInventory]
    queue: Queue
    lane: Sequence[Depth]
    bucket: str
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    few: int = FEW

    def plan(self, backfill_id: str) -> Planned:
        """Split the backfill unless it is split, and tell what is left of it.

        An inventory that cannot be used stops it; so does whatever else time does not heal, and is raised. Raises
        EventInvalid if there is no such backfill.
        """
        this = self._get(backfill_id)
        if this.state is not BackfillState.RUNNING:
            return Planned(state=this.state)
        split = self.backfills.split(this.id)
        if split is None:
            try:
                drawn_up = self._drawn_up(this)
            except InventoryInvalid as error:
                self._stop(this.id, str(error))
                return Planned(state=BackfillState.STOPPED)
            except Transient:
                raise
            except Exception as error:
                self._stop(this.id, _named(error))
                raise
            split = self.backfills.freeze(this.id, drawn_up)
        done = {row.number for row in self.backfills.shards(this.id) if row.done}
        left = tuple(shard.number for shard in shards(split) if shard.number not in done)
        return Planned(state=this.state, shards=left)

    def _drawn_up(self, this: Backfill) -> Split:
        if this.inventory:
            report = self.inventories(this.inventory).newest()
            return Split(manifest=report.manifest, files=report.files)
        if self._has_few(this.prefix):
            return Split()
        return Split(boundaries=boundaries(lambda after: self.listing.first_key(this.prefix, after)))

    def _has_few(self, prefix: str) -> bool:
        seen = 0
        for _, stored in self.listing.stored(prefix, ""):
            seen += 1 if stored is not None else PAGE
            if seen >= self.few:
                return False
        return True

    def advance(self, backfill_id: str, number: int, *, owner: str, until: datetime) -> Advanced:
        """Go on with a shard as `owner`, who ends at `until`.

        Raises EventInvalid if there is no such shard. Whatever else goes wrong is noted on the shard, and raised unless
        time does not heal it, or some batches were recorded before.
        """
        this, split = self._get(backfill_id), self.backfills.split(backfill_id)
        parts = shards(split) if split else []
        if split is None or not 0 <= number < len(parts):
            raise EventInvalid(f"there is no shard {number} of a backfill {backfill_id}")
        seen = self.backfills.shard(this.id, number)
        if seen.done or this.state is not BackfillState.RUNNING:
            return Advanced(done=seen.done, stopped=not seen.done)
        now = self.clock()
        if seen.leased_until is not None and seen.leased_until >= now and seen.lease_owner != owner:
            return Advanced(wait_s=_seconds(seen.leased_until - now))
        row = self.backfills.swap(seen, replace(_leased(seen, owner, now), problem=""))
        if row is None:
            return Advanced(wait_s=_seconds(LEASE))
        work = _Work(
            of=self,
            this=this,
            split=split,
            shard=parts[number],
            owner=owner,
            last=until - min(MARGIN, (until - now) / 4),
            row=row,
        )
        return work.done_by_then()

    def end(self, backfill_id: str, *, execution: str, problem: str = "") -> Backfill | None:
        """Finish the backfill if all of its shards are done; else, if any cannot go on, stop it and say why.

        `problem` is what kept shards from going on that could not note it. As the backfill stands afterwards; None, and
        nothing is changed, if it was resumed meanwhile: then it is for another `execution` to end. Raises EventInvalid
        if there is no such backfill.
        """
        this, split = self._get(backfill_id), self.backfills.split(backfill_id)
        if this.execution != execution:
            return None
        if this.state is BackfillState.FINISHED:
            return this
        totals = together(self.backfills.shards(this.id))
        if split is not None and totals.done == len(shards(split)):
            self.backfills.end(this.id, self.clock())
        elif totals.problems:
            (number, first), more = totals.problems[0], len(totals.problems) - 1
            self._stop(this.id, f"shard {number}: {first}" + (f" (and {more} more shards)" if more else ""))
        elif problem:
            self._stop(this.id, problem)
        return self._get(backfill_id)

    def _stop(self, backfill_id: str, problem: str) -> None:
        self.backfills.stop(backfill_id, self.clock(), problem=_brief(problem))

    def _get(self, backfill_id: str) -> Backfill:
        this = self.backfills.get(backfill_id)
        if this is None:
            raise EventInvalid(f"there is no backfill {backfill_id}")
        return this


@dataclass(kw_only=True)
class _Work:
    """One call's work on one shard, whose lease it holds. `row` is the shard as this call recorded it last."""

    of: Backfiller
    this: Backfill
    split: Split
    shard: Shard
    owner: str
    last: datetime
    row: BackfillShard
    recorded: int = 0
    announced: int = 0
    messages: int = 0
    tally: Tally = field(default_factory=Tally)

    def done_by_then(self) -> Advanced:
        """Batch after batch until the shard is done, it is time, or something keeps it from going on."""
        try:
            return self._batches()
        except InventoryInvalid as error:
            self._let_go(problem=_brief(error))
            return self._came_to(stopped=True)
        except Transient as error:
            if self.recorded:
                self._let_go()
                return self._came_to(wait_s=PAUSE_S)
            self._let_go(problem=_brief(error))
            raise
        except Exception as error:
            self._let_go(problem=_brief(_named(error)))
            raise

    def _batches(self) -> Advanced:
        found = self._found()
        while True:
            if (wait_s := self._wait_for_room()) > 0:
                self._let_go()
                return self._came_to(wait_s=wait_s)
            batch = self._read(found)
            slot = self._reserve(batch)
            if slot is None:
                self._let_go()
                return self._came_to(stopped=True)
            if slot > 0:
                self._let_go()
                return self._came_to(wait_s=slot)
            sent = 0
            now = self.of.clock()  # when it is announced: WriteArchive's patience with it counts from there
            for message in announcements(self.of.bucket, [replace(each, event_at=now) for each in batch.announced]):
                self.of.queue.send(message)
                sent += 1
            over = batch.done or self.of.clock() >= self.last
            if not self._record(batch, over=over):
                return self._came_to(wait_s=_seconds(LEASE))
            self.announced += len(batch.announced)
            self.messages += sent
            if over:
                return self._came_to(done=batch.done)

    def _wait_for_room(self) -> int:
        """Wait a little while queues are full; if they stay so, how many seconds to wait outside."""
        if self.this.dry_run:
            return 0
        give_up = self.of.clock() + HOLD
        while any(queue.waiting() > FULL for queue in self.of.lane):
            if self.of.clock() >= min(give_up, self.last):
                return 3 * _seconds(HOLD)
            self.of.sleep(PAUSE_S)
        return 0

    def _found(self) -> Iterator[tuple[Place, StoredVersion | None]]:
        """What follows the shard's place, up to its end."""
        place = self.row.place
        if not self.split.manifest:
            listed = self.of.listing.stored(self.this.prefix, place.key or self.shard.after, place.version_id)
            for here, stored in listed:
                if self.shard.until and here.key > self.shard.until:
                    return
                yield here, stored
            return
        inventory = self.of.inventories(self.this.inventory)
        for file in range(max(place.file, self.shard.first), self.shard.end):
            after = place.line if file == place.file else 0
            for line, stored in inventory.stored(self.split.manifest, file, after):
                yield Place(file=file, line=line), stored

    def _read(self, found: Iterator[tuple[Place, StoredVersion | None]]) -> _Batch:
        """As much as makes a batch, or as there is in a step's time. What a dry run reads it keeps no list of."""
        most = min(BATCH, max(1, self.this.rate * SLOW_BATCH_S)) if self.this.rate else BATCH
        until = min(self.of.clock() + STEP, self.last)
        place, tally = self.row.place, Tally()
        announced: list[ObjectVersion] = []
        done = True
        for place, stored in found:  # noqa: B007  # the last one counts
            if stored is not None and is_wanted(stored.version.key, self.this.prefix):
                tally.count(stored)
                if not stored.frozen and not self.this.dry_run:
                    announced.append(stored.version)
            if len(announced) >= most or self.of.clock() >= until:
                done = False
                break
        return _Batch(place=place, counted=tally.counted(), announced=announced, done=done)

    def _reserve(self, batch: _Batch) -> int | None:
        """Wait until the batch may be sent: 0. Or in how many seconds it is worth another try; None if never."""
        takes = timedelta(seconds=len(batch.announced) / self.this.rate) if self.this.rate else timedelta(0)
        now = self.of.clock()
        slot = self.of.backfills.reserve(self.this.id, takes=takes, now=now, until=now + HOLD)
        if slot is None:
            return None
        if not slot.taken:
            return _seconds(slot.at - now)
        if slot.at > now:
            self.of.sleep((slot.at - now).total_seconds())
        return 0

    def _record(self, batch: _Batch, *, over: bool) -> bool:
        """Write down how far it came; False if another has been at the shard meanwhile."""
        now = self.of.clock()
        after = self.row.after(batch.place, batch.counted, done=batch.done)
        recorded = self.of.backfills.swap(self.row, _unleased(after, now) if over else _leased(after, self.owner, now))
        if recorded is None:
            return False
        self.row = recorded
        self.recorded += 1
        self.tally.add(batch.counted)
        return True

    def _let_go(self, *, problem: str = "") -> None:
        """End the lease, and note what is wrong. If that fails the lease ends by itself."""
        with suppress(Transient):
            self.of.backfills.swap(self.row, replace(_unleased(self.row, self.of.clock()), problem=problem))

    def _came_to(self, *, done: bool = False, stopped: bool = False, wait_s: int = 0) -> Advanced:
        return Advanced(
            done=done,
            stopped=stopped,
            wait_s=wait_s,
            counted=self.tally.counted(),
            announced=self.announced,
            messages=self.messages,
        )


def _leased(row: BackfillShard, owner: str, now: datetime) -> BackfillShard:
    return replace(row, lease_owner=owner, leased_until=now + LEASE, changed_at=now)


def _unleased(row: BackfillShard, now: datetime) -> BackfillShard:
    return replace(row, lease_owner="", leased_until=None, changed_at=now)


def _seconds(wait: timedelta) -> int:
    """In whole seconds, at least 1 and at most LONGEST_WAIT_S."""
    return min(max(1, math.ceil(wait.total_seconds())), LONGEST_WAIT_S)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _brief(problem: object) -> str:
    return str(problem)[:PROBLEM_CHARACTERS]

"""Reconcile: begin a pass, have its shards worked off, tell of what it found. The work itself is in compare.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from neve.domain.reconcile import (
    GIVEN_UP_AFTER,
    Outcome,
    Pass,
    PassState,
    Shard,
    ShardKind,
    ShardRequest,
    ShardRow,
    StartRequest,
    due_shards,
    mail,
    render_shard,
    shards,
    subject,
    together,
)
from neve.errors import EventInvalid, InventoryInvalid, Transient
from neve.flows.compare import Comparer
from neve.ports import Archives, Inventory, Queue, Reconciles, Topic

STEP = timedelta(minutes=2)
"""How often a shard's progress is written down: what a death costs."""
MARGIN = timedelta(seconds=30)
"""So long before its deadline an invocation ends its step, or for a quarter of its time if that is less."""
PATIENCE = timedelta(hours=1)
"""A shard that has not moved for so long gets its message once more."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """What one message came to: what was counted, and recorded; whether the shard, and the pass, have ended."""

    counts: Mapping[Outcome, int] = field(default_factory=dict)
    done: bool = False
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Reconciler:
    """Passes over queue and table.

    A shard is leased, a step is made, and place, counts and findings are recorded in one conditional write; then the
    next step, and at the invocation's end a message to itself. Who dies goes on from the last record, and nothing is
    counted twice; of two at one shard the second record is refused, and its maker stops.

    The shards of archives come first; whoever ends the last of them sends the messages of the others. A message that
    comes before that is passed over. If the sender dies its own message comes back, and finds its shard done.
    """

    passes: Reconciles
    comparer: Comparer
    inventory: Inventory | None
    archives: Archives
    queue: Queue
    alerts: Topic
    clock: Callable[[], datetime]

    def start(self, request: StartRequest) -> Pass:
        """Begin a pass, or send the messages of one that stands once more: they do no harm."""
        this = self.passes.get(request.id) or self.passes.open(self._drawn_up(request))
        if this.state is PassState.RUNNING:
            self._send(this, (shard.number for shard in due_shards(this, self.clock())))
            self._end(this.id)
        return this

    def _send(self, this: Pass, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.queue.send(render_shard(ShardRequest(of=this.id, number=number)))

    def _drawn_up(self, request: StartRequest) -> Pass:
        new = Pass(id=request.id, begun_at=self.clock(), boundaries=request.boundaries, serials=self.archives.drawn())
        if self.inventory is None:
            return new
        try:
            report = self.inventory.newest()
        except InventoryInvalid as error:
            return replace(new, refused=str(error))
        return replace(new, inventory=report.manifest, inventory_files=report.files)

    def go_on(self, request: ShardRequest, *, owner: str, until: datetime) -> Advanced:
        """Go on with a shard as `owner`, who ends at `until`.

        Nothing is done if the shard is done, or not due, or leased to another: that one's own message comes back if it
        dies.
        Raises EventInvalid if there is no such shard.
        """
        this = self.passes.get(request.of)
        parts = shards(this) if this else []
        if this is None or request.number >= len(parts):
            raise EventInvalid(f"there is no shard {request.number} of a pass {request.of}")
        seen = self.passes.shard(this.id, request.number)
        part = parts[request.number]
        if seen.done or this.state is PassState.FINISHED:
            return self._ended(part, this.id)
        now = self.clock()
        taken = seen.lease_owner not in ("", owner) and seen.leased_until is not None and seen.leased_until >= now
        if taken or part not in due_shards(this, now):
            return Advanced()
        to = replace(seen, lease_owner=owner, leased_until=until, changed_at=now)
        leased = self.passes.swap(seen, to)
        if leased is None:
            return Advanced()
        last = until - min(MARGIN, (until - now) / 4)
        row, counts = self._steps(this, part, leased, last=last)
        if row is None:
            return Advanced(counts=counts)
        if not row.done:
            self.queue.send(render_shard(request))
            return Advanced(counts=counts)
        return replace(self._ended(part, this.id), counts=counts)

    def _ended(self, part: Shard, pass_id: str) -> Advanced:
        """A shard is done, perhaps since long: the pass ends, or the shards become due that waited for this one."""
        finished = self._end(pass_id)
        this = self.passes.get(pass_id)
        assert this is not None, "a pass is never deleted"
        if part.kind is ShardKind.ARCHIVES and this.state is PassState.RUNNING:
            due = due_shards(this, self.clock())
            self._send(this, (shard.number for shard in due if shard.kind is not ShardKind.ARCHIVES))
        return Advanced(done=True, finished=finished)

    def _steps(
        self, this: Pass, shard: Shard, row: ShardRow, *, last: datetime
    ) -> tuple[ShardRow | None, Counter[Outcome]]:
        """Step after step until the shard is done, or it is time. The row is None once another has recorded a step."""
        counts: Counter[Outcome] = Counter()
        try:
            while True:
                progress = self.comparer.advance(this, shard, row.place, until=min(self.clock() + STEP, last))
                now = self.clock()
                over = progress.done or now >= last
                to = replace(row.after(progress), changed_at=now)
                recorded = self.passes.swap(row, _unleased(to) if over else to)
                if recorded is None:
                    return None, counts
                counts.update(progress.counts)
                row = recorded
                if over:
                    return row, counts
        except Exception:
            with suppress(Transient):  # the lease ends by itself
                self.passes.swap(row, _unleased(row))
            raise

    def sweep(self) -> int:
        """Look after every pass that is due: how many messages of shards that stand still were sent again."""
        return sum(self._look_after(this) for this in self.passes.due(self.clock()))

    def _look_after(self, this: Pass) -> int:
        now = self.clock()
        self.passes.postpone(this.id, now + PATIENCE)
        if this.state is PassState.FINISHED:
            self._announce(this.id)
        elif self._end(this.id, anyway=this.begun_at + GIVEN_UP_AFTER < now):
            return 0
        else:
            begun = {row.number: row for row in self.passes.shards(this.id)}
            still = [
                shard.number
                for shard in due_shards(this, now)
                if shard.number not in begun or _stands_still(begun[shard.number], now)
            ]
            self._send(this, still)
            return len(still)
        return 0

    def _end(self, pass_id: str, *, anyway: bool = False) -> bool:
        """End the pass if all of it is done, or `anyway`; whether this call did. First the state, then who is told."""
        this = self.passes.get(pass_id)
        assert this is not None, "a pass is never deleted"
        if this.state is PassState.FINISHED or not (this.complete or anyway):
            return False
        counts, _ = together(self.passes.shards(pass_id))
        if not self.passes.end(pass_id, counts, self.clock()):
            return False
        self._announce(pass_id)
        return True

    def _announce(self, pass_id: str) -> None:
        """Tell of a finished pass, once: a clean one is only recorded. Who dies in between leaves it to the sweep."""
        this = self.passes.get(pass_id)
        assert this is not None, "a pass is never deleted"
        if not this.clean:
            _, findings = together(self.passes.shards(pass_id))
            self.alerts.publish(mail(this, findings), subject=subject(this))
        self.passes.announced(pass_id)


def _unleased(row: ShardRow) -> ShardRow:
    return replace(row, lease_owner="", leased_until=None)


def _stands_still(row: ShardRow, now: datetime) -> bool:
    """Whether nobody is at a shard that is not done, nor has been for a while: its message may wait in the queue."""
    if row.done or (row.leased_until is not None and row.leased_until >= now):
        return False
    return row.changed_at is None or row.changed_at < now - PATIENCE

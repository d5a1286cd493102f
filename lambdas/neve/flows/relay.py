"""Relay: what waits in the outbox goes to its queues, oldest first."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from neve.domain.outbox import Backlog, Cause, Entry, queue_name
from neve.domain.parked import Parked, Reason
from neve.errors import MessageRefused
from neve.ports import Outbox, ParkingLot, Queue

PAGE = 100
REFUSALS = 3
"""So often a message is tried that its queue refuses for its own sake. Waiting would not help, so it is not waited."""


@dataclass(frozen=True, kw_only=True)
class Relayed:
    """What became of one queue's entries: `sent`, of which `denied` had been put since sending was not allowed.

    `problem` is what ended it before its time; `left` is what waits now. `busy`: another relay is at this queue.
    """

    queue: str
    sent: int
    denied: int
    parked: int
    problem: Exception | None
    busy: bool
    left: Backlog


@dataclass(frozen=True, kw_only=True)
class Relay:
    """The relay over its ports.

    An entry is sent, then forgotten: who dies in between has it sent twice. A lease keeps relays apart, since two at
    one queue would send everything twice; it is no more than that. One that goes on after its lease has ended sends
    again what another has sent, and nothing out of order: what it read are a sender's oldest entries, in their order.

    `threads` senders' entries are sent side by side, each sender's one after the other. With 1 all go one after the
    other, as the outbox has them.
    """

    outbox: Outbox
    queue: Callable[[str], Queue]
    parking_lot: ParkingLot
    threads: int
    clock: Callable[[], datetime]

    def drain(self, *, owner: str, until: datetime) -> list[Relayed]:
        """Send what waits, until nothing does or the time is up; what became of each queue that had something.

        The queues take turns. Whatever is wrong with one of them holds back no other.
        """
        all_of_them = [_Draining(queue=queue) for queue in self.outbox.queues()]
        turns = deque(all_of_them)
        while turns and self.clock() < until:
            draining = turns.popleft()
            try:
                more = self._turn(draining, owner, until)
            except Exception as error:  # noqa: BLE001  # the caller is told
                draining.problem, more = error, False
            if more:
                turns.append(draining)
        return [self._end(draining, owner) for draining in all_of_them]

    def _turn(self, draining: _Draining, owner: str, until: datetime) -> bool:
        """Send a page of a queue's entries; whether there may be more to send."""
        if not self.outbox.lease(draining.queue, owner=owner, now=self.clock(), until=until):
            draining.busy = True
            return False
        entries = self.outbox.oldest(draining.queue, PAGE)
        queue = self.queue(draining.queue)
        for counts, problem in self._each_sender(lambda some: self._send(queue, some, until), entries):
            draining.counts += counts
            draining.problem = draining.problem or problem
        return bool(entries) and draining.problem is None

    def _each_sender(self, send: Callable[[Sequence[Entry]], _Sent], entries: Sequence[Entry]) -> list[_Sent]:
        """`send` for each sender's entries, or for all at once if they go one after the other."""
        if self.threads == 1 or not entries:
            return [send(entries)]
        senders: dict[str, list[Entry]] = {}
        for entry in entries:
            senders.setdefault(entry.sender, []).append(entry)
        with ThreadPoolExecutor(min(self.threads, len(senders))) as pool:
            return list(pool.map(send, senders.values()))

    def _send(self, queue: Queue, entries: Sequence[Entry], until: datetime) -> _Sent:
        """Send entries in their order, up to the first that has to wait."""
        counts: Counter[str] = Counter()
        for entry in entries:
            if self.clock() >= until:
                break
            try:
                went = self._send_or_park(queue, entry)
                self.outbox.sent(entry)
            except Exception as error:  # noqa: BLE001  # the caller is told
                return counts, error
            counts["sent" if went else "parked"] += 1
            counts["denied"] += int(went and entry.cause is Cause.DENIED)
        return counts, None

    def _send_or_park(self, queue: Queue, entry: Entry) -> bool:
        """Whether the entry was sent; else it is parked, before anything after it goes."""
        for _ in range(max(1, REFUSALS - entry.failures)):
            try:
                queue.send(entry.body, delay_s=entry.delay_s(self.clock()))
            except MessageRefused as error:
                refused = error
                self.outbox.failed(entry)
            else:
                return True
        self.parking_lot.park(
            Parked(
                reason=Reason.MESSAGE_REFUSED,
                detail=f"{queue_name(entry.queue)}: {refused}",
                parked_at=self.clock(),
                evidence=entry.body,
            )
        )
        return False

    def _end(self, draining: _Draining, owner: str) -> Relayed:
        """Let go of the queue's lease, and count what is left. If that fails, the lease ends by itself."""
        left = Backlog(entries=0, oldest_at=None)
        try:
            self.outbox.release(draining.queue, owner=owner)
            left = self.outbox.backlog(draining.queue)
        except Exception as error:  # noqa: BLE001  # the caller is told
            draining.problem = draining.problem or error
        return Relayed(
            queue=draining.queue,
            sent=draining.counts["sent"],
            denied=draining.counts["denied"],
            parked=draining.counts["parked"],
            problem=draining.problem,
            busy=draining.busy,
            left=left,
        )


_Sent = tuple[Counter[str], Exception | None]


@dataclass(kw_only=True)
class _Draining:
    """What a queue has come to so far."""

    queue: str
    counts: Counter[str] = field(default_factory=Counter)
    problem: Exception | None = None
    busy: bool = False

"""The ports of offloading in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from neve.domain.outbox import LONGEST_LEASE, Backlog, Entry
from neve.domain.pointer import InContent, OnHost, Pointer


@dataclass
class MemoryPointers:
    """Pointers in a dictionary."""

    rows: dict[str, Pointer] = field(default_factory=dict)

    def get(self, key: str) -> Pointer | None:
        return self.rows.get(key)

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    def move(self, seen: Pointer | None, to: InContent) -> bool:
        if _named(self.rows.get(to.key)) != _named(seen):
            return False
        self.rows[to.key] = to
        return True

    def claim_host(self, to: OnHost) -> bool:
        if isinstance(self.rows.get(to.key), InContent):
            return False
        self.rows[to.key] = to
        return True


def _named(pointer: Pointer | None) -> tuple[str, str, str] | None:
    if not isinstance(pointer, InContent):
        return None
    return pointer.content_version, pointer.upload_version, pointer.sequencer


@dataclass
class MemoryOutbox:
    """Entries and leases in dictionaries."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def put(self, entry: Entry) -> None:
        self.entries[entry.queue, entry.id] = entry

    def holds(self, queue: str) -> bool:
        return any(waiting == queue for waiting, _ in self.entries)

    def queues(self) -> Sequence[str]:
        return sorted({queue for queue, _ in self.entries})

    def lease(self, queue: str, *, owner: str, now: datetime, until: datetime) -> bool:
        holder, ends = self.leases.get(queue, (owner, now))
        if holder != owner and now < ends <= now + LONGEST_LEASE:
            return False
        self.leases[queue] = (owner, until)
        return True

    def release(self, queue: str, *, owner: str) -> None:
        if queue in self.leases and self.leases[queue][0] == owner:
            del self.leases[queue]

    def oldest(self, queue: str, limit: int) -> Sequence[Entry]:
        return [self.entries[place] for place in sorted(self.entries) if place[0] == queue][:limit]

    def sent(self, entry: Entry) -> None:
        self.entries.pop((entry.queue, entry.id), None)

    def failed(self, entry: Entry) -> None:
        if (entry.queue, entry.id) in self.entries:
            standing = self.entries[entry.queue, entry.id]
            self.entries[entry.queue, entry.id] = replace(standing, failures=standing.failures + 1)

    def backlog(self, queue: str) -> Backlog:
        first = next(iter(self.oldest(queue, 1)), None)
        entries = sum(waiting == queue for waiting, _ in self.entries)
        return Backlog(entries=entries, oldest_at=first.put_at if first else None)

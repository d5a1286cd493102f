"""The ports of serving in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from neve.domain.recall import Recall


@dataclass
class MemoryStanding:
    """Keys in a set, which a test may share with whoever puts objects there."""

    keys: set[str] = field(default_factory=set)

    def holds(self, key: str) -> bool:
        return key in self.keys


@dataclass(frozen=True)
class MemorySigner:
    """URLs that say what was signed."""

    bucket: str

    def signed(self, key: str, *, head: bool, lifetime_s: int) -> str:
        return f"signed:{self.bucket}:{'HEAD' if head else 'GET'}:{lifetime_s}:{key}"


@dataclass
class MemoryRecalls:
    """Recalls in a dictionary."""

    rows: dict[str, Recall] = field(default_factory=dict)

    def get(self, stored: str) -> Recall | None:
        return self.rows.get(stored)

    def swap(self, seen: Recall | None, to: Recall) -> bool:
        if self.rows.get(to.stored) != seen:
            return False
        self.rows[to.stored] = to
        return True

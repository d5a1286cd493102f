"""The outbox: messages that could not be sent, or that must not overtake those that could not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A message that waits to be sent to `queue` (its URL).

    `id` sorts in the order in which one sender put its entries: see `entry_id`. The message is to be delivered at
    `due_at`, whenever it is sent. `failures` counts the tries that failed for a reason that no waiting heals.
    """

    queue: str
    id: str
    body: str
    due_at: datetime
    put_at: datetime
    failures: int = 0

    def delay_s(self, now: datetime) -> int:
        """How many whole seconds are left until it is due, 0 if that has passed."""
        return max(0, -((now - self.due_at) // timedelta(seconds=1)))


def entry_id(put_at: datetime, sender: str, number: int) -> str:
    """The id of a sender's entry: by time to the microsecond, then its `number`, which a sender never uses twice.

    A sender whose clock goes back keeps its last time instead, so that its ids never do.
    """
    return f"{int(put_at.timestamp() * 1_000_000):017d}-{sender}-{number:09d}"

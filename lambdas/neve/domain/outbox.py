"""The outbox: messages that could not be sent, or that must not overtake those that could not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MAX_DELAY_S = 900
"""SQS: a message can be delayed for 15 minutes at most."""
LONGEST_LEASE = timedelta(minutes=15)
"""No relay runs for longer than a function may. A lease that seems to last longer was given by a clock that went wrong
since, and does not count: relays side by side do no harm, a queue that nobody relays does."""


class Cause(StrEnum):
    """Why a message is in the outbox."""

    FAILED = "failed"
    """SQS did not answer, or said: later."""
    DENIED = "denied"
    """The permission to send is missing, or the queue is not there: a person has to see to it."""
    BEHIND = "behind"
    """Others waited that it must not overtake."""


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
    cause: Cause
    failures: int = 0

    @property
    def sender(self) -> str:
        """Who put it; what different senders put has no order."""
        return self.id.partition("-")[2].rpartition("-")[0]

    def delay_s(self, now: datetime) -> int:
        """How many whole seconds are left until it is due, 0 if that has passed.

        Never more than was asked for, nor than SQS takes: a clock that went back since delays nothing.
        """
        left = -((now - self.due_at) // timedelta(seconds=1))
        asked = -((self.put_at - self.due_at) // timedelta(seconds=1))
        return max(0, min(left, asked, MAX_DELAY_S))


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """How many messages wait to be sent to a queue; since when the first of them, None if none does."""

    entries: int
    oldest_at: datetime | None


def entry_id(put_at: datetime, sender: str, number: int) -> str:
    """The id of a sender's entry: by time to the microsecond, then its `number`, which a sender never uses twice.

    A sender whose clock goes back keeps its last time instead, so that its ids never do.
    """
    return f"{int(put_at.timestamp() * 1_000_000):017d}-{sender}-{number:09d}"


def queue_name(url: str) -> str:
    """The name of the queue at `url`, for people."""
    return url.rpartition("/")[2]

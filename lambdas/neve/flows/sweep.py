"""Sweep: remind WriteArchive and CopyLarge of what a lost timer or message left unfinished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from neve.domain.bundle import Bundle, Lane, write_request
from neve.ports import Bundles, Queue

MOST_OF_A_BACKLOG = 1_000
"""So many reminders of a backfill are sent by one sweep: where more are overdue they wait their turn; none is lost."""


@dataclass(frozen=True, kw_only=True)
class Sweeper:
    """The sweep's rule over its ports: one for bundles of all lanes, whose queues are told apart.

    Uploads come first, and of a backfill only so many are reminded of: what a reconciliation has announced may be far
    more than a sweep has time for.
    """

    bundles: Bundles
    bundles_queues: Mapping[Lane, Queue]
    large_queues: Mapping[Lane, Queue]

    def sweep(self, now: datetime) -> int:
        """Send the message of every overdue bundle that nobody is writing once more; how many.

        Where the message was not lost this is harmless. Each is sent as soon as it is found: whatever ends this sweep,
        the next one has less to do.
        """
        return sum(
            sum(1 for _ in islice(self._reminded(lane, now), most))
            for lane, most in ((Lane.LIVE, None), (Lane.BACKFILL, MOST_OF_A_BACKLOG))
        )

    def _reminded(self, lane: Lane, now: datetime) -> Iterator[Bundle]:
        for bundle in self.bundles.overdue(lane, now):
            if bundle.leased_until is None or bundle.leased_until < now:
                queues = self.large_queues if bundle.kind == "object" else self.bundles_queues
                queues[lane].send(write_request(bundle.id))
                yield bundle

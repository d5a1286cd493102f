"""Sweep: remind WriteArchive and CopyLarge of what a lost timer or message left unfinished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from neve.domain.bundle import Lane, write_request
from neve.ports import Bundles, Queue


@dataclass(frozen=True, kw_only=True)
class Sweeper:
    """The sweep's rule over its ports: one for bundles of all lanes, whose queues are told apart."""

    bundles: Bundles
    bundles_queues: Mapping[Lane, Queue]
    large_queues: Mapping[Lane, Queue]

    def sweep(self, now: datetime) -> int:
        """Send the message of every overdue bundle that nobody is writing once more; how many.

        Where the message was not lost this is harmless. Each is sent as soon as it is found: whatever ends this sweep,
        the next one has less to do.
        """
        sent = 0
        for bundle in self.bundles.overdue(now):
            if bundle.leased_until is None or bundle.leased_until < now:
                queues = self.large_queues if bundle.kind == "object" else self.bundles_queues
                queues[bundle.lane].send(write_request(bundle.id))
                sent += 1
        return sent

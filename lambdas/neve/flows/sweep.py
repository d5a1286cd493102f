"""Sweep: remind WriteArchive and CopyLarge of what a lost timer or message left unfinished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from neve.domain.bundle import write_request
from neve.ports import Bundles, Queue


@dataclass(frozen=True, kw_only=True)
class Sweeper:
    """The sweep's rule over its ports."""

    bundles: Bundles
    bundles_queue: Queue
    large_queue: Queue

    def sweep(self, now: datetime) -> int:
        """Send every overdue bundle's message once more, which is harmless where it was not lost; how many."""
        overdue = self.bundles.overdue(now)
        for bundle in overdue:
            queue = self.large_queue if bundle.kind == "object" else self.bundles_queue
            queue.send(write_request(bundle.id))
        return len(overdue)

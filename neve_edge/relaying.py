"""The host's outbox and what empties it."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from neve.domain.outbox import Entry, queue_name
from neve.domain.parked import Parked
from neve.domain.version import ObjectVersion
from neve.errors import NeveError
from neve.flows.relay import Relay
from neve.ports import Outbox, Queue

_LOG = logging.getLogger("neve.edge")

PAUSE_S = 5.0
TURN = timedelta(seconds=50)
"""How long a relay keeps others away before it looks whether it is to stop."""


class LoggedParkingLot:
    """The port ParkingLot of a host, which may not write to the stacks' table: its log."""

    def park(self, item: Parked) -> None:
        """See neve.ports.ParkingLot."""
        _LOG.error("parked reason=%r why=%r message=%r", item.reason.value, item.detail, item.evidence)

    def parked(self, versions: Sequence[ObjectVersion]) -> set[tuple[str, str]]:
        """See neve.ports.ParkingLot. What stands in a log is not looked up."""
        del versions
        return set()


def told_of_kept(entry: Entry, error: NeveError | None) -> None:
    """Log that a message went to the outbox."""
    why = str(error) if error else "older messages wait there"
    _LOG.warning("kept in the outbox queue=%s cause=%s why=%r", queue_name(entry.queue), entry.cause.value, why)


@dataclass
class Relaying:
    """Sends what waits in the outbox, as soon as it can be sent. `clock` tells aware UTC."""

    outbox: Outbox
    queue: Callable[[str], Queue]
    clock: Callable[[], datetime]

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop`."""
        owner = uuid.uuid4().hex
        while not stop.is_set():
            self.once(owner)
            stop.wait(PAUSE_S)

    def once(self, owner: str) -> int:
        """Send what waits now, for TURN at most; how many messages were sent."""
        relay = Relay(outbox=self.outbox, queue=self.queue, parking_lot=LoggedParkingLot(), threads=1, clock=self.clock)
        sent = 0
        try:
            ended = relay.drain(owner=owner, until=self.clock() + TURN)
        except NeveError as error:
            _LOG.warning("cannot read the outbox why=%r", str(error))
            return 0
        for each in ended:
            sent += each.sent
            if each.sent or each.problem:
                _LOG.log(
                    logging.WARNING if each.problem else logging.INFO,
                    "relayed queue=%s sent=%d left=%d problem=%r",
                    queue_name(each.queue),
                    each.sent,
                    each.left.entries,
                    str(each.problem or ""),
                )
        return sent

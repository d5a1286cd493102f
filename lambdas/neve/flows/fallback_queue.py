"""FallbackQueue: SQS first; the outbox if that fails, and for as long as something may wait there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from neve.domain.outbox import Cause, Entry, entry_id, queue_name
from neve.errors import NeveError, QueueDenied, Transient
from neve.ports import Outbox, Queue

_LONG_AGO = datetime.fromtimestamp(0, UTC)


class _Outbox(Enum):
    """What a sender knows of the outbox."""

    UNKNOWN = auto()
    """It has not asked yet, and nothing of its own waits."""
    CLEAR = auto()
    BEHIND = auto()
    """Something of its own may wait."""


@dataclass(kw_only=True)
class FallbackQueue:
    """The port Queue, by one sender to one queue. Threads may share it.

    What is promised: if sending A returned before sending B began, A reaches the queue before B does. A may reach it
    more than once, also after B, since every send may have taken effect without an answer: consumers tell what is
    older by what the message says, and refuse it. What is sent side by side has no order; nor has what different
    senders send. A send that raised may reach the queue or not: it has to be repeated.

    What makes it so: a message goes to the queue only if nothing that this sender put before waits in the outbox; that
    something may wait is noted before it is put, and taken back only when the outbox says that nothing is left. A relay
    forgets an entry only after it has sent it.

    A fresh sender asks the outbox once, before its first message: so a process that is started anew does not overtake
    what the last one left. That is one read for each life of a process; a read for each message would cost $0.125 a
    million. If this one read fails, it sends all the same and asks again the next time: nothing of its own waits, and
    an outbox that is out of order holds nobody back while SQS works.

    `sender` is a name that no other has ever had. With `asks_always` it asks before every message: where that costs
    nothing (SQLite), all processes of a host together keep the order, as if they were one sender. `kept` is told of
    every message that went to the outbox, and what the queue said if it was asked.
    """

    queue: Queue
    outbox: Outbox
    url: str
    sender: str
    clock: Callable[[], datetime]
    kept: Callable[[Entry, NeveError | None], None]
    asks_always: bool = False
    _known: _Outbox = _Outbox.UNKNOWN
    _last: datetime = _LONG_AGO
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """See neve.ports.Queue. It raises Transient, too, if neither the queue nor the outbox takes the message."""
        now = self.clock()  # once: a clock that jumps while the queue is tried must not make a delay of it
        # Without the lock: another thread that is about to put something has not returned from its send.
        if self.asks_always or self._known is not _Outbox.CLEAR:
            with self._lock:
                if self._must_wait():
                    self._keep(body, now, delay_s, Cause.BEHIND, None)
                    return
        try:
            self.queue.send(body, delay_s=delay_s)
        except (Transient, QueueDenied) as error:
            # MessageRefused goes to the caller: the message would be refused from the outbox as well.
            cause = Cause.DENIED if isinstance(error, QueueDenied) else Cause.FAILED
            with self._lock:
                self._keep(body, now, delay_s, cause, error)

    def _must_wait(self) -> bool:
        """Whether something waits that must not be overtaken. Raises Transient if that cannot be told, and matters."""
        try:
            holds = self.outbox.holds(self.url)
        except Exception as error:
            if self._known is _Outbox.BEHIND:
                raise Transient(f"{queue_name(self.url)}: older messages may wait in the outbox: {error}") from error
            return False
        self._known = _Outbox.BEHIND if holds else _Outbox.CLEAR
        return holds

    def _keep(self, body: str, now: datetime, delay_s: int, cause: Cause, error: NeveError | None) -> None:
        self._last = max(self._last, now)
        self._number += 1
        entry = Entry(
            queue=self.url,
            id=entry_id(self._last, self.sender, self._number),
            body=body,
            due_at=now + timedelta(seconds=delay_s),
            put_at=now,
            cause=cause,
        )
        self._known = _Outbox.BEHIND  # before it is put: that may take effect without an answer
        try:
            self.outbox.put(entry)
        except Exception as failed:
            raise Transient(f"{queue_name(self.url)}: neither SQS nor the outbox took a message: {failed}") from failed
        self.kept(entry, error)

"""Tells whether a file is finished: nobody writes to it, or it has not changed for a while.

Linux knows who has a file open for writing, and says so if it is asked for a read lease on it: a file without a writer
is finished at once, whatever its times say. Where it cannot tell (another host may be writing, or the file is somebody
else's), size, mtime and inode have to stay the same for a while of this host's monotonic clock. The clock of the wall
and the times of files are compared with nothing, so it does no harm if they jump.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import count

from neve_edge.announcement import Seen, seen
from neve_edge.mounts import shared_kind
from neve_edge.opening import open_file
from neve_edge.settings import Folder

FIRST_LOOK_S, LONGEST_S = 0.25, 10.0
"""Pauses between two looks at a file that somebody writes to: they double."""


class Writer(Enum):
    """Whether somebody has a file open for writing."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


def writer(descriptor: int) -> Writer:
    """Whether somebody has the file open for writing, by a descriptor that is open for reading.

    Source: fcntl(2), "Leases": a read lease is granted only if nobody has the file open for writing, to the file's
    owner or who has CAP_LEASE. One that is granted is given back at once.
    """
    if not sys.platform.startswith("linux") or _shared(os.fstat(descriptor).st_dev):
        return Writer.UNKNOWN
    # Who opens the file for writing in this moment breaks the lease: by default with a signal that ends the process.
    # SIGURG is ignored by default.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.SOME if error.errno == errno.EAGAIN else Writer.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE


@lru_cache(maxsize=64)
def _shared(device: int) -> bool:
    return bool(shared_kind(device))


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A file as it was at a look."""

    seen: Seen
    writer: Writer


def look(folder: Folder, path: str) -> Sight:
    """A file as it is now. Raises OSError, see neve_edge.opening.open_file."""
    descriptor = open_file(folder.path, path)
    try:
        return Sight(seen=seen(os.fstat(descriptor)), writer=writer(descriptor))
    finally:
        os.close(descriptor)


@dataclass
class _Wait:
    folder: Folder
    seen: Seen
    since: float
    pause_s: float = FIRST_LOOK_S
    turn: int = -1


@dataclass
class Waiting:
    """Files that are not finished yet, up to `room`. Times are those of a monotonic clock, in seconds."""

    room: int = 20_000
    _waits: dict[tuple[str, str], _Wait] = field(default_factory=dict)
    _due: list[tuple[float, int, tuple[str, str]]] = field(default_factory=list)
    _turns: Iterator[int] = field(default_factory=count)

    def __len__(self) -> int:
        return len(self._waits)

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._waits) >= self.room

    def holds(self, folder: Folder, path: str) -> bool:
        """Whether the file waits already."""
        return (folder.name, path) in self._waits

    def judge(self, folder: Folder, path: str, sight: Sight, now: float) -> bool:
        """Whether the file is finished. If it is not, it waits from now on, or goes on waiting: see due."""
        key = (folder.name, path)
        wait = self._waits.get(key)
        if sight.writer is Writer.NONE:
            self._waits.pop(key, None)
            return True
        if wait is None:
            wait = self._waits[key] = _Wait(folder, sight.seen, now)
        elif sight.writer is Writer.UNKNOWN and wait.seen == sight.seen and now - wait.since >= folder.quiet_s:
            del self._waits[key]
            return True
        elif sight.writer is Writer.SOME or wait.seen != sight.seen:
            wait.seen, wait.since = sight.seen, now
        if sight.writer is Writer.SOME:
            again, wait.pause_s = now + wait.pause_s, min(2 * wait.pause_s, LONGEST_S)
        else:
            again = wait.since + folder.quiet_s
        wait.turn = next(self._turns)
        heapq.heappush(self._due, (again, wait.turn, key))
        return False

    def forget(self, folder: Folder, path: str) -> None:
        """It has gone, or is no file any more."""
        self._waits.pop((folder.name, path), None)

    def due(self, now: float) -> Iterator[tuple[Folder, str]]:
        """The files to look at again by now. Each has to be judged or forgotten before the next is asked for."""
        while self._due and self._due[0][0] <= now:
            _, turn, key = heapq.heappop(self._due)
            wait = self._waits.get(key)
            if wait and wait.turn == turn:  # else it was forgotten, and may have come again since
                yield wait.folder, key[1]

    def next_at(self) -> float | None:
        """When the next file is due; None if none waits."""
        return self._due[0][0] if self._due else None

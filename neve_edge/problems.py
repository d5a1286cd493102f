"""What the agent leaves alone, and why: counted always, told once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

_LOG = logging.getLogger("neve.edge")


class Reason(StrEnum):
    """Why a file or a folder is left alone."""

    LINK = "symbolic link"
    SPECIAL = "FIFO, socket or device"
    IGNORED = "ignored by a pattern"
    UNREADABLE = "not readable"
    NAME = "no key for its name"
    MOUNT = "another file system"
    DEEP = "too deep"


_QUIET = frozenset({Reason.LINK, Reason.SPECIAL, Reason.IGNORED})
"""Left alone by design: they are counted, and need nobody."""


@dataclass
class LeftAlone:
    """Counts what is left alone. What needs a person is logged once for each path, of which it remembers `room`."""

    room: int = 10_000
    counts: Counter[Reason] = field(default_factory=Counter)
    _told: set[tuple[Reason, str]] = field(default_factory=set)

    def count(self, reason: Reason, path: str, why: str = "") -> None:
        """One more was left alone; `why` says what to do about it."""
        self.counts[reason] += 1
        if reason in _QUIET or (reason, path) in self._told:
            return
        if len(self._told) >= self.room:
            self._told.clear()
        self._told.add((reason, path))
        _LOG.warning("left alone path=%r reason=%r why=%r", path, reason.value, why)

    def again(self) -> dict[Reason, int]:
        """What has been counted since this was last asked."""
        counted, self.counts = dict(self.counts), Counter()
        return counted

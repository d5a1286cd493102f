"""Takes files that might be finished, from scans and events, and announces those that are."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from neve.errors import Transient
from neve_edge.announcement import Found
from neve_edge.opening import NotRegular
from neve_edge.problems import LeftAlone, Reason
from neve_edge.ready import Sight, Waiting, look
from neve_edge.scan import is_ignored, is_private, scan
from neve_edge.settings import Folder, Settings

_LOG = logging.getLogger("neve.edge")

AT_ONCE = 500
"""Files to a `put`: a transaction of the journal, and not too many seconds of sending."""
LOOKS = 2_000
"""Files looked at in one step, so that stopping never takes long."""
SCANS = 1_000
"""Folders that wait to be gone through: if more come, everything is gone through instead."""
RETRY_S = 5.0


@dataclass
class Finder:
    """Looks at files and announces the finished ones by `put`, a step at a time; `monotonic` is its clock, in seconds.

    What it holds in memory is bounded: while too many files are unfinished, or what was found cannot be announced,
    it looks at no others. With `keep` files are announced as to be kept where they are.
    """

    settings: Settings
    put: Callable[[Sequence[Found]], int]
    monotonic: Callable[[], float]
    keep: bool = False
    see: Callable[[Folder, str], Sight] = look
    left: LeftAlone = field(default_factory=LeftAlone)
    waiting: Waiting = field(default_factory=Waiting)
    files: int = 0
    new_files: int = 0
    size_bytes: int = 0
    _scans: deque[tuple[Folder, Iterator[str]]] = field(default_factory=deque)
    _ready: list[Found] = field(default_factory=list)
    _retry_at: float | None = None

    @property
    def scanning(self) -> bool:
        """Whether a scan has not ended."""
        return bool(self._scans)

    @property
    def takes_more(self) -> bool:
        """Whether it can look at another file now."""
        return self._retry_at is None and not self.waiting.full and len(self._ready) < AT_ONCE

    def scan(self, folder: Folder, below: str = "") -> None:
        """Go through a folder, or one in it, from the next step on."""
        self._scans.append((folder, scan(self.settings, folder, self.left, below)))

    def offer(self, folder: Folder, path: str) -> None:
        """Look at what an event names: a file, or a folder, which is gone through."""
        if is_private(self.settings, folder, path) or self.waiting.holds(folder, path):
            return
        if is_ignored(folder, path):
            self.left.count(Reason.IGNORED, path)
            return
        self._look(folder, path, inside=True)

    def step(self) -> float | None:
        """Do a portion of what there is to do; in how many seconds there is more, 0 if at once; None if nothing is."""
        now = self.monotonic()
        if self._retry_at is not None and now < self._retry_at:
            return self._retry_at - now
        if not self._announce(now):
            return RETRY_S
        for folder, path in islice(self.waiting.due(now), LOOKS):
            self._look(folder, path)
            if len(self._ready) >= AT_ONCE and not self._announce(now):
                return RETRY_S
        looks = LOOKS
        while self._scans and looks and self.takes_more:
            folder, paths = self._scans[0]
            path_or_end = next(paths, None)
            if path_or_end is None:
                self._scans.popleft()
                continue
            looks -= 1
            if not self.waiting.holds(folder, path_or_end):
                self._look(folder, path_or_end)
        if not self._announce(now):
            return RETRY_S
        if self._scans and not self.waiting.full:
            return 0
        due = self.waiting.next_at()
        return None if due is None else max(0.0, due - self.monotonic())

    def close(self) -> None:
        """Announce what is known to be finished, and end all scans. Raises Transient."""
        while self._scans:
            self._scans.popleft()
        if self._ready:
            self._put()

    def _look(self, folder: Folder, path: str, *, inside: bool = False) -> None:
        """Look at a file, and keep it for the next announcement if it is finished; else it waits or is left alone."""
        try:
            key = folder.key_of(path)
            sight = self.see(folder, path)
        except IsADirectoryError:
            if inside:
                self._scan_inside(folder, path)
        except (ValueError, OSError) as error:
            self._leave(folder, path, error)
        else:
            if self.waiting.judge(folder, path, sight, self.monotonic()):
                self._ready.append(Found(folder=folder.name, path=path, key=key, seen=sight.seen, keep=self.keep))
            return
        self.waiting.forget(folder, path)

    def _leave(self, folder: Folder, path: str, error: ValueError | OSError) -> None:
        where = os.fspath(folder.path / path)
        if isinstance(error, ValueError):
            self.left.count(Reason.NAME, where, str(error))
        elif isinstance(error, NotRegular) or error.errno == errno.ENXIO:  # a socket, or a device without a driver
            self.left.count(Reason.SPECIAL, where)
        elif error.errno == errno.ELOOP:
            self.left.count(Reason.LINK, where)
        elif isinstance(error, PermissionError):
            self.left.count(Reason.UNREADABLE, where, f"let this user (uid {os.geteuid()}) read it")
        elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):  # it has gone
            self.left.count(Reason.UNREADABLE, where, str(error.strerror))

    def _scan_inside(self, folder: Folder, path: str) -> None:
        if len(self._scans) < SCANS:
            self.scan(folder, path)
            return
        self._scans.clear()
        for each in self.settings.watched:
            self.scan(each)

    def _announce(self, now: float) -> bool:
        """Announce what is ready; False if that has to be tried again later."""
        self._retry_at = None
        if not self._ready:
            return True
        try:
            self._put()
        except Transient as error:
            _LOG.warning("cannot announce files=%d retry_in_s=%g why=%r", len(self._ready), RETRY_S, str(error))
            self._retry_at = now + RETRY_S
            return False
        return True

    def _put(self) -> None:
        news = self.put(self._ready)
        self.files += len(self._ready)
        self.new_files += news
        self.size_bytes += sum(found.seen.size_bytes for found in self._ready)
        self._ready.clear()
        if news:
            _LOG.info("announced files=%d", news)

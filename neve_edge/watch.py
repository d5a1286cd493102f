"""Finds finished files in folders: told by the kernel, and by going through them every few minutes.

The kernel tells of what happens on this host only, forgets events when there are too many, and needs a watch for each
folder, of which it allows so many. So events make it quick, and scans make it sure.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import Change, watch
from watchfiles._rust_notify import WatchfilesRustInternalError

from neve.errors import Transient
from neve_edge.announcements import Announcements
from neve_edge.find import Finder
from neve_edge.problems import Reason
from neve_edge.settings import Folder, Settings
from neve_edge.spool import Spool

_LOG = logging.getLogger("neve.edge")

ROOM = 10_000
"""Events that wait; if there are more, they are dropped and the folders gone through."""
GROUPED_MS, STEP_MS = 200, 50
PAUSE_S = 0.5
"""How often the spool is looked into, and how long stopping takes at most."""
ROOTS_MS = 5_000
"""How often it is looked whether a folder was removed and made again: the kernel goes on with the one that is gone."""
AGAIN_S = 60.0
"""Between two tries to be told by the kernel, when it refuses."""


@dataclass
class Events:
    """Paths that the kernel told of, up to ROOM of them. `run` is a thread's; the rest is for another."""

    settings: Settings
    came: threading.Event = field(default_factory=threading.Event)
    _paths: dict[str, None] = field(default_factory=dict)
    _lost: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stop: threading.Event) -> None:
        """Gather events until `stop`."""
        while not stop.is_set():
            roots = self._roots()
            folders = [path for path, inode in roots.items() if inode is not None]
            try:
                for changes in watch(
                    *folders,
                    watch_filter=None,
                    debounce=GROUPED_MS,
                    step=STEP_MS,
                    stop_event=stop,
                    raise_interrupt=False,
                    force_polling=False,
                    ignore_permission_denied=True,
                    rust_timeout=ROOTS_MS,
                    yield_on_timeout=True,
                ):
                    if changes:
                        self.add(path for change, path in changes if change is not Change.deleted)
                    if self._roots() != roots:
                        self.lose()
                        break
            except WatchfilesRustInternalError as error:
                # It gives up at a name that is not UTF-8. Whatever it knew of is found by a scan.
                _LOG.info("events interrupted why=%r", str(error))
                self.lose()
                stop.wait(PAUSE_S)
            except OSError as error:
                _LOG.warning(
                    "no events, scans only scan_every_s=%g why=%r remedy=%r",
                    self.settings.scan_every_s,
                    str(error),
                    "is it mounted? raise fs.inotify.max_user_watches (sysctl) above the number of its folders",
                )
                self.lose()
                stop.wait(AGAIN_S)

    def _roots(self) -> dict[Path, tuple[int, int] | None]:
        """Which folders there are, by device and inode; None for one that is not there."""
        roots: dict[Path, tuple[int, int] | None] = {}
        for folder in self.settings.watched:
            roots[folder.path] = None
            with suppress(OSError):
                stat = folder.path.stat()
                roots[folder.path] = (stat.st_dev, stat.st_ino)
        return roots

    def add(self, paths: Iterable[str]) -> None:
        """Keep paths until they are taken."""
        with self._lock:
            for path in paths:
                if len(self._paths) >= ROOM:
                    self._lost = True
                    break
                self._paths[path] = None
        self.came.set()

    def lose(self) -> None:
        """Some events did not come."""
        with self._lock:
            self._lost = True
        self.came.set()

    def take(self) -> str | None:
        """The oldest path; None if there is none."""
        with self._lock:
            path = next(iter(self._paths), None)
            if path is not None:
                del self._paths[path]
            return path

    def lost(self) -> bool:
        """Whether events have been lost since this was last asked."""
        with self._lock:
            lost, self._lost = self._lost, False
            return lost


@dataclass
class Watch:
    """Announces what becomes finished in the folders, and what lists in the spool name, until it is stopped."""

    settings: Settings
    announcements: Announcements
    monotonic: Callable[[], float] = time.monotonic
    finder: Finder = field(init=False)
    events: Events = field(init=False)
    _spool: Spool = field(init=False)
    _going: bool = False
    _again: bool = False
    _scan_at: float = 0.0
    _spool_at: float = 0.0
    _left: dict[Reason, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.finder = Finder(self.settings, self.announcements.put, self.monotonic)
        self.events = Events(self.settings)
        self._spool = Spool(self.settings, self.announcements)
        self._scan_at = self._spool_at = self.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop`. A file that comes before the kernel tells of it is found by the next scan."""
        self.settings.spool.mkdir(parents=True, exist_ok=True)
        done = threading.Event()
        teller = threading.Thread(target=self.events.run, args=(done,), name="events", daemon=True)
        teller.start()
        try:
            while not stop.is_set():
                pause_s = self.step()
                self.events.came.wait(min(pause_s, PAUSE_S))
                self.events.came.clear()
                if not teller.is_alive():
                    raise RuntimeError("the thread that is told of events has ended")
            self.finder.close()
        finally:
            done.set()
            teller.join()

    def step(self) -> float:
        """Do a portion of what there is to do; in how many seconds to come again."""
        now = self.monotonic()
        if now >= self._spool_at:
            self._spool_at = now + PAUSE_S
            self._drain()
        self._again = self.events.lost() or self._again
        if not self._going and (self._again or now >= self._scan_at):
            self._going, self._again = True, False
            for folder in self.settings.watched:
                self.finder.scan(folder)
        while self.finder.takes_more and (path := self.events.take()) is not None:
            placed = self._placed(path)
            if placed:
                self.finder.offer(*placed)
        pause_s = self.finder.step()
        if self._going and not self.finder.scanning:
            self._going = False
            self._scan_at = self.monotonic() + self.settings.scan_every_s
            self._tell()
        if self._again:
            return 0.0
        return PAUSE_S if pause_s is None else pause_s

    def _placed(self, path: str) -> tuple[Folder, str] | None:
        for folder in self.settings.watched:
            if path.startswith(f"{folder.path}/"):
                return folder, path.removeprefix(f"{folder.path}/")
        return None

    def _drain(self) -> None:
        try:
            self._spool.drain()
        except Transient as error:
            _LOG.warning("cannot announce what the spool names why=%r", str(error))
        except OSError as error:
            self.finder.left.count(Reason.UNREADABLE, os.fspath(self.settings.spool), str(error.strerror))

    def _tell(self) -> None:
        """After each scan, what it left alone, if that is not what the last one did."""
        left = self.finder.left.again()
        if left != self._left:
            _LOG.info(
                "left alone %s", " ".join(f"{key.name.lower()}={count}" for key, count in left.items()) or "nothing"
            )
        self._left = left

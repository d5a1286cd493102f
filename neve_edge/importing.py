"""Imports an existing tree: finds its files and works on them side by side, with bounded memory.

It can be stopped or killed at any time and started again: what the journal knows as done is passed over, and what was
verified is not sent again. Where the tree is gone through anew, that costs a look at each file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from neve_edge.find import Finder
from neve_edge.settings import Folder
from neve_edge.work import Count, Worker

BACKLOG = 20_000
"""So many files may be announced and not done before the finder waits: a journal of a few MB."""
TELL_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an import is. `found` counts files looked at, `new` those that the journal did not know as done.

    `found_all`: the whole tree was gone through, so that `new` is all there is to do. `done` of those are ended.
    """

    seconds: float
    found: int
    found_bytes: int
    new: int
    found_all: bool
    uploaded: int
    uploaded_bytes: int
    verified: int
    done: int
    put_off: int

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the rate so far; None as long as nobody knows."""
        if not self.found_all or not self.done:
            return None
        return (self.new - self.done) * self.seconds / self.done


def import_folder(
    finder: Finder,
    worker: Worker,
    folder: Folder,
    *,
    tell: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Progress:
    """Find and work on all files of `folder`, until all are done or `stopped` says so; how far it came.

    `tell` hears of it twice a second. What cannot be done now is tried again until it is: see the journal's troubles.
    The finder announces to the journal that the worker takes from.
    """
    journal, monotonic = worker.ports.journal, worker.ports.monotonic
    began = told = monotonic()
    end = threading.Event()
    failures: list[BaseException] = []

    def find() -> None:
        try:
            finder.scan(folder)
            while not end.is_set():
                pause_s = finder.step()
                if pause_s is None:
                    break
                while journal.unfinished(folder.name) > BACKLOG and not end.wait(0.2):
                    pass
                if pause_s:
                    end.wait(min(pause_s, 1.0))
            finder.close()
        except BaseException as error:  # noqa: BLE001  # raised where the import was asked for
            failures.append(error)

    def progress() -> Progress:
        counts = worker.counts
        ended = (Count.KEPT, Count.ATTIC, Count.DELETED, Count.GONE, Count.NO_FILE)
        return Progress(
            seconds=monotonic() - began,
            found=finder.files,
            found_bytes=finder.size_bytes,
            new=finder.new_files,
            found_all=not thread.is_alive(),
            uploaded=counts[Count.UPLOADED],
            uploaded_bytes=counts[Count.UPLOADED_BYTES],
            verified=counts[Count.VERIFIED],
            done=sum(counts[each] for each in ended),
            put_off=counts[Count.PUT_OFF],
        )

    worker.prepare()
    thread = threading.Thread(target=find, name="find", daemon=True)
    thread.start()
    try:
        while not stopped() and not failures:
            worker.step(wait_s=0.2)
            if monotonic() - told >= TELL_EVERY_S:
                told = monotonic()
                tell(progress())
            if not thread.is_alive() and not worker.in_hand and not journal.unfinished(folder.name):
                break
    finally:
        end.set()
        thread.join()
    if failures:
        raise failures[0]
    tell(progress())
    return progress()

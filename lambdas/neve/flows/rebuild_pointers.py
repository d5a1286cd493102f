"""Rebuilding pointers from what is current in the content bucket.

A pointer is written on the condition that none into the content bucket stands. So whatever CopyUpload writes meanwhile
stays, and whatever it writes later takes the place of what was written here: a file that is uploaded while this runs
has the pointer of its upload in the end, whoever was first. Nothing is copied, and nothing let go; to begin anew
changes nothing.

Pointers to hosts do not come back: their hosts announce those files again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from neve.domain.layout import Layout, application_key
from neve.domain.pointer import InContent, found
from neve.domain.upload import RESERVED
from neve.domain.version import ObjectVersion
from neve.ports import Pointers

WINDOW = 1_000


@dataclass(frozen=True, kw_only=True)
class PointersRebuilt:
    """How many files there were until `place`, a key in the content bucket.

    `foreign` ones lie where the layout puts no file of the application, or are neve's own.
    """

    place: str = ""
    written: int = 0
    stood: int = 0
    foreign: int = 0


@dataclass(frozen=True, kw_only=True)
class PointerRebuilder:
    """The rules of rebuilding pointers over their port. A dry run writes nothing.

    `layout` is that by which the files lie. `unhashed`: it was as-is before it became hashed, and only files of that
    time are meant.
    """

    pointers: Pointers
    layout: Layout
    threads: int
    unhashed: bool = False
    dry_run: bool = False

    def rebuild(self, current: Iterable[ObjectVersion], *, prefix: str = "") -> Iterator[PointersRebuilt]:
        """Give each current version in the content bucket a pointer; how many there were, told window by window.

        Only files whose keys begin with `prefix`, as the application knows them. Raises Transient.
        """
        versions, total = iter(current), PointersRebuilt()
        with ThreadPoolExecutor(self.threads) as pool:
            while window := list(islice(versions, WINDOW)):
                total = self._rebuild(window, prefix, total, pool)
                yield total

    def _rebuild(
        self, window: Sequence[ObjectVersion], prefix: str, before: PointersRebuilt, pool: ThreadPoolExecutor
    ) -> PointersRebuilt:
        known = [(self._key(version.key), version) for version in window]
        own = [found(key, version) for key, version in known if key is not None and key.startswith(prefix)]
        standing = self.pointers.get_many([pointer.key for pointer in own])
        missing = [pointer for pointer in own if not isinstance(standing.get(pointer.key), InContent)]
        written = len(missing) if self.dry_run else sum(pool.map(self._write, missing))
        return PointersRebuilt(
            place=window[-1].key,
            written=before.written + written,
            stood=before.stood + len(own) - written,
            foreign=before.foreign + sum(key is None for key, _ in known),
        )

    def _key(self, stored: str) -> str | None:
        """What the application calls the file there; None if none of its files lies there."""
        if stored.startswith(RESERVED) or (self.unhashed and application_key(stored, Layout.HASHED)):
            return None
        return application_key(stored, self.layout)

    def _write(self, pointer: InContent) -> bool:
        return self.pointers.move(None, pointer)

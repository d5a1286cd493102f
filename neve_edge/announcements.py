"""Where announcements wait until somebody works on them: in the host's own journal, or in a queue that hosts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from neve_edge.announcement import Announcement, Found


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An announcement that one worker has for now. `receipt` is its holder's word; `tries` is 1 the first time."""

    announcement: Announcement
    receipt: str
    tries: int


class Announcements(Protocol):
    """What has been announced and not been done. Several threads may call it at once."""

    def put(self, found: Sequence[Found]) -> int:
        """Announce files; how many of them were news. When it returns, no crash or cut-off loses them.

        A file that was announced as it is now, and is waiting, worked on or done with, is no news: scans come by again
        and again. It is one if its size, mtime or inode changed, if it was let go and is there again, or if it was to
        be kept and is not any more. Each gets this host's next sequence number. Raises Transient if it could not be
        kept.
        """

    def take(self, limit: int, *, wait_s: float = 0) -> Sequence[Taken]:
        """Up to `limit` announcements that nobody else has, the oldest first; waits up to `wait_s` for the first.

        They come back by themselves to somebody if they are neither done nor held. Raises Transient.
        """

    def hold(self, taken: Sequence[Taken]) -> None:
        """Keep them from coming back while they are worked on. Call it every minute. Raises Transient."""

    def done(self, taken: Sequence[Taken]) -> None:
        """They never come back. Raises Transient."""

    def later(self, taken: Sequence[Taken], *, after_s: int, why: str, refused: bool = False) -> None:
        """They come back in `after_s` seconds, 900 at most, however often. Raises Transient.

        Those that are `refused` are nothing that this host could ever do: where hosts share announcements, another one
        may take them, and if none can, they end where a person sees them.
        """

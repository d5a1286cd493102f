"""An announcement: a file on a host is finished, and is to be moved to S3.

It is a hint, never an order: whoever works on it looks at the file as it is then. So one that comes twice, late, out of
order or for a file that has gone does no harm.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from operator import index

from neve.domain.version import KEY_LIMIT
from neve.errors import EventInvalid

FORMAT = "neve-announcement"
VERSION = 1
RESERVED = ".neve"
"""Names that begin with this are neve's own: attics, and the keys that CopyUpload takes nothing from."""
_LEADS_OUT = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|\0")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What stat said of a file. `device` means something on the host that saw it only: NFS numbers differ by host."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int

    def same_bytes_as(self, other: Seen) -> bool:
        """Whether nothing speaks for a change between two looks, made on whichever hosts."""
        return (self.size_bytes, self.mtime_ns, self.inode) == (other.size_bytes, other.mtime_ns, other.inode)


def seen(stat: os.stat_result) -> Seen:
    """What of a stat tells whether a file has changed."""
    return Seen(size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, inode=stat.st_ino, device=stat.st_dev)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finished file: `path` is relative to the folder called `folder`, with `/` between its parts; `key` is its key.

    A folder has the same name on every host that mounts it, its path may differ. With `keep` the file stays where it
    is after it has been copied. Raises ValueError for a path that could lead out of its folder.
    """

    folder: str
    path: str
    key: str
    seen: Seen
    keep: bool = False

    def __post_init__(self) -> None:
        if _LEADS_OUT.search(self.path):
            raise ValueError(f"no path below a folder: {self.path!r}")


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What was found, by which host. A host never gives a `sequence` number twice, and its numbers only rise.

    `tried` counts how often it had been tried when its message was sent.
    """

    found: Found
    host: str
    sequence: int
    tried: int = 0


def refuse_key(key: str) -> None:
    """Raise ValueError, with the reason, for a key that S3 or CopyUpload takes nothing under."""
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("its name is not UTF-8; rename it (`convmv -f latin1 -t utf8` does whole trees)") from None
    if not 0 < size_bytes <= KEY_LIMIT:
        raise ValueError(f"its key would have {size_bytes:,} bytes, and S3 takes 1 to {KEY_LIMIT:,}: shorten its path")
    if key.startswith(f"{RESERVED}/"):
        raise ValueError(f"keys below {RESERVED}/ are neve's own: rename the folder, or give it a key_prefix")


def render(announcement: Announcement) -> str:
    """The announcement as the body of a message. Inverse: parse."""
    found = announcement.found
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "folder": found.folder,
            "path": found.path,
            "key": found.key,
            "seen": [found.seen.size_bytes, found.seen.mtime_ns, found.seen.inode, found.seen.device],
            "keep": found.keep,
            "host": announcement.host,
            "sequence": announcement.sequence,
            "tried": announcement.tried,
        },
        separators=(",", ":"),
    )


def parse(body: str) -> Announcement:
    """The announcement in a message's body. Unknown fields are ignored. Raises EventInvalid if it holds none."""
    try:
        fields = json.loads(body)
        if (fields["format"], fields["version"]) != (FORMAT, VERSION):
            raise EventInvalid(f"not an announcement of version {VERSION}: {fields['format']} {fields['version']}")
        refuse_key(str(fields["key"]))
        f"{fields['folder']}{fields['path']}".encode()  # nothing that no journal could keep
        size_bytes, mtime_ns, inode, device = (index(number) for number in fields["seen"])
        return Announcement(
            found=Found(
                folder=str(fields["folder"]),
                path=str(fields["path"]),
                key=str(fields["key"]),
                seen=Seen(size_bytes=size_bytes, mtime_ns=mtime_ns, inode=inode, device=device),
                keep=bool(fields["keep"]),
            ),
            host=str(fields["host"]),
            sequence=index(fields["sequence"]),
            tried=index(fields.get("tried", 0)),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise EventInvalid(f"not an announcement: {error}") from error

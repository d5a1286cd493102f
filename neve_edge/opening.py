"""Opens files below a folder so that nobody can have the agent read, or move, anything else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK opening a FIFO would wait for somebody to write to it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotRegular(OSError):
    """It is a FIFO, a socket or a device."""


def open_folder(folder: Path, path: str = "") -> int:
    """A descriptor of the folder at `path` (relative; "" is `folder` itself), to which no symbolic link leads.

    Only `folder` itself may be reached through links. Raises OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in path.split("/") if path else ():
        try:
            inner = open_inner(part, descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def open_inner(name: str, parent: int) -> int:
    """A descriptor of the folder `name`, no symbolic link, in that of the descriptor `parent`. Raises OSError."""
    return os.open(name, _FOLDER, dir_fd=parent)


def open_file(folder: Path, path: str) -> int:
    """A descriptor for reading the regular file at `path` below `folder`, to which no symbolic link leads.

    Raises NotRegular, and OSError: FileNotFoundError or NotADirectoryError if it has gone, IsADirectoryError,
    PermissionError, and one with ELOOP for a link.
    """
    above, _, name = path.rpartition("/")
    parent = open_folder(folder, above)
    try:
        descriptor = os.open(name, _FILE, dir_fd=parent)
    finally:
        os.close(parent)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotRegular(errno.EINVAL, "not a regular file", path)

"""Announces files that an application says are finished."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from neve_edge.announcement import Found, seen
from neve_edge.opening import NotRegular, open_file
from neve_edge.scan import is_ignored, is_private
from neve_edge.settings import Settings


def found(settings: Settings, path: Path, *, keep: bool = False) -> Found:
    """The file at an absolute path, to be announced. Raises ValueError, with the reason, if it cannot be.

    Nobody is asked whether it is finished: who announces it says so, and who works on it looks again. In an application
    that would have a lease and its signal come up.
    """
    placed = settings.place(path)
    if placed is None:
        where = ", ".join(str(folder.path) for folder in settings.folders) or "none is named"
        raise ValueError(f"it is in none of the folders ({where}): add a [[folder]] to edge.toml")
    folder, relative = placed
    if is_private(settings, folder, relative):
        raise ValueError("it is neve's own")
    if is_ignored(folder, relative):
        raise ValueError(f"a pattern in `ignore` of the folder {folder.name} matches it")
    key = folder.key_of(relative)
    try:
        descriptor = open_file(folder.path, relative)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("it is not there") from None
    except IsADirectoryError:
        raise ValueError("it is a folder: announce its files, or use `neve edge import`") from None
    except NotRegular:
        raise ValueError("it is a FIFO, socket or device") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a symbolic link, and those are not followed") from None
        raise ValueError(f"it cannot be read by uid {os.geteuid()}: {error.strerror}") from None
    try:
        return Found(folder=folder.name, path=relative, key=key, seen=seen(os.fstat(descriptor)), keep=keep)
    finally:
        os.close(descriptor)

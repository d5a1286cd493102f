"""Goes through a folder, entry by entry: nothing is listed whole, sorted or kept, however many files there are."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from neve_edge.announcement import RESERVED
from neve_edge.opening import open_folder, open_inner
from neve_edge.problems import LeftAlone, Reason
from neve_edge.settings import Folder, Settings

DEEPEST = 100
"""Levels of folders: each holds two descriptors while its inside is gone through, and 1,024 are what a process has."""

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""What an open says of a folder that was removed, or replaced by something else, since it was seen."""

_Match = Callable[[str], object]


def is_private(settings: Settings, folder: Folder, path: str) -> bool:
    """Whether the relative path is, or is in, something of neve's own."""
    return any(part.startswith(RESERVED) for part in path.split("/")) or settings.is_private(f"{folder.path}/{path}")


def is_ignored(folder: Folder, path: str) -> bool:
    """Whether a pattern says that the file at this relative path, or a folder that it is in, is to be left alone.

    A pattern with a slash is matched with the whole relative path, one without with the names of files and folders.
    """
    parts = path.split("/")
    return any(_ignores(folder, part, "/".join(parts[:number])) for number, part in enumerate(parts, 1))


def _ignores(folder: Folder, name: str, path: str) -> bool:
    names, paths = _patterns(folder.ignore)
    return bool(names(name) or paths(path))


@lru_cache(maxsize=64)
def _patterns(ignore: tuple[str, ...]) -> tuple[_Match, _Match]:
    def match(patterns: list[str]) -> _Match:
        return re.compile("|".join(map(translate, patterns)) or "(?!)").match

    return match([each for each in ignore if "/" not in each]), match([each for each in ignore if "/" in each])


class _Level:
    """A folder whose inside is being gone through."""

    def __init__(self, descriptor: int, prefix: str) -> None:
        self.descriptor = descriptor
        self.prefix = prefix
        self.entries = os.scandir(descriptor)

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


def scan(settings: Settings, folder: Folder, left: LeftAlone, below: str = "") -> Iterator[str]:
    """The relative paths of the regular files in `folder`, or in its folder `below`, as the file system has them.

    Symbolic links are not followed; other file systems below it are not entered. What is taken away or added meanwhile
    may or may not come. Names that are not UTF-8 come with surrogates, as Python has them.
    """
    try:
        descriptor = open_folder(folder.path, below)
    except OSError as error:
        if not below or error.errno not in _GONE:
            _unreadable(left, folder.path / below, error)
        return
    device = os.fstat(descriptor).st_dev
    levels = [_Level(descriptor, f"{below}/" if below else "")]
    try:
        while levels:
            entry = _next(levels[-1], folder, left)
            if entry is None:
                levels.pop().close()
                continue
            path = levels[-1].prefix + entry.name
            if entry.name.startswith(RESERVED) or settings.is_private(f"{folder.path}/{path}"):
                continue
            reason = _why_not(folder, entry, path)
            if reason:
                left.count(reason, path)
            elif entry.is_file(follow_symlinks=False):
                yield path
            elif len(levels) < DEEPEST:
                _enter(levels, entry.name, folder, left, device)
            else:
                left.count(Reason.DEEP, os.fspath(folder.path / path), "give a folder in it a [[folder]] of its own")
    finally:
        for level in levels:
            level.close()


def _next(level: _Level, folder: Folder, left: LeftAlone) -> os.DirEntry[str] | None:
    try:
        return next(level.entries, None)
    except OSError as error:  # its file system was unmounted, or failed, while it was read
        _unreadable(left, folder.path / level.prefix, error)
        return None


def _why_not(folder: Folder, entry: os.DirEntry[str], path: str) -> Reason | None:
    if _ignores(folder, entry.name, path):
        return Reason.IGNORED
    if entry.is_symlink():
        return Reason.LINK
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return None
    return Reason.SPECIAL


def _enter(levels: list[_Level], name: str, folder: Folder, left: LeftAlone, device: int) -> None:
    """Go on inside the folder `name` of the innermost level, if that can be done."""
    path = levels[-1].prefix + name
    try:
        descriptor = open_inner(name, levels[-1].descriptor)
    except OSError as error:
        if error.errno not in _GONE:
            _unreadable(left, folder.path / path, error)
        return
    if os.fstat(descriptor).st_dev == device:
        levels.append(_Level(descriptor, path + "/"))
        return
    os.close(descriptor)
    left.count(Reason.MOUNT, os.fspath(folder.path / path), "what is mounted there needs a [[folder]] of its own")


def _unreadable(left: LeftAlone, path: Path, error: OSError) -> None:
    left.count(Reason.UNREADABLE, os.fspath(path), f"{error.strerror}: is it mounted, and may this user read it?")

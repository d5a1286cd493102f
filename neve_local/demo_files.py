"""Which files the demo uploads, and under which keys."""

from __future__ import annotations

import mimetypes
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from neve.domain.version import KEY_LIMIT

USUAL_COUNT = 2_000
LARGEST_BYTES = 5 * 1024**3
"""S3 takes no more in one PUT, and the demo sends each file by one."""

_MADE_ANEW = frozenset({"__pycache__", "site-packages", "dist-packages"})


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A file on disk and the key it gets. Size and time of change are as they were when it was chosen."""

    path: Path
    key: str
    size_bytes: int
    modified_ns: int

    @property
    def unchanged(self) -> bool:
        """Whether the file still looks as it did when it was chosen."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.modified_ns)

    @property
    def content_type(self) -> str:
        """What S3 is told that it is."""
        guessed, _ = mimetypes.guess_type(self.path.name)
        return guessed or "application/octet-stream"

    def has(self, pieces: Iterable[bytes]) -> bool:
        """Whether `pieces`, one after the other, are the bytes on disk; False if those cannot be read."""
        try:
            with self.path.open("rb") as file:
                return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)
        except OSError:
            return False

    def differs(self) -> str:
        """A sentence for bytes that came back and are not those on disk."""
        cause = "" if self.unchanged else " (the file on disk has changed meanwhile)"
        return f"{self.key!r} came back with other bytes than {self.path} has{cause}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The files of a folder, and those left out as "path: why"."""

    folder: Path
    prefix: str
    files: tuple[Chosen, ...]
    skipped: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def standard_library() -> Path:
    """The folder of Python's standard library: real files of all sizes that every machine has."""
    return Path(sysconfig.get_path("stdlib"))


def choose(folder: Path, *, prefix: str, at_most: int | None) -> Choice:
    """The readable regular files under `folder`, each with the key `prefix` + its path from there.

    Symbolic links are not followed. If there are more than `at_most`, every n-th of them in the order of their paths is
    taken, so that the choice is the same each time and covers all of the folder.
    """
    files: list[Chosen] = []
    skipped: list[str] = []
    for path in _walk(folder, skipped):
        key = prefix + path.relative_to(folder).as_posix()
        reason = _unfit(path, key)
        if reason:
            skipped.append(f"{printable(path)}: {reason}")
            continue
        found = path.stat()
        files.append(Chosen(path=path, key=key, size_bytes=found.st_size, modified_ns=found.st_mtime_ns))
    files.sort(key=lambda file: file.key)
    if at_most is not None and len(files) > at_most:
        files = [files[number * len(files) // at_most] for number in range(at_most)]
    return Choice(folder=folder, prefix=prefix, files=tuple(files), skipped=tuple(skipped))


def printable(path: Path) -> str:
    """The path as text that any terminal can show."""
    return os.fsencode(path).decode(errors="backslashreplace").encode("unicode_escape").decode("ascii")


def _walk(folder: Path, skipped: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped.append(f"{printable(Path(error.filename))}: {error.strerror}")

    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if name not in _MADE_ANEW)
        for name in names:
            path = Path(here, name)
            if path.is_symlink():
                skipped.append(f"{printable(path)}: a symbolic link")
            elif not path.is_file():
                skipped.append(f"{printable(path)}: not a regular file")
            else:
                yield path


def _unfit(path: Path, key: str) -> str:
    """Why a file cannot be uploaded; "" if it can."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8, and an S3 key has to be"
    if length > KEY_LIMIT:
        return f"its key would have {length} bytes, S3 takes {KEY_LIMIT}"
    if path.stat().st_size > LARGEST_BYTES:
        return "over 5 GiB, more than one PUT can send"
    if not os.access(path, os.R_OK):
        return "not readable"
    return ""

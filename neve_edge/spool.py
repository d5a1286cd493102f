"""The spool folder: how a program in any language announces files.

It writes a list under a name that begins with a dot, in the spool folder itself, and renames it to one that does not:
from then on neither a crash of the program nor one of the agent loses it. A list has one absolute path on a line, in
UTF-8. A path that holds a line end, or begins with a quotation mark, is written as a JSON string.

A list is read, announced and only then removed: if the agent dies in between it is announced again, which does no harm.
Lines that cannot be announced are kept in `refused`, each with the reason.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neve_edge.announcement import Found
from neve_edge.announcements import Announcements
from neve_edge.opening import open_file
from neve_edge.ready import Writer, writer
from neve_edge.settings import Settings
from neve_edge.tell import found

_LOG = logging.getLogger("neve.edge")

REFUSED = "refused"
LINE_BYTES = 32_768
"""PATH_MAX is 4,096 bytes, of which JSON makes up to 24,576."""
AT_ONCE = 500
_REMEMBERED = 1_000
"""So many lists that cannot be taken, or removed, are remembered: each is told of, and announced, once."""


@dataclass
class Spool:
    """The lists in the spool folder of these settings. One that cannot be taken holds up no other."""

    settings: Settings
    announcements: Announcements
    _told: set[str] = field(default_factory=set)
    _stuck: set[tuple[str, int, int]] = field(default_factory=set)
    """Lists that were announced and cannot be removed."""

    def drain(self) -> int:
        """Announce what the lists name; how many lists were taken. Raises Transient: the rest stays for the next time.

        Raises OSError if the folder is not there or not writable.
        """
        lists = 0
        with os.scandir(self.settings.spool) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    lists += self._take(entry.name)
                except OSError as error:
                    self._tell(entry.name, error)
        return lists

    def _tell(self, name: str, error: OSError) -> None:
        if name in self._told:
            return
        _remember(self._told, name)
        _LOG.error(
            "cannot take a list in the spool list=%r why=%r remedy=%r",
            name,
            f"{error.strerror}: {error.filename}",
            f"let this user (uid {os.geteuid()}) read and remove lists, and write to {REFUSED}/",
        )

    def _take(self, name: str) -> bool:
        try:
            descriptor = open_file(self.settings.spool, name)
        except FileNotFoundError:  # another agent on this host was faster
            return False
        with os.fdopen(descriptor, "rb") as file:
            if writer(file.fileno()) is Writer.SOME:  # it was not written elsewhere and renamed, as it should have been
                return False
            stat = os.fstat(file.fileno())
            itself = (name, stat.st_ino, stat.st_mtime_ns)
            if itself in self._stuck:
                return False
            refused = _Refused(self.settings.spool / REFUSED / f"{name}.{stat.st_ino}.{stat.st_mtime_ns}.jsonl")
            taken = 0
            batch: list[Found] = []
            for line in _lines(iter(lambda: file.readline(LINE_BYTES), b"")):
                try:
                    batch.append(found(self.settings, _path(line)))
                except ValueError as error:
                    refused.add(line, str(error))
                if len(batch) == AT_ONCE:
                    taken += len(batch)
                    self.announcements.put(batch)
                    batch = []
            if batch:
                taken += len(batch)
                self.announcements.put(batch)
            refused.close()
        try:
            with suppress(FileNotFoundError):
                (self.settings.spool / name).unlink()
        except OSError:
            _remember(self._stuck, itself)
            raise
        _LOG.info("took a list from the spool list=%r files=%d refused=%d", name, taken, refused.lines)
        return True


def _remember(these: set[Any], one: object) -> None:
    if len(these) >= _REMEMBERED:
        these.clear()
    these.add(one)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends; of one that is too long the first LINE_BYTES."""
    inside = False
    for piece in pieces:
        if not inside and piece.strip():
            yield piece.rstrip(b"\r\n")
        inside = not piece.endswith(b"\n")


def _path(line: bytes) -> Path:
    if len(line) >= LINE_BYTES:
        raise ValueError("the line is too long for a path")
    try:
        text = line.decode()
        if text.startswith('"'):
            text = json.loads(text)
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"the line is no JSON string: {error}") from None
    if not text.startswith("/") or "\0" in text:
        raise ValueError("it is no absolute path")
    return Path(text)


class _Refused:
    """The lines of a list that cannot be announced, in a file that is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self._path = path
        self._part = path.with_name(f".{path.name}")

    def add(self, line: bytes, why: str) -> None:
        if self.lines == 0:
            self._path.parent.mkdir(exist_ok=True)
            self._part.unlink(missing_ok=True)
        self.lines += 1
        text = line.decode(errors="backslashreplace")
        _LOG.warning("refused a line of the spool line=%r why=%r", text[:300], why)
        with self._part.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"line": text, "why": why}) + "\n")

    def close(self) -> None:
        """Have it on disk, whole, before the list is removed."""
        if self.lines:
            with self._part.open("rb") as file:
                os.fsync(file.fileno())
            self._part.replace(self._path)

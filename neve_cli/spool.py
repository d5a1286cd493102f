"""Where a plan keeps what it has found: a database of its own on disk, so that a million files need no memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple

from neve.domain.index import FileRow
from neve.domain.names import FOLDER, folded_path, marked_path, natural_path
from neve.domain.restore import Kind
from neve.domain.selection import LOCAL
from neve_cli.local_files import in_folder, split

_KINDS = {kind.value: kind for kind in Kind}

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8000;
CREATE TABLE wanted (
    id INTEGER PRIMARY KEY,
    place BLOB NOT NULL,
    kind TEXT NOT NULL,
    archive INTEGER NOT NULL,
    number INTEGER NOT NULL,
    offset_bytes INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    key TEXT NOT NULL,
    pin TEXT NOT NULL,
    sha256 TEXT,
    destination TEXT NOT NULL,
    line INTEGER NOT NULL,
    folded BLOB
);
CREATE UNIQUE INDEX places ON wanted (place);
CREATE TABLE renamed (id INTEGER PRIMARY KEY, destination TEXT NOT NULL);
CREATE TABLE portions (
    archive INTEGER PRIMARY KEY,
    s3 INTEGER NOT NULL,
    local INTEGER NOT NULL,
    reads INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL
);
"""


class Spooled(NamedTuple):
    """A file that is wanted, and its place."""

    id: int
    kind: Kind
    archive: int
    number: int
    offset_bytes: int
    size_bytes: int
    key: str
    pin: str
    sha256: str
    destination: str
    line: int


@dataclass(frozen=True)
class Taken:
    """Another file is to go to the same place: that of line `line`."""

    line: int


class Spool:
    """Files that are wanted and where they go, each place once.

    Begin with add; settle once all are there; then read what is wanted, in the order of archives.
    """

    def __init__(self) -> None:
        # The empty name is a database on disk that nobody else sees and that is gone when it is closed.
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.executescript(_SCHEMA)
        self._rows.execute("BEGIN")

    def close(self) -> None:
        """Remove it all."""
        self._rows.close()

    def add(self, row: FileRow, destination: str, *, line: int, below: str = "") -> bool | Taken:
        """Note that the version goes to `destination`: True if that is new, False if it was noted before.

        `below` is the folder, for a file that is to have its natural path there; what goes into one folder must differ
        on every file system.
        """
        local = destination.startswith(LOCAL)
        added = self._rows.execute(
            "INSERT OR IGNORE INTO wanted VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                _hash(destination),
                Kind.LOCAL if local else Kind.S3,
                row.archive,
                row.number,
                row.offset_bytes,
                row.size_bytes,
                row.key,
                row.pin,
                row.sha256 if local else None,
                destination,
                line,
                _folded(below, row.key) if below else None,
            ),
        )
        if added.rowcount:
            return True
        found = self._rows.execute("SELECT key, pin, line FROM wanted WHERE place = ?", (_hash(destination),))
        key, pin, first = found.fetchone()
        return False if (key, pin) == (row.key, row.pin) else Taken(line=first)

    def settle(self) -> None:
        """Give files in local folders paths that differ from each other on every file system, as inside an archive."""
        self._rows.executemany("INSERT INTO renamed VALUES (?, ?)", self._clashing())
        for number, destination in self._rows.execute("SELECT id, destination FROM renamed"):
            self._rows.execute(
                "UPDATE wanted SET destination = ?, place = ? WHERE id = ?",
                (destination, _hash(destination), number),
            )
        self._rows.execute("CREATE INDEX ordered ON wanted (kind, archive, number, id)")

    def _clashing(self) -> Iterator[tuple[int, str]]:
        """What shares its folded path with another, or is a folder to another: its id and its new destination."""
        found = self._rows.cursor().execute(
            "SELECT folded, id, key, pin, destination FROM wanted WHERE folded IS NOT NULL ORDER BY folded, key, pin"
        )
        last: tuple[bytes, list[tuple[int, str, str, str]]] | None = None
        for folded, group in groupby(found, key=lambda each: bytes(each[0])):
            rows = [(number, key, pin, destination) for _, number, key, pin, destination in group]
            if last:
                is_folder = folded.startswith(last[0] + b"\0")
                yield from (self._renamed(*each) for each in (last[1] if is_folder else last[1][1:]))
            last = folded, rows
        if last:
            yield from (self._renamed(*each) for each in last[1][1:])

    def _renamed(self, number: int, key: str, pin: str, destination: str) -> tuple[int, str]:
        folder, _ = split(destination)
        attempt = 0
        while True:
            path = marked_path(natural_path(key), key, pin, attempt).removeprefix(f"{FOLDER}/")
            renamed = in_folder(folder.rstrip("/"), path)
            if not self._rows.execute("SELECT 1 FROM wanted WHERE place = ?", (_hash(renamed),)).fetchone():
                return number, renamed
            attempt += 1

    def remove(self, number: int) -> None:
        """It is not wanted after all."""
        self._rows.execute("DELETE FROM wanted WHERE id = ?", (number,))

    def ordered(self, kind: Kind | None = None) -> Iterator[Spooled]:
        """What is wanted, local files first, then by archive and number."""
        rows = self._rows.cursor().execute(
            "SELECT id, kind, archive, number, offset_bytes, size_bytes, key, pin, sha256, destination, line "
            "FROM wanted INDEXED BY ordered WHERE kind >= ? AND kind <= ? ORDER BY kind, archive, number, id",
            (kind or "", kind or "~"),
        )
        return (Spooled(number, _KINDS[name], *rest) for number, name, *rest in rows)

    def totals(self) -> tuple[int, int, int]:
        """How many files are wanted, of how many bytes in all, and how many of them go to local folders."""
        found = self._rows.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(kind = ?), 0) FROM wanted", (Kind.LOCAL,)
        )
        files, size_bytes, local = found.fetchone()
        return files, size_bytes, local

    def add_portion(self, archive: int, kind: Kind, *, files: int, reads: int, size_bytes: int) -> None:
        """Count in what one share wants of an archive."""
        s3, local = (files, 0) if kind is Kind.S3 else (0, files)
        self._rows.execute(
            "INSERT INTO portions VALUES (?, ?, ?, ?, ?) ON CONFLICT (archive) DO UPDATE SET s3 = s3 + excluded.s3, "
            "local = local + excluded.local, reads = reads + excluded.reads, "
            "size_bytes = size_bytes + excluded.size_bytes",
            (archive, s3, local, reads, size_bytes),
        )

    def portions(self) -> Iterator[tuple[int, int, int, int, int]]:
        """What is wanted of each archive: (archive, files to buckets, files to folders, reads, bytes)."""
        return iter(self._rows.cursor().execute("SELECT archive, s3, local, reads, size_bytes FROM portions"))


def _hash(destination: str) -> bytes:
    return blake2b(destination.encode(), digest_size=16).digest()


def _folded(folder: str, key: str) -> bytes:
    """What sorts the files of a folder together, and behind a file what needs it as a folder: NUL ends components."""
    return f"{folder}\0\0{folded_path(natural_path(key))}".encode("utf-8", "surrogatepass")

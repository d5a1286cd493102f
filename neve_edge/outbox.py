"""The outbox of a host: messages that wait until SQS can be reached again, in a SQLite file.

    table           a row is
    outbox          a message that waits; its number says in which order they were put
    outbox_leases   which relay is at a queue, and until when at most

It may be the journal's file: what waits then survives what the journal survives. The file has to lie on a disk of the
host's own, since its processes share memory over it (WAL).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neve.domain.outbox import LONGEST_LEASE, Backlog, Cause, Entry
from neve.errors import Transient

_BUSY_S = 60
"""So long a call waits for another process that is just writing."""

_TABLES = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, queue TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, due_at REAL NOT NULL,
    put_at REAL NOT NULL, cause TEXT NOT NULL, failures INTEGER NOT NULL, UNIQUE (queue, id));
CREATE INDEX IF NOT EXISTS outbox_order ON outbox (queue, number);
CREATE TABLE IF NOT EXISTS outbox_leases (
    queue TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
"""


class SqliteOutbox:
    """The port Outbox in a file that the processes and threads of one host share.

    Entries stand in the order in which they were put, whoever put them and whatever the clock said. What was put is on
    disk when put returns (synchronous=FULL). Close it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._do("PRAGMA journal_mode = WAL")
            self._do("PRAGMA synchronous = FULL")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._do(statement)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def put(self, entry: Entry) -> None:
        """See neve.ports.Outbox."""
        self._do(
            "INSERT INTO outbox (queue, id, body, due_at, put_at, cause, failures) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (queue, id) DO UPDATE SET body = excluded.body, due_at = excluded.due_at, "
            "put_at = excluded.put_at, cause = excluded.cause, failures = excluded.failures",
            entry.queue,
            entry.id,
            entry.body,
            entry.due_at.timestamp(),
            entry.put_at.timestamp(),
            entry.cause,
            entry.failures,
        )

    def holds(self, queue: str) -> bool:
        """See neve.ports.Outbox."""
        return bool(self._rows("SELECT EXISTS (SELECT 1 FROM outbox WHERE queue = ?)", queue)[0][0])

    def queues(self) -> Sequence[str]:
        """See neve.ports.Outbox."""
        return [queue for (queue,) in self._rows("SELECT DISTINCT queue FROM outbox ORDER BY queue")]

    def lease(self, queue: str, *, owner: str, now: datetime, until: datetime) -> bool:
        """See neve.ports.Outbox."""
        changed = self._do(
            "INSERT INTO outbox_leases VALUES (?, ?, ?) ON CONFLICT (queue) DO UPDATE "
            "SET owner = excluded.owner, until = excluded.until "
            "WHERE owner = excluded.owner OR until <= ? OR until > ?",
            queue,
            owner,
            until.timestamp(),
            now.timestamp(),
            (now + LONGEST_LEASE).timestamp(),
        )
        return bool(changed)

    def release(self, queue: str, *, owner: str) -> None:
        """See neve.ports.Outbox."""
        self._do("DELETE FROM outbox_leases WHERE queue = ? AND owner = ?", queue, owner)

    def oldest(self, queue: str, limit: int) -> Sequence[Entry]:
        """See neve.ports.Outbox."""
        rows = self._rows(
            "SELECT queue, id, body, due_at, put_at, cause, failures FROM outbox "
            "WHERE queue = ? ORDER BY number LIMIT ?",
            queue,
            limit,
        )
        return [_entry(row) for row in rows]

    def sent(self, entry: Entry) -> None:
        """See neve.ports.Outbox."""
        self._do("DELETE FROM outbox WHERE queue = ? AND id = ?", entry.queue, entry.id)

    def failed(self, entry: Entry) -> None:
        """See neve.ports.Outbox."""
        self._do("UPDATE outbox SET failures = failures + 1 WHERE queue = ? AND id = ?", entry.queue, entry.id)

    def backlog(self, queue: str) -> Backlog:
        """See neve.ports.Outbox."""
        [(entries, oldest_at)] = self._rows(
            "SELECT count(*), (SELECT put_at FROM outbox WHERE queue = ?1 ORDER BY number LIMIT 1) "
            "FROM outbox WHERE queue = ?1",
            queue,
        )
        return Backlog(entries=entries, oldest_at=None if oldest_at is None else _time(oldest_at))

    def _do(self, statement: str, *values: Any) -> int:
        """How many rows a statement, which is a transaction of its own, has changed."""
        try:
            with self._lock, closing(self._database.execute(statement, values)) as cursor:
                return cursor.rowcount
        except sqlite3.OperationalError as error:  # locked, full, no space: the same call may succeed later
            raise Transient(f"the outbox: {error}") from error

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            with self._lock, closing(self._database.execute(query, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.OperationalError as error:
            raise Transient(f"the outbox: {error}") from error


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(
        queue=row[0],
        id=row[1],
        body=row[2],
        due_at=_time(row[3]),
        put_at=_time(row[4]),
        cause=Cause(row[5]),
        failures=row[6],
    )


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)

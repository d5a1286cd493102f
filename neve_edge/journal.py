"""The journal: what this host has announced, uploaded and let go, in one SQLite file that survives kill -9.

    table       a row is                                                       until
    announced   a file that waits, is worked on (owner), or is kept            it is let go, or found to be gone
    uploaded    the version in the uploads bucket that has a file's bytes      its announcement is done
    moves       a file that is about to be moved, written before it is         it lies in the attic, or is back
    attic       a file in a folder's attic                                     it is purged

Whoever works on a row is its `owner`: a name with a lock file beside the journal, which the kernel unlocks however a
process ends. So a dead process's rows are free at once, and no clock decides that.

Every call is one transaction, on disk when it returns (WAL, synchronous=FULL): callers bring many rows at a time.
Raises Transient if SQLite cannot: the disk is full, or another process holds the database for too long.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from neve.errors import NeveError, Transient
from neve_edge.announcement import Announcement, Found, Seen
from neve_edge.announcements import Taken

SCHEMA = 1
LONGEST_PAUSE_S = 900
"""Nothing is put off for longer: what is due later than this was written by a clock that has been put back since."""
_NEVER_TRIED = 0
"""`due_at` of what nobody has worked on yet: no clock may keep it waiting."""
_BUSY_S = 60
_LOOK_S = 0.1
_SYNCHRONOUS = "FULL"

_TABLES = """
CREATE TABLE IF NOT EXISTS journal (part TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS announced (
    folder TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL, keep INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,
    sequence INTEGER NOT NULL, owner TEXT NOT NULL, due_at REAL NOT NULL, tries INTEGER NOT NULL, why TEXT NOT NULL,
    announced_at REAL NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS announced_order ON announced (owner, due_at, sequence);
CREATE TABLE IF NOT EXISTS uploaded (
    folder TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, sha256 BLOB NOT NULL, md5 BLOB NOT NULL, crc64nvme TEXT NOT NULL,
    version_id TEXT NOT NULL, etag TEXT NOT NULL, uploaded_at REAL NOT NULL,
    verified INTEGER NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moves (
    token TEXT PRIMARY KEY, owner TEXT NOT NULL, folder TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL,
    size INTEGER NOT NULL, sha256 BLOB NOT NULL, version_id TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attic (
    folder TEXT NOT NULL, place TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 BLOB NOT NULL, version_id TEXT NOT NULL, moved_at REAL NOT NULL, look_at REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (folder, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attic_look ON attic (folder, look_at);
CREATE INDEX IF NOT EXISTS attic_path ON attic (folder, path);
"""

WAITING, KEPT = "", "kept"
"""Owners that nobody is: an announcement waits, or its file was copied and stays where it is."""


# From one owner to the next by the index: most rows may be of one, such as a million that are kept.
_OWNERS = """
WITH RECURSIVE owners (owner) AS (
    SELECT min(owner) FROM announced
    UNION ALL SELECT (SELECT min(owner) FROM announced WHERE owner > owners.owner) FROM owners WHERE owner IS NOT NULL)
SELECT owner FROM owners WHERE owner IS NOT NULL UNION SELECT owner FROM moves
"""


class JournalUnfit(NeveError):
    """The journal was written by another version of neve, or is no journal; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A version in the uploads bucket, and the file that it was made of, as it was read.

    `sha256` and `md5` are in hex, `crc64nvme` in S3's base64; "" is one that nobody computed. `ctime_ns` is the time of
    the last change of the file or its inode. `verified`: S3 states the bytes that were read.
    """

    folder: str
    path: str
    key: str
    seen: Seen
    ctime_ns: int
    sha256: str
    md5: str
    crc64nvme: str
    version_id: str
    etag: str
    uploaded_at: datetime
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class Move:
    """A file that is about to be moved away from `path`, to the name `token` in its attic's `moving`."""

    token: str
    folder: str
    path: str
    key: str
    size_bytes: int
    sha256: str
    version_id: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Remains:
    """A file in the attic, at `place` below it. `why` says what keeps it from being purged, "" for nothing."""

    folder: str
    place: str
    path: str
    key: str
    size_bytes: int
    sha256: str
    version_id: str
    moved_at: datetime
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the journal knows of one path."""

    announcement: Announcement | None
    state: str
    """waiting, worked on, kept; "" without an announcement."""
    why: str
    next_try: datetime | None
    """None also if it was never tried: then it is next in turn."""
    upload: Upload | None
    attic: tuple[Remains, ...]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A file that could not be worked on so far."""

    folder: str
    path: str
    why: str
    tries: int
    next_try: datetime


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The journal in figures. `oldest` is when the oldest file that is not done was announced."""

    waiting: int
    waiting_bytes: int
    put_off: int
    worked_on: int
    for_pointers: int
    kept: int
    oldest: datetime | None
    moving: int
    attic_files: int
    attic_bytes: int
    attic_oldest: datetime | None
    held_in_attic: int


_UPLOAD = (
    "folder, path, key, size, mtime_ns, inode, device, ctime_ns, sha256, md5, crc64nvme, version_id, etag, "
    "uploaded_at, verified"
)
_REMAINS = "folder, place, path, key, size, sha256, version_id, moved_at, why"
_ANNOUNCED = "folder, path, key, size, mtime_ns, inode, device, keep, sequence"


class Journal:
    """The journal of one process, for all its threads. It implements the Protocol Announcements.

    `clock` tells aware UTC. Close it: then what it had is free for others.
    """

    def __init__(self, path: Path, *, host: str, clock: Callable[[], datetime], read_only: bool = False) -> None:
        self._path, self._host, self._clock = path, host, clock
        self._lock = threading.RLock()
        self._more = threading.Condition(self._lock)
        self._buried_at = 0.0
        self.owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._held = -1
        self._database = _opened(path, read_only=read_only)
        if not read_only:
            with _refusing(), self._lock:
                _create(self._database, path, clock())

    def close(self) -> None:
        """Give back what this process has, and close."""
        with self._lock:
            if self._held >= 0:
                with suppress(Transient):
                    self._free(self.owner)
                os.close(self._held)
                self._held = -1
            self._database.close()

    # -- Announcements

    def put(self, found: Sequence[Found]) -> int:
        """See Announcements. Who works on an earlier announcement of a file goes on; it is taken again after that."""
        now = self._clock().timestamp()
        latest = {(each.folder, each.path): each for each in found}
        with self._transaction() as database:
            fresh = [each for each in latest.values() if _is_news(database, each)]
            if not fresh:
                return 0
            (last,) = database.execute(
                "UPDATE journal SET value = value + ? WHERE part = 'sequence' RETURNING value", (len(fresh),)
            ).fetchone()
            database.executemany(
                f"INSERT INTO announced ({_ANNOUNCED}, owner, due_at, tries, why, announced_at) "
                f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', {_NEVER_TRIED}, 0, '', ?) "
                "ON CONFLICT (folder, path) DO UPDATE SET key = excluded.key, "
                "size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode, "
                "device = excluded.device, keep = excluded.keep, sequence = excluded.sequence, "
                "due_at = excluded.due_at, tries = 0, why = '', announced_at = excluded.announced_at, "
                f"owner = CASE owner WHEN '{KEPT}' THEN '' ELSE owner END",
                [
                    (*_place(each), each.key, *_seen(each.seen), each.keep, number, now)
                    for number, each in enumerate(fresh, last - len(fresh) + 1)
                ],
            )
            self._more.notify_all()
        return len(fresh)

    def take(self, limit: int, *, wait_s: float = 0) -> Sequence[Taken]:
        """See Announcements. What a dead process had is taken like the rest.

        Files that were never tried and those whose pause is over share what is taken: neither holds up the other.
        """
        ends = time.monotonic() + wait_s
        while True:
            self._bury()
            taken = self._take(limit)
            left = ends - time.monotonic()
            if taken or left <= 0:
                return taken
            with self._more:
                self._more.wait(min(left, _LOOK_S))  # other processes put as well, and cannot notify

    def hold(self, taken: Sequence[Taken]) -> None:
        """See Announcements: this process's lock holds them for as long as it lives."""

    def done(self, taken: Sequence[Taken]) -> None:
        """See Announcements. A file that is to be kept stays known, so that a scan does not announce it again."""
        rows = [(*_place(each.announcement.found), each.announcement.sequence) for each in taken]
        with self._transaction() as database:
            where = "folder = ? AND path = ? AND sequence = ?"
            database.executemany(f"UPDATE announced SET owner = '{KEPT}', why = '' WHERE {where} AND keep", rows)
            database.executemany(f"DELETE FROM announced WHERE {where} AND NOT keep", rows)
            self._take_again(database, taken)

    def later(self, taken: Sequence[Taken], *, after_s: int, why: str, refused: bool = False) -> None:
        """See Announcements. Here everything comes back, and `troubles` tells of it."""
        del refused
        due_at = self._clock().timestamp() + min(after_s, LONGEST_PAUSE_S)
        with self._transaction() as database:
            database.executemany(
                "UPDATE announced SET owner = '', due_at = ?, why = ? WHERE folder = ? AND path = ? AND sequence = ?",
                [(due_at, why, *_place(each.announcement.found), each.announcement.sequence) for each in taken],
            )
            self._take_again(database, taken)

    def _take_again(self, database: sqlite3.Connection, taken: Sequence[Taken]) -> None:
        """Those that were announced anew meanwhile wait again."""
        database.executemany(
            "UPDATE announced SET owner = '' WHERE folder = ? AND path = ? AND sequence > ? AND owner = ?",
            [(*_place(each.announcement.found), each.announcement.sequence, self.owner) for each in taken],
        )

    def _take(self, limit: int) -> list[Taken]:
        self._hold_name()
        now = self._clock().timestamp()
        with self._transaction() as database:

            def due(after: float, until: float, most: int) -> list[Any]:
                return database.execute(
                    f"SELECT {_ANNOUNCED}, tries FROM announced WHERE owner = '' AND due_at > ? AND due_at <= ? "
                    "ORDER BY due_at, sequence LIMIT ?",
                    (after, until, most),
                ).fetchall()

            again = due(now + LONGEST_PAUSE_S, float("inf"), limit) + due(_NEVER_TRIED, now, limit)
            fresh = due(_NEVER_TRIED - 1, _NEVER_TRIED, limit - min(len(again), limit // 2))
            rows = fresh + again[: limit - len(fresh)]
            database.executemany(
                "UPDATE announced SET owner = ?, tries = tries + 1 WHERE folder = ? AND path = ?",
                [(self.owner, row[0], row[1]) for row in rows],
            )
        return [Taken(announcement=_announcement(row, self._host), receipt="", tries=row[9] + 1) for row in rows]

    # -- Steps of the work

    def uploads(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Upload]:
        """What was uploaded of files, (folder, path), so far."""
        with self._reading() as database:
            found = (
                database.execute(f"SELECT {_UPLOAD} FROM uploaded WHERE folder = ? AND path = ?", file).fetchone()
                for file in files
            )
            return {(row[0], row[1]): _upload(row) for row in found if row}

    def note(self, uploads: Sequence[Upload], *, forget: Iterable[tuple[str, str]] = ()) -> None:
        """Note uploads as they are now, in the place of earlier ones of the same files; `forget` those of others."""
        with self._transaction() as database:
            database.executemany("DELETE FROM uploaded WHERE folder = ? AND path = ?", list(forget))
            database.executemany(
                f"INSERT OR REPLACE INTO uploaded ({_UPLOAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_upload_row(each) for each in uploads],
            )

    def begin_moves(self, moves: Sequence[Move]) -> None:
        """Note moves before they are made."""
        self._hold_name()
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO moves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        move.token, self.owner, move.folder, move.path, move.key,
                        move.size_bytes, bytes.fromhex(move.sha256), move.version_id, move.since.timestamp(),
                    )
                    for move in moves
                ],
            )  # fmt: skip

    def end_moves(
        self, tokens: Sequence[str], remains: Sequence[Remains], *, forget: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Forget moves that were made or undone, and the uploads of files in `forget`; note what is in the attic."""
        with self._transaction() as database:
            database.executemany("DELETE FROM moves WHERE token = ?", [(token,) for token in tokens])
            database.executemany("DELETE FROM uploaded WHERE folder = ? AND path = ?", list(forget))
            database.executemany(
                "INSERT OR REPLACE INTO attic VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        each.folder, each.place, each.path, each.key, each.size_bytes, bytes.fromhex(each.sha256),
                        each.version_id, each.moved_at.timestamp(), each.moved_at.timestamp(), each.why,
                    )
                    for each in remains
                ],
            )  # fmt: skip

    def moving(self, folder: str) -> int:
        """How many moves of a folder's files have not been ended, whoever made them."""
        with self._reading() as database:
            (count,) = database.execute("SELECT count(*) FROM moves WHERE folder = ?", (folder,)).fetchone()
        return int(count)

    def adopt_moves(self) -> list[Move]:
        """The moves that a process which is no more has left, and those of this one; all are this one's now."""
        self._hold_name()
        self._bury(at_once=True)
        with self._transaction() as database:
            database.execute("UPDATE moves SET owner = ? WHERE owner = ''", (self.owner,))
            rows = database.execute(
                "SELECT token, folder, path, key, size, sha256, version_id, since FROM moves WHERE owner = ?",
                (self.owner,),
            ).fetchall()
        return [
            Move(
                token=row[0], folder=row[1], path=row[2], key=row[3],
                size_bytes=row[4], sha256=row[5].hex(), version_id=row[6], since=_time(row[7]),
            )
            for row in rows
        ]  # fmt: skip

    # -- The attic

    def remains(self, folder: str, *, moved_before: datetime, limit: int) -> list[Remains]:
        """Files of a folder's attic that were moved, and last put off, before then: the longest ago first."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {_REMAINS} FROM attic WHERE folder = ? AND look_at < ? ORDER BY look_at LIMIT ?",
                (folder, moved_before.timestamp(), limit),
            ).fetchall()
        return [_remains(row) for row in rows]

    def purged(self, remains: Sequence[Remains]) -> None:
        """They are not in the attic any more."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM attic WHERE folder = ? AND place = ?", [(each.folder, each.place) for each in remains]
            )

    def hold_back(self, remains: Sequence[Remains], *, until: datetime) -> None:
        """They stay in the attic, for the reasons in `why`, as if they had been moved at `until`."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE attic SET look_at = ?, why = ? WHERE folder = ? AND place = ?",
                [(until.timestamp(), each.why, each.folder, each.place) for each in remains],
            )

    # -- Looking in, from any process

    def summary(self) -> Summary:
        """The journal in figures. It reads every row that is not done."""
        now = self._clock()
        with self._reading() as database:
            waiting, waiting_bytes, put_off, oldest = database.execute(
                "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(due_at > ?), 0), min(announced_at) "
                "FROM announced WHERE owner = ''",
                (now.timestamp(),),
            ).fetchone()
            worked_on, worked_oldest = database.execute(
                "SELECT count(*), min(announced_at) FROM announced WHERE owner NOT IN ('', 'kept')"
            ).fetchone()
            (kept,) = database.execute("SELECT count(*) FROM announced WHERE owner = 'kept'").fetchone()
            (for_pointers,) = database.execute("SELECT count(*) FROM uploaded WHERE verified").fetchone()
            (moving,) = database.execute("SELECT count(*) FROM moves").fetchone()
            files, size, attic_oldest, held = database.execute(
                "SELECT count(*), coalesce(sum(size), 0), min(moved_at), coalesce(sum(why != ''), 0) FROM attic"
            ).fetchone()
        announced = [each for each in (oldest, worked_oldest) if each is not None]
        return Summary(
            waiting=waiting,
            waiting_bytes=waiting_bytes,
            put_off=put_off,
            worked_on=worked_on,
            for_pointers=for_pointers,
            kept=kept,
            oldest=_time(min(announced)) if announced else None,
            moving=moving,
            attic_files=files,
            attic_bytes=size,
            attic_oldest=_time(attic_oldest) if attic_oldest is not None else None,
            held_in_attic=held,
        )

    def troubles(self, limit: int) -> list[Trouble]:
        """Files that were put off, with the reasons, those with the most tries first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT folder, path, why, tries, due_at FROM announced WHERE why != '' "
                "ORDER BY tries DESC, due_at LIMIT ?",
                (limit,),
            ).fetchall()
        return [Trouble(folder=row[0], path=row[1], why=row[2], tries=row[3], next_try=_time(row[4])) for row in rows]

    def standing(self, folder: str, path: str) -> Standing:
        """All that is known of one path."""
        with self._reading() as database:
            row = database.execute(
                f"SELECT {_ANNOUNCED}, owner, why, due_at FROM announced WHERE folder = ? AND path = ?", (folder, path)
            ).fetchone()
            attic = database.execute(
                f"SELECT {_REMAINS} FROM attic WHERE folder = ? AND path = ? ORDER BY moved_at", (folder, path)
            ).fetchall()
        state = "" if row is None else {WAITING: "waiting", KEPT: "kept"}.get(row[9], "worked on")
        return Standing(
            announcement=_announcement(row, self._host) if row else None,
            state=state,
            why=row[10] if row else "",
            next_try=_time(row[11]) if row and state == "waiting" and row[11] != _NEVER_TRIED else None,
            upload=self.uploads([(folder, path)]).get((folder, path)),
            attic=tuple(_remains(each) for each in attic),
        )

    def unfinished(self, folder: str) -> int:
        """How many announced files of a folder are not done."""
        with self._reading() as database:
            # The plus has SQLite go by the index of owners.
            (count,) = database.execute(
                "SELECT (SELECT count(*) FROM announced WHERE owner < :kept AND +folder = :folder) "
                "+ (SELECT count(*) FROM announced WHERE owner > :kept AND +folder = :folder)",
                {"kept": KEPT, "folder": folder},
            ).fetchone()
        return int(count)

    # -- Owners

    def _hold_name(self) -> None:
        """Lock this process's name, before the first row is under it. Processes of other users may look at it."""
        with self._lock, _refusing():
            if self._held < 0:
                folder = _owners(self._path)
                folder.mkdir(exist_ok=True)
                self._held = os.open(folder / self.owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                os.fchmod(self._held, 0o644)
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _bury(self, *, at_once: bool = False) -> None:
        """Free what processes that are no more had: their locks are nobody's. Looked after every few seconds."""
        now = time.monotonic()
        if not at_once and now - self._buried_at < 2:
            return
        self._buried_at = now
        with self._reading() as database:
            rows = database.execute(_OWNERS).fetchall()
        for (owner,) in rows:
            if owner not in (WAITING, KEPT, self.owner) and self._is_dead(owner):
                self._free(owner)

    def _is_dead(self, owner: str) -> bool:
        lock = _owners(self._path) / owner
        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except PermissionError:
            return False  # its own user, or root, may see more
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _free(self, owner: str) -> None:
        """Free an owner's rows, then drop its lock: in the other order a death between would keep them for ever."""
        with self._transaction() as database:
            database.execute("UPDATE announced SET owner = '' WHERE owner = ?", (owner,))
            database.execute("UPDATE moves SET owner = '' WHERE owner = ?", (owner,))
        with suppress(FileNotFoundError, PermissionError):  # one that is left over does no harm
            (_owners(self._path) / owner).unlink()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _refusing():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _refusing():
            yield self._database


def _opened(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if read_only and not path.exists():
        raise JournalUnfit(f"{path} is not there: nothing was announced here yet")
    with _refusing():
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_anothers(path)
        database = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            database.execute(f"PRAGMA query_only = {int(read_only)}")
            if not read_only:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")
        except sqlite3.DatabaseError as error:
            database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise JournalUnfit(f"{path} is no journal ({error}): name another in edge.toml, or move it away") from error
    return database


def _refuse_anothers(path: Path) -> None:
    """SQLite would say no more than that it may not write, to whoever comes after an import by root."""
    there = path if path.exists() else path.parent
    if not os.access(there, os.W_OK):
        raise JournalUnfit(
            f"{there} belongs to uid {there.stat().st_uid}, and uid {os.geteuid()} may not write to it: `chown` it "
            f"and {path.name}-* to the user that the agent runs as, or announce through the spool"
        )


def _create(database: sqlite3.Connection, path: Path, now: datetime) -> None:
    """Make the tables, unless they are there."""
    database.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    database.execute("INSERT OR IGNORE INTO journal VALUES ('schema', ?)", (SCHEMA,))
    # A host whose journal was lost does not give its numbers twice: they begin with the time.
    database.execute("INSERT OR IGNORE INTO journal VALUES ('sequence', ?)", (int(now.timestamp() * 1000),))
    (schema,) = database.execute("SELECT value FROM journal WHERE part = 'schema'").fetchone()
    if schema != SCHEMA:
        database.close()
        raise JournalUnfit(f"{path} has layout {schema}, this neve writes {SCHEMA}: use the version that wrote it")


def _owners(path: Path) -> Path:
    return path.with_name(path.name + "-owners")


def _is_news(database: sqlite3.Connection, found: Found) -> bool:
    row = database.execute(
        "SELECT size, mtime_ns, inode, device, keep, key FROM announced WHERE folder = ? AND path = ?", _place(found)
    ).fetchone()
    if row is None:
        return True
    unchanged = Seen(size_bytes=row[0], mtime_ns=row[1], inode=row[2], device=row[3]).same_bytes_as(found.seen)
    return not unchanged or row[5] != found.key or (bool(row[4]) and not found.keep)


def _place(found: Found) -> tuple[str, str]:
    return found.folder, found.path


def _seen(seen: Seen) -> tuple[int, int, int, int]:
    return seen.size_bytes, seen.mtime_ns, seen.inode, seen.device


def _announcement(row: Sequence[Any], host: str) -> Announcement:
    return Announcement(
        found=Found(
            folder=row[0],
            path=row[1],
            key=row[2],
            seen=Seen(size_bytes=row[3], mtime_ns=row[4], inode=row[5], device=row[6]),
            keep=bool(row[7]),
        ),
        host=host,
        sequence=row[8],
    )


def _upload_row(upload: Upload) -> tuple[Any, ...]:
    return (
        upload.folder, upload.path, upload.key, *_seen(upload.seen), upload.ctime_ns, bytes.fromhex(upload.sha256),
        bytes.fromhex(upload.md5), upload.crc64nvme, upload.version_id, upload.etag, upload.uploaded_at.timestamp(),
        upload.verified,
    )  # fmt: skip


def _upload(row: Sequence[Any]) -> Upload:
    return Upload(
        folder=row[0],
        path=row[1],
        key=row[2],
        seen=Seen(size_bytes=row[3], mtime_ns=row[4], inode=row[5], device=row[6]),
        ctime_ns=row[7],
        sha256=row[8].hex(),
        md5=row[9].hex(),
        crc64nvme=row[10],
        version_id=row[11],
        etag=row[12],
        uploaded_at=_time(row[13]),
        verified=bool(row[14]),
    )


def _remains(row: Sequence[Any]) -> Remains:
    return Remains(
        folder=row[0], place=row[1], path=row[2], key=row[3], size_bytes=row[4], sha256=row[5].hex(),
        version_id=row[6], moved_at=_time(row[7]), why=row[8],
    )  # fmt: skip


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _time(timestamp: float) -> datetime:
    return _EPOCH + timedelta(seconds=timestamp)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:  # locked, full, no space: the same call may succeed later
        raise Transient(f"the journal: {error}") from error
    except OSError as error:
        raise Transient(f"the journal: {error.strerror}: {error.filename}") from error

"""Announcements in a queue, for folders that several hosts share: any of them works on what any of them found."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from neve.aws.queue import BATCH, SqsQueue
from neve.errors import EventInvalid, NeveError, Transient
from neve.ports import Queue
from neve_edge.announcement import Announcement, Found, Seen, parse, render
from neve_edge.announcements import Taken

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

_LOG = logging.getLogger("neve.edge")

REMEMBERED = timedelta(hours=12)
"""What waits for longer is announced once more, in case its message was lost."""
HIDDEN_S = 300
"""A host that dies gives back what it had after so long; who works on something for longer holds it."""
LONGEST_WAIT_S = 20
LONGEST_DELAY_S = 900
SENT_ANEW_AFTER = 5
"""Deliveries after which what is put off is sent as a new message: at 10 the queue takes it for poison, and an outage
of half an hour would have sent to the dead letters whatever waits for its end."""
THREADS = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sent (
    folder TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL, keep INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_at ON sent (at);
CREATE TABLE IF NOT EXISTS numbers (last INTEGER NOT NULL);
"""


class Sent:
    """What this host has announced lately, so that scans do not fill the queue with what waits there already.

    It may be lost or wrong: what is announced twice does no harm, and what is remembered is forgotten in time.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        # What a power failure takes from it is announced again. A crash of the process takes nothing.
        self._rows.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {_SCHEMA}")

    def close(self) -> None:
        """Close it."""
        self._rows.close()

    def news(self, found: Sequence[Found], host: str) -> list[Announcement]:
        """Those of `found` that are news, each with a number of its own."""
        now = self._clock()
        latest = {(each.folder, each.path): each for each in found}
        with self._transaction() as rows:
            # The second condition: what a clock remembered that has been put back since.
            rows.execute(
                "DELETE FROM sent WHERE at < ? OR at > ?", ((now - REMEMBERED).timestamp(), now.timestamp() + 60)
            )
            fresh = [each for each in latest.values() if _is_news(rows, each)]
            last = rows.execute("SELECT max(last) FROM numbers").fetchone()[0] or 0
            # A host that has lost this file goes on with higher numbers all the same.
            first = max(last + 1, int(now.timestamp() * 1000))
            rows.execute("DELETE FROM numbers")
            rows.execute("INSERT INTO numbers VALUES (?)", (first + len(fresh),))
        return [Announcement(found=each, host=host, sequence=number) for number, each in enumerate(fresh, first)]

    def note(self, announcements: Sequence[Announcement]) -> None:
        """They are in the queue, or in the outbox."""
        at = self._clock().timestamp()
        with self._transaction() as rows:
            rows.executemany(
                "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*_row(each.found), at) for each in announcements],
            )

    def forget(self, found: Sequence[Found]) -> None:
        """They are done: what stands under their names from now on is news."""
        with self._transaction() as rows:
            rows.executemany(
                "DELETE FROM sent WHERE folder = ? AND path = ?", [(each.folder, each.path) for each in found]
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._rows.execute("BEGIN IMMEDIATE")
                yield self._rows
                self._rows.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise Transient(f"what this host has announced: {error}") from error
            finally:
                if self._rows.in_transaction:
                    self._rows.execute("ROLLBACK")


def _row(found: Found) -> tuple[object, ...]:
    seen = found.seen
    return found.folder, found.path, found.key, found.keep, seen.size_bytes, seen.mtime_ns, seen.inode


def _is_news(rows: sqlite3.Connection, found: Found) -> bool:
    row = rows.execute(
        "SELECT size, mtime_ns, inode, keep, key FROM sent WHERE folder = ? AND path = ?", (found.folder, found.path)
    ).fetchone()
    if row is None:
        return True
    unchanged = Seen(size_bytes=row[0], mtime_ns=row[1], inode=row[2], device=0).same_bytes_as(found.seen)
    return not unchanged or row[4] != found.key or (bool(row[3]) and not found.keep)


@dataclass
class QueuedAnnouncements:
    """The Protocol Announcements over SQS: it sends to `queue`, behind which an outbox stands, and takes from `url`.

    A file is announced, then remembered as announced: who dies in between has it announced twice.
    """

    queue: Queue
    client: SQSClient
    url: str
    sent: Sent
    host: str

    def put(self, found: Sequence[Found]) -> int:
        """See Announcements. What another host let go, and is there again unchanged, is news after REMEMBERED."""
        news = self.sent.news(found, self.host)
        if not news:
            return 0
        problems = self._send(news)
        went = [each for each, problem in zip(news, problems, strict=True) if problem is None]
        self.sent.note(went)
        for problem in problems:
            if problem is not None:
                raise Transient(f"{len(news) - len(went)} of {len(news)} not announced: {problem}") from problem
        return len(went)

    def _send(self, announcements: Sequence[Announcement], *, delay_s: int = 0) -> list[NeveError | None]:
        """Send them side by side; for each what was wrong, or None."""

        def send(announcement: Announcement) -> NeveError | None:
            try:
                self.queue.send(render(announcement), delay_s=delay_s)
            except NeveError as error:
                return error
            return None

        with ThreadPoolExecutor(max(1, min(THREADS, len(announcements)))) as pool:
            return list(pool.map(send, announcements))

    def take(self, limit: int, *, wait_s: float = 0) -> Sequence[Taken]:
        """See Announcements. SQS has an order only by and large."""
        taken: list[Taken] = []
        while len(taken) < limit:
            try:
                with _reaching():
                    answer = self.client.receive_message(
                        QueueUrl=self.url,
                        MaxNumberOfMessages=min(BATCH, limit - len(taken)),
                        WaitTimeSeconds=0 if taken else min(int(wait_s), LONGEST_WAIT_S),
                        VisibilityTimeout=HIDDEN_S,
                        MessageSystemAttributeNames=["ApproximateReceiveCount"],
                    )
            except Transient:
                if taken:
                    break  # else what was received would be hidden, and worked on by nobody
                raise
            messages = answer.get("Messages", [])
            if not messages:
                break
            for message in messages:
                try:
                    announcement = parse(message["Body"])
                except EventInvalid as error:
                    # It is delivered again, and in the end goes to the dead letters, which have an alarm.
                    _LOG.error("no announcement message=%s why=%r", message["MessageId"], str(error))
                    continue
                tries = announcement.tried + int(message["Attributes"]["ApproximateReceiveCount"])
                taken.append(Taken(announcement=announcement, receipt=message["ReceiptHandle"], tries=tries))
        return taken

    def hold(self, taken: Sequence[Taken]) -> None:
        """See Announcements."""
        with _reaching():
            SqsQueue(self.client, self.url).show_again({each.receipt: HIDDEN_S for each in taken})

    def done(self, taken: Sequence[Taken]) -> None:
        """See Announcements. One whose receipt has lapsed comes once more, and is found to be done."""
        self.sent.forget([each.announcement.found for each in taken if not each.announcement.found.keep])
        self._delete(taken)

    def later(self, taken: Sequence[Taken], *, after_s: int, why: str, refused: bool = False) -> None:
        """See Announcements. Those that are refused go to the dead letters after some deliveries; others never.

        What is sent anew is deleted only then: who dies in between has it twice.
        """
        for each in taken:
            _LOG.info("later path=%r after_s=%d why=%r", each.announcement.found.path, after_s, why)
        delay_s = min(after_s, LONGEST_DELAY_S)
        anew = [each for each in taken if not refused and each.tries - each.announcement.tried >= SENT_ANEW_AFTER]
        problems = self._send([replace(each.announcement, tried=each.tries) for each in anew], delay_s=delay_s)
        went = [each for each, problem in zip(anew, problems, strict=True) if problem is None]
        self._delete(went)
        gone = {each.receipt for each in went}
        with _reaching():
            SqsQueue(self.client, self.url).show_again(
                {each.receipt: delay_s for each in taken if each.receipt not in gone}
            )

    def _delete(self, taken: Sequence[Taken]) -> None:
        for start in range(0, len(taken), BATCH):
            with _reaching():
                self.client.delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": each.receipt}
                        for number, each in enumerate(taken[start : start + BATCH])
                    ],
                )


@contextmanager
def _reaching() -> Iterator[None]:
    """Whatever keeps a host from its queue may pass: a person grants what is missing while the agent goes on trying."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise Transient(f"the announcements' queue: {error}") from error

"""What the port Outbox promises, held against memory, DynamoDB (moto) and SQLite; and how SqsQueue tells refusals."""

from __future__ import annotations

import random
import sqlite3
import string
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ParamValidationError
from botocore.stub import Stubber

from neve.aws.outbox_table import DynamoOutbox
from neve.aws.queue import SqsQueue
from neve.domain.outbox import LONGEST_LEASE, Backlog, Cause, Entry, entry_id
from neve.errors import MessageRefused, NeveError, QueueDenied, Transient
from neve.ports import Outbox
from neve_edge.outbox import SqliteOutbox
from tests.memory_offload import MemoryOutbox
from tests.moto_cloud import OUTBOX, moto_outbox

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[Any, Any]]:
    """Clients of DynamoDB, with one table for all tests here (each has a queue of its own), and of SQS."""
    with moto_outbox() as made:
        yield made


@pytest.fixture
def dynamodb(aws: tuple[Any, Any]) -> Any:
    return aws[0]


@pytest.fixture
def sqs(aws: tuple[Any, Any]) -> Any:
    return aws[1]


@pytest.fixture(params=["memory", "dynamodb", "sqlite"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    if request.param == "memory":
        yield MemoryOutbox()
    elif request.param == "dynamodb":
        yield DynamoOutbox(request.getfixturevalue("dynamodb"), OUTBOX)
    else:
        with closing(SqliteOutbox(tmp_path / "journal")) as made:
            yield made


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return f"https://sqs.us-east-1.amazonaws.com/123456789012/{request.node.name}"


def entry(queue: str, number: int, **fields: Any) -> Entry:
    made = Entry(
        queue=queue,
        id=entry_id(NOW, "a", number),
        body=f'{{"number": {number}, "key": "ä+ö"}}',
        due_at=NOW + timedelta(seconds=900),
        put_at=NOW,
        cause=Cause.FAILED,
    )
    return replace(made, **fields)


def test_what_was_put_comes_back_in_its_order_until_it_is_forgotten(outbox: Outbox, queue: str) -> None:
    entries = [
        entry(queue, 1, cause=Cause.DENIED, failures=2),
        entry(queue, 2),
        entry(queue, 10, put_at=NOW + timedelta(microseconds=1)),
    ]
    assert not outbox.holds(queue)
    for each in entries:
        outbox.put(each)
    outbox.put(entry(queue, 2))  # an answer was lost, so it is put again
    assert outbox.holds(queue)
    assert outbox.oldest(queue, 10) == entries
    assert outbox.oldest(queue, 2) == entries[:2]
    for each in (*entries, entries[0]):
        outbox.sent(each)
    assert not outbox.holds(queue)
    assert outbox.oldest(queue, 10) == []


def test_queues_have_nothing_to_do_with_each_other(outbox: Outbox, queue: str) -> None:
    other = f"{queue}-other"
    outbox.put(entry(queue, 1))
    assert (outbox.holds(queue), outbox.holds(other)) == (True, False)
    assert queue in outbox.queues()
    assert other not in outbox.queues()
    outbox.put(entry(other, 1))
    outbox.sent(entry(queue, 1))
    assert outbox.oldest(other, 10) == [entry(other, 1)]
    assert queue not in outbox.queues()
    outbox.put(entry(queue, 2))
    assert {queue, other} <= set(outbox.queues())


def test_failures_are_counted_and_do_not_bring_back_what_was_sent(outbox: Outbox, queue: str) -> None:
    outbox.put(entry(queue, 1))
    outbox.failed(entry(queue, 1))
    outbox.failed(entry(queue, 1))
    assert outbox.oldest(queue, 1) == [entry(queue, 1, failures=2)]
    outbox.sent(entry(queue, 1))
    outbox.failed(entry(queue, 1))
    assert outbox.oldest(queue, 1) == []


def test_the_backlog_counts_and_tells_since_when(outbox: Outbox, queue: str) -> None:
    assert outbox.backlog(queue) == Backlog(entries=0, oldest_at=None)
    outbox.put(entry(queue, 1))
    outbox.put(entry(queue, 2, put_at=LATER))
    assert outbox.backlog(queue) == Backlog(entries=2, oldest_at=NOW)


def test_a_lease_keeps_others_out_until_it_ends(outbox: Outbox, queue: str) -> None:
    outbox.put(entry(queue, 1))
    assert outbox.lease(queue, owner="a", now=NOW, until=LATER)
    assert not outbox.lease(queue, owner="b", now=NOW, until=LATER)
    assert outbox.lease(queue, owner="a", now=NOW, until=LATER)
    outbox.release(queue, owner="b")
    assert not outbox.lease(queue, owner="b", now=LATER - timedelta(microseconds=1), until=LATER)
    assert outbox.lease(queue, owner="b", now=LATER, until=LATER + timedelta(minutes=1))
    outbox.release(queue, owner="b")
    assert outbox.lease(queue, owner="a", now=LATER, until=LATER + timedelta(minutes=1))


def test_a_lease_that_a_wrong_clock_gave_does_not_block_the_queue(outbox: Outbox, queue: str) -> None:
    outbox.put(entry(queue, 1))
    assert outbox.lease(queue, owner="a", now=NOW, until=NOW + timedelta(minutes=10))
    assert outbox.lease(queue, owner="b", now=NOW - LONGEST_LEASE, until=NOW)


def test_a_lease_outlives_the_last_entry(outbox: Outbox, queue: str) -> None:
    outbox.put(entry(queue, 1))
    assert outbox.lease(queue, owner="a", now=NOW, until=LATER)
    outbox.sent(entry(queue, 1))
    outbox.put(entry(queue, 2))
    assert not outbox.lease(queue, owner="b", now=NOW, until=LATER)


# -- DynamoDB


def test_a_long_message_is_packed_and_one_that_does_not_fit_is_refused(dynamodb: Any, queue: str) -> None:
    outbox = DynamoOutbox(dynamodb, OUTBOX)
    long = entry(queue, 1, body='{"key": "ä"}' * 80_000)
    outbox.put(long)
    assert outbox.oldest(queue, 10) == [long]
    rng = random.Random(7)
    with pytest.raises(dynamodb.exceptions.ClientError, match="size"):
        outbox.put(entry(queue, 2, body="".join(rng.choices(string.printable, k=1_000_000))))


def test_more_than_a_page_of_long_messages_is_read_in_order_and_counted(dynamodb: Any, queue: str) -> None:
    outbox = DynamoOutbox(dynamodb, OUTBOX)
    entries = [entry(queue, number, body=str(number) * 300_000) for number in range(1, 6)]
    for each in reversed(entries):
        outbox.put(each)
    assert outbox.backlog(queue).entries == 5
    with patch("neve.aws.outbox_table.COUNTED_PAGES", 1):  # else who counts millions has no time left to tell
        assert 1 <= outbox.backlog(queue).entries < 5
    read: list[Entry] = []
    while some := outbox.oldest(queue, 100):
        read += some
        for each in some:
            outbox.sent(each)
    assert read == entries


def test_a_queue_is_listed_before_its_first_entry_is_put(dynamodb: Any, queue: str) -> None:
    """Whoever dies between the two leaves a queue without entries, and no entry that no relay finds."""
    outbox = DynamoOutbox(dynamodb, OUTBOX)
    with patch.object(DynamoOutbox, "_list", side_effect=Transient("DynamoDB is out")), pytest.raises(Transient):
        outbox.put(entry(queue, 1))
    assert not outbox.holds(queue)


# -- SQLite


def test_a_host_keeps_the_order_of_puts_whatever_the_clock_says(tmp_path: Path, queue: str) -> None:
    with closing(SqliteOutbox(tmp_path / "o")) as one, closing(SqliteOutbox(tmp_path / "o")) as another:
        first = entry(queue, 1)
        second = entry(queue, 1, id=entry_id(NOW - timedelta(days=1), "b", 1))
        one.put(first)
        another.put(second)
        one.put(first)  # again: it keeps its place
        assert another.oldest(queue, 10) == [first, second]


def test_processes_and_threads_share_the_file(tmp_path: Path, queue: str) -> None:
    with closing(SqliteOutbox(tmp_path / "o")) as one, closing(SqliteOutbox(tmp_path / "o")) as another:

        def put(outbox: SqliteOutbox, start: int) -> None:
            for number in range(start, start + 10):
                outbox.put(entry(queue, number))

        threads = [
            threading.Thread(target=put, args=(outbox, start))
            for outbox, start in ((one, 0), (one, 100), (another, 200), (another, 300))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers = [int(each.id[-9:]) for each in one.oldest(queue, 100)]
        assert len(numbers) == 40
        for start in (0, 100, 200, 300):
            assert [n for n in numbers if start <= n < start + 10] == list(range(start, start + 10))
        assert one.lease(queue, owner="one", now=NOW, until=LATER)
        assert not another.lease(queue, owner="another", now=NOW, until=LATER)


def test_what_was_put_is_on_disk(tmp_path: Path, queue: str) -> None:
    with closing(SqliteOutbox(tmp_path / "o")) as outbox:
        outbox.put(entry(queue, 1))
        # What kill -9 leaves: the file and its log, read by somebody else.
        with closing(sqlite3.connect(tmp_path / "o")) as other:
            assert other.execute("SELECT count(*) FROM outbox").fetchone() == (1,)
        assert outbox._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_file_that_cannot_be_written_now_is_a_passing_failure(tmp_path: Path, queue: str) -> None:
    with closing(SqliteOutbox(tmp_path / "o")) as outbox:
        outbox._database.execute("PRAGMA query_only = 1")
        with pytest.raises(Transient, match="the outbox"):
            outbox.put(entry(queue, 1))


# -- What SQS says


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidParameterValue", 400, MessageRefused),
        ("InvalidMessageContents", 400, MessageRefused),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, QueueDenied),
        ("QueueDoesNotExist", 400, QueueDenied),
        ("AccessDenied", 403, QueueDenied),
        ("KMS.AccessDeniedException", 400, QueueDenied),
        ("InvalidClientTokenId", 403, QueueDenied),
        ("SomethingNobodyForesaw", 400, QueueDenied),
        ("RequestThrottled", 403, Transient),
        ("ExpiredToken", 403, Transient),
        ("InternalError", 500, Transient),
    ],
)
def test_a_refusal_says_whether_message_queue_or_moment_is_wrong(
    sqs: Any, code: str, status: int, kind: type[NeveError]
) -> None:
    with Stubber(sqs) as stubber:
        for _ in range(2):  # botocore tries some of them again
            stubber.add_client_error("send_message", service_error_code=code, http_status_code=status)
        with pytest.raises(kind) as raised:
            SqsQueue(sqs, "https://sqs/q").send("{}")
    assert type(raised.value) is kind
    assert raised.value.__cause__


def test_who_has_no_credentials_is_denied_and_who_has_no_connection_tries_later(sqs: Any) -> None:
    for error, kind in (
        (NoCredentialsError(), QueueDenied),
        (EndpointConnectionError(endpoint_url="https://sqs"), Transient),
        (ParamValidationError(report="no text"), ParamValidationError),
    ):
        with patch.object(type(sqs), "_make_api_call", side_effect=error), pytest.raises(kind):
            SqsQueue(sqs, "https://sqs/q").send("{}")

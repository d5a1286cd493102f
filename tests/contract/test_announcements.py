"""What Announcements promises, held against the journal and the queue that hosts share (moto)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from moto import mock_aws

from neve.aws import clients
from neve.aws.queue import SqsQueue
from neve.errors import EventInvalid, Transient
from neve.flows.fallback_queue import FallbackQueue
from neve_edge.announcement import Announcement, Found, Seen, parse, render
from neve_edge.announcements import Announcements
from neve_edge.journal import Journal
from neve_edge.outbox import SqliteOutbox
from neve_edge.queued import REMEMBERED, QueuedAnnouncements, Sent
from neve_edge.relaying import Relaying, told_of_kept
from tests.moto_cloud import CREDENTIALS, _shared_clients

SEEN = Seen(size_bytes=5, mtime_ns=1_700_000_000_123_456_789, inode=2**63 - 1, device=40)


def file(path: str = "a", **fields: Any) -> Found:
    made = Found(folder="site", path=path, key=f"uploads/{path}", seen=SEEN)
    return replace(made, **fields)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def sqs() -> Iterator[Any]:
    with patch.dict(os.environ, CREDENTIALS), mock_aws(), _shared_clients():
        yield clients.sqs()


@dataclass
class Host:
    """The announcements of one host, which can be opened anew: as after a restart."""

    open: Callable[[], Announcements]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["journal", "queue"])
def host(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Host]:
    with ExitStack() as open_parts:
        if request.param == "journal":
            yield Host(
                open=lambda: open_parts.enter_context(closing(Journal(tmp_path / "edge.db", host="web1", clock=clock)))
            )
            return
        client = request.getfixturevalue("sqs")
        url = client.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
        yield Host(open=lambda: queued(client, url, tmp_path, clock, open_parts))


def queued(client: Any, url: str, folder: Path, clock: Clock, parts: ExitStack, **fields: Any) -> QueuedAnnouncements:
    return QueuedAnnouncements(
        queue=fields.pop("queue", SqsQueue(client, url)),
        client=client,
        url=url,
        sent=parts.enter_context(closing(Sent(folder / "sent.db", clock=clock))),
        host=fields.pop("host", "web1"),
    )


def test_what_is_put_is_taken_once_as_it_was(host: Host) -> None:
    announcements = host.open()
    found = [file("a"), file("größe +%/b\n", keep=True), file("c")]
    assert announcements.put(found) == 3
    taken = announcements.take(10)
    assert sorted((each.announcement.found for each in taken), key=str) == sorted(found, key=str)
    assert {each.announcement.host for each in taken} == {"web1"}
    assert {each.tries for each in taken} == {1}
    assert not announcements.take(10)
    announcements.hold(taken)
    announcements.done(taken)
    assert not announcements.take(10)


def test_never_more_are_taken_than_wanted(host: Host) -> None:
    announcements = host.open()
    announcements.put([file(str(number)) for number in range(25)])
    counts = [len(announcements.take(limit)) for limit in (1, 12, 100)]
    assert counts == [1, 12, 12]


def test_a_file_that_waits_or_is_worked_on_is_no_news(host: Host) -> None:
    announcements = host.open()
    assert announcements.put([file(), file()]) == 1
    assert announcements.put([file()]) == 0
    taken = announcements.take(10)
    assert len(taken) == 1
    assert announcements.put([file()]) == 0
    assert not announcements.take(10)


@pytest.mark.parametrize("change", [{"size_bytes": 6}, {"mtime_ns": 1}, {"inode": 8}])
def test_a_file_that_has_changed_is_news_also_while_it_is_worked_on(host: Host, change: dict[str, int]) -> None:
    announcements = host.open()
    announcements.put([file()])
    taken = announcements.take(10)
    changed = file(seen=replace(SEEN, **change))
    assert announcements.put([changed]) == 1
    announcements.done(taken)
    (again,) = announcements.take(10)
    assert again.announcement.found == changed
    assert again.announcement.sequence > taken[0].announcement.sequence


def test_a_file_that_was_let_go_and_is_there_again_is_news(host: Host) -> None:
    announcements = host.open()
    for _ in range(2):
        assert announcements.put([file()]) == 1
        taken = announcements.take(10)
        assert len(taken) == 1
        announcements.done(taken)


def test_a_kept_file_is_no_news_until_it_is_not_to_be_kept(host: Host) -> None:
    announcements = host.open()
    announcements.put([file(keep=True)])
    announcements.done(announcements.take(10))
    assert announcements.put([file(keep=True)]) == 0
    assert announcements.put([file()]) == 1
    assert [each.announcement.found.keep for each in announcements.take(10)] == [False]


def test_what_is_put_off_comes_back_and_counts_its_tries(host: Host) -> None:
    announcements = host.open()
    announcements.put([file("a"), file("b")])
    taken = announcements.take(10)
    announcements.later(taken[:1], after_s=0, why="throttled")
    announcements.later(taken[1:], after_s=900, why="denied")
    (again,) = announcements.take(10)
    assert again.announcement == taken[0].announcement
    assert again.tries == 2


def test_numbers_rise_and_are_never_given_twice_also_after_a_restart(host: Host, clock: Clock) -> None:
    numbers: list[int] = []
    for round_ in range(3):
        announcements = host.open()
        for part in range(3):
            announcements.put([file(f"{round_}-{part}-{number}") for number in range(3)])
        taken = announcements.take(100)
        numbers += sorted(each.announcement.sequence for each in taken)
        announcements.done(taken)
        clock.now -= timedelta(hours=1)  # a clock that is put back changes nothing
    assert len(numbers) == 27
    assert numbers == sorted(set(numbers))


def test_threads_share_it_and_nothing_is_left_out(host: Host) -> None:
    announcements = host.open()
    with ThreadPoolExecutor(4) as pool:
        news = sum(pool.map(lambda part: announcements.put([file(f"{part}/{n}") for n in range(10)]), range(4)))
        taken = [each for some in pool.map(lambda _: announcements.take(10), range(6)) for each in some]
    assert news == 40
    assert len({each.announcement.found.path for each in taken}) == 40  # SQS may hand out a message twice


# -- The queue alone


class _Refusing:
    """A queue that can be made to refuse."""

    def __init__(self, queue: SqsQueue) -> None:
        self.queue, self.refusing = queue, False

    def send(self, body: str, *, delay_s: int = 0) -> None:
        if self.refusing:
            raise Transient("cut off")
        self.queue.send(body, delay_s=delay_s)


def test_what_cannot_be_sent_waits_in_the_outbox_and_is_relayed(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    url = sqs.create_queue(QueueName="announcements")["QueueUrl"]
    with ExitStack() as parts:
        outbox = parts.enter_context(closing(SqliteOutbox(tmp_path / "edge.db")))
        gate = _Refusing(SqsQueue(sqs, url))
        behind = FallbackQueue(
            queue=gate, outbox=outbox, url=url, sender="web1", clock=clock, kept=told_of_kept, asks_always=True
        )
        announcements = queued(sqs, url, tmp_path, clock, parts, queue=behind)
        gate.refusing = True
        assert announcements.put([file("a"), file("b")]) == 2
        assert announcements.put([file("a"), file("b")]) == 0
        assert not announcements.take(10)
        gate.refusing = False
        assert announcements.put([file("c")]) == 1
        assert not announcements.take(10)  # it would overtake what waits
        assert Relaying(outbox, lambda _: gate, clock).once("relay") == 3
        assert sorted(each.announcement.found.path for each in announcements.take(10)) == ["a", "b", "c"]


def test_what_nothing_took_is_news_again(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    url = sqs.create_queue(QueueName="nothing")["QueueUrl"]
    with ExitStack() as parts:
        gate = _Refusing(SqsQueue(sqs, url))
        announcements = queued(sqs, url, tmp_path, clock, parts, queue=gate)
        gate.refusing = True
        with pytest.raises(Transient, match="2 of 2 not announced"):
            announcements.put([file("a"), file("b")])
        gate.refusing = False
        assert announcements.put([file("a"), file("b")]) == 2


def test_what_was_sent_is_sent_again_after_some_hours(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    url = sqs.create_queue(QueueName="hours")["QueueUrl"]
    with ExitStack() as parts:
        announcements = queued(sqs, url, tmp_path, clock, parts)
        assert announcements.put([file()]) == 1
        clock.now += REMEMBERED
        assert announcements.put([file()]) == 0
        clock.now += timedelta(seconds=1)
        assert announcements.put([file()]) == 1
        clock.now -= timedelta(days=30)  # what a clock remembers that has been put back since does not count
        assert announcements.put([file()]) == 1


def test_hosts_take_what_others_announced(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    url = sqs.create_queue(QueueName="hosts")["QueueUrl"]
    with ExitStack() as parts:
        one = queued(sqs, url, tmp_path, clock, parts)
        (tmp_path / "other").mkdir()
        other = queued(sqs, url, tmp_path / "other", clock, parts, host="web2")
        one.put([file()])
        other.put([file()])  # both saw it: two announcements of one file do no harm
        taken = other.take(10)
        assert sorted(each.announcement.host for each in taken) == ["web1", "web2"]


def test_a_message_that_is_no_announcement_holds_up_nobody(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    url = sqs.create_queue(QueueName="poison")["QueueUrl"]
    with ExitStack() as parts:
        announcements = queued(sqs, url, tmp_path, clock, parts)
        sqs.send_message(QueueUrl=url, MessageBody="hello")
        announcements.put([file()])
        assert [each.announcement.found.path for each in announcements.take(10)] == ["a"]


def test_an_outage_of_hours_sends_nothing_to_the_dead_letters_but_what_no_host_can_do(
    sqs: Any, tmp_path: Path, clock: Clock
) -> None:
    url, dead = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("outage", "outage-dead"))
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 10})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    with ExitStack() as parts:
        announcements = queued(sqs, url, tmp_path, clock, parts)
        announcements.put([file("a"), file("b")])
        tries = [0]
        for _ in range(12):
            for each in announcements.take(10):
                refused = each.announcement.found.path == "b"
                announcements.later([each], after_s=0, why="S3 is away", refused=refused)
                tries += [] if refused else [each.tries]
        assert tries == list(range(13)), "pauses go on growing"
        parked = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
        assert [parse(each["Body"]).found.path for each in parked] == ["b"]


def test_what_was_received_is_worked_on_even_if_the_queue_then_fails(
    sqs: Any, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqs.create_queue(QueueName="half")["QueueUrl"]
    with ExitStack() as parts:
        announcements = queued(sqs, url, tmp_path, clock, parts)
        announcements.put([file("a")])
        receive = sqs.receive_message

        def once(**how: Any) -> Any:
            monkeypatch.setattr(sqs, "receive_message", refuse)
            return receive(**how)

        def refuse(**_: Any) -> Any:
            raise Transient("cut off")

        monkeypatch.setattr(sqs, "receive_message", once)
        assert len(announcements.take(20)) == 1


def test_a_queue_that_is_gone_is_something_that_may_pass(sqs: Any, tmp_path: Path, clock: Clock) -> None:
    with ExitStack() as parts:
        announcements = queued(sqs, "https://sqs.us-east-1.amazonaws.com/123456789012/none", tmp_path, clock, parts)
        with pytest.raises(Transient):
            announcements.take(1)


# -- What a message says


def test_an_announcement_comes_out_of_its_message_as_it_went_in() -> None:
    said = Announcement(found=file("a/b \u202e\x01.jpg", keep=True), host="web1", sequence=17)
    assert parse(render(said)) == said
    assert render(said).isascii()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"format": "neve-announcement", "version": 2}',
        render(Announcement(found=file(), host="h", sequence=1)).replace('"a"', '"../../etc/shadow"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace('"a"', '"/etc/shadow"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace('"a"', '"a/./b"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace('"a"', '"a\\u0000"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace("uploads/a", "\\udcff"),
        render(Announcement(found=file(), host="h", sequence=1)).replace("uploads/a", ".neve/a"),
        render(Announcement(found=file(), host="h", sequence=1)).replace('"a"', '"\\udcff"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace('"site"', '"\\udcff"'),
        render(Announcement(found=file(), host="h", sequence=1)).replace("[5,", "[5.5,"),
        render(Announcement(found=file(), host="h", sequence=1)).replace("[5,", "["),
    ],
)
def test_what_is_no_announcement_is_refused(body: str) -> None:
    with pytest.raises(EventInvalid):
        parse(body)

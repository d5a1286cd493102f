"""FallbackQueue and Relay, one property each by example; all of them together are in test_outbox_order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from neve.domain.outbox import Backlog, Cause, Entry, entry_id, queue_name
from neve.domain.parked import Reason
from neve.errors import MessageRefused, NeveError, QueueDenied, Transient
from neve.flows.fallback_queue import FallbackQueue
from neve.flows.relay import REFUSALS, Relay, Relayed
from neve.ports import Outbox
from neve_edge.outbox import SqliteOutbox
from tests.memory import MemoryParkingLot
from tests.memory_offload import MemoryOutbox

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
URL, OTHER = "https://sqs/1/collect", "https://sqs/1/bundles"


@dataclass
class Sqs:
    """A queue that raises what the test says, for all messages or for one."""

    error: Exception | None = None
    refused: str = ""
    sent: list[tuple[str, int]] = field(default_factory=list)
    tries: int = 0

    def send(self, body: str, *, delay_s: int = 0) -> None:
        self.tries += 1
        if self.error:
            raise self.error
        if body == self.refused:
            raise MessageRefused("it is too long")
        self.sent.append((body, delay_s))

    @property
    def bodies(self) -> list[str]:
        return [body for body, _ in self.sent]


@dataclass
class World:
    """A queue, the outbox, a clock that stands still, and what senders told."""

    queues: dict[str, Sqs] = field(default_factory=lambda: {URL: Sqs(), OTHER: Sqs()})
    outbox: Outbox = field(default_factory=MemoryOutbox)
    parking_lot: MemoryParkingLot = field(default_factory=MemoryParkingLot)
    now: datetime = NOW
    told: list[tuple[str, str]] = field(default_factory=list)
    names: Iterator[int] = field(default_factory=count)

    def sender(self, url: str = URL, *, outbox: Outbox | None = None, asks_always: bool = False) -> FallbackQueue:
        def kept(entry: Entry, error: NeveError | None) -> None:
            self.told.append((entry.cause, str(error or "")))

        return FallbackQueue(
            queue=self.queues[url],
            outbox=outbox or self.outbox,
            url=url,
            sender=f"s{next(self.names)}",
            clock=lambda: self.now,
            kept=kept,
            asks_always=asks_always,
        )

    def relay(self, *, threads: int = 1, owner: str = "relay") -> dict[str, Relayed]:
        made = Relay(
            outbox=self.outbox,
            queue=lambda url: self.queues[url],
            parking_lot=self.parking_lot,
            threads=threads,
            clock=lambda: self.now,
        )
        return {each.queue: each for each in made.drain(owner=owner, until=self.now + timedelta(minutes=1))}


@pytest.fixture
def world() -> World:
    return World()


class Broken(MemoryOutbox):
    """An outbox that cannot be reached while it is `out`."""

    out = True

    def put(self, entry: Entry) -> None:
        self._check()
        super().put(entry)

    def holds(self, queue: str) -> bool:
        self._check()
        return super().holds(queue)

    def _check(self) -> None:
        if self.out:
            raise Transient("DynamoDB is out")


# -- Entries


def entry(*, delay_s: int) -> Entry:
    return Entry(
        queue=URL,
        id=entry_id(NOW, "a-sender", 7),
        body="{}",
        due_at=NOW + timedelta(seconds=delay_s),
        put_at=NOW,
        cause=Cause.FAILED,
    )


@pytest.mark.parametrize(
    ("delay_s", "passed_s", "left"),
    [(0, 0, 0), (20, 0, 20), (20, 0.5, 20), (20, 19, 1), (20, 20, 0), (20, 5_000, 0), (20, -5_000, 20), (0, -60, 0)],
)
def test_a_message_is_due_when_it_was_to_be_whenever_it_is_sent(delay_s: int, passed_s: float, left: int) -> None:
    assert entry(delay_s=delay_s).delay_s(NOW + timedelta(seconds=passed_s)) == left


def test_no_delay_is_longer_than_sqs_takes() -> None:
    assert entry(delay_s=5_000).delay_s(NOW) == 900


def test_ids_sort_by_time_then_by_number_and_name_their_sender() -> None:
    ids = [
        entry_id(datetime(1999, 1, 1, tzinfo=UTC), "z", 3),
        entry_id(NOW, "a", 9),
        entry_id(NOW, "a", 10),
        entry_id(NOW + timedelta(microseconds=1), "a", 1),
    ]
    assert ids == sorted(ids)
    assert entry(delay_s=0).sender == "a-sender"


def test_people_are_told_a_queues_name_not_its_url() -> None:
    assert queue_name("https://sqs.us-east-1.amazonaws.com/123456789012/neve-Collect") == "neve-Collect"


# -- FallbackQueue


def test_a_sender_asks_the_outbox_once_and_sends_straight_from_then_on(world: World) -> None:
    sender = world.sender()
    sender.send("1", delay_s=20)
    world.outbox.put(entry(delay_s=0))  # another sender's
    sender.send("2")
    assert world.queues[URL].sent == [("1", 20), ("2", 0)]
    assert world.told == []


@pytest.mark.parametrize(
    ("error", "cause"), [(Transient("it is out"), Cause.FAILED), (QueueDenied("AccessDenied"), Cause.DENIED)]
)
def test_what_sqs_does_not_take_waits_and_so_does_all_behind_it(world: World, error: NeveError, cause: Cause) -> None:
    sender = world.sender()
    sender.send("1")
    world.queues[URL].error = error
    sender.send("2", delay_s=20)
    world.queues[URL].error = None
    sender.send("3")
    assert world.queues[URL].bodies == ["1"]
    assert [each.body for each in world.outbox.oldest(URL, 10)] == ["2", "3"]
    assert world.told == [(cause, str(error)), (Cause.BEHIND, "")]
    world.now += timedelta(seconds=5)
    assert world.relay()[URL].sent == 2
    sender.send("4")
    assert world.queues[URL].sent == [("1", 0), ("2", 15), ("3", 0), ("4", 0)]


def test_while_sqs_is_out_it_is_not_asked_for_every_message(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    sender = world.sender()
    for number in range(20):
        sender.send(str(number))
    assert world.queues[URL].tries == 1


def test_a_fresh_process_does_not_overtake_what_the_last_one_left(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    world.sender().send("1")
    world.queues[URL].error = None
    world.sender().send("2")
    assert world.queues[URL].bodies == []
    world.relay()
    assert world.queues[URL].bodies == ["1", "2"]


def test_processes_that_always_ask_are_one_sender_together(world: World) -> None:
    first, second = world.sender(asks_always=True), world.sender(asks_always=True)
    first.send("1")
    second.send("2")
    world.queues[URL].error = Transient("it is out")
    first.send("3")
    world.queues[URL].error = None
    second.send("4")
    world.relay()
    second.send("5")
    assert world.queues[URL].bodies == ["1", "2", "3", "4", "5"]


def test_an_outbox_that_is_out_holds_back_nobody_who_left_nothing_in_it(world: World) -> None:
    outbox = Broken()
    sender = world.sender(outbox=outbox)
    sender.send("1")
    assert world.queues[URL].bodies == ["1"]


def test_if_neither_takes_a_message_its_sender_knows_and_knows_why(world: World) -> None:
    world.queues[URL].error = QueueDenied("SendMessage: AccessDenied")
    sender = world.sender(outbox=Broken())
    with pytest.raises(Transient, match="collect: neither SQS nor the outbox took a message") as raised:
        sender.send("1")
    assert "DynamoDB is out" in str(raised.value.__cause__)
    assert raised.value.__cause__
    assert raised.value.__cause__.__context__ is world.queues[URL].error


def test_who_left_something_does_not_overtake_it_when_the_outbox_cannot_be_asked(world: World) -> None:
    outbox = Broken()
    outbox.out = False
    sender = world.sender(outbox=outbox)
    world.queues[URL].error = Transient("it is out")
    sender.send("1")
    world.queues[URL].error, outbox.out = None, True
    with pytest.raises(Transient, match="older messages may wait"):
        sender.send("2")
    assert world.queues[URL].bodies == []


def test_a_message_that_sqs_never_takes_is_its_senders_fault(world: World) -> None:
    world.queues[URL].refused = "too long"
    with pytest.raises(MessageRefused):
        world.sender().send("too long")
    assert not world.outbox.holds(URL)


def test_a_clock_that_goes_back_does_not_turn_the_order(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    sender = world.sender()
    sender.send("1")
    world.now -= timedelta(hours=1)
    sender.send("2")
    assert [each.body for each in world.outbox.oldest(URL, 10)] == ["1", "2"]


def test_a_clock_that_goes_back_while_the_queue_is_tried_makes_no_delay(world: World) -> None:
    @dataclass
    class Jumping(Sqs):
        def send(self, body: str, *, delay_s: int = 0) -> None:
            world.now -= timedelta(hours=2)
            super().send(body, delay_s=delay_s)

    world.queues[URL] = Jumping(error=Transient("it is out"))
    world.sender().send("1", delay_s=20)
    world.queues[URL] = queue = Sqs()
    world.relay()
    assert queue.sent == [("1", 20)]


def test_threads_share_a_sender_and_each_keeps_its_order(world: World, tmp_path: Path) -> None:
    world.outbox = outbox = SqliteOutbox(tmp_path / "outbox")  # dictionaries are not for threads
    sender = world.sender()
    queue = world.queues[URL]

    def send(name: str) -> None:
        for number in range(40):
            queue.error = Transient("it is out") if number in (10, 30) else None
            sender.send(f"{name}{number}")
            if number % 10 == 0:
                world.relay(owner=name)

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.error = None
    world.relay()
    outbox.close()
    for name in "abcd":
        mine = list(dict.fromkeys(body for body in queue.bodies if body[0] == name))
        assert mine == [f"{name}{number}" for number in range(40)]


# -- Relay


def test_a_message_that_is_refused_is_parked_after_so_many_tries_and_holds_back_nobody(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    sender = world.sender()
    for body in ("1", "too long", "2"):
        sender.send(body)
    world.queues[URL] = queue = Sqs(refused="too long")
    relayed = world.relay()[URL]
    assert queue.bodies == ["1", "2"]
    assert queue.tries == 2 + REFUSALS
    assert (relayed.sent, relayed.parked, relayed.problem, relayed.left.entries) == (2, 1, None, 0)
    [parked] = world.parking_lot.items.values()
    assert (parked.reason, parked.evidence) == (Reason.MESSAGE_REFUSED, "too long")
    assert "collect" in parked.detail


def test_what_another_relay_has_tried_counts(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    world.sender().send("too long")
    [waiting] = world.outbox.oldest(URL, 1)
    for _ in range(REFUSALS):
        world.outbox.failed(waiting)
    world.queues[URL] = queue = Sqs(refused="too long")
    assert world.relay()[URL].parked == 1
    assert queue.tries == 1


@pytest.mark.parametrize("error", [Transient("it is out"), QueueDenied("NonExistentQueue"), ValueError("a fault")])
def test_what_waiting_may_heal_is_no_failure_of_the_message_and_other_queues_go_on(
    world: World, error: Exception
) -> None:
    for url in (URL, OTHER):
        world.queues[url].error = Transient("it is out")
        sender = world.sender(url)
        sender.send("1")
        sender.send("2")
    world.queues[URL].error, world.queues[OTHER].error = error, None
    for _ in range(10):
        relayed = world.relay()
        assert relayed[URL].problem is error
        assert relayed[URL].left == Backlog(entries=2, oldest_at=NOW)
    assert world.queues[OTHER].bodies == ["1", "2"]
    assert world.parking_lot.items == {}
    assert [each.failures for each in world.outbox.oldest(URL, 10)] == [0, 0]


def test_what_was_denied_its_sender_is_counted_when_the_relay_sends_it(world: World) -> None:
    world.queues[URL].error = QueueDenied("AccessDenied")
    sender = world.sender()
    sender.send("1")
    sender.send("2")
    world.queues[URL].error = None
    relayed = world.relay()[URL]
    assert (relayed.sent, relayed.denied) == (2, 1)


def test_a_queue_at_which_another_relay_is_is_left_to_it(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    world.sender().send("1")
    world.queues[URL].error = None
    assert world.outbox.lease(URL, owner="another", now=NOW, until=NOW + timedelta(seconds=30))
    relayed = world.relay()[URL]
    assert (relayed.busy, relayed.sent, relayed.left.entries) == (True, 0, 1)
    world.now += timedelta(seconds=30)
    assert world.relay()[URL].sent == 1


def test_when_the_time_is_up_the_rest_waits_for_the_next_and_no_lease_is_left(world: World) -> None:
    @dataclass
    class Slow(Sqs):
        def send(self, body: str, *, delay_s: int = 0) -> None:
            super().send(body, delay_s=delay_s)
            world.now += timedelta(seconds=25)

    world.queues[URL].error = Transient("it is out")
    sender = world.sender()
    for number in range(5):
        sender.send(str(number))
    world.queues[URL] = queue = Slow()
    assert world.relay()[URL].sent == 3
    assert world.relay(owner="the next")[URL].sent == 2
    assert queue.bodies == ["0", "1", "2", "3", "4"]


def test_a_long_backlog_is_sent_page_by_page_and_each_sender_keeps_its_order_side_by_side(world: World) -> None:
    world.queues[URL].error = Transient("it is out")
    senders = [world.sender() for _ in range(3)]
    for number in range(100):
        for name, sender in zip("abc", senders, strict=True):
            sender.send(f"{name}{number}")
    world.queues[URL].error = None
    assert world.relay(threads=8)[URL].sent == 300
    for name in "abc":
        assert [body for body in world.queues[URL].bodies if body[0] == name] == [f"{name}{n}" for n in range(100)]


def test_two_relays_side_by_side_send_twice_and_out_of_order_nothing(world: World) -> None:
    """A lease that ended too soon, by whatever clock: what comes late is what came before."""
    world.queues[URL].error = Transient("it is out")
    sender = world.sender()
    for number in range(3):
        sender.send(str(number))
    world.queues[URL].error = None
    read_before = world.outbox.oldest(URL, 10)
    world.relay()
    sender.send("3")
    with_old_entries = MemoryOutbox(entries={(each.queue, each.id): each for each in read_before})
    world.outbox = with_old_entries
    world.relay(owner="late")
    assert world.queues[URL].bodies == ["0", "1", "2", "3", "0", "1", "2"]

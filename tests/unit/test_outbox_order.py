"""The order of messages through the outbox, under whatever fails: a model that hypothesis drives call by call.

Two senders and two relays are processes that stop before each call of a port. Before each call the test decides what
becomes of it: it works; it fails; it takes effect and its answer is lost; it is denied; the process dies before it or
after it. Clocks jump, each process has its own. What is held against the model after every call:

- Nothing is lost: a message whose send returned was delivered, or waits, or is parked (if SQS refuses it for itself).
- Order: if a sender's send of A returned before its send of B to the same queue began, and both returned, the first
  delivery of A is before the first of B. A may be delivered again at any time, also after B: nothing is said of that.
- At rest, when everything works again, nothing waits, all is delivered, and a consumer that refuses what is older than
  what it has ends with the newest, in whatever order the queue hands out what it has.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from neve.domain.outbox import MAX_DELAY_S
from neve.errors import MessageRefused, QueueDenied, Transient
from neve.flows.fallback_queue import FallbackQueue
from neve.flows.relay import Relay
from tests.memory import MemoryParkingLot
from tests.memory_offload import MemoryOutbox

QUEUES = ("https://sqs/a", "https://sqs/b")


class Fate(Enum):
    """What becomes of a call."""

    WORKS = auto()
    FAILS = auto()
    ANSWER_LOST = auto()
    DENIED = auto()
    DIES_BEFORE = auto()
    DIES_AFTER = auto()


class Dead(BaseException):
    """The process is no more: no handler of errors sees it."""


class Process:
    """Work on a thread of its own, which goes on for one call whenever `step` says so."""

    def __init__(self, work: Callable[[Process], None]) -> None:
        self.done = False
        self.dead = False
        self._fate = Fate.WORKS
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        threading.Thread(target=self._live, args=(work,), daemon=True).start()
        self._back.acquire()

    def step(self, fate: Fate) -> None:
        self._fate = fate
        self._go.release()
        self._back.acquire()

    def port(self, target: Any) -> Any:
        """`target`, whose calls end as `step` says."""
        return _Port(target, self)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._back.release()
        self._go.acquire()
        fate = self._fate
        if fate is Fate.DIES_BEFORE:
            raise Dead
        if fate is Fate.FAILS:
            raise Transient("it fails")
        if fate is Fate.DENIED:
            raise QueueDenied("it is denied")
        answer = method(*args, **kwargs)
        if fate is Fate.DIES_AFTER:
            raise Dead
        if fate is Fate.ANSWER_LOST:
            raise Transient("the answer is lost")
        return answer

    def _live(self, work: Callable[[Process], None]) -> None:
        try:
            work(self)
        except Dead:
            self.dead = True
        finally:
            self.done = True
            self._back.release()


class _Port:
    def __init__(self, target: Any, process: Process) -> None:
        self._target, self._process = target, process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        return lambda *args, **kwargs: self._process.call(method, *args, **kwargs)


@dataclass
class ModelQueue:
    """An SQS queue: what it took, in that order, and delays that were wrong. While it is `out` it takes nothing."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    wrong_delays: list[int] = field(default_factory=list)
    out: bool = False

    def send(self, body: str, *, delay_s: int = 0) -> None:
        message = json.loads(body)
        if not 0 <= delay_s <= min(MAX_DELAY_S, message["delay_s"]):
            self.wrong_delays.append(delay_s)
        if self.out:
            raise Transient("the queue is out")
        if message["poison"]:
            raise MessageRefused("it is too long")
        self.taken.append(message)


@dataclass
class Clock:
    """A process's own; it goes on with every look."""

    now: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


SENDERS, RELAYS = ("sender 1", "sender 2"), ("relay 1", "relay 2")
FATES = st.sampled_from([Fate.WORKS] * 3 + list(Fate))
CALLS = st.integers(min_value=1, max_value=8)
MESSAGES = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(QUEUES[:1] * 3 + QUEUES),
        "key": st.sampled_from(("k", "l")),
        "delay_s": st.sampled_from((0, 0, 20, 900)),
        "poison": st.sampled_from((False, False, False, True)),
    }
)


class Order(RuleBasedStateMachine):
    """See the head of this module."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = MemoryOutbox()
        self.parking_lot = MemoryParkingLot()
        self.queues = {url: ModelQueue() for url in QUEUES}
        self.clocks = {actor: Clock() for actor in SENDERS + RELAYS}
        self.running: dict[str, Process] = {}
        self.senders: dict[tuple[str, str], FallbackQueue] = {}
        self.numbers = itertools.count(1)
        self.returned: list[dict[str, Any]] = []

    @initialize(messages=st.lists(MESSAGES, max_size=4), out=st.booleans())
    def an_outage_has_left_something(self, messages: list[dict[str, Any]], out: bool) -> None:
        self.queues[QUEUES[0]].out = True
        for message in messages:
            self.begin(SENDERS[0], self.send(SENDERS[0], message | {"queue": QUEUES[0]}))
            self.finish(SENDERS[0])
        self.queues[QUEUES[0]].out = out

    @rule(actor=st.sampled_from(SENDERS), calls=CALLS, fate=FATES, message=MESSAGES)
    def send_on(self, actor: str, calls: int, fate: Fate, message: dict[str, Any]) -> None:
        """So many calls of a sender, the last with this fate; it begins with a message if it is at none."""
        if actor not in self.running:
            self.begin(actor, self.send(actor, message))
        self.go_on(actor, calls, fate)

    @rule(actor=st.sampled_from(RELAYS), calls=CALLS, fate=FATES)
    def relay_on(self, actor: str, calls: int, fate: Fate) -> None:
        """So many calls of a relay, the last with this fate."""
        if actor not in self.running:
            self.begin(actor, self.relay(actor))
        self.go_on(actor, calls, fate)

    @rule(actor=st.sampled_from(SENDERS + RELAYS), seconds=st.sampled_from((-7200, -61, 61, 7200)))
    def jump(self, actor: str, seconds: int) -> None:
        self.clocks[actor].now += timedelta(seconds=seconds)

    @rule(url=st.sampled_from(QUEUES))
    def change(self, url: str) -> None:
        """A queue is out from now on, or back."""
        self.queues[url].out ^= True

    def begin(self, actor: str, work: Callable[[Process], None]) -> None:
        self.running[actor] = Process(work)
        self.tidy(actor)

    def go_on(self, actor: str, calls: int, fate: Fate) -> None:
        for left in range(calls, 0, -1):
            if actor in self.running:
                self.running[actor].step(Fate.WORKS if left > 1 else fate)
                self.tidy(actor)

    def finish(self, actor: str) -> None:
        while actor in self.running:
            self.go_on(actor, 1, Fate.WORKS)

    def tidy(self, actor: str) -> None:
        process = self.running[actor]
        if process.done:
            del self.running[actor]
        if process.dead:  # what it knew is gone: whoever comes next under its name is another
            self.senders = {place: sender for place, sender in self.senders.items() if place[0] != actor}

    def send(self, actor: str, message: dict[str, Any]) -> Callable[[Process], None]:
        queue = message["queue"]

        def work(process: Process) -> None:
            sender = self.senders.get((actor, queue))
            if sender is None:
                sender = self.senders[actor, queue] = FallbackQueue(
                    queue=None,  # type: ignore[arg-type]  # those of the process at work, below
                    outbox=None,  # type: ignore[arg-type]
                    url=queue,
                    sender=f"s{next(self.numbers)}",
                    clock=self.clocks[actor],
                    kept=lambda *_: None,
                )
            sender.queue, sender.outbox = process.port(self.queues[queue]), process.port(self.outbox)
            sent = message | {"number": next(self.numbers), "sender": sender.sender}
            try:
                sender.send(json.dumps(sent), delay_s=sent["delay_s"])
            except (Transient, MessageRefused):
                return  # it comes again, as another message
            self.returned.append(sent)

        return work

    def relay(self, actor: str) -> Callable[[Process], None]:
        clock = self.clocks[actor]

        def work(process: Process) -> None:
            relay = Relay(
                outbox=process.port(self.outbox),
                queue=lambda url: process.port(self.queues[url]),
                parking_lot=process.port(self.parking_lot),
                threads=1,
                clock=clock,
            )
            try:
                relay.drain(owner=f"{actor} {next(self.numbers)}", until=clock() + timedelta(minutes=1))
            except (Transient, QueueDenied):
                return  # not even the queues could be read

        return work

    @invariant()
    def nothing_is_lost(self) -> None:
        waiting = {json.loads(entry.body)["number"] for entry in self.outbox.entries.values()}
        delivered = {message["number"] for queue in self.queues.values() for message in queue.taken}
        parked = {json.loads(item.evidence)["number"] for item in self.parking_lot.items.values()}
        for message in self.returned:
            assert message["number"] in waiting | (parked if message["poison"] else delivered), message

    @invariant()
    def a_senders_messages_reach_a_queue_in_their_order(self) -> None:
        for url, queue in self.queues.items():
            first: dict[int, int] = {}
            for place, message in enumerate(queue.taken):
                first.setdefault(message["number"], place)
            for sender in {message["sender"] for message in self.returned}:
                mine = [m for m in self.returned if (m["sender"], m["queue"], m["poison"]) == (sender, url, False)]
                places = [first.get(message["number"], len(queue.taken)) for message in mine]
                assert places == sorted(places), mine

    @invariant()
    def nobody_waits_for_longer_than_was_asked(self) -> None:
        assert not any(queue.wrong_delays for queue in self.queues.values())

    def teardown(self) -> None:
        for queue in self.queues.values():
            queue.out = False
        for actor in list(self.running):
            self.finish(actor)
        self.clocks["relay 1"].now = max(clock.now for clock in self.clocks.values()) + timedelta(hours=1)
        self.begin("relay 1", self.relay("relay 1"))
        self.finish("relay 1")
        assert self.outbox.entries == {}
        self.nothing_is_lost()
        self.a_senders_messages_reach_a_queue_in_their_order()
        self.nobody_waits_for_longer_than_was_asked()
        self.a_consumer_that_refuses_what_is_older_ends_with_the_newest()

    def a_consumer_that_refuses_what_is_older_ends_with_the_newest(self) -> None:
        taken = [message for queue in self.queues.values() for message in queue.taken]
        random.Random(len(taken)).shuffle(taken)  # a standard queue promises no order
        has: dict[str, int] = {}
        for message in taken:
            has[message["key"]] = max(has.get(message["key"], 0), message["number"])
        for message in self.returned:
            assert message["poison"] or has[message["key"]] >= message["number"]


Order.TestCase.settings = settings(
    max_examples=int(os.environ.get("NEVE_MORE_EXAMPLES", "40")), stateful_step_count=40, deadline=None
)
TestOrder = Order.TestCase

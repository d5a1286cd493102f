"""A queue of SQS and the mapping that empties it into a function, as a discrete-event simulation sees them."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

Waiting = Generator[simpy.Event, Any, Any]

RECEIVED_AT_ONCE = 10
"""Messages in one answer of SQS, and in one request to delete them."""
LONG_POLL_S = 20.0
"""A poll of an empty queue waits so long for a message."""
FIRST_POLLERS = 5
POLLERS_PER_S = 300 / 60
"""A mapping begins with five batches at a time, and adds up to 300 a minute while messages wait. Source: Lambda
developer guide, "Configuring scaling behavior for SQS event source mappings"."""


@dataclass(eq=False)
class _Poll:
    """A request that waits for messages, at most `most` of them."""

    most: int
    answered: simpy.Event


class Queue:
    """A standard queue. A message is anything, with the time from which it can be seen.

    Of several pollers that wait for a message, any may get it. `requests` counts those that receive and delete.
    """

    def __init__(self, env: simpy.Environment, chance: random.Random, *, answer_s: float) -> None:
        self.env = env
        self.requests = 0
        self._chance = chance
        self._answer_s = answer_s
        self._messages: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        self._polls: list[_Poll] = []
        self._changed = env.event()
        env.process(self._hand_out())

    def fill(self, messages: Sequence[tuple[float, Any]]) -> None:
        """Put many messages, each with the time from which it can be seen, before anything runs."""
        self._messages += [(at, next(self._numbers), message) for at, message in messages]
        heapq.heapify(self._messages)

    def send(self, message: Any, *, delay_s: float = 0.0) -> None:
        """Put a message that can be seen after `delay_s`."""
        heapq.heappush(self._messages, (self.env.now + delay_s, next(self._numbers), message))
        self._wake()

    @property
    def behind(self) -> bool:
        """Whether a message can be seen that nobody has taken."""
        return bool(self._messages) and self._messages[0][0] <= self.env.now

    def seen(self) -> Waiting:
        """Wait until a message can be seen; since when it could."""
        while not self.behind:
            poll = _Poll(0, self.env.event())
            self._polls.append(poll)
            self._wake()
            yield poll.answered
        return self._messages[0][0]

    def receive(self, most: int, wait_s: float) -> Waiting:
        """Up to `most` messages: at once if there are any, or the first that comes within `wait_s`."""
        self.requests += 1
        yield self.env.timeout(self._answer_s)
        taken = self.take(most)
        if taken or wait_s <= 0:
            return taken
        poll = _Poll(most, self.env.event())
        self._polls.append(poll)
        self._wake()
        yield poll.answered | self.env.timeout(wait_s)
        if poll.answered.triggered:
            return poll.answered.value
        self._polls.remove(poll)
        return []

    def delete(self, count: int) -> None:
        """So many messages are done; nobody waits for that."""
        self.requests += math.ceil(count / RECEIVED_AT_ONCE)

    def take(self, most: int) -> list[Any]:
        """Up to `most` of the messages that can be seen, those first that could be first."""
        taken: list[Any] = []
        while len(taken) < most and self.behind:
            taken.append(heapq.heappop(self._messages)[2])
        return taken

    def _wake(self) -> None:
        if not self._changed.triggered:
            self._changed.succeed()

    def _hand_out(self) -> Waiting:
        """Give each message, once it can be seen, to one of the polls that wait."""
        while True:
            if not (self._polls and self._messages):
                self._changed = self.env.event()
                yield self._changed
            elif self.behind:
                poll = self._polls.pop(self._chance.randrange(len(self._polls)))
                poll.answered.succeed(self.take(poll.most))
            else:
                self._changed = self.env.event()
                yield self._changed | self.env.timeout(self._messages[0][0] - self.env.now)


@dataclass
class Function:
    """A function's environments: one for each batch at a time, kept warm once it has started.

    `work` is what an invocation does with a batch. `busy_s` is what AWS bills, starts left out.
    """

    env: simpy.Environment
    work: Callable[[Sequence[Any]], Waiting]
    cold_start_s: float
    invocations: int = 0
    environments: int = 0
    busy_s: float = 0.0
    most_at_once: int = 0
    batches: list[int] = field(default_factory=list)
    _idle: int = 0
    _at_once: int = 0

    def invoke(self, batch: Sequence[Any]) -> Waiting:
        """Handle a batch in an idle environment, or in a new one."""
        self.invocations += 1
        self.batches.append(len(batch))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if self._idle:
            self._idle -= 1
        else:
            self.environments += 1
            yield self.env.timeout(self.cold_start_s)
        began = self.env.now
        yield from self.work(batch)
        self.busy_s += self.env.now - began
        self._idle += 1
        self._at_once -= 1


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """What reads a queue for a function: each poller gathers a batch, hands it over, and waits until it is done.

    A batch goes when it is full, or when a poll ends after `window_s`. The poll that is under way then is not cut
    short: on a quiet queue it waits for its next message, or for `held_s` seconds. Lambda developer guide, "Using
    Lambda with Amazon SQS": "If you're using a batch window and your SQS queue contains very low traffic, Lambda might
    wait for up to 20 seconds before invoking your function", whatever the window. Without a window a batch is what the
    first answer holds.
    """

    env: simpy.Environment
    queue: Queue
    function: Function
    batch: int
    at_once: int
    window_s: float = 0.0
    held_s: float = LONG_POLL_S
    first: int = FIRST_POLLERS

    def run(self) -> None:
        """Begin to poll."""
        self.env.process(self._scale())

    def _scale(self) -> Waiting:
        pollers = min(self.first, self.at_once)
        for _ in range(pollers):
            self.env.process(self._poll())
        while pollers < self.at_once:
            yield self.env.timeout(1 / POLLERS_PER_S)
            if self.queue.behind:
                pollers += 1
                self.env.process(self._poll())

    def _poll(self) -> Waiting:
        while True:
            batch = yield from self._gather()
            if batch:
                yield from self.function.invoke(batch)
                self.queue.delete(len(batch))

    def _gather(self) -> Waiting:
        batch: list[Any] = yield from self.queue.receive(min(self.batch, RECEIVED_AT_ONCE), LONG_POLL_S)
        until = self.env.now + self.window_s
        while batch and len(batch) < self.batch and self.env.now < until:
            wait_s = max(self.held_s, until - self.env.now)
            batch += yield from self.queue.receive(min(self.batch - len(batch), RECEIVED_AT_ONCE), wait_s)
        return batch


@dataclass(frozen=True, kw_only=True)
class LocalMapping:
    """What reads a queue on the local cloud: one reader for all, which hands over all that it finds.

    It waits until the first message could be seen for `window_s`, and for one of `at_once` places. It looks every
    `look_s` (ministack's poll loop, and neve_local.bridges.whole_batches).
    """

    env: simpy.Environment
    queue: Queue
    function: Function
    batch: int
    at_once: int
    window_s: float = 0.0
    look_s: float = 0.05

    def run(self) -> None:
        """Begin to read."""
        self.env.process(self._read())

    def _read(self) -> Waiting:
        places = simpy.Resource(self.env, self.at_once)
        while True:
            place = places.request()
            yield place
            since = yield from self.queue.seen()
            yield self.env.timeout(max(0.0, since + self.window_s - self.env.now) + self.look_s)
            self.env.process(self._hand_over(self.queue.take(self.batch), places, place))

    def _hand_over(self, batch: list[Any], places: simpy.Resource, place: Any) -> Waiting:
        yield from self.function.invoke(batch)
        places.release(place)

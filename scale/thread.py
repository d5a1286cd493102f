"""A discrete-event simulation of the archive thread: from uploads that come by chance until their archives stand.

It follows the code step by step: neve.flows.collect for how several Collects at once open, raise and fill bundles, the
mappings of stacks/archive.py for how events become batches, WriteArchive for how long an archive takes. Files are of
one size; nothing fails and nothing comes twice. Requests are counted where they are made, and priced by
neve.domain.cost as the bench's ledgers are.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import simpy

from neve.domain.cost import COLLECT_GB, PART_ITEM_BYTES, REFERENCE_BYTES, WRITE_GB, archive_put, unseen
from neve.domain.metering import read_units, write_units
from neve.domain.prices import MILLION, Bill, Charge, PriceList, Use
from neve.domain.tally import Tally
from scale.queues import FIRST_POLLERS, LONG_POLL_S, Function, LocalMapping, Mapping, Queue, Waiting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a lane is set; the defaults are those of the stacks. Without a window, a batch is of 10 events at most."""

    target_bytes: int = 25 * 1024 * 1024
    max_members: int = 2_000
    max_age_s: float = 20
    window_s: float = 3
    collect_batch: int = 1_000
    collect_concurrency: int = 10
    write_concurrency: int = 20


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long things take, in seconds; scale.figures says where they come from.

    S3's events come after `delivery_s` (median), and in 1 of 100 cases after `late_s` or more. `answer_s` is a poll's
    way, `request_s` one of Collect's requests, `start_s` the start of an environment. `held_s`: see Mapping. On the
    local cloud (`local`) all writers share one machine, and a LocalMapping reads the queues.
    """

    delivery_s: float
    late_s: float
    answer_s: float
    request_s: float
    start_s: float
    collect_s: float
    collect_event_s: float
    write_s: float
    write_member_s: float
    write_bytes_per_s: float
    held_s: float = LONG_POLL_S
    first_pollers: int = FIRST_POLLERS
    local: bool = False


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """`files` of `file_bytes` that are uploaded by chance, at `files_per_s` on average.

    Latencies leave out those of the last `tail_s`, which wait in a queue that has fallen quiet.
    """

    files: int
    files_per_s: float
    file_bytes: int = 100_000
    tail_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class History:
    """A backfill beside the uploads: `files` of the same size announced at `files_per_s`, `announced` in each message.

    With `settings` it has a lane of its own; without, it shares the queues and functions of the uploads.
    """

    files: int
    files_per_s: float
    announced: int = 1_000
    settings: Settings | None = None


HISTORY = -1.0
"""Stands for the time of upload of files that had been there before."""

_TURN_S = 0.05
_LATE = 2.326
"""So many standard deviations above the median of a normal distribution lies 1 of 100."""


@dataclass(eq=False)
class _Bundle:
    """An open or sealed bundle: when each of its files was uploaded."""

    files: list[float] = field(default_factory=list)
    open: bool = True
    written: bool = False


@dataclass(frozen=True, kw_only=True)
class Archive:
    """When each of its files was uploaded, and when the archive stood."""

    uploaded: tuple[float, ...]
    at: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the lane of the uploads came to, until all of them were archived.

    `ledger` counts what was asked and took, `batches` the messages that each Collect was handed.
    """

    arrivals: Arrivals
    archives: tuple[Archive, ...]
    batches: tuple[int, ...]
    ledger: Counter[str]
    collects_at_once: int
    writes_at_once: int

    @cached_property
    def latencies(self) -> list[float]:
        """Seconds from each upload until its archive stood, lowest first."""
        until = max(uploaded for archive in self.archives for uploaded in archive.uploaded) - self.arrivals.tail_s
        return sorted(
            archive.at - uploaded
            for archive in self.archives
            for uploaded in archive.uploaded
            if 0 <= uploaded <= until
        )

    def latency(self, share: float) -> float:
        """The least that so large a share of the files does not exceed, in seconds."""
        return self.latencies[max(0, math.ceil(share * len(self.latencies)) - 1)]

    @property
    def members(self) -> float:
        """Files in an archive, on average."""
        return sum(len(archive.uploaded) for archive in self.archives) / len(self.archives)

    @property
    def batch(self) -> float:
        """Messages in a batch, on average."""
        return sum(self.batches) / len(self.batches)


class _Lane:
    """A lane's queues and functions, and what these do: as neve.flows.collect, and as long as WriteArchive takes."""

    def __init__(
        self, env: simpy.Environment, settings: Settings, times: Times, file_bytes: int, chance: random.Random
    ) -> None:
        self.env, self.settings, self.times, self.file_bytes = env, settings, times, file_bytes
        self.ledger: Counter[str] = Counter()
        self.archives: list[Archive] = []
        self.left = 0
        self.done = env.event()
        self.events = Queue(env, chance, answer_s=times.answer_s)
        self.bundles = Queue(env, chance, answer_s=times.answer_s)
        self.collect = Function(env, self._collect, times.start_s)
        self.write = Function(env, self._write, times.start_s)
        self._open_bundle: _Bundle | None = None
        self._machine = simpy.Resource(env)

    def begin(self, messages: Sequence[tuple[float, Sequence[float]]]) -> None:
        """Put the messages, each with the time from which it can be seen, and begin to poll."""
        self.events.fill(messages)
        self.left = sum(uploaded >= 0 for _, files in messages for uploaded in files)
        settings = self.settings
        batch = settings.collect_batch if settings.window_s else min(10, settings.collect_batch)
        if self.times.local:
            LocalMapping(
                env=self.env,
                queue=self.events,
                function=self.collect,
                batch=batch,
                at_once=settings.collect_concurrency,
                window_s=settings.window_s,
            ).run()
            LocalMapping(
                env=self.env, queue=self.bundles, function=self.write, batch=1, at_once=settings.write_concurrency
            ).run()
            return
        Mapping(
            env=self.env,
            queue=self.events,
            function=self.collect,
            batch=batch,
            at_once=settings.collect_concurrency,
            window_s=settings.window_s,
            held_s=self.times.held_s,
            first=self.times.first_pollers,
        ).run()
        Mapping(
            env=self.env,
            queue=self.bundles,
            function=self.write,
            batch=1,
            at_once=settings.write_concurrency,
            first=self.times.first_pollers,
        ).run()

    # -- Collect ------------------------------------------------------------------------------------------------------

    @cached_property
    def _places(self) -> int:
        """Files in a full bundle: the one that fills it still goes in."""
        return min(math.ceil(self.settings.target_bytes / self.file_bytes), self.settings.max_members)

    def _collect(self, batch: Sequence[Sequence[float]]) -> Waiting:
        left = [uploaded for files in batch for uploaded in files]
        yield self.env.timeout(self.times.collect_s + len(left) * self.times.collect_event_s)
        while left:
            if len(left) >= self._places:
                taken = left[: self._places]
                yield from self._write_item(_part_bytes(len(taken)))
                yield from self._write_item(entries=2)  # the row, and its entry in the index of unfinished ones
                yield from self._ask_for(_Bundle(taken, open=False), 0)
            else:
                taken = yield from self._add(left)
            left = left[len(taken) :]

    def _add(self, left: list[float]) -> Waiting:
        """Into the open bundle, what it has room for; none if it was filled or sealed meanwhile."""
        bundle = yield from self._opened(min(left))
        taken = left[: self._places - len(bundle.files)]
        yield from self._write_item(_part_bytes(len(taken)))
        yield from self._write_item()
        grown = len(bundle.files) + len(taken)
        fits = grown * self.file_bytes <= 2 * self.settings.target_bytes and grown <= self.settings.max_members
        if not bundle.open or len(bundle.files) >= self._places or not fits:
            yield from self._write_item(_part_bytes(len(taken)))  # the part is deleted
            return []
        bundle.files += taken
        if len(bundle.files) >= self._places:
            yield from self._ask_for(bundle, 0)
        return taken

    def _opened(self, announced: float) -> Waiting:
        """The bundle that the lane names, or a new one; who loses the lane makes its own void, and looks again.

        Its timer counts from when the first of the files was `announced`, but for half of the age at least.
        """
        while True:
            yield from self._read_item()
            previous = self._open_bundle
            if previous is not None:
                yield from self._read_item()
                if previous.open and len(previous.files) < self._places:
                    return previous
            opened = _Bundle()
            age_s = self.settings.max_age_s
            yield from self._ask_for(opened, max(age_s / 2, age_s - max(0.0, self.env.now - announced)))
            yield from self._write_item(entries=2)
            yield from self._write_item()
            if self._open_bundle is previous:
                self._open_bundle = opened
                return opened
            opened.open = False
            yield from self._write_item(entries=2)

    # -- WriteArchive -------------------------------------------------------------------------------------------------

    def _write(self, batch: Sequence[_Bundle]) -> Waiting:
        (bundle,) = batch
        yield from self._write_item()  # the claim, or its refusal
        if bundle.written or not bundle.files:
            bundle.open = False
            yield from self._read_item()
            return
        bundle.open, bundle.written = False, True
        count = len(bundle.files)
        self.ledger["dynamodb read units"] += round(read_units(count * REFERENCE_BYTES))
        self.ledger["dynamodb eventual reads"] += count
        self.ledger["s3:GetObject"] += count
        self.ledger["s3:PutObject"] += 2
        # Serial and bundle; the archive's row twice; the bundle and its entry in the index; and a row for each file.
        self.ledger["dynamodb write units"] += 2 + 2 + 2 + count
        yield self.env.timeout(self.times.write_s)
        each_s = self.times.write_member_s + 2 * self.file_bytes / self.times.write_bytes_per_s
        yield from self._work(count * each_s)
        self.archives.append(Archive(uploaded=tuple(bundle.files), at=self.env.now))
        self.left -= sum(uploaded >= 0 for uploaded in bundle.files)
        if not self.left and not self.done.triggered:
            self.done.succeed()

    def _work(self, work_s: float) -> Waiting:
        """On a machine that all share the writers take turns."""
        if not self.times.local:
            yield self.env.timeout(work_s)
            return
        while work_s > 0:
            with self._machine.request() as turn:
                yield turn
                yield self.env.timeout(min(work_s, _TURN_S))
            work_s -= _TURN_S

    # -- What is asked ------------------------------------------------------------------------------------------------

    def _ask_for(self, bundle: _Bundle, delay_s: float) -> Waiting:
        self.ledger["sqs:SendMessage"] += 1
        yield self.env.timeout(self.times.request_s)
        self.bundles.send(bundle, delay_s=delay_s)

    def _write_item(self, size_bytes: int = 1, entries: int = 1) -> Waiting:
        self.ledger["dynamodb write units"] += entries * write_units(size_bytes)
        yield self.env.timeout(self.times.request_s)

    def _read_item(self) -> Waiting:
        self.ledger["dynamodb read units"] += 1
        yield self.env.timeout(self.times.request_s)


def _part_bytes(references: int) -> int:
    return references * REFERENCE_BYTES + PART_ITEM_BYTES


def _uploads(arrivals: Arrivals, times: Times, chance: random.Random) -> Iterator[tuple[float, Sequence[float]]]:
    """Each event, with the time from which it is in the queue: when its file was uploaded."""
    spread = math.log(times.late_s / times.delivery_s) / _LATE
    gaps = (chance.expovariate(arrivals.files_per_s) for _ in range(arrivals.files))
    for uploaded in itertools.accumulate(gaps):
        yield uploaded + times.delivery_s * math.exp(spread * chance.gauss(0, 1)), [uploaded]


def _announced(history: History) -> Iterator[tuple[float, Sequence[float]]]:
    """The messages of a backfill, at its pace."""
    for first in range(0, history.files, history.announced):
        count = min(history.announced, history.files - first)
        yield first / history.files_per_s, [HISTORY] * count


def simulate(
    arrivals: Arrivals, settings: Settings, times: Times, *, history: History | None = None, seed: int = 1
) -> Outcome:
    """Have so many files go through the thread, until all of them are archived. The same seed gives the same run."""
    env = simpy.Environment()
    chance = random.Random(seed)
    live = _Lane(env, settings, times, arrivals.file_bytes, chance)
    messages = list(_uploads(arrivals, times, chance))
    if history is not None and history.settings is not None:
        _Lane(env, history.settings, times, arrivals.file_bytes, chance).begin(list(_announced(history)))
    elif history is not None:
        messages += _announced(history)
    live.begin(messages)
    env.run(live.done)
    live.ledger["sqs polls of events"] = live.events.requests
    live.ledger["collect ms"] = round(live.collect.busy_s * 1000)
    live.ledger["write ms"] = round(live.write.busy_s * 1000)
    live.ledger["invocations"] = live.collect.invocations + live.write.invocations
    return Outcome(
        arrivals=arrivals,
        archives=tuple(live.archives),
        batches=tuple(live.collect.batches),
        ledger=live.ledger,
        collects_at_once=live.collect.most_at_once,
        writes_at_once=live.write.most_at_once,
    )


# -- What it costs ----------------------------------------------------------------------------------------------------


def uses(outcome: Outcome, storage_class: str = "GLACIER") -> list[Use]:
    """What the run asked for and took, as neve.domain.cost says of the ledgers of a bench; no polls of an idle queue.

    The polls of the events are counted one by one: an answer holds what is there, and that is one message as long as
    pollers wait for messages rather than messages for pollers.
    """
    ledger = outcome.ledger
    archives = len(outcome.archives)
    found = Tally(
        counted={
            Charge.SQS_REQUEST: ledger["sqs:SendMessage"],
            Charge.S3_GET: ledger["s3:GetObject"],
            archive_put(storage_class): archives,
            Charge.S3_PUT: ledger["s3:PutObject"] - archives,
            Charge.DYNAMODB_WRITE_UNIT: ledger["dynamodb write units"],
            Charge.DYNAMODB_READ_UNIT: ledger["dynamodb read units"] + ledger["dynamodb eventual reads"] / 2,
        }
    ).uses()
    polls = Use(
        purpose="receiving and deleting events",
        charge=Charge.SQS_REQUEST,
        quantity=ledger["sqs polls of events"],
        rule="as simulated",
        unseen=True,
    )
    hidden = unseen(
        events=outcome.arrivals.files,
        batch_files=outcome.batch,
        requests_to_write=ledger["sqs:SendMessage"],
        invocations=ledger["invocations"],
        gb_seconds=(ledger["collect ms"] * COLLECT_GB + ledger["write ms"] * WRITE_GB) / 1000,
        gb_seconds_rule="as simulated",
    )
    return [*found, *(use for use in hidden if use.purpose != polls.purpose), polls]


def usd_per_million(outcome: Outcome, prices: PriceList, storage_class: str = "GLACIER") -> float:
    """What a million files come to at what this run took; of a run without a History."""
    bill = Bill(prices=prices, uses=tuple(uses(outcome, storage_class)))
    return bill.usd * MILLION / outcome.arrivals.files

"""The drill thread over the ports in memory, beside the restore thread that it rides on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from neve.domain.digest import Digest
from neve.domain.drill import Drill, JobEnded, Start, parse_drill, render_start
from neve.domain.restore import bucket_of
from neve.errors import NeveError, SourceGone
from neve.flows.drill import Drilled, Driller
from tests.memory import CONTENT
from tests.memory_audits import MemorySources
from tests.memory_s3 import MemoryDestination, MemoryTopic
from tests.restore_cloud import HOUR, MINUTE, SWEEP, RestoreCloud, Stored

DRILLS = "drill-bucket"
DRILL = "20260901T120000-0a1b2c"


@dataclass
class MemoryDrills:
    """Drills by id."""

    rows: dict[str, Drill] = field(default_factory=dict)
    since: datetime | None = None

    def create(self, drill: Drill) -> Drill:
        return self.rows.setdefault(drill.id, replace(drill, revision=1))

    def get(self, drill_id: str) -> Drill | None:
        return self.rows.get(drill_id)

    def swap(self, seen: Drill, to: Drill) -> Drill | None:
        if self.rows[seen.id].revision != seen.revision:
            return None
        self.rows[seen.id] = replace(to, revision=seen.revision + 1)
        return self.rows[seen.id]

    def all(self, *, newest_first: bool = True) -> Iterator[Drill]:
        return iter([self.rows[drill_id] for drill_id in sorted(self.rows, reverse=newest_first)])

    def due(self, now: datetime) -> Iterator[Drill]:
        return iter([drill for drill in self.rows.values() if drill.due_at and drill.due_at < now])

    def watched_since(self, now: datetime) -> datetime:
        self.since = self.since or now
        return self.since


@dataclass
class MemoryDrillCopies:
    """What stands at the destinations. `failures` are raised by the next looks at a place, one each."""

    destination: MemoryDestination
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    stated: dict[str, Digest] = field(default_factory=dict)
    cleared: list[tuple[str, str]] = field(default_factory=list)

    def describe(self, place: str) -> Digest | None:
        if self.failures.get(place):
            raise self.failures[place].pop(0)
        standing = self.destination.current(place)
        return self.stated.get(place) or Digest(size_bytes=len(standing.body)) if standing else None

    def stream(self, place: str) -> Iterator[bytes]:
        standing = self.destination.current(place)
        if standing is None:
            raise SourceGone(place)
        yield standing.body

    def clear(self, bucket: str, folder: str) -> int:
        places = [place for place in self.destination.objects if place.startswith(f"s3://{bucket}/{folder}")]
        for place in places:
            del self.destination.objects[place]
        self.cleared.append((bucket, folder))
        return len(places)


@dataclass
class DrillCloud:
    """Drill beside the restore thread. `watch` is put around every port; with `words_lost` no job's end is told.

    The sources of all archived files stand in the content bucket. A message that ends in one of `deaths` comes again,
    as one that fails does. An invocation `lasts` so long.
    """

    stored: Sequence[Stored]
    watch: Callable[[Any], Any] = lambda port: port
    deaths: tuple[type[BaseException], ...] = ()
    seed: int = 7
    words_lost: bool = False
    lasts: timedelta = 5 * MINUTE
    inbox: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restore = RestoreCloud(
            self.stored,
            watch=self.watch,
            buckets=frozenset({CONTENT, DRILLS}),
        )
        self.drills = self.watch(MemoryDrills())
        self.copies = self.watch(MemoryDrillCopies(self.restore.destination))
        self.content = self.restore.store.content
        self.sources = self.watch(MemorySources(self.content))
        self.alerts = self.watch(MemoryTopic())
        self.rng = random.Random(self.seed)
        for each in self.stored:
            for member in each.manifest.members:
                source, offset = member.source, member.offset_bytes
                self.content.objects[source.identity] = (source, each.body[offset : offset + source.size_bytes])

    @property
    def driller(self) -> Driller:
        return Driller(
            archives=self.watch(self.restore.archives),
            store=self.watch(self.restore.store),
            files=self.restore.files,
            restores=self.restore.restores,
            drills=self.drills,
            sources=self.sources,
            copies=self.copies,
            requests_queue=self.restore.requests_queue,
            alerts=self.alerts,
            buckets=(DRILLS, CONTENT),
            rng=self.rng,
            clock=lambda: self.restore.now,
        )

    def start(self, files: int = 3, drill_id: str = DRILL) -> None:
        self.inbox.append(render_start(Start(drill=drill_id, files=files)))
        self.deliver()

    def hear(self, body: str) -> Drilled:
        """Drill is handed a message. Raises as it does; the message is not put back."""
        until = self.restore.now + self.lasts
        match parse_drill(body):
            case Start() as start:
                return self.driller.start(start.drill, start.files)
            case JobEnded(job=job):
                return self.driller.ended(job, until=until)
            case _:
                return self.driller.sweep(until=until)

    def sweep(self) -> Drilled:
        return self.hear('{"message": "sweep"}')

    def deliver(self) -> None:
        """Hand over what waits for Drill; what fails comes again with the next delivery."""
        waiting, self.inbox = self.inbox, []
        for body in waiting:
            try:
                self.hear(body)
            except BaseException as error:
                if not isinstance(error, (NeveError, *self.deaths)):
                    raise
                self.inbox.append(body)

    def run(self, time: timedelta = 6 * HOUR) -> None:
        """Let `time` pass: restores go on, their ends are told, the sweeps come by."""
        end = self.restore.now + time
        self.restore.deliver()
        while self.restore.now < end:
            self.restore.wait(SWEEP)
            self.restore.deliver()
            words, self.restore.topic.published[:] = list(self.restore.topic.published), []
            self.inbox += [] if self.words_lost else words
            self.inbox.append('{"message": "sweep"}')
            self.deliver()

    @property
    def drill(self) -> Drill:
        [drill] = self.drills.rows.values()
        assert isinstance(drill, Drill)
        return drill

    @property
    def mails(self) -> list[tuple[str, str]]:
        """Subjects and texts."""
        return list(zip(self.alerts.subjects, self.alerts.published, strict=True))

    @property
    def test_objects(self) -> list[str]:
        return [place for place in self.restore.destination.objects if bucket_of(place) in {DRILLS, CONTENT}]

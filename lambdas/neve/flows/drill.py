"""Drill: draw files, have them restored, compare what came, tell people, clean up.

Each step is recorded after it was done, on the condition that the drill is as it was read, and with each record goes
when the sweep is to look at it next. So whatever breaks off, the sweep goes on from the last record: requests that were
not sent are sent again (PlanRestore counts a chunk once), a job whose word was lost is asked for itself, files that
were not compared are read again, people are told, copies are deleted. Only a crash between telling and recording it
has people told twice.

Two that compare one drill at a time find the same; the one whose record is refused stops, and tells nobody.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from neve.domain.bundle import version_of
from neve.domain.digest import Digest, hashed, stated
from neve.domain.drill import (
    SLOTS_PER_FILE,
    SOURCE,
    Comparison,
    Drawn,
    Drill,
    DrillState,
    Outcome,
    compare,
    draw,
    not_restored,
    requests,
    told,
    told_late,
)
from neve.domain.index import ArchiveRow
from neve.domain.manifest import Manifest
from neve.domain.restore import Job, JobState, Result, render_request
from neve.domain.version import NULL_VERSION
from neve.errors import ManifestInvalid, SourceChanged, SourceGone, SourceUnavailable, Transient
from neve.ports import Archives, ArchiveStore, DrillCopies, Drills, Files, Queue, Restores, Sources, Topic

PATIENCE = timedelta(minutes=15)
"""How soon the sweep goes on with what somebody has just begun; no invocation takes longer."""
TRIED_FOR = timedelta(hours=1)
"""What cannot be read is tried again until the drill's deadline, and for so long after a restore that ended late."""
MARGIN = timedelta(seconds=30)
"""What it takes to read a file's copies and its source; another file is begun only if so much time is left."""
READ_BYTES = 256 * 1024**2
"""Larger files are not read: what S3 states of them is compared. It has computed that over the bytes itself."""
READS = 2
"""What differs is read once more: it may have been the transfer."""


@dataclass(frozen=True, kw_only=True)
class Drilled:
    """What was done: drills `drawn`, requests `sent`, `files` of drills that were `compared` to their end, of which so
    many drills `failed`; people told that one is `late`, or how it was (`told`); drills `cleaned`; files left `unread`
    for now.
    """

    drawn: int = 0
    sent: int = 0
    files: int = 0
    compared: int = 0
    failed: int = 0
    unread: int = 0
    late: int = 0
    told: int = 0
    cleaned: int = 0

    def __add__(self, other: Drilled) -> Drilled:
        return Drilled(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Driller:
    """Drill's rules over its ports. `buckets` are where every file goes; `rng` draws."""

    archives: Archives
    store: ArchiveStore
    files: Files
    restores: Restores
    drills: Drills
    sources: Sources
    copies: DrillCopies
    requests_queue: Queue
    alerts: Topic
    buckets: tuple[str, ...]
    rng: random.Random
    clock: Callable[[], datetime]

    def start(self, drill_id: str, files: int) -> Drilled:
        """Begin a drill of so many files; one that was begun before goes on as it was drawn."""
        drill = self.drills.get(drill_id)
        drawn = drill is None
        if drill is None:
            drill = self.drills.create(self._drawn(drill_id, files))
        done = Drilled(drawn=int(drawn))
        if drill.state is DrillState.RUNNING:
            return done + self._ask(drill)
        if drill.state is DrillState.COMPARED and not drill.files:
            return done + self._counted(drill) + self._tell(drill)
        return done

    def ended(self, job_id: str, *, until: datetime) -> Drilled:
        """A restore has ended: if it is a drill's, compare, as far as that is done before `until`."""
        drill = self.drills.get(job_id)
        job = self.restores.job(job_id) if drill else None
        if drill is None or job is None or drill.state is not DrillState.RUNNING:
            return Drilled()
        return self._compare(drill, job, until)

    def sweep(self, *, until: datetime) -> Drilled:
        """Go on with every drill that is due. One that fails holds back none of the others."""
        total = Drilled()
        failed: Exception | None = None
        for drill in self.drills.due(self.clock()):
            try:
                total += self._go_on(drill, until)
            except Exception as error:  # noqa: BLE001  # raised below
                failed = failed or error
        if failed is not None:
            raise failed
        return total

    def idle(self) -> timedelta:
        """How long ago a drill was compared to its end, or drills were first looked after if none ever was."""
        now = self.clock()
        latest = next((drill.compared_at for drill in self.drills.all() if drill.compared_at), None)
        return now - (latest or self.drills.watched_since(now))

    def _go_on(self, drill: Drill, until: datetime) -> Drilled:
        match drill.state:
            case DrillState.RUNNING:
                job = self.restores.job(drill.id)
                done = self._compare(drill, job, until) if job else Drilled()
                return done + self._wait(self.drills.get(drill.id) or drill, job)
            case DrillState.COMPARED:
                return self._tell(drill)
            case _:
                return self._clean(drill)

    # -- Drawing and asking

    def _drawn(self, drill_id: str, wanted: int) -> Drill:
        """A draw, uniform over the rows of `files` whose version is a member of the archive that they name.

        Slots are taken in their order. One that was met before, or whose version has its row in another archive, is
        passed over: what is left is a uniform sample without repetition. What was restored into the content bucket has
        a row that names a member of another version, and is never drawn. One whose manifest cannot be read counts: it
        is a file that could not be restored, though nobody can say which.

        All rows of archives are read once: a minute and $0.006 for a million archives.
        """
        now = self.clock()
        picked = draw(_sizes(self.archives.all()), wanted * SLOTS_PER_FILE, self.rng)
        manifests: dict[int, Manifest | str] = {}
        files: list[Drawn] = []
        nameless: list[str] = []
        for serial, number in dict.fromkeys(picked.picks):
            if len(files) + len(nameless) == wanted:
                break
            if serial not in manifests:
                manifests[serial] = self._manifest(serial)
            manifest = manifests[serial]
            if isinstance(manifest, str) or number >= len(manifest.members):
                problem = manifest if isinstance(manifest, str) else f"its manifest has {len(manifest.members)} members"
                nameless.append(f"file {serial}.{number}: {problem}")
                continue
            file = self._file(manifest, number)
            if file is not None:
                files.append(file)
        return Drill(
            id=drill_id,
            started_at=now,
            buckets=self.buckets,
            files=tuple(files),
            collection=picked.files,
            nameless=tuple(nameless),
            state=DrillState.RUNNING if files else DrillState.COMPARED,
            compared_at=None if files else now,
            due_at=now + PATIENCE,
        )

    def _manifest(self, serial: int) -> Manifest | str:
        """The manifest; what is wrong if there is none."""
        try:
            return self.store.manifest(serial) or "its archive's manifest is gone"
        except ManifestInvalid:
            return "its archive's manifest is invalid"

    def _file(self, manifest: Manifest, number: int) -> Drawn | None:
        """The member as the index states it; None if its version has no row, or one that names another archive."""
        source = manifest.members[number].source
        row = self.files.get([source.identity]).get(source.identity)
        if row is None or (row.archive, row.number) != (manifest.archive, number):
            return None
        return Drawn(
            version=version_of(source),
            archive=row.archive,
            number=row.number,
            digest=Digest(
                size_bytes=row.size_bytes, sha256=row.sha256, md5=row.md5, crc64nvme=stated(source).crc64nvme
            ),
        )

    def _ask(self, drill: Drill) -> Drilled:
        """Send the requests of the drill's job, perhaps again."""
        asked = requests(drill)
        for request in asked:
            self.requests_queue.send(render_request(request))
        return Drilled(sent=len(asked))

    def _wait(self, drill: Drill, job: Job | None) -> Drilled:
        """See to a drill that was not compared to its end: its requests may be lost, it may be late."""
        if drill.state is not DrillState.RUNNING:
            return Drilled()
        done = Drilled()
        if job is None or not (job.planned or job.given_up_at):
            done += self._ask(drill)
        now = self.clock()
        late = drill.late_told_at is None and now >= drill.deadline
        if late:
            subject, text = told_late(drill, job.ended_files if job else 0)
            self.alerts.publish(text, subject=subject)
        at = now if late else drill.late_told_at
        self.drills.swap(drill, replace(drill, late_told_at=at, due_at=now + PATIENCE))
        return done + Drilled(late=int(late))

    # -- Comparing

    def _compare(self, drill: Drill, job: Job, until: datetime) -> Drilled:
        """Compare what is not compared yet, if the restore has ended; then tell people, and clean up.

        What cannot be read is left to the sweep, until that has tried for long enough. Each file is recorded by itself:
        an invocation that runs out of time has brought the drill further.
        """
        if job.state is not JobState.FINISHED or job.finished_at is None:
            return Drilled()
        results = {result.item.destination: result for result in self.restores.results(drill.id)}
        given_up = self.clock() >= max(drill.deadline, job.finished_at + TRIED_FOR)
        compared = dict(drill.compared)
        unread = 0
        left = [number for number in range(1, len(drill.files) + 1) if number not in compared]
        for number in left:
            if number != left[0] and self.clock() + MARGIN > until:
                break
            file = drill.files[number - 1]
            found = [self._copy(place, file, results.get(place)) for place in drill.places(number)]
            found.append(self._source(file))
            if not given_up and any(each.outcome is Outcome.UNREAD for each in found):
                unread += 1
                continue
            compared[number] = tuple(found)
            noted = self.drills.swap(
                drill,
                replace(drill, compared=dict(compared), restored_at=job.finished_at, due_at=self.clock() + PATIENCE),
            )
            if noted is None:
                return Drilled(unread=unread)
            drill = noted
        now = self.clock()
        if len(compared) < len(drill.files):
            self.drills.swap(drill, replace(drill, restored_at=job.finished_at, due_at=now + PATIENCE))
            return Drilled(unread=unread)
        ended = self.drills.swap(drill, replace(drill, state=DrillState.COMPARED, compared_at=now))
        return Drilled() if ended is None else self._counted(ended) + self._tell(ended)

    def _copy(self, place: str, file: Drawn, result: Result | None) -> Comparison:
        wrong = not_restored(place, result)
        if wrong is not None:
            return wrong

        def look() -> Digest:
            described = self.copies.describe(place)
            if described is None:
                raise SourceGone(f"nothing stands at {place}")
            if described.size_bytes != file.digest.size_bytes or described.size_bytes > READ_BYTES:
                return described
            return replace(hashed(self.copies.stream(place)), crc64nvme=described.crc64nvme)

        return _looked(place, file, look, gone=Outcome.MISSING)

    def _source(self, file: Drawn) -> Comparison:
        """The source, if it still stands: people may delete it, and overwrite it where there are no versions."""

        def look() -> Digest:
            try:
                if file.digest.size_bytes > READ_BYTES:
                    return stated(self.sources.describe(file.version))
                return hashed(self.sources.stream(file.version))
            except SourceChanged:
                if file.version.version_id == NULL_VERSION:
                    raise SourceGone("overwritten") from None
                raise

        return _looked(SOURCE, file, look, gone=Outcome.GONE)

    # -- Afterwards

    def _counted(self, drill: Drill) -> Drilled:
        return Drilled(files=len(drill.files), compared=1, failed=int(not drill.good))

    def _tell(self, drill: Drill) -> Drilled:
        subject, text = told(drill)
        self.alerts.publish(text, subject=subject)
        after = self._next(drill, DrillState.TOLD)
        return Drilled(told=1) + (self._clean(after) if after else Drilled())

    def _clean(self, drill: Drill) -> Drilled:
        """Delete the copies. What comes later, of a job that was cut short, the buckets' lifecycle removes."""
        for bucket in drill.buckets:
            self.copies.clear(bucket, drill.folder)
        self.drills.swap(drill, replace(drill, state=DrillState.DONE, due_at=None))
        return Drilled(cleaned=1)

    def _next(self, drill: Drill, state: DrillState) -> Drill | None:
        return self.drills.swap(drill, replace(drill, state=state, due_at=self.clock() + PATIENCE))


def _looked(place: str, file: Drawn, look: Callable[[], Digest], *, gone: Outcome) -> Comparison:
    """What is found at a place, held against the index; `gone` is what it is called if nothing stands there."""
    try:
        found = compare(place, file, look())
        for _ in range(READS - 1):
            if found.outcome is Outcome.DIFFERENT:
                found = compare(place, file, look())
    except SourceGone as error:
        return Comparison(place=place, outcome=gone, detail="" if gone is Outcome.GONE else str(error))
    except SourceChanged as error:
        return Comparison(place=place, outcome=Outcome.DIFFERENT, detail=str(error))
    except (SourceUnavailable, Transient) as error:
        return Comparison(place=place, outcome=Outcome.UNREAD, detail=str(error))
    return found


def _sizes(archives: Iterable[ArchiveRow]) -> Iterator[tuple[int, int]]:
    """Serial and number of files of each archive that no other stands for."""
    return ((row.serial, row.files) for row in archives if not row.superseded_by)

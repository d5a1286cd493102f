"""The audit thread over the ports in memory: what StartAudit, VerifyAudit, the writers of repairs and S3 do, one at a
time, beside the archive thread that made the archives and the restore thread that shares their thaws.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

from neve.domain.audit import (
    DRAW,
    SWEEP,
    AuditRequest,
    Report,
    Run,
    RunRequest,
    parse_start,
    render_run_request,
    run_id,
)
from neve.domain.bundle import Limits, requested_bundle
from neve.domain.events import parse
from neve.domain.index import ArchiveRow
from neve.domain.manifest import Manifest, Member, single
from neve.domain.restore import parse_thawed
from neve.domain.sampling import Budget
from neve.domain.thaw import Tier
from neve.domain.verdict import Verdict
from neve.domain.version import ObjectVersion, padded_sequencer
from neve.errors import EventInvalid, NeveError
from neve.flows.audit_runs import RunEnder
from neve.flows.repair import Repairer
from neve.flows.start_audit import AuditStarter
from neve.flows.thaw import Thawer
from neve.flows.verify_audit import AuditVerifier
from neve.flows.witness import Crc, Witness
from tests.memory import CONTENT, MemoryCloud, MemoryQueue
from tests.memory_audits import MemoryAudits, MemorySources
from tests.memory_s3 import ARCHIVE, MemoryReader, MemoryTopic
from tests.restore_cloud import DAY, HOUR, MINUTE, RestoreCloud, Stored, object_of
from tests.restore_cloud import SWEEP as SWEEPS_EVERY

RECEIVED_AT_MOST = 10
"""SQS: so often a message is received before its dead-letter queue has it."""
GENEROUS = Budget(percent=10_000, usd=1_000_000)
PIECE_BYTES = 1_000


def crc(piece: bytes, so_far: int = 0) -> int:
    """Stands for CRC64NVME: a checksum that can be continued."""
    for byte in piece:
        so_far = (so_far * 1_000_003 + byte + 1) % 2**64
    return so_far


@dataclass
class _FailingReader:
    reader: MemoryReader
    failures: list[Exception]

    def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
        return self.reader.read(archive, first, last)

    def stream(self, archive: ArchiveRow, *, first: int = 0) -> Iterator[bytes]:
        pieces = self.reader.stream(archive, first=first)
        yield from islice(pieces, 1)
        if self.failures:
            raise self.failures.pop(0)
        yield from pieces


@dataclass
class AuditCloud(RestoreCloud):
    """A RestoreCloud with audits. S3's events reach both threads. Messages that fail come back until S3 forgets them.

    Archives are made by the archive thread's own flows: `upload`, then `archived`. Each of `unreadable` is raised once,
    where an audit has read the beginning of an archive.
    """

    horizon_days: int = 0
    budget: Budget = GENEROUS
    tier: Tier = Tier.BULK
    read: bool = True
    automatic: bool = False
    seed: int = 1
    target_bytes: int = 20_000
    lived_until: Callable[[datetime], datetime] = lambda now: now + 15 * MINUTE
    unreadable: list[Exception] = field(default_factory=list)
    delayed: list[tuple[datetime, Any, str]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    _drawn: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.content = self.store.content
        self.records = MemoryAudits()
        self.audits = self.watch(self.records)
        self.sources = self.watch(MemorySources(content=self.content, piece_bytes=PIECE_BYTES))
        self.audits_queue = self.watch(MemoryQueue())
        self.verify_queue = self.watch(MemoryQueue())
        self.mails = MemoryTopic()
        self.alerts = self.watch(self.mails)
        self.rng = Random(self.seed)
        self.thread = MemoryCloud(
            limits=Limits(target_bytes=self.target_bytes, max_members=2_000, max_age_s=20),
            archives=self.archives,
            bundles=self.archives.bundles,
            files=self.files,
            content=self.content,
            store=self.store,
            reader=self.reader,
            parking_lot=self.parking_lot,
        )
        self.bundles = self.watch(self.thread.bundles)
        self.bundles_queue = self.watch(self.thread.bundles_queue)
        self.large_queue = self.watch(self.thread.large_queue)

    # What runs, as the functions are composed.

    @property
    def audit_thawer(self) -> Thawer:
        return Thawer(
            thaws=self.thaws,
            glacier=self.glacier,
            extract_queue=self.verify_queue,
            pace=lambda: None,
            cap_micro_usd=0,
            clock=lambda: self.now,
            counted=False,
        )

    @property
    def run_ender(self) -> RunEnder:
        return RunEnder(audits=self.audits, alerts=self.alerts, clock=lambda: self.now)

    @property
    def crc(self) -> Crc:
        return Crc(advance=crc, text=stated_crc, clock=lambda: self.now)

    @property
    def starter(self) -> AuditStarter:
        return AuditStarter(
            archives=self.watch(self.archives),
            store=self.watch(self.store),
            audits=self.audits,
            witness=Witness(sources=self.sources, read=self.read, threads=1),
            crc=self.crc,
            thawer=self.audit_thawer,
            audits_queue=self.audits_queue,
            verify_queue=self.verify_queue,
            ender=self.run_ender,
            tier=self.tier,
            horizon_days=self.horizon_days,
            budget=self.budget,
            rng=self.rng,
            clock=lambda: self.now,
        )

    @property
    def verifier(self) -> AuditVerifier:
        return AuditVerifier(
            archives=self.watch(self.archives),
            store=self.watch(self.store),
            files=self.files,
            audits=self.audits,
            witness=Witness(sources=self.sources, read=True, threads=1),
            crc=self.crc,
            reader=self.watch(_FailingReader(self.reader, self.unreadable)),
            thaws=self.thaws,
            thawer=self.audit_thawer,
            repairer=Repairer(bundles=self.bundles, bundles_queue=self.bundles_queue, large_queue=self.large_queue),
            requests_queue=self.requests_queue,
            audits_queue=self.audits_queue,
            ender=self.run_ender,
            automatic=self.automatic,
            clock=lambda: self.now,
        )

    # What is archived.

    def upload(self, key: str, body: bytes, version_id: str = "v1", **stated: Any) -> ObjectVersion:
        """A version in the content bucket. An unversioned one, `null`, takes the place of the one before."""
        version = ObjectVersion(
            key=key,
            version_id=version_id,
            size_bytes=len(body),
            etag=hashlib.md5(body).hexdigest(),
            sequencer=padded_sequencer("1"),
            event_at=self.now.replace(microsecond=0),
        )
        if version_id == "null":
            for identity in [each for each in self.content.objects if each[0] == key and each[1].startswith("null-")]:
                del self.content.objects[identity]
        self.content.put(version, body, **stated)
        return version

    def archived(self, *versions: ObjectVersion) -> None:
        """Have the archive thread archive these versions."""
        self.thread.now = self.now
        self.thread.collect(versions)
        while self.thread.bundles_queue.sent or self.thread.large_queue.sent:
            for body in self.thread.bundles_queue.take():
                self.thread.write(requested_bundle(body))
            for body in self.thread.large_queue.take():
                self.thread.copy(requested_bundle(body))
        assert not self.thread.collect_queue.sent

    def with_files(self, bodies: Mapping[str, bytes]) -> int:
        """Upload and archive these files together; the serial of their archive."""
        self.archived(*[self.upload(key, body) for key, body in bodies.items()])
        return max(self.archives.rows)

    def with_film(self, key: str, body: bytes, *, by_crc: bool = False) -> int:
        """A large object and its archive, as CopyLarge would have made it; the archive's serial."""
        serial = max(self.archives.rows, default=0) + 1
        version = self.upload(key, body)
        stored = object_of(serial, key, body)
        if by_crc:
            source, _ = self.content.objects[version.identity]
            source = replace(source, sha256="", md5="", checksums={"CRC64NVME": stated_crc(crc(body))})
            self.content.objects[version.identity] = (source, body)
        else:
            source = replace(self.content.objects[version.identity][0], md5="")
        key_of_object = stored.row.object_key
        manifest = single(archive=serial, bucket=CONTENT, object_key=key_of_object, source=source)
        self.archive(Stored(row=replace(stored.row, sha256=source.sha256), manifest=manifest, body=body))
        return serial

    def manifest(self, serial: int = 1) -> Manifest:
        return self.store.manifests[serial]

    def member(self, key: str, serial: int = 1) -> Member:
        [member] = [each for each in self.manifest(serial).members if each.source.key == key]
        return member

    # What goes wrong.

    def flip(self, serial: int, at: int, bits: int = 1) -> None:
        """Damage one byte of an archive's object."""
        key = self.archives.rows[serial].object_key
        self.store.objects[key] = flipped(self.store.objects[key], at, bits)

    def flip_member(self, key: str, serial: int = 1, at: int = 0) -> None:
        self.flip(serial, self.member(key, serial).offset_bytes + at)

    def flip_source(self, key: str, pin: str = "v1") -> None:
        """Damage the bytes of a version in the content bucket, of which S3 goes on stating what it stated."""
        source, body = self.content.objects[key, pin]
        self.content.objects[key, pin] = (source, flipped(body, len(body) // 2))

    def delete(self, key: str, pin: str = "v1") -> None:
        del self.content.objects[key, pin]

    def change_manifest(self, key: str, serial: int = 1, /, **changes: Any) -> None:
        """Have the manifest state something else of a member."""
        manifest = self.manifest(serial)
        changed = [
            replace(each, source=replace(each.source, **changes)) if each.source.key == key else each
            for each in manifest.members
        ]
        self.store.manifests[serial] = replace(manifest, members=tuple(changed))

    # What comes in.

    def tick(self, unique: str = "") -> str:
        """The schedule's message that has a run drawn; the run's id."""
        self._drawn += 1
        scheduled = run_id(self.now, unique or f"{self._drawn:08x}")
        self.start(DRAW, scheduled=scheduled)
        return scheduled

    def ask(self, *archives: int, repair: bool = False) -> str:
        """A person's request to audit these archives; the run's id."""
        self._drawn += 1
        asked = run_id(self.now, f"{self._drawn:08x}")
        self.audits_queue.send(render_run_request(RunRequest(id=asked, archives=archives, repair=repair)))
        return asked

    def start(self, body: str, *, scheduled: str = "") -> None:
        """StartAudit is handed a message. Raises as it does; the message is not put back."""
        match parse_start(body, scheduled=scheduled):
            case RunRequest() as request:
                self.starter.start(request)
            case AuditRequest() as request:
                self.starter.begin(request, owner=self.owner(), until=self.lived_until(self.now))
            case _:
                self.starter.sweep()

    def verify_thawed(self, body: str) -> list[Report]:
        """VerifyAudit is handed a message. Raises as it does; the message is not put back."""
        return [
            report
            for thawed in parse_thawed(body, ARCHIVE)
            for report in self.verifier.thawed(thawed, owner=self.owner(), until=self.lived_until(self.now))
        ]

    def write(self, body: str) -> None:
        self.thread.now = self.now
        self.thread.write(requested_bundle(body), owner=self.owner())

    def copy(self, body: str) -> None:
        self.thread.now = self.now
        self.thread.copy(requested_bundle(body), owner=self.owner())

    def collect(self, body: str) -> None:
        self.thread.now = self.now
        self.thread.collect(parse(body, CONTENT).versions)

    # Time passes.

    @property
    def handlers(self) -> list[tuple[Any, Callable[[str], object]]]:
        """Each queue and who is handed what is in it."""
        return [
            (self.audits_queue, self.start),
            (self.verify_queue, self.verify_thawed),
            (self.requests_queue, self.plan),
            (self.extract_queue, self.extract),
            (self.bundles_queue, self.write),
            (self.large_queue, self.copy),
            (self.thread.collect_queue, self.collect),
        ]

    def deliver(self) -> None:
        """Hand over what waits until nothing does but what is delayed; what fails comes back, and dies in the end."""
        received: Counter[tuple[int, str]] = Counter()
        for _ in range(100):
            waiting = []
            for number, (queue, handle) in enumerate(self.handlers):
                for body, delay_s in list(queue.sent):
                    if delay_s:
                        self.delayed.append((self.now + timedelta(seconds=delay_s), queue, body))
                    else:
                        waiting.append((number, queue, handle, body))
                queue.sent.clear()
            if not waiting:
                return
            for number, queue, handle, body in waiting:
                received[number, body] += 1
                if not self._delivered_to(handle, body):
                    if received[number, body] < RECEIVED_AT_MOST:
                        queue.send(body)
                    else:
                        self.dead.append(body)
        raise AssertionError("the queues do not run dry")

    def _delivered_to(self, handle: Callable[[str], object], body: str) -> bool:
        try:
            handle(body)
        except EventInvalid as error:
            self.failures.append(error)  # it is parked
        except NeveError as error:
            self.failures.append(error)
            return False
        return True

    def wait(self, time: timedelta = SWEEPS_EVERY, *, sweep: bool = True) -> None:
        """Let time pass: delayed messages come, S3 ends thaws and tells both threads, and both sweeps come by."""
        self.now += time
        due = [each for each in self.delayed if each[0] <= self.now]
        self.delayed = [each for each in self.delayed if each[0] > self.now]
        for _, queue, body in due:
            queue.send(body)
        for serial in self.ice.running:
            self._since.setdefault(serial, self.now - time)
        if any(since + self.thaw_takes <= self.now for since in self._since.values()):
            for event in self.ice.complete():
                if not self.events_lost:
                    self.extract_queue.send(event)
                    self.verify_queue.send(event)
            self._since.clear()
        if sweep:
            self.sweep()
            self.start(SWEEP)

    def settle(self, *, within: timedelta = 9 * DAY) -> None:
        """Let everything run until all runs have ended and been told of, and nothing waits."""
        deadline = self.now + within
        self.deliver()
        while any(not run.told for run in self.runs) or self.delayed or self.restores.due_at:
            assert self.now < deadline, f"audits that hang: {list(self.records.rows.values())}"
            self.wait(HOUR)
            self.deliver()

    # What came of it.

    @property
    def runs(self) -> list[Run]:
        return list(self.records.run_rows.values())

    @property
    def unfinished_bundles(self) -> bool:
        """Whether a repair is still to be written."""
        return any(not bundle.finished for bundle in self.thread.bundles.rows.values())

    def reports(self, run: str = "") -> list[Report]:
        return list(self.records.reports(run))

    def report(self, run: str = "") -> Report:
        """The only report there is."""
        [report] = self.reports(run)
        return report

    def found(self, run: str = "") -> dict[str, Verdict]:
        """The findings of the only report, by key; "" is the archive as a whole."""
        report = self.report(run)
        by_key = {finding.key: finding.verdict for finding in report.findings}
        assert len(by_key) == report.found, "each is found once"
        return by_key

    def audit(self, serial: int = 1, *, repair: bool = False) -> dict[str, Verdict]:
        """Audit one archive by hand, to its end; what was found."""
        run = self.ask(serial, repair=repair)
        self.settle()
        return self.found(run)

    def consistent(self) -> None:
        """Every run has ended, counts what its reports say, and has been told of as often as it has to be."""
        assert not self.records.rows
        told = 0
        for run in self.runs:
            reports = self.reports(run.id)
            assert run.finished_at is not None
            assert run.told
            assert run.ended == run.audits == len(reports)
            assert dict(run.verdicts) == dict(Counter(report.verdict for report in reports))
            assert run.members == sum(sum(report.counts.values()) for report in reports)
            told += any(report.found and report.verdict is not Verdict.UNREAD for report in reports)
        assert len(self.mails.published) == told


def stated_crc(value: int) -> str:
    """As S3 would state it."""
    return base64.b64encode(value.to_bytes(8, "big")).decode()


def flipped(body: bytes, at: int, bits: int = 1) -> bytes:
    """`body` with one byte changed."""
    return body[:at] + bytes([body[at] ^ bits]) + body[at + 1 :]


def bodies_of(keys: Sequence[str], size_bytes: int = 700, *, seed: int = 1) -> dict[str, bytes]:
    """Random files."""
    rng = Random(seed)
    return {key: rng.randbytes(size_bytes) for key in keys}

"""(q) What a file costs, whether a thousand of them are archived or a million, as long as they arrive as fast.

Collect's and WriteArchive's rules over ports in memory, with a clock of their own, and a ledger of what each call to a
port asks of AWS. Files have a thousandth of their bytes, and archives of their target: requests and units stay what
they are. What no call shows is by the named rules of neve.domain.cost.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bench.report import Machine, Section, paragraphs, table
from bench.server import run_alone
from neve.aws.archives_table import _chunks
from neve.domain.bundle import Limits, requested_bundle
from neve.domain.cost import (
    COLLECT_EVENT_S,
    COLLECT_GB,
    COLLECT_S,
    LATE_TIMER_S,
    PART_ITEM_BYTES,
    REFERENCE_BYTES,
    WRITE_BYTES_PER_S,
    WRITE_GB,
    WRITE_MEMBER_S,
    WRITE_S,
    Workload,
    archive_put,
    arriving,
    unseen,
)
from neve.domain.index import FileRow
from neve.domain.manifest import Source
from neve.domain.metering import read_units, write_units
from neve.domain.outcome import Outcome
from neve.domain.prices import MILLION, US_EAST_1, Bill, Charge, Use
from neve.domain.version import ObjectVersion, padded_sequencer
from tests.memory import START, MemoryArchives, MemoryArchiveStore, MemoryBundles, MemoryCloud

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
RATES = (12.0, 1_000.0)
"""Files a second: with the first, bundles do not fill before their timers run out."""
SMALLER = 1_000
AIM = 0.1
"""By so much the cost of a file may differ."""

WRITES, READS, REQUESTS = Charge.DYNAMODB_WRITE_UNIT, Charge.DYNAMODB_READ_UNIT, Charge.SQS_REQUEST
ROW = {WRITES: 1.0}
ROW_AND_ENTRY = {WRITES: 2.0}
"""With its entry in the index of unfinished bundles."""
ROW_READ = {READS: read_units(1)}


# -- What each call asks of AWS ----------------------------------------------------------------------------------------

Charged = Callable[..., Mapping[Charge, float]]


def _part(_bundle: str, _part: str, versions: Sequence[ObjectVersion], *_: Any) -> Mapping[Charge, float]:
    return {WRITES: sum(write_units(len(chunk) + PART_ITEM_BYTES) for chunk in _chunks(versions))}


_BUNDLES: Mapping[str, Charged] = {
    "lane": lambda *_: ROW_READ,
    "get": lambda *_: ROW_READ,
    "move_lane": lambda *_, **__: ROW,
    "create": lambda *_: ROW_AND_ENTRY,
    "put_part": _part,
    "delete_part": _part,
    "grow": lambda *_, **__: ROW,
    "claim": lambda *_, **__: ROW,
    "assign_serial": lambda *_, **__: {WRITES: 2},  # the counter, the bundle
    "void": lambda *_: ROW_AND_ENTRY,
    "finish": lambda *_: ROW_AND_ENTRY,
}
_ARCHIVES: Mapping[str, Charged] = {"put": lambda *_: ROW, "finish": lambda *_, **__: ROW}
_FILES: Mapping[str, Charged] = {
    "holders": lambda versions: {READS: len(versions) * read_units(1, consistent=False)},
    "record": lambda rows: {WRITES: len(rows)},
}
_STORE: Mapping[str, Charged] = {
    "put_manifest": lambda *_: {Charge.S3_PUT: 1},
    "put": lambda *_: {archive_put(Workload().storage_class): 1},
    "manifest": lambda *_: {Charge.S3_GET: 1},
    "head": lambda *_: {Charge.S3_GET: 1},
}
_QUEUE: Mapping[str, Charged] = {"send": lambda *_, **__: {REQUESTS: 1}}


@dataclass
class Counted:
    """A port before which each call is charged; a call that has no charge named is none that this thread may make."""

    port: Any
    charges: Mapping[str, Charged]
    ledger: Counter[Charge]

    def __getattr__(self, name: str) -> Any:
        charge, call = self.charges.get(name), getattr(self.port, name)
        if charge is None and callable(call) and name != "parts":
            raise AttributeError(f"nothing says what {name} is charged for")

        def charged(*words: Any, **named: Any) -> Any:
            done = call(*words, **named)
            found = {READS: read_units(len(done) * REFERENCE_BYTES)} if charge is None else charge(*words, **named)
            for each, quantity in found.items():
                self.ledger[each] += quantity  # type: ignore[assignment]  # typeshed has counters of whole numbers only
            return done

        return charged if callable(call) else call


# -- A thread that forgets what is done --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """The content bucket: what a version has is made of its key."""

    ledger: Counter[Charge]

    def fetch(self, version: ObjectVersion) -> tuple[Source, bytes]:
        """The bytes of a version, and what S3 says of it."""
        self.ledger[Charge.S3_GET] += 1
        body = _body(version.key)
        source = Source(
            key=version.key,
            version_id=version.version_id,
            size_bytes=len(body),
            etag=version.etag,
            last_modified=version.event_at,
            sha256=hashlib.sha256(body).hexdigest(),
            md5=version.etag,
        )
        return source, body


@dataclass
class Index:
    """The table `files`: of each row the archive that it names."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)

    def holders(self, versions: Sequence[ObjectVersion]) -> Mapping[tuple[str, str], int]:
        """See neve.ports.Files."""
        return {each.identity: self.rows[each.identity] for each in versions if each.identity in self.rows}

    def record(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """See neve.ports.Files."""
        return [row for row in rows if self.rows.setdefault((row.key, row.pin), row.archive) != row.archive]


@dataclass
class Timed:
    """A queue whose messages come when they are due, by the clock of the cloud."""

    cloud: MemoryCloud
    due: list[tuple[float, int, str]] = field(default_factory=list)
    sent: int = 0

    def send(self, body: str, *, delay_s: int = 0) -> None:
        """See neve.ports.Queue."""
        self.sent += 1
        heapq.heappush(self.due, ((self.cloud.now - START).total_seconds() + delay_s, self.sent, body))

    def until(self, moment: float) -> Iterator[tuple[float, str]]:
        """What is due by then, with when it was."""
        while self.due and self.due[0][0] <= moment:
            at, _, body = heapq.heappop(self.due)
            yield at, body


def _body(key: str) -> bytes:
    size = Workload().file_bytes // SMALLER
    return (key.encode() * (size // len(key) + 1))[:size]


def _version(number: int, cloud: MemoryCloud) -> ObjectVersion:
    key = f"media/2026/10/{number:09}.jpg"
    return ObjectVersion(
        key=key,
        version_id=hashlib.sha256(key.encode()).hexdigest()[:32],
        size_bytes=Workload().file_bytes // SMALLER,
        etag=hashlib.md5(_body(key)).hexdigest(),
        sequencer=padded_sequencer(f"{number:018X}"),
        event_at=cloud.now,
    )


def archived(files: int, files_per_s: float) -> Bill:
    """What archiving so many files takes that arrive at a rate: they are gathered as Collect's mapping gathers them."""
    work = arriving(files_per_s)
    batch = round(work.batch_files)
    ledger: Counter[Charge] = Counter()
    taken: Counter[str] = Counter()
    bundles, store = MemoryBundles(), MemoryArchiveStore(content=None)  # type: ignore[arg-type]  # nothing is copied
    cloud = MemoryCloud(
        limits=Limits(
            target_bytes=work.members * work.file_bytes // SMALLER,
            max_members=work.max_members,
            max_age_s=work.max_age_s,
        ),
        bundles=Counted(bundles, _BUNDLES, ledger),
        archives=Counted(MemoryArchives(), _ARCHIVES, ledger),
        files=Counted(Index(), _FILES, ledger),
        content=Made(ledger),  # type: ignore[arg-type]  # of a content bucket the writer asks no more
        store=Counted(store, _STORE, ledger),
    )
    queue = Timed(cloud)
    cloud.bundles_queue = Counted(queue, _QUEUE, ledger)

    def write(moment: float) -> None:
        for at, body in queue.until(moment):
            cloud.now = START + timedelta(seconds=at)
            written = cloud.writer.write(requested_bundle(body), owner=cloud.owner(), until=cloud.now)
            taken["asked to write"] += 1
            taken["archives"] += written.outcome is Outcome.ARCHIVED
            taken["files"] += written.files
            bundles.noted.pop(requested_bundle(body), None)
            store.objects.clear()

    for first in range(0, files, batch):
        numbers = range(first, min(first + batch, files))
        arrived = numbers.stop / files_per_s + work.waited_s
        write(arrived)
        cloud.now = START + timedelta(seconds=arrived)
        collector = cloud.collector()
        collector.collect([_version(number, cloud) for number in numbers], cloud.now, waited_s=work.waited_s)
        taken["batches"] += 1
    write(float("inf"))
    if taken["files"] != files:
        raise RuntimeError(f"{taken['files']} of {files} files were archived")
    return Bill(prices=US_EAST_1, uses=tuple(_uses(files, batch, ledger, taken, work)))


def _uses(
    files: int, batch: float, ledger: Mapping[Charge, float], taken: Mapping[str, int], work: Workload
) -> Iterable[Use]:
    for charge, quantity in ledger.items():
        yield Use(purpose="asked", charge=charge, quantity=quantity)
    collect_s = taken["batches"] * COLLECT_S + files * COLLECT_EVENT_S
    member_s = WRITE_MEMBER_S + 2 * work.file_bytes / WRITE_BYTES_PER_S
    late = taken["asked to write"] - taken["archives"]
    write_s = taken["archives"] * WRITE_S + files * member_s + late * LATE_TIMER_S
    yield from unseen(
        events=files,
        batch_files=batch,
        requests_to_write=taken["asked to write"],
        invocations=taken["batches"] + taken["asked to write"],
        gb_seconds=collect_s * COLLECT_GB + write_s * WRITE_GB,
        gb_seconds_rule="as in neve.domain.cost",
    )


# -- In the process that measures --------------------------------------------------------------------------------------


def main() -> None:
    """Archive as many files as the first word says, at the rate of the second; print what came of it as JSON."""
    files, files_per_s = int(sys.argv[1]), float(sys.argv[2])
    began = time.perf_counter()
    bill = archived(files, files_per_s).scaled(MILLION / files)
    by_charge: Counter[str] = Counter()
    for use in bill.uses:
        by_charge[use.charge.value] += bill.usd_of(use)  # type: ignore[assignment]  # as above
    json.dump({"usd": bill.usd, "by_charge": by_charge, "seconds": time.perf_counter() - began}, sys.stdout)


# -- In the process that runs the bench --------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found = {(rate, files): run_alone("flat", str(files), str(rate)) for rate in RATES for files in COUNTS}
    worst = max(spread([found[rate, files]["usd"] for files in COUNTS]) for rate in RATES)
    return Section(
        letter="q",
        machine=machine,
        text=paragraphs(
            table(
                ("dollars per million files of 100 KB", *(f"{files:,} files" for files in COUNTS), "differ by"),
                [
                    (
                        f"{rate:,.0f} files/s, batches of {arriving(rate).batch_files:,.0f}",
                        *(f"**${found[rate, files]['usd']:.3f}**" for files in COUNTS),
                        f"{spread([found[rate, files]['usd'] for files in COUNTS]):.1%}",
                    )
                    for rate in RATES
                ],
            ),
            f"They differ by {worst:.1%} at most; the aim is {AIM:.0%} ({'reached' if worst <= AIM else 'missed'}). "
            f"Of {COUNTS[-1]:,} files, by what is charged:",
            table(
                ("dollars per million files", *(f"{rate:,.0f} files/s" for rate in RATES)),
                [
                    (charge, *(f"${found[rate, COUNTS[-1]]['by_charge'][charge]:.3f}" for rate in RATES))
                    for charge in sorted(found[RATES[0], COUNTS[-1]]["by_charge"])
                ],
            ),
        ),
    )


def spread(costs: Sequence[float]) -> float:
    """By how much of the least the most exceeds it."""
    return max(costs) / min(costs) - 1


if __name__ == "__main__":
    main()

"""(g) A batch of 10^5 lines over 1,000 archives: how many thaws are asked for, and what planning takes.

The command's spool puts the lines into chunks. These wait in the requests queue, shuffled, some of them twice, and
several processes plan them side by side: PlanRestore as it is deployed, its clients watched by the ledger. A smaller
batch is sent in no order, so that every chunk wants most archives and all planners want the same ones.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import plan_restore
from bench import place
from bench.archives import MODIFIED, archive_row, shelf
from bench.memory import MIB, resident
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from neve.aws import clients
from neve.aws.ledger import LEDGER
from neve.aws.restores_table import DynamoRestores
from neve.aws.thaws_table import DynamoThaws
from neve.domain.cost import Workload
from neve.domain.index import FileRow
from neve.domain.manifest import archive_key
from neve.domain.prices import Charge
from neve.domain.restore import CHUNK_ITEMS, Request, Wanted, chunks, parse_plan, render_request
from neve.domain.tally import from_line
from neve.domain.thaw import Need, Step, Thaw, Tier
from neve_cli.spool import Spool
from neve_local.cloud import LocalCloud

AIM = 1.00
WORK = Workload()
"""Each archive is full of files of 100 KB; a hundred of them are wanted, more or less."""
PLANNERS = 4
TWICE = 0.05
"""Of the chunks, delivered a second time."""
START_S = 5.0
"""Until all planners are up, which then begin together."""
HIDDEN_S = 300
WAITING: list[Literal["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]] = [
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
]
THREADS = 8
JOB = "bench"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """So many lines over so many archives; `in_order` as the command sends them, else in their own random order."""

    lines: int
    archives: int
    in_order: bool


BATCHES = (
    Batch(lines=100_000, archives=1_000, in_order=True),
    Batch(lines=3_000, archives=150, in_order=False),
)


# -- In the processes that store, and that plan ----------------------------------------------------------------------


def store(batch: Batch) -> dict[str, int]:
    """Write rows and archives, and send the chunks of the batch; how many of what there are."""
    place.prepare()
    chance = random.Random(JOB)
    lines = chance.sample(range(batch.archives * WORK.members), batch.lines)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_store_archive, range(1, batch.archives + 1)))
    shelf().files.record([_file_row(each) for each in lines])
    rows = map(_file_row, lines)
    found = list(_sorted_chunks(rows) if batch.in_order else chunks(map(_wanted, rows)))
    created_at = place.now()
    messages = [
        render_request(
            Request(
                job=JOB,
                chunk=number,
                chunks=len(found),
                created_at=created_at,
                need=Need(tier=Tier.BULK, days=1),
                overwrite=False,
                estimate_usd=0.0,
                items=tuple(chunk),
            )
        )
        for number, chunk in enumerate(found, start=1)
    ]
    messages += chance.sample(messages, max(1, round(TWICE * len(messages))))
    chance.shuffle(messages)
    queue_url = plan_restore.config().requests_queue_url
    for message in messages:
        clients.sqs().send_message(QueueUrl=queue_url, MessageBody=message)
    return {
        "chunks": len(found),
        "messages": len(messages),
        "archives": len({_place(each)[0] for each in lines}),
        "unsorted_shares": _unsorted_shares(lines),
    }


def _store_archive(serial: int) -> None:
    """An archive's row, and an object in its place: nobody reads it here."""
    key = archive_key(serial, "tar")
    stored = clients.s3().put_object(Bucket=place.ARCHIVE, Key=key, Body=b"tar", StorageClass="GLACIER")
    shelf().archives.put(
        archive_row(
            serial,
            version_id=stored["VersionId"],
            size_bytes=WORK.members * (WORK.file_bytes + 1_000),
            source_bytes=WORK.members * WORK.file_bytes,
            files=WORK.members,
        )
    )


def _place(file: int) -> tuple[int, int]:
    """Which archive holds a file, and under which number."""
    return file // WORK.members + 1, file % WORK.members


def _file_row(file: int) -> FileRow:
    archive, number = _place(file)
    digest = hashlib.sha256(str(file).encode()).hexdigest()
    return FileRow(
        key=f"media/2026/10/{digest[:2]}/{file:07}.jpg",
        version_id=digest[:32],
        pin=digest[:32],
        size_bytes=WORK.file_bytes,
        sha256=digest,
        md5=digest[:32],
        last_modified=MODIFIED,
        archive=archive,
        number=number,
        offset_bytes=(number + 1) * (WORK.file_bytes + 1_000),
    )


def _wanted(row: FileRow) -> Wanted:
    return Wanted(key=row.key, pin=row.pin, destination=f"s3://{place.ELSEWHERE}/{row.key}")


def _sorted_chunks(rows: Iterable[FileRow]) -> Iterator[list[Wanted]]:
    """The lines as the command sends them."""
    spool = Spool()
    for line, row in enumerate(rows, start=1):
        spool.add(row, _wanted(row).destination, line=line)
    spool.settle()
    yield from chunks(Wanted(key=each.key, pin=each.pin, destination=each.destination) for each in spool.ordered())
    spool.close()


def _unsorted_shares(lines: Sequence[int]) -> int:
    """How many shares there would be if the lines were sent in their own order."""
    portions = (lines[start : start + CHUNK_ITEMS] for start in range(0, len(lines), CHUNK_ITEMS))
    return sum(len({_place(each)[0] for each in portion}) for portion in portions)


@dataclass
class Claims:
    """How many claims another planner was faster with."""

    lost: int = 0


@dataclass(frozen=True)
class Watched(DynamoThaws):
    """The thaws as PlanRestore has them."""

    claims: Claims = field(default_factory=Claims)

    def claim(self, seen: Thaw | None, to: Thaw, *, micro_usd: int, cap_micro_usd: int, now: datetime) -> Thaw | None:
        """See neve.ports.Thaws."""
        claimed = super().claim(seen, to, micro_usd=micro_usd, cap_micro_usd=cap_micro_usd, now=now)
        self.claims.lost += claimed is None
        return claimed


def plan(owner: str, start_at: float) -> dict[str, Any]:
    """Plan what waits in the queue, from `start_at` on, until nothing is left; what that took."""
    place.configure(requests_per_s=place.DEFAULTS.restore_requests_per_s // PLANNERS)
    composed = plan_restore.planner()
    thaws = Watched(clients.dynamodb(), place.RESTORES)
    planner = replace(composed, thawer=replace(composed.thawer, thaws=thaws))
    idle = resident("VmRSS")
    LEDGER.settle()
    time.sleep(max(0.0, start_at - time.time()))
    took: dict[str, Any] = {"joined": 0, "began": time.time(), "ended": time.time()}
    cpu_began = time.process_time()
    while message := _received():
        request = parse_plan(message["Body"])
        assert isinstance(request, Request), "no sweep is at work here"
        took["joined"] += planner.plan(request, owner=f"{owner}-{message['MessageId']}").steps.get(Step.JOIN, 0)
        clients.sqs().delete_message(
            QueueUrl=plan_restore.config().requests_queue_url, ReceiptHandle=message["ReceiptHandle"]
        )
        took["ended"] = time.time()
    return {
        **took,
        "cpu_seconds": time.process_time() - cpu_began,
        "lost": thaws.claims.lost,
        "idle": idle,
        "peak": resident("VmHWM"),
        "ledger": LEDGER.settle().line(),
    }


def _received() -> Any:
    """The next message; None once none is left, not even one that another planner has."""
    queue_url = plan_restore.config().requests_queue_url
    while True:
        answer = clients.sqs().receive_message(QueueUrl=queue_url, WaitTimeSeconds=1, VisibilityTimeout=HIDDEN_S)
        if answer.get("Messages"):
            return answer["Messages"][0]
        counted = clients.sqs().get_queue_attributes(QueueUrl=queue_url, AttributeNames=WAITING)["Attributes"]
        if not any(map(int, counted.values())):
            return None


def found() -> dict[str, Any]:
    """What stands in the table `restores` after all chunks were planned."""
    place.configure()
    job = DynamoRestores(clients.dynamodb(), place.RESTORES).job(JOB)
    if job is None or not job.planned:
        raise RuntimeError(f"not all chunks were planned: {job}")
    pages = clients.dynamodb().get_paginator("scan").paginate(TableName=place.RESTORES, Select="COUNT")
    return {
        "files": job.files,
        "shares": job.shares,
        "ended": job.ended_files,
        "items": sum(page["Count"] for page in pages),
    }


def main() -> None:
    """Store, plan, or look what came of it, as the first word says; print it as JSON."""
    word, *words = sys.argv[1:]
    match word:
        case "store":
            json.dump(store(BATCHES[int(words[0])]), sys.stdout)
        case "plan":
            owner, start_at = words
            json.dump(plan(owner, float(start_at)), sys.stdout)
        case _:
            json.dump(found(), sys.stdout)


# -- In the process that runs the bench ------------------------------------------------------------------------------


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found = [_measured(number) for number in range(len(BATCHES))]
    reached = all(each.requests["s3:RestoreObject"] == each.stored["archives"] for each in found)
    return Section(
        letter="g",
        machine=machine,
        text=paragraphs(
            table(
                (
                    "lines",
                    "chunks",
                    "delivered",
                    "archives",
                    "shares",
                    "joined",
                    "claims lost",
                    "thaws asked for",
                    "thaws / archives",
                ),
                [each.coalesced() for each in found],
            ),
            table(
                ("lines", "time", "lines a second", "CPU of all", "idle", "peak"),
                [each.took() for each in found],
            ),
            table(
                ("asked of AWS, per 1,000 lines", *(each.title for each in found)),
                _requests(found),
            ),
            f"The aim is {AIM:.2f} thaws for each archive ({'reached' if reached else 'missed'}). {PLANNERS} planners "
            f"share the default pace of {place.DEFAULTS.restore_requests_per_s} thaws a second. In their own order "
            f"the {BATCHES[0].lines:,} lines would be {found[0].stored['unsorted_shares']:,} shares.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was stored of a batch, what the planners did, and what stands in the table then."""

    batch: Batch
    stored: Mapping[str, int]
    planners: Sequence[Mapping[str, Any]]
    standing: Mapping[str, int]

    @property
    def title(self) -> str:
        """What tells the batch from the others."""
        return f"{self.batch.lines:,}, {'sorted' if self.batch.in_order else 'in no order'}"

    @property
    def requests(self) -> Counter[str]:
        """What PlanRestore itself asked for; its messages are received and deleted by the mapping."""
        total: Counter[str] = Counter()
        for each in self.planners:
            total.update({name: count for name, count in each["ledger"]["requests"].items() if name[:4] != "sqs:"})
        return total

    @property
    def write_units(self) -> float:
        """As DynamoDB states them, and one for each claim that was refused."""
        return sum(from_line(each["ledger"]).units(Charge.DYNAMODB_WRITE_UNIT) for each in self.planners)

    def coalesced(self) -> tuple[str, ...]:
        """The first table's row."""
        asked = self.requests["s3:RestoreObject"]
        return (
            self.title,
            f"{self.stored['chunks']:,}",
            f"{self.stored['messages']:,}",
            f"{self.stored['archives']:,}",
            f"{self.standing['shares']:,}",
            f"{sum(each['joined'] for each in self.planners):,}",
            f"{sum(each['lost'] for each in self.planners):,}",
            f"{asked:,}",
            f"**{asked / self.stored['archives']:.2f}**",
        )

    def took(self) -> tuple[str, ...]:
        """The second table's row."""
        ended, began = max(each["ended"] for each in self.planners), min(each["began"] for each in self.planners)
        return (
            self.title,
            f"{ended - began:.0f} s",
            f"{self.batch.lines / (ended - began):,.0f}",
            f"{sum(each['cpu_seconds'] for each in self.planners):.0f} s",
            f"{max(each['idle'] for each in self.planners) / MIB:.1f} MiB",
            f"{max(each['peak'] for each in self.planners) / MIB:.1f} MiB",
        )


def _measured(number: int) -> Found:
    batch = BATCHES[number]
    with served() as cloud:
        stored = run(cloud, "thaws", "store", f"{number}")
        planners = _plan(cloud)
        standing = run(cloud, "thaws", "found")
    if standing["files"] != batch.lines or standing["ended"]:
        raise RuntimeError(f"{batch} was to be planned: {standing}")
    return Found(batch=batch, stored=stored, planners=planners, standing=standing)


def _plan(cloud: LocalCloud) -> list[dict[str, Any]]:
    """What each planner has done."""
    start_at = time.time() + START_S
    with ThreadPoolExecutor(PLANNERS) as pool:
        return list(pool.map(lambda name: run(cloud, "thaws", "plan", name, f"{start_at}"), "abcdefgh"[:PLANNERS]))


def _requests(found: Sequence[Found]) -> Iterable[tuple[str, ...]]:
    """The third table's rows."""
    for name in sorted({name for each in found for name in each.requests}):
        yield _per_thousand(name, found, [each.requests[name] for each in found])
    yield _per_thousand("dynamodb write units", found, [each.write_units for each in found])
    yield _per_thousand("items in the table restores", found, [each.standing["items"] for each in found])


def _per_thousand(name: str, found: Sequence[Found], quantities: Sequence[float]) -> tuple[str, ...]:
    rates = (quantity / each.batch.lines * 1_000 for each, quantity in zip(found, quantities, strict=True))
    return (name, *(f"{rate:,.1f}" for rate in rates))


if __name__ == "__main__":
    main()

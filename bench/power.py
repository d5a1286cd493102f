"""(p) The memory that each function costs least with, and how long it takes with it: what AWS calls power tuning.

The handlers are called as Lambda calls them, with messages of SQS, in a process that has the share of a processor which
comes with so much memory. What a Region's network adds is added: each request sleeps for as long as it would wait there
(the rules of scale.figures), which takes no processor time. What the handlers log is counted as well.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import collect
import copy_upload
import extract
import plan_restore
import start_audit
import verify_audit
import write_archive
from bench import place
from bench.memory import MIB, resident
from bench.report import Machine, Section, paragraphs, table
from bench.server import run, served
from bench.share import WHOLE_MIB, group, limited, share
from neve.aws import clients
from neve.aws.archives_table import DynamoBundles
from neve.config import CopyUploadConfig, StartAuditConfig, VerifyAuditConfig, environment
from neve.domain.audit import AuditRequest, RunRequest
from neve.domain.bundle import write_request
from neve.domain.cost import WRITE_BYTES_PER_S, Workload
from neve.domain.events import announcements
from neve.domain.metering import gb_seconds
from neve.domain.prices import GB, MILLION, US_EAST_1, Charge
from neve.domain.restore import Request, Thawed, Wanted, render_thawed
from neve.domain.thaw import Need, Tier
from neve.domain.version import ObjectVersion, padded_sequencer
from scale.figures import REQUEST, S3_COPY, S3_REQUEST

SIZES_MIB = (256, 512, 768, 1_024, 1_536, 1_769, 3_008)
REPEATS = 3
FILE_BYTES = 100_000
MEMBERS = Workload().members
ARCHIVE = 1
"""The serial of the one archive there is."""
UPLOADS_BUCKET, POINTERS, AUDITS = "bench-uploads", "bench-pointers", "bench-audits"
QUEUES = ("bench-copies", "bench-release", "bench-start-audits", "bench-verify-audits")
LINE_BYTES = 26
"""CloudWatch Logs API reference, PutLogEvents: each line counts for so much more than it has."""
PLATFORM_BYTES = 3 * LINE_BYTES + 290
"""START, END and REPORT, which Lambda writes for each invocation."""

_WAITS_S = {"s3:CopyObject": S3_COPY.value}
_numbers = count(1)


# -- What the functions are given --------------------------------------------------------------------------------------


def events(number: int) -> list[str]:
    """Of files that need not be there: Collect does not look at them."""
    folder = secrets.token_hex(4)
    return [
        body
        for each in range(number)
        for body in announcements(
            place.CONTENT,
            [
                ObjectVersion(
                    key=f"media/{folder}/2026/10/{each:06}.jpg",
                    version_id=secrets.token_urlsafe(24),
                    size_bytes=FILE_BYTES,
                    etag=secrets.token_hex(16),
                    sequencer=padded_sequencer(f"{each:018X}"),
                    event_at=place.now(),
                )
            ],
        )
    ]


def bundle() -> list[str]:
    """A full bundle of the files that are there, none of which is in the index."""
    clients.dynamodb().delete_table(TableName=place.FILES)
    place.make_files_table(place.FILES)
    return [write_request(_noted(_versions(place.CONTENT)))]


def uploads(number: int) -> list[str]:
    """Fresh uploads, each announced by itself."""
    folder = secrets.token_hex(4)
    for each in range(number):
        clients.s3().put_object(
            Bucket=UPLOADS_BUCKET, Key=f"{folder}/{each:06}.jpg", Body=secrets.token_bytes(FILE_BYTES)
        )
    versions = _versions(UPLOADS_BUCKET, f"{folder}/")
    return [body for version in versions for body in announcements(UPLOADS_BUCKET, [version])]


def share_of_archive(number: int) -> list[str]:
    """Files of the archive, which is thawed, wait to be brought to another bucket."""
    job = f"job-{secrets.token_hex(4)}"
    chosen = _versions(place.CONTENT)[:: MEMBERS // number][:number]
    request = Request(
        job=job,
        chunk=1,
        chunks=1,
        created_at=place.now(),
        need=Need(tier=Tier.STANDARD, days=1),
        overwrite=False,
        estimate_usd=0.0,
        items=tuple(
            Wanted(key=each.key, pin=each.version_id, destination=f"s3://{place.ELSEWHERE}/{job}/{each.key}")
            for each in chosen
        ),
    )
    plan_restore.planner().plan(request, owner="bench")
    return [render_thawed(ARCHIVE)]


def audit() -> list[str]:
    """An audit of the archive, which is thawed; its sources are hashed."""
    name = f"run-{secrets.token_hex(4)}"
    start_audit.starter().start(RunRequest(id=name, archives=(ARCHIVE,)))
    until = place.now() + timedelta(minutes=5)
    start_audit.starter().begin(AuditRequest(run=name, archive=ARCHIVE), owner="bench", until=until)
    return [render_thawed(ARCHIVE)]


def _versions(bucket: str, prefix: str = "") -> list[ObjectVersion]:
    pages = clients.s3().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    return [
        ObjectVersion(
            key=each["Key"],
            version_id=each["VersionId"],
            size_bytes=each["Size"],
            etag=each["ETag"].strip('"'),
            sequencer=padded_sequencer(f"{next(_numbers):018X}"),
            event_at=place.now(),
        )
        for page in pages
        for each in page.get("Versions", [])
    ]


def _noted(versions: Sequence[ObjectVersion]) -> str:
    """The id of a bundle of these versions."""
    name = secrets.token_hex(8)
    bundles = DynamoBundles(clients.dynamodb(), place.ARCHIVES)
    bundles.put_part(name, "0", versions, place.now())
    bundles.create(place.sealed(name, versions))
    return name


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a function is given in an invocation: messages for `files` files. `within_s` is what it may take at most.

    `mib` is the memory that the stacks give it. With `archived`, the files that are there are in an archive.
    """

    name: str
    handler: Callable[[dict[str, Any], Any], dict[str, Any]]
    messages: Callable[[], list[str]]
    files: int
    mib: int
    within_s: float
    archived: bool = False


JOBS = (
    Job(name="Collect, 3 files", handler=collect.handler, messages=lambda: events(3), files=3, mib=256, within_s=3),
    Job(
        name="Collect, 1,000 files",
        handler=collect.handler,
        messages=lambda: events(1_000),
        files=1_000,
        mib=256,
        within_s=3,
    ),
    Job(
        name=f"WriteArchive, {MEMBERS} files",
        handler=write_archive.handler,
        messages=bundle,
        files=MEMBERS,
        mib=1_024,
        within_s=8,
    ),
    Job(
        name="CopyUpload, 10 files",
        handler=copy_upload.handler,
        messages=lambda: uploads(10),
        files=10,
        mib=256,
        within_s=5,
    ),
    Job(
        name="Extract, 100 files",
        handler=extract.handler,
        messages=lambda: share_of_archive(100),
        files=100,
        mib=1_024,
        within_s=30,
        archived=True,
    ),
    Job(
        name=f"VerifyAudit, {MEMBERS} files",
        handler=verify_audit.handler,
        messages=audit,
        files=MEMBERS,
        mib=1_769,
        within_s=300,
        archived=True,
    ),
)
"""The budget of latency is for what a file waits for: Collect 3 s, WriteArchive 8 s; nobody waits for an audit."""


# -- In the process that is measured -----------------------------------------------------------------------------------


def store(job: Job) -> None:
    """Make what the function needs, and files for it."""
    place.prepare()
    clients.s3().create_bucket(Bucket=UPLOADS_BUCKET)
    clients.s3().put_bucket_versioning(Bucket=UPLOADS_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    clients.dynamodb().create_table(
        TableName=POINTERS,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
    )
    place.make_table_with_unfinished(AUDITS)
    for queue in QUEUES:
        clients.sqs().create_queue(QueueName=queue)
    if job.files == MEMBERS or job.archived:
        versions = place.upload("power", count=MEMBERS, size_bytes=FILE_BYTES)
        if job.archived:
            configure()
            place.write(write_archive.writer(), _noted(versions))
            share_of_archive(1)
            _thaw()


def _thaw() -> None:
    """Wait until the archive is thawed, and have it noted, as S3's event does."""
    planner = plan_restore.planner()
    row = planner.archives.get(ARCHIVE)
    assert row is not None, "it was written a moment ago"
    while (until := planner.thawer.glacier.status(row).warm_until) is None:
        time.sleep(0.1)
    extract.extractor().thawed(Thawed(archive=ARCHIVE, until=until), owner="bench", until=until)


def configure() -> None:
    """Let the functions find what `store` made."""
    place.configure()
    copies, release, audits, verify = (clients.sqs().get_queue_url(QueueName=queue)["QueueUrl"] for queue in QUEUES)
    known = {
        **vars(collect.config()),
        **vars(write_archive.config()),
        **vars(plan_restore.config()),
        **vars(extract.config()),
        "uploads_bucket": UPLOADS_BUCKET,
        "pointers_table": POINTERS,
        "audits_table": AUDITS,
        "uploads_queue_url": copies,
        "release_queue_url": release,
        "audits_queue_url": audits,
        "verify_queue_url": verify,
        "alerts_topic": extract.config().restored_topic,
        "key_layout": place.DEFAULTS.key_layout,
        "release_after_s": place.DEFAULTS.release_after_s,
        "repair": place.DEFAULTS.audit_repair,
        "tier": Tier.STANDARD.value,
        "source": place.DEFAULTS.audit_source,
        "horizon_days": 0,
        "budget_percent": place.DEFAULTS.audit_budget_percent,
        "budget_usd": place.DEFAULTS.audit_budget_usd,
    }
    for config in (CopyUploadConfig, StartAuditConfig, VerifyAuditConfig):
        os.environ.update(environment(config(**{field.name: known[field.name] for field in fields(config)})))


def measured(job: Job, path: Path | None) -> dict[str, Any]:
    """What invocations of the function took, one after the other, in the group at `path`. The first is not counted."""
    configure()
    runs = []
    with tempfile.TemporaryFile("w+") as log, _written_to(log.fileno()):
        for number in range(1 + REPEATS):
            event = {"Records": [_record(body) for body in job.messages()]}
            log.truncate(0)
            log.seek(0)
            with _in_a_region(), limited(path):
                began, began_cpu = time.perf_counter(), time.process_time()
                failed = job.handler(event, CONTEXT)["batchItemFailures"]
                took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}
            sys.stdout.flush()
            log.seek(0)
            lines = log.read().splitlines()
            if failed:
                raise RuntimeError(f"{job.name} failed: {lines[-3:]}")
            if number:
                runs.append(took | {"log_bytes": sum(len(line.encode()) + LINE_BYTES for line in lines)})
    return {"runs": runs, "peak": resident("VmHWM")}


CONTEXT = SimpleNamespace(
    get_remaining_time_in_millis=lambda: 300_000,
    function_name="bench",
    memory_limit_in_mb=WHOLE_MIB,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:bench",
    aws_request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd",
)


def _record(body: str) -> dict[str, Any]:
    return {
        "messageId": secrets.token_hex(16),
        "receiptHandle": secrets.token_hex(16),
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": f"{time.time() * 1000:.0f}"},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:bench",
        "awsRegion": "us-east-1",
    }


@contextmanager
def _in_a_region() -> Iterator[None]:
    """Have each request wait as it would in a Region; and for what it sends, at the network of one environment."""

    def wait(*, request: Any, event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:3]
        usual_s = S3_REQUEST.value if service == "s3" else REQUEST.value
        sent_s = int(request.headers.get("Content-Length") or 0) / WRITE_BYTES_PER_S
        time.sleep(_WAITS_S.get(f"{service}:{operation}", usual_s) + sent_s)

    watched = [clients.s3(), clients.s3(clients.PATIENT), clients.dynamodb(), clients.sqs(), clients.sns()]
    for client in watched:
        client.meta.events.register("before-send", wait)
    try:
        yield
    finally:
        for client in watched:
            client.meta.events.unregister("before-send", wait)


@contextmanager
def _written_to(descriptor: int) -> Iterator[None]:
    """Have what is written to standard output go to a file."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main() -> None:
    """`store JOB` or `measure JOB [GROUP]`; what came of it as JSON."""
    step, number, *path = sys.argv[1:]
    if step == "store":
        store(JOBS[int(number)])
        json.dump(None, sys.stdout)
    else:
        json.dump(measured(JOBS[int(number)], Path(path[0]) if path else None), sys.stdout)


# -- In the process that runs the bench --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Took:
    """What an invocation of a job took with so much memory: medians."""

    mib: int
    seconds: float
    cpu_seconds: float
    log_bytes: float
    peak_bytes: int

    def usd(self, job: Job) -> float:
        """For a million files: time and requests."""
        gb_s = gb_seconds(self.mib, self.seconds * 1000)
        each = US_EAST_1.usd(Charge.LAMBDA_GB_SECOND, gb_s) + US_EAST_1.usd(Charge.LAMBDA_REQUEST, 1)
        return each * MILLION / job.files

    def log_usd(self, job: Job) -> float:
        """For a million files: what is logged, Lambda's own lines as well."""
        return US_EAST_1.usd(Charge.LOG_GB, (self.log_bytes + PLATFORM_BYTES) / GB) * MILLION / job.files


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    found: list[list[Took]] = []
    shared = True
    for number, job in enumerate(JOBS):
        print(f"[bench] {job.name}", file=sys.stderr, flush=True)
        with served() as cloud:
            run(cloud, "power", "store", str(number))
            took = []
            for mib in SIZES_MIB:
                with group(mib) as path:
                    shared = path is not None
                    words = [str(path)] if path else []
                    took.append(_took(mib, run(cloud, "power", "measure", str(number), *words), shared=shared))
        found.append(took)
    how = (
        "by a control group that is given the processor for a part of every 20 ms"
        if shared
        else "reckoned: this user may make no control group, so its processor time is spread, and its waits stay"
    )
    return Section(
        letter="p",
        machine=machine,
        text=paragraphs(
            table(
                ("seconds; dollars per million files", *(f"{mib:,} MB" for mib in SIZES_MIB), "deployed", "cheapest"),
                [_row(job, took) for job, took in zip(JOBS, found, strict=True)],
            ),
            f"The share of a processor is {how}: 1 for {WHOLE_MIB:,} MB. Median of {REPEATS} invocations of a warm "
            f"process. Each request waits: to S3 {S3_REQUEST.value * 1000:.0f} ms, for CopyObject "
            f"{S3_COPY.value * 1000:.0f}, to others {REQUEST.value * 1000:.0f} ms; what is sent goes at "
            f"{WRITE_BYTES_PER_S / 1e6:.0f} MB/s. Dollars: GB-seconds and requests. Bold is the cheapest that keeps "
            "its budget of latency.",
            table(
                ("logged", "bytes an invocation", "bytes a file", "dollars per million files", "peak memory"),
                [_logged(job, took) for job, took in zip(JOBS, found, strict=True)],
            ),
            f"Bytes as CloudWatch counts them, {LINE_BYTES} for each line on top; of Lambda itself come three lines, "
            f"{PLATFORM_BYTES} bytes. Peak memory is that of the whole process, the bench's own modules among it.",
        ),
    )


def _took(mib: int, found: Mapping[str, Any], *, shared: bool) -> Took:
    runs = found["runs"]
    cpu_s = statistics.median(each["cpu_seconds"] for each in runs)
    seconds = statistics.median(each["seconds"] for each in runs)
    if not shared:
        seconds = cpu_s / min(1.0, share(mib)) + max(0.0, seconds - cpu_s)
    return Took(
        mib=mib,
        seconds=seconds,
        cpu_seconds=cpu_s,
        log_bytes=statistics.median(each["log_bytes"] for each in runs),
        peak_bytes=found["peak"],
    )


def cheapest(job: Job, found: Iterable[Took]) -> Took:
    """With which memory it costs least, of those with which it is quick enough; with the most if none is."""
    took = list(found)
    return min(
        (each for each in took if each.seconds <= job.within_s), key=lambda each: each.usd(job), default=took[-1]
    )


def _row(job: Job, found: Sequence[Took]) -> tuple[str, ...]:
    best = cheapest(job, found)

    def cell(took: Took) -> str:
        text = f"{took.seconds:.2f} s ${took.usd(job):.3f}"
        return f"**{text}**" if took is best else text

    return (job.name, *map(cell, found), f"{job.mib:,} MB", f"{best.mib:,} MB")


def _logged(job: Job, found: Sequence[Took]) -> tuple[str, ...]:
    took = found[-1]
    whole = took.log_bytes + PLATFORM_BYTES
    return (
        job.name,
        f"{whole:,.0f}",
        f"{whole / job.files:,.1f}",
        f"${took.log_usd(job):.3f}",
        f"{max(each.peak_bytes for each in found) / MIB:,.0f} MiB",
    )


if __name__ == "__main__":
    main()

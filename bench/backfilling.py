"""(o) Live uploads beside a backfill, through the deployed stacks; and how fast one shard announces.

The same steady uploads are made three times: with nothing beside them, with a backfill that is held to a rate, and with
one that goes as fast as it can. History lies in the content bucket before its notifications are turned on.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.report import Machine, Section, paragraphs, table
from bench.server import served
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.backfills_table import DynamoBackfills
from neve.aws.content_listing import S3ContentListing
from neve.aws.files_table import DynamoFiles
from neve.aws.queue import SqsQueue
from neve.domain.backfill import Backfill
from neve.flows.backfill import Backfiller
from neve.ports import VersionInventory
from neve_local.cloud import LocalCloud
from neve_local.demo_report import quantile
from neve_local.demo_restore import COMMANDS
from neve_local.deployment import cdk_environment

LIVE_PER_S = 3
LIVE_S = 60
SIZE_BYTES = 20_000
THREADS = 8
HELD_PER_S = 30
"""The rate of the backfill that is held to one; its history lasts twice as long as the uploads."""
HELD_FILES = HELD_PER_S * LIVE_S * 2
FREE_FILES = 10_000
PATIENCE_S = 600
ANNOUNCED = 10_000
BUCKET, TABLE, QUEUE = "bench", "backfills", "announced"

Identity = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Live uploads beside something: seconds from each PUT to `archived`, and how much history was archived meanwhile.

    `seconds` is how long that was; `running` says whether the backfill still had something to do when they ended.
    """

    what: str
    latencies: Sequence[float]
    history: int
    seconds: float
    running: bool


@dataclass(frozen=True, kw_only=True)
class Shard:
    """How long one shard took for so many versions."""

    what: str
    versions: int
    seconds: float


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        thread = Thread(cloud, cloud.deploy())
        thread.put_history("held", HELD_FILES)
        thread.put_history("free", FREE_FILES)
        thread.warm_up()
        runs = [
            thread.beside("nothing", ""),
            thread.beside(f"a backfill of at most {HELD_PER_S} files/s", "held", "--rate", str(HELD_PER_S)),
            thread.beside("a backfill as fast as it goes", "free"),
        ]
    with served() as cloud:
        shards = list(_shards(cloud))
    return Section(letter="o", machine=machine, text=text(runs, shards))


def text(runs: Sequence[Beside], shards: Sequence[Shard]) -> str:
    """The results in Markdown."""
    alone = quantile(runs[0].latencies, 0.99)
    rows = [
        (
            run.what,
            f"{len(run.latencies)}",
            f"{quantile(run.latencies, 0.5):.1f} s",
            f"**{quantile(run.latencies, 0.99):.1f} s**",
            f"{quantile(run.latencies, 0.99) / alone:.2f}",
            f"{run.history / run.seconds:,.0f}/s" if run.history else "-",
            ("yes" if run.running else "no") if run.history else "-",
        )
        for run in runs
    ]
    return paragraphs(
        table(
            ("beside", "live uploads", "p50", "p99", "p99, times alone", "history archived", "to the end"),
            rows,
        ),
        f"{LIVE_PER_S} uploads of {SIZE_BYTES // 1000} KB a second for {LIVE_S} s, from S3's answer to the PUT until "
        "every row of the file's archive stood. The stacks as they are deployed by default, permissions enforced; "
        "uploads, server and all functions of both lanes share the machine. *To the end* says whether the backfill was "
        "at work until the last upload was archived.",
        table(
            ("one shard", "versions", "in all", "versions a second"),
            [
                (each.what, f"{each.versions:,}", f"{each.seconds:.1f} s", f"**{each.versions / each.seconds:,.0f}**")
                for each in shards
            ],
        ),
        "The listing, the queue and the table of the local server; the flow in one process, as the function has it.",
    )


# -- Live uploads ----------------------------------------------------------------------------------------------------


class Thread:
    """The deployed stacks: live uploads, history, and backfills by an operator's command."""

    def __init__(self, cloud: LocalCloud, outputs: Mapping[str, str]) -> None:
        session = cloud.session()
        dynamodb = session.client("dynamodb")
        self.cloud, self.outputs = cloud, outputs
        self.s3: Any = session.client("s3")
        self.files = DynamoFiles(dynamodb, outputs["FilesTable"])
        self.archives = DynamoArchives(dynamodb, outputs["ArchivesTable"])
        self.bundles = DynamoBundles(dynamodb, outputs["ArchivesTable"])
        self.environment = cdk_environment(cloud.environment(), os.environ, folder=cloud.layout.folder)

    def put_history(self, prefix: str, count: int) -> None:
        """Files that nobody is told of."""
        with self._silent(), ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda number: self._put(f"{prefix}/{number:06}.jpg"), range(count)))

    def warm_up(self) -> None:
        """Both lanes' functions start before anything is measured."""
        self.put_history("warm", 20)
        self._neve("backfill", "--prefix", "warm/", "--yes", "--wait")
        self._until_archived("lively/", [self._put("lively/file.jpg")])

    def beside(self, what: str, history: str, *words: str) -> Beside:
        """Live uploads, while a backfill of `history` runs, if any is named."""
        backfill, live = "", f"live-{history or 'alone'}/"
        if history:
            backfill = self._neve("backfill", "--prefix", f"{history}/", "--yes", *words)["backfill"]
            _until(lambda: next(iter(self.files.under(f"{history}/")), None) is not None)
        began = time.time()
        uploaded = dict(self._uploads(live))
        archived_at = self._until_archived(live, list(uploaded))
        ended = max(archived_at.values())
        running = bool(backfill) and self._at_work(backfill)
        old = self._archived_at(f"{history}/").values() if history else ()
        if backfill:
            _until(lambda: not self._at_work(backfill) and not self.bundles.unfinished())
        return Beside(
            what=what,
            latencies=[max(0.0, archived_at[identity] - at) for identity, at in uploaded.items()],
            history=sum(began <= at <= ended for at in old),
            seconds=ended - began,
            running=running,
        )

    def _uploads(self, prefix: str) -> Iterator[tuple[Identity, float]]:
        began = time.monotonic()
        for number in range(LIVE_PER_S * LIVE_S):
            time.sleep(max(0.0, began + number / LIVE_PER_S - time.monotonic()))
            yield self._put(f"{prefix}{number:06}.jpg"), time.time()

    def _put(self, key: str) -> Identity:
        body = random.Random(key).randbytes(SIZE_BYTES)
        return key, self.s3.put_object(Bucket=self.outputs["ContentBucket"], Key=key, Body=body)["VersionId"]

    def _until_archived(self, prefix: str, wanted: Sequence[Identity]) -> dict[Identity, float]:
        """When the archive of each was done, once all are."""
        found: dict[Identity, float] = {}

        def all_there() -> bool:
            found.update(self._archived_at(prefix))
            return found.keys() >= set(wanted)

        _until(all_there)
        return found

    def _archived_at(self, prefix: str) -> dict[Identity, float]:
        done = {row.serial: row.archived_at.timestamp() for row in self.archives.all() if row.archived_at}
        rows = self.files.under(prefix)
        return {(row.key, row.version_id): done[row.archive] for row in rows if row.archive in done}

    def _at_work(self, backfill: str) -> bool:
        """Whether it has something to announce, or what it announced waits."""
        told = self._neve("backfill", "status", backfill)
        return told["state"] == "running" or any(each["waiting"] + each["in_flight"] for each in told["queues"])

    def _neve(self, *words: str) -> Any:
        done = subprocess.run(
            [str(COMMANDS / "neve"), *words, "--json"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        bucket = self.outputs["ContentBucket"]
        rules = self.s3.get_bucket_notification_configuration(Bucket=bucket)
        del rules["ResponseMetadata"]
        self.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
        try:
            yield
        finally:
            self.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=rules)


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S} s")
        time.sleep(0.5)


# -- One shard -------------------------------------------------------------------------------------------------------


def _shards(cloud: LocalCloud) -> Iterator[Shard]:
    """A bucket, a table and a queue by themselves: counted first, then announced."""
    session = cloud.session()
    s3, dynamodb, sqs = session.client("s3"), session.client("dynamodb"), session.client("sqs")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=BUCKET, Key=f"media/{n:06}.jpg", Body=b"x"), range(ANNOUNCED)))
    dynamodb.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    queue = SqsQueue(sqs, sqs.create_queue(QueueName=QUEUE)["QueueUrl"])
    backfills = DynamoBackfills(dynamodb, TABLE)
    flow = Backfiller(
        backfills=backfills,
        listing=S3ContentListing(s3, BUCKET),
        inventories=_no_inventory,
        queue=queue,
        lane=(queue, queue, queue),
        bucket=BUCKET,
        clock=_now,
        sleep=time.sleep,
        few=2 * ANNOUNCED,
    )
    for what, dry_run in (("counted", True), ("announced", False)):
        this = backfills.open(Backfill(id=what, begun_at=_now(), dry_run=dry_run))
        flow.plan(this.id)
        began = time.perf_counter()
        advanced = flow.advance(this.id, 0, owner="bench", until=_now() + timedelta(minutes=15))
        seconds = time.perf_counter() - began
        if not advanced.done or advanced.counted.versions != ANNOUNCED:
            raise RuntimeError(f"{ANNOUNCED} versions were to be {what}: {advanced}")
        yield Shard(what=what, versions=ANNOUNCED, seconds=seconds)


def _no_inventory(place: str) -> VersionInventory:
    raise AssertionError(f"nobody asked for {place}")


def _now() -> datetime:
    return datetime.now(UTC)

"""(c) Files through the deployed thread: upload until archived, by the stacks as they are deployed by default."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.report import Machine, Section, paragraphs, table
from bench.server import served
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.domain.index import ArchiveRow, ArchiveState
from neve_local.cloud import LocalCloud
from neve_local.demo_report import quantile

COUNT = 2_000
SIZE_BYTES = 20_000
UPLOAD_THREADS = 8
PATIENCE_S = 240


def measure(machine: Machine) -> Section:
    """The section for docs/benchmarks.md."""
    with served() as cloud:
        outputs = cloud.deploy()
        uploaded, upload_s = _upload(cloud, outputs["ContentBucket"])
        archives = _wait(cloud, outputs)
        files = DynamoFiles(cloud.session().client("dynamodb"), outputs["FilesTable"])
        latencies = _latencies(uploaded, files, archives)
    began = min(uploaded.values())
    last = max(row.archived_at.timestamp() for row in archives if row.archived_at)
    settings = f"{int(outputs['TargetBytes']) / 2**20:.0f} MiB or {outputs['MaxAgeSeconds']} s"
    return Section(
        letter="c",
        machine=machine,
        text=paragraphs(
            table(
                ("files", "upload", "until all archived", "through the thread", "latency p50", "p99", "archives"),
                [
                    (
                        f"{COUNT:,} of {SIZE_BYTES // 1000} KB",
                        f"{upload_s:.1f} s, {COUNT / upload_s:,.0f}/s",
                        f"{last - began:.1f} s",
                        f"**{COUNT / (last - began):,.0f} files/s**",
                        f"{quantile(latencies, 0.5):.1f} s",
                        f"{quantile(latencies, 0.99):.1f} s",
                        f"{len(archives)}",
                    )
                ],
            ),
            f"Archives of {settings}, functions cold at the start, permissions enforced. Uploading, the server and "
            "all functions share the machine. The last bundle is never full and waits for its timer, which is in "
            "the time until all are archived.",
        ),
    )


def _upload(cloud: LocalCloud, bucket: str) -> tuple[dict[tuple[str, str], float], float]:
    """When S3 had answered, by key and version id; and how long all of it took in seconds."""
    s3 = cloud.session().client("s3")

    def put(number: int) -> tuple[tuple[str, str], float]:
        key = f"media/2026/10/{number:06}.jpg"
        answer = s3.put_object(Bucket=bucket, Key=key, Body=random.Random(number).randbytes(SIZE_BYTES))
        return (key, answer["VersionId"]), time.time()

    began = time.monotonic()
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        uploaded = dict(pool.map(put, range(COUNT)))
    return uploaded, time.monotonic() - began


def _wait(cloud: LocalCloud, outputs: Mapping[str, str]) -> list[ArchiveRow]:
    """The archives, once they hold all files."""
    table_of = DynamoArchives(cloud.session().client("dynamodb"), outputs["ArchivesTable"])
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = [row for row in table_of.all() if row.state is ArchiveState.ARCHIVED]
        archived = sum(row.files - row.duplicates for row in found)
        if archived >= COUNT:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{archived} of {COUNT} files were archived within {PATIENCE_S} s")
        time.sleep(0.5)


def _latencies(
    uploaded: Mapping[tuple[str, str], float], files: DynamoFiles, archives: Sequence[ArchiveRow]
) -> list[float]:
    """Seconds from S3's answer to the upload until every row of the file's archive stood."""
    archived_at = {row.serial: row.archived_at.timestamp() for row in archives if row.archived_at}
    rows = list(files.under())
    if len(rows) != COUNT:
        raise RuntimeError(f"{len(rows)} rows stand for {COUNT} files")
    return [max(0.0, archived_at[row.archive] - uploaded[row.key, row.version_id]) for row in rows]

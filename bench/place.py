"""Buckets, tables, queues and a topic as the stacks make them, on a server without functions; and what is in them.

The functions find them here, and are called in the process that is measured.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from neve.aws import clients
from neve.config import CollectConfig, ExtractConfig, PlanRestoreConfig, WriteArchiveConfig, environment
from neve.domain.bundle import Bundle, BundleState, Lane, total_bytes
from neve.domain.outcome import Written
from neve.domain.version import ObjectVersion, padded_sequencer
from neve.flows.write_archive import ArchiveWriter
from stacks.settings import Settings

CONTENT, ARCHIVE, ELSEWHERE = "bench-content", "bench-archive", "bench-elsewhere"
FILES, ARCHIVES, RESTORES, PARKED = "bench-files", "bench-archives", "bench-restores", "bench-parked"
OUTBOX = "bench-outbox"
QUEUES = ("bench-collect", "bench-bundles", "bench-large", "bench-requests", "bench-extract")
TOPIC = "bench-restored"
UPLOAD_THREADS = 16
EXTRACT_THREADS = 16
"""As in stacks/restore.py."""

DEFAULTS = Settings()


def prepare() -> None:
    """Make buckets, tables, queues and the topic, and let the functions find them."""
    for bucket in (CONTENT, ARCHIVE, ELSEWHERE):
        clients.s3().create_bucket(Bucket=bucket)
        clients.s3().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    make_files_table(FILES)
    for table in (ARCHIVES, RESTORES):
        make_table_with_unfinished(table)
    clients.dynamodb().create_table(
        TableName=PARKED,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    clients.dynamodb().create_table(
        TableName=OUTBOX,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
    )
    for queue in QUEUES:
        clients.sqs().create_queue(QueueName=queue)
    configure()


def configure(*, requests_per_s: int = DEFAULTS.restore_requests_per_s) -> None:
    """Let the functions find what `prepare` made, in this process or in an earlier one."""
    collect, bundles, large, requests, extract = (
        clients.sqs().get_queue_url(QueueName=queue)["QueueUrl"] for queue in QUEUES
    )
    restored = clients.sns().create_topic(Name=TOPIC)["TopicArn"]
    os.environ.update(
        environment(
            WriteArchiveConfig(
                content_bucket=CONTENT,
                archive_bucket=ARCHIVE,
                files_table=FILES,
                archives_table=ARCHIVES,
                parked_table=PARKED,
                outbox_table=OUTBOX,
                bundles_queue_url=bundles,
                collect_queue_url=collect,
                storage_class=DEFAULTS.storage_class,
                fetch_threads=DEFAULTS.fetch_threads,
            )
        )
        | environment(
            CollectConfig(
                lane=Lane.LIVE,
                content_bucket=CONTENT,
                archives_table=ARCHIVES,
                parked_table=PARKED,
                outbox_table=OUTBOX,
                collect_queue_url=collect,
                bundles_queue_url=bundles,
                large_queue_url=large,
                target_bytes=DEFAULTS.target_bytes,
                max_members=DEFAULTS.max_members,
                max_age_s=1,
            )
        )
        | environment(
            PlanRestoreConfig(
                archive_bucket=ARCHIVE,
                files_table=FILES,
                archives_table=ARCHIVES,
                restores_table=RESTORES,
                parked_table=PARKED,
                outbox_table=OUTBOX,
                requests_queue_url=requests,
                extract_queue_url=extract,
                restored_topic=restored,
                destination_buckets=f"{CONTENT} {ELSEWHERE}",
                requests_per_s=requests_per_s,
                usd_per_day=DEFAULTS.restore_usd_per_day,
            )
        )
        | environment(
            ExtractConfig(
                content_bucket=CONTENT,
                archive_bucket=ARCHIVE,
                files_table=FILES,
                archives_table=ARCHIVES,
                restores_table=RESTORES,
                parked_table=PARKED,
                outbox_table=OUTBOX,
                requests_queue_url=requests,
                extract_queue_url=extract,
                restored_topic=restored,
                threads=EXTRACT_THREADS,
            )
        )
    )


def make_files_table(name: str) -> None:
    """A table `files` with nothing in it."""
    clients.dynamodb().create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "shard", "KeyType": "HASH"}, {"AttributeName": "sort", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "shard", "AttributeType": "N"},
            {"AttributeName": "sort", "AttributeType": "B"},
        ],
    )


def make_table_with_unfinished(name: str) -> None:
    """A table `archives` or `restores`, with its sparse index of what is unfinished."""
    clients.dynamodb().create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "unfinished", "AttributeType": "S"},
            {"AttributeName": "due_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "unfinished",
                "KeySchema": [
                    {"AttributeName": "unfinished", "KeyType": "HASH"},
                    {"AttributeName": "due_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )


def upload(folder: str, *, count: int, size_bytes: int) -> list[ObjectVersion]:
    """Put `count` objects of random bytes into the content bucket; each has a CRC64NVME, as S3 gives it by default."""

    def put(number: int) -> ObjectVersion:
        key = f"media/{folder}/2026/10/{number:06}.jpg"
        body = random.Random(f"{folder}{number}").randbytes(size_bytes)
        answer = clients.s3().put_object(
            Bucket=CONTENT, Key=key, Body=body, ContentType="image/jpeg", ChecksumAlgorithm="CRC64NVME"
        )
        return ObjectVersion(
            key=key,
            version_id=answer["VersionId"],
            size_bytes=size_bytes,
            etag=answer["ETag"].strip('"'),
            sequencer=padded_sequencer(f"{number:018X}"),
            event_at=now(),
        )

    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        return list(pool.map(put, range(count)))


def sealed(bundle_id: str, versions: Sequence[ObjectVersion]) -> Bundle:
    """The row of a bundle that Collect has filled with `versions`."""
    return Bundle(
        id=bundle_id,
        kind="tar",
        state=BundleState.SEALED,
        size_bytes=total_bytes(versions),
        count=len(versions),
        due_at=now() + timedelta(minutes=5),
    )


def write(writer: ArchiveWriter, bundle_id: str) -> Written:
    """Have the bundle written, as the handler does."""
    return writer.write(bundle_id, owner="bench", until=now() + timedelta(minutes=5))


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)

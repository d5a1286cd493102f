"""moto with what the functions need, and bridges for what moto does not do.

The bridges stand in for answers that AWS gives: they belong here, never into what is deployed.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import quote_plus

from moto import mock_aws
from moto.sqs.models import sqs_backends

import backfill
import collect
import copy_large
import copy_upload
import drill
import extract
import plan_restore
import reconcile
import relay
import release_upload
import resolve
import start_audit
import sweep
import sweep_restores
import verify_audit
import write_archive
from neve.aws import clients, invocation
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoArchives, DynamoBundles
from neve.aws.audits_table import DynamoAudits
from neve.aws.backfills_table import DynamoBackfills
from neve.aws.content import S3Content
from neve.aws.destinations import S3Destination
from neve.aws.files_table import DynamoFiles, to_row
from neve.aws.glacier import S3ArchiveReader, S3Glacier
from neve.aws.ledger import LEDGER
from neve.aws.outbox_table import DynamoOutbox
from neve.aws.parked_table import DynamoParkingLot
from neve.aws.pointers_table import DynamoPointers
from neve.aws.queue import SqsQueue
from neve.aws.recalls_table import DynamoRecalls
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.sources import S3Sources
from neve.aws.thaws_table import DynamoThaws
from neve.aws.topic import SnsTopic
from neve.aws.uploads import S3Uploads
from neve.config import (
    BackfillConfig,
    CollectConfig,
    CopyLargeConfig,
    CopyUploadConfig,
    DrillConfig,
    ExtractConfig,
    PlanRestoreConfig,
    ReconcileConfig,
    RelayConfig,
    ReleaseUploadConfig,
    ResolveConfig,
    StartAuditConfig,
    SweepConfig,
    SweepRestoresConfig,
    VerifyAuditConfig,
    WriteArchiveConfig,
    environment,
)
from neve.domain.bundle import Lane
from neve.domain.index import FileRow
from neve.domain.version import NULL_VERSION, ObjectVersion, padded_sequencer
from tests.moto_glacier import MotoGlacier, glacier_as_on_aws
from tests.moto_listing import listing_as_on_aws
from tests.moto_quick import make_quick
from tests.moto_state import MotoState
from tests.moto_transactions import one_write_at_a_time

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sns import SNSClient
    from types_boto3_sqs import SQSClient

CONTENT, ARCHIVE, ELSEWHERE = "content-bucket", "archive-bucket", "another-bucket"
FILES, ARCHIVES, RESTORES, AUDITS, PARKED = "files", "archives", "restores", "audits", "parked"
OUTBOX, POINTERS, UPLOADS, BACKFILLS = "outbox", "pointers", "uploads-bucket", "backfills"
REGION = "us-east-1"
TOPICS = ("restored", "alerts")
"""Each with a queue of its name that hears what it is told."""

OF_BACKFILL = ("backfill", "backfill_bundles", "backfill_large")
"""Queues of the backfill's lane: nothing here takes their messages."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "POWERTOOLS_SERVICE_NAME": "test",
    "POWERTOOLS_METRICS_NAMESPACE": "neve",
}


READS = ("BatchGet", "Get", "Head", "List", "Query")
"""What the operations are called that change nothing."""


class Killed(BaseException):
    """The process dies here; no handler of errors sees it."""


def _bridge_inserts(client: DynamoDBClient) -> None:
    """PartiQL INSERT with parameters, which moto's parser lacks: as the conditional puts that it stands for."""

    def insert(*, Statements: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803  # boto3's name
        responses: list[dict[str, Any]] = []
        for statement in Statements:
            table, names = statement["Statement"].split('"')[1], statement["Statement"].split("'")[1::2]
            item = dict(zip(names, statement["Parameters"], strict=True))
            try:
                client.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(sort)")
                responses.append({"TableName": table})
            except client.exceptions.ConditionalCheckFailedException:
                responses.append({"TableName": table, "Error": {"Code": "DuplicateItem", "Message": "it stands"}})
        return {"Responses": responses}

    setattr(client, "batch_execute_statement", insert)  # noqa: B010  # mypy knows the method as final


@dataclass
class MotoCloud:
    """Buckets, tables and queues in moto, and the functions' handlers called in this process."""

    urls: dict[str, str]
    topic_arn: str
    glacier: MotoGlacier
    storage_class: str
    limits: dict[str, int] = field(default_factory=dict)
    sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    calls: int = 0
    called: list[str] = field(default_factory=list)
    kill_at: int = 0
    kill_after: bool = False

    def state(self) -> MotoState:
        """What stands in this cloud now."""
        return MotoState.now(self.glacier)

    def begin_again(self, state: MotoState) -> None:
        """Have everything be as it was, and the functions start anew."""
        state.again()
        self.calls = self.kill_at = 0
        self.called.clear()
        _forget()

    # What the content bucket does

    def upload(self, key: str, body: bytes, *, bucket: str = CONTENT, **extra: Any) -> ObjectVersion:
        """Put an object into a bucket; its version, as the event will tell it."""
        answer = clients.s3().put_object(Bucket=bucket, Key=key, Body=body, **extra)
        return ObjectVersion(
            key=key,
            version_id=answer.get("VersionId", NULL_VERSION),
            size_bytes=len(body),
            etag=answer["ETag"].strip('"'),
            sequencer=padded_sequencer(f"{next(self.sequence):X}"),
            event_at=datetime.now(UTC),
        )

    def announce(self, *versions: ObjectVersion) -> None:
        """Send the events of S3 for these versions; moto's own carry no version id."""
        for version in versions:
            clients.sqs().send_message(QueueUrl=self.urls["collect"], MessageBody=s3_event(version))

    def arrive(self, *uploads: ObjectVersion) -> None:
        """Send the events of S3 for versions in the uploads bucket."""
        for upload in uploads:
            clients.sqs().send_message(QueueUrl=self.urls["uploads"], MessageBody=s3_event(upload, bucket=UPLOADS))

    # What S3 does with thaws

    def complete_thaws(self, *queues: str) -> list[str]:
        """End the thaws that run, and have their events come to these queues, Extract's by default; the events."""
        events = self.glacier.complete()
        for event in events:
            for queue in queues or ("extract",):
                self.queue(queue).send(event)
        return events

    # The functions

    def deliver(self, queue: str, *, batch: int = 10) -> int:
        """Hand what waits in a queue to its function, and delete what it did not report as failed; how many came."""
        self._end_delays(queue)
        answer = clients.sqs().receive_message(
            QueueUrl=self.urls[queue],
            MaxNumberOfMessages=batch,
            VisibilityTimeout=0,
            AttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return 0
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
                "awsRegion": REGION,
            }
            for message in messages
        ]
        with self._watched():
            result = HANDLERS[queue]({"Records": records}, CONTEXT)
        failed = {entry["itemIdentifier"] for entry in result["batchItemFailures"]}
        for message in messages:
            if message["MessageId"] not in failed:
                clients.sqs().delete_message(QueueUrl=self.urls[queue], ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def step(self, event: dict[str, Any]) -> dict[str, Any]:
        """Call the function Backfill, as its state machine does."""
        with self._watched():
            return backfill.handler(event, CONTEXT)  # type: ignore[arg-type]  # as Lambda gives it

    @property
    def writes(self) -> list[int]:
        """Which of the handlers' calls to AWS changed something there, by their numbers from 1."""
        return [number for number, name in enumerate(self.called, start=1) if not name.startswith(READS)]

    def run(self, *queues: str) -> None:
        """Deliver until these queues are empty, by default those of archiving and restoring.

        Raises Killed where the test has asked for it.
        """
        for _ in range(100):
            if not sum(self.deliver(queue) for queue in queues or RUN):
                return
        raise AssertionError("the queues do not run dry")

    def _end_delays(self, queue: str) -> None:
        """Have messages delivered at once that were sent to come later."""
        for region in sqs_backends["123456789012"].values():
            for held in region.queues.values():
                if held.name == queue:
                    for message in held._messages:
                        message.delayed_until = 0

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Count the calls to AWS made by a handler, and die at the one that the test names: none follows it."""

        mine = threading.local()  # calls overlap: WriteArchive reads with many threads
        dead = threading.Event()

        def die() -> None:
            dead.set()
            raise Killed

        def before(*, model: Any, **_: Any) -> None:
            if dead.is_set():
                raise Killed
            self.calls += 1
            self.called.append(model.name)
            mine.call = self.calls
            if mine.call == self.kill_at and not self.kill_after:
                die()

        def after(**_: Any) -> None:
            if mine.call == self.kill_at and self.kill_after:
                die()

        watched = [client.meta.events for client in (clients.s3(), clients.dynamodb(), clients.sqs(), clients.sns())]
        for events in watched:
            events.register_first("before-call", before, unique_id="before")
            events.register_last("after-call", after, unique_id="after")
        try:
            yield
        finally:
            for events in watched:
                events.unregister("before-call", unique_id="before")
                events.unregister("after-call", unique_id="after")

    # What is there

    @property
    def bundles(self) -> DynamoBundles:
        return DynamoBundles(clients.dynamodb(), ARCHIVES)

    @property
    def archives(self) -> DynamoArchives:
        return DynamoArchives(clients.dynamodb(), ARCHIVES)

    @property
    def files(self) -> DynamoFiles:
        return DynamoFiles(clients.dynamodb(), FILES)

    @property
    def parking_lot(self) -> DynamoParkingLot:
        return DynamoParkingLot(clients.dynamodb(), PARKED)

    @property
    def outbox(self) -> DynamoOutbox:
        return DynamoOutbox(clients.dynamodb(), OUTBOX)

    @property
    def content(self) -> S3Content:
        return S3Content(clients.s3(), CONTENT)

    @property
    def store(self) -> S3ArchiveStore:
        return S3ArchiveStore(clients.s3(), ARCHIVE, CONTENT, self.storage_class)

    @property
    def thaws(self) -> DynamoThaws:
        return DynamoThaws(clients.dynamodb(), RESTORES)

    @property
    def restores(self) -> DynamoRestores:
        return DynamoRestores(clients.dynamodb(), RESTORES)

    @property
    def audits(self) -> DynamoAudits:
        return DynamoAudits(clients.dynamodb(), AUDITS)

    @property
    def backfills(self) -> DynamoBackfills:
        return DynamoBackfills(clients.dynamodb(), BACKFILLS)

    @property
    def sources(self) -> S3Sources:
        return S3Sources(clients.s3(), CONTENT)

    @property
    def s3_glacier(self) -> S3Glacier:
        return S3Glacier(clients.s3(), ARCHIVE)

    @property
    def reader(self) -> S3ArchiveReader:
        return S3ArchiveReader(clients.s3(), ARCHIVE)

    @property
    def destination(self) -> S3Destination:
        return S3Destination(clients.s3(), clients.s3(clients.PATIENT), ARCHIVE, invocation.now)

    @property
    def uploads(self) -> S3Uploads:
        return S3Uploads(clients.s3(), clients.s3(clients.PATIENT), UPLOADS, CONTENT, invocation.now)

    @property
    def pointers(self) -> DynamoPointers:
        return DynamoPointers(clients.dynamodb(), POINTERS)

    @property
    def recalls(self) -> DynamoRecalls:
        return DynamoRecalls(clients.dynamodb(), RESTORES)

    @property
    def topic(self) -> SnsTopic:
        """The topic `restored`; the queue of that name is told what it is told."""
        return SnsTopic(clients.sns(), self.topic_arn)

    def all_files(self) -> list[FileRow]:
        """Every row of the index, in no order."""
        return [to_row(item) for item in clients.dynamodb().scan(TableName=FILES)["Items"]]

    def queue(self, name: str) -> SqsQueue:
        return SqsQueue(clients.sqs(), self.urls[name])

    def bodies(self, name: str) -> list[str]:
        """The messages that wait in a queue, which stay there."""
        answer = clients.sqs().receive_message(QueueUrl=self.urls[name], MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in answer.get("Messages", [])]

    def archived_keys(self) -> list[str]:
        """The keys of the objects in the archive bucket."""
        answer = clients.s3().list_object_versions(Bucket=ARCHIVE)
        return sorted(entry["Key"] for entry in answer.get("Versions", []))


HANDLERS: dict[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
    "collect": collect.handler,
    "bundles": write_archive.handler,
    "large": copy_large.handler,
    "sweep": sweep.handler,
    "requests": plan_restore.handler,
    "extract": extract.handler,
    "sweep_restores": sweep_restores.handler,
    "drills": drill.handler,
    "audits": start_audit.handler,
    "verify": verify_audit.handler,
    "reconciles": reconcile.handler,
    "relay": relay.handler,
    "uploads": copy_upload.handler,
    "release": release_upload.handler,
}
RUN = ("collect", "bundles", "large", "requests", "extract")
CONTEXT = SimpleNamespace(
    get_remaining_time_in_millis=lambda: 60_000,
    function_name="test",
    memory_limit_in_mb=128,
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:test",
    aws_request_id="request",
)


def s3_event(version: ObjectVersion, *, bucket: str = CONTENT, name: str = "ObjectCreated:Put") -> str:
    """S3's event for a version, as it stands in a message."""
    described = {
        "key": quote_plus(version.key),
        "size": version.size_bytes,
        "eTag": version.etag,
        "versionId": version.version_id,
        "sequencer": version.sequencer.lstrip("0"),
    }
    record = {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": version.event_at.isoformat().replace("+00:00", "Z"),
        "eventName": name,
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": described},
    }
    return json.dumps({"Records": [record]})


@cache
def _clients() -> tuple[S3Client, DynamoDBClient, SQSClient, SNSClient]:
    """The clients that all clouds of this process share: making four takes longer than many a test."""
    make_quick()
    made = (
        clients.s3.__wrapped__(),
        clients.dynamodb.__wrapped__(),
        clients.sqs.__wrapped__(),
        clients.sns.__wrapped__(),
    )
    _bridge_inserts(made[1])
    return made


def _forget() -> None:
    """Drop every setting and count that an earlier test has made."""
    LEDGER.settle()
    made: list[Any] = [invocation.logger, invocation.metrics]
    made += [collect.config, collect.collector, write_archive.config, write_archive.writer]
    made += [copy_large.config, copy_large.copier, sweep.config, sweep.sweeper]
    made += [plan_restore.config, plan_restore.planner, extract.config, extract.extractor]
    made += [sweep_restores.config, sweep_restores.sweeper]
    made += [drill.config, drill.driller, reconcile.config, reconcile.reconciler]
    made += [relay.config, relay.relay, sender, resolve.config, resolve.rules, resolve.resolver]
    made += [copy_upload.config, copy_upload.copier, release_upload.config, release_upload.releaser]
    made += [start_audit.config, start_audit.starter, verify_audit.config, verify_audit.verifier]
    made += [backfill.config, backfill.backfiller]
    for function in made:
        function.cache_clear()


def _make_table(name: str, partition: tuple[str, str], sort: tuple[str, str] | None, **extra: Any) -> None:
    keys = [partition, *([sort] if sort else [])]
    attributes = [{"AttributeName": n, "AttributeType": t} for n, t in keys] + extra.pop("attributes", [])
    roles: tuple[Any, Any] = ("HASH", "RANGE")
    clients.dynamodb().create_table(
        TableName=name,
        KeySchema=[{"AttributeName": n, "KeyType": role} for (n, _), role in zip(keys, roles, strict=False)],
        AttributeDefinitions=attributes,
        BillingMode="PAY_PER_REQUEST",
        **extra,
    )


def _make_table_with_index(name: str) -> None:
    """A table with the sparse index of what is unfinished."""
    columns = {"unfinished": ("S", "HASH"), "due_at": ("N", "RANGE")}
    _make_table(
        name,
        ("pk", "S"),
        ("sk", "S"),
        attributes=[{"AttributeName": column, "AttributeType": kind} for column, (kind, _) in columns.items()],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "unfinished",
                "KeySchema": [{"AttributeName": column, "KeyType": role} for column, (_, role) in columns.items()],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )


def _make_topic(name: str, queue_url: str) -> str:
    """A topic, and the queue that hears it; the topic's ARN."""
    queue = clients.sqs().get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    arn = clients.sns().create_topic(Name=name)["TopicArn"]
    clients.sns().subscribe(
        TopicArn=arn,
        Protocol="sqs",
        Endpoint=queue["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    return arn


@cache
def _furnished() -> tuple[MotoState, tuple[dict[str, str], str, str]]:
    """A cloud that holds nothing yet; the queues' URLs by their names, and the topics' ARNs."""
    for bucket in (CONTENT, ARCHIVE, ELSEWHERE, UPLOADS):
        clients.s3().create_bucket(Bucket=bucket)
        clients.s3().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    _make_table(FILES, ("shard", "N"), ("sort", "B"))
    _make_table(PARKED, ("id", "S"), None)
    _make_table(OUTBOX, ("pk", "S"), ("sk", "S"))
    _make_table(POINTERS, ("key", "S"), None)
    _make_table(BACKFILLS, ("pk", "S"), ("sk", "S"))
    for table in (ARCHIVES, RESTORES, AUDITS):
        _make_table_with_index(table)
    urls = {name: clients.sqs().create_queue(QueueName=name)["QueueUrl"] for name in (*HANDLERS, *TOPICS, *OF_BACKFILL)}
    topic_arn, alerts_arn = (_make_topic(name, urls[name]) for name in TOPICS)
    return MotoState.now(), (urls, topic_arn, alerts_arn)


@contextmanager
def _shared_clients() -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        os.environ.pop(name, None)
    s3, dynamodb, sqs, sns = _clients()
    with (
        patch.object(clients, "s3", lambda *_: s3),
        patch.object(clients, "dynamodb", lambda *_: dynamodb),
        patch.object(clients, "sqs", lambda *_: sqs),
        patch.object(clients, "sns", lambda: sns),
    ):
        yield


@contextmanager
def moto_outbox() -> Iterator[tuple[DynamoDBClient, SQSClient]]:
    """The table of the outbox and nothing else: a whole cloud takes half a second."""
    with patch.dict(os.environ, CREDENTIALS), mock_aws(), _shared_clients():
        _make_table(OUTBOX, ("pk", "S"), ("sk", "S"))
        yield clients.dynamodb(), clients.sqs()


@contextmanager
def moto_cloud(
    *,
    target_bytes: int = 10_000,
    max_members: int = 100,
    storage_class: str = "GLACIER",
    usd_per_day: int = 0,
) -> Iterator[MotoCloud]:
    """A fresh cloud; delays are over at once, and nothing is delivered, nor thawed, until the test says so."""
    with (
        patch.dict(os.environ, CREDENTIALS),
        mock_aws(),
        _shared_clients(),
        one_write_at_a_time(),
        listing_as_on_aws(),
        glacier_as_on_aws() as glacier,
    ):
        _forget()
        furnished, (urls, topic_arn, alerts_arn) = _furnished()
        furnished.again()
        tables = {"archives_table": ARCHIVES, "parked_table": PARKED, "outbox_table": OUTBOX}
        queues: dict[str, Any] = {"bundles_queue_url": urls["bundles"], "large_queue_url": urls["large"]}
        buckets = {"content_bucket": CONTENT, "archive_bucket": ARCHIVE, "files_table": FILES}
        restores = {
            "archive_bucket": ARCHIVE,
            "restores_table": RESTORES,
            "requests_queue_url": urls["requests"],
            "extract_queue_url": urls["extract"],
            "restored_topic": topic_arn,
        }
        audits: dict[str, Any] = {
            **tables,
            **buckets,
            "restores_table": RESTORES,
            "audits_table": AUDITS,
            "audits_queue_url": urls["audits"],
            "verify_queue_url": urls["verify"],
            "alerts_topic": alerts_arn,
            "requests_per_s": 10_000,
            "threads": 4,
        }
        offload = {
            "uploads_bucket": UPLOADS,
            "content_bucket": CONTENT,
            "pointers_table": POINTERS,
            "parked_table": PARKED,
            "release_queue_url": urls["release"],
        }
        for config in (
            CollectConfig(
                **tables,
                **queues,
                lane=Lane.LIVE,
                content_bucket=CONTENT,
                collect_queue_url=urls["collect"],
                target_bytes=target_bytes,
                max_members=max_members,
                max_age_s=0,
            ),
            WriteArchiveConfig(
                **tables,
                **buckets,
                bundles_queue_url=urls["bundles"],
                collect_queue_url=urls["collect"],
                storage_class=storage_class,
                fetch_threads=4,
            ),
            CopyLargeConfig(
                **tables,
                **buckets,
                collect_queue_url=urls["collect"],
                large_queue_url=urls["large"],
                storage_class=storage_class,
            ),
            PlanRestoreConfig(
                **tables,
                **restores,
                files_table=FILES,
                destination_buckets=f"{CONTENT} {ELSEWHERE}",
                requests_per_s=10_000,
                usd_per_day=usd_per_day,
            ),
            ExtractConfig(**tables, **restores, content_bucket=CONTENT, files_table=FILES, threads=4),
            StartAuditConfig(
                **{name: value for name, value in audits.items() if name != "files_table"},
                tier="bulk",
                source="read",
                horizon_days=365,
                budget_percent=10,
                budget_usd=100,
            ),
            VerifyAuditConfig(**audits, **queues, requests_queue_url=urls["requests"], repair="by-hand"),
            ResolveConfig(
                uploads_bucket=UPLOADS,
                content_bucket=CONTENT,
                pointers_table=POINTERS,
                files_table=FILES,
                archives_table=ARCHIVES,
                restores_table=RESTORES,
                outbox_table=OUTBOX,
                requests_queue_url=urls["requests"],
                key_layout="as-is",
                cdn_urls="https://cdn.example.com",
                cdn_choice="by-key",
                private_prefixes="private/",
                signing="s3",
                cdn_key_id="",
                cdn_key_parameter="",
                archived_answer="not-found",
                redirect_max_age_s=300,
                upload_url_s=60,
                signed_url_s=600,
            ),
            RelayConfig(outbox_table=OUTBOX, parked_table=PARKED, relay_queue_url=urls["relay"]),
            CopyUploadConfig(
                **offload,
                files_table=FILES,
                archives_table=ARCHIVES,
                outbox_table=OUTBOX,
                uploads_queue_url=urls["uploads"],
                key_layout="as-is",
                release_after_s=900,
            ),
            ReleaseUploadConfig(**offload),
            SweepRestoresConfig(
                archives_table=ARCHIVES, outbox_table=OUTBOX, sweep_queue_url=urls["sweep_restores"], **restores
            ),
            DrillConfig(
                **tables,
                **buckets,
                audits_table=AUDITS,
                restores_table=RESTORES,
                requests_queue_url=urls["requests"],
                drills_queue_url=urls["drills"],
                alerts_topic=alerts_arn,
                drill_buckets=f"{ELSEWHERE} {CONTENT}",
            ),
            ReconcileConfig(
                **tables,
                **buckets,
                audits_table=AUDITS,
                collect_queue_url=urls["collect"],
                reconciles_queue_url=urls["reconciles"],
                alerts_topic=alerts_arn,
                inventory="",
                grace_h=24,
                threads=4,
            ),
            BackfillConfig(
                content_bucket=CONTENT,
                backfills_table=BACKFILLS,
                inventory="",
                backfill_queue_url=urls["backfill"],
                backfill_bundles_queue_url=urls["backfill_bundles"],
                backfill_large_queue_url=urls["backfill_large"],
            ),
            SweepConfig(
                archives_table=ARCHIVES,
                outbox_table=OUTBOX,
                sweep_queue_url=urls["sweep"],
                backfill_bundles_queue_url=urls["backfill_bundles"],
                backfill_large_queue_url=urls["backfill_large"],
                **queues,
            ),  # last: they share a name
        ):
            os.environ |= environment(config)
        yield MotoCloud(urls=urls, topic_arn=topic_arn, glacier=glacier, storage_class=storage_class)
        _forget()

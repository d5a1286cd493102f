"""The functions' handlers on moto: what they acknowledge, what is tried again, and what they leave behind."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

import collect
import copy_large
import sweep
import write_archive
from neve.aws import clients, invocation
from neve.aws.invocation import BACKOFF_S, TRANSIENT_BACKOFF_S, backoff_s
from neve.aws.ledger import LEDGER
from neve.domain.bundle import Lane, requested_bundle, write_request
from neve.domain.cost import Run, as_run, requested
from neve.domain.manifest import parse_contents
from neve.domain.parked import Reason
from neve.domain.prices import US_EAST_1, Bill, Charge
from neve.domain.tally import Tally, from_line
from neve.domain.version import ObjectVersion
from neve.errors import Busy, Transient
from tests.bad_keys import BAD_KEYS
from tests.moto_cloud import ARCHIVE, CONTENT, CONTEXT, MotoCloud, moto_cloud, s3_event

TARGET = 10_000


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud(target_bytes=TARGET) as made:
        yield made


def record(body: str, number: int = 1, delivery: int = 1) -> dict[str, Any]:
    return {
        "messageId": f"message-{number}",
        "receiptHandle": f"receipt-{number}",
        "body": body,
        "attributes": {"ApproximateReceiveCount": str(delivery)},
        "eventSource": "aws:sqs",
        "awsRegion": "us-east-1",
    }


def invoke(handler: Any, *bodies: str, delivery: int = 1) -> list[str]:
    """The message ids that the handler reports as failed."""
    records = [record(body, number, delivery) for number, body in enumerate(bodies)]
    return [entry["itemIdentifier"] for entry in handler({"Records": records}, CONTEXT)["batchItemFailures"]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(receipt, seconds) of each message whose visibility was shortened; moto knows these receipts not."""
    asked: list[tuple[str, int]] = []

    def note(_: Any, after_s: dict[str, int]) -> None:
        asked.extend(after_s.items())

    monkeypatch.setattr("neve.aws.queue.SqsQueue.show_again", note)
    return asked


def refuse(service: Any, operation: str, code: str, status: int) -> Any:
    """Every such call fails from now on; what is returned ends it."""

    def answer(**_: Any) -> None:
        response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(response, operation)

    events = service.meta.events
    name = f"before-call.*.{operation}"
    events.register_first(name, answer)
    return lambda: events.unregister(name, answer)


def test_what_waited_in_the_queue_waits_so_much_less_in_its_bundle(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = replace(collect.collector(), limits=replace(collect.collector().limits, max_age_s=20))
    monkeypatch.setattr(collect, "collector", lambda: patient)
    fresh, waited = [record(s3_event(cloud.upload(key, b"bytes"))) for key in ("a", "b")]
    sent_at = datetime.now(UTC) - timedelta(seconds=8)
    fresh["attributes"]["SentTimestamp"] = f"{datetime.now(UTC).timestamp() * 1000:.0f}"
    waited["attributes"]["SentTimestamp"] = f"{sent_at.timestamp() * 1000:.0f}"
    delays: list[int] = []

    def note(*, params: dict[str, Any], **_: Any) -> None:
        delays.append(params["DelaySeconds"])

    clients.sqs().meta.events.register("provide-client-params.sqs.SendMessage", note)
    answer = collect.handler({"Records": [fresh, waited]}, cast("Any", CONTEXT))
    clients.sqs().meta.events.unregister("provide-client-params.sqs.SendMessage", note)

    assert answer == {"batchItemFailures": []}
    assert delays == [pytest.approx(12, abs=2)], "give or take what the test takes"


# The whole thread


def test_every_bad_key_goes_through_the_whole_thread(cloud: MotoCloud) -> None:
    bodies = {key: f"{number}".encode() * number for number, key in enumerate(BAD_KEYS)}
    versions = [cloud.upload(key, body) for key, body in bodies.items()]
    cloud.announce(*versions)
    cloud.run()
    assert {row.key for row in cloud.all_files()} == set(BAD_KEYS)
    assert not list(cloud.parking_lot.all())
    found = {}
    for archive in cloud.archives.all():
        clients.s3().restore_object(Bucket=ARCHIVE, Key=archive.object_key, RestoreRequest={"Days": 1})
        cloud.glacier.complete()
        tar = clients.s3().get_object(Bucket=ARCHIVE, Key=archive.object_key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
            contents = parse_contents(reader.extractfile("MANIFEST.json").read())  # type: ignore[union-attr]
            manifest = cloud.store.manifest(archive.serial)
            assert manifest is not None
            assert contents == manifest.contents
            members = [entry for entry in reader.getmembers() if entry.name != "MANIFEST.json"]
            assert [entry.name for entry in members] == [member.name for member in contents.members]
            for entry, member in zip(members, contents.members, strict=True):
                body = reader.extractfile(entry).read()  # type: ignore[union-attr]
                assert hashlib.sha256(body).hexdigest() == member.source.sha256
                assert tar[member.offset_bytes :][: len(body)] == body
                found[member.source.key] = body
            with tempfile.TemporaryDirectory() as folder:
                reader.extractall(folder, filter="data")
                inside = [path for path in Path(folder).rglob("*") if path.is_file()]
                assert len(inside) == len(members) + 1
    assert found == bodies
    rows = list(cloud.files.under())
    assert [row.key for row in rows] == sorted(BAD_KEYS, key=lambda key: key.encode())
    for key in BAD_KEYS:
        assert [row.key for row in cloud.files.versions(key)] == [key]


@pytest.mark.parametrize("prefix", ["", "a", "folder/", "p" * 840, "p" * 841, "\u00e9", "none"], ids=ascii)
def test_a_prefix_finds_the_keys_below_it_in_order(cloud: MotoCloud, prefix: str) -> None:
    keys = ["a", "a\0", "a\0b", "ab", "folder", "folder/", "folder/x", "\u00e9a", "p" * 839, "p" * 840, "p" * 842]
    versions = [cloud.upload(key, b"x") for key in keys]
    cloud.announce(*versions)
    cloud.run()
    expected = sorted((key for key in keys if key.startswith(prefix)), key=lambda key: key.encode())
    assert [row.key for row in cloud.files.under(prefix)] == expected


def test_objects_of_all_sizes_around_the_target_and_tars_blocks_arrive(cloud: MotoCloud) -> None:
    sizes = [0, 1, 511, 512, 513, TARGET - 1, TARGET, TARGET + 1]
    versions = [cloud.upload(f"{size}", bytes(size)) for size in sizes]
    cloud.announce(*versions)
    cloud.run()
    assert {row.key: row.size_bytes for row in cloud.all_files()} == {f"{size}": size for size in sizes}
    assert [archive.kind for archive in cloud.archives.all()].count("object") == 1


def test_overwritten_and_deleted_files_are_archived_or_parked_and_harm_nobody(cloud: MotoCloud) -> None:
    first, second = cloud.upload("a", b"one"), cloud.upload("a", b"two")
    deleted, hidden = cloud.upload("b", b"b"), cloud.upload("c", b"c")
    clients.s3().delete_object(Bucket=CONTENT, Key="b", VersionId=deleted.version_id)
    clients.s3().delete_object(Bucket=CONTENT, Key="c")
    cloud.announce(second, deleted, hidden, first)
    cloud.run()
    assert {row.version_id for row in cloud.all_files()} == {each.version_id for each in (first, second, hidden)}
    [(_, parked)] = cloud.parking_lot.all()
    assert (parked.reason, parked.version) == (Reason.SOURCE_GONE, deleted)


def test_null_versions_are_pinned_by_their_etag(cloud: MotoCloud) -> None:
    clients.s3().put_bucket_versioning(Bucket=CONTENT, VersioningConfiguration={"Status": "Suspended"})

    def put(body: bytes) -> ObjectVersion:
        answer = clients.s3().put_object(Bucket=CONTENT, Key="a", Body=body)
        etag = answer["ETag"].strip('"')
        return replace(VERSION, version_id="null", etag=etag, size_bytes=len(body))

    old, new = put(b"old"), put(b"new")
    cloud.announce(old, new)
    cloud.run()
    assert [row.pin for row in cloud.all_files()] == [f"null-{new.etag}"]
    [(_, parked)] = cloud.parking_lot.all()
    assert (parked.reason, parked.version) == (Reason.SOURCE_CHANGED, old)


# Messages


VERSION = ObjectVersion(
    key="a", version_id="v1", size_bytes=1, etag="e", sequencer="", event_at=datetime(2026, 9, 1, tzinfo=UTC)
)
NOT_EVENTS = [
    "not JSON",
    "[]",
    "{}",
    '{"Records": [{}]}',
    "[" * 100_000,
    s3_event(VERSION).replace('"size": 1', '"size": 1e999'),
    s3_event(VERSION).replace('"eTag": "e"', '"eTag": "\\ud800"'),
]


def test_what_is_no_event_is_parked_and_acknowledged_and_its_neighbours_are_collected(
    cloud: MotoCloud, shown: list[tuple[str, int]]
) -> None:
    version = cloud.upload("a", b"a")
    other = s3_event(version, bucket="other")
    assert invoke(collect.handler, *NOT_EVENTS, other, s3_event(version), '{"Event": "s3:TestEvent"}') == []
    parked = [item for _, item in cloud.parking_lot.all()]
    assert {item.reason for item in parked} == {Reason.EVENT_INVALID}
    assert sorted(item.evidence[:50_000] for item in parked) == sorted(body[:50_000] for body in [*NOT_EVENTS, other])
    cloud.run()
    assert [row.key for row in cloud.all_files()] == ["a"]
    assert not shown


def test_a_batch_of_a_thousand_events_is_noted_with_a_handful_of_requests(cloud: MotoCloud) -> None:
    version = cloud.upload("a", b"a")
    bodies = [s3_event(replace(version, key=f"{number}", size_bytes=0)) for number in range(1_000)]
    LEDGER.settle()
    assert invoke(collect.handler, *bodies) == []
    assert sum(bundle.count for bundle in cloud.bundles.unfinished()) == 1_000


def test_the_same_event_a_hundred_times_in_any_order_is_one_file(cloud: MotoCloud) -> None:
    versions = [cloud.upload("a", b"one"), cloud.upload("a", b"two"), cloud.upload("film", bytes(TARGET + 1))]
    events = [s3_event(version) for version in reversed(versions)]
    for _ in range(5):
        assert invoke(collect.handler, *events * 20) == []
    cloud.run()
    assert len(cloud.all_files()) == 3
    assert sum(archive.files for archive in cloud.archives.all()) == 3


@pytest.mark.parametrize(
    ("operation", "code", "seconds"),
    [
        ("PutItem", "ThrottlingException", TRANSIENT_BACKOFF_S[1]),
        ("UpdateItem", "AccessDeniedException", 2 * BACKOFF_S),
    ],
)
def test_no_event_is_acknowledged_before_it_is_noted(
    cloud: MotoCloud, shown: list[tuple[str, int]], operation: str, code: str, seconds: int
) -> None:
    """Seen elsewhere: a message deleted from the queue before the work is done."""
    versions = [cloud.upload("a", b"a"), cloud.upload("b", b"b")]
    end = refuse(clients.dynamodb(), operation, code, 400)
    try:
        failed = invoke(collect.handler, *map(s3_event, versions), delivery=2)
    finally:
        end()
    assert failed == ["message-0", "message-1"]
    assert shown == [("receipt-0", seconds), ("receipt-1", seconds)]
    assert invoke(collect.handler, *map(s3_event, versions)) == []
    cloud.run()
    assert len(cloud.all_files()) == 2


def refuse_key(key: str, code: str) -> Any:
    """DynamoDB refuses every part that holds this key; what is returned ends it."""

    def answer(params: dict[str, Any], **_: Any) -> None:
        noted = json.loads(params["body"])["Item"].get("versions")
        if noted and key.encode() in zlib.decompress(base64.b64decode(noted["B"])):
            response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(response, "PutItem")

    events = clients.dynamodb().meta.events
    events.register_first("before-call.*.PutItem", answer)
    return lambda: events.unregister("before-call.*.PutItem", answer)


def test_a_message_that_can_never_be_collected_fails_alone(cloud: MotoCloud, shown: list[tuple[str, int]]) -> None:
    versions = [cloud.upload(key, key.encode()) for key in ("before", "poison", "after")]
    end = refuse_key("poison", "ValidationException")
    try:
        assert invoke(collect.handler, *map(s3_event, versions), delivery=3) == ["message-1"]
    finally:
        end()
    assert shown == [("receipt-1", 3 * BACKOFF_S)]
    cloud.run()
    assert {row.key for row in cloud.all_files()} == {"before", "after"}
    assert not list(cloud.parking_lot.all())


def test_what_may_pass_sends_the_whole_batch_back(cloud: MotoCloud, shown: list[tuple[str, int]]) -> None:
    """To try a thousand messages one by one would only add to the load."""
    versions = [cloud.upload(key, key.encode()) for key in ("before", "poison", "after")]
    end = refuse_key("poison", "ThrottlingException")
    try:
        assert invoke(collect.handler, *map(s3_event, versions)) == ["message-0", "message-1", "message-2"]
    finally:
        end()
    assert {seconds for _, seconds in shown} == {TRANSIENT_BACKOFF_S[0]}
    assert invoke(collect.handler, *map(s3_event, versions)) == []
    cloud.run()
    assert len(cloud.all_files()) == 3


def test_each_bad_record_of_a_message_is_parked_and_its_neighbours_are_collected(cloud: MotoCloud) -> None:
    good = cloud.upload("a", b"a")
    records = [json.loads(s3_event(version))["Records"][0] for version in (good, good, good, good)]
    records[0]["s3"]["bucket"]["name"] = "other"
    records[1]["s3"]["object"] |= {"key": "long", "sequencer": "1" * 33}
    records[2]["s3"]["object"]["size"] = -1
    assert invoke(collect.handler, json.dumps({"Records": records})) == []
    parked = [item for _, item in cloud.parking_lot.all()]
    assert sorted(item.detail[:9] for item in parked) == ["record 0:", "record 1:", "record 2:"]
    assert {item.reason for item in parked} == {Reason.EVENT_INVALID}
    assert any("a sequencer of 33 digits" in item.detail for item in parked)
    cloud.run()
    assert [row.key for row in cloud.all_files()] == ["a"]


@pytest.mark.parametrize("handler", [write_archive.handler, copy_large.handler], ids=["bundles", "large"])
def test_what_is_no_request_to_write_a_bundle_is_parked_and_acknowledged(
    cloud: MotoCloud, shown: list[tuple[str, int]], handler: Any
) -> None:
    version = cloud.upload("a", b"a" * (TARGET + 1 if handler is copy_large.handler else 1))
    cloud.announce(version)
    cloud.deliver("collect")
    [bundle] = cloud.bundles.unfinished()
    bodies = ["not a request", write_request(bundle.id), '{"bundle": 7}', "[" * 100_000]
    assert invoke(handler, *bodies) == []
    assert not shown
    assert [row.key for row in cloud.all_files()] == ["a"]
    parked = [item for _, item in cloud.parking_lot.all()]
    assert {item.reason for item in parked} == {Reason.EVENT_INVALID}
    assert sorted(item.evidence[:20] for item in parked) == sorted(
        body[:20] for body in bodies if body != write_request(bundle.id)
    )


def test_a_bundle_that_fails_comes_back_soon_and_its_neighbour_is_done(
    cloud: MotoCloud, shown: list[tuple[str, int]]
) -> None:
    for key in ("a", "b"):
        cloud.announce(cloud.upload(key, bytes(TARGET)))
        cloud.deliver("collect")
    requests = [write_request(bundle.id) for bundle in cloud.bundles.unfinished()]
    failing = cloud.bundles.parts(requested_bundle(requests[0]))[0].key

    def answer(params: dict[str, Any], **_: Any) -> None:
        if params["url_path"].endswith(f"/{failing}"):
            response: Any = {"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(response, "GetObject")

    events = clients.s3().meta.events
    events.register_first("before-call.*.GetObject", answer)
    try:
        assert invoke(write_archive.handler, *requests) == ["message-0"]
    finally:
        events.unregister("before-call.*.GetObject", answer)
    assert shown == [("receipt-0", BACKOFF_S)]
    assert {"a", "b"} - {row.key for row in cloud.all_files()} == {failing}
    assert not list(cloud.parking_lot.all())
    assert invoke(write_archive.handler, requests[0]) == []
    assert {row.key for row in cloud.all_files()} == {"a", "b"}


def test_when_s3_fails_the_bundle_is_tried_again_and_nothing_is_parked(
    cloud: MotoCloud, shown: list[tuple[str, int]]
) -> None:
    cloud.announce(cloud.upload("a", b"a"), cloud.upload("b", b"b"))
    cloud.deliver("collect")
    [bundle] = cloud.bundles.unfinished()
    end = refuse(clients.s3(), "GetObject", "SlowDown", 503)
    try:
        for delivery in (1, 2, 3, 4, 9):
            assert invoke(write_archive.handler, write_request(bundle.id), delivery=delivery) == ["message-0"]
    finally:
        end()
    assert [seconds for _, seconds in shown] == [10, 60, 300, 900, 900]
    assert [bundle.tries for bundle in cloud.bundles.unfinished()] == [5]
    assert not list(cloud.parking_lot.all())
    cloud.run()
    assert len(cloud.all_files()) == 2


def test_a_message_that_meets_a_lease_comes_back_when_it_ends(cloud: MotoCloud, shown: list[tuple[str, int]]) -> None:
    cloud.announce(cloud.upload("film", bytes(TARGET + 1)), cloud.upload("a", b"a"))
    cloud.deliver("collect")
    for bundle in cloud.bundles.unfinished():
        now = datetime.now(UTC)
        cloud.bundles.claim(bundle.id, owner="another", now=now, until=now.replace(year=now.year + 1))
        handler = copy_large.handler if bundle.kind == "object" else write_archive.handler
        assert invoke(handler, write_request(bundle.id)) == ["message-0"]
    assert all(seconds > 3_600 for _, seconds in shown)
    assert len(shown) == 2


def test_the_queue_shows_a_message_again_as_asked(cloud: MotoCloud) -> None:
    queue = cloud.queue("bundles")
    for number in range(12):
        queue.send(f"{number}")
    receipts = []
    while answer := clients.sqs().receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10).get("Messages"):
        receipts += [message["ReceiptHandle"] for message in answer]
    assert len(receipts) == 12
    queue.show_again(dict.fromkeys(receipts, 0))
    assert len(cloud.bodies("bundles")) == 10
    queue.show_again(dict.fromkeys(receipts, 999_999))
    assert cloud.bodies("bundles") == [], "as long as SQS allows: 12 hours, counted from the delivery"


@pytest.mark.parametrize(
    ("error", "deliveries", "seconds"),
    [
        (Transient("503"), 1, 10),
        (Transient("503"), 2, 60),
        (Transient("503"), 3, 300),
        (Transient("503"), 4, 900),
        (Transient("503"), 10, 900),
        (ValueError("bug"), 2, 2 * BACKOFF_S),
        (Busy("leased", retry_after_s=77), 3, 77),
    ],
    ids=str,
)
def test_the_backoff_grows_with_each_delivery(error: Exception, deliveries: int, seconds: int) -> None:
    assert backoff_s(error, deliveries) == seconds


def test_the_lease_belongs_to_the_invocation_not_to_the_message(
    cloud: MotoCloud, shown: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is delivered while its first delivery is still at work must wait as any other."""
    cloud.announce(cloud.upload("film", bytes(TARGET + 1)), cloud.upload("a", b"a"))
    cloud.deliver("collect")
    for bundle in cloud.bundles.unfinished():
        handler = copy_large.handler if bundle.kind == "object" else write_archive.handler
        now = datetime.now(UTC)
        cloud.bundles.claim(bundle.id, owner="request", now=now, until=now + timedelta(hours=1))
        monkeypatch.setattr(CONTEXT, "aws_request_id", "another request")
        assert invoke(handler, write_request(bundle.id)) == ["message-0"]
        monkeypatch.setattr(CONTEXT, "aws_request_id", "request")
        assert invoke(handler, write_request(bundle.id)) == []
    assert [seconds > 3_000 for _, seconds in shown] == [True, True]
    assert len(cloud.all_files()) == 2


def test_the_sweep_finds_what_lost_its_message(cloud: MotoCloud) -> None:
    cloud.announce(cloud.upload("film", bytes(TARGET + 1)), cloud.upload("a", b"a"))
    cloud.deliver("collect")
    [tar] = (bundle for bundle in cloud.bundles.unfinished() if bundle.kind == "tar")
    cloud.bundles.create(replace(tar, id="history", lane=Lane.BACKFILL))
    for name in ("bundles", "large"):
        clients.sqs().purge_queue(QueueUrl=cloud.urls[name])
    assert invoke(sweep.handler, "{}") == []
    assert not cloud.bodies("bundles"), "it is not overdue yet"
    for bundle in cloud.bundles.unfinished():
        clients.dynamodb().update_item(
            TableName="archives",
            Key={"pk": {"S": f"bundle#{bundle.id}"}, "sk": {"S": "bundle"}},
            UpdateExpression="SET due_at = :past",
            ExpressionAttributeValues={":past": {"N": "1"}},
        )
    now = datetime.now(UTC)
    cloud.bundles.claim(tar.id, owner="another", now=now, until=now + timedelta(seconds=60))
    assert invoke(sweep.handler, "{}") == []
    assert not cloud.bodies("bundles"), "it is being written"
    assert [requested_bundle(body) for body in cloud.bodies("backfill_bundles")] == ["history"]
    cloud.bundles.release(tar.id, owner="another")
    assert invoke(sweep.handler, "{}") == []
    cloud.run()
    assert {row.key for row in cloud.all_files()} == {"film", "a"}


# What an invocation leaves behind


def test_nothing_is_left_in_the_temporary_folder_and_nothing_of_one_invocation_gets_into_the_next(
    cloud: MotoCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen elsewhere: a warm Lambda appends to a left-over file and duplicates data."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for number in range(3):
        cloud.announce(cloud.upload(f"{number}", b"x" * 100), cloud.upload(f"film-{number}", bytes(TARGET + 1)))
        cloud.run()
    assert list(tmp_path.iterdir()) == []
    tars = [archive for archive in cloud.archives.all() if archive.kind == "tar"]
    assert [archive.files for archive in tars] == [1, 1, 1]
    assert len({archive.size_bytes for archive in tars}) == 1
    assert len(cloud.all_files()) == 6


class Log:
    """What a function logs, instead of its log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append((message, fields))


def ledger(out: str) -> Tally:
    """The ledgers of the invocations that printed this."""
    lines = [json.loads(line) for line in out.splitlines() if '"service":"Ledger"' in line]
    return sum((from_line(line) for line in lines), Tally())


def test_each_invocation_logs_its_own_requests_and_units(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log()
    for module in (invocation, collect):
        monkeypatch.setattr(module, "logger", lambda: log)
    version = cloud.upload("a", b"a")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
    LEDGER.settle()
    capsys.readouterr()
    assert invoke(collect.handler, s3_event(version)) == []
    collected = ledger(capsys.readouterr().out)
    assert collected.requests["dynamodb:UpdateItem"] >= 1
    assert "s3:GetObject" not in collected.requests
    assert collected.counted[Charge.DYNAMODB_WRITE_UNIT] > 0
    # S3 has sent the event; the mapping has received and deleted it.
    assert (collected.imputed[Charge.SQS_REQUEST], collected.imputed[Charge.LAMBDA_REQUEST]) == (3, 1)
    [bundle] = cloud.bundles.unfinished()
    LEDGER.settle()
    assert invoke(write_archive.handler, write_request(bundle.id)) == []
    written = ledger(capsys.readouterr().out)
    assert (written.requests["s3:GetObject"], written.requests["s3:PutObject"]) == (1, 2)
    assert (written.counted[Charge.S3_PUT], written.counted[Charge.S3_PUT_GLACIER]) == (1, 1)
    assert written.imputed[Charge.SQS_REQUEST] == 2
    assert "dynamodb:TransactWriteItems" not in written.requests
    assert not written.unpriced
    assert sum(message == "archived" for message, _ in log.lines) == 1


def test_what_the_model_says_of_a_run_is_what_its_ledger_says(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
    versions = [cloud.upload(f"{number}", b"x" * 50) for number in range(150)]
    large = [cloud.upload("film", bytes(TARGET + 1))]
    capsys.readouterr()

    def invoked(handler: Any, *bodies: str) -> Tally:
        LEDGER.settle()  # what the test asked for itself
        assert invoke(handler, *bodies) == []
        return ledger(capsys.readouterr().out)

    collected = Tally()
    for start in range(0, 150, 10):
        collected += invoked(collect.handler, *map(s3_event, versions[start : start + 10]))
    collected += invoked(collect.handler, s3_event(large[0]))
    written = sum((invoked(write_archive.handler, body) for body in cloud.bodies("bundles")), Tally())
    written += invoked(copy_large.handler, *cloud.bodies("large"))
    cloud.run()  # nothing is left
    archives = list(cloud.archives.all())
    assert sum(archive.files for archive in archives) == 151
    run = Run(
        files=150,
        size_bytes=150 * 50,
        batches=16,
        archives=sum(archive.kind == "tar" for archive in archives),
        large=[version.size_bytes for version in large],
        messages=collected.requests["sqs:SendMessage"],
        storage_class="GLACIER",
    )
    came_to, model = (
        Bill(prices=US_EAST_1, uses=tuple(uses)) for uses in (requested((collected + written).uses()), as_run(run))
    )
    assert came_to.usd == pytest.approx(model.usd, rel=0.05)
    assert not collected.unpriced
    assert not written.unpriced


def test_settings_come_from_the_environment(cloud: MotoCloud) -> None:
    assert collect.config().target_bytes == TARGET == int(os.environ["NEVE_TARGET_BYTES"])
    assert sweep.config().sweep_queue_url == cloud.urls["sweep"]

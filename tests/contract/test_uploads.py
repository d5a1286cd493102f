"""CopyUpload and ReleaseUpload on moto: from S3's event to an upload that is let go; and a death at every call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

import copy_upload
from neve.aws import clients, invocation
from neve.aws.faults import status
from neve.domain.parked import Reason
from neve.domain.pointer import InContent
from neve.domain.upload import LOOK_BYTES, render_release
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.flows.copy_upload import Copied, UploadCopier
from tests.bad_keys import BAD_KEYS
from tests.memory_uploads import rows_of
from tests.moto_cloud import CONTENT, CONTEXT, UPLOADS, Killed, MotoCloud, moto_cloud

QUEUES = ("uploads", "release")


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        yield made


def put(cloud: MotoCloud, key: str, body: bytes, **extra: Any) -> ObjectVersion:
    return cloud.upload(key, body, bucket=UPLOADS, **extra)


def stands(bucket: str, key: str) -> bytes | None:
    """The bytes that a reader gets."""
    try:
        return clients.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if status(error) != 404:
            raise
        return None


def require_served(cloud: MotoCloud, upload: ObjectVersion, body: bytes) -> None:
    """The pointer names the upload's copy, which is what is served; the upload is let go, and in the attic."""
    pointer = cloud.pointers.get(upload.key)
    assert isinstance(pointer, InContent)
    assert (pointer.upload_version, pointer.sequencer) == (upload.version_id, upload.sequencer)
    answer = clients.s3().get_object(Bucket=CONTENT, Key=pointer.content_key)
    assert (answer["Body"].read(), answer["VersionId"]) == (body, pointer.content_version)
    assert stands(UPLOADS, upload.key) is None
    attic = clients.s3().get_object(Bucket=UPLOADS, Key=upload.key, VersionId=upload.version_id)
    assert attic["Body"].read() == body


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    """The log's lines with this message, whose fields are attributes."""
    return [record for record in caplog.records if record.msg == message]


def metric(captured: str, name: str) -> list[float]:
    """The values of a metric, from all lines in which it is."""
    lines = [json.loads(line) for line in captured.split("\n") if line.startswith("{")]
    return [value for line in lines if "_aws" in line for value in line.get(name, [])]


def test_every_bad_key_goes_from_upload_to_served_and_let_go(
    cloud: MotoCloud, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    uploads = {key: put(cloud, key, f"{number}".encode()) for number, key in enumerate(BAD_KEYS)}
    cloud.arrive(*uploads.values())
    cloud.run(*QUEUES)
    for number, upload in enumerate(uploads.values()):
        require_served(cloud, upload, f"{number}".encode())
    copied = told(caplog, "copied")
    assert {line.key for line in copied} == {line.key for line in told(caplog, "released")} == set(BAD_KEYS)
    assert all(line.lag_s >= 0 and line.content_version for line in copied)
    captured = capsys.readouterr().out
    assert sum(metric(captured, "copied")) == sum(metric(captured, "released")) == len(BAD_KEYS)
    assert len(metric(captured, "lag_s")) == len(BAD_KEYS)
    assert not list(cloud.parking_lot.all())


def test_an_upload_asks_aws_for_no_more_than_docs_say(cloud: MotoCloud) -> None:
    """docs/decisions.md has the price of a million."""
    copied = ["GetItem", "CopyObject", "PutItem", "SendMessage"]
    released = ["GetItem", "HeadObject", "DeleteObject"]
    cloud.arrive(put(cloud, "before", b""))
    cloud.run(*QUEUES)  # a sender looks into the outbox once
    for body, more in ((b"one", []), (b"three", ["HeadObject"]), (b"4" * LOOK_BYTES, ["HeadObject"] * 2)):
        cloud.called.clear()
        cloud.arrive(put(cloud, "a", body))
        cloud.run(*QUEUES)
        assert sorted(cloud.called) == sorted(copied + released + more)


def test_what_is_no_upload_is_parked_and_its_neighbours_go_on(cloud: MotoCloud) -> None:
    reserved, upload = put(cloud, ".neve/drill/a", b"no"), put(cloud, "a", b"yes")
    elsewhere = cloud.upload("b", b"b")
    for body in ("no event", render_release(CONTENT, elsewhere)):
        cloud.queue("uploads").send(body)
        cloud.queue("release").send(body)
    cloud.announce(elsewhere)
    [event] = cloud.bodies("collect")
    cloud.queue("uploads").send(event)
    cloud.arrive(reserved, upload)
    cloud.run(*QUEUES)
    require_served(cloud, upload, b"yes")
    parked = [item for _, item in cloud.parking_lot.all()]
    assert sorted(item.reason for item in parked) == [Reason.EVENT_INVALID] * 5 + [Reason.SOURCE_UNFIT]
    [of_upload] = [item for item in parked if item.version]
    assert (of_upload.version, of_upload.bucket) == (reserved, UPLOADS)
    assert stands(UPLOADS, ".neve/drill/a") == b"no"
    assert stands(CONTENT, ".neve/drill/a") is None


def test_an_upload_into_a_bucket_without_versions_is_served_and_stays(
    cloud: MotoCloud, caplog: pytest.LogCaptureFixture
) -> None:
    clients.s3().delete_bucket(Bucket=UPLOADS)
    clients.s3().create_bucket(Bucket=UPLOADS)
    for body in (b"one", b"two"):
        upload = put(cloud, "a", body)
        assert upload.version_id == NULL_VERSION
        cloud.arrive(upload)
        cloud.run(*QUEUES)
        assert stands(CONTENT, "a") == stands(UPLOADS, "a") == body
    cloud.queue("release").send(render_release(UPLOADS, upload))
    cloud.run(*QUEUES)
    assert stands(UPLOADS, "a") == b"two"
    [line] = told(caplog, "kept")
    assert "keeps no versions" in line.detail


def test_what_was_restored_in_place_of_an_upload_stays_when_its_event_comes_once_more(cloud: MotoCloud) -> None:
    upload = put(cloud, "a", b"two")
    cloud.arrive(upload)
    cloud.run(*QUEUES)
    restored = cloud.upload("a", b"one")
    row, archive = rows_of(restored, written_at=restored.event_at - timedelta(hours=1))
    cloud.files.record([row])
    cloud.archives.put(archive)
    cloud.arrive(upload)
    cloud.run(*QUEUES)
    assert stands(CONTENT, "a") == b"one"


def test_a_copy_that_fails_for_a_while_comes_back(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neve.aws.queue.SqsQueue.show_again", lambda *_: None)  # it is visible at once
    upload = put(cloud, "a", b"one")
    cloud.arrive(upload)

    def slow_down(**_: Any) -> None:
        response: Any = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
        raise ClientError(response, "CopyObject")

    events = clients.s3().meta.events
    events.register_first("before-call.s3.CopyObject", slow_down)
    assert cloud.deliver("uploads") == 1
    events.unregister("before-call.s3.CopyObject", slow_down)
    assert cloud.pointers.get("a") is None
    cloud.run(*QUEUES)
    require_served(cloud, upload, b"one")


def test_uploads_behind_one_that_takes_long_go_back_and_do_not_die_with_it(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = [put(cloud, key, b"x") for key in ("a", "b", "c")]
    cloud.arrive(*uploads)
    late = timedelta()
    monkeypatch.setattr(copy_upload, "now", lambda: invocation.now() + late)
    copy = UploadCopier.copy

    def slow(self: UploadCopier, upload: ObjectVersion, *, until: datetime) -> Copied:
        nonlocal late
        late += timedelta(seconds=CONTEXT.get_remaining_time_in_millis() / 1000 * 0.6)
        return copy(self, upload, until=until)

    monkeypatch.setattr(UploadCopier, "copy", slow)
    monkeypatch.setattr("neve.aws.queue.SqsQueue.show_again", lambda *_: None)  # they are visible at once
    cloud.deliver("uploads")
    assert [key for key in "abc" if cloud.pointers.get(key)] == ["a"]
    late = timedelta()
    monkeypatch.undo()
    cloud.run(*QUEUES)
    assert all(cloud.pointers.get(key) for key in "abc")


def live(cloud: MotoCloud, key: str, kill_at: int) -> None:
    """An upload and a re-upload whose events come the wrong way round, with a death after call `kill_at`."""
    first, second = put(cloud, key, b"one"), put(cloud, key, b"three")
    cloud.calls, cloud.kill_at, cloud.kill_after = 0, kill_at, True
    for upload in (second, first):
        cloud.arrive(upload)
        for _ in range(3):
            try:
                cloud.run(*QUEUES)
                break
            except Killed:
                pass  # the messages come again
    cloud.kill_at = 0
    require_served(cloud, second, b"three")


def test_dying_after_any_call_that_writes_changes_nothing_in_the_end(cloud: MotoCloud) -> None:
    """Dying before a call, or after one that reads, is dying after the last that wrote: AWS cannot tell them apart."""
    live(cloud, "whole", 0)
    writes = cloud.writes
    assert len(writes) >= 4
    for number in writes:
        live(cloud, f"{number}", number)
    assert not list(cloud.parking_lot.all())

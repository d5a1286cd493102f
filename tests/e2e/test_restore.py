"""Archived files, deleted from the content bucket, come back byte for byte, to every kind of place, by the command."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from neve.domain.index import FileRow
from neve.domain.restore import Ending, Wanted
from neve.domain.selection import folder_path
from neve.domain.thaw import ThawState
from tests.deployed import OTHER_BUCKET, UPLOADS_BUCKET, Stacks, neve, policy

TOLD = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": "*"}

SMALL = [f"album/{number:03} é+&.jpg" for number in range(300)]
"""In several archives, their keys not those of any file system or URL."""
DESCRIBED, FILM, LOST = "album/described.html", "album/film.mov", "album/lost.mov"
SAID = {
    "ContentType": "text/html; charset=utf-8",
    "CacheControl": "max-age=60",
    "ContentDisposition": "inline",
    "ContentEncoding": "identity",
    "ContentLanguage": "de",
    "Metadata": {"photographer": "nobody"},
}
TAGS = [{"Key": "rated", "Value": ""}, {"Key": "season", "Value": "late winter"}]


@dataclass(frozen=True, kw_only=True)
class Album:
    """What was archived and then deleted from the content bucket. `began` is when, in seconds since 1970."""

    bodies: dict[str, bytes]
    rows: dict[str, FileRow]
    began: float
    heard: str
    """A queue that hears what the topic `restored` tells."""


@pytest.fixture(scope="module")
def album(stacks: Stacks) -> Album:
    """300 small files, one with metadata and tags, and two large ones: archived, and deleted."""
    began, draw, content = time.time(), random.Random(3), stacks.outputs["ContentBucket"]
    heard = stacks.sqs.create_queue(QueueName="heard", Attributes={"Policy": policy(TOLD)})["QueueUrl"]
    arn = stacks.sqs.get_queue_attributes(QueueUrl=heard, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    stacks.cloud.session().client("sns").subscribe(
        TopicArn=stacks.outputs["RestoredTopic"],
        Protocol="sqs",
        Endpoint=arn,
        Attributes={"RawMessageDelivery": "true"},
    )
    large = int(stacks.outputs["TargetBytes"]) + 1
    stored = stacks.upload({FILM: draw.randbytes(large)}, Tagging="season=late%20winter&rated=", **SAID)
    stored |= stacks.upload({LOST: draw.randbytes(large)})
    stored |= stacks.upload({key: draw.randbytes(draw.randrange(60_000)) for key in SMALL})
    stored |= stacks.upload({DESCRIBED: b"<p>snow</p>"}, Tagging="season=late%20winter&rated=", **SAID)
    rows = {key: row for (key, _), row in stacks.wait_until_archived(list(stored)).items()}
    stacks.s3.delete_objects(Bucket=content, Delete={"Objects": [{"Key": key} for key in rows], "Quiet": True})
    bodies = {key: body for (key, _), body in stored.items()}
    return Album(bodies=bodies, rows=rows, began=began, heard=heard)


def restore(operator: dict[str, str], *words: str) -> dict[str, Any]:
    """What `neve restore ... --wait --json` says in the end."""
    ended = neve(operator, "restore", *words, "--wait", "--json")
    assert ended.exit_code in (0, 1), (ended.exit_code, ended.stderr, ended.exception)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def endings(told: dict[str, Any]) -> Any:
    """How many files of a job ended in which way."""
    assert told["problems"] == 0, told["first_problems"]
    return told["result"]["endings"]


def body_of(stacks: Stacks, place: str) -> bytes:
    """The bytes at s3://bucket/key."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    return bytes(stacks.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def metadata_of(stacks: Stacks, bucket: str, key: str) -> dict[str, Any]:
    """What S3 says of an object besides its bytes."""
    head = stacks.s3.head_object(Bucket=bucket, Key=key)
    tags = stacks.s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    return {name: head.get(name) for name in SAID} | {"Tags": sorted(tags, key=lambda tag: str(tag["Key"]))}


def test_single_files_come_back_to_their_place_to_another_bucket_and_to_a_local_file(
    stacks: Stacks, album: Album, operator: dict[str, str], tmp_path: Path
) -> None:
    content = stacks.outputs["ContentBucket"]
    local = tmp_path / "one.jpg"
    for words in ([DESCRIBED], [SMALL[0], f"s3://{OTHER_BUCKET}/one.jpg"], [SMALL[1], str(local)]):
        assert endings(restore(operator, *words, "--days", "2")) == {"restored": 1}
    assert body_of(stacks, f"s3://{content}/{DESCRIBED}") == album.bodies[DESCRIBED]
    assert metadata_of(stacks, content, DESCRIBED) == SAID | {"Tags": TAGS}
    assert body_of(stacks, f"s3://{OTHER_BUCKET}/one.jpg") == album.bodies[SMALL[0]]
    assert local.read_bytes() == album.bodies[SMALL[1]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Five hundred lines and where their files are to be. `told` is what the command said of the first run."""

    lines: Path
    objects: dict[str, str]
    """Place by key."""
    files: dict[str, Path]
    told: dict[str, Any]


@pytest.fixture(scope="module")
def batch(stacks: Stacks, album: Album, operator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """A batch to places of every kind, restored."""
    content, folder = stacks.outputs["ContentBucket"], tmp_path_factory.mktemp("restored")
    keys = [FILM, *SMALL[-249:]]
    objects = {key: f"s3://{content}/{key}" for key in keys[:100]}
    objects |= {key: f"s3://{OTHER_BUCKET}/back/{key}" for key in keys[100:175]}
    objects |= {key: f"s3://{UPLOADS_BUCKET}/{key}" for key in keys[175:225]}
    files = {key: folder / folder_path(key) for key in keys[225:]}
    given = {
        key: {content: "content", UPLOADS_BUCKET: "uploads"}.get(place.split("/")[2], f"s3://{OTHER_BUCKET}/back/")
        for key, place in objects.items()
    }
    given |= dict.fromkeys(files, f"{folder}/")
    lines = tmp_path_factory.mktemp("batch") / "lines"
    as_json = [json.dumps({"source": key, "destination": place}) for key, place in list(given.items())[:125]]
    as_text = [f"{key}\t{place}" for key, place in list(given.items())[125:]]
    lines.write_text("\n".join(["# the album", *as_json, "", *as_text]))
    told = restore(operator, "--batch", str(lines), "--days", "1")  # fewer: nothing need be extended
    return Batch(lines=lines, objects=objects, files=files, told=told)


def test_a_batch_comes_back_to_places_of_every_kind_byte_for_byte(stacks: Stacks, album: Album, batch: Batch) -> None:
    assert endings(batch.told) == {"restored": 250}
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda place: body_of(stacks, place), batch.objects.values())
        bodies = dict(zip(batch.objects, found, strict=True))
    bodies |= {key: path.read_bytes() for key, path in batch.files.items()}
    assert [key for key, body in bodies.items() if body != album.bodies[key]] == []
    assert len(bodies) == 250
    assert metadata_of(stacks, stacks.outputs["ContentBucket"], FILM) == SAID | {"Tags": TAGS}


def test_every_archive_was_thawed_once(stacks: Stacks, album: Album, batch: Batch) -> None:
    needed = {row.archive for key, row in album.rows.items() if key != LOST}
    asked = stacks.requests("PlanRestoreFunction", since=album.began)
    assert len(needed) > 2
    assert asked["s3:RestoreObject"] == len(needed)


def test_what_was_restored_is_not_archived_again(stacks: Stacks, album: Album, batch: Batch) -> None:
    content = stacks.outputs["ContentBucket"]
    restored = [DESCRIBED, *(key for key, place in batch.objects.items() if place.startswith(f"s3://{content}/"))]

    def passed_over() -> int:
        lines = [
            line
            for function in ("WriteArchiveFunction", "CopyLargeFunction")
            for line in stacks.cloud.function_logs(
                stacks.outputs[function], containing='"duplicates"', since=album.began
            )
        ]
        return sum(json.loads(line)["duplicates"] for line in lines)

    stacks.wait_for("bundles of restored versions", lambda: passed_over() >= len(restored))
    stacks.wait_for("every bundle finished", lambda: not stacks.bundles.unfinished())
    assert stacks.archives.get(max(row.archive for row in album.rows.values()) + 1) is None
    for key in restored:
        version = stacks.s3.head_object(Bucket=content, Key=key)["VersionId"]
        (row,) = [row for row in stacks.files.versions(key) if row.version_id == version]
        assert (row.archive, row.number) == (album.rows[key].archive, album.rows[key].number)


def test_restored_again_it_is_skipped(operator: dict[str, str], batch: Batch, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.write_text("\n".join(batch.lines.read_text().splitlines()[-50:]))
    told = restore(operator, "--batch", str(some), "--days", "1")
    assert endings(told) == {"skipped": 25}
    assert told["already_there"] == 25  # in the local folder: they are not asked for
    assert told["thaws"]["not_needed"] == told["archives"]


def test_a_changed_object_stays_unless_it_is_to_be_overwritten(
    stacks: Stacks, album: Album, operator: dict[str, str], batch: Batch
) -> None:
    key = next(iter(key for key in batch.objects if key != FILM))
    place = batch.objects[key]
    source = f"s3://{stacks.outputs['ContentBucket']}/{key}?versionId={album.rows[key].version_id}"
    stacks.upload({key: b"changed"})  # which is archived soon, and the newest version then
    assert endings(restore(operator, source)) == {"conflict": 1}
    assert body_of(stacks, place) == b"changed"
    assert endings(restore(operator, source, "--overwrite")) == {"restored": 1}
    assert body_of(stacks, place) == album.bodies[key]


def test_a_bucket_that_the_settings_do_not_name_is_refused(
    stacks: Stacks, operator: dict[str, str], album: Album
) -> None:
    stacks.s3.create_bucket(Bucket="of-somebody-else")
    refused = neve(operator, "restore", SMALL[0], "s3://of-somebody-else/")
    assert refused.exit_code != 0
    assert "restore_buckets" in refused.stderr
    job = stacks.ask_for([Wanted(key=SMALL[0], pin="", destination="s3://of-somebody-else/key")])
    assert stacks.ended(job).ended == {Ending.REFUSED: 1}


def test_an_operator_can_restore_and_nothing_more(stacks: Stacks, operator: dict[str, str], album: Album) -> None:
    s3: Any = stacks.cloud.session(
        access_key=operator["AWS_ACCESS_KEY_ID"],
        secret_key=operator["AWS_SECRET_ACCESS_KEY"],
        token=operator["AWS_SESSION_TOKEN"],
    ).client("s3")
    archive = stacks.archives.get(album.rows[LOST].archive)
    assert archive is not None
    content, stored = stacks.outputs["ContentBucket"], stacks.outputs["ArchiveBucket"]
    denied: list[Callable[[], Any]] = [
        lambda: s3.put_object(Bucket=content, Key="new", Body=b""),
        lambda: s3.put_object(Bucket=OTHER_BUCKET, Key="new", Body=b""),
        lambda: s3.delete_object(Bucket=content, Key=SMALL[-1]),
        lambda: s3.delete_object(Bucket=stored, Key=archive.object_key, VersionId=archive.object_version_id),
        lambda: s3.restore_object(Bucket=stored, Key=archive.object_key, RestoreRequest={"Days": 1}),
    ]
    for call in denied:
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Code"] == "AccessDenied"


def test_a_thaw_whose_event_is_lost_is_found_by_the_sweep(stacks: Stacks, album: Album) -> None:
    stored, serial = stacks.outputs["ArchiveBucket"], album.rows[LOST].archive
    archive = stacks.archives.get(serial)
    assert archive is not None
    notified = stacks.s3.get_bucket_notification_configuration(Bucket=stored)
    del notified["ResponseMetadata"]
    stacks.s3.put_bucket_notification_configuration(Bucket=stored, NotificationConfiguration={})
    try:
        job = stacks.ask_for([Wanted(key=LOST, pin="", destination=f"s3://{UPLOADS_BUCKET}/{LOST}")])
        stacks.wait_for(
            "the archive thawed",
            lambda: (
                'ongoing-request="false"'
                in stacks.s3.head_object(Bucket=stored, Key=archive.object_key).get("Restore", "")
            ),
        )
        time.sleep(0.5)  # longer than an event takes
    finally:
        stacks.s3.put_bucket_notification_configuration(Bucket=stored, NotificationConfiguration=notified)
    thaw = stacks.thaws.get(serial)
    assert thaw is not None
    assert thaw.state is ThawState.THAWING
    assert stacks.thaws.swap(thaw, replace(thaw, due_at=datetime.now(UTC)))  # as if the promised hours had passed
    stacks.sqs.send_message(QueueUrl=stacks.outputs["SweepRestoresQueue"], MessageBody="{}")
    assert stacks.ended(job).ended == {Ending.RESTORED: 1}
    assert body_of(stacks, f"s3://{UPLOADS_BUCKET}/{LOST}") == album.bodies[LOST]


def test_the_topic_tells_each_job_once_with_its_totals(stacks: Stacks, album: Album, batch: Batch) -> None:
    told: list[dict[str, Any]] = []
    while messages := stacks.sqs.receive_message(QueueUrl=album.heard, MaxNumberOfMessages=10).get("Messages"):
        told += [json.loads(message["Body"]) for message in messages]
    jobs = [message["job"] for message in told]
    assert len(set(jobs)) == len(jobs)
    assert batch.told["job"] in jobs
    totals = next(message for message in told if message["job"] == batch.told["job"])
    assert (totals["files"], totals["endings"]) == (250, {"restored": 250})

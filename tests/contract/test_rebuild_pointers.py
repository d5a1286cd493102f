"""`neve rebuild-pointers` and `neve uploads announce`: after pointers were lost, and for files of before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from typer.testing import CliRunner, Result

from neve.aws import clients
from neve.aws.content_listing import S3ContentListing
from neve.aws.pointers_table import DynamoPointers
from neve.domain.pointer import InContent
from neve_cli.main import app
from neve_cli.stack import Stack
from tests.moto_cloud import CONTENT, POINTERS, UPLOADS, MotoCloud, moto_cloud

NASTY = "a b+c/é\nnew"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoCloud]:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    with moto_cloud() as made:
        outputs = {
            "UploadsBucket": UPLOADS,
            "ContentBucket": CONTENT,
            "PointersTable": POINTERS,
            "UploadsQueue": made.urls["uploads"],
            "KeyLayout": "as-is",
        }
        session = boto3.Session(region_name="us-east-1")
        deployed = Stack(name="neve", region="us-east-1", session=session, outputs=outputs)
        monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)
        yield made


def neve(*words: str) -> Result:
    told = CliRunner().invoke(app, list(words))
    assert told.exit_code == 0, told.output
    return told


def put(bucket: str, key: str, body: bytes) -> str:
    return clients.s3().put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]


def test_only_what_is_current_is_listed_as_current(cloud: MotoCloud) -> None:
    put(CONTENT, "a", b"1")
    last = put(CONTENT, "a", b"2")
    put(CONTENT, "gone", b"3")
    clients.s3().delete_object(Bucket=CONTENT, Key="gone")
    other = put(CONTENT, "p/b", b"4")
    listing = S3ContentListing(clients.s3(), CONTENT)
    assert [(each.key, each.version_id) for each in listing.current("", prefix="")] == [("a", last), ("p/b", other)]
    assert [each.key for each in listing.current("", prefix="p/")] == ["p/b"]
    assert [each.key for each in listing.current("a", prefix="")] == ["p/b"]


def test_lost_pointers_come_back_and_uploads_go_on(cloud: MotoCloud) -> None:
    pointers = DynamoPointers(clients.dynamodb(), POINTERS)
    versions = {key: put(CONTENT, key, key.encode()) for key in ("a", NASTY)}
    assert "2 pointers missing" in neve("rebuild-pointers", "--dry-run").output
    assert pointers.get("a") is None
    told = json.loads(neve("rebuild-pointers", "--json").stdout)
    assert (told["written"], told["stood"], told["foreign"]) == (2, 0, 0)
    for key, version_id in versions.items():
        pointer = pointers.get(key)
        assert isinstance(pointer, InContent)
        assert (pointer.content_version, pointer.upload_version, pointer.sequencer) == (version_id, "", "")
    assert "0 pointers written; 2 stood already" in neve("rebuild-pointers").output

    put(UPLOADS, "a", b"another")
    assert "announced: 1 file, 7 B" in neve("uploads", "announce").output
    assert cloud.deliver("uploads") == 1
    pointer = pointers.get("a")
    assert isinstance(pointer, InContent)
    assert pointer.upload_version
    assert clients.s3().get_object(Bucket=CONTENT, Key="a")["Body"].read() == b"another"


def test_a_dry_run_announces_nothing(cloud: MotoCloud) -> None:
    for number in range(12):
        put(UPLOADS, f"{number:02}", b"x")
    told = json.loads(neve("uploads", "announce", "--dry-run", "--json", "--after", "01").stdout)
    assert (told["files"], told["size_bytes"], told["place"]) == (10, 10, "11")
    assert not cloud.bodies("uploads")
    neve("uploads", "announce", "--prefix", "0")
    assert [len(json.loads(body)["versions"]) for body in cloud.bodies("uploads")] == [10]

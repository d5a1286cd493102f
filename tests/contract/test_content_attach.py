"""`neve content attach` and `detach` on a bucket that another tool has filled, and whose rules stay as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from neve.aws import clients
from neve_cli import clock
from neve_cli.main import app
from neve_cli.stack import Stack
from tests.moto_cloud import CONTENT, MotoCloud, moto_cloud

READING: Any = {
    "Effect": "Allow",
    "Principal": {"Service": "cloudfront.amazonaws.com"},
    "Action": "s3:GetObject",
    "Resource": f"arn:aws:s3:::{CONTENT}/*",
}
COOLER: Any = {
    "ID": "cooler",
    "Status": "Enabled",
    "Filter": {"Prefix": "films/"},
    "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}],
}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoCloud]:
    """The content bucket was made by hand: it keeps no versions."""
    monkeypatch.delenv("NEVE_STACK", raising=False)
    with moto_cloud() as made:
        clients.s3().delete_bucket(Bucket=CONTENT)
        clients.s3().create_bucket(Bucket=CONTENT)
        outputs = {
            "ContentBucket": CONTENT,
            "CollectQueue": made.urls["collect"],
            "ContentBucketStatements": json.dumps([READING]),
            "ContentKeyStatements": json.dumps([{"Sid": "AllowNeveToUseTheKey"}]),
        }
        session = boto3.Session(region_name="us-east-1")
        deployed = Stack(name="neve", region="us-east-1", session=session, outputs=outputs)
        monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)
        monkeypatch.setattr(clock, "pause", lambda _: None)
        yield made


def neve(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["content", *words], input=answer)


def configuration() -> tuple[dict[str, Any], list[Any]]:
    """What the bucket is configured to tell, and its lifecycle."""
    told: Any = clients.s3().get_bucket_notification_configuration(Bucket=CONTENT)
    try:
        kept: Any = clients.s3().get_bucket_lifecycle_configuration(Bucket=CONTENT)["Rules"]
    except clients.s3().exceptions.ClientError:
        kept = []
    return {key: value for key, value in told.items() if key != "ResponseMetadata"}, kept


def notify(url: str, *events: str) -> None:
    """Another tool's rule, for its own queue."""
    queue = clients.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule: Any = {"Id": "other", "QueueArn": queue, "Events": events}
    rule["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "inbox/"}]}}
    clients.s3().put_bucket_notification_configuration(
        Bucket=CONTENT, NotificationConfiguration={"QueueConfigurations": [rule]}
    )


def test_a_bucket_of_another_tool_becomes_the_content_bucket_and_is_given_back_as_it_was(cloud: MotoCloud) -> None:
    for number in range(30):
        cloud.upload(f"inbox/{number}", b"from before")
    other = clients.sqs().create_queue(QueueName="other")["QueueUrl"]
    notify(other, "s3:ObjectTagging:*")
    before = configuration()

    assert neve("attach", answer="n\n").exit_code == 1
    assert configuration() == before
    told = neve("attach", answer="y\n")
    assert told.exit_code == 0, told.output
    assert "put-bucket-versioning" in told.output
    assert "put-bucket-policy" in told.output
    assert "neve backfill --dry-run" in told.output
    cloud.upload("inbox/new", b"new")  # S3 itself tells Collect
    clients.s3().put_object_tagging(Bucket=CONTENT, Key="inbox/0", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    cloud.run()
    assert [(row.key, row.version_id) for row in cloud.all_files()] == [("inbox/new", "null")]
    heard = clients.sqs().receive_message(QueueUrl=other, MaxNumberOfMessages=10)["Messages"]
    assert any("ObjectTagging" in message["Body"] and "inbox%2F0" in message["Body"] for message in heard)

    there = configuration()
    again = neve("attach")
    assert again.exit_code == 0, "nothing is to be changed, so nothing is asked"
    assert "nothing is to be changed" in again.output
    assert configuration() == there
    assert neve("detach", "--dry-run").exit_code == 0
    assert configuration() == there
    told = neve("detach")
    assert told.exit_code == 0, told.output
    assert configuration() == before


def test_what_stands_in_the_way_or_is_to_be_done_by_hand_is_told(cloud: MotoCloud) -> None:
    s3: Any = clients.s3()
    s3.put_bucket_lifecycle_configuration(Bucket=CONTENT, LifecycleConfiguration={"Rules": [COOLER]})
    s3.put_bucket_policy(Bucket=CONTENT, Policy=json.dumps({"Version": "2012-10-17", "Statement": READING}))
    by_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/k"}
    s3.put_bucket_encryption(
        Bucket=CONTENT,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": by_key}]},
    )
    document = json.loads(neve("attach", "--dry-run", "--json").stdout)
    assert [len(document[name]) for name in ("changes", "cautions", "by_hand", "refusals")] == [2, 2, 1, 0]
    assert "moves files to GLACIER" in document["cautions"][1]
    assert "AllowNeveToUseTheKey" in document["by_hand"][0]

    notify(cloud.urls["uploads"], "s3:ObjectCreated:*")
    before = configuration()
    told = neve("attach", "--yes")
    assert told.exit_code == 1
    assert "'other'" in told.output
    assert configuration() == before


def test_a_bucket_that_the_stacks_made_needs_none_of_it(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Stack(name="neve", region="us-east-1", session=boto3.Session(), outputs={"ContentBucket": CONTENT})
    monkeypatch.setattr("neve_cli.stack.find", lambda _: own)
    told = neve("attach", "--yes")
    assert told.exit_code == 2
    assert "content_bucket=NAME" in told.output

"""`neve uploads attach` and `detach` on a bucket that has a configuration of its own, which stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from neve.aws import clients
from neve_cli import clock, stack
from neve_cli.main import app
from neve_cli.stack import Stack
from tests.moto_cloud import CONTENT, UPLOADS, MotoCloud, moto_cloud

TRANSITION: Any = {
    "ID": "cooler",
    "Status": "Enabled",
    "Filter": {"Prefix": "films/"},
    "Transitions": [{"Days": 90, "StorageClass": "STANDARD_IA"}],
}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoCloud]:
    monkeypatch.delenv("NEVE_STACK", raising=False)
    with moto_cloud() as made:
        outputs = {
            "UploadsBucket": UPLOADS,
            "UploadsQueue": made.urls["uploads"],
            "AtticDays": "30",
            "ContentBucket": CONTENT,
        }
        session = boto3.Session(region_name="us-east-1")
        deployed = Stack(name="neve", region="us-east-1", session=session, outputs=outputs)
        monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)
        monkeypatch.setattr(clock, "pause", lambda _: None)
        yield made


def neve(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["uploads", *words], input=answer)


def arn(cloud: MotoCloud, queue: str) -> str:
    asked = clients.sqs().get_queue_attributes(QueueUrl=cloud.urls[queue], AttributeNames=["QueueArn"])
    return asked["Attributes"]["QueueArn"]


def notifications() -> dict[str, Any]:
    answer: Any = clients.s3().get_bucket_notification_configuration(Bucket=UPLOADS)
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def lifecycle() -> list[Any]:
    try:
        answer: Any = clients.s3().get_bucket_lifecycle_configuration(Bucket=UPLOADS)
    except clients.s3().exceptions.ClientError:
        return []
    return list(answer["Rules"])


def notify(**configuration: Any) -> None:
    s3: Any = clients.s3()
    s3.put_bucket_notification_configuration(Bucket=UPLOADS, NotificationConfiguration=configuration)


@pytest.fixture
def theirs(cloud: MotoCloud) -> dict[str, Any]:
    """A rule for another queue, one for a topic, and a lifecycle. (moto forgets EventBridge.)"""
    notify(
        QueueConfigurations=[
            {"Id": "removed", "QueueArn": arn(cloud, "collect"), "Events": ["s3:ObjectRemoved:*"]},
        ],
        TopicConfigurations=[
            {"Id": "restored", "TopicArn": cloud.topic_arn, "Events": ["s3:ObjectRestore:*"]},
        ],
    )
    s3: Any = clients.s3()
    s3.put_bucket_lifecycle_configuration(Bucket=UPLOADS, LifecycleConfiguration={"Rules": [TRANSITION]})
    return notifications()


def test_two_rules_are_added_and_taken_away_again(cloud: MotoCloud, theirs: dict[str, Any]) -> None:
    kept = lifecycle()
    told = neve("attach", "--yes")
    assert told.exit_code == 0, told.output
    there = notifications()
    assert there["TopicConfigurations"] == theirs["TopicConfigurations"]
    [other, own] = sorted(there["QueueConfigurations"], key=lambda rule: rule["QueueArn"])
    assert other == theirs["QueueConfigurations"][0]
    assert (own["Id"], own["QueueArn"], own["Events"]) == (
        "neve-uploads",
        arn(cloud, "uploads"),
        ["s3:ObjectCreated:*"],
    )
    assert [rule["ID"] for rule in lifecycle()] == ["cooler", "neve-attic"]
    assert lifecycle()[1]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30

    assert "nothing is to be changed" in neve("attach").output
    assert notifications() == there

    told = neve("detach")
    assert told.exit_code == 0, told.output
    assert notifications() == theirs
    assert lifecycle() == kept


def test_a_bucket_without_a_lifecycle_has_none_in_the_end(cloud: MotoCloud) -> None:
    assert neve("attach", "--yes").exit_code == 0
    assert len(lifecycle()) == 1
    assert neve("detach").exit_code == 0
    assert (lifecycle(), notifications()) == ([], {})


def test_a_dry_run_and_a_no_change_nothing(cloud: MotoCloud, theirs: dict[str, Any]) -> None:
    told = neve("attach", "--dry-run")
    assert told.exit_code == 0
    assert "is told of every new object" in told.output
    assert neve("attach", answer="n\n").exit_code == 1
    assert neve("attach").exit_code == 1, "nobody is there to answer"
    assert notifications() == theirs
    document = json.loads(neve("attach", "--dry-run", "--json").stdout)
    assert (document["changed"], document["refusals"], len(document["changes"])) == (False, [], 2)


def test_an_overlapping_rule_and_a_bucket_without_versions_are_refused(cloud: MotoCloud) -> None:
    mine = {"Id": "mine", "QueueArn": arn(cloud, "collect"), "Events": ["s3:ObjectCreated:Put"]}
    notify(QueueConfigurations=[mine])
    clients.s3().put_bucket_versioning(Bucket=UPLOADS, VersioningConfiguration={"Status": "Suspended"})
    told = neve("attach", "--yes")
    assert told.exit_code == 1
    assert "'mine'" in told.output
    assert "put-bucket-versioning" in told.output
    assert [rule["Id"] for rule in notifications()["QueueConfigurations"]] == ["mine"]
    assert lifecycle() == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_somebody_else_s_change_beside_ours_is_told(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    other = {"Id": "other", "QueueArn": arn(cloud, "collect"), "Events": ["s3:ObjectRemoved:*"]}
    s3: Any = stack.find("neve").s3
    put, put_lifecycle = s3.put_bucket_notification_configuration, s3.put_bucket_lifecycle_configuration

    def then(call: Any) -> Any:
        def both(**words: Any) -> Any:
            answer = call(**words)
            notify(QueueConfigurations=[other])
            return answer

        return both

    if moment == "before":
        monkeypatch.setattr(s3, "put_bucket_lifecycle_configuration", then(put_lifecycle))
    else:
        monkeypatch.setattr(s3, "put_bucket_notification_configuration", then(put))
    told = neve("attach", "--yes")
    assert told.exit_code == 1
    assert "somebody else has" in told.output
    assert [rule["Id"] for rule in notifications()["QueueConfigurations"]] == ["other"]

"""The local cloud itself: it keeps what it holds, owns up to a crash, and enforces permissions as AWS does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session
from botocore.exceptions import ClientError

from neve_local.cloud import PROJECT, LocalCloud, LocalCloudError
from neve_local.processes import processes_of

TRUST_ACCOUNT = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}
TRUST_LAMBDA = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
LIST_ENVIRONMENT = "import os\ndef handler(event, context):\n    return sorted(os.environ)\n"
TELL_BATCH_SIZE = "def handler(event, context):\n    print('batch of', len(event['Records']))\n"
SLEEP = "import time\ndef handler(event, context):\n    time.sleep(60)\n"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A running local cloud with nothing deployed."""
    with pytest.MonkeyPatch.context() as host:
        host.setenv("NEVE_OF_THE_HOST", "must not reach a function")
        with LocalCloud(tmp_path_factory.mktemp("bare") / "cloud", port=0, tied=True) as running:
            yield running


def until(condition: Callable[[], Any], *, within_s: float = 20) -> Any:
    """What `condition` answers as soon as that is true; fails if it stays false."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.1)
    pytest.fail(f"not within {within_s} s")


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def assumed(cloud: LocalCloud, name: str, *grants: tuple[str, str]) -> Session:
    """A session with a new role that may do what `grants` say, each an action and a resource, and nothing else."""
    root = cloud.session()
    role = root.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy(TRUST_ACCOUNT))["Role"]
    statements = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in grants]
    root.client("iam").put_role_policy(RoleName=name, PolicyName="grants", PolicyDocument=policy(*statements))
    given = root.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
    return cloud.session(
        access_key=given["AccessKeyId"], secret_key=given["SecretAccessKey"], token=given["SessionToken"]
    )


def refusal(call: Callable[..., Any], **request: Any) -> tuple[int, str]:
    """The status and code with which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call(**request)
    answer = refused.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def make_function(cloud: LocalCloud, name: str, code: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("index.py", code)
    session = cloud.session()
    role = session.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy(TRUST_LAMBDA))
    session.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="index.handler",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": archive.getvalue()},
        Timeout=60,
    )


def test_what_it_holds_survives_a_stop(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud", port=0, tied=True)
    with cloud:
        session = cloud.session()
        session.client("s3").create_bucket(Bucket="kept")
        session.client("s3").put_object(Bucket="kept", Key="a/b", Body=b"bytes")
        queue = session.client("sqs").create_queue(QueueName="kept")["QueueUrl"]
        session.client("sqs").send_message(QueueUrl=queue, MessageBody="message")
        session.client("dynamodb").create_table(
            TableName="kept",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        session.client("dynamodb").put_item(TableName="kept", Item={"id": {"S": "row"}, "bytes": {"B": b"\x00\xff"}})
        endpoint = cloud.endpoint_url
    assert not cloud.running
    with cloud:
        session = cloud.session()
        assert cloud.endpoint_url == endpoint
        assert session.client("s3").get_object(Bucket="kept", Key="a/b")["Body"].read() == b"bytes"
        assert session.client("sqs").receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "message"
        row = session.client("dynamodb").get_item(TableName="kept", Key={"id": {"S": "row"}})["Item"]
        assert row["bytes"] == {"B": b"\x00\xff"}


def test_a_second_start_finds_it_running_and_a_second_stop_finds_nothing(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud", port=0, tied=True)
    first = cloud.start()
    second = LocalCloud(tmp_path / "cloud").start()
    assert not first.already_running
    assert second.already_running
    assert second.endpoint_url == first.endpoint_url
    assert cloud.stop().state_saved
    assert not cloud.stop().was_running


def test_after_a_crash_it_says_so_sets_the_remains_aside_and_starts_empty(tmp_path: Path) -> None:
    said: list[str] = []
    cloud = LocalCloud(tmp_path / "cloud", port=0, tied=True, say=said.append)
    cloud.start()
    cloud.session().client("s3").create_bucket(Bucket="lost")
    cloud.session().client("s3").put_object(Bucket="lost", Key="key", Body=b"bytes")
    cloud.kill()
    assert cloud.crashed
    with cloud:
        assert cloud.session().client("s3").list_buckets()["Buckets"] == []
    assert any("had not been stopped properly" in line for line in said)
    assert b"bytes" in {path.read_bytes() for path in cloud.layout.crashed.rglob("key*") if path.is_file()}
    assert not cloud.crashed


def test_a_note_of_a_process_id_that_is_another_program_now_counts_as_a_crash(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud", port=0, tied=True)
    cloud.layout.folder.mkdir()
    cloud.layout.running.write_text(json.dumps({"pid": os.getpid(), "port": 4566}))
    assert not cloud.running
    assert cloud.crashed
    assert cloud.start().set_aside == cloud.layout.crashed
    assert cloud.stop().state_saved


def test_a_port_that_was_asked_for_and_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(LocalCloudError, match="is taken"):
            LocalCloud(tmp_path / "cloud", port=other.getsockname()[1]).start()


def test_state_whose_port_is_taken_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        cloud = LocalCloud(tmp_path / "cloud")
        cloud.layout.folder.mkdir()
        cloud.layout.port.write_text(str(other.getsockname()[1]))
        with pytest.raises(LocalCloudError, match="neve local down --wipe"):
            cloud.start()


def test_a_tied_cloud_stops_when_its_starter_dies(tmp_path: Path) -> None:
    script = (
        "import os, pathlib; from neve_local.cloud import LocalCloud;"
        f"LocalCloud(pathlib.Path({str(tmp_path / 'cloud')!r}), port=0, tied=True).start(); os._exit(1)"
    )
    variables = {**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'lambdas'}"}
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=variables, check=False)
    cloud = LocalCloud(tmp_path / "cloud")
    until(lambda: not cloud.running)
    assert not cloud.crashed


def test_functions_do_not_outlive_the_server(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path / "cloud", port=0, tied=True)
    with cloud:
        make_function(cloud, "Sleep", SLEEP)
        cloud.session().client("lambda").invoke(FunctionName="Sleep", InvocationType="Event", Payload=b"{}")
        assert until(cloud.worker_pids) == cloud.worker_pids("Sleep")
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert processes_of(cloud.layout.folder) == []


def test_a_role_without_a_grant_is_denied(bare: LocalCloud) -> None:
    root = bare.session()
    root.client("s3").create_bucket(Bucket="guarded")
    root.client("s3").put_object(Bucket="guarded", Key="key", Body=b"bytes")
    reader = assumed(bare, "Reader", ("s3:GetObject", "arn:aws:s3:::guarded/*")).client("s3")
    assert reader.get_object(Bucket="guarded", Key="key")["Body"].read() == b"bytes"
    assert refusal(reader.put_object, Bucket="guarded", Key="key", Body=b"other") == (403, "AccessDenied")


def test_a_bucket_that_insists_on_tls_can_be_used(bare: LocalCloud) -> None:
    root = bare.session()
    root.client("s3").create_bucket(Bucket="tls-only")
    insist = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::tls-only", "arn:aws:s3:::tls-only/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    root.client("s3").put_bucket_policy(Bucket="tls-only", Policy=policy(insist))
    writer = assumed(bare, "Writer", ("s3:PutObject", "arn:aws:s3:::tls-only/*"))
    writer.client("s3").put_object(Bucket="tls-only", Key="key", Body=b"bytes")


def test_a_function_gets_more_than_ten_messages_at_once_and_its_log_can_be_read(bare: LocalCloud) -> None:
    make_function(bare, "Batches", TELL_BATCH_SIZE)
    sqs = bare.session().client("sqs")
    queue = sqs.create_queue(QueueName="batches", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    for start in range(0, 40, 10):
        sqs.send_message_batch(
            QueueUrl=queue, Entries=[{"Id": str(number), "MessageBody": "body"} for number in range(start, start + 10)]
        )
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bare.session().client("lambda").create_event_source_mapping(
        FunctionName="Batches", EventSourceArn=arn, BatchSize=100, MaximumBatchingWindowInSeconds=1
    )
    assert until(lambda: list(bare.function_logs("Batches", containing="batch of"))) == ["batch of 40"]


def test_a_function_sees_nothing_of_the_hosts_environment(bare: LocalCloud) -> None:
    make_function(bare, "Environment", LIST_ENVIRONMENT)
    answer = bare.session().client("lambda").invoke(FunctionName="Environment")
    assert "NEVE_OF_THE_HOST" not in json.load(answer["Payload"])


def test_a_copy_is_refused_where_an_object_is_and_computes_the_checksum_asked_for(bare: LocalCloud) -> None:
    s3 = bare.session().client("s3")
    s3.create_bucket(Bucket="copies")
    s3.put_object(Bucket="copies", Key="source", Body=b"bytes")
    source = "copies/source"
    s3.copy_object(Bucket="copies", Key="copy", CopySource=source, IfNoneMatch="*", ChecksumAlgorithm="SHA256")
    head = s3.head_object(Bucket="copies", Key="copy", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    assert refusal(s3.copy_object, Bucket="copies", Key="copy", CopySource=source, IfNoneMatch="*")[0] == 412


def thaw_stack(bucket: str) -> str:
    """A template: a versioned bucket tells a topic of thaws, which a queue hears; topic and queue insist on TLS."""

    def insist(action: str, resource: dict[str, Any]) -> dict[str, Any]:
        condition = {"Bool": {"aws:SecureTransport": "false"}}
        return {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource, "Condition": condition}

    def allow(service: str, action: str, resource: dict[str, Any], source: Any) -> dict[str, Any]:
        condition = {"ArnLike": {"aws:SourceArn": source}}
        principal = {"Service": f"{service}.amazonaws.com"}
        return {**insist(action, resource), "Effect": "Allow", "Principal": principal, "Condition": condition}

    def document(*statements: dict[str, Any]) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": statements}

    topic, queue = {"Ref": "Topic"}, {"Fn::GetAtt": ["Queue", "Arn"]}
    told = document(insist("sns:Publish", topic), allow("s3", "sns:Publish", topic, f"arn:aws:s3:::{bucket}"))
    heard = document(insist("sqs:*", queue), allow("sns", "sqs:SendMessage", queue, topic))
    resources: dict[str, tuple[str, dict[str, Any]]] = {
        "Topic": ("SNS::Topic", {}),
        "Told": ("SNS::TopicPolicy", {"Topics": [topic], "PolicyDocument": told}),
        "Queue": ("SQS::Queue", {}),
        "Heard": ("SQS::QueuePolicy", {"Queues": [{"Ref": "Queue"}], "PolicyDocument": heard}),
        "Subscription": (
            "SNS::Subscription",
            {"TopicArn": topic, "Protocol": "sqs", "Endpoint": queue, "RawMessageDelivery": True},
        ),
        "Bucket": (
            "S3::Bucket",
            {
                "BucketName": bucket,
                "VersioningConfiguration": {"Status": "Enabled"},
                "NotificationConfiguration": {
                    "TopicConfigurations": [{"Event": "s3:ObjectRestore:Completed", "Topic": topic}]
                },
            },
        ),
    }
    made = {name: {"Type": f"AWS::{kind}", "Properties": fields} for name, (kind, fields) in resources.items()}
    made["Bucket"]["DependsOn"] = "Told"
    return json.dumps({"Resources": made, "Outputs": {"Queue": {"Value": {"Ref": "Queue"}}}})


def test_a_thaw_is_asked_for_once_told_by_an_event_and_seen_in_head_of_the_version(bare: LocalCloud) -> None:
    root = bare.session()
    s3: Any = root.client("s3")
    sqs, stacks = root.client("sqs"), root.client("cloudformation")
    stacks.create_stack(StackName="thaw", TemplateBody=thaw_stack("thawing"))
    (stack,) = until(lambda: stacks.describe_stacks(StackName="thaw")["Stacks"])
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    queue = stack["Outputs"][0]["OutputValue"]
    key = "a b+ü.tar"
    put = s3.put_object(Bucket="thawing", Key=key, Body=b"0123456789", StorageClass="GLACIER")
    version = {"Bucket": "thawing", "Key": key, "VersionId": put["VersionId"]}
    bulk = {"Days": 1, "GlacierJobParameters": {"Tier": "Bulk"}}

    def ask() -> int:
        status: int = s3.restore_object(**version, RestoreRequest=bulk)["ResponseMetadata"]["HTTPStatusCode"]
        return status

    assert refusal(s3.get_object, **version, Range="bytes=0-1") == (403, "InvalidObjectState")
    assert refusal(s3.copy_object, Bucket="thawing", Key="copy", CopySource=version)[0] == 403
    assert ask() == 202
    assert refusal(s3.restore_object, **version, RestoreRequest=bulk) == (409, "RestoreAlreadyInProgress")
    assert s3.head_object(**version)["Restore"] == 'ongoing-request="true"'
    assert refusal(s3.get_object, **version, Range="bytes=0-1") == (403, "InvalidObjectState")

    def completed() -> list[Any]:
        heard = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages", [])
        return [record for each in heard for record in json.loads(each["Body"]).get("Records", [])]

    (record,) = until(completed)
    assert record["eventName"] == "ObjectRestore:Completed"
    assert record["s3"]["object"]["key"] == "a+b%2B%C3%BC.tar"
    assert "lifecycleRestorationExpiryTime" in record["glacierEventData"]["restoreEventData"]
    assert s3.head_object(**version)["Restore"].startswith('ongoing-request="false", expiry-date=')
    assert s3.get_object(**version, Range="bytes=2-4")["Body"].read() == b"234"
    assert ask() == 200
    s3.copy_object(Bucket="thawing", Key="copy", CopySource=version)
    assert "StorageClass" not in s3.head_object(Bucket="thawing", Key="copy")  # STANDARD


def test_restoring_asks_for_permissions_of_its_own(bare: LocalCloud) -> None:
    root = bare.session()
    root.client("s3").create_bucket(Bucket="cold")
    root.client("s3").put_object(Bucket="cold", Key="tar", Body=b"", StorageClass="GLACIER")
    every = "arn:aws:s3:::cold/*"
    place = {"Bucket": "cold", "Key": "tar"}
    request = {"Days": 1, "GlacierJobParameters": {"Tier": "Bulk"}}
    reader: Any = assumed(bare, "ColdReader", ("s3:GetObject", every), ("s3:PutObject", every)).client("s3")
    assert refusal(reader.restore_object, **place, RestoreRequest=request) == (403, "AccessDenied")
    assert refusal(reader.head_object, **place, VersionId="null")[0] == 403
    assert refusal(reader.head_object, Bucket="cold", Key="a//free b+ü")[0] == 403
    assert refusal(reader.put_object, Bucket="cold", Key="x", Tagging="a=b") == (403, "AccessDenied")
    reader.put_object(Bucket="cold", Key="x")
    other: Any = assumed(
        bare,
        "ColdRestorer",
        ("s3:RestoreObject", every),
        ("s3:GetObject*", every),
        ("s3:PutObject*", every),
        ("s3:ListBucket", "arn:aws:s3:::cold"),
    ).client("s3")
    assert other.restore_object(**place, RestoreRequest=request)["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert other.head_object(**place, VersionId="null")["StorageClass"] == "GLACIER"
    assert refusal(other.head_object, Bucket="cold", Key="a//free b+ü")[0] == 404
    other.put_object(Bucket="cold", Key="x", Tagging="a=b")


@pytest.mark.parametrize("missing", ["PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem"])
def test_each_item_of_a_transaction_is_a_permission_on_its_own_table(bare: LocalCloud, missing: str) -> None:
    table, key = f"Table{missing}", {"id": {"S": "row"}}
    bare.session().client("dynamodb").create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    items: dict[str, dict[str, Any]] = {
        "PutItem": {"Put": {"TableName": table, "Item": key}},
        "UpdateItem": {"Update": {"TableName": table, "Key": {"id": {"S": "2"}}, "UpdateExpression": "REMOVE a"}},
        "DeleteItem": {"Delete": {"TableName": table, "Key": {"id": {"S": "3"}}}},
        "ConditionCheckItem": {
            "ConditionCheck": {
                "TableName": table,
                "Key": {"id": {"S": "4"}},
                "ConditionExpression": "attribute_not_exists(id)",
            }
        },
    }
    grants = [(f"dynamodb:{action}", f"arn:aws:dynamodb:*:*:table/{table}") for action in items if action != missing]
    writer = assumed(bare, f"Without{missing}", *grants, (f"dynamodb:{missing}", "arn:aws:dynamodb:*:*:table/other"))
    call: Any = writer.client("dynamodb").transact_write_items
    call(TransactItems=[item for action, item in items.items() if action != missing])
    assert refusal(call, TransactItems=list(items.values()))[1] == "AccessDeniedException"


def test_publishing_is_a_permission(bare: LocalCloud) -> None:
    topic = bare.session().client("sns").create_topic(Name="told")["TopicArn"]
    publisher = assumed(bare, "Publisher", ("sns:Publish", topic)).client("sns")
    publisher.publish(TopicArn=topic, Message="done")
    reader = assumed(bare, "NoPublisher", ("sns:GetTopicAttributes", topic)).client("sns")
    assert refusal(reader.publish, TopicArn=topic, Message="done") == (403, "AuthorizationError")


def test_what_is_said_of_an_object_comes_back_and_a_delete_marker_leaves_its_key_free(bare: LocalCloud) -> None:
    s3: Any = bare.session().client("s3")
    s3.create_bucket(Bucket="described")
    s3.put_bucket_versioning(Bucket="described", VersioningConfiguration={"Status": "Enabled"})
    place = {"Bucket": "described", "Key": "key"}
    said = {
        "ContentType": "text/html; charset=utf-8",
        "CacheControl": "max-age=1",
        "ContentDisposition": "inline",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "WebsiteRedirectLocation": "/there",
        "Metadata": {"a": "b c"},
    }
    s3.meta.events.register(
        "before-sign.s3.PutObject", lambda request, **_: request.headers.add_header("Expires", "-1")
    )
    first = s3.put_object(**place, Body=b"1", Tagging="a=b%20c&d=", IfNoneMatch="*", **said)
    got = s3.get_object(**place, VersionId=first["VersionId"])
    assert got["Body"].read() == b"1"
    for found in (s3.head_object(**place), got):
        assert said.items() <= found.items()
        assert (found["ExpiresString"], found["TagCount"]) == ("-1", 2)
    assert s3.get_object_tagging(**place)["TagSet"] == [{"Key": "a", "Value": "b c"}, {"Key": "d", "Value": ""}]
    assert refusal(s3.put_object, **place, Body=b"2", IfNoneMatch="*") == (412, "PreconditionFailed")
    s3.delete_object(**place)
    assert refusal(s3.put_object, **place, Body=b"2", IfMatch=first["ETag"]) == (404, "NoSuchKey")
    second = s3.put_object(**place, Body=b"2", IfNoneMatch="*")
    assert refusal(s3.put_object, **place, Body=b"3", IfMatch=first["ETag"]) == (412, "PreconditionFailed")
    s3.put_object(**place, Body=b"3", IfMatch=second["ETag"])


def test_it_listens_on_the_loopback_interface_only(bare: LocalCloud) -> None:
    port = int(bare.endpoint_url.rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {each[1] for each in listening if each[3] == "0A" and each[1].endswith(f":{port:04X}")}
    assert addresses == {f"0100007F:{port:04X}"}

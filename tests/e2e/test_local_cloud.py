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
    role = root.client("iam").create_role(RoleName="Reader", AssumeRolePolicyDocument=policy(TRUST_ACCOUNT))
    grant = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::guarded/*"}
    root.client("iam").put_role_policy(RoleName="Reader", PolicyName="read", PolicyDocument=policy(grant))
    given = root.client("sts").assume_role(RoleArn=role["Role"]["Arn"], RoleSessionName="test")["Credentials"]
    reader = bare.session(
        access_key=given["AccessKeyId"], secret_key=given["SecretAccessKey"], token=given["SessionToken"]
    ).client("s3")
    assert reader.get_object(Bucket="guarded", Key="key")["Body"].read() == b"bytes"
    with pytest.raises(ClientError) as denied:
        reader.put_object(Bucket="guarded", Key="key", Body=b"other")
    assert denied.value.response["Error"]["Code"] == "AccessDenied"


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
    root.client("iam").create_role(RoleName="Writer", AssumeRolePolicyDocument=policy(TRUST_ACCOUNT))
    grant = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::tls-only/*"}
    root.client("iam").put_role_policy(RoleName="Writer", PolicyName="write", PolicyDocument=policy(grant))
    given = root.client("sts").assume_role(RoleArn="arn:aws:iam::000000000000:role/Writer", RoleSessionName="test")
    keys = given["Credentials"]
    writer = bare.session(
        access_key=keys["AccessKeyId"], secret_key=keys["SecretAccessKey"], token=keys["SessionToken"]
    )
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
    with pytest.raises(ClientError) as refused:
        s3.copy_object(Bucket="copies", Key="copy", CopySource=source, IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_it_listens_on_the_loopback_interface_only(bare: LocalCloud) -> None:
    port = int(bare.endpoint_url.rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {each[1] for each in listening if each[3] == "0A" and each[1].endswith(f":{port:04X}")}
    assert addresses == {f"0100007F:{port:04X}"}


def test_the_stacks_are_deployed_and_deploying_the_same_again_does_nothing(
    cloud: LocalCloud, settings: dict[str, str | int | float]
) -> None:
    outputs = cloud.outputs()
    assert {"ContentBucket", "ArchiveBucket", "FilesTable", "CollectFunction", "AlertsTopic"} <= outputs.keys()
    assert outputs["TargetBytes"] == str(4 * 1024 * 1024)
    said: list[str] = []
    again = LocalCloud(cloud.layout.folder, say=said.append)
    assert again.deploy(settings) == outputs
    assert said == ["the stacks are up to date"]

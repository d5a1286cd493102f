"""What the ledger sees of a client: attempts, pages, units, bytes; and what an invocation writes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError

from neve.aws import invocation
from neve.aws.ledger import LEDGER, Ledger, thawing
from neve.domain.metering import COUNTABLE
from neve.domain.prices import Charge
from neve.domain.tally import DIMENSION, NAMESPACE, RULES, Tally, from_line, metric_names


class Answers:
    """What AWS answers, one after the other; nothing is sent. Each is (status, headers, body), or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        raw: Any = Body(body)
        return AWSResponse(request.url, status, headers, raw)


class Body:
    """As urllib3 hands over what it read."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.body

    def read(self, *_: Any, **__: Any) -> bytes:
        body, self.body = self.body, b""
        return body


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


Tell = Callable[..., tuple[Any, Ledger]]


@pytest.fixture
def told(session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """A watched client to which AWS answers so, and its ledger."""
    monkeypatch.setattr("time.sleep", lambda _: None)

    def client(service: Any, *answers: Any) -> tuple[Any, Ledger]:
        made = session.client(service, config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
        made.meta.events.register("before-send", Answers(*answers))
        ledger = Ledger()
        ledger.watch(made)
        return made, ledger

    return client


def xml(body: str = "") -> tuple[int, dict[str, str], bytes]:
    return 200, {}, body.encode()


def rows(status: int = 200, **answer: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {}, json.dumps(answer).encode()


def test_a_retry_is_an_attempt_of_its_own_and_charged_unless_s3_was_busy(told: Tell) -> None:
    s3, ledger = told("s3", (503, {}, b""), xml())
    s3.put_object(Bucket="bucket", Key="a", Body=b"12345", StorageClass="GLACIER")
    tally = ledger.settle()
    assert (tally.requests, tally.retries) == ({"s3:PutObject": 2}, 1)
    assert tally.counted == {Charge.S3_PUT_GLACIER: 1}
    assert tally.sent_bytes == 10
    sqs, ledger = told("sqs", (500, {}, b""), ConnectTimeoutError(endpoint_url="https://sqs"), rows(MessageId="1"))
    sqs.send_message(QueueUrl="https://sqs/queue", MessageBody="é" * 40_000)
    tally = ledger.settle()
    assert (tally.requests, tally.retries) == ({"sqs:SendMessage": 3}, 2)
    assert tally.counted == {Charge.SQS_REQUEST: 6}


def test_each_page_is_a_request(told: Tell) -> None:
    pages = [
        f"<ListBucketResult><IsTruncated>{following}</IsTruncated>"
        f"<NextContinuationToken>{number}</NextContinuationToken></ListBucketResult>"
        for number, following in enumerate(("true", "true", "false"))
    ]
    s3, ledger = told("s3", *map(xml, pages))
    assert len(list(s3.get_paginator("list_objects_v2").paginate(Bucket="bucket"))) == 3
    tally = ledger.settle()
    assert (tally.requests, tally.counted) == ({"s3:ListObjectsV2": 3}, {Charge.S3_PUT: 3})
    assert tally.received_bytes == sum(map(len, pages))
    assert ledger.settle() == Tally()


def test_parts_are_charged_by_the_class_that_who_began_or_lists_the_upload_names(told: Tell) -> None:
    begun = xml("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    copied = xml("<CopyPartResult><ETag>e</ETag></CopyPartResult>")
    s3, ledger = told("s3", begun, copied, xml("<CompleteMultipartUploadResult/>"), copied)
    place = {"Bucket": "bucket", "Key": "a"}
    s3.create_multipart_upload(**place, StorageClass="DEEP_ARCHIVE")
    part = {**place, "UploadId": "u", "PartNumber": 1, "CopySource": "b/c"}
    s3.upload_part_copy(**part)
    s3.complete_multipart_upload(**place, UploadId="u", MultipartUpload={"Parts": []})
    assert ledger.settle().counted == {Charge.S3_PUT: 2, Charge.S3_PUT_DEEP_ARCHIVE: 1}
    s3.upload_part_copy(**part)
    assert ledger.settle().unpriced == {"s3:UploadPartCopy into an unknown class": 1}, "it was completed"


@pytest.mark.parametrize("listing", ["parts", "uploads"])
def test_an_upload_that_was_begun_elsewhere_is_known_once_it_was_listed(told: Tell, listing: str) -> None:
    parts = "<ListPartsResult><StorageClass>GLACIER_IR</StorageClass></ListPartsResult>"
    uploads = (
        "<ListMultipartUploadsResult><Upload><UploadId>u</UploadId><StorageClass>GLACIER_IR</StorageClass></Upload>"
        "</ListMultipartUploadsResult>"
    )
    s3, ledger = told("s3", xml(parts if listing == "parts" else uploads), xml("<CopyPartResult/>"))
    place = {"Bucket": "bucket", "Key": "a", "UploadId": "u"}
    if listing == "parts":
        s3.list_parts(**place)
    else:
        s3.list_multipart_uploads(Bucket="bucket")
    s3.upload_part_copy(**place, PartNumber=1, CopySource="b/c")
    assert ledger.settle().counted == {Charge.S3_PUT: 1, Charge.S3_PUT_GLACIER_IR: 1}


def test_a_read_is_charged_by_where_the_object_lies(told: Tell) -> None:
    headers = {"x-amz-storage-class": "GLACIER_IR", "content-length": "1073741824"}
    s3, ledger = told("s3", (200, headers, b""), (200, {"content-length": "4"}, b"1234"))
    s3.get_object(Bucket="bucket", Key="a")
    s3.get_object(Bucket="bucket", Key="b")
    tally = ledger.settle()
    assert tally.counted == {Charge.GLACIER_IR_GET: 1, Charge.GLACIER_IR_GB: 1, Charge.S3_GET: 1}
    assert tally.received_bytes == 1073741824 + 4


def test_a_thaw_is_charged_by_what_its_caller_says_of_the_archive(told: Tell) -> None:
    s3, ledger = told("s3", (202, {}, b""), (202, {}, b""))
    asked: Mapping[str, Any] = {
        "Bucket": "bucket",
        "Key": "a",
        "RestoreRequest": {"Days": 1, "GlacierJobParameters": {"Tier": "Bulk"}},
    }
    with thawing("DEEP_ARCHIVE", 2**30):
        s3.restore_object(**asked)
    s3.restore_object(**asked)
    tally = ledger.settle()
    assert tally.counted == {Charge.DEEP_ARCHIVE_BULK_REQUEST: 1, Charge.DEEP_ARCHIVE_BULK_GB: 1}
    assert tally.unpriced == {"s3:RestoreObject": 1}


def test_units_are_those_that_dynamodb_states_and_a_refused_condition_is_imputed(told: Tell) -> None:
    refused = rows(400, __type="com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", message="no")
    batch = rows(Responses={}, ConsumedCapacity=[{"CapacityUnits": 1.5}, {"CapacityUnits": 2.0}])
    dynamodb, ledger = told("dynamodb", rows(ConsumedCapacity={"CapacityUnits": 3.0}), batch, refused)
    dynamodb.put_item(TableName="t", Item={"k": {"S": "a"}})
    dynamodb.batch_get_item(RequestItems={"t": {"Keys": [{"k": {"S": "a"}}]}})
    with pytest.raises(ClientError):
        dynamodb.put_item(TableName="t", Item={"k": {"S": "a" * 2_000}, "b": {"B": b"1"}, "l": {"L": [{"BOOL": True}]}})
    tally = ledger.settle()
    assert tally.counted == {Charge.DYNAMODB_WRITE_UNIT: 3, Charge.DYNAMODB_READ_UNIT: 3.5}
    assert tally.imputed == {Charge.DYNAMODB_WRITE_UNIT: 2}


def test_messages_that_came_and_topics_count_by_64_kb(told: Tell) -> None:
    sqs, ledger = told("sqs", rows(Messages=[{"Body": "x" * 40_000}] * 3))
    sqs.receive_message(QueueUrl="https://sqs/queue")
    assert ledger.settle().counted == {Charge.SQS_REQUEST: 2}
    sns, ledger = told("sns", xml("<PublishResponse><PublishResult/></PublishResponse>"))
    sns.publish(TopicArn="arn", Message="x" * 70_000, Subject="y")
    assert ledger.settle().counted == {Charge.SNS_PUBLISH: 2}


def test_what_the_ledger_does_not_understand_is_unpriced_and_the_request_goes_on(
    told: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, ledger = told("s3", xml(), xml())
    s3.get_bucket_acl(Bucket="bucket")
    monkeypatch.setattr(Ledger, "_s3", lambda *_: {"colour": "blue"})
    s3.head_bucket(Bucket="bucket")
    assert ledger.settle().unpriced == {"s3:GetBucketAcl": 1, "s3:HeadBucket": 1}


def test_what_a_session_makes_is_watched_with_it(told: Tell) -> None:
    del told  # nothing waits
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    ledger = Ledger()
    ledger.watch_all(session)
    for service in ("ssm", "cloudwatch"):
        client: Any = session.client(cast("Any", service))
        client.meta.events.register("before-send", Answers(rows(), rows()))
        if service == "ssm":
            client.get_parameter(Name="n", WithDecryption=True)
        else:
            client.get_metric_data(MetricDataQueries=[{"Id": "a"}, {"Id": "b"}], StartTime=0, EndTime=1)
    tally = ledger.settle()
    assert (tally.imputed, tally.counted) == ({Charge.KMS_REQUEST: 1}, {Charge.METRIC_READ: 2})


# -- What an invocation writes -----------------------------------------------------------------------------------------


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in Lambda, with nothing in the ledger."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "neve")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "Collect")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
    invocation.metrics.cache_clear()
    LEDGER.settle()
    yield
    LEDGER.settle()


def record(body: str) -> SQSRecord:
    return SQSRecord({"messageId": "m", "receiptHandle": "r", "body": body, "attributes": {}})


def test_an_invocation_writes_one_line_of_metrics_and_details(
    function: None, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [record('{"Records": []}'), record('{"format": "neve-versions", "version": 1}')]

    def fail() -> None:
        with invocation.reported():
            LEDGER.impute({Charge.SNS_PUBLISH: 0})
            invocation.impute_step()
            invocation.impute_delivery(messages, failed=1, events=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"], line["service"]) == ("neve", [["service"]], "Ledger")
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert len(names) == 4, "none of them is zero"
    tally = from_line(line)
    assert (line["function"], line["requests"]) == ("Collect", {})
    assert tally.imputed[Charge.SQS_REQUEST] == 1 + 2, "S3 has sent one; both were received, one was deleted"
    assert (tally.imputed[Charge.LAMBDA_REQUEST], tally.imputed[Charge.STATE_TRANSITION]) == (1, 3)
    assert LEDGER.settle() == Tally()


def test_a_line_is_as_the_embedded_metric_format_is_specified_with_every_metric_that_there_is(
    function: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CloudWatch user guide, "Specification: Embedded metric format": what does not conform becomes no metric."""
    every = Ledger()
    for counter, charges in ((every._counted, COUNTABLE), (every._imputed, RULES)):
        counter.update(dict.fromkeys(charges, 0.5))
    every._unpriced["s3:SelectObjectContent"] = every._requests["s3:SelectObjectContent"] = 1
    every._retries = 1
    monkeypatch.setattr(invocation, "LEDGER", every)
    invocation.write_ledger()
    [text] = capsys.readouterr().out.splitlines()
    assert len(text.encode()) < 256 * 1024
    line = json.loads(text)
    assert set(line["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert isinstance(line["_aws"]["Timestamp"], int)
    assert line["_aws"]["Timestamp"] > 10**12, "milliseconds"
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert directive["Namespace"] == NAMESPACE
    assert directive["Dimensions"] == [[DIMENSION]]
    assert isinstance(line[DIMENSION], str)
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert sorted(names) == sorted(metric_names())
    assert len(set(names)) == len(names) <= 100
    for metric in directive["Metrics"]:
        assert set(metric) <= {"Name", "Unit", "StorageResolution"}
        assert metric["Unit"] == "Count"
        assert 1 <= len(metric["Name"]) <= 255
        [value] = line[metric["Name"]]
        assert isinstance(value, float)


def test_outside_of_lambda_no_invocation_is_imputed_and_nothing_is_written(
    function: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    with invocation.reported():
        pass
    assert not capsys.readouterr().out


def test_an_invocation_outlives_metrics_that_cannot_be_written(
    function: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE")
    invocation.logger.cache_clear()
    with invocation.reported():
        invocation.count("archived", 1)
    assert capsys.readouterr().out.count("metrics not written") == 2
    invocation.metrics().clear_metrics()
    invocation.metrics.cache_clear()
    invocation.logger.cache_clear()


def test_who_is_invoked_by_visitors_writes_once_a_minute(
    function: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(invocation, "_written_at", -float("inf"))
    for second in (0, 30, 59, 60, 61):
        clock[0] = 1_000.0 + second
        invocation.impute_time(clock[0])
        invocation.write_ledger_at_times()
    lines = [from_line(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [line.imputed[Charge.LAMBDA_REQUEST] for line in lines] == [1, 3]
    assert LEDGER.settle().imputed[Charge.LAMBDA_REQUEST] == 1

"""The bridges over the local cloud's differences from AWS: what they compute, and that they notice a new version."""

from __future__ import annotations

import asyncio
import json
import time
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from aws_lambda_powertools.metrics import EphemeralMetrics
from hypothesis import given
from hypothesis import strategies as st
from ministack import app as server
from ministack.core import iam_actions
from ministack.services import dynamodb as emulated_rows
from ministack.services import lambda_svc
from ministack.services import s3 as emulated
from ministack.services.cloudformation import provisioners

from neve_local import bridges
from neve_local.app import (
    MOST_ENVIRONMENTS,
    UNEVALUATED,
    AlarmOnFirstMetric,
    FewEnvironments,
    PutWithoutCondition,
    without_statement,
)
from neve_local.bridges import (
    BRIDGES,
    ENVELOPE_BYTES,
    LARGEST_PAYLOAD_BYTES,
    BridgeBroken,
    SharedCode,
    is_gathering,
    payload_count,
)

THAWED = {"available_at": 0, "expires_at": 32_503_680_000}
RUNNING = {"available_at": 32_503_680_000, "expires_at": 32_503_680_000}


@pytest.fixture
def sleeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The record of a sleeping archive `tar` in a versioned `bucket`, in ministack's own S3 behind the bridges."""
    for module, names in (
        (emulated, ("_get_object", "_head_object", "_copy_object", "_upload_part_copy", "_restore_object")),
        (iam_actions, ("s3_additional_checks",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))  # puts back what the bridges replace
    monkeypatch.setattr(emulated, "_restore_object", lambda bucket_name, key, body: (202, {}, b""))  # noqa: ARG005
    for build in (bridges.reads_of_versions, bridges.sleeping_archives, bridges.further_permissions):
        build()
    emulated._create_bucket("bucket", b"")
    emulated._bucket_versioning["bucket"] = "Enabled"
    emulated._put_object("bucket", "tar", b"0123456789", {"x-amz-storage-class": "GLACIER", "x-amz-tagging": "a=b&c=d"})
    yield emulated._buckets["bucket"]["objects"]["tar"]
    emulated.reset()


def message(body_bytes: int, visible_at: float = 0) -> dict[str, Any]:
    return {"body": "x" * body_bytes, "visible_at": visible_at}


def test_a_function_that_is_gone_breaks_the_bridge() -> None:
    with pytest.raises(BridgeBroken, match=r"emulator\.receive is gone"):
        bridges.existing(types.ModuleType("emulator"), "receive", ("queue_url",))


def test_a_function_with_other_parameters_breaks_the_bridge() -> None:
    module = types.ModuleType("emulator")
    module.receive = lambda queue, number: (queue, number)  # type: ignore[attr-defined]
    with pytest.raises(BridgeBroken, match="takes"):
        bridges.existing(module, "receive", ("queue_url", "max_number"))


def test_every_bridge_says_why() -> None:
    assert len({bridge.name for bridge in BRIDGES}) == len(BRIDGES)
    assert all(bridge.why for bridge in BRIDGES)


def test_code_is_extracted_once_and_every_worker_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as packed:
        packed.writestr("collect.py", "import neve")
        packed.writestr("neve/__init__.py", "")
    for worker in (tmp_path / "first", tmp_path / "second"):
        worker.mkdir()
        with SharedCode(tmp_path / "code.zip") as code:
            code.extractall(worker)
        assert (worker / "collect.py").read_text() == "import neve"
    first, second = ((tmp_path / worker / "neve" / "__init__.py").resolve() for worker in ("first", "second"))
    assert first == second


def test_a_batch_is_as_large_as_asked_for_if_there_is_enough() -> None:
    assert payload_count([message(100)] * 250, at_most=200, now=1) == 200
    assert payload_count([message(100)] * 250, at_most=1000, now=1) == 250


def test_a_batch_is_gathered_until_it_is_full_or_its_first_message_has_waited_for_the_window() -> None:
    waiting = [message(1, visible_at=10.0), message(1, visible_at=10.8), message(1, visible_at=99)]
    assert is_gathering(waiting, at_most=100, window_s=1, now=10.9)
    assert not is_gathering(waiting, at_most=100, window_s=1, now=11)
    assert not is_gathering(waiting, at_most=2, window_s=1, now=10.9)
    assert not is_gathering(waiting, at_most=100, window_s=0, now=10.9)
    assert not is_gathering([], at_most=100, window_s=1, now=10.9)


def test_a_batch_skips_what_is_not_visible_yet() -> None:
    assert payload_count([message(1, visible_at=5), message(1), message(1)], at_most=10, now=1) == 2


def test_a_message_larger_than_the_payload_still_comes_alone() -> None:
    assert payload_count([message(LARGEST_PAYLOAD_BYTES)] * 2, at_most=10, now=1) == 1


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=60), st.integers(1, 80))
def test_a_batch_never_exceeds_the_payload_and_could_not_be_larger(sizes: list[int], at_most: int) -> None:
    count = payload_count([message(size) for size in sizes], at_most=at_most, now=1)
    taken = sum(size + ENVELOPE_BYTES for size in sizes[:count])
    assert 1 <= count <= min(at_most, len(sizes))
    assert taken <= LARGEST_PAYLOAD_BYTES
    if count < min(at_most, len(sizes)):
        assert taken + sizes[count] + ENVELOPE_BYTES > LARGEST_PAYLOAD_BYTES


def test_only_the_named_statement_is_taken_out() -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Sid": "Kept"}, {"Sid": UNEVALUATED}, {"Effect": "Deny"}]}
    assert without_statement(document, UNEVALUATED) == {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Kept"}, {"Effect": "Deny"}],
    }


def test_the_statement_is_taken_out_of_a_synthesized_bucket_policy_and_the_rest_stays() -> None:
    stack = cdk.Stack(cdk.App(), "stack")
    bucket = s3.Bucket(stack, "Bucket", enforce_ssl=True)
    for sid in (UNEVALUATED, "Another"):
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects("*")],
            )
        )
    bridge = PutWithoutCondition()
    cdk.Aspects.of(stack).add(bridge)
    (policy,) = Template.from_stack(stack).find_resources("AWS::S3::BucketPolicy").values()
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    assert bridge.removed == 1
    assert [statement.get("Sid") for statement in statements] == [None, "Another"]
    assert statements[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_an_alarm_on_an_expression_looks_at_its_first_metric_and_one_on_a_metric_stays() -> None:
    stack = cdk.Stack(cdk.App(), "stack")
    sent, lost = (cloudwatch.Metric(namespace="post", metric_name=name, statistic="Sum") for name in ("sent", "lost"))
    both = cloudwatch.MathExpression(expression="sent + lost", using_metrics={"sent": sent, "lost": lost})
    cloudwatch.Alarm(stack, "Both", metric=both, threshold=1, evaluation_periods=3)
    cloudwatch.Alarm(stack, "Lost", metric=lost, threshold=1, evaluation_periods=3)
    cdk.Aspects.of(stack).add(AlarmOnFirstMetric())
    alarms = Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm").values()
    assert [alarm["Properties"]["MetricName"] for alarm in alarms] == ["sent", "lost"]
    for alarm in alarms:
        assert "Metrics" not in alarm["Properties"]
        assert (alarm["Properties"]["Namespace"], alarm["Properties"]["Statistic"]) == ("post", "Sum")
        assert (alarm["Properties"]["Period"], alarm["Properties"]["EvaluationPeriods"]) == (300, 3)


def test_a_batch_of_deletions_is_checked_as_one_of_versions_if_it_names_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(iam_actions, "extract_iam_action", iam_actions.extract_iam_action)  # puts it back
    bridges.deletions_of_versions()

    def asked(entry: str) -> str:
        body = f"<Delete><Object><Key>a</Key>{entry}</Object></Delete>".encode()
        found: str = iam_actions.extract_iam_action("s3", "POST", "/bucket", {}, body, {"delete": ""})
        return found

    assert asked("<VersionId>null</VersionId>") == "s3:DeleteObjectVersion"
    assert asked("") == "s3:DeleteObject"
    assert iam_actions.extract_iam_action("s3", "DELETE", "/bucket/a", {}, b"", {}) == "s3:DeleteObject"


def test_each_statement_of_a_batch_is_checked_as_what_it_does() -> None:
    body = json.dumps(
        {
            "Statements": [
                {"Statement": "INSERT INTO \"files\" VALUE {'shard': ?}"},
                {"Statement": "INSERT INTO \"files\" VALUE {'shard': ?}"},
                {"Statement": "delete from other where pk = ?"},
                {"Statement": 'UPDATE "third-table" SET x = 1'},
            ]
        }
    ).encode()
    assert bridges.statement_actions(body) == [
        ("dynamodb:PartiQLDelete", "other"),
        ("dynamodb:PartiQLInsert", "files"),
        ("dynamodb:PartiQLUpdate", "third-table"),
    ]


def test_a_range_of_a_version_is_that_range_of_the_current_one_and_of_older_ones(sleeping: dict[str, Any]) -> None:
    sleeping["restore"] = THAWED
    version = {"versionId": sleeping["version_id"]}
    current = emulated._get_object("bucket", "tar", {"range": "bytes=2-4"}, version)
    emulated._put_object("bucket", "key", b"abcdef", {"x-amz-checksum-crc32": "S4457w=="})
    older = {"versionId": emulated._buckets["bucket"]["objects"]["key"]["version_id"]}
    emulated._put_object("bucket", "key", b"other", {})
    ask = {"range": "bytes=1-", "x-amz-checksum-mode": "ENABLED"}
    before = emulated._get_object("bucket", "key", ask, older)
    assert [(status, fields["Content-Range"], body) for status, fields, body in (current, before)] == [
        (206, "bytes 2-4/10", b"234"),
        (206, "bytes 1-5/6", b"bcdef"),
    ]
    assert "x-amz-checksum-crc32" not in before[1]  # it would be that of the whole
    assert emulated._get_object("bucket", "key", {}, older)[::2] == (200, b"abcdef")


def test_a_version_that_is_not_thawed_cannot_be_read_in_any_form(sleeping: dict[str, Any]) -> None:
    for restore in (None, RUNNING):
        sleeping["restore"] = restore
        for query in ({}, {"versionId": sleeping["version_id"]}):
            assert emulated._get_object("bucket", "tar", {}, query)[0] == 403
            assert emulated._get_object("bucket", "tar", {"range": "bytes=0-1"}, query)[0] == 403


def test_head_of_a_version_tells_its_thaw_and_the_number_of_its_tags(sleeping: dict[str, Any]) -> None:
    def head() -> dict[str, str]:
        version = {"versionId": sleeping["version_id"]}
        fields: dict[str, str] = emulated._head_object("bucket", "tar", {}, version)[1]
        return fields

    assert "x-amz-restore" not in head()
    assert (head()["x-amz-version-id"], head()["x-amz-tagging-count"]) == (sleeping["version_id"], "2")
    sleeping["restore"] = RUNNING
    assert head()["x-amz-restore"] == 'ongoing-request="true"'
    sleeping["restore"] = THAWED
    assert head()["x-amz-restore"].startswith('ongoing-request="false", expiry-date="')


def test_what_sleeps_is_not_copied_and_a_copy_of_what_is_thawed_lies_in_the_standard_class(
    sleeping: dict[str, Any],
) -> None:
    def copies() -> list[int]:
        found = []
        for version in ("", f"?versionId={sleeping['version_id']}"):
            headers = {"x-amz-copy-source": f"bucket/tar{version}"}
            found.append(emulated._copy_object("bucket", "copy", headers)[0])
            started = emulated._create_multipart_upload("bucket", "parts", {})[2].decode()
            upload = {"uploadId": started.partition("<UploadId>")[2].partition("<")[0], "partNumber": "1"}
            found.append(emulated._upload_part_copy("bucket", "parts", upload, headers)[0])
        return found

    assert copies() == [403] * 4
    sleeping["restore"] = RUNNING
    assert copies() == [403] * 4
    sleeping["restore"] = THAWED
    assert copies() == [200] * 4
    assert emulated._buckets["bucket"]["objects"]["copy"]["storage_class"] == "STANDARD"
    assert emulated._copy_object("bucket", "copy", {"x-amz-copy-source": "bucket/none"})[0] == 404


def test_what_comes_in_parts_has_the_checksum_of_the_whole_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_complete_multipart_upload", "_composite_checksum"):
        monkeypatch.setattr(emulated, name, getattr(emulated, name))
    bridges.whole_checksums()
    emulated._create_bucket("bucket", b"")
    asked = {"x-amz-checksum-algorithm": "CRC64NVME"}
    started = emulated._create_multipart_upload("bucket", "film", asked)[2].decode()
    upload = {"uploadId": started.partition("<UploadId>")[2].partition("<")[0]}
    parts = b""
    for number in (1, 2):
        fields = emulated._upload_part("bucket", "film", b"half", {**upload, "partNumber": str(number)}, {})[1]
        parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{fields['ETag']}</ETag></Part>".encode()
    body = b"<CompleteMultipartUpload>" + parts + b"</CompleteMultipartUpload>"

    def complete(of: bytes) -> tuple[int, bytes]:
        headers = {"x-amz-checksum-crc64nvme": emulated._compute_s3_checksum("CRC64NVME", of)}
        status, _, answer = emulated._complete_multipart_upload("bucket", "film", body, upload, headers)
        return status, answer

    assert complete(b"other")[0] == 400
    status, answer = complete(b"halfhalf")
    assert (status, answer.count(b"FULL_OBJECT"), answer.count(b"COMPOSITE")) == (200, 1, 0)
    stated = emulated._head_object("bucket", "film", {"x-amz-checksum-mode": "ENABLED"})[1]
    assert stated["x-amz-checksum-crc64nvme"] == emulated._compute_s3_checksum("CRC64NVME", b"halfhalf")
    assert stated["x-amz-checksum-type"] == "FULL_OBJECT"
    emulated.reset()


def test_deep_archive_is_not_thawed_with_expedited(sleeping: dict[str, Any]) -> None:
    def ask(tier: str) -> int:
        body = f"<RestoreRequest><GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
        status: int = emulated._restore_object("bucket", "tar", body.encode())[0]
        return status

    assert ask("Expedited") == 202
    sleeping["storage_class"] = "DEEP_ARCHIVE"
    assert ask("Expedited") == 400
    assert ask("Bulk") == 202


@pytest.mark.usefixtures("sleeping")
def test_tags_of_a_put_and_the_knowledge_that_a_key_is_free_are_permissions_of_their_own() -> None:
    def asked(method: str, key: str, headers: dict[str, str] | None = None, **query: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = iam_actions.s3_additional_checks(
            method, f"/bucket/{key}", headers or {}, b"", query
        )
        return found

    tagging, listing = ("s3:PutObjectTagging", "arn:aws:s3:::bucket/a//b"), ("s3:ListBucket", "arn:aws:s3:::bucket")
    assert asked("PUT", "a//b", {"x-amz-tagging": "a=b"}) == [tagging]
    assert asked("POST", "a//b", {"x-amz-tagging": "a=b"}, uploads="") == [tagging]
    assert asked("PUT", "a//b") == asked("PUT", "a//b", {"x-amz-tagging": ""}) == []
    assert asked("GET", "none") == asked("HEAD", "none") == [listing]
    assert asked("GET", "tar") == asked("HEAD", "tar") == []


def test_a_function_url_leads_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioners, "_lambda_url_attributes", provisioners._lambda_url_attributes)
    monkeypatch.setenv("GATEWAY_PORT", "4599")
    bridges.reachable_function_urls()
    stored = {"FunctionArn": "arn", "FunctionUrl": "https://abc.lambda-url.us-east-1.on.aws/"}
    assert provisioners._lambda_url_attributes(stored) == {
        "FunctionArn": "arn",
        "FunctionUrl": "http://127.0.0.1:4599/_aws/lambda-url/abc/",
    }


def test_a_function_url_hands_over_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dispatch(  # noqa: PLR0917  # as ministack has it
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_params: dict[str, list[str]],
        request_id: str,
        raw_path: str | None = None,
        raw_query_string: str = "",
        client_ip: str = "",
    ) -> dict[str, Any]:
        built: dict[str, Any] = lambda_svc._build_function_url_event(
            "abc", "1", "us-east-1", method, path, headers, body, query_params
        )
        return built

    monkeypatch.setattr(server, "_handle_special_data_plane_request", dispatch)
    monkeypatch.setattr(lambda_svc, "_build_function_url_event", lambda_svc._build_function_url_event)
    bridges.paths_as_sent()
    event = asyncio.run(
        server._handle_special_data_plane_request(
            *("GET", "/_aws/lambda-url/abc/a+b/%", {}, b"", {"v": ["1 2"]}, "id"),
            raw_path="/_aws/lambda-url/abc/a%2Bb/%25",
            raw_query_string="v=1+2&w",
        )
    )
    assert (event["rawPath"], event["rawQueryString"]) == ("/a%2Bb/%25", "v=1+2&w")
    assert event["requestContext"]["http"]["path"] == "/a%2Bb/%25"


def test_a_visitor_may_ask_a_function_url_as_if_through_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_svc, "_function_url_is_signed", lambda_svc._function_url_is_signed)
    assert not lambda_svc._function_url_is_signed({}, {})
    bridges.signed_for_visitors()
    assert lambda_svc._function_url_is_signed({}, {})


def test_a_listing_of_versions_comes_encoded_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "_list_object_versions", emulated._list_object_versions)
    bridges.encoded_versions()
    emulated._create_bucket("bucket", b"")
    emulated._put_object("bucket", "\x01&<\r\n+ \u00fc", b"1", {})
    try:
        _, _, plain = emulated._list_object_versions("bucket", {"prefix": ["\x01"]})
        _, _, encoded = emulated._list_object_versions("bucket", {"encoding-type": ["url"], "prefix": ["\x01"]})
    finally:
        emulated.reset()
    assert b"EncodingType" not in plain
    assert b"<Key>%01%26%3C%0D%0A%2B%20%C3%BC</Key>" in encoded
    assert b"<Prefix>%01</Prefix>" in encoded
    assert encoded.endswith(b"<EncodingType>url</EncodingType></ListVersionsResult>")


def test_no_queue_starts_more_environments_than_a_laptop_can_use() -> None:
    stack = cdk.Stack(cdk.App(), "stack")
    for limit in (2, 20):
        limits = lambda_.CfnEventSourceMapping.ScalingConfigProperty(maximum_concurrency=limit)
        lambda_.CfnEventSourceMapping(stack, f"Mapping{limit}", function_name="function", scaling_config=limits)
    lambda_.CfnEventSourceMapping(stack, "Unlimited", function_name="function")
    cdk.Aspects.of(stack).add(FewEnvironments())
    template = Template.from_stack(stack).find_resources("AWS::Lambda::EventSourceMapping")
    found = [each["Properties"].get("ScalingConfig", {}).get("MaximumConcurrency") for each in template.values()]
    assert found == [2, MOST_ENVIRONMENTS, None]


def test_units_of_reads_are_stated_by_the_size_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"k": {"S": "a" * 5_000}}
    for name, value in {
        "_add_consumed_capacity": emulated_rows._add_consumed_capacity,
        "_batch_get_item": lambda data: (200, {}, json.dumps({"Responses": {"t": [row]}}).encode()),  # noqa: ARG005
    }.items():
        monkeypatch.setattr(emulated_rows, name, value)
    bridges.stated_read_units()
    asked = {"ReturnConsumedCapacity": "TOTAL", "RequestItems": {"t": {"Keys": [{}, {}, {}]}}}
    _, _, body = emulated_rows._batch_get_item(asked)
    assert json.loads(body)["ConsumedCapacity"] == [{"TableName": "t", "CapacityUnits": 1 + 0.5 + 0.5}]
    for found, consistent, units in (({"Items": [row] * 3}, True, 4), ({"Items": []}, False, 0.5), ({}, True, 1)):
        result: dict[str, Any] = dict(found)
        emulated_rows._add_consumed_capacity(
            result, {"ReturnConsumedCapacity": "TOTAL", "ConsistentRead": consistent}, "t"
        )
        assert result["ConsumedCapacity"]["CapacityUnits"] == units


def test_a_line_in_the_embedded_format_is_metrics_and_another_is_not() -> None:
    metrics = EphemeralMetrics(namespace="neve", service="Ledger")
    metrics.add_metric(name="S3_GET", unit="Count", value=3)
    metrics.add_metadata("requests", {"s3:GetObject": 3})
    line = json.dumps(metrics.serialize_metric_set(), separators=(",", ":"))
    [(namespace, name, dimensions, at, unit, _, values)] = bridges.metrics_in(line)
    assert (namespace, name, dimensions, unit, values) == ("neve", "S3_GET", {"service": "Ledger"}, "Count", [3.0])
    assert abs(at - time.time()) < 60
    assert bridges.metrics_in('{"level":"INFO","message":"_aws"}') == bridges.metrics_in("START") == []

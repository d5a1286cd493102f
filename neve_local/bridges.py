"""Bridges over the places where the local cloud differs from AWS, so that the product's code need not know of them.

Each bridge replaces a function of ministack 1.5.33 and refuses to start if that function is missing or takes other
parameters: a new version then fails here, with a name, and not somewhere in a test.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import unescape

from neve.domain.metering import read_units

# What a function is handed at once is at most 6 MB (AWS Lambda quotas); a record's envelope is about 700 bytes.
LARGEST_PAYLOAD_BYTES = 6_000_000
ENVELOPE_BYTES = 700

STATEMENT = re.compile(
    r"""\s*(insert(?=\s+into)|update|delete(?=\s+from))\s+(?:into\s+|from\s+)?"?([\w.-]+)"?""", re.IGNORECASE
)
"""A PartiQL statement that writes: what it does, and to which table."""

_KEYS_IN_LISTING = re.compile(r"<(Key|KeyMarker|NextKeyMarker|Prefix|Delimiter)>(.*?)</\1>", re.DOTALL)

_PART_NUMBERS = re.compile(rb"<PartNumber>(\d+)</PartNumber>")


class BridgeBroken(Exception):
    """The local cloud no longer has what a bridge replaces; the message names both."""


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """One difference from AWS and what closes it. `build` is called once, before the server serves."""

    name: str
    why: str
    build: Callable[[], None]


def existing(module: ModuleType, name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    """The function `name` of `module`. Raises BridgeBroken unless it takes exactly `parameters`."""
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None:
        raise BridgeBroken(f"{module.__name__}.{name} is gone: neve_local/bridges.py is written for ministack 1.5.33.")
    actual = tuple(inspect.signature(found).parameters)
    if actual != parameters:
        raise BridgeBroken(
            f"{module.__name__}.{name} takes {actual}, not {parameters}: "
            "neve_local/bridges.py is written for ministack 1.5.33."
        )
    return found


def secure_transport() -> None:
    """Let every request count as one that came over TLS."""
    from ministack import app  # noqa: PLC0415  # importing it reads the server's environment

    original = existing(app, "pin_request_origin", ("source_ip", "secure_transport"))

    def pin(source_ip: str, secure_transport: bool) -> None:  # noqa: ARG001
        original(source_ip, True)

    app.pin_request_origin = pin


def whole_batches() -> None:
    """Gather for the batching window, then hand over up to BatchSize messages, within the payload that Lambda takes."""
    from ministack.services import lambda_svc, sqs  # noqa: PLC0415

    mappings = existing(lambda_svc, "_iter_all_esms", ())
    existing(sqs, "_receive_messages_for_esm", ("queue_url", "max_number"))
    queue_of = existing(sqs, "_get_q", ("url", "action"))
    expire = existing(sqs, "_expire_retained", ("q",))
    redrive = existing(sqs, "_dlq_sweep", ("q",))
    collect = existing(sqs, "_collect_msgs", ("q", "max_n", "vis_timeout"))
    lock = sqs._queues_lock

    def window_s(queue_arn: str) -> float:
        windows = (
            mapping.get("MaximumBatchingWindowInSeconds", 0)
            for _, _, mapping in mappings()
            if mapping.get("EventSourceArn") == queue_arn
        )
        return float(max(windows, default=0))

    def receive(queue_url: str, max_number: int) -> list[dict[str, Any]]:
        with lock:
            queue = queue_of(queue_url)
            expire(queue)
            redrive(queue)
            at_most, now = max(1, int(max_number or 1)), time.time()
            window = window_s(queue["attributes"].get("QueueArn", ""))
            if is_gathering(queue["messages"], at_most=at_most, window_s=window, now=now):
                return []
            count = payload_count(queue["messages"], at_most=at_most, now=now)
            received: list[dict[str, Any]] = collect(
                queue, count, int(queue["attributes"].get("VisibilityTimeout", 30))
            )
            return received

    sqs._receive_messages_for_esm = receive


def is_gathering(messages: list[dict[str, Any]], *, at_most: int, window_s: float, now: float) -> bool:
    """Whether a mapping waits for more: fewer than `at_most` are visible, and the first not for `window_s` yet."""
    visible = [message.get("visible_at", 0) for message in messages if message.get("visible_at", 0) <= now]
    return 0 < len(visible) < at_most and now - min(visible) < window_s


def payload_count(messages: list[dict[str, Any]], *, at_most: int, now: float) -> int:
    """How many of the visible `messages`, from the first, fit into one invocation; at least 1."""
    count = payload_bytes = 0
    for message in messages:
        if message.get("visible_at", 0) > now:
            continue
        payload_bytes += len(message["body"]) + ENVELOPE_BYTES
        if count == at_most or payload_bytes > LARGEST_PAYLOAD_BYTES:
            break
        count += 1
    return max(1, count)


def conditional_copy() -> None:
    """Refuse a CopyObject with If-None-Match over an object that is there, and compute the checksum it asks for."""
    from ministack.services import s3  # noqa: PLC0415

    original = existing(s3, "_copy_object", ("bucket_name", "dest_key", "headers"))
    precondition = existing(s3, "_check_put_preconditions", ("headers", "existing_obj"))
    bucket_of = existing(s3, "_ensure_bucket", ("name",))

    def copy(bucket_name: str, dest_key: str, headers: dict[str, str]) -> Any:
        bucket = bucket_of(bucket_name)
        if bucket is not None:
            refused = precondition(headers, bucket["objects"].get(dest_key))
            if refused is not None:
                return refused
        algorithm = headers.get("x-amz-checksum-algorithm")
        if algorithm and "x-amz-sdk-checksum-algorithm" not in headers:
            headers = {**headers, "x-amz-sdk-checksum-algorithm": algorithm}
        return original(bucket_name, dest_key, headers)

    s3._copy_object = copy


def whole_checksums() -> None:
    """Give what is uploaded in parts with CRC64NVME the checksum of the whole, and refuse parts that have another."""
    from ministack.services import s3  # noqa: PLC0415

    original = existing(s3, "_complete_multipart_upload", ("bucket_name", "key", "body", "query_params", "headers"))
    composite = existing(s3, "_composite_checksum", ("algorithm", "part_checksums"))
    checksum_of = existing(s3, "_compute_s3_checksum", ("algorithm", "body"))
    bucket_of = existing(s3, "_ensure_bucket", ("name",))
    value_of = existing(s3, "_qp", ("params", "key", "default"))
    whole = threading.local()

    def complete(
        bucket_name: str, key: str, body: bytes, query_params: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Any:
        upload = s3._multipart_uploads.get(value_of(query_params, "uploadId", ""))
        if upload is None or upload.get("checksum_algorithm") != "CRC64NVME":
            return original(bucket_name, key, body, query_params, headers)
        numbers = sorted(int(number) for number in _PART_NUMBERS.findall(body))
        parts = [upload["parts"][number]["body"] for number in numbers if number in upload["parts"]]
        whole.checksum = checksum_of("CRC64NVME", b"".join(parts))
        try:
            status, fields, text = original(bucket_name, key, body, query_params, headers)
        finally:
            whole.checksum = None
        if status == 200:
            bucket_of(bucket_name)["objects"][key]["checksum_type"] = "FULL_OBJECT"
            text = text.replace(b">COMPOSITE<", b">FULL_OBJECT<")
        return status, fields, text

    def joined(algorithm: str, part_checksums: list[str | None]) -> str | None:
        found: str | None = getattr(whole, "checksum", None) or composite(algorithm, part_checksums)
        return found

    s3._complete_multipart_upload, s3._composite_checksum = complete, joined


def reads_of_versions() -> None:
    """Read a version as AWS does: the range asked for, the state of its thaw, and from HEAD the number of its tags."""
    from ministack.services import s3  # noqa: PLC0415

    parameters = ("bucket_name", "key", "headers", "query_params")
    get, head = existing(s3, "_get_object", parameters), existing(s3, "_head_object", parameters)
    bucket_of = existing(s3, "_ensure_bucket", ("name",))
    value_of = existing(s3, "_qp", ("params", "key", "default"))
    tag_count = existing(s3, "_object_tagging_count_header", ("bucket_name", "key", "version_id"))
    range_of = existing(s3, "_parse_range", ("range_header", "total"))

    def unpinned(bucket_name: str, key: str, query: dict[str, Any]) -> dict[str, Any]:
        """`query` without the version, if that is the current one: all that differs is done right for the current."""
        bucket = bucket_of(bucket_name)
        current = bucket["objects"].get(key) if bucket else None
        if current is None or not current.get("version_id") or current["version_id"] != value_of(query, "versionId"):
            return query
        return {name: value for name, value in query.items() if name != "versionId"}

    def get_object(
        bucket_name: str, key: str, headers: dict[str, str], query_params: dict[str, Any] | None = None
    ) -> Any:
        status, fields, body = get(bucket_name, key, headers, unpinned(bucket_name, key, query_params or {}))
        asked = range_of(headers.get("range", ""), len(body)) if status == 200 and "range" in headers else None
        if asked is None:
            return status, fields, body
        first, last = asked
        kept = {name: value for name, value in fields.items() if not name.startswith("x-amz-checksum-")}
        part = body[first : last + 1]
        size = {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{len(body)}"}
        return 206, {**kept, **size}, part

    def head_object(
        bucket_name: str,
        key: str,
        headers: dict[str, str] | None = None,
        query_params: dict[str, Any] | None = None,
    ) -> Any:
        status, fields, body = head(bucket_name, key, headers, unpinned(bucket_name, key, query_params or {}))
        if status == 200:
            version_id = fields.get("x-amz-version-id", "null")
            fields = {**fields, **tag_count(bucket_name, key, None if version_id == "null" else version_id)}
        return status, fields, body

    s3._get_object, s3._head_object = get_object, head_object


def encoded_versions() -> None:
    """Encode keys where a listing of versions is asked to: XML has no letters for some of them."""
    from ministack.services import s3  # noqa: PLC0415

    original = existing(s3, "_list_object_versions", ("bucket_name", "query_params"))
    value_of = existing(s3, "_qp", ("params", "key", "default"))

    def encoded(found: re.Match[str]) -> str:
        return f"<{found[1]}>{quote(unescape(found[2]))}</{found[1]}>"

    def list_object_versions(bucket_name: str, query_params: dict[str, Any]) -> Any:
        status, headers, body = original(bucket_name, query_params)
        if status != 200 or value_of(query_params, "encoding-type") != "url":
            return status, headers, body
        end = "</ListVersionsResult>"
        text = _KEYS_IN_LISTING.sub(encoded, body.decode())
        return status, headers, text.replace(end, f"<EncodingType>url</EncodingType>{end}").encode()

    s3._list_object_versions = list_object_versions


def sleeping_archives() -> None:
    """Refuse what AWS refuses of archived objects: copies of what is not thawed, and Expedited for DEEP_ARCHIVE."""
    from ministack.core import iam_actions  # noqa: PLC0415
    from ministack.services import s3  # noqa: PLC0415

    copy = existing(s3, "_copy_object", ("bucket_name", "dest_key", "headers"))
    copy_part = existing(s3, "_upload_part_copy", ("bucket_name", "dest_key", "query_params", "headers"))
    restore = existing(s3, "_restore_object", ("bucket_name", "key", "body"))
    source_of = existing(iam_actions, "_s3_source_object", ("headers",))
    error = existing(s3, "_error", ("code", "message", "status", "resource", "extra", "headers"))
    head = existing(s3, "_head_object", ("bucket_name", "key", "headers", "query_params"))  # of reads_of_versions

    def source_sleeps(headers: dict[str, str]) -> bool:
        source = source_of(headers)
        if source is None:
            return False
        arn, version_id = source
        bucket_name, _, key = arn.removeprefix("arn:aws:s3:::").partition("/")
        return is_asleep(head(bucket_name, key, {}, {"versionId": version_id} if version_id else {})[1])

    def copy_object(bucket_name: str, dest_key: str, headers: dict[str, str]) -> Any:
        if source_sleeps(headers):
            return error("ObjectNotInActiveTierError", "The source object of the COPY action sleeps.", 403)
        return copy(bucket_name, dest_key, {"x-amz-storage-class": "STANDARD", **headers})

    def upload_part_copy(bucket_name: str, dest_key: str, query_params: dict[str, Any], headers: dict[str, str]) -> Any:
        if source_sleeps(headers):
            return error("InvalidObjectState", "The source object of the COPY action sleeps.", 403)
        return copy_part(bucket_name, dest_key, query_params, headers)

    def restore_object(bucket_name: str, key: str, body: bytes) -> Any:
        archived_in = head(bucket_name, key, {}, {})[1].get("x-amz-storage-class")
        if archived_in == "DEEP_ARCHIVE" and re.search(rb"<Tier>\s*Expedited\s*</Tier>", body):
            return error("InvalidArgument", "Expedited retrievals are not available for DEEP_ARCHIVE.", 400)
        return restore(bucket_name, key, body)

    s3._copy_object, s3._upload_part_copy, s3._restore_object = copy_object, upload_part_copy, restore_object


def is_asleep(fields: dict[str, str]) -> bool:
    """Whether the headers of S3's answer to HEAD tell of an archived object without a thawed copy."""
    thawed = 'ongoing-request="false"' in fields.get("x-amz-restore", "")
    return fields.get("x-amz-storage-class") in ("GLACIER", "DEEP_ARCHIVE") and not thawed


def further_permissions() -> None:
    """Ask for s3:PutObjectTagging where a write brings tags, and for s3:ListBucket before saying that a key is free."""
    from ministack.core import iam_actions  # noqa: PLC0415
    from ministack.services import s3  # noqa: PLC0415

    original = existing(iam_actions, "s3_additional_checks", ("method", "path", "headers", "body", "query_params"))
    action_of = existing(iam_actions, "_s3_action", ("method", "path", "query_params"))
    place_of = existing(s3, "_parse_bucket_key", ("path", "headers"))
    bucket_of = existing(s3, "_ensure_bucket", ("name",))

    def checks(
        method: str, path: str, headers: dict[str, str], body: bytes, query_params: dict[str, Any]
    ) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = list(original(method, path, headers, body, query_params))
        bucket_name, key = place_of(path, headers)
        action = action_of(method, path, query_params)
        if key and action == "PutObject" and headers.get("x-amz-tagging"):
            found.append(("s3:PutObjectTagging", f"arn:aws:s3:::{bucket_name}/{key}"))
        if key and action == "GetObject":  # HEAD as well
            bucket = bucket_of(bucket_name)
            if bucket is not None and key not in bucket["objects"]:
                found.append(("s3:ListBucket", f"arn:aws:s3:::{bucket_name}"))
        return found

    iam_actions.s3_additional_checks = checks


def deletions_of_versions() -> None:
    """Take a batch of deletions whose first entry names a version for s3:DeleteObjectVersion, as its other entries."""
    from ministack.core import iam_actions  # noqa: PLC0415

    parameters = ("service", "method", "path", "headers", "body", "query_params")
    original = existing(iam_actions, "extract_iam_action", parameters)
    targets_of = existing(iam_actions, "_s3_batch_delete_targets", ("bucket", "body"))

    def action(  # noqa: PLR0917  # its signature
        service: str, method: str, path: str, headers: dict[str, str], body: bytes, query_params: dict[str, Any]
    ) -> str | None:
        if service == "s3" and method == "POST" and "delete" in query_params:
            first = next(iter(targets_of(path.strip("/"), body)), ("", ""))
            if first[1]:
                return "s3:DeleteObjectVersion"
        found: str | None = original(service, method, path, headers, body, query_params)
        return found

    iam_actions.extract_iam_action = action


def statement_permissions() -> None:
    """Check each PartiQL statement of a batch as the action it performs, on its own table."""
    from ministack.core import iam_actions  # noqa: PLC0415

    parameters = ("iam_action", "body", "region", "account_id")
    original = existing(iam_actions, "dynamodb_transaction_checks", parameters)
    table_arn = existing(iam_actions, "_dynamodb_table_arn", ("table", "region", "account_id"))

    def checks(iam_action: str, body: bytes, region: str, account_id: str) -> list[tuple[str, str]]:
        if iam_action != "dynamodb:BatchExecuteStatement":
            found: list[tuple[str, str]] = original(iam_action, body, region, account_id)
            return found
        return [(action, table_arn(table, region, account_id)) for action, table in statement_actions(body)]

    iam_actions.dynamodb_transaction_checks = checks


def statement_actions(body: bytes) -> list[tuple[str, str]]:
    """(IAM action, table) of each statement in a BatchExecuteStatement request, each pair once."""
    statements = [str(entry["Statement"]) for entry in json.loads(body)["Statements"]]
    found = [STATEMENT.match(statement) for statement in statements]
    return sorted({(f"dynamodb:PartiQL{hit[1].capitalize()}", hit[2]) for hit in found if hit})


def stated_read_units() -> None:
    """State the read units that a batch of rows and a query take."""
    from ministack.services import dynamodb  # noqa: PLC0415

    parameters = ("result", "data", "table_name", "write", "old_item", "new_item", "index_name")
    state = existing(dynamodb, "_add_consumed_capacity", parameters)
    batch = existing(dynamodb, "_batch_get_item", ("data",))
    size_of = existing(dynamodb, "_item_size_bytes", ("item",))

    def add_consumed_capacity(  # noqa: PLR0917  # as ministack has it
        result: dict[str, Any],
        data: dict[str, Any],
        table_name: str,
        write: bool = False,
        old_item: Any = None,
        new_item: Any = None,
        index_name: Any = None,
    ) -> None:
        state(result, data, table_name, write, old_item, new_item, index_name)
        if not write and "ConsumedCapacity" in result:
            items = result.get("Items") or [result.get("Item", {})]
            size = sum(size_of(item) for item in items)
            units = read_units(size, consistent=bool(data.get("ConsistentRead")))
            result["ConsumedCapacity"]["CapacityUnits"] = units

    def batch_get_item(data: dict[str, Any]) -> Any:
        status, headers, body = batch(data)
        if status != 200 or data.get("ReturnConsumedCapacity", "NONE") == "NONE":
            return status, headers, body
        answer = json.loads(body)
        answer["ConsumedCapacity"] = [
            {
                "TableName": table,
                "CapacityUnits": batch_units(asked, [size_of(row) for row in answer["Responses"][table]]),
            }
            for table, asked in data["RequestItems"].items()
            if table in answer["Responses"]
        ]
        return status, headers, json.dumps(answer).encode()

    dynamodb._add_consumed_capacity, dynamodb._batch_get_item = add_consumed_capacity, batch_get_item


def batch_units(asked: dict[str, Any], sizes_bytes: list[int]) -> float:
    """What a table's part of a BatchGetItem takes: each row by itself, and the least for each that is not there."""
    consistent = bool(asked.get("ConsistentRead"))
    missing = len(asked["Keys"]) - len(sizes_bytes)
    return sum(read_units(size, consistent=consistent) for size in [*sizes_bytes, *[0] * missing])


def embedded_metrics() -> None:
    """Make metrics of the lines that functions log in CloudWatch's embedded format."""
    from ministack.services import cloudwatch, lambda_svc  # noqa: PLC0415

    logged = existing(
        lambda_svc, "_emit_lambda_logs", ("func", "request_id", "log_text", "error", "duration_ms", "log_source")
    )
    store = existing(
        cloudwatch,
        "_store_datum",
        ("namespace", "name", "dims", "ts", "unit", "value", "values", "counts", "stat_values"),
    )

    def emit(
        func: dict[str, Any],
        request_id: str,
        log_text: str,
        error: bool,
        duration_ms: int,
        *,
        log_source: str | None = None,
    ) -> None:
        logged(func, request_id, log_text, error, duration_ms, log_source=log_source)
        for line in (log_text or "").splitlines():
            for metric in metrics_in(line):
                store(*metric, None, None)

    lambda_svc._emit_lambda_logs = emit


def metrics_in(line: str) -> list[tuple[str, str, dict[str, str], float, str, None, list[float]]]:
    """(namespace, name, dimensions, time, unit, None, values) of each metric that a log line holds."""
    if not line.startswith('{"_aws":'):
        return []
    fields = json.loads(line)
    return [
        (
            directive["Namespace"],
            metric["Name"],
            {name: str(fields[name]) for name in dimensions},
            fields["_aws"]["Timestamp"] / 1000,
            metric.get("Unit", "None"),
            None,
            [float(value) for value in fields[metric["Name"]]],
        )
        for directive in fields["_aws"]["CloudWatchMetrics"]
        for dimensions in directive["Dimensions"]
        for metric in directive["Metrics"]
    ]


def reachable_function_urls() -> None:
    """Have a stack's function URL name this server, by the path under which it serves that URL."""
    from ministack.services import lambda_svc  # noqa: PLC0415
    from ministack.services.cloudformation import provisioners  # noqa: PLC0415

    original = existing(provisioners, "_lambda_url_attributes", ("config",))
    id_of = existing(lambda_svc, "_function_url_id", ("function_url",))

    def attributes(config: dict[str, Any]) -> dict[str, Any]:
        served = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}/_aws/lambda-url/{id_of(config['FunctionUrl'])}/"
        return {**original(config), "FunctionUrl": served}

    provisioners._lambda_url_attributes = attributes


def signed_for_visitors() -> None:
    """Take every request to a function URL for one that CloudFront has signed."""
    from ministack.services import lambda_svc  # noqa: PLC0415

    existing(lambda_svc, "_function_url_is_signed", ("headers", "query_params"))
    lambda_svc._function_url_is_signed = lambda headers, query_params: True  # noqa: ARG005  # its signature


def paths_as_sent() -> None:
    """Hand a function URL's path and query string over as the client sent them."""
    from ministack import app  # noqa: PLC0415
    from ministack.services import lambda_svc  # noqa: PLC0415

    sent: ContextVar[tuple[str, str]] = ContextVar("sent")
    dispatch = existing(
        app,
        "_handle_special_data_plane_request",
        (
            "method",
            "path",
            "headers",
            "body",
            "query_params",
            "request_id",
            "raw_path",
            "raw_query_string",
            "client_ip",
        ),
    )
    build = existing(
        lambda_svc,
        "_build_function_url_event",
        (
            *("url_id", "account_id", "region", "method", "path", "headers", "body", "query_params"),
            *("source_ip", "anonymous", "trace_root"),
        ),
    )

    async def noting(*args: Any, raw_path: str | None = None, raw_query_string: str = "", **named: Any) -> Any:
        token = sent.set((raw_path or "", raw_query_string))
        try:
            return await dispatch(*args, raw_path=raw_path, raw_query_string=raw_query_string, **named)
        finally:
            sent.reset(token)

    def event(url_id: str, *args: Any, **named: Any) -> dict[str, Any]:
        built: dict[str, Any] = build(url_id, *args, **named)
        path, query = sent.get()
        path = path.removeprefix(f"/_aws/lambda-url/{url_id}") or "/"
        context = built["requestContext"]
        http = {**context["http"], "path": path}
        return {**built, "rawPath": path, "rawQueryString": query, "requestContext": {**context, "http": http}}

    app._handle_special_data_plane_request = noting
    lambda_svc._build_function_url_event = event


def wildcards_over_lines() -> None:
    """Let `*` and `?` in a policy's resource match a line's end, as any other character."""
    from ministack.core import iam_evaluator  # noqa: PLC0415

    compiled = existing(iam_evaluator, "_fnmatch_compile", ("pattern", "ignore_case"))

    @cache
    def over_lines(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        original: re.Pattern[str] = compiled(pattern, ignore_case)
        return re.compile(original.pattern, original.flags | re.DOTALL)

    iam_evaluator._fnmatch_compile = over_lines


class SharedCode(zipfile.ZipFile):
    """A function's code, extracted once for all workers of this server; a worker's folder links to it."""

    _extracting = threading.Lock()

    def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:  # noqa: ARG002  # its signature
        """Fill the folder `path` with links to the one extracted copy."""
        assert self.filename is not None
        with open(self.filename, "rb") as code:  # noqa: PTH123  # as zipfile names it
            shared = Path(tempfile.gettempdir(), "code", hashlib.file_digest(code, "sha256").hexdigest())
        with self._extracting:
            if not shared.exists():
                partial = Path(f"{shared}.partial")
                super().extractall(partial)
                partial.rename(shared)
        for entry in os.scandir(shared):
            Path(path, entry.name).symlink_to(entry.path)


def shared_code() -> None:
    """Extract a function's code once, and have what one worker compiles serve the next."""
    from ministack.core import lambda_runtime  # noqa: PLC0415

    if getattr(lambda_runtime, "zipfile", None) is not zipfile:
        raise BridgeBroken("ministack.core.lambda_runtime no longer extracts code by zipfile.")
    replaced = ModuleType("zipfile")
    vars(replaced).update(vars(zipfile), ZipFile=SharedCode)
    lambda_runtime.zipfile = replaced


BRIDGES = (
    Bridge(
        name="secure transport",
        why="The stacks refuse plain HTTP (aws:SecureTransport), as they should. The local cloud listens on the "
        "loopback interface only; certificates would have to be trusted by boto3, Node.js and every function.",
        build=secure_transport,
    ),
    Bridge(
        name="whole batches",
        why="ministack hands at most 10 messages to a function, whatever BatchSize says, and at once; AWS hands over "
        "up to 10,000 and gathers them for MaximumBatchingWindowInSeconds. Collect's cost per file depends on "
        "large batches. Without the window 2,000 uploads made 520 invocations instead of 16, ten cold starts at once.",
        build=whole_batches,
    ),
    Bridge(
        name="conditional copy",
        why="ministack's CopyObject ignores If-None-Match and x-amz-checksum-algorithm; AWS honours both. CopyLarge "
        "relies on the first never to overwrite an archive and on the second to prove what it copied.",
        build=conditional_copy,
    ),
    Bridge(
        name="whole checksums",
        why="ministack states a composite CRC64NVME of an object uploaded in parts, and none if they were copied; on "
        "AWS that checksum is always over the whole. Copies of large uploads, and uploads of large files, rest on it.",
        build=whole_checksums,
    ),
    Bridge(
        name="reads of versions",
        why="With a version id ministack's GET ignores Range and its HEAD leaves out x-amz-restore; no HEAD of its "
        "counts tags. Archives are read by range and version, and HEAD is asked whether they are thawed.",
        build=reads_of_versions,
    ),
    Bridge(
        name="encoded versions",
        why="ministack's ListObjectVersions ignores encoding-type, so that a key with a control character makes XML "
        "that nobody can read; on AWS the clients ask for it and decode the keys. Reconcile lists all versions.",
        build=encoded_versions,
    ),
    Bridge(
        name="sleeping archives",
        why="ministack copies from archived objects that are not thawed, gives the copy their storage class, and thaws "
        "DEEP_ARCHIVE with Expedited; AWS answers 403, STANDARD and 400.",
        build=sleeping_archives,
    ),
    Bridge(
        name="further permissions",
        why="AWS asks for s3:PutObjectTagging where a PUT brings tags, and answers 403 instead of 404 for a key that "
        "is free if the caller may not list the bucket; ministack does neither.",
        build=further_permissions,
    ),
    Bridge(
        name="deletions of versions",
        why="ministack asks for s3:DeleteObject for the first entry of DeleteObjects even if it names a version. AWS "
        "asks for s3:DeleteObjectVersion, which is all that Drill has.",
        build=deletions_of_versions,
    ),
    Bridge(
        name="statement permissions",
        why="ministack asks for dynamodb:BatchExecuteStatement, which is no IAM action; AWS asks for PartiQLInsert and "
        "its like on the statement's table.",
        build=statement_permissions,
    ),
    Bridge(
        name="stated read units",
        why="ministack states no units of BatchGetItem, and one for a query whatever it returns; AWS states them for "
        "each row by its size, found or not, and for a query by the size of what it read. The ledger counts them.",
        build=stated_read_units,
    ),
    Bridge(
        name="embedded metrics",
        why="ministack leaves log lines in CloudWatch's embedded format lines; on AWS they are metrics, which "
        "`neve cost actual` reads.",
        build=embedded_metrics,
    ),
    Bridge(
        name="reachable function URLs",
        why="ministack gives a function URL a name of AWS, https://ID.lambda-url.REGION.on.aws/, which leads to AWS; "
        "there it leads to the function.",
        build=reachable_function_urls,
    ),
    Bridge(
        name="signed for visitors",
        why="Visitors ask the distribution Site, which signs what it asks of Resolve. ministack's distributions answer "
        "by a host name of AWS only, and sign nothing: here visitors ask Resolve's own URL, which refuses them on AWS.",
        build=signed_for_visitors,
    ),
    Bridge(
        name="paths as sent",
        why="ministack decodes the path that a function URL hands over, so that %2B and %252B, say, come as one; AWS "
        "hands it over as it was sent.",
        build=paths_as_sent,
    ),
    Bridge(
        name="wildcards over lines",
        why="ministack's wildcards stop at a line's end, so a policy for any key does not cover one with a newline in "
        "it; on AWS it does.",
        build=wildcards_over_lines,
    ),
    Bridge(
        name="shared code",
        why="ministack extracts the 2,600 files of the code anew for each worker, in the serving process, and "
        "each worker compiles them anew: a dozen cold starts held up every request for up to 45 s. On AWS a cold start "
        "costs nobody else anything.",
        build=shared_code,
    ),
)


def build_all() -> None:
    """Build every bridge. Raises BridgeBroken."""
    for bridge in BRIDGES:
        bridge.build()

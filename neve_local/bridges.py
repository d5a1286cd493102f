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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# What a function is handed at once is at most 6 MB (AWS Lambda quotas); a record's envelope is about 700 bytes.
LARGEST_PAYLOAD_BYTES = 6_000_000
ENVELOPE_BYTES = 700

STATEMENT = re.compile(
    r"""\s*(insert(?=\s+into)|update|delete(?=\s+from))\s+(?:into\s+|from\s+)?"?([\w.-]+)"?""", re.IGNORECASE
)
"""A PartiQL statement that writes: what it does, and to which table."""


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
        name="statement permissions",
        why="ministack asks for dynamodb:BatchExecuteStatement, which is no IAM action; AWS asks for PartiQLInsert and "
        "its like on the statement's table.",
        build=statement_permissions,
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

"""The local cloud's server with a counter before it: what is asked of it, by operation, and the bytes of the bodies.

Every client is counted in the same way, whatever it is written in. `GET /_bench/counts` answers with what came since
the last such question.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from neve_local import server

COUNTS_PATH = "/_bench/counts"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Requests by "service:Operation", and the bytes of bodies: `sent` to the server, and `read` from it.

    Those of S3 alone are in `s3_sent_bytes` and `s3_read_bytes`.
    """

    requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    read_bytes: int = 0
    s3_sent_bytes: int = 0
    s3_read_bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            requests=self.requests + other.requests,
            sent_bytes=self.sent_bytes + other.sent_bytes,
            read_bytes=self.read_bytes + other.read_bytes,
            s3_sent_bytes=self.s3_sent_bytes + other.s3_sent_bytes,
            s3_read_bytes=self.s3_read_bytes + other.s3_read_bytes,
        )


def counts(endpoint_url: str) -> Counts:
    """What the server at `endpoint_url` was asked since this was last called."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(endpoint_url + COUNTS_PATH, timeout=60) as answer:
        found = json.load(answer)
    return Counts(**found | {"requests": Counter(found["requests"])})


# -- What was asked for ----------------------------------------------------------------------------------------------

_OF_BUCKETS = {
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "location"): "GetBucketLocation",
    ("GET", ""): "ListObjects",
    ("HEAD", ""): "HeadBucket",
    ("PUT", ""): "CreateBucket",
    ("POST", "delete"): "DeleteObjects",
    ("DELETE", ""): "DeleteBucket",
}
_OF_OBJECTS = {
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "uploadId"): "ListParts",
    ("GET", ""): "GetObject",
    ("HEAD", ""): "HeadObject",
    ("PUT", "uploadId"): "UploadPart",
    ("PUT", ""): "PutObject",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("POST", "restore"): "RestoreObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", ""): "DeleteObject",
}
_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/(\w+)/aws4_request")


def operation(method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    """What a request asks for, such as "s3:GetObject". The names of `headers` are in lower case.

    Source: S3 API reference; the query's first word names the subresource. Services of the JSON protocol name the
    operation themselves, the others are counted by service.
    """
    if target := headers.get("x-amz-target"):
        service, _, name = target.rpartition(".")
        return f"{'sqs' if service == 'AmazonSQS' else service.partition('_')[0].lower()}:{name}"
    scope = _SCOPE.search(headers.get("authorization", ""))
    if scope and scope[1] != "s3":
        return f"{scope[1]}:Request"
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket:
        return "s3:ListBuckets"
    names, words = _OF_OBJECTS if key else _OF_BUCKETS, parse_qs(query, keep_blank_values=True)
    found = next((names[method, word] for word in words if (method, word) in names), None)
    found = found or names.get((method, ""), f"{method}")
    return f"s3:{_COPIES.get(found, found) if 'x-amz-copy-source' in headers else found}"


# -- In the server ---------------------------------------------------------------------------------------------------


class Counting:
    """An ASGI application that counts what comes by, and hands it on to `app`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Count one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == COUNTS_PATH:
            await self._answer(send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        name = operation(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers)
        of_s3 = name.startswith("s3:")

        def add(direction: str, body: bytes) -> None:
            self._bytes[direction] += len(body)
            if of_s3:
                self._bytes[f"s3_{direction}"] += len(body)

        async def received() -> Message:
            message = await receive()
            add("sent_bytes", message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            add("read_bytes", message.get("body", b""))
            await send(message)

        self._requests[name] += 1
        await self._app(scope, received, sending)

    async def _answer(self, send: Send) -> None:
        body = json.dumps({"requests": self._requests, **self._bytes}).encode()
        self._requests.clear()
        self._bytes.clear()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve."""
    from ministack import app  # noqa: PLC0415  # reads the environment on import

    app.app = Counting(app.app)
    server.serve()


if __name__ == "__main__":
    main()

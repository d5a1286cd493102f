"""Small uploads, and listings of them, at a small part of what boto3 takes of a processor.

boto3 works out the endpoint, the checksums and the headers of each request anew, counts tries, and makes objects of all
that comes back. Here the first upload goes by boto3, and shows where the bucket is; those that follow are signed here
and go to the same place over connections that stay open, one for each thread. What does not succeed at once goes by
boto3 after all, which knows what to do: retries, redirects, proxies and all errors are its own.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree as ET

from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from types_boto3_s3 import S3Client

FAILURES = 20
"""After so many in a row all goes by boto3: whatever is in the way here is not going to pass."""
CONNECT_S, ANSWER_S = 5.0, 30.0
LONGEST_HEAD_BYTES = 64 * 1024
TOGETHER_BYTES = 64 * 1024
"""Headers and a body of less go in one packet; a larger body is not copied for that."""
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_SAFE = "/-._~"
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/")
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class _NoAnswer(Exception):
    """What came back is nothing that this module reads."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of a bucket's versions: (key, version id, size in bytes, ETag). `reached` is the last key of a page that
    is not the last one, else ""."""

    versions: Sequence[tuple[str, str, int, str]]
    reached: str


@dataclass(frozen=True)
class _Route:
    """Where the bucket is: a key's percent-encoded name comes behind `path`. `tls` is None for plain HTTP."""

    host: str
    port: int
    netloc: str
    path: str
    region: str
    tls: ssl.SSLContext | None


class _Connection:
    """A connection that stays open, for one thread. Whatever is odd about an answer raises _NoAnswer or OSError."""

    def __init__(self, route: _Route) -> None:
        plain = socket.create_connection((route.host, route.port), CONNECT_S)
        try:
            # Else a body waits for the answer to its headers' packet, 40 ms.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(ANSWER_S)
            self._socket = route.tls.wrap_socket(plain, server_hostname=route.host) if route.tls else plain
        except BaseException:
            plain.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing has come that nobody asked for, such as its end."""
        if self._socket.fileno() < 0:  # closed, as the last answer asked for
            return False
        watched = select.poll()
        watched.register(self._socket, select.POLLIN)
        return not watched.poll(0)

    def ask(self, head: bytes, body: bytes) -> tuple[int, Mapping[str, str]]:
        """Status and headers, by their names in lower case, of the answer to a request. Its body is dropped."""
        for part in (head + body,) if len(body) < TOGETHER_BYTES else (head, body):
            self._socket.sendall(part)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(LONGEST_HEAD_BYTES)
            if not piece or len(received) > LONGEST_HEAD_BYTES:
                raise _NoAnswer
            received += piece
        status = _ANSWER.match(received)
        headers: dict[str, str] = {}
        for line in received[:end].decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", "")
        if status is None or not length.isdecimal() or "transfer-encoding" in headers:
            raise _NoAnswer
        left = int(length) - (len(received) - end - 4)
        while left > 0 and (piece := self._socket.recv(min(left, LONGEST_HEAD_BYTES))):
            left -= len(piece)
        if left:  # or more has come than was told
            raise _NoAnswer
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status[1]), headers


@dataclass
class Quick:
    """PutObject and ListObjectVersions of one bucket. `credentials` are those of `client`; None: all goes by boto3."""

    client: S3Client
    bucket: str
    credentials: Credentials | None
    _route: _Route | None = None
    _failures: int = 0
    _sent: threading.local = field(default_factory=threading.local)
    _open: dict[int, _Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client.meta.events.register("before-send.s3.PutObject", self._note)

    def close(self) -> None:
        """Close the connections."""
        while self._open:
            self._open.popitem()[1].close()

    def put(self, key: str, body: bytes, headers: Mapping[str, str], sha256: str) -> Mapping[str, str] | None:
        """The headers of S3's answer to an upload, in lower case; None if it has to be made by boto3, see learn.

        `headers` are those of the HTTP request in lower case, `sha256` is that of the body in hex.
        """
        route = self._usable
        if route is None or self.credentials is None or not _is_plain(key):
            return None
        path = route.path + quote(key, safe=_SAFE)
        signed = _signed("PUT", path, "", headers, sha256=sha256, route=route, credentials=self.credentials)
        try:
            status, answer = self._ask(route, _head("PUT", path, signed, len(body)), body)
        except (OSError, _NoAnswer):
            status, answer = 0, {}
        if status != 200 or "etag" not in answer:
            self._failures += 1
            return None
        self._failures = 0
        return answer

    def versions(self, after: str) -> Page | None:
        """A page of versions of the keys that come after `after`; None if boto3 has to be asked for it."""
        route = self._usable
        if route is None or self.credentials is None:
            return None
        query = f"encoding-type=url&key-marker={quote(after, safe='-._~')}&versions="
        path = route.path.removesuffix("/") or "/"
        signed = _signed("GET", path, query, {}, sha256=_EMPTY_SHA256, route=route, credentials=self.credentials)
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(route.host, route.port, timeout=ANSWER_S, context=route.tls)
            if route.tls
            else http.client.HTTPConnection(route.host, route.port, timeout=ANSWER_S)
        )
        try:
            connection.request("GET", f"{path}?{query}", headers=dict(signed))
            answer = connection.getresponse()
            return _page(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ET.ParseError, ValueError, KeyError):
            return None
        finally:
            connection.close()

    def learn(self, key: str) -> None:
        """Take over how boto3 has sent its last upload in this thread, which was one of `key`."""
        url, authorization = getattr(self._sent, "last", ("", ""))
        scope = _SCOPE.match(authorization)
        end = quote(key, safe=_SAFE)
        if (
            self._route is None
            and scope
            and url.endswith(f"/{end}")
            and _is_plain(key)
            and not get_environ_proxies(url)
        ):
            parts = urlsplit(url)
            tls = parts.scheme == "https"
            self._route = _Route(
                host=parts.hostname or "",
                port=parts.port or (443 if tls else 80),
                netloc=parts.netloc,
                path=parts.path.removesuffix(end),
                region=scope[1],
                tls=_trusting() if tls else None,
            )

    @property
    def _usable(self) -> _Route | None:
        return self._route if self._failures < FAILURES else None

    def _ask(self, route: _Route, head: bytes, body: bytes) -> tuple[int, Mapping[str, str]]:
        """Over this thread's connection, or a new one if that has ended meanwhile."""
        thread = threading.get_ident()
        connection = self._open.pop(thread, None)
        if connection is not None and not connection.is_quiet:
            connection.close()
            connection = None
        connection = connection or _Connection(route)
        try:
            answered = connection.ask(head, body)
        except BaseException:
            connection.close()
            raise
        self._open[thread] = connection
        return answered

    def _note(self, *, request: Any, **_: Any) -> None:
        authorization = request.headers.get("Authorization", "")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        self._sent.last = (request.url, text)


def _signed(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    sha256: str,
    route: _Route,
    credentials: Credentials,
) -> Sequence[tuple[str, str]]:
    """All headers of a request, its signature among them. `path` and `query` are encoded, the query is in order.

    Source: Amazon S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in a
    Single Chunk".
    """
    frozen, stamp = credentials.get_frozen_credentials(), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    all_headers = {**headers, "host": route.netloc, "x-amz-content-sha256": sha256, "x-amz-date": stamp}
    if frozen.token:
        all_headers["x-amz-security-token"] = frozen.token
    fields = sorted(all_headers.items())
    names = ";".join(name for name, _ in fields)
    lines = "".join(f"{name}:{value}\n" for name, value in fields)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{sha256}"
    scope = f"{stamp[:8]}/{route.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(_key(frozen.secret_key, stamp[:8], route.region), text.encode(), "sha256").hex()
    credential = f"Credential={frozen.access_key}/{scope}"
    return [
        *fields,
        ("authorization", f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"),
    ]


@lru_cache(maxsize=4)
def _key(secret_key: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _head(method: str, path: str, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\n{lines}content-length: {length}\r\n\r\n".encode("latin-1")


def _page(body: bytes) -> Page:
    root = ET.fromstring(body)  # noqa: S314  # S3's own; expat refuses what expands without end
    space = root.tag.removesuffix("ListVersionsResult")
    truncated = root.findtext(f"{space}IsTruncated") == "true"

    def text(element: ET.Element, name: str) -> str:
        found = element.findtext(f"{space}{name}")
        if found is None:
            raise KeyError(name)
        return found

    return Page(
        versions=[
            (unquote_plus(text(each, "Key")), text(each, "VersionId"), int(text(each, "Size")), text(each, "ETag"))
            for each in root.iter(f"{space}Version")
        ],
        reached=unquote_plus(text(root, "NextKeyMarker")) if truncated else "",
    )


def _trusting() -> ssl.SSLContext:
    """What botocore trusts."""
    bundle: Any = os.environ.get("AWS_CA_BUNDLE") or True
    return ssl.create_default_context(cafile=get_cert_path(bundle))


def _is_plain(key: str) -> bool:
    """Whether no HTTP library takes anything in the key for a path to be shortened."""
    return not any(part in ("", ".", "..") for part in key.split("/"))

"""Small uploads, and listings of them, at a part of what boto3 takes of a processor.

boto3 works out the endpoint, the checksums and the headers of each request anew, and makes objects of all that comes
back. Here the first upload goes by boto3, and shows where the bucket is; those that follow are signed by botocore and
go to the same place over urllib3's pool. What does not succeed at once goes by boto3 after all, which knows what to do:
retries, redirects, proxies and all errors are its own.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree as ET

import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies
from urllib3.util import SKIP_HEADER, Timeout

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from types_boto3_s3 import S3Client

FAILURES = 20
"""After so many in a row all goes by boto3: whatever is in the way here is not going to pass."""
TIMEOUT = Timeout(connect=5, read=30)
CONNECTIONS = 64
_SAFE = "/-._~"
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/")
_NOTHING_ELSE = {"user-agent": SKIP_HEADER, "accept-encoding": SKIP_HEADER}
"""urllib3 adds these of its own, which are not signed."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of a bucket's versions: (key, version id, size in bytes, ETag). `reached` is the last key of a page that
    is not the last one, else ""."""

    versions: Sequence[tuple[str, str, int, str]]
    reached: str


@dataclass(frozen=True)
class _Route:
    """Where the bucket is: a key's percent-encoded name comes behind `path`, which ends with a slash."""

    pool: urllib3.HTTPConnectionPool
    origin: str
    path: str
    region: str


@dataclass
class Quick:
    """PutObject and ListObjectVersions of one bucket. `credentials` are those of `client`; None: all goes by boto3."""

    client: S3Client
    bucket: str
    credentials: Credentials | None
    _route: _Route | None = None
    _failures: int = 0
    _sent: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.client.meta.events.register("before-send.s3.PutObject", self._note)

    def close(self) -> None:
        """Close the connections."""
        if self._route:
            self._route.pool.close()

    def put(self, key: str, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """The headers of S3's answer to an upload; None if it has to be made by boto3, see learn.

        `headers` are those of the HTTP request in lower case.
        """
        answer = self._ask("PUT", quote(key, safe=_SAFE), headers, body) if _is_plain(key) else None
        if answer is None:
            return None
        if answer.status != 200 or "etag" not in answer.headers:
            self._failures += 1
            return None
        self._failures = 0
        return answer.headers

    def versions(self, after: str) -> Page | None:
        """A page of versions of the keys that come after `after`; None if boto3 has to be asked for it."""
        marker = quote(after, safe="-._~")
        answer = self._ask("GET", f"?encoding-type=url&key-marker={marker}&versions=", {}, b"")
        try:
            return _page(answer.data) if answer is not None and answer.status == 200 else None
        except (ET.ParseError, ValueError, KeyError):
            return None

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
            self._route = _Route(
                pool=urllib3.connection_from_url(
                    f"{parts.scheme}://{parts.netloc}",
                    maxsize=CONNECTIONS,
                    timeout=TIMEOUT,
                    **({"ca_certs": _trusted()} if parts.scheme == "https" else {}),
                ),
                origin=f"{parts.scheme}://{parts.netloc}",
                path=parts.path.removesuffix(end),
                region=scope[1],
            )

    def _ask(self, method: str, name: str, headers: Mapping[str, str], body: bytes) -> urllib3.BaseHTTPResponse | None:
        """The answer to a request for what is `name` in the bucket; None if there is none."""
        route = self._route
        if route is None or self.credentials is None or self._failures >= FAILURES:
            return None
        path = f"{route.path}{name}" if name[:1] != "?" else f"{route.path.removesuffix('/') or '/'}{name}"
        request = AWSRequest(method, route.origin + path, headers=headers, data=body)
        S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", route.region).add_auth(request)
        try:
            return route.pool.urlopen(
                method,
                path,
                body=body or None,
                headers={**{field: str(value) for field, value in request.headers.items()}, **_NOTHING_ELSE},
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError):
            self._failures += 1
            return None

    def _note(self, *, request: Any, **_: Any) -> None:
        authorization = request.headers.get("Authorization", "")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        self._sent.last = (request.url, text)


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


def _trusted() -> str | None:
    """The file of certificates that botocore trusts."""
    bundle: Any = os.environ.get("AWS_CA_BUNDLE") or True
    found: str | None = get_cert_path(bundle)
    return found


def _is_plain(key: str) -> bool:
    """Whether no HTTP library takes anything in the key for a path to be shortened."""
    return not any(part in ("", ".", "..") for part in key.split("/"))

"""Small uploads at a third of what boto3's PutObject takes of a processor.

boto3 works out the endpoint, the checksums and the headers of each request anew, and counts tries. Here the first
upload goes by boto3, and shows where the bucket is and how requests to it are signed; those that follow are signed by
botocore's own signer and sent to the same place. What does not succeed at once goes by boto3 after all, which
knows what to do: retries, redirects and all errors are its own.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from types_boto3_s3 import S3Client

FAILURES = 20
"""After so many in a row all goes by boto3: whatever is in the way here is not going to pass."""
_AT_ONCE = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
"""As botocore does: else a body waits for the answer to its headers' packet, 40 ms."""
_SAFE = "/-._~"
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/s3/")


@dataclass(frozen=True)
class _Route:
    """Where the bucket is: a key's percent-encoded name comes behind `url`."""

    url: str
    region: str
    session: URLLib3Session


@dataclass
class QuickPuts:
    """PutObject for one bucket. `credentials` are those that `client` signs with; None: everything goes by boto3."""

    client: S3Client
    bucket: str
    credentials: Credentials | None
    threads: int
    _route: _Route | None = None
    _failures: int = 0
    _sent: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.client.meta.events.register("before-send.s3.PutObject", self._note)

    def put(self, key: str, body: bytes, headers: Mapping[str, str], sha256: str) -> Mapping[str, str] | None:
        """The headers of S3's answer to an upload; None if it has to be made by boto3, see learn.

        `headers` are those of the HTTP request, `sha256` is that of the body in hex.
        """
        route = self._route
        if route is None or self.credentials is None or self._failures >= FAILURES or not _is_plain(key):
            return None
        request = AWSRequest(
            "PUT",
            route.url + quote(key, safe=_SAFE),
            headers={**headers, "X-Amz-Content-SHA256": sha256, "Content-Length": str(len(body))},
            data=body,
        )
        try:
            S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", route.region).add_auth(request)
            answer = route.session.send(request.prepare())
        except HTTPClientError:
            self._failures += 1
            return None
        if answer.status_code != 200 or "ETag" not in answer.headers:
            self._failures += 1
            return None
        self._failures = 0
        return answer.headers

    def learn(self, key: str) -> None:
        """Take over how boto3 has sent its last upload in this thread, which was one of `key`."""
        url, authorization = getattr(self._sent, "last", ("", ""))
        scope = _SCOPE.match(authorization)
        end = quote(key, safe=_SAFE)
        if self._route is None and scope and url.endswith(f"/{end}") and _is_plain(key):
            options: dict[str, Any] = {"timeout": (5, 30), "socket_options": _AT_ONCE}
            session = URLLib3Session(
                verify=os.environ.get("AWS_CA_BUNDLE") or True,  # type: ignore[arg-type]  # a path as well
                proxies=get_environ_proxies(url),
                max_pool_connections=self.threads,
                **options,
            )
            self._route = _Route(url.removesuffix(end), scope[1], session)

    def _note(self, *, request: Any, **_: Any) -> None:
        authorization = request.headers.get("Authorization", "")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        self._sent.last = (request.url, text)


def _is_plain(key: str) -> bool:
    """Whether no HTTP library takes anything in the key for a path to be shortened."""
    return not any(part in ("", ".", "..") for part in key.split("/"))

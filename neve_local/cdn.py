"""A double of the distribution Content: what CloudFront would send of a file, as far as a local cloud can show it.

It stands in for CloudFront's data plane, which the local cloud lacks. It plays the origin group (the content bucket
first, on 403 and 404 the uploads bucket), passes ranges and conditions on, keeps query strings from S3, and reads paths
as S3 does, a `+` as a space. It caches nothing, verifies no signed URLs, and knows neither TLS nor other names.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_FAILED_OVER = (403, 404)
_ROOT = ".neve/nothing"  # the distribution's root object
_PASSED_ON = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_PASSED_BACK = (
    *("Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "Content-Language"),
    *("Content-Disposition", "Accept-Ranges", "Cache-Control", "ETag", "Last-Modified", "Expires"),
)


class ContentCdn(ThreadingHTTPServer):
    """The double, listening on 127.0.0.1 from the moment it is made; it answers 503 until it has `origins`.

    `origins` are the content bucket and, with the layout as-is, the uploads bucket; `served` counts what was sent from
    each of them.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0, *, max_age_s: int = 300) -> None:
        super().__init__(("127.0.0.1", port), _Request)
        self.max_age_s = max_age_s
        self.origins: Sequence[str] = ()
        self.s3: S3Client | None = None
        self.served: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, s3: S3Client, origins: Sequence[str]) -> None:
        """Answer from these buckets from now on."""
        self.s3, self.origins = s3, origins

    @contextlib.contextmanager
    def running(self) -> Iterator[ContentCdn]:
        """Serve in a thread of its own until the end of the context."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _Request(BaseHTTPRequestHandler):
    server: ContentCdn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for the client to acknowledge its headers
    timeout = 30

    def do_GET(self) -> None:
        """Send the file from the first origin that has it."""
        self._send()

    def do_HEAD(self) -> None:
        """The same, without its bytes."""
        self._send()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        """Say nothing."""

    def _send(self) -> None:
        if not self.server.origins:
            self.send_error(503)
            return
        # CloudFront passes the path on as it came, and S3 reads it like this.
        key = unquote_plus(urlsplit(self.path).path.removeprefix("/"), errors="surrogateescape") or _ROOT
        for bucket in self.server.origins:
            with self._asked(bucket, key) as answer:
                if answer.status in _FAILED_OVER and bucket != self.server.origins[-1]:
                    continue
                self.server.served[bucket] += answer.status < 400
                self._pass_back(answer)
                return

    @contextlib.contextmanager
    def _asked(self, bucket: str, key: str) -> Iterator[http.client.HTTPResponse]:
        """S3's answer. The request is signed, and has nothing of the client's query string."""
        assert self.server.s3 is not None, "serve() gives it together with the origins"
        operation = "head_object" if self.command == "HEAD" else "get_object"
        url = urlsplit(self.server.s3.generate_presigned_url(operation, {"Bucket": bucket, "Key": key}))
        headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
        connection = http.client.HTTPConnection(url.netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(self.command, f"{url.path}?{url.query}", headers=headers)
            yield connection.getresponse()

    def _pass_back(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name in _PASSED_BACK:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        if answer.status < 400 and "Cache-Control" not in answer.headers:
            self.send_header("Cache-Control", f"public, max-age={self.server.max_age_s}")
        if "Content-Length" not in answer.headers and answer.status != 304:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(answer, self.wfile)

"""The uploads bucket as the edge agent uses it: in memory and on S3."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from moto import mock_aws

from neve.errors import Transient
from neve_edge import uploading
from neve_edge.journal import Upload
from neve_edge.reading import Unfinished, read
from neve_edge.uploading import LIST_FROM, Proof, S3Uploads, Throttle, Uploads, judged
from tests.memory_edge import MemoryUploads
from tests.moto_cloud import CREDENTIALS
from tests.moto_listing import listing_as_on_aws

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BODY = b"some bytes"
BUCKET = "uploads-bucket"
NO_LIMIT = Throttle(0, lambda: 0.0, lambda _: None)


@pytest.fixture(params=["memory", "aws"])
def uploads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    if request.param == "memory":
        yield MemoryUploads()
        return
    with on_moto(monkeypatch) as made:
        yield made


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Uploads]:
    with on_moto(monkeypatch) as made:
        yield made


@contextmanager
def on_moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Uploads]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws(), listing_as_on_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        # moto forgets a checksum whose algorithm is not named beside it; S3 does not.
        client.meta.events.register("before-call.s3.PutObject", name_the_algorithm)
        made = S3Uploads(client, BUCKET, NO_LIMIT, threads=2, part_bytes=5 * 1024**2)
        yield made
        made.close()


def name_the_algorithm(*, params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-sdk-checksum-algorithm"] = "SHA256"


def uploaded(
    uploads: Uploads, folder: Path, key: str, body: bytes = BODY, *, large_bytes: int = 16 * 1024**2
) -> Upload:
    (folder / "file.jpg").write_bytes(body)
    with read(folder, "file.jpg", large_bytes=large_bytes) as reading:
        stored = uploads.put(key, reading)
        return Upload(
            folder="f", path=key, key=key, seen=reading.seen, ctime_ns=0, sha256=reading.sha256, md5=reading.md5,
            crc64nvme=reading.crc64nvme, version_id=stored.version_id, etag=stored.etag,
            uploaded_at=datetime.now(UTC),
        )  # fmt: skip


def test_what_was_put_is_intact_and_what_was_not_is_missing(uploads: Uploads, tmp_path: Path) -> None:
    first, second = uploaded(uploads, tmp_path, "a/ü b.jpg"), uploaded(uploads, tmp_path, "a/ü b.jpg", b"other")
    uploaded(uploads, tmp_path, "a/ü b.jpg.bak")
    assert uploads.proofs([first, second]) == [Proof.INTACT, Proof.INTACT]
    assert uploads.order("a/ü b.jpg") == [second.version_id, first.version_id]
    assert uploads.order("a/ü") == []
    lost = replace(first, version_id="11111111-1111-1111-1111-111111111111")
    wrong = replace(first, sha256=second.sha256, md5=second.md5)
    assert uploads.proofs([lost, wrong]) == [Proof.MISSING, Proof.DIFFERENT]


def test_a_file_brings_its_type_and_its_time(s3: S3Uploads, tmp_path: Path) -> None:
    upload = uploaded(s3, tmp_path, "a.jpg")
    answer = s3.client.head_object(Bucket=BUCKET, Key="a.jpg", ChecksumMode="ENABLED")
    assert answer["ContentType"] == "image/jpeg"
    assert answer["Metadata"]["mtime"].replace(".", "") == str(upload.seen.mtime_ns)
    assert [uploading.content_type(name) for name in ("a.tar.gz", "A.PNG", "a", ".profile")] == [
        "application/gzip",
        "image/png",
        "",
        "",
    ]


def test_a_large_file_goes_in_parts_with_one_checksum_over_all(s3: S3Uploads, tmp_path: Path) -> None:
    body = os.urandom(6 * 1024**2)
    upload = uploaded(s3, tmp_path, "large.mov", body, large_bytes=1024)
    assert "-2" in upload.etag
    assert s3.client.get_object(Bucket=BUCKET, Key="large.mov", VersionId=upload.version_id)["Body"].read() == body
    answer = {"ContentLength": len(body), "ETag": '"x-2"', "ChecksumType": "FULL_OBJECT"}
    assert judged(upload, {**answer, "ChecksumCRC64NVME": upload.crc64nvme}) is Proof.INTACT
    assert judged(upload, {**answer, "ChecksumCRC64NVME": "AAAAAAAAAAA="}) is Proof.DIFFERENT
    assert judged(upload, answer) is Proof.UNKNOWN


def test_who_stops_gives_up_what_goes_in_parts(s3: S3Uploads, tmp_path: Path) -> None:
    def stop(_: float) -> None:
        if not s3._stopped:
            threading.Thread(target=s3.give_up).start()
        while not s3._stopped:
            time.sleep(0.01)
        time.sleep(0.1)

    s3.throttle = Throttle(1, lambda: 0.0, stop)
    for _ in range(2):
        with pytest.raises(Transient, match="the agent stops"):
            uploaded(s3, tmp_path, "large.mov", bytes(6 * 1024**2), large_bytes=1024)
    assert not s3.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads"), "nothing is left to be paid for"
    assert not s3.order("large.mov")


def test_many_uploads_are_looked_up_in_pages_and_the_rest_one_by_one(
    s3: S3Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "LIST_FROM", 3)
    calls: list[str] = []
    s3.client.meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name))
    many = [uploaded(s3, tmp_path, f"a/{number}.jpg", b"%d" % number) for number in range(6)]
    uploaded(s3, tmp_path, "a/3.jpg", b"a later version")
    calls.clear()
    assert s3.proofs(many) == [Proof.INTACT] * 6
    assert calls == ["ListObjectVersions"]
    damaged = [replace(each, md5="0" * 32, sha256="0" * 64) if each.key == "a/2.jpg" else each for each in many]
    assert [proof.name for proof in s3.proofs(damaged)] == ["INTACT"] * 2 + ["DIFFERENT"] + ["INTACT"] * 3
    assert calls[1:] == ["ListObjectVersions", "HeadObject"]


def test_a_bucket_without_versions_has_null_versions_known_by_their_bytes(s3: S3Uploads, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="plain")
    plain = S3Uploads(s3.client, "plain", NO_LIMIT, threads=1)
    first = uploaded(plain, tmp_path, "a.jpg")
    assert first.version_id == "null"
    assert plain.proofs([first]) == [Proof.INTACT]
    uploaded(plain, tmp_path, "a.jpg", b"over it")
    assert plain.proofs([first]) == [Proof.DIFFERENT]
    plain.close()


def test_whatever_s3_refuses_is_to_be_tried_again(s3: S3Uploads, tmp_path: Path) -> None:
    elsewhere = S3Uploads(s3.client, "no-such-bucket", NO_LIMIT, threads=1)
    with pytest.raises(Transient, match="NoSuchBucket"):
        uploaded(elsewhere, tmp_path, "a.jpg")
    with pytest.raises(Transient, match="NoSuchBucket"):
        uploaded(elsewhere, tmp_path, "large.mov", b"x" * 2048, large_bytes=1024)
    elsewhere.close()


def test_bytes_pass_at_the_rate_that_is_set_however_many_threads_ask() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    throttle = Throttle(100, lambda: now[0], sleep)
    for _ in range(3):
        throttle.take(50)
    assert slept == [0.5, 1.0]
    now[0] = 10
    throttle.take(50)
    assert slept == [0.5, 1.0]


def test_a_file_that_grows_while_it_is_read_is_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file.jpg"
    place.write_bytes(BODY)
    real = os.read

    def grow(descriptor: int, size: int) -> bytes:
        with place.open("ab") as file:
            file.write(b"!")
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", grow)
    with pytest.raises(Unfinished), read(tmp_path, "file.jpg"):
        pass


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes


class Server(BaseHTTPRequestHandler):
    """Notes requests; answers as S3 does, or with the next of `failures`."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[Asked]] = []
    failures: ClassVar[list[int]] = []
    page: ClassVar[bytes] = b""
    closes: ClassVar[bool] = False

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.failures.pop() if self.failures else 200)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("x-amz-version-id", f"v{len(self.asked)}")
        self.send_header("Content-Length", "0")
        if self.closes:
            self.send_header("Connection", "close")
        if "last" in self.path:
            self.send_header("Connection", "close")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, b""))
        failure = self.failures.pop() if self.failures else 0
        page = b"<not XML" if failure == UNREADABLE else self.page
        self.send_response(200 if failure in (0, UNREADABLE) else failure)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        pass


UNREADABLE = -1


def test_quick_listings_say_what_boto3_says_and_leave_every_failure_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"a b+ü/{number:03}.jpg" for number in range(LIST_FROM)]
    etag = hashlib.md5(BODY).hexdigest()
    versions = "".join(
        f"<Version><Key>{quote(key)}</Key><VersionId>v</VersionId><IsLatest>true</IsLatest><ETag>&quot;{etag}&quot;</ETag>"
        f"<Size>{len(BODY)}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Version>"
        for key in keys
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    with serving(monkeypatch) as (session, client):
        s3 = S3Uploads(client, BUCKET, NO_LIMIT, credentials=session.get_credentials(), threads=1)
        upload = replace(uploaded(s3, tmp_path, "first.jpg"), version_id="v")
        listing = f'<ListVersionsResult xmlns="{space}"><EncodingType>url</EncodingType>{versions}</ListVersionsResult>'
        monkeypatch.setattr(Server, "page", listing.encode())
        for failures in ([], [UNREADABLE], [500]):
            Server.asked.clear()
            Server.failures[:] = failures
            assert set(s3.proofs([replace(upload, key=key) for key in keys])) == {Proof.INTACT}
            quick, *by_boto3 = Server.asked
            assert "user-agent" not in quick.headers
            assert is_signed(quick, session, method="GET")
            assert ["user-agent" in each.headers for each in by_boto3] == [True] * len(failures)
        s3.close()


def test_quick_uploads_say_what_boto3_says_and_leave_every_failure_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch) as (session, client):
        s3 = S3Uploads(client, BUCKET, NO_LIMIT, credentials=session.get_credentials(), threads=1)
        first = uploaded(s3, tmp_path, "a/ü+ &b=c%20.jpg")
        second = uploaded(s3, tmp_path, "a/ü+ &b=c%20.jpg")
        by_boto3, quick = Server.asked
        assert "user-agent" in by_boto3.headers
        assert "botocore" not in quick.headers.get("user-agent", "").lower(), "this one was not sent by boto3"
        assert quick.path == by_boto3.path
        assert quick.body == by_boto3.body == BODY
        for name in ("x-amz-checksum-sha256", "content-type", "content-length", "host"):
            assert quick.headers.get(name) == by_boto3.headers.get(name)
        assert quick.headers["x-amz-meta-mtime"]
        assert (first.version_id, second.version_id) == ("v1", "v2")
        assert is_signed(quick, session)

        Server.failures[:] = [503]
        third = uploaded(s3, tmp_path, "b.jpg")
        assert third.version_id == "v4", "boto3 made it"
        Server.failures[:] = [403, 403]
        with pytest.raises(Transient, match="403"):
            uploaded(s3, tmp_path, "c.jpg")
        uploaded(s3, tmp_path, "odd//key.jpg")
        assert Server.asked[-1].path == f"/{BUCKET}/odd//key.jpg"
        assert "user-agent" in Server.asked[-1].headers

        monkeypatch.setattr(Server, "closes", True)
        before = len(Server.asked)
        assert [uploaded(s3, tmp_path, "d.jpg").version_id for _ in range(3)] == [
            f"v{before + 1 + n}" for n in range(3)
        ]
        assert not any("user-agent" in each.headers for each in Server.asked[before:]), "each had a new connection"
        s3.close()


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[boto3.Session, S3Client]]:
    """A Server, and a client of it that tries everything once."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    Server.asked.clear()
    Server.failures.clear()
    try:
        session = boto3.Session()
        config = Config(retries={"mode": "standard", "total_max_attempts": 1})
        client = session.client("s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", config=config)
        yield session, client
        client.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_signed(asked: Asked, session: boto3.Session, method: str = "PUT") -> bool:
    """Whether the signature is the one that botocore makes of the request as it arrived."""
    scope = asked.headers["authorization"]
    names = scope.split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: asked.headers[name] for name in names if name != "x-amz-date"}
    request = AWSRequest(method, f"http://{asked.headers['host']}{asked.path}", headers=headers, data=asked.body)
    credentials = session.get_credentials()
    assert credentials
    signer = S3SigV4Auth(credentials.get_frozen_credentials(), "s3", CREDENTIALS["AWS_DEFAULT_REGION"])
    request.context["timestamp"] = asked.headers["x-amz-date"]
    request.headers["X-Amz-Date"] = asked.headers["x-amz-date"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return scope.endswith(f"Signature={signer.signature(text, request)}")

"""Uploads: files are put into the uploads bucket with their checksums, and S3 is asked what it holds."""

from __future__ import annotations

import base64
import io
import mimetypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import TransferNotDoneError

from neve.aws.content import full_checksums
from neve.aws.faults import code, status, transient
from neve.domain.version import NULL_VERSION
from neve.errors import Transient
from neve_edge.journal import Upload
from neve_edge.quick import Page, Quick
from neve_edge.reading import Reading

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from types_boto3_s3 import S3Client

PART_BYTES = 16 * 1024 * 1024
LIST_FROM = 50
"""A page of a listing has 1,000 versions; it takes a processor as long as 50 HEADs, and costs as much as 12."""
MTIME = "mtime"
"""User metadata: the file's time of modification in seconds, in the form that rclone reads and writes."""


class Proof(Enum):
    """What S3 says of an upload."""

    INTACT = "it holds the bytes that were read"
    MISSING = "it does not hold the version"
    DIFFERENT = "it holds other bytes than were read"
    UNKNOWN = "it states no checksum to compare"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What S3 answered to an upload. The version is `null` if the bucket keeps none."""

    version_id: str
    etag: str


class Uploads(Protocol):
    """The uploads bucket. Several threads may call it at once.

    Every call may raise Transient, whatever S3's reason: the agent's clock, its credentials and its permissions are no
    fault of a file, which stays where it is until they have been seen to.
    """

    def put(self, key: str, reading: Reading) -> Stored:
        """Make a version of `key` of the bytes that were read, with a checksum that S3 compares."""

    def proofs(self, uploads: Sequence[Upload]) -> Sequence[Proof]:
        """What S3 says of each of `uploads` now, in their order.

        INTACT is said of a checksum that S3 states of that version and that is the one of what was read: its SHA-256 or
        CRC64NVME, or its MD5 where a listing's ETag is equal to it.
        """

    def order(self, key: str) -> Sequence[str]:
        """The version ids of `key` in the uploads bucket, the newest first; delete markers are left out."""

    def give_up(self) -> None:
        """Give up what is being uploaded in parts, which raises Transient: who stops does not wait for gigabytes."""


@dataclass
class Throttle:
    """Lets so many bytes a second pass, 0 for any number, however many threads ask."""

    bytes_per_s: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], object]
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more may be sent."""
        if not self.bytes_per_s:
            return
        with self._lock:
            now = self.monotonic()
            wait_s = max(0.0, self._free_at - now)
            self._free_at = max(self._free_at, now) + size_bytes / self.bytes_per_s
        if wait_s:
            self.sleep(wait_s)


@dataclass
class S3Uploads:
    """The port Uploads. `threads` call it at once, and it makes as many requests beside theirs.

    With the `credentials` of the client's session, small files take much less of a processor: see Quick.
    """

    client: S3Client
    bucket: str
    throttle: Throttle
    credentials: Credentials | None = None
    threads: int = 8
    part_bytes: int = PART_BYTES
    _completed: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _large: set[Any] = field(default_factory=set)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._transfers = create_transfer_manager(
            self.client,
            TransferConfig(
                multipart_threshold=1,  # what comes here is large
                multipart_chunksize=self.part_bytes,
                max_concurrency=self.threads,
                preferred_transfer_client="classic",
            ),
        )
        self._quick = Quick(self.client, self.bucket, self.credentials)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="heads")
        # s3transfer does not hand on what S3 answers, and the version is in it.
        self.client.meta.events.register("after-call.s3.CompleteMultipartUpload", self._note_completed)

    def give_up(self) -> None:
        """See Uploads. Parts that are on their way arrive, and are removed with the others."""
        self._stopped = True
        for future in list(self._large):
            future.cancel()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._quick.close()
        self._transfers.shutdown()

    def put(self, key: str, reading: Reading) -> Stored:
        """See Uploads. A large file goes in parts, read a second time; a CRC64NVME covers them as a whole."""
        mtime, kind = _mtime(reading.seen.mtime_ns), content_type(reading.name)
        described: dict[str, Any] = {"Metadata": {MTIME: mtime}, **({"ContentType": kind} if kind else {})}
        with keeping():
            if reading.body is None:
                return self._put_large(key, reading, described)
            self.throttle.take(reading.size_bytes)
            checksum = _base64(reading.sha256)
            headers = {f"x-amz-meta-{MTIME}": mtime, "x-amz-checksum-sha256": checksum}
            if kind:
                headers["content-type"] = kind
            quick = self._quick.put(key, reading.body, headers)
            if quick is not None:
                return Stored(version_id=quick.get("x-amz-version-id") or NULL_VERSION, etag=quick["etag"].strip('"'))
            answer = self.client.put_object(
                Bucket=self.bucket, Key=key, Body=reading.body, ChecksumSHA256=checksum, **described
            )
            self._quick.learn(key)
        return _stored(answer)

    def proofs(self, uploads: Sequence[Upload]) -> Sequence[Proof]:
        """See Uploads. Many are looked up in pages of a listing, where it has their neighbours as well."""
        listed: set[tuple[str, str]] = set()
        if len(uploads) >= LIST_FROM:
            with keeping():
                listed = self._listed([each for each in uploads if each.md5 and each.version_id != NULL_VERSION])
        rest = [each for each in uploads if (each.key, each.version_id) not in listed]
        heads = dict(zip(((each.key, each.version_id) for each in rest), self._heads(rest), strict=True))
        return [heads.get((each.key, each.version_id), Proof.INTACT) for each in uploads]

    def order(self, key: str) -> Sequence[str]:
        """See Uploads. Source: API reference of ListObjectVersions: the newest version of a key comes first."""
        found: list[str] = []
        with keeping():
            pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=key)
            for page in pages:
                versions = page.get("Versions", [])
                found += [each["VersionId"] for each in versions if each["Key"] == key]
                if any(each["Key"] != key for each in versions):
                    break
        return found

    def _heads(self, uploads: Sequence[Upload]) -> Iterable[Proof]:
        return [self._head(uploads[0])] if len(uploads) == 1 else self._pool.map(self._head, uploads)

    def _head(self, upload: Upload) -> Proof:
        named: Any = {} if upload.version_id == NULL_VERSION else {"VersionId": upload.version_id}
        with keeping():
            try:
                answer = self.client.head_object(Bucket=self.bucket, Key=upload.key, ChecksumMode="ENABLED", **named)
            except ClientError as error:
                if status(error) in (404, 405):
                    return Proof.MISSING
                raise
        return judged(upload, answer)

    def _listed(self, uploads: Sequence[Upload]) -> set[tuple[str, str]]:
        """(key, version id) of those of `uploads` that a listing states with the MD5 of what was read.

        Each page begins at a key that is wanted. As soon as one tells of too few, no more are asked for.
        """
        wanted = {(each.key, each.version_id): each for each in uploads}
        keys = sorted({each.key.encode() for each in uploads})
        found: set[tuple[str, str]] = set()
        next_key = 0
        while len(keys) - next_key >= LIST_FROM:
            marker = keys[next_key].decode()[:-1]  # the last key before it that is certain to come before it
            page = self._quick.versions(marker) or self._page(marker)
            before = next_key
            for key, version_id, size_bytes, etag in page.versions:
                upload = wanted.get((key, version_id))
                if upload and size_bytes == upload.seen.size_bytes and etag.strip('"') == upload.md5:
                    found.add((key, version_id))
            if not page.reached:
                break
            reached = page.reached.encode()
            while next_key < len(keys) and keys[next_key] <= reached:
                next_key += 1
            if next_key - before < LIST_FROM:
                break
        return found

    def _page(self, marker: str) -> Page:
        answer: Any = self.client.list_object_versions(Bucket=self.bucket, KeyMarker=marker)
        return Page(
            versions=[
                (each["Key"], each["VersionId"], each["Size"], each["ETag"]) for each in answer.get("Versions", [])
            ],
            reached=answer["NextKeyMarker"] if answer.get("IsTruncated") else "",
        )

    def _put_large(self, key: str, reading: Reading, described: Mapping[str, Any]) -> Stored:
        body: Any = _Paced(reading.descriptor, self.throttle)
        future = self._transfers.upload(
            body, self.bucket, key, extra_args={**described, "ChecksumCRC64NVME": reading.crc64nvme}
        )
        self._large.add(future)
        if self._stopped:
            future.cancel()
        try:
            future.result()
        except CancelledError as error:
            raise Transient("the agent stops") from error
        finally:
            self._large.discard(future)
        answer = self._completed.pop(key, None)
        if answer is None:
            raise Transient(f"S3 did not say which version {key} is")
        return _stored(answer)

    def _note_completed(self, *, parsed: dict[str, Any], **_: Any) -> None:
        if "Key" in parsed and "ETag" in parsed:
            self._completed[parsed["Key"]] = parsed


def judged(upload: Upload, answer: Mapping[str, Any]) -> Proof:
    """What S3's answer to HeadObject proves of an upload."""
    if answer["ContentLength"] != upload.seen.size_bytes:
        return Proof.DIFFERENT
    checksums = full_checksums(answer)
    pairs = [(checksums.get("SHA256"), _base64(upload.sha256)), (checksums.get("CRC64NVME"), upload.crc64nvme)]
    shared = [stated == read for stated, read in pairs if stated and read]
    if shared:
        return Proof.INTACT if all(shared) else Proof.DIFFERENT
    return Proof.INTACT if answer["ETag"].strip('"') == upload.md5 else Proof.UNKNOWN


@lru_cache(maxsize=1024)
def _type_of(suffix: str) -> str:
    packed = {".gz": "application/gzip", ".bz2": "application/x-bzip2", ".xz": "application/x-xz"}
    return packed.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or ""


def content_type(name: str) -> str:
    """The media type by a file's name, as a web server would state it; "" if the name does not tell."""
    return _type_of(os.path.splitext(name)[1].lower())  # noqa: PTH122  # once for each of millions of names


def _mtime(mtime_ns: int) -> str:
    return f"{mtime_ns // 10**9}.{mtime_ns % 10**9:09d}"


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _stored(answer: Mapping[str, Any]) -> Stored:
    return Stored(version_id=answer.get("VersionId") or NULL_VERSION, etag=answer["ETag"].strip('"'))


@contextmanager
def keeping() -> Iterator[None]:
    """Turn whatever AWS and botocore refuse into Transient: the agent keeps the file, and tries again."""
    try:
        with transient():
            yield
    except ClientError as error:
        raise Transient(f"{error.operation_name}: {status(error)} {code(error)}") from error
    except (BotoCoreError, TransferNotDoneError) as error:  # no credentials, a profile that is not there, ...
        raise Transient(f"{type(error).__name__}: {error}") from error


class _Paced(io.RawIOBase):
    """An open file for s3transfer, which reads it one part at a time; a part waits until it may be sent."""

    def __init__(self, descriptor: int, throttle: Throttle) -> None:
        self._descriptor, self._throttle, self._position = descriptor, throttle, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = size if size >= 0 else os.fstat(self._descriptor).st_size - self._position
        pieces: list[bytes] = []
        while left > 0 and (piece := os.pread(self._descriptor, left, self._position)):
            pieces.append(piece)
            self._position += len(piece)
            left -= len(piece)
        body = b"".join(pieces)
        self._throttle.take(len(body))
        return body

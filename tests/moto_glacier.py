"""Bridges over moto's S3: thaws that run until a test ends them, and the conditions, checks and refusals of copies.

They replace what moto's server answers, so every client sees them, and a call is one call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlparse

from moto.s3.exceptions import MissingKey, PreconditionFailed
from moto.s3.models import FakeKey
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum

from neve.domain.thaw import PROMISES, Tier, needs_thaw
from tests.memory_s3 import copy_until, thawed_event


@dataclass
class Thawing:
    """A thaw that runs."""

    tier: Tier
    days: int


@dataclass
class MotoGlacier:
    """S3's thaws as S3 runs them, and what a test can make of them.

    `asked` has (object key, tier, days, HTTP status) of each request. While not `expedited`, S3 has no capacity for
    that; `slow_downs` requests are throttled first.
    """

    asked: list[tuple[str, Tier, int, int]] = field(default_factory=list)
    expedited: bool = True
    slow_downs: int = 0
    _running: dict[FakeKey, Thawing] = field(default_factory=dict)
    _warm: set[FakeKey] = field(default_factory=set)

    def complete(self) -> list[str]:
        """End the thaws that run; their events."""
        events = []
        for key, thawing in self._running.items():
            until = copy_until(datetime.now(UTC), thawing.days)
            key.set_expiry(until)
            self._warm.add(key)
            events.append(
                thawed_event(
                    str(key.bucket_name), key.name, until, version_id=key.version_id, size_bytes=key.contentsize
                )
            )
        self._running.clear()
        return events

    def forget(self) -> None:
        """Have S3 know of no thaw any more, as if none had been asked for."""
        self.expire()
        for key in self._running:
            key.set_expiry(None)
        self._running.clear()

    def expire(self) -> None:
        """Let all copies expire."""
        for key in self._warm:
            key.set_expiry(None)
        self._warm.clear()

    def restore(self, key: FakeKey, tier: Tier, days: int) -> tuple[int, str]:
        """The status and error code of S3's answer to RestoreObject."""
        status, code = self._answer(key, tier, days)
        self.asked.append((key.name, tier, days, status))
        return status, code

    def status(self, key: FakeKey) -> str:
        """What moto calls the state of a thaw."""
        return "IN_PROGRESS" if key in self._running else "RESTORED"

    def _answer(self, key: FakeKey, tier: Tier, days: int) -> tuple[int, str]:
        if self.slow_downs:
            self.slow_downs -= 1
            return 503, "SlowDown"
        storage_class = str(key.storage_class)
        if not needs_thaw(storage_class):
            return 403, "InvalidObjectState"
        if tier not in PROMISES[storage_class]:
            return 400, "InvalidArgument"
        if key in self._warm:
            key.set_expiry(copy_until(datetime.now(UTC), days))
            return 200, ""
        return self._start(key, PROMISES[storage_class], Thawing(tier, days))

    def _start(self, key: FakeKey, promises: Mapping[Tier, Any], asked: Thawing) -> tuple[int, str]:
        """Thaw a key that is not warm, or upgrade the thaw that runs: to a faster tier, for the same days."""
        running = self._running.get(key)
        if running and (promises[asked.tier] >= promises[running.tier] or asked.days != running.days):
            return 409, "RestoreAlreadyInProgress"
        if asked.tier is Tier.EXPEDITED and not self.expedited:
            return 503, "GlacierExpeditedRetrievalNotAvailable"
        key.set_expiry(datetime.now(UTC))  # not that it means anything yet, but moto looks whether there is one
        self._running[key] = asked
        return 202, ""


@contextmanager
def glacier_as_on_aws() -> Iterator[MotoGlacier]:
    """moto with these bridges, for as long as the context lasts."""
    glacier = MotoGlacier()
    post, copy, copy_part = S3Response._key_response_post, S3Response.copy_object, S3Response.upload_part_copy
    head = S3Response.head_object

    def key_response_post(self: S3Response, *request: Any) -> Any:
        _, body, _, query, _ = request
        if "restore" in query:
            return _restore(self, glacier, body, query)
        if query.get("uploadId"):
            return _complete(self, lambda: post(self, *request), query["uploadId"][0])
        return post(self, *request)

    def copy_object(self: S3Response) -> Any:
        _require_conditions(self)
        source, wanted = _source_of(self), self.headers.get("x-amz-copy-source-if-match")
        if source and wanted and wanted.strip('"') != source.etag.strip('"'):
            raise PreconditionFailed("x-amz-copy-source-If-Match")
        return copy(self)

    def head_object(
        self: S3Response, bucket_name: str, query: dict[str, Any], key_name: str, headers: dict[str, Any]
    ) -> Any:
        if query.get("versionId") == ["null"] and not self.backend.get_bucket(bucket_name).is_versioned:
            query = {name: value for name, value in query.items() if name != "versionId"}
        return head(self, bucket_name, query, key_name, headers)

    def upload_part_copy(self: S3Response) -> Any:
        source = _source_of(self)
        if source and needs_thaw(str(source.storage_class)) and source not in glacier._warm:
            return _error(403, "InvalidObjectState")
        if self._get_param("uploadId") not in self.backend.get_bucket(self.bucket_name).multiparts:
            return _error(404, "NoSuchUpload")
        return copy_part(self)

    with (
        patch.object(S3Response, "_key_response_post", key_response_post),
        patch.object(S3Response, "copy_object", copy_object),
        patch.object(S3Response, "head_object", head_object),
        patch.object(S3Response, "upload_part_copy", upload_part_copy),
        patch.object(FakeKey, "status", property(glacier.status)),
    ):
        yield glacier


def _restore(response: S3Response, glacier: MotoGlacier, body: bytes, query: Mapping[str, Any]) -> Any:
    version_id = query.get("versionId", [None])[0]
    key = response.backend.get_object(response.bucket_name, response.parse_key_name(), version_id=version_id)
    if key is None:
        return _error(404, "NoSuchKey")
    tier, days = re.search(rb"<Tier>(\w+)</Tier>", body), re.search(rb"<Days>(\d+)</Days>", body)
    assert days, body
    status, code = glacier.restore(key, Tier(tier[1].decode().lower()) if tier else Tier.STANDARD, int(days[1]))
    return _error(status, code) if code else (status, {}, "")


def _complete(response: S3Response, complete: Callable[[], Any], upload_id: str) -> Any:
    """If-Match, NoSuchUpload and the checksum that the client states; and S3's own in the answer."""
    bucket = response.backend.get_bucket(response.bucket_name)
    existing = response.backend.get_object(response.bucket_name, response.parse_key_name())
    if upload_id not in bucket.multiparts:
        repeated = existing is not None and existing.multipart and existing.multipart.id == upload_id
        return complete() if repeated else _error(404, "NoSuchUpload")
    _require_conditions(response)
    joined = b"".join(part.value for _, part in sorted(bucket.multiparts[upload_id].parts.items()))
    checksum = compute_checksum(joined, "CRC64NVME").decode()
    if response.headers.get("x-amz-checksum-crc64nvme", checksum) != checksum:
        return _error(400, "BadDigest")
    status, headers, body = complete()
    stated = f"<ChecksumCRC64NVME>{checksum}</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>"
    end = "</CompleteMultipartUploadResult>"
    return status, headers, body.replace(end, stated + end)


def _require_conditions(response: S3Response) -> None:
    """If-None-Match and If-Match of a write, against what stands there."""
    existing = response.backend.get_object(response.bucket_name, response.parse_key_name())
    if response.headers.get("If-None-Match") == "*" and existing is not None:
        raise PreconditionFailed("If-None-Match")
    if response.headers.get("If-Match"):
        if existing is None:
            raise MissingKey
        if response.headers["If-Match"].strip('"') != existing.etag.strip('"'):
            raise PreconditionFailed("If-Match")


def _source_of(response: S3Response) -> FakeKey | None:
    parsed = urlparse(response.headers["x-amz-copy-source"])
    bucket_name, key_name = unquote(parsed.path).lstrip("/").split("/", 1)
    version_id = parse_qs(parsed.query).get("versionId", [None])[0]
    found: FakeKey | None = response.backend.get_object(bucket_name, key_name, version_id=version_id)
    return found


def _error(status: int, code: str) -> tuple[int, dict[str, str], str]:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"

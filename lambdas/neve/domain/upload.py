"""An upload on its way: where it goes in the content bucket, what counts as its copy, and the message to let it go."""

from __future__ import annotations

import json
from datetime import datetime

from neve.domain.large import CRC64NVME, SINGLE_COPY_BYTES, proven
from neve.domain.layout import Layout, content_key
from neve.domain.manifest import Source
from neve.domain.pointer import InContent, Pointer
from neve.domain.version import ObjectVersion, from_fields, to_fields
from neve.errors import EventInvalid, SourceUnfit, SourceUnproven

RESERVED = ".neve/"
"""What lies below it in the content bucket is neve's own, and some of it expires."""

LOOK_BYTES = 128 * 1024
"""From this size on S3 is asked about an upload before it is copied. Below, no storage class is cheaper than STANDARD
(S3 pricing: STANDARD_IA is billed for 128 KB at least, and INTELLIGENT_TIERING does not watch what is smaller)."""

RELEASE = "neve-release"

_DESCRIPTION = (
    "content_type",
    "content_encoding",
    "content_language",
    "content_disposition",
    "cache_control",
    "expires",
    "user_metadata",
    "tags",
)
"""What S3 keeps of an object when it copies it, besides its bytes."""


def destination(key: str, layout: Layout) -> str:
    """Where the upload `key` goes in the content bucket. Raises SourceUnfit if it may not go there."""
    if key.startswith(RESERVED):
        raise SourceUnfit(f"{key!r}: what begins with {RESERVED} is neve's own")
    try:
        return content_key(key, layout)
    except ValueError as error:
        raise SourceUnfit(str(error)) from error


def needs_look(upload: ObjectVersion) -> bool:
    """Whether S3 has to be asked about the upload before it is copied.

    An ETag with a dash is no MD5: the copy's own will not prove anything.
    """
    return upload.size_bytes >= LOOK_BYTES or "-" in upload.etag


def require_provable(source: Source) -> None:
    """Raises SourceUnproven for an upload that is too large to be read, and of which S3 states nothing to compare.

    A copy in parts has a CRC64NVME. It has the upload's ETag as well if it has the same parts: an ETag is made of the
    parts' MD5s, unless KMS encrypts them (S3 API reference, "Object").
    """
    comparable = CRC64NVME in source.checksums or ("-" in source.etag and not source.encryption.startswith("aws:kms"))
    if source.size_bytes > SINGLE_COPY_BYTES and not comparable:
        raise SourceUnproven(
            f"{source.key!r} version {source.version_id}: S3 states no {CRC64NVME} of its {source.size_bytes} bytes"
        )


def is_copy(upload: Source, standing: Source) -> bool:
    """Whether what stands in the content bucket is the upload: proved to be the same bytes, and described alike."""
    return (
        standing.size_bytes == upload.size_bytes
        and proven(upload.checksums, upload.etag, standing.checksums, standing.etag) is True
        and all(getattr(standing, name) == getattr(upload, name) for name in _DESCRIPTION)
    )


def pointer_to(
    upload: ObjectVersion, *, content_key: str, content_version: str, after: Pointer | None, now: datetime
) -> InContent:
    """The pointer that names the upload's copy. An upload whose sequencer is unknown takes that of the one before."""
    before = after.sequencer if isinstance(after, InContent) else ""
    return InContent(
        key=upload.key,
        content_key=content_key,
        content_version=content_version,
        upload_version=upload.version_id,
        sequencer=upload.sequencer or before,
        size_bytes=upload.size_bytes,
        etag=upload.etag,
        since=now,
    )


def version_named_by(pointer: InContent) -> ObjectVersion:
    """The version in the content bucket that the pointer names, as far as the pointer knows it."""
    return ObjectVersion(
        key=pointer.content_key,
        version_id=pointer.content_version,
        size_bytes=pointer.size_bytes,
        etag=pointer.etag,
        sequencer="",
        event_at=pointer.since,
    )


def render_release(bucket: str, upload: ObjectVersion) -> str:
    """The message that lets an upload go. Inverse: parse_release."""
    return json.dumps({"format": RELEASE, "version": 1, "bucket": bucket, "upload": to_fields(upload)})


def parse_release(body: str, bucket: str) -> ObjectVersion:
    """The upload in `bucket` that a message lets go. Raises EventInvalid if it is no such message."""
    try:
        message = json.loads(body)
        if (message["format"], message["version"]) != (RELEASE, 1):
            raise EventInvalid(f"not a release of version 1: {message['format']!r}, {message['version']!r}")
        if message["bucket"] != bucket:
            raise EventInvalid(f"bucket {message['bucket']!r}, this stack lets go what lies in {bucket!r}")
        return from_fields(message["upload"])
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise EventInvalid(f"not a release: {error!r}") from error

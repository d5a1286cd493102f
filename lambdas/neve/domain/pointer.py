"""A pointer: where a file is now, by the key that the application knows it by.

A file that has a pointer into the content bucket keeps one: a later upload replaces it, an earlier one never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from neve.domain.version import NULL_VERSION, ObjectVersion


@dataclass(frozen=True, kw_only=True)
class InContent:
    """The file lies in the content bucket, verified.

    `content_version` is the version of `content_key` with its bytes; `upload_version` and `sequencer` (padded, see
    version.padded_sequencer) name the upload that it was copied from, whose size and ETag these are.
    """

    key: str
    content_key: str
    content_version: str
    upload_version: str
    sequencer: str
    size_bytes: int
    etag: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class OnHost:
    """The file is nowhere but on a host so far, which serves it at `url`."""

    key: str
    url: str
    since: datetime


Pointer = InContent | OnHost


def found(key: str, standing: ObjectVersion) -> InContent:
    """The pointer of a file of which nothing is known but what is current in the content bucket.

    Nobody knows which upload that came from. So no upload has its id, and its sequencer is unknown: CopyUpload takes
    an upload for a later one only if that is what is current in the uploads bucket.
    """
    return InContent(
        key=key,
        content_key=standing.key,
        content_version=standing.version_id,
        upload_version="",
        sequencer="",
        size_bytes=standing.size_bytes,
        etag=standing.etag,
        since=standing.event_at,
    )


def names(pointer: Pointer | None, *, upload_version: str, sequencer: str) -> bool:
    """Whether `pointer` names this upload. `sequencer` is padded; "" is an unknown one.

    The version id `null` says nothing: a bucket without versions gives it to one upload after the other.
    """
    if not isinstance(pointer, InContent) or pointer.upload_version != upload_version:
        return False
    return upload_version != NULL_VERSION or (bool(sequencer) and pointer.sequencer == sequencer)


def covers(pointer: Pointer | None, *, upload_version: str, sequencer: str) -> bool:
    """Whether `pointer` names this upload, or one of the same key that came after it.

    An unknown sequencer says nothing about what came after. Source: S3 user guide, "Event message structure": the
    events of a key are in the order of their sequencers.
    """
    if names(pointer, upload_version=upload_version, sequencer=sequencer):
        return True
    return isinstance(pointer, InContent) and bool(sequencer) and pointer.sequencer >= sequencer

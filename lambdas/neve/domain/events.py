"""What a message says of a bucket's new versions: S3's event notifications, and neve's own announcements."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import index
from typing import Any
from urllib.parse import unquote_plus

from neve.domain.version import NULL_VERSION, ObjectVersion, from_fields, padded_sequencer, to_fields
from neve.errors import EventInvalid

EVENT_MAJOR = "2"
DRILL_PREFIX = ".neve/drill/"
"""Rehearsed restores put their files here; what neve itself took out of an archive is not archived again."""
DRILL_DAYS = 7
"""A drill deletes its copies itself; those of one that died expire after so long."""

ANNOUNCEMENT = "neve-versions"
ANNOUNCEMENT_BYTES = 200_000
"""A message may hold 1 MiB; smaller ones spread better over concurrent Collects."""


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """The versions that one message announces, and what in it could not be understood."""

    versions: tuple[ObjectVersion, ...] = ()
    problems: tuple[str, ...] = ()
    ignored: int = 0


def parse(body: str, bucket: str, *, without: tuple[str, ...] = (DRILL_PREFIX,)) -> Announcement:
    """What `body`, a message about new versions, says of `bucket`. S3's events of keys that begin so are left out.

    Records that cannot be used are named in `problems`, one sentence each, and never hide their neighbours.
    Raises EventInvalid if the message as a whole is not one that belongs here.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EventInvalid(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise EventInvalid(f"a JSON object was expected, this is a {type(message).__name__}")
    if message.get("Event") == "s3:TestEvent":
        return Announcement(ignored=1)
    if message.get("format") == ANNOUNCEMENT:
        return _own(message, bucket)
    records = message.get("Records")
    if not isinstance(records, list):
        raise EventInvalid("neither an S3 event (no list named Records) nor an announcement of neve")
    versions: list[ObjectVersion] = []
    problems: list[str] = []
    ignored = 0
    for number, record in enumerate(records):
        try:
            version = _record(record, bucket, without)
        except EventInvalid as error:
            problems.append(f"record {number}: {error}")
            continue
        if version is None:
            ignored += 1
        else:
            versions.append(version)
    return Announcement(versions=tuple(versions), problems=tuple(problems), ignored=ignored)


def announcements(bucket: str, versions: Iterable[ObjectVersion]) -> Iterator[str]:
    """Messages that make Collect take up `versions` (again); each well below SQS's limit of 1 MiB."""
    batch: list[list[Any]] = []
    size = 0
    for version in versions:
        fields = to_fields(version)
        length = len(json.dumps(fields))
        if batch and size + length > ANNOUNCEMENT_BYTES:
            yield _message(bucket, batch)
            batch, size = [], 0
        batch.append(fields)
        size += length
    if batch:
        yield _message(bucket, batch)


def sent_by_s3(body: str) -> bool:
    """Whether a message about new versions is S3's own, and no announcement as `announcements` makes them."""
    return not body.startswith(_OWN)


def _message(bucket: str, batch: list[list[Any]]) -> str:
    return json.dumps({"format": ANNOUNCEMENT, "version": 1, "bucket": bucket, "versions": batch})


_OWN = json.dumps({"format": ANNOUNCEMENT})[:-1]


def _own(message: Mapping[str, Any], bucket: str) -> Announcement:
    if message.get("version") != 1:
        raise EventInvalid(f"announcement of version {message.get('version')!r}, this code reads version 1")
    _same_bucket(message.get("bucket"), bucket)
    try:
        return Announcement(versions=tuple(from_fields(fields) for fields in message["versions"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EventInvalid(f"announcement with a version that cannot be read: {error!r}") from error


def _record(record: Any, bucket: str, without: tuple[str, ...]) -> ObjectVersion | None:
    """The version a record announces; None if the record is of no concern here. Raises EventInvalid."""
    try:
        event_version = str(record["eventVersion"])
        if event_version.partition(".")[0] != EVENT_MAJOR:
            raise EventInvalid(f"event version {event_version!r}, this code reads {EVENT_MAJOR}.x")
        name = str(record["eventName"]).removeprefix("s3:")
        s3 = record["s3"]
        _same_bucket(s3["bucket"]["name"], bucket)
        if not name.startswith("ObjectCreated:"):
            return None
        stored = s3["object"]
        key = unquote_plus(stored["key"], errors="strict")
        if key.startswith(without):
            return None
        return ObjectVersion(
            key=key,
            version_id=str(stored.get("versionId") or NULL_VERSION),
            size_bytes=index(stored["size"]),
            etag=str(stored["eTag"]).strip('"'),
            sequencer=padded_sequencer(str(stored.get("sequencer", ""))),
            event_at=datetime.fromisoformat(str(record["eventTime"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EventInvalid(f"not an S3 event record: {error!r}") from error


def _same_bucket(named: object, bucket: str) -> None:
    if named != bucket:
        raise EventInvalid(f"bucket {named!r}, this stack archives {bucket!r}")

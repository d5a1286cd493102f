"""Archives in Glacier classes: asking S3 for thaws, and reading what is thawed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError

from neve.aws.faults import ASLEEP, code, status, transient
from neve.aws.ledger import thawing
from neve.aws.pieces import pieces, starting
from neve.domain.index import ArchiveRow
from neve.domain.thaw import Tier
from neve.errors import ArchiveUnreadable, Asleep, Transient
from neve.ports import Answer, CopyStatus

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

_RUNNING = "RestoreAlreadyInProgress"
_UNAVAILABLE = "GlacierExpeditedRetrievalNotAvailable"

_RESTORE = re.compile(r'ongoing-request="(?:(?P<running>true)|false", expiry-date="(?P<until>[^"]+))"')
"""The header x-amz-restore (S3 API reference, "HeadObject")."""


@contextmanager
def opening(archive: ArchiveRow) -> Iterator[None]:
    """Turn what S3 answers about an archive's object into neve's errors.

    A bucket that does not exist, and a permission that is missing, are no fault of the archive: they come out as they
    are.
    """
    try:
        with transient():
            yield
    except ClientError as error:
        if status(error) in (404, 405, 416) and code(error) != "NoSuchBucket":
            raise ArchiveUnreadable(f"{where(archive)}: {status(error)} {code(error)}") from error
        raise
    except HTTPError as error:
        raise Transient(f"{where(archive)}: {error}") from error


def where(archive: ArchiveRow) -> str:
    """The archive's object, for a person."""
    return f"{archive.object_key} version {archive.object_version_id}"


def copy_status(answer: Mapping[str, Any]) -> CopyStatus:
    """What S3's answer to a HEAD or GET says of the temporary copy. Raises Transient if it cannot be understood."""
    stated = answer.get("Restore")
    if not stated:
        return CopyStatus()
    found = _RESTORE.fullmatch(stated)
    if found is None:
        raise Transient(f"S3 says of the copy: {stated!r}, which is not what its reference lays down")
    if found["running"]:
        return CopyStatus(running=True)
    try:
        return CopyStatus(warm_until=parsedate_to_datetime(found["until"]))
    except ValueError as error:
        raise Transient(f"S3 says of the copy: {stated!r}, which names no time") from error


@dataclass(frozen=True)
class S3Glacier:
    """The port Glacier on the archive bucket."""

    client: S3Client
    bucket: str

    def __post_init__(self) -> None:
        """Have botocore take the answer that Expedited is not to be had: as a 503 it would ask five times."""
        self.client.meta.events.register(
            "needs-retry.s3.RestoreObject",
            _is_settled,  # type: ignore[arg-type]  # the stubs know no handler that answers
            unique_id="neve-expedited-is-settled",
        )

    def request(self, archive: ArchiveRow, *, tier: Tier, days: int) -> Answer:
        """See neve.ports.Glacier. Raises ArchiveUnreadable if the object is gone.

        A request that S3 accepted while the answer was lost is repeated by botocore: it is RUNNING, then.
        """
        with opening(archive), thawing(archive.storage_class, archive.size_bytes):
            try:
                answer = self.client.restore_object(
                    Bucket=self.bucket,
                    Key=archive.object_key,
                    VersionId=archive.object_version_id,
                    RestoreRequest={
                        "Days": days,
                        "GlacierJobParameters": {
                            "Tier": tier.value.capitalize(),  # type: ignore[typeddict-item]  # S3's words for Tier
                        },
                    },
                )
            except ClientError as error:
                if code(error) == _RUNNING:
                    return Answer.RUNNING
                if code(error) == _UNAVAILABLE:
                    return Answer.UNAVAILABLE
                raise
        accepted = answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        return Answer.ACCEPTED if accepted else Answer.WARM

    def status(self, archive: ArchiveRow) -> CopyStatus:
        """See neve.ports.Glacier. Raises ArchiveUnreadable if the object is gone."""
        with opening(archive):
            answer = self.client.head_object(
                Bucket=self.bucket, Key=archive.object_key, VersionId=archive.object_version_id
            )
        return copy_status(answer)


@dataclass(frozen=True)
class S3ArchiveReader:
    """The port ArchiveReader on the archive bucket."""

    client: S3Client
    bucket: str

    def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
        """See neve.ports.ArchiveReader. S3 states no checksum of a range: the caller checks the members' hashes."""
        with opening(archive):
            body = self._get(archive, Range=f"bytes={first}-{last}")["Body"].read()
        if len(body) != last - first + 1:
            raise ArchiveUnreadable(f"{where(archive)}: {len(body)} bytes are there of {first} to {last}")
        return body

    def stream(self, archive: ArchiveRow, *, first: int = 0) -> Iterator[bytes]:
        """See neve.ports.ArchiveReader."""
        with opening(archive):
            try:
                answer = self._get(archive, **starting(first))
            except ClientError as error:
                if status(error) == 416:  # nothing lies behind the last byte
                    return
                raise
            yield from pieces(answer)

    def _get(self, archive: ArchiveRow, **part: Any) -> GetObjectOutputTypeDef:
        try:
            return self.client.get_object(
                Bucket=self.bucket, Key=archive.object_key, VersionId=archive.object_version_id, **part
            )
        except ClientError as error:
            if code(error) in ASLEEP:
                raise Asleep(where(archive)) from error
            raise


def _is_settled(response: tuple[Any, Mapping[str, Any]] | None, **_: Any) -> bool | None:
    """False, which ends botocore's retries, if S3 has no capacity for Expedited; None leaves it to botocore."""
    parsed = response[1] if response else {}
    return False if parsed.get("Error", {}).get("Code") == _UNAVAILABLE else None

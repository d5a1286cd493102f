"""What drills have restored: objects in the buckets of drills, read back and deleted."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError

from neve.aws.content import full_checksums
from neve.aws.faults import code, passing, status, transient
from neve.aws.pieces import pieces
from neve.domain.digest import Digest
from neve.domain.events import DRILL_PREFIX
from neve.domain.large import CRC64NVME, SHA256
from neve.domain.restore import bucket_of, key_of
from neve.errors import NeveError, SourceDenied, SourceGone, Transient

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn what S3 answers about a copy into neve's errors."""
    try:
        with transient():
            yield
    except ClientError as error:
        answer = f"{place}: {error.operation_name} {status(error)} {code(error)}"
        if status(error) == 404:
            raise SourceGone(answer) from error
        raise SourceDenied(answer) from error
    except HTTPError as error:
        raise Transient(f"{place}: {error}") from error


@dataclass(frozen=True)
class S3DrillCopies:
    """The port DrillCopies."""

    client: S3Client

    def describe(self, place: str) -> Digest | None:
        """See neve.ports.DrillCopies."""
        try:
            with _reading(place):
                answer = self.client.head_object(**_named(place), ChecksumMode="ENABLED")
        except SourceGone:
            return None
        checksums = full_checksums(answer)
        return Digest(
            size_bytes=answer["ContentLength"],
            sha256=base64.b64decode(checksums.get(SHA256, "")).hex(),
            crc64nvme=checksums.get(CRC64NVME, ""),
        )

    def stream(self, place: str) -> Iterator[bytes]:
        """See neve.ports.DrillCopies."""
        with _reading(place):
            yield from pieces(self.client.get_object(**_named(place)))

    def clear(self, bucket: str, folder: str) -> int:
        """See neve.ports.DrillCopies. Raises ValueError if the folder is no drill's."""
        if not folder.startswith(DRILL_PREFIX) or folder == DRILL_PREFIX or not folder.endswith("/"):
            raise ValueError(f"{folder!r} is no drill's folder")
        deleted = 0
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=folder)
        with transient():
            for page in pages:
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                objects: Any = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
                if not objects:
                    continue
                answer = self.client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                for refused in answer.get("Errors", []):
                    problem = f"{refused.get('Key')} in {bucket} cannot be deleted: {refused.get('Code')}"
                    raise Transient(problem) if passing(refused.get("Code", "")) else NeveError(problem)
                deleted += len(objects)
        return deleted


def _named(place: str) -> Any:
    return {"Bucket": bucket_of(place), "Key": key_of(place)}

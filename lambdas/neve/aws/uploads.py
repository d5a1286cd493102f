"""Uploads, the copies of them that S3 makes in the content bucket, and letting them go."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neve.aws import crc64
from neve.aws.content import described, full_checksums, pinned, reading
from neve.aws.copies import STANDS, PartCopier
from neve.aws.describing import sending_expires, storage_class
from neve.aws.faults import ASLEEP, code, status, transient
from neve.aws.pieces import pieces
from neve.domain.large import CRC64NVME, SHA256, SINGLE_COPY_BYTES, Range, parts_of, ranges
from neve.domain.manifest import Source
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import SourceDamaged, SourceUnproven
from neve.ports import ContentCopy, NotCopied

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3Uploads:
    """The port Uploads.

    `client` reads and deletes; `copies` is patient enough for gigabytes that S3 copies itself. A copy has the storage
    class of its source, as far as that is known and no archive's, and the encryption of the content bucket.
    """

    client: S3Client
    copies: S3Client
    uploads_bucket: str
    content_bucket: str
    clock: Callable[[], datetime]
    single_copy_bytes: int = SINGLE_COPY_BYTES
    cut: Callable[[int], list[Range]] = ranges

    def __post_init__(self) -> None:
        """Have copies in parts keep the header Expires as it is."""
        sending_expires(self.copies)

    def describe(self, bucket: str, version: ObjectVersion) -> Source:
        """See neve.ports.Uploads. Tags cost a request of their own, and only where there are any."""
        with reading(version):
            answer = self.client.head_object(**pinned(bucket, version))
            return described(self.client, bucket, version, answer)

    def hashes(self, bucket: str, version: ObjectVersion) -> Mapping[str, str]:
        """See neve.ports.Uploads."""
        sha256, crc, size_bytes = hashlib.sha256(), 0, 0
        with reading(version):
            for piece in pieces(self.client.get_object(**pinned(bucket, version))):
                sha256.update(piece)
                crc = crc64.crc64nvme(piece, crc)
                size_bytes += len(piece)
        if size_bytes != version.size_bytes:
            raise SourceDamaged(f"{version.key!r} version {version.version_id}: {size_bytes} bytes were read")
        return {SHA256: base64.b64encode(sha256.digest()).decode(), CRC64NVME: crc64.stated(crc)}

    def current(self, bucket: str, key: str) -> ObjectVersion | None:
        """See neve.ports.Uploads."""
        with transient():
            try:
                answer = self.client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if status(error) == 404:
                    return None
                raise
        return ObjectVersion(
            key=key,
            version_id=answer.get("VersionId", NULL_VERSION),
            size_bytes=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            sequencer="",
            event_at=answer["LastModified"],
        )

    def copy(
        self,
        bucket: str,
        version: ObjectVersion,
        content_key: str,
        *,
        source: Source | None,
        onto: ObjectVersion | None,
        until: datetime,
    ) -> ContentCopy | NotCopied:
        """See neve.ports.Uploads."""
        named = {"Bucket": bucket, "Key": version.key, "VersionId": version.version_id}
        origin: dict[str, Any] = {"CopySource": named}
        if version.version_id == NULL_VERSION:
            origin["CopySourceIfMatch"] = f'"{version.etag}"'
        condition: dict[str, Any] = {"IfMatch": f'"{onto.etag}"'} if onto else {"IfNoneMatch": "*"}
        with reading(version, read_before=True):
            try:
                if version.size_bytes <= self.single_copy_bytes:
                    return self._copy_whole(content_key, source, origin, condition)
                assert source, "a copy in parts has to be told what the object is like"
                cut = self._cut(bucket, version, source)
                # S3 leaves it out of a copy in one go (API reference, "CopyObject"), and so of all smaller uploads.
                source = replace(source, website_redirect="")
                answer = PartCopier(self.copies, self.clock, cut).copy(
                    self.content_bucket, content_key, source=source, pinned=origin, condition=condition, until=until
                )
                return _made(answer, answer) if answer else NotCopied.UNFINISHED
            except ClientError as error:
                gone = onto and status(error) == 404  # source or destination: S3 has one answer for both
                if status(error) in STANDS or gone or code(error) == "NoSuchUpload":
                    return NotCopied.TAKEN
                if status(error) in (400, 403) and code(error) not in ASLEEP and source is None:
                    self.describe(bucket, version)  # raises if the source is the reason
                raise

    def release(self, upload: ObjectVersion) -> bool:
        """See neve.ports.Uploads. Deletes without a version id, so that S3 puts a delete marker on top."""
        with transient():
            try:
                self.client.delete_object(Bucket=self.uploads_bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')
            except ClientError as error:
                if status(error) in (404, 412) and code(error) != "NoSuchBucket":
                    return False
                raise
        return True

    def _copy_whole(
        self, content_key: str, source: Source | None, origin: Mapping[str, Any], condition: Mapping[str, Any]
    ) -> ContentCopy:
        """One request, by which S3 keeps metadata and tags as they are.

        The copy gets a checksum that S3 states of the source, so that the two can be compared; where nothing is known
        of the source, S3 sees to that by itself. (S3 user guide, "Checking object integrity".)
        """
        more: dict[str, Any] = {}
        if source:
            more["ChecksumAlgorithm"] = next(iter(source.checksums), SHA256)
            if storage_class(source):
                more["StorageClass"] = storage_class(source)
        answer = self.copies.copy_object(Bucket=self.content_bucket, Key=content_key, **origin, **condition, **more)
        return _made(answer, answer["CopyObjectResult"])

    def _cut(self, bucket: str, version: ObjectVersion, source: Source) -> Callable[[int], list[Range]]:
        """In which parts a version is copied. Raises SourceUnproven if none of them would prove the copy.

        Without a CRC64NVME they have to be those in which it was uploaded, so that the copy gets the same ETag.
        """
        if CRC64NVME in source.checksums:
            return self.cut
        first = self.client.head_object(**pinned(bucket, version), PartNumber=1)["ContentLength"]
        parts = parts_of(source.size_bytes, first)
        if source.etag.rpartition("-")[2] != f"{len(parts)}":
            raise SourceUnproven(f"{version.key!r} version {version.version_id}: its parts are not of one size")
        return lambda _: parts


def _made(answer: Mapping[str, Any], stated: Mapping[str, Any]) -> ContentCopy:
    return ContentCopy(
        version_id=answer.get("VersionId", NULL_VERSION),
        etag=stated["ETag"].strip('"'),
        checksums=full_checksums(stated),
    )

"""Copies that S3 makes in parts, of which no byte passes through a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neve.aws.describing import describing
from neve.aws.faults import code, status, transient
from neve.domain.large import CRC64NVME, Range, in_waves, ranges
from neve.domain.manifest import Source
from neve.errors import SourceDamaged, Transient

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

STANDS = (409, 412)
"""412: an object stands already. 409: another request is just writing one (S3 user guide, "Conditional writes")."""


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """A part that S3 has."""

    etag: str
    size_bytes: int


@dataclass(frozen=True)
class Upload:
    """A multipart upload of an object. What S3 answers to it comes out as it is, unless the methods say more."""

    client: S3Client
    bucket: str
    key: str
    id: str

    def parts(self) -> dict[int, StoredPart] | None:
        """The parts that are there, by number; None if the upload was completed or aborted. Raises Transient."""
        pages = self.client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=self.key, UploadId=self.id)
        with transient():
            try:
                return {
                    part["PartNumber"]: StoredPart(etag=part["ETag"], size_bytes=part["Size"])
                    for page in pages
                    for part in page.get("Parts", [])
                }
            except ClientError as error:
                if code(error) == "NoSuchUpload":
                    return None
                raise

    def copy(self, part: Range, source: Any) -> str:
        """Copy a range of an object as a part; its ETag. `source` has the parameters that name and pin the object.

        Raises Transient if the upload was completed or aborted.
        """
        try:
            answer = self.client.upload_part_copy(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=self.id,
                PartNumber=part.number,
                CopySourceRange=f"bytes={part.first}-{part.last}",
                **source,
            )
        except ClientError as error:
            if code(error) == "NoSuchUpload":  # a 404 that says nothing about the source
                raise Transient(f"the upload of {self.key} was completed or aborted by another") from error
            raise
        return answer["CopyPartResult"]["ETag"]

    def complete(self, etags: Mapping[int, str], **conditions: Any) -> Mapping[str, Any]:
        """Join the parts into the object, under S3's `conditions`; what S3 says of it."""
        return self.client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=self.key,
            UploadId=self.id,
            MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]},
            **conditions,
        )


@dataclass(frozen=True)
class PartCopier:
    """Copies of objects in parts, which a later call goes on with. What S3 answers comes out as it is."""

    client: S3Client
    clock: Callable[[], datetime]
    cut: Callable[[int], list[Range]] = ranges

    def copy(
        self,
        bucket: str,
        key: str,
        *,
        source: Source,
        pinned: Any,
        condition: Mapping[str, Any],
        until: datetime,
        once: bool = False,
    ) -> Mapping[str, Any] | None:
        """Copy `source`, of which `pinned` has the parameters that name it; what S3 says of the copy.

        None if the time did not suffice. S3 is told of the CRC64NVME that the source has, if that is known, and refuses
        other bytes: SourceDamaged, or Transient if some parts were there before. Where `condition` does not hold, the
        parts stay for another try, unless there is only this `once`.
        """
        wanted = self.cut(source.size_bytes)
        upload, there = self._begun(bucket, key, wanted) or (self._begin(bucket, key, source), {})
        missing = [part for part in wanted if part.number not in there]
        copied = in_waves(missing, lambda part: upload.copy(part, pinned), clock=self.clock, until=until)
        if copied is None:
            return None
        expected = source.checksums.get(CRC64NVME)
        stated = {"ChecksumCRC64NVME": expected, "ChecksumType": "FULL_OBJECT"} if expected else {}
        try:
            return upload.complete({**there, **copied}, **stated, **condition)
        except ClientError as error:
            differs = code(error) == "BadDigest"
            if differs or (once and status(error) == 412):  # it is of no more use
                self.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.id)
            if not differs:
                raise
            said = f"the parts copied to s3://{bucket}/{key} have not the checksum that is stated of their source"
            raise Transient(said) if there else SourceDamaged(said) from error

    def _begin(self, bucket: str, key: str, source: Source) -> Upload:
        answer = self.client.create_multipart_upload(
            Bucket=bucket, Key=key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT", **describing(source)
        )
        return Upload(self.client, bucket, key, answer["UploadId"])

    def _begun(self, bucket: str, key: str, wanted: Sequence[Range]) -> tuple[Upload, Mapping[int, str]] | None:
        """The upload that an earlier call has begun, with the ETags of its parts; None if there is none.

        An upload in parts of other sizes, or without any, may be somebody else's and is left alone. Should one that is
        not neve's look like it all the same, S3 refuses to complete it, because the bytes have another checksum.
        """
        sizes = {part.number: part.last - part.first + 1 for part in wanted}
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
        listed = (upload for page in pages for upload in page.get("Uploads", []))
        for each in takewhile(lambda upload: upload["Key"] == key, listed):  # they come in the order of keys
            if each.get("ChecksumAlgorithm") != CRC64NVME:
                continue
            found = Upload(self.client, bucket, key, each["UploadId"])
            parts = found.parts()
            if parts and all(sizes.get(number) == part.size_bytes for number, part in parts.items()):
                return found, {number: part.etag for number, part in parts.items()}
        return None

"""Copies that S3 makes in parts, of which no byte passes through a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neve.aws.faults import code, transient
from neve.domain.large import Range
from neve.errors import Transient

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

"""The content bucket's listing: all versions, in the order of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neve.aws.faults import transient
from neve.domain.version import NULL_VERSION, ObjectVersion

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3ContentListing:
    """The port ContentListing on the content bucket."""

    client: S3Client
    bucket: str

    def versions(self, place: str, version_id: str = "") -> Iterator[ObjectVersion]:
        """See neve.ports.ContentListing. botocore has S3 encode the keys, and decodes them."""
        key_marker, version_marker = place, version_id
        while True:
            markers = {"KeyMarker": key_marker, "VersionIdMarker": version_marker}
            with transient():
                answer = self.client.list_object_versions(
                    Bucket=self.bucket,
                    **{name: value for name, value in markers.items() if value},  # type: ignore[arg-type]  # both text
                )
            for listed in answer.get("Versions", []):
                yield ObjectVersion(
                    key=listed["Key"],
                    version_id=listed.get("VersionId", NULL_VERSION),
                    size_bytes=listed["Size"],
                    etag=listed["ETag"].strip('"'),
                    sequencer="",
                    event_at=listed["LastModified"],
                )
            if not answer["IsTruncated"]:
                return
            key_marker, version_marker = answer["NextKeyMarker"], answer.get("NextVersionIdMarker", "")

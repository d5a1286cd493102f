"""A bucket's listing: all versions, or the current ones, in the order of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.version import NULL_VERSION, ObjectVersion

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3ContentListing:
    """The port ContentListing, on the content bucket. What is current is told of any bucket with versions."""

    client: S3Client
    bucket: str

    def versions(self, place: str, version_id: str = "") -> Iterator[ObjectVersion]:
        """See neve.ports.ContentListing."""
        return (_version(listed) for listed in self._listed(place, version_id, ""))

    def current(self, place: str, *, prefix: str) -> Iterator[ObjectVersion]:
        """Those versions with `prefix` that a reader without a version id gets, of the keys after `place`."""
        return (_version(listed) for listed in self._listed(place, "", prefix) if listed["IsLatest"])

    def _listed(self, place: str, version_id: str, prefix: str) -> Iterator[Any]:
        """The versions as S3 lists them. botocore has S3 encode the keys, and decodes them."""
        key_marker, version_marker = place, version_id
        while True:
            given = {"KeyMarker": key_marker, "VersionIdMarker": version_marker, "Prefix": prefix}
            with transient():
                answer = self.client.list_object_versions(
                    Bucket=self.bucket,
                    **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # all text
                )
            yield from answer.get("Versions", [])
            if not answer["IsTruncated"]:
                return
            key_marker, version_marker = answer["NextKeyMarker"], answer.get("NextVersionIdMarker", "")


def _version(listed: Any) -> ObjectVersion:
    return ObjectVersion(
        key=listed["Key"],
        version_id=listed.get("VersionId", NULL_VERSION),
        size_bytes=listed["Size"],
        etag=listed["ETag"].strip('"'),
        sequencer="",
        event_at=listed["LastModified"],
    )

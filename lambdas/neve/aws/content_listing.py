"""A bucket's listing: all versions, or the current ones, in the order of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neve.aws.faults import transient
from neve.domain.backfill import Place, StoredVersion
from neve.domain.version import NULL_VERSION, ObjectVersion

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3ContentListing:
    """The ports ContentListing and VersionListing, on the content bucket. What is current is told of any bucket with
    versions.
    """

    client: S3Client
    bucket: str

    def versions(self, place: str, version_id: str = "") -> Iterator[ObjectVersion]:
        """See neve.ports.ContentListing."""
        return (_version(listed) for listed in self._listed(place, version_id, ""))

    def current(self, place: str, *, prefix: str) -> Iterator[ObjectVersion]:
        """Those versions with `prefix` that a reader without a version id gets, of the keys after `place`."""
        return (_version(listed) for listed in self._listed(place, "", prefix) if listed["IsLatest"])

    def stored(self, prefix: str, after: str, version_id: str = "") -> Iterator[tuple[Place, StoredVersion | None]]:
        """See neve.ports.VersionListing. S3 charges for a page, of up to 1,000 versions and delete markers."""
        for page in self._pages(after, version_id, prefix):
            for listed in page.get("Versions", []):
                version = _version(listed)
                place = Place(key=version.key, version_id=version.version_id)
                yield place, StoredVersion(version=version, storage_class=listed["StorageClass"])
            if page["IsTruncated"]:
                yield Place(key=page["NextKeyMarker"], version_id=page.get("NextVersionIdMarker", "")), None

    def first_key(self, prefix: str, after: str) -> str:
        """See neve.ports.VersionListing. A page of one, which costs as much as any other."""
        for page in self._pages(after, "", prefix, MaxKeys=1):
            for listed in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                return str(listed["Key"])
        return ""

    def _listed(self, place: str, version_id: str, prefix: str) -> Iterator[Any]:
        """The versions as S3 lists them."""
        for page in self._pages(place, version_id, prefix):
            yield from page.get("Versions", [])

    def _pages(self, place: str, version_id: str, prefix: str, **more: Any) -> Iterator[Any]:
        """S3's answers, one after the other. botocore has S3 encode the keys, and decodes them."""
        key_marker, version_marker = place, version_id
        while True:
            given = {"KeyMarker": key_marker, "VersionIdMarker": version_marker, "Prefix": prefix}
            with transient():
                answer = self.client.list_object_versions(
                    Bucket=self.bucket,
                    **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # all text
                    **more,
                )
            yield answer
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

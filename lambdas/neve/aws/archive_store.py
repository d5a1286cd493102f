"""The archive bucket: archives and their manifests. Every write states that nothing may stand there yet."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, FlexibleChecksumError

from neve.aws.content import READS, full_checksums, reading
from neve.aws.copies import STANDS, Upload
from neve.aws.faults import code, status, transient
from neve.domain.large import Range
from neve.domain.manifest import Manifest, manifest_key, parse_manifest, render_manifest
from neve.domain.tar import Rope
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import ManifestInvalid
from neve.ports import StoredArchive

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3ArchiveStore:
    """The port ArchiveStore on the archive bucket. `content_bucket` is where copies come from."""

    client: S3Client
    bucket: str
    content_bucket: str
    storage_class: str

    def manifest(self, serial: int) -> Manifest | None:
        """See neve.ports.ArchiveStore.

        Raises ManifestInvalid if what stands there is none, or does not have the checksum that S3 states, read twice.
        """
        for _ in range(READS):
            with transient():
                try:
                    answer = self.client.get_object(Bucket=self.bucket, Key=manifest_key(serial))
                    return parse_manifest(answer["Body"].read())
                except FlexibleChecksumError:
                    continue
                except ClientError as error:
                    if status(error) == 404:
                        return None
                    raise
        raise ManifestInvalid(f"the bytes of {manifest_key(serial)} do not fit the checksum that S3 states of them")

    def put_manifest(self, manifest: Manifest) -> bool:
        """See neve.ports.ArchiveStore."""
        with transient():
            try:
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=manifest_key(manifest.archive),
                    Body=render_manifest(manifest),
                    ContentType="application/json",
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if status(error) in STANDS:
                    return False
                raise
        return True

    def head(self, object_key: str) -> StoredArchive | None:
        """See neve.ports.ArchiveStore."""
        with transient():
            try:
                answer = self.client.head_object(Bucket=self.bucket, Key=object_key, ChecksumMode="ENABLED")
            except ClientError as error:
                if status(error) == 404:
                    return None
                raise
        return StoredArchive(
            version_id=answer.get("VersionId", NULL_VERSION),
            size_bytes=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            checksums=full_checksums(answer),
            storage_class=answer.get("StorageClass", "STANDARD"),
        )

    def put(self, object_key: str, rope: Rope, sha256: str) -> StoredArchive | None:
        """See neve.ports.ArchiveStore."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        body: Any = rope
        with transient():
            try:
                answer = self.client.put_object(
                    Bucket=self.bucket,
                    Key=object_key,
                    Body=body,
                    ContentType="application/x-tar",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                    StorageClass=self.storage_class,  # type: ignore[arg-type]  # a setting, validated at synth
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if status(error) in STANDS:
                    return None
                raise
        return StoredArchive(
            version_id=answer.get("VersionId", NULL_VERSION),
            size_bytes=len(rope),
            etag=answer["ETag"].strip('"'),
            checksums={"SHA256": checksum},
            storage_class=self.storage_class,
        )

    def copy(self, object_key: str, version: ObjectVersion, algorithm: str) -> bool:
        """See neve.ports.ArchiveStore."""
        with reading(version, read_before=True):
            try:
                self.client.copy_object(
                    Bucket=self.bucket,
                    Key=object_key,
                    ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]  # one of neve.domain.large
                    StorageClass=self.storage_class,  # type: ignore[arg-type]  # a setting, validated at synth
                    IfNoneMatch="*",
                    TaggingDirective="REPLACE",  # tags are in the manifest; to copy them needs one more permission
                    **self._source(version),
                )
            except ClientError as error:
                if self._stands(error, object_key):
                    return False
                raise
        return True

    def start_upload(self, object_key: str, algorithm: str) -> str:
        """See neve.ports.ArchiveStore."""
        with transient():
            answer = self.client.create_multipart_upload(
                Bucket=self.bucket,
                Key=object_key,
                ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]  # one of neve.domain.large
                ChecksumType="FULL_OBJECT",
                StorageClass=self.storage_class,  # type: ignore[arg-type]  # a setting, validated at synth
            )
        return answer["UploadId"]

    def uploaded(self, object_key: str, upload_id: str) -> Mapping[int, str] | None:
        """See neve.ports.ArchiveStore."""
        parts = self._upload(object_key, upload_id).parts()
        return None if parts is None else {number: part.etag for number, part in parts.items()}

    def copy_part(self, object_key: str, upload_id: str, version: ObjectVersion, part: Range) -> str:
        """See neve.ports.ArchiveStore."""
        with reading(version, read_before=True):
            return self._upload(object_key, upload_id).copy(part, self._source(version))

    def complete_upload(self, object_key: str, upload_id: str, etags: Mapping[int, str]) -> bool:
        """See neve.ports.ArchiveStore."""
        with transient():
            try:
                self._upload(object_key, upload_id).complete(etags, IfNoneMatch="*")
            except ClientError as error:
                if status(error) in STANDS or code(error) == "NoSuchUpload":
                    return False
                raise
        return True

    def _upload(self, object_key: str, upload_id: str) -> Upload:
        return Upload(self.client, self.bucket, object_key, upload_id)

    def _source(self, version: ObjectVersion) -> Any:
        return {
            "CopySource": {"Bucket": self.content_bucket, "Key": version.key, "VersionId": version.version_id},
            "CopySourceIfMatch": f'"{version.etag}"',
        }

    def _stands(self, error: ClientError, object_key: str) -> bool:
        """Whether a copy was refused because the destination stands; 412 may also mean that the source changed."""
        return status(error) in STANDS and self.head(object_key) is not None

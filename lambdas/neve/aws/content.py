"""The content bucket, read by version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, FlexibleChecksumError
from urllib3.exceptions import HTTPError

from neve.aws.faults import ASLEEP, code, status, transient
from neve.domain.manifest import Source
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import (
    ManifestInvalid,
    SourceChanged,
    SourceDamaged,
    SourceDenied,
    SourceFrozen,
    SourceGone,
    SourceUnfit,
    Transient,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

READS = 2
"""Bytes that do not fit S3's checksum are read once more: it may have been the transfer."""

CHECKSUMS = ("SHA256", "SHA1", "CRC64NVME", "CRC32C", "CRC32")

_MD5 = re.compile(r"[0-9a-f]{32}")

_TEXTS = {
    "content_type": "ContentType",
    "content_encoding": "ContentEncoding",
    "content_language": "ContentLanguage",
    "content_disposition": "ContentDisposition",
    "cache_control": "CacheControl",
    "expires": "ExpiresString",
    "website_redirect": "WebsiteRedirectLocation",
    "storage_class": "StorageClass",
    "encryption": "ServerSideEncryption",
    "kms_key_id": "SSEKMSKeyId",
}
"""Fields of a Source and the members of S3's answer they come from."""


@contextmanager
def reading(version: ObjectVersion, *, read_before: bool = False) -> Iterator[None]:
    """Turn what S3 answers about a source version into neve's errors.

    A bucket that does not exist is no fault of the version. Nor is a copy that S3 refuses or finds malformed, if the
    version could be `read_before`: then the destination is the reason, unless S3 says that the bytes of the source lie
    in a Glacier class, of which HEAD says nothing. Such errors come out as they are.
    """
    where = f"{version.key!r} version {version.version_id}"
    try:
        with transient():
            yield
    except ClientError as error:
        answer = f"{where}: {status(error)} {code(error)}"
        if code(error) == "NoSuchBucket":
            raise
        if read_before and status(error) in (400, 403) and code(error) not in ASLEEP:
            raise
        match status(error):
            case 404 | 405:  # 405: the version is a delete marker
                raise SourceGone(answer) from error
            case 412:
                raise SourceChanged(answer) from error
            case 403:
                raise (SourceFrozen if code(error) in ASLEEP else SourceDenied)(answer) from error
            case 400 if code(error).startswith("KMS."):  # its key is disabled, or gone
                raise SourceDenied(answer) from error
            case 400:
                raise SourceUnfit(answer) from error
            case _:
                raise
    except ManifestInvalid as error:
        raise SourceUnfit(str(error)) from error
    except HTTPError as error:
        raise Transient(f"{where}: {error}") from error


def full_checksums(answer: Mapping[str, Any]) -> dict[str, str]:
    """The checksums in S3's answer that are over the whole object; composite ones end in "-<parts>"."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return {}
    stated = ((name, answer.get(f"Checksum{name}")) for name in CHECKSUMS)
    return {name: value for name, value in stated if value and "-" not in value}


def has_md5_etag(source: Source) -> bool:
    """Whether the ETag is the MD5 of the bytes: one upload, and no key of KMS or of the customer."""
    return bool(_MD5.fullmatch(source.etag)) and not source.encryption.startswith("aws:kms")


def pinned(bucket: str, version: ObjectVersion) -> Any:
    """What names exactly these bytes. `null` is overwritten in place, so there the ETag has to match as well."""
    named = {"Bucket": bucket, "Key": version.key, "VersionId": version.version_id, "ChecksumMode": "ENABLED"}
    return named | ({"IfMatch": f'"{version.etag}"'} if version.version_id == NULL_VERSION else {})


def described(
    client: S3Client, bucket: str, version: ObjectVersion, answer: Mapping[str, Any], *, sha256: str = "", md5: str = ""
) -> Source:
    """What S3's answer says of the version, its tags included. Raises ManifestInvalid if no manifest can say so."""
    texts = {name: str(answer.get(member) or "") for name, member in _TEXTS.items()}
    return Source(
        key=version.key,
        version_id=version.version_id,
        size_bytes=answer["ContentLength"],
        etag=str(answer["ETag"]).strip('"'),
        last_modified=answer["LastModified"],
        sha256=sha256,
        md5=md5,
        checksums=full_checksums(answer),
        user_metadata=answer.get("Metadata", {}),
        tags=_tags(client, bucket, version) if answer.get("TagCount") else {},
        **texts,
    )


def _tags(client: S3Client, bucket: str, version: ObjectVersion) -> dict[str, str]:
    answer = client.get_object_tagging(Bucket=bucket, Key=version.key, VersionId=version.version_id)
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


@dataclass(frozen=True)
class S3Content:
    """The port Content on the content bucket."""

    client: S3Client
    bucket: str

    def fetch(self, version: ObjectVersion) -> tuple[Source, bytes]:
        """See neve.ports.Content.

        botocore compares the bytes with the checksum S3 states (CRC64NVME with awscrt); the ETag is compared here.
        """
        for _ in range(READS):
            with reading(version):
                answer = self.client.get_object(**pinned(self.bucket, version))
                self._require_size(version, answer)
                try:
                    body = answer["Body"].read()
                except FlexibleChecksumError:
                    continue
                finally:
                    answer["Body"].close()
                source = described(
                    self.client,
                    self.bucket,
                    version,
                    answer,
                    sha256=hashlib.sha256(body).hexdigest(),
                    md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
                )
                if not has_md5_etag(source) or source.md5 == source.etag or "SSECustomerAlgorithm" in answer:
                    return source, body
        raise SourceDamaged(
            f"{version.key!r} version {version.version_id}: the bytes do not fit the checksum S3 states"
        )

    def describe(self, version: ObjectVersion) -> Source:
        """See neve.ports.Content."""
        with reading(version):
            answer = self.client.head_object(**pinned(self.bucket, version))
            self._require_size(version, answer)
            return described(self.client, self.bucket, version, answer)

    def _require_size(self, version: ObjectVersion, answer: Mapping[str, Any]) -> None:
        """Before any byte is read: an event that lies about a size must not fill the memory."""
        if answer["ContentLength"] != version.size_bytes:
            raise SourceChanged(
                f"{version.key!r} version {version.version_id}: S3 has {answer['ContentLength']} bytes, "
                f"the event said {version.size_bytes}"
            )

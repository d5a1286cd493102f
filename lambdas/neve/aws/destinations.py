"""Destinations in S3: files come back as objects, in the content bucket or in another that the stack may write to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, FlexibleChecksumError, ParamValidationError
from urllib3.exceptions import HTTPError

from neve.aws.content import full_checksums, has_md5_etag
from neve.aws.copies import STANDS, PartCopier
from neve.aws.describing import describing, sending_expires
from neve.aws.faults import ASLEEP, code, passing, status, transient
from neve.aws.glacier import copy_status, opening, where
from neve.domain.index import ArchiveRow
from neve.domain.large import SHA256, SINGLE_COPY_BYTES, Range, proof_algorithm, proven, ranges
from neve.domain.manifest import Source
from neve.domain.restore import Item, bucket_of, key_of
from neve.domain.thaw import needs_thaw
from neve.domain.version import NULL_VERSION
from neve.errors import Asleep, SourceDamaged, Transient
from neve.ports import Placed

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

TRIES = 4
"""So often a place is looked at again whose object others keep changing; then the message comes back later."""
COMPARE_BYTES = 1024**3
"""An object that S3 states nothing comparable of is read, to tell whether it is identical, up to this size."""
CHUNK_BYTES = 1024 * 1024

_PASSING = (
    "BadDigest",
    "IncompleteBody",
    "InvalidPart",
    "NoSuchUpload",
    "NoSuchVersion",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
)
"""400 and 404: S3 received other bytes than were sent, or what was seen a moment ago has changed since."""

Write = Callable[[Mapping[str, Any]], Placed | None]
"""Writes an object under S3's conditions (IfNoneMatch or IfMatch); None if the time did not suffice."""


class _Taken(Exception):
    """S3 refused a write because what stands there is not what its condition says, or is just being written."""


class _Refused(Exception):
    """The destination takes nothing; the message says why, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    bucket: str
    key: str

    @property
    def named(self) -> Any:
        """The parameters that name the object."""
        return {"Bucket": self.bucket, "Key": self.key}

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """A large object on its way."""

    place: _Place
    source: Source
    archive: ArchiveRow
    overwrite: datetime | None
    until: datetime


@dataclass(frozen=True)
class S3Destination:
    """The port Destination for s3://bucket/key.

    What a Source knows comes back: the headers, user metadata, tags, and the storage class unless it is an archive's.
    Encryption does not: the destination bucket's own default counts, its keys being the owner's choice. Metadata is no
    part of what is compared: an object of the same bytes is identical.

    `client` writes and reads; `copies` is patient enough for gigabytes that S3 copies itself.
    """

    client: S3Client
    copies: S3Client
    archive_bucket: str
    clock: Callable[[], datetime]
    single_copy_bytes: int = SINGLE_COPY_BYTES
    cut: Callable[[int], list[Range]] = ranges

    def __post_init__(self) -> None:
        for client in (self.client, self.copies):
            sending_expires(client)

    def put(self, item: Item, source: Source, body: bytes, *, overwrite: datetime | None) -> Placed:
        """See neve.ports.Destination. What stands there is looked at only if it is in the way: requests cost."""
        place = _place(item)
        checksum = _base64(source.sha256)

        def write(condition: Mapping[str, Any]) -> Placed:
            answer = self.client.put_object(
                **place.named, Body=body, ChecksumSHA256=checksum, **describing(source), **condition
            )
            return Placed(version_id=answer.get("VersionId", NULL_VERSION), etag=_etag(answer))

        placed = self._put_in_place(place, source, write, overwrite=overwrite, look_first=overwrite is not None)
        assert placed is not None, "a PUT is not divided"
        return placed

    def copy(
        self, item: Item, source: Source, archive: ArchiveRow, *, overwrite: datetime | None, until: datetime
    ) -> Placed | None:
        """See neve.ports.Destination.

        The archive's object is looked at first: what S3 denies afterwards, the destination denies. So is the
        destination: a look costs less than gigabytes copied in vain.
        """
        self._require_readable(source, archive)
        job = _Copy(place=_place(item), source=source, archive=archive, overwrite=overwrite, until=until)

        def write(condition: Mapping[str, Any]) -> Placed | None:
            whole = source.size_bytes <= self.single_copy_bytes
            return self._copy_whole(job, condition) if whole else self._copy_parts(job, condition)

        return self._put_in_place(job.place, source, write, overwrite=overwrite, look_first=True)

    def _put_in_place(
        self, place: _Place, source: Source, write: Write, *, overwrite: datetime | None, look_first: bool
    ) -> Placed | None:
        """Write on the condition that nothing stands there, or what was seen there and may be replaced."""
        condition: Mapping[str, Any] = {"IfNoneMatch": "*"}
        look = look_first
        for _ in range(TRIES):
            try:
                with _writing(place):
                    if look:
                        standing = self._head(place)
                        if standing and (ending := self._judge(place, standing, source, overwrite=overwrite)):
                            return ending
                        condition = {"IfMatch": f'"{standing.etag}"'} if standing else {"IfNoneMatch": "*"}
                    return write(condition)
            except _Taken:
                look = True
            except _Refused as refused:
                return Placed(refused=str(refused))
        raise Transient(f"{place} is being written by others")

    def _judge(self, place: _Place, standing: Source, source: Source, *, overwrite: datetime | None) -> Placed | None:
        """What comes of an object that stands there; None if it is to be replaced."""
        same = self._is_same(place, standing, source)
        if same:
            return Placed(
                version_id=standing.version_id,
                etag=standing.etag,
                modified=standing.last_modified,
                identical=True,
            )
        if overwrite and standing.last_modified < overwrite:
            return None
        unknown = "" if same is False else ", of which S3 states nothing to compare"
        return Placed(
            conflict=f"an object of {standing.size_bytes} bytes from {standing.last_modified.isoformat()} "
            f"(version {standing.version_id}) is there{unknown}"
        )

    def _head(self, place: _Place) -> Source | None:
        """What stands there; None if nothing does."""
        try:
            answer = self.client.head_object(**place.named, ChecksumMode="ENABLED")
        except ClientError as error:
            if status(error) == 404:  # of a HEAD, which has no code: a bucket that is missing shows in the write
                return None
            raise
        return Source(
            key=place.key,
            version_id=answer.get("VersionId", NULL_VERSION),
            size_bytes=answer["ContentLength"],
            etag=_etag(answer),
            last_modified=answer["LastModified"],
            checksums=full_checksums(answer),
            encryption=answer.get("ServerSideEncryption", ""),
        )

    def _is_same(self, place: _Place, standing: Source, source: Source) -> bool | None:
        """Whether the same bytes stand there; None if that cannot be told."""
        if standing.size_bytes != source.size_bytes:
            return False
        if SHA256 not in standing.checksums and source.md5 and has_md5_etag(standing):
            return source.md5 == standing.etag
        same = proven(_checksums(source), source.etag, standing.checksums, standing.etag)
        if same is None and source.etag == standing.etag:  # of the same parts, each by its MD5
            same = True
        if same is None and source.sha256 and source.size_bytes <= COMPARE_BYTES:
            found = self._read_sha256(place, standing)
            same = found == source.sha256 if found else None
        return same

    def _read_sha256(self, place: _Place, standing: Source) -> str:
        """The SHA-256 of what stands there; "" if its bytes cannot be had."""
        digest = hashlib.sha256()
        try:
            answer = self.client.get_object(**place.named, IfMatch=f'"{standing.etag}"')
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                digest.update(chunk)
        except FlexibleChecksumError:
            return ""
        except ClientError as error:
            if code(error) in ASLEEP:
                return ""
            raise
        return digest.hexdigest()

    def _require_readable(self, source: Source, archive: ArchiveRow) -> None:
        """Raises Asleep, ArchiveUnreadable, or SourceDamaged before anything is copied."""
        with opening(archive):
            answer = self.client.head_object(
                Bucket=self.archive_bucket,
                Key=archive.object_key,
                VersionId=archive.object_version_id,
                ChecksumMode="ENABLED",
            )
        if needs_thaw(answer.get("StorageClass", "")) and copy_status(answer).warm_until is None:
            raise Asleep(where(archive))
        same = proven(_checksums(source), source.etag, full_checksums(answer), _etag(answer))
        if same is False or answer["ContentLength"] != source.size_bytes:
            raise SourceDamaged(f"{where(archive)} is not what its manifest states, nothing was copied")

    def _copy_whole(self, job: _Copy, condition: Mapping[str, Any]) -> Placed:
        algorithm = proof_algorithm(job.source.size_bytes, _checksums(job.source))
        answer = self.copies.copy_object(
            **job.place.named,
            **self._pinned(job.archive),
            **describing(job.source),
            **condition,
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",
            ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]  # one of neve.domain.large
        )
        return _proved(job, answer["CopyObjectResult"], answer.get("VersionId", NULL_VERSION))

    def _copy_parts(self, job: _Copy, condition: Mapping[str, Any]) -> Placed | None:
        answer = PartCopier(self.copies, self.clock, self.cut).copy(
            job.place.bucket,
            job.place.key,
            source=job.source,
            pinned=self._pinned(job.archive),
            condition=condition,
            until=job.until,
            once=not job.overwrite,
        )
        return _proved(job, answer, answer.get("VersionId", NULL_VERSION)) if answer else None

    def _pinned(self, archive: ArchiveRow) -> Any:
        named = {"Bucket": self.archive_bucket, "Key": archive.object_key, "VersionId": archive.object_version_id}
        return {"CopySource": named}


@contextmanager
def _writing(place: _Place) -> Iterator[None]:
    """Turn what S3 answers about a destination into _Taken, _Refused or neve's errors."""
    try:
        with transient():
            try:
                yield
            except ClientError as error:
                raise _meaning(place, error) from error
    except ParamValidationError as error:
        raise _Refused(f"{place} cannot be asked for: {error}") from error
    except HTTPError as error:
        raise Transient(f"{place}: {error}") from error


def _meaning(place: _Place, error: ClientError) -> Exception:
    """What an error says; itself if it says nothing about the destination."""
    name, at = code(error), status(error)
    if at in STANDS or name == "NoSuchKey":  # 404: what was to be replaced is gone
        return _Taken()
    if name in ASLEEP:
        return Asleep(f"the archive's copy has expired before it was in {place}")
    if name in _PASSING:
        return Transient(f"{place}: {name}")
    if passing(name) or at not in (301, 400, 403, 404):
        return error
    return _refusal(place, error)


def _refusal(place: _Place, error: ClientError) -> _Refused:
    name, at = code(error), status(error)
    said = f"{place}: {error.operation_name} {at} {name}"
    if name == "NoSuchBucket":
        return _Refused(f"{said}; create the bucket, or name another")
    if at == 403:
        return _Refused(f"{said}; allow it in the bucket's policy and its key's, and name it in restore_buckets")
    return _Refused(f"{said}: {error.response.get('Error', {}).get('Message', '')}")


def _place(item: Item) -> _Place:
    return _Place(bucket=bucket_of(item.destination), key=key_of(item.destination))


def _checksums(source: Source) -> dict[str, str]:
    """The checksums of the whole that are known of a source."""
    known = {name: value for name, value in source.checksums.items() if "-" not in value}
    return known | ({SHA256: _base64(source.sha256)} if source.sha256 else {})


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _proved(job: _Copy, stated: Mapping[str, Any], version_id: str) -> Placed:
    """What became of a copy of which S3 says what is `stated`. Raises SourceDamaged."""
    same = proven(_checksums(job.source), job.source.etag, full_checksums(stated), _etag(stated))
    if same is False:
        raise SourceDamaged(
            f"{where(job.archive)}: its copy {job.place} version {version_id} has not the checksum its manifest states"
        )
    return Placed(version_id=version_id, etag=_etag(stated), unproven=same is None)


def _etag(answer: Mapping[str, Any]) -> str:
    etag: str = answer["ETag"]
    return etag.strip('"')

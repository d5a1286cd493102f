"""What the ports of uploads and pointers promise, in memory and on AWS (moto); and what S3's refusals come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.s3.utils import compute_checksum

from neve.aws import clients
from neve.aws.uploads import S3Uploads
from neve.domain import large
from neve.domain.large import Range, proven
from neve.domain.manifest import Source
from neve.domain.pointer import InContent, OnHost
from neve.domain.version import NULL_VERSION, ObjectVersion, padded_sequencer
from neve.errors import SourceChanged, SourceDamaged, SourceDenied, SourceGone, SourceUnproven, Transient
from neve.ports import ContentCopy, NotCopied, Pointers, Uploads
from tests.bad_keys import BAD_KEYS
from tests.memory_offload import MemoryPointers
from tests.memory_uploads import MemoryUploads
from tests.moto_cloud import CONTENT, UPLOADS, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
KEY = "photos/\u00e4 b+c.jpg"


@dataclass
class Side:
    """The ports on one cloud, and what an application does with its bucket."""

    uploads: Uploads
    pointers: Pointers
    cloud: MotoCloud | None = None

    def put(self, key: str, body: bytes, *, bucket: str = UPLOADS, **described: Any) -> ObjectVersion:
        if isinstance(self.uploads, MemoryUploads):
            return self.uploads.put(bucket, key, body, **described)
        assert self.cloud
        names = {"content_type": "ContentType", "user_metadata": "Metadata"}
        extra = {names[name]: value for name, value in described.items() if name in names}
        if "tags" in described:
            extra["Tagging"] = "&".join(f"{name}={value}" for name, value in described["tags"].items())
        return self.cloud.upload(key, body, bucket=bucket, ChecksumAlgorithm="SHA256", **extra)

    def unversioned(self) -> None:
        """Make the uploads bucket anew, one that keeps no versions."""
        if isinstance(self.uploads, MemoryUploads):
            self.uploads.unversioned.add(UPLOADS)
            return
        clients.s3().delete_bucket(Bucket=UPLOADS)
        clients.s3().create_bucket(Bucket=UPLOADS)

    def copy(
        self,
        version: ObjectVersion,
        to: str = "",
        *,
        bucket: str = UPLOADS,
        source: Source | None = None,
        onto: ObjectVersion | None = None,
    ) -> ContentCopy | NotCopied:
        return self.uploads.copy(bucket, version, to or version.key, source=source, onto=onto, until=LATER)

    def copied(self, version: ObjectVersion, to: str = "", **more: Any) -> ContentCopy:
        made = self.copy(version, to, **more)
        assert isinstance(made, ContentCopy), made
        return made

    def current(self, key: str = KEY, bucket: str = CONTENT) -> str:
        found = self.uploads.current(bucket, key)
        return found.version_id if found else ""


@pytest.fixture(params=["memory", "aws"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "memory":
        yield Side(MemoryUploads(), MemoryPointers())
        return
    with moto_cloud() as cloud:
        yield Side(cloud.uploads, cloud.pointers, cloud)


@pytest.fixture
def aws() -> Iterator[Side]:
    with moto_cloud() as cloud:
        yield Side(cloud.uploads, cloud.pointers, cloud)


# Pointers


def a_pointer(number: int, **changed: Any) -> InContent:
    made = InContent(
        key=KEY,
        content_key=KEY,
        content_version=f"c{number}",
        upload_version=f"u{number}",
        sequencer=padded_sequencer(f"{number}"),
        size_bytes=number,
        etag=f"e{number}",
        since=NOW + timedelta(microseconds=number),
    )
    return replace(made, **changed)


HOST = OnHost(key=KEY, url="https://host/a", since=NOW)


def test_a_pointer_stands_as_it_was_written(side: Side) -> None:
    assert side.pointers.get(KEY) is None
    for key in [*BAD_KEYS, "elsewhere"]:
        pointer = a_pointer(1, key=key, content_key=f"ab/cd/{key}" if key == "elsewhere" else key)
        assert side.pointers.move(None, pointer)
        assert side.pointers.get(key) == pointer
    many = side.pointers.get_many([*BAD_KEYS, *BAD_KEYS, "none"] + [f"{number}" for number in range(200)])
    assert set(many) == set(BAD_KEYS)


def test_a_pointer_moves_only_from_what_was_seen(side: Side) -> None:
    first, second = a_pointer(1), a_pointer(2)
    assert not side.pointers.move(first, second)
    assert side.pointers.move(None, first)
    assert not side.pointers.move(None, second)
    assert not side.pointers.move(HOST, second)
    for other in (
        replace(first, content_version="c9"),
        replace(first, upload_version="u9"),
        replace(first, sequencer=padded_sequencer("9")),
    ):
        assert not side.pointers.move(other, second)
    assert side.pointers.get(KEY) == first
    assert side.pointers.move(replace(first, since=LATER), second)
    assert side.pointers.get(KEY) == second


def test_a_host_is_named_only_while_the_file_is_nowhere_else(side: Side) -> None:
    assert side.pointers.claim_host(HOST)
    assert side.pointers.claim_host(replace(HOST, url="https://other/a"))
    assert side.pointers.get(KEY) == replace(HOST, url="https://other/a")
    assert side.pointers.move(HOST, a_pointer(1)), "which host it was does not matter"
    assert not side.pointers.claim_host(HOST)
    other = a_pointer(1, key="b")
    assert side.pointers.claim_host(replace(HOST, key="b"))
    assert side.pointers.move(None, other)


# What is there


def test_a_version_is_described_with_its_metadata_and_tags(side: Side) -> None:
    described: dict[str, Any] = {
        "content_type": "image/jpeg",
        "user_metadata": {"by": "me"},
        "tags": {"a": "b"},
    }
    upload = side.put(KEY, b"one", **described)
    side.put(KEY, b"three")
    source = side.uploads.describe(UPLOADS, upload)
    assert {name: getattr(source, name) for name in described} == described
    assert (source.version_id, source.size_bytes, source.etag) == (upload.version_id, 3, upload.etag)
    assert side.uploads.hashes(UPLOADS, upload)["SHA256"] == source.checksums["SHA256"]
    with pytest.raises(SourceDamaged):
        side.uploads.hashes(UPLOADS, replace(upload, size_bytes=4))
    for bucket, version in ((UPLOADS, replace(upload, key="b")), (CONTENT, upload)):
        with pytest.raises(SourceGone):
            side.uploads.describe(bucket, version)


def test_what_is_current_is_known_by_its_version(side: Side) -> None:
    for key in BAD_KEYS:
        assert side.uploads.current(UPLOADS, key) is None
        side.put(key, b"one")
        second = side.put(key, b"three")
        found = side.uploads.current(UPLOADS, key)
        assert found
        assert replace(found, event_at=NOW) == replace(second, sequencer="", event_at=NOW)
        assert side.copied(second).etag == second.etag
        assert side.uploads.release(second)
        assert side.uploads.current(UPLOADS, key) is None
        assert side.uploads.describe(UPLOADS, second).size_bytes == 5, "it is in the attic"


def test_without_versions_the_etag_pins_an_upload(side: Side) -> None:
    side.unversioned()
    first, second = side.put(KEY, b"one"), side.put(KEY, b"three")
    assert first.version_id == second.version_id == NULL_VERSION
    assert side.uploads.describe(UPLOADS, second).size_bytes == 5
    with pytest.raises(SourceChanged):
        side.uploads.describe(UPLOADS, first)
    assert side.copy(first) is NotCopied.TAKEN
    assert side.copied(second).etag == second.etag


# Copies


def test_a_copy_has_the_bytes_the_metadata_and_the_tags_of_its_source(side: Side) -> None:
    upload = side.put(KEY, b"one", content_type="image/jpeg", user_metadata={"by": "me"}, tags={"a": "b c"})
    made = side.copied(upload, "ab/cd/" + KEY)
    standing = side.uploads.current(CONTENT, "ab/cd/" + KEY)
    assert standing
    assert (standing.version_id, standing.etag) == (made.version_id, made.etag)
    source, copy = side.uploads.describe(UPLOADS, upload), side.uploads.describe(CONTENT, standing)
    assert (copy.content_type, copy.user_metadata, copy.tags) == ("image/jpeg", {"by": "me"}, {"a": "b c"})
    assert proven(source.checksums, source.etag, made.checksums, made.etag)


def test_a_copy_lands_only_on_what_was_seen(side: Side) -> None:
    first, second = side.put(KEY, b"one"), side.put(KEY, b"three")
    made = side.copied(first)
    assert side.copy(second) is NotCopied.TAKEN
    assert side.current() == made.version_id
    standing = side.uploads.current(CONTENT, KEY)
    assert side.copy(second, onto=second) is NotCopied.TAKEN
    after = side.copied(second, onto=standing)
    assert side.current() == after.version_id
    assert side.copy(second, "b", onto=standing) is NotCopied.TAKEN, "nothing is there any more"


def test_an_earlier_version_is_put_back_on_top(side: Side) -> None:
    first, second = side.put(KEY, b"one", tags={"a": "b"}), side.put(KEY, b"three")
    before = replace(first, version_id=side.copied(first).version_id)
    side.copied(second, onto=side.uploads.current(CONTENT, KEY))
    back = side.copied(before, bucket=CONTENT, onto=side.uploads.current(CONTENT, KEY))
    assert back.version_id not in (before.version_id, "")
    standing = side.uploads.current(CONTENT, KEY)
    assert standing
    assert (standing.version_id, standing.size_bytes) == (back.version_id, 3)
    assert side.uploads.describe(CONTENT, standing).tags == {"a": "b"}


def test_a_version_that_is_gone_cannot_be_copied(side: Side) -> None:
    upload = side.put(KEY, b"one")
    gone = replace(upload, version_id="3" * 32)
    with pytest.raises(SourceGone):
        side.copy(gone)
    side.copied(upload)
    assert side.copy(gone, onto=side.uploads.current(CONTENT, KEY)) is NotCopied.TAKEN, "S3 has one answer for both"


# Letting go


def test_only_what_has_the_uploads_etag_is_hidden(side: Side) -> None:
    first = side.put(KEY, b"one")
    second = side.put(KEY, b"three")
    assert not side.uploads.release(first)
    assert side.current(bucket=UPLOADS) == second.version_id
    assert side.uploads.release(second)
    assert not side.uploads.release(second)
    assert not side.uploads.release(replace(second, key="none"))
    third = side.put(KEY, b"four")
    assert side.current(bucket=UPLOADS) == third.version_id


# S3 alone


def refuse(operation: str, code: str, status: int) -> Any:
    """Every such call to S3 fails from now on; what is returned ends it."""

    def answer(**_: Any) -> None:
        response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(response, operation)

    events = clients.s3().meta.events
    events.register_first(f"before-call.s3.{operation}", answer)
    return lambda: events.unregister(f"before-call.s3.{operation}", answer)


def test_what_may_not_be_read_is_denied_and_what_may_not_be_written_comes_out_as_it_is(aws: Side) -> None:
    upload = aws.put(KEY, b"one")
    allow_copies = refuse("CopyObject", "AccessDenied", 403)
    with pytest.raises(ClientError):
        aws.copy(upload)
    allow_heads = refuse("HeadObject", "403", 403)
    with pytest.raises(SourceDenied):
        aws.copy(upload)
    allow_heads()
    allow_copies()
    end = refuse("CopyObject", "SlowDown", 503)
    with pytest.raises(Transient):
        aws.copy(upload)
    end()
    end = refuse("CopyObject", "ConditionalRequestConflict", 409)
    assert aws.copy(upload) is NotCopied.TAKEN
    end()


def test_an_upload_in_a_glacier_class_is_denied(aws: Side) -> None:
    assert aws.cloud
    with pytest.raises(SourceDenied):
        aws.copy(aws.cloud.upload(KEY, b"one", bucket=UPLOADS, StorageClass="GLACIER"))


@pytest.mark.parametrize("operation", ["DeleteObject", "HeadObject", "CopyObject"])
def test_a_bucket_that_is_missing_is_no_fault_of_the_upload(aws: Side, operation: str) -> None:
    upload = aws.put(KEY, b"one")
    end = refuse(operation, "NoSuchBucket", 404)
    calls: Mapping[str, Any] = {
        "DeleteObject": lambda: aws.uploads.release(upload),
        "HeadObject": lambda: aws.uploads.describe(UPLOADS, upload),
        "CopyObject": lambda: aws.copy(upload),
    }
    with pytest.raises(ClientError, match="NoSuchBucket"):
        calls[operation]()
    end()


def test_the_storage_class_is_kept_unless_it_is_an_archives(aws: Side) -> None:
    assert aws.cloud
    for storage_class, kept in (("STANDARD_IA", "STANDARD_IA"), ("GLACIER_IR", "GLACIER_IR"), ("STANDARD", "")):
        upload = aws.cloud.upload(storage_class, b"one", bucket=UPLOADS, StorageClass=storage_class)
        made = aws.copied(upload, source=aws.uploads.describe(UPLOADS, upload))
        found = aws.uploads.describe(CONTENT, replace(upload, version_id=made.version_id))
        assert found.storage_class == kept


MIB = 1024 * 1024
LARGE = b"x" * (5 * MIB) + b"y"
PARTS = [Range(number=1, first=0, last=5 * MIB - 1), Range(number=2, first=5 * MIB, last=5 * MIB)]


@pytest.fixture
def in_parts(aws: Side, monkeypatch: pytest.MonkeyPatch) -> S3Uploads:
    """Uploads of which all are copied in two parts, one after the other."""
    monkeypatch.setattr(large, "WAVE", 1)
    assert aws.cloud
    return replace(aws.cloud.uploads, single_copy_bytes=1, cut=lambda _: PARTS)


def a_large_one(aws: Side, body: bytes = LARGE, **extra: Any) -> tuple[ObjectVersion, Source]:
    """An upload, and what S3 says of it: moto knows no CRC64NVME."""
    assert aws.cloud
    upload = aws.cloud.upload(KEY, body, bucket=UPLOADS, **extra)
    source = aws.uploads.describe(UPLOADS, upload)
    return upload, replace(source, checksums={"CRC64NVME": compute_checksum(body, "CRC64NVME").decode()})


def test_a_copy_in_parts_goes_on_where_the_last_call_ended_and_keeps_what_is_known(
    aws: Side, in_parts: S3Uploads
) -> None:
    described: dict[str, Any] = {"ContentType": "video/mp4", "Metadata": {"by": "me"}, "Tagging": "a=b"}
    elsewhere: dict[str, Any] = {"StorageClass": "STANDARD_IA", "WebsiteRedirectLocation": "https://example.org/"}
    upload, source = a_large_one(aws, **described, **elsewhere)
    more: dict[str, Any] = {"source": source, "onto": None}
    assert in_parts.copy(UPLOADS, upload, KEY, until=NOW, **more) is NotCopied.UNFINISHED
    [begun] = clients.s3().list_multipart_uploads(Bucket=CONTENT)["Uploads"]
    made = in_parts.copy(UPLOADS, upload, KEY, until=LATER, **more)
    assert isinstance(made, ContentCopy)
    assert made.checksums == source.checksums
    standing = in_parts.current(CONTENT, KEY)
    assert standing
    found = in_parts.describe(CONTENT, standing)
    for name in ("content_type", "user_metadata", "tags", "storage_class", "size_bytes"):
        assert getattr(found, name) == getattr(source, name), name
    assert source.website_redirect
    assert not found.website_redirect, "S3 does not copy it in one go either"
    assert begun["Key"] == KEY
    assert "Uploads" not in clients.s3().list_multipart_uploads(Bucket=CONTENT)


def test_a_copy_in_parts_lands_only_on_what_was_seen_and_its_parts_are_not_lost(aws: Side, in_parts: S3Uploads) -> None:
    upload, source = a_large_one(aws)
    aws.put(KEY, b"other", bucket=CONTENT)
    assert in_parts.copy(UPLOADS, upload, KEY, source=source, onto=None, until=LATER) is NotCopied.TAKEN
    end = refuse("UploadPartCopy", "InternalError", 500)
    standing = in_parts.current(CONTENT, KEY)
    made = in_parts.copy(UPLOADS, upload, KEY, source=source, onto=standing, until=LATER)
    end()
    assert isinstance(made, ContentCopy)
    assert aws.current() == made.version_id


def test_parts_of_another_upload_of_the_key_are_never_completed(aws: Side, in_parts: S3Uploads) -> None:
    earlier, of_earlier = a_large_one(aws, bytes(len(LARGE)))
    assert in_parts.copy(UPLOADS, earlier, KEY, source=of_earlier, onto=None, until=NOW) is NotCopied.UNFINISHED
    upload, source = a_large_one(aws)
    with pytest.raises(Transient, match="checksum"):
        in_parts.copy(UPLOADS, upload, KEY, source=source, onto=None, until=LATER)
    assert aws.current() == ""
    made = in_parts.copy(UPLOADS, upload, KEY, source=source, onto=None, until=LATER)
    assert isinstance(made, ContentCopy)


def test_parts_that_have_not_the_checksum_of_their_source_are_damaged(aws: Side, in_parts: S3Uploads) -> None:
    upload, source = a_large_one(aws)
    stated = {"CRC64NVME": compute_checksum(b"other", "CRC64NVME").decode()}
    with pytest.raises(SourceDamaged):
        in_parts.copy(UPLOADS, upload, KEY, source=replace(source, checksums=stated), onto=None, until=LATER)
    assert aws.current() == ""


def in_halves(body: bytes, half: int) -> ObjectVersion:
    """An upload in two parts, with a checksum of each, and none of the whole."""
    s3 = clients.s3()
    place: Any = {"Bucket": UPLOADS, "Key": KEY}
    started = s3.create_multipart_upload(**place)["UploadId"]
    halves = (body[:half], body[half:])
    etags = [
        s3.upload_part(**place, UploadId=started, PartNumber=number, Body=each)["ETag"]
        for number, each in enumerate(halves, start=1)
    ]
    parts: Any = {"Parts": [{"ETag": etag, "PartNumber": number} for number, etag in enumerate(etags, start=1)]}
    s3.complete_multipart_upload(**place, UploadId=started, MultipartUpload=parts)
    found = s3.head_object(**place)
    return ObjectVersion(
        key=KEY,
        version_id=found["VersionId"],
        size_bytes=len(body),
        etag=found["ETag"].strip('"'),
        sequencer="",
        event_at=NOW,
    )


def test_without_a_checksum_of_the_whole_the_parts_of_the_upload_prove_its_copy(aws: Side, in_parts: S3Uploads) -> None:
    body = LARGE + bytes(5 * MIB - 2)
    upload = in_halves(body, 5 * MIB)
    source = replace(in_parts.describe(UPLOADS, upload), checksums={})
    made = replace(in_parts, cut=large.ranges).copy(UPLOADS, upload, KEY, source=source, onto=None, until=LATER)
    assert isinstance(made, ContentCopy)
    assert made.etag == upload.etag
    assert made.etag.endswith("-2")
    uneven = in_halves(body + bytes(5 * MIB), 5 * MIB)
    with pytest.raises(SourceUnproven):
        in_parts.copy(
            UPLOADS, uneven, "b", source=replace(source, size_bytes=len(body) + 5 * MIB), onto=None, until=LATER
        )
    assert aws.current("b") == ""


def test_who_finds_the_upload_completed_by_another_looks_again(aws: Side, in_parts: S3Uploads) -> None:
    upload, source = a_large_one(aws)
    end = refuse("CompleteMultipartUpload", "NoSuchUpload", 404)
    assert in_parts.copy(UPLOADS, upload, KEY, source=source, onto=None, until=LATER) is NotCopied.TAKEN
    end()


def test_hashes_are_those_that_s3_would_state(aws: Side) -> None:
    upload, source = a_large_one(aws)
    assert aws.uploads.hashes(UPLOADS, upload)["CRC64NVME"] == source.checksums["CRC64NVME"]

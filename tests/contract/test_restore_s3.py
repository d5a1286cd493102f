"""What the ports of restores on S3 and SNS promise, in memory and on AWS (moto); and what S3's refusals come to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto.s3.models import s3_backends
from moto.s3.utils import compute_checksum

from neve.aws import clients, destinations
from neve.aws.content import S3Content
from neve.aws.destinations import S3Destination
from neve.aws.glacier import S3ArchiveReader, S3Glacier, copy_status
from neve.aws.ledger import LEDGER
from neve.domain import large
from neve.domain.index import ArchiveRow, ArchiveState
from neve.domain.large import Range
from neve.domain.manifest import Kind, Source, archive_key
from neve.domain.restore import Item, parse_thawed
from neve.domain.thaw import Tier
from neve.domain.version import ObjectVersion
from neve.errors import ArchiveUnreadable, Asleep, NeveError, SourceDamaged, Transient
from neve.ports import Answer, ArchiveReader, CopyStatus, Destination, Glacier, Placed
from tests.bad_keys import BAD_KEYS
from tests.memory import MemoryArchiveStore, MemoryContent
from tests.memory_s3 import ARCHIVE, MemoryDestination, MemoryGlacier, MemoryReader, copy_until
from tests.moto_cloud import ELSEWHERE, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
BODY = bytes(range(256)) * 8
LATER = datetime(2100, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024


@dataclass
class Side:
    """The ports on one cloud, and what a test needs to look behind them."""

    glacier: Glacier
    reader: ArchiveReader
    destination: Destination
    behind: MemoryGlacier | MotoCloud

    def archive(self, body: bytes = BODY, storage_class: str = "GLACIER", kind: Kind = "tar") -> ArchiveRow:
        """An archive of these bytes, as WriteArchive or CopyLarge would leave it."""
        row = ArchiveRow(
            serial=17,
            kind=kind,
            bundle="b",
            object_key=archive_key(17, kind),
            object_version_id="v",
            storage_class=storage_class,
            size_bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            source_bytes=len(body),
            files=1,
            duplicates=0,
            state=ArchiveState.ARCHIVED,
            written_at=NOW,
        )
        if isinstance(self.reader, MemoryReader):
            self.reader.store._store(row.object_key, body)
            return row
        answer = clients.s3().put_object(
            Bucket=ARCHIVE,
            Key=row.object_key,
            Body=body,
            StorageClass=storage_class,  # type: ignore[arg-type]
            ChecksumAlgorithm="SHA256",
        )
        return replace(row, object_version_id=answer["VersionId"])

    @property
    def thaws(self) -> Any:
        """The thaws as the cloud has them: both sides end and forget them alike."""
        return self.behind.glacier if isinstance(self.behind, MotoCloud) else self.behind

    def thaw(self, archive: ArchiveRow) -> None:
        assert self.glacier.request(archive, tier=Tier.STANDARD, days=1) is Answer.ACCEPTED
        self.thaws.complete()

    def now(self) -> datetime:
        return NOW if isinstance(self.behind, MemoryGlacier) else datetime.now(UTC)

    def current(self, destination: str) -> bytes | None:
        """The bytes that stand at a place."""
        if isinstance(self.destination, MemoryDestination):
            standing = self.destination.current(destination)
            return standing.body if standing else None
        bucket, _, key = destination.removeprefix("s3://").partition("/")
        try:
            return clients.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
        except clients.s3().exceptions.NoSuchKey:
            return None


@pytest.fixture(params=["memory", "aws"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "memory":
        glacier = MemoryGlacier(clock=lambda: NOW)
        reader = MemoryReader(store=MemoryArchiveStore(content=MemoryContent()), glacier=glacier)
        yield Side(glacier, reader, MemoryDestination(reader=reader, clock=lambda: NOW), glacier)
        return
    with moto_cloud() as cloud:
        yield Side(cloud.s3_glacier, cloud.reader, cloud.destination, cloud)


@pytest.fixture
def aws() -> Iterator[Side]:
    with moto_cloud() as cloud:
        yield Side(cloud.s3_glacier, cloud.reader, cloud.destination, cloud)


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's retries follow each other at once."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


def a_source(body: bytes = BODY, **stated: Any) -> Source:
    made = Source(
        key="a",
        version_id="v1",
        size_bytes=len(body),
        etag=hashlib.md5(body).hexdigest(),
        last_modified=NOW,
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body).hexdigest(),
    )
    return replace(made, **stated)


def to(destination: str, body: bytes = BODY) -> Item:
    return Item(key="a", pin="v1", number=0, size_bytes=len(body), destination=destination)


PLACE = f"s3://{ELSEWHERE}/back/a"


# Glacier


def test_a_thaw_runs_until_it_is_complete_and_its_event_says_until_when(side: Side) -> None:
    archive = side.archive()
    assert side.glacier.status(archive) == CopyStatus()
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=3) is Answer.ACCEPTED
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=3) is Answer.RUNNING
    assert side.glacier.status(archive) == CopyStatus(running=True)
    [event] = side.thaws.complete()
    [thawed] = parse_thawed(event, ARCHIVE)
    assert (thawed.archive, thawed.until) == (17, copy_until(side.now(), 3))
    assert side.glacier.status(archive) == CopyStatus(warm_until=thawed.until)


def test_a_copy_that_is_there_is_kept_for_longer_and_no_event_follows(side: Side) -> None:
    archive = side.archive()
    side.thaw(archive)
    assert side.glacier.request(archive, tier=Tier.BULK, days=9) is Answer.WARM
    assert side.glacier.status(archive) == CopyStatus(warm_until=copy_until(side.now(), 9))
    assert side.thaws.complete() == []


def test_a_running_thaw_is_upgraded_by_a_faster_tier_for_the_same_days(side: Side) -> None:
    archive = side.archive()
    assert side.glacier.request(archive, tier=Tier.BULK, days=2) is Answer.ACCEPTED
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=3) is Answer.RUNNING
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=2) is Answer.ACCEPTED
    assert side.glacier.request(archive, tier=Tier.BULK, days=2) is Answer.RUNNING


def test_expedited_that_is_not_to_be_had_is_asked_for_once(side: Side) -> None:
    archive = side.archive()
    side.thaws.expedited = False
    assert side.glacier.request(archive, tier=Tier.EXPEDITED, days=1) is Answer.UNAVAILABLE
    assert len(side.thaws.asked) == 1
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=1) is Answer.ACCEPTED


def test_a_copy_that_has_expired_is_asked_for_anew(side: Side) -> None:
    archive = side.archive()
    side.thaw(archive)
    side.thaws.expire()
    assert side.glacier.status(archive) == CopyStatus()
    with pytest.raises(Asleep):
        side.reader.read(archive, 0, 0)
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=1) is Answer.ACCEPTED
    side.thaws.forget()
    assert side.glacier.request(archive, tier=Tier.STANDARD, days=1) is Answer.ACCEPTED


def test_an_archive_that_is_gone_is_unreadable(side: Side) -> None:
    archive = replace(side.archive(), object_key="archives/0000000018.tar", serial=18)
    if isinstance(side.behind, MemoryGlacier):
        side.behind.gone.add(18)
    with pytest.raises(ArchiveUnreadable):
        side.glacier.request(archive, tier=Tier.STANDARD, days=1)
    with pytest.raises(ArchiveUnreadable):
        side.glacier.status(archive)
    with pytest.raises(ArchiveUnreadable):
        side.reader.read(archive, 0, 0)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_throttling_is_waited_out_for_a_while(aws: Side, storage_class: str) -> None:
    archive = aws.archive(storage_class=storage_class)
    aws.thaws.slow_downs = 5
    with pytest.raises(Transient):
        aws.glacier.request(archive, tier=Tier.STANDARD, days=1)
    aws.thaws.slow_downs = 1
    assert aws.glacier.request(archive, tier=Tier.STANDARD, days=1) is Answer.ACCEPTED


@pytest.mark.parametrize(("storage_class", "tier"), [("DEEP_ARCHIVE", Tier.EXPEDITED), ("GLACIER_IR", Tier.STANDARD)])
def test_what_s3_never_grants_comes_out_as_it_is(aws: Side, storage_class: str, tier: Tier) -> None:
    with pytest.raises(ClientError):
        aws.glacier.request(aws.archive(storage_class=storage_class), tier=tier, days=1)


@pytest.mark.parametrize(
    "stated",
    [
        'ongoing-request="false"',
        'ongoing-request="false", expiry-date="tomorrow GMT"',
        'ongoing-request="true", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
    ],
)
def test_a_state_that_cannot_be_understood_is_not_guessed_at(stated: str) -> None:
    with pytest.raises(Transient):
        copy_status({"Restore": stated})


# ArchiveReader


def test_a_range_of_a_thawed_archive_is_read_with_both_its_ends(side: Side) -> None:
    archive = side.archive()
    with pytest.raises(Asleep):
        side.reader.read(archive, 0, 9)
    side.thaw(archive)
    assert side.reader.read(archive, 3, 3) == BODY[3:4]
    assert side.reader.read(archive, 0, len(BODY) - 1) == BODY
    for first in (len(BODY) - 1, len(BODY)):  # short, and 416
        with pytest.raises(ArchiveUnreadable):
            side.reader.read(archive, first, len(BODY))


def test_an_archive_for_instant_retrieval_needs_no_thaw(side: Side) -> None:
    assert side.reader.read(side.archive(storage_class="GLACIER_IR"), 1, 2) == BODY[1:3]


def test_a_thawed_archive_is_streamed_from_anywhere_to_its_end(side: Side) -> None:
    archive = side.archive()
    with pytest.raises(Asleep):
        next(side.reader.stream(archive))
    side.thaw(archive)
    for first in (0, 1, len(BODY) - 1, len(BODY)):
        assert b"".join(side.reader.stream(archive, first=first)) == BODY[first:]
    with pytest.raises(ArchiveUnreadable):
        next(side.reader.stream(replace(archive, object_key="archives/0000000018.tar", serial=18)))


@pytest.mark.parametrize("damaged", [b"\x01" + BODY[1:], BODY[:-1]], ids=["flipped", "cut"])
def test_an_archive_is_streamed_as_it_is_whatever_s3_states_of_it(side: Side, damaged: bytes) -> None:
    archive = side.archive(storage_class="GLACIER_IR")
    if isinstance(side.reader, MemoryReader):
        side.reader.store.objects[archive.object_key] = damaged
    else:
        [region] = s3_backends["123456789012"].values()
        found = region.get_object(ARCHIVE, archive.object_key, version_id=archive.object_version_id)
        assert found
        found.value = damaged  # type: ignore[misc]  # it has a setter, which mypy does not see
    assert b"".join(side.reader.stream(archive)) == damaged


# Destination: files


def test_a_file_is_put_where_nothing_is_and_found_identical_the_second_time(side: Side) -> None:
    first = side.destination.put(to(PLACE), a_source(), BODY, overwrite=None)
    assert first == Placed(version_id=first.version_id, etag=hashlib.md5(BODY).hexdigest())
    assert first.version_id
    second = side.destination.put(to(PLACE), a_source(), BODY, overwrite=LATER)
    assert (second.identical, second.version_id, second.etag) == (True, first.version_id, first.etag)
    assert second.modified is not None
    assert side.now() - second.modified < timedelta(minutes=1)
    assert side.current(PLACE) == BODY


def test_what_differs_is_a_conflict_and_replaced_only_if_told_so(side: Side) -> None:
    side.destination.put(to(PLACE), a_source(b"other"), b"other", overwrite=None)
    refused = side.destination.put(to(PLACE), a_source(), BODY, overwrite=None)
    assert (refused.version_id, refused.identical) == ("", False)
    assert "5 bytes" in refused.conflict
    assert side.current(PLACE) == b"other"
    assert side.destination.put(to(PLACE), a_source(), BODY, overwrite=LATER).version_id
    assert side.current(PLACE) == BODY


def fetched(placed: Placed, key: str, body: bytes = BODY) -> Source:
    """What S3 says of a restored version, as Content reads it."""
    assert placed.version_id, placed
    version = ObjectVersion(
        key=key,
        version_id=placed.version_id,
        size_bytes=len(body),
        etag="e",
        sequencer="",
        event_at=NOW,
    )
    source, found = S3Content(clients.s3(), ELSEWHERE).fetch(version)
    assert found == body
    return source


DESCRIBED: dict[str, Any] = {
    "content_type": "text/plain; charset=utf-8",
    "content_encoding": "gzip",
    "content_language": "de, en",
    "content_disposition": 'attachment; filename="a b.txt"',
    "cache_control": "max-age=60",
    "expires": "never, or 0",  # S3 keeps any text
    "website_redirect": "/elsewhere",
    "storage_class": "STANDARD_IA",
    "user_metadata": {"owner": "=?UTF-8?Q?J=C3=B6rg?=", "empty": ""},
    "tags": {"a b": "x/y = 1+1 @", "empty": ""},
}


def test_metadata_and_tags_come_back_as_they_were(aws: Side) -> None:
    placed = aws.destination.put(to(PLACE), a_source(**DESCRIBED), BODY, overwrite=None)
    found = fetched(placed, "back/a")
    assert {name: getattr(found, name) for name in DESCRIBED} == DESCRIBED


def test_what_no_header_can_carry_is_encoded_and_no_class_of_archives_is_set(aws: Side) -> None:
    source = a_source(user_metadata={"name": "J\u00f6rg\n"}, storage_class="DEEP_ARCHIVE")
    found = fetched(aws.destination.put(to(PLACE), source, BODY, overwrite=None), "back/a")
    assert found.user_metadata == {"name": "=?UTF-8?B?SsO2cmcK?="}
    assert found.storage_class == ""


def test_every_key_can_be_put(aws: Side) -> None:
    for key in BAD_KEYS:
        body = key.encode()
        placed = aws.destination.put(to(f"s3://{ELSEWHERE}/{key}", body), a_source(body), body, overwrite=None)
        assert placed.version_id
        assert aws.current(f"s3://{ELSEWHERE}/{key}") == body


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("in_parts", [True, False])
def test_what_somebody_else_put_there_is_compared_by_its_etag_or_its_bytes(
    aws: Side, in_parts: bool, same: bool
) -> None:
    """S3 states no SHA-256 of it; uploaded in parts, its ETag is no MD5 either."""
    standing = BODY if same else BODY[::-1]
    where: Any = {"Bucket": ELSEWHERE, "Key": "back/a"}
    if in_parts:
        upload = clients.s3().create_multipart_upload(**where, ChecksumAlgorithm="CRC64NVME")["UploadId"]
        part = clients.s3().upload_part(**where, UploadId=upload, PartNumber=1, Body=standing)
        etags: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        clients.s3().complete_multipart_upload(**where, UploadId=upload, MultipartUpload=etags)
    else:
        clients.s3().put_object(**where, Body=standing)
    placed = aws.destination.put(to(PLACE), a_source(), BODY, overwrite=None)
    assert (placed.identical, bool(placed.conflict)) == (same, not same)


@pytest.mark.parametrize("times", [1, destinations.TRIES])
def test_an_object_that_changes_after_it_was_seen_is_looked_at_again(aws: Side, times: int) -> None:
    aws.destination.put(to(PLACE), a_source(b"0"), b"0", overwrite=None)
    bodies = iter(f"{number}".encode() for number in range(1, times + 1))

    def another(**_: Any) -> None:
        for body in bodies:
            boto3.client("s3").put_object(Bucket=ELSEWHERE, Key="back/a", Body=body)
            return

    clients.s3().meta.events.register("before-call.s3.PutObject", another, unique_id="another")
    try:
        if times == destinations.TRIES:
            with pytest.raises(Transient):
                aws.destination.put(to(PLACE), a_source(), BODY, overwrite=LATER)
        else:
            assert aws.destination.put(to(PLACE), a_source(), BODY, overwrite=LATER).version_id
            assert aws.current(PLACE) == BODY
    finally:
        clients.s3().meta.events.unregister("before-call.s3.PutObject", unique_id="another")


# Destination: large objects


def test_a_large_object_is_copied_by_s3_once_it_is_thawed(side: Side) -> None:
    archive = side.archive(kind="object")
    with pytest.raises(Asleep):
        side.destination.copy(to(PLACE), a_source(), archive, overwrite=None, until=LATER)
    side.thaw(archive)
    copied = side.destination.copy(to(PLACE), a_source(), archive, overwrite=None, until=LATER)
    assert copied
    assert copied == Placed(version_id=copied.version_id, etag=hashlib.md5(BODY).hexdigest())
    assert side.current(PLACE) == BODY
    again = side.destination.copy(to(PLACE), a_source(), archive, overwrite=LATER, until=LATER)
    assert again
    assert (again.identical, again.version_id) == (True, copied.version_id)


def test_a_copy_replaces_what_differs_only_if_told_so(side: Side) -> None:
    archive = side.archive(kind="object", storage_class="GLACIER_IR")
    side.destination.put(to(PLACE), a_source(b"other"), b"other", overwrite=None)
    refused = side.destination.copy(to(PLACE), a_source(), archive, overwrite=None, until=LATER)
    assert refused
    assert refused.conflict
    assert side.current(PLACE) == b"other"
    replaced = side.destination.copy(to(PLACE), a_source(), archive, overwrite=LATER, until=LATER)
    assert replaced
    assert replaced.version_id
    assert side.current(PLACE) == BODY


def test_an_archive_that_is_not_what_its_manifest_states_is_not_copied(side: Side) -> None:
    archive = side.archive(BODY[::-1], kind="object", storage_class="GLACIER_IR")
    with pytest.raises(SourceDamaged):
        side.destination.copy(to(PLACE), a_source(), archive, overwrite=None, until=LATER)
    assert side.current(PLACE) is None
    gone = replace(archive, object_key="archives/0000000018.object")
    with pytest.raises(ArchiveUnreadable):
        side.destination.copy(to(PLACE), a_source(), gone, overwrite=None, until=LATER)


def test_a_copy_gets_the_metadata_of_its_source_and_none_of_the_archives(aws: Side) -> None:
    archive = aws.archive(kind="object", storage_class="GLACIER_IR")
    described = {**DESCRIBED, "storage_class": ""}
    placed = aws.destination.copy(to(PLACE), a_source(**described), archive, overwrite=None, until=LATER)
    assert placed
    found = fetched(placed, "back/a")
    assert {name: getattr(found, name) for name in described} == described


LARGE = b"x" * (5 * MIB) + b"y"
PARTS = [Range(number=1, first=0, last=5 * MIB - 1), Range(number=2, first=5 * MIB, last=5 * MIB)]


def large_source(body: bytes = LARGE) -> Source:
    crc = compute_checksum(body, "CRC64NVME").decode()
    return a_source(body, sha256="", md5="", etag="e-2", checksums={"CRC64NVME": crc}, content_type="video/mp4")


@pytest.fixture
def in_parts(aws: Side, monkeypatch: pytest.MonkeyPatch) -> S3Destination:
    """A destination that copies in two parts, one after the other."""
    monkeypatch.setattr(large, "WAVE", 1)
    return replace(aws.behind.destination, single_copy_bytes=1, cut=lambda _: PARTS)  # type: ignore[union-attr]


def test_a_copy_in_parts_goes_on_where_the_last_call_ended(aws: Side, in_parts: S3Destination) -> None:
    archive = aws.archive(LARGE, kind="object", storage_class="GLACIER_IR")
    item = to(PLACE, LARGE)
    LEDGER.settle()
    assert in_parts.copy(item, large_source(), archive, overwrite=None, until=NOW) is None
    placed = in_parts.copy(item, large_source(), archive, overwrite=None, until=NOW)
    assert LEDGER.settle().requests["s3:UploadPartCopy"] == 2
    assert placed
    head = clients.s3().head_object(Bucket=ELSEWHERE, Key="back/a")
    assert placed == Placed(version_id=placed.version_id, etag=head["ETag"].strip('"'))
    assert (head["ContentLength"], head["ContentType"]) == (len(LARGE), "video/mp4")
    again = in_parts.copy(item, large_source(), archive, overwrite=None, until=NOW)
    assert again
    assert again.identical


def test_parts_of_another_version_are_given_up_and_damaged_ones_refused(aws: Side, in_parts: S3Destination) -> None:
    """S3 compares the joined parts with the checksum that the manifest states. The archive states another one here:
    what HEAD says of it is not to be compared with the manifest's.
    """
    archive = aws.archive(LARGE, kind="object", storage_class="GLACIER_IR")
    other = large_source(LARGE[::-1])
    item = to(PLACE, LARGE)
    assert in_parts.copy(item, large_source(), archive, overwrite=None, until=NOW) is None
    with pytest.raises(Transient):
        in_parts.copy(item, other, archive, overwrite=None, until=LATER)
    with pytest.raises(SourceDamaged):
        in_parts.copy(item, other, archive, overwrite=None, until=LATER)
    assert "Uploads" not in clients.s3().list_multipart_uploads(Bucket=ELSEWHERE)
    assert aws.current(PLACE) is None


def test_an_upload_of_somebody_else_is_left_alone(aws: Side, in_parts: S3Destination) -> None:
    archive = aws.archive(LARGE, kind="object", storage_class="GLACIER_IR")
    theirs: Any = {"Bucket": ELSEWHERE, "Key": "back/a"}
    uploads: Any = [("CRC64NVME", []), ("CRC64NVME", [b"theirs"]), ("SHA256", [LARGE[: 5 * MIB]])]
    for algorithm, parts in uploads:
        upload_id = clients.s3().create_multipart_upload(**theirs, ChecksumAlgorithm=algorithm)["UploadId"]
        for number, part in enumerate(parts, start=1):
            clients.s3().upload_part(**theirs, UploadId=upload_id, PartNumber=number, Body=part)
    placed = in_parts.copy(to(PLACE, LARGE), large_source(), archive, overwrite=None, until=LATER)
    assert placed
    assert aws.current(PLACE) == LARGE
    assert len(clients.s3().list_multipart_uploads(Bucket=ELSEWHERE)["Uploads"]) == 3


# What S3 refuses

ROW = ArchiveRow(
    serial=17,
    kind="object",
    bundle="b",
    object_key="archives/0000000017.object",
    object_version_id="v",
    storage_class="GLACIER",
    size_bytes=len(BODY),
    sha256=hashlib.sha256(BODY).hexdigest(),
    source_bytes=len(BODY),
    files=1,
    duplicates=0,
    state=ArchiveState.ARCHIVED,
    written_at=NOW,
)


@pytest.fixture(scope="module")
def stubbed() -> Any:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


@pytest.fixture
def answers(stubbed: Any) -> Iterator[Stubber]:
    with Stubber(stubbed) as stubber:
        yield stubber


@pytest.fixture
def destination(stubbed: Any) -> S3Destination:
    return S3Destination(stubbed, stubbed, ARCHIVE, lambda: NOW)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "restore_buckets"),
        (404, "NoSuchBucket", "create the bucket"),
        (400, "KeyTooLongError", "KeyTooLongError"),
        (400, "KMS.DisabledException", "KMS.DisabledException"),
        (301, "PermanentRedirect", "PermanentRedirect"),
    ],
)
def test_a_destination_that_takes_nothing_is_named_with_the_reason(
    destination: S3Destination, answers: Stubber, status: int, code: str, remedy: str
) -> None:
    answers.add_client_error("put_object", code, http_status_code=status)
    placed = destination.put(to(PLACE), a_source(), BODY, overwrite=None)
    assert PLACE in placed.refused
    assert remedy in placed.refused
    assert placed == Placed(refused=placed.refused)


def test_a_place_that_cannot_be_asked_for_is_refused(destination: S3Destination) -> None:
    assert "Invalid bucket name" in destination.put(to("s3://a b/c"), a_source(), BODY, overwrite=None).refused


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (400, "BadDigest"), (400, "RequestTimeout"), (403, "RequestTimeTooSkewed")]
)
def test_what_passes_is_tried_again(destination: S3Destination, answers: Stubber, status: int, code: str) -> None:
    answers.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(Transient):
        destination.put(to(PLACE), a_source(), BODY, overwrite=None)


def test_a_put_says_all_in_one_request_and_leaves_out_what_only_the_transfer_needed(
    destination: S3Destination, answers: Stubber
) -> None:
    asked = {
        "Bucket": ELSEWHERE,
        "Key": "back/a",
        "Body": BODY,
        "ChecksumSHA256": base64.b64encode(hashlib.sha256(BODY).digest()).decode(),
        "ContentEncoding": "gzip",
        "Metadata": {},
        "IfNoneMatch": "*",
    }
    answers.add_response("put_object", {"ETag": '"e"'}, asked)
    source = a_source(content_encoding="gzip, aws-chunked")
    assert destination.put(to(PLACE), source, BODY, overwrite=None) == Placed(version_id="null", etag="e")


def test_what_was_to_be_replaced_and_is_gone_is_put_as_new(destination: S3Destination, answers: Stubber) -> None:
    stands = {"ContentLength": 3, "ETag": '"e"', "LastModified": NOW}
    answers.add_response("head_object", stands)
    answers.add_client_error("put_object", "NoSuchKey", http_status_code=404)
    answers.add_client_error("head_object", "404", http_status_code=404)
    answers.add_response("put_object", {"ETag": '"f"', "VersionId": "v9"})
    assert destination.put(to(PLACE), a_source(), BODY, overwrite=LATER) == Placed(version_id="v9", etag="f")


def head_of_archive(answers: Stubber) -> None:
    stated = {
        "ContentLength": len(BODY),
        "ETag": '"e"',
        "StorageClass": "GLACIER",
        "Restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"',
    }
    answers.add_response("head_object", stated)
    answers.add_client_error("head_object", "404", http_status_code=404)


@pytest.mark.parametrize(
    ("code", "raised"), [("AccessDenied", None), ("ObjectNotInActiveTierError", Asleep), ("InvalidObjectState", Asleep)]
)
def test_what_s3_denies_once_the_archive_was_seen_the_destination_denies(
    destination: S3Destination, answers: Stubber, code: str, raised: type[NeveError] | None
) -> None:
    head_of_archive(answers)
    answers.add_client_error("copy_object", code, http_status_code=403)
    if raised:
        with pytest.raises(raised):
            destination.copy(to(PLACE), a_source(), ROW, overwrite=None, until=LATER)
    else:
        placed = destination.copy(to(PLACE), a_source(), ROW, overwrite=None, until=LATER)
        assert placed
        assert PLACE in placed.refused


def test_an_archive_that_may_not_be_read_is_no_fault_of_the_destination(
    stubbed: Any, destination: S3Destination, answers: Stubber
) -> None:
    for _ in range(3):
        answers.add_client_error("head_object", "403", http_status_code=403)
    with pytest.raises(ClientError):
        destination.copy(to(PLACE), a_source(), ROW, overwrite=None, until=LATER)
    with pytest.raises(ClientError):
        S3Glacier(stubbed, ARCHIVE).status(ROW)


@pytest.mark.parametrize(
    ("stated", "unproven"), [({}, True), ({"ChecksumSHA256": base64.b64encode(b"0" * 32).decode()}, None)]
)
def test_a_copy_is_proved_by_what_s3_states_of_it(
    destination: S3Destination, answers: Stubber, stated: dict[str, str], unproven: bool | None
) -> None:
    head_of_archive(answers)
    answers.add_response("copy_object", {"CopyObjectResult": {"ETag": '"other"', **stated}, "VersionId": "v9"})
    if unproven is None:
        with pytest.raises(SourceDamaged, match="v9"):
            destination.copy(to(PLACE), a_source(), ROW, overwrite=None, until=LATER)
    else:
        assert destination.copy(to(PLACE), a_source(), ROW, overwrite=None, until=LATER) == Placed(
            version_id="v9", etag="other", unproven=True
        )


def test_a_bucket_of_archives_that_is_missing_is_no_fault_of_an_archive(stubbed: Any, answers: Stubber) -> None:
    answers.add_client_error("get_object", "NoSuchBucket", http_status_code=404)
    with pytest.raises(ClientError):
        S3ArchiveReader(stubbed, ARCHIVE).read(ROW, 0, 1)


# Topic


def test_what_is_published_is_heard(aws: Side) -> None:
    assert isinstance(aws.behind, MotoCloud)
    aws.behind.topic.publish('{"job": "\u00fc"}')
    assert aws.behind.bodies("restored") == ['{"job": "\u00fc"}']

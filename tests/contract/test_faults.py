"""What AWS answers when something is wrong, and what neve makes of it. botocore's Stubber gives the answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from urllib3.exceptions import ProtocolError

from neve.aws import files_table
from neve.aws.archive_store import S3ArchiveStore
from neve.aws.archives_table import DynamoBundles
from neve.aws.content import S3Content
from neve.aws.files_table import TRIES, DynamoFiles
from neve.domain.bundle import Lane
from neve.domain.index import FileRow
from neve.domain.large import Range
from neve.domain.version import ObjectVersion
from neve.errors import (
    ManifestInvalid,
    NeveError,
    SourceChanged,
    SourceDamaged,
    SourceDenied,
    SourceFrozen,
    SourceGone,
    SourceUnfit,
    Transient,
)

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
CONFIG = Config(retries={"total_max_attempts": 1, "mode": "standard"})
VERSION = ObjectVersion(
    key="a", version_id="v1", size_bytes=3, etag="900150983cd24fb0d6963f7d28e17f72", sequencer="", event_at=NOW
)
PART = Range(number=1, first=0, last=2)


def client(service: Any) -> Any:
    return boto3.client(
        service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x", config=CONFIG
    )


@pytest.fixture(scope="module")
def s3() -> Any:
    return client("s3")


@pytest.fixture(scope="module")
def dynamodb() -> Any:
    return client("dynamodb")


@pytest.fixture
def answers(s3: Any) -> Iterator[Stubber]:
    with Stubber(s3) as stubber:
        yield stubber


@pytest.fixture
def tables(dynamodb: Any) -> Iterator[Stubber]:
    with Stubber(dynamodb) as stubber:
        yield stubber


@pytest.fixture
def content(s3: Any) -> S3Content:
    return S3Content(s3, "content")


@pytest.fixture
def store(s3: Any) -> S3ArchiveStore:
    return S3ArchiveStore(s3, "archive", "content", "GLACIER")


def found(body: bytes = b"abc", **changed: Any) -> dict[str, Any]:
    return {
        "Body": StreamingBody(io.BytesIO(body), len(body)),
        "ContentLength": len(body),
        "ETag": f'"{VERSION.etag}"',
        "LastModified": NOW,
        **changed,
    }


MEANINGS: list[tuple[int, str, type[NeveError]]] = [
    (404, "NoSuchKey", SourceGone),
    (404, "NoSuchVersion", SourceGone),
    (404, "404", SourceGone),
    (405, "MethodNotAllowed", SourceGone),
    (412, "PreconditionFailed", SourceChanged),
    (403, "AccessDenied", SourceDenied),
    (403, "InvalidObjectState", SourceFrozen),
    (403, "403", SourceDenied),
    (400, "KMS.DisabledException", SourceDenied),
    (400, "KMS.NotFoundException", SourceDenied),
    (400, "InvalidArgument", SourceUnfit),
    (400, "KeyTooLongError", SourceUnfit),
    (500, "InternalError", Transient),
    (503, "SlowDown", Transient),
    (503, "ServiceUnavailable", Transient),
    (502, "502", Transient),
    (400, "RequestTimeout", Transient),
    (400, "ThrottlingException", Transient),
    (400, "ExpiredToken", Transient),
    (403, "RequestTimeTooSkewed", Transient),
    (403, "RequestExpired", Transient),
    (409, "OperationAborted", Transient),
]


@pytest.mark.parametrize(("status", "code", "meaning"), MEANINGS, ids=str)
def test_each_refusal_to_read_a_version_has_its_meaning(
    answers: Stubber, content: S3Content, status: int, code: str, meaning: type[NeveError]
) -> None:
    for operation in ("get_object", "head_object"):
        answers.add_client_error(operation, code, http_status_code=status)
    with pytest.raises(meaning):
        content.fetch(VERSION)
    with pytest.raises(meaning):
        content.describe(VERSION)


def copies(answers: Stubber, store: S3ArchiveStore, status: int, code: str) -> Iterator[Callable[[], object]]:
    """Both ways to copy, each of which S3 answers with this error."""
    answers.add_client_error("copy_object", code, http_status_code=status)
    if status in (409, 412):
        answers.add_client_error("head_object", "404", http_status_code=404)  # no, nothing stands at the destination
    yield lambda: store.copy("archives/1.object", VERSION, "SHA256")
    answers.add_client_error("upload_part_copy", code, http_status_code=status)
    yield lambda: store.copy_part("archives/1.object", "upload", VERSION, PART)


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [(403, "ObjectNotInActiveTierError", SourceFrozen), (403, "InvalidObjectState", SourceFrozen)]
    + [each for each in MEANINGS if issubclass(each[2], SourceGone | SourceChanged | Transient)],
    ids=str,
)
def test_a_copy_that_fails_for_its_source_says_so(
    answers: Stubber, store: S3ArchiveStore, status: int, code: str, meaning: type[NeveError]
) -> None:
    for copy in copies(answers, store, status, code):
        with pytest.raises(meaning):
            copy()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (status, code)
        for status, code, meaning in MEANINGS
        if issubclass(meaning, SourceDenied | SourceUnfit) and meaning is not SourceFrozen
    ],
    ids=str,
)
def test_a_copy_that_is_refused_although_its_source_was_described_is_no_fault_of_the_source(
    answers: Stubber, store: S3ArchiveStore, status: int, code: str
) -> None:
    """The archive bucket's policy, its key, or a setting is wrong: to park the source would hide that."""
    for copy in copies(answers, store, status, code):
        with pytest.raises(ClientError) as caught:
            copy()
        assert not isinstance(caught.value, NeveError)


def test_a_bucket_that_does_not_exist_is_no_fault_of_the_version(
    answers: Stubber, content: S3Content, store: S3ArchiveStore
) -> None:
    answers.add_client_error("get_object", "NoSuchBucket", http_status_code=404)
    with pytest.raises(ClientError, match="NoSuchBucket"):
        content.fetch(VERSION)
    for copy in copies(answers, store, 404, "NoSuchBucket"):
        with pytest.raises(ClientError, match="NoSuchBucket"):
            copy()


@pytest.mark.parametrize(
    "failure",
    [
        EndpointConnectionError(endpoint_url="https://s3"),
        ConnectTimeoutError(endpoint_url="https://s3"),
        ReadTimeoutError(endpoint_url="https://s3"),
        ResponseStreamingError(error="cut off"),
        IncompleteReadError(actual_bytes=1, expected_bytes=3),
        ProtocolError("cut off"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_connection_that_fails_while_the_bytes_come_is_tried_again(
    answers: Stubber, content: S3Content, failure: Exception
) -> None:
    answers.add_response("get_object", found(Body=Broken(failure)))
    with pytest.raises(Transient):
        content.fetch(VERSION)


class Broken:
    """A body that fails when it is read, and tells whether it was closed."""

    def __init__(self, failure: Exception) -> None:
        self.failure, self.closed = failure, False

    def read(self) -> bytes:
        raise self.failure

    def close(self) -> None:
        self.closed = True


def mismatch() -> Broken:
    return Broken(FlexibleChecksumError(error_msg="Expected checksum x did not match calculated checksum: y"))


def test_bytes_that_do_not_fit_their_checksum_are_read_once_more(answers: Stubber, content: S3Content) -> None:
    broken = mismatch()
    answers.add_response("get_object", found(Body=broken))
    answers.add_response("get_object", found())
    assert content.fetch(VERSION)[1] == b"abc"
    assert broken.closed, "its connection goes back to the pool"


def test_bytes_that_never_fit_their_checksum_are_damaged(answers: Stubber, content: S3Content) -> None:
    for _ in range(2):
        answers.add_response("get_object", found(Body=mismatch()))
    with pytest.raises(SourceDamaged):
        content.fetch(VERSION)
    answers.assert_no_pending_responses()


def test_a_manifest_that_never_fits_its_checksum_is_none(answers: Stubber, store: S3ArchiveStore) -> None:
    for _ in range(2):
        answers.add_response("get_object", {"Body": mismatch()})
    with pytest.raises(ManifestInvalid, match=r"manifests/0000000007\.json do not fit the checksum"):
        store.manifest(7)
    answers.assert_no_pending_responses()


def test_bytes_that_do_not_fit_their_etag_are_damaged(answers: Stubber, content: S3Content) -> None:
    for _ in range(2):
        answers.add_response("get_object", found(b"abd"))
    with pytest.raises(SourceDamaged):
        content.fetch(VERSION)


@pytest.mark.parametrize(
    "stated",
    [
        {"ETag": '"900150983cd24fb0d6963f7d28e17f72-2"'},
        {"ServerSideEncryption": "aws:kms"},
        {"ServerSideEncryption": "aws:kms:dsse"},
        {"SSECustomerAlgorithm": "AES256"},
    ],
    ids=str,
)
def test_an_etag_that_is_no_md5_is_not_compared(answers: Stubber, content: S3Content, stated: dict[str, Any]) -> None:
    answers.add_response("get_object", found(b"abd", **stated))
    assert content.fetch(VERSION)[1] == b"abd"


def test_a_size_that_differs_is_a_change_before_any_byte_is_read(answers: Stubber, content: S3Content) -> None:
    answers.add_response("get_object", found(ContentLength=10**12, Body=Broken(AssertionError("it was read"))))
    with pytest.raises(SourceChanged):
        content.fetch(VERSION)


def test_null_versions_are_pinned_by_their_etag_and_others_by_their_id(answers: Stubber, content: S3Content) -> None:
    expected = {"Bucket": "content", "Key": "a", "VersionId": "v1", "ChecksumMode": "ENABLED"}
    answers.add_response("get_object", found(), expected)
    content.fetch(VERSION)
    null = ObjectVersion(key="a", version_id="null", size_bytes=3, etag=VERSION.etag, sequencer="", event_at=NOW)
    answers.add_response("get_object", found(), expected | {"VersionId": "null", "IfMatch": f'"{VERSION.etag}"'})
    content.fetch(null)


def test_what_a_restore_needs_is_kept_and_tags_are_asked_for_only_where_there_are_some(
    answers: Stubber, content: S3Content
) -> None:
    stated: dict[str, Any] = {
        "ContentType": "image/png",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentDisposition": "attachment",
        "CacheControl": "max-age=1",
        "WebsiteRedirectLocation": "/b",
        "Metadata": {"owner": "ann"},
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "AES256",
        "ChecksumSHA256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        "ChecksumCRC32": "composite-2",
    }
    answers.add_response("get_object", found(**stated, TagCount=1))
    answers.add_response(
        "get_object_tagging",
        {"TagSet": [{"Key": "kind", "Value": "photo"}]},
        {"Bucket": "content", "Key": "a", "VersionId": "v1"},
    )
    source, _ = content.fetch(VERSION)
    assert (source.content_type, source.content_encoding, source.content_language) == ("image/png", "gzip", "de")
    assert (source.content_disposition, source.cache_control) == ("attachment", "max-age=1")
    assert source.website_redirect == "/b"
    assert (source.user_metadata, source.tags) == ({"owner": "ann"}, {"kind": "photo"})
    assert (source.storage_class, source.encryption) == ("STANDARD_IA", "AES256")
    assert source.checksums == {"SHA256": stated["ChecksumSHA256"]}
    answers.add_response("get_object", found())
    assert content.fetch(VERSION)[0].tags == {}


def test_composite_checksums_are_left_out(answers: Stubber, content: S3Content) -> None:
    answers.add_response("get_object", found(ChecksumType="COMPOSITE", ChecksumSHA256="x", ChecksumCRC64NVME="y"))
    assert content.fetch(VERSION)[0].checksums == {}


def test_metadata_that_no_manifest_can_hold_makes_a_source_unfit(answers: Stubber, content: S3Content) -> None:
    answers.add_response("get_object", found(Metadata={"owner": "\ud800"}))
    with pytest.raises(SourceUnfit):
        content.fetch(VERSION)


# Copies


def test_a_copy_refused_because_one_stands_is_told_from_one_whose_source_changed(
    answers: Stubber, store: S3ArchiveStore
) -> None:
    answers.add_client_error("copy_object", "PreconditionFailed", http_status_code=412)
    answers.add_response("head_object", {"ContentLength": 3, "ETag": '"e"'})
    assert store.copy("archives/1.object", VERSION, "SHA256") is False
    answers.add_client_error("copy_object", "PreconditionFailed", http_status_code=412)
    answers.add_client_error("head_object", "404", http_status_code=404)
    with pytest.raises(SourceChanged):
        store.copy("archives/1.object", VERSION, "SHA256")
    answers.add_client_error("copy_object", "ConditionalRequestConflict", http_status_code=409)
    answers.add_client_error("head_object", "404", http_status_code=404)
    with pytest.raises(Transient):
        store.copy("archives/1.object", VERSION, "SHA256")


def test_an_upload_that_is_gone_says_nothing_about_the_source(answers: Stubber, store: S3ArchiveStore) -> None:
    answers.add_client_error("upload_part_copy", "NoSuchUpload", http_status_code=404)
    with pytest.raises(Transient):
        store.copy_part("archives/1.object", "upload", VERSION, PART)
    answers.add_client_error("list_parts", "NoSuchUpload", http_status_code=404)
    assert store.uploaded("archives/1.object", "upload") is None
    answers.add_client_error("complete_multipart_upload", "NoSuchUpload", http_status_code=404)
    assert store.complete_upload("archives/1.object", "upload", {1: "e"}) is False


@pytest.mark.parametrize("status", [409, 412])
def test_completing_what_stands_is_refused(answers: Stubber, store: S3ArchiveStore, status: int) -> None:
    answers.add_client_error("complete_multipart_upload", "Refused", http_status_code=status)
    assert store.complete_upload("archives/1.object", "upload", {1: "e"}) is False


# Rows


def row(key: str) -> FileRow:
    return FileRow(
        key=key,
        version_id="v1",
        pin="v1",
        size_bytes=1,
        sha256="",
        md5="",
        last_modified=NOW,
        archive=1,
        number=0,
        offset_bytes=0,
    )


def statement_error(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": "refused"}, "TableName": "files"}


WRITTEN = {"TableName": "files"}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("neve.aws.files_table.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceeded", "ThrottlingError", "InternalServerError", "TransactionConflict"]
)
def test_rows_that_were_throttled_are_written_again_and_only_they(
    tables: Stubber, dynamodb: Any, slept: list[float], code: str
) -> None:
    tables.add_response("batch_execute_statement", {"Responses": [WRITTEN, statement_error(code), WRITTEN]})
    once = {"Statements": [ANY], "ReturnConsumedCapacity": "TOTAL"}
    tables.add_response("batch_execute_statement", {"Responses": [WRITTEN]}, once)
    assert DynamoFiles(dynamodb, "files").record([row("a"), row("b"), row("c")]) == []
    tables.assert_no_pending_responses()
    assert len(slept) == 1


def test_rows_that_stay_throttled_are_left_to_the_next_try(tables: Stubber, dynamodb: Any, slept: list[float]) -> None:
    for _ in range(TRIES):
        tables.add_response("batch_execute_statement", {"Responses": [statement_error("ThrottlingError")]})
    with pytest.raises(Transient):
        DynamoFiles(dynamodb, "files").record([row("a")])
    assert sum(slept) < 5


def test_a_row_that_is_refused_for_good_is_an_error(tables: Stubber, dynamodb: Any) -> None:
    tables.add_response("batch_execute_statement", {"Responses": [statement_error("ValidationError")]})
    with pytest.raises(NeveError, match="the row of 'a' was refused"):
        DynamoFiles(dynamodb, "files").record([row("a")])


def test_a_row_that_stood_when_it_was_written_again_is_no_duplicate(
    tables: Stubber, dynamodb: Any, slept: list[float]
) -> None:
    """The first answer was lost on its way: the row is this archive's own."""
    tables.add_response("batch_execute_statement", {"Responses": [statement_error("DuplicateItem")]})
    item = files_table._to_item(row("a"))
    tables.add_response("batch_get_item", {"Responses": {"files": [item]}})
    assert DynamoFiles(dynamodb, "files").record([row("a")]) == []


def test_keys_that_a_read_left_out_are_read_again(tables: Stubber, dynamodb: Any, slept: list[float]) -> None:
    item = files_table._to_item(row("a"))
    left = {"files": {"Keys": [{"shard": item["shard"], "sort": item["sort"]}]}}
    tables.add_response("batch_get_item", {"Responses": {}, "UnprocessedKeys": left})
    tables.add_response("batch_get_item", {"Responses": {"files": [item]}, "UnprocessedKeys": {}})
    assert DynamoFiles(dynamodb, "files").holders([VERSION]) == {("a", "v1"): 1}
    for _ in range(TRIES):
        tables.add_response("batch_get_item", {"Responses": {}, "UnprocessedKeys": left})
    with pytest.raises(Transient):
        DynamoFiles(dynamodb, "files").holders([VERSION])


def test_a_table_that_is_throttled_is_tried_again_later(tables: Stubber, dynamodb: Any) -> None:
    bundles = DynamoBundles(dynamodb, "archives")
    tables.add_client_error("get_item", "ProvisionedThroughputExceededException", http_status_code=400)
    with pytest.raises(Transient):
        bundles.lane(Lane.LIVE)
    tables.add_client_error("query", "InternalServerError", http_status_code=500)
    with pytest.raises(Transient):
        bundles.parts("b")

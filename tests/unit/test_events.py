"""What comes in on the collect queue: S3's events, neve's own announcements, and everything else."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.events import Announcement, announcements, parse
from neve.domain.version import ObjectVersion, padded_sequencer
from neve.errors import EventInvalid
from tests.bad_keys import BAD_KEYS

BUCKET = "content"
MOMENT = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=250)


def a_record(key: Any = "a", **changed: Any) -> dict[str, Any]:
    """A record as S3 sends it; `changed` sets fields of its object."""
    described = {
        "key": quote_plus(key) if isinstance(key, str) else key,
        "size": 5,
        "eTag": "abc",
        "versionId": "v1",
        "sequencer": "0A",
    } | changed
    return {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "eventTime": "2026-09-01T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": described},
    }


def body(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


def only(message: str) -> ObjectVersion:
    announcement = parse(message, BUCKET)
    assert not announcement.problems
    [version] = announcement.versions
    return version


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of `record` that lacks one field."""
    copy: dict[str, Any] = json.loads(json.dumps(record))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


def test_a_record_of_s3_announces_its_version() -> None:
    assert only(body(a_record("photos/1 2.jpg"))) == ObjectVersion(
        key="photos/1 2.jpg",
        version_id="v1",
        size_bytes=5,
        etag="abc",
        sequencer=padded_sequencer("0A"),
        event_at=MOMENT,
    )


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_keys_that_are_hard_to_write_down_come_through_s3s_form_encoding(key: str) -> None:
    """Seen elsewhere: keys used without decoding lose every file with a space, a plus or an umlaut."""
    assert only(body(a_record(key))).key == key


@given(TEXT)
def test_every_key_comes_through_s3s_form_encoding(key: str) -> None:
    assert only(body(a_record(key))).key == key


@pytest.mark.parametrize("encoded", ["%ff", "%F0%9F", "\ud800", "", "k" * 1025, "%ED%A0%80"], ids=ascii)
def test_a_key_that_is_none_is_a_problem(encoded: str) -> None:
    record = a_record()
    record["s3"]["object"]["key"] = encoded
    announcement = parse(body(record), BUCKET)
    assert (announcement.versions, len(announcement.problems)) == ((), 1)


def test_without_a_version_id_it_is_the_null_version() -> None:
    version = only(body(without(a_record(), "s3", "object", "versionId")))
    assert (version.version_id, version.pin) == ("null", "null-abc")


def test_the_etag_loses_its_quotes() -> None:
    assert only(body(a_record(eTag='"abc"'))).etag == "abc"


def test_without_a_sequencer_it_is_unknown() -> None:
    assert only(body(without(a_record(), "s3", "object", "sequencer"))).sequencer == ""


def test_unknown_fields_are_ignored() -> None:
    record = a_record(colour="blue") | {"glacierEventData": {"x": 1}, "new": [None]}
    record["s3"]["bucket"]["arn"] = "arn:aws:s3:::content"
    assert only(json.dumps({"Records": [record], "more": 1})).key == "a"


@pytest.mark.parametrize("event_version", ["2.0", "2.6", "2.99", "2"])
def test_only_the_major_event_version_counts(event_version: str) -> None:
    assert only(body(a_record() | {"eventVersion": event_version})).key == "a"


@pytest.mark.parametrize(
    "name", ["ObjectCreated:Put", "ObjectCreated:CompleteMultipartUpload", "s3:ObjectCreated:Copy"]
)
def test_every_way_to_create_an_object_counts(name: str) -> None:
    assert only(body(a_record() | {"eventName": name})).key == "a"


@pytest.mark.parametrize(
    "name", ["ObjectRemoved:Delete", "ObjectRestore:Completed", "LifecycleTransition", "ObjectTagging:Put"]
)
def test_other_events_of_the_bucket_are_ignored(name: str) -> None:
    assert parse(body(a_record() | {"eventName": name}), BUCKET) == Announcement(ignored=1)


def test_files_of_drills_are_ignored() -> None:
    message = body(a_record(".neve/drill/1/a"), a_record(".neve/drills"))
    assert parse(message, BUCKET).ignored == 1
    assert parse(message, BUCKET, without=()).ignored == 0


def test_the_test_event_that_every_queue_gets_first_is_ignored() -> None:
    message = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-09-01T12:00:00Z", "Bucket": BUCKET}
    assert parse(json.dumps(message), BUCKET) == Announcement(ignored=1)


SIZES: list[Any] = [-1, 10**40, float("inf"), float("nan"), "many", None, [], 0.5]
NO_KEYS: list[Any] = [None, 5, [], ""]
UNUSABLE: list[Any] = [
    None,
    7,
    "record",
    [],
    {},
    a_record() | {"eventVersion": "3.0"},
    a_record() | {"eventVersion": "\ud800"},
    a_record() | {"eventVersion": 20},
    a_record() | {"s3": None},
    a_record() | {"s3": {"bucket": {"name": "other"}, "object": a_record()["s3"]["object"]}},
    a_record() | {"s3": {"bucket": {"name": {}}, "object": a_record()["s3"]["object"]}},
    a_record() | {"eventTime": "yesterday"},
    a_record() | {"eventTime": "2026-09-01T12:00:00"},
    a_record() | {"eventTime": None},
    *(a_record(size=size) for size in SIZES),
    *(a_record(key=key) for key in NO_KEYS),
    *(a_record(eTag=etag) for etag in ("", '""', "e" * 200, "\ud800")),
    a_record(sequencer="1" * 33),
    *(a_record(versionId=version_id) for version_id in ("v" * 200, "\ud800", "v\0")),
    *(without(a_record(), name) for name in ("eventVersion", "eventTime", "eventName", "s3")),
    *(without(a_record(), "s3", "object", name) for name in ("key", "size", "eTag")),
    without(a_record(), "s3", "bucket"),
]


@pytest.mark.parametrize("record", UNUSABLE, ids=lambda record: ascii(record)[-60:])
def test_a_record_that_cannot_be_used_is_named_and_hides_no_neighbour(record: Any) -> None:
    announcement = parse(body(a_record("before"), record, a_record("after")), BUCKET)
    assert [version.key for version in announcement.versions] == ["before", "after"]
    [problem] = announcement.problems
    assert problem.startswith("record 1: ")
    assert problem.encode(), "it can be written down"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "{",
        "null",
        "7",
        "[]",
        '"Records"',
        "{}",
        '{"Records": null}',
        '{"Records": {}}',
        '{"format": "neve-versions"}',
        '{"format": "neve-versions", "version": 2, "bucket": "content", "versions": []}',
        '{"format": "neve-versions", "version": 1, "bucket": "other", "versions": []}',
        '{"format": "neve-versions", "version": 1, "bucket": "content"}',
        '{"format": "neve-versions", "version": 1, "bucket": "content", "versions": [["a"]]}',
        '{"format": "neve-versions", "version": 1, "bucket": "content", "versions": 7}',
        (
            '{"format": "neve-versions", "version": 1, "bucket": "content", '
            '"versions": [["a", "v", 1e999, "e", "", "2026-09-01T12:00:00Z"]]}'
        ),
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        "\ufeff{}",
    ],
    ids=lambda message: message[:80],
)
def test_a_message_that_does_not_belong_here_is_refused(message: str) -> None:
    with pytest.raises(EventInvalid) as caught:
        parse(message, BUCKET)
    assert str(caught.value).encode()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([BUCKET, "2.1", "ObjectCreated:Put", "neve-versions"])
)
NAMES = st.sampled_from(["Records", "s3", "object", "key", "size", "versions", "format"]) | st.text()


def inside(what: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return what | st.lists(what, max_size=3) | st.dictionaries(NAMES, what, max_size=3)


JSON = inside(inside(LEAVES))


@given(JSON)
def test_no_json_breaks_the_reading_of_a_message(message: object) -> None:
    with contextlib.suppress(EventInvalid):
        parse(json.dumps(message), BUCKET)


@given(st.sampled_from(["key", "size", "eTag", "versionId", "sequencer"]), JSON)
def test_no_value_of_a_field_breaks_the_reading_of_its_neighbours(name: str, value: object) -> None:
    announcement = parse(
        body(
            a_record() | {"s3": {"bucket": {"name": BUCKET}, "object": a_record()["s3"]["object"] | {name: value}}},
            a_record("after"),
        ),
        BUCKET,
    )
    assert announcement.versions[-1].key == "after"


VERSIONS = st.lists(
    st.builds(
        ObjectVersion,
        key=TEXT | st.sampled_from(BAD_KEYS),
        version_id=st.sampled_from(["null", "v1", "v" * 32]),
        size_bytes=st.integers(0, 2**40),
        etag=st.sampled_from(["abc", "d41d8cd98f00b204e9800998ecf8427e-2"]),
        sequencer=st.just(""),
        event_at=st.just(MOMENT),
    ),
    max_size=10,
)


@given(VERSIONS)
def test_what_neve_announces_it_reads_back(versions: list[ObjectVersion]) -> None:
    announced = [version for message in announcements(BUCKET, versions) for version in parse(message, BUCKET).versions]
    assert announced == versions


def test_announcements_stay_below_the_1_mib_of_a_message_and_say_everything() -> None:
    longest = [
        ObjectVersion(
            key=f"{number:04}" + "\x01" * 1020,
            version_id="v" * 128,
            size_bytes=2**40,
            etag="e" * 128,
            sequencer=padded_sequencer("F" * 32),
            event_at=MOMENT,
        )
        for number in range(400)
    ]
    messages = list(announcements(BUCKET, longest))
    assert len(messages) > 1
    assert max(len(message.encode()) for message in messages) < 1024 * 1024
    assert [version for message in messages for version in parse(message, BUCKET).versions] == longest


def test_nothing_to_announce_is_no_message() -> None:
    assert list(announcements(BUCKET, [])) == []

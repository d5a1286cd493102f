"""Restores: chunks and messages, what is refused of them, and what a job says of itself."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.manifest import archive_key, manifest_key
from neve.domain.restore import (
    CHUNK_BYTES,
    CHUNK_ITEMS,
    DESTINATION_BYTES,
    GOOD,
    Ending,
    Item,
    Job,
    JobState,
    Kind,
    Request,
    Share,
    Thawed,
    ThawRequest,
    Wanted,
    bucket_of,
    chunks,
    key_of,
    parse_plan,
    parse_thawed,
    render_request,
    render_restored,
    render_thaw_request,
    render_thawed,
    summary,
)
from neve.domain.thaw import Need, Tier
from neve.errors import EventInvalid
from tests.bad_keys import BAD_KEYS

BUCKET = "archives"
NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
NEED = Need(tier=Tier.BULK, days=3)
SQS_BYTES = 1024**2

WANTED = Wanted(key="a b", pin="v1", destination="s3://content/a b")
REQUEST = Request(
    job="20260901T120000Z-0123abcd",
    chunk=2,
    chunks=3,
    created_at=NOW,
    need=NEED,
    overwrite=False,
    estimate_usd=1.25,
    items=(WANTED,),
)
JOB = Job(id="20260901T120000Z-0123abcd", created_at=NOW, need=NEED, overwrite=False, chunks=2)


def texts(limit_bytes: int, *, least: int = 0) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"])
    return st.text(characters, min_size=least, max_size=60).filter(lambda text: len(text.encode()) <= limit_bytes)


KEYS = st.sampled_from(BAD_KEYS) | texts(1024, least=1)
DESTINATIONS = st.one_of(
    KEYS.map(lambda key: f"s3://bucket/{key}"),
    KEYS.map(lambda key: f"file:/{key}"),
    st.just("file:/" + "\x01" * (DESTINATION_BYTES - len("file:/"))),
)
ITEMS = st.builds(Wanted, key=KEYS, pin=texts(128), destination=DESTINATIONS)


# -- Chunks -----------------------------------------------------------------------------------------------------------


@given(few=st.lists(ITEMS, min_size=1, max_size=5), times=st.sampled_from([1, 2, 100, 101, 260]))
@settings(max_examples=40, deadline=None)
def test_chunks_keep_every_line_in_its_order_and_fit_into_a_message(few: list[Wanted], times: int) -> None:
    wanted = few * times
    portions = list(chunks(wanted))
    assert [each for portion in portions for each in portion] == wanted
    for portion in portions:
        assert 1 <= len(portion) <= CHUNK_ITEMS
        body = render_request(replace(REQUEST, items=tuple(portion)))
        assert len(body.encode()) <= CHUNK_BYTES + 4 * CHUNK_ITEMS + 1_000 < SQS_BYTES
    for portion, following in pairwise(portions):
        fuller = render_request(replace(REQUEST, items=(*portion, following[0])))
        assert len(portion) == CHUNK_ITEMS or len(fuller) > CHUNK_BYTES, "no chunk ends before it is full"


def test_chunks_are_made_as_they_are_asked_for() -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield WANTED

    assert len(next(chunks(endless()))) == CHUNK_ITEMS
    assert len(taken) == CHUNK_ITEMS + 1


def test_nothing_wanted_is_no_chunk() -> None:
    assert list(chunks([])) == []


# -- Requests ---------------------------------------------------------------------------------------------------------


REQUESTS = st.builds(
    Request,
    job=st.just(REQUEST.job),
    chunk=st.integers(1, 10),
    chunks=st.integers(10, 999_999),
    created_at=st.datetimes(timezones=st.just(UTC)),
    need=st.builds(Need, tier=st.sampled_from(list(Tier)), days=st.integers(1, 365)),
    overwrite=st.booleans(),
    estimate_usd=st.floats(0, 1e9),
    items=st.lists(ITEMS, min_size=1, max_size=8).map(lambda items: tuple(next(chunks(items)))),
)


@given(request=REQUESTS)
@settings(max_examples=80, deadline=None)
def test_what_a_request_says_is_read_back_whatever_the_keys(request: Request) -> None:
    body = render_request(request)
    assert body.isascii()
    assert parse_plan(body) == request


@pytest.mark.parametrize("key", BAD_KEYS)
def test_every_bad_key_goes_through_a_request(key: str) -> None:
    request = replace(REQUEST, items=(Wanted(key=key, pin="", destination=f"s3://content/{key}"),))
    assert parse_plan(render_request(request)) == request


def test_a_request_makes_its_job_known() -> None:
    job = REQUEST.opened()
    assert (job.id, job.created_at, job.need, job.chunks) == (REQUEST.job, NOW, NEED, 3)
    assert (job.state, job.files, job.planned_chunks, job.estimate_usd) == (JobState.RUNNING, 0, 0, 1.25)


@given(archive=st.integers(1, 10**12), tier=st.sampled_from(list(Tier)), days=st.integers(1, 365))
def test_what_the_sweep_asks_for_is_read_back(archive: int, tier: Tier, days: int) -> None:
    request = ThawRequest(archive=archive, need=Need(tier=tier, days=days))
    assert parse_plan(render_thaw_request(request)) == request


ITEM = ["a", "v1", "s3://b/k"]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("format", "neve-extract", "format 'neve-extract', expected neve-restore or neve-thaw"),
        ("format", None, "format None"),
        ("version", 2, "neve-restore of version 2, this code reads version 1"),
        ("days", 0, "days must be 1 to 365, not 0"),
        ("days", 366, "days must be 1 to 365, not 366"),
        ("days", 1.5, "TypeError"),
        ("days", "1", "TypeError"),
        ("tier", "instant", "'instant' is not a valid Tier"),
        ("chunk", 4, "chunk 4 of 3"),
        ("chunk", 0, "chunk 0 of 3"),
        ("chunks", 1_000_000, "chunk 2 of 1000000"),
        ("chunk", "2", "TypeError"),
        ("job", "", "a job's id has 1 to 64"),
        ("job", "j" * 65, "a job's id has 1 to 64"),
        ("job", "j\n", "a job's id has 1 to 64"),
        ("job", "\u00e9", "a job's id has 1 to 64"),
        ("job", 7, "a job's id has 1 to 64"),
        ("job", "a#b", "a job's id has no #"),
        ("created_at", "2026-09-01T12:00:00", "created_at must name its time zone"),
        ("created_at", "yesterday", "Invalid isoformat string"),
        ("created_at", 7, "TypeError"),
        ("estimate_usd", "much", "could not convert"),
        ("estimate_usd", None, "TypeError"),
        ("estimate_usd", float("nan"), "an estimate of nan USD"),
        ("estimate_usd", float("inf"), "an estimate of inf USD"),
        ("estimate_usd", 10**400, "OverflowError"),
        ("items", [], "a chunk has 1 to 500 items in 180000 bytes, this one has 0"),
        ("items", [ITEM] * 501, "a chunk has 1 to 500 items in 180000 bytes, this one has 501"),
        ("items", [["k" * 1000, "v1", f"s3://b/{number}"] for number in range(180)], "this one has 180 in 18"),
        ("items", None, "TypeError"),
        ("items", 7, "TypeError"),
        ("items", [["a", "v1"]], "not enough values"),
        ("items", ["a"], "not enough values"),
        ("items", [[*ITEM, "x"]], "too many values"),
        ("items", [[1, "v1", "s3://b/k"]], "key, version and destination must be text"),
        ("items", [["a", None, "s3://b/k"]], "key, version and destination must be text"),
        ("items", [["a", "v1", None]], "key, version and destination must be text"),
        ("items", [["", "v1", "s3://b/k"]], "a key has 1 to 1024 bytes: ''"),
        ("items", [["k" * 1025, "v1", "s3://b/k"]], "a key has 1 to 1024 bytes"),
        ("items", [["\u00e9" * 513, "v1", "s3://b/k"]], "a key has 1 to 1024 bytes"),
        ("items", [["\ud800", "v1", "s3://b/k"]], "surrogates not allowed"),
        ("items", [["a", "v" * 129, "s3://b/k"]], "no version id of up to 128 bytes"),
        ("items", [["a", "v1", ""]], "no destination: ''"),
        ("items", [["a", "v1", "http://x/y"]], "no destination: 'http://x/y'"),
        ("items", [["a", "v1", "file:relative"]], "no destination: 'file:relative'"),
        ("items", [["a", "v1", "s3://" + "d" * DESTINATION_BYTES]], "no destination"),
    ],
)
def test_a_request_that_is_wrong_is_refused_by_name(field: str, value: object, why: str) -> None:
    message = json.loads(render_request(REQUEST)) | {field: value}
    with pytest.raises(EventInvalid) as refused:
        parse_plan(json.dumps(message))
    assert why in str(refused.value)


@pytest.mark.parametrize("field", sorted(json.loads(render_request(REQUEST))))
def test_a_request_that_lacks_a_field_is_refused(field: str) -> None:
    message = json.loads(render_request(REQUEST))
    del message[field]
    with pytest.raises(EventInvalid):
        parse_plan(json.dumps(message))


@pytest.mark.parametrize("overwrite", [None, 0, 1, "true"])
def test_nothing_but_true_lets_anything_be_overwritten(overwrite: object) -> None:
    request = parse_plan(json.dumps(json.loads(render_request(REQUEST)) | {"overwrite": overwrite}))
    assert isinstance(request, Request)
    assert request.overwrite is False


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"archive": 0}, "archives are numbered from 1, this is 0"),
        ({"archive": "17"}, "TypeError"),
        ({"days": 0}, "days must be 1 to 365"),
        ({"version": None}, "neve-thaw of version None"),
    ],
)
def test_a_wish_for_a_thaw_that_is_wrong_is_refused(changed: dict[str, object], why: str) -> None:
    message = json.loads(render_thaw_request(ThawRequest(archive=17, need=NEED))) | changed
    with pytest.raises(EventInvalid, match=why):
        parse_plan(json.dumps(message))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("9" * 5_000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "a JSON object was expected, this is a list"),
        ("null", "a JSON object was expected, this is a NoneType"),
    ],
)
def test_what_is_no_message_is_refused_wherever_it_comes_in(body: str, why: str) -> None:
    with pytest.raises(EventInvalid, match=why):
        parse_plan(body)
    with pytest.raises(EventInvalid, match=why):
        parse_thawed(body, BUCKET)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), value=JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_field_a_message_is_read_or_refused_and_nothing_else(
    data: st.DataObject, value: Any
) -> None:
    plan = data.draw(st.sampled_from([render_request(REQUEST), render_thaw_request(ThawRequest(archive=1, need=NEED))]))
    message = json.loads(plan)
    message[data.draw(st.sampled_from(sorted(message)))] = value
    with suppress(EventInvalid):
        parse_plan(json.dumps(message))
    event = json.loads(render_thawed(1)) if data.draw(st.booleans()) else json.loads(events(completed()))
    place: Any = event
    while True:
        names = sorted(place) if isinstance(place, dict) else range(len(place))
        name = data.draw(st.sampled_from(list(names)))
        if not isinstance(place[name], dict | list) or data.draw(st.booleans()):
            place[name] = value
            break
        place = place[name]
    with suppress(EventInvalid):
        parse_thawed(json.dumps(event), BUCKET)


# -- What Extract is told ---------------------------------------------------------------------------------------------


def completed(key: str = archive_key(17, "tar"), **changed: Any) -> dict[str, Any]:
    """A record as S3 sends it (S3 user guide, "Event message structure")."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-09-01T12:00:00.000Z",
        "eventName": "ObjectRestore:Completed",
        "userIdentity": {"principalId": "AmazonCustomer:A1EXAMPLE"},
        "requestParameters": {"sourceIPAddress": "s3.amazonaws.com"},
        "responseElements": {"x-amz-request-id": "6E5A", "x-amz-id-2": "Tt/6+="},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "thawed",
            "bucket": {"name": BUCKET, "ownerIdentity": {"principalId": "A1"}, "arn": f"arn:aws:s3:::{BUCKET}"},
            "object": {"key": key, "size": 1637, "eTag": "6d3e", "versionId": "rHKK9", "sequencer": "0065C3D1"},
        },
        "glacierEventData": {
            "restoreEventData": {
                "lifecycleRestorationExpiryTime": "2026-09-03T00:00:00.000Z",
                "lifecycleRestoreStorageClass": "GLACIER",
            }
        },
    } | changed


def events(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


MIDNIGHT = datetime(2026, 9, 3, tzinfo=UTC)


def test_the_event_of_a_thaw_names_the_archive_and_when_its_copy_expires() -> None:
    assert parse_thawed(events(completed()), BUCKET) == [Thawed(archive=17, until=MIDNIGHT)]
    large = completed(archive_key(10**11, "object"))
    assert parse_thawed(events(large, completed()), BUCKET) == [
        Thawed(archive=10**11, until=MIDNIGHT),
        Thawed(archive=17, until=MIDNIGHT),
    ]


@pytest.mark.parametrize("name", ["ObjectRestore:Completed", "s3:ObjectRestore:Completed"])
@pytest.mark.parametrize("version", ["2.0", "2.3", "2.6"])
@pytest.mark.parametrize("key", ["archives/0000000017.tar", quote_plus("archives/0000000017.tar")])
def test_the_event_is_known_by_whatever_way_it_is_written(name: str, version: str, key: str) -> None:
    record = completed(key, eventName=name, eventVersion=version)
    assert parse_thawed(events(record), BUCKET) == [Thawed(archive=17, until=MIDNIGHT)]


@pytest.mark.parametrize("name", ["ObjectRestore:Post", "ObjectRestore:Delete", "ObjectCreated:Put"])
def test_other_events_are_passed_over(name: str) -> None:
    other = completed(eventName=name)
    del other["glacierEventData"]
    assert parse_thawed(events(other), BUCKET) == []


@pytest.mark.parametrize("key", [manifest_key(17), "archives/17.tar", "something+else", "archives%2F0000000017.tar%00"])
def test_what_is_thawed_and_no_archive_is_passed_over(key: str) -> None:
    assert parse_thawed(events(completed(key)), BUCKET) == []


def test_s3s_test_event_is_passed_over() -> None:
    assert parse_thawed(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}), BUCKET) == []


@given(st.integers(1, 10**12))
def test_neves_own_word_names_the_archive_and_no_end(archive: int) -> None:
    assert parse_thawed(render_thawed(archive), BUCKET) == [Thawed(archive=archive)]


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of `record` that lacks one field."""
    copy: dict[str, Any] = json.loads(json.dumps(record))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


def ending_at(text: Any) -> dict[str, Any]:
    return completed(glacierEventData={"restoreEventData": {"lifecycleRestorationExpiryTime": text}})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{}", "neither an S3 event"),
        ('{"Records": {}}', "neither an S3 event"),
        ('{"Type": "Notification", "Message": "{}"}', "neither an S3 event"),
        ('{"format": "neve-extract", "version": 2, "archive": 1}', "neve-extract of version 2"),
        ('{"format": "neve-extract", "version": 1}', "KeyError"),
        ('{"format": "neve-extract", "version": 1, "archive": -1}', "numbered from 1, this is -1"),
        (events(7), "TypeError"),
        (events(completed(eventVersion="3.0")), "event version '3.0', this code reads 2.x"),
        (events(completed(s3={"bucket": {"name": "b"}})), "bucket 'b', this stack reads 'archives'"),
        (events(completed("%FF")), "UnicodeDecodeError"),
        (events(without(completed(), "eventVersion")), "eventVersion"),
        (events(without(completed(), "eventName")), "eventName"),
        (events(without(completed(), "s3", "object", "key")), "key"),
        (events(without(completed(), "glacierEventData")), "glacierEventData"),
        (events(ending_at("2026-09-03T00:00:00")), "a time without a zone: 2026-09-03T00:00:00"),
        (events(ending_at(None)), "Invalid isoformat string"),
    ],
)
def test_a_word_of_a_thaw_that_is_wrong_is_refused_by_name(body: str, why: str) -> None:
    with pytest.raises(EventInvalid) as refused:
        parse_thawed(body, BUCKET)
    assert why in str(refused.value)


# -- Items, shares and jobs -------------------------------------------------------------------------------------------


def test_a_local_folder_is_served_by_the_command_and_everything_else_by_extract() -> None:
    assert WANTED.kind is Kind.S3
    assert replace(WANTED, destination="file:/tmp/x").kind is Kind.LOCAL


@given(key=KEYS)
def test_a_destination_is_a_bucket_and_a_key(key: str) -> None:
    assert (bucket_of(f"s3://bucket/{key}"), key_of(f"s3://bucket/{key}")) == ("bucket", key)
    assert bucket_of(f"file:/{key}") == ""


def share(chunk: int, archive: int, kind: Kind = Kind.S3) -> Share:
    item = Item(key="a", pin="v1", number=0, size_bytes=1, destination="s3://b/k")
    return Share(
        job="j",
        chunk=chunk,
        archive=archive,
        kind=kind,
        need=NEED,
        overwrite=False,
        items=(item,),
        files=1,
        size_bytes=1,
    )


def test_shares_of_a_job_have_different_ids_that_sort_by_chunk() -> None:
    in_order = [share(2, 10**9), share(2, 10**9, Kind.LOCAL), share(10, 3), share(999_999, 1)]
    ids = [each.id for each in in_order]
    assert len(set(ids)) == len(ids)
    assert sorted(ids, key=lambda each: each.split("#")[0]) == ids
    assert ids[0] == "000002#1000000000#s3"


def test_a_job_is_complete_when_all_its_chunks_have_come_and_all_shares_have_ended() -> None:
    assert not JOB.planned
    assert not replace(JOB, shares=1, ended_shares=1, planned_chunks=1).complete, "another chunk is to come"
    assert not replace(JOB, shares=2, ended_shares=1, planned_chunks=2).complete
    assert replace(JOB, shares=2, ended_shares=2, planned_chunks=2).complete
    assert replace(JOB, planned_chunks=2).complete, "nothing of it lies in an archive"


@pytest.mark.parametrize("ending", list(Ending))
def test_a_job_is_good_if_every_file_is_where_it_was_wanted(ending: Ending) -> None:
    job = replace(JOB, ended={Ending.RESTORED: 2, ending: 1})
    assert job.good == (ending in (Ending.RESTORED, Ending.SKIPPED))
    assert replace(JOB, ended={ending: 0}).good
    assert {Ending.RESTORED, Ending.SKIPPED} == GOOD


def test_a_job_whose_chunks_are_missing_is_not_good() -> None:
    given_up = replace(JOB, given_up_at=NOW, planned_chunks=1, ended={Ending.RESTORED: 2})
    assert given_up.missing_chunks == 1
    assert not given_up.good
    assert given_up.complete, "of what came, everything has ended"
    assert not replace(given_up, shares=1).complete


def test_a_finished_job_whose_files_have_not_all_ended_is_not_good() -> None:
    job = replace(JOB, planned_chunks=2, files=3, ended={Ending.RESTORED: 2})
    assert job.good, "so far"
    assert not replace(job, state=JobState.FINISHED).good


def test_what_the_topic_is_told_has_the_totals_and_how_many_ended_in_which_way() -> None:
    job = replace(
        JOB,
        state=JobState.FINISHED,
        planned_chunks=2,
        files=6,
        size_bytes=600,
        shares=2,
        ended_shares=2,
        ended={Ending.RESTORED: 4, Ending.CONFLICT: 2, Ending.DAMAGED: 0},
        restored_bytes=400,
        estimate_usd=0.5,
        finished_at=NOW + timedelta(hours=5),
    )
    told = json.loads(render_restored(job))
    assert told == {
        "format": "neve-restored",
        "version": 1,
        "job": job.id,
        "state": "finished",
        "created_at": "2026-09-01T12:00:00+00:00",
        "finished_at": "2026-09-01T17:00:00+00:00",
        "cancelled_at": None,
        "tier": "bulk",
        "days": 3,
        "overwrite": False,
        "estimate_usd": 0.5,
        "planned": True,
        "missing_chunks": 0,
        "files": 6,
        "bytes": 600,
        "ended_files": 6,
        "restored_bytes": 400,
        "endings": {"restored": 4, "conflict": 2},
    }
    assert job.ended_files == 6
    running = summary(replace(JOB, cancelled_at=NOW))
    assert (running["finished_at"], running["cancelled_at"]) == (None, "2026-09-01T12:00:00+00:00")
    assert running["endings"] == {}

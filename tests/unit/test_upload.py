"""The rules of uploads: where they go, what counts as their copy, what a pointer covers, and their messages."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from neve.domain.layout import Layout, application_key, content_key, keys_at
from neve.domain.manifest import Source
from neve.domain.parked import Parked, Reason
from neve.domain.pointer import InContent, OnHost, covers, names
from neve.domain.upload import (
    LOOK_BYTES,
    destination,
    is_copy,
    needs_look,
    parse_release,
    pointer_to,
    render_release,
    require_provable,
    version_named_by,
)
from neve.domain.version import NULL_VERSION, ObjectVersion, padded_sequencer
from neve.errors import EventInvalid, SourceUnfit, SourceUnproven
from tests.bad_keys import BAD_KEYS

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
UPLOAD = ObjectVersion(
    key="a", version_id="v2", size_bytes=3, etag="e2", sequencer=padded_sequencer("2A"), event_at=NOW
)
SOURCE = Source(
    key="a", version_id="v2", size_bytes=3, etag="e2", last_modified=NOW, checksums={"SHA256": "x"}, tags={"a": "b"}
)
POINTER = pointer_to(UPLOAD, content_key="a", content_version="c1", after=None, now=NOW)


# The layout


@pytest.mark.parametrize("key", [*BAD_KEYS, "a", "a/b", "k" * 1018], ids=ascii)
@pytest.mark.parametrize("layout", Layout)
def test_a_layout_leads_there_and_back(key: str, layout: Layout) -> None:
    if len(key.encode()) <= 1018:
        assert application_key(content_key(key, layout), layout) == key


@pytest.mark.parametrize("stored", ["a", "00/00/", "00/00/a"])
def test_what_the_hashed_layout_would_not_put_there_is_nobodys_file(stored: str) -> None:
    assert application_key(stored, Layout.HASHED) is None


def test_keys_of_the_two_layouts_can_meet() -> None:
    assert keys_at("a/b") == {"a/b"}
    assert keys_at("c1/4c/a/b") == {"a/b", "c1/4c/a/b"}


def test_an_upload_goes_under_its_own_key_or_one_made_of_its_hash() -> None:
    assert destination("a/b", Layout.AS_IS) == "a/b"
    assert destination("a/b", Layout.HASHED) == "c1/4c/a/b"


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("key", [".neve/", ".neve/drill/a"])
def test_what_is_neves_own_is_no_place_for_an_upload(key: str, layout: Layout) -> None:
    with pytest.raises(SourceUnfit, match=r"\.neve/"):
        destination(key, layout)


def test_a_key_that_the_layout_makes_too_long_is_unfit() -> None:
    assert destination("k" * 1024, Layout.AS_IS)
    with pytest.raises(SourceUnfit, match="1018 bytes"):
        destination("k" * 1019, Layout.HASHED)


# Pointers


@pytest.mark.parametrize(
    ("version_id", "sequencer", "named", "covered"),
    [
        ("v2", "2A", True, True),
        ("v2", "", True, True),
        ("v1", "29", False, True),
        ("v1", "9", False, True),
        ("v3", "2B", False, False),
        ("v3", "100", False, False),
        ("v3", "", False, False),
        (NULL_VERSION, "", False, False),
    ],
)
def test_a_pointer_covers_its_upload_and_those_before(
    version_id: str, sequencer: str, named: bool, covered: bool
) -> None:
    asked = {"upload_version": version_id, "sequencer": padded_sequencer(sequencer)}
    assert names(POINTER, **asked) is named
    assert covers(POINTER, **asked) is covered


@pytest.mark.parametrize(
    ("sequencer", "named", "covered"),
    [("2A", True, True), ("29", False, True), ("2B", False, False), ("", False, False)],
)
def test_without_version_ids_only_sequencers_tell_uploads_apart(sequencer: str, named: bool, covered: bool) -> None:
    pointer = replace(POINTER, upload_version=NULL_VERSION)
    asked = {"upload_version": NULL_VERSION, "sequencer": padded_sequencer(sequencer)}
    assert (names(pointer, **asked), covers(pointer, **asked)) == (named, covered)


@pytest.mark.parametrize("pointer", [None, OnHost(key="a", url="https://host/a", since=NOW)])
def test_a_file_that_is_not_in_the_content_bucket_covers_no_upload(pointer: OnHost | None) -> None:
    assert not names(pointer, upload_version="v2", sequencer="2")
    assert not covers(pointer, upload_version="v2", sequencer="2")


def test_a_pointer_says_what_was_uploaded_and_where_its_copy_is() -> None:
    made = InContent(
        key="a",
        content_key="a",
        content_version="c1",
        upload_version="v2",
        sequencer=UPLOAD.sequencer,
        size_bytes=3,
        etag="e2",
        since=NOW,
    )
    assert made == POINTER
    named = version_named_by(replace(POINTER, content_key="b"))
    assert (named.key, named.version_id, named.size_bytes) == ("b", "c1", 3)


def test_an_upload_whose_sequencer_nobody_knows_takes_that_of_the_one_before() -> None:
    nameless = replace(UPLOAD, sequencer="")
    made = pointer_to(nameless, content_key="a", content_version="c2", after=POINTER, now=NOW)
    assert made.sequencer == UPLOAD.sequencer
    assert not pointer_to(nameless, content_key="a", content_version="c2", after=None, now=NOW).sequencer


# Copies


def test_what_is_large_or_was_put_in_parts_is_looked_at_first() -> None:
    assert not needs_look(UPLOAD)
    assert needs_look(replace(UPLOAD, size_bytes=LOOK_BYTES))
    assert needs_look(replace(UPLOAD, etag="e-2"))


def test_only_what_is_proved_and_described_alike_is_a_copy() -> None:
    copy = replace(
        SOURCE, version_id="c1", etag="other", last_modified=NOW.replace(hour=13), storage_class="GLACIER_IR"
    )
    assert is_copy(SOURCE, copy)
    changes: list[dict[str, Any]] = [
        {"size_bytes": 4},
        {"checksums": {"SHA256": "y"}},
        {"checksums": {}},
        {"content_type": "image/png"},
        {"user_metadata": {"a": "b"}},
        {"tags": {}},
    ]
    for change in changes:
        assert not is_copy(SOURCE, replace(copy, **change))


@pytest.mark.parametrize(
    ("size_bytes", "stated", "provable"),
    [
        (5 * 1024**3, {"checksums": {}}, True),
        (5 * 1024**3 + 1, {"checksums": {"SHA256": "x"}}, False),
        (5 * 1024**3 + 1, {"checksums": {"CRC64NVME": "x"}}, True),
        (5 * 1024**3 + 1, {"checksums": {}, "etag": "e-2"}, True),
        (5 * 1024**3 + 1, {"checksums": {}, "etag": "e-2", "encryption": "aws:kms"}, False),
    ],
)
def test_beyond_five_gigabytes_one_checksum_proves_a_copy_or_its_parts_do(
    size_bytes: int, stated: dict[str, Any], provable: bool
) -> None:
    source = replace(SOURCE, size_bytes=size_bytes, **stated)
    if provable:
        require_provable(source)
    else:
        with pytest.raises(SourceUnproven, match="CRC64NVME"):
            require_provable(source)


# Messages


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_a_release_says_which_upload_it_lets_go(key: str) -> None:
    upload = replace(UPLOAD, key=key)
    assert parse_release(render_release("uploads", upload), "uploads") == upload


@pytest.mark.parametrize(
    "change",
    [{"bucket": "other"}, {"format": "neve-versions"}, {"version": 2}, {"upload": ["a"]}, {"upload": None}],
    ids=str,
)
def test_what_is_no_release_of_this_stack_is_refused(change: dict[str, Any]) -> None:
    message = json.loads(render_release("uploads", UPLOAD)) | change
    with pytest.raises(EventInvalid):
        parse_release(json.dumps(message), "uploads")


@pytest.mark.parametrize("body", ["", "[]", "{}", "7", "[" * 100_000])
def test_what_is_no_message_at_all_is_refused(body: str) -> None:
    with pytest.raises(EventInvalid):
        parse_release(body, "uploads")


def test_the_same_version_id_in_two_buckets_is_parked_twice() -> None:
    here = Parked(reason=Reason.SOURCE_GONE, detail="", parked_at=NOW, version=UPLOAD)
    assert here.id != replace(here, bucket="uploads").id

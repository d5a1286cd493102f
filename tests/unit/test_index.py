"""Rows of the index: sort keys keep the order of keys, and lead back to them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neve.domain.index import (
    KEY_BYTES,
    SHARDS,
    is_cut,
    key_bound,
    key_prefix,
    prefix_bound,
    rows,
    shard,
    sort_key,
    split,
)
from neve.domain.manifest import Source, archive_key
from neve.domain.tar import build

LETTERS = "a\0\x01\x7f\u00ff\uffff\U0001f600/"
"""Few, so that keys collide in their beginnings; those at the edges of how UTF-8 sorts."""
SHORT = st.text(alphabet=LETTERS, min_size=1, max_size=6)
LONG = st.builds(
    lambda head, count, tail: (head * count + tail).encode()[:1024].decode(errors="ignore"),
    st.sampled_from(["a", "\0", "\u00e9", "\U0001f600", "a\0"]),
    st.integers(400, 1024),
    st.text(alphabet=LETTERS, max_size=4),
)
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
KEYS = SHORT | LONG | ANY
PINS = st.sampled_from(["null-d41d8cd98f00b204e9800998ecf8427e", "3sL4kqtJlcpXroDTDmJ", "a", "~", "v" * 128])
DIGEST = b"\x00\xfe" + bytes(32)


@given(KEYS, PINS)
def test_a_sort_key_leads_back_to_its_key_and_pin(key: str, pin: str) -> None:
    found, found_pin = split(sort_key(key, pin))
    assert found_pin == pin
    assert found == ("" if is_cut(key) else key)


@given(KEYS, PINS)
def test_a_sort_key_fits_into_the_1024_bytes_that_dynamodb_takes(key: str, pin: str) -> None:
    assert len(sort_key(key, pin)) <= 1024


@given(KEYS, KEYS, PINS, PINS)
@example("a", "a\0", "~", "a")
@example("a", "a\x01", "~", "a")
def test_sort_keys_differ_wherever_key_or_pin_does(one: str, other: str, pin: str, other_pin: str) -> None:
    assert (sort_key(one, pin) == sort_key(other, other_pin)) == ((one, pin) == (other, other_pin))


@given(KEYS, KEYS, PINS, PINS)
@example("a", "a\0", "~", "a")
@example("a", "a\x01", "~", "a")
@example("a" * KEY_BYTES, "a" * KEY_BYTES + "\0", "~", "a")
def test_sort_keys_sort_as_keys_do_in_utf8(one: str, other: str, pin: str, other_pin: str) -> None:
    def beginning(key: str) -> bytes:
        return key.encode().replace(b"\0", b"\0\xff")[:KEY_BYTES].removesuffix(b"\0")

    if is_cut(one) and is_cut(other) and beginning(one) == beginning(other):
        return  # those stand together, in the order of their hashes
    if one.encode() < other.encode():
        assert sort_key(one, pin) < sort_key(other, other_pin)


@given(KEYS, KEYS, PINS)
@example("a", "a\0", "p")
@example("a", "a\0b", "p")
@example("a" * KEY_BYTES, "a" * (KEY_BYTES + 1), "p")
@example("a" * (KEY_BYTES - 1), "a" * (KEY_BYTES - 1) + "\0", "p")
def test_the_prefix_of_a_key_begins_its_sort_keys_and_no_other_keys(key: str, other: str, pin: str) -> None:
    assert sort_key(key, pin).startswith(key_prefix(key))
    assert sort_key(other, pin).startswith(key_prefix(key)) == (other == key)


@given(KEYS, PINS, st.data())
def test_the_bound_of_a_prefix_begins_the_sort_keys_of_all_keys_under_it(
    key: str, pin: str, data: st.DataObject
) -> None:
    prefix = key[: data.draw(st.integers(0, len(key)))]
    assert sort_key(key, pin).startswith(prefix_bound(prefix))


@given(SHORT | ANY, SHORT, PINS)
def test_the_bound_of_a_short_prefix_begins_no_other_keys(key: str, prefix: str, pin: str) -> None:
    """A NUL at the end of a prefix is escaped, so that its bound cannot be met by a terminator."""
    assert sort_key(key, pin).startswith(prefix_bound(prefix)) == key.startswith(prefix)


@given(KEYS, KEYS, PINS)
@example("a", "a\0", "p")
@example("a" * (KEY_BYTES - 1), "a" * (KEY_BYTES - 1) + "\0", "p")
def test_the_bound_of_a_key_parts_the_keys_behind_it_from_the_others(key: str, other: str, pin: str) -> None:
    if not is_cut(other):
        assert (sort_key(other, pin) > key_bound(key)) == (other.encode() > key.encode())


@given(KEYS)
def test_every_key_has_a_shard(key: str) -> None:
    assert 0 <= shard(key) < SHARDS


def test_keys_are_spread_over_all_shards() -> None:
    assert len({shard(f"photos/{number}.jpg") for number in range(2_000)}) == SHARDS


def test_the_shard_of_a_key_stays_what_it_is() -> None:
    assert [shard(key) for key in ("a", "photos/1.jpg", "\u00fc")] == [10, 3, 32]


@pytest.mark.parametrize("length", [KEY_BYTES, KEY_BYTES + 1])
def test_keys_are_cut_only_where_they_are_longer_than_they_may_be(length: int) -> None:
    assert is_cut("k" * length) == (length > KEY_BYTES)


def test_a_manifest_implies_a_row_for_each_member() -> None:
    source = Source(
        key="a",
        version_id="null",
        size_bytes=1,
        etag="0cc175b9c0f1b6a831c399e269772661",
        last_modified=datetime(2026, 9, 1, tzinfo=UTC),
        sha256="ca978112ca1bbdcafac231b39a23dc4da786eff8147c4f72b9807785afee48bb",
        md5="0cc175b9c0f1b6a831c399e269772661",
    )
    manifest, _ = build(17, "bucket", archive_key(17, "tar"), [(source, b"a")])
    [row] = rows(manifest)
    assert (row.key, row.pin, row.id) == ("a", source.pin, "17.0")
    assert (row.size_bytes, row.sha256, row.md5, row.last_modified) == (
        1,
        source.sha256,
        source.md5,
        source.last_modified,
    )
    assert row.offset_bytes == manifest.members[0].offset_bytes

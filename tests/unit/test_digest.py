"""Hashing piece by piece: what one pass over an archive finds is what hashing each part of it alone would find."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.digest import LONGEST_CONTENTS, ArchiveDigest, Digest, TarHasher, agree, hashed, stated
from neve.domain.manifest import BLOCK_BYTES, Manifest, Source
from neve.domain.tar import build

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
SIZES = (0, 1, 511, 512, 513, 1023, 1024, 1025, 4000)


def tar_of(bodies: Mapping[str, bytes]) -> tuple[Manifest, bytes]:
    members = [
        (
            Source(
                key=key,
                version_id="v1",
                size_bytes=len(body),
                etag="e",
                last_modified=NOON,
                sha256=hashlib.sha256(body).hexdigest(),
                md5=hashlib.md5(body).hexdigest(),
            ),
            body,
        )
        for key, body in bodies.items()
    ]
    manifest, rope = build(17, "content", "archives/0000000017.tar", members)
    return manifest, rope.readall()


def digest_of(body: bytes) -> Digest:
    return Digest(
        size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest(), md5=hashlib.md5(body).hexdigest(), crc64nvme=""
    )


def read(tar: bytes, manifest: Manifest | None, pieces: Iterable[int] = ()) -> ArchiveDigest:
    """The tar fed in pieces of these sizes, and the rest in one."""
    hasher = TarHasher(manifest=manifest)
    start = 0
    for size in pieces:
        hasher.feed(tar[start : start + size])
        start += size
    hasher.feed(tar[start:])
    return hasher.digest()


def cut(tar: bytes, size: int) -> list[int]:
    return [size] * (len(tar) // size)


def bodies_of(sizes: Iterable[int]) -> dict[str, bytes]:
    return {f"k{number:03}": random.Random(size).randbytes(size) for number, size in enumerate(sizes)}


BODIES = bodies_of(SIZES)
MANIFEST, TAR = tar_of(BODIES)
EXPECTED = {(key, "v1"): digest_of(body) for key, body in BODIES.items()}
LIST_END = BLOCK_BYTES + int(TAR[124:135], 8)
"""Where MANIFEST.json ends in TAR, by the size field of its ustar header."""


# -- Digests -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=700), max_size=6))
@settings(max_examples=30, deadline=None)
def test_pieces_have_the_digest_of_the_whole(pieces: list[bytes]) -> None:
    assert hashed(pieces) == digest_of(b"".join(pieces))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"sha256": "a", "md5": "b"}, {"sha256": "a", "md5": "b"}, True),
        ({"sha256": "a", "md5": "b"}, {"sha256": "a"}, True),
        ({"sha256": "a", "crc64nvme": "c"}, {"md5": "b", "crc64nvme": "c"}, True),
        ({"sha256": "a", "md5": "b"}, {"sha256": "a", "md5": "x"}, False),
        ({"sha256": "a", "md5": "b"}, {"sha256": "x", "md5": "b"}, False),
        ({"md5": "b", "crc64nvme": "c"}, {"md5": "b", "crc64nvme": "x"}, False),
        ({"sha256": "a"}, {"md5": "b"}, None),
        ({}, {"sha256": "a"}, None),
        ({}, {}, None),
    ],
)
def test_digests_agree_by_the_hashes_that_both_have(
    one: dict[str, str], other: dict[str, str], expected: bool | None
) -> None:
    assert agree(Digest(size_bytes=1, **one), Digest(size_bytes=1, **other)) is expected
    assert agree(Digest(size_bytes=1, **other), Digest(size_bytes=1, **one)) is expected


def test_different_sizes_never_agree_whatever_the_hashes_say() -> None:
    assert agree(Digest(size_bytes=1, sha256="a"), Digest(size_bytes=2, sha256="a")) is False
    assert agree(Digest(size_bytes=1, sha256="a"), Digest(size_bytes=2, md5="b")) is False


def test_a_manifest_states_its_own_hashes_and_the_crc_that_s3_kept() -> None:
    source = MANIFEST.members[0].source
    assert stated(source) == EXPECTED[source.identity]
    assert stated(replace(source, checksums={"CRC64NVME": "AAAAAAAAAAA=", "SHA1": "x"})).crc64nvme == "AAAAAAAAAAA="


# -- An archive in one pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1000, 4096])
def test_pieces_of_any_size_give_what_hashing_each_member_alone_gives(size: int) -> None:
    found = read(TAR, MANIFEST, cut(TAR, size))
    assert found == ArchiveDigest(
        whole=digest_of(TAR), contents=MANIFEST.contents, problem="", members=EXPECTED, listed=EXPECTED
    )


@given(
    st.lists(st.one_of(st.sampled_from(SIZES), st.integers(0, 1600)), min_size=1, max_size=5),
    st.lists(st.one_of(st.just(1), st.sampled_from(SIZES), st.integers(0, 3000)), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_members_and_pieces_of_any_size_are_hashed_in_one_pass(sizes: list[int], pieces: list[int]) -> None:
    bodies = bodies_of(sizes)
    manifest, tar = tar_of(bodies)
    found = read(tar, manifest, pieces)
    assert found.members == {(key, "v1"): digest_of(body) for key, body in bodies.items()}
    assert found.contents == manifest.contents
    assert found.whole == digest_of(tar)
    assert read(tar, None, pieces) == replace(found, listed={}), "it takes no manifest to read an archive"


def test_empty_members_at_the_very_end_are_there() -> None:
    manifest, tar = tar_of({"a": b"x", "y": b"", "z": b""})
    assert set(read(tar, manifest).members) == {("a", "v1"), ("y", "v1"), ("z", "v1")}
    last = manifest.members[-1].offset_bytes
    assert set(read(tar[:last], manifest).members) == {("a", "v1"), ("y", "v1"), ("z", "v1")}
    assert set(read(tar[: last - 1], manifest).members) == {("a", "v1"), ("y", "v1")}


def test_an_archive_cut_short_at_any_block_has_the_members_before_the_cut() -> None:
    for end in range(0, len(TAR), BLOCK_BYTES):
        found = read(TAR[:end], MANIFEST, cut(TAR[:end], 1000))
        there = {
            member.source.identity
            for member in MANIFEST.members
            if member.offset_bytes + member.source.size_bytes <= end
        }
        assert found.members == {identity: EXPECTED[identity] for identity in there}, end
        assert found.whole == digest_of(TAR[:end])
        if end < LIST_END:
            assert found.contents is None
            assert found.problem == f"the archive ends after {end} bytes, within its own list"
        else:
            assert (found.contents, found.problem) == (MANIFEST.contents, "")


@pytest.mark.parametrize("end", [0, 1, 511])
def test_an_archive_cut_short_within_its_first_block_has_nothing(end: int) -> None:
    found = read(TAR[:end], None)
    assert (found.contents, found.members) == (None, {})
    assert str(end) in found.problem


def damaged(tar: bytes, at: int, bits: int = 1) -> bytes:
    return tar[:at] + bytes([tar[at] ^ bits]) + tar[at + 1 :]


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (0, "does not begin with a tar header"),
        (124, "does not begin with a tar header"),
        (BLOCK_BYTES, "not JSON"),
        (LIST_END - 1, "not JSON"),
    ],
)
def test_where_the_own_list_is_damaged_the_manifest_says_where_members_are(at: int, told: str) -> None:
    tar = damaged(TAR, at, 0x40)
    for piece in (100, 700, len(tar)):
        found = read(tar, MANIFEST, cut(tar, piece))
        assert found.contents is None
        assert told in found.problem
        assert found.members == EXPECTED
        assert found.whole == digest_of(tar)
    assert read(tar, None).members == {}, "and without a manifest nobody says it"


def test_a_list_that_names_other_places_than_the_manifest_is_read_by_both() -> None:
    """A flipped bit in a list may leave it readable: which of the two is right, the whole object's hash says."""
    at = TAR.index(b'"k008"') + 4
    tar = damaged(TAR, at)
    for piece in (100, 700, len(tar)):
        found = read(tar, MANIFEST, cut(tar, piece))
        assert found.contents is not None
        assert ("k009", "v1") in found.members
        assert ("k008", "v1") not in found.members
        assert found.listed == EXPECTED


def test_both_lists_find_the_same_members_where_they_say_the_same() -> None:
    assert read(TAR, MANIFEST).listed == EXPECTED
    assert read(TAR, None).listed == {}


def header_with(**fields: bytes) -> bytes:
    """The first block of TAR with another size or name, and a checksum that fits."""
    block = bytearray(TAR[:BLOCK_BYTES])
    places = {"name": 0, "size": 124, "type": 156}
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def peak_of(hasher: TarHasher) -> int:
    return max((len(value) for value in vars(hasher).values() if isinstance(value, bytearray)), default=0)


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + (2**50).to_bytes(11, "big")])
def test_a_header_that_claims_petabytes_gathers_nothing(size: bytes) -> None:
    hasher = TarHasher(manifest=MANIFEST)
    hasher.feed(header_with(size=size))
    for _ in range(4):
        hasher.feed(bytes(100_000))
        assert peak_of(hasher) == 0
    found = hasher.digest()
    assert found.contents is None
    assert "claims" in found.problem


@pytest.mark.parametrize(
    "changes",
    [
        {"size": b"\xff" * 12},
        {"size": b"\x80" + bytes(11)},
        {"name": b"MANIFEST.jsom"},
        {"type": b"5"},
        {"type": b"x"},
    ],
)
def test_a_header_of_something_else_is_no_list(changes: dict[str, Any]) -> None:
    found = read(header_with(**changes) + TAR[BLOCK_BYTES:], MANIFEST)
    assert found.contents is None
    assert found.problem
    assert found.members == EXPECTED


def test_no_list_that_can_be_written_is_taken_for_damaged() -> None:
    """2,000 members with the longest keys, tags and headers that S3 takes, every character escaped."""
    key, name, tags, headers = 1024 * 6, 4000, 10 * (128 + 256) * 12, 8 * 1024 * 2
    assert 2_000 * (key + name + tags + headers) < LONGEST_CONTENTS

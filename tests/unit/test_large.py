"""Copies of large objects: which parts, and what proves them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neve.domain.large import (
    MAX_PART_BYTES,
    MAX_PARTS,
    MIB,
    PART_BYTES,
    SINGLE_COPY_BYTES,
    proof_algorithm,
    proven,
    ranges,
)

LARGEST = MAX_PARTS * MAX_PART_BYTES
SIX_GB = 6 * 10**9


@settings(deadline=None)  # the largest has 10,000 parts
@given(st.integers(1, LARGEST))
@example(1)
@example(PART_BYTES)
@example(PART_BYTES + 1)
@example(SINGLE_COPY_BYTES + 1)
@example(SIX_GB)
@example(MAX_PARTS * PART_BYTES)
@example(MAX_PARTS * PART_BYTES + 1)
@example(LARGEST - 1)
@example(LARGEST)
def test_parts_cover_an_object_exactly_within_the_limits_of_s3(size_bytes: int) -> None:
    parts = ranges(size_bytes)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) <= MAX_PARTS
    assert parts[0].first == 0
    assert parts[-1].last == size_bytes - 1
    assert all(part.last + 1 == following.first for part, following in itertools.pairwise(parts))
    sizes = [part.last - part.first + 1 for part in parts]
    assert all(5 * MIB <= size <= MAX_PART_BYTES for size in sizes[:-1])
    assert 0 < sizes[-1] <= MAX_PART_BYTES


def test_6_gb_are_twelve_parts() -> None:
    assert len(ranges(SIX_GB)) == 12


def test_more_than_s3_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ranges(LARGEST + 1)


@pytest.mark.parametrize(
    ("size_bytes", "source", "algorithm"),
    [
        (SINGLE_COPY_BYTES, {}, "SHA256"),
        (SINGLE_COPY_BYTES, {"CRC64NVME": "x"}, "CRC64NVME"),
        (SINGLE_COPY_BYTES, {"CRC64NVME": "x", "SHA256": "y"}, "SHA256"),
        (SINGLE_COPY_BYTES, {"CRC32": "x"}, "SHA256"),
        (SINGLE_COPY_BYTES + 1, {}, "CRC64NVME"),
        (SINGLE_COPY_BYTES + 1, {"SHA256": "y"}, "CRC64NVME"),
    ],
)
def test_the_copy_gets_a_checksum_that_its_source_has_too(
    size_bytes: int, source: dict[str, str], algorithm: str
) -> None:
    assert proof_algorithm(size_bytes, source) == algorithm


MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize(
    ("source", "source_etag", "copy", "copy_etag", "verdict"),
    [
        ({"SHA256": "x"}, "e", {"SHA256": "x"}, "f", True),
        ({"SHA256": "x"}, MD5, {"SHA256": "y"}, MD5, False),
        ({"CRC64NVME": "x", "SHA256": "y"}, "e", {"CRC64NVME": "x"}, "f", True),
        ({"CRC64NVME": "x", "SHA256": "y"}, "e", {"CRC64NVME": "x", "SHA256": "z"}, "f", False),
        ({"CRC32": "x"}, MD5, {"SHA256": "x"}, MD5, True),
        ({}, MD5, {"SHA256": "x"}, MD5, True),
        ({}, MD5, {"SHA256": "x"}, "0" * 32, None),
        ({}, f"{MD5}-2", {"SHA256": "x"}, f"{MD5}-2", None),
        ({}, f"{MD5}-2", {}, MD5, None),
    ],
)
def test_a_copy_is_proven_by_a_shared_checksum_or_by_equal_md5s(
    source: dict[str, str], source_etag: str, copy: dict[str, str], copy_etag: str, verdict: bool | None
) -> None:
    assert proven(source, source_etag, copy, copy_etag) is verdict

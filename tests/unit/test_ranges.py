"""Ranges: every wanted member in one read, next to nothing read in vain."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neve.domain.manifest import Manifest, Member, Source, archive_key
from neve.domain.ranges import READ_BYTES, Read, reads
from neve.domain.tar import build

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
BOUNDARY_SIZES = (0, 1, 511, 512, 513, 1023, 1024, 1025)
KIB = 1024


def laid_out(sizes: Sequence[int]) -> tuple[Manifest, bytes]:
    """An archive with members of these sizes, in this order, and its bytes; each member is all of one byte."""
    members = []
    for number, size in enumerate(sizes):
        body = bytes([number % 251 + 1]) * size
        sha256 = hashlib.sha256(body).hexdigest()
        source = Source(
            key=f"{number:06d}{'-long' * 20 if number % 7 == 3 else ''}",
            version_id="v1",
            size_bytes=size,
            etag="e",
            last_modified=NOON,
            sha256=sha256,
            md5=sha256[:32],
        )
        members.append((source, body))
    manifest, rope = build(17, "content", archive_key(17, "tar"), members)
    return manifest, rope.readall()


def fetched(read: Read, archive: bytes) -> bytes:
    """What a GET with this range returns."""
    return archive[read.first : read.last + 1]


SIZES = st.lists(st.sampled_from(BOUNDARY_SIZES) | st.integers(0, 3_000), min_size=1, max_size=25)


@given(sizes=SIZES, limit_bytes=st.integers(1, 12_000), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_wanted_member_lies_in_exactly_one_read_with_its_bytes(
    sizes: list[int], limit_bytes: int, data: st.DataObject
) -> None:
    manifest, archive = laid_out(sizes)
    wanted = data.draw(st.lists(st.sampled_from(manifest.members), max_size=2 * len(sizes)))
    planned = reads(iter(wanted), limit_bytes=limit_bytes)
    found = [member for read in planned for member in read.members]
    numbers = {member.number for member in wanted if member.source.size_bytes}
    assert found == [member for member in manifest.members if member.number in numbers]
    assert all(read.members for read in planned)
    for read in planned:
        assert 0 <= read.first <= read.last < len(archive)
        assert read.size_bytes == read.last - read.first + 1
        assert read.size_bytes <= limit_bytes or len(read.members) == 1
        body = fetched(read, archive)
        assert len(body) == read.size_bytes
        for member in read.members:
            assert hashlib.sha256(read.slice(body, member)).hexdigest() == member.source.sha256


@given(sizes=SIZES)
@example(sizes=[512] * 20)
@settings(max_examples=40, deadline=None)
def test_reads_neither_overlap_nor_begin_or_end_in_vain(sizes: list[int]) -> None:
    manifest, _ = laid_out(sizes)
    planned = reads(manifest.members[::2] + manifest.members[1:3])
    for read, following in pairwise(planned):
        assert read.last < following.first
    for read in planned:
        first, last = read.members[0], read.members[-1]
        assert read.first == first.offset_bytes
        assert read.last == last.offset_bytes + last.source.size_bytes - 1


@given(size=st.sampled_from(BOUNDARY_SIZES[1:]) | st.integers(1, 5_000), before=st.integers(0, 1_500))
@settings(max_examples=40, deadline=None)
def test_of_a_single_file_not_a_byte_more_is_read_than_it_has(size: int, before: int) -> None:
    manifest, _ = laid_out([before, size, before])
    [read] = reads([manifest.members[1]])
    assert read.size_bytes == size


def test_files_of_no_bytes_are_not_read() -> None:
    manifest, _ = laid_out([0, 0])
    assert reads(manifest.members) == []
    assert reads([]) == []


def test_a_random_hundredth_of_an_archive_is_read_with_less_than_five_percent_in_vain() -> None:
    draw = random.Random(17)
    manifest, _ = laid_out([draw.randrange(1 * KIB, 100 * KIB) for _ in range(500)])
    read_bytes = wanted_bytes = requests = files = 0
    for _ in range(200):
        wanted = draw.sample(manifest.members, 5)
        planned = reads(wanted)
        read_bytes += sum(read.size_bytes for read in planned)
        wanted_bytes += sum(member.source.size_bytes for member in wanted)
        requests += len(planned)
        files += len(wanted)
    assert 1.0 <= read_bytes / wanted_bytes <= 1.05
    assert requests < files, "neighbours share a request"


def test_a_whole_archive_is_read_in_few_large_requests() -> None:
    draw = random.Random(18)
    manifest, archive = laid_out([draw.randrange(1 * KIB, 100 * KIB) for _ in range(500)])
    planned = reads(manifest.members)
    assert len(planned) <= len(archive) // READ_BYTES + 2
    assert sum(read.size_bytes for read in planned) <= 1.05 * sum(each.source.size_bytes for each in manifest.members)


@pytest.mark.parametrize(("limit_bytes", "expected"), [(1_536, [2]), (1_535, [1, 1])])
def test_neighbours_share_a_read_up_to_the_limit_and_no_further(limit_bytes: int, expected: list[int]) -> None:
    manifest, _ = laid_out([512, 512])  # with a header of 512 between them
    assert [len(read.members) for read in reads(manifest.members, limit_bytes=limit_bytes)] == expected


def test_members_with_another_between_them_are_read_apart() -> None:
    manifest, _ = laid_out([512, 512, 512])
    assert [read.size_bytes for read in reads([manifest.members[2], manifest.members[0]])] == [512, 512]


def test_a_large_object_that_is_an_archive_of_its_own_is_one_read() -> None:
    source = Source(key="film", version_id="v1", size_bytes=10**12, etag="e", last_modified=NOON)
    member = Member(source=source, number=0, name="", offset_bytes=0)
    assert reads([member]) == [Read(first=0, last=10**12 - 1, members=(member,))]

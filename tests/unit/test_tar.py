"""Archives: the same bytes for the same members, opened by any tar, and read back before they are sent."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import tarfile
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neve.domain.manifest import BLOCK_BYTES, Manifest, Member, Source, parse_contents
from neve.domain.tar import Rope, _member_header, _record, build, check, contents_end
from neve.errors import ArchiveInvalid, ManifestInvalid

NOON = datetime(2025, 11, 22, 12, tzinfo=UTC)
BOUNDARY_SIZES = (0, 1, 511, 512, 513, 1023, 1024, 1025, 10_239, 10_240, 10_241)
BAD_KEYS = (
    "ü" * 512,
    "x" * 1024,
    "/".join("y" * 512),
    "x" * 94,
    "x" * 95,
    "two words+plus%20percent",
    "quote'\"`$(id)",
    "new\nline",
    "\x00\x1b[2J\x7f\x85",
    "😀/👩\u200d👧.png",
    "../../etc/passwd",
    "..",
    "/etc/passwd",
    "a//b",
    "a/",
    "a",
    "a/b",
    "A/B",
    "é",
    "e\u0301",
    "-rf",
    "MANIFEST.json",
    "\u202egpj",
    "back\\slash\\n",
)


def fetched(key: str, body: bytes, version_id: str = "v1", **changes: Any) -> tuple[Source, bytes]:
    given: dict[str, Any] = {
        "key": key,
        "version_id": version_id,
        "size_bytes": len(body),
        "etag": hashlib.md5(body).hexdigest(),
        "last_modified": NOON,
        "sha256": hashlib.sha256(body).hexdigest(),
        "md5": hashlib.md5(body).hexdigest(),
    }
    return Source(**(given | changes)), body


def body_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def built(*members: tuple[Source, bytes], archive: int = 17) -> tuple[Manifest, Rope]:
    return build(archive, "content", f"archives/{archive:010d}.tar", members)


def some() -> list[tuple[Source, bytes]]:
    return [
        fetched("a", b"first"),
        fetched("a/ü", body_of(512), last_modified=datetime(2025, 1, 1, tzinfo=UTC)),
        fetched("b", b""),
        fetched("b", body_of(600), version_id="v2", content_type="text/plain", tags={"team": "x"}),
    ]


def assert_reads_back(manifest: Manifest, data: bytes, bodies: dict[tuple[str, str], bytes]) -> None:
    """By offsets alone, by the MANIFEST.json inside, and by tarfile."""
    assert len(data) == manifest.object_size_bytes
    assert hashlib.sha256(data).hexdigest() == manifest.object_sha256
    for member in manifest.members:
        start = member.offset_bytes
        assert data[start : start + member.source.size_bytes] == bodies[member.source.identity]
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        first, *others = reader.getmembers()
        assert first.name == "MANIFEST.json"
        inside = reader.extractfile(first)
        assert inside is not None
        assert parse_contents(inside.read()) == manifest.contents
        assert [other.name for other in others] == [member.name for member in manifest.members]
        for other, member in zip(others, manifest.members, strict=True):
            extracted = reader.extractfile(other)
            assert extracted is not None
            assert extracted.read() == bodies[member.source.identity]
            assert (other.mode, other.uid, other.gid, other.uname, other.gname) == (0o644, 0, 0, "", "")
            assert other.mtime == int(member.source.last_modified.timestamp())


keys = st.one_of(
    st.sampled_from(BAD_KEYS),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
sizes = st.one_of(st.sampled_from(BOUNDARY_SIZES), st.integers(0, 3000))


@given(st.dictionaries(keys, sizes, min_size=1, max_size=12))
@example(dict.fromkeys(BAD_KEYS, 513))
@example({f"{size:05}": size for size in BOUNDARY_SIZES})
@example({f"{number:04}": 1 for number in range(60)})
@settings(max_examples=80, deadline=None)
def test_every_member_lies_where_the_manifest_says(sized: dict[str, int]) -> None:
    members = [fetched(key, body_of(size)) for key, size in sized.items()]
    manifest, rope = built(*members)
    check(rope, manifest)
    assert_reads_back(manifest, rope.read(), {source.identity: body for source, body in members})


@given(st.permutations(some()))
@settings(deadline=None)
def test_the_same_members_in_any_order_are_the_same_bytes(members: Sequence[tuple[Source, bytes]]) -> None:
    manifest, rope = built(*members)
    again, same = built(*some())
    assert manifest == again
    assert rope.read() == same.read()


def test_the_bytes_of_an_archive_are_the_same_as_ever() -> None:
    """If this fails, archives written from now on differ: docs/format.md says what that does to a retry."""
    manifest, rope = built(
        *some(), fetched("y" * 200, b"long"), fetched("z", b"late", last_modified=NOON.replace(year=2300))
    )
    assert rope.sha256() == manifest.object_sha256
    assert manifest.object_sha256 == "c6bf1d3d82b0291d4586bcec46c6b0c5775d750b254e6b5aecfbc016c2f52338"


def test_many_members_with_offsets_of_all_widths_read_back() -> None:
    members = [fetched(f"{number:04}", body_of(number * 7)) for number in range(700)]
    manifest, rope = built(*members)
    check(rope, manifest)
    assert {len(str(member.offset_bytes)) for member in manifest.members} == {6, 7}
    assert_reads_back(manifest, rope.read(), {source.identity: body for source, body in members})


def test_gnu_tar_extracts_every_member_under_its_name_without_a_warning(tmp_path: Path) -> None:
    members = [fetched(key, body_of(number * 171)) for number, key in enumerate(BAD_KEYS)]
    members.append(fetched("a", b"second version", version_id="v2"))
    manifest, rope = built(*members)
    archive = tmp_path / "archive.tar"
    archive.write_bytes(rope.read())
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(["tar", "-xf", archive, "-C", out], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    expected = {member.name: member.source.sha256 for member in manifest.members}
    found = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }
    listed = parse_contents((out / "MANIFEST.json").read_bytes())
    del found["MANIFEST.json"]
    assert found == expected
    assert listed == manifest.contents


def test_python_extracts_every_member_with_its_strictest_filter(tmp_path: Path) -> None:
    members = [fetched(key, body_of(number * 171)) for number, key in enumerate(BAD_KEYS)]
    manifest, rope = built(*members)
    with tarfile.open(fileobj=rope, mode="r:") as reader:
        reader.extractall(tmp_path, filter="data")
    for member in manifest.members:
        assert hashlib.sha256((tmp_path / member.name).read_bytes()).hexdigest() == member.source.sha256


def test_bodies_are_referred_to_and_not_copied() -> None:
    members = [fetched(f"{number}", body_of(500_000)) for number in range(20)]
    tracemalloc.start()
    try:
        manifest, rope = built(*members)
        check(rope, manifest)
        while rope.read(65_536):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rope) > 10_000_000
    assert peak < 1_000_000


def test_a_large_size_or_a_late_time_gets_a_pax_header() -> None:
    late = NOON.replace(year=2300)
    source, _ = fetched("big", b"", size_bytes=8**11, last_modified=late)
    header = _member_header(Member(source=source, number=0, name="files/big", offset_bytes=0))
    with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as reader:
        seen = reader.next()
    assert seen is not None
    assert (seen.name, seen.size, seen.mtime) == ("files/big", 8**11, late.timestamp())
    source, _ = fetched("big", b"", size_bytes=8**11 - 1)
    assert len(_member_header(Member(source=source, number=0, name="files/big", offset_bytes=0))) == 512


@pytest.mark.parametrize("length", [*range(1, 120), *range(980, 1000), *range(9970, 10_000)])
def test_the_length_of_a_pax_record_counts_itself(length: int) -> None:
    record = _record("path", b"x" * length)
    assert int(record.split(b" ", 1)[0]) == len(record)


def test_a_name_of_100_ascii_bytes_needs_no_pax_header() -> None:
    assert len(_member_header(built(fetched("x" * 94, b""))[0].members[0])) == 512
    assert len(_member_header(built(fetched("x" * 95, b""))[0].members[0])) == 1536
    assert len(_member_header(built(fetched("ü", b""))[0].members[0])) == 1536


def test_a_body_of_another_size_is_refused() -> None:
    source, body = fetched("a", b"abc")
    with pytest.raises(ArchiveInvalid, match="member 'a': 4 bytes were read, 3 announced"):
        built((source, body + b"d"))


def test_a_member_given_twice_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="member 'a': version 'v1' is given twice"):
        built(fetched("a", b"abc"), fetched("a", b"xyz"))


def test_an_archive_without_members_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="members must not be empty"):
        built()


def test_an_archive_can_stand_for_a_damaged_one() -> None:
    manifest, rope = build(17, "content", "archives/0000000017.tar", some(), supersedes=3)
    check(rope, manifest)
    assert manifest.contents.supersedes == 3


# What check() must not let pass.


def test_a_body_that_has_not_its_hash_is_found() -> None:
    source, _ = fetched("a", b"abc")
    manifest, rope = built((source, b"abd"), fetched("b", b"x"))
    with pytest.raises(ArchiveInvalid, match="member 'a': its bytes do not have its SHA-256"):
        check(rope, manifest)


def test_check_leaves_the_rope_at_its_start() -> None:
    manifest, rope = built(*some())
    check(rope, manifest)
    assert rope.tell() == 0


@pytest.mark.no_cover  # 8,192 of them
def test_any_single_changed_byte_is_found() -> None:
    manifest, rope = built(*some())
    data = rope.read()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ArchiveInvalid):
            check(Rope([bytes(damaged)]), manifest)


@given(st.data())
@settings(deadline=None)
def test_any_changed_region_is_found(draw: st.DataObject) -> None:
    manifest, rope = built(*some())
    data = rope.read()
    start = draw.draw(st.integers(0, len(data) - 1))
    region = draw.draw(st.binary(min_size=1, max_size=700))[: len(data) - start]
    damaged = data[:start] + region + data[start + len(region) :]
    if damaged == data:
        return
    with pytest.raises(ArchiveInvalid):
        check(Rope([damaged]), manifest)


@pytest.mark.parametrize("blocks", [-4, -2, -1, 1, 2])
def test_a_truncated_or_lengthened_archive_is_found(blocks: int) -> None:
    manifest, rope = built(*some())
    data = rope.read()
    damaged = data[: 512 * blocks] if blocks < 0 else data + bytes(512 * blocks)
    with pytest.raises(ArchiveInvalid, match="bytes, its manifest says"):
        check(Rope([damaged]), manifest)


def test_swapped_members_are_found() -> None:
    manifest, rope = built(fetched("a", b"1" * 100), fetched("b", b"2" * 100))
    data = rope.read()
    first, second = manifest.members
    blocks = slice(first.offset_bytes - 512, first.offset_bytes + 512)
    others = slice(second.offset_bytes - 512, second.offset_bytes + 512)
    swapped = data[: blocks.start] + data[others] + data[blocks] + data[others.stop :]
    with pytest.raises(ArchiveInvalid, match="member 'a': its header is not what"):
        check(Rope([swapped]), manifest)
    bodies = bytearray(data)
    bodies[first.offset_bytes : first.offset_bytes + 100] = b"2" * 100
    bodies[second.offset_bytes : second.offset_bytes + 100] = b"1" * 100
    with pytest.raises(ArchiveInvalid, match="member 'a': its bytes do not have its SHA-256"):
        check(Rope([bytes(bodies)]), manifest)


def test_a_manifest_of_another_archive_is_found() -> None:
    _, rope = built(*some())
    other, _ = built(*some(), archive=18)
    with pytest.raises(ArchiveInvalid, match=r"MANIFEST\.json is not what the manifest says"):
        check(rope, other)


def header_of(name: str) -> bytes:
    source, _ = fetched("x", b"")
    return _member_header(Member(source=source, number=0, name=name, offset_bytes=0))


def test_a_first_member_of_another_name_is_found() -> None:
    manifest, rope = built(*some())
    with pytest.raises(ArchiveInvalid, match=r"the first member is not MANIFEST\.json"):
        check(Rope([header_of("files/a"), rope.read()[512:]]), manifest)


def test_a_member_behind_the_last_is_found() -> None:
    manifest, rope = built(*some())
    with pytest.raises(ArchiveInvalid, match="something follows the last member"):
        check(Rope([rope.read()[:-1024], header_of("files/x"), bytes(512)]), manifest)


def test_an_archive_that_ends_early_is_found() -> None:
    """A stray zero block makes every reader of tar stop there."""
    manifest, rope = built(*some())
    data = rope.read()
    stray = manifest.members[2].offset_bytes - 512
    with pytest.raises(ArchiveInvalid, match="the archive ends before member 'b'"):
        check(Rope([data[:stray], bytes(512), data[stray + 512 :]]), manifest)


# Rope.


pieces = st.lists(st.binary(max_size=20), max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.one_of(st.none(), st.integers(-1, 50)), st.just(0)),
        st.tuples(st.just("readinto"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("seek"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("seek"), st.integers(0, 30), st.just(1)),
        st.tuples(st.just("seek"), st.integers(-3, 3), st.just(2)),
    ),
    max_size=12,
)


@given(pieces, steps)
def test_a_rope_is_a_file_of_its_buffers(buffers: list[bytes], moves: list[tuple[str, int | None, int]]) -> None:
    rope, twin = Rope(buffers), io.BytesIO(b"".join(buffers))
    assert len(rope) == len(twin.getvalue())
    assert rope.sha256() == hashlib.sha256(twin.getvalue()).hexdigest()
    assert (rope.readable(), rope.seekable(), rope.writable()) == (True, True, False)
    for move, amount, whence in moves:
        if move == "read":
            assert rope.read(amount) == twin.read(amount)
        elif move == "readinto":
            assert amount is not None
            mine, theirs = bytearray(amount), bytearray(amount)
            assert rope.readinto(mine) == twin.readinto(theirs)
            assert mine == theirs
        elif amount is not None and (whence != 2 or amount + len(rope) >= 0):
            assert rope.seek(amount, whence) == twin.seek(amount, whence)
        assert rope.tell() == twin.tell()
    rope.seek(0)
    assert rope.readall() == twin.getvalue()
    rope.seek(0)
    assert io.BufferedReader(rope).read() == twin.getvalue()


def test_a_rope_does_not_go_before_its_start() -> None:
    with pytest.raises(ValueError, match="cannot seek to -1"):
        Rope([b"abc"]).seek(-4, io.SEEK_END)


def test_a_rope_gives_views_of_its_buffers() -> None:
    first, second = b"abc", b"defg"
    views = list(Rope([first, b"", memoryview(second)]).views(1, 6))
    assert [bytes(view) for view in views] == [b"bc", b"def"]
    assert [view.obj for view in views] == [first, second]


def test_the_first_block_tells_where_the_contents_end() -> None:
    manifest, rope = build(7, "content", "archives/7.tar", [fetched("a", b"x" * 700), fetched("b", b"")])
    end = contents_end(rope.read(BLOCK_BYTES))
    rope.seek(BLOCK_BYTES)
    assert parse_contents(rope.read(end - BLOCK_BYTES)) == manifest.contents


@pytest.mark.parametrize("block", [b"", bytes(512), b"x" * 512, b"short"])
def test_a_first_block_that_is_no_header_tells_nothing(block: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="does not begin with a tar header"):
        contents_end(block)


def test_an_archive_that_begins_with_something_else_than_its_contents_is_refused() -> None:
    block = tarfile.TarInfo("files/a").tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(ManifestInvalid, match="begins with 'files/a'"):
        contents_end(block)

"""Manifests: what is written is read back, and what is damaged is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.manifest import (
    Contents,
    Manifest,
    Member,
    Source,
    archive_key,
    manifest_key,
    padded,
    parse_contents,
    parse_manifest,
    parse_source,
    render_contents,
    render_manifest,
    render_source,
    single,
)
from neve.domain.names import safe_names
from neve.errors import ManifestInvalid

SHA256 = "0123456789abcdef" * 4
MD5 = "0123456789abcdef" * 2
CRC = "AAAAAAAAAAA="
A_DAY_LATER = datetime(1970, 1, 2, tzinfo=UTC).replace(tzinfo=None)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

Damage = Callable[[dict[str, Any]], object]


def source(key: str = "a", **changes: Any) -> Source:
    given: dict[str, Any] = {
        "key": key,
        "version_id": "v1",
        "size_bytes": 3,
        "etag": "e",
        "last_modified": NOON,
        "sha256": SHA256,
        "md5": MD5,
    }
    return Source(**(given | changes))


def tar_manifest(*sources: Source, **changes: Any) -> Manifest:
    """A manifest with plausible offsets; no tar behind it."""
    ordered = sorted(sources, key=lambda each: each.identity)
    names = safe_names([each.identity for each in ordered])
    members = []
    free = 10_240
    for number, (each, name) in enumerate(zip(ordered, names, strict=True)):
        members.append(Member(source=each, number=number, name=name, offset_bytes=free + 512))
        free += 512 + padded(each.size_bytes)
    given: dict[str, Any] = {
        "archive": 17,
        "bucket": "content",
        "kind": "tar",
        "object_key": archive_key(17, "tar"),
        "object_size_bytes": free + 1024,
        "object_sha256": SHA256,
        "members": tuple(members),
    }
    return Manifest(**(given | changes))


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
mappings = st.dictionaries(plain, plain, max_size=3)
zones = st.sampled_from((UTC, timezone(timedelta(hours=5))))
moments = st.datetimes(A_DAY_LATER, A_DAY_LATER.replace(year=9998), timezones=zones)
sources = st.builds(
    Source,
    key=plain.filter(bool),
    version_id=st.sampled_from(("null", "v1", "v2")),
    size_bytes=st.integers(0, 2**43),
    etag=plain.filter(bool),
    last_modified=st.datetimes(
        A_DAY_LATER, A_DAY_LATER.replace(year=9998), timezones=st.sampled_from((UTC, timezone(timedelta(hours=5))))
    ),
    sha256=hexadecimal,
    md5=hexadecimal.map(lambda value: value[:32]),
    checksums=mappings,
    content_type=plain,
    cache_control=plain,
    content_disposition=plain,
    expires=plain,
    user_metadata=mappings,
    tags=mappings,
)


@given(
    st.lists(sources, min_size=1, max_size=8, unique_by=lambda each: each.identity),
    st.one_of(st.none(), st.integers(1, 16)),
)
@settings(deadline=None)
def test_what_is_written_is_read_back(members: list[Source], supersedes: int | None) -> None:
    manifest = tar_manifest(*members, supersedes=supersedes)
    assert parse_manifest(render_manifest(manifest)) == manifest
    contents = manifest.contents
    assert (
        parse_contents(
            render_contents(archive=17, bucket="content", members=contents.members, supersedes=supersedes) + b"    \n"
        )
        == contents
    )


@given(sources | st.builds(lambda each: replace(each, sha256="", md5=""), sources))
@settings(deadline=None)
def test_a_source_that_is_written_by_itself_is_read_back(given_source: Source) -> None:
    text = render_source(given_source)
    assert text.isascii()
    assert parse_source(text) == given_source


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[]", "must be an object"),
        ("7", "must be an object"),
        ("{}", "source None: key must be a string"),
        ('{"key": "a"}', "source 'a': version_id must be a string"),
        ('{"key": "a", "key": "b"}', "a name occurs twice"),
        (f'{{{render_source(source())[1:-1]}, "size_bytes": -1}}', "a name occurs twice"),
        (
            render_source(source()).replace('"size_bytes": 3', '"size_bytes": -3'),
            "member 'a': size_bytes must not be negative",
        ),
        (render_source(source()).replace("12:00:00Z", "12:00:00"), "last_modified must be as"),
    ],
)
def test_a_source_that_says_something_else_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ManifestInvalid, match=problem):
        parse_source(text)


def test_a_manifest_is_ascii_with_a_line_for_each_member() -> None:
    weird = 'new\nline "ü" \u202e😀\x7f'
    text = render_manifest(tar_manifest(source("b"), source(weird), source("c"))).decode("ascii")
    assert text.endswith("\n]}\n")
    assert len([line for line in text.splitlines() if '"key": ' in line]) == 3
    assert all(char.isprintable() or char in "\n\x7f" for char in text)
    assert json.loads(text)["members"][2]["key"] == weird


def test_a_manifest_says_this() -> None:
    full = source(
        version_id="null",
        checksums={"SHA1": "x", "CRC64NVME": CRC},
        content_type="text/plain",
        content_encoding="gzip",
        content_language="de",
        content_disposition="inline",
        cache_control="no-store",
        expires="0",
        website_redirect="/b",
        user_metadata={"owner": "me"},
        tags={"team": "a"},
        storage_class="STANDARD_IA",
        encryption="aws:kms",
        kms_key_id="arn",
    )
    assert render_manifest(tar_manifest(full)).decode().splitlines() == [
        "{",
        '"archive": 17,',
        '"bucket": "content",',
        '"format": "neve-manifest",',
        '"kind": "tar",',
        '"object_key": "archives/0000000017.tar",',
        '"object_sha256": "' + SHA256 + '",',
        '"object_size_bytes": 12288,',
        '"version": 1,',
        '"members": [',
        '{"cache_control": "no-store", "checksums": {"CRC64NVME": "AAAAAAAAAAA=", "SHA1": "x"}, '
        '"content_disposition": "inline", "content_encoding": "gzip", "content_language": "de", '
        '"content_type": "text/plain", "encryption": "aws:kms", "etag": "e", "expires": "0", "key": "a", '
        '"kms_key_id": "arn", "last_modified": "2026-11-22T12:00:00Z", "md5": "' + MD5 + '", "name": "files/a", '
        '"number": 0, "offset_bytes": 10752, "sha256": "' + SHA256 + '", "size_bytes": 3, '
        '"storage_class": "STANDARD_IA", "tags": {"team": "a"}, "user_metadata": {"owner": "me"}, '
        '"version_id": "null", "website_redirect": "/b"}',
        "]}",
    ]


def test_keys_of_objects_hold_the_serial() -> None:
    assert archive_key(17, "tar") == "archives/0000000017.tar"
    assert archive_key(18, "object") == "archives/0000000018.object"
    assert manifest_key(17) == "manifests/0000000017.json"


def test_a_null_version_is_pinned_by_its_etag() -> None:
    assert source().identity == ("a", "v1")
    assert source(version_id="null").identity == ("a", "null-e")


def test_a_large_object_is_proved_by_its_sha256() -> None:
    manifest = single(archive=18, bucket="content", object_key=archive_key(18, "object"), source=source())
    assert (manifest.object_sha256, manifest.object_crc64nvme) == (SHA256, "")
    assert parse_manifest(render_manifest(manifest)) == manifest


def test_a_large_object_without_sha256_is_proved_by_its_crc64nvme() -> None:
    large = source(size_bytes=6 * 2**30, sha256="", md5="", checksums={"CRC64NVME": CRC})
    manifest = single(archive=18, bucket="content", object_key="archives/0000000018.object", source=large, supersedes=3)
    assert (manifest.object_sha256, manifest.object_crc64nvme) == ("", CRC)
    assert manifest.members == (Member(source=large, number=0, name="", offset_bytes=0),)
    assert parse_manifest(render_manifest(manifest)) == manifest


def test_a_large_object_without_any_proof_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="exactly one"):
        single(archive=18, bucket="content", object_key="k", source=source(sha256=""))


def test_a_large_object_has_no_contents_of_its_own() -> None:
    manifest = single(archive=18, bucket="content", object_key="k", source=source())
    with pytest.raises(ManifestInvalid, match="name"):
        _ = manifest.contents


def test_unknown_fields_are_ignored() -> None:
    manifest = tar_manifest(source())
    document = json.loads(render_manifest(manifest))
    document["later"] = {"x": 1}
    document["members"][0]["also_later"] = [1.5]
    assert parse_manifest(json.dumps(document).encode()) == manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": ""}, "'': key must have 1 to 1024 bytes"),
        ({"key": "ü" * 513}, "key must have"),
        ({"key": "\ud800"}, "key holds half a surrogate pair"),
        ({"user_metadata": {"a": "\udfff"}}, "'a': user_metadata holds half"),
        ({"user_metadata": {"\udfff": "a"}}, "user_metadata holds half"),
        ({"version_id": ""}, "version_id must not be empty"),
        ({"etag": ""}, "etag must not be empty"),
        ({"size_bytes": -1}, "size_bytes must not be negative"),
        ({"last_modified": NOON.replace(tzinfo=None)}, "last_modified must name its time zone"),
        (
            {"last_modified": datetime(1969, 1, 1, tzinfo=UTC)},
            "last_modified must name its time zone and lie between",
        ),
        ({"sha256": SHA256.upper()}, "sha256 must be lower-case"),
        ({"sha256": SHA256 + "\n"}, "sha256 must be lower-case"),
        ({"md5": "1"}, "md5 must be lower-case"),
    ],
)
def test_a_source_that_cannot_be_written_down_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        source(**changes)


def put(name: str, value: object) -> Damage:
    return lambda document: document.update({name: value})


def put_in(position: int, name: str, value: object) -> Damage:
    return lambda document: document["members"][position].update({name: value})


def drop(name: str) -> Damage:
    return lambda document: document.pop(name)


def drop_in(position: int, name: str) -> Damage:
    return lambda document: document["members"][position].pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("format", "neve-archive"), "format must be 'neve-manifest'"),
        (drop("format"), "format must be"),
        (put("version", 2), "version 2 is newer than 1, which this neve reads: use a newer one"),
        (put("version", 0), "version must be 1 or more"),
        (put("version", True), "version must be an integer"),
        (put("version", 1.0), "version must be an integer"),
        (drop("version"), "version must be an integer"),
        (put("archive", 0), "archive must be 1 or more"),
        (put("archive", "17"), "archive must be an integer"),
        (put("bucket", ""), "bucket must not be empty"),
        (put("bucket", 7), "bucket must be a string"),
        (put("bucket", "\ud800"), "bucket holds half"),
        (put("kind", "zip"), "kind must be tar or object, not 'zip'"),
        (put("kind", "object"), "members must be one, number 0 at offset 0 without a name"),
        (put("object_key", ""), "object_key must have 1 to 1024 bytes"),
        (put("object_key", "\ud800"), "object_key holds half"),
        (put("object_size_bytes", 13313), "object_size_bytes is 13313, but its last member implies 13312"),
        (put("object_sha256", "xyz"), "object_sha256 must be lower-case"),
        (put("object_sha256", None), "object_sha256 must be a string"),
        (put("object_crc64nvme", CRC), "exactly one must be given"),
        (put("object_crc64nvme", "AAAA"), "object_crc64nvme must be base64 of 8 bytes"),
        (put("object_crc64nvme", "ü"), "object_crc64nvme must be base64"),
        (put("object_crc64nvme", "A"), "object_crc64nvme must be base64"),
        (drop("object_sha256"), "exactly one must be given"),
        (put("supersedes", 0), "supersedes must be the serial of an earlier archive"),
        (put("supersedes", 17), "supersedes must be"),
        (put("supersedes", None), "supersedes must be an integer"),
        (put("members", []), "members must not be empty"),
        (put("members", {}), "members must be a list"),
        (drop("members"), "members must be a list"),
        (put("members", ["x"]), "member 0: members must hold objects only"),
        (lambda document: document["members"].reverse(), "member 'a': members must be sorted"),
        (put_in(1, "key", "a"), "member 'a': members must be sorted by .key, pin., each once"),
        (put_in(1, "number", 0), "member 'b': number must be 1, not 0"),
        (put_in(1, "name", "files/a"), "member 'b': name must be a safe path of its own"),
        (put_in(1, "name", "files/../b"), "member 'b': name must be a safe path"),
        (put_in(1, "offset_bytes", 10753), "member 'b': offset_bytes 10753 is no block"),
        (put_in(1, "offset_bytes", 10752), "member 'b': offset_bytes 10752 is no block"),
        (put_in(1, "offset_bytes", 11264), "member 'b': offset_bytes 11264 is no block"),
        (put_in(0, "offset_bytes", 1024), "member 'a': offset_bytes 1024 is no block"),
        (put_in(0, "offset_bytes", -512), "member 'a': offset_bytes -512 is no block"),
        (put_in(0, "size_bytes", 513), "member 'b': offset_bytes"),
        (put_in(0, "size_bytes", "3"), "member 'a': size_bytes must be an integer"),
        (put_in(0, "sha256", ""), "member 'a': sha256, md5 must not be empty"),
        (drop_in(0, "md5"), "member 'a': sha256, md5 must not be empty"),
        (put_in(0, "last_modified", "yesterday"), "member 'a': last_modified must be as 2026-11-22T10:00:00Z"),
        (put_in(0, "last_modified", "2026-11-22T12:00:00"), "last_modified must be as"),
        (put_in(0, "last_modified", "2026-11-22T13:00:00+01:00"), "last_modified must be as"),
        (put_in(0, "last_modified", "0001-01-01T00:00:00+01:00"), "last_modified must be as"),
        (put_in(0, "user_metadata", []), "member 'a': user_metadata must be an object of strings"),
        (put_in(0, "tags", {"a": 1}), "member 'a': tags must be an object of strings"),
        (drop_in(1, "key"), "member 1: key must be a string, not None"),
        (drop_in(1, "name"), "member 'b': name must be a string"),
        (drop_in(1, "number"), "member 'b': number must be an integer"),
    ],
)
def test_a_damaged_manifest_is_refused_by_field_and_member(damage: Damage, message: str) -> None:
    document = json.loads(render_manifest(tar_manifest(source("a"), source("b"))))
    damage(document)
    with pytest.raises(ManifestInvalid, match=message):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'\xef\xbb\xbf{"format": "neve-manifest"}',
        b'{"format": "neve-manifest", "format": "neve-manifest"}',
        b'{"format": NaN}',
        b"[" * 100_000,
        b'{"version": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="the document"):
        parse_manifest(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_manifest_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    rendered = bytearray(render_manifest(tar_manifest(source("a"), source("b", tags={"x": "y"}))))
    for _ in range(data.draw(st.integers(1, 3))):
        rendered[data.draw(st.integers(0, len(rendered) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_manifest(bytes(rendered))
    except ManifestInvalid:
        return
    assert parse_manifest(render_manifest(parsed)) == parsed


def test_contents_and_manifest_are_not_taken_for_each_other() -> None:
    with pytest.raises(ManifestInvalid, match="format must be 'neve-archive', not 'neve-manifest'"):
        parse_contents(render_manifest(tar_manifest(source())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_size_bytes": 4}, "'a': size_bytes must be the size of the archive's object"),
        ({"object_sha256": SHA256[::-1]}, "'a': sha256 must be that of the archive's object"),
        ({"members": ()}, "members must not be empty"),
    ],
)
def test_a_large_object_agrees_with_its_member(changes: dict[str, Any], message: str) -> None:
    manifest = single(archive=18, bucket="content", object_key="k", source=source())
    with pytest.raises(ManifestInvalid, match=message):
        replace(manifest, **changes)


def test_a_tar_is_proved_by_sha256_alone() -> None:
    with pytest.raises(ManifestInvalid, match="object_sha256 must be given for a tar"):
        tar_manifest(source(), object_sha256="", object_crc64nvme=CRC)


def test_contents_start_behind_a_header_and_a_block_of_json() -> None:
    member = Member(source=source(), number=0, name="files/a", offset_bytes=1536)
    assert Contents(archive=1, bucket="b", members=(member,)).members == (member,)
    with pytest.raises(ManifestInvalid, match="offset_bytes 1024"):
        Contents(archive=1, bucket="b", members=(replace(member, offset_bytes=1024),))

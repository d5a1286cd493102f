"""What operators type for sources and destinations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neve.domain.index import FileRow
from neve.domain.layout import Layout, content_key
from neve.domain.selection import (
    Destination,
    InBucket,
    InFolder,
    ManyKeys,
    OneKey,
    OneMember,
    Places,
    Selection,
    SelectionInvalid,
    Source,
    WholeArchive,
    as_of,
    current,
    folder_path,
    parse_destination,
    parse_site_urls,
    parse_source,
    parse_time,
)
from tests.bad_keys import BAD_KEYS

SITE = "https://cdn.example.org/media/=uploads/,https://cdn.example.org/,HTTP://Old.example.org/files"
PLACES = Places(
    content_bucket="content",
    destination_buckets=frozenset({"content", "up", "other"}),
    uploads_bucket="up",
    site_urls=parse_site_urls(SITE),
)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def source(text: str, version_id: str = "", at: datetime | None = None) -> Source:
    return parse_source(text, PLACES, version_id=version_id, at=at).source


def destination(text: str, *folders: str) -> Destination:
    return parse_destination(text, PLACES, lambda path: path in folders)


def row(version_id: str, modified: datetime, *, archive: int = 1, number: int = 0, key: str = "a") -> FileRow:
    return FileRow(
        key=key,
        version_id=version_id,
        pin=version_id,
        size_bytes=1,
        sha256="",
        md5="",
        last_modified=modified,
        archive=archive,
        number=number,
        offset_bytes=0,
    )


# -- Sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "guessed"),
    [
        ("photos/cat.jpg", OneKey(key="photos/cat.jpg"), ""),
        ("s3://content/photos/cat.jpg", OneKey(key="photos/cat.jpg"), ""),
        ("s3://content/a?versionId=v/1+2", OneKey(key="a", version_id="v/1+2"), ""),
        ("s3://content/17?versionId=v", OneKey(key="17", version_id="v"), ""),
        ("s3://content/a*?versionId=x?versionId=v", OneKey(key="a*?versionId=x", version_id="v"), ""),
        ("s3://content//slash", OneKey(key="/slash"), ""),
        ("s3://content/17", OneKey(key="17"), ""),
        ("photos/", ManyKeys(prefix="photos/"), "prefix:photos/"),
        ("s3://content/photos/", ManyKeys(prefix="photos/"), "prefix:photos/"),
        ("photos/*.jpg", ManyKeys(prefix="photos/", pattern="photos/*.jpg"), "glob:photos/*.jpg"),
        ("s3://content/p?", ManyKeys(prefix="p", pattern="p?"), "glob:p?"),
        ("a[1]/", ManyKeys(prefix="a", pattern="a[1]/"), "glob:a[1]/"),
        ("a[!]", OneKey(key="a[!]"), ""),
        ("a[]", OneKey(key="a[]"), ""),
        ("a[", OneKey(key="a["), ""),
        ("17", WholeArchive(archive=17), "archive:17"),
        ("17.3", OneMember(archive=17, number=3), "id:17.3"),
        ("17.0", OneMember(archive=17, number=0), "id:17.0"),
        ("017", OneKey(key="017"), ""),
        ("17.03", OneKey(key="17.03"), ""),
        ("0", OneKey(key="0"), ""),
        ("1234567890123", OneKey(key="1234567890123"), ""),
        ("key:17", OneKey(key="17"), ""),
        ("key:key:a", OneKey(key="key:a"), ""),
        ("key:photos/", OneKey(key="photos/"), ""),
        ("key:a*", OneKey(key="a*"), ""),
        ("key:s3://x/y", OneKey(key="s3://x/y"), ""),
        ("prefix:photos/2026-", ManyKeys(prefix="photos/2026-"), ""),
        ("prefix:", ManyKeys(prefix=""), ""),
        ("glob:plain", ManyKeys(prefix="plain", pattern="plain"), ""),
        ("archive:17", WholeArchive(archive=17), ""),
        ("id:17.3", OneMember(archive=17, number=3), ""),
        ("other:thing", OneKey(key="other:thing"), ""),
        (" ", OneKey(key=" "), ""),
    ],
)
def test_a_source_is_what_it_looks_like_unless_its_form_is_named(text: str, expected: Source, guessed: str) -> None:
    read = parse_source(text, PLACES)
    assert (read.source, read.guessed) == (expected, guessed)


def test_what_was_guessed_names_the_key_that_would_make_it_ambiguous() -> None:
    assert parse_source("s3://content/photos/", PLACES).text == "photos/"
    assert parse_source("17", PLACES).text == "17"


@given(st.sampled_from(BAD_KEYS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_every_key_can_be_named(key: str) -> None:
    assert source(f"key:{key}") == OneKey(key=key)
    assert source(f"s3://content/{key}?versionId=v") == OneKey(key=key, version_id="v")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("\udcff", "not UTF-8"),
        ("k" * 1025, "1,025"),
        ("key:", "1 to 1,024 bytes"),
        ("s3://other/a", "s3://content/"),
        ("s3://content", "s3://content/*"),
        ("s3://content/", "s3://content/*"),
        ("archive:x", "archive's number"),
        ("archive:", "archive's number"),
        ("id:17", "file's id"),
        ("https://elsewhere.example.org/a", "https://cdn.example.org/media/"),
        ("https://cdn.example.org/%ff", "no URL"),
        ("https://[x/", "no URL"),
        ("https://cdn.example.org/", "1 to 1,024"),
    ],
)
def test_what_is_no_source_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(SelectionInvalid) as refused:
        parse_source(text, PLACES)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://cdn.example.org/a/b.jpg", "a/b.jpg"),
        ("HTTPS://CDN.Example.org/a/B.jpg", "a/B.jpg"),
        ("https://cdn.example.org/media/b.jpg", "uploads/b.jpg"),
        ("https://cdn.example.org/mediab.jpg", "mediab.jpg"),
        ("http://old.example.org/files/a", "a"),
        ("https://cdn.example.org/a%20b+c%C3%A9.jpg?v=3&w=4#top", "a b+cé.jpg"),
        ("https://cdn.example.org/a%2Fb", "a/b"),
        ("https://cdn.example.org/a*", "a*"),
        ("https://cdn.example.org/17", "17"),
        ("https://cdn.example.org/folder/", "folder/"),
    ],
)
def test_a_url_of_the_site_names_a_key(url: str, key: str) -> None:
    read = parse_source(url, PLACES)
    assert (read.source, read.guessed) == (OneKey(key=key), "")


def test_a_url_of_the_site_or_of_the_cdn_names_the_place_where_the_layout_puts_its_file() -> None:
    places = replace(PLACES, layout=Layout.HASHED)
    stored = content_key("a b/c.jpg", Layout.HASHED)
    for path in ("a%20b/c.jpg", stored.replace(" ", "%20")):
        assert parse_source(f"https://cdn.example.org/{path}", places).source == OneKey(key=stored)
    assert parse_source("a b/c.jpg", places).source == OneKey(key="a b/c.jpg"), "a key is that in the content bucket"


@pytest.mark.parametrize(("path", "why"), [("k" * 1020, "at most 1018 bytes"), ("", "has 1 to 1,024 bytes")])
def test_a_url_whose_file_the_layout_cannot_hold_is_refused(path: str, why: str) -> None:
    with pytest.raises(SelectionInvalid, match=why):
        parse_source(f"https://cdn.example.org/{path}", replace(PLACES, layout=Layout.HASHED))


@pytest.mark.parametrize("text", ["-", "", " , "])
def test_a_site_without_urls_says_so(text: str) -> None:
    places = replace(PLACES, site_urls=parse_site_urls(text))
    with pytest.raises(SelectionInvalid, match="there are: none"):
        parse_source("https://cdn.example.org/a", places)


def test_a_glob_crosses_slashes_and_starts_where_its_literal_part_ends() -> None:
    glob = source("a/*/[xy]?.jpg")
    assert isinstance(glob, ManyKeys)
    assert glob.prefix == "a/"
    assert [glob.matches(key) for key in ("a/b/x1.jpg", "a/b/c/y2.jpg", "a/b/\n/x1.jpg")] == [True] * 3
    assert [glob.matches(key) for key in ("a/b/z1.jpg", "a/b/x1.jpg2", "a/B/X1.JPG")] == [False] * 3
    assert ManyKeys(prefix="a/").matches("a/anything")


def test_a_version_or_a_time_is_said_once() -> None:
    assert source("a", version_id="v") == OneKey(key="a", version_id="v")
    assert source("17", version_id="v") == OneKey(key="17", version_id="v")
    assert source("17.3", version_id="v") == OneKey(key="17.3", version_id="v")
    assert source("a*/", version_id="v") == OneKey(key="a*/", version_id="v")
    assert source("s3://content/a/", version_id="v") == OneKey(key="a/", version_id="v")
    assert source("s3://content/a?versionId=v", version_id="v") == OneKey(key="a", version_id="v")
    assert source("a", at=NOON) == OneKey(key="a", at=NOON)
    assert source("a/", at=NOON) == ManyKeys(prefix="a/", at=NOON)


@pytest.mark.parametrize(
    ("text", "version_id", "at", "why"),
    [
        ("s3://content/a?versionId=v", "w", None, "two versions"),
        ("s3://content/a?versionId=v", "", NOON, "either a version or a time"),
        ("prefix:a/", "v", None, "belongs to one key"),
        ("archive:17", "", NOON, "leave it out"),
        ("17.3", "", NOON, "leave it out"),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, version_id: str, at: datetime | None, why: str) -> None:
    with pytest.raises(SelectionInvalid, match=why):
        source(text, version_id, at)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", OneKey(key="a", at=NOON)),
        ("a/", ManyKeys(prefix="a/", at=NOON)),
        ("s3://content/a?versionId=v", OneKey(key="a", version_id="v")),
        ("17", WholeArchive(archive=17)),
        ("17.3", OneMember(archive=17, number=3)),
    ],
)
def test_a_time_for_all_leaves_alone_what_names_its_version(text: str, expected: Source) -> None:
    assert as_of(parse_source(text, PLACES), NOON).source == expected


def test_a_time_of_its_own_is_stronger_than_the_time_for_all() -> None:
    earlier = NOON - timedelta(days=1)
    assert as_of(parse_source("a", PLACES, at=earlier), NOON).source == OneKey(key="a", at=earlier)
    assert as_of(Selection(source=ManyKeys(prefix="", at=earlier), text=""), NOON).source == ManyKeys(
        prefix="", at=earlier
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00", NOON),
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22T13:00:00+01:00", NOON),
        ("2026-11-22 12:00", NOON),
        ("2026-11-22", NOON - timedelta(hours=12)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(SelectionInvalid, match="2026-11-22T14:30:00"):
        parse_time("yesterday")


def test_the_newest_version_is_meant_or_the_newest_by_then() -> None:
    old, new = row("old", NOON), row("new", NOON + timedelta(hours=1))
    assert OneKey(key="a").chosen([new, old]) == new
    assert OneKey(key="a", at=NOON).chosen([new, old]) == old
    assert OneKey(key="a", at=NOON - timedelta(seconds=1)).chosen([new, old]) is None
    assert OneKey(key="a", version_id="old").chosen([new, old]) == old
    assert OneKey(key="a", version_id="gone").chosen([new, old]) is None
    assert current([], None) is None


def test_of_two_in_one_second_the_one_archived_last_is_meant() -> None:
    tied = [row("a", NOON, archive=9, number=1), row("b", NOON, archive=10), row("c", NOON, archive=9, number=2)]
    assert current(tied, None) == tied[1]


def test_of_versions_without_ids_the_newest_is_meant() -> None:
    old = replace(row("null", NOON), pin="null-1")
    new = replace(row("null", NOON + timedelta(hours=1)), pin="null-2")
    assert OneKey(key="a", version_id="null").chosen([old, new]) == new


# -- Destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("content", InBucket(bucket="content")),
        ("uploads", InBucket(bucket="up")),
        ("s3://other", InBucket(bucket="other")),
        ("s3://other/", InBucket(bucket="other")),
        ("s3://other/back/", InBucket(bucket="other", key="back/")),
        ("s3://other/back/cat.jpg", InBucket(bucket="other", key="back/cat.jpg", exact=True)),
        ("file:out", InFolder(path="out", exact=True)),
        ("file:out/", InFolder(path="out/")),
        ("file:here", InFolder(path="here")),
        ("here", InFolder(path="here")),
        ("out/", InFolder(path="out/")),
        ("./out", InFolder(path="./out", exact=True)),
        ("/tmp/out/", InFolder(path="/tmp/out/")),
        ("~/out", InFolder(path="~/out", exact=True)),
        ("file:content", InFolder(path="content")),
    ],
)
def test_a_destination_is_a_bucket_or_a_local_path(text: str, expected: Destination) -> None:
    assert destination(text, "here", "content") == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("./\udcff", "not UTF-8"),
        ("somewhere", "./somewhere"),
        ("s3://stranger/", "restore_buckets"),
        ("s3://other/a?versionId=v", "no version"),
        ("file:", "path of a folder"),
        ("./a\0b", "path of a folder"),
    ],
)
def test_what_is_no_destination_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(SelectionInvalid) as refused:
        destination(text)
    assert why in str(refused.value)


def test_a_file_keeps_its_key_below_a_prefix() -> None:
    assert InBucket(bucket="content").place("a//b") == "s3://content/a//b"
    assert InBucket(bucket="other", key="back/").place("a b") == "s3://other/back/a b"
    assert InBucket(bucket="other", key="one", exact=True).place("a b") == "s3://other/one"
    with pytest.raises(SelectionInvalid, match="1,024"):
        InBucket(bucket="other", key="back/").place("k" * 1024)


def test_what_goes_back_to_the_uploads_bucket_has_the_key_that_the_application_calls_it_by() -> None:
    def placed(text: str, key: str) -> str:
        found = parse_destination(text, replace(PLACES, layout=Layout.HASHED), lambda _: False)
        assert isinstance(found, InBucket)
        return found.place(key)

    stored = content_key("photos/a.jpg", Layout.HASHED)
    assert placed("uploads", stored) == placed("s3://up/", stored) == "s3://up/photos/a.jpg"
    assert placed("s3://up/old/", stored) == "s3://up/old/photos/a.jpg"
    assert placed("s3://up/one", stored) == "s3://up/one"
    assert placed("uploads", "photos/from-before.jpg") == "s3://up/photos/from-before.jpg"
    assert placed("content", stored) == f"s3://content/{stored}"
    assert placed("s3://other/", stored) == f"s3://other/{stored}"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_no_key_leads_out_of_a_folder(key: str) -> None:
    path = PurePosixPath(folder_path(key))
    assert not path.is_absolute()
    assert path.parts
    assert not {"..", "."} & set(path.parts)
    assert all(len(part.encode()) <= 255 for part in path.parts)
    assert not {character for character in str(path) if ord(character) < 32}

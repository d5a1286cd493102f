"""What a request is answered with, for everything that can be known of a file."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neve.domain.layout import Layout, content_key
from neve.domain.pointer import InContent, OnHost, Pointer
from neve.domain.route import (
    Answer,
    Asked,
    Kind,
    Known,
    Look,
    PathAmbiguous,
    PathRefused,
    Rules,
    by_key,
    failed,
    has_dot_segments,
    key_of,
    next_step,
    not_allowed,
    path_of,
    pointed,
    refused,
    restoring,
    unknown,
)

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
KEY = "img/a b.jpg"
CDN = "https://cdn.example.com"
RULES = Rules(
    layout=Layout.AS_IS,
    cdn_bases=(CDN,),
    private_prefixes=("private/",),
    redirect_max_age_s=300,
    upload_url_s=60,
    signed_url_s=600,
)


def in_content(key: str = KEY, **changed: Any) -> InContent:
    fields: dict[str, Any] = {
        "key": key,
        "content_key": key,
        "content_version": "c1",
        "upload_version": "u1",
        "sequencer": "1",
        "size_bytes": 3,
        "etag": "e",
        "since": NOW,
    }
    return InContent(**fields | changed)


def on_host(url: str = "https://www1.example.com/img/a%20b.jpg", key: str = KEY) -> OnHost:
    return OnHost(key=key, url=url, since=NOW)


@dataclass(frozen=True)
class World:
    """Where a file is. Nothing of it changes while it is looked for."""

    pointer: Pointer | None
    in_uploads: bool
    in_content: bool

    def ends_with(self, asked: Asked, rules: Rules) -> tuple[Answer | Look, list[Look]]:
        """What all look-ups lead to, and what was looked at; the archive is not asked."""
        known, looks = Known(), list[Look]()
        while isinstance(step := next_step(asked, known, rules), Look) and step is not Look.ARCHIVE:
            looks.append(step)
            known = replace(known, looked=known.looked | {step})
            match step:
                case Look.POINTER | Look.POINTER_AGAIN:
                    known = replace(known, pointer=self.pointer)
                case Look.UPLOAD:
                    known = replace(known, in_uploads=self.in_uploads)
                case Look.CONTENT:
                    known = replace(known, in_content=self.in_content)
        return step, looks


# pointer, in the uploads, in the content bucket: without and with restores
P, U, C, A, PP = Look.POINTER, Look.UPLOAD, Look.CONTENT, Look.ARCHIVE, Look.POINTER_AGAIN
Row = tuple[str, bool, bool, Kind, list[Look], Kind | Look, list[Look]]
TABLE: list[Row] = [
    ("none", False, False, Kind.UNKNOWN, [P, U, PP, C], A, [P, U, PP, C]),
    ("none", False, True, Kind.CDN, [P, U, PP, C], Kind.CDN, [P, U, PP, C]),
    ("none", True, False, Kind.UPLOAD, [P, U], Kind.UPLOAD, [P, U]),
    ("none", True, True, Kind.UPLOAD, [P, U], Kind.UPLOAD, [P, U]),
    ("host", False, False, Kind.HOST, [P], Kind.HOST, [P]),
    ("host", False, True, Kind.HOST, [P], Kind.HOST, [P]),
    ("host", True, False, Kind.HOST, [P], Kind.HOST, [P]),
    ("host", True, True, Kind.HOST, [P], Kind.HOST, [P]),
    ("no url", False, False, Kind.FAILED, [P, U, PP, C], Kind.FAILED, [P, U, PP, C]),
    ("no url", False, True, Kind.CDN, [P, U, PP, C], Kind.CDN, [P, U, PP, C]),
    ("no url", True, False, Kind.UPLOAD, [P, U], Kind.UPLOAD, [P, U]),
    ("no url", True, True, Kind.UPLOAD, [P, U], Kind.UPLOAD, [P, U]),
    ("content", False, False, Kind.CDN, [P], A, [P, C, U]),
    ("content", False, True, Kind.CDN, [P], Kind.CDN, [P, C]),
    ("content", True, False, Kind.CDN, [P], Kind.UPLOAD, [P, C, U]),
    ("content", True, True, Kind.CDN, [P], Kind.CDN, [P, C]),
]
POINTERS: dict[str, Pointer | None] = {
    "none": None,
    "host": on_host(),
    "no url": on_host("file:///etc/passwd"),
    "content": in_content(),
}


def test_the_table_has_every_place_where_a_file_can_be() -> None:
    assert [row[:3] for row in TABLE] == list(itertools.product(POINTERS, (False, True), (False, True)))


@pytest.mark.parametrize("row", TABLE, ids=str)
@pytest.mark.parametrize("private", [False, True])
def test_where_a_file_is_decides_the_answer_and_what_is_looked_at(row: Row, private: bool) -> None:
    pointer, uploads, content, *with_and_without = row
    key = f"private/{KEY}" if private else KEY
    standing = POINTERS[pointer]
    found = replace(standing, key=key, content_key=key) if isinstance(standing, InContent) else standing
    world = World(found, uploads, content)
    kind, looks, kind_if_restoring, looks_if_restoring = with_and_without
    for rules, expected, order in (
        (RULES, kind, looks),
        (replace(RULES, restores=True), kind_if_restoring, looks_if_restoring),
    ):
        step, looked = world.ends_with(Asked(key=key), rules)
        ended = step.kind if isinstance(step, Answer) else step
        assert ended == (Kind.SIGNED if private and expected is Kind.CDN else expected)
        assert looked == order


ANSWERS: list[tuple[Kind, int, str, int]] = [
    (Kind.CDN, 302, "public, max-age=300", 0),
    (Kind.SIGNED, 302, "private, no-store", 600),
    (Kind.UPLOAD, 302, "private, no-store", 60),
    (Kind.HOST, 302, "no-store", 0),
    (Kind.UNKNOWN, 404, "no-store", 0),
    (Kind.FAILED, 503, "no-store", 0),
]


def every_answer() -> list[Answer]:
    found: list[Answer] = []
    for pointer, uploads, content in itertools.product(POINTERS.values(), (False, True), (False, True)):
        for key in (KEY, f"private/{KEY}"):
            standing = replace(pointer, content_key=key) if isinstance(pointer, InContent) else pointer
            step, _ = World(standing, uploads, content).ends_with(Asked(key=key, query="v=1"), RULES)
            assert isinstance(step, Answer)
            found.append(step)
    return found


@pytest.mark.parametrize(("kind", "status", "cache_control", "lifetime_s"), ANSWERS, ids=str)
def test_each_kind_of_answer_is_cached_as_long_as_it_is_true(
    kind: Kind, status: int, cache_control: str, lifetime_s: int
) -> None:
    given_ = [each for each in every_answer() if each.kind is kind]
    assert given_
    for answer in given_:
        private_host = kind is Kind.HOST and answer.cache_control == "private, no-store"
        assert answer.cache_control == ("private, no-store" if private_host else cache_control)
        assert (answer.status, answer.lifetime_s) == (status, lifetime_s)
        assert bool(answer.retry_after_s) == (status == 503)
        assert answer.headers["Cache-Control"] == answer.cache_control


def test_only_redirects_to_the_cdn_may_be_kept_by_a_cache() -> None:
    assert {each.kind for each in every_answer() if "no-store" not in each.cache_control} == {Kind.CDN}


def test_an_answer_is_a_place_or_something_to_sign_or_a_word() -> None:
    for answer in every_answer():
        assert [bool(answer.location), bool(answer.to_sign), bool(answer.text)].count(True) == 1
        assert ("Location" in answer.headers) == bool(answer.location)


def test_answers_without_a_place_say_what_to_do() -> None:
    assert not_allowed().headers["Allow"] == "GET, HEAD"
    assert (not_allowed().status, refused("x").status, unknown().status, failed().status) == (405, 400, 404, 503)
    assert failed().headers["Retry-After"] == "5"
    assert restoring(retry_after_s=60, text="x").headers["Retry-After"] == "60"
    assert restoring(retry_after_s=60, text="x").status == 202
    assert all(each.cache_control == "no-store" for each in (not_allowed(), refused("x"), unknown(), failed()))


# -- Paths and keys


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/a.jpg", "a.jpg"),
        ("/a%20b.jpg", "a b.jpg"),
        ("/a+b.jpg", "a+b.jpg"),
        ("/a%2Bb.jpg", "a+b.jpg"),
        ("/a%252Bb.jpg", "a%2Bb.jpg"),  # once, not twice
        ("/a%2Fb.jpg", "a/b.jpg"),
        ("/a%3Fb.jpg", "a?b.jpg"),
        ("/%C3%BC.jpg", "ü.jpg"),
        ("/ü.jpg", "ü.jpg"),
        ("/a%0Ab%0D.jpg", "a\nb\r.jpg"),
        ("//a.jpg", "/a.jpg"),
        ("/a//b/", "a//b/"),
        ("/100%.jpg", "100%.jpg"),
        ("/a%00b", "a\0b"),
        ("/..a/b..", "..a/b.."),
        ("/" + "k" * 1024, "k" * 1024),
        ("/" + "%C3%BC" * 512, "ü" * 512),
    ],
)
def test_a_path_names_a_key(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize(
    "path", ["", "/", "/.neve/drill/x", "/%2Eneve/x", "/%FC.jpg", "/\ud800.jpg", "/" + "k" * 1025, "/" + "%C3%BC" * 513]
)
def test_a_path_that_no_key_of_s3_has_is_refused(path: str) -> None:
    with pytest.raises(PathRefused) as caught:
        key_of(path)
    assert not isinstance(caught.value, PathAmbiguous)


@pytest.mark.parametrize(
    "path", ["/..", "/.", "/a/../private/x", "/a/%2e%2E/private/x", "/a/.%2e", "/./a", "/a/./b", "/a%2F..%2Fb"]
)
def test_a_path_with_dot_segments_is_refused_however_it_is_written(path: str) -> None:
    with pytest.raises(PathAmbiguous, match="names no file here"):
        key_of(path)


keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda key: not has_dot_segments(key))


@settings(max_examples=60, deadline=None)
@given(key=keys)
def test_the_path_of_a_key_names_it_again(key: str) -> None:
    assert key_of(path_of(key)) == key


# -- Locations


@settings(max_examples=60, deadline=None)
@given(key=keys, query=st.text(max_size=20), layout=st.sampled_from(Layout))
def test_a_redirect_to_the_cdn_leads_to_the_files_key_on_the_cdn_and_nowhere_else(
    key: str, query: str, layout: Layout
) -> None:
    pointer = in_content(key, content_key=content_key(key, layout))
    answer = pointed(key, pointer, replace(RULES, private_prefixes=(), layout=layout), query=query)
    assert answer
    location = answer.location
    assert all("!" <= character <= "~" for character in location)  # nothing ends the header, or begins another
    parts = urlsplit(location)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "cdn.example.com", "")
    assert unquote_to_bytes(parts.path.removeprefix("/")).decode() == content_key(key, layout)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("v=2", "?v=2"),
        ("a=1+2&b=%20&c", "?a=1+2&b=%20&c"),
        ("x=\r\nSet-Cookie: a=b", "?x=%0D%0ASet-Cookie:%20a=b"),
        ("a#b", "?a%23b"),
        ("ü", "?%C3%BC"),
    ],
)
def test_a_query_string_goes_on_to_the_cdn(query: str, kept: str) -> None:
    answer = pointed(KEY, in_content(), RULES, query=query)
    assert answer
    assert answer.location == f"{CDN}/img/a%20b.jpg{kept}"


def test_a_query_string_goes_into_no_signed_url_and_to_no_host() -> None:
    private = f"private/{KEY}"
    signed = pointed(private, in_content(private), RULES, query="v=1")
    upload, _ = World(None, in_uploads=True, in_content=False).ends_with(Asked(key=KEY, query="v=1"), RULES)
    host = pointed(KEY, on_host(), RULES, query="v=1")
    assert isinstance(upload, Answer)
    assert (signed and signed.to_sign, upload.to_sign) == (private, KEY)
    assert host
    assert host.location == on_host().url


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ftp://example.com/a",
        "//example.com/a",
        "https:///a",
        "https://user@example.com/a",
        "https://www.example.com\\@other.example.com/",
        "https://example.com/a b",
        "https://example.com/a\r\nSet-Cookie: x=y",
        "https://example.com/ü",
        "",
    ],
)
def test_a_hosts_url_that_is_no_plain_one_of_http_leads_nowhere(url: str) -> None:
    assert pointed(KEY, on_host(url), RULES) is None


@pytest.mark.parametrize("url", ["http://10.0.0.7:8080/a", "https://www1.example.com/a%20b?x#y", "http://[::1]:80/a"])
def test_a_hosts_plain_url_is_where_the_file_is(url: str) -> None:
    answer = pointed(KEY, on_host(url), RULES)
    assert answer
    assert answer.location == url


def test_a_host_with_a_private_file_is_told_to_nobody_else() -> None:
    answer = pointed(f"private/{KEY}", on_host(), RULES)
    assert answer
    assert answer.cache_control == "private, no-store"


# -- Layout, private prefixes, names of the CDN


def test_with_the_layout_hashed_a_redirect_names_the_key_in_the_content_bucket() -> None:
    rules = replace(RULES, layout=Layout.HASHED)
    stored = content_key(KEY, Layout.HASHED)
    for pointer in (None, in_content(content_key=stored)):
        answer, _ = World(pointer, in_uploads=False, in_content=True).ends_with(Asked(key=KEY), rules)
        assert isinstance(answer, Answer)
        assert answer.location == CDN + path_of(stored)


def test_a_key_too_long_for_the_layout_may_be_an_upload_and_nothing_else() -> None:
    rules, asked = replace(RULES, layout=Layout.HASHED, restores=True), Asked(key="k" * 1020)
    answer, _ = World(None, in_uploads=True, in_content=False).ends_with(asked, rules)
    assert isinstance(answer, Answer)
    assert answer.kind is Kind.UPLOAD
    answer, looks = World(None, in_uploads=False, in_content=True).ends_with(asked, rules)
    assert answer == unknown()
    assert looks == [P, U, PP]


@pytest.mark.parametrize(
    ("key", "private"),
    [
        ("private/a", True),
        ("/private/a", True),
        ("//private//a", True),
        ("private//a", True),
        ("private", False),
        ("privat/e", False),
        ("Private/a", False),
        ("x/private/a", False),
        ("ab/cd/private/a", True),  # the CDN takes it for one of the layout `hashed`
        ("ab/cd/e/private/a", False),
        ("privateer/a", False),
    ],
)
def test_a_file_is_private_by_its_own_key_however_many_slashes_it_has(key: str, private: bool) -> None:
    assert RULES.is_private(key) is private


def test_what_is_private_is_told_by_the_applications_key_not_by_where_it_lies() -> None:
    rules = replace(RULES, layout=Layout.HASHED)
    stored = content_key("private/a", Layout.HASHED)
    answer = pointed("private/a", in_content("private/a", content_key=stored), rules)
    assert answer
    assert (answer.kind, answer.to_sign) == (Kind.SIGNED, stored)


def test_without_a_cdn_every_file_is_signed() -> None:
    answer = pointed(KEY, in_content(), replace(RULES, cdn_bases=()))
    assert answer
    assert answer.kind is Kind.SIGNED


BASES = tuple(f"https://img{number}.example.com" for number in range(4))


def test_a_key_keeps_its_name_of_the_cdn_and_the_names_share_the_keys() -> None:
    chosen = Counter(by_key(BASES, f"{number}.jpg") for number in range(4_000))
    assert chosen == Counter(by_key(tuple(reversed(BASES)), f"{number}.jpg") for number in range(4_000))
    assert all(900 < count < 1_100 for count in chosen.values())


def test_one_more_name_takes_its_share_from_all_and_moves_nothing_else() -> None:
    for number in range(500):
        before, after = by_key(BASES[:3], f"{number}.jpg"), by_key(BASES, f"{number}.jpg")
        assert after in (before, BASES[3])
    moved = sum(by_key(BASES, f"{number}.jpg") == BASES[3] for number in range(500))
    assert 90 < moved < 160


def test_how_a_name_is_chosen_is_a_rule_of_the_site() -> None:
    rules = replace(RULES, cdn_bases=BASES, choose=lambda bases, _: bases[2])
    answer = pointed(KEY, in_content(), rules)
    assert answer
    assert answer.location.startswith(BASES[2])

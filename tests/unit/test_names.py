"""Paths inside an archive: safe to extract, one for each member, on any file system."""

from __future__ import annotations

import hashlib
import random
import time
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neve.domain.names import MAX_COMPONENT_BYTES, folded_path, is_safe, safe_names

BAD_KEYS = (
    "ü" * 512,
    "x" * 1024,
    "😀" * 256,
    "two words+plus%20percent",
    "quote'\"`",
    "new\nline\r\n",
    "\x00\x1b[2J\x7f\x85",
    "emoji/👩\u200d👩\u200d👧.png",
    "../../etc/passwd",
    "..",
    ".",
    "./a",
    "a/../b",
    "/etc/passwd",
    "//",
    "/",
    "a//b",
    "a/",
    "a",
    "a/b",
    "A",
    "A/B",
    "é",
    "e\u0301",
    "É",
    "ﬁ",
    "FI",
    "K",
    "\u212a",
    "a\\b",
    "C:\\Windows",
    "%2E%2E",
    "%",
    "invoice\u202egpj.exe",
    "line\u2028separator",
    "MANIFEST.json",
    "files/a",
    "ideographic\u3000space",
    "no-break\u00a0space",
    "zero\u200bwidth",
    "zerowidth",
    "\u200b",
    "~",
    "-rf",
    " lead and trail ",
    "a" * 255 + "/b",
    "a" * 256 + "/b",
    "/".join("a" * 512),
)

weird_text = st.text(
    st.one_of(
        st.sampled_from("aAbB./%~\\ é\u0301\u00c9Kk\u212a\n\x00\x7f\x85\u202e\u200b\u2100ßẞ①1\U0001e030"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=40,
)
keys = st.one_of(st.sampled_from(BAD_KEYS), weird_text).filter(lambda key: len(key.encode()) <= 1024)
identities = st.lists(st.tuples(keys, st.sampled_from(("v1", "v2"))), min_size=1, max_size=30, unique=True).map(sorted)


def names_of(*keys: str) -> list[str]:
    return safe_names([(key, "v") for key in keys])


def assert_safe(paths: Sequence[str]) -> None:
    """By rules written independently of the code: what a cautious tar would ask of each path, and of all together."""
    folded = [unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", path).casefold()) for path in paths]
    assert len(set(folded)) == len(paths)
    files = set(folded)
    for path, plain in zip(paths, folded, strict=True):
        assert is_safe(path)
        assert path.startswith("files/")
        assert len(path.encode()) <= 4000
        assert "\\" not in path
        assert not any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in path)
        components = path.split("/")
        assert not set(components) & {"", ".", ".."}
        assert max(len(component.encode()) for component in components) <= 255
        parents = plain.split("/")
        assert not any("/".join(parents[:depth]) in files for depth in range(1, len(parents)))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("photos/2026/cat.jpg", "files/photos/2026/cat.jpg"),
        ("MANIFEST.json", "files/MANIFEST.json"),
        ("/etc/passwd", "files/%/etc/passwd"),
        ("a//b", "files/a/%/b"),
        ("a/", "files/a/%"),
        ("../../etc/passwd", "files/%2E%2E/%2E%2E/etc/passwd"),
        ("./...", "files/%2E/..."),
        ("100%", "files/100%25"),
        ("a\\b", "files/a%5Cb"),
        ("a\nb\x00\x7f\x85", "files/a%0Ab%00%7F%C2%85"),
        ("\u2028\u202e\u2066\u061c", "files/%E2%80%A8%E2%80%AE%E2%81%A6%D8%9C"),
        ("\ud800", "files/%ED%A0%80"),
        ("ü ß+'\"👩\u200d👧", "files/ü ß+'\"👩\u200d👧"),
    ],
)
def test_a_key_becomes_a_path_that_still_reads_like_it(key: str, path: str) -> None:
    assert names_of(key) == [path]


def test_a_long_component_is_cut_between_characters_and_marked_with_its_hash() -> None:
    component = "ü" * 200
    mark = hashlib.sha256(component.encode()).hexdigest()[:12]
    assert names_of(f"a/{component}/b") == [f"files/a/{'ü' * 121}~{mark}/b"]


def test_a_component_is_not_cut_within_an_escape() -> None:
    for length in range(238, 244):
        (path,) = names_of("x" * length + "\n" * 20)
        cut, _, _ = path.removeprefix("files/").rpartition("~")
        assert cut.replace("%0A", "").strip("x") == ""
        assert len(path) <= len("files/") + 255


def test_a_component_of_255_bytes_is_kept() -> None:
    assert names_of("x" * 255) == ["files/" + "x" * 255]
    assert names_of("x" * 256) != ["files/" + "x" * 256]


def test_the_version_that_sorts_later_is_marked() -> None:
    mark = hashlib.sha256(b"a\0v2").hexdigest()[:12]
    assert safe_names([("a", "v1"), ("a", "v2")]) == ["files/a", f"files/a~{mark}"]


@pytest.mark.parametrize(
    "pair", [("A.jpg", "a.jpg"), ("e\u0301", "é"), ("STRASSE", "straße"), ("FI", "ﬁ"), ("K", "\u212a")]
)
def test_keys_that_some_file_system_takes_for_one_get_two_paths(pair: tuple[str, str]) -> None:
    first, second = names_of(*sorted(pair))
    assert first == f"files/{min(pair)}"
    assert second.startswith(f"files/{max(pair)}~")


def test_a_file_gives_way_to_a_folder_even_in_other_case() -> None:
    first, second = names_of("A/b", "a")
    assert first == "files/A/b"
    assert second == "files/a~" + hashlib.sha256(b"a\0v").hexdigest()[:12]


def test_a_mark_that_is_taken_is_drawn_again() -> None:
    taken = "a~" + hashlib.sha256(b"a\0v2").hexdigest()[:12]
    again = "a~" + hashlib.sha256(b"a\0v2\x001").hexdigest()[:12]
    assert safe_names([("a", "v1"), ("a", "v2"), (f"{taken}/x", "v")]) == [
        "files/a",
        f"files/{again}",
        f"files/{taken}/x",
    ]


def test_a_mark_of_a_full_component_keeps_within_255_bytes() -> None:
    first, second = safe_names([("x" * 255, "v1"), ("x" * 255, "v2")])
    assert (len(first), len(second)) == (261, 261)
    assert first != second


@given(identities)
@example([(key, "v") for key in sorted(BAD_KEYS)])
@settings(max_examples=200, deadline=None)
def test_any_keys_have_safe_paths_that_are_theirs_alone(members: list[tuple[str, str]]) -> None:
    assert_safe(safe_names(members))


@given(keys)
def test_the_longest_path_of_a_single_key_is_under_4000_bytes(key: str) -> None:
    repeated = (key * 1024).encode()[:1024].decode("utf-8", "ignore")
    assert_safe(names_of(repeated))


@pytest.mark.parametrize("members", [[("b", "v"), ("a", "v")], [("a", "v"), ("a", "v")]])
def test_members_out_of_order_or_given_twice_are_refused(members: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="sorted"):
        safe_names(members)


def test_a_key_longer_than_s3_allows_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 1024 bytes"):
        names_of("ü" * 513)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "files",
        "files/",
        "/files/a",
        "files//a",
        "files/..",
        "files/a/../b",
        "files/./a",
        "files/a\nb",
        "files/\ud800",
        "files/a\\b",
        "files/" + "x" * (MAX_COMPONENT_BYTES + 1),
        "file/a",
    ],
)
def test_a_path_that_no_safe_name_could_be_is_told_apart(path: str) -> None:
    assert not is_safe(path)


def test_two_thousand_keys_of_512_levels_take_less_than_two_seconds() -> None:
    draw = random.Random(7)
    keys = {"/".join(["é", *draw.choices("abcde", k=511)]) for _ in range(2000)}
    members = sorted((key, "v") for key in keys)
    started = time.process_time()
    paths = safe_names(members)
    assert time.process_time() - started < 2
    assert all(earlier != later for earlier, later in pairwise(sorted(paths)))


def test_folding_does_not_depend_on_the_version_of_python() -> None:
    """Each Python brings the tables of another Unicode version; if a new one fails here, _NEWER lacks its additions."""
    every = "".join(f"/a\u0301{chr(code)}\u0323" for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert hashlib.sha256(folded_path(every).encode()).hexdigest() == (
        "2e4489900a2360e5b71aac3f1aa04dc253dbccafbd1e4f748ab8142538937f1f"
    )

"""What is planned before a restore begins: sources looked up, places settled, all in the order of archives."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from neve.domain.index import FileRow
from neve.domain.restore import CHUNK_ITEMS, Wanted
from neve.domain.selection import Places, parse_site_urls, parse_time
from neve.domain.thaw import Need, Tier
from neve_cli.local_files import local_path
from neve_cli.restore_plan import Line, Plan, Problem, Summary
from tests.bad_keys import BAD_KEYS
from tests.memory import CONTENT, START, MemoryFiles
from tests.restore_cloud import STANDARD, RestoreCloud, Stored, object_of, source_of, tar_of, tar_with

PHOTOS = tar_with(1, ["photos/a.jpg", "photos/b.jpg", "photos/deep/c.jpg"])
OTHERS = tar_with(2, ["17", "a[1]", "others/a.jpg", "photos/", "z"])
FILM = object_of(3, "film", b"frames " * 300)
PLACES = Places(
    content_bucket=CONTENT,
    destination_buckets=frozenset({CONTENT, "other"}),
    uploads_bucket="up",
    site_urls=parse_site_urls("https://cdn.example.org/"),
)


@dataclass
class MemoryIndex(MemoryFiles):
    """The index, by prefix as well. `looked_up` are the keys whose versions were asked for."""

    looked_up: list[str] = field(default_factory=list)

    def versions(self, key: str) -> list[FileRow]:
        self.looked_up.append(key)
        return super().versions(key)

    def under(self, prefix: str = "") -> Iterator[FileRow]:
        return iter([row for (key, _), row in sorted(self.rows.items()) if key.startswith(prefix)])


class Planning:
    """A plan over archives in memory, and the problems that it has told."""

    def __init__(self, *stored: Stored, **options: object) -> None:
        self.cloud = RestoreCloud(stored or (PHOTOS, OTHERS, FILM))
        self.index = MemoryIndex(rows=self.cloud.files.rows)
        self.settled = False
        self.problems: list[Problem] = []
        settings = {"places": PLACES, "threads": 2} | options
        self.plan = Plan(
            index=self.index,
            manifest=self.cloud.store.manifest,
            report=self.problems.append,
            **settings,  # type: ignore[arg-type]  # as the tests give them
        )

    def add(self, *sources: str | Line, destination: str = "content") -> Planning:
        self.plan.add(
            source if isinstance(source, Line) else Line(number=number, source=source, destination=destination)
            for number, source in enumerate(sources, start=1)
        )
        return self

    def settle(self) -> Plan:
        if not self.settled:
            self.plan.settle()
            self.settled = True
        return self.plan

    @property
    def wanted(self) -> list[Wanted]:
        return [each for chunk in self.settle().chunks() for each in chunk]

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.wanted]

    @property
    def reasons(self) -> list[str]:
        self.settle()
        return [problem.reason for problem in self.problems]

    def summary(self, need: Need = STANDARD) -> Summary:
        return self.settle().summary(
            need, archives=self.cloud.archives, thaws=self.cloud.thaws, owner="job", now=self.cloud.now
        )


def other_version(key: str, body: bytes, *, serial: int, hours: int, version_id: str) -> Stored:
    source = source_of(key, body, version_id, START + timedelta(hours=hours))
    return tar_of(serial, [(source, body)])


# -- Sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("photos/a.jpg", ["photos/a.jpg"]),
        (f"s3://{CONTENT}/photos/a.jpg", ["photos/a.jpg"]),
        (f"s3://{CONTENT}/photos/a.jpg?versionId=v1", ["photos/a.jpg"]),
        ("https://cdn.example.org/photos/a.jpg?w=1", ["photos/a.jpg"]),
        ("prefix:photos/", ["photos/a.jpg", "photos/b.jpg", "photos/deep/c.jpg", "photos/"]),
        ("photos/deep/", ["photos/deep/c.jpg"]),
        ("*/a.jpg", ["photos/a.jpg", "others/a.jpg"]),
        ("glob:a[1]", []),
        ("archive:1", ["photos/a.jpg", "photos/b.jpg", "photos/deep/c.jpg"]),
        ("2", ["17", "a[1]", "others/a.jpg", "photos/", "z"]),
        ("3", ["film"]),
        ("id:1.2", ["photos/deep/c.jpg"]),
        ("2.4", ["z"]),
        ("key:17", ["17"]),
        ("key:photos/", ["photos/"]),
    ],
)
def test_every_kind_of_source_leads_to_its_files(source: str, keys: list[str]) -> None:
    assert Planning().add(source).keys == keys


@pytest.mark.parametrize(
    ("source", "forms"),
    [
        ("photos/", ("key:photos/", "prefix:photos/")),
        ("17", ("key:17", "archive:17")),
        ("a[1]", ("key:a[1]", "glob:a[1]")),
        (f"s3://{CONTENT}/photos/", ("key:photos/", "prefix:photos/")),
    ],
)
def test_what_could_be_a_key_as_well_is_refused_with_both_forms(source: str, forms: tuple[str, str]) -> None:
    planning = Planning().add(source)
    assert planning.keys == []
    assert all(form in planning.reasons[0] for form in forms)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("nothing", "neve ls"),
        ("nothing/", "neve ls"),
        ("photos/?.png", "neve ls"),
        ("99", "neve archives"),
        ("1.99", "neve archives 1"),
        ("99.1", "neve archives 99"),
        (f"s3://{CONTENT}/z?versionId=v9", "neve find"),
        ("https://elsewhere.example.org/z", "site_urls"),
    ],
)
def test_what_is_not_found_says_so_with_what_to_do_and_holds_nothing_up(source: str, remedy: str) -> None:
    planning = Planning().add(source, "z")
    assert planning.keys == ["z"]
    assert remedy in planning.reasons[0]
    assert (planning.problems[0].line, planning.problems[0].source) == (1, source)


def test_the_newest_version_is_taken_or_the_newest_by_then() -> None:
    old = other_version("z", b"old", serial=1, hours=0, version_id="first")
    new = other_version("z", b"new", serial=2, hours=5, version_id="second")
    pins = [
        (source, {each.pin for each in Planning(old, new, **options).add(source).wanted})
        for options in ({}, {"at": START + timedelta(hours=1)})
        for source in ("z", "*", f"s3://{CONTENT}/z?versionId=second", "archive:1")
    ]
    assert pins == [
        ("z", {"second"}),
        ("*", {"second"}),
        (f"s3://{CONTENT}/z?versionId=second", {"second"}),
        ("archive:1", {"first"}),
        ("z", {"first"}),
        ("*", {"first"}),
        (f"s3://{CONTENT}/z?versionId=second", {"second"}),
        ("archive:1", {"first"}),
    ]


def test_a_time_before_the_first_version_says_when_that_was() -> None:
    planning = Planning(at=parse_time("2020-01-01")).add("z", "prefix:photos/")
    assert planning.keys == []
    assert "2026-09-01 12:00:00 UTC" in planning.reasons[0]
    assert "2020-01-01" in planning.reasons[1]


def test_a_line_may_say_version_and_time_itself() -> None:
    old = other_version("z", b"old", serial=1, hours=0, version_id="first")
    new = other_version("z", b"new", serial=2, hours=5, version_id="second")
    planning = Planning(old, new).add(
        Line(number=1, source="z", version="first"),
        Line(number=2, source="z", destination="s3://other/then/", at=(START + timedelta(hours=1)).isoformat()),
        Line(number=3, source="z", destination="s3://other/bad/", at="noon"),
    )
    assert [(each.pin, each.destination) for each in planning.wanted] == [
        ("first", f"s3://{CONTENT}/z"),
        ("first", "s3://other/then/z"),
    ]
    assert "no time" in planning.reasons[0]


def test_versions_without_ids_are_found_by_their_word() -> None:
    source = source_of("plain", b"x", "null")
    planning = Planning(tar_of(1, [(source, b"x")])).add(f"s3://{CONTENT}/plain?versionId=null")
    assert [each.pin for each in planning.wanted] == [f"null-{source.etag}"]


def test_members_that_the_index_does_not_know_are_told() -> None:
    planning = Planning()
    del planning.index.rows["photos/b.jpg", "v1"]
    planning.add("archive:1", "id:1.1")
    assert planning.keys == ["photos/a.jpg", "photos/deep/c.jpg"]
    assert "1 of its 3 members" in planning.reasons[0]
    assert "not in the index" in planning.reasons[1]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_every_key_can_be_restored_by_its_name(key: str) -> None:
    planning = Planning(tar_with(1, [key])).add(f"key:{key}")
    assert planning.wanted == [Wanted(key=key, pin="v1", destination=f"s3://{CONTENT}/{key}")]


# -- Places ----------------------------------------------------------------------------------------------------------


def test_the_same_file_for_the_same_place_is_wanted_once() -> None:
    planning = Planning().add("photos/a.jpg", "key:photos/a.jpg", "id:1.0", "photos/a.jpg")
    assert planning.keys == ["photos/a.jpg"]
    assert planning.plan.repeated == 3
    assert planning.reasons == []


def test_one_file_may_go_to_several_places() -> None:
    planning = Planning().add("z").add("z", destination="s3://other/x/")
    assert [each.destination for each in planning.wanted] == [f"s3://{CONTENT}/z", "s3://other/x/z"]


def test_two_files_for_one_place_are_a_problem_of_the_second() -> None:
    planning = Planning().add("z", "key:17", destination="s3://other/one")
    assert planning.keys == ["z"]
    assert planning.problems[0].line == 2
    assert "line 1" in planning.reasons[0]
    assert "s3://other/one" in planning.reasons[0]


def test_the_place_of_one_file_takes_no_more() -> None:
    planning = Planning().add("prefix:photos/", destination="s3://other/one")
    assert planning.keys == []
    assert "slash" in planning.reasons[0]
    assert Planning().add("photos/deep/", destination="s3://other/one").wanted[0].destination == "s3://other/one"


@pytest.mark.parametrize(
    ("destination", "why"),
    [("s3://stranger/", "restore_buckets"), ("nowhere", "./nowhere")],
)
def test_a_destination_that_cannot_be_is_refused_before_anything_is_looked_up(destination: str, why: str) -> None:
    planning = Planning().add("z", destination=destination)
    assert (planning.keys, planning.index.looked_up) == ([], [])
    assert why in planning.reasons[0]


def test_a_folder_has_the_files_below_it_by_their_keys(tmp_path: Path) -> None:
    planning = Planning().add("prefix:photos/", destination=f"{tmp_path}/new/")
    assert [local_path(each.destination) for each in planning.wanted] == [
        f"{tmp_path}/new/photos/{name}" for name in ("a.jpg", "b.jpg", "deep/c.jpg", "%")
    ]
    assert all(each.destination.startswith("file:/") for each in planning.wanted)
    assert not (tmp_path / "new").exists(), "planning writes nothing"
    planning.plan.make_folders()
    assert (tmp_path / "new").is_dir()


def test_one_file_may_be_given_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for text, path in [
        ("./name", "name"),
        ("file:name", "name"),
        ("here", "here/z"),
        ("file:here", "here/z"),
        ("./here/../new/", "new/z"),
        (f"file://{tmp_path}/name", "name"),
    ]:
        (wanted,) = Planning().add("z", destination=text).wanted
        assert local_path(wanted.destination) == f"{tmp_path}/{path}"
    assert "slash" in Planning().add("prefix:photos/", destination="./name").reasons[0]


@pytest.mark.parametrize(
    ("destination", "why"),
    [("~nobody-of-that-name/", "nowhere"), ("./..", "no file"), ("/" + "d" * 4_094 + "/", "4,095")],
)
def test_a_path_that_cannot_be_is_told(
    destination: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neve_cli.restore_plan._is_folder", lambda _: False)
    planning = Planning().add("z", destination=destination)
    assert planning.keys == []
    assert why in planning.reasons[0]


def test_a_folder_whose_name_is_no_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert "not UTF-8" in Planning().add("z", destination="./out/").reasons[0]


def test_files_that_some_disk_would_confuse_get_names_of_their_own(tmp_path: Path) -> None:
    keys = ["A", "Dir", "a", "dir/x", "e\u0301", "\u00e9", "name", "name/below"]
    planning = Planning(tar_with(1, sorted(keys))).add("*", destination=f"{tmp_path}/")
    paths = {each.key: local_path(each.destination).removeprefix(f"{tmp_path}/") for each in planning.wanted}
    assert planning.reasons == []
    unmarked = {key for key, path in paths.items() if "~" not in path}
    assert unmarked == {"A", "dir/x", "e\u0301", "name/below"}
    assert len({path.casefold() for path in paths.values()}) == len(keys)
    assert paths["name"].startswith("name~")


def test_names_are_given_as_inside_an_archive(tmp_path: Path) -> None:
    stored = tar_with(1, sorted(BAD_KEYS))
    planning = Planning(stored).add("archive:1", destination=f"{tmp_path}/")
    names = {member.source.key: member.name for member in stored.manifest.members}
    paths = {each.key: "files/" + local_path(each.destination).removeprefix(f"{tmp_path}/") for each in planning.wanted}
    assert paths == names


def test_two_versions_of_a_key_cannot_share_a_folder(tmp_path: Path) -> None:
    old = other_version("z", b"old", serial=1, hours=0, version_id="first")
    new = other_version("z", b"new", serial=2, hours=5, version_id="second")
    planning = Planning(old, new).add("archive:1", "archive:2", destination=f"{tmp_path}/")
    assert [each.pin for each in planning.wanted] == ["first"]
    assert "would go where line 1 goes" in planning.reasons[0]


def test_what_is_there_already_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    body = PHOTOS.body[PHOTOS.manifest.members[0].offset_bytes :][: PHOTOS.manifest.members[0].source.size_bytes]
    (tmp_path / "photos/a.jpg").write_bytes(body)
    (tmp_path / "photos/b.jpg").write_bytes(b"x" * len(body))
    planning = Planning().add("archive:1", destination=f"{tmp_path}/")
    assert planning.keys == ["photos/deep/c.jpg"]
    assert planning.plan.already_there == 1
    assert "--overwrite" in planning.reasons[0]
    over = Planning(overwrite=True).add("archive:1", destination=f"{tmp_path}/")
    assert over.keys == ["photos/b.jpg", "photos/deep/c.jpg"]
    assert (over.plan.already_there, over.reasons) == (1, [])


def test_a_link_in_the_place_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "z").symlink_to(tmp_path / "elsewhere")
    assert "something else" in Planning().add("z", destination=f"{tmp_path}/").reasons[0]


# -- What it comes to ------------------------------------------------------------------------------------------------


def test_what_is_sent_stands_in_the_order_of_archives_local_files_first(tmp_path: Path) -> None:
    keys = [f"{number:04}" for number in range(600)]
    stored = [tar_with(serial, keys[serial - 1 :: 3]) for serial in (1, 2, 3)]
    shuffled = random.Random(7).sample(keys, len(keys))
    planning = Planning(*stored).add(*(Line(number=0, source=f"key:{key}") for key in shuffled))
    planning.add(Line(number=0, source="key:0300", destination=f"{tmp_path}/"))
    chunks = list(planning.settle().chunks())
    assert [len(chunk) for chunk in chunks] == [CHUNK_ITEMS, 101]
    assert planning.wanted[0].destination.startswith("file:")
    places = [planning.index.rows[each.key, each.pin] for each in planning.wanted[1:]]
    assert [(row.archive, row.number) for row in places] == sorted((row.archive, row.number) for row in places)


def test_a_summary_counts_files_archives_and_what_they_cost(tmp_path: Path) -> None:
    planning = Planning().add("archive:1", "z", "z", "nothing", "film")
    planning.add("photos/a.jpg", destination=f"{tmp_path}/")
    told = planning.summary()
    assert (told.files, told.local_files, told.archives, told.chunks) == (6, 1, 3, 1)
    assert told.size_bytes == sum(planning.index.rows[each.key, each.pin].size_bytes for each in planning.wanted)
    assert (told.repeated, told.problems, told.already_there) == (1, 1, 0)
    assert told.estimate.asked == 3, "an archive is thawed once, wherever its files go"
    assert told.estimate.usd > 0


def test_an_archive_without_a_row_is_told() -> None:
    planning = Planning().add("z", "photos/a.jpg")
    del planning.cloud.archives.rows[2]
    told = planning.summary()
    assert (told.archives, told.estimate.asked, told.problems) == (2, 1, 1)
    assert "archive 2" in planning.reasons[0]


def test_nothing_wanted_comes_to_nothing() -> None:
    told = Planning().add("nothing").summary(Need(tier=Tier.BULK, days=1))
    assert (told.files, told.archives, told.chunks, told.estimate.usd) == (0, 0, 0, 0)


def test_the_files_of_a_source_are_taken_as_they_come() -> None:
    row = next(iter(RestoreCloud((OTHERS,)).files.rows.values()))

    class Endless(MemoryIndex):
        def under(self, prefix: str = "") -> Iterator[FileRow]:
            return (
                replace(row, key=f"{prefix}{number:07}", pin="v", number=number % 2_000, archive=1 + number // 2_000)
                for number in range(6_000)
            )

    planning = Planning()
    planning.plan._index = Endless()
    tracemalloc.start()
    planning.add("prefix:many/").settle()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(planning.wanted) == 6_000
    assert peak < 1_000_000, "memory is for a batch, not for all"

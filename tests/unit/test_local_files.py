"""Files that come home to local folders."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from awscrt.checksums import crc64nvme

from neve.domain.index import ArchiveRow
from neve.domain.manifest import Manifest, Source
from neve.domain.restore import Item
from neve.errors import Asleep, SourceDamaged, Transient
from neve.ports import Placed
from neve_cli import local_files
from neve_cli.local_files import FolderMissing, LocalFiles, in_folder, local_path, split
from tests.memory import START
from tests.restore_cloud import object_of, source_of

BODY = b"the bytes of a file"
SOURCE = source_of("a", BODY)
FILM = object_of(6, "film", b"frames " * 300)
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass
class Reader:
    """Bytes of an archive; `failures` are raised by the next reads."""

    body: bytes = FILM.body
    failures: list[Exception] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read(self, archive: ArchiveRow, first: int, last: int) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        self.reads.append((first, last))
        return self.body[first : last + 1]

    def stream(self, archive: ArchiveRow, *, first: int = 0) -> Iterator[bytes]:
        raise AssertionError("a local file is read by range")


def files(reader: Reader | None = None, manifest: Callable[[int], Manifest | None] = lambda _: None) -> LocalFiles:
    return LocalFiles(reader=reader or Reader(), manifest=manifest, sleep=lambda _: None)


def item(folder: Path, path: str, size_bytes: int = len(BODY)) -> Item:
    return Item(key="a", pin="v1", number=0, size_bytes=size_bytes, destination=in_folder(str(folder), path))


def put(folder: Path, path: str, body: bytes = BODY, *, overwrite: bool = False) -> Placed:
    return files().put(item(folder, path), SOURCE, body, overwrite=NEVER if overwrite else None)


def copy(folder: Path, reader: Reader | None = None, *, source: Source | None = None, **options: Any) -> Placed | None:
    source = source or FILM.manifest.members[0].source
    archive = options.pop("archive", FILM.row)
    destination = files(reader, options.pop("manifest", lambda _: None))
    return destination.copy(
        item(folder, "film", source.size_bytes), source, archive, overwrite=options.get("overwrite"), until=NEVER
    )


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- Whole or not there ----------------------------------------------------------------------------------------------


def test_a_file_comes_home_with_its_folders_its_bytes_and_its_time(tmp_path: Path) -> None:
    assert put(tmp_path, "photos/deep/cat.jpg") == Placed()
    made = tmp_path / "photos/deep/cat.jpg"
    assert made.read_bytes() == BODY
    assert made.stat().st_mtime == START.timestamp()
    assert names(tmp_path) == ["photos", "photos/deep", "photos/deep/cat.jpg"], "nothing is left beside it"


def test_a_file_without_bytes_comes_home_too(tmp_path: Path) -> None:
    put(tmp_path, "empty", b"")
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_same_bytes_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    before = (tmp_path / "a").stat().st_ino
    for overwrite in (False, True):
        placed = put(tmp_path, "a", overwrite=overwrite)
        assert placed.identical
        assert placed.modified
        assert abs(placed.modified - datetime.now(UTC)) < timedelta(minutes=1), (
            "when it was put there, not its own time"
        )
    assert (tmp_path / "a").stat().st_ino == before


def test_other_bytes_stay_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    for standing in (b"x" * len(BODY), b"short"):
        (tmp_path / "a").write_bytes(standing)
        placed = put(tmp_path, "a")
        assert f"{len(standing)} bytes" in placed.conflict
        assert (tmp_path / "a").read_bytes() == standing
        assert put(tmp_path, "a", overwrite=True) == Placed()
        assert (tmp_path / "a").read_bytes() == BODY
    assert names(tmp_path) == ["a"]


def test_what_came_after_the_job_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"newer than the job")
    os.utime(tmp_path / "a", (0, 0))
    asked_at = datetime.now(UTC) - timedelta(minutes=1)
    assert files().put(item(tmp_path, "a"), SOURCE, BODY, overwrite=asked_at).conflict
    assert (tmp_path / "a").read_bytes() == b"newer than the job"


@pytest.mark.parametrize("sort", ["folder", "symbolic link", "device or pipe"])
def test_what_is_no_file_is_never_followed_or_emptied(tmp_path: Path, sort: str) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(BODY)
    place = tmp_path / "out"
    place.mkdir()
    if sort == "folder":
        (place / "a").mkdir()
    elif sort == "symbolic link":
        (place / "a").symlink_to(target)
    else:
        os.mkfifo(place / "a")
    assert sort in put(place, "a").conflict
    assert target.read_bytes() == BODY


def test_a_link_in_the_place_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    assert put(tmp_path, "a", overwrite=True) == Placed()
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_a_folder_in_the_place_of_a_file_is_refused_even_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert "directory" in put(tmp_path, "a", overwrite=True).refused
    assert names(tmp_path) == ["a"]


def test_who_comes_in_between_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    for body, expected in ((b"theirs", "conflict"), (BODY, "identical")):

        def late(*words: Any, body: bytes = body, **options: Any) -> None:
            (tmp_path / "a").write_bytes(body)
            link(*words, **options)

        monkeypatch.setattr(os, "link", late)
        assert getattr(put(tmp_path, "a"), expected)
        assert (tmp_path / "a").read_bytes() == body
        (tmp_path / "a").unlink()
    assert names(tmp_path) == []


def test_a_disk_without_hard_links_is_written_to_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert put(tmp_path, "a") == Placed()
    assert names(tmp_path) == ["a"]
    monkeypatch.setattr(local_files, "_standing", lambda *_: None)  # it comes between the look and the name
    assert put(tmp_path, "a", b"other").conflict
    assert (tmp_path / "a").read_bytes() == BODY


# -- Inside the folder that was named --------------------------------------------------------------------------------


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "photos").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to("..")
    (folder / "nowhere").symlink_to("not there")
    (folder / "file").write_bytes(b"x")
    (folder / "round").symlink_to("round")
    for path, why in [
        ("photos/a", "leads out"),
        ("photos/deep/a", "leads out"),
        ("up/outside/a", "leads out"),
        ("nowhere/a", "to nowhere"),
        ("round/a", "to nowhere"),
        ("file/a", "is a file"),
    ]:
        assert why in put(folder, path).refused
    assert names(tmp_path / "outside") == []


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/back").symlink_to("../link/deep")
    assert put(tmp_path, "link/back/new/a") == Placed()
    assert (tmp_path / "real/deep/new/a").read_bytes() == BODY


def test_links_that_chase_each_other_end_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setattr(local_files, "_followed", lambda *walked: walked[1])
    assert "circle" in put(tmp_path, "link/a").refused


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    assert put(tmp_path / "folder", "a") == Placed()
    assert (tmp_path / "real/a").read_bytes() == BODY


def test_a_folder_that_is_not_here_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(FolderMissing, match="another machine"):
        put(tmp_path / "theirs", "a")
    assert names(tmp_path) == []


def test_a_place_that_denies_writing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", denied)
    assert "Permission denied" in put(tmp_path, "photos/a").refused
    assert "too long" in put(tmp_path, "x" * 256).refused


def test_a_full_disk_lets_the_files_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Transient, match="No space left"):
        put(tmp_path, "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("folder", "path", "destination", "whole"),
    [
        ("/home/me", "a/b", "file:/home/me/./a/b", "/home/me/a/b"),
        ("", "a", "file:/./a", "/a"),
    ],
)
def test_a_destination_tells_the_folder_that_was_named(folder: str, path: str, destination: str, whole: str) -> None:
    assert in_folder(folder, path) == destination
    assert split(destination) == (folder or "/", path)
    assert local_path(destination) == whole


def test_a_destination_of_another_program_is_a_file_in_its_folder() -> None:
    assert split("file:/home/me/a") == ("/home/me", "a")
    assert split("file:/a") == ("/", "a")
    assert local_path("file:/a") == "/a"


# -- Large objects ---------------------------------------------------------------------------------------------------


def test_a_large_object_is_read_in_parts_and_checked_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files, "PART_BYTES", 300)
    reader = Reader()
    assert copy(tmp_path, reader) == Placed()
    assert (tmp_path / "film").read_bytes() == FILM.body
    assert sorted(reader.reads) == [(first, first + 299) for first in range(0, 2_100, 300)]


def test_a_part_that_fails_is_asked_for_again(tmp_path: Path) -> None:
    assert copy(tmp_path, Reader(failures=[Transient("slow down")] * 5)) == Placed()
    with pytest.raises(Transient):
        copy(tmp_path, Reader(failures=[Transient("slow down")] * 6), overwrite=NEVER, source=other_film())


def other_film() -> Source:
    return replace(FILM.manifest.members[0].source, sha256="0" * 64)


def test_other_bytes_than_the_manifest_states_are_not_handed_over(tmp_path: Path) -> None:
    damaged = Reader(body=b"x" + FILM.body[1:])
    with pytest.raises(SourceDamaged):
        copy(tmp_path, damaged)
    assert names(tmp_path) == []


def test_an_archive_that_sleeps_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Asleep):
        copy(tmp_path, Reader(failures=[Asleep("x")]))
    assert names(tmp_path) == []


def test_a_large_object_that_is_there_is_not_read(tmp_path: Path) -> None:
    reader = Reader()
    (tmp_path / "film").write_bytes(FILM.body)
    placed = copy(tmp_path, reader)
    assert placed
    assert placed.identical
    (tmp_path / "film").write_bytes(b"something else")
    placed = copy(tmp_path, reader)
    assert placed
    assert placed.conflict
    assert reader.reads == []


@pytest.mark.parametrize("stated_by", ["source", "manifest"])
def test_an_object_without_a_sha256_is_proved_by_its_crc(tmp_path: Path, stated_by: str) -> None:
    checksum = base64.b64encode(crc64nvme(FILM.body).to_bytes(8)).decode()
    checksums = {"CRC64NVME": checksum} if stated_by == "source" else {}
    source = replace(FILM.manifest.members[0].source, sha256="", md5="", checksums=checksums)
    member = replace(FILM.manifest.members[0], source=source)
    manifest = replace(FILM.manifest, object_sha256="", object_crc64nvme=checksum, members=(member,))
    options: dict[str, Any] = {
        "source": source,
        "archive": replace(FILM.row, sha256=""),
        "manifest": lambda _: manifest,
    }
    with pytest.raises(SourceDamaged):
        copy(tmp_path, Reader(body=b"x" + FILM.body[1:]), **options)
    assert copy(tmp_path, Reader(), **options) == Placed()
    placed = copy(tmp_path, Reader(), **options)
    assert placed
    assert placed.identical

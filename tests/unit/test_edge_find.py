"""What the agent finds in a folder, and what it leaves alone."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neve_edge import find, scan
from neve_edge.announcement import Seen
from neve_edge.find import Finder
from neve_edge.problems import LeftAlone, Reason
from neve_edge.ready import Sight, Writer, look
from neve_edge.settings import Folder
from tests.edge_folders import MemoryAnnouncements, as_somebody_else, only_folder, open_to_all, settings_for

SEEN = Seen(size_bytes=5, mtime_ns=10, inode=7, device=1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def finder_of(tmp_path: Path, **given: object) -> tuple[Finder, MemoryAnnouncements, Clock]:
    announcements, clock = MemoryAnnouncements(), Clock()
    return Finder(settings_for(tmp_path, **given), announcements.put, clock), announcements, clock


def found_in(tmp_path: Path, **given: object) -> tuple[list[str], Finder]:
    """The paths that one scan of the folder announces."""
    finder, announcements, _ = finder_of(tmp_path, **given)
    finder.scan(only_folder(finder.settings))
    while finder.scanning:
        finder.step()
    return announcements.paths, finder


def quiet_sight(_folder: Folder, _path: str) -> Sight:
    return Sight(seen=SEEN, writer=Writer.UNKNOWN)


def test_files_at_every_depth_are_found_with_their_keys(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "2026" / "11 Nov").mkdir(parents=True)
    (site / "a.jpg").write_bytes(b"1")
    (site / "2026" / "11 Nov" / "größe+1.jpg").write_bytes(b"22")
    finder, announcements, _ = finder_of(tmp_path)
    finder.scan(only_folder(finder.settings))
    finder.step()
    assert [(each.path, each.key, each.seen.size_bytes) for each in sorted(announcements.found, key=str)] == [
        ("2026/11 Nov/größe+1.jpg", "2026/11 Nov/größe+1.jpg", 2),
        ("a.jpg", "a.jpg", 1),
    ]
    assert all(each.folder == "site" and not each.keep for each in announcements.found)


def test_what_is_no_regular_file_is_left_alone_and_counted(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"x")
    (site / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    (site / "linked").symlink_to(tmp_path / "elsewhere")
    (site / "dangling").symlink_to("nowhere")
    os.mkfifo(site / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(site)  # the path of a socket has at most 107 bytes
        listening.bind("socket")
        os.chdir("/")
        paths, finder = found_in(tmp_path)
        for name in ("link", "linked/secret", "dangling", "fifo", "socket"):
            finder.offer(only_folder(finder.settings), name)  # events name them as well
    assert paths == []
    assert finder.left.counts == {Reason.LINK: 5, Reason.SPECIAL: 4}
    assert len(finder.waiting) == 0


def test_each_name_of_a_hard_linked_file_is_a_file(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "a").write_bytes(b"x")
    (site / "b").hardlink_to(site / "a")
    assert found_in(tmp_path)[0] == ["a", "b"]


def test_neves_own_files_and_ignored_names_are_left_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for folder in (".neve-attic/2026-11-22", "attic", "spool/refused", "cache/x", "keep/cache2"):
        (site / folder).mkdir(parents=True)
    for name in (
        *(".neve-attic/2026-11-22/a", "attic/a", "spool/list", "spool/refused/b", "edge.db", "edge.db-wal"),
        *("upload.part", ".photo.jpg.Ab3dEf", "x.tmp", ".nfs000012", "cache/x/y", "keep/cache2/z", "edge.dbx"),
        *("x.tmp.jpg", ".hidden", "keep/raw"),
    ):
        (site / name).write_bytes(b"x")
    given: dict[str, Any] = {
        "journal": str(site / "edge.db"),
        "spool": str(site / "spool"),
        "ignore": ["*.part", "*.tmp", ".*.??????", ".nfs*", "cache", "keep/r*"],
    }
    paths, finder = found_in(tmp_path, **given)
    assert paths == [".hidden", "attic/a", "keep/cache2/z", "x.tmp.jpg"]
    finder.offer(only_folder(finder.settings), "cache/x/y")
    finder.offer(only_folder(finder.settings), "spool/list")
    finder.offer(only_folder(finder.settings), ".neve-attic/2026-11-22/a")
    finder.step()
    assert finder.files == len(paths)


def test_a_name_that_is_not_utf8_is_told_once_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = tmp_path / "site"
    site.mkdir()
    Path(os.fsdecode(os.fsencode(site) + b"/gr\xf6\xdfe.jpg")).write_bytes(b"x")
    (site / ("d" * 250)).mkdir()
    with caplog.at_level(logging.WARNING):
        paths, finder = found_in(tmp_path)
        finder.scan(only_folder(finder.settings))
        finder.step()
    assert paths == []
    assert finder.left.counts == {Reason.NAME: 2}
    assert len(caplog.messages) == 1
    assert "convmv" in caplog.messages[0]
    caplog.messages[0].encode()  # can be printed


def test_a_path_too_long_for_a_key_is_told(tmp_path: Path) -> None:
    deep = tmp_path / "site"
    for letter in "abcde":
        deep = deep / (letter * 220)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"x")
    paths, finder = found_in(tmp_path)
    assert paths == []
    assert finder.left.counts == {Reason.NAME: 1}


def test_what_cannot_be_read_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with open_to_all() as path:
        site = path / "site"
        (site / "closed").mkdir(parents=True)
        (site / "closed" / "b").write_bytes(b"x")
        (site / "a").write_bytes(b"x")
        finder, announcements, _ = finder_of(path, quiet_s=0)
        (site / "a").chmod(0)
        (site / "closed").chmod(0)
        with as_somebody_else(), caplog.at_level(logging.WARNING):
            for _ in range(2):
                finder.scan(only_folder(finder.settings))
                finder.step()
        (site / "closed").chmod(0o755)
    assert announcements.found == []
    assert finder.left.counts == {Reason.UNREADABLE: 4}
    assert len(caplog.messages) == 2
    assert "let this user" in "".join(caplog.messages)


def test_folders_and_files_that_vanish_meanwhile_stop_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for number in range(5):
        (site / f"d{number}").mkdir(parents=True)
        (site / f"d{number}" / "f").write_bytes(b"x")
    settings = settings_for(tmp_path)
    folder, left = only_folder(settings), LeftAlone()
    paths = scan.scan(settings, folder, left)
    first = next(paths)
    for number in range(5):
        if not first.startswith(f"d{number}"):
            (site / f"d{number}" / "f").unlink()
            (site / f"d{number}").rmdir()
    assert list(paths) == []
    finder, announcements, _ = finder_of(tmp_path)
    for gone in ("d9/f", "nothing", f"{first}/below"):
        finder.offer(folder, gone)
    finder.step()
    assert announcements.found == []
    assert left.counts == finder.left.counts == {}
    assert list(scan.scan(settings, folder, left, "d9")) == []


def test_a_folder_that_is_not_there_is_told_and_may_come_back(tmp_path: Path) -> None:
    finder, announcements, _ = finder_of(tmp_path)
    folder = only_folder(finder.settings)
    folder.path.rmdir()
    finder.scan(folder)
    finder.step()
    assert finder.left.counts == {Reason.UNREADABLE: 1}
    folder.path.mkdir()
    (folder.path / "a").write_bytes(b"x")
    finder.scan(folder)
    finder.step()
    assert announcements.paths == ["a"]


class _Entry:
    def __init__(self, number: int) -> None:
        self.name = f"{number:07d}.jpg"

    def is_symlink(self) -> bool:
        return False

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return not follow_symlinks


class _Entries:
    """The entries of a folder, made as they are asked for: more than anybody could list."""

    count = 10**12

    def __init__(self, _descriptor: int) -> None:
        self.given = 0

    def __next__(self) -> _Entry:
        if self.given == self.count:
            raise StopIteration
        self.given += 1
        return _Entry(self.given)

    def close(self) -> None:
        pass


def test_a_folder_of_any_number_of_files_is_gone_through_with_few_of_them_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_Entries] = []

    def scandir(descriptor: int) -> _Entries:
        made.append(_Entries(descriptor))
        return made[-1]

    monkeypatch.setattr(os, "scandir", scandir)
    finder, announcements, _ = finder_of(tmp_path)
    finder.see = lambda _folder, _path: Sight(seen=SEEN, writer=Writer.NONE)
    finder.scan(only_folder(finder.settings))
    for step in range(1, 11):
        assert finder.step() == 0
        assert finder.files == made[0].given == step * find.AT_ONCE
        assert max(Counter(each.path for each in announcements.found).values()) == 1
        announcements.found.clear()
    finder.close()
    assert not finder.scanning


def test_a_scan_waits_while_too_many_files_are_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Entries, "count", 5_000)
    monkeypatch.setattr(os, "scandir", _Entries)
    finder, announcements, clock = finder_of(tmp_path, quiet_s=10)
    finder.see = quiet_sight
    finder.waiting.room = 1_000
    finder.scan(only_folder(finder.settings))
    steps = 0
    while finder.scanning or len(finder.waiting):
        pause_s = finder.step()
        assert len(finder.waiting) <= 1_000
        assert pause_s is not None or not len(finder.waiting)
        clock.now += pause_s or 0
        steps += 1
    assert len(announcements.paths) == len(set(announcements.paths)) == 5_000
    assert clock.now == pytest.approx(50)
    assert steps < 40


def test_a_real_folder_of_five_thousand_is_announced_in_some_puts(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    descriptor = os.open(site, os.O_RDONLY)
    for number in range(5_000):
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    finder, announcements, _ = finder_of(tmp_path)
    finder.scan(only_folder(finder.settings))
    while finder.scanning:
        finder.step()
    assert len(set(announcements.paths)) == 5_000
    assert announcements.puts == 5_000 / find.AT_ONCE


def test_nothing_is_forgotten_while_it_cannot_be_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for number in range(600):
        (site / str(number)).write_bytes(b"")
    finder, announcements, clock = finder_of(tmp_path)
    announcements.refusing = True
    finder.scan(only_folder(finder.settings))
    assert finder.step() == find.RETRY_S
    assert not finder.takes_more
    clock.now += 1
    assert finder.step() == find.RETRY_S - 1
    announcements.refusing = False
    clock.now += find.RETRY_S
    while finder.scanning:
        finder.step()
    assert len(set(announcements.paths)) == 600
    assert len(caplog.messages) == 1


def test_a_clock_of_the_wall_that_jumps_neither_stalls_nor_fools_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name, mtime_s in (("old", 0), ("future", 4_000_000_000)):
        (site / name).write_bytes(b"x")
        os.utime(site / name, (mtime_s, mtime_s))
    finder, announcements, clock = finder_of(tmp_path, quiet_s=10)
    finder.see = lambda folder, path: Sight(seen=look(folder, path).seen, writer=Writer.UNKNOWN)
    finder.scan(only_folder(finder.settings))
    assert finder.step() == 10
    clock.now = 9.9
    finder.step()
    assert announcements.found == []
    clock.now = 10
    finder.step()
    assert announcements.paths == ["future", "old"]


def test_an_event_for_a_folder_has_it_gone_through(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "moved" / "in").mkdir(parents=True)
    (site / "moved" / "in" / "a").write_bytes(b"x")
    (site / "other").write_bytes(b"x")
    finder, announcements, _ = finder_of(tmp_path)
    finder.offer(only_folder(finder.settings), "moved")
    while finder.scanning:
        finder.step()
    assert announcements.paths == ["moved/in/a"]


def test_too_many_folders_at_once_become_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "SCANS", 3)
    site = tmp_path / "site"
    for number in range(10):
        (site / str(number)).mkdir(parents=True)
        (site / str(number) / "f").write_bytes(b"x")
    finder, announcements, _ = finder_of(tmp_path)
    for number in range(10):
        finder.offer(only_folder(finder.settings), str(number))
    while finder.scanning:
        finder.step()
    assert sorted(set(announcements.paths)) == [f"{number}/f" for number in range(10)]


def test_a_folder_beyond_the_deepest_level_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "DEEPEST", 3)
    deep = tmp_path / "site" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"x")
    (deep.parent / "g").write_bytes(b"x")
    paths, finder = found_in(tmp_path)
    assert paths == ["a/b/g"]
    assert finder.left.counts == {Reason.DEEP: 1}


def test_two_agents_on_one_folder_announce_the_same(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a").write_bytes(b"x")
    first, second = found_in(tmp_path), found_in(tmp_path)
    assert first[0] == second[0] == ["a"]

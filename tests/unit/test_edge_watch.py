"""Watching: events, scans and the spool together."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neve_edge import watch as watching
from neve_edge.opening import open_file
from neve_edge.spool import LINE_BYTES, Spool
from neve_edge.watch import Events, Watch
from tests.edge_folders import MemoryAnnouncements, settings_for


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch_of(tmp_path: Path, **given: object) -> tuple[Watch, MemoryAnnouncements, Clock]:
    """A watch whose kernel tells nothing: what comes comes by `events.add`."""
    announcements, clock = MemoryAnnouncements(), Clock()
    watch = Watch(settings_for(tmp_path, **given), announcements, clock)
    watch.settings.spool.mkdir(parents=True)
    return watch, announcements, clock


def test_scans_come_again_and_events_in_between(tmp_path: Path) -> None:
    watch, announcements, clock = watch_of(tmp_path, scan_every_s=300)
    site = tmp_path / "site"
    (site / "a").write_bytes(b"x")
    watch.step()
    assert announcements.paths == ["a"]
    (site / "a").unlink()
    (site / "b").write_bytes(b"x")
    (site / "c").write_bytes(b"x")
    clock.now = 299
    watch.events.add([str(site / "b"), str(tmp_path / "elsewhere"), str(site)])
    watch.step()
    assert announcements.paths == ["a", "b"]
    clock.now = 300
    watch.step()
    assert announcements.paths == ["a", "b", "b", "c"]


def test_events_that_are_lost_while_a_scan_goes_on_have_it_made_again(tmp_path: Path) -> None:
    watch, announcements, _ = watch_of(tmp_path)
    site = tmp_path / "site"
    for number in range(1_200):
        (site / str(number)).write_bytes(b"")
    watch.step()
    assert watch.finder.scanning
    passed = announcements.found[0].path  # the scan has been there
    watch.events.lose()
    while watch.step() == 0:
        pass
    assert announcements.paths.count(passed) == 2


def test_a_burst_of_events_stays_bounded_and_loses_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ROOM", 100)
    watch, announcements, clock = watch_of(tmp_path)
    watch.step()
    site = tmp_path / "site"
    for number in range(300):
        (site / str(number)).write_bytes(b"x")
    watch.events.add(f"{site}/{number}" for number in range(100_000))
    assert sum(iter(lambda: watch.events.take() is not None, False)) == 100
    clock.now = 1
    while len(set(announcements.paths)) < 300:
        watch.step()
    assert clock.now == 1


def test_a_file_that_is_written_slowly_is_announced_once_it_is_closed(tmp_path: Path) -> None:
    watch, announcements, clock = watch_of(tmp_path)
    watch.step()
    with (tmp_path / "site" / "a").open("wb") as file:
        for second in range(1, 30):
            clock.now = second
            file.write(b"more")
            file.flush()
            watch.events.add([file.name])
            watch.step()
        assert announcements.found == []
    clock.now = 60
    watch.step()
    assert announcements.paths == ["a"]
    assert announcements.found[0].seen.size_bytes == 29 * 4


def test_the_kernel_tells_of_new_files_in_new_folders_and_in_a_folder_that_was_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With real inotify; some tenths of a second.
    announcements, stop = MemoryAnnouncements(), threading.Event()
    watch = Watch(settings_for(tmp_path, scan_every_s=3600), announcements)
    site = tmp_path / "site"

    def told_of(name: str) -> Callable[[], bool]:
        def probe() -> bool:
            (site / name).write_bytes(b"x")  # again and again: the kernel has to be asked first
            return name in announcements.paths

        return probe

    monkeypatch.setattr(watching, "ROOTS_MS", 50)
    running = threading.Thread(target=watch.run, args=(stop,))
    running.start()
    try:
        wait_until(lambda: not watch.finder.scanning and watch._scan_at > 0)
        wait_until(told_of("probe"))
        (tmp_path / "half").write_bytes(b"xx")
        (site / "new").mkdir()
        (site / "new" / "a").write_bytes(b"x")
        (tmp_path / "half").rename(site / "moved-in")
        Path(os.fsdecode(os.fsencode(site) + b"/\xff")).write_bytes(b"x")
        (site / "b").write_bytes(b"x")
        wait_until(lambda: {"b", "moved-in", "new/a"} <= set(announcements.paths))
        shutil.rmtree(os.fsencode(site))
        time.sleep(0.1)
        site.mkdir()
        wait_until(told_of("in the new one"))
        wait_until(lambda: not (watch._going or watch._again or watch.events._lost))
        before = watch._scan_at
        wait_until(told_of("and another"))
        assert watch._scan_at == before, "no scan found it"
    finally:
        stop.set()
        running.join(5)
    assert not running.is_alive()


def wait_until(condition: object) -> None:
    assert callable(condition)
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_kernel_that_refuses_leaves_it_to_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()

    def refuse(*_folders: Path, **_how: object) -> object:
        stop.set()
        raise OSError(28, "OS file watch limit reached.")

    monkeypatch.setattr(watching, "watch", refuse)
    events = Events(settings_for(tmp_path))
    events.run(stop)
    assert events.lost()
    assert not events.lost()
    assert "max_user_watches" in caplog.text


# -- The spool


def spool_of(tmp_path: Path) -> tuple[Spool, MemoryAnnouncements, Path]:
    settings, announcements = settings_for(tmp_path), MemoryAnnouncements()
    settings.spool.mkdir(parents=True)
    return Spool(settings, announcements), announcements, settings.spool


def drop(spool: Path, name: str, lines: bytes) -> None:
    """As the protocol has it: written under another name, then renamed."""
    (spool / f".{name}").write_bytes(lines)
    (spool / f".{name}").rename(spool / name)


def test_a_list_is_announced_and_then_removed(tmp_path: Path) -> None:
    spool, announcements, folder = spool_of(tmp_path)
    site = tmp_path / "site"
    for name in ("a b.jpg", "zwei\nZeilen", "größe"):
        (site / name).write_bytes(b"x")
    drop(folder, "one", f"{site}/a b.jpg\r\n\n{json.dumps(f'{site}/zwei' + chr(10) + 'Zeilen')}\n{site}/größe".encode())
    (folder / ".unfinished").write_bytes(b"/no")
    assert spool.drain() == 1
    assert announcements.paths == ["a b.jpg", "größe", "zwei\nZeilen"]
    assert sorted(each.name for each in folder.iterdir()) == [".unfinished"]


def test_lines_that_cannot_be_announced_are_kept_with_their_reasons(tmp_path: Path) -> None:
    spool, announcements, folder = spool_of(tmp_path)
    site = tmp_path / "site"
    (site / "a").write_bytes(b"x")
    (site / "x.tmp").write_bytes(b"x")
    (site / "d").mkdir()
    (site / "link").symlink_to("a")
    (site / "linked").symlink_to("/etc")
    os.mkfifo(site / "fifo")
    bad = {
        b"relative/path": "absolute",
        b"/etc/passwd": "none of the folders",
        f"{site}/gone".encode(): "not there",
        f"{site}/d".encode(): "folder",
        f"{site}/link".encode(): "symbolic link",
        f"{site}/linked/passwd".encode(): "none of the folders",
        f"{site}/../../etc/passwd".encode(): "none of the folders",
        f"{site}/fifo".encode(): "FIFO",
        f"{site}/x.tmp".encode(): "pattern",
        f"{site}/.neve-attic/a".encode(): "neve's own",
        b"/\xff": "not UTF-8",
        b'"/half': "JSON",
        b"/" + b"x" * LINE_BYTES: "too long",
    }
    drop(folder, "two", b"\n".join([*bad, f"{site}/a".encode()]))
    assert spool.drain() == 1
    assert announcements.paths == ["a"]
    (refused,) = (folder / "refused").iterdir()
    assert refused.name.startswith("two.")
    told = [json.loads(line) for line in refused.read_text().splitlines()]
    assert len(told) == len(bad)
    for each, why in zip(told, bad.values(), strict=True):
        assert why in each["why"]


def test_a_list_stays_until_it_is_announced(tmp_path: Path) -> None:
    watch, announcements, clock = watch_of(tmp_path)
    site, folder = tmp_path / "site", watch.settings.spool
    (site / "a").write_bytes(b"x")
    watch.step()
    announcements.found.clear()
    announcements.refusing = True
    drop(folder, "one", f"{site}/a\nwrong\n".encode())
    clock.now = 1
    watch.step()
    assert (folder / "one").exists()
    announcements.refusing = False
    clock.now = 2
    watch.step()
    assert announcements.paths == ["a"]
    assert [each.name for each in folder.iterdir()] == ["refused"]
    assert len(list((folder / "refused").iterdir())) == 1


def test_a_list_that_cannot_be_read_or_removed_holds_up_no_other_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool, announcements, folder = spool_of(tmp_path)
    for name in "abc":
        (tmp_path / "site" / name).write_bytes(b"x")
        drop(folder, name, f"{tmp_path}/site/{name}\n".encode())
    unlink, open_list = Path.unlink, open_file

    def remove(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    def read(path: Path, name: str) -> int:
        if name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return open_list(path, name)

    monkeypatch.setattr(Path, "unlink", remove)
    monkeypatch.setattr("neve_edge.spool.open_file", read)
    for _ in range(3):
        spool.drain()
    assert announcements.paths == ["a", "c"]
    assert sorted(each.name for each in folder.iterdir()) == ["a", "b"]
    assert caplog.text.count("cannot take a list") == 2


def test_a_list_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    spool, announcements, folder = spool_of(tmp_path)
    (tmp_path / "site" / "a").write_bytes(b"x")
    with (folder / "one").open("wb") as file:
        file.write(f"{tmp_path}/site/a\n".encode())
        file.flush()
        assert spool.drain() == 0
    assert spool.drain() == 1
    assert announcements.paths == ["a"]


def test_a_spool_that_went_away_is_told_and_stops_nothing(tmp_path: Path) -> None:
    watch, announcements, _ = watch_of(tmp_path)
    watch.settings.spool.rmdir()
    (tmp_path / "site" / "a").write_bytes(b"x")
    watch.step()
    assert announcements.paths == ["a"]

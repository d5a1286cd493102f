"""The journal: one file a host, whoever reads it, writes it or dies over it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neve.errors import Transient
from neve_edge import journal as module
from neve_edge.announcement import Found, Seen
from neve_edge.journal import LONGEST_PAUSE_S, Journal, JournalUnfit

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Open = Callable[[], Journal]


@pytest.fixture
def clock() -> list[datetime]:
    return [NOW]


@pytest.fixture
def opened(tmp_path: Path, clock: list[datetime], monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setattr(module, "_SYNCHRONOUS", "OFF")
    made: list[Journal] = []

    def open_journal() -> Journal:
        made.append(Journal(tmp_path / "edge.db", host="web1", clock=lambda: clock[0]))
        return made[-1]

    yield open_journal
    for each in made:
        each.close()


def found(name: str, *, size: int = 1, keep: bool = False) -> Found:
    seen = Seen(size_bytes=size, mtime_ns=1, inode=1, device=1)
    return Found(folder="f", path=name, key=f"k/{name}", seen=seen, keep=keep)


def names(journal: Journal, limit: int = 10) -> list[str]:
    return [each.announcement.found.path for each in journal.take(limit)]


def test_what_is_announced_is_taken_once_the_oldest_first(opened: Open, clock: list[datetime]) -> None:
    journal = opened()
    assert journal.put([found("b"), found("a"), found("b")]) == 2
    clock[0] += timedelta(seconds=1)
    journal.put([found("0")])
    [first] = journal.take(1)
    assert first.announcement.found == found("b")
    assert first.tries == 1
    assert names(journal) == ["a", "0"]
    assert names(journal) == []
    journal.done([first])
    assert journal.put([found("b"), found("a")]) == 1, "b was let go and is there again; a is worked on"


def test_numbers_rise_and_are_never_given_twice_even_if_the_journal_is_lost(
    opened: Open, clock: list[datetime], tmp_path: Path
) -> None:
    journal = opened()
    journal.put([found(str(number)) for number in range(5)])
    numbers = [each.announcement.sequence for each in journal.take(10)]
    assert numbers == sorted(set(numbers))
    journal.close()
    for file in tmp_path.glob("edge.db*"):
        if file.is_file():
            file.unlink()
    clock[0] += timedelta(seconds=1)
    again = opened()
    again.put([found("x")])
    assert again.take(1)[0].announcement.sequence > max(numbers)


def test_a_file_that_is_announced_anew_while_it_is_worked_on_is_taken_again_after_that(opened: Open) -> None:
    journal = opened()
    for end in ("done", "later"):
        journal.put([found("a")])
        taken = journal.take(1)
        assert journal.put([found("a", size=2)]) == 1
        assert names(journal) == [], "one at a time"
        if end == "done":
            journal.done(taken)
        else:
            journal.later(taken, after_s=60, why="it changed")
        [again] = journal.take(1)
        assert again.announcement.found.seen.size_bytes == 2
        journal.done([again])


def test_what_is_put_off_comes_back_at_its_time_and_says_why(opened: Open, clock: list[datetime]) -> None:
    journal = opened()
    journal.put([found("a")])
    journal.later(journal.take(1), after_s=60, why="S3 is away")
    assert names(journal) == []
    [trouble] = journal.troubles(5)
    assert (trouble.path, trouble.why, trouble.tries) == ("a", "S3 is away", 1)
    assert trouble.next_try == NOW + timedelta(seconds=60)
    assert journal.summary().put_off == 1
    clock[0] += timedelta(seconds=60)
    assert journal.take(1)[0].tries == 2


@pytest.mark.parametrize("jump_s", [-LONGEST_PAUSE_S - 1, -3600, -400 * 86_400, 400 * 86_400])
def test_a_clock_that_jumps_keeps_neither_new_files_nor_those_put_off_waiting(
    opened: Open, clock: list[datetime], jump_s: int
) -> None:
    journal = opened()
    journal.put([found("put off")])
    journal.later(journal.take(1), after_s=LONGEST_PAUSE_S, why="S3 is away")
    journal.put([found("new")])
    clock[0] += timedelta(seconds=jump_s)
    assert sorted(names(journal)) == ["new", "put off"]


def test_no_pause_is_so_long_that_it_looks_like_a_clock_that_went_wrong(opened: Open) -> None:
    journal = opened()
    journal.put([found("a")])
    journal.later(journal.take(1), after_s=86_400, why="quiet_s is a day")
    assert names(journal) == []


def test_neither_new_files_nor_those_put_off_hold_up_the_others(opened: Open, clock: list[datetime]) -> None:
    journal = opened()
    journal.put([found(f"old{number}") for number in range(6)])
    journal.later(journal.take(6), after_s=1, why="S3 is away")
    journal.put([found(f"new{number}") for number in range(6)])
    clock[0] += timedelta(seconds=1)
    assert names(journal, 4) == ["new0", "new1", "old0", "old1"]
    assert names(journal, 10) == ["new2", "new3", "new4", "new5", "old2", "old3", "old4", "old5"]


def test_what_a_dead_process_had_is_free_at_once_and_a_living_one_keeps_its_own(opened: Open) -> None:
    dead, living, other = opened(), opened(), opened()
    dead.put([found("a")])
    living.put([found("b")])
    assert names(dead, 1) == ["a"]
    assert names(living, 1) == ["b"]
    os.close(dead._held)  # as the kernel does
    dead._held = -1
    other._buried_at = 0.0
    assert names(other) == ["a"]
    locks = list((other._path.with_name("edge.db-owners")).iterdir())
    assert {lock.name for lock in locks} == {living.owner, other.owner}


def test_what_a_dead_process_of_root_had_is_free_for_an_agent_of_another_user(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        root, agent, locked = opened(), opened(), opened()
        root.put([found("a"), found("b")])
        assert names(root, 1) == ["a"]
    finally:
        os.umask(before)
    lock = tmp_path / "edge.db-owners" / root.owner
    assert lock.stat().st_mode & 0o777 == 0o644
    assert names(locked, 1) == ["b"]
    real = os.open

    def as_others(path: Any, flags: int, *more: Any, **how: Any) -> int:
        if os.fspath(path) == os.fspath(lock) and flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if os.fspath(path).endswith(locked.owner):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, flags, *more, **how)

    os.close(root._held)
    root._held = -1
    monkeypatch.setattr(os, "open", as_others)
    agent._buried_at = 0.0
    assert names(agent) == ["a"], "of the one that cannot be seen nothing is taken"


def test_a_process_that_closes_gives_back_what_it_had(opened: Open) -> None:
    first, second = opened(), opened()
    first.put([found("a")])
    assert names(first) == ["a"]
    first.close()
    assert names(second) == ["a"]


def test_status_reads_while_others_write_and_changes_nothing(opened: Open, tmp_path: Path) -> None:
    journal = opened()
    journal.put([found("a", size=7)])
    with closing(Journal(tmp_path / "edge.db", host="web1", clock=lambda: NOW, read_only=True)) as reader:
        journal.put([found("b", size=8)])
        summary = reader.summary()
        assert (summary.waiting, summary.waiting_bytes, summary.oldest) == (2, 15, NOW)
        assert reader.standing("f", "a").state == "waiting"
        with pytest.raises(Transient, match="readonly"):
            reader.put([found("c")])
    with pytest.raises(JournalUnfit, match="nothing was announced here yet"):
        Journal(tmp_path / "none.db", host="web1", clock=lambda: NOW, read_only=True)


def test_what_is_no_journal_of_this_layout_is_refused_with_the_remedy(opened: Open, tmp_path: Path) -> None:
    opened().close()
    with sqlite3.connect(tmp_path / "edge.db") as database:
        database.execute("UPDATE journal SET value = 99 WHERE part = 'schema'")
    database.close()
    with pytest.raises(JournalUnfit, match="layout 99"):
        opened()
    (tmp_path / "text").write_text("this is not a database at all, however long one looks at it" * 20)
    with pytest.raises(JournalUnfit, match="is no journal"):
        Journal(tmp_path / "text", host="web1", clock=lambda: NOW)


def test_a_journal_of_another_user_is_refused_with_the_remedy(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    opened()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "edge.db")
    with pytest.raises(JournalUnfit, match="`chown` it"):
        opened()


def test_a_full_disk_is_something_that_passes(opened: Open) -> None:
    journal = opened()
    journal._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Transient, match="full"):
        journal.put([found(f"{number:0200d}") for number in range(2000)])
    journal._database.execute("PRAGMA max_page_count = 100000")
    assert journal.put([found("a")]) == 1
